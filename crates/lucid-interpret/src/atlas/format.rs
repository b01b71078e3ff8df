//! The content of `atlas.json` (docs/formats-atlas.md). Strings are the user's, raw: whoever shows them escapes them.

use serde::{Deserialize, Serialize};

use crate::error::{InterpretError, Result};

/// `format` of an atlas.
pub const FORMAT: &str = "lucid-atlas";
/// Newest `formatVersion` that is read and written.
pub const FORMAT_VERSION: u64 = 1;

/// Options of Algorithm 1 and of what the atlas keeps. Names and defaults as in docs/formats-atlas.md.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct InterpretOptions {
    /// Confidence a hit must exceed; `None`: the quantile. Default none.
    pub threshold: Option<f64>,
    /// Quantile of all positive peak scores that is the threshold. Default 0.95.
    pub quantile: f64,
    /// Share of hits that may be chance, in place of the quantile: the threshold then lies where chance gives at most this share of the peak
    /// scores above it ([`crate::algorithm1::null`]). Default none.
    pub fdr: Option<f64>,
    /// Hits a latent needs for a label. Default 5.
    pub min_hits: u64,
    /// Whether latents are weighted by log(N / df). Default true.
    pub idf: bool,
    /// Cosine of text embeddings within a cluster. Default 0.78.
    pub cluster_cosine: f64,
    /// Purity a latent needs for a label. Default 0.55.
    pub min_purity: f64,
    /// Terms kept for a latent. Default 8.
    pub top_terms: usize,
    /// Terms that make a label. Default 3.
    pub label_terms: usize,
    /// Pictures kept for a latent and for a concept. Default 8.
    pub top_images: usize,
    /// Words kept for a latent. Default 12.
    pub top_words: usize,
    /// Pairs looked at, from the first; `None`: all. Default none.
    pub max_images: Option<usize>,
    /// Bytes of codes kept between the passes; what does not fit is encoded again. Default 256 MiB.
    pub cache_bytes: usize,
}

impl Default for InterpretOptions {
    fn default() -> Self {
        Self {
            threshold: None,
            quantile: 0.95,
            fdr: None,
            min_hits: 5,
            idf: true,
            cluster_cosine: 0.78,
            min_purity: 0.55,
            top_terms: 8,
            label_terms: 3,
            top_images: 8,
            top_words: 12,
            max_images: None,
            cache_bytes: 256 << 20,
        }
    }
}

impl InterpretOptions {
    pub(crate) fn check(&self) -> Result<()> {
        let share = |name: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(InterpretError::option(name, value, "a number in [0, 1]"))
            }
        };
        share("quantile", self.quantile)?;
        if let Some(fdr) = self.fdr {
            if !(fdr > 0.0 && fdr < 1.0) {
                return Err(InterpretError::option("fdr", fdr, "a number between 0 and 1"));
            }
            if self.threshold.is_some() {
                return Err(InterpretError::option("fdr", fdr, "to be absent where a threshold is given"));
            }
        }
        share("minPurity", self.min_purity)?;
        if !(-1.0..=1.0).contains(&self.cluster_cosine) {
            return Err(InterpretError::option("clusterCosine", self.cluster_cosine, "a number in [-1, 1]"));
        }
        if let Some(threshold) = self.threshold.filter(|t| !t.is_finite() || *t < 0.0) {
            return Err(InterpretError::option("threshold", threshold, "a finite number of at least 0"));
        }
        let counts = [
            ("labelTerms", Some(self.label_terms)),
            ("topTerms", Some(self.top_terms)),
            ("maxImages", self.max_images),
        ];
        match counts.iter().find(|(_, value)| *value == Some(0)) {
            Some((name, _)) => Err(InterpretError::option(*name, 0, "at least 1")),
            None => Ok(()),
        }
    }
}

/// `atlas.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AtlasIndex {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub format_version: u64,
    /// Version of lucid-sae that wrote it.
    pub version: String,
    /// Sizes of the model.
    pub model: ModelShape,
    /// The activations looked at.
    pub store: StoreOrigin,
    /// Every resolved option.
    pub options: InterpretOptions,
    /// Confidence a hit had to exceed; none where no concept met any image.
    pub threshold: Option<f64>,
    /// (image, concept) pairs with a score above 0.
    pub peaks: u64,
    /// How the threshold was calibrated, where `fdr` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_discovery: Option<FalseDiscovery>,
    /// Pictures that some latent or concept shows, by rising pair.
    pub images: Vec<AtlasImage>,
    /// Every shared latent, by index.
    pub latents: Vec<AtlasLatent>,
    /// Every concept, in the order given.
    pub concepts: Vec<AtlasConcept>,
}

/// Sizes of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelShape {
    /// Shared latents.
    pub d_shared: usize,
    /// All latents of a modality.
    pub latents: usize,
}

