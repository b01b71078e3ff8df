//! Going on with a store that a killed or failed run left unfinished.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::journal::{self, Journal, Line};
use super::manifest::{FORMAT, MANIFEST, Manifest, PAIRS, ShardEntry, StatisticsSummary};
use super::options::check_options;
use super::shard_reader::ShardReader;
use super::verify::hash_file;
use super::writer::{Shard, StoreWriter, file_entry};
use super::{PairInfo, PerModality, StoreOptions};
use crate::error::{DataError, Result};
use crate::publish::{Disk, FileSystem, FolderPublisher};

impl StoreWriter {
    /// Starts a store that can be gone on with: after a kill or an error its complete shards stay in a hidden folder beside `path`.
    /// [`StoreWriter::mark`] has to follow every pair.
    ///
    /// # Errors
    /// `E_UNFINISHED` where such a folder is there already and `overwrite` is not set; as [`StoreWriter::create`].
    pub fn begin(path: &Path, options: StoreOptions) -> Result<Self> {
        Self::begin_on(Arc::new(Disk), path, options)
    }

    /// As [`StoreWriter::begin`], on the given file system.
    ///
    /// # Errors
    /// As [`StoreWriter::begin`].
    pub fn begin_on(files: Arc<dyn FileSystem>, path: &Path, options: StoreOptions) -> Result<Self> {
        check_options(&options)?;
        let publisher = |temp| FolderPublisher::begin_kept(files.clone(), path, options.overwrite, MANIFEST, temp);
        // The target is looked at before anything is written beside it.
        drop(publisher(journal::folder_of(path))?);
        let journal = Journal::begin(files.clone(), path, &options)?;
        let publisher = publisher(journal.store())?;
        let pairs_file = publisher.append(PAIRS)?;
        Ok(Self::new(publisher, pairs_file, options, Some(journal)))
    }

    /// What [`StoreWriter::mark`] was given at each complete shard of an unfinished store at `path`; `None` where there is none.
    ///
    /// # Errors
    /// `E_UNFINISHED` where it was begun with other options; `E_IO`.
    pub fn unfinished(path: &Path, options: &StoreOptions) -> Result<Option<Vec<Value>>> {
        journal::states(path, options)
    }

    /// Removes what is left of an unfinished store beside the finished one at `path`, where a run was killed just after it had given the
    /// store its name.
    ///
    /// # Errors
    /// `E_UNFINISHED` where another process writes there; `E_IO`.
    pub fn tidy(path: &Path) -> Result<()> {
        journal::tidy(&Disk, path)
    }

    /// Goes on with the unfinished store at `path` from its first `shards` complete shards. What follows them is dropped.
    ///
    /// # Errors
    /// `E_UNFINISHED` where a shard is not what the journal says, or another process writes it; `E_EXISTS`, `E_OPTION`, `E_IO`.
    pub fn resume(path: &Path, options: StoreOptions, shards: usize) -> Result<Self> {
        Self::resume_on(Arc::new(Disk), path, options, shards)
    }

