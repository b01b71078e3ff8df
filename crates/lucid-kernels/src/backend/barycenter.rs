//! Barycentres of a plan (spec 4), and their way back.

use crate::device::Device;
use crate::error::KernelError;
use crate::ragged::{Pairs, Ragged};
use crate::transport::Plan;

/// Which side of a plan is the target of a barycentre (spec 4: "T→V" = source → target).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Text tokens explain patches: rows of the plan are normalised (P).
    T2V,
    /// Patches explain text tokens: columns of the plan are normalised (Q).
    V2T,
}

impl Direction {
    /// The segments of the source.
    #[must_use]
    pub const fn source(self, pairs: &Pairs) -> &Ragged {
        match self {
            Self::T2V => &pairs.text,
            Self::V2T => &pairs.vision,
        }
    }

    /// The segments of the target.
    #[must_use]
    pub const fn target(self, pairs: &Pairs) -> &Ragged {
        match self {
            Self::T2V => &pairs.vision,
            Self::V2T => &pairs.text,
        }
    }
}

/// Barycentres of a plan (spec 4), and their way back.
pub trait Barycenter: Device {
    /// `out_i = Σ_j P_ij y_j` (T→V, rows of the plan divided by their sum) or `out_j = Σ_i Q_ij y_i` (V→T, columns).
    /// `y` \[N_source · d\], `out` \[N_target · d\]. A target without mass gets 0.
    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Barycenter::barycenter`] with `grad` \[N_target · d\]: `d_y` \[N_source · d\] is overwritten, and if
    /// given `d_plan +=` \[cells\] through the normalisation:
    /// `dΠ_ij = (⟨grad_i, y_j⟩ − Σ_j' P_ij' ⟨grad_i, y_j'⟩) / Σ_j' Π_ij'` (columns likewise).
    fn barycenter_backward(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Self::Buffer<Self::Real>,
        grad: &Self::Buffer<Self::Real>,
        d_y: &mut Self::Buffer<Self::Real>,
        d_plan: Option<&mut Self::Buffer<Self::Real>>,
    ) -> Result<(), KernelError>;
}
