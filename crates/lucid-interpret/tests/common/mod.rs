//! A small model made by hand, and small worlds to try it on.
#![allow(dead_code, clippy::unwrap_used)]

use lucid_data::BoxAnnotation;
use lucid_data::store::{CaptionActivations, MemoryStore, PairActivations};
use lucid_interpret::{Coder, Evaluation, InterpretError, PairPlan, SparseCodes};
use lucid_kernels::{Block, Modality};
use serde_json::Value;

/// Tied dictionaries without training: a = W (h − b), ReLU, Top-k by block; ĥ = Wᵀ z + b.
#[derive(Clone)]
pub struct LinearCoder {
    pub d: usize,
    pub d_shared: usize,
    pub k: [usize; 2],
    /// Atoms by modality, `[latents · d]`.
    pub atoms: [Vec<f32>; 2],
    pub bias: [Vec<f32>; 2],
    pub iterations: usize,
}

impl LinearCoder {
    /// Every axis is an atom, all of them shared, the same in both modalities; all positive entries are kept.
    pub fn axes(d: usize) -> Self {
        let axes: Vec<f32> = (0..d * d).map(|i| f32::from(u8::from(i / d == i % d))).collect();
        Self {
            d,
            d_shared: d,
            k: [d, 0],
            atoms: [axes.clone(), axes],
            bias: [vec![0.0; d], vec![0.0; d]],
            iterations: 10,
        }
    }

    /// Both directions of every axis, the positive ones shared and the negative ones private: reconstructs anything.
    pub fn signed_axes(d: usize) -> Self {
        let mut coder = Self::axes(d);
        for atoms in &mut coder.atoms {
            let negative: Vec<f32> = atoms.iter().map(|a| -a).collect();
            atoms.extend(negative);
        }
        coder.k = [d, d];
        coder
    }

    fn side(modality: Modality) -> usize {
        match modality {
            Modality::Vision => 0,
            Modality::Text => 1,
        }
    }
}

impl Coder for LinearCoder {
    fn width(&self, _: Modality) -> usize {
        self.d
    }

    fn d_shared(&self) -> usize {
        self.d_shared
    }

    fn latents(&self) -> usize {
        self.atoms[0].len() / self.d
    }

    fn encode(&self, activations: &[f32], modality: Modality) -> Result<SparseCodes, InterpretError> {
        let (atoms, bias) = (&self.atoms[Self::side(modality)], &self.bias[Self::side(modality)]);
        let mut codes = SparseCodes::new(self.d_shared);
        for row in activations.chunks_exact(self.d) {
            let value = |atom: &[f32]| atom.iter().zip(row).zip(bias).map(|((a, h), b)| a * (h - b)).sum::<f32>();
            let mut all: Vec<(u32, f32)> =
                atoms.chunks_exact(self.d).map(value).enumerate().map(|(i, v)| (i as u32, v)).collect();
            all.retain(|&(_, v)| v > 0.0);
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let block = |private: bool, k| {
                all.iter().copied().filter(move |&(i, _)| (i as usize >= self.d_shared) == private).take(k)
            };
            codes.push(block(false, self.k[0]).chain(block(true, self.k[1])).collect::<Vec<_>>());
        }
        Ok(codes)
    }

    fn decode(&self, codes: &SparseCodes, modality: Modality, block: Block) -> Result<Vec<f32>, InterpretError> {
        let (atoms, bias) = (&self.atoms[Self::side(modality)], &self.bias[Self::side(modality)]);
        let mut out = Vec::new();
        for token in 0..codes.len() {
            let row = match block {
                Block::Joint => codes.row(token),
                Block::Shared => codes.shared(token),
                Block::Private => codes.private(token),
            };
            let mut h = bias.clone();
            for (latent, value) in row.iter() {
                let atom = &atoms[latent as usize * self.d..][..self.d];
                h.iter_mut().zip(atom).for_each(|(h, a)| *h += value * a);
            }
            out.extend(h);
        }
        Ok(out)
    }

    fn plan(&self, vision: &SparseCodes, text: &SparseCodes) -> Result<PairPlan, InterpretError> {
        let (rows, columns) = (vision.len(), text.len());
        let kernel: Vec<f64> = (0..rows * columns)
            .map(|cell| ((vision.shared(cell / columns).cosine(&text.shared(cell % columns)) - 1.0) / 0.1).exp())
            .collect();
        let (mut u, mut v) = (vec![1.0; rows], vec![1.0; columns]);
        for _ in 0..self.iterations {
            for i in 0..rows {
                u[i] = 1.0 / rows as f64 / (0..columns).map(|j| kernel[i * columns + j] * v[j]).sum::<f64>();
            }
            for j in 0..columns {
                v[j] = 1.0 / columns as f64 / (0..rows).map(|i| kernel[i * columns + j] * u[i]).sum::<f64>();
            }
        }
        let mass = (0..rows * columns).map(|cell| u[cell / columns] * kernel[cell] * v[cell % columns]).collect();
        Ok(PairPlan { rows, columns, mass })
    }
}

