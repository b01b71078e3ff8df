//! A run between two steps, and how it makes the next one.

use std::sync::Arc;
use std::time::Instant;

use lucid_data::store::{ActivationSource, PerModality};
use lucid_kernels::{Backend, DeadCounters, DeadLists, KernelError, Modality};

use crate::batch::Sides;
use crate::blame::Suspects;
use crate::checkpoint::RunState;
use crate::config::{Activation, Config, Method};
use crate::error::SaeError;
use crate::events::{Blocks, TrainEvent, TrainObserver, warn};
use crate::feed::Feed;
use crate::losses::StepReport;
use crate::model::{Model, Provenance};
use crate::normalisation::{Normalisation, Variances};
use crate::optimiser::Optimiser;
use crate::order::{DataOrder, Visit};
use crate::params::{HostParams, Params};
use crate::prefetch::Prefetch;
use crate::run_folder::RunFolder;
use crate::start::Start;
use crate::step::{Step, StepInputs};
use crate::threshold;
use crate::trainer::TrainOptions;
use crate::validation;

/// A run between two steps.
pub(crate) struct Run<'a, B: Backend> {
    backend: &'a B,
    config: &'a Config,
    source: &'a dyn ActivationSource,
    observer: &'a dyn TrainObserver,
    folder: Option<RunFolder>,
    preset: Option<String>,
    fingerprint: String,
    /// Which pairs each step takes.
    pub order: DataOrder,
    /// Centring and scaling.
    pub normalisation: Arc<Normalisation>,
    variances: Variances,
    params: Params<B>,
    optimiser: Optimiser<B>,
    step: Step<B>,
    feed: Feed<'a, B>,
    dead: Sides<DeadCounters>,
    /// Steps finished.
    pub done: usize,
}

impl<'a, B: Backend<Real = f32>> Run<'a, B> {
    /// Puts a run together on the device.
    pub fn new(
        backend: &'a B,
        source: &'a dyn ActivationSource,
        options: &'a TrainOptions,
        observer: &'a dyn TrainObserver,
        folder: Option<RunFolder>,
        start: Start,
    ) -> Result<Self, SaeError> {
        let config = &options.config;
        let params = Params::upload(backend, &start.params)?;
        let mut optimiser = Optimiser::new(backend, &params)?;
        let (dead, done) = match start.resumed {
            Some(resumed) => {
                optimiser.first = Params::upload(backend, &resumed.first)?;
                optimiser.second = Params::upload(backend, &resumed.second)?;
                optimiser.count = resumed.updates;
                (resumed.dead, resumed.done)
            }
            None => {
                let alive = || DeadCounters::new(config.latents());
                (Sides { vision: alive(), text: alive() }, 0)
            }
        };
        let order = DataOrder::new(config, source.pairs());
        if order.batch_pairs() < config.batch_pairs {
            let (pairs, asked) = (order.batch_pairs(), config.batch_pairs);
            warn(
                observer,
                "W_BATCH",
                format!("batchPairs is {asked} but the store has {pairs} pairs: every step takes all of them"),
            );
        }
        let normalisation = Arc::new(start.normalisation);
        Ok(Self {
            backend,
            config,
            source,
            observer,
            folder,
            preset: options.preset.map(|preset| preset.name().to_owned()),
            fingerprint: source.fingerprint(),
            feed: Feed::new(backend, source, order.clone(), Arc::clone(&normalisation), config),
            normalisation,
            variances: start.variances,
            step: Step::new(backend, &params, config)?,
            params,
            optimiser,
            order,
            dead,
            done,
        })
    }

    /// Takes the activations to the device where they fit. True if steps then need no reading.
    pub fn settle(&mut self) -> Result<bool, SaeError> {
        self.feed.settle(self.config, self.observer)
    }

    fn emit(&mut self, event: &TrainEvent) -> Result<(), SaeError> {
        self.observer.event(event);
        self.folder.as_mut().map_or(Ok(()), |folder| folder.log(event))
    }

