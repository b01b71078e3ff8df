//! The same photos as COCO, folder, webdataset and Parquet give the same records.
#![allow(clippy::unwrap_used)]

mod sets;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sets::server::{Faults, Server};
use sets::{Record, open, records, tar_bytes};

/// Writes `given` in every other form and returns the forms.
fn forms(dir: &Path, given: &[Record]) -> Vec<(&'static str, Value)> {
    let mut forms = Vec::new();
    let photos = dir.join("photos");
    fs::create_dir(&photos).unwrap();
    for record in given {
        fs::write(photos.join(&record.key), &record.bytes).unwrap();
    }
    let lines: Vec<String> = given
        .iter()
        .map(|r| json!({ "file_name": r.key, "captions": r.captions, "boxes": r.boxes }).to_string())
        .collect();
    fs::write(dir.join("captions.jsonl"), lines.join("\n")).unwrap();
    forms.push(("folder", json!({ "folder": { "images": photos, "captions": dir.join("captions.jsonl") } })));

    let mut files = HashMap::new();
    for (i, chunk) in given.chunks(given.len().div_ceil(3)).enumerate() {
        let members: Vec<(String, Vec<u8>)> = chunk
            .iter()
            .flat_map(|r| {
                let text = json!({ "captions": r.captions, "boxes": r.boxes }).to_string().into_bytes();
                [(r.key.clone(), r.bytes.clone()), (format!("{}.json", r.key.split('.').next().unwrap()), text)]
            })
            .collect();
        let bytes = tar_bytes(&members.iter().map(|(n, b)| (n.as_str(), b)).collect::<Vec<_>>());
        fs::write(dir.join(format!("{i:02}.tar")), &bytes).unwrap();
        files.insert(format!("/{i:02}.tar"), bytes);
    }
    forms.push(("webdataset", json!({ "webdataset": format!("{}/{{00..02}}.tar", dir.display()) })));
    let server = Server::start(files, Faults::default());
    forms.push(("remote webdataset", json!({ "webdataset": format!("http://{}/{{00..02}}.tar", server.address) })));

    for (i, chunk) in given.chunks(given.len().div_ceil(2)).enumerate() {
        sets::parquet::write(&dir.join(format!("{i}.parquet")), chunk, 7);
    }
    forms.push(("parquet", json!({ "parquet": format!("{}/*.parquet", dir.display()) })));

    let images: Vec<Value> = given
        .iter()
        .map(|r| {
            let sentences: Vec<Value> = r.captions.iter().map(|c| json!({ "raw": c })).collect();
            json!({ "filename": r.key, "split": "train", "sentences": sentences })
        })
        .collect();
    fs::write(dir.join("karpathy.json"), json!({ "images": images }).to_string()).unwrap();
    forms.push(("flickr", json!({ "flickr": { "images": photos, "captions": dir.join("karpathy.json") } })));
    forms
}

/// Parquet and Flickr's files carry no boxes.
fn without_boxes(records: &[Record]) -> Vec<Record> {
    records.iter().map(|r| Record { boxes: Vec::new(), ..r.clone() }).collect()
}

fn compare(given: &[Record]) {
    let dir = tempfile::tempdir().unwrap();
    for (name, form) in forms(dir.path(), given) {
        let found = records(&*open(form));
        match name {
            "parquet" | "flickr" => assert_eq!(found, without_boxes(given), "{name}"),
            _ => assert_eq!(found, given, "{name}"),
        }
    }
}

#[test]
fn made_up_records_are_the_same_in_every_form() {
    let record = |i: usize| Record {
        key: format!("{i:012}.jpg"),
        bytes: (0..5000 + i).map(|b| (b * (i + 7)) as u8).collect(),
        captions: (0..=i % 3).map(|c| format!("caption {c} of {i}, with \"quotes\", עברית and \u{1f98a}")).collect(),
        boxes: Vec::new(),
    };
    compare(&(0..20).map(record).collect::<Vec<_>>());
}

#[test]
fn real_photos_are_the_same_in_every_form() {
    let Some(root) = sets::real("real_photos_are_the_same_in_every_form", "coco-train80") else { return };
    let set = open(json!({ "coco": {
        "images": root.join("train2017"),
        "captions": root.join("annotations/captions_train2017.json"),
        "instances": root.join("annotations/instances_train2017.json"),
    } }));
    let mut given = records(&*set);
    // A folder is in the order of its names; the other forms keep any order.
    given.sort_by(|a, b| a.key.cmp(&b.key));
    assert!(given.len() == 80 && given[0].key == "000000000790.jpg" && given.iter().any(|r| !r.boxes.is_empty()));
    compare(&given);
}
