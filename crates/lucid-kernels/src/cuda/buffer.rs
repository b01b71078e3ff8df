//! Device memory with a length, and a stamp that tells contents apart.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::driver::Driver;
use crate::error::KernelError;
use crate::real::Element;

static STAMPS: AtomicU64 = AtomicU64::new(1);

fn new_stamp() -> u64 {
    STAMPS.fetch_add(1, Ordering::Relaxed)
}

/// An array on a device.
pub struct DeviceBuffer<T, D: Driver> {
    driver: Arc<D>,
    /// 0 for an empty buffer.
    address: u64,
    len: usize,
    stamp: u64,
    element: PhantomData<T>,
}

impl<T: Element, D: Driver> DeviceBuffer<T, D> {
    /// Room for `len` elements, contents unspecified.
    pub(super) fn new(driver: &Arc<D>, len: usize) -> Result<Self, KernelError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(KernelError::Memory { bytes: usize::MAX })?;
        let address = if bytes == 0 { 0 } else { driver.allocate(bytes)? };
        Ok(Self { driver: Arc::clone(driver), address, len, stamp: new_stamp(), element: PhantomData })
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// A number that no other buffer has and that changes with the contents: what was derived from the buffer is still
    /// right while the stamp is the same.
    pub(super) const fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Address for a kernel that reads the first `len` elements.
    pub(super) fn read_at(&self, len: usize) -> u64 {
        assert!(len <= self.len, "a buffer of {} elements is read as one of {len}", self.len);
        self.address
    }

    /// Address for a kernel that writes to the first `len` elements.
    pub(super) fn write_at(&mut self, len: usize) -> u64 {
        assert!(len <= self.len, "a buffer of {} elements is written as one of {len}", self.len);
        self.stamp = new_stamp();
        self.address
    }

    pub(super) fn clear(&mut self, len: usize) -> Result<(), KernelError> {
        let address = self.write_at(len);
        if len == 0 {
            return Ok(());
        }
        // SAFETY: write_at checked that the bytes lie within the allocation.
        unsafe { self.driver.clear(address, len * size_of::<T>()) }
    }

    /// Address of `count` elements from `offset` on, which are about to be written.
    pub(super) fn write_range(&mut self, offset: usize, count: usize) -> Result<u64, KernelError> {
        if offset + count > self.len {
            let found = format!("{offset}..{}", offset + count);
            return Err(KernelError::shape("write", found, format!("within {}", self.len)));
        }
        Ok(self.write_at(offset + count) + (offset * size_of::<T>()) as u64)
    }

    pub(super) fn write(&mut self, offset: usize, data: &[T]) -> Result<(), KernelError> {
        let address = self.write_range(offset, data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: write_range checked the range.
        unsafe { self.driver.upload(address, bytemuck::cast_slice(data)) }
    }

    pub(super) fn read(&self, offset: usize, out: &mut [T]) -> Result<(), KernelError> {
        if offset + out.len() > self.len {
            let found = format!("{offset}..{}", offset + out.len());
            return Err(KernelError::shape("read", found, format!("within {}", self.len)));
        }
        if out.is_empty() {
            return Ok(());
        }
        let address = self.read_at(offset + out.len()) + (offset * size_of::<T>()) as u64;
        // SAFETY: the range was checked above.
        unsafe { self.driver.download(address, bytemuck::cast_slice_mut(out)) }
    }

    /// Makes the buffer at least `len` long; contents are then unspecified.
    pub(super) fn reserve(&mut self, len: usize) -> Result<(), KernelError> {
        if self.len < len {
            *self = Self::new(&Arc::clone(&self.driver), len)?;
        }
        Ok(())
    }
}

impl<T, D: Driver> Drop for DeviceBuffer<T, D> {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: the address came from `allocate`, and the buffer is its only owner.
            unsafe { self.driver.release(self.address) }
        }
    }
}
