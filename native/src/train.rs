//! Training behind a job.

use std::path::PathBuf;
use std::sync::Arc;

use lucid_data::store::{ActivationSource, StoreReader};
use lucid_sae::{Config, Preset, TrainEvent, TrainObserver, TrainOptions};
use napi::Result;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::device;
use crate::error::Failure;
use crate::job::{NativeJob, Outcome, Shared, spawn};
use crate::model::NativeModel;

/// Options of a run, as TypeScript has sorted them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    activations: PathBuf,
    #[serde(default)]
    validation: Option<PathBuf>,
    preset: String,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    init: Option<PathBuf>,
    #[serde(default)]
    out: Option<PathBuf>,
    #[serde(default)]
    resume: bool,
    #[serde(default)]
    checkpoint_every: Option<usize>,
    #[serde(default)]
    eval_every: usize,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    threads: Option<usize>,
}

impl TrainObserver for Shared {
    fn event(&self, event: &TrainEvent) {
        let key = match event {
            // The job itself says when it is done.
            TrainEvent::Done { .. } => return,
            TrainEvent::Progress { stage, done, total } => {
                return lucid_data::progress::Observer::progress(self, stage, *done, *total);
            }
            TrainEvent::Step { .. } => Some("step"),
            TrainEvent::Eval { .. } | TrainEvent::Checkpoint { .. } | TrainEvent::Warning { .. } => None,
        };
        let Ok(json) = serde_json::to_value(event) else { return };
        self.push(key, &json);
    }

    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }
}

/// Starts a run.
#[napi(catch_unwind)]
pub fn start_train(options: String) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    let device = device::choose(request.device.as_deref())?;
    if request.threads == Some(0) {
        return Err(Failure::option("threads", 0, "at least 1").into());
    }
    // The trainer makes its own pool of threads.
    spawn("train", None, move |shared| {
        let preset = Preset::parse(&request.preset)?;
        let defaults = TrainOptions::new(Config::resolve(preset, &Value::Object(request.config))?);
        let source = StoreReader::open(&request.activations)?;
        let validation = request.validation.as_deref().map(StoreReader::open).transpose()?;
        let options = TrainOptions {
            preset: Some(preset),
            init: request.init,
            out: request.out,
            resume: request.resume,
            checkpoint_every: request.checkpoint_every.unwrap_or(defaults.checkpoint_every),
            eval_every: request.eval_every,
            device,
            threads: request.threads.unwrap_or(0),
            ..defaults
        };
        let validation = validation.as_ref().map(|store| store as &dyn ActivationSource);
        let model = lucid_sae::train(&source, validation, &options, &**shared)?;
        Ok(Outcome { model: Some(NativeModel { model: Arc::new(model) }), ..Outcome::default() })
    })
}
