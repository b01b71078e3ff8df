//! Backbones from their files.

use super::Backbone;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::VlmError;
use crate::mini_training::initial;
use crate::model::DualEncoder;
use crate::open_clip;
use crate::preprocess::Preprocessing;
use crate::tokenizer::{TextShape, TextTokenizer};
use crate::weights::{TensorMap, expected_shapes, read_weights};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// The files of a backbone, in memory.
#[derive(Debug, Clone, Copy)]
pub struct BackboneFiles<'a> {
    /// Name kept in the provenance of what is made with it.
    pub id: &'a str,
    /// `config.json`, or `open_clip_config.json`.
    pub config: &'a [u8],
    /// Weight files with their names: `model.safetensors`, or its shards.
    pub weights: &'a [(&'a str, &'a [u8])],
    /// `tokenizer.json`
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`, which names the special tokens.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `preprocessor_config.json`; the family's own values where absent.
    pub preprocessor: Option<&'a [u8]>,
}

/// BLAKE3 of the weights: of the one file, or over a line `<name> <hash>` a shard.
fn hash_of(files: &[(&str, &[u8])]) -> String {
    if let [(_, bytes)] = files {
        return blake3::hash(bytes).to_hex().to_string();
    }
    let lines: String =
        files.iter().map(|(name, bytes)| format!("{name} {}\n", blake3::hash(bytes).to_hex())).collect();
    blake3::hash(lines.as_bytes()).to_hex().to_string()
}

impl Backbone {
    /// Loads a folder in Hugging Face's layout. `preprocessor_config.json` may be absent.
    ///
    /// # Errors
    /// `E_BACKBONE` (a file is missing or not what it should be), `E_BACKBONE_CONFIG`, `E_BACKBONE_WEIGHTS`, `E_TOKENIZER`.
    pub fn load(folder: &Path) -> Result<Self, VlmError> {
        let files = Checkpoint::read(folder)?;
        let id = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let id = id.file_name().map_or_else(|| "backbone".into(), |n| n.to_string_lossy().into_owned());
        let weights: Vec<(&str, &[u8])> = files.weights.iter().map(|(name, map)| (name.as_str(), &map[..])).collect();
        Self::from_files(BackboneFiles {
            id: &id,
            config: &files.config,
            weights: &weights,
            tokenizer: &files.tokenizer,
            tokenizer_config: files.tokenizer_config.as_deref(),
            preprocessor: files.preprocessor.as_deref(),
        })
    }

    /// Builds a backbone from the contents of its files.
    ///
    /// # Errors
    /// As [`Backbone::load`]; files are named as in the folder.
    pub fn from_files(files: BackboneFiles<'_>) -> Result<Self, VlmError> {
        let given: Value = serde_json::from_slice(files.config)
            .map_err(|e| VlmError::File { file: "config.json".into(), reason: format!("not JSON: {e}") })?;
        let mut tensors = TensorMap::new();
        let mut preprocessor = files.preprocessor.map(<[u8]>::to_vec);
        let mut config = None;
        if !open_clip::is_ours(&given) {
            // Checked before the weights are read: they may take minutes, a wrong config none.
            config = Some(ModelConfig::parse(files.config, "config.json")?);
        }
        for (name, bytes) in files.weights {
            for (tensor, value) in read_weights(bytes, name)? {
                if tensors.insert(tensor.clone(), value).is_some() {
                    let (found, expected) = (format!("again in {name}"), "a tensor in one file only".into());
                    return Err(VlmError::Weights { tensor, found, expected });
                }
            }
        }
        let config = match config {
            Some(config) => config,
            None => {
                let translated = open_clip::translate(&given, tensors)?;
                tensors = translated.tensors;
                preprocessor.get_or_insert(translated.preprocessor.to_string().into_bytes());
                ModelConfig::parse(translated.config.to_string().as_bytes(), open_clip::CONFIG)?
            }
        };
        let preprocessing = match preprocessor {
            Some(json) => Preprocessing::parse(&json, "preprocessor_config.json", &config)?,
            None => Preprocessing::of(&config),
        };
        let text = &config.text_config;
        let shape = TextShape {
            length: text.max_position_embeddings,
            vocabulary: text.vocab_size,
            pad: text.pad_token_id,
            canonical: config.traits().canonical,
        };
        Ok(Self {
            id: files.id.into(),
            model: Arc::new(DualEncoder::new(&config, &tensors)?),
            tokenizer: Arc::new(TextTokenizer::parse(files.tokenizer, files.tokenizer_config, shape)?),
            preprocessing,
            weights_hash: hash_of(files.weights),
            tokenizer_hash: blake3::hash(files.tokenizer).to_hex().to_string(),
            threads: 0,
        })
    }

    /// A backbone of the same shape, tokenizer and preprocessing with random weights: what a number is worth without any
    /// training. The weights are drawn as the mini backbone's are before its training.
    ///
    /// # Errors
    /// `E_COMPUTE`.
    pub fn untrained(&self, seed: u64) -> Result<Self, VlmError> {
        let config = self.config();
        let tensors: TensorMap =
            initial::tensors(expected_shapes(config), config, [10.0, -10.0], seed)?.into_iter().collect();
        let model = Arc::new(DualEncoder::new(config, &tensors)?);
        let hash = format!("none: random weights of seed {seed}");
        Ok(Self { id: format!("{}, untrained", self.id), model, weights_hash: hash, ..self.clone() })
    }
}
