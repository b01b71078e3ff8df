//! What is probed: of every pair the mean state and the mean shared code of either half, and the concepts it holds.

use std::collections::{BTreeMap, BTreeSet};

use lucid_data::progress::Observer;
use lucid_data::store::AnnotatedSource;
use lucid_kernels::Modality;
use rayon::prelude::*;

use crate::coder::{Coder, SparseCodes, check_widths};
use crate::error::{InterpretError, Result};
use crate::pairs::{read_states, wrong_captions};
use crate::recovery::truth::{TruthConcept, TruthSource};

/// Pairs held at once.
const BLOCK: usize = 64;

/// (latent, value) by rising latent.
pub(crate) type Code = Vec<(u32, f64)>;

/// One half of all pairs of a set.
#[derive(Debug, Default)]
pub(crate) struct Half {
    /// `[pairs · width]`.
    pub states: Vec<f64>,
    pub width: usize,
    pub codes: Vec<Code>,
    /// `[pairs · concepts]`.
    pub holds: Vec<bool>,
}

/// All pairs of a set.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub keys: Vec<String>,
    pub vision: Half,
    pub text: Half,
    /// Of every pair another one, whose labels stand in for the right ones.
    pub other: Vec<usize>,
    /// Of every concept the sum of the codes of the tokens that name it, and their number.
    pub words: Vec<(BTreeMap<u32, f64>, u64)>,
    /// Edits: the pair before, the pair after, the old concept, the new one.
    pub edits: Vec<(usize, usize, [u32; 2])>,
}

impl Set {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn half(&self, modality: Modality) -> &Half {
        match modality {
            Modality::Vision => &self.vision,
            Modality::Text => &self.text,
        }
    }
}

/// Where the labels of a set come from.
pub(crate) enum Labels<'a> {
    Truth(&'a dyn TruthSource),
    /// Categories of boxes.
    Categories,
}

/// The names of the boxes of both sets as concepts.
pub(crate) fn categories(sources: [&dyn AnnotatedSource; 2]) -> Vec<TruthConcept> {
    let mut names = BTreeSet::new();
    for source in sources {
        for pair in 0..source.pairs() {
            names.extend(source.info(pair).boxes.iter().filter_map(|b| b.category.clone()));
        }
    }
    names.into_iter().map(|name| TruthConcept { words: vec![name.clone()], name, kind: "category".into() }).collect()
}

struct Pair {
    vision: (Vec<f64>, Code),
    text: (Vec<f64>, Code),
    shown: BTreeSet<u32>,
    said: BTreeSet<u32>,
    words: Vec<(u32, Code)>,
}

fn mean(states: &[f32], width: usize) -> Vec<f64> {
    let rows = (states.len() / width).max(1) as f64;
    let mut mean = vec![0.0; width];
    for row in states.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, &h)| *sum += f64::from(h) / rows);
    }
    mean
}

fn read_pair(
    coder: &dyn Coder,
    source: &dyn AnnotatedSource,
    pair: usize,
    labels: &Labels,
    concepts: &BTreeMap<&str, u32>,
) -> Result<Pair> {
    let half = |modality| -> Result<((Vec<f64>, Code), SparseCodes)> {
        let states = read_states(source, pair, modality)?;
        let codes = coder.encode(&states, modality)?;
        let all: Vec<usize> = (0..codes.len()).collect();
        Ok(((mean(&states, coder.width(modality)), codes.mean_shared(&all)), codes))
    };
    let (vision, vision_codes) = half(Modality::Vision)?;
    let (text, text_codes) = half(Modality::Text)?;
    let mut found = Pair { vision, text, shown: BTreeSet::new(), said: BTreeSet::new(), words: Vec::new() };
    match labels {
        Labels::Truth(truth) => {
            let truth = truth.pair(pair)?;
            if truth.patches.len() != vision_codes.len() || truth.tokens.len() != text_codes.len() {
                let count = format!("{} patches and {} tokens", truth.patches.len(), truth.tokens.len());
                let expected = format!("{} and {}", vision_codes.len(), text_codes.len());
                return Err(InterpretError::shape(
                    format!("the truth of pair '{}'", source.key(pair)),
                    count,
                    expected,
                ));
            }
            found.shown = truth.patches.iter().flatten().map(|&(concept, _)| concept).collect();
            for (token, named) in truth.tokens.iter().enumerate() {
                for &(concept, _) in named {
                    found.said.insert(concept);
                    found.words.push((concept, text_codes.mean_shared(&[token])));
                }
            }
        }
        Labels::Categories => {
            let boxes = source.info(pair).boxes.iter().filter_map(|b| b.category.as_deref());
            found.shown = boxes.filter_map(|name| concepts.get(name).copied()).collect();
        }
    }
    Ok(found)
}

/// Reads a set.
pub(crate) fn read(
    coder: &dyn Coder,
    source: &dyn AnnotatedSource,
    labels: &Labels,
    concepts: &[TruthConcept],
    seed: u64,
    observer: &dyn Observer,
) -> Result<Set> {
    check_widths(coder, source.d_vision(), source.d_text())?;
    let pairs = source.pairs();
    let Some(other) = wrong_captions(source, seed) else {
        return Err(InterpretError::shape("the probed store", format!("{pairs} pairs"), "at least 2".to_owned()));
    };
    let by_name: BTreeMap<&str, u32> =
        concepts.iter().zip(0..).map(|(concept, at)| (concept.name.as_str(), at)).collect();
    let half = |modality| Half { width: coder.width(modality), ..Half::default() };
    let mut set = Set {
        vision: half(Modality::Vision),
        text: half(Modality::Text),
        other,
        words: vec![(BTreeMap::new(), 0); concepts.len()],
        ..Set::default()
    };
    for start in (0..pairs).step_by(BLOCK) {
        if observer.cancelled() {
            return Err(InterpretError::Cancelled { stage: "probe" });
        }
        let end = (start + BLOCK).min(pairs);
        let read: Vec<Result<Pair>> =
            (start..end).into_par_iter().map(|pair| read_pair(coder, source, pair, labels, &by_name)).collect();
        for (pair, found) in (start..end).zip(read) {
            let found = found?;
            set.keys.push(source.key(pair).to_owned());
            let halves = [(&mut set.vision, found.vision, &found.shown), (&mut set.text, found.text, &found.said)];
            for (half, (state, code), held) in halves {
                half.states.extend(state);
                half.codes.push(code);
                half.holds.extend((0..concepts.len() as u32).map(|concept| held.contains(&concept)));
            }
            for (concept, code) in found.words {
                let (sum, count) = &mut set.words[concept as usize];
                *count += 1;
                code.into_iter().for_each(|(latent, value)| *sum.entry(latent).or_default() += value);
            }
            if let Labels::Truth(truth) = labels
                && let Some(edit) = truth.edit(pair).filter(|_| pair > 0)
            {
                set.edits.push((pair - 1, pair, edit));
            }
        }
        observer.progress("probe", end as u64, pairs as u64);
    }
    Ok(set)
}
