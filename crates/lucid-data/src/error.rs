//! Everything that can go wrong with data, each with a stable code.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::store::Part;

/// Short for a result of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// An error of this crate. The message names the file or option, what was found, and what was expected;
/// [`DataError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused a file operation (`E_IO`).
    #[error("could not {action} {}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What was tried: `read`, `write`, `create` …
        action: &'static str,
        /// The reason given by the operating system.
        #[source]
        source: io::Error,
    },
    /// One or more files of a store are not what its manifest says (`E_STORE_DAMAGED`).
    #[error("the activation store {} is damaged: {}", store.display(), list(damage))]
    StoreDamaged {
        /// The folder of the store.
        store: PathBuf,
        /// Every damaged file that was found.
        damage: Vec<Damage>,
    },
    /// The store was written by a newer version (`E_STORE_VERSION`).
    #[error("the activation store {} has format version {found}; this version reads up to {supported}", store.display())]
    StoreVersion {
        /// The folder of the store.
        store: PathBuf,
        /// The version in its manifest.
        found: u64,
        /// The newest version that can be read.
        supported: u64,
    },
    /// The folder is no activation store (`E_NOT_A_STORE`).
    #[error("{} is not an activation store: {reason}", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Something is already where the result should go (`E_EXISTS`).
    #[error("{} already exists{}", path.display(), if *replaceable { "" } else { " and is not something that may be replaced" })]
    Exists {
        /// The occupied path.
        path: PathBuf,
        /// Whether `overwrite` would replace it.
        replaceable: bool,
    },
    /// A store that an earlier run began and did not finish (`E_UNFINISHED`).
    #[error("the unfinished store {} cannot be used: {reason}", path.display())]
    Unfinished {
        /// The hidden folder it lies in.
        path: PathBuf,
        /// What is the matter.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// An activation is NaN or infinite (`E_NON_FINITE`).
    #[error(
        "pair {pair:?}: the {part} activation of token {token}, dimension {dimension} is {value}, expected a finite number"
    )]
    NonFinite {
        /// Key of the pair.
        pair: String,
        /// Vision, or the caption's number.
        part: Part,
        /// Token (patch) within the pair or caption.
        token: usize,
        /// Dimension within the token.
        dimension: usize,
        /// The value found, as text.
        value: String,
    },
    /// A finite activation does not fit the precision asked for (`E_OVERFLOW`).
    #[error(
        "pair {pair:?}: the {part} activation of token {token}, dimension {dimension} is {value}, too large for {precision} (limit {limit})"
    )]
    Overflow {
        /// Key of the pair.
        pair: String,
        /// Vision, or the caption's number.
        part: Part,
        /// Token (patch) within the pair or caption.
        token: usize,
        /// Dimension within the token.
        dimension: usize,
        /// The value found.
        value: f64,
        /// The precision asked for.
        precision: &'static str,
        /// The largest value it holds.
        limit: f64,
    },
    /// Sizes that do not fit together (`E_SHAPE`).
    #[error("{what}: found {found}, expected {expected}")]
    Shape {
        /// The array, option or file.
        what: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A set with nothing in it: no pair, no patch, no valid text token (`E_EMPTY`).
    #[error("{what} is empty")]
    Empty {
        /// What is empty.
        what: String,
    },
    /// An image without a caption (`E_NO_CAPTION`).
    #[error("the image {key:?} has no caption ({reason})")]
    NoCaption {
        /// Key of the image.
        key: String,
        /// Where the caption was looked for.
        reason: String,
    },
    /// An image that is missing or cannot be read (`E_IMAGE`).
    #[error("the image {key:?} cannot be used: {reason}")]
    Image {
        /// Key of the image, or its path.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A data set's file or description that cannot be understood (`E_DATASET`).
    #[error("{what}: {reason}")]
    Dataset {
        /// The file (with line) or option.
        what: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A file of activations in a form that is not read (`E_FORMAT`).
    #[error("{}: {reason}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What was found and what was expected.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// An option with a value that is not allowed (`E_OPTION`).
    #[error("option {option}: found {found}, expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// Stores that do not belong together (`E_MERGE`).
    #[error("{} cannot be merged: {what} is {found}, expected {expected}", part.display())]
    Merge {
        /// The folder of the store.
        part: PathBuf,
        /// What does not fit.
        what: String,
        /// What it is in this store.
        found: String,
        /// What the other stores ask for.
        expected: String,
    },
    /// The observer asked to stop (`E_CANCELLED`).
    #[error("stopped while {stage}; nothing was published")]
    Cancelled {
        /// What was going on.
        stage: &'static str,
    },
}

/// One damaged file of a store.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// File name inside the store.
    pub file: String,
    /// What was found.
    pub found: String,
    /// What the manifest or the format says.
    pub expected: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: found {}, expected {}", self.file, self.found, self.expected)
    }
}

