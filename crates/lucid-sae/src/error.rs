//! Everything that can go wrong in this crate, each with a stable code, the value found and the fix.

use std::path::{Path, PathBuf};

use lucid_data::DataError;
use lucid_kernels::{KernelError, Modality};
use serde_json::{Value, json};
use thiserror::Error;

/// An error of the model, its configuration, its files or its training.
#[derive(Debug, Error)]
pub enum SaeError {
    /// A name that does not exist.
    #[error("unknown {kind} '{found}'{}", suggestion.as_ref().map(|name| format!(": did you mean '{name}'?")).unwrap_or_default())]
    Unknown {
        /// What was looked up.
        kind: &'static str,
        /// The name given.
        found: String,
        /// The nearest known name.
        suggestion: Option<String>,
        /// Every known name.
        known: Vec<String>,
    },
    /// An option whose value is out of range or of the wrong type.
    #[error("option '{option}' is {found}; expected {expected}")]
    Option {
        /// Name of the option.
        option: String,
        /// Value given.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// Arrays or files whose shapes do not fit together.
    #[error("{what} has shape {found}; expected {expected}")]
    Shape {
        /// The array or file.
        what: String,
        /// Shape found.
        found: String,
        /// Shape expected.
        expected: String,
    },
    /// A NaN or infinity in activations, a loss or a gradient.
    #[error("{what} is not finite at step {step}, first in pair '{pair}'")]
    NonFinite {
        /// `activations`, `loss` or `gradient`.
        what: String,
        /// Step of the run, counted from 0.
        step: usize,
        /// Key of the first pair it appears in.
        pair: String,
        /// The newest good checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// A NaN or infinity in activations given to a model.
    #[error("the {} activation of token {token}, dimension {dimension} is {value}; expected a finite number", modality.name())]
    Activations {
        /// Whose activations.
        modality: Modality,
        /// Token among those given.
        token: usize,
        /// Dimension within the token.
        dimension: usize,
        /// The value, as text.
        value: String,
    },
    /// A folder that holds no model.
    #[error("{} is not a model folder: {reason}", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A mask that leaves a row or column without an admissible entry.
    #[error("the mask of pair {pair} leaves {axis} {index} without an admissible entry")]
    EmptyMask {
        /// Index of the pair in the batch.
        pair: usize,
        /// `row` (patch) or `column` (token).
        axis: &'static str,
        /// Index within the pair.
        index: usize,
    },
    /// A damaged or incomplete model, checkpoint or run folder.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A file written by a newer version.
    #[error("{} has format version {found}; this version reads up to {expected}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u64,
        /// Newest version understood.
        expected: u64,
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
    /// The run was asked to stop.
    #[error("the run was cancelled at step {step}")]
    Cancelled {
        /// Steps finished.
        step: usize,
    },
    /// The output folder is in use or holds a run that was not to be resumed.
    #[error("{} {reason}", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// A run that cannot be continued as asked: its checkpoints were made by something else.
    #[error("{} cannot be resumed: its {what} is {found}; this run has {expected}", path.display())]
    Resume {
        /// The run folder.
        path: PathBuf,
        /// What differs: a config field or `store`.
        what: String,
        /// Value in the checkpoint.
        found: String,
        /// Value of this run.
        expected: String,
    },
    /// An error of the activation store or a data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An error of a kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No room for a training step, not even of one pair.
    #[error(
        "no room for an array of {bytes} bytes; parameters, moments and gradients take {parameters} bytes, and a \
         micro-batch of one pair about {pair} more"
    )]
    Memory {
        /// The array refused.
        bytes: usize,
        /// Bytes that a run takes whatever its micro-batches.
        parameters: usize,
        /// Bytes of one pair's intermediate arrays.
        pair: usize,
    },
    /// A broken invariant of this crate.
    #[error("internal error: {0}")]
    Internal(String),
}

