//! Vector loops over slices, compiled for each instruction set and chosen at run time (`pulp`).
//!
//! Sums are taken in one fixed order per instruction set: it depends on the lengths only.

use pulp::Simd;

/// Declares a function whose body is compiled once per instruction set; the first argument of the result is the
/// [`pulp::Arch`] found at run time. References in the arguments carry the lifetime `'a`.
macro_rules! dispatched {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$simd_type:ident>($simd:ident $(, $arg:ident: $ty:ty)* $(,)?) $body:block) => {
        dispatched! { $(#[$meta])* $vis fn $name<$simd_type>($simd $(, $arg: $ty)*) -> () $body }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$simd_type:ident>($simd:ident $(, $arg:ident: $ty:ty)* $(,)?) -> $ret:ty $body:block) => {
        $(#[$meta])*
        $vis fn $name<'a>(arch: pulp::Arch $(, $arg: $ty)*) -> $ret {
            struct Operation<'a> {
                $($arg: $ty,)*
                lifetime: std::marker::PhantomData<&'a ()>,
            }
            impl pulp::WithSimd for Operation<'_> {
                type Output = $ret;
                #[inline(always)]
                #[allow(clippy::unused_unit)]
                fn with_simd<$simd_type: pulp::Simd>(self, $simd: $simd_type) -> $ret {
                    let Self { $($arg,)* lifetime: _ } = self;
                    $body
                }
            }
            arch.dispatch(Operation::<'a> { $($arg,)* lifetime: std::marker::PhantomData })
        }
    };
}
pub(super) use dispatched;

dispatched! {
    /// Lanes of an f32 vector.
    pub(super) fn lanes<S>(_simd) -> usize {
        S::F32_LANES
    }
}

/// `y += a · x`.
#[inline(always)]
pub(super) fn axpy<S: Simd>(simd: S, a: f32, x: &[f32], y: &mut [f32]) {
    let ((x, x_tail), (y, y_tail)) = (S::as_simd_f32s(x), S::as_mut_simd_f32s(y));
    let factor = simd.splat_f32s(a);
    for (x, y) in x.iter().zip(y) {
        *y = simd.mul_add_e_f32s(factor, *x, *y);
    }
    if !x_tail.is_empty() {
        let sum = simd.mul_add_e_f32s(factor, simd.partial_load_f32s(x_tail), simd.partial_load_f32s(y_tail));
        simd.partial_store_f32s(y_tail, sum);
    }
}

/// `⟨x, y⟩`.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    dots::<S, 1>(simd, x, [y])[0]
}

/// `⟨x, rows[r]⟩` for `R` rows at once: one load of x serves them all. Each dot is summed in the same order for any R.
#[inline(always)]
pub(super) fn dots<S: Simd, const R: usize>(simd: S, x: &[f32], rows: [&[f32]; R]) -> [f32; R] {
    let zero = simd.splat_f32s(0.0);
    let (x, x_tail) = S::as_simd_f32s(x);
    let (pairs, odd) = x.as_chunks::<2>();
    let mut even = [zero; R];
    let mut uneven = [zero; R];
    let rows_simd = rows.map(|row| S::as_simd_f32s(row).0);
    let rows_simd = rows_simd.map(|row| &row[..x.len()]);
    for (i, [x0, x1]) in pairs.iter().enumerate() {
        for r in 0..R {
            even[r] = simd.mul_add_e_f32s(*x0, rows_simd[r][2 * i], even[r]);
            uneven[r] = simd.mul_add_e_f32s(*x1, rows_simd[r][2 * i + 1], uneven[r]);
        }
    }
    if let [x0] = odd {
        for r in 0..R {
            even[r] = simd.mul_add_e_f32s(*x0, rows_simd[r][x.len() - 1], even[r]);
        }
    }
    if !x_tail.is_empty() {
        let x0 = simd.partial_load_f32s(x_tail);
        for r in 0..R {
            let row = simd.partial_load_f32s(S::as_simd_f32s(rows[r]).1);
            uneven[r] = simd.mul_add_e_f32s(x0, row, uneven[r]);
        }
    }
    let mut out = [0.0; R];
    for r in 0..R {
        out[r] = simd.reduce_sum_f32s(simd.add_f32s(even[r], uneven[r]));
    }
    out
}

