//! Runs Algorithm 1 over a set of pairs and gathers the atlas.
//!
//! Two passes: the first finds what every latent and concept shows best, the words, and where the threshold lies; the
//! second counts hits. Codes are kept between them as far as `cacheBytes` allows and made again otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lucid_data::progress::Observer;
use lucid_data::store::{AnnotatedSource, KIND_CONTENT};
use lucid_kernels::Modality;
use rayon::prelude::*;

use crate::algorithm1::library::{ConceptStates, Library};
use crate::algorithm1::matching::{ImageIndex, Peak, peaks};
use crate::algorithm1::null::{Null, Samples};
use crate::algorithm1::threshold::{Calibrated, Cut, Histogram, Side};
use crate::atlas::format::FalseDiscovery;
use crate::atlas::format::{FORMAT, FORMAT_VERSION, Histograms};
use crate::atlas::{
    Atlas, AtlasConcept, AtlasImage, AtlasIndex, ConceptLatent, Hit, InterpretOptions, ModelShape, StoreOrigin,
};
use crate::coder::{Coder, SparseCodes, check_widths};
use crate::error::{InterpretError, Result};
use crate::metrics::activity::{Activity, Strengths};
use crate::naming::{HitCounts, name_latents};
use crate::pairs::read_states;
use crate::top_images::TopImages;
use crate::word_activity::WordActivity;

/// Pairs in memory at once.
const BATCH: usize = 16;
/// Of the draws that a false-discovery rate is calibrated with.
const NULL_SEED: u64 = 1;

/// Interprets the shared latents of a model on the pictures and captions of a source (spec 7).
///
/// # Errors
/// `E_SHAPE` where model, source and concepts do not fit, `E_OPTION`, `E_NON_FINITE`, `E_CANCELLED`.
pub fn interpret(
    coder: &dyn Coder,
    source: &dyn AnnotatedSource,
    concepts: &ConceptStates,
    options: &InterpretOptions,
    observer: &dyn Observer,
) -> Result<Atlas> {
    options.check()?;
    check_widths(coder, source.d_vision(), source.d_text())?;
    let library = Library::new(coder, concepts, options.idf)?;
    let pairs = options.max_images.map_or(source.pairs(), |limit| limit.min(source.pairs()));
    let mut run = Run { coder, source, options, library: &library, pairs, observer, cache: HashMap::new(), cached: 0 };
    let shown = run.look()?;
    let calibrated = match options.fdr {
        None => None,
        Some(fdr) => Some(run.calibrate(&shown, fdr)?),
    };
    let threshold = options.threshold.or(calibrated.map(|found| found.threshold));
    let hits = run.count_hits(&shown.histogram, threshold)?;
    let mut atlas = run.gather(concepts, shown, hits)?;
    if let (Some(target), Some(found)) = (options.fdr, calibrated) {
        let Calibrated { threshold, above, above_by_chance } = found;
        atlas.index.false_discovery = Some(FalseDiscovery { target, above, above_by_chance });
        // JSON has no infinity: no score is above the largest number either.
        atlas.index.threshold = Some(threshold.min(f64::MAX));
    }
    Ok(atlas)
}

/// What the first pass found.
struct Shown {
    vision: Activity,
    text: Activity,
    strengths: [Strengths; 2],
    /// Gathered for a false-discovery rate only.
    samples: Samples,
    words: WordActivity,
    latents: Vec<TopImages>,
    concepts: Vec<TopImages>,
    histogram: Histogram,
}

struct Run<'a> {
    coder: &'a dyn Coder,
    source: &'a dyn AnnotatedSource,
    options: &'a InterpretOptions,
    library: &'a Library,
    pairs: usize,
    observer: &'a dyn Observer,
    /// Shared codes of images, as many as fit.
    cache: HashMap<usize, SparseCodes>,
    cached: usize,
}

