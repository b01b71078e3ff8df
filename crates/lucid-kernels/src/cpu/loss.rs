//! Residuals and means over segments.

use rayon::prelude::*;

use super::Cpu;
use super::parallel::{Disjoint, ordered_sum};
use super::simd::{axpy, dispatched};
use crate::ragged::Ragged;

/// Values of one task.
const CHUNK: usize = 1 << 15;

/// `prediction ← factor · (prediction − target)`; returns `Σ (prediction − target)²`, taken in f64.
pub(super) fn residual(cpu: &Cpu, prediction: &mut [f32], target: &[f32], factor: f32) -> f64 {
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

/// `out = a − b`.
pub(super) fn difference(cpu: &Cpu, a: &[f32], b: &[f32], out: &mut [f32]) {
    cpu.run(|| {
        out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(|(out, (a, b))| {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = a - b;
            }
        });
    });
}

/// `Backend::segment_mean`.
pub(super) fn segment_mean(cpu: &Cpu, values: &[f32], segments: &Ragged, d: usize, out: &mut [f32]) {
    cpu.run(|| {
        out[..segments.len() * d].par_chunks_exact_mut(d).enumerate().for_each(|(segment, out)| {
            let rows = segments.range(segment);
            out.fill(0.0);
            mean(cpu.arch, &values[rows.start * d..rows.end * d], d, out);
        });
    });
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

/// `Backend::segment_mean_backward`.
pub(super) fn segment_mean_backward(cpu: &Cpu, grad: &[f32], segments: &Ragged, d: usize, d_values: &mut [f32]) {
    let out = Disjoint::new(d_values);
    cpu.run(|| {
        (0..segments.len()).into_par_iter().for_each(|segment| {
            let rows = segments.range(segment);
            // SAFETY: segments do not overlap.
            let part = unsafe { out.part(rows.start * d..rows.end * d) };
            spread(cpu.arch, &grad[segment * d..(segment + 1) * d], part);
        });
    });
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
