//! Backbones by name, against a hub on the loopback.
#![allow(clippy::unwrap_used)]

mod bench;
mod killed;
mod server;

use bench::{COMMIT, OTHER, REPO, WANTED, bench, files};
use lucid_data::progress::{Observer, Silent};
use lucid_vlm::hub::{HubSettings, ResolvedBackbone, resolve_with};
use server::{Fault, Server, git_hash, sha256};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_model_is_downloaded_once() {
    let bench = bench();
    let first = bench.resolve(REPO).unwrap();
    assert_eq!(first.id, format!("{REPO}@{COMMIT}"));
    assert_eq!(first.revision.as_deref(), Some(COMMIT));
    bench.assert_whole(&first);
    let asked = bench.gets();
    assert_eq!(asked.len(), WANTED.len(), "{asked:?}");

    let second = bench.resolve(REPO).unwrap();
    assert_eq!(first, second);
    let requests = bench.hub.requests();
    assert_eq!(requests.len(), 1, "only the commit is asked for: {requests:?}");
    assert!(requests[0].path.starts_with("/api/"));

    // A commit never changes.
    assert_eq!(bench.resolve(&first.id).unwrap(), first);
    let offline = HubSettings { offline: true, ..bench.settings.clone() };
    assert_eq!(resolve_with(REPO, &offline, &Silent).unwrap(), first);
    assert!(bench.hub.requests().is_empty());
}

#[test]
#[cfg(unix)]
fn the_cache_is_laid_out_as_python_does_it() {
    let bench = bench();
    let folder = bench.resolve(REPO).unwrap().folder;
    assert_eq!(folder, bench.cache().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(bench.cache().join("refs/main")).unwrap(), COMMIT);
    let link = fs::read_link(folder.join("model.safetensors")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(git_hash(&bench.weights)));
    assert!(bench.folder.path().join(".locks/models--google--tiny-siglip").is_dir());
}

#[test]
fn a_cache_made_by_python_is_used_without_a_request() {
    let bench = bench();
    let (cache, snapshot) = (bench.cache(), bench.cache().join("snapshots").join(OTHER));
    for folder in [cache.join("blobs"), cache.join("refs"), snapshot.clone()] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(cache.join("refs/main"), OTHER).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let etag = if bytes.len() > 1000 { sha256(bytes) } else { git_hash(bytes) };
        fs::write(cache.join("blobs").join(&etag), bytes).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), snapshot.join(name)).unwrap();
        #[cfg(not(unix))]
        fs::write(snapshot.join(name), bytes).unwrap();
    };
    let offline = HubSettings { offline: true, ..bench.settings.clone() };
    put("config.json", b"{}");
    put("model.safetensors", &bench.weights);
    let error = resolve_with(REPO, &offline, &Silent).unwrap_err();
    assert!(error.to_string().contains("no tokenizer"), "{error}");
    put("tokenizer.json", b"{}");
    let error = resolve_with(REPO, &offline, &Silent).unwrap_err();
    assert_eq!(error.code(), "E_BACKBONE");
    assert!(error.to_string().contains("lacks preprocessor_config.json"), "{error}");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    put("preprocessor_config.json", b"{}");
    let resolved = resolve_with(REPO, &offline, &Silent).unwrap();
    assert_eq!((resolved.folder, resolved.id), (snapshot, format!("{REPO}@{OTHER}")));
    assert!(bench.hub.requests().is_empty());
}

#[test]
fn offline_and_without_a_server_it_is_said_what_is_missing() {
    let mut bench = bench();
    bench.settings.offline = true;
    bench.refused(
        REPO,
        "E_BACKBONE",
        &["no snapshot of revision \"main\"", "HF_HUB_OFFLINE", "another machine's cache"],
    );
    assert!(bench.hub.requests().is_empty());

    bench.settings.offline = false;
    let known = bench.resolve(REPO).unwrap();
    // A server that does not answer: what was downloaded serves, with a warning; what was not, does not.
    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);
    impl Observer for Warnings {
        fn warning(&self, code: &str, message: &str) {
            self.0.lock().unwrap().push(format!("{code} {message}"));
        }
    }
    bench.settings.endpoint = "http://127.0.0.1:1".into();
    let warnings = Warnings::default();
    assert_eq!(resolve_with(REPO, &bench.settings, &warnings).unwrap(), known);
    let warnings = warnings.0.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].starts_with("W_HUB") && warnings[0].contains(COMMIT), "{warnings:?}");
    bench.refused("google/other", "E_DOWNLOAD", &["attempt 5 of 5", "HTTPS_PROXY"]);
}

