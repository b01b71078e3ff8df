//! A data set through a backbone into an activation store.
//!
//! Three stages run side by side: pictures are decoded and captions tokenised on threads of their own, one batch ahead of the forward
//! pass, and what it gives is encoded and written behind it. Memory holds a few batches whatever the size of the data set. Pairs
//! are written in the data set's order, so the store does not depend on the threads, nor on how often the run was interrupted.

mod options;
mod prepare;
mod stores;
mod verify;

pub use options::{CaptionPolicy, ExtractOptions, Extraction, PartOf, Stages};
pub use verify::{DeepReport, Mismatch, check_backbone, compare_with_source};

use crate::backbone::{Backbone, Encoded};
use crate::error::VlmError;
use crate::workers;
use lucid_data::progress::Observer;
use lucid_data::{DataError, Dataset, OnBad};
use prepare::{Outcome, Prepared, prepare, skipped};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;
use stores::{Layers, Stores};

/// Records decoded and encoded together.
const BATCH: usize = 16;

fn cancelled() -> VlmError {
    DataError::Cancelled { stage: "extracting" }.into()
}

/// A record with the states of its pair, or what is left out instead.
struct Item {
    /// Position after the record.
    next: usize,
    outcome: Outcome,
    /// States of the picture and of each caption; absent where there is no pair.
    states: Option<(Encoded, Vec<Encoded>)>,
}

/// Positions of the data set that are extracted, and how many records that is where it is known.
fn extent(dataset: &dyn Dataset, options: &ExtractOptions) -> Result<(usize, usize, Option<usize>), VlmError> {
    let most = options.max_pairs.unwrap_or(usize::MAX);
    let count = dataset.count().map(|n| n.min(most));
    let Some(part) = options.shard else {
        return Ok((0, most, count));
    };
    let bad =
        |found: String, expected: &str| VlmError::Argument { option: "shard".into(), found, expected: expected.into() };
    if part.of == 0 || part.index >= part.of {
        return Err(bad(format!("{}/{}", part.index, part.of), "i/n with i from 0 to n − 1"));
    }
    let Some(count) = count else {
        return Err(bad(
            format!("{}/{}", part.index, part.of),
            "a data set whose size is known; give each process its own tar files instead",
        ));
    };
    let range = part.range(count);
    Ok((range.start, range.end, Some(range.len())))
}

/// Runs every record of `dataset` through `backbone` and publishes the store at `options.out`, or one store for each combination of
/// hooks below it. Stage `extract` of the observer counts records; `W_SKIPPED`, `W_TRUNCATED` and `W_UNFINISHED` are its warnings.
///
/// # Errors
/// Under [`OnBad::Stop`] the first unusable record (`E_IMAGE`, `E_EMPTY_TEXT`, `E_NO_CAPTION`); `E_HOOK`; `E_OPTION`; what the store
/// raises (`E_IO`, `E_EXISTS`, `E_UNFINISHED`, `E_OVERFLOW`, `E_NON_FINITE`, `E_EMPTY` when nothing is left); `E_CANCELLED`. Nothing is
/// published then; complete shards are kept for [`ExtractOptions::resume`].
pub fn extract(
    backbone: &Backbone,
    dataset: &dyn Dataset,
    options: &ExtractOptions,
    observer: &dyn Observer,
) -> Result<Extraction, VlmError> {
    let started = Instant::now();
    let layers = Layers::new(backbone, &options.layers)?;
    let (first, end, total) = extent(dataset, options)?;
    let (mut stores, complete) = Stores::open(backbone, dataset, &layers, (first, total), options)?;
    let mut left_out = dataset.skipped().to_vec();
    let (mut stages, mut written) = (Stages::default(), 0);
    let result = if complete {
        Ok(())
    } else {
        let done = stores.next - first;
        let progress = |n: usize| observer.progress("extract", n as u64, total.unwrap_or(n) as u64);
        progress(done);
        let resumed = stores.resumed;
        let from = stores.next;
        let ended = AtomicBool::new(false);
        let stop = || ended.load(Ordering::Relaxed) || observer.cancelled();
        std::thread::scope(|scope| {
            let (to_forward, prepared) = sync_channel(1);
            let (to_disk, encoded) = sync_channel(1);
            let preparing = scope.spawn(|| prepare_all(backbone, dataset, options, from..end, &stop, to_forward));
            let writing = scope.spawn(|| {
                let result =
                    write_all(&mut stores, dataset, options, encoded, observer, &|next| progress(next - first));
                // The other threads see this before their next picture, so an error does not wait for the rest of a batch.
                ended.store(true, Ordering::Relaxed);
                result
            });
            let forward = forward_all(backbone, &layers, prepared, &stop, to_disk);
            if forward.is_err() {
                ended.store(true, Ordering::Relaxed);
            }
            // A panic in a thread is one here.
            stages.preparing = preparing.join().unwrap_or_else(|p| resume_unwind(p));
            let (busy, result) = writing.join().unwrap_or_else(|p| resume_unwind(p));
            stages.writing = busy;
            result?;
            stages.forward = forward?;
            if observer.cancelled() { Err(cancelled()) } else { Ok(()) }
        })
        .map(|()| written = stores.pairs() - resumed)
    };
    if let Err(error) = result {
        if stores.kept() {
            observer
                .warning("W_UNFINISHED", "complete shards are kept; the same command with --resume goes on from them");
        }
        return Err(error);
    }
    if stores.truncated > 0 {
        let length = backbone.tokenizer().length();
        observer.warning("W_TRUNCATED", &format!("{} captions were cut to {length} tokens", stores.truncated));
    }
    left_out.append(&mut stores.skipped);
    let resumed = stores.resumed;
    let (paths, manifest) = if complete { stores.published()? } else { stores.finish(&left_out)? };
    let seconds = started.elapsed().as_secs_f64();
    Ok(Extraction {
        stores: paths,
        resumed: if complete { manifest.pairs } else { resumed },
        images_per_second: written as f64 / seconds.max(1e-9),
        manifest,
        skipped: left_out,
        seconds,
        stages,
    })
}

