//! Every value that decides what a training run computes, with its default on the field.
//!
//! The defaults written here are the `default` preset (spec 5): the paper's objective plus what a Top-k dictionary
//! needs. The other presets are differences from it, in [`Preset::config`]. A resolved [`Config`] is saved with every
//! artefact.

use lucid_kernels::Backend;
pub use lucid_kernels::Precision;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::error::SaeError;
pub use crate::method::{Activation, Method};
pub use crate::preset::Preset;

/// How Top-k selects (spec 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopK {
    /// `kShared` inside the shared block and `kPrivate` inside the private block.
    Split,
    /// One Top-(`kShared` + `kPrivate`) over all latents.
    Global,
}

/// Whether the transport plan is a constant of the step (spec 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanGradient {
    /// The plan carries no gradient.
    Stop,
    /// The gradient runs through every Sinkhorn iteration.
    Unrolled,
}

/// How losses are summed (spec 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Divided by the number of tokens (pairs for align and ot).
    Mean,
    /// The printed form.
    Sum,
}

/// What divides the align losses (spec 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlignNormalization {
    /// The variance of pooled states.
    Pooled,
    /// The variance of token states.
    Tokens,
}

/// Where the shared dictionaries start (spec 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initialise {
    /// Shared vision atoms are ridge images of text atoms chosen by farthest direction.
    Paired,
    /// As `paired`, but vision atoms are what the patches that fire with a text atom have in common.
    Coactivation,
    /// Independent random directions.
    Random,
    /// Principal components and their opposites, a floor and no start to learn from.
    Pca,
}

/// The order of pairs within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A permutation that depends on (seed, epoch) only.
    Shuffle,
    /// The order of the store.
    Sequential,
}

/// Resolved configuration of a model and its training. Names are the spec's, in camelCase in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Shared latents K_s of each modality. Default 1536.
    pub d_shared: usize,
    /// Private latents K_p of each modality. Default 4608.
    pub d_private: usize,
    /// Kept entries of the shared block. Default 16.
    pub k_shared: usize,
    /// Kept entries of the private block. Default 32.
    pub k_private: usize,
    /// Selection by block or over all latents. Default `split`.
    pub topk: TopK,
    /// Weight of self reconstruction. Default 1.
    pub alpha: f64,
    /// Weight of alignment (GSL). Default 0.5.
    pub beta: f64,
    /// Weight of cross reconstruction. Default 0.3.
    pub gamma: f64,
    /// Weight of the transport cost. Default 0.
    pub w_ot: f64,
    /// Entropic regularisation ε of Sinkhorn, in units of cost. Default 0.1.
    pub epsilon: f64,
    /// Sinkhorn iterations. Default 10.
    pub iterations: usize,
    /// Stop Sinkhorn early once the row-marginal error (L1) is below this; 0 = never. Default 0.
    pub tolerance: f64,
    /// Share of a pair's mass that goes to no word: an extra column of the plan with an all-zero code, for patches that the
    /// caption does not mention. 0 = off. Default 0.
    pub sink_mass: f64,
    /// Column marginals from the global image code (spec 3, part 2). Default true.
    pub mass_reweighting: bool,
    /// Cost modulation λ_global (spec 3, part 3; absorbed by the column scaling at convergence). Default 0.5.
    pub lambda_global: f64,
    /// Cost added where a mask forbids; infinite = exact exclusion. `"inf"` in JSON. Default infinite.
    #[serde(with = "infinite")]
    pub mask_penalty: f64,
    /// Gradient through the plan. Default `stop`.
    pub plan_gradient: PlanGradient,
    /// Means or sums. Default `mean`.
    pub reduction: Reduction,
    /// Divide losses by activation variances. Default true.
    pub normalize_loss: bool,
    /// Variance that divides the align losses. Default `pooled`.
    pub align_normalization: AlignNormalization,
    /// Start of the shared dictionaries. Default `paired`.
    pub initialise: Initialise,
    /// Weight of AuxK; 0 = off. Default 1/32.
    pub aux_coefficient: f64,
    /// Dead latents that reconstruct the residual; 0 = half the width of the modality. Default 0.
    pub k_aux: usize,
    /// A latent is dead after this many tokens of its modality without firing. Default 1,000,000.
    pub dead_after_tokens: u64,
    /// Peak learning rate. Default 3e-4.
    pub lr: f64,
    /// Decoupled weight decay. Default 0.01.
    pub weight_decay: f64,
    /// AdamW β₁. Default 0.9.
    pub beta1: f64,
    /// AdamW β₂. Default 0.999.
    pub beta2: f64,
    /// AdamW ε. Default 1e-8.
    pub adam_eps: f64,
    /// Largest global gradient norm; 0 = no clipping. Default 1.
    pub grad_clip: f64,
    /// Rows of W_dec stay on the unit sphere. Default true.
    pub unit_norm_decoder: bool,
    /// W_enc starts as a copy of W_decᵀ. Default true.
    pub tied_init: bool,
    /// Subtract the mean of the training activations. Default true.
    pub center: bool,
    /// Scale activations to unit mean squared norm. Default true.
    pub scale: bool,
    /// b_dec starts at the mean of the (normalised) training activations. Default true.
    pub bias_from_mean: bool,
    /// Linear warm-up steps before the cosine. Default 0.
    pub warmup_steps: usize,
    /// Pairs of a step. Default 256.
    pub batch_pairs: usize,
    /// Pairs whose intermediate arrays exist at once; changes the order of summation only. 0 = what suits the device:
    /// 32 on a CPU, 256 on Hopper, 64 on other GPUs. Default 0.
    pub micro_pairs: usize,
    /// Passes over the training pairs, used when `steps` is 0. Default 200.
    pub epochs: usize,
    /// Steps of the run; 0 = from `epochs`. Default 0.
    pub steps: usize,
    /// Order of pairs. Default `shuffle`.
    pub order: Order,
    /// Seed of initialisation, order and caption choice. Default 0.
    pub seed: u64,
    /// What operands of products and gathered rows are rounded to; weights, sums and losses never are. Default `f32`.
    pub precision: Precision,
    /// Whose objective is minimised: LUCID's, or that of a method it is compared with. Default `lucid`.
    #[serde(default)]
    pub method: Method,
    /// How the entries of a code are chosen. Default `topk`.
    #[serde(default)]
    pub activation: Activation,
    /// Nested dictionaries of Matryoshka, each half of the next; 0 = none. Default 0.
    #[serde(default)]
    pub nested: usize,
    /// How near its threshold a pre-activation must be for JumpReLU's to learn of it: the width of the kernel of the straight-through
    /// estimate. Default 0.1.
    #[serde(default = "default_bandwidth")]
    pub bandwidth: f64,
    /// Weight of (L0 / k − 1)² of each modality, which JumpReLU adds to the loss. Default 3.
    #[serde(default = "default_l0_coefficient")]
    pub l0_coefficient: f64,
}

