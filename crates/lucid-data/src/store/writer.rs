//! Writes a store, pair by pair, and publishes it when it is complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::check::check_pair;
use super::journal::Journal;
use super::manifest::{
    FORMAT, FORMAT_VERSION, FileEntry, MANIFEST, Manifest, PAIRS, STATISTICS, ShardEntry, StatisticsSummary,
};
use super::memory::info_of;
use super::shard_writer::ShardWriter;
use super::statistics::StatisticsBuilder;
use super::verify::hash_file;
use super::{AnnotatedSource, CaptionActivations, PairActivations, PerModality, Precision, Statistics};
use crate::error::{DataError, Result};
use crate::progress::{Observer, Silent};
use crate::publish::{Disk, FileSystem, FolderPublisher, PublishedFile};

/// How a store is written.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How activations are stored.
    pub precision: Precision,
    /// Pairs in a shard; the last one may have fewer.
    pub pairs_per_shard: usize,
    /// Where the activations come from, kept as it is: backbone, hooks, data set …
    pub provenance: Value,
    /// Width of a patch's state.
    pub d_vision: usize,
    /// Width of a token's state.
    pub d_text: usize,
    /// Replace an existing store under the same name; anything else there is never replaced.
    pub overwrite: bool,
}

impl StoreOptions {
    /// f16, 1024 pairs a shard, no provenance, nothing replaced.
    pub fn new(d_vision: usize, d_text: usize) -> Self {
        Self {
            precision: Precision::F16,
            pairs_per_shard: 1024,
            provenance: Value::Null,
            d_vision,
            d_text,
            overwrite: false,
        }
    }
}

pub(super) fn check_widths(d_vision: usize, d_text: usize) -> Result<()> {
    for (option, d) in [("dVision", d_vision), ("dText", d_text)] {
        if d == 0 || d > 1 << 20 {
            return Err(DataError::Option {
                option,
                found: d.to_string(),
                expected: "a width from 1 to 1048576".into(),
            });
        }
    }
    Ok(())
}

/// Writes a store. Nothing is visible under its name before [`StoreWriter::finish`]; a writer that is dropped earlier
/// leaves nothing behind.
///
/// ```
/// use lucid_data::store::{CaptionActivations, PairActivations, StoreOptions, StoreReader, StoreWriter};
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("acts");
/// let mut writer = StoreWriter::create(&path, StoreOptions::new(2, 3)).unwrap();
/// let caption = CaptionActivations { text: "a cat", states: &[1.0, 2.0, 3.0], ids: &[7], kinds: &[0], spans: &[[2, 5]] };
/// writer
///     .append(&PairActivations {
///         key: "cat.png",
///         vision: &[0.5, 1.5, 2.5, 3.5],
///         vision_grid: [1, 2],
///         captions: &[caption],
///         size: None,
///         boxes: &[],
///         thumbnail: None,
///     })
///     .unwrap();
/// writer.finish().unwrap();
/// assert_eq!(StoreReader::open(&path).unwrap().manifest().pairs, 1);
/// ```
pub struct StoreWriter {
    pub(super) publisher: FolderPublisher,
    pub(super) options: StoreOptions,
    shard: Option<ShardWriter>,
    pub(super) shards: Vec<Shard>,
    pub(super) pairs_file: PublishedFile,
    pub(super) pairs_hash: blake3::Hasher,
    pairs_buffer: Vec<u8>,
    pub(super) pairs_bytes: u64,
    pub(super) pairs: usize,
    pub(super) captions: usize,
    pub(super) tokens: PerModality<u64>,
    pub(super) statistics: StatisticsBuilder,
    /// Kept by a store that can be gone on with.
    pub(super) journal: Option<Journal>,
    /// Files besides the activations, written when the store is finished.
    notes: Vec<(String, Vec<u8>)>,
    /// File of an earlier failed write; the shard then has a hole, so nothing more may follow.
    broken: Option<PathBuf>,
    encoded: Vec<u8>,
    stored: [Vec<f32>; 2],
}

