//! Small stores with known concepts, and what the tests of training share.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use lucid_data::store::{ActivationSource, CaptionActivations, MemoryStore, PairActivations, Statistics};
use lucid_sae::rng::{Purpose, Stream};
use lucid_sae::{Config, TrainEvent, TrainObserver};
use serde_json::Value;

/// Draws from a stream, one after the other.
pub struct Draws(Stream, u64);

impl Draws {
    pub fn new(seed: u64, index: u64) -> Self {
        Self(Stream::new(seed, Purpose::Decoder).child(index), 0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.1 += 1;
        (self.0.uniform(self.1) * bound as f64) as usize
    }

    pub fn uniform(&mut self) -> f32 {
        self.1 += 1;
        self.0.uniform(self.1) as f32
    }

    pub fn normal(&mut self) -> f32 {
        self.1 += 1;
        self.0.normal(self.1) as f32
    }

    pub fn direction(&mut self, d: usize) -> Vec<f32> {
        let mut row = vec![0.0; d];
        self.1 += 1;
        self.0.child(self.1).direction(&mut row);
        row
    }
}

/// Pairs of patches and tokens made of `concepts` with one dictionary a modality, and those dictionaries.
pub struct Synthetic {
    pub store: MemoryStore,
    /// Atoms \[concepts\]\[d_v\].
    pub vision: Vec<Vec<f32>>,
    /// Atoms \[concepts\]\[d_t\].
    pub text: Vec<Vec<f32>>,
}

/// Every pair shows 3 concepts; each patch holds one or two of them, each token one; a constant offset and noise.
pub fn synthetic(seed: u64, pairs: usize, concepts: usize, d_vision: usize, d_text: usize) -> Synthetic {
    let mut draws = Draws::new(seed, u64::MAX);
    let atoms = |d: usize, draws: &mut Draws| (0..concepts).map(|_| draws.direction(d)).collect::<Vec<_>>();
    let (vision, text) = (atoms(d_vision, &mut draws), atoms(d_text, &mut draws));
    let (offset_v, offset_t) = (draws.direction(d_vision), draws.direction(d_text));
    let mut store = MemoryStore::new(d_vision, d_text).unwrap();
    for pair in 0..pairs {
        let mut draws = Draws::new(seed, pair as u64);
        let shown: Vec<usize> = (0..3).map(|_| draws.below(concepts)).collect();
        let token = |kinds: &[usize], atoms: &[Vec<f32>], offset: &[f32], draws: &mut Draws| {
            let mut state: Vec<f32> = offset.iter().map(|x| 0.5 * x + 0.03 * draws.normal()).collect();
            for kind in kinds {
                let size = 0.75 + 0.5 * draws.uniform();
                state.iter_mut().zip(&atoms[*kind]).for_each(|(s, a)| *s += size * a);
            }
            state
        };
        let mut patches = Vec::new();
        for _ in 0..6 {
            let mut kinds = vec![shown[draws.below(3)]];
            if draws.uniform() < 0.3 {
                kinds.push(shown[draws.below(3)]);
            }
            patches.extend(token(&kinds, &vision, &offset_v, &mut draws));
        }
        // Two captions of different lengths.
        let captions: Vec<Vec<f32>> = (0..2)
            .map(|caption| {
                let order: Vec<usize> = (0..3 - caption).map(|i| shown[(i + caption) % 3]).collect();
                order.iter().flat_map(|kind| token(&[*kind], &text, &offset_t, &mut draws)).collect()
            })
            .collect();
        let captions: Vec<CaptionActivations> = captions
            .iter()
            .map(|states| CaptionActivations { text: "", states, ids: &[], kinds: &[], spans: &[] })
            .collect();
        store
            .push(&PairActivations {
                key: &format!("pair-{pair}"),
                vision: &patches,
                vision_grid: [2, 3],
                captions: &captions,
                size: None,
                boxes: &[],
                thumbnail: None,
            })
            .unwrap();
    }
    Synthetic { store, vision, text }
}

/// A configuration that trains in milliseconds and uses every part, AuxK included.
pub fn tiny() -> Config {
    Config {
        d_shared: 14,
        d_private: 10,
        k_shared: 3,
        k_private: 2,
        dead_after_tokens: 60,
        k_aux: 4,
        lr: 3e-3,
        batch_pairs: 5,
        micro_pairs: 2,
        steps: 11,
        seed: 7,
        ..Config::default()
    }
}

/// The store `tiny` trains on.
pub fn tiny_store() -> MemoryStore {
    synthetic(1, 13, 9, 12, 10).store
}

/// Keeps the events and stops the run after a given step.
#[derive(Default)]
pub struct Recorder {
    pub events: Mutex<Vec<TrainEvent>>,
    pub stop_after: Option<usize>,
    pub stopped: AtomicBool,
}

impl Recorder {
    pub fn stopping_after(step: usize) -> Self {
        Self { stop_after: Some(step), ..Self::default() }
    }

