//! What a run says while it goes on.

use std::path::PathBuf;

use lucid_data::store::PerModality;
use serde::{Deserialize, Serialize};

use crate::losses::Losses;

/// A number for each block of a code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blocks<T> {
    /// Shared latents.
    pub shared: T,
    /// Private latents.
    pub private: T,
}

/// An event of a run. In JSON: `{ "type": "step", … }`, fields in camelCase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum TrainEvent {
    /// Preparation before the first step.
    Progress {
        /// What is going on, e.g. `initialise`.
        stage: String,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// A finished step.
    Step {
        /// Steps finished.
        step: usize,
        /// Steps of the run.
        steps: usize,
        /// Passes over the pairs so far.
        epoch: f64,
        /// The weighted total, `losses.total`.
        loss: f64,
        /// Losses before the update, by their names in spec 4.1.
        losses: Losses,
        /// 1 − Σ‖h − ĥ‖² / (N·V_m) on the batch, full code.
        r2: PerModality<f64>,
        /// Learning rate of the step.
        lr: f64,
        /// Global norm of the gradient before clipping.
        grad_norm: f64,
        /// Mean number of active latents of a token, by modality and block.
        l0: PerModality<Blocks<f64>>,
        /// Latents dead for more than `deadAfterTokens` tokens.
        dead: PerModality<Blocks<usize>>,
        /// Patches and text tokens a second, over this step.
        tokens_per_second: f64,
        /// Time the step waited for its batch; near 0 where reading does not limit.
        seconds_data: f64,
        /// Time of the whole step, waiting included.
        seconds_step: f64,
    },
    /// An evaluation between steps.
    Eval {
        /// Steps finished.
        step: usize,
        /// `validation`, or `training` where no validation set was given.
        split: String,
        /// Pairs evaluated.
        pairs: usize,
        /// R² of the full code against the mean of the evaluated set.
        r2: PerModality<f64>,
        /// Losses over the evaluated pairs.
        losses: Losses,
    },
    /// A checkpoint was published.
    Checkpoint {
        /// Steps finished.
        step: usize,
        /// Its folder.
        path: PathBuf,
    },
    /// Something the user should know that does not stop the run.
    Warning {
        /// Stable code, `W_…`.
        code: String,
        /// What and why.
        message: String,
    },
    /// The run is finished.
    Done {
        /// Steps finished.
        step: usize,
        /// Seconds since the run was started or resumed.
        seconds: f64,
        /// The model folder, where one was written.
        path: Option<PathBuf>,
    },
}

/// Receives the events of a run and may ask it to stop.
pub trait TrainObserver: Send + Sync {
    /// Called on the training thread, in order. Must not block.
    fn event(&self, _event: &TrainEvent) {}

    /// Asked before every step and while its batch is read; once true, the run ends with [`SaeError::Cancelled`](crate::SaeError::Cancelled)
    /// after writing a checkpoint.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Hears nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl TrainObserver for Unobserved {}

/// Reports a warning.
pub(crate) fn warn(observer: &dyn TrainObserver, code: &str, message: impl Into<String>) {
    observer.event(&TrainEvent::Warning { code: code.into(), message: message.into() });
}
