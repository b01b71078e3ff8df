//! A disk that fails at any point leaves the old store or the new one, and a typed error.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use common::failing::Failing;
use common::{caption, options, pair, sample};
use lucid_data::DataError;
use lucid_data::progress::Silent;
use lucid_data::publish::{Disk, FileSystem, OutputFile};
use lucid_data::store::*;

fn write_on(system: Failing, path: &Path, overwrite: bool) -> Result<Manifest, DataError> {
    let mut writer =
        StoreWriter::create_on(Arc::new(system), path, StoreOptions { overwrite, ..options(Precision::F32) })?;
    let text = [1.0f32; 3];
    for i in 0..5 {
        let result = writer.append(&pair(&format!("{i}.png"), &[i as f32; 8], &[caption("a", &text)]));
        if let Err(error) = result {
            assert_eq!(writer.append(&pair("next.png", &[0.0; 4], &[caption("a", &text)])).unwrap_err().code(), "E_IO");
            assert_eq!(writer.finish().unwrap_err().code(), "E_IO");
            return Err(error);
        }
    }
    writer.finish()
}

#[test]
fn whichever_operation_fails_the_old_state_or_the_new_one_is_there() {
    let counting = Failing::new(0);
    let dir = tempfile::tempdir().unwrap();
    write_on(counting.clone(), &dir.path().join("acts"), false).unwrap();
    let operations = counting.calls();
    assert!(operations > 40, "{operations} operations");
    for replace in [false, true] {
        for limit in 1..=operations {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("acts");
            if replace {
                sample(1).write_to(&path, options(Precision::F16)).unwrap();
            }
            let error = write_on(Failing::new(limit), &path, replace).expect_err("the operation fails");
            assert_eq!(error.code(), "E_IO", "operation {limit}: {error}");
            assert!(
                error.to_string().contains("acts") || error.to_string().contains(dir.path().to_str().unwrap()),
                "{error}"
            );
            assert!(error.hint().unwrap().contains("space"), "{error}");
            let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            // Only the very last operation, the sync of the parent, comes after the store has its name.
            let expected = usize::from(replace || limit == operations);
            assert_eq!(names.len(), expected, "operation {limit}: {names:?}");
            if expected == 1 {
                let reader = StoreReader::open(&path).unwrap();
                assert!(reader.verify(&Silent).unwrap().is_ok());
                assert_eq!(reader.pairs(), if limit == operations { 5 } else { 1 });
            }
        }
    }
}

#[test]
fn leftovers_of_a_killed_program_with_the_same_process_id_are_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..500 {
        fs::create_dir(dir.path().join(format!(".acts.tmp-{}-{number}", std::process::id()))).unwrap();
    }
    sample(2).write_to(&dir.path().join("acts"), options(Precision::F32)).unwrap();
    assert_eq!(StoreReader::open(&dir.path().join("acts")).unwrap().pairs(), 2);
}

/// Every write goes to `/dev/full`, which answers as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_a_typed_error() {
    struct Full;
    impl FileSystem for Full {
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            Disk.create_dir(path)
        }
        fn create(&self, _: &Path) -> io::Result<Box<dyn OutputFile>> {
            Ok(Box::new(fs::OpenOptions::new().write(true).open("/dev/full")?))
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            Disk.sync_dir(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            Disk.rename(from, to)
        }
        fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
            Disk.exchange(a, b)
        }
        fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
            Disk.remove_dir_all(path)
        }
    }
    if !Path::new("/dev/full").exists() {
        println!("SKIPPED a_full_device_is_a_typed_error: there is no /dev/full here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut writer = StoreWriter::create_on(Arc::new(Full), &dir.path().join("acts"), options(Precision::F32)).unwrap();
    let error = writer.append(&pair("a.png", &[1.0; 4], &[caption("a", &[1.0; 3])])).unwrap_err();
    let DataError::Io { file, source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(file.ends_with("shard-000000.safetensors"), "{error}");
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
