//! VL-SAE's encoder: one for both modalities, by distance (docs/rivals.md).
//!
//! a_k = 2 − ‖ĥ − ŵ_k‖ with ĥ = h / ‖h‖ and ŵ_k = w_k / ‖w_k‖, that is 2 − √(2 − 2 cos), in \[0, 2\]; the k nearest rows make the code. Each
//! modality keeps a copy of W_enc: both start equal and get the same gradient, so they stay equal. Biases of the encoder are not used.

use lucid_kernels::{Backend, Codes, KernelError, Modality, Real, UNUSED};
use rayon::prelude::*;

use crate::batch::{MicroBatch, Sides};
use crate::config::Config;
use crate::params::{HostDictionary, Params};
use crate::selection::{largest, store};

/// Distances below this have the slope of this one: the root has none at 0.
const NEAREST: f64 = 1e-6;

/// a of a cosine.
pub(crate) fn activation<R: Real>(cosine: R) -> R {
    let two = R::from_f64(2.0);
    let square = two - two * cosine;
    two - if square > R::zero() { square.sqrt() } else { R::zero() }
}

/// Rows of unit length and what they were divided by; a row of zeros stays one.
fn units<R: Real>(rows: &[R], d: usize) -> (Vec<R>, Vec<R>) {
    let mut units = rows.to_vec();
    let norms = units
        .chunks_exact_mut(d)
        .map(|row| {
            let norm = row.iter().fold(R::zero(), |sum, &x| sum + x * x).sqrt();
            if norm > R::zero() {
                row.iter_mut().for_each(|x| *x /= norm);
            }
            norm
        })
        .collect();
    (units, norms)
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::zero(), |sum, (&a, &b)| sum + a * b)
}

/// Codes of every micro-batch.
pub(crate) fn encode<B: Backend>(
    backend: &B,
    config: &Config,
    params: &Params<B>,
    batch: &[MicroBatch<B>],
    codes: &mut [Sides<Codes<B>>],
) -> Result<(), KernelError> {
    let k = config.k();
    for m in Modality::ALL {
        let (d, latents) = (params.of(m).d, params.of(m).latents);
        let (rows, _) = units(&backend.read_vec(&params.of(m).w_enc_t, latents * d)?, d);
        for (micro, codes) in batch.iter().zip(&mut *codes) {
            let n = micro.tokens(m);
            let (states, _) = units(&backend.read_vec(micro.acts.of(m), n * d)?, d);
            let chosen: Vec<Vec<(u32, B::Real)>> = states
                .par_chunks_exact(d)
                .map(|state| {
                    let all: Vec<B::Real> = rows.chunks_exact(d).map(|row| activation(dot(row, state))).collect();
                    largest(&all, k).into_iter().map(|latent| (latent, all[latent as usize])).collect()
                })
                .collect();
            store(backend, codes.of_mut(m), k, &chosen)?;
        }
    }
    Ok(())
}

/// Adds to both copies of W_enc what the `d_values` of both modalities' codes ask of it.
pub(crate) fn backward<B: Backend>(
    backend: &B,
    params: &Params<B>,
    micro: &MicroBatch<B>,
    codes: &Sides<Codes<B>>,
    d_values: &Sides<B::Buffer<B::Real>>,
    gradients: &mut Params<B>,
) -> Result<(), KernelError> {
    let (d, latents) = (params.vision.d, params.vision.latents);
    let mut total = vec![B::Real::from_f64(0.0); latents * d];
    for m in Modality::ALL {
        let codes = codes.of(m);
        let (indices, values) = codes.read(backend)?;
        let d_values = backend.read_vec(d_values.of(m), indices.len())?;
        let (states, _) = units(&backend.read_vec(micro.acts.of(m), codes.n * d)?, d);
        let (rows, norms) = units(&backend.read_vec(&params.of(m).w_enc_t, latents * d)?, d);
        // d cos = da / distance, and d ŵ = Σ d cos · ĥ.
        let mut of_units = vec![B::Real::from_f64(0.0); latents * d];
        for (slot, (&index, &value)) in indices.iter().zip(&values).enumerate() {
            if index == UNUSED {
                continue;
            }
            let distance = (2.0 - value.widen()).max(NEAREST);
            let factor = d_values[slot] / B::Real::from_f64(distance);
            let (state, row) = (slot / codes.k * d, index as usize * d);
            for (out, &x) in of_units[row..row + d].iter_mut().zip(&states[state..state + d]) {
                *out += factor * x;
            }
        }
        // dw = (dŵ − ŵ ⟨ŵ, dŵ⟩) / ‖w‖.
        let of_rows = total.chunks_exact_mut(d).zip(of_units.chunks_exact(d)).zip(rows.chunks_exact(d)).zip(&norms);
        for (((total, of_unit), row), &norm) in of_rows.filter(|(_, norm)| **norm > B::Real::from_f64(0.0)) {
            let along = dot(of_unit, row);
            for ((total, &x), &w) in total.iter_mut().zip(of_unit).zip(row) {
                *total += (x - w * along) / norm;
            }
        }
    }
    for m in Modality::ALL {
        let gradient = &mut gradients.of_mut(m).w_enc_t;
        let mut sum = backend.read_vec(gradient, latents * d)?;
        sum.iter_mut().zip(&total).for_each(|(sum, &x)| *sum += x);
        backend.write(gradient, 0, &sum)?;
    }
    Ok(())
}

/// The dictionary whose ordinary pre-activations of states of unit length are cos + 2: positive, so that Top-k takes the k nearest rows.
pub(crate) fn shifted(dictionary: &HostDictionary<f32>) -> HostDictionary<f32> {
    let (d, latents) = (dictionary.d, dictionary.latents);
    let (rows, _) = units(&crate::params::transpose(&dictionary.w_enc, d, latents), d);
    HostDictionary {
        w_enc: crate::params::transpose(&rows, latents, d),
        b_enc: vec![2.0; latents],
        ..HostDictionary::zeros(d, latents)
    }
}

/// Divides each state by its length.
pub(crate) fn normalise(states: &mut [f32], d: usize) {
    let (units, _) = units(states, d);
    states.copy_from_slice(&units);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_two_less_the_distance() {
        assert_eq!(activation(1.0f64), 2.0);
        assert_eq!(activation(-1.0f64), 0.0);
        assert!((activation(0.0f64) - (2.0 - 2f64.sqrt())).abs() < 1e-15);
        // A cosine that rounding took beyond 1.
        assert_eq!(activation(1.0f64 + 1e-15), 2.0);
    }

    #[test]
    fn rows_of_zeros_stay() {
        assert_eq!(units(&[3.0, 4.0, 0.0, 0.0], 2), (vec![0.6, 0.8, 0.0, 0.0], vec![5.0, 0.0]));
    }
}
