//! The mini backbone's tokenizer: one id for every word of the scenes' vocabulary, in the `tokenizers` file format.

use lucid_data::scenes::vocabulary;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Ends a caption and fills it up: pad = eos, as in SigLIP.
pub const END: u32 = 1;
/// Stands for every word outside the vocabulary.
pub const UNKNOWN: u32 = 2;
/// Id of the first word; 0 is left unused, as in SigLIP's vocabulary.
pub const FIRST_WORD: u32 = 3;

/// Number of ids.
pub fn vocab_size() -> usize {
    FIRST_WORD as usize + vocabulary().len()
}

fn ids() -> &'static HashMap<&'static str, u32> {
    static IDS: OnceLock<HashMap<&'static str, u32>> = OnceLock::new();
    IDS.get_or_init(|| vocabulary().iter().zip(FIRST_WORD..).map(|(w, id)| (*w, id)).collect())
}

/// The words that name a concept. Those of the sentence's frame and generic nouns do not.
pub mod naming_words {
    use super::FIRST_WORD;
    use lucid_data::scenes::all_concepts;
    use std::sync::OnceLock;

    /// How many there are: they come first in the vocabulary.
    pub fn count() -> usize {
        static COUNT: OnceLock<usize> = OnceLock::new();
        *COUNT.get_or_init(|| all_concepts().iter().map(|c| c.words.len()).sum())
    }

    /// The number of the word with this id among them.
    pub fn number(id: u32) -> Option<u32> {
        id.checked_sub(FIRST_WORD).filter(|&n| (n as usize) < count())
    }
}

/// The ids of a caption of the scenes' grammar, ended and filled up to `length`. Equal to what [`tokenizer_json`] gives for
/// such captions, which are lower-case words separated by spaces.
pub fn caption_ids(caption: &str, length: usize) -> Vec<u32> {
    let mut out: Vec<u32> =
        caption.split_whitespace().take(length - 1).map(|w| ids().get(w).copied().unwrap_or(UNKNOWN)).collect();
    out.resize(length, END);
    out
}

/// The text of `tokenizer.json`: lower case, punctuation to spaces, whole words.
pub fn tokenizer_json() -> Value {
    let mut vocab = Map::new();
    vocab.insert("<unused>".into(), json!(0));
    vocab.insert("</s>".into(), json!(END));
    vocab.insert("<unk>".into(), json!(UNKNOWN));
    for (word, id) in vocabulary().iter().zip(FIRST_WORD..) {
        vocab.insert((*word).into(), json!(id));
    }
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    let end = |kind: u32| json!({ "SpecialToken": { "id": "</s>", "type_id": kind } });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(END, "</s>"), special(UNKNOWN, "<unk>")],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Lowercase" },
            { "type": "Replace", "pattern": { "Regex": "[!-/:-@\\[-`{-~]" }, "content": " " },
        ] },
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sequence("A", 0), end(0)],
            "pair": [sequence("A", 0), end(0), sequence("B", 1), end(1)],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [END], "tokens": ["</s>"] } },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lucid_data::scenes::{Kind, Split, scene};

    #[test]
    fn the_file_and_the_shortcut_give_the_same_ids() {
        let bytes = serde_json::to_vec(&tokenizer_json()).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
        for index in 0..200 {
            let caption = scene(9, index, Split::All, Kind::Random).caption;
            let encoding = tokenizer.encode(caption.as_str(), true).unwrap();
            let mut ids = encoding.get_ids().to_vec();
            assert!(ids.len() <= 24 && !ids.contains(&UNKNOWN) && ids.last() == Some(&END));
            for (id, &(from, to)) in ids.iter().zip(encoding.get_offsets()).take(ids.len() - 1) {
                assert_eq!(ids_of(&caption[from..to]), *id);
            }
            ids.resize(24, END);
            assert_eq!(ids, caption_ids(&caption, 24));
        }
        let foreign = tokenizer.encode("A RED, circle: zebra!", true).unwrap();
        assert_eq!(foreign.get_ids(), [ids_of("a"), ids_of("red"), ids_of("circle"), UNKNOWN, END]);
    }

    fn ids_of(word: &str) -> u32 {
        caption_ids(word, 2)[0]
    }
}
