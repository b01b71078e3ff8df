//! COCO: the official captions, instances and panoptic JSON and a folder of photos.
//!
//! Of the panoptic file the segments' boxes and categories are used, things and stuff alike; the masks (PNG files of segment ids)
//! are not read. Where instances are given too, things come from them and the panoptic file adds the stuff.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::records::Collect;
use super::{DatasetSpec, Source, last};
use crate::dataset::{BoxAnnotation, Dataset, ImageSource, OnBad, PairRecord, Skipped, inside};
use crate::error::{DataError, Result};

/// COCO in its official JSON files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CocoSpec {
    /// Folder of the photos.
    pub images: PathBuf,
    /// `captions_*.json`.
    pub captions: PathBuf,
    /// `instances_*.json`, for boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<PathBuf>,
    /// `panoptic_*.json`, for boxes of things and stuff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panoptic: Option<PathBuf>,
}

#[derive(Deserialize)]
struct CaptionsFile {
    images: Vec<Image>,
    annotations: Vec<Caption>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    width: Option<u32>,
    height: Option<u32>,
}

#[derive(Deserialize)]
struct Caption {
    image_id: u64,
    caption: String,
}

#[derive(Deserialize)]
struct InstancesFile {
    annotations: Vec<Instance>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Instance {
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
    /// Panoptic files say 1 of things and 0 of stuff; all of the others are things.
    #[serde(default = "one")]
    isthing: u8,
}

fn one() -> u8 {
    1
}

#[derive(Deserialize)]
struct PanopticFile {
    annotations: Vec<Panoptic>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Panoptic {
    image_id: u64,
    segments_info: Vec<Segment>,
}

#[derive(Deserialize)]
struct Segment {
    id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

impl Source for CocoSpec {
    fn open(&self, on_bad: OnBad) -> Result<Box<dyn Dataset>> {
        let Self { images, captions, .. } = self;
        let file: CaptionsFile = read_json(captions, "COCO's")?;
        let mut collect = Collect::new(on_bad);
        let mut texts: HashMap<u64, Vec<String>> = HashMap::new();
        for Caption { image_id, caption } in file.annotations {
            let caption = caption.trim();
            if !caption.is_empty() {
                texts.entry(image_id).or_default().push(caption.to_string());
            }
        }
        let mut boxes = self.boxes(&mut collect.skipped)?;
        if !images.is_dir() {
            return Err(DataError::io("read", images, std::io::ErrorKind::NotFound.into()));
        }
        let mut names: HashMap<u64, String> = HashMap::with_capacity(file.images.len());
        for image in file.images {
            let key = image.file_name;
            let path = inside(images, &key, &captions.display())?;
            if let Some(other) = names.insert(image.id, key.clone()) {
                let reason = format!("image id {} stands for both {other:?} and {key:?}", image.id);
                collect.bad(&key, DataError::dataset(captions.display(), reason))?;
                continue;
            }
            if !collect.first(&key, format!("image id {} of {}", image.id, captions.display()))? {
                texts.remove(&image.id);
                continue;
            }
            let problem = match texts.remove(&image.id) {
                None => {
                    let reason = format!("none with text in {}", captions.display());
                    DataError::NoCaption { key: key.clone(), reason }
                }
                Some(_) if !path.is_file() => {
                    DataError::Image { key: key.clone(), reason: format!("{} does not exist", path.display()) }
                }
                Some(captions) => {
                    let size = image.width.zip(image.height);
                    let boxes = boxes.remove(&image.id).unwrap_or_default();
                    collect.keep(PairRecord { key, image: ImageSource::File(path), captions, boxes, size });
                    continue;
                }
            };
            collect.bad(&key, problem)?;
        }
        if let Some(id) = texts.keys().min() {
            let reason =
                format!("{} image ids have captions but no entry under `images`, the lowest is {id}", texts.len());
            collect.bad(&format!("id {id}"), DataError::dataset(captions.display(), reason))?;
        }
        collect.finish(DatasetSpec::Coco(self.clone()), || format!("the data set {}", captions.display()))
    }

    fn portable(&self) -> Self {
        Self {
            images: last(&self.images),
            captions: last(&self.captions),
            instances: self.instances.as_deref().map(last),
            panoptic: self.panoptic.as_deref().map(last),
        }
    }
}

impl CocoSpec {
    /// The boxes of every image. COCO has a few boxes without area; they are listed in `skipped` and never an error.
    fn boxes(&self, skipped: &mut Vec<Skipped>) -> Result<Boxes> {
        let mut boxes = Boxes::new();
        if let Some(path) = &self.instances {
            let file: InstancesFile = read_json(path, "COCO's")?;
            let names = Names::new(path, file.categories);
            for Instance { id, image_id, category_id, bbox, iscrowd } in file.annotations {
                let category = names.of(category_id, id)?;
                add(&mut boxes, skipped, (image_id, id), bbox, &category.name, iscrowd);
            }
        }
        if let Some(path) = &self.panoptic {
            let file: PanopticFile = read_json(path, "COCO's")?;
            let names = Names::new(path, file.categories);
            for Panoptic { image_id, segments_info } in file.annotations {
                for Segment { id, category_id, bbox, iscrowd } in segments_info {
                    let category = names.of(category_id, id)?;
                    if category.isthing == 0 || self.instances.is_none() {
                        add(&mut boxes, skipped, (image_id, id), bbox, &category.name, iscrowd);
                    }
                }
            }
        }
        Ok(boxes)
    }
}

type Boxes = HashMap<u64, Vec<BoxAnnotation>>;

/// The categories of a file by id.
struct Names<'a> {
    path: &'a Path,
    by_id: HashMap<u64, Category>,
}

impl<'a> Names<'a> {
    fn new(path: &'a Path, categories: Vec<Category>) -> Self {
        Self { path, by_id: categories.into_iter().map(|c| (c.id, c)).collect() }
    }

    fn of(&self, category: u64, annotation: u64) -> Result<&Category> {
        self.by_id.get(&category).ok_or_else(|| {
            let reason = format!("annotation {annotation} has category {category}, which `categories` does not list");
            DataError::dataset(self.path.display(), reason)
        })
    }
}

fn add(
    boxes: &mut Boxes,
    skipped: &mut Vec<Skipped>,
    (image, id): (u64, u64),
    [x, y, width, height]: [f64; 4],
    category: &str,
    iscrowd: u8,
) {
    if !(width > 0.0 && height > 0.0 && [x, y, width, height].iter().all(|v| v.is_finite())) {
        skipped.push(Skipped {
            key: format!("{image}#{id}"),
            code: "E_DATASET".into(),
            reason: format!("the box [{x}, {y}, {width}, {height}] has no area"),
        });
        return;
    }
    let (category, crowd) = (Some(category.to_string()), iscrowd != 0);
    boxes.entry(image).or_default().push(BoxAnnotation { x, y, width, height, category, phrase: None, crowd });
}

/// Reads a JSON file through a map: instances_train2017.json takes 450 MB, mostly polygons that are skipped over.
/// `whose` form it is expected to have, for messages.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, whose: &str) -> Result<T> {
    let file = File::open(path).map_err(|e| DataError::io("read", path, e))?;
    let length = file.metadata().map_err(|e| DataError::io("read", path, e))?.len();
    if length == 0 {
        return Err(DataError::dataset(path.display(), "the file is empty"));
    }
    // SAFETY: the map is read-only and dropped before this function returns; the user's own annotation file is not
    // expected to be shortened in that time.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| DataError::io("map", path, e))?;
    serde_json::from_slice(&map).map_err(|e| DataError::dataset(path.display(), format!("not in {whose} form: {e}")))
}
