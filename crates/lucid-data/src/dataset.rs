//! What a data set is: images, each with its captions and perhaps boxes, by position.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::datasets::DatasetSpec;
use crate::error::{DataError, Result};
use crate::mask::PixelMask;

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
    /// What the box encloses, pixel by pixel, of the size of the image; where the source knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<PixelMask>,
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

/// Images with captions in an order that is fixed by the data set's files, never by the file system.
///
/// Most data sets know all their records on opening and give any of them at once ([`Dataset::pair`]). Shards on a server are read
/// from front to back ([`Dataset::stream`]); their number is not known before all have been read, and [`Dataset::pair`] has to read up
/// to the record. A consumer that goes through a data set uses `stream`, which serves both.
pub trait Dataset: Send + Sync {
    /// Number of records; where [`Dataset::count`] is not known, of those met so far.
    fn len(&self) -> usize;

    /// Number of records, `None` where it is not known before all have been read.
    fn count(&self) -> Option<usize> {
        Some(self.len())
    }

    /// True where there is no record at all; an opened data set never is.
    fn is_empty(&self) -> bool {
        self.count() == Some(0)
    }

    /// The record at position `index`.
    ///
    /// # Errors
    /// `E_SHAPE` where `index` is out of range. `E_IMAGE`, `E_NO_CAPTION` or `E_DATASET` where this record is bad, which some readers find
    /// out only now ([`DataError::record`] names it); the records after it keep their positions. `E_IO`.
    fn pair(&self, index: usize) -> Result<PairRecord>;

    /// The records from position `from` on. A bad record is an item of its own, for which [`DataError::record`] is `Some`, and the
    /// next item is the record after it; after any other error nothing follows.
    fn stream(&self, from: usize) -> Box<dyn Iterator<Item = Result<PairRecord>> + Send + '_> {
        let mut failed = false;
        Box::new((from..self.len()).map_while(move |i| {
            let item = (!failed).then(|| self.pair(i))?;
            failed = item.as_ref().is_err_and(|e| e.record().is_none());
            Some(item)
        }))
    }

    /// What reading has taught about the data set (how many records a shard has), to be handed to [`Dataset::recall`] after an
    /// interruption so that `stream` starts at a shard instead of reading all earlier ones. `null` where there is nothing to know.
    fn learnt(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes what [`Dataset::learnt`] gave earlier; `null` changes nothing.
    ///
    /// # Errors
    /// `E_DATASET` where it was learnt of other shards.
    fn recall(&self, _learnt: &serde_json::Value) -> Result<()> {
        Ok(())
    }

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
    spec.open(on_bad)
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