fn list(damage: &[Damage]) -> String {
    damage.iter().map(Damage::to_string).collect::<Vec<_>>().join("; ")
}

impl DataError {
    /// An `E_IO` for one operation on one file.
    pub fn io(action: &'static str, file: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { file: file.as_ref().to_path_buf(), action, source }
    }

    pub(crate) fn shape(what: impl Into<String>, found: impl ToString, expected: impl ToString) -> Self {
        Self::Shape { what: what.into(), found: found.to_string(), expected: expected.to_string() }
    }

    pub(crate) fn dataset(what: impl ToString, reason: impl Into<String>) -> Self {
        Self::Dataset { what: what.to_string(), reason: reason.into() }
    }

    pub(crate) fn damaged(
        store: &Path,
        file: impl Into<String>,
        found: impl ToString,
        expected: impl ToString,
    ) -> Self {
        Self::StoreDamaged {
            store: store.to_path_buf(),
            damage: vec![Damage { file: file.into(), found: found.to_string(), expected: expected.to_string() }],
        }
    }

    /// The record that this error is about, where the rest of the data set can still be read: what `onBad: 'skip'` leaves out.
    pub fn record(&self) -> Option<&str> {
        match self {
            Self::NoCaption { key, .. } | Self::Image { key, .. } => Some(key),
            Self::Dataset { what, .. } => Some(what),
            _ => None,
        }
    }

