//! Host memory that copies to the device start from.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::DeviceBuffer;
use super::driver::Driver;
use crate::device::Staging;
use crate::error::KernelError;

/// Where the values lie.
enum Place {
    /// Page-locked memory at this address: the device reads it while the host goes on.
    Locked(u64),
    /// Ordinary memory, where the system refused the other: copies from it are as right, but hold the host up.
    Ordinary(Vec<f32>),
}

/// Values on the host, on their way to a device.
pub struct HostBuffer<D: Driver> {
    driver: Arc<D>,
    place: Place,
    /// Values there is room for.
    room: usize,
    len: usize,
    /// A copy from here may be under way.
    busy: bool,
}

impl<D: Driver> HostBuffer<D> {
    pub(super) fn new(driver: &Arc<D>) -> Self {
        Self { driver: Arc::clone(driver), place: Place::Ordinary(Vec::new()), room: 0, len: 0, busy: false }
    }

    /// Begins a copy of the values `from` into `buffer` at `offset`.
    pub(super) fn copy_to(
        &mut self,
        buffer: &mut DeviceBuffer<f32, D>,
        offset: usize,
        from: Range<usize>,
    ) -> Result<(), KernelError> {
        let room = self.len;
        let Some(values) = self.values().get(from.clone()) else {
            return Err(KernelError::shape("write_ahead", format!("{from:?}"), format!("within {room}")));
        };
        let bytes: *const [u8] = bytemuck::cast_slice(values);
        let address = buffer.write_range(offset, from.len())?;
        if from.is_empty() {
            return Ok(());
        }
        self.busy = true;
        // SAFETY: write_range checked the device's side. The values outlive the copy and do not change under it: `fill` and
        // `drop` wait for it first.
        unsafe { self.driver.upload_ahead(address, bytes) }
    }

    /// Waits for copies from here.
    fn settle(&mut self) -> Result<(), KernelError> {
        if self.busy {
            self.driver.finish_copies()?;
            self.busy = false;
        }
        Ok(())
    }

    /// Gives the memory back, which no copy may be reading.
    fn free(&mut self) {
        if let Place::Locked(address) = self.place {
            // SAFETY: the address came from `allocate_host`, this is its only owner, and it is forgotten here.
            unsafe { self.driver.release_host(address) };
        }
        (self.place, self.room, self.len) = (Place::Ordinary(Vec::new()), 0, 0);
    }

    fn reserve(&mut self, len: usize) -> Result<(), KernelError> {
        if len <= self.room {
            return Ok(());
        }
        self.free();
        // Batches of ragged pairs differ a little in length: page-locked memory is too dear to be made anew for each.
        let room = len.saturating_add(len / 8);
        let bytes = room.checked_mul(size_of::<f32>()).ok_or(KernelError::Memory { bytes: usize::MAX })?;
        self.place = match self.driver.allocate_host(bytes) {
            Ok(address) => {
                // SAFETY: the allocation has `bytes` bytes; zeros are values, so that every slice of it is initialised.
                unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
                Place::Locked(address)
            }
            Err(_) => {
                let mut values = Vec::new();
                values.try_reserve_exact(room).map_err(|_| KernelError::Memory { bytes })?;
                values.resize(room, 0.0);
                Place::Ordinary(values)
            }
        };
        self.room = room;
        Ok(())
    }
}

impl<D: Driver> Staging<f32> for HostBuffer<D> {
    fn values(&self) -> &[f32] {
        match &self.place {
            // SAFETY: the memory holds `room` ≥ `len` initialised values, and only `fill` changes them.
            Place::Locked(address) => unsafe { std::slice::from_raw_parts(*address as *const f32, self.len) },
            Place::Ordinary(values) => &values[..self.len],
        }
    }

    fn fill(&mut self, len: usize) -> Result<&mut [f32], KernelError> {
        self.settle()?;
        self.reserve(len)?;
        self.len = len;
        Ok(match &mut self.place {
            // SAFETY: as in `values`; `self` is borrowed mutably, and no copy is under way.
            Place::Locked(address) => unsafe { std::slice::from_raw_parts_mut(*address as *mut f32, len) },
            Place::Ordinary(values) => &mut values[..len],
        })
    }
}

impl<D: Driver> Drop for HostBuffer<D> {
    fn drop(&mut self) {
        if self.settle().is_ok() {
            self.free();
        } else if let Place::Ordinary(values) = &mut self.place {
            // A device that cannot say that it is done may still read: the memory is left to it.
            std::mem::forget(std::mem::take(values));
        }
    }
}
