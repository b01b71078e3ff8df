//! Sums of weighted rows by group: the decoder (groups are tokens, rows are atoms) and every weight gradient (groups
//! are latents, rows are tokens).
//!
//! A weight gradient is a sum over the tokens that use a latent. Grouped by latent (a counting sort), each row has one
//! owner and one order of summation, so results do not depend on threads, and a row of the gradient is read and
//! written once. Rows that are used many times are copied first into slices of a few columns: a slice of all rows
//! stays in the second-level cache and in a few pages, where whole rows would come from memory.

use rayon::prelude::*;

use super::Cpu;
use super::decode::runs;
use super::parallel::{Disjoint, chunks};
use super::simd::{dispatched, weighted_rows};
use crate::codes::{Block, Codes, UNUSED};
use crate::precision::{Precision, nearest};

/// For every group the rows it sums, with their coefficients.
pub(super) struct Groups {
    offsets: Vec<usize>,
    rows: Vec<u32>,
    coefficients: Vec<f32>,
}

impl Groups {
    /// By token: the latents of `block` with their values.
    pub(super) fn by_token(codes: &Codes<Cpu>, block: Block) -> Self {
        let mut offsets = Vec::with_capacity(codes.n + 1);
        offsets.push(0);
        let (mut rows, mut coefficients) = (Vec::new(), Vec::new());
        for token in 0..codes.n {
            let slots = token * codes.k..(token + 1) * codes.k;
            let (indices, values) = (&codes.indices[slots.clone()], &codes.values[slots]);
            for run in runs(codes, indices, block) {
                rows.extend_from_slice(&indices[run.clone()]);
                coefficients.extend_from_slice(&values[run]);
            }
            offsets.push(rows.len());
        }
        Self { offsets, rows, coefficients }
    }

    /// By latent: the tokens whose code holds a latent of `block`, in rising order, with `coefficients` \[n · k\]
    /// (values, or their gradients).
    pub(super) fn by_latent(codes: &Codes<Cpu>, block: Block, coefficients: &[f32]) -> Self {
        let slots = codes.n * codes.k;
        let latents = codes.shape.latents();
        let indices = &codes.indices[..slots];
        let inside = |index: u32| match block {
            Block::Joint => index != UNUSED,
            _ => codes.shape.contains(block, index),
        };
        let mut offsets = vec![0usize; latents + 1];
        for &index in indices {
            if inside(index) {
                offsets[index as usize + 1] += 1;
            }
        }
        for latent in 0..latents {
            offsets[latent + 1] += offsets[latent];
        }
        let total = offsets[latents];
        let (mut rows, mut sorted) = (vec![0u32; total], vec![0.0f32; total]);
        let mut next = offsets.clone();
        if codes.k > 0 {
            let tokens = indices.chunks_exact(codes.k).zip(coefficients[..slots].chunks_exact(codes.k));
            for (token, (indices, coefficients)) in tokens.enumerate() {
                for (&index, &coefficient) in indices.iter().zip(coefficients) {
                    if inside(index) {
                        let at = next[index as usize];
                        (rows[at], sorted[at]) = (token as u32, coefficient);
                        next[index as usize] += 1;
                    }
                }
            }
        }
        Self { offsets, rows, coefficients: sorted }
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Entries of all groups.
    pub(super) fn entries(&self) -> usize {
        self.rows.len()
    }

    /// Where the entries of a group lie among all.
    pub(super) fn range(&self, group: usize) -> std::ops::Range<usize> {
        self.offsets[group]..self.offsets[group + 1]
    }

    /// Rows and coefficients of one group.
    pub(super) fn of(&self, group: usize) -> (&[u32], &[f32]) {
        let range = self.range(group);
        (&self.rows[range.clone()], &self.coefficients[range])
    }
}

/// A row-major matrix as it is, or copied slice by slice of columns.
pub(super) struct Source<'a> {
    matrix: &'a [f32],
    d: usize,
    /// Columns of a slice.
    width: usize,
    copy: Option<Copy>,
}

/// Slices one after the other, each \[rows · width\]; the last is padded with zeros.
struct Copy {
    rows: usize,
    /// First value used: slices start on a cache line.
    start: usize,
    values: Vec<f32>,
}

/// Values of a slice (800 KiB): small enough for the nearer caches, yet wide enough that work outweighs its set-up.
const CACHED: usize = 200 << 10;
/// Values of a cache line.
const LINE: usize = 16;
/// A copy pays once rows are used this often.
const USES: usize = 6;

impl<'a> Source<'a> {
    /// The `rows` first rows of `matrix` as operands of the backend's precision, to be used `entries` times in all.
    pub(super) fn new(cpu: &Cpu, matrix: &'a [f32], rows: usize, d: usize, entries: usize) -> Self {
        let width = [4 * LINE, 2 * LINE].into_iter().find(|width| rows * width <= CACHED).unwrap_or(LINE);
        Self::with_width(cpu, (matrix, &[]), rows, d, entries, width)
    }

