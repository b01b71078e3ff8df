//! Concepts read out of mean states and codes: all latents, one, five; splitting and absorption.

use lucid_kernels::Modality;
use rayon::prelude::*;

use super::linear::{Columns, Dense, FEW, RIDGE, Ranking, Readout};
use super::pooled::{Code, Half, Set};
use super::result::{Absorption, ConceptProbe, ModalityProbes, Readouts};
use crate::coder::{Coder, decoder_rows};
use crate::error::Result;
use crate::recovery::truth::TruthConcept;

/// Latents of a concept that are looked at.
pub(crate) const LATENTS: usize = 5;
/// An area that one more latent must add for a concept to count as split.
const ADDS: f64 = 0.03;
/// Share of what the codes say along a concept's direction that makes a latent its absorber.
const ABSORBS: f64 = 0.4;

/// Rankings of the tested pairs that intervals are drawn for.
pub(crate) struct Ranked {
    pub states: Vec<Ranking>,
    pub codes: Vec<Ranking>,
    pub one: Vec<Ranking>,
}

fn targets(half: &Half, rows: impl Iterator<Item = usize>, concepts: &[usize], all: usize) -> Vec<f64> {
    let of = |row: usize| concepts.iter().map(move |&c| if half.holds[row * all + c] { 1.0 } else { -1.0 });
    rows.flat_map(of).collect()
}

/// Concepts that some pairs of both sets hold and some do not.
pub(crate) fn varying(fit: &Half, test: &Half, all: usize) -> Vec<usize> {
    let varies = |half: &Half, concept: usize| {
        let held = half.holds.chunks_exact(all).filter(|row| row[concept]).count();
        held > 0 && held < half.holds.len() / all
    };
    (0..all).filter(|&concept| varies(fit, concept) && varies(test, concept)).collect()
}

/// Latents that fire for some fitted pair, rising.
pub(crate) fn active(codes: &[Code]) -> Vec<u32> {
    let found: std::collections::BTreeSet<u32> = codes.iter().flatten().map(|&(latent, _)| latent).collect();
    found.into_iter().collect()
}

/// Per target the correlation with every latent: `[targets · latents]`.
fn correlations(codes: &[Code], latents: &[u32], y: &[f64], count: usize) -> Vec<f64> {
    let (n, width) = (codes.len() as f64, latents.len());
    let (mut z, mut zz, mut zy) = (vec![0.0; width], vec![0.0; width], vec![0.0; count * width]);
    let (mut sum, mut squares) = (vec![0.0; count], vec![0.0; count]);
    for (code, y) in codes.iter().zip(y.chunks_exact(count)) {
        for (target, &y) in y.iter().enumerate() {
            sum[target] += y;
            squares[target] += y * y;
        }
        for &(latent, value) in code {
            let Ok(at) = latents.binary_search(&latent) else { continue };
            z[at] += value;
            zz[at] += value * value;
            y.iter().enumerate().for_each(|(target, y)| zy[target * width + at] += value * y);
        }
    }
    let mut out = vec![0.0; count * width];
    for (target, row) in out.chunks_exact_mut(width).enumerate() {
        for (at, correlation) in row.iter_mut().enumerate() {
            let spread = (n * zz[at] - z[at] * z[at]) * (n * squares[target] - sum[target] * sum[target]);
            if spread > 1e-12 * n * n * zz[at] * squares[target] {
                *correlation = (n * zy[target * width + at] - z[at] * sum[target]) / spread.sqrt();
            }
        }
    }
    out
}

/// Of every target the latents by falling |correlation|, with its sign; ties to the lower index.
pub(crate) fn nearest(codes: &[Code], latents: &[u32], y: &[f64], count: usize, keep: usize) -> Vec<Vec<(u32, f64)>> {
    let by_target = correlations(codes, latents, y, count);
    let of = |row: &[f64]| {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].abs().total_cmp(&row[a].abs()).then(a.cmp(&b)));
        order.into_iter().take(keep).map(|at| (latents[at], row[at])).collect()
    };
    by_target.chunks_exact(latents.len().max(1)).map(of).collect()
}

fn value(code: &Code, latent: u32) -> f64 {
    code.binary_search_by_key(&latent, |&(of, _)| of).map_or(0.0, |at| code[at].1)
}

