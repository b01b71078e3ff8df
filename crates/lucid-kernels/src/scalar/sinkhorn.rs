//! Sinkhorn's iteration (spec 3) and its derivative through every round.

use super::Scalar;
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::real::Real;
use crate::transport::{Plan, SinkhornOptions};

/// A row-major matrix of one pair.
struct Matrix<R> {
    rows: usize,
    columns: usize,
    values: Vec<R>,
}

impl<R: Real> Matrix<R> {
    /// K = exp(−C/ε); an infinite cost gives exactly 0.
    fn kernel(cost: &[R], rows: usize, columns: usize, epsilon: f64) -> Self {
        let epsilon = R::from_f64(epsilon);
        Self { rows, columns, values: cost.iter().map(|&cost| (-cost / epsilon).exp()).collect() }
    }

    fn at(&self, i: usize, j: usize) -> R {
        self.values[i * self.columns + j]
    }

    /// K v.
    fn times(&self, v: &[R]) -> Vec<R> {
        (0..self.rows).map(|i| (0..self.columns).map(|j| self.at(i, j) * v[j]).sum()).collect()
    }

    /// Kᵀ u.
    fn transpose_times(&self, u: &[R]) -> Vec<R> {
        let mut out = vec![R::zero(); self.columns];
        for i in 0..self.rows {
            for (j, out) in out.iter_mut().enumerate() {
                *out += self.at(i, j) * u[i];
            }
        }
        out
    }

    /// The first row or column without a positive entry.
    fn emptied(&self) -> Option<(&'static str, usize)> {
        let row = |i: usize| (0..self.columns).all(|j| self.at(i, j) == R::zero());
        let column = |j: usize| (0..self.rows).all(|i| self.at(i, j) == R::zero());
        let rows = (0..self.rows).find(|&i| row(i)).map(|i| ("row", i));
        rows.or_else(|| (0..self.columns).find(|&j| column(j)).map(|j| ("column", j)))
    }
}

fn divide<R: Real>(a: &[R], b: &[R]) -> Vec<R> {
    a.iter().zip(b).map(|(&a, &b)| a / b).collect()
}

/// Σ_i |u_i (K v)_i − r_i|.
fn row_error<R: Real>(u: &[R], kv: &[R], row: &[R]) -> f64 {
    u.iter().zip(kv).zip(row).map(|((&u, &kv), &r)| (u * kv - r).abs().widen()).sum()
}

/// u = r ⊘ K v, v = c ⊘ Kᵀ u, from v = 1; Π = diag(u) K diag(v).
pub(super) fn forward<R: Real>(
    cost: &[R],
    pairs: &Pairs,
    row: &[R],
    column: &[R],
    options: SinkhornOptions,
    plan: &mut Plan<Scalar<R>>,
) -> Result<(), KernelError> {
    for pair in 0..pairs.len() {
        let (rows, columns, cells) = (pairs.vision.range(pair), pairs.text.range(pair), pairs.cells.range(pair));
        let (r, c, cost) = (&row[rows.clone()], &column[columns.clone()], &cost[cells.clone()]);
        let k = Matrix::kernel(cost, r.len(), c.len(), options.epsilon);
        if let Some((axis, index)) = k.emptied() {
            return Err(KernelError::EmptyMask { pair, axis, index });
        }
        let mut v = vec![R::one(); c.len()];
        let mut kv = k.times(&v);
        let mut u = Vec::new();
        let mut made = 0;
        while made < options.iterations {
            u = divide(r, &kv);
            v = divide(c, &k.transpose_times(&u));
            kv = k.times(&v);
            made += 1;
            if options.tolerance > 0.0 && row_error(&u, &kv, r) < options.tolerance {
                break;
            }
        }
        plan.iterations[pair] = u32::try_from(made).unwrap_or(u32::MAX);
        plan.marginal_error[pair] = row_error(&u, &kv, r);

        plan.column_sums[columns.clone()].fill(R::zero());
        let mut entropy = 0.0;
        for i in 0..r.len() {
            let mut row_sum = R::zero();
            for j in 0..c.len() {
                let mass = u[i] * k.at(i, j) * v[j];
                plan.plan[cells.start + i * c.len() + j] = mass;
                row_sum += mass;
                plan.column_sums[columns.start + j] += mass;
                if mass > R::zero() {
                    entropy -= mass.widen() * mass.widen().ln();
                }
            }
            plan.row_sums[rows.start + i] = row_sum;
        }
        plan.entropy[pair] = entropy;
        plan.transport_cost[pair] = inner_product(cost, &plan.plan[cells]);
        plan.u[rows].copy_from_slice(&u);
        plan.v[columns].copy_from_slice(&v);
    }
    Ok(())
}

