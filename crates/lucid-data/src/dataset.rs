//! What a data set is: images, each with its captions and perhaps boxes, by position.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::datasets::{coco::Coco, folder::Folder, scenes::Scenes};
use crate::error::{DataError, Result};
use crate::scenes::Split;

/// Where the pixels of an image are.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageSource {
    /// An image file (JPEG, PNG, WebP, GIF or BMP).
    File(PathBuf),
    /// The bytes of an image file.
    Encoded(Vec<u8>),
    /// Pixels, 8-bit RGB, row by row from the top left.
    Rgb {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// `3 · width · height` bytes.
        data: Vec<u8>,
    },
}

/// A box around something in the image, in pixels of the original image, `x` and `y` the top left corner.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoxAnnotation {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width, greater than 0.
    pub width: f64,
    /// Height, greater than 0.
    pub height: f64,
    /// Name of the category, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Byte span `[start, end)` of the words in the first caption that name this box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrase: Option<[usize; 2]>,
    /// COCO's `iscrowd`: the box covers a crowd. Grounding leaves such boxes out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crowd: bool,
}

/// One image with its captions.
#[derive(Debug, Clone, PartialEq)]
pub struct PairRecord {
    /// File name relative to the data set, or another name of the image; never an absolute path.
    pub key: String,
    /// The image.
    pub image: ImageSource,
    /// At least one caption.
    pub captions: Vec<String>,
    /// Boxes, possibly none.
    pub boxes: Vec<BoxAnnotation>,
    /// Width and height of the original image, where known before decoding.
    pub size: Option<(u32, u32)>,
}

