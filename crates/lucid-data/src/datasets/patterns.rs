//! Names of many files at once: `shards/{000..331}.tar`, `data/*.parquet`, lists of them, a folder, addresses on servers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::folder::natural;
use crate::error::{DataError, Result};

/// More files than this are a mistake in the pattern.
const MAX_FILES: usize = 1_000_000;
const SCHEMES: [&str; 3] = ["https://", "http://", "s3://"];

/// A text or a list of texts in JSON.
pub(crate) mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }

    pub(crate) fn serialize<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match list {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        match Form::deserialize(deserializer) {
            Ok(Form::One(one)) => Ok(vec![one]),
            Ok(Form::Many(many)) => Ok(many),
            Err(_) => Err(serde::de::Error::custom("expected a file pattern or a list of file patterns")),
        }
    }
}

/// One file that a pattern names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Local(PathBuf),
    /// An address that [`SCHEMES`] lists, without user name, query and fragment.
    Remote(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Remote(url) => url.fmt(f),
        }
    }
}

/// The last component of a pattern, without what may follow an address: what may be told to others.
pub(crate) fn portable(patterns: &[String]) -> Vec<String> {
    let plain = |p: &String| match SCHEMES.iter().any(|s| p.starts_with(s)) {
        true => p.split(['?', '#']).next().unwrap_or_default().to_string(),
        false => p.clone(),
    };
    let last = |p: String| p.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default().to_string();
    patterns.iter().map(|p| last(plain(p))).collect()
}

/// The files that `patterns` name, in their order; those of a `*` or a folder (its files `*.extension`) in natural order.
pub(crate) fn resolve(patterns: &[String], extension: &str) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    let mut named: HashMap<Place, &str> = HashMap::new();
    for pattern in patterns {
        for name in braces(pattern)? {
            for place in files(&name, extension)? {
                if let Some(other) = named.insert(place.clone(), pattern) {
                    let reason = format!("named by {other:?} and again by {pattern:?}; its records would repeat");
                    return Err(DataError::dataset(place, reason));
                }
                places.push(place);
            }
        }
        if places.len() > MAX_FILES {
            return Err(DataError::dataset(pattern, format!("more than {MAX_FILES} files")));
        }
    }
    if places.is_empty() {
        return Err(DataError::Empty { what: "the list of files".into() });
    }
    Ok(places)
}

fn files(name: &str, extension: &str) -> Result<Vec<Place>> {
    if let Some(scheme) = SCHEMES.iter().find(|s| name.starts_with(**s)) {
        let host = name[scheme.len()..].split('/').next().unwrap_or_default();
        if name.contains(['?', '#']) || host.contains('@') {
            // The name is not repeated: what stands there may be a password or a signature.
            let reason = "an address with a user name, a query or a fragment is not read; give it without (s3:// addresses take \
                          their credentials from the environment)";
            return Err(DataError::dataset(
                format!("an address on {}", host.rsplit('@').next().unwrap_or_default()),
                reason,
            ));
        }
        return Ok(vec![Place::Remote(name.to_string())]);
    }
    if let Some((scheme, _)) = name.split_once("://") {
        let reason = format!("addresses of {scheme}:// are not read; expected a path, https://, http:// or s3://");
        return Err(DataError::dataset(name, reason));
    }
    let path = Path::new(name);
    if path.is_file() {
        return Ok(vec![Place::Local(path.into())]);
    }
    let pattern = match path.is_dir() {
        true => format!("{}/*.{extension}", glob::Pattern::escape(name.trim_end_matches('/'))),
        false if name.contains(['*', '?', '[']) => name.to_string(),
        false => return Err(DataError::io("read", path, std::io::ErrorKind::NotFound.into())),
    };
    let matches = glob::glob(&pattern).map_err(|e| DataError::dataset(name, format!("not a file pattern: {e}")))?;
    let mut found = matches
        .map(|m| {
            m.map_err(|e| {
                let path = e.path().to_path_buf();
                DataError::io("read", path, e.into())
            })
        })
        .filter(|m| m.as_ref().map_or(true, |p| p.is_file()))
        .collect::<Result<Vec<_>>>()?;
    if found.is_empty() {
        return Err(DataError::dataset(name, format!("no file matches {pattern}")));
    }
    found.sort_by(|a, b| natural(a, b));
    Ok(found.into_iter().map(Place::Local).collect())
}

/// Writes `{000..331}` and `{train,val}` out.
fn braces(pattern: &str) -> Result<Vec<String>> {
    let bad = |reason: String| DataError::dataset(pattern, reason);
    let mut done = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, tail) = after.split_once('}').ok_or_else(|| bad("`{` without `}`".into()))?;
        if inside.contains('{') {
            return Err(bad("braces inside braces".into()));
        }
        let choices = match inside.split_once("..") {
            Some((first, last)) => range(first, last).map_err(bad)?,
            None => inside.split(',').map(String::from).collect(),
        };
        if done.len().saturating_mul(choices.len()) > MAX_FILES {
            return Err(bad(format!("more than {MAX_FILES} files")));
        }
        done = done.iter().flat_map(|d| choices.iter().map(move |c| format!("{d}{before}{c}"))).collect();
        rest = tail;
    }
    done.iter_mut().for_each(|d| d.push_str(rest));
    Ok(done)
}

/// `000..331` with its leading zeros.
fn range(first: &str, last: &str) -> std::result::Result<Vec<String>, String> {
    let number = |t: &str| match t.bytes().all(|b| b.is_ascii_digit()) {
        true => t.parse::<usize>().ok(),
        false => None,
    };
    match (number(first), number(last)) {
        (Some(a), Some(b)) if a <= b && b - a < MAX_FILES => {
            let padded = [first, last].iter().any(|t| t.len() > 1 && t.starts_with('0'));
            let width = if padded { first.len().max(last.len()) } else { 0 };
            Ok((a..=b).map(|n| format!("{n:0width$}")).collect())
        }
        (Some(a), Some(b)) if a > b => Err(format!("{{{first}..{last}}} counts down; write the smaller number first")),
        (Some(_), Some(_)) => Err(format!("more than {MAX_FILES} files")),
        _ => Err(format!("{{{first}..{last}}} is no range of whole numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_written_out() {
        let of = |p: &str| braces(p).map_err(|e| e.to_string());
        assert_eq!(of("a/{008..010}.tar").unwrap(), ["a/008.tar", "a/009.tar", "a/010.tar"]);
        assert_eq!(of("{8..10}").unwrap(), ["8", "9", "10"]);
        assert_eq!(of("{train,val}-{0..1}.tar").unwrap(), ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]);
        assert_eq!(of("plain.tar").unwrap(), ["plain.tar"]);
        for bad in ["{0..", "{a..b}", "{3..1}", "{{0..1}}", "{0..99999999999999999999}", "{0..9999999}"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of("{0..999}{0..999}{0..9}").unwrap_err().contains("more than"));
    }

    #[test]
    fn what_is_told_to_others_has_no_folder_host_or_secret() {
        let given = ["/home/me/{0..3}.tar", "https://u:p@host/a/b.tar?token=x", "s3://bucket/key/c.tar", "d.tar"];
        assert_eq!(portable(&given.map(String::from)), ["{0..3}.tar", "b.tar", "c.tar", "d.tar"]);
        let error = files("https://u:secret@host/b.tar?token=x", "tar").unwrap_err().to_string();
        assert!(!error.contains("secret") && !error.contains("token") && error.contains("host"), "{error}");
    }
}
