//! Pictures that cannot be used: each is an E_IMAGE that names the file and says why, and nothing panics.
#![allow(clippy::unwrap_used)]

mod common;

use image::{ImageFormat, RgbImage};
use lucid_data::ImageSource;
use lucid_vlm::{VlmError, decode_image, decode_image_within};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The reason of a refusal, which must be an E_IMAGE that names the file.
fn reason(result: Result<RgbImage, VlmError>, named: &str) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "E_IMAGE");
    assert!(error.hint().is_some());
    let VlmError::Image { file, reason } = error else { panic!("another variant") };
    assert!(file.ends_with(named), "{file}");
    reason
}

fn refused(bytes: &[u8]) -> String {
    reason(decode_image(&ImageSource::Encoded(bytes.to_vec())), "<memory>")
}

fn fixtures() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(common::fixture("pictures")).unwrap();
    let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|p| !["py", "safetensors"].contains(&p.extension().unwrap().to_str().unwrap()));
    files.sort();
    files.into_iter().map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), p)).collect()
}

#[test]
fn every_format_is_refused_when_it_is_cut_short() {
    for (name, path) in fixtures() {
        let bytes = std::fs::read(&path).unwrap();
        for share in [0, 5, 25, 50, 75, 90] {
            let cut = &bytes[..bytes.len() * share / 100];
            // The first frame of an animation is whole long before the file is.
            if name.starts_with("animated") && share > 25 {
                continue;
            }
            let result = decode_image(&ImageSource::Encoded(cut.to_vec()));
            assert!(result.is_err(), "{share} % of {name} are taken for a picture");
            reason(result, "<memory>");
        }
    }
}

#[test]
fn formats_that_are_not_read_are_named() {
    let ftyp = |brand: &[u8]| [&[0, 0, 0, 24], &b"ftyp"[..], brand, &[0; 32]].concat();
    for (bytes, named) in [
        (b"II*\0\x08\0\0\0".to_vec(), "a TIFF image"),
        (b"MM\0*\0\0\0\x08".to_vec(), "a TIFF image"),
        (ftyp(b"heic"), "a HEIC image"),
        (ftyp(b"mif1"), "a HEIC image"),
        (ftyp(b"avif"), "an AVIF image"),
        (ftyp(b"isom"), "a film"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(), "an SVG drawing"),
        (b"\xEF\xBB\xBF<?xml version=\"1.0\"?>\n<!-- x -->\n<svg/>".to_vec(), "an SVG drawing"),
        (b"<!DOCTYPE html><p>404".to_vec(), "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec(), "Git LFS"),
        (b"\xFF\x0A\0\0".to_vec(), "a JPEG XL image"),
        (b"\0\0\0\x0CjP  \r\n\x87\n".to_vec(), "a JPEG 2000 image"),
        (b"%PDF-1.7".to_vec(), "a PDF file"),
        (b"RIFF\0\0\0\0WAVE".to_vec(), "a RIFF file"),
        (b"hello".to_vec(), "no image that is known"),
        (vec![], "no byte at all"),
    ] {
        let reason = refused(&bytes);
        assert!(
            reason.contains(named) && reason.contains("expected a JPEG, PNG, WebP, GIF or BMP"),
            "{named}: {reason}"
        );
    }
}

/// A PNG that claims a size and holds almost nothing.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut png = Vec::new();
    RgbImage::new(1, 1).write_to(&mut std::io::Cursor::new(&mut png), ImageFormat::Png).unwrap();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_claimed_size_is_checked_before_anything_is_decoded() {
    let start = Instant::now();
    assert!(decode_image(&ImageSource::Encoded(bomb(1, 1))).is_ok(), "the header is made right");
    for (width, height) in [(50_000, 50_000), (0x7FFF_FFFF, 0x7FFF_FFFF), (100_000_001, 1)] {
        let reason = refused(&bomb(width, height));
        assert!(reason.contains(&width.to_string()) || reason.contains("imit"), "{reason}");
    }
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_limit_on_pixels_can_be_chosen() {
    let picture = ImageSource::File(common::fixture("pictures/rgb.png"));
    let raw = ImageSource::Rgb { width: 37, height: 29, data: vec![0; 37 * 29 * 3] };
    for source in [picture, raw] {
        assert!(decode_image_within(&source, 37 * 29).is_ok());
        let error = decode_image_within(&source, 37 * 29 - 1).unwrap_err().to_string();
        assert!(error.contains("37 × 29 pixels, expected 1 to 1072 in all"), "{error}");
    }
}

/// xorshift; the same cases on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[test]
fn no_damage_makes_a_decoder_panic_or_takes_for_ever() {
    const CASES: usize = 120;
    let mut random = Random(0x5EED_CAFE);
    let (mut decoded, mut broke) = (0, Vec::new());
    for (name, path) in fixtures() {
        let whole = std::fs::read(&path).unwrap();
        for case in 0..CASES {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                // Half of the damage is in the headers, where sizes and counts are.
                let at =
                    if random.below(2) == 0 { random.below(bytes.len().min(64)) } else { random.below(bytes.len()) };
                match random.below(4) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = random.below(256) as u8,
                    2 => bytes[at] = [0, 0xFF, 0x7F, 0x80][random.below(4)],
                    _ => bytes.truncate(at.max(1)),
                }
            }
            // A damaged checksum ends most cases of PNG at once, so half of them get right ones.
            if name.ends_with("png") && case % 2 == 0 {
                repair(&mut bytes);
            }
            let start = Instant::now();
            match decode_image_within(&ImageSource::Encoded(bytes), 4_000_000) {
                Ok(image) => {
                    assert!(image.width() > 0 && image.height() > 0);
                    decoded += 1;
                }
                Err(error) => {
                    assert_eq!(error.code(), "E_IMAGE", "{name} {case}");
                    if error.to_string().contains("broke on it") {
                        broke.push(format!("{name} {case}"));
                    }
                }
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{name} {case} takes {:?}", start.elapsed());
        }
    }
    println!("{decoded} of the damaged pictures are decoded all the same");
    assert!(decoded > 0 && broke.is_empty(), "decoders panicked (and were caught) at {broke:?}");
}

/// Writes the right checksum into every chunk of a PNG.
fn repair(png: &mut [u8]) {
    let mut at = 8;
    while at + 12 <= png.len() {
        let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= png.len()) else { break };
        let crc = crc32(&png[at + 4..end]);
        png[end..end + 4].copy_from_slice(&crc.to_be_bytes());
        at = end + 4;
    }
}
