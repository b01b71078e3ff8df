//! Questions to an atlas: labels, latents of a concept, heat maps, search.

use serde::{Deserialize, Serialize};

use super::Atlas;
use super::format::{AtlasConcept, AtlasLatent, ConceptLatent, Hit};
use crate::algorithm1::matching::ImageIndex;
use crate::coder::Coder;
use crate::error::{InterpretError, Result};
use crate::pairs::read_states;
use lucid_data::store::ActivationSource;
use lucid_kernels::Modality;

/// Results that a search gives at most.
const SEARCH_LIMIT: usize = 50;

/// What a heat map is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeatmapOf {
    /// A concept, by its text.
    Concept(String),
    /// A shared latent.
    Latent(u32),
}

/// Which image: its position in the store, or its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageRef {
    /// Position in the store.
    Pair(usize),
    /// File name or key.
    Key(String),
}

/// A heat map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heatmap {
    /// Position of the image in the store.
    pub pair: usize,
    /// Its file name or key.
    pub key: String,
    /// Rows and columns.
    pub grid: [u32; 2],
    /// Values ≥ 0, row-major.
    pub values: Vec<f32>,
    /// Row and column of the hottest patch, ties to the first.
    pub peak: [u32; 2],
    /// Its value.
    pub value: f64,
}

impl Heatmap {
    fn of(pair: usize, key: &str, grid: [u32; 2], values: Vec<f32>) -> Self {
        let hottest = (0..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best });
        let value = values.get(hottest).copied().map_or(0.0, f64::from);
        let columns = grid[1].max(1);
        Self {
            pair,
            key: key.to_owned(),
            grid,
            values,
            peak: [hottest as u32 / columns, hottest as u32 % columns],
            value,
        }
    }
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FoundKind {
    /// `concepts[index]`.
    Concept,
    /// `latents[index]`.
    Latent,
    /// `images[index]`.
    Image,
}

/// One result of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// Of what list.
    pub kind: FoundKind,
    /// Position in that list.
    pub index: usize,
    /// Its name, label or caption; a latent without a label has its first word or number.
    pub text: String,
    /// Larger is better; only the order means something.
    pub score: f64,
}

impl Atlas {
    fn latent(&self, latent: u32) -> Result<&AtlasLatent> {
        self.index.latents.get(latent as usize).ok_or_else(|| {
            InterpretError::option("latent", latent, format!("a shared latent, below {}", self.index.latents.len()))
        })
    }

    fn concept(&self, name: &str) -> Result<&AtlasConcept> {
        let concepts = &self.index.concepts;
        concepts.iter().find(|concept| concept.name == name).ok_or_else(|| {
            InterpretError::unknown("concept", name, concepts.iter().map(|concept| concept.name.as_str()))
        })
    }

    /// The label of a shared latent; none where the evidence is too thin (`reason` says why).
    ///
    /// # Errors
    /// `E_OPTION` where there is no such latent.
    pub fn label(&self, latent: u32) -> Result<Option<&str>> {
        Ok(self.latent(latent)?.label.as_deref())
    }

    /// The latents that carry a concept, most hits first.
    ///
    /// # Errors
    /// `E_UNKNOWN_OPTION` where there is no such concept.
    pub fn latents_for(&self, concept: &str) -> Result<&[ConceptLatent]> {
        Ok(&self.concept(concept)?.latents)
    }

    /// The stored heat map of a latent or concept on one of its pictures.
    ///
    /// # Errors
    /// `E_NOT_IN_ATLAS` where that picture is not among those kept for it; [`Atlas::compute_heatmap`] then makes it
    /// from the model. `E_OPTION`, `E_UNKNOWN_OPTION`.
    pub fn heatmap(&self, of: &HeatmapOf, image: &ImageRef) -> Result<Heatmap> {
        let hits: &[Hit] = match of {
            HeatmapOf::Concept(name) => &self.concept(name)?.images,
            HeatmapOf::Latent(latent) => &self.latent(*latent)?.images,
        };
        let wanted = |hit: &&Hit| {
            let shown = &self.index.images[hit.image];
            match image {
                ImageRef::Pair(pair) => shown.pair == *pair,
                ImageRef::Key(key) => shown.key == *key,
            }
        };
        let Some(hit) = hits.iter().find(wanted) else {
            let what = match (of, image) {
                (HeatmapOf::Concept(name), ImageRef::Pair(pair)) => format!("the heat map of '{name}' on image {pair}"),
                (HeatmapOf::Concept(name), ImageRef::Key(key)) => format!("the heat map of '{name}' on image '{key}'"),
                (HeatmapOf::Latent(latent), ImageRef::Pair(pair)) => {
                    format!("the heat map of latent {latent} on image {pair}")
                }
                (HeatmapOf::Latent(latent), ImageRef::Key(key)) => {
                    format!("the heat map of latent {latent} on image '{key}'")
                }
            };
            let pairs: Vec<String> = hits.iter().map(|hit| self.index.images[hit.image].pair.to_string()).collect();
            let kept = if pairs.is_empty() {
                "it shows on no image".into()
            } else {
                format!("it keeps images {}", pairs.join(", "))
            };
            return Err(InterpretError::NotInAtlas { what, reason: kept });
        };
        let shown = &self.index.images[hit.image];
        let cells = shown.grid[0] as usize * shown.grid[1] as usize;
        let values = self.heat[hit.map..hit.map + cells].to_vec();
        Ok(Heatmap::of(shown.pair, &shown.key, shown.grid, values))
    }

