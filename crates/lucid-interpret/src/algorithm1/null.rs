//! What peak scores chance gives: images in which every latent fires where it will, whatever the others do.
//!
//! Each latent fires on a patch with the probability with which it fires on all patches, and as strongly as it does there: the codes of
//! all images with each latent shuffled over images and patches on its own. What remains of a concept's score is what its
//! latents give when they meet by accident; what is gone is that they fire together where the concept is. A concept of
//! one latent scores as before, so no threshold tells its hits from chance. Nor is chance all that misleads: latents that stand for something else
//! meet for a reason, and their hits are false all the same (docs/concepts.md has measured it).

use super::matching::ImageIndex;
use crate::coder::SparseCodes;

/// Activations remembered of a latent.
const SAMPLE: usize = 64;

/// SplitMix64 from a key.
struct Numbers(u64);

impl Numbers {
    /// A number in (0, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() * n as f64) as usize).min(n - 1)
    }
}

/// A sample of every latent's activations, gathered image by image.
pub struct Samples {
    values: Vec<Vec<f32>>,
    seen: Vec<u64>,
    numbers: Numbers,
}

impl Samples {
    /// Of `d_shared` latents.
    #[must_use]
    pub fn new(d_shared: usize, seed: u64) -> Self {
        Self { values: vec![Vec::new(); d_shared], seen: vec![0; d_shared], numbers: Numbers(seed) }
    }

    /// Adds an image: a reservoir, in which every activation has the same chance to stay.
    pub fn add(&mut self, vision: &SparseCodes) {
        for patch in 0..vision.len() {
            for (latent, value) in vision.shared(patch).iter() {
                let (values, seen) = (&mut self.values[latent as usize], &mut self.seen[latent as usize]);
                *seen += 1;
                if values.len() < SAMPLE {
                    values.push(value);
                } else {
                    let at = self.numbers.below(*seen as usize);
                    if at < SAMPLE {
                        values[at] = value;
                    }
                }
            }
        }
    }
}

/// Draws images of chance.
pub struct Null<'a> {
    samples: &'a Samples,
    /// Share of patches on which each latent fires.
    density: &'a [f64],
    seed: u64,
}

impl<'a> Null<'a> {
    /// From the share of patches on which each latent fires, and how strongly.
    #[must_use]
    pub const fn new(density: &'a [f64], samples: &'a Samples, seed: u64) -> Self {
        Self { samples, density, seed }
    }

    /// An image of `patches` patches, drawn from (seed, image) alone; linear in what fires.
    #[must_use]
    pub fn index(&self, image: u64, patches: usize) -> ImageIndex {
        let mut numbers = Numbers(self.seed ^ image.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); patches];
        for (latent, (&density, values)) in self.density.iter().zip(&self.samples.values).enumerate() {
            if density <= 0.0 || values.is_empty() {
                continue;
            }
            // From one firing to the next the distance is geometric.
            let silence = (1.0 - density).ln();
            let mut patch = 0;
            loop {
                if density < 1.0 {
                    patch += (numbers.next().ln() / silence) as usize;
                }
                let Some(row) = rows.get_mut(patch) else { break };
                row.push((latent as u32, values[numbers.below(values.len())]));
                patch += 1;
            }
        }
        let mut codes = SparseCodes::new(self.density.len());
        rows.into_iter().for_each(|row| codes.push(row));
        ImageIndex::new(&codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latent_fires_as_often_and_as_strongly_as_it_did() {
        let mut samples = Samples::new(4, 3);
        let mut codes = SparseCodes::new(4);
        codes.push([(0, 1.0), (1, 5.0)]);
        codes.push([(1, 7.0)]);
        codes.push([(3, 2.0)]);
        samples.add(&codes);
        let density = [0.02, 0.3, 0.0, 1.0];
        let null = Null::new(&density, &samples, 11);
        let (images, patches) = (400_u64, 50);
        let mut counts = [0.0; 4];
        for image in 0..images {
            let index = null.index(image, patches);
            for (latent, count) in counts.iter_mut().enumerate() {
                let fired = index.of(latent as u32);
                *count += fired.len() as f64;
                let known: &[f32] = [&[1.0][..], &[5.0, 7.0], &[], &[2.0]][latent];
                assert!(fired.iter().all(|(_, value)| known.contains(value)));
                assert!(fired.windows(2).all(|pair| pair[0].0 < pair[1].0));
            }
        }
        let n = images as f64 * patches as f64;
        for (count, p) in counts.iter().zip(density) {
            // Five standard deviations of a binomial.
            assert!((count - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt() + 1e-9, "{count} {p}");
        }
        assert_eq!(null.index(7, patches).of(1), null.index(7, patches).of(1));
        assert_ne!(null.index(7, patches).of(1), null.index(8, patches).of(1));
    }
}
