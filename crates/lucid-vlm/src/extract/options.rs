//! What to extract, and what came of it.

use crate::decode::MAX_PIXELS;
use lucid_data::store::{Manifest, Precision};
use lucid_data::{OnBad, Skipped};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which captions of an image are extracted. Training draws one an epoch from those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CaptionPolicy {
    /// Every one, each once.
    #[default]
    All,
    /// The first.
    First,
}

/// A part of the data set, for several processes that share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOf {
    /// Which part, from 0.
    pub index: usize,
    /// Number of parts.
    pub of: usize,
}

impl PartOf {
    /// First position and the one after the last of this part of `total` records. Parts follow each other, so merging them in order
    /// gives the whole.
    pub(super) fn range(self, total: usize) -> std::ops::Range<usize> {
        let at = |i: usize| (i as u128 * total as u128 / self.of as u128) as usize;
        at(self.index)..at(self.index + 1)
    }
}

/// What to extract and where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtractOptions {
    /// Folder of the store; of the stores, where several hooks of a tower are named.
    pub out: PathBuf,
    /// Hooks; a tower that is not named has its default hook. With several of a tower there are as many stores, the i-th of the i-th
    /// hook of each tower; the shorter list repeats its last.
    #[serde(default)]
    pub layers: Vec<String>,
    /// How activations are stored; f16 by default.
    #[serde(default = "half")]
    pub precision: Precision,
    /// Only the first records of the data set.
    #[serde(default)]
    pub max_pairs: Option<usize>,
    /// What happens with a picture that cannot be read or a caption without a token.
    #[serde(default)]
    pub on_bad: OnBad,
    /// Which captions of an image are extracted.
    #[serde(default)]
    pub caption_policy: CaptionPolicy,
    /// Whether the end-of-sentence token of a caption is kept.
    #[serde(default = "yes")]
    pub keep_eos: bool,
    /// Whether small JPEGs are kept, so that a report works from the store alone.
    #[serde(default = "yes")]
    pub thumbnails: bool,
    /// Most pixels a picture may have.
    #[serde(default = "most_pixels")]
    pub max_pixels: u64,
    /// Replace a store that is already there.
    #[serde(default)]
    pub overwrite: bool,
    /// Go on with what an earlier run of the same options left unfinished; begin where there is nothing.
    #[serde(default)]
    pub resume: bool,
    /// Only this part of the data set.
    #[serde(default)]
    pub shard: Option<PartOf>,
    /// Pairs in a file of the store. A killed run loses at most what it did since the last complete one.
    #[serde(default = "shard")]
    pub pairs_per_shard: usize,
}

fn half() -> Precision {
    Precision::F16
}

fn yes() -> bool {
    true
}

fn most_pixels() -> u64 {
    MAX_PIXELS
}

fn shard() -> usize {
    1024
}

impl ExtractOptions {
    /// Default options for a store at `out`.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            out: out.into(),
            layers: Vec::new(),
            precision: half(),
            max_pairs: None,
            on_bad: OnBad::Stop,
            caption_policy: CaptionPolicy::All,
            keep_eos: true,
            thumbnails: true,
            max_pixels: MAX_PIXELS,
            overwrite: false,
            resume: false,
            shard: None,
            pairs_per_shard: shard(),
        }
    }
}

/// Seconds in which each stage of an extraction was at work. The stages run side by side, so the busiest one limits.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Stages {
    /// Reading, decoding, resizing, tokenising.
    pub preparing: f64,
    /// The forward pass.
    pub forward: f64,
    /// Encoding, hashing and writing.
    pub writing: f64,
}

impl Stages {
    /// The stage that the others wait for.
    pub fn limit(&self) -> &'static str {
        let all = [("preparing", self.preparing), ("forward", self.forward), ("writing", self.writing)];
        all.into_iter().fold(all[1], |most, stage| if stage.1 > most.1 { stage } else { most }).0
    }
}

/// What an extraction did.
#[derive(Debug, Clone)]
pub struct Extraction {
    /// Folders of the published stores.
    pub stores: Vec<PathBuf>,
    /// Manifest of the first.
    pub manifest: Manifest,
    /// What was left out, in the data set's order, with what the data set itself left out first.
    pub skipped: Vec<Skipped>,
    /// Pairs that an earlier run had done.
    pub resumed: usize,
    /// Wall time from the first picture to the published store.
    pub seconds: f64,
    /// Pairs of this run written per second of it.
    pub images_per_second: f64,
    /// Where the time went.
    pub stages: Stages,
}
