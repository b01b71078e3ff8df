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

/// Options of a training, as TypeScript has sorted them.
#[derive(Deserialize)]
struct Request {
    activations: PathBuf,
    #[serde(default)]
    validation: Option<PathBuf>,
    #[serde(flatten)]
    run: RunRequest,
}

/// Options of several trainings on one store.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ManyRequest {
    activations: PathBuf,
    #[serde(default)]
    validation: Option<PathBuf>,
    runs: Vec<RunRequest>,
}

/// What one run decides for itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RunRequest {
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

impl RunRequest {
    fn options(self) -> std::result::Result<TrainOptions, Failure> {
        if self.threads == Some(0) {
            return Err(Failure::option("threads", 0, "at least 1"));
        }
        let device = device::choose(self.device.as_deref())?;
        let preset = Preset::parse(&self.preset)?;
        let defaults = TrainOptions::new(Config::resolve(preset, &Value::Object(self.config))?);
        Ok(TrainOptions {
            preset: Some(preset),
            init: self.init,
            out: self.out,
            resume: self.resume,
            checkpoint_every: self.checkpoint_every.unwrap_or(defaults.checkpoint_every),
            eval_every: self.eval_every,
            device,
            threads: self.threads.unwrap_or(0),
            ..defaults
        })
    }
}

/// The event for TypeScript, and the key under which a newer one replaces it; nothing for the end, which the job tells itself.
fn event_json(event: &TrainEvent) -> Option<(Option<&'static str>, Value)> {
    let key = match event {
        TrainEvent::Done { .. } => return None,
        TrainEvent::Progress { .. } => Some("progress"),
        TrainEvent::Step { .. } => Some("step"),
        TrainEvent::Eval { .. } | TrainEvent::Checkpoint { .. } | TrainEvent::Warning { .. } => None,
    };
    Some((key, serde_json::to_value(event).ok()?))
}

impl TrainObserver for Shared {
    fn event(&self, event: &TrainEvent) {
        if let TrainEvent::Progress { stage, done, total } = event {
            return lucid_data::progress::Observer::progress(self, stage, *done, *total);
        }
        let Some((key, json)) = event_json(event) else { return };
        self.push(key, &json);
    }

    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }
}

/// One of several runs: its events carry its number.
struct Numbered {
    shared: Arc<Shared>,
    run: usize,
}

impl TrainObserver for Numbered {
    fn event(&self, event: &TrainEvent) {
        let Some((key, mut json)) = event_json(event) else { return };
        json["run"] = self.run.into();
        self.shared.push(key.map(|key| format!("{key}:{}", self.run)).as_deref(), &json);
    }

    fn cancelled(&self) -> bool {
        self.shared.is_cancelled()
    }
}

/// Starts a run.
#[napi(catch_unwind)]
pub fn start_train(options: String) -> Result<NativeJob> {
    let Request { activations, validation, run } = serde_json::from_str(&options).map_err(Failure::from)?;
    let options = run.options()?;
    // The trainer makes its own pool of threads.
    spawn("train", None, move |shared| {
        let source = StoreReader::open(&activations)?;
        let validation = validation.as_deref().map(StoreReader::open).transpose()?;
        let validation = validation.as_ref().map(|store| store as &dyn ActivationSource);
        let model = lucid_sae::train(&source, validation, &options, &**shared)?;
        Ok(Outcome { model: Some(NativeModel { model: Arc::new(model) }), ..Outcome::default() })
    })
}

/// Starts several runs on one stream of activations. Every run works to its end; the job then fails with the first failure.
#[napi(catch_unwind)]
pub fn start_train_many(options: String) -> Result<NativeJob> {
    let ManyRequest { activations, validation, runs } = serde_json::from_str(&options).map_err(Failure::from)?;
    let options = runs.into_iter().map(RunRequest::options).collect::<std::result::Result<Vec<_>, _>>()?;
    spawn("train-many", None, move |shared| {
        let source = StoreReader::open(&activations)?;
        let validation = validation.as_deref().map(StoreReader::open).transpose()?;
        let validation = validation.as_ref().map(|store| store as &dyn ActivationSource);
        let numbered: Vec<Numbered> =
            (0..options.len()).map(|run| Numbered { shared: Arc::clone(shared), run }).collect();
        let observers: Vec<&dyn TrainObserver> = numbered.iter().map(|observer| observer as _).collect();
        let results = lucid_sae::train_together(&source, validation, &options, &observers)?;
        for result in results {
            result?;
        }
        Ok(Outcome::default())
    })
}
