//! A store divided into pairs to learn from and pairs to measure on.

use std::path::Path;

use serde_json::{Value, json};

use super::{ActivationSource, Manifest, StoreOptions, StoreReader, StoreWriter};
use crate::error::{DataError, Result};
use crate::progress::Observer;

/// Which pairs are held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitOptions {
    /// Share of the pairs to hold out, rounded to the nearest pair; at least one pair goes to either side.
    pub share: f64,
    /// Another seed holds out other pairs.
    pub seed: u64,
    /// Replace existing stores under the same names.
    pub overwrite: bool,
}

impl Default for SplitOptions {
    /// A fifth, seed 0.
    fn default() -> Self {
        Self { share: 0.2, seed: 0, overwrite: false }
    }
}

/// Divides the pairs of `reader` into the stores `rest` and `held_out`, each in the order of `reader`, states copied as
/// they are stored. A pair is held out by a hash of `(seed, key)`, whatever its place.
///
/// The provenance of either is that of `reader` with `split: { of, part, share, seed, dataset }` in place of `dataset`.
///
/// # Errors
/// `E_OPTION` for a share outside (0, 1) or a store of one pair; what reading and writing raise; `E_CANCELLED`.
pub fn split_store(
    reader: &StoreReader,
    rest: &Path,
    held_out: &Path,
    options: SplitOptions,
    observer: &dyn Observer,
) -> Result<(Manifest, Manifest)> {
    let pairs = reader.pairs();
    if !(options.share > 0.0 && options.share < 1.0) {
        let expected = "a number between 0 and 1".into();
        return Err(DataError::Option { option: "share", found: options.share.to_string(), expected });
    }
    if pairs < 2 {
        let expected = "a store of at least two pairs".into();
        return Err(DataError::Option { option: "activations", found: format!("{pairs} pairs"), expected });
    }
    let chosen = chosen(reader, options);
    let manifest = reader.manifest();
    let write = |path: &Path, part: &str, wanted: bool| -> Result<Manifest> {
        let store = StoreOptions {
            precision: manifest.precision,
            pairs_per_shard: manifest.pairs_per_shard.unwrap_or(1024),
            provenance: provenance(manifest, part, options),
            overwrite: options.overwrite,
            ..StoreOptions::new(manifest.d_vision, manifest.d_text)
        };
        let mut writer = StoreWriter::create(path, store)?;
        for pair in (0..pairs).filter(|&pair| chosen[pair] == wanted) {
            if observer.cancelled() {
                return Err(DataError::Cancelled { stage: "dividing a store" });
            }
            writer.append_stored(reader, pair)?;
            observer.progress("split", pair as u64 + 1, pairs as u64);
        }
        writer.finish()
    };
    Ok((write(rest, "rest", false)?, write(held_out, "held-out", true)?))
}

/// The provenance of a part. The data set moves below `split`: at its old place it would say that pair i is its record i.
fn provenance(from: &Manifest, part: &str, options: SplitOptions) -> Value {
    let mut all = from.provenance.as_object().cloned().unwrap_or_default();
    let dataset = all.remove("dataset").unwrap_or_default();
    let SplitOptions { share, seed, .. } = options;
    let split = json!({ "of": from.fingerprint, "part": part, "share": share, "seed": seed, "dataset": dataset });
    all.insert("split".into(), split);
    Value::Object(all)
}

/// Whether each pair is held out: those of the smallest hashes.
fn chosen(reader: &StoreReader, options: SplitOptions) -> Vec<bool> {
    let pairs = reader.pairs();
    let count = ((options.share * pairs as f64).round() as usize).clamp(1, pairs - 1);
    let hash = |pair: usize| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&options.seed.to_le_bytes());
        hasher.update(reader.key(pair).as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut order: Vec<([u8; 32], usize)> = (0..pairs).map(|pair| (hash(pair), pair)).collect();
    order.sort_unstable();
    let mut chosen = vec![false; pairs];
    order[..count].iter().for_each(|&(_, pair)| chosen[pair] = true);
    chosen
}
