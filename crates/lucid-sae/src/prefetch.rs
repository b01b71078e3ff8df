//! Reads and normalises the next micro-batches on a thread of its own while the current step computes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use lucid_data::store::ActivationSource;

use crate::batch::HostPairs;
use crate::error::SaeError;
use crate::normalisation::Normalisation;
use crate::order::{DataOrder, Visit};

/// Host memory that may hold activations of steps to come.
const AHEAD_BYTES: usize = 64 << 20;

/// Activations of some pairs on the host, normalised.
#[derive(Debug, Default)]
pub struct HostBatch {
    /// The pairs.
    pub visits: Vec<Visit>,
    vision: Vec<f32>,
    vision_lengths: Vec<usize>,
    text: Vec<f32>,
    text_lengths: Vec<usize>,
}

impl HostBatch {
    /// The view the step takes.
    #[must_use]
    pub fn pairs(&self) -> HostPairs<'_, f32> {
        HostPairs {
            vision: &self.vision,
            vision_lengths: &self.vision_lengths,
            text: &self.text,
            text_lengths: &self.text_lengths,
            admissible: None,
        }
    }

    /// Reads `visits` with the captions `caption` names, replacing the contents.
    pub fn read(
        &mut self,
        source: &dyn ActivationSource,
        normalisation: &Normalisation,
        visits: &[Visit],
        caption: impl Fn(Visit) -> usize,
    ) -> Result<(), SaeError> {
        self.visits.clear();
        self.visits.extend_from_slice(visits);
        let captions: Vec<usize> = visits.iter().map(|visit| caption(*visit)).collect();
        self.vision_lengths.clear();
        self.vision_lengths.extend(visits.iter().map(|visit| source.vision_len(visit.pair)));
        self.text_lengths.clear();
        self.text_lengths.extend(visits.iter().zip(&captions).map(|(visit, c)| source.text_len(visit.pair, *c)));
        self.vision.resize(self.vision_lengths.iter().sum::<usize>() * source.d_vision(), 0.0);
        self.text.resize(self.text_lengths.iter().sum::<usize>() * source.d_text(), 0.0);
        let (mut vision, mut text) = (self.vision.as_mut_slice(), self.text.as_mut_slice());
        for (i, visit) in visits.iter().enumerate() {
            let (head, tail) = vision.split_at_mut(self.vision_lengths[i] * source.d_vision());
            source.read_vision(visit.pair, head)?;
            vision = tail;
            let (head, tail) = text.split_at_mut(self.text_lengths[i] * source.d_text());
            source.read_text(visit.pair, captions[i], head)?;
            text = tail;
        }
        normalisation.vision.apply(&mut self.vision);
        normalisation.text.apply(&mut self.text);
        Ok(())
    }
}

/// The reading end of the prefetching thread.
pub struct Prefetch<'scope> {
    batches: Receiver<Result<HostBatch, SaeError>>,
    used: Sender<HostBatch>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Prefetch<'scope> {
    /// Starts reading the micro-batches of the steps from `first` on, in order. The thread ends with the last of them or
    /// when this end is dropped.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
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
        let ahead = (AHEAD_BYTES / bytes).clamp(1, order.batch_pairs().div_ceil(micro_pairs));
        let (sender, batches) = sync_channel(ahead);
        let (used, returned) = channel();
        let thread =
            scope.spawn(move || read_all(source, &normalisation, &order, micro_pairs, first, &sender, &returned));
        Self { batches, used, thread: Some(thread) }
    }

    /// The next micro-batch. While it is not there, `stop` is asked every 50 ms and ends the wait with `None`.
    pub fn next(&self, stop: impl Fn() -> bool) -> Result<Option<HostBatch>, SaeError> {
        loop {
            match self.batches.recv_timeout(Duration::from_millis(50)) {
                Ok(batch) => return batch.map(Some),
                Err(RecvTimeoutError::Timeout) if stop() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(SaeError::internal("reading the activations panicked"));
                }
            }
        }
    }

    /// Gives a used micro-batch back, for its memory.
    pub fn recycle(&self, batch: HostBatch) {
        // After the last batch nobody takes it, and it is freed.
        let _ = self.used.send(batch);
    }
}

impl Drop for Prefetch<'_> {
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

fn read_all(
    source: &dyn ActivationSource,
    normalisation: &Normalisation,
    order: &DataOrder,
    micro_pairs: usize,
    first: usize,
    sender: &SyncSender<Result<HostBatch, SaeError>>,
    returned: &Receiver<HostBatch>,
) {
    for step in first..order.steps() {
        for visits in order.batch(step).chunks(micro_pairs) {
            let mut batch = returned.try_recv().unwrap_or_default();
            let caption = |visit: Visit| order.caption(visit, source.captions(visit.pair));
            let read = batch.read(source, normalisation, visits, caption).map(|()| batch);
            let failed = read.is_err();
            // Nobody listens any more: the run ended.
            if sender.send(read).is_err() || failed {
                return;
            }
        }
    }
}
