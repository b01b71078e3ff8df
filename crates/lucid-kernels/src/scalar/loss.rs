//! Squared residuals and segment means (spec 4.1).

use super::Scalar;
use super::add_scaled;
use crate::backend::{Factor, Loss};
use crate::error::KernelError;
use crate::ragged::Ragged;
use crate::real::Real;

impl<R: Real> Loss for Scalar<R> {
    /// Adds Σ (p − t)² to a slot and leaves factor · (p − t) in p.
    fn residual(
        &self,
        prediction: &mut Vec<R>,
        target: &Vec<R>,
        len: usize,
        factor: Factor,
        sums: &mut Vec<f64>,
        slot: usize,
    ) -> Result<(), KernelError> {
        let prediction = &mut prediction[..len];
        let target = &target[..len];
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
        Ok(())
    }

    fn difference(&self, a: &Vec<R>, b: &Vec<R>, len: usize, out: &mut Vec<R>) -> Result<(), KernelError> {
        for i in 0..len {
            out[i] = a[i] - b[i];
        }
        Ok(())
    }

    /// Mean row of every segment.
    fn segment_mean(&self, values: &Vec<R>, segments: &Ragged, d: usize, out: &mut Vec<R>) -> Result<(), KernelError> {
        for segment in 0..segments.len() {
            let out = &mut out[segment * d..(segment + 1) * d];
            out.fill(R::zero());
            for row in segments.range(segment) {
                add_scaled(out, R::one(), &values[row * d..(row + 1) * d]);
            }
            let count = R::from_f64(segments.length(segment) as f64);
            out.iter_mut().for_each(|value| *value /= count);
        }
        Ok(())
    }

    /// Every row of a segment gets the segment's gradient divided by its length.
    fn segment_mean_backward(
        &self,
        grad: &Vec<R>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        for segment in 0..segments.len() {
            let share = R::one() / R::from_f64(segments.length(segment) as f64);
            for row in segments.range(segment) {
                add_scaled(&mut d_values[row * d..(row + 1) * d], share, &grad[segment * d..(segment + 1) * d]);
            }
        }
        Ok(())
    }
}
