//! Batches of unequal lengths: tokens of all pairs lie one after the other, without padding (spec 1).

use std::ops::Range;

use crate::error::KernelError;

/// Where the tokens of each pair lie in a concatenated array. Offsets live on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ragged {
    offsets: Vec<usize>,
}

impl Ragged {
    /// From the number of tokens of each pair.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            offsets.push(end);
        }
        Self { offsets }
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all pairs together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Tokens of pair `i`.
    #[must_use]
    pub fn length(&self, i: usize) -> usize {
        self.offsets[i + 1] - self.offsets[i]
    }

    /// Positions of the tokens of pair `i`.
    #[must_use]
    pub fn range(&self, i: usize) -> Range<usize> {
        self.offsets[i]..self.offsets[i + 1]
    }

    /// Tokens of the longest pair.
    #[must_use]
    pub fn longest(&self) -> usize {
        (0..self.len()).map(|i| self.length(i)).max().unwrap_or(0)
    }

    /// Start of every pair, and the end: `len() + 1` numbers.
    #[must_use]
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }
}

/// The pairs of a micro-batch: patches, text tokens, and the cells of their T_v × T_t matrices (row-major per pair,
/// concatenated).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Patches of each pair, N_v in all.
    pub vision: Ragged,
    /// Valid text tokens of each pair, N_t in all.
    pub text: Ragged,
    /// Cells of each pair's cost and plan.
    pub cells: Ragged,
}

impl Pairs {
    /// From the lengths of both modalities. A pair needs at least one patch and one token.
    pub fn new(vision_lengths: &[usize], text_lengths: &[usize]) -> Result<Self, KernelError> {
        if vision_lengths.len() != text_lengths.len() {
            return Err(KernelError::shape("textLengths", text_lengths.len(), vision_lengths.len()));
        }
        for (what, lengths) in [("visionLengths", vision_lengths), ("textLengths", text_lengths)] {
            if let Some(pair) = lengths.iter().position(|&length| length == 0) {
                return Err(KernelError::shape(format!("{what}[{pair}]"), 0, "at least 1 token"));
            }
        }
        let cells = vision_lengths.iter().zip(text_lengths).map(|(&rows, &columns)| rows * columns);
        Ok(Self {
            vision: Ragged::from_lengths(vision_lengths.iter().copied()),
            text: Ragged::from_lengths(text_lengths.iter().copied()),
            cells: Ragged::from_lengths(cells),
        })
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vision.len()
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vision.is_empty()
    }
}
