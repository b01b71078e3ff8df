//! What a scene can show, and the words for it: the closed vocabulary of the generated captions.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

macro_rules! factor {
    ($(#[$doc:meta])* $name:ident, $count:literal, [$($(#[$vdoc:meta])* $variant:ident),+ $(,)?]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// Every value, in order.
            pub const ALL: [$name; $count] = [$($name::$variant),+];
            /// Position in [`Self::ALL`].
            pub fn index(self) -> usize { self as usize }
            /// The first of its words.
            pub fn name(self) -> &'static str { concept_of(ConceptKind::$name, self as usize).name }
        }
    };
}

factor!(
    /// The outline of an object.
    Shape, 8,
    [/// Filled disc.
     Circle, /// Axis-aligned square.
     Square, /// Point up.
     Triangle, /// Five points.
     Star, /// A plus sign.
     Cross, /// Open in the middle.
     Ring, /// Crescent, open to the right.
     Moon, /// Point down.
     Heart]
);
factor!(
    /// The main colour of an object. Hues are about 45° apart.
    Color, 8,
    [/// (222, 32, 38).
     Red, /// (250, 222, 40).
     Yellow, /// (28, 168, 62).
     Green, /// (20, 205, 220).
     Cyan, /// (44, 92, 240).
     Blue, /// (140, 52, 205).
     Purple, /// (250, 125, 195).
     Pink, /// (248, 248, 248).
     White]
);
factor!(
    /// The fill of an object: main colour and a dark shade of it.
    Pattern, 4,
    [/// One colour.
     Plain, /// Horizontal stripes.
     Striped, /// Round dots.
     Dotted, /// Squares like a chess board.
     Checkered]
);
factor!(
    /// Half-extents of about 12, 17 and 23 pixels.
    Size, 3,
    [/// About 24 px across.
     Small, /// About 33 px across.
     Medium, /// About 46 px across.
     Large]
);
factor!(
    /// What lies behind the objects.
    Background, 10,
    [/// Plain, light.
     Paper, /// Plain, dark, a few stars.
     Night, /// Soft grey.
     Fog, /// Vertical gradient.
     Sunset, /// Grey noise.
     Static, /// Green blades.
     Grass, /// Light blue with clouds.
     Sky, /// Blue-green waves.
     Water, /// Light brown grain.
     Sand, /// A brick wall.
     Brick]
);
factor!(
    /// How many objects a plural phrase speaks of.
    Count, 3,
    [/// 2.
     Two, /// 3.
     Three, /// 4.
     Four]
);
factor!(
    /// Where the first object of a sentence is, seen from the second.
    Relation, 4,
    [/// Smaller x.
     Left, /// Larger x.
     Right, /// Smaller y.
     Above, /// Larger y.
     Below]
);

/// The kind of a concept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConceptKind {
    /// [`Shape`].
    Shape,
    /// [`Color`].
    Color,
    /// [`Pattern`].
    Pattern,
    /// [`Size`].
    Size,
    /// [`Background`].
    Background,
    /// [`Count`].
    Count,
    /// [`Relation`].
    Relation,
}

impl ConceptKind {
    /// Every kind.
    pub const ALL: [ConceptKind; 7] = [
        ConceptKind::Background,
        ConceptKind::Color,
        ConceptKind::Size,
        ConceptKind::Pattern,
        ConceptKind::Shape,
        ConceptKind::Count,
        ConceptKind::Relation,
    ];

    /// Lower-case name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ConceptKind::Shape => "shape",
            ConceptKind::Color => "color",
            ConceptKind::Pattern => "pattern",
            ConceptKind::Size => "size",
            ConceptKind::Background => "background",
            ConceptKind::Count => "count",
            ConceptKind::Relation => "relation",
        }
    }
}

/// One value of one factor, with every word that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Concept {
    /// Position in [`all_concepts`].
    pub id: usize,
    /// The first of its words.
    pub name: &'static str,
    /// Its factor.
    pub kind: ConceptKind,
    /// Position among the values of its factor.
    pub value: usize,
    /// Every word for it, plural forms included.
    pub words: &'static [&'static str],
}

/// Singular and plural of the nouns, in the order of [`Shape::ALL`]: `[singular, plural, singular, plural]`.
const SHAPE_WORDS: [[&str; 4]; 8] = [
    ["circle", "circles", "disc", "discs"],
    ["square", "squares", "box", "boxes"],
    ["triangle", "triangles", "wedge", "wedges"],
    ["star", "stars", "starlet", "starlets"],
    ["cross", "crosses", "plus", "pluses"],
    ["ring", "rings", "hoop", "hoops"],
    ["moon", "moons", "crescent", "crescents"],
    ["heart", "hearts", "valentine", "valentines"],
];
const COLOR_WORDS: [[&str; 2]; 8] = [
    ["red", "crimson"],
    ["yellow", "golden"],
    ["green", "jade"],
    ["cyan", "turquoise"],
    ["blue", "cobalt"],
    ["purple", "violet"],
    ["pink", "rose"],
    ["white", "chalky"],
];
const PATTERN_WORDS: [[&str; 2]; 4] =
    [["plain", "solid"], ["striped", "lined"], ["dotted", "spotted"], ["checkered", "checked"]];
