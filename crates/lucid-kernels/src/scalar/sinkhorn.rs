//! Sinkhorn's iteration (spec 3) and its derivative through every round.

use super::Scalar;
use crate::backend::Sinkhorn;
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

/// Σ_i |u_i q_i − r_i|.
fn row_error<R: Real>(u: &[R], q: &[R], row: &[R]) -> f64 {
    u.iter().zip(q).zip(row).map(|((&u, &q), &r)| (u * q - r).abs().widen()).sum()
}

/// The sink, a column of equal entries κ: its scaling only ever occurs as s = κ v₀, which is m / Σ_i u_i after a round
/// whatever κ is.
#[derive(Clone, Copy)]
struct Sink<R> {
    mass: R,
    s: R,
}

impl<R: Real> Sink<R> {
    /// v₀ = 1 and cost 1, that of an all-zero code.
    fn start(options: SinkhornOptions) -> Self {
        let s = if options.sink_mass > 0.0 { (-1.0 / options.epsilon).exp() } else { 0.0 };
        Self { mass: R::from_f64(options.sink_mass), s: R::from_f64(s) }
    }

    /// c (1 − m): what is left for the columns.
    fn rest(&self, column: &[R]) -> Vec<R> {
        column.iter().map(|&c| c * (R::one() - self.mass)).collect()
    }

    /// q = K v + s.
    fn added(&self, kv: Vec<R>) -> Vec<R> {
        kv.into_iter().map(|kv| kv + self.s).collect()
    }

    fn after(&self, u: &[R]) -> Self {
        Self { s: self.mass / u.iter().copied().sum(), ..*self }
    }
}

/// ⟨C, Π⟩ in f64; an excluded entry (infinite cost, no mass) counts 0.
fn inner_product<R: Real>(cost: &[R], plan: &[R]) -> f64 {
    let terms = cost.iter().zip(plan).filter(|(cost, _)| cost.is_finite());
    terms.map(|(cost, mass)| cost.widen() * mass.widen()).sum()
}

impl<R: Real> Sinkhorn for Scalar<R> {
    /// u = r ⊘ q, v = c (1 − m) ⊘ Kᵀ u, s = m / Σ u with q = K v + s, from v = 1; Π = diag(u) K diag(v).
    fn sinkhorn(
        &self,
        cost: &Vec<R>,
        pairs: &Pairs,
        row: &Vec<R>,
        column: &Vec<R>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
    ) -> Result<(), KernelError> {
        for pair in 0..pairs.len() {
            let (rows, columns, cells) = (pairs.vision.range(pair), pairs.text.range(pair), pairs.cells.range(pair));
            let (r, c, cost) = (&row[rows.clone()], &column[columns.clone()], &cost[cells.clone()]);
            let k = Matrix::kernel(cost, r.len(), c.len(), options.epsilon);
            if let Some((axis, index)) = k.emptied() {
                return Err(KernelError::EmptyMask { pair: plan.first_pair + pair, axis, index });
            }
            let mut sink = Sink::start(options);
            let rest = sink.rest(c);
            let mut v = vec![R::one(); c.len()];
            let mut q = sink.added(k.times(&v));
            let mut u = Vec::new();
            let mut made = 0;
            while made < options.iterations {
                u = divide(r, &q);
                v = divide(&rest, &k.transpose_times(&u));
                sink = sink.after(&u);
                q = sink.added(k.times(&v));
                made += 1;
                if options.tolerance > 0.0 && row_error(&u, &q, r) < options.tolerance {
                    break;
                }
            }
            plan.iterations[pair] = u32::try_from(made).unwrap_or(u32::MAX);
            plan.marginal_error[pair] = row_error(&u, &q, r);

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

    /// The rounds are made again and kept, then taken back one by one:
    /// v = c(1 − m) ⊘ t, t = Kᵀu gives dt = −dv·v/t, s = m / Σu gives dΣ = −ds·s/Σu, and u = r ⊘ q, q = Kv' + s' gives
    /// dq = −du·u/q with du = K dt + dΣ.
    fn sinkhorn_backward(
        &self,
        cost: &Vec<R>,
        pairs: &Pairs,
        row: &Vec<R>,
        column: &Vec<R>,
        options: SinkhornOptions,
        plan: &Plan<Self>,
        d_plan: &Vec<R>,
        d_cost: &mut Vec<R>,
        d_column: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        let epsilon = R::from_f64(options.epsilon);
        for pair in 0..pairs.len() {
            let (columns, cells) = (pairs.text.range(pair), pairs.cells.range(pair));
            let (r, c) = (&row[pairs.vision.range(pair)], &column[columns.clone()]);
            let k = Matrix::kernel(&cost[cells.clone()], r.len(), c.len(), options.epsilon);
            let g = Matrix { rows: r.len(), columns: c.len(), values: d_plan[cells.clone()].to_vec() };
            let mut history = Vec::new();
            let mut sink = Sink::start(options);
            let rest = sink.rest(c);
            let mut v = vec![R::one(); c.len()];
            for _ in 0..plan.iterations[pair] {
                let previous = v;
                let q = sink.added(k.times(&previous));
                let u = divide(r, &q);
                v = divide(&rest, &k.transpose_times(&u));
                sink = sink.after(&u);
                history.push((previous, q, u, v.clone(), sink.s));
            }
            let Some((_, _, u, v, _)) = history.last() else { continue };

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
            // Π holds no entry of the sink.
            let mut d_sink = R::zero();
            for (previous, q, u, v, s) in history.iter().rev() {
                let t = k.transpose_times(u);
                let d_t: Vec<R> = (0..c.len()).map(|j| -d_v[j] * v[j] / t[j]).collect();
                for j in 0..c.len() {
                    d_column[columns.start + j] += d_v[j] * (R::one() - sink.mass) / t[j];
                }
                let through_v = k.times(&d_t);
                let through_sink = -d_sink * *s / u.iter().copied().sum::<R>();
                let d_q: Vec<R> = (0..r.len()).map(|i| -(d_u[i] + through_v[i] + through_sink) * u[i] / q[i]).collect();
                for i in 0..r.len() {
                    for j in 0..c.len() {
                        d_k[i * c.len() + j] += u[i] * d_t[j] + d_q[i] * previous[j];
                    }
                }
                d_v = k.transpose_times(&d_q);
                d_sink = d_q.iter().copied().sum();
                d_u.fill(R::zero());
            }
            // K = exp(−C/ε).
            for (cell, (d_k, k)) in cells.zip(d_k.iter().zip(&k.values)) {
                d_cost[cell] -= *d_k * *k / epsilon;
            }
        }
        Ok(())
    }

    fn transport_cost(
        &self,
        cost: &Vec<R>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        sums: &mut Vec<f64>,
        slot: usize,
    ) -> Result<(), KernelError> {
        sums[slot] += inner_product(&cost[..pairs.cells.total()], &plan.plan);
        Ok(())
    }

    /// dC += scale · Π, dΠ += scale · C.
    fn transport_cost_backward(
        &self,
        cost: &Vec<R>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        scale: f64,
        d_cost: &mut Vec<R>,
        d_plan: Option<&mut Vec<R>>,
    ) -> Result<(), KernelError> {
        let cells = pairs.cells.total();
        let scale = R::from_f64(scale);
        for cell in 0..cells {
            d_cost[cell] += scale * plan.plan[cell];
        }
        if let Some(d_plan) = d_plan {
            for cell in (0..cells).filter(|&cell| cost[cell].is_finite()) {
                d_plan[cell] += scale * cost[cell];
            }
        }
        Ok(())
    }
}
