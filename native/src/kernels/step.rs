//! One training step and one update of the optimiser on typed arrays.

use lucid_kernels::{Backend, DeadLists, Modality};
use lucid_sae::batch::{HostPairs, MicroBatch, Sides};
use lucid_sae::optimiser::Optimiser;
use lucid_sae::params::{HostDictionary, HostParams, Params};
use lucid_sae::step::{Step, StepInputs};
use lucid_sae::{Config, Preset};
use serde::Deserialize;
use serde_json::Value;

use super::expect_len;
use crate::error::Failure;

/// What a step is told beside its arrays.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepOptions {
    /// Fields of the config; what is missing takes the default preset's value.
    config: Value,
    variance: Variance,
    #[serde(default)]
    pooled_variance: Option<Variance>,
}

/// A number for each modality.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variance {
    vision: f64,
    text: f64,
}

impl From<Variance> for Sides<f64> {
    fn from(Variance { vision, text }: Variance) -> Self {
        Self { vision, text }
    }
}

/// Arrays of a batch.
pub struct StepBatch<'a, R> {
    pub vision: &'a [R],
    pub vision_lengths: &'a [u32],
    pub text: &'a [R],
    pub text_lengths: &'a [u32],
    pub admissible: Option<&'a [R]>,
    pub dead_vision: Option<&'a [u8]>,
    pub dead_text: Option<&'a [u8]>,
}

/// Losses as JSON, the gradients in the order of [`arrays`], and the plans.
pub struct StepResult<R> {
    pub losses: Value,
    pub gradients: Vec<Vec<R>>,
    pub plan: Vec<R>,
    pub column_marginal: Vec<R>,
}

/// `W_enc`, `b_enc`, `W_dec`, `b_dec` of vision, then of text.
pub const ARRAYS: usize = 8;

fn dictionary<R: lucid_kernels::Real>(
    modality: &str,
    arrays: [Vec<R>; 4],
    latents: usize,
) -> Result<HostDictionary<R>, Failure> {
    let [w_enc, b_enc, w_dec, b_dec] = arrays;
    let d = b_dec.len();
    for (name, found, expected) in
        [("W_enc", w_enc.len(), d * latents), ("b_enc", b_enc.len(), latents), ("W_dec", w_dec.len(), latents * d)]
    {
        expect_len(&format!("{modality}.{name}"), found, expected)?;
    }
    Ok(HostDictionary { d, latents, w_enc, b_enc, w_dec, b_dec })
}

/// Parameters (or gradients, or moments) from their eight arrays.
pub fn params<R: lucid_kernels::Real>(arrays: Vec<Vec<R>>, latents: usize) -> Result<HostParams<R>, Failure> {
    let arrays: [Vec<R>; ARRAYS] =
        arrays.try_into().map_err(|given: Vec<_>| Failure::shape("params", given.len(), ARRAYS))?;
    let [a, b, c, d, e, f, g, h] = arrays;
    Ok(HostParams {
        vision: dictionary("vision", [a, b, c, d], latents)?,
        text: dictionary("text", [e, f, g, h], latents)?,
        log_threshold: None,
    })
}

/// The eight arrays of parameters.
pub fn arrays<R>(params: HostParams<R>) -> Vec<Vec<R>> {
    let (vision, text) = (params.vision, params.text);
    vec![vision.w_enc, vision.b_enc, vision.w_dec, vision.b_dec, text.w_enc, text.b_enc, text.w_dec, text.b_dec]
}

