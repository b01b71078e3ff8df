//! Changes to the kernels that the model can weigh before anyone writes them.

use super::cards::Card;
use super::work::Work;
use crate::{SHAPE, WIDTH};

/// Pairs of a large micro-batch: 38 MB of gathered rows of patches, which a cache of 50 MiB nearly keeps.
pub const LARGE: usize = 64;

/// A change, alone or with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Gathers of 16 bytes a thread.
    WideLoads,
    /// Gathered rows as bf16.
    HalfRows,
    /// Columns of the dictionary in shared memory.
    ColumnSlices,
    /// Top-k by a warp a row, values in registers.
    WarpTopK,
    /// `wgmma` and TMA.
    Wgmma,
    /// One bf16 product in place of three.
    OneTerm,
    /// Cost, marginals and Sinkhorn of a pair in one launch.
    FusedTransport,
    /// Losses in the epilogue of decode and barycentre.
    FusedLosses,
    /// Barycentres whose operands are split once.
    SplitOnce,
    /// Sorting by latent with several tokens under way.
    FastSort,
    /// The step as a CUDA graph.
    Graph,
    /// Micro-batches of [`LARGE`] pairs.
    LargeMicroBatches,
}

use Change::{
    ColumnSlices, FastSort, FusedLosses, FusedTransport, Graph, HalfRows, LargeMicroBatches, OneTerm, SplitOnce,
    WarpTopK, Wgmma, WideLoads,
};

impl Change {
    /// Every change.
    pub const ALL: [Self; 12] = [
        WideLoads,
        HalfRows,
        ColumnSlices,
        WarpTopK,
        Wgmma,
        OneTerm,
        FusedTransport,
        FusedLosses,
        SplitOnce,
        FastSort,
        Graph,
        LargeMicroBatches,
    ];

    /// What it is, and what the model takes from it.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            WideLoads => "gathers of 16 bytes a thread in decode, its backward and `csc_rows` (instructions × 0.35)",
            HalfRows => "gathered rows as bf16 shadows (bytes × 0.5; changes results to bf16's)",
            ColumnSlices => {
                "columns of `W_dec` in shared memory for decode and its backward (cache reads the codes once a slice instead)"
            }
            WarpTopK => "Top-k by one warp a row, values in registers, one read (instructions × 0.15)",
            Wgmma => "encoder by `wgmma` and TMA, 128 × 256 tiles (80 % of the data sheet, instructions × 0.1)",
            OneTerm => "`precision: 'bf16'`: one product in place of three (changes results to bf16's)",
            FusedTransport => "cost, marginals and Sinkhorn of a pair in one launch, sums over patches by eight warps",
            FusedLosses => {
                "losses in the epilogues of decode and barycentre (a third of the bytes of `residual_partial`)"
            }
            SplitOnce => "barycentres on operands split once, copied 16 bytes at a time (instructions × 0.25)",
            FastSort => "sort by latent with four tokens under way (chains × 0.25)",
            Graph => "the step as a CUDA graph (0.7 µs between kernels instead of 1.5, no host work)",
            LargeMicroBatches => {
                "micro-batches of 64 pairs (fewer launches and tails; gradients of dictionaries read and written 4 times, not 8)"
            }
        }
    }

    /// Whether it applies to a card.
    #[must_use]
    pub fn possible(self, card: &Card) -> bool {
        self != Wgmma || card.mma_share < 1.0
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
        if has(WideLoads) {
            work.instructions *= 0.35;
        }
        let bytes = if has(HalfRows) { 2 } else { 4 };
        let slices = (SHAPE.latents() * WIDTH * bytes) as f64 / (0.85 * card.shared_bytes);
        let sliced = 8.0 * slices.ceil() / (WIDTH as f64 * 4.0);
        if has(HalfRows) {
            (work.cache, work.local) = (work.cache * 0.5, work.local * 0.5);
        }
        if decode && has(ColumnSlices) {
            work.cache = work.cache.min(full * sliced);
        }
    }
    match kernel {
        "topk_rows" if has(WarpTopK) => {
            (work.instructions, work.cache, work.local) =
                (work.instructions * 0.15, work.cache * 0.5, work.local * 0.2);
        }
        "gemm_bf16x3" => {
            if has(Wgmma) {
                (work.instructions, work.local, work.cache) =
                    (work.instructions * 0.1, work.local * 0.5, work.cache * 0.75);
                work.tensor *= card.mma_share * 0.75 / 0.8;
            }
            if has(OneTerm) {
                (work.tensor, work.instructions, work.local) =
                    (work.tensor / 3.0, work.instructions * 0.5, work.local * 0.5);
                (work.cache, work.memory) = (work.cache * 0.5, work.memory * 0.5);
            }
        }
        "mix_rows" if has(SplitOnce) => (work.instructions, work.local) = (work.instructions * 0.25, work.local * 0.4),
        "residual_partial" if has(FusedLosses) => (work.memory, work.instructions) = (work.memory / 3.0, 0.0),
        "csc_count" | "csc_place" if has(FastSort) => work.chain *= 0.25,
        "code_norms" | "uniform_marginal" | "column_marginal" | "guide_cost" if has(FusedTransport) => return None,
        "mass_weights" if has(FusedTransport) => work.chain /= 8.0,
        "cosine_cost" if has(FusedTransport) => {
            (work.instructions, work.local, work.memory) = (work.instructions * 0.2, work.local * 0.1, 0.0);
        }
        _ => {}
    }
    Some(work)
}
