//! Decoder and the gradients of dictionary rows: launches of decode.cu and csc.cu.

use std::ops::Range;

use super::driver::Driver;
use super::gather::{self, stride};
use super::launcher::{Columns, Context, State, blocks, launch, narrow, slots};
use super::{Buffer, Cuda};
use crate::codes::{Block, CodeShape, Codes, Dictionary, Selection};
use crate::error::KernelError;

/// Entries of a latent that one block adds; csc.cu has the same number.
const SEGMENT: usize = 1024;

/// Shared memory for the places of latents.
const PLACES: usize = 32 << 10;

/// Latents of a block. Every latent of `Joint` is below the number of latents, which an unused slot's index is not.
fn range(shape: CodeShape, block: Block) -> Range<usize> {
    match block {
        Block::Joint => 0..shape.latents(),
        Block::Shared => 0..shape.d_shared,
        Block::Private => shape.d_shared..shape.latents(),
    }
}

/// The slots of a token that hold latents of a block, others among them where a code is not divided.
fn slots_of<D: Driver>(codes: &Codes<Cuda<D>>, block: Block) -> Result<(u32, u32), KernelError> {
    let CodeShape { k_shared, selection, .. } = codes.shape;
    let divided = selection == Selection::Split && codes.k == codes.shape.k();
    let range = match block {
        Block::Shared if divided => 0..k_shared,
        Block::Private if divided => k_shared..codes.k,
        _ => 0..codes.k,
    };
    Ok((narrow("k", range.start)?, narrow("k", range.end)?))
}

/// Threads of a block that works on rows of `d` values, eight columns a thread where that is enough.
fn threads(d: usize) -> u32 {
    u32::try_from(d.div_ceil(8).next_multiple_of(32).clamp(32, 128)).unwrap_or(128)
}

pub(super) fn forward<D: Driver>(
    context: &Context<D>,
    codes: &Codes<Cuda<D>>,
    block: Block,
    dictionary: &Dictionary<Cuda<D>>,
    bias: bool,
    out: &mut Buffer<f32, D>,
) -> Result<(), KernelError> {
    let (n, d) = (codes.n, dictionary.d);
    if n == 0 {
        return Ok(());
    }
    let (indices, values) = slots(codes);
    let range = range(codes.shape, block);
    let bias = if bias { dictionary.b_dec.read_at(d) } else { 0 };
    let (grid, k, (from, to)) = ([blocks(n, 1), 1, 1], narrow("k", codes.k)?, slots_of(codes, block)?);
    let (first, end, width) = (narrow("latents", range.start)?, narrow("latents", range.end)?, narrow("d", d)?);
    if context.rounds() {
        let state = &mut *context.state();
        let (rows, stride) = rounded_decoder(context, state, dictionary)?;
        return launch!(context, "decode_rows_bf16", grid, threads(d), 0;
            indices, values, n as u64, k, first, end, rows, stride, bias, width, out.write_at(n * d), from, to);
    }
    let rows = dictionary.w_dec.read_at(dictionary.latents * d);
    launch!(context, "decode_rows", grid, threads(d), 0;
        indices, values, n as u64, k, first, end, rows, bias, width, out.write_at(n * d), from, to)
}

/// Address of W_dec rounded to bf16, made where it has changed, and values from one of its rows to the next.
fn rounded_decoder<D: Driver>(
    context: &Context<D>,
    state: &mut State<D>,
    dictionary: &Dictionary<Cuda<D>>,
) -> Result<(u64, u32), KernelError> {
    let (d, latents) = (dictionary.d, dictionary.latents);
    let key = (dictionary.w_dec.stamp(), latents as u64);
    let rows = state.rounded.get_or_make(
        |&known| known == key,
        || key,
        |old| {
            let mut rows = old.map_or_else(|| context.buffer(0), Ok)?;
            gather::rounded(context, (dictionary.w_dec.read_at(latents * d), 0), (latents, d), &mut rows)?;
            Ok::<_, KernelError>(rows)
        },
    )?;
    Ok((rows.read_at(latents * stride(d)), narrow("d", stride(d))?))
}

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
struct Gathered {
    weights: u64,
    rows: u64,
    subtract: u64,
    out: u64,
    bias: u64,
}

/// Adds to dictionary rows of `range` what their slots say.
fn gather<D: Driver>(
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
fn column_sums<D: Driver>(
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

pub(super) fn backward<D: Driver>(
    context: &Context<D>,
    codes: &Codes<Cuda<D>>,
    block: Block,
    dictionary: &Dictionary<Cuda<D>>,
    bias: bool,
    grad: &Buffer<f32, D>,
    d_values: &mut Buffer<f32, D>,
    gradients: &mut Dictionary<Cuda<D>>,
) -> Result<(), KernelError> {
    let (n, d, latents) = (codes.n, dictionary.d, dictionary.latents);
    if n == 0 {
        return Ok(());
    }
    let range = range(codes.shape, block);
    let (indices, values) = slots(codes);
    let grad = grad.read_at(n * d);
    let (grid, k, width) = ([blocks(n, 1), 1, 1], narrow("k", codes.k)?, narrow("d", d)?);
    let (first, end) = (narrow("latents", range.start)?, narrow("latents", range.end)?);
    let (from, to) = slots_of(codes, block)?;
    if context.rounds() {
        let (rows, stride) = rounded_decoder(context, &mut context.state(), dictionary)?;
        launch!(context, "decode_values_backward_bf16", grid, 128, 0;
            indices, n as u64, k, first, end, rows, stride, grad, width, d_values.write_at(n * codes.k), from, to)?;
    } else {
        launch!(context, "decode_values_backward", grid, 128, 0;
            indices, n as u64, k, first, end, dictionary.w_dec.read_at(latents * d), grad, width,
            d_values.write_at(n * codes.k), from, to)?;
    }
    let out = gradients.w_dec.write_at(latents * d);
    gather(context, codes, latents, d, &range, &Gathered { weights: values, rows: grad, subtract: 0, out, bias: 0 })?;
    if bias {
        column_sums(context, (grad, 0), n, d, 1.0, gradients.b_dec.write_at(d))?;
    }
    Ok(())
}

pub(super) fn encode_backward<D: Driver>(
    context: &Context<D>,
    codes: &Codes<Cuda<D>>,
    d_values: &Buffer<f32, D>,
    acts: &Buffer<f32, D>,
    dictionary: &Dictionary<Cuda<D>>,
    gradients: &mut Dictionary<Cuda<D>>,
) -> Result<(), KernelError> {
    let (n, d, latents) = (codes.n, dictionary.d, dictionary.latents);
    if n == 0 {
        return Ok(());
    }
    let gathered = Gathered {
        weights: d_values.read_at(n * codes.k),
        rows: acts.read_at(n * d),
        subtract: dictionary.b_dec.read_at(d),
        out: gradients.w_enc_t.write_at(latents * d),
        bias: gradients.b_enc.write_at(latents),
    };
    gather(context, codes, latents, d, &(0..latents), &gathered)
}

pub(super) fn pre_bias_backward<D: Driver>(
    context: &Context<D>,
    dictionary: &Dictionary<Cuda<D>>,
    gradients: &mut Dictionary<Cuda<D>>,
) -> Result<(), KernelError> {
    let (d, latents) = (dictionary.d, dictionary.latents);
    let (rows, weights) = (dictionary.w_enc_t.read_at(latents * d), gradients.b_enc.read_at(latents));
    column_sums(context, (rows, weights), latents, d, -1.0, gradients.b_dec.write_at(d))
}
