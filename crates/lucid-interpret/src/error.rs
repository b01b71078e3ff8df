//! Everything that can go wrong in this crate, each with a stable code, the value found and the fix.

use std::path::{Path, PathBuf};

use lucid_data::DataError;
use lucid_sae::SaeError;
use serde_json::{Value, json};
use thiserror::Error;

/// Short for a result of this crate.
pub type Result<T, E = InterpretError> = std::result::Result<T, E>;

/// An error of the metrics, of Algorithm 1 or of an atlas on disk.
#[derive(Debug, Error)]
pub enum InterpretError {
    /// A name that does not exist.
    #[error("unknown {kind} '{found}'{}", suggestion.as_ref().map(|name| format!(": did you mean '{name}'?")).unwrap_or_default())]
    Unknown {
        /// What was looked up, e.g. `target`.
        kind: &'static str,
        /// The name given.
        found: String,
        /// The nearest known name.
        suggestion: Option<String>,
        /// Known names; cut to the first twenty.
        known: Vec<String>,
    },
    /// An option whose value is out of range.
    #[error("option '{option}' is {found}; expected {expected}")]
    Option {
        /// Name of the option.
        option: String,
        /// Value given.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// Arrays or artefacts whose shapes do not fit together.
    #[error("{what} is {found}; expected {expected}")]
    Shape {
        /// The array or artefact.
        what: String,
        /// Shape found.
        found: String,
        /// Shape expected.
        expected: String,
    },
    /// A NaN or infinity where a metric needs a finite number.
    #[error("{what} of pair '{pair}' is not finite")]
    NonFinite {
        /// What was computed, e.g. `vision reconstruction`.
        what: String,
        /// Key of the pair.
        pair: String,
    },
    /// Something asked for is not part of the atlas.
    #[error("{what} is not in the atlas: {reason}")]
    NotInAtlas {
        /// E.g. `the heat map of latent 3 on image 17`.
        what: String,
        /// Why, or what is.
        reason: String,
    },
    /// A damaged or incomplete atlas folder.
    #[error("the atlas file {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// An atlas of a newer version.
    #[error("{} has format version {found}; this version reads up to {expected}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u64,
        /// Newest version understood.
        expected: u64,
    },
    /// Something that is not an atlas stands where one is to be written or read.
    #[error("{} {reason}", path.display())]
    NotAnAtlas {
        /// The path.
        path: PathBuf,
        /// What was found there.
        reason: String,
    },
    /// An operating-system error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, e.g. `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The work was asked to stop; nothing was published.
    #[error("cancelled during {stage}")]
    Cancelled {
        /// Stage that was running.
        stage: &'static str,
    },
    /// An error of the activation store.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] SaeError),
    /// A broken invariant of this crate.
    #[error("internal error: {0}")]
    Internal(String),
}

impl InterpretError {
    /// An unknown name, with the nearest of the `known` ones.
    pub fn unknown<'a>(kind: &'static str, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
        // One rule for near names in the whole product: the model's errors hold it.
        match SaeError::unknown(kind, found, known.iter().map(String::as_str)) {
            SaeError::Unknown { suggestion, .. } => {
                Self::Unknown { kind, found: found.to_owned(), suggestion, known: known.into_iter().take(20).collect() }
            }
            other => Self::Model(other),
        }
    }

    /// An option out of range.
    pub fn option(option: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Option { option: option.into(), found: found.to_string(), expected: expected.into() }
    }

    /// Shapes that do not fit.
    pub fn shape(what: impl Into<String>, found: impl ToString, expected: impl ToString) -> Self {
        Self::Shape { what: what.into(), found: found.to_string(), expected: expected.to_string() }
    }

    /// A damaged atlas file.
    pub fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }

    /// A failed system call on `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// Stable code of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "E_UNKNOWN_OPTION",
            Self::Option { .. } => "E_OPTION",
            Self::Shape { .. } => "E_SHAPE",
            Self::NonFinite { .. } => "E_NON_FINITE",
            Self::NotInAtlas { .. } => "E_NOT_IN_ATLAS",
            Self::Damaged { .. } => "E_DAMAGED",
            Self::Version { .. } => "E_VERSION",
            Self::NotAnAtlas { .. } => "E_NOT_AN_ATLAS",
            Self::Io { .. } => "E_IO",
            Self::Cancelled { .. } => "E_CANCELLED",
            Self::Data(error) => error.code(),
            Self::Model(error) => error.code(),
            Self::Internal(_) => "E_INTERNAL",
        }
    }

    /// How to fix it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { known, .. } => Some(format!("known: {}", known.join(", "))),
            Self::Option { option, expected, .. } => Some(format!("set {option} to {expected}")),
            Self::NonFinite { .. } => Some("check the activations of that pair and the model's weights".into()),
            Self::NotInAtlas { .. } => Some("interpret again with a larger topImages, or with more images".into()),
            Self::Damaged { .. } => Some("run interpret again to write the atlas anew".into()),
            Self::Version { .. } => Some("update lucid-sae".into()),
            Self::NotAnAtlas { .. } => Some("choose another folder".into()),
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Shape { .. } | Self::Io { .. } | Self::Cancelled { .. } | Self::Internal(_) => None,
        }
    }

    /// The option or file, what was found and what was expected.
    #[must_use]
    pub fn details(&self) -> Value {
        match self {
            Self::Unknown { kind, found, suggestion, known } => {
                json!({ "kind": kind, "found": found, "suggestion": suggestion, "expected": known })
            }
            Self::Option { option, found, expected } => {
                json!({ "option": option, "found": found, "expected": expected })
            }
            Self::Shape { what, found, expected } => json!({ "what": what, "found": found, "expected": expected }),
            Self::NonFinite { what, pair } => json!({ "what": what, "pair": pair }),
            Self::NotInAtlas { what, reason } => json!({ "what": what, "found": reason }),
            Self::Damaged { path, reason } | Self::NotAnAtlas { path, reason } => {
                json!({ "file": path, "found": reason })
            }
            Self::Version { path, found, expected } => json!({ "file": path, "found": found, "expected": expected }),
            Self::Io { action, path, source } => json!({ "action": action, "file": path, "found": source.to_string() }),
            Self::Cancelled { stage } => json!({ "stage": stage }),
            Self::Data(error) => error.details(),
            Self::Model(error) => error.details(),
            Self::Internal(_) => Value::Null,
        }
    }
}
