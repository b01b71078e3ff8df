//! Presets and fields, which live in lucid-sae.

use lucid_sae::{Config, Preset};
use napi::Result;
use napi_derive::napi;

use crate::error::Failure;

/// The configuration of a preset with some fields changed, as JSON.
#[napi(catch_unwind)]
pub fn resolve_config(preset: String, fields: String) -> Result<String> {
    let resolve = || -> std::result::Result<String, Failure> {
        let config = Config::resolve(Preset::parse(&preset)?, &serde_json::from_str(&fields)?)?;
        Ok(serde_json::to_string(&config)?)
    };
    Ok(resolve()?)
}
