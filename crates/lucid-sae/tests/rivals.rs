//! The methods LUCID is compared with: losses against their formulas written out densely, gradients against central
//! differences of those, selection against sorting, and what training leaves behind.
#![allow(clippy::unwrap_used)]

mod common;
mod support;

use common::{Case, named, random_case, relative_error};
use lucid_data::store::{ActivationSource, MemoryStore};
use lucid_kernels::{Block, Modality, Scalar};
use lucid_sae::config::{Activation, Initialise, Method};
use lucid_sae::params::{HostDictionary, HostParams};
use lucid_sae::step::Step;
use lucid_sae::{Config, Model, Preset, TrainOptions, Unobserved, train};
use support::{Recorder, synthetic, tiny};

fn rival(seed: u64, preset: Preset, change: impl Fn(&mut Config)) -> Case {
    let mut case = random_case(seed);
    case.config = Config { d_shared: 18, d_private: 0, k_shared: 5, k_private: 0, alpha: 0.9, ..preset.config() };
    case.config.aux_coefficient = 0.0;
    if case.config.gamma > 0.0 {
        case.config.gamma = 0.7;
    }
    change(&mut case.config);
    case
}

type Rows = Vec<Vec<f64>>;

fn rows(values: &[f64], d: usize) -> Rows {
    values.chunks_exact(d).map(<[f64]>::to_vec).collect()
}

/// The mean row of every segment.
fn means(all: &Rows, lengths: &[usize]) -> Rows {
    let mut at = 0;
    lengths
        .iter()
        .map(|&length| {
            let part = &all[at..at + length];
            at += length;
            (0..part[0].len()).map(|i| part.iter().map(|row| row[i]).sum::<f64>() / length as f64).collect()
        })
        .collect()
}

fn pre(dictionary: &HostDictionary<f64>, state: &[f64]) -> Vec<f64> {
    let k = dictionary.latents;
    let a = |latent: usize| -> f64 {
        let products = state.iter().zip(&dictionary.b_dec).enumerate();
        products.map(|(i, (h, b))| dictionary.w_enc[i * k + latent] * (h - b)).sum::<f64>() + dictionary.b_enc[latent]
    };
    (0..k).map(a).collect()
}

/// The `k` largest positive entries of all rows together, or of each; the others 0.
fn top(all: &Rows, k: usize, together: bool) -> Rows {
    let mut entries: Vec<(f64, usize, usize)> = Vec::new();
    for (row, values) in all.iter().enumerate() {
        entries.extend(values.iter().enumerate().filter(|(_, v)| **v > 0.0).map(|(i, v)| (*v, row, i)));
    }
    entries.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut out: Rows = all.iter().map(|row| vec![0.0; row.len()]).collect();
    let mut used = vec![0; all.len()];
    for (at, (value, row, i)) in entries.into_iter().enumerate() {
        if if together { at < k * all.len() } else { used[row] < k } {
            out[row][i] = value;
            used[row] += 1;
        }
    }
    out
}

fn decoded(dictionary: &HostDictionary<f64>, code: &[f64], width: usize) -> Vec<f64> {
    let mut out = dictionary.b_dec.clone();
    for (latent, value) in code.iter().enumerate().take(width) {
        out.iter_mut().enumerate().for_each(|(i, out)| *out += value * dictionary.w_dec[latent * dictionary.d + i]);
    }
    out
}

fn squares(states: &Rows, dictionary: &HostDictionary<f64>, codes: &Rows, width: usize) -> f64 {
    let pairs = states.iter().zip(codes);
    pairs.map(|(h, z)| h.iter().zip(decoded(dictionary, z, width)).map(|(h, y)| (h - y).powi(2)).sum::<f64>()).sum()
}