/// Probes of one modality, and the rankings behind them; `None` where no concept varies in both sets.
pub(crate) fn probe_half(
    coder: &dyn Coder,
    modality: Modality,
    concepts: &[TruthConcept],
    fit_set: &Set,
    test_set: &Set,
) -> Result<Option<(ModalityProbes, Ranked)>> {
    let (fit, test, all) = (fit_set.half(modality), test_set.half(modality), concepts.len());
    let listed = varying(fit, test, all);
    let latents = active(&fit.codes);
    if listed.is_empty() || latents.is_empty() {
        return Ok(None);
    }
    let count = listed.len();
    let y = targets(fit, 0..fit_set.len(), &listed, all);
    let wrong = targets(fit, fit_set.other.iter().copied(), &listed, all);
    let held = |target: usize| {
        let concept = listed[target];
        move |row: usize| test.holds[row * all + concept]
    };
    let rankings = |scores: Option<Vec<f64>>| -> Vec<Ranking> {
        let scores = scores.unwrap_or_else(|| vec![0.0; test_set.len() * count]);
        let of = |target: usize| Ranking::new(scores.iter().skip(target).step_by(count).copied(), held(target));
        (0..count).into_par_iter().map(of).collect()
    };
    let states = Readout::fit(&Dense { values: &fit.states, width: fit.width }, &y, count, RIDGE);
    let state_scores = states.as_ref().map(|r| r.scores(&Dense { values: &test.states, width: test.width }));
    let all_latents = |half| codes_of(half, latents.clone());
    let of_codes =
        |y: &[f64]| Readout::fit(&all_latents(fit), y, count, RIDGE).map(|readout| readout.scores(&all_latents(test)));
    let ranked_states = rankings(state_scores.clone());
    let ranked_codes = rankings(of_codes(&y));
    let ranked_shuffled = rankings(of_codes(&wrong));
    let chosen = nearest(&fit.codes, &latents, &y, count, LATENTS);
    let chosen_wrong = nearest(&fit.codes, &latents, &wrong, count, 1);
    let by_one = |chosen: &[Vec<(u32, f64)>]| -> Vec<Ranking> {
        let of = |target: usize| {
            let (latent, correlation) = chosen[target].first().copied().unwrap_or((0, 0.0));
            Ranking::new(test.codes.iter().map(|code| value(code, latent) * correlation.signum()), held(target))
        };
        (0..count).into_par_iter().map(of).collect()
    };
    let (ranked_one, ranked_one_wrong) = (by_one(&chosen), by_one(&chosen_wrong));
    let area = |ranking: &Ranking| ranking.area(|_| 1.0).unwrap_or(0.5);
    let few: Vec<Vec<f64>> = (0..count)
        .into_par_iter()
        .map(|target| {
            let y: Vec<f64> = y.iter().skip(target).step_by(count).copied().collect();
            let of = |k: usize| {
                let mut some: Vec<u32> = chosen[target].iter().take(k).map(|&(latent, _)| latent).collect();
                some.sort_unstable();
                let readout = Readout::fit(&codes_of(fit, some.clone()), &y, 1, FEW);
                let scores = readout.map_or_else(|| vec![0.0; test_set.len()], |r| r.scores(&codes_of(test, some)));
                area(&Ranking::new(scores, held(target)))
            };
            (1..=chosen[target].len()).map(of).collect()
        })
        .collect();
    let split: Vec<usize> = few
        .iter()
        .map(|areas| areas.windows(2).position(|pair| pair[1] - pair[0] < ADDS).map_or(areas.len(), |at| at + 1))
        .collect();
    let mains: Vec<Vec<u32>> = chosen.iter().zip(&split).map(|(chosen, &k)| rising(chosen.iter().take(k))).collect();
    let absorption = match (&states, &state_scores) {
        (Some(states), Some(scores)) => {
            let directions = Along::new(coder, modality, &latents, states, count)?;
            let found = |target: usize| {
                let held = |row: usize| held(target)(row);
                absorption(
                    &directions,
                    target,
                    count,
                    scores,
                    test,
                    &held,
                    [&mains[target], &mains[(target + 1) % count]],
                )
            };
            (0..count).map(found).collect()
        }
        _ => vec![None; count],
    };
    let probes: Vec<ConceptProbe> = (0..count)
        .map(|target| ConceptProbe {
            name: concepts[listed[target]].name.clone(),
            kind: concepts[listed[target]].kind.clone(),
            share: (0..test_set.len()).filter(|&row| held(target)(row)).count() as f64 / test_set.len() as f64,
            auc: Readouts {
                states: area(&ranked_states[target]),
                codes: area(&ranked_codes[target]),
                shuffled: area(&ranked_shuffled[target]),
                one: area(&ranked_one[target]),
                five: few[target].last().copied().unwrap_or(0.5),
                one_shuffled: area(&ranked_one_wrong[target]),
            },
            latents: chosen[target].iter().map(|&(latent, _)| latent).collect(),
            split: split[target] as u32,
            absorption: absorption[target],
        })
        .collect();
    let ranked = Ranked { states: ranked_states, codes: ranked_codes, one: ranked_one };
    Ok(Some((summary(probes), ranked)))
}

