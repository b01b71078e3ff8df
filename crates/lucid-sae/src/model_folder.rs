//! The model folder: `config.json` and `model.safetensors` (docs/formats.md).
//!
//! `config.json` is written last and holds the length and hash of the weights, so a folder that has it is whole; a
//! reader that finds another hash refuses the folder.

use std::fs;
use std::io;
use std::path::Path;

use lucid_data::store::PerModality;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::error::SaeError;
use crate::files::{FileDigest, FileSystem, publish_file, publish_folder, read_file, read_verified, write_file};
use crate::model::{Model, Provenance};
use crate::normalisation::{Normalisation, Variances};
use crate::tensors::TensorFile;
use crate::weights;

/// `format` of a model's config.json.
pub const FORMAT: &str = "lucid-sae-model";
/// Newest version this crate writes and reads.
pub const FORMAT_VERSION: u64 = 1;
/// Name of the description.
pub const CONFIG: &str = "config.json";
/// Name of the weights.
pub const WEIGHTS: &str = "model.safetensors";

/// Largest config.json that is read.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Fields of the configuration that came after the first version of the format.
const LATER: [&str; 3] = ["method", "activation", "nested"];

/// What config.json holds beside the fields of the configuration, which stand at the same level.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    format_version: u64,
    preset: Option<String>,
    d_vision: usize,
    d_text: usize,
    versions: Versions,
    store: Store,
    training: Training,
    normalisation: NormalisationNote,
    #[serde(flatten)]
    variances: Variances,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thresholds: Option<PerModality<f32>>,
    weights: FileDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    lucid_sae: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    fingerprint: String,
    pairs: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Training {
    steps: usize,
}

/// Says how to use the tensors `*.mean` and `*.scale`; these hold the numbers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NormalisationNote {
    formula: String,
    vision: Scale,
    text: Scale,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scale {
    scale: f32,
}

/// Publishes `model` at `path`: a folder by rename, which replaces a model folder; in a folder that holds more (a run's),
/// file by file.
pub fn save(files: &dyn FileSystem, model: &Model, path: &Path) -> Result<(), SaeError> {
    let fill = |out: &mut dyn io::Write| weights::write_host(out, &model.params, &model.normalisation);
    if !path.exists() || holds_a_model_only(path)? {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            files.create_dir_all(parent).map_err(|error| SaeError::io("create", parent, error))?;
        }
        return publish_folder(files, path, |folder| {
            let digest = write_file(files, &folder.join(WEIGHTS), fill)?;
            let text = describe(model, digest)?;
            write_file(files, &folder.join(CONFIG), |out| out.write_all(text.as_bytes())).map(drop)
        });
    }
    let config = path.join(CONFIG);
    if config.exists() {
        // Without its description a folder is no model: the pair is never seen half replaced.
        fs::remove_file(&config).map_err(|error| SaeError::io("replace", &config, error))?;
    }
    let digest = publish_file(files, &path.join(WEIGHTS), fill)?;
    let text = describe(model, digest)?;
    publish_file(files, &config, |out| out.write_all(text.as_bytes())).map(drop)
}

