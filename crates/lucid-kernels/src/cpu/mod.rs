//! Fast CPU backend: f32, instruction set chosen at run time, threads whose number does not change a bit of the result.
//!
//! Neither dense codes nor the pre-activations of a batch ever exist: the encoder keeps one strip of one chunk of
//! tokens at a time. Files: [`product`] (by vectors, or by the tiles of [`amx`]) and [`topk`] are the encoder's heart, [`groups`] turns
//! decoders and scattered weight gradients into sums with one owner each, [`simd`] and [`parallel`] are what all kernels are built
//! from. [`instruction_set`] says what the machine has.

mod amx;
mod barycenter;
mod decode;
mod encode;
mod groups;
mod guide;
mod instruction_set;
mod loss;
mod optimise;
mod packed_matrix;
mod parallel;
mod product;
mod scratch;
mod simd;
mod sinkhorn;
mod topk;

use std::sync::Arc;

pub use instruction_set::{InstructionSet, VARIABLE};
pub use packed_matrix::PackedMatrix;

use scratch::Scratch;

use crate::backend::{AdamW, Backend, Direction, Factor};
use crate::codes::{Block, Codes, Dictionary};
use crate::device::Device;
use crate::error::KernelError;
use crate::memory::host_memory;
use crate::precision::Precision;
use crate::ragged::{Pairs, Ragged};
use crate::scalar::Scalar;
use crate::transport::{Plan, SinkhornOptions};

/// The CPU backend. Clones share threads and scratch memory.
#[derive(Clone, Debug)]
pub struct Cpu {
    set: InstructionSet,
    precision: Precision,
    /// The vectors of `set`.
    arch: pulp::Arch,
    pool: Arc<rayon::ThreadPool>,
    scratch: Arc<Scratch>,
}

impl Cpu {
    /// A backend with its own threads: `threads`, or one for every core this process may use. It uses the best instruction set there
    /// is, or that [`VARIABLE`] allows.
    pub fn new(threads: Option<usize>) -> Result<Self, KernelError> {
        Self::with_instruction_set(threads, InstructionSet::best()?)
    }

    /// The same with an instruction set of the caller's choice, which this machine must have.
    pub fn with_instruction_set(threads: Option<usize>, set: InstructionSet) -> Result<Self, KernelError> {
        let unavailable = |reason: String| KernelError::Unavailable { device: "cpu", reason };
        let threads = match threads {
            Some(0) => {
                return Err(KernelError::Option {
                    option: "threads",
                    found: "0".into(),
                    expected: "at least 1".into(),
                });
            }
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_err(|error| unavailable(error.to_string()))?.get(),
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("lucid-cpu-{index}"))
            .build()
            .map_err(|error| unavailable(error.to_string()))?;
        Ok(Self { set, precision: Precision::F32, arch: set.arch()?, pool: Arc::new(pool), scratch: Arc::default() })
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The instruction set in use.
    #[must_use]
    pub const fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// Runs `task` inside the backend's threads.
    fn run<R: Send>(&self, task: impl FnOnce() -> R + Send) -> R {
        self.pool.install(task)
    }
}

/// Kernels whose work is a few numbers a token: plain loops are fast enough.
const PLAIN: Scalar<f32> = Scalar::new();

impl Device for Cpu {
    type Real = f32;
    host_memory!();

    fn name(&self) -> &'static str {
        "cpu"
    }
}

impl Backend for Cpu {
    fn with_precision(&self, precision: Precision) -> Result<Self, KernelError> {
        Ok(Self { precision, ..self.clone() })
    }

    fn encode_topk(
        &self,
        acts: &Vec<f32>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        encode::topk(self, acts, dictionary, codes);
        Ok(())
    }

