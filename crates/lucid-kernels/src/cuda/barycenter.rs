//! Barycentres: launches of barycenter.cu.

use super::driver::Driver;
use super::launcher::{Context, DevicePairs, blocks, launch, narrow};
use super::{Buffer, Cuda};
use crate::backend::{Barycenter, Direction};
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::transport::Plan;

/// Rows and columns of a block.
const TILE: usize = 64;

/// Where one side of the plan lies.
#[derive(Clone, Copy)]
struct Side {
    offsets: u64,
    longest: usize,
}

/// Target, source, mass of the targets, and whether targets are the plan's columns.
fn sides<D: Driver>(
    plan: &Plan<Cuda<D>>,
    pairs: &Pairs,
    direction: Direction,
    at: DevicePairs,
) -> (Side, Side, u64, u32) {
    let vision = Side { offsets: at.vision, longest: pairs.vision.longest() };
    let text = Side { offsets: at.text, longest: pairs.text.longest() };
    match direction {
        Direction::T2V => (vision, text, plan.row_sums.read_at(pairs.vision.total()), 0),
        Direction::V2T => (text, vision, plan.column_sums.read_at(pairs.text.total()), 1),
    }
}

/// Arguments of `mix_rows`.
struct Mix {
    plan: u64,
    mass: u64,
    mass_of_own: u32,
    transposed: u32,
    own: u64,
    other: u64,
    cells: u64,
    points: u64,
    d: usize,
    out: u64,
}

/// Shared memory for shares, beside that for points.
const SHARES: usize = 64 << 10;
/// Blocks that keep every GPU busy; those of a pair divide its columns.
const ENOUGH: usize = 768;

/// The longest pair has `rows` rows of output and `terms` terms.
fn mix<D: Driver>(
    context: &Context<D>,
    (pairs, rows, terms): (usize, usize, usize),
    mix: &Mix,
) -> Result<(), KernelError> {
    let Mix { plan, mass, mass_of_own, transposed, own, other, cells, points, d, out } = *mix;
    // Squares of 32 × 32 in one or two halves of bf16; blocks of four warps, one square of output each.
    let square = 32 * 32 * 2 * if context.rounds() { 1 } else { 2 };
    let down = if rows <= 64 { 2 } else { 4 };
    let across = 4 / down;
    let points_bytes = 2 * across * square;
    let room = SHARES.min(context.limits().shared_bytes.saturating_sub(points_bytes + 4096));
    let panel = (room / (down * square)).clamp(1, 8).min(terms.div_ceil(32).max(1));
    let (row_blocks, tiles) = (rows.div_ceil(32 * down), d.div_ceil(32 * across));
    let each = tiles.div_ceil(ENOUGH.div_ceil(pairs * row_blocks).min(tiles));
    let grid = [narrow("pairs", pairs)?, narrow("d", tiles.div_ceil(each))?, narrow("rows", row_blocks)?];
    let shared = panel * down * square + points_bytes;
    let (down, panel, each, d) = (narrow("warps", down)?, narrow("terms", panel)?, narrow("d", each)?, narrow("d", d)?);
    match context.rounds() {
        false => launch!(context, "mix_rows", grid, 128, shared;
            plan, mass, mass_of_own, transposed, own, other, cells, points, d, down, panel, each, out),
        true => launch!(context, "mix_rows_bf16", grid, 128, shared;
            plan, mass, mass_of_own, transposed, own, other, cells, points, d, down, panel, each, out),
    }
}

impl<D: Driver> Barycenter for Cuda<D> {
    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Buffer<f32, D>,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() || d == 0 {
            return Ok(());
        }
        let at = context.state().pairs(&context.driver, pairs)?;
        let (target, source, mass, transposed) = sides(plan, pairs, direction, at);
        mix(
            context,
            (pairs.len(), target.longest, source.longest),
            &Mix {
                plan: plan.plan.read_at(pairs.cells.total()),
                mass,
                mass_of_own: 1,
                transposed,
                own: target.offsets,
                other: source.offsets,
                cells: at.cells,
                points: y.read_at(direction.source(pairs).total() * d),
                d,
                out: out.write_at(direction.target(pairs).total() * d),
            },
        )
    }

    fn barycenter_backward(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Buffer<f32, D>,
        grad: &Buffer<f32, D>,
        d_y: &mut Buffer<f32, D>,
        d_plan: Option<&mut Buffer<f32, D>>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() || d == 0 {
            return Ok(());
        }
        let state = &mut *context.state();
        let at = state.pairs(&context.driver, pairs)?;
        let (target, source, mass, transposed) = sides(plan, pairs, direction, at);
        let (cells, count) = (pairs.cells.total(), narrow("pairs", pairs.len())?);
        let masses = plan.plan.read_at(cells);
        let grad = grad.read_at(direction.target(pairs).total() * d);
        let sources = direction.source(pairs).total() * d;
        mix(
            context,
            (pairs.len(), source.longest, target.longest),
            &Mix {
                plan: masses,
                mass,
                mass_of_own: 0,
                transposed: 1 - transposed,
                own: source.offsets,
                other: target.offsets,
                cells: at.cells,
                points: grad,
                d,
                out: d_y.write_at(sources),
            },
        )?;
        let Some(d_plan) = d_plan else { return Ok(()) };
        state.matrix.reserve(cells)?;
        let inner = state.matrix.write_at(cells);
        let grid = [count, blocks(source.longest, TILE), blocks(target.longest, TILE)];
        let (y, width) = (y.read_at(sources), narrow("d", d)?);
        match context.rounds() {
            false => launch!(context, "mix_inner", grid, 128, 0;
                grad, y, transposed, target.offsets, source.offsets, at.cells, width, inner)?,
            true => launch!(context, "mix_inner_bf16", grid, 128, 0;
                grad, y, transposed, target.offsets, source.offsets, at.cells, width, inner)?,
        }
        launch!(context, "plan_gradient", [count, blocks(target.longest, 4).min(64), 1], 128, 0;
            masses, mass, inner, transposed, target.offsets, source.offsets, at.cells, d_plan.write_at(cells))
    }
}
