//! Extraction of activations behind a job, and backbones by name.

use std::path::PathBuf;

use lucid_data::progress::Observer;
use lucid_data::store::StoreReader;
use lucid_data::{DatasetSpec, ImageSource, OnBad, open_dataset_with};
use lucid_vlm::{Backbone, ExtractOptions, compare_with_source, decode_image};
use napi::Result;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::device;
use crate::error::Failure;
use crate::job::{NativeJob, Outcome, spawn};

/// What to extract; the rest are the fields of [`ExtractOptions`].
#[derive(Deserialize)]
struct Request {
    backbone: String,
    dataset: DatasetSpec,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    threads: Option<usize>,
    /// Seed of random weights in place of the backbone's own.
    #[serde(default)]
    untrained: Option<u64>,
    #[serde(flatten)]
    extract: Map<String, Value>,
}

/// The backbone of a name: the embedded one, that in a folder, or that of the hub, downloaded where it is not in the cache.
pub fn backbone(name: &str, threads: Option<usize>, observer: &dyn Observer) -> std::result::Result<Backbone, Failure> {
    let backbone = lucid_vlm::hub::load(name, observer)?;
    Ok(match threads {
        Some(threads) => backbone.with_threads(threads),
        None => backbone,
    })
}

/// Starts an extraction.
#[napi(catch_unwind)]
pub fn start_extract(options: String) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    device::check(request.device.as_deref())?;
    let extract: ExtractOptions = serde_json::from_value(Value::Object(request.extract)).map_err(Failure::from)?;
    spawn("extract", request.threads, move |shared| {
        let dataset = open_dataset_with(&request.dataset, extract.on_bad)?;
        let mut backbone = backbone(&request.backbone, request.threads, &**shared)?;
        if let Some(seed) = request.untrained {
            backbone = backbone.untrained(seed)?;
        }
        let done = lucid_vlm::extract(&backbone, &*dataset, &extract, &**shared)?;
        Ok(Outcome::from(json!({
            "stores": done.stores,
            "pairs": done.manifest.pairs,
            "resumed": done.resumed,
            "skipped": done.skipped,
            "seconds": done.seconds,
            "imagesPerSecond": done.images_per_second,
            "stages": done.stages,
            "limit": done.stages.limit(),
        })))
    })
}

/// A backbone to look over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    backbone: String,
    #[serde(default)]
    image: Option<PathBuf>,
    #[serde(default)]
    threads: Option<usize>,
}

/// Looks a backbone over: its shape, and a self-test on a built-in picture and text.
#[napi(catch_unwind)]
pub fn start_check_backbone(options: String) -> Result<NativeJob> {
    let request: Checked = serde_json::from_str(&options).map_err(Failure::from)?;
    spawn("check", request.threads, move |shared| {
        let backbone = backbone(&request.backbone, request.threads, &**shared)?;
        let photo = request.image.map(ImageSource::File).map(|file| decode_image(&file)).transpose()?;
        let found = backbone.checkup(photo.as_ref())?;
        let mut result = serde_json::to_value(&found)?;
        result["passed"] = json!(found.passed());
        Ok(Outcome::from(result))
    })
}

/// A store to compare with its source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    activations: PathBuf,
    backbone: String,
    dataset: DatasetSpec,
    sample: usize,
    seed: u64,
    #[serde(default)]
    threads: Option<usize>,
}

/// Extracts some pairs of a store again and compares them with what is stored.
#[napi(catch_unwind)]
pub fn start_compare(options: String) -> Result<NativeJob> {
    let request: Compared = serde_json::from_str(&options).map_err(Failure::from)?;
    spawn("compare", request.threads, move |shared| {
        let store = StoreReader::open(&request.activations)?;
        let dataset = open_dataset_with(&request.dataset, OnBad::Skip)?;
        let backbone = backbone(&request.backbone, request.threads, &**shared)?;
        let chosen = (request.sample, request.seed);
        let found = compare_with_source(&store, &backbone, &*dataset, chosen, &**shared)?;
        Ok(Outcome::from(serde_json::to_value(found)?))
    })
}
