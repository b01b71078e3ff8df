//! Every kernel on every backend: one body a test, run by `on_every_backend!` for each of them.
//!
//! Forward passes are compared with the dense formulas of `oracle` in f64, backward passes with central differences of
//! those formulas, so the reference backend is tested as hard as the fast one.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod common;
mod barycenter;
mod decode;
mod encode;
mod gcmt;
mod guide;
mod loss;
mod memory;
mod optimise;
mod oracle;
mod precision;
mod sinkhorn;
mod sinkhorn_laws;
