//! What probing finds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evaluation::{Interval, PerModality};

/// Areas under the ROC curve of readouts of one concept; chance is 0.5.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Readouts {
    /// Ridge readout of the mean state: what the backbone knows.
    pub states: f64,
    /// Ridge readout of the mean shared code.
    pub codes: f64,
    /// The same, fitted to the labels of other pictures.
    pub shuffled: f64,
    /// Readout of the one latent that goes with the concept most.
    pub one: f64,
    /// Readout of the five latents that do.
    pub five: f64,
    /// The best of all latents by itself, fitted to the labels of other pictures.
    pub one_shuffled: f64,
}

/// One concept in one modality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConceptProbe {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Share of the tested pairs that hold it.
    pub share: f64,
    /// How well it can be read out.
    pub auc: Readouts,
    /// Latents by falling |correlation| with it on the fitted pairs, at most five.
    pub latents: Vec<u32>,
    /// Feature splitting: the least number of those after which one more adds less than 0.03 to the area. 1 = not split.
    pub split: u32,
    /// Feature absorption, where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absorption: Option<Absorption>,
}

/// Feature absorption of a concept, over the tested pairs that hold it and whose states say so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Absorption {
    /// Such pairs.
    pub pairs: u64,
    /// Share in which none of the concept's latents fires.
    pub silent: f64,
    /// Share in which none fires, and another latent carries at least 0.4 of what the codes say along the concept's direction.
    pub absorbed: f64,
    /// `silent` with the latents of another concept.
    pub silent_shuffled: f64,
}

/// All concepts in one modality.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModalityProbes {
    /// Means over concepts.
    pub mean: Readouts,
    /// Mean number of latents of a concept.
    pub split: f64,
    /// Mean over the concepts where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<f64>,
    /// Mean over the concepts where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absorbed: Option<f64>,
    /// Mean over the concepts where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_shuffled: Option<f64>,
    /// Each of them.
    pub concepts: Vec<ConceptProbe>,
}

/// Which of the concepts of a kind a picture shows, where it shows exactly one: shares of right answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Classification {
    /// Classes.
    pub classes: u64,
    /// Tested pictures.
    pub pictures: u64,
    /// 1 / classes.
    pub chance: f64,
    /// Always the class most frequent among the fitted pictures.
    pub majority: f64,
    /// Linear readout of the mean state.
    pub states: f64,
    /// Linear readout of the mean shared code.
    pub codes: f64,
    /// Concept bottleneck: linear readout of nothing but the one best latent of every concept.
    pub bottleneck: f64,
    /// Zero-shot: the class whose words' mean shared code is nearest to the picture's by cosine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<f64>,
    /// Zero-shot with the words of another class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot_shuffled: Option<f64>,
}

/// What latents do when one concept of a picture is put in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EditScore {
    /// Edits.
    pub edits: u64,
    /// Share in which, of all latents, the new concept's rises most.
    pub rises: f64,
    /// Share in which, of all latents, the old concept's falls most.
    pub falls: f64,
    /// Share of all movement Σ|Δz| that is that of the two.
    pub on_target: f64,
    /// The same with the two concepts of another edit of the kind.
    pub shuffled: EditControl,
}

/// Control of an edit's score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EditControl {
    /// As [`EditScore::rises`].
    pub rises: f64,
    /// As [`EditScore::falls`].
    pub falls: f64,
    /// As [`EditScore::on_target`].
    pub on_target: f64,
}

/// Everything probing finds. What could not be computed is absent and named, with its reason, in `skipped`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probing {
    /// Version of this structure.
    pub format: u32,
    /// Pairs that were fitted.
    pub fitted: u64,
    /// Pairs that were tested.
    pub tested: u64,
    /// `truth` of generated pairs, or `categories` of boxes.
    pub labels: String,
    /// Readouts of concepts from the mean state or code of a picture or a caption.
    pub probes: PerModality<ModalityProbes>,
    /// Kind of concepts → which of them a picture shows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classification: BTreeMap<String, Classification>,
    /// Area under the ROC curve of zero-shot scores, mean over concepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot: Option<ZeroShot>,
    /// Kind of concepts, or `all` → edits of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub edits: BTreeMap<String, EditScore>,
    /// Path of a number → its 95 % interval, by a bootstrap over pictures (edits).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, Interval>,
    /// Path of what is absent → why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, String>,
}

/// Zero-shot detection of concepts through shared codes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZeroShot {
    /// Concepts whose words occur in the fitted captions.
    pub concepts: u64,
    /// Mean area with the concept's own words; chance is 0.5.
    pub auc: f64,
    /// With another concept's words.
    pub shuffled: f64,
}
