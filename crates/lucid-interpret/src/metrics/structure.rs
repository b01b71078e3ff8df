//! What the shared latents are to both modalities, pair by pair: modality and bridge scores, overlap of supports, and how alike the
//! images are that fire a latent; retrieval is in [`super::retrieval`].
//!
//! A pair is its two pooled codes: the mean shared code of its patches, and that of its tokens. Everything is summed in the order of
//! keys, so the result depends on which pairs there are and on nothing else.

use lucid_kernels::Modality;

use crate::coder::SparseCodes;
use crate::evaluation::{LatentScore, LatentSummary, Structure, SupportOverlap};

use super::bootstrap::Bootstrap;
use super::latent_intervals::bridges;
use super::monosemanticity::{Alike, AlikeSums};
use super::retrieval::{Query, retrieval};

/// Pairs that are compared with each other at most: those of the smallest hashes of their keys.
pub(crate) const PAIRS: usize = 5000;

/// A pair as this module sees it.
pub(crate) struct PooledPair {
    /// Hash of (seed, key), which orders the pairs.
    pub order: [u8; 32],
    /// Mean shared code of the patches, by rising latent.
    pub vision: Vec<(u32, f32)>,
    /// Mean shared code of the tokens.
    pub text: Vec<(u32, f32)>,
    /// Mean state of the patches.
    pub state: Vec<f32>,
    pub key: String,
}

impl PooledPair {
    pub(crate) fn new(
        seed: u64,
        key: &str,
        vision: &SparseCodes,
        text: &SparseCodes,
        states: &[f32],
        d: usize,
    ) -> Self {
        let pooled = |codes: &SparseCodes| {
            let all: Vec<usize> = (0..codes.len()).collect();
            codes.mean_shared(&all).into_iter().map(|(latent, value)| (latent, value as f32)).collect()
        };
        let mut state = vec![0.0_f64; d];
        for row in states.chunks_exact(d) {
            state.iter_mut().zip(row).for_each(|(sum, &h)| *sum += f64::from(h));
        }
        let n = (states.len() / d).max(1) as f64;
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"structure").update(&seed.to_le_bytes()).update(key.as_bytes());
        Self {
            order: *hasher.finalize().as_bytes(),
            vision: pooled(vision),
            text: pooled(text),
            state: state.into_iter().map(|sum| (sum / n) as f32).collect(),
            key: key.to_owned(),
        }
    }

    fn of(&self, modality: Modality) -> &[(u32, f32)] {
        match modality {
            Modality::Vision => &self.vision,
            Modality::Text => &self.text,
        }
    }
}

/// Pairs in the order of their hashes, at most [`PAIRS`].
#[derive(Default)]
pub(crate) struct Pool {
    pairs: Vec<PooledPair>,
}

/// What one pair adds to the means, for the intervals.
pub(crate) struct PairScores {
    pub key: String,
    pub query: Query,
    /// Jaccard of the latents that its two halves fire.
    pub support: f64,
}

