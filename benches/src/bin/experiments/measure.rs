//! One run: trains, evaluates, names, and gives the numbers of the tables.

use std::collections::BTreeMap;
use std::time::Instant;

use lucid_data::progress::Silent;
use lucid_interpret::{
    EvaluateOptions, Evaluation, InterpretOptions, cross_ceiling, evaluate, interpret, score_labels,
};
use lucid_sae::{Config, Preset, TrainOptions, Unobserved, train};
use serde_json::{Value, json};

use crate::data::{Data, Result};

/// Numbers by name, in the order of the table.
pub type Numbers = BTreeMap<String, f64>;

/// Trains one configuration on `data` and measures it on the held-out pairs.
pub fn measure(data: &Data, preset: Preset, overrides: &Value, seed: u64, quantile: f64) -> Result<Numbers> {
    let mut fields = overrides.clone();
    fields["seed"] = json!(seed);
    let config = Config::resolve(preset, &fields)?;
    let started = Instant::now();
    let model = train(&*data.train, None, &TrainOptions { threads: 1, ..TrainOptions::new(config) }, &Unobserved)?;
    let seconds = started.elapsed().as_secs_f64();
    let truth = (data.truth)(&*data.held_out, true);
    let options = EvaluateOptions { boxes: false, ..EvaluateOptions::default() };
    let evaluation = evaluate(&model, &*data.held_out, &options, Some(&*truth), &Silent)?;
    let mut numbers = of_evaluation(&evaluation);
    let ceiling = cross_ceiling(&model, &*data.train, &*data.held_out, &Silent)?;
    for (name, found) in [("t2v", ceiling.t2v), ("v2t", ceiling.v2t)] {
        if let (Some(found), Some(reached)) = (found, numbers.get(name).copied()) {
            let best = found.pooled.max(found.matched).max(found.both);
            numbers.insert(format!("{name}.ceiling"), best);
            numbers.insert(format!("{name}.reached"), reached / best);
        }
    }
    numbers.insert("seconds".into(), seconds);
    let options = InterpretOptions { quantile, ..InterpretOptions::default() };
    let atlas = interpret(&model, &*data.train, &data.library, &options, &Silent)?;
    let labels = atlas.index.latents.iter().filter_map(|l| Some((l.latent, l.label.as_deref()?)));
    if let Some(truth) = &evaluation.truth {
        let named = score_labels(labels, truth);
        numbers.insert("labels".into(), named.labels as f64);
        numbers.insert("labels.right".into(), named.right as f64 / named.labels.max(1) as f64);
        numbers.insert("labels.concepts".into(), named.concepts.len() as f64);
    }
    Ok(numbers)
}

fn of_evaluation(evaluation: &Evaluation) -> Numbers {
    let mut numbers = Numbers::new();
    let mut add = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            numbers.insert(name.into(), value);
        }
    };
    add("r2.vision", evaluation.r2.vision.as_ref().map(|r| r.joint));
    add("r2.text", evaluation.r2.text.as_ref().map(|r| r.joint));
    for (name, cross) in [("t2v", &evaluation.cross.t2v), ("v2t", &evaluation.cross.v2t)] {
        add(name, cross.as_ref().map(|c| c.shared));
        add(&format!("{name}.gap"), cross.as_ref().and_then(|c| Some(c.shared - c.controls.shuffled_caption?)));
    }
    add("maxfreq", evaluation.maxfreq.as_ref().map(|m| m.t2i.max(m.i2t)));
    if let Some(truth) = &evaluation.truth {
        add("identity", truth.identity_rate);
        add("chance", truth.identity_chance);
        for (kind, recovery) in &truth.kinds {
            add(&format!("identity.{kind}"), recovery.identity_rate);
            let times = recovery.plan_mass.zip(recovery.plan_mass_uniform).map(|(mass, uniform)| mass / uniform);
            add(&format!("mass.{kind}"), times);
        }
    }
    numbers
}
