//! Hard negatives: captions that a word or two make false.

use super::Scene;
use super::concepts::{Color, ConceptKind, Relation, Shape, concept_of, values_of, words_for};
use super::layout::is_held_out;
use super::random::Stream;
use super::truth::{ATTRIBUTES, Mention, SceneTruth};

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

/// A word to put in the place of another: its position, what it names, and whether it is plural.
#[derive(Debug, Clone, Copy)]
struct Replacement {
    word: usize,
    kind: ConceptKind,
    value: usize,
    plural: bool,
}

/// Every single replacement of a word of `kind` that makes the caption false.
fn replacements(truth: &SceneTruth, kind: ConceptKind) -> Vec<Replacement> {
    let mut found = Vec::new();
    let mut add = |word, value, plural| found.push(Replacement { word, kind, value, plural });
    let others = |word: usize| {
        let was = truth.words[word].concept.map(|c| c.value);
        (0..values_of(kind)).filter(move |&v| Some(v) != was)
    };
    match kind {
        ConceptKind::Background => {
            for (word, w) in truth.words.iter().enumerate() {
                if w.concept.is_some_and(|c| c.kind == ConceptKind::Background) {
                    others(word).for_each(|v| add(word, v, false));
                }
            }
        }
        ConceptKind::Count => {
            for word in truth.mentions.iter().filter_map(|m| m.count) {
                others(word).for_each(|v| add(word, v, false));
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
                    add(r.word, opposite.index(), false);
                }
            }
        }
        ConceptKind::Shape | ConceptKind::Color | ConceptKind::Pattern | ConceptKind::Size => {
            let attribute = attribute_of(kind);
            for m in &truth.mentions {
                if let Some(word) = m.attributes[attribute] {
                    for value in others(word) {
                        if truth.satisfying(&with(truth, m, attribute, value)).is_empty() {
                            add(word, value, m.plural && kind == ConceptKind::Shape);
                        }
                    }
                }
            }
        }
    }
    found
}

/// Every exchange of the words of `kind` between two phrases that leaves one of them without an object that fits.
fn exchanges(truth: &SceneTruth, kind: ConceptKind) -> Vec<[Replacement; 2]> {
    let attribute = attribute_of(kind);
    let mut found = Vec::new();
    for (i, a) in truth.mentions.iter().enumerate() {
        for b in &truth.mentions[i + 1..] {
            let (Some(at), Some(bt)) = (a.attributes[attribute], b.attributes[attribute]) else { continue };
            let (Some(av), Some(bv)) = (truth.stated(a)[attribute], truth.stated(b)[attribute]) else { continue };
            let fits = |m: &Mention, value| !truth.satisfying(&with(truth, m, attribute, value)).is_empty();
            if av != bv && !(fits(a, bv) && fits(b, av)) {
                let plural = |m: &Mention| m.plural && kind == ConceptKind::Shape;
                found.push([
                    Replacement { word: at, kind, value: bv, plural: plural(a) },
                    Replacement { word: bt, kind, value: av, plural: plural(b) },
                ]);
            }
        }
    }
    found
}

fn attribute_of(kind: ConceptKind) -> usize {
    ATTRIBUTES.iter().position(|&k| k == kind).unwrap_or_default()
}

/// What a phrase states when the word for one attribute names another value.
fn with(truth: &SceneTruth, mention: &Mention, attribute: usize, value: usize) -> [Option<usize>; 4] {
    let mut stated = truth.stated(mention);
    stated[attribute] = Some(value);
    stated
}

/// The caption with words replaced, each by a random word for its new value.
fn rewrite(scene: &Scene, edit: &[Replacement], stream: &mut Stream) -> String {
    let mut caption = String::with_capacity(scene.caption.len() + 16);
    for (at, word) in scene.truth.words.iter().enumerate() {
        if at > 0 {
            caption.push(' ');
        }
        match edit.iter().find(|r| r.word == at) {
            Some(r) => caption.push_str(stream.pick::<&str>(&words_for(r.kind, r.value, r.plural))),
            None => caption.push_str(&scene.caption[word.span[0]..word.span[1]]),
        }
    }
    caption
}

