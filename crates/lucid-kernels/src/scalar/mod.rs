//! The reference backend: plain loops that read like the formulas, in f32 or f64, on one thread.

mod barycenter;
mod decode;
mod encode;
mod guide;
mod loss;
mod optimise;
mod sinkhorn;

use std::marker::PhantomData;

use crate::backend::{AdamW, Backend, Direction, Factor};
use crate::codes::{Block, Codes, Dictionary};
use crate::device::Device;
use crate::error::KernelError;
use crate::memory::host_memory;
use crate::precision::Precision;
use crate::ragged::{Pairs, Ragged};
use crate::real::Real;
use crate::transport::{Plan, SinkhornOptions};

/// The scalar backend in arithmetic `R`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar<R> {
    precision: Precision,
    real: PhantomData<R>,
}

impl<R: Real> Scalar<R> {
    /// The backend, with operands as they are.
    #[must_use]
    pub const fn new() -> Self {
        Self { precision: Precision::F32, real: PhantomData }
    }
}

/// The used entries of a token's shared code: the leading slots whose index is below d_shared (see [`Codes`]), as
/// (slot, latent, value).
fn shared_entries<R: Real>(codes: &Codes<Scalar<R>>, token: usize) -> impl Iterator<Item = (usize, usize, R)> + Clone {
    let slots = token * codes.k..(token + 1) * codes.k;
    let d_shared = codes.shape.d_shared;
    slots
        .map(|slot| (slot, codes.indices[slot] as usize, codes.values[slot]))
        .take_while(move |&(_, latent, _)| latent < d_shared)
}

/// ⟨a, b⟩, summed in order.
fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).map(|(&x, &y)| x * y).sum()
}

/// `out += scale · values`.
fn add_scaled<R: Real>(out: &mut [R], scale: R, values: &[R]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out += scale * value;
    }
}

impl<R: Real> Device for Scalar<R> {
    type Real = R;
    host_memory!();

    fn name(&self) -> &'static str {
        if size_of::<R>() == 8 { "scalar-f64" } else { "scalar-f32" }
    }
}

impl<R: Real> Backend for Scalar<R> {
    fn with_precision(&self, precision: Precision) -> Result<Self, KernelError> {
        Ok(Self { precision, real: PhantomData })
    }

    fn encode_topk(
        &self,
        acts: &Vec<R>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        encode::topk(self.precision, acts, dictionary, codes);
        Ok(())
    }

