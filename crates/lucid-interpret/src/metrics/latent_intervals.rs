//! Resamples over images of what is no ratio of two sums: quantiles of firing frequencies, and means over latents.

use rayon::prelude::*;

use crate::coder::SparseCodes;
use crate::evaluation::Quantiles;

use super::activity::quantiles;
use super::bootstrap::Weights;

/// Most counters of [`Frequencies`], 256 MB of them.
const COUNTERS: usize = 64 << 20;

/// How often each latent fires in every resample.
pub(crate) struct Frequencies {
    resamples: usize,
    d_shared: usize,
    /// A row of resamples for each latent that has fired; `None` where the counters would be too many.
    fired: Option<Vec<Vec<u32>>>,
    tokens: Vec<u64>,
}

impl Frequencies {
    pub(crate) fn new(resamples: usize, d_shared: usize, latents: usize) -> Self {
        let fits = resamples.saturating_mul(latents) <= COUNTERS;
        Self { resamples, d_shared, fired: fits.then(|| vec![Vec::new(); latents]), tokens: vec![0; resamples] }
    }

    pub(crate) fn add(&mut self, weights: &Weights, codes: &SparseCodes) {
        let Some(fired) = &mut self.fired else { return };
        let mut latents: Vec<u32> = (0..codes.len()).flat_map(|token| codes.row(token).indices).copied().collect();
        latents.sort_unstable();
        for same in latents.chunk_by(|a, b| a == b) {
            let row = &mut fired[same[0] as usize];
            row.resize(self.resamples, 0);
            let count = same.len() as u32;
            row.iter_mut().zip(weights.all()).for_each(|(sum, &w)| *sum += u32::from(w) * count);
        }
        self.tokens.iter_mut().zip(weights.all()).for_each(|(sum, &w)| *sum += u64::from(w) * codes.len() as u64);
    }

    /// The quantiles of a block's firing frequencies in every resample that has tokens, a row for each of them; each row **about the
    /// quantile of all images**: resampling spreads frequencies, and by itself moves the low quantiles down and the high ones up. Empty
    /// for a block without latents; `None` where nothing was counted.
    pub(crate) fn quantiles(&self, shared: bool, found: &Quantiles) -> Option<Vec<(&'static str, Vec<f64>)>> {
        let fired = self.fired.as_ref()?;
        let block = if shared { &fired[..self.d_shared] } else { &fired[self.d_shared..] };
        if block.is_empty() {
            return Some(Vec::new());
        }
        let of = |resample: usize| {
            let counts = block.iter().map(|row| u64::from(row.get(resample).copied().unwrap_or(0))).collect();
            quantiles(counts, self.tokens[resample]).named()
        };
        let resamples = (0..self.resamples).into_par_iter().filter(|&resample| self.tokens[resample] > 0);
        let all: Vec<_> = resamples.map(of).collect();
        let row = |(at, (name, number)): (usize, (&'static str, f64))| {
            (name, centred(all.iter().map(|of| of[at].1).collect(), number))
        };
        Some(found.named().into_iter().enumerate().map(row).collect())
    }
}

/// The same values moved so that their mean is `number`; a frequency is at least 0 all the same.
fn centred(mut values: Vec<f64>, number: f64) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter_mut().for_each(|value| *value = (*value - mean + number).max(0.0));
    values
}

/// What one latent has over images: Σ v², Σ t², Σ v t, and where it fires in vision, in text, in both.
#[derive(Clone, Copy, Default)]
struct Sums([f64; 6]);

/// Bridge score and Jaccard of a latent, where it fires at all; as in [`super::structure`].
fn scores(Sums([vision, text, product, fires, writes, both]): Sums) -> Option<[f64; 2]> {
    let union = fires + writes - both;
    let norms = (vision * text).sqrt();
    (union > 0.0).then(|| [if norms > 0.0 { product / norms } else { 0.0 }, both / union])
}

/// A pooled code, by rising latent.
type Pooled<'a> = &'a [(u32, f32)];

/// The mean bridge score and the mean Jaccard over latents, in every resample. A pair is its weights and its two pooled codes, by rising
/// latent.
pub(crate) fn bridges(pairs: &[(Weights, Pooled<'_>, Pooled<'_>)], d_shared: usize, resamples: usize) -> [Vec<f64>; 2] {
    let parts: Vec<Vec<(u32, Sums)>> = pairs.iter().map(|(_, vision, text)| joined(vision, text)).collect();
    let means = |resample: usize| {
        let mut sums = vec![Sums::default(); d_shared];
        for ((weights, ..), part) in pairs.iter().zip(&parts) {
            let weight = f64::from(weights.of(resample));
            if weight > 0.0 {
                for (latent, part) in part {
                    sums[*latent as usize].0.iter_mut().zip(part.0).for_each(|(sum, x)| *sum += weight * x);
                }
            }
        }
        let known: Vec<[f64; 2]> = sums.into_iter().filter_map(scores).collect();
        let mean = |side: usize| known.iter().map(|of| of[side]).sum::<f64>() / known.len() as f64;
        (!known.is_empty()).then(|| [mean(0), mean(1)])
    };
    let all: Vec<[f64; 2]> = (0..resamples).into_par_iter().filter_map(means).collect();
    [0, 1].map(|side| all.iter().map(|of| of[side]).collect())
}

