//! A disk that fails where a test wants it to.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lucid_data::publish::{Disk, FileSystem, OutputFile};

/// A file system whose `limit`-th operation fails, as a full or broken disk does.
#[derive(Clone)]
pub struct Failing {
    calls: Arc<AtomicU64>,
    limit: u64,
}

impl Failing {
    pub fn new(limit: u64) -> Self {
        Self { calls: Arc::default(), limit }
    }

    /// Operations so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn step(&self) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.limit {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }
}

struct FailingFile {
    inner: Box<dyn OutputFile>,
    system: Failing,
}

impl Write for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.system.step()?;
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Seek for FailingFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.system.step()?;
        self.inner.seek(to)
    }
}

impl OutputFile for FailingFile {
    fn sync(&mut self) -> io::Result<()> {
        self.system.step()?;
        self.inner.sync()
    }
}

impl FileSystem for Failing {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.create_dir_all(path)
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        self.step()?;
        Ok(Box::new(FailingFile { inner: Disk.append(path)?, system: self.clone() }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.create_dir(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        self.step()?;
        Ok(Box::new(FailingFile { inner: Disk.create(path)?, system: self.clone() }))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        Disk.rename(from, to)
    }
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.step()?;
        Disk.exchange(a, b)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        Disk.remove_dir_all(path)
    }
}
