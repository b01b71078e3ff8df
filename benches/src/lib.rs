//! Shapes and inputs shared by the benches: the paper's sizes, pseudo-random numbers.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod model;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use lucid_kernels::cpu::Cpu;
use lucid_kernels::{CodeShape, Codes, Dictionary, KernelError, Pairs, Plan, Selection, Transport, TransportOptions};
use lucid_kernels::{Encode, SinkhornOptions};

/// Width of the activations of both modalities (SigLIP ViT-B/16).
pub const WIDTH: usize = 768;
/// Patches of an image.
pub const PATCHES: usize = 196;
/// Text tokens of a caption, the padded length.
pub const TOKENS: usize = 64;
/// The paper's codes: 1536 + 4608 latents, k 16 + 32.
pub const SHAPE: CodeShape =
    CodeShape { d_shared: 1536, d_private: 4608, k_shared: 16, k_private: 32, selection: Selection::Split };
/// Pairs of a bench's batch.
pub const PAIRS: usize = 16;

/// Pseudo-random numbers in [-1, 1) (SplitMix64), the same in every run.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// As [`numbers`], times `scale`.
pub fn scaled(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    numbers(seed, len).into_iter().map(|value| value * scale).collect()
}

/// A batch of the paper's shape with everything its kernels need.
pub struct Workload {
    /// The backend, on all cores.
    pub cpu: Cpu,
    /// Pairs of 196 patches and 64 tokens.
    pub pairs: Pairs,
    /// Parameters of one modality; both use the same here.
    pub dictionary: Dictionary<Cpu>,
    /// Patch activations \[n · 768\].
    pub vision: Vec<f32>,
    /// Text activations \[n · 768\].
    pub text: Vec<f32>,
    /// Codes of the patches.
    pub vision_codes: Codes<Cpu>,
    /// Codes of the text tokens.
    pub text_codes: Codes<Cpu>,
}

impl Workload {
    /// The batch, encoded.
    pub fn new() -> Result<Self, KernelError> {
        let cpu = Cpu::new(None)?;
        let pairs = Pairs::new(&[PATCHES; PAIRS], &[TOKENS; PAIRS])?;
        let latents = SHAPE.latents();
        let scale = 1.0 / (WIDTH as f32).sqrt();
        let dictionary = Dictionary {
            d: WIDTH,
            latents,
            w_enc_t: scaled(1, latents * WIDTH, scale),
            b_enc: scaled(2, latents, 0.01),
            w_dec: scaled(3, latents * WIDTH, scale),
            b_dec: scaled(4, WIDTH, 0.1),
        };
        let vision = numbers(5, pairs.vision.total() * WIDTH);
        let text = numbers(6, pairs.text.total() * WIDTH);
        let mut vision_codes = Codes::new(&cpu, pairs.vision.total(), SHAPE)?;
        let mut text_codes = Codes::new(&cpu, pairs.text.total(), SHAPE)?;
        cpu.encode_topk(&vision, &dictionary, &mut vision_codes)?;
        cpu.encode_topk(&text, &dictionary, &mut text_codes)?;
        Ok(Self { cpu, pairs, dictionary, vision, text, vision_codes, text_codes })
    }

    /// Patches and text tokens together.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.pairs.vision.total() + self.pairs.text.total()
    }

    /// The guided plan of the batch.
    pub fn transport(&self) -> Result<Transport<Cpu>, KernelError> {
        let mut transport = Transport::new(&self.cpu, &self.pairs)?;
        let options = TransportOptions {
            sinkhorn: SINKHORN,
            mass_reweighting: true,
            lambda_global: 0.5,
            mask_penalty: f64::INFINITY,
        };
        transport.solve(&self.cpu, &self.vision_codes, &self.text_codes, &self.pairs, None, &options)?;
        Ok(transport)
    }

    /// Room for the plans of the batch.
    pub fn plan(&self) -> Result<Plan<Cpu>, KernelError> {
        Plan::new(&self.cpu, &self.pairs)
    }
}

/// The paper's ten iterations at ε = 0.1.
pub const SINKHORN: SinkhornOptions = SinkhornOptions { epsilon: 0.1, iterations: 10, tolerance: 0.0, sink_mass: 0.0 };

/// What a bench's elements are.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Patches and text tokens.
    Tokens,
    /// Values of a parameter array.
    Parameters,
}

/// Times `call` and prints criterion's figures and a line with the best sample: time an element, elements a second
/// and GFLOP/s. `flop` are those of one call.
pub fn measure(
    criterion: &mut Criterion,
    family: &str,
    name: &str,
    (unit, elements): (Unit, usize),
    flop: f64,
    mut call: impl FnMut() -> Result<(), KernelError>,
) {
    let mut best = Duration::MAX;
    let mut failure = None;
    let mut group = criterion.benchmark_group(family);
    group
        .throughput(Throughput::Elements(elements as u64))
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                for _ in 0..iterations {
                    if let Err(error) = call() {
                        failure = Some(error);
                    }
                }
                let elapsed = start.elapsed();
                best = best.min(elapsed / u32::try_from(iterations).unwrap_or(u32::MAX));
                elapsed
            });
        });
    group.finish();
    let seconds = best.as_secs_f64();
    let (label, singular) = match unit {
        Unit::Tokens => ("tokens", "token"),
        Unit::Parameters => ("parameters", "parameter"),
    };
    match failure {
        Some(error) => println!("{family}/{name}: failed: {error}"),
        None => println!(
            "{family}/{name}: best {:.4} µs/{singular}, {:.4e} {label}/s, {:.2} GFLOP/s\n",
            seconds * 1e6 / elements as f64,
            elements as f64 / seconds,
            flop / seconds / 1e9,
        ),
    }
}

/// Runs the benches of one file; an error of the set-up ends it with a message.
pub fn run(benches: impl FnOnce(&mut Criterion, &mut Workload) -> Result<(), KernelError>) {
    let mut criterion = Criterion::default().configure_from_args();
    let outcome = Workload::new().and_then(|mut workload| {
        println!("{} threads, {}", workload.cpu.threads(), workload.cpu.instruction_set().name());
        benches(&mut criterion, &mut workload)
    });
    if let Err(error) = outcome {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
    criterion.final_summary();
}
