//! Encoder: launches of encode.cu.

use super::csc::{self, Gathered};
use super::driver::{Driver, Limits};
use super::launcher::{Context, Packed, State, blocks, launch, narrow, slots};
use super::{Buffer, Cuda};
use crate::backend::Encode;
use crate::codes::{CodeShape, Codes, Dictionary, Selection};
use crate::error::KernelError;

/// Columns of a stage of the product: rows are padded to a multiple.
const DEPTH: usize = 32;
/// Rows and columns of a block of the product.
const TILE: usize = 128;
/// Most slots that a warp selects; beyond it a block does.
const BY_WARPS: usize = 64;
/// Halves that are packed at a time.
const PACKED: usize = 64 << 20;
/// Shared memory for counts of latents.
const COUNTS: usize = 48 << 10;

/// The product's kernel on a device.
struct Product {
    /// Columns of a block's output, which has [`TILE`] rows.
    columns: usize,
    /// Blocks that a multiprocessor runs at once.
    blocks: usize,
    /// Dynamic shared memory.
    shared: usize,
    /// Bytes of pre-activations at a time; without, what the second-level cache keeps beside the operands.
    pre_activations: Option<usize>,
}

/// Two stages of four tiles.
const EVERYWHERE: Product =
    Product { columns: TILE, blocks: 2, shared: 2 * 4 * TILE * DEPTH * 2, pre_activations: None };
/// Four stages of six tiles, aligned. Measured on an H200: what a chunk in the cache saves in traffic, it loses twice over in
/// launches of Top-k that are too small.
const HOPPER: Product =
    Product { columns: 2 * TILE, blocks: 1, shared: 4 * 6 * TILE * DEPTH * 2 + 1024, pre_activations: Some(256 << 20) };

/// One selection of a token: columns `first .. first + count` of the pre-activations into slots from `offset` on.
struct Part {
    first: usize,
    count: usize,
    k: usize,
    offset: usize,
    /// Latents from here on are listed behind the others.
    border: u32,
}

fn parts(shape: CodeShape) -> Vec<Part> {
    let none = u32::MAX;
    match shape.selection {
        Selection::Split => vec![
            Part { first: 0, count: shape.d_shared, k: shape.k_shared, offset: 0, border: none },
            Part {
                first: shape.d_shared,
                count: shape.d_private,
                k: shape.k_private,
                offset: shape.k_shared,
                border: none,
            },
        ],
        Selection::Global => {
            let border = u32::try_from(shape.d_shared).unwrap_or(none);
            vec![Part { first: 0, count: shape.latents(), k: shape.k(), offset: 0, border }]
        }
    }
}

/// Columns of packed rows of `d` values.
pub(super) const fn width(d: usize) -> usize {
    d.next_multiple_of(DEPTH)
}

/// Halves of `n` packed rows of `d` values: tiles are whole, and those of weights come in twos.
pub(super) const fn packed_len(n: usize, d: usize) -> usize {
    n.next_multiple_of(2 * TILE) * width(d)
}

/// Splits `n` rows of `d` values, or those in `list`, less `subtract`, into halves of `width` columns, in tiles (tiles.cuh). Where
/// operands are rounded, high halves are all there is.
fn pack<D: Driver>(
    context: &Context<D>,
    (rows, list, subtract): (u64, u64, u64),
    (n, d): (usize, usize),
    out: &mut Packed<D>,
) -> Result<(), KernelError> {
    let len = packed_len(n, d);
    out.hi.reserve(len)?;
    let lo = match context.rounds() {
        true => 0,
        false => {
            out.lo.reserve(len)?;
            out.lo.write_at(len)
        }
    };
    let (d, padded) = (narrow("d", d)?, narrow("d", width(d))?);
    let hi = out.hi.write_at(len);
    launch!(context, "pack_rows", [blocks(n, 4), 1, 1], 128, 0;
        rows, list, subtract, n as u64, d, padded, hi, lo)
}

