//! Memory of the CUDA backend.

use std::ops::Range;

use super::buffer::DeviceBuffer;
use super::driver::Driver;
use super::staging::HostBuffer;
use super::{Cuda, gather, sinkhorn};
use crate::device::Device;
use crate::error::KernelError;
use crate::ragged::Ragged;
use crate::real::Element;

type Buffer<T, D> = DeviceBuffer<T, D>;

impl<D: Driver> Device for Cuda<D> {
    type Real = f32;
    type Buffer<T: Element> = DeviceBuffer<T, D>;
    type Staging = HostBuffer<D>;

    fn name(&self) -> &'static str {
        self.context.driver.name()
    }

    fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T, D>, KernelError> {
        let mut buffer = self.context.buffer(len)?;
        buffer.clear(len)?;
        Ok(buffer)
    }

    fn upload<T: Element>(&self, data: &[T]) -> Result<Buffer<T, D>, KernelError> {
        let mut buffer = self.context.buffer(data.len())?;
        buffer.write(0, data)?;
        Ok(buffer)
    }

    fn len<T: Element>(&self, buffer: &Buffer<T, D>) -> usize {
        buffer.len()
    }

    fn reserve<T: Element>(&self, buffer: &mut Buffer<T, D>, len: usize) -> Result<(), KernelError> {
        buffer.reserve(len)
    }

    fn clear<T: Element>(&self, buffer: &mut Buffer<T, D>, len: usize) -> Result<(), KernelError> {
        buffer.clear(len)
    }

    fn write<T: Element>(&self, buffer: &mut Buffer<T, D>, offset: usize, data: &[T]) -> Result<(), KernelError> {
        buffer.write(offset, data)
    }

    fn read<T: Element>(&self, buffer: &Buffer<T, D>, offset: usize, out: &mut [T]) -> Result<(), KernelError> {
        buffer.read(offset, out)
    }

    fn finish(&self) -> Result<(), KernelError> {
        sinkhorn::finish(&self.context)
    }

    fn free_bytes(&self) -> Option<usize> {
        self.free_bytes.or_else(|| self.context.driver.free_bytes())
    }

    /// On an H200 a step of 256 pairs is fastest in one piece (docs/gpu.md); with less memory bandwidth, rows that are gathered
    /// should stay in the second-level cache.
    fn micro_pairs(&self) -> usize {
        if self.context.limits().wgmma { 256 } else { 64 }
    }

    fn gather_rows(
        &self,
        values: &Buffer<f32, D>,
        starts: &[usize],
        segments: &Ragged,
        d: usize,
        out: &mut Buffer<f32, D>,
    ) -> Result<(), KernelError> {
        gather::rows(&self.context, values, starts, segments, d, out)
    }

    fn staging(&self) -> HostBuffer<D> {
        HostBuffer::new(&self.context.driver)
    }

    fn write_ahead(
        &self,
        buffer: &mut Buffer<f32, D>,
        offset: usize,
        source: &mut HostBuffer<D>,
        from: Range<usize>,
    ) -> Result<(), KernelError> {
        source.copy_to(buffer, offset, from)
    }

    fn catch_up(&self) -> Result<(), KernelError> {
        self.context.driver.catch_up()
    }

    fn beside_the_host(&self) -> bool {
        true
    }
}
