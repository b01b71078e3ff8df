//! Pixels against Hugging Face's SigLIP processor (PIL), and pictures that cannot be used.
#![allow(clippy::unwrap_used)]

mod common;

use image::{ImageEncoder, RgbImage};
use lucid_data::ImageSource;
use lucid_vlm::{Preprocessing, VlmError, decode_image, thumbnail};
use safetensors::SafeTensors;
use std::path::Path;

/// Squashes `file` and compares with the fixture's planes of the same name: (largest difference, share of unequal values).
fn compare(fixtures: &SafeTensors<'_>, name: &str, file: &Path) {
    let image = decode_image(&ImageSource::File(file.into())).unwrap();
    for side in [224usize, 112] {
        let squashed = Preprocessing::siglip(side).fitted(&image).unwrap();
        let expected = fixtures.tensor(&format!("{name}.{side}")).unwrap();
        assert_eq!(expected.shape(), [3, side, side]);
        let (mut worst, mut sum) = (0, 0u64);
        for (c, plane) in expected.data().chunks_exact(side * side).enumerate() {
            for (pixel, &value) in squashed.as_raw().chunks_exact(3).zip(plane) {
                worst = worst.max(pixel[c].abs_diff(value));
                sum += u64::from(pixel[c].abs_diff(value));
            }
        }
        let mean = sum as f64 / expected.data().len() as f64;
        println!("{name} at {side}: at most {worst}/255, {mean:.4}/255 in the mean");
        assert!(worst <= 1, "{name} at {side}: differs by {worst}/255");
        assert!(mean <= 0.1, "{name} at {side}: differs by {mean}/255 in the mean");
    }
}

#[test]
fn a_png_is_squashed_as_pil_does_it() {
    let bytes = std::fs::read(common::fixture("pixels.safetensors")).unwrap();
    let fixtures = SafeTensors::deserialize(&bytes).unwrap();
    compare(&fixtures, "world-0", &common::fixture("world-0.png"));
}

#[test]
fn photos_are_squashed_as_pil_does_it() {
    let test = "photos_are_squashed_as_pil_does_it";
    let Some(folder) = common::shared(test, "real/coco-train80/train2017") else { return };
    let bytes = std::fs::read(common::fixture("pixels.safetensors")).unwrap();
    let fixtures = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["000000030752", "000000000790"] {
        compare(&fixtures, name, &folder.join(format!("{name}.jpg")));
    }
}

#[test]
fn pixels_are_normalised_channel_by_channel() {
    let image = RgbImage::from_fn(2, 2, |x, y| image::Rgb([0, 255, (x * 100 + y) as u8]));
    let mut p = Preprocessing::siglip(2);
    p.mean = [0.5, 0.25, 0.0];
    p.std = [0.5, 0.5, 2.0];
    let values = p.pixels(&image).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values[..8], [-1.0, -1.0, -1.0, -1.0, 1.5, 1.5, 1.5, 1.5]);
    assert!((values[9] - 100.0 / 510.0).abs() < 1e-7 && (values[10] - 1.0 / 510.0).abs() < 1e-7);
}

fn encoded(width: u32, height: u32, color: image::ExtendedColorType, pixels: &[u8]) -> ImageSource {
    let mut png = Vec::new();
    image::codecs::png::PngEncoder::new(&mut png).write_image(pixels, width, height, color).unwrap();
    ImageSource::Encoded(png)
}

#[test]
fn other_colour_types_become_rgb_as_in_pil() {
    use image::ExtendedColorType::{L8, La8, Rgba8};
    let rgba = decode_image(&encoded(1, 1, Rgba8, &[10, 20, 30, 0])).unwrap();
    assert_eq!(rgba.as_raw(), &[10, 20, 30], "alpha is dropped, not composited");
    assert_eq!(decode_image(&encoded(1, 1, L8, &[77])).unwrap().as_raw(), &[77, 77, 77]);
    assert_eq!(decode_image(&encoded(1, 1, La8, &[77, 3])).unwrap().as_raw(), &[77, 77, 77]);
}

/// Every refusal is an E_IMAGE that names the file.
fn refused(source: ImageSource, named: &str) -> String {
    let error = decode_image(&source).unwrap_err();
    assert_eq!(error.code(), "E_IMAGE");
    assert!(error.hint().is_some());
    let VlmError::Image { file, reason } = error else { panic!("another variant") };
    assert!(file.ends_with(named), "{file}");
    reason
}

