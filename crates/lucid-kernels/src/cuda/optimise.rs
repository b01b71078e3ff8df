//! AdamW and the unit sphere: launches of optimise.cu.

use super::driver::Driver;
use super::launcher::{blocks, launch, narrow};
use super::loss::sum;
use super::{Buffer, Cuda};
use crate::backend::{AdamW, Optimise};
use crate::error::KernelError;

impl<D: Driver> Optimise for Cuda<D> {
    fn sum_squares(
        &self,
        values: &Buffer<f32, D>,
        len: usize,
        sums: &mut Buffer<f64, D>,
        slot: usize,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        sum(
            context,
            len,
            sums,
            slot,
            |partial, parts| launch!(context, "squares_partial", [parts, 1, 1], 256, 0; values.read_at(len), len as u64, partial),
        )
    }

    fn project_rows(
        &self,
        weights: &Buffer<f32, D>,
        rows: usize,
        d: usize,
        gradient: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        launch!(context, "project_rows", [blocks(rows, 8), 1, 1], 256, 0;
            weights.read_at(rows * d), rows as u64, narrow("d", d)?, gradient.write_at(rows * d))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn adamw(
        &self,
        parameter: &mut Buffer<f32, D>,
        gradient: &Buffer<f32, D>,
        first: &mut Buffer<f32, D>,
        second: &mut Buffer<f32, D>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let AdamW { lr, beta1, beta2, eps, weight_decay, gradient_scale, count } = constants;
        let t = count as f64;
        launch!(context, "adamw", [blocks(len, 256 * 4), 1, 1], 256, 0;
            parameter.write_at(len), gradient.read_at(len), first.write_at(len), second.write_at(len), len as u64,
            gradient_scale as f32, (1.0 - lr * weight_decay) as f32, (lr / (1.0 - beta1.powf(t))) as f32,
            (1.0 - beta2.powf(t)).sqrt() as f32, eps as f32, beta1 as f32, beta2 as f32, (1.0 - beta1) as f32,
            (1.0 - beta2) as f32)
    }

    fn normalise_rows(&self, weights: &mut Buffer<f32, D>, rows: usize, d: usize) -> Result<(), KernelError> {
        let context = &*self.context;
        launch!(context, "normalise_rows", [blocks(rows, 8), 1, 1], 256, 0;
            weights.write_at(rows * d), rows as u64, narrow("d", d)?)
    }
}
