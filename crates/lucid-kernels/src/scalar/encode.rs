//! Encoder (spec 2): a = W_encᵀ (h − b_dec) + b_enc, Top-k of the positive entries, and backward.

use super::{Scalar, add_scaled, dot};
use crate::backend::Encode;
use crate::codes::{Codes, Dictionary, Selection, UNUSED};
use crate::error::KernelError;
use crate::precision::Precision;
use crate::real::Real;

/// h − b_dec.
fn centred<R: Real>(precision: Precision, h: &[R], dictionary: &Dictionary<Scalar<R>>) -> Vec<R> {
    h.iter().zip(&dictionary.b_dec).map(|(&h, &b)| precision.round(h - b)).collect()
}

/// a_k = ⟨W_enc[:, k], h − b_dec⟩ + b_enc,k.
fn pre_activation<R: Real>(
    precision: Precision,
    centred: &[R],
    dictionary: &Dictionary<Scalar<R>>,
    latent: usize,
) -> R {
    let d = dictionary.d;
    dot(centred, &precision.operands(&dictionary.w_enc_t[latent * d..(latent + 1) * d])) + dictionary.b_enc[latent]
}

/// The `k` largest positive entries of `a` within `candidates`, by falling value, ties to the lower index.
fn select<R: Real>(candidates: std::ops::Range<usize>, a: &[R], k: usize) -> Vec<usize> {
    let mut positive: Vec<usize> = candidates.filter(|&latent| a[latent] > R::zero()).collect();
    // A stable sort keeps the lower index first among equal values; positive values are never NaN.
    positive.sort_by(|&x, &y| a[y].partial_cmp(&a[x]).unwrap_or(std::cmp::Ordering::Equal));
    positive.truncate(k);
    positive
}

impl<R: Real> Encode for Scalar<R> {
    /// Codes of all tokens. Pre-activations exist for one token at a time.
    fn encode_topk(
        &self,
        acts: &Vec<R>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        let precision = self.precision;
        let (shape, d) = (codes.shape, dictionary.d);
        for token in 0..codes.n {
            let centred = centred(precision, &acts[token * d..(token + 1) * d], dictionary);
            let a: Vec<R> =
                (0..shape.latents()).map(|latent| pre_activation(precision, &centred, dictionary, latent)).collect();
            let (shared, private) = match shape.selection {
                Selection::Split => (
                    select(0..shape.d_shared, &a, shape.k_shared),
                    select(shape.d_shared..shape.latents(), &a, shape.k_private),
                ),
                // One choice over all latents, listed shared block first.
                Selection::Global => {
                    select(0..shape.latents(), &a, shape.k()).into_iter().partition(|&latent| latent < shape.d_shared)
                }
            };
            let private_start = match shape.selection {
                Selection::Split => shape.k_shared,
                Selection::Global => shared.len(),
            };
            let slots = token * codes.k..(token + 1) * codes.k;
            let (indices, values) = (&mut codes.indices[slots.clone()], &mut codes.values[slots]);
            indices.fill(UNUSED);
            values.fill(R::zero());
            let placed = shared.into_iter().enumerate().chain((private_start..).zip(private));
            for (slot, latent) in placed {
                indices[slot] = u32::try_from(latent).unwrap_or(UNUSED);
                values[slot] = a[latent];
            }
        }
        Ok(())
    }

    /// Codes over the latents in `list` alone.
    fn encode_listed(
        &self,
        acts: &Vec<R>,
        dictionary: &Dictionary<Self>,
        list: &Vec<u32>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        let precision = self.precision;
        let list = &list[..count];
        let d = dictionary.d;
        for token in 0..codes.n {
            let centred = centred(precision, &acts[token * d..(token + 1) * d], dictionary);
            let a: Vec<R> =
                list.iter().map(|&latent| pre_activation(precision, &centred, dictionary, latent as usize)).collect();
            let slots = token * codes.k..(token + 1) * codes.k;
            let (indices, values) = (&mut codes.indices[slots.clone()], &mut codes.values[slots]);
            indices.fill(UNUSED);
            values.fill(R::zero());
            for (slot, position) in select(0..list.len(), &a, codes.k).into_iter().enumerate() {
                indices[slot] = list[position];
                values[slot] = a[position];
            }
        }
        Ok(())
    }

    /// dW_enc[:, k] += da_k (h − b_dec), db_enc,k += da_k, where da = dz at the used slots.
    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Vec<R>,
        acts: &Vec<R>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let precision = self.precision;
        let d = dictionary.d;
        for token in 0..codes.n {
            let centred = centred(precision, &acts[token * d..(token + 1) * d], dictionary);
            for slot in token * codes.k..(token + 1) * codes.k {
                if codes.indices[slot] != UNUSED {
                    let latent = codes.indices[slot] as usize;
                    add_scaled(&mut gradients.w_enc_t[latent * d..(latent + 1) * d], d_values[slot], &centred);
                    gradients.b_enc[latent] += d_values[slot];
                }
            }
        }
        Ok(())
    }

    /// db_dec += −W_enc Σ da, with Σ da = db_enc.
    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let d = dictionary.d;
        for latent in 0..dictionary.latents {
            let row = &dictionary.w_enc_t[latent * d..(latent + 1) * d];
            add_scaled(&mut gradients.b_dec, -gradients.b_enc[latent], row);
        }
        Ok(())
    }

    /// How many tokens hold each latent.
    fn count_fired(&self, codes: &Codes<Self>, fired: &mut Vec<u32>) -> Result<(), KernelError> {
        for &latent in &codes.indices[..codes.n * codes.k] {
            if latent != UNUSED {
                fired[latent as usize] += 1;
            }
        }
        Ok(())
    }
}
