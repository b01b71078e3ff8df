//! Small data sets for the tests of the readers.
// Every test binary uses some of these.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

pub mod parquet;
pub mod server;

use std::fs::File;
use std::path::{Path, PathBuf};

use lucid_data::{
    BoxAnnotation, Dataset, DatasetSpec, ImageSource, OnBad, PairRecord, open_dataset, open_dataset_with,
};
use serde_json::Value;

/// What every form of the same data has to agree on.
#[derive(Debug, PartialEq, Clone)]
pub struct Record {
    pub key: String,
    pub bytes: Vec<u8>,
    pub captions: Vec<String>,
    pub boxes: Vec<BoxAnnotation>,
}

pub fn plain(record: PairRecord) -> Record {
    let bytes = match record.image {
        ImageSource::File(path) => std::fs::read(path).unwrap(),
        ImageSource::Encoded(bytes) => bytes,
        ImageSource::Rgb { .. } => panic!("no file"),
    };
    Record { key: record.key, bytes, captions: record.captions, boxes: record.boxes }
}

pub fn spec(form: Value) -> DatasetSpec {
    serde_json::from_value(form).unwrap()
}

pub fn open(form: Value) -> Box<dyn Dataset> {
    open_dataset(&spec(form)).unwrap()
}

pub fn skipping(form: Value) -> Box<dyn Dataset> {
    open_dataset_with(&spec(form), OnBad::Skip).unwrap()
}

pub fn records(set: &dyn Dataset) -> Vec<Record> {
    set.stream(0).map(|r| plain(r.unwrap())).collect()
}

/// Code and message with which a data set is refused.
pub fn refused(form: Value) -> (&'static str, String) {
    let error = open_dataset(&spec(form)).err().expect("the data set must be refused");
    (error.code(), error.to_string())
}

/// Keys of good records, codes of bad ones.
pub fn outline(set: &dyn Dataset) -> Vec<String> {
    set.stream(0).map(|r| r.map_or_else(|e| format!("{} {}", e.code(), e.record().unwrap_or("-")), |r| r.key)).collect()
}

/// A tar file of regular members, names as they are given.
pub fn tar_bytes<B: AsRef<[u8]>>(members: &[(&str, B)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, body) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.as_ref().len() as u64);
        header.set_mode(0o644);
        if name.len() > 99 {
            builder.append_data(&mut header, name, body.as_ref()).unwrap();
        } else {
            // Written by hand, since the builder refuses names that lead out.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, body.as_ref()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

pub fn tar<B: AsRef<[u8]>>(path: &Path, members: &[(&str, B)]) {
    std::fs::write(path, tar_bytes(members)).unwrap();
}

/// The folder of real photos, or `None` with the reason printed.
pub fn real(test: &str, name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real").join(name);
    if path.is_dir() {
        return Some(path);
    }
    println!("SKIPPED {test}: ../shared/real/{name} is not here");
    None
}

pub fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn create(path: &Path) -> File {
    File::create(path).unwrap()
}
