//! The training step: every loss of the paper and its gradient, written once over [`Backend`].
//!
//! Read it beside spec 2 to 4: [`Step::run`] is the order of things, and one function each is L_self, AuxK, L_cross with
//! L_align, and L_ot. Losses are gathered as plain sums of squares in f64 slots on the device and turned into the
//! named losses at the end; gradients are scaled where they start, so that a token weighs the same however the batch is
//! split into micro-batches.
//!
//! Readings (spec 3 and 4 leave them open; the fixtures in `tests/fixtures` agree with them):
//! - `planGradient: 'stop'`: Π and the column marginal are constants. L_ot's gradient then runs through C̃ only: the
//!   cosines, and the weights w_j in `lambdaGlobal · (1 − w_j)`.
//! - `'unrolled'`: L_cross and L_ot also run through Π: every Sinkhorn round, the cost, and the column marginal with its
//!   δ = 1e-6 · mean(w).
//! - L_align's prediction is the mean of the same decoded codes that L_cross averages by the plan.

use lucid_kernels::{
    Backend, Block, CodeShape, Codes, Direction, Factor, KernelError, Modality, Pairs, Ragged, Transport,
};

pub use crate::batch::StepInputs;
use crate::batch::{MicroBatch, Sides};
use crate::config::{Activation, Config, Method, PlanGradient};
use crate::distance;
use crate::jump::Jump;
pub use crate::kernel_options::{code_shape, transport_options};
use crate::losses::{PlanReport, Scales, StepReport, StepSums, Totals, slot};
use crate::method::Terms;
use crate::nested::Nested;
use crate::params::Params;
use crate::selection;

const fn other(modality: Modality) -> Modality {
    match modality {
        Modality::Vision => Modality::Text,
        Modality::Text => Modality::Vision,
    }
}

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

/// AuxK on one block of one modality (spec 4.2).
struct DeadBlock<B: Backend> {
    /// 0 = shared, 1 = private.
    block: usize,
    /// D, ascending.
    list: B::Buffer<u32>,
    /// |D|.
    count: usize,
    /// min(kAux, |D|).
    k: usize,
    /// min(1, |D| / kAux).
    weight: f64,
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
            if config.method == Method::PooledConcat {
                self.join_gradients(&micro)?;
            }
            if config.method == Method::VlSae {
                distance::backward(backend, params, batch, &self.codes[index], &self.d_values, &mut self.gradients)?;
            } else {
                for m in Modality::ALL {
                    let (codes, acts) = (self.codes[index].of(m), batch.acts.of(m));
                    let gradients = self.gradients.of_mut(m);
                    backend.encode_backward(codes, self.d_values.of(m), acts, params.of(m), gradients)?;
                }
            }
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

    /// Codes of every micro-batch (spec 2).
    fn encode(
        &mut self,
        backend: &B,
        params: &Params<B>,
        config: &Config,
        batch: &[MicroBatch<B>],
    ) -> Result<(), KernelError> {
        while self.codes.len() < batch.len() {
            let empty = || Codes::with_slots(backend, 0, 0, self.shape);
            self.codes.push(Sides { vision: empty()?, text: empty()? });
        }
        let codes = &mut self.codes[..batch.len()];
        if matches!(config.method, Method::Sparc | Method::PooledConcat) {
            selection::common(backend, config, params, batch, codes)?;
        } else if config.method == Method::VlSae {
            distance::encode(backend, config, params, batch, codes)?;
        } else if config.activation == Activation::JumpRelu {
            self.jump.encode(backend, config, params, batch, codes, self.shape)?;
        } else {
            let shape = match config.activation {
                Activation::BatchTopk => selection::wide_shape(config),
                _ => self.shape,
            };
            for (micro, codes) in batch.iter().zip(&mut *codes) {
                for m in Modality::ALL {
                    let codes = codes.of_mut(m);
                    codes.shape = shape;
                    codes.reserve(backend, micro.tokens(m), shape.k())?;
                    backend.encode_topk(micro.acts.of(m), params.of(m), codes)?;
                }
            }
            if config.activation == Activation::BatchTopk {
                for m in Modality::ALL {
                    let mut all: Vec<&mut Codes<B>> = codes.iter_mut().map(|codes| codes.of_mut(m)).collect();
                    selection::batch_topk(backend, config.k(), &mut all, self.shape)?;
                }
            }
        }
        for codes in codes {
            for m in Modality::ALL {
                backend.count_fired(codes.of(m), self.fired.of_mut(m))?;
            }
        }
        Ok(())
    }

