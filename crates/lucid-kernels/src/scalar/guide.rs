//! Guided transport cost and marginals (spec 3), and their way back to the codes.

use super::{Scalar, shared_entries};
use crate::backend::Guide;
use crate::codes::Codes;
use crate::error::KernelError;
use crate::ragged::{Pairs, Ragged};
use crate::real::Real;

/// |z_s| of a token.
fn norm<R: Real>(codes: &Codes<Scalar<R>>, token: usize) -> R {
    shared_entries(codes, token).map(|(_, _, value)| value * value).sum::<R>().sqrt()
}

/// A token's shared code as a dense vector \[d_shared\].
fn dense<R: Real>(codes: &Codes<Scalar<R>>, token: usize) -> Vec<R> {
    let mut out = vec![R::zero(); codes.shape.d_shared];
    for (_, latent, value) in shared_entries(codes, token) {
        out[latent] = value;
    }
    out
}

/// g = mean_i z_i over the patches of a pair, \[d_shared\], and its norm.
fn global_code<R: Real>(vision: &Codes<Scalar<R>>, patches: std::ops::Range<usize>) -> (Vec<R>, R) {
    let count = R::from_f64(patches.len() as f64);
    let mut g = vec![R::zero(); vision.shape.d_shared];
    for i in patches {
        for (_, latent, value) in shared_entries(vision, i) {
            g[latent] += value / count;
        }
    }
    let norm = g.iter().map(|&value| value * value).sum::<R>().sqrt();
    (g, norm)
}

/// δ over mean(w) (spec 3).
const DELTA: f64 = 1e-6;

