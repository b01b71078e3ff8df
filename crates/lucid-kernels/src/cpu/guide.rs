//! Cosine cost, mass weights and their backward pass, from sparse codes.
//!
//! The shared codes of a pair's text tokens become a table with one row a latent that occurs in them, one column a
//! token, unit norm a column. A patch's cosines are then a weighted sum of a few table rows.

use rayon::prelude::*;

use super::parallel::Disjoint;
use super::simd::{axpy, dispatched, dot};
use super::{Cpu, PLAIN};
use crate::backend::Guide;
use crate::codes::Codes;
use crate::error::KernelError;
use crate::ragged::{Pairs, Ragged};

/// The used entries of a token's shared code: (first slot, indices, values).
fn shared(codes: &Codes<Cpu>, token: usize) -> (usize, &[u32], &[f32]) {
    let first = token * codes.k;
    let indices = &codes.indices[first..first + codes.k];
    let used = indices.iter().take_while(|&&index| (index as usize) < codes.shape.d_shared).count();
    (first, &indices[..used], &codes.values[first..first + used])
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|value| value * value).sum::<f32>().sqrt()
}

/// 1/|z|, or 0 for an all-zero code, whose cosines are 0.
fn inverse_norm(values: &[f32]) -> f32 {
    let norm = norm(values);
    if norm > 0.0 { 1.0 / norm } else { 0.0 }
}

const ABSENT: u32 = u32::MAX;

/// Text codes of one pair by latent. Lives through the pairs of a task.
struct Table {
    /// Row of a latent, or [`ABSENT`] \[d_shared\].
    row_of: Vec<u32>,
    latents: Vec<u32>,
    columns: usize,
    /// z_j / |z_j| \[rows · columns\].
    values: Vec<f32>,
}

impl Table {
    fn new(d_shared: usize) -> Self {
        Self { row_of: vec![ABSENT; d_shared], latents: Vec::new(), columns: 0, values: Vec::new() }
    }

    fn fill(&mut self, text: &Codes<Cpu>, tokens: std::ops::Range<usize>) {
        for latent in self.latents.drain(..) {
            self.row_of[latent as usize] = ABSENT;
        }
        self.columns = tokens.len();
        for token in tokens.clone() {
            for &latent in shared(text, token).1 {
                let row = &mut self.row_of[latent as usize];
                if *row == ABSENT {
                    *row = self.latents.len() as u32;
                    self.latents.push(latent);
                }
            }
        }
        self.values.clear();
        self.values.resize(self.latents.len() * self.columns, 0.0);
        for (column, token) in tokens.enumerate() {
            let (_, latents, values) = shared(text, token);
            let scale = inverse_norm(values);
            for (&latent, &value) in latents.iter().zip(values) {
                self.values[self.row_of[latent as usize] as usize * self.columns + column] = value * scale;
            }
        }
    }

    fn row(&self, latent: u32) -> Option<&[f32]> {
        let row = self.row_of[latent as usize];
        (row != ABSENT).then(|| &self.values[row as usize * self.columns..(row as usize + 1) * self.columns])
    }
}

dispatched! {
    /// cos(z_i, z_j) of every patch and every column of the table.
    fn cosines<S>(simd, vision: &'a Codes<Cpu>, patches: std::ops::Range<usize>, table: &'a Table, out: &'a mut [f32]) {
        for (patch, out) in patches.zip(out.chunks_exact_mut(table.columns)) {
            out.fill(0.0);
            let (_, latents, values) = shared(vision, patch);
            let scale = inverse_norm(values);
            for (&latent, &value) in latents.iter().zip(values) {
                if let Some(row) = table.row(latent) {
                    axpy(simd, value * scale, row, out);
                }
            }
        }
    }
}

struct PairOfCodes<'a> {
    vision: &'a Codes<Cpu>,
    text: &'a Codes<Cpu>,
    patches: std::ops::Range<usize>,
    tokens: std::ops::Range<usize>,
    cost: &'a [f32],
    d_cost: &'a [f32],
}

