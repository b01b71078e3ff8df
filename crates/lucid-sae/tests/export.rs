//! What other libraries read: the written weights, applied densely as SAELens applies them to raw states, give the model's own codes and
//! reconstructions.
#![allow(clippy::unwrap_used)]

mod support;

use lucid_data::store::MemoryStore;
use lucid_kernels::{Block, Modality};
use lucid_sae::config::Config;
use lucid_sae::export::saelens;
use lucid_sae::{Model, Preset, TrainOptions, Unobserved, train};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;
use support::{synthetic, tiny};

fn trained(data: &MemoryStore, config: Config) -> Model {
    train(data, None, &TrainOptions { threads: 1, ..TrainOptions::new(config) }, &Unobserved).unwrap()
}

/// One exported autoencoder, in f64.
struct Exported {
    config: Value,
    d: usize,
    w_enc: Vec<f64>,
    b_enc: Vec<f64>,
    w_dec: Vec<f64>,
    b_dec: Vec<f64>,
    threshold: Option<Vec<f64>>,
}

impl Exported {
    fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("sae_weights.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |name: &str| -> Option<Vec<f64>> {
            let tensor = file.tensor(name).ok()?;
            Some(tensor.data().chunks_exact(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap()))).collect())
        };
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("cfg.json")).unwrap()).unwrap();
        let (d, k) = (config["d_in"].as_u64().unwrap() as usize, config["d_sae"].as_u64().unwrap() as usize);
        assert_eq!(file.tensor("W_enc").unwrap().shape(), [d, k]);
        assert_eq!(file.tensor("W_dec").unwrap().shape(), [k, d]);
        Self {
            config,
            d,
            w_enc: values("W_enc").unwrap(),
            b_enc: values("b_enc").unwrap(),
            w_dec: values("W_dec").unwrap(),
            b_dec: values("b_dec").unwrap(),
            threshold: values("threshold"),
        }
    }

    /// The dense code of a raw state: Top-k and ReLU, or what is above the thresholds.
    fn encode(&self, state: &[f32]) -> Vec<f64> {
        let latents = self.b_enc.len();
        let x: Vec<f64> = state.iter().zip(&self.b_dec).map(|(h, b)| f64::from(*h) - b).collect();
        let mut a: Vec<f64> = (0..latents)
            .map(|k| x.iter().enumerate().map(|(i, x)| x * self.w_enc[i * latents + k]).sum::<f64>() + self.b_enc[k])
            .collect();
        if let Some(threshold) = &self.threshold {
            a.iter_mut().zip(threshold).for_each(|(a, t)| *a = if *a > *t { *a } else { 0.0 });
            return a;
        }
        let k = self.config["k"].as_u64().unwrap() as usize;
        let mut order: Vec<usize> = (0..latents).collect();
        order.sort_by(|&i, &j| a[j].total_cmp(&a[i]));
        order[k.min(latents)..].iter().for_each(|&i| a[i] = 0.0);
        a.iter().map(|x| x.max(0.0)).collect()
    }

    /// The reconstruction without b_dec.
    fn decode(&self, code: &[f64]) -> Vec<f64> {
        (0..self.d).map(|i| code.iter().enumerate().map(|(k, z)| z * self.w_dec[k * self.d + i]).sum()).collect()
    }
}

/// Codes and reconstructions of a model beside those of what is written of it.
fn compare(data: &MemoryStore, model: &Model, folders: &[&str], architecture: &str) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("exported");
    assert_eq!(saelens(model, &out).unwrap(), folders);
    let mut compared = 0;
    for m in Modality::ALL {
        let parts: Vec<Exported> = folders
            .iter()
            .filter(|name| name.starts_with(m.name()))
            .map(|name| Exported::read(&out.join(name)))
            .collect();
        let states: Vec<f32> = match m {
            Modality::Vision => (0..9).flat_map(|pair| data.vision(pair).to_vec()).collect(),
            Modality::Text => (0..9).flat_map(|pair| data.text(pair, 0).to_vec()).collect(),
        };
        let codes = model.encode(&states, m).unwrap();
        let decoded = model.decode(&codes, m, Block::Joint).unwrap();
        let (d, slots) = (model.width(m), codes.k_shared + codes.k_private);
        for (token, state) in states.chunks_exact(d).enumerate() {
            let mut expected = vec![0.0; model.config.latents()];
            for slot in token * slots..(token + 1) * slots {
                if codes.indices[slot] != u32::MAX {
                    expected[codes.indices[slot] as usize] = f64::from(codes.values[slot]);
                }
            }
            let each: Vec<Vec<f64>> = parts.iter().map(|part| part.encode(state)).collect();
            for (found, expected) in each.concat().iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4, "{}: {found} {expected}", m.name());
                compared += usize::from(*expected > 0.0);
            }
            let mut sum = parts[0].b_dec.clone();
            for (part, code) in parts.iter().zip(&each) {
                sum.iter_mut().zip(part.decode(code)).for_each(|(sum, x)| *sum += x);
            }
            for (found, expected) in sum.iter().zip(&decoded[token * d..]) {
                assert!((found - f64::from(*expected)).abs() < 1e-4, "{}: {found} {expected}", m.name());
            }
        }
        for part in &parts {
            assert_eq!(part.config["architecture"], architecture);
            assert_eq!(part.config["apply_b_dec_to_input"], true);
        }
    }
    assert!(compared > 100, "{compared}");
    // Nothing is replaced.
    let error = saelens(model, &out).unwrap_err();
    assert_eq!(error.code(), "E_OPTION");
}

#[test]
fn blocks_become_topk_autoencoders_of_raw_states() {
    let data = synthetic(3, 60, 12, 16, 14).store;
    let model = trained(&data, Config { steps: 40, center: true, scale: true, ..tiny() });
    assert!(model.normalisation.vision.mean.iter().any(|x| *x != 0.0));
    compare(&data, &model, &["vision-shared", "vision-private", "text-shared", "text-private"], "topk");
    let plain = trained(&data, Config { steps: 40, center: false, scale: false, ..tiny() });
    compare(&data, &plain, &["vision-shared", "vision-private", "text-shared", "text-private"], "topk");
}

#[test]
fn one_block_is_one_autoencoder_and_thresholds_make_it_jumprelu() {
    let data = synthetic(3, 80, 12, 16, 14).store;
    let small = |preset: Preset| Config {
        d_shared: 24,
        k_shared: 5,
        lr: 1e-2,
        batch_pairs: 20,
        micro_pairs: 7,
        steps: 60,
        ..preset.config()
    };
    compare(&data, &trained(&data, small(Preset::Separate)), &["vision", "text"], "topk");
    compare(&data, &trained(&data, small(Preset::SeparateJumpRelu)), &["vision", "text"], "jumprelu");
    compare(&data, &trained(&data, small(Preset::SeparateBatchTopk)), &["vision", "text"], "jumprelu");
}

#[test]
fn an_encoder_that_is_not_linear_is_refused() {
    let data = synthetic(3, 40, 12, 12, 12).store;
    let config = Config { d_shared: 24, k_shared: 5, batch_pairs: 20, steps: 2, ..Preset::VlSae.config() };
    let folder = tempfile::tempdir().unwrap();
    let error = saelens(&trained(&data, config), &folder.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("linear encoder"), "{error}");
    assert!(!folder.path().join("out").exists());
}