/// A shard that is begun or complete.
pub(super) struct Shard {
    pub name: String,
    pub first_pair: usize,
    pub pairs: usize,
    /// Length and hash, once they are known.
    pub file: Option<FileEntry>,
}

impl StoreWriter {
    /// Starts a store at `path`.
    ///
    /// # Errors
    /// `E_EXISTS` where something is there already, `E_OPTION`, `E_IO`.
    pub fn create(path: &Path, options: StoreOptions) -> Result<Self> {
        Self::create_on(Arc::new(Disk), path, options)
    }

    /// As [`StoreWriter::create`], on the given file system.
    ///
    /// # Errors
    /// As [`StoreWriter::create`].
    pub fn create_on(files: Arc<dyn FileSystem>, path: &Path, options: StoreOptions) -> Result<Self> {
        check_options(&options)?;
        let publisher = FolderPublisher::begin_on(files, path, options.overwrite, MANIFEST)?;
        let pairs_file = publisher.create(PAIRS)?;
        Ok(Self::new(publisher, pairs_file, options, None))
    }

    pub(super) fn new(
        publisher: FolderPublisher,
        pairs_file: PublishedFile,
        options: StoreOptions,
        journal: Option<Journal>,
    ) -> Self {
        Self {
            statistics: StatisticsBuilder::new(options.d_vision, options.d_text),
            publisher,
            options,
            shard: None,
            shards: Vec::new(),
            pairs_file,
            pairs_hash: blake3::Hasher::new(),
            pairs_buffer: Vec::new(),
            pairs_bytes: 0,
            pairs: 0,
            captions: 0,
            tokens: PerModality::default(),
            journal,
            notes: Vec::new(),
            broken: None,
            encoded: Vec::new(),
            stored: [Vec::new(), Vec::new()],
        }
    }

    /// Pairs appended so far.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// Adds a pair. A pair that is refused leaves the writer as it was; after an `E_IO` it takes nothing more.
    ///
    /// # Errors
    /// `E_NON_FINITE`, `E_OVERFLOW`, `E_EMPTY` (no patch, no token), `E_NO_CAPTION`, `E_SHAPE`, `E_IO`.
    pub fn append(&mut self, pair: &PairActivations) -> Result<()> {
        self.check_usable()?;
        check_pair(pair, self.options.d_vision, self.options.d_text, self.options.precision)?;
        let result = self.append_checked(pair);
        if let Err(DataError::Io { file, .. }) = &result {
            self.broken = Some(file.clone());
        }
        result
    }

    /// True where the last pair completed a shard.
    pub(super) fn at_shard_end(&self) -> bool {
        self.shard.is_none() && !self.shards.is_empty()
    }

    /// Keeps a small file with the store. It is listed in the manifest and verified, but is no part of the fingerprint, which
    /// identifies the activations.
    pub fn keep(&mut self, name: &str, content: Vec<u8>) {
        self.notes.push((name.into(), content));
    }

    pub(super) fn check_usable(&self) -> Result<()> {
        match &self.broken {
            Some(file) => {
                Err(DataError::io("write", file, std::io::Error::other("an earlier write to this store failed")))
            }
            None => Ok(()),
        }
    }

