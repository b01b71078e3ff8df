//! Scores of pooled shared codes: of pairs, and of each latent.

use serde::{Deserialize, Serialize};

/// Share of queries whose right answer is among the first 1, 5 and 10.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RetrievalScore {
    /// R@1.
    pub at1: f64,
    /// R@5.
    pub at5: f64,
    /// R@10.
    pub at10: f64,
}

/// Retrieval by the cosine of pooled shared codes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Retrieval {
    /// Images for a caption.
    pub t2i: RetrievalScore,
    /// Captions for an image.
    pub i2t: RetrievalScore,
    /// For answers drawn at random.
    pub chance: RetrievalScore,
}

/// Skewness of how often an answer is among the nearest of all queries: large where a few answers are near to everything.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Hubness {
    /// Nearest answers that count.
    pub neighbours: u64,
    /// Over images, captions asking.
    pub t2i: f64,
    /// Over captions, images asking.
    pub i2t: f64,
    /// The skewness of neighbours drawn at random.
    pub random: f64,
}

/// Overlap of the latents that fire for the two halves of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SupportOverlap {
    /// Mean over pairs of |S_v ∩ S_t| / |S_v ∪ S_t|.
    pub jaccard: f64,
    /// The same for halves of different pairs.
    pub shuffled: f64,
}

/// Mean of a score over the shared latents that have one.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LatentSummary {
    /// Mean.
    pub mean: f64,
    /// The same with halves of different pairs, or with activations of other images.
    pub shuffled: f64,
    /// Latents that have the score.
    pub latents: u64,
}

/// What pooled shared codes tell of pairs and of latents.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Structure {
    /// Pairs compared.
    pub pairs: u64,
    /// Retrieval.
    pub retrieval: Retrieval,
    /// Hubness of that retrieval.
    pub hubness: Hubness,
    /// Overlap of supports, by pair.
    pub support: SupportOverlap,
    /// Bridge score of latents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<LatentSummary>,
    /// Overlap of supports, by latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jaccard: Option<LatentSummary>,
    /// Monosemanticity score of latents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monosemanticity: Option<LatentSummary>,
}

/// Scores of one shared latent; absent where it does not fire, or not often enough.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LatentScore {
    /// Which one.
    pub latent: u32,
    /// E_img / (E_img + E_txt): 1 = fires on patches only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality: Option<f64>,
    /// Cosine over pairs of its activations in image and text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<f64>,
    /// Pairs where it fires in both over pairs where it fires in either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jaccard: Option<f64>,
    /// How alike the images are that fire it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monosemanticity: Option<f64>,
}
