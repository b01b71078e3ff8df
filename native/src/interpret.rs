//! Interpretation behind a job, and the library of concepts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lucid_data::scenes::{ConceptKind, concepts};
use lucid_data::store::{ActivationSource, AnnotatedSource, KIND_CONTENT, StoreReader};
use lucid_data::{DatasetSpec, OnBad, open_dataset_with};
use lucid_interpret::{ConceptStates, InterpretOptions, interpret};
use lucid_vlm::{Backbone, ExtractOptions, check_backbone};
use napi::Result;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::atlas::NativeAtlas;
use crate::concepts::{Concept, Concepts, Library, default_library, named, read_concepts};
use crate::device;
use crate::error::Failure;
use crate::extract::backbone;
use crate::job::{NativeJob, Outcome, Shared, spawn};
use crate::model::NativeModel;

/// What the embedded backbone tells apart (docs/mini-backbone.md); its relations are not reliable, and a count belongs to no patch.
const MINI_KINDS: [ConceptKind; 5] =
    [ConceptKind::Color, ConceptKind::Background, ConceptKind::Size, ConceptKind::Pattern, ConceptKind::Shape];

/// Words of captions that are taken as concepts where none are given.
const COMMON_WORDS: usize = 400;

/// Words too common in any language to be a concept of an image.
const STOP_WORDS: &[&str] = &[
    "a", "about", "above", "against", "an", "and", "are", "around", "as", "at", "be", "behind", "being", "below",
    "beside", "between", "by", "for", "from", "has", "have", "he", "her", "him", "his", "in", "inside", "into", "is",
    "it", "its", "near", "next", "of", "off", "on", "or", "out", "outside", "over", "she", "some", "that", "the",
    "their", "them", "there", "they", "this", "through", "to", "two", "under", "up", "very", "while", "who", "with",
];

#[derive(Deserialize)]
struct Request {
    backbone: String,
    #[serde(default)]
    activations: Option<PathBuf>,
    #[serde(default)]
    dataset: Option<DatasetSpec>,
    concepts: Concepts,
    #[serde(default)]
    out: Option<PathBuf>,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    threads: Option<usize>,
    #[serde(flatten)]
    options: Map<String, Value>,
}

/// Every word for what the embedded backbone knows.
fn scene_words() -> Library {
    let known = concepts().iter().filter(|concept| MINI_KINDS.contains(&concept.kind));
    known.flat_map(|concept| concept.words.iter().map(|word| Concept::new(*word, Some(concept.kind.name())))).collect()
}

