//! How long work reports back: progress, warnings, and the question whether to go on.

/// Listens to long work and may stop it.
///
/// Every method has an empty default, so an observer implements only what it needs. Calls come from worker
/// threads; they must return quickly.
pub trait Observer: Send + Sync {
    /// `done` of `total` units of `stage` are finished; `total` is 0 where it is not known.
    fn progress(&self, stage: &str, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// Something was left out or is doubtful, but the work goes on. `code` is stable (`W_…` or `E_…`).
    fn warning(&self, code: &str, message: &str) {
        let _ = (code, message);
    }

    /// True once the work must stop; it then ends with [`crate::DataError::Cancelled`] and publishes nothing.
    fn cancelled(&self) -> bool {
        false
    }
}

/// An observer that hears nothing and never stops the work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
