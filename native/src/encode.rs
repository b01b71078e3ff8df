//! States of single texts and pictures behind a job: for questions asked of a trained model.

use std::path::PathBuf;

use lucid_data::ImageSource;
use lucid_data::progress::Observer;
use lucid_data::store::KIND_CONTENT;
use lucid_vlm::{Backbone, check_backbone, decode_image_within};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Failure;
use crate::extract::backbone;
use crate::job::{NativeJob, Outcome, spawn};

/// Most pixels of a picture that is asked about: a phone's photo several times over.
const MAX_PIXELS: u64 = 100_000_000;

/// The backbone, which must be the one `recorded` with the store where the store names one.
fn known(name: &str, recorded: Option<&Value>, observer: &dyn Observer) -> std::result::Result<Backbone, Failure> {
    let backbone = backbone(name, None, observer)?;
    if let Some(recorded) = recorded.filter(|recorded| !recorded.is_null()) {
        check_backbone(recorded, &backbone)?;
    }
    Ok(backbone)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TextRequest {
    backbone: String,
    #[serde(default)]
    recorded: Option<Value>,
    text: String,
    hook: String,
    keep_eos: bool,
}

/// Encodes a text: the result tells its tokens, and `takeStates` gives [tokens · width].
#[napi(catch_unwind)]
pub fn start_encode_text(options: String) -> Result<NativeJob> {
    let request: TextRequest = serde_json::from_str(&options).map_err(Failure::from)?;
    spawn("encode-text", None, move |shared| {
        let backbone = known(&request.backbone, request.recorded.as_ref(), &**shared)?;
        let found = backbone.encode_texts(&[&request.text], &request.hook)?;
        let kept: Vec<usize> =
            (0..found.kinds.len()).filter(|&t| request.keep_eos || found.kinds[t] == KIND_CONTENT).collect();
        let words: Vec<&str> = kept
            .iter()
            .map(|&token| {
                let [start, end] = found.spans[token].map(|at| at as usize);
                request.text.get(start..end).unwrap_or("")
            })
            .collect();
        let states = kept.iter().flat_map(|&t| found.states[t * found.dim..(t + 1) * found.dim].iter().copied());
        Ok(Outcome { states: Some(states.collect()), ..Outcome::from(json!({ "tokens": words, "dim": found.dim })) })
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ImageRequest {
    backbone: String,
    #[serde(default)]
    recorded: Option<Value>,
    hook: String,
    #[serde(default)]
    file: Option<PathBuf>,
}

/// Encodes a picture, given as a file or as its bytes: the result tells grid and size, and `takeStates` gives [patches · width].
#[napi(catch_unwind)]
pub fn start_encode_image(options: String, bytes: Option<Uint8Array>) -> Result<NativeJob> {
    let request: ImageRequest = serde_json::from_str(&options).map_err(Failure::from)?;
    let source = match (request.file, bytes) {
        (Some(file), None) => ImageSource::File(file),
        (None, Some(bytes)) => ImageSource::Encoded(bytes.to_vec()),
        _ => return Err(Failure::option("image", "neither or both", "a file or the bytes of one").into()),
    };
    spawn("encode-image", None, move |shared| {
        let backbone = known(&request.backbone, request.recorded.as_ref(), &**shared)?;
        let picture = decode_image_within(&source, MAX_PIXELS)?;
        let size = [picture.width(), picture.height()];
        let found = backbone.encode_images(&[picture], &request.hook)?;
        let result = json!({ "grid": found.grids[0], "size": size, "dim": found.dim });
        Ok(Outcome { states: Some(found.states), ..Outcome::from(result) })
    })
}
