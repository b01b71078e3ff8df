//! What is known to be true of generated pairs: which concepts a patch shows, a token names, and where a word points.

use crate::error::Result;
use crate::grounding::mask::Mask;

/// A concept that pairs may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TruthConcept {
    /// Its name.
    pub name: String,
    /// Its kind, e.g. `color`.
    pub kind: String,
    /// Every word that names it.
    pub words: Vec<String>,
}

/// A token that names a concept of certain patches.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Token within the first caption.
    pub token: usize,
    /// Position in [`TruthSource::concepts`].
    pub concept: u32,
    /// Patches it speaks of, each with the share of its area, in (0, 1]; rising, not empty.
    pub patches: Vec<(u32, f32)>,
}

/// The truth of one pair. Concepts are positions in [`TruthSource::concepts`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairTruth {
    /// Per patch: concepts and their strength (for scenes the share of the patch's area); absent ones left out.
    pub patches: Vec<Vec<(u32, f32)>>,
    /// Per valid token: concepts and their strength (for scenes 1 where the token names it); absent ones left out.
    pub tokens: Vec<Vec<(u32, f32)>>,
    /// Words and the patches they speak of.
    pub links: Vec<Link>,
}

/// The truth of an activation source, pair by pair in the source's order.
pub trait TruthSource: Sync {
    /// Every concept.
    fn concepts(&self) -> &[TruthConcept];
    /// The truth of one pair.
    fn pair(&self, pair: usize) -> Result<PairTruth>;
    /// What every box of a pair covers exactly, in the order of its boxes; `None` where that is not known.
    fn masks(&self, _pair: usize) -> Option<Vec<Mask>> {
        None
    }
    /// Where a pair is the one before it with one concept put in the place of another of its kind: both, the old one first.
    fn edit(&self, _pair: usize) -> Option<[u32; 2]> {
        None
    }
}

/// Truth held in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryTruth {
    /// Every concept.
    pub concepts: Vec<TruthConcept>,
    /// Pairs in the order of the source.
    pub pairs: Vec<PairTruth>,
}

impl TruthSource for MemoryTruth {
    fn concepts(&self) -> &[TruthConcept] {
        &self.concepts
    }

    fn pair(&self, pair: usize) -> Result<PairTruth> {
        let known = self.pairs.len();
        self.pairs.get(pair).cloned().ok_or_else(|| {
            crate::InterpretError::shape("the truth", format!("{known} pairs"), format!("at least {} pairs", pair + 1))
        })
    }
}
