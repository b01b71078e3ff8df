//! Pictures to the pixels a backbone sees, as Hugging Face's SigLIP processor does it with PIL.
//!
//! RGB (an alpha channel is dropped, not composited), squashed to the input size whatever the aspect, resampled with
//! antialiasing on 8-bit values, scaled, normalised. EXIF orientation is not applied, because PIL's `Image.open` does not.

use crate::error::VlmError;
use crate::resize::{self, Filter};
use candle_core::{Device, Tensor};
use image::RgbImage;
use serde::{Deserialize, Serialize};

/// `preprocessor_config.json`; fields that are left out have the values of SigLIP base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Form {
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: u32,
    do_rescale: Option<bool>,
    rescale_factor: f64,
    do_normalize: Option<bool>,
    image_mean: Vec<f64>,
    image_std: Vec<f64>,
    do_center_crop: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Sides { height: usize, width: usize },
}

impl Default for Form {
    fn default() -> Self {
        Self {
            do_resize: None,
            size: None,
            resample: 3,
            do_rescale: None,
            rescale_factor: 1.0 / 255.0,
            do_normalize: None,
            image_mean: vec![0.5; 3],
            image_std: vec![0.5; 3],
            do_center_crop: None,
        }
    }
}

/// How pictures become the input of the image tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preprocessing {
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Resampling filter.
    pub filter: Filter,
    /// Factor on 8-bit values.
    pub rescale_factor: f64,
    /// Mean of each channel after scaling.
    pub mean: [f64; 3],
    /// Divisor of each channel after scaling.
    pub std: [f64; 3],
}

impl Preprocessing {
    /// SigLIP's own: bicubic squash, mean and std 0.5.
    pub fn siglip(image_size: usize) -> Self {
        Self { image_size, filter: Filter::Bicubic, rescale_factor: 1.0 / 255.0, mean: [0.5; 3], std: [0.5; 3] }
    }

    /// Reads the JSON of a `preprocessor_config.json` for a model whose input has `image_size` pixels a side.
    ///
    /// # Errors
    /// `E_BACKBONE` when it is not JSON of this form, `E_BACKBONE_CONFIG` for a value that does not fit SigLIP or this model.
    pub fn parse(json: &[u8], file: &str, image_size: usize) -> Result<Self, VlmError> {
        let form: Form = serde_json::from_slice(json)
            .map_err(|e| VlmError::File { file: file.into(), reason: format!("not a preprocessor config: {e}") })?;
        let bad = |field: &str, found: String, expected: String| VlmError::Config {
            file: file.into(),
            field: field.into(),
            found,
            expected,
        };
        let (height, width) = match form.size {
            None => (image_size, image_size),
            Some(Size::Side(side)) => (side, side),
            Some(Size::Sides { height, width }) => (height, width),
        };
        if (height, width) != (image_size, image_size) {
            return Err(bad(
                "size",
                format!("{width} × {height}"),
                format!("vision_config.image_size {image_size} on both sides"),
            ));
        }
        for (field, value) in
            [("do_resize", form.do_resize), ("do_rescale", form.do_rescale), ("do_normalize", form.do_normalize)]
        {
            if value == Some(false) {
                return Err(bad(field, "false".into(), "true".into()));
            }
        }
        if form.do_center_crop == Some(true) {
            return Err(bad("do_center_crop", "true".into(), "false (SigLIP squashes)".into()));
        }
        let filter = match form.resample {
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            other => {
                let expected = "1 (Lanczos), 2 (bilinear) or 3 (bicubic)".into();
                return Err(bad("resample", other.to_string(), expected));
            }
        };
        let three = |field: &str, values: &[f64]| {
            <[f64; 3]>::try_from(values)
                .ok()
                .filter(|v| v.iter().all(|x| x.is_finite()))
                .ok_or_else(|| bad(field, format!("{values:?}"), "three finite numbers".into()))
        };
        let std = three("image_std", &form.image_std)?;
        if std.iter().any(|&s| s <= 0.0) {
            return Err(bad("image_std", format!("{std:?}"), "positive numbers".into()));
        }
        if !(form.rescale_factor.is_finite() && form.rescale_factor > 0.0) {
            return Err(bad("rescale_factor", form.rescale_factor.to_string(), "a positive number".into()));
        }
        Ok(Self {
            image_size,
            filter,
            rescale_factor: form.rescale_factor,
            mean: three("image_mean", &form.image_mean)?,
            std,
        })
    }

    /// The picture squashed to the input size, 8-bit.
    ///
    /// # Errors
    /// `E_IMAGE` when the resampler refuses it.
    pub fn squash(&self, image: &RgbImage) -> Result<RgbImage, VlmError> {
        let side = self.image_size as u32;
        resize::resize(image, side, side, self.filter)
    }

    /// Scaled and normalised pixels of an already squashed picture, [3, S, S].
    ///
    /// # Errors
    /// `E_COMPUTE` when the picture has another size.
    pub fn pixels(&self, squashed: &RgbImage) -> Result<Tensor, VlmError> {
        let (w, h) = (squashed.width() as usize, squashed.height() as usize);
        let tables: [[f32; 256]; 3] = std::array::from_fn(|c| {
            std::array::from_fn(|v| ((v as f64 * self.rescale_factor - self.mean[c]) / self.std[c]) as f32)
        });
        let mut planes = vec![0f32; 3 * w * h];
        for (c, plane) in planes.chunks_exact_mut(w * h).enumerate() {
            for (value, pixel) in plane.iter_mut().zip(squashed.as_raw().chunks_exact(3)) {
                *value = tables[c][pixel[c] as usize];
            }
        }
        Ok(Tensor::from_vec(planes, (3, h, w), &Device::Cpu)?)
    }
}
