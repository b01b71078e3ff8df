//! What can sit the examination: a model under training, and any loaded backbone with its own preprocessing and tokenizer.

use crate::backbone::Backbone;
use crate::error::VlmError;
use crate::mini_training::batches;
use crate::mini_training::tokens::caption_ids;
use crate::model::DualEncoder;
use crate::tokenizer::Tokens;
use crate::workers;
use candle_core::{Device, Tensor};
use image::RgbImage;
use lucid_data::scenes::Scene;

/// Gives pooled embeddings of scenes and captions; they need not be normalised.
pub trait Examinee {
    /// One embedding per picture.
    fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError>;
    /// One embedding per caption.
    fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError>;
}

/// Pictures run together, to bound the memory that their states take.
const CHUNK: usize = 32;
/// Captions in one pass: matrices of a single caption are too small to multiply fast.
pub(super) const CAPTIONS: usize = 16;

fn headless() -> VlmError {
    VlmError::Argument {
        option: "backbone".into(),
        found: "a model without a pooling head".into(),
        expected: "vision_use_head".into(),
    }
}

/// The picture of a scene.
pub(super) fn picture(scene: &Scene) -> Result<RgbImage, VlmError> {
    let side = scene.truth.side as u32;
    RgbImage::from_raw(side, side, scene.rgb.clone()).ok_or_else(|| VlmError::Image {
        file: format!("scene {}", scene.index),
        reason: format!("{} bytes for {side} x {side} pixels", scene.rgb.len()),
    })
}

impl Examinee for DualEncoder {
    fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError> {
        let mut all = Vec::with_capacity(scenes.len());
        for chunk in scenes.chunks(CHUNK) {
            let batch = batches::whole(chunk, self.config().text_config.max_position_embeddings)?;
            let output = self.vision_patches(&batch.patches, batch.positions.as_ref(), false)?;
            all.extend(output.pooled.ok_or_else(headless)?.to_vec2::<f32>()?);
        }
        Ok(all)
    }

    fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError> {
        let length = self.config().text_config.max_position_embeddings;
        let mut all = Vec::with_capacity(captions.len());
        for chunk in captions.chunks(4 * CHUNK) {
            let ids: Vec<u32> = chunk.iter().flat_map(|c| caption_ids(c, length)).collect();
            let ids = Tensor::from_vec(ids, (chunk.len(), length), &Device::Cpu)?;
            all.extend(self.text(&ids, false)?.pooled.to_vec2::<f32>()?);
        }
        Ok(all)
    }
}

fn rows(values: &[f32], width: usize) -> impl Iterator<Item = Vec<f32>> {
    values.chunks_exact(width.max(1)).map(<[f32]>::to_vec)
}

impl Examinee for Backbone {
    fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError> {
        let mut all = Vec::with_capacity(scenes.len());
        for chunk in scenes.chunks(2 * CHUNK) {
            let pictures = chunk.iter().map(picture).collect::<Result<Vec<_>, _>>()?;
            let states = self.encode_images(&pictures, "vision.post_ln")?;
            if states.pooled_dim == 0 {
                return Err(headless());
            }
            all.extend(rows(&states.pooled, states.pooled_dim));
        }
        Ok(all)
    }

    fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError> {
        let encode = |text: &String| self.tokenizer().encode(text, true);
        let tokens = captions.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let chunks: Vec<&[Tokens]> = tokens.chunks(CAPTIONS).collect();
        let pooled = workers::each(self.threads(), chunks.len(), &|| false, |i| self.pooled_texts(chunks[i]))?
            .unwrap_or_default();
        Ok(pooled.into_iter().flatten().collect())
    }
}
