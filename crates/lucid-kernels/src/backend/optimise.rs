//! AdamW and the unit sphere (spec 5.1).

use crate::device::Device;
use crate::error::KernelError;

/// Constants of one AdamW update (spec 5.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step, lr_t.
    pub lr: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// Added after the square root of the bias-corrected second moment.
    pub eps: f64,
    /// Decay of this array: `p ← p·(1 − lr·weight_decay)` before the update; 0 for biases.
    pub weight_decay: f64,
    /// Multiplies the gradient: the clipping factor.
    pub gradient_scale: f64,
    /// Updates made including this one: 1 in the first step.
    pub count: u64,
}

/// AdamW and the unit sphere (spec 5.1).
pub trait Optimise: Device {
    /// `sums[slot] += Σ x²` over `len` values, in f64.
    fn sum_squares(
        &self,
        values: &Self::Buffer<Self::Real>,
        len: usize,
        sums: &mut Self::Buffer<f64>,
        slot: usize,
    ) -> Result<(), KernelError>;

    /// Removes from every row of `gradient` \[rows · d\] the part parallel to the same row of `weights`:
    /// `g ← g − (⟨g, w⟩ / ⟨w, w⟩) w`; a zero row of weights changes nothing.
    fn project_rows(
        &self,
        weights: &Self::Buffer<Self::Real>,
        rows: usize,
        d: usize,
        gradient: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// One AdamW update of `len` values as PyTorch defines it, with moments `first` and `second`.
    fn adamw(
        &self,
        parameter: &mut Self::Buffer<Self::Real>,
        gradient: &Self::Buffer<Self::Real>,
        first: &mut Self::Buffer<Self::Real>,
        second: &mut Self::Buffer<Self::Real>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError>;

    /// [`Optimise::adamw`] of rows \[rows · d\], each then divided by its norm if `unit` (a zero row stays).
    fn adamw_rows(
        &self,
        parameter: &mut Self::Buffer<Self::Real>,
        gradient: &Self::Buffer<Self::Real>,
        first: &mut Self::Buffer<Self::Real>,
        second: &mut Self::Buffer<Self::Real>,
        (rows, d): (usize, usize),
        unit: bool,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        self.adamw(parameter, gradient, first, second, rows * d, constants)?;
        if unit { self.normalise_rows(parameter, rows, d) } else { Ok(()) }
    }

    /// Divides every row of `weights` \[rows · d\] by its norm; a zero row stays.
    fn normalise_rows(&self, weights: &mut Self::Buffer<Self::Real>, rows: usize, d: usize) -> Result<(), KernelError>;
}
