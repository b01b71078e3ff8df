//! Decoders and their backward pass, as weighted sums of rows and dots with rows.

use std::ops::Range;

use rayon::prelude::*;

use super::Cpu;
use super::groups::{self, Groups, Source};
use super::parallel::{Disjoint, chunks};
use super::simd::{axpy, dispatched, dots};
use crate::backend::Decode;
use crate::codes::{Block, Codes, Dictionary, Selection, UNUSED};
use crate::error::KernelError;

/// Columns of one task of a sum over all tokens.
const COLUMNS: usize = 64;

/// The slots of a token that belong to `block`: two runs without unused slots (see [`Codes`] for the order of slots).
pub(super) fn runs(codes: &Codes<Cpu>, indices: &[u32], block: Block) -> [Range<usize>; 2] {
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

/// Rows of W_dec that a block uses.
fn atoms(codes: &Codes<Cpu>, block: Block) -> usize {
    if block == Block::Shared { codes.shape.d_shared } else { codes.shape.latents() }
}

/// `d_values += ⟨grad, W_dec[latent]⟩` at the slots of the block: partial dots slice by slice, added in their order.
fn value_gradients(
    cpu: &Cpu,
    codes: &Codes<Cpu>,
    block: Block,
    dictionary: &Dictionary<Cpu>,
    grad: &[f32],
    d_values: &mut [f32],
) {
    let (n, k, d) = (codes.n, codes.k, dictionary.d);
    if k == 0 {
        return;
    }
    let by_token = Groups::by_token(codes, block);
    let source = Source::for_dots(cpu, &dictionary.w_dec, atoms(codes, block), d, by_token.entries());
    // A token's sums do not depend on its chunk: as large as threads allow, so that a slice is used often.
    let chunk = n.div_ceil(cpu.threads()).max(1);
    cpu.run(|| {
        d_values[..n * k].par_chunks_mut(chunk * k).enumerate().for_each(|(index, d_values)| {
            let tokens = index * chunk..((index + 1) * chunk).min(n);
            let first = by_token.range(tokens.start).start;
            let mut dots = vec![0.0; by_token.range(tokens.end - 1).end - first];
            for slice in 0..source.slices() {
                let columns = slice * source.width()..((slice + 1) * source.width()).min(d);
                add_dots(cpu.arch, &by_token, tokens.clone(), source.slice(slice), grad, d, columns, &mut dots);
            }
            let mut dots = dots.into_iter();
            for (token, d_values) in tokens.zip(d_values.chunks_exact_mut(k)) {
                for run in runs(codes, &codes.indices[token * k..(token + 1) * k], block) {
                    for (d_value, dot) in d_values[run].iter_mut().zip(&mut dots) {
                        *d_value += dot;
                    }
                }
            }
        });
    });
    source.release(cpu);
}

dispatched! {
    /// `out[e] += ⟨grad[token], matrix[row]⟩` over a slice of columns, for the entries e of all tokens of a chunk.
    fn add_dots<S>(
        simd,
        by_token: &'a Groups,
        tokens: Range<usize>,
        slice: (&'a [f32], usize, usize),
        grad: &'a [f32],
        d: usize,
        columns: Range<usize>,
        out: &'a mut [f32],
    ) {
        let (matrix, stride, column) = slice;
        let row = |index: u32| {
            let start = index as usize * stride + column;
            &matrix[start..start + columns.len()]
        };
        let mut at = 0;
        for token in tokens {
            let (rows, _) = by_token.of(token);
            let x = &grad[token * d + columns.start..token * d + columns.end];
            let out = &mut out[at..at + rows.len()];
            at += rows.len();
            let (fours, rest) = rows.as_chunks::<4>();
            let (out_fours, out_rest) = out.as_chunks_mut::<4>();
            for (four, out) in fours.iter().zip(out_fours) {
                let sums = dots::<S, 4>(simd, x, four.map(row));
                for lane in 0..4 {
                    out[lane] += sums[lane];
                }
            }
            for (&index, out) in rest.iter().zip(out_rest) {
                *out += dots::<S, 1>(simd, x, [row(index)])[0];
            }
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

impl Decode for Cpu {
    fn decode(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        out: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let (n, d) = (codes.n, dictionary.d);
        let out = &mut out[..n * d];
        if n == 0 {
            return Ok(());
        }
        self.run(|| {
            out.par_chunks_exact_mut(d).with_min_len(64).for_each(|row| {
                if bias {
                    row.copy_from_slice(&dictionary.b_dec[..d]);
                } else {
                    row.fill(0.0);
                }
            });
        });
        let by_token = Groups::by_token(codes, block);
        let source = Source::new(self, &dictionary.w_dec, atoms(codes, block), d, by_token.entries());
        groups::add(self, &by_token, &source, out);
        source.release(self);
        Ok(())
    }

    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Vec<f32>,
        d_values: &mut Vec<f32>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let (n, d) = (codes.n, dictionary.d);
        if n == 0 {
            return Ok(());
        }
        value_gradients(self, codes, block, dictionary, grad, d_values);

        let by_latent = Groups::by_latent(codes, block, &codes.values);
        let source = Source::new(self, grad, n, d, by_latent.entries());
        groups::add(self, &by_latent, &source, &mut gradients.w_dec);
        source.release(self);

        if bias {
            let out = Disjoint::new(&mut gradients.b_dec);
            self.run(|| {
                chunks(d, COLUMNS).for_each(|columns| {
                    // SAFETY: each task has its own columns.
                    let part = unsafe { out.part(columns.clone()) };
                    sum_tokens(self.arch, &grad[..n * d], d, columns.start, part);
                });
            });
        }
        Ok(())
    }
}
