//! Probes of token states: the value of a word, of the rest of its phrase, and of the background where nothing is named.

use super::examinee::CAPTIONS;
use super::probes::{Labelled, Probe, ProbeOf, States, Task, each, run, scores};
use super::watch::Watch;
use crate::backbone::Backbone;
use crate::error::VlmError;
use crate::hook::Tower;
use crate::tokenizer::Tokens;
use lucid_data::scenes::{ATTRIBUTES, ConceptKind, Scene, SceneTruth, values_of};

/// The kinds that phrases state.
const PHRASE: [ConceptKind; 5] = [ATTRIBUTES[0], ATTRIBUTES[1], ATTRIBUTES[2], ATTRIBUTES[3], ConceptKind::Count];

/// What one token speaks of.
#[derive(Debug, Clone, PartialEq)]
struct Token {
    /// Position among the caption's valid tokens.
    position: usize,
    /// The kind and value it names.
    names: Option<(ConceptKind, usize)>,
    /// What its phrase states, by [`PHRASE`]; all `None` for a token outside every phrase.
    phrase: [Option<usize>; 5],
    /// The stated background, for a token of a word that names nothing and speaks of nothing.
    filler: Option<usize>,
}

impl Token {
    /// The value of `kind` that the phrase states in other words than this one.
    fn rest(&self, which: usize) -> Option<usize> {
        let own = self.names.is_some_and(|(kind, _)| kind == PHRASE[which]);
        if own { None } else { self.phrase[which] }
    }
}

/// The caption's tokens that lie in a word; the end of sentence and lone word boundaries do not.
fn tokens_of(truth: &SceneTruth, tokens: &Tokens) -> Vec<Token> {
    let stated = |kind: ConceptKind| truth.words.iter().filter_map(|w| w.concept).find(|c| c.kind == kind);
    let background = stated(ConceptKind::Background).map(|c| c.value);
    let mut found = Vec::new();
    for (position, &[start, end]) in tokens.spans.iter().enumerate() {
        let inside = |span: [usize; 2]| start < end && span[0] <= start as usize && end as usize <= span[1];
        let Some(word) = truth.words.iter().find(|w| inside(w.span)) else { continue };
        let relation = word.concept.is_some_and(|c| c.kind == ConceptKind::Relation);
        let mention = truth.mentions.iter().find(|m| !relation && m.objects == word.objects);
        let mut phrase = [None; 5];
        if let Some(m) = mention {
            phrase[..4].copy_from_slice(&truth.stated(m));
            phrase[4] = m.count.and_then(|w| truth.words[w].concept).map(|c| c.value);
        }
        let nothing = word.concept.is_none() && word.objects.is_empty() && !word.background;
        found.push(Token {
            position,
            names: word.concept.map(|c| (c.kind, c.value)),
            phrase,
            filler: background.filter(|_| nothing),
        });
    }
    found
}

/// Captions with what their tokens speak of.
struct Set {
    captions: Vec<Tokens>,
    tokens: Vec<Vec<Token>>,
}

impl Set {
    fn new(scenes: &[Scene], backbone: &Backbone) -> Result<Self, VlmError> {
        let encode = |s: &Scene| backbone.tokenizer().encode(&s.caption, true);
        let captions = scenes.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let tokens = scenes.iter().zip(&captions).map(|(s, t)| tokens_of(&s.truth, t)).collect();
        Ok(Self { captions, tokens })
    }

    fn states(&self, backbone: &Backbone, watch: &mut Watch<'_>) -> Result<States, VlmError> {
        let dim = backbone.text_dim();
        let chunks: Vec<&[Tokens]> = self.captions.chunks(CAPTIONS).collect();
        let items = each(backbone.threads(), chunks.len(), watch, |c| {
            let chosen = || self.tokens.iter().skip(c * CAPTIONS).zip(chunks[c]).enumerate();
            let rows = |states: Vec<f32>| -> Vec<f32> {
                let mut rows = Vec::new();
                for (i, (tokens, caption)) in chosen() {
                    for token in tokens {
                        let start = (i * caption.padded.len() + caption.start + token.position) * dim;
                        rows.extend_from_slice(&states[start..start + dim]);
                    }
                }
                rows
            };
            Ok(backbone.every_text_state(chunks[c])?.into_iter().map(rows).collect())
        })?;
        Ok(States::join(dim, backbone.config().text_config.num_hidden_layers + 1, items))
    }
}

