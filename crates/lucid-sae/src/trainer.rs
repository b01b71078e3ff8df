//! The training loop: batches in, steps made, events, checkpoints and the model out.
//!
//! A run is a pure function of (configuration, store, initial parameters): nothing depends on the number of threads, on
//! what was read before, or on how often the run was interrupted and resumed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use lucid_data::store::ActivationSource;
use lucid_kernels::Backend;

use crate::config::{Config, Preset};
use crate::device::{Cpu, Device};
use crate::error::SaeError;
use crate::events::{TrainObserver, warn};
use crate::files::{Disk, FileSystem};
use crate::memory;
use crate::model::Model;
use crate::prefetch::Prefetch;
use crate::run::Run;
use crate::run_folder::RunFolder;
use crate::start::Start;

/// How a run is made, beside the configuration that decides its result.
#[derive(Clone)]
pub struct TrainOptions {
    /// The resolved configuration.
    pub config: Config,
    /// The preset it started from, for the record.
    pub preset: Option<Preset>,
    /// Parameters to start from: a model folder, or a safetensors file with the tensors of one.
    pub init: Option<PathBuf>,
    /// Run folder; `None` trains in memory and leaves nothing behind.
    pub out: Option<PathBuf>,
    /// Continue the run in `out`.
    pub resume: bool,
    /// Steps between checkpoints; 0 = at the end only.
    pub checkpoint_every: usize,
    /// Steps between evaluations; 0 = never.
    pub eval_every: usize,
    /// Where the steps are computed. The result has the same bits on the same device, and differs in rounding between
    /// devices; a run may be resumed on another one.
    pub device: Device,
    /// Threads; 0 = all cores. The result does not depend on it.
    pub threads: usize,
    /// Where files are written; tests put one that fails here.
    pub files: Arc<dyn FileSystem>,
}

impl TrainOptions {
    /// Options for training `config` in memory.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            preset: None,
            init: None,
            out: None,
            resume: false,
            checkpoint_every: 500,
            eval_every: 0,
            device: Device::Auto,
            threads: 0,
            files: Arc::new(Disk),
        }
    }
}

/// Trains a model on `source`. `validation` is what evaluations between steps use; without it they use the training
/// pairs, and say so.
///
/// Errors leave the newest good checkpoint in `out`; cancelling (see [`TrainObserver::cancelled`]) writes one first.
///
/// On a CUDA device the same steps run on its kernels. The [default device](Device::Auto) is a GPU where its kind was tried and
/// the configuration has CUDA kernels, and else the CPU.
pub fn train(
    source: &dyn ActivationSource,
    validation: Option<&dyn ActivationSource>,
    options: &TrainOptions,
    observer: &dyn TrainObserver,
) -> Result<Model, SaeError> {
    let choice = options.device.choose()?;
    if let Some(caution) = choice.caution {
        warn(observer, "W_DEVICE", caution);
    }
    let asked = options.device != Device::Auto;
    let host_only = options.config.host_only();
    if choice.cuda.is_some() && host_only && asked {
        let method = options.config.method;
        return Err(SaeError::option(
            "device",
            "cuda",
            format!("cpu for method {method:?}, activation and nested as given"),
        ));
    }
    // Reading, normalising and the start are the host's work on every device.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .thread_name(|i| format!("lucid-train-{i}"))
        .build()
        .map_err(|error| {
            SaeError::option("threads", options.threads, format!("a number of threads that can be started ({error})"))
        })?;
    #[cfg(feature = "cuda")]
    if let Some(ordinal) = choice.cuda.filter(|_| !host_only) {
        match lucid_kernels::cuda::open(Some(ordinal)) {
            Ok(backend) => return pool.install(|| train_on(&backend, source, validation, options, observer)),
            Err(error) if asked => return Err(error.into()),
            // Nobody insisted on it.
            Err(error) => warn(observer, "W_DEVICE", format!("the CPU is used: {error}")),
        }
    }
    let backend = Cpu::new((options.threads > 0).then_some(options.threads))?;
    pool.install(|| train_on(&backend, source, validation, options, observer))
}

/// [`train`] on a given backend, in the caller's thread pool.
pub fn train_on<B: Backend<Real = f32>>(
    backend: &B,
    source: &dyn ActivationSource,
    validation: Option<&dyn ActivationSource>,
    options: &TrainOptions,
    observer: &dyn TrainObserver,
) -> Result<Model, SaeError> {
    let trained = run_on(backend, source, validation, options, observer);
    trained.map_err(|error| memory::explained(error, &options.config, source))
}

fn run_on<B: Backend<Real = f32>>(
    backend: &B,
    source: &dyn ActivationSource,
    validation: Option<&dyn ActivationSource>,
    options: &TrainOptions,
    observer: &dyn TrainObserver,
) -> Result<Model, SaeError> {
    let started = Instant::now();
    let config = &options.config;
    config.validate()?;
    check_source(source, validation)?;
    let backend = &backend.with_precision(config.precision)?;
    let (folder, checkpoint) = match &options.out {
        Some(out) => {
            let files = Arc::clone(&options.files);
            let (folder, checkpoint) = RunFolder::open(files, out, options.resume, config, source, observer)?;
            (Some(folder), checkpoint)
        }
        None if options.resume => return Err(SaeError::option("resume", true, "out, the folder of the run to resume")),
        None => (None, None),
    };
    let start = match checkpoint {
        Some(checkpoint) => Start::from_checkpoint(checkpoint),
        None => Start::fresh(options, source, observer)?,
    };
    let mut run = Run::new(backend, source, options, observer, folder, start)?;
    let resident = run.settle()?;
    std::thread::scope(|scope| {
        let order = run.order.clone();
        let prefetch = (!resident).then(|| {
            let micro_pairs = config.micro_pairs_on(backend);
            Prefetch::start(scope, backend, source, Arc::clone(&run.normalisation), order, micro_pairs, run.done)
        });
        while run.done < run.order.steps() {
            run.step(prefetch.as_ref())?;
            let last = run.done == run.order.steps();
            if options.eval_every > 0 && (run.done.is_multiple_of(options.eval_every) || last) {
                run.evaluate(validation)?;
            }
            if last || (options.checkpoint_every > 0 && run.done.is_multiple_of(options.checkpoint_every)) {
                run.checkpoint()?;
            }
        }
        Ok::<_, SaeError>(())
    })?;
    run.finish(options, started)
}

fn check_source(source: &dyn ActivationSource, validation: Option<&dyn ActivationSource>) -> Result<(), SaeError> {
    if source.pairs() == 0 {
        return Err(SaeError::option("activations", "an empty store", "a store with at least one pair"));
    }
    let Some(validation) = validation else { return Ok(()) };
    if validation.pairs() == 0 {
        return Err(SaeError::option("validation", "an empty store", "a store with at least one pair, or none at all"));
    }
    let widths = |source: &dyn ActivationSource| format!("[{}, {}]", source.d_vision(), source.d_text());
    if widths(source) != widths(validation) {
        return Err(SaeError::Shape {
            what: "validation states".into(),
            found: widths(validation),
            expected: widths(source),
        });
    }
    Ok(())
}
