//! A store divided into two, and one reading shared by several readers.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{append_range, options};
use lucid_data::progress::Silent;
use lucid_data::store::*;
use serde_json::json;

fn store(dir: &std::path::Path, pairs: usize) -> StoreReader {
    let provenance = json!({ "backbone": { "id": "none" }, "dataset": { "scenes": { "seed": 1 } } });
    let path = dir.join("whole");
    let mut writer = StoreWriter::create(&path, StoreOptions { provenance, ..options(Precision::F16) }).unwrap();
    append_range(&mut writer, 0..pairs);
    writer.finish().unwrap();
    StoreReader::open(&path).unwrap()
}

fn keys(store: &StoreReader) -> Vec<String> {
    (0..store.pairs()).map(|pair| store.key(pair).to_owned()).collect()
}

#[test]
fn the_parts_hold_every_pair_once_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let whole = store(dir.path(), 23);
    let (rest, held_out) = (dir.path().join("rest"), dir.path().join("held-out"));
    let (first, second) = split_store(&whole, &rest, &held_out, SplitOptions::default(), &Silent).unwrap();
    assert_eq!((first.pairs, second.pairs), (18, 5));
    let parts = [StoreReader::open(&rest).unwrap(), StoreReader::open(&held_out).unwrap()];
    let known = keys(&whole);
    let mut seen = BTreeSet::new();
    for part in &parts {
        let mut last = None;
        for (at, key) in keys(part).into_iter().enumerate() {
            let from = known.iter().position(|other| *other == key).unwrap();
            assert!(last < Some(from), "the order of the store is kept");
            last = Some(from);
            let (mut a, mut b) = (vec![0.0; part.vision_len(at) * part.d_vision()], vec![]);
            b.resize(a.len(), 0.0);
            part.read_vision(at, &mut a).unwrap();
            whole.read_vision(from, &mut b).unwrap();
            assert_eq!(a, b);
            assert_eq!(part.info(at), whole.info(from));
            assert!(seen.insert(from));
        }
        // Pair i of a part is not record i of the data set any more.
        assert!(part.manifest().provenance.get("dataset").is_none());
        assert_eq!(part.manifest().provenance["backbone"]["id"], "none");
        assert_eq!(part.manifest().provenance["split"]["of"], whole.manifest().fingerprint.as_str());
    }
    assert_eq!(seen.len(), 23);
}

#[test]
fn the_seed_chooses_and_bad_shares_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = store(dir.path(), 23);
    let split = |name: &str, options: SplitOptions| {
        let (rest, held_out) = (dir.path().join(format!("{name}-a")), dir.path().join(format!("{name}-b")));
        split_store(&whole, &rest, &held_out, options, &Silent)?;
        Ok::<_, lucid_data::DataError>(keys(&StoreReader::open(&held_out).unwrap()))
    };
    let seed = |seed| SplitOptions { seed, ..SplitOptions::default() };
    assert_eq!(split("one", seed(0)).unwrap(), split("two", seed(0)).unwrap());
    assert_ne!(split("three", seed(1)).unwrap(), split("four", seed(2)).unwrap());
    for share in [0.0, 1.0, -0.5, f64::NAN] {
        let error = split("bad", SplitOptions { share, ..SplitOptions::default() }).unwrap_err();
        assert_eq!(error.code(), "E_OPTION", "{error}");
    }
    // However small the share, one pair is held out, and never all of them.
    assert_eq!(split("few", SplitOptions { share: 1e-9, ..SplitOptions::default() }).unwrap().len(), 1);
    assert_eq!(split("most", SplitOptions { share: 1.0 - 1e-9, ..SplitOptions::default() }).unwrap().len(), 22);
}

/// Counts the reads of a source.
struct Counting<'a>(&'a StoreReader, AtomicUsize);

impl ActivationSource for Counting<'_> {
    fn pairs(&self) -> usize {
        self.0.pairs()
    }
    fn d_vision(&self) -> usize {
        self.0.d_vision()
    }
    fn d_text(&self) -> usize {
        self.0.d_text()
    }
    fn vision_len(&self, pair: usize) -> usize {
        self.0.vision_len(pair)
    }
    fn captions(&self, pair: usize) -> usize {
        self.0.captions(pair)
    }
    fn text_len(&self, pair: usize, caption: usize) -> usize {
        self.0.text_len(pair, caption)
    }
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> Result<(), lucid_data::DataError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_vision(pair, out)
    }
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> Result<(), lucid_data::DataError> {
        self.0.read_text(pair, caption, out)
    }
    fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }
    fn key(&self, pair: usize) -> &str {
        self.0.key(pair)
    }
}

#[test]
fn readers_of_one_order_share_every_read() {
    let dir = tempfile::tempdir().unwrap();
    let whole = store(dir.path(), 9);
    let counting = Counting(&whole, AtomicUsize::new(0));
    let read = |source: &dyn ActivationSource, pair: usize| {
        let mut out = vec![0.0; source.vision_len(pair) * source.d_vision()];
        source.read_vision(pair, &mut out).unwrap();
        out
    };
    let expected: Vec<_> = (0..9).map(|pair| read(&whole, pair)).collect();
    let shared = SharedReads::new(&counting, 3, usize::MAX);
    for epoch in 1..=4 {
        for _reader in 0..3 {
            (0..9).for_each(|pair| assert_eq!(read(&shared, pair), expected[pair]));
        }
        assert_eq!(counting.1.load(Ordering::Relaxed), 9 * epoch);
    }
    assert_eq!(shared.counts(), (36, 72));
    // With room for nothing every read goes to the source, and the states are the same.
    let narrow = SharedReads::new(&counting, 3, 1);
    (0..2).for_each(|_| (0..9).for_each(|pair| assert_eq!(read(&narrow, pair), expected[pair])));
    assert_eq!(narrow.counts(), (18, 0));
}
