//! Damaged, forged and newer stores: nothing is believed that is not true.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::{options, sample, store_in};
use lucid_data::DataError;
use lucid_data::progress::Silent;
use lucid_data::store::*;
use serde_json::{Value, json};

#[test]
fn one_flipped_byte_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    let names: Vec<String> =
        fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let file = path.join(&name);
        let good = fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(good.len() / 40 + 1).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&file, &bad).unwrap();
            // A manifest whose version became a higher one says so; everything else is damage under the file's name.
            match verify_store(&path, &Silent) {
                Err(e) => assert!(
                    name == MANIFEST && ["E_STORE_VERSION", "E_NOT_A_STORE"].contains(&e.code()),
                    "{name} at {at}: {e}"
                ),
                Ok(report) => {
                    let damaged: Vec<_> = report.damaged().into_iter().map(|d| d.file).collect();
                    assert_eq!(damaged, std::slice::from_ref(&name), "byte {at}");
                    assert_eq!(report.into_result().unwrap_err().code(), "E_STORE_DAMAGED");
                }
            }
            if !name.starts_with("shard") {
                assert!(StoreReader::open(&path).is_err(), "{name} at {at}");
            }
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(verify_store(&path, &Silent).unwrap().is_ok());
}

#[test]
fn every_damaged_file_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    fs::remove_file(path.join("shard-000000.safetensors")).unwrap();
    let shard = path.join("shard-000001.safetensors");
    let length = fs::metadata(&shard).unwrap().len();
    fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(length - 1).unwrap();
    fs::OpenOptions::new().append(true).open(path.join(PAIRS)).unwrap().write_all(b"\n").unwrap();
    let error = verify_store(&path, &Silent).unwrap().into_result().unwrap_err();
    assert_eq!(error.details()["damaged"].as_array().unwrap().len(), 3);
    for name in ["shard-000000", "shard-000001", PAIRS] {
        assert!(error.to_string().contains(name), "{error}");
    }
    // Opening lists both shards as well.
    let good = fs::read(path.join(PAIRS)).unwrap();
    fs::write(path.join(PAIRS), &good[..good.len() - 1]).unwrap();
    let Err(DataError::StoreDamaged { damage, .. }) = StoreReader::open(&path) else { panic!() };
    assert_eq!(damage.len(), 2);
}

