//! Joining and dividing of stores behind a job.

use std::path::PathBuf;

use lucid_data::store::{MergeOptions, SplitOptions, StoreReader, merge_stores_with, split_store};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::json;

use crate::error::Failure;
use crate::job::{NativeJob, Outcome, spawn};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    parts: Vec<PathBuf>,
    out: PathBuf,
    #[serde(default)]
    overwrite: bool,
    #[serde(default)]
    pairs_per_shard: Option<usize>,
}

/// Starts joining stores.
#[napi(catch_unwind)]
pub fn start_merge(options: String) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    spawn("merge", None, move |shared| {
        let options = MergeOptions { overwrite: request.overwrite, pairs_per_shard: request.pairs_per_shard };
        let manifest = merge_stores_with(&request.parts, &request.out, options, &**shared)?;
        Ok(Outcome::from(serde_json::to_value(manifest)?))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SplitRequest {
    activations: PathBuf,
    rest: PathBuf,
    held_out: PathBuf,
    #[serde(default)]
    share: Option<f64>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    overwrite: bool,
}

/// Starts dividing a store.
#[napi(catch_unwind)]
pub fn start_split(options: String) -> Result<NativeJob> {
    let request: SplitRequest = serde_json::from_str(&options).map_err(Failure::from)?;
    spawn("split", None, move |shared| {
        let defaults = SplitOptions::default();
        let options = SplitOptions {
            share: request.share.unwrap_or(defaults.share),
            seed: request.seed.unwrap_or(defaults.seed),
            overwrite: request.overwrite,
        };
        let reader = StoreReader::open(&request.activations)?;
        let (rest, held_out) = split_store(&reader, &request.rest, &request.held_out, options, &**shared)?;
        Ok(Outcome::from(json!({ "rest": rest, "heldOut": held_out })))
    })
}
