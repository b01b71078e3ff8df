//! A trained model: what it takes to turn activations into codes and back.

use std::path::Path;
use std::sync::OnceLock;

use crate::device::{Cpu, cpu};
use lucid_data::store::PerModality;
use lucid_kernels::{
    Block, CodeShape, Codes as DeviceCodes, Decode, Device, Encode, Modality, Pairs, Selection, Transport, UNUSED,
};
use serde::{Deserialize, Serialize};

use crate::config::{Activation, Config, Method};
use crate::distance;
use crate::error::SaeError;
use crate::files::Disk;
use crate::model_folder;
use crate::normalisation::{Normalisation, Variances};
use crate::params::{HostDictionary, HostParams, Params};
use crate::selection::wide_shape;
use crate::step::{code_shape, transport_options};
use crate::threshold::{above, above_learnt};

/// Tokens whose activations and reconstructions exist at once.
const CHUNK: usize = 4096;

/// What a model was made from and by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// Preset that the configuration started from, where one was named.
    pub preset: Option<String>,
    /// Fingerprint of the activation store.
    pub store: String,
    /// Pairs of the store.
    pub pairs: usize,
    /// How its states came about, where that is known: backbone, hooks and whether the end of a sentence is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<serde_json::Value>,
    /// Steps trained.
    pub steps: usize,
    /// Version of this crate.
    pub version: String,
}

/// A LUCID model on the host.
#[derive(Debug)]
pub struct Model {
    /// The resolved configuration of its training.
    pub config: Config,
    /// Weights, f32.
    pub params: HostParams<f32>,
    /// Centring and scaling before the encoder.
    pub normalisation: Normalisation,
    /// Variances of the training store in normalised units.
    pub variances: Variances,
    /// Origin.
    pub provenance: Provenance,
    /// Least values of entries that are kept, with an activation that has thresholds in place of a number of entries.
    pub thresholds: Option<PerModality<f32>>,
    device: OnceLock<DeviceParams>,
}

/// Parameters in the layout of the kernels, made when first needed.
struct DeviceParams {
    params: Params<Cpu>,
    /// What encodes, where that is not the dictionary itself.
    encoders: Option<Params<Cpu>>,
}

impl std::fmt::Debug for DeviceParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceParams")
    }
}

/// Sparse codes of `n` tokens, `k_shared + k_private` slots each: entries of the shared block first, by falling value,
/// then those of the private block; unused slots have index `u32::MAX` and value 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// Latent indices \[n · k\].
    pub indices: Vec<u32>,
    /// Values \[n · k\].
    pub values: Vec<f32>,
    /// Tokens.
    pub n: usize,
    /// Slots of the shared block.
    pub k_shared: usize,
    /// Slots of the private block.
    pub k_private: usize,
}

/// The transport plan of one pair with its diagnostics (spec 3).
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOf {
    /// Π \[T_v · T_t\], row-major.
    pub plan: Vec<f32>,
    /// Patches.
    pub rows: usize,
    /// Text tokens.
    pub columns: usize,
    /// r \[T_v\].
    pub row_marginal: Vec<f32>,
    /// c \[T_t\].
    pub column_marginal: Vec<f32>,
    /// w \[T_t\]; empty where neither mass reweighting nor cost modulation is on.
    pub weights: Vec<f32>,
    /// Σ_i |Σ_j Π_ij − r_i|.
    pub marginal_error: f64,
    /// −Σ Π ln Π.
    pub entropy: f64,
    /// ⟨C̃, Π⟩.
    pub transport_cost: f64,
    /// Sinkhorn rounds made.
    pub iterations: u32,
}

/// A summary of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    /// Width of patch states.
    pub d_vision: usize,
    /// Width of token states.
    pub d_text: usize,
    /// Latents of a modality, K_s + K_p.
    pub latents: usize,
    /// Trained numbers.
    pub parameters: usize,
    /// The configuration.
    pub config: Config,
    /// Variances of the training store in normalised units.
    pub variance: PerModality<f64>,
    /// Variances of its pooled states.
    pub pooled_variance: PerModality<f64>,
    /// Origin.
    pub provenance: Provenance,
}

