//! Streamed metrics in f64 over valid tokens (spec 6).
//!
//! Everything is summed within a pair in the order of its tokens and across pairs exactly, so results have the same
//! bits for every batch size, order of pairs and number of threads.

pub(crate) mod activity;
pub(crate) mod bootstrap;
pub(crate) mod cross;
mod hubness;
pub(crate) mod latent_intervals;
pub(crate) mod means;
pub(crate) mod monosemanticity;
pub(crate) mod reconstruction;
pub(crate) mod retrieval;
pub(crate) mod structure;
