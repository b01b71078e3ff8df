//! Checkpoints of a run: `checkpoints/step-0000123/` with weights, moments, counters and a manifest (docs/formats.md).
//!
//! A checkpoint is written into a hidden folder, made durable and renamed, so one that has its name is complete; the
//! manifest's hashes tell whether it still is. Reading goes from the newest to the oldest and takes the first that
//! verifies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lucid_kernels::{Backend, DeadCounters, Modality};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::Sides;
use crate::config::Config;
use crate::error::SaeError;
use crate::files::{FileDigest, FileSystem, publish_folder, read_file, read_verified, write_file};
use crate::model_folder::check_format;
use crate::normalisation::{Normalisation, Variances};
use crate::optimiser::Optimiser;
use crate::params::{HostParams, Params};
use crate::tensors::{TensorFile, TensorSpec, write_tensors};
use crate::weights;

/// `format` of a checkpoint's manifest.
pub const FORMAT: &str = "lucid-sae-checkpoint";
/// Newest version this crate writes and reads.
pub const FORMAT_VERSION: u64 = 1;
/// Folder of the checkpoints within a run.
pub const FOLDER: &str = "checkpoints";
/// Checkpoints kept.
const KEPT: usize = 2;
/// Largest JSON file that is read.
const JSON_LIMIT: u64 = 1 << 20;

const MANIFEST: &str = "MANIFEST.json";
const STATE: &str = "state.json";
const WEIGHTS: &str = "weights.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";

/// What a run needs besides weights and moments to go on where it stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunState {
    /// Steps finished; with the configuration it says which pairs come next and at which learning rate.
    pub step: usize,
    /// Steps of the run.
    pub steps: usize,
    /// Bytes of metrics.jsonl that belong to these steps.
    pub metrics_bytes: u64,
    /// Preset the configuration started from.
    pub preset: Option<String>,
    /// The resolved configuration.
    pub config: Config,
    /// Fingerprint of the activation store.
    pub store: String,
    /// Width of patch states.
    pub d_vision: usize,
    /// Width of token states.
    pub d_text: usize,
    /// Variances in normalised units.
    #[serde(flatten)]
    pub variances: Variances,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    format: String,
    format_version: u64,
    step: usize,
    files: BTreeMap<String, FileDigest>,
}

/// A checkpoint read from disk.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: RunState,
    /// Weights.
    pub params: HostParams<f32>,
    /// Centring and scaling.
    pub normalisation: Normalisation,
    /// First moments.
    pub first: HostParams<f32>,
    /// Second moments.
    pub second: HostParams<f32>,
    /// Updates made.
    pub updates: u64,
    /// Dead-latent counters.
    pub dead: Sides<DeadCounters>,
}

/// What a checkpoint is written from.
pub struct Snapshot<'a, B: Backend> {
    /// Device of the parameters.
    pub backend: &'a B,
    /// Where the run stands.
    pub state: &'a RunState,
    /// Weights.
    pub params: &'a Params<B>,
    /// Centring and scaling.
    pub normalisation: &'a Normalisation,
    /// Moments.
    pub optimiser: &'a Optimiser<B>,
    /// Dead-latent counters.
    pub dead: &'a Sides<DeadCounters>,
}

/// Publishes a checkpoint in the run folder `run` and removes all but the newest two. Gives its folder.
pub fn write<B: Backend<Real = f32>>(
    files: &dyn FileSystem,
    run: &Path,
    snapshot: &Snapshot<'_, B>,
) -> Result<PathBuf, SaeError> {
    let folder = run.join(FOLDER);
    files.create_dir_all(&folder).map_err(|error| SaeError::io("create", &folder, error))?;
    let target = folder.join(format!("step-{:07}", snapshot.state.step));
    publish_folder(files, &target, |temporary| {
        let mut digests = BTreeMap::new();
        let mut put = |name: &str, fill: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
            digests.insert(name.to_owned(), write_file(files, &temporary.join(name), fill)?);
            Ok::<_, SaeError>(())
        };
        put(WEIGHTS, &|out| weights::write_device(out, snapshot.backend, snapshot.params, snapshot.normalisation))?;
        put(OPTIMISER, &|out| write_optimiser(out, snapshot))?;
        put(STATE, &|out| Ok(serde_json::to_writer_pretty(out, snapshot.state)?))?;
        let manifest = Manifest {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            step: snapshot.state.step,
            files: digests,
        };
        let path = temporary.join(MANIFEST);
        write_file(files, &path, |out| Ok(serde_json::to_writer_pretty(out, &manifest)?)).map(drop)
    })?;
    prune(run, &target);
    Ok(target)
}