const SIZE_WORDS: [[&str; 2]; 3] = [["small", "tiny"], ["medium", "middling"], ["large", "big"]];
const BACKGROUND_WORDS: [[&str; 2]; 10] = [
    ["paper", "parchment"],
    ["night", "midnight"],
    ["fog", "mist"],
    ["sunset", "dusk"],
    ["static", "noise"],
    ["grass", "lawn"],
    ["sky", "clouds"],
    ["water", "sea"],
    ["sand", "beach"],
    ["brick", "wall"],
];
const COUNT_WORDS: [[&str; 1]; 3] = [["two"], ["three"], ["four"]];
const RELATION_WORDS: [&[&str]; 4] = [&["left"], &["right"], &["above", "over"], &["below", "under"]];

/// Nouns that name no shape: `[singular, plural]`.
pub(super) const GENERIC_NOUNS: [[&str; 2]; 3] = [["shape", "shapes"], ["thing", "things"], ["figure", "figures"]];
/// Words of the sentence frames; they name nothing.
const FRAME_WORDS: [&str; 23] = [
    "a",
    "the",
    "on",
    "and",
    "with",
    "of",
    "to",
    "against",
    "picture",
    "image",
    "there",
    "is",
    "are",
    "this",
    "shows",
    "background",
    "beside",
    "near",
    "photo",
    "in",
    "one",
    "some",
    "scene",
];

/// The words for one value of one factor, singular where there is a plural.
pub(super) fn words_for(kind: ConceptKind, value: usize, plural: bool) -> [&'static str; 2] {
    let pair = |words: &'static [&'static str]| [words[0], words[words.len() - 1]];
    match kind {
        ConceptKind::Shape => {
            let w = &SHAPE_WORDS[value];
            if plural { [w[1], w[3]] } else { [w[0], w[2]] }
        }
        ConceptKind::Color => pair(&COLOR_WORDS[value]),
        ConceptKind::Pattern => pair(&PATTERN_WORDS[value]),
        ConceptKind::Size => pair(&SIZE_WORDS[value]),
        ConceptKind::Background => pair(&BACKGROUND_WORDS[value]),
        ConceptKind::Count => pair(&COUNT_WORDS[value]),
        ConceptKind::Relation => pair(RELATION_WORDS[value]),
    }
}

/// How many values a factor has.
pub fn values_of(kind: ConceptKind) -> usize {
    match kind {
        ConceptKind::Shape => Shape::ALL.len(),
        ConceptKind::Color => Color::ALL.len(),
        ConceptKind::Pattern => Pattern::ALL.len(),
        ConceptKind::Size => Size::ALL.len(),
        ConceptKind::Background => Background::ALL.len(),
        ConceptKind::Count => Count::ALL.len(),
        ConceptKind::Relation => Relation::ALL.len(),
    }
}

/// The 33 concepts that a patch can show, in the order colour (8), background (10), size (3), pattern (4), shape (8).
pub fn concepts() -> &'static [Concept] {
    &all_concepts()[..33]
}

/// [`concepts`] followed by the counts (3) and relations (4), which belong to words but to no patch.
pub fn all_concepts() -> &'static [Concept] {
    static ALL: OnceLock<Vec<Concept>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::with_capacity(40);
        let mut add = |kind, value, words: &'static [&'static str]| {
            all.push(Concept { id: all.len(), name: words[0], kind, value, words });
        };
        COLOR_WORDS.iter().enumerate().for_each(|(i, w)| add(ConceptKind::Color, i, w));
        BACKGROUND_WORDS.iter().enumerate().for_each(|(i, w)| add(ConceptKind::Background, i, w));
        SIZE_WORDS.iter().enumerate().for_each(|(i, w)| add(ConceptKind::Size, i, w));
        PATTERN_WORDS.iter().enumerate().for_each(|(i, w)| add(ConceptKind::Pattern, i, w));
        SHAPE_WORDS.iter().enumerate().for_each(|(i, w)| add(ConceptKind::Shape, i, w));
        COUNT_WORDS.iter().enumerate().for_each(|(i, w)| add(ConceptKind::Count, i, w));
        RELATION_WORDS.iter().enumerate().for_each(|(i, w)| add(ConceptKind::Relation, i, w));
        all
    })
}

/// The concept of one value of one factor.
pub fn concept_of(kind: ConceptKind, value: usize) -> Concept {
    let start = match kind {
        ConceptKind::Color => 0,
        ConceptKind::Background => 8,
        ConceptKind::Size => 18,
        ConceptKind::Pattern => 21,
        ConceptKind::Shape => 25,
        ConceptKind::Count => 33,
        ConceptKind::Relation => 36,
    };
    all_concepts()[start + value]
}

/// Every word that a caption can hold, in a fixed order: words of concepts, generic nouns, frame words.
pub fn vocabulary() -> &'static [&'static str] {
    static ALL: OnceLock<Vec<&'static str>> = OnceLock::new();
    ALL.get_or_init(|| {
        let of_concepts = all_concepts().iter().flat_map(|c| c.words.iter().copied());
        of_concepts.chain(GENERIC_NOUNS.iter().flatten().copied()).chain(FRAME_WORDS).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn concepts_are_indexed_consistently_and_words_are_unique() {
        assert_eq!(concepts().len(), 33);
        assert_eq!(all_concepts().len(), 40);
        for (i, c) in all_concepts().iter().enumerate() {
            assert_eq!(c.id, i);
            assert_eq!(concept_of(c.kind, c.value), *c);
            assert!(c.words.contains(&words_for(c.kind, c.value, false)[0]));
        }
        let words: HashSet<_> = vocabulary().iter().collect();
        assert_eq!(words.len(), vocabulary().len());
        assert!((100..=150).contains(&words.len()), "{}", words.len());
    }
}
