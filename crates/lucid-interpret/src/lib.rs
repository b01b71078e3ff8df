//! What comes out: metrics with their controls, recovery of known concepts, Algorithm 1, and the atlas.
//!
//! - [`evaluate`]: one pass of metrics over a set of pairs, as [`Evaluation`] (spec 6).
//! - [`interpret`]: Algorithm 1 (spec 7) over a set of pairs and a library of concepts, as [`Atlas`].
//!
//! Both read a model through [`Coder`], pairs through [`lucid_data::store::AnnotatedSource`], and report to
//! [`lucid_data::progress::Observer`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod algorithm1;
pub mod atlas;
mod ceiling;
pub mod coder;
mod error;
mod evaluate;
pub mod evaluation;
mod evaluation_intervals;
mod evaluation_totals;
mod exact_sum;
pub mod grounding;
mod interpret;
#[cfg(test)]
mod libraries;
mod metrics;
mod model_coder;
mod naming;
mod pairs;
pub mod probing;
pub mod recovery;
mod stability;
mod top_images;
mod word_activity;
mod words;

pub use algorithm1::library::ConceptStates;
pub use atlas::{Atlas, Heatmap, HeatmapOf, ImageRef, InterpretOptions, SearchResult};
pub use ceiling::cross_ceiling;
pub use coder::{Coder, PairPlan, SparseCodes};
pub use error::{InterpretError, Result};
pub use evaluate::{EvaluateOptions, evaluate};
pub use evaluation::Evaluation;
pub use exact_sum::{ExactMean, ExactSum};
pub use interpret::interpret;
pub use pairs::wrong_captions;
pub use probing::{ProbeOptions, Probed, probe, result::Probing};
pub use recovery::labels::{LabelScore, score_labels};
pub use recovery::scenes::ScenesTruth;
pub use recovery::synth::synth_truth;
pub use recovery::truth::TruthSource;
pub use stability::{Likeness, MatchedLatent, Stability, stability};
