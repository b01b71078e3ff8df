//! How a store is written.

use serde_json::Value;

use super::Precision;
use crate::error::{DataError, Result};

/// How a store is written.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How activations are stored.
    pub precision: Precision,
    /// Pairs in a shard; the last one may have fewer.
    pub pairs_per_shard: usize,
    /// Where the activations come from, kept as it is: backbone, hooks, data set …
    pub provenance: Value,
    /// Width of a patch's state.
    pub d_vision: usize,
    /// Width of a token's state.
    pub d_text: usize,
    /// Replace an existing store under the same name; anything else there is never replaced.
    pub overwrite: bool,
}

impl StoreOptions {
    /// f16, 1024 pairs a shard, no provenance, nothing replaced.
    pub fn new(d_vision: usize, d_text: usize) -> Self {
        Self {
            precision: Precision::F16,
            pairs_per_shard: 1024,
            provenance: Value::Null,
            d_vision,
            d_text,
            overwrite: false,
        }
    }
}

pub(super) fn check_widths(d_vision: usize, d_text: usize) -> Result<()> {
    for (option, d) in [("dVision", d_vision), ("dText", d_text)] {
        if d == 0 || d > 1 << 20 {
            return Err(DataError::Option {
                option,
                found: d.to_string(),
                expected: "a width from 1 to 1048576".into(),
            });
        }
    }
    Ok(())
}

pub(super) fn check_options(options: &StoreOptions) -> Result<()> {
    check_widths(options.d_vision, options.d_text)?;
    if options.pairs_per_shard == 0 {
        return Err(DataError::Option { option: "pairsPerShard", found: "0".into(), expected: "1 or more".into() });
    }
    Ok(())
}
