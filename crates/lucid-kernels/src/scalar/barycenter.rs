//! Barycentres under a normalised plan (spec 4), both ways, and backward.

use super::{Scalar, add_scaled, dot};
use crate::backend::{Barycenter, Direction};
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::real::Real;
use crate::transport::Plan;

/// Calls `visit(target, source, cell)` for every cell of every pair, targets in rising order and, for a target, sources
/// in rising order.
fn for_each_cell(pairs: &Pairs, direction: Direction, mut visit: impl FnMut(usize, usize, usize)) {
    for pair in 0..pairs.len() {
        let (first, columns) = (pairs.cells.range(pair).start, pairs.text.length(pair));
        let (rows, tokens) = (pairs.vision.range(pair), pairs.text.range(pair));
        let cell = |i: usize, j: usize| first + (i - rows.start) * columns + (j - tokens.start);
        match direction {
            Direction::T2V => {
                rows.clone().for_each(|i| tokens.clone().for_each(|j| visit(i, j, cell(i, j))));
            }
            Direction::V2T => {
                tokens.clone().for_each(|j| rows.clone().for_each(|i| visit(j, i, cell(i, j))));
            }
        }
    }
}

/// Mass of every target: row sums for T→V, column sums for V→T.
fn target_mass<R: Real>(plan: &Plan<Scalar<R>>, direction: Direction) -> &[R] {
    match direction {
        Direction::T2V => &plan.row_sums,
        Direction::V2T => &plan.column_sums,
    }
}

/// The share of a source in a target: P_ij or Q_ij.
fn share<R: Real>(mass: R, total: R) -> R {
    if total > R::zero() { mass / total } else { R::zero() }
}

impl<R: Real> Barycenter for Scalar<R> {
    /// ĥ_target = Σ_source share · y_source.
    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Vec<R>,
        out: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        let precision = self.precision;
        let total = target_mass(plan, direction);
        out[..direction.target(pairs).total() * d].fill(R::zero());
        for_each_cell(pairs, direction, |target, source, cell| {
            let out = &mut out[target * d..(target + 1) * d];
            let share = precision.round(share(plan.plan[cell], total[target]));
            add_scaled(out, share, &precision.operands(&y[source * d..(source + 1) * d]));
        });
        Ok(())
    }

    /// dy_source = Σ_target share · g_target; dΠ = (⟨g, y⟩ − its mean under the shares) / mass of the target.
    fn barycenter_backward(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Vec<R>,
        grad: &Vec<R>,
        d_y: &mut Vec<R>,
        d_plan: Option<&mut Vec<R>>,
    ) -> Result<(), KernelError> {
        let precision = self.precision;
        let total = target_mass(plan, direction);
        d_y[..direction.source(pairs).total() * d].fill(R::zero());
        for_each_cell(pairs, direction, |target, source, cell| {
            let d_y = &mut d_y[source * d..(source + 1) * d];
            let share = precision.round(share(plan.plan[cell], total[target]));
            add_scaled(d_y, share, &precision.operands(&grad[target * d..(target + 1) * d]));
        });
        let Some(d_plan) = d_plan else { return Ok(()) };
        let inner = |target: usize, source: usize| {
            let (g, y) = (&grad[target * d..(target + 1) * d], &y[source * d..(source + 1) * d]);
            dot(&precision.operands(g), &precision.operands(y))
        };
        let mut mean = vec![R::zero(); direction.target(pairs).total()];
        for_each_cell(pairs, direction, |target, source, cell| {
            mean[target] += share(plan.plan[cell], total[target]) * inner(target, source);
        });
        for_each_cell(pairs, direction, |target, source, cell| {
            if total[target] > R::zero() {
                d_plan[cell] += (inner(target, source) - mean[target]) / total[target];
            }
        });
        Ok(())
    }
}
