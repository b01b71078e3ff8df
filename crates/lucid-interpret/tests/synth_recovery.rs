//! The whole of training and evaluation on pairs whose dictionaries are known.
#![allow(clippy::unwrap_used)]

use lucid_data::progress::Silent;
use lucid_data::synth::{SynthOptions, synth};
use lucid_interpret::{ConceptStates, EvaluateOptions, Evaluation, InterpretOptions, evaluate, interpret, synth_truth};
use lucid_sae::{Config, Model, Preset, TrainOptions, Unobserved, train};
use serde_json::json;

const PAIRS: usize = 600;

fn trained(preset: Preset) -> (Model, Evaluation) {
    let options = SynthOptions { pairs: PAIRS, ..SynthOptions::default() };
    let (store, _) = synth(&options).unwrap();
    let sizes = json!({
        "dShared": 64, "dPrivate": 64, "kShared": 4, "kPrivate": 4, "steps": 200, "batchPairs": 32, "lr": 3e-3,
    });
    let config = Config::resolve(preset, &sizes).unwrap();
    let model = train(&store, None, &TrainOptions::new(config), &Unobserved).unwrap();
    let (held_out, truth) = synth(&SynthOptions { pairs: 100, first_pair: PAIRS, ..options }).unwrap();
    let truth = synth_truth(&truth);
    let evaluation = evaluate(&model, &held_out, &EvaluateOptions::default(), Some(&truth), &Silent).unwrap();
    let found = evaluation.truth.as_ref().unwrap();
    println!(
        "{}: identity {:?} (chance {:?}), mcc {:?}, plan mass {:?} (uniform {:?})",
        preset.name(),
        found.identity_rate,
        found.identity_chance,
        found.mcc,
        found.plan_mass,
        found.plan_mass_uniform,
    );
    (model, evaluation)
}

/// Algorithm 1 with the true concepts as the library. Of the latents that are some concept's best one in vision: how many
/// it names after that concept, and how many after another. Spare latents, which are no concept's best, may share in one
/// and be named after it; they are counted last.
fn named(model: &Model, evaluation: &Evaluation) -> (usize, usize, usize) {
    let (store, truth) = synth(&SynthOptions { pairs: PAIRS, ..SynthOptions::default() }).unwrap();
    let d = truth.text.d;
    let state = |concept: usize| {
        let atom = &truth.text.shared[concept * d..(concept + 1) * d];
        atom.iter().zip(&truth.text.offset).map(|(a, o)| a + o).collect::<Vec<f32>>()
    };
    let library = ConceptStates {
        names: (0..truth.concepts).map(|concept| format!("concept{concept}")).collect(),
        categories: Vec::new(),
        lengths: vec![1; truth.concepts],
        states: (0..truth.concepts).flat_map(state).collect(),
        pooled: truth.text.shared.clone(),
    };
    let options = InterpretOptions { quantile: 0.8, ..InterpretOptions::default() };
    let atlas = interpret(model, &store, &library, &options, &Silent).unwrap();
    let (mut right, mut wrong, mut spare) = (0, 0, 0);
    for latent in &atlas.index.latents {
        let Some(label) = &latent.label else { continue };
        let carried = evaluation
            .truth
            .as_ref()
            .unwrap()
            .concepts
            .iter()
            .filter(|concept| concept.vision.is_some_and(|best| best.latent == latent.latent));
        let names: Vec<&str> = carried.map(|concept| concept.name.as_str()).collect();
        if names.is_empty() {
            spare += 1;
        } else if names.contains(&label.as_str()) {
            right += 1;
        } else {
            println!("latent {} carries {names:?} and is named {label}", latent.latent);
            wrong += 1;
        }
    }
    println!("named after its concept: {right}, after another: {wrong}, spare latents named: {spare}");
    (right, wrong, spare)
}

#[test]
fn default_preset_finds_the_concepts_in_both_modalities() {
    let (model, evaluation) = trained(Preset::Default);
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
    let (right, wrong, spare) = named(&model, &evaluation);
    assert!(right >= 30 && wrong <= right / 10, "{right} right, {wrong} wrong");
    // A name for a latent that is no concept's best one counts as wrong here: four names in five must be right.
    assert!(5 * right >= 4 * (right + wrong + spare), "{right} right, {wrong} wrong, {spare} spare");
}

#[test]
fn printed_recipe_starts_cold_at_the_same_budget() {
    let (_, paper) = trained(Preset::Paper);
    let truth = paper.truth.as_ref().unwrap();
    assert!(truth.identity_rate.unwrap() < 0.6, "{:?}", truth.identity_rate);
}
