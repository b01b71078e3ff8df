//! Generated pictures with captions, and the whole truth about both.
//!
//! A scene is a pure function of `(seed, index)` and [`SceneOptions`]: 112 × 112 pixels, 14 × 14 patches of 8, one to four
//! objects (8 shapes × 8 colours × 4 patterns × 3 sizes) on one of 10 backgrounds, and a caption of at most 23 words from a
//! closed vocabulary ([`vocabulary`]). [`SceneTruth`] says which object owns every pixel, what share of every patch shows which
//! concept, and what every word of the caption speaks of. [`swap_word`] gives captions that one word makes false,
//! [`false_captions`] several of them to train on; [`edited`] gives a second picture that differs in one attribute.
//! No transcendental function is called, so the same seed gives the same bytes on every machine.

mod backgrounds;
mod concepts;
mod edit;
mod grammar;
mod layout;
mod random;
mod render;
mod shapes;
mod swap;
mod truth;

pub use concepts::{
    Background, Color, Concept, ConceptKind, Count, Pattern, Relation, Shape, Size, all_concepts, concept_of, concepts,
    values_of, vocabulary,
};
pub use edit::{EDITABLE, Edit, edited};
pub use grammar::MAX_WORDS;
pub use layout::is_held_out;
pub use random::Stream;
pub use swap::{Falsehoods, Swap, false_captions, swap_word};
pub use truth::{ATTRIBUTES, Mention, ObjectTruth, PATCH, RelationTruth, SceneTruth, WordTruth};

use serde::{Deserialize, Serialize};

/// Which combinations of shape and colour a scene may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Never one of the six held-out combinations ([`is_held_out`]).
    #[default]
    Train,
    /// At least one object is a held-out combination.
    HeldOut,
    /// Any combination.
    All,
}

/// Whether neighbouring indices resemble each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every index is independent.
    #[default]
    Random,
    /// Indices 8f … 8f + 7 share background, number of objects and colours; shapes, patterns, sizes and places differ.
    Family,
}

/// The picture's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Canvas {
    /// 112 × 112, one to four objects.
    #[default]
    Scene,
    /// 56 × 56, one object: a quarter of a scene, for the first stage of training the mini backbone.
    Single,
}

impl Canvas {
    /// Width and height in pixels.
    pub fn side(self) -> usize {
        match self {
            Canvas::Scene => 112,
            Canvas::Single => 56,
        }
    }
}

/// How hard the pictures are to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Large, plain objects on paper, night or fog: the start of a curriculum.
    Easy,
    /// Everything.
    #[default]
    Full,
}

/// How much a caption says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wording {
    /// (Nearly) every attribute of up to three groups of objects.
    Full,
    /// Objects and attributes are left out at random.
    #[default]
    Optional,
}

/// Which objects come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crowd {
    /// One to four objects, alone or in groups of equals.
    #[default]
    Any,
    /// Two that differ, and a caption that says how they lie: the start of a curriculum for relations.
    Pair,
    /// Two to four equal ones, and a caption that counts them: the start of a curriculum for numbers.
    Group,
    /// As `Pair`, and the caption always begins with the object of the family's first colour. While a family lasts, the
    /// word of the relation alone then tells where that colour is; in `Pair` neither it nor the order of the phrases tells
    /// anything without the other, and nothing pulls a model towards using both.
    OrderedPair,
}

/// Everything but seed and index that decides a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SceneOptions {
    /// Allowed combinations.
    pub split: Split,
    /// Number of consecutive indices that form a family; 1 for independent scenes.
    pub family: usize,
    /// Format.
    pub canvas: Canvas,
    /// Difficulty.
    pub level: Level,
    /// Completeness of captions.
    pub wording: Wording,
    /// Which objects come together; only [`Crowd::Any`] on the small canvas, which holds one.
    #[serde(default)]
    pub crowd: Crowd,
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self {
            split: Split::Train,
            family: 1,
            canvas: Canvas::Scene,
            level: Level::Full,
            wording: Wording::Optional,
            crowd: Crowd::Any,
        }
    }
}

/// A picture, its caption and the truth about both.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// The seed it was drawn from.
    pub seed: u64,
    /// Its index under that seed.
    pub index: u64,
    /// `side · side · 3` bytes, RGB, row by row (`side` = [`SceneTruth::side`]).
    pub rgb: Vec<u8>,
    /// Lower-case words separated by single spaces.
    pub caption: String,
    /// What is true of picture and caption.
    pub truth: SceneTruth,
}

/// Scene `index` of `seed`: 112 × 112 pixels, full difficulty, optional wording.
pub fn scene(seed: u64, index: u64, split: Split, kind: Kind) -> Scene {
    let family = if kind == Kind::Family { 8 } else { 1 };
    scene_with(seed, index, &SceneOptions { split, family, ..SceneOptions::default() })
}

/// The plan of a scene, and the stream that draws and words it.
fn planned(seed: u64, index: u64, options: &SceneOptions) -> (layout::Plan, Stream) {
    let family = options.family.max(1) as u64;
    // Families and lone scenes, splits, formats and crowds are drawn from separate streams of the same seed.
    let domain = (options.crowd as u64) << 12
        | (options.split as u64) << 8
        | (options.canvas as u64) << 4
        | u64::from(family > 1) << 2;
    let mut common = Stream::new(seed, index / family, domain);
    let mut own = Stream::new(seed, index, domain | 1);
    let plan = layout::plan(options, &mut common, (index % family) as usize, &mut own);
    (plan, own)
}

/// Scene `index` of `seed` under `options`.
pub fn scene_with(seed: u64, index: u64, options: &SceneOptions) -> Scene {
    let (plan, mut own) = planned(seed, index, options);
    let side = options.canvas.side();
    let drawn = render::draw(side, plan.background, &plan.objects, &mut own);
    let mut truth = SceneTruth::of(side, plan.background, &plan.objects, drawn.owner);
    let caption = grammar::caption(&mut truth, &plan, options, &mut own);
    Scene { seed, index, rgb: drawn.rgb, caption, truth }
}