const fn default_bandwidth() -> f64 {
    0.1
}

const fn default_l0_coefficient() -> f64 {
    3.0
}

impl Default for Config {
    fn default() -> Self {
        Self {
            d_shared: 1536,
            d_private: 4608,
            k_shared: 16,
            k_private: 32,
            topk: TopK::Split,
            alpha: 1.0,
            beta: 0.5,
            gamma: 0.3,
            w_ot: 0.0,
            epsilon: 0.1,
            iterations: 10,
            tolerance: 0.0,
            sink_mass: 0.0,
            mass_reweighting: true,
            lambda_global: 0.5,
            mask_penalty: f64::INFINITY,
            plan_gradient: PlanGradient::Stop,
            reduction: Reduction::Mean,
            normalize_loss: true,
            align_normalization: AlignNormalization::Pooled,
            initialise: Initialise::Paired,
            aux_coefficient: 1.0 / 32.0,
            k_aux: 0,
            dead_after_tokens: 1_000_000,
            lr: 3e-4,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            adam_eps: 1e-8,
            grad_clip: 1.0,
            unit_norm_decoder: true,
            tied_init: true,
            center: true,
            scale: true,
            bias_from_mean: true,
            warmup_steps: 0,
            batch_pairs: 256,
            micro_pairs: 0,
            epochs: 200,
            steps: 0,
            order: Order::Shuffle,
            seed: 0,
            precision: Precision::F32,
            method: Method::Lucid,
            activation: Activation::Topk,
            nested: 0,
            bandwidth: default_bandwidth(),
            l0_coefficient: default_l0_coefficient(),
        }
    }
}

impl Config {
    /// Latents of one modality, K_s + K_p.
    #[must_use]
    pub const fn latents(&self) -> usize {
        self.d_shared + self.d_private
    }

    /// Entries of a code, k_s + k_p.
    #[must_use]
    pub const fn k(&self) -> usize {
        self.k_shared + self.k_private
    }

    /// Pairs of a micro-batch on a device: `micro_pairs`, or where that is 0, what suits the device.
    #[must_use]
    pub fn micro_pairs_on<B: Backend>(&self, backend: &B) -> usize {
        if self.micro_pairs == 0 { backend.micro_pairs() } else { self.micro_pairs }
    }