    /// Makes room for the gradients that gather in code values, C̃ and Π, and sets them to zero.
    fn clear_gradients_of_codes(&mut self, micro: &Micro<'_, B>) -> Result<(), KernelError> {
        let Micro { backend, batch, index, .. } = *micro;
        for m in Modality::ALL {
            let slots = batch.tokens(m) * self.codes[index].of(m).k;
            backend.reserve(self.d_values.of_mut(m), slots)?;
            backend.clear(self.d_values.of_mut(m), slots)?;
        }
        for buffer in [&mut self.d_plan, &mut self.d_guided] {
            backend.reserve(buffer, batch.pairs.cells.total())?;
            backend.clear(buffer, batch.pairs.cells.total())?;
        }
        Ok(())
    }

    /// Π of a micro-batch (spec 3).
    fn solve_transport(&mut self, micro: &Micro<'_, B>) -> Result<(), KernelError> {
        let Micro { backend, config, batch, index, first_pair, .. } = *micro;
        let transport = match &mut self.transport {
            Some(transport) => transport,
            none => none.insert(Transport::new(backend, &batch.pairs)?),
        };
        let codes = &self.codes[index];
        let options = transport_options(config);
        transport.plan.first_pair = first_pair;
        transport.begin(backend, &codes.vision, &codes.text, &batch.pairs, batch.admissible.as_ref(), &options)
    }

    /// L_self: ‖h − ĥ‖², full code. Keeps e = h − ĥ in `error` where AuxK needs it.
    fn self_reconstruction(
        &mut self,
        micro: &Micro<'_, B>,
        m: Modality,
        scale: f64,
        keep_error: bool,
    ) -> Result<(), KernelError> {
        let Micro { backend, params, config, batch, index, .. } = *micro;
        let (codes, acts, dictionary) = (self.codes[index].of(m), batch.acts.of(m), params.of(m));
        let len = codes.n * dictionary.d;
        backend.reserve(&mut self.prediction, len)?;
        backend.decode(codes, Block::Joint, dictionary, true, &mut self.prediction)?;
        if keep_error {
            backend.reserve(&mut self.error, len)?;
            backend.difference(acts, &self.prediction, len, &mut self.error)?;
        }
        // Of nested dictionaries the whole is one of several.
        let scale = scale / config.nested.max(1) as f64;
        let (factor, slot) = (Factor::Constant(2.0 * scale), slot::SELF + slot::side(m));
        backend.residual(&mut self.prediction, acts, len, factor, &mut self.sums, slot)?;
        let (d_values, gradients) = (self.d_values.of_mut(m), self.gradients.of_mut(m));
        backend.decode_backward(codes, Block::Joint, dictionary, true, &self.prediction, d_values, gradients)?;
        if config.nested > 1 {
            let slot = slot::NESTED + slot::side(m);
            let target = (acts, scale, slot);
            let (prediction, sums) = (&mut self.prediction, &mut self.sums);
            let (d_values, gradients) = (self.d_values.of_mut(m), self.gradients.of_mut(m));
            let widths = config.prefixes();
            self.nested.add(backend, codes, dictionary, &widths, target, prediction, sums, d_values, gradients)?;
        }
        if config.activation == Activation::JumpRelu {
            let (grad, d_values, gradients) = (&self.prediction, self.d_values.of(m), self.gradients.of_mut(m));
            self.jump.learn(backend, config, (index, m), codes, dictionary, grad, d_values, gradients)?;
        }
        Ok(())
    }

    /// The concatenation has one code for both modalities: what either decoder asks of it, both encoders learn.
    fn join_gradients(&mut self, micro: &Micro<'_, B>) -> Result<(), KernelError> {
        let Micro { backend, batch, index, .. } = *micro;
        let slots = batch.pairs.len() * self.codes[index].vision.k;
        let mut sum = backend.read_vec(&self.d_values.vision, slots)?;
        let text = backend.read_vec(&self.d_values.text, slots)?;
        sum.iter_mut().zip(text).for_each(|(sum, value)| *sum += value);
        backend.write(&mut self.d_values.vision, 0, &sum)?;
        backend.write(&mut self.d_values.text, 0, &sum)
    }

