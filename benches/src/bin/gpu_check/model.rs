//! What a training step costs on a GPU by its arithmetic and its bytes: computed, not measured.

use std::fmt::Write as _;

use lucid_benches::{PATCHES, SHAPE, TOKENS, WIDTH};

/// Rates of a card that kernels can reach, not the data sheet's (notes in docs/gpu.md).
pub struct Card {
    /// Name, and what a device's name contains.
    pub name: &'static str,
    /// bf16 products by `mma.sync`, FLOP/s.
    pub tensor: f64,
    /// Copies in device memory, bytes/s.
    pub memory: f64,
    /// Gathers from the second-level cache, bytes/s.
    pub cache: f64,
}

/// Cards the table is made for.
pub const CARDS: [Card; 3] = [
    Card { name: "H200", tensor: 495e12, memory: 4.3e12, cache: 5.5e12 },
    Card { name: "H100", tensor: 495e12, memory: 3.0e12, cache: 5.5e12 },
    Card { name: "4090", tensor: 115e12, memory: 0.92e12, cache: 4.5e12 },
];

/// Seconds between two dependent launches of a stream that is never empty.
const LAUNCH: f64 = 1.5e-6;

/// A part of the step.
pub struct Part {
    /// Kernels.
    pub name: &'static str,
    /// Launches a step.
    pub launches: f64,
    /// Tensor-core FLOPs, the three terms of the split included.
    pub tensor: f64,
    /// Bytes from and to device memory.
    pub memory: f64,
    /// Bytes gathered from or passed through the second-level cache.
    pub cache: f64,
}

impl Part {
    /// What bounds it on a card, and the seconds.
    pub fn expected(&self, card: &Card) -> (&'static str, f64) {
        let bounds = [
            ("tensor cores", self.tensor / card.tensor),
            ("memory", self.memory / card.memory),
            ("cache", self.cache / card.cache),
            ("launches", self.launches * LAUNCH),
        ];
        bounds.into_iter().fold(("", 0.0), |worst, bound| if bound.1 > worst.1 { bound } else { worst })
    }
}

/// The parts of a step of `pairs` pairs at the paper's shape in micro-batches of `micro` pairs.
pub fn parts(pairs: f64, micro: f64) -> Vec<Part> {
    let (d, latents, k, shared) = (WIDTH as f64, SHAPE.latents() as f64, SHAPE.k() as f64, SHAPE.k_shared as f64);
    let (patches, words) = (PATCHES as f64, TOKENS as f64);
    let (vision, text) = (pairs * patches, pairs * words);
    let (n, rounds) = (vision + text, (pairs / micro).ceil());
    let weights = 2.0 * latents * d;
    let gathered = |tokens: f64, slots: f64| tokens * slots * d * 4.0;
    let states = n * d * 4.0;
    let own = gathered(n, k);
    let cross = gathered(n, shared);
    let cells = pairs * patches * words;
    let part = |name, launches, tensor, memory, cache| Part { name, launches, tensor, memory, cache };
    vec![
        part("pack_rows", 2.0 + 2.0 * rounds, 0.0, weights * 8.0 + states, states),
        part("gemm_bf16x3", 2.0 * rounds, 3.0 * 2.0 * n * d * latents, weights * 4.0, n * latents * 4.0),
        // The row is read from the cache once and then from the multiprocessor's own.
        part("topk_rows", 4.0 * rounds, 0.0, n * k * 8.0, n * latents * 4.0),
        part("decode_rows, self", 2.0 * rounds, 0.0, states, own),
        part("decode_values_backward, self", 2.0 * rounds, 0.0, states, own),
        part("csc_*: sort by latent", 8.0 * rounds, 0.0, n * k * 12.0 + 2.0 * rounds * 512.0 * latents * 16.0, 0.0),
        part("csc_rows: W_dec, self", 4.0 * rounds, 0.0, states + weights * 8.0 * rounds, own),
        part("csc_rows: W_enc", 4.0 * rounds, 0.0, states + weights * 8.0 * rounds, own),
        part("decode and gradients, cross", 12.0 * rounds, 0.0, 3.0 * states + weights * 4.0 * rounds, 3.0 * cross),
        part("mix_rows, both ways and back", 4.0 * rounds, 3.0 * 4.0 * 2.0 * cells * d, 4.0 * states, 8.0 * states),
        part("cost, marginals, guide_cost", 8.0 * rounds, 0.0, cells * 12.0, 256.0 * cells * 2.0),
        part("sinkhorn_forward", rounds, 0.0, cells * 8.0, cells * 4.0 * 22.0),
        part("losses, means, biases", 24.0 * rounds, 0.0, 12.0 * states, 0.0),
        part("AdamW, norm, clear", 30.0, 0.0, 2.0 * weights * 36.0, 0.0),
    ]
}

/// The table of docs/gpu.md.
pub fn markdown() -> String {
    let (pairs, micro) = (256.0, 32.0);
    let parts = parts(pairs, micro);
    let mut text = String::from("| part of the step | launches | tensor GFLOP | memory MB | cache MB |");
    for card in &CARDS {
        let _ = write!(text, " {} µs (bound) |", card.name);
    }
    text.push_str("\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for part in &parts {
        let _ = write!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            part.name,
            part.launches,
            part.tensor / 1e9,
            part.memory / 1e6,
            part.cache / 1e6
        );
        for card in &CARDS {
            let (bound, seconds) = part.expected(card);
            let _ = write!(text, " {:.0} ({bound}) |", seconds * 1e6);
        }
        text.push('\n');
    }
    text.push_str("| **sum** | | | | |");
    for card in &CARDS {
        let sum: f64 = parts.iter().map(|part| part.expected(card).1).sum();
        let _ = write!(text, " **{:.0}** |", sum * 1e6);
    }
    text.push('\n');
    text
}
