//! Squared errors and means (spec 4.1).

use crate::device::Device;
use crate::error::KernelError;
use crate::ragged::Ragged;

/// A factor that may depend on a sum of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Factor {
    /// Known on the host.
    Constant(f64),
    /// `numerator / sums[slot]`, or 0 where that sum is 0.
    Over {
        /// Numerator.
        numerator: f64,
        /// Slot of the finished sum.
        slot: usize,
    },
}

/// Squared errors and means (spec 4.1).
pub trait Loss: Device {
    /// `sums[slot] += Σ (prediction − target)²` over `len` values, and `prediction ← factor · (prediction − target)`:
    /// the gradient of `factor/2 · Σ(…)²`. The sum is taken in f64.
    fn residual(
        &self,
        prediction: &mut Self::Buffer<Self::Real>,
        target: &Self::Buffer<Self::Real>,
        len: usize,
        factor: Factor,
        sums: &mut Self::Buffer<f64>,
        slot: usize,
    ) -> Result<(), KernelError>;

    /// `out = a − b` over `len` values.
    fn difference(
        &self,
        a: &Self::Buffer<Self::Real>,
        b: &Self::Buffer<Self::Real>,
        len: usize,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Mean of every segment's rows: `values` \[total · d\] → `out` \[segments · d\].
    fn segment_mean(
        &self,
        values: &Self::Buffer<Self::Real>,
        segments: &Ragged,
        d: usize,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Loss::segment_mean`]: every row of segment s gets `+= grad_s / length_s`.
    fn segment_mean_backward(
        &self,
        grad: &Self::Buffer<Self::Real>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;
}
