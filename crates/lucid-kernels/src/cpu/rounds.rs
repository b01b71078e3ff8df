//! Rounds of Sinkhorn's iteration over one pair: both scalings in one sweep over K.

use super::simd::{axpy, dispatched, dot, dots, exp};
use crate::transport::SinkhornOptions;

/// K = exp(−C/ε) of one pair with rows padded by zeros to whole vectors.
#[derive(Default)]
pub(super) struct Kernel {
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
    pub values: Vec<f32>,
}

/// Columns are padded to a multiple of this, so that no row has a ragged end.
const PAD: usize = 16;

dispatched! {
    pub fn fill_kernel<S>(_simd, cost: &'a [f32], rows: usize, columns: usize, epsilon: f32, kernel: &'a mut Kernel) {
        let stride = columns.next_multiple_of(PAD);
        (kernel.rows, kernel.columns, kernel.stride) = (rows, columns, stride);
        kernel.values.clear();
        kernel.values.resize(rows * stride, 0.0);
        for (out, cost) in kernel.values.chunks_exact_mut(stride).zip(cost.chunks_exact(columns)) {
            for (out, cost) in out.iter_mut().zip(cost) {
                *out = exp(-cost / epsilon);
            }
        }
    }
}

impl Kernel {
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.stride..(i + 1) * self.stride]
    }

    /// The first row or column without a positive entry.
    pub fn emptied(&self) -> Option<(&'static str, usize)> {
        let mut seen = vec![false; self.columns];
        let mut empty_row = None;
        for i in 0..self.rows {
            let mut any = false;
            for (seen, &value) in seen.iter_mut().zip(self.row(i)) {
                // A NaN is not an excluded entry.
                let present = value != 0.0;
                any |= present;
                *seen |= present;
            }
            if !any && empty_row.is_none() {
                empty_row = Some(("row", i));
            }
        }
        empty_row.or_else(|| seen.iter().position(|&seen| !seen).map(|j| ("column", j)))
    }
}

/// The sink, a column of equal entries κ, as s = κ v₀ (see the scalar version).
#[derive(Clone, Copy)]
pub(super) struct Sink {
    pub mass: f32,
    pub s: f32,
}

impl Sink {
    #[allow(clippy::cast_possible_truncation)]
    pub fn start(options: SinkhornOptions) -> Self {
        let s = if options.sink_mass > 0.0 { (-1.0 / options.epsilon).exp() } else { 0.0 };
        Self { mass: options.sink_mass as f32, s: s as f32 }
    }

    fn after(&mut self, u: &[f32]) {
        if self.mass > 0.0 {
            self.s = self.mass / u.iter().sum::<f32>();
        }
    }
}

dispatched! {
    /// One round: u = r ⊘ (K v + s), v = c (1 − m) ⊘ Kᵀu, s = m / Σu. `sums` is room for Kᵀu.
    pub fn round<S>(
        simd,
        kernel: &'a Kernel,
        row: &'a [f32],
        column: &'a [f32],
        sink: &'a mut Sink,
        u: &'a mut [f32],
        v: &'a mut [f32],
        sums: &'a mut [f32],
    ) {
        sums.fill(0.0);
        let stride = kernel.stride;
        let (fours, rest) = u.as_chunks_mut::<4>();
        let whole = fours.len() * 4;
        for ((u, r), k) in fours.iter_mut().zip(row.as_chunks::<4>().0).zip(kernel.values.chunks_exact(4 * stride)) {
            let rows = [&k[..stride], &k[stride..2 * stride], &k[2 * stride..3 * stride], &k[3 * stride..]];
            let products = dots::<S, 4>(simd, v, rows);
            for lane in 0..4 {
                u[lane] = r[lane] / (products[lane] + sink.s);
            }
            let factors = u.map(|u| simd.splat_f32s(u));
            let rows = rows.map(|row| S::as_simd_f32s(row).0);
            for (j, sum) in S::as_mut_simd_f32s(sums).0.iter_mut().enumerate() {
                let mut total = *sum;
                for lane in 0..4 {
                    total = simd.mul_add_e_f32s(factors[lane], rows[lane][j], total);
                }
                *sum = total;
            }
        }
        for (i, u) in rest.iter_mut().enumerate() {
            let k = kernel.row(whole + i);
            *u = row[whole + i] / (dot(simd, v, k) + sink.s);
            axpy(simd, *u, k, sums);
        }
        let rest = 1.0 - sink.mass;
        for ((v, c), sum) in v.iter_mut().zip(column).zip(sums) {
            *v = c * rest / *sum;
        }
        sink.after(u);
    }
}

