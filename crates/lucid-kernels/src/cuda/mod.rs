//! CUDA: the kernels of this folder behind [`Backend`], on a GPU through the driver API or, for tests, on the CPU through
//! the shim. The launchers are the same; only the [`Driver`] differs.
//!
//! Every operation is a fixed sequence of launches in one stream, without float atomics, on grids that depend on shapes
//! alone: the same arguments give the same bits.

mod barycenter;
mod buffer;
#[cfg(feature = "cuda")]
mod copies;
mod csc;
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

use crate::backend::Backend;
use crate::codes::Codes;
use crate::error::KernelError;
use crate::precision::Precision;
use crate::ragged::Pairs;
use crate::transport::{Transport, TransportOptions};
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
}
