//! Resamples over images of what is no ratio of two sums: the largest firing frequency, and means over latents.

use rayon::prelude::*;

use crate::coder::SparseCodes;

use super::bootstrap::Weights;

/// Most counters of [`Frequencies`], 256 MB of them.
const COUNTERS: usize = 64 << 20;

/// How often each shared latent fires in every resample.
pub(crate) struct Frequencies {
    resamples: usize,
    /// A row of resamples for each latent that has fired; `None` where the counters would be too many.
    fired: Option<Vec<Vec<u32>>>,
    tokens: Vec<u64>,
}

impl Frequencies {
    pub(crate) fn new(resamples: usize, d_shared: usize) -> Self {
        let fits = resamples.saturating_mul(d_shared) <= COUNTERS;
        Self { resamples, fired: fits.then(|| vec![Vec::new(); d_shared]), tokens: vec![0; resamples] }
    }

    pub(crate) fn add(&mut self, weights: &Weights, codes: &SparseCodes) {
        let Some(fired) = &mut self.fired else { return };
        let mut latents: Vec<u32> = (0..codes.len()).flat_map(|token| codes.shared(token).indices).copied().collect();
        latents.sort_unstable();
        for same in latents.chunk_by(|a, b| a == b) {
            let row = &mut fired[same[0] as usize];
            row.resize(self.resamples, 0);
            let count = same.len() as u32;
            row.iter_mut().zip(weights.all()).for_each(|(sum, &w)| *sum += u32::from(w) * count);
        }
        self.tokens.iter_mut().zip(weights.all()).for_each(|(sum, &w)| *sum += u64::from(w) * codes.len() as u64);
    }

    /// The largest frequency in every resample that has tokens; `None` where that was not counted.
    pub(crate) fn largest(&self) -> Option<Vec<f64>> {
        let mut most = vec![0; self.resamples];
        for row in self.fired.as_ref()? {
            most.iter_mut().zip(row).for_each(|(most, &count)| *most = count.max(*most));
        }
        let frequencies = most.into_iter().zip(&self.tokens).filter(|&(_, &tokens)| tokens > 0);
        Some(frequencies.map(|(count, &tokens)| f64::from(count) / tokens as f64).collect())
    }
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
    use super::super::bootstrap::{Bootstrap, interval_of};
    use super::*;

    fn codes(rows: &[&[(u32, f32)]]) -> SparseCodes {
        let mut codes = SparseCodes::new(4);
        rows.iter().for_each(|row| codes.push(row.iter().copied()));
        codes
    }

    /// One latent fires on a share p of the images, one token each: the interval of the largest frequency is that of a proportion.
    #[test]
    fn the_interval_of_the_largest_frequency_is_that_of_a_share() {
        let (n, p) = (1000, 0.3);
        let bootstrap = Bootstrap::new(2000, 5);
        let mut frequencies = Frequencies::new(2000, 4);
        for i in 0..n {
            let weights = bootstrap.weights(&i.to_string());
            let row: &[(u32, f32)] = if i < (p * f64::from(n)) as i32 { &[(2, 1.0)] } else { &[(1, 1.0)] };
            // The other latent fires more often, but in the private block.
            frequencies.add(&weights, &codes(&[if row[0].0 == 2 { row } else { &[] }]));
        }
        let values = frequencies.largest().unwrap();
        assert_eq!(values.len(), 2000);
        let [low, high] = interval_of(values).unwrap();
        let half = 1.96 * (p * (1.0 - p) / f64::from(n)).sqrt();
        assert!((low - (p - half)).abs() < 0.2 * half && (high - (p + half)).abs() < 0.2 * half, "{low} {high}");
        assert!(Frequencies::new(100_000, 8192).largest().is_none(), "too many counters");
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
