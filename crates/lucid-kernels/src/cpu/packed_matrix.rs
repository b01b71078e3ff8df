//! Products with one matrix of weights, packed once for the processor at hand.

use bytemuck::Zeroable;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::InstructionSet;
use super::product::{Matrices, Product, Vectors};
use super::simd::lanes;
use crate::precision::Precision;

/// Bytes of packed rows of x that a thread works on at once: they stay in the second-level cache.
const CHUNK: usize = 768 << 10;

/// A matrix of weights \[rows · d\] laid out for products x · Wᵀ: for AMX tiles in two bf16 parts, for vectors as it is; as many bytes as
/// in f32 either way.
///
/// By tiles the product's relative error is about 4e-6 of |x||w|, by vectors that of f32 sums, 3e-7. A row of it has the same bits whatever
/// stands beside it and however many threads there are.
pub struct PackedMatrix(Form);

enum Form {
    Tiles(Packed<Matrices>),
    Vectors(Packed<Vectors<12>>),
}

impl PackedMatrix {
    /// Packs `weights` \[rows · d\], row-major; `None` where [`InstructionSet::best`] is less than AVX-512: nothing is gained there.
    #[must_use]
    pub fn new(weights: &[f32], rows: usize, d: usize) -> Option<Self> {
        let set = InstructionSet::best().ok()?;
        Self::of_set(set, weights, rows, d)
    }

    fn of_set(set: InstructionSet, weights: &[f32], rows: usize, d: usize) -> Option<Self> {
        assert_eq!(weights.len(), rows * d, "weights of {rows} rows of width {d}");
        if weights.is_empty() {
            return None;
        }
        let arch = set.arch().ok()?;
        match set {
            InstructionSet::Amx => Some(Self(Form::Tiles(Packed::new(arch, weights, rows, d)))),
            InstructionSet::Avx512 => Some(Self(Form::Vectors(Packed::new(arch, weights, rows, d)))),
            _ => None,
        }
    }

    /// Rows of the matrix, columns of a product.
    #[must_use]
    pub const fn rows(&self) -> usize {
        match &self.0 {
            Form::Tiles(packed) => packed.rows,
            Form::Vectors(packed) => packed.rows,
        }
    }

    /// x · Wᵀ for `x` \[n · d\], row-major: \[n · rows\]. Runs on rayon's current threads.
    #[must_use]
    pub fn multiply(&self, x: &[f32]) -> Vec<f32> {
        match &self.0 {
            Form::Tiles(packed) => packed.multiply(x),
            Form::Vectors(packed) => packed.multiply(x),
        }
    }
}

struct Packed<P: Product> {
    arch: Arch,
    strips: Vec<P::Operand>,
    rows: usize,
    d: usize,
    /// Rows of a strip.
    width: usize,
}

impl<P: Product> Packed<P> {
    fn new(arch: Arch, weights: &[f32], rows: usize, d: usize) -> Self {
        let width = 2 * lanes(arch);
        let strip = P::strip(d, width);
        let mut strips = vec![P::Operand::zeroed(); rows.div_ceil(width) * strip];
        strips.par_chunks_exact_mut(strip).zip(weights.par_chunks(width * d)).for_each(|(strip, weights)| {
            let rows: Vec<&[f32]> = weights.chunks_exact(d).collect();
            P::pack_strip((arch, Precision::F32), &rows, d, width, strip);
        });
        Self { arch, strips, rows, d, width }
    }

    fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let (d, rows) = (self.d, self.rows);
        assert!(x.len().is_multiple_of(d), "{} numbers are no rows of width {d}", x.len());
        let n = x.len() / d;
        let mut out = vec![0.0; n * rows];
        // As many chunks for every thread as for any other; a row's bits do not depend on its chunk.
        let most = P::ROWS * (CHUNK / (P::panel(d) * size_of::<P::Operand>())).max(1);
        let chunks = n.div_ceil(most).next_multiple_of(rayon::current_num_threads());
        let share = n.div_ceil(chunks.max(1)).next_multiple_of(P::ROWS).max(P::ROWS);
        out.par_chunks_mut(share * rows)
            .zip(x.par_chunks(share * d))
            .for_each_init(Room::default, |room, (out, x)| self.arch.dispatch(Chunk { packed: self, x, room, out }));
        out
    }
}

