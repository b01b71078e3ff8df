//! Rows gathered on the device, and rounded: the launches of gather.cu.

use super::Buffer;
use super::driver::Driver;
use super::launcher::half_bits::Half;
use super::launcher::{Context, blocks, launch, narrow};
use crate::error::KernelError;
use crate::ragged::Ragged;

pub(super) fn rows<D: Driver>(
    context: &Context<D>,
    values: &Buffer<f32, D>,
    starts: &[usize],
    segments: &Ragged,
    d: usize,
    out: &mut Buffer<f32, D>,
) -> Result<(), KernelError> {
    if segments.is_empty() || d == 0 {
        return Ok(());
    }
    let last = starts.iter().enumerate().map(|(segment, &start)| start + segments.length(segment)).max();
    let values = values.read_at(last.unwrap_or(0) * d);
    let state = &mut *context.state();
    let wide: Vec<u64> = starts.iter().map(|&start| start as u64).collect();
    state.starts.reserve(wide.len())?;
    state.starts.write(0, &wide)?;
    let offsets = state.segments(&context.driver, segments)?;
    let grid = [narrow("pairs", segments.len())?, blocks(segments.longest() * d, 256 * 16).min(64), 1];
    launch!(context, "gather_rows", grid, 256, 0;
        values, state.starts.read_at(wide.len()), offsets, narrow("d", d)?, out.write_at(segments.total() * d))
}

/// Values from one rounded row of width `d` to the next: each starts on a boundary of 16 bytes.
pub(super) const fn stride(d: usize) -> usize {
    d.next_multiple_of(8)
}

/// `n` rows of `d` values, less `subtract` where that is not 0, rounded to bf16: `out` \[n · stride\].
pub(super) fn rounded<D: Driver>(
    context: &Context<D>,
    (rows, subtract): (u64, u64),
    (n, d): (usize, usize),
    out: &mut Buffer<Half, D>,
) -> Result<(), KernelError> {
    let len = n * stride(d);
    out.reserve(len)?;
    launch!(context, "round_rows", [blocks(len / 8, 256 * 4), 1, 1], 256, 0;
        rows, subtract, n as u64, narrow("d", d)?, narrow("d", stride(d))?, out.write_at(len))
}