/// ⟨C, Π⟩ in f64; an excluded entry (infinite cost, no mass) counts 0.
pub(super) fn inner_product<R: Real>(cost: &[R], plan: &[R]) -> f64 {
    let terms = cost.iter().zip(plan).filter(|(cost, _)| cost.is_finite());
    terms.map(|(cost, mass)| cost.widen() * mass.widen()).sum()
}

/// dC += scale · Π, dΠ += scale · C.
pub(super) fn inner_product_backward<R: Real>(
    cost: &[R],
    plan: &Plan<Scalar<R>>,
    cells: usize,
    scale: R,
    d_cost: &mut [R],
    d_plan: Option<&mut Vec<R>>,
) {
    for cell in 0..cells {
        d_cost[cell] += scale * plan.plan[cell];
    }
    if let Some(d_plan) = d_plan {
        for cell in (0..cells).filter(|&cell| cost[cell].is_finite()) {
            d_plan[cell] += scale * cost[cell];
        }
    }
}

/// The rounds are made again and kept, then taken back one by one:
/// v = c ⊘ s, s = Kᵀu gives ds = −dv·v/s, and u = r ⊘ q, q = Kv' gives dq = −du·u/q.
pub(super) fn backward<R: Real>(
    cost: &[R],
    pairs: &Pairs,
    row: &[R],
    column: &[R],
    options: SinkhornOptions,
    plan: &Plan<Scalar<R>>,
    d_plan: &[R],
    d_cost: &mut [R],
    d_column: &mut [R],
) {
    let epsilon = R::from_f64(options.epsilon);
    for pair in 0..pairs.len() {
        let (columns, cells) = (pairs.text.range(pair), pairs.cells.range(pair));
        let (r, c) = (&row[pairs.vision.range(pair)], &column[columns.clone()]);
        let k = Matrix::kernel(&cost[cells.clone()], r.len(), c.len(), options.epsilon);
        let g = Matrix { rows: r.len(), columns: c.len(), values: d_plan[cells.clone()].to_vec() };
        let mut history = Vec::new();
        let mut v = vec![R::one(); c.len()];
        for _ in 0..plan.iterations[pair] {
            let previous = v;
            let u = divide(r, &k.times(&previous));
            v = divide(c, &k.transpose_times(&u));
            history.push((previous, u, v.clone()));
        }
        let Some((_, u, v)) = history.last() else { continue };

        // Π = u K v.
        let mut d_k = vec![R::zero(); g.values.len()];
        let (mut d_u, mut d_v) = (vec![R::zero(); r.len()], vec![R::zero(); c.len()]);
        for i in 0..r.len() {
            for j in 0..c.len() {
                d_k[i * c.len() + j] = g.at(i, j) * u[i] * v[j];
                d_u[i] += g.at(i, j) * k.at(i, j) * v[j];
                d_v[j] += g.at(i, j) * k.at(i, j) * u[i];
            }
        }
        for (previous, u, v) in history.iter().rev() {
            let s = k.transpose_times(u);
            let d_s: Vec<R> = (0..c.len()).map(|j| -d_v[j] * v[j] / s[j]).collect();
            for j in 0..c.len() {
                d_column[columns.start + j] += d_v[j] / s[j];
            }
            let through_v = k.times(&d_s);
            let q = k.times(previous);
            let d_q: Vec<R> = (0..r.len()).map(|i| -(d_u[i] + through_v[i]) * u[i] / q[i]).collect();
            for i in 0..r.len() {
                for j in 0..c.len() {
                    d_k[i * c.len() + j] += u[i] * d_s[j] + d_q[i] * previous[j];
                }
            }
            d_v = k.transpose_times(&d_q);
            d_u.fill(R::zero());
        }
        // K = exp(−C/ε).
        for (cell, (d_k, k)) in cells.zip(d_k.iter().zip(&k.values)) {
            d_cost[cell] -= *d_k * *k / epsilon;
        }
    }
}
