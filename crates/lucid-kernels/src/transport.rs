//! Transport of a micro-batch (spec 3): guided cost, marginals, plan, and the way back to the codes.
//!
//! [`Transport`] strings the backend's operations together; it is what the training step, `match_pair` and the
//! `gcmt` export share.

use crate::backend::Backend;
use crate::codes::Codes;
use crate::device::Device;
use crate::error::KernelError;
use crate::ragged::Pairs;

/// Options of Sinkhorn's iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SinkhornOptions {
    /// Entropic regularisation ε, in units of cost.
    pub epsilon: f64,
    /// Largest number of rounds.
    pub iterations: usize,
    /// Stop once the row-marginal error (L1) is below this; 0 = never.
    pub tolerance: f64,
    /// Share m of all mass that an extra column, the *sink*, takes: a word with an all-zero code, whose cost is 1 to every
    /// patch. The columns share the rest. 0 = no sink, below 1.
    pub sink_mass: f64,
}

/// Options of the guided plan (GCMT). Names as in the config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransportOptions {
    /// Sinkhorn's options.
    pub sinkhorn: SinkhornOptions,
    /// Column marginals from the global image code; uniform otherwise.
    pub mass_reweighting: bool,
    /// Weight of the cost modulation; 0 = off.
    pub lambda_global: f64,
    /// Added to the cost where the mask forbids; infinite excludes.
    pub mask_penalty: f64,
}

impl TransportOptions {
    /// Whether text weights w_j are needed.
    #[must_use]
    pub fn uses_weights(&self) -> bool {
        self.mass_reweighting || self.lambda_global != 0.0
    }
}

/// Transport plans of a micro-batch: Π = diag(u) K diag(v) per pair, with diagnostics.
pub struct Plan<B: Device> {
    /// Π \[cells\].
    pub plan: B::Buffer<B::Real>,
    /// Row scaling u \[N_v\].
    pub u: B::Buffer<B::Real>,
    /// Column scaling v \[N_t\].
    pub v: B::Buffer<B::Real>,
    /// Σ_j Π_ij \[N_v\].
    pub row_sums: B::Buffer<B::Real>,
    /// Σ_i Π_ij \[N_t\].
    pub column_sums: B::Buffer<B::Real>,
    /// Σ_i |Σ_j Π_ij − r_i| \[pairs\].
    pub marginal_error: B::Buffer<f64>,
    /// −Σ Π ln Π, 0 ln 0 = 0 \[pairs\].
    pub entropy: B::Buffer<f64>,
    /// ⟨cost, Π⟩ with the cost given to Sinkhorn, excluded entries counting 0 \[pairs\].
    pub transport_cost: B::Buffer<f64>,
    /// Rounds made \[pairs\].
    pub iterations: B::Buffer<u32>,
    /// Index of the first pair in the batch that these pairs are part of, for errors.
    pub first_pair: usize,
}

impl<B: Device> Plan<B> {
    /// Room for the plans of `pairs`.
    pub fn new(backend: &B, pairs: &Pairs) -> Result<Self, KernelError> {
        Ok(Self {
            plan: backend.zeros(pairs.cells.total())?,
            u: backend.zeros(pairs.vision.total())?,
            v: backend.zeros(pairs.text.total())?,
            row_sums: backend.zeros(pairs.vision.total())?,
            column_sums: backend.zeros(pairs.text.total())?,
            marginal_error: backend.zeros(pairs.len())?,
            entropy: backend.zeros(pairs.len())?,
            transport_cost: backend.zeros(pairs.len())?,
            iterations: backend.zeros(pairs.len())?,
            first_pair: 0,
        })
    }

    /// Makes room for the plans of `pairs`, keeping buffers that are long enough.
    pub fn reserve(&mut self, backend: &B, pairs: &Pairs) -> Result<(), KernelError> {
        backend.reserve(&mut self.plan, pairs.cells.total())?;
        backend.reserve(&mut self.u, pairs.vision.total())?;
        backend.reserve(&mut self.v, pairs.text.total())?;
        backend.reserve(&mut self.row_sums, pairs.vision.total())?;
        backend.reserve(&mut self.column_sums, pairs.text.total())?;
        backend.reserve(&mut self.marginal_error, pairs.len())?;
        backend.reserve(&mut self.entropy, pairs.len())?;
        backend.reserve(&mut self.transport_cost, pairs.len())?;
        backend.reserve(&mut self.iterations, pairs.len())
    }
}

/// Everything the transport of a micro-batch computes, and room for its backward pass.
pub struct Transport<B: Device> {
    /// C \[cells\].
    pub cost: B::Buffer<B::Real>,
    /// C̃ \[cells\].
    pub guided: B::Buffer<B::Real>,
    /// w \[N_t\]; meaningful where [`TransportOptions::uses_weights`].
    pub weights: B::Buffer<B::Real>,
    /// r \[N_v\].
    pub row: B::Buffer<B::Real>,
    /// c \[N_t\].
    pub column: B::Buffer<B::Real>,
    /// Π and its diagnostics.
    pub plan: Plan<B>,
    d_weights: B::Buffer<B::Real>,
    d_column: B::Buffer<B::Real>,
}

