//! Decoder (spec 2): ĥ = W_decᵀ z + b_dec over the used slots of a block, and backward.

use super::{Scalar, add_scaled, dot};
use crate::backend::Decode;
use crate::codes::{Block, Codes, Dictionary};
use crate::error::KernelError;
use crate::real::Real;

impl<R: Real> Decode for Scalar<R> {
    /// ĥ = Σ_k z_k W_dec\[k\] (+ b_dec).
    fn decode(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        out: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        let precision = self.precision;
        let d = dictionary.d;
        for token in 0..codes.n {
            let out = &mut out[token * d..(token + 1) * d];
            if bias {
                out.copy_from_slice(&dictionary.b_dec[..d]);
            } else {
                out.fill(R::zero());
            }
            for slot in token * codes.k..(token + 1) * codes.k {
                if codes.shape.contains(block, codes.indices[slot]) {
                    let latent = codes.indices[slot] as usize;
                    let row = precision.operands(&dictionary.w_dec[latent * d..(latent + 1) * d]);
                    add_scaled(out, codes.values[slot], &row);
                }
            }
        }
        Ok(())
    }

    /// dz_k += ⟨g, W_dec\[k\]⟩, dW_dec\[k\] += z_k g, db_dec += g.
    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Vec<R>,
        d_values: &mut Vec<R>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let precision = self.precision;
        let d = dictionary.d;
        for token in 0..codes.n {
            let g = &grad[token * d..(token + 1) * d];
            if bias {
                add_scaled(&mut gradients.b_dec, R::one(), g);
            }
            for slot in token * codes.k..(token + 1) * codes.k {
                if codes.shape.contains(block, codes.indices[slot]) {
                    let row = codes.indices[slot] as usize * d..(codes.indices[slot] as usize + 1) * d;
                    d_values[slot] += dot(g, &precision.operands(&dictionary.w_dec[row.clone()]));
                    add_scaled(&mut gradients.w_dec[row], codes.values[slot], &precision.operands(g));
                }
            }
        }
        Ok(())
    }
}