/// The objective of a case, written out; `encoder` as the step takes it.
fn objective(case: &Case, params: &HostParams<f64>, encoder: Option<Modality>) -> f64 {
    let config = &case.config;
    let pooled = config.method.pooled();
    let states = |m: Modality| {
        let (values, lengths) = match m {
            Modality::Vision => (&case.vision, &case.vision_lengths),
            Modality::Text => (&case.text, &case.text_lengths),
        };
        let tokens = rows(values, params.of(m).d);
        if pooled { means(&tokens, lengths) } else { tokens }
    };
    let (vision, text) = (states(Modality::Vision), states(Modality::Text));
    let of = |m: Modality| if m == Modality::Vision { &vision } else { &text };
    let logits = |m: Modality| -> Rows { of(m).iter().map(|h| pre(params.of(m), h)).collect() };
    let (a, b) = (logits(Modality::Vision), logits(Modality::Text));
    let codes: [Rows; 2] = match config.method {
        Method::Sparc | Method::PooledConcat => {
            let add = |(x, y): (&Vec<f64>, &Vec<f64>)| x.iter().zip(y).map(|(x, y)| x + y).collect::<Vec<f64>>();
            let sums: Rows = a.iter().zip(&b).map(add).collect();
            let chosen = top(&sums, config.k(), false);
            if config.method == Method::PooledConcat {
                [chosen.clone(), chosen]
            } else {
                [&a, &b].map(|own| {
                    let masked = own.iter().zip(&chosen).map(|(own, chosen)| {
                        own.iter().zip(chosen).map(|(x, c)| if *c > 0.0 { x.max(0.0) } else { 0.0 }).collect()
                    });
                    masked.collect()
                })
            }
        }
        _ => [&a, &b].map(|all| top(all, config.k(), config.activation == Activation::BatchTopk)),
    };
    let variance = if pooled { case.pooled_variance.unwrap() } else { case.variance };
    let mut total = 0.0;
    for (side, m) in Modality::ALL.into_iter().enumerate() {
        let scale = 1.0 / (of(m).len() as f64 * variance.of(m));
        if encoder.is_none_or(|encoder| encoder == m) {
            let widths = config.prefixes();
            let all = widths.iter().map(|&width| squares(of(m), params.of(m), &codes[side], width));
            total += config.alpha * scale * all.sum::<f64>() / widths.len() as f64;
        }
        // The other modality's code explains this one's state.
        if config.gamma > 0.0 && encoder.is_none_or(|encoder| encoder != m) {
            total += config.gamma * scale * squares(of(m), params.of(m), &codes[1 - side], config.latents());
        }
    }
    total
}