dispatched! {
    fn cosines_backward<S>(
        simd,
        pair: &'a PairOfCodes<'a>,
        table: &'a Table,
        sums: &'a mut Vec<f32>,
        d_vision: &'a mut [f32],
        d_text: &'a mut [f32],
    ) {
        let columns = table.columns;
        // Σ_i dcos_ij x_i at every row of the table, then Σ_i dcos_ij cos_ij as a last row.
        sums.clear();
        sums.resize((table.latents.len() + 1) * columns, 0.0);
        let (by_latent, radial) = sums.split_at_mut(table.latents.len() * columns);
        let zeros: Vec<bool> = pair.tokens.clone().map(|token| shared(pair.text, token).1.is_empty()).collect();
        let (mut d_cosine, mut weighted) = (vec![0.0; columns], vec![0.0; columns]);
        for (row, patch) in pair.patches.clone().enumerate() {
            let (first, latents, values) = shared(pair.vision, patch);
            let scale = inverse_norm(values);
            let slots = first - pair.patches.start * pair.vision.k;
            let cells = row * columns..(row + 1) * columns;
            for (column, (cost, d_cost)) in pair.cost[cells.clone()].iter().zip(&pair.d_cost[cells]).enumerate() {
                d_cosine[column] = if zeros[column] || latents.is_empty() { 0.0 } else { -d_cost };
                weighted[column] = d_cosine[column] * (1.0 - cost);
                radial[column] += weighted[column];
            }
            let along: f32 = weighted.iter().sum();
            for (slot, (&latent, &value)) in latents.iter().zip(values).enumerate() {
                let mut gradient = -along * value * scale;
                if let Some(x_j) = table.row(latent) {
                    gradient += dot(simd, x_j, &d_cosine);
                    let at = table.row_of[latent as usize] as usize * columns;
                    axpy(simd, value * scale, &d_cosine, &mut by_latent[at..at + columns]);
                }
                d_vision[slots + slot] += gradient * scale;
            }
        }
        for (column, token) in pair.tokens.clone().enumerate() {
            let (first, latents, values) = shared(pair.text, token);
            let scale = inverse_norm(values);
            for (slot, (&latent, &value)) in latents.iter().zip(values).enumerate() {
                let toward = by_latent[table.row_of[latent as usize] as usize * columns + column];
                d_text[first - pair.tokens.start * pair.text.k + slot] += (toward - radial[column] * value * scale) * scale;
            }
        }
    }
}

/// The mean shared code of a pair's patches, dense, and its norm. `g` must be zero at the start.
fn global(vision: &Codes<Cpu>, patches: std::ops::Range<usize>, g: &mut [f32]) -> f32 {
    let share = 1.0 / patches.len() as f32;
    for patch in patches {
        let (_, latents, values) = shared(vision, patch);
        for (&latent, &value) in latents.iter().zip(values) {
            g[latent as usize] += value * share;
        }
    }
    norm(g)
}

/// ⟨g, z⟩ and |g||z|.
fn inner_with(g: &[f32], norm_g: f32, text: &Codes<Cpu>, token: usize) -> (f32, f32) {
    let (_, latents, values) = shared(text, token);
    let inner = latents.iter().zip(values).map(|(&latent, value)| g[latent as usize] * value).sum();
    (inner, norm_g * norm(values))
}

