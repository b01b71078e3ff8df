//! Token ids against `transformers`, truncation, padding, kinds and spans.
#![allow(clippy::unwrap_used)]

mod common;

use lucid_vlm::family::Canonical;
use lucid_vlm::tokenizer::{KIND_CONTENT, KIND_EOS};
use lucid_vlm::{TextShape, TextTokenizer, VlmError};

fn parse(json: &[u8], length: usize, vocabulary: usize, pad: u32) -> Result<TextTokenizer, VlmError> {
    TextTokenizer::parse(json, None, TextShape { length, vocabulary, pad, canonical: Canonical::Siglip })
}

fn tokenizer(length: usize) -> TextTokenizer {
    let json = std::fs::read(common::fixture("tokenizer-unigram.json")).unwrap();
    parse(&json, length, 400, 1).unwrap()
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn cases() -> Vec<Case> {
    let json = std::fs::read(common::fixture("tokenizer-unigram.expected.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let tokenizer = tokenizer(64);
    let cases = cases();
    assert_eq!(cases.len(), 28);
    for case in cases {
        assert_eq!(tokenizer.ids(&case.text).unwrap(), case.ids, "{:?}", case.text);
    }
}

#[test]
fn the_canonical_text_does_not_depend_on_the_file_having_a_normaliser() {
    let json = std::fs::read(common::fixture("tokenizer-unigram.json")).unwrap();
    let mut file: serde_json::Value = serde_json::from_slice(&json).unwrap();
    file["normalizer"] = serde_json::Value::Null;
    let bare = parse(file.to_string().as_bytes(), 64, 400, 1).unwrap();
    for case in cases() {
        assert_eq!(bare.ids(&case.text).unwrap(), case.ids, "{:?}", case.text);
    }
}

#[test]
fn captions_are_padded_and_cut_with_the_end_of_sentence_kept() {
    let tokenizer = tokenizer(12);
    let full: Vec<u32> = tokenizer.ids("A photo of 2 cats, lying on a PINK couch!").unwrap();
    assert!(full.len() > 12);
    let cut = tokenizer.encode("A photo of 2 cats, lying on a PINK couch!", true).unwrap();
    assert_eq!(cut.padded[..11], full[..11]);
    assert_eq!((cut.padded[11], cut.valid, cut.truncated), (1, 12, true));
    let short = tokenizer.encode("a", true).unwrap();
    assert_eq!(short.padded, [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!((short.valid, short.truncated), (2, false));
    assert_eq!(short.kinds, [KIND_CONTENT, KIND_EOS]);
    let without = tokenizer.encode("a", false).unwrap();
    assert_eq!((without.valid, without.kinds, without.spans), (1, vec![KIND_CONTENT], vec![[0, 1]]));
    assert_eq!(without.padded, short.padded);
}

#[test]
fn spans_cover_the_words_of_the_caption_as_written() {
    let tokenizer = tokenizer(64);
    for text in
        ["  A PINK   couch, a kitchen!", "naïve café near THE door", "don't stop-me now…", "left\tof\nthe door."]
    {
        let tokens = tokenizer.encode(text, true).unwrap();
        let words: Vec<String> = tokens.spans[..tokens.valid - 1]
            .iter()
            .map(|&[start, end]| text[start as usize..end as usize].to_string())
            .collect();
        assert!(words.iter().all(|w| w.trim() == w), "{text:?}: {words:?}");
        // Spans run forward and, put together, hold every letter once.
        let own = &tokens.spans[..tokens.valid - 1];
        assert!(own.windows(2).all(|w| w[0][1] <= w[1][0]), "{text:?}: {own:?} {words:?}");
        let letters = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        assert_eq!(letters(&words.concat()), letters(text), "{text:?}: {words:?}");
        assert_eq!(tokens.spans[tokens.valid - 1], [0, 0]);
    }
    // "▁kitchen" is the pieces "▁kit", "che", "n": the word boundary belongs to no span.
    let tokens = tokenizer.encode("a kitchen", true).unwrap();
    assert_eq!(tokens.spans[1][0], 2);
}

#[test]
fn a_caption_without_a_token_is_refused_by_name() {
    for text in ["", "   ", "?!...", "\n\t"] {
        let error = tokenizer(16).encode(text, true).unwrap_err();
        assert_eq!(error.code(), "E_EMPTY_TEXT");
        assert_eq!(error.details()["found"], text);
        assert!(error.hint().is_some());
    }
}

#[test]
fn special_tokens_in_a_caption_are_ordinary_text() {
    let tokens = tokenizer(32).encode("a </s> b", true).unwrap();
    assert_eq!(tokens.padded[..tokens.valid - 1].iter().filter(|&&id| id == 1).count(), 0);
}

#[test]
fn a_vocabulary_larger_than_the_model_is_an_error_not_a_panic() {
    let json = std::fs::read(common::fixture("tokenizer-unigram.json")).unwrap();
    let small = parse(&json, 16, 120, 1).unwrap();
    assert_eq!(small.encode("a kitchen with white cabinets", true).unwrap_err().code(), "E_TOKENIZER");
    assert_eq!(parse(b"{}", 16, 400, 1).unwrap_err().code(), "E_TOKENIZER");
    assert_eq!(parse(&json, 16, 400, 400).unwrap_err().code(), "E_TOKENIZER");
}
