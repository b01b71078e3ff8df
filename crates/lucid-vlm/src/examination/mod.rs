//! What a backbone knows of generated scenes, each number beside chance and beside a backbone of the same shape that was never
//! trained.
//!
//! [`swaps`] asks whether a caption with one wrong word scores below the true one, [`retrieval`] whether a picture finds its own
//! caption. Linear [`probes`] ask what a patch's or token's own state tells, at every hook, and [`locality`] whether a patch knows
//! that it shows an object. `docs/examination.md` defines every number.

pub mod examinee;
pub mod locality;
mod logistic;
mod patch_probes;
mod patches;
pub mod probes;
pub mod retrieval;
pub mod swaps;
mod tables;
mod token_probes;
mod watch;

pub use examinee::Examinee;
pub use locality::{Detection, Locality};
pub use probes::{Probe, ProbeOf, ProbeScore};
pub use retrieval::{Among, Retrieval};
pub use swaps::{SetScore, Share, SwapScore};

use crate::backbone::Backbone;
use crate::error::VlmError;
use lucid_data::progress::Observer;
use lucid_data::scenes::{Scene, SceneOptions, Split, scene_with};
use serde::{Deserialize, Serialize};
use watch::Watch;

/// The seed that the mini backbone was trained with: its scenes are no examination.
const TRAINING_SEED: u64 = 1;
/// Captions read for every picture that is probed: they cost less, and each holds few words of a kind.
const CAPTIONS_PER_PICTURE: usize = 4;

/// How a backbone is examined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExamineOptions {
    /// Scenes of each of the two sets that words are swapped in.
    pub scenes: usize,
    /// Scenes of each of the three sets that probes see the pictures of: one to fit on, two to test on. Four times as many captions.
    pub probe_scenes: usize,
    /// Seed of the scenes; not that of any training.
    pub seed: u64,
}

impl Default for ExamineOptions {
    fn default() -> Self {
        Self { scenes: 1000, probe_scenes: 240, seed: 0xe8a3 }
    }
}

impl ExamineOptions {
    /// Seeds of swaps, retrieval, probes' fits and probes' tests.
    fn seeds(&self) -> [u64; 4] {
        [0, 0xfa, 0xf1_7000, 0x7e_5700].map(|part| self.seed ^ part)
    }

    fn check(&self) -> Result<(), VlmError> {
        let bad = |option: &str, found: String, expected: String| {
            Err(VlmError::Argument { option: option.into(), found, expected })
        };
        for (option, found) in [("scenes", self.scenes), ("probeScenes", self.probe_scenes)] {
            if !(1..=1_000_000).contains(&found) {
                return bad(option, found.to_string(), "1 to 1000000".into());
            }
        }
        if self.seeds().contains(&TRAINING_SEED) {
            let expected = format!("a seed whose scenes are not those of training seed {TRAINING_SEED}");
            return bad("seed", self.seed.to_string(), expected);
        }
        Ok(())
    }
}

/// One-word swaps of one kind, beside the untrained backbone.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwapRow {
    /// The backbone's.
    #[serde(flatten)]
    pub score: SwapScore,
    /// Accuracy of guessing without a look at picture or captions.
    pub chance: f64,
    /// The untrained backbone's, on the same captions.
    pub untrained: SwapScore,
    /// What the accuracy is meant to reach.
    pub goal: f64,
}

/// One-word swaps on two sets of scenes, by kind of word.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swaps {
    /// Scenes of an unseen seed.
    pub unseen: Vec<SwapRow>,
    /// Scenes that each hold a combination of shape and colour never seen in training.
    pub held_out: Vec<SwapRow>,
}

/// What was measured on a backbone. As text it is a page of Markdown tables.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Examination {
    /// What identifies the backbone.
    pub backbone: serde_json::Value,
    /// How it was examined; the untrained backbone has the same seed.
    pub options: ExamineOptions,
    /// One-word swaps.
    pub swaps: Swaps,
    /// Pictures that look for their captions.
    pub retrieval: Vec<Retrieval>,
    /// Probes of patches, by hook and kind.
    pub patch_probes: Vec<Probe>,
    /// Whether a patch shows an object, by hook.
    pub locality: Vec<Locality>,
    /// Probes of tokens, by hook and question.
    pub token_probes: Vec<Probe>,
}

/// The part of the examination that needs nothing but embeddings of whole pictures and captions.
fn examine_pooled(
    examinee: &dyn Examinee,
    untrained: &dyn Examinee,
    options: &ExamineOptions,
    observer: &dyn Observer,
) -> Result<(Swaps, Vec<Retrieval>), VlmError> {
    let [seed, others, ..] = options.seeds();
    let mut watch = Watch::new(observer, "swaps", 4 * options.scenes);
    let mut compared = |split: Split| -> Result<Vec<SwapRow>, VlmError> {
        let scenes = draw(seed, options.scenes, split);
        let trained = swaps::swap_scores(examinee, &scenes, &mut watch)?;
        let control = swaps::swap_scores(untrained, &scenes, &mut watch)?;
        // Both went through the same scenes, so they have the same kinds in the same order.
        let pairs = trained.into_iter().zip(control);
        Ok(pairs
            .map(|(score, untrained)| SwapRow { goal: swaps::goal(score.kind), chance: 0.5, score, untrained })
            .collect())
    };
    let swaps = Swaps { unseen: compared(Split::Train)?, held_out: compared(Split::HeldOut)? };
    let scenes = retrieval::scenes(others);
    let mut watch = Watch::new(observer, "retrieval", 4 * retrieval::PICTURES);
    let trained = retrieval::recalls(examinee, &scenes, &mut watch)?;
    let control = retrieval::recalls(untrained, &scenes, &mut watch)?;
    Ok((swaps, retrieval::compare(trained, control)))
}

