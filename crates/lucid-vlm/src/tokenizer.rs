//! Captions to token ids, as SigLIP was trained: canonical text, an end-of-sentence token that survives truncation, padding to a
//! fixed length.
//!
//! **Canonical text.** `transformers`' SigLIP tokenizer lower-cases, deletes ASCII punctuation and collapses white space before
//! the vocabulary is consulted; many `tokenizer.json` files leave that out, so it is put in front of whatever normaliser the file
//! has (doing it twice changes nothing). Files with a BPE vocabulary are SigLIP 2's, trained on lower-cased text with its
//! punctuation: only the case is changed. The names of special tokens in a caption are ordinary text.

use crate::error::VlmError;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Replace, Sequence, Strip};
use tokenizers::{ModelWrapper, Tokenizer};

/// A token of the caption's own text.
pub const KIND_CONTENT: u8 = lucid_data::store::KIND_CONTENT;
/// The end-of-sentence token.
pub const KIND_EOS: u8 = lucid_data::store::KIND_EOS;

/// The word boundary of SentencePiece vocabularies.
const BOUNDARY: &str = "\u{2581}";

/// Everything the text tower and the activation store need to know about one caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Ids padded to the fixed length: what the text tower reads.
    pub padded: Vec<u32>,
    /// Number of leading positions whose states are kept: content, and the first end-of-sentence token where asked for.
    pub valid: usize,
    /// [`KIND_CONTENT`] or [`KIND_EOS`] of each valid position.
    pub kinds: Vec<u8>,
    /// Byte span in the caption of each valid position, white space trimmed; `[0, 0]` for the end-of-sentence token. A token
    /// that is nothing but a word boundary has an empty span where its word starts.
    pub spans: Vec<[u32; 2]>,
    /// Whether content was cut off to fit the length.
    pub truncated: bool,
}

/// `tokenizer.json` with SigLIP's canonical text, truncation and padding around it.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    length: usize,
    vocabulary: usize,
    pad: u32,
}

fn failed(error: impl std::fmt::Display) -> VlmError {
    VlmError::Tokenizer(error.to_string())
}

fn canonical(inner: &Tokenizer) -> Result<Vec<NormalizerWrapper>, VlmError> {
    let mut steps: Vec<NormalizerWrapper> = vec![Lowercase.into()];
    if !matches!(inner.get_model(), ModelWrapper::BPE(_)) {
        let regex = |r: &str| tokenizers::normalizers::replace::ReplacePattern::Regex(r.into());
        let punctuation = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"##;
        steps.push(Replace::new(regex(punctuation), "").map_err(failed)?.into());
        steps.push(Replace::new(regex(r"\s+"), " ").map_err(failed)?.into());
        steps.push(Strip::new(true, true).into());
    }
    Ok(steps)
}

impl TextTokenizer {
    /// Reads the JSON of a `tokenizer.json`. `length` is the number of positions of the text tower, `vocabulary` the rows of its
    /// embedding, `pad` the id to fill up with unless the file's own padding section says otherwise.
    ///
    /// # Errors
    /// `E_TOKENIZER` when the file cannot be understood or the pad id is outside the vocabulary.
    pub fn parse(json: &[u8], length: usize, vocabulary: usize, pad: u32) -> Result<Self, VlmError> {
        let mut inner = Tokenizer::from_bytes(json).map_err(failed)?;
        let pad = inner.get_padding().map_or(pad, |p| p.pad_id);
        if pad as usize >= vocabulary {
            return Err(VlmError::Tokenizer(format!("pad id {pad} is outside the model's vocabulary of {vocabulary}")));
        }
        let mut steps = canonical(&inner)?;
        steps.extend(inner.get_normalizer().cloned());
        inner.with_normalizer(Some(Sequence::new(steps))).map_err(failed)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;
        inner.set_encode_special_tokens(true);
        Ok(Self { inner, length, vocabulary, pad })
    }

    /// Positions every caption is padded to.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Id that fills up a caption.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The ids of a text without truncation or padding, special tokens included: `[1]` for an empty one.
    ///
    /// # Errors
    /// `E_TOKENIZER` when the vocabulary cannot express the text.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, VlmError> {
        Ok(self.inner.encode(text, true).map_err(failed)?.get_ids().to_vec())
    }

    /// Tokens of one caption. `keep_eos` counts the first end-of-sentence token as valid.
    ///
    /// # Errors
    /// `E_EMPTY_TEXT` when no token of the text's own is left, `E_TOKENIZER` for an id outside the model's vocabulary.
    pub fn encode(&self, text: &str, keep_eos: bool) -> Result<Tokens, VlmError> {
        let encoding = self.inner.encode(text, true).map_err(failed)?;
        let (ids, special) = (encoding.get_ids(), encoding.get_special_tokens_mask());
        let first = special.iter().take_while(|&&s| s == 1).count();
        let last = special.iter().rposition(|&s| s == 0).map_or(first, |i| i + 1);
        if first >= last {
            return Err(VlmError::EmptyText { found: text.into() });
        }
        // A file without a post-processor gives no end of sentence; the model was trained with one.
        let end: Vec<u32> = if last == ids.len() { vec![self.pad] } else { ids[last..].to_vec() };
        let room = self.length.saturating_sub(first + end.len());
        if room == 0 {
            return Err(VlmError::Tokenizer(format!(
                "{} special tokens leave no room in {} positions",
                first + end.len(),
                self.length
            )));
        }
        let content = (last - first).min(room);
        let mut padded: Vec<u32> = ids[..first + content].to_vec();
        padded.extend(&end);
        if let Some(id) = padded.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(VlmError::Tokenizer(format!(
                "id {id} of caption {text:?} is outside the model's vocabulary of {}",
                self.vocabulary
            )));
        }
        let own = first + content;
        let valid = own + usize::from(keep_eos);
        let mut kinds = vec![KIND_CONTENT; own];
        kinds[..first].fill(KIND_EOS);
        kinds.resize(valid, KIND_EOS);
        let mut spans: Vec<[u32; 2]> = encoding.get_offsets()[..own]
            .iter()
            .zip(encoding.get_tokens())
            .map(|(&span, token)| trimmed(text, span, token))
            .collect();
        spans.resize(valid, [0, 0]);
        padded.resize(self.length, self.pad);
        Ok(Tokens { padded, valid, kinds, spans, truncated: content < last - first })
    }
}

/// The span without the white space at its ends, which belongs to the word boundary and to no word. A lone boundary mark at the
/// start of a text is aligned with the first letter, which the next token has too: it is left with nothing.
fn trimmed(text: &str, (start, end): (usize, usize), token: &str) -> [u32; 2] {
    let Some(part) = text.get(start..end) else {
        return [0, 0];
    };
    let start = start + (part.len() - part.trim_start().len());
    let length = if token == BOUNDARY { 0 } else { part.trim().len() };
    [start as u32, (start + length) as u32]
}
