//! Sinkhorn's iteration, one pair a task: both scalings of a round in one sweep over K.

use rayon::prelude::*;

use super::Cpu;
use super::parallel::Disjoint;
use super::simd::{axpy, dispatched, dot, dots, exp};
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::transport::{Plan, SinkhornOptions};

/// K = exp(−C/ε) of one pair with rows padded by zeros to whole vectors.
#[derive(Default)]
struct Kernel {
    rows: usize,
    columns: usize,
    stride: usize,
    values: Vec<f32>,
}

/// Columns are padded to a multiple of this, so that no row has a ragged end.
const PAD: usize = 16;

dispatched! {
    fn fill_kernel<S>(_simd, cost: &'a [f32], rows: usize, columns: usize, epsilon: f32, kernel: &'a mut Kernel) {
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
    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.stride..(i + 1) * self.stride]
    }

    /// The first row or column without a positive entry.
    fn emptied(&self) -> Option<(&'static str, usize)> {
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
struct Sink {
    mass: f32,
    s: f32,
}

impl Sink {
    #[allow(clippy::cast_possible_truncation)]
    fn start(options: SinkhornOptions) -> Self {
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
    fn round<S>(
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
    fn row_error<S>(simd, kernel: &'a Kernel, row: &'a [f32], sink: f32, u: &'a [f32], v: &'a [f32]) -> f64 {
        let mut error = 0.0;
        for i in 0..kernel.rows {
            error += f64::from((u[i] * (dot(simd, kernel.row(i), v) + sink) - row[i]).abs());
        }
        error
    }
}

/// The outputs of one pair.
struct Outputs<'a> {
    plan: &'a mut [f32],
    row_sums: &'a mut [f32],
    column_sums: &'a mut [f32],
}

dispatched! {
    /// Π = diag(u) K diag(v) and its sums.
    fn write_plan<S>(_simd, kernel: &'a Kernel, u: &'a [f32], v: &'a [f32], outputs: Outputs<'a>) {
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

/// ⟨cost, Π⟩ in f64; an excluded entry (infinite cost, no mass) counts 0.
pub(super) fn inner_product(cost: &[f32], plan: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    for (cost, plan) in cost.chunks(8).zip(plan.chunks(8)) {
        for (lane, (&cost, &mass)) in lanes.iter_mut().zip(cost.iter().zip(plan)) {
            *lane += if cost.is_finite() { f64::from(cost) * f64::from(mass) } else { 0.0 };
        }
    }
    lanes.iter().sum()
}

/// −Σ Π ln Π = ⟨C, Π⟩/ε − Σ_i row_i ln u_i − Σ_j column_j ln v_j, since ln Π_ij = ln u_i + ln v_j − C_ij/ε.
fn entropy(transport_cost: f64, epsilon: f64, sums: [&[f32]; 2], scalings: [&[f32]; 2]) -> f64 {
    let mut total = transport_cost / epsilon;
    for (sums, scaling) in sums.into_iter().zip(scalings) {
        for (&sum, &scale) in sums.iter().zip(scaling) {
            if sum > 0.0 {
                total -= f64::from(sum) * f64::from(scale).ln();
            }
        }
    }
    total
}

#[derive(Default)]
struct Workspace {
    kernel: Kernel,
    v: Vec<f32>,
    sums: Vec<f32>,
}

/// `Backend::sinkhorn`.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn forward(
    cpu: &Cpu,
    cost: &[f32],
    pairs: &Pairs,
    row: &[f32],
    column: &[f32],
    options: SinkhornOptions,
    plan: &mut Plan<Cpu>,
) -> Result<(), KernelError> {
    let (count, first_pair) = (pairs.len(), plan.first_pair);
    let (plan_out, u_out, v_out) =
        (Disjoint::new(&mut plan.plan), Disjoint::new(&mut plan.u), Disjoint::new(&mut plan.v));
    let (row_sums, column_sums) = (Disjoint::new(&mut plan.row_sums), Disjoint::new(&mut plan.column_sums));
    let diagnostics = plan.marginal_error[..count]
        .par_iter_mut()
        .zip(&mut plan.entropy[..count])
        .zip(plan.transport_cost[..count].par_iter_mut().zip(&mut plan.iterations[..count]))
        .enumerate();
    let results: Vec<Result<(), KernelError>> = cpu.run(|| {
        diagnostics
            .map_init(Workspace::default, |workspace, (pair, ((error, entropy_out), (cost_out, iterations)))| {
                let (rows, columns, cells) =
                    (pairs.vision.range(pair), pairs.text.range(pair), pairs.cells.range(pair));
                let (r, c, cost) = (&row[rows.clone()], &column[columns.clone()], &cost[cells.clone()]);
                let Workspace { kernel, v, sums } = workspace;
                fill_kernel(cpu.arch, cost, r.len(), c.len(), options.epsilon as f32, kernel);
                if let Some((axis, index)) = kernel.emptied() {
                    return Err(KernelError::EmptyMask { pair: first_pair + pair, axis, index });
                }
                // SAFETY: pairs do not overlap, in every one of these arrays.
                let (plan, u, v_out, row_sums, column_sums) = unsafe {
                    (
                        plan_out.part(cells),
                        u_out.part(rows.clone()),
                        v_out.part(columns.clone()),
                        row_sums.part(rows),
                        column_sums.part(columns),
                    )
                };
                v.clear();
                v.resize(kernel.stride, 1.0);
                sums.resize(kernel.stride, 0.0);
                let mut sink = Sink::start(options);
                let mut made = 0;
                while made < options.iterations {
                    round(cpu.arch, kernel, r, c, &mut sink, u, v, &mut sums[..kernel.stride]);
                    made += 1;
                    if options.tolerance > 0.0 && row_error(cpu.arch, kernel, r, sink.s, u, v) < options.tolerance {
                        break;
                    }
                }
                *iterations = u32::try_from(made).unwrap_or(u32::MAX);
                *error = row_error(cpu.arch, kernel, r, sink.s, u, v);
                let outputs = Outputs { plan: &mut *plan, row_sums: &mut *row_sums, column_sums: &mut *column_sums };
                write_plan(cpu.arch, kernel, u, v, outputs);
                v_out.copy_from_slice(&v[..c.len()]);
                *cost_out = inner_product(cost, plan);
                *entropy_out = entropy(*cost_out, options.epsilon, [row_sums, column_sums], [u, v_out]);
                Ok(())
            })
            .collect()
    });
    // The first pair's error, whichever task found its own first.
    results.into_iter().collect()
}

/// `Backend::sinkhorn_backward`: the rounds are made again and kept, then taken back one by one. With t = Kᵀu and
/// q = K v' + s', v = c(1 − m) ⊘ t gives dt = −dv·v/t, s = m/Σu gives dΣ = −ds·s/Σu, and u = r ⊘ q gives dq = −du·u/q;
/// one sweep over K does all.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn backward(
    cpu: &Cpu,
    cost: &[f32],
    pairs: &Pairs,
    row: &[f32],
    column: &[f32],
    options: SinkhornOptions,
    plan: &Plan<Cpu>,
    d_plan: &[f32],
    d_cost: &mut [f32],
    d_column: &mut [f32],
) {
    let (d_cost, d_column) = (Disjoint::new(d_cost), Disjoint::new(d_column));
    cpu.run(|| {
        (0..pairs.len()).into_par_iter().for_each_init(Workspace::default, |workspace, pair| {
            let (columns, cells) = (pairs.text.range(pair), pairs.cells.range(pair));
            let (r, c) = (&row[pairs.vision.range(pair)], &column[columns.clone()]);
            // SAFETY: pairs do not overlap.
            let (d_cost, d_column) = unsafe { (d_cost.part(cells.clone()), d_column.part(columns)) };
            let Workspace { kernel, sums, .. } = workspace;
            fill_kernel(cpu.arch, &cost[cells.clone()], r.len(), c.len(), options.epsilon as f32, kernel);
            sums.resize(kernel.stride, 0.0);
            let mut sink = Sink::start(options);
            let mut history = vec![(Vec::new(), vec![1.0; kernel.stride])];
            for made in 0..plan.iterations[pair] as usize {
                let (mut u, mut v) = (vec![0.0; r.len()], history[made].1.clone());
                round(cpu.arch, kernel, r, c, &mut sink, &mut u, &mut v, &mut sums[..kernel.stride]);
                history.push((u, v));
            }
            let mut d_kernel = vec![0.0; kernel.values.len()];
            rounds_backward(cpu.arch, kernel, r, c, sink.mass, &history, &d_plan[cells], &mut d_kernel, d_column);
            // K = exp(−C/ε).
            let epsilon = options.epsilon as f32;
            for (i, d_cost) in d_cost.chunks_exact_mut(c.len()).enumerate() {
                let d_kernel = &d_kernel[i * kernel.stride..];
                for (d_cost, (d_k, k)) in d_cost.iter_mut().zip(d_kernel.iter().zip(kernel.row(i))) {
                    *d_cost -= d_k * k / epsilon;
                }
            }
        });
    });
}

dispatched! {
    fn rounds_backward<S>(
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

/// `Backend::transport_cost`.
pub(super) fn transport_cost(cpu: &Cpu, cost: &[f32], plan: &[f32], pairs: &Pairs) -> f64 {
    let parts: Vec<f64> = cpu.run(|| {
        let pair = |pair| inner_product(&cost[pairs.cells.range(pair)], &plan[pairs.cells.range(pair)]);
        (0..pairs.len()).into_par_iter().map(pair).collect()
    });
    parts.iter().sum()
}

/// `Backend::transport_cost_backward`.
pub(super) fn transport_cost_backward(
    cost: &[f32],
    plan: &[f32],
    scale: f32,
    d_cost: &mut [f32],
    d_plan: Option<&mut [f32]>,
) {
    for (d_cost, mass) in d_cost.iter_mut().zip(plan) {
        *d_cost += scale * mass;
    }
    if let Some(d_plan) = d_plan {
        for (d_plan, &cost) in d_plan.iter_mut().zip(cost) {
            if cost.is_finite() {
                *d_plan += scale * cost;
            }
        }
    }
}