/// Tokens whose pre-activations exist at a time: as many as the product's room allows; of those sizes the one whose tiles leave
/// the fewest multiprocessors idle at the end.
fn chunk(limits: Limits, product: &Product, tokens: usize, latents: usize) -> usize {
    let room = product.pre_activations.unwrap_or(limits.l2_bytes * 3 / 5);
    let most = (room / (latents * size_of::<f32>() * TILE).max(1)).max(1).min(tokens.div_ceil(TILE));
    let (across, at_once) = (latents.div_ceil(product.columns), (product.blocks * limits.multiprocessors).max(1));
    let waves = |tiles: usize| (tiles * across).div_ceil(at_once);
    // Tiles for a wave; the larger of two that do as well.
    let best = (1..=most).max_by(|&a, &b| (a * waves(b), a).cmp(&(b * waves(a), b)));
    best.unwrap_or(1) * TILE
}

/// Pre-activations chunk by chunk, and each of `parts` selected from them. `weights` are the packed encoder rows of
/// `latents` columns, the latents in `list` or all.
fn select<D: Driver>(
    context: &Context<D>,
    state: &mut State<D>,
    acts: u64,
    dictionary: &Dictionary<Cuda<D>>,
    (weights_hi, weights_lo): (u64, u64),
    latents: usize,
    list: u64,
    parts: &[Part],
    codes: &mut Codes<Cuda<D>>,
) -> Result<(), KernelError> {
    let (n, d) = (codes.n, dictionary.d);
    let width = width(d);
    // Every Hopper GPU has the room; what only says it is one may not.
    let hopper = context.limits().wgmma && HOPPER.shared <= context.limits().shared_bytes;
    let product = if hopper { HOPPER } else { EVERYWHERE };
    let chunk = chunk(context.limits(), &product, n, latents);
    state.pre_activations.reserve(chunk * latents)?;
    let slot_count = n * codes.k;
    let (indices, values) = (codes.indices.write_at(slot_count), codes.values.write_at(slot_count));
    let parts: Vec<&Part> = parts.iter().filter(|part| part.k > 0).collect();
    let most = parts.iter().map(|part| part.k).max().unwrap_or(0);
    let shared = if most <= BY_WARPS { 0 } else { most.next_power_of_two() * size_of::<u64>() };
    if shared > context.limits().shared_bytes {
        let allowed = context.limits().shared_bytes / 2 / size_of::<u64>();
        return Err(KernelError::shape("k of a block", most, format!("at most {allowed} on this device")));
    }
    let chunks = (PACKED / (chunk * width).max(1)).max(1);
    for first in (0..n).step_by(chunk) {
        let count = chunk.min(n - first);
        let within = first % (chunks * chunk);
        if within == 0 {
            let (from, rows) = (acts + (first * d * size_of::<f32>()) as u64, (chunks * chunk).min(n - first));
            pack(context, (from, 0, dictionary.b_dec.read_at(d)), (rows, d), &mut state.acts)?;
        }
        let a = state.pre_activations.write_at(count * latents);
        let (rows, columns) = (count.div_ceil(TILE), latents.div_ceil(product.columns));
        // Tiles are whole: a chunk's follow those before.
        let halves = (within * width * 2) as u64;
        let len = (within + count) * width;
        let (hi, lo) = state.acts.read_at(len);
        let operands = (hi + halves, lo + halves);
        let bias = dictionary.b_enc.read_at(if list == 0 { latents } else { 0 });
        let depth = narrow("d", width)?;
        let persistent = [narrow("tiles", (rows * columns).min(context.limits().multiprocessors))?, 1, 1];
        let tiles = [narrow("tokens", rows)?, narrow("latents", columns)?, 1];
        match (hopper, context.rounds()) {
            (true, false) => launch!(context, "wgmma_bf16x3", persistent, 384, product.shared;
                operands.0, operands.1, weights_hi, weights_lo, bias, list, count as u64, latents as u64, depth, a)?,
            (true, true) => launch!(context, "wgmma_bf16", persistent, 384, product.shared;
                operands.0, weights_hi, bias, list, count as u64, latents as u64, depth, a)?,
            (false, false) => launch!(context, "gemm_bf16x3", tiles, 256, product.shared;
                operands.0, operands.1, weights_hi, weights_lo, bias, list, count as u64, latents as u64, depth, a)?,
            (false, true) => launch!(context, "gemm_bf16", tiles, 256, product.shared / 2;
                operands.0, weights_hi, bias, list, count as u64, latents as u64, depth, a)?,
        }
        let (Some(one), Some(other)) = (parts.first(), parts.last()) else { continue };
        let token = (first * codes.k * size_of::<u32>()) as u64;
        let (first_a, count_a) = (narrow("latents", one.first)?, narrow("latents", one.count)?);
        let (first_b, count_b) = (narrow("latents", other.first)?, narrow("latents", other.count)?);
        let (k_a, offset_a) = (narrow("k", one.k)?, narrow("k", one.offset)?);
        let (k_b, offset_b) = (narrow("k", other.k)?, narrow("k", other.offset)?);
        let (slots, parts) = (narrow("k", codes.k)?, narrow("parts", parts.len())?);
        if most <= BY_WARPS {
            launch!(context, "topk_warps", [blocks(count, 4), parts, 1], 128, 0;
                a, count as u64, latents as u64, first_a, count_a, k_a, offset_a, first_b, count_b, k_b, offset_b,
                one.border, list, slots, indices + token, values + token)?;
        } else {
            launch!(context, "topk_rows", [blocks(count, 1), parts, 1], 128, shared;
                a, count as u64, latents as u64, first_a, count_a, k_a, offset_a, first_b, count_b, k_b, offset_b,
                one.border, list, slots, indices + token, values + token)?;
        }
    }
    Ok(())
}

