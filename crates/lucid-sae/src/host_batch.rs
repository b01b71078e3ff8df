//! Activations of some pairs on the host: read, normalised, and on their way to the device.

use std::ops::Range;

use lucid_data::store::ActivationSource;
use lucid_kernels::{Backend, KernelError, Modality, Pairs, Staging};
use rayon::prelude::*;

use crate::batch::{MicroBatch, Sides};
use crate::error::SaeError;
use crate::normalisation::{Normalisation, Scaling};
use crate::order::Visit;

/// Threads that read, at most: a store is read faster than this many normalise.
const READERS: usize = 8;

/// Values of one modality in the order of the pairs.
struct Values<S> {
    values: S,
    /// Tokens of each pair.
    lengths: Vec<usize>,
    /// Width of a token.
    d: usize,
}

impl<S: Staging<f32>> Values<S> {
    /// Room for tokens of these lengths, pair by pair.
    fn fill(&mut self, lengths: Vec<usize>, d: usize) -> Result<Vec<&mut [f32]>, KernelError> {
        (self.lengths, self.d) = (lengths, d);
        let values = self.values.fill(self.lengths.iter().sum::<usize>() * d)?;
        Ok(split(values, self.lengths.iter().map(|length| length * d)))
    }

    /// Where the values of pairs lie.
    fn range(&self, pairs: &Range<usize>) -> Range<usize> {
        let tokens = |lengths: &[usize]| lengths.iter().sum::<usize>();
        let start = tokens(&self.lengths[..pairs.start]);
        start * self.d..(start + tokens(&self.lengths[pairs.clone()])) * self.d
    }
}

/// `values` in parts of these lengths.
pub(crate) fn split(mut values: &mut [f32], lengths: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    lengths
        .map(|length| {
            let (part, rest) = std::mem::take(&mut values).split_at_mut(length);
            values = rest;
            part
        })
        .collect()
}

/// Activations of some pairs on the host, normalised.
pub(crate) struct HostBatch<B: Backend> {
    /// The pairs.
    pub visits: Vec<Visit>,
    sides: Sides<Values<B::Staging>>,
    /// The first value that is not finite.
    bad: Option<KernelError>,
}

impl<B: Backend<Real = f32>> HostBatch<B> {
    /// No pairs, in memory that copies to the device of `backend` may start from.
    pub fn new(backend: &B) -> Self {
        let values = || Values { values: backend.staging(), lengths: Vec::new(), d: 0 };
        Self { visits: Vec::new(), sides: Sides { vision: values(), text: values() }, bad: None }
    }

    /// The states of a modality, \[tokens · d\].
    pub fn values(&self, modality: Modality) -> &[f32] {
        self.sides.of(modality).values.values()
    }

    /// Tokens of each pair.
    pub fn lengths(&self, modality: Modality) -> &[usize] {
        &self.sides.of(modality).lengths
    }

    /// Begins to copy the pairs `range` into `micro`, which may be used after [`lucid_kernels::Device::catch_up`]. A value that is
    /// not finite, anywhere in the batch, is an error that names its pair.
    pub fn upload(&mut self, backend: &B, range: Range<usize>, micro: &mut MicroBatch<B>) -> Result<(), KernelError> {
        if let Some(bad) = &self.bad {
            return Err(bad.clone());
        }
        let pairs = Pairs::new(&self.sides.vision.lengths[range.clone()], &self.sides.text.lengths[range.clone()])?;
        for modality in Modality::ALL {
            let side = self.sides.of_mut(modality);
            let from = side.range(&range);
            let buffer = micro.acts.of_mut(modality);
            backend.reserve(buffer, from.len())?;
            backend.write_ahead(buffer, 0, &mut side.values, from)?;
        }
        (micro.pairs, micro.admissible) = (pairs, None);
        Ok(())
    }
}

/// Reads and normalises, on several threads where the host has nothing else to do.
pub(crate) struct Reader<'a> {
    source: &'a dyn ActivationSource,
    threads: Option<rayon::ThreadPool>,
}

impl<'a> Reader<'a> {
    /// Where the device works beside the host, most of the host's cores read; otherwise they compute, and one thread reads.
    pub fn new<B: Backend>(backend: &B, source: &'a dyn ActivationSource) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if backend.beside_the_host() { cores.saturating_sub(1).clamp(1, READERS) } else { 1 };
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("lucid-read-{i}"));
        // Without them the calling thread reads.
        Self { source, threads: if threads > 1 { pool().build().ok() } else { None } }
    }

    /// Does `work` for every item; the results in the items' order.
    pub fn each<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(usize, T) -> R + Send + Sync) -> Vec<R> {
        match &self.threads {
            Some(threads) => {
                threads.install(|| items.into_par_iter().enumerate().map(|(i, item)| work(i, item)).collect())
            }
            None => items.into_iter().enumerate().map(|(i, item)| work(i, item)).collect(),
        }
    }

    /// Reads `visits` with the captions `caption` names into `batch`, replacing its contents.
    pub fn read<B: Backend<Real = f32>>(
        &self,
        normalisation: &Normalisation,
        visits: &[Visit],
        caption: impl Fn(Visit) -> usize,
        batch: &mut HostBatch<B>,
    ) -> Result<(), SaeError> {
        let source = self.source;
        let captions: Vec<usize> = visits.iter().map(|visit| caption(*visit)).collect();
        let patches = visits.iter().map(|visit| source.vision_len(visit.pair)).collect();
        let tokens = visits.iter().zip(&captions).map(|(visit, c)| source.text_len(visit.pair, *c)).collect();
        let HostBatch { visits: held, sides, bad } = batch;
        (*held, *bad) = (visits.to_vec(), None);
        let vision = sides.vision.fill(patches, source.d_vision())?;
        let text = sides.text.fill(tokens, source.d_text())?;
        let read = self.each(vision.into_iter().zip(text).collect(), |i, (vision, text)| {
            let pair = visits[i].pair;
            source.read_vision(pair, vision)?;
            source.read_text(pair, captions[i], text)?;
            let vision = prepare(vision, &normalisation.vision).map(|at| ("vision activations", at));
            Ok::<_, SaeError>(vision.or(prepare(text, &normalisation.text).map(|at| ("text activations", at))))
        });
        for (pair, found) in read.into_iter().enumerate() {
            if let (Some((what, position)), None) = (found?, &*bad) {
                *bad = Some(KernelError::NonFinite { what, pair, position });
            }
        }
        Ok(())
    }
}

/// Normalises, and tells where the first value is that is not finite.
pub(crate) fn prepare(values: &mut [f32], scaling: &Scaling) -> Option<usize> {
    scaling.apply(values);
    values.iter().position(|value| !value.is_finite())
}