/// What one pair adds to the sums of each latent that fires in either half.
fn joined(vision: &[(u32, f32)], text: &[(u32, f32)]) -> Vec<(u32, Sums)> {
    let (mut i, mut j) = (0, 0);
    let mut parts = Vec::with_capacity(vision.len() + text.len());
    while i < vision.len() || j < text.len() {
        let at = |code: &[(u32, f32)], k: usize| code.get(k).map_or(u32::MAX, |entry| entry.0);
        let latent = at(vision, i).min(at(text, j));
        let take = |code: &[(u32, f32)], k: &mut usize| {
            let found = if at(code, *k) == latent { f64::from(code[*k].1) } else { 0.0 };
            *k += usize::from(at(code, *k) == latent);
            found
        };
        let (v, t) = (take(vision, &mut i), take(text, &mut j));
        let fires = |x: f64| f64::from(u8::from(x > 0.0));
        parts.push((latent, Sums([v * v, t * t, v * t, fires(v), fires(t), fires(v) * fires(t)])));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::{Bootstrap, interval_of, mix};
    use super::*;

    fn codes(rows: &[&[(u32, f32)]]) -> SparseCodes {
        codes_of(3, rows)
    }

    fn codes_of(d_shared: usize, rows: &[&[(u32, f32)]]) -> SparseCodes {
        let mut codes = SparseCodes::new(d_shared);
        rows.iter().for_each(|row| codes.push(row.iter().copied()));
        codes
    }

    /// One latent fires on a share p of the images, one token each: the interval of its frequency is that of a proportion.
    #[test]
    fn the_interval_of_a_frequency_is_that_of_a_share() {
        let (n, p) = (1000, 0.3);
        let bootstrap = Bootstrap::new(2000, 5);
        let mut frequencies = Frequencies::new(2000, 3, 4);
        for i in 0..n {
            let weights = bootstrap.weights(&i.to_string());
            // The private latent fires where the shared one does not.
            let row: &[(u32, f32)] = if f64::from(i) < p * f64::from(n) { &[(2, 1.0)] } else { &[(3, 1.0)] };
            frequencies.add(&weights, &codes(&[row]));
        }
        for (shared, share) in [(true, p), (false, 1.0 - p)] {
            let found = Quantiles { max: share, ..Quantiles::default() };
            let rows = frequencies.quantiles(shared, &found).unwrap();
            let (name, values) = rows.last().unwrap().clone();
            assert_eq!((name, values.len()), ("max", 2000));
            let [low, high] = interval_of(values).unwrap();
            let half = 1.96 * (p * (1.0 - p) / f64::from(n)).sqrt();
            let near = |x: f64, y: f64| (x - y).abs() < 0.2 * half;
            assert!(near(low, share - half) && near(high, share + half), "{low} {high}");
        }
        // Two of the three shared latents never fire.
        let rows = frequencies.quantiles(true, &Quantiles::default()).unwrap();
        assert!(rows[..4].iter().all(|(_, values)| interval_of(values.clone()) == Some([0.0, 0.0])), "{rows:?}");
        assert!(Frequencies::new(100_000, 8000, 8192).quantiles(true, &Quantiles::default()).is_none(), "too many");
        assert!(Frequencies::new(10, 8, 8).quantiles(false, &Quantiles::default()).unwrap().is_empty());
    }

    /// A hundred latents that fire alike: resampling spreads their frequencies, and the quantiles stay where they are.
    #[test]
    fn the_interval_of_a_quantile_is_about_it() {
        let bootstrap = Bootstrap::new(500, 3);
        let mut frequencies = Frequencies::new(500, 100, 100);
        let mut counts = vec![0_u64; 100];
        for i in 0..400_u32 {
            // Each fires on a tenth of the images, at places of its own.
            let fires = (0..100_u32).filter(|l| mix((u64::from(i) << 32) + u64::from(*l) + 1).is_multiple_of(10));
            let row: Vec<(u32, f32)> = fires.map(|latent| (latent, 1.0)).collect();
            row.iter().for_each(|(latent, _)| counts[*latent as usize] += 1);
            let codes = codes_of(100, &[&row]);
            frequencies.add(&bootstrap.weights(&i.to_string()), &codes);
        }
        let found = quantiles(counts, 400);
        for ((name, values), (_, number)) in frequencies.quantiles(true, &found).unwrap().into_iter().zip(found.named())
        {
            let [low, high] = interval_of(values).unwrap();
            assert!(low < number && number < high, "{name}: {low} {number} {high}");
        }
    }

    #[test]
    fn means_over_latents_of_equal_weights_are_those_by_hand() {
        // Latent 0 fires together (v 1, 2; t 2, 4: cosine 1), 1 in vision only, 2 in one of two pairs together.
        let a: (Pooled<'_>, Pooled<'_>) = (&[(0, 1.0), (1, 3.0), (2, 1.0)], &[(0, 2.0), (2, 1.0)]);
        let b: (Pooled<'_>, Pooled<'_>) = (&[(0, 2.0)], &[(0, 4.0), (2, 1.0)]);
        let once = || Weights::new(vec![1, 2, 0]);
        let pairs = [(once(), a.0, a.1), (once(), b.0, b.1)];
        let [bridge, jaccard] = bridges(&pairs, 4, 3);
        let expected = [(1.0 + 0.0 + 1.0 / 2.0_f64.sqrt()) / 3.0, (1.0 + 0.0 + 0.5) / 3.0];
        // Twice everything is the same mean; a resample of nothing has none.
        assert_eq!((bridge.len(), jaccard.len()), (2, 2));
        for at in 0..2 {
            assert!((bridge[at] - expected[0]).abs() < 1e-12 && (jaccard[at] - expected[1]).abs() < 1e-12);
        }
        // The first pair alone.
        let only = [(Weights::new(vec![1]), a.0, a.1), (Weights::new(vec![0]), b.0, b.1)];
        let [bridge, jaccard] = bridges(&only, 4, 1);
        assert!((bridge[0] - 2.0 / 3.0).abs() < 1e-12 && (jaccard[0] - 2.0 / 3.0).abs() < 1e-12);
    }
}
