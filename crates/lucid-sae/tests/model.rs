//! Models on disk and in use.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use lucid_data::store::ActivationSource;
use lucid_kernels::{Block, Modality};
use lucid_sae::{Codes, Config, Model, TrainOptions, Unobserved, train};
use serde_json::Value;
use support::{tiny, tiny_store};

fn model() -> Model {
    let options = TrainOptions { threads: 1, preset: Some(lucid_sae::Preset::Default), ..TrainOptions::new(tiny()) };
    train(&tiny_store(), None, &options, &Unobserved).unwrap()
}

fn states(pair: usize, modality: Modality) -> Vec<f32> {
    let store = tiny_store();
    match modality {
        Modality::Vision => store.vision(pair).to_vec(),
        Modality::Text => store.text(pair, 0).to_vec(),
    }
}

#[test]
fn a_saved_model_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/model");
    let model = model();
    model.save(&path).unwrap();
    let loaded = Model::load(&path).unwrap();
    assert_eq!(loaded.params, model.params);
    assert_eq!(loaded.normalisation, model.normalisation);
    assert_eq!((&loaded.config, loaded.variances), (&model.config, model.variances));
    assert_eq!(loaded.provenance, model.provenance);
    let states = states(2, Modality::Vision);
    assert_eq!(loaded.encode(&states, Modality::Vision).unwrap(), model.encode(&states, Modality::Vision).unwrap());
    // Saving over a model replaces it.
    loaded.save(&path).unwrap();
    assert_eq!(Model::load(&path).unwrap().params, model.params);
    let mut names: Vec<String> =
        fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors"]);
}

#[test]
fn the_folder_says_what_the_formats_page_promises() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let model = model();
    model.save(&path).unwrap();
    let config: Value = serde_json::from_str(&fs::read_to_string(path.join("config.json")).unwrap()).unwrap();
    let Value::Object(fields) = serde_json::to_value(tiny()).unwrap() else { panic!() };
    for (name, value) in fields {
        assert_eq!(config[&name], value, "{name}");
    }
    assert_eq!(config["format"], "lucid-sae-model");
    assert_eq!(config["formatVersion"], 1);
    assert_eq!(config["preset"], "default");
    assert_eq!(config["store"]["fingerprint"], tiny_store().fingerprint());
    assert!(config["versions"]["lucidSae"].is_string());
    assert_eq!(config["normalisation"]["formula"], "(h - mean) * scale");
    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(config["weights"]["blake3"], blake3::hash(&bytes).to_hex().as_str());
    // Read as a stranger would: header length, header, offsets.
    let header_length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_length]).unwrap();
    let expected = [
        ("vision.W_enc", vec![12, 24]),
        ("vision.b_enc", vec![24]),
        ("vision.W_dec", vec![24, 12]),
        ("vision.b_dec", vec![12]),
        ("vision.mean", vec![12]),
        ("vision.scale", vec![1]),
        ("text.W_enc", vec![10, 24]),
        ("text.b_enc", vec![24]),
        ("text.W_dec", vec![24, 10]),
        ("text.b_dec", vec![10]),
        ("text.mean", vec![10]),
        ("text.scale", vec![1]),
    ];
    assert_eq!(header.as_object().unwrap().len(), expected.len());
    for (name, shape) in expected {
        assert_eq!(header[name]["shape"], serde_json::json!(shape), "{name}");
        assert_eq!(header[name]["dtype"], "F32");
    }
    let at = header["vision.W_dec"]["data_offsets"][0].as_u64().unwrap() as usize + 8 + header_length;
    let first = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(first, model.params.vision.w_dec[0]);
}

