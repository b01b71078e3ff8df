//! Names and reductions of the losses (spec 4.1), and what a step reports.

use lucid_kernels::{Backend, KernelError, Modality, Pairs, Real, Transport, TransportOptions};
use serde::{Deserialize, Serialize};

use crate::batch::Sides;
use crate::config::{AlignNormalization, Config, Reduction};
use crate::method::Terms;

/// Slots of the raw sums a step gathers on the device, before reduction and normalisation. Those of a modality are
/// `SLOT + side(modality)`; AuxK's are `AUX + 2 · side + block`.
pub(crate) mod slot {
    use lucid_kernels::Modality;

    pub const SELF: usize = 0;
    pub const CROSS: usize = 2;
    pub const ALIGN: usize = 4;
    pub const ENERGY: usize = 6;
    pub const AUX: usize = 8;
    pub const OT: usize = 12;
    /// Prefixes of a nested dictionary, without the whole.
    pub const NESTED: usize = 13;
    pub const COUNT: usize = 15;

    pub const fn side(modality: Modality) -> usize {
        match modality {
            Modality::Vision => 0,
            Modality::Text => 1,
        }
    }
}

/// The losses of a step, reduced and normalised, before their weights; `total` is the weighted sum (spec 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// ‖h − ĥ‖² of patches.
    pub self_vision: f64,
    /// ‖h − ĥ‖² of text tokens.
    pub self_text: f64,
    /// Patches from text codes.
    pub cross_vision: f64,
    /// Text tokens from patch codes.
    pub cross_text: f64,
    /// Mean patch from the mean text code.
    pub align_vision: f64,
    /// Mean text token from the mean patch code.
    pub align_text: f64,
    /// ⟨C̃, Π⟩.
    pub ot: f64,
    /// AuxK; 0 while nothing is dead or `auxCoefficient` is 0.
    pub aux: f64,
    /// JumpReLU's Σ (L0 / k − 1)² over the modalities; absent (0) with other activations.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sparsity: f64,
    /// What the gradient is of.
    pub total: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands out references
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// Raw sums over the tokens of a batch, for R² = 1 − Σ‖h − ĥ‖² / Σ‖h − h̄‖².
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepSums {
    /// Σ‖h − ĥ‖², full code.
    pub self_residual: Sides<f64>,
    /// Σ‖h − ĥ^cross‖² by target modality, shared code.
    pub cross_residual: Sides<f64>,
    /// Tokens.
    pub tokens: Sides<usize>,
    /// Pairs.
    pub pairs: usize,
}

/// Plans of a whole batch and their diagnostics, on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanReport<T> {
    /// Π, row-major per pair, concatenated.
    pub plan: Vec<T>,
    /// Column marginal c \[N_t\].
    pub column_marginal: Vec<T>,
    /// w \[N_t\]; empty where neither mass reweighting nor cost modulation is on.
    pub weights: Vec<T>,
    /// Σ_i |Σ_j Π_ij − r_i| of each pair.
    pub marginal_error: Vec<f64>,
    /// −Σ Π ln Π of each pair.
    pub entropy: Vec<f64>,
    /// ⟨C̃, Π⟩ of each pair.
    pub transport_cost: Vec<f64>,
    /// Sinkhorn rounds of each pair.
    pub iterations: Vec<u32>,
}

impl<T: Real> PlanReport<T> {
    pub(crate) fn append<B: Backend<Real = T>>(
        &mut self,
        backend: &B,
        pairs: &Pairs,
        transport: &Transport<B>,
        options: &TransportOptions,
    ) -> Result<(), KernelError> {
        let plan = &transport.plan;
        self.plan.extend(backend.read_vec(&plan.plan, pairs.cells.total())?);
        self.column_marginal.extend(backend.read_vec(&transport.column, pairs.text.total())?);
        if options.uses_weights() {
            self.weights.extend(backend.read_vec(&transport.weights, pairs.text.total())?);
        }
        self.marginal_error.extend(backend.read_vec(&plan.marginal_error, pairs.len())?);
        self.entropy.extend(backend.read_vec(&plan.entropy, pairs.len())?);
        self.transport_cost.extend(backend.read_vec(&plan.transport_cost, pairs.len())?);
        self.iterations.extend(backend.read_vec(&plan.iterations, pairs.len())?);
        Ok(())
    }
}

