//! The model: config, parameters, forward and backward step, optimiser, trainer, checkpoints.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod error;

pub use config::{Config, Preset};
pub use error::SaeError;
