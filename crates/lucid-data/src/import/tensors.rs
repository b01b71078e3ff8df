//! Activations and lengths in safetensors files.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::array::{Mapped, Number};
use super::npy;
use crate::error::{DataError, Result};

const MAX_HEADER_BYTES: u64 = 16 << 20;

fn broken(path: &Path, reason: impl Into<String>, fix: &str) -> DataError {
    DataError::Format { file: path.to_path_buf(), reason: reason.into(), fix: fix.into() }
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    let again = "save it again with safetensors";
    let Some(head) = bytes.first_chunk::<8>() else {
        return Err(broken(path, "shorter than a safetensors header", again));
    };
    if u64::from_le_bytes(*head) > MAX_HEADER_BYTES {
        return Err(broken(path, "a header above 16 MiB; no safetensors file", again));
    }
    SafeTensors::deserialize(bytes).map_err(|e| broken(path, format!("no readable safetensors file: {e}"), again))
}

/// Maps the tensor `name`; without a name the one called `what` or the only one.
pub(super) fn open(path: &Path, name: Option<&str>, what: &str) -> Result<Mapped> {
    let map = npy::map(path)?;
    let tensors = parse(path, &map)?;
    let mut names = tensors.names();
    names.sort_unstable();
    let chosen = match name {
        Some(name) => name,
        None if names.contains(&what) => what,
        None if names.len() == 1 => names[0],
        None => {
            let reason = format!("the tensors {}; expected one named {what:?}", names.join(", "));
            return Err(broken(path, reason, "name the tensor, or rename it"));
        }
    };
    let tensor = tensors.tensor(chosen).map_err(|_| {
        broken(path, format!("no tensor {chosen:?} among {}", names.join(", ")), "give the name of one of its tensors")
    })?;
    let number = match tensor.dtype() {
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::Bf16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        other => {
            return Err(broken(
                path,
                format!("{chosen} has type {other:?}; expected F16, BF16, F32 or F64"),
                "convert it before saving",
            ));
        }
    };
    let start = tensor.data().as_ptr() as usize - map.as_ptr() as usize;
    let (data, shape) = (start..start + tensor.data().len(), tensor.shape().to_vec());
    Ok(Mapped { map, data, number, shape, file: path.to_path_buf() })
}

/// The one-dimensional tensor of whole numbers called `name`, if the file has one.
pub(super) fn integers(bytes: &[u8], path: &Path, name: &str) -> Result<Option<Vec<u64>>> {
    let tensors = parse(path, bytes)?;
    let Ok(tensor) = tensors.tensor(name) else { return Ok(None) };
    let (signed, width) = match tensor.dtype() {
        Dtype::U8 => (false, 1),
        Dtype::I32 => (true, 4),
        Dtype::U32 => (false, 4),
        Dtype::I64 => (true, 8),
        Dtype::U64 => (false, 8),
        other => {
            return Err(broken(
                path,
                format!("{name} has type {other:?}; expected I64, I32, U32, U64 or U8"),
                "convert it before saving",
            ));
        }
    };
    let values = npy::little_endian_integers(tensor.data(), width, signed)
        .ok_or_else(|| DataError::shape(name, "a negative number", "lengths of 0 or more"))?;
    Ok(Some(values))
}
