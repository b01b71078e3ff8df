//! The co-activation start: vision atoms that fire on the patches a word speaks of.
//!
//! The ridge map of [`crate::paired`] knows how the mean patch moves when a word occurs, and that is mostly what fills the
//! picture. Here each text atom k asks every caption how strongly it occurs, `t_nk = max_j cos(atom, token j)`, and its
//! vision atom is what the patches of pictures with the word have in common, `Σ_n (t_nk − mean_n t_nk) x_nk`. In the first
//! round `x_nk` is the mean patch; then it is the mean of the few patches that the round before found most typical, scored
//! with that direction whitened by the covariance of patches, so that a direction in which all patches vary counts for
//! little.

use lucid_data::store::{ActivationSource, Statistics};
use rayon::prelude::*;

use crate::config::Config;
use crate::error::SaeError;
use crate::events::{TrainEvent, TrainObserver};
use crate::linear::{Products, dot};
use crate::rng::{Permutation, Purpose, Stream};

/// Pairs looked at: enough for words that occur in one caption of fifty.
const PAIRS: usize = 1500;
/// Rounds on the most typical patches, after the one on mean patches.
const ROUNDS: usize = 2;
/// One patch in this many counts as most typical.
const TYPICAL: usize = 20;
/// λ of the whitening, as a fraction of the mean variance of a patch's dimension.
const RIDGE: f64 = 0.02;
/// Pairs whose sums are held at once.
const BLOCK: usize = 32;

/// One pair, about the means: patches \[T · d_v\] and how strongly each atom occurs \[n\].
struct Seen {
    patches: Vec<f32>,
    strength: Vec<f32>,
}

/// What patches have in common with each atom of `text` (unit rows \[n · d_t\]), as unit rows \[n · d_v\]. An atom that no
/// patch goes with, since no caption differs from another, has a row of zeros.
pub(crate) fn coactive(
    config: &Config,
    source: &dyn ActivationSource,
    statistics: &Statistics,
    text: &[f32],
    observer: &dyn TrainObserver,
) -> Result<Vec<f32>, SaeError> {
    let (dv, dt) = (source.d_vision(), source.d_text());
    let n = text.len() / dt;
    let permutation = Permutation::new(Stream::new(config.seed, Purpose::PairSample), source.pairs() as u64);
    let mut chosen: Vec<usize> = (0..source.pairs().min(PAIRS) as u64).map(|i| permutation.at(i) as usize).collect();
    chosen.sort_unstable();
    let mut mean = vec![0.0_f64; n];
    for block in chosen.chunks(BLOCK) {
        for seen in read(source, statistics, text, block)? {
            mean.iter_mut().zip(&seen.strength).for_each(|(sum, t)| *sum += f64::from(*t));
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= chosen.len() as f64);
    let whiten = whitening(source, statistics, &chosen)?;
    let mut pattern = vec![0.0_f64; n * dv];
    // What the round before scores with; nothing in the first.
    let mut filter: Vec<f32> = Vec::new();
    for round in 0..=ROUNDS {
        pattern.fill(0.0);
        for (done, block) in chosen.chunks(BLOCK).enumerate() {
            if observer.cancelled() {
                return Err(SaeError::Cancelled { step: 0 });
            }
            let seen = read(source, statistics, text, block)?;
            // Each atom's sum is made by one task in the order of the pairs, so that threads change nothing.
            pattern.par_chunks_mut(dv).enumerate().for_each(|(k, sum)| {
                for pair in &seen {
                    let weight = f64::from(pair.strength[k]) - mean[k];
                    let row = match filter.get(k * dv..(k + 1) * dv) {
                        None => mean_rows(&pair.patches, dv, None),
                        Some(filter) => mean_rows(&pair.patches, dv, Some(&typical(&pair.patches, filter))),
                    };
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
                }
            });
            let total = (chosen.len() * (ROUNDS + 1)) as u64;
            let so_far = (round * chosen.len() + done * BLOCK + block.len()) as u64;
            observer.event(&TrainEvent::Progress { stage: "coactivation".into(), done: so_far, total });
        }
        pattern.par_chunks_mut(dv).for_each(normalise);
        filter = pattern.par_chunks(dv).flat_map_iter(|row| whitened(&whiten, row)).collect();
    }
    Ok(pattern.into_iter().map(|x| x as f32).collect())
}

fn normalise(row: &mut [f64]) {
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        row.iter_mut().for_each(|x| *x /= norm);
    } else {
        row.fill(0.0);
    }
}

