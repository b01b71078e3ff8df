//! Fixtures of an independent implementation, and what step tests share.
#![allow(dead_code)]

pub mod oracle;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lucid_kernels::{Backend, DeadLists, KernelError, Modality, Real};
use lucid_sae::batch::{HostPairs, MicroBatch, Sides};
use lucid_sae::config::{Config, Preset};
use lucid_sae::losses::StepReport;
use lucid_sae::params::{HostDictionary, HostParams, Params};
use lucid_sae::step::{Step, StepInputs};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Calls `check` with the CUDA kernels on the CPU, the threads of a block in three orders.
#[cfg(feature = "cuda-shim")]
pub fn on_shim(check: impl Fn(&lucid_kernels::cuda::Cuda<lucid_kernels::cuda::Shim>)) {
    use lucid_kernels::cuda::{Cuda, Order, Shim};
    for order in [Order::Forward, Order::Reverse, Order::Random(3)] {
        check(&Cuda::new(std::sync::Arc::new(Shim::new(order))).unwrap());
    }
}

/// Calls `check` with a GPU, or says why there is none.
#[cfg(feature = "cuda-gpu")]
pub fn on_gpu(check: impl Fn(&lucid_kernels::cuda::Cuda<lucid_kernels::cuda::Graphs<lucid_kernels::cuda::Gpu>>)) {
    match lucid_kernels::cuda::open(None) {
        Ok(gpu) => check(&gpu),
        Err(error) => println!("SKIPPED: {error}"),
    }
}

/// A fixture file: tensors as f64, and its metadata.
pub struct Fixture {
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    pub metadata: BTreeMap<String, String>,
}

impl Fixture {
    pub fn load(name: &str) -> Self {
        // Where the test was built, or where it was copied to with its fixtures.
        let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let path = std::env::var_os("LUCID_FIXTURES").map_or(built, PathBuf::from).join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::I32 => data.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
                Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
                other => panic!("unexpected dtype {other:?}"),
            };
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Self { tensors: tensors.collect(), metadata }
    }

    pub fn values(&self, name: &str) -> &[f64] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}")).1
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.metadata[name]).unwrap()
    }

    pub fn config(&self) -> Config {
        Config::resolve(Preset::Paper, &self.json("config")).unwrap()
    }

    pub fn lengths(&self, modality: Modality) -> Vec<usize> {
        self.values(&format!("batch.{}Lengths", modality.name())).iter().map(|&n| n as usize).collect()
    }

    pub fn variance(&self, name: &str) -> Option<Sides<f64>> {
        let value: Value = serde_json::from_str(self.metadata.get(name)?).unwrap();
        Some(Sides { vision: value["vision"].as_f64().unwrap(), text: value["text"].as_f64().unwrap() })
    }

    pub fn params(&self, prefix: &str) -> HostParams<f64> {
        let side = |m: Modality| {
            let tensor = |name: &str| &self.tensors[&format!("{prefix}.{}.{name}", m.name())];
            let (shape, w_enc) = tensor("W_enc");
            HostDictionary {
                d: shape[0],
                latents: shape[1],
                w_enc: w_enc.clone(),
                b_enc: tensor("b_enc").1.clone(),
                w_dec: tensor("W_dec").1.clone(),
                b_dec: tensor("b_dec").1.clone(),
            }
        };
        HostParams { vision: side(Modality::Vision), text: side(Modality::Text), log_threshold: None }
    }

    pub fn dead(&self, config: &Config) -> Sides<DeadLists> {
        let side = |m: Modality| {
            let flags = self.tensors.get(&format!("dead.{}", m.name())).map_or(&[][..], |(_, values)| values);
            DeadLists::from_flags(flags.iter().map(|&flag| flag != 0.0), config.d_shared)
        };
        Sides { vision: side(Modality::Vision), text: side(Modality::Text) }
    }

    /// The fixture as a case any backend can run.
    pub fn case(&self) -> Case {
        let config = self.config();
        Case {
            params: self.params("param"),
            vision: self.values("batch.vision").to_vec(),
            vision_lengths: self.lengths(Modality::Vision),
            text: self.values("batch.text").to_vec(),
            text_lengths: self.lengths(Modality::Text),
            admissible: self.tensors.get("batch.admissible").map(|(_, mask)| mask.clone()),
            variance: self.variance("variance").unwrap(),
            pooled_variance: self.variance("pooledVariance"),
            dead: self.dead(&config),
            config,
        }
    }
}

/// Everything a step needs, in f64 on the host.
#[derive(Clone)]
pub struct Case {
    pub params: HostParams<f64>,
    pub vision: Vec<f64>,
    pub vision_lengths: Vec<usize>,
    pub text: Vec<f64>,
    pub text_lengths: Vec<usize>,
    pub admissible: Option<Vec<f64>>,
    pub variance: Sides<f64>,
    pub pooled_variance: Option<Sides<f64>>,
    pub dead: Sides<DeadLists>,
    pub config: Config,
}

pub fn narrow<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&value| T::from_f64(value)).collect()
}

pub fn widen<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.widen()).collect()
}

