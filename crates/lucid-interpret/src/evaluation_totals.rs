//! Sums over all evaluated pairs, and the evaluation they give.

use std::collections::BTreeMap;

use lucid_kernels::Modality;

use crate::coder::Coder;
use crate::evaluate::{EvaluateOptions, Measure, PairResult};
use crate::evaluation::{Cross, Evaluation, MaxFrequency, PerDirection, PerModality, Tokens};
use crate::evaluation_intervals::Intervals;
use crate::grounding::GroundingTotal;
use crate::grounding::queries::TargetMode;
use crate::metrics::activity::Activity;
use crate::metrics::cross::CrossErrors;
use crate::metrics::reconstruction::Errors;
use crate::metrics::structure::Pool;
use crate::recovery::RecoveryTotal;
use crate::recovery::truth::TruthSource;

/// Version of [`Evaluation`].
const FORMAT: u32 = 1;

/// Sums over all pairs.
pub(crate) struct Totals {
    pairs: u64,
    vision_errors: Errors,
    text_errors: Errors,
    t2v: CrossErrors,
    v2t: CrossErrors,
    vision_activity: Activity,
    text_activity: Activity,
    grounding: GroundingTotal,
    mask_grounding: GroundingTotal,
    recovery: Option<RecoveryTotal>,
    pool: Pool,
    intervals: Intervals,
}

impl Totals {
    pub(crate) fn new(coder: &dyn Coder, truth: Option<&dyn TruthSource>, options: &EvaluateOptions) -> Self {
        let activity = Activity::new(coder.d_shared(), coder.latents());
        Self {
            pairs: 0,
            vision_errors: Errors::default(),
            text_errors: Errors::default(),
            t2v: CrossErrors::default(),
            v2t: CrossErrors::default(),
            vision_activity: activity.clone(),
            text_activity: activity,
            grounding: GroundingTotal::default(),
            mask_grounding: GroundingTotal::default(),
            recovery: truth.map(|truth| RecoveryTotal::new(truth, coder)),
            pool: Pool::default(),
            intervals: Intervals::new(coder, options),
        }
    }

    pub(crate) fn add(&mut self, pair: PairResult) {
        self.pairs += 1;
        self.vision_errors.add(&pair.vision_errors);
        self.text_errors.add(&pair.text_errors);
        self.t2v.add(&pair.t2v);
        self.v2t.add(&pair.v2t);
        self.vision_activity.add(&pair.vision);
        self.text_activity.add(&pair.text);
        self.grounding.add(&pair.grounding);
        self.mask_grounding.add(&pair.mask_grounding);
        if let (Some(recovery), Some((truth, links))) = (&mut self.recovery, &pair.truth) {
            recovery.add(truth, &pair.vision, &pair.text, links);
        }
        self.intervals.add(&pair, self.recovery.as_ref());
        self.pool.add(pair.pooled);
    }

    pub(crate) fn finish(mut self, measure: &Measure, options: &EvaluateOptions, tokens: Tokens) -> Evaluation {
        let mut skipped = BTreeMap::new();
        let mut skip = |path: &str, reason: &str| {
            skipped.insert(path.to_owned(), reason.to_owned());
        };
        let has_private = measure.coder.latents() > measure.coder.d_shared();
        let (mut r2, mut fvu) = (PerModality { vision: None, text: None }, PerModality { vision: None, text: None });
        let mut cross = PerDirection { t2v: None, v2t: None };
        let shuffled = measure.wrong.is_some();
        for modality in Modality::ALL {
            let name = modality.name();
            let (errors, cross_errors, direction) = match modality {
                Modality::Vision => (&self.vision_errors, &self.t2v, "t2v"),
                Modality::Text => (&self.text_errors, &self.v2t, "v2t"),
            };
            let Some((of_r2, of_fvu)) = errors.finish(has_private) else {
                let reason = format!("the {name} activations do not vary");
                for path in [
                    format!("r2.{name}"),
                    format!("fvu.{name}"),
                    format!("cross.{direction}"),
                    format!("deltaLeak.{direction}"),
                ] {
                    skip(&path, &reason);
                }
                continue;
            };
            if !has_private {
                for metric in ["r2", "fvu"] {
                    skip(&format!("{metric}.{name}.private"), "the model has no private latents");
                }
            }
            if !shuffled {
                skip(&format!("cross.{direction}.controls.shuffledCaption"), "one pair has no other caption");
            }
            let of_cross = cross_errors.finish(errors.spread(), shuffled);
            match modality {
                Modality::Vision => (r2.vision, fvu.vision, cross.t2v) = (Some(of_r2), Some(of_fvu), Some(of_cross)),
                Modality::Text => (r2.text, fvu.text, cross.v2t) = (Some(of_r2), Some(of_fvu), Some(of_cross)),
            }
        }
        let leak = |cross: &Option<Cross>| cross.as_ref().map(|c| c.joint - c.shared);
        let delta_leak = PerDirection { t2v: leak(&cross.t2v), v2t: leak(&cross.v2t) };
        let sparsity = PerModality { vision: self.vision_activity.sparsity(), text: self.text_activity.sparsity() };
        let maxfreq = match (self.text_activity.maxfreq(), self.vision_activity.maxfreq()) {
            (Some(t2i), Some(i2t)) => Some(MaxFrequency { t2i, i2t }),
            _ => None,
        };
        if maxfreq.is_none() {
            skip("maxfreq", "the model has no shared latents");
            skip("sparsity", "the model has no shared latents");
        }
        self.intervals.add_sparsity(&sparsity, &mut skip);
        if !measure.grounding {
            skip(
                "grounding",
                if options.boxes { "no pair has a box and the size of its image" } else { "boxes is off" },
            );
        } else {
            for mode in measure.targets.iter().filter(|&&mode| !self.grounding.has(mode)) {
                let reason = match mode {
                    TargetMode::Phrase => "no box belongs to a phrase of a caption",
                    _ => "no caption names the category of a box",
                };
                skip(&format!("grounding.*.{}", mode.name()), reason);
            }
            if !shuffled {
                skip("grounding.*.*.controls.shuffledCaption", "one pair has no other caption");
            }
        }
        let truth = self.recovery.as_ref().map(|recovery| recovery.finish(&mut skipped));
        let mut pool = std::mem::take(&mut self.pool);
        let (structure, latents) = match pool.finish(measure.coder.d_shared()) {
            Some((structure, latents, pairs)) => {
                self.intervals.add_structure(&pool, &structure, &pairs);
                (Some(structure), Some(latents))
            }
            None => {
                let reason = "fewer than two pairs, or no shared latents".to_owned();
                skipped.extend([("structure".to_owned(), reason.clone()), ("latents".to_owned(), reason)]);
                (None, None)
            }
        };
        if let (Some(recovery), Some(truth)) = (&self.recovery, &truth) {
            self.intervals.add_truth(recovery, truth);
        }
        if truth.is_none() {
            skipped.insert("truth".into(), "the truth of these pairs is not known".into());
        }
        Evaluation {
            format: FORMAT,
            pairs: self.pairs,
            tokens,
            seed: options.seed,
            r2,
            fvu,
            cross,
            delta_leak,
            grounding: self.grounding.finish(),
            mask_grounding: self.mask_grounding.finish(),
            maxfreq,
            sparsity,
            truth,
            structure,
            latents,
            intervals: self.intervals.finish(has_private),
            skipped,
        }
    }
}
