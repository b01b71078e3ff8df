//! Which pair made a step's losses or gradients infinite or NaN.

use lucid_data::store::ActivationSource;
use lucid_kernels::{Backend, DeadLists};

use crate::batch::{MicroBatch, Sides};
use crate::config::Config;
use crate::error::SaeError;
use crate::host_batch::{HostBatch, Reader};
use crate::normalisation::{Normalisation, Variances};
use crate::optimiser::Optimiser;
use crate::order::{DataOrder, Visit};
use crate::params::Params;
use crate::step::{Step, StepInputs};

/// Everything a step can be made again from, one pair at a time.
pub struct Suspects<'a, B: Backend> {
    /// Device.
    pub backend: &'a B,
    /// Configuration.
    pub config: &'a Config,
    /// Store.
    pub source: &'a dyn ActivationSource,
    /// Order, for the captions.
    pub order: &'a DataOrder,
    /// Centring and scaling.
    pub normalisation: &'a Normalisation,
    /// Variances.
    pub variances: &'a Variances,
    /// Weights the step was made with.
    pub params: &'a Params<B>,
}

impl<B: Backend<Real = f32>> Suspects<'_, B> {
    /// The key of the first of `visits` whose loss or gradient is not finite on its own. Where none is, only their sum
    /// overflowed, and the answer says so. The gradients of `step` are overwritten.
    pub fn find(&self, visits: &[Visit], step: &mut Step<B>, optimiser: &mut Optimiser<B>) -> Result<String, SaeError> {
        let (mut host, reader) = (HostBatch::new(self.backend), Reader::new(self.backend, self.source));
        let mut micro = [MicroBatch::empty(self.backend)?];
        for visit in visits {
            let caption = |visit: Visit| self.order.caption(visit, self.source.captions(visit.pair));
            reader.read(self.normalisation, std::slice::from_ref(visit), caption, &mut host)?;
            if host.upload(self.backend, 0..1, &mut micro[0]).is_err() {
                return Ok(self.source.key(visit.pair).to_owned());
            }
            self.backend.catch_up()?;
            let (variance, pooled_variance) = self.variances.sides();
            let inputs = StepInputs {
                config: self.config,
                variance,
                pooled_variance: Some(pooled_variance),
                dead: &Sides { vision: DeadLists::default(), text: DeadLists::default() },
                keep_plan: false,
                encoder: None,
            };
            let loss = step.run(self.backend, self.params, &micro, &inputs)?.losses.total;
            let norm = optimiser.prepare(self.backend, self.config, self.params, &mut step.gradients)?;
            if !loss.is_finite() || !norm.is_finite() {
                return Ok(self.source.key(visit.pair).to_owned());
            }
        }
        let keys = |visit: Option<&Visit>| visit.map_or("", |visit| self.source.key(visit.pair)).to_owned();
        Ok(format!("none alone, the sum over {} to {}", keys(visits.first()), keys(visits.last())))
    }
}
