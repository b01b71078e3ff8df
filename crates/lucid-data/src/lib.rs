//! What goes in: dataset readers, generated scenes and the activation store.
//!
//! Data flows one way: a [`Dataset`] gives pictures with captions, a backbone (another crate) turns them into
//! activations, a [`store::StoreWriter`] keeps them, and the trainer and the metrics read them back through
//! [`store::ActivationSource`]. The file format is specified in `docs/formats.md`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod choice;
mod dataset;
mod datasets;
mod error;
pub mod import;
mod mask;
pub mod progress;
pub mod publish;
pub mod scenes;
pub mod store;
pub mod synth;

pub use choice::caption_of;
pub use dataset::{BoxAnnotation, Dataset, ImageSource, OnBad, PairRecord, Skipped, open_dataset, open_dataset_with};
pub use datasets::DatasetSpec;
pub use datasets::cc3m::Cc3mSpec;
pub use datasets::coco::CocoSpec;
pub use datasets::flickr::FlickrSpec;
pub use datasets::folder::FolderSpec;
pub use datasets::parquet::ParquetSpec;
pub use datasets::scenes::ScenesSpec;
pub use datasets::webdataset::WebdatasetSpec;
pub use error::{Damage, DataError, Result};
pub use mask::PixelMask;
