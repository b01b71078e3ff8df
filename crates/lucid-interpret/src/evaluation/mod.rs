//! The evaluation as JSON (interface, section 6). A number that cannot be computed is absent and named with its reason
//! under `skipped`; it is never 0, null or NaN.

mod structure;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use structure::{Hubness, LatentScore, LatentSummary, Retrieval, RetrievalScore, Structure, SupportOverlap};

/// The same quantity of both modalities.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PerModality<T> {
    /// Image patches.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub vision: Option<T>,
    /// Valid text tokens.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub text: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> PerModality<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.vision.is_none() && self.text.is_none()
    }
}

/// A number for each block of the code.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Blocks<T> {
    /// Shared latents only.
    pub shared: T,
    /// Private latents only; absent where the model has none.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub private: Option<T>,
}

/// Self reconstruction by block and bias. Blocks do not add up.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reconstruction {
    /// Shared and private latents.
    pub joint: f64,
    /// Shared latents only.
    pub shared: f64,
    /// Private latents only; absent where the model has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<f64>,
}

/// R² of one direction of cross reconstruction, under the plan made from shared codes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cross {
    /// The source's shared code, decoded by the target's decoder.
    pub shared: f64,
    /// The source's whole code, decoded by the target's decoder.
    pub joint: f64,
    /// What the number is without alignment.
    pub controls: CrossControls,
    /// What ridge maps reach; present where there were pairs to fit them on.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Ceiling>,
}

/// R² of ridge maps from the states of the source to the target's, fitted on other pairs (definitions at
/// [`crate::cross_ceiling`]).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Ceiling {
    /// From the mean state of the pair.
    pub pooled: f64,
    /// From the states averaged by the plan.
    pub matched: f64,
    /// From both.
    pub both: f64,
}

/// Controls of [`Cross::shared`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrossControls {
    /// Every image with another pair's caption, and the plan made anew for it. Absent with fewer than two pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffled_caption: Option<f64>,
    /// The right caption, mass spread evenly.
    pub uniform_plan: f64,
    /// The mean of the target modality over the evaluation set: 0 by the definition of R².
    pub mean: f64,
}

/// A number for each direction; source → target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PerDirection<T> {
    /// Text explains patches.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub t2v: Option<T>,
    /// Patches explain text.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub v2t: Option<T>,
}

impl<T> PerDirection<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.t2v.is_none() && self.v2t.is_none()
    }
}

/// Largest firing frequency of a shared latent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MaxFrequency {
    /// Over valid text tokens.
    pub t2i: f64,
    /// Over patches.
    pub i2t: f64,
}

/// Quantiles of the firing frequencies of a block's latents (dead ones included), nearest rank.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Smallest.
    pub min: f64,
    /// 10 %.
    pub p10: f64,
    /// 25 %.
    pub p25: f64,
    /// Median.
    pub p50: f64,
    /// 75 %.
    pub p75: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Quantiles {
    /// Each with its name, from the smallest.
    pub(crate) fn named(&self) -> [(&'static str, f64); 8] {
        let Self { min, p10, p25, p50, p75, p90, p99, max } = *self;
        let names = ["min", "p10", "p25", "p50", "p75", "p90", "p99", "max"];
        let numbers = [min, p10, p25, p50, p75, p90, p99, max];
        std::array::from_fn(|at| (names[at], numbers[at]))
    }
}

/// How sparse the codes of one modality are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sparsity {
    /// Mean number of entries of a token's code.
    pub l0: Blocks<f64>,
    /// Number of latents that fire on no token of the evaluation set.
    pub dead: Blocks<u64>,
    /// Firing frequencies per latent.
    pub density: Blocks<Quantiles>,
}

/// One heat map against one target.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroundingScore {
    /// Share of heat inside the target.
    pub mass_at_obj: f64,
    /// Share of queries whose hottest cell has its centre inside the target.
    pub point_at1: f64,
    /// Area IoU of the ⌈10 %⌉ hottest cells and the target.
    pub iou_at10: f64,
}

/// [`GroundingScore`] of a kind of heat map with its controls.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grounding {
    /// The result.
    #[serde(flatten)]
    pub score: GroundingScore,
    /// Images with such a target.
    pub images: u64,
    /// Queries: one an image for `union`, `largest` and `best`; one a phrase or named category else.
    pub queries: u64,
    /// Queries whose heat map was zero everywhere; they count as evenly spread heat.
    pub empty_maps: u64,
    /// The same scores of maps that know less, or all.
    pub controls: GroundingControls,
}

/// Controls of a [`Grounding`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroundingControls {
    /// Evenly spread heat.
    pub uniform: GroundingScore,
    /// A Gaussian around the centre of the image (σ a quarter of each side); its point is the centre itself.
    pub centre: GroundingScore,
    /// The same kind of heat map from another pair's caption. Absent with fewer than two pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffled_caption: Option<GroundingScore>,
    /// The best that any heat map on this grid can reach.
    pub oracle: GroundingScore,
}

