//! Whether two models found the same shared latents: a one-to-one matching of their decoder rows.

use lucid_data::progress::Observer;
use lucid_data::store::ActivationSource;
use lucid_kernels::Modality;
use lucid_sae::linear::dot;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::coder::{Coder, check_widths, decoder_rows};
use crate::error::{InterpretError, Result};
use crate::pairs::read_states;
use crate::recovery::assignment::assign;

/// Cosine from which two latents count as the same.
const SAME: f64 = 0.7;

/// A latent of the first model and its partner in the second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MatchedLatent {
    /// In the first model.
    pub latent: u32,
    /// In the second.
    pub other: u32,
    /// Cosine of the decoder rows in vision.
    pub vision: f64,
    /// Cosine of the decoder rows in text.
    pub text: f64,
}

/// How alike matched latents are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Likeness {
    /// Mean over matched latents of the mean cosine of both modalities.
    pub mean: f64,
    /// Share of matched latents whose mean cosine is at least 0.7.
    pub same: f64,
}

/// How stable latents are from one model to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Latents of either model that were matched: all shared ones, or those that fire on the pairs given.
    pub latents: [u64; 2],
    /// Under the one-to-one matching of largest total cosine.
    pub matched: Likeness,
    /// Under the best matching with directions drawn at random: what chance gives for this many latents of this width.
    pub random: Likeness,
    /// Each latent of the model that has fewer, with its partner; by rising index of the first model.
    pub pairs: Vec<MatchedLatent>,
}

/// Unit decoder rows of some shared latents, `[latents · width]`; a row of zeros stays one.
fn directions(coder: &dyn Coder, modality: Modality, latents: &[u32]) -> Result<Vec<f32>> {
    let mut rows = decoder_rows(coder, modality, latents)?;
    rows.chunks_exact_mut(coder.width(modality)).for_each(normalise);
    Ok(rows)
}

fn normalise(row: &mut [f32]) {
    let norm = row.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|w| *w = (f64::from(*w) / norm) as f32);
    }
}

