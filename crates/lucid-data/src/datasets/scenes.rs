//! Generated scenes as a data set.

use serde::{Deserialize, Serialize};

use super::{DatasetSpec, Source};
use crate::dataset::{BoxAnnotation, Dataset, ImageSource, OnBad, PairRecord};
use crate::error::{DataError, Result};
use crate::scenes::{ConceptKind, Kind, SceneOptions, SceneTruth, Split, concept_of, edited, scene};

/// Generated scenes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScenesSpec {
    /// How many.
    pub pairs: usize,
    /// Seed of the generator.
    #[serde(default)]
    pub seed: u64,
    /// Which combinations of shape and colour occur.
    #[serde(default)]
    pub split: Split,
    /// Causal edits: every second picture is the one before it with one attribute changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edits: bool,
}

impl Source for ScenesSpec {
    fn open(&self, _: OnBad) -> Result<Box<dyn Dataset>> {
        if self.pairs == 0 {
            return Err(DataError::Option { option: "pairs", found: "0".into(), expected: "1 or more".into() });
        }
        Ok(Box::new(Scenes(self.clone())))
    }

    fn portable(&self) -> Self {
        self.clone()
    }
}

/// The first `pairs` scenes of a seed, drawn when they are asked for.
struct Scenes(ScenesSpec);

impl Dataset for Scenes {
    fn len(&self) -> usize {
        self.0.pairs
    }

    fn pair(&self, index: usize) -> Result<PairRecord> {
        if index >= self.0.pairs {
            return Err(super::out_of_range(index, self.0.pairs));
        }
        let ScenesSpec { seed, split, edits, .. } = self.0;
        let (scene, name) = if edits {
            let (before, after, _) = edited(seed, index as u64 / 2, &SceneOptions { split, ..SceneOptions::default() });
            let name = format!("scene-{seed}-{:06}", index / 2);
            if index.is_multiple_of(2) { (before, name) } else { (after, format!("{name}-edited")) }
        } else {
            (scene(seed, index as u64, split, Kind::Random), format!("scene-{seed}-{index:06}"))
        };
        let side = scene.truth.side as u32;
        Ok(PairRecord {
            key: name,
            boxes: boxes(&scene.truth),
            image: ImageSource::Rgb { width: side, height: side, data: scene.rgb },
            captions: vec![scene.caption],
            size: Some((side, side)),
        })
    }

    fn spec(&self) -> DatasetSpec {
        DatasetSpec::Scenes(self.0.clone())
    }
}

/// One box an object: category is its shape, phrase the stretch of words that names its attributes.
fn boxes(truth: &SceneTruth) -> Vec<BoxAnnotation> {
    let phrase = |object: usize| {
        let mention = truth.mentions.iter().find(|m| m.objects.contains(&object))?;
        let spans = mention.attributes.iter().flatten().map(|&w| truth.words[w].span);
        spans.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])])
    };
    let objects = truth.objects.iter().enumerate();
    objects
        .map(|(i, o)| {
            let [x, y, width, height] = o.bbox.map(f64::from);
            BoxAnnotation {
                x,
                y,
                width,
                height,
                category: Some(concept_of(ConceptKind::Shape, o.shape.index()).name.to_string()),
                phrase: phrase(i),
                ..Default::default()
            }
        })
        .collect()
}
