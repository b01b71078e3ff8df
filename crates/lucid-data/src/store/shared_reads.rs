//! One reading of a source for several readers that walk it in the same order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::check_out;
use super::{ActivationSource, Statistics};
use crate::error::Result;

/// The states of a pair's patches (`None`) or of one of its captions.
type Key = (usize, Option<usize>);

/// States that some readers have still to come for.
struct Kept {
    states: Arc<[f32]>,
    left: usize,
}

#[derive(Default)]
struct State {
    kept: HashMap<Key, Kept>,
    /// In the order of reading, with entries that are gone already.
    order: VecDeque<Key>,
    bytes: usize,
    reads: u64,
    shared: u64,
}

/// A source whose states are read and decoded once for `readers` readers: what the first has read is kept until the others
/// have had it, or until it is the oldest of more than `limit` bytes. Which reader comes first, or how far they are apart,
/// changes what is read again and never what is read.
pub struct SharedReads<'a> {
    source: &'a dyn ActivationSource,
    readers: usize,
    limit: usize,
    state: Mutex<State>,
}

impl<'a> SharedReads<'a> {
    /// `source` for `readers` readers, keeping at most `limit` bytes of states.
    #[must_use]
    pub fn new(source: &'a dyn ActivationSource, readers: usize, limit: usize) -> Self {
        Self { source, readers, limit, state: Mutex::default() }
    }

    /// How often states were read from the source, and how often they were there already.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.reads, state.shared)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// States that another reader left for this one.
    fn take(&self, key: Key) -> Option<Arc<[f32]>> {
        let mut state = self.lock();
        let kept = state.kept.get_mut(&key)?;
        kept.left -= 1;
        let (states, last) = (Arc::clone(&kept.states), kept.left == 0);
        if last {
            state.forget(key);
        }
        state.shared += 1;
        Some(states)
    }

    /// Leaves states for the other readers.
    fn leave(&self, key: Key, states: &[f32]) {
        let mut state = self.lock();
        state.reads += 1;
        // Two readers that missed at once have both read: what the other left stays.
        if self.readers < 2 || size_of_val(states) > self.limit || state.kept.contains_key(&key) {
            return;
        }
        state.bytes += size_of_val(states);
        state.kept.insert(key, Kept { states: states.into(), left: self.readers - 1 });
        state.order.push_back(key);
        while state.bytes > self.limit {
            let Some(oldest) = state.order.pop_front() else { break };
            state.forget(oldest);
        }
        // Entries that were taken by all remain in `order`; without this it would grow with every epoch.
        if state.order.len() > 2 * state.kept.len() + 1024 {
            let State { kept, order, .. } = &mut *state;
            order.retain(|key| kept.contains_key(key));
        }
    }

    fn read(&self, key: Key, out: &mut [f32], what: &str, read: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        match self.take(key) {
            Some(states) => {
                check_out(what, key.0, out.len(), states.len())?;
                out.copy_from_slice(&states);
            }
            None => {
                read(out)?;
                self.leave(key, out);
            }
        }
        Ok(())
    }
}

impl State {
    fn forget(&mut self, key: Key) {
        if let Some(kept) = self.kept.remove(&key) {
            self.bytes -= size_of_val(&*kept.states);
        }
    }
}

impl ActivationSource for SharedReads<'_> {
    fn pairs(&self) -> usize {
        self.source.pairs()
    }
    fn d_vision(&self) -> usize {
        self.source.d_vision()
    }
    fn d_text(&self) -> usize {
        self.source.d_text()
    }
    fn vision_len(&self, pair: usize) -> usize {
        self.source.vision_len(pair)
    }
    fn captions(&self, pair: usize) -> usize {
        self.source.captions(pair)
    }
    fn text_len(&self, pair: usize, caption: usize) -> usize {
        self.source.text_len(pair, caption)
    }
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> Result<()> {
        self.read((pair, None), out, "vision", |out| self.source.read_vision(pair, out))
    }
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> Result<()> {
        self.read((pair, Some(caption)), out, "text", |out| self.source.read_text(pair, caption, out))
    }
    fn statistics(&self) -> Statistics {
        self.source.statistics()
    }
    fn fingerprint(&self) -> String {
        self.source.fingerprint()
    }
    fn origin(&self) -> Option<serde_json::Value> {
        self.source.origin()
    }
    fn key(&self, pair: usize) -> &str {
        self.source.key(pair)
    }
}
