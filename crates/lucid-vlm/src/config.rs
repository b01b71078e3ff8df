//! `config.json` of a SigLIP, SigLIP 2 or CLIP model as `transformers` writes it. Older files leave out values that equal their
//! family's defaults, so every field has one.

use crate::error::VlmError;
use crate::family::{Family, Traits};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Activation function of the feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Activation {
    /// GELU in its tanh form (also `gelu_new` in some files): what SigLIP was trained with.
    #[default]
    #[serde(rename = "gelu_pytorch_tanh", alias = "gelu_new")]
    GeluTanh,
    /// GELU with the error function.
    #[serde(rename = "gelu")]
    GeluErf,
    /// x · σ(1.702 x): OpenAI's CLIP.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
}

/// Shape of the image tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Width d of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Colour channels (3).
    pub num_channels: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// SigLIP 2 NaFlex: rows of the position table, a square number, and most patches of a picture. `image_size` means nothing then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_patches: Option<usize>,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Whether the attention-pooling head is present.
    pub vision_use_head: bool,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            num_patches: None,
            hidden_act: Activation::GeluTanh,
            layer_norm_eps: 1e-6,
            vision_use_head: true,
        }
    }
}

impl VisionConfig {
    /// Patches along one side of a square input, and of the position table.
    pub fn side(&self) -> usize {
        self.num_patches.map_or(self.image_size / self.patch_size, usize::isqrt)
    }

    /// Patches of a square input, and most of any.
    pub fn patches(&self) -> usize {
        self.side() * self.side()
    }

    /// Values of one unfolded patch, ordered (channel, y, x) as the convolution's weight.
    pub fn patch_values(&self) -> usize {
        self.num_channels * self.patch_size * self.patch_size
    }
}

/// Shape of the text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    /// Width d of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Tokens every caption is padded to.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Id that fills up a caption. SigLIP pads with its end-of-sentence id.
    pub pad_token_id: u32,
    /// SigLIP: width of the pooled output; `hidden_size` when absent.
    pub projection_size: Option<usize>,
    /// CLIP: the id whose state is pooled. 2 stands for the largest id in the caption, as older files have it. SigLIP's files
    /// carry values here that mean nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            vocab_size: 32_000,
            max_position_embeddings: 64,
            hidden_act: Activation::GeluTanh,
            layer_norm_eps: 1e-6,
            pad_token_id: 1,
            projection_size: None,
            eos_token_id: None,
        }
    }
}

/// A whole model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The family; the fixed-resolution SigLIP 2 models are `siglip` too.
    #[serde(default)]
    pub model_type: Family,
    /// Text tower.
    #[serde(default)]
    pub text_config: TextConfig,
    /// Image tower.
    #[serde(default)]
    pub vision_config: VisionConfig,
    /// CLIP: width of both pooled outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection_dim: Option<usize>,
}

/// What the files of a family may leave out.
fn defaults(family: Family) -> ModelConfig {
    let (text, vision) = (TextConfig::default(), VisionConfig::default());
    match family {
        Family::Siglip => {
            ModelConfig { model_type: family, text_config: text, vision_config: vision, projection_dim: None }
        }
        Family::Siglip2 => ModelConfig {
            vision_config: VisionConfig { num_patches: Some(256), ..vision },
            model_type: family,
            text_config: text,
            projection_dim: None,
        },
        Family::Clip => ModelConfig {
            model_type: family,
            text_config: TextConfig {
                hidden_size: 512,
                intermediate_size: 2048,
                num_attention_heads: 8,
                vocab_size: 49_408,
                max_position_embeddings: 77,
                hidden_act: Activation::QuickGelu,
                layer_norm_eps: 1e-5,
                eos_token_id: Some(49_407),
                ..text
            },
            vision_config: VisionConfig {
                patch_size: 32,
                hidden_act: Activation::QuickGelu,
                layer_norm_eps: 1e-5,
                vision_use_head: false,
                ..vision
            },
            projection_dim: Some(512),
        },
    }
}

/// Puts the fields of `over` that say something on top of `base`.
fn overlay(base: &mut Value, over: &Value) {
    let (Some(base), Some(over)) = (base.as_object_mut(), over.as_object()) else { return };
    for (name, value) in over.iter().filter(|(_, value)| !value.is_null()) {
        base.insert(name.clone(), value.clone());
    }
}

