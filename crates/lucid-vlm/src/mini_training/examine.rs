//! What a backbone knows of generated scenes: whether a caption with one wrong word scores below the true one, and whether a
//! picture finds its own caption.

use crate::error::VlmError;
use crate::mini_training::batches;
use crate::mini_training::tokens::caption_ids;
use crate::siglip::Siglip;
use candle_core::{Device, Tensor};
use lucid_data::scenes::{ConceptKind, Scene, SceneOptions, Split, concept_of, scene_with, swap_word};
use serde::Serialize;
use std::fmt::{Display, Formatter};

/// Gives pooled embeddings of scenes and captions; they need not be normalised.
pub trait Examinee {
    /// One embedding per picture.
    fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError>;
    /// One embedding per caption.
    fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError>;
}

/// Pictures and captions run together, to bound memory.
const CHUNK: usize = 32;

impl Examinee for Siglip {
    fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError> {
        let mut all = Vec::with_capacity(scenes.len());
        for chunk in scenes.chunks(CHUNK) {
            let batch = batches::whole(chunk, self.config().text_config.max_position_embeddings)?;
            let output = self.vision_patches(&batch.patches, batch.positions.as_ref(), false)?;
            let pooled = output.pooled.ok_or_else(|| VlmError::Argument {
                option: "backbone".into(),
                found: "a model without a pooling head".into(),
                expected: "vision_use_head".into(),
            })?;
            all.extend(pooled.to_vec2::<f32>()?);
        }
        Ok(all)
    }

    fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError> {
        let length = self.config().text_config.max_position_embeddings;
        let mut all = Vec::with_capacity(captions.len());
        for chunk in captions.chunks(4 * CHUNK) {
            let ids: Vec<u32> = chunk.iter().flat_map(|c| caption_ids(c, length)).collect();
            let ids = Tensor::from_vec(ids, (chunk.len(), length), &Device::Cpu)?;
            all.extend(self.text(&ids, false)?.pooled.to_vec2::<f32>()?);
        }
        Ok(all)
    }
}

/// One-word-swap accuracy of one kind of word.
#[derive(Debug, Clone, Serialize)]
pub struct SwapScore {
    /// Which words were swapped.
    pub kind: ConceptKind,
    /// Share of the pictures whose true caption scores higher than the swapped one. Chance is 0.5.
    pub accuracy: f64,
    /// Number of pictures with such a word.
    pub count: usize,
    /// The accuracy where the wrong word fits nothing in the picture.
    pub absent_accuracy: f64,
    /// Number of those. In the others the wrong word is true of another object, and only knowing which attribute belongs to
    /// which object tells the captions apart.
    pub absent_count: usize,
}

impl SwapScore {
    /// Accuracy and number where the wrong word is true of another object.
    pub fn elsewhere(&self) -> Option<(f64, usize)> {
        let count = self.count - self.absent_count;
        let right = self.accuracy * self.count as f64 - self.absent_accuracy * self.absent_count as f64;
        (count > 0).then(|| (right / count as f64, count))
    }
}

/// What was measured on one set of scenes.
#[derive(Debug, Clone, Serialize)]
pub struct SetScore {
    /// Which scenes.
    pub name: String,
    /// By kind of word.
    pub swaps: Vec<SwapScore>,
}

/// What was measured on a backbone.
#[derive(Debug, Clone, Serialize)]
pub struct Examination {
    /// Scenes of unseen seeds, then scenes with held-out combinations.
    pub sets: Vec<SetScore>,
    /// Share of 256 independent pictures whose own caption scores highest among the 256. Chance is 1/256.
    pub retrieval_random: f64,
    /// The same for 32 families of 8, whose members share background and colours. Chance is 1/256.
    pub retrieval_families: f64,
    /// The same within each family of 8. Chance is 1/8.
    pub retrieval_within: f64,
}

