//! Everything a GPU has to show: its results beside the reference's, a training run beside the CPU's, the same bits twice,
//! and times beside what was computed for it. `scripts/gpu-check.mjs` builds it; it needs nothing but libcuda.
//!
//! `gpu_check [--backend cuda|cpu|shim] [--tiny] [--steps 200] [--out DIR] [--model]`
#![allow(missing_docs)]

mod model;
mod work;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lucid_kernels::cpu::Cpu;
use lucid_kernels::cuda::{self, Check};
use lucid_kernels::{Backend, KernelError};
use serde_json::{Value, json};
use work::{Shape, Timing};

struct Options {
    backend: String,
    tiny: bool,
    steps: usize,
    out: PathBuf,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn options() -> Outcome<Option<Options>> {
    let mut options = Options { backend: "cuda".into(), tiny: false, steps: 200, out: ".".into() };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("option '{name}' needs a value"));
        match name.as_str() {
            "--model" => {
                print!("{}", model::markdown());
                return Ok(None);
            }
            "--tiny" => options.tiny = true,
            "--backend" => options.backend = value()?,
            "--steps" => options.steps = value()?.parse()?,
            "--out" => options.out = value()?.into(),
            _ => return Err(format!("unknown option '{name}'; known: --backend --tiny --steps --out --model").into()),
        }
    }
    Ok(Some(options))
}

fn main() {
    let outcome = options().and_then(|options| options.map_or(Ok(true), |options| run(&options)));
    match outcome {
        Ok(true) => {}
        Ok(false) => std::process::exit(1),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(2);
        }
    }
}

fn run(options: &Options) -> Outcome<bool> {
    match options.backend.as_str() {
        "cuda" => {
            let gpu = match cuda::open(None) {
                Ok(gpu) => gpu,
                Err(KernelError::Unavailable { reason, .. }) => {
                    println!("not run: no CUDA device ({reason})");
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            };
            let name = gpu.driver().device_name()?;
            report(options, &gpu, &name, &cuda::self_test(&gpu)?)
        }
        "cpu" => report(options, &Cpu::new(None)?, "CPU", &[]),
        #[cfg(feature = "cuda-shim")]
        "shim" => {
            let shim = cuda::Cuda::new(std::sync::Arc::new(cuda::Shim::new(cuda::Order::Forward)))?;
            let checks = cuda::self_test(&shim)?;
            report(options, &shim, "CPU shim", &checks)
        }
        other => Err(format!("no backend '{other}' here; known: cuda, cpu, and shim where it is built in").into()),
    }
}

/// Runs everything on `backend` and writes gpu-report.json and gpu-report.md. False if something is wrong.
fn report<B: Backend<Real = f32>>(options: &Options, backend: &B, device: &str, checks: &[Check]) -> Outcome<bool> {
    let small = if options.tiny { Shape::TINY } else { Shape::SMALL };
    let run = work::losses(backend, small, options.steps)?;
    let again = work::losses(backend, small, options.steps)?;
    let reference = work::losses(&Cpu::new(None)?, small, options.steps)?;
    let apart = run.losses.iter().zip(&reference.losses).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max);
    let repeatable = run == again;
    // A sum of f32 products differs by its order and by the three-part split, 2⁻¹⁶ a term; Top-k may then choose another
    // latent at a near tie, which moves a loss by one latent's share of a token.
    let tolerance = 1e-3 * (options.steps as f64 / 200.0).max(1.0);
    let times = work::times(backend, if options.tiny { Shape::TINY } else { Shape::PAPER })?;

    let wrong = checks.iter().filter(|check| !check.passed()).count();
    let good = wrong == 0 && repeatable && apart <= tolerance;
    let mut text = format!("# gpu-check on {device} ({})\n\n", backend.name());
    let _ = writeln!(text, "{} of {} results are those of the reference.\n", checks.len() - wrong, checks.len());
    let _ = writeln!(
        text,
        "{} training steps against the CPU: losses differ by at most {apart:.1e} (allowed {tolerance:.0e}). Twice the same \
         bits: {}.\n",
        options.steps,
        if repeatable { "yes" } else { "NO" }
    );
    text.push_str("| what | µs | tokens/s | TFLOP/s | GB/s |\n|---|--:|--:|--:|--:|\n");
    for Timing { name, seconds, tokens, flops, bytes } in &times {
        let (rate, flops, bytes) = (tokens / seconds, flops / seconds / 1e12, bytes / seconds / 1e9);
        let _ = writeln!(text, "| {name} | {:.1} | {rate:.3e} | {flops:.2} | {bytes:.0} |", seconds * 1e6);
    }
    if let Some(card) = model::CARDS.iter().find(|card| device.contains(card.name)) {
        let sum: f64 = model::parts(256.0, 32.0).iter().map(|part| part.expected(card).1).sum();
        let _ = writeln!(text, "\nComputed for a step on this card: {:.0} µs.", sum * 1e6);
    }
    print!("{text}");
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| json!({ "name": check.name, "error": check.error, "tolerance": check.tolerance, "passed": check.passed() }))
        .collect();
    let times: Vec<Value> = times
        .iter()
        .map(
            |t| json!({ "name": t.name, "seconds": t.seconds, "tokens": t.tokens, "flops": t.flops, "bytes": t.bytes }),
        )
        .collect();
    let file = json!({
        "device": device, "backend": backend.name(), "checks": checks, "steps": options.steps, "lossDifference": apart,
        "repeatable": repeatable, "times": times, "good": good, "version": env!("CARGO_PKG_VERSION"),
    });
    write(&options.out, "gpu-report.json", &serde_json::to_string_pretty(&file)?)?;
    write(&options.out, "gpu-report.md", &text)?;
    Ok(good)
}

fn write(folder: &Path, name: &str, text: &str) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    Ok(std::fs::write(folder.join(name), text)?)
}
