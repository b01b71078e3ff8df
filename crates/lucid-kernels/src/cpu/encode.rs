//! Encoders: product and Top-k fused over chunks of tokens, and their backward pass by latent.

use std::ops::Range;

use bytemuck::Zeroable;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::groups::{self, Groups, Source};
use super::parallel::{Disjoint, chunks};
use super::product::{Matrices, Product, Vectors};
use super::scratch::Spare;
use super::simd::{axpy, dispatched, lanes, weighted_rows};
use super::topk::Candidates;
use super::{Cpu, InstructionSet};
use crate::backend::Encode;
use crate::codes::{Block, CodeShape, Codes, Dictionary, Selection, UNUSED};
use crate::error::KernelError;
use crate::precision::Precision;

/// Which rows of W_encᵀ compete for `k` slots.
struct Contest<'a> {
    latents: Latents<'a>,
    k: usize,
    /// Strips before this contest's first.
    first_strip: usize,
}

enum Latents<'a> {
    Range(Range<usize>),
    List(&'a [u32]),
}

impl Latents<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::List(list) => list.len(),
        }
    }

    fn at(&self, position: usize) -> usize {
        match self {
            Self::Range(range) => range.start + position,
            Self::List(list) => list[position] as usize,
        }
    }
}

fn run(cpu: &Cpu, acts: &[f32], dictionary: &Dictionary<Cpu>, contests: Vec<Contest>, codes: &mut Codes<Cpu>) {
    if codes.n == 0 || codes.k == 0 {
        return;
    }
    match cpu.set {
        InstructionSet::Amx => run_by::<Matrices>(cpu, &cpu.scratch.tiles, acts, dictionary, contests, codes),
        InstructionSet::Avx512 => {
            run_by::<Vectors<12>>(cpu, &cpu.scratch.floats, acts, dictionary, contests, codes);
        }
        _ => run_by::<Vectors<6>>(cpu, &cpu.scratch.floats, acts, dictionary, contests, codes),
    }
}

fn run_by<P: Product>(
    cpu: &Cpu,
    scratch: &Spare<P::Operand>,
    acts: &[f32],
    dictionary: &Dictionary<Cpu>,
    mut contests: Vec<Contest>,
    codes: &mut Codes<Cpu>,
) {
    let (n, k, d) = (codes.n, codes.k, dictionary.d);
    let width = 2 * lanes(cpu.arch);
    let strip = P::strip(d, width);
    let mut strips = 0;
    for contest in &mut contests {
        contest.first_strip = strips;
        strips += contest.latents.len().div_ceil(width);
    }

    let mut packed = scratch.take(strips * strip);
    // Lanes beyond a contest's latents can never be selected.
    let mut bias = vec![f32::NEG_INFINITY; strips * width];
    for contest in &contests {
        let part = contest.first_strip * strip..;
        cpu.run(|| {
            packed[part].par_chunks_exact_mut(strip).enumerate().take(contest.latents.len().div_ceil(width)).for_each(
                |(strip, out)| {
                    let positions = strip * width..((strip + 1) * width).min(contest.latents.len());
                    let row = |latent: usize| &dictionary.w_enc_t[latent * d..(latent + 1) * d];
                    let rows: Vec<&[f32]> = positions.map(|p| row(contest.latents.at(p))).collect();
                    P::pack_strip((cpu.arch, cpu.precision), &rows, d, width, out);
                },
            );
        });
        for position in 0..contest.latents.len() {
            bias[contest.first_strip * width + position] = dictionary.b_enc[contest.latents.at(position)];
        }
    }

    // As many chunks for every thread as for any other; a token's code does not depend on its chunk.
    let threads = cpu.threads();
    let parts = n.div_ceil(P::CHUNK).next_multiple_of(threads);
    let chunk = n.div_ceil(parts).next_multiple_of(P::ROWS);
    let d_shared = match codes.shape.selection {
        Selection::Global => codes.shape.d_shared,
        Selection::Split => 0,
    };
    cpu.run(|| {
        codes.indices[..n * k]
            .par_chunks_mut(chunk * k)
            .zip(codes.values[..n * k].par_chunks_mut(chunk * k))
            .zip(acts[..n * d].par_chunks(chunk * d))
            .for_each_init(Workspace::<P>::default, |workspace, ((indices, values), acts)| {
                let tokens = acts.len() / d;
                workspace.panels.resize(tokens.div_ceil(P::ROWS) * P::panel(d), P::Operand::zeroed());
                P::pack_tokens((cpu.arch, cpu.precision), acts, &dictionary.b_dec, d, &mut workspace.panels);
                let mut slot = 0;
                for contest in &contests {
                    let strips = contest.first_strip..contest.first_strip + contest.latents.len().div_ceil(width);
                    let weights = &packed[strips.start * strip..strips.end * strip];
                    let bias = &bias[strips.start * width..strips.end * width];
                    cpu.arch.dispatch(Scan::<P> {
                        precision: cpu.precision,
                        weights,
                        bias,
                        d,
                        tokens,
                        k: contest.k,
                        workspace,
                    });
                    for token in 0..tokens {
                        let at = token * k + slot..token * k + slot + contest.k;
                        let best = workspace.candidates.best(token).map(|(p, value)| (contest.latents.at(p), value));
                        write_slots(best, d_shared, &mut indices[at.clone()], &mut values[at]);
                    }
                    slot += contest.k;
                }
            });
    });
    scratch.give(packed);
}

