//! Changes to the kernels that the model can weigh before anyone writes them.

use super::cards::Card;
use super::work::Work;
use crate::{SHAPE, WIDTH};

/// A change, alone or with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Columns of the dictionary in shared memory.
    ColumnSlices,
    /// Cost, marginals and Sinkhorn of a pair in one launch.
    FusedTransport,
    /// Losses in the epilogue of decode and barycentre.
    FusedLosses,
    /// The step as a CUDA graph.
    Graph,
}

use Change::{ColumnSlices, FusedLosses, FusedTransport, Graph};

impl Change {
    /// Every change.
    pub const ALL: [Self; 4] = [ColumnSlices, FusedTransport, FusedLosses, Graph];

    /// What it is, and what the model takes from it.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            ColumnSlices => {
                "columns of `W_dec` in shared memory for decode and its backward (cache reads the codes once a slice instead)"
            }
            FusedTransport => "cost, marginals and Sinkhorn of a pair in one launch",
            FusedLosses => {
                "losses in the epilogues of decode and barycentre (a third of the bytes of `residual_partial`)"
            }
            Graph => "the step as a CUDA graph (0.7 µs between kernels instead of 1.5, no host work)",
        }
    }
}

/// Work of a launch under `changes`; nothing where the launch is gone.
#[must_use]
pub fn adjust(kernel: &str, mut work: Work, changes: &[Change], card: &Card) -> Option<Work> {
    let has = |change| changes.contains(&change);
    let decode = matches!(kernel, "decode_rows" | "decode_values_backward");
    if decode && has(ColumnSlices) {
        let slices = (SHAPE.latents() * WIDTH * 4) as f64 / (0.85 * card.shared_bytes);
        work.cache *= (8.0 * slices.ceil() / (WIDTH as f64 * 4.0)).min(1.0);
    }
    match kernel {
        "residual_partial" if has(FusedLosses) => (work.memory, work.instructions) = (work.memory / 3.0, 0.0),
        "code_norms" | "uniform_marginal" | "column_marginal" | "guide_cost" if has(FusedTransport) => return None,
        "cosine_cost" if has(FusedTransport) => work.memory = 0.0,
        _ => {}
    }
    Some(work)
}