    /// As [`Source::new`], in slices of 64 columns: for dots, which end in a sum over lanes at every slice.
    pub(super) fn for_dots(cpu: &Cpu, matrix: &'a [f32], rows: usize, d: usize, entries: usize) -> Self {
        Self::with_width(cpu, (matrix, &[]), rows, d, entries, 4 * LINE)
    }

    /// As [`Source::new`], rows less `minus` \[d\]; always a copy.
    pub(super) fn less(cpu: &Cpu, matrix: &'a [f32], minus: &[f32], rows: usize, d: usize) -> Self {
        Self::with_width(cpu, (matrix, minus), rows, d, usize::MAX, 4 * LINE)
    }

    fn with_width(
        cpu: &Cpu,
        (matrix, minus): (&'a [f32], &[f32]),
        rows: usize,
        d: usize,
        entries: usize,
        width: usize,
    ) -> Self {
        let rounded = cpu.precision == Precision::Bf16;
        let as_it_is = !rounded && minus.is_empty();
        if as_it_is && (entries < USES * rows || d < 2 * LINE) {
            return Self { matrix, d, width: 4 * LINE, copy: None };
        }
        let mut values = cpu.scratch.take(d.div_ceil(width) * rows * width + LINE);
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let out = Disjoint::new(&mut values[start..]);
        cpu.run(|| {
            chunks(rows, 64).for_each(|range| {
                for row in range {
                    for (slice, part) in matrix[row * d..(row + 1) * d].chunks(width).enumerate() {
                        let at = (slice * rows + row) * width;
                        // SAFETY: every (slice, row) has its own part.
                        let out = unsafe { out.part(at..at + width) };
                        let kept = &mut out[..part.len()];
                        kept.copy_from_slice(part);
                        if !minus.is_empty() {
                            kept.iter_mut().zip(&minus[slice * width..]).for_each(|(x, minus)| *x -= minus);
                        }
                        if rounded {
                            kept.iter_mut().for_each(|x| *x = nearest(*x));
                        }
                        out[part.len()..].fill(0.0);
                    }
                }
            });
        });
        Self { matrix, d, width, copy: Some(Copy { rows, start, values }) }
    }

    /// Columns of a slice.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Number of slices.
    pub(super) fn slices(&self) -> usize {
        self.d.div_ceil(self.width)
    }

    /// A matrix that holds slice `slice` of every row, its width, and the column where the slice starts.
    pub(super) fn slice(&self, slice: usize) -> (&[f32], usize, usize) {
        match &self.copy {
            Some(copy) => {
                let len = copy.rows * self.width;
                (&copy.values[copy.start + slice * len..copy.start + (slice + 1) * len], self.width, 0)
            }
            None => (self.matrix, self.d, slice * self.width),
        }
    }

    /// Gives the memory of the copy back.
    pub(super) fn release(self, cpu: &Cpu) {
        if let Some(copy) = self.copy {
            cpu.scratch.give(copy.values);
        }
    }
}

/// Groups of one task.
const GROUPS: usize = 512;

/// `out[group] += Σ coefficient · source[row]` for every group; `out` \[groups · d\].
pub(super) fn add(cpu: &Cpu, groups: &Groups, source: &Source, out: &mut [f32]) {
    let (d, width) = (source.d, source.width);
    let out = Disjoint::new(out);
    let blocks = groups.len().div_ceil(GROUPS);
    cpu.run(|| {
        (0..source.slices() * blocks).into_par_iter().for_each(|task| {
            let (slice, first) = (task / blocks, task % blocks * GROUPS);
            let columns = slice * width..((slice + 1) * width).min(d);
            let block = first..(first + GROUPS).min(groups.len());
            add_slice(cpu.arch, groups, block, source.slice(slice), d, columns, &out);
        });
    });
}

dispatched! {
    /// One slice of columns of a block of groups, which this call alone writes.
    fn add_slice<S>(
        simd,
        groups: &'a Groups,
        block: std::ops::Range<usize>,
        slice: (&'a [f32], usize, usize),
        d: usize,
        columns: std::ops::Range<usize>,
        out: &'a Disjoint<'a, f32>,
    ) {
        let (matrix, stride, column) = slice;
        for group in block {
            let (rows, coefficients) = groups.of(group);
            if !rows.is_empty() {
                // SAFETY: each task has its own columns of its own groups.
                let part = unsafe { out.part(group * d + columns.start..group * d + columns.end) };
                weighted_rows(simd, matrix, stride, column, rows, coefficients, part);
            }
        }
    }
}
