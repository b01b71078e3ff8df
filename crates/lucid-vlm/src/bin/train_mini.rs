//! Trains the embedded mini backbone from its recipe: `train_mini --out DIR [--resume] [--stop-after STEP]`.
//!
//! DIR gets `log.jsonl`, `state.safetensors` (to resume from) and `backbone/`, the checkpoint in Hugging Face's layout with
//! `examination.json` beside it.

use lucid_vlm::mini_training::{examine, export, recipe, run};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = None;
    let mut options = run::RunOptions::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => out = args.next().map(PathBuf::from),
            "--resume" => options.resume = true,
            "--stop-after" => options.stop_after = args.next().and_then(|s| s.parse().ok()),
            other => {
                return Err(format!("unknown option {other}; known: --out DIR, --resume, --stop-after STEP").into());
            }
        }
    }
    let out = out.ok_or("--out DIR is missing")?;
    let run = run::train(recipe::mini(), &out, &options, &mut |line| println!("{line}"))?;
    let folder = out.join("backbone");
    let hash = export::export(&run.trainee, &folder)?;
    println!("{} after step {}: model.safetensors BLAKE3 {hash}", folder.display(), run.step());
    let result = examine::examine(&run.trainee.model, 1000, 0xe8a3)?;
    std::fs::write(out.join("examination.json"), serde_json::to_string_pretty(&result)?)?;
    println!("\n{result}");
    Ok(())
}
