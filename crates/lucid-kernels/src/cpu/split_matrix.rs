//! Products with one matrix of weights, on processors that have tiles for them.

use bytemuck::Zeroable;
use rayon::prelude::*;

use super::InstructionSet;
use super::amx::{SIDE, Tile, Tiles, multiply, pack_panels, pack_strip, tiles};

/// Bytes of packed rows of x that a thread works on at once: they stay in the second-level cache.
const CHUNK: usize = 768 << 10;

/// A matrix of weights \[rows · d\] in two bf16 parts, laid out for AMX tiles: as many bytes as in f32.
///
/// The product's relative error is about 4e-6 of |x||w| (f32 sums: 3e-7), and a row of it has the same bits whatever stands beside it and
/// however many threads there are.
pub struct SplitMatrix {
    arch: pulp::Arch,
    strips: Vec<Tile>,
    rows: usize,
    d: usize,
}

impl SplitMatrix {
    /// Packs `weights` \[rows · d\], row-major; `None` where [`InstructionSet::best`] is less than AMX, and a product in f32 does better.
    #[must_use]
    pub fn new(weights: &[f32], rows: usize, d: usize) -> Option<Self> {
        assert_eq!(weights.len(), rows * d, "weights of {rows} rows of width {d}");
        if InstructionSet::best().ok()? != InstructionSet::Amx || weights.is_empty() {
            return None;
        }
        let arch = InstructionSet::Amx.arch().ok()?;
        let mut strips = vec![Tile::zeroed(); rows.div_ceil(SIDE) * tiles(d)];
        strips
            .par_chunks_exact_mut(tiles(d))
            .zip(weights.par_chunks(SIDE * d))
            .for_each(|(strip, weights)| pack_strip(arch, &weights.chunks_exact(d).collect::<Vec<_>>(), d, strip));
        Some(Self { arch, strips, rows, d })
    }

    /// Rows of the matrix, columns of a product.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// x · Wᵀ for `x` \[n · d\], row-major: \[n · rows\]. Runs on rayon's current threads.
    #[must_use]
    pub fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let (d, width) = (self.d, self.rows);
        assert!(x.len().is_multiple_of(d), "{} numbers are no rows of width {d}", x.len());
        let n = x.len() / d;
        let mut out = vec![0.0; n * width];
        // Of few rows every thread takes a share; a row's bits do not depend on its chunk.
        let panels = n.div_ceil(rayon::current_num_threads()).div_ceil(SIDE);
        let share = SIDE * panels.min(CHUNK / (tiles(d) * size_of::<Tile>())).max(1);
        out.par_chunks_mut(share * width).zip(x.par_chunks(share * d)).for_each_init(
            Default::default,
            |room, (out, x)| {
                self.multiply_chunk(x, room, out);
            },
        );
        out
    }

    fn multiply_chunk(&self, x: &[f32], (panels, products): &mut (Vec<Tile>, Vec<f32>), out: &mut [f32]) {
        let (d, width) = (self.d, self.rows);
        let count = (x.len() / d).div_ceil(SIDE);
        panels.resize(count * tiles(d), Tile::zeroed());
        products.resize(count * SIDE * SIDE, 0.0);
        pack_panels(self.arch, x, &[], d, panels);
        let hold = Tiles::configure();
        for (strip, tiles) in self.strips.chunks_exact(tiles(d)).enumerate() {
            multiply(&hold, panels, tiles, d, true, false, products);
            let columns = strip * SIDE..((strip + 1) * SIDE).min(width);
            for (out, product) in out.chunks_exact_mut(width).zip(products.chunks_exact(SIDE)) {
                out[columns.clone()].copy_from_slice(&product[..columns.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn products_are_those_of_plain_loops_whatever_the_threads() {
        for (n, rows, d) in [(1, 1, 1), (3, 40, 33), (70, 64, 96), (600, 100, 768)] {
            let (x, w) = (numbers(n * d, 1), numbers(rows * d, 2));
            let Some(matrix) = SplitMatrix::new(&w, rows, d) else {
                println!("SKIPPED products_are_those_of_plain_loops: this processor does not have amx");
                return;
            };
            let found = matrix.multiply(&x);
            let (mut error, mut size) = (0.0, 0.0);
            for (i, x) in x.chunks_exact(d).enumerate() {
                for (j, w) in w.chunks_exact(d).enumerate() {
                    let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    error += (f64::from(found[i * rows + j]) - exact).powi(2);
                    size += exact.powi(2);
                }
            }
            assert!((error / size).sqrt() < 8e-6, "{n} {rows} {d}: {:e}", (error / size).sqrt());
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| matrix.multiply(&x)), found, "{threads} threads");
            }
            // A row alone has the bits it has among others.
            assert_eq!(matrix.multiply(&x[(n - 1) * d..]), found[(n - 1) * rows..]);
        }
    }
}
