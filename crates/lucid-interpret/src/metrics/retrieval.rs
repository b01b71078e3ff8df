//! Retrieval between the pooled shared codes of images and texts; its hubness is in [`super::hubness`].

use crate::evaluation::{Hubness, Retrieval, RetrievalScore};

use super::hubness::{NEIGHBOURS, at_random, hubs};
use super::structure::PooledPair;

const RANKS: [usize; 3] = [1, 5, 10];

/// Whether the other half of a pair is among the first 1, 5, 10 answers to one half.
#[derive(Clone, Copy)]
pub(crate) struct Query {
    pub t2i: [f64; 3],
    pub i2t: [f64; 3],
    /// What the pair adds to the hubness of either direction as it counts more.
    pub hubness: [f64; 2],
}

/// cos of every text with every image \[texts · images\].
fn similarities(pairs: &[PooledPair], d_shared: usize) -> Vec<f32> {
    let n = pairs.len();
    let norm = |code: &[(u32, f32)]| code.iter().map(|(_, v)| v * v).sum::<f32>().sqrt();
    let mut index: Vec<Vec<(u32, f32)>> = vec![Vec::new(); d_shared];
    for (image, pair) in pairs.iter().enumerate() {
        let norm = norm(&pair.vision);
        for &(latent, value) in pair.vision.iter().filter(|_| norm > 0.0) {
            index[latent as usize].push((image as u32, value / norm));
        }
    }
    let mut out = vec![0.0; n * n];
    for (row, pair) in out.chunks_exact_mut(n).zip(pairs) {
        let norm = norm(&pair.text);
        for &(latent, value) in pair.text.iter().filter(|_| norm > 0.0) {
            for &(image, other) in &index[latent as usize] {
                row[image as usize] += value / norm * other;
            }
        }
    }
    out
}

/// Retrieval by pooled shared codes both ways, the hubness of its answers, and the queries.
pub(crate) fn retrieval(pairs: &[PooledPair], d_shared: usize) -> (Retrieval, Hubness, Vec<Query>) {
    let n = pairs.len();
    let by_text = similarities(pairs, d_shared);
    let mut by_image = vec![0.0; n * n];
    for text in 0..n {
        for image in 0..n {
            by_image[image * n + text] = by_text[text * n + image];
        }
    }
    let score = |matrix: &[f32]| {
        let hits: Vec<[f64; 3]> = matrix.chunks_exact(n).enumerate().map(|(query, row)| found(row, query)).collect();
        let mean = |rank: usize| hits.iter().map(|hit| hit[rank]).sum::<f64>() / n as f64;
        (RetrievalScore { at1: mean(0), at5: mean(1), at10: mean(2) }, hits)
    };
    let ((t2i, text_hits), (i2t, image_hits)) = (score(&by_text), score(&by_image));
    let chance = |k: usize| (k as f64 / n as f64).min(1.0);
    let chance = RetrievalScore { at1: chance(1), at5: chance(5), at10: chance(10) };
    let neighbours = NEIGHBOURS.min(n);
    let (of_images, of_texts) = (hubs(&by_text, n, neighbours), hubs(&by_image, n, neighbours));
    let hubness = Hubness {
        neighbours: neighbours as u64,
        t2i: of_images.skewness,
        i2t: of_texts.skewness,
        random: at_random(n, neighbours),
    };
    let influence = of_images.influence.into_iter().zip(of_texts.influence).map(<[f64; 2]>::from);
    let queries = text_hits.into_iter().zip(image_hits).zip(influence);
    let queries = queries.map(|((t2i, i2t), hubness)| Query { t2i, i2t, hubness }).collect();
    (Retrieval { t2i, i2t, chance }, hubness, queries)
}

/// Whether position `right` of a row is among its 1, 5, 10 largest; answers that tie share the places evenly.
fn found(row: &[f32], right: usize) -> [f64; 3] {
    let value = row[right];
    let above = row.iter().filter(|&&other| other > value).count();
    let ties = row.iter().filter(|&&other| other == value).count();
    RANKS.map(|rank| (rank.saturating_sub(above) as f64 / ties as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retrieval_shares_the_places_of_answers_that_tie() {
        assert_eq!(found(&[0.1, 0.9, 0.5], 1), [1.0, 1.0, 1.0]);
        assert_eq!(found(&[0.9, 0.1, 0.5], 1), [0.0, 1.0, 1.0]);
        // Ten answers alike: each is the first with a chance of a tenth.
        assert_eq!(found(&[0.0; 10], 3), [0.1, 0.5, 1.0]);
    }
}
