//! Whether the names that Algorithm 1 gives are true, where the truth is known.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::evaluation::TruthRecovery;

/// How many labels are right.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelScore {
    /// Latents with a label.
    pub labels: u64,
    /// Of these, the latents whose first term is a word for the concept they rise with most over patches.
    pub right: u64,
    /// Names of the concepts that at least one right label names, in the order of the concepts.
    pub concepts: Vec<String>,
    /// Latents whose label is wrong, rising.
    pub wrong: Vec<u32>,
}

/// Holds labels of shared latents, `(latent, label)` with terms separated by `, `, against what the latents stand for.
/// A term that names no known concept is wrong.
#[must_use]
pub fn score_labels<'a>(labels: impl Iterator<Item = (u32, &'a str)>, truth: &TruthRecovery) -> LabelScore {
    let mut score = LabelScore::default();
    let mut named = BTreeSet::new();
    for (latent, label) in labels {
        let term = label.split(", ").next().unwrap_or(label);
        let stands_for = truth.latents.get(latent as usize).and_then(|found| found.vision).map(|best| best.concept);
        let says = truth.concepts.iter().position(|concept| concept.words.iter().any(|word| word == term));
        score.labels += 1;
        match (says, stands_for) {
            (Some(says), Some(concept)) if says == concept as usize => {
                score.right += 1;
                named.insert(says);
            }
            _ => score.wrong.push(latent),
        }
    }
    score.wrong.sort_unstable();
    score.concepts = named.into_iter().map(|concept| truth.concepts[concept].name.clone()).collect();
    score
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{BestConcept, ConceptRecovery, LatentRecovery};

    #[test]
    fn a_label_is_right_where_its_first_term_names_what_the_patches_show() {
        let concept = |name: &str, words: &[&str]| ConceptRecovery {
            name: name.into(),
            words: words.iter().map(|&w| w.into()).collect(),
            ..ConceptRecovery::default()
        };
        let shows = |concept| LatentRecovery { vision: Some(BestConcept { concept, correlation: 0.5 }), text: None };
        let truth = TruthRecovery {
            concepts: vec![concept("red", &["red", "crimson"]), concept("star", &["star"])],
            latents: vec![shows(0), shows(1), shows(0), LatentRecovery::default()],
            ..TruthRecovery::default()
        };
        let labels = [(0, "crimson, red"), (2, "red"), (1, "red, star"), (3, "star"), (9, "zebra")];
        let score = score_labels(labels.into_iter(), &truth);
        assert_eq!((score.labels, score.right), (5, 2));
        assert_eq!(score.concepts, ["red"]);
        assert_eq!(score.wrong, [1, 3, 9]);
    }
}
