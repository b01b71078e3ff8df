//! Changes to the kernels that the model can weigh before anyone writes them.

use super::cards::Card;
use super::work::Work;
use crate::{SHAPE, WIDTH};

/// A change, alone or with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Gathered rows as bf16.
    HalfRows,
    /// Columns of the dictionary in shared memory.
    ColumnSlices,
    /// One bf16 product in place of three.
    OneTerm,
    /// Cost, marginals and Sinkhorn of a pair in one launch.
    FusedTransport,
    /// Losses in the epilogue of decode and barycentre.
    FusedLosses,
    /// The step as a CUDA graph.
    Graph,
}

use Change::{ColumnSlices, FusedLosses, FusedTransport, Graph, HalfRows, OneTerm};

impl Change {
    /// Every change.
    pub const ALL: [Self; 6] = [HalfRows, ColumnSlices, OneTerm, FusedTransport, FusedLosses, Graph];

    /// What it is, and what the model takes from it.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            HalfRows => "gathered rows as bf16 shadows (bytes × 0.5; changes results to bf16's)",
            ColumnSlices => {
                "columns of `W_dec` in shared memory for decode and its backward (cache reads the codes once a slice instead)"
            }
            OneTerm => "`precision: 'bf16'`: one product in place of three (changes results to bf16's)",
            FusedTransport => "cost, marginals and Sinkhorn of a pair in one launch",
            FusedLosses => {
                "losses in the epilogues of decode and barycentre (a third of the bytes of `residual_partial`)"
            }
            Graph => "the step as a CUDA graph (0.7 µs between kernels instead of 1.5, no host work)",
        }
    }

    /// Whether results stay those of `precision: 'f32'`.
    #[must_use]
    pub const fn keeps_precision(self) -> bool {
        !matches!(self, HalfRows | OneTerm)
    }
}

/// Work of a launch under `changes`; nothing where the launch is gone.
#[must_use]
pub fn adjust(kernel: &str, mut work: Work, changes: &[Change], card: &Card) -> Option<Work> {
    let has = |change| changes.contains(&change);
    let decode = matches!(kernel, "decode_rows" | "decode_values_backward");
    if decode || kernel == "csc_rows" {
        let full = work.cache;
        let bytes = if has(HalfRows) { 2 } else { 4 };
        let slices = (SHAPE.latents() * WIDTH * bytes) as f64 / (0.85 * card.shared_bytes);
        let sliced = 8.0 * slices.ceil() / (WIDTH as f64 * 4.0);
        if has(HalfRows) {
            (work.cache, work.local, work.memory) = (work.cache * 0.5, work.local * 0.5, work.memory * 0.5);
        }
        if decode && has(ColumnSlices) {
            work.cache = work.cache.min(full * sliced);
        }
    }
    match kernel {
        "gemm_bf16x3" | "wgmma_bf16x3" if has(OneTerm) => {
            (work.tensor, work.wgmma, work.instructions) =
                (work.tensor / 3.0, work.wgmma / 3.0, work.instructions * 0.5);
            (work.cache, work.local) = (work.cache * 0.5, work.local * 0.5);
        }
        "residual_partial" if has(FusedLosses) => (work.memory, work.instructions) = (work.memory / 3.0, 0.0),
        "code_norms" | "uniform_marginal" | "column_marginal" | "guide_cost" if has(FusedTransport) => return None,
        "cosine_cost" if has(FusedTransport) => work.memory = 0.0,
        _ => {}
    }
    Some(work)
}