impl SetScore {
    /// The accuracy for `kind`.
    pub fn accuracy(&self, kind: ConceptKind) -> Option<f64> {
        self.swaps.iter().find(|s| s.kind == kind).map(|s| s.accuracy)
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-30)
}

/// One-word-swap accuracy on scenes `0..n` of `seed`.
pub fn swaps(
    examinee: &dyn Examinee,
    name: &str,
    n: u64,
    seed: u64,
    options: &SceneOptions,
) -> Result<SetScore, VlmError> {
    let scenes: Vec<Scene> = (0..n).map(|i| scene_with(seed, i, options)).collect();
    let images = examinee.images(&scenes)?;
    let captions: Vec<String> = scenes.iter().map(|s| s.caption.clone()).collect();
    let texts = examinee.texts(&captions)?;
    let mut scores = Vec::new();
    for kind in ConceptKind::ALL {
        let found: Vec<_> = scenes.iter().enumerate().filter_map(|(i, s)| Some((i, swap_word(s, kind)?))).collect();
        if found.is_empty() {
            continue;
        }
        let wrong: Vec<String> = found.iter().map(|(_, swap)| swap.caption.clone()).collect();
        let others = examinee.texts(&wrong)?;
        let (mut right, mut absent_right, mut absent_count) = (0, 0, 0);
        for ((i, swap), other) in found.iter().zip(&others) {
            let good = usize::from(cosine(&images[*i], &texts[*i]) > cosine(&images[*i], other));
            let visible = !matches!(kind, ConceptKind::Count | ConceptKind::Relation);
            let elsewhere = visible && scenes[*i].truth.holds(concept_of(kind, swap.now));
            right += good;
            absent_right += if elsewhere { 0 } else { good };
            absent_count += usize::from(!elsewhere);
        }
        scores.push(SwapScore {
            kind,
            accuracy: right as f64 / found.len() as f64,
            count: found.len(),
            absent_accuracy: absent_right as f64 / absent_count.max(1) as f64,
            absent_count,
        });
    }
    Ok(SetScore { name: name.into(), swaps: scores })
}

/// Share of the pictures whose own caption (or one of the same text) scores highest among its `group` of neighbours.
fn retrieval(images: &[Vec<f32>], texts: &[Vec<f32>], captions: &[String], group: usize) -> f64 {
    let mut hits = 0;
    for i in 0..images.len() {
        let start = i / group * group;
        let mut best = start;
        for j in start..(start + group).min(images.len()) {
            if cosine(&images[i], &texts[j]) > cosine(&images[i], &texts[best]) {
                best = j;
            }
        }
        hits += usize::from(captions[best] == captions[i]);
    }
    hits as f64 / images.len() as f64
}

/// The whole examination on `n` scenes of either split; `seed` must not be that of the training.
pub fn examine(examinee: &dyn Examinee, n: u64, seed: u64) -> Result<Examination, VlmError> {
    let unseen = SceneOptions::default();
    let held_out = SceneOptions { split: Split::HeldOut, ..unseen };
    let sets = vec![
        swaps(examinee, "unseen scenes", n, seed, &unseen)?,
        swaps(examinee, "held-out combinations", n, seed, &held_out)?,
    ];
    let embed = |options: &SceneOptions| -> Result<_, VlmError> {
        let scenes: Vec<Scene> = (0..256).map(|i| scene_with(seed ^ 0xfa, i, options)).collect();
        let captions: Vec<String> = scenes.iter().map(|s| s.caption.clone()).collect();
        Ok((examinee.images(&scenes)?, examinee.texts(&captions)?, captions))
    };
    let (images, texts, captions) = embed(&unseen)?;
    let retrieval_random = retrieval(&images, &texts, &captions, 256);
    let (images, texts, captions) = embed(&SceneOptions { family: 8, ..unseen })?;
    Ok(Examination {
        sets,
        retrieval_random,
        retrieval_families: retrieval(&images, &texts, &captions, 256),
        retrieval_within: retrieval(&images, &texts, &captions, 8),
    })
}

