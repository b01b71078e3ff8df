//! AdamW, row norms and sums of squares.

use rayon::prelude::*;

use super::Cpu;
use super::parallel::ordered_sum;
use super::simd::{axpy, dispatched, dot};
use crate::backend::{AdamW, Optimise};
use crate::error::KernelError;

/// Values of one task.
const CHUNK: usize = 1 << 15;
/// Rows of one task.
const ROWS: usize = 64;

/// `Σ x²` in f64.
fn sum_squares(cpu: &Cpu, values: &[f32]) -> f64 {
    cpu.run(|| ordered_sum(values.len(), |range| sum_squares_of(cpu.arch, &values[range])))
}

dispatched! {
    fn sum_squares_of<S>(_simd, values: &'a [f32]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (eights, rest) = values.as_chunks::<8>();
        for eight in eights {
            for lane in 0..8 {
                let x = f64::from(eight[lane]);
                lanes[lane] += x * x;
            }
        }
        for (lane, &x) in rest.iter().enumerate() {
            lanes[lane] += f64::from(x) * f64::from(x);
        }
        lanes.iter().sum()
    }
}

dispatched! {
    fn project<S>(simd, weights: &'a [f32], d: usize, gradient: &'a mut [f32]) {
        for (g, w) in gradient.chunks_exact_mut(d).zip(weights.chunks_exact(d)) {
            let norm = dot(simd, w, w);
            if norm > 0.0 {
                let factor = dot(simd, g, w) / norm;
                axpy(simd, -factor, w, g);
            }
        }
    }
}

dispatched! {
    fn normalise<S>(simd, d: usize, rows: &'a mut [f32]) {
        for row in rows.chunks_exact_mut(d) {
            let norm = dot(simd, row, row).sqrt();
            if norm > 0.0 {
                for value in row {
                    *value /= norm;
                }
            }
        }
    }
}

/// The constants of one element's update, rounded once.
#[derive(Clone, Copy)]
struct Update {
    gradient_scale: f32,
    decay: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// lr / (1 − β₁ᵗ).
    rate: f32,
    /// √(1 − β₂ᵗ).
    correction: f32,
    eps: f32,
}

impl Update {
    #[allow(clippy::cast_possible_truncation)]
    fn new(c: AdamW) -> Self {
        let count = c.count as f64;
        Self {
            gradient_scale: c.gradient_scale as f32,
            decay: (1.0 - c.lr * c.weight_decay) as f32,
            beta1: c.beta1 as f32,
            one_minus_beta1: (1.0 - c.beta1) as f32,
            beta2: c.beta2 as f32,
            one_minus_beta2: (1.0 - c.beta2) as f32,
            rate: (c.lr / (1.0 - c.beta1.powf(count))) as f32,
            correction: (1.0 - c.beta2.powf(count)).sqrt() as f32,
            eps: c.eps as f32,
        }
    }
}

dispatched! {
    fn update_part<S>(
        _simd,
        parameter: &'a mut [f32],
        gradient: &'a [f32],
        first: &'a mut [f32],
        second: &'a mut [f32],
        c: Update,
    ) {
        let Update { gradient_scale, decay, beta1, one_minus_beta1, beta2, one_minus_beta2, rate, correction, eps } = c;
        let n = parameter.len();
        let (gradient, first, second) = (&gradient[..n], &mut first[..n], &mut second[..n]);
        for i in 0..n {
            let g = gradient[i] * gradient_scale;
            let m = beta1 * first[i] + one_minus_beta1 * g;
            let v = beta2 * second[i] + one_minus_beta2 * (g * g);
            first[i] = m;
            second[i] = v;
            parameter[i] = parameter[i] * decay - rate * (m / (v.sqrt() / correction + eps));
        }
    }
}

impl Optimise for Cpu {
    fn sum_squares(&self, values: &Vec<f32>, len: usize, sums: &mut Vec<f64>, slot: usize) -> Result<(), KernelError> {
        sums[slot] += sum_squares(self, &values[..len]);
        Ok(())
    }

    fn project_rows(
        &self,
        weights: &Vec<f32>,
        rows: usize,
        d: usize,
        gradient: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let (weights, gradient) = (&weights[..rows * d], &mut gradient[..rows * d]);
        self.run(|| {
            gradient
                .par_chunks_mut(ROWS * d)
                .zip(weights.par_chunks(ROWS * d))
                .for_each(|(gradient, weights)| project(self.arch, weights, d, gradient));
        });
        Ok(())
    }

    fn adamw(
        &self,
        parameter: &mut Vec<f32>,
        gradient: &Vec<f32>,
        first: &mut Vec<f32>,
        second: &mut Vec<f32>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        let (parameter, gradient) = (&mut parameter[..len], &gradient[..len]);
        let (first, second) = (&mut first[..len], &mut second[..len]);
        let update = Update::new(constants);
        self.run(|| {
            parameter
                .par_chunks_mut(CHUNK)
                .zip(gradient.par_chunks(CHUNK))
                .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
                .for_each(|((parameter, gradient), (first, second))| {
                    update_part(self.arch, parameter, gradient, first, second, update);
                });
        });
        Ok(())
    }

    fn normalise_rows(&self, weights: &mut Vec<f32>, rows: usize, d: usize) -> Result<(), KernelError> {
        let weights = &mut weights[..rows * d];
        self.run(|| weights.par_chunks_mut(ROWS * d).for_each(|rows| normalise(self.arch, d, rows)));
        Ok(())
    }
}