    fn encode_listed(
        &self,
        acts: &Vec<R>,
        dictionary: &Dictionary<Self>,
        list: &Vec<u32>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        encode::listed(self.precision, acts, dictionary, &list[..count], codes);
        Ok(())
    }

    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Vec<R>,
        acts: &Vec<R>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        encode::backward(self.precision, codes, d_values, acts, dictionary, gradients);
        Ok(())
    }

    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        encode::pre_bias_backward(dictionary, gradients);
        Ok(())
    }

    fn count_fired(&self, codes: &Codes<Self>, fired: &mut Vec<u32>) -> Result<(), KernelError> {
        encode::count_fired(codes, fired);
        Ok(())
    }

    fn decode(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        out: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        decode::forward(self.precision, codes, block, dictionary, bias, out);
        Ok(())
    }

    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Vec<R>,
        d_values: &mut Vec<R>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        decode::backward(self.precision, codes, block, dictionary, bias, grad, d_values, gradients);
        Ok(())
    }

    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        guide::cosine_cost(vision, text, pairs, cost);
        Ok(())
    }

    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Vec<R>,
        d_cost: &Vec<R>,
        d_vision: &mut Vec<R>,
        d_text: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        guide::cosine_cost_backward(vision, text, pairs, cost, d_cost, d_vision, d_text);
        Ok(())
    }

    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        guide::mass_weights(vision, text, pairs, weights);
        Ok(())
    }

    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Vec<R>,
        d_vision: &mut Vec<R>,
        d_text: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        guide::mass_weights_backward(vision, text, pairs, d_weights, d_vision, d_text);
        Ok(())
    }

    fn uniform_marginal(&self, segments: &Ragged, out: &mut Vec<R>) -> Result<(), KernelError> {
        guide::uniform_marginal(segments, out);
        Ok(())
    }

    fn column_marginal(&self, weights: &Vec<R>, pairs: &Pairs, column: &mut Vec<R>) -> Result<(), KernelError> {
        guide::column_marginal(weights, pairs, column);
        Ok(())
    }

    fn column_marginal_backward(
        &self,
        weights: &Vec<R>,
        pairs: &Pairs,
        d_column: &Vec<R>,
        d_weights: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        guide::column_marginal_backward(weights, pairs, d_column, d_weights);
        Ok(())
    }

    fn guide_cost(
        &self,
        cost: &Vec<R>,
        pairs: &Pairs,
        admissible: Option<&Vec<R>>,
        mask_penalty: f64,
        weights: Option<&Vec<R>>,
        lambda: f64,
        guided: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        guide::guide_cost(cost, pairs, admissible, mask_penalty, weights, lambda, guided);
        Ok(())
    }

    fn guide_cost_backward(
        &self,
        d_guided: &Vec<R>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        guide::guide_cost_backward(d_guided, pairs, lambda, d_weights);
        Ok(())
    }

    fn sinkhorn(
        &self,
        cost: &Vec<R>,
        pairs: &Pairs,
        row: &Vec<R>,
        column: &Vec<R>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
    ) -> Result<(), KernelError> {
        sinkhorn::forward(cost, pairs, row, column, options, plan)
    }

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
        sinkhorn::backward(cost, pairs, row, column, options, plan, d_plan, d_cost, d_column);
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
        sums[slot] += sinkhorn::inner_product(&cost[..pairs.cells.total()], &plan.plan);
        Ok(())
    }

    fn transport_cost_backward(
        &self,
        cost: &Vec<R>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        scale: f64,
        d_cost: &mut Vec<R>,
        d_plan: Option<&mut Vec<R>>,
    ) -> Result<(), KernelError> {
        sinkhorn::inner_product_backward(cost, plan, pairs.cells.total(), R::from_f64(scale), d_cost, d_plan);
        Ok(())
    }

    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Vec<R>,
        out: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        barycenter::forward(self.precision, plan, pairs, direction, d, y, out);
        Ok(())
    }

    fn barycenter_backward(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Vec<R>,
        grad: &Vec<R>,
        d_y: &mut Vec<R>,
        d_plan: Option<&mut Vec<R>>,
    ) -> Result<(), KernelError> {
        barycenter::backward(self.precision, plan, pairs, direction, d, y, grad, d_y, d_plan);
        Ok(())
    }

    fn residual(
        &self,
        prediction: &mut Vec<R>,
        target: &Vec<R>,
        len: usize,
        factor: Factor,
        sums: &mut Vec<f64>,
        slot: usize,
    ) -> Result<(), KernelError> {
        loss::residual(&mut prediction[..len], &target[..len], factor, sums, slot);
        Ok(())
    }

    fn difference(&self, a: &Vec<R>, b: &Vec<R>, len: usize, out: &mut Vec<R>) -> Result<(), KernelError> {
        for i in 0..len {
            out[i] = a[i] - b[i];
        }
        Ok(())
    }

    fn segment_mean(&self, values: &Vec<R>, segments: &Ragged, d: usize, out: &mut Vec<R>) -> Result<(), KernelError> {
        loss::segment_mean(values, segments, d, out);
        Ok(())
    }

    fn segment_mean_backward(
        &self,
        grad: &Vec<R>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Vec<R>,
    ) -> Result<(), KernelError> {
        loss::segment_mean_backward(grad, segments, d, d_values);
        Ok(())
    }

    fn sum_squares(&self, values: &Vec<R>, len: usize, sums: &mut Vec<f64>, slot: usize) -> Result<(), KernelError> {
        sums[slot] += values[..len].iter().map(|value| value.widen() * value.widen()).sum::<f64>();
        Ok(())
    }

    fn project_rows(&self, weights: &Vec<R>, rows: usize, d: usize, gradient: &mut Vec<R>) -> Result<(), KernelError> {
        optimise::project_rows(&weights[..rows * d], d, &mut gradient[..rows * d]);
        Ok(())
    }

    fn adamw(
        &self,
        parameter: &mut Vec<R>,
        gradient: &Vec<R>,
        first: &mut Vec<R>,
        second: &mut Vec<R>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        optimise::adamw(&mut parameter[..len], gradient, first, second, constants);
        Ok(())
    }

    fn normalise_rows(&self, weights: &mut Vec<R>, rows: usize, d: usize) -> Result<(), KernelError> {
        optimise::normalise_rows(&mut weights[..rows * d], d);
        Ok(())
    }
}