/// Which data set to open, in the JSON forms `{ "scenes": … }`, `{ "coco": … }`, `{ "folder": … }`.
///
/// ```
/// use lucid_data::DatasetSpec;
/// let spec: DatasetSpec = serde_json::from_str(r#"{ "folder": "photos" }"#).unwrap();
/// assert_eq!(spec, DatasetSpec::Folder { images: "photos".into(), captions: None });
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "SpecForm", into = "SpecForm")]
pub enum DatasetSpec {
    /// Generated scenes ([`crate::scenes`]).
    Scenes {
        /// How many.
        pairs: usize,
        /// Seed of the generator.
        seed: u64,
        /// Which combinations of shape and colour occur.
        split: Split,
    },
    /// COCO: the official captions JSON, perhaps the instances JSON, and the folder of photos.
    Coco {
        /// Folder of the photos.
        images: PathBuf,
        /// `captions_*.json`.
        captions: PathBuf,
        /// `instances_*.json`, for boxes.
        instances: Option<PathBuf>,
    },
    /// A folder of images with captions in a file or beside each image.
    Folder {
        /// The folder; sub-folders are read too.
        images: PathBuf,
        /// The caption file; where absent it is looked for in the folder.
        captions: Option<PathBuf>,
    },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum SpecForm {
    Scenes(ScenesFields),
    Coco(CocoFields),
    Folder(FolderForm),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScenesFields {
    pairs: usize,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    split: Split,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CocoFields {
    images: PathBuf,
    captions: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instances: Option<PathBuf>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum FolderForm {
    Path(PathBuf),
    Full(FolderFields),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FolderFields {
    images: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    captions: Option<PathBuf>,
}

impl From<SpecForm> for DatasetSpec {
    fn from(form: SpecForm) -> Self {
        match form {
            SpecForm::Scenes(ScenesFields { pairs, seed, split }) => Self::Scenes { pairs, seed, split },
            SpecForm::Coco(CocoFields { images, captions, instances }) => Self::Coco { images, captions, instances },
            SpecForm::Folder(FolderForm::Path(images)) => Self::Folder { images, captions: None },
            SpecForm::Folder(FolderForm::Full(FolderFields { images, captions })) => Self::Folder { images, captions },
        }
    }
}

impl From<DatasetSpec> for SpecForm {
    fn from(spec: DatasetSpec) -> Self {
        match spec {
            DatasetSpec::Scenes { pairs, seed, split } => Self::Scenes(ScenesFields { pairs, seed, split }),
            DatasetSpec::Coco { images, captions, instances } => Self::Coco(CocoFields { images, captions, instances }),
            DatasetSpec::Folder { images, captions: None } => Self::Folder(FolderForm::Path(images)),
            DatasetSpec::Folder { images, captions } => {
                Self::Folder(FolderForm::Full(FolderFields { images, captions }))
            }
        }
    }
}

impl DatasetSpec {
    /// The same with every path cut down to its last component: what goes into files that are passed on,
    /// which must not tell where the data lay on this machine.
    pub fn portable(&self) -> Self {
        let last = |p: &PathBuf| p.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
        match self {
            Self::Scenes { .. } => self.clone(),
            Self::Coco { images, captions, instances } => {
                Self::Coco { images: last(images), captions: last(captions), instances: instances.as_ref().map(last) }
            }
            Self::Folder { images, captions } => {
                Self::Folder { images: last(images), captions: captions.as_ref().map(last) }
            }
        }
    }
}

/// What to do with an image that is missing, unreadable or has no caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnBad {
    /// Stop with a typed error that names it.
    #[default]
    Stop,
    /// Leave it out and list it under [`Dataset::skipped`].
    Skip,
}

/// Something that was left out of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// The image, or `image#annotation`.
    pub key: String,
    /// Stable code of the reason (`E_NO_CAPTION`, `E_IMAGE` …).
    pub code: String,
    /// The reason in words.
    pub reason: String,
}

impl Skipped {
    pub(crate) fn because(key: &str, error: &DataError) -> Self {
        Self { key: key.to_string(), code: error.code().to_string(), reason: error.to_string() }
    }
}

/// Images with captions by position. The order is fixed by the data set's files, never by the file system.
pub trait Dataset: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// True where there is no image at all; an opened data set never is.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The image at position `index`.
    ///
    /// # Errors
    /// `E_SHAPE` where `index` is out of range.
    fn pair(&self, index: usize) -> Result<PairRecord>;

    /// The description of this data set without absolute paths, ready to be kept in a store.
    fn spec(&self) -> DatasetSpec;

    /// What was left out on opening, in the order of the data set.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }
}

/// Opens a data set and stops at the first image that cannot be used.
///
/// # Errors
/// `E_IO`, `E_DATASET`, `E_NO_CAPTION`, `E_IMAGE`, `E_EMPTY`.
pub fn open_dataset(spec: &DatasetSpec) -> Result<Box<dyn Dataset>> {
    open_dataset_with(spec, OnBad::Stop)
}

/// Opens a data set; `on_bad` says what happens with images that cannot be used.
///
/// # Errors
/// `E_IO` and `E_DATASET` for files that cannot be read or understood, `E_EMPTY` where nothing is left, and under
/// [`OnBad::Stop`] `E_NO_CAPTION` and `E_IMAGE` (missing file).
pub fn open_dataset_with(spec: &DatasetSpec, on_bad: OnBad) -> Result<Box<dyn Dataset>> {
    match spec {
        DatasetSpec::Scenes { pairs, seed, split } => Ok(Box::new(Scenes::open(*pairs, *seed, *split)?)),
        DatasetSpec::Coco { images, captions, instances } => {
            Ok(Box::new(Coco::open(images, captions, instances.as_deref(), on_bad)?))
        }
        DatasetSpec::Folder { images, captions } => Ok(Box::new(Folder::open(images, captions.as_deref(), on_bad)?)),
    }
}

/// A path from a data file, refused unless it stays inside its folder: such names come from other people's files.
pub(crate) fn inside(root: &Path, name: &str, what: &dyn std::fmt::Display) -> Result<PathBuf> {
    let path = Path::new(name);
    let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if name.is_empty() || name.contains('\0') || !plain {
        return Err(DataError::dataset(
            what,
            format!("the file name {name:?} leads out of the image folder; expected a relative path without `..`"),
        ));
    }
    Ok(root.join(path))
}
