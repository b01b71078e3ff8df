//! Memory of one device, and how arrays get there and back.

use std::ops::Range;

use crate::error::KernelError;
use crate::ragged::Ragged;
use crate::real::{Element, Real};

/// Host memory that copies to a device start from; page-locked where that lets them run beside operations.
pub trait Staging<T>: Send + Sync {
    /// What was filled in last.
    fn values(&self) -> &[T];

    /// `len` values to fill in, contents unspecified. Waits for copies from here that are under way.
    fn fill(&mut self, len: usize) -> Result<&mut [T], KernelError>;
}

impl<T: Element> Staging<T> for Vec<T> {
    fn values(&self) -> &[T] {
        self
    }

    fn fill(&mut self, len: usize) -> Result<&mut [T], KernelError> {
        let more = len.saturating_sub(self.len());
        self.try_reserve(more).map_err(|_| KernelError::Memory { bytes: len.saturating_mul(size_of::<T>()) })?;
        self.resize(len, T::default());
        Ok(self)
    }
}

/// Memory of one device. The conventions of [`crate::backend`] hold here too.
pub trait Device: Send + Sync + Sized {
    /// Arithmetic of weights, activations and codes.
    type Real: Real;
    /// An array on the device.
    type Buffer<T: Element>: Send + Sync;
    /// Host memory for [`Device::write_ahead`].
    type Staging: Staging<Self::Real>;

    /// Name for logs and tests, e.g. `cpu`.
    fn name(&self) -> &'static str;

    /// A buffer of `len` zeros.
    fn zeros<T: Element>(&self, len: usize) -> Result<Self::Buffer<T>, KernelError>;

    /// A buffer with a copy of `data`.
    fn upload<T: Element>(&self, data: &[T]) -> Result<Self::Buffer<T>, KernelError>;

    /// Elements the buffer has room for.
    fn len<T: Element>(&self, buffer: &Self::Buffer<T>) -> usize;

    /// Makes the buffer at least `len` long; its contents are then unspecified.
    fn reserve<T: Element>(&self, buffer: &mut Self::Buffer<T>, len: usize) -> Result<(), KernelError> {
        if self.len(buffer) < len {
            *buffer = self.zeros(len)?;
        }
        Ok(())
    }

    /// Sets the first `len` elements to zero.
    fn clear<T: Element>(&self, buffer: &mut Self::Buffer<T>, len: usize) -> Result<(), KernelError>;

    /// Copies `data` into the buffer at `offset`.
    fn write<T: Element>(&self, buffer: &mut Self::Buffer<T>, offset: usize, data: &[T]) -> Result<(), KernelError>;

    /// Copies `out.len()` elements from `offset` to the host.
    fn read<T: Element>(&self, buffer: &Self::Buffer<T>, offset: usize, out: &mut [T]) -> Result<(), KernelError>;

    /// The first `len` elements.
    fn read_vec<T: Element>(&self, buffer: &Self::Buffer<T>, len: usize) -> Result<Vec<T>, KernelError> {
        let mut out = vec![T::default(); len];
        self.read(buffer, 0, &mut out)?;
        Ok(out)
    }

    /// Waits for the operations before and reports the error that one of them left for later (only [`Sinkhorn::sinkhorn`](crate::Sinkhorn::sinkhorn) may),
    /// the first by pair. Nothing is left to report afterwards.
    fn finish(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// Memory that is free for arrays, where the device has its own; nothing where it is the host's.
    fn free_bytes(&self) -> Option<usize> {
        None
    }

    /// Pairs of a micro-batch that suit the device: few where caches are small, many where a launch wants much work.
    fn micro_pairs(&self) -> usize {
        32
    }

    /// Rows of chosen segments, one after the other: segment s of `out` \[total · d\] gets `segments.length(s)` rows of
    /// `values` from row `starts[s]` on.
    fn gather_rows(
        &self,
        values: &Self::Buffer<Self::Real>,
        starts: &[usize],
        segments: &Ragged,
        d: usize,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Empty host memory to copy from.
    fn staging(&self) -> Self::Staging;

    /// Copies the values `from` of `source` into the buffer at `offset`. The copy begins after the operations given before and may
    /// run beside those given after, which must not use the buffer until [`Device::catch_up`].
    fn write_ahead(
        &self,
        buffer: &mut Self::Buffer<Self::Real>,
        offset: usize,
        source: &mut Self::Staging,
        from: Range<usize>,
    ) -> Result<(), KernelError> {
        self.write(buffer, offset, &source.values()[from])
    }

    /// Operations given from now on come after every copy that [`Device::write_ahead`] began.
    fn catch_up(&self) -> Result<(), KernelError> {
        Ok(())
    }

    /// Whether the device works beside the host: copies run beside operations, and the host's cores are free meanwhile.
    fn beside_the_host(&self) -> bool {
        false
    }
}
