//! Means and variances of a store, in f64, streamed pair by pair.

use serde::{Deserialize, Serialize};

/// The same quantity for both modalities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerModality<T> {
    /// Image patches.
    pub vision: T,
    /// Text tokens; in statistics those of the first captions.
    pub text: T,
}

/// Statistics over all patches and over all tokens of first captions, of the values as stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Statistics {
    /// Mean of the patches' states, `[d_vision]`.
    pub mean_vision: Vec<f64>,
    /// Mean of the tokens' states, `[d_text]`.
    pub mean_text: Vec<f64>,
    /// E‖h − h̄‖², summed over the dimensions: V_m of spec 4.1.
    pub variance: PerModality<f64>,
    /// E‖h‖², summed over the dimensions.
    pub mean_square: PerModality<f64>,
    /// E‖h̄_n − E h̄‖² over pairs, h̄_n the mean of a pair's tokens: V_m^pool of spec 5.2.
    pub pooled_variance: PerModality<f64>,
    /// Number of patches and of tokens.
    pub tokens: PerModality<u64>,
}

/// Accumulates one modality. Every pair is summed about its own mean in two passes and then merged (Chan's update), so
/// nothing cancels however far the mean lies from zero, and the result depends on the order of pairs alone.
#[derive(Debug, Clone)]
struct Moments {
    tokens: u64,
    mean: Vec<f64>,
    /// Σ‖h − mean‖².
    spread: f64,
    square: f64,
    pairs: u64,
    pooled_mean: Vec<f64>,
    pooled_spread: f64,
    pair_mean: Vec<f64>,
}

impl Moments {
    fn new(d: usize) -> Self {
        Self {
            tokens: 0,
            mean: vec![0.0; d],
            spread: 0.0,
            square: 0.0,
            pairs: 0,
            pooled_mean: vec![0.0; d],
            pooled_spread: 0.0,
            pair_mean: vec![0.0; d],
        }
    }

    fn add(&mut self, states: &[f32]) {
        let d = self.mean.len();
        let n = (states.len() / d) as f64;
        self.pair_mean.fill(0.0);
        for row in states.chunks_exact(d) {
            for (m, &h) in self.pair_mean.iter_mut().zip(row) {
                *m += f64::from(h);
            }
        }
        self.pair_mean.iter_mut().for_each(|m| *m /= n);
        let mut spread = 0.0;
        for row in states.chunks_exact(d) {
            let (mut row_spread, mut row_square) = (0.0, 0.0);
            for (m, &h) in self.pair_mean.iter().zip(row) {
                let h = f64::from(h);
                row_spread += (h - m) * (h - m);
                row_square += h * h;
            }
            spread += row_spread;
            self.square += row_square;
        }
        self.spread += spread + merge_means(&mut self.mean, &self.pair_mean, self.tokens as f64, n);
        self.tokens += n as u64;
        self.pooled_spread += merge_means(&mut self.pooled_mean, &self.pair_mean, self.pairs as f64, 1.0);
        self.pairs += 1;
    }
}

/// Moves `mean` (of `n` items) to the mean with `other` (of `m` items) joined; gives the joined spread's extra term.
fn merge_means(mean: &mut [f64], other: &[f64], n: f64, m: f64) -> f64 {
    let total = n + m;
    let mut distance = 0.0;
    for (a, b) in mean.iter_mut().zip(other) {
        let delta = b - *a;
        distance += delta * delta;
        *a += delta * (m / total);
    }
    distance * (n * m / total)
}

/// Gathers [`Statistics`] from pairs given in their order.
#[derive(Debug, Clone)]
pub(super) struct StatisticsBuilder {
    vision: Moments,
    text: Moments,
}

impl StatisticsBuilder {
    pub(super) fn new(d_vision: usize, d_text: usize) -> Self {
        Self { vision: Moments::new(d_vision), text: Moments::new(d_text) }
    }

    /// Takes a pair's patches.
    pub(super) fn add_vision(&mut self, states: &[f32]) {
        self.vision.add(states);
    }

    /// Takes the tokens of a pair's first caption.
    pub(super) fn add_text(&mut self, states: &[f32]) {
        self.text.add(states);
    }

    pub(super) fn finish(self) -> Statistics {
        let per_token = |m: &Moments, sum: f64| sum / m.tokens.max(1) as f64;
        let (v, t) = (self.vision, self.text);
        Statistics {
            variance: PerModality { vision: per_token(&v, v.spread), text: per_token(&t, t.spread) },
            mean_square: PerModality { vision: per_token(&v, v.square), text: per_token(&t, t.square) },
            pooled_variance: PerModality {
                vision: v.pooled_spread / v.pairs.max(1) as f64,
                text: t.pooled_spread / t.pairs.max(1) as f64,
            },
            tokens: PerModality { vision: v.tokens, text: t.tokens },
            mean_vision: v.mean,
            mean_text: t.mean,
        }
    }
}
