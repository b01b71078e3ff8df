//! A data set through a backbone into an activation store.
//!
//! Pictures are decoded and captions tokenised on threads of their own, one batch ahead of the forward pass, so memory holds a few
//! batches whatever the size of the data set. Pairs are written in the data set's order.

use crate::backbone::Backbone;
use crate::decode::{decode_image, thumbnail};
use crate::error::VlmError;
use crate::hook::{self, Hook, TEXT_DEFAULT, Tower, VISION_DEFAULT};
use crate::tokenizer::Tokens;
use crate::workers;
use image::RgbImage;
use lucid_data::progress::Observer;
use lucid_data::store::{CaptionActivations, Manifest, PairActivations, Precision, StoreOptions, StoreWriter};
use lucid_data::{BoxAnnotation, DataError, Dataset, ImageSource, OnBad, Skipped};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

/// Pairs decoded and encoded together.
const BATCH: usize = 16;

/// What to extract and where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtractOptions {
    /// Folder of the store.
    pub out: PathBuf,
    /// At most one hook of each tower; a tower that is not named has its default hook.
    #[serde(default)]
    pub layers: Vec<String>,
    /// How activations are stored; f16 by default.
    #[serde(default = "half")]
    pub precision: Precision,
    /// Only the first pairs of the data set.
    #[serde(default)]
    pub max_pairs: Option<usize>,
    /// What happens with a picture that cannot be read or a caption without a token.
    #[serde(default)]
    pub on_bad: OnBad,
    /// Whether the end-of-sentence token of a caption is kept.
    #[serde(default = "yes")]
    pub keep_eos: bool,
    /// Whether small JPEGs are kept, so that a report works from the store alone.
    #[serde(default = "yes")]
    pub thumbnails: bool,
    /// Replace a store that is already there.
    #[serde(default)]
    pub overwrite: bool,
    /// Pairs in a file of the store.
    #[serde(default = "shard")]
    pub pairs_per_shard: usize,
}

fn half() -> Precision {
    Precision::F16
}

fn yes() -> bool {
    true
}

fn shard() -> usize {
    1024
}

impl ExtractOptions {
    /// Default options for a store at `out`.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            out: out.into(),
            layers: Vec::new(),
            precision: half(),
            max_pairs: None,
            on_bad: OnBad::Stop,
            keep_eos: true,
            thumbnails: true,
            overwrite: false,
            pairs_per_shard: shard(),
        }
    }
}

/// What an extraction did.
#[derive(Debug, Clone)]
pub struct Extraction {
    /// Manifest of the published store.
    pub manifest: Manifest,
    /// What was left out, in the data set's order, with what the data set itself left out first.
    pub skipped: Vec<Skipped>,
    /// Wall time from the first picture to the published store.
    pub seconds: f64,
    /// Pairs written per second of it.
    pub images_per_second: f64,
}

/// A pair ready for the forward pass.
struct Prepared {
    key: String,
    image: RgbImage,
    size: [u32; 2],
    thumbnail: Option<Vec<u8>>,
    captions: Vec<(String, Tokens)>,
    boxes: Vec<BoxAnnotation>,
}

/// A pair, or why it is left out; and captions left out of it.
struct Outcome {
    pair: Result<Prepared, (String, VlmError)>,
    dropped: Vec<Skipped>,
}

fn skipped(key: String, error: &VlmError) -> Skipped {
    Skipped { key, code: error.code().into(), reason: error.to_string() }
}

fn cancelled() -> VlmError {
    DataError::Cancelled { stage: "extracting" }.into()
}

/// The hooks of both towers that `layers` names.
fn hooks_of(backbone: &Backbone, layers: &[String]) -> Result<[(String, Hook); 2], VlmError> {
    let mut chosen: [Option<(String, Hook)>; 2] = [None, None];
    for name in layers {
        let (tower, hook) = hook::find_hook(backbone.config(), name)?;
        let slot = &mut chosen[usize::from(tower == Tower::Text)];
        if let Some((first, _)) = slot {
            return Err(VlmError::Argument {
                option: "layers".into(),
                found: format!("{first} and {name}"),
                expected: "one hook of each tower (a store holds one)".into(),
            });
        }
        *slot = Some((name.clone(), hook));
    }
    let [vision, text] = chosen;
    Ok([vision.unwrap_or((VISION_DEFAULT.into(), Hook::Final)), text.unwrap_or((TEXT_DEFAULT.into(), Hook::Final))])
}

