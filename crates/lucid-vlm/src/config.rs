//! `config.json` of a SigLIP model as `transformers` writes it. Older files leave values out that equal SigLIP's defaults
//! (base-patch16-224), so every field has one.

use crate::error::VlmError;
use serde::{Deserialize, Serialize};
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
            hidden_act: Activation::GeluTanh,
            layer_norm_eps: 1e-6,
            vision_use_head: true,
        }
    }
}

impl VisionConfig {
    /// Patches along one side of the input.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of one image.
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
    /// Width of the pooled output; `hidden_size` when absent.
    pub projection_size: Option<usize>,
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
        }
    }
}

impl TextConfig {
    /// Width of the pooled output.
    pub fn projection(&self) -> usize {
        self.projection_size.unwrap_or(self.hidden_size)
    }
}

/// A whole SigLIP model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiglipConfig {
    /// `siglip`; the fixed-resolution SigLIP 2 models carry the same name.
    #[serde(default = "siglip")]
    pub model_type: String,
    /// Text tower.
    #[serde(default)]
    pub text_config: TextConfig,
    /// Image tower.
    #[serde(default)]
    pub vision_config: VisionConfig,
}

fn siglip() -> String {
    "siglip".into()
}

impl SiglipConfig {
    /// Reads and checks the JSON text of a `config.json`; `file` only names it in errors.
    ///
    /// # Errors
    /// `E_BACKBONE` when it is not JSON of this form, `E_BACKBONE_CONFIG` when a value cannot be used.
    pub fn parse(json: &[u8], file: &str) -> Result<Self, VlmError> {
        let config: Self = serde_json::from_slice(json)
            .map_err(|e| VlmError::File { file: file.into(), reason: format!("not a SigLIP config: {e}") })?;
        config.check(file)?;
        Ok(config)
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// As [`SiglipConfig::parse`].
    pub fn load(path: &Path) -> Result<Self, VlmError> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| VlmError::File { file: file.clone(), reason: e.to_string() })?;
        Self::parse(&bytes, &file)
    }

    /// The sizes are believed only after this: a config from outside must not make us allocate without bound.
    fn check(&self, file: &str) -> Result<(), VlmError> {
        let bad = |field: &str, found: String, expected: &str| {
            Err(VlmError::Config { file: file.into(), field: field.into(), found, expected: expected.into() })
        };
        if self.model_type != "siglip" {
            return bad("model_type", format!("{:?}", self.model_type), "\"siglip\"");
        }
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
        ];
        for (field, found, most) in ranges {
            if found == 0 || found > most {
                return bad(field, found.to_string(), &format!("1 to {most}"));
            }
        }
        if v.num_channels != 3 {
            return bad("vision_config.num_channels", v.num_channels.to_string(), "3");
        }
        if v.image_size < v.patch_size {
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