/// The commonest words of first captions, by falling number, then by spelling.
fn caption_words(store: &StoreReader) -> Library {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pair in 0..store.pairs() {
        let Some(caption) = store.info(pair).captions.first() else { continue };
        for word in caption.to_lowercase().split(|c: char| !c.is_alphanumeric() && c != '-' && c != '\'') {
            if word.chars().count() > 1 && !STOP_WORDS.contains(&word) {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    let mut words: Vec<(String, usize)> = counts.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    words.into_iter().take(COMMON_WORDS).map(|(word, _)| Concept::new(word, None)).collect()
}

/// States of the concepts at the hook the store was made with; words the tokenizer cannot read are left out.
fn concept_states(
    library: Library,
    backbone: &Backbone,
    store: &StoreReader,
    shared: &Shared,
) -> std::result::Result<ConceptStates, Failure> {
    use lucid_data::progress::Observer as _;
    let provenance = &store.manifest().provenance;
    let hook = provenance["hooks"]["text"].as_str().unwrap_or("text.final_ln").to_owned();
    let keep_eos = provenance["keepEos"].as_bool().unwrap_or(true);
    if backbone.text_dim() != store.d_text() {
        return Err(Failure::option(
            "backbone",
            format!("one with text states of width {}", backbone.text_dim()),
            format!("the one the store was made with (width {})", store.d_text()),
        ));
    }
    if let Some(recorded) = provenance.get("backbone") {
        check_backbone(recorded, backbone)?;
    }
    let mut states = ConceptStates::default();
    let total = library.len() as u64;
    for (index, Concept { name, category, synonyms }) in library.into_iter().enumerate() {
        if shared.is_cancelled() {
            return Err(Failure::new("E_CANCELLED", "the interpretation was cancelled", None, Value::Null));
        }
        if states.names.contains(&name) {
            continue;
        }
        let before = (states.states.len(), states.pooled.len());
        let (mut tokens, mut texts) = (0, 0);
        for text in std::iter::once(&name).chain(&synonyms) {
            let encoded = match backbone.encode_texts(&[text.as_str()], &hook) {
                Ok(encoded) => encoded,
                Err(error) if error.code() == "E_EMPTY_TEXT" => continue,
                Err(error) => return Err(error.into()),
            };
            let kept: Vec<usize> =
                (0..encoded.kinds.len()).filter(|&t| keep_eos || encoded.kinds[t] == KIND_CONTENT).collect();
            if kept.is_empty() {
                continue;
            }
            for &token in &kept {
                states.states.extend_from_slice(&encoded.states[token * encoded.dim..(token + 1) * encoded.dim]);
            }
            tokens += kept.len();
            if texts == 0 {
                states.pooled.extend_from_slice(&encoded.pooled);
            } else {
                states.pooled[before.1..].iter_mut().zip(&encoded.pooled).for_each(|(sum, x)| *sum += x);
            }
            texts += 1;
        }
        if texts == 0 {
            shared.warning("W_CONCEPT", &format!("the concept {name:?} has no token and is left out"));
            states.states.truncate(before.0);
            continue;
        }
        // The cluster goes by the mean of what its names mean.
        states.pooled[before.1..].iter_mut().for_each(|x| *x /= texts as f32);
        states.lengths.push(tokens);
        states.names.push(name);
        states.categories.push(category);
        shared.progress("concepts", index as u64 + 1, total);
    }
    Ok(states)
}

/// The captions of the store as concepts, by the states the store holds: what is left where no backbone can encode
/// words for it, as with imported activations. Captions cluster by their mean states about the mean token.
fn caption_states(store: &StoreReader) -> std::result::Result<ConceptStates, Failure> {
    let (width, mean) = (store.d_text(), store.statistics().mean_text);
    let mut states = ConceptStates::default();
    for pair in 0..store.pairs() {
        let info = store.info(pair);
        let caption = info.captions.first().filter(|caption| !caption.trim().is_empty()).unwrap_or(&info.key);
        if states.names.len() == COMMON_WORDS {
            break;
        }
        if states.names.contains(caption) {
            continue;
        }
        let tokens = store.text_len(pair, 0);
        let mut text = vec![0.0_f32; tokens * width];
        store.read_text(pair, 0, &mut text)?;
        let pooled = (0..width).map(|i| {
            let sum: f64 = text.iter().skip(i).step_by(width).map(|x| f64::from(*x)).sum();
            (sum / tokens as f64 - mean[i]) as f32
        });
        states.pooled.extend(pooled);
        states.states.extend(text);
        states.lengths.push(tokens);
        states.names.push(caption.clone());
        states.categories.push(None);
    }
    Ok(states)
}

/// A store that is removed again.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: a folder left in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts an interpretation.
#[napi(catch_unwind)]
pub fn start_interpret(options: String, model: &NativeModel) -> Result<NativeJob> {
    let request: Request = serde_json::from_str(&options).map_err(Failure::from)?;
    device::check(request.device.as_deref())?;
    let options: InterpretOptions = serde_json::from_value(Value::Object(request.options)).map_err(Failure::from)?;
    let model = Arc::clone(&model.model);
    spawn("interpret", request.threads, move |shared| {
        let backbone = backbone(&request.backbone, request.threads, &**shared)?;
        let mut temporary = None;
        let path = match (request.activations, request.dataset) {
            (Some(path), _) => path,
            (None, Some(spec)) => {
                let name = format!("lucid-interpret-{}-{:p}", std::process::id(), Arc::as_ptr(shared));
                let path = std::env::temp_dir().join(name);
                let dataset = open_dataset_with(&spec, OnBad::Stop)?;
                let mut extract = ExtractOptions { max_pairs: options.max_images, ..ExtractOptions::new(&path) };
                // The states that the model was trained on, wherever the backbone would look by itself.
                if let Some(origin) = &model.provenance.origin {
                    check_backbone(&origin["backbone"], &backbone)?;
                    let hooks = ["vision", "text"].map(|tower| origin["hooks"][tower].as_str());
                    extract.layers = hooks.into_iter().flatten().map(str::to_owned).collect();
                    extract.keep_eos = origin["keepEos"].as_bool().unwrap_or(extract.keep_eos);
                }
                temporary = Some(Temporary(path.clone()));
                lucid_vlm::extract(&backbone, &*dataset, &extract, &**shared)?;
                path
            }
            (None, None) => return Err(Failure::option("activations", "absent", "a store, or dataset")),
        };
        let store = StoreReader::open(&path)?;
        let imported = store.manifest().provenance.get("backbone").is_none();
        let encoded = |library| concept_states(library, &backbone, &store, shared);
        let concepts = match request.concepts {
            Concepts::List(list) => encoded(named(list)?)?,
            Concepts::Named(name) if name == "captions" => caption_states(&store)?,
            Concepts::Named(name) if name == "library" => encoded(default_library())?,
            Concepts::Named(name) if name == "default" && request.backbone == "mini" => {
                match (imported, scenes(&store) || uncaptioned(&store)) {
                    (true, _) => caption_states(&store)?,
                    (false, true) => encoded(scene_words())?,
                    (false, false) => encoded(caption_words(&store))?,
                }
            }
            Concepts::Named(name) if name == "default" => encoded(default_library())?,
            Concepts::Named(file) => encoded(read_concepts(Path::new(&file))?)?,
        };
        let atlas = interpret(&*model, &store, &concepts, &options, &**shared)?;
        drop(temporary);
        if let Some(out) = &request.out {
            atlas.save(out)?;
        }
        Ok(Outcome { atlas: Some(NativeAtlas { atlas: Arc::new(atlas) }), ..Outcome::default() })
    })
}

/// Whether names of files stand for captions: their words are no concepts.
fn uncaptioned(store: &StoreReader) -> bool {
    store.manifest().provenance["dataset"]["folder"]["captions"] == false
}

fn scenes(store: &StoreReader) -> bool {
    store.manifest().provenance["dataset"].get("scenes").is_some()
}
