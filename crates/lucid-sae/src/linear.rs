//! The little dense linear algebra that initialisation needs, in f64.

use rayon::prelude::*;

/// ⟨a, b⟩ in sixteen partial sums, which the compiler turns into vectors; their order is fixed.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Row-major Gram products over pooled pairs: `XᵀX` \[dₓ × dₓ\] and `XᵀY` \[dₓ × d_y\].
#[derive(Clone, Debug)]
pub struct Products {
    /// XᵀX.
    pub xx: Vec<f64>,
    /// XᵀY.
    pub xy: Vec<f64>,
    dx: usize,
    dy: usize,
}

impl Products {
    /// All zero.
    #[must_use]
    pub fn new(dx: usize, dy: usize) -> Self {
        Self { xx: vec![0.0; dx * dx], xy: vec![0.0; dx * dy], dx, dy }
    }

    /// Adds the rows of `x` \[n · dₓ\] and `y` \[n · d_y\]. Each output row is summed by one thread in the order of the
    /// rows, so the result does not depend on the number of threads.
    pub fn add(&mut self, x: &[f64], y: &[f64]) {
        let (dx, dy) = (self.dx, self.dy);
        let accumulate = |out: &mut [f64], column: usize, other: &[f64], d: usize| {
            for (x, row) in x.chunks_exact(dx).zip(other.chunks_exact(d)) {
                let factor = x[column];
                for (sum, value) in out.iter_mut().zip(row) {
                    *sum += factor * value;
                }
            }
        };
        self.xx.par_chunks_mut(dx).enumerate().for_each(|(column, out)| accumulate(out, column, x, dx));
        self.xy.par_chunks_mut(dy).enumerate().for_each(|(column, out)| accumulate(out, column, y, dy));
    }

    /// Adds the rows of `x` \[n · dₓ\] to XᵀX alone.
    pub fn add_square(&mut self, x: &[f64]) {
        let dx = self.dx;
        self.xx.par_chunks_mut(dx).enumerate().for_each(|(column, out)| {
            for row in x.chunks_exact(dx) {
                let factor = row[column];
                out.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
            }
        });
    }

    /// The ridge map `B = (XᵀX + λI)⁻¹ XᵀY` \[dₓ × d_y\] with `λ = ridge · tr(XᵀX) / dₓ`; `None` where X has no
    /// variance at all or the matrix is not positive definite to working precision.
    #[must_use]
    pub fn ridge(mut self, ridge: f64) -> Option<Vec<f64>> {
        let dx = self.dx;
        let trace: f64 = (0..dx).map(|i| self.xx[i * dx + i]).sum();
        let lambda = ridge * trace / dx as f64;
        if !(lambda.is_finite() && lambda > 0.0) {
            return None;
        }
        for i in 0..dx {
            self.xx[i * dx + i] += lambda;
        }
        cholesky(&mut self.xx, dx)?;
        solve(&self.xx, dx, &mut self.xy, self.dy);
        Some(self.xy)
    }
}

/// Replaces the lower triangle of a symmetric positive definite matrix by its Cholesky factor L.
fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    for column in 0..n {
        let (done, rest) = a.split_at_mut((column + 1) * n);
        let pivot_row = &mut done[column * n..];
        let pivot = pivot_row[column] - pivot_row[..column].iter().map(|x| x * x).sum::<f64>();
        if !(pivot.is_finite() && pivot > 0.0) {
            return None;
        }
        pivot_row[column] = pivot.sqrt();
        let pivot_row = &*pivot_row;
        rest.par_chunks_mut(n).for_each(|row| {
            let dot: f64 = row[..column].iter().zip(pivot_row).map(|(a, b)| a * b).sum();
            row[column] = (row[column] - dot) / pivot_row[column];
        });
    }
    Some(())
}

/// Solves L Lᵀ X = B in place for the rows of B \[n × m\].
fn solve(l: &[f64], n: usize, b: &mut [f64], m: usize) {
    let subtract = |target: &mut [f64], factor: f64, row: &[f64]| {
        for (t, r) in target.iter_mut().zip(row) {
            *t -= factor * r;
        }
    };
    for i in 0..n {
        let (before, rest) = b.split_at_mut(i * m);
        let row = &mut rest[..m];
        for (j, other) in before.chunks_exact(m).enumerate() {
            subtract(row, l[i * n + j], other);
        }
        row.iter_mut().for_each(|x| *x /= l[i * n + i]);
    }
    for i in (0..n).rev() {
        let (before, after) = b.split_at_mut((i + 1) * m);
        let row = &mut before[i * m..];
        for (offset, other) in after.chunks_exact(m).enumerate() {
            subtract(row, l[(i + 1 + offset) * n + i], other);
        }
        row.iter_mut().for_each(|x| *x /= l[i * n + i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ridge_solves_its_normal_equations(seed: u64, n in 1_usize..30, dx in 1_usize..9, dy in 1_usize..7) {
            let stream = Stream::new(seed, Purpose::Decoder);
            let x: Vec<f64> = (0..n * dx).map(|i| stream.normal(i as u64)).collect();
            let y: Vec<f64> = (0..n * dy).map(|i| stream.child(1).normal(i as u64)).collect();
            let mut products = Products::new(dx, dy);
            products.add(&x, &y);
            let b = products.clone().ridge(0.02).unwrap();
            let trace: f64 = (0..dx).map(|i| products.xx[i * dx + i]).sum();
            let lambda = 0.02 * trace / dx as f64;
            for i in 0..dx {
                for j in 0..dy {
                    let left: f64 = (0..dx).map(|k| products.xx[i * dx + k] * b[k * dy + j]).sum::<f64>()
                        + lambda * b[i * dy + j];
                    let right = products.xy[i * dy + j];
                    // The condition number is at most 1 + dx / 0.02, so 1e-9 leaves five digits to rounding.
                    prop_assert!((left - right).abs() <= 1e-9 * (1.0 + trace), "{left} {right}");
                }
            }
        }
    }

    #[test]
    fn dot_counts_every_element_once() {
        for n in 0..40 {
            let ones = vec![1.0; n];
            let numbers: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            // Sums of small integers are exact.
            assert_eq!(dot(&ones, &numbers), (n * (n + 1) / 2) as f32);
        }
    }

    #[test]
    fn a_map_is_recovered_where_the_ridge_is_small() {
        let stream = Stream::new(5, Purpose::Encoder);
        let (n, d) = (200, 4);
        let x: Vec<f64> = (0..n * d).map(|i| stream.normal(i as u64)).collect();
        let map = [[2.0, 0.0], [0.0, -1.0], [1.0, 1.0], [0.5, 0.0]];
        let y: Vec<f64> = x
            .chunks_exact(d)
            .flat_map(|row| (0..2).map(|j| (0..d).map(|i| row[i] * map[i][j]).sum::<f64>()).collect::<Vec<_>>())
            .collect();
        let mut products = Products::new(d, 2);
        products.add(&x, &y);
        let b = products.ridge(1e-9).unwrap();
        for i in 0..d {
            for j in 0..2 {
                assert!((b[i * 2 + j] - map[i][j]).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn without_variance_there_is_no_map() {
        let mut products = Products::new(3, 2);
        products.add(&[0.0; 6], &[1.0; 4]);
        assert!(products.ridge(0.02).is_none());
    }
}
