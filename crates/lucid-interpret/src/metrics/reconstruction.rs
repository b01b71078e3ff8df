//! Self reconstruction: R² and FVU by block (spec 6).

use lucid_kernels::{Block, Modality};

use crate::coder::{Coder, SparseCodes};
use crate::error::Result;
use crate::evaluation::Reconstruction;
use crate::exact_sum::ExactSum;

/// Σ‖a − b‖² over all elements.
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) - f64::from(y)).map(|e| e * e).sum()
}

/// Σ‖h − h̄‖² over the rows of `states`.
pub(crate) fn spread(states: &[f32], mean: &[f64]) -> f64 {
    let d = mean.len().max(1);
    states.chunks_exact(d).flat_map(|row| row.iter().zip(mean)).map(|(&h, m)| f64::from(h) - m).map(|e| e * e).sum()
}

/// Squared errors of one pair in one modality, by block.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PairErrors {
    pub spread: f64,
    pub joint: f64,
    pub shared: f64,
    pub private: f64,
}

/// Reconstructs a pair's tokens three ways.
pub(crate) fn pair_errors(
    coder: &dyn Coder,
    modality: Modality,
    states: &[f32],
    codes: &SparseCodes,
    mean: &[f64],
) -> Result<PairErrors> {
    let error =
        |block| Ok::<_, crate::InterpretError>(squared_distance(states, &coder.decode(codes, modality, block)?));
    let has_private = coder.latents() > coder.d_shared();
    Ok(PairErrors {
        spread: spread(states, mean),
        joint: error(Block::Joint)?,
        shared: error(Block::Shared)?,
        private: if has_private { error(Block::Private)? } else { 0.0 },
    })
}

/// Sums of [`PairErrors`] over pairs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errors {
    spread: ExactSum,
    joint: ExactSum,
    shared: ExactSum,
    private: ExactSum,
}

impl Errors {
    pub(crate) fn add(&mut self, pair: &PairErrors) {
        self.spread.add(pair.spread);
        self.joint.add(pair.joint);
        self.shared.add(pair.shared);
        self.private.add(pair.private);
    }

    /// Σ‖h − h̄‖².
    pub(crate) fn spread(&self) -> f64 {
        self.spread.value()
    }

    /// (R², FVU); `None` where the activations do not vary.
    pub(crate) fn finish(&self, has_private: bool) -> Option<(Reconstruction, Reconstruction)> {
        let spread = self.spread();
        if spread <= 0.0 {
            return None;
        }
        let fvu = Reconstruction {
            joint: self.joint.value() / spread,
            shared: self.shared.value() / spread,
            private: has_private.then(|| self.private.value() / spread),
        };
        let r2 = Reconstruction {
            joint: 1.0 - fvu.joint,
            shared: 1.0 - fvu.shared,
            private: fvu.private.map(|value| 1.0 - value),
        };
        Some((r2, fvu))
    }
}
