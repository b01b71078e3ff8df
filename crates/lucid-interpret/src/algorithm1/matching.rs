//! Stage 3: where an image meets a concept, through the image's inverted index latent → (patch, value).

use super::library::Library;
use crate::coder::SparseCodes;

/// Inverted index of one image's shared codes.
pub struct ImageIndex {
    patches: usize,
    /// Postings before each latent; one more than shared latents.
    starts: Vec<u32>,
    /// (patch, value) by rising patch within a latent.
    postings: Vec<(u32, f32)>,
}

impl ImageIndex {
    /// Sorts the non-zeros of an image by latent; linear in their number (and in the number of latents).
    #[must_use]
    pub fn new(vision: &SparseCodes) -> Self {
        let mut starts = vec![0u32; vision.d_shared() + 1];
        for patch in 0..vision.len() {
            vision.shared(patch).indices.iter().for_each(|&latent| starts[latent as usize + 1] += 1);
        }
        for latent in 1..starts.len() {
            starts[latent] += starts[latent - 1];
        }
        let mut next = starts.clone();
        let mut postings = vec![(0, 0.0); starts[starts.len() - 1] as usize];
        for patch in 0..vision.len() {
            for (latent, value) in vision.shared(patch).iter() {
                let at = &mut next[latent as usize];
                postings[*at as usize] = (patch as u32, value);
                *at += 1;
            }
        }
        Self { patches: vision.len(), starts, postings }
    }

    /// Patches on which a latent fires, with its values.
    #[must_use]
    pub fn of(&self, latent: u32) -> &[(u32, f32)] {
        let latent = latent as usize;
        &self.postings[self.starts[latent] as usize..self.starts[latent + 1] as usize]
    }

    /// Number of patches.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.patches
    }

    /// Heat map of a latent: its values, 0 where it does not fire.
    #[must_use]
    pub fn heat_of_latent(&self, latent: u32) -> Vec<f64> {
        let mut heat = vec![0.0; self.patches];
        self.of(latent).iter().for_each(|&(patch, value)| heat[patch as usize] = f64::from(value));
        heat
    }

    /// Heat map of a concept: score(p) = Σ_m min(z_p,m , z_c,m) · idf_m.
    #[must_use]
    pub fn heat_of_concept(&self, code: &[(u32, f64)], idf: impl Fn(u32) -> f64) -> Vec<f64> {
        let mut heat = vec![0.0; self.patches];
        for &(latent, weight) in code {
            let idf = idf(latent);
            for &(patch, value) in self.of(latent) {
                heat[patch as usize] += f64::from(value).min(weight) * idf;
            }
        }
        heat
    }
}

/// Where a concept's score peaks in an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// The concept.
    pub concept: u32,
    /// p*: patch of the largest score, ties to the first.
    pub patch: u32,
    /// m*: latent of the largest term at p*, ties to the first.
    pub latent: u32,
    /// score(p*) > 0.
    pub confidence: f64,
}

/// Peaks of all concepts that score above 0 in an image, by rising concept.
#[must_use]
pub fn peaks(index: &ImageIndex, library: &Library) -> Vec<Peak> {
    let mut score = vec![0.0; index.patches()];
    let mut found = Vec::new();
    for (concept, code) in library.codes.iter().enumerate() {
        let mut touched = false;
        for &(latent, weight) in code {
            let idf = library.idf[latent as usize];
            for &(patch, value) in index.of(latent) {
                score[patch as usize] += f64::from(value).min(weight) * idf;
                touched = true;
            }
        }
        if !touched {
            continue;
        }
        let patch = (0..score.len()).fold(0, |best, p| if score[p] > score[best] { p } else { best });
        let confidence = score[patch];
        if confidence > 0.0 {
            let latent = strongest(index, library, code, patch as u32);
            found.push(Peak { concept: concept as u32, patch: patch as u32, latent, confidence });
        }
        score.fill(0.0);
    }
    found
}

/// arg max_m A(p)_m.
fn strongest(index: &ImageIndex, library: &Library, code: &[(u32, f64)], patch: u32) -> u32 {
    let mut best = (u32::MAX, 0.0);
    for &(latent, weight) in code {
        let postings = index.of(latent);
        if let Ok(at) = postings.binary_search_by_key(&patch, |&(p, _)| p) {
            let term = f64::from(postings[at].1).min(weight) * library.idf[latent as usize];
            if term > best.1 {
                best = (latent, term);
            }
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::super::library::idf;
    use super::*;
    use proptest::prelude::*;

    const D: usize = 6;

    /// The formulas of spec 7 on dense codes.
    fn brute(image: &[[f32; D]], concepts: &[[f64; D]]) -> Vec<Peak> {
        let df = |m: usize| concepts.iter().filter(|c| c[m] > 0.0).count();
        let idf = |m: usize| if df(m) == 0 { 0.0 } else { (concepts.len() as f64 / df(m) as f64).ln() };
        let term = |p: &[f32; D], c: &[f64; D], m: usize| f64::from(p[m]).min(c[m]) * idf(m);
        let mut found = Vec::new();
        for (concept, c) in concepts.iter().enumerate() {
            let score = |p: &[f32; D]| (0..D).map(|m| term(p, c, m)).sum::<f64>();
            let mut patch = 0;
            for p in 1..image.len() {
                if score(&image[p]) > score(&image[patch]) {
                    patch = p;
                }
            }
            let confidence = score(&image[patch]);
            if confidence > 0.0 {
                let mut latent = 0;
                for m in 1..D {
                    if term(&image[patch], c, m) > term(&image[patch], c, latent) {
                        latent = m;
                    }
                }
                found.push(Peak { concept: concept as u32, patch: patch as u32, latent: latent as u32, confidence });
            }
        }
        found
    }

    proptest! {
        #[test]
        fn equals_the_formulas(
            image in prop::collection::vec(prop::array::uniform6(0u8..4), 1..8),
            concepts in prop::collection::vec(prop::array::uniform6(0u8..4), 1..8),
        ) {
            let image: Vec<[f32; D]> = image.iter().map(|row| row.map(|v| f32::from(v) * 0.37)).collect();
            let concepts: Vec<[f64; D]> = concepts.iter().map(|row| row.map(|v| f64::from(v) * 0.41)).collect();
            let mut codes = SparseCodes::new(D);
            for row in &image {
                codes.push(row.iter().enumerate().map(|(m, &v)| (m as u32, v)));
            }
            let sparse: Vec<Vec<(u32, f64)>> = concepts
                .iter()
                .map(|c| c.iter().enumerate().filter(|(_, v)| **v > 0.0).map(|(m, &v)| (m as u32, v)).collect())
                .collect();
            let library = Library { idf: idf(&sparse, D), codes: sparse };
            let index = ImageIndex::new(&codes);
            let found = peaks(&index, &library);
            prop_assert_eq!(&found, &brute(&image, &concepts));
            for peak in &found {
                let heat = index.heat_of_concept(&library.codes[peak.concept as usize], |m| library.idf[m as usize]);
                prop_assert_eq!(heat[peak.patch as usize], peak.confidence);
                prop_assert!(heat.iter().all(|&h| h <= peak.confidence));
            }
            for m in 0..D {
                let expected: Vec<f64> = image.iter().map(|row| f64::from(row[m])).collect();
                prop_assert_eq!(index.heat_of_latent(m as u32), expected);
            }
        }
    }
}
