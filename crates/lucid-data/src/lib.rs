//! What goes in: dataset readers, generated scenes and the activation store.
//!
//! Data flows one way: a [`Dataset`] gives pictures with captions, a backbone (another crate) turns them into
//! activations, a [`store::StoreWriter`] keeps them, and the trainer and the metrics read them back through
//! [`store::ActivationSource`]. The file format is specified in `docs/formats.md`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod scenes;
