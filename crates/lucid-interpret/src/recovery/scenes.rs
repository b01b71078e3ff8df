//! The truth of generated scenes, drawn again from their seed.

use lucid_data::ScenesSpec;
use lucid_data::scenes::{Edit, Kind, Scene, SceneOptions, SceneTruth, Split, WordTruth, concepts, edited, scene};
use lucid_data::store::AnnotatedSource;

use super::truth::{Link, PairTruth, TruthConcept, TruthSource};
use crate::error::{InterpretError, Result};
use crate::grounding::mask::Mask;
use crate::grounding::queries::tokens_of_span;

/// Truth of a source whose pair i is scene i of a seed. The concepts are the 33 that a patch can show; counts and
/// relations belong to no patch and are left out.
pub struct ScenesTruth<'a> {
    source: &'a dyn AnnotatedSource,
    seed: u64,
    split: Split,
    edits: bool,
    concepts: Vec<TruthConcept>,
}

impl<'a> ScenesTruth<'a> {
    /// The truth of `source`, made from the scenes of `spec`.
    #[must_use]
    pub fn new(source: &'a dyn AnnotatedSource, spec: &ScenesSpec) -> Self {
        let concept = |c: &lucid_data::scenes::Concept| TruthConcept {
            name: c.name.into(),
            kind: c.kind.name().into(),
            words: c.words.iter().map(|&word| word.into()).collect(),
        };
        let &ScenesSpec { seed, split, edits, .. } = spec;
        Self { source, seed, split, edits, concepts: concepts().iter().map(concept).collect() }
    }

    fn drawn(&self, pair: usize) -> Scene {
        match self.edits {
            false => scene(self.seed, pair as u64, self.split, Kind::Random),
            true if pair.is_multiple_of(2) => self.edited(pair).0,
            true => self.edited(pair).1,
        }
    }

    /// The scenes of an edit, before and after.
    fn edited(&self, pair: usize) -> (Scene, Scene, Edit) {
        edited(self.seed, pair as u64 / 2, &SceneOptions { split: self.split, ..SceneOptions::default() })
    }
}

impl TruthSource for ScenesTruth<'_> {
    fn concepts(&self) -> &[TruthConcept] {
        &self.concepts
    }

    fn pair(&self, pair: usize) -> Result<PairTruth> {
        let drawn = self.drawn(pair);
        let info = self.source.info(pair);
        let grid = drawn.truth.grid();
        // Another seed or data set would give truth that looks right and is not.
        if info.captions.first() != Some(&drawn.caption) {
            let found = format!("the caption {:?}", info.captions.first().map_or("", String::as_str));
            let expected = format!("{:?}, scene {pair} of seed {}", drawn.caption, self.seed);
            return Err(InterpretError::shape(format!("pair '{}'", info.key), found, expected));
        }
        if info.vision_grid != [grid as u32; 2] {
            let [rows, columns] = info.vision_grid;
            return Err(InterpretError::shape(
                "the patch grid",
                format!("{rows} × {columns}"),
                format!("{grid} × {grid}, the scene's"),
            ));
        }
        let tokens = self.source.text_tokens(pair, 0);
        let known = self.concepts.len();
        let mut truth = PairTruth {
            patches: (0..grid * grid)
                .map(|patch| {
                    drawn.truth.patch_concepts(patch).into_iter().map(|(c, share)| (c.id as u32, share)).collect()
                })
                .collect(),
            tokens: vec![Vec::new(); tokens.kinds.len()],
            links: Vec::new(),
        };
        for word in &drawn.truth.words {
            let Some(concept) = word.concept.filter(|concept| concept.id < known) else { continue };
            let patches = patches_of(&drawn.truth, word);
            for token in tokens_of_span(&tokens, word.span) {
                truth.tokens[token].push((concept.id as u32, 1.0));
                if !patches.is_empty() {
                    truth.links.push(Link { token, concept: concept.id as u32, patches: patches.clone() });
                }
            }
        }
        Ok(truth)
    }

    fn masks(&self, pair: usize) -> Option<Vec<Mask>> {
        let truth = self.drawn(pair).truth;
        Some((0..truth.objects.len()).map(|object| Mask::new(truth.side, truth.mask(object))).collect())
    }

    fn edit(&self, pair: usize) -> Option<[u32; 2]> {
        let Edit { from, to } = (self.edits && pair % 2 == 1).then(|| self.edited(pair).2)?;
        Some([from.id as u32, to.id as u32])
    }
}

/// Patches that a word speaks of, with the share of their area.
fn patches_of(truth: &SceneTruth, word: &WordTruth) -> Vec<(u32, f32)> {
    let share = |patch: usize| {
        let objects = truth.object_fractions(patch);
        let of_objects: f32 = word.objects.iter().map(|&object| objects[object]).sum();
        if word.background { of_objects + truth.background_fraction(patch) } else { of_objects }
    };
    let patches = truth.grid() * truth.grid();
    (0..patches).map(|patch| (patch as u32, share(patch))).filter(|&(_, share)| share > 0.0).collect()
}