/// What a step tells, besides its gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport<T> {
    /// Losses by name.
    pub losses: Losses,
    /// Sums behind R².
    pub sums: StepSums,
    /// How often each latent fired \[K\]; their sum over a block, divided by the tokens, is that block's L0.
    pub fired: Sides<Vec<u32>>,
    /// Plans, where asked for.
    pub plan: Option<PlanReport<T>>,
}

impl<T> StepReport<T> {
    /// Mean number of active latents a token.
    #[must_use]
    pub fn l0(&self, modality: Modality) -> f64 {
        let fired: u64 = self.fired.of(modality).iter().map(|&count| u64::from(count)).sum();
        fired as f64 / (*self.sums.tokens.of(modality)).max(1) as f64
    }

    /// R² of self reconstruction, with the variance of the training store in place of the batch's own.
    #[must_use]
    pub fn r2(&self, modality: Modality, variance: f64) -> f64 {
        1.0 - self.sums.self_residual.of(modality) / ((*self.sums.tokens.of(modality)).max(1) as f64 * variance)
    }
}

/// What the reductions depend on (spec 4.1, 5.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub variance: Sides<f64>,
    pub pooled_variance: Option<Sides<f64>>,
    pub tokens: Sides<usize>,
    pub pairs: usize,
}

/// Multipliers that make the losses of spec 4.1 of raw sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scales {
    /// Of self and cross reconstruction.
    pub token: Sides<f64>,
    /// Of align.
    pub align: Sides<f64>,
    /// Of ot.
    pub pair: f64,
}

impl Scales {
    pub(crate) fn new(config: &Config, totals: &Totals) -> Result<Self, KernelError> {
        let count = |n: usize| match config.reduction {
            Reduction::Mean => n.max(1) as f64,
            Reduction::Sum => 1.0,
        };
        let pooled =
            |m| positive("pooledVariance", totals.pooled_variance.map_or(f64::NAN, |variance| *variance.of(m)));
        let token = |m| match config.normalize_loss {
            true if config.method.pooled() => pooled(m),
            true => positive("variance", *totals.variance.of(m)),
            false => Ok(1.0),
        };
        let align = |m| match (config.normalize_loss, config.align_normalization) {
            (true, AlignNormalization::Pooled) => pooled(m),
            _ => token(m),
        };
        let (vision, text) = (Modality::Vision, Modality::Text);
        Ok(Self {
            token: Sides {
                vision: 1.0 / (count(totals.tokens.vision) * token(vision)?),
                text: 1.0 / (count(totals.tokens.text) * token(text)?),
            },
            align: Sides {
                vision: 1.0 / (count(totals.pairs) * align(vision)?),
                text: 1.0 / (count(totals.pairs) * align(text)?),
            },
            pair: 1.0 / count(totals.pairs),
        })
    }

    /// The named losses from the raw sums; `aux` and `sparsity` are summed already.
    pub(crate) fn losses(&self, config: &Config, terms: &Terms, sums: &[f64], (aux, sparsity): (f64, f64)) -> Losses {
        let own = |m: Modality| {
            let nested = sums[slot::SELF + slot::side(m)] + sums[slot::NESTED + slot::side(m)];
            nested * self.token.of(m) / config.nested.max(1) as f64
        };
        let token = |first, m: Modality| sums[first + slot::side(m)] * self.token.of(m);
        let align = |m: Modality| sums[slot::ALIGN + slot::side(m)] * self.align.of(m);
        let (vision, text) = (Modality::Vision, Modality::Text);
        let mut losses = Losses {
            self_vision: own(vision),
            self_text: own(text),
            cross_vision: token(slot::CROSS, vision),
            cross_text: token(slot::CROSS, text),
            align_vision: align(vision),
            align_text: align(text),
            ot: sums[slot::OT] * self.pair,
            aux,
            sparsity,
            total: 0.0,
        };
        // What a method lacks was not summed; what it only looks at in this step does not count.
        losses.total = config.alpha * (terms.own.vision * losses.self_vision + terms.own.text * losses.self_text)
            + config.beta * (losses.align_vision + losses.align_text)
            + config.gamma * (losses.cross_vision + losses.cross_text)
            + config.w_ot * losses.ot
            + config.aux_coefficient * losses.aux
            + config.l0_coefficient * losses.sparsity;
        losses
    }
}

fn positive(option: &'static str, value: f64) -> Result<f64, KernelError> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(KernelError::Option { option, found: value.to_string(), expected: "a finite number above 0".into() })
}
