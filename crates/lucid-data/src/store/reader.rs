//! Reads a store: memory-mapped, by position, from any thread.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::manifest::{FileEntry, Manifest, PAIRS, STATISTICS};
use super::memory::check_out;
use super::precision::Encoded;
use super::shard_reader::ShardReader;
use super::verify::{VerifyReport, verify_store};
use super::{ActivationSource, AnnotatedSource, PairInfo, Statistics, TokenInfo};
use crate::error::{DataError, Result};
use crate::progress::Observer;

/// An open store.
///
/// Opening checks the manifest, the list of pairs and the statistics against their hashes, and the length, header, shapes
/// and offsets of every shard, so a truncated or mixed-up store is refused at once; the activations themselves are
/// compared with their hashes by [`StoreReader::verify`]. The files are mapped, not read: they must not be shortened
/// while the reader lives. Replacing the whole folder is safe.
/// Its contents are read through [`ActivationSource`] and [`AnnotatedSource`].
pub struct StoreReader {
    path: PathBuf,
    manifest: Manifest,
    infos: Vec<PairInfo>,
    shards: Vec<ShardReader>,
    starts: Vec<usize>,
    statistics: Statistics,
}

impl StoreReader {
    /// Opens the store in folder `path`.
    ///
    /// # Errors
    /// `E_NOT_A_STORE`, `E_STORE_VERSION`, `E_STORE_DAMAGED`, `E_IO`.
    pub fn open(path: &Path) -> Result<Self> {
        let manifest = Manifest::read(path)?;
        let infos = read_pairs(path, &manifest)?;
        let statistics = read_statistics(path, &manifest)?;
        let shards = manifest
            .shards
            .par_iter()
            .map(|s| ShardReader::open(path, &manifest, s, &infos[s.first_pair..s.first_pair + s.pairs]))
            .collect::<Vec<Result<ShardReader>>>();
        let shards = gather(path, shards)?;
        let starts = manifest.shards.iter().map(|s| s.first_pair).collect();
        Ok(Self { path: path.to_path_buf(), manifest, infos, shards, starts, statistics })
    }

    /// Compares every file with its hash; see [`verify_store`].
    ///
    /// # Errors
    /// As [`verify_store`]; damage is in the report.
    pub fn verify(&self, observer: &dyn Observer) -> Result<VerifyReport> {
        verify_store(&self.path, observer)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn locate(&self, pair: usize) -> (&ShardReader, usize) {
        assert!(pair < self.infos.len(), "pair {pair} is out of range: the store has {}", self.infos.len());
        let shard = self.starts.partition_point(|&start| start <= pair) - 1;
        (&self.shards[shard], pair - self.starts[shard])
    }

    /// The patches' states in place, where they are stored as f32.
    pub fn vision_f32(&self, pair: usize) -> Option<&[f32]> {
        let (shard, i) = self.locate(pair);
        self.in_place(shard.vision(i).states)
    }

    /// The tokens' states in place, where they are stored as f32.
    pub fn text_f32(&self, pair: usize, caption: usize) -> Option<&[f32]> {
        let (shard, i) = self.locate(pair);
        self.in_place(shard.text(i, caption).states)
    }

    fn in_place<'a>(&self, bytes: &'a [u8]) -> Option<&'a [f32]> {
        let usable = cfg!(target_endian = "little") && self.manifest.precision == super::Precision::F32;
        if usable { bytemuck::try_cast_slice(bytes).ok() } else { None }
    }

    /// The stored numbers of a pair in place, not decoded: those of the patches, then of the tokens of each caption.
    pub fn stored(&self, pair: usize) -> impl Iterator<Item = &[u8]> {
        let (vision, captions) = self.encoded(pair);
        std::iter::once(vision).chain(captions).map(|part| part.states)
    }

    /// The states of a pair as they are stored: patches, then the tokens of each caption.
    pub(super) fn encoded(&self, pair: usize) -> (Encoded<'_>, Vec<Encoded<'_>>) {
        let (shard, i) = self.locate(pair);
        (shard.vision(i), (0..shard.captions(i)).map(|c| shard.text(i, c)).collect())
    }

    fn read(&self, what: &str, pair: usize, from: Encoded, width: usize, out: &mut [f32]) -> Result<()> {
        check_out(what, pair, out.len(), from.states.len() / self.manifest.precision.bytes())?;
        self.manifest.precision.decode(from, width, out);
        Ok(())
    }
}

/// Reads a small file whole and compares it with its entry.
fn read_listed(store: &Path, manifest: &Manifest, name: &str) -> Result<Vec<u8>> {
    let path = store.join(name);
    let entry = manifest.files.iter().find(|f| f.name == name);
    let Some(FileEntry { bytes, blake3, .. }) = entry else {
        return Err(DataError::damaged(store, name, "no entry in the manifest", "an entry"));
    };
    let length = match std::fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataError::damaged(store, name, "no such file", format!("{bytes} bytes")));
        }
        Err(e) => return Err(DataError::io("read", &path, e)),
    };
    if length != *bytes {
        return Err(DataError::damaged(store, name, format!("{length} bytes"), format!("{bytes} bytes")));
    }
    let content = std::fs::read(&path).map_err(|e| DataError::io("read", &path, e))?;
    let hash = blake3::hash(&content).to_hex().to_string();
    if hash != *blake3 {
        return Err(DataError::damaged(store, name, format!("BLAKE3 {hash}"), format!("BLAKE3 {blake3}")));
    }
    Ok(content)
}

