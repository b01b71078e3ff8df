//! The single place where errors of the crates become errors of JavaScript: JSON in the message, read by
//! `ts/errors.ts`, because a Node-API error has room for a code and a text only.

use std::fmt::Display;

use lucid_data::DataError;
use lucid_interpret::InterpretError;
use lucid_kernels::KernelError;
use lucid_sae::SaeError;
use lucid_vlm::VlmError;
use serde_json::{Value, json};

/// An error on its way to JavaScript.
#[derive(Debug, Clone)]
pub struct Failure {
    code: &'static str,
    message: String,
    hint: Option<String>,
    details: Value,
}

impl Failure {
    /// An error of the boundary itself.
    pub fn new(code: &'static str, message: impl Display, hint: Option<String>, details: Value) -> Self {
        Self { code, message: message.to_string(), hint, details }
    }

    /// An option whose value does not fit.
    pub fn option(option: &str, found: impl Display, expected: impl Display) -> Self {
        Self::new(
            "E_OPTION",
            format!("option '{option}' is {found}; expected {expected}"),
            Some(format!("set {option} to {expected}")),
            json!({ "option": option, "found": found.to_string(), "expected": expected.to_string() }),
        )
    }

    /// Arrays that do not fit together.
    pub fn shape(what: &str, found: impl Display, expected: impl Display) -> Self {
        Self::new(
            "E_SHAPE",
            format!("{what} has {found} elements; expected {expected}"),
            None,
            json!({ "what": what, "found": found.to_string(), "expected": expected.to_string() }),
        )
    }

    /// A broken invariant, or a caught panic.
    pub fn internal(message: impl Display) -> Self {
        Self::new(
            "E_INTERNAL",
            format!("internal error: {message}"),
            Some("this is a bug of lucid-sae: please report it with the message and the options used".into()),
            Value::Null,
        )
    }

    /// The stable code.
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

impl From<Failure> for napi::Error {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, hint, details } = failure;
        let form = json!({ "lucid": { "code": code, "message": message, "hint": hint, "details": details } });
        // The reader recognises the form by its first characters.
        Self::from_reason(form.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new("E_OPTION", format!("the options cannot be understood: {error}"), None, Value::Null)
    }
}

/// Every crate's error has the same three methods, by the rule of the house.
macro_rules! failure_from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.code(), &error, error.hint(), error.details())
            }
        }
    )*};
}

failure_from!(DataError, InterpretError, KernelError, SaeError, VlmError);
