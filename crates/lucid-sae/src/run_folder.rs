//! The folder of a run: who may write into it, where it stands, what it holds at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lucid_data::store::ActivationSource;
use lucid_kernels::{Backend, DeadCounters};
use serde_json::Value;

use crate::batch::Sides;
use crate::checkpoint::{self, Checkpoint, RunState, Snapshot};
use crate::config::Config;
use crate::error::SaeError;
use crate::events::{TrainEvent, TrainObserver, warn};
use crate::files::{FileSystem, remove_leftovers};
use crate::lock::RunLock;
use crate::metrics_log::{METRICS, MetricsLog};
use crate::model::Model;
use crate::model_folder;
use crate::normalisation::Normalisation;
use crate::optimiser::Optimiser;
use crate::params::Params;

/// A run folder held by this trainer.
pub struct RunFolder {
    /// The folder.
    pub path: PathBuf,
    /// The newest checkpoint known to be good.
    pub newest: Option<(usize, PathBuf)>,
    files: Arc<dyn FileSystem>,
    log: MetricsLog,
    _lock: RunLock,
}

impl RunFolder {
    /// Takes the folder `path` for a run, creating it. A folder that holds a run already is refused (`E_BUSY`) unless
    /// `resume` is set; then the newest good checkpoint comes back, or nothing where none was written yet.
    pub fn open(
        files: Arc<dyn FileSystem>,
        path: &Path,
        resume: bool,
        config: &Config,
        source: &dyn ActivationSource,
        observer: &dyn TrainObserver,
    ) -> Result<(Self, Option<Checkpoint>), SaeError> {
        files.create_dir_all(path).map_err(|error| SaeError::io("create", path, error))?;
        let lock = RunLock::take(path)?;
        if let Some(name) = holds_run(path).filter(|_| !resume) {
            return Err(SaeError::Busy {
                path: path.to_owned(),
                reason: format!("already holds a run (it has {name})"),
            });
        }
        remove_leftovers(path);
        remove_leftovers(&path.join(checkpoint::FOLDER));
        let found = if resume { checkpoint::newest(path)? } else { None };
        let checkpoint = match found {
            Some((checkpoint, damaged)) => {
                for error in damaged {
                    warn(observer, "W_CHECKPOINT_DAMAGED", format!("{error}; an older checkpoint is used"));
                }
                same_run(path, &checkpoint.state, config, source)?;
                checkpoint::prune(path, &checkpoint.path);
                Some(checkpoint)
            }
            None => {
                if resume {
                    warn(
                        observer,
                        "W_NOTHING_TO_RESUME",
                        format!("{} has no checkpoint: the run starts at step 0", path.display()),
                    );
                }
                None
            }
        };
        let keep = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.metrics_bytes);
        let (log, missing) = MetricsLog::open(&*files, path, keep)?;
        if missing > 0 {
            let message =
                format!("{METRICS} ends {missing} bytes before the checkpoint: those steps' metrics are lost");
            warn(observer, "W_METRICS_LOST", message);
        }
        let newest = checkpoint.as_ref().map(|checkpoint| (checkpoint.state.step, checkpoint.path.clone()));
        Ok((Self { path: path.to_owned(), newest, files, log, _lock: lock }, checkpoint))
    }

    /// Logs an event.
    pub fn log(&mut self, event: &TrainEvent) -> Result<(), SaeError> {
        self.log.append(event)
    }

    /// Publishes a checkpoint, and gives its folder.
    pub fn checkpoint<B: Backend<Real = f32>>(
        &mut self,
        mut state: RunState,
        backend: &B,
        params: &Params<B>,
        optimiser: &Optimiser<B>,
        dead: &Sides<DeadCounters>,
        normalisation: &Normalisation,
    ) -> Result<PathBuf, SaeError> {
        state.metrics_bytes = self.log.sync()?;
        let snapshot = Snapshot { backend, state: &state, params, normalisation, optimiser, dead };
        let path = checkpoint::write(&*self.files, &self.path, &snapshot)?;
        self.newest = Some((state.step, path.clone()));
        Ok(path)
    }

    /// Publishes the finished model into the folder.
    pub fn finish(&mut self, model: &Model) -> Result<(), SaeError> {
        self.log.sync()?;
        model_folder::save(&*self.files, model, &self.path)
    }
}

/// Refuses to continue a run with other options or another store: its result would be neither's.
fn same_run(path: &Path, state: &RunState, config: &Config, source: &dyn ActivationSource) -> Result<(), SaeError> {
    let differs = |what: &str, found: &dyn ToString, expected: &dyn ToString| {
        Err(SaeError::Resume {
            path: path.to_owned(),
            what: what.to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
        })
    };
    let store = source.fingerprint();
    if state.store != store {
        return differs("store", &state.store, &store);
    }
    let fields = |config: &Config| serde_json::to_value(config).unwrap_or(Value::Null);
    if let (Value::Object(then), Value::Object(now)) = (fields(&state.config), fields(config)) {
        for (name, value) in &now {
            if then.get(name) != Some(value) {
                return differs(name, then.get(name).unwrap_or(&Value::Null), value);
            }
        }
    }
    Ok(())
}

/// What of a run `path` holds that must not be overwritten. A run that ended before its first step left nothing.
fn holds_run(path: &Path) -> Option<&'static str> {
    let logged = fs::metadata(path.join(METRICS)).is_ok_and(|metadata| metadata.len() > 0);
    let saved = fs::read_dir(path.join(checkpoint::FOLDER)).is_ok_and(|mut entries| entries.next().is_some());
    let model = path.join(model_folder::CONFIG).exists();
    [(logged, METRICS), (saved, checkpoint::FOLDER), (model, model_folder::CONFIG)]
        .into_iter()
        .find_map(|(there, name)| there.then_some(name))
}