#[test]
fn a_damaged_or_newer_or_absent_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let model = model();
    let change = |name: &str, edit: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        if path.exists() {
            fs::remove_dir_all(&path).unwrap();
        }
        model.save(&path).unwrap();
        let file = path.join(name);
        fs::write(&file, edit(fs::read(&file).unwrap())).unwrap();
        Model::load(&path).unwrap_err()
    };
    let replaced = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from));
            text.replace(from, to).into_bytes()
        }
    };
    let length = {
        model.save(&path).unwrap();
        fs::metadata(path.join("model.safetensors")).unwrap().len() as usize
    };
    for at in [0, 7, 8, 60, length / 2, length - 1] {
        let error = change("model.safetensors", &|mut bytes| {
            bytes[at] ^= 4;
            bytes
        });
        assert_eq!(error.code(), "E_DAMAGED", "byte {at}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    for cut in [0, 5, length - 1] {
        assert_eq!(change("model.safetensors", &|bytes| bytes[..cut].to_vec()).code(), "E_DAMAGED");
    }
    let newer = change("config.json", &replaced("\"formatVersion\": 1", "\"formatVersion\": 2"));
    assert_eq!(newer.code(), "E_VERSION");
    let other = change("config.json", &replaced("lucid-sae-model", "something-else"));
    assert_eq!(other.code(), "E_DAMAGED");
    let missing = change("config.json", &replaced("\"dShared\"", "\"dSharde\""));
    assert!(missing.to_string().contains("dShared"), "{missing}");
    // Sizes are compared with the file, not believed.
    let huge = change("config.json", &replaced("\"dVision\": 12", "\"dVision\": 4611686018427387904"));
    assert_eq!(huge.code(), "E_SHAPE");
    assert_eq!(change("config.json", &|bytes| bytes[..bytes.len() / 2].to_vec()).code(), "E_DAMAGED");
    assert_eq!(Model::load(folder.path()).unwrap_err().code(), "E_NOT_A_MODEL");
    assert_eq!(Model::load(Path::new("/nowhere/at/all")).unwrap_err().code(), "E_NOT_A_MODEL");
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let mut model = model();
    model.params.text.b_enc[3] = f32::NAN;
    model.save(&path).unwrap();
    let error = Model::load(&path).unwrap_err();
    assert!(error.to_string().contains("text.b_enc") && error.code() == "E_DAMAGED", "{error}");
}

#[test]
fn decoding_is_the_formula_in_raw_units() {
    let model = model();
    for modality in Modality::ALL {
        let states = states(4, modality);
        let d = model.width(modality);
        let codes = model.encode(&states, modality).unwrap();
        assert_eq!((codes.n, codes.k_shared, codes.k_private), (states.len() / d, 3, 2));
        let (p, scaling) = (model.params.of(modality), model.normalisation.of(modality));
        for (block, range) in [(Block::Joint, 0..24), (Block::Shared, 0..14), (Block::Private, 14..24)] {
            let found = model.decode(&codes, modality, block).unwrap();
            for token in 0..codes.n {
                for x in 0..d {
                    let slots = token * 5..(token + 1) * 5;
                    let sum: f64 = slots
                        .filter(|slot| range.contains(&(codes.indices[*slot] as usize)))
                        .map(|slot| {
                            f64::from(codes.values[slot]) * f64::from(p.w_dec[codes.indices[slot] as usize * d + x])
                        })
                        .sum();
                    let expected =
                        (sum + f64::from(p.b_dec[x])) / f64::from(scaling.scale) + f64::from(scaling.mean[x]);
                    let found = f64::from(found[token * d + x]);
                    assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found} {expected}");
                }
            }
        }
    }
}

#[test]
fn codes_hold_the_largest_positive_preactivations_in_order() {
    let model = model();
    let states = states(1, Modality::Text);
    let codes = model.encode(&states, Modality::Text).unwrap();
    let (p, scaling) = (&model.params.text, &model.normalisation.text);
    for token in 0..codes.n {
        let mut h = states[token * 10..(token + 1) * 10].to_vec();
        scaling.apply(&mut h);
        let a: Vec<f64> = (0..24)
            .map(|k| {
                let sum: f64 = (0..10).map(|x| f64::from(p.w_enc[x * 24 + k]) * f64::from(h[x] - p.b_dec[x])).sum();
                sum + f64::from(p.b_enc[k])
            })
            .collect();
        for (block, k, first) in [(0..14, 3, 0), (14..24, 2, 3)] {
            let mut best: Vec<usize> = block.filter(|k| a[*k] > 0.0).collect();
            best.sort_by(|x, y| a[*y].total_cmp(&a[*x]));
            best.truncate(k);
            let slots = token * 5 + first..token * 5 + first + k;
            let found: Vec<u32> = codes.indices[slots.clone()].to_vec();
            let mut expected: Vec<u32> = best.iter().map(|k| *k as u32).collect();
            expected.resize(k, u32::MAX);
            assert_eq!(found, expected, "token {token}");
            assert!(codes.values[slots].is_sorted_by(|a, b| a >= b));
        }
    }
}

