//! One-word swaps: whether a caption with one wrong word scores below the true one.

use super::examinee::Examinee;
use super::watch::Watch;
use crate::error::VlmError;
use lucid_data::progress::Silent;
use lucid_data::scenes::{ATTRIBUTES, ConceptKind, Scene, SceneOptions, concept_of, scene_with, swap_word};
use serde::Serialize;

/// Share of pictures that were right, and of how many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// Share that was right.
    pub accuracy: f64,
    /// Number of pictures.
    pub count: usize,
}

impl Share {
    fn of(right: usize, count: usize) -> Option<Self> {
        (count > 0).then(|| Self { accuracy: right as f64 / count as f64, count })
    }
}

/// One-word-swap accuracy of one kind of word. Equal scores count as wrong.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwapScore {
    /// Which words were swapped.
    pub kind: ConceptKind,
    /// Share of the pictures whose true caption scores higher than the swapped one.
    pub accuracy: f64,
    /// Number of pictures with such a word.
    pub count: usize,
    /// The accuracy when every scene is given the next scene's picture: what the captions alone give away, by a count or a synonym
    /// that is more frequent than others. Absent for a single scene.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_picture: Option<f64>,
    /// Those where the wrong word fits nothing in the picture; for attributes of objects only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<Share>,
    /// Those where the wrong word is true of another object: only knowing which attribute belongs to which object tells the
    /// captions apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Share>,
}

/// What was measured on one set of scenes.
#[derive(Debug, Clone, Serialize)]
pub struct SetScore {
    /// Which scenes.
    pub name: String,
    /// By kind of word.
    pub swaps: Vec<SwapScore>,
}

impl SetScore {
    /// The accuracy for `kind`.
    pub fn accuracy(&self, kind: ConceptKind) -> Option<f64> {
        self.swaps.iter().find(|s| s.kind == kind).map(|s| s.accuracy)
    }
}

/// What the accuracy of each kind is meant to reach.
pub(super) fn goal(kind: ConceptKind) -> f64 {
    match kind {
        ConceptKind::Background | ConceptKind::Color | ConceptKind::Pattern | ConceptKind::Size => 0.95,
        ConceptKind::Shape => 0.88,
        ConceptKind::Count => 0.8,
        ConceptKind::Relation => 0.7,
    }
}

/// Cosine of two embeddings.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
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
    let swaps = swap_scores(examinee, &scenes, &mut Watch::new(&Silent, "swaps", scenes.len()))?;
    Ok(SetScore { name: name.into(), swaps })
}

/// One-word-swap accuracy on these scenes.
pub(super) fn swap_scores(
    examinee: &dyn Examinee,
    scenes: &[Scene],
    watch: &mut Watch<'_>,
) -> Result<Vec<SwapScore>, VlmError> {
    let images = watch.images(examinee, scenes)?;
    let captions: Vec<String> = scenes.iter().map(|s| s.caption.clone()).collect();
    let texts = examinee.texts(&captions)?;
    let mut scores = Vec::new();
    for kind in ConceptKind::ALL {
        watch.check()?;
        let found: Vec<_> = scenes.iter().enumerate().filter_map(|(i, s)| Some((i, swap_word(s, kind)?))).collect();
        if found.is_empty() {
            continue;
        }
        let wrong: Vec<String> = found.iter().map(|(_, swap)| swap.caption.clone()).collect();
        let others = examinee.texts(&wrong)?;
        // Right and all, where the wrong word fits nothing and where it fits another object.
        let mut tally = [[0_usize; 2]; 2];
        let mut blind = 0_usize;
        for ((i, swap), other) in found.iter().zip(&others) {
            let right =
                |picture: usize| usize::from(cosine(&images[picture], &texts[*i]) > cosine(&images[picture], other));
            let good = right(*i);
            blind += right((i + 1) % images.len());
            let elsewhere = ATTRIBUTES.contains(&kind) && scenes[*i].truth.holds(concept_of(kind, swap.now));
            tally[usize::from(elsewhere)][0] += good;
            tally[usize::from(elsewhere)][1] += 1;
        }
        let [absent, elsewhere] = tally;
        let of_objects = |[right, count]: [usize; 2]| {
            if ATTRIBUTES.contains(&kind) { Share::of(right, count) } else { None }
        };
        scores.push(SwapScore {
            kind,
            accuracy: (absent[0] + elsewhere[0]) as f64 / found.len() as f64,
            count: found.len(),
            other_picture: (images.len() > 1).then(|| blind as f64 / found.len() as f64),
            absent: of_objects(absent),
            elsewhere: of_objects(elsewhere),
        });
    }
    Ok(scores)
}
