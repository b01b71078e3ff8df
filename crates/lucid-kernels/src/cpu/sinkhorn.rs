//! Sinkhorn's iteration, one pair a task.

use rayon::prelude::*;

use super::Cpu;
use super::parallel::Disjoint;
use super::rounds::{Kernel, Outputs, Sink, fill_kernel, round, rounds_backward, row_error, write_plan};
use crate::backend::Sinkhorn;
use crate::error::KernelError;
use crate::ragged::Pairs;
use crate::transport::{Plan, SinkhornOptions};

/// ⟨cost, Π⟩ in f64; an excluded entry (infinite cost, no mass) counts 0.
fn inner_product(cost: &[f32], plan: &[f32]) -> f64 {
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

impl Sinkhorn for Cpu {
    #[allow(clippy::cast_possible_truncation)]
    fn sinkhorn(
        &self,
        cost: &Vec<f32>,
        pairs: &Pairs,
        row: &Vec<f32>,
        column: &Vec<f32>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
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
        let results: Vec<Result<(), KernelError>> = self.run(|| {
            diagnostics
                .map_init(Workspace::default, |workspace, (pair, ((error, entropy_out), (cost_out, iterations)))| {
                    let (rows, columns, cells) =
                        (pairs.vision.range(pair), pairs.text.range(pair), pairs.cells.range(pair));
                    let (r, c, cost) = (&row[rows.clone()], &column[columns.clone()], &cost[cells.clone()]);
                    let Workspace { kernel, v, sums } = workspace;
                    fill_kernel(self.arch, cost, r.len(), c.len(), options.epsilon as f32, kernel);
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
                        round(self.arch, kernel, r, c, &mut sink, u, v, &mut sums[..kernel.stride]);
                        made += 1;
                        if options.tolerance > 0.0 && row_error(self.arch, kernel, r, sink.s, u, v) < options.tolerance
                        {
                            break;
                        }
                    }
                    *iterations = u32::try_from(made).unwrap_or(u32::MAX);
                    *error = row_error(self.arch, kernel, r, sink.s, u, v);
                    let outputs =
                        Outputs { plan: &mut *plan, row_sums: &mut *row_sums, column_sums: &mut *column_sums };
                    write_plan(self.arch, kernel, u, v, outputs);
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

    /// The rounds are made again and kept, then taken back one by one. With t = Kᵀu and
    /// q = K v' + s', v = c(1 − m) ⊘ t gives dt = −dv·v/t, s = m/Σu gives dΣ = −ds·s/Σu, and u = r ⊘ q gives dq = −du·u/q;
    /// one sweep over K does all.
    #[allow(clippy::cast_possible_truncation)]
    fn sinkhorn_backward(
        &self,
        cost: &Vec<f32>,
        pairs: &Pairs,
        row: &Vec<f32>,
        column: &Vec<f32>,
        options: SinkhornOptions,
        plan: &Plan<Self>,
        d_plan: &Vec<f32>,
        d_cost: &mut Vec<f32>,
        d_column: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let (d_cost, d_column) = (Disjoint::new(d_cost), Disjoint::new(d_column));
        self.run(|| {
            (0..pairs.len()).into_par_iter().for_each_init(Workspace::default, |workspace, pair| {
                let (columns, cells) = (pairs.text.range(pair), pairs.cells.range(pair));
                let (r, c) = (&row[pairs.vision.range(pair)], &column[columns.clone()]);
                // SAFETY: pairs do not overlap.
                let (d_cost, d_column) = unsafe { (d_cost.part(cells.clone()), d_column.part(columns)) };
                let Workspace { kernel, sums, .. } = workspace;
                fill_kernel(self.arch, &cost[cells.clone()], r.len(), c.len(), options.epsilon as f32, kernel);
                sums.resize(kernel.stride, 0.0);
                let mut sink = Sink::start(options);
                let mut history = vec![(Vec::new(), vec![1.0; kernel.stride])];
                for made in 0..plan.iterations[pair] as usize {
                    let (mut u, mut v) = (vec![0.0; r.len()], history[made].1.clone());
                    round(self.arch, kernel, r, c, &mut sink, &mut u, &mut v, &mut sums[..kernel.stride]);
                    history.push((u, v));
                }
                let mut d_kernel = vec![0.0; kernel.values.len()];
                rounds_backward(self.arch, kernel, r, c, sink.mass, &history, &d_plan[cells], &mut d_kernel, d_column);
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
        Ok(())
    }

    fn transport_cost(
        &self,
        cost: &Vec<f32>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        sums: &mut Vec<f64>,
        slot: usize,
    ) -> Result<(), KernelError> {
        let parts: Vec<f64> = self.run(|| {
            let pair = |pair| inner_product(&cost[pairs.cells.range(pair)], &plan.plan[pairs.cells.range(pair)]);
            (0..pairs.len()).into_par_iter().map(pair).collect()
        });
        sums[slot] += parts.iter().sum::<f64>();
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)]
    fn transport_cost_backward(
        &self,
        cost: &Vec<f32>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        scale: f64,
        d_cost: &mut Vec<f32>,
        d_plan: Option<&mut Vec<f32>>,
    ) -> Result<(), KernelError> {
        let (cells, scale) = (pairs.cells.total(), scale as f32);
        for (d_cost, mass) in d_cost[..cells].iter_mut().zip(&plan.plan) {
            *d_cost += scale * mass;
        }
        if let Some(d_plan) = d_plan {
            for (d_plan, &cost) in d_plan[..cells].iter_mut().zip(cost) {
                if cost.is_finite() {
                    *d_plan += scale * cost;
                }
            }
        }
        Ok(())
    }
}
