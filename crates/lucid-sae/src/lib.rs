//! The model: config, parameters, forward and backward step, optimiser, trainer, checkpoints.
//!
//! [`train`] makes a [`Model`] from an activation store; [`step`] is the algorithm, in one file that reads beside the
//! paper. Files are described in `docs/formats.md`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
mod blame;
pub mod checkpoint;
mod coactivation;
pub mod config;
pub mod device;
mod distance;
pub mod error;
pub mod events;
pub mod export;
mod feed;
pub mod files;
pub mod handle;
mod host_batch;
pub mod init;
pub mod init_file;
mod jump;
pub mod kernel_options;
pub mod linear;
mod lock;
pub mod losses;
mod memory;
pub mod method;
mod metrics_log;
pub mod model;
pub mod model_folder;
mod nested;
pub mod normalisation;
pub mod optimiser;
pub mod order;
mod paired;
pub mod params;
mod pca;
mod prefetch;
pub mod preset;
mod resident;
pub mod rng;
mod run;
mod run_folder;
mod selection;
mod start;
pub mod step;
mod tensors;
mod threshold;
pub mod together;
pub mod trainer;
mod validation;
mod weights;

pub use config::{Config, Preset};
pub use error::SaeError;
pub use events::{TrainEvent, TrainObserver, Unobserved};
pub use handle::TrainHandle;
pub use model::{Codes, Model, ModelInfo, PlanOf, Provenance};
pub use normalisation::{Normalisation, Scaling, Variances};
pub use together::train_together;
pub use trainer::{TrainOptions, train};
