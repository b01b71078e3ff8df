//! Files that are either there whole or not at all: write, fsync, rename, fsync the folder.
//!
//! The operations that can fail half way go through [`FileSystem`], so that tests can make the n-th of them fail.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use lucid_data::publish::{Disk, FileSystem, OutputFile};
use lucid_data::publish::{parent_of, unused};

use crate::error::SaeError;

/// Length and hash of a written file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileDigest {
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3 of the content, in hexadecimal.
    pub blake3: String,
}

/// Counts and hashes what passes through.
struct Digesting {
    file: io::BufWriter<Box<dyn OutputFile>>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Digesting {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.hasher.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Creates the file `path` with what `fill` writes and makes it durable.
pub fn write_file(
    files: &dyn FileSystem,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<FileDigest, SaeError> {
    let attempt = || {
        let file = io::BufWriter::new(files.create(path)?);
        let mut out = Digesting { file, hasher: blake3::Hasher::new(), bytes: 0 };
        fill(&mut out)?;
        out.flush()?;
        let Digesting { file: writer, hasher, bytes } = out;
        // Every byte was flushed above; taking the writer apart keeps its destructor from writing again.
        writer.into_parts().0.sync()?;
        Ok(FileDigest { bytes, blake3: hasher.finalize().to_hex().to_string() })
    };
    attempt().map_err(|error| SaeError::io("write", path, error))
}

/// A name beside `target` that no other writer uses and that readers pass over.
fn temporary_beside(target: &Path) -> PathBuf {
    let name = target.file_name().map_or_else(|| "out".into(), |name| name.to_string_lossy().into_owned());
    unused(|number| target.with_file_name(format!(".tmp-{name}-{}-{number}", std::process::id())))
}

/// Replaces the file `target` by what `fill` writes: readers see the old content or the new, never a part.
pub fn publish_file(
    files: &dyn FileSystem,
    target: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<FileDigest, SaeError> {
    let temporary = temporary_beside(target);
    let result = write_file(files, &temporary, fill).and_then(|digest| {
        files.rename(&temporary, target).map_err(|error| SaeError::io("rename to", target, error))?;
        files.sync_dir(parent_of(target)).map_err(|error| SaeError::io("sync the folder of", target, error))?;
        Ok(digest)
    });
    if result.is_err() {
        // The error that matters is the first; a leftover is removed by the next writer of the folder.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Publishes the folder `target` with what `fill` puts into it. A folder that exists is exchanged for the new one, where the
/// system can in one step, and then removed.
pub fn publish_folder(
    files: &dyn FileSystem,
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), SaeError>,
) -> Result<(), SaeError> {
    let temporary = temporary_beside(target);
    let parent = parent_of(target);
    let attempt = || {
        files.create_dir(&temporary).map_err(|error| SaeError::io("create", &temporary, error))?;
        fill(&temporary)?;
        files.sync_dir(&temporary).map_err(|error| SaeError::io("sync", &temporary, error))?;
        let replaces = target.exists();
        let published = if replaces { files.exchange(&temporary, target) } else { files.rename(&temporary, target) };
        published.map_err(|error| SaeError::io("publish", target, error))?;
        files.sync_dir(parent).map_err(|error| SaeError::io("sync", parent, error))?;
        if replaces {
            files.remove_dir_all(&temporary).map_err(|error| SaeError::io("remove", &temporary, error))?;
        }
        Ok(())
    };
    let result = attempt();
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result
}

/// Removes what interrupted writers left in `folder`. Only the holder of the folder's lock may call this.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-")) {
        let path = entry.path();
        // A leftover that cannot be removed costs space and nothing else.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

/// Reads a file of at most `limit` bytes; a larger one is refused before anything is allocated for it.
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, SaeError> {
    let length = fs::metadata(path).map_err(|error| SaeError::io("read", path, error))?.len();
    if length > limit {
        return Err(SaeError::damaged(path, format!("it has {length} bytes; at most {limit} were expected")));
    }
    fs::read(path).map_err(|error| SaeError::io("read", path, error))
}

/// Reads a file and checks its length and hash.
pub fn read_verified(path: &Path, expected: &FileDigest) -> Result<Vec<u8>, SaeError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SaeError::damaged(path, "the file is missing"));
        }
        Err(error) => return Err(SaeError::io("read", path, error)),
    };
    if length != expected.bytes {
        return Err(SaeError::damaged(path, format!("it has {length} bytes; {} were written", expected.bytes)));
    }
    let bytes = fs::read(path).map_err(|error| SaeError::io("read", path, error))?;
    let hash = blake3::hash(&bytes).to_hex().to_string();
    if hash != expected.blake3 {
        return Err(SaeError::damaged(path, format!("its BLAKE3 is {hash}; {} was written", expected.blake3)));
    }
    Ok(bytes)
}
