//! JumpReLU: z = a where a > θ, with a threshold θ of each latent that is learnt (docs/rivals.md).
//!
//! Steps of the loss at θ have no derivative; the straight-through estimate of arXiv 2407.14435 takes one from the pre-activations within
//! ε/2 of θ: ∂z/∂θ = −(θ/ε)·1\[|a − θ| < ε/2\] and ∂1\[a > θ\]/∂θ = −(1/ε)·1\[|a − θ| < ε/2\]. ln θ is what is stored and learnt.

use lucid_kernels::{Backend, Block, CodeShape, Codes, Dictionary, KernelError, Modality, Real, Selection, UNUSED};

use crate::batch::{MicroBatch, Sides};
use crate::config::Config;
use crate::params::Params;
use crate::selection::{store, wide_shape};

/// Pre-activations just below their thresholds, and what the thresholds learn in a step.
pub(crate) struct Jump<B: Backend> {
    /// Of every micro-batch: inactive entries in reach of their thresholds, with value 0.
    below: Vec<Sides<Codes<B>>>,
    d_below: B::Buffer<B::Real>,
    /// θ \[K\].
    thresholds: Sides<Vec<f64>>,
    /// Gradient of ln θ \[K\].
    d_log: Sides<Vec<f64>>,
    /// Active entries of the batch, and its tokens.
    active: Sides<(u64, usize)>,
}

/// No entries, whatever the device.
const EMPTY: CodeShape =
    CodeShape { d_shared: 0, d_private: 0, k_shared: 0, k_private: 0, selection: Selection::Global };

impl<B: Backend> Jump<B> {
    pub fn new(backend: &B) -> Result<Self, KernelError> {
        Ok(Self {
            below: Vec::new(),
            d_below: backend.zeros(0)?,
            thresholds: Sides::default(),
            d_log: Sides::default(),
            active: Sides::default(),
        })
    }

    /// Codes of every micro-batch: entries above their thresholds in `codes`, those in reach below them apart.
    pub fn encode(
        &mut self,
        backend: &B,
        config: &Config,
        params: &Params<B>,
        batch: &[MicroBatch<B>],
        codes: &mut [Sides<Codes<B>>],
        shape: CodeShape,
    ) -> Result<(), KernelError> {
        let Some(log_threshold) = &params.log_threshold else {
            return Err(KernelError::shape("thresholds of JumpReLU", 0, params.vision.latents));
        };
        while self.below.len() < batch.len() {
            let empty = || Codes::with_slots(backend, 0, 0, EMPTY);
            self.below.push(Sides { vision: empty()?, text: empty()? });
        }
        let reach = config.bandwidth / 2.0;
        for m in Modality::ALL {
            let latents = params.of(m).latents;
            let logs = backend.read_vec(log_threshold.of(m), latents)?;
            let thresholds: Vec<f64> = logs.into_iter().map(|x| x.widen().exp()).collect();
            // Positive are then those above θ − ε/2, the largest first in what they exceed it by.
            let shifts: Vec<f64> = thresholds.iter().map(|theta| reach - theta).collect();
            let encoder = shifted(backend, params.of(m), &shifts)?;
            *self.active.of_mut(m) = (0, 0);
            for ((micro, codes), below) in batch.iter().zip(&mut *codes).zip(&mut self.below) {
                let codes = codes.of_mut(m);
                let wide = wide_shape(config);
                codes.shape = wide;
                codes.reserve(backend, micro.tokens(m), wide.k())?;
                backend.encode_topk(micro.acts.of(m), &encoder, codes)?;
                let (indices, values) = codes.read(backend)?;
                let (mut above, mut under) = (Vec::new(), Vec::new());
                for (indices, values) in indices.chunks_exact(wide.k()).zip(values.chunks_exact(wide.k())) {
                    let entries = indices.iter().zip(values).filter(|(index, _)| **index != UNUSED);
                    let (mut kept, mut near) = (Vec::new(), Vec::new());
                    for (&index, &value) in entries {
                        let excess = value.widen() - reach;
                        match excess > 0.0 {
                            true => kept.push((index, B::Real::from_f64(excess + thresholds[index as usize]))),
                            false => near.push((index, B::Real::from_f64(0.0))),
                        }
                    }
                    sort_falling(&mut kept);
                    self.active.of_mut(m).0 += kept.len() as u64;
                    above.push(kept);
                    under.push(near);
                }
                self.active.of_mut(m).1 += micro.tokens(m);
                for (codes, lists) in [(codes, above), (below.of_mut(m), under)] {
                    let slots = lists.iter().map(Vec::len).max().unwrap_or(0).max(1);
                    store(backend, codes, slots, &lists)?;
                    codes.shape = shape;
                }
            }
            *self.d_log.of_mut(m) = vec![0.0; latents];
            *self.thresholds.of_mut(m) = thresholds;
        }
        Ok(())
    }