    /// L_cross and L_align of target `m`: codes of the other modality, decoded by m's decoder, averaged by the plan
    /// against m's tokens (scale `factors.0`) and evenly against m's mean token (`factors.1`).
    fn cross_and_align(&mut self, micro: &Micro<'_, B>, m: Modality, factors: (f64, f64)) -> Result<(), KernelError> {
        let Micro { backend, params, config, batch, index, terms, .. } = *micro;
        let Some(transport) = self.transport.as_ref().filter(|_| *terms.cross.of(m) > 0.0) else { return Ok(()) };
        let (pairs, plan, source) = (&batch.pairs, &transport.plan, other(m));
        let direction = match m {
            Modality::Vision => Direction::T2V,
            Modality::Text => Direction::V2T,
        };
        let (codes, acts, dictionary) = (self.codes[index].of(source), batch.acts.of(m), params.of(m));
        let d = dictionary.d;
        for buffer in [&mut self.decoded, &mut self.d_decoded] {
            backend.reserve(buffer, codes.n * d)?;
        }
        backend.decode(codes, Block::Shared, dictionary, true, &mut self.decoded)?;

        // L_cross
        let len = batch.tokens(m) * d;
        backend.reserve(&mut self.prediction, len)?;
        backend.barycenter(plan, pairs, direction, d, &self.decoded, &mut self.prediction)?;
        let (factor, slot) = (Factor::Constant(2.0 * factors.0), slot::CROSS + slot::side(m));
        backend.residual(&mut self.prediction, acts, len, factor, &mut self.sums, slot)?;
        let unrolled = config.plan_gradient == PlanGradient::Unrolled;
        let d_plan = unrolled.then_some(&mut self.d_plan);
        let (grad, d_y) = (&self.prediction, &mut self.d_decoded);
        backend.barycenter_backward(plan, pairs, direction, d, &self.decoded, grad, d_y, d_plan)?;

        // L_align
        if terms.plan == 0.0 {
            let (d_values, gradients) = (self.d_values.of_mut(source), self.gradients.of_mut(m));
            return backend.decode_backward(
                codes,
                Block::Shared,
                dictionary,
                true,
                &self.d_decoded,
                d_values,
                gradients,
            );
        }
        let len = pairs.len() * d;
        for buffer in [&mut self.pooled, &mut self.pooled_target] {
            backend.reserve(buffer, len)?;
        }
        backend.segment_mean(&self.decoded, segments(pairs, source), d, &mut self.pooled)?;
        backend.segment_mean(acts, segments(pairs, m), d, &mut self.pooled_target)?;
        let (factor, slot) = (Factor::Constant(2.0 * factors.1), slot::ALIGN + slot::side(m));
        backend.residual(&mut self.pooled, &self.pooled_target, len, factor, &mut self.sums, slot)?;
        backend.segment_mean_backward(&self.pooled, segments(pairs, source), d, &mut self.d_decoded)?;

        let (d_values, gradients) = (self.d_values.of_mut(source), self.gradients.of_mut(m));
        backend.decode_backward(codes, Block::Shared, dictionary, true, &self.d_decoded, d_values, gradients)
    }

    /// L_ot = ⟨C̃, Π⟩, and the way of all gradients of C̃ and Π back to the shared codes.
    fn transport_loss(&mut self, micro: &Micro<'_, B>, scale: f64) -> Result<(), KernelError> {
        let Micro { backend, config, batch: MicroBatch { pairs, .. }, index, .. } = *micro;
        let Some(transport) = &mut self.transport else { return Ok(()) };
        let unrolled = config.plan_gradient == PlanGradient::Unrolled;
        backend.transport_cost(&transport.guided, &transport.plan, pairs, &mut self.sums, slot::OT)?;
        if scale > 0.0 {
            let d_plan = unrolled.then_some(&mut self.d_plan);
            let (guided, plan) = (&transport.guided, &transport.plan);
            backend.transport_cost_backward(guided, plan, pairs, scale, &mut self.d_guided, d_plan)?;
        }
        if scale > 0.0 || unrolled {
            let codes = &self.codes[index];
            let d_plan = unrolled.then_some(&self.d_plan);
            let (d_vision, d_text) = (&mut self.d_values.vision, &mut self.d_values.text);
            let options = transport_options(config);
            let (vision, text, d_guided) = (&codes.vision, &codes.text, &mut self.d_guided);
            transport.backward(backend, vision, text, pairs, &options, d_plan, d_guided, d_vision, d_text)?;
        }
        Ok(())
    }

