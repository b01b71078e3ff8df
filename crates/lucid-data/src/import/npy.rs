//! NumPy's `.npy` files, versions 1 to 3, C order, little-endian.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::array::{Mapped, Number};
use crate::error::{DataError, Result};

/// A header longer than this is not believed; numpy's take 128 bytes.
const MAX_HEADER_BYTES: usize = 1 << 20;

struct Header {
    descr: String,
    shape: Vec<usize>,
    data: Range<usize>,
}

/// Maps a file of floating-point numbers.
pub(super) fn open(path: &Path) -> Result<Mapped> {
    let map = map(path)?;
    let header = header(path, &map)?;
    let number = match header.descr.as_str() {
        "<f2" => Number::F16,
        "<f4" => Number::F32,
        "<f8" => Number::F64,
        other => return Err(wrong_type(path, other, "<f2, <f4 or <f8")),
    };
    let data = check_length(path, &header, number.bytes())?;
    Ok(Mapped { map, data, number, shape: header.shape, file: path.to_path_buf() })
}

/// Reads a one-dimensional file of whole numbers.
pub(super) fn integers(path: &Path) -> Result<Vec<u64>> {
    let map = map(path)?;
    let header = header(path, &map)?;
    let (signed, width) = match header.descr.as_str() {
        "|u1" => (false, 1),
        "|i1" => (true, 1),
        "<u2" => (false, 2),
        "<i2" => (true, 2),
        "<u4" => (false, 4),
        "<i4" => (true, 4),
        "<u8" => (false, 8),
        "<i8" => (true, 8),
        other => return Err(wrong_type(path, other, "integers (<i4, <i8, <u4 …)")),
    };
    if header.shape.len() != 1 {
        return Err(DataError::shape(
            path.display().to_string(),
            format!("shape {:?}", header.shape),
            "one dimension, a number a pair",
        ));
    }
    let data = check_length(path, &header, width)?;
    little_endian_integers(&map[data], width, signed)
        .ok_or_else(|| DataError::shape(path.display().to_string(), "a negative number", "lengths of 0 or more"))
}

/// Whole numbers of `width` bytes; `None` where one is negative.
pub(super) fn little_endian_integers(bytes: &[u8], width: usize, signed: bool) -> Option<Vec<u64>> {
    let number = |b: &[u8]| {
        let value = b.iter().rev().fold(0u64, |v, &byte| v << 8 | u64::from(byte));
        let negative = signed && b.last().is_some_and(|&top| top & 0x80 != 0);
        (!negative).then_some(value)
    };
    bytes.chunks_exact(width).map(number).collect()
}

pub(super) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| DataError::io("read", path, e))?;
    // SAFETY: the map is read-only. The user's own file is not expected to be shortened while it is imported.
    unsafe { Mmap::map(&file) }.map_err(|e| DataError::io("map", path, e))
}

fn broken(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Format {
        file: path.to_path_buf(),
        reason: reason.into(),
        fix: "save it again with numpy.save(file, array)".into(),
    }
}

fn wrong_type(path: &Path, found: &str, expected: &str) -> DataError {
    let (reason, fix) = if found.contains('O') || found == "structured" {
        (
            "Python objects or records, which are never read",
            "save the numbers alone: numpy.save(file, array.astype('float32'), allow_pickle=False)",
        )
    } else if found.starts_with('>') {
        ("big-endian numbers", "save little-endian numbers: array.astype('<f4')")
    } else {
        (
            "a type that is not read here",
            "convert it before saving, for example with array.astype('<f4') (lengths: '<i8')",
        )
    };
    DataError::Format {
        file: path.to_path_buf(),
        reason: format!("type {found:?}: {reason}; expected {expected}"),
        fix: fix.into(),
    }
}

fn check_length(path: &Path, header: &Header, width: usize) -> Result<Range<usize>> {
    let bytes = header.shape.iter().try_fold(width, |p, &n| p.checked_mul(n));
    if bytes != Some(header.data.len()) {
        let expected =
            bytes.map_or("a shape that fits in memory".into(), |b| format!("{b} for shape {:?}", header.shape));
        return Err(broken(
            path,
            format!("{} bytes of data, expected {expected}; the file is truncated or has a tail", header.data.len()),
        ));
    }
    Ok(header.data.clone())
}

fn header(path: &Path, bytes: &[u8]) -> Result<Header> {
    if bytes.starts_with(b"PK") {
        return Err(broken(path, "a zip archive (.npz), expected a single array"));
    }
    if bytes.starts_with(b"\x80") {
        return Err(wrong_type(path, "O", "a .npy file"));
    }
    if bytes.len() < 10 || !bytes.starts_with(b"\x93NUMPY") {
        return Err(broken(path, "no .npy file: it does not start with \\x93NUMPY"));
    }
    let (length, start) = match bytes[6] {
        1 => (usize::from(bytes[8]) | usize::from(bytes[9]) << 8, 10),
        2 | 3 if bytes.len() >= 12 => (u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize, 12),
        version => return Err(broken(path, format!("version {version} of .npy, expected 1 to 3"))),
    };
    if length > MAX_HEADER_BYTES || start + length > bytes.len() {
        return Err(broken(path, format!("a header of {length} bytes in a file of {}", bytes.len())));
    }
    let text =
        std::str::from_utf8(&bytes[start..start + length]).map_err(|_| broken(path, "a header that is no text"))?;
    let field = |name: &str| {
        let quoted = [format!("'{name}'"), format!("\"{name}\"")];
        let at = quoted.iter().find_map(|q| text.find(q.as_str()).map(|p| p + q.len()));
        let rest = at.and_then(|p| text[p..].trim_start().strip_prefix(':'));
        rest.map(str::trim_start).ok_or_else(|| broken(path, format!("no {name} in the header {text:?}")))
    };
    let descr = field("descr")?;
    let descr = match descr.chars().next() {
        Some(quote @ ('\'' | '"')) => descr[1..].split(quote).next().unwrap_or_default().to_string(),
        _ => "structured".to_string(),
    };
    match field("fortran_order")? {
        order if order.starts_with("False") => {}
        order if order.starts_with("True") => {
            return Err(DataError::Format {
                file: path.to_path_buf(),
                reason: "Fortran order (columns first); expected C order".into(),
                fix: "save it with numpy.save(file, numpy.ascontiguousarray(array))".into(),
            });
        }
        _ => return Err(broken(path, format!("fortran_order is neither True nor False in {text:?}"))),
    }
    let shape = field("shape")?;
    let inner = shape.strip_prefix('(').and_then(|s| s.split(')').next());
    let inner = inner.ok_or_else(|| broken(path, format!("the shape is no tuple in {text:?}")))?;
    let shape = inner
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.trim_end_matches('L').parse().map_err(|_| broken(path, format!("{s:?} in the shape"))))
        .collect::<Result<Vec<usize>>>()?;
    Ok(Header { descr, shape, data: start + length..bytes.len() })
}
