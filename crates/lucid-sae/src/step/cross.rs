//! What the shared codes owe the other modality: the plan, L_cross, L_align and L_ot (spec 3 and 4).

use lucid_kernels::{Backend, Block, Direction, Factor, KernelError, Modality, Transport};

use super::{Micro, Step, segments};
use crate::batch::MicroBatch;
use crate::config::PlanGradient;
use crate::kernel_options::transport_options;
use crate::losses::slot;

const fn other(modality: Modality) -> Modality {
    match modality {
        Modality::Vision => Modality::Text,
        Modality::Text => Modality::Vision,
    }
}

impl<B: Backend> Step<B> {
    /// Π of a micro-batch (spec 3).
    pub(super) fn solve_transport(&mut self, micro: &Micro<'_, B>) -> Result<(), KernelError> {
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

    /// L_cross and L_align of target `m`: codes of the other modality, decoded by m's decoder, averaged by the plan
    /// against m's tokens (scale `factors.0`) and evenly against m's mean token (`factors.1`).
    pub(super) fn cross_and_align(
        &mut self,
        micro: &Micro<'_, B>,
        m: Modality,
        factors: (f64, f64),
    ) -> Result<(), KernelError> {
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
    pub(super) fn transport_loss(&mut self, micro: &Micro<'_, B>, scale: f64) -> Result<(), KernelError> {
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
}