    /// One step. Cancelling is seen before it and while its batch is read; a step that has begun is finished.
    pub fn step(&mut self, prefetch: Option<&Prefetch<B>>) -> Result<(), SaeError> {
        let started = Instant::now();
        let visits = self.order.batch(self.done);
        let loaded = self.load(prefetch, &visits)?;
        let Some(mut count) = loaded else {
            self.checkpoint()?;
            return Err(SaeError::Cancelled { step: self.done });
        };
        self.feed.ahead(prefetch, self.order.batch(self.done + 1).len())?;
        let seconds_data = started.elapsed().as_secs_f64();
        let report = loop {
            match self.losses(count) {
                Err(KernelError::Memory { .. }) if self.feed.micro_pairs > 1 => count = self.load_less(&visits)?,
                report => break report?,
            }
        };
        if !report.losses.total.is_finite() {
            return Err(self.blame("loss", &visits));
        }
        let norm = self.optimiser.prepare(self.backend, self.config, &self.params, &mut self.step.gradients)?;
        if !norm.is_finite() {
            return Err(self.blame("gradient", &visits));
        }
        let (steps, gradients) = (self.order.steps(), &self.step.gradients);
        let lr =
            self.optimiser.apply(self.backend, self.config, self.done, steps, norm, &mut self.params, gradients)?;
        for m in Modality::ALL {
            let tokens = *report.sums.tokens.of(m) as u64;
            self.dead.of_mut(m).advance(report.fired.of(m), tokens);
        }
        self.done += 1;
        let seconds_step = started.elapsed().as_secs_f64();
        let event = self.describe(&report, lr, norm, seconds_data, seconds_step);
        self.emit(&event)
    }

    /// Losses and gradients of the first `count` micro-batches.
    fn losses(&mut self, count: usize) -> Result<StepReport<f32>, KernelError> {
        let (variance, pooled_variance) = self.variances.sides();
        let lists = |counters: &DeadCounters| counters.lists(self.config.d_shared, self.config.dead_after_tokens);
        let dead = Sides { vision: lists(&self.dead.vision), text: lists(&self.dead.text) };
        let inputs = StepInputs {
            config: self.config,
            variance,
            pooled_variance: Some(pooled_variance),
            dead: &dead,
            keep_plan: false,
            encoder: self.config.method.encoder(self.config.seed, self.done),
        };
        self.step.run(self.backend, &self.params, self.feed.micros(count), &inputs)
    }

    /// Loads a step's pairs, in smaller micro-batches where the device has no room; nothing if the run is to stop.
    fn load(&mut self, prefetch: Option<&Prefetch<B>>, visits: &[Visit]) -> Result<Option<usize>, SaeError> {
        let loaded = match self.feed.load(prefetch, visits, || self.observer.cancelled()) {
            Err(SaeError::Kernel(KernelError::Memory { .. })) => self.load_less(visits).map(Some),
            loaded => loaded,
        };
        let Err(SaeError::Kernel(KernelError::NonFinite { pair, .. })) = loaded else { return loaded };
        // The weights are good: what was learnt so far is kept before the run ends.
        self.checkpoint()?;
        Err(self.non_finite("activations", self.source.key(visits[pair].pair).to_owned()))
    }

    /// After the device had no room: gives the step's memory back and loads its pairs again in smaller micro-batches. With single
    /// pairs the error stands.
    fn load_less(&mut self, visits: &[Visit]) -> Result<usize, SaeError> {
        loop {
            let before = self.feed.micro_pairs;
            let after = before.div_ceil(2);
            let note = format!("no room for micro-batches of {before} pairs: going on with {after}");
            warn(self.observer, "W_MEMORY", note);
            self.step.release(self.backend)?;
            match self.feed.load_less(visits) {
                Err(SaeError::Kernel(KernelError::Memory { .. })) if after > 1 => {}
                filled => return filled,
            }
        }
    }

    fn non_finite(&self, what: &str, pair: String) -> SaeError {
        let checkpoint = self.folder.as_ref().and_then(|folder| folder.newest.as_ref()).map(|(_, path)| path.clone());
        SaeError::NonFinite { what: what.into(), step: self.done, pair, checkpoint }
    }

    /// The error of a step whose loss or gradient is not finite; the weights are those from before the step.
    fn blame(&mut self, what: &str, visits: &[Visit]) -> SaeError {
        let suspects = Suspects {
            backend: self.backend,
            config: self.config,
            source: self.source,
            order: &self.order,
            normalisation: &self.normalisation,
            variances: &self.variances,
            params: &self.params,
        };
        match suspects.find(visits, &mut self.step, &mut self.optimiser) {
            Ok(pair) => self.non_finite(what, pair),
            Err(error) => error,
        }
    }

