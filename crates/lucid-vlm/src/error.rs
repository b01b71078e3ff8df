//! The errors of this crate, each with a stable code.

use lucid_data::DataError;
use serde_json::{Value, json};

/// Everything that can go wrong between a backbone folder, a picture or a caption and its activations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VlmError {
    /// A file of the backbone could not be read.
    #[error("{file}: {reason}")]
    File {
        /// Path as given.
        file: String,
        /// What the operating system or the parser said.
        reason: String,
    },
    /// A name that leads to no backbone that can be used.
    #[error("backbone {name:?}: {found}; expected {expected}")]
    Name {
        /// Name as given.
        name: String,
        /// What was found under it.
        found: String,
        /// What would have been accepted.
        expected: String,
        /// What to do.
        fix: String,
    },
    /// A download that did not work, or brought something else than what was asked for.
    #[error("download of {what}: {found}; expected {expected}")]
    Download {
        /// File and repository, or address.
        what: String,
        /// What came.
        found: String,
        /// What should have come.
        expected: String,
        /// What to do.
        fix: String,
    },
    /// A value in `config.json` or `preprocessor_config.json` that cannot be used.
    #[error("{file}: `{field}` is {found}, expected {expected}")]
    Config {
        /// File that holds the value.
        file: String,
        /// Dotted path of the field.
        field: String,
        /// Value found.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A tensor is missing, unknown, of another shape or type, or not finite.
    #[error("tensor `{tensor}`: found {found}, expected {expected}")]
    Weights {
        /// Name in `model.safetensors`.
        tensor: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// No hook point has this name.
    #[error("hook `{found}` does not exist; nearest: {}", nearest.join(", "))]
    Hook {
        /// Name asked for.
        found: String,
        /// Valid names, nearest first.
        nearest: Vec<String>,
    },
    /// A picture could not be read or is outside the limits.
    #[error("image {file}: {reason}")]
    Image {
        /// File name, or the pair's key where the picture came from memory.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `tokenizer.json` cannot be used with this backbone.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A caption without any token of its own.
    #[error("caption {found:?} has no token after canonicalisation; expected at least one word")]
    EmptyText {
        /// The caption as given.
        found: String,
    },
    /// An argument outside its range.
    #[error("`{option}` is {found}, expected {expected}")]
    Argument {
        /// Name of the option.
        option: String,
        /// Value found.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// Something from the data set or the activation store.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A tensor operation failed.
    #[error("compute: {0}")]
    Compute(#[from] candle_core::Error),
}

impl VlmError {
    /// The stable code, `E_…`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::Name { .. } => "E_BACKBONE",
            Self::Download { .. } => "E_DOWNLOAD",
            Self::Config { .. } => "E_BACKBONE_CONFIG",
            Self::Weights { .. } => "E_BACKBONE_WEIGHTS",
            Self::Hook { .. } => "E_HOOK",
            Self::Image { .. } => "E_IMAGE",
            Self::Tokenizer(_) => "E_TOKENIZER",
            Self::EmptyText { .. } => "E_EMPTY_TEXT",
            Self::Argument { .. } => "E_OPTION",
            Self::Data(error) => error.code(),
            Self::Compute(_) => "E_COMPUTE",
        }
    }

    /// What the user can do about it, where there is one thing to say.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File { .. } => "a backbone folder holds config.json, model.safetensors, tokenizer.json and \
                 preprocessor_config.json as Hugging Face saves them"
                .into(),
            Self::Name { fix, .. } | Self::Download { fix, .. } => fix.clone(),
            Self::Weights { .. } => "config.json and model.safetensors must come from the same model".into(),
            Self::Hook { nearest, .. } => format!("use one of: {}", nearest.join(", ")),
            Self::Image { .. } => "replace the picture, or let extraction skip bad pairs (`onBad: \"skip\"`)".into(),
            Self::EmptyText { .. } => {
                "give the picture a caption with words, or let extraction skip bad pairs (`onBad: \"skip\"`)".into()
            }
            Self::Data(error) => return error.hint(),
            _ => return None,
        })
    }

    /// `{ option | file | tensor, found, expected }` for programs.
    pub fn details(&self) -> Value {
        match self {
            Self::File { file, reason } | Self::Image { file, reason } => {
                json!({ "file": file, "found": reason })
            }
            Self::Name { name, found, expected, .. } => {
                json!({ "option": "backbone", "name": name, "found": found, "expected": expected })
            }
            Self::Download { what, found, expected, .. } => {
                json!({ "what": what, "found": found, "expected": expected })
            }
            Self::Config { file, field, found, expected } => {
                json!({ "file": file, "field": field, "found": found, "expected": expected })
            }
            Self::Weights { tensor, found, expected } => {
                json!({ "tensor": tensor, "found": found, "expected": expected })
            }
            Self::Hook { found, nearest } => {
                json!({ "option": "layers", "found": found, "expected": nearest })
            }
            Self::EmptyText { found } => {
                json!({ "option": "caption", "found": found, "expected": "at least one token" })
            }
            Self::Argument { option, found, expected } => {
                json!({ "option": option, "found": found, "expected": expected })
            }
            Self::Tokenizer(found) => json!({ "file": "tokenizer.json", "found": found }),
            Self::Data(error) => error.details(),
            Self::Compute(_) => json!({}),
        }
    }
}
