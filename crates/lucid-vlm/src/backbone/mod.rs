//! A loaded backbone: pictures and captions in, states at a named hook and pooled outputs out.

mod load;

pub use load::BackboneFiles;

use crate::config::ModelConfig;
use crate::error::VlmError;
use crate::hook::{self, Hook, TEXT_DEFAULT, Tower, VISION_DEFAULT};
use crate::model::DualEncoder;
use crate::preprocess::Preprocessing;
use crate::tokenizer::{TextTokenizer, Tokens};
use crate::workers;
use candle_core::{Device, Tensor};
use image::RgbImage;
use serde_json::{Value, json};
use std::sync::Arc;

/// States of images at one hook.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageStates {
    /// Number of images n.
    pub images: usize,
    /// Rows and columns of patches of each image; their states follow each other row by row from the top left.
    pub grids: Vec<[u32; 2]>,
    /// Width d of a state.
    pub dim: usize,
    /// States, [Σ rows · columns, d].
    pub states: Vec<f32>,
    /// Width of a pooled output; 0 in a model without a head.
    pub pooled_dim: usize,
    /// Pooled outputs, [n, pooled_dim].
    pub pooled: Vec<f32>,
}

/// States of captions at one hook, valid tokens only, concatenated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextStates {
    /// Valid tokens of each caption.
    pub lengths: Vec<u32>,
    /// Vocabulary ids, [Σ lengths].
    pub ids: Vec<u32>,
    /// 0 for content, 1 for the end of sentence, [Σ lengths].
    pub kinds: Vec<u8>,
    /// Byte spans in the caption, [Σ lengths].
    pub spans: Vec<[u32; 2]>,
    /// Width d of a state.
    pub dim: usize,
    /// States, [Σ lengths, d].
    pub states: Vec<f32>,
    /// Width of a pooled output.
    pub pooled_dim: usize,
    /// Pooled outputs, [n, pooled_dim].
    pub pooled: Vec<f32>,
}

/// A backbone. Clones share the weights.
#[derive(Clone)]
pub struct Backbone {
    id: String,
    model: Arc<DualEncoder>,
    tokenizer: Arc<TextTokenizer>,
    preprocessing: Preprocessing,
    weights_hash: String,
    tokenizer_hash: String,
    threads: usize,
}

/// States of one item at some hooks, and its pooled output.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Encoded {
    /// One [T, d] for each hook asked for.
    pub states: Vec<Vec<f32>>,
    /// Rows and columns of patches; 0 for a caption.
    pub grid: [u32; 2],
    /// Pooled output; empty in a model without one.
    pub pooled: Vec<f32>,
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, VlmError> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

/// Ids of captions of one length, u32 [n, L].
fn padded_ids(captions: &[Tokens]) -> Result<Tensor, VlmError> {
    let length = captions.first().map_or(0, |t| t.padded.len());
    let ids: Vec<u32> = captions.iter().flat_map(|t| t.padded.iter().copied()).collect();
    Ok(Tensor::from_vec(ids, (captions.len(), length), &Device::Cpu)?)
}