    fn append_checked(&mut self, pair: &PairActivations) -> Result<()> {
        let (precision, d_vision, d_text) = (self.options.precision, self.options.d_vision, self.options.d_text);
        self.encoded.clear();
        precision.encode(pair.vision, &mut self.encoded);
        let captions: Vec<Vec<u8>> = pair
            .captions
            .iter()
            .map(|c| {
                let mut bytes = Vec::with_capacity(c.states.len() * precision.bytes());
                precision.encode(c.states, &mut bytes);
                bytes
            })
            .collect();
        let shard = match &mut self.shard {
            Some(shard) => shard,
            none => {
                let name = format!("shard-{:06}.safetensors", self.shards.len());
                let file = self.publisher.create(&name)?;
                self.shards.push(Shard { name, first_pair: self.pairs, pairs: 0, file: None });
                none.insert(ShardWriter::new(file, precision, d_vision, d_text)?)
            }
        };
        shard.append(pair, &self.encoded, &captions)?;
        let full = shard.pairs() == self.options.pairs_per_shard;
        let pairs_in_shard = shard.pairs();

        // Statistics describe the values a reader gets, so they are taken after rounding.
        let [vision, text] = &mut self.stored;
        vision.resize(pair.vision.len(), 0.0);
        precision.decode(&self.encoded, vision);
        text.resize(pair.captions[0].states.len(), 0.0);
        precision.decode(&captions[0], text);
        self.statistics.add(vision, text);

        self.write_info(pair)?;
        if let Some(last) = self.shards.last_mut() {
            last.pairs = pairs_in_shard;
        }
        self.pairs += 1;
        self.captions += pair.captions.len();
        self.tokens.vision += (pair.vision.len() / d_vision) as u64;
        self.tokens.text += pair.captions.iter().map(|c| (c.states.len() / d_text) as u64).sum::<u64>();
        if full && let Some(shard) = self.shard.take() {
            shard.close()?;
        }
        Ok(())
    }

    fn write_info(&mut self, pair: &PairActivations) -> Result<()> {
        serde_json::to_writer(&mut self.pairs_buffer, &info_of(pair))
            .map_err(|e| DataError::shape(format!("pair {:?}", pair.key), e, "a value that JSON can hold"))?;
        self.pairs_buffer.push(b'\n');
        if self.pairs_buffer.len() >= 1 << 16 { self.flush_pairs() } else { Ok(()) }
    }

    pub(super) fn flush_pairs(&mut self) -> Result<()> {
        self.pairs_hash.update(&self.pairs_buffer);
        self.pairs_bytes += self.pairs_buffer.len() as u64;
        let written = self.pairs_file.write(&self.pairs_buffer);
        self.pairs_buffer.clear();
        written
    }

    /// Completes the store and publishes it.
    ///
    /// # Errors
    /// `E_EMPTY` without any pair, `E_IO`; nothing is published then.
    pub fn finish(mut self) -> Result<Manifest> {
        self.check_usable()?;
        if self.pairs == 0 {
            return Err(DataError::Empty { what: "the activation store".into() });
        }
        if let Some(shard) = self.shard.take() {
            shard.close()?;
        }
        self.flush_pairs()?;
        self.pairs_file.close()?;
        let statistics = self.statistics.finish();
        self.publisher.write(STATISTICS, &means_file(&statistics)?)?;

        for (name, content) in &self.notes {
            self.publisher.write(name, content)?;
        }

        let entry = |name: &str| file_entry(&self.publisher, name);
        let mut files = vec![entry(PAIRS)?, entry(STATISTICS)?];
        for (name, _) in &self.notes {
            files.push(entry(name)?);
        }
        // What was sent to the file and what the file now holds must be the same.
        let sent = self.pairs_hash.finalize().to_hex().to_string();
        if files[0].blake3 != sent {
            return Err(DataError::damaged(&self.publisher.path(""), PAIRS, &files[0].blake3, sent));
        }
        let mut shards = Vec::with_capacity(self.shards.len());
        for Shard { name, first_pair, pairs, file } in &self.shards {
            let FileEntry { name, bytes, blake3 } = match file {
                Some(file) => file.clone(),
                None => entry(name)?,
            };
            shards.push(ShardEntry { name, first_pair: *first_pair, pairs: *pairs, bytes, blake3 });
        }
        let mut manifest = Manifest {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            created_by: format!("lucid-sae {}", env!("CARGO_PKG_VERSION")),
            precision: self.options.precision,
            d_vision: self.options.d_vision,
            d_text: self.options.d_text,
            pairs: self.pairs,
            captions: self.captions,
            tokens: self.tokens,
            statistics: StatisticsSummary {
                variance: statistics.variance,
                mean_square: statistics.mean_square,
                pooled_variance: statistics.pooled_variance,
                tokens: statistics.tokens,
            },
            shards,
            files,
            provenance: self.options.provenance,
            fingerprint: String::new(),
            manifest_blake3: String::new(),
        };
        manifest.fingerprint = Manifest::fingerprint_of(&manifest.all_files());
        self.publisher.write(MANIFEST, &manifest.seal()?)?;
        self.publisher.publish()?;
        if let Some(journal) = self.journal {
            journal.finish()?;
        }
        Ok(manifest)
    }
}

