//! Codes of the batch, and the way of their gradients back into the encoders.

use lucid_kernels::{Backend, Codes, KernelError, Modality};

use super::{Micro, Step};
use crate::batch::{MicroBatch, Sides};
use crate::config::{Activation, Config, Method};
use crate::params::Params;
use crate::{distance, selection};

impl<B: Backend> Step<B> {
    /// Codes of every micro-batch (spec 2).
    pub(super) fn encode(
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
    pub(super) fn clear_gradients_of_codes(&mut self, micro: &Micro<'_, B>) -> Result<(), KernelError> {
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

    /// From the gradients of a micro-batch's codes to those of the encoders.
    pub(super) fn encoder_gradients(&mut self, micro: &Micro<'_, B>) -> Result<(), KernelError> {
        let Micro { backend, params, config, batch, index, .. } = *micro;
        if config.method == Method::PooledConcat {
            self.join_gradients(micro)?;
        }
        let codes = &self.codes[index];
        if config.method == Method::VlSae {
            return distance::backward(backend, params, batch, codes, &self.d_values, &mut self.gradients);
        }
        for m in Modality::ALL {
            let gradients = self.gradients.of_mut(m);
            backend.encode_backward(codes.of(m), self.d_values.of(m), batch.acts.of(m), params.of(m), gradients)?;
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
}
