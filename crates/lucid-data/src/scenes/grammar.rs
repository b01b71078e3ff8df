//! Says what a scene shows: a caption of at most 23 words (24 tokens with the end mark), and what each word speaks of.

use super::concepts::{Concept, ConceptKind, Count, GENERIC_NOUNS, Relation, concept_of, words_for};
use super::random::Stream;
use super::truth::{ATTRIBUTES, Mention, RelationTruth, SceneTruth, WordTruth};
use super::{Crowd, SceneOptions, Wording, layout::Plan};

/// Longest caption in words; one more token ends it.
pub const MAX_WORDS: usize = 23;

/// A caption under construction.
#[derive(Default)]
struct Writer {
    text: String,
    words: Vec<WordTruth>,
}

impl Writer {
    fn say(&mut self, word: &str, concept: Option<Concept>, objects: &[usize], background: bool) -> usize {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let start = self.text.len();
        self.text.push_str(word);
        self.words.push(WordTruth { span: [start, self.text.len()], concept, objects: objects.to_vec(), background });
        self.words.len() - 1
    }

    fn frame(&mut self, words: &str) {
        for word in words.split_whitespace() {
            self.say(word, None, &[], false);
        }
    }
}

/// The usual word three times out of four, else its synonym.
fn synonym(stream: &mut Stream, kind: ConceptKind, value: usize, plural: bool) -> &'static str {
    let [usual, other] = words_for(kind, value, plural);
    if stream.chance(0.75) { usual } else { other }
}

/// What a phrase will state, by shape, colour, pattern, size.
fn choose_stated(truth: &SceneTruth, objects: &[usize], wording: Wording, stream: &mut Stream) -> [bool; 4] {
    let mut stated = match wording {
        Wording::Full => [true, true, true, stream.chance(0.95)],
        Wording::Optional => [stream.chance(0.92), stream.chance(0.90), stream.chance(0.72), stream.chance(0.72)],
    };
    if !stated[0] && !stated[1] {
        stated[1] = true;
    }
    // A count must be exact for what the phrase says: when it would not be, say everything (groups differ in shape or colour).
    if objects.len() > 1 {
        let values = values_of(truth, objects[0]);
        let mut said = [None; 4];
        (0..4).filter(|&a| stated[a]).for_each(|a| said[a] = values[a]);
        if truth.satisfying(&said).len() != objects.len() {
            stated = [true; 4];
        }
    }
    stated
}

fn values_of(truth: &SceneTruth, object: usize) -> [Option<usize>; 4] {
    ATTRIBUTES.map(|kind| truth.objects[object].value(kind))
}

/// Writes one noun phrase: article or count, size, pattern, colour, noun.
fn mention(
    writer: &mut Writer,
    truth: &SceneTruth,
    objects: &[usize],
    options: &SceneOptions,
    stream: &mut Stream,
) -> Mention {
    let stated = choose_stated(truth, objects, options.wording, stream);
    let values = values_of(truth, objects[0]);
    let plural = objects.len() > 1;
    let mut result = Mention { objects: objects.to_vec(), plural, ..Mention::default() };
    if plural {
        if options.crowd == Crowd::Group || options.wording == Wording::Full || stream.chance(0.88) {
            let value = Count::ALL[objects.len() - 2].index();
            let word = words_for(ConceptKind::Count, value, false)[0];
            result.count = Some(writer.say(word, Some(concept_of(ConceptKind::Count, value)), objects, false));
        } else {
            writer.frame("some");
        }
    } else {
        writer.frame(if stream.chance(0.9) { "a" } else { "one" });
    }
    for attribute in [3, 2, 1] {
        if let (true, Some(value)) = (stated[attribute], values[attribute]) {
            let kind = ATTRIBUTES[attribute];
            let word = synonym(stream, kind, value, false);
            result.attributes[attribute] = Some(writer.say(word, Some(concept_of(kind, value)), objects, false));
        }
    }
    match (stated[0], values[0]) {
        (true, Some(value)) => {
            let word = synonym(stream, ConceptKind::Shape, value, plural);
            let concept = concept_of(ConceptKind::Shape, value);
            result.attributes[0] = Some(writer.say(word, Some(concept), objects, false));
        }
        _ => {
            let noun = stream.pick(&GENERIC_NOUNS)[usize::from(plural)];
            writer.say(noun, None, objects, false);
        }
    }
    result
}

