//! How pairs reach the device: gathered from activations that lie there, or read ahead and copied while the step before computes.

use std::collections::VecDeque;
use std::sync::Arc;

use lucid_data::store::ActivationSource;
use lucid_kernels::{Backend, KernelError};

use crate::batch::MicroBatch;
use crate::config::Config;
use crate::error::SaeError;
use crate::events::TrainObserver;
use crate::host_batch::{HostBatch, Reader};
use crate::normalisation::Normalisation;
use crate::order::{DataOrder, Visit};
use crate::prefetch::{Prefetch, Read};
use crate::resident::Resident;

/// What has been done for the next step while this one computes.
enum Next {
    /// Nothing.
    Nothing,
    /// Its copies were begun, into so many micro-batches.
    Begun(usize),
    /// Its copies were begun, and their memory was given up.
    Lost,
}

/// The micro-batches of a step, and those of the next.
pub(crate) struct Feed<'a, B: Backend> {
    backend: &'a B,
    source: &'a dyn ActivationSource,
    order: DataOrder,
    normalisation: Arc<Normalisation>,
    /// The activations, where they fit on the device.
    resident: Option<Resident<B>>,
    micros: Vec<MicroBatch<B>>,
    /// Room for the next step's, where copies run beside operations and memory suffices.
    spare: Vec<MicroBatch<B>>,
    next: Next,
    doubled: bool,
    /// What was read for the next step and not copied yet.
    waiting: VecDeque<Read<B>>,
    /// Pairs that are read at a time.
    read_pairs: usize,
    /// Pairs of a micro-batch: the configured number, halved whenever the device had no room.
    pub micro_pairs: usize,
}

impl<'a, B: Backend<Real = f32>> Feed<'a, B> {
    /// Nothing loaded.
    pub fn new(
        backend: &'a B,
        source: &'a dyn ActivationSource,
        order: DataOrder,
        normalisation: Arc<Normalisation>,
        config: &Config,
    ) -> Self {
        let read_pairs = config.micro_pairs_on(backend).min(order.batch_pairs());
        Self {
            backend,
            source,
            order,
            normalisation,
            resident: None,
            micros: Vec::new(),
            spare: Vec::new(),
            next: Next::Nothing,
            doubled: backend.beside_the_host(),
            waiting: VecDeque::new(),
            read_pairs,
            micro_pairs: read_pairs,
        }
    }

    /// Takes the activations to the device where they fit. True if steps then need no reading.
    pub fn settle(&mut self, config: &Config, observer: &dyn TrainObserver) -> Result<bool, SaeError> {
        let reader = Reader::new(self.backend, self.source);
        self.resident = Resident::load(self.backend, self.source, &reader, &self.normalisation, config, observer)?;
        Ok(self.resident.is_some())
    }

    /// The first `count` micro-batches.
    pub fn micros(&self, count: usize) -> &[MicroBatch<B>] {
        &self.micros[..count]
    }

