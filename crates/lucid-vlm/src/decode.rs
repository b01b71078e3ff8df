//! Image files to RGB pixels, with limits, and the small JPEGs a report shows.

use crate::error::VlmError;
use crate::resize::{Filter, resize};
use image::{ImageDecoder, ImageFormat, ImageReader, RgbImage};
use lucid_data::ImageSource;
use std::io::Cursor;

/// Most pixels a picture may have: above any camera, below what would exhaust memory (300 MB as RGB).
pub const MAX_PIXELS: u64 = 100_000_000;
/// Most bytes an image file may have.
pub const MAX_FILE_BYTES: u64 = 512 << 20;
/// Long side of a thumbnail in pixels.
pub const THUMBNAIL_SIDE: u32 = 160;

fn bad(file: &str, reason: impl std::fmt::Display) -> VlmError {
    VlmError::Image { file: file.into(), reason: reason.to_string() }
}

/// Reads a picture. Alpha is dropped, grey and palette pictures become RGB, as PIL's `convert('RGB')` does; EXIF orientation is
/// not applied. The first frame of an animation counts.
///
/// # Errors
/// `E_IMAGE` names the file (`<memory>` for bytes without a name) and says what is wrong: missing, not an image, cut short, larger
/// than [`MAX_PIXELS`].
pub fn decode_image(source: &ImageSource) -> Result<RgbImage, VlmError> {
    match source {
        ImageSource::File(path) => {
            let file = path.display().to_string();
            let size = std::fs::metadata(path).map_err(|e| bad(&file, e))?.len();
            if size > MAX_FILE_BYTES {
                return Err(bad(&file, format!("{size} bytes, at most {MAX_FILE_BYTES} are read")));
            }
            decode(&std::fs::read(path).map_err(|e| bad(&file, e))?, &file)
        }
        ImageSource::Encoded(bytes) => decode(bytes, "<memory>"),
        ImageSource::Rgb { width, height, data } => {
            let expected = u64::from(*width) * u64::from(*height) * 3;
            if *width == 0 || *height == 0 || expected != data.len() as u64 {
                let found = data.len();
                return Err(bad("<memory>", format!("{found} bytes for {width} × {height} RGB pixels")));
            }
            RgbImage::from_raw(*width, *height, data.clone()).ok_or_else(|| bad("<memory>", "too few bytes"))
        }
    }
}

fn decode(bytes: &[u8], file: &str) -> Result<RgbImage, VlmError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(file, e))?;
    let Some(format) = reader.format() else {
        return Err(bad(file, "not a JPEG, PNG, WebP, GIF or BMP image"));
    };
    let decoder = reader.into_decoder().map_err(|e| bad(file, e))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(bad(file, format!("{width} × {height} pixels, expected 1 to {MAX_PIXELS} in all")));
    }
    if format == ImageFormat::Jpeg && is_cut_short(bytes) {
        return Err(bad(file, "the JPEG is cut short (no end-of-image marker)"));
    }
    let image = image::DynamicImage::from_decoder(decoder).map_err(|e| bad(file, e))?;
    Ok(image.into_rgb8())
}

/// The decoder fills what is missing from a truncated JPEG with grey and says nothing. Inside entropy-coded data 0xFF is always
/// followed by zero or a restart marker, so a whole file has an end-of-image marker after its last start of scan.
fn is_cut_short(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|w| w == [0xFF, marker]);
    match (last(0xDA), last(0xD9)) {
        (Some(scan), Some(end)) => end < scan,
        _ => true,
    }
}

/// A JPEG of the picture in its own aspect, long side at most [`THUMBNAIL_SIDE`], never enlarged.
///
/// # Errors
/// `E_IMAGE` when it cannot be encoded.
pub fn thumbnail(image: &RgbImage) -> Result<Vec<u8>, VlmError> {
    let (w, h) = image.dimensions();
    let factor = (f64::from(THUMBNAIL_SIDE) / f64::from(w.max(h).max(1))).min(1.0);
    let side = |x: u32| ((f64::from(x) * factor).round() as u32).max(1);
    let small = resize(image, side(w), side(h), Filter::Bilinear)?;
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 85)
        .encode_image(&small)
        .map_err(|e| bad("<pixels>", format!("no thumbnail: {e}")))?;
    Ok(jpeg)
}
