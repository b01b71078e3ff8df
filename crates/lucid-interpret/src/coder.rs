//! What this crate asks of a model: codes of activations, reconstructions from codes, the plan of a pair.

use lucid_kernels::{Block, Modality};

use crate::error::{InterpretError, Result};

/// Sparse codes of `n` tokens, each a list of (latent, value > 0) by rising latent. Shared latents are those below
/// `d_shared`, so the shared code of a token is a prefix of its list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseCodes {
    d_shared: u32,
    /// Entries before each token; one more than tokens.
    offsets: Vec<u32>,
    /// Entries before the first private entry of each token.
    shared_ends: Vec<u32>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl SparseCodes {
    /// Empty codes over `d_shared` shared latents.
    #[must_use]
    pub fn new(d_shared: usize) -> Self {
        Self { d_shared: d_shared as u32, offsets: vec![0], ..Self::default() }
    }

    /// Codes from slots: `k` per token, index `u32::MAX` = unused. Entries that are not positive are left out.
    #[must_use]
    pub fn from_slots(d_shared: usize, k: usize, indices: &[u32], values: &[f32]) -> Self {
        let mut codes = Self::new(d_shared);
        let k = k.max(1);
        for (row_indices, row_values) in indices.chunks_exact(k).zip(values.chunks_exact(k)) {
            codes.push(row_indices.iter().copied().zip(row_values.iter().copied()));
        }
        codes
    }

    /// Adds one token. Unused slots (`u32::MAX`) and entries that are not positive are left out.
    pub fn push(&mut self, entries: impl IntoIterator<Item = (u32, f32)>) {
        let mut row: Vec<(u32, f32)> = entries.into_iter().filter(|&(i, v)| i != u32::MAX && v > 0.0).collect();
        row.sort_unstable_by_key(|&(index, _)| index);
        let shared = row.partition_point(|&(index, _)| index < self.d_shared);
        self.shared_ends.push((self.indices.len() + shared) as u32);
        self.indices.extend(row.iter().map(|&(index, _)| index));
        self.values.extend(row.iter().map(|&(_, value)| value));
        self.offsets.push(self.indices.len() as u32);
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared_ends.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared_ends.is_empty()
    }

    /// Number of shared latents.
    #[must_use]
    pub fn d_shared(&self) -> usize {
        self.d_shared as usize
    }

    /// Entries of all tokens.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.indices.len()
    }

    /// Latents and values of token `i`, all blocks.
    #[must_use]
    pub fn row(&self, i: usize) -> Row<'_> {
        self.part(self.offsets[i], self.offsets[i + 1])
    }

    /// Latents and values of token `i`, shared block.
    #[must_use]
    pub fn shared(&self, i: usize) -> Row<'_> {
        self.part(self.offsets[i], self.shared_ends[i])
    }

    /// Latents and values of token `i`, private block.
    #[must_use]
    pub fn private(&self, i: usize) -> Row<'_> {
        self.part(self.shared_ends[i], self.offsets[i + 1])
    }

    fn part(&self, start: u32, end: u32) -> Row<'_> {
        let range = start as usize..end as usize;
        Row { indices: &self.indices[range.clone()], values: &self.values[range] }
    }

    /// The same tokens without their private entries.
    #[must_use]
    pub fn shared_only(&self) -> Self {
        let mut codes = Self::new(self.d_shared());
        (0..self.len()).for_each(|token| codes.push(self.shared(token).iter()));
        codes
    }

    /// Bytes that the codes take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        8 * self.indices.len() + 4 * (self.offsets.len() + self.shared_ends.len())
    }

    /// Mean shared code of the `tokens`, by rising latent; empty without tokens.
    #[must_use]
    pub fn mean_shared(&self, tokens: &[usize]) -> Vec<(u32, f64)> {
        let mut sum = std::collections::BTreeMap::<u32, f64>::new();
        for &token in tokens {
            for (index, value) in self.shared(token).iter() {
                *sum.entry(index).or_default() += f64::from(value);
            }
        }
        sum.into_iter().map(|(index, value)| (index, value / tokens.len() as f64)).collect()
    }
}

/// Entries of one token, by rising latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// Latents.
    pub indices: &'a [u32],
    /// Their values, all positive.
    pub values: &'a [f32],
}

impl Row<'_> {
    /// (latent, value) by rising latent.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        self.indices.iter().copied().zip(self.values.iter().copied())
    }

    /// ‖z‖.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
    }

    /// ⟨z, z'⟩.
    #[must_use]
    pub fn dot(&self, other: &Row) -> f64 {
        let (mut a, mut b, mut sum) = (0, 0, 0.0);
        while a < self.indices.len() && b < other.indices.len() {
            match self.indices[a].cmp(&other.indices[b]) {
                std::cmp::Ordering::Less => a += 1,
                std::cmp::Ordering::Greater => b += 1,
                std::cmp::Ordering::Equal => {
                    sum += f64::from(self.values[a]) * f64::from(other.values[b]);
                    a += 1;
                    b += 1;
                }
            }
        }
        sum
    }

    /// Cosine; 0 where either is all zero (spec 3).
    #[must_use]
    pub fn cosine(&self, other: &Row) -> f64 {
        let norms = self.norm() * other.norm();
        if norms > 0.0 { self.dot(other) / norms } else { 0.0 }
    }
}

