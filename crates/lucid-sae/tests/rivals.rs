//! The methods LUCID is compared with: losses against their formulas written out densely, gradients against central
//! differences of those, selection against sorting, and what training leaves behind.
#![allow(clippy::unwrap_used)]

mod common;
mod support;

use common::{Case, named, random_case, relative_error};
use lucid_data::store::{ActivationSource, MemoryStore};
use lucid_kernels::{Block, Modality, Scalar};
use lucid_sae::batch::Sides;
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

/// The same case with states of one width, 5, and one encoder.
fn one_width(mut case: Case) -> Case {
    let Case { params, vision, .. } = &mut case;
    let (d, k) = (5, params.vision.latents);
    *vision = vision.chunks_exact(6).flat_map(|row| row[..d].to_vec()).collect();
    let w_dec = params.vision.w_dec.chunks_exact(6).flat_map(|row| row[..d].to_vec()).collect();
    params.vision.w_enc.truncate(d * k);
    params.vision.b_dec.truncate(d);
    params.vision = HostDictionary { d, w_dec, ..params.vision.clone() };
    params.text.w_enc = params.vision.w_enc.clone();
    case
}

/// Thresholds between 0.1 and 0.6, and a kernel wide enough to meet them.
fn with_thresholds(mut case: Case) -> Case {
    let latents = case.config.latents();
    let of = |step: usize| (0..latents).map(|i| (0.1 + 0.5 * ((i * step) % 18) as f64 / 18.0).ln()).collect();
    case.params.log_threshold = Some(Sides { vision: of(5), text: of(7) });
    (case.config.bandwidth, case.config.l0_coefficient) = (0.3, 0.7);
    case
}

/// 2 − ‖ĥ − ŵ‖ of every latent.
fn nearness(dictionary: &HostDictionary<f64>, state: &[f64]) -> Vec<f64> {
    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let rows = (0..dictionary.latents)
        .map(|k| -> Vec<f64> { dictionary.w_enc.iter().skip(k).step_by(dictionary.latents).copied().collect() });
    let far = |row: Vec<f64>| {
        let (of_row, of_state) = (length(&row), length(state));
        row.iter().zip(state).map(|(w, h)| (w / of_row - h / of_state).powi(2)).sum::<f64>().sqrt()
    };
    rows.map(|row| 2.0 - far(row)).collect()
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
        Method::VlSae => Modality::ALL.map(|m| {
            let all: Rows = of(m).iter().map(|h| nearness(params.of(m), h)).collect();
            top(&all, config.k(), false)
        }),
        _ if config.activation == Activation::JumpRelu => Modality::ALL.map(|m| {
            let theta: Vec<f64> = params.log_threshold.as_ref().unwrap().of(m).iter().map(|x| x.exp()).collect();
            let jump = |row: &Vec<f64>| row.iter().zip(&theta).map(|(&a, &t)| if a > t { a } else { 0.0 }).collect();
            if m == Modality::Vision { &a } else { &b }.iter().map(jump).collect()
        }),
        _ => [&a, &b].map(|all| top(all, config.k(), config.activation == Activation::BatchTopk)),
    };
    let variance = if pooled { case.pooled_variance.unwrap() } else { case.variance };
    let mut total = 0.0;
    if config.activation == Activation::JumpRelu {
        for codes in &codes {
            let active = codes.iter().flatten().filter(|z| **z > 0.0).count() as f64;
            total += config.l0_coefficient * (active / codes.len() as f64 / config.k() as f64 - 1.0).powi(2);
        }
    }
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
                // One encoder in two copies moves in both.
                let moved = match (case.config.method, array) {
                    (Method::VlSae, 0) => Modality::ALL.to_vec(),
                    _ => vec![m],
                };
                let at = |i: usize, by: f64| {
                    let mut params = case.params.clone();
                    for &m in &moved {
                        let side = params.of_mut(m);
                        let arrays = [&mut side.w_enc, &mut side.b_enc, &mut side.w_dec, &mut side.b_dec];
                        arrays.into_iter().nth(array).unwrap()[i] += by;
                    }
                    objective(case, &params, encoder)
                };
                let differences: Vec<f64> = (0..gradient.len()).map(|i| (at(i, 1e-5) - at(i, -1e-5)) / 2e-5).collect();
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
        check("jump-relu", &with_thresholds(rival(seed, Preset::SeparateJumpRelu, |_| {})), None);
        check("vl-sae", &one_width(rival(seed, Preset::VlSae, |config| config.gamma = 0.0)), None);
        for encoder in Modality::ALL {
            check("usae", &rival(seed, Preset::Usae, |_| {}), Some(encoder));
        }
    }
}