impl<R: Real> Guide for Scalar<R> {
    /// C_ij = 1 − cos(z_i, z_j); the cosine with an all-zero code is 0.
    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        for pair in 0..pairs.len() {
            let mut cell = pairs.cells.range(pair).start;
            let columns: Vec<(R, Vec<R>)> =
                pairs.text.range(pair).map(|token| (norm(text, token), dense(text, token))).collect();
            for i in pairs.vision.range(pair) {
                let norm_i = norm(vision, i);
                for (norm_j, z_j) in &columns {
                    let inner: R = shared_entries(vision, i).map(|(_, latent, value)| value * z_j[latent]).sum();
                    let norms = norm_i * *norm_j;
                    let cosine = if norms > R::zero() { inner / norms } else { R::zero() };
                    cost[cell] = R::one() - cosine;
                    cell += 1;
                }
            }
        }
        Ok(())
    }

    /// ∂cos/∂z_i = z_j / (|z_i||z_j|) − cos · z_i / |z_i|², at the used slots of i; likewise for j.
    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Vec<R>,
        d_cost: &Vec<R>,
        d_vision: &mut Vec<R>,
        d_text: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        for pair in 0..pairs.len() {
            let mut cell = pairs.cells.range(pair).start;
            for i in pairs.vision.range(pair) {
                let (norm_i, z_i) = (norm(vision, i), dense(vision, i));
                for j in pairs.text.range(pair) {
                    let (norm_j, z_j) = (norm(text, j), dense(text, j));
                    let (cosine, d_cosine) = (R::one() - cost[cell], -d_cost[cell]);
                    cell += 1;
                    if norm_i == R::zero() || norm_j == R::zero() {
                        continue;
                    }
                    for (slot, latent, value) in shared_entries(vision, i) {
                        d_vision[slot] +=
                            d_cosine * (z_j[latent] / (norm_i * norm_j) - cosine * value / (norm_i * norm_i));
                    }
                    for (slot, latent, value) in shared_entries(text, j) {
                        d_text[slot] +=
                            d_cosine * (z_i[latent] / (norm_i * norm_j) - cosine * value / (norm_j * norm_j));
                    }
                }
            }
        }
        Ok(())
    }

    /// w_j = max(0, cos(g, z_j)).
    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        for pair in 0..pairs.len() {
            let (g, norm_g) = global_code(vision, pairs.vision.range(pair));
            for j in pairs.text.range(pair) {
                let inner: R = shared_entries(text, j).map(|(_, latent, value)| value * g[latent]).sum();
                let norms = norm_g * norm(text, j);
                weights[j] = if norms > R::zero() { (inner / norms).max(R::zero()) } else { R::zero() };
            }
        }
        Ok(())
    }

    /// The derivative of the cosine, as in [`Guide::cosine_cost_backward`], where w_j > 0; g passes it evenly to the patches.
    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Vec<R>,
        d_vision: &mut Vec<R>,
        d_text: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        for pair in 0..pairs.len() {
            let patches = pairs.vision.range(pair);
            let (g, norm_g) = global_code(vision, patches.clone());
            let mut d_g = vec![R::zero(); g.len()];
            for j in pairs.text.range(pair) {
                let norm_j = norm(text, j);
                let inner: R = shared_entries(text, j).map(|(_, latent, value)| value * g[latent]).sum();
                let norms = norm_g * norm_j;
                // At w_j = 0 the maximum is flat.
                if norms == R::zero() || inner <= R::zero() {
                    continue;
                }
                let (cosine, d_cosine) = (inner / norms, d_weights[j]);
                for (latent, value) in g.iter().enumerate() {
                    d_g[latent] -= d_cosine * cosine * *value / (norm_g * norm_g);
                }
                for (slot, latent, value) in shared_entries(text, j) {
                    d_g[latent] += d_cosine * value / norms;
                    d_text[slot] += d_cosine * (g[latent] / norms - cosine * value / (norm_j * norm_j));
                }
            }
            let count = R::from_f64(patches.len() as f64);
            for i in patches {
                for (slot, latent, _) in shared_entries(vision, i) {
                    d_vision[slot] += d_g[latent] / count;
                }
            }
        }
        Ok(())
    }

    /// 1 / T of each segment.
    fn uniform_marginal(&self, segments: &Ragged, out: &mut Vec<R>) -> Result<(), KernelError> {
        for segment in 0..segments.len() {
            out[segments.range(segment)].fill(R::one() / R::from_f64(segments.length(segment) as f64));
        }
        Ok(())
    }

    /// c = (w + δ) / Σ (w + δ); uniform where all w are zero.
    fn column_marginal(&self, weights: &Vec<R>, pairs: &Pairs, column: &mut Vec<R>) -> Result<(), KernelError> {
        for pair in 0..pairs.len() {
            let tokens = pairs.text.range(pair);
            let count = R::from_f64(tokens.len() as f64);
            let w = &weights[tokens.clone()];
            let mean = w.iter().copied().sum::<R>() / count;
            if mean > R::zero() {
                let delta = R::from_f64(DELTA) * mean;
                let total: R = w.iter().map(|&w| w + delta).sum();
                for (c, &w) in column[tokens].iter_mut().zip(w) {
                    *c = (w + delta) / total;
                }
            } else {
                column[tokens].fill(R::one() / count);
            }
        }
        Ok(())
    }

    /// With s = w + δ and S = Σ s: ds_j = (dc_j − Σ dc·c) / S, and δ passes its share of mean(w) to every weight.
    fn column_marginal_backward(
        &self,
        weights: &Vec<R>,
        pairs: &Pairs,
        d_column: &Vec<R>,
        d_weights: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        for pair in 0..pairs.len() {
            let tokens = pairs.text.range(pair);
            let count = R::from_f64(tokens.len() as f64);
            let (w, d_c) = (&weights[tokens.clone()], &d_column[tokens.clone()]);
            let mean = w.iter().copied().sum::<R>() / count;
            if mean <= R::zero() || mean.is_nan() {
                continue;
            }
            let delta = R::from_f64(DELTA) * mean;
            let total: R = w.iter().map(|&w| w + delta).sum();
            let common: R = w.iter().zip(d_c).map(|(&w, &d_c)| d_c * (w + delta) / total).sum();
            let d_s: Vec<R> = d_c.iter().map(|&d_c| (d_c - common) / total).collect();
            let through_delta = R::from_f64(DELTA) / count * d_s.iter().copied().sum::<R>();
            for (d_w, d_s) in d_weights[tokens].iter_mut().zip(d_s) {
                *d_w += d_s + through_delta;
            }
        }
        Ok(())
    }

    /// C̃_ij = C_ij + penalty (1 − M_ij) + λ (1 − w_j).
    fn guide_cost(
        &self,
        cost: &Vec<R>,
        pairs: &Pairs,
        admissible: Option<&Vec<R>>,
        mask_penalty: f64,
        weights: Option<&Vec<R>>,
        lambda: f64,
        guided: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        let (penalty, lambda) = (R::from_f64(mask_penalty), R::from_f64(lambda));
        for pair in 0..pairs.len() {
            let mut cell = pairs.cells.range(pair).start;
            for _ in pairs.vision.range(pair) {
                for j in pairs.text.range(pair) {
                    let mut value = cost[cell];
                    if let Some(mask) = admissible.filter(|mask| mask[cell] < R::one()) {
                        value += penalty * (R::one() - mask[cell]);
                    }
                    if let Some(weights) = weights {
                        value += lambda * (R::one() - weights[j]);
                    }
                    guided[cell] = value;
                    cell += 1;
                }
            }
        }
        Ok(())
    }

    /// dw_j += −λ Σ_i dC̃_ij.
    fn guide_cost_backward(
        &self,
        d_guided: &Vec<R>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        let lambda = R::from_f64(lambda);
        for pair in 0..pairs.len() {
            let mut cell = pairs.cells.range(pair).start;
            for _ in pairs.vision.range(pair) {
                for j in pairs.text.range(pair) {
                    d_weights[j] -= lambda * d_guided[cell];
                    cell += 1;
                }
            }
        }
        Ok(())
    }
}
