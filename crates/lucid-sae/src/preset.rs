//! Named configurations: what each differs in from the defaults.

use serde::{Deserialize, Serialize};

use crate::config::{Activation, AlignNormalization, Config, Initialise, Method, TopK};
use crate::error::SaeError;

/// A named configuration (spec 5, ablation ladder of 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The paper's objective plus what a Top-k dictionary needs.
    #[default]
    Default,
    /// The paper's recipe with nothing added.
    Paper,
    /// Global Top-k, plain transport, `wOt` 0.1, no GSL.
    OtOnly,
    /// `ot-only` with split Top-k.
    ShareK,
    /// `share-k` with GSL in place of the transport loss.
    ShareKGsl,
    /// The paper's model from a random start.
    ShareKGslGcmt,
    /// Two Top-k autoencoders that know nothing of each other.
    Separate,
    /// The same with BatchTopK.
    SeparateBatchTopk,
    /// The same with BatchTopK and nested dictionaries (Matryoshka).
    SeparateMatryoshka,
    /// The same with JumpReLU: a threshold a latent.
    SeparateJumpRelu,
    /// SPARC: common latents of both modalities' pooled states.
    Sparc,
    /// Universal SAE on pooled states.
    Usae,
    /// One autoencoder of concatenated pooled states.
    PooledConcat,
    /// VL-SAE: a shared encoder by distance and two decoders, on pooled states.
    VlSae,
    /// Principal components, a floor.
    Pca,
    /// Random directions, a floor.
    RandomDictionary,
}

impl Preset {
    /// Every preset, in the order of the documentation.
    pub const ALL: [Self; 16] = [
        Self::Default,
        Self::Paper,
        Self::OtOnly,
        Self::ShareK,
        Self::ShareKGsl,
        Self::ShareKGslGcmt,
        Self::Separate,
        Self::SeparateBatchTopk,
        Self::SeparateMatryoshka,
        Self::SeparateJumpRelu,
        Self::Sparc,
        Self::Usae,
        Self::PooledConcat,
        Self::VlSae,
        Self::Pca,
        Self::RandomDictionary,
    ];

    /// The name used in options and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Paper => "paper",
            Self::OtOnly => "ot-only",
            Self::ShareK => "share-k",
            Self::ShareKGsl => "share-k-gsl",
            Self::ShareKGslGcmt => "share-k-gsl-gcmt",
            Self::Separate => "separate",
            Self::SeparateBatchTopk => "separate-batch-topk",
            Self::SeparateMatryoshka => "separate-matryoshka",
            Self::SeparateJumpRelu => "separate-jump-relu",
            Self::Sparc => "sparc",
            Self::Usae => "usae",
            Self::PooledConcat => "pooled-concat",
            Self::VlSae => "vl-sae",
            Self::Pca => "pca",
            Self::RandomDictionary => "random-dictionary",
        }
    }

    /// Parses a name; an unknown one is refused with the nearest known name.
    pub fn parse(name: &str) -> Result<Self, SaeError> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.name() == name)
            .ok_or_else(|| SaeError::unknown("preset", name, Self::ALL.map(Self::name)))
    }

    /// The configuration of the preset.
    #[must_use]
    pub fn config(self) -> Config {
        let paper = Config {
            align_normalization: AlignNormalization::Tokens,
            initialise: Initialise::Random,
            aux_coefficient: 0.0,
            grad_clip: 0.0,
            unit_norm_decoder: false,
            tied_init: false,
            center: false,
            scale: false,
            bias_from_mean: false,
            ..Config::default()
        };
        // The ladder isolates the paper's parts, so it keeps the stabilisers and starts from random directions.
        let ladder = Config { initialise: Initialise::Random, ..Config::default() };
        let plain_transport = Config { mass_reweighting: false, lambda_global: 0.0, ..ladder.clone() };
        // Rivals have one block: as many latents and entries as both blocks of the others together.
        let rival = |method: Method| Config {
            method,
            beta: 0.0,
            gamma: if method == Method::Separate { 0.0 } else { 1.0 },
            d_shared: ladder.latents(),
            d_private: 0,
            k_shared: ladder.k(),
            k_private: 0,
            ..ladder.clone()
        };
        // A pair counts as one token where only its mean state is seen.
        let pooled = |method: Method| Config { dead_after_tokens: 5000, ..rival(method) };
        let floor = Config { lr: 0.0, steps: 1, aux_coefficient: 0.0, ..rival(Method::Separate) };
        match self {
            Self::Default => Config::default(),
            Self::Paper => paper,
            Self::OtOnly => Config { topk: TopK::Global, beta: 0.0, w_ot: 0.1, ..plain_transport },
            Self::ShareK => Config { beta: 0.0, w_ot: 0.1, ..plain_transport },
            Self::ShareKGsl => plain_transport,
            Self::ShareKGslGcmt => ladder,
            Self::Separate => rival(Method::Separate),
            Self::SeparateBatchTopk => Config { activation: Activation::BatchTopk, ..rival(Method::Separate) },
            Self::SeparateMatryoshka => {
                Config { activation: Activation::BatchTopk, nested: 4, ..rival(Method::Separate) }
            }
            Self::SeparateJumpRelu => Config { activation: Activation::JumpRelu, ..rival(Method::Separate) },
            Self::Sparc => pooled(Method::Sparc),
            Self::Usae => pooled(Method::Usae),
            Self::PooledConcat => pooled(Method::PooledConcat),
            // Its activations lie in [0, 2], so the decoder has to be free to scale them.
            Self::VlSae => {
                Config { unit_norm_decoder: false, aux_coefficient: 0.0, gamma: 0.0, ..pooled(Method::VlSae) }
            }
            Self::Pca => Config { initialise: Initialise::Pca, ..floor },
            Self::RandomDictionary => floor,
        }
    }
}
