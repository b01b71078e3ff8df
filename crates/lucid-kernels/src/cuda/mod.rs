//! CUDA: the kernels of this folder behind [`Backend`], on a GPU through the driver API or, for tests, on the CPU through
//! the shim. The launchers are the same; only the [`Driver`] differs.
//!
//! Every operation is a fixed sequence of launches in one stream, without float atomics, on grids that depend on shapes
//! alone: the same arguments give the same bits.

mod barycenter;
mod buffer;
#[cfg(feature = "cuda")]
mod copies;
mod decode;
mod driver;
mod encode;
#[cfg(feature = "cuda")]
mod fatbin;
mod gather;
mod gcmt;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(feature = "cuda")]
mod gpu_graph;
mod graphs;
mod guide;
mod launcher;
mod loss;
mod memory;
#[cfg(feature = "cuda")]
mod needed;
#[cfg(feature = "cuda")]
mod open;
mod optimise;
#[cfg(feature = "cuda")]
mod probe;
mod self_test;
#[cfg(feature = "cuda-shim")]
mod shim;
mod sinkhorn;
mod staging;
#[cfg(feature = "cuda")]
mod status;
#[cfg(feature = "cuda")]
mod timing;

use std::sync::Arc;

pub use buffer::DeviceBuffer;
pub use driver::{Argument, Driver, Limits, Shape};
#[cfg(feature = "cuda")]
pub use gpu::Gpu;
pub use graphs::{Counts, GraphDriver, Graphs, Operation};
#[cfg(feature = "cuda")]
pub use open::open;
#[cfg(feature = "cuda")]
pub use probe::{CudaState, DeviceInfo, probe, probe_again};
pub use self_test::{Check, self_test};
#[cfg(feature = "cuda-shim")]
pub use shim::{CopiesAhead, Order, Shim};
pub use staging::HostBuffer;
#[cfg(feature = "cuda")]
pub use timing::Launch;

use crate::backend::{AdamW, Backend, Direction, Factor};
use crate::codes::{Block, Codes, Dictionary};
use crate::error::KernelError;
use crate::precision::Precision;
use crate::ragged::{Pairs, Ragged};
use crate::transport::{Plan, SinkhornOptions, Transport, TransportOptions};
use launcher::Context;

type Buffer<T, D> = DeviceBuffer<T, D>;

/// The CUDA backend on a device that `D` reaches. Clones share the device, its stream and its scratch memory.
pub struct Cuda<D: Driver> {
    context: Arc<Context<D>>,
    /// Free memory to speak of, whatever the device says.
    free_bytes: Option<usize>,
}

impl<D: Driver> Clone for Cuda<D> {
    fn clone(&self) -> Self {
        Self { context: Arc::clone(&self.context), free_bytes: self.free_bytes }
    }
}

impl<D: Driver> Cuda<D> {
    /// The backend on `driver`'s device.
    pub fn new(driver: Arc<D>) -> Result<Self, KernelError> {
        Ok(Self { context: Arc::new(Context::new(driver, Precision::F32)?), free_bytes: None })
    }

    /// The same device, of whose memory `bytes` are said to be free: what goes by free memory is tried with as much as one likes.
    #[must_use]
    pub fn with_free_bytes(self, bytes: usize) -> Self {
        Self { free_bytes: Some(bytes), ..self }
    }

    /// The device.
    #[must_use]
    pub fn driver(&self) -> &D {
        &self.context.driver
    }
}

impl<D: Driver> Backend for Cuda<D> {
    fn with_precision(&self, precision: Precision) -> Result<Self, KernelError> {
        if precision == self.context.precision {
            return Ok(self.clone());
        }
        // Scratch of its own: what is derived from buffers differs.
        let context = Arc::new(Context::new(Arc::clone(&self.context.driver), precision)?);
        Ok(Self { context, free_bytes: self.free_bytes })
    }

    fn encode_topk(
        &self,
        acts: &Buffer<f32, D>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        encode::topk(&self.context, acts, dictionary, codes)
    }

