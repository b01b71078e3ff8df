//! Which files of a repository make a backbone.

use crate::error::VlmError;
use crate::hub::name::Repo;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Shape of the model in transformers' layout.
pub(super) const CONFIG: &str = "config.json";
/// How pictures become pixels; a repository may do without.
pub(super) const PREPROCESSOR: &str = "preprocessor_config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const OPEN_CLIP: [&str; 2] = ["open_clip_config.json", "open_clip_model.safetensors"];
const TOKENIZER: &str = "tokenizer.json";
/// What a tokenizer is made from where there is no `tokenizer.json`, best first.
const TOKENIZER_SOURCES: [&[&str]; 2] = [&["vocab.json", "merges.txt"], &["spiece.model"]];
const TOKENIZER_MORE: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
/// Endings of files that are pickles.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];
/// Longest name of a file in bytes.
const MAX_NAME: usize = 512;

/// The files of a backbone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Choice {
    /// All files whose names are known from the listing.
    pub files: Vec<String>,
    /// The one of them that names the shards of the weights, where they are in shards.
    pub index: Option<String>,
}

/// A name that stays inside the folder it is joined to, on every system.
pub(super) fn is_plain(file: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with("..")
            && part != "."
            && !part.chars().any(|c| c.is_control() || matches!(c, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*'))
            && !part.ends_with(['.', ' '])
    };
    file.len() <= MAX_NAME && file.split('/').all(part)
}

/// Chooses among the files of a repository; `at` names it in messages.
pub(super) fn choose(listed: &BTreeSet<String>, repo: &Repo) -> Result<Choice, VlmError> {
    let has = |file: &str| listed.contains(file);
    let refuse = |found: String, expected: &str, fix: String| {
        Err(VlmError::Name { name: repo.full(), found, expected: expected.into(), fix })
    };
    let mut choice = Choice::default();
    let mut take = |file: &str| choice.files.push(file.to_owned());
    let open_clip = OPEN_CLIP.iter().all(|file| has(file));
    if has(CONFIG) && has(WEIGHTS) {
        [CONFIG, WEIGHTS].into_iter().for_each(&mut take);
    } else if has(CONFIG) && has(INDEX) {
        [CONFIG, INDEX].into_iter().for_each(&mut take);
        choice.index = Some(INDEX.into());
    } else if open_clip {
        OPEN_CLIP.into_iter().for_each(&mut take);
    } else {
        let expected = "config.json and model.safetensors (or its index and shards), or open_clip_config.json and \
            open_clip_model.safetensors";
        let pickles: Vec<&str> =
            listed.iter().map(String::as_str).filter(|f| PICKLES.iter().any(|end| f.ends_with(end))).collect();
        if !pickles.is_empty() && !listed.iter().any(|f| f.ends_with(".safetensors")) {
            let found =
                format!("its weights are only there as pickles ({}), and a pickle can run code", some(&pickles));
            let fix = format!(
                "convert it where you trust it, with transformers: `AutoModel.from_pretrained('{0}').save_pretrained(folder, \
                 safe_serialization=True)`, and give the folder; or look for a revision with safetensors at {0} (its pull \
                 requests often hold one: @refs/pr/N)",
                repo.id
            );
            return refuse(found, expected, fix);
        }
        let all: Vec<&str> = listed.iter().map(String::as_str).collect();
        let found = if all.is_empty() { "holds no file".into() } else { format!("holds {}", some(&all)) };
        return refuse(
            found,
            expected,
            "name the repository of a vision-language model in one of these layouts".into(),
        );
    }
    if open_clip && choice.files[0] == OPEN_CLIP[0] && has(CONFIG) {
        choice.files.push(CONFIG.into());
    }
    if has(TOKENIZER) {
        choice.files.push(TOKENIZER.into());
        choice.files.extend(TOKENIZER_MORE[..1].iter().filter(|f| has(f)).map(ToString::to_string));
    } else if let Some(sources) = TOKENIZER_SOURCES.iter().find(|sources| sources.iter().all(|f| has(f))) {
        choice.files.extend(sources.iter().map(ToString::to_string));
        choice.files.extend(TOKENIZER_MORE.iter().filter(|f| has(f)).map(ToString::to_string));
    } else if choice.files[0] == CONFIG {
        return refuse(
            "holds no tokenizer".into(),
            "tokenizer.json, vocab.json with merges.txt, or spiece.model",
            "name a model with a text tower; save its tokenizer beside it with `save_pretrained`".into(),
        );
    }
    if has(PREPROCESSOR) {
        choice.files.push(PREPROCESSOR.into());
    }
    Ok(choice)
}

/// The first few of some names.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The shards that an index names, each once.
pub(super) fn shards(index: &[u8], file: &str) -> Result<BTreeSet<String>, VlmError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let failed = |reason: String| VlmError::File { file: file.into(), reason };
    let index: Index = serde_json::from_slice(index).map_err(|e| failed(format!("not an index of shards: {e}")))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    match shards.iter().find(|shard| !is_plain(shard) || !shard.ends_with(".safetensors")) {
        Some(shard) => Err(failed(format!("names the shard {shard:?}, expected a .safetensors file beside it"))),
        None if shards.is_empty() => Err(failed("names no shard".into())),
        None => Ok(shards),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(files: &[&str]) -> Result<Choice, VlmError> {
        let repo = Repo { id: "o/n".into(), revision: "main".into() };
        choose(&files.iter().map(ToString::to_string).collect(), &repo)
    }

    #[test]
    fn each_layout_has_its_files() {
        let siglip = ["config.json", "model.safetensors", "preprocessor_config.json", "spiece.model", "tokenizer.json"];
        let more = ["README.md", "pytorch_model.bin", "special_tokens_map.json", "tokenizer_config.json"];
        let all: Vec<&str> = siglip.into_iter().chain(more).collect();
        let chosen = choice(&all).unwrap();
        let expected =
            ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"];
        assert_eq!((chosen.files, chosen.index), (expected.map(String::from).to_vec(), None));

        let shards = choice(&["config.json", "model.safetensors.index.json", "vocab.json", "merges.txt"]).unwrap();
        assert_eq!(shards.index.as_deref(), Some("model.safetensors.index.json"));
        assert_eq!(shards.files[2..], ["vocab.json", "merges.txt"]);

        let open =
            choice(&["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json", "x.bin"]).unwrap();
        assert_eq!(open.files, ["open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (files, part) in [
            (&[][..], "holds no file"),
            (&["README.md"], "holds README.md"),
            (&["config.json", "model.safetensors"], "no tokenizer"),
            (&["config.json", "pytorch_model.bin", "tokenizer.json"], "a pickle can run code"),
            (&["open_clip_config.json", "open_clip_pytorch_model.bin"], "a pickle can run code"),
        ] {
            let error = choice(files).unwrap_err();
            assert_eq!(error.code(), "E_BACKBONE");
            assert!(error.to_string().contains(part) && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn names_stay_inside_their_folder() {
        for good in ["config.json", "a/b.txt", "model-00001-of-00002.safetensors", ".gitattributes"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/", "C:\\x", "a\\..\\b", "x\0", ".", "a/.", "x. "] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn an_index_names_its_shards_once() {
        let index = br#"{ "metadata": {}, "weight_map": { "a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors" } }"#;
        assert_eq!(shards(index, "i").unwrap().into_iter().collect::<Vec<_>>(), ["m-1.safetensors", "m-2.safetensors"]);
        for bad in [
            "{}",
            r#"{ "weight_map": {} }"#,
            r#"{ "weight_map": { "a": "../x.safetensors" } }"#,
            r#"{ "weight_map": { "a": "x.bin" } }"#,
        ] {
            assert_eq!(shards(bad.as_bytes(), "i").unwrap_err().code(), "E_BACKBONE");
        }
    }
}
