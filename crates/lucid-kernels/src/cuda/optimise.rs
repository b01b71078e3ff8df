//! AdamW and the unit sphere: launches of optimise.cu.

use super::driver::Driver;
use super::encode::{packed_len, width};
use super::gather::stride;
use super::launcher::{blocks, launch, narrow};
use super::loss::sum;
use super::{Buffer, Cuda};
use crate::backend::{AdamW, Optimise};
use crate::error::KernelError;

/// Constants as the kernels take them: scale, keep, rate, correction, eps, β₁, β₂, 1 − β₁, 1 − β₂.
#[allow(clippy::cast_possible_truncation)]
fn rounded(constants: AdamW) -> [f32; 9] {
    let AdamW { lr, beta1, beta2, eps, weight_decay, gradient_scale, count } = constants;
    let t = count as f64;
    let (rate, correction) = (lr / (1.0 - beta1.powf(t)), (1.0 - beta2.powf(t)).sqrt());
    [gradient_scale, 1.0 - lr * weight_decay, rate, correction, eps, beta1, beta2, 1.0 - beta1, 1.0 - beta2]
        .map(|value| value as f32)
}

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
        let [scale, keep, rate, correction, eps, beta1, beta2, c1, c2] = rounded(constants);
        launch!(context, "adamw", [blocks(len, 256 * 4), 1, 1], 256, 0;
            parameter.write_at(len), gradient.read_at(len), first.write_at(len), second.write_at(len), len as u64,
            scale, keep, rate, correction, eps, beta1, beta2, c1, c2)
    }

    /// What is derived from the rows and kept is made anew with them.
    fn adamw_rows(
        &self,
        parameter: &mut Buffer<f32, D>,
        gradient: &Buffer<f32, D>,
        first: &mut Buffer<f32, D>,
        second: &mut Buffer<f32, D>,
        (rows, d): (usize, usize),
        unit: bool,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let state = &mut *context.state();
        let (before, len, padded, stride) = (parameter.stamp(), rows * d, width(d), stride(d));
        let address = parameter.write_at(len);
        let (known, now) = ((before, rows as u64), (parameter.stamp(), rows as u64));
        let (hi, lo) = state.packed.get_mut(&known).map_or((0, 0), |packed| packed.write_at(packed_len(rows, d)));
        let rounded_rows = state.rounded.get_mut(&known).map_or(0, |rounded| rounded.write_at(rows * stride));
        let [scale, keep, rate, correction, eps, beta1, beta2, c1, c2] = rounded(constants);
        launch!(context, "adamw_rows", [blocks(rows, 8), 1, 1], 256, 0;
            address, gradient.read_at(len), first.write_at(len), second.write_at(len), rows as u64, narrow("d", d)?,
            u32::from(unit), scale, keep, rate, correction, eps, beta1, beta2, c1, c2, hi, lo, narrow("d", padded)?,
            rounded_rows, narrow("d", stride)?)?;
        state.packed.rename(&known, now);
        state.rounded.rename(&known, now);
        Ok(())
    }

    fn normalise_rows(&self, weights: &mut Buffer<f32, D>, rows: usize, d: usize) -> Result<(), KernelError> {
        let context = &*self.context;
        launch!(context, "normalise_rows", [blocks(rows, 8), 1, 1], 256, 0;
            weights.write_at(rows * d), rows as u64, narrow("d", d)?)
    }
}