/// What is probed, in order: every kind's own words, the rest of the phrase, the background from words that name nothing.
fn questions() -> Vec<(ProbeOf, ConceptKind)> {
    let own = ConceptKind::ALL.into_iter().map(|kind| (ProbeOf::OwnWord, kind));
    let rest = PHRASE.into_iter().map(|kind| (ProbeOf::RestOfPhrase, kind));
    own.chain(rest).chain([(ProbeOf::Filler, ConceptKind::Background)]).collect()
}

fn task(sets: &[Set; 3], (of, kind): (ProbeOf, ConceptKind)) -> Task {
    let which = PHRASE.iter().position(|&k| k == kind);
    let label = |t: &Token| match of {
        ProbeOf::OwnWord => t.names.filter(|(k, _)| *k == kind).map(|(_, value)| value),
        ProbeOf::RestOfPhrase => which.and_then(|w| t.rest(w)),
        ProbeOf::Filler => t.filler,
        ProbeOf::Patch => None,
    };
    let labelled = |set: &Set| Labelled::of(&set.tokens.iter().flatten().collect::<Vec<_>>(), |t| label(t));
    Task { classes: values_of(kind), sets: [0, 1, 2].map(|i| labelled(&sets[i])) }
}

/// Probes of both backbones at every hook of the text tower. `sets`: scenes to fit on, unseen ones, held-out combinations.
pub(super) fn token_probes(
    backbone: &Backbone,
    untrained: &Backbone,
    sets: [&[Scene]; 3],
    watch: &mut Watch<'_>,
) -> Result<Vec<Probe>, VlmError> {
    let [fit, unseen, held_out] = sets;
    let sets = [Set::new(fit, backbone)?, Set::new(unseen, backbone)?, Set::new(held_out, backbone)?];
    let questions = questions();
    let tasks: Vec<Task> = questions.iter().map(|&q| task(&sets, q)).collect();
    let mut predict = |model: &Backbone| -> Result<_, VlmError> {
        let [fit, unseen, held_out] = &sets;
        let states = [fit.states(model, watch)?, unseen.states(model, watch)?, held_out.states(model, watch)?];
        run(&states, &tasks, model.threads(), watch)
    };
    let (trained, control) = (predict(backbone)?, predict(untrained)?);
    let mut probes = Vec::new();
    for (h, hook) in backbone.hooks_in_order(Tower::Text).into_iter().enumerate() {
        for (t, &(of, kind)) in questions.iter().enumerate() {
            if let (Some(a), Some(b)) = (&trained[h][t], &control[h][t]) {
                let [unseen, held_out] = scores(&tasks[t], a, b);
                let fitted = tasks[t].sets[0].labels.len();
                probes.push(Probe { of, hook: hook.clone(), kind, fitted, unseen, held_out, goal: None });
            }
        }
    }
    Ok(probes)
}

/// Units of work of [`token_probes`]: portions of captions and fits of two models.
pub(super) fn units(backbone: &Backbone, scenes: usize) -> usize {
    2 * (3 * scenes.div_ceil(CAPTIONS) + (backbone.config().text_config.num_hidden_layers + 1) * questions().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lucid_data::scenes::{Kind, Split, scene};

    #[test]
    fn tokens_know_their_phrases_and_fillers_the_background() {
        let backbone = Backbone::mini().unwrap();
        let (mut rests, mut fillers) = (0, 0);
        for index in 0..60 {
            let scene = scene(5, index, Split::All, Kind::Random);
            let tokens = backbone.tokenizer().encode(&scene.caption, true).unwrap();
            let found = tokens_of(&scene.truth, &tokens);
            // The mini backbone has one token a word; the end of sentence is in none.
            assert_eq!(found.len(), scene.truth.words.len());
            for (token, word) in found.iter().zip(&scene.truth.words) {
                assert_eq!(token.names, word.concept.map(|c| (c.kind, c.value)));
                for which in 0..PHRASE.len() {
                    if let Some(value) = token.rest(which) {
                        rests += 1;
                        assert!(token.names.is_none_or(|(kind, _)| kind != PHRASE[which]));
                        for &o in word.objects.iter().filter(|_| which < 4) {
                            assert_eq!(scene.truth.objects[o].value(PHRASE[which]), Some(value));
                        }
                    }
                }
                if let Some(value) = token.filler {
                    fillers += 1;
                    assert_eq!(value, scene.truth.background.index());
                    assert!(token.names.is_none() && token.phrase == [None; 5]);
                }
            }
        }
        assert!(rests > 100 && fillers > 60, "{rests} {fillers}");
    }
}
