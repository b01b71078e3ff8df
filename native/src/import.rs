//! Import of own activations behind a job.

use std::path::PathBuf;

use lucid_data::import::{Activations, ImportOptions, Lengths, import_activations};
use lucid_data::store::Precision;
use napi::bindgen_prelude::*;
use napi_derive::napi;
use serde::Deserialize;

use crate::error::Failure;
use crate::job::{NativeJob, Outcome, spawn};

/// A file, perhaps with the name of a tensor, or the shape of an array that comes beside the options.
#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    File {
        file: PathBuf,
        #[serde(default)]
        tensor: Option<String>,
    },
    Array {
        shape: Vec<usize>,
    },
}

/// Numbers of tokens.
#[derive(Deserialize)]
#[serde(untagged)]
enum LengthsSource {
    File { file: PathBuf },
    Values { values: Vec<u64> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    vision: Source,
    text: Source,
    #[serde(default)]
    text_lengths: Option<LengthsSource>,
    #[serde(default)]
    vision_lengths: Option<LengthsSource>,
    #[serde(default)]
    d_vision: Option<usize>,
    #[serde(default)]
    d_text: Option<usize>,
    #[serde(default)]
    vision_grid: Option<[u32; 2]>,
    #[serde(default)]
    images: Option<Vec<String>>,
    #[serde(default)]
    captions: Option<Vec<String>>,
    out: PathBuf,
    #[serde(default)]
    precision: Option<Precision>,
    #[serde(default)]
    pairs_per_shard: Option<usize>,
    #[serde(default)]
    overwrite: bool,
}

fn activations<'a>(
    option: &str,
    source: Source,
    data: Option<&'a [f32]>,
) -> std::result::Result<Activations<'a>, Failure> {
    match (source, data) {
        (Source::Array { shape }, Some(data)) => Ok(Activations::F32 { data, shape }),
        (Source::Array { .. }, None) => Err(Failure::option(option, "a shape without numbers", "numbers or a file")),
        (Source::File { file, tensor: None }, _) => Ok(Activations::File(file)),
        (Source::File { file, tensor: Some(name) }, _) => Ok(Activations::Tensor { file, name }),
    }
}

fn lengths(source: LengthsSource) -> Lengths {
    match source {
        LengthsSource::File { file } => Lengths::File(file),
        LengthsSource::Values { values } => Lengths::Values(values),
    }
}

/// Starts an import. Arrays are copied first, because JavaScript may write to them while the job runs.
#[napi(catch_unwind)]
pub fn start_import(options: String, vision: Option<Float32Array>, text: Option<Float32Array>) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    let (vision, text) = (vision.map(|array| array.to_vec()), text.map(|array| array.to_vec()));
    spawn("import", None, move |shared| {
        let vision = activations("vision", request.vision, vision.as_deref())?;
        let text = activations("text", request.text, text.as_deref())?;
        let defaults = ImportOptions::new(vision, text);
        let options = ImportOptions {
            vision_lengths: request.vision_lengths.map(lengths),
            text_lengths: request.text_lengths.map(lengths),
            d_vision: request.d_vision,
            d_text: request.d_text,
            vision_grid: request.vision_grid,
            images: request.images,
            captions: request.captions,
            precision: request.precision.unwrap_or(Precision::F32),
            pairs_per_shard: request.pairs_per_shard.unwrap_or(defaults.pairs_per_shard),
            overwrite: request.overwrite,
            ..defaults
        };
        let manifest = import_activations(options, &request.out, &**shared)?;
        Ok(Outcome::from(serde_json::to_value(manifest)?))
    })
}
