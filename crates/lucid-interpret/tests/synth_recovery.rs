//! The whole of training and evaluation on pairs whose dictionaries are known.
#![allow(clippy::unwrap_used)]

use lucid_data::progress::Silent;
use lucid_data::synth::{SynthOptions, synth};
use lucid_interpret::{EvaluateOptions, Evaluation, evaluate, synth_truth};
use lucid_sae::{Config, Preset, TrainOptions, Unobserved, train};
use serde_json::json;

fn trained(preset: Preset) -> Evaluation {
    let options = SynthOptions { pairs: 600, ..SynthOptions::default() };
    let (store, _) = synth(&options).unwrap();
    let sizes = json!({
        "dShared": 64, "dPrivate": 64, "kShared": 4, "kPrivate": 4, "steps": 200, "batchPairs": 32, "lr": 3e-3,
    });
    let config = Config::resolve(preset, &sizes).unwrap();
    let model = train(&store, None, &TrainOptions::new(config), &Unobserved).unwrap();
    let (held_out, truth) = synth(&SynthOptions { pairs: 100, first_pair: 600, ..options }).unwrap();
    let evaluation =
        evaluate(&model, &held_out, &EvaluateOptions::default(), Some(&synth_truth(&truth)), &Silent).unwrap();
    println!(
        "{}",
        serde_json::to_string(&json!({
            "preset": preset, "r2": evaluation.r2, "cross": evaluation.cross, "deltaLeak": evaluation.delta_leak,
            "identityRate": evaluation.truth.as_ref().unwrap().identity_rate,
            "identityChance": evaluation.truth.as_ref().unwrap().identity_chance,
            "mcc": evaluation.truth.as_ref().unwrap().mcc,
            "kinds": evaluation.truth.as_ref().unwrap().kinds,
        }))
        .unwrap()
    );
    evaluation
}

#[test]
fn default_preset_finds_the_concepts_in_both_modalities() {
    let evaluation = trained(Preset::Default);
    let truth = evaluation.truth.as_ref().unwrap();
    assert!(truth.identity_rate.unwrap() >= 0.9, "{:?}", truth.identity_rate);
    assert!(truth.identity_chance.unwrap() < 0.1, "{:?}", truth.identity_chance);
    assert!(truth.plan_mass.unwrap() >= 0.6, "{:?}", truth.plan_mass);
    let uniform = truth.plan_mass_uniform.unwrap();
    assert!((uniform - 0.25).abs() < 0.03, "{uniform}");
    assert!(truth.transport_accuracy.unwrap() > truth.transport_accuracy_uniform.unwrap() + 0.3);
    let t2v = evaluation.cross.t2v.as_ref().unwrap();
    assert!(t2v.shared > t2v.controls.shuffled_caption.unwrap() + 0.1, "{t2v:?}");
    assert!(t2v.shared > t2v.controls.uniform_plan, "{t2v:?}");
    assert_eq!(evaluation.skipped.keys().collect::<Vec<_>>(), ["grounding"]);
}

#[test]
fn printed_recipe_starts_cold_at_the_same_budget() {
    let paper = trained(Preset::Paper);
    let truth = paper.truth.as_ref().unwrap();
    assert!(truth.identity_rate.unwrap() < 0.6, "{:?}", truth.identity_rate);
}
