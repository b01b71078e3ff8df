//! Changes to the kernels that the model can weigh before anyone writes them.

use super::work::Work;

/// A change, alone or with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Losses in the epilogue of decode and barycentre.
    FusedLosses,
    /// Launches as CUDA graphs.
    Graph,
}

use Change::{FusedLosses, Graph};

impl Change {
    /// Every change.
    pub const ALL: [Self; 2] = [FusedLosses, Graph];

    /// What it is, and what the model takes from it.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            FusedLosses => {
                "losses in the epilogues of decode and barycentre (a third of the bytes of `residual_partial`)"
            }
            Graph => {
                "launches as CUDA graphs, built and not the default (0.7 µs between kernels instead of 1.5, no host work)"
            }
        }
    }
}

/// Work of a launch under `changes`.
#[must_use]
pub fn adjust(kernel: &str, mut work: Work, changes: &[Change]) -> Work {
    if kernel == "residual_partial" && changes.contains(&FusedLosses) {
        (work.memory, work.instructions) = (work.memory / 3.0, 0.0);
    }
    work
}