    /// As [`StoreWriter::resume`], on the given file system.
    ///
    /// # Errors
    /// As [`StoreWriter::resume`].
    pub fn resume_on(files: Arc<dyn FileSystem>, path: &Path, options: StoreOptions, shards: usize) -> Result<Self> {
        check_options(&options)?;
        let (journal, lines) = Journal::resume(files.clone(), path, shards)?;
        let folder = journal.store();
        let publisher = FolderPublisher::begin_kept(files, path, options.overwrite, MANIFEST, folder.clone())?;
        let (list, length) = (folder.join(PAIRS), lines.last().map_or(0, |l| l.pairs_bytes));
        let io = |e| DataError::io("read", &list, e);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&list).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        if found < length {
            return Err(damaged(&folder, format!("{PAIRS} has {found} bytes of {length}")));
        }
        file.set_len(length).and_then(|()| file.sync_all()).map_err(io)?;
        drop(file);
        let content = fs::read(&list).map_err(io)?;
        let infos = content
            .split(|&b| b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).map_err(|e| damaged(&folder, format!("{PAIRS}: {e}"))))
            .collect::<Result<Vec<PairInfo>>>()?;
        if infos.len() != lines.iter().map(|l| l.pairs).sum::<usize>() {
            return Err(damaged(&folder, format!("{PAIRS} has {} pairs", infos.len())));
        }
        let pairs_file = publisher.append(PAIRS)?;
        let mut writer = Self::new(publisher, pairs_file, options, Some(journal));
        writer.pairs_hash.update(&content);
        writer.pairs_bytes = length;
        writer.errors = lines.last().map(|l| l.errors).unwrap_or_default();
        for line in lines {
            let infos = &infos[writer.pairs..writer.pairs + line.pairs];
            writer.take_shard(&folder, line, infos)?;
        }
        Ok(writer)
    }

    /// Counts a complete shard in, as if its pairs had just been appended.
    fn take_shard(&mut self, folder: &Path, line: Line, infos: &[PairInfo]) -> Result<()> {
        let Line { file, pairs, .. } = line;
        let (bytes, blake3) = hash_file(&folder.join(&file.name), &|_| Ok(()))?;
        if (bytes, &blake3) != (file.bytes, &file.blake3) {
            return Err(damaged(folder, format!("{} has {bytes} bytes with BLAKE3 {blake3}", file.name)));
        }
        let entry = ShardEntry { name: file.name.clone(), first_pair: self.pairs, pairs, bytes, blake3 };
        let shard = ShardReader::open(folder, &self.half_manifest(), &entry, infos)?;
        let (precision, mut vision, mut text) = (self.options.precision, Vec::new(), Vec::new());
        for (i, info) in infos.iter().enumerate() {
            vision.resize(shard.vision_len(i) * self.options.d_vision, 0.0);
            precision.decode(shard.vision(i), self.options.d_vision, &mut vision);
            text.resize(shard.text_rows(i, 0).len() * self.options.d_text, 0.0);
            precision.decode(shard.text(i, 0), self.options.d_text, &mut text);
            self.statistics.add_vision(&vision);
            self.statistics.add_text(&text);
            self.tokens.vision += shard.vision_len(i) as u64;
            self.tokens.text += (0..info.captions.len()).map(|c| shard.text_rows(i, c).len() as u64).sum::<u64>();
            self.captions += info.captions.len();
        }
        self.shards.push(Shard { name: file.name.clone(), first_pair: self.pairs, pairs, file: Some(file) });
        self.pairs += pairs;
        Ok(())
    }

    /// What a shard's reader asks of a manifest.
    fn half_manifest(&self) -> Manifest {
        let none = PerModality::default();
        Manifest {
            format: FORMAT.into(),
            format_version: self.options.precision.format_version(),
            created_by: String::new(),
            precision: self.options.precision,
            d_vision: self.options.d_vision,
            d_text: self.options.d_text,
            pairs: self.pairs,
            captions: self.captions,
            tokens: self.tokens,
            statistics: StatisticsSummary {
                variance: none,
                mean_square: none,
                pooled_variance: none,
                tokens: PerModality::default(),
            },
            pairs_per_shard: None,
            precision_error: None,
            shards: Vec::new(),
            files: Vec::new(),
            provenance: Value::Null,
            fingerprint: String::new(),
            manifest_blake3: String::new(),
        }
    }

    /// Whether a run that ends here leaves something to go on with.
    pub fn has_complete_shard(&self) -> bool {
        self.journal.is_some() && self.shards.iter().any(|s| s.file.is_some())
    }

    /// Says where the maker stands after the last pair: what [`StoreWriter::unfinished`] gives back. Where that pair completed a shard,
    /// the shard is noted in the journal, and from then on nothing of it is lost. `state` is asked only then.
    ///
    /// # Errors
    /// `E_IO`; the store takes nothing more then.
    pub fn mark(&mut self, state: impl FnOnce() -> Value) -> Result<()> {
        if self.journal.is_none() || !self.at_shard_end() || self.shards.last().is_none_or(|s| s.file.is_some()) {
            return Ok(());
        }
        self.check_usable()?;
        self.flush_pairs()?;
        self.pairs_file.sync()?;
        let (pairs_bytes, state) = (self.pairs_bytes, state());
        let (Some(shard), Some(journal)) = (self.shards.last_mut(), &mut self.journal) else { return Ok(()) };
        let file = file_entry(&self.publisher, &shard.name)?;
        journal.note(&Line { file: file.clone(), pairs: shard.pairs, pairs_bytes, errors: self.errors, state })?;
        shard.file = Some(file);
        Ok(())
    }
}

fn damaged(folder: &Path, reason: String) -> DataError {
    DataError::Unfinished { path: folder.to_path_buf(), reason, fix: "start over with overwrite".into() }
}