impl<B: Backend> Transport<B> {
    /// Room for `pairs`.
    pub fn new(backend: &B, pairs: &Pairs) -> Result<Self, KernelError> {
        let (cells, rows, columns) = (pairs.cells.total(), pairs.vision.total(), pairs.text.total());
        Ok(Self {
            cost: backend.zeros(cells)?,
            guided: backend.zeros(cells)?,
            weights: backend.zeros(columns)?,
            row: backend.zeros(rows)?,
            column: backend.zeros(columns)?,
            plan: Plan::new(backend, pairs)?,
            d_weights: backend.zeros(columns)?,
            d_column: backend.zeros(columns)?,
        })
    }

    /// Solves for the plans of `pairs` between their shared codes. `admissible` M \[cells\].
    pub fn solve(
        &mut self,
        backend: &B,
        vision: &Codes<B>,
        text: &Codes<B>,
        pairs: &Pairs,
        admissible: Option<&B::Buffer<B::Real>>,
        options: &TransportOptions,
    ) -> Result<(), KernelError> {
        self.begin(backend, vision, text, pairs, admissible, options)?;
        backend.finish()
    }

    /// [`Transport::solve`] without waiting: [`Device::finish`] tells whether it went well.
    pub fn begin(
        &mut self,
        backend: &B,
        vision: &Codes<B>,
        text: &Codes<B>,
        pairs: &Pairs,
        admissible: Option<&B::Buffer<B::Real>>,
        options: &TransportOptions,
    ) -> Result<(), KernelError> {
        self.reserve(backend, pairs)?;
        backend.gcmt(vision, text, pairs, admissible, options, self)
    }

    /// The way forward, one operation after the other: what [`Backend::gcmt`] does at once where it can.
    pub(crate) fn by_operations(
        &mut self,
        backend: &B,
        vision: &Codes<B>,
        text: &Codes<B>,
        pairs: &Pairs,
        admissible: Option<&B::Buffer<B::Real>>,
        options: &TransportOptions,
    ) -> Result<(), KernelError> {
        backend.cosine_cost(vision, text, pairs, &mut self.cost)?;
        if options.uses_weights() {
            backend.mass_weights(vision, text, pairs, &mut self.weights)?;
        }
        backend.uniform_marginal(&pairs.vision, &mut self.row)?;
        if options.mass_reweighting {
            backend.column_marginal(&self.weights, pairs, &mut self.column)?;
        } else {
            backend.uniform_marginal(&pairs.text, &mut self.column)?;
        }
        let modulation = (options.lambda_global != 0.0).then_some(&self.weights);
        backend.guide_cost(
            &self.cost,
            pairs,
            admissible,
            options.mask_penalty,
            modulation,
            options.lambda_global,
            &mut self.guided,
        )?;
        backend.sinkhorn(&self.guided, pairs, &self.row, &self.column, options.sinkhorn, &mut self.plan)
    }

    /// From gradients of C̃ (`d_guided`, changed in place) and, when the plan is unrolled, of Π (`d_plan`) back to the
    /// values of the shared codes (`d_vision +=`, `d_text +=`).
    pub fn backward(
        &mut self,
        backend: &B,
        vision: &Codes<B>,
        text: &Codes<B>,
        pairs: &Pairs,
        options: &TransportOptions,
        d_plan: Option<&B::Buffer<B::Real>>,
        d_guided: &mut B::Buffer<B::Real>,
        d_vision: &mut B::Buffer<B::Real>,
        d_text: &mut B::Buffer<B::Real>,
    ) -> Result<(), KernelError> {
        let columns = pairs.text.total();
        backend.clear(&mut self.d_weights, columns)?;
        if let Some(d_plan) = d_plan {
            backend.clear(&mut self.d_column, columns)?;
            backend.sinkhorn_backward(
                &self.guided,
                pairs,
                &self.row,
                &self.column,
                options.sinkhorn,
                &self.plan,
                d_plan,
                d_guided,
                &mut self.d_column,
            )?;
            if options.mass_reweighting {
                backend.column_marginal_backward(&self.weights, pairs, &self.d_column, &mut self.d_weights)?;
            }
        }
        if options.lambda_global != 0.0 {
            backend.guide_cost_backward(d_guided, pairs, options.lambda_global, &mut self.d_weights)?;
        }
        if options.uses_weights() {
            backend.mass_weights_backward(vision, text, pairs, &self.d_weights, d_vision, d_text)?;
        }
        backend.cosine_cost_backward(vision, text, pairs, &self.cost, d_guided, d_vision, d_text)
    }

    fn reserve(&mut self, backend: &B, pairs: &Pairs) -> Result<(), KernelError> {
        let (cells, rows, columns) = (pairs.cells.total(), pairs.vision.total(), pairs.text.total());
        backend.reserve(&mut self.cost, cells)?;
        backend.reserve(&mut self.guided, cells)?;
        backend.reserve(&mut self.weights, columns)?;
        backend.reserve(&mut self.row, rows)?;
        backend.reserve(&mut self.column, columns)?;
        backend.reserve(&mut self.d_weights, columns)?;
        backend.reserve(&mut self.d_column, columns)?;
        self.plan.reserve(backend, pairs)
    }
}
