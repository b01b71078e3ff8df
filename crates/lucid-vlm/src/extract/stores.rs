//! The stores an extraction writes: one for each combination of hooks, begun or gone on with together.

use super::options::{CaptionPolicy, ExtractOptions};
use super::prepare::Prepared;
use crate::backbone::{Backbone, Encoded};
use crate::error::VlmError;
use crate::hook::{self, Hook, TEXT_DEFAULT, Tower, VISION_DEFAULT};
use lucid_data::store::{CaptionActivations, MANIFEST, Manifest, PairActivations, SKIPPED, StoreOptions, StoreWriter};
use lucid_data::{DataError, Dataset, Skipped};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The list of stores, where there are several.
const LIST: &str = "stores.json";

/// The hooks to take states from, and which two go into each store.
pub(super) struct Layers {
    pub vision: Vec<Hook>,
    pub text: Vec<Hook>,
    names: [Vec<String>; 2],
}

impl Layers {
    /// Reads hook names; a tower that is not named has its default.
    pub fn new(backbone: &Backbone, layers: &[String]) -> Result<Self, VlmError> {
        let mut found: [(Vec<Hook>, Vec<String>); 2] = Default::default();
        for name in layers {
            let (tower, hook) = hook::find_hook(backbone.config(), name)?;
            let (hooks, names) = &mut found[usize::from(tower == Tower::Text)];
            if names.contains(name) {
                return Err(VlmError::Argument {
                    option: "layers".into(),
                    found: format!("{name} twice"),
                    expected: "each hook once".into(),
                });
            }
            hooks.push(hook);
            names.push(name.clone());
        }
        for ((hooks, names), default) in found.iter_mut().zip([VISION_DEFAULT, TEXT_DEFAULT]) {
            if hooks.is_empty() {
                hooks.push(Hook::Final);
                names.push(default.into());
            }
        }
        let [(vision, vision_names), (text, text_names)] = found;
        Ok(Self { vision, text, names: [vision_names, text_names] })
    }

    /// Positions of the two hooks of each store.
    fn combinations(&self) -> Vec<[usize; 2]> {
        let [v, t] = [&self.names[0], &self.names[1]].map(Vec::len);
        (0..v.max(t)).map(|i| [i.min(v - 1), i.min(t - 1)]).collect()
    }
}

/// Where an extraction stands after a record.
#[derive(Serialize, Deserialize)]
struct State {
    /// Position of the next record.
    next: usize,
    /// What was left out since the last complete shard.
    skipped: Vec<Skipped>,
    /// Captions cut to the text length so far.
    truncated: usize,
    /// What the data set has learnt.
    learnt: Value,
}

/// A store and the hooks it holds.
struct Target {
    hooks: [usize; 2],
    path: PathBuf,
    options: StoreOptions,
    /// Present until the store is finished.
    writer: Option<StoreWriter>,
}

/// All of them.
pub(super) struct Stores {
    targets: Vec<Target>,
    out: PathBuf,
    /// Pairs that were there.
    pub resumed: usize,
    /// Position of the first record to extract.
    pub next: usize,
    /// What has been left out, in order.
    pub skipped: Vec<Skipped>,
    noted: usize,
    /// Captions cut to the text length.
    pub truncated: usize,
}

/// A folder name for two hooks.
fn folder_name(vision: &str, text: &str) -> String {
    format!("{vision}+{text}").replace(':', "-")
}

impl Stores {
    /// Begins the stores at record `first`, or goes on with them; true where an earlier run of the same options finished all of them.
    pub fn open(
        backbone: &Backbone,
        dataset: &dyn Dataset,
        layers: &Layers,
        (first, total): (usize, Option<usize>),
        options: &ExtractOptions,
    ) -> Result<(Self, bool), VlmError> {
        let combinations = layers.combinations();
        let several = combinations.len() > 1;
        let mut targets = Vec::with_capacity(combinations.len());
        for hooks in combinations {
            let [vision, text] = [&layers.names[0][hooks[0]], &layers.names[1][hooks[1]]];
            let mut provenance = json!({
                "backbone": backbone.provenance(),
                "hooks": { "vision": vision, "text": text },
                "keepEos": options.keep_eos,
                "captionPolicy": options.caption_policy,
                "dataset": dataset.spec().portable(),
            });
            if options.caption_policy == CaptionPolicy::All {
                // What older stores say by saying nothing.
                if let Some(fields) = provenance.as_object_mut() {
                    fields.remove("captionPolicy");
                }
            }
            if let Some(part) = options.shard {
                // Merging checks by this that the parts are all there.
                provenance["part"] = json!({ "index": part.index, "of": part.of, "first": first, "pairs": total });
            }
            if let Some(most) = options.max_pairs {
                provenance["maxPairs"] = json!(most);
            }
            let path = if several { options.out.join(folder_name(vision, text)) } else { options.out.clone() };
            let options = StoreOptions {
                precision: options.precision,
                pairs_per_shard: options.pairs_per_shard,
                provenance,
                overwrite: options.overwrite,
                ..StoreOptions::new(backbone.vision_dim(), backbone.text_dim())
            };
            targets.push(Target { hooks, path, options, writer: None });
        }
        let mut stores = Self {
            targets,
            out: options.out.clone(),
            resumed: 0,
            next: first,
            skipped: Vec::new(),
            noted: 0,
            truncated: 0,
        };
        let complete = options.resume && stores.resume(dataset)?;
        if !complete {
            for target in stores.targets.iter_mut().filter(|t| t.writer.is_none()) {
                if options.resume && target.is_complete() {
                    continue;
                }
                target.writer = Some(StoreWriter::begin(&target.path, target.options.clone())?);
            }
        }
        Ok((stores, complete))
    }

