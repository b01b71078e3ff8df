//! Decoders and their backward pass, as weighted sums of rows and dots with rows.

use std::ops::Range;

use rayon::prelude::*;

use super::Cpu;
use super::latent_order::LatentOrder;
use super::parallel::{Disjoint, chunks};
use super::simd::{axpy, dispatched, dots, weighted_rows};
use crate::codes::{Block, Codes, Dictionary, Selection, UNUSED};

/// Tokens of one task.
const TOKENS: usize = 64;
/// Columns of one task of a sum over many rows: a slice of the rows stays in the second-level cache.
const COLUMNS: usize = 32;
/// Latents of one task of a weight gradient.
const LATENTS: usize = 512;

/// The slots of a token that belong to `block`: two runs without unused slots (see [`Codes`] for the order of slots).
fn runs(codes: &Codes<Cpu>, indices: &[u32], block: Block) -> [Range<usize>; 2] {
    let shape = &codes.shape;
    let trim = |mut range: Range<usize>| {
        while range.end > range.start && indices[range.end - 1] == UNUSED {
            range.end -= 1;
        }
        range
    };
    if shape.selection == Selection::Split && codes.k == shape.k() {
        let (shared, private) = (trim(0..shape.k_shared), trim(shape.k_shared..codes.k));
        match block {
            Block::Joint => [shared, private],
            Block::Shared => [shared, 0..0],
            Block::Private => [private, 0..0],
        }
    } else {
        let all = trim(0..codes.k);
        let shared = indices[all.clone()].iter().take_while(|&&index| (index as usize) < shape.d_shared).count();
        match block {
            Block::Joint => [all, 0..0],
            Block::Shared => [0..shared, 0..0],
            Block::Private => [shared..all.end, 0..0],
        }
    }
}

/// `Backend::decode`.
pub(super) fn forward(
    cpu: &Cpu,
    codes: &Codes<Cpu>,
    block: Block,
    dictionary: &Dictionary<Cpu>,
    bias: bool,
    out: &mut [f32],
) {
    let (n, k, d) = (codes.n, codes.k, dictionary.d);
    if n == 0 {
        return;
    }
    cpu.run(|| {
        out[..n * d].par_chunks_mut(TOKENS * d).enumerate().for_each(|(chunk, out)| {
            for (row, out) in out.chunks_exact_mut(d).enumerate() {
                if bias {
                    out.copy_from_slice(&dictionary.b_dec[..d]);
                } else {
                    out.fill(0.0);
                }
                let token = chunk * TOKENS + row;
                let slots = token * k..(token + 1) * k;
                let (indices, values) = (&codes.indices[slots.clone()], &codes.values[slots]);
                for run in runs(codes, indices, block) {
                    add_rows(cpu.arch, &dictionary.w_dec, d, 0, &indices[run.clone()], &values[run], out);
                }
            }
        });
    });
}

dispatched! {
    fn add_rows<S>(
        simd,
        matrix: &'a [f32],
        d: usize,
        column: usize,
        rows: &'a [u32],
        coefficients: &'a [f32],
        out: &'a mut [f32],
    ) {
        weighted_rows(simd, matrix, d, column, rows, coefficients, out);
    }
}

/// `Backend::decode_backward`.
pub(super) fn backward(
    cpu: &Cpu,
    codes: &Codes<Cpu>,
    block: Block,
    dictionary: &Dictionary<Cpu>,
    bias: bool,
    grad: &[f32],
    d_values: &mut [f32],
    gradients: &mut Dictionary<Cpu>,
) {
    let (n, k, d) = (codes.n, codes.k, dictionary.d);
    if n == 0 {
        return;
    }
    if k > 0 {
        cpu.run(|| {
            d_values[..n * k].par_chunks_mut(TOKENS * k).enumerate().for_each(|(chunk, d_values)| {
                for (row, d_values) in d_values.chunks_exact_mut(k).enumerate() {
                    let token = chunk * TOKENS + row;
                    let indices = &codes.indices[token * k..(token + 1) * k];
                    let grad = &grad[token * d..(token + 1) * d];
                    for run in runs(codes, indices, block) {
                        row_dots(cpu.arch, &dictionary.w_dec, grad, &indices[run.clone()], &mut d_values[run]);
                    }
                }
            });
        });
        let shape = &codes.shape;
        let latents = match block {
            Block::Joint => 0..shape.latents(),
            Block::Shared => 0..shape.d_shared,
            Block::Private => shape.d_shared..shape.latents(),
        };
        let order = LatentOrder::new(codes, latents, &codes.values);
        add_by_latent(cpu, &order, grad, d, &mut gradients.w_dec);
    }
    if bias {
        let out = Disjoint::new(&mut gradients.b_dec);
        cpu.run(|| {
            chunks(d, COLUMNS).for_each(|columns| {
                // SAFETY: each task has its own columns.
                let part = unsafe { out.part(columns.clone()) };
                sum_tokens(cpu.arch, &grad[..n * d], d, columns.start, part);
            });
        });
    }
}

dispatched! {
    /// `out[e] += ⟨x, matrix[rows[e]]⟩`.
    fn row_dots<S>(simd, matrix: &'a [f32], x: &'a [f32], rows: &'a [u32], out: &'a mut [f32]) {
        let d = x.len();
        let row = |index: u32| &matrix[index as usize * d..(index as usize + 1) * d];
        let (fours, rest) = rows.as_chunks::<4>();
        let (out_fours, out_rest) = out.as_chunks_mut::<4>();
        for (four, out) in fours.iter().zip(out_fours) {
            let sums = dots::<S, 4>(simd, x, [row(four[0]), row(four[1]), row(four[2]), row(four[3])]);
            for lane in 0..4 {
                out[lane] += sums[lane];
            }
        }
        for (&index, out) in rest.iter().zip(out_rest) {
            *out += dots::<S, 1>(simd, x, [row(index)])[0];
        }
    }
}

dispatched! {
    /// `out[c] += Σ_t matrix[t][column + c]`.
    fn sum_tokens<S>(simd, matrix: &'a [f32], d: usize, column: usize, out: &'a mut [f32]) {
        for row in matrix.chunks_exact(d) {
            axpy(simd, 1.0, &row[column..column + out.len()], out);
        }
    }
}

/// `out[latent] += Σ coefficient · source[token]` over the entries of every latent; `source` \[n · d\].
pub(super) fn add_by_latent(cpu: &Cpu, order: &LatentOrder, source: &[f32], d: usize, out: &mut [f32]) {
    let out = Disjoint::new(out);
    let blocks = order.latents().div_ceil(LATENTS);
    cpu.run(|| {
        (0..d.div_ceil(COLUMNS) * blocks).into_par_iter().for_each(|task| {
            let columns = task / blocks * COLUMNS..(task / blocks * COLUMNS + COLUMNS).min(d);
            let first = task % blocks * LATENTS;
            for latent in first..(first + LATENTS).min(order.latents()) {
                let (tokens, coefficients) = order.of(latent);
                if !tokens.is_empty() {
                    // SAFETY: these columns of this latent belong to this task alone.
                    let part = unsafe { out.part(latent * d + columns.start..latent * d + columns.end) };
                    add_rows(cpu.arch, source, d, columns.start, tokens, coefficients, part);
                }
            }
        });
    });
}
