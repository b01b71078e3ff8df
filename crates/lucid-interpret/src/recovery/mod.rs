//! Recovery of known concepts: what only generated data can measure.
//!
//! - **correlation** of a latent with a concept, in one modality: Pearson's, over all valid tokens of the evaluation
//!   set, between the latent's activation and the concept's strength (for scenes: the share of a patch's area that
//!   shows it; 1 on a token of a word that names it, else 0).
//! - **best latent** of a concept: the *shared* latent of the largest positive correlation, ties to the lower index.
//! - **identity rate**: among the concepts that vary in both modalities, the share whose best latent is the same in both.
//!   **Chance**: what a random matching of concepts would give, in closed form: over all ordered pairs of *different*
//!   concepts (a, b), the share in which a's best latent in vision is b's best latent in text. A single latent that wins
//!   everything makes both 1.
//! - **MCC**: the largest mean correlation (negative ones count 0) over one-to-one assignments of the concepts that vary
//!   in the modality to latents of both blocks.
//! - **right labels**: of the latents that Algorithm 1 names, those whose first term is a word for the concept that the
//!   latent rises with most over patches ([`labels::score_labels`]).
//! - **plan mass**: for a word that speaks of certain patches, the share of its column of the plan on them, every patch
//!   weighted by the share of its area; mean over words. **Transport accuracy**: the share of words whose heaviest patch
//!   is one of theirs.

pub mod assignment;
pub mod correlation;
pub mod labels;
pub mod scenes;
pub mod synth;

pub(crate) mod transport;
pub mod truth;

use std::collections::{BTreeMap, HashMap};

use crate::coder::{Coder, SparseCodes};
use crate::error::{InterpretError, Result};
use crate::evaluation::{
    BestConcept, BestLatent, ConceptRecovery, KindRecovery, LatentRecovery, PerModality, TruthRecovery,
};
use assignment::assign;
use correlation::Correlations;
use transport::{LinkScore, TransportTotal};
use truth::{PairTruth, TruthConcept, TruthSource};

/// Sums over the pairs of a set whose truth is known.
pub(crate) struct RecoveryTotal {
    concepts: Vec<TruthConcept>,
    d_shared: usize,
    vision: Correlations,
    text: Correlations,
    transport: TransportTotal,
}

impl RecoveryTotal {
    pub(crate) fn new(truth: &dyn TruthSource, coder: &dyn Coder) -> Self {
        let concepts = truth.concepts().to_vec();
        Self {
            d_shared: coder.d_shared(),
            vision: Correlations::new(coder.latents(), concepts.len()),
            text: Correlations::new(coder.latents(), concepts.len()),
            transport: TransportTotal::default(),
            concepts,
        }
    }

    pub(crate) fn add(&mut self, truth: &PairTruth, vision: &SparseCodes, text: &SparseCodes, links: &[LinkScore]) {
        self.vision.add(vision, &truth.patches);
        self.text.add(text, &truth.tokens);
        for score in links {
            self.transport.add(score, &self.concepts[score.concept as usize].kind);
        }
    }

    /// What the words of one pair add to the measures of transport: place in the evaluation, sum, number of words.
    pub(crate) fn of_links(&self, links: &[LinkScore]) -> BTreeMap<String, [f64; 2]> {
        let mut sums: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for score in links {
            let kind = &self.concepts[score.concept as usize].kind;
            for of in ["truth".to_owned(), format!("truth.kinds.{kind}")] {
                for (name, value) in [("planMass", score.mass), ("transportAccuracy", score.hit)] {
                    let sum = sums.entry(format!("{of}.{name}")).or_default();
                    *sum = [sum[0] + value, sum[1] + 1.0];
                }
            }
        }
        sums
    }

