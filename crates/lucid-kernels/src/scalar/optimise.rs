//! AdamW and the unit sphere of decoder rows (spec 5.1).

use super::{Scalar, add_scaled, dot};
use crate::backend::{AdamW, Optimise};
use crate::error::KernelError;
use crate::real::Real;

impl<R: Real> Optimise for Scalar<R> {
    fn sum_squares(&self, values: &Vec<R>, len: usize, sums: &mut Vec<f64>, slot: usize) -> Result<(), KernelError> {
        sums[slot] += values[..len].iter().map(|value| value.widen() * value.widen()).sum::<f64>();
        Ok(())
    }

    /// g ← g − (⟨g, w⟩ / ⟨w, w⟩) w, row by row.
    fn project_rows(&self, weights: &Vec<R>, rows: usize, d: usize, gradient: &mut Vec<R>) -> Result<(), KernelError> {
        let (weights, gradient) = (&weights[..rows * d], &mut gradient[..rows * d]);
        for (w, g) in weights.chunks_exact(d).zip(gradient.chunks_exact_mut(d)) {
            let square = dot(w, w);
            if square > R::zero() {
                let parallel = dot(g, w) / square;
                add_scaled(g, -parallel, w);
            }
        }
        Ok(())
    }

    /// p ← p (1 − lr·decay); m ← β₁m + (1−β₁)g; s ← β₂s + (1−β₂)g²;
    /// p ← p − lr · (m / (1−β₁ᵗ)) / (√(s / (1−β₂ᵗ)) + eps).
    fn adamw(
        &self,
        parameter: &mut Vec<R>,
        gradient: &Vec<R>,
        first: &mut Vec<R>,
        second: &mut Vec<R>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        let parameter = &mut parameter[..len];
        let AdamW { lr, beta1, beta2, eps, weight_decay, gradient_scale, count } = constants;
        let t = count as f64;
        let keep = R::from_f64(1.0 - lr * weight_decay);
        let (scale, eps) = (R::from_f64(gradient_scale), R::from_f64(eps));
        let rate = R::from_f64(lr / (1.0 - beta1.powf(t)));
        let second_correction = R::from_f64((1.0 - beta2.powf(t)).sqrt());
        let (b1, b2) = (R::from_f64(beta1), R::from_f64(beta2));
        let (c1, c2) = (R::from_f64(1.0 - beta1), R::from_f64(1.0 - beta2));
        for i in 0..parameter.len() {
            let g = scale * gradient[i];
            first[i] = b1 * first[i] + c1 * g;
            second[i] = b2 * second[i] + c2 * g * g;
            parameter[i] = keep * parameter[i] - rate * first[i] / (second[i].sqrt() / second_correction + eps);
        }
        Ok(())
    }

    /// w ← w / |w|, row by row.
    fn normalise_rows(&self, weights: &mut Vec<R>, rows: usize, d: usize) -> Result<(), KernelError> {
        let weights = &mut weights[..rows * d];
        for w in weights.chunks_exact_mut(d) {
            let norm = dot(w, w).sqrt();
            if norm > R::zero() {
                w.iter_mut().for_each(|value| *value /= norm);
            }
        }
        Ok(())
    }
}