    /// The heat map of a latent or concept on any pair of a source, made from the model.
    ///
    /// # Errors
    /// `E_OPTION` where there is no such pair or latent, `E_UNKNOWN_OPTION` where there is no such concept, `E_SHAPE`
    /// where the model or the grid does not fit.
    pub fn compute_heatmap(
        &self,
        coder: &dyn Coder,
        source: &dyn ActivationSource,
        of: &HeatmapOf,
        pair: usize,
        grid: [u32; 2],
    ) -> Result<Heatmap> {
        if pair >= source.pairs() {
            return Err(InterpretError::option(
                "image",
                pair,
                format!("a pair of the store, below {}", source.pairs()),
            ));
        }
        crate::coder::check_widths(coder, source.d_vision(), source.d_text())?;
        if coder.d_shared() != self.index.model.d_shared {
            return Err(InterpretError::shape("the model's dShared", coder.d_shared(), self.index.model.d_shared));
        }
        let cells = grid[0] as usize * grid[1] as usize;
        if cells != source.vision_len(pair) {
            return Err(InterpretError::shape(
                "the patch grid",
                format!("{cells} cells"),
                format!("{} patches", source.vision_len(pair)),
            ));
        }
        let codes = coder.encode(&read_states(source, pair, Modality::Vision)?, Modality::Vision)?;
        let index = ImageIndex::new(&codes);
        let heat = match of {
            HeatmapOf::Latent(latent) => index.heat_of_latent(self.latent(*latent)?.latent),
            HeatmapOf::Concept(name) => {
                let mut latents = self.concept(name)?.latents.clone();
                // The order of the sum that interpret takes, so that stored and computed maps have the same bits.
                latents.sort_by_key(|entry| entry.latent);
                let code: Vec<(u32, f64)> = latents.iter().map(|entry| (entry.latent, entry.weight)).collect();
                let idf = |latent| latents.iter().find(|entry| entry.latent == latent).map_or(0.0, |entry| entry.idf);
                index.heat_of_concept(&code, idf)
            }
        };
        Ok(Heatmap::of(pair, source.key(pair), grid, heat.into_iter().map(|value| value as f32).collect()))
    }

    /// Finds concepts, latents and images by the words of `text`, best first, at most fifty. Every word counts where it
    /// is, or begins, a word of a name, label, term, caption word or caption.
    #[must_use]
    pub fn search(&self, text: &str) -> Vec<SearchResult> {
        let wanted: Vec<String> = crate::words::words(text).map(|[a, b]| text[a..b].to_lowercase()).collect();
        let mut results = Vec::new();
        let mut add = |kind, index, text: String, fields: &[(f64, &str)]| {
            let score: f64 = wanted.iter().map(|word| best_match(word, fields)).sum();
            if score > 0.0 {
                results.push(SearchResult { kind, index, text, score: score / wanted.len() as f64 });
            }
        };
        for (index, concept) in self.index.concepts.iter().enumerate() {
            let category = concept.category.as_deref().unwrap_or("");
            add(FoundKind::Concept, index, concept.name.clone(), &[(4.0, &concept.name), (1.0, category)]);
        }
        for (index, latent) in self.index.latents.iter().enumerate() {
            let label = latent.label.as_deref().unwrap_or("");
            let terms = latent.top_terms.iter().map(|term| (2.0, term.term.as_str()));
            let words = latent.words.iter().map(|word| (word.share, word.word.as_str()));
            let fields: Vec<(f64, &str)> = std::iter::once((3.0, label)).chain(terms).chain(words).collect();
            let shown = match (&latent.label, latent.words.first()) {
                (Some(label), _) => label.clone(),
                (None, Some(word)) => word.word.clone(),
                (None, None) => latent.latent.to_string(),
            };
            add(FoundKind::Latent, index, shown, &fields);
        }
        for (index, image) in self.index.images.iter().enumerate() {
            let captions = image.captions.iter().map(|caption| (1.0, caption.as_str()));
            let fields: Vec<(f64, &str)> = std::iter::once((1.0, image.key.as_str())).chain(captions).collect();
            add(FoundKind::Image, index, image.caption.clone(), &fields);
        }
        results.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.kind.cmp(&b.kind)).then(a.index.cmp(&b.index)));
        results.truncate(SEARCH_LIMIT);
        results
    }
}

/// The best of the fields that hold a word: its weight for the whole word, half of it for a beginning.
fn best_match(wanted: &str, fields: &[(f64, &str)]) -> f64 {
    let in_field = |&(weight, text): &(f64, &str)| {
        let text = text.to_lowercase();
        crate::words::words(&text)
            .map(|[a, b]| match &text[a..b] {
                word if word == wanted => weight,
                word if word.starts_with(wanted) => weight / 2.0,
                _ => 0.0,
            })
            .fold(0.0, f64::max)
    };
    fields.iter().map(in_field).fold(0.0, f64::max)
}