    pub fn warnings(&self) -> Vec<String> {
        let codes = |event: &TrainEvent| match event {
            TrainEvent::Warning { code, .. } => Some(code.clone()),
            _ => None,
        };
        self.events.lock().unwrap().iter().filter_map(codes).collect()
    }

    pub fn losses(&self) -> Vec<f64> {
        let loss = |event: &TrainEvent| match event {
            TrainEvent::Step { loss, .. } => Some(*loss),
            _ => None,
        };
        self.events.lock().unwrap().iter().filter_map(loss).collect()
    }
}

impl TrainObserver for Recorder {
    fn event(&self, event: &TrainEvent) {
        if let TrainEvent::Step { step, .. } = event
            && self.stop_after == Some(*step)
        {
            self.stopped.store(true, Ordering::SeqCst);
        }
        self.events.lock().unwrap().push(event.clone());
    }

    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// A store in which one value of one pair is replaced.
pub struct Poisoned {
    pub inner: MemoryStore,
    pub pair: usize,
    pub value: f32,
}

impl ActivationSource for Poisoned {
    fn pairs(&self) -> usize {
        self.inner.pairs()
    }
    fn d_vision(&self) -> usize {
        self.inner.d_vision()
    }
    fn d_text(&self) -> usize {
        self.inner.d_text()
    }
    fn vision_len(&self, pair: usize) -> usize {
        self.inner.vision_len(pair)
    }
    fn captions(&self, pair: usize) -> usize {
        self.inner.captions(pair)
    }
    fn text_len(&self, pair: usize, caption: usize) -> usize {
        self.inner.text_len(pair, caption)
    }
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> lucid_data::Result<()> {
        self.inner.read_vision(pair, out)?;
        if pair == self.pair {
            out[3] = self.value;
        }
        Ok(())
    }
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> lucid_data::Result<()> {
        self.inner.read_text(pair, caption, out)
    }
    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
    fn key(&self, pair: usize) -> &str {
        self.inner.key(pair)
    }
}

/// What of a run must not depend on how it was made: files by name, without the times in the log.
pub fn artefacts(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(run, run, &mut found);
    found.remove(".lock");
    let log = String::from_utf8(found.remove("metrics.jsonl").unwrap()).unwrap();
    let lines: Vec<String> = log.lines().map(without_times).collect();
    found.insert("metrics".into(), lines.join("\n").into_bytes());
    // Their bytes count the log's, and that holds times.
    found.retain(|name, _| !name.ends_with("state.json") && !name.ends_with("MANIFEST.json"));
    found
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

fn without_times(line: &str) -> String {
    let mut value: Value = serde_json::from_str(line).unwrap();
    for name in ["tokensPerSecond", "secondsData", "secondsStep"] {
        value.as_object_mut().unwrap().remove(name);
    }
    value.to_string()
}

/// Copies a folder with all it holds.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
