//! What a run learns: LUCID, or one of the methods it is compared with (docs/rivals.md).

use lucid_kernels::Modality;
use serde::{Deserialize, Serialize};

use crate::batch::Sides;
use crate::config::Config;
use crate::error::SaeError;
use crate::rng::{Purpose, Stream};

/// Entries that a token of BatchTopK may keep, in multiples of k: bounds the memory, and is far above what tokens use.
const WIDEST: usize = 8;

/// Whose objective a run minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The paper's (spec 4).
    #[default]
    Lucid,
    /// Two autoencoders that know nothing of each other.
    Separate,
    /// SPARC: both modalities' pooled states keep the same latents, and each reconstructs both.
    Sparc,
    /// Universal SAE: in a step one modality's pooled states are encoded and both are decoded.
    Usae,
    /// One autoencoder of the concatenated pooled states.
    PooledConcat,
    /// VL-SAE: one encoder for the pooled states of both modalities, by distance; a decoder for each.
    VlSae,
}

/// How the entries of a code are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The k largest positive pre-activations of each token.
    #[default]
    Topk,
    /// The k·N largest positive pre-activations of a batch of N tokens; after training, those above a threshold.
    BatchTopk,
    /// Those above a threshold of their latent, which is learnt: k a token are the aim, and what is missed is penalised.
    JumpRelu,
}

/// How much each term of the objective counts, beside its coefficient: 1, or 0 for one the method does not have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Terms {
    /// Self reconstruction.
    pub own: Sides<f64>,
    /// Cross reconstruction, by target.
    pub cross: Sides<f64>,
    /// Align and ot.
    pub plan: f64,
}

impl Method {
    /// Whether it sees the mean state of a pair's tokens in place of the tokens.
    #[must_use]
    pub const fn pooled(self) -> bool {
        matches!(self, Self::Sparc | Self::Usae | Self::PooledConcat | Self::VlSae)
    }

    /// The terms of a step in which `encoder` alone is encoded, or both where it is absent.
    pub(crate) fn terms(self, encoder: Option<Modality>) -> Terms {
        let both = Sides { vision: 1.0, text: 1.0 };
        let none = Sides { vision: 0.0, text: 0.0 };
        match self {
            Self::Lucid => Terms { own: both, cross: both, plan: 1.0 },
            Self::Separate | Self::PooledConcat | Self::VlSae => Terms { own: both, cross: none, plan: 0.0 },
            Self::Sparc => Terms { own: both, cross: both, plan: 0.0 },
            Self::Usae => match encoder {
                None => Terms { own: both, cross: both, plan: 0.0 },
                Some(Modality::Vision) => {
                    Terms { own: Sides { vision: 1.0, text: 0.0 }, cross: Sides { vision: 0.0, text: 1.0 }, plan: 0.0 }
                }
                Some(Modality::Text) => {
                    Terms { own: Sides { vision: 0.0, text: 1.0 }, cross: Sides { vision: 1.0, text: 0.0 }, plan: 0.0 }
                }
            },
        }
    }

    /// The modality that step `step` of a run encodes: a fair coin of (seed, step); nothing for methods that encode both.
    #[must_use]
    pub fn encoder(self, seed: u64, step: usize) -> Option<Modality> {
        (self == Self::Usae).then(|| match Stream::new(seed, Purpose::Modality).uniform(step as u64) < 0.5 {
            true => Modality::Vision,
            false => Modality::Text,
        })
    }
}

impl Config {
    /// Slots that codes have before a threshold or the batch decides, of K latents.
    #[must_use]
    pub fn widest(&self) -> usize {
        (WIDEST * self.k()).min(self.latents())
    }

    /// Whether only the backends of the CPU compute this: the rivals choose their entries on the host.
    #[must_use]
    pub const fn host_only(&self) -> bool {
        self.method.pooled() || !matches!(self.activation, Activation::Topk) || self.nested > 1
    }

    /// Checks what the rivals ask of the other fields.
    pub(crate) fn validate_method(&self) -> Result<(), SaeError> {
        let separate = self.method == Method::Separate;
        if self.activation != Activation::Topk && !separate {
            let found = serde_json::to_value(self.activation).unwrap_or_default();
            return Err(SaeError::option("activation", found, "topk, or method separate"));
        }
        if self.activation == Activation::JumpRelu && self.nested > 1 {
            return Err(SaeError::option("nested", self.nested, "0 with activation jump-relu"));
        }
        if self.method == Method::VlSae && self.aux_coefficient > 0.0 {
            let expected = "0: method vl-sae has no pre-activations for AuxK to revive";
            return Err(SaeError::option("auxCoefficient", self.aux_coefficient, expected));
        }
        if self.nested > 1 && !separate {
            return Err(SaeError::option("nested", self.nested, "0, or method separate"));
        }
        let plain = self.method.pooled() || self.activation != Activation::Topk || self.nested > 1;
        if plain && self.d_private + self.k_private > 0 {
            let expected = "0, and kPrivate 0: this method has no private block";
            return Err(SaeError::option("dPrivate", self.d_private, expected));
        }
        if self.nested > 32 || (self.nested > 1 && self.latents() >> (self.nested - 1) == 0) {
            let expected = format!("at most as many halvings as {} latents allow", self.latents());
            return Err(SaeError::option("nested", self.nested, expected));
        }
        Ok(())
    }

    /// The widths of the nested dictionaries of Matryoshka, the whole one last: K/2ⁿ⁻¹, …, K/2, K.
    #[must_use]
    pub fn prefixes(&self) -> Vec<usize> {
        (0..self.nested.max(1)).rev().map(|halvings| self.latents() >> halvings).collect()
    }
}
