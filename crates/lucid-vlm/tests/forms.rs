//! The same photos as Parquet, folder, webdataset and COCO give the same store, to the last bit.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use lucid_data::progress::Silent;
use lucid_data::{ImageSource, open_dataset};
use lucid_vlm::{ExtractOptions, extract};
use serde_json::{Value, json};

/// The pictures of a Parquet file, written in every other form, one of which tells the size before decoding.
fn forms(dir: &Path, parquet: &Path) -> Vec<Value> {
    let parquet = json!({ "parquet": parquet });
    let set = open_dataset(&serde_json::from_value(parquet.clone()).unwrap()).unwrap();
    let photos = dir.join("photos");
    fs::create_dir(&photos).unwrap();
    let (mut lines, mut images, mut annotations) = (Vec::new(), Vec::new(), Vec::new());
    let mut shard = tar::Builder::new(fs::File::create(dir.join("0.tar")).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        shard.append_data(&mut header, name, bytes).unwrap();
    };
    for (id, record) in set.stream(0).enumerate() {
        let record = record.unwrap();
        let ImageSource::Encoded(bytes) = &record.image else { panic!("no bytes") };
        fs::write(photos.join(&record.key), bytes).unwrap();
        lines.push(json!({ "image": record.key, "text": record.captions }).to_string());
        let base = record.key.split('.').next().unwrap().to_string();
        add(record.key.clone(), bytes);
        add(format!("{base}.txt"), record.captions.join("\n").as_bytes());
        images.push(json!({ "id": id, "file_name": record.key, "width": 4, "height": 3 }));
        annotations.extend(record.captions.iter().map(|c| json!({ "image_id": id, "caption": c })));
    }
    shard.finish().unwrap();
    fs::write(photos.join("captions.jsonl"), lines.join("\n")).unwrap();
    let captions = json!({ "images": images, "annotations": annotations });
    fs::write(dir.join("captions.json"), captions.to_string()).unwrap();
    vec![
        parquet,
        json!({ "folder": photos }),
        json!({ "webdataset": dir.join("0.tar") }),
        json!({ "coco": { "images": photos, "captions": dir.join("captions.json") } }),
    ]
}

#[test]
fn four_forms_of_the_same_photos_give_the_same_store() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lucid-data/tests/fixtures/nested-snappy.parquet");
    let dir = tempfile::tempdir().unwrap();
    let backbone = common::small_backbone();
    let mut fingerprints = Vec::new();
    for (i, form) in forms(dir.path(), &fixture).into_iter().enumerate() {
        let set = open_dataset(&serde_json::from_value(form).unwrap()).unwrap();
        let done =
            extract(&backbone, &*set, &ExtractOptions::new(dir.path().join(format!("acts-{i}"))), &Silent).unwrap();
        assert_eq!((done.manifest.pairs, done.manifest.captions), (4, 5));
        fingerprints.push(done.manifest.fingerprint);
    }
    assert!(fingerprints.iter().all(|f| *f == fingerprints[0]), "{fingerprints:?}");
}
