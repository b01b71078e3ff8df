//! Stores joined to one: the result is the store that was never divided.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::{append_range, options};
use lucid_data::DataError;
use lucid_data::progress::{Observer, Silent};
use lucid_data::store::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn write(path: PathBuf, range: Range<usize>, o: StoreOptions) -> PathBuf {
    let mut writer = StoreWriter::create(&path, o).unwrap();
    append_range(&mut writer, range);
    writer.finish().unwrap();
    path
}

/// A part as an extraction writes it.
fn part(dir: &Path, index: usize, of: usize, range: Range<usize>) -> PathBuf {
    let place = json!({ "index": index, "of": of, "first": range.start, "pairs": range.len() });
    let provenance = json!({ "backbone": { "id": "none" }, "part": place });
    write(dir.join(format!("part{index}")), range, StoreOptions { provenance, ..options(Precision::Bf16) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn merged_is_undivided(
        pairs in 1usize..24,
        cuts in proptest::collection::vec(0usize..24, 0..4),
        pairs_per_shard in 1usize..7,
        precision in proptest::sample::select(vec![Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let o = || StoreOptions { pairs_per_shard, ..options(precision) };
        let whole = write(dir.path().join("whole"), 0..pairs, o());
        let mut ends: Vec<usize> = cuts.into_iter().filter(|&c| c > 0 && c < pairs).chain([0, pairs]).collect();
        ends.sort_unstable();
        ends.dedup();
        let parts: Vec<PathBuf> =
            ends.windows(2).map(|w| write(dir.path().join(format!("{}", w[0])), w[0]..w[1], o())).collect();
        let out = dir.path().join("merged");
        let merged = merge_stores(&parts, &out, false, &Silent).unwrap();
        let undivided = StoreReader::open(&whole).unwrap();
        prop_assert_eq!(&merged.fingerprint, &undivided.manifest().fingerprint);
        for file in merged.all_files() {
            prop_assert_eq!(fs::read(out.join(&file.name)).unwrap(), fs::read(whole.join(&file.name)).unwrap());
        }
        // Only the sums of what rounding changed are made in another order.
        let (a, b) = (merged.precision_error.unwrap(), undivided.manifest().precision_error.unwrap());
        for (a, b) in [(a.vision, b.vision), (a.text, b.text)] {
            prop_assert_eq!((a.tokens, a.max_abs, a.min_cosine), (b.tokens, b.max_abs, b.min_cosine));
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-13 * b.abs();
            prop_assert!(near(a.squared_error, b.squared_error) && near(a.squared_norm, b.squared_norm));
            prop_assert!(near(a.relative_rms, b.relative_rms) && near(a.mean_cosine, b.mean_cosine));
        }
        let other = Manifest { precision_error: None, manifest_blake3: String::new(), ..merged };
        let expected =
            Manifest { precision_error: None, manifest_blake3: String::new(), ..undivided.manifest().clone() };
        prop_assert_eq!(other, expected);
        prop_assert!(StoreReader::open(&out).unwrap().verify(&Silent).unwrap().is_ok());
    }
}

#[test]
fn parts_of_an_extraction_are_put_in_order_and_lose_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let parts = [part(dir.path(), 1, 3, 5..9), part(dir.path(), 2, 3, 9..10), part(dir.path(), 0, 3, 0..5)];
    let out = dir.path().join("acts");
    let merged = merge_stores(&parts, &out, false, &Silent).unwrap();
    assert_eq!(merged.provenance, json!({ "backbone": { "id": "none" } }));
    let whole = write(dir.path().join("whole"), 0..10, options(Precision::Bf16));
    assert_eq!(merged.fingerprint, StoreReader::open(&whole).unwrap().fingerprint());
    assert_eq!(merge_stores(&parts, &out, false, &Silent).unwrap_err().code(), "E_EXISTS");
    let again = merge_stores_with(&parts, &out, MergeOptions { overwrite: true, pairs_per_shard: Some(10) }, &Silent);
    assert_eq!(again.unwrap().shards.len(), 1);
}

#[test]
fn shards_are_as_large_as_the_parts_were_to_have() {
    let dir = tempfile::tempdir().unwrap();
    let small = write(dir.path().join("a"), 0..2, StoreOptions { pairs_per_shard: 4, ..options(Precision::F16) });
    let more = write(dir.path().join("b"), 2..9, StoreOptions { pairs_per_shard: 4, ..options(Precision::F16) });
    let shards = |m: &Manifest| m.shards.iter().map(|s| s.pairs).collect::<Vec<_>>();
    let merged = merge_stores(&[small.clone(), more.clone()], &dir.path().join("m"), false, &Silent).unwrap();
    assert_eq!((shards(&merged), merged.pairs_per_shard), (vec![4, 4, 1], Some(4)));
    // Stores of older versions do not say it: the largest first shard stands for it.
    for store in [&small, &more] {
        rewrite(store, |m| {
            m.as_object_mut().unwrap().remove("pairsPerShard");
            m.as_object_mut().unwrap().remove("precisionError");
        });
    }
    let merged = merge_stores(&[small, more], &dir.path().join("n"), false, &Silent).unwrap();
    assert_eq!((shards(&merged), merged.precision_error), (vec![4, 4, 1], None));
}

/// Changes the manifest of a store and makes its hash right again.
fn rewrite(store: &Path, change: impl Fn(&mut Value)) {
    let file = store.join(MANIFEST);
    let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut manifest);
    manifest["manifestBlake3"] = json!("0".repeat(64));
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    fs::write(file, text.replace(&"0".repeat(64), &hash)).unwrap();
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let refuse = |parts: &[&PathBuf], texts: &[&str]| {
        let parts: Vec<PathBuf> = parts.iter().map(|p| (*p).clone()).collect();
        let error = merge_stores(&parts, &at("out"), false, &Silent).unwrap_err();
        assert_eq!(error.code(), "E_MERGE", "{error}");
        texts.iter().for_each(|t| assert!(error.to_string().contains(t), "{error}"));
        assert!(!error.hint().unwrap().is_empty() && error.details()["file"].is_string());
        let left = fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_str().is_some_and(|n| n.starts_with('.') || n == "out"));
        assert_eq!(left.count(), 0);
    };
    let a = write(at("a"), 0..3, options(Precision::F16));
    let precise = write(at("precise"), 3..5, options(Precision::F32));
    refuse(&[&a, &precise], &["precise cannot", "precision is f32, expected f16, as in", "/a"]);
    let wide = at("wide");
    let mut writer = StoreWriter::create(&wide, StoreOptions { d_text: 6, ..options(Precision::F16) }).unwrap();
    writer.append(&common::pair("x", &[1.0; 4], &[common::caption("", &[1.0; 6])])).unwrap();
    writer.finish().unwrap();
    refuse(&[&a, &wide], &["dText is 6, expected 3"]);
    let other = json!({ "backbone": "another" });
    let other = write(at("other"), 3..5, StoreOptions { provenance: other, ..options(Precision::F16) });
    refuse(&[&a, &other], &["provenance.backbone is \"another\", expected \"none\", as in"]);
    let again = write(at("again"), 2..5, options(Precision::F16));
    refuse(&[&a, &again], &["again cannot", "key \"2.jpg\" is pair 0", "pair 2 of", "/a has it too"]);
    refuse(&[&a, &a], &["\"0.jpg\""]);

    let parts = at("parts");
    let p: Vec<PathBuf> = (0..3).map(|i| part(&parts, i, 3, 4 * i..4 * i + 4)).collect();
    refuse(&[&p[0], &p[2]], &["part.index is 2, expected 1 (every part from 0 to 2, once)"]);
    refuse(&[&p[1], &p[2]], &["part.index is 1, expected 0"]);
    refuse(&[&p[1], &p[0]], &["the last part given is 1, expected part 2 of 3"]);
    refuse(&[&p[0], &p[1], &p[1], &p[2]], &["part.index is 1, expected another one than in", "part1"]);
    let short = part(&at("short"), 0, 2, 0..3);
    refuse(&[&p[0], &p[1], &p[2], &short], &["part.of is 2, expected 3"]);
    let gap = part(&at("gap"), 1, 3, 5..8);
    refuse(&[&p[0], &gap, &p[2]], &["part.first is 5, expected 4, where the part before it ends"]);
    let overlap = part(&at("overlap"), 1, 3, 3..8);
    refuse(&[&p[0], &overlap, &p[2]], &["part.first is 3, expected 4"]);
    let whole = json!({ "backbone": { "id": "none" } });
    let whole = write(at("whole"), 20..22, StoreOptions { provenance: whole, ..options(Precision::Bf16) });
    refuse(&[&p[0], &whole], &["whole cannot", "provenance.part is nothing"]);
    let strange = json!({ "part": { "index": "first" } });
    let strange = write(at("strange"), 0..2, StoreOptions { provenance: strange, ..options(Precision::F16) });
    refuse(&[&strange], &["provenance.part is {\"index\":\"first\"}"]);
    assert_eq!(merge_stores(&[], &at("out"), false, &Silent).unwrap_err().code(), "E_OPTION");
}

#[test]
fn a_part_may_hold_fewer_pairs_than_it_covers_but_not_more() {
    let dir = tempfile::tempdir().unwrap();
    let parts = [part(dir.path(), 0, 2, 0..4), part(dir.path(), 1, 2, 6..8)];
    rewrite(&parts[0], |m| m["provenance"]["part"]["pairs"] = json!(6));
    assert_eq!(merge_stores(&parts, &dir.path().join("out"), false, &Silent).unwrap().pairs, 6);
    rewrite(&parts[1], |m| m["provenance"]["part"]["pairs"] = json!(1));
    let error = merge_stores(&parts, &dir.path().join("more"), false, &Silent).unwrap_err();
    assert!(error.to_string().contains("part.pairs is 1, expected at least 2"), "{error}");
}

#[test]
fn damage_in_a_part_is_not_sealed_into_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let parts: Vec<PathBuf> = (0..2).map(|i| part(dir.path(), i, 2, 4 * i..4 * i + 4)).collect();
    let shard = parts[1].join("shard-000000.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[2048] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let Err(DataError::StoreDamaged { store, damage }) = merge_stores(&parts, &dir.path().join("out"), false, &Silent)
    else {
        panic!("merged")
    };
    assert_eq!((&store, damage[0].file.as_str()), (&parts[1], "shard-000000.safetensors"));
    assert!(!dir.path().join("out").exists());
}

#[test]
fn progress_rises_through_all_parts_and_cancelling_stops() {
    #[derive(Default)]
    struct Log(Mutex<Vec<(String, u64, u64)>>, bool);
    impl Observer for Log {
        fn progress(&self, stage: &str, done: u64, total: u64) {
            self.0.lock().unwrap().push((stage.to_string(), done, total));
        }
        fn cancelled(&self) -> bool {
            self.1 && self.0.lock().unwrap().iter().any(|(stage, ..)| stage == "merge")
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let parts: Vec<PathBuf> = (0..3).map(|i| part(dir.path(), i, 3, 2 * i..2 * i + 2)).collect();
    let log = Log::default();
    merge_stores(&parts, &dir.path().join("out"), false, &log).unwrap();
    let log = log.0.into_inner().unwrap();
    let merged: Vec<_> = log.iter().filter(|(stage, ..)| stage == "merge").map(|(_, done, of)| (*done, *of)).collect();
    assert_eq!(merged, (1..=6).map(|i| (i, 6)).collect::<Vec<_>>());
    let verified: Vec<_> =
        log.iter().filter(|(stage, ..)| stage == "verify").map(|&(_, done, of)| (done, of)).collect();
    assert_eq!(verified.iter().map(|v| v.0).max(), verified.first().map(|v| v.1));
    assert!(verified.iter().all(|v| v.0 <= v.1 && v.1 == verified[0].1));
    let error = merge_stores(&parts, &dir.path().join("stopped"), false, &Log(Mutex::default(), true)).unwrap_err();
    assert_eq!(error.code(), "E_CANCELLED");
    assert!(!dir.path().join("stopped").exists());
}

#[test]
fn single_pairs_can_be_taken_over_as_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = write(dir.path().join("a"), 0..6, options(Precision::Int8));
    let reader = StoreReader::open(&store).unwrap();
    let mut writer = StoreWriter::create(&dir.path().join("b"), options(Precision::Int8)).unwrap();
    (0..6).for_each(|i| writer.append_stored(&reader, i).unwrap());
    let copied = writer.finish().unwrap();
    assert_eq!((copied.fingerprint, copied.precision_error), (reader.fingerprint(), None));
    let mut writer = StoreWriter::create(&dir.path().join("c"), options(Precision::F16)).unwrap();
    let error = writer.append_stored(&reader, 0).unwrap_err();
    assert!(error.code() == "E_SHAPE" && error.to_string().contains("int8 of widths 4 and 3"), "{error}");
}
