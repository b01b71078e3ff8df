//! Compares every byte of a store with the hashes of its manifest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::{FileEntry, MANIFEST, Manifest};
use crate::error::{Damage, DataError, Result};
use crate::progress::Observer;

/// One file that was compared.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileCheck {
    /// File name inside the store.
    pub file: String,
    /// Length the manifest gives.
    pub bytes: u64,
    /// What is wrong with it, if anything.
    pub damage: Option<Damage>,
}

/// What [`verify_store`] found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The folder.
    pub store: PathBuf,
    /// Fingerprint of the manifest, where it could be read.
    pub fingerprint: Option<String>,
    /// Every file, shards first.
    pub files: Vec<FileCheck>,
}

impl VerifyReport {
    /// True where nothing is damaged.
    pub fn is_ok(&self) -> bool {
        self.files.iter().all(|f| f.damage.is_none())
    }

    /// Every damage found.
    pub fn damaged(&self) -> Vec<Damage> {
        self.files.iter().filter_map(|f| f.damage.clone()).collect()
    }

    /// The report, or one `E_STORE_DAMAGED` that lists every damaged file.
    ///
    /// # Errors
    /// `E_STORE_DAMAGED`.
    pub fn into_result(self) -> Result<Self> {
        if self.is_ok() { Ok(self) } else { Err(DataError::StoreDamaged { damage: self.damaged(), store: self.store }) }
    }
}

/// Compares length and BLAKE3 of every file of the store in folder `store` with its manifest. Needs nothing but the
/// manifest, so it also describes stores that no longer open. A damaged manifest is reported as such, alone: the
/// hashes in it cannot be trusted then.
///
/// # Errors
/// `E_NOT_A_STORE`, `E_STORE_VERSION`, `E_CANCELLED`; damage is in the report, not an error.
pub fn verify_store(store: &Path, observer: &dyn Observer) -> Result<VerifyReport> {
    let manifest = match Manifest::read(store) {
        Ok(manifest) => manifest,
        Err(DataError::StoreDamaged { damage, .. }) => {
            let files =
                damage.into_iter().map(|d| FileCheck { file: MANIFEST.into(), bytes: 0, damage: Some(d) }).collect();
            return Ok(VerifyReport { store: store.to_path_buf(), fingerprint: None, files });
        }
        Err(error) => return Err(error),
    };
    let entries = manifest.all_files();
    let total = entries.iter().map(|e| e.bytes).sum();
    let done = AtomicU64::new(0);
    let report = |bytes: u64| {
        if observer.cancelled() {
            return Err(DataError::Cancelled { stage: "verifying" });
        }
        observer.progress("verify", done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        Ok(())
    };
    let files = entries.par_iter().map(|entry| check_file(store, entry, &report)).collect::<Result<Vec<_>>>()?;
    Ok(VerifyReport { store: store.to_path_buf(), fingerprint: Some(manifest.fingerprint), files })
}

fn check_file(store: &Path, entry: &FileEntry, report: &(dyn Fn(u64) -> Result<()> + Sync)) -> Result<FileCheck> {
    let damage = |found: String, expected: String| Some(Damage { file: entry.name.clone(), found, expected });
    let damage = match hash_file(&store.join(&entry.name), report) {
        Err(cancelled @ DataError::Cancelled { .. }) => return Err(cancelled),
        Err(DataError::Io { source, .. }) => damage(source.to_string(), "a readable file".into()),
        Err(other) => damage(other.to_string(), "a readable file".into()),
        Ok((bytes, _)) if bytes != entry.bytes => damage(format!("{bytes} bytes"), format!("{} bytes", entry.bytes)),
        Ok((_, blake3)) if blake3 != entry.blake3 => {
            damage(format!("BLAKE3 {blake3}"), format!("BLAKE3 {}", entry.blake3))
        }
        Ok(_) => None,
    };
    Ok(FileCheck { file: entry.name.clone(), bytes: entry.bytes, damage })
}

/// Length and BLAKE3 of a file; `report` hears of every piece read and may stop.
pub(super) fn hash_file(path: &Path, report: &(dyn Fn(u64) -> Result<()> + Sync)) -> Result<(u64, String)> {
    let io = |e| DataError::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; 1 << 18];
    let mut length = 0u64;
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            return Ok((length, hasher.finalize().to_hex().to_string()));
        }
        hasher.update(&buffer[..n]);
        length += n as u64;
        report(n as u64)?;
    }
}
