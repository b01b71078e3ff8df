//! A model in files that other libraries read: SAELens' safetensors with cfg.json, one autoencoder for each block of each modality.
//!
//! Centring and scaling are folded into the weights, so that an exported autoencoder takes raw states. With x = (h − mean) · scale:
//! W_enc' = scale · W_enc, b_dec' = mean + b_dec / scale (subtracted before encoding and added after decoding), W_dec' = W_dec / scale. A
//! split Top-k is two autoencoders with the same b_dec', and the reconstruction from both is the sum of theirs less b_dec'.

use std::borrow::Cow;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use lucid_kernels::Modality;
use serde_json::{Value, json};

use crate::config::{Method, TopK};
use crate::error::SaeError;
use crate::files::{Disk, publish_folder, write_file};
use crate::model::Model;
use crate::tensors::{TensorSpec, write_tensors};

const CONFIG: &str = "cfg.json";
const WEIGHTS: &str = "sae_weights.safetensors";

/// One autoencoder to be written.
struct Part {
    modality: Modality,
    /// Name of its folder within that of the modality; none where there is one block.
    block: Option<&'static str>,
    latents: Range<usize>,
    k: usize,
}

impl Part {
    fn folder(&self) -> String {
        let modality = self.modality.name();
        self.block.map_or_else(|| modality.into(), |block| format!("{modality}-{block}"))
    }
}

/// The autoencoders of a model: a block has one where it chooses its entries by itself.
fn parts(model: &Model) -> Vec<Part> {
    let config = &model.config;
    let one = config.topk == TopK::Global || config.d_private == 0 || config.d_shared == 0;
    let of = |modality| {
        if one {
            return vec![Part { modality, block: None, latents: 0..config.latents(), k: config.k() }];
        }
        let shared = Part { modality, block: Some("shared"), latents: 0..config.d_shared, k: config.k_shared };
        let latents = config.d_shared..config.latents();
        vec![shared, Part { modality, block: Some("private"), latents, k: config.k_private }]
    };
    Modality::ALL.into_iter().flat_map(of).collect()
}

/// Writes `model` for SAELens into the folder `out`, by rename; gives the folders of the autoencoders within it. A folder that is there is
/// not replaced.
pub fn saelens(model: &Model, out: &Path) -> Result<Vec<String>, SaeError> {
    if model.config.method == Method::VlSae {
        let expected = "a model with a linear encoder: that of vl-sae goes by distance";
        return Err(SaeError::option("model", "method vl-sae", expected));
    }
    if out.exists() {
        return Err(SaeError::option("out", out.display(), "a folder that is not there yet"));
    }
    let parts = parts(model);
    publish_folder(&Disk, out, |folder| {
        for part in &parts {
            let folder = folder.join(part.folder());
            std::fs::create_dir(&folder).map_err(|error| SaeError::io("create", &folder, error))?;
            let text = format!("{:#}\n", describe(model, part));
            write_file(&Disk, &folder.join(CONFIG), |out| out.write_all(text.as_bytes()))?;
            write_file(&Disk, &folder.join(WEIGHTS), |out| write(out, model, part))?;
        }
        Ok(())
    })?;
    Ok(parts.iter().map(Part::folder).collect())
}

/// θ of every latent, where entries are those above a threshold.
fn thresholds(model: &Model, part: &Part) -> Option<Vec<f32>> {
    let learnt =
        model.params.log_threshold.as_ref().map(|logs| logs.of(part.modality).iter().map(|x| x.exp()).collect());
    let fixed = || {
        let thresholds = model.thresholds?;
        let theta = match part.modality {
            Modality::Vision => thresholds.vision,
            Modality::Text => thresholds.text,
        };
        Some(vec![theta; part.latents.len()])
    };
    learnt.or_else(fixed)
}

fn describe(model: &Model, part: &Part) -> Value {
    let jump = thresholds(model, part).is_some();
    let mut config = json!({
        "architecture": if jump { "jumprelu" } else { "topk" },
        "d_in": model.width(part.modality),
        "d_sae": part.latents.len(),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": true,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "lucid_sae": {
                "version": model.provenance.version,
                "modality": part.modality.name(),
                "block": part.block.unwrap_or("all"),
                "first_latent": part.latents.start,
                "preset": model.provenance.preset,
                "store": model.provenance.store,
            },
        },
    });
    if !jump {
        config["k"] = part.k.into();
        config["rescale_acts_by_decoder_norm"] = false.into();
    }
    config
}

fn write(out: &mut dyn Write, model: &Model, part: &Part) -> std::io::Result<()> {
    let side = model.params.of(part.modality);
    let scaling = model.normalisation.of(part.modality);
    let (d, latents, n) = (side.d, side.latents, part.latents.len());
    let columns = |row: &[f32]| row[part.latents.clone()].iter().map(|w| w * scaling.scale).collect::<Vec<f32>>();
    let w_enc: Vec<f32> = side.w_enc.chunks_exact(latents).flat_map(columns).collect();
    let w_dec: Vec<f32> =
        side.w_dec[part.latents.start * d..part.latents.end * d].iter().map(|w| w / scaling.scale).collect();
    let b_dec: Vec<f32> = side.b_dec.iter().zip(&scaling.mean).map(|(b, mean)| mean + b / scaling.scale).collect();
    let b_enc = side.b_enc[part.latents.clone()].to_vec();
    let mut all = vec![
        ("W_dec", vec![n, d], w_dec),
        ("W_enc", vec![d, n], w_enc),
        ("b_dec", vec![d], b_dec),
        ("b_enc", vec![n], b_enc),
    ];
    if let Some(threshold) = thresholds(model, part) {
        all.push(("threshold", vec![n], threshold));
    }
    let specs: Vec<TensorSpec> = all.iter().map(|(name, shape, _)| TensorSpec::f32(*name, shape)).collect();
    write_tensors(out, &specs, |spec| {
        let found = all.iter().find(|(name, ..)| *name == spec.name);
        let (_, _, values) = found.ok_or_else(|| std::io::Error::other(spec.name.clone()))?;
        Ok(Cow::Borrowed(bytemuck::cast_slice(values)))
    })
}