fn read_pairs(store: &Path, manifest: &Manifest) -> Result<Vec<PairInfo>> {
    let content = read_listed(store, manifest, PAIRS)?;
    let lines: Vec<&[u8]> = content.split(|&b| b == b'\n').filter(|l| !l.is_empty()).collect();
    if lines.len() != manifest.pairs {
        return Err(DataError::damaged(
            store,
            PAIRS,
            format!("{} pairs", lines.len()),
            format!("{} pairs", manifest.pairs),
        ));
    }
    let parse = |(i, line): (usize, &&[u8])| {
        serde_json::from_slice(line)
            .map_err(|e| DataError::damaged(store, PAIRS, format!("line {}: {e}", i + 1), "a pair"))
    };
    lines.par_iter().enumerate().map(parse).collect()
}

fn read_statistics(store: &Path, manifest: &Manifest) -> Result<Statistics> {
    let content = read_listed(store, manifest, STATISTICS)?;
    let damaged = |found: String| DataError::damaged(store, STATISTICS, found, "vision.mean and text.mean of type F64");
    let tensors = safetensors::SafeTensors::deserialize(&content).map_err(|e| damaged(e.to_string()))?;
    let mean = |name: &str, d: usize| -> Result<Vec<f64>> {
        let tensor = tensors.tensor(name).map_err(|e| damaged(e.to_string()))?;
        if tensor.dtype() != safetensors::Dtype::F64 || tensor.shape() != [d] {
            return Err(damaged(format!("{name} {:?} {:?}", tensor.dtype(), tensor.shape())));
        }
        Ok(tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
    };
    let s = &manifest.statistics;
    Ok(Statistics {
        mean_vision: mean("vision.mean", manifest.d_vision)?,
        mean_text: mean("text.mean", manifest.d_text)?,
        variance: s.variance,
        mean_square: s.mean_square,
        pooled_variance: s.pooled_variance,
        tokens: s.tokens,
    })
}

/// All shards, or one error that lists the damage of all of them.
fn gather(store: &Path, shards: Vec<Result<ShardReader>>) -> Result<Vec<ShardReader>> {
    let mut good = Vec::with_capacity(shards.len());
    let mut all = Vec::new();
    for shard in shards {
        match shard {
            Ok(shard) => good.push(shard),
            Err(DataError::StoreDamaged { damage, .. }) => all.extend(damage),
            Err(other) => return Err(other),
        }
    }
    if all.is_empty() { Ok(good) } else { Err(DataError::StoreDamaged { store: store.to_path_buf(), damage: all }) }
}

impl ActivationSource for StoreReader {
    fn pairs(&self) -> usize {
        self.infos.len()
    }
    fn d_vision(&self) -> usize {
        self.manifest.d_vision
    }
    fn d_text(&self) -> usize {
        self.manifest.d_text
    }
    fn vision_len(&self, pair: usize) -> usize {
        let (shard, i) = self.locate(pair);
        shard.vision_len(i)
    }
    fn captions(&self, pair: usize) -> usize {
        self.infos[pair].captions.len()
    }
    fn text_len(&self, pair: usize, caption: usize) -> usize {
        let (shard, i) = self.locate(pair);
        shard.text_rows(i, caption).len()
    }
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> Result<()> {
        let (shard, i) = self.locate(pair);
        self.read("vision", pair, shard.vision(i), self.manifest.d_vision, out)
    }
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> Result<()> {
        let (shard, i) = self.locate(pair);
        self.read("text", pair, shard.text(i, caption), self.manifest.d_text, out)
    }
    fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }
    fn fingerprint(&self) -> String {
        self.manifest.fingerprint.clone()
    }
    fn origin(&self) -> Option<serde_json::Value> {
        let from = &self.manifest.provenance;
        from.get("backbone")?;
        let known =
            ["backbone", "hooks", "keepEos"].into_iter().filter_map(|name| Some((name, from.get(name)?.clone())));
        Some(known.map(|(name, value)| (name.to_owned(), value)).collect::<serde_json::Map<_, _>>().into())
    }
    fn key(&self, pair: usize) -> &str {
        &self.infos[pair].key
    }
}

impl AnnotatedSource for StoreReader {
    fn info(&self, pair: usize) -> &PairInfo {
        &self.infos[pair]
    }
    fn text_tokens(&self, pair: usize, caption: usize) -> TokenInfo<'_> {
        let (shard, i) = self.locate(pair);
        TokenInfo { ids: shard.ids(i, caption), kinds: shard.kinds(i, caption), spans: shard.spans(i, caption) }
    }
    fn thumbnail(&self, pair: usize) -> Option<&[u8]> {
        let (shard, i) = self.locate(pair);
        shard.thumbnail(i)
    }
}
