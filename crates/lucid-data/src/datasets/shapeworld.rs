//! Captions in groups of lines, one group an image, as ShapeWorld writes them.
//!
//! `caption.txt`: groups separated by empty lines (without any empty line: one line an image); the n-th group belongs to
//! the n-th image in natural order (`world-2` before `world-10`). `agreement.txt`, where it lies beside: one line an image,
//! a number a caption, separated by `;`; captions with a number below 0.5 are false of their image and left out.
//! `world_model.json`, where it lies beside: the objects with their boxes as fractions of the image.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::captions::read_text;
use crate::dataset::BoxAnnotation;
use crate::error::{DataError, Result};

/// The captions of one image; `labelled_false` counts those that `agreement.txt` calls false.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Group {
    pub(crate) captions: Vec<String>,
    pub(crate) labelled_false: usize,
}

/// The groups of the caption file `path`.
pub(crate) fn read_groups(path: &Path) -> Result<Vec<Group>> {
    let text = read_text(path)?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let blocks: Vec<Vec<&str>> =
        lines.split(|l| l.is_empty()).filter(|b| !b.is_empty()).map(<[&str]>::to_vec).collect();
    let blocks = if blocks.len() == 1 { blocks[0].iter().map(|l| vec![*l]).collect() } else { blocks };
    let agreement = match path.with_file_name("agreement.txt") {
        beside if beside.is_file() => Some((read_agreement(&beside)?, beside)),
        _ => None,
    };
    let Some((agreement, beside)) = agreement else {
        let whole = |b: Vec<&str>| Group { captions: b.into_iter().map(String::from).collect(), labelled_false: 0 };
        return Ok(blocks.into_iter().map(whole).collect());
    };
    if agreement.len() != blocks.len() {
        let reason =
            format!("{} lines, expected {}, one for each group of {}", agreement.len(), blocks.len(), path.display());
        return Err(DataError::dataset(beside.display(), reason));
    }
    blocks
        .into_iter()
        .zip(agreement)
        .enumerate()
        .map(|(i, (block, truth))| {
            if truth.len() != block.len() {
                let reason = format!("{} numbers, expected {}, one a caption", truth.len(), block.len());
                return Err(DataError::dataset(format!("{}:{}", beside.display(), i + 1), reason));
            }
            let captions: Vec<String> =
                block.iter().zip(&truth).filter(|(_, t)| **t >= 0.5).map(|(c, _)| c.to_string()).collect();
            Ok(Group { labelled_false: block.len() - captions.len(), captions })
        })
        .collect()
}

fn read_agreement(path: &Path) -> Result<Vec<Vec<f64>>> {
    let text = read_text(path)?;
    let number = |line: usize, field: &str| {
        let bad = |_| {
            DataError::dataset(
                format!("{}:{}", path.display(), line + 1),
                format!("found {field:?}, expected a number"),
            )
        };
        field.trim().parse::<f64>().map_err(bad)
    };
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines.map(|(i, line)| line.split(';').map(|f| number(i, f)).collect()).collect()
}

#[derive(Deserialize)]
struct World {
    entities: Vec<Entity>,
}

#[derive(Deserialize)]
struct Entity {
    bounding_box: Corners,
    color: Named,
    shape: Named,
}

#[derive(Deserialize)]
struct Corners {
    topleft: Point,
    bottomright: Point,
}

#[derive(Deserialize)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// The objects of every world of `world_model.json`, as fractions of width and height.
pub(crate) fn read_worlds(path: &Path) -> Result<Vec<Vec<BoxAnnotation>>> {
    let worlds: Vec<World> = serde_json::from_str(&read_text(path)?)
        .map_err(|e| DataError::dataset(path.display(), format!("not in ShapeWorld's form: {e}")))?;
    let entity = |e: &Entity| {
        let Corners { topleft: a, bottomright: b } = &e.bounding_box;
        // Objects may reach over the edge; what is seen is what counts.
        let [x0, y0, x1, y1] = [a.x, a.y, b.x, b.y].map(|v| v.clamp(0.0, 1.0));
        let category = Some(format!("{} {}", e.color.name, e.shape.name));
        BoxAnnotation { x: x0, y: y0, width: x1 - x0, height: y1 - y0, category, ..Default::default() }
    };
    let seen = |b: &BoxAnnotation| b.width > 0.0 && b.height > 0.0;
    Ok(worlds.iter().map(|w| w.entities.iter().map(entity).filter(seen).collect()).collect())
}

/// Scales boxes from fractions to pixels.
pub(crate) fn to_pixels(boxes: &mut [BoxAnnotation], (width, height): (u32, u32)) {
    for b in boxes {
        (b.x, b.width) = (b.x * f64::from(width), b.width * f64::from(width));
        (b.y, b.height) = (b.y * f64::from(height), b.height * f64::from(height));
    }
}

/// Width and height from a PNG's header; `None` for anything else.
pub(crate) fn png_size(path: &Path) -> Option<(u32, u32)> {
    let mut head = [0u8; 24];
    std::fs::File::open(path).ok()?.read_exact(&mut head).ok()?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    (head.starts_with(b"\x89PNG\r\n\x1a\n") && &head[12..16] == b"IHDR").then(|| (word(16), word(20)))
}