    /// What each concept adds to the measures that are means over concepts: place in the evaluation, name of the concept, value.
    pub(crate) fn of_concepts(&self, found: &TruthRecovery) -> Vec<(String, &str, f64)> {
        let mut parts = Vec::new();
        for (modality, correlations) in [("vision", &self.vision), ("text", &self.text)] {
            for (concept, correlation) in assigned(correlations) {
                parts.push((format!("truth.mcc.{modality}"), &*self.concepts[concept].name, correlation));
            }
        }
        for (at, concept) in found.concepts.iter().enumerate() {
            if !(self.vision.varies(at) && self.text.varies(at)) {
                continue;
            }
            let (kind, name) = (format!("truth.kinds.{}", concept.kind), &*self.concepts[at].name);
            let same = f64::from(u8::from(is_identical(concept)));
            if found.identity_rate.is_some() {
                parts.push(("truth.identityRate".to_owned(), name, same));
            }
            parts.push((format!("{kind}.identityRate"), name, same));
            for (modality, best) in [("vision", concept.vision), ("text", concept.text)] {
                let correlation = best.map_or(0.0, |best| best.correlation);
                parts.push((format!("{kind}.correlation.{modality}"), name, correlation));
            }
        }
        parts
    }

    /// The measures, with the reason of each that is missing under its path.
    pub(crate) fn finish(&self, skipped: &mut BTreeMap<String, String>) -> TruthRecovery {
        let count = self.concepts.len();
        let best = |correlations: &Correlations, concept| {
            let (latent, correlation) = correlations.best(concept, self.d_shared)?;
            Some(BestLatent { latent, correlation })
        };
        let concepts: Vec<ConceptRecovery> = (0..count)
            .map(|concept| ConceptRecovery {
                name: self.concepts[concept].name.clone(),
                kind: self.concepts[concept].kind.clone(),
                words: self.concepts[concept].words.clone(),
                vision: best(&self.vision, concept),
                text: best(&self.text, concept),
            })
            .collect();
        let both: Vec<usize> = (0..count).filter(|&c| self.vision.varies(c) && self.text.varies(c)).collect();
        let identity = identity(&concepts, &both);
        if identity.is_none() {
            skipped.insert("truth.identityRate".into(), "fewer than two concepts vary in both modalities".into());
        }
        let mcc = PerModality { vision: mcc(&self.vision), text: mcc(&self.text) };
        for (name, value) in [("vision", mcc.vision), ("text", mcc.text)] {
            if value.is_none() {
                skipped.insert(format!("truth.mcc.{name}"), format!("no concept varies in {name}"));
            }
        }
        if self.transport.all.mass.count() == 0 {
            let reason = "no word of the captions is linked to patches";
            for name in ["transportAccuracy", "transportAccuracyUniform", "planMass", "planMassUniform"] {
                skipped.insert(format!("truth.{name}"), reason.into());
            }
        }
        let all = &self.transport.all;
        TruthRecovery {
            identity_rate: identity.map(|(rate, _)| rate),
            identity_chance: identity.map(|(_, chance)| chance),
            mcc,
            transport_accuracy: all.hit.value(),
            transport_accuracy_uniform: all.hit_uniform.value(),
            plan_mass: all.mass.value(),
            plan_mass_uniform: all.mass_uniform.value(),
            kinds: self.kinds(&concepts, &both),
            concepts,
            latents: (0..self.d_shared).map(|latent| self.latent(latent)).collect(),
        }
    }

    fn latent(&self, latent: usize) -> LatentRecovery {
        let best = |correlations: &Correlations| {
            let (concept, correlation) = correlations.best_concept(latent)?;
            Some(BestConcept { concept, correlation })
        };
        LatentRecovery { vision: best(&self.vision), text: best(&self.text) }
    }