    /// Σ (L0 / k − 1)² over the modalities.
    pub fn sparsity(&self, config: &Config) -> f64 {
        Modality::ALL.into_iter().map(|m| self.miss(config, m).powi(2)).sum()
    }

    /// L0 / k − 1.
    fn miss(&self, config: &Config, m: Modality) -> f64 {
        let (active, tokens) = *self.active.of(m);
        active as f64 / (tokens.max(1) * config.k().max(1)) as f64 - 1.0
    }

    /// What the thresholds learn of a micro-batch: `grad` \[n · d\] is the gradient of the reconstruction, `d_values` that of the values of
    /// `codes`.
    pub fn learn(
        &mut self,
        backend: &B,
        config: &Config,
        (index, m): (usize, Modality),
        codes: &Codes<B>,
        dictionary: &Dictionary<B>,
        grad: &B::Buffer<B::Real>,
        d_values: &B::Buffer<B::Real>,
        gradients: &mut Dictionary<B>,
    ) -> Result<(), KernelError> {
        let below = self.below[index].of(m);
        let slots = below.n * below.k;
        backend.reserve(&mut self.d_below, slots)?;
        backend.clear(&mut self.d_below, slots)?;
        // Values are 0, so nothing but ⟨g, w⟩ of each entry comes of it.
        backend.decode_backward(below, Block::Joint, dictionary, false, grad, &mut self.d_below, gradients)?;
        // The penalty's derivative by the activity of one entry.
        let entries = self.active.of(m).1.max(1) * config.k().max(1);
        let per_entry = 2.0 * config.l0_coefficient * self.miss(config, m) / entries as f64;
        let width = config.bandwidth;
        let d_log = self.d_log.of_mut(m);
        let mut add = |latent: usize, theta: f64, d_value: f64| {
            // θ from ∂/∂θ to ∂/∂ ln θ.
            d_log[latent] -= theta / width * (theta * d_value + per_entry);
        };
        let thresholds = self.thresholds.of(m);
        let (indices, values) = codes.read(backend)?;
        let of_values = backend.read_vec(d_values, indices.len())?;
        for ((&index, &value), &d_value) in indices.iter().zip(&values).zip(&of_values) {
            let latent = index as usize;
            if index != UNUSED && value.widen() - thresholds[latent] < width / 2.0 {
                add(latent, thresholds[latent], d_value.widen());
            }
        }
        let (indices, _) = below.read(backend)?;
        let of_values = backend.read_vec(&self.d_below, indices.len())?;
        for (&index, &d_value) in indices.iter().zip(&of_values) {
            if index != UNUSED {
                add(index as usize, thresholds[index as usize], d_value.widen());
            }
        }
        Ok(())
    }

    /// Writes what the thresholds learnt in the step.
    pub fn finish(&self, backend: &B, gradients: &mut Params<B>) -> Result<(), KernelError> {
        let Some(log_threshold) = &mut gradients.log_threshold else { return Ok(()) };
        for m in Modality::ALL {
            let values: Vec<B::Real> = self.d_log.of(m).iter().map(|&x| B::Real::from_f64(x)).collect();
            backend.write(log_threshold.of_mut(m), 0, &values)?;
        }
        Ok(())
    }
}

/// The encoder of `dictionary` with `shifts` \[K\] added to its bias; it decodes to nothing.
fn shifted<B: Backend>(backend: &B, dictionary: &Dictionary<B>, shifts: &[f64]) -> Result<Dictionary<B>, KernelError> {
    let (d, latents) = (dictionary.d, dictionary.latents);
    let mut encoder = Dictionary::zeros(backend, d, latents)?;
    backend.write(&mut encoder.w_enc_t, 0, &backend.read_vec(&dictionary.w_enc_t, latents * d)?)?;
    backend.write(&mut encoder.b_dec, 0, &backend.read_vec(&dictionary.b_dec, d)?)?;
    let bias = backend.read_vec(&dictionary.b_enc, latents)?;
    let bias: Vec<B::Real> = bias.iter().zip(shifts).map(|(b, shift)| B::Real::from_f64(b.widen() + shift)).collect();
    backend.write(&mut encoder.b_enc, 0, &bias)?;
    Ok(encoder)
}

/// By falling value, ties to the lower latent.
pub(crate) fn sort_falling<R: Real>(entries: &mut [(u32, R)]) {
    entries.sort_by(|a, b| b.1.widen().total_cmp(&a.1.widen()).then(a.0.cmp(&b.0)));
}
