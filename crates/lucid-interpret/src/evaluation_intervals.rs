//! The confidence intervals of an evaluation: what each pair adds to every resample, and what they come to.

use std::collections::BTreeMap;

use crate::coder::Coder;
use crate::evaluate::{EvaluateOptions, PairResult};
use crate::evaluation::{Interval, PerModality, Quantiles, Sparsity, Structure, TruthRecovery};
use crate::metrics::bootstrap::{Bootstrap, Form};
use crate::metrics::latent_intervals::Frequencies;
use crate::metrics::structure::{PairScores, Pool};
use crate::recovery::RecoveryTotal;

/// Every number in every resample.
pub(crate) struct Intervals {
    bootstrap: Bootstrap,
    d_shared: usize,
    frequencies: PerModality<Frequencies>,
}

impl Intervals {
    pub(crate) fn new(coder: &dyn Coder, options: &EvaluateOptions) -> Self {
        let frequencies = || Some(Frequencies::new(options.bootstrap, coder.d_shared(), coder.latents()));
        Self {
            bootstrap: Bootstrap::new(options.bootstrap, options.seed),
            d_shared: coder.d_shared(),
            frequencies: PerModality { vision: frequencies(), text: frequencies() },
        }
    }

    /// A pair's part of what is a ratio of two sums.
    pub(crate) fn add(&mut self, pair: &PairResult, recovery: Option<&RecoveryTotal>) {
        let weights = self.bootstrap.weights(&pair.key);
        let frequencies = &mut self.frequencies;
        for (frequencies, codes) in [(&mut frequencies.vision, &pair.vision), (&mut frequencies.text, &pair.text)] {
            frequencies.iter_mut().for_each(|frequencies| frequencies.add(&weights, codes));
        }
        let mut add = |path: &str, form: Form, a: f64, b: f64| self.bootstrap.add(&weights, path, form, a, b);
        let sides = [
            ("vision", &pair.vision_errors, &pair.vision, "t2v", &pair.t2v),
            ("text", &pair.text_errors, &pair.text, "v2t", &pair.v2t),
        ];
        for (name, errors, codes, direction, cross) in sides {
            for (block, error) in [("joint", errors.joint), ("shared", errors.shared), ("private", errors.private)] {
                add(&format!("r2.{name}.{block}"), Form::OneMinusRatio, error, errors.spread);
                add(&format!("fvu.{name}.{block}"), Form::Ratio, error, errors.spread);
            }
            for (block, error) in
                [("shared", cross.shared), ("joint", cross.joint), ("controls.uniformPlan", cross.uniform)]
            {
                add(&format!("cross.{direction}.{block}"), Form::OneMinusRatio, error, errors.spread);
            }
            add(&format!("deltaLeak.{direction}"), Form::Ratio, cross.shared - cross.joint, errors.spread);
            if let Some(shuffled) = cross.shuffled {
                let path = format!("cross.{direction}.controls.shuffledCaption");
                add(&path, Form::OneMinusRatio, shuffled, errors.spread);
                // What the caption itself explains.
                let gain = shuffled - cross.shared;
                add(&format!("cross.{direction}.aboveShuffled"), Form::Ratio, gain, errors.spread);
            }
            let shared: usize = (0..codes.len()).map(|token| codes.shared(token).indices.len()).sum();
            let tokens = codes.len() as f64;
            add(&format!("sparsity.{name}.l0.shared"), Form::Ratio, shared as f64, tokens);
            add(&format!("sparsity.{name}.l0.private"), Form::Ratio, (codes.entries() - shared) as f64, tokens);
        }
        if let (Some(recovery), Some((_, links))) = (recovery, &pair.truth) {
            for (path, [sum, words]) in recovery.of_links(links) {
                add(&path, Form::Ratio, sum, words);
            }
        }
        for (part, grounding) in [("grounding", &pair.grounding), ("maskGrounding", &pair.mask_grounding)] {
            grounding.for_each(part, |path, value| add(path, Form::Ratio, value, 1.0));
        }
    }

    /// Quantiles of firing frequencies, and the largest ones. `skip` hears of what was not counted.
    pub(crate) fn add_sparsity(&mut self, found: &PerModality<Sparsity>, mut skip: impl FnMut(&str, &str)) {
        let sides = [
            ("vision", "i2t", &found.vision, &self.frequencies.vision),
            ("text", "t2i", &found.text, &self.frequencies.text),
        ];
        for (name, way, sparsity, frequencies) in sides {
            let (Some(sparsity), Some(frequencies)) = (sparsity, frequencies) else { continue };
            let blocks: [(&str, Option<&Quantiles>); 2] =
                [("shared", Some(&sparsity.density.shared)), ("private", sparsity.density.private.as_ref())];
            for (block, found) in blocks {
                let path = format!("sparsity.{name}.density.{block}");
                let Some(found) = found else { continue };
                let Some(rows) = frequencies.quantiles(block == "shared", found) else {
                    skip(&format!("intervals.{path}"), "more than 64 million counters: fewer resamples would do");
                    continue;
                };
                for (quantile, values) in rows {
                    if (block, quantile) == ("shared", "max") {
                        self.bootstrap.insert(&format!("maxfreq.{way}"), values.clone());
                    }
                    self.bootstrap.insert(&format!("{path}.{quantile}"), values);
                }
            }
        }
    }

    /// What pooled codes tell.
    pub(crate) fn add_structure(&mut self, pool: &Pool, found: &Structure, pairs: &[PairScores]) {
        let bootstrap = &mut self.bootstrap;
        let [bridge, jaccard] = pool.resampled(bootstrap, self.d_shared);
        bootstrap.insert("structure.bridge.mean", bridge);
        bootstrap.insert("structure.jaccard.mean", jaccard);
        let alike = pool.resampled_monosemanticity(bootstrap, self.d_shared);
        bootstrap.insert("structure.monosemanticity.mean", alike);
        for (at, (way, number)) in [("t2i", found.hubness.t2i), ("i2t", found.hubness.i2t)].into_iter().enumerate() {
            let changes = pairs.iter().map(|pair| (&*pair.key, pair.query.hubness[at]));
            let values = bootstrap.linear(number, changes);
            bootstrap.insert(&format!("structure.hubness.{way}"), values);
        }
        for PairScores { key, query, support } in pairs {
            let weights = bootstrap.weights(key);
            for (way, hits) in [("t2i", query.t2i), ("i2t", query.i2t)] {
                for (rank, hit) in [1, 5, 10].into_iter().zip(hits) {
                    let path = format!("structure.retrieval.{way}.at{rank}");
                    bootstrap.add(&weights, &path, Form::Ratio, hit, 1.0);
                }
            }
            bootstrap.add(&weights, "structure.support.jaccard", Form::Ratio, *support, 1.0);
        }
    }

    /// What is a mean over concepts: concepts are drawn anew, not images.
    pub(crate) fn add_truth(&mut self, recovery: &RecoveryTotal, found: &TruthRecovery) {
        for (path, concept, value) in recovery.of_concepts(found) {
            let weights = self.bootstrap.weights(&format!("concept {concept}"));
            self.bootstrap.add(&weights, &path, Form::Ratio, value, 1.0);
        }
    }

    pub(crate) fn finish(&self, has_private: bool) -> BTreeMap<String, Interval> {
        let mut intervals = self.bootstrap.finish();
        // What is absent has no interval either.
        if !has_private {
            intervals.retain(|path, _| !path.ends_with(".private"));
        }
        intervals
    }
}
