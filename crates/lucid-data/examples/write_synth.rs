//! Writes the generated activation-level pairs as a store: `cargo run --release -p lucid-data --example write_synth -- acts 1200`.

use std::path::Path;

use lucid_data::store::StoreOptions;
use lucid_data::synth::{SynthOptions, synth};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = arguments.first().ok_or("give the folder to write")?;
    let pairs = arguments.get(1).map_or(Ok(1200), |n| n.parse())?;
    let options = SynthOptions { pairs, ..SynthOptions::default() };
    let (store, _) = synth(&options)?;
    let store_options = StoreOptions {
        pairs_per_shard: 256,
        provenance: serde_json::json!({ "synth": { "pairs": pairs, "seed": options.seed } }),
        ..StoreOptions::new(options.d_vision, options.d_text)
    };
    let manifest = store.write_to(Path::new(out), store_options)?;
    println!(
        "{} pairs, {} patches and {} tokens in {out}",
        manifest.pairs, manifest.tokens.vision, manifest.tokens.text
    );
    Ok(())
}
