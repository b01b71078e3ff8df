//! A configuration in the kernels' terms.

use lucid_kernels::{CodeShape, Selection, SinkhornOptions, TransportOptions};

use crate::config::{Config, TopK};

/// Sizes of the codes a configuration asks for.
#[must_use]
pub const fn code_shape(config: &Config) -> CodeShape {
    CodeShape {
        d_shared: config.d_shared,
        d_private: config.d_private,
        k_shared: config.k_shared,
        k_private: config.k_private,
        selection: match config.topk {
            TopK::Split => Selection::Split,
            TopK::Global => Selection::Global,
        },
    }
}

/// Options of the plan a configuration asks for.
#[must_use]
pub const fn transport_options(config: &Config) -> TransportOptions {
    TransportOptions {
        sinkhorn: SinkhornOptions {
            epsilon: config.epsilon,
            iterations: config.iterations,
            tolerance: config.tolerance,
            sink_mass: config.sink_mass,
        },
        mass_reweighting: config.mass_reweighting,
        lambda_global: config.lambda_global,
        mask_penalty: config.mask_penalty,
    }
}
