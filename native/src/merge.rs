//! Joining of stores behind a job.

use std::path::PathBuf;

use lucid_data::store::{MergeOptions, merge_stores_with};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use serde::Deserialize;

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
