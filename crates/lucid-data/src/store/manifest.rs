//! `manifest.json`: what is in a store, and the hashes that prove it.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PerModality, Precision, PrecisionError};
use crate::error::{DataError, Result};

/// The manifest's `format`.
pub const FORMAT: &str = "lucid-sae activation store";
/// The newest format version this crate writes and reads. A store has the lowest version that describes it: 2 with
/// [`Precision::Int8`], else 1, so that older programs read all they can.
pub const FORMAT_VERSION: u64 = 2;
/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// File name of the list of pairs.
pub const PAIRS: &str = "pairs.jsonl";
/// File name of the list of what was left out; absent where nothing was.
pub const SKIPPED: &str = "skipped.jsonl";
/// File name of the means.
pub const STATISTICS: &str = "statistics.safetensors";

/// A manifest longer than this is not believed (a shard's entry takes about 200 bytes).
const MAX_MANIFEST_BYTES: u64 = 64 << 20;
const HASH_FIELD: &str = "\"manifestBlake3\": \"";
const ZERO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The description of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The lowest format version that describes it, at most [`FORMAT_VERSION`].
    pub format_version: u64,
    /// Program and version that wrote it.
    pub created_by: String,
    /// How activations are stored.
    pub precision: Precision,
    /// What rounding to it changed; `None` in stores of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision_error: Option<PerModality<PrecisionError>>,
    /// Width of a patch's state.
    pub d_vision: usize,
    /// Width of a token's state.
    pub d_text: usize,
    /// Number of pairs.
    pub pairs: usize,
    /// Number of captions of all pairs.
    pub captions: usize,
    /// Number of patches, and of tokens of all captions.
    pub tokens: PerModality<u64>,
    /// Pairs of a full shard, as the writer was told; `None` in stores of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs_per_shard: Option<usize>,
    /// Scalar statistics; the means are in [`STATISTICS`].
    pub statistics: StatisticsSummary,
    /// The shards, in the order of pairs.
    pub shards: Vec<ShardEntry>,
    /// [`PAIRS`] and [`STATISTICS`].
    pub files: Vec<FileEntry>,
    /// Where the activations come from: backbone, hooks, data set, preprocessing …
    pub provenance: Value,
    /// BLAKE3 over the content files' names and hashes: identifies the activations, whatever the provenance says.
    pub fingerprint: String,
    /// BLAKE3 of the manifest file with these 64 digits set to 0.
    pub manifest_blake3: String,
}

/// The scalars of [`super::Statistics`]; tokens are those of first captions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatisticsSummary {
    /// E‖h − h̄‖².
    pub variance: PerModality<f64>,
    /// E‖h‖².
    pub mean_square: PerModality<f64>,
    /// E‖h̄_n − E h̄‖².
    pub pooled_variance: PerModality<f64>,
    /// Patches, and tokens of first captions.
    pub tokens: PerModality<u64>,
}

/// A file of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Plain file name inside the store.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file, hexadecimal.
    pub blake3: String,
}

/// A shard of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardEntry {
    /// Plain file name inside the store.
    pub name: String,
    /// Position of its first pair in the store.
    pub first_pair: usize,
    /// Number of its pairs.
    pub pairs: usize,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file, hexadecimal.
    pub blake3: String,
}

impl ShardEntry {
    pub(super) fn file(&self) -> FileEntry {
        FileEntry { name: self.name.clone(), bytes: self.bytes, blake3: self.blake3.clone() }
    }
}

impl Manifest {
    /// Every file the manifest vouches for: shards first, then the others.
    pub fn all_files(&self) -> Vec<FileEntry> {
        self.shards.iter().map(ShardEntry::file).chain(self.files.iter().cloned()).collect()
    }

    /// The identity of the content: BLAKE3 over one line `<name> <blake3>` a file, sorted by name; of what was left out of the store
    /// it does not depend.
    pub(super) fn fingerprint_of(files: &[FileEntry]) -> String {
        let content = files.iter().filter(|f| f.name != SKIPPED);
        let mut lines: Vec<String> = content.map(|f| format!("{} {}\n", f.name, f.blake3)).collect();
        lines.sort();
        blake3::hash(lines.concat().as_bytes()).to_hex().to_string()
    }