/// Whether nothing in the folder would be lost if a model folder took its place.
fn holds_a_model_only(path: &Path) -> Result<bool, SaeError> {
    let entries = fs::read_dir(path).map_err(|error| SaeError::io("read", path, error))?;
    for entry in entries {
        let name = entry.map_err(|error| SaeError::io("read", path, error))?.file_name();
        if name != CONFIG && name != WEIGHTS {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The text of config.json.
fn describe(model: &Model, weights: FileDigest) -> Result<String, SaeError> {
    let provenance = &model.provenance;
    let n = &model.normalisation;
    let header = Header {
        format: FORMAT.into(),
        format_version: FORMAT_VERSION,
        preset: provenance.preset.clone(),
        d_vision: model.params.vision.d,
        d_text: model.params.text.d,
        versions: Versions { lucid_sae: provenance.version.clone() },
        store: Store {
            fingerprint: provenance.store.clone(),
            pairs: provenance.pairs,
            origin: provenance.origin.clone(),
        },
        training: Training { steps: provenance.steps },
        normalisation: NormalisationNote {
            formula: "(h - mean) * scale".into(),
            vision: Scale { scale: n.vision.scale },
            text: Scale { scale: n.text.scale },
        },
        variances: model.variances,
        thresholds: model.thresholds,
        weights,
    };
    let internal = |error: serde_json::Error| SaeError::internal(error.to_string());
    let mut fields = config_fields(&model.config)?;
    let Value::Object(header) = serde_json::to_value(&header).map_err(internal)? else {
        return Err(SaeError::internal("a header did not serialise to an object"));
    };
    fields.extend(header);
    let mut text = serde_json::to_string_pretty(&Value::Object(fields)).map_err(internal)?;
    text.push('\n');
    Ok(text)
}

fn config_fields(config: &Config) -> Result<Map<String, Value>, SaeError> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(SaeError::internal("a configuration did not serialise to an object")),
    }
}

/// Refuses a JSON document of another format or of a newer version.
pub(crate) fn check_format(path: &Path, document: &Value, format: &str, newest: u64) -> Result<(), SaeError> {
    if document.get("format").and_then(Value::as_str) != Some(format) {
        return Err(SaeError::damaged(path, format!("it does not say \"format\": \"{format}\"")));
    }
    match document.get("formatVersion").and_then(Value::as_u64) {
        Some(found) if found > newest => Err(SaeError::Version { path: path.to_owned(), found, expected: newest }),
        Some(found) if found >= 1 => Ok(()),
        _ => Err(SaeError::damaged(path, "it has no formatVersion")),
    }
}

/// Reads and checks the model folder `path`.
pub fn load(path: &Path) -> Result<Model, SaeError> {
    let config_path = path.join(CONFIG);
    if !config_path.exists() {
        let unfinished = path.join("checkpoints").is_dir();
        let reason =
            if unfinished { "it holds an unfinished run: continue it with resume" } else { "it has no config.json" };
        return Err(SaeError::NotAModel { path: path.to_owned(), reason: reason.into() });
    }
    let text = read_file(&config_path, CONFIG_LIMIT)?;
    let document: Value = serde_json::from_slice(&text)
        .map_err(|error| SaeError::damaged(&config_path, format!("it is not JSON: {error}")))?;
    check_format(&config_path, &document, FORMAT, FORMAT_VERSION)?;
    let wrong = |error: serde_json::Error| SaeError::damaged(&config_path, error.to_string());
    let Value::Object(mut fields) = document else {
        return Err(SaeError::damaged(&config_path, "it is not an object"));
    };
    let mut config = Map::new();
    for name in config_fields(&Config::default())?.keys() {
        match fields.remove(name) {
            Some(value) => drop(config.insert(name.clone(), value)),
            // Models of older versions do not have these; they take their defaults.
            None if LATER.contains(&name.as_str()) => {}
            None => return Err(SaeError::damaged(&config_path, format!("'{name}' is missing"))),
        }
    }
    let config: Config = serde_json::from_value(Value::Object(config)).map_err(wrong)?;
    config.validate()?;
    let header: Header = serde_json::from_value(Value::Object(fields)).map_err(wrong)?;

    let weights_path = path.join(WEIGHTS);
    let bytes = read_verified(&weights_path, &header.weights)?;
    let file = TensorFile::parse(&weights_path, &bytes)?;
    let (d_vision, d_text) = (header.d_vision, header.d_text);
    let params = weights::read_params(&file, &weights_path, d_vision, d_text, config.latents(), "")?;
    let normalisation = weights::read_normalisation(&file, &weights_path, d_vision, d_text)?
        .unwrap_or_else(|| Normalisation::identity(d_vision, d_text));
    let provenance = Provenance {
        preset: header.preset,
        store: header.store.fingerprint,
        pairs: header.store.pairs,
        origin: header.store.origin,
        steps: header.training.steps,
        version: header.versions.lucid_sae,
    };
    let model = Model::new(config, params, normalisation, header.variances, provenance)?;
    model.with_thresholds(header.thresholds)
}
