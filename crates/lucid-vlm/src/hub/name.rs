//! What a backbone's name may be.

use crate::error::VlmError;
use std::path::{Path, PathBuf};

/// Name of the backbone inside the program.
pub const MINI: &str = "mini";
/// The branch that is meant where no revision is named.
const MAIN: &str = "main";
/// Most bytes of each part of a repository's name, and of a revision.
const MAX_PART: usize = 96;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// The embedded backbone.
    Mini,
    /// A folder of this machine.
    Folder(PathBuf),
    /// A repository of the hub.
    Repo(Repo),
}

/// A repository of the hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repo {
    /// `owner/name`
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl Repo {
    /// As the user wrote it.
    pub fn full(&self) -> String {
        if self.revision == MAIN { self.id.clone() } else { format!("{}@{}", self.id, self.revision) }
    }
}

/// Whether a revision is the hash of a commit, whose content never changes.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hex(revision)
}

/// Whether there are only lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Letters, digits and `-_.`, as the hub allows them. Two dashes separate owner and name in the cache and are in neither.
fn is_part(part: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| matches!(c, '-' | '.');
    (1..=MAX_PART).contains(&part.len())
        && part.chars().all(word)
        && !part.starts_with(edge)
        && !part.ends_with(edge)
        && !part.contains("--")
        && !part.contains("..")
}

/// A revision becomes a path in the cache, so no part of it may lead elsewhere.
fn is_revision(revision: &str) -> bool {
    let part = |part: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        !part.is_empty() && part.chars().all(word) && part != "." && part != ".." && !part.starts_with('-')
    };
    revision.len() <= MAX_PART && revision.split('/').all(part)
}

impl Name {
    /// `mini`, a folder that exists, or `owner/name[@revision]`, in this order.
    pub fn parse(name: &str) -> Result<Self, VlmError> {
        if name == MINI {
            return Ok(Self::Mini);
        }
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Folder(path.into()));
        }
        let (id, revision) = name.split_once('@').unwrap_or((name, MAIN));
        let named = id.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name));
        if !named || !is_revision(revision) || path.exists() {
            return Err(VlmError::Name {
                name: name.into(),
                found: "no such folder, and not a name of the form owner/name[@revision]".into(),
                expected: "'mini', a folder, or a name on the Hugging Face hub such as google/siglip-base-patch16-224"
                    .into(),
                fix: "check the spelling; a folder is looked for from the working directory".into(),
            });
        }
        Ok(Self::Repo(Repo { id: id.into(), revision: revision.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(Name::parse(path).unwrap(), Name::Folder(folder.path().into()));
        assert_eq!(Name::parse("mini").unwrap(), Name::Mini);
        let repo = |id: &str, revision: &str| Name::Repo(Repo { id: id.into(), revision: revision.into() });
        assert_eq!(Name::parse("google/siglip-base").unwrap(), repo("google/siglip-base", "main"));
        assert_eq!(Name::parse("o/n.1_x@refs/pr/3").unwrap(), repo("o/n.1_x", "refs/pr/3"));
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("o/{}", "x".repeat(97));
        let bad = ["", "siglip", "a/b/c", "/no/such", "./no/such", "../a/b", "a/..", "a/b@", "a/b@..", "a/b@x/../y"];
        for name in bad.into_iter().chain(["a/b@/x", "a--b/c", "-a/b", "a/b c", "a/b?x", "a/b#", "a/é", &long]) {
            let error = Name::parse(name).unwrap_err();
            assert_eq!(error.code(), "E_BACKBONE", "{name}");
            assert!(error.to_string().contains("not a name of the form owner/name"), "{error}");
        }
    }
}
