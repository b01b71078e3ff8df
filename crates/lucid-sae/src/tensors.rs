//! Named tensors in safetensors files: streaming writer, checked reader.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::error::SaeError;

/// Type of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueType {
    /// 64-bit counters.
    U64,
    /// 32-bit floats.
    F32,
}

impl ValueType {
    const fn bytes(self) -> usize {
        match self {
            Self::U64 => 8,
            Self::F32 => 4,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::U64 => "U64",
            Self::F32 => "F32",
        }
    }
}

/// Name, type and shape of a tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// Type of the values.
    pub value_type: ValueType,
    /// Shape, row-major.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of 32-bit floats.
    pub fn f32(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), value_type: ValueType::F32, shape: shape.to_vec() }
    }

    /// A tensor of counters.
    pub fn u64(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), value_type: ValueType::U64, shape: shape.to_vec() }
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.value_type.bytes()
    }
}

/// Writes a safetensors file. `data` is asked for one tensor at a time, so that a large file never exists in memory.
/// The format is little-endian, as is every platform this crate supports.
pub fn write_tensors<'a>(
    out: &mut dyn Write,
    specs: &[TensorSpec],
    mut data: impl FnMut(&TensorSpec) -> io::Result<Cow<'a, [u8]>>,
) -> io::Result<()> {
    let mut ordered: Vec<&TensorSpec> = specs.iter().collect();
    // Widest type first, then by name, as the safetensors crate does: every tensor stays aligned.
    ordered.sort_by(|a, b| (a.value_type, &a.name).cmp(&(b.value_type, &b.name)));
    let mut header = Map::new();
    let mut offset = 0;
    for spec in &ordered {
        let end = offset + spec.bytes();
        let entry = json!({ "dtype": spec.value_type.name(), "shape": spec.shape, "data_offsets": [offset, end] });
        header.insert(spec.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for spec in ordered {
        let bytes = data(spec)?;
        if bytes.len() != spec.bytes() {
            return Err(io::Error::other(format!(
                "{} has {} bytes; {} announced",
                spec.name,
                bytes.len(),
                spec.bytes()
            )));
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// The values in `bytes`, whose alignment is arbitrary.
fn to_values<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    values
}

/// A parsed safetensors file; errors name the file.
pub struct TensorFile<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl<'a> TensorFile<'a> {
    /// Parses the content of `path`.
    pub fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, SaeError> {
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|error| SaeError::damaged(path, format!("it is not a safetensors file: {error}")))?;
        Ok(Self { path, tensors })
    }

    /// Whether a tensor of this name exists.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// The values of a tensor of floats (f32, or f64 rounded) that must have `shape`.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, SaeError> {
        let view = self.shaped(name, shape)?;
        match view.dtype() {
            Dtype::F32 => Ok(to_values(view.data())),
            Dtype::F64 => Ok(to_values::<f64>(view.data()).into_iter().map(|x| x as f32).collect()),
            other => Err(self.wrong_type(name, other, "F32 or F64")),
        }
    }

    /// The values of a tensor of counters that must have `shape`.
    pub fn counters(&self, name: &str, shape: &[usize]) -> Result<Vec<u64>, SaeError> {
        let view = self.shaped(name, shape)?;
        match view.dtype() {
            Dtype::U64 => Ok(to_values(view.data())),
            other => Err(self.wrong_type(name, other, "U64")),
        }
    }

    fn view(&self, name: &str) -> Result<safetensors::tensor::TensorView<'a>, SaeError> {
        self.tensors.tensor(name).map_err(|_| SaeError::damaged(self.path, format!("it has no tensor '{name}'")))
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<safetensors::tensor::TensorView<'a>, SaeError> {
        let view = self.view(name)?;
        if view.shape() != shape {
            return Err(SaeError::Shape {
                what: format!("{name} in {}", self.path.display()),
                found: format!("{:?}", view.shape()),
                expected: format!("{shape:?}"),
            });
        }
        Ok(view)
    }

    fn wrong_type(&self, name: &str, found: Dtype, expected: &str) -> SaeError {
        SaeError::damaged(self.path, format!("tensor '{name}' is of type {found:?}; expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_by_the_safetensors_crate() {
        let (floats, counters) = ([1.5_f32, -2.0, 3.25, 0.0, 5.0, 6.0], [7_u64, u64::MAX]);
        let specs = [TensorSpec::f32("a", &[2, 3]), TensorSpec::u64("z", &[2])];
        let mut bytes = Vec::new();
        write_tensors(&mut bytes, &specs, |spec| {
            Ok(Cow::Borrowed(if spec.name == "a" {
                bytemuck::cast_slice(&floats)
            } else {
                bytemuck::cast_slice(&counters)
            }))
        })
        .unwrap();
        let file = TensorFile::parse(Path::new("x"), &bytes).unwrap();
        assert_eq!(file.floats("a", &[2, 3]).unwrap(), floats);
        assert_eq!(file.counters("z", &[2]).unwrap(), counters);
        assert_eq!(file.floats("a", &[3, 2]).unwrap_err().code(), "E_SHAPE");
        assert_eq!(file.floats("z", &[2]).unwrap_err().code(), "E_DAMAGED");
        assert_eq!(file.floats("b", &[2]).unwrap_err().code(), "E_DAMAGED");
        for end in 0..bytes.len() {
            assert!(TensorFile::parse(Path::new("x"), &bytes[..end]).is_err(), "truncated to {end} bytes");
        }
    }
}
