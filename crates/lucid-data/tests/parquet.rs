//! Parquet files in Hugging Face's layout; the fixtures are made by `fixtures/make_parquet.py` with pyarrow.
#![allow(clippy::unwrap_used)]

mod sets;

use std::fs;

use lucid_data::DatasetSpec;
use serde_json::json;
use sets::{Record, fixture, open, outline, records, refused, skipping};

const KEYS: [&str; 4] = ["000000000001.png", "000000000002.png", "000000000010.png", "000000000011.png"];

fn short(found: &[Record]) -> Vec<(&str, String)> {
    found.iter().map(|r| (r.key.as_str(), r.captions.join("|"))).collect()
}

#[test]
fn every_codec_gives_the_same_pictures_and_nested_captions() {
    let expected = ["One.|Another one.", "Two, \"quoted\"", "Zehn äöü", "Eleven"];
    let expected: Vec<_> = KEYS.into_iter().zip(expected.map(String::from)).collect();
    let mut first = None;
    for codec in ["snappy", "zstd", "gzip", "lz4", "none"] {
        let set = open(json!({ "parquet": fixture(&format!("nested-{codec}.parquet")) }));
        assert_eq!((set.len(), set.count()), (4, Some(4)));
        let found = records(&*set);
        assert_eq!(short(&found), expected, "{codec}");
        assert!(found.iter().all(|r| r.bytes.starts_with(b"\x89PNG")));
        assert_eq!(first.get_or_insert(found.clone()), &found);
        // Any order, over the bounds of row groups.
        for i in [3, 0, 2, 3, 1] {
            assert_eq!(sets::plain(set.pair(i).unwrap()), found[i]);
        }
        assert_eq!(set.pair(4).unwrap_err().code(), "E_SHAPE");
    }
}

#[test]
fn columns_are_found_by_default_names_or_told() {
    let set = open(json!({ "parquet": fixture("plain.parquet") }));
    let found = records(&*set);
    assert_eq!(short(&found)[1], ("plain.parquet#1", "Two, \"quoted\"".into()));
    let told = json!({ "parquet": [fixture("renamed.parquet")], "image": "photo", "caption": "note" });
    assert_eq!(short(&records(&*open(told)))[3], (KEYS[3], "Eleven".into()));
    let inner = json!({ "parquet": { "files": fixture("struct.parquet"), "caption": "sentences.raw" } });
    assert_eq!(short(&records(&*open(inner)))[0], (KEYS[0], "One.|Another one.".into()));
    let all = |form| refused(form).1;
    assert!(all(json!({ "parquet": fixture("renamed.parquet") })).contains("it has photo, note"));
    assert!(all(json!({ "parquet": fixture("renamed.parquet"), "image": "photo" })).contains("it has photo, note"));
    assert!(all(json!({ "parquet": fixture("renamed.parquet"), "image": "note", "caption": "x" })).contains("\"x\""));
    assert!(all(json!({ "parquet": fixture("struct.parquet"), "image": "sentences" })).contains("neither bytes"));
    assert!(all(json!({ "parquet": fixture("numbers.parquet") })).contains("holds no texts"));
    let whole = open(json!({ "parquet": fixture("struct.parquet"), "caption": "sentences" }));
    let error = whole.pair(0).unwrap_err();
    assert!(error.code() == "E_DATASET" && error.to_string().contains("raw, sentid"), "{error}");
}

#[test]
fn nulls_are_bad_records_that_keep_their_positions() {
    let set = open(json!({ "parquet": fixture("nulls.parquet") }));
    let expected = [
        KEYS[0].to_string(),
        "E_IMAGE nulls.parquet#1".into(),
        "E_IMAGE b.png".into(),
        format!("E_NO_CAPTION {}", KEYS[3]),
        format!("E_NO_CAPTION {}", KEYS[2]),
        "nulls.parquet#5".into(),
    ];
    assert_eq!(outline(&*set), expected);
    let message = set.pair(2).unwrap_err().to_string();
    assert!(message.contains("path only") && !message.contains("somebody"), "{message}");
}

#[test]
fn keys_of_several_files_differ_and_tell_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, name) in [("train", "plain.parquet"), ("val", "plain.parquet"), ("val", "nested-none.parquet")] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fs::copy(fixture(name), dir.path().join(folder).join(name)).unwrap();
    }
    let form = json!({ "parquet": format!("{}/*/plain.parquet", dir.path().display()) });
    let set = open(form);
    let found = outline(&*set);
    assert_eq!(
        (found.len(), found[0].as_str(), found[7].as_str()),
        (8, "train/plain.parquet#0", "val/plain.parquet#3")
    );
    assert_eq!(serde_json::to_value(set.spec()).unwrap(), json!({ "parquet": "plain.parquet" }));
    // A name of the writer's machine that two rows share is no key.
    assert_eq!(outline(&*open(json!({ "parquet": fixture("repeated.parquet") }))), [KEYS[0], "repeated.parquet#1"]);
    let twice = json!({ "parquet": [fixture("plain.parquet"), fixture("pl*.parquet")] });
    assert!(refused(twice).1.contains("again by"));
}

#[test]
fn files_that_are_no_parquet_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let whole = fs::read(fixture("nested-zstd.parquet")).unwrap();
    fs::write(at("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    fs::write(at("zero.parquet"), b"").unwrap();
    for name in ["cut.parquet", "zero.parquet"] {
        let (code, message) = refused(json!({ "parquet": at(name) }));
        assert!(code == "E_DATASET" && message.contains(name), "{message}");
    }
    assert_eq!(refused(json!({ "parquet": at("none.parquet") })).0, "E_IO");
    assert_eq!(refused(json!({ "parquet": fixture("empty.parquet") })).0, "E_EMPTY");
    assert!(refused(json!({ "parquet": "https://example.org/a.parquet" })).1.contains("download"));
    for bad in [json!({ "parquet": 3 }), json!({ "parquet": "a", "images": "b" })] {
        assert!(serde_json::from_value::<DatasetSpec>(bad).is_err());
    }
}

#[test]
fn no_flipped_byte_takes_the_program_down() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.parquet");
    let mut refusals = 0;
    for name in ["nested-snappy.parquet", "nested-none.parquet", "plain.parquet"] {
        let whole = fs::read(fixture(name)).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes[(at * 7 + 3) % whole.len()] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            let spec = serde_json::from_value(json!({ "parquet": path })).unwrap();
            match lucid_data::open_dataset(&spec) {
                Ok(set) => refusals += set.stream(0).take(9).filter(|r| r.is_err()).count(),
                Err(_) => refusals += 1,
            }
        }
    }
    assert!(refusals > 1000, "{refusals}");
}

#[test]
fn skipping_is_left_to_who_reads() {
    let set = skipping(json!({ "parquet": fixture("nulls.parquet") }));
    assert_eq!((set.len(), set.skipped().len(), set.stream(0).flatten().count()), (6, 0, 2));
}
