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

/// Squashes `image` to `width` × `height`, whatever its aspect. Rows first, then columns, with 8-bit values in between, as PIL does:
/// a cubic filter overshoots at edges, so where it is clipped shows in the result.
///
/// # Errors
/// `E_IMAGE` when a side is zero.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage, VlmError> {
    let rows = pass(image, width, image.height(), filter)?;
    pass(rows.as_ref().unwrap_or(image), width, height, filter)
        .map(|done| done.or(rows).unwrap_or_else(|| image.clone()))
}

/// Resampling along one axis; `None` when nothing changes.
fn pass(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<Option<RgbImage>, VlmError> {
    if image.dimensions() == (width, height) {
        return Ok(None);
    }
    let failed = |e: &dyn std::fmt::Display| VlmError::Image {
        file: "<pixels>".into(),
        reason: format!("cannot be resized from {:?}: {e}", image.dimensions()),
    };
    let kind = fir::PixelType::U8x3;
    let source =
        fir::images::ImageRef::new(image.width(), image.height(), image.as_raw(), kind).map_err(|e| failed(&e))?;
    let mut target = fir::images::Image::new(width, height, kind);
    let filter = match filter {
        Filter::Bilinear => fir::FilterType::Bilinear,
        Filter::Bicubic => fir::FilterType::CatmullRom,
        Filter::Lanczos => fir::FilterType::Lanczos3,
    };
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
    fir::Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(&e))?;
    RgbImage::from_raw(width, height, target.into_vec())
        .ok_or_else(|| failed(&"the resampler gave another number of bytes"))
        .map(Some)
}
