//! AdamW with cosine annealing, clipping and unit-norm decoder rows, in the order of spec 5.1.

use lucid_kernels::{AdamW, Backend, Dictionary, KernelError, Modality};

use crate::config::Config;
use crate::params::Params;

/// How much faster JumpReLU's ln θ learns than weights: pre-activations change by factors within some hundred steps.
const THRESHOLD_RATE: f64 = 10.0;

/// Moments of AdamW and the number of updates made.
pub struct Optimiser<B: Backend> {
    /// First moments.
    pub first: Params<B>,
    /// Second moments.
    pub second: Params<B>,
    /// Updates made.
    pub count: u64,
    norm: B::Buffer<f64>,
}

/// Learning rate of step `step` (from 0) of `steps`: linear warm-up, then `½ · lr · (1 + cos(π t / T))`.
#[must_use]
pub fn learning_rate(config: &Config, step: usize, steps: usize) -> f64 {
    let warmup = config.warmup_steps;
    if step < warmup {
        return config.lr * (step + 1) as f64 / warmup as f64;
    }
    let fraction = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
    0.5 * config.lr * (1.0 + (std::f64::consts::PI * fraction.min(1.0)).cos())
}

impl<B: Backend> Optimiser<B> {
    /// Zero moments of the shape of `params`.
    pub fn new(backend: &B, params: &Params<B>) -> Result<Self, KernelError> {
        Ok(Self {
            first: params.zeros_like(backend)?,
            second: params.zeros_like(backend)?,
            count: 0,
            norm: backend.zeros(1)?,
        })
    }

    /// Prepares the gradients: with `unitNormDecoder` the part of each W_dec row's gradient parallel to the row is
    /// removed. Returns the global norm over all parameters, which is not finite if any gradient is not: check it
    /// before [`Optimiser::apply`].
    pub fn prepare(
        &mut self,
        backend: &B,
        config: &Config,
        params: &Params<B>,
        gradients: &mut Params<B>,
    ) -> Result<f64, KernelError> {
        backend.clear(&mut self.norm, 1)?;
        for m in Modality::ALL {
            let (dictionary, gradient) = (params.of(m), gradients.of_mut(m));
            let (d, latents) = (dictionary.d, dictionary.latents);
            if config.unit_norm_decoder {
                backend.project_rows(&dictionary.w_dec, latents, d, &mut gradient.w_dec)?;
            }
            let arrays = [
                (&gradient.w_enc_t, latents * d),
                (&gradient.b_enc, latents),
                (&gradient.w_dec, latents * d),
                (&gradient.b_dec, d),
            ];
            for (values, len) in arrays {
                backend.sum_squares(values, len, &mut self.norm, 0)?;
            }
            if let Some(log_threshold) = &gradients.log_threshold {
                backend.sum_squares(log_threshold.of(m), latents, &mut self.norm, 0)?;
            }
        }
        Ok(backend.read_vec(&self.norm, 1)?[0].sqrt())
    }

    /// Clips by the global norm `gradient_norm`, updates the parameters, and with `unitNormDecoder` divides the rows of
    /// W_dec by their norm. Returns the learning rate used.
    pub fn apply(
        &mut self,
        backend: &B,
        config: &Config,
        step: usize,
        steps: usize,
        gradient_norm: f64,
        params: &mut Params<B>,
        gradients: &Params<B>,
    ) -> Result<f64, KernelError> {
        self.count += 1;
        let lr = learning_rate(config, step, steps);
        let clip = config.grad_clip;
        let gradient_scale = if clip > 0.0 { (clip / (gradient_norm + 1e-6)).min(1.0) } else { 1.0 };
        let (beta1, beta2, eps) = (config.beta1, config.beta2, config.adam_eps);
        let biases = AdamW { lr, beta1, beta2, eps, weight_decay: 0.0, gradient_scale, count: self.count };
        let encoder = AdamW { weight_decay: config.weight_decay, ..biases };
        let decoder = if config.unit_norm_decoder { biases } else { encoder };
        for m in Modality::ALL {
            let (parameter, gradient) = (params.of_mut(m), gradients.of(m));
            let (first, second) = (self.first.of_mut(m), self.second.of_mut(m));
            let Dictionary { d, latents, .. } = *parameter;
            let (rows, unit) = ((latents, d), config.unit_norm_decoder);
            let (p, g, m1, m2) = (&mut parameter.w_enc_t, &gradient.w_enc_t, &mut first.w_enc_t, &mut second.w_enc_t);
            backend.adamw_rows(p, g, m1, m2, rows, false, encoder)?;
            let (p, g, m1, m2) = (&mut parameter.b_enc, &gradient.b_enc, &mut first.b_enc, &mut second.b_enc);
            backend.adamw(p, g, m1, m2, latents, biases)?;
            let (p, g, m1, m2) = (&mut parameter.w_dec, &gradient.w_dec, &mut first.w_dec, &mut second.w_dec);
            backend.adamw_rows(p, g, m1, m2, rows, unit, decoder)?;
            let (p, g, m1, m2) = (&mut parameter.b_dec, &gradient.b_dec, &mut first.b_dec, &mut second.b_dec);
            backend.adamw(p, g, m1, m2, d, biases)?;
            let (first, second) = (&mut self.first.log_threshold, &mut self.second.log_threshold);
            if let (Some(p), Some(g), Some(m1), Some(m2)) =
                (&mut params.log_threshold, &gradients.log_threshold, first, second)
            {
                let thresholds = AdamW { lr: THRESHOLD_RATE * lr, ..biases };
                backend.adamw(p.of_mut(m), g.of(m), m1.of_mut(m), m2.of_mut(m), latents, thresholds)?;
            }
        }
        Ok(lr)
    }
}
