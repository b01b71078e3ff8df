//! A run that was interrupted, killed or denied space ends with the same bits as one that was not.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lucid_data::store::ActivationSource;
use lucid_sae::files::{Disk, FileSystem, OutputFile};
use lucid_sae::{Config, Model, SaeError, TrainEvent, TrainObserver, TrainOptions, Unobserved, model_folder, train};
use support::{Recorder, artefacts, copy_folder, synthetic, tiny, tiny_store};

fn options(out: &Path) -> TrainOptions {
    TrainOptions {
        out: Some(out.to_owned()),
        checkpoint_every: 3,
        eval_every: 4,
        threads: 1,
        ..TrainOptions::new(tiny())
    }
}

fn resumed(out: &Path) -> TrainOptions {
    TrainOptions { resume: true, ..options(out) }
}

fn uninterrupted() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    train(&tiny_store(), None, &options(&out), &Unobserved).unwrap();
    artefacts(&out)
}

#[track_caller]
fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
}

#[test]
fn a_run_holds_its_model_two_checkpoints_and_a_line_per_step() {
    let artefacts = uninterrupted();
    let names: Vec<&str> = artefacts.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "checkpoints/step-0000009/optimiser.safetensors",
            "checkpoints/step-0000009/weights.safetensors",
            "checkpoints/step-0000011/optimiser.safetensors",
            "checkpoints/step-0000011/weights.safetensors",
            "config.json",
            "metrics",
            "model.safetensors",
        ]
    );
    let log = std::str::from_utf8(&artefacts["metrics"]).unwrap();
    let count = |kind: &str| log.lines().filter(|line| line.contains(&format!("\"type\":\"{kind}\""))).count();
    assert_eq!((count("step"), count("eval")), (11, 3));
    let weights = "checkpoints/step-0000011/weights.safetensors";
    assert!(artefacts["model.safetensors"] == artefacts[weights], "the model is the last checkpoint");
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let expected = uninterrupted();
    for threads in [2, 3] {
        let out = folder.path().join(format!("run-{threads}"));
        train(&tiny_store(), None, &TrainOptions { threads, ..options(&out) }, &Unobserved).unwrap();
        assert_same(&artefacts(&out), &expected);
    }
}

#[test]
fn a_cancelled_run_resumes_to_the_same_bits_at_any_thread_count() {
    let folder = tempfile::tempdir().unwrap();
    let expected = uninterrupted();
    for (stop, threads) in [(1, 2), (2, 1), (3, 2), (4, 2), (7, 1), (10, 2)] {
        let out = folder.path().join(format!("run-{stop}"));
        let observer = Recorder::stopping_after(stop);
        let error = train(&tiny_store(), None, &options(&out), &observer).unwrap_err();
        assert!(matches!(error, SaeError::Cancelled { step } if step == stop), "{error}");
        let checkpoint = out.join(format!("checkpoints/step-{stop:07}"));
        assert!(checkpoint.is_dir(), "cancelling after step {stop} leaves a checkpoint");
        train(&tiny_store(), None, &TrainOptions { threads, ..resumed(&out) }, &Unobserved).unwrap();
        let mut found = artefacts(&out);
        // The checkpoint of the interruption may stand in place of an older regular one.
        let mut expected = expected.clone();
        found.retain(|name, _| !name.contains("step-") || name.contains("step-0000011"));
        expected.retain(|name, _| !name.contains("step-") || name.contains("step-0000011"));
        assert_same(&found, &expected);
    }
}

/// Copies the run folder whenever a step ends: what a kill at that moment leaves.
struct Killed<'a> {
    run: &'a Path,
    copies: &'a Path,
}

impl TrainObserver for Killed<'_> {
    fn event(&self, event: &TrainEvent) {
        if let TrainEvent::Step { step, .. } = event {
            copy_folder(self.run, &self.copies.join(step.to_string()));
        }
    }
}

#[test]
fn a_killed_run_resumes_from_its_last_checkpoint_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (run, copies) = (folder.path().join("run"), folder.path().join("copies"));
    let observer = Killed { run: &run, copies: &copies };
    train(&tiny_store(), None, &options(&run), &observer).unwrap();
    let expected = artefacts(&run);
    for step in 1..=11 {
        let out = copies.join(step.to_string());
        // What a writer leaves that was killed in the middle of a save.
        let partial = out.join("checkpoints/.tmp-step-0000099-1-1");
        fs::create_dir_all(&partial).unwrap();
        fs::write(partial.join("weights.safetensors"), b"half").unwrap();
        fs::write(out.join(".tmp-model.safetensors-1-1"), b"half").unwrap();
        train(&tiny_store(), None, &resumed(&out), &Unobserved).unwrap();
        assert_same(&artefacts(&out), &expected);
    }
}

