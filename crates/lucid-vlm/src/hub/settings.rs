//! Where the hub and its cache are, from the environment variables of `huggingface_hub`.

use crate::error::VlmError;
use lucid_data::DataError;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The official host.
pub const ENDPOINT: &str = "https://huggingface.co";

/// How the hub is reached and where its files are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Folder of `models--owner--name` folders.
    pub cache: PathBuf,
    /// Access token; sent to `endpoint` and to nobody else.
    pub token: Option<String>,
    /// Make no request, whatever is missing.
    pub offline: bool,
    /// Attempts in a row that bring nothing before a request is given up.
    pub attempts: u32,
    /// Wait after the first failed attempt; doubled after each further one.
    pub backoff: Duration,
    /// Longest silence of a server, and longest wait that is accepted when a server asks for one.
    pub timeout: Duration,
}

/// The token is a secret, so it is not printed.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    /// Settings without a token, with the usual patience.
    pub fn new(endpoint: &str, cache: &Path) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            cache: cache.into(),
            token: None,
            offline: false,
            attempts: 5,
            backoff: Duration::from_millis(500),
            timeout: Duration::from_secs(30),
        }
    }

    /// `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and the older names
    /// of the same, as `huggingface_hub` reads them.
    ///
    /// # Errors
    /// `E_OPTION` where no home folder is known, `E_IO` for a file of the token that cannot be read.
    pub fn from_env() -> Result<Self, VlmError> {
        Self::from_lookup(&|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// [`Self::from_env`] of any variables.
    ///
    /// # Errors
    /// As there.
    pub fn from_lookup(get: &dyn Fn(&str) -> Option<String>, user: Option<PathBuf>) -> Result<Self, VlmError> {
        // An empty variable counts as none, as in a shell's `${X:-…}`.
        let get = |names: &[&str]| names.iter().find_map(|name| get(name).filter(|value| !value.trim().is_empty()));
        let path = |names: &[&str]| get(names).map(|value| expand(&value, user.as_deref()));
        let home = path(&["HF_HOME"])
            .or_else(|| path(&["XDG_CACHE_HOME"]).map(|cache| cache.join("huggingface")))
            .or_else(|| user.as_deref().map(|user| user.join(".cache").join("huggingface")));
        let cache = path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
            .or_else(|| home.as_deref().map(|home| home.join("hub")))
            .ok_or_else(|| VlmError::Argument {
                option: "HF_HOME".into(),
                found: "not set, and no home folder is known".into(),
                expected: "the folder that holds downloaded models".into(),
            })?;
        let token = match get(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
            Some(token) => Some(token),
            None => match path(&["HF_TOKEN_PATH"]).or_else(|| home.map(|home| home.join("token"))) {
                Some(file) => read_token(&file)?,
                None => None,
            },
        };
        let endpoint = get(&["HF_ENDPOINT"]).unwrap_or_else(|| ENDPOINT.into());
        let offline = get(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
            .is_some_and(|value| matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self { token, offline, ..Self::new(endpoint.trim(), &cache) })
    }
}

/// `~` is the user's folder.
fn expand(path: &str, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~').map(|rest| rest.trim_start_matches(['/', '\\'])), user) {
        (Some(rest), Some(user)) if path == "~" || path.starts_with("~/") || path.starts_with("~\\") => user.join(rest),
        _ => PathBuf::from(path),
    }
}

fn read_token(file: &Path) -> Result<Option<String>, VlmError> {
    match std::fs::read_to_string(file) {
        Ok(token) => Ok(Some(token)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(DataError::Io { file: file.into(), action: "read", source }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        HubSettings::from_lookup(&get, Some("/home/u".into())).unwrap()
    }

    #[test]
    fn variables_are_read_as_huggingface_hub_reads_them() {
        let plain = settings(&[]);
        assert_eq!(plain, HubSettings::new(ENDPOINT, Path::new("/home/u/.cache/huggingface/hub")));
        assert_eq!(settings(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(settings(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/home/u/hf/hub"));
        assert_eq!(settings(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]).cache, Path::new("/c"));
        assert_eq!(settings(&[("HF_ENDPOINT", "http://m/x/")]).endpoint, "http://m/x");
        assert!(settings(&[("HF_HUB_OFFLINE", "true")]).offline && settings(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline && !settings(&[("HF_HUB_OFFLINE", "")]).offline);
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_file_and_is_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token, None);
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token.as_deref(), Some("hf_file"));
        let other = folder.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let path = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(settings(&[("HF_HOME", home), path]).token.as_deref(), Some("hf_other"));
        let set = settings(&[("HF_HOME", home), path, ("HF_TOKEN", " hf_set ")]);
        assert_eq!(set.token.as_deref(), Some("hf_set"));
        assert!(!format!("{set:?}").contains("hf_set"));
        let unreadable = ("HF_TOKEN_PATH", home);
        let get = |name: &str| (name == unreadable.0).then(|| unreadable.1.to_owned());
        assert_eq!(HubSettings::from_lookup(&get, Some("/u".into())).unwrap_err().code(), "E_IO");
        assert_eq!(HubSettings::from_lookup(&|_| None, None).unwrap_err().code(), "E_OPTION");
    }
}