fn background(writer: &mut Writer, truth: &SceneTruth, stream: &mut Stream) {
    let value = truth.background.index();
    let word = synonym(stream, ConceptKind::Background, value, false);
    let concept = Some(concept_of(ConceptKind::Background, value));
    let (before, after) = *stream.pick(&[("on", ""), ("on the", ""), ("against the", ""), ("with a", "background")]);
    writer.frame(before);
    writer.say(word, concept, &[], true);
    if !after.is_empty() {
        writer.say(after, None, &[], true);
    }
}

/// Adds words, mentions and relation to `truth` and returns the caption.
pub fn caption(truth: &mut SceneTruth, plan: &Plan, options: &SceneOptions, stream: &mut Stream) -> String {
    let wording = options.wording;
    let mut groups: Vec<Vec<usize>> = plan.groups.iter().map(|g| g.clone().collect()).collect();
    if options.crowd != Crowd::OrderedPair {
        stream.shuffle(&mut groups);
    }
    // Not every object is spoken of: three phrases at most, sometimes one fewer.
    let mut spoken = groups.len().min(3);
    if wording == Wording::Optional && options.crowd == Crowd::Any && spoken > 1 && stream.chance(0.15) {
        spoken -= 1;
    }
    let related = matches!(options.crowd, Crowd::Pair | Crowd::OrderedPair);
    let singular = groups.iter().take(2).all(|g| g.len() == 1);
    let relation = if spoken == 2 && singular && (related || stream.chance(0.6)) {
        Relation::ALL.into_iter().find(|&r| truth.related(r, groups[0][0], groups[1][0]))
    } else {
        None
    };
    let prefix = stream.unit();
    let say_background = wording == Wording::Full || stream.chance(0.85);
    let body = stream.clone();
    // A prefix is dropped when the words run out; a phrase never is, so two attempts suffice for three phrases of five
    // words, two joints and a background of four.
    for with_prefix in [true, false] {
        let mut stream = body.clone();
        let mut writer = Writer::default();
        let mut mentions = Vec::new();
        let mut related = None;
        if with_prefix {
            let verb = if groups[0].len() > 1 { "are" } else { "is" };
            match prefix {
                p if p < 0.08 => writer.frame("a picture of"),
                p if p < 0.16 => writer.frame("a photo of"),
                p if p < 0.23 => writer.frame("this image shows"),
                p if p < 0.28 => writer.frame("this scene shows"),
                p if p < 0.40 => writer.frame(&format!("there {verb}")),
                p if p < 0.45 => writer.frame(&format!("in this picture there {verb}")),
                _ => {}
            }
        }
        for (k, group) in groups.iter().take(spoken).enumerate() {
            match (k, relation) {
                (1, Some(relation)) => {
                    let objects = [groups[0][0], group[0]];
                    let concept = concept_of(ConceptKind::Relation, relation.index());
                    let sideways = matches!(relation, Relation::Left | Relation::Right);
                    let long = sideways && stream.chance(0.5);
                    if long {
                        writer.frame("to the");
                    }
                    let word = synonym(&mut stream, ConceptKind::Relation, relation.index(), false);
                    let at = writer.say(word, Some(concept), &objects, false);
                    related = Some(RelationTruth { word: at, relation });
                    if sideways {
                        writer.frame("of");
                    }
                }
                (0, _) => {}
                _ => writer.frame(["and", "and", "with", "beside", "near"][stream.below(5)]),
            }
            mentions.push(mention(&mut writer, truth, group, options, &mut stream));
        }
        if say_background {
            background(&mut writer, truth, &mut stream);
        }
        if writer.words.len() <= MAX_WORDS || !with_prefix {
            truth.words = writer.words;
            truth.mentions = mentions;
            truth.relation = related;
            return writer.text;
        }
    }
    String::new()
}
