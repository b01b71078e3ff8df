//! The paired start of the shared dictionaries (spec 5.2): text atoms are token states that point in different
//! directions, vision atoms their images under a ridge map from pooled text to pooled vision, or what
//! [`crate::coactivation`] finds for them.
//!
//! States are taken about the mean of the training tokens, whether or not `center` is on: a common offset of all
//! states has no place in a dictionary of directions. The map and the atoms' directions do not depend on `scale`.

use lucid_data::store::{ActivationSource, Statistics};
use rayon::prelude::*;

use crate::coactivation::coactive;
use crate::config::{Config, Initialise};
use crate::error::SaeError;
use crate::events::{TrainEvent, TrainObserver, warn};
use crate::linear::{Products, dot};
use crate::normalisation::NEGLIGIBLE;
use crate::rng::{Permutation, Purpose, Stream};

/// λ of the ridge map, as a fraction of the mean variance of a text dimension.
const RIDGE: f64 = 0.02;
/// Pairs pooled at a time.
const BLOCK: usize = 256;
/// Two states whose cosine is above this are the same word twice: a second atom for it would never win a Top-k.
const SAME: f32 = 1.0 - 1e-6;

/// Unit rows for the first shared latents of both modalities, equal in number (at most `dShared`).
pub struct PairedAtoms {
    /// \[n · d_v\].
    pub vision: Vec<f32>,
    /// \[n · d_t\].
    pub text: Vec<f32>,
}

/// Chooses the paired atoms from `source`. Fewer than `dShared` come back where the sample has fewer distinct
/// directions, none where pooled text does not vary; a warning says so.
pub fn paired_atoms(
    config: &Config,
    source: &dyn ActivationSource,
    statistics: &Statistics,
    observer: &dyn TrainObserver,
) -> Result<PairedAtoms, SaeError> {
    let (dv, dt) = (source.d_vision(), source.d_text());
    let none = || PairedAtoms { vision: Vec::new(), text: Vec::new() };
    let Some(map) = ridge_map(source, statistics, observer)? else {
        let message = "the pooled states of all captions are equal, so no map to images can be fitted: shared dictionaries start random";
        warn(observer, "W_UNPAIRED", message);
        return Ok(none());
    };
    let sample = token_sample(config, source, statistics, observer)?;
    let chosen = farthest(&sample, dt, config.d_shared, observer)?;
    let mut atoms = none();
    let images: Vec<Option<Vec<f32>>> = chosen
        .par_iter()
        .map(|&row| {
            let mut image = vec![0.0_f64; dv];
            for (x, line) in sample[row * dt..(row + 1) * dt].iter().zip(map.chunks_exact(dv)) {
                for (sum, b) in image.iter_mut().zip(line) {
                    *sum += f64::from(*x) * b;
                }
            }
            unit(&image)
        })
        .collect();
    for (&row, image) in chosen.iter().zip(images) {
        // A word that no image follows has no partner; its latent keeps a random start in both modalities.
        if let Some(image) = image {
            atoms.vision.extend(image);
            atoms.text.extend_from_slice(&sample[row * dt..(row + 1) * dt]);
        }
    }
    let found = atoms.text.len() / dt;
    if found < config.d_shared {
        let message = format!(
            "only {found} of dShared = {} latents start paired: the captions have no more distinct directions",
            config.d_shared
        );
        warn(observer, "W_FEW_DIRECTIONS", message);
    }
    if config.initialise == Initialise::Coactivation {
        let found = coactive(config, source, statistics, &atoms.text, observer)?;
        // An atom that no patch goes with keeps its ridge image.
        for (atom, pattern) in atoms.vision.chunks_exact_mut(dv).zip(found.chunks_exact(dv)) {
            if pattern.iter().any(|x| *x != 0.0) {
                atom.copy_from_slice(pattern);
            }
        }
    }
    Ok(atoms)
}

/// `x / ‖x‖` in f32; `None` for a vector without a direction.
fn unit(x: &[f64]) -> Option<Vec<f32>> {
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    (norm.is_finite() && norm > 0.0).then(|| x.iter().map(|x| (x / norm) as f32).collect())
}