/// The transport plan Π of one pair (spec 3).
#[derive(Debug, Clone, PartialEq)]
pub struct PairPlan {
    /// Patches.
    pub rows: usize,
    /// Tokens.
    pub columns: usize,
    /// Π, row-major `[rows · columns]`.
    pub mass: Vec<f64>,
}

impl PairPlan {
    /// The plan that spreads mass evenly: the control `uniformPlan`.
    #[must_use]
    pub fn uniform(rows: usize, columns: usize) -> Self {
        Self { rows, columns, mass: vec![1.0 / (rows * columns).max(1) as f64; rows * columns] }
    }

    /// Π_ij.
    #[must_use]
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.mass[row * self.columns + column]
    }

    /// Mass of every column: c.
    #[must_use]
    pub fn column_sums(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.columns];
        for row in self.mass.chunks_exact(self.columns.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, mass)| *sum += mass);
        }
        sums
    }
}

/// A model as the metrics and Algorithm 1 see it. Implemented by [`lucid_sae::Model`].
pub trait Coder: Sync {
    /// Width d_m of the activations.
    fn width(&self, modality: Modality) -> usize;
    /// Shared latents K_s.
    fn d_shared(&self) -> usize;
    /// All latents of a modality, K_s + K_p.
    fn latents(&self) -> usize;
    /// Codes of raw activations `[n · d_m]`.
    fn encode(&self, activations: &[f32], modality: Modality) -> Result<SparseCodes>;
    /// Reconstruction `[n · d_m]` in raw units by the decoder of `modality` from one block and the bias. The codes may
    /// come from the other modality (cross reconstruction).
    fn decode(&self, codes: &SparseCodes, modality: Modality, block: Block) -> Result<Vec<f32>>;
    /// Plan of one pair, from shared codes only.
    fn plan(&self, vision: &SparseCodes, text: &SparseCodes) -> Result<PairPlan>;
}

/// What one unit of each of some shared latents adds to a reconstruction: the decoder's rows, `[latents · width]`.
pub(crate) fn decoder_rows(coder: &dyn Coder, modality: Modality, latents: &[u32]) -> Result<Vec<f32>> {
    let width = coder.width(modality);
    let mut units = SparseCodes::new(coder.d_shared());
    // A code of nothing decodes to the bias alone.
    units.push([]);
    latents.iter().for_each(|&latent| units.push([(latent, 1.0)]));
    let decoded = coder.decode(&units, modality, Block::Shared)?;
    let (bias, rows) = decoded.split_at(width);
    Ok(rows.chunks_exact(width).flat_map(|row| row.iter().zip(bias).map(|(w, b)| w - b)).collect())
}

/// Checks that a model fits a source of activations.
pub(crate) fn check_widths(coder: &dyn Coder, d_vision: usize, d_text: usize) -> Result<()> {
    for (modality, found) in [(Modality::Vision, d_vision), (Modality::Text, d_text)] {
        let expected = coder.width(modality);
        if found != expected {
            let what = format!("the width of the {} activations", modality.name());
            return Err(InterpretError::shape(what, found, format!("{expected}, the model's")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_split_at_the_shared_block() {
        let codes = SparseCodes::from_slots(4, 3, &[5, 2, u32::MAX, 3, 0, 9], &[1.0, 2.0, 0.0, 4.0, 3.0, -1.0]);
        assert_eq!(codes.len(), 2);
        assert_eq!(codes.row(0).indices, [2, 5]);
        assert_eq!(codes.shared(0).iter().collect::<Vec<_>>(), [(2, 2.0)]);
        assert_eq!(codes.private(0).iter().collect::<Vec<_>>(), [(5, 1.0)]);
        assert_eq!(codes.shared(1).iter().collect::<Vec<_>>(), [(0, 3.0), (3, 4.0)]);
        assert!(codes.private(1).indices.is_empty());
        assert_eq!(codes.mean_shared(&[0, 1]), [(0, 1.5), (2, 1.0), (3, 2.0)]);
        assert_eq!(codes.shared(1).norm(), 5.0);
    }

    #[test]
    fn cosine_of_an_empty_code_is_zero() {
        let codes = SparseCodes::from_slots(4, 2, &[0, 1, u32::MAX, u32::MAX, 1, 3], &[3.0, 4.0, 0.0, 0.0, 2.0, 0.5]);
        assert_eq!(codes.shared(0).cosine(&codes.shared(1)), 0.0);
        assert!((codes.shared(0).cosine(&codes.shared(0)) - 1.0).abs() < 1e-15);
        assert_eq!(codes.shared(0).dot(&codes.shared(2)), 8.0);
    }
}
