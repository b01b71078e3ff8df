//! Memory that outlives a call.

use std::sync::{Mutex, PoisonError};

use super::amx::Tile;

/// Large buffers kept between calls, since fresh pages cost as much as filling them.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) floats: Spare<f32>,
    pub(super) tiles: Spare<Tile>,
}

impl Scratch {
    pub(super) fn take(&self, len: usize) -> Vec<f32> {
        self.floats.take(len)
    }

    pub(super) fn give(&self, buffer: Vec<f32>) {
        self.floats.give(buffer);
    }
}

/// Buffers of one type that are not in use.
pub(super) struct Spare<T>(Mutex<Vec<Vec<T>>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> std::fmt::Debug for Spare<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spare")
    }
}

impl<T: bytemuck::Zeroable + Clone> Spare<T> {
    /// A buffer of at least `len` values, contents unspecified.
    pub(super) fn take(&self, len: usize) -> Vec<T> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.filter(|buffer| buffer.len() >= len).unwrap_or_else(|| vec![T::zeroed(); len])
    }

    pub(super) fn give(&self, buffer: Vec<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
