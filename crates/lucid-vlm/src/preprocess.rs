//! Pictures to the pixels a backbone sees, as Hugging Face's processors do it with PIL.
//!
//! RGB (an alpha channel is dropped, not composited), brought to the input size as the family was trained ([`Fit`]), resampled with
//! antialiasing on 8-bit values, scaled, normalised. EXIF orientation is not applied, because PIL's `Image.open` does not.

use crate::config::ModelConfig;
use crate::error::VlmError;
use crate::family::Family;
use crate::resize::{self, Filter};
use candle_core::{Device, Tensor};
use image::RgbImage;
use serde::{Deserialize, Serialize};

/// `preprocessor_config.json`; fields that are left out have the values of the model's family.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Form {
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<u32>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    patch_size: Option<usize>,
    max_num_patches: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Sides { height: usize, width: usize },
    Shortest { shortest_edge: usize },
}

/// How a picture of any aspect becomes the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Fit {
    /// Squashed to a square, whatever its aspect: SigLIP.
    Squash,
    /// Its shorter side brought to this length in its own aspect, then the square in the middle: CLIP.
    Crop {
        /// Length of the shorter side before the crop.
        shortest: usize,
    },
    /// As many whole patches as allowed in about its own aspect: SigLIP 2 NaFlex.
    #[serde(rename_all = "camelCase")]
    Patches {
        /// Side of a patch.
        patch_size: usize,
        /// Most patches.
        most: usize,
    },
}

/// How pictures become the input of the image tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preprocessing {
    /// Side of a square input in pixels.
    pub image_size: usize,
    /// What happens with the aspect.
    pub fit: Fit,
    /// Resampling filter.
    pub filter: Filter,
    /// Factor on 8-bit values.
    pub rescale_factor: f64,
    /// Mean of each channel after scaling.
    pub mean: [f64; 3],
    /// Divisor of each channel after scaling.
    pub std: [f64; 3],
}

/// Mean and divisor of the channels that OpenAI trained CLIP with.
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

