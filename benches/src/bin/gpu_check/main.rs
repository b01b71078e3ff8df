//! Everything a GPU has to show: its results beside the reference's, a training run beside the CPU's, the same bits twice,
//! and times beside what was computed for it. `scripts/gpu-check.mjs` builds it; it needs nothing but libcuda.
//!
//! `gpu_check [--backend cuda|cpu|shim] [--tiny] [--steps 200] [--card NAME] [--out DIR] [--model] [--probe]`
#![allow(missing_docs)]

mod work;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lucid_benches::model::{self, cards::Card, trace::Recorder};
use lucid_kernels::cpu::Cpu;
use lucid_kernels::cuda::{self, Check};
use lucid_kernels::{Backend, KernelError, Precision};
use serde_json::{Value, json};
use work::{ByGraphs, KernelTime, Shape, Timing};

struct Options {
    backend: String,
    tiny: bool,
    steps: usize,
    /// Whose peaks and computed times stand beside the measured ones; the device's own by default.
    card: Option<String>,
    out: PathBuf,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn options() -> Outcome<Option<Options>> {
    let mut options = Options { backend: "cuda".into(), tiny: false, steps: 200, card: None, out: ".".into() };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("option '{name}' needs a value"));
        match name.as_str() {
            "--model" => {
                print!("{}", model::markdown()?);
                return Ok(None);
            }
            "--probe" => {
                println!("{}", cuda::probe().reason());
                std::process::exit(i32::from(cuda::probe().choose(None).is_err()));
            }
            "--tiny" => options.tiny = true,
            "--backend" => options.backend = value()?,
            "--steps" => options.steps = value()?.parse()?,
            "--card" => options.card = Some(value()?),
            "--out" => options.out = value()?.into(),
            _ => {
                return Err(format!(
                    "unknown option '{name}'; known: --backend --tiny --steps --card --out --model --probe"
                )
                .into());
            }
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
            let name = gpu.driver().inner().device_name()?;
            let rounded = gpu.with_precision(Precision::Bf16)?;
            let kernels = match options.tiny {
                true => [Vec::new(), Vec::new()],
                false => [work::kernels(&gpu)?, work::kernels(&rounded)?],
            };
            let shapes = [("a small step", Shape::SMALL), ("the paper's step", Shape::PAPER.whole())];
            let graphs = work::by_graphs(&gpu, if options.tiny { &[("tiny", Shape::TINY)] } else { &shapes })?;
            report(options, &gpu, &name, &cuda::self_test(&gpu)?, kernels, &graphs)
        }
        "cpu" => report(options, &Cpu::new(None)?, "CPU", &[], [Vec::new(), Vec::new()], &[]),
        #[cfg(feature = "cuda-shim")]
        "shim" => {
            let shim = cuda::Graphs::new(cuda::Shim::new(cuda::Order::Forward), false);
            let shim = cuda::Cuda::new(std::sync::Arc::new(shim))?;
            let graphs = work::by_graphs(&shim, &[("tiny", Shape::TINY)])?;
            report(options, &shim, "CPU shim", &cuda::self_test(&shim)?, [Vec::new(), Vec::new()], &graphs)
        }
        other => Err(format!("no backend '{other}' here; known: cuda, cpu, and shim where it is built in").into()),
    }
}

/// What the model says of each of the timed things on a card, the wait at the end included.
fn computed(card: &Card, shape: Shape) -> Result<Vec<f64>, KernelError> {
    let recorder = Recorder::new(card);
    let mut seconds = Vec::new();
    // Setting up for the next is recorded with it: a launch or two to clear buffers, spread over the rounds.
    work::times(&cuda::Cuda::new(std::sync::Arc::clone(&recorder))?, shape, || {
        let of_all = model::sum(&recorder.take(), card, &[]);
        seconds.push(of_all.device.max(of_all.host) / work::ROUNDS as f64 + model::WAIT);
    })?;
    Ok(seconds)
}

/// A training run beside the CPU's in the same precision.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared {
    /// Two runs gave the same bits.
    repeatable: bool,
    /// Largest difference of losses, of their size, and what is allowed: over all steps, and over the first ten.
    loss_difference: f64,
    loss_tolerance: f64,
    first_difference: f64,
    first_tolerance: f64,
}

impl Compared {
    fn good(&self) -> bool {
        self.repeatable && self.loss_difference <= self.loss_tolerance && self.first_difference <= self.first_tolerance
    }
}

