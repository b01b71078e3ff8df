//! Every launch of a training step, recorded from the step itself by a driver that runs nothing.
//!
//! The model cannot drift from the code this way: grids, numbers of launches and the lengths in their arguments are those
//! that a GPU would get.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lucid_kernels::KernelError;
use lucid_kernels::cuda::{Argument, Cuda, Driver, Limits, Shape};
use lucid_sae::batch::{HostPairs, MicroBatch, Sides};
use lucid_sae::config::{Config, Preset};
use lucid_sae::optimiser::Optimiser;
use lucid_sae::params::Params;
use lucid_sae::step::{Step, StepInputs};

use super::cards::Card;
use crate::{PATCHES, SHAPE, TOKENS, WIDTH};

/// A launch, or a copy or clearing of memory (`memset`, `upload`, `wait` for a copy to the host).
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static str,
    /// Its grid.
    pub grid: [u32; 3],
    /// Its scalar arguments as numbers, pointers as they are; of a copy, its bytes.
    pub arguments: Vec<f64>,
}

/// Records what a device is told to do. Memory is an address without contents, save small uploads, which the backend
/// reads back as a status.
pub struct Recorder {
    limits: Limits,
    next: AtomicU64,
    launches: Mutex<Vec<Launch>>,
    contents: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Recorder {
    /// A driver that looks like a card's.
    #[must_use]
    pub fn new(card: &Card) -> Arc<Self> {
        let limits = Limits {
            shared_bytes: card.shared_bytes as usize,
            l2_bytes: card.cache_bytes as usize,
            multiprocessors: card.multiprocessors as usize,
            wgmma: card.mma_share < 1.0,
        };
        let (launches, contents) = (Mutex::default(), Mutex::default());
        Arc::new(Self { limits, next: AtomicU64::new(1 << 20), launches, contents })
    }

    fn record(&self, kernel: &'static str, grid: [u32; 3], arguments: Vec<f64>) {
        let mut launches = self.launches.lock().unwrap_or_else(PoisonError::into_inner);
        launches.push(Launch { kernel, grid, arguments });
    }

    /// What was recorded since the last call.
    pub fn take(&self) -> Vec<Launch> {
        std::mem::take(&mut *self.launches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Driver for Recorder {
    fn name(&self) -> &'static str {
        "cuda-trace"
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn free_bytes(&self) -> Option<usize> {
        None
    }

    fn allocate(&self, bytes: usize) -> Result<u64, KernelError> {
        Ok(self.next.fetch_add(bytes.next_multiple_of(256) as u64, Ordering::Relaxed))
    }

    unsafe fn release(&self, address: u64) {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    unsafe fn clear(&self, _address: u64, bytes: usize) -> Result<(), KernelError> {
        self.record("memset", [1; 3], vec![bytes as f64]);
        Ok(())
    }

    unsafe fn upload(&self, address: u64, data: &[u8]) -> Result<(), KernelError> {
        self.record("upload", [1; 3], vec![data.len() as f64]);
        if data.len() <= 8 {
            self.contents.lock().unwrap_or_else(PoisonError::into_inner).insert(address, data.to_vec());
        }
        Ok(())
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, KernelError> {
        // No memory is behind an address here, and staging is written to.
        Err(KernelError::Memory { bytes })
    }

    unsafe fn release_host(&self, _address: u64) {}

    unsafe fn upload_ahead(&self, _address: u64, data: *const [u8]) -> Result<(), KernelError> {
        self.record("upload", [1; 3], vec![data.len() as f64]);
        Ok(())
    }

    fn catch_up(&self) -> Result<(), KernelError> {
        Ok(())
    }

    fn finish_copies(&self) -> Result<(), KernelError> {
        Ok(())
    }

    unsafe fn download(&self, address: u64, out: &mut [u8]) -> Result<(), KernelError> {
        self.record("wait", [1; 3], vec![out.len() as f64]);
        out.fill(0);
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = contents.get(&address).filter(|known| known.len() == out.len()) {
            out.copy_from_slice(known);
        }
        Ok(())
    }

    unsafe fn launch(&self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), KernelError> {
        let number = |argument: &Argument| match *argument {
            Argument::U32(value) => f64::from(value),
            Argument::U64(value) => value as f64,
            Argument::F32(value) => f64::from(value),
            Argument::F64(value) => value,
        };
        self.record(kernel, shape.grid, arguments.iter().map(number).collect());
        Ok(())
    }
}

/// The launches of one training step of the preset `paper` on a card, `pairs` pairs in micro-batches of `micro`, as it is
/// once buffers and offsets are in place.
pub fn step(card: &Card, pairs: usize, micro: usize) -> Result<Vec<Launch>, KernelError> {
    let driver = Recorder::new(card);
    let backend = Cuda::new(Arc::clone(&driver))?;
    let config = Config { batch_pairs: pairs, micro_pairs: micro, ..Preset::Paper.config() };
    let mut params = Params::zeros(&backend, WIDTH, WIDTH, SHAPE.latents())?;
    let mut batch = Vec::new();
    let mut left = pairs;
    while left > 0 {
        let count = left.min(micro);
        left -= count;
        let host = HostPairs {
            vision: &vec![0.0; count * PATCHES * WIDTH],
            vision_lengths: &vec![PATCHES; count],
            text: &vec![0.0; count * TOKENS * WIDTH],
            text_lengths: &vec![TOKENS; count],
            admissible: None,
        };
        batch.push(MicroBatch::upload(&backend, WIDTH, WIDTH, &host)?);
    }
    let (mut step, mut optimiser) = (Step::new(&backend, &params, &config)?, Optimiser::new(&backend, &params)?);
    let dead = Sides::default();
    let variance = Sides { vision: 1.0, text: 1.0 };
    let inputs =
        StepInputs { config: &config, variance, pooled_variance: None, dead: &dead, keep_plan: false, encoder: None };
    let mut launches = Vec::new();
    // The first step allocates, and uploads the offsets of its pairs.
    for index in 0..2 {
        driver.take();
        step.run(&backend, &params, &batch, &inputs)?;
        let norm = optimiser.prepare(&backend, &config, &params, &mut step.gradients)?;
        optimiser.apply(&backend, &config, index, 100, norm, &mut params, &step.gradients)?;
        launches = driver.take();
    }
    Ok(launches)
}