fn draw(seed: u64, count: usize, split: Split) -> Vec<Scene> {
    let options = SceneOptions { split, ..SceneOptions::default() };
    (0..count as u64).map(|i| scene_with(seed, i, &options)).collect()
}

/// Examines `backbone`. Stages `swaps`, `retrieval`, `patches` and `tokens` of the observer count pictures, captions and fits.
/// The result does not depend on the number of threads.
///
/// # Errors
/// `E_OPTION` for options outside their range and for a backbone without a pooling head, `E_CANCELLED`, `E_EMPTY_TEXT` or
/// `E_TOKENIZER` for a tokenizer that does not take the captions, `E_COMPUTE`.
pub fn examine(
    backbone: &Backbone,
    options: &ExamineOptions,
    observer: &dyn Observer,
) -> Result<Examination, VlmError> {
    options.check()?;
    let untrained = backbone.untrained(options.seed)?;
    let (swaps, retrieval) = examine_pooled(backbone, &untrained, options, observer)?;
    let [_, _, fit, test] = options.seeds();
    let sets =
        |count| [draw(fit, count, Split::Train), draw(test, count, Split::Train), draw(test, count, Split::HeldOut)];
    let n = options.probe_scenes;
    let mut watch = Watch::new(observer, "patches", patch_probes::units(backbone, n));
    let (patch_probes, locality) =
        patch_probes::patch_probes(backbone, &untrained, sets(n).each_ref().map(Vec::as_slice), &mut watch)?;
    let mut watch = Watch::new(observer, "tokens", token_probes::units(backbone, CAPTIONS_PER_PICTURE * n));
    let mut captions = sets(CAPTIONS_PER_PICTURE * n);
    // Only the words are read: the pictures of so many scenes would fill the memory.
    captions.iter_mut().flatten().for_each(|scene| (scene.rgb, scene.truth.owner) = (Vec::new(), Vec::new()));
    let token_probes =
        token_probes::token_probes(backbone, &untrained, captions.each_ref().map(Vec::as_slice), &mut watch)?;
    Ok(Examination {
        backbone: backbone.provenance(),
        options: options.clone(),
        swaps,
        retrieval,
        patch_probes,
        locality,
        token_probes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lucid_data::progress::Silent;
    use lucid_data::scenes::{Concept, ConceptKind, all_concepts, concepts};

    /// Knows the concepts of `known` kinds perfectly and nothing else.
    struct Oracle(Vec<ConceptKind>);

    impl Oracle {
        fn embed(&self, concepts: impl Iterator<Item = Concept>) -> Vec<f32> {
            let mut v = vec![0.0; 41];
            v[40] = 0.1;
            concepts.filter(|c| self.0.contains(&c.kind)).for_each(|c| v[c.id] = 1.0);
            v
        }
    }

    impl Examinee for Oracle {
        fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError> {
            let held =
                |s: &Scene| -> Vec<Concept> { concepts().iter().copied().filter(|c| s.truth.holds(*c)).collect() };
            Ok(scenes.iter().map(|s| self.embed(held(s).into_iter())).collect())
        }

        fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError> {
            let named = |t: &String| -> Vec<_> {
                all_concepts().iter().copied().filter(|c| t.split(' ').any(|w| c.words.contains(&w))).collect()
            };
            Ok(captions.iter().map(|t| self.embed(named(t).into_iter())).collect())
        }
    }

    #[test]
    fn the_examination_tells_what_is_known_from_what_is_not() {
        let oracle = Oracle(vec![ConceptKind::Background, ConceptKind::Color]);
        let options = ExamineOptions { scenes: 200, seed: 77, ..ExamineOptions::default() };
        let (swaps, retrieval) = examine_pooled(&oracle, &Oracle(vec![]), &options, &Silent).unwrap();
        for set in [&swaps.unseen, &swaps.held_out] {
            let of = |kind| set.iter().find(|row| row.score.kind == kind).unwrap();
            assert_eq!(of(ConceptKind::Background).score.accuracy, 1.0);
            assert_eq!(of(ConceptKind::Background).score.absent, None);
            // A bag of attributes cannot tell a wrong word that fits another object.
            let color = &of(ConceptKind::Color).score;
            let (absent, elsewhere) = (color.absent.unwrap(), color.elsewhere.unwrap());
            assert!(absent.accuracy > 0.95 && elsewhere.accuracy < absent.accuracy, "{color:?}");
            assert_eq!(absent.count + elsewhere.count, color.count);
            // Equal scores count as wrong: what is not known at all gets nothing.
            assert_eq!(of(ConceptKind::Shape).score.accuracy, 0.0);
            assert_eq!(of(ConceptKind::Background).untrained.accuracy, 0.0);
        }
        let recall = |among| retrieval.iter().find(|r| r.among == among).unwrap().recall;
        assert!(recall(Among::Independent) > 0.1 && recall(Among::Families) < recall(Among::Independent));
    }

    #[test]
    fn bad_options_are_refused_by_name() {
        let good = ExamineOptions::default();
        assert!(good.check().is_ok());
        let bad = [
            ("scenes", ExamineOptions { scenes: 0, ..good.clone() }),
            ("probeScenes", ExamineOptions { probe_scenes: 0, ..good.clone() }),
            ("seed", ExamineOptions { seed: 1, ..good.clone() }),
            ("seed", ExamineOptions { seed: 1 ^ 0xfa, ..good }),
        ];
        for (option, options) in bad {
            let error = options.check().unwrap_err();
            assert_eq!((error.code(), error.details()["option"].as_str()), ("E_OPTION", Some(option)));
        }
    }
}
