//! The training step: every loss of the paper and its gradient, written once over [`Backend`].
//!
//! Read it beside spec 2 to 4: [`Step::run`] is the order of things, and one function each is L_self and AuxK ([`own`]), the plan,
//! L_cross with L_align, and L_ot ([`cross`]). Losses are gathered as plain sums of squares in f64 slots on the device and turned into
//! the named losses at the end; gradients are scaled where they start, so that a token weighs the same however the batch is
//! split into micro-batches.
//!
//! Readings (spec 3 and 4 leave them open; the fixtures in `tests/fixtures` agree with them):
//! - `planGradient: 'stop'`: Π and the column marginal are constants. L_ot's gradient then runs through C̃ only: the
//!   cosines, and the weights w_j in `lambdaGlobal · (1 − w_j)`.
//! - `'unrolled'`: L_cross and L_ot also run through Π: every Sinkhorn round, the cost, and the column marginal with its
//!   δ = 1e-6 · mean(w).
//! - L_align's prediction is the mean of the same decoded codes that L_cross averages by the plan.

mod codes;
mod cross;
mod own;

use lucid_kernels::{Backend, CodeShape, Codes, KernelError, Modality, Pairs, Ragged, Transport};

pub use crate::batch::StepInputs;
use crate::batch::{MicroBatch, Sides};
use crate::config::{Activation, Config};
use crate::jump::Jump;
pub use crate::kernel_options::{code_shape, transport_options};
use crate::losses::{PlanReport, Scales, StepReport, StepSums, Totals, slot};
use crate::method::Terms;
use crate::nested::Nested;
use crate::params::Params;
use own::DeadBlock;

const fn segments(pairs: &Pairs, modality: Modality) -> &Ragged {
    match modality {
        Modality::Vision => &pairs.vision,
        Modality::Text => &pairs.text,
    }
}

/// The micro-batch being worked on, and what does not change within a step.
struct Micro<'a, B: Backend> {
    backend: &'a B,
    params: &'a Params<B>,
    config: &'a Config,
    batch: &'a MicroBatch<B>,
    /// Position in the batch, and in [`Step::codes`].
    index: usize,
    /// Pairs of the micro-batches before.
    first_pair: usize,
    terms: Terms,
}

/// The training step of one model: gradients, and buffers that live from step to step.
pub struct Step<B: Backend> {
    /// Gradients of the last run.
    pub gradients: Params<B>,
    shape: CodeShape,
    /// Codes of every micro-batch of the step.
    codes: Vec<Sides<Codes<B>>>,
    /// Gradients of the code values of one micro-batch \[n · k\].
    d_values: Sides<B::Buffer<B::Real>>,
    transport: Option<Transport<B>>,
    /// ĥ \[n · d\], then the gradient of its loss.
    prediction: B::Buffer<B::Real>,
    /// D_target(z_s of the source) \[n_source · d_target\].
    decoded: B::Buffer<B::Real>,
    d_decoded: B::Buffer<B::Real>,
    pooled: B::Buffer<B::Real>,
    pooled_target: B::Buffer<B::Real>,
    d_plan: B::Buffer<B::Real>,
    d_guided: B::Buffer<B::Real>,
    /// e = h − ĥ, detached, for AuxK.
    error: B::Buffer<B::Real>,
    aux_codes: Codes<B>,
    d_aux: B::Buffer<B::Real>,
    /// The mean states of pairs, for methods that see those in place of the tokens.
    means: Vec<MicroBatch<B>>,
    nested: Nested<B>,
    jump: Jump<B>,
    fired: Sides<B::Buffer<u32>>,
    sums: B::Buffer<f64>,
}

