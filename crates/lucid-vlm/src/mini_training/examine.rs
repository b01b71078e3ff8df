//! What a backbone knows of generated scenes: whether a caption with one wrong word scores below the true one, and whether a
//! picture finds its own caption.

use crate::error::VlmError;
use crate::mini_training::batches;
use crate::mini_training::tokens::caption_ids;
use crate::siglip::Siglip;
use candle_core::{Device, Tensor};
use lucid_data::scenes::{ConceptKind, Scene, SceneOptions, Split, scene_with, swap_word};
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
        let (at, wrong): (Vec<usize>, Vec<String>) =
            scenes.iter().enumerate().filter_map(|(i, s)| swap_word(s, kind).map(|w| (i, w.caption))).unzip();
        if at.is_empty() {
            continue;
        }
        let others = examinee.texts(&wrong)?;
        let right = at.iter().zip(&others).filter(|(i, other)| {
            let image = &images[**i];
            cosine(image, &texts[**i]) > cosine(image, other)
        });
        scores.push(SwapScore { kind, accuracy: right.count() as f64 / at.len() as f64, count: at.len() });
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
        writeln!(
            f,
            "| one word swapped | {} | chance |",
            self.sets.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(" | ")
        )?;
        writeln!(f, "|---|{}---|", "---|".repeat(self.sets.len()))?;
        for kind in ConceptKind::ALL {
            write!(f, "| {} |", kind.name())?;
            for set in &self.sets {
                match set.swaps.iter().find(|s| s.kind == kind) {
                    Some(s) => write!(f, " {:.3} (n {}) |", s.accuracy, s.count)?,
                    None => write!(f, " – |")?,
                }
            }
            writeln!(f, " 0.500 |")?;
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
            assert!(set.accuracy(ConceptKind::Color).unwrap() > 0.95);
            // Equal scores count as wrong: what is not known at all gets nothing.
            assert_eq!(set.accuracy(ConceptKind::Shape), Some(0.0));
        }
        assert!(result.retrieval_random > 0.1 && result.retrieval_families < result.retrieval_random);
    }
}
