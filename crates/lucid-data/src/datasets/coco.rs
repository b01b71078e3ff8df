//! COCO: the official captions and instances JSON and a folder of photos.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::dataset::{BoxAnnotation, Dataset, DatasetSpec, ImageSource, OnBad, PairRecord, Skipped, inside};
use crate::error::{DataError, Result};

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
}

/// A COCO data set in the order of its captions file.
pub(crate) struct Coco {
    spec: DatasetSpec,
    records: Vec<PairRecord>,
    skipped: Vec<Skipped>,
}

impl Coco {
    pub(crate) fn open(images: &Path, captions: &Path, instances: Option<&Path>, on_bad: OnBad) -> Result<Self> {
        let file: CaptionsFile = read_json(captions)?;
        let mut skipped = Vec::new();
        let mut texts: HashMap<u64, Vec<String>> = HashMap::new();
        for Caption { image_id, caption } in file.annotations {
            let caption = caption.trim();
            if !caption.is_empty() {
                texts.entry(image_id).or_default().push(caption.to_string());
            }
        }
        let mut boxes = match instances {
            Some(path) => read_boxes(path, &mut skipped)?,
            None => HashMap::new(),
        };
        if !images.is_dir() {
            return Err(DataError::io("read", images, std::io::ErrorKind::NotFound.into()));
        }
        let mut seen = BTreeMap::new();
        let mut records = Vec::with_capacity(file.images.len());
        for image in file.images {
            let path = inside(images, &image.file_name, &captions.display())?;
            if let Some(other) = seen.insert(image.id, image.file_name.clone()) {
                let reason = format!("image id {} stands for both {other:?} and {:?}", image.id, image.file_name);
                return Err(DataError::dataset(captions.display(), reason));
            }
            let key = image.file_name;
            let problem = match texts.remove(&image.id) {
                None => DataError::NoCaption {
                    key: key.clone(),
                    reason: format!("none with text in {}", captions.display()),
                },
                Some(_) if !path.is_file() => {
                    DataError::Image { key: key.clone(), reason: format!("{} does not exist", path.display()) }
                }
                Some(captions) => {
                    let size = image.width.zip(image.height);
                    let boxes = boxes.remove(&image.id).unwrap_or_default();
                    records.push(PairRecord { key, image: ImageSource::File(path), captions, boxes, size });
                    continue;
                }
            };
            match on_bad {
                OnBad::Stop => return Err(problem),
                OnBad::Skip => skipped.push(Skipped::because(&key, &problem)),
            }
        }
        if let Some(id) = texts.keys().min() {
            let reason =
                format!("{} image ids have captions but no entry under `images`, the lowest is {id}", texts.len());
            let problem = DataError::dataset(captions.display(), reason);
            match on_bad {
                OnBad::Stop => return Err(problem),
                OnBad::Skip => skipped.push(Skipped::because(&format!("id {id}"), &problem)),
            }
        }
        if records.is_empty() {
            return Err(DataError::Empty { what: format!("the data set {}", captions.display()) });
        }
        let spec = DatasetSpec::Coco {
            images: images.to_path_buf(),
            captions: captions.to_path_buf(),
            instances: instances.map(PathBuf::from),
        };
        Ok(Self { spec: spec.portable(), records, skipped })
    }
}

/// The boxes of every image. COCO has a few boxes without area; they are listed in `skipped` and never an error.
fn read_boxes(path: &Path, skipped: &mut Vec<Skipped>) -> Result<HashMap<u64, Vec<BoxAnnotation>>> {
    let file: InstancesFile = read_json(path)?;
    let names: HashMap<u64, String> = file.categories.into_iter().map(|c| (c.id, c.name)).collect();
    let mut boxes: HashMap<u64, Vec<BoxAnnotation>> = HashMap::new();
    for instance in file.annotations {
        let Some(category) = names.get(&instance.category_id) else {
            let reason = format!(
                "annotation {} has category {}, which `categories` does not list",
                instance.id, instance.category_id
            );
            return Err(DataError::dataset(path.display(), reason));
        };
        let [x, y, width, height] = instance.bbox;
        if !(width > 0.0 && height > 0.0 && [x, y, width, height].iter().all(|v| v.is_finite())) {
            skipped.push(Skipped {
                key: format!("{}#{}", instance.image_id, instance.id),
                code: "E_DATASET".into(),
                reason: format!("the box [{x}, {y}, {width}, {height}] has no area"),
            });
            continue;
        }
        let annotation = BoxAnnotation {
            x,
            y,
            width,
            height,
            category: Some(category.clone()),
            phrase: None,
            crowd: instance.iscrowd != 0,
        };
        boxes.entry(instance.image_id).or_default().push(annotation);
    }
    Ok(boxes)
}

/// Reads a JSON file through a map: instances_train2017.json takes 450 MB, mostly polygons that are skipped over.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).map_err(|e| DataError::io("read", path, e))?;
    let length = file.metadata().map_err(|e| DataError::io("read", path, e))?.len();
    if length == 0 {
        return Err(DataError::dataset(path.display(), "the file is empty"));
    }
    // SAFETY: the map is read-only and dropped before this function returns; the user's own annotation file is not
    // expected to be shortened in that time.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| DataError::io("map", path, e))?;
    serde_json::from_slice(&map).map_err(|e| DataError::dataset(path.display(), format!("not in COCO's form: {e}")))
}

impl Dataset for Coco {
    fn len(&self) -> usize {
        self.records.len()
    }
    fn pair(&self, index: usize) -> Result<PairRecord> {
        super::at(&self.records, index).cloned()
    }
    fn spec(&self) -> DatasetSpec {
        self.spec.clone()
    }
    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}
