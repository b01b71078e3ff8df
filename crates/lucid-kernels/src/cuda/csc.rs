//! Gradients of dictionary rows, latent by latent: launches of csc.cu.

use std::ops::Range;

use super::Cuda;
use super::decode::threads;
use super::driver::Driver;
use super::gather::{self, stride};
use super::launcher::{Columns, Context, State, blocks, launch, narrow, slots};
use crate::codes::Codes;
use crate::error::KernelError;

/// Entries of a latent that one block adds; csc.cu has the same number.
const SEGMENT: usize = 1024;

/// Shared memory for the places of latents.
const PLACES: usize = 32 << 10;

/// The slots of `codes` by latent, sorted where that was not done already.
fn columns<'a, D: Driver>(
    context: &Context<D>,
    state: &'a mut State<D>,
    codes: &Codes<Cuda<D>>,
    latents: usize,
) -> Result<&'a Columns<D>, KernelError> {
    let (n, k) = (codes.n, codes.k);
    narrow("tokens × slots", n * k)?;
    let State { columns, counts, totals, .. } = state;
    let key = (codes.indices.stamp(), n, k);
    columns.get_or_make(
        |&known| known == key,
        || key,
        |old| {
            let make = || {
                Ok::<_, KernelError>(Columns {
                    entries: context.buffer(0)?,
                    offsets: context.buffer(0)?,
                    cuts: context.buffer(0)?,
                })
            };
            let mut columns = old.map_or_else(make, Ok)?;
            columns.entries.reserve(n * k)?;
            columns.offsets.reserve(latents + 1)?;
            columns.cuts.reserve(latents + 1)?;
            let chunk = n.div_ceil(1024).max(32);
            let chunks = n.div_ceil(chunk);
            counts.reserve(chunks * latents)?;
            counts.clear(chunks * latents)?;
            totals.reserve(latents)?;
            let (indices, _) = slots(codes);
            let (k, width) = (narrow("k", k)?, narrow("latents", latents)?);
            let (chunk, grid) = (narrow("tokens", chunk)?, narrow("tokens", chunks)?);
            let counts = counts.write_at(chunks * latents);
            let totals = totals.write_at(latents);
            let (offsets, cuts) = (columns.offsets.write_at(latents + 1), columns.cuts.write_at(latents + 1));
            let entries = columns.entries.write_at(n * codes.k);
            launch!(context, "csc_count", [grid, 1, 1], 32, 0; indices, n as u64, k, chunk, width, counts)?;
            launch!(context, "csc_scan_chunks", [blocks(latents, 32), 1, 1], 256, 0; counts, grid, width, totals)?;
            launch!(context, "csc_scan_latents", [1, 1, 1], 1024, 0; totals, width, offsets, cuts)?;
            let inside = if latents * size_of::<u32>() <= PLACES { latents } else { 0 };
            launch!(context, "csc_place", [grid, 1, 1], 32, inside * size_of::<u32>();
                indices, n as u64, k, chunk, width, narrow("latents", inside)?, offsets, counts, entries)?;
            Ok(columns)
        },
    )
}

/// What the rows of a dictionary gather: Σ weight (row − subtract).
pub struct Gathered {
    pub weights: u64,
    pub rows: u64,
    pub subtract: u64,
    pub out: u64,
    pub bias: u64,
}

/// Adds to dictionary rows of `range` what their slots say.
pub fn gather<D: Driver>(
    context: &Context<D>,
    codes: &Codes<Cuda<D>>,
    latents: usize,
    d: usize,
    range: &Range<usize>,
    gathered: &Gathered,
) -> Result<(), KernelError> {
    let state = &mut *context.state();
    let segments = 2 * codes.n * codes.k / SEGMENT;
    state.partial.reserve(segments * d)?;
    state.partial_bias.reserve(segments)?;
    let (partial, partial_bias) = (state.partial.write_at(segments * d), state.partial_bias.write_at(segments));
    let columns = columns(context, state, codes, latents)?;
    let (entries, offsets, cuts) = (
        columns.entries.read_at(codes.n * codes.k),
        columns.offsets.read_at(latents + 1),
        columns.cuts.read_at(latents + 1),
    );
    let Gathered { weights, rows, subtract, out, bias } = *gathered;
    let (first, end) = (narrow("latents", range.start)?, narrow("latents", range.end)?);
    let (k, width, d) = (narrow("k", codes.k)?, d, narrow("d", d)?);
    let (grid, latents) = ([narrow("latents", latents + segments)?, 1, 1], narrow("latents", latents)?);
    if context.rounds() {
        let n = codes.n;
        gather::rounded(context, (rows, subtract), (n, width), &mut state.rows)?;
        let (rows, stride) = (state.rows.read_at(n * stride(width)), narrow("d", stride(width))?);
        launch!(context, "csc_rows_bf16", grid, threads(width), 0;
            entries, offsets, cuts, latents, first, end, k, weights, rows, stride, d, out, bias, partial, partial_bias)?;
    } else {
        launch!(context, "csc_rows", grid, threads(width), 0;
            entries, offsets, cuts, latents, first, end, k, weights, rows, subtract, d, out, bias, partial, partial_bias)?;
    }
    if segments == 0 || range.is_empty() {
        return Ok(());
    }
    launch!(context, "csc_combine", [end - first, 1, 1], 128, 0;
        cuts, first, end, partial, partial_bias, d, out, bias)
}

/// out += scale · Σ weight row over `count` rows; weight 1 where `weights` is null.
pub fn column_sums<D: Driver>(
    context: &Context<D>,
    (rows, weights): (u64, u64),
    count: usize,
    d: usize,
    scale: f32,
    out: u64,
) -> Result<(), KernelError> {
    let state = &mut *context.state();
    let each = count.div_ceil(1024).max(128);
    let parts = count.div_ceil(each);
    state.partial.reserve(parts * d)?;
    let partial = state.partial.write_at(parts * d);
    let (parts, width) = (narrow("tokens", parts)?, narrow("d", d)?);
    let across = narrow("d", d.div_ceil(128))?;
    launch!(context, "columns_partial", [parts, across, 1], 128, 0;
        rows, weights, count as u64, narrow("tokens", each)?, width, partial)?;
    launch!(context, "columns_combine", [narrow("d", d.div_ceil(32))?, 1, 1], 512, 0; partial, parts, width, scale, out)
}
