//! Writes a store, pair by pair, and publishes it when it is complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::check_pair;
use super::journal::Journal;
use super::manifest::{FORMAT, FileEntry, MANIFEST, Manifest, PAIRS, STATISTICS, ShardEntry, StatisticsSummary};
use super::memory::info_of;
use super::options::check_options;
use super::precision::{Encoded, EncodedBuffer};
use super::precision_error::ErrorSums;
use super::shard_writer::ShardWriter;
use super::statistics::StatisticsBuilder;
use super::verify::hash_file;
use super::{CaptionActivations, PairActivations, PerModality, Statistics, StoreOptions};
use crate::error::{DataError, Result};
use crate::publish::{Disk, FileSystem, FolderPublisher, PublishedFile};

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
    pub(super) errors: PerModality<ErrorSums>,
    encoded: EncodedBuffer,
    stored: Vec<f32>,
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
            errors: PerModality::default(),
            encoded: EncodedBuffer::default(),
            stored: Vec::new(),
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
        let StoreOptions { precision, d_vision, d_text, .. } = self.options;
        check_pair(pair, d_vision, d_text, precision)?;
        let mut vision = std::mem::take(&mut self.encoded);
        vision.clear();
        precision.encode(pair.vision, d_vision, &mut vision);
        let encode = |caption: &CaptionActivations| {
            let mut states = EncodedBuffer::default();
            precision.encode(caption.states, d_text, &mut states);
            states
        };
        let captions: Vec<EncodedBuffer> = pair.captions.iter().map(encode).collect();
        let captions: Vec<Encoded> = captions.iter().map(EncodedBuffer::get).collect();
        let result = self.put(pair, vision.get(), &captions, true);
        self.encoded = vision;
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

    /// Writes a checked pair, and remembers a failed write.
    pub(super) fn put(
        &mut self,
        pair: &PairActivations,
        vision: Encoded,
        captions: &[Encoded],
        measured: bool,
    ) -> Result<()> {
        let result = self.put_checked(pair, vision, captions, measured);
        if let Err(DataError::Io { file, .. }) = &result {
            self.broken = Some(file.clone());
        }
        result
    }

    /// `measured`: the states of `pair` are those before rounding.
    fn put_checked(
        &mut self,
        pair: &PairActivations,
        vision: Encoded,
        captions: &[Encoded],
        measured: bool,
    ) -> Result<()> {
        let StoreOptions { precision, d_vision, d_text, .. } = self.options;
        let shard = match &mut self.shard {
            Some(shard) => shard,
            none => {
                let name = format!("shard-{:06}.safetensors", self.shards.len());
                let file = self.publisher.create(&name)?;
                self.shards.push(Shard { name, first_pair: self.pairs, pairs: 0, file: None });
                none.insert(ShardWriter::new(file, precision, d_vision, d_text)?)
            }
        };
        shard.append(pair, vision, captions)?;
        let full = shard.pairs() == self.options.pairs_per_shard;
        let pairs_in_shard = shard.pairs();

        // Statistics describe the values a reader gets, so they are taken after rounding.
        let stored = &mut self.stored;
        stored.resize(pair.vision.len(), 0.0);
        precision.decode(vision, d_vision, stored);
        self.statistics.add_vision(stored);
        if measured {
            self.errors.vision.add(pair.vision, stored, d_vision);
        }
        for (c, (caption, &states)) in pair.captions.iter().zip(captions).enumerate() {
            stored.resize(caption.states.len(), 0.0);
            precision.decode(states, d_text, stored);
            if c == 0 {
                self.statistics.add_text(stored);
            }
            if measured {
                self.errors.text.add(caption.states, stored, d_text);
            }
        }

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
        let errors = PerModality { vision: self.errors.vision.finish(), text: self.errors.text.finish() };
        // Of pairs that were appended as stored it is known only where their stores knew it.
        let measured = PerModality { vision: errors.vision.tokens, text: errors.text.tokens };
        let mut manifest = Manifest {
            format: FORMAT.into(),
            format_version: self.options.precision.format_version(),
            created_by: format!("lucid-sae {}", env!("CARGO_PKG_VERSION")),
            precision: self.options.precision,
            precision_error: (measured == self.tokens).then_some(errors),
            d_vision: self.options.d_vision,
            d_text: self.options.d_text,
            pairs: self.pairs,
            captions: self.captions,
            tokens: self.tokens,
            pairs_per_shard: Some(self.options.pairs_per_shard),
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
