//! The folders of `huggingface_hub`, so that Python and this crate share what either has downloaded.
//!
//! `models--owner--name/` holds `blobs/<etag>` (contents), `snapshots/<commit>/<file>` (links to blobs), `refs/<revision>` (a
//! commit), and `.no_exist/<commit>/<file>` (what a commit was found not to have). Locks are in `.locks/`, one for each blob.

use crate::error::VlmError;
use crate::hub::files::{self, PREPROCESSOR};
use crate::hub::name::{Repo, is_commit};
use lucid_data::DataError;
use lucid_data::progress::Observer;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a lock held by another process is asked for.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// The cache of one repository.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

/// What a snapshot lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing(pub String);

/// An error of the file system, with what was tried.
pub(super) fn io_error(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> VlmError {
    let file = file.to_path_buf();
    move |source| DataError::Io { file, action, source }.into()
}

/// The error of work that was told to stop.
pub(super) fn cancelled() -> VlmError {
    DataError::Cancelled { stage: "download" }.into()
}

fn create_parent(file: &Path) -> Result<(), VlmError> {
    let parent = file.parent().unwrap_or(file);
    fs::create_dir_all(parent).map_err(io_error(parent, "create"))
}

impl Cache {
    pub fn new(cache: &Path, repo: &Repo) -> Self {
        let name = format!("models--{}", repo.id.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where a blob grows; a call that is interrupted leaves it for the next one.
    pub fn partial(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// The commit that a revision was at when it was last asked for.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.into());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// A snapshot with everything a backbone needs, or what is missing. No request is made.
    pub fn complete(&self, repo: &Repo) -> Result<String, Missing> {
        let missing = |what: String| Err(Missing(what));
        let Some(commit) = self.commit(&repo.revision) else {
            return missing(format!("no snapshot of revision {:?} in {}", repo.revision, self.folder.display()));
        };
        let snapshot = self.snapshot(&commit);
        let Ok(entries) = fs::read_dir(&snapshot) else {
            return missing(format!("no snapshot {}", snapshot.display()));
        };
        // A link whose blob is gone is no file.
        let there = |file: &str| snapshot.join(file).is_file();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let listed: BTreeSet<String> = names.filter(|name| there(name)).collect();
        let choice = match files::choose(&listed, repo) {
            Ok(choice) => choice,
            Err(VlmError::Name { found, expected, .. }) => {
                return missing(format!("{} {found}, expected {expected}", snapshot.display()));
            }
            Err(error) => return missing(error.to_string()),
        };
        let mut lacking = Vec::new();
        if let Some(index) = &choice.index {
            let read = fs::read(snapshot.join(index)).map_err(io_error(&snapshot.join(index), "read"));
            let shards = read.and_then(|bytes| files::shards(&bytes, index)).map_err(|e| Missing(e.to_string()))?;
            lacking.extend(shards.into_iter().filter(|shard| !there(shard)));
        }
        // Without it the values of SigLIP would be taken, so it must be known that the repository has none.
        let transformers = choice.files.iter().any(|file| file == files::CONFIG);
        if transformers && !listed.contains(PREPROCESSOR) && !self.absent(&commit, PREPROCESSOR).exists() {
            lacking.push(PREPROCESSOR.into());
        }
        if lacking.is_empty() {
            return Ok(commit);
        }
        missing(format!("{} lacks {}", snapshot.display(), lacking.join(", ")))
    }

    /// Notes that a commit has no such file.
    pub fn note_absent(&self, commit: &str, file: &str) -> Result<(), VlmError> {
        let path = self.absent(commit, file);
        create_parent(&path)?;
        File::create(&path).map(drop).map_err(io_error(&path, "write"))
    }

    /// Notes the commit of a branch or tag.
    pub fn note_commit(&self, revision: &str, commit: &str) -> Result<(), VlmError> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let (path, new) = (self.reference(revision), self.temporary());
        create_parent(&path)?;
        fs::write(&new, commit).map_err(io_error(&new, "write"))?;
        fs::rename(&new, &path).map_err(io_error(&path, "write"))
    }

    /// Shows a blob under its name in a snapshot: a relative link, or a copy where links cannot be made.
    pub fn publish(&self, commit: &str, file: &str, etag: &str) -> Result<(), VlmError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        let (new, blob) = (self.temporary(), self.blob(etag));
        let target = PathBuf::from("../".repeat(file.matches('/').count() + 2)).join("blobs").join(etag);
        if link(&target, &new).is_err() {
            fs::copy(&blob, &new).map_err(io_error(&new, "write"))?;
        }
        fs::rename(&new, &path).map_err(io_error(&path, "write"))
    }

    /// A name that no other writer uses, beside what it will replace.
    fn temporary(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.folder.join(format!(".new-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The right to write a blob, held until dropped; waits for another process. The kernel frees it when its holder ends.
    pub fn lock(&self, etag: &str, observer: &dyn Observer) -> Result<File, VlmError> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        create_parent(&self.blob(etag))?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(io_error(&path, "open"))?;
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                // Some network file systems have no locks; the blob is verified and renamed, so two writers cost time only.
                Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK) => return Ok(file),
                Err(error) => return Err(io_error(&path, "lock")(error.into())),
            }
            if observer.cancelled() {
                return Err(cancelled());
            }
            if !told {
                told = true;
                observer.warning("W_HUB", &format!("waiting for another process that holds {}", path.display()));
            }
            std::thread::sleep(LOCK_INTERVAL);
        }
    }
}

#[cfg(unix)]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(windows)]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, at)
}

#[cfg(not(any(unix, windows)))]
fn link(_target: &Path, _at: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
