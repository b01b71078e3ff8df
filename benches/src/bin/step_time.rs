//! Times the whole training step (losses, gradients, AdamW) at the paper's shape on pseudo-random activations, and
//! prints µs/token and the peak memory of the process beside the bound the project sets itself.
//!
//! `step_time [--pairs 256] [--tokens 64] [--micro-pairs 32] [--steps 3] [--threads N] [--bf16] [--json]`

use std::time::Instant;

use lucid_benches::{PATCHES, SHAPE, WIDTH, numbers, scaled};
use lucid_kernels::cpu::Cpu;
use lucid_kernels::{Backend, KernelError, Precision};
use lucid_sae::batch::{HostPairs, MicroBatch, Sides};
use lucid_sae::config::{Config, Preset};
use lucid_sae::optimiser::Optimiser;
use lucid_sae::params::Params;
use lucid_sae::step::{Step, StepInputs};

struct Options {
    pairs: usize,
    tokens: usize,
    micro_pairs: usize,
    steps: usize,
    threads: Option<usize>,
    precision: Precision,
    json: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        pairs: 256,
        tokens: 64,
        micro_pairs: 32,
        steps: 3,
        threads: None,
        precision: Precision::F32,
        json: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--bf16" {
            options.precision = Precision::Bf16;
            continue;
        }
        if name == "--json" {
            options.json = true;
            continue;
        }
        let value = arguments.next().and_then(|value| value.parse::<usize>().ok()).filter(|&value| value > 0);
        let value = value.ok_or_else(|| format!("option '{name}' needs a number of at least 1"))?;
        match name.as_str() {
            "--pairs" => options.pairs = value,
            "--tokens" => options.tokens = value,
            "--micro-pairs" => options.micro_pairs = value,
            "--steps" => options.steps = value,
            "--threads" => options.threads = Some(value),
            _ => {
                return Err(format!(
                    "unknown option '{name}'; known: --pairs --tokens --micro-pairs --steps --threads --bf16 --json"
                ));
            }
        }
    }
    Ok(options)
}

/// Peak resident memory of this process in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn parameters(cpu: &Cpu) -> Result<Params<Cpu>, KernelError> {
    let mut params = Params::zeros(cpu, WIDTH, WIDTH, SHAPE.latents())?;
    let scale = 1.0 / (WIDTH as f32).sqrt();
    for (seed, dictionary) in [(10, &mut params.vision), (20, &mut params.text)] {
        dictionary.w_enc_t = scaled(seed, SHAPE.latents() * WIDTH, scale);
        dictionary.w_dec = scaled(seed + 1, SHAPE.latents() * WIDTH, scale);
    }
    Ok(params)
}

/// The batch on the device. The host's copy of a micro-batch is gone before the next is made.
fn batch(cpu: &Cpu, options: &Options) -> Result<Vec<MicroBatch<Cpu>>, KernelError> {
    let mut batch = Vec::new();
    let mut left = options.pairs;
    while left > 0 {
        let pairs = left.min(options.micro_pairs);
        left -= pairs;
        let seed = 100 + 2 * left as u64;
        let host = HostPairs {
            vision: &numbers(seed, pairs * PATCHES * WIDTH),
            vision_lengths: &vec![PATCHES; pairs],
            text: &numbers(seed + 1, pairs * options.tokens * WIDTH),
            text_lengths: &vec![options.tokens; pairs],
            admissible: None,
        };
        batch.push(MicroBatch::upload(cpu, WIDTH, WIDTH, &host)?);
    }
    Ok(batch)
}

fn run(options: &Options) -> Result<(), KernelError> {
    let cpu = Cpu::new(options.threads)?.with_precision(options.precision)?;
    let config = Config { batch_pairs: options.pairs, micro_pairs: options.micro_pairs, ..Preset::Paper.config() };
    let mut params = parameters(&cpu)?;
    let batch = batch(&cpu, options)?;
    let (mut step, mut optimiser) = (Step::new(&cpu, &params, &config)?, Optimiser::new(&cpu, &params)?);
    let dead = Sides::default();
    let variance = Sides { vision: WIDTH as f64 / 3.0, text: WIDTH as f64 / 3.0 };
    let inputs =
        StepInputs { config: &config, variance, pooled_variance: None, dead: &dead, keep_plan: false, encoder: None };
    let tokens = options.pairs * (PATCHES + options.tokens);
    let mut times = Vec::new();
    let mut loss = 0.0;
    // The first step touches fresh memory and is not counted.
    for index in 0..=options.steps {
        let start = Instant::now();
        loss = step.run(&cpu, &params, &batch, &inputs)?.losses.total;
        let norm = optimiser.prepare(&cpu, &config, &params, &mut step.gradients)?;
        optimiser.apply(&cpu, &config, index, options.steps + 1, norm, &mut params, &step.gradients)?;
        if index > 0 {
            times.push(start.elapsed().as_secs_f64() * 1e6 / tokens as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);

    // The bound: 1.5 × (weights + moments + gradients + one batch of activations).
    let weights = 2 * (2 * SHAPE.latents() * WIDTH + SHAPE.latents() + WIDTH);
    let bound = 3 * 4 * (4 * weights + tokens * WIDTH) as u64 / 2;
    let peak = peak_memory();
    if options.json {
        let line = serde_json::json!({
            "usPerToken": { "best": best, "median": median }, "tokens": tokens, "threads": cpu.threads(),
            "instructionSet": cpu.instruction_set().name(), "loss": loss, "peakBytes": peak, "boundBytes": bound,
        });
        println!("{line}");
        return Ok(());
    }
    println!(
        "{} pairs, {tokens} tokens a step, {} threads, {}",
        options.pairs,
        cpu.threads(),
        cpu.instruction_set().name()
    );
    println!(
        "training step: best {best:.1}, median {median:.1} µs/token over {} steps (loss {loss:.4})",
        options.steps
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    match peak {
        Some(peak) => println!(
            "peak memory {:.0} MiB; 1.5 × (weights + moments + gradients + activations) = {:.0} MiB",
            mib(peak),
            mib(bound)
        ),
        None => println!("peak memory unknown on this system"),
    }
    Ok(())
}

fn main() {
    let outcome = options().and_then(|options| run(&options).map_err(|error| error.to_string()));
    if let Err(error) = outcome {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
}
