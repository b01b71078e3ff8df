//! Publishing a folder so that a crash leaves the old state or the new one, never something between.
//!
//! Files are written into a hidden folder beside the target; each is synced, then the folder, then it is renamed to
//! its name and the parent is synced. Until the rename nothing is visible under the target's name, and a publisher
//! that is dropped removes its folder.
//!
//! [`FileSystem`] is what every writer of the project goes through, so that tests can make the n-th operation fail.

use std::fs;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{DataError, Result};

/// A file that is being written.
pub trait OutputFile: Write + Seek + Send {
    /// Returns once the content is on the disk (fsync).
    fn sync(&mut self) -> io::Result<()>;
}

/// The operations writers need of the file system; tests put one in its place that fails where they want.
pub trait FileSystem: Send + Sync {
    /// Creates a folder and its parents where they are absent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
    /// Opens a file for appending, creating it if it is absent.
    fn append(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        Ok(Box::new(fs::OpenOptions::new().append(true).create(true).open(path)?))
    }
    /// Creates one folder that must not exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OutputFile>>;
    /// Returns once a folder's entries are on the disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing one that exists, or a folder; `to` is then absent or an empty folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Swaps two folders in one step where the system can, else by renames.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;
    /// Removes a folder with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl OutputFile for fs::File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl FileSystem for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        Ok(Box::new(fs::OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            // Some file systems know no exchange (EINVAL, ENOSYS); they get the renames below.
            if renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok() {
                return Ok(());
            }
        }
        let aside = sibling(b, "old");
        fs::rename(b, &aside)?;
        if let Err(error) = fs::rename(a, b) {
            fs::rename(&aside, b)?;
            return Err(error);
        }
        fs::rename(&aside, a)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}

/// A path made by `name` from a number, at which nothing lies and which no other caller of this process gets. What a killed
/// program with the same process id left behind (in a container it is always 1) is passed over.
pub fn unused(name: impl Fn(u64) -> PathBuf) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let path = name(NEXT.fetch_add(1, Ordering::Relaxed));
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
    }
}

/// A hidden name beside `path` that no other publisher uses.
fn sibling(path: &Path, kind: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    unused(|number| parent_of(path).join(format!(".{name}.{kind}-{}-{number}", std::process::id())))
}

/// The folder that holds `path`.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes the files of a folder that appears under its name only when it is complete.
pub struct FolderPublisher {
    files: Arc<dyn FileSystem>,
    temp: PathBuf,
    target: PathBuf,
    replaces: bool,
    published: bool,
    /// The hidden folder stays when the publisher is dropped, to be gone on with.
    kept: bool,
}

impl FolderPublisher {
    /// Starts a folder that will be published as `target`. Missing parents are created. An existing `target` is refused
    /// unless it is empty, or `overwrite` is set and it holds a file named `marker` (so that nothing but a folder of the
    /// same kind is ever replaced).
    ///
    /// # Errors
    /// `E_EXISTS`, `E_IO`.
    pub fn begin(target: &Path, overwrite: bool, marker: &str) -> Result<Self> {
        Self::begin_on(Arc::new(Disk), target, overwrite, marker)
    }

    /// As [`FolderPublisher::begin`], on the given file system.
    ///
    /// # Errors
    /// `E_EXISTS`, `E_IO`.
    pub fn begin_on(files: Arc<dyn FileSystem>, target: &Path, overwrite: bool, marker: &str) -> Result<Self> {
        let (target, replaces) = check_target(target, overwrite, marker)?;
        let temp = sibling(&target, "tmp");
        files.create_dir(&temp).map_err(|e| DataError::io("create", &temp, e))?;
        Ok(Self { files, temp, target, replaces, published: false, kept: false })
    }

    /// As [`FolderPublisher::begin_on`], writing into the folder `temp` on the same file system, which may exist, and leaving it there
    /// when the publisher is dropped.
    ///
    /// # Errors
    /// `E_EXISTS`, `E_IO`.
    pub fn begin_kept(
        files: Arc<dyn FileSystem>,
        target: &Path,
        overwrite: bool,
        marker: &str,
        temp: PathBuf,
    ) -> Result<Self> {
        let (target, replaces) = check_target(target, overwrite, marker)?;
        files.create_dir_all(&temp).map_err(|e| DataError::io("create", &temp, e))?;
        Ok(Self { files, temp, target, replaces, published: false, kept: true })
    }