/// Mean of the rows of `states` minus `centre`.
fn pooled(states: &[f32], centre: &[f64]) -> Vec<f64> {
    let mut mean = vec![0.0; centre.len()];
    for row in states.chunks_exact(centre.len()) {
        for (sum, x) in mean.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    let rows = (states.len() / centre.len()) as f64;
    mean.iter().zip(centre).map(|(sum, centre)| sum / rows - centre).collect()
}

/// The ridge map B \[d_t × d_v\] on centred pooled pairs (first captions).
fn ridge_map(
    source: &dyn ActivationSource,
    statistics: &Statistics,
    observer: &dyn TrainObserver,
) -> Result<Option<Vec<f64>>, SaeError> {
    let (dv, dt, pairs) = (source.d_vision(), source.d_text(), source.pairs());
    let mut products = Products::new(dt, dv);
    let (mut sum_x, mut sum_y) = (vec![0.0; dt], vec![0.0; dv]);
    for start in (0..pairs).step_by(BLOCK) {
        stop_if_cancelled(observer)?;
        let block = start..(start + BLOCK).min(pairs);
        let rows: Vec<(Vec<f64>, Vec<f64>)> = block
            .into_par_iter()
            .map(|pair| {
                let mut vision = vec![0.0; source.vision_len(pair) * dv];
                let mut text = vec![0.0; source.text_len(pair, 0) * dt];
                source.read_vision(pair, &mut vision)?;
                source.read_text(pair, 0, &mut text)?;
                let row = (pooled(&text, &statistics.mean_text), pooled(&vision, &statistics.mean_vision));
                if row.0.iter().chain(&row.1).any(|x| !x.is_finite()) {
                    return Err(SaeError::NonFinite {
                        what: "activations".into(),
                        step: 0,
                        pair: source.key(pair).to_owned(),
                        checkpoint: None,
                    });
                }
                Ok(row)
            })
            .collect::<Result<_, SaeError>>()?;
        for (x, y) in &rows {
            sum_x.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            sum_y.iter_mut().zip(y).for_each(|(sum, y)| *sum += y);
        }
        let (x, y): (Vec<Vec<f64>>, Vec<Vec<f64>>) = rows.into_iter().unzip();
        products.add(&x.concat(), &y.concat());
        progress(observer, "pool", (start + BLOCK).min(pairs), pairs);
    }
    // The rows were taken about the mean token; what is left of the mean of pairs is small, so nothing cancels.
    let n = pairs as f64;
    for i in 0..dt {
        for j in 0..dt {
            products.xx[i * dt + j] -= sum_x[i] * sum_x[j] / n;
        }
        for j in 0..dv {
            products.xy[i * dv + j] -= sum_x[i] * sum_y[j] / n;
        }
    }
    let trace: f64 = (0..dt).map(|i| products.xx[i * dt + i]).sum();
    // Below the rounding of f32 states there is no variance to speak of.
    let vanishing = NEGLIGIBLE * n * statistics.mean_square.text;
    Ok(if trace > vanishing { products.ridge(RIDGE) } else { None })
}

/// Unit states \[n · d_t\] of max(3000, 4·dShared) text tokens (all, where there are fewer), chosen by the seed without
/// repetition; tokens at the mean have no direction and are left out.
fn token_sample(
    config: &Config,
    source: &dyn ActivationSource,
    statistics: &Statistics,
    observer: &dyn TrainObserver,
) -> Result<Vec<f32>, SaeError> {
    let dt = source.d_text();
    let total: u64 = (0..source.pairs()).map(|pair| source.text_len(pair, 0) as u64).sum();
    let wanted = (4 * config.d_shared as u64).max(3000).min(total);
    let permutation = Permutation::new(Stream::new(config.seed, Purpose::TokenSample), total);
    let mut positions: Vec<u64> = (0..wanted).map(|i| permutation.at(i)).collect();
    // In the order of the store, so that each caption is read once and the disk is read forwards.
    positions.sort_unstable();
    let mut sample = Vec::with_capacity(wanted as usize * dt);
    let mut states = Vec::new();
    let mut positions = positions.into_iter().peekable();
    let mut start = 0;
    for pair in 0..source.pairs() {
        let end = start + source.text_len(pair, 0) as u64;
        if positions.peek().is_some_and(|position| *position < end) {
            stop_if_cancelled(observer)?;
            states.resize((end - start) as usize * dt, 0.0);
            source.read_text(pair, 0, &mut states)?;
            while let Some(position) = positions.next_if(|position| *position < end) {
                let row = &states[(position - start) as usize * dt..][..dt];
                let centred: Vec<f64> =
                    row.iter().zip(&statistics.mean_text).map(|(x, mean)| f64::from(*x) - mean).collect();
                sample.extend(unit(&centred).into_iter().flatten());
            }
        }
        start = end;
    }
    Ok(sample)
}

/// Rows of `units` \[n · d\], each the one whose largest cosine to those already chosen is smallest (ties to the lower
/// row), from row 0 on; at most `count`, fewer where the rest repeats a direction.
fn farthest(units: &[f32], d: usize, count: usize, observer: &dyn TrainObserver) -> Result<Vec<usize>, SaeError> {
    let rows = units.len() / d;
    let mut largest = vec![f32::NEG_INFINITY; rows];
    let mut chosen = Vec::with_capacity(count.min(rows));
    while chosen.len() < count {
        stop_if_cancelled(observer)?;
        let next = largest.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(&b.0)));
        let Some((next, _)) = next.filter(|(_, cosine)| **cosine < SAME) else { break };
        chosen.push(next);
        let atom = &units[next * d..(next + 1) * d];
        largest.par_iter_mut().zip(units.par_chunks_exact(d)).with_min_len(64).for_each(|(largest, row)| {
            *largest = largest.max(dot(row, atom));
        });
        // Its own cosine may round to just below 1.
        largest[next] = f32::INFINITY;
        if chosen.len() % 64 == 0 {
            progress(observer, "choose", chosen.len(), count);
        }
    }
    Ok(chosen)
}

fn stop_if_cancelled(observer: &dyn TrainObserver) -> Result<(), SaeError> {
    if observer.cancelled() { Err(SaeError::Cancelled { step: 0 }) } else { Ok(()) }
}

fn progress(observer: &dyn TrainObserver, stage: &str, done: usize, total: usize) {
    observer.event(&TrainEvent::Progress { stage: stage.into(), done: done as u64, total: total as u64 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Unobserved;

    #[test]
    fn farthest_takes_distinct_directions_first_and_no_direction_twice() {
        let units = [1.0, 0.0, 1.0, 0.0, 0.6, 0.8, -1.0, 0.0, 0.0, 1.0];
        assert_eq!(farthest(&units, 2, 3, &Unobserved).unwrap(), [0, 3, 4]);
        // Row 1 repeats row 0, so four directions are all there are.
        assert_eq!(farthest(&units, 2, 9, &Unobserved).unwrap(), [0, 3, 4, 2]);
        assert!(farthest(&[], 2, 3, &Unobserved).unwrap().is_empty());
    }

    #[test]
    fn a_vector_without_direction_has_no_unit() {
        assert_eq!(unit(&[0.0, 0.0]), None);
        assert_eq!(unit(&[3.0, 4.0]).unwrap(), [0.6, 0.8]);
    }
}
