//! Evaluates a model on pairs: one pass for the means, one for everything else.

use lucid_data::progress::Observer;
use lucid_data::store::AnnotatedSource;
use lucid_kernels::{Direction, Modality};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::coder::{Coder, PairPlan, SparseCodes, check_widths};
use crate::error::{InterpretError, Result};
use crate::evaluation::{Evaluation, Tokens};
use crate::evaluation_totals::Totals;
use crate::grounding::heat::HeatMap;
use crate::grounding::mask::Mask;
use crate::grounding::queries::{TargetMode, has_boxes, masks_of};
use crate::grounding::{Matched, PairGrounding, ground_pair};
use crate::metrics::cross::{Coded, PairCross, pair_cross};
use crate::metrics::means::{Means, sums_of};
use crate::metrics::reconstruction::{PairErrors, pair_errors};
use crate::metrics::structure::PooledPair;
use crate::pairs::{read_states, wrong_captions};
use crate::recovery::checked_truth;
use crate::recovery::transport::{LinkScore, link_scores};
use crate::recovery::truth::{PairTruth, TruthSource};

/// What to evaluate, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EvaluateOptions {
    /// Grounding targets: `union`, `largest`, `best`, `category`, `phrase`. Default: all; those without boxes are
    /// named under `skipped`.
    pub targets: Vec<String>,
    /// Heat maps: `plan-max`, `code`, `concept`, `plan-sum`. Default: the first three.
    pub heatmaps: Vec<String>,
    /// Whether to measure grounding where there are boxes. Default true.
    pub boxes: bool,
    /// Seed of the shuffled captions. Default 0.
    pub seed: u64,
    /// Pairs in memory at once; does not change the result. Default 16.
    pub batch_pairs: usize,
    /// Resamples of the confidence intervals; 0 = none. Default 1000.
    pub bootstrap: usize,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            targets: TargetMode::ALL.map(|mode| mode.name().to_owned()).to_vec(),
            heatmaps: HeatMap::ALL[..3].iter().map(|map| map.name().to_owned()).collect(),
            boxes: true,
            seed: 0,
            batch_pairs: 16,
            bootstrap: 1000,
        }
    }
}

impl EvaluateOptions {
    fn targets(&self) -> Result<Vec<TargetMode>> {
        let parse = |name: &String| {
            TargetMode::ALL
                .into_iter()
                .find(|mode| mode.name() == name)
                .ok_or_else(|| InterpretError::unknown("target", name, TargetMode::ALL.map(TargetMode::name)))
        };
        self.targets.iter().map(parse).collect()
    }

    fn heatmaps(&self) -> Result<Vec<HeatMap>> {
        let parse = |name: &String| {
            HeatMap::ALL
                .into_iter()
                .find(|map| map.name() == name)
                .ok_or_else(|| InterpretError::unknown("heatmap", name, HeatMap::ALL.map(HeatMap::name)))
        };
        self.heatmaps.iter().map(parse).collect()
    }
}

/// What one pair adds to the sums.
pub(crate) struct PairResult {
    pub(crate) vision: SparseCodes,
    pub(crate) text: SparseCodes,
    pub(crate) vision_errors: PairErrors,
    pub(crate) text_errors: PairErrors,
    pub(crate) t2v: PairCross,
    pub(crate) v2t: PairCross,
    pub(crate) grounding: PairGrounding,
    pub(crate) mask_grounding: PairGrounding,
    pub(crate) truth: Option<(PairTruth, Vec<LinkScore>)>,
    pub(crate) pooled: PooledPair,
    pub(crate) key: String,
}

/// What all pairs are measured with.
pub(crate) struct Measure<'a> {
    pub(crate) coder: &'a dyn Coder,
    source: &'a dyn AnnotatedSource,
    truth: Option<&'a dyn TruthSource>,
    pub(crate) wrong: Option<Vec<usize>>,
    mean_vision: Vec<f64>,
    mean_text: Vec<f64>,
    pub(crate) targets: Vec<TargetMode>,
    heatmaps: Vec<HeatMap>,
    pub(crate) grounding: bool,
    seed: u64,
}

