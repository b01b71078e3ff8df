//! What is true of a scene: per pixel, per patch and per word.

use super::concepts::{Background, Color, Concept, ConceptKind, Pattern, Relation, Shape, Size, concept_of};
use super::render::Placed;

/// Side of a patch in pixels.
pub const PATCH: usize = 8;

/// One object as drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectTruth {
    /// Outline.
    pub shape: Shape,
    /// Main colour.
    pub color: Color,
    /// Fill.
    pub pattern: Pattern,
    /// Named size.
    pub size: Size,
    /// Centre `[x, y]` in pixels.
    pub center: [f32; 2],
    /// `[x, y, width, height]` in pixels: the smallest box around its mask.
    pub bbox: [u32; 4],
}

impl ObjectTruth {
    /// The position of this object's value among the values of `kind`; `None` for kinds that no object has.
    pub fn value(&self, kind: ConceptKind) -> Option<usize> {
        match kind {
            ConceptKind::Shape => Some(self.shape.index()),
            ConceptKind::Color => Some(self.color.index()),
            ConceptKind::Pattern => Some(self.pattern.index()),
            ConceptKind::Size => Some(self.size.index()),
            ConceptKind::Background | ConceptKind::Count | ConceptKind::Relation => None,
        }
    }
}

/// One word of the caption and what it speaks of.
#[derive(Debug, Clone, PartialEq)]
pub struct WordTruth {
    /// Byte span in the caption.
    pub span: [usize; 2],
    /// What the word names; `None` for words of the frame and generic nouns.
    pub concept: Option<Concept>,
    /// The objects the word speaks of.
    pub objects: Vec<usize>,
    /// Whether it speaks of the background.
    pub background: bool,
}

/// A noun phrase: which objects it names, and where its attribute words stand.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mention {
    /// The objects meant.
    pub objects: Vec<usize>,
    /// Whether its noun is plural.
    pub plural: bool,
    /// Position in `words` of the attribute word, by shape, colour, pattern, size.
    pub attributes: [Option<usize>; 4],
    /// Position in `words` of the count.
    pub count: Option<usize>,
}

/// The kinds of [`Mention::attributes`], in order.
pub const ATTRIBUTES: [ConceptKind; 4] =
    [ConceptKind::Shape, ConceptKind::Color, ConceptKind::Pattern, ConceptKind::Size];

/// A relation between the first two mentions of a caption.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelationTruth {
    /// Position in `words`.
    pub word: usize,
    /// What is said.
    pub relation: Relation,
}

/// Everything that is true of one scene.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneTruth {
    /// Width and height in pixels.
    pub side: usize,
    /// The objects.
    pub objects: Vec<ObjectTruth>,
    /// What lies behind them.
    pub background: Background,
    /// Per pixel, row by row: 0 for the background or 1 + the object's position.
    pub owner: Vec<u8>,
    /// Share of each patch that each object covers: `[patches, objects]`, row by row.
    pub object_of_patch: Vec<f32>,
    /// The words of the caption in order.
    pub words: Vec<WordTruth>,
    /// Its noun phrases in order.
    pub mentions: Vec<Mention>,
    /// Its relation, if it states one.
    pub relation: Option<RelationTruth>,
}

