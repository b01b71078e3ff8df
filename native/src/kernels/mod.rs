//! The kernels on typed arrays: f64 runs the scalar reference, f32 the fast CPU backend.

mod exports;
mod operations;
mod step;

use lucid_kernels::{Backend, Block, CodeShape, Codes, Direction, KernelError, Pairs, Real, Selection, UNUSED};
use serde::Deserialize;

/// Sizes and options of one call, as JSON from TypeScript, which has checked names and types.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelOptions {
    #[serde(default)]
    d_shared: usize,
    #[serde(default)]
    d_private: usize,
    #[serde(default)]
    k_shared: usize,
    #[serde(default)]
    k_private: usize,
    #[serde(default)]
    topk: Option<Selection>,
    #[serde(default)]
    block: Option<Block>,
    #[serde(default)]
    direction: Option<String>,
    /// ε, iterations, GCMT: the fields of a config, where the kernel has them.
    #[serde(default)]
    transport: Option<TransportFields>,
}

/// Options of the plan under the names of the config.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransportFields {
    epsilon: f64,
    iterations: usize,
    tolerance: f64,
    sink_mass: f64,
    mass_reweighting: bool,
    lambda_global: f64,
    /// `None` is infinite.
    mask_penalty: Option<f64>,
}

impl KernelOptions {
    fn shape(&self) -> CodeShape {
        CodeShape {
            d_shared: self.d_shared,
            d_private: self.d_private,
            k_shared: self.k_shared,
            k_private: self.k_private,
            selection: self.topk.unwrap_or(Selection::Split),
        }
    }

    fn direction(&self) -> Result<Direction, KernelError> {
        match self.direction.as_deref() {
            Some("t2v") => Ok(Direction::T2V),
            Some("v2t") => Ok(Direction::V2T),
            other => Err(KernelError::Option {
                option: "direction",
                found: other.unwrap_or("absent").to_owned(),
                expected: "'t2v' or 'v2t'".into(),
            }),
        }
    }

    fn transport(&self) -> Result<&TransportFields, KernelError> {
        self.transport.as_ref().ok_or_else(|| KernelError::Option {
            option: "epsilon",
            found: "absent".into(),
            expected: "the options of the plan".into(),
        })
    }
}

/// Lengths of both modalities.
fn pairs(vision_lengths: &[u32], text_lengths: &[u32]) -> Result<Pairs, KernelError> {
    let wide = |lengths: &[u32]| lengths.iter().map(|&length| length as usize).collect::<Vec<_>>();
    Pairs::new(&wide(vision_lengths), &wide(text_lengths))
}

/// Refuses an array whose length does not follow from the others.
fn expect_len(what: &str, found: usize, expected: usize) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::shape(what, found, expected)) }
}

/// Codes given by a caller, in the order the kernels rely on: shared entries by falling value, private ones likewise,
/// unused slots last.
fn upload_codes<B: Backend>(
    backend: &B,
    shape: CodeShape,
    indices: &[u32],
    values: &[B::Real],
) -> Result<Codes<B>, KernelError> {
    expect_len("values of codes", values.len(), indices.len())?;
    let shape = CodeShape { selection: Selection::Global, ..shape };
    let k = shape.k().max(1);
    let (mut sorted_indices, mut sorted_values) = (Vec::with_capacity(indices.len()), Vec::with_capacity(values.len()));
    for (row_indices, row_values) in indices.chunks(k).zip(values.chunks(k)) {
        let mut row: Vec<(u32, B::Real)> = row_indices.iter().copied().zip(row_values.iter().copied()).collect();
        row.sort_by(|a, b| {
            let part = |index: u32| (index == UNUSED, index as usize >= shape.d_shared);
            let by_value = b.1.widen().total_cmp(&a.1.widen());
            part(a.0).cmp(&part(b.0)).then(by_value).then(a.0.cmp(&b.0))
        });
        for (index, value) in row {
            sorted_indices.push(index);
            sorted_values.push(value);
        }
    }
    Codes::upload(backend, shape, &sorted_indices, &sorted_values)
}

/// Codes of `tokens` tokens.
fn codes_of<B: Backend>(
    backend: &B,
    what: &str,
    shape: CodeShape,
    tokens: usize,
    indices: &[u32],
    values: &[B::Real],
) -> Result<Codes<B>, KernelError> {
    let codes = upload_codes(backend, shape, indices, values)?;
    expect_len(&format!("{what} codes"), codes.n, tokens)?;
    Ok(codes)
}
