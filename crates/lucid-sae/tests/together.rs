//! Several runs on one stream are the runs alone.
#![allow(clippy::unwrap_used)]

mod support;

use lucid_sae::{Config, Preset, TrainObserver, TrainOptions, Unobserved, train, train_together};
use support::{Recorder, synthetic, tiny};

fn options(preset: Preset, seed: u64) -> TrainOptions {
    let config = Config { seed, ..tiny() };
    let config = match preset {
        Preset::ShareKGsl => Config { mass_reweighting: false, lambda_global: 0.0, ..config },
        Preset::OtOnly => Config { beta: 0.0, w_ot: 0.1, ..config },
        _ => config,
    };
    TrainOptions { threads: 1, preset: Some(preset), ..TrainOptions::new(config) }
}

#[test]
fn each_has_the_bits_of_the_run_alone() {
    let data = synthetic(5, 40, 8, 12, 10);
    // Two of one seed, and one that walks the pairs in another order.
    let runs = [options(Preset::Default, 7), options(Preset::ShareKGsl, 7), options(Preset::OtOnly, 8)];
    let recorders: Vec<Recorder> = runs.iter().map(|_| Recorder::default()).collect();
    let observers: Vec<&dyn TrainObserver> = recorders.iter().map(|recorder| recorder as _).collect();
    let together = train_together(&data.store, None, &runs, &observers).unwrap();
    for ((options, model), recorder) in runs.iter().zip(together).zip(&recorders) {
        let alone = train(&data.store, None, options, &Unobserved).unwrap();
        assert_eq!(model.unwrap().params, alone.params);
        assert!(recorder.events.lock().unwrap().len() >= options.config.steps);
    }
}

#[test]
fn one_failure_is_no_others() {
    let data = synthetic(5, 40, 8, 12, 10);
    let bad = TrainOptions { init: Some("no/such/model".into()), ..options(Preset::Default, 7) };
    let runs = [bad, options(Preset::Default, 7)];
    let results = train_together(&data.store, None, &runs, &[&Unobserved, &Unobserved]).unwrap();
    assert!(results[0].is_err() && results[1].is_ok());
    let twice = TrainOptions { out: Some("same".into()), ..options(Preset::Default, 7) };
    let error = train_together(&data.store, None, &[twice.clone(), twice], &[&Unobserved, &Unobserved]).unwrap_err();
    assert_eq!(error.code(), "E_OPTION");
    assert_eq!(train_together(&data.store, None, &runs, &[]).unwrap_err().code(), "E_OPTION");
}