    /// Goes on from the last shard that every unfinished store has; true where all are finished.
    fn resume(&mut self, dataset: &dyn Dataset) -> Result<bool, VlmError> {
        for target in self.targets.iter().filter(|t| t.is_complete()) {
            StoreWriter::tidy(&target.path)?;
        }
        let mut shortest: Option<Vec<Value>> = None;
        let mut open = 0;
        for target in self.targets.iter().filter(|t| !t.is_complete()) {
            open += 1;
            let states = StoreWriter::unfinished(&target.path, &target.options)?.unwrap_or_default();
            if shortest.as_ref().is_none_or(|s| states.len() < s.len()) {
                shortest = Some(states);
            }
        }
        let Some(states) = shortest.filter(|states| !states.is_empty()) else { return Ok(open == 0) };
        for state in &states {
            let state: State = serde_json::from_value(state.clone()).map_err(|e| DataError::Unfinished {
                path: self.out.clone(),
                reason: format!("its journal cannot be read: {e}"),
                fix: "start over with overwrite".into(),
            })?;
            self.next = state.next;
            self.skipped.extend(state.skipped);
            self.truncated = state.truncated;
            dataset.recall(&state.learnt)?;
        }
        self.noted = self.skipped.len();
        for target in &mut self.targets {
            if !target.is_complete() {
                let writer = StoreWriter::resume(&target.path, target.options.clone(), states.len())?;
                self.resumed = writer.pairs();
                target.writer = Some(writer);
            }
        }
        Ok(false)
    }

    /// Adds a pair to every store: `image` and `captions` hold its states at every hook of their tower.
    pub fn append(&mut self, pair: &Prepared, image: &Encoded, captions: &[Encoded]) -> Result<(), VlmError> {
        self.truncated += pair.captions.iter().filter(|(_, tokens)| tokens.truncated).count();
        for Target { hooks: [vision, text], writer, .. } in &mut self.targets {
            let Some(writer) = writer else { continue };
            let captions: Vec<CaptionActivations<'_>> = pair
                .captions
                .iter()
                .zip(captions)
                .map(|((caption, tokens), encoded)| CaptionActivations {
                    text: caption,
                    states: &encoded.states[*text],
                    ids: tokens.ids(),
                    kinds: &tokens.kinds,
                    spans: &tokens.spans,
                })
                .collect();
            writer.append(&PairActivations {
                key: &pair.key,
                vision: &image.states[*vision],
                vision_grid: image.grid,
                captions: &captions,
                size: Some(pair.size),
                boxes: &pair.boxes,
                thumbnail: pair.thumbnail.as_deref(),
            })?;
        }
        Ok(())
    }

    /// Notes that the record before position `next` is dealt with.
    pub fn mark(&mut self, next: usize, dataset: &dyn Dataset) -> Result<(), VlmError> {
        let (skipped, truncated) = (&self.skipped[self.noted..], self.truncated);
        let state = || json!(State { next, skipped: skipped.to_vec(), truncated, learnt: dataset.learnt() });
        let mut noted = false;
        for writer in self.targets.iter_mut().filter_map(|t| t.writer.as_mut()) {
            writer.mark(|| {
                noted = true;
                state()
            })?;
        }
        if noted {
            self.noted = self.skipped.len();
        }
        Ok(())
    }

    /// Pairs of each store so far.
    pub fn pairs(&self) -> usize {
        self.targets.iter().find_map(|t| t.writer.as_ref()).map_or(0, StoreWriter::pairs)
    }

    /// Pairs in complete shards, which a failed run leaves to go on with.
    pub fn kept(&self) -> bool {
        self.targets.iter().any(|t| t.writer.as_ref().is_some_and(StoreWriter::has_complete_shard))
    }

    /// Finishes and publishes every store; their folders, and the manifest of the first.
    pub fn finish(mut self, left_out: &[Skipped]) -> Result<(Vec<PathBuf>, Manifest), VlmError> {
        let mut lines = Vec::new();
        for skipped in left_out {
            lines.extend(serde_json::to_vec(skipped).unwrap_or_default());
            lines.push(b'\n');
        }
        for target in &mut self.targets {
            if let Some(mut writer) = target.writer.take() {
                if !lines.is_empty() {
                    writer.keep(SKIPPED, lines.clone());
                }
                writer.finish()?;
            }
        }
        self.published()
    }

    /// The finished stores.
    pub fn published(self) -> Result<(Vec<PathBuf>, Manifest), VlmError> {
        let paths: Vec<PathBuf> = self.targets.iter().map(|t| t.path.clone()).collect();
        if paths.len() > 1 {
            write_list(&self.out, &paths)?;
        }
        let manifest = Manifest::read(&paths[0])?;
        Ok((paths, manifest))
    }
}

impl Target {
    /// Whether an earlier run of the same options published this store.
    fn is_complete(&self) -> bool {
        self.path.join(MANIFEST).is_file()
            && Manifest::read(&self.path).is_ok_and(|m| {
                m.provenance == self.options.provenance
                    && m.precision == self.options.precision
                    && m.pairs_per_shard.is_none_or(|n| n == self.options.pairs_per_shard)
            })
    }
}

/// Names the stores of several hooks, in order; written when all of them are there.
fn write_list(out: &Path, stores: &[PathBuf]) -> Result<(), VlmError> {
    let names: Vec<String> =
        stores.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect();
    let (path, fresh) = (out.join(LIST), out.join(".stores.json.new"));
    let text = format!("{:#}\n", json!({ "format": "lucid-sae activation stores", "stores": names }));
    let io = |e| VlmError::Data(DataError::io("write", &path, e));
    std::fs::write(&fresh, text).map_err(io)?;
    std::fs::rename(&fresh, &path).map_err(io)
}