/// `out[c] += Σ_e coefficients[e] · matrix[rows[e]][column + c]` for a part of the columns of a row-major matrix of
/// width `d`. Even and odd terms are summed apart, to hide the latency of a sum, each in the order of `e`.
#[inline(always)]
pub(super) fn weighted_rows<S: Simd>(
    simd: S,
    matrix: &[f32],
    d: usize,
    column: usize,
    rows: &[u32],
    coefficients: &[f32],
    out: &mut [f32],
) {
    let width = out.len();
    let (vectors, _) = S::as_mut_simd_f32s(out);
    let (quads, singles) = vectors.as_chunks_mut::<4>();
    let mut at = column;
    for quad in quads {
        *quad = block::<S, 4>(simd, matrix, d, at, rows, coefficients, *quad);
        at += 4 * S::F32_LANES;
    }
    let (doubles, singles) = singles.as_chunks_mut::<2>();
    for double in doubles {
        *double = block::<S, 2>(simd, matrix, d, at, rows, coefficients, *double);
        at += 2 * S::F32_LANES;
    }
    for single in singles {
        [*single] = block::<S, 1>(simd, matrix, d, at, rows, coefficients, [*single]);
        at += S::F32_LANES;
    }
    let rest = column + width - at;
    if rest > 0 {
        let (_, tail) = S::as_mut_simd_f32s(out);
        let mut sum = simd.partial_load_f32s(tail);
        for (&row, &coefficient) in rows.iter().zip(coefficients) {
            let start = row as usize * d + at;
            let part = simd.partial_load_f32s(&matrix[start..start + rest]);
            sum = simd.mul_add_e_f32s(simd.splat_f32s(coefficient), part, sum);
        }
        simd.partial_store_f32s(tail, sum);
    }
}

/// `V` vectors of [`weighted_rows`], kept in registers over all terms.
#[inline(always)]
fn block<S: Simd, const V: usize>(
    simd: S,
    matrix: &[f32],
    d: usize,
    column: usize,
    rows: &[u32],
    coefficients: &[f32],
    start: [S::f32s; V],
) -> [S::f32s; V] {
    let (even_rows, odd_row) = rows.as_chunks::<2>();
    let (even_factors, _) = coefficients.as_chunks::<2>();
    let part = |row: u32| {
        let start = row as usize * d + column;
        S::as_simd_f32s(&matrix[start..start + V * S::F32_LANES]).0
    };
    let mut even = start;
    let mut odd = [simd.splat_f32s(0.0); V];
    for (rows, factors) in even_rows.iter().zip(even_factors) {
        let (x, y) = (part(rows[0]), part(rows[1]));
        let factors = factors.map(|factor| simd.splat_f32s(factor));
        for v in 0..V {
            even[v] = simd.mul_add_e_f32s(factors[0], x[v], even[v]);
            odd[v] = simd.mul_add_e_f32s(factors[1], y[v], odd[v]);
        }
    }
    if let ([row], [.., factor]) = (odd_row, coefficients) {
        let (x, factor) = (part(*row), simd.splat_f32s(*factor));
        for v in 0..V {
            even[v] = simd.mul_add_e_f32s(factor, x[v], even[v]);
        }
    }
    for v in 0..V {
        even[v] = simd.add_f32s(even[v], odd[v]);
    }
    even
}

/// `exp(x)` for x ≤ 88, within 2 ulp; exactly 0 below −87.3 (and for −∞). Branch-free, so loops over it vectorise.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer kept in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x < -87.3 { -87.3 } else { x };
    let shifted = bounded * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (bounded - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let scaled = value * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < -87.3 { 0.0 } else { scaled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0.0f64;
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            let ulp = exact * 2.0f64.powi(-23);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / ulp);
        }
        assert!(worst <= 2.0, "{worst} ulp");
        assert_eq!(exp(0.0).to_bits(), 1.0f32.to_bits());
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
        assert!(exp(f32::NAN).is_nan());
    }

    dispatched! {
        fn run_dots<S>(simd, x: &'a [f32], rows: &'a [Vec<f32>]) -> [f32; 3] {
            dots::<S, 3>(simd, x, [&rows[0], &rows[1], &rows[2]])
        }
    }
    dispatched! {
        fn run_dot<S>(simd, x: &'a [f32], y: &'a [f32]) -> f32 {
            dot(simd, x, y)
        }
    }
    dispatched! {
        fn run_rows<S>(simd, matrix: &'a [f32], d: usize, column: usize, rows: &'a [u32], z: &'a [f32], out: &'a mut [f32]) {
            weighted_rows(simd, matrix, d, column, rows, z, out);
        }
    }

    fn numbers(n: usize, salt: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 16) as f32) / 65536.0 - 0.5)
            .collect()
    }

    #[test]
    fn ragged_widths_agree_with_plain_loops() {
        let arch = pulp::Arch::new();
        for d in [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 47, 65, 100] {
            let x = numbers(d, 1);
            let rows: Vec<Vec<f32>> = (0..3).map(|r| numbers(d, 77 + r)).collect();
            let together = run_dots(arch, &x, &rows);
            for r in 0..3 {
                let exact: f64 = x.iter().zip(&rows[r]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(together[r]) - exact).abs() < 1e-5);
                assert_eq!(together[r].to_bits(), run_dot(arch, &x, &rows[r]).to_bits());
            }
            let matrix = numbers(d * 5, 9);
            for column in [0, d / 2] {
                let start = numbers(d - column, 5);
                let mut out = start.clone();
                run_rows(arch, &matrix, d, column, &[4, 0, 2], &[0.5, -2.0, 3.0], &mut out);
                for c in 0..d - column {
                    let at = |row: usize| matrix[row * d + column + c];
                    let expected = start[c] + 0.5 * at(4) - 2.0 * at(0) + 3.0 * at(2);
                    assert!((out[c] - expected).abs() < 1e-5);
                }
            }
        }
    }
}
