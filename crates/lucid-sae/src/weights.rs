//! Parameters in safetensors files, under the names of the file formats: `vision.W_enc`, `text.b_dec`, ….

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use lucid_kernels::{Backend, Modality};

use crate::batch::Sides;
use crate::error::SaeError;
use crate::normalisation::{Normalisation, Scaling};
use crate::params::{HostDictionary, HostParams, Params, transpose};
use crate::tensors::{TensorFile, TensorSpec, write_tensors};

/// Names within a modality and their shapes.
fn arrays(d: usize, latents: usize) -> [(&'static str, Vec<usize>); 4] {
    [("W_enc", vec![d, latents]), ("b_enc", vec![latents]), ("W_dec", vec![latents, d]), ("b_dec", vec![d])]
}

/// Name within a modality of JumpReLU's thresholds.
const LOG_THRESHOLD: &str = "log_threshold";

/// Widths, number of latents, and whether there are thresholds: what the tensors of parameters depend on.
pub type Sizes = (usize, usize, usize, bool);

/// The sizes of parameters on a device.
pub const fn sizes<B: Backend>(params: &Params<B>) -> Sizes {
    (params.vision.d, params.text.d, params.vision.latents, params.log_threshold.is_some())
}

/// Tensors of parameters of these sizes, each name followed by `suffix`.
#[must_use]
pub fn specs((d_vision, d_text, latents, thresholds): Sizes, suffix: &str) -> Vec<TensorSpec> {
    [(Modality::Vision, d_vision), (Modality::Text, d_text)]
        .into_iter()
        .flat_map(|(modality, d)| {
            let threshold = thresholds.then(|| (LOG_THRESHOLD, vec![latents]));
            arrays(d, latents).into_iter().chain(threshold).map(move |(name, shape)| (modality, name, shape))
        })
        .map(|(modality, name, shape)| TensorSpec::f32(format!("{}.{name}{suffix}", modality.name()), &shape))
        .collect()
}

/// Splits `vision.W_enc` into its modality and the rest.
#[must_use]
pub fn parse_name(name: &str) -> Option<(Modality, &str)> {
    Modality::ALL
        .into_iter()
        .find_map(|modality| Some((modality, name.strip_prefix(modality.name())?.strip_prefix('.')?)))
}

/// One array of parameters on a device, laid out as in files.
pub fn read_array<B: Backend<Real = f32>>(
    backend: &B,
    params: &Params<B>,
    modality: Modality,
    name: &str,
) -> Result<Vec<f32>, SaeError> {
    let dictionary = params.of(modality);
    let (d, latents) = (dictionary.d, dictionary.latents);
    if let (LOG_THRESHOLD, Some(log_threshold)) = (name, &params.log_threshold) {
        return Ok(backend.read_vec(log_threshold.of(modality), latents)?);
    }
    Ok(match name {
        "W_enc" => transpose(&backend.read_vec(&dictionary.w_enc_t, latents * d)?, latents, d),
        "b_enc" => backend.read_vec(&dictionary.b_enc, latents)?,
        "W_dec" => backend.read_vec(&dictionary.w_dec, latents * d)?,
        "b_dec" => backend.read_vec(&dictionary.b_dec, d)?,
        other => return Err(SaeError::internal(format!("no parameter is called {other}"))),
    })
}

/// Bytes of a tensor that was copied for writing.
pub fn owned_bytes<T: bytemuck::Pod>(values: &[T]) -> Cow<'static, [u8]> {
    Cow::Owned(bytemuck::cast_slice(values).to_vec())
}

/// Tensors of a normalisation; none where it changes nothing.
#[must_use]
fn scaling_specs(normalisation: &Normalisation) -> Vec<TensorSpec> {
    if normalisation.is_identity() {
        return Vec::new();
    }
    let of = |modality: Modality| {
        let d = normalisation.of(modality).d();
        [("mean", d), ("scale", 1)].map(|(name, len)| TensorSpec::f32(format!("{}.{name}", modality.name()), &[len]))
    };
    Modality::ALL.into_iter().flat_map(of).collect()
}

fn scaling_array<'a>(normalisation: &'a Normalisation, modality: Modality, name: &str) -> Option<&'a [f32]> {
    let scaling = normalisation.of(modality);
    match name {
        "mean" => Some(&scaling.mean),
        "scale" => Some(std::slice::from_ref(&scaling.scale)),
        _ => None,
    }
}

