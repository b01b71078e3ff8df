//! A download whose process is killed.

use super::bench::{REPO, bench};
use super::server::Fault;
use lucid_data::progress::Silent;
use lucid_vlm::hub::{HubSettings, resolve_with};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Run by the next test in a process of its own.
#[test]
#[ignore = "a part of another test"]
fn child_that_downloads() {
    let settings =
        HubSettings::new(&std::env::var("TEST_ENDPOINT").unwrap(), Path::new(&std::env::var("TEST_CACHE").unwrap()));
    resolve_with(REPO, &settings, &Silent).unwrap();
}

#[test]
fn a_killed_download_goes_on() {
    let bench = bench();
    bench.hub.fault("GET", "model.safetensors", 1, Fault::Hang(333_000));
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["killed::child_that_downloads", "--exact", "--ignored"])
        .env("TEST_ENDPOINT", &bench.hub.address)
        .env("TEST_CACHE", bench.folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while fs::metadata(bench.partial()).map_or(0, |m| m.len()) < 333_000 {
        assert!(start.elapsed() < Duration::from_secs(15), "the child makes no progress");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    bench.hub.requests();
    let resolved = bench.resolve(REPO).unwrap();
    bench.assert_whole(&resolved);
    let gets = bench.gets();
    let range = &gets.iter().find(|r| r.path.contains("safetensors")).unwrap().headers["range"];
    assert_eq!(range, "bytes=333000-");
}
