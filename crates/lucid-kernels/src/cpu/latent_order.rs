//! The entries of a batch of codes by latent (compressed columns), in the order of tokens within a latent.
//!
//! A weight gradient is a sum over the tokens that use a latent. Sorted this way each row has one owner and one order
//! of summation, so results do not depend on threads, and a row of the gradient is read and written once.

use std::ops::Range;

use super::Cpu;
use crate::codes::{Codes, UNUSED};

/// Tokens and coefficients of every latent.
pub(super) struct LatentOrder {
    offsets: Vec<usize>,
    tokens: Vec<u32>,
    coefficients: Vec<f32>,
}

impl LatentOrder {
    /// Entries of `codes` whose latent lies in `latents`, with `coefficients` \[n · k\] (values, or their gradients).
    pub(super) fn new(codes: &Codes<Cpu>, latents: Range<usize>, coefficients: &[f32]) -> Self {
        let slots = codes.n * codes.k;
        let indices = &codes.indices[..slots];
        let inside = |index: u32| index != UNUSED && latents.contains(&(index as usize));
        let mut offsets = vec![0usize; latents.end + 1];
        for &index in indices {
            if inside(index) {
                offsets[index as usize + 1] += 1;
            }
        }
        for latent in 0..latents.end {
            offsets[latent + 1] += offsets[latent];
        }
        let total = offsets[latents.end];
        let (mut tokens, mut sorted) = (vec![0u32; total], vec![0.0f32; total]);
        let mut next = offsets.clone();
        if codes.k > 0 {
            for (token, (indices, coefficients)) in
                indices.chunks_exact(codes.k).zip(coefficients[..slots].chunks_exact(codes.k)).enumerate()
            {
                for (&index, &coefficient) in indices.iter().zip(coefficients) {
                    if inside(index) {
                        let at = next[index as usize];
                        (tokens[at], sorted[at]) = (token as u32, coefficient);
                        next[index as usize] += 1;
                    }
                }
            }
        }
        Self { offsets, tokens, coefficients: sorted }
    }

    /// Latents covered, from 0.
    pub(super) fn latents(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Tokens and coefficients of one latent.
    pub(super) fn of(&self, latent: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[latent]..self.offsets[latent + 1];
        (&self.tokens[range.clone()], &self.coefficients[range])
    }
}