/// W p / (pᵀ W p): the direction that tells p from what else patches do, 1 on p itself.
fn whitened(whiten: &[f64], pattern: &[f64]) -> Vec<f32> {
    let d = pattern.len();
    let direction: Vec<f64> =
        whiten.chunks_exact(d).map(|row| row.iter().zip(pattern).map(|(a, b)| a * b).sum()).collect();
    let own: f64 = direction.iter().zip(pattern).map(|(a, b)| a * b).sum();
    direction.iter().map(|x| if own > 0.0 { (x / own) as f32 } else { 0.0 }).collect()
}

/// The patches that score highest, ties to the first.
fn typical(patches: &[f32], filter: &[f32]) -> Vec<usize> {
    let scores: Vec<f32> = patches.chunks_exact(filter.len()).map(|patch| dot(patch, filter)).collect();
    let count = scores.len().div_ceil(TYPICAL);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if count < order.len() {
        order.select_nth_unstable_by(count, |&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        order.truncate(count);
        // The sum below must not depend on how the selection left them.
        order.sort_unstable();
    }
    order
}

/// Mean of the listed rows, or of all.
fn mean_rows(patches: &[f32], d: usize, listed: Option<&[usize]>) -> Vec<f64> {
    let mut sum = vec![0.0; d];
    let mut add = |row: &[f32]| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    let count = match listed {
        Some(rows) => {
            rows.iter().for_each(|&row| add(&patches[row * d..(row + 1) * d]));
            rows.len()
        }
        None => {
            patches.chunks_exact(d).for_each(&mut add);
            patches.len() / d
        }
    };
    sum.iter_mut().for_each(|sum| *sum /= count as f64);
    sum
}

/// Reads pairs and how strongly the atoms occur in their first captions.
fn read(
    source: &dyn ActivationSource,
    statistics: &Statistics,
    text: &[f32],
    pairs: &[usize],
) -> Result<Vec<Seen>, SaeError> {
    let (dv, dt) = (source.d_vision(), source.d_text());
    let centre = |states: &mut [f32], mean: &[f64]| {
        for row in states.chunks_exact_mut(mean.len()) {
            row.iter_mut().zip(mean).for_each(|(x, mean)| *x = (f64::from(*x) - mean) as f32);
        }
    };
    pairs
        .par_iter()
        .map(|&pair| {
            let mut patches = vec![0.0; source.vision_len(pair) * dv];
            let mut tokens = vec![0.0; source.text_len(pair, 0) * dt];
            source.read_vision(pair, &mut patches)?;
            source.read_text(pair, 0, &mut tokens)?;
            centre(&mut patches, &statistics.mean_vision);
            centre(&mut tokens, &statistics.mean_text);
            let mut strength = vec![0.0_f32; text.len() / dt];
            for token in tokens.chunks_exact(dt) {
                let norm = dot(token, token).sqrt();
                if norm > 0.0 {
                    for (strength, atom) in strength.iter_mut().zip(text.chunks_exact(dt)) {
                        *strength = strength.max(dot(atom, token) / norm);
                    }
                }
            }
            Ok(Seen { patches, strength })
        })
        .collect()
}

/// (Σ + λI)⁻¹ of centred patches \[d_v · d_v\].
fn whitening(source: &dyn ActivationSource, statistics: &Statistics, pairs: &[usize]) -> Result<Vec<f64>, SaeError> {
    let d = source.d_vision();
    let mut products = Products::new(d, d);
    for &pair in pairs {
        let mut patches = vec![0.0; source.vision_len(pair) * d];
        source.read_vision(pair, &mut patches)?;
        // Every fourth patch: neighbours repeat each other.
        let rows: Vec<f64> = patches
            .chunks_exact(d)
            .step_by(4)
            .flat_map(|row| row.iter().zip(&statistics.mean_vision).map(|(x, mean)| f64::from(*x) - mean))
            .collect();
        products.add(&rows, &[]);
    }
    products.xy = (0..d * d).map(|i| f64::from(u8::from(i / d == i % d))).collect();
    Ok(products.ridge(RIDGE).unwrap_or_else(|| vec![0.0; d * d]))
}
