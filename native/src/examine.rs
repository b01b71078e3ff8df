//! The examination of a backbone on generated scenes, behind a job.

use lucid_vlm::ExamineOptions;
use napi::Result;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Failure;
use crate::extract::backbone;
use crate::job::{NativeJob, Outcome, spawn};

/// What to examine; the rest are the fields of [`ExamineOptions`].
#[derive(Deserialize)]
struct Request {
    backbone: String,
    #[serde(default)]
    threads: Option<usize>,
    #[serde(flatten)]
    examine: Map<String, Value>,
}

/// Starts an examination. The result is the crate's own, with its tables as `markdown`.
#[napi(catch_unwind)]
pub fn start_examine_backbone(options: String) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    let examine: ExamineOptions = serde_json::from_value(Value::Object(request.examine)).map_err(Failure::from)?;
    spawn("examine", request.threads, move |shared| {
        let backbone = backbone(&request.backbone, request.threads, &**shared)?;
        let found = lucid_vlm::examine(&backbone, &examine, &**shared)?;
        let mut result = serde_json::to_value(&found)?;
        result["markdown"] = json!(found.to_string());
        Ok(Outcome::from(result))
    })
}