/// Repeatable numbers in [-1, 1).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((f64::from(self.next()) + 1.0) / 2.0 * n as f64) as usize % n
    }

    pub fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// One pair to be put into a store.
#[derive(Clone)]
pub struct Made {
    pub key: String,
    pub grid: [u32; 2],
    pub vision: Vec<f32>,
    pub caption: String,
    pub text: Vec<f32>,
    pub kinds: Vec<u8>,
    pub spans: Vec<[u32; 2]>,
    pub boxes: Vec<BoxAnnotation>,
    pub size: Option<[u32; 2]>,
    pub thumbnail: Option<Vec<u8>>,
}

/// Word spans of a caption.
pub fn word_spans(caption: &str) -> Vec<[u32; 2]> {
    let mut spans = Vec::new();
    let mut start = 0;
    for word in caption.split(' ') {
        spans.push([start, start + word.len() as u32]);
        start += word.len() as u32 + 1;
    }
    spans
}

/// Pairs with ragged texts, boxes and phrases, and structure shared by both halves of a pair.
pub fn random_pairs(n: usize, d: usize, seed: u64) -> Vec<Made> {
    let mut numbers = Numbers(seed);
    (0..n)
        .map(|i| {
            let common = numbers.vector(d);
            let grid = [3 + (i % 2) as u32, 4];
            let patches = (grid[0] * grid[1]) as usize;
            let words = ["a dog runs", "two cats", "the red dog and a ball"][i % 3];
            let mut spans = word_spans(words);
            let mut kinds = vec![0; spans.len()];
            spans.push([0, 0]);
            kinds.push(1);
            let mut states = |tokens: usize| -> Vec<f32> {
                (0..tokens)
                    .flat_map(|_| {
                        numbers.vector(d).into_iter().zip(&common).map(|(x, c)| 0.7 * x + c + 0.3).collect::<Vec<_>>()
                    })
                    .collect()
            };
            let (vision, text) = (states(patches), states(kinds.len()));
            let mut boxed = |category: &str, phrase| BoxAnnotation {
                x: f64::from(20.0 + 19.0 * numbers.next()),
                y: f64::from(20.0 + 19.0 * numbers.next()),
                width: f64::from(30.0 + 25.0 * numbers.next()),
                height: f64::from(30.0 + 25.0 * numbers.next()),
                category: Some(category.into()),
                phrase,
                ..Default::default()
            };
            Made {
                key: format!("pair-{i}"),
                grid,
                vision,
                caption: words.into(),
                text,
                kinds,
                spans,
                boxes: vec![boxed("dog", Some([0, 5])), boxed("cat", None)],
                size: Some([80, 60]),
                thumbnail: None,
            }
        })
        .collect()
}

/// A store of the pairs in the given order.
pub fn store(d: usize, pairs: &[Made]) -> MemoryStore {
    let mut store = MemoryStore::new(d, d).unwrap();
    for pair in pairs {
        let ids: Vec<u32> = (0..pair.kinds.len() as u32).collect();
        let caption = CaptionActivations {
            text: &pair.caption,
            states: &pair.text,
            ids: &ids,
            kinds: &pair.kinds,
            spans: &pair.spans,
        };
        store
            .push(&PairActivations {
                key: &pair.key,
                vision: &pair.vision,
                vision_grid: pair.grid,
                captions: &[caption],
                size: pair.size,
                boxes: &pair.boxes,
                thumbnail: pair.thumbnail.as_deref(),
            })
            .unwrap();
    }
    store
}

/// Numbers of an evaluation that have no interval, and are neither counts nor what a number is held against.
pub fn without_interval(evaluation: &Evaluation) -> Vec<String> {
    const COUNTS: [&str; 11] = [
        "format",
        "seed",
        "pairs",
        "tokens",
        "images",
        "queries",
        "emptyMaps",
        "dead",
        "neighbours",
        "words",
        "concepts",
    ];
    const HELD_AGAINST: [&str; 6] = ["controls", "ceiling", "chance", "random", "shuffled", "identityChance"];
    fn numbers(node: &Value, path: &str, found: &mut Vec<String>) {
        match node {
            Value::Object(fields) => {
                for (name, node) in fields {
                    let other = COUNTS.contains(&&**name) || HELD_AGAINST.contains(&&**name);
                    // Lists of latents are rows of their own; `latents` of a summary is their number.
                    if !other && !name.ends_with("Uniform") && !["latents", "intervals", "skipped"].contains(&&**name) {
                        numbers(node, &format!("{path}.{name}"), found);
                    }
                }
            }
            Value::Number(_) => found.push(path[1..].to_owned()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    numbers(&serde_json::to_value(evaluation).unwrap(), "", &mut found);
    assert!(found.len() > 50, "{found:?}");
    found.retain(|path| !evaluation.intervals.contains_key(path));
    found
}
