//! Encoders (spec 2): Top-k of the pre-activations, and their way back.

use crate::codes::{Codes, Dictionary};
use crate::device::Device;
use crate::error::KernelError;

/// Encoders (spec 2): Top-k of the pre-activations, and their way back.
pub trait Encode: Device {
    /// Codes of `codes.n` tokens: `a = W_encᵀ (h − b_dec) + b_enc`, Top-k of the positive entries as `codes.shape`
    /// says, ties to the lower index. A NaN pre-activation is never selected.
    ///
    /// `acts` \[n · d\]; `codes` has room for n tokens of `shape.k()` slots and is overwritten, in the order documented
    /// at [`Codes`].
    fn encode_topk(
        &self,
        acts: &Self::Buffer<Self::Real>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError>;

    /// AuxK's encoder (spec 4.2): Top-`codes.k` of `ReLU(a)` restricted to the latents in `list[0..count]` (ascending).
    /// Slots by falling value, ties to the lower index, unused last.
    fn encode_listed(
        &self,
        acts: &Self::Buffer<Self::Real>,
        dictionary: &Dictionary<Self>,
        list: &Self::Buffer<u32>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError>;

    /// Backward of both encoders without the path through `b_dec`: with da = `d_values` at used slots (selection has
    /// no gradient of its own),
    /// `d_w_enc_t[k] += Σ da_k (h − b_dec)`, `d_b_enc[k] += Σ da_k`.
    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Self::Buffer<Self::Real>,
        acts: &Self::Buffer<Self::Real>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError>;

    /// The path through `b_dec`, once a step: since every da is gathered in `gradients.b_enc`,
    /// `d_b_dec += −W_enc · gradients.b_enc`. The gradient of b_enc must have been zero at the start of the step.
    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError>;

    /// `fired[k] +=` tokens whose code holds latent k; `fired` \[K\].
    fn count_fired(&self, codes: &Codes<Self>, fired: &mut Self::Buffer<u32>) -> Result<(), KernelError>;
}
