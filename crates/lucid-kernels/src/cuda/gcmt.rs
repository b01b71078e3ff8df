//! Guided matching in one launch: gcmt.cu.

use super::decode::slots_of;
use super::driver::Driver;
use super::launcher::{Context, launch, narrow, slots};
use super::sinkhorn::{RESERVED, THREADS, sink, vectors};
use super::{Buffer, Cuda};
use crate::codes::{Block, Codes};
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::transport::{Transport, TransportOptions};

/// Dynamic shared memory of a block; nothing where the longest pair does not fit.
fn shared<D: Driver>(context: &Context<D>, pairs: &Pairs, d_shared: usize, text_kept: usize) -> Option<usize> {
    let (rows, columns) = (pairs.vision.longest(), pairs.text.longest());
    let lists = 4 * (d_shared + 2 * columns * text_kept);
    let matrix = 4 * pairs.cells.longest().max(d_shared);
    let bytes = matrix + 4 * (2 * rows + 3 * columns) + lists.max(vectors(rows, columns));
    (bytes <= context.limits().shared_bytes.saturating_sub(RESERVED)).then_some(bytes)
}

/// Solves for all pairs in one launch, or returns false: a pair does not fit.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn plan<D: Driver>(
    context: &Context<D>,
    vision: &Codes<Cuda<D>>,
    text: &Codes<Cuda<D>>,
    pairs: &Pairs,
    admissible: Option<&Buffer<f32, D>>,
    options: &TransportOptions,
    out: &mut Transport<Cuda<D>>,
) -> Result<bool, KernelError> {
    let d_shared = vision.shape.d_shared;
    // Leading slots of a token that may be shared.
    let ((_, vision_kept), (_, text_kept)) = (slots_of(vision, Block::Shared)?, slots_of(text, Block::Shared)?);
    let Some(bytes) = shared(context, pairs, d_shared, text_kept as usize) else { return Ok(false) };
    if pairs.is_empty() {
        return Ok(true);
    }
    let (rows, columns, cells, count) = (pairs.vision.total(), pairs.text.total(), pairs.cells.total(), pairs.len());
    let (mass, start) = sink(options.sinkhorn);
    let state = &mut *context.state();
    let at = state.pairs(&context.driver, pairs)?;
    let (vision_indices, vision_values) = slots(vision);
    let (text_indices, text_values) = slots(text);
    let plan = &mut out.plan;
    launch!(context, "gcmt_plan", [narrow("pairs", count)?, 1, 1], THREADS, bytes;
        vision_indices, vision_values, narrow("k", vision.k)?, vision_kept, text_indices, text_values,
        narrow("k", text.k)?, text_kept, narrow("dShared", d_shared)?, at.vision, at.text, at.cells,
        narrow("patches", pairs.vision.longest())?, narrow("tokens", pairs.text.longest())?,
        narrow("cells", pairs.cells.longest())?, admissible.map_or(0, |mask| mask.read_at(cells)),
        options.mask_penalty as f32, u32::from(options.mass_reweighting), options.lambda_global as f32,
        options.sinkhorn.epsilon as f32, narrow("iterations", options.sinkhorn.iterations)?, options.sinkhorn.tolerance,
        mass, start, out.cost.write_at(cells), out.guided.write_at(cells), out.weights.write_at(columns),
        out.row.write_at(rows), out.column.write_at(columns), plan.plan.write_at(cells), plan.u.write_at(rows),
        plan.v.write_at(columns), plan.row_sums.write_at(rows), plan.column_sums.write_at(columns),
        plan.marginal_error.write_at(count), plan.entropy.write_at(count), plan.transport_cost.write_at(count),
        plan.iterations.write_at(count), plan.first_pair as u64, state.status.write_at(1))?;
    Ok(true)
}