impl ModelConfig {
    /// Reads and checks the JSON text of a `config.json`; `file` only names it in errors.
    ///
    /// # Errors
    /// `E_BACKBONE` when it is not JSON of this form, `E_BACKBONE_CONFIG` when a value cannot be used.
    pub fn parse(json: &[u8], file: &str) -> Result<Self, VlmError> {
        let broken = |e: &dyn std::fmt::Display| VlmError::File {
            file: file.into(),
            reason: format!("not the config of a SigLIP or CLIP model: {e}"),
        };
        let given: Value = serde_json::from_slice(json).map_err(|e| broken(&e))?;
        let family = match given.get("model_type") {
            None => Family::Siglip,
            Some(found) => found.as_str().and_then(Family::from_name).ok_or_else(|| VlmError::Config {
                file: file.into(),
                field: "model_type".into(),
                found: found.to_string(),
                expected: format!("one of {}", Family::NAMES.join(", ")),
            })?,
        };
        let mut all = serde_json::to_value(defaults(family)).map_err(|e| broken(&e))?;
        for tower in ["text_config", "vision_config"] {
            // The first CLIP files keep their values in `…_config_dict`, which wins, as in `transformers`.
            for source in [tower.to_string(), format!("{tower}_dict")] {
                if let Some(fields) = given.get(&source).filter(|fields| !fields.is_null()) {
                    if !fields.is_object() {
                        return Err(broken(&format!("`{source}` is no object")));
                    }
                    overlay(&mut all[tower], fields);
                }
            }
        }
        if let Some(width) = given.get("projection_dim").filter(|_| family == Family::Clip) {
            overlay(&mut all, &serde_json::json!({ "projection_dim": width }));
        }
        let mut config: Self = serde_json::from_value(all).map_err(|e| broken(&e))?;
        if !family.traits().positions_follow_grid {
            config.vision_config.num_patches = None;
        }
        config.check(file)?;
        Ok(config)
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// As [`ModelConfig::parse`].
    pub fn load(path: &Path) -> Result<Self, VlmError> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| VlmError::File { file: file.clone(), reason: e.to_string() })?;
        Self::parse(&bytes, &file)
    }

    /// What sets its family apart.
    pub fn traits(&self) -> &'static Traits {
        self.model_type.traits()
    }

    /// Width of a caption's pooled output.
    pub fn text_projection(&self) -> usize {
        let own = self.text_config.projection_size.unwrap_or(self.text_config.hidden_size);
        self.projection_dim.unwrap_or(own)
    }

    /// Width of a picture's pooled output; 0 in a model that pools none.
    pub fn vision_projection(&self) -> usize {
        let own = if self.vision_config.vision_use_head { self.vision_config.hidden_size } else { 0 };
        self.projection_dim.unwrap_or(own)
    }

    /// The sizes are believed only after this: a config from outside must not make us allocate without bound.
    pub(crate) fn check(&self, file: &str) -> Result<(), VlmError> {
        let bad = |field: &str, found: String, expected: &str| {
            Err(VlmError::Config { file: file.into(), field: field.into(), found, expected: expected.into() })
        };
        let (v, t) = (&self.vision_config, &self.text_config);
        let ranges = [
            ("vision_config.hidden_size", v.hidden_size, 16_384),
            ("vision_config.intermediate_size", v.intermediate_size, 65_536),
            ("vision_config.num_hidden_layers", v.num_hidden_layers, 256),
            ("vision_config.num_attention_heads", v.num_attention_heads, 1024),
            ("vision_config.image_size", v.image_size, 4096),
            ("vision_config.patch_size", v.patch_size, 4096),
            ("text_config.hidden_size", t.hidden_size, 16_384),
            ("text_config.intermediate_size", t.intermediate_size, 65_536),
            ("text_config.num_hidden_layers", t.num_hidden_layers, 256),
            ("text_config.num_attention_heads", t.num_attention_heads, 1024),
            ("text_config.vocab_size", t.vocab_size, 4_000_000),
            ("text_config.max_position_embeddings", t.max_position_embeddings, 8192),
            ("text_config.projection_size", t.projection_size.unwrap_or(1), 16_384),
            ("projection_dim", self.projection_dim.unwrap_or(1), 16_384),
            ("vision_config.num_patches", v.num_patches.unwrap_or(1), 65_536),
        ];
        for (field, found, most) in ranges {
            if found == 0 || found > most {
                return bad(field, found.to_string(), &format!("1 to {most}"));
            }
        }
        if v.num_channels != 3 {
            return bad("vision_config.num_channels", v.num_channels.to_string(), "3");
        }
        if let Some(patches) = v.num_patches {
            if patches.isqrt() * patches.isqrt() != patches {
                return bad("vision_config.num_patches", patches.to_string(), "a square number");
            }
        } else if v.image_size < v.patch_size {
            return bad("vision_config.patch_size", v.patch_size.to_string(), "at most image_size");
        }
        for (field, width, heads) in [
            ("vision_config.num_attention_heads", v.hidden_size, v.num_attention_heads),
            ("text_config.num_attention_heads", t.hidden_size, t.num_attention_heads),
        ] {
            if width % heads != 0 {
                return bad(field, heads.to_string(), &format!("a divisor of hidden_size {width}"));
            }
        }
        if t.pad_token_id as usize >= t.vocab_size {
            return bad(
                "text_config.pad_token_id",
                t.pad_token_id.to_string(),
                &format!("below vocab_size {}", t.vocab_size),
            );
        }
        Ok(())
    }
}
