//! How often latents fire: L0, dead latents, density, maxfreq (spec 6).

use crate::coder::SparseCodes;
use crate::evaluation::{Blocks, Quantiles, Sparsity};

/// Counts of one modality over the evaluation set.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    d_shared: usize,
    tokens: u64,
    fired: Vec<u64>,
}

impl Activity {
    pub(crate) fn new(d_shared: usize, latents: usize) -> Self {
        Self { d_shared, tokens: 0, fired: vec![0; latents] }
    }

    pub(crate) fn add(&mut self, codes: &SparseCodes) {
        self.tokens += codes.len() as u64;
        for token in 0..codes.len() {
            for &latent in codes.row(token).indices {
                self.fired[latent as usize] += 1;
            }
        }
    }

    fn shared(&self) -> &[u64] {
        &self.fired[..self.d_shared]
    }

    fn private(&self) -> &[u64] {
        &self.fired[self.d_shared..]
    }

    /// Share of tokens on which each shared latent fires.
    pub(crate) fn shared_density(&self) -> Vec<f64> {
        self.shared().iter().map(|&count| count as f64 / self.tokens.max(1) as f64).collect()
    }

    /// Largest of [`Self::shared_density`]; `None` without shared latents or tokens.
    pub(crate) fn maxfreq(&self) -> Option<f64> {
        if self.tokens == 0 { None } else { self.shared().iter().max().map(|&count| count as f64 / self.tokens as f64) }
    }

    /// `None` without tokens or shared latents.
    pub(crate) fn sparsity(&self) -> Option<Sparsity> {
        if self.tokens == 0 || self.d_shared == 0 {
            return None;
        }
        let private = (!self.private().is_empty()).then(|| self.private());
        let l0 = |counts: &[u64]| counts.iter().sum::<u64>() as f64 / self.tokens as f64;
        let dead = |counts: &[u64]| counts.iter().filter(|&&count| count == 0).count() as u64;
        Some(Sparsity {
            l0: Blocks { shared: l0(self.shared()), private: private.map(l0) },
            dead: Blocks { shared: dead(self.shared()), private: private.map(dead) },
            density: Blocks {
                shared: quantiles(self.shared().to_vec(), self.tokens),
                private: private.map(|counts| quantiles(counts.to_vec(), self.tokens)),
            },
        })
    }
}

/// Bins of [`Strengths`]: half octaves from 2⁻⁸ to 2⁸.
pub(crate) const BINS: usize = 32;

/// How strong the activations of each shared latent are.
#[derive(Debug, Clone)]
pub(crate) struct Strengths(Vec<[u64; BINS]>);

impl Strengths {
    pub(crate) fn new(d_shared: usize) -> Self {
        Self(vec![[0; BINS]; d_shared])
    }

    pub(crate) fn add(&mut self, codes: &SparseCodes) {
        for token in 0..codes.len() {
            for (latent, value) in codes.shared(token).iter() {
                let bin = (2.0 * (f64::from(value).log2() + 8.0)).floor().clamp(0.0, BINS as f64 - 1.0);
                self.0[latent as usize][bin as usize] += 1;
            }
        }
    }

    pub(crate) fn of(&self, latent: usize) -> Vec<u64> {
        self.0[latent].to_vec()
    }
}

/// Nearest-rank quantiles of `counts / tokens`.
pub(super) fn quantiles(mut sorted: Vec<u64>, tokens: u64) -> Quantiles {
    sorted.sort_unstable();
    let at = |percent: usize| {
        let rank = (percent * sorted.len()).div_ceil(100).max(1);
        sorted[rank - 1] as f64 / tokens as f64
    };
    Quantiles { min: at(0), p10: at(10), p25: at(25), p50: at(50), p75: at(75), p90: at(90), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_hand() {
        let mut activity = Activity::new(2, 4);
        activity.add(&SparseCodes::from_slots(
            2,
            2,
            &[0, 2, 0, u32::MAX, 1, 2, 0, 2],
            &[1.0, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 1.0],
        ));
        let sparsity = activity.sparsity().unwrap();
        assert_eq!(sparsity.l0, Blocks { shared: 1.0, private: Some(0.75) });
        assert_eq!(sparsity.dead, Blocks { shared: 0, private: Some(1) });
        assert_eq!(activity.maxfreq(), Some(0.75));
        assert_eq!(activity.shared_density(), [0.75, 0.25]);
        let density = sparsity.density.private.unwrap();
        assert_eq!((density.min, density.p50, density.p75, density.max), (0.0, 0.0, 0.75, 0.75));
    }

    #[test]
    fn strengths_fall_into_half_octaves() {
        let mut strengths = Strengths::new(1);
        let entries = [1e-9, 1.0, 1.3, 1.5, 2.0, 1e9].map(|value| (0, value));
        for entry in entries {
            let mut codes = SparseCodes::new(1);
            codes.push([entry]);
            strengths.add(&codes);
        }
        let found = strengths.of(0);
        // [1, √2), [√2, 2), [2, 2√2).
        assert_eq!((found[0], found[16], found[17], found[18], found[31]), (1, 2, 1, 1, 1));
        assert_eq!(found.iter().sum::<u64>(), 6);
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert!(Activity::new(2, 4).sparsity().is_none());
        assert!(Activity::new(2, 4).maxfreq().is_none());
    }
}
