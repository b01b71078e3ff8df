//! What a launch has to do, from its arguments. Instruction counts are those that Nsight Compute counted on an H200 at the
//! paper's sizes ("counted" below), or else estimates from the inner loops.

use super::cards::Card;
use super::trace::Launch;
use crate::{PATCHES, SHAPE, TOKENS};

/// Work of one launch, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Tensor-core FLOPs issued by `mma.sync`, the three terms of a split and what a tile pads included.
    pub tensor: f64,
    /// The same by `wgmma`.
    pub wgmma: f64,
    /// FLOPs that the method asks for.
    pub useful: f64,
    /// Warp instructions.
    pub instructions: f64,
    /// f64 instructions of threads.
    pub double: f64,
    /// Bytes from and to device memory.
    pub memory: f64,
    /// Bytes from and to the second-level cache.
    pub cache: f64,
    /// Passes of 128 bytes through shared memory or the first-level cache.
    pub local: f64,
    /// Clocks of the longest chain of dependent loads, which no other block of the launch can hide.
    pub chain: f64,
    /// Blocks.
    pub blocks: f64,
}

/// Clocks of a dependent load from the second-level cache.
const CACHE_CLOCKS: f64 = 280.0;
/// Clocks of a dependent load from device memory.
const MEMORY_CLOCKS: f64 = 650.0;
/// Share of the second-level cache that one array keeps while others stream past.
const KEPT: f64 = 0.7;

/// Gathers of `bytes` from an array of `size` bytes: from the cache, and what misses from memory.
fn gather(work: &mut Work, card: &Card, bytes: f64, size: f64) {
    let missed = (1.0 - KEPT * card.cache_bytes / size).max(0.0);
    work.cache += bytes;
    work.memory += size.max(missed * bytes);
    work.local += bytes / 128.0;
}

/// Elementwise work: bytes of memory an element, and instructions of a warp for 32 of them.
fn elements(count: f64, bytes: f64, instructions: f64) -> Work {
    Work { memory: count * bytes, instructions: count / 32.0 * instructions, ..Work::default() }
}

