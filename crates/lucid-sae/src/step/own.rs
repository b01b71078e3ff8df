//! What a modality's code owes its own tokens: L_self, and AuxK on what it leaves over (spec 4.1 and 4.2).

use lucid_kernels::{Backend, Block, Factor, KernelError, Modality};

use super::{Micro, Step};
use crate::batch::{MicroBatch, Sides, StepInputs};
use crate::config::Activation;
use crate::losses::slot;
use crate::params::Params;

/// AuxK on one block of one modality (spec 4.2).
pub(super) struct DeadBlock<B: Backend> {
    /// 0 = shared, 1 = private.
    pub block: usize,
    /// D, ascending.
    list: B::Buffer<u32>,
    /// |D|.
    count: usize,
    /// min(kAux, |D|).
    k: usize,
    /// min(1, |D| / kAux).
    pub weight: f64,
}

impl<B: Backend> Step<B> {
    /// L_self: ‖h − ĥ‖², full code. Keeps e = h − ĥ in `error` where AuxK needs it.
    pub(super) fn self_reconstruction(
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

    /// The blocks AuxK works on: none while nothing is dead or the coefficient is 0.
    pub(super) fn dead_blocks(
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
    pub(super) fn residual_energy(
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
    pub(super) fn aux_k(
        &mut self,
        micro: &Micro<'_, B>,
        m: Modality,
        dead: &[DeadBlock<B>],
    ) -> Result<(), KernelError> {
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
}
