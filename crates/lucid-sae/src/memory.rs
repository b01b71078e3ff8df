//! What a training run needs, for the error that says it does not fit.

use lucid_data::store::ActivationSource;
use lucid_kernels::KernelError;

use crate::config::Config;
use crate::error::SaeError;

/// Bytes of parameters, gradients and both moments.
fn parameters(config: &Config, source: &dyn ActivationSource) -> usize {
    let dictionary = |d: usize| 2 * config.latents() * d + config.latents() + d;
    4 * size_of::<f32>() * (dictionary(source.d_vision()) + dictionary(source.d_text()))
}

/// Bytes of the first pair's intermediate arrays: states, a prediction, decoded codes and their gradient in the wider of both
/// widths, codes with their gradients, and the matrices of the plan.
fn pair(config: &Config, source: &dyn ActivationSource) -> usize {
    let (rows, columns) = (source.vision_len(0), source.text_len(0, 0));
    let states = rows * source.d_vision() + columns * source.d_text();
    let wide = 3 * rows.max(columns) * source.d_vision().max(source.d_text());
    let slots = 3 * (rows + columns) * (config.k_shared + config.k_private);
    size_of::<f32>() * (states + wide + slots + 5 * rows * columns)
}

/// Room to leave for a step beside activations that lie on the device: twice what is known of it, for what is derived and packed.
pub(crate) fn step(config: &Config, source: &dyn ActivationSource) -> usize {
    2 * pair(config, source) * config.batch_pairs.min(source.pairs())
}

/// A refused allocation, with what the run would need.
pub(crate) fn explained(error: SaeError, config: &Config, source: &dyn ActivationSource) -> SaeError {
    match error {
        SaeError::Kernel(KernelError::Memory { bytes }) if source.pairs() > 0 => {
            SaeError::Memory { bytes, parameters: parameters(config, source), pair: pair(config, source) }
        }
        other => other,
    }
}