#[test]
fn an_interrupted_download_goes_on_where_it_was() {
    let bench = bench();
    for after in [100_000, 200_000, 1] {
        bench.hub.fault("GET", "model.safetensors", 1, Fault::Cut(after));
    }
    let resolved = bench.resolve(REPO).unwrap();
    bench.assert_whole(&resolved);
    let ranges: Vec<Option<String>> = bench
        .gets()
        .into_iter()
        .filter(|r| r.path.contains("safetensors"))
        .map(|r| r.headers.get("range").cloned())
        .collect();
    let from = |n: u32| Some(format!("bytes={n}-"));
    assert_eq!(ranges, [None, from(100_000), from(300_000), from(300_001)]);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let bench = bench();
    bench.hub.fault("GET", "model.safetensors", 1, Fault::Cut(300_000));
    bench.hub.fault("GET", "model.safetensors", 1, Fault::NoRange);
    let resolved = bench.resolve(REPO).unwrap();
    bench.assert_whole(&resolved);
    let gets = bench.gets();
    let last = gets.iter().rfind(|r| r.path.contains("safetensors")).unwrap();
    assert_eq!(last.headers["range"], "bytes=300000-");
}

#[test]
fn a_damaged_file_is_deleted_and_named() {
    let bench = bench();
    bench.hub.fault("GET", "model.safetensors", 1, Fault::Wrong);
    bench.refused(REPO, "E_DOWNLOAD", &["model.safetensors", "git hash", &git_hash(&bench.weights), "now deleted"]);
    assert!(!bench.partial().exists() && !bench.cache().join("refs/main").exists());
    bench.assert_whole(&bench.resolve(REPO).unwrap());
}

#[test]
fn a_file_that_does_not_end_is_not_followed() {
    let bench = bench();
    bench.hub.fault("GET", "model.safetensors", 1, Fault::TooLong);
    bench.refused(REPO, "E_DOWNLOAD", &["more than 700000 bytes"]);
    assert!(!bench.partial().exists());
}

#[test]
fn refusals_say_what_to_do() {
    let mut bench = bench();
    bench.refused("google/none", "E_BACKBONE", &["no such repository", "no such folder exists here either"]);
    bench.refused("google/tiny-siglip@v9", "E_BACKBONE", &["no revision \"v9\""]);
    bench.hub.fault("GET", "/api/", 1, Fault::Status(401, vec![]));
    bench.refused(REPO, "E_DOWNLOAD", &["401", "HF_TOKEN is not set", "licence"]);
    let code = |code: &str| vec![("X-Error-Code", code.to_owned())];
    bench.hub.fault("GET", "/api/", 1, Fault::Status(401, code("RepoNotFound")));
    bench.refused(REPO, "E_BACKBONE", &["no such repository", "private", "HF_TOKEN"]);
    bench.settings.token = Some("hf_secret".into());
    bench.hub.fault("HEAD", "config.json", 1, Fault::Status(403, code("GatedRepo")));
    bench.refused(REPO, "E_DOWNLOAD", &["gated", "accept the licence at http://127.0.0.1", "HF_TOKEN"]);
    bench.settings.token = Some("hf\nsecret".into());
    bench.refused(REPO, "E_OPTION", &["HF_TOKEN"]);
    bench.settings.token = None;
    for endpoint in ["", "huggingface.co", "ftp://h"] {
        bench.settings.endpoint = endpoint.into();
        bench.refused(REPO, "E_OPTION", &["HF_ENDPOINT"]);
    }
}

#[test]
fn a_server_in_trouble_is_asked_again_but_not_for_ever() {
    let bench = bench();
    bench.hub.fault("GET", "/api/", 2, Fault::Status(500, vec![]));
    bench.hub.fault("HEAD", "config.json", 1, Fault::Status(503, vec![]));
    bench.hub.fault("GET", "tokenizer.json", 1, Fault::Status(429, vec![("Retry-After", "1".into())]));
    let start = Instant::now();
    let resolved = bench.resolve(REPO).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After is kept");
    bench.assert_whole(&resolved);

    bench.hub.fault("GET", "/api/", 100, Fault::Status(502, vec![]));
    bench.hub.requests();
    bench.refused("google/other", "E_DOWNLOAD", &["502", "attempt 5 of 5"]);
    assert_eq!(bench.hub.requests().len(), 5);
}

