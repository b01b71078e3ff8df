//! What makes an unfinished store one that can be gone on with.
//!
//! Beside the target lies a hidden folder `.<name>.partial` with the store's files, a lock, and a journal: a line that says what is being
//! made, then a line for every complete shard, written and synced after the shard. Whatever follows the last line — half a shard, lines
//! of `pairs.jsonl` — is dropped and made again, so a killed run that is gone on with gives the bits of one that was not.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::difference::difference;
use super::manifest::FileEntry;
use super::precision_error::ErrorSums;
use super::{PerModality, StoreOptions};
use crate::error::{DataError, Result};
use crate::publish::{FileSystem, OutputFile, parent_of};

const JOURNAL: &str = "journal.jsonl";
const LOCK: &str = "lock";
/// The store's own files, to become the target by a rename.
const FILES: &str = "store";

/// A complete shard, and where its maker stood when it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub file: FileEntry,
    pub pairs: usize,
    /// Length of `pairs.jsonl` with this shard's pairs.
    pub pairs_bytes: u64,
    /// What rounding has changed so far: the one thing that the stored values do not tell.
    pub errors: PerModality<ErrorSums>,
    /// What the maker wants to know when it goes on from here.
    pub state: Value,
}

/// An open journal. The lock is held as long as it lives.
pub(super) struct Journal {
    files: Arc<dyn FileSystem>,
    folder: PathBuf,
    out: Box<dyn OutputFile>,
    shards: usize,
    _lock: File,
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Without a complete shard there is nothing to go on with.
        if self.shards == 0 {
            let _ = self.files.remove_dir_all(&self.folder);
        }
    }
}

/// The hidden folder of an unfinished store.
pub(super) fn folder_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    parent_of(target).join(format!(".{name}.partial"))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DataError {
    move |e| DataError::io(action, path, e)
}

/// What a store is made of: two runs with the same may go on from each other.
fn identity(options: &StoreOptions) -> Value {
    json!({
        "precision": options.precision,
        "pairsPerShard": options.pairs_per_shard,
        "dVision": options.d_vision,
        "dText": options.d_text,
        "provenance": options.provenance,
    })
}

/// Takes the lock of an unfinished store, which another process may hold.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).append(true).open(&path).map_err(io("lock", &path))?;
    #[cfg(unix)]
    {
        use rustix::fs::{FlockOperation, flock};
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(DataError::Unfinished {
                path: folder.to_path_buf(),
                reason: "another process is writing it".into(),
                fix: "wait for it, or stop it first".into(),
            });
        }
    }
    Ok(file)
}

/// The lines of a journal; a last line that is cut short was never complete.
fn read(folder: &Path) -> Result<Option<(Value, Vec<Line>)>> {
    let path = folder.join(JOURNAL);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DataError::io("read", &path, e)),
    };
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    let mut lines = bytes[..whole].split(|&b| b == b'\n').filter(|l| !l.is_empty());
    let damaged = |e: serde_json::Error| DataError::Unfinished {
        path: folder.to_path_buf(),
        reason: format!("its journal cannot be read: {e}"),
        fix: "start over with overwrite".into(),
    };
    let Some(head) = lines.next() else { return Ok(None) };
    let head = serde_json::from_slice(head).map_err(damaged)?;
    Ok(Some((head, lines.map(|l| serde_json::from_slice(l).map_err(damaged)).collect::<Result<_>>()?)))
}

/// States at the complete shards of the unfinished store of `target`; `None` where there is none.
///
/// # Errors
/// `E_UNFINISHED` where it is another store's, or its journal is damaged; `E_IO`.
pub(super) fn states(target: &Path, options: &StoreOptions) -> Result<Option<Vec<Value>>> {
    let folder = folder_of(target);
    let Some((head, lines)) = read(&folder)?.filter(|(_, lines)| !lines.is_empty()) else { return Ok(None) };
    if let Some((field, found, expected)) = difference("", &head, &identity(options)) {
        return Err(DataError::Unfinished {
            path: folder,
            reason: format!("it was begun with {field} {found}, this run has {expected}"),
            fix: "go on with the same options, or start over with overwrite".into(),
        });
    }
    Ok(Some(lines.into_iter().map(|line| line.state).collect()))
}

