//! A store against its source: some pairs are extracted again and compared with what is stored.

use super::options::{CaptionPolicy, ExtractOptions};
use super::prepare::prepare;
use crate::backbone::Backbone;
use crate::error::VlmError;
use crate::hook::{self, Tower};
use lucid_data::progress::Observer;
use lucid_data::scenes::Stream;
use lucid_data::store::{ActivationSource, AnnotatedSource, Precision, StoreReader};
use lucid_data::{DataError, Dataset, OnBad};
use serde::Serialize;
use std::collections::HashMap;

/// A pair that is not what its source gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mismatch {
    /// Key of the pair.
    pub key: String,
    /// What differs.
    pub what: String,
}

/// What comparing a store with its source found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeepReport {
    /// Pairs that were extracted again.
    pub sampled: usize,
    /// Largest difference of a number over the largest of its token.
    pub largest_difference: f64,
    /// Pairs that differ, in the data set's order.
    pub mismatches: Vec<Mismatch>,
}

/// What another processor's rounding may change in a state, over the largest number of its token.
const ROUNDING: f64 = 1e-3;

/// Half a step of a precision at the largest number of a token, over that number.
fn step(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.0,
        Precision::F16 => 1.0 / 2048.0,
        Precision::Bf16 => 1.0 / 256.0,
        Precision::Int8 => 0.5 / 127.0,
    }
}

/// Largest difference of two states over the largest number of its token.
fn difference(found: &[f32], expected: &[f32], width: usize) -> f64 {
    let rows = found.chunks_exact(width).zip(expected.chunks_exact(width));
    rows.map(|(a, b)| {
        let most = b.iter().fold(0f32, |m, x| m.max(x.abs())).max(f32::MIN_POSITIVE);
        f64::from(a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / most)
    })
    .fold(0.0, f64::max)
}

/// Refuses a backbone whose weights are not those that `recorded`, a store's `provenance.backbone`, names: another one of the same width
/// gives states that mean something else, and nothing else would tell.
///
/// # Errors
/// `E_OPTION` for `backbone`.
pub fn check_backbone(recorded: &serde_json::Value, backbone: &Backbone) -> Result<(), VlmError> {
    let (theirs, ours) = (&recorded["weightsBlake3"], &backbone.provenance()["weightsBlake3"]);
    if theirs == ours {
        return Ok(());
    }
    Err(VlmError::Argument {
        option: "backbone".into(),
        found: format!("{} with weights {ours}", backbone.id()),
        expected: format!("the store's, {} with weights {theirs}", recorded["id"]),
    })
}

/// Extracts `sample` pairs of `store` again, drawn by `seed`, and compares grids, sizes, captions and ids exactly, and states within
/// the store's precision and a processor's rounding. Stage `compare` of the observer counts them.
///
/// # Errors
/// `E_OPTION` where the backbone is another than the store's, or the store does not say how it was made; what reading the data set
/// and the forward pass raise; `E_CANCELLED`.
pub fn compare_with_source(
    store: &StoreReader,
    backbone: &Backbone,
    dataset: &dyn Dataset,
    (sample, seed): (usize, u64),
    observer: &dyn Observer,
) -> Result<DeepReport, VlmError> {
    let provenance = &store.manifest().provenance;
    check_backbone(&provenance["backbone"], backbone)?;
    let name = |tower: &str| provenance["hooks"][tower].as_str().unwrap_or_default();
    let vision = hook::find_hook_of(backbone.config(), Tower::Vision, name("vision"))?;
    let text = hook::find_hook_of(backbone.config(), Tower::Text, name("text"))?;
    let first = provenance["captionPolicy"] == "first";
    let options = ExtractOptions {
        keep_eos: provenance["keepEos"].as_bool().unwrap_or(true),
        caption_policy: if first { CaptionPolicy::First } else { CaptionPolicy::All },
        // A pair that lost a bad caption on its way in loses it again.
        on_bad: OnBad::Skip,
        thumbnails: false,
        ..ExtractOptions::new("")
    };
    // A shuffle's first positions: each pair at most once.
    let mut order: Vec<usize> = (0..store.pairs()).collect();
    let mut stream = Stream::new(seed, 0, 0xdee9);
    let sample = sample.min(order.len());
    for i in 0..sample {
        let rest = order.len() - i;
        order.swap(i, i + ((stream.unit() * rest as f32) as usize).min(rest - 1));
    }
    let mut wanted: HashMap<&str, usize> = order[..sample].iter().map(|&i| (store.key(i), i)).collect();
    let mut report = DeepReport::default();
    for (index, record) in dataset.stream(0).enumerate() {
        if wanted.is_empty() {
            break;
        }
        if observer.cancelled() {
            return Err(DataError::Cancelled { stage: "comparing" }.into());
        }
        let record = match record {
            Ok(record) => record,
            Err(error) if error.record().is_some() => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(pair) = wanted.remove(record.key.as_str()) else { continue };
        let key = record.key.clone();
        let what = match prepare(backbone, Ok(record), index, &options).pair {
            Err(rejected) => Some(format!("the source cannot be used: {}", rejected.error)),
            Ok(prepared) => {
                let image = backbone.encode_fitted(&prepared.image, &[vision])?;
                let mut texts = Vec::with_capacity(prepared.captions.len());
                for (_, tokens) in &prepared.captions {
                    texts.push(backbone.encode_tokens(tokens, &[text])?.states.concat());
                }
                let info = store.info(pair);
                let captions: Vec<&String> = prepared.captions.iter().map(|(caption, _)| caption).collect();
                let ids = |c: usize| store.text_tokens(pair, c).ids;
                if info.vision_grid != image.grid || info.size != Some(prepared.size) {
                    let (a, b) = ((info.vision_grid, info.size), (image.grid, Some(prepared.size)));
                    Some(format!("grid and size: stored {a:?}, source {b:?}"))
                } else if info.captions.iter().collect::<Vec<_>>() != captions {
                    Some(format!("captions: stored {:?}, source {captions:?}", info.captions))
                } else if let Some(c) = (0..captions.len()).find(|&c| ids(c) != prepared.captions[c].1.ids()) {
                    Some(format!(
                        "token ids of caption {c}: stored {:?}, source {:?}",
                        ids(c),
                        prepared.captions[c].1.ids()
                    ))
                } else {
                    let mut stored = vec![0.0; image.states[0].len()];
                    store.read_vision(pair, &mut stored)?;
                    let mut worst = difference(&stored, &image.states[0], store.d_vision());
                    for (c, states) in texts.iter().enumerate() {
                        let mut stored = vec![0.0; states.len()];
                        store.read_text(pair, c, &mut stored)?;
                        worst = worst.max(difference(&stored, states, store.d_text()));
                    }
                    report.largest_difference = report.largest_difference.max(worst);
                    let most = step(store.manifest().precision) + ROUNDING;
                    (worst > most || worst.is_nan()).then(|| {
                        format!(
                            "states differ by {worst:.1e} of the token's largest number, at most {most:.1e} is rounding"
                        )
                    })
                }
            }
        };
        report.mismatches.extend(what.map(|what| Mismatch { key, what }));
        report.sampled += 1;
        observer.progress("compare", report.sampled as u64, sample as u64);
    }
    let mut absent: Vec<&str> = wanted.into_keys().collect();
    absent.sort_unstable();
    for key in absent {
        report.mismatches.push(Mismatch { key: key.into(), what: "the data set has no such picture".into() });
    }
    Ok(report)
}