#[test]
fn a_finished_run_resumes_to_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let first = train(&tiny_store(), None, &options(&out), &Unobserved).unwrap();
    let before = artefacts(&out);
    let observer = Recorder::default();
    let again = train(&tiny_store(), None, &resumed(&out), &observer).unwrap();
    assert_eq!(again.params, first.params);
    assert!(observer.losses().is_empty());
    assert_same(&artefacts(&out), &before);
}

#[test]
fn a_damaged_checkpoint_is_skipped_with_a_warning() {
    let expected = uninterrupted();
    for file in ["weights.safetensors", "optimiser.safetensors", "state.json", "MANIFEST.json"] {
        for damage in ["flip", "cut", "gone"] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("run");
            let error = train(&tiny_store(), None, &options(&out), &Recorder::stopping_after(7)).unwrap_err();
            assert_eq!(error.code(), "E_CANCELLED");
            let path = out.join("checkpoints/step-0000007").join(file);
            let mut bytes = fs::read(&path).unwrap();
            match damage {
                "flip" => {
                    // In MANIFEST.json a hash, elsewhere any byte.
                    let at = if file == "MANIFEST.json" { find(&bytes, b"blake3") + 12 } else { bytes.len() / 2 };
                    bytes[at] ^= 1;
                    fs::write(&path, bytes).unwrap();
                }
                "cut" => {
                    bytes.truncate(bytes.len() - 1);
                    fs::write(&path, bytes).unwrap();
                }
                _ => fs::remove_file(&path).unwrap(),
            }
            let observer = Recorder::default();
            train(&tiny_store(), None, &resumed(&out), &observer).unwrap();
            assert_eq!(observer.warnings(), ["W_CHECKPOINT_DAMAGED"], "{file} {damage}");
            assert_eq!(observer.losses().len(), 5, "{file} {damage}: steps 7 to 11 are made from step 6");
            assert_same(&artefacts(&out), &expected);
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).unwrap()
}

#[test]
fn checkpoints_that_are_all_damaged_are_an_error_not_a_new_start() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    train(&tiny_store(), None, &options(&out), &Recorder::stopping_after(2)).unwrap_err();
    fs::write(out.join("checkpoints/step-0000002/weights.safetensors"), b"").unwrap();
    let error = train(&tiny_store(), None, &resumed(&out), &Unobserved).unwrap_err();
    assert_eq!(error.code(), "E_DAMAGED");
    assert!(error.to_string().contains("weights.safetensors"), "{error}");
}

#[test]
fn a_checkpoint_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    train(&tiny_store(), None, &options(&out), &Recorder::stopping_after(5)).unwrap_err();
    let path = out.join("checkpoints/step-0000005/MANIFEST.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"formatVersion\": 1", "\"formatVersion\": 2");
    fs::write(&path, text).unwrap();
    let error = train(&tiny_store(), None, &resumed(&out), &Unobserved).unwrap_err();
    assert_eq!(error.code(), "E_VERSION");
}

#[test]
fn a_run_is_resumed_only_as_itself() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    train(&tiny_store(), None, &options(&out), &Recorder::stopping_after(2)).unwrap_err();

    let other = TrainOptions { config: Config { lr: 1e-3, ..tiny() }, ..resumed(&out) };
    let error = train(&tiny_store(), None, &other, &Unobserved).unwrap_err();
    assert_eq!(error.code(), "E_RESUME");
    assert_eq!((&error.details()["option"], &error.details()["expected"]), (&"lr".into(), &"0.001".into()));

    let error = train(&synthetic(2, 13, 9, 12, 10).store, None, &resumed(&out), &Unobserved).unwrap_err();
    assert_eq!((error.code(), &error.details()["option"]), ("E_RESUME", &"store".into()));

    let error = train(&tiny_store(), None, &options(&out), &Unobserved).unwrap_err();
    assert_eq!(error.code(), "E_BUSY", "a run is not overwritten: {error}");

    let no_folder = TrainOptions { out: None, ..resumed(&out) };
    assert_eq!(train(&tiny_store(), None, &no_folder, &Unobserved).unwrap_err().code(), "E_OPTION");
}

#[test]
fn resuming_where_nothing_was_written_starts_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let observer = Recorder::default();
    train(&tiny_store(), None, &resumed(&out), &observer).unwrap();
    assert_eq!(observer.warnings(), ["W_NOTHING_TO_RESUME"]);
    assert_same(&artefacts(&out), &uninterrupted());
}

