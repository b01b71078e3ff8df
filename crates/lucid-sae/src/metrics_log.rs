//! `metrics.jsonl`: one line of JSON for each step and evaluation of a run.
//!
//! Nothing else is logged, so that a resumed run writes the same lines as one that was never interrupted.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use crate::error::SaeError;
use crate::events::TrainEvent;
use crate::files::{FileSystem, OutputFile};

/// Name of the log within a run.
pub const METRICS: &str = "metrics.jsonl";

/// An open log.
pub struct MetricsLog {
    path: PathBuf,
    file: Box<dyn OutputFile>,
    bytes: u64,
}

impl MetricsLog {
    /// Opens the log of the run folder `run` and cuts it to `keep` bytes: what a checkpoint knows of. Lines written
    /// after that checkpoint belong to steps that will be made again. Gives also the bytes that were missing, were the
    /// log shorter than that.
    pub fn open(files: &dyn FileSystem, run: &Path, keep: u64) -> Result<(Self, u64), SaeError> {
        let path = run.join(METRICS);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if length > keep {
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(keep));
            cut.map_err(|error| SaeError::io("cut", &path, error))?;
        }
        let file = files.append(&path).map_err(|error| SaeError::io("open", &path, error))?;
        let bytes = length.min(keep);
        Ok((Self { path, file, bytes }, keep - bytes))
    }

    /// Appends an event as one line.
    pub fn append(&mut self, event: &TrainEvent) -> Result<(), SaeError> {
        let mut line = serde_json::to_vec(event).map_err(|error| SaeError::internal(error.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| SaeError::io("append to", &self.path, error))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Makes all lines durable and gives the length of the log.
    pub fn sync(&mut self) -> Result<u64, SaeError> {
        self.file.sync().map_err(|error| SaeError::io("sync", &self.path, error))?;
        Ok(self.bytes)
    }
}