/// The activations looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreOrigin {
    /// Fingerprint of the store.
    pub fingerprint: String,
    /// Pairs looked at.
    pub pairs: usize,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtlasImage {
    /// Position in the store.
    pub pair: usize,
    /// File name or key in the data set.
    pub key: String,
    /// Path of the thumbnail below the atlas.
    pub file: Option<String>,
    /// First caption.
    pub caption: String,
    /// All captions.
    pub captions: Vec<String>,
    /// Rows and columns of patches.
    pub grid: [u32; 2],
    /// Width and height of the original in pixels.
    pub size: Option<[u32; 2]>,
}

/// Why a latent has no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// It fires on no patch and no token.
    #[serde(rename = "dead")]
    Dead,
    /// No concept chose it.
    #[serde(rename = "no hits")]
    NoHits,
    /// Fewer hits than `minHits`.
    #[serde(rename = "few hits")]
    FewHits,
    /// Its concepts do not agree: purity below `minPurity`.
    #[serde(rename = "low purity")]
    LowPurity,
}

/// A shared latent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AtlasLatent {
    /// Its index.
    pub latent: u32,
    /// Top terms of the largest cluster; none where `reason` says why.
    pub label: Option<String>,
    /// Why there is no label.
    pub reason: Option<Reason>,
    /// Terms of the clusters, largest cluster first, by hits within one.
    pub top_terms: Vec<Term>,
    /// Concepts in the largest cluster over hit concepts; none without hits.
    pub purity: Option<f64>,
    /// (image, concept) pairs that chose this latent.
    pub hits: u64,
    /// By falling size.
    pub clusters: Vec<NamedCluster>,
    /// How often it fires.
    pub density: Densities,
    /// Words that fire it, by falling activation · count · share.
    pub words: Vec<Word>,
    /// Pictures that fire it, by falling value.
    pub images: Vec<Hit>,
    /// How strong its activations are; absent in atlases of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histograms>,
}

/// Counts of a latent's activations: bin b holds those in [2^(b/2 − 8), 2^((b+1)/2 − 8)), the first and the last bin also what lies
/// beyond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histograms {
    /// Over patches.
    pub vision: Vec<u64>,
    /// Over tokens.
    pub text: Vec<u64>,
}

/// Peak scores above the threshold, and those that chance gives there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FalseDiscovery {
    /// The share asked for.
    pub target: f64,
    /// Peak scores above the threshold.
    pub above: u64,
    /// Peak scores above it on as many images of chance.
    pub above_by_chance: u64,
}

/// A concept behind a latent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// Its text.
    pub term: String,
    /// Its position in `concepts`.
    pub concept: u32,
    /// Images in which it chose the latent.
    pub hits: u64,
    /// Largest confidence among them.
    pub confidence: f64,
}

/// Concepts that mean much the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedCluster {
    /// Number of concepts.
    pub size: usize,
    /// Their hits.
    pub hits: u64,
    /// Their texts; cut to `topTerms`.
    pub terms: Vec<String>,
}

/// How often a latent fires.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Densities {
    /// Share of patches.
    pub vision: f64,
    /// Share of valid tokens.
    pub text: f64,
}

/// A word that fires a latent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word, in lower case.
    pub word: String,
    /// Mean of the latent's values on the tokens of the word where it fires.
    pub activation: f64,
    /// Largest of them.
    pub max: f64,
    /// Number of these tokens.
    pub count: u64,
    /// That number over all tokens of the word.
    pub share: f64,
}

/// A concept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtlasConcept {
    /// Its position.
    pub concept: u32,
    /// Its text.
    pub name: String,
    /// Its category.
    pub category: Option<String>,
    /// Images in which its confidence exceeds the threshold.
    pub hits: u64,
    /// Its largest score over all images; 0 where it never meets one.
    pub confidence: f64,
    /// Latents of its code with idf > 0, by falling hits, then by falling weight · idf.
    pub latents: Vec<ConceptLatent>,
    /// Pictures that show it best, by falling value.
    pub images: Vec<Hit>,
}

/// A latent of a concept's code.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ConceptLatent {
    /// The latent.
    pub latent: u32,
    /// Hits of the concept that chose it.
    pub hits: u64,
    /// Its value in z_c.
    pub weight: f64,
    /// Its weight in the score.
    pub idf: f64,
}

/// A picture under a latent or concept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Position in `images`.
    pub image: usize,
    /// Row and column of the hottest patch.
    pub peak: [u32; 2],
    /// Its value.
    pub value: f64,
    /// For a concept the latent that contributes most at the peak; for a latent itself.
    pub latent: u32,
    /// Where the heat map starts in the tensor `heat`; it has rows · columns numbers.
    pub map: usize,
}