/// Writes `model.safetensors` from host arrays.
pub fn write_host(out: &mut dyn Write, params: &HostParams<f32>, normalisation: &Normalisation) -> io::Result<()> {
    let (vision, text) = (&params.vision, &params.text);
    let mut all = specs((vision.d, text.d, vision.latents, params.log_threshold.is_some()), "");
    all.extend(scaling_specs(normalisation));
    write_tensors(out, &all, |spec| {
        let missing = || io::Error::other(format!("no tensor is called {}", spec.name));
        let (modality, name) = parse_name(&spec.name).ok_or_else(missing)?;
        if let Some(values) = scaling_array(normalisation, modality, name) {
            return Ok(Cow::Borrowed(bytemuck::cast_slice(values)));
        }
        if let (LOG_THRESHOLD, Some(log_threshold)) = (name, &params.log_threshold) {
            return Ok(Cow::Borrowed(bytemuck::cast_slice(log_threshold.of(modality))));
        }
        let tensors = params.of(modality).tensors();
        let tensor = tensors.into_iter().find(|tensor| tensor.name == name).ok_or_else(missing)?;
        Ok(Cow::Borrowed(bytemuck::cast_slice(tensor.values)))
    })
}

/// Writes the same file from a device, one array at a time.
pub fn write_device<B: Backend<Real = f32>>(
    out: &mut dyn Write,
    backend: &B,
    params: &Params<B>,
    normalisation: &Normalisation,
) -> io::Result<()> {
    let mut all = specs(sizes(params), "");
    all.extend(scaling_specs(normalisation));
    write_tensors(out, &all, |spec| {
        let (modality, name) = parse_name(&spec.name).ok_or_else(|| io::Error::other(spec.name.clone()))?;
        if let Some(values) = scaling_array(normalisation, modality, name) {
            return Ok(owned_bytes(values));
        }
        read_array(backend, params, modality, name).map(|values| owned_bytes(&values)).map_err(io::Error::other)
    })
}

/// Reads parameters whose names end in `suffix` and checks their shapes and that they are finite.
pub fn read_params(
    file: &TensorFile,
    path: &Path,
    d_vision: usize,
    d_text: usize,
    latents: usize,
    suffix: &str,
) -> Result<HostParams<f32>, SaeError> {
    let full = |modality: Modality, name: &str| format!("{}.{name}{suffix}", modality.name());
    let array = |modality: Modality, name: &str, shape: &[usize]| {
        let name = full(modality, name);
        let values = file.floats(&name, shape)?;
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(values),
            Some(at) => Err(SaeError::damaged(path, format!("{name} holds {} at position {at}", values[at]))),
        }
    };
    let read = |m: Modality, d: usize| {
        Ok::<_, SaeError>(HostDictionary {
            d,
            latents,
            w_enc: array(m, "W_enc", &[d, latents])?,
            b_enc: array(m, "b_enc", &[latents])?,
            w_dec: array(m, "W_dec", &[latents, d])?,
            b_dec: array(m, "b_dec", &[d])?,
        })
    };
    let log_threshold = match Modality::ALL.iter().any(|&m| file.contains(&full(m, LOG_THRESHOLD))) {
        false => None,
        true => {
            let of = |m| array(m, LOG_THRESHOLD, &[latents]);
            Some(Sides { vision: of(Modality::Vision)?, text: of(Modality::Text)? })
        }
    };
    let (vision, text) = (read(Modality::Vision, d_vision)?, read(Modality::Text, d_text)?);
    Ok(HostParams { vision, text, log_threshold })
}

/// Reads the normalisation of a model file; `None` where it has none.
pub fn read_normalisation(
    file: &TensorFile,
    path: &Path,
    d_vision: usize,
    d_text: usize,
) -> Result<Option<Normalisation>, SaeError> {
    if !Modality::ALL.iter().any(|m| ["mean", "scale"].iter().any(|x| file.contains(&format!("{}.{x}", m.name())))) {
        return Ok(None);
    }
    let read = |modality: Modality, d: usize| {
        let m = modality.name();
        let mean = file.floats(&format!("{m}.mean"), &[d])?;
        let scale = file.floats(&format!("{m}.scale"), &[1])?[0];
        if !(scale.is_finite() && scale > 0.0 && mean.iter().all(|x| x.is_finite())) {
            return Err(SaeError::damaged(path, format!("the normalisation of {m} is not finite and positive")));
        }
        Ok(Scaling { mean, scale })
    };
    Ok(Some(Normalisation { vision: read(Modality::Vision, d_vision)?, text: read(Modality::Text, d_text)? }))
}
