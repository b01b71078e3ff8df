//! What cards can do: data-sheet peaks, and the part of them that kernels like these can reach.

/// A card.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// What the device's name contains; the first card of [`CARDS`] that matches counts.
    pub name: &'static str,
    /// Multiprocessors.
    pub multiprocessors: f64,
    /// Clock under load, Hz.
    pub clock: f64,
    /// Dense bf16 products with f32 sums, FLOP/s, by the data sheet.
    pub tensor_peak: f64,
    /// Share of `tensor_peak` that `mma.sync` reaches: Hopper's peak belongs to `wgmma`. About 0.63 from published
    /// microbenchmarks; not measured here.
    pub mma_share: f64,
    /// Device memory, bytes/s, by the data sheet.
    pub memory_peak: f64,
    /// Reads that hit the second-level cache, bytes/s: on Hopper what `decode_rows` reaches on an H200, else assumed from
    /// published microbenchmarks.
    pub cache: f64,
    /// Second-level cache, bytes.
    pub cache_bytes: f64,
    /// f64 instructions (conversions, which are the slowest of them) of a multiprocessor a clock.
    pub double_lanes: f64,
    /// Dynamic shared memory a block may have, bytes.
    pub shared_bytes: f64,
}

const H100: Card = Card {
    name: "H100",
    multiprocessors: 132.0,
    clock: 1.83e9,
    tensor_peak: 989.4e12,
    mma_share: 0.63,
    memory_peak: 3.35e12,
    cache: 9.4e12,
    cache_bytes: 50.0 * 1048576.0,
    double_lanes: 16.0,
    shared_bytes: 227.0 * 1024.0,
};

const ADA: Card = Card {
    name: "4090",
    multiprocessors: 128.0,
    clock: 2.52e9,
    tensor_peak: 165.2e12,
    mma_share: 1.0,
    memory_peak: 1.008e12,
    cache: 4.5e12,
    cache_bytes: 72.0 * 1048576.0,
    double_lanes: 2.0,
    shared_bytes: 99.0 * 1024.0,
};

/// Cards with known peaks.
pub const CARDS: [Card; 7] = [
    Card { name: "H200", memory_peak: 4.8e12, ..H100 },
    Card {
        name: "H100 PCIe",
        multiprocessors: 114.0,
        clock: 1.62e9,
        tensor_peak: 756.5e12,
        memory_peak: 2.0e12,
        cache: 7.2e12,
        ..H100
    },
    H100,
    Card {
        name: "A100",
        multiprocessors: 108.0,
        clock: 1.41e9,
        tensor_peak: 312e12,
        mma_share: 1.0,
        memory_peak: 2.039e12,
        cache: 4.0e12,
        cache_bytes: 40.0 * 1048576.0,
        shared_bytes: 163.0 * 1024.0,
        ..H100
    },
    ADA,
    Card {
        name: "3090",
        multiprocessors: 82.0,
        clock: 1.695e9,
        tensor_peak: 71e12,
        memory_peak: 0.936e12,
        cache: 2.0e12,
        cache_bytes: 6.0 * 1048576.0,
        ..ADA
    },
    Card {
        name: "L4",
        multiprocessors: 58.0,
        clock: 2.04e9,
        tensor_peak: 121e12,
        memory_peak: 0.3e12,
        cache: 1.9e12,
        cache_bytes: 48.0 * 1048576.0,
        ..ADA
    },
];

impl Card {
    /// The card of a device's name, as the driver gives it.
    #[must_use]
    pub fn of(device: &str) -> Option<&'static Self> {
        // By whole words: an L40 is no L4.
        let words = format!(" {} ", device.replace('-', " "));
        CARDS.iter().find(|card| words.contains(&format!(" {} ", card.name)))
    }

    /// Warp instructions/s of all multiprocessors: four schedulers each.
    #[must_use]
    pub fn issue(&self) -> f64 {
        4.0 * self.multiprocessors * self.clock
    }
}
