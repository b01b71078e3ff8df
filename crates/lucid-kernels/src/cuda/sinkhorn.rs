//! Sinkhorn's iteration and its derivative: launches of sinkhorn.cu.

use super::driver::Driver;
use super::launcher::{Context, State, blocks, launch, narrow};
use super::loss::sum;
use super::{Buffer, Cuda};
use crate::backend::Sinkhorn;
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::transport::{Plan, SinkhornOptions};

pub(super) const THREADS: u32 = 512;
/// Static shared memory of the kernels and what the device keeps for itself, with room to spare.
pub(super) const RESERVED: usize = 2048;
/// What `status` holds while no pair is empty.
pub(super) const FINE: u64 = u64::MAX;

/// Bytes of the vectors of an iteration.
pub(super) const fn vectors(rows: usize, columns: usize) -> usize {
    4 * (2 * rows + (2 + THREADS as usize / 32) * columns)
}

/// Dynamic shared memory of a block, and whether K lies in it.
fn shared<D: Driver>(context: &Context<D>, pairs: &Pairs) -> Result<(usize, bool), KernelError> {
    let (rows, columns) = (pairs.vision.longest(), pairs.text.longest());
    let vectors = vectors(rows, columns);
    let room = context.limits().shared_bytes.saturating_sub(RESERVED);
    if vectors > room {
        let found = format!("{rows} patches and {columns} tokens");
        return Err(KernelError::shape("a pair", found, format!("8 rows + 72 columns within {room} bytes")));
    }
    let matrix = 4 * rows * columns;
    Ok(if vectors + matrix <= room { (vectors + matrix, true) } else { (vectors, false) })
}

/// Where K lies if not in shared memory.
fn room<D: Driver>(state: &mut State<D>, inside: bool, cells: usize) -> Result<u64, KernelError> {
    if inside {
        return Ok(0);
    }
    state.matrix.reserve(cells)?;
    Ok(state.matrix.write_at(cells))
}

/// The sink's mass and its start, which is 0 without one (see the scalar twin).
#[allow(clippy::cast_possible_truncation)]
pub(super) fn sink(options: SinkhornOptions) -> (f32, f32) {
    let start = if options.sink_mass > 0.0 { (-1.0 / options.epsilon).exp() } else { 0.0 };
    (options.sink_mass as f32, start as f32)
}

/// The first empty row or column since the last call.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn finish<D: Driver>(context: &Context<D>) -> Result<(), KernelError> {
    let state = &mut *context.state();
    let mut status = [0];
    state.status.read(0, &mut status)?;
    if status[0] == FINE {
        return Ok(());
    }
    state.status.write(0, &[FINE])?;
    Err(KernelError::EmptyMask {
        pair: (status[0] >> 33) as usize,
        axis: if status[0] >> 32 & 1 == 0 { "row" } else { "column" },
        index: (status[0] & u64::from(u32::MAX)) as usize,
    })
}

impl<D: Driver> Sinkhorn for Cuda<D> {
    /// An empty row or column is left in `status`, for [`finish`].
    #[allow(clippy::cast_possible_truncation)]
    fn sinkhorn(
        &self,
        cost: &Buffer<f32, D>,
        pairs: &Pairs,
        row: &Buffer<f32, D>,
        column: &Buffer<f32, D>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let (rows, columns, cells, count) =
            (pairs.vision.total(), pairs.text.total(), pairs.cells.total(), pairs.len());
        let (bytes, inside) = shared(context, pairs)?;
        let (mass, start) = sink(options);
        let state = &mut *context.state();
        let at = state.pairs(&context.driver, pairs)?;
        let room = room(state, inside, cells)?;
        launch!(context, "sinkhorn_forward", [narrow("pairs", count)?, 1, 1], THREADS, bytes;
            cost.read_at(cells), row.read_at(rows), column.read_at(columns), at.vision, at.text, at.cells,
            narrow("patches", pairs.vision.longest())?, narrow("tokens", pairs.text.longest())?, options.epsilon as f32,
            narrow("iterations", options.iterations)?, options.tolerance, mass, start, room, plan.plan.write_at(cells),
            plan.u.write_at(rows), plan.v.write_at(columns), plan.row_sums.write_at(rows), plan.column_sums.write_at(columns),
            plan.marginal_error.write_at(count), plan.entropy.write_at(count), plan.transport_cost.write_at(count),
            plan.iterations.write_at(count), plan.first_pair as u64, state.status.write_at(1))
    }

    #[allow(clippy::cast_possible_truncation)]
    fn sinkhorn_backward(
        &self,
        cost: &Buffer<f32, D>,
        pairs: &Pairs,
        row: &Buffer<f32, D>,
        column: &Buffer<f32, D>,
        options: SinkhornOptions,
        plan: &Plan<Self>,
        d_plan: &Buffer<f32, D>,
        d_cost: &mut Buffer<f32, D>,
        d_column: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        if pairs.is_empty() {
            return Ok(());
        }
        let (rows, columns, cells, count) =
            (pairs.vision.total(), pairs.text.total(), pairs.cells.total(), pairs.len());
        let (bytes, inside) = shared(context, pairs)?;
        let (mass, start) = sink(options);
        let state = &mut *context.state();
        let at = state.pairs(&context.driver, pairs)?;
        let room = room(state, inside, cells)?;
        let round = 3 * rows + 2 * columns + count;
        let kept = round.checked_mul(options.iterations + 1).ok_or(KernelError::Memory { bytes: usize::MAX })?;
        state.history.reserve(kept)?;
        launch!(context, "sinkhorn_backward", [narrow("pairs", count)?, 1, 1], THREADS, bytes;
            cost.read_at(cells), row.read_at(rows), column.read_at(columns), at.vision, at.text, at.cells,
            narrow("pairs", count)?, narrow("patches", pairs.vision.longest())?, narrow("tokens", pairs.text.longest())?,
            options.epsilon as f32, mass, start, plan.iterations.read_at(count), d_plan.read_at(cells), room,
            state.history.write_at(kept), d_cost.write_at(cells), d_column.write_at(columns))
    }

    fn transport_cost(
        &self,
        cost: &Buffer<f32, D>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        sums: &mut Buffer<f64, D>,
        slot: usize,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let cells = pairs.cells.total();
        sum(context, cells, sums, slot, |partial, parts| {
            launch!(context, "products_partial", [parts, 1, 1], 256, 0;
                cost.read_at(cells), plan.plan.read_at(cells), cells as u64, partial)
        })
    }

    #[allow(clippy::cast_possible_truncation)]
    fn transport_cost_backward(
        &self,
        cost: &Buffer<f32, D>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        scale: f64,
        d_cost: &mut Buffer<f32, D>,
        d_plan: Option<&mut Buffer<f32, D>>,
    ) -> Result<(), KernelError> {
        let context = &*self.context;
        let cells = pairs.cells.total();
        let d_plan = d_plan.map_or(0, |d_plan| d_plan.write_at(cells));
        launch!(context, "products_backward", [blocks(cells, 256 * 4), 1, 1], 256, 0;
            cost.read_at(cells), plan.plan.read_at(cells), cells as u64, scale as f32, d_cost.write_at(cells), d_plan)
    }
}