impl SaeError {
    /// An unknown name, with the nearest of the `known` ones.
    pub fn unknown<'a>(kind: &'static str, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
        let suggestion = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(&name.to_lowercase(), &found.to_lowercase()), name))
            .min()
            .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
            .map(|(_, name)| name.clone());
        Self::Unknown { kind, found: found.to_owned(), suggestion, known }
    }

    /// An option out of range.
    pub fn option(option: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Option { option: option.into(), found: found.to_string(), expected: expected.into() }
    }

    /// A file or folder that does not hold what it should.
    pub fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }

    /// A failed system call on `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// A broken invariant.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::Internal(reason.into())
    }

    /// Stable code of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "E_UNKNOWN_OPTION",
            Self::Option { .. } => "E_OPTION",
            Self::Shape { .. } => "E_SHAPE",
            Self::NonFinite { .. } | Self::Activations { .. } => "E_NON_FINITE",
            Self::NotAModel { .. } => "E_NOT_A_MODEL",
            Self::EmptyMask { .. } => "E_EMPTY_MASK",
            Self::Damaged { .. } => "E_DAMAGED",
            Self::Version { .. } => "E_VERSION",
            Self::Io { .. } => "E_IO",
            Self::Cancelled { .. } => "E_CANCELLED",
            Self::Busy { .. } => "E_BUSY",
            Self::Resume { .. } => "E_RESUME",
            Self::Data(error) => error.code(),
            Self::Kernel(error) => error.code(),
            Self::Memory { .. } => "E_MEMORY",
            Self::Internal(_) => "E_INTERNAL",
        }
    }

    /// How to fix it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { known, .. } => Some(format!("known: {}", known.join(", "))),
            Self::Option { option, expected, .. } => Some(format!("set {option} to {expected}")),
            Self::NonFinite { checkpoint: Some(path), .. } => Some(format!(
                "the last good checkpoint is {}; lower lr or check the activations of that pair",
                path.display()
            )),
            Self::NonFinite { .. } => Some("check the activations of that pair, or lower lr".into()),
            Self::Activations { .. } => Some("leave that token out, or run the backbone in f32".into()),
            Self::NotAModel { .. } => Some("give the folder that train or save wrote, the one with config.json".into()),
            Self::EmptyMask { .. } => {
                Some("admit at least one entry in every row and column, or use a finite maskPenalty".into())
            }
            Self::Damaged { .. } => Some("restore the file from its source, or resume from an older checkpoint".into()),
            Self::Version { .. } => Some("update lucid-sae".into()),
            Self::Busy { .. } => Some("choose another out, or pass resume".into()),
            Self::Resume { .. } => {
                Some("use the options and the store the run was started with, or choose another out".into())
            }
            Self::Data(error) => error.hint(),
            Self::Kernel(error) => error.hint(),
            Self::Memory { .. } => Some("use fewer latents (dShared, dPrivate), or a device with more memory".into()),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space, then resume: the last published checkpoint is intact".into())
            }
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
            Self::Shape { what, found, expected } => json!({ "option": what, "found": found, "expected": expected }),
            Self::NonFinite { what, step, pair, checkpoint } => {
                json!({ "what": what, "step": step, "pair": pair, "checkpoint": checkpoint })
            }
            Self::Activations { modality, token, dimension, value } => {
                json!({ "modality": modality.name(), "token": token, "dimension": dimension, "found": value, "expected": "a finite number" })
            }
            Self::NotAModel { path, reason } => json!({ "file": path, "found": reason, "expected": "a model folder" }),
            Self::EmptyMask { pair, axis, index } => json!({ "pair": pair, "axis": axis, "index": index }),
            Self::Damaged { path, reason } => json!({ "file": path, "found": reason }),
            Self::Version { path, found, expected } => json!({ "file": path, "found": found, "expected": expected }),
            Self::Io { action, path, source } => json!({ "action": action, "file": path, "found": source.to_string() }),
            Self::Cancelled { step } => json!({ "step": step }),
            Self::Busy { path, reason } => json!({ "file": path, "found": reason }),
            Self::Resume { path, what, found, expected } => {
                json!({ "file": path, "option": what, "found": found, "expected": expected })
            }
            Self::Data(error) => error.details(),
            Self::Kernel(error) => error.details(),
            Self::Memory { bytes, parameters, pair } => {
                json!({ "found": bytes, "parameters": parameters, "pair": pair })
            }
            Self::Internal(_) => Value::Null,
        }
    }
}
