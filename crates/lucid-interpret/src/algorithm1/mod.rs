//! Algorithm 1 (spec 7): which concepts each shared latent answers to.
//!
//! Costs are linear in the non-zeros that meet: a concept looks up its few latents in the inverted index of an image
//! (latent → patches with values). Nothing of the size concepts × patches × latents is ever visited or stored.

pub mod cluster;
pub mod concepts;
pub mod library;
pub mod matching;
pub mod null;
pub mod threshold;