/// Directions drawn from the normal distribution, by Box and Muller over SplitMix64.
fn random_directions(count: usize, width: usize, mut state: u64) -> Vec<f32> {
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut rows: Vec<f32> = (0..count * width)
        .map(|_| ((-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect();
    rows.chunks_exact_mut(width).for_each(normalise);
    rows
}

/// Shared latents that fire on some patch or token of the pairs.
fn firing(coder: &dyn Coder, source: &dyn ActivationSource, observer: &dyn Observer) -> Result<Vec<u32>> {
    check_widths(coder, source.d_vision(), source.d_text())?;
    let mut fires = vec![false; coder.d_shared()];
    for start in (0..source.pairs()).step_by(64) {
        if observer.cancelled() {
            return Err(InterpretError::Cancelled { stage: "match" });
        }
        let end = (start + 64).min(source.pairs());
        let found: Vec<Result<Vec<u32>>> = (start..end)
            .into_par_iter()
            .map(|pair| {
                let mut found = Vec::new();
                for modality in Modality::ALL {
                    let codes = coder.encode(&read_states(source, pair, modality)?, modality)?;
                    (0..codes.len()).for_each(|token| found.extend_from_slice(codes.shared(token).indices));
                }
                Ok(found)
            })
            .collect();
        for found in found {
            found?.into_iter().for_each(|latent| fires[latent as usize] = true);
        }
        observer.progress("match", end as u64, source.pairs() as u64);
    }
    Ok((0..).zip(fires).filter_map(|(latent, fires)| fires.then_some(latent)).collect())
}

/// Mean cosine of both modalities, `[rows · columns]`.
fn cosines(a: [&[f32]; 2], b: [&[f32]; 2], widths: [usize; 2]) -> Vec<f32> {
    let rows = a[0].len() / widths[0];
    let of_row = |row: usize| {
        let of = move |side: usize, other: usize| {
            let width = widths[side];
            dot(&a[side][row * width..][..width], &b[side][other * width..][..width])
        };
        (0..b[0].len() / widths[0]).map(move |other| (of(0, other) + of(1, other)) / 2.0)
    };
    (0..rows).into_par_iter().flat_map_iter(of_row).collect()
}

/// The best matching of rows with columns, fewer of which are rows: partner of every row.
fn matching(scores: &[f32], rows: usize, columns: usize) -> Vec<usize> {
    assign(rows, columns, |row, column| f64::from(scores[row * columns + column]))
}

fn likeness(cosines: impl Iterator<Item = f64> + Clone) -> Likeness {
    let count = cosines.clone().count().max(1) as f64;
    Likeness { mean: cosines.clone().sum::<f64>() / count, same: cosines.filter(|&c| c >= SAME).count() as f64 / count }
}

/// Matches the shared latents of two models one to one by their decoder rows in both modalities; with `pairs` only those that fire on
/// them: dead latents keep the start that models of one seed or one data set share. Cost: O(n³) for n latents.
///
/// # Errors
/// `E_SHAPE` where the models' widths differ or no latent fires; `E_CANCELLED`.
pub fn stability(
    a: &dyn Coder,
    b: &dyn Coder,
    pairs: Option<&dyn ActivationSource>,
    observer: &dyn Observer,
) -> Result<Stability> {
    for modality in Modality::ALL {
        if a.width(modality) != b.width(modality) {
            let what = format!("the second model's {} width", modality.name());
            return Err(InterpretError::shape(what, b.width(modality), format!("{}, the first's", a.width(modality))));
        }
    }
    let latents = |coder: &dyn Coder| match pairs {
        Some(pairs) => firing(coder, pairs, observer),
        None => Ok((0..coder.d_shared() as u32).collect()),
    };
    let (of_a, of_b) = (latents(a)?, latents(b)?);
    if of_a.is_empty() || of_b.is_empty() {
        return Err(InterpretError::shape("the latents that fire", "none", "at least one in either model".to_owned()));
    }
    // The matching wants no more rows than columns.
    let swapped = of_a.len() > of_b.len();
    let ((few, few_of), (many, many_of)) = if swapped { ((b, &of_b), (a, &of_a)) } else { ((a, &of_a), (b, &of_b)) };
    let both = |coder: &dyn Coder, latents: &[u32]| -> Result<[Vec<f32>; 2]> {
        Ok([directions(coder, Modality::Vision, latents)?, directions(coder, Modality::Text, latents)?])
    };
    let (rows, columns) = (both(few, few_of)?, both(many, many_of)?);
    let widths = [a.width(Modality::Vision), a.width(Modality::Text)];
    let scores = cosines([&rows[0], &rows[1]], [&columns[0], &columns[1]], widths);
    let partners = matching(&scores, few_of.len(), many_of.len());
    let cosine = |at: usize, modality: usize| {
        let width = widths[modality];
        let (row, column) = (&rows[modality][at * width..], &columns[modality][partners[at] * width..]);
        f64::from(dot(&row[..width], &column[..width]))
    };
    let mut found: Vec<MatchedLatent> = (0..few_of.len())
        .map(|at| {
            let (own, partner) = (few_of[at], many_of[partners[at]]);
            let (latent, other) = if swapped { (partner, own) } else { (own, partner) };
            MatchedLatent { latent, other, vision: cosine(at, 0), text: cosine(at, 1) }
        })
        .collect();
    found.sort_by_key(|pair| pair.latent);
    if observer.cancelled() {
        return Err(InterpretError::Cancelled { stage: "match" });
    }
    let drawn = [random_directions(many_of.len(), widths[0], 1), random_directions(many_of.len(), widths[1], 2)];
    let by_chance = cosines([&rows[0], &rows[1]], [&drawn[0], &drawn[1]], widths);
    let chance = matching(&by_chance, few_of.len(), many_of.len());
    let random = chance.iter().enumerate().map(|(row, &c)| f64::from(by_chance[row * many_of.len() + c]));
    Ok(Stability {
        latents: [of_a.len() as u64, of_b.len() as u64],
        matched: likeness(found.iter().map(|pair| (pair.vision + pair.text) / 2.0)),
        random: likeness(random),
        pairs: found,
    })
}
