//! Libraries of concepts: lists from TypeScript, files, and the default one.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Failure;

/// A concept with other names for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Concept {
    /// What it is called.
    pub name: String,
    /// Its category, if any.
    pub category: Option<String>,
    /// Other names; its code is the mean over the tokens of all of them.
    pub synonyms: Vec<String>,
}

/// Concepts in order.
pub type Library = Vec<Concept>;

impl Concept {
    /// A concept of one name.
    pub fn new(name: impl Into<String>, category: Option<&str>) -> Self {
        Self { name: name.into(), category: category.map(str::to_owned), synonyms: Vec::new() }
    }
}

/// A concept as it is given.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum ConceptInput {
    /// Its name alone.
    Name(String),
    /// An object.
    Full(Full),
}

/// A concept as an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Full {
    name: String,
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    synonyms: Vec<String>,
}

/// What `interpret` takes as concepts.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Concepts {
    /// `default`, `library`, `captions`, or a file.
    Named(String),
    /// A list.
    List(Vec<ConceptInput>),
}

impl From<ConceptInput> for Concept {
    fn from(input: ConceptInput) -> Self {
        match input {
            ConceptInput::Name(name) => Self::new(name, None),
            ConceptInput::Full(Full { name, category, synonyms }) => Self { name, category, synonyms },
        }
    }
}

/// The concepts of a list.
pub fn named(inputs: Vec<ConceptInput>) -> std::result::Result<Library, Failure> {
    let library: Library = inputs.into_iter().map(Concept::from).collect();
    match library.iter().position(|concept| concept.name.trim().is_empty()) {
        Some(at) => Err(Failure::option("concepts", format!("entry {at} without a name"), "a name for each")),
        None => Ok(library),
    }
}

fn bad_line(file: &Path, line: usize, found: &str, expected: &str) -> Failure {
    Failure::new(
        "E_CONCEPTS",
        format!("{}, line {line}: {found}; expected {expected}", file.display()),
        Some("docs/concepts.md says what each kind of file holds".into()),
        json!({ "option": "concepts", "file": file, "line": line, "found": found, "expected": expected }),
    )
}

/// Reads a file: `.json` a list, `.jsonl` an object a line, `.tsv` name, category and synonyms (bars between them), any other a
/// name a line, perhaps with a category behind a tab.
pub fn read_concepts(file: &Path) -> std::result::Result<Library, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(
            "E_IO",
            format!("cannot read the concepts {}: {error}", file.display()),
            Some("give a list of words, a .txt, .tsv, .json or .jsonl file, 'default', 'library' or 'captions'".into()),
            json!({ "option": "concepts", "file": file, "found": error.to_string() }),
        )
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let kind = file.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_lowercase();
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let library: Library = match kind.as_str() {
        "json" => {
            let inputs: Vec<ConceptInput> = serde_json::from_str(text).map_err(|error| {
                bad_line(file, error.line(), &error.to_string(), "a list of names or of { name, category?, synonyms? }")
            })?;
            inputs.into_iter().map(Concept::from).collect()
        }
        "jsonl" => lines()
            .map(|(at, line)| {
                let value: Value =
                    serde_json::from_str(line).map_err(|error| bad_line(file, at + 1, &error.to_string(), "JSON"))?;
                let input: ConceptInput = serde_json::from_value(value).map_err(|_| {
                    bad_line(file, at + 1, line.trim(), "a name, or { name, category?, synonyms? } and no other field")
                })?;
                Ok(Concept::from(input))
            })
            .collect::<std::result::Result<_, Failure>>()?,
        _ => lines()
            .map(|(at, line)| {
                let mut cells = line.split('\t').map(str::trim);
                let name = cells.next().unwrap_or_default().to_owned();
                let category = cells.next().filter(|category| !category.is_empty()).map(str::to_owned);
                let synonyms = cells.next().unwrap_or_default().split('|').map(str::trim);
                let synonyms = synonyms.filter(|synonym| !synonym.is_empty()).map(str::to_owned).collect();
                match cells.next() {
                    None => Ok(Concept { name, category, synonyms }),
                    Some(_) => {
                        Err(bad_line(file, at + 1, line.trim(), "name, category and synonyms, tabs between them"))
                    }
                }
            })
            .collect::<std::result::Result<_, Failure>>()?,
    };
    let mut seen = HashSet::new();
    for (at, concept) in library.iter().enumerate() {
        if concept.name.trim().is_empty() {
            return Err(bad_line(file, at + 1, "no name", "a name"));
        }
        if !seen.insert(&concept.name) {
            return Err(bad_line(file, at + 1, &format!("{:?} a second time", concept.name), "every concept once"));
        }
    }
    if library.is_empty() {
        return Err(bad_line(file, 1, "nothing", "at least one concept"));
    }
    Ok(library)
}

/// The default library, in the order of its file.
pub fn default_library() -> Library {
    lucid_interpret::algorithm1::concepts::default_concepts()
        .into_iter()
        .map(|concept| Concept {
            name: concept.name.to_owned(),
            category: Some(concept.category.to_owned()),
            synonyms: concept.synonyms.into_iter().map(str::to_owned).collect(),
        })
        .collect()
}
