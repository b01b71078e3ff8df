//! Generated scenes as a data set.

use serde::{Deserialize, Serialize};

use super::{DatasetSpec, Source};
use crate::dataset::{BoxAnnotation, Dataset, ImageSource, OnBad, PairRecord};
use crate::error::{DataError, Result};
use crate::scenes::{ConceptKind, Kind, SceneTruth, Split, concept_of, scene};

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
        let scene = scene(self.0.seed, index as u64, self.0.split, Kind::Random);
        let side = scene.truth.side as u32;
        Ok(PairRecord {
            key: format!("scene-{}-{index:06}", self.0.seed),
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
                crowd: false,
            }
        })
        .collect()
}