/// Tries to train into the folder while another run holds it.
struct Intruder<'a> {
    out: &'a Path,
    refused: AtomicUsize,
}

impl TrainObserver for Intruder<'_> {
    fn event(&self, event: &TrainEvent) {
        if let TrainEvent::Step { step: 4, .. } = event {
            let error = train(&tiny_store(), None, &resumed(self.out), &Unobserved).unwrap_err();
            assert_eq!(error.code(), "E_BUSY");
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_second_trainer_in_the_folder_is_refused_by_name_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let observer = Intruder { out: &out, refused: AtomicUsize::new(0) };
    train(&tiny_store(), None, &options(&out), &observer).unwrap();
    assert_eq!(observer.refused.into_inner(), 1);
    assert_same(&artefacts(&out), &uninterrupted());
}

/// A disk on which the n-th operation, and all after it, find no space.
struct Full {
    left: Arc<AtomicUsize>,
}

fn spend(left: &AtomicUsize) -> io::Result<()> {
    let spent = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    spent.map(drop).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))
}

struct FullFile {
    file: Box<dyn OutputFile>,
    left: Arc<AtomicUsize>,
}

impl Seek for FullFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Write for FullFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A disk fills up in the middle of a write.
        if let Err(error) = spend(&self.left) {
            self.file.write_all(&data[..data.len() / 2])?;
            return Err(error);
        }
        self.file.write(data)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl OutputFile for FullFile {
    fn sync(&mut self) -> io::Result<()> {
        spend(&self.left)?;
        self.file.sync()
    }
}

impl FileSystem for Full {
    fn create(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        spend(&self.left)?;
        Ok(Box::new(FullFile { file: Disk.create(path)?, left: Arc::clone(&self.left) }))
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn OutputFile>> {
        spend(&self.left)?;
        Ok(Box::new(FullFile { file: Disk.append(path)?, left: Arc::clone(&self.left) }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        Disk.create_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        Disk.create_dir_all(path)
    }
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        spend(&self.left)?;
        Disk.exchange(a, b)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        Disk.remove_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        spend(&self.left)?;
        Disk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        Disk.sync_dir(path)
    }
}

#[test]
fn saving_over_a_model_on_a_full_disk_leaves_the_old_model_or_the_new() {
    let train = |seed| train(&tiny_store(), None, &TrainOptions::new(Config { seed, ..tiny() }), &Unobserved).unwrap();
    let (old, new) = (train(1), train(2));
    let mut failures = 0;
    for n in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        old.save(&path).unwrap();
        let full = Full { left: Arc::new(AtomicUsize::new(n)) };
        let result = model_folder::save(&full, &new, &path);
        let found = Model::load(&path).unwrap().config.seed;
        assert!(found == 1 || found == 2, "operation {n}: seed {found}");
        let Err(error) = result else {
            assert_eq!(found, 2);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left beside the model");
            break;
        };
        assert_eq!(error.code(), "E_IO", "operation {n}: {error}");
        failures += 1;
    }
    // Two files (create, write, sync), the folders around them and the exchange.
    assert!(failures >= 10, "{failures}");
}

#[test]
fn a_disk_that_fills_up_at_any_operation_loses_nothing() {
    // Two checkpoints, so that the second is written beside a first.
    let config = Config { steps: 4, ..tiny() };
    let options = |out: &Path| TrainOptions { config: config.clone(), checkpoint_every: 2, ..options(out) };
    let folder = tempfile::tempdir().unwrap();
    train(&tiny_store(), None, &options(&folder.path().join("run")), &Unobserved).unwrap();
    let expected = artefacts(&folder.path().join("run"));
    let mut failures = 0;
    for n in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let files = Arc::new(Full { left: Arc::new(AtomicUsize::new(n)) });
        let Err(error) = train(&tiny_store(), None, &TrainOptions { files, ..options(&out) }, &Unobserved) else {
            break;
        };
        failures += 1;
        assert_eq!(error.code(), "E_IO", "operation {n}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("space")), "operation {n}: {error}");
        train(&tiny_store(), None, &TrainOptions { resume: true, ..options(&out) }, &Unobserved).unwrap();
        assert_same(&artefacts(&out), &expected);
        assert_eq!(Model::load(&out).unwrap().provenance.steps, 4);
    }
    // Two checkpoints of four files each (create, write, sync), with their folders, besides log and model.
    assert!(failures > 40, "{failures} operations failed");
}

#[test]
fn the_store_is_named_in_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    train(&tiny_store(), None, &options(&out), &Unobserved).unwrap();
    assert_eq!(Model::load(&out).unwrap().provenance.store, tiny_store().fingerprint());
}
