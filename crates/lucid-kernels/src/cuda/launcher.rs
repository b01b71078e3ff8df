//! What all launchers share: the macro that launches, grids, scratch memory, and what is derived from buffers and kept
//! while they do not change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffer::DeviceBuffer;
use super::driver::{Driver, Limits};
use crate::codes::Codes;
use crate::error::KernelError;
use crate::precision::Precision;
use crate::ragged::{Pairs, Ragged};
use crate::real::Element;

/// `launch!(context, "kernel", grid, block, shared; arguments)`.
///
/// Invariants of every use: the arguments are the kernel's parameters in order and type (the tests run each of them), and
/// each address comes from [`DeviceBuffer::read_at`] or `write_at` with the length that the kernel's contract names.
macro_rules! launch {
    ($context:expr, $kernel:literal, $grid:expr, $block:expr, $shared:expr; $($argument:expr),+ $(,)?) => {{
        let shape = $crate::cuda::driver::Shape { grid: $grid, block: $block, shared: $shared };
        let mut arguments = [$($crate::cuda::driver::Argument::from($argument)),+];
        // SAFETY: see the macro's invariants.
        unsafe { $context.driver.launch($kernel, shape, &mut arguments) }
    }};
}
pub(super) use launch;

/// A length as a kernel's 32-bit parameter.
pub(super) fn narrow(what: &str, value: usize) -> Result<u32, KernelError> {
    u32::try_from(value).map_err(|_| KernelError::shape(what, value, "below 2^32 on a CUDA device"))
}

/// Blocks of `each` items for a one-dimensional grid; kernels stride over what is more.
pub(super) fn blocks(items: usize, each: usize) -> u32 {
    u32::try_from(items.div_ceil(each).clamp(1, 1 << 20)).unwrap_or(1 << 20)
}

/// Blocks of a sum over `len` values: a function of the length alone, so that the sum's order is one too.
pub(super) fn sum_blocks(len: usize) -> u32 {
    u32::try_from(len.div_ceil(4096).clamp(1, 1024)).unwrap_or(1024)
}

/// Scratch and derived arrays. One operation at a time holds it.
pub(super) struct State<D: Driver> {
    segments: Recent<Vec<usize>, DeviceBuffer<u64, D>>,
    pub packed: Recent<(u64, u64), Packed<D>>,
    /// W_dec rounded to bf16, by stamp and latents.
    pub rounded: Recent<(u64, u64), DeviceBuffer<half_bits::Half, D>>,
    /// Rows that a gradient gathers, rounded.
    pub rows: DeviceBuffer<half_bits::Half, D>,
    pub columns: Recent<(u64, usize, usize), Columns<D>>,
    pub acts: Packed<D>,
    pub listed: Packed<D>,
    pub pre_activations: DeviceBuffer<f32, D>,
    pub counts: DeviceBuffer<u32, D>,
    pub totals: DeviceBuffer<u32, D>,
    pub partial: DeviceBuffer<f32, D>,
    pub partial_bias: DeviceBuffer<f32, D>,
    pub sums: DeviceBuffer<f64, D>,
    pub norms: [DeviceBuffer<f32, D>; 2],
    pub global: DeviceBuffer<f32, D>,
    pub matrix: DeviceBuffer<f32, D>,
    pub history: DeviceBuffer<f32, D>,
    pub status: DeviceBuffer<u64, D>,
    pub starts: DeviceBuffer<u64, D>,
}

/// Rows as bf16 halves, `width` columns each.
pub(super) struct Packed<D: Driver> {
    pub hi: DeviceBuffer<half_bits::Half, D>,
    pub lo: DeviceBuffer<half_bits::Half, D>,
}

/// Bits of a bf16 on the device; the host never looks at them.
pub(super) mod half_bits {
    /// Two bytes. A pair of `u8` because `u16` is no [`crate::Element`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(2))]
    pub struct Half([u8; 2]);

    impl crate::real::Element for Half {}
}

impl<D: Driver> Packed<D> {
    pub fn new(driver: &Arc<D>) -> Result<Self, KernelError> {
        Ok(Self { hi: DeviceBuffer::new(driver, 0)?, lo: DeviceBuffer::new(driver, 0)? })
    }

    /// Addresses of the halves for a kernel that reads the first `len` of each; 0 for low halves that do not exist.
    pub fn read_at(&self, len: usize) -> (u64, u64) {
        (self.hi.read_at(len), if self.lo.len() < len { 0 } else { self.lo.read_at(len) })
    }

    /// The same for a kernel that writes them.
    pub fn write_at(&mut self, len: usize) -> (u64, u64) {
        (self.hi.write_at(len), if self.lo.len() < len { 0 } else { self.lo.write_at(len) })
    }
}

/// Slots of codes sorted by latent (csc.cu).
pub(super) struct Columns<D: Driver> {
    pub entries: DeviceBuffer<u32, D>,
    pub offsets: DeviceBuffer<u32, D>,
    pub cuts: DeviceBuffer<u32, D>,
}

