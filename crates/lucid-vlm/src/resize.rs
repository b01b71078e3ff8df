//! Resampling 8-bit pictures with PIL's antialiased filters.

use crate::error::VlmError;
use fast_image_resize as fir;
use image::RgbImage;
use serde::Serialize;

/// A resampling filter under PIL's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic convolution with a = −0.5 (Catmull-Rom).
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

/// Squashes `image` to `width` × `height`, whatever its aspect.
///
/// # Errors
/// `E_IMAGE` when a side is zero.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage, VlmError> {
    if image.dimensions() == (width, height) {
        return Ok(image.clone());
    }
    let failed = |e: &dyn std::fmt::Display| VlmError::Image {
        file: "<pixels>".into(),
        reason: format!("cannot be resized from {:?}: {e}", image.dimensions()),
    };
    let source = fir::images::ImageRef::new(image.width(), image.height(), image.as_raw(), fir::PixelType::U8x3)
        .map_err(|e| failed(&e))?;
    let mut target = fir::images::Image::new(width, height, fir::PixelType::U8x3);
    let filter = match filter {
        Filter::Bilinear => fir::FilterType::Bilinear,
        Filter::Bicubic => fir::FilterType::CatmullRom,
        Filter::Lanczos => fir::FilterType::Lanczos3,
    };
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
    fir::Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(&e))?;
    RgbImage::from_raw(width, height, target.into_vec())
        .ok_or_else(|| failed(&"the resampler gave another number of bytes"))
}
