//! A model held for JavaScript.

use std::sync::Arc;

use lucid_kernels::{Block, Modality};
use lucid_sae::model::{Codes, Model};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use serde_json::{Value, json};

use crate::error::Failure;

/// A loaded or trained model.
#[napi]
pub struct NativeModel {
    pub(crate) model: Arc<Model>,
}

/// Codes as arrays.
#[napi(object, object_from_js = false)]
pub struct NativeCodes {
    /// Latent indices.
    pub indices: Uint32Array,
    /// Values.
    pub values: Float32Array,
    /// Slots of a token.
    pub k: u32,
}

/// The plan of one pair.
#[napi(object, object_from_js = false)]
pub struct NativeMatch {
    /// Π, row by row.
    pub plan: Float32Array,
    /// Rows.
    pub patches: u32,
    /// Columns.
    pub tokens: u32,
    /// Mass of each token.
    pub column_marginal: Float32Array,
    /// Row-marginal error.
    pub marginal_error: f64,
    /// ⟨C̃, Π⟩.
    pub transport_cost: f64,
    /// −Σ Π ln Π.
    pub entropy: f64,
    /// Rounds made.
    pub iterations: u32,
}

fn modality(name: &str) -> std::result::Result<Modality, Failure> {
    Modality::ALL
        .into_iter()
        .find(|modality| modality.name() == name)
        .ok_or_else(|| Failure::option("modality", format!("'{name}'"), "'vision' or 'text'"))
}

fn block(name: &str) -> std::result::Result<Block, Failure> {
    match name {
        "joint" => Ok(Block::Joint),
        "shared" => Ok(Block::Shared),
        "private" => Ok(Block::Private),
        _ => Err(Failure::option("block", format!("'{name}'"), "'joint', 'shared' or 'private'")),
    }
}

impl NativeModel {
    /// Codes of `k` slots a token; only models with thresholds have another number than their configuration names.
    fn codes(&self, indices: &[u32], values: &[f32], k: Option<u32>) -> std::result::Result<Codes, Failure> {
        let config = &self.model.config;
        let (k_shared, k_private) = match (self.model.has_thresholds(), k) {
            (true, Some(k)) => (k as usize, 0),
            _ => (config.k_shared, config.k_private),
        };
        let k = (k_shared + k_private).max(1);
        if indices.len() != values.len() || !indices.len().is_multiple_of(k) {
            let found = format!("{} indices and {} values", indices.len(), values.len());
            return Err(Failure::shape("codes", found, format!("a multiple of k = {k}, equal in number")));
        }
        Ok(Codes { indices: indices.to_vec(), values: values.to_vec(), n: indices.len() / k, k_shared, k_private })
    }
}

#[napi]
impl NativeModel {
    /// Loads the model in a folder.
    #[napi(factory, catch_unwind)]
    pub fn load(path: String) -> Result<Self> {
        Ok(Self { model: Arc::new(Model::load(path).map_err(Failure::from)?) })
    }

    /// The resolved configuration as JSON.
    #[napi(catch_unwind)]
    pub fn config(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.model.config).map_err(Failure::from)?)
    }

    /// Sizes and origin as JSON.
    #[napi(catch_unwind)]
    pub fn info(&self) -> Result<String> {
        let config = &self.model.config;
        let mut info = serde_json::to_value(self.model.info()).map_err(Failure::from)?;
        if let Value::Object(info) = &mut info {
            info.insert("dShared".into(), json!(config.d_shared));
            info.insert("dPrivate".into(), json!(config.d_private));
            info.insert("steps".into(), json!(self.model.provenance.steps));
            info.insert("storeFingerprint".into(), json!(self.model.provenance.store));
        }
        Ok(info.to_string())
    }

    /// Codes of raw activations.
    #[napi(catch_unwind)]
    pub fn encode(&self, activations: &[f32], modality_name: String) -> Result<NativeCodes> {
        let codes = self.model.encode(activations, modality(&modality_name)?).map_err(Failure::from)?;
        let k = (codes.k_shared + codes.k_private) as u32;
        Ok(NativeCodes { indices: codes.indices.into(), values: codes.values.into(), k })
    }

    /// Reconstructions in raw units.
    #[napi(catch_unwind)]
    pub fn decode(
        &self,
        indices: &[u32],
        values: &[f32],
        modality_name: String,
        block_name: String,
        k: Option<u32>,
    ) -> Result<Float32Array> {
        let codes = self.codes(indices, values, k)?;
        let out = self.model.decode(&codes, modality(&modality_name)?, block(&block_name)?).map_err(Failure::from)?;
        Ok(out.into())
    }

    /// The plan between codes of patches and of tokens.
    #[napi(js_name = "match", catch_unwind)]
    pub fn match_pair(
        &self,
        vision_indices: &[u32],
        vision_values: &[f32],
        text_indices: &[u32],
        text_values: &[f32],
        vision_k: Option<u32>,
        text_k: Option<u32>,
    ) -> Result<NativeMatch> {
        let vision = self.codes(vision_indices, vision_values, vision_k)?;
        let text = self.codes(text_indices, text_values, text_k)?;
        let plan = self.model.match_pair(&vision, &text).map_err(Failure::from)?;
        Ok(NativeMatch {
            plan: plan.plan.into(),
            patches: vision.n as u32,
            tokens: text.n as u32,
            column_marginal: plan.column_marginal.into(),
            marginal_error: plan.marginal_error,
            transport_cost: plan.transport_cost,
            entropy: plan.entropy,
            iterations: plan.iterations,
        })
    }

    /// Writes the model for SAELens; the folders of its autoencoders within `out`.
    #[napi(catch_unwind)]
    pub fn export_saelens(&self, out: String) -> Result<Vec<String>> {
        Ok(lucid_sae::export::saelens(&self.model, out.as_ref()).map_err(Failure::from)?)
    }

    /// Writes the model folder.
    #[napi(catch_unwind)]
    pub fn save(&self, path: String) -> Result<()> {
        self.model.save(path).map_err(Failure::from)?;
        Ok(())
    }
}