/// Decodes, fits and tokenises the records of a range in batches until told to stop; seconds at work.
fn prepare_all(
    backbone: &Backbone,
    dataset: &dyn Dataset,
    options: &ExtractOptions,
    range: std::ops::Range<usize>,
    stop: &(dyn Fn() -> bool + Sync),
    sender: SyncSender<(usize, Vec<Outcome>)>,
) -> f64 {
    let mut busy = 0.0;
    let mut records = dataset.stream(range.start).take(range.len());
    let mut first = range.start;
    loop {
        let started = Instant::now();
        let batch: Vec<_> = records.by_ref().take(BATCH).map(|record| std::sync::Mutex::new(Some(record))).collect();
        if batch.is_empty() {
            return busy;
        }
        let outcomes = workers::each(backbone.threads(), batch.len(), stop, |i| {
            let record = batch[i].lock().unwrap_or_else(|e| e.into_inner()).take();
            Ok::<_, ()>(record.map(|record| prepare(backbone, record, first + i, options)))
        });
        busy += started.elapsed().as_secs_f64();
        let Ok(Some(outcomes)) = outcomes else { return busy };
        let count = outcomes.len();
        if sender.send((first, outcomes.into_iter().flatten().collect())).is_err() {
            return busy;
        }
        first += count;
    }
}

/// The forward pass over every batch; seconds at work.
fn forward_all(
    backbone: &Backbone,
    layers: &Layers,
    batches: Receiver<(usize, Vec<Outcome>)>,
    stop: &(dyn Fn() -> bool + Sync),
    sender: SyncSender<Vec<Item>>,
) -> Result<f64, VlmError> {
    let mut busy = 0.0;
    for (first, outcomes) in batches {
        let started = Instant::now();
        // One item a picture with its captions: large and small work mix, and a pair's results stay together.
        let states = workers::each(backbone.threads(), outcomes.len(), stop, |i| {
            let Ok(Prepared { image, captions, .. }) = &outcomes[i].pair else { return Ok(None) };
            let image = backbone.encode_fitted(image, &layers.vision)?;
            let captions = captions.iter().map(|(_, tokens)| backbone.encode_tokens(tokens, &layers.text));
            Ok::<_, VlmError>(Some((image, captions.collect::<Result<Vec<_>, _>>()?)))
        })?;
        busy += started.elapsed().as_secs_f64();
        let Some(states) = states else { break };
        let items = outcomes.into_iter().zip(states).zip(first + 1..);
        let items = items.map(|((outcome, states), next)| Item { next, outcome, states }).collect();
        if sender.send(items).is_err() {
            break;
        }
    }
    Ok(busy)
}

/// Writes what the forward pass gives, in order; seconds at work.
fn write_all(
    stores: &mut Stores,
    dataset: &dyn Dataset,
    options: &ExtractOptions,
    batches: Receiver<Vec<Item>>,
    observer: &dyn Observer,
    progress: &dyn Fn(usize),
) -> (f64, Result<(), VlmError>) {
    let mut busy = 0.0;
    for batch in batches {
        let started = Instant::now();
        let result =
            batch.into_iter().try_for_each(|item| write_item(stores, dataset, options, item, observer, progress));
        busy += started.elapsed().as_secs_f64();
        if result.is_err() {
            return (busy, result);
        }
    }
    (busy, Ok(()))
}

fn write_item(
    stores: &mut Stores,
    dataset: &dyn Dataset,
    options: &ExtractOptions,
    item: Item,
    observer: &dyn Observer,
    progress: &dyn Fn(usize),
) -> Result<(), VlmError> {
    let Item { next, outcome: Outcome { pair, dropped }, states } = item;
    for caption in &dropped {
        observer.warning("W_SKIPPED", &format!("{}: {}", caption.key, caption.reason));
    }
    stores.skipped.extend(dropped);
    match (pair, states) {
        (Ok(pair), Some((image, captions))) => stores.append(&pair, &image, &captions)?,
        (Err(rejected), _) if rejected.fatal || options.on_bad == OnBad::Stop => return Err(rejected.error),
        (Err(rejected), _) => {
            observer.warning("W_SKIPPED", &format!("{}: {}", rejected.key, rejected.error));
            stores.skipped.push(skipped(rejected.key, &rejected.error));
        }
        (Ok(_), None) => {}
    }
    stores.mark(next, dataset)?;
    progress(next);
    Ok(())
}
