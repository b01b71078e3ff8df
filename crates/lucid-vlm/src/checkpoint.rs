//! The files of a checkpoint in a folder: which there are, and which of them are used.

use crate::error::VlmError;
use crate::open_clip;
use crate::tokenizer::clip_tokenizer;
use memmap2::Mmap;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path};

/// Weights in one file, by the names that are tried in order.
const WEIGHTS: [&str; 2] = ["model.safetensors", "open_clip_model.safetensors"];
/// The index of weights in several files.
const INDEX: &str = "model.safetensors.index.json";
/// An index longer than this is not believed.
const MAX_JSON: u64 = 64 << 20;

/// What was read of a folder; weights are mapped.
pub(crate) struct Checkpoint {
    /// `config.json` or `open_clip_config.json`.
    pub config: Vec<u8>,
    /// Weight files with their names.
    pub weights: Vec<(String, Mmap)>,
    /// `tokenizer.json`, or what stands for it.
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `preprocessor_config.json`.
    pub preprocessor: Option<Vec<u8>>,
}

fn failed(folder: &Path, name: &str, reason: impl ToString) -> VlmError {
    VlmError::File { file: folder.join(name).display().to_string(), reason: reason.to_string() }
}

/// A small file; `None` where it is absent.
fn optional(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, VlmError> {
    let path = folder.join(name);
    match std::fs::metadata(&path) {
        Ok(meta) if meta.len() > MAX_JSON => Err(failed(folder, name, format!("larger than {MAX_JSON} bytes"))),
        Ok(_) => std::fs::read(&path).map(Some).map_err(|e| failed(folder, name, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(folder, name, e)),
    }
}

fn map(folder: &Path, name: &str) -> Result<Mmap, VlmError> {
    let file = File::open(folder.join(name)).map_err(|e| failed(folder, name, e))?;
    // SAFETY: the map is read-only and the values are copied out of it before the checkpoint is dropped. A file that another
    // process changes meanwhile gives other values or a bus error, as with any mapped weights.
    unsafe { Mmap::map(&file) }.map_err(|e| failed(folder, name, e))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The weight files that an index names, each once.
fn shards(folder: &Path, json: &[u8]) -> Result<Vec<(String, Mmap)>, VlmError> {
    let index: Index = serde_json::from_slice(json).map_err(|e| failed(folder, INDEX, format!("not an index: {e}")))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    if names.is_empty() {
        return Err(failed(folder, INDEX, "it names no file"));
    }
    let plain = |name: &str| Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    if let Some(name) = names.iter().find(|name| name.is_empty() || !plain(name)) {
        return Err(failed(folder, INDEX, format!("the file name {name:?} leads out of the folder")));
    }
    let files = names.into_iter().map(|name| Ok((name.clone(), map(folder, name)?)));
    let files = files.collect::<Result<Vec<_>, VlmError>>()?;
    for (name, bytes) in &files {
        // A file that is no safetensors is reported when it is read.
        let Ok((_, header)) = safetensors::SafeTensors::read_metadata(bytes) else { continue };
        let absent = |tensor: &&String| header.info(tensor).is_none();
        if let Some(tensor) = index.weight_map.iter().filter(|(_, file)| *file == name).map(|(t, _)| t).find(absent) {
            let (found, expected) = ("nothing".into(), format!("a tensor in {name}, as {INDEX} says"));
            return Err(VlmError::Weights { tensor: tensor.clone(), found, expected });
        }
    }
    Ok(files)
}

/// What to say where there are no weights that can be read.
fn no_weights(folder: &Path) -> VlmError {
    let pickle = std::fs::read_dir(folder).into_iter().flatten().flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = Path::new(&name).extension().map(|e| e.to_string_lossy().to_ascii_lowercase())?;
        ["bin", "pt", "pth", "ckpt", "pkl", "npz"].contains(&kind.as_str()).then_some(name)
    });
    match pickle {
        Some(name) => failed(
            folder,
            &name,
            "a pickle, which can run any program when it is opened, so it is not read; convert it once where you trust it: \
             python -c \"from transformers import AutoModel; AutoModel.from_pretrained('FOLDER').save_pretrained('NEW', safe_serialization=True)\"",
        ),
        None => failed(folder, WEIGHTS[0], "no such file"),
    }
}

impl Checkpoint {
    /// Reads the small files of a folder and maps its weights.
    ///
    /// # Errors
    /// `E_BACKBONE` names the file that is missing or cannot be read, `E_TOKENIZER`.
    pub fn read(folder: &Path) -> Result<Self, VlmError> {
        let hugging_face = optional(folder, "config.json")?;
        // timm's repositories keep a config.json of another kind beside open_clip's.
        let describes = |json: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(json).is_ok_and(|v| v.get("model_type").is_some())
        };
        let config = match hugging_face {
            Some(json) if describes(&json) => json,
            other => match optional(folder, open_clip::CONFIG)?.or(other) {
                Some(json) => json,
                None => return Err(failed(folder, "config.json", "no such file")),
            },
        };
        let weights = match WEIGHTS.iter().find(|name| folder.join(name).is_file()) {
            Some(name) => vec![((*name).to_string(), map(folder, name)?)],
            None => match optional(folder, INDEX)? {
                Some(json) => shards(folder, &json)?,
                None => return Err(no_weights(folder)),
            },
        };
        let tokenizer = match optional(folder, "tokenizer.json")? {
            Some(json) => json,
            None => match (optional(folder, "vocab.json")?, optional(folder, "merges.txt")?) {
                (Some(vocab), Some(merges)) => clip_tokenizer(&vocab, &merges)?,
                _ if folder.join("spiece.model").is_file() => {
                    let reason = "no such file; a spiece.model alone is not read. Make one: python -c \"from transformers import \
                                  AutoTokenizer; AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER')\"";
                    return Err(failed(folder, "tokenizer.json", reason));
                }
                _ => return Err(failed(folder, "tokenizer.json", "no such file")),
            },
        };
        Ok(Self {
            config,
            weights,
            tokenizer,
            tokenizer_config: optional(folder, "tokenizer_config.json")?,
            preprocessor: optional(folder, "preprocessor_config.json")?,
        })
    }
}
