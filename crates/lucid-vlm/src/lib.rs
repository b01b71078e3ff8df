//! Backbones: what turns pictures and captions into per-patch and per-token states.
//!
//! A backbone is a name ([`hub`]) or a folder in Hugging Face's layout (`config.json`, `model.safetensors`, `tokenizer.json`,
//! `preprocessor_config.json`). [`siglip`] is the forward pass in candle, written so that the same code serves inference
//! and the training of the embedded mini backbone; [`Backbone`] adds pixels and tokens; [`extract()`] fills an activation store.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backbone;
pub mod config;
pub mod decode;
pub mod error;
pub mod examination;
pub mod extract;
pub mod hook;
pub mod hub;
mod lanes;
mod mini;
pub mod mini_training;
pub mod ops;
pub mod preprocess;
pub mod resize;
pub mod siglip;
pub mod tokenizer;
pub mod weights;
mod workers;

pub use backbone::{Backbone, BackboneFiles, ImageStates, TextStates};
pub use config::{Activation, SiglipConfig, TextConfig, VisionConfig};
pub use decode::{decode_image, decode_image_within, thumbnail};
pub use error::VlmError;
pub use examination::{Examination, ExamineOptions, examine};
pub use extract::{ExtractOptions, Extraction, extract};
pub use image::RgbImage;
pub use preprocess::Preprocessing;
pub use siglip::{Siglip, TextOutput, VisionOutput};
pub use tokenizer::{TextTokenizer, Tokens};
pub use weights::TensorMap;
