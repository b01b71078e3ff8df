//! Times the forward pass of a backbone over pictures, as an extraction runs it, and prints images a second.
//!
//! `forward_time --backbone FOLDER --pixels FILE --size S [--rounds 3] [--threads N] [--states FILE]`: `FILE` holds pictures of
//! S × S RGB bytes one after the other; `--states` writes the states of `vision.post_ln` as little-endian f32.

use std::path::PathBuf;
use std::time::Instant;

use lucid_vlm::{Backbone, RgbImage};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HOOK: &str = "vision.post_ln";

fn main() -> Result<()> {
    let (mut folder, mut pixels, mut states) = (None, None, None);
    let (mut size, mut rounds, mut threads) = (224, 3, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--backbone" => folder = Some(PathBuf::from(value)),
            "--pixels" => pixels = Some(PathBuf::from(value)),
            "--states" => states = Some(PathBuf::from(value)),
            "--size" => size = value.parse()?,
            "--rounds" => rounds = value.parse()?,
            "--threads" => threads = value.parse()?,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let folder = folder.ok_or("--backbone FOLDER is missing")?;
    let bytes = std::fs::read(pixels.ok_or("--pixels FILE is missing")?)?;
    let images: Vec<RgbImage> = bytes
        .chunks_exact(3 * size as usize * size as usize)
        .map(|chunk| RgbImage::from_raw(size, size, chunk.to_vec()).ok_or("a picture is cut off"))
        .collect::<std::result::Result<_, _>>()?;
    let backbone = Backbone::load(&folder)?.with_threads(threads);
    let first = backbone.encode_images(&images[..images.len().min(2)], HOOK)?;
    drop(first);
    let mut seconds = Vec::new();
    for round in 0..rounds {
        let started = Instant::now();
        let found = backbone.encode_images(&images, HOOK)?;
        seconds.push(started.elapsed().as_secs_f64());
        if let (0, Some(path)) = (round, &states) {
            let bytes: Vec<u8> = found.states.iter().flat_map(|value| value.to_le_bytes()).collect();
            std::fs::write(path, bytes)?;
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    println!(
        "{}",
        json!({ "images": images.len(), "seconds": seconds, "imagesPerSecond": images.len() as f64 / median })
    );
    Ok(())
}