impl<B: Backend> Step<B> {
    /// Room for the gradients of `params`; the other buffers grow with the first batch.
    pub fn new(backend: &B, params: &Params<B>, config: &Config) -> Result<Self, KernelError> {
        let shape = code_shape(config);
        if shape.latents() != params.vision.latents || shape.latents() != params.text.latents {
            return Err(KernelError::shape("latents of the parameters", params.vision.latents, shape.latents()));
        }
        let empty = || backend.zeros(0);
        Ok(Self {
            gradients: params.zeros_like(backend)?,
            shape,
            codes: Vec::new(),
            d_values: Sides { vision: empty()?, text: empty()? },
            transport: None,
            prediction: empty()?,
            decoded: empty()?,
            d_decoded: empty()?,
            pooled: empty()?,
            pooled_target: empty()?,
            d_plan: empty()?,
            d_guided: empty()?,
            error: empty()?,
            aux_codes: Codes::with_slots(backend, 0, 0, shape)?,
            d_aux: empty()?,
            means: Vec::new(),
            nested: Nested::new(backend)?,
            jump: Jump::new(backend)?,
            fired: Sides { vision: backend.zeros(shape.latents())?, text: backend.zeros(shape.latents())? },
            sums: backend.zeros(slot::COUNT)?,
        })
    }

    /// Gives back what grew with the micro-batches; the gradients stay.
    pub fn release(&mut self, backend: &B) -> Result<(), KernelError> {
        let empty = || backend.zeros(0);
        self.codes.clear();
        self.means.clear();
        self.transport = None;
        (self.d_values.vision, self.d_values.text) = (empty()?, empty()?);
        (self.prediction, self.decoded, self.d_decoded) = (empty()?, empty()?, empty()?);
        (self.pooled, self.pooled_target, self.error) = (empty()?, empty()?, empty()?);
        (self.d_plan, self.d_guided, self.d_aux) = (empty()?, empty()?, empty()?);
        self.aux_codes = Codes::with_slots(backend, 0, 0, self.shape)?;
        Ok(())
    }

    /// Losses of a batch, and their gradients in [`Step::gradients`].
    ///
    /// The split into micro-batches changes the order of summation only. Errors name pairs by their index in the batch.
    /// Nothing waits for the device before the sums of the whole step are read.
    pub fn run(
        &mut self,
        backend: &B,
        params: &Params<B>,
        batch: &[MicroBatch<B>],
        inputs: &StepInputs<'_>,
    ) -> Result<StepReport<B::Real>, KernelError> {
        let result = match inputs.config.method.pooled() {
            false => self.attempt(backend, params, batch, inputs),
            true => {
                let means = std::mem::take(&mut self.means);
                self.attempt_on_means(backend, params, batch, inputs, means)
            }
        };
        if result.is_err() {
            // What the device has still to report belongs to this step and not to the next; this error came first.
            let _ = backend.finish();
        }
        result
    }

    /// The step on the mean states of pairs: every pair has one patch and one token then.
    fn attempt_on_means(
        &mut self,
        backend: &B,
        params: &Params<B>,
        batch: &[MicroBatch<B>],
        inputs: &StepInputs<'_>,
        mut means: Vec<MicroBatch<B>>,
    ) -> Result<StepReport<B::Real>, KernelError> {
        while means.len() < batch.len() {
            means.push(MicroBatch::empty(backend)?);
        }
        for (micro, mean) in batch.iter().zip(&mut means) {
            let one = vec![1; micro.pairs.len()];
            mean.pairs = Pairs::new(&one, &one)?;
            for m in Modality::ALL {
                let d = params.of(m).d;
                backend.reserve(mean.acts.of_mut(m), one.len() * d)?;
                backend.segment_mean(micro.acts.of(m), segments(&micro.pairs, m), d, mean.acts.of_mut(m))?;
            }
        }
        let result = self.attempt(backend, params, &means[..batch.len()], inputs);
        self.means = means;
        result
    }

