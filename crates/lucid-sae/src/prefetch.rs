//! Reads and normalises the next micro-batches on a thread of its own while the current step computes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use lucid_data::store::ActivationSource;
use lucid_kernels::Backend;

use crate::error::SaeError;
use crate::host_batch::{HostBatch, Reader};
use crate::normalisation::Normalisation;
use crate::order::{DataOrder, Visit};

/// Host memory that may hold activations of steps to come.
const AHEAD_BYTES: usize = 64 << 20;

/// A micro-batch, or why it could not be read.
pub(crate) type Read<B> = Result<HostBatch<B>, SaeError>;

/// The reading end of the prefetching thread.
pub(crate) struct Prefetch<'scope, B: Backend> {
    batches: Receiver<Read<B>>,
    used: Sender<HostBatch<B>>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope, B: Backend<Real = f32>> Prefetch<'scope, B> {
    /// Starts reading the micro-batches of the steps from `first` on, in order. The thread ends with the last of them or
    /// when this end is dropped.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        backend: &'env B,
        source: &'env dyn ActivationSource,
        normalisation: Arc<Normalisation>,
        order: DataOrder,
        micro_pairs: usize,
        first: usize,
    ) -> Self {
        let micro_pairs = micro_pairs.min(order.batch_pairs());
        let tokens = source.vision_len(0) * source.d_vision() + source.text_len(0, 0) * source.d_text();
        // A guess from the first pair: it only decides how far reading runs ahead.
        let bytes = (tokens * micro_pairs * size_of::<f32>()).max(1);
        let step = order.batch_pairs().div_ceil(micro_pairs);
        // Where copies run beside the step, the next step's must have been read when this step begins: while one is being taken,
        // the other is there.
        let ahead = if backend.beside_the_host() { 2 * step } else { (AHEAD_BYTES / bytes).clamp(1, step) };
        let (sender, batches) = sync_channel(ahead);
        let (used, returned) = channel();
        let task = Task { backend, source, normalisation, order, micro_pairs, first };
        let thread = scope.spawn(move || task.run(&sender, &returned));
        Self { batches, used, thread: Some(thread) }
    }

    /// The next micro-batch. While it is not there, `stop` is asked every 50 ms and ends the wait with `None`.
    pub fn next(&self, stop: impl Fn() -> bool) -> Result<Option<HostBatch<B>>, SaeError> {
        loop {
            match self.batches.recv_timeout(Duration::from_millis(50)) {
                Ok(batch) => return batch.map(Some),
                Err(RecvTimeoutError::Timeout) if stop() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(panicked()),
            }
        }
    }

    /// The next micro-batch if it has been read already.
    pub fn ready(&self) -> Option<Read<B>> {
        match self.batches.try_recv() {
            Ok(batch) => Some(batch),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(panicked())),
        }
    }

    /// Gives a used micro-batch back, for its memory.
    pub fn recycle(&self, batch: HostBatch<B>) {
        // After the last batch nobody takes it, and it is freed.
        let _ = self.used.send(batch);
    }
}

fn panicked() -> SaeError {
    SaeError::internal("reading the activations panicked")
}

impl<B: Backend> Drop for Prefetch<'_, B> {
    fn drop(&mut self) {
        // Closes the channel, so that a thread waiting for room ends.
        let (_, closed) = sync_channel(0);
        self.batches = closed;
        if let Some(thread) = self.thread.take() {
            // A panic while reading was reported by `next` as an error; joined here, it does not end the run's thread too.
            let _ = thread.join();
        }
    }
}

/// What the thread does.
struct Task<'env, B> {
    backend: &'env B,
    source: &'env dyn ActivationSource,
    normalisation: Arc<Normalisation>,
    order: DataOrder,
    micro_pairs: usize,
    first: usize,
}

impl<B: Backend<Real = f32>> Task<'_, B> {
    fn run(&self, sender: &SyncSender<Read<B>>, returned: &Receiver<HostBatch<B>>) {
        let reader = Reader::new(self.backend, self.source);
        let caption = |visit: Visit| self.order.caption(visit, self.source.captions(visit.pair));
        for step in self.first..self.order.steps() {
            for visits in self.order.batch(step).chunks(self.micro_pairs) {
                let mut batch = returned.try_recv().unwrap_or_else(|_| HostBatch::new(self.backend));
                let read = reader.read(&self.normalisation, visits, caption, &mut batch).map(|()| batch);
                let failed = read.is_err();
                // Nobody listens any more: the run ended.
                if sender.send(read).is_err() || failed {
                    return;
                }
            }
        }
    }
}