/// Runs every pair of `dataset` through `backbone` and publishes the store at `options.out`. Stage `extract` of the observer counts
/// pairs; `W_SKIPPED` and `W_TRUNCATED` are its warnings.
///
/// # Errors
/// Under [`OnBad::Stop`] the first unusable pair (`E_IMAGE`, `E_EMPTY_TEXT`, `E_NO_CAPTION`); `E_HOOK`; `E_OPTION`; what the store
/// raises (`E_IO`, `E_EXISTS`, `E_OVERFLOW`, `E_NON_FINITE`, `E_EMPTY` when nothing is left); `E_CANCELLED`. Nothing is published then.
pub fn extract(
    backbone: &Backbone,
    dataset: &dyn Dataset,
    options: &ExtractOptions,
    observer: &dyn Observer,
) -> Result<Extraction, VlmError> {
    let started = Instant::now();
    let [(vision_name, vision), (text_name, text)] = hooks_of(backbone, &options.layers)?;
    let total = options.max_pairs.map_or(dataset.len(), |most| most.min(dataset.len()));
    let mut writer = StoreWriter::create(
        &options.out,
        StoreOptions {
            precision: options.precision,
            pairs_per_shard: options.pairs_per_shard,
            provenance: json!({
                "backbone": backbone.provenance(),
                "hooks": { "vision": vision_name, "text": text_name },
                "keepEos": options.keep_eos,
                "dataset": dataset.spec().portable(),
            }),
            overwrite: options.overwrite,
            ..StoreOptions::new(backbone.vision_dim(), backbone.text_dim())
        },
    )?;
    let mut left_out = dataset.skipped().to_vec();
    let (mut done, mut truncated) = (0usize, 0usize);
    observer.progress("extract", 0, total as u64);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<(), VlmError> {
        let (sender, receiver) = sync_channel(1);
        let stop = || ended.load(Ordering::Relaxed) || observer.cancelled();
        scope.spawn(move || prepare_all(backbone, dataset, options, total, &stop, &sender));
        let result = (|| {
            for batch in receiver {
                let mut pairs = Vec::with_capacity(batch.len());
                done += batch.len();
                for outcome in batch {
                    for caption in &outcome.dropped {
                        observer.warning("W_SKIPPED", &format!("{}: {}", caption.key, caption.reason));
                    }
                    left_out.extend(outcome.dropped);
                    match outcome.pair {
                        Ok(pair) => pairs.push(pair),
                        Err((_, error)) if options.on_bad == OnBad::Stop => return Err(error),
                        Err((key, error)) => {
                            observer.warning("W_SKIPPED", &format!("{key}: {error}"));
                            left_out.push(skipped(key, &error));
                        }
                    }
                }
                let captions = || pairs.iter().flat_map(|p| &p.captions);
                truncated += captions().filter(|(_, tokens)| tokens.truncated).count();
                write_batch(backbone, &pairs, vision, text, &mut writer, observer)?;
                observer.progress("extract", done as u64, total as u64);
            }
            if observer.cancelled() { Err(cancelled()) } else { Ok(()) }
        })();
        // The decoding threads see this before their next picture, so an error does not wait for the rest of a batch.
        ended.store(true, Ordering::Relaxed);
        result
    })?;
    if truncated > 0 {
        let length = backbone.tokenizer().length();
        observer.warning("W_TRUNCATED", &format!("{truncated} captions were cut to {length} tokens"));
    }
    let manifest = writer.finish()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Extraction {
        images_per_second: manifest.pairs as f64 / seconds.max(1e-9),
        manifest,
        skipped: left_out,
        seconds,
    })
}

