//! Probing and comparing models behind jobs.

use std::path::PathBuf;
use std::sync::Arc;

use lucid_data::store::{ActivationSource, StoreReader};
use lucid_interpret::{ProbeOptions, Probed, ScenesTruth, TruthSource, probe, stability};
use napi::Result;
use napi_derive::napi;
use serde::Deserialize;

use crate::error::Failure;
use crate::evaluate::scenes_of;
use crate::job::{NativeJob, Outcome, spawn};
use crate::model::NativeModel;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProbeRequest {
    activations: PathBuf,
    fit_on: PathBuf,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    bootstrap: Option<usize>,
    #[serde(default)]
    threads: Option<usize>,
}

/// Starts probing a model.
#[napi(catch_unwind)]
pub fn start_probe(options: String, model: &NativeModel) -> Result<NativeJob> {
    let request: ProbeRequest = serde_json::from_str(&options).map_err(Failure::from)?;
    let model = Arc::clone(&model.model);
    spawn("probe", request.threads, move |shared| {
        let stores = [StoreReader::open(&request.fit_on)?, StoreReader::open(&request.activations)?];
        let truths = stores.each_ref().map(|store| scenes_of(store).map(|spec| ScenesTruth::new(store, &spec)));
        let [fit, test] = [0, 1].map(|at| Probed {
            source: &stores[at],
            truth: truths[at].as_ref().map(|truth| truth as &dyn TruthSource),
        });
        let defaults = ProbeOptions::default();
        let options = ProbeOptions {
            seed: request.seed.unwrap_or(defaults.seed),
            bootstrap: request.bootstrap.unwrap_or(defaults.bootstrap),
        };
        let found = probe(&*model, fit, test, &options, &**shared)?;
        Ok(Outcome::from(serde_json::to_value(found)?))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CompareRequest {
    #[serde(default)]
    activations: Option<PathBuf>,
    #[serde(default)]
    threads: Option<usize>,
}

/// Starts matching the latents of two models.
#[napi(catch_unwind)]
pub fn start_compare_models(options: String, first: &NativeModel, second: &NativeModel) -> Result<NativeJob> {
    let request: CompareRequest = serde_json::from_str(&options).map_err(Failure::from)?;
    let (first, second) = (Arc::clone(&first.model), Arc::clone(&second.model));
    spawn("compareModels", request.threads, move |shared| {
        let store = request.activations.as_deref().map(StoreReader::open).transpose()?;
        let pairs = store.as_ref().map(|store| store as &dyn ActivationSource);
        let found = stability(&*first, &*second, pairs, &**shared)?;
        Ok(Outcome::from(serde_json::to_value(found)?))
    })
}