#[test]
fn every_truncation_is_refused_when_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    for entry in fs::read_dir(&path).unwrap() {
        let file = entry.unwrap().path();
        let good = fs::read(&file).unwrap();
        for keep in (0..good.len()).step_by(good.len() / 30 + 1).chain([good.len() - 1]) {
            fs::write(&file, &good[..keep]).unwrap();
            let error = StoreReader::open(&path).err().unwrap_or_else(|| panic!("{} cut to {keep}", file.display()));
            assert!(["E_STORE_DAMAGED", "E_NOT_A_STORE"].contains(&error.code()), "{error}");
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(StoreReader::open(&path).is_ok());
}

/// Changes a shard and makes the manifest agree with it, as a careless or malicious program would.
fn forge(path: &Path, shard: &[u8]) {
    fs::write(path.join("shard-000000.safetensors"), shard).unwrap();
    let mut manifest: Value = serde_json::from_slice(&fs::read(path.join(MANIFEST)).unwrap()).unwrap();
    manifest["shards"][0]["bytes"] = json!(shard.len());
    manifest["shards"][0]["blake3"] = json!(blake3::hash(shard).to_hex().to_string());
    let mut lines: Vec<String> = ["shards", "files"]
        .iter()
        .flat_map(|k| manifest[*k].as_array().unwrap())
        .map(|f| format!("{} {}\n", f["name"].as_str().unwrap(), f["blake3"].as_str().unwrap()))
        .collect();
    lines.sort();
    manifest["fingerprint"] = json!(blake3::hash(lines.concat().as_bytes()).to_hex().to_string());
    manifest["manifestBlake3"] = json!("0".repeat(64));
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    fs::write(path.join(MANIFEST), text.replace(&"0".repeat(64), &hash)).unwrap();
}

#[test]
fn sizes_in_a_shard_are_checked_before_they_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acts");
    sample(2).write_to(&path, options(Precision::F16)).unwrap();
    let good = fs::read(path.join("shard-000000.safetensors")).unwrap();
    forge(&path, &good);
    let reader = StoreReader::open(&path).expect("an honest copy opens");
    let (patches, captions) = (reader.vision_len(0) + reader.vision_len(1), 2);
    drop(reader);
    let header = String::from_utf8(good[8..2048].to_vec()).unwrap();
    let range = |name: &str| -> (usize, usize) {
        let parsed: Value = serde_json::from_str(header.trim_end()).unwrap();
        let offsets = &parsed[name]["data_offsets"];
        (2048 + offsets[0].as_u64().unwrap() as usize, 2048 + offsets[1].as_u64().unwrap() as usize)
    };
    let with_header = |from: &str, to: &str| {
        let changed = header.replacen(from, to, 1);
        assert_ne!(changed, header);
        let mut bytes = good.clone();
        bytes[8..2048].copy_from_slice(format!("{:<2040}", changed.trim_end()).as_bytes());
        bytes
    };
    let with_word = |name: &str, index: usize, value: i64| {
        let mut bytes = good.clone();
        bytes[range(name).0 + 8 * index..][..8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let with_byte = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut long = good.clone();
    long[..8].copy_from_slice(&(good.len() as u64).to_le_bytes());
    let cases = [
        ("header length 2⁶⁴ − 1", huge),
        ("header longer than the file", long),
        ("wrong width", with_header("[32, 4]", "[4, 32]")),
        ("overflowing shape", with_header("[32, 4]", "[4611686018427387904, 4]")),
        ("missing tensor", with_header("\"token_kinds\"", "\"token_kindz\"")),
        ("wrong type", with_header("\"F16\"", "\"BF16\"")),
        ("first offset not 0", with_word("vision_offsets", 0, 1)),
        ("offsets that fall", with_word("vision_offsets", 1, patches as i64 + 1)),
        ("negative offset", with_word("text_offsets", 1, -1)),
        ("last offset beyond the end", with_word("text_offsets", captions, 1 << 40)),
        ("pair without caption", with_word("caption_offsets", 1, 0)),
        ("thumbnails beyond the end", with_word("thumbnail_offsets", 2, 5)),
        ("unknown token kind", with_byte(range("token_kinds").0, 9)),
        ("span outside the caption", with_byte(range("token_spans").0 + 7, 0x70)),
    ];
    for (what, bytes) in cases {
        forge(&path, &bytes);
        let error = StoreReader::open(&path).err().unwrap_or_else(|| panic!("{what} was believed"));
        assert_eq!(error.code(), "E_STORE_DAMAGED", "{what}: {error}");
        assert!(error.to_string().contains("shard-000000"), "{what}: {error}");
    }
}

#[test]
fn newer_versions_and_other_folders_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_in(dir.path());
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
    fs::write(path.join(MANIFEST), text.replace("\"formatVersion\": 1", "\"formatVersion\": 3")).unwrap();
    let error = StoreReader::open(&path).err().unwrap();
    assert_eq!((error.code(), error.details()["found"].as_u64()), ("E_STORE_VERSION", Some(3)));
    fs::write(path.join(MANIFEST), text.replace("shard-000000", "../../etc/x0")).unwrap();
    assert_eq!(StoreReader::open(&path).err().unwrap().code(), "E_STORE_DAMAGED");
    fs::write(path.join(MANIFEST), "{\"name\": \"something else\"}").unwrap();
    assert_eq!(StoreReader::open(&path).err().unwrap().code(), "E_NOT_A_STORE");
    assert_eq!(StoreReader::open(dir.path()).err().unwrap().code(), "E_NOT_A_STORE");
    assert_eq!(verify_store(&dir.path().join("nowhere"), &Silent).unwrap_err().code(), "E_NOT_A_STORE");
}
