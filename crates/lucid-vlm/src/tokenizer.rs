//! Captions to token ids as the text tower was trained: canonical text, special tokens that survive truncation, padding to a fixed
//! length.
//!
//! **Canonical text.** CLIP's `tokenizer.json` says all there is to do. `transformers`' SigLIP tokenizer lower-cases, deletes ASCII punctuation and collapses white space before
//! the vocabulary is consulted; many `tokenizer.json` files leave that out, so it is put in front of whatever normaliser the file
//! has (doing it twice changes nothing). Files with a BPE vocabulary are SigLIP 2's, trained on lower-cased text with its
//! punctuation: only the case is changed. The names of special tokens in a caption are ordinary text.

use crate::error::VlmError;
use crate::family::Canonical;
use serde_json::{Value, json};
use std::ops::Range;
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
    /// First position whose state is kept. A start-of-text token (CLIP) stands before it: its state is the same for every caption.
    pub start: usize,
    /// Number of positions whose states are kept: content, and the first end-of-sentence token where asked for.
    pub valid: usize,
    /// [`KIND_CONTENT`] or [`KIND_EOS`] of each valid position.
    pub kinds: Vec<u8>,
    /// Byte span in the caption of each valid position, white space trimmed; `[0, 0]` for the end-of-sentence token. A token
    /// that is nothing but a word boundary has an empty span where its word starts.
    pub spans: Vec<[u32; 2]>,
    /// Whether content was cut off to fit the length.
    pub truncated: bool,
}

impl Tokens {
    /// The positions whose states are kept.
    pub fn kept(&self) -> Range<usize> {
        self.start..self.start + self.valid
    }

    /// Ids of the kept positions.
    pub fn ids(&self) -> &[u32] {
        &self.padded[self.kept()]
    }
}

/// What a text tower asks of its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextShape {
    /// Positions every caption is padded to.
    pub length: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Id to fill up with unless the tokenizer's own files say otherwise.
    pub pad: u32,
    /// Rewriting of captions.
    pub canonical: Canonical,
}

/// `tokenizer.json` with SigLIP's canonical text, truncation and padding around it.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    length: usize,
    vocabulary: usize,
    pad: u32,
    end: u32,
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

/// Name of a special token in `tokenizer_config.json`: a text or an object with one.
fn special<'a>(config: &'a Value, name: &str) -> Option<&'a str> {
    let token = config.get(name)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

impl TextTokenizer {
    /// Reads the JSON of a `tokenizer.json`, and of the `tokenizer_config.json` beside it, which names the special tokens.
    ///
    /// # Errors
    /// `E_TOKENIZER` when a file cannot be understood or the pad id is outside the vocabulary.
    pub fn parse(json: &[u8], config: Option<&[u8]>, shape: TextShape) -> Result<Self, VlmError> {
        let TextShape { length, vocabulary, pad, canonical: rewriting } = shape;
        let mut inner = Tokenizer::from_bytes(json).map_err(failed)?;
        let config: Value = match config {
            Some(json) => serde_json::from_slice(json).map_err(|e| failed(format!("tokenizer_config.json: {e}")))?,
            None => Value::Null,
        };
        let named = |name: &str| special(&config, name).and_then(|token| inner.token_to_id(token));
        let pad = named("pad_token").or_else(|| inner.get_padding().map(|p| p.pad_id)).unwrap_or(pad);
        let end = named("eos_token").unwrap_or(pad);
        if let Some(id) = [pad, end].into_iter().find(|&id| id as usize >= vocabulary) {
            return Err(VlmError::Tokenizer(format!("pad id {id} is outside the model's vocabulary of {vocabulary}")));
        }
        if rewriting == Canonical::Siglip {
            let mut steps = canonical(&inner)?;
            steps.extend(inner.get_normalizer().cloned());
            inner.with_normalizer(Some(Sequence::new(steps))).map_err(failed)?;
        }
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;
        inner.set_encode_special_tokens(true);
        Ok(Self { inner, length, vocabulary, pad, end })
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
        let end: Vec<u32> = if last == ids.len() { vec![self.end] } else { ids[last..].to_vec() };
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
        let valid = content + usize::from(keep_eos);
        let mut kinds = vec![KIND_CONTENT; content];
        kinds.resize(valid, KIND_EOS);
        let mut spans: Vec<[u32; 2]> = encoding.get_offsets()[first..first + content]
            .iter()
            .zip(&encoding.get_tokens()[first..])
            .map(|(&span, token)| trimmed(text, span, token))
            .collect();
        spans.resize(valid, [0, 0]);
        padded.resize(self.length, self.pad);
        Ok(Tokens { padded, start: first, valid, kinds, spans, truncated: content < last - first })
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

/// Words, single digits and runs of other signs, as CLIP splits a text.
const CLIP_PIECES: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The `tokenizer.json` that CLIP's `vocab.json` and `merges.txt` stand for.
///
/// # Errors
/// `E_TOKENIZER` when they are not what they should be.
pub fn clip_tokenizer(vocab: &[u8], merges: &[u8]) -> Result<Vec<u8>, VlmError> {
    let vocab: serde_json::Map<String, Value> =
        serde_json::from_slice(vocab).map_err(|e| failed(format!("vocab.json: {e}")))?;
    let merges = std::str::from_utf8(merges).map_err(|e| failed(format!("merges.txt: {e}")))?;
    let merges: Vec<&str> = merges.lines().filter(|l| !l.is_empty() && !l.starts_with("#version")).collect();
    let id = |token: &str| {
        let id = vocab.get(token).and_then(Value::as_u64);
        id.ok_or_else(|| failed(format!("vocab.json has no {token:?}; expected CLIP's vocabulary")))
    };
    let ends = ["<|startoftext|>", "<|endoftext|>"];
    let ids = [id(ends[0])?, id(ends[1])?];
    let added: Vec<Value> = ends
        .iter()
        .zip(ids)
        .map(|(token, id)| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
        })
        .collect();
    let file = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": CLIP_PIECES }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": { "type": "RobertaProcessing", "sep": [ends[1], ids[1]], "cls": [ends[0], ids[0]],
            "trim_offsets": false, "add_prefix_space": false },
        "model": { "type": "BPE", "unk_token": ends[1], "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "vocab": vocab, "merges": merges },
    });
    serde_json::to_vec(&file).map_err(failed)
}