impl Display for Examination {
    /// As Markdown tables.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.sets.iter().map(|s| s.name.as_str()).collect();
        writeln!(f, "| one word swapped | {} | chance |", names.join(" | "))?;
        writeln!(f, "|---|{}---|", "---|".repeat(self.sets.len()))?;
        for kind in ConceptKind::ALL {
            let mut line = |label: String, pick: &dyn Fn(&SwapScore) -> Option<(f64, usize)>| {
                let cell = |set: &SetScore| match set.swaps.iter().find(|s| s.kind == kind).and_then(pick) {
                    Some((accuracy, count)) => format!("{accuracy:.3} (n {count})"),
                    None => "–".into(),
                };
                writeln!(f, "| {label} | {} | 0.500 |", self.sets.iter().map(cell).collect::<Vec<_>>().join(" | "))
            };
            line(kind.name().into(), &|s| Some((s.accuracy, s.count)))?;
            if matches!(kind, ConceptKind::Color | ConceptKind::Size | ConceptKind::Pattern | ConceptKind::Shape) {
                let name = kind.name();
                line(format!("{name}: wrong word fits nothing"), &|s| Some((s.absent_accuracy, s.absent_count)))?;
                line(format!("{name}: wrong word fits another object"), &SwapScore::elsewhere)?;
            }
        }
        writeln!(f, "\n| picture finds its caption (R@1) | share | chance |\n|---|---|---|")?;
        writeln!(f, "| among 256 independent scenes | {:.3} | 0.004 |", self.retrieval_random)?;
        writeln!(f, "| among 256 scenes in families of 8 | {:.3} | 0.004 |", self.retrieval_families)?;
        writeln!(f, "| within a family of 8 | {:.3} | 0.125 |", self.retrieval_within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows the concepts of `known` kinds perfectly and nothing else.
    struct Oracle(Vec<ConceptKind>);

    impl Oracle {
        fn embed(&self, concepts: impl Iterator<Item = lucid_data::scenes::Concept>) -> Vec<f32> {
            let mut v = vec![0.0; 41];
            v[40] = 0.1;
            concepts.filter(|c| self.0.contains(&c.kind)).for_each(|c| v[c.id] = 1.0);
            v
        }
    }

    impl Examinee for Oracle {
        fn images(&self, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError> {
            let all = lucid_data::scenes::concepts();
            Ok(scenes.iter().map(|s| self.embed(all.iter().copied().filter(|c| s.truth.holds(*c)))).collect())
        }

        fn texts(&self, captions: &[String]) -> Result<Vec<Vec<f32>>, VlmError> {
            let all = lucid_data::scenes::all_concepts();
            let named = |t: &String| -> Vec<_> {
                all.iter().copied().filter(|c| t.split(' ').any(|w| c.words.contains(&w))).collect()
            };
            Ok(captions.iter().map(|t| self.embed(named(t).into_iter())).collect())
        }
    }

    #[test]
    fn the_examination_tells_what_is_known_from_what_is_not() {
        let result = examine(&Oracle(vec![ConceptKind::Background, ConceptKind::Color]), 200, 77).unwrap();
        for set in &result.sets {
            assert_eq!(set.accuracy(ConceptKind::Background), Some(1.0));
            // A bag of attributes cannot tell a wrong word that fits another object.
            let color = set.swaps.iter().find(|s| s.kind == ConceptKind::Color).unwrap();
            assert!(color.absent_accuracy > 0.95 && color.absent_count < color.count, "{color:?}");
            // Equal scores count as wrong: what is not known at all gets nothing.
            assert_eq!(set.accuracy(ConceptKind::Shape), Some(0.0));
        }
        assert!(result.retrieval_random > 0.1 && result.retrieval_families < result.retrieval_random);
    }
}
