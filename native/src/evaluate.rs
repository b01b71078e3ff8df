//! Evaluation behind a job.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lucid_data::publish::FolderPublisher;
use lucid_data::store::{ActivationSource, AnnotatedSource, PairInfo, Statistics, StoreReader, TokenInfo};
use lucid_data::{BoxAnnotation, DataError, DatasetSpec, ScenesSpec};
use lucid_interpret::{EvaluateOptions, Evaluation, ScenesTruth, TruthSource, cross_ceiling, evaluate};
use napi::Result;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::json;

use crate::device;
use crate::error::Failure;
use crate::job::{NativeJob, Outcome, spawn};
use crate::model::NativeModel;

/// The file of an evaluation folder.
const FILE: &str = "evaluation.json";

/// Whether to ground, or boxes by key of the image in place of the store's.
#[derive(Deserialize)]
#[serde(try_from = "serde_json::Value")]
enum Boxes {
    Use(bool),
    Given(BTreeMap<String, Vec<BoxAnnotation>>),
}

/// Not an untagged enum, which would not say what is wrong with a box.
impl TryFrom<serde_json::Value> for Boxes {
    type Error = serde_json::Error;

    fn try_from(value: serde_json::Value) -> serde_json::Result<Self> {
        match value {
            serde_json::Value::Bool(used) => Ok(Self::Use(used)),
            boxes => serde_json::from_value(boxes).map(Self::Given),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    activations: PathBuf,
    #[serde(default)]
    boxes: Option<Boxes>,
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    heatmaps: Option<Vec<String>>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    bootstrap: Option<usize>,
    /// Store that the ridge maps of the ceilings are fitted on.
    #[serde(default)]
    fit_on: Option<PathBuf>,
    #[serde(default)]
    out: Option<PathBuf>,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    threads: Option<usize>,
}

/// A store whose boxes come from elsewhere.
struct WithBoxes {
    store: StoreReader,
    infos: Vec<PairInfo>,
}

impl WithBoxes {
    fn new(store: StoreReader, mut boxes: BTreeMap<String, Vec<BoxAnnotation>>) -> std::result::Result<Self, Failure> {
        for (key, b) in boxes.iter().flat_map(|(key, boxes)| boxes.iter().map(move |b| (key, b))) {
            let numbers = [b.x, b.y, b.width, b.height];
            if !numbers.iter().all(|number| number.is_finite()) || b.width < 0.0 || b.height < 0.0 {
                return Err(Failure::option(
                    "boxes",
                    format!("{numbers:?} for '{key}'"),
                    "finite x, y, width and height in pixels, width and height not negative",
                ));
            }
        }
        let infos: Vec<PairInfo> = (0..store.pairs())
            .map(|pair| {
                let info = store.info(pair).clone();
                let boxes = boxes.remove(&info.key).unwrap_or_default();
                PairInfo { boxes, ..info }
            })
            .collect();
        if let Some(key) = boxes.keys().next() {
            return Err(Failure::option("boxes", format!("a list for '{key}'"), "keys of images in the store"));
        }
        for (info, b) in infos.iter().flat_map(|info| info.boxes.iter().map(move |b| (info, b))) {
            if let Some(mask) = b.mask.as_ref().filter(|mask| info.size != Some(mask.size())) {
                let ([width, height], key) = (mask.size(), &info.key);
                let expected = match info.size {
                    Some([width, height]) => format!("{width} × {height}, the image's size"),
                    None => "no mask, since the store has no size for the image".into(),
                };
                return Err(Failure::option("boxes", format!("a mask of {width} × {height} for '{key}'"), expected));
            }
        }
        Ok(Self { store, infos })
    }
}

impl ActivationSource for WithBoxes {
    fn pairs(&self) -> usize {
        self.store.pairs()
    }
    fn d_vision(&self) -> usize {
        self.store.d_vision()
    }
    fn d_text(&self) -> usize {
        self.store.d_text()
    }
    fn vision_len(&self, pair: usize) -> usize {
        self.store.vision_len(pair)
    }
    fn captions(&self, pair: usize) -> usize {
        self.store.captions(pair)
    }
    fn text_len(&self, pair: usize, caption: usize) -> usize {
        self.store.text_len(pair, caption)
    }
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> std::result::Result<(), DataError> {
        self.store.read_vision(pair, out)
    }
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> std::result::Result<(), DataError> {
        self.store.read_text(pair, caption, out)
    }
    fn statistics(&self) -> Statistics {
        self.store.statistics()
    }
    fn fingerprint(&self) -> String {
        self.store.fingerprint()
    }
    fn origin(&self) -> Option<serde_json::Value> {
        self.store.origin()
    }
    fn key(&self, pair: usize) -> &str {
        self.store.key(pair)
    }
}

impl AnnotatedSource for WithBoxes {
    fn info(&self, pair: usize) -> &PairInfo {
        &self.infos[pair]
    }
    fn text_tokens(&self, pair: usize, caption: usize) -> TokenInfo<'_> {
        self.store.text_tokens(pair, caption)
    }
    fn thumbnail(&self, pair: usize) -> Option<&[u8]> {
        self.store.thumbnail(pair)
    }
}

/// The scenes a store was extracted from, if it was: their truth can be drawn again.
pub(crate) fn scenes_of(store: &StoreReader) -> Option<ScenesSpec> {
    let spec = store.manifest().provenance.get("dataset")?.clone();
    match serde_json::from_value(spec).ok()? {
        DatasetSpec::Scenes(scenes) => Some(scenes),
        _ => None,
    }
}

/// Writes the folder of an evaluation: `evaluation.json`, and its hash beside it.
fn publish(out: &Path, evaluation: &Evaluation) -> std::result::Result<(), Failure> {
    let content = format!("{:#}\n", serde_json::to_value(evaluation)?);
    let blake3 = blake3::hash(content.as_bytes()).to_hex().to_string();
    let hashes = json!({
        "format": "lucid-evaluation",
        "formatVersion": 1,
        "files": { FILE: { "bytes": content.len(), "blake3": blake3 } },
    });
    let publisher = FolderPublisher::begin(out, true, FILE)?;
    publisher.write(FILE, content.as_bytes())?;
    publisher.write("hashes.json", format!("{hashes:#}\n").as_bytes())?;
    Ok(publisher.publish()?)
}

/// Starts an evaluation.
#[napi(catch_unwind)]
pub fn start_evaluate(options: String, model: &NativeModel) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    device::check(request.device.as_deref())?;
    let model = Arc::clone(&model.model);
    spawn("evaluate", request.threads, move |shared| {
        let store = StoreReader::open(&request.activations)?;
        let scenes = scenes_of(&store);
        let defaults = EvaluateOptions::default();
        let options = EvaluateOptions {
            targets: request.targets.unwrap_or(defaults.targets),
            heatmaps: request.heatmaps.unwrap_or(defaults.heatmaps),
            boxes: !matches!(request.boxes, Some(Boxes::Use(false))),
            seed: request.seed.unwrap_or(defaults.seed),
            bootstrap: request.bootstrap.unwrap_or(defaults.bootstrap),
            ..defaults
        };
        let source: Box<dyn AnnotatedSource> = match request.boxes {
            Some(Boxes::Given(boxes)) => Box::new(WithBoxes::new(store, boxes)?),
            _ => Box::new(store),
        };
        let truth = scenes.map(|spec| ScenesTruth::new(&*source, &spec));
        let truth = truth.as_ref().map(|truth| truth as &dyn TruthSource);
        let mut evaluation = evaluate(&*model, &*source, &options, truth, &**shared)?;
        if let Some(fit_on) = &request.fit_on {
            let found = cross_ceiling(&*model, &StoreReader::open(fit_on)?, &*source, &**shared)?;
            for (cross, ceiling) in [(&mut evaluation.cross.t2v, found.t2v), (&mut evaluation.cross.v2t, found.v2t)] {
                if let Some(cross) = cross {
                    cross.ceiling = ceiling;
                }
            }
        }
        if let Some(out) = &request.out {
            publish(out, &evaluation)?;
        }
        Ok(Outcome::from(serde_json::to_value(evaluation)?))
    })
}
