//! webdataset: tar shards in which the files of a sample follow each other and share their name up to the first dot.
//!
//! Shards in files are indexed by their headers on opening, and any sample is read on its own. As soon as one shard is an address,
//! all are read from front to back ([`stream`]).

mod group;
mod local;
mod members;
mod remote;
mod stream;

use serde::{Deserialize, Serialize};

use super::patterns::{self, Place, one_or_many};
use super::{DatasetSpec, Source};
use crate::dataset::{Dataset, ImageSource, OnBad, PairRecord};
use crate::error::{DataError, Result};
use group::Sample;

/// Tar shards, here or on a server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct WebdatasetSpec {
    /// Paths with `{000..331}`, `{a,b}`, `*`; folders; addresses `https://`, `http://`, `s3://` with braces.
    pub urls: Vec<String>,
    /// The only field of a sample's JSON that holds the captions; where absent `caption`, `text`, `captions`, then `.txt`, `.caption`.
    pub caption: Option<String>,
    /// The only extension of images, where samples have several (`jpg` beside a mask `png`).
    pub image: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    One(String),
    Many(Vec<String>),
    Full(Fields),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    #[serde(with = "one_or_many")]
    urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caption: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

impl TryFrom<Form> for WebdatasetSpec {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        let spec = match form {
            Form::One(url) => Self { urls: vec![url], ..Self::default() },
            Form::Many(urls) => Self { urls, ..Self::default() },
            Form::Full(Fields { urls, caption, image }) => Self { urls, caption, image },
        };
        if spec.urls.is_empty() { Err("no shard is named".into()) } else { Ok(spec) }
    }
}

impl From<WebdatasetSpec> for Form {
    fn from(WebdatasetSpec { mut urls, caption, image }: WebdatasetSpec) -> Self {
        match (caption, image) {
            (None, None) if urls.len() == 1 => Self::One(urls.remove(0)),
            (None, None) => Self::Many(urls),
            (caption, image) => Self::Full(Fields { urls, caption, image }),
        }
    }
}

impl Source for WebdatasetSpec {
    fn open(&self, on_bad: OnBad) -> Result<Box<dyn Dataset>> {
        let places = patterns::resolve(&self.urls, "tar")?;
        let local = places.iter().map(|p| match p {
            Place::Local(path) => Some(path.clone()),
            Place::Remote(_) => None,
        });
        match local.collect::<Option<Vec<_>>>() {
            Some(shards) => Ok(Box::new(local::Local::open(self, shards, on_bad)?)),
            None => Ok(Box::new(stream::Remote::new(self, places))),
        }
    }

    fn portable(&self) -> Self {
        Self { urls: patterns::portable(&self.urls), ..self.clone() }
    }
}

impl WebdatasetSpec {
    fn spec(&self) -> DatasetSpec {
        DatasetSpec::Webdataset(self.portable())
    }
}

/// The record of a sample whose files are in memory; `shard` is named where something is wrong with it.
fn assemble(sample: Sample<Vec<u8>>, shard: &str, field: Option<&str>) -> Result<PairRecord> {
    if let Some(problem) = sample.problem(shard) {
        return Err(problem);
    }
    let Sample { base, image, texts, .. } = sample;
    let Some((key, bytes)) = image else {
        return Err(DataError::Image { key: base, reason: format!("{shard} has none") });
    };
    let (captions, boxes) = texts.into_texts().read(&key, field)?;
    Ok(PairRecord { key, image: ImageSource::Encoded(bytes), captions, boxes, size: None })
}
