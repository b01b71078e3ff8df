//! The contract every backend fulfils: the operations the training step is written in.
//!
//! Conventions of all operations:
//!
//! - Arrays are row-major. `n` is a number of tokens, `d` a width, `K` a number of latents, `k` slots of a code.
//! - A buffer may be longer than its array; the array is its prefix. Callers keep buffers between micro-batches and
//!   grow them with [`Device::reserve`]. An output not marked "+=" is overwritten without being read.
//! - "+=" means that the result is added to what the buffer holds.
//! - `sums` is a buffer of f64 slots that gathers losses and energies over a step and is read once at its end.
//! - Operands of products and of gathered sums are rounded as [`Precision`] says, once each; sums are not.
//! - An operation's result depends on its arguments only: not on the number of threads, nor on earlier calls.
//! - Shapes are checked where arrays enter ([`Pairs::new`](crate::Pairs::new), [`Codes::upload`], …). Inside, too short
//!   a buffer is a bug of the caller and may panic; it is never undefined behaviour.

use crate::codes::{Block, Codes, Dictionary};
use crate::device::Device;
use crate::error::KernelError;
use crate::precision::Precision;
use crate::ragged::{Pairs, Ragged};
use crate::transport::{Plan, SinkhornOptions, Transport, TransportOptions};

/// Which side of a plan is the target of a barycentre (spec 4: "T→V" = source → target).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Text tokens explain patches: rows of the plan are normalised (P).
    T2V,
    /// Patches explain text tokens: columns of the plan are normalised (Q).
    V2T,
}

impl Direction {
    /// The segments of the source.
    #[must_use]
    pub const fn source(self, pairs: &Pairs) -> &Ragged {
        match self {
            Self::T2V => &pairs.text,
            Self::V2T => &pairs.vision,
        }
    }

    /// The segments of the target.
    #[must_use]
    pub const fn target(self, pairs: &Pairs) -> &Ragged {
        match self {
            Self::T2V => &pairs.vision,
            Self::V2T => &pairs.text,
        }
    }
}

/// A factor that may depend on a sum of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Factor {
    /// Known on the host.
    Constant(f64),
    /// `numerator / sums[slot]`, or 0 where that sum is 0.
    Over {
        /// Numerator.
        numerator: f64,
        /// Slot of the finished sum.
        slot: usize,
    },
}

/// Constants of one AdamW update (spec 5.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step, lr_t.
    pub lr: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// Added after the square root of the bias-corrected second moment.
    pub eps: f64,
    /// Decay of this array: `p ← p·(1 − lr·weight_decay)` before the update; 0 for biases.
    pub weight_decay: f64,
    /// Multiplies the gradient: the clipping factor.
    pub gradient_scale: f64,
    /// Updates made including this one: 1 in the first step.
    pub count: u64,
}

/// The kernels of one device.
pub trait Backend: Device {
    /// The same device and threads, with operands in `precision`. Buffers of one serve the other.
    fn with_precision(&self, precision: Precision) -> Result<Self, KernelError>;

    // ---- encode (spec 2) --------------------------------------------------------------------------------------

