//! How alike the images are that fire a latent: the sums behind the monosemanticity score, and what one image adds to it.

use super::structure::PooledPair;

/// What monosemanticity is computed of.
pub(crate) struct Alike {
    /// Direction of every image's state from the mean; `None` where it has none.
    pub directions: Vec<Option<Vec<f64>>>,
    /// Activation of each latent that is scaled to 0: the least, where it fires on every image, else 0.
    least: Vec<f64>,
    pub latents: Vec<AlikeSums>,
}

/// Of one latent Σ a, Σ a² and Σ a e over images.
#[derive(Clone, Default)]
pub(crate) struct AlikeSums {
    sum: f64,
    square: f64,
    vector: Vec<f64>,
}

impl AlikeSums {
    /// (Σ a)² − Σ a²: the weights of all pairs of images. `None` with fewer than two images: there is no pair to compare.
    fn pairs(&self) -> Option<f64> {
        let pairs = self.sum * self.sum - self.square;
        (pairs > 1e-12 * self.sum * self.sum).then_some(pairs)
    }

    pub(crate) fn score(&self) -> Option<f64> {
        Some((self.vector.iter().map(|x| x * x).sum::<f64>() - self.square) / self.pairs()?)
    }

    /// Derivative of the score by the weight of an image with activation `a` and direction `e`.
    pub(crate) fn change(&self, a: f64, e: &[f64], score: f64) -> f64 {
        let along: f64 = self.vector.iter().zip(e).map(|(x, y)| x * y).sum();
        self.pairs().map_or(0.0, |pairs| 2.0 * a * ((along - a) - score * (self.sum - a)) / pairs)
    }
}

impl Alike {
    /// Of at least one pair; `state` gives the one that counts as a pair's.
    pub(crate) fn new<'a>(pairs: &'a [PooledPair], state: impl Fn(usize) -> &'a [f32], d_shared: usize) -> Self {
        let n = pairs.len();
        let d = pairs[0].state.len();
        let mut mean = vec![0.0; d];
        for pair in pairs {
            mean.iter_mut().zip(&pair.state).for_each(|(sum, &h)| *sum += f64::from(h) / n as f64);
        }
        let direction = |at: usize| {
            let mut e: Vec<f64> = state(at).iter().zip(&mean).map(|(&h, m)| f64::from(h) - m).collect();
            let norm = e.iter().map(|x| x * x).sum::<f64>().sqrt();
            // States are f32: a smaller difference is rounding.
            let size = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
            (norm > 1e-6 * size).then(|| {
                e.iter_mut().for_each(|x| *x /= norm);
                e
            })
        };
        let directions: Vec<_> = (0..n).map(direction).collect();
        let mut least = vec![(f64::INFINITY, 0_usize); d_shared];
        for pair in pairs {
            for &(latent, value) in &pair.vision {
                let (low, count) = &mut least[latent as usize];
                (*low, *count) = (low.min(f64::from(value)), *count + 1);
            }
        }
        let least = least.into_iter().map(|(low, count)| if count == n { low } else { 0.0 }).collect();
        let mut alike = Self { directions: Vec::new(), least, latents: vec![AlikeSums::default(); d_shared] };
        for (pair, e) in pairs.iter().zip(&directions) {
            let Some(e) = e else { continue };
            for (latent, a) in alike.activations(pair).collect::<Vec<_>>() {
                let sums = &mut alike.latents[latent];
                sums.vector.resize(d, 0.0);
                sums.vector.iter_mut().zip(e).for_each(|(sum, x)| *sum += a * x);
                (sums.sum, sums.square) = (sums.sum + a, sums.square + a * a);
            }
        }
        Self { directions, ..alike }
    }

    /// What an image fires, scaled.
    pub(crate) fn activations<'a>(&'a self, pair: &'a PooledPair) -> impl Iterator<Item = (usize, f64)> + 'a {
        let scaled = |&(latent, value): &(u32, f32)| (latent as usize, f64::from(value) - self.least[latent as usize]);
        pair.vision.iter().map(scaled)
    }
}
