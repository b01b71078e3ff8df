//! Retrieval: whether a picture finds its own caption among those of other scenes.

use super::examinee::Examinee;
use super::swaps::cosine;
use super::watch::Watch;
use crate::error::VlmError;
use lucid_data::scenes::{Scene, SceneOptions, scene_with};
use serde::Serialize;

/// Pictures of each set.
pub(super) const PICTURES: usize = 256;
/// Members of a family, which share background and colours.
const FAMILY: usize = 8;

/// Among which captions a picture looks for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Among {
    /// Those of 256 independent scenes.
    Independent,
    /// Those of 32 families of 8.
    Families,
    /// Those of its own family of 8.
    WithinFamily,
}

/// R@1 of one kind of retrieval.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retrieval {
    /// Which captions compete.
    pub among: Among,
    /// Share of the pictures whose own caption (or one of the same text) has the highest cosine.
    pub recall: f64,
    /// One over the number of captions.
    pub chance: f64,
    /// The same share for the untrained backbone.
    pub untrained: f64,
}

/// The two sets of scenes that retrieval needs: independent ones, and families.
pub(super) fn scenes(seed: u64) -> [Vec<Scene>; 2] {
    [1, FAMILY].map(|family| {
        let options = SceneOptions { family, ..SceneOptions::default() };
        (0..PICTURES as u64).map(|i| scene_with(seed, i, &options)).collect()
    })
}

/// Share of the pictures whose own caption scores highest among its `group` of neighbours.
fn recall(images: &[Vec<f32>], texts: &[Vec<f32>], scenes: &[Scene], group: usize) -> f64 {
    let mut hits = 0;
    for i in 0..images.len() {
        let start = i / group * group;
        let mut best = start;
        for j in start..(start + group).min(images.len()) {
            if cosine(&images[i], &texts[j]) > cosine(&images[i], &texts[best]) {
                best = j;
            }
        }
        hits += usize::from(scenes[best].caption == scenes[i].caption);
    }
    hits as f64 / images.len() as f64
}

/// Recall among independent scenes, among families, within families.
pub(super) fn recalls(
    examinee: &dyn Examinee,
    [independent, families]: &[Vec<Scene>; 2],
    watch: &mut Watch<'_>,
) -> Result<[f64; 3], VlmError> {
    let mut embed = |scenes: &[Scene]| -> Result<_, VlmError> {
        let captions: Vec<String> = scenes.iter().map(|s| s.caption.clone()).collect();
        Ok((watch.images(examinee, scenes)?, examinee.texts(&captions)?))
    };
    let (images, texts) = embed(independent)?;
    let random = recall(&images, &texts, independent, PICTURES);
    let (images, texts) = embed(families)?;
    let among = |group| recall(&images, &texts, families, group);
    Ok([random, among(PICTURES), among(FAMILY)])
}

/// The three kinds with their chances.
pub(super) fn compare(trained: [f64; 3], untrained: [f64; 3]) -> Vec<Retrieval> {
    let kinds = [(Among::Independent, PICTURES), (Among::Families, PICTURES), (Among::WithinFamily, FAMILY)];
    let row = |(i, (among, captions))| Retrieval {
        among,
        recall: trained[i],
        chance: 1.0 / captions as f64,
        untrained: untrained[i],
    };
    kinds.into_iter().enumerate().map(row).collect()
}
