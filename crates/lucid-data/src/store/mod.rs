//! The activation store: the states of image patches and text tokens, pair by pair, on disk or in memory.
//!
//! [`StoreWriter`] writes the folder that `docs/formats.md` specifies, [`StoreReader`] maps it into memory, and
//! [`MemoryStore`] holds the same in RAM. Trainer and metrics read either through [`ActivationSource`]; what also
//! needs captions, boxes and pictures reads through [`AnnotatedSource`].

mod check;
mod copy;
mod difference;
mod int8;
mod journal;
mod manifest;
mod memory;
mod merge;
mod options;
mod precision;
mod precision_error;
mod reader;
mod resume;
mod shard_reader;
mod shard_writer;
mod shared_reads;
mod split;
mod statistics;
mod verify;
mod writer;

use serde::{Deserialize, Serialize};

use crate::dataset::BoxAnnotation;
use crate::error::Result;

pub use copy::write_store;
pub use manifest::{
    FORMAT, FORMAT_VERSION, FileEntry, MANIFEST, Manifest, PAIRS, SKIPPED, STATISTICS, ShardEntry, StatisticsSummary,
};
pub use memory::MemoryStore;
pub use merge::{MergeOptions, merge_stores, merge_stores_with};
pub use options::StoreOptions;
pub use precision::Precision;
pub use precision_error::PrecisionError;
pub use reader::StoreReader;
pub use shared_reads::SharedReads;
pub use split::{SplitOptions, split_store};
pub use statistics::{PerModality, Statistics};
pub use verify::{FileCheck, VerifyReport, verify_store};
pub use writer::StoreWriter;

/// Which half of a pair an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The image patches.
    Vision,
    /// The tokens of one caption.
    Text {
        /// Number of the caption within the pair.
        caption: usize,
    },
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vision => f.write_str("vision"),
            Self::Text { caption: 0 } => f.write_str("text"),
            Self::Text { caption } => write!(f, "text (caption {caption})"),
        }
    }
}

/// Id of a token whose vocabulary entry is not known (imported activations).
pub const UNKNOWN_TOKEN: u32 = u32::MAX;

/// [`TokenInfo::kinds`]: a token of the caption's text.
pub const KIND_CONTENT: u8 = 0;

/// [`TokenInfo::kinds`]: the end-of-sequence token.
pub const KIND_EOS: u8 = 1;

/// What is known about a pair besides its activations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PairInfo {
    /// File name or key of the image.
    pub key: String,
    /// The captions, in order; empty strings where only their activations are known.
    pub captions: Vec<String>,
    /// Rows and columns of the patch grid, row-major from the top left; their product is the number of patches.
    pub vision_grid: [u32; 2],
    /// Width and height of the original image in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[u32; 2]>,
    /// Boxes in pixels of the original image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<BoxAnnotation>,
}

/// The valid tokens of one caption; all slices have its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenInfo<'a> {
    /// Vocabulary ids, [`UNKNOWN_TOKEN`] where not known.
    pub ids: &'a [u32],
    /// [`KIND_CONTENT`] or [`KIND_EOS`].
    pub kinds: &'a [u8],
    /// Byte span `[start, end)` in the caption; `[0, 0]` where the token stands for no text of its own.
    pub spans: &'a [[u32; 2]],
}

/// The states of one caption's valid tokens, on their way into a store.
#[derive(Debug, Clone, Copy)]
pub struct CaptionActivations<'a> {
    /// The caption.
    pub text: &'a str,
    /// `[tokens · d_text]`, row by row.
    pub states: &'a [f32],
    /// `[tokens]`, or empty where not known.
    pub ids: &'a [u32],
    /// `[tokens]`, or empty: then all tokens are content.
    pub kinds: &'a [u8],
    /// `[tokens]`, or empty where not known.
    pub spans: &'a [[u32; 2]],
}

/// One pair on its way into a store.
#[derive(Debug, Clone, Copy)]
pub struct PairActivations<'a> {
    /// File name or key of the image; not an absolute path.
    pub key: &'a str,
    /// `[patches · d_vision]`, row by row.
    pub vision: &'a [f32],
    /// Rows and columns of the patch grid.
    pub vision_grid: [u32; 2],
    /// At least one caption.
    pub captions: &'a [CaptionActivations<'a>],
    /// Width and height of the original image.
    pub size: Option<[u32; 2]>,
    /// Boxes in pixels of the original image.
    pub boxes: &'a [BoxAnnotation],
    /// A small JPEG of the image, so that a report works from the store alone.
    pub thumbnail: Option<&'a [u8]>,
}

/// What the trainer and the metrics read: the states of pairs, by position.
///
/// Positions out of range are a programming error and panic, as with slices; the `read_*` methods return errors
/// only for what comes from outside (`E_SHAPE` for an `out` of the wrong length).
pub trait ActivationSource: Send + Sync {
    /// Number of pairs.
    fn pairs(&self) -> usize;
    /// Width of a patch's state.
    fn d_vision(&self) -> usize;
    /// Width of a token's state.
    fn d_text(&self) -> usize;
    /// Number of patches of a pair, at least 1.
    fn vision_len(&self, pair: usize) -> usize;
    /// Number of captions of a pair, at least 1.
    fn captions(&self, pair: usize) -> usize;
    /// Number of valid tokens of one caption, at least 1.
    fn text_len(&self, pair: usize, caption: usize) -> usize;
    /// Copies the patches' states, `[vision_len · d_vision]`, into `out`.
    ///
    /// # Errors
    /// `E_SHAPE` where `out` has another length.
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> Result<()>;
    /// Copies the tokens' states, `[text_len · d_text]`, into `out`.
    ///
    /// # Errors
    /// `E_SHAPE` where `out` has another length.
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> Result<()>;
    /// Means and variances over all patches and all tokens of first captions (spec 4.1, 5.2).
    fn statistics(&self) -> Statistics;
    /// A hash of the content, 64 hexadecimal digits; it changes when any activation does.
    fn fingerprint(&self) -> String;
    /// How the states came about, where that is known: `backbone`, `hooks` and `keepEos` of the store's provenance.
    fn origin(&self) -> Option<serde_json::Value> {
        None
    }
    /// File name or key of a pair's image.
    fn key(&self, pair: usize) -> &str;
}

/// A source that also knows captions, boxes, tokens and pictures.
pub trait AnnotatedSource: ActivationSource {
    /// Key, captions, grid, size and boxes.
    fn info(&self, pair: usize) -> &PairInfo;
    /// Ids, kinds and spans of one caption's tokens.
    fn text_tokens(&self, pair: usize, caption: usize) -> TokenInfo<'_>;
    /// JPEG bytes of a small version of the image.
    fn thumbnail(&self, pair: usize) -> Option<&[u8]>;
}
