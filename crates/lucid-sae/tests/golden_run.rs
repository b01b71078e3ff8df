//! Whole runs, from a store and an init file to the model, against twelve steps of an independent implementation.
#![allow(clippy::unwrap_used)]

mod common;
mod support;

use std::collections::BTreeMap;

use common::{Fixture, narrow, relative_error, widen};
use lucid_data::store::{CaptionActivations, MemoryStore, PairActivations};
use lucid_kernels::Modality;
use lucid_sae::config::{Config, Order};
use lucid_sae::{TrainOptions, train};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use support::Recorder;

fn store(fixture: &Fixture) -> MemoryStore {
    let (vision, text): (Vec<f32>, Vec<f32>) =
        (narrow(fixture.values("batch.vision")), narrow(fixture.values("batch.text")));
    let mut store = MemoryStore::new(24, 20).unwrap();
    let lengths = fixture.lengths(Modality::Vision).into_iter().zip(fixture.lengths(Modality::Text));
    let (mut v, mut t) = (0, 0);
    for (pair, (patches, tokens)) in lengths.enumerate() {
        let states = &text[t * 20..(t + tokens) * 20];
        let captions = [CaptionActivations { text: "", states, ids: &[], kinds: &[], spans: &[] }];
        let key = format!("{pair}");
        let pair = PairActivations {
            key: &key,
            vision: &vision[v * 24..(v + patches) * 24],
            vision_grid: [1, patches as u32],
            captions: &captions,
            size: None,
            boxes: &[],
            thumbnail: None,
        };
        store.push(&pair).unwrap();
        (v, t) = (v + patches, t + tokens);
    }
    store
}

#[test]
fn a_run_from_given_weights_makes_the_steps_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["paper", "unit-norm"] {
        let fixture = Fixture::load(&format!("train-{name}.safetensors"));
        let init = folder.path().join(format!("{name}.safetensors"));
        let bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = fixture
            .tensors
            .iter()
            .filter_map(|(name, (shape, values))| {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                Some((name.strip_prefix("param.")?.to_owned(), (shape.clone(), bytes)))
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &init).unwrap();

        let config = Config { order: Order::Sequential, steps: 12, batch_pairs: 2, micro_pairs: 1, ..fixture.config() };
        let options = TrainOptions { init: Some(init), threads: 2, ..TrainOptions::new(config) };
        let observer = Recorder::default();
        let model = train(&store(&fixture), None, &options, &observer).unwrap();
        let losses = observer.losses();
        assert_eq!(losses.len(), 12);
        // The tolerances of the step in f32.
        for (found, expected) in losses.iter().zip(fixture.values("losses")) {
            assert!((found - expected).abs() < 2e-4 * expected, "{name}: loss {found} against {expected}");
        }
        for modality in Modality::ALL {
            for tensor in model.params.of(modality).tensors() {
                let expected = fixture.values(&format!("final.{}.{}", modality.name(), tensor.name));
                let error = relative_error(&widen(tensor.values), expected);
                assert!(error < 2e-4, "{name} {}.{}: relative error {error}", modality.name(), tensor.name);
            }
        }
    }
}