    fn encode_listed(
        &self,
        acts: &Vec<f32>,
        dictionary: &Dictionary<Self>,
        list: &Vec<u32>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError> {
        encode::listed(self, acts, dictionary, &list[..count], codes);
        Ok(())
    }

    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Vec<f32>,
        acts: &Vec<f32>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        encode::backward(self, codes, d_values, acts, dictionary, gradients);
        Ok(())
    }

    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        encode::pre_bias_backward(self, dictionary, gradients);
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
        out: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        decode::forward(self, codes, block, dictionary, bias, out);
        Ok(())
    }

    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Vec<f32>,
        d_values: &mut Vec<f32>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError> {
        decode::backward(self, codes, block, dictionary, bias, grad, d_values, gradients);
        Ok(())
    }

    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        guide::cosine_cost(self, vision, text, pairs, cost);
        Ok(())
    }

    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Vec<f32>,
        d_cost: &Vec<f32>,
        d_vision: &mut Vec<f32>,
        d_text: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        guide::cosine_cost_backward(self, vision, text, pairs, cost, d_cost, d_vision, d_text);
        Ok(())
    }

    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        guide::mass_weights(self, vision, text, pairs, weights);
        Ok(())
    }

    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Vec<f32>,
        d_vision: &mut Vec<f32>,
        d_text: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        guide::mass_weights_backward(self, vision, text, pairs, d_weights, d_vision, d_text);
        Ok(())
    }

    fn uniform_marginal(&self, segments: &Ragged, out: &mut Vec<f32>) -> Result<(), KernelError> {
        PLAIN.uniform_marginal(segments, out)
    }

    fn column_marginal(&self, weights: &Vec<f32>, pairs: &Pairs, column: &mut Vec<f32>) -> Result<(), KernelError> {
        PLAIN.column_marginal(weights, pairs, column)
    }

    fn column_marginal_backward(
        &self,
        weights: &Vec<f32>,
        pairs: &Pairs,
        d_column: &Vec<f32>,
        d_weights: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        PLAIN.column_marginal_backward(weights, pairs, d_column, d_weights)
    }

    #[allow(clippy::cast_possible_truncation)]
    fn guide_cost(
        &self,
        cost: &Vec<f32>,
        pairs: &Pairs,
        admissible: Option<&Vec<f32>>,
        mask_penalty: f64,
        weights: Option<&Vec<f32>>,
        lambda: f64,
        guided: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let (mask, weights) = (admissible.map(Vec::as_slice), weights.map(Vec::as_slice));
        guide::guide_cost(self, cost, pairs, mask, mask_penalty as f32, weights, lambda as f32, guided);
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)]
    fn guide_cost_backward(
        &self,
        d_guided: &Vec<f32>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        guide::guide_cost_backward(self, d_guided, pairs, lambda as f32, d_weights);
        Ok(())
    }

    fn sinkhorn(
        &self,
        cost: &Vec<f32>,
        pairs: &Pairs,
        row: &Vec<f32>,
        column: &Vec<f32>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
    ) -> Result<(), KernelError> {
        sinkhorn::forward(self, cost, pairs, row, column, options, plan)
    }

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
        sinkhorn::backward(self, cost, pairs, row, column, options, plan, d_plan, d_cost, d_column);
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
        sums[slot] += sinkhorn::transport_cost(self, cost, &plan.plan, pairs);
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
        let cells = pairs.cells.total();
        let d_plan = d_plan.map(|d_plan| &mut d_plan[..cells]);
        sinkhorn::transport_cost_backward(
            &cost[..cells],
            &plan.plan[..cells],
            scale as f32,
            &mut d_cost[..cells],
            d_plan,
        );
        Ok(())
    }

    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Vec<f32>,
        out: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        barycenter::forward(self, plan, pairs, direction, d, y, out);
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
        barycenter::backward(self, plan, pairs, direction, d, y, grad, d_y, d_plan.map(Vec::as_mut_slice));
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)]
    fn residual(
        &self,
        prediction: &mut Vec<f32>,
        target: &Vec<f32>,
        len: usize,
        factor: Factor,
        sums: &mut Vec<f64>,
        slot: usize,
    ) -> Result<(), KernelError> {
        let factor = match factor {
            Factor::Constant(value) => value,
            Factor::Over { slot, .. } if sums[slot] == 0.0 => 0.0,
            Factor::Over { numerator, slot } => numerator / sums[slot],
        };
        sums[slot] += loss::residual(self, &mut prediction[..len], &target[..len], factor as f32);
        Ok(())
    }

    fn difference(&self, a: &Vec<f32>, b: &Vec<f32>, len: usize, out: &mut Vec<f32>) -> Result<(), KernelError> {
        loss::difference(self, &a[..len], &b[..len], &mut out[..len]);
        Ok(())
    }

    fn segment_mean(
        &self,
        values: &Vec<f32>,
        segments: &Ragged,
        d: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        loss::segment_mean(self, values, segments, d, out);
        Ok(())
    }

    fn segment_mean_backward(
        &self,
        grad: &Vec<f32>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        loss::segment_mean_backward(self, grad, segments, d, d_values);
        Ok(())
    }

    fn sum_squares(&self, values: &Vec<f32>, len: usize, sums: &mut Vec<f64>, slot: usize) -> Result<(), KernelError> {
        sums[slot] += optimise::sum_squares(self, &values[..len]);
        Ok(())
    }

    fn project_rows(
        &self,
        weights: &Vec<f32>,
        rows: usize,
        d: usize,
        gradient: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        optimise::project_rows(self, &weights[..rows * d], d, &mut gradient[..rows * d]);
        Ok(())
    }

    fn adamw(
        &self,
        parameter: &mut Vec<f32>,
        gradient: &Vec<f32>,
        first: &mut Vec<f32>,
        second: &mut Vec<f32>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError> {
        optimise::adamw(
            self,
            &mut parameter[..len],
            &gradient[..len],
            &mut first[..len],
            &mut second[..len],
            constants,
        );
        Ok(())
    }

    fn normalise_rows(&self, weights: &mut Vec<f32>, rows: usize, d: usize) -> Result<(), KernelError> {
        optimise::normalise_rows(self, &mut weights[..rows * d], d);
        Ok(())
    }
}
