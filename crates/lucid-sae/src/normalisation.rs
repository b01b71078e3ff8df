//! Centring and scaling of activations before the encoder (spec 5), and the variances that go with it (spec 4.1).

use lucid_data::store::{PerModality, Statistics};
use lucid_kernels::Modality;

use crate::batch::Sides;
use crate::config::{AlignNormalization, Config};
use crate::error::SaeError;

/// A variance below this part of the mean squared norm is what the rounding of f32 leaves of equal states.
pub(crate) const NEGLIGIBLE: f64 = 1e-12;

/// The affine map of one modality: h ↦ (h − mean) · scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Subtracted from every state \[d\]; zero without `center`.
    pub mean: Vec<f32>,
    /// Factor after centring, so that the mean squared norm is 1; 1 without `scale`.
    pub scale: f32,
}

impl Scaling {
    /// The map that changes nothing.
    #[must_use]
    pub fn identity(d: usize) -> Self {
        Self { mean: vec![0.0; d], scale: 1.0 }
    }

    /// Width of the states.
    #[must_use]
    pub const fn d(&self) -> usize {
        self.mean.len()
    }

    /// Maps raw states \[n · d\] in place.
    pub fn apply(&self, states: &mut [f32]) {
        for row in states.chunks_exact_mut(self.d()) {
            for (x, mean) in row.iter_mut().zip(&self.mean) {
                *x = (*x - mean) * self.scale;
            }
        }
    }

    /// Maps states back to raw units \[n · d\] in place.
    pub fn invert(&self, states: &mut [f32]) {
        for row in states.chunks_exact_mut(self.d()) {
            for (x, mean) in row.iter_mut().zip(&self.mean) {
                *x = *x / self.scale + mean;
            }
        }
    }

    fn is_identity(&self) -> bool {
        self.scale == 1.0 && self.mean.iter().all(|mean| *mean == 0.0)
    }
}

/// The maps of both modalities.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// Patches.
    pub vision: Scaling,
    /// Text tokens.
    pub text: Scaling,
}

impl Normalisation {
    /// The maps that change nothing.
    #[must_use]
    pub fn identity(d_vision: usize, d_text: usize) -> Self {
        Self { vision: Scaling::identity(d_vision), text: Scaling::identity(d_text) }
    }

    /// The maps that `center` and `scale` of `config` ask for on data of these statistics.
    pub fn from_statistics(config: &Config, statistics: &Statistics) -> Result<Self, SaeError> {
        let of = |modality: Modality, mean: &[f64], variance: f64, mean_square: f64| {
            let square = if config.center { variance } else { mean_square };
            if config.scale && !(square.is_finite() && square > NEGLIGIBLE * mean_square) {
                let found = format!("all equal ({} states: mean squared norm {square})", modality.name());
                return Err(SaeError::option("activations", found, "states that differ, or scale: false"));
            }
            let mean = mean.iter().map(|x| if config.center { *x as f32 } else { 0.0 }).collect();
            Ok(Scaling { mean, scale: if config.scale { square.sqrt().recip() as f32 } else { 1.0 } })
        };
        let s = statistics;
        Ok(Self {
            vision: of(Modality::Vision, &s.mean_vision, s.variance.vision, s.mean_square.vision)?,
            text: of(Modality::Text, &s.mean_text, s.variance.text, s.mean_square.text)?,
        })
    }

    /// One modality.
    #[must_use]
    pub const fn of(&self, modality: Modality) -> &Scaling {
        match modality {
            Modality::Vision => &self.vision,
            Modality::Text => &self.text,
        }
    }

    /// Whether activations pass unchanged.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.vision.is_identity() && self.text.is_identity()
    }
}

/// Variances of the activations in the units the model sees (spec 4.1, 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variances {
    /// V_m, over tokens.
    pub variance: PerModality<f64>,
    /// V_m^pool, over the pooled states of pairs.
    pub pooled_variance: PerModality<f64>,
}

impl Variances {
    /// V_m and V_m^pool in the form the step takes.
    #[must_use]
    pub fn sides(&self) -> (Sides<f64>, Sides<f64>) {
        let sides = |v: PerModality<f64>| Sides { vision: v.vision, text: v.text };
        (sides(self.variance), sides(self.pooled_variance))
    }

    /// In the units after `normalisation`. Where a variance that `config` divides by is 0, there is no loss to speak
    /// of: `E_OPTION`.
    pub fn new(config: &Config, statistics: &Statistics, normalisation: &Normalisation) -> Result<Self, SaeError> {
        let square = |scaling: &Scaling| f64::from(scaling.scale) * f64::from(scaling.scale);
        let (vision, text) = (square(&normalisation.vision), square(&normalisation.text));
        let scaled = |v: PerModality<f64>| PerModality { vision: v.vision * vision, text: v.text * text };
        let variances =
            Self { variance: scaled(statistics.variance), pooled_variance: scaled(statistics.pooled_variance) };
        let square = statistics.mean_square;
        let positive = |v: PerModality<f64>| v.vision > NEGLIGIBLE * square.vision && v.text > NEGLIGIBLE * square.text;
        if config.normalize_loss && !positive(statistics.variance) {
            return Err(SaeError::option("activations", "all equal", "states that differ, or normalizeLoss: false"));
        }
        let pooled = config.normalize_loss && config.align_normalization == AlignNormalization::Pooled;
        if pooled && config.beta > 0.0 && !positive(statistics.pooled_variance) {
            let found = "pooled, but the pooled states of all pairs are equal";
            return Err(SaeError::option("alignNormalization", found, "tokens for such a store"));
        }
        Ok(variances)
    }
}