/// What a thread keeps from chunk to chunk.
struct Room<P: Product> {
    panels: Vec<P::Operand>,
    products: Vec<f32>,
}

impl<P: Product> Default for Room<P> {
    fn default() -> Self {
        Self { panels: Vec::new(), products: Vec::new() }
    }
}

/// The product for some rows of x.
struct Chunk<'a, P: Product> {
    packed: &'a Packed<P>,
    x: &'a [f32],
    room: &'a mut Room<P>,
    out: &'a mut [f32],
}

impl<P: Product> WithSimd for Chunk<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { packed, x, room, out } = self;
        let Packed { d, rows, width, .. } = *packed;
        let count = (x.len() / d).div_ceil(P::ROWS);
        room.panels.resize(count * P::panel(d), P::Operand::zeroed());
        room.products.resize(count * P::ROWS * width, 0.0);
        P::pack_tokens((packed.arch, Precision::F32), x, &[], d, &mut room.panels);
        let (hold, bias) = (P::hold(), [0.0; MOST]);
        for (strip, weights) in packed.strips.chunks_exact(P::strip(d, width)).enumerate() {
            P::multiply(&hold, simd, Precision::F32, &room.panels, weights, &bias[..width], d, &mut room.products);
            let columns = strip * width..((strip + 1) * width).min(rows);
            for (out, product) in out.chunks_exact_mut(rows).zip(room.products.chunks_exact(width)) {
                out[columns.clone()].copy_from_slice(&product[..columns.len()]);
            }
        }
    }
}

/// Rows of the widest strip: two vectors of 512 bits.
const MOST: usize = 32;

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

    fn products_are_those_of_plain_loops(set: InstructionSet, tolerance: f64) {
        if !set.available() {
            println!("SKIPPED products_are_those_of_plain_loops: this processor does not have {}", set.name());
            return;
        }
        for (n, rows, d) in [(1, 1, 1), (3, 40, 33), (70, 64, 96), (600, 100, 768)] {
            let (x, w) = (numbers(n * d, 1), numbers(rows * d, 2));
            let matrix = PackedMatrix::of_set(set, &w, rows, d).expect("a set that packs");
            assert_eq!(matrix.rows(), rows);
            let found = matrix.multiply(&x);
            let (mut error, mut size) = (0.0, 0.0);
            for (i, x) in x.chunks_exact(d).enumerate() {
                for (j, w) in w.chunks_exact(d).enumerate() {
                    let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    error += (f64::from(found[i * rows + j]) - exact).powi(2);
                    size += exact.powi(2);
                }
            }
            assert!((error / size).sqrt() < tolerance, "{n} {rows} {d}: {:e}", (error / size).sqrt());
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| matrix.multiply(&x)), found, "{threads} threads");
            }
            // A row alone has the bits it has among others.
            assert_eq!(matrix.multiply(&x[(n - 1) * d..]), found[(n - 1) * rows..]);
        }
    }

    #[test]
    fn products_by_vectors_are_those_of_plain_loops_whatever_the_threads() {
        products_are_those_of_plain_loops(InstructionSet::Avx512, 6e-7);
    }

    #[test]
    fn products_by_tiles_are_those_of_plain_loops_whatever_the_threads() {
        products_are_those_of_plain_loops(InstructionSet::Amx, 8e-6);
    }

    #[test]
    fn lesser_sets_do_not_pack() {
        assert!(PackedMatrix::of_set(InstructionSet::Portable, &[1.0], 1, 1).is_none());
        assert!(PackedMatrix::of_set(InstructionSet::Avx2, &[1.0], 1, 1).is_none());
    }
}