    /// Where a file lies while the folder is being written.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.join(name)
    }

    /// Creates a file of the folder.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn create(&self, name: &str) -> Result<PublishedFile> {
        let path = self.path(name);
        let file = self.files.create(&path).map_err(|e| DataError::io("create", &path, e))?;
        Ok(PublishedFile { file, path })
    }

    /// Opens a file of a kept folder at its end.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn append(&self, name: &str) -> Result<PublishedFile> {
        let path = self.path(name);
        let file = self.files.append(&path).map_err(|e| DataError::io("open", &path, e))?;
        Ok(PublishedFile { file, path })
    }

    /// Writes a whole small file.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.create(name)?;
        file.write(content)?;
        file.close()
    }

    /// Syncs the folder and gives it its name. All files must have been closed.
    ///
    /// # Errors
    /// `E_IO`; then the target is as it was before, unless only the last sync failed.
    pub fn publish(mut self) -> Result<()> {
        self.files.sync_dir(&self.temp).map_err(|e| DataError::io("sync", &self.temp, e))?;
        let renamed = if self.replaces {
            self.files.exchange(&self.temp, &self.target)
        } else {
            self.files.rename(&self.temp, &self.target)
        };
        renamed.map_err(|e| DataError::io("publish", &self.target, e))?;
        // From here on `temp` is what was replaced, or nothing; dropping removes it.
        self.published = !self.replaces;
        self.kept = false;
        let parent = parent_of(&self.target);
        self.files.sync_dir(parent).map_err(|e| DataError::io("sync", parent, e))
    }
}

/// The path a folder will be published at, and whether something is replaced there. Missing parents are created.
fn check_target(target: &Path, overwrite: bool, marker: &str) -> Result<(PathBuf, bool)> {
    // A name that ends in `..` or `/` has no sibling; the parent has to exist before the hidden folder can.
    let target = match target.file_name() {
        Some(name) => parent_of(target).join(name),
        None => return Err(DataError::Exists { path: target.to_path_buf(), replaceable: false }),
    };
    let replaces = match fs::symlink_metadata(&target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(DataError::io("look at", &target, e)),
        Ok(meta) if meta.is_dir() => {
            let mut entries = fs::read_dir(&target).map_err(|e| DataError::io("read", &target, e))?;
            let occupied = entries.next().is_some();
            let ours = target.join(marker).is_file();
            if occupied && !(ours && overwrite) {
                return Err(DataError::Exists { path: target, replaceable: ours });
            }
            occupied
        }
        Ok(_) => return Err(DataError::Exists { path: target, replaceable: false }),
    };
    let parent = parent_of(&target);
    fs::create_dir_all(parent).map_err(|e| DataError::io("create", parent, e))?;
    Ok((target, replaces))
}

impl Drop for FolderPublisher {
    fn drop(&mut self) {
        if !self.published && !self.kept {
            // Nothing can be done about a folder that cannot be removed; it stays hidden beside the target.
            let _ = self.files.remove_dir_all(&self.temp);
        }
    }
}

/// A file of a folder that is being published; its errors name it.
pub struct PublishedFile {
    file: Box<dyn OutputFile>,
    path: PathBuf,
}

impl PublishedFile {
    /// Appends bytes.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| DataError::io("write", &self.path, e))
    }

    /// Overwrites bytes from the start of the file.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn write_at_start(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.rewind().map_err(|e| DataError::io("write", &self.path, e))?;
        self.write(bytes)
    }

    /// Brings the content to the disk.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn sync(&mut self) -> Result<()> {
        let done = self.file.flush().and_then(|()| self.file.sync());
        done.map_err(|e| DataError::io("write", &self.path, e))
    }

    /// Brings the content to the disk and closes the file.
    ///
    /// # Errors
    /// `E_IO`.
    pub fn close(mut self) -> Result<()> {
        self.sync()
    }
}
