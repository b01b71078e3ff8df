//! Several stores joined to one, pair by pair as they are stored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::difference::difference;
use super::{ActivationSource, Manifest, SKIPPED, StoreOptions, StoreReader, StoreWriter, verify_store};
use crate::error::{DataError, Result};
use crate::progress::Observer;

/// The field of a part's provenance that says which part of how many it is.
const PART: &str = "part";

/// How stores are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MergeOptions {
    /// Replace an existing store under the same name.
    pub overwrite: bool,
    /// Pairs in a shard of the result; `None`: the most that any of the parts was written with.
    pub pairs_per_shard: Option<usize>,
}

/// `provenance.part`, as an extraction of a share of a data set writes it.
#[derive(Debug, Clone, Copy, Deserialize)]
struct PartOf {
    /// Number of the part, from 0.
    index: u64,
    /// Number of parts.
    of: u64,
    /// Position of its first pair in the data set.
    first: u64,
    /// Pairs of the data set it covers, at least those it holds.
    pairs: u64,
}

/// A store that is to be joined.
struct Piece {
    path: PathBuf,
    manifest: Manifest,
    part: Option<PartOf>,
}

/// Appends the pairs of `parts` into one store at `out`, with default [`MergeOptions`] but for `overwrite`.
///
/// # Errors
/// As [`merge_stores_with`].
pub fn merge_stores(parts: &[PathBuf], out: &Path, overwrite: bool, observer: &dyn Observer) -> Result<Manifest> {
    merge_stores_with(parts, out, MergeOptions { overwrite, ..MergeOptions::default() }, observer)
}

/// Appends the pairs of `parts` into one store at `out`: in the order given, or by `provenance.part.index` where all parts
/// have it. States are copied as they are stored, so the result has the files, the statistics and the fingerprint of a
/// store that was never divided. Every part is compared with its hashes first.
///
/// # Errors
/// `E_MERGE` for parts that do not belong together: another width, precision or origin, a part that is missing or given
/// twice, a key that occurs twice. `E_OPTION` without any part; what opening, verifying and writing raise; `E_CANCELLED`.
/// Nothing is published then.
pub fn merge_stores_with(
    parts: &[PathBuf],
    out: &Path,
    options: MergeOptions,
    observer: &dyn Observer,
) -> Result<Manifest> {
    let mut pieces = parts.iter().map(|path| Piece::read(path)).collect::<Result<Vec<_>>>()?;
    let Some(first) = pieces.first().map(|p| p.manifest.clone()) else {
        return Err(DataError::Option { option: "parts", found: "none".into(), expected: "at least one store".into() });
    };
    let provenance = without_part(&first.provenance);
    for piece in &pieces[1..] {
        piece.check_like(&first, &provenance, parts[0].as_path())?;
    }
    order(&mut pieces)?;
    let written_with = |m: &Manifest| m.pairs_per_shard.or(m.shards.first().map(|s| s.pairs)).unwrap_or(1);
    let largest = pieces.iter().map(|p| written_with(&p.manifest)).max().unwrap_or(1);
    let mut writer = StoreWriter::create(
        out,
        StoreOptions {
            precision: first.precision,
            pairs_per_shard: options.pairs_per_shard.unwrap_or(largest),
            provenance,
            overwrite: options.overwrite,
            ..StoreOptions::new(first.d_vision, first.d_text)
        },
    )?;
    check_content(&pieces, observer)?;
    let total = pieces.iter().map(|p| p.manifest.pairs as u64).sum();
    let mut left_out = Vec::new();
    for piece in &pieces {
        if piece.manifest.files.iter().any(|f| f.name == SKIPPED) {
            let path = piece.path.join(SKIPPED);
            left_out.extend(std::fs::read(&path).map_err(|e| DataError::io("read", &path, e))?);
        }
        let reader = StoreReader::open(&piece.path)?;
        for i in 0..reader.pairs() {
            if observer.cancelled() {
                return Err(DataError::Cancelled { stage: "merging stores" });
            }
            writer.append_stored(&reader, i)?;
            observer.progress("merge", writer.pairs() as u64, total);
        }
        if let Some(errors) = &reader.manifest().precision_error {
            writer.join_errors(errors);
        }
    }
    if !left_out.is_empty() {
        writer.keep(SKIPPED, left_out);
    }
    writer.finish()
}

impl Piece {
    fn read(path: &Path) -> Result<Self> {
        let manifest = Manifest::read(path)?;
        let part = match manifest.provenance.get(PART) {
            None => None,
            Some(value) => Some(PartOf::deserialize(value).map_err(|e| {
                mismatch(path, "provenance.part", format!("{value} ({e})"), "{ index, of, first, pairs }, numbers")
            })?),
        };
        if let Some(part) = part.filter(|p| p.pairs < manifest.pairs as u64) {
            return Err(mismatch(path, "provenance.part.pairs", part.pairs, format!("at least {}", manifest.pairs)));
        }
        Ok(Self { path: path.to_path_buf(), manifest, part })
    }