impl Preprocessing {
    /// SigLIP's own: bicubic squash, mean and std 0.5.
    pub fn siglip(image_size: usize) -> Self {
        Self {
            image_size,
            fit: Fit::Squash,
            filter: Filter::Bicubic,
            rescale_factor: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    /// What a family's processor does unless its file says otherwise.
    pub fn of(config: &ModelConfig) -> Self {
        let vision = &config.vision_config;
        let siglip = Self::siglip(vision.image_size);
        match config.model_type {
            Family::Siglip => siglip,
            Family::Siglip2 => {
                let fit = Fit::Patches { patch_size: vision.patch_size, most: vision.patches() };
                Self { image_size: vision.side() * vision.patch_size, fit, filter: Filter::Bilinear, ..siglip }
            }
            Family::Clip => {
                let fit = Fit::Crop { shortest: vision.image_size };
                Self { fit, mean: CLIP_MEAN, std: CLIP_STD, ..siglip }
            }
        }
    }

    /// Reads the JSON of a `preprocessor_config.json` for a model of this config.
    ///
    /// # Errors
    /// `E_BACKBONE` when it is not JSON of this form, `E_BACKBONE_CONFIG` for a value that does not fit the model.
    pub fn parse(json: &[u8], file: &str, config: &ModelConfig) -> Result<Self, VlmError> {
        let form: Form = serde_json::from_slice(json)
            .map_err(|e| VlmError::File { file: file.into(), reason: format!("not a preprocessor config: {e}") })?;
        let bad = |field: &str, found: String, expected: String| VlmError::Config {
            file: file.into(),
            field: field.into(),
            found,
            expected,
        };
        for (field, value) in
            [("do_resize", form.do_resize), ("do_rescale", form.do_rescale), ("do_normalize", form.do_normalize)]
        {
            if value == Some(false) {
                return Err(bad(field, "false".into(), "true".into()));
            }
        }
        let usual = Self::of(config);
        let filter = match form.resample {
            None => usual.filter,
            Some(1) => Filter::Lanczos,
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            Some(other) => {
                let expected = "1 (Lanczos), 2 (bilinear) or 3 (bicubic)".into();
                return Err(bad("resample", other.to_string(), expected));
            }
        };
        let three = |field: &str, values: Option<Vec<f64>>, usual: [f64; 3]| match values {
            None => Ok(usual),
            Some(values) => <[f64; 3]>::try_from(values.as_slice())
                .ok()
                .filter(|v| v.iter().all(|x| x.is_finite()))
                .ok_or_else(|| bad(field, format!("{values:?}"), "three finite numbers".into())),
        };
        let mean = three("image_mean", form.image_mean.clone(), usual.mean)?;
        let std = three("image_std", form.image_std.clone(), usual.std)?;
        if std.iter().any(|&s| s <= 0.0) {
            return Err(bad("image_std", format!("{std:?}"), "positive numbers".into()));
        }
        let rescale_factor = form.rescale_factor.unwrap_or(usual.rescale_factor);
        if !(rescale_factor.is_finite() && rescale_factor > 0.0) {
            return Err(bad("rescale_factor", rescale_factor.to_string(), "a positive number".into()));
        }
        let fit = form.fit(usual.fit, usual.image_size, &bad)?;
        Ok(Self { fit, filter, rescale_factor, mean, std, ..usual })
    }

    /// The picture at the size of the input, 8-bit.
    ///
    /// # Errors
    /// `E_IMAGE` when the resampler refuses it.
    pub fn fitted(&self, image: &RgbImage) -> Result<RgbImage, VlmError> {
        let side = self.image_size as u32;
        let (w, h) = image.dimensions();
        match self.fit {
            Fit::Squash => resize::resize(image, side, side, self.filter),
            Fit::Patches { patch_size, most } => {
                let [height, width] =
                    patch_grid(h as usize, w as usize, patch_size, most).map(|n| (n * patch_size) as u32);
                resize::resize(image, width, height, self.filter)
            }
            Fit::Crop { shortest } => {
                // Only the part is made, as the whole would have it: all of a picture of 1 × 10,000 pixels would take 1.5 GB.
                let [width, height] = shortest_edge(w, h, shortest as u32);
                let (x, y) = ((width - side) / 2, (height - side) / 2);
                resize::resize_part(image, [width, height], [x, y, side, side], self.filter)
            }
        }
    }

    /// The part of a `width` × `height` picture that the model sees: x, y, width, height in its own pixels.
    pub fn view(&self, width: u32, height: u32) -> [f64; 4] {
        match self.fit {
            Fit::Squash | Fit::Patches { .. } => [0.0, 0.0, f64::from(width), f64::from(height)],
            Fit::Crop { shortest } => {
                let [w, h] = shortest_edge(width, height, shortest as u32);
                let side = self.image_size as u32;
                let (sx, sy) = (f64::from(width) / f64::from(w), f64::from(height) / f64::from(h));
                let (x, y) = ((w - side) / 2, (h - side) / 2);
                [f64::from(x) * sx, f64::from(y) * sy, f64::from(side) * sx, f64::from(side) * sy]
            }
        }
    }

    /// Scaled and normalised pixels of an already fitted picture, [3, H, W].
    ///
    /// # Errors
    /// `E_COMPUTE` when the picture has another size.
    pub fn pixels(&self, fitted: &RgbImage) -> Result<Tensor, VlmError> {
        let (w, h) = (fitted.width() as usize, fitted.height() as usize);
        let tables: [[f32; 256]; 3] = std::array::from_fn(|c| {
            std::array::from_fn(|v| ((v as f64 * self.rescale_factor - self.mean[c]) / self.std[c]) as f32)
        });
        let mut planes = vec![0f32; 3 * w * h];
        for (c, plane) in planes.chunks_exact_mut(w * h).enumerate() {
            for (value, pixel) in plane.iter_mut().zip(fitted.as_raw().chunks_exact(3)) {
                *value = tables[c][pixel[c] as usize];
            }
        }
        Ok(Tensor::from_vec(planes, (3, h, w), &Device::Cpu)?)
    }
}

impl Form {
    /// What the file says about the aspect; `side` is the model's input.
    fn fit(&self, usual: Fit, side: usize, bad: &dyn Fn(&str, String, String) -> VlmError) -> Result<Fit, VlmError> {
        if let Fit::Patches { patch_size, most } = usual {
            if let Some(found) = self.patch_size.filter(|&found| found != patch_size) {
                return Err(bad("patch_size", found.to_string(), format!("vision_config.patch_size {patch_size}")));
            }
            let most = self.max_num_patches.unwrap_or(most);
            if most == 0 || most > MOST_PATCHES {
                return Err(bad("max_num_patches", most.to_string(), format!("1 to {MOST_PATCHES}")));
            }
            return Ok(Fit::Patches { patch_size, most });
        }
        let whole = format!("vision_config.image_size {side} on both sides");
        let cropped = self.do_center_crop.unwrap_or(matches!(usual, Fit::Crop { .. }));
        match self.crop_size.filter(|_| cropped) {
            None | Some(Size::Shortest { .. }) => {}
            Some(Size::Side(found)) if found == side => {}
            Some(Size::Sides { height, width }) if [height, width] == [side, side] => {}
            Some(found) => return Err(bad("crop_size", format!("{found:?}"), whole)),
        }
        let shortest = match (self.size, cropped) {
            (None, true) => side,
            (None, false) => return Ok(Fit::Squash),
            (Some(Size::Sides { height, width }), _) if [height, width] == [side, side] => return Ok(Fit::Squash),
            (Some(Size::Side(found)), false) if found == side => return Ok(Fit::Squash),
            (Some(Size::Side(shortest) | Size::Shortest { shortest_edge: shortest }), true) => shortest,
            (Some(Size::Sides { height, width }), _) => {
                return Err(bad("size", format!("{width} × {height}"), whole));
            }
            (Some(found), false) => return Err(bad("size", format!("{found:?}"), whole)),
        };
        if shortest < side || shortest > 4 * side {
            return Err(bad("size", shortest.to_string(), format!("{side} to {} for the shorter side", 4 * side)));
        }
        Ok(Fit::Crop { shortest })
    }
}

/// Most patches of a picture that a file may ask for.
const MOST_PATCHES: usize = 65_536;

/// Width and height with the shorter side `shortest`, the longer one rounded down.
fn shortest_edge(width: u32, height: u32, shortest: u32) -> [u32; 2] {
    let long = |long: u32, short: u32| {
        u32::try_from(u64::from(shortest) * u64::from(long) / u64::from(short.max(1))).unwrap_or(u32::MAX)
    };
    if width <= height { [shortest, long(height, width)] } else { [long(width, height), shortest] }
}

/// Rows and columns of the largest grid of at most `most` patches in about the picture's aspect, by the bisection of the scale
/// that the reference uses (its rounding up to whole patches makes a formula of it awkward).
pub fn patch_grid(height: usize, width: usize, patch_size: usize, most: usize) -> [usize; 2] {
    const TOLERANCE: f64 = 1e-5;
    let patches = |scale: f64, side: usize| (((side as f64 * scale) / patch_size as f64).ceil() as usize).max(1);
    let (mut low, mut high) = (TOLERANCE / 10.0, 100.0);
    while high - low >= TOLERANCE {
        let scale = (low + high) / 2.0;
        if patches(scale, height) * patches(scale, width) <= most { low = scale } else { high = scale }
    }
    [patches(low, height), patches(low, width)]
}
