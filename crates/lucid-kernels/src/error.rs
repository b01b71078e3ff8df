//! Everything a kernel can refuse, each with a stable code.

use serde_json::{Value, json};
use thiserror::Error;

/// An error of a kernel or of the arrays given to it.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum KernelError {
    /// Arrays whose lengths do not fit together.
    #[error("{what} is {found}; expected {expected}")]
    Shape {
        /// The array or dimension.
        what: String,
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// An option out of its range.
    #[error("option '{option}' is {found}; expected {expected}")]
    Option {
        /// Name of the option, as the spec writes it.
        option: &'static str,
        /// Value given.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A row or column of a pair in which every entry is excluded (spec 3: each must keep one).
    #[error("the mask of pair {pair} leaves {axis} {index} without an admissible entry")]
    EmptyMask {
        /// Index of the pair in the batch given.
        pair: usize,
        /// `row` (patch) or `column` (text token).
        axis: &'static str,
        /// Index within the pair.
        index: usize,
    },
    /// A NaN or infinity in an input.
    #[error("{what} of pair {pair} is not finite at position {position}")]
    NonFinite {
        /// The array, e.g. `vision activations`.
        what: &'static str,
        /// Index of the pair in the batch given.
        pair: usize,
        /// Position of the value within the pair's array.
        position: usize,
    },
    /// Not enough memory for a buffer.
    #[error("cannot allocate a buffer of {bytes} bytes")]
    Memory {
        /// Size asked for.
        bytes: usize,
    },
    /// A device that cannot be used here.
    #[error("{device} cannot be used: {reason}")]
    Unavailable {
        /// The backend.
        device: &'static str,
        /// Why not.
        reason: String,
    },
    /// An operation that a device began and could not finish.
    #[error("the CUDA device failed in {operation}: {reason}")]
    Device {
        /// The kernel or the driver's function.
        operation: String,
        /// What the driver said.
        reason: String,
    },
}

impl KernelError {
    /// An array whose length is not what the other arguments make it.
    pub fn shape(what: impl Into<String>, found: impl ToString, expected: impl ToString) -> Self {
        Self::Shape { what: what.into(), found: found.to_string(), expected: expected.to_string() }
    }

    /// Stable code of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "E_SHAPE",
            Self::Option { .. } => "E_OPTION",
            Self::EmptyMask { .. } => "E_EMPTY_MASK",
            Self::NonFinite { .. } => "E_NON_FINITE",
            Self::Memory { .. } => "E_MEMORY",
            Self::Unavailable { .. } => "E_UNAVAILABLE",
            Self::Device { .. } => "E_DEVICE",
        }
    }

    /// How to fix it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Option { option, expected, .. } => Some(format!("set {option} to {expected}")),
            Self::EmptyMask { .. } => {
                Some("admit at least one entry in every row and column, or use a finite maskPenalty".into())
            }
            Self::NonFinite { .. } => Some("check the activations of that pair".into()),
            Self::Memory { .. } => Some("use fewer microPairs, or fewer latents".into()),
            Self::Unavailable { .. } => Some("use device 'cpu'".into()),
            Self::Device { .. } => Some("resume from the last checkpoint, or use device 'cpu'".into()),
            Self::Shape { .. } => None,
        }
    }

    /// What was found and what was expected, for programs.
    #[must_use]
    pub fn details(&self) -> Value {
        match self {
            Self::Shape { what, found, expected } => json!({ "what": what, "found": found, "expected": expected }),
            Self::Option { option, found, expected } => {
                json!({ "option": option, "found": found, "expected": expected })
            }
            Self::EmptyMask { pair, axis, index } => json!({ "pair": pair, "axis": axis, "index": index }),
            Self::NonFinite { what, pair, position } => json!({ "what": what, "pair": pair, "position": position }),
            Self::Memory { bytes } => json!({ "bytes": bytes }),
            Self::Device { operation, reason } => json!({ "operation": operation, "reason": reason }),
            Self::Unavailable { device, reason } => json!({ "option": "device", "found": device, "reason": reason }),
        }
    }
}