/// The last few values by key.
pub(super) struct Recent<K, V> {
    room: usize,
    items: Vec<(K, V)>,
}

impl<K: PartialEq, V> Recent<K, V> {
    const fn new(room: usize) -> Self {
        Self { room, items: Vec::new() }
    }

    /// The value of `key`, if it is there.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.items.iter_mut().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Calls what `key` names `new`.
    pub fn rename(&mut self, key: &K, new: K) {
        if let Some((known, _)) = self.items.iter_mut().find(|(known, _)| known == key) {
            *known = new;
        }
    }

    /// The value of `key`, made by `make` from a value that is no longer wanted, if there is one.
    pub fn get_or_make<E>(
        &mut self,
        same: impl Fn(&K) -> bool,
        key: impl FnOnce() -> K,
        make: impl FnOnce(Option<V>) -> Result<V, E>,
    ) -> Result<&V, E> {
        let found = match self.items.iter().position(|(key, _)| same(key)) {
            Some(at) => self.items.remove(at),
            None => {
                let old = (self.items.len() >= self.room).then(|| self.items.remove(0).1);
                (key(), make(old)?)
            }
        };
        self.items.push(found);
        Ok(&self.items[self.items.len() - 1].1)
    }
}

/// A driver with its state: what `Cuda` hands to the launchers.
pub(super) struct Context<D: Driver> {
    pub driver: Arc<D>,
    pub precision: Precision,
    state: Mutex<State<D>>,
}

/// Offsets of a ragged batch on the device.
#[derive(Clone, Copy)]
pub(super) struct DevicePairs {
    pub vision: u64,
    pub text: u64,
    pub cells: u64,
}

impl<D: Driver> Context<D> {
    pub fn new(driver: Arc<D>, precision: Precision) -> Result<Self, KernelError> {
        let mut status = DeviceBuffer::new(&driver, 1)?;
        status.write(0, &[super::sinkhorn::FINE])?;
        let state = State {
            // A step visits its micro-batches one after the other, each with three of these.
            segments: Recent::new(192),
            packed: Recent::new(2),
            rounded: Recent::new(2),
            rows: DeviceBuffer::new(&driver, 0)?,
            // Codes of both modalities and AuxK's.
            columns: Recent::new(3),
            acts: Packed::new(&driver)?,
            listed: Packed::new(&driver)?,
            pre_activations: DeviceBuffer::new(&driver, 0)?,
            counts: DeviceBuffer::new(&driver, 0)?,
            totals: DeviceBuffer::new(&driver, 0)?,
            partial: DeviceBuffer::new(&driver, 0)?,
            partial_bias: DeviceBuffer::new(&driver, 0)?,
            sums: DeviceBuffer::new(&driver, 0)?,
            norms: [DeviceBuffer::new(&driver, 0)?, DeviceBuffer::new(&driver, 0)?],
            global: DeviceBuffer::new(&driver, 0)?,
            matrix: DeviceBuffer::new(&driver, 0)?,
            history: DeviceBuffer::new(&driver, 0)?,
            status,
            starts: DeviceBuffer::new(&driver, 0)?,
        };
        Ok(Self { driver, precision, state: Mutex::new(state) })
    }

    /// Whether operands are rounded to bf16.
    pub fn rounds(&self) -> bool {
        self.precision == Precision::Bf16
    }

    pub fn limits(&self) -> Limits {
        self.driver.limits()
    }

    pub fn buffer<T: Element>(&self, len: usize) -> Result<DeviceBuffer<T, D>, KernelError> {
        DeviceBuffer::new(&self.driver, len)
    }

    /// A panic between two launches leaves scratch that the next operation overwrites.
    pub fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Driver> State<D> {
    /// Address of the offsets of `segments`, uploaded at their first use.
    pub fn segments(&mut self, driver: &Arc<D>, segments: &Ragged) -> Result<u64, KernelError> {
        let offsets = segments.offsets();
        let buffer = self.segments.get_or_make(
            |known| known == offsets,
            || offsets.to_vec(),
            |_| {
                let wide: Vec<u64> = offsets.iter().map(|&offset| offset as u64).collect();
                let mut buffer = DeviceBuffer::new(driver, wide.len())?;
                buffer.write(0, &wide)?;
                Ok::<_, KernelError>(buffer)
            },
        )?;
        Ok(buffer.read_at(offsets.len()))
    }

    /// Addresses of the offsets of `pairs`.
    pub fn pairs(&mut self, driver: &Arc<D>, pairs: &Pairs) -> Result<DevicePairs, KernelError> {
        Ok(DevicePairs {
            vision: self.segments(driver, &pairs.vision)?,
            text: self.segments(driver, &pairs.text)?,
            cells: self.segments(driver, &pairs.cells)?,
        })
    }
}

/// Addresses of indices and values of codes.
pub(super) fn slots<D: Driver>(codes: &Codes<super::Cuda<D>>) -> (u64, u64) {
    let len = codes.n * codes.k;
    (codes.indices.read_at(len), codes.values.read_at(len))
}