    /// The bytes of the file, with `manifest_blake3` filled in.
    pub(super) fn seal(&mut self) -> Result<Vec<u8>> {
        self.manifest_blake3 = ZERO_HASH.to_string();
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| DataError::shape("provenance", e, "a value that JSON can hold"))?;
        text.push('\n');
        self.manifest_blake3 = blake3::hash(text.as_bytes()).to_hex().to_string();
        let at = text.rfind(HASH_FIELD).map_or(0, |p| p + HASH_FIELD.len());
        text.replace_range(at..at + ZERO_HASH.len(), &self.manifest_blake3);
        Ok(text.into_bytes())
    }

    /// Reads and checks the manifest of the store in folder `store`.
    ///
    /// # Errors
    /// `E_NOT_A_STORE`, `E_STORE_VERSION`, `E_STORE_DAMAGED`, `E_IO`.
    pub fn read(store: &Path) -> Result<Self> {
        let path = store.join(MANIFEST);
        let not_a_store = |reason: &str| DataError::NotAStore { path: store.to_path_buf(), reason: reason.into() };
        let length = match std::fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Err(not_a_store("it holds no manifest.json"));
            }
            Err(e) => return Err(DataError::io("read", &path, e)),
        };
        if length > MAX_MANIFEST_BYTES {
            return Err(not_a_store("its manifest.json is larger than 64 MiB"));
        }
        let bytes = std::fs::read(&path).map_err(|e| DataError::io("read", &path, e))?;
        let damaged = |found: String, expected: &str| DataError::damaged(store, MANIFEST, found, expected);
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string(), "JSON"))?;
        // The version comes first: a newer format may keep anything else differently.
        let format = value.get("format").and_then(Value::as_str);
        if format.is_none() && value.get("manifestBlake3").is_none() {
            return Err(not_a_store("its manifest.json does not describe an activation store"));
        }
        match value.get("formatVersion").and_then(Value::as_u64) {
            Some(1..=FORMAT_VERSION) => {}
            Some(found) if found > FORMAT_VERSION => {
                return Err(DataError::StoreVersion { store: store.to_path_buf(), found, supported: FORMAT_VERSION });
            }
            other => return Err(damaged(format!("formatVersion {other:?}"), "formatVersion 1 or 2")),
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| damaged(e.to_string(), "UTF-8"))?;
        let manifest: Self =
            serde_json::from_value(value).map_err(|e| damaged(e.to_string(), "the fields of docs/formats.md"))?;
        let zeroed =
            text.replacen(&format!("{HASH_FIELD}{}", manifest.manifest_blake3), &format!("{HASH_FIELD}{ZERO_HASH}"), 1);
        let hash = blake3::hash(zeroed.as_bytes()).to_hex().to_string();
        if hash != manifest.manifest_blake3 || manifest.format != FORMAT {
            return Err(damaged(format!("content with BLAKE3 {hash}"), &manifest.manifest_blake3));
        }
        manifest.check(store)?;
        Ok(manifest)
    }

    /// The numbers of a manifest must agree with each other before any of them is used.
    fn check(&self, store: &Path) -> Result<()> {
        let damaged = |found: String, expected: &str| Err(DataError::damaged(store, MANIFEST, found, expected));
        for file in self.all_files() {
            let mut parts = Path::new(&file.name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return damaged(format!("file name {:?}", file.name), "a plain file name");
            }
        }
        if self.format_version < self.precision.format_version() {
            return damaged(
                format!("precision {} in format version {}", self.precision, self.format_version),
                "a version that knows it",
            );
        }
        let mut next = 0usize;
        for shard in &self.shards {
            if shard.first_pair != next || shard.pairs == 0 {
                return damaged(
                    format!("{}: pairs from {}", shard.name, shard.first_pair),
                    "shards that follow each other",
                );
            }
            next = next.saturating_add(shard.pairs);
        }
        if next != self.pairs || self.pairs == 0 || self.d_vision == 0 || self.d_text == 0 {
            return damaged(
                format!("{} pairs in shards, widths {} and {}", next, self.d_vision, self.d_text),
                "matching counts, none of them 0",
            );
        }
        if Self::fingerprint_of(&self.all_files()) != self.fingerprint {
            return damaged(format!("fingerprint {}", self.fingerprint), "the fingerprint of the listed files");
        }
        for name in [PAIRS, STATISTICS] {
            if !self.files.iter().any(|f| f.name == name) {
                return damaged(format!("no entry for {name}"), "an entry");
            }
        }
        Ok(())
    }
}