/// What a launch costs on a card; nothing for a kernel that the model does not know.
#[must_use]
#[allow(clippy::too_many_lines)]
pub fn of(launch: &Launch, card: &Card) -> Option<Work> {
    let a = |index: usize| launch.arguments[index];
    let blocks: f64 = launch.grid.iter().map(|&side| f64::from(side)).product();
    let first = f64::from(launch.grid[0]);
    // Slots of a token within a range of latents.
    let used =
        |k: f64, begin: f64, end: f64| if end - begin > SHAPE.d_shared as f64 { k } else { SHAPE.k_shared as f64 };
    let (patches, words) = (PATCHES as f64, TOKENS as f64);
    let mut work = match launch.kernel {
        "memset" => elements(a(0) / 4.0, 4.0, 0.0),
        "upload" | "wait" => Work::default(),
        // Four bytes read, two halves written.
        "pack_rows" => elements(a(3) * a(4), 8.0, 12.0),
        "wgmma_bf16x3" => {
            let (m, n, width) = (a(6), a(7), a(8));
            let tiles = (m / 128.0).ceil() * (n / 256.0).ceil();
            Work {
                wgmma: 3.0 * 2.0 * tiles * 128.0 * 256.0 * width,
                useful: 2.0 * m * n * width,
                // Counted: 59.5 million for 1848 tiles, most of them the ends of tiles.
                instructions: tiles * 32.2e3,
                cache: tiles * (128.0 + 256.0) * width * 4.0 + m * n * 4.0,
                memory: n * width * 4.0 + m * n * 4.0,
                ..Work::default()
            }
        }
        "gemm_bf16x3" => {
            let (m, n, width) = (a(6), a(7), a(8));
            let (tile, stages) = (128.0, width / 32.0);
            Work {
                tensor: 3.0 * 2.0 * blocks * tile * tile * width,
                useful: 2.0 * m * n * width,
                // A stage: 2 × 137 for products, about 90 for copies of whole tiles. Behind the loop: 1960.
                instructions: blocks * 8.0 * (stages * 364.0 + 1960.0),
                cache: blocks * 2.0 * tile * width * 4.0 + m * n * 4.0,
                memory: n * width * 4.0,
                // 12 ldmatrix of 512 bytes a warp and k-step of 16, and the copies to shared memory.
                local: blocks * stages * (2.0 * 8.0 * 12.0 * 4.0 + 256.0),
                ..Work::default()
            }
        }
        "topk_warps" => {
            let (rows, stride) = (a(1), a(2));
            let parts = if launch.grid[1] > 1 { vec![(a(4), a(5)), (a(8), a(9))] } else { vec![(a(4), a(5))] };
            let (columns, k) = parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
            // The cells that are looked at again have left the first-level cache: counted, half as much again.
            let bytes = 1.5 * rows * columns * 4.0;
            let far = rows * stride * 4.0 > card.cache_bytes;
            Work {
                useful: rows * columns,
                // Counted: 3717 for a row of both parts.
                instructions: rows * (columns / 32.0 * 8.0 + k * 30.0 + parts.len() as f64 * 370.0),
                cache: bytes,
                memory: rows * k * 8.0 + if far { bytes } else { 0.0 },
                ..Work::default()
            }
        }
        "count_fired" => elements(a(1), 4.0, 15.0),
        "decode_rows" => {
            let (n, k, d, size) = (a(2), a(3), a(8), SHAPE.latents() as f64 * a(8) * 4.0);
            let active = used(k, a(4), a(5));
            let mut work = Work {
                useful: 2.0 * n * active * d,
                // Counted: 106 a slot of 768 columns.
                instructions: n * ((d / 256.0).ceil() * active * 35.0 + 300.0),
                memory: n * (d * 4.0 + k * 8.0),
                ..Work::default()
            };
            gather(&mut work, card, n * active * d * 4.0, size * active / k);
            work
        }
        "decode_values_backward" => {
            let (n, k, d, size) = (a(1), a(2), a(7), SHAPE.latents() as f64 * a(7) * 4.0);
            let active = used(k, a(3), a(4));
            let mut work = Work {
                useful: 2.0 * n * active * d,
                // Counted: 139 a slot of 768 columns.
                instructions: n * active * (d / 128.0 * 20.0 + 19.0),
                memory: n * (d * 4.0 + k * 8.0),
                // Four rows are multiplied by a gradient in shared memory, which each of them looks up.
                local: n * active * d * 4.0 / 128.0,
                ..Work::default()
            };
            gather(&mut work, card, n * active * d * 4.0, size * active / k);
            work
        }
        "csc_count" => Work { chain: a(3) * a(2) / 32.0 * CACHE_CLOCKS, ..elements(a(1) * a(2), 4.0, 20.0) },
        "csc_scan_chunks" => Work {
            cache: 3.0 * a(1) * a(2) * 4.0,
            // Eight warps, eight counts under way, twice.
            chain: (a(1) / 64.0).ceil() * 2.0 * CACHE_CLOCKS,
            ..elements(a(1) * a(2), 0.0, 12.0)
        },
        "csc_scan_latents" => Work { chain: 8.0 * CACHE_CLOCKS + 20.0 * 60.0, ..elements(a(1), 12.0, 60.0) },
        "csc_place" => Work {
            // Four tokens' latents are read together; places are in shared memory, and were read before.
            chain: a(3) / 4.0 * MEMORY_CLOCKS + a(3) * (a(2) / 32.0).ceil() * 60.0 + a(4) / 32.0 / 8.0 * CACHE_CLOCKS,
            cache: a(1) * a(2) * 32.0 + blocks * a(4) * 8.0,
            ..elements(a(1) * a(2), 8.0, 25.0)
        },
        "csc_rows" => {
            let (latents, begin, end, k, d) = (a(3), a(4), a(5), a(6), a(10));
            // The launcher makes room for 2 · n · k / 1024 segments.
            let tokens = (first - latents) * 512.0 / k;
            let entries = tokens * used(k, begin, end);
            let mut work = Work {
                useful: 2.0 * entries * d,
                // Counted: 113 an entry of 768 columns.
                instructions: entries * (d / 256.0).ceil() * 37.8 + (end - begin) * 4.0 * 400.0,
                memory: (end - begin) * d * 8.0 + entries * 8.0,
                ..Work::default()
            };
            gather(&mut work, card, entries * d * 4.0, tokens * d * 4.0);
            work
        }
        "csc_combine" => elements(first, 8.0, 30.0 * 4.0 * 32.0),
        "columns_partial" => Work {
            useful: 2.0 * a(2) * a(4),
            chain: (a(3) / 8.0).ceil() * MEMORY_CLOCKS,
            ..elements(a(2) * a(4), 4.0, 5.0)
        },
        // Sixteen warps, eight values under way.
        "columns_combine" => {
            Work { chain: (a(1) / 128.0).ceil() * CACHE_CLOCKS + 200.0, ..elements(a(1) * a(2), 4.0, 5.0) }
        }
        "gcmt_plan" => {
            let (pairs, cells, k) = (first, first * patches * words, SHAPE.k_shared as f64);
            // Sixteen warps walk the codes of all patches for the mean; four patches a warp look up their latents' words;
            // norms, the sorting of words, and what each cell costs. Estimates.
            let mean = 16.0 * patches * 14.0;
            let inner = patches / 4.0 * k * 45.0;
            let words = (patches + 3.0 * words) * k / 32.0 * 25.0 + words * 60.0;
            // A round's two products: about 1250 instructions a warp for 64 columns, sixteen warps; exp, plan and costs: 170 a
            // warp and 32 cells.
            Work {
                useful: cells * (44.0 + k * k),
                instructions: pairs * (mean + inner + words + 16.0 * 11.0 * 1250.0) + cells / 32.0 * 170.0,
                double: cells * 5.0,
                memory: cells * 12.0,
                cache: cells * 4.0,
                local: cells / 32.0 * 2.0 * 11.0 + pairs * patches * k * 4.0,
                chain: 11.0 * 7.0 * 60.0 + patches * 40.0 + 2.0 * k * CACHE_CLOCKS,
                ..Work::default()
            }
        }
        "mix_rows" => {
            // Output rows are patches where four warps stand above each other.
            let (d, down, tiles) = (a(8), a(9), a(11));
            let (rows, terms) = if down > 2.0 { (patches, words) } else { (words, patches) };
            let (depths, across) = ((terms / 32.0).ceil(), 4.0 / down);
            // Depths of all tiles of a warp, and its shares, which are staged once.
            let (products, shares) = (blocks * 4.0 * tiles * depths, blocks * 32.0 * down * depths * 32.0);
            Work {
                tensor: 3.0 * 2.0 * products * 32.0 * 32.0 * 32.0,
                useful: 2.0 * first * rows * terms * d,
                // An estimate: half as much again as in bf16, where 380 a warp and depth were counted, shares included.
                instructions: products * 450.0 + shares / 4.0 / 32.0 * 60.0,
                memory: first * (rows + terms) * d * 4.0 + first * patches * words * 4.0,
                cache: blocks * tiles * depths * 32.0 * 32.0 * across * 4.0 + shares * 4.0,
                // Points and shares are stored in two halves; 12 ldmatrix of four passes a depth.
                local: products * (32.0 * 32.0 * 4.0 / down / 128.0 + 48.0) + shares * 4.0 / 128.0,
                ..Work::default()
            }
        }
        "residual_partial" => Work { useful: 4.0 * a(2), double: a(2) * 2.0, ..elements(a(2), 12.0, 17.0) },
        "squares_partial" => Work { useful: 2.0 * a(1), double: a(1) * 2.0, ..elements(a(1), 4.0, 9.0) },
        "products_partial" => Work { useful: 2.0 * a(2), double: a(2) * 3.0, ..elements(a(2), 8.0, 17.0) },
        "sum_partial" => Work { chain: 2.0 * CACHE_CLOCKS + 300.0, ..Work::default() },
        // Half of these are of patches and half of words.
        "segment_mean" | "segment_mean_backward" => {
            let bytes = if launch.kernel == "segment_mean" { 4.0 } else { 8.0 };
            let tokens = f64::midpoint(patches, words);
            let d = a(2);
            Work { chain: (tokens / 16.0).ceil() * MEMORY_CLOCKS, ..elements(first * tokens * d, bytes, 5.0) }
        }
        // As `adamw` where they were one, and four bytes more where halves are written.
        "adamw_rows" => {
            let values = a(4) * a(5);
            let copies = if a(16) > 0.0 { 4.0 } else { 0.0 } + if a(19) > 0.0 { 2.0 } else { 0.0 };
            Work { useful: 12.0 * values, ..elements(values, 28.0 + copies, 85.0) }
        }
        "adamw" => Work { useful: 12.0 * a(4), ..elements(a(4), 28.0, 73.0) },
        _ => return None,
    };
    work.blocks = blocks;
    Some(work)
}

impl Work {
    /// Adds another's work.
    pub fn add(&mut self, other: &Self) {
        self.tensor += other.tensor;
        self.wgmma += other.wgmma;
        self.useful += other.useful;
        self.instructions += other.instructions;
        self.double += other.double;
        self.memory += other.memory;
        self.cache += other.cache;
        self.local += other.local;
        self.chain += other.chain;
        self.blocks += other.blocks;
    }
}