impl Model {
    /// Puts a model together; shapes are checked.
    pub fn new(
        config: Config,
        params: HostParams<f32>,
        normalisation: Normalisation,
        variances: Variances,
        provenance: Provenance,
    ) -> Result<Self, SaeError> {
        config.validate()?;
        for modality in Modality::ALL {
            let dictionary = params.of(modality);
            dictionary.check()?;
            if dictionary.latents != config.latents() || dictionary.d != normalisation.of(modality).d() {
                return Err(SaeError::Shape {
                    what: format!("{}.W_enc", modality.name()),
                    found: format!("[{}, {}]", dictionary.d, dictionary.latents),
                    expected: format!("[{}, {}]", normalisation.of(modality).d(), config.latents()),
                });
            }
        }
        let thresholds = None;
        let learnt = params.log_threshold.as_ref();
        for modality in Modality::ALL {
            let found = learnt.map(|learnt| learnt.of(modality).len());
            let expected = (config.activation == Activation::JumpRelu).then_some(config.latents());
            if found != expected {
                return Err(SaeError::Shape {
                    what: format!("{}.log_threshold", modality.name()),
                    found: found.map_or("none".into(), |n| n.to_string()),
                    expected: expected.map_or("none".into(), |n| n.to_string()),
                });
            }
        }
        Ok(Self { config, params, normalisation, variances, provenance, thresholds, device: OnceLock::new() })
    }

    /// The same model with thresholds, which must be finite and at least 0.
    pub fn with_thresholds(self, thresholds: Option<PerModality<f32>>) -> Result<Self, SaeError> {
        if let Some(t) = thresholds
            && !(t.vision.is_finite() && t.text.is_finite() && t.vision >= 0.0 && t.text >= 0.0)
        {
            let found = format!("{} and {}", t.vision, t.text);
            return Err(SaeError::option("thresholds", found, "finite numbers of at least 0"));
        }
        Ok(Self { thresholds, ..self })
    }

