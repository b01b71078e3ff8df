//! Image files to RGB pixels as Pillow's `Image.open(file).convert('RGB')` gives them, with limits, and the small JPEGs a report
//! shows. `docs/backbones.md` lists what is done to each kind of picture.

use crate::error::VlmError;
use crate::jpeg;
use crate::resize::{Filter, resize};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use lucid_data::ImageSource;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Most pixels a picture may have: above any camera, below what would exhaust memory (300 MB as RGB).
pub const MAX_PIXELS: u64 = 100_000_000;
/// Most bytes an image file may have.
pub const MAX_FILE_BYTES: u64 = 512 << 20;
/// Long side of a thumbnail in pixels.
pub const THUMBNAIL_SIDE: u32 = 160;
/// Memory a decoder may use beside its pixels: colour profiles, frames of its own, metadata.
pub(crate) const DECODER_ROOM: u64 = 64 << 20;
/// Bytes of a pixel in the widest form, RGBA of 16 bits.
const WIDEST_PIXEL: u64 = 8;
/// The formats that are read, as messages name them.
const READ: &str = "a JPEG, PNG, WebP, GIF or BMP image";

fn bad(file: &str, reason: impl std::fmt::Display) -> VlmError {
    VlmError::Image { file: file.into(), reason: reason.to_string() }
}

/// Reads a picture of at most [`MAX_PIXELS`] pixels, as [`decode_image_within`].
///
/// # Errors
/// As there.
pub fn decode_image(source: &ImageSource) -> Result<RgbImage, VlmError> {
    decode_image_within(source, MAX_PIXELS)
}

/// Reads a picture of at most `max_pixels` pixels. The format is told by the content, whatever the name ends with. Alpha is
/// dropped, grey, palette and CMYK pictures become RGB, as Pillow's `convert('RGB')` does; of 16-bit values the high byte counts.
/// EXIF orientation is not applied. The first frame of an animation counts.
///
/// # Errors
/// `E_IMAGE` names the file (`<memory>` for bytes without a name) and says what is wrong: missing, not an image, of a format that
/// is not read, cut short, too large.
pub fn decode_image_within(source: &ImageSource, max_pixels: u64) -> Result<RgbImage, VlmError> {
    match source {
        ImageSource::File(path) => {
            let file = path.display().to_string();
            let size = std::fs::metadata(path).map_err(|e| bad(&file, e))?.len();
            if size > MAX_FILE_BYTES {
                return Err(bad(&file, format!("{size} bytes, at most {MAX_FILE_BYTES} are read")));
            }
            decode(&std::fs::read(path).map_err(|e| bad(&file, e))?, &file, max_pixels)
        }
        ImageSource::Encoded(bytes) => decode(bytes, "<memory>", max_pixels),
        ImageSource::Rgb { width, height, data } => {
            check_size(*width, *height, "<memory>", max_pixels)?;
            let expected = u64::from(*width) * u64::from(*height) * 3;
            if expected != data.len() as u64 {
                let found = data.len();
                return Err(bad("<memory>", format!("{found} bytes for {width} × {height} RGB pixels")));
            }
            RgbImage::from_raw(*width, *height, data.clone()).ok_or_else(|| bad("<memory>", "too few bytes"))
        }
    }
}

pub(crate) fn check_size(width: u32, height: u32, file: &str, max_pixels: u64) -> Result<(), VlmError> {
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > max_pixels {
        return Err(bad(file, format!("{width} × {height} pixels, expected 1 to {max_pixels} in all")));
    }
    Ok(())
}

fn decode(bytes: &[u8], file: &str, max_pixels: u64) -> Result<RgbImage, VlmError> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    let format = match image::guess_format(bytes) {
        Ok(format @ (Jpeg | Png | WebP | Gif | Bmp)) => format,
        _ if bytes.is_empty() => return Err(bad(file, format!("no byte at all, expected {READ}"))),
        _ => return Err(bad(file, format!("{}, expected {READ}", foreign(bytes)))),
    };
    // A decoder that breaks on a picture made to break it must not end the whole work.
    catch_unwind(AssertUnwindSafe(|| match format {
        Jpeg => jpeg::decode(bytes, file, max_pixels),
        _ => decode_as(format, bytes, file, max_pixels),
    }))
    .unwrap_or_else(|_| Err(bad(file, format!("the decoder of {format:?} broke on it"))))
}

fn decode_as(format: ImageFormat, bytes: &[u8], file: &str, max_pixels: u64) -> Result<RgbImage, VlmError> {
    let failed = |e: image::ImageError| bad(file, format!("not a whole {format:?} image: {e}"));
    let memory = |pixels: u64| {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(pixels.saturating_mul(WIDEST_PIXEL).saturating_add(DECODER_ROOM));
        limits
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(memory(max_pixels));
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, file, max_pixels)?;
    decoder.set_limits(memory(u64::from(width) * u64::from(height))).map_err(failed)?;
    Ok(rgb(DynamicImage::from_decoder(decoder).map_err(failed)?))
}

/// Alpha is dropped, not composited. Of 16 bits the high byte counts, as in Pillow for colours. Pillow clips 16-bit grey at 255
/// instead, which leaves a white picture, so grey is treated as colours are.
fn rgb(image: DynamicImage) -> RgbImage {
    let high = |value: u16| (value >> 8) as u8;
    let (width, height) = (image.width(), image.height());
    let from = |values: &[u16], channels: usize, color: usize| {
        let of_pixel = |pixel: &[u16]| -> [u8; 3] { std::array::from_fn(|c| high(pixel[c.min(color - 1)])) };
        let data: Vec<u8> = values.chunks_exact(channels).flat_map(of_pixel).collect();
        RgbImage::from_raw(width, height, data)
    };
    let shifted = match &image {
        DynamicImage::ImageLuma16(values) => from(values.as_raw(), 1, 1),
        DynamicImage::ImageLumaA16(values) => from(values.as_raw(), 2, 1),
        DynamicImage::ImageRgb16(values) => from(values.as_raw(), 3, 3),
        DynamicImage::ImageRgba16(values) => from(values.as_raw(), 4, 3),
        _ => None,
    };
    shifted.unwrap_or_else(|| image.into_rgb8())
}

/// What a file is that is not read, by its first bytes.
fn foreign(bytes: &[u8]) -> &'static str {
    let brand = bytes.get(8..12).filter(|_| bytes.get(4..8) == Some(b"ftyp"));
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_lowercase();
    let start = start.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    match (bytes, brand) {
        (_, Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1")) => "a HEIC image",
        (_, Some(b"avif" | b"avis")) => "an AVIF image",
        (_, Some(_)) => "a film",
        ([b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..], _) => "a TIFF image",
        ([0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..], _) => "a JPEG XL image",
        ([0, 0, 0, 12, b'j', b'P', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..], _) => "a JPEG 2000 image",
        ([0, 0, 1 | 2, 0, ..], _) => "an icon",
        ([b'8', b'B', b'P', b'S', ..], _) => "a Photoshop file",
        ([b'%', b'P', b'D', b'F', ..], _) => "a PDF file",
        ([b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..], _) => "a PNM image",
        ([b'R', b'I', b'F', b'F', ..], _) => "a RIFF file that is no WebP image",
        _ if start.starts_with("<svg") || (start.starts_with('<') && start.contains("<svg")) => "an SVG drawing",
        _ if start.starts_with("<!doctype html") || start.starts_with("<html") => "a web page",
        _ if start.starts_with("version https://git-lfs") => "a pointer of Git LFS (run `git lfs pull`)",
        _ => "no image that is known",
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