/// Decodes, squashes and tokenises all pairs in batches until told to stop.
fn prepare_all(
    backbone: &Backbone,
    dataset: &dyn Dataset,
    options: &ExtractOptions,
    total: usize,
    stop: &(dyn Fn() -> bool + Sync),
    sender: &SyncSender<Vec<Outcome>>,
) {
    for first in (0..total).step_by(BATCH) {
        let n = BATCH.min(total - first);
        let batch =
            workers::each(backbone.threads(), n, stop, |i| Ok::<_, ()>(prepare(backbone, dataset, first + i, options)));
        let Ok(Some(batch)) = batch else { return };
        if sender.send(batch).is_err() {
            return;
        }
    }
}

fn prepare(backbone: &Backbone, dataset: &dyn Dataset, index: usize, options: &ExtractOptions) -> Outcome {
    let record = match dataset.pair(index) {
        Ok(record) => record,
        Err(error) => {
            let pair = Err((format!("pair {index}"), error.into()));
            return Outcome { pair, dropped: Vec::new() };
        }
    };
    let key = record.key;
    let mut dropped = Vec::new();
    let mut captions = Vec::with_capacity(record.captions.len());
    let mut last_error = None;
    for (i, text) in record.captions.into_iter().enumerate() {
        match backbone.tokenizer().encode(&text, options.keep_eos) {
            Ok(tokens) => captions.push((text, tokens)),
            Err(error) => {
                dropped.push(skipped(format!("{key}#{i}"), &error));
                last_error = Some(error);
            }
        }
    }
    // A picture keeps the captions that have tokens, unless the user wants to hear of the first bad one.
    let fatal = options.on_bad == OnBad::Stop || captions.is_empty();
    let pair = match last_error {
        Some(error) if fatal => Err(error),
        _ if captions.is_empty() => {
            Err(DataError::NoCaption { key: key.clone(), reason: "the data set gives none".into() }.into())
        }
        _ => picture(backbone, &record.image, options.thumbnails),
    };
    if pair.is_err() {
        dropped.clear();
    }
    let pair = match pair {
        Ok((image, size, thumbnail)) => Ok(Prepared { key, image, size, thumbnail, captions, boxes: record.boxes }),
        // Pictures from memory have no name of their own.
        Err(VlmError::Image { file, reason }) if file.starts_with('<') => {
            Err((key.clone(), VlmError::Image { file: key, reason }))
        }
        Err(error) => Err((key, error)),
    };
    Outcome { pair, dropped }
}

type Picture = (RgbImage, [u32; 2], Option<Vec<u8>>);

fn picture(backbone: &Backbone, source: &ImageSource, small: bool) -> Result<Picture, VlmError> {
    let image = decode_image(source)?;
    let thumbnail = if small { Some(thumbnail(&image)?) } else { None };
    let squashed = backbone.preprocessing().fitted(&image)?;
    Ok((squashed, [image.width(), image.height()], thumbnail))
}

fn write_batch(
    backbone: &Backbone,
    pairs: &[Prepared],
    vision: Hook,
    text: Hook,
    writer: &mut StoreWriter,
    observer: &dyn Observer,
) -> Result<(), VlmError> {
    let stop = || observer.cancelled();
    // One item a picture with its captions: large and small work mix, and a pair's results stay together.
    let encoded = workers::each(backbone.threads(), pairs.len(), &stop, |i| {
        let patches = backbone.encode_fitted(&pairs[i].image, &[vision])?;
        let captions =
            pairs[i].captions.iter().map(|(_, tokens)| Ok(backbone.encode_tokens(tokens, &[text])?.states.concat()));
        Ok::<_, VlmError>((patches, captions.collect::<Result<Vec<_>, VlmError>>()?))
    })?;
    let encoded = encoded.ok_or_else(cancelled)?;
    for (pair, (patches, states)) in pairs.iter().zip(&encoded) {
        let captions: Vec<CaptionActivations<'_>> = pair
            .captions
            .iter()
            .zip(states)
            .map(|((text, tokens), states)| CaptionActivations {
                text,
                states,
                ids: tokens.ids(),
                kinds: &tokens.kinds,
                spans: &tokens.spans,
            })
            .collect();
        writer.append(&PairActivations {
            key: &pair.key,
            vision: &patches.states[0],
            vision_grid: patches.grid,
            captions: &captions,
            size: Some(pair.size),
            boxes: &pair.boxes,
            thumbnail: pair.thumbnail.as_deref(),
        })?;
    }
    Ok(())
}
