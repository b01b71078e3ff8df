//! What a run does with good and with bad input.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use lucid_data::store::{ActivationSource, CaptionActivations, MemoryStore, PairActivations};
use lucid_sae::config::{Initialise, Method, Order};
use lucid_sae::{Config, Model, Preset, SaeError, TrainEvent, TrainHandle, TrainOptions, Unobserved, train};
use support::{Poisoned, Recorder, synthetic, tiny, tiny_store};

fn in_memory(config: Config) -> TrainOptions {
    TrainOptions { threads: 1, ..TrainOptions::new(config) }
}

#[test]
fn training_lowers_every_reconstruction_loss() {
    let data = synthetic(3, 120, 12, 16, 16);
    let validation = synthetic(3, 140, 12, 16, 16);
    // The rivals have a test of their own (rivals.rs): they see other states or have other blocks.
    for preset in Preset::ALL.into_iter().filter(|preset| preset.config().method == Method::Lucid) {
        let config = Config {
            d_shared: 24,
            d_private: 24,
            k_shared: 3,
            k_private: 3,
            lr: 1e-2,
            batch_pairs: 20,
            micro_pairs: 7,
            steps: 80,
            ..preset.config()
        };
        let observer = Recorder::default();
        let options = TrainOptions { eval_every: 40, preset: Some(preset), ..in_memory(config) };
        train(&data.store, Some(&validation.store), &options, &observer).unwrap();
        let events = observer.events.lock().unwrap();
        let losses = |wanted: usize| {
            let found = events.iter().find_map(|event| match event {
                TrainEvent::Step { step, losses, .. } if *step == wanted => Some(*losses),
                _ => None,
            });
            found.unwrap()
        };
        let (first, last) = (losses(1), losses(80));
        assert!(last.self_vision < 0.5 * first.self_vision, "{}: {first:?} {last:?}", preset.name());
        assert!(last.self_text < 0.5 * first.self_text, "{}: {first:?} {last:?}", preset.name());
        let r2 = events.iter().filter_map(|event| match event {
            TrainEvent::Eval { r2, split, pairs: 140, .. } if split == "validation" => Some(*r2),
            _ => None,
        });
        let r2: Vec<_> = r2.collect();
        assert_eq!(r2.len(), 2);
        assert!(r2[1].vision > r2[0].vision.min(0.5) && r2[1].vision <= 1.0, "{}: {r2:?}", preset.name());
    }
}

#[test]
fn a_step_tells_what_the_interface_promises() {
    let observer = Recorder::default();
    train(&tiny_store(), None, &in_memory(tiny()), &observer).unwrap();
    let events = observer.events.lock().unwrap();
    let step = events.iter().find(|event| matches!(event, TrainEvent::Step { step: 11, .. })).unwrap();
    let json = serde_json::to_value(step).unwrap();
    assert_eq!((&json["type"], &json["steps"]), (&"step".into(), &11.into()));
    assert_eq!(json["loss"], json["losses"]["total"]);
    // 11 batches of 5 out of 13 pairs.
    assert!((json["epoch"].as_f64().unwrap() - 55.0 / 13.0).abs() < 1e-12);
    let names = "self_vision self_text cross_vision cross_text align_vision align_text ot aux total";
    for name in names.split(' ') {
        assert!(json["losses"][name].as_f64().unwrap().is_finite(), "{name}");
    }
    // k is 3 + 2, and a token of the toy has fewer positive entries at most.
    for modality in ["vision", "text"] {
        let l0 = json["l0"][modality]["shared"].as_f64().unwrap();
        assert!(l0 > 0.0 && l0 <= 3.0, "{l0}");
        assert!(json["r2"][modality].as_f64().unwrap() < 1.0);
    }
    for name in ["lr", "gradNorm", "tokensPerSecond", "secondsData", "secondsStep"] {
        assert!(json[name].as_f64().unwrap() >= 0.0, "{name}");
    }
    assert!(json["dead"]["vision"]["shared"].is_u64());
    assert!(matches!(events.last(), Some(TrainEvent::Done { step: 11, path: None, .. })));
}

