//! Where imported numbers come from, and how their shape is read.

use std::ops::Range;
use std::path::PathBuf;

use half::{bf16, f16};
use memmap2::Mmap;
use serde_json::{Value, json};

use super::{npy, tensors};
use crate::error::{DataError, Result};

/// Activations of one modality.
#[derive(Debug, Clone)]
pub enum Activations<'a> {
    /// Numbers in memory; `shape` is empty where only lengths or a width tell it.
    F32 {
        /// The numbers, row by row.
        data: &'a [f32],
        /// Their shape.
        shape: Vec<usize>,
    },
    /// As `F32`, in double precision.
    F64 {
        /// The numbers, row by row.
        data: &'a [f64],
        /// Their shape.
        shape: Vec<usize>,
    },
    /// A `.npy` file, or the tensor of a `.safetensors` file that is named like the modality or is the only one.
    File(PathBuf),
    /// A named tensor of a `.safetensors` file.
    Tensor {
        /// The file.
        file: PathBuf,
        /// Name of the tensor.
        name: String,
    },
}

/// Lengths of all pairs.
#[derive(Debug, Clone)]
pub enum Lengths {
    /// One number a pair.
    Values(Vec<u64>),
    /// A one-dimensional `.npy` file of integers.
    File(PathBuf),
}

/// How numbers lie in a file; all little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

