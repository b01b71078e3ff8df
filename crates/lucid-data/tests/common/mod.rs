//! Small stores for the tests of the store.
// Every test binary uses some of these.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use lucid_data::store::{AnnotatedSource, CaptionActivations, MemoryStore, PairActivations, Precision, StoreOptions};
use lucid_data::synth::{SynthOptions, synth};
use serde_json::json;

pub fn options(precision: Precision) -> StoreOptions {
    StoreOptions { precision, pairs_per_shard: 3, provenance: json!({ "backbone": "none" }), ..StoreOptions::new(4, 3) }
}

pub fn sample(pairs: usize) -> MemoryStore {
    let o = SynthOptions {
        pairs,
        d_vision: 4,
        d_text: 3,
        concepts: 6,
        private_vision: 2,
        private_text: 2,
        grid: 4,
        ..SynthOptions::default()
    };
    synth(&o).unwrap().0
}

pub fn caption<'a>(text: &'a str, states: &'a [f32]) -> CaptionActivations<'a> {
    CaptionActivations { text, states, ids: &[], kinds: &[], spans: &[] }
}

pub fn pair<'a>(key: &'a str, vision: &'a [f32], captions: &'a [CaptionActivations<'a>]) -> PairActivations<'a> {
    let vision_grid = [1, (vision.len() / 4) as u32];
    PairActivations { key, vision, vision_grid, captions, size: None, boxes: &[], thumbnail: None }
}

pub fn read_all(source: &dyn AnnotatedSource, i: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut vision = vec![0.0; source.vision_len(i) * source.d_vision()];
    source.read_vision(i, &mut vision).unwrap();
    let texts = (0..source.captions(i)).map(|c| {
        let mut text = vec![0.0; source.text_len(i, c) * source.d_text()];
        source.read_text(i, c, &mut text).unwrap();
        text
    });
    (vision, texts.collect())
}

pub fn store_in(dir: &Path) -> PathBuf {
    let path = dir.join("acts");
    sample(7).write_to(&path, options(Precision::F16)).unwrap();
    path
}