#[test]
fn codes_may_come_in_any_order_but_not_out_of_range() {
    let model = model();
    let vision = model.encode(&states(0, Modality::Vision), Modality::Vision).unwrap();
    let text = model.encode(&states(0, Modality::Text), Modality::Text).unwrap();
    let mut reversed = vision.clone();
    reversed.indices.chunks_exact_mut(5).for_each(<[u32]>::reverse);
    reversed.values.chunks_exact_mut(5).for_each(<[f32]>::reverse);
    for block in [Block::Joint, Block::Shared, Block::Private] {
        let decode = |codes| model.decode(codes, Modality::Text, block).unwrap();
        assert_eq!(decode(&reversed), decode(&vision));
    }
    assert_eq!(model.match_pair(&reversed, &text).unwrap(), model.match_pair(&vision, &text).unwrap());
    let mut wrong = vision.clone();
    wrong.indices[0] = 24;
    assert_eq!(model.decode(&wrong, Modality::Vision, Block::Joint).unwrap_err().code(), "E_SHAPE");
    let short = Codes { n: vision.n + 1, ..vision };
    assert_eq!(model.decode(&short, Modality::Vision, Block::Joint).unwrap_err().code(), "E_SHAPE");
}

#[test]
fn a_plan_has_its_marginals_and_obeys_its_mask() {
    let model = model();
    let vision = model.encode(&states(0, Modality::Vision), Modality::Vision).unwrap();
    let text = model.encode(&states(0, Modality::Text), Modality::Text).unwrap();
    let plan = model.match_pair(&vision, &text).unwrap();
    assert_eq!((plan.rows, plan.columns, plan.plan.len()), (6, 3, 18));
    for j in 0..3 {
        let column: f32 = (0..6).map(|i| plan.plan[i * 3 + j]).sum();
        // Columns are exact up to rounding (spec 3).
        assert!((column - plan.column_marginal[j]).abs() < 1e-6, "{column}");
    }
    assert!((plan.row_marginal.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    assert_eq!((plan.iterations, plan.weights.len()), (10, 3));

    let mut mask = vec![1.0; 18];
    mask[4] = 0.0;
    let masked = model.match_admissible(&vision, &text, Some(&mask)).unwrap();
    assert_eq!(masked.plan[4], 0.0);
    mask[3..6].fill(0.0);
    let error = model.match_admissible(&vision, &text, Some(&mask)).unwrap_err();
    assert_eq!(error.code(), "E_EMPTY_MASK");
    assert_eq!(model.match_admissible(&vision, &text, Some(&mask[1..])).unwrap_err().code(), "E_SHAPE");
}

#[test]
fn activations_that_do_not_fit_are_refused() {
    let model = model();
    assert_eq!(model.encode(&[0.0; 13], Modality::Vision).unwrap_err().code(), "E_SHAPE");
    let mut states = states(0, Modality::Vision);
    states[25] = f32::INFINITY;
    let error = model.encode(&states, Modality::Vision).unwrap_err();
    assert_eq!(error.code(), "E_NON_FINITE");
    assert_eq!((&error.details()["token"], &error.details()["dimension"]), (&2.into(), &1.into()));
    assert_eq!(model.encode(&[], Modality::Vision).unwrap().n, 0);
    let none = model.encode(&[], Modality::Text).unwrap();
    assert!(model.decode(&none, Modality::Text, Block::Joint).unwrap().is_empty());
    let some = model.encode(&[0.0; 12], Modality::Vision).unwrap();
    assert_eq!(model.match_pair(&some, &none).unwrap_err().code(), "E_SHAPE");
}

#[test]
fn info_counts_the_parameters() {
    let info = model().info();
    assert_eq!((info.d_vision, info.d_text, info.latents), (12, 10, 24));
    assert_eq!(info.parameters, 2 * 12 * 24 + 24 + 12 + 2 * 10 * 24 + 24 + 10);
    // Centred and scaled states have variance 1; f32 rounds the scale.
    assert!((info.variance.vision - 1.0).abs() < 1e-6);
    assert!(info.pooled_variance.text > 0.0 && info.pooled_variance.text < 1.0);
    assert_eq!(info.config, Config { ..tiny() });
}