/// Length and hash of a file of the store that is being written.
pub(super) fn file_entry(publisher: &FolderPublisher, name: &str) -> Result<FileEntry> {
    let (bytes, blake3) = hash_file(&publisher.path(name), &|_| Ok(()))?;
    Ok(FileEntry { name: name.to_string(), bytes, blake3 })
}

pub(super) fn check_options(options: &StoreOptions) -> Result<()> {
    check_widths(options.d_vision, options.d_text)?;
    if options.pairs_per_shard == 0 {
        return Err(DataError::Option { option: "pairsPerShard", found: "0".into(), expected: "1 or more".into() });
    }
    Ok(())
}

/// `vision.mean` and `text.mean` as f64.
fn means_file(statistics: &Statistics) -> Result<Vec<u8>> {
    use safetensors::{Dtype, tensor::TensorView};
    let bytes = |mean: &[f64]| mean.iter().flat_map(|m| m.to_le_bytes()).collect::<Vec<u8>>();
    let (vision, text) = (bytes(&statistics.mean_vision), bytes(&statistics.mean_text));
    let view = |data, n| TensorView::new(Dtype::F64, vec![n], data);
    view(&vision, statistics.mean_vision.len())
        .and_then(|v| Ok([("vision.mean", v), ("text.mean", view(&text, statistics.mean_text.len())?)]))
        .and_then(|tensors| safetensors::serialize(tensors, None))
        .map_err(|e| DataError::shape(STATISTICS, e, "two vectors"))
}

/// Writes everything of `source` as a store: keeps a generated set, or changes precision or shard size.
///
/// # Errors
/// As [`StoreWriter::append`] and [`StoreWriter::finish`]; `E_CANCELLED`.
pub fn write_store(
    source: &dyn AnnotatedSource,
    path: &Path,
    options: StoreOptions,
    observer: &dyn Observer,
) -> Result<Manifest> {
    let (d_vision, d_text) = (source.d_vision(), source.d_text());
    let mut writer = StoreWriter::create(path, StoreOptions { d_vision, d_text, ..options })?;
    let mut vision = Vec::new();
    for i in 0..source.pairs() {
        if observer.cancelled() {
            return Err(DataError::Cancelled { stage: "writing activations" });
        }
        vision.resize(source.vision_len(i) * d_vision, 0.0);
        source.read_vision(i, &mut vision)?;
        let mut states = Vec::with_capacity(source.captions(i));
        for c in 0..source.captions(i) {
            let mut text = vec![0.0; source.text_len(i, c) * d_text];
            source.read_text(i, c, &mut text)?;
            states.push(text);
        }
        let info = source.info(i);
        let captions: Vec<CaptionActivations> = states
            .iter()
            .enumerate()
            .map(|(c, states)| {
                let tokens = source.text_tokens(i, c);
                CaptionActivations {
                    text: &info.captions[c],
                    states,
                    ids: tokens.ids,
                    kinds: tokens.kinds,
                    spans: tokens.spans,
                }
            })
            .collect();
        writer.append(&PairActivations {
            key: &info.key,
            vision: &vision,
            vision_grid: info.vision_grid,
            captions: &captions,
            size: info.size,
            boxes: &info.boxes,
            thumbnail: source.thumbnail(i),
        })?;
        observer.progress("write", i as u64 + 1, source.pairs() as u64);
    }
    writer.finish()
}

impl super::MemoryStore {
    /// Writes this set as a store at `path`.
    ///
    /// # Errors
    /// As [`write_store`].
    pub fn write_to(&self, path: &Path, options: StoreOptions) -> Result<Manifest> {
        write_store(self, path, options, &Silent)
    }
}
