//! What rounding to a precision changed, measured while a store is written.

use serde::{Deserialize, Serialize};

/// The difference between the states x that were given and the states x̂ that a reader gets, over all patches or over
/// the tokens of all captions. Exactly 0 (cosines 1) in f32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrecisionError {
    /// States that were compared.
    pub tokens: u64,
    /// Σ‖x̂ − x‖².
    pub squared_error: f64,
    /// Σ‖x‖².
    pub squared_norm: f64,
    /// √(Σ‖x̂ − x‖² / Σ‖x‖²).
    pub relative_rms: f64,
    /// Largest |x̂ − x| of one number.
    pub max_abs: f64,
    /// Mean cosine between x and x̂; 1 for a state that did not change, 0 for one of which nothing is left.
    pub mean_cosine: f64,
    /// The smallest of these cosines.
    pub min_cosine: f64,
}

/// Gathers a [`PrecisionError`] in f64; the result depends on the order of states alone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ErrorSums {
    tokens: u64,
    squared_error: f64,
    squared_norm: f64,
    max_abs: f64,
    cosines: f64,
    min_cosine: f64,
}

impl Default for ErrorSums {
    fn default() -> Self {
        Self { tokens: 0, squared_error: 0.0, squared_norm: 0.0, max_abs: 0.0, cosines: 0.0, min_cosine: 1.0 }
    }
}

impl ErrorSums {
    /// Takes rows of `width` numbers as they were given and as they were stored.
    pub(super) fn add(&mut self, given: &[f32], stored: &[f32], width: usize) {
        for (row, kept) in given.chunks_exact(width).zip(stored.chunks_exact(width)) {
            let (mut error, mut norm, mut kept_norm, mut dot) = (0.0, 0.0, 0.0, 0.0);
            for (&x, &y) in row.iter().zip(kept) {
                let (x, y) = (f64::from(x), f64::from(y));
                error += (y - x) * (y - x);
                norm += x * x;
                kept_norm += y * y;
                dot += x * y;
                self.max_abs = self.max_abs.max((y - x).abs());
            }
            // Only a row without error has cosine 1 by definition; rounding of the sums must not blur it.
            let cosine = match (error > 0.0, norm * kept_norm > 0.0) {
                (false, _) => 1.0,
                (true, false) => 0.0,
                (true, true) => (dot / (norm * kept_norm).sqrt()).min(1.0),
            };
            self.tokens += 1;
            self.squared_error += error;
            self.squared_norm += norm;
            self.cosines += cosine;
            self.min_cosine = self.min_cosine.min(cosine);
        }
    }

    /// Takes the states behind a finished measurement.
    pub(super) fn join(&mut self, other: &PrecisionError) {
        self.tokens += other.tokens;
        self.squared_error += other.squared_error;
        self.squared_norm += other.squared_norm;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.cosines += other.mean_cosine * other.tokens as f64;
        self.min_cosine = self.min_cosine.min(other.min_cosine);
    }

    pub(super) fn finish(&self) -> PrecisionError {
        let ratio = if self.squared_norm > 0.0 { self.squared_error / self.squared_norm } else { 0.0 };
        PrecisionError {
            tokens: self.tokens,
            squared_error: self.squared_error,
            squared_norm: self.squared_norm,
            relative_rms: ratio.sqrt(),
            max_abs: self.max_abs,
            mean_cosine: self.cosines / self.tokens.max(1) as f64,
            min_cosine: self.min_cosine,
        }
    }
}