#[test]
fn a_nan_in_the_store_is_named_by_its_pair_and_what_was_learnt_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let store = Poisoned { inner: tiny_store(), pair: 7, value: f32::NAN };
    let config = Config { initialise: Initialise::Random, order: Order::Sequential, ..tiny() };
    let options = TrainOptions { out: Some(out.clone()), ..in_memory(config) };
    let error = train(&store, None, &options, &Unobserved).unwrap_err();
    let SaeError::NonFinite { what, step, pair, checkpoint } = &error else { panic!("{error}") };
    assert_eq!((what.as_str(), *step, pair.as_str()), ("activations", 1, "pair-7"));
    assert_eq!(error.code(), "E_NON_FINITE");
    assert!(checkpoint.as_ref().unwrap().join("MANIFEST.json").exists());

    // The paired start reads every pair first, and finds it there. Nothing was learnt, so the folder is free again.
    let options = TrainOptions { out: Some(folder.path().join("paired")), ..in_memory(tiny()) };
    let error = train(&store, None, &options, &Unobserved).unwrap_err();
    train(&store.inner, None, &options, &Unobserved).unwrap();
    assert!(matches!(&error, SaeError::NonFinite { pair, step: 0, .. } if pair == "pair-7"), "{error}");
}

#[test]
fn a_loss_or_gradient_that_overflows_is_named_by_its_pair() {
    for (value, expected) in [(3e38, "loss"), (1e25, "gradient")] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let store = Poisoned { inner: tiny_store(), pair: 7, value };
        let config = Config { order: Order::Sequential, steps: 11, ..Preset::Paper.config() };
        let config = Config { d_shared: 14, d_private: 10, k_shared: 3, k_private: 2, ..config };
        let config = Config { batch_pairs: 5, micro_pairs: 2, ..config };
        let options = TrainOptions { out: Some(out.clone()), checkpoint_every: 1, ..in_memory(config) };
        let error = train(&store, None, &options, &Unobserved).unwrap_err();
        let SaeError::NonFinite { what, step, pair, checkpoint } = &error else { panic!("{error}") };
        assert_eq!((what.as_str(), *step, pair.as_str()), (expected, 1, "pair-7"));
        assert_eq!(checkpoint.as_deref(), Some(out.join("checkpoints/step-0000001").as_path()));
        assert!(error.hint().unwrap().contains("step-0000001"));
    }
}

#[test]
fn whole_epochs_end_with_what_is_left() {
    let config = Config { steps: 0, epochs: 2, ..tiny() };
    let observer = Recorder::default();
    train(&tiny_store(), None, &in_memory(config), &observer).unwrap();
    // 26 visits in batches of 5.
    assert_eq!(observer.losses().len(), 6);
}

#[test]
fn a_batch_larger_than_the_store_takes_all_of_it_and_says_so() {
    let observer = Recorder::default();
    train(&tiny_store(), None, &in_memory(Config { batch_pairs: 100, steps: 2, ..tiny() }), &observer).unwrap();
    assert_eq!(observer.warnings(), ["W_BATCH"]);
}

#[test]
fn training_goes_on_from_a_model_folder_or_its_weights_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let first = train(&tiny_store(), None, &in_memory(tiny()), &Unobserved).unwrap();
    first.save(&path).unwrap();
    let still = Config { lr: 0.0, steps: 1, ..tiny() };
    for init in [path.clone(), path.join("model.safetensors")] {
        let options = TrainOptions { init: Some(init), ..in_memory(still.clone()) };
        // Another store has other means: those of the given model must be kept.
        let again = train(&synthetic(5, 20, 9, 12, 10).store, None, &options, &Unobserved).unwrap();
        assert_eq!(again.normalisation, first.normalisation);
        let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // lr 0 changes nothing but the renormalisation of unit rows.
        assert!(difference(&again.params.vision.w_dec, &first.params.vision.w_dec) < 1e-6);
        assert_eq!(again.params.text.w_enc, first.params.text.w_enc);
    }
}

