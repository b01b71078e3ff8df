//! Barycentres under a normalised plan: one matrix product (`gemm`) a pair.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use super::Cpu;
use super::parallel::Disjoint;
use crate::backend::{Barycenter, Direction};
use crate::error::KernelError;
use crate::precision::Precision;
use crate::ragged::Pairs;
use crate::transport::Plan;

/// A row-major matrix, or its transpose by exchanged strides.
#[derive(Clone, Copy)]
struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert!(values.len() >= rows * columns);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `out` = a · b, row-major, on the calling thread.
fn multiply(a: View, b: View, out: &mut [f32]) {
    assert_eq!(a.columns, b.rows);
    assert!(out.len() >= a.rows * b.columns);
    // SAFETY: `View::new` and the assertions keep every access within the slices; strides come from row-major shapes.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            false,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Shapes of one pair.
struct Pair {
    cells: Range<usize>,
    rows: usize,
    columns: usize,
    source: Range<usize>,
    target: Range<usize>,
}

impl Pair {
    fn new(pairs: &Pairs, pair: usize, direction: Direction) -> Self {
        Self {
            cells: pairs.cells.range(pair),
            rows: pairs.vision.length(pair),
            columns: pairs.text.length(pair),
            source: direction.source(pairs).range(pair),
            target: direction.target(pairs).range(pair),
        }
    }

    /// P \[T_v × T_t\] (rows divided by their mass) or Q likewise by columns.
    fn shares(&self, precision: Precision, plan: &Plan<Cpu>, direction: Direction, out: &mut Vec<f32>) {
        out.clear();
        out.extend_from_slice(&plan.plan[self.cells.clone()]);
        let inverse = |mass: f32| if mass > 0.0 { 1.0 / mass } else { 0.0 };
        match direction {
            Direction::T2V => {
                for (row, &mass) in out.chunks_exact_mut(self.columns).zip(&plan.row_sums[self.target.clone()]) {
                    let scale = inverse(mass);
                    row.iter_mut().for_each(|share| *share *= scale);
                }
            }
            Direction::V2T => {
                let scales: Vec<f32> =
                    plan.column_sums[self.target.clone()].iter().map(|&mass| inverse(mass)).collect();
                for row in out.chunks_exact_mut(self.columns) {
                    row.iter_mut().zip(&scales).for_each(|(share, scale)| *share *= scale);
                }
            }
        }
        if precision == Precision::Bf16 {
            out.iter_mut().for_each(|share| *share = precision.round(*share));
        }
    }

    /// The shares as \[target × source\].
    fn weights<'a>(&self, shares: &'a [f32], direction: Direction) -> View<'a> {
        let view = View::new(shares, self.rows, self.columns);
        match direction {
            Direction::T2V => view,
            Direction::V2T => view.transposed(),
        }
    }
}

/// dΠ_ij += (inner_ij − its mean under the target's shares) / mass of the target.
///
/// The mean is taken in f64 and under shares that sum to 1 exactly: an error of it is the same in every source of a
/// target, so that a later sum over them does not average it out, and a target of little mass enlarges it.
fn through_shares(pair: &Pair, plan: &Plan<Cpu>, direction: Direction, inner: &[f32], d_plan: &mut [f32]) {
    let target = |cell: usize| match direction {
        Direction::T2V => cell / pair.columns,
        Direction::V2T => cell % pair.columns,
    };
    let mass = match direction {
        Direction::T2V => &plan.row_sums[pair.target.clone()],
        Direction::V2T => &plan.column_sums[pair.target.clone()],
    };
    let (mut mean, mut total) = (vec![0.0_f64; pair.target.len()], vec![0.0_f64; pair.target.len()]);
    for (cell, (plan, inner)) in plan.plan[pair.cells.clone()].iter().zip(inner).enumerate() {
        mean[target(cell)] += f64::from(*plan) * f64::from(*inner);
        total[target(cell)] += f64::from(*plan);
    }
    for (mean, total) in mean.iter_mut().zip(&total) {
        *mean /= total;
    }
    for (cell, (d_plan, inner)) in d_plan.iter_mut().zip(inner).enumerate() {
        let target = target(cell);
        if mass[target] > 0.0 {
            *d_plan += ((f64::from(*inner) - mean[target]) / f64::from(mass[target])) as f32;
        }
    }
}

impl Barycenter for Cpu {
    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Vec<f32>,
        out: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let out = Disjoint::new(out);
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each_init(Vec::new, |shares, pair| {
                let pair = Pair::new(pairs, pair, direction);
                pair.shares(self.precision, plan, direction, shares);
                let y = self.precision.operands(&y[pair.source.start * d..pair.source.end * d]);
                let y = View::new(&y, pair.source.len(), d);
                // SAFETY: pairs do not overlap.
                let out = unsafe { out.part(pair.target.start * d..pair.target.end * d) };
                multiply(pair.weights(shares, direction), y, out);
            });
        });
        Ok(())
    }

    fn barycenter_backward(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Vec<f32>,
        grad: &Vec<f32>,
        d_y: &mut Vec<f32>,
        d_plan: Option<&mut Vec<f32>>,
    ) -> Result<(), KernelError> {
        let (d_y, d_plan) = (Disjoint::new(d_y), d_plan.map(|d_plan| Disjoint::new(d_plan)));
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each_init(
                || (Vec::new(), Vec::new()),
                |(shares, inner), pair| {
                    let pair = Pair::new(pairs, pair, direction);
                    pair.shares(self.precision, plan, direction, shares);
                    let weights = pair.weights(shares, direction);
                    let grad = self.precision.operands(&grad[pair.target.start * d..pair.target.end * d]);
                    let grad = View::new(&grad, pair.target.len(), d);
                    // SAFETY: pairs do not overlap.
                    let d_y = unsafe { d_y.part(pair.source.start * d..pair.source.end * d) };
                    multiply(weights.transposed(), grad, d_y);
                    if let Some(d_plan) = &d_plan {
                        let y = self.precision.operands(&y[pair.source.start * d..pair.source.end * d]);
                        let y = View::new(&y, pair.source.len(), d);
                        inner.clear();
                        inner.resize(pair.rows * pair.columns, 0.0);
                        // ⟨grad, y⟩ as [T_v × T_t] for both directions.
                        match direction {
                            Direction::T2V => multiply(grad, y.transposed(), inner),
                            Direction::V2T => multiply(y, grad.transposed(), inner),
                        }
                        // SAFETY: pairs do not overlap.
                        let d_plan = unsafe { d_plan.part(pair.cells.clone()) };
                        through_shares(&pair, plan, direction, inner, d_plan);
                    }
                },
            );
        });
        Ok(())
    }
}