    /// Fills the micro-batches of a step and tells their number; nothing if the run is to stop. Where memory does not suffice,
    /// what was read ahead for this step is used up all the same. A value that is not finite is named by its place in `visits`.
    pub fn load(
        &mut self,
        prefetch: Option<&Prefetch<B>>,
        visits: &[Visit],
        stop: impl Fn() -> bool,
    ) -> Result<Option<usize>, SaeError> {
        if stop() {
            return Ok(None);
        }
        let Some(prefetch) = prefetch else { return self.gather(visits).map(Some) };
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => {}
            Next::Begun(count) => {
                std::mem::swap(&mut self.micros, &mut self.spare);
                self.backend.catch_up()?;
                return Ok(Some(count));
            }
            Next::Lost => return self.read(visits).map(Some),
        }
        let (mut count, mut first, mut full) = (0, 0, None);
        for part in visits.chunks(self.read_pairs) {
            let host = match self.waiting.pop_front() {
                Some(read) => Some(read?),
                None => prefetch.next(&stop)?,
            };
            let Some(mut host) = host else { return Ok(None) };
            if full.is_none() {
                match fill(self.backend, &mut host, self.micro_pairs, &mut self.micros, count) {
                    Ok(filled) => count = filled,
                    Err(error @ KernelError::Memory { .. }) => full = Some(error),
                    Err(error) => return Err(place(error, first).into()),
                }
            }
            first += part.len();
            prefetch.recycle(host);
        }
        if let Some(error) = full {
            return Err(error.into());
        }
        self.backend.catch_up()?;
        Ok(Some(count))
    }

    /// Begins to copy the next step's pairs, `count` of them, beside what the device is given from now on, if they have been read and
    /// there is room for both steps' activations. What is wrong with them is told when they are loaded.
    pub fn ahead(&mut self, prefetch: Option<&Prefetch<B>>, count: usize) -> Result<(), SaeError> {
        let Some(prefetch) = prefetch.filter(|_| self.doubled && count > 0) else { return Ok(()) };
        while self.waiting.len() < count.div_ceil(self.read_pairs) {
            let Some(read) = prefetch.ready() else { return Ok(()) };
            self.waiting.push_back(read);
        }
        let mut filled = 0;
        for read in &mut self.waiting {
            let Ok(host) = read else { return Ok(()) };
            match fill(self.backend, host, self.micro_pairs, &mut self.spare, filled) {
                Ok(more) => filled = more,
                Err(KernelError::Memory { .. }) => {
                    (self.doubled, self.spare) = (false, Vec::new());
                    return Ok(());
                }
                Err(KernelError::NonFinite { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        for host in self.waiting.drain(..).flatten() {
            prefetch.recycle(host);
        }
        self.next = Next::Begun(filled);
        Ok(())
    }

    /// After the device had no room: gives the micro-batches back, halves them and fills them anew from `visits`. That changes
    /// the order of summation and nothing else (spec 5.1).
    pub fn load_less(&mut self, visits: &[Visit]) -> Result<usize, SaeError> {
        self.micro_pairs = self.micro_pairs.div_ceil(2);
        if let Next::Begun(_) = self.next {
            self.next = Next::Lost;
        }
        (self.doubled, self.micros, self.spare) = (false, Vec::new(), Vec::new());
        if self.resident.is_some() { self.gather(visits) } else { self.read(visits) }
    }

    /// Fills the micro-batches from the activations on the device.
    fn gather(&mut self, visits: &[Visit]) -> Result<usize, SaeError> {
        let Some(resident) = &self.resident else { return Err(SaeError::internal("no activations on the device")) };
        let parts = visits.chunks(self.micro_pairs);
        let count = parts.len();
        for (index, part) in parts.enumerate() {
            if index == self.micros.len() {
                self.micros.push(MicroBatch::empty(self.backend)?);
            }
            resident.fill(self.backend, &self.order, part, &mut self.micros[index])?;
        }
        Ok(count)
    }

    /// Reads `visits` here and now.
    fn read(&mut self, visits: &[Visit]) -> Result<usize, SaeError> {
        let mut host = HostBatch::new(self.backend);
        let caption = |visit: Visit| self.order.caption(visit, self.source.captions(visit.pair));
        Reader::new(self.backend, self.source).read(&self.normalisation, visits, caption, &mut host)?;
        let count = fill(self.backend, &mut host, self.micro_pairs, &mut self.micros, 0)?;
        self.backend.catch_up()?;
        Ok(count)
    }
}

/// Begins to copy `host` into the micro-batches from `count` on; the number of micro-batches filled then.
fn fill<B: Backend<Real = f32>>(
    backend: &B,
    host: &mut HostBatch<B>,
    micro_pairs: usize,
    micros: &mut Vec<MicroBatch<B>>,
    mut count: usize,
) -> Result<usize, KernelError> {
    let pairs = host.visits.len();
    for first in (0..pairs).step_by(micro_pairs) {
        if count == micros.len() {
            micros.push(MicroBatch::empty(backend)?);
        }
        host.upload(backend, first..(first + micro_pairs).min(pairs), &mut micros[count])?;
        count += 1;
    }
    Ok(count)
}

/// The error with its pair counted from the start of the step, of which `first` pairs come before.
fn place(error: KernelError, first: usize) -> KernelError {
    match error {
        KernelError::NonFinite { what, pair, position } => {
            KernelError::NonFinite { what, pair: first + pair, position }
        }
        other => other,
    }
}