dispatched! {
    /// Σ_i |u_i (K v + s)_i − r_i|.
    pub fn row_error<S>(simd, kernel: &'a Kernel, row: &'a [f32], sink: f32, u: &'a [f32], v: &'a [f32]) -> f64 {
        let mut error = 0.0;
        for i in 0..kernel.rows {
            error += f64::from((u[i] * (dot(simd, kernel.row(i), v) + sink) - row[i]).abs());
        }
        error
    }
}

/// The outputs of one pair.
pub(super) struct Outputs<'a> {
    pub plan: &'a mut [f32],
    pub row_sums: &'a mut [f32],
    pub column_sums: &'a mut [f32],
}

dispatched! {
    /// Π = diag(u) K diag(v) and its sums.
    pub fn write_plan<S>(_simd, kernel: &'a Kernel, u: &'a [f32], v: &'a [f32], outputs: Outputs<'a>) {
        let Outputs { plan, row_sums, column_sums } = outputs;
        let v = &v[..kernel.columns];
        column_sums.fill(0.0);
        for (i, plan) in plan.chunks_exact_mut(kernel.columns).enumerate() {
            let k = &kernel.row(i)[..kernel.columns];
            for j in 0..kernel.columns {
                let mass = u[i] * k[j] * v[j];
                plan[j] = mass;
                column_sums[j] += mass;
            }
            row_sums[i] = plan.iter().sum();
        }
    }
}

dispatched! {
    pub fn rounds_backward<S>(
        simd,
        kernel: &'a Kernel,
        row: &'a [f32],
        column: &'a [f32],
        sink_mass: f32,
        history: &'a [(Vec<f32>, Vec<f32>)],
        d_plan: &'a [f32],
        d_kernel: &'a mut [f32],
        d_column: &'a mut [f32],
    ) {
        let (stride, columns) = (kernel.stride, kernel.columns);
        let [.., (u, v)] = history else { return };
        if u.is_empty() {
            return;
        }
        // Π = u K v.
        let mut d_u = vec![0.0; kernel.rows];
        let mut d_v = vec![0.0; stride];
        for i in 0..kernel.rows {
            let (k, g) = (&kernel.row(i)[..columns], &d_plan[i * columns..(i + 1) * columns]);
            let d_k = &mut d_kernel[i * stride..i * stride + columns];
            for j in 0..columns {
                d_k[j] = g[j] * u[i] * v[j];
                d_v[j] += g[j] * k[j] * u[i];
                d_u[i] += g[j] * k[j] * v[j];
            }
        }
        let (mut d_t, mut d_previous) = (vec![0.0; stride], vec![0.0; stride]);
        // Π holds no entry of the sink.
        let mut d_sink = 0.0;
        for made in (1..history.len()).rev() {
            let ((u, v), previous) = (&history[made], &history[made - 1].1);
            for j in 0..columns {
                // t = c (1 − m) / v
                let through = d_v[j] * v[j] / column[j];
                d_column[j] += through;
                d_t[j] = -through * v[j] / (1.0 - sink_mass);
            }
            let total: f32 = u.iter().sum();
            let through_sink = -d_sink * sink_mass / (total * total);
            d_sink = 0.0;
            d_previous.fill(0.0);
            for i in 0..kernel.rows {
                let k = kernel.row(i);
                // q = r / u
                let d_q = -(d_u[i] + dot(simd, k, &d_t) + through_sink) * u[i] * u[i] / row[i];
                d_sink += d_q;
                let d_k = &mut d_kernel[i * stride..(i + 1) * stride];
                axpy(simd, u[i], &d_t, d_k);
                axpy(simd, d_q, previous, d_k);
                axpy(simd, d_q, k, &mut d_previous);
            }
            std::mem::swap(&mut d_v, &mut d_previous);
            d_u.fill(0.0);
        }
    }
}
