//! A store in memory: what generated sets and tests use in place of files.

use super::check::check_pair;
use super::statistics::StatisticsBuilder;
use super::{
    ActivationSource, AnnotatedSource, KIND_CONTENT, PairActivations, PairInfo, Precision, Statistics, TokenInfo,
    UNKNOWN_TOKEN,
};
use crate::error::{DataError, Result};

/// Pairs in RAM, in f32. Push pairs, then read; statistics and fingerprint follow the content.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    d_vision: usize,
    d_text: usize,
    infos: Vec<PairInfo>,
    thumbnails: Vec<Option<Vec<u8>>>,
    /// Rows of `vision` before each pair, one more entry than pairs.
    vision_offsets: Vec<usize>,
    /// Captions before each pair, one more entry than pairs.
    caption_offsets: Vec<usize>,
    /// Rows of `text` before each caption, one more entry than captions.
    text_offsets: Vec<usize>,
    vision: Vec<f32>,
    text: Vec<f32>,
    ids: Vec<u32>,
    kinds: Vec<u8>,
    spans: Vec<[u32; 2]>,
    statistics: StatisticsBuilder,
    hash: blake3::Hasher,
}

impl MemoryStore {
    /// An empty store of the given widths.
    ///
    /// # Errors
    /// `E_OPTION` where a width is 0.
    pub fn new(d_vision: usize, d_text: usize) -> Result<Self> {
        super::options::check_widths(d_vision, d_text)?;
        let mut hash = blake3::Hasher::new();
        hash.update(b"lucid-sae memory store");
        hash.update(&(d_vision as u64).to_le_bytes());
        hash.update(&(d_text as u64).to_le_bytes());
        Ok(Self {
            d_vision,
            d_text,
            infos: Vec::new(),
            thumbnails: Vec::new(),
            vision_offsets: vec![0],
            caption_offsets: vec![0],
            text_offsets: vec![0],
            vision: Vec::new(),
            text: Vec::new(),
            ids: Vec::new(),
            kinds: Vec::new(),
            spans: Vec::new(),
            statistics: StatisticsBuilder::new(d_vision, d_text),
            hash,
        })
    }

    /// Adds one pair.
    ///
    /// # Errors
    /// As [`super::StoreWriter::append`], without `E_IO`.
    pub fn push(&mut self, pair: &PairActivations) -> Result<()> {
        check_pair(pair, self.d_vision, self.d_text, Precision::F32)?;
        self.statistics.add_vision(pair.vision);
        self.statistics.add_text(pair.captions[0].states);
        self.vision.extend_from_slice(pair.vision);
        self.vision_offsets.push(self.vision.len() / self.d_vision);
        self.hash_states(pair.vision);
        for caption in pair.captions {
            let tokens = caption.states.len() / self.d_text;
            self.text.extend_from_slice(caption.states);
            self.text_offsets.push(self.text.len() / self.d_text);
            self.hash_states(caption.states);
            extend_or(&mut self.ids, caption.ids, tokens, UNKNOWN_TOKEN);
            extend_or(&mut self.kinds, caption.kinds, tokens, KIND_CONTENT);
            extend_or(&mut self.spans, caption.spans, tokens, [0, 0]);
        }
        self.caption_offsets.push(self.text_offsets.len() - 1);
        self.infos.push(info_of(pair));
        self.thumbnails.push(pair.thumbnail.map(<[u8]>::to_vec));
        Ok(())
    }

    fn hash_states(&mut self, states: &[f32]) {
        self.hash.update(&(states.len() as u64).to_le_bytes());
        self.hash.update(bytemuck::cast_slice(states));
    }

    fn text_rows(&self, pair: usize, caption: usize) -> std::ops::Range<usize> {
        assert!(caption < self.captions(pair), "caption {caption} of pair {pair} is out of range");
        let c = self.caption_offsets[pair] + caption;
        self.text_offsets[c]..self.text_offsets[c + 1]
    }

    /// The patches' states of a pair, `[vision_len · d_vision]`, without a copy.
    pub fn vision(&self, pair: usize) -> &[f32] {
        &self.vision[self.vision_offsets[pair] * self.d_vision..self.vision_offsets[pair + 1] * self.d_vision]
    }

    /// The tokens' states of a caption, `[text_len · d_text]`, without a copy.
    pub fn text(&self, pair: usize, caption: usize) -> &[f32] {
        let rows = self.text_rows(pair, caption);
        &self.text[rows.start * self.d_text..rows.end * self.d_text]
    }
}

/// The part of a pair that is kept beside its activations.
pub(super) fn info_of(pair: &PairActivations) -> PairInfo {
    PairInfo {
        key: pair.key.to_string(),
        captions: pair.captions.iter().map(|c| c.text.to_string()).collect(),
        vision_grid: pair.vision_grid,
        size: pair.size,
        boxes: pair.boxes.to_vec(),
    }
}

/// Appends `given`, or `n` times `missing` where nothing is given.
pub(super) fn extend_or<T: Copy>(to: &mut Vec<T>, given: &[T], n: usize, missing: T) {
    if given.is_empty() { to.resize(to.len() + n, missing) } else { to.extend_from_slice(given) }
}

/// Copies `from` into `to` or says which lengths differ.
pub(super) fn check_out(what: &str, pair: usize, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(DataError::shape(format!("buffer for the {what} states of pair {pair}"), format!("{found} numbers"), expected))
}

impl ActivationSource for MemoryStore {
    fn pairs(&self) -> usize {
        self.infos.len()
    }
    fn d_vision(&self) -> usize {
        self.d_vision
    }
    fn d_text(&self) -> usize {
        self.d_text
    }
    fn vision_len(&self, pair: usize) -> usize {
        self.vision_offsets[pair + 1] - self.vision_offsets[pair]
    }
    fn captions(&self, pair: usize) -> usize {
        self.caption_offsets[pair + 1] - self.caption_offsets[pair]
    }
    fn text_len(&self, pair: usize, caption: usize) -> usize {
        self.text_rows(pair, caption).len()
    }
    fn read_vision(&self, pair: usize, out: &mut [f32]) -> Result<()> {
        let states = self.vision(pair);
        check_out("vision", pair, out.len(), states.len())?;
        out.copy_from_slice(states);
        Ok(())
    }
    fn read_text(&self, pair: usize, caption: usize, out: &mut [f32]) -> Result<()> {
        let states = self.text(pair, caption);
        check_out("text", pair, out.len(), states.len())?;
        out.copy_from_slice(states);
        Ok(())
    }
    fn statistics(&self) -> Statistics {
        self.statistics.clone().finish()
    }
    fn fingerprint(&self) -> String {
        self.hash.finalize().to_hex().to_string()
    }
    fn key(&self, pair: usize) -> &str {
        &self.infos[pair].key
    }
}

impl AnnotatedSource for MemoryStore {
    fn info(&self, pair: usize) -> &PairInfo {
        &self.infos[pair]
    }
    fn text_tokens(&self, pair: usize, caption: usize) -> TokenInfo<'_> {
        let rows = self.text_rows(pair, caption);
        TokenInfo { ids: &self.ids[rows.clone()], kinds: &self.kinds[rows.clone()], spans: &self.spans[rows] }
    }
    fn thumbnail(&self, pair: usize) -> Option<&[u8]> {
        self.thumbnails[pair].as_deref()
    }
}
