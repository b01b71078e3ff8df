//! Activations that lie on the device for a whole run: each is read and normalised once, and a micro-batch is gathered
//! where it is needed instead of being read, normalised and copied again in every epoch.

use lucid_data::store::ActivationSource;
use lucid_kernels::{Backend, KernelError, Pairs, Ragged, Staging};

use crate::batch::{MicroBatch, Sides};
use crate::config::Config;
use crate::error::SaeError;
use crate::events::TrainObserver;
use crate::host_batch::{Reader, prepare, split};
use crate::memory;
use crate::normalisation::{Normalisation, Scaling};
use crate::order::{DataOrder, Visit};

/// Values read and copied at a time.
const PART: usize = 16 << 20;

/// All activations of a source on the device.
pub struct Resident<B: Backend> {
    acts: Sides<B::Buffer<f32>>,
    vision: Ragged,
    /// Every caption of every pair.
    text: Ragged,
    /// The first caption of each pair.
    captions: Vec<usize>,
    d: Sides<usize>,
}

impl<B: Backend<Real = f32>> Resident<B> {
    /// Takes the activations of `source` to the device where they fit beside a step. Otherwise, or where a value is not finite
    /// (which the step that meets it must report) or the run is to stop, nothing.
    pub fn load(
        backend: &B,
        source: &dyn ActivationSource,
        reader: &Reader,
        normalisation: &Normalisation,
        config: &Config,
        observer: &dyn TrainObserver,
    ) -> Result<Option<Self>, SaeError> {
        let Some(free) = backend.free_bytes() else { return Ok(None) };
        let pairs = 0..source.pairs();
        let vision = Ragged::from_lengths(pairs.clone().map(|pair| source.vision_len(pair)));
        let lengths = |pair| (0..source.captions(pair)).map(move |caption| source.text_len(pair, caption));
        let text = Ragged::from_lengths(pairs.clone().flat_map(lengths));
        let mut captions = vec![0];
        captions.extend(pairs.clone().scan(0, |sum, pair| {
            *sum += source.captions(pair);
            Some(*sum)
        }));
        let d = Sides { vision: source.d_vision(), text: source.d_text() };
        let values = Sides { vision: vision.total() * d.vision, text: text.total() * d.text };
        let bytes = (values.vision + values.text).saturating_mul(size_of::<f32>());
        if bytes > (free - free / 10).saturating_sub(memory::step(config, source)) {
            return Ok(None);
        }
        let room =
            || Ok::<_, KernelError>(Sides { vision: backend.zeros(values.vision)?, text: backend.zeros(values.text)? });
        let acts = match room() {
            // Free and in one piece are not the same.
            Err(KernelError::Memory { .. }) => return Ok(None),
            acts => acts?,
        };
        let mut this = Self { acts, vision, text, captions, d };
        let owner: Vec<usize> = pairs.flat_map(|pair| std::iter::repeat_n(pair, source.captions(pair))).collect();
        let read_vision = |pair: usize, out: &mut [f32]| Ok(source.read_vision(pair, out)?);
        let first = &this.captions;
        let read_text = |at: usize, out: &mut [f32]| Ok(source.read_text(owner[at], at - first[owner[at]], out)?);
        let copy = Copy { backend, reader, observer };
        let fit = copy.all(&mut this.acts.vision, &this.vision, d.vision, &normalisation.vision, read_vision)?
            && copy.all(&mut this.acts.text, &this.text, d.text, &normalisation.text, read_text)?;
        Ok(fit.then_some(this))
    }

    /// Makes `micro` the pairs of `visits`.
    pub fn fill(
        &self,
        backend: &B,
        order: &DataOrder,
        visits: &[Visit],
        micro: &mut MicroBatch<B>,
    ) -> Result<(), KernelError> {
        let caption = |visit: &Visit| {
            let (first, end) = (self.captions[visit.pair], self.captions[visit.pair + 1]);
            first + order.caption(*visit, end - first)
        };
        let vision: Vec<usize> = visits.iter().map(|visit| visit.pair).collect();
        let text: Vec<usize> = visits.iter().map(caption).collect();
        let lengths = |segments: &Ragged, at: &[usize]| at.iter().map(|&at| segments.length(at)).collect::<Vec<_>>();
        let pairs = Pairs::new(&lengths(&self.vision, &vision), &lengths(&self.text, &text))?;
        let sides = [
            (&self.acts.vision, &self.vision, &vision, &pairs.vision, self.d.vision, &mut micro.acts.vision),
            (&self.acts.text, &self.text, &text, &pairs.text, self.d.text, &mut micro.acts.text),
        ];
        for (from, segments, chosen, into, d, out) in sides {
            let starts: Vec<usize> = chosen.iter().map(|&at| segments.range(at).start).collect();
            backend.reserve(out, into.total() * d)?;
            backend.gather_rows(from, &starts, into, d, out)?;
        }
        (micro.pairs, micro.admissible) = (pairs, None);
        Ok(())
    }
}

/// What fills the device's memory.
struct Copy<'a, B> {
    backend: &'a B,
    reader: &'a Reader<'a>,
    observer: &'a dyn TrainObserver,
}

impl<B: Backend<Real = f32>> Copy<'_, B> {
    /// Reads, normalises and copies every segment, one part being read while the one before is copied. False if a value is not
    /// finite or the run is to stop.
    fn all(
        &self,
        to: &mut B::Buffer<f32>,
        segments: &Ragged,
        d: usize,
        scaling: &Scaling,
        read: impl Fn(usize, &mut [f32]) -> Result<(), SaeError> + Send + Sync,
    ) -> Result<bool, SaeError> {
        let mut staging = [self.backend.staging(), self.backend.staging()];
        let mut first = 0;
        while first < segments.len() {
            if self.observer.cancelled() {
                return Ok(false);
            }
            let start = segments.range(first).start;
            let mut end = first + 1;
            while end < segments.len() && (segments.range(end).end - start) * d <= PART {
                end += 1;
            }
            let len = (segments.range(end - 1).end - start) * d;
            let parts = split(staging[0].fill(len)?, (first..end).map(|at| segments.length(at) * d));
            let finite = self.reader.each(parts, |i, out| {
                read(first + i, out)?;
                Ok::<_, SaeError>(prepare(out, scaling).is_none())
            });
            for finite in finite {
                if !finite? {
                    return Ok(false);
                }
            }
            self.backend.write_ahead(to, start * d, &mut staging[0], 0..len)?;
            staging.swap(0, 1);
            first = end;
        }
        self.backend.catch_up()?;
        Ok(true)
    }
}
