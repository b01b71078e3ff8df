//! Squared residuals and segment means (spec 4.1).

use super::add_scaled;
use crate::backend::Factor;
use crate::ragged::Ragged;
use crate::real::Real;

/// Adds Σ (p − t)² to a slot and leaves factor · (p − t) in p.
pub(super) fn residual<R: Real>(prediction: &mut [R], target: &[R], factor: Factor, sums: &mut [f64], slot: usize) {
    let factor = R::from_f64(match factor {
        Factor::Constant(value) => value,
        Factor::Over { slot, .. } if sums[slot] == 0.0 => 0.0,
        Factor::Over { numerator, slot } => numerator / sums[slot],
    });
    let mut sum = 0.0;
    for (p, &t) in prediction.iter_mut().zip(target) {
        let difference = *p - t;
        sum += difference.widen() * difference.widen();
        *p = factor * difference;
    }
    sums[slot] += sum;
}

/// Mean row of every segment.
pub(super) fn segment_mean<R: Real>(values: &[R], segments: &Ragged, d: usize, out: &mut [R]) {
    for segment in 0..segments.len() {
        let out = &mut out[segment * d..(segment + 1) * d];
        out.fill(R::zero());
        for row in segments.range(segment) {
            add_scaled(out, R::one(), &values[row * d..(row + 1) * d]);
        }
        let count = R::from_f64(segments.length(segment) as f64);
        out.iter_mut().for_each(|value| *value /= count);
    }
}

/// Every row of a segment gets the segment's gradient divided by its length.
pub(super) fn segment_mean_backward<R: Real>(grad: &[R], segments: &Ragged, d: usize, d_values: &mut [R]) {
    for segment in 0..segments.len() {
        let share = R::one() / R::from_f64(segments.length(segment) as f64);
        for row in segments.range(segment) {
            add_scaled(&mut d_values[row * d..(row + 1) * d], share, &grad[segment * d..(segment + 1) * d]);
        }
    }
}
