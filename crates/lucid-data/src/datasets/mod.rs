//! The data sets that can be opened, one file each, and the table of them.

pub(crate) mod captions;
pub(crate) mod cc3m;
pub(crate) mod coco;
pub(crate) mod flickr;
pub(crate) mod folder;
pub(crate) mod parquet;
pub(crate) mod patterns;
pub(crate) mod records;
pub(crate) mod sample;
pub(crate) mod scenes;
pub(crate) mod shapeworld;
mod table;
pub(crate) mod webdataset;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dataset::{Dataset, OnBad};
use crate::error::{DataError, Result};

/// What a kind of data set has to offer: its options in JSON, how it is opened, and its options without this machine's paths.
pub(crate) trait Source: Sized + Serialize + DeserializeOwned {
    /// Opens it. What is known to be bad on opening is dealt with as `on_bad` says.
    fn open(&self, on_bad: OnBad) -> Result<Box<dyn Dataset>>;

    /// The same with every path cut down to its last component.
    fn portable(&self) -> Self;

    /// Makes one object of its options and those that stand beside its name, as in `{ "parquet": "*.parquet", "caption": "text" }`.
    /// Most kinds have none beside, so their presence is an unknown field.
    fn gather(value: Value, mut beside: Map<String, Value>) -> Value {
        if beside.is_empty() {
            return value;
        }
        if let Value::Object(fields) = value {
            beside.extend(fields);
        }
        Value::Object(beside)
    }

    /// The form that [`Source::gather`] understands, under its name.
    fn form(&self, name: &str) -> serde_json::Result<Value> {
        Ok(Value::Object(Map::from_iter([(name.to_string(), serde_json::to_value(self)?)])))
    }
}

/// Writes down [`DatasetSpec`] and what is done by kind. A new reader is one file and one line in the table below.
macro_rules! table {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($spec:ty),)*) => {
        /// Which data set to open. In JSON an object with the name of the kind: `{ "scenes": … }`, `{ "coco": … }`, `{ "folder": … }`;
        /// `docs/data.md` lists them all.
        ///
        /// ```
        /// use lucid_data::{DatasetSpec, FolderSpec};
        /// let spec: DatasetSpec = serde_json::from_str(r#"{ "folder": "photos" }"#).unwrap();
        /// assert_eq!(spec, DatasetSpec::Folder(FolderSpec { images: "photos".into(), captions: None, uncaptioned: false }));
        /// ```
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "Value", into = "Value")]
        pub enum DatasetSpec { $($(#[$doc])* $variant($spec),)* }

        const NAMES: &[&str] = &[$($name),*];

        fn read(name: &str, value: Value, beside: Map<String, Value>) -> Result<DatasetSpec, String> {
            match name {
                $($name => serde_json::from_value(<$spec>::gather(value, beside)).map(DatasetSpec::$variant),)*
                _ => return Err(unknown(name)),
            }
            .map_err(|e| format!("data set {name:?}: {e}"))
        }

        impl From<DatasetSpec> for Value {
            fn from(spec: DatasetSpec) -> Self {
                // Nothing in these options can fail to become JSON, save a path that is not UTF-8.
                match &spec { $(DatasetSpec::$variant(spec) => spec.form($name),)* }.unwrap_or(Value::Null)
            }
        }

        impl DatasetSpec {
            /// The same with every path cut down to its last component: what goes into files that are passed on,
            /// which must not tell where the data lay on this machine.
            pub fn portable(&self) -> Self {
                match self { $(Self::$variant(spec) => Self::$variant(spec.portable()),)* }
            }

            pub(crate) fn open(&self, on_bad: OnBad) -> Result<Box<dyn Dataset>> {
                match self { $(Self::$variant(spec) => spec.open(on_bad),)* }
            }
        }
    };
}

table! {
    /// Generated scenes ([`crate::scenes`]).
    "scenes" => Scenes(scenes::ScenesSpec),
    /// COCO in its official JSON files.
    "coco" => Coco(coco::CocoSpec),
    /// A folder of images with captions in a file or beside each image.
    "folder" => Folder(folder::FolderSpec),
    /// Tar shards, here or on a server.
    "webdataset" => Webdataset(webdataset::WebdatasetSpec),
    /// Parquet files with the images inside, as Hugging Face writes them.
    "parquet" => Parquet(parquet::ParquetSpec),
    /// Flickr8k, Flickr30k, and whatever comes with Karpathy's JSON.
    "flickr" => Flickr(flickr::FlickrSpec),
    /// Pictures that img2dataset has downloaded, CC3M for one.
    "cc3m" => Cc3m(cc3m::Cc3mSpec),
}

fn unknown(name: &str) -> String {
    format!("unknown data set {name:?}; expected one of {}", NAMES.join(", "))
}

impl TryFrom<Value> for DatasetSpec {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            return Err(format!("a data set is an object with one of the keys {}", NAMES.join(", ")));
        };
        let name = NAMES.iter().find(|n| fields.contains_key(**n)).copied();
        let Some((name, value)) = name.and_then(|n| Some((n, fields.remove(n)?))) else {
            return Err(unknown(fields.keys().next().map_or("", String::as_str)));
        };
        read(name, value, fields)
    }
}

/// The last component of a path, for [`Source::portable`].
fn last(path: &Path) -> PathBuf {
    path.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// The record at `index`, or the error every data set gives out of range.
fn at<T>(records: &[T], index: usize) -> Result<&T> {
    records.get(index).ok_or_else(|| out_of_range(index, records.len()))
}

fn out_of_range(index: usize, len: usize) -> DataError {
    DataError::shape("position in the data set", index, format!("below {len}"))
}