impl Measure<'_> {
    fn plan(&self, vision: &SparseCodes, text: &SparseCodes, pair: usize) -> Result<PairPlan> {
        let plan = self.coder.plan(vision, text)?;
        if (plan.rows, plan.columns, plan.mass.len()) != (vision.len(), text.len(), vision.len() * text.len()) {
            let expected = format!("{} × {}", vision.len(), text.len());
            return Err(InterpretError::shape("the plan", format!("{} × {}", plan.rows, plan.columns), expected));
        }
        if plan.mass.iter().any(|mass| !mass.is_finite()) {
            return Err(InterpretError::NonFinite { what: "the plan".into(), pair: self.source.key(pair).to_owned() });
        }
        Ok(plan)
    }

    fn pair(&self, pair: usize) -> Result<PairResult> {
        let (coder, source) = (self.coder, self.source);
        let vision_states = read_states(source, pair, Modality::Vision)?;
        let text_states = read_states(source, pair, Modality::Text)?;
        let vision = coder.encode(&vision_states, Modality::Vision)?;
        let text = coder.encode(&text_states, Modality::Text)?;
        let plan = self.plan(&vision, &text, pair)?;
        let wrong = match &self.wrong {
            Some(wrong) => {
                let other = wrong[pair];
                let states = read_states(source, other, Modality::Text)?;
                let codes = coder.encode(&states, Modality::Text)?;
                let plan = self.plan(&vision, &codes, pair)?;
                Some((other, states, codes, plan))
            }
            None => None,
        };
        let right = Coded {
            vision_states: &vision_states,
            text_states: &text_states,
            vision: &vision,
            text: &text,
            plan: &plan,
        };
        let mismatched = wrong.as_ref().map(|(_, states, codes, plan)| Coded {
            vision_states: &vision_states,
            text_states: states,
            vision: &vision,
            text: codes,
            plan,
        });
        let vision_errors = pair_errors(coder, Modality::Vision, &vision_states, &vision, &self.mean_vision)?;
        let text_errors = pair_errors(coder, Modality::Text, &text_states, &text, &self.mean_text)?;
        let t2v = pair_cross(coder, Direction::T2V, &right, mismatched.as_ref())?;
        let v2t = pair_cross(coder, Direction::V2T, &right, mismatched.as_ref())?;
        let numbers = [
            vision_errors.joint,
            vision_errors.shared,
            vision_errors.private,
            text_errors.joint,
            text_errors.shared,
            text_errors.private,
            t2v.joint,
            t2v.shared,
            v2t.joint,
            v2t.shared,
        ];
        let controls = [t2v.uniform, v2t.uniform, t2v.shuffled.unwrap_or(0.0), v2t.shuffled.unwrap_or(0.0)];
        if numbers.iter().chain(&controls).any(|number| !number.is_finite()) {
            return Err(InterpretError::NonFinite {
                what: "a reconstruction".into(),
                pair: source.key(pair).to_owned(),
            });
        }
        let (grounding, mask_grounding) = if self.grounding {
            let matched = Matched { plan: &plan, vision: &vision, text: &text };
            let mismatched =
                wrong.as_ref().map(|(other, _, codes, plan)| (*other, Matched { plan, vision: &vision, text: codes }));
            let mismatched = mismatched.as_ref().map(|(other, matched)| (*other, matched));
            let ground = |masks: Option<&[Mask]>| {
                ground_pair(source, pair, masks, &self.targets, &self.heatmaps, &matched, mismatched)
            };
            let info = source.info(pair);
            // The truth's masks are of its own boxes, not of boxes from elsewhere.
            let own = |masks: &Vec<Mask>| {
                masks.len() == info.boxes.len() && masks.iter().zip(&info.boxes).all(|(mask, b)| mask.fills(b))
            };
            let masks = masks_of(info).or_else(|| self.truth.and_then(|truth| truth.masks(pair)).filter(own));
            (ground(None), masks.map(|masks| ground(Some(&masks))).unwrap_or_default())
        } else {
            (PairGrounding::default(), PairGrounding::default())
        };
        let truth = match self.truth {
            Some(truth) => {
                let known = checked_truth(truth, pair, source.key(pair), vision.len(), text.len())?;
                let scores = link_scores(&plan, &known.links);
                Some((known, scores))
            }
            None => None,
        };
        let key = source.key(pair).to_owned();
        let pooled = PooledPair::new(self.seed, &key, &vision, &text, &vision_states, coder.width(Modality::Vision));
        Ok(PairResult {
            pooled,
            key,
            vision,
            text,
            vision_errors,
            text_errors,
            t2v,
            v2t,
            grounding,
            mask_grounding,
            truth,
        })
    }
}

