//! Losses, means and sums: launches of loss.cu.

use super::driver::Driver;
use super::launcher::{Context, blocks, launch, narrow, sum_blocks};
use super::{Buffer, Cuda};
use crate::backend::{Factor, Loss};
use crate::error::KernelError;
use crate::ragged::Ragged;

/// A sum over `len` values in two launches: `partial` gets the address of the blocks' sums and their number and launches
/// what fills them; their total is added to `sums[slot]`.
pub(super) fn sum<D: Driver>(
    context: &Context<D>,
    len: usize,
    sums: &mut Buffer<f64, D>,
    slot: usize,
    partial: impl FnOnce(u64, u32) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let state = &mut *context.state();
    let parts = sum_blocks(len);
    state.sums.reserve(parts as usize)?;
    let address = state.sums.write_at(parts as usize);
    partial(address, parts)?;
    let (sums, slot) = (sums.write_at(slot + 1), narrow("slot", slot)?);
    launch!(context, "sum_partial", [1, 1, 1], 256, 0; address, parts, sums, slot)
}

impl<D: Driver> Loss for Cuda<D> {
    fn residual(
        &self,
        prediction: &mut Buffer<f32, D>,
        target: &Buffer<f32, D>,
        len: usize,
        factor: Factor,
        sums: &mut Buffer<f64, D>,
        slot: usize,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let (constant, of, from) = match factor {
            Factor::Constant(value) => (value, 0, 0),
            Factor::Over { numerator, slot } => (numerator, sums.read_at(slot + 1), narrow("slot", slot)?),
        };
        let (prediction, target) = (prediction.write_at(len), target.read_at(len));
        sum(context, len, sums, slot, |partial, parts| {
            launch!(context, "residual_partial", [parts, 1, 1], 256, 0;
                prediction, target, len as u64, constant, of, from, partial)
        })
    }

    fn difference(
        &self,
        a: &Buffer<f32, D>,
        b: &Buffer<f32, D>,
        len: usize,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        launch!(context, "difference", [blocks(len, 256 * 4), 1, 1], 256, 0;
            a.read_at(len), b.read_at(len), len as u64, out.write_at(len))
    }

    fn segment_mean(
        &self,
        values: &Buffer<f32, D>,
        segments: &Ragged,
        d: usize,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if segments.is_empty() {
            return Ok(());
        }
        let offsets = context.state().segments(&context.driver, segments)?;
        let grid = [narrow("pairs", segments.len())?, blocks(d, 256), 1];
        launch!(context, "segment_mean", grid, 256, 0;
            values.read_at(segments.total() * d), offsets, narrow("d", d)?, out.write_at(segments.len() * d))
    }

    fn segment_mean_backward(
        &self,
        grad: &Buffer<f32, D>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if segments.is_empty() {
            return Ok(());
        }
        let offsets = context.state().segments(&context.driver, segments)?;
        let grid = [narrow("pairs", segments.len())?, blocks(d, 256), 1];
        launch!(context, "segment_mean_backward", grid, 256, 0;
            grad.read_at(segments.len() * d), offsets, narrow("d", d)?, d_values.write_at(segments.total() * d))
    }
}