impl Number {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// A file in memory and where its numbers lie.
pub(super) struct Mapped {
    pub(super) map: Mmap,
    pub(super) data: Range<usize>,
    pub(super) number: Number,
    pub(super) shape: Vec<usize>,
    pub(super) file: PathBuf,
}

/// Activations ready to be read.
pub(super) enum Loaded<'a> {
    F32(&'a [f32], Vec<usize>),
    F64(&'a [f64], Vec<usize>),
    Mapped(Mapped),
}

impl<'a> Activations<'a> {
    pub(super) fn load(&self, what: &str) -> Result<Loaded<'a>> {
        let loaded = match self {
            Self::F32 { data, shape } => Loaded::F32(data, shape.clone()),
            Self::F64 { data, shape } => Loaded::F64(data, shape.clone()),
            Self::Tensor { file, name } => Loaded::Mapped(tensors::open(file, Some(name), what)?),
            Self::File(file) => {
                match file.extension().and_then(|e| e.to_str()) {
                    Some("npy") => Loaded::Mapped(npy::open(file)?),
                    Some("safetensors") => Loaded::Mapped(tensors::open(file, None, what)?),
                    _ => {
                        return Err(DataError::Format {
                        file: file.clone(),
                        reason: "neither .npy nor .safetensors by its name".into(),
                        fix: "save the activations with numpy.save or safetensors; .pt, .pkl and .npz files are not read".into(),
                    });
                    }
                }
            }
        };
        let product = loaded.shape().iter().try_fold(1usize, |p, &n| p.checked_mul(n));
        if !loaded.shape().is_empty() && product != Some(loaded.len()) {
            return Err(DataError::shape(
                what,
                format!("{} numbers", loaded.len()),
                format!("shape {:?}", loaded.shape()),
            ));
        }
        Ok(loaded)
    }
}

impl Lengths {
    pub(super) fn load(&self, name: &'static str) -> Result<Vec<usize>> {
        match self {
            Self::Values(values) => as_lengths(name, values),
            Self::File(file) => as_lengths(name, &npy::integers(file)?),
        }
    }
}

fn as_lengths(name: &str, values: &[u64]) -> Result<Vec<usize>> {
    // Far above any sequence, far below where sums of lengths could overflow.
    let ok =
        |&v: &u64| u32::try_from(v).map(|v| v as usize).map_err(|_| DataError::shape(name, v, "a length below 2³²"));
    values.iter().map(ok).collect()
}

impl Loaded<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(data, _) => data.len(),
            Self::F64(data, _) => data.len(),
            Self::Mapped(m) => m.data.len() / m.number.bytes(),
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::F32(_, shape) | Self::F64(_, shape) => shape,
            Self::Mapped(m) => &m.shape,
        }
    }

    /// What to keep about the origin: no path, only the file's name.
    pub(super) fn origin(&self) -> Value {
        match self {
            Self::F32(..) => json!({ "array": "f32" }),
            Self::F64(..) => json!({ "array": "f64" }),
            Self::Mapped(m) => json!({ "file": m.file.file_name().map(|n| n.to_string_lossy()) }),
        }
    }

    /// The tensor `name` of the same safetensors file, where there is one.
    pub(super) fn companion_lengths(&self, name: &str) -> Result<Option<Vec<usize>>> {
        match self {
            Self::Mapped(m) if m.file.extension().is_some_and(|e| e == "safetensors") => {
                tensors::integers(&m.map, &m.file, name)?.map(|values| as_lengths(name, &values)).transpose()
            }
            _ => Ok(None),
        }
    }

    /// The numbers of `range` as f32 in `out`; gives position (from the start of `range`) and value of the first finite one
    /// that is too large for f32.
    pub(super) fn read(&mut self, range: Range<usize>, out: &mut Vec<f32>) -> Option<(usize, f64)> {
        out.clear();
        let narrow = |wide: &mut dyn Iterator<Item = f64>, out: &mut Vec<f32>| {
            let mut lost = None;
            for (i, value) in wide.enumerate() {
                let single = value as f32;
                if single.is_infinite() && value.is_finite() && lost.is_none() {
                    lost = Some((i, value));
                }
                out.push(single);
            }
            lost
        };
        match self {
            Self::F32(data, _) => out.extend_from_slice(&data[range]),
            Self::F64(data, _) => return narrow(&mut data[range].iter().copied(), out),
            Self::Mapped(m) => {
                let n = m.number.bytes();
                let bytes = &m.map[m.data.clone()][range.start * n..range.end * n];
                let (halves, singles, doubles) =
                    (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0, bytes.as_chunks::<8>().0);
                match m.number {
                    Number::F16 => out.extend(halves.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
                    Number::Bf16 => out.extend(halves.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
                    Number::F32 => out.extend(singles.iter().map(|b| f32::from_le_bytes(*b))),
                    Number::F64 => return narrow(&mut doubles.iter().map(|b| f64::from_le_bytes(*b)), out),
                }
            }
        }
        None
    }
}

/// Which rows belong to which pair.
pub(super) struct Rows {
    pub(super) d: usize,
    /// First row of every pair.
    pub(super) starts: Vec<usize>,
    /// Rows of every pair.
    pub(super) lengths: Vec<usize>,
}

impl Rows {
    pub(super) fn new(
        what: &str,
        array: &Loaded,
        lengths: Option<Vec<usize>>,
        pairs: usize,
        d: Option<usize>,
    ) -> Result<Self> {
        if let Some(lengths) = lengths.as_ref().filter(|l| l.len() != pairs) {
            return Err(DataError::shape(
                format!("{what}Lengths"),
                format!("{} entries", lengths.len()),
                format!("{pairs}, one a pair"),
            ));
        }
        let (padded, rows, width) = match *array.shape() {
            [n, t, width] => {
                if n != pairs {
                    return Err(DataError::shape(
                        what,
                        format!("shape {:?}", array.shape()),
                        format!("[{pairs}, tokens, d]: one row of tokens a pair"),
                    ));
                }
                (Some(t), n * t, width)
            }
            [rows, width] => (None, rows, width),
            [] | [_] => {
                let width = width_of_flat(what, array.len(), lengths.as_deref(), d)?;
                (None, array.len() / width, width)
            }
            _ => {
                return Err(DataError::shape(
                    what,
                    format!("shape {:?}", array.shape()),
                    "[pairs, tokens, d] or [rows, d]",
                ));
            }
        };
        if width == 0 || d.is_some_and(|d| d != width) {
            let expected = d.map_or("a width above 0".to_string(), |d| d.to_string());
            return Err(DataError::shape(format!("width of {what}"), width, expected));
        }
        let Some(lengths) = lengths else {
            // Patches of equal number.
            if !rows.is_multiple_of(pairs) {
                return Err(DataError::shape(
                    what,
                    format!("{rows} rows"),
                    format!("a multiple of {pairs} pairs, or visionLengths"),
                ));
            }
            let each = rows / pairs;
            return Ok(Self { d: width, starts: (0..pairs).map(|i| i * each).collect(), lengths: vec![each; pairs] });
        };
        let sum: usize = lengths.iter().sum();
        let starts = match padded {
            None if sum == rows => lengths.iter().scan(0, |at, &n| Some(std::mem::replace(at, *at + n))).collect(),
            // A flat array of told width can also be padded; a two-dimensional one is ragged by its shape.
            None if array.shape().len() < 2
                && d.is_some()
                && rows.is_multiple_of(pairs)
                && lengths.iter().all(|&n| n <= rows / pairs) =>
            {
                (0..pairs).map(|i| i * (rows / pairs)).collect()
            }
            None => {
                return Err(DataError::shape(what, format!("{rows} rows"), format!("{sum}, the sum of its lengths")));
            }
            Some(t) => {
                if let Some((i, n)) = lengths.iter().enumerate().find(|&(_, &n)| n > t) {
                    return Err(DataError::shape(
                        format!("{what}Lengths[{i}]"),
                        n,
                        format!("at most {t}, the padded length"),
                    ));
                }
                (0..pairs).map(|i| i * t).collect()
            }
        };
        Ok(Self { d: width, starts, lengths })
    }
}

/// The width of an array without a shape: as told, or what is left when the rows are known.
fn width_of_flat(what: &str, len: usize, lengths: Option<&[usize]>, d: Option<usize>) -> Result<usize> {
    let rows = lengths.map(|l| l.iter().sum::<usize>());
    let width = match (d, rows) {
        (Some(d), _) => d,
        (None, Some(rows)) if rows > 0 && len.is_multiple_of(rows) => len / rows,
        (None, Some(rows)) => {
            return Err(DataError::shape(
                what,
                format!("{len} numbers"),
                format!("a multiple of {rows}, the sum of its lengths"),
            ));
        }
        (None, None) => {
            return Err(DataError::shape(
                format!("shape of {what}"),
                "a flat array",
                "a shape, or lengths, or a width (dVision, dText)",
            ));
        }
    };
    if width == 0 || !len.is_multiple_of(width) {
        return Err(DataError::shape(what, format!("{len} numbers"), format!("a multiple of the width {width}")));
    }
    Ok(width)
}