    /// Reads a model folder; one that is damaged or was written by a newer version is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SaeError> {
        model_folder::load(path.as_ref())
    }

    /// Writes a model folder, by rename; an older model there is exchanged for it. In a folder that holds more (a run's) the
    /// two files are replaced, and in between it is no model: a reader never sees weights under another's description.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaeError> {
        model_folder::save(&Disk, self, path.as_ref())
    }

    /// Width d_m of a modality's states.
    #[must_use]
    pub const fn width(&self, modality: Modality) -> usize {
        self.params.of(modality).d
    }

    /// A summary.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        let count = |modality| self.params.of(modality).tensors().iter().map(|t| t.values.len()).sum::<usize>();
        ModelInfo {
            d_vision: self.params.vision.d,
            d_text: self.params.text.d,
            latents: self.config.latents(),
            parameters: Modality::ALL.into_iter().map(count).sum::<usize>()
                + self.params.log_threshold.as_ref().map_or(0, |t| t.vision.len() + t.text.len()),
            config: self.config.clone(),
            variance: self.variances.variance,
            pooled_variance: self.variances.pooled_variance,
            provenance: self.provenance.clone(),
        }
    }

    /// Codes of raw activations \[n · d_m\]; normalisation is applied inside.
    pub fn encode(&self, acts: &[f32], modality: Modality) -> Result<Codes, SaeError> {
        let d = self.width(modality);
        if !acts.len().is_multiple_of(d) {
            return Err(SaeError::Shape {
                what: format!("{} activations", modality.name()),
                found: format!("{} numbers", acts.len()),
                expected: format!("a multiple of d = {d}"),
            });
        }
        if let Some(at) = acts.iter().position(|x| !x.is_finite()) {
            return Err(SaeError::Activations {
                modality,
                token: at / d,
                dimension: at % d,
                value: acts[at].to_string(),
            });
        }
        if let Some(log_threshold) = &self.params.log_threshold {
            let excess = self.encode_shaped(acts, modality, wide_shape(&self.config))?;
            return Ok(above_learnt(excess, log_threshold.of(modality)));
        }
        match self.thresholds {
            None => self.encode_shaped(acts, modality, code_shape(&self.config)),
            Some(thresholds) => {
                let least = match modality {
                    Modality::Vision => thresholds.vision,
                    Modality::Text => thresholds.text,
                };
                Ok(above(self.encode_shaped(acts, modality, wide_shape(&self.config))?, least))
            }
        }
    }

    /// Codes of checked activations in a shape of their own.
    pub(crate) fn encode_shaped(&self, acts: &[f32], modality: Modality, shape: CodeShape) -> Result<Codes, SaeError> {
        let (backend, d) = (cpu()?, self.width(modality));
        let device = self.device(&backend)?;
        let dictionary = device.encoders.as_ref().unwrap_or(&device.params).of(modality);
        let n = acts.len() / d;
        let slots = n * shape.k();
        let (indices, values) = (Vec::with_capacity(slots), Vec::with_capacity(slots));
        let mut codes = Codes { indices, values, n, k_shared: shape.k_shared, k_private: shape.k_private };
        let mut device = DeviceCodes::new(&backend, 0, shape)?;
        for chunk in acts.chunks(CHUNK * d) {
            let mut chunk = chunk.to_vec();
            self.normalisation.of(modality).apply(&mut chunk);
            if self.config.method == Method::VlSae {
                distance::normalise(&mut chunk, d);
            }
            device.reserve(&backend, chunk.len() / d, shape.k())?;
            backend.encode_topk(&backend.upload(&chunk)?, dictionary, &mut device)?;
            let (indices, values) = device.read(&backend)?;
            codes.indices.extend(indices);
            codes.values.extend(values);
        }
        if self.config.method == Method::VlSae {
            let of_cosines = codes.values.iter_mut().zip(&codes.indices).filter(|(_, index)| **index != UNUSED);
            of_cosines.for_each(|(value, _)| *value = distance::activation(*value - 2.0));
        }
        Ok(codes)
    }

    /// Reconstructions \[n · d_m\] in raw units from one block of `codes` and the bias, by the decoder of `modality`. The
    /// codes may be of the other modality (cross reconstruction).
    pub fn decode(&self, codes: &Codes, modality: Modality, block: Block) -> Result<Vec<f32>, SaeError> {
        let backend = cpu()?;
        let dictionary = self.device(&backend)?.params.of(modality);
        let (d, k) = (self.width(modality), codes.k_shared + codes.k_private);
        let mut out = Vec::with_capacity(codes.n * d);
        let mut buffer = backend.zeros(CHUNK.min(codes.n) * d)?;
        for start in (0..codes.n).step_by(CHUNK) {
            let rows = start * k..(start + CHUNK).min(codes.n) * k;
            let part = self.upload(&backend, codes, rows)?;
            backend.decode(&part, block, dictionary, true, &mut buffer)?;
            out.extend(backend.read_vec(&buffer, part.n * d)?);
        }
        self.normalisation.of(modality).invert(&mut out);
        Ok(out)
    }

    /// The plan between the patches and the text tokens of one pair, from their shared codes.
    pub fn match_pair(&self, vision: &Codes, text: &Codes) -> Result<PlanOf, SaeError> {
        self.match_admissible(vision, text, None)
    }

    /// [`Model::match_pair`] under a mask M \[T_v · T_t\] of values in \[0, 1\].
    pub fn match_admissible(&self, vision: &Codes, text: &Codes, mask: Option<&[f32]>) -> Result<PlanOf, SaeError> {
        let backend = cpu()?;
        let pairs = Pairs::new(&[vision.n], &[text.n])?;
        let cells = pairs.cells.total();
        if let Some(mask) = mask.filter(|mask| mask.len() != cells) {
            let (what, found, expected) = ("admissible".into(), mask.len().to_string(), cells.to_string());
            return Err(SaeError::Shape { what, found, expected });
        }
        let upload = |codes: &Codes| self.upload(&backend, codes, 0..codes.indices.len());
        let (vision, text) = (upload(vision)?, upload(text)?);
        let mask = mask.map(|mask| backend.upload(mask)).transpose()?;
        let options = transport_options(&self.config);
        let mut transport = Transport::new(&backend, &pairs)?;
        transport.solve(&backend, &vision, &text, &pairs, mask.as_ref(), &options)?;
        let plan = &transport.plan;
        Ok(PlanOf {
            plan: backend.read_vec(&plan.plan, cells)?,
            rows: vision.n,
            columns: text.n,
            row_marginal: backend.read_vec(&transport.row, vision.n)?,
            column_marginal: backend.read_vec(&transport.column, text.n)?,
            weights: if options.uses_weights() { backend.read_vec(&transport.weights, text.n)? } else { Vec::new() },
            marginal_error: backend.read_vec(&plan.marginal_error, 1)?[0],
            entropy: backend.read_vec(&plan.entropy, 1)?[0],
            transport_cost: backend.read_vec(&plan.transport_cost, 1)?[0],
            iterations: backend.read_vec(&plan.iterations, 1)?[0],
        })
    }

    fn device(&self, backend: &Cpu) -> Result<&DeviceParams, SaeError> {
        if let Some(device) = self.device.get() {
            return Ok(device);
        }
        let HostParams { vision, text, log_threshold } = &self.params;
        let encoders = match (log_threshold, self.config.method) {
            (Some(log_threshold), _) => {
                // a − θ: positive above the threshold.
                let excess = |side: &HostDictionary<f32>, logs: &[f32]| {
                    let b_enc = side.b_enc.iter().zip(logs).map(|(b, log)| b - log.exp()).collect();
                    HostDictionary { b_enc, ..side.clone() }
                };
                Some((excess(vision, &log_threshold.vision), excess(text, &log_threshold.text)))
            }
            (None, Method::VlSae) => Some((distance::shifted(vision), distance::shifted(text))),
            (None, _) => None,
        };
        let upload = |(vision, text)| Params::upload(backend, &HostParams { vision, text, log_threshold: None });
        let made = DeviceParams {
            params: Params::upload(backend, &self.params)?,
            encoders: encoders.map(upload).transpose()?,
        };
        Ok(self.device.get_or_init(|| made))
    }

    /// Whether codes have as many slots as the fullest token needs, and not a number that the configuration names.
    #[must_use]
    pub const fn has_thresholds(&self) -> bool {
        self.thresholds.is_some() || self.params.log_threshold.is_some()
    }

    /// Checks the slots in `range` and puts them into the order the kernels rely on: codes may come from users.
    fn upload(
        &self,
        backend: &Cpu,
        codes: &Codes,
        range: std::ops::Range<usize>,
    ) -> Result<DeviceCodes<Cpu>, SaeError> {
        let k = codes.k_shared + codes.k_private;
        if codes.indices.len() != codes.n * k || codes.values.len() != codes.n * k {
            return Err(SaeError::Shape {
                what: "codes".into(),
                found: format!("{} indices, {} values", codes.indices.len(), codes.values.len()),
                expected: format!("{} × {k} of each", codes.n),
            });
        }
        let (d_shared, latents) = (self.config.d_shared, self.config.latents());
        let (mut indices, mut values) = (Vec::with_capacity(range.len()), Vec::with_capacity(range.len()));
        let rows = codes.indices[range.clone()].chunks_exact(k.max(1)).zip(codes.values[range].chunks_exact(k.max(1)));
        for (row_indices, row_values) in rows {
            let mut row: Vec<(u32, f32)> = row_indices.iter().copied().zip(row_values.iter().copied()).collect();
            row.retain(|(index, _)| *index != UNUSED);
            let wrong = row.iter().find(|(index, value)| *index as usize >= latents || !value.is_finite());
            if let Some((index, value)) = wrong {
                return Err(SaeError::Shape {
                    what: "a code".into(),
                    found: format!("latent {index} with value {value}"),
                    expected: format!("a latent below {latents} with a finite value"),
                });
            }
            row.sort_by(|a, b| {
                let private = |index: u32| index as usize >= d_shared;
                private(a.0).cmp(&private(b.0)).then(b.1.total_cmp(&a.1)).then(a.0.cmp(&b.0))
            });
            row.resize(k, (UNUSED, 0.0));
            indices.extend(row.iter().map(|(index, _)| index));
            values.extend(row.iter().map(|(_, value)| value));
        }
        // One list of slots: the shared entries lead it, which is all that decoding and matching rely on.
        let shape = CodeShape {
            d_shared,
            d_private: self.config.d_private,
            k_shared: codes.k_shared,
            k_private: codes.k_private,
            selection: Selection::Global,
        };
        Ok(DeviceCodes::upload(backend, shape, &indices, &values)?)
    }
}
