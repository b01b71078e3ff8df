//! Entropic plans (spec 3), what they cost, and the way back through every round.

use crate::device::Device;
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::transport::{Plan, SinkhornOptions};

/// Entropic plans (spec 3), what they cost, and the way back through every round.
pub trait Sinkhorn: Device {
    /// Entropic plan of every pair: `K = exp(−cost/ε)`, v = 1, then `u = row ⊘ K v`, `v = column ⊘ Kᵀ u` for
    /// `iterations` rounds, or until the row-marginal error (L1) after a round is below `tolerance` (> 0).
    /// An infinite cost is an excluded entry; a row or column whose K vanishes is [`KernelError::EmptyMask`], counted from
    /// `plan.first_pair`, now or at [`Device::finish`]; the plan of such a pair is unspecified.
    ///
    /// `cost` \[cells\], `row` \[N_v\], `column` \[N_t\]; `plan` has room ([`Plan::reserve`]) and is overwritten with its
    /// diagnostics.
    fn sinkhorn(
        &self,
        cost: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        row: &Self::Buffer<Self::Real>,
        column: &Self::Buffer<Self::Real>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
    ) -> Result<(), KernelError>;

    /// Backward through every iteration actually made: from `d_plan` \[cells\], `d_cost +=` \[cells\] (0 at excluded
    /// entries) and `d_column +=` \[N_t\]. The row marginal is a constant.
    fn sinkhorn_backward(
        &self,
        cost: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        row: &Self::Buffer<Self::Real>,
        column: &Self::Buffer<Self::Real>,
        options: SinkhornOptions,
        plan: &Plan<Self>,
        d_plan: &Self::Buffer<Self::Real>,
        d_cost: &mut Self::Buffer<Self::Real>,
        d_column: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// `sums[slot] += Σ cost_ij Π_ij` over all pairs, excluded entries counting 0 (the `ot` loss, spec 4).
    fn transport_cost(
        &self,
        cost: &Self::Buffer<Self::Real>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        sums: &mut Self::Buffer<f64>,
        slot: usize,
    ) -> Result<(), KernelError>;

    /// Backward of [`Sinkhorn::transport_cost`] times `scale`: `d_cost += scale · Π`, and if given
    /// `d_plan += scale · cost` (0 at excluded entries).
    fn transport_cost_backward(
        &self,
        cost: &Self::Buffer<Self::Real>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        scale: f64,
        d_cost: &mut Self::Buffer<Self::Real>,
        d_plan: Option<&mut Self::Buffer<Self::Real>>,
    ) -> Result<(), KernelError>;
}
