//! What shared codes know of concepts, beyond the paper: probes, classification, zero-shot, splitting, absorption, causal edits.
//!
//! Everything is fitted on one set of pairs and tested on another. The unit is a picture (or its first caption): its mean state or its
//! mean shared code, and whether it holds a concept, by the truth of generated pairs or the categories of boxes.
//!
//! - **linear probe**: a ridge readout (λ = 1 % of the mean variance of an input) of ±1 labels; area under the ROC curve. Beside it the
//!   readout of the mean state (what the backbone knows) and one fitted to the labels of other pictures.
//! - **k-sparse probe** (arXiv 2305.01610): the same from the k latents of largest |correlation| on the fitted pairs; k = 1 and 5.
//! - **splitting** (after arXiv 2409.14507): the least k after which one more latent adds less than 0.03 to the area.
//! - **absorption** (after arXiv 2409.14507): of the tested pairs that hold a concept and whose state says so (its score is above the
//!   middle of the two means), the share in which none of the concept's k latents fires while another latent carries at least 0.4 of
//!   what the codes add along the state probe's direction.
//! - **concept bottleneck** (arXiv 2007.04612): a class from nothing but the one best latent of every concept.
//! - **zero-shot**: a picture's mean shared code against the mean shared code of the tokens that name a concept, by cosine, both about
//!   their means (over fitted pictures; over concepts).
//! - **causal edits**: pictures drawn twice, the second time with one attribute changed.

mod classes;
mod edits;
pub(crate) mod linear;
pub(crate) mod pooled;
pub(crate) mod readouts;
pub mod result;

use std::collections::BTreeMap;

use lucid_data::progress::Observer;
use lucid_data::store::AnnotatedSource;
use lucid_kernels::Modality;
use rayon::prelude::*;

use crate::coder::Coder;
use crate::error::{InterpretError, Result};
use crate::evaluation::Interval;
use crate::metrics::bootstrap::{Bootstrap, Form, Weights, interval_of};
use crate::recovery::truth::{TruthConcept, TruthSource};
use linear::Ranking;
use pooled::{Labels, Set, categories, read};
use result::Probing;

/// How to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Seed of shuffled labels and of the bootstrap.
    pub seed: u64,
    /// Resamples of the intervals; 0 = none.
    pub bootstrap: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { seed: 0, bootstrap: 1000 }
    }
}

/// A set of pairs with what is known of it.
#[derive(Clone, Copy)]
pub struct Probed<'a> {
    /// Activations and boxes.
    pub source: &'a dyn AnnotatedSource,
    /// The truth of generated pairs; categories of boxes stand in for it.
    pub truth: Option<&'a dyn TruthSource>,
}

