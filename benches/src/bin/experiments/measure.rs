//! One run: trains, evaluates, names, and gives the numbers of the tables.

use std::collections::BTreeMap;
use std::time::Instant;

use lucid_data::progress::Silent;
use lucid_data::store::AnnotatedSource;
use lucid_interpret::recovery::assignment::assign;
use lucid_interpret::{
    EvaluateOptions, Evaluation, InterpretOptions, cross_ceiling, evaluate, interpret, score_labels,
};
use lucid_kernels::Modality;
use lucid_sae::{Config, Model, Preset, TrainOptions, Unobserved, train};
use serde_json::{Value, json};

use crate::data::{Data, Result};
use crate::discovery::discovery;

/// Numbers by name, in the order of the table.
pub type Numbers = BTreeMap<String, f64>;

/// What decides the names of latents.
#[derive(Clone, Copy, serde::Serialize)]
pub struct Labels {
    /// Share of all peak scores that are no hit.
    pub quantile: f64,
    /// Cosine of text embeddings within a cluster of concepts.
    pub cluster_cosine: f64,
}

/// Trains one configuration on `data` and measures it on the held-out pairs.
///
/// `overrides` are config fields; `phases`, a list of further overrides, trains them in turn, each from where the one before
/// stopped, and `"match": true` in a phase gives its vision latents the places of the text latents they occur with.
pub fn measure(data: &Data, preset: Preset, overrides: &Value, seed: u64, labels: Labels) -> Result<Numbers> {
    let started = Instant::now();
    let mut base = overrides.clone();
    let phases = base.as_object_mut().and_then(|fields| fields.remove("phases"));
    let phases = phases.and_then(|list| list.as_array().cloned()).unwrap_or_else(|| vec![json!({})]);
    let folder =
        std::env::temp_dir().join(format!("lucid-experiment-{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut init = None;
    let mut model = None;
    for phase in &phases {
        let mut fields = crate::merged(&base, phase);
        fields["seed"] = json!(seed);
        let matching = fields.as_object_mut().and_then(|fields| fields.remove("match")).is_some();
        let config = Config::resolve(preset, &fields)?;
        let options = TrainOptions { threads: 1, init: init.clone(), ..TrainOptions::new(config) };
        let mut trained = train(&*data.train, None, &options, &Unobserved)?;
        if matching {
            matched(&mut trained, &*data.train)?;
        }
        if phases.len() > 1 {
            let _ = std::fs::remove_dir_all(&folder);
            trained.save(&folder)?;
            init = Some(folder.clone());
        }
        model = Some(trained);
    }
    let _ = std::fs::remove_dir_all(&folder);
    let model = model.ok_or("a run without phases")?;
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
    let Labels { quantile, cluster_cosine } = labels;
    let options = InterpretOptions { quantile, cluster_cosine, ..InterpretOptions::default() };
    let atlas = interpret(&model, &*data.train, &data.library, &options, &Silent)?;
    let labels = atlas.index.latents.iter().filter_map(|l| Some((l.latent, l.label.as_deref()?)));
    if let Some(truth) = &evaluation.truth {
        let named = score_labels(labels, truth);
        numbers.insert("labels".into(), named.labels as f64);
        numbers.insert("labels.right".into(), named.right as f64 / named.labels.max(1) as f64);
        numbers.insert("labels.concepts".into(), named.concepts.len() as f64);
    }
    numbers.extend(discovery(&model, data)?);
    Ok(numbers)
}

/// Gives every vision latent of the shared block the index of the text latent it occurs with: the assignment of largest
/// total correlation over pairs, of activations averaged over a pair's tokens.
fn matched(model: &mut Model, source: &dyn AnnotatedSource) -> Result<()> {
    let shared = model.config.d_shared;
    let pairs = source.pairs().min(800);
    let pooled = |modality: Modality| -> Result<Vec<Vec<f64>>> {
        let mut rows = Vec::with_capacity(pairs);
        for pair in 0..pairs {
            let states = match modality {
                Modality::Vision => {
                    let mut states = vec![0.0; source.vision_len(pair) * source.d_vision()];
                    source.read_vision(pair, &mut states)?;
                    states
                }
                Modality::Text => {
                    let mut states = vec![0.0; source.text_len(pair, 0) * source.d_text()];
                    source.read_text(pair, 0, &mut states)?;
                    states
                }
            };
            let codes = model.encode(&states, modality)?;
            let mut row = vec![0.0; shared];
            for (&latent, &value) in codes.indices.iter().zip(&codes.values) {
                if (latent as usize) < shared {
                    row[latent as usize] += f64::from(value);
                }
            }
            rows.push(row);
        }
        // Columns of zero mean and unit length, so that products are correlations.
        for k in 0..shared {
            let mean = rows.iter().map(|r| r[k]).sum::<f64>() / pairs as f64;
            let norm = rows.iter().map(|r| (r[k] - mean).powi(2)).sum::<f64>().sqrt().max(1e-12);
            rows.iter_mut().for_each(|r| r[k] = (r[k] - mean) / norm);
        }
        Ok(rows)
    };
    let (vision, text) = (pooled(Modality::Vision)?, pooled(Modality::Text)?);
    let mut correlation = vec![0.0; shared * shared];
    for (v, t) in vision.iter().zip(&text) {
        for (i, t) in t.iter().enumerate() {
            for (sum, v) in correlation[i * shared..(i + 1) * shared].iter_mut().zip(v) {
                *sum += t * v;
            }
        }
    }
    let partner = assign(shared, shared, |i, j| correlation[i * shared + j]);
    let (old, d, latents) = (model.params.vision.clone(), model.params.vision.d, model.params.vision.latents);
    for (to, &from) in partner.iter().enumerate() {
        let new = &mut model.params.vision;
        new.w_dec[to * d..(to + 1) * d].copy_from_slice(&old.w_dec[from * d..(from + 1) * d]);
        new.b_enc[to] = old.b_enc[from];
        for row in 0..d {
            new.w_enc[row * latents + to] = old.w_enc[row * latents + from];
        }
    }
    Ok(())
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