impl Pool {
    pub(crate) fn add(&mut self, pair: PooledPair) {
        self.pairs.push(pair);
        // Sorted now and then only, so that adding stays cheap.
        if self.pairs.len() >= 2 * PAIRS {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.pairs.sort_by_key(|pair| pair.order);
        self.pairs.truncate(PAIRS);
    }

    /// Everything, and what each pair adds to the means; nothing with fewer than two pairs.
    pub(crate) fn finish(&mut self, d_shared: usize) -> Option<(Structure, Vec<LatentScore>, Vec<PairScores>)> {
        self.trim();
        if self.pairs.len() < 2 || d_shared == 0 {
            return None;
        }
        let (retrieval, hubness, queries) = retrieval(&self.pairs, d_shared);
        let supports = self.supports();
        let mean = |side: usize| supports.iter().map(|of| of[side]).sum::<f64>() / supports.len() as f64;
        let latents = self.latents(d_shared);
        let structure = Structure {
            pairs: self.pairs.len() as u64,
            retrieval,
            hubness,
            support: SupportOverlap { jaccard: mean(0), shuffled: mean(1) },
            bridge: latents.summary(|of| of.bridge),
            jaccard: latents.summary(|of| of.jaccard),
            monosemanticity: latents.summary(|of| of.monosemanticity),
        };
        let scores = self.pairs.iter().zip(queries).zip(&supports);
        let scores = scores.map(|((pair, query), of)| PairScores { key: pair.key.clone(), query, support: of[0] });
        Some((structure, latents.own, scores.collect()))
    }

    /// The mean bridge score and the mean Jaccard in every resample.
    pub(crate) fn resampled(&self, bootstrap: &Bootstrap, d_shared: usize) -> [Vec<f64>; 2] {
        let weighted = |pair: &PooledPair| bootstrap.weights(&pair.key);
        let pairs: Vec<_> = self.pairs.iter().map(|pair| (weighted(pair), &*pair.vision, &*pair.text)).collect();
        bridges(&pairs, d_shared, bootstrap.resamples())
    }

    /// The pair whose half stands in for the right one: one cycle.
    fn other(&self, pair: usize) -> &PooledPair {
        &self.pairs[(pair + 1) % self.pairs.len()]
    }

    /// Of every pair the overlap of the latents that its two halves fire (SPARC's Jaccard), beside that with another caption.
    fn supports(&self) -> Vec<[f64; 2]> {
        let jaccard = |a: &[(u32, f32)], b: &[(u32, f32)]| {
            let (a, b) = (a.iter().map(|e| e.0), b.iter().map(|e| e.0));
            let (a, b): (std::collections::BTreeSet<u32>, std::collections::BTreeSet<u32>) = (a.collect(), b.collect());
            let union = a.union(&b).count();
            if union == 0 { 0.0 } else { a.intersection(&b).count() as f64 / union as f64 }
        };
        let of = |(at, pair): (usize, &PooledPair)| {
            [jaccard(&pair.vision, &pair.text), jaccard(&pair.vision, &self.other(at).text)]
        };
        self.pairs.iter().enumerate().map(of).collect()
    }

    fn latents(&self, d_shared: usize) -> Both {
        let mut sums: Vec<Sums> = vec![Sums::default(); d_shared];
        for modality in Modality::ALL {
            for (at, pair) in self.pairs.iter().enumerate() {
                for &(latent, value) in pair.of(modality) {
                    let (sums, value) = (&mut sums[latent as usize], f64::from(value));
                    match modality {
                        Modality::Vision => {
                            sums.vision += value;
                            sums.vision_square += value * value;
                            sums.vision_fires += 1.0;
                            let partner = |pair: &PooledPair| value_at(&pair.text, latent);
                            sums.own.add(value, partner(pair));
                            sums.shuffled.add(value, partner(self.other(at)));
                        }
                        Modality::Text => {
                            sums.text += value;
                            sums.text_square += value * value;
                            sums.text_fires += 1.0;
                        }
                    }
                }
            }
        }
        let (own, shuffled) = (self.monosemanticity(d_shared, false), self.monosemanticity(d_shared, true));
        let scores = |product: fn(&Sums) -> &Products, mono: Vec<Option<f64>>| -> Vec<LatentScore> {
            let of = |((latent, sums), mono): ((u32, &Sums), Option<f64>)| LatentScore {
                latent,
                modality: sums.modality(),
                bridge: sums.bridge(product(sums)),
                jaccard: sums.jaccard(product(sums)),
                monosemanticity: mono,
            };
            (0..).zip(&sums).zip(mono).map(of).collect()
        };
        Both { own: scores(|sums| &sums.own, own), shuffled: scores(|sums| &sums.shuffled, shuffled) }
    }

    /// With `shuffled`, every image has the state of another.
    fn alike(&self, d_shared: usize, shuffled: bool) -> Alike {
        let state = |at: usize| if shuffled { &*self.other(at).state } else { &*self.pairs[at].state };
        Alike::new(&self.pairs, state, d_shared)
    }

    /// For every latent the mean cosine of the images that fire it, weighted by the products of their activations (scaled to [0, 1] over
    /// the images): (‖Σ aᵢeᵢ‖² − Σ aᵢ²) / ((Σ aᵢ)² − Σ aᵢ²), e the centred mean state of an image's patches, of norm 1. An image whose
    /// mean state is that of all images has no direction, and is left out.
    fn monosemanticity(&self, d_shared: usize, shuffled: bool) -> Vec<Option<f64>> {
        self.alike(d_shared, shuffled).latents.iter().map(AlikeSums::score).collect()
    }

    /// The mean monosemanticity in every resample, to first order in the weights of images: a resample counts an image twice, and an image is
    /// like itself, which would raise every score.
    pub(crate) fn resampled_monosemanticity(&self, bootstrap: &Bootstrap, d_shared: usize) -> Vec<f64> {
        let alike = self.alike(d_shared, false);
        let scores: Vec<Option<f64>> = alike.latents.iter().map(AlikeSums::score).collect();
        let known: Vec<f64> = scores.iter().flatten().copied().collect();
        if known.is_empty() {
            return Vec::new();
        }
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let changes = self.pairs.iter().zip(&alike.directions).filter_map(|(pair, e)| {
            let (e, scores, latents) = (e.as_ref()?, &scores, &alike.latents);
            let change = alike.activations(pair).filter_map(|(at, a)| Some(latents[at].change(a, e, scores[at]?)));
            Some((&*pair.key, change.sum::<f64>() / known.len() as f64))
        });
        bootstrap.linear(mean, changes)
    }
}

struct Both {
    own: Vec<LatentScore>,
    shuffled: Vec<LatentScore>,
}

impl Both {
    /// Means of a score over the latents that have it.
    fn summary(&self, score: fn(&LatentScore) -> Option<f64>) -> Option<LatentSummary> {
        let known = |scores: &[LatentScore]| scores.iter().filter_map(score).collect::<Vec<f64>>();
        let mean = |known: &[f64]| (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
        let (own, shuffled) = (known(&self.own), known(&self.shuffled));
        Some(LatentSummary { mean: mean(&own)?, shuffled: mean(&shuffled)?, latents: own.len() as u64 })
    }
}

/// Sums of one latent over images and texts matched in some way.
#[derive(Debug, Clone, Default)]
struct Products {
    product: f64,
    both: f64,
}

impl Products {
    fn add(&mut self, vision: f64, text: f64) {
        if text > 0.0 {
            self.product += vision * text;
            self.both += 1.0;
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Sums {
    vision: f64,
    vision_square: f64,
    vision_fires: f64,
    text: f64,
    text_square: f64,
    text_fires: f64,
    own: Products,
    shuffled: Products,
}

impl Sums {
    /// E_img / (E_img + E_txt).
    fn modality(&self) -> Option<f64> {
        let all = self.vision + self.text;
        (all > 0.0).then(|| self.vision / all)
    }

    /// Cosine over pairs of the latent's activations in image and text; 0 where it fires in one modality only.
    fn bridge(&self, of: &Products) -> Option<f64> {
        if self.vision + self.text == 0.0 {
            return None;
        }
        let norms = (self.vision_square * self.text_square).sqrt();
        Some(if norms > 0.0 { of.product / norms } else { 0.0 })
    }

    /// Pairs where it fires in both over pairs where it fires in either.
    fn jaccard(&self, of: &Products) -> Option<f64> {
        let union = self.vision_fires + self.text_fires - of.both;
        (union > 0.0).then(|| of.both / union)
    }
}

fn value_at(code: &[(u32, f32)], latent: u32) -> f64 {
    code.binary_search_by_key(&latent, |entry| entry.0).map_or(0.0, |at| f64::from(code[at].1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(entries: &[(u32, f32)]) -> SparseCodes {
        let mut codes = SparseCodes::new(8);
        codes.push(entries.iter().copied());
        codes
    }

    /// Codes of a picture and of its caption, and the picture's mean state.
    type Pair<'a> = (&'a [(u32, f32)], &'a [(u32, f32)], [f32; 2]);

    fn pool(pairs: &[Pair<'_>]) -> Pool {
        let mut pool = Pool::default();
        for (at, (vision, text, state)) in pairs.iter().enumerate() {
            pool.add(PooledPair::new(0, &format!("pair {at}"), &code(vision), &code(text), state, 2));
        }
        pool
    }

    #[test]
    fn latents_that_fire_for_both_halves_bridge_and_others_do_not() {
        let (structure, latents, scores) = pool(&[
            (&[(0, 1.0), (4, 1.0)], &[(0, 2.0)], [1.0, 0.0]),
            (&[(1, 1.0), (4, 1.0)], &[(1, 2.0), (5, 1.0)], [0.0, 1.0]),
            (&[(2, 3.0)], &[(2, 1.0)], [-1.0, 0.0]),
        ])
        .finish(8)
        .unwrap();
        for latent in [0, 1, 2] {
            assert!((latents[latent].bridge.unwrap() - 1.0).abs() < 1e-6);
            assert_eq!(latents[latent].jaccard, Some(1.0));
        }
        assert_eq!((latents[4].bridge, latents[5].bridge, latents[6].bridge), (Some(0.0), Some(0.0), None));
        assert_eq!((latents[4].modality, latents[5].modality, latents[6].modality), (Some(1.0), Some(0.0), None));
        assert!((latents[2].modality.unwrap() - 0.75).abs() < 1e-6);
        assert_eq!(structure.retrieval.t2i, crate::evaluation::RetrievalScore { at1: 1.0, at5: 1.0, at10: 1.0 });
        assert_eq!(structure.retrieval.chance.at1, 1.0 / 3.0);
        assert_eq!(structure.bridge.unwrap().shuffled, 0.0);
        assert_eq!(structure.support.shuffled, 0.0);
        // (1/2 + 1/3 + 1) / 3: {0, 4} and {0}; {1, 4} and {1, 5}; {2} and {2}.
        assert!((structure.support.jaccard - (0.5 + 1.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        assert_eq!(scores.iter().map(|of| of.support).sum::<f64>() / 3.0, structure.support.jaccard);
        assert!(pool(&[(&[(0, 1.0)], &[(0, 1.0)], [1.0, 0.0])]).finish(8).is_none());
    }

    /// The one-product form is the mean over pairs of images.
    #[test]
    fn monosemanticity_is_the_mean_over_pairs() {
        let values: Vec<(u32, f32, [f32; 2])> = vec![
            (3, 0.5, [1.0, 0.2]),
            (3, 2.0, [0.3, 0.9]),
            (3, 1.0, [-0.4, 0.1]),
            (6, 1.0, [0.7, -0.8]),
            (3, 0.25, [0.9, 0.4]),
        ];
        let mut pool = Pool::default();
        for (at, &(latent, value, state)) in values.iter().enumerate() {
            pool.add(PooledPair::new(1, &at.to_string(), &code(&[(latent, value)]), &code(&[]), &state, 2));
        }
        pool.trim();
        let n = values.len() as f64;
        let mean = [0, 1].map(|i| values.iter().map(|v| f64::from(v.2[i])).sum::<f64>() / n);
        let unit = |state: [f32; 2]| {
            let e = [0, 1].map(|i| f64::from(state[i]) - mean[i]);
            let norm = (e[0] * e[0] + e[1] * e[1]).sqrt();
            [e[0] / norm, e[1] / norm]
        };
        let (mut sum, mut weights) = (0.0, 0.0);
        for (i, a) in values.iter().enumerate().filter(|(_, v)| v.0 == 3) {
            for (_, b) in values.iter().enumerate().filter(|&(j, v)| v.0 == 3 && j != i) {
                let (e, f, w) = (unit(a.2), unit(b.2), f64::from(a.1) * f64::from(b.1));
                sum += w * (e[0] * f[0] + e[1] * f[1]);
                weights += w;
            }
        }
        let bootstrap = Bootstrap::new(400, 3);
        let resampled = pool.resampled_monosemanticity(&bootstrap, 8);
        let expected = |resample: usize| {
            // The derivative by differences: one image counts a little more.
            let mut change = 0.0;
            for (i, pair) in pool.pairs.iter().enumerate() {
                let at = values.iter().enumerate().find(|(at, _)| at.to_string() == pair.key).unwrap().0;
                let score = |step: f64| {
                    let w = |j: usize| if j == at { 1.0 + step } else { 1.0 };
                    let (mut sum, mut all) = (0.0, 0.0);
                    for (i, a) in values.iter().enumerate().filter(|(_, v)| v.0 == 3) {
                        for (j, b) in values.iter().enumerate().filter(|&(j, v)| v.0 == 3 && j != i) {
                            let (e, f, weight) = (unit(a.2), unit(b.2), w(i) * w(j) * f64::from(a.1) * f64::from(b.1));
                            sum += weight * (e[0] * f[0] + e[1] * f[1]);
                            all += weight;
                        }
                    }
                    sum / all
                };
                let slope = (score(1e-5) - score(-1e-5)) / 2e-5;
                change += (f64::from(bootstrap.weights(&pool.pairs[i].key).of(resample)) - 1.0) * slope;
            }
            sum / weights + change
        };
        for resample in [0, 17, 399] {
            assert!((resampled[resample] - expected(resample)).abs() < 1e-6);
        }
        let found = pool.monosemanticity(8, false);
        assert!((found[3].unwrap() - sum / weights).abs() < 1e-6, "{:?} {}", found[3], sum / weights);
        // One image makes no pair.
        assert_eq!(found[6], None);
    }

    /// Images that are all alike have no direction to agree in.
    #[test]
    fn images_that_do_not_differ_have_no_monosemanticity() {
        let alike: Vec<Pair<'_>> =
            vec![(&[(0, 1.0)], &[], [0.3, 0.7]), (&[(0, 2.0)], &[], [0.3, 0.7]), (&[(0, 3.0)], &[], [0.3, 0.7])];
        assert_eq!(pool(&alike).monosemanticity(8, false)[0], None);
        // Two stand in the middle, and one of them does not fire it; the others are opposite.
        let line: Vec<Pair<'_>> = vec![
            (&[(0, 1.0)], &[], [1.0, 0.0]),
            (&[(0, 2.0)], &[], [2.0, 0.0]),
            (&[(0, 3.0)], &[], [3.0, 0.0]),
            (&[], &[], [2.0, 0.0]),
        ];
        assert!((pool(&line).monosemanticity(8, false)[0].unwrap() + 1.0).abs() < 1e-12);
    }
}