    fn attempt(
        &mut self,
        backend: &B,
        params: &Params<B>,
        batch: &[MicroBatch<B>],
        inputs: &StepInputs<'_>,
    ) -> Result<StepReport<B::Real>, KernelError> {
        let config = inputs.config;
        let tokens = |m| batch.iter().map(|micro| micro.tokens(m)).sum();
        let totals = Totals {
            variance: inputs.variance,
            pooled_variance: inputs.pooled_variance,
            tokens: Sides { vision: tokens(Modality::Vision), text: tokens(Modality::Text) },
            pairs: batch.iter().map(|micro| micro.pairs.len()).sum(),
        };
        let scales = Scales::new(config, &totals)?;
        let terms = config.method.terms(inputs.encoder);
        let dead = self.dead_blocks(backend, params, inputs)?;
        let mut plans = inputs.keep_plan.then(PlanReport::default);

        self.gradients.clear(backend)?;
        backend.clear(&mut self.sums, slot::COUNT)?;
        backend.clear(&mut self.fired.vision, self.shape.latents())?;
        backend.clear(&mut self.fired.text, self.shape.latents())?;

        self.encode(backend, params, config, batch)?;
        for m in Modality::ALL {
            if !dead.of(m).is_empty() {
                self.residual_energy(backend, params, batch, m)?;
            }
        }
        let mut first_pair = 0;
        for (index, batch) in batch.iter().enumerate() {
            let micro = Micro { backend, params, config, batch, index, first_pair, terms };
            self.clear_gradients_of_codes(&micro)?;
            let crosses = terms.cross != Sides::default();
            if crosses {
                self.solve_transport(&micro)?;
            }
            for m in Modality::ALL {
                let dead = dead.of(m);
                let scale = config.alpha * terms.own.of(m) * scales.token.of(m);
                self.self_reconstruction(&micro, m, scale, !dead.is_empty())?;
                self.aux_k(&micro, m, dead)?;
                let factors = (config.gamma * scales.token.of(m), config.beta * scales.align.of(m));
                self.cross_and_align(&micro, m, factors)?;
            }
            if terms.plan > 0.0 {
                self.transport_loss(&micro, config.w_ot * scales.pair)?;
            }
            self.encoder_gradients(&micro)?;
            if let (Some(report), Some(transport), true) = (&mut plans, &self.transport, crosses) {
                report.append(backend, &batch.pairs, transport, &transport_options(config))?;
            }
            first_pair += batch.pairs.len();
        }
        for m in Modality::ALL {
            backend.pre_bias_backward(params.of(m), self.gradients.of_mut(m))?;
        }
        if config.activation == Activation::JumpRelu {
            self.jump.finish(backend, &mut self.gradients)?;
        }
        self.report(backend, config, (&scales, &terms), &dead, &totals, plans)
    }

    /// Reads the sums of the step once and names them.
    fn report(
        &self,
        backend: &B,
        config: &Config,
        (scales, terms): (&Scales, &Terms),
        dead: &Sides<Vec<DeadBlock<B>>>,
        totals: &Totals,
        plan: Option<PlanReport<B::Real>>,
    ) -> Result<StepReport<B::Real>, KernelError> {
        backend.finish()?;
        let sums = backend.read_vec(&self.sums, slot::COUNT)?;
        let mut aux = 0.0;
        let sparsity = match config.activation {
            Activation::JumpRelu => self.jump.sparsity(config),
            _ => 0.0,
        };
        for m in Modality::ALL {
            let energy = sums[slot::ENERGY + slot::side(m)];
            for DeadBlock { block, weight, .. } in dead.of(m).iter().filter(|_| energy != 0.0) {
                aux += weight * sums[slot::AUX + 2 * slot::side(m) + block] / energy;
            }
        }
        let pair = |first| Sides { vision: sums[first], text: sums[first + 1] };
        let latents = self.shape.latents();
        Ok(StepReport {
            losses: scales.losses(config, terms, &sums, (aux, sparsity)),
            sums: StepSums {
                self_residual: pair(slot::SELF),
                cross_residual: pair(slot::CROSS),
                tokens: totals.tokens,
                pairs: totals.pairs,
            },
            fired: Sides {
                vision: backend.read_vec(&self.fired.vision, latents)?,
                text: backend.read_vec(&self.fired.text, latents)?,
            },
            plan,
        })
    }
}