impl Backbone {
    /// The same backbone on this many threads; 0 (the default) is one a core. Results do not depend on it.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The same backbone under another name, which goes into the provenance of what is made with it.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        workers::threads(self.threads)
    }

    /// Name of the folder it came from, or `mini`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Shapes of both towers.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// The forward pass itself, for batches of one's own.
    pub fn model(&self) -> &DualEncoder {
        &self.model
    }

    /// How captions become ids.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// How pictures become pixels.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Width of a patch's state.
    pub fn vision_dim(&self) -> usize {
        self.config().vision_config.hidden_size
    }

    /// Width of a token's state.
    pub fn text_dim(&self) -> usize {
        self.config().text_config.hidden_size
    }

    /// Rows and columns of patches of a square picture; every picture's where the family squashes or crops.
    pub fn grid(&self) -> [u32; 2] {
        [self.config().vision_config.side() as u32; 2]
    }

    /// Side of a square input in pixels.
    pub fn image_size(&self) -> usize {
        self.preprocessing.image_size
    }

    /// All hook names, defaults first in each tower.
    pub fn hooks(&self) -> Vec<String> {
        hook::hook_names(self.config())
    }

    /// What identifies this backbone in the files made with it; no path.
    pub fn provenance(&self) -> Value {
        json!({
            "id": self.id,
            "architecture": self.config().model_type.name(),
            "weightsBlake3": self.weights_hash,
            "tokenizerBlake3": self.tokenizer_hash,
            "preprocessing": self.preprocessing,
            "patchSize": self.config().vision_config.patch_size,
            "textLength": self.tokenizer.length(),
            "padId": self.tokenizer.pad(),
        })
    }

    /// States of pictures at a hook of the image tower, and pooled outputs. Pictures of any size.
    ///
    /// # Errors
    /// `E_HOOK`, `E_IMAGE`, `E_COMPUTE`.
    pub fn encode_images(&self, images: &[RgbImage], hook: &str) -> Result<ImageStates, VlmError> {
        let hook = hook::find_hook_of(self.config(), Tower::Vision, hook)?;
        let encoded = workers::each(self.threads(), images.len(), &|| false, |i| {
            self.encode_fitted(&self.preprocessing.fitted(&images[i])?, &[hook])
        })?;
        let mut all = ImageStates {
            images: images.len(),
            grids: Vec::with_capacity(images.len()),
            dim: self.vision_dim(),
            states: Vec::new(),
            pooled_dim: self.config().vision_projection(),
            pooled: Vec::new(),
        };
        for Encoded { states, grid, pooled } in encoded.unwrap_or_default() {
            all.grids.push(grid);
            all.states.extend(states.into_iter().flatten());
            all.pooled.extend(pooled);
        }
        Ok(all)
    }

    /// States of captions at a hook of the text tower, valid tokens with the end of sentence, and pooled outputs.
    ///
    /// # Errors
    /// `E_EMPTY_TEXT` for a caption without a token, `E_HOOK`, `E_TOKENIZER`, `E_COMPUTE`.
    pub fn encode_texts(&self, texts: &[&str], hook: &str) -> Result<TextStates, VlmError> {
        let hook = hook::find_hook_of(self.config(), Tower::Text, hook)?;
        let tokens = texts.iter().map(|t| self.tokenizer.encode(t, true)).collect::<Result<Vec<_>, _>>()?;
        let encoded =
            workers::each(self.threads(), texts.len(), &|| false, |i| self.encode_tokens(&tokens[i], &[hook]))?;
        let mut all =
            TextStates { dim: self.text_dim(), pooled_dim: self.config().text_projection(), ..TextStates::default() };
        for (tokens, Encoded { states, pooled, .. }) in tokens.iter().zip(encoded.unwrap_or_default()) {
            all.lengths.push(tokens.valid as u32);
            all.ids.extend(tokens.ids());
            all.kinds.extend(&tokens.kinds);
            all.spans.extend(&tokens.spans);
            all.states.extend(states.into_iter().flatten());
            all.pooled.extend(pooled);
        }
        Ok(all)
    }

    /// `exp(logit_scale) · cos + logit_bias` of pooled outputs, [images, texts]. SigLIP: a sigmoid of it is the probability of a
    /// match; CLIP has no bias, and a softmax over the texts shares out the probability among them.
    ///
    /// # Errors
    /// `E_OPTION` when the widths do not fit or the model has no head.
    pub fn logits(&self, images: &ImageStates, texts: &TextStates) -> Result<Vec<f32>, VlmError> {
        if images.pooled_dim == 0 || images.pooled_dim != texts.pooled_dim {
            return Err(VlmError::Argument {
                option: "pooled".into(),
                found: format!("widths {} and {}", images.pooled_dim, texts.pooled_dim),
                expected: "one width, above 0".into(),
            });
        }
        let tensor = |values: &[f32], d: usize| Tensor::from_slice(values, (values.len() / d, d), &Device::Cpu);
        let image = tensor(&images.pooled, images.pooled_dim)?;
        let text = tensor(&texts.pooled, texts.pooled_dim)?;
        values(&self.model.logits(&image, &text)?)
    }

    /// One picture of the input size through the image tower; states of its patches.
    pub(crate) fn encode_fitted(&self, image: &RgbImage, hooks: &[Hook]) -> Result<Encoded, VlmError> {
        let pixels = self.preprocessing.pixels(image)?.unsqueeze(0)?;
        let out = self.model.vision(&pixels, hooks.iter().any(|&hook| hook != Hook::Final))?;
        let at = |hook: &Hook| match hook {
            Hook::Final => values(&out.post_ln),
            Hook::Block(n) => values(&out.blocks[*n]),
        };
        let patch = self.config().vision_config.patch_size as u32;
        Ok(Encoded {
            states: hooks.iter().map(at).collect::<Result<_, _>>()?,
            grid: [image.height() / patch, image.width() / patch],
            pooled: out.pooled.as_ref().map_or(Ok(Vec::new()), values)?,
        })
    }

    /// States of a picture of any size at every hook of the image tower, in the order of [`Self::hooks_in_order`], each [T, d].
    pub(crate) fn every_image_state(&self, image: &RgbImage) -> Result<Vec<Vec<f32>>, VlmError> {
        let pixels = self.preprocessing.pixels(&self.preprocessing.fitted(image)?)?.unsqueeze(0)?;
        let out = self.model.vision(&pixels, true)?;
        out.blocks.iter().chain([&out.post_ln]).map(values).collect()
    }

    /// States of some captions at every hook of the text tower, in the order of [`Self::hooks_in_order`], each [n, L, d] with
    /// the states of padding.
    pub(crate) fn every_text_state(&self, captions: &[Tokens]) -> Result<Vec<Vec<f32>>, VlmError> {
        let out = self.model.text(&padded_ids(captions)?, true)?;
        out.blocks.iter().chain([&out.final_ln]).map(values).collect()
    }

    /// Pooled outputs of some captions in one pass, [n, projection].
    pub(crate) fn pooled_texts(&self, captions: &[Tokens]) -> Result<Vec<Vec<f32>>, VlmError> {
        Ok(self.model.text(&padded_ids(captions)?, false)?.pooled.to_vec2::<f32>()?)
    }

    /// Hook names of one tower from its first block to its last layer norm.
    pub(crate) fn hooks_in_order(&self, tower: Tower) -> Vec<String> {
        let (prefix, last) = match tower {
            Tower::Vision => ("vision.", VISION_DEFAULT),
            Tower::Text => ("text.", TEXT_DEFAULT),
        };
        let blocks = self.hooks().into_iter().filter(|name| name.starts_with(prefix) && name != last);
        blocks.chain([last.to_string()]).collect()
    }

    /// One caption through the text tower; states of its kept positions.
    pub(crate) fn encode_tokens(&self, tokens: &Tokens, hooks: &[Hook]) -> Result<Encoded, VlmError> {
        let ids = Tensor::from_slice(&tokens.padded, (1, tokens.padded.len()), &Device::Cpu)?;
        let out = self.model.text(&ids, hooks.iter().any(|&hook| hook != Hook::Final))?;
        let at = |hook: &Hook| {
            let states = match hook {
                Hook::Final => &out.final_ln,
                Hook::Block(n) => &out.blocks[*n],
            };
            values(&states.narrow(1, tokens.start, tokens.valid)?)
        };
        let states = hooks.iter().map(at).collect::<Result<_, _>>()?;
        Ok(Encoded { states, grid: [0, 0], pooled: values(&out.pooled)? })
    }
}