#[test]
fn missing_truncated_and_foreign_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        ImageSource::File(path)
    };
    refused(ImageSource::File(folder.path().join("absent.jpg")), "absent.jpg");
    refused(file("empty.png", &[]), "empty.png");
    refused(file("text.jpg", b"<html>not found</html>"), "text.jpg");
    refused(ImageSource::File(folder.path().into()), "");
    let noise = RgbImage::from_fn(64, 48, |x, y| image::Rgb([((x * 37) ^ (y * 91)) as u8, (x * y) as u8, y as u8]));
    for (name, format) in
        [("p.png", image::ImageFormat::Png), ("j.jpg", image::ImageFormat::Jpeg), ("w.webp", image::ImageFormat::WebP)]
    {
        let mut bytes = Vec::new();
        noise.write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
        assert_eq!(decode_image(&file(name, &bytes)).unwrap().dimensions(), (64, 48));
        for share in [10, 50, 90] {
            refused(file(name, &bytes[..bytes.len() * share / 100]), name);
        }
    }
    refused(ImageSource::Rgb { width: 2, height: 2, data: vec![0; 11] }, "<memory>");
    refused(ImageSource::Rgb { width: 0, height: 2, data: vec![] }, "<memory>");
}

#[test]
fn a_picture_that_claims_a_huge_size_is_refused_before_it_is_decoded() {
    // A BMP header of 60,000 × 60,000 pixels and nothing behind it.
    let mut bmp = b"BM".to_vec();
    bmp.extend([0u8; 8]);
    bmp.extend(54u32.to_le_bytes());
    bmp.extend(40u32.to_le_bytes());
    bmp.extend(60_000i32.to_le_bytes());
    bmp.extend(60_000i32.to_le_bytes());
    bmp.extend(1u16.to_le_bytes());
    bmp.extend(24u16.to_le_bytes());
    bmp.extend([0u8; 24]);
    assert!(refused(ImageSource::Encoded(bmp), "<memory>").contains("60000"));
}

#[test]
fn thumbnails_keep_the_aspect_and_are_never_enlarged() {
    for (size, expected) in [((640, 480), (160, 120)), ((100, 40), (100, 40)), ((10, 4000), (1, 160))] {
        let jpeg = thumbnail(&RgbImage::from_pixel(size.0, size.1, image::Rgb([200, 30, 60]))).unwrap();
        let back = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).unwrap().into_rgb8();
        assert_eq!(back.dimensions(), expected);
        assert!(back.get_pixel(0, 0).0.iter().zip([200, 30, 60]).all(|(a, b)| a.abs_diff(b) < 6));
    }
}

#[test]
fn a_preprocessor_config_is_read_or_refused_by_field() {
    let base = lucid_vlm::ModelConfig::parse(b"{}", "config.json").unwrap();
    let parse = |json: &str| Preprocessing::parse(json.as_bytes(), "preprocessor_config.json", &base);
    assert_eq!(parse("{}").unwrap(), Preprocessing::siglip(224));
    let full = parse(
        r#"{ "do_convert_rgb": null, "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 3,
            "rescale_factor": 0.00392156862745098, "size": { "height": 224, "width": 224 } }"#,
    );
    assert_eq!(full.unwrap(), Preprocessing::siglip(224));
    for (json, field) in [
        (r#"{ "size": { "height": 384, "width": 384 } }"#, "size"),
        (r#"{ "resample": 0 }"#, "resample"),
        (r#"{ "image_std": [0.5, 0, 0.5] }"#, "image_std"),
        (r#"{ "image_mean": [0.5] }"#, "image_mean"),
        (r#"{ "size": { "height": 256, "width": 256 }, "do_center_crop": true }"#, "size"),
        (r#"{ "do_resize": false }"#, "do_resize"),
    ] {
        let error = parse(json).unwrap_err();
        assert_eq!((error.code(), error.details()["field"].as_str()), ("E_BACKBONE_CONFIG", Some(field)));
    }
    assert_eq!(parse("[").unwrap_err().code(), "E_BACKBONE");
}
