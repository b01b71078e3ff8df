//! Guided transport cost and marginals (spec 3), and their way back to the codes.

use crate::codes::Codes;
use crate::device::Device;
use crate::error::KernelError;
use crate::ragged::{Pairs, Ragged};

/// Guided transport cost and marginals (spec 3), and their way back to the codes.
pub trait Guide: Device {
    /// `cost_ij = 1 − cos(z_s,i^v, z_s,j^t)` \[cells\]; the cosine with an all-zero shared code is 0.
    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Guide::cosine_cost`] at the used shared slots: `d_vision +=`, `d_text +=` (\[n · k\]). `cost` is
    /// the forward result. An all-zero code gets no gradient.
    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Self::Buffer<Self::Real>,
        d_cost: &Self::Buffer<Self::Real>,
        d_vision: &mut Self::Buffer<Self::Real>,
        d_text: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Text weights `w_j = max(0, cos(g, z_s,j^t))`, `g = mean_i z_s,i^v` of the pair; `weights` \[N_t\].
    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Guide::mass_weights`] at the used shared slots: `d_vision +=`, `d_text +=` (\[n · k\]).
    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Self::Buffer<Self::Real>,
        d_vision: &mut Self::Buffer<Self::Real>,
        d_text: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// `out = 1 / length` for every token of every segment: the uniform marginal.
    fn uniform_marginal(&self, segments: &Ragged, out: &mut Self::Buffer<Self::Real>) -> Result<(), KernelError>;

    /// `c = (w + δ) / Σ (w + δ)`, δ = 1e-6 · mean(w) of the pair, uniform where all w are zero; `column` \[N_t\].
    fn column_marginal(
        &self,
        weights: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        column: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Guide::column_marginal`]: `d_weights +=` (0 where all w of the pair are zero).
    fn column_marginal_backward(
        &self,
        weights: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        d_column: &Self::Buffer<Self::Real>,
        d_weights: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Guided cost `C̃_ij = C_ij + mask_penalty · (1 − M_ij) + lambda · (1 − w_j)` \[cells\]. Without `admissible` M = 1,
    /// without `weights` the last term is absent. An infinite penalty makes C̃ infinite where M < 1, which excludes the
    /// entry exactly.
    fn guide_cost(
        &self,
        cost: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        admissible: Option<&Self::Buffer<Self::Real>>,
        mask_penalty: f64,
        weights: Option<&Self::Buffer<Self::Real>>,
        lambda: f64,
        guided: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Guide::guide_cost`] to the weights: `d_weights_j += −lambda Σ_i d_guided_ij`. (To C it is the
    /// identity.)
    fn guide_cost_backward(
        &self,
        d_guided: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;
}