fn check(name: &str, case: &Case, encoder: Option<Modality>) {
    let backend = Scalar::<f64>::new();
    let params = case.upload_params(&backend);
    for micro_pairs in [1, 3] {
        let mut step = Step::new(&backend, &params, &case.config).unwrap();
        let batch = case.micro_batches(&backend, micro_pairs);
        let inputs = lucid_sae::step::StepInputs { encoder, keep_plan: false, ..case.inputs() };
        let report = step.run(&backend, &params, &batch, &inputs).unwrap();
        let expected = objective(case, &case.params, encoder);
        assert!(
            (report.losses.total - expected).abs() < 1e-12 * expected,
            "{name}: {} {expected}",
            report.losses.total
        );
        let found = step.gradients.read(&backend).unwrap();
        let found = named(&found);
        let mut names = found.iter();
        for m in Modality::ALL {
            for array in 0..4 {
                let (parameter, gradient) = names.next().unwrap();
                let mut params = case.params.clone();
                let pick = |params: &mut HostParams<f64>| -> *mut Vec<f64> {
                    let side = params.of_mut(m);
                    [&mut side.w_enc, &mut side.b_enc, &mut side.w_dec, &mut side.b_dec].into_iter().nth(array).unwrap()
                };
                // SAFETY: the pointer is into `params`, which lives through the loop and is not moved.
                let values = unsafe { &mut *pick(&mut params) };
                let mut differences = Vec::new();
                for i in 0..values.len() {
                    let value = values[i];
                    values[i] = value + 1e-5;
                    let above = objective(case, &params, encoder);
                    values[i] = value - 1e-5;
                    differences.push((above - objective(case, &params, encoder)) / 2e-5);
                    values[i] = value;
                }
                let error = relative_error(gradient, &differences);
                assert!(error < 1e-7, "{name} {parameter}, micro-batches of {micro_pairs}: {error:e}");
            }
        }
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_formulas() {
    for seed in 20..23 {
        check("separate", &rival(seed, Preset::Separate, |_| {}), None);
        check("batch-topk", &rival(seed, Preset::SeparateBatchTopk, |_| {}), None);
        check("matryoshka", &rival(seed, Preset::SeparateMatryoshka, |config| config.nested = 3), None);
        check("nested Top-k", &rival(seed, Preset::Separate, |config| config.nested = 2), None);
        check("sparc", &rival(seed, Preset::Sparc, |_| {}), None);
        check("pooled-concat", &rival(seed, Preset::PooledConcat, |config| config.gamma = 0.0), None);
        for encoder in Modality::ALL {
            check("usae", &rival(seed, Preset::Usae, |_| {}), Some(encoder));
        }
    }
}

#[test]
fn special_cases_are_the_methods_they_extend() {
    let backend = Scalar::<f64>::new();
    // One nested dictionary is none.
    let plain = rival(30, Preset::SeparateBatchTopk, |_| {});
    let one = rival(30, Preset::SeparateBatchTopk, |config| config.nested = 1);
    assert_eq!(plain.run(&backend, 2).1, one.run(&backend, 2).1);
    // A batch of one token in either modality: BatchTopK is Top-k.
    let alone = |preset: Preset| {
        let mut case = rival(31, preset, |_| {});
        (case.vision_lengths, case.text_lengths) = (vec![1], vec![1]);
        case.vision.truncate(6);
        case.text.truncate(5);
        case
    };
    assert_eq!(alone(Preset::SeparateBatchTopk).run(&backend, 1).1, alone(Preset::Separate).run(&backend, 1).1);
    // Whatever the micro-batches, the batch decides: as many entries in all as Top-k has at most.
    let (whole, _) = plain.run(&backend, 3);
    let (parts, _) = plain.run(&backend, 1);
    assert_eq!(whole.fired, parts.fired);
    let fired: u32 = whole.fired.vision.iter().sum();
    assert_eq!(fired, 5 * 9);
}

#[test]
fn sparc_fires_the_same_latents_unless_one_has_nothing_there() {
    let case = rival(32, Preset::Sparc, |_| {});
    let (report, _) = case.run(&Scalar::<f64>::new(), 3);
    let joint: Vec<usize> = (0..18).filter(|&k| report.fired.vision[k] + report.fired.text[k] > 0).collect();
    // 3 pairs of 5 latents at most.
    assert!(!joint.is_empty() && joint.len() <= 15);
    assert!(report.fired.vision.iter().chain(&report.fired.text).all(|&count| count <= 3));
}

fn trained(data: &MemoryStore, config: Config) -> Model {
    train(data, None, &TrainOptions { threads: 1, ..TrainOptions::new(config) }, &Unobserved).unwrap()
}

fn small(preset: Preset) -> Config {
    Config {
        d_shared: 24,
        k_shared: 5,
        lr: 1e-2,
        batch_pairs: 20,
        micro_pairs: 7,
        dead_after_tokens: 2000,
        steps: if preset.config().lr == 0.0 { 1 } else { 120 },
        ..Config { lr: preset.config().lr.min(1e-2), ..preset.config() }
    }
}

/// 1 − Σ‖h − ĥ‖² / Σ‖h − h̄‖² of the patches.
fn r2(model: &Model, data: &MemoryStore) -> f64 {
    let d = data.d_vision();
    let states: Vec<f32> = (0..data.pairs()).flat_map(|pair| data.vision(pair).to_vec()).collect();
    let codes = model.encode(&states, Modality::Vision).unwrap();
    let back = model.decode(&codes, Modality::Vision, Block::Joint).unwrap();
    let n = (states.len() / d) as f64;
    let mean: Vec<f64> =
        (0..d).map(|i| states.iter().skip(i).step_by(d).map(|x| f64::from(*x)).sum::<f64>() / n).collect();
    let error: f64 = states.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let spread: f64 =
        states.chunks_exact(d).flat_map(|row| row.iter().zip(&mean)).map(|(x, m)| (f64::from(*x) - m).powi(2)).sum();
    1.0 - error / spread
}

#[test]
fn every_rival_learns_and_stands_above_its_floor() {
    let data = synthetic(3, 120, 12, 16, 16).store;
    let random = r2(&trained(&data, Config { lr: 0.0, ..small(Preset::RandomDictionary) }), &data);
    let pca = r2(&trained(&data, Config { lr: 0.0, ..small(Preset::Pca) }), &data);
    // Five of sixteen components, at most, explain less than all and more than random directions.
    assert!(pca > random && pca < 1.0, "{pca} {random}");
    for preset in [Preset::Separate, Preset::SeparateBatchTopk, Preset::SeparateMatryoshka] {
        let found = r2(&trained(&data, small(preset)), &data);
        assert!(found > 0.6 && found > random, "{}: {found} against {random}", preset.name());
    }
    for preset in [Preset::Sparc, Preset::Usae, Preset::PooledConcat] {
        let config = Config { batch_pairs: 60, ..small(preset) };
        let found = r2(&trained(&data, config), &data);
        // They never see a single token; what they learnt of the means still says something about tokens.
        assert!(found > -1.0 && found.is_finite(), "{}: {found}", preset.name());
    }
}

#[test]
fn thresholds_keep_k_entries_on_average_and_survive_the_folder() {
    let data = synthetic(4, 80, 12, 16, 16).store;
    let model = trained(&data, small(Preset::SeparateBatchTopk));
    let thresholds = model.thresholds.unwrap();
    assert!(thresholds.vision > 0.0 && thresholds.text >= 0.0);
    let states: Vec<f32> = (0..data.pairs()).flat_map(|pair| data.vision(pair).to_vec()).collect();
    let codes = model.encode(&states, Modality::Vision).unwrap();
    let entries = codes.indices.iter().filter(|index| **index != u32::MAX).count() as f64;
    // The sample is the whole store, so the mean is k but for ties.
    assert!((entries / codes.n as f64 - 5.0).abs() < 0.01, "{}", entries / codes.n as f64);
    assert!(codes.values.iter().all(|&value| value == 0.0 || value >= thresholds.vision));
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path().join("model")).unwrap();
    let again = Model::load(folder.path().join("model")).unwrap();
    assert_eq!(again.thresholds, model.thresholds);
    assert_eq!(again.encode(&states, Modality::Vision).unwrap(), codes);
}

#[test]
fn a_model_folder_without_the_newer_fields_is_read_with_their_defaults() {
    let data = synthetic(4, 40, 8, 12, 10).store;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    trained(&data, tiny()).save(&path).unwrap();
    let config = path.join("config.json");
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    for field in ["method", "activation", "nested"] {
        assert!(json.as_object_mut().unwrap().remove(field).is_some());
    }
    std::fs::write(&config, json.to_string()).unwrap();
    assert_eq!(Model::load(&path).unwrap().config.method, Method::Lucid);
}

/// The concatenation's bias holds what the absent half would add: with that half at its mean, the code is the same.
#[test]
fn one_half_of_the_concatenation_is_encoded_as_if_the_other_stood_at_its_mean() {
    let data = synthetic(6, 60, 10, 12, 10).store;
    let model = trained(&data, small(Preset::PooledConcat));
    // Text states at the mean of the store.
    let mean: Vec<f32> = model.normalisation.text.mean.clone();
    let codes = model.encode(&mean, Modality::Text).unwrap();
    let vision_mean = model.encode(&model.normalisation.vision.mean.clone(), Modality::Vision).unwrap();
    // Both halves at their means is one and the same input, whichever side it is asked from.
    assert_eq!(codes.indices, vision_mean.indices);
    for (a, b) in codes.values.iter().zip(&vision_mean.values) {
        assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
    }
}

#[test]
fn principal_components_reconstruct_everything_with_all_of_them() {
    let data = synthetic(8, 60, 10, 12, 10).store;
    let config = Config { lr: 0.0, d_shared: 24, k_shared: 12, ..small(Preset::Pca) };
    assert_eq!(config.initialise, Initialise::Pca);
    assert!((r2(&trained(&data, config), &data) - 1.0).abs() < 1e-5);
}

#[test]
fn usae_encodes_either_modality_about_as_often_and_by_seed() {
    let draws = |seed: u64| (0..1000).map(|step| Method::Usae.encoder(seed, step).unwrap()).collect::<Vec<_>>();
    let vision = draws(1).into_iter().filter(|m| *m == Modality::Vision).count();
    // Five standard deviations of 1000 fair coins are 79.
    assert!((421..=579).contains(&vision), "{vision}");
    assert_ne!(draws(1), draws(2));
    assert_eq!(Method::Lucid.encoder(1, 1), None);
}

#[test]
fn rivals_resume_to_the_same_bits() {
    let data = synthetic(9, 40, 8, 12, 10).store;
    for preset in [Preset::SeparateMatryoshka, Preset::Usae, Preset::Sparc] {
        let config = Config { steps: 12, ..small(preset) };
        let whole = trained(&data, config.clone());
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let first = TrainOptions {
            threads: 1,
            out: Some(out.clone()),
            checkpoint_every: 5,
            ..TrainOptions::new(config.clone())
        };
        train(&data, None, &first, &Recorder::stopping_after(7)).unwrap_err();
        let resumed = TrainOptions { resume: true, ..first };
        let model = train(&data, None, &resumed, &Unobserved).unwrap();
        assert_eq!(model.params, whole.params, "{}", preset.name());
        assert_eq!(model.thresholds, whole.thresholds);
    }
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let refused = |json: serde_json::Value, preset: Preset| Config::resolve(preset, &json).unwrap_err();
    for (json, preset, option) in [
        (serde_json::json!({ "activation": "batch-topk" }), Preset::Default, "activation"),
        (serde_json::json!({ "nested": 2 }), Preset::Sparc, "nested"),
        (serde_json::json!({ "dPrivate": 8, "kPrivate": 2 }), Preset::Sparc, "dPrivate"),
        (serde_json::json!({ "nested": 20, "dShared": 64, "kShared": 4 }), Preset::Separate, "nested"),
        (serde_json::json!({ "method": "sparq" }), Preset::Default, "method"),
    ] {
        let error = refused(json, preset);
        assert_eq!(error.code(), "E_OPTION");
        assert!(error.to_string().contains(option), "{error}");
    }
    for preset in Preset::ALL {
        Config::resolve(preset, &serde_json::json!({})).unwrap();
    }
}