#[test]
fn an_init_of_another_size_or_normalisation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    train(&tiny_store(), None, &in_memory(tiny()), &Unobserved).unwrap().save(&path).unwrap();
    let code = |init: &std::path::Path, config: Config, store: &MemoryStore| {
        let options = TrainOptions { init: Some(init.to_owned()), ..in_memory(config) };
        train(store, None, &options, &Unobserved).unwrap_err()
    };
    let file = path.join("model.safetensors");
    let wide = synthetic(5, 20, 9, 13, 10).store;
    for (init, config, store) in [
        (&path, tiny(), &wide),
        (&file, tiny(), &wide),
        (&path, Config { d_shared: 15, ..tiny() }, &tiny_store()),
        (&file, Config { d_shared: 15, ..tiny() }, &tiny_store()),
        // The same number of latents, split elsewhere.
        (&path, Config { d_shared: 13, d_private: 11, ..tiny() }, &tiny_store()),
    ] {
        let error = code(init, config, store);
        assert_eq!(error.code(), "E_SHAPE", "{error}");
    }
    let error = code(&path, Config { center: false, ..tiny() }, &tiny_store());
    assert_eq!((error.code(), &error.details()["option"]), ("E_OPTION", &"center".into()));
    let error = code(&file, Config { center: false, scale: false, ..tiny() }, &tiny_store());
    assert_eq!(error.code(), "E_OPTION");
    let error = code(&folder.path().join("absent"), tiny(), &tiny_store());
    assert_eq!(error.code(), "E_IO");
    std::fs::write(folder.path().join("x.safetensors"), b"no tensors").unwrap();
    let error = code(&folder.path().join("x.safetensors"), tiny(), &tiny_store());
    assert_eq!(error.code(), "E_DAMAGED");
}

#[test]
fn stores_that_cannot_train_a_model_are_refused() {
    let error = |store: &MemoryStore, validation: Option<&dyn ActivationSource>, config: Config| {
        train(store, validation, &in_memory(config), &Unobserved).unwrap_err()
    };
    let empty = MemoryStore::new(12, 10).unwrap();
    assert_eq!(error(&empty, None, tiny()).code(), "E_OPTION");
    let other = synthetic(5, 4, 9, 12, 11).store;
    assert_eq!(error(&tiny_store(), Some(&other), tiny()).code(), "E_SHAPE");

    let mut constant = MemoryStore::new(2, 2).unwrap();
    for pair in 0..3 {
        let captions = [CaptionActivations { text: "", states: &[0.3, 0.7], ids: &[], kinds: &[], spans: &[] }];
        let (key, vision) = (format!("{pair}"), [0.1, 0.2, 0.1, 0.2]);
        constant
            .push(&PairActivations {
                key: &key,
                vision: &vision,
                vision_grid: [1, 2],
                captions: &captions,
                size: None,
                boxes: &[],
                thumbnail: None,
            })
            .unwrap();
    }
    let config = Config { d_shared: 2, d_private: 2, k_shared: 1, k_private: 1, steps: 2, ..Config::default() };
    let found = error(&constant, None, config.clone());
    assert_eq!((found.code(), &found.details()["option"]), ("E_OPTION", &"activations".into()));
    // Pairs whose pooled states are equal have no pooled variance to divide by.
    let one = synthetic(5, 1, 9, 12, 10).store;
    let found = error(&one, None, tiny());
    assert_eq!(found.details()["option"], "alignNormalization", "{found}");
}

#[test]
fn a_run_of_its_own_thread_reports_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = Config { steps: 100_000, ..tiny() };
    let options = TrainOptions { out: Some(out.clone()), ..in_memory(config) };
    let handle = TrainHandle::spawn(Arc::new(tiny_store()), None, options).unwrap();
    let first = handle.events.iter().find(|event| matches!(event, TrainEvent::Step { .. }));
    assert!(first.is_some());
    handle.cancel();
    let error = handle.join().unwrap_err();
    let SaeError::Cancelled { step } = error else { panic!("{error}") };
    assert!(out.join(format!("checkpoints/step-{step:07}/MANIFEST.json")).exists());
    assert_eq!(Model::load(&out).unwrap_err().code(), "E_NOT_A_MODEL");
}

/// A store whose reader breaks at one pair.
struct Breaking(MemoryStore);

impl ActivationSource for Breaking {
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
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> lucid_data::Result<()> {
        assert!(pair != 8, "pair 8 cannot be read");
        self.0.read_vision(pair, out)
    }
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> lucid_data::Result<()> {
        self.0.read_text(pair, caption, out)
    }
    fn statistics(&self) -> lucid_data::store::Statistics {
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
fn a_reader_that_breaks_is_an_error_and_no_crash() {
    let config = Config { initialise: Initialise::Random, order: Order::Sequential, ..tiny() };
    let error = train(&Breaking(tiny_store()), None, &in_memory(config), &Unobserved).unwrap_err();
    assert_eq!(error.code(), "E_INTERNAL", "{error}");
}