/// Recovery of known concepts (the definitions stand at [`crate::recovery`]).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TruthRecovery {
    /// Share of concepts whose best shared latent is the same in both modalities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_rate: Option<f64>,
    /// That share when concepts are matched at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_chance: Option<f64>,
    /// Mean correlation of concepts with their latents under the best one-to-one assignment.
    #[serde(default, skip_serializing_if = "PerModality::is_empty")]
    pub mcc: PerModality<f64>,
    /// Share of linked words whose heaviest patch is one they speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_accuracy: Option<f64>,
    /// That share for a random patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_accuracy_uniform: Option<f64>,
    /// Share of a linked word's mass on the patches it speaks of, mean over words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_mass: Option<f64>,
    /// That share under the uniform plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_mass_uniform: Option<f64>,
    /// The same by kind of concept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, KindRecovery>,
    /// Every concept.
    pub concepts: Vec<ConceptRecovery>,
    /// Every shared latent, and what it stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latents: Vec<LatentRecovery>,
}

/// The concept that a shared latent rises with most.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BestConcept {
    /// Position in [`TruthRecovery::concepts`].
    pub concept: u32,
    /// Pearson correlation of the latent's activation with the concept's presence.
    pub correlation: f64,
}

/// What one shared latent stands for, by the truth.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LatentRecovery {
    /// Over patches; absent where it rises with no concept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<BestConcept>,
    /// Over tokens; absent likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<BestConcept>,
}

/// Recovery of the concepts of one kind (colour, shape …).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindRecovery {
    /// Concepts of the kind that occur in both modalities.
    pub concepts: u64,
    /// As [`TruthRecovery::identity_rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_rate: Option<f64>,
    /// Mean of the best correlations over the concepts, by modality.
    #[serde(default, skip_serializing_if = "PerModality::is_empty")]
    pub correlation: PerModality<f64>,
    /// Linked words of the kind.
    pub words: u64,
    /// As [`TruthRecovery::transport_accuracy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_accuracy: Option<f64>,
    /// As [`TruthRecovery::transport_accuracy_uniform`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_accuracy_uniform: Option<f64>,
    /// As [`TruthRecovery::plan_mass`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_mass: Option<f64>,
    /// As [`TruthRecovery::plan_mass_uniform`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_mass_uniform: Option<f64>,
}

/// The latent that carries a concept best.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BestLatent {
    /// Shared latent.
    pub latent: u32,
    /// Pearson correlation of its activation with the concept's presence.
    pub correlation: f64,
}

/// Recovery of one concept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConceptRecovery {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Every word that names it.
    #[serde(default)]
    pub words: Vec<String>,
    /// Best shared latent over patches; absent where the concept does not vary or no latent rises with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<BestLatent>,
    /// Best shared latent over tokens; absent likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<BestLatent>,
}

/// A 95 % interval: its ends.
pub type Interval = [f64; 2];

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// Version of this structure.
    pub format: u32,
    /// Pairs evaluated.
    pub pairs: u64,
    /// Valid tokens evaluated.
    pub tokens: Tokens,
    /// Seed of the shuffled captions.
    pub seed: u64,
    /// Self reconstruction, 1 − Σ‖h − ĥ‖² / Σ‖h − h̄‖².
    #[serde(default, skip_serializing_if = "PerModality::is_empty")]
    pub r2: PerModality<Reconstruction>,
    /// Fraction of variance unexplained, 1 − R².
    #[serde(default, skip_serializing_if = "PerModality::is_empty")]
    pub fvu: PerModality<Reconstruction>,
    /// Cross reconstruction.
    #[serde(default, skip_serializing_if = "PerDirection::is_empty")]
    pub cross: PerDirection<Cross>,
    /// Cross R², joint − shared.
    #[serde(default, skip_serializing_if = "PerDirection::is_empty")]
    pub delta_leak: PerDirection<f64>,
    /// Heat map → target → scores.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grounding: BTreeMap<String, BTreeMap<String, Grounding>>,
    /// The same against the exact masks of what the boxes enclose, where those are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mask_grounding: BTreeMap<String, BTreeMap<String, Grounding>>,
    /// Largest firing frequencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maxfreq: Option<MaxFrequency>,
    /// L0, dead latents and densities.
    #[serde(default, skip_serializing_if = "PerModality::is_empty")]
    pub sparsity: PerModality<Sparsity>,
    /// Recovery of known concepts, where the truth is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<TruthRecovery>,
    /// Retrieval, hubness and what else pooled shared codes tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<Structure>,
    /// Scores of every shared latent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents: Option<Vec<LatentScore>>,
    /// Path of a number → its 95 % interval, by a bootstrap over images (over concepts for what is a mean over concepts).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, Interval>,
    /// Path of what is absent → why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, String>,
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tokens {
    /// Patches.
    pub vision: u64,
    /// Valid text tokens.
    pub text: u64,
}