    fn kinds(&self, concepts: &[ConceptRecovery], both: &[usize]) -> BTreeMap<String, KindRecovery> {
        let names: std::collections::BTreeSet<&str> = self.concepts.iter().map(|c| c.kind.as_str()).collect();
        let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        let of_kind = |kind: &str| {
            let members: Vec<usize> = both.iter().copied().filter(|&c| concepts[c].kind == kind).collect();
            let same = members.iter().filter(|&&c| is_identical(&concepts[c])).count();
            let correlation = |part: fn(&ConceptRecovery) -> Option<BestLatent>| {
                mean(members.iter().map(|&c| part(&concepts[c]).map_or(0.0, |best| best.correlation)).collect())
            };
            let links = self.transport.kinds.get(kind).cloned().unwrap_or_default();
            KindRecovery {
                concepts: members.len() as u64,
                identity_rate: (!members.is_empty()).then(|| same as f64 / members.len() as f64),
                correlation: PerModality { vision: correlation(|c| c.vision), text: correlation(|c| c.text) },
                words: links.mass.count(),
                transport_accuracy: links.hit.value(),
                transport_accuracy_uniform: links.hit_uniform.value(),
                plan_mass: links.mass.value(),
                plan_mass_uniform: links.mass_uniform.value(),
            }
        };
        names.into_iter().map(|kind| (kind.to_owned(), of_kind(kind))).collect()
    }
}

fn is_identical(concept: &ConceptRecovery) -> bool {
    matches!((concept.vision, concept.text), (Some(v), Some(t)) if v.latent == t.latent)
}

/// (rate, chance) over the concepts listed; `None` with fewer than two.
fn identity(concepts: &[ConceptRecovery], listed: &[usize]) -> Option<(f64, f64)> {
    let n = listed.len();
    if n < 2 {
        return None;
    }
    let same = listed.iter().filter(|&&c| is_identical(&concepts[c])).count();
    let mut in_text: HashMap<u32, usize> = HashMap::new();
    for best in listed.iter().filter_map(|&c| concepts[c].text) {
        *in_text.entry(best.latent).or_default() += 1;
    }
    let pairs: usize = listed
        .iter()
        .filter_map(|&c| concepts[c].vision)
        .map(|best| in_text.get(&best.latent).copied().unwrap_or(0))
        .sum();
    // `pairs` counts every concept with itself too; those are the identical ones.
    Some((same as f64 / n as f64, (pairs - same) as f64 / (n * (n - 1)) as f64))
}

/// Mean correlation under the best assignment; `None` where no concept varies.
fn mcc(correlations: &Correlations) -> Option<f64> {
    let assigned = assigned(correlations);
    let total: f64 = assigned.iter().map(|(_, correlation)| correlation).sum();
    (!assigned.is_empty()).then(|| total / assigned.len() as f64)
}

/// Every concept that varies, and its correlation with the latent that the best assignment gives it.
fn assigned(correlations: &Correlations) -> Vec<(usize, f64)> {
    let concepts: Vec<usize> = (0..correlations.concepts()).filter(|&c| correlations.varies(c)).collect();
    if concepts.is_empty() {
        return Vec::new();
    }
    // With fewer latents than concepts, some concepts are left with nothing: columns of zeros.
    let columns = correlations.latents().max(concepts.len());
    let scores: Vec<f64> = concepts
        .iter()
        .flat_map(|&c| {
            (0..columns).map(move |l| if l < correlations.latents() { correlations.at(l, c).max(0.0) } else { 0.0 })
        })
        .collect();
    let places = assign(concepts.len(), columns, |row, column| scores[row * columns + column]);
    let correlation = |(row, &column): (usize, &usize)| scores[row * columns + column];
    concepts.into_iter().zip(places.iter().enumerate().map(correlation)).collect()
}

/// The truth of a pair, checked against the shape of its activations.
pub(crate) fn checked_truth(
    truth: &dyn TruthSource,
    pair: usize,
    key: &str,
    patches: usize,
    tokens: usize,
) -> Result<PairTruth> {
    let known = truth.pair(pair)?;
    let fits = |name: &str, found: usize, expected: usize| {
        if found == expected {
            return Ok(());
        }
        Err(InterpretError::shape(
            format!("the truth of pair '{key}'"),
            format!("{found} {name}"),
            format!("{expected} {name}"),
        ))
    };
    fits("patches", known.patches.len(), patches)?;
    fits("tokens", known.tokens.len(), tokens)?;
    Ok(known)
}