impl SceneTruth {
    /// The truth of a drawn plan; words are added by the grammar.
    pub(super) fn of(side: usize, background: Background, placed: &[Placed], owner: Vec<u8>) -> Self {
        let grid = side / PATCH;
        let count = placed.len();
        let mut boxes = vec![[side, side, 0, 0]; count];
        let mut object_of_patch = vec![0.0; grid * grid * count];
        for (pixel, &who) in owner.iter().enumerate() {
            if who > 0 {
                let (x, y, i) = (pixel % side, pixel / side, usize::from(who) - 1);
                let b = &mut boxes[i];
                *b = [b[0].min(x), b[1].min(y), b[2].max(x + 1), b[3].max(y + 1)];
                object_of_patch[((y / PATCH) * grid + x / PATCH) * count + i] += 1.0 / (PATCH * PATCH) as f32;
            }
        }
        let objects = placed
            .iter()
            .zip(&boxes)
            .map(|(p, b)| ObjectTruth {
                shape: p.shape,
                color: p.color,
                pattern: p.pattern,
                size: p.size,
                center: p.center,
                bbox: [b[0] as u32, b[1] as u32, (b[2] - b[0]) as u32, (b[3] - b[1]) as u32],
            })
            .collect();
        Self {
            side,
            objects,
            background,
            owner,
            object_of_patch,
            words: Vec::new(),
            mentions: Vec::new(),
            relation: None,
        }
    }

    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.side / PATCH
    }

    /// Share of patch `patch` that each object covers.
    pub fn object_fractions(&self, patch: usize) -> &[f32] {
        let n = self.objects.len();
        &self.object_of_patch[patch * n..(patch + 1) * n]
    }

    /// Share of patch `patch` that shows the background.
    pub fn background_fraction(&self, patch: usize) -> f32 {
        1.0 - self.object_fractions(patch).iter().sum::<f32>()
    }

    /// Which of the 33 concepts hold in patch `patch`, each with the share of the patch's area, by concept id. Areas of
    /// objects that share a concept add up; absent concepts are left out.
    pub fn patch_concepts(&self, patch: usize) -> Vec<(Concept, f32)> {
        let mut found: Vec<(Concept, f32)> = Vec::new();
        let mut add = |concept: Concept, share: f32| {
            if share > 0.0 {
                match found.iter_mut().find(|(c, _)| c.id == concept.id) {
                    Some((_, s)) => *s += share,
                    None => found.push((concept, share)),
                }
            }
        };
        add(concept_of(ConceptKind::Background, self.background.index()), self.background_fraction(patch));
        for (object, &share) in self.objects.iter().zip(self.object_fractions(patch)) {
            for kind in ATTRIBUTES {
                if let Some(value) = object.value(kind) {
                    add(concept_of(kind, value), share);
                }
            }
        }
        found.sort_by_key(|(c, _)| c.id);
        found
    }

    /// The mask of one object: `side · side` flags, row by row.
    pub fn mask(&self, object: usize) -> Vec<bool> {
        self.owner.iter().map(|&o| usize::from(o) == object + 1).collect()
    }

    /// Whether concept `concept` (of the 33) holds anywhere in the scene.
    pub fn holds(&self, concept: Concept) -> bool {
        match concept.kind {
            ConceptKind::Background => self.background.index() == concept.value,
            kind => self.objects.iter().any(|o| o.value(kind) == Some(concept.value)),
        }
    }

    /// The values that a mention states, by shape, colour, pattern, size.
    pub fn stated(&self, mention: &Mention) -> [Option<usize>; 4] {
        mention.attributes.map(|at| at.and_then(|w| self.words[w].concept.map(|c| c.value)))
    }

    /// The objects that have every stated value.
    pub fn satisfying(&self, stated: &[Option<usize>; 4]) -> Vec<usize> {
        let fits = |o: &ObjectTruth| {
            ATTRIBUTES.iter().zip(stated).all(|(&kind, value)| value.is_none() || o.value(kind) == *value)
        };
        (0..self.objects.len()).filter(|&i| fits(&self.objects[i])).collect()
    }

    /// Whether `relation` holds from object `a` to object `b`: the centres differ by at least 14 px along the axis of the
    /// relation, and by at least as much as along the other.
    pub fn related(&self, relation: Relation, a: usize, b: usize) -> bool {
        let (p, q) = (self.objects[a].center, self.objects[b].center);
        let (dx, dy) = (q[0] - p[0], q[1] - p[1]);
        let (along, across) = match relation {
            Relation::Left => (dx, dy),
            Relation::Right => (-dx, dy),
            Relation::Above => (dy, dx),
            Relation::Below => (-dy, dx),
        };
        along >= 14.0 && along >= across.abs()
    }
}