    /// The blocks AuxK works on: none while nothing is dead or the coefficient is 0.
    fn dead_blocks(
        &self,
        backend: &B,
        params: &Params<B>,
        inputs: &StepInputs<'_>,
    ) -> Result<Sides<Vec<DeadBlock<B>>>, KernelError> {
        let config = inputs.config;
        let blocks = |m| {
            let k_aux = if config.k_aux == 0 { (params.of(m).d / 2).max(1) } else { config.k_aux };
            let lists = [&inputs.dead.of(m).shared, &inputs.dead.of(m).private];
            let dead =
                lists.into_iter().enumerate().filter(|(_, list)| config.aux_coefficient > 0.0 && !list.is_empty());
            dead.map(|(block, list)| {
                let weight = (list.len() as f64 / k_aux as f64).min(1.0);
                let (list, count) = (backend.upload(list)?, list.len());
                Ok(DeadBlock { block, list, count, k: k_aux.min(count), weight })
            })
            .collect::<Result<Vec<_>, KernelError>>()
        };
        Ok(Sides { vision: blocks(Modality::Vision)?, text: blocks(Modality::Text)? })
    }

    /// Σ‖e‖² over the batch, which AuxK divides by: needed before the first of its gradients.
    fn residual_energy(
        &mut self,
        backend: &B,
        params: &Params<B>,
        batch: &[MicroBatch<B>],
        m: Modality,
    ) -> Result<(), KernelError> {
        for (micro, codes) in batch.iter().zip(&self.codes) {
            let (codes, acts, dictionary) = (codes.of(m), micro.acts.of(m), params.of(m));
            let len = codes.n * dictionary.d;
            backend.reserve(&mut self.prediction, len)?;
            backend.decode(codes, Block::Joint, dictionary, true, &mut self.prediction)?;
            let (factor, slot) = (Factor::Constant(0.0), slot::ENERGY + slot::side(m));
            backend.residual(&mut self.prediction, acts, len, factor, &mut self.sums, slot)?;
        }
        Ok(())
    }

    /// AuxK: dead latents reconstruct e, which is a constant here (spec 4.2).
    fn aux_k(&mut self, micro: &Micro<'_, B>, m: Modality, dead: &[DeadBlock<B>]) -> Result<(), KernelError> {
        let Micro { backend, params, config, batch, .. } = *micro;
        let (acts, dictionary, n) = (batch.acts.of(m), params.of(m), batch.tokens(m));
        let len = n * dictionary.d;
        for DeadBlock { block, list, count, k, weight } in dead {
            let codes = &mut self.aux_codes;
            codes.reserve(backend, n, *k)?;
            backend.encode_listed(acts, dictionary, list, *count, codes)?;
            backend.decode(codes, Block::Joint, dictionary, false, &mut self.prediction)?;
            let energy = slot::ENERGY + slot::side(m);
            let factor = Factor::Over { numerator: 2.0 * config.aux_coefficient * weight, slot: energy };
            let slot = slot::AUX + 2 * slot::side(m) + block;
            backend.residual(&mut self.prediction, &self.error, len, factor, &mut self.sums, slot)?;
            backend.reserve(&mut self.d_aux, n * k)?;
            backend.clear(&mut self.d_aux, n * k)?;
            let (grad, d_values, gradients) = (&self.prediction, &mut self.d_aux, self.gradients.of_mut(m));
            backend.decode_backward(codes, Block::Joint, dictionary, false, grad, d_values, gradients)?;
            backend.encode_backward(codes, &self.d_aux, acts, dictionary, gradients)?;
        }
        Ok(())
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