    fn describe(&self, report: &StepReport<f32>, lr: f64, norm: f64, data: f64, step: f64) -> TrainEvent {
        let d_shared = self.config.d_shared;
        let l0 = |m: Modality| {
            let (shared, private) = report.fired.of(m).split_at(d_shared);
            let mean = |fired: &[u32]| {
                let sum: u64 = fired.iter().map(|count| u64::from(*count)).sum();
                sum as f64 / (*report.sums.tokens.of(m)).max(1) as f64
            };
            Blocks { shared: mean(shared), private: mean(private) }
        };
        let dead = |m: Modality| {
            let DeadLists { shared, private } = self.dead.of(m).lists(d_shared, self.config.dead_after_tokens);
            Blocks { shared: shared.len(), private: private.len() }
        };
        let variance = match self.config.method.pooled() {
            false => self.variances.variance,
            true => self.variances.pooled_variance,
        };
        let tokens = report.sums.tokens;
        TrainEvent::Step {
            step: self.done,
            steps: self.order.steps(),
            epoch: self.order.epoch_after(self.done),
            loss: report.losses.total,
            losses: report.losses,
            r2: PerModality {
                vision: report.r2(Modality::Vision, variance.vision),
                text: report.r2(Modality::Text, variance.text),
            },
            lr,
            grad_norm: norm,
            l0: PerModality { vision: l0(Modality::Vision), text: l0(Modality::Text) },
            dead: PerModality { vision: dead(Modality::Vision), text: dead(Modality::Text) },
            tokens_per_second: (tokens.vision + tokens.text) as f64 / step.max(1e-9),
            seconds_data: data,
            seconds_step: step,
        }
    }

    /// Evaluates on the validation pairs, or on training pairs without them.
    pub fn evaluate(&mut self, validation: Option<&dyn ActivationSource>) -> Result<(), SaeError> {
        let source = validation.unwrap_or(self.source);
        let result = validation::evaluate(
            self.backend,
            self.config,
            &self.params,
            source,
            &self.normalisation,
            &self.variances,
            &mut self.step,
        )?;
        self.emit(&validation::event(self.done, validation.is_some(), result))
    }

    /// Publishes a checkpoint of the steps finished, unless there is one already.
    pub fn checkpoint(&mut self) -> Result<(), SaeError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        if folder.newest.as_ref().is_some_and(|(step, _)| *step == self.done) {
            return Ok(());
        }
        let state = RunState {
            step: self.done,
            steps: self.order.steps(),
            metrics_bytes: 0,
            preset: self.preset.clone(),
            config: self.config.clone(),
            store: self.fingerprint.clone(),
            d_vision: self.source.d_vision(),
            d_text: self.source.d_text(),
            variances: self.variances,
        };
        let path =
            folder.checkpoint(state, self.backend, &self.params, &self.optimiser, &self.dead, &self.normalisation)?;
        // Not logged: the log's length is part of the checkpoint, and a resumed run must write the same log.
        self.observer.event(&TrainEvent::Checkpoint { step: self.done, path });
        Ok(())
    }

    /// The model, published in the run folder where there is one.
    pub fn finish(self, options: &TrainOptions, started: Instant) -> Result<Model, SaeError> {
        let Self { backend, params, mut folder, normalisation, observer, done, optimiser, step, feed, .. } = self;
        // Moments, gradients and activations are of no more use, and the model needs room.
        drop((optimiser, step, feed));
        let host = params.read(backend)?;
        drop(params);
        let provenance = Provenance {
            preset: self.preset,
            store: self.fingerprint,
            pairs: self.source.pairs(),
            origin: self.source.origin(),
            steps: done,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let normalisation = Arc::unwrap_or_clone(normalisation);
        let host = match options.config.method {
            Method::PooledConcat => fold(host),
            _ => host,
        };
        let mut model = Model::new(options.config.clone(), host, normalisation, self.variances, provenance)?;
        if options.config.activation == Activation::BatchTopk {
            let thresholds = threshold::calibrate(&model, self.source)?;
            model = model.with_thresholds(Some(thresholds))?;
        }
        let path = match &mut folder {
            Some(folder) => {
                folder.finish(&model)?;
                Some(folder.path.clone())
            }
            None => None,
        };
        let seconds = started.elapsed().as_secs_f64();
        observer.event(&TrainEvent::Done { step: done, seconds, path });
        Ok(model)
    }
}

/// The autoencoder of concatenated states as one of either modality, the other half standing at the mean of the training pairs
/// (0 with centring): what that half adds to every pre-activation goes into the bias.
fn fold(params: HostParams<f32>) -> HostParams<f32> {
    let rest = |m: Modality| {
        let side = params.of(m);
        let mut bias = side.b_enc.clone();
        for (row, b) in side.w_enc.chunks_exact(side.latents).zip(&side.b_dec) {
            bias.iter_mut().zip(row).for_each(|(bias, w)| *bias -= w * b);
        }
        bias
    };
    let (from_vision, from_text) = (rest(Modality::Vision), rest(Modality::Text));
    let mut folded = params;
    folded.vision.b_enc.iter_mut().zip(from_text).for_each(|(bias, add)| *bias += add);
    folded.text.b_enc.iter_mut().zip(from_vision).for_each(|(bias, add)| *bias += add);
    folded
}
