//! COCO: the official captions, instances and panoptic JSON and a folder of photos.
//!
//! Of the panoptic file the segments' boxes and categories are used, things and stuff alike. Where instances are given too, things come
//! from them and the panoptic file adds the stuff. Masks are read where they are asked for ([`masks`]).

mod masks;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::records::Collect;
use super::{DatasetSpec, Source, last};
use crate::dataset::{BoxAnnotation, Dataset, ImageSource, OnBad, PairRecord, Skipped, inside};
use crate::error::{DataError, Result};
use masks::{Segmentation, Segments, WithSegments};

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
    /// Keep what the boxes enclose, pixel by pixel: polygons and runs of `instances`, and of `panoptic` the PNG files in the folder beside
    /// it that has its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masks: bool,
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
struct InstancesFile<'a> {
    #[serde(borrow)]
    annotations: Vec<Instance<'a>>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Instance<'a> {
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
    /// Not looked at where masks are not asked for: most of the file's 450 MB are polygons.
    #[serde(borrow)]
    segmentation: Option<&'a RawValue>,
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
    file_name: Option<String>,
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
        let mut annotated = self.annotations(&file.images, &mut collect.skipped)?;
        if !images.is_dir() {
            return Err(DataError::io("read", images, std::io::ErrorKind::NotFound.into()));
        }
        let mut names: HashMap<u64, String> = HashMap::with_capacity(file.images.len());
        let mut segments = HashMap::new();
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
                    let Annotated { boxes, png, of_box } = annotated.remove(&image.id).unwrap_or_default();
                    if let Some(file) = png {
                        segments.insert(key.clone(), Segments { file, of_box });
                    }
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
        let records =
            collect.finish(DatasetSpec::Coco(self.clone()), || format!("the data set {}", captions.display()))?;
        Ok(if segments.is_empty() { records } else { Box::new(WithSegments { records, segments }) })
    }

    fn portable(&self) -> Self {
        Self {
            images: last(&self.images),
            captions: last(&self.captions),
            instances: self.instances.as_deref().map(last),
            panoptic: self.panoptic.as_deref().map(last),
            masks: self.masks,
        }
    }
}

/// What is marked in an image.
#[derive(Default)]
struct Annotated {
    boxes: Vec<BoxAnnotation>,
    /// The PNG of the panoptic masks, and the segment that each box is of.
    png: Option<PathBuf>,
    of_box: Vec<Option<u64>>,
}

impl Annotated {
    /// Adds a box and gives its place; says what is wrong with one without area.
    fn add(&mut self, bbox: [f64; 4], category: &str, iscrowd: u8) -> Result<usize, String> {
        let [x, y, width, height] = bbox;
        if !(width > 0.0 && height > 0.0 && bbox.iter().all(|v| v.is_finite())) {
            return Err(format!("the box [{x}, {y}, {width}, {height}] has no area"));
        }
        let (category, crowd) = (Some(category.to_string()), iscrowd != 0);
        self.of_box.push(None);
        self.boxes.push(BoxAnnotation { x, y, width, height, category, crowd, ..Default::default() });
        Ok(self.boxes.len() - 1)
    }
}

impl CocoSpec {
    /// The boxes of every image, and its masks or where they are. COCO has a few boxes without area; they are listed in `skipped` and
    /// never an error.
    fn annotations(&self, images: &[Image], skipped: &mut Vec<Skipped>) -> Result<HashMap<u64, Annotated>> {
        let mut annotated: HashMap<u64, Annotated> = HashMap::new();
        let mut without_area = |image: u64, id: u64, reason: String| {
            skipped.push(Skipped { key: format!("{image}#{id}"), code: "E_DATASET".into(), reason });
        };
        let sizes: HashMap<u64, Option<[u32; 2]>> =
            images.iter().map(|image| (image.id, image.width.zip(image.height).map(Into::into))).collect();
        if let Some(path) = &self.instances {
            let map = map_json(path)?;
            let file: InstancesFile = parse_json(&map, path, "COCO's")?;
            let names = Names::new(path, file.categories);
            for Instance { id, image_id, category_id, bbox, iscrowd, segmentation } in file.annotations {
                let category = names.of(category_id, id)?;
                let of_image = annotated.entry(image_id).or_default();
                let place = match of_image.add(bbox, &category.name, iscrowd) {
                    Ok(place) => place,
                    Err(reason) => {
                        without_area(image_id, id, reason);
                        continue;
                    }
                };
                // Annotations of images that are not in this set have no size, and nobody asks for them.
                let Some(&size) = sizes.get(&image_id).filter(|_| self.masks) else { continue };
                let bad = |reason: String| DataError::dataset(path.display(), format!("annotation {id}: {reason}"));
                let size = size.ok_or_else(|| bad(unsized_image(image_id)))?;
                let form = segmentation.ok_or_else(|| bad("no `segmentation`, which `masks` needs".into()))?;
                let form = Segmentation::read(form).map_err(bad)?;
                of_image.boxes[place].mask = Some(form.mask(size).map_err(bad)?);
            }
        }
        if let Some(path) = &self.panoptic {
            let file: PanopticFile = read_json(path, "COCO's")?;
            let names = Names::new(path, file.categories);
            let folder = if self.masks { Some(masks::folder(path)?) } else { None };
            for Panoptic { image_id, file_name, segments_info } in file.annotations {
                let of_image = annotated.entry(image_id).or_default();
                for Segment { id, category_id, bbox, iscrowd } in segments_info {
                    let category = names.of(category_id, id)?;
                    if category.isthing == 0 || self.instances.is_none() {
                        match of_image.add(bbox, &category.name, iscrowd) {
                            Ok(place) => of_image.of_box[place] = Some(id),
                            Err(reason) => without_area(image_id, id, reason),
                        }
                    }
                }
                if let (Some(folder), Some(size)) = (&folder, sizes.get(&image_id)) {
                    let bad = |reason: String| DataError::dataset(path.display(), reason);
                    size.ok_or_else(|| bad(unsized_image(image_id)))?;
                    let name = file_name.ok_or_else(|| bad(format!("no `file_name` for image {image_id}")))?;
                    of_image.png = Some(inside(folder, &name, &path.display())?);
                }
            }
        }
        Ok(annotated)
    }
}

fn unsized_image(image: u64) -> String {
    format!("image {image} has no `width` and `height` in the captions file, which `masks` needs")
}

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

/// Reads a JSON file; `whose` form it is expected to have, for messages.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, whose: &str) -> Result<T> {
    parse_json(&map_json(path)?, path, whose)
}

fn parse_json<'a, T: Deserialize<'a>>(text: &'a [u8], path: &Path, whose: &str) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| DataError::dataset(path.display(), format!("not in {whose} form: {e}")))
}

/// A JSON file as a map of it: instances_train2017.json takes 450 MB, mostly polygons that are passed over or read one at a time.
fn map_json(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| DataError::io("read", path, e))?;
    let length = file.metadata().map_err(|e| DataError::io("read", path, e))?.len();
    if length == 0 {
        return Err(DataError::dataset(path.display(), "the file is empty"));
    }
    // SAFETY: the map is read-only and dropped before the data set is open; the user's own annotation file is not expected to be
    // shortened in that time.
    unsafe { Mmap::map(&file) }.map_err(|e| DataError::io("map", path, e))
}
