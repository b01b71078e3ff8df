//! Every kind of picture against Pillow, and pictures that cannot be used. `fixtures/pictures/make.py` makes both sides.
#![allow(clippy::unwrap_used)]

mod common;

use image::RgbImage;
use lucid_data::ImageSource;
use lucid_vlm::{Preprocessing, decode_image};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Largest and mean difference of 8-bit values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Difference(u8, f64);

/// What a picture may differ by, as decoded and as squashed to 32 pixels. Without loss, and in WebP, nothing differs. JPEG leaves
/// the rounding of the inverse transform to the decoder; where chroma is subsampled, the decoder here rounds twice on the way up and
/// libjpeg once, which is the larger part of the difference.
fn bounds(name: &str) -> [Difference; 2] {
    match name {
        "444.jpg" | "grey.jpg" | "rgb-space.jpg" | "cmyk.jpg" => [Difference(2, 0.02), Difference(2, 0.03)],
        "422.jpg" => [Difference(3, 0.18), Difference(3, 0.21)],
        "420.jpg" | "rotated.jpg" | "progressive.jpg" | "restart.jpg" => [Difference(4, 0.39), Difference(3, 0.44)],
        _ => [Difference(0, 0.0); 2],
    }
}

fn difference(image: &RgbImage, fixtures: &SafeTensors<'_>, name: &str) -> Difference {
    let expected = fixtures.tensor(name).unwrap();
    assert_eq!(expected.shape(), [image.height() as usize, image.width() as usize, 3], "{name}");
    let all = || image.as_raw().iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b));
    Difference(all().max().unwrap(), all().map(f64::from).sum::<f64>() / expected.data().len() as f64)
}

fn pictures() -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(common::fixture("pictures")).unwrap();
    let files = entries.map(|e| e.unwrap().path());
    let files = files.filter(|p| !["py", "safetensors"].contains(&p.extension().unwrap().to_str().unwrap()));
    files.map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), p)).collect()
}

#[test]
fn every_kind_of_picture_has_the_pixels_pillow_gives_it() {
    let bytes = std::fs::read(common::fixture("pictures/expected.safetensors")).unwrap();
    let fixtures = SafeTensors::deserialize(&bytes).unwrap();
    let pictures = pictures();
    assert_eq!(pictures.len() * 2, fixtures.names().len());
    let mut wrong = Vec::new();
    for (name, path) in pictures {
        let image = decode_image(&ImageSource::File(path)).unwrap();
        let decoded = difference(&image, &fixtures, &name);
        let squashed = Preprocessing::siglip(32).fitted(&image).unwrap();
        let squashed = difference(&squashed, &fixtures, &format!("{name}.32"));
        println!("{name:24} decoded {decoded:?} squashed {squashed:?}");
        let within = |found: Difference, bound: Difference| found.0 <= bound.0 && found.1 <= bound.1;
        let bounds = bounds(&name);
        if !within(decoded, bounds[0]) || !within(squashed, bounds[1]) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