pub(crate) fn codes_of(half: &Half, latents: Vec<u32>) -> Columns<'_> {
    Columns { codes: &half.codes, latents }
}

fn rising<'a>(latents: impl Iterator<Item = &'a (u32, f64)>) -> Vec<u32> {
    let mut found: Vec<u32> = latents.map(|&(latent, _)| latent).collect();
    found.sort_unstable();
    found
}

/// What a unit of every latent adds to every readout of states.
struct Along<'a> {
    latents: &'a [u32],
    /// `[latents · targets]`.
    values: Vec<f64>,
}

impl<'a> Along<'a> {
    fn new(coder: &dyn Coder, modality: Modality, latents: &'a [u32], readout: &Readout, count: usize) -> Result<Self> {
        let rows = decoder_rows(coder, modality, latents)?;
        let mut values = vec![0.0; latents.len() * count];
        for (row, out) in rows.chunks_exact(coder.width(modality)).zip(values.chunks_exact_mut(count)) {
            for (&w, map) in row.iter().zip(readout.map.chunks_exact(count)) {
                out.iter_mut().zip(map).for_each(|(sum, weight)| *sum += f64::from(w) * weight);
            }
        }
        Ok(Self { latents, values })
    }
}

fn absorption(
    along: &Along,
    target: usize,
    count: usize,
    scores: &[f64],
    test: &Half,
    held: &dyn Fn(usize) -> bool,
    [mains, others]: [&[u32]; 2],
) -> Option<Absorption> {
    let score = |row: usize| scores[row * count + target];
    let mean = |of: bool| {
        let chosen: Vec<f64> = (0..test.codes.len()).filter(|&row| held(row) == of).map(score).collect();
        chosen.iter().sum::<f64>() / chosen.len().max(1) as f64
    };
    let middle = (mean(true) + mean(false)) / 2.0;
    let (mut pairs, mut silent, mut absorbed, mut silent_others) = (0_u64, 0_u64, 0_u64, 0_u64);
    for row in (0..test.codes.len()).filter(|&row| held(row) && score(row) > middle) {
        let code = &test.codes[row];
        let fires = |latents: &[u32]| latents.iter().any(|&latent| value(code, latent) > 0.0);
        pairs += 1;
        silent_others += u64::from(!fires(others));
        if fires(mains) {
            continue;
        }
        silent += 1;
        let said = code.iter().filter_map(|&(latent, value)| {
            let at = along.latents.binary_search(&latent).ok()?;
            Some((value * along.values[at * count + target]).max(0.0))
        });
        let said: Vec<f64> = said.collect();
        let (most, total) = (said.iter().copied().fold(0.0, f64::max), said.iter().sum::<f64>());
        absorbed += u64::from(total > 0.0 && most >= ABSORBS * total);
    }
    let share = |count: u64| count as f64 / pairs as f64;
    (pairs > 0).then(|| Absorption {
        pairs,
        silent: share(silent),
        absorbed: share(absorbed),
        silent_shuffled: share(silent_others),
    })
}

fn summary(concepts: Vec<ConceptProbe>) -> ModalityProbes {
    let n = concepts.len() as f64;
    let mean = |of: fn(&Readouts) -> f64| concepts.iter().map(|concept| of(&concept.auc)).sum::<f64>() / n;
    let known: Vec<Absorption> = concepts.iter().filter_map(|concept| concept.absorption).collect();
    let mean_of = |of: fn(&Absorption) -> f64| {
        (!known.is_empty()).then(|| known.iter().map(of).sum::<f64>() / known.len() as f64)
    };
    ModalityProbes {
        mean: Readouts {
            states: mean(|auc| auc.states),
            codes: mean(|auc| auc.codes),
            shuffled: mean(|auc| auc.shuffled),
            one: mean(|auc| auc.one),
            five: mean(|auc| auc.five),
            one_shuffled: mean(|auc| auc.one_shuffled),
        },
        split: concepts.iter().map(|concept| f64::from(concept.split)).sum::<f64>() / n,
        silent: mean_of(|found| found.silent),
        absorbed: mean_of(|found| found.absorbed),
        silent_shuffled: mean_of(|found| found.silent_shuffled),
        concepts,
    }
}
