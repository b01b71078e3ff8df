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
        if [decoded, squashed].iter().any(|d| d.0 > 0) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