/// Removes the folder of an unfinished store whose target has got its name: what a kill leaves between that and the end.
pub(super) fn tidy(files: &dyn FileSystem, target: &Path) -> Result<()> {
    let folder = folder_of(target);
    if !folder.exists() {
        return Ok(());
    }
    let _held = lock(&folder)?;
    files.remove_dir_all(&folder).map_err(io("remove", &folder))
}

impl Journal {
    /// Begins an unfinished store. What an earlier run left is refused, or removed with `overwrite`.
    pub(super) fn begin(files: Arc<dyn FileSystem>, target: &Path, options: &StoreOptions) -> Result<Self> {
        let folder = folder_of(target);
        if folder.exists() {
            let held = lock(&folder)?;
            if read(&folder)?.is_some_and(|(_, lines)| !lines.is_empty()) && !options.overwrite {
                return Err(DataError::Unfinished {
                    path: folder,
                    reason: "an earlier run did not finish".into(),
                    fix: "go on with resume, or start over with overwrite".into(),
                });
            }
            drop(held);
            files.remove_dir_all(&folder).map_err(io("remove", &folder))?;
        }
        files.create_dir_all(&folder).map_err(io("create", &folder))?;
        let held = lock(&folder)?;
        let mut journal = Self::open(files, folder, held, 0)?;
        journal.line(&identity(options))?;
        journal.sync_dir(&journal.folder)?;
        journal.sync_dir(parent_of(&journal.folder))?;
        Ok(journal)
    }

    /// Goes on with an unfinished store from its first `shards` shards.
    pub(super) fn resume(files: Arc<dyn FileSystem>, target: &Path, shards: usize) -> Result<(Self, Vec<Line>)> {
        let folder = folder_of(target);
        let held = lock(&folder)?;
        let (head, mut lines) = read(&folder)?.unwrap_or_default();
        lines.truncate(shards);
        // Written anew without what is dropped, under another name first: a kill here leaves the old one.
        let (path, fresh) = (folder.join(JOURNAL), folder.join("journal.new"));
        if fresh.exists() {
            fs::remove_file(&fresh).map_err(io("remove", &fresh))?;
        }
        let mut text = format!("{head}\n");
        for line in &lines {
            text.push_str(&encode(line)?);
        }
        let mut file = files.create(&fresh).map_err(io("create", &fresh))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync()).map_err(io("write", &fresh))?;
        drop(file);
        files.rename(&fresh, &path).map_err(io("write", &path))?;
        files.sync_dir(&folder).map_err(io("sync", &folder))?;
        let kept: Vec<&str> = lines.iter().map(|l| l.file.name.as_str()).chain([super::PAIRS]).collect();
        let store = folder.join(FILES);
        for entry in fs::read_dir(&store).map_err(io("read", &store))? {
            let entry = entry.map_err(io("read", &store))?;
            if !kept.iter().any(|&name| entry.file_name() == name) {
                fs::remove_file(entry.path()).map_err(io("remove", &entry.path()))?;
            }
        }
        Ok((Self::open(files, folder, held, lines.len())?, lines))
    }

    fn open(files: Arc<dyn FileSystem>, folder: PathBuf, lock: File, shards: usize) -> Result<Self> {
        let path = folder.join(JOURNAL);
        let out = files.append(&path).map_err(io("open", &path))?;
        Ok(Self { files, folder, out, shards, _lock: lock })
    }

    /// Where the store's files are written.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.join(FILES)
    }

    /// Notes a complete shard.
    pub(super) fn note(&mut self, line: &Line) -> Result<()> {
        let text = encode(line)?;
        // The shard has its name on the disk before the journal speaks of it.
        self.sync_dir(&self.store())?;
        self.write(text.as_bytes())?;
        self.shards += 1;
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.files.sync_dir(path).map_err(io("sync", path))
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        self.write(format!("{value}\n").as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(JOURNAL);
        self.out.write_all(bytes).and_then(|()| self.out.sync()).map_err(io("write", &path))
    }

    /// Removes what is left once the store has its name.
    pub(super) fn finish(mut self) -> Result<()> {
        // Dropping must not remove it a second time.
        self.shards += 1;
        self.files.remove_dir_all(&self.folder).map_err(io("remove", &self.folder))
    }
}

fn encode(line: &Line) -> Result<String> {
    let text = serde_json::to_string(line);
    text.map(|t| t + "\n").map_err(|e| DataError::shape("journal", e, "a value that JSON can hold"))
}