/// The straight-through estimate, written out: of every pre-activation within half a bandwidth of its threshold.
#[test]
fn thresholds_learn_from_what_is_in_their_reach() {
    for seed in 20..23 {
        let case = with_thresholds(rival(seed, Preset::SeparateJumpRelu, |_| {}));
        let (config, logs) = (&case.config, case.params.log_threshold.as_ref().unwrap());
        let backend = Scalar::<f64>::new();
        let mut reached = 0;
        for micro_pairs in [1, 3] {
            let params = case.upload_params(&backend);
            let mut step = Step::new(&backend, &params, config).unwrap();
            step.run(&backend, &params, &case.micro_batches(&backend, micro_pairs), &case.inputs()).unwrap();
            let found = step.gradients.read(&backend).unwrap().log_threshold.unwrap();
            for (m, values) in [(Modality::Vision, &case.vision), (Modality::Text, &case.text)] {
                let dictionary = case.params.of(m);
                let (d, n) = (dictionary.d, values.len() / dictionary.d);
                let theta: Vec<f64> = logs.of(m).iter().map(|x| x.exp()).collect();
                let all: Rows = rows(values, d).iter().map(|h| pre(dictionary, h)).collect();
                let active = all.iter().flat_map(|a| a.iter().zip(&theta)).filter(|(a, t)| a > t).count() as f64;
                let miss = active / n as f64 / config.k() as f64 - 1.0;
                let mut expected = vec![0.0; theta.len()];
                for (h, a) in rows(values, d).iter().zip(&all) {
                    let code: Vec<f64> = a.iter().zip(&theta).map(|(&a, &t)| if a > t { a } else { 0.0 }).collect();
                    let error: Vec<f64> =
                        decoded(dictionary, &code, theta.len()).iter().zip(h).map(|(y, h)| y - h).collect();
                    for latent in 0..theta.len() {
                        if (a[latent] - theta[latent]).abs() >= config.bandwidth / 2.0 {
                            continue;
                        }
                        reached += 1;
                        let atom = &dictionary.w_dec[latent * d..(latent + 1) * d];
                        let along: f64 = error.iter().zip(atom).map(|(e, w)| e * w).sum();
                        let of_value = 2.0 * config.alpha / (n as f64 * case.variance.of(m)) * along;
                        let of_activity = 2.0 * config.l0_coefficient * miss / (config.k() * n) as f64;
                        let slope = -theta[latent] / config.bandwidth;
                        expected[latent] += theta[latent] * slope * of_value + slope * of_activity;
                    }
                }
                let error = relative_error(found.of(m), &expected);
                assert!(error < 1e-12, "{} {micro_pairs}: {error:e}", m.name());
            }
        }
        assert!(reached > 20, "{reached}");
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
    for preset in [Preset::Separate, Preset::SeparateBatchTopk, Preset::SeparateMatryoshka, Preset::SeparateJumpRelu] {
        let found = r2(&trained(&data, small(preset)), &data);
        assert!(found > 0.6 && found > random, "{}: {found} against {random}", preset.name());
    }
    for preset in [Preset::Sparc, Preset::Usae, Preset::PooledConcat, Preset::VlSae] {
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
    let data = synthetic(9, 40, 8, 12, 12).store;
    let all = [Preset::SeparateMatryoshka, Preset::SeparateJumpRelu, Preset::Usae, Preset::Sparc, Preset::VlSae];
    for preset in all {
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
        (serde_json::json!({ "activation": "jump-relu" }), Preset::Sparc, "activation"),
        (serde_json::json!({ "nested": 2 }), Preset::SeparateJumpRelu, "nested"),
        (serde_json::json!({ "bandwidth": 0 }), Preset::SeparateJumpRelu, "bandwidth"),
        (serde_json::json!({ "auxCoefficient": 0.1 }), Preset::VlSae, "auxCoefficient"),
    ] {
        let error = refused(json, preset);
        assert_eq!(error.code(), "E_OPTION");
        assert!(error.to_string().contains(option), "{error}");
    }
    for preset in Preset::ALL {
        Config::resolve(preset, &serde_json::json!({})).unwrap();
    }
}

#[test]
fn learnt_thresholds_keep_about_k_entries_and_survive_the_folder() {
    let data = synthetic(4, 120, 12, 16, 16).store;
    let config = Config { steps: 600, ..small(Preset::SeparateJumpRelu) };
    let model = trained(&data, config);
    let states: Vec<f32> = (0..data.pairs()).flat_map(|pair| data.vision(pair).to_vec()).collect();
    let codes = model.encode(&states, Modality::Vision).unwrap();
    let l0 = codes.indices.iter().filter(|index| **index != u32::MAX).count() as f64 / codes.n as f64;
    assert!((l0 / 5.0 - 1.0).abs() < 0.05, "{l0}");
    let logs = model.params.log_threshold.as_ref().unwrap();
    assert!(logs.vision.iter().any(|x| x != &logs.vision[0]), "every threshold is the same");
    for (&index, &value) in codes.indices.iter().zip(&codes.values).filter(|(index, _)| **index != u32::MAX) {
        assert!(value > logs.vision[index as usize].exp(), "{value}");
    }
    let slots = codes.k_shared;
    assert!(codes.values.chunks_exact(slots).all(|row| row.is_sorted_by(|a, b| a >= b)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    model.save(&path).unwrap();
    let again = Model::load(&path).unwrap();
    assert_eq!(again.params, model.params);
    assert_eq!(again.encode(&states, Modality::Vision).unwrap(), codes);
    // A model of another activation has none, and one of this must have them.
    let without = HostParams { log_threshold: None, ..model.params.clone() };
    let Model { config, normalisation, variances, provenance, .. } = model;
    let error = Model::new(config, without, normalisation, variances, provenance).unwrap_err();
    assert!(error.to_string().contains("log_threshold"), "{error}");
}

#[test]
fn vl_sae_keeps_one_encoder_and_encodes_by_distance() {
    let data = synthetic(5, 80, 10, 12, 12).store;
    let model = trained(&data, small(Preset::VlSae));
    assert_eq!(model.params.vision.w_enc, model.params.text.w_enc);
    assert!(model.params.vision.w_dec != model.params.text.w_dec);
    let states: Vec<f32> = data.text(3, 0).to_vec();
    let codes = model.encode(&states, Modality::Text).unwrap();
    let mut state = states[..12].to_vec();
    model.normalisation.text.apply(&mut state);
    let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let dictionary =
        HostDictionary { d: 12, latents: 24, w_enc: wide(&model.params.text.w_enc), ..HostDictionary::zeros(12, 24) };
    let mut all: Vec<(usize, f64)> = nearness(&dictionary, &wide(&state)).into_iter().enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (slot, (latent, value)) in all.into_iter().take(5).enumerate() {
        assert_eq!(codes.indices[slot] as usize, latent);
        assert!((f64::from(codes.values[slot]) - value).abs() < 1e-4);
    }
    // States of two widths have no common encoder.
    let data = synthetic(5, 40, 10, 12, 10).store;
    let options = TrainOptions { threads: 1, ..TrainOptions::new(small(Preset::VlSae)) };
    let error = train(&data, None, &options, &Unobserved).unwrap_err();
    assert!(error.to_string().contains("widths 12 and 10"), "{error}");
}
