//! The atlas: what the latents mean, with the pictures and words that show it (docs/formats-atlas.md).

mod files;
pub mod format;
mod query;

use std::collections::BTreeMap;

pub use format::{
    AtlasConcept, AtlasImage, AtlasIndex, AtlasLatent, ConceptLatent, Densities, Hit, InterpretOptions, ModelShape,
    NamedCluster, Reason, StoreOrigin, Term, Word,
};
pub use query::{FoundKind, Heatmap, HeatmapOf, ImageRef, SearchResult};

/// An atlas in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Atlas {
    /// The content of `atlas.json`.
    pub index: AtlasIndex,
    /// The tensor `heat` of `maps.safetensors`.
    pub heat: Vec<f32>,
    /// JPEG bytes by path below the atlas.
    pub thumbnails: BTreeMap<String, Vec<u8>>,
}