#[test]
fn a_wait_that_is_too_long_is_reported() {
    let bench = bench();
    bench.hub.fault("GET", "/api/", 1, Fault::Status(429, vec![("Retry-After", "3600".into())]));
    bench.refused(REPO, "E_DOWNLOAD", &["429", "asks to wait 3600 s"]);
    assert_eq!(bench.hub.requests().len(), 1);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let mut bench = bench();
    let storage = Server::start();
    bench.hub.store_large_files_at(&storage, 1000);
    bench.settings.token = Some("hf_secret".into());
    storage.fault("GET", "/stored/", 1, Fault::Cut(500_000));
    let resolved = bench.resolve(REPO).unwrap();
    bench.assert_whole(&resolved);
    let hub = bench.hub.requests();
    assert!(hub.iter().all(|r| r.headers["authorization"] == "Bearer hf_secret"), "{hub:?}");
    let stored = storage.requests();
    assert_eq!(stored.len(), 2, "one cut, one that goes on");
    assert_eq!(stored[1].headers["range"], "bytes=500000-");
    for request in stored {
        assert!(!request.headers.values().any(|value| value.contains("hf_secret")), "{request:?}");
    }
    // The name of the blob is the SHA-256, as for any file in LFS.
    assert!(bench.cache().join("blobs").join(sha256(&bench.weights)).is_file());
}

#[test]
fn redirects_that_lead_nowhere_end() {
    let bench = bench();
    let round = vec![("Location", format!("/api/models/{REPO}/revision/main"))];
    bench.hub.fault("GET", "/api/", 100, Fault::Status(307, round));
    bench.refused(REPO, "E_DOWNLOAD", &["redirects"]);
    assert!(bench.hub.requests().len() < 12);
}

#[test]
fn another_revision_is_another_snapshot() {
    let bench = bench();
    let files = [("config.json", &b"{\"v\": 2}"[..]), ("model.safetensors", &bench.weights), ("tokenizer.json", b"{}")];
    bench.hub.add(REPO, "refs/pr/2", OTHER, &files);
    let main = bench.resolve(REPO).unwrap();
    bench.hub.requests();
    let other = bench.resolve("google/tiny-siglip@refs/pr/2").unwrap();
    assert_eq!(other.id, format!("{REPO}@{OTHER}"));
    assert_ne!(main.folder, other.folder);
    assert_eq!(fs::read(other.folder.join("config.json")).unwrap(), b"{\"v\": 2}");
    let gets = bench.gets();
    assert!(gets.iter().all(|r| !r.path.contains("model.safetensors")), "the blob is there already: {gets:?}");
    assert_eq!(fs::read_to_string(bench.cache().join("refs/refs/pr/2")).unwrap(), OTHER);
    // It has no preprocessor_config.json, and that is known offline.
    let offline = HubSettings { offline: true, ..bench.settings.clone() };
    assert_eq!(resolve_with("google/tiny-siglip@refs/pr/2", &offline, &Silent).unwrap(), other);
}

#[test]
fn shards_are_found_through_their_index() {
    let bench = bench();
    let index = br#"{ "weight_map": { "a": "model-1.safetensors", "b": "model-2.safetensors" } }"#;
    let mut files = vec![
        ("config.json", &b"{}"[..]),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", &bench.weights),
        ("tokenizer.json", b"{}"),
    ];
    bench.hub.add("o/shards", "main", COMMIT, &files);
    bench.refused("o/shards", "E_BACKBONE", &["model-2.safetensors", "does not hold"]);
    files.push(("model-2.safetensors", b"two"));
    bench.hub.add("o/shards", "main", OTHER, &files);
    let folder = bench.resolve("o/shards").unwrap().folder;
    assert_eq!(fs::read(folder.join("model-2.safetensors")).unwrap(), b"two");
    fs::remove_file(folder.join("model-2.safetensors")).unwrap();
    let mut offline = bench;
    offline.settings.offline = true;
    offline.refused("o/shards", "E_BACKBONE", &["lacks model-2.safetensors"]);
}

#[test]
fn a_listing_that_leads_out_of_the_cache_is_refused() {
    let bench = bench();
    for name in ["../../evil", "/etc/passwd", "a/../../b", "C:\\x"] {
        let mut listed = files(&bench.weights);
        listed.push((name, b"x"));
        bench.hub.add("o/evil", "main", COMMIT, &listed);
        bench.refused("o/evil", "E_DOWNLOAD", &["lead out of the cache"]);
    }
    assert!(bench.gets().is_empty() && fs::read_dir(bench.folder.path()).unwrap().next().is_none());
}

