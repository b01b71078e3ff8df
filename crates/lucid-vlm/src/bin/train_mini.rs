//! Trains the embedded mini backbone from its recipe: `train_mini --out DIR [--resume] [--stop-after STEP] [--recipe FILE]`,
//! or `train_mini --print-recipe` for the JSON of the default one.
//!
//! DIR gets `log.jsonl`, `state.safetensors` (to resume from) and `backbone/`, the checkpoint in Hugging Face's layout with
//! `examination.json` beside it.

use lucid_data::progress::Silent;
use lucid_vlm::mini_training::{export, recipe, run};
use lucid_vlm::{Backbone, ExamineOptions, examine};
use std::path::PathBuf;

/// Set in the process that trains.
const READY: &str = "LUCID_TRAIN_READY";

/// Starts this program again with candle on one thread per portion (two portions run at once) and an allocator that keeps
/// freed memory: without the latter a quarter of the time goes into page faults. Both are read before `main` runs.
fn start_again() -> Result<(), Box<dyn std::error::Error>> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(READY, "1").env("RAYON_NUM_THREADS", "1");
    for (name, value) in [
        ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
        ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
        ("MALLOC_TOP_PAD_", "268435456"),
    ] {
        command.env(name, value);
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("training ended with {status}").into()) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os(READY).is_none() {
        return start_again();
    }
    let mut out = None;
    let mut options = run::RunOptions::default();
    let mut recipe = recipe::mini();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => out = args.next().map(PathBuf::from),
            "--recipe" => {
                let file = args.next().ok_or("--recipe needs a file")?;
                recipe = serde_json::from_slice(&std::fs::read(file)?)?;
            }
            "--print-recipe" => {
                println!("{}", serde_json::to_string_pretty(&recipe)?);
                return Ok(());
            }
            "--resume" => options.resume = true,
            "--stop-after" => options.stop_after = args.next().and_then(|s| s.parse().ok()),
            other => {
                return Err(format!("unknown option {other}; known: --out DIR, --resume, --stop-after STEP, --recipe FILE, --print-recipe").into());
            }
        }
    }
    let out = out.ok_or("--out DIR is missing")?;
    let run = run::train(recipe, &out, &options, &mut |line| println!("{line}"))?;
    let folder = out.join("backbone");
    let hash = export::export(&run.trainee, &folder)?;
    println!("{} after step {}: model.safetensors BLAKE3 {hash}", folder.display(), run.step());
    // What is examined is what was written: weights rounded to f16, pictures through the preprocessing of the folder.
    let result = examine(&Backbone::load(&folder)?, &ExamineOptions::default(), &Silent)?;
    std::fs::write(out.join("examination.json"), serde_json::to_string_pretty(&result)?)?;
    println!("\n{result}");
    Ok(())
}
