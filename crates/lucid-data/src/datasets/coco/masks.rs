//! COCO's masks: polygons and runs in the instances file, PNG files of segment ids beside the panoptic one.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::dataset::{Dataset, PairRecord, Skipped};
use crate::datasets::DatasetSpec;
use crate::error::{DataError, Result};
use crate::mask::{PixelMask, counted};

/// `segmentation` of an annotation.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Runs(Map<String, Value>),
}

impl Segmentation {
    /// Reads it from its JSON.
    pub(super) fn read(text: &RawValue) -> std::result::Result<Self, String> {
        serde_json::from_str(text.get())
            .map_err(|_| "`segmentation` is neither polygons nor runs of a mask".to_string())
    }

    /// The mask on an image of `size`, or what is wrong with it.
    pub(super) fn mask(self, size: [u32; 2]) -> std::result::Result<PixelMask, String> {
        let mask = match self {
            Self::Polygons(polygons) => PixelMask::from_polygons(size, &polygons)?,
            Self::Runs(runs) => serde_json::from_value(Value::Object(runs)).map_err(|e| e.to_string())?,
        };
        match mask.size() == size {
            true => Ok(mask),
            false => Err(format!("a mask of {} pixels, expected {}, the image's", by(mask.size()), by(size))),
        }
    }
}

/// The PNG of one image and, for each of its boxes, the segment it is the box of; `None` for boxes of instances.
pub(super) struct Segments {
    pub(super) file: PathBuf,
    pub(super) of_box: Vec<Option<u64>>,
}

/// The folder of the PNG files: COCO's archive puts `panoptic_val2017/` beside `panoptic_val2017.json`.
pub(super) fn folder(panoptic: &Path) -> Result<PathBuf> {
    let folder = panoptic.with_extension("");
    match folder.is_dir() {
        true => Ok(folder),
        false => {
            let reason =
                format!("`masks` needs its PNG files in the folder {}, which does not exist", folder.display());
            Err(DataError::dataset(panoptic.display(), reason))
        }
    }
}

/// A set whose records get their panoptic masks when they are asked for: 118,000 PNG files are not opened in advance.
pub(super) struct WithSegments {
    pub(super) records: Box<dyn Dataset>,
    pub(super) segments: HashMap<String, Segments>,
}

impl Dataset for WithSegments {
    fn len(&self) -> usize {
        self.records.len()
    }
    fn pair(&self, index: usize) -> Result<PairRecord> {
        let mut record = self.records.pair(index)?;
        if let Some(segments) = self.segments.get(&record.key) {
            fill(&mut record, segments).map_err(|reason| DataError::Image {
                key: record.key.clone(),
                reason: format!("its masks in {}: {reason}", segments.file.display()),
            })?;
        }
        Ok(record)
    }
    fn spec(&self) -> DatasetSpec {
        self.records.spec()
    }
    fn skipped(&self) -> &[Skipped] {
        self.records.skipped()
    }
}

/// Gives the boxes of segments their masks.
fn fill(record: &mut PairRecord, segments: &Segments) -> std::result::Result<(), String> {
    let (width, height) = record.size.ok_or("the image has no size")?;
    let ids = segment_ids(&segments.file, [width, height])?;
    for (annotation, segment) in record.boxes.iter_mut().zip(&segments.of_box) {
        let Some(id) = *segment else { continue };
        let inside = |x: u32, y: u32| u64::from(ids[(y * width + x) as usize]) == id;
        let mask = PixelMask::from_pixels([width, height], inside)?;
        if mask.area() == 0 {
            return Err(format!("no pixel of segment {id}"));
        }
        annotation.mask = Some(mask);
    }
    Ok(())
}

/// The segment of every pixel, row by row: R + 256 · G + 65536 · B.
fn segment_ids(file: &Path, size: [u32; 2]) -> std::result::Result<Vec<u32>, String> {
    let pixels = counted(size)? as usize;
    let opened = File::open(file).map_err(|e| e.to_string())?;
    let mut reader = png::Decoder::new(BufReader::new(opened)).read_info().map_err(|e| e.to_string())?;
    let info = reader.info();
    if [info.width, info.height] != size {
        return Err(format!("{} pixels, expected {}, the image's", by([info.width, info.height]), by(size)));
    }
    if (info.color_type, info.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
        return Err(format!("{:?} of {} bits, expected RGB of 8 bits", info.color_type, info.bit_depth as u8));
    }
    let mut pixels = vec![0; pixels * 3];
    reader.next_frame(&mut pixels).map_err(|e| e.to_string())?;
    Ok(pixels.chunks_exact(3).map(|p| u32::from_le_bytes([p[0], p[1], p[2], 0])).collect())
}

fn by([width, height]: [u32; 2]) -> String {
    format!("{width} × {height}")
}
