//! Decoders (spec 2), and their way back.

use crate::codes::{Block, Codes, Dictionary};
use crate::device::Device;
use crate::error::KernelError;

/// Decoders (spec 2), and their way back.
pub trait Decode: Device {
    /// `out = W_decᵀ z_block (+ b_dec if bias)`, `out` \[n · d\]. The codes may be of the other modality than the
    /// dictionary (cross reconstruction).
    fn decode(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Decode::decode`] with `grad` \[n · d\]: at the slots of the block
    /// `d_values += ⟨grad, W_dec[k]⟩`, `d_w_dec[k] += z_k grad`, and if bias `d_b_dec += Σ grad`.
    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Self::Buffer<Self::Real>,
        d_values: &mut Self::Buffer<Self::Real>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError>;
}