impl Run<'_> {
    fn encode(&self, pair: usize, modality: Modality) -> Result<SparseCodes> {
        self.coder.encode(&read_states(self.source, pair, modality)?, modality)
    }

    fn image_index(&self, pair: usize) -> Result<ImageIndex> {
        match self.cache.get(&pair) {
            Some(codes) => Ok(ImageIndex::new(codes)),
            None => Ok(ImageIndex::new(&self.encode(pair, Modality::Vision)?)),
        }
    }

    /// Calls `work` on every pair in parallel and `merge` on the results in the order of pairs.
    fn for_pairs<T: Send>(
        &mut self,
        pass: u64,
        work: impl Fn(&Self, usize) -> Result<T> + Sync,
        mut merge: impl FnMut(&mut Self, usize, T),
    ) -> Result<()> {
        for start in (0..self.pairs).step_by(BATCH) {
            if self.observer.cancelled() {
                return Err(InterpretError::Cancelled { stage: "interpret" });
            }
            let end = (start + BATCH).min(self.pairs);
            let this = &*self;
            let results: Vec<Result<T>> = (start..end).into_par_iter().map(|pair| work(this, pair)).collect();
            for (pair, result) in (start..end).zip(results) {
                merge(self, pair, result?);
            }
            self.observer.progress("interpret", pass * self.pairs as u64 + end as u64, 2 * self.pairs as u64);
        }
        Ok(())
    }

    /// First pass: the best pictures of everything, words, densities, and the distribution of peak scores.
    fn look(&mut self) -> Result<Shown> {
        let activity = Activity::new(self.coder.d_shared(), self.coder.latents());
        let top = TopImages::new(self.options.top_images);
        let mut shown = Shown {
            vision: activity.clone(),
            text: activity,
            strengths: [Strengths::new(self.coder.d_shared()), Strengths::new(self.coder.d_shared())],
            samples: Samples::new(self.coder.d_shared(), NULL_SEED),
            words: WordActivity::default(),
            latents: vec![top.clone(); self.coder.d_shared()],
            concepts: vec![top; self.library.codes.len()],
            histogram: Histogram::default(),
        };
        let work = |run: &Self, pair: usize| {
            let vision = run.encode(pair, Modality::Vision)?;
            let text = run.encode(pair, Modality::Text)?;
            let found = peaks(&ImageIndex::new(&vision), run.library);
            Ok((vision, text, found))
        };
        self.for_pairs(0, work, |run, pair, (vision, text, found): (SparseCodes, SparseCodes, Vec<Peak>)| {
            shown.vision.add(&vision);
            shown.text.add(&text);
            shown.strengths[0].add(&vision);
            if run.options.fdr.is_some() {
                shown.samples.add(&vision);
            }
            shown.strengths[1].add(&text);
            run.add_words(&mut shown.words, pair, &text);
            for (latent, (patch, value)) in strongest_patches(&vision) {
                shown.latents[latent as usize].offer(f64::from(value), pair, patch, latent);
            }
            for peak in &found {
                shown.histogram.add(peak.confidence);
                shown.concepts[peak.concept as usize].offer(peak.confidence, pair, peak.patch, peak.latent);
            }
            let codes = vision.shared_only();
            if run.cached + codes.bytes() <= run.options.cache_bytes {
                run.cached += codes.bytes();
                run.cache.insert(pair, codes);
            }
        })?;
        Ok(shown)
    }

    fn add_words(&self, words: &mut WordActivity, pair: usize, text: &SparseCodes) {
        let Some(caption) = self.source.info(pair).captions.first() else { return };
        let tokens = self.source.text_tokens(pair, 0);
        for token in (0..text.len()).filter(|&j| tokens.kinds[j] == KIND_CONTENT) {
            if let Some(word) = crate::words::word_at(caption, tokens.spans[token]) {
                words.add(word, text.shared(token).iter());
            }
        }
    }

    /// Between the passes, for a false-discovery rate: peak scores of images of chance.
    fn calibrate(&mut self, shown: &Shown, fdr: f64) -> Result<Calibrated> {
        let density = shown.vision.shared_density();
        let null = Null::new(&density, &shown.samples, NULL_SEED);
        let mut chance = Histogram::default();
        let work =
            |run: &Self, pair: usize| Ok(peaks(&null.index(pair as u64, run.source.vision_len(pair)), run.library));
        self.for_pairs(1, work, |_, _, found: Vec<Peak>| {
            found.iter().for_each(|peak| chance.add(peak.confidence));
        })?;
        Ok(shown.histogram.calibrate(&chance, fdr))
    }

    /// Second pass: which (image, concept) pairs exceed the threshold, and which latents they choose.
    fn count_hits(&mut self, histogram: &Histogram, given: Option<f64>) -> Result<HitCounts> {
        let cut: Option<Cut> = match given {
            Some(_) => None,
            None => histogram.cut(self.options.quantile),
        };
        let mut counts = HitCounts::new(self.coder.d_shared());
        let mut near: Vec<Peak> = Vec::new();
        let work = |run: &Self, pair: usize| Ok(peaks(&run.image_index(pair)?, run.library));
        self.for_pairs(1, work, |_, _, found: Vec<Peak>| {
            for peak in found {
                let side = match (given, cut) {
                    (Some(threshold), _) if peak.confidence > threshold => Side::Above,
                    (None, Some(cut)) => cut.side(peak.confidence),
                    _ => Side::Below,
                };
                match side {
                    Side::Above => counts.add(&peak),
                    Side::Near => near.push(peak),
                    Side::Below => {}
                }
            }
        })?;
        counts.threshold =
            given.or_else(|| cut.map(|cut| cut.value(near.iter().map(|peak| peak.confidence).collect())));
        if let Some(threshold) = counts.threshold {
            near.iter().filter(|peak| peak.confidence > threshold).for_each(|peak| counts.add(peak));
        }
        Ok(counts)
    }

    /// Puts the atlas together: pictures, heat maps, names.
    fn gather(&self, concepts: &ConceptStates, shown: Shown, counts: HitCounts) -> Result<Atlas> {
        let lists = || shown.latents.iter().chain(&shown.concepts);
        let used: BTreeSet<usize> = lists().flat_map(|top| top.entries()).map(|entry| entry.pair).collect();
        let position: HashMap<usize, usize> = used.iter().enumerate().map(|(at, &pair)| (pair, at)).collect();

        // Maps lie in the order of the lists, latents first; they are filled image by image.
        let mut next_map = 0;
        let mut wanted: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        let mut hits_of = |list: usize, top: &TopImages| -> Vec<Hit> {
            let mut hits = Vec::new();
            for entry in top.entries() {
                let columns = self.source.info(entry.pair).vision_grid[1].max(1);
                let map = next_map;
                next_map += self.source.vision_len(entry.pair);
                wanted.entry(entry.pair).or_default().push((list, map));
                let peak = [entry.patch / columns, entry.patch % columns];
                hits.push(Hit { image: position[&entry.pair], peak, value: entry.value, latent: entry.latent, map });
            }
            hits
        };
        let images_of: Vec<Vec<Hit>> = lists().enumerate().map(|(list, top)| hits_of(list, top)).collect();
        let mut heat = vec![0.0f32; next_map];
        for (pair, maps) in wanted {
            let index = self.image_index(pair)?;
            for (list, map) in maps {
                let values = match list.checked_sub(shown.latents.len()) {
                    None => index.heat_of_latent(list as u32),
                    Some(concept) => {
                        index.heat_of_concept(&self.library.codes[concept], |latent| self.library.idf[latent as usize])
                    }
                };
                heat[map..map + values.len()].iter_mut().zip(values).for_each(|(to, value)| *to = value as f32);
            }
        }

        let mut thumbnails = BTreeMap::new();
        let images = used.iter().map(|&pair| self.image(pair, &mut thumbnails)).collect();
        let (of_latents, of_concepts) = images_of.split_at(shown.latents.len());
        let mut latents = name_latents(concepts, &counts, self.options);
        let densities = (shown.vision.shared_density(), shown.text.shared_density());
        let words = shown.words.by_latent(self.coder.d_shared(), self.options.top_words);
        for ((latent, images), words) in latents.iter_mut().zip(of_latents).zip(words) {
            let at = latent.latent as usize;
            latent.density = crate::atlas::Densities { vision: densities.0[at], text: densities.1[at] };
            latent.images.clone_from(images);
            latent.words = words;
            let [vision, text] = &shown.strengths;
            latent.histogram = Some(Histograms { vision: vision.of(at), text: text.of(at) });
            if latent.hits == 0 && latent.density.vision == 0.0 && latent.density.text == 0.0 {
                latent.reason = Some(crate::atlas::Reason::Dead);
            }
        }
        let concepts = (0..concepts.names.len())
            .map(|at| AtlasConcept {
                concept: at as u32,
                name: concepts.names[at].clone(),
                category: concepts.category(at).map(str::to_owned),
                hits: counts.of_concept(at as u32),
                // Kept even with topImages 0, where no picture is.
                confidence: shown.concepts[at].largest(),
                latents: self.latents_of(at, &counts),
                images: of_concepts[at].clone(),
            })
            .collect();
        let index = AtlasIndex {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            model: ModelShape { d_shared: self.coder.d_shared(), latents: self.coder.latents() },
            store: StoreOrigin { fingerprint: self.source.fingerprint(), pairs: self.pairs },
            options: self.options.clone(),
            threshold: counts.threshold,
            peaks: shown.histogram.count(),
            false_discovery: None,
            images,
            latents,
            concepts,
        };
        Ok(Atlas { index, heat, thumbnails })
    }

    fn image(&self, pair: usize, thumbnails: &mut BTreeMap<String, Vec<u8>>) -> AtlasImage {
        let info = self.source.info(pair);
        let file = self.source.thumbnail(pair).map(|jpeg| {
            let file = format!("images/{pair:05}.jpg");
            thumbnails.insert(file.clone(), jpeg.to_vec());
            file
        });
        AtlasImage {
            pair,
            key: info.key.clone(),
            file,
            caption: info.captions.first().cloned().unwrap_or_default(),
            captions: info.captions.clone(),
            grid: info.vision_grid,
            size: info.size,
        }
    }

    fn latents_of(&self, concept: usize, counts: &HitCounts) -> Vec<ConceptLatent> {
        let mut latents: Vec<ConceptLatent> = self.library.codes[concept]
            .iter()
            .map(|&(latent, weight)| ConceptLatent {
                latent,
                hits: counts.of(latent, concept as u32),
                weight,
                idf: self.library.idf[latent as usize],
            })
            .filter(|entry| entry.idf > 0.0)
            .collect();
        let score = |entry: &ConceptLatent| entry.weight * entry.idf;
        latents.sort_by(|a, b| b.hits.cmp(&a.hits).then(score(b).total_cmp(&score(a))).then(a.latent.cmp(&b.latent)));
        latents
    }
}

/// For every shared latent that fires in an image its hottest patch, ties to the first.
fn strongest_patches(vision: &SparseCodes) -> BTreeMap<u32, (u32, f32)> {
    let mut strongest: BTreeMap<u32, (u32, f32)> = BTreeMap::new();
    for patch in 0..vision.len() {
        for (latent, value) in vision.shared(patch).iter() {
            let best = strongest.entry(latent).or_insert((patch as u32, value));
            if value > best.1 {
                *best = (patch as u32, value);
            }
        }
    }
    strongest
}
