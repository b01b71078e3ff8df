//! Sparse codes, dictionaries and what tells their parts apart.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::KernelError;

/// Index of a slot that holds no latent; its value is 0.
pub const UNUSED: u32 = u32::MAX;

/// One of the two modalities (spec 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// Image patches.
    Vision,
    /// Text tokens.
    Text,
}

impl Modality {
    /// Vision, then text.
    pub const ALL: [Self; 2] = [Self::Vision, Self::Text];

    /// `vision` or `text`, as in the names of tensors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Text => "text",
        }
    }
}

/// Part of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Block {
    /// Shared and private latents.
    Joint,
    /// Latents 0 .. d_shared.
    Shared,
    /// Latents d_shared .. d_shared + d_private.
    Private,
}

/// How Top-k selects (spec 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// k_shared inside the shared block and k_private inside the private block.
    Split,
    /// k_shared + k_private over all latents.
    Global,
}

/// Sizes of a code (spec 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeShape {
    /// Shared latents K_s.
    pub d_shared: usize,
    /// Private latents K_p.
    pub d_private: usize,
    /// Kept entries of the shared block k_s.
    pub k_shared: usize,
    /// Kept entries of the private block k_p.
    pub k_private: usize,
    /// Selection by block or over all latents.
    pub selection: Selection,
}

impl CodeShape {
    /// K_s + K_p.
    #[must_use]
    pub const fn latents(&self) -> usize {
        self.d_shared + self.d_private
    }

    /// Slots of a token, k_s + k_p.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.k_shared + self.k_private
    }

    /// Whether latent `index` belongs to `block`; never true for [`UNUSED`].
    #[must_use]
    pub const fn contains(&self, block: Block, index: u32) -> bool {
        let index = index as usize;
        match block {
            Block::Joint => index < self.latents(),
            Block::Shared => index < self.d_shared,
            Block::Private => index >= self.d_shared && index < self.latents(),
        }
    }
}

/// Codes of `n` tokens: `k` slots each, (latent index, value > 0) or ([`UNUSED`], 0).
///
/// Order of the slots of a token (both selections): entries of the shared block first, by falling value, ties to the
/// lower index; then those of the private block likewise. Under [`Selection::Split`] the private block starts at slot
/// `k_shared` and the unused slots close each block; under [`Selection::Global`] the unused slots close the list. So
/// in both cases *the shared entries are the leading slots whose index is below `d_shared`*: a loop over them stops at
/// the first other slot.
pub struct Codes<B: Device> {
    /// Tokens. Buffers may be longer; only the first `n · k` slots count.
    pub n: usize,
    /// Slots of a token: `shape.k()`, or k_aux for AuxK codes (whose shared and private lists are separate codes).
    pub k: usize,
    /// Sizes of the blocks.
    pub shape: CodeShape,
    /// Latent indices \[n · k\].
    pub indices: B::Buffer<u32>,
    /// Values \[n · k\].
    pub values: B::Buffer<B::Real>,
}

impl<B: Device> Codes<B> {
    /// Codes with room for `n` tokens of `shape.k()` slots; contents are set by an encode kernel.
    pub fn new(backend: &B, n: usize, shape: CodeShape) -> Result<Self, KernelError> {
        Self::with_slots(backend, n, shape.k(), shape)
    }

    /// Codes with room for `n` tokens of `k` slots.
    pub fn with_slots(backend: &B, n: usize, k: usize, shape: CodeShape) -> Result<Self, KernelError> {
        Ok(Self { n, k, shape, indices: backend.zeros(n * k)?, values: backend.zeros(n * k)? })
    }

    /// Codes from host arrays `[n · k]` in the order described above.
    pub fn upload(backend: &B, shape: CodeShape, indices: &[u32], values: &[B::Real]) -> Result<Self, KernelError> {
        let k = shape.k().max(1);
        if !indices.len().is_multiple_of(k) || values.len() != indices.len() {
            let found = format!("{} indices, {} values", indices.len(), values.len());
            return Err(KernelError::shape("codes", found, format!("a multiple of k = {k}, equal in number")));
        }
        if let Some(&bad) = indices.iter().find(|&&index| index != UNUSED && index as usize >= shape.latents()) {
            return Err(KernelError::shape("a latent index", bad, format!("below {}", shape.latents())));
        }
        let n = indices.len() / k;
        Ok(Self { n, k, shape, indices: backend.upload(indices)?, values: backend.upload(values)? })
    }

    /// Makes room for `n` tokens of `k` slots, keeping the buffers where they are long enough.
    pub fn reserve(&mut self, backend: &B, n: usize, k: usize) -> Result<(), KernelError> {
        backend.reserve(&mut self.indices, n * k)?;
        backend.reserve(&mut self.values, n * k)?;
        (self.n, self.k) = (n, k);
        Ok(())
    }

    /// Copies indices and values `[n · k]` to the host.
    pub fn read(&self, backend: &B) -> Result<(Vec<u32>, Vec<B::Real>), KernelError> {
        Ok((backend.read_vec(&self.indices, self.n * self.k)?, backend.read_vec(&self.values, self.n * self.k)?))
    }
}

/// Encoder and decoder of one modality, or anything of their shape (gradients, moments).
pub struct Dictionary<B: Device> {
    /// Width of the activations.
    pub d: usize,
    /// Latents K = K_s + K_p.
    pub latents: usize,
    /// W_encᵀ \[K × d\]: row k is the encoder direction of latent k. (Files and the public API hold W_enc \[d × K\];
    /// kernels keep it latent-major, so that a sparse backward pass touches whole rows.)
    pub w_enc_t: B::Buffer<B::Real>,
    /// b_enc \[K\].
    pub b_enc: B::Buffer<B::Real>,
    /// W_dec \[K × d\]: row k is the atom of latent k.
    pub w_dec: B::Buffer<B::Real>,
    /// b_dec \[d\].
    pub b_dec: B::Buffer<B::Real>,
}

impl<B: Device> Dictionary<B> {
    /// All zero.
    pub fn zeros(backend: &B, d: usize, latents: usize) -> Result<Self, KernelError> {
        Ok(Self {
            d,
            latents,
            w_enc_t: backend.zeros(latents * d)?,
            b_enc: backend.zeros(latents)?,
            w_dec: backend.zeros(latents * d)?,
            b_dec: backend.zeros(d)?,
        })
    }

    /// Sets every value to zero.
    pub fn clear(&mut self, backend: &B) -> Result<(), KernelError> {
        let (rows, latents, d) = (self.latents * self.d, self.latents, self.d);
        backend.clear(&mut self.w_enc_t, rows)?;
        backend.clear(&mut self.b_enc, latents)?;
        backend.clear(&mut self.w_dec, rows)?;
        backend.clear(&mut self.b_dec, d)
    }
}