/// The 95 % interval of the mean of areas.
fn areas(weights: &[Weights], resamples: usize, rankings: &[Ranking]) -> Option<Interval> {
    let mean = |resample: usize| {
        let areas: Vec<f64> =
            rankings.iter().filter_map(|r| r.area(|row| f64::from(weights[row].of(resample)))).collect();
        (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
    };
    interval_of((0..resamples).into_par_iter().filter_map(mean).collect())
}

/// Probes a model: fitted on one set, tested on the other.
///
/// # Errors
/// `E_SHAPE` where the sets do not fit the model, hold fewer than two pairs, or no label is known; `E_OPTION`, `E_NON_FINITE`,
/// `E_CANCELLED`.
pub fn probe(
    coder: &dyn Coder,
    fit: Probed,
    test: Probed,
    options: &ProbeOptions,
    observer: &dyn Observer,
) -> Result<Probing> {
    if options.bootstrap > 100_000 {
        return Err(InterpretError::option("bootstrap", options.bootstrap, "at most 100000 resamples"));
    }
    let (concepts, labels): (Vec<TruthConcept>, _) = match (fit.truth, test.truth) {
        (Some(fitted), Some(tested)) if fitted.concepts() == tested.concepts() => {
            (fitted.concepts().to_vec(), [Labels::Truth(fitted), Labels::Truth(tested)])
        }
        _ => (categories([fit.source, test.source]), [Labels::Categories, Labels::Categories]),
    };
    if concepts.is_empty() {
        let expected = "generated pairs in both stores, or boxes with categories";
        return Err(InterpretError::shape("what is known of the pairs", "nothing", expected.to_owned()));
    }
    let known = matches!(labels[0], Labels::Truth(_));
    let seed = options.seed;
    let fitted = read(coder, fit.source, &labels[0], &concepts, seed, observer)?;
    let tested = read(coder, test.source, &labels[1], &concepts, seed, observer)?;
    let mut found = Probing {
        format: 1,
        fitted: fitted.len() as u64,
        tested: tested.len() as u64,
        labels: if known { "truth" } else { "categories" }.into(),
        ..Probing::default()
    };
    let mut bootstrap = Bootstrap::new(options.bootstrap, seed);
    let weights: Vec<Weights> = tested.keys.iter().map(|key| bootstrap.weights(key)).collect();
    for modality in Modality::ALL {
        let path = format!("probes.{}", modality.name());
        let place = match modality {
            Modality::Vision => &mut found.probes.vision,
            Modality::Text => &mut found.probes.text,
        };
        match readouts::probe_half(coder, modality, &concepts, &fitted, &tested)? {
            Some((probes, ranked)) => {
                *place = Some(probes);
                for (name, rankings) in [("states", &ranked.states), ("codes", &ranked.codes), ("one", &ranked.one)] {
                    if let Some(interval) = areas(&weights, options.bootstrap, rankings) {
                        found.intervals.insert(format!("{path}.mean.{name}"), interval);
                    }
                }
            }
            None => {
                let reason = "no concept is held by some pairs and not by others, in both stores";
                found.skipped.insert(path, reason.into());
            }
        }
        if observer.cancelled() {
            return Err(InterpretError::Cancelled { stage: "probe" });
        }
    }
    classes_and_words(&concepts, &fitted, &tested, &weights, &mut bootstrap, options, &mut found);
    if tested.edits.is_empty() {
        let reason = "the tested store holds no edited pictures (scenes with `edits`)";
        found.skipped.insert("edits".into(), reason.into());
    }
    for (kind, (score, parts)) in edits::score(&concepts, &fitted, &tested) {
        let flag = |right: bool| f64::from(u8::from(right));
        for part in parts {
            let values = [("rises", flag(part.rises)), ("falls", flag(part.falls)), ("onTarget", part.on_target)];
            for (name, value) in values {
                bootstrap.add(&weights[part.row], &format!("edits.{kind}.{name}"), Form::Ratio, value, 1.0);
            }
        }
        found.edits.insert(kind, score);
    }
    found.intervals.extend(bootstrap.finish());
    Ok(found)
}

fn classes_and_words(
    concepts: &[TruthConcept],
    fitted: &Set,
    tested: &Set,
    weights: &[Weights],
    bootstrap: &mut Bootstrap,
    options: &ProbeOptions,
    found: &mut Probing,
) {
    let cosines = classes::Centred::new(fitted).scores(tested);
    let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, concept) in concepts.iter().enumerate() {
        kinds.entry(&concept.kind).or_default().push(at);
    }
    for (kind, members) in kinds {
        match classes::classify(&members, concepts, fitted, tested, &cosines) {
            Err(reason) => {
                found.skipped.insert(format!("classification.{kind}"), reason.into());
            }
            Ok((score, answers)) => {
                let methods = [
                    ("states", Some(&answers.states)),
                    ("codes", Some(&answers.codes)),
                    ("bottleneck", Some(&answers.bottleneck)),
                    ("zeroShot", answers.zero_shot.as_ref()),
                ];
                for (name, right) in methods {
                    for (&row, &right) in answers.rows.iter().zip(right.into_iter().flatten()) {
                        let path = format!("classification.{kind}.{name}");
                        bootstrap.add(&weights[row], &path, Form::Ratio, f64::from(u8::from(right)), 1.0);
                    }
                }
                found.classification.insert(kind.to_owned(), score);
            }
        }
    }
    match classes::zero_shot(fitted, tested, concepts.len(), &cosines) {
        Some((score, rankings)) => {
            found.zero_shot = Some(score);
            if let Some(interval) = areas(weights, options.bootstrap, &rankings) {
                found.intervals.insert("zeroShot.auc".into(), interval);
            }
        }
        None => {
            found.skipped.insert("zeroShot".into(), "no concept is named by a word of the fitted captions".into());
        }
    }
}