    /// Resolves a preset and overriding fields (a JSON object in the names of the spec) into a checked configuration.
    /// Unknown fields are refused by name with the nearest known one.
    pub fn resolve(preset: Preset, overrides: &Value) -> Result<Self, SaeError> {
        let Value::Object(overrides) = overrides else {
            return Err(SaeError::option("config", overrides, "an object of config fields"));
        };
        let Ok(Value::Object(mut fields)) = serde_json::to_value(preset.config()) else {
            return Err(SaeError::internal("a preset did not serialise to an object"));
        };
        for (name, value) in overrides {
            if !fields.contains_key(name) {
                return Err(SaeError::unknown("config field", name, fields.keys().map(String::as_str)));
            }
            let alone = fields.insert(name.clone(), value.clone());
            // One field at a time, so that a wrong type is reported under its own name.
            if serde_json::from_value::<Self>(Value::Object(fields.clone())).is_err() {
                return Err(SaeError::option(name, value, format!("a value like {}", alone.unwrap_or(Value::Null))));
            }
        }
        let config: Self =
            serde_json::from_value(Value::Object(fields)).map_err(|error| SaeError::internal(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks ranges and relations between fields.
    pub fn validate(&self) -> Result<(), SaeError> {
        let at_least_one = [("batchPairs", self.batch_pairs), ("iterations", self.iterations)];
        for (name, value) in at_least_one {
            if value == 0 {
                return Err(SaeError::option(name, value, "at least 1"));
            }
        }
        if self.latents() == 0 {
            return Err(SaeError::option("dShared", self.d_shared, "dShared + dPrivate of at least 1"));
        }
        if self.latents() > u32::MAX as usize - 1 {
            return Err(SaeError::option("dShared", self.d_shared, "fewer than 2^32 - 1 latents"));
        }
        if self.k() == 0 {
            return Err(SaeError::option("kShared", self.k_shared, "kShared + kPrivate of at least 1"));
        }
        match self.topk {
            TopK::Split => {
                if self.k_shared > self.d_shared {
                    return Err(SaeError::option(
                        "kShared",
                        self.k_shared,
                        format!("at most dShared = {}", self.d_shared),
                    ));
                }
                if self.k_private > self.d_private {
                    let expected = format!("at most dPrivate = {}", self.d_private);
                    return Err(SaeError::option("kPrivate", self.k_private, expected));
                }
            }
            TopK::Global => {
                if self.k() > self.latents() {
                    let expected = format!("kShared + kPrivate at most dShared + dPrivate = {}", self.latents());
                    return Err(SaeError::option("kShared", self.k_shared, expected));
                }
            }
        }
        let non_negative = [
            ("alpha", self.alpha),
            ("beta", self.beta),
            ("gamma", self.gamma),
            ("wOt", self.w_ot),
            ("tolerance", self.tolerance),
            ("lambdaGlobal", self.lambda_global),
            ("auxCoefficient", self.aux_coefficient),
            ("lr", self.lr),
            ("weightDecay", self.weight_decay),
            ("gradClip", self.grad_clip),
            ("l0Coefficient", self.l0_coefficient),
        ];
        for (name, value) in non_negative {
            if !value.is_finite() || value < 0.0 {
                return Err(SaeError::option(name, value, "a finite number of at least 0"));
            }
        }
        if self.mask_penalty.is_nan() || self.mask_penalty < 0.0 {
            return Err(SaeError::option("maskPenalty", self.mask_penalty, "at least 0, or \"inf\""));
        }
        for (name, value) in [("epsilon", self.epsilon), ("adamEps", self.adam_eps), ("bandwidth", self.bandwidth)] {
            if !value.is_finite() || value <= 0.0 {
                return Err(SaeError::option(name, value, "a finite number above 0"));
            }
        }
        for (name, value) in [("beta1", self.beta1), ("beta2", self.beta2), ("sinkMass", self.sink_mass)] {
            if !(0.0..1.0).contains(&value) {
                return Err(SaeError::option(name, value, "a number in [0, 1)"));
            }
        }
        // kernels.md 9: plain scaling in f32 holds exp(−C̃/ε) only while C̃/ε stays well inside the exponent range.
        let largest_cost = 1.0 + self.lambda_global;
        if largest_cost / self.epsilon > 80.0 {
            let least = largest_cost / 80.0;
            return Err(SaeError::option("epsilon", self.epsilon, format!("at least {least:.4} (f32 scaling)")));
        }
        self.validate_method()?;
        if self.steps == 0 && self.epochs == 0 {
            return Err(SaeError::option("steps", self.steps, "steps or epochs of at least 1"));
        }
        Ok(())
    }
}

/// Infinity as `"inf"`, since JSON has no number for it.
mod infinite {
    use super::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_infinite() { serializer.serialize_str("inf") } else { serializer.serialize_f64(*value) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(value),
            Form::Text(text) if text == "inf" || text == "Infinity" => Ok(f64::INFINITY),
            Form::Text(text) => Err(serde::de::Error::custom(format!("{text} is not a number or \"inf\""))),
        }
    }
}
