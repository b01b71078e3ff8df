//! Times the whole training step at a chosen shape: the trainer itself, on one batch of random activations in memory.

use std::sync::Mutex;

use lucid_data::store::{CaptionActivations, MemoryStore, PairActivations};
use lucid_sae::{Config, Preset, TrainEvent, TrainObserver, TrainOptions};
use napi::Result;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::json;

use crate::error::Failure;
use crate::job::{NativeJob, Outcome, Shared, spawn};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Request {
    d_vision: usize,
    d_text: usize,
    d_shared: usize,
    d_private: usize,
    k_shared: usize,
    k_private: usize,
    patches: usize,
    tokens: usize,
    batch_pairs: usize,
    micro_pairs: Option<usize>,
    preset: String,
    steps: usize,
    threads: Option<usize>,
    seed: u64,
}

impl Default for Request {
    /// The paper's shape (spec 1).
    fn default() -> Self {
        Self {
            d_vision: 768,
            d_text: 768,
            d_shared: 1536,
            d_private: 4608,
            k_shared: 16,
            k_private: 32,
            patches: 196,
            tokens: 64,
            batch_pairs: 8,
            micro_pairs: None,
            preset: "default".into(),
            steps: 3,
            threads: None,
            seed: 0,
        }
    }
}

/// Numbers in (−1, 1): enough to time with, and the same everywhere.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, values: &mut [f32]) {
        for value in values {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *value = (self.0 >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        }
    }
}

fn random_batch(request: &Request) -> std::result::Result<MemoryStore, Failure> {
    let mut store = MemoryStore::new(request.d_vision, request.d_text)?;
    let mut noise = Noise(request.seed.wrapping_add(1));
    let mut vision = vec![0.0; request.patches * request.d_vision];
    let mut text = vec![0.0; request.tokens * request.d_text];
    for pair in 0..request.batch_pairs {
        noise.fill(&mut vision);
        noise.fill(&mut text);
        store.push(&PairActivations {
            key: &format!("random-{pair}"),
            vision: &vision,
            vision_grid: [1, request.patches as u32],
            captions: &[CaptionActivations { text: "", states: &text, ids: &[], kinds: &[], spans: &[] }],
            size: None,
            boxes: &[],
            thumbnail: None,
        })?;
    }
    Ok(store)
}

/// Gathers the time of every step.
struct Stopwatch<'a> {
    shared: &'a Shared,
    seconds: Mutex<Vec<f64>>,
}

impl TrainObserver for Stopwatch<'_> {
    fn event(&self, event: &TrainEvent) {
        if let TrainEvent::Step { step, steps, seconds_step, .. } = event {
            lucid_data::progress::Observer::progress(self.shared, "step", *step as u64, *steps as u64);
            if let Ok(mut seconds) = self.seconds.lock() {
                seconds.push(*seconds_step);
            }
        }
    }

    fn cancelled(&self) -> bool {
        self.shared.is_cancelled()
    }
}

/// Starts a timing.
#[napi(catch_unwind)]
pub fn start_bench(options: String) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    for (option, value) in [
        ("steps", request.steps),
        ("batchPairs", request.batch_pairs),
        ("patches", request.patches),
        ("tokens", request.tokens),
    ] {
        if value == 0 {
            return Err(Failure::option(option, 0, "at least 1").into());
        }
    }
    if request.threads == Some(0) {
        return Err(Failure::option("threads", 0, "at least 1").into());
    }
    spawn("bench", None, move |shared| {
        let fields = json!({
            "dShared": request.d_shared,
            "dPrivate": request.d_private,
            "kShared": request.k_shared,
            "kPrivate": request.k_private,
            "batchPairs": request.batch_pairs,
            "microPairs": request.micro_pairs.unwrap_or(request.batch_pairs),
            // The first step also warms caches and pages, and is not counted.
            "steps": request.steps + 1,
            "initialise": "random",
            "seed": request.seed,
        });
        let config = Config::resolve(Preset::parse(&request.preset)?, &fields)?;
        let options = TrainOptions { threads: request.threads.unwrap_or(0), ..TrainOptions::new(config) };
        let store = random_batch(&request)?;
        let stopwatch = Stopwatch { shared, seconds: Mutex::default() };
        let model = lucid_sae::train(&store, None, &options, &stopwatch)?;
        let seconds = stopwatch.seconds.into_inner().unwrap_or_default();
        let timed = &seconds[1..];
        let mut sorted = timed.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let tokens = request.batch_pairs * (request.patches + request.tokens);
        let parameters = model.info().parameters;
        let threads = request.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Ok(Outcome::from(json!({
            "steps": timed.len(),
            "tokensPerStep": tokens,
            "seconds": timed,
            "microsecondsPerToken": median * 1e6 / tokens as f64,
            "tokensPerSecond": tokens as f64 / median,
            // Weights, gradients and two moments.
            "stateBytes": parameters * 4 * size_of::<f32>(),
            "threads": threads,
            "shape": {
                "dVision": request.d_vision,
                "dText": request.d_text,
                "dShared": request.d_shared,
                "dPrivate": request.d_private,
                "kShared": request.k_shared,
                "kPrivate": request.k_private,
                "patches": request.patches,
                "tokens": request.tokens,
                "batchPairs": request.batch_pairs,
            },
        })))
    })
}