    /// Codes of `codes.n` tokens: `a = W_encᵀ (h − b_dec) + b_enc`, Top-k of the positive entries as `codes.shape`
    /// says, ties to the lower index. A NaN pre-activation is never selected.
    ///
    /// `acts` \[n · d\]; `codes` has room for n tokens of `shape.k()` slots and is overwritten, in the order documented
    /// at [`Codes`].
    fn encode_topk(
        &self,
        acts: &Self::Buffer<Self::Real>,
        dictionary: &Dictionary<Self>,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError>;

    /// AuxK's encoder (spec 4.2): Top-`codes.k` of `ReLU(a)` restricted to the latents in `list[0..count]` (ascending).
    /// Slots by falling value, ties to the lower index, unused last.
    fn encode_listed(
        &self,
        acts: &Self::Buffer<Self::Real>,
        dictionary: &Dictionary<Self>,
        list: &Self::Buffer<u32>,
        count: usize,
        codes: &mut Codes<Self>,
    ) -> Result<(), KernelError>;

    /// Backward of both encoders without the path through `b_dec`: with da = `d_values` at used slots (selection has
    /// no gradient of its own),
    /// `d_w_enc_t[k] += Σ da_k (h − b_dec)`, `d_b_enc[k] += Σ da_k`.
    fn encode_backward(
        &self,
        codes: &Codes<Self>,
        d_values: &Self::Buffer<Self::Real>,
        acts: &Self::Buffer<Self::Real>,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError>;

    /// The path through `b_dec`, once a step: since every da is gathered in `gradients.b_enc`,
    /// `d_b_dec += −W_enc · gradients.b_enc`. The gradient of b_enc must have been zero at the start of the step.
    fn pre_bias_backward(
        &self,
        dictionary: &Dictionary<Self>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError>;

    /// `fired[k] +=` tokens whose code holds latent k; `fired` \[K\].
    fn count_fired(&self, codes: &Codes<Self>, fired: &mut Self::Buffer<u32>) -> Result<(), KernelError>;

    // ---- decode (spec 2) --------------------------------------------------------------------------------------

    /// `out = W_decᵀ z_block (+ b_dec if bias)`, `out` \[n · d\]. The codes may be of the other modality than the
    /// dictionary (cross reconstruction).
    fn decode(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::decode`] with `grad` \[n · d\]: at the slots of the block
    /// `d_values += ⟨grad, W_dec[k]⟩`, `d_w_dec[k] += z_k grad`, and if bias `d_b_dec += Σ grad`.
    fn decode_backward(
        &self,
        codes: &Codes<Self>,
        block: Block,
        dictionary: &Dictionary<Self>,
        bias: bool,
        grad: &Self::Buffer<Self::Real>,
        d_values: &mut Self::Buffer<Self::Real>,
        gradients: &mut Dictionary<Self>,
    ) -> Result<(), KernelError>;

    // ---- transport (spec 3) -----------------------------------------------------------------------------------

    /// `cost_ij = 1 − cos(z_s,i^v, z_s,j^t)` \[cells\]; the cosine with an all-zero shared code is 0.
    fn cosine_cost(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::cosine_cost`] at the used shared slots: `d_vision +=`, `d_text +=` (\[n · k\]). `cost` is
    /// the forward result. An all-zero code gets no gradient.
    fn cosine_cost_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        cost: &Self::Buffer<Self::Real>,
        d_cost: &Self::Buffer<Self::Real>,
        d_vision: &mut Self::Buffer<Self::Real>,
        d_text: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Text weights `w_j = max(0, cos(g, z_s,j^t))`, `g = mean_i z_s,i^v` of the pair; `weights` \[N_t\].
    fn mass_weights(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        weights: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::mass_weights`] at the used shared slots: `d_vision +=`, `d_text +=` (\[n · k\]).
    fn mass_weights_backward(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        d_weights: &Self::Buffer<Self::Real>,
        d_vision: &mut Self::Buffer<Self::Real>,
        d_text: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// `out = 1 / length` for every token of every segment: the uniform marginal.
    fn uniform_marginal(&self, segments: &Ragged, out: &mut Self::Buffer<Self::Real>) -> Result<(), KernelError>;

    /// `c = (w + δ) / Σ (w + δ)`, δ = 1e-6 · mean(w) of the pair, uniform where all w are zero; `column` \[N_t\].
    fn column_marginal(
        &self,
        weights: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        column: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::column_marginal`]: `d_weights +=` (0 where all w of the pair are zero).
    fn column_marginal_backward(
        &self,
        weights: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        d_column: &Self::Buffer<Self::Real>,
        d_weights: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Guided cost `C̃_ij = C_ij + mask_penalty · (1 − M_ij) + lambda · (1 − w_j)` \[cells\]. Without `admissible` M = 1,
    /// without `weights` the last term is absent. An infinite penalty makes C̃ infinite where M < 1, which excludes the
    /// entry exactly.
    fn guide_cost(
        &self,
        cost: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        admissible: Option<&Self::Buffer<Self::Real>>,
        mask_penalty: f64,
        weights: Option<&Self::Buffer<Self::Real>>,
        lambda: f64,
        guided: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::guide_cost`] to the weights: `d_weights_j += −lambda Σ_i d_guided_ij`. (To C it is the
    /// identity.)
    fn guide_cost_backward(
        &self,
        d_guided: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        lambda: f64,
        d_weights: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Entropic plan of every pair: `K = exp(−cost/ε)`, v = 1, then `u = row ⊘ K v`, `v = column ⊘ Kᵀ u` for
    /// `iterations` rounds, or until the row-marginal error (L1) after a round is below `tolerance` (> 0).
    /// An infinite cost is an excluded entry; a row or column whose K vanishes is [`KernelError::EmptyMask`], counted from
    /// `plan.first_pair`, now or at [`Device::finish`]; the plan of such a pair is unspecified.
    ///
    /// `cost` \[cells\], `row` \[N_v\], `column` \[N_t\]; `plan` has room ([`Plan::reserve`]) and is overwritten with its
    /// diagnostics.
    fn sinkhorn(
        &self,
        cost: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        row: &Self::Buffer<Self::Real>,
        column: &Self::Buffer<Self::Real>,
        options: SinkhornOptions,
        plan: &mut Plan<Self>,
    ) -> Result<(), KernelError>;

    /// Backward through every iteration actually made: from `d_plan` \[cells\], `d_cost +=` \[cells\] (0 at excluded
    /// entries) and `d_column +=` \[N_t\]. The row marginal is a constant.
    fn sinkhorn_backward(
        &self,
        cost: &Self::Buffer<Self::Real>,
        pairs: &Pairs,
        row: &Self::Buffer<Self::Real>,
        column: &Self::Buffer<Self::Real>,
        options: SinkhornOptions,
        plan: &Plan<Self>,
        d_plan: &Self::Buffer<Self::Real>,
        d_cost: &mut Self::Buffer<Self::Real>,
        d_column: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Guided matching of pairs (spec 3): cost, weights, marginals, guided cost and plan of `transport`, which has room. What the
    /// operations above do one after the other, and errors as [`Backend::sinkhorn`].
    fn gcmt(
        &self,
        vision: &Codes<Self>,
        text: &Codes<Self>,
        pairs: &Pairs,
        admissible: Option<&Self::Buffer<Self::Real>>,
        options: &TransportOptions,
        transport: &mut Transport<Self>,
    ) -> Result<(), KernelError> {
        transport.by_operations(self, vision, text, pairs, admissible, options)
    }

    /// `sums[slot] += Σ cost_ij Π_ij` over all pairs, excluded entries counting 0 (the `ot` loss, spec 4).
    fn transport_cost(
        &self,
        cost: &Self::Buffer<Self::Real>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        sums: &mut Self::Buffer<f64>,
        slot: usize,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::transport_cost`] times `scale`: `d_cost += scale · Π`, and if given
    /// `d_plan += scale · cost` (0 at excluded entries).
    fn transport_cost_backward(
        &self,
        cost: &Self::Buffer<Self::Real>,
        plan: &Plan<Self>,
        pairs: &Pairs,
        scale: f64,
        d_cost: &mut Self::Buffer<Self::Real>,
        d_plan: Option<&mut Self::Buffer<Self::Real>>,
    ) -> Result<(), KernelError>;

    // ---- barycentre (spec 4) ----------------------------------------------------------------------------------

    /// `out_i = Σ_j P_ij y_j` (T→V, rows of the plan divided by their sum) or `out_j = Σ_i Q_ij y_i` (V→T, columns).
    /// `y` \[N_source · d\], `out` \[N_target · d\]. A target without mass gets 0.
    fn barycenter(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Self::Buffer<Self::Real>,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::barycenter`] with `grad` \[N_target · d\]: `d_y` \[N_source · d\] is overwritten, and if
    /// given `d_plan +=` \[cells\] through the normalisation:
    /// `dΠ_ij = (⟨grad_i, y_j⟩ − Σ_j' P_ij' ⟨grad_i, y_j'⟩) / Σ_j' Π_ij'` (columns likewise).
    fn barycenter_backward(
        &self,
        plan: &Plan<Self>,
        pairs: &Pairs,
        direction: Direction,
        d: usize,
        y: &Self::Buffer<Self::Real>,
        grad: &Self::Buffer<Self::Real>,
        d_y: &mut Self::Buffer<Self::Real>,
        d_plan: Option<&mut Self::Buffer<Self::Real>>,
    ) -> Result<(), KernelError>;

    // ---- losses (spec 4.1) ------------------------------------------------------------------------------------

    /// `sums[slot] += Σ (prediction − target)²` over `len` values, and `prediction ← factor · (prediction − target)`:
    /// the gradient of `factor/2 · Σ(…)²`. The sum is taken in f64.
    fn residual(
        &self,
        prediction: &mut Self::Buffer<Self::Real>,
        target: &Self::Buffer<Self::Real>,
        len: usize,
        factor: Factor,
        sums: &mut Self::Buffer<f64>,
        slot: usize,
    ) -> Result<(), KernelError>;

    /// `out = a − b` over `len` values.
    fn difference(
        &self,
        a: &Self::Buffer<Self::Real>,
        b: &Self::Buffer<Self::Real>,
        len: usize,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Mean of every segment's rows: `values` \[total · d\] → `out` \[segments · d\].
    fn segment_mean(
        &self,
        values: &Self::Buffer<Self::Real>,
        segments: &Ragged,
        d: usize,
        out: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// Backward of [`Backend::segment_mean`]: every row of segment s gets `+= grad_s / length_s`.
    fn segment_mean_backward(
        &self,
        grad: &Self::Buffer<Self::Real>,
        segments: &Ragged,
        d: usize,
        d_values: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    // ---- optimiser (spec 5.1) ---------------------------------------------------------------------------------

    /// `sums[slot] += Σ x²` over `len` values, in f64.
    fn sum_squares(
        &self,
        values: &Self::Buffer<Self::Real>,
        len: usize,
        sums: &mut Self::Buffer<f64>,
        slot: usize,
    ) -> Result<(), KernelError>;

    /// Removes from every row of `gradient` \[rows · d\] the part parallel to the same row of `weights`:
    /// `g ← g − (⟨g, w⟩ / ⟨w, w⟩) w`; a zero row of weights changes nothing.
    fn project_rows(
        &self,
        weights: &Self::Buffer<Self::Real>,
        rows: usize,
        d: usize,
        gradient: &mut Self::Buffer<Self::Real>,
    ) -> Result<(), KernelError>;

    /// One AdamW update of `len` values as PyTorch defines it, with moments `first` and `second`.
    fn adamw(
        &self,
        parameter: &mut Self::Buffer<Self::Real>,
        gradient: &Self::Buffer<Self::Real>,
        first: &mut Self::Buffer<Self::Real>,
        second: &mut Self::Buffer<Self::Real>,
        len: usize,
        constants: AdamW,
    ) -> Result<(), KernelError>;

    /// Divides every row of `weights` \[rows · d\] by its norm; a zero row stays.
    fn normalise_rows(&self, weights: &mut Self::Buffer<Self::Real>, rows: usize, d: usize) -> Result<(), KernelError>;
}