/// Replaces one word of `kind` by a word for another value of the same kind that makes the caption false: no object fits
/// the new phrase (attributes), the number is another (counts), the relation holds for no fitting pair (relations).
/// `None` when the caption has no word of this kind or no replacement is false. Pure in the scene.
pub fn swap_word(scene: &Scene, kind: ConceptKind) -> Option<Swap> {
    let mut stream = Stream::new(scene.seed, scene.index, 0x5a00 + kind as u64);
    let choices = replacements(&scene.truth, kind);
    if choices.is_empty() {
        return None;
    }
    let chosen = *stream.pick(&choices);
    let was = scene.truth.words[chosen.word].concept?.value;
    Some(Swap { caption: rewrite(scene, &[chosen], &mut stream), word: chosen.word, was, now: chosen.value })
}

/// Whether a phrase of the edited caption names a combination of shape and colour that is kept out of training.
fn names_held_out(truth: &SceneTruth, edit: &[Replacement]) -> bool {
    truth.mentions.iter().any(|m| {
        let mut stated = truth.stated(m);
        for (attribute, at) in m.attributes.iter().enumerate() {
            if let Some(r) = edit.iter().find(|r| Some(r.word) == *at) {
                stated[attribute] = Some(r.value);
            }
        }
        let [shape, color, ..] = stated;
        shape.zip(color).is_some_and(|(s, c)| is_held_out(Shape::ALL[s], Color::ALL[c]))
    })
}

/// Which false captions are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Falsehoods {
    /// How many.
    pub count: usize,
    /// The kind whose false captions, where there are any, come before the others.
    pub first: Option<ConceptKind>,
    /// A replaced attribute becomes one of another object of the picture, where that is false too: what
    /// [`crate::scenes::false_captions`] asks by an exchange, with one word.
    pub misplaced: bool,
}

/// False captions to train on, each of a kind drawn anew while there are kinds: one word replaced as by
/// [`swap_word`], or the words of one kind exchanged between two phrases, so that only knowing what belongs to what tells
/// that the caption is false.
/// None names a held-out combination, true or not, so that the split stays one.
/// Where there are fewer kinds than are asked for they are used again; empty when the caption says nothing that could be false.
pub fn false_captions(scene: &Scene, wanted: &Falsehoods, stream: &mut Stream) -> Vec<String> {
    let truth = &scene.truth;
    let replaced = |k| (k, replacements(truth, k).into_iter().map(|r| vec![r]).collect());
    let exchanged = |k| (k, exchanges(truth, k).into_iter().map(Vec::from).collect());
    let kinds = ConceptKind::ALL.into_iter().map(replaced).chain(ATTRIBUTES.into_iter().map(exchanged));
    let mut kinds: Vec<(ConceptKind, Vec<Vec<Replacement>>)> = kinds.collect();
    kinds.iter_mut().for_each(|(_, edits)| edits.retain(|e| !names_held_out(truth, e)));
    if wanted.misplaced {
        kinds.iter_mut().for_each(|(kind, edits)| keep_misplaced(truth, *kind, edits));
    }
    kinds.retain(|(_, edits)| !edits.is_empty());
    stream.shuffle(&mut kinds);
    kinds.sort_by_key(|(kind, _)| Some(*kind) != wanted.first);
    let drawn = kinds.iter().cycle().take(if kinds.is_empty() { 0 } else { wanted.count });
    drawn
        .map(|(_, edits)| {
            let edit: &Vec<Replacement> = stream.pick(edits);
            rewrite(scene, edit, stream)
        })
        .collect()
}

/// Of edits of one attribute those whose new words are true of some object, where there are any; others as they are.
fn keep_misplaced(truth: &SceneTruth, kind: ConceptKind, edits: &mut Vec<Vec<Replacement>>) {
    let of_another = |edit: &Vec<Replacement>| edit.iter().all(|r| truth.holds(concept_of(kind, r.value)));
    if ATTRIBUTES.contains(&kind) && edits.iter().any(of_another) {
        edits.retain(of_another);
    }
}
