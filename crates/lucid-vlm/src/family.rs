//! What sets the families of checkpoints apart, as data: one forward pass ([`crate::model`]) reads these tables.

use serde::{Deserialize, Serialize};

/// A family of checkpoints, under the `model_type` of its `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// SigLIP, and SigLIP 2 of a fixed resolution (the same architecture with another tokenizer).
    #[default]
    Siglip,
    /// SigLIP 2 NaFlex: a patch grid of the picture's own aspect.
    Siglip2,
    /// CLIP of OpenAI, LAION and others.
    Clip,
}

/// How a patch is projected to the width of the tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchWeight {
    /// A convolution's weight [d, 3, p, p].
    Convolution,
    /// A matrix [d, p·p·3] on values ordered (y, x, channel).
    Matrix,
}

/// What becomes of the patches' states in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisionPooling {
    /// A learned query attends over the patches, where the checkpoint has that head.
    Attention,
    /// The state of a class token that runs along with the patches, through a projection.
    ClassToken,
}

/// Which position of a caption stands for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPooling {
    /// The last position, padding or not.
    Last,
    /// The end-of-text token.
    EndOfText,
}

/// How a caption is rewritten before the vocabulary is consulted, besides what `tokenizer.json` does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canonical {
    /// As SigLIP: lower case, and with a unigram vocabulary no ASCII punctuation and single spaces.
    Siglip,
    /// Nothing: the file says it all.
    File,
}

/// The differences. Names of tensors are Hugging Face's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Shape of the patch projection's weight.
    pub patch_weight: PatchWeight,
    /// Whether the patch projection has a bias.
    pub patch_bias: bool,
    /// Whether the position table is resampled to each picture's grid.
    pub positions_follow_grid: bool,
    /// Layer norm before the first block (`vision_model.pre_layrnorm`).
    pub norm_before_blocks: bool,
    /// Pooling of the image tower.
    pub vision_pooling: VisionPooling,
    /// Whether a token sees only those before it.
    pub causal_text: bool,
    /// Pooling of the text tower.
    pub text_pooling: TextPooling,
    /// Name of the matrix after the text pooling, and whether it has a bias.
    pub text_head: (&'static str, bool),
    /// Whether the logits have a bias (trained with a sigmoid) or not (softmax).
    pub logit_bias: bool,
    /// Rewriting of captions.
    pub canonical: Canonical,
}

const SIGLIP: Traits = Traits {
    patch_weight: PatchWeight::Convolution,
    patch_bias: true,
    positions_follow_grid: false,
    norm_before_blocks: false,
    vision_pooling: VisionPooling::Attention,
    causal_text: false,
    text_pooling: TextPooling::Last,
    text_head: ("text_model.head", true),
    logit_bias: true,
    canonical: Canonical::Siglip,
};

const SIGLIP2: Traits = Traits { patch_weight: PatchWeight::Matrix, positions_follow_grid: true, ..SIGLIP };

const CLIP: Traits = Traits {
    patch_weight: PatchWeight::Convolution,
    patch_bias: false,
    positions_follow_grid: false,
    norm_before_blocks: true,
    vision_pooling: VisionPooling::ClassToken,
    causal_text: true,
    text_pooling: TextPooling::EndOfText,
    text_head: ("text_projection", false),
    logit_bias: false,
    canonical: Canonical::File,
};

impl Family {
    /// The `model_type`s that are read.
    pub const NAMES: [&'static str; 3] = ["siglip", "siglip2", "clip"];

    /// `model_type` in `config.json`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The family of a `model_type`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Siglip, Self::Siglip2, Self::Clip].into_iter().find(|f| f.name() == name)
    }

    /// What sets it apart.
    pub fn traits(self) -> &'static Traits {
        match self {
            Self::Siglip => &SIGLIP,
            Self::Siglip2 => &SIGLIP2,
            Self::Clip => &CLIP,
        }
    }
}
