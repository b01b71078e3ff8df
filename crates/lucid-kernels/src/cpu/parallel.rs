//! Threads whose number does not change results: work is cut by its size, every output has one owner, and partial
//! sums are added in order.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// A mutable slice that several tasks write in disjoint parts (columns of rows, scattered rows).
pub(super) struct Disjoint<'a, T> {
    pointer: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer stands for a `&mut [T]` that is only reached through `Disjoint::part`, whose callers promise
// that parts in use at the same time do not overlap; T crosses threads, hence `Send`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other part that overlaps `range` may be alive.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // parts are disjoint by the caller's promise
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }
}

/// The ranges of `size` elements that cover `0..len`; the last may be shorter.
pub(super) fn chunks(len: usize, size: usize) -> impl IndexedParallelIterator<Item = Range<usize>> {
    (0..len.div_ceil(size)).into_par_iter().map(move |i| i * size..((i + 1) * size).min(len))
}

/// Values summed by chunks of this many; part of the order of summation.
const SUM_CHUNK: usize = 1 << 15;

/// `Σ part(range)` over fixed ranges of `0..len`, added in order.
pub(super) fn ordered_sum(len: usize, part: impl Fn(Range<usize>) -> f64 + Send + Sync) -> f64 {
    let parts: Vec<f64> = chunks(len, SUM_CHUNK).map(part).collect();
    parts.iter().sum()
}