/// Measures a model on the pairs of a source, first captions, with every control (spec 6). `truth` is what is known of
/// generated pairs, in the source's order.
///
/// The result does not depend on `batchPairs`, the number of threads or the order of pairs.
///
/// # Errors
/// `E_SHAPE` where the model's widths are not the source's, `E_UNKNOWN_OPTION` for an unknown target or heat map,
/// `E_OPTION`, `E_NON_FINITE` where activations or results are, `E_CANCELLED`.
pub fn evaluate(
    coder: &dyn Coder,
    source: &dyn AnnotatedSource,
    options: &EvaluateOptions,
    truth: Option<&dyn TruthSource>,
    observer: &dyn Observer,
) -> Result<Evaluation> {
    check_widths(coder, source.d_vision(), source.d_text())?;
    let (targets, heatmaps) = (options.targets()?, options.heatmaps()?);
    if options.bootstrap > 100_000 {
        return Err(InterpretError::option("bootstrap", options.bootstrap, "at most 100000 resamples"));
    }
    if options.batch_pairs == 0 {
        return Err(InterpretError::option("batchPairs", 0, "at least 1"));
    }
    let pairs = source.pairs();
    if pairs == 0 {
        return Err(InterpretError::shape("the evaluation set", "empty", "at least one pair"));
    }
    if options.boxes && heatmaps.contains(&HeatMap::PlanSum) {
        let message =
            "plan-sum equals the row marginal of the plan and is flat at convergence: it cannot ground anything";
        observer.warning("W_FLAT_MAP", message);
    }
    let (vision, text) = means(source, options.batch_pairs, observer)?;
    let measure = Measure {
        coder,
        source,
        truth,
        wrong: wrong_captions(source, options.seed),
        mean_vision: vision.finish(),
        mean_text: text.finish(),
        targets,
        heatmaps,
        seed: options.seed,
        grounding: options.boxes && (0..pairs).any(|pair| has_boxes(source.info(pair))),
    };
    let mut totals = Totals::new(coder, truth, options);
    for start in (0..pairs).step_by(options.batch_pairs) {
        stop_if_cancelled(observer)?;
        let end = (start + options.batch_pairs).min(pairs);
        let results: Vec<Result<PairResult>> = (start..end).into_par_iter().map(|pair| measure.pair(pair)).collect();
        for result in results {
            totals.add(result?);
        }
        observer.progress("evaluate", end as u64, pairs as u64);
    }
    let tokens = Tokens { vision: vision.tokens(), text: text.tokens() };
    Ok(totals.finish(&measure, options, tokens))
}

fn stop_if_cancelled(observer: &dyn Observer) -> Result<()> {
    if observer.cancelled() { Err(InterpretError::Cancelled { stage: "evaluate" }) } else { Ok(()) }
}

/// The mean of either modality over all pairs.
fn means(source: &dyn AnnotatedSource, batch_pairs: usize, observer: &dyn Observer) -> Result<(Means, Means)> {
    let (mut vision, mut text) = (Means::new(source.d_vision()), Means::new(source.d_text()));
    let pairs = source.pairs();
    for start in (0..pairs).step_by(batch_pairs) {
        stop_if_cancelled(observer)?;
        let end = (start + batch_pairs).min(pairs);
        let sums = |pair: usize| {
            let of_vision = sums_of(&read_states(source, pair, Modality::Vision)?, source.d_vision());
            let of_text = sums_of(&read_states(source, pair, Modality::Text)?, source.d_text());
            Ok::<_, InterpretError>((of_vision, of_text))
        };
        let results: Vec<_> = (start..end).into_par_iter().map(sums).collect();
        for (pair, result) in (start..end).zip(results) {
            let (of_vision, of_text) = result?;
            vision.add(&of_vision, source.vision_len(pair));
            text.add(&of_text, source.text_len(pair, 0));
        }
    }
    Ok((vision, text))
}
