//! Generated scenes as a data set.

use crate::dataset::{BoxAnnotation, Dataset, DatasetSpec, ImageSource, PairRecord};
use crate::error::{DataError, Result};
use crate::scenes::{ConceptKind, Kind, SceneTruth, Split, concept_of, scene};

/// The first `pairs` scenes of a seed, drawn when they are asked for.
pub(crate) struct Scenes {
    pairs: usize,
    seed: u64,
    split: Split,
}

impl Scenes {
    pub(crate) fn open(pairs: usize, seed: u64, split: Split) -> Result<Self> {
        if pairs == 0 {
            return Err(DataError::Option { option: "pairs", found: "0".into(), expected: "1 or more".into() });
        }
        Ok(Self { pairs, seed, split })
    }
}

impl Dataset for Scenes {
    fn len(&self) -> usize {
        self.pairs
    }

    fn pair(&self, index: usize) -> Result<PairRecord> {
        if index >= self.pairs {
            return Err(super::out_of_range(index, self.pairs));
        }
        let scene = scene(self.seed, index as u64, self.split, Kind::Random);
        let side = scene.truth.side as u32;
        Ok(PairRecord {
            key: format!("scene-{}-{index:06}", self.seed),
            boxes: boxes(&scene.truth),
            image: ImageSource::Rgb { width: side, height: side, data: scene.rgb },
            captions: vec![scene.caption],
            size: Some((side, side)),
        })
    }

    fn spec(&self) -> DatasetSpec {
        DatasetSpec::Scenes { pairs: self.pairs, seed: self.seed, split: self.split }
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
