//! Transport cost and marginals: launches of guide.cu.

use super::driver::Driver;
use super::launcher::{Context, State, blocks, launch, narrow, slots};
use super::{Buffer, Cuda};
use crate::backend::Guide;
use crate::codes::Codes;
use crate::error::KernelError;
use crate::ragged::{Pairs, Ragged};

/// Codes of one modality as kernels take them.
#[derive(Clone, Copy)]
struct Side {
    indices: u64,
    values: u64,
    norms: u64,
    k: u32,
}

/// Norms of the shared codes, and where everything lies; `which` keeps the two modalities' norms apart.
fn side<D: Driver>(
    context: &Context<D>,
    state: &mut State<D>,
    which: usize,
    codes: &Codes<Cuda<D>>,
) -> Result<Side, KernelError> {
    state.norms[which].reserve(codes.n)?;
    let (indices, values) = slots(codes);
    let (norms, k) = (state.norms[which].write_at(codes.n), narrow("k", codes.k)?);
    let d_shared = narrow("dShared", codes.shape.d_shared)?;
    launch!(context, "code_norms", [blocks(codes.n, 128), 1, 1], 128, 0;
        indices, values, codes.n as u64, k, d_shared, norms)?;
    Ok(Side { indices, values, norms, k })
}

/// Blocks that share the tokens of a pair: four a block.
fn shares(longest: usize) -> u32 {
    blocks(longest, 4).min(64)
}

impl<D: Driver> Guide for Cuda<D> {
    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let state = &mut *context.state();
        let (v, t) = (side(context, state, 0, vision)?, side(context, state, 1, text)?);
        let at = state.pairs(&context.driver, pairs)?;
        let grid = [narrow("pairs", pairs.len())?, blocks(pairs.vision.longest(), 32), 1];
        launch!(context, "cosine_cost", grid, 128, 0;
            v.indices, v.values, v.norms, v.k, t.indices, t.values, t.norms, t.k, narrow("dShared", vision.shape.d_shared)?,
            at.vision, at.text, at.cells, cost.write_at(pairs.cells.total()))
    }

    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Buffer<f32, D>,
        d_cost: &Buffer<f32, D>,
        d_vision: &mut Buffer<f32, D>,
        d_text: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let state = &mut *context.state();
        let (v, t) = (side(context, state, 0, vision)?, side(context, state, 1, text)?);
        let at = state.pairs(&context.driver, pairs)?;
        let cells = pairs.cells.total();
        let (cost, d_cost) = (cost.read_at(cells), d_cost.read_at(cells));
        let (count, d_shared) = (narrow("pairs", pairs.len())?, narrow("dShared", vision.shape.d_shared)?);
        let d_vision = d_vision.write_at(vision.n * vision.k);
        let d_text = d_text.write_at(text.n * text.k);
        let both = [
            (v, t, at.vision, at.text, 0u32, pairs.vision.longest(), d_vision),
            (t, v, at.text, at.vision, 1u32, pairs.text.longest(), d_text),
        ];
        for (own, other, own_at, other_at, transposed, longest, out) in both {
            launch!(context, "cosine_cost_backward", [count, shares(longest), 1], 128, 0;
                own.indices, own.values, own.norms, own.k, other.indices, other.values, other.norms, other.k, d_shared,
                own_at, other_at, at.cells, transposed, cost, d_cost, out)?;
        }
        Ok(())
    }

    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let state = &mut *context.state();
        let t = side(context, state, 1, text)?;
        let at = state.pairs(&context.driver, pairs)?;
        let room = pairs.len() * vision.shape.d_shared;
        state.global.reserve(room)?;
        let (indices, values) = slots(vision);
        launch!(context, "mass_weights", [narrow("pairs", pairs.len())?, 1, 1], 128, 0;
            indices, values, narrow("k", vision.k)?, t.indices, t.values, t.norms, t.k,
            narrow("dShared", vision.shape.d_shared)?, at.vision, at.text, state.global.write_at(room),
            weights.write_at(pairs.text.total()))
    }

    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Buffer<f32, D>,
        d_vision: &mut Buffer<f32, D>,
        d_text: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let state = &mut *context.state();
        let t = side(context, state, 1, text)?;
        let at = state.pairs(&context.driver, pairs)?;
        let room = 2 * pairs.len() * vision.shape.d_shared;
        state.global.reserve(room)?;
        let (indices, values) = slots(vision);
        launch!(context, "mass_weights_backward", [narrow("pairs", pairs.len())?, 1, 1], 128, 0;
            indices, values, narrow("k", vision.k)?, t.indices, t.values, t.norms, t.k,
            narrow("dShared", vision.shape.d_shared)?, at.vision, at.text, d_weights.read_at(pairs.text.total()),
            state.global.write_at(room), d_vision.write_at(vision.n * vision.k), d_text.write_at(text.n * text.k))
    }

    fn uniform_marginal(&self, segments: &Ragged, out: &mut Buffer<f32, D>) -> Result<(), KernelError> {
        let context = &*self.context;
        if segments.is_empty() {
            return Ok(());
        }
        let offsets = context.state().segments(&context.driver, segments)?;
        launch!(context, "uniform_marginal", [narrow("pairs", segments.len())?, 1, 1], 128, 0;
            offsets, out.write_at(segments.total()))
    }

    fn column_marginal(
        &self,
        weights: &Buffer<f32, D>,
        pairs: &Pairs,
        column: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let at = context.state().pairs(&context.driver, pairs)?;
        let columns = pairs.text.total();
        launch!(context, "column_marginal", [narrow("pairs", pairs.len())?, 1, 1], 128, 0;
            weights.read_at(columns), at.text, column.write_at(columns))
    }

    fn column_marginal_backward(
        &self,
        weights: &Buffer<f32, D>,
        pairs: &Pairs,
        d_column: &Buffer<f32, D>,
        d_weights: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let at = context.state().pairs(&context.driver, pairs)?;
        let columns = pairs.text.total();
        launch!(context, "column_marginal_backward", [narrow("pairs", pairs.len())?, 1, 1], 128, 0;
            weights.read_at(columns), at.text, d_column.read_at(columns), d_weights.write_at(columns))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn guide_cost(
        &self,
        cost: &Buffer<f32, D>,
        pairs: &Pairs,
        admissible: Option<&Buffer<f32, D>>,
        mask_penalty: f64,
        weights: Option<&Buffer<f32, D>>,
        lambda: f64,
        guided: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let at = context.state().pairs(&context.driver, pairs)?;
        let cells = pairs.cells.total();
        let grid = [narrow("pairs", pairs.len())?, blocks(pairs.cells.longest(), 128 * 8).min(1024), 1];
        launch!(context, "guide_cost", grid, 128, 0;
            cost.read_at(cells), at.text, at.cells, admissible.map_or(0, |mask| mask.read_at(cells)), mask_penalty as f32,
            weights.map_or(0, |weights| weights.read_at(pairs.text.total())), lambda as f32, guided.write_at(cells))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn guide_cost_backward(
        &self,
        d_guided: &Buffer<f32, D>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let at = context.state().pairs(&context.driver, pairs)?;
        launch!(context, "guide_cost_backward", [narrow("pairs", pairs.len())?, 1, 1], 128, 0;
            d_guided.read_at(pairs.cells.total()), at.text, at.cells, lambda as f32, d_weights.write_at(pairs.text.total()))
    }
}
