//! A store that is written in several goes has the bytes of one that was written in one, wherever the others ended: by a kill, or
//! because the disk failed at any operation.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::failing::Failing;
use common::{options, read_all, sample};
use lucid_data::progress::Silent;
use lucid_data::publish::{Disk, FileSystem};
use lucid_data::store::*;
use lucid_data::{DataError, Result};
use serde_json::json;

/// Pairs of the source: four shards and a half.
const PAIRS_OF_ALL: usize = 14;

fn wanted(overwrite: bool) -> StoreOptions {
    StoreOptions { overwrite, ..options(Precision::Int8) }
}

/// Begins, or goes on with what lies there; the writer, and the first pair it wants.
fn open(files: Arc<dyn FileSystem>, path: &Path, overwrite: bool) -> Result<(StoreWriter, usize)> {
    let options = wanted(overwrite);
    match StoreWriter::unfinished(path, &options)? {
        Some(states) => {
            let next = states.last().unwrap()["next"].as_u64().unwrap() as usize;
            Ok((StoreWriter::resume_on(files, path, options, states.len())?, next))
        }
        None => Ok((StoreWriter::begin_on(files, path, options)?, 0)),
    }
}

/// Writes the pairs from `next` up to `stop`.
fn fill(writer: &mut StoreWriter, next: usize, stop: usize) -> Result<()> {
    let source = sample(PAIRS_OF_ALL);
    for i in next..stop.min(PAIRS_OF_ALL) {
        let (vision, texts) = read_all(&source, i);
        let info = source.info(i);
        let tokens: Vec<_> = (0..texts.len()).map(|c| source.text_tokens(i, c)).collect();
        let captions: Vec<_> = (0..texts.len())
            .map(|c| CaptionActivations {
                text: &info.captions[c],
                states: &texts[c],
                ids: tokens[c].ids,
                kinds: tokens[c].kinds,
                spans: tokens[c].spans,
            })
            .collect();
        writer.append(&PairActivations {
            key: &info.key,
            vision: &vision,
            vision_grid: info.vision_grid,
            captions: &captions,
            size: info.size,
            boxes: &info.boxes,
            thumbnail: source.thumbnail(i),
        })?;
        writer.mark(|| json!({ "next": i + 1 }))?;
    }
    Ok(())
}

/// One run to the end, as the extraction makes it: a store that is there already is taken as it is.
fn run(files: Arc<dyn FileSystem>, path: &Path, overwrite: bool) -> Result<()> {
    if Manifest::read(path).is_ok_and(|m| m.precision == Precision::Int8) {
        return Ok(());
    }
    let (mut writer, next) = open(files, path, overwrite)?;
    fill(&mut writer, next, usize::MAX)?;
    writer.finish().map(|_| ())
}

fn partial_of(path: &Path) -> PathBuf {
    path.parent().unwrap().join(format!(".{}.partial", path.file_name().unwrap().to_str().unwrap()))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { fs::copy(entry.path(), to).map(|_| ()).unwrap() }
    }
}

/// Ends a run before pair `stop` as a kill does: what lies on the disk stays, and nothing is tidied up.
fn killed(path: &Path, stop: usize) {
    let (mut writer, next) = open(Arc::new(Disk), path, true).unwrap();
    fill(&mut writer, next, stop).unwrap();
    let (partial, aside) = (partial_of(path), path.parent().unwrap().join("aside"));
    copy(&partial, &aside);
    drop(writer);
    let _ = fs::remove_dir_all(&partial);
    fs::rename(&aside, &partial).unwrap();
}

fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |e: std::io::Result<fs::DirEntry>| {
        let e = e.unwrap();
        (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())
    };
    let mut all: Vec<_> = fs::read_dir(path).unwrap().map(read).collect();
    all.sort();
    all
}

/// A folder in memory where there is one: thousands of syncs take a minute on a disk.
fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The finished store's files, and the operations it took.
fn undisturbed(dir: &Path) -> (Vec<(String, Vec<u8>)>, u64) {
    let whole = dir.join("whole");
    let counting = Failing::new(0);
    run(Arc::new(counting.clone()), &whole, false).unwrap();
    (files(&whole), counting.calls())
}

#[test]
fn killed_anywhere_and_resumed_the_files_are_the_same() {
    let dir = quick_dir();
    let (expected, _) = undisturbed(dir.path());
    for first in 0..=PAIRS_OF_ALL {
        for second in first..=PAIRS_OF_ALL {
            let path = dir.path().join(format!("acts-{first}-{second}"));
            killed(&path, first);
            killed(&path, second);
            run(Arc::new(Disk), &path, false).unwrap();
            assert!(files(&path) == expected, "killed before {first} and {second}");
            assert!(!partial_of(&path).exists());
        }
    }
}

#[test]
fn whichever_operation_fails_the_rest_can_be_made_afterwards() {
    let dir = quick_dir();
    let (expected, operations) = undisturbed(dir.path());
    assert!(operations > 60, "{operations} operations");
    // The disk of the first process fails, or that of a second one which goes on after a kill.
    for start in [0, 8] {
        let mut failures = 0;
        for limit in 1..=operations + 10 {
            let path = dir.path().join(format!("acts-{start}-{limit}"));
            if start > 0 {
                killed(&path, start);
            }
            if let Err(error) = run(Arc::new(Failing::new(limit)), &path, false) {
                failures += 1;
                assert_eq!(error.code(), "E_IO", "operation {limit}: {error}");
                assert!(error.hint().unwrap().contains("space"), "{error}");
            }
            run(Arc::new(Disk), &path, false).unwrap_or_else(|e| panic!("after operation {limit}, {start}: {e}"));
            assert!(files(&path) == expected, "operation {limit}, start {start}");
        }
        assert!(failures > 40, "{failures} of {operations} operations failed after {start} pairs");
    }
}

#[test]
fn replacing_a_store_keeps_it_until_the_new_one_is_complete() {
    let dir = quick_dir();
    let (expected, operations) = undisturbed(dir.path());
    let mut failures = 0;
    for limit in 1..=operations + 10 {
        let path = dir.path().join(format!("acts{limit}"));
        sample(1).write_to(&path, options(Precision::F16)).unwrap();
        failures += u64::from(run(Arc::new(Failing::new(limit)), &path, true).is_err());
        let reader = StoreReader::open(&path).unwrap();
        assert!(reader.verify(&Silent).unwrap().is_ok(), "operation {limit}");
        drop(reader);
        run(Arc::new(Disk), &path, true).unwrap_or_else(|e| panic!("after operation {limit}: {e}"));
        assert!(files(&path) == expected, "operation {limit}");
    }
    assert!(failures > 40);
}

#[test]
fn two_processes_do_not_write_the_same_store() {
    let dir = quick_dir();
    let path = dir.path().join("acts");
    killed(&path, 7);
    let (first, next) = open(Arc::new(Disk), &path, false).unwrap();
    assert_eq!((next, first.pairs()), (6, 6));
    let Err(DataError::Unfinished { reason, .. }) = open(Arc::new(Disk), &path, false) else { panic!("two at once") };
    assert!(reason.contains("another process"), "{reason}");
    // Not even to start over.
    assert_eq!(StoreWriter::begin(&path, wanted(true)).err().unwrap().code(), "E_UNFINISHED");
    drop(first);
    run(Arc::new(Disk), &path, false).unwrap();
}
