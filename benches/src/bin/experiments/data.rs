//! The pairs that experiments train on and measure on: generated scenes through a backbone, and activation-level pairs.

use std::error::Error;
use std::path::{Path, PathBuf};

use lucid_data::progress::Silent;
use lucid_data::scenes::{Split, concepts};
use lucid_data::store::{AnnotatedSource, StoreReader};
use lucid_data::synth::{SynthOptions, synth};
use lucid_data::{DatasetSpec, ScenesSpec, open_dataset};
use lucid_interpret::{ConceptStates, ScenesTruth, TruthSource, synth_truth};
use lucid_vlm::{Backbone, ExtractOptions, extract};
use serde::{Deserialize, Serialize};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The truth of a source: of the pairs trained on (false) or measured on (true).
type TruthOf = Box<dyn for<'a> Fn(&'a dyn AnnotatedSource, bool) -> Box<dyn TruthSource + 'a> + Send + Sync>;

/// What one seed trains on, what it is measured on, and the words to name latents with.
pub struct Data {
    pub train: Box<dyn AnnotatedSource + Send + Sync>,
    pub held_out: Box<dyn AnnotatedSource + Send + Sync>,
    pub truth: TruthOf,
    pub library: ConceptStates,
}

/// Scenes through a backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScenesOptions {
    /// `mini` or a folder.
    pub backbone: String,
    /// A vision and a text hook.
    pub layers: Vec<String>,
    /// Pairs trained on.
    pub pairs: usize,
    /// Pairs measured on.
    pub held_out: usize,
    /// Whether the end-of-sentence token is a token like any other.
    pub keep_eos: bool,
}

fn spec(pairs: usize, seed: u64) -> ScenesSpec {
    ScenesSpec { pairs, seed, split: Split::Train, edits: false }
}

fn store(backbone: &Backbone, options: &ScenesOptions, pairs: usize, seed: u64, cache: &Path) -> Result<StoreReader> {
    let weights =
        backbone.provenance()["weightsBlake3"].as_str().unwrap_or_default().chars().take(12).collect::<String>();
    let name = format!("{}-{}-{pairs}-{seed}-{}", weights, options.layers.join("+").replace(':', ""), options.keep_eos);
    let folder: PathBuf = cache.join(name);
    if !folder.exists() {
        let spec = DatasetSpec::Scenes(spec(pairs, seed));
        let chosen = ExtractOptions {
            layers: options.layers.clone(),
            keep_eos: options.keep_eos,
            ..ExtractOptions::new(&folder)
        };
        extract(backbone, &*open_dataset(&spec)?, &chosen, &Silent)?;
    }
    Ok(StoreReader::open(&folder)?)
}

/// Every word for what a patch of a scene can show, as the backbone encodes it alone.
fn words(backbone: &Backbone, options: &ScenesOptions) -> Result<ConceptStates> {
    let mut states = ConceptStates::default();
    let hook = options.layers.iter().find(|l| l.starts_with("text.")).map_or("text.final_ln", String::as_str);
    for word in concepts().iter().flat_map(|c| c.words.iter().copied()) {
        let encoded = backbone.encode_texts(&[word], hook)?;
        let kept = if options.keep_eos { encoded.kinds.len() } else { encoded.kinds.len() - 1 };
        states.names.push(word.into());
        states.categories.push(None);
        states.lengths.push(kept);
        states.states.extend_from_slice(&encoded.states[..kept * encoded.dim]);
        states.pooled.extend_from_slice(&encoded.pooled);
    }
    Ok(states)
}

/// Scenes of `seed`: pictures of seed 1 + 2s for training and of 2 + 2s to measure on, as in the demo.
pub fn scenes(options: &ScenesOptions, seed: u64, cache: &Path) -> Result<Data> {
    let backbone =
        if options.backbone == "mini" { Backbone::mini()? } else { Backbone::load(Path::new(&options.backbone))? };
    std::fs::create_dir_all(cache)?;
    Ok(Data {
        train: Box::new(store(&backbone, options, options.pairs, 1 + 2 * seed, cache)?),
        held_out: Box::new(store(&backbone, options, options.held_out, 2 + 2 * seed, cache)?),
        truth: Box::new(move |source, held_out| {
            Box::new(ScenesTruth::new(source, &spec(source.pairs(), if held_out { 2 } else { 1 } + 2 * seed)))
        }),
        library: words(&backbone, options)?,
    })
}

/// Activation-level pairs of `seed`; the directions of its concepts are the words.
pub fn activations(pairs: usize, held_out: usize, seed: u64) -> Result<Data> {
    let options = SynthOptions { pairs, seed, ..SynthOptions::default() };
    let (train, known) = synth(&options)?;
    let (measured, truth) = synth(&SynthOptions { pairs: held_out, first_pair: pairs, ..options })?;
    let (d, text) = (known.text.d, &known.text);
    let state =
        |c: usize| text.shared[c * d..(c + 1) * d].iter().zip(&text.offset).map(|(a, o)| a + o).collect::<Vec<_>>();
    let library = ConceptStates {
        names: (0..known.concepts).map(|c| format!("concept{c}")).collect(),
        categories: Vec::new(),
        lengths: vec![1; known.concepts],
        states: (0..known.concepts).flat_map(state).collect(),
        pooled: text.shared.clone(),
    };
    let truths = [synth_truth(&known), synth_truth(&truth)];
    Ok(Data {
        train: Box::new(train),
        held_out: Box::new(measured),
        truth: Box::new(move |_, held_out| Box::new(truths[usize::from(held_out)].clone())),
        library,
    })
}
