//! Long work behind a handle: a thread of its own, a queue of events, a flag to stop it.
//!
//! The queue keeps the newest unread `step`, the newest unread `progress` of each stage, and every other event, so it
//! is bounded by what is worth keeping and never waits for a reader.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lucid_data::progress::Observer;
use napi::bindgen_prelude::*;
use napi::{Env, JsDeferred};
use napi_derive::napi;
use serde_json::{Value, json};

use crate::atlas::NativeAtlas;
use crate::error::Failure;
use crate::model::NativeModel;

type EventPromise = JsDeferred<Option<String>, Box<dyn FnOnce(Env) -> Result<Option<String>>>>;
type ResultPromise = JsDeferred<String, Box<dyn FnOnce(Env) -> Result<String>>>;

/// Two `progress` events of a stage are at least this far apart.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// What a job leaves behind: a JSON object, and perhaps a handle.
#[derive(Default)]
pub struct Outcome {
    /// The result as JSON.
    pub json: Value,
    /// The trained model.
    pub model: Option<NativeModel>,
    /// The atlas.
    pub atlas: Option<NativeAtlas>,
    /// States.
    pub states: Option<Vec<f32>>,
}

impl From<Value> for Outcome {
    fn from(json: Value) -> Self {
        Self { json, ..Self::default() }
    }
}

struct Event {
    /// Events of the same key replace each other while unread; `None` is always kept.
    key: Option<String>,
    json: String,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    readers: VecDeque<EventPromise>,
    waiting: Vec<ResultPromise>,
    finished: Option<std::result::Result<String, Failure>>,
    model: Option<NativeModel>,
    atlas: Option<NativeAtlas>,
    states: Option<Vec<f32>>,
    last_progress: Option<(String, Instant)>,
}

/// The part of a job that its thread and its handle share.
pub struct Shared {
    state: Mutex<State>,
    cancelled: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The lock is never held across user code, so a poisoned state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. Events with the same key replace each other while unread.
    pub fn push(&self, key: Option<&str>, event: &Value) {
        let json = event.to_string();
        let mut state = self.lock();
        if let Some(reader) = state.readers.pop_front() {
            drop(state);
            reader.resolve(Box::new(move |_| Ok(Some(json))));
            return;
        }
        if let Some(key) = key {
            state.events.retain(|event| event.key.as_deref() != Some(key));
        }
        state.events.push_back(Event { key: key.map(str::to_owned), json });
    }

    /// Whether the job was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn finish(&self, outcome: std::result::Result<Outcome, Failure>, seconds: f64) {
        if outcome.is_ok() {
            self.push(None, &json!({ "type": "done", "seconds": seconds }));
        }
        let mut state = self.lock();
        let finished = outcome.map(|outcome| {
            state.model = outcome.model;
            state.atlas = outcome.atlas;
            state.states = outcome.states;
            outcome.json.to_string()
        });
        state.finished = Some(finished.clone());
        let readers = std::mem::take(&mut state.readers);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for reader in readers {
            reader.resolve(Box::new(|_| Ok(None)));
        }
        for promise in waiting {
            settle(promise, finished.clone());
        }
    }
}

impl Observer for Shared {
    fn progress(&self, stage: &str, done: u64, total: u64) {
        let now = Instant::now();
        {
            let mut state = self.lock();
            let recent = state
                .last_progress
                .as_ref()
                .is_some_and(|(last, at)| last == stage && now.duration_since(*at) < PROGRESS_INTERVAL);
            if recent && done != total {
                return;
            }
            state.last_progress = Some((stage.to_owned(), now));
        }
        let event = json!({ "type": "progress", "stage": stage, "done": done, "total": total });
        self.push(Some(&format!("progress:{stage}")), &event);
    }

    fn warning(&self, code: &str, message: &str) {
        self.push(None, &json!({ "type": "warning", "code": code, "message": message }));
    }

    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }
}

fn settle(promise: ResultPromise, finished: std::result::Result<String, Failure>) {
    match finished {
        Ok(json) => promise.resolve(Box::new(move |_| Ok(json))),
        Err(failure) => promise.reject(failure.into()),
    }
}

/// Handle of work that runs on its own thread.
#[napi]
pub struct NativeJob {
    shared: Arc<Shared>,
}

/// Starts `work` on its own thread, inside a pool of `threads` (all cores where `None`).
pub fn spawn<F>(name: &str, threads: Option<usize>, work: F) -> Result<NativeJob>
where
    F: FnOnce(&Arc<Shared>) -> std::result::Result<Outcome, Failure> + Send + 'static,
{
    if threads == Some(0) {
        return Err(Failure::option("threads", 0, "at least 1").into());
    }
    let shared = Arc::new(Shared { state: Mutex::default(), cancelled: AtomicBool::new(false) });
    let job = NativeJob { shared: Arc::clone(&shared) };
    let started = Instant::now();
    let body = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| match threads {
            None => work(&shared),
            Some(threads) => {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .map_err(|error| Failure::internal(format!("cannot start {threads} threads: {error}")))?;
                pool.install(|| work(&shared))
            }
        }))
        .unwrap_or_else(|panic| Err(Failure::internal(panic_text(panic.as_ref()))));
        shared.finish(outcome, started.elapsed().as_secs_f64());
    };
    std::thread::Builder::new()
        .name(format!("lucid-{name}"))
        .spawn(body)
        .map_err(|error| Failure::internal(format!("cannot start a thread: {error}")))?;
    Ok(job)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".into())
}

#[napi]
impl NativeJob {
    /// The next event as JSON, or null once the job has ended and every event was read.
    #[napi(catch_unwind, ts_return_type = "Promise<string | null>")]
    pub fn next_event<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let (deferred, promise) =
            env.create_deferred::<Option<String>, Box<dyn FnOnce(Env) -> Result<Option<String>>>>()?;
        let mut state = self.shared.lock();
        if let Some(event) = state.events.pop_front() {
            drop(state);
            deferred.resolve(Box::new(move |_| Ok(Some(event.json))));
        } else if state.finished.is_some() {
            drop(state);
            deferred.resolve(Box::new(|_| Ok(None)));
        } else {
            state.readers.push_back(deferred);
        }
        Ok(promise)
    }

    /// The result as JSON; rejects with the job's error. Holds the process open until the job ends.
    #[napi(catch_unwind, ts_return_type = "Promise<string>")]
    pub fn result<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let (deferred, promise) = env.create_deferred::<String, Box<dyn FnOnce(Env) -> Result<String>>>()?;
        let mut state = self.shared.lock();
        match state.finished.clone() {
            Some(finished) => {
                drop(state);
                settle(deferred, finished);
            }
            None => state.waiting.push(deferred),
        }
        Ok(promise)
    }

    /// Asks the job to stop after its current step.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }

    /// The model a finished job made.
    #[napi(catch_unwind)]
    pub fn take_model(&self) -> Result<NativeModel> {
        self.shared.lock().model.take().ok_or_else(|| Failure::internal("the job made no model").into())
    }

    /// The atlas a finished job made.
    #[napi(catch_unwind)]
    pub fn take_atlas(&self) -> Result<NativeAtlas> {
        self.shared.lock().atlas.take().ok_or_else(|| Failure::internal("the job made no atlas").into())
    }

    /// The states a finished job made.
    #[napi(catch_unwind)]
    pub fn take_states(&self) -> Result<Float32Array> {
        let states = self.shared.lock().states.take();
        states.map(Into::into).ok_or_else(|| Failure::internal("the job made no states").into())
    }
}
