//! Memory of the backends that run on the host: a buffer is a `Vec`.

use crate::error::KernelError;
use crate::real::Element;

/// A vector of `len` zeros, or an error where memory does not suffice.
pub(crate) fn zeros<T: Element>(len: usize) -> Result<Vec<T>, KernelError> {
    let layout = std::alloc::Layout::array::<T>(len).map_err(|_| KernelError::Memory { bytes: usize::MAX })?;
    // Reserving first turns an absurd size into an error; `vec!` then takes pages that are zero already.
    Vec::<T>::new().try_reserve_exact(len).map_err(|_| KernelError::Memory { bytes: layout.size() })?;
    Ok(vec![T::default(); len])
}

/// Copies `data` into `buffer` at `offset`.
pub(crate) fn write<T: Element>(buffer: &mut [T], offset: usize, data: &[T]) -> Result<(), KernelError> {
    let room = buffer.len();
    match buffer.get_mut(offset..offset + data.len()) {
        Some(part) => {
            part.copy_from_slice(data);
            Ok(())
        }
        None => {
            Err(KernelError::shape("write", format!("{offset}..{}", offset + data.len()), format!("within {room}")))
        }
    }
}

/// Copies from `buffer` at `offset` into `out`.
pub(crate) fn read<T: Element>(buffer: &[T], offset: usize, out: &mut [T]) -> Result<(), KernelError> {
    match buffer.get(offset..offset + out.len()) {
        Some(part) => {
            out.copy_from_slice(part);
            Ok(())
        }
        None => {
            let found = format!("{offset}..{}", offset + out.len());
            Err(KernelError::shape("read", found, format!("within {}", buffer.len())))
        }
    }
}

/// The types and operations of a host backend's memory, inside its `impl Device`.
macro_rules! host_memory {
    () => {
        type Buffer<T: $crate::real::Element> = Vec<T>;
        type Staging = Vec<Self::Real>;

        fn staging(&self) -> Vec<Self::Real> {
            Vec::new()
        }

        fn zeros<T: $crate::real::Element>(&self, len: usize) -> Result<Vec<T>, $crate::error::KernelError> {
            $crate::memory::zeros(len)
        }

        fn upload<T: $crate::real::Element>(&self, data: &[T]) -> Result<Vec<T>, $crate::error::KernelError> {
            Ok(data.to_vec())
        }

        fn len<T: $crate::real::Element>(&self, buffer: &Vec<T>) -> usize {
            buffer.len()
        }

        fn clear<T: $crate::real::Element>(
            &self,
            buffer: &mut Vec<T>,
            len: usize,
        ) -> Result<(), $crate::error::KernelError> {
            buffer[..len].fill(T::default());
            Ok(())
        }

        fn write<T: $crate::real::Element>(
            &self,
            buffer: &mut Vec<T>,
            offset: usize,
            data: &[T],
        ) -> Result<(), $crate::error::KernelError> {
            $crate::memory::write(buffer, offset, data)
        }

        fn gather_rows(
            &self,
            values: &Vec<Self::Real>,
            starts: &[usize],
            segments: &$crate::ragged::Ragged,
            d: usize,
            out: &mut Vec<Self::Real>,
        ) -> Result<(), $crate::error::KernelError> {
            for (segment, &start) in starts.iter().enumerate() {
                let (to, len) = (segments.range(segment), segments.length(segment));
                out[to.start * d..to.end * d].copy_from_slice(&values[start * d..(start + len) * d]);
            }
            Ok(())
        }

        fn read<T: $crate::real::Element>(
            &self,
            buffer: &Vec<T>,
            offset: usize,
            out: &mut [T],
        ) -> Result<(), $crate::error::KernelError> {
            $crate::memory::read(buffer, offset, out)
        }
    };
}
pub(crate) use host_memory;