impl<D: Driver> Encode for Cuda<D> {
    fn encode_topk(
        &self,
        acts: &Buffer<f32, D>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let (n, d, latents) = (codes.n, dictionary.d, dictionary.latents);
        if n == 0 {
            return Ok(());
        }
        let width = width(d);
        let state = &mut *context.state();
        let stamp = dictionary.w_enc_t.stamp();
        let packed = state.packed.get_or_make(
            |&known| known == (stamp, latents as u64),
            || (stamp, latents as u64),
            |old| {
                let mut packed = old.map_or_else(|| Packed::new(&context.driver), Ok)?;
                pack(context, (dictionary.w_enc_t.read_at(latents * d), 0, 0), (latents, d), &mut packed)?;
                Ok::<_, KernelError>(packed)
            },
        )?;
        let weights = packed.read_at(latents * width);
        let acts = acts.read_at(n * d);
        select(context, state, acts, dictionary, weights, latents, 0, &parts(codes.shape), codes)
    }

    fn encode_listed(
        &self,
        acts: &Buffer<f32, D>,
        dictionary: &Dictionary<Self>,
        list: &Buffer<u32, D>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let (n, d) = (codes.n, dictionary.d);
        if n == 0 || count == 0 {
            return Ok(());
        }
        let width = width(d);
        let state = &mut *context.state();
        let (rows, list) = (dictionary.w_enc_t.read_at(dictionary.latents * d), list.read_at(count));
        pack(context, (rows, list, 0), (count, d), &mut state.listed)?;
        let weights = state.listed.read_at(count * width);
        let part = Part { first: 0, count, k: codes.k, offset: 0, border: u32::MAX };
        select(context, state, acts.read_at(n * d), dictionary, weights, count, list, &[part], codes)
    }

    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Buffer<f32, D>,
        acts: &Buffer<f32, D>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
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
        csc::gather(context, codes, latents, d, &(0..latents), &gathered)
    }

    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let (d, latents) = (dictionary.d, dictionary.latents);
        let (rows, weights) = (dictionary.w_enc_t.read_at(latents * d), gradients.b_enc.read_at(latents));
        csc::column_sums(context, (rows, weights), latents, d, -1.0, gradients.b_dec.write_at(d))
    }

    fn count_fired(&self, codes: &Codes<Self>, fired: &mut Buffer<u32, D>) -> Result<(), KernelError> {
        let context = &*self.context;
        let len = codes.n * codes.k;
        if len == 0 {
            return Ok(());
        }
        let (indices, _) = slots(codes);
        let latents = codes.shape.latents();
        let inside = if latents * size_of::<u32>() <= COUNTS { latents } else { 0 };
        let fired = fired.write_at(latents);
        launch!(context, "count_fired", [blocks(len, 256 * 64), 1, 1], 256, inside * size_of::<u32>();
            indices, len as u64, narrow("latents", inside)?, fired)
    }
}
