//! A hub with one repository, and what is asked of it.

use crate::server::{Request, Server, git_hash};
use lucid_data::progress::Silent;
use lucid_vlm::VlmError;
use lucid_vlm::hub::{HubSettings, ResolvedBackbone, resolve_with};
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

pub const REPO: &str = "google/tiny-siglip";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const OTHER: &str = "89abcdef0123456789abcdef0123456789abcdef";

pub fn weights() -> Vec<u8> {
    (0..700_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The files a backbone needs, and some it does not.
pub fn files(weights: &[u8]) -> Vec<(&'static str, &[u8])> {
    vec![
        ("README.md", b"a model"),
        ("config.json", b"{}"),
        ("model.safetensors", weights),
        ("preprocessor_config.json", b"{\"size\": 3}"),
        ("pytorch_model.bin", b"never fetched"),
        ("tokenizer.json", b"{\"version\": 1}"),
    ]
}

pub const WANTED: [&str; 4] = ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"];

pub struct Bench {
    pub hub: Server,
    pub folder: TempDir,
    pub settings: HubSettings,
    pub weights: Vec<u8>,
}

/// A hub with one repository, an empty cache, and little patience.
pub fn bench() -> Bench {
    let (hub, folder, weights) = (Server::start(), tempfile::tempdir().unwrap(), weights());
    hub.add(REPO, "main", COMMIT, &files(&weights));
    let mut settings = HubSettings::new(&hub.address, folder.path());
    settings.backoff = Duration::from_millis(5);
    settings.timeout = Duration::from_secs(5);
    Bench { hub, folder, settings, weights }
}

impl Bench {
    pub fn resolve(&self, name: &str) -> Result<ResolvedBackbone, VlmError> {
        resolve_with(name, &self.settings, &Silent)
    }

    pub fn refused(&self, name: &str, code: &str, parts: &[&str]) {
        let error = self.resolve(name).unwrap_err();
        let text = format!("{error}; hint: {}", error.hint().unwrap_or_default());
        assert_eq!(error.code(), code, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }

    pub fn cache(&self) -> std::path::PathBuf {
        self.folder.path().join("models--google--tiny-siglip")
    }

    pub fn partial(&self) -> std::path::PathBuf {
        self.cache().join("blobs").join(format!("{}.incomplete", git_hash(&self.weights)))
    }

    /// Every wanted file is there with its content, and nothing is half done.
    pub fn assert_whole(&self, resolved: &ResolvedBackbone) {
        for (name, bytes) in files(&self.weights) {
            let path = resolved.folder.join(name);
            assert_eq!(path.exists(), WANTED.contains(&name), "{name}");
            if path.exists() {
                assert!(fs::read(&path).unwrap() == bytes, "{name} has other bytes");
            }
        }
        let left = fs::read_dir(self.cache().join("blobs")).unwrap();
        let left: Vec<_> = left.map(|e| e.unwrap().file_name()).filter(|n| n.to_str().unwrap().contains('.')).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    pub fn gets(&self) -> Vec<Request> {
        self.hub.requests().into_iter().filter(|r| r.method == "GET" && !r.path.starts_with("/api/")).collect()
    }
}