struct Workspace<P: Product> {
    panels: Vec<P::Operand>,
    activations: Vec<f32>,
    candidates: Candidates,
}

impl<P: Product> Default for Workspace<P> {
    fn default() -> Self {
        Self { panels: Vec::new(), activations: Vec::new(), candidates: Candidates::default() }
    }
}

/// Offers the pre-activations of every strip to the candidates of a chunk.
struct Scan<'a, P: Product> {
    precision: Precision,
    weights: &'a [P::Operand],
    bias: &'a [f32],
    d: usize,
    tokens: usize,
    k: usize,
    workspace: &'a mut Workspace<P>,
}

impl<P: Product> WithSimd for Scan<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { precision, weights, bias, d, tokens, k, workspace } = self;
        let width = 2 * S::F32_LANES;
        let Workspace { panels, activations, candidates } = workspace;
        candidates.start(tokens, k, width);
        activations.resize(tokens.next_multiple_of(P::ROWS) * width, 0.0);
        let hold = P::hold();
        let strips = weights.chunks_exact(P::strip(d, width)).zip(bias.chunks_exact(width));
        for (strip, (weights, bias)) in strips.enumerate() {
            P::multiply(&hold, simd, precision, panels, weights, bias, d, activations);
            candidates.offer(simd, strip * width, activations);
        }
    }
}

/// Writes a token's entries (falling values): those below `shared_below` first, then the others, then unused slots.
fn write_slots(best: impl Iterator<Item = (usize, f32)>, shared_below: usize, indices: &mut [u32], values: &mut [f32]) {
    indices.fill(UNUSED);
    values.fill(0.0);
    let mut private = Vec::new();
    let mut used = 0;
    for (latent, value) in best {
        if shared_below > 0 && latent >= shared_below {
            private.push((latent, value));
        } else {
            (indices[used], values[used]) = (latent as u32, value);
            used += 1;
        }
    }
    for (latent, value) in private {
        (indices[used], values[used]) = (latent as u32, value);
        used += 1;
    }
}

dispatched! {
    fn subtract<S>(simd, factor: f32, x: &'a [f32], y: &'a mut [f32]) {
        axpy(simd, -factor, x, y);
    }
}

/// Columns of one task of [`pre_bias_backward`].
const COLUMNS: usize = 64;

dispatched! {
    fn sum_rows<S>(
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

impl Encode for Cpu {
    fn encode_topk(
        &self,
        acts: &Vec<f32>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        let CodeShape { d_shared, k_shared, k_private, selection, .. } = codes.shape;
        let latents = codes.shape.latents();
        let contest = |range, k| Contest { latents: Latents::Range(range), k, first_strip: 0 };
        let contests = match selection {
            Selection::Split => vec![contest(0..d_shared, k_shared), contest(d_shared..latents, k_private)],
            Selection::Global => vec![contest(0..latents, k_shared + k_private)],
        };
        run(self, acts, dictionary, contests, codes);
        Ok(())
    }

    fn encode_listed(
        &self,
        acts: &Vec<f32>,
        dictionary: &Dictionary<Self>,
        list: &Vec<u32>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        let list = &list[..count];
        let contests = vec![Contest { latents: Latents::List(list), k: codes.k, first_strip: 0 }];
        run(self, acts, dictionary, contests, codes);
        Ok(())
    }

    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Vec<f32>,
        acts: &Vec<f32>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let d = dictionary.d;
        let by_latent = Groups::by_latent(codes, Block::Joint, d_values);
        // Σ da (h − b_dec) = Σ da h − (Σ da) b_dec, which spares a pass; what is rounded is the difference.
        let rounded = self.precision == Precision::Bf16;
        let source = match rounded {
            true => Source::less(self, acts, &dictionary.b_dec[..d], codes.n, d),
            false => Source::new(self, acts, codes.n, d, by_latent.entries()),
        };
        groups::add(self, &by_latent, &source, &mut gradients.w_enc_t);
        source.release(self);
        self.run(|| {
            gradients.w_enc_t[..dictionary.latents * d]
                .par_chunks_exact_mut(d)
                .zip(&mut gradients.b_enc[..dictionary.latents])
                .enumerate()
                .with_min_len(64)
                .for_each(|(latent, (row, bias))| {
                    let (_, coefficients) = by_latent.of(latent);
                    if !coefficients.is_empty() {
                        let sum = coefficients.iter().sum::<f32>();
                        *bias += sum;
                        if !rounded {
                            subtract(self.arch, sum, &dictionary.b_dec, row);
                        }
                    }
                });
        });
        Ok(())
    }

    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        let (d, latents) = (dictionary.d, dictionary.latents);
        let rows: Vec<u32> = (0..latents as u32).collect();
        let negated: Vec<f32> = gradients.b_enc[..latents].iter().map(|&x| -x).collect();
        let out = Disjoint::new(&mut gradients.b_dec);
        self.run(|| {
            chunks(d, COLUMNS).for_each(|columns| {
                // SAFETY: each task has its own columns.
                let part = unsafe { out.part(columns.clone()) };
                sum_rows(self.arch, &dictionary.w_enc_t, d, columns.start, &rows, &negated, part);
            });
        });
        Ok(())
    }

    fn count_fired(&self, codes: &Codes<Self>, fired: &mut Vec<u32>) -> Result<(), KernelError> {
        for &index in &codes.indices[..codes.n * codes.k] {
            if index != UNUSED {
                fired[index as usize] += 1;
            }
        }
        Ok(())
    }
}