fn write_optimiser<B: Backend<Real = f32>>(out: &mut dyn Write, snapshot: &Snapshot<'_, B>) -> io::Result<()> {
    let params = snapshot.params;
    let sizes = weights::sizes(params);
    let mut all: Vec<TensorSpec> = [".m", ".v"].into_iter().flat_map(|suffix| weights::specs(sizes, suffix)).collect();
    all.push(TensorSpec::u64("updates", &[1]));
    all.extend(Modality::ALL.map(|m| TensorSpec::u64(format!("{}.tokensSinceFired", m.name()), &[sizes.2])));
    write_tensors(out, &all, |spec| {
        if spec.name == "updates" {
            return Ok(weights::owned_bytes(&[snapshot.optimiser.count]));
        }
        let unknown = || io::Error::other(format!("no tensor is called {}", spec.name));
        let (modality, name) = weights::parse_name(&spec.name).ok_or_else(unknown)?;
        if name == "tokensSinceFired" {
            return Ok(weights::owned_bytes(&snapshot.dead.of(modality).tokens_since_fired));
        }
        let (array, moments) = match (name.strip_suffix(".m"), name.strip_suffix(".v")) {
            (Some(array), _) => (array, &snapshot.optimiser.first),
            (_, Some(array)) => (array, &snapshot.optimiser.second),
            _ => return Err(unknown()),
        };
        let values = weights::read_array(snapshot.backend, moments, modality, array);
        values.map(|values| weights::owned_bytes(&values)).map_err(io::Error::other)
    })
}

/// Checkpoints of a run by falling step, without looking inside.
fn list(folder: &Path) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?, entry.path())))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

/// Removes all checkpoints but `newest` and the newest others that verify. Failing to remove one costs space only.
pub fn prune(run: &Path, newest: &Path) {
    let mut kept = 1;
    for (_, path) in list(&run.join(FOLDER)).into_iter().filter(|(_, path)| path != newest) {
        if kept < KEPT && verify(&path).is_ok() {
            kept += 1;
        } else {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The newest checkpoint of the run folder `run` that verifies, and an error for each newer one that does not. `None`
/// where there is no checkpoint at all; an error where there are some and none can be used.
pub fn newest(run: &Path) -> Result<Option<(Checkpoint, Vec<SaeError>)>, SaeError> {
    let mut damaged = Vec::new();
    for (_, path) in list(&run.join(FOLDER)) {
        match read(&path) {
            Ok(checkpoint) => return Ok(Some((checkpoint, damaged))),
            // Going back to an older state because this program is old would throw work away.
            Err(error @ SaeError::Version { .. }) => return Err(error),
            Err(error) => damaged.push(error),
        }
    }
    if damaged.is_empty() { Ok(None) } else { Err(damaged.swap_remove(0)) }
}

/// Checks the manifest and every hash of a checkpoint; gives the contents in the order of the manifest's names.
fn verify(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, SaeError> {
    let manifest_path = path.join(MANIFEST);
    if !manifest_path.exists() {
        return Err(SaeError::damaged(path, "it has no MANIFEST.json"));
    }
    let text = read_file(&manifest_path, JSON_LIMIT)?;
    let document: Value = serde_json::from_slice(&text)
        .map_err(|error| SaeError::damaged(&manifest_path, format!("it is not JSON: {error}")))?;
    check_format(&manifest_path, &document, FORMAT, FORMAT_VERSION)?;
    let manifest: Manifest =
        serde_json::from_value(document).map_err(|error| SaeError::damaged(&manifest_path, error.to_string()))?;
    [WEIGHTS, OPTIMISER, STATE]
        .into_iter()
        .map(|name| {
            let digest = manifest.files.get(name);
            let digest = digest.ok_or_else(|| SaeError::damaged(&manifest_path, format!("it does not list {name}")))?;
            Ok((name.to_owned(), read_verified(&path.join(name), digest)?))
        })
        .collect()
}

/// Reads and checks one checkpoint.
pub fn read(path: &Path) -> Result<Checkpoint, SaeError> {
    let contents = verify(path)?;
    let state_path = path.join(STATE);
    let state: RunState =
        serde_json::from_slice(&contents[STATE]).map_err(|error| SaeError::damaged(&state_path, error.to_string()))?;
    state.config.validate()?;
    let (d_vision, d_text, latents) = (state.d_vision, state.d_text, state.config.latents());

    let weights_path = path.join(WEIGHTS);
    let file = TensorFile::parse(&weights_path, &contents[WEIGHTS])?;
    let params = weights::read_params(&file, &weights_path, d_vision, d_text, latents, "")?;
    let normalisation = weights::read_normalisation(&file, &weights_path, d_vision, d_text)?
        .unwrap_or_else(|| Normalisation::identity(d_vision, d_text));

    let optimiser_path = path.join(OPTIMISER);
    let file = TensorFile::parse(&optimiser_path, &contents[OPTIMISER])?;
    let moments = |suffix| weights::read_params(&file, &optimiser_path, d_vision, d_text, latents, suffix);
    let dead = |m: Modality| {
        let tokens_since_fired = file.counters(&format!("{}.tokensSinceFired", m.name()), &[latents])?;
        Ok::<_, SaeError>(DeadCounters { tokens_since_fired })
    };
    Ok(Checkpoint {
        path: path.to_owned(),
        params,
        normalisation,
        first: moments(".m")?,
        second: moments(".v")?,
        updates: file.counters("updates", &[1])?[0],
        dead: Sides { vision: dead(Modality::Vision)?, text: dead(Modality::Text)? },
        state,
    })
}
