//! A run on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use lucid_data::store::ActivationSource;

use crate::error::SaeError;
use crate::events::{TrainEvent, TrainObserver};
use crate::model::Model;
use crate::trainer::{TrainOptions, train};

/// Forwards events to a channel and hears a flag.
struct Messenger {
    events: Sender<TrainEvent>,
    cancel: Arc<AtomicBool>,
}

impl TrainObserver for Messenger {
    fn event(&self, event: &TrainEvent) {
        // Nobody has to listen.
        let _ = self.events.send(event.clone());
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// A run that goes on while the caller does something else. Dropping the handle lets it go on.
pub struct TrainHandle {
    /// Events of the run, in order; closed when it ends.
    pub events: Receiver<TrainEvent>,
    cancel: Arc<AtomicBool>,
    thread: JoinHandle<Result<Model, SaeError>>,
}

impl TrainHandle {
    /// Starts [`train`] on a thread of its own.
    pub fn spawn(
        source: Arc<dyn ActivationSource>,
        validation: Option<Arc<dyn ActivationSource>>,
        options: TrainOptions,
    ) -> Result<Self, SaeError> {
        let (sender, events) = channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let messenger = Messenger { events: sender, cancel: Arc::clone(&cancel) };
        let run = move || train(&*source, validation.as_deref(), &options, &messenger);
        let thread = thread::Builder::new().name("lucid-train".into()).spawn(run);
        let thread = thread.map_err(|error| SaeError::internal(format!("no thread for the run: {error}")))?;
        Ok(Self { events, cancel, thread })
    }

    /// Asks the run to stop: it finishes its step, writes a checkpoint and ends with `E_CANCELLED`.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Waits for the end of the run.
    pub fn join(self) -> Result<Model, SaeError> {
        self.thread.join().unwrap_or_else(|_| Err(SaeError::internal("the training thread panicked")))
    }
}
