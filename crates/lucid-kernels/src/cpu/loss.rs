//! Residuals and means over segments.

use rayon::prelude::*;

use super::Cpu;
use super::parallel::{Disjoint, ordered_sum};
use super::simd::{axpy, dispatched};
use crate::backend::{Factor, Loss};
use crate::error::KernelError;
use crate::ragged::Ragged;

/// Values of one task.
const CHUNK: usize = 1 << 15;

/// `prediction ← factor · (prediction − target)`; returns `Σ (prediction − target)²`, taken in f64.
fn residual(cpu: &Cpu, prediction: &mut [f32], target: &[f32], factor: f32) -> f64 {
    let len = prediction.len();
    let out = Disjoint::new(prediction);
    cpu.run(|| {
        ordered_sum(len, |range| {
            // SAFETY: each task has its own range.
            let part = unsafe { out.part(range.clone()) };
            residual_part(cpu.arch, part, &target[range], factor)
        })
    })
}

dispatched! {
    fn residual_part<S>(_simd, prediction: &'a mut [f32], target: &'a [f32], factor: f32) -> f64 {
        let mut lanes = [0.0f64; 8];
        let target = &target[..prediction.len()];
        let (eights, rest) = prediction.as_chunks_mut::<8>();
        let (target_eights, target_rest) = target.as_chunks::<8>();
        for (p, t) in eights.iter_mut().zip(target_eights) {
            for lane in 0..8 {
                let difference = p[lane] - t[lane];
                p[lane] = factor * difference;
                lanes[lane] += f64::from(difference) * f64::from(difference);
            }
        }
        for (lane, (p, t)) in rest.iter_mut().zip(target_rest).enumerate() {
            let difference = *p - t;
            *p = factor * difference;
            lanes[lane] += f64::from(difference) * f64::from(difference);
        }
        lanes.iter().sum()
    }
}

dispatched! {
    fn mean<S>(simd, values: &'a [f32], d: usize, out: &'a mut [f32]) {
        for row in values.chunks_exact(d) {
            axpy(simd, 1.0, row, out);
        }
        let rows = (values.len() / d) as f32;
        if rows > 0.0 {
            for value in out {
                *value /= rows;
            }
        }
    }
}

dispatched! {
    fn spread<S>(simd, grad: &'a [f32], out: &'a mut [f32]) {
        let d = grad.len();
        let factor = 1.0 / (out.len() / d) as f32;
        for row in out.chunks_exact_mut(d) {
            axpy(simd, factor, grad, row);
        }
    }
}

impl Loss for Cpu {
    #[allow(clippy::cast_possible_truncation)]
    fn residual(
        &self,
        prediction: &mut Vec<f32>,
        target: &Vec<f32>,
        len: usize,
        factor: Factor,
        sums: &mut Vec<f64>,
        slot: usize,
    ) -> Result<(), KernelError> {
        let factor = match factor {
            Factor::Constant(value) => value,
            Factor::Over { slot, .. } if sums[slot] == 0.0 => 0.0,
            Factor::Over { numerator, slot } => numerator / sums[slot],
        };
        sums[slot] += residual(self, &mut prediction[..len], &target[..len], factor as f32);
        Ok(())
    }

    /// `out = a − b`.
    fn difference(&self, a: &Vec<f32>, b: &Vec<f32>, len: usize, out: &mut Vec<f32>) -> Result<(), KernelError> {
        let a = &a[..len];
        let b = &b[..len];
        let out = &mut out[..len];
        self.run(|| {
            out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(|(out, (a, b))| {
                for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                    *out = a - b;
                }
            });
        });
        Ok(())
    }

    fn segment_mean(
        &self,
        values: &Vec<f32>,
        segments: &Ragged,
        d: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        self.run(|| {
            out[..segments.len() * d].par_chunks_exact_mut(d).enumerate().for_each(|(segment, out)| {
                let rows = segments.range(segment);
                out.fill(0.0);
                mean(self.arch, &values[rows.start * d..rows.end * d], d, out);
            });
        });
        Ok(())
    }

    fn segment_mean_backward(
        &self,
        grad: &Vec<f32>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let out = Disjoint::new(d_values);
        self.run(|| {
            (0..segments.len()).into_par_iter().for_each(|segment| {
                let rows = segments.range(segment);
                // SAFETY: segments do not overlap.
                let part = unsafe { out.part(rows.start * d..rows.end * d) };
                spread(self.arch, &grad[segment * d..(segment + 1) * d], part);
            });
        });
        Ok(())
    }
}