    fn encode_listed(
        &self,
        acts: &Buffer<f32, D>,
        dictionary: &Dictionary<Self>,
        list: &Buffer<u32, D>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        encode::listed(&self.context, acts, dictionary, list, count, codes)
    }

    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Buffer<f32, D>,
        acts: &Buffer<f32, D>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        decode::encode_backward(&self.context, codes, d_values, acts, dictionary, gradients)
    }

    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        decode::pre_bias_backward(&self.context, dictionary, gradients)
    }

    fn count_fired(&self, codes: &Codes<Self>, fired: &mut Buffer<u32, D>) -> Result<(), KernelError> {
        encode::count_fired(&self.context, codes, fired)
    }

    fn decode(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        decode::forward(&self.context, codes, block, dictionary, bias, out)
    }

    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Buffer<f32, D>,
        d_values: &mut Buffer<f32, D>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        decode::backward(&self.context, codes, block, dictionary, bias, grad, d_values, gradients)
    }

    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::cosine_cost(&self.context, vision, text, pairs, cost)
    }

    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Buffer<f32, D>,
        d_cost: &Buffer<f32, D>,
        d_vision: &mut Buffer<f32, D>,
        d_text: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::cosine_cost_backward(&self.context, vision, text, pairs, (cost, d_cost), d_vision, d_text)
    }

    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::mass_weights(&self.context, vision, text, pairs, weights)
    }

    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Buffer<f32, D>,
        d_vision: &mut Buffer<f32, D>,
        d_text: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::mass_weights_backward(&self.context, vision, text, pairs, d_weights, d_vision, d_text)
    }

    fn uniform_marginal(&self, segments: &Ragged, out: &mut Buffer<f32, D>) -> Result<(), KernelError> {
        guide::uniform_marginal(&self.context, segments, out)
    }

    fn column_marginal(
        &self,
        weights: &Buffer<f32, D>,
        pairs: &Pairs,
        column: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::column_marginal(&self.context, weights, pairs, column)
    }

    fn column_marginal_backward(
        &self,
        weights: &Buffer<f32, D>,
        pairs: &Pairs,
        d_column: &Buffer<f32, D>,
        d_weights: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::column_marginal_backward(&self.context, weights, pairs, d_column, d_weights)
    }

    fn guide_cost(
        &self,
        cost: &Buffer<f32, D>,
        pairs: &Pairs,
        admissible: Option<&Buffer<f32, D>>,
        mask_penalty: f64,
        weights: Option<&Buffer<f32, D>>,
        lambda: f64,
        guided: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::guide_cost(&self.context, cost, pairs, (admissible, mask_penalty), (weights, lambda), guided)
    }

    fn guide_cost_backward(
        &self,
        d_guided: &Buffer<f32, D>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        guide::guide_cost_backward(&self.context, d_guided, pairs, lambda, d_weights)
    }

    fn sinkhorn(
        &self,
        cost: &Buffer<f32, D>,
        pairs: &Pairs,
        row: &Buffer<f32, D>,
        column: &Buffer<f32, D>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
    ) -> Result<(), KernelError> {
        sinkhorn::forward(&self.context, cost, pairs, row, column, options, plan)
    }

    fn sinkhorn_backward(
        &self,
        cost: &Buffer<f32, D>,
        pairs: &Pairs,
        row: &Buffer<f32, D>,
        column: &Buffer<f32, D>,
        options: SinkhornOptions,
        plan: &Plan<Self>,
        d_plan: &Buffer<f32, D>,
        d_cost: &mut Buffer<f32, D>,
        d_column: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        let (marginals, gradients) = ((row, column), (d_cost, d_column));
        sinkhorn::backward(&self.context, cost, pairs, marginals, options, plan, d_plan, gradients)
    }

    fn gcmt(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        admissible: Option<&Buffer<f32, D>>,
        options: &TransportOptions,
        transport: &mut Transport<Self>,
    ) -> Result<(), KernelError> {
        if gcmt::plan(&self.context, vision, text, pairs, admissible, options, transport)? {
            return Ok(());
        }
        transport.by_operations(self, vision, text, pairs, admissible, options)
    }

    fn transport_cost(
        &self,
        cost: &Buffer<f32, D>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        sums: &mut Buffer<f64, D>,
        slot: usize,
    ) -> Result<(), KernelError> {
        loss::transport_cost(&self.context, cost, &plan.plan, pairs.cells.total(), sums, slot)
    }

    fn transport_cost_backward(
        &self,
        cost: &Buffer<f32, D>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        scale: f64,
        d_cost: &mut Buffer<f32, D>,
        d_plan: Option<&mut Buffer<f32, D>>,
    ) -> Result<(), KernelError> {
        loss::transport_cost_backward(&self.context, cost, &plan.plan, pairs.cells.total(), scale, d_cost, d_plan)
    }

    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Buffer<f32, D>,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        barycenter::forward(&self.context, plan, pairs, direction, d, y, out)
    }

    fn barycenter_backward(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Buffer<f32, D>,
        grad: &Buffer<f32, D>,
        d_y: &mut Buffer<f32, D>,
        d_plan: Option<&mut Buffer<f32, D>>,
    ) -> Result<(), KernelError> {
        barycenter::backward(&self.context, plan, pairs, direction, d, (y, grad), d_y, d_plan)
    }

    fn residual(
        &self,
        prediction: &mut Buffer<f32, D>,
        target: &Buffer<f32, D>,
        len: usize,
        factor: Factor,
        sums: &mut Buffer<f64, D>,
        slot: usize,
    ) -> Result<(), KernelError> {
        loss::residual(&self.context, prediction, target, len, factor, sums, slot)
    }

    fn difference(
        &self,
        a: &Buffer<f32, D>,
        b: &Buffer<f32, D>,
        len: usize,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        loss::difference(&self.context, a, b, len, out)
    }

    fn segment_mean(
        &self,
        values: &Buffer<f32, D>,
        segments: &Ragged,
        d: usize,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        loss::segment_mean(&self.context, values, segments, d, out)
    }

    fn segment_mean_backward(
        &self,
        grad: &Buffer<f32, D>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        loss::segment_mean_backward(&self.context, grad, segments, d, d_values)
    }

    fn sum_squares(
        &self,
        values: &Buffer<f32, D>,
        len: usize,
        sums: &mut Buffer<f64, D>,
        slot: usize,
    ) -> Result<(), KernelError> {
        loss::sum_squares(&self.context, values, len, sums, slot)
    }

    fn project_rows(
        &self,
        weights: &Buffer<f32, D>,
        rows: usize,
        d: usize,
        gradient: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        optimise::project_rows(&self.context, weights, rows, d, gradient)
    }

    fn adamw(
        &self,
        parameter: &mut Buffer<f32, D>,
        gradient: &Buffer<f32, D>,
        first: &mut Buffer<f32, D>,
        second: &mut Buffer<f32, D>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        optimise::adamw(&self.context, parameter, gradient, (first, second), len, constants)
    }

    fn normalise_rows(&self, weights: &mut Buffer<f32, D>, rows: usize, d: usize) -> Result<(), KernelError> {
        optimise::normalise_rows(&self.context, weights, rows, d)
    }
}