/// Losses and gradients of one batch.
pub fn step<B: Backend>(
    backend: &B,
    options: &str,
    parameters: Vec<Vec<B::Real>>,
    batch: &StepBatch<'_, B::Real>,
) -> Result<StepResult<B::Real>, Failure> {
    let options: StepOptions = serde_json::from_str(options)?;
    let config = Config::resolve(Preset::Default, &options.config)?;
    let host = params(parameters, config.latents())?;
    let params = Params::upload(backend, &host)?;
    let wide = |lengths: &[u32]| lengths.iter().map(|&length| length as usize).collect::<Vec<_>>();
    let (vision_lengths, text_lengths) = (wide(batch.vision_lengths), wide(batch.text_lengths));
    let pairs = HostPairs {
        vision: batch.vision,
        vision_lengths: &vision_lengths,
        text: batch.text,
        text_lengths: &text_lengths,
        admissible: batch.admissible,
    };
    let micro = MicroBatch::upload(backend, host.vision.d, host.text.d, &pairs)?;
    let dead = |what: &str, flags: Option<&[u8]>| -> Result<DeadLists, Failure> {
        let Some(flags) = flags else { return Ok(DeadLists::default()) };
        expect_len(what, flags.len(), config.latents())?;
        Ok(DeadLists::from_flags(flags.iter().map(|&flag| flag != 0), config.d_shared))
    };
    let dead = Sides { vision: dead("dead.vision", batch.dead_vision)?, text: dead("dead.text", batch.dead_text)? };
    let inputs = StepInputs {
        config: &config,
        variance: options.variance.into(),
        pooled_variance: options.pooled_variance.map(Into::into),
        dead: &dead,
        keep_plan: true,
        encoder: None,
    };
    let mut step = Step::new(backend, &params, &config)?;
    let report = step.run(backend, &params, &[micro], &inputs)?;
    let plan = report.plan.unwrap_or_default();
    Ok(StepResult {
        losses: serde_json::to_value(report.losses)?,
        gradients: arrays(step.gradients.read(backend)?),
        plan: plan.plan,
        column_marginal: plan.column_marginal,
    })
}

/// What an update is told beside its arrays.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateOptions {
    config: Value,
    /// Step of the run, from 0.
    step: usize,
    /// Steps of the run.
    steps: usize,
    /// Updates made before this one.
    count: u64,
}

/// Everything an update changes, and what it used.
pub struct Update<R> {
    pub params: Vec<Vec<R>>,
    pub first: Vec<Vec<R>>,
    pub second: Vec<Vec<R>>,
    pub lr: f64,
    pub gradient_norm: f64,
}

/// One AdamW update (spec 5.1).
pub fn adamw<B: Backend>(
    backend: &B,
    options: &str,
    parameters: Vec<Vec<B::Real>>,
    gradients: Vec<Vec<B::Real>>,
    first: Vec<Vec<B::Real>>,
    second: Vec<Vec<B::Real>>,
) -> Result<Update<B::Real>, Failure> {
    let options: UpdateOptions = serde_json::from_str(options)?;
    let config = Config::resolve(Preset::Default, &options.config)?;
    let latents = config.latents();
    let upload = |arrays| -> Result<Params<B>, Failure> { Ok(Params::upload(backend, &params(arrays, latents)?)?) };
    let mut parameters = upload(parameters)?;
    let mut gradients = upload(gradients)?;
    let mut optimiser = Optimiser::new(backend, &parameters)?;
    optimiser.first = upload(first)?;
    optimiser.second = upload(second)?;
    optimiser.count = options.count;
    let norm = optimiser.prepare(backend, &config, &parameters, &mut gradients)?;
    if !norm.is_finite() {
        let culprit = Modality::ALL.map(Modality::name).join(" and ");
        return Err(Failure::new(
            "E_NON_FINITE",
            format!("the gradient of {culprit} is not finite"),
            Some("check the batch and the step before this one".into()),
            Value::Null,
        ));
    }
    let lr = optimiser.apply(backend, &config, options.step, options.steps, norm, &mut parameters, &gradients)?;
    Ok(Update {
        params: arrays(parameters.read(backend)?),
        first: arrays(optimiser.first.read(backend)?),
        second: arrays(optimiser.second.read(backend)?),
        lr,
        gradient_norm: norm,
    })
}