    /// The stable code, `E_…`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "E_IO",
            Self::StoreDamaged { .. } => "E_STORE_DAMAGED",
            Self::StoreVersion { .. } => "E_STORE_VERSION",
            Self::NotAStore { .. } => "E_NOT_A_STORE",
            Self::Exists { .. } => "E_EXISTS",
            Self::Unfinished { .. } => "E_UNFINISHED",
            Self::NonFinite { .. } => "E_NON_FINITE",
            Self::Overflow { .. } => "E_OVERFLOW",
            Self::Shape { .. } => "E_SHAPE",
            Self::Empty { .. } => "E_EMPTY",
            Self::NoCaption { .. } => "E_NO_CAPTION",
            Self::Image { .. } => "E_IMAGE",
            Self::Dataset { .. } => "E_DATASET",
            Self::Format { .. } => "E_FORMAT",
            Self::Option { .. } => "E_OPTION",
            Self::Merge { .. } => "E_MERGE",
            Self::Cancelled { .. } => "E_CANCELLED",
        }
    }

    /// What to do about it, where something general can be said.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => "check the path".to_string(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space or choose another folder; nothing was published, the previous state is intact".to_string()
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check the permissions of the file and of its folder".to_string()
            }
            Self::Io { .. } | Self::Shape { .. } | Self::Cancelled { .. } => return None,
            Self::StoreDamaged { .. } => "write the store again from its data set, or copy it again from where it came; `lucid-sae verify` lists every damaged file".to_string(),
            Self::StoreVersion { .. } => "use a newer lucid-sae to read it".to_string(),
            Self::NotAStore { .. } => "give the folder that `extract` or `import` wrote, the one with manifest.json".to_string(),
            Self::Exists { replaceable: true, .. } => "choose another folder, or allow it to be replaced with `overwrite`".to_string(),
            Self::Exists { replaceable: false, .. } => "choose another folder".to_string(),
            Self::NonFinite { .. } => "the backbone or the exported file produced NaN or infinity here: run it in float32, or leave this pair out".to_string(),
            Self::Overflow { .. } => "store with precision f32 or bf16".to_string(),
            Self::Empty { .. } => "leave the pair out: every image needs at least one patch and every caption at least one valid token".to_string(),
            Self::NoCaption { .. } => "add a caption, leave such images out with onBad 'skip', or read none from a folder with captions: false (to interpret, not to train)".to_string(),
            Self::Image { .. } => "repair or remove the image, or leave such images out with onBad 'skip'".to_string(),
            Self::Dataset { .. } => "see docs/data.md for the data sets that are read, or leave such records out with onBad 'skip'".to_string(),
            Self::Format { fix, .. } | Self::Unfinished { fix, .. } => fix.clone(),
            Self::Option { expected, .. } => format!("use {expected}"),
            Self::Merge { .. } => "give every part of one extraction once, all written with the same options".to_string(),
        };
        Some(text)
    }

    /// The facts behind the message: `{ file | option | pair …, found, expected }`.
    pub fn details(&self) -> Value {
        match self {
            Self::Io { file, action, source } => {
                json!({ "file": file, "found": source.to_string(), "expected": format!("to {action} it"), "kind": format!("{:?}", source.kind()) })
            }
            Self::StoreDamaged { store, damage } => json!({ "file": store, "damaged": damage,
                "found": format!("{} damaged file(s)", damage.len()), "expected": "files as the manifest describes them" }),
            Self::StoreVersion { store, found, supported } => {
                json!({ "file": store, "found": found, "expected": format!("at most {supported}") })
            }
            Self::NotAStore { path, reason } => {
                json!({ "file": path, "found": reason, "expected": "a folder with manifest.json" })
            }
            Self::Exists { path, .. } => {
                json!({ "file": path, "found": "an existing file or folder", "expected": "a free path" })
            }
            Self::Unfinished { path, reason, fix } => json!({ "file": path, "found": reason, "expected": fix }),
            Self::NonFinite { pair, part, token, dimension, value } => json!({ "pair": pair, "part": part.to_string(),
                "token": token, "dimension": dimension, "found": value, "expected": "a finite number" }),
            Self::Overflow { pair, part, token, dimension, value, precision, limit } => json!({ "pair": pair,
                "part": part.to_string(), "token": token, "dimension": dimension, "found": value,
                "expected": format!("at most {limit} for {precision}") }),
            Self::Shape { what, found, expected } => json!({ "option": what, "found": found, "expected": expected }),
            Self::Empty { what } => json!({ "option": what, "found": "nothing", "expected": "at least one" }),
            Self::NoCaption { key, reason } => {
                json!({ "image": key, "found": reason, "expected": "at least one caption" })
            }
            Self::Image { key, reason } => json!({ "image": key, "found": reason, "expected": "a readable image" }),
            Self::Dataset { what, reason } => {
                json!({ "file": what, "found": reason, "expected": "a data set as docs/data.md describes it" })
            }
            Self::Format { file, reason, fix } => json!({ "file": file, "found": reason, "expected": fix }),
            Self::Option { option, found, expected } => {
                json!({ "option": option, "found": found, "expected": expected })
            }
            Self::Merge { part, what, found, expected } => {
                json!({ "file": part, "option": what, "found": found, "expected": expected })
            }
            Self::Cancelled { stage } => json!({ "stage": stage }),
        }
    }
}