#[test]
fn pickles_are_refused_with_the_reason() {
    let bench = bench();
    let files = [("config.json", &b"{}"[..]), ("pytorch_model.bin", b"\x80\x02"), ("tokenizer.json", b"{}")];
    bench.hub.add("o/pickle", "main", COMMIT, &files);
    bench.refused("o/pickle", "E_BACKBONE", &["pytorch_model.bin", "a pickle can run code", "save_pretrained"]);
    assert!(bench.gets().is_empty());
}

#[test]
fn answers_that_are_no_hub_are_named() {
    let bench = bench();
    bench.hub.add("o/n", "main", "not-a-commit", &[]);
    bench.refused("o/n", "E_DOWNLOAD", &["the commit \"not-a-commit\"", "HF_ENDPOINT"]);
    bench.hub.fault("GET", "/api/", 1, Fault::Status(200, vec![]));
    bench.refused(REPO, "E_DOWNLOAD", &["no JSON", "HF_ENDPOINT"]);
    bench.hub.fault("HEAD", "config.json", 1, Fault::Status(200, vec![("ETag", "\"abc\"".into())]));
    bench.refused(REPO, "E_DOWNLOAD", &["the hash \"abc\"", "X-Linked-Etag"]);
    let huge = vec![("X-Linked-Etag", "a".repeat(64)), ("X-Linked-Size", (1u64 << 40).to_string())];
    bench.hub.fault("HEAD", "config.json", 1, Fault::Status(200, huge));
    bench.refused(REPO, "E_DOWNLOAD", &["1099511627776 bytes"]);
    let other = vec![("X-Repo-Commit", OTHER.to_owned())];
    bench.hub.fault("HEAD", "config.json", 1, Fault::Status(200, other));
    bench.refused(REPO, "E_DOWNLOAD", &[OTHER, COMMIT]);
}

/// Stops after some bytes.
#[derive(Default)]
struct StopAfter {
    limit: u64,
    stop: AtomicBool,
    last: AtomicU64,
}

impl Observer for StopAfter {
    fn progress(&self, stage: &str, done: u64, total: u64) {
        assert_eq!(stage, "download");
        assert!(done <= total, "{done} of {total}");
        assert!(done >= self.last.swap(done, Ordering::Relaxed), "progress never goes back");
        self.stop.fetch_or(done >= self.limit, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[test]
fn cancelling_keeps_what_has_arrived() {
    let bench = bench();
    bench.hub.fault("GET", "model.safetensors", 1, Fault::Hang(400_000));
    let observer = StopAfter { limit: 150_000, ..StopAfter::default() };
    let error = resolve_with(REPO, &bench.settings, &observer).unwrap_err();
    assert_eq!(error.code(), "E_CANCELLED");
    let kept = fs::metadata(bench.partial()).unwrap().len();
    assert!((140_000..=400_000).contains(&kept), "{kept}");
    bench.hub.requests();
    let observer = StopAfter { limit: u64::MAX, ..StopAfter::default() };
    let resolved = resolve_with(REPO, &bench.settings, &observer).unwrap();
    bench.assert_whole(&resolved);
    let asked = bench.gets();
    let range = asked.iter().find(|r| r.path.contains("safetensors")).unwrap().headers["range"].clone();
    assert_eq!(range, format!("bytes={kept}-"));
    let small: u64 = files(&bench.weights).iter().filter(|f| WANTED.contains(&f.0)).map(|f| f.1.len() as u64).sum();
    assert!(observer.last.load(Ordering::Relaxed) <= small);
}

#[test]
fn two_at_once_download_once() {
    let bench = bench();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.resolve(REPO).unwrap())).collect();
        for one in all {
            let folder = one.join().unwrap().folder;
            assert!(fs::read(folder.join("model.safetensors")).unwrap() == bench.weights);
        }
    });
    let weights = bench.gets().into_iter().filter(|r| r.path.contains("model.safetensors")).count();
    assert_eq!(weights, 1, "the others wait for the first");
}

#[test]
fn a_folder_is_taken_as_it_is() {
    let bench = bench();
    let folder = bench.folder.path().join("mine");
    fs::create_dir(&folder).unwrap();
    let resolved = bench.resolve(folder.to_str().unwrap()).unwrap();
    assert_eq!(resolved, ResolvedBackbone { folder, id: "mine".into(), revision: None });
    assert_eq!(bench.resolve("mini").unwrap_err().code(), "E_BACKBONE");
    assert!(bench.hub.requests().is_empty());
}
