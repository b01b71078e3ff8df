//! Named configurations: what each differs in from the defaults.

use serde::{Deserialize, Serialize};

use crate::config::{AlignNormalization, Config, Initialise, TopK};
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
}

impl Preset {
    /// Every preset, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Default, Self::Paper, Self::OtOnly, Self::ShareK, Self::ShareKGsl, Self::ShareKGslGcmt];

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
        match self {
            Self::Default => Config::default(),
            Self::Paper => paper,
            Self::OtOnly => Config { topk: TopK::Global, beta: 0.0, w_ot: 0.1, ..plain_transport },
            Self::ShareK => Config { beta: 0.0, w_ot: 0.1, ..plain_transport },
            Self::ShareKGsl => plain_transport,
            Self::ShareKGslGcmt => ladder,
        }
    }
}
