//! webdataset shards on a server: read from front to back, taken up at a shard, and what a network does to them.
#![allow(clippy::unwrap_used)]

mod sets;

use std::collections::HashMap;

use lucid_data::{OnBad, open_dataset_with};
use serde_json::{Value, json};
use sets::server::{Faults, Server};
use sets::{open, outline, plain, records, spec, tar_bytes};

/// `shards` shards of three samples each; the pictures have some size, so that they come in several pieces.
fn files(shards: usize) -> HashMap<String, Vec<u8>> {
    let shard = |s: usize| {
        let members: Vec<(String, Vec<u8>)> = (0..3)
            .flat_map(|i| {
                let picture: Vec<u8> = (0..100_000u32).map(|b| (b as usize * (s + 2) * (i + 3)) as u8).collect();
                [(format!("{s}{i}.jpg"), picture), (format!("{s}{i}.txt"), format!("picture {i} of {s}").into_bytes())]
            })
            .collect();
        tar_bytes(&members.iter().map(|(n, b)| (n.as_str(), b)).collect::<Vec<_>>())
    };
    (0..shards).map(|s| (format!("/data/{s:02}.tar"), shard(s))).collect()
}

fn urls(server: &Server, shards: usize) -> Value {
    json!({ "webdataset": format!("http://{}/data/{{00..{:02}}}.tar", server.address, shards - 1) })
}

