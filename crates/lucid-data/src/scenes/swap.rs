//! Hard negatives: the caption with exactly one attribute word replaced, so that it is false.

use super::Scene;
use super::concepts::{ConceptKind, Relation, values_of, words_for};
use super::random::Stream;
use super::truth::ATTRIBUTES;

/// A caption made false by one word.
#[derive(Debug, Clone, PartialEq)]
pub struct Swap {
    /// The false caption; it has as many words as the true one.
    pub caption: String,
    /// Position of the replaced word.
    pub word: usize,
    /// What the word named, as a position among the values of its kind.
    pub was: usize,
    /// What it names now.
    pub now: usize,
}

/// Replaces one word of `kind` by a word for another value of the same kind that makes the caption false: no object fits
/// the new phrase (attributes), the number is another (counts), the relation holds for no fitting pair (relations).
/// `None` when the caption has no word of this kind or no replacement is false. Pure in the scene.
pub fn swap_word(scene: &Scene, kind: ConceptKind) -> Option<Swap> {
    let truth = &scene.truth;
    let mut stream = Stream::new(scene.seed, scene.index, 0x5a00 + kind as u64);
    // Every (word, new value) that makes the caption false.
    let mut choices: Vec<(usize, usize, bool)> = Vec::new();
    let others = |word: usize| {
        let was = truth.words[word].concept.map(|c| c.value);
        (0..values_of(kind)).filter(move |&v| Some(v) != was)
    };
    match kind {
        ConceptKind::Background => {
            for (word, w) in truth.words.iter().enumerate() {
                if w.concept.is_some_and(|c| c.kind == ConceptKind::Background) {
                    choices.extend(others(word).map(|v| (word, v, false)));
                }
            }
        }
        ConceptKind::Count => {
            for m in &truth.mentions {
                if let Some(word) = m.count {
                    choices.extend(others(word).map(|v| (word, v, false)));
                }
            }
        }
        ConceptKind::Relation => {
            if let (Some(r), [first, second, ..]) = (truth.relation, truth.mentions.as_slice()) {
                let opposite = match r.relation {
                    Relation::Left => Relation::Right,
                    Relation::Right => Relation::Left,
                    Relation::Above => Relation::Below,
                    Relation::Below => Relation::Above,
                };
                let seconds = truth.satisfying(&truth.stated(second));
                let holds = truth
                    .satisfying(&truth.stated(first))
                    .iter()
                    .any(|&a| seconds.iter().any(|&b| a != b && truth.related(opposite, a, b)));
                if !holds {
                    choices.push((r.word, opposite.index(), false));
                }
            }
        }
        ConceptKind::Shape | ConceptKind::Color | ConceptKind::Pattern | ConceptKind::Size => {
            let attribute = ATTRIBUTES.iter().position(|&k| k == kind)?;
            for m in &truth.mentions {
                if let Some(word) = m.attributes[attribute] {
                    for value in others(word) {
                        let mut stated = truth.stated(m);
                        stated[attribute] = Some(value);
                        if truth.satisfying(&stated).is_empty() {
                            choices.push((word, value, m.plural && kind == ConceptKind::Shape));
                        }
                    }
                }
            }
        }
    }
    if choices.is_empty() {
        return None;
    }
    let &(word, now, plural) = stream.pick(&choices);
    let new = *stream.pick(&words_for(kind, now, plural));
    let w = &truth.words[word];
    let caption = format!("{}{new}{}", &scene.caption[..w.span[0]], &scene.caption[w.span[1]..]);
    Some(Swap { caption, word, was: w.concept.map(|c| c.value)?, now })
}
