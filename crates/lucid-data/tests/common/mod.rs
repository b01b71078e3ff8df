//! Small stores for the tests of the store.
// Every test binary uses some of these.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

pub mod failing;

use std::path::{Path, PathBuf};

use lucid_data::BoxAnnotation;
use lucid_data::store::{
    AnnotatedSource, CaptionActivations, MemoryStore, PairActivations, Precision, StoreOptions, StoreWriter,
};
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

/// Normal numbers from a seed (sums of twelve uniform ones).
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

/// Appends pairs `range` of an endless set whose pairs differ in everything they may differ in.
pub fn append_range(writer: &mut StoreWriter, range: std::ops::Range<usize>) {
    for i in range {
        let patches = 1 + i % 4;
        let vision = normal(i as u64, 4 * patches);
        let states: Vec<Vec<f32>> =
            (0..1 + i % 3).map(|c| normal((1000 * (c + 1) + i) as u64, 3 * (1 + (i + c) % 4))).collect();
        let ids: Vec<u32> = (0..4).map(|k| (i * k) as u32).collect();
        let captions: Vec<_> = states
            .iter()
            .enumerate()
            .map(|(c, states)| {
                let n = states.len() / 3;
                let known = (i + c) % 2;
                CaptionActivations {
                    text: ["", "ä cat"][known],
                    states,
                    ids: &ids[..n * known],
                    kinds: &[0, 1, 0, 1][..n * known],
                    spans: &[[0, 2], [3, 6], [0, 0], [2, 3]][..n * known],
                }
            })
            .collect();
        let boxes = [BoxAnnotation { x: 0.1 * i as f64, width: 1.5, height: 1.0 / 3.0, ..Default::default() }];
        let (thumbnail, key) = ([i as u8, 1, 2], format!("{i}.jpg"));
        let activations = PairActivations {
            size: (i % 2 == 0).then_some([i as u32, 7]),
            boxes: &boxes[..i % 2],
            thumbnail: (i % 3 == 1).then_some(&thumbnail),
            ..pair(&key, &vision, &captions)
        };
        writer.append(&activations).unwrap();
    }
}