impl Guide for Cpu {
    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let out = Disjoint::new(cost);
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each_init(
                || Table::new(text.shape.d_shared),
                |table, pair| {
                    table.fill(text, pairs.text.range(pair));
                    // SAFETY: pairs do not overlap.
                    let cost = unsafe { out.part(pairs.cells.range(pair)) };
                    cosines(self.arch, vision, pairs.vision.range(pair), table, cost);
                    for value in cost {
                        *value = 1.0 - *value;
                    }
                },
            );
        });
        Ok(())
    }

    /// With x = z/|z|, ∂cos/∂z_i = (x_j − cos · x_i) / |z_i|, likewise for j.
    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Vec<f32>,
        d_cost: &Vec<f32>,
        d_vision: &mut Vec<f32>,
        d_text: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let (d_vision, d_text) = (Disjoint::new(d_vision), Disjoint::new(d_text));
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each_init(
                || (Table::new(text.shape.d_shared), Vec::new()),
                |(table, sums), pair| {
                    let (patches, tokens, cells) =
                        (pairs.vision.range(pair), pairs.text.range(pair), pairs.cells.range(pair));
                    table.fill(text, tokens.clone());
                    // SAFETY: the tokens of pairs do not overlap.
                    let (d_vision, d_text) = unsafe {
                        let k = vision.k;
                        (
                            d_vision.part(patches.start * k..patches.end * k),
                            d_text.part(tokens.start * text.k..tokens.end * text.k),
                        )
                    };
                    let pair = PairOfCodes {
                        vision,
                        text,
                        patches,
                        tokens,
                        cost: &cost[cells.clone()],
                        d_cost: &d_cost[cells],
                    };
                    cosines_backward(self.arch, &pair, table, sums, d_vision, d_text);
                },
            );
        });
        Ok(())
    }

    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let out = Disjoint::new(weights);
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each_init(
                || vec![0.0; vision.shape.d_shared],
                |g, pair| {
                    g.fill(0.0);
                    let norm_g = global(vision, pairs.vision.range(pair), g);
                    // SAFETY: pairs do not overlap.
                    let weights = unsafe { out.part(pairs.text.range(pair)) };
                    for (weight, token) in weights.iter_mut().zip(pairs.text.range(pair)) {
                        let (inner, norms) = inner_with(g, norm_g, text, token);
                        *weight = if norms > 0.0 { (inner / norms).max(0.0) } else { 0.0 };
                    }
                },
            );
        });
        Ok(())
    }

    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Vec<f32>,
        d_vision: &mut Vec<f32>,
        d_text: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let (d_vision, d_text) = (Disjoint::new(d_vision), Disjoint::new(d_text));
        let d_shared = vision.shape.d_shared;
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each_init(
                || (vec![0.0; d_shared], vec![0.0; d_shared]),
                |(g, d_g), pair| {
                    g.fill(0.0);
                    d_g.fill(0.0);
                    let patches = pairs.vision.range(pair);
                    let norm_g = global(vision, patches.clone(), g);
                    // Σ_j dw_j cos_j: the part of dg along g.
                    let mut along = 0.0;
                    for token in pairs.text.range(pair) {
                        let (inner, norms) = inner_with(g, norm_g, text, token);
                        // At w_j = 0 the maximum is flat.
                        if norms == 0.0 || inner <= 0.0 {
                            continue;
                        }
                        let (first, latents, values) = shared(text, token);
                        let (cosine, d_cosine) = (inner / norms, d_weights[token]);
                        along += d_cosine * cosine;
                        let square = norm(values).powi(2);
                        // SAFETY: each token belongs to one pair.
                        let d_text = unsafe { d_text.part(first..first + values.len()) };
                        for ((&latent, &value), d_value) in latents.iter().zip(values).zip(d_text) {
                            d_g[latent as usize] += d_cosine * value / norms;
                            *d_value += d_cosine * (g[latent as usize] / norms - cosine * value / square);
                        }
                    }
                    let share = 1.0 / patches.len() as f32;
                    let radial = if norm_g > 0.0 { along / (norm_g * norm_g) } else { 0.0 };
                    for patch in patches {
                        let (first, latents, values) = shared(vision, patch);
                        // SAFETY: each patch belongs to one pair.
                        let d_vision = unsafe { d_vision.part(first..first + values.len()) };
                        for (&latent, d_value) in latents.iter().zip(d_vision) {
                            *d_value += (d_g[latent as usize] - radial * g[latent as usize]) * share;
                        }
                    }
                },
            );
        });
        Ok(())
    }

    fn uniform_marginal(&self, segments: &Ragged, out: &mut Vec<f32>) -> Result<(), KernelError> {
        PLAIN.uniform_marginal(segments, out)
    }

    fn column_marginal(&self, weights: &Vec<f32>, pairs: &Pairs, column: &mut Vec<f32>) -> Result<(), KernelError> {
        PLAIN.column_marginal(weights, pairs, column)
    }

    fn column_marginal_backward(
        &self,
        weights: &Vec<f32>,
        pairs: &Pairs,
        d_column: &Vec<f32>,
        d_weights: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        PLAIN.column_marginal_backward(weights, pairs, d_column, d_weights)
    }

    #[allow(clippy::cast_possible_truncation)]
    fn guide_cost(
        &self,
        cost: &Vec<f32>,
        pairs: &Pairs,
        admissible: Option<&Vec<f32>>,
        mask_penalty: f64,
        weights: Option<&Vec<f32>>,
        lambda: f64,
        guided: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let (mask, weights) = (admissible.map(Vec::as_slice), weights.map(Vec::as_slice));
        let admissible = mask;
        let mask_penalty = mask_penalty as f32;
        let lambda = lambda as f32;
        let out = Disjoint::new(guided);
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each(|pair| {
                let cells = pairs.cells.range(pair);
                let (columns, tokens) = (pairs.text.length(pair), pairs.text.range(pair));
                // SAFETY: pairs do not overlap.
                let guided = unsafe { out.part(cells.clone()) };
                guided.copy_from_slice(&cost[cells.clone()]);
                if let Some(mask) = admissible {
                    for (value, &m) in guided.iter_mut().zip(&mask[cells]) {
                        if m < 1.0 {
                            *value += mask_penalty * (1.0 - m);
                        }
                    }
                }
                if let Some(weights) = weights {
                    let weights = &weights[tokens];
                    for row in guided.chunks_exact_mut(columns) {
                        for (value, w) in row.iter_mut().zip(weights) {
                            *value += lambda * (1.0 - w);
                        }
                    }
                }
            });
        });
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)]
    fn guide_cost_backward(
        &self,
        d_guided: &Vec<f32>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let lambda = lambda as f32;
        let out = Disjoint::new(d_weights);
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each(|pair| {
                // SAFETY: pairs do not overlap.
                let d_weights = unsafe { out.part(pairs.text.range(pair)) };
                for row in d_guided[pairs.cells.range(pair)].chunks_exact(d_weights.len()) {
                    for (d_weight, d_guided) in d_weights.iter_mut().zip(row) {
                        *d_weight -= lambda * d_guided;
                    }
                }
            });
        });
        Ok(())
    }
}