fn compared<B: Backend<Real = f32>>(options: &Options, backend: &B, precision: Precision) -> Outcome<Compared> {
    let backend = &backend.with_precision(precision)?;
    let small = if options.tiny { Shape::TINY } else { Shape::SMALL };
    let run = work::losses(backend, small, options.steps, None)?;
    let again = work::losses(backend, small, options.steps, None)?;
    let cpu = Cpu::new(None)?.with_precision(precision)?;
    let reference = work::losses(&cpu, small, options.steps, None)?;
    let apart = |run: &work::Run, steps: usize| {
        let pairs = run.losses.iter().zip(&reference.losses).take(steps);
        pairs.map(|(a, b)| ((a - b) / b).abs()).fold(0.0, |worst: f64, at| if at >= worst { at } else { worst })
    };
    let repeatable = run == again && run.losses.iter().all(|loss| loss.is_finite());
    // Top-k makes training chaotic: a near tie that falls the other way sends runs apart. How far is seen on the CPU, from
    // weights that differ by as much as a device's products: 2⁻¹⁶ a term. Four such runs, and four times the farthest.
    let shifted =
        (0..4).map(|shift| work::losses(&cpu, small, options.steps, Some(shift))).collect::<Result<Vec<_>, _>>()?;
    let allowed = |steps: usize| 4.0 * shifted.iter().map(|run| apart(run, steps)).fold(1e-6, f64::max);
    let early = options.steps.min(10);
    Ok(Compared {
        repeatable,
        loss_difference: apart(&run, options.steps),
        loss_tolerance: allowed(options.steps),
        first_difference: apart(&run, early),
        first_tolerance: allowed(early),
    })
}

