//! Progress of the examination's stages, and the question whether to go on.

use super::examinee::Examinee;
use crate::error::VlmError;
use lucid_data::DataError;
use lucid_data::progress::Observer;
use lucid_data::scenes::Scene;

/// Pictures between two looks at the observer.
const CHUNK: usize = 64;

/// One stage as the observer hears of it.
pub(super) struct Watch<'a> {
    observer: &'a dyn Observer,
    stage: &'static str,
    done: usize,
    total: usize,
}

/// What an examination that was stopped ends with.
pub(super) fn cancelled() -> VlmError {
    DataError::Cancelled { stage: "examining" }.into()
}

impl<'a> Watch<'a> {
    /// A stage of `total` units.
    pub fn new(observer: &'a dyn Observer, stage: &'static str, total: usize) -> Self {
        observer.progress(stage, 0, total as u64);
        Self { observer, stage, done: 0, total }
    }

    /// `units` more are done.
    pub fn advance(&mut self, units: usize) {
        self.done += units;
        self.observer.progress(self.stage, self.done as u64, self.total as u64);
    }

    /// Whether to stop.
    pub fn stopped(&self) -> bool {
        self.observer.cancelled()
    }

    /// `E_CANCELLED` once the observer says stop.
    pub fn check(&self) -> Result<(), VlmError> {
        if self.stopped() { Err(cancelled()) } else { Ok(()) }
    }

    /// Embeddings of scenes, one unit each.
    pub fn images(&mut self, examinee: &dyn Examinee, scenes: &[Scene]) -> Result<Vec<Vec<f32>>, VlmError> {
        let mut all = Vec::with_capacity(scenes.len());
        for chunk in scenes.chunks(CHUNK) {
            self.check()?;
            all.extend(examinee.images(chunk)?);
            self.advance(chunk.len());
        }
        Ok(all)
    }
}
