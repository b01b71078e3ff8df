//! Backbones: what turns pictures and captions into per-patch and per-token states.
//!
//! A backbone is a folder in Hugging Face's layout (`config.json`, `model.safetensors`, `tokenizer.json`,
//! `preprocessor_config.json`). [`siglip`] is the forward pass in candle, written so that the same code serves inference
//! and the training of the embedded mini backbone.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod error;
mod lanes;
pub mod mini_training;
pub mod ops;
pub mod siglip;
pub mod weights;

pub use config::{Activation, SiglipConfig, TextConfig, VisionConfig};
pub use error::VlmError;
pub use siglip::{Siglip, TextOutput, VisionOutput};
pub use weights::TensorMap;
