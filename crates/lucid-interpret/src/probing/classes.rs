//! Which of several concepts a picture shows: linear readouts, a concept bottleneck, and zero-shot by the words' codes.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::linear::{Dense, Design, FEW, RIDGE, Ranking, Readout};
use super::pooled::{Code, Half, Set};
use super::readouts::{active, codes_of, nearest, varying};
use super::result::{Classification, ZeroShot};
use crate::recovery::truth::TruthConcept;

/// Answers to the test of one kind, right or wrong, for intervals: (row of the test set, right) by method.
pub(super) struct Answers {
    pub rows: Vec<usize>,
    pub states: Vec<bool>,
    pub codes: Vec<bool>,
    pub bottleneck: Vec<bool>,
    pub zero_shot: Option<Vec<bool>>,
}

/// The latent that goes with each concept most, over fitted pictures; `None` where none rises with it.
pub(super) fn best_latents(fit: &Half, all: usize) -> Vec<Option<u32>> {
    let latents = active(&fit.codes);
    let y: Vec<f64> = fit.holds.iter().map(|&held| if held { 1.0 } else { -1.0 }).collect();
    let of = |found: Vec<(u32, f64)>| found.into_iter().find(|&(_, correlation)| correlation > 1e-9).map(|(l, _)| l);
    nearest(&fit.codes, &latents, &y, all, latents.len()).into_iter().map(of).collect()
}

/// Codes of pictures and words about their means, over the latents that fire for a fitted picture or a word. About the means, a latent
/// that fires for everything says nothing.
pub(super) struct Centred {
    latents: Vec<u32>,
    mean: Vec<f64>,
    /// Of every concept the unit vector of the mean code of the words for it, where the fitted captions say any.
    words: Vec<Option<Vec<f64>>>,
}

impl Centred {
    pub fn new(fit: &Set) -> Self {
        let of_words = |(sum, count): &(BTreeMap<u32, f64>, u64)| -> Option<Code> {
            (*count > 0).then(|| sum.iter().map(|(&latent, &value)| (latent, value / *count as f64)).collect())
        };
        let codes: Vec<Option<Code>> = fit.words.iter().map(of_words).collect();
        let mut latents: Vec<u32> = active(&fit.vision.codes);
        latents.extend(codes.iter().flatten().flatten().map(|&(latent, _)| latent));
        latents.sort_unstable();
        latents.dedup();
        let mut centred = Self { mean: vec![0.0; latents.len()], words: Vec::new(), latents };
        let mean_of = |centred: &Self, codes: &mut dyn Iterator<Item = &Code>| {
            let (mut mean, mut count) = (vec![0.0; centred.latents.len()], 0.0_f64);
            for code in codes {
                count += 1.0;
                mean.iter_mut().zip(centred.about(code, None)).for_each(|(sum, value)| *sum += value);
            }
            mean.iter_mut().for_each(|value| *value /= count.max(1.0));
            mean
        };
        let of_all_words = mean_of(&centred, &mut codes.iter().flatten());
        let unit = |code: Code| {
            let mut vector = centred.about(&code, Some(&of_all_words));
            let norm = norm(&vector);
            vector.iter_mut().for_each(|value| *value /= if norm > 0.0 { norm } else { 1.0 });
            vector
        };
        let words = codes.into_iter().map(|code| code.map(unit)).collect();
        centred.mean = mean_of(&centred, &mut fit.vision.codes.iter());
        Self { words, ..centred }
    }

    fn about(&self, code: &Code, mean: Option<&[f64]>) -> Vec<f64> {
        let mut dense = vec![0.0; self.latents.len()];
        for &(latent, value) in code {
            if let Ok(at) = self.latents.binary_search(&latent) {
                dense[at] = value;
            }
        }
        if let Some(mean) = mean {
            dense.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
        }
        dense
    }

    /// Cosine of a picture's code with that of a concept's words, both about their means; 0 where either is at its mean.
    fn cosines(&self, picture: &Code) -> Vec<Option<f64>> {
        let picture = self.about(picture, Some(&self.mean));
        let norm = norm(&picture);
        let cosine = |word: &Vec<f64>| {
            let dot: f64 = picture.iter().zip(word).map(|(a, b)| a * b).sum();
            if norm > 0.0 { dot / norm } else { 0.0 }
        };
        self.words.iter().map(|word| word.as_ref().map(cosine)).collect()
    }

    /// Cosines with every concept, by tested picture.
    pub fn scores(&self, test: &Set) -> Vec<Vec<Option<f64>>> {
        test.vision.codes.par_iter().map(|picture| self.cosines(picture)).collect()
    }
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The only concept of `members` that a row holds.
fn class_of(half: &Half, row: usize, members: &[usize], all: usize) -> Option<usize> {
    let mut held = (0..members.len()).filter(|&class| half.holds[row * all + members[class]]);
    held.next().filter(|_| held.next().is_none())
}

fn largest(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
}

/// Rows of a design by their positions.
struct Rows<'a> {
    of: &'a dyn Design,
    rows: &'a [usize],
}

impl Design for Rows<'_> {
    fn rows(&self) -> usize {
        self.rows.len()
    }
    fn width(&self) -> usize {
        self.of.width()
    }
    fn write(&self, at: usize, out: &mut [f64]) {
        self.of.write(self.rows[at], out);
    }
}

