//! JPEG files to the RGB pixels that Pillow reads from them, to the last bit: libjpeg-turbo's inverse transform, chroma
//! interpolation and colour conversion, from a port of it to Rust. The port's vector code is left out (`Cargo.toml`): it is
//! the port's unsafe part, files come from anywhere, and a photo is decoded in a few milliseconds either way.

use crate::decode::check_size;
use crate::error::VlmError;
use image::RgbImage;
use libjpeg_turbo_rs::{DecodeLimits, Decoder, Image, JpegError, PixelFormat};

/// Most scans of a progressive file; encoders write ten or so, and each walks the whole picture.
const MAX_SCANS: usize = 100;
/// Bytes a pixel may take while it is decoded: four coefficients of 16 bits, four samples, those once more in full size, RGB.
const PIXEL_BYTES: u64 = 24;

/// Decodes a JPEG of at most `max_pixels` pixels. Grey and CMYK become RGB, as Pillow's `convert('RGB')` does.
///
/// # Errors
/// `E_IMAGE` names `file`: more pixels, cut short, damaged, a kind that Pillow's library does not read as eight bits.
pub(crate) fn decode(bytes: &[u8], file: &str, max_pixels: u64) -> Result<RgbImage, VlmError> {
    let bad = |reason: String| VlmError::Image { file: file.into(), reason };
    let failed = |e: JpegError| bad(format!("not a whole JPEG image: {e}"));
    if is_cut_short(bytes) {
        return Err(bad("the JPEG is cut short (no end-of-image marker)".into()));
    }
    let limits = DecodeLimits { max_scans: MAX_SCANS, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(failed)?;
    let (width, height) = (u32::from(decoder.header().width), u32::from(decoder.header().height));
    check_size(width, height, file, max_pixels)?;
    let memory =
        (u64::from(width) * u64::from(height)).saturating_mul(PIXEL_BYTES).saturating_add(crate::decode::DECODER_ROOM);
    decoder.set_limits(DecodeLimits { max_memory: Some(memory), ..limits });
    decoder.set_output_format(PixelFormat::Rgb);
    let Image { width, height, data, .. } = decoder.decode_image().map_err(failed)?;
    let side = |n: usize| u32::try_from(n).unwrap_or(0);
    RgbImage::from_raw(side(width), side(height), data).ok_or_else(|| bad("not a JPEG of 8 bits a sample".into()))
}

/// A decoder may fill what is missing from a truncated JPEG and say nothing, so the segments are walked to the end-of-image
/// marker. Inside entropy-coded data 0xFF is always followed by zero or a restart marker.
fn is_cut_short(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&marker) = bytes.get(at + 1) {
        at = match (bytes[at], marker) {
            (0xFF, 0xD9) => return false,
            // Entropy-coded data, and whatever stray bytes a decoder passes over.
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => at + 2,
            (0xFF, 0xFF) => at + 1,
            (0xFF, _) => match bytes.get(at + 2..at + 4) {
                Some(length) => at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return true,
            },
            _ => at + 1,
        };
    }
    true
}
