//! Several models trained beside each other on one stream of activations.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use lucid_data::store::{ActivationSource, SharedReads};

use crate::error::SaeError;
use crate::events::TrainObserver;
use crate::model::Model;
use crate::trainer::{TrainOptions, train};

/// Host memory that may hold states which some of the runs have still to read.
const SHARED_BYTES: usize = 512 << 20;

/// Trains every run of `options` on `source`, all at once, each with its observer: what one run has read, the others take
/// over instead of reading and decoding it again. Runs of one seed and one batch size walk the pairs in the same order and share
/// every read; others share what is still there.
///
/// Each result has the bits that [`train`] alone gives, and one run's failure is no other's. The runs divide the threads
/// between them; a run that sets `threads` keeps its own.
///
/// # Errors
/// `E_OPTION` where there are not as many observers as runs, or where two runs have the same folder.
pub fn train_together(
    source: &dyn ActivationSource,
    validation: Option<&dyn ActivationSource>,
    options: &[TrainOptions],
    observers: &[&dyn TrainObserver],
) -> Result<Vec<Result<Model, SaeError>>, SaeError> {
    if observers.len() != options.len() {
        return Err(SaeError::option("observers", observers.len(), format!("one for each of {} runs", options.len())));
    }
    let mut folders = BTreeSet::new();
    for out in options.iter().filter_map(|options| options.out.as_ref()) {
        if !folders.insert(out) {
            return Err(SaeError::option("out", out.display(), "another folder for each run"));
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = (cores / options.len().max(1)).max(1);
    let stream = SharedReads::new(source, options.len(), SHARED_BYTES);
    let stream: &dyn ActivationSource = &stream;
    Ok(std::thread::scope(|scope| {
        let runs: Vec<_> = options
            .iter()
            .zip(observers)
            .map(|(options, observer)| {
                let threads = if options.threads == 0 { threads } else { options.threads };
                let options = TrainOptions { threads, ..options.clone() };
                scope.spawn(move || train(stream, validation, &options, *observer))
            })
            .collect();
        let joined = runs.into_iter().map(|run| run.join());
        joined.map(|run| run.unwrap_or_else(|_| Err(SaeError::internal("a run panicked")))).collect()
    }))
}