#[test]
fn the_records_are_those_of_the_same_shards_in_files() {
    let all = files(3);
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in &all {
        std::fs::write(dir.path().join(name.trim_start_matches("/data/")), bytes).unwrap();
    }
    let local = records(&*open(json!({ "webdataset": dir.path() })));
    let server = Server::start(all, Faults::default());
    let set = open(urls(&server, 3));
    assert_eq!((set.count(), set.len(), set.is_empty()), (None, 0, false));
    assert_eq!(records(&*set), local);
    assert_eq!((set.count(), set.len()), (Some(9), 9));
    assert_eq!(server.requests(), ["GET /data/00.tar", "GET /data/01.tar", "GET /data/02.tar"]);
    assert_eq!(plain(set.pair(7).unwrap()), local[7]);
    assert_eq!(set.pair(9).unwrap_err().code(), "E_SHAPE");
    let portable = serde_json::to_string(&set.spec()).unwrap();
    assert_eq!(portable, r#"{"webdataset":"{00..02}.tar"}"#);
    // One shard here and the others there.
    let mixed =
        json!({ "webdataset": [dir.path().join("00.tar"), format!("http://{}/data/{{01..02}}.tar", server.address)] });
    assert_eq!(records(&*open(mixed)), local);
}

#[test]
fn what_was_learnt_lets_a_later_pass_start_at_a_shard() {
    let server = Server::start(files(4), Faults::default());
    let set = open(urls(&server, 4));
    let all = records(&*set);
    assert_eq!(all.len(), 12);
    let learnt = set.learnt();
    assert!(!learnt.to_string().contains("127.0.0.1"), "{learnt}");
    for (from, first) in [(0, "00"), (2, "00"), (3, "01"), (7, "02"), (11, "03")] {
        let again = Server::start(files(4), Faults::default());
        let set = open(urls(&again, 4));
        set.recall(&learnt).unwrap();
        assert_eq!(set.count(), Some(12));
        let rest: Vec<_> = set.stream(from).map(|r| plain(r.unwrap())).collect();
        assert_eq!(rest, all[from..], "from {from}");
        assert_eq!(again.requests()[0], format!("GET /data/{first}.tar"), "from {from}");
    }
    // Without knowledge the same records come, at the price of reading all before them.
    let again = Server::start(files(4), Faults::default());
    let fresh = open(urls(&again, 4));
    assert_eq!(plain(fresh.stream(7).next().unwrap().unwrap()), all[7]);
    assert_eq!(again.requests()[0], "GET /data/00.tar");
    fresh.recall(&Value::Null).unwrap();
    let other = open(urls(&server, 3));
    assert_eq!(other.recall(&learnt).unwrap_err().code(), "E_DATASET");
    assert_eq!(set.recall(&json!({ "shards": [] })).unwrap_err().code(), "E_DATASET");
}

#[test]
fn a_reader_that_is_let_go_of_stops_asking() {
    let server = Server::start(files(9), Faults::default());
    let set = open(urls(&server, 9));
    assert!(set.stream(0).next().unwrap().is_ok());
    std::thread::sleep(std::time::Duration::from_millis(300));
    // A few records are read ahead: three shards of three, and perhaps the next that was already asked for.
    assert!(server.requests().len() <= 5, "{:?}", server.requests());
}

#[test]
fn a_broken_connection_and_a_busy_server_change_nothing() {
    let expected = records(&*open(urls(&Server::start(files(2), Faults::default()), 2)));
    let breaks = HashMap::from([("/data/00.tar".to_string(), 150_000)]);
    let server = Server::start(files(2), Faults { breaks, busy: vec!["/data/01.tar".into()] });
    assert_eq!(records(&*open(urls(&server, 2))), expected);
    let requests = server.requests();
    assert!(requests.iter().any(|r| r.starts_with("GET /data/00.tar bytes=")), "{requests:?}");
    assert_eq!(requests.iter().filter(|r| r.starts_with("GET /data/01.tar")).count(), 2, "{requests:?}");
}

#[test]
fn a_missing_shard_ends_the_stream_by_name() {
    let mut all = files(3);
    all.remove("/data/01.tar");
    let server = Server::start(all, Faults::default());
    let set = open_dataset_with(&spec(urls(&server, 3)), OnBad::Skip).unwrap();
    let items: Vec<_> = set.stream(0).collect();
    assert_eq!(items.len(), 4);
    let error = items[3].as_ref().unwrap_err();
    assert_eq!((error.code(), error.record()), ("E_IO", None));
    assert!(error.to_string().contains("/data/01.tar"), "{error}");
}

#[test]
fn a_shard_cut_off_on_the_server_is_one_bad_record() {
    let mut all = files(3);
    let cut = all.get_mut("/data/01.tar").unwrap();
    cut.truncate(150_000);
    let bad = tar_bytes(&[("a.jpg", "a"), ("../b.txt", "b"), ("c.jpg", "c"), ("c.txt", "C")]);
    all.insert("/data/02.tar".into(), bad);
    let server = Server::start(all, Faults::default());
    let set = open(urls(&server, 3));
    let found = outline(&*set);
    let shard = |n: &str| format!("http://{}/data/{n}.tar", server.address);
    let expected = [
        "00.jpg".to_string(),
        "01.jpg".into(),
        "02.jpg".into(),
        format!("E_DATASET {}", shard("01")),
        "E_NO_CAPTION a.jpg".into(),
        format!("E_DATASET {}: ../b.txt", shard("02")),
        "c.jpg".into(),
    ];
    assert_eq!(found, expected);
    assert_eq!(set.count(), Some(7));
    assert!(set.pair(3).unwrap_err().to_string().contains("cut off"));
}

/// Keys of S3 come from the environment, which a test must not change for its neighbours: it runs itself again with it.
#[test]
fn s3_addresses_are_read_through_the_endpoint_of_the_environment() {
    const TEST: &str = "s3_addresses_are_read_through_the_endpoint_of_the_environment";
    if let Ok(expected) = std::env::var("LUCID_TEST_S3_KEYS") {
        let set = open(json!({ "webdataset": "s3://bucket/data/{00..01}.tar" }));
        assert_eq!(outline(&*set).join(","), expected);
        return;
    }
    let under_bucket = files(2).into_iter().map(|(path, bytes)| (format!("/bucket{path}"), bytes)).collect();
    let server = Server::start(under_bucket, Faults::default());
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST])
        .env("LUCID_TEST_S3_KEYS", "00.jpg,01.jpg,02.jpg,10.jpg,11.jpg,12.jpg")
        .env("AWS_ENDPOINT", format!("http://{}", server.address))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_SKIP_SIGNATURE", "true")
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(server.requests(), ["GET /bucket/data/00.tar", "GET /bucket/data/01.tar"]);
}
