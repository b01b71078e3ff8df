//! Losses, means and sums: launches of loss.cu.

use super::Buffer;
use super::driver::Driver;
use super::launcher::{Context, blocks, launch, narrow, sum_blocks};
use crate::backend::Factor;
use crate::error::KernelError;
use crate::ragged::Ragged;

/// A sum over `len` values in two launches: `partial` gets the address of the blocks' sums and their number and launches
/// what fills them; their total is added to `sums[slot]`.
fn sum<D: Driver>(
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

pub(super) fn residual<D: Driver>(
    context: &Context<D>,
    prediction: &mut Buffer<f32, D>,
    target: &Buffer<f32, D>,
    len: usize,
    factor: Factor,
    sums: &mut Buffer<f64, D>,
    slot: usize,
) -> Result<(), KernelError> {
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

pub(super) fn sum_squares<D: Driver>(
    context: &Context<D>,
    values: &Buffer<f32, D>,
    len: usize,
    sums: &mut Buffer<f64, D>,
    slot: usize,
) -> Result<(), KernelError> {
    sum(
        context,
        len,
        sums,
        slot,
        |partial, parts| launch!(context, "squares_partial", [parts, 1, 1], 256, 0; values.read_at(len), len as u64, partial),
    )
}

pub(super) fn transport_cost<D: Driver>(
    context: &Context<D>,
    cost: &Buffer<f32, D>,
    plan: &Buffer<f32, D>,
    cells: usize,
    sums: &mut Buffer<f64, D>,
    slot: usize,
) -> Result<(), KernelError> {
    sum(context, cells, sums, slot, |partial, parts| {
        launch!(context, "products_partial", [parts, 1, 1], 256, 0;
            cost.read_at(cells), plan.read_at(cells), cells as u64, partial)
    })
}

#[allow(clippy::cast_possible_truncation)]
pub(super) fn transport_cost_backward<D: Driver>(
    context: &Context<D>,
    cost: &Buffer<f32, D>,
    plan: &Buffer<f32, D>,
    cells: usize,
    scale: f64,
    d_cost: &mut Buffer<f32, D>,
    d_plan: Option<&mut Buffer<f32, D>>,
) -> Result<(), KernelError> {
    let d_plan = d_plan.map_or(0, |d_plan| d_plan.write_at(cells));
    launch!(context, "products_backward", [blocks(cells, 256 * 4), 1, 1], 256, 0;
        cost.read_at(cells), plan.read_at(cells), cells as u64, scale as f32, d_cost.write_at(cells), d_plan)
}

pub(super) fn difference<D: Driver>(
    context: &Context<D>,
    a: &Buffer<f32, D>,
    b: &Buffer<f32, D>,
    len: usize,
    out: &mut Buffer<f32, D>,
) -> Result<(), KernelError> {
    launch!(context, "difference", [blocks(len, 256 * 4), 1, 1], 256, 0;
        a.read_at(len), b.read_at(len), len as u64, out.write_at(len))
}

pub(super) fn segment_mean<D: Driver>(
    context: &Context<D>,
    values: &Buffer<f32, D>,
    segments: &Ragged,
    d: usize,
    out: &mut Buffer<f32, D>,
) -> Result<(), KernelError> {
    if segments.is_empty() {
        return Ok(());
    }
    let offsets = context.state().segments(&context.driver, segments)?;
    let grid = [narrow("pairs", segments.len())?, blocks(d, 256), 1];
    launch!(context, "segment_mean", grid, 256, 0;
        values.read_at(segments.total() * d), offsets, narrow("d", d)?, out.write_at(segments.len() * d))
}

pub(super) fn segment_mean_backward<D: Driver>(
    context: &Context<D>,
    grad: &Buffer<f32, D>,
    segments: &Ragged,
    d: usize,
    d_values: &mut Buffer<f32, D>,
) -> Result<(), KernelError> {
    if segments.is_empty() {
        return Ok(());
    }
    let offsets = context.state().segments(&context.driver, segments)?;
    let grid = [narrow("pairs", segments.len())?, blocks(d, 256), 1];
    launch!(context, "segment_mean_backward", grid, 256, 0;
        grad.read_at(segments.len() * d), offsets, narrow("d", d)?, d_values.write_at(segments.total() * d))
}
