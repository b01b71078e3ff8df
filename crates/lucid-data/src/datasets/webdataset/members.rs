//! The regular members of a tar file, one after the other, whatever is wrong with the file.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use tar::{Entries, EntryType, PaxExtensions};

use crate::error::{DataError, Result};

/// Longest name, and longest PAX header, that is taken into memory.
const MAX_NAME: u64 = 64 << 10;

/// A member; its body is read from where it lies, or passed over.
pub(super) struct Member<'a> {
    pub(super) name: String,
    /// Offset of the first byte of the body in the tar file.
    pub(super) position: u64,
    pub(super) size: u64,
    body: &'a mut dyn Read,
}

impl Member<'_> {
    /// The body, or `None` where the tar file ends within it.
    pub(super) fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        // The length in the header is not believed before the bytes are there.
        let mut bytes = Vec::with_capacity(self.size.min(1 << 20) as usize);
        self.body.take(self.size).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 == self.size).then_some(bytes))
    }
}

/// Why a tar file was not read to its end.
pub(super) enum Stop {
    /// The bytes are not those of a complete tar file.
    Damaged(String),
    /// The bytes could not be had.
    Failed(DataError),
    /// Nobody wants the rest.
    Unheard,
}

#[derive(Default)]
struct Seen {
    end: Cell<bool>,
    error: RefCell<Option<io::Error>>,
}

/// Tells a damaged tar from a failing disk or network, which the tar reader reports alike, and an end of file from the end mark.
pub(super) struct Watch<R> {
    inner: R,
    seen: Rc<Seen>,
}

impl<R: Read> Read for Watch<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        match &result {
            Ok(0) if !buffer.is_empty() => self.seen.end.set(true),
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                *self.seen.error.borrow_mut() = Some(io::Error::new(e.kind(), e.to_string()));
            }
            _ => {}
        }
        result
    }
}

impl<R: Seek> Seek for Watch<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Visits the members of a tar file that can be sought in; bodies that are not read are jumped over.
pub(super) fn walk_file<R: Read + Seek>(
    file: R,
    name: &str,
    length: u64,
    visit: &mut dyn FnMut(Member<'_>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let seen = Rc::new(Seen::default());
    let mut archive = tar::Archive::new(Watch { inner: file, seen: Rc::clone(&seen) });
    let entries = archive.entries_with_seek().map_err(|e| failure(e, &seen, name))?;
    // A jump over the end of a file is no error, so lengths are checked here.
    walk(entries, &seen, name, &mut |member| match member.position.checked_add(member.size) {
        Some(end) if end <= length => visit(member),
        _ => Err(Stop::Damaged(format!(
            "the file ends at byte {length}, within {:?} of {} bytes; it is cut off",
            member.name, member.size
        ))),
    })
}

/// Visits the members of a tar file that comes in from front to back.
pub(super) fn walk_stream<R: Read>(
    source: R,
    name: &str,
    visit: &mut dyn FnMut(Member<'_>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let seen = Rc::new(Seen::default());
    let mut archive = tar::Archive::new(Watch { inner: source, seen: Rc::clone(&seen) });
    let entries = archive.entries().map_err(|e| failure(e, &seen, name))?;
    walk(entries, &seen, name, visit)
}

/// `tar` itself would take names of any length into memory, so the entries are read raw and their long names here.
fn walk<R: Read>(
    entries: Entries<'_, Watch<R>>,
    seen: &Rc<Seen>,
    name: &str,
    visit: &mut dyn FnMut(Member<'_>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut long: Option<Vec<u8>> = None;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|e| failure(e, seen, name))?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::XHeader) {
            if entry.size() > MAX_NAME {
                return Err(Stop::Damaged(format!(
                    "a name or PAX header of {} bytes, at most {MAX_NAME}",
                    entry.size()
                )));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|e| failure(e, seen, name))?;
            match kind {
                EntryType::GNULongName => long = Some(bytes.split(|&b| b == 0).next().unwrap_or_default().to_vec()),
                _ => long = pax(&bytes)?.or(long),
            }
            continue;
        }
        if matches!(kind, EntryType::XGlobalHeader | EntryType::GNULongLink) {
            continue;
        }
        let path = long.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) || path.ends_with(b"/") {
            continue;
        }
        let (position, size) = (entry.raw_file_position(), entry.size());
        let name = String::from_utf8_lossy(&path).into_owned();
        visit(Member { name, position, size, body: &mut entry })?;
    }
    if let Some(error) = seen.error.borrow_mut().take() {
        return Err(Stop::Failed(DataError::io("read", name, error)));
    }
    match seen.end.get() {
        true => Err(Stop::Damaged("it ends without the two empty blocks that close a tar file; it is cut off".into())),
        false => Ok(()),
    }
}

/// The long name of a PAX header.
fn pax(bytes: &[u8]) -> Result<Option<Vec<u8>>, Stop> {
    let mut path = None;
    for extension in PaxExtensions::new(bytes) {
        let extension = extension.map_err(|e| Stop::Damaged(format!("its PAX header is malformed: {e}")))?;
        match extension.key_bytes() {
            b"path" => path = Some(extension.value_bytes().to_vec()),
            // Only members of 8 GiB and more need it.
            b"size" => return Err(Stop::Damaged("a member of 8 GiB or more, which is not read".into())),
            _ => {}
        }
    }
    Ok(path)
}

fn failure(error: io::Error, seen: &Seen, name: &str) -> Stop {
    match seen.error.borrow_mut().take() {
        Some(error) => Stop::Failed(DataError::io("read", name, error)),
        None if seen.end.get() => Stop::Damaged(format!("it is cut off ({error})")),
        None => {
            Stop::Damaged(format!("it is not a plain tar file ({error}); compressed shards are to be unpacked first"))
        }
    }
}