fn convert<S: Real, T: Real>(host: &HostParams<S>) -> HostParams<T> {
    let array = |values: &[S]| narrow::<T>(&widen(values));
    let side = |m: Modality| {
        let from = host.of(m);
        HostDictionary {
            d: from.d,
            latents: from.latents,
            w_enc: array(&from.w_enc),
            b_enc: array(&from.b_enc),
            w_dec: array(&from.w_dec),
            b_dec: array(&from.b_dec),
        }
    };
    let log_threshold = host.log_threshold.as_ref().map(|t| Sides { vision: array(&t.vision), text: array(&t.text) });
    HostParams { vision: side(Modality::Vision), text: side(Modality::Text), log_threshold }
}

/// The same pairs in groups of at most `micro_pairs`.
fn split<'a, T>(host: &HostPairs<'a, T>, d_vision: usize, d_text: usize, micro_pairs: usize) -> Vec<HostPairs<'a, T>> {
    let (mut v, mut t, mut c) = (0, 0, 0);
    let lengths = host.vision_lengths.chunks(micro_pairs.max(1)).zip(host.text_lengths.chunks(micro_pairs.max(1)));
    lengths
        .map(|(vision_lengths, text_lengths)| {
            let tokens = (vision_lengths.iter().sum::<usize>(), text_lengths.iter().sum::<usize>());
            let cells: usize = vision_lengths.iter().zip(text_lengths).map(|(rows, columns)| rows * columns).sum();
            let part = HostPairs {
                vision: &host.vision[v * d_vision..(v + tokens.0) * d_vision],
                vision_lengths,
                text: &host.text[t * d_text..(t + tokens.1) * d_text],
                text_lengths,
                admissible: host.admissible.map(|mask| &mask[c..c + cells]),
            };
            (v, t, c) = (v + tokens.0, t + tokens.1, c + cells);
            part
        })
        .collect()
}

impl Case {
    pub fn upload_params<B: Backend>(&self, backend: &B) -> Params<B> {
        Params::upload(backend, &convert(&self.params)).unwrap()
    }

    pub fn micro_batches<B: Backend>(&self, backend: &B, micro_pairs: usize) -> Vec<MicroBatch<B>> {
        let (d_vision, d_text) = (self.params.vision.d, self.params.text.d);
        let (vision, text) = (narrow::<B::Real>(&self.vision), narrow::<B::Real>(&self.text));
        let admissible = self.admissible.as_deref().map(narrow::<B::Real>);
        let host = HostPairs {
            vision: &vision,
            vision_lengths: &self.vision_lengths,
            text: &text,
            text_lengths: &self.text_lengths,
            admissible: admissible.as_deref(),
        };
        let parts = split(&host, d_vision, d_text, micro_pairs);
        parts.iter().map(|part| MicroBatch::upload(backend, d_vision, d_text, part).unwrap()).collect()
    }

    pub fn inputs(&self) -> StepInputs<'_> {
        StepInputs {
            config: &self.config,
            variance: self.variance,
            pooled_variance: self.pooled_variance,
            dead: &self.dead,
            keep_plan: true,
            encoder: None,
        }
    }

    pub fn try_run<B: Backend>(
        &self,
        backend: &B,
        micro_pairs: usize,
    ) -> Result<(StepReport<B::Real>, HostParams<f64>), KernelError> {
        let params = self.upload_params(backend);
        let mut step = Step::new(backend, &params, &self.config)?;
        let batch = self.micro_batches(backend, micro_pairs);
        let report = step.run(backend, &params, &batch, &self.inputs())?;
        Ok((report, convert(&step.gradients.read(backend)?)))
    }

    /// Losses, gradients (widened to f64) and plan.
    pub fn run<B: Backend>(&self, backend: &B, micro_pairs: usize) -> (StepReport<B::Real>, HostParams<f64>) {
        self.try_run(backend, micro_pairs).unwrap()
    }
}

/// Every array of parameters, by name.
pub fn named(params: &HostParams<f64>) -> Vec<(String, Vec<f64>)> {
    let mut out = Vec::new();
    for m in Modality::ALL {
        for tensor in params.of(m).tensors() {
            out.push((format!("{}.{}", m.name(), tensor.name), tensor.values.to_vec()));
        }
    }
    out
}

/// |found − expected| / |expected| as vectors; the plain difference where nothing is expected.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let scale = norm(&mut expected.iter().copied());
    if scale > 0.0 { difference / scale } else { difference }
}

/// A small case with random values: three pairs, widths 6 and 5, 8 + 10 latents, k 3 + 4.
pub fn random_case(seed: u64) -> Case {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut values = |len: usize, scale: f64| -> Vec<f64> {
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                scale * ((state >> 33) as f64 / f64::from(1u32 << 30) - 1.0)
            })
            .collect()
    };
    let config = Config { d_shared: 8, d_private: 10, k_shared: 3, k_private: 4, ..Preset::Paper.config() };
    let mut side = |d: usize| HostDictionary {
        d,
        latents: 18,
        w_enc: values(d * 18, 0.6),
        b_enc: values(18, 0.2),
        w_dec: values(18 * d, 0.6),
        b_dec: values(d, 0.2),
    };
    let params = HostParams { vision: side(6), text: side(5), log_threshold: None };
    Case {
        params,
        vision: values(9 * 6, 1.0),
        vision_lengths: vec![4, 2, 3],
        text: values(7 * 5, 1.0),
        text_lengths: vec![2, 3, 2],
        admissible: None,
        variance: Sides { vision: 1.9, text: 1.4 },
        pooled_variance: Some(Sides { vision: 0.5, text: 0.4 }),
        dead: Sides::default(),
        config,
    }
}