    /// Whether this part can follow a store like `first`.
    fn check_like(&self, first: &Manifest, provenance: &Value, whose: &Path) -> Result<()> {
        let m = &self.manifest;
        let as_in = |value: String| format!("{value}, as in {}", whose.display());
        for (what, found, expected) in [("dVision", m.d_vision, first.d_vision), ("dText", m.d_text, first.d_text)] {
            if found != expected {
                return Err(mismatch(&self.path, what, found, as_in(expected.to_string())));
            }
        }
        if m.precision != first.precision {
            return Err(mismatch(&self.path, "precision", m.precision, as_in(first.precision.to_string())));
        }
        match difference("provenance", &without_part(&m.provenance), provenance) {
            Some((what, found, expected)) => Err(mismatch(&self.path, &what, found, as_in(expected))),
            None => Ok(()),
        }
    }
}

fn mismatch(part: &Path, what: &str, found: impl ToString, expected: impl ToString) -> DataError {
    DataError::Merge {
        part: part.to_path_buf(),
        what: what.to_string(),
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

fn without_part(provenance: &Value) -> Value {
    let mut rest = provenance.clone();
    if let Value::Object(fields) = &mut rest {
        fields.remove(PART);
    }
    rest
}

/// Sorts the parts of one extraction by index, where they are such, and checks that they cover it once.
fn order(pieces: &mut [Piece]) -> Result<()> {
    let Some(of) = pieces.iter().find_map(|p| p.part).map(|p| p.of) else { return Ok(()) };
    if let Some(whole) = pieces.iter().find(|p| p.part.is_none()) {
        return Err(mismatch(&whole.path, "provenance.part", "nothing", "a part, as in the other stores"));
    }
    pieces.sort_by_key(|p| p.part.map(|part| part.index));
    let (mut next, mut position) = (0, 0);
    let mut before: Option<&Piece> = None;
    for piece in pieces.iter() {
        let Some(part) = piece.part else { continue };
        let field = |name: &str| format!("provenance.part.{name}");
        if part.of != of {
            return Err(mismatch(&piece.path, &field("of"), part.of, format!("{of}, as in the other parts")));
        }
        if part.index != next || part.index >= of {
            let expected = match before.filter(|b| b.part.is_some_and(|p| p.index == part.index)) {
                Some(same) => format!("another one than in {}", same.path.display()),
                None => format!("{next} (every part from 0 to {}, once)", of.saturating_sub(1)),
            };
            return Err(mismatch(&piece.path, &field("index"), part.index, expected));
        }
        if part.first != position {
            let expected = format!("{position}, where the part before it ends");
            return Err(mismatch(&piece.path, &field("first"), part.first, expected));
        }
        position = part.first.saturating_add(part.pairs);
        next += 1;
        before = Some(piece);
    }
    match before {
        Some(last) if next != of => {
            Err(mismatch(&last.path, "the last part given", next.saturating_sub(1), format!("part {} of {of}", of - 1)))
        }
        _ => Ok(()),
    }
}

/// Compares every byte of the parts with its hash, because the new store would vouch for a damaged one, and looks for
/// keys that occur twice.
fn check_content(pieces: &[Piece], observer: &dyn Observer) -> Result<()> {
    let bytes = |p: &Piece| p.manifest.all_files().iter().map(|f| f.bytes).sum::<u64>();
    let mut shifted = Shifted { observer, before: 0, total: pieces.iter().map(bytes).sum() };
    let mut places: HashMap<String, (&Path, usize)> = HashMap::new();
    for piece in pieces {
        verify_store(&piece.path, &shifted)?.into_result()?;
        shifted.before += bytes(piece);
        let reader = StoreReader::open(&piece.path)?;
        for i in 0..reader.pairs() {
            let key = reader.key(i);
            if let Some((path, at)) = places.insert(key.to_string(), (&piece.path, i)) {
                let found = format!("pair {i}");
                let expected = format!("a key of its own; pair {at} of {} has it too", path.display());
                return Err(mismatch(&piece.path, &format!("the place of the key {key:?}"), found, expected));
            }
        }
    }
    Ok(())
}

/// Progress over several runs of the same stage as one.
struct Shifted<'a> {
    observer: &'a dyn Observer,
    before: u64,
    total: u64,
}

impl Observer for Shifted<'_> {
    fn progress(&self, stage: &str, done: u64, _: u64) {
        self.observer.progress(stage, self.before + done, self.total);
    }
    fn warning(&self, code: &str, message: &str) {
        self.observer.warning(code, message);
    }
    fn cancelled(&self) -> bool {
        self.observer.cancelled()
    }
}
