//! Backbones: what turns pictures and captions into per-patch and per-token states.
//!
//! A backbone is a name ([`hub`]) or a folder in Hugging Face's layout (`config.json`, `model.safetensors`, `tokenizer.json`,
//! `preprocessor_config.json`). [`model`] is the forward pass in candle, written so that the same code serves inference
//! and the training of the embedded mini backbone; [`Backbone`] adds pixels and tokens; [`extract()`] fills an activation store.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backbone;
mod checkpoint;
pub mod checkup;
pub mod config;
pub mod decode;
pub mod error;
pub mod examination;
pub mod extract;
pub mod family;
pub mod hook;
pub mod hub;
mod jpeg;
mod lanes;
mod mini;
pub mod mini_training;
pub mod model;
mod open_clip;
pub mod ops;
pub mod preprocess;
pub mod resize;
pub mod tokenizer;
pub mod weights;
mod workers;

pub use backbone::{Backbone, BackboneFiles, ImageStates, TextStates};
pub use checkup::{Check, Checkup};
pub use config::{Activation, ModelConfig, TextConfig, VisionConfig};
pub use decode::{decode_image, decode_image_within, thumbnail};
pub use error::VlmError;
pub use examination::{Examination, ExamineOptions, examine};
pub use extract::{
    CaptionPolicy, ExtractOptions, Extraction, PartOf, Stages, check_backbone, compare_with_source, extract,
};
pub use family::Family;
pub use image::RgbImage;
pub use model::{DualEncoder, TextOutput, VisionOutput};
pub use preprocess::{Fit, Preprocessing};
pub use tokenizer::{TextShape, TextTokenizer, Tokens};
pub use weights::TensorMap;
