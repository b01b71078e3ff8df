//! Decoder (spec 2): ĥ = W_decᵀ z + b_dec over the used slots of a block, and backward.

use super::{Scalar, add_scaled, dot};
use crate::codes::{Block, Codes, Dictionary};
use crate::precision::Precision;
use crate::real::Real;

/// ĥ = Σ_k z_k W_dec[k] (+ b_dec).
pub(super) fn forward<R: Real>(
    precision: Precision,
    codes: &Codes<Scalar<R>>,
    block: Block,
    dictionary: &Dictionary<Scalar<R>>,
    bias: bool,
    out: &mut [R],
) {
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
}

/// dz_k += ⟨g, W_dec[k]⟩, dW_dec[k] += z_k g, db_dec += g.
pub(super) fn backward<R: Real>(
    precision: Precision,
    codes: &Codes<Scalar<R>>,
    block: Block,
    dictionary: &Dictionary<Scalar<R>>,
    bias: bool,
    grad: &[R],
    d_values: &mut [R],
    gradients: &mut Dictionary<Scalar<R>>,
) {
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
}
