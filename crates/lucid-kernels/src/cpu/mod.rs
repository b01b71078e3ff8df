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
mod rounds;
mod scratch;
mod simd;
mod sinkhorn;
mod topk;

use std::sync::Arc;

pub use instruction_set::{InstructionSet, VARIABLE};
pub use packed_matrix::PackedMatrix;

use scratch::Scratch;

use crate::backend::Backend;
use crate::device::Device;
use crate::error::KernelError;
use crate::memory::host_memory;
use crate::precision::Precision;
use crate::scalar::Scalar;

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
}