/// Classification within one kind of concepts, over pictures that show exactly one of them; why not where it cannot be.
pub(super) fn classify(
    members: &[usize],
    concepts: &[TruthConcept],
    fit: &Set,
    test: &Set,
    cosines: &[Vec<Option<f64>>],
) -> Result<(Classification, Answers), &'static str> {
    let all = concepts.len();
    let classes = |half: &Half, pairs: usize| -> (Vec<usize>, Vec<usize>) {
        (0..pairs).filter_map(|row| Some((row, class_of(half, row, members, all)?))).unzip()
    };
    let (fit_rows, fit_classes) = classes(&fit.vision, fit.len());
    let (rows, truth) = classes(&test.vision, test.len());
    let frequency = |class: usize| fit_classes.iter().filter(|&&c| c == class).count();
    if members.len() < 2 || members.iter().enumerate().filter(|&(class, _)| frequency(class) > 0).count() < 2 {
        return Err("fewer than two classes among the fitted pictures that show exactly one");
    }
    if rows.is_empty() {
        return Err("no tested picture shows exactly one");
    }
    let count = members.len();
    let one_hot = |&class: &usize| (0..count).map(move |c| if c == class { 1.0 } else { -1.0 });
    let y: Vec<f64> = fit_classes.iter().flat_map(one_hot).collect();
    let right = |fitted: &dyn Design, tested: &dyn Design, ridge: f64| -> Vec<bool> {
        let readout = Readout::fit(&Rows { of: fitted, rows: &fit_rows }, &y, count, ridge);
        // The mean of a target is left out of a readout: a class's share.
        let prior: Vec<f64> = (0..count).map(|c| 2.0 * frequency(c) as f64 / fit_rows.len() as f64 - 1.0).collect();
        let scores =
            readout.map_or_else(|| vec![0.0; rows.len() * count], |r| r.scores(&Rows { of: tested, rows: &rows }));
        let answer =
            |row: &[f64]| largest(&row.iter().zip(&prior).map(|(score, prior)| score + prior).collect::<Vec<_>>());
        scores.chunks_exact(count).zip(&truth).map(|(row, &class)| answer(row) == class).collect()
    };
    let states = right(
        &Dense { values: &fit.vision.states, width: fit.vision.width },
        &Dense { values: &test.vision.states, width: test.vision.width },
        RIDGE,
    );
    let latents = active(&fit.vision.codes);
    let codes = right(&codes_of(&fit.vision, latents.clone()), &codes_of(&test.vision, latents), RIDGE);
    let mut named: Vec<u32> = best_latents(&fit.vision, all).into_iter().flatten().collect();
    named.sort_unstable();
    named.dedup();
    let bottleneck = right(&codes_of(&fit.vision, named.clone()), &codes_of(&test.vision, named), FEW);
    let zero_shot = |shift: usize| -> Option<Vec<bool>> {
        let answer = |(&row, &class): (&usize, &usize)| {
            let of_class = |at: usize| cosines[row][members[(at + shift) % count]];
            let scores: Option<Vec<f64>> = (0..count).map(of_class).collect();
            Some(largest(&scores?) == class)
        };
        rows.iter().zip(&truth).map(answer).collect()
    };
    let share = |right: &[bool]| right.iter().filter(|&&right| right).count() as f64 / right.len() as f64;
    let majority = (0..count).fold(0, |best, class| if frequency(class) > frequency(best) { class } else { best });
    let found = Classification {
        classes: count as u64,
        pictures: rows.len() as u64,
        chance: 1.0 / count as f64,
        majority: truth.iter().filter(|&&class| class == majority).count() as f64 / truth.len() as f64,
        states: share(&states),
        codes: share(&codes),
        bottleneck: share(&bottleneck),
        zero_shot: zero_shot(0).map(|right| share(&right)),
        zero_shot_shuffled: zero_shot(1).map(|right| share(&right)),
    };
    Ok((found, Answers { zero_shot: zero_shot(0), rows, states, codes, bottleneck }))
}

/// Detection of concepts in pictures by the cosine with their words' code, and its rankings.
pub(super) fn zero_shot(
    fit: &Set,
    test: &Set,
    all: usize,
    cosines: &[Vec<Option<f64>>],
) -> Option<(ZeroShot, Vec<Ranking>)> {
    let named = |concept: &usize| cosines.first().is_some_and(|row| row[*concept].is_some());
    let listed: Vec<usize> = varying(&fit.vision, &test.vision, all).into_iter().filter(named).collect();
    if listed.is_empty() {
        return None;
    }
    let ranking = |concept: usize, named: usize| {
        let scores = cosines.iter().map(|row| row[named].unwrap_or(0.0));
        Ranking::new(scores, |row| test.vision.holds[row * all + concept])
    };
    let mean = |rankings: &[Ranking]| {
        rankings.iter().filter_map(|ranking| ranking.area(|_| 1.0)).sum::<f64>() / rankings.len() as f64
    };
    let own: Vec<Ranking> = listed.iter().map(|&concept| ranking(concept, concept)).collect();
    let others: Vec<Ranking> =
        (0..listed.len()).map(|at| ranking(listed[at], listed[(at + 1) % listed.len()])).collect();
    Some((ZeroShot { concepts: listed.len() as u64, auc: mean(&own), shuffled: mean(&others) }, own))
}