/// Runs everything on `backend` and writes gpu-report.json and gpu-report.md. False if something is wrong. `kernels` are those of a
/// step in f32 and in bf16.
fn report<B: Backend<Real = f32>>(
    options: &Options,
    backend: &B,
    device: &str,
    checks: &[Check],
    kernels: [Vec<KernelTime>; 2],
    graphs: &[ByGraphs],
) -> Outcome<bool> {
    let runs = [compared(options, backend, Precision::F32)?, compared(options, backend, Precision::Bf16)?];
    let shape = if options.tiny { Shape::TINY } else { Shape::PAPER };
    let times = work::times(backend, shape, || {})?;
    // The model knows the paper's sizes only.
    let card = Card::of(options.card.as_deref().unwrap_or(device)).filter(|_| !options.tiny);
    let computed = card.map(|card| computed(card, shape)).transpose()?;
    let rounded = work::step_time(&backend.with_precision(Precision::Bf16)?, shape)?;

    let wrong = checks.iter().filter(|check| !check.passed()).count();
    let good = wrong == 0 && runs.iter().all(Compared::good) && graphs.iter().all(|graphs| graphs.same_bits);
    let mut text = format!("# gpu-check on {device} ({})\n\n", backend.name());
    let _ = writeln!(text, "{} of {} results are those of the reference.\n", checks.len() - wrong, checks.len());
    for (run, precision) in runs.iter().zip(["f32", "bf16"]) {
        let _ = writeln!(
            text,
            "{} training steps in {precision} against the CPU in {precision}: losses differ by at most {:.1e} (allowed {:.1e}), in \
             the first {} by {:.1e} ({:.1e}). Twice the same bits: {}.\n",
            options.steps,
            run.loss_difference,
            run.loss_tolerance,
            options.steps.min(10),
            run.first_difference,
            run.first_tolerance,
            if run.repeatable { "yes" } else { "NO" }
        );
    }
    text.push_str("| what | µs | computed µs | tokens/s | TFLOP/s | of peak | GB/s | of memory's peak |\n");
    text.push_str("|---|--:|--:|--:|--:|--:|--:|--:|\n");
    let share = |rate: f64, peak: Option<f64>| peak.map_or("".into(), |peak| format!("{:.1} %", 100.0 * rate / peak));
    for (index, Timing { name, seconds, tokens, flops, bytes }) in times.iter().enumerate() {
        let (rate, flops, bytes) = (tokens / seconds, flops / seconds, bytes / seconds);
        let beside = computed.as_ref().map_or(String::new(), |computed| format!("{:.1}", computed[index] * 1e6));
        let _ = writeln!(
            text,
            "| {name} | {:.1} | {beside} | {rate:.3e} | {:.2} | {} | {:.0} | {} |",
            seconds * 1e6,
            flops / 1e12,
            share(flops, card.map(|card| card.tensor_peak)),
            bytes / 1e9,
            share(bytes, card.map(|card| card.memory_peak))
        );
    }
    let _ = writeln!(
        text,
        "| {}, bf16 | {:.1} | | {:.3e} | | | | |",
        rounded.name,
        rounded.seconds * 1e6,
        rounded.tokens / rounded.seconds
    );
    text.push_str(
        "\nA micro-batch of patches, and the step. FLOPs and bytes are those the method needs; bytes of a gather come from the \
         second-level cache, so that they may pass memory's peak.\n",
    );
    if !graphs.is_empty() {
        text.push_str("\n## Launches one by one, and by graphs\n\n");
        text.push_str("| step | one by one µs | graphs µs | set anew | same bits |\n|---|--:|--:|--:|---|\n");
    }
    for ByGraphs { name, one_by_one_seconds, graphs_seconds, changed, same_bits } in graphs {
        let _ = writeln!(
            text,
            "| {name} | {:.1} | {:.1} | {:.0} % | {} |",
            one_by_one_seconds * 1e6,
            graphs_seconds * 1e6,
            100.0 * changed,
            if *same_bits { "yes" } else { "NO" }
        );
    }
    for (kernels, precision) in kernels.iter().zip(["f32", "bf16"]).filter(|(kernels, _)| !kernels.is_empty()) {
        let all: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
        // The model's rows are kernels by purpose, of a step in f32.
        let card = card.filter(|_| precision == "f32");
        let model = card.map(|card| model::predict(card, &[])).transpose()?;
        let computed = |kernel: &str| {
            let rows = model.iter().flat_map(|model| &model.rows);
            let sum: f64 = rows.filter(|row| row.name.starts_with(&format!("`{kernel}`"))).map(|row| row.seconds).sum();
            if model.is_some() { format!("{:.0}", sum * 1e6) } else { String::new() }
        };
        let _ = writeln!(text, "\n## A step in {precision}, kernel by kernel");
        text.push_str("\n| kernel | launches | µs | computed µs | of the step |\n|---|--:|--:|--:|--:|\n");
        for KernelTime { kernel, launches, seconds } in kernels {
            let _ = writeln!(
                text,
                "| `{kernel}` | {launches} | {:.0} | {} | {:.1} % |",
                seconds * 1e6,
                computed(kernel),
                100.0 * seconds / all
            );
        }
        let _ = writeln!(
            text,
            "| **sum** | {} | **{:.0}** | | |",
            kernels.iter().map(|k| k.launches).sum::<usize>(),
            all * 1e6
        );
        text.push_str("\nBy events around each launch, which add a microsecond or two to each.\n");
    }
    print!("{text}");
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| json!({ "name": check.name, "error": check.error, "tolerance": check.tolerance, "passed": check.passed() }))
        .collect();
    let times: Vec<Value> = times
        .iter()
        .enumerate()
        .map(|(index, t)| {
            let computed = computed.as_ref().map(|computed| computed[index]);
            json!({ "name": t.name, "seconds": t.seconds, "computedSeconds": computed, "tokens": t.tokens, "flops": t.flops,
                    "bytes": t.bytes })
        })
        .collect();
    let kernels = kernels.map(|kernels| -> Vec<Value> {
        kernels.iter().map(|k| json!({ "kernel": k.kernel, "launches": k.launches, "seconds": k.seconds })).collect()
    });
    let file = json!({
        "kernels": { "f32": kernels[0], "bf16": kernels[1] },
        "device": device, "backend": backend.name(), "checks": checks, "steps": options.steps,
        "runs": { "f32": runs[0], "bf16": runs[1] }, "times": times, "bf16StepSeconds": rounded.seconds,
        "graphs": graphs, "good": good, "version": env!("CARGO_PKG_VERSION"),
        "peaks": card.map(|card| json!({ "name": card.name, "flops": card.tensor_peak, "bytes": card.memory_peak })),
    });
    write(&options.out, "gpu-report.json", &serde_json::to_string_pretty(&file)?)?;
    write(&options.out, "gpu-report.md", &text)?;
    Ok(good)
}

fn write(folder: &Path, name: &str, text: &str) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    Ok(std::fs::write(folder.join(name), text)?)
}
