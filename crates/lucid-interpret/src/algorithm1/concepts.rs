//! The default library of concepts, typed into categories (docs/concepts.md).

const FILE: &str = include_str!("../../data/concepts.txt");

/// A concept of the default library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultConcept {
    /// Its name.
    pub name: &'static str,
    /// `objects`, `stuff`, `parts`, `attributes`, `actions`, `relations`, `quantities` or `scenes`.
    pub category: &'static str,
    /// Other names.
    pub synonyms: Vec<&'static str>,
}

/// Every concept of the default library, by category.
#[must_use]
pub fn default_concepts() -> Vec<DefaultConcept> {
    let mut category = "";
    let mut found = Vec::new();
    for line in FILE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(heading) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            category = heading;
            continue;
        }
        for entry in line.split(',') {
            let mut names = entry.split('|').map(str::trim);
            let name = names.next().unwrap_or_default();
            found.push(DefaultConcept { name, category, synonyms: names.collect() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn every_concept_has_a_category_and_no_name_is_used_twice() {
        let library = default_concepts();
        assert!((2000..2600).contains(&library.len()), "{}", library.len());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut names = HashSet::new();
        for concept in &library {
            *counts.entry(concept.category).or_default() += 1;
            for name in std::iter::once(&concept.name).chain(&concept.synonyms) {
                assert!(!name.is_empty() && *name == name.to_lowercase(), "{name:?}");
                assert!(names.insert(*name), "{name:?} twice");
            }
        }
        let known = ["actions", "attributes", "objects", "parts", "quantities", "relations", "scenes", "stuff"];
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), known);
        assert!(counts.values().all(|&count| count >= 40), "{counts:?}");
    }
}
