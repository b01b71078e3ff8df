//! The light evaluation between steps: losses and R² of the full code on a few pairs, first captions.
//!
//! The full evaluation with its controls is another crate's; this one answers whether training still helps on pairs it
//! does not see.

use lucid_data::store::{ActivationSource, PerModality};
use lucid_kernels::{Backend, DeadLists, Modality};

use crate::batch::{MicroBatch, Sides};
use crate::config::{Config, Reduction};
use crate::error::SaeError;
use crate::events::TrainEvent;
use crate::host_batch::{HostBatch, Reader};
use crate::losses::Losses;
use crate::normalisation::{Normalisation, Variances};
use crate::order::Visit;
use crate::params::Params;
use crate::step::{Step, StepInputs};

/// Pairs evaluated at most.
pub const PAIRS: usize = 256;

/// Σ, Σ² and number of the states of one modality, for the denominator of R².
#[derive(Clone, Debug)]
struct Spread {
    sum: Vec<f64>,
    square: f64,
    tokens: f64,
}

impl Spread {
    fn new(d: usize) -> Self {
        Self { sum: vec![0.0; d], square: 0.0, tokens: 0.0 }
    }

    fn add(&mut self, states: &[f32]) {
        for row in states.chunks_exact(self.sum.len()) {
            for (sum, x) in self.sum.iter_mut().zip(row) {
                *sum += f64::from(*x);
                self.square += f64::from(*x) * f64::from(*x);
            }
            self.tokens += 1.0;
        }
    }

    /// Σ‖h − h̄‖².
    fn total(&self) -> f64 {
        self.square - self.sum.iter().map(|sum| sum * sum).sum::<f64>() / self.tokens.max(1.0)
    }
}

/// The mean state of every pair.
fn means(states: &[f32], lengths: &[usize], d: usize) -> Vec<f32> {
    let mut rest = states;
    let mut out = Vec::with_capacity(lengths.len() * d);
    for &length in lengths {
        let (rows, tail) = rest.split_at(length * d);
        rest = tail;
        out.extend((0..d).map(|i| rows.iter().skip(i).step_by(d).sum::<f32>() / length as f32));
    }
    out
}

/// Evaluates the first pairs of `source`. `step` lends its buffers; its gradients are overwritten.
pub fn evaluate<B: Backend<Real = f32>>(
    backend: &B,
    config: &Config,
    params: &Params<B>,
    source: &dyn ActivationSource,
    normalisation: &Normalisation,
    variances: &Variances,
    step: &mut Step<B>,
) -> Result<(usize, PerModality<f64>, Losses), SaeError> {
    let pairs = source.pairs().min(PAIRS);
    let visits: Vec<Visit> = (0..pairs).map(|pair| Visit { pair, epoch: 0 }).collect();
    let (variance, pooled_variance) = variances.sides();
    let alive = Sides { vision: DeadLists::default(), text: DeadLists::default() };
    let inputs = StepInputs {
        config,
        variance,
        pooled_variance: Some(pooled_variance),
        dead: &alive,
        keep_plan: false,
        encoder: None,
    };
    let (d_vision, d_text) = (source.d_vision(), source.d_text());
    let mut spread = Sides { vision: Spread::new(d_vision), text: Spread::new(d_text) };
    let mut residual = Sides { vision: 0.0, text: 0.0 };
    let mut sum = Losses::default();
    let (mut host, reader) = (HostBatch::new(backend), Reader::new(backend, source));
    let mut micro = [MicroBatch::empty(backend)?];
    for part in visits.chunks(config.micro_pairs_on(backend)) {
        reader.read(normalisation, part, |_| 0, &mut host)?;
        host.upload(backend, 0..part.len(), &mut micro[0])?;
        backend.catch_up()?;
        let report = step.run(backend, params, &micro, &inputs)?;
        for (m, d) in [(Modality::Vision, d_vision), (Modality::Text, d_text)] {
            if config.method.pooled() {
                spread.of_mut(m).add(&means(host.values(m), host.lengths(m), d));
            } else {
                spread.of_mut(m).add(host.values(m));
            }
            *residual.of_mut(m) += report.sums.self_residual.of(m);
        }
        // Means over tokens or pairs become sums again, so that every token weighs the same.
        let (tokens, l) = (report.sums.tokens, report.losses);
        let weight = |n: usize| if config.reduction == Reduction::Mean { n as f64 } else { 1.0 };
        sum.self_vision += l.self_vision * weight(tokens.vision);
        sum.self_text += l.self_text * weight(tokens.text);
        sum.cross_vision += l.cross_vision * weight(tokens.vision);
        sum.cross_text += l.cross_text * weight(tokens.text);
        sum.align_vision += l.align_vision * weight(part.len());
        sum.align_text += l.align_text * weight(part.len());
        sum.ot += l.ot * weight(part.len());
    }
    let mean = |sum: f64, n: f64| if config.reduction == Reduction::Mean { sum / n } else { sum };
    let (vision, text, n) = (spread.vision.tokens, spread.text.tokens, pairs as f64);
    let mut losses = Losses {
        self_vision: mean(sum.self_vision, vision),
        self_text: mean(sum.self_text, text),
        cross_vision: mean(sum.cross_vision, vision),
        cross_text: mean(sum.cross_text, text),
        align_vision: mean(sum.align_vision, n),
        align_text: mean(sum.align_text, n),
        ot: mean(sum.ot, n),
        aux: 0.0,
        sparsity: 0.0,
        total: 0.0,
    };
    losses.total = config.alpha * (losses.self_vision + losses.self_text)
        + config.beta * (losses.align_vision + losses.align_text)
        + config.gamma * (losses.cross_vision + losses.cross_text)
        + config.w_ot * losses.ot;
    let r2 = |m: Modality| 1.0 - residual.of(m) / spread.of(m).total();
    Ok((pairs, PerModality { vision: r2(Modality::Vision), text: r2(Modality::Text) }, losses))
}

/// The event of an evaluation.
#[must_use]
pub fn event(step: usize, validation: bool, result: (usize, PerModality<f64>, Losses)) -> TrainEvent {
    let split = if validation { "validation" } else { "training" };
    TrainEvent::Eval { step, split: split.into(), pairs: result.0, r2: result.1, losses: result.2 }
}
