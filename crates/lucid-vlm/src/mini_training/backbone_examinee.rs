//! Any loaded backbone can sit the examination: pictures and captions go through its own preprocessing and tokenizer.

use crate::backbone::Backbone;
use crate::error::VlmError;
use crate::mini_training::examine::Examinee;
use image::RgbImage;
use lucid_data::scenes::Scene;

/// Pictures encoded together, to bound the memory that their states take.
const CHUNK: usize = 64;

fn rows(values: &[f32], width: usize) -> impl Iterator<Item = Vec<f32>> {
    values.chunks_exact(width.max(1)).map(<[f32]>::to_vec)
}

impl Examinee for Backbone {
    fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError> {
        let mut all = Vec::with_capacity(scenes.len());
        for chunk in scenes.chunks(CHUNK) {
            let mut pictures = Vec::with_capacity(chunk.len());
            for scene in chunk {
                let side = scene.truth.side as u32;
                pictures.push(RgbImage::from_raw(side, side, scene.rgb.clone()).ok_or_else(|| VlmError::Image {
                    file: format!("scene {}", scene.index),
                    reason: format!("{} bytes for {side} x {side} pixels", scene.rgb.len()),
                })?);
            }
            let states = self.encode_images(&pictures, "vision.post_ln")?;
            if states.pooled_dim == 0 {
                return Err(VlmError::Argument {
                    option: "backbone".into(),
                    found: "a model without a pooling head".into(),
                    expected: "vision_use_head".into(),
                });
            }
            all.extend(rows(&states.pooled, states.pooled_dim));
        }
        Ok(all)
    }

    fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError> {
        let mut all = Vec::with_capacity(captions.len());
        for chunk in captions.chunks(8 * CHUNK) {
            let texts: Vec<&str> = chunk.iter().map(String::as_str).collect();
            let states = self.encode_texts(&texts, "text.final_ln")?;
            all.extend(rows(&states.pooled, states.pooled_dim));
        }
        Ok(all)
    }
}
