//! The data sets: generated scenes, COCO, folders; what they read, what they refuse and what they leave out.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use lucid_data::scenes::Split;
use lucid_data::{CocoSpec, DatasetSpec, FolderSpec, ImageSource, OnBad, ScenesSpec, open_dataset, open_dataset_with};
use serde_json::json;

/// The folder of real photos, or `None` with the reason printed.
fn real(test: &str, name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real").join(name);
    if path.is_dir() {
        return Some(path);
    }
    println!("SKIPPED {test}: ../shared/real/{name} is not here");
    None
}

fn folder(images: &Path) -> DatasetSpec {
    DatasetSpec::Folder(FolderSpec { images: images.into(), captions: None, uncaptioned: false })
}

fn error_code(spec: &DatasetSpec) -> (&'static str, String) {
    let error = open_dataset(spec).err().expect("the data set must be refused");
    (error.code(), error.to_string())
}

fn keys(spec: &DatasetSpec, on_bad: OnBad) -> Vec<String> {
    let set = open_dataset_with(spec, on_bad).unwrap();
    (0..set.len()).map(|i| set.pair(i).unwrap().key).collect()
}

#[test]
fn descriptions_have_the_forms_of_the_interface_and_lose_their_paths() {
    let forms = [
        json!({ "scenes": { "pairs": 200, "seed": 4, "split": "held-out" } }),
        json!({ "coco": { "images": "/data/val2017", "captions": "/data/c.json", "instances": "/data/i.json" } }),
        json!({ "folder": "/data/photos" }),
        json!({ "folder": { "images": "/data/photos", "captions": "/data/captions.tsv" } }),
    ];
    for form in &forms {
        let spec: DatasetSpec = serde_json::from_value(form.clone()).unwrap();
        assert_eq!(&serde_json::to_value(&spec).unwrap(), form);
        assert!(!serde_json::to_string(&spec.portable()).unwrap().contains("/data"));
    }
    let short: DatasetSpec = serde_json::from_value(json!({ "scenes": { "pairs": 3 } })).unwrap();
    assert_eq!(short, DatasetSpec::Scenes(ScenesSpec { pairs: 3, seed: 0, split: Split::Train, edits: false }));
    for bad in [
        json!({ "scenes": { "pairs": 3, "sed": 1 } }),
        json!({ "coco": { "images": "a" } }),
        json!({ "folders": "x" }),
        json!({ "folder": "x", "caption": "y" }),
    ] {
        assert!(serde_json::from_value::<DatasetSpec>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn scenes_come_with_boxes_and_phrases_that_lie_in_the_caption() {
    let set = open_dataset(&DatasetSpec::Scenes(ScenesSpec { pairs: 40, seed: 4, split: Split::Train, edits: false }))
        .unwrap();
    assert_eq!(set.len(), 40);
    let mut phrases = 0;
    for i in 0..set.len() {
        let pair = set.pair(i).unwrap();
        assert_eq!(pair, set.pair(i).unwrap());
        let ImageSource::Rgb { width: 112, height: 112, data } = &pair.image else { panic!("{:?}", pair.key) };
        assert_eq!(data.len(), 3 * 112 * 112);
        assert!(!pair.boxes.is_empty() && pair.captions.len() == 1);
        for b in &pair.boxes {
            assert!(b.width >= 1.0 && b.x + b.width <= 112.0 && b.y + b.height <= 112.0);
            if let Some([start, end]) = b.phrase {
                assert!(!pair.captions[0][start..end].is_empty());
                phrases += 1;
            }
        }
    }
    assert!(phrases > 20, "{phrases} phrases");
    assert_eq!(set.pair(40).unwrap_err().code(), "E_SHAPE");
    assert_eq!(
        error_code(&DatasetSpec::Scenes(ScenesSpec { pairs: 0, seed: 0, split: Split::All, edits: false })).0,
        "E_OPTION"
    );
}

/// A small COCO set of three images; the first has a crowd region, the second a box without area.
fn small_coco(dir: &Path) -> DatasetSpec {
    let images = dir.join("photos");
    fs::create_dir(&images).unwrap();
    for name in ["b.jpg", "a.jpg", "c.jpg"] {
        fs::write(images.join(name), b"not decoded here").unwrap();
    }
    let captions = json!({ "info": {}, "images": [
        { "id": 2, "file_name": "b.jpg", "width": 640, "height": 480, "license": 1 },
        { "id": 1, "file_name": "a.jpg", "width": 30, "height": 40 },
        { "id": 3, "file_name": "c.jpg", "width": 10, "height": 10 } ],
        "annotations": [
        { "image_id": 1, "id": 10, "caption": " A cat. \n" }, { "image_id": 2, "id": 11, "caption": "First" },
        { "image_id": 2, "id": 12, "caption": "Second" }, { "image_id": 3, "id": 13, "caption": "C" } ] });
    let instances = json!({ "images": [], "categories": [{ "id": 17, "name": "cat", "supercategory": "animal" }],
        "annotations": [
        { "id": 1, "image_id": 2, "category_id": 17, "bbox": [1.5, 2, 3, 4], "iscrowd": 1, "area": 1, "segmentation": { "counts": [1, 2], "size": [3, 4] } },
        { "id": 2, "image_id": 1, "category_id": 17, "bbox": [0, 0, 0, 4], "iscrowd": 0, "area": 0, "segmentation": [[1, 2, 3, 4]] },
        { "id": 3, "image_id": 99, "category_id": 17, "bbox": [0, 0, 5, 4], "iscrowd": 0 } ] });
    let (c, i) = (dir.join("captions.json"), dir.join("instances.json"));
    fs::write(&c, captions.to_string()).unwrap();
    fs::write(&i, instances.to_string()).unwrap();
    DatasetSpec::Coco(CocoSpec { images, captions: c, instances: Some(i), panoptic: None, masks: false })
}

#[test]
fn coco_keeps_order_captions_sizes_and_crowds() {
    let dir = tempfile::tempdir().unwrap();
    let spec = small_coco(dir.path());
    let set = open_dataset(&spec).unwrap();
    assert_eq!(set.len(), 3);
    let first = set.pair(0).unwrap();
    assert_eq!(
        (first.key.as_str(), first.size, first.captions.as_slice()),
        ("b.jpg", Some((640, 480)), &["First".into(), "Second".into()][..])
    );
    assert_eq!((first.boxes[0].x, first.boxes[0].category.as_deref(), first.boxes[0].crowd), (1.5, Some("cat"), true));
    let second = set.pair(1).unwrap();
    assert_eq!((second.captions, second.boxes.len()), (vec!["A cat.".to_string()], 0));
    assert_eq!(set.skipped()[0].key, "1#2");
    assert!(!serde_json::to_string(&set.spec()).unwrap().contains(dir.path().to_str().unwrap()));
}

#[test]
fn coco_with_a_missing_photo_or_caption_stops_or_skips_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let spec = small_coco(dir.path());
    let DatasetSpec::Coco(CocoSpec { images, captions, .. }) = &spec else { unreachable!() };
    fs::remove_file(images.join("a.jpg")).unwrap();
    let (code, message) = error_code(&spec);
    assert_eq!(code, "E_IMAGE");
    assert!(message.contains("a.jpg"), "{message}");
    let text = fs::read_to_string(captions).unwrap().replace("\"C\"", "\"  \"");
    fs::write(captions, text).unwrap();
    fs::write(images.join("a.jpg"), b"x").unwrap();
    let (code, message) = error_code(&spec);
    assert_eq!(code, "E_NO_CAPTION");
    assert!(message.contains("c.jpg"), "{message}");
    fs::remove_file(images.join("a.jpg")).unwrap();
    let set = open_dataset_with(&spec, OnBad::Skip).unwrap();
    assert_eq!(set.len(), 1);
    let mut reasons: Vec<_> = set.skipped().iter().map(|s| (s.key.as_str(), s.code.as_str())).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [("1#2", "E_DATASET"), ("a.jpg", "E_IMAGE"), ("c.jpg", "E_NO_CAPTION")]);
}

#[test]
fn coco_files_that_make_no_sense_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let spec = small_coco(dir.path());
    let DatasetSpec::Coco(CocoSpec { captions, instances: Some(instances), images, .. }) = &spec else {
        unreachable!()
    };
    let good = fs::read_to_string(captions).unwrap();
    for (bad, expected) in [
        (String::new(), "empty"),
        (good[..good.len() / 2].to_string(), "COCO's form"),
        (good.replace("\"b.jpg\"", "\"../../etc/passwd\""), "leads out"),
        (good.replace("\"b.jpg\"", "\"/etc/passwd\""), "leads out"),
        (good.replace("\"id\":3,", "\"id\":1,"), "stands for both"),
        (good.replace("\"image_id\":3", "\"image_id\":33"), "no caption"),
    ] {
        fs::write(captions, &bad).unwrap();
        let (code, message) = error_code(&spec);
        assert!(message.contains(expected) && (code == "E_DATASET" || code == "E_NO_CAPTION"), "{code}: {message}");
    }
    fs::write(captions, &good).unwrap();
    fs::write(instances, fs::read_to_string(instances).unwrap().replace("\"id\":17,", "\"id\":18,")).unwrap();
    assert!(error_code(&spec).1.contains("category 17"));
    let gone = DatasetSpec::Coco(CocoSpec {
        images: images.join("nowhere"),
        captions: captions.clone(),
        ..CocoSpec::default()
    });
    assert_eq!(error_code(&gone).0, "E_IO");
}

/// A folder with the images `1.png 2.png 10.png`; their content is not looked at on opening.
fn three_images(dir: &Path) {
    for name in ["10.png", "2.png", "1.png"] {
        fs::write(dir.join(name), name).unwrap();
    }
}

#[test]
fn folders_read_every_kind_of_caption_file_alike() {
    let tables = [
        (
            "captions.jsonl",
            "{\"file\":\"1.png\",\"caption\":\"one\"}\n\n{\"image\":\"2.png\",\"text\":[\"two\",\"zwei, \\\"deux\\\"\"]}\n{\"file_name\":\"10.png\",\"caption\":\"ten\"}\n",
        ),
        ("captions.csv", "file,caption\n1.png,one\n2.png,two\n2.png,\"zwei, \"\"deux\"\"\"\n10.png,ten\n"),
        (
            "captions.tsv",
            "split\tfile_name\ttext\na\t1.png\tone\na\t2.png\ttwo\na\t2.png\tzwei, \"deux\"\na\t10.png\tten\n",
        ),
        (
            "metadata.jsonl",
            "{\"file_name\":\"1.png\",\"text\":\"one\"}\n{\"file_name\":\"2.png\",\"text\":\"two\"}\n{\"file_name\":\"2.png\",\"text\":\"zwei, \\\"deux\\\"\"}\n{\"file_name\":\"10.png\",\"text\":\"ten\"}",
        ),
        ("captions.txt", "image,caption\n1.png,one\n2.png,two\n2.png,\"zwei, \"\"deux\"\"\"\n10.png,ten\n"),
        ("caption.txt", "one\n\ntwo\nzwei, \"deux\"\n\nten\n"),
    ];
    for (name, content) in tables {
        for explicit in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let images = dir.path().join("photos");
            fs::create_dir(&images).unwrap();
            three_images(&images);
            let file = if explicit { dir.path().join(name) } else { images.join(name) };
            fs::write(&file, format!("\u{feff}{content}")).unwrap();
            let set = open_dataset(&DatasetSpec::Folder(FolderSpec {
                images,
                captions: explicit.then_some(file),
                uncaptioned: false,
            }))
            .unwrap();
            let read: Vec<_> =
                (0..set.len()).map(|i| set.pair(i).unwrap()).map(|p| (p.key, p.captions.join("|"))).collect();
            let expected = [("1.png", "one"), ("2.png", "two|zwei, \"deux\""), ("10.png", "ten")]
                .map(|(k, c)| (k.to_string(), c.to_string()));
            assert_eq!(read, expected, "{name}, explicit {explicit}");
        }
    }
}

#[test]
fn same_name_texts_and_sub_folders_are_read() {
    let dir = tempfile::tempdir().unwrap();
    three_images(dir.path());
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("x.JPG"), b"x").unwrap();
    for (file, text) in [("1.txt", "one\n\nuno\n"), ("2.txt", "two"), ("10.txt", "ten"), ("sub/x.txt", "ex")] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    assert_eq!(keys(&folder(dir.path()), OnBad::Stop), ["1.png", "2.png", "10.png", "sub/x.JPG"]);
    assert_eq!(open_dataset(&folder(dir.path())).unwrap().pair(0).unwrap().captions, ["one", "uno"]);
    fs::write(dir.path().join("2.txt"), " \n").unwrap();
    fs::remove_file(dir.path().join("10.txt")).unwrap();
    assert_eq!(error_code(&folder(dir.path())).0, "E_NO_CAPTION");
    let set = open_dataset_with(&folder(dir.path()), OnBad::Skip).unwrap();
    assert_eq!((set.len(), set.skipped().len()), (2, 2));
    assert!(set.skipped()[0].reason.contains("is empty") && set.skipped()[1].reason.contains("does not exist"));
}

#[test]
fn folders_that_make_no_sense_are_refused_by_line() {
    let cases = [
        ("captions.jsonl", "{\"file\":\"1.png\",\"caption\":\"a\"}\n{oops}\n", "E_DATASET", "captions.jsonl:2"),
        ("captions.jsonl", "{\"caption\":\"a\"}\n", "E_DATASET", "no field `file`"),
        ("captions.jsonl", "{\"file\":\"1.png\",\"caption\":7}\n", "E_DATASET", "neither a text"),
        ("captions.jsonl", "{\"file\":\"../1.png\",\"caption\":\"a\"}\n", "E_DATASET", "leads out"),
        ("captions.jsonl", "{\"file\":\"1.png\",\"caption\":\"a\",\"boxes\":[[0,0,0,3]]}\n", "E_DATASET", "no area"),
        ("captions.csv", "name,words\n1.png,a\n", "E_DATASET", "name, words"),
        ("captions.csv", "file,caption\n1.png,a, b\n", "E_DATASET", "captions.csv:2"),
        ("captions.csv", "file,caption\n1.png,a\n3.png,b\n", "E_IMAGE", "3.png"),
        ("captions.csv", "file,caption\n1.png,a\n2.png,b\n", "E_NO_CAPTION", "10.png"),
        ("captions.csv", "file,caption\n1.png,a\n2.png,\n10.png,b\n", "E_NO_CAPTION", "2.png"),
        ("caption.txt", "a\n\nb\n", "E_DATASET", "2 groups of captions, expected 3"),
    ];
    for (name, content, code, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        three_images(dir.path());
        fs::write(dir.path().join(name), content).unwrap();
        let (found, message) = error_code(&folder(dir.path()));
        assert!(found == code && message.contains(part), "{content}: {found} {message}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(error_code(&folder(dir.path())).0, "E_EMPTY");
    assert_eq!(error_code(&folder(&dir.path().join("nowhere"))).0, "E_IO");
    fs::write(dir.path().join("captions.jsonl"), b"\xff\xfe").unwrap();
    assert!(error_code(&folder(dir.path())).1.contains("UTF-8"));
}

#[test]
fn jsonl_boxes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.png"), b"x").unwrap();
    let row = json!({ "file": "a.png", "caption": "a", "boxes": [[1, 2, 3, 4], { "x": 0, "y": 0, "width": 5, "height": 6, "category": "cat" }] });
    let images = dir.path();
    fs::write(images.join("captions.jsonl"), row.to_string()).unwrap();
    let boxes = open_dataset(&folder(images)).unwrap().pair(0).unwrap().boxes;
    assert_eq!((boxes[0].width, boxes[1].height, boxes[1].category.as_deref()), (3.0, 6.0, Some("cat")));
}

#[test]
fn agreement_leaves_false_captions_out() {
    let dir = tempfile::tempdir().unwrap();
    three_images(dir.path());
    fs::write(dir.path().join("caption.txt"), "a\nb\n\nc\nd\n\ne\nf\n\n").unwrap();
    fs::write(dir.path().join("agreement.txt"), "1.0;0.0\n0.0;0.0\n1.0;1.0\n").unwrap();
    let set = open_dataset(&folder(dir.path())).unwrap();
    let read: Vec<_> = (0..set.len()).map(|i| set.pair(i).unwrap()).map(|p| (p.key, p.captions.join(","))).collect();
    assert_eq!(read, [("1.png".to_string(), "a".to_string()), ("10.png".into(), "e,f".into())]);
    assert_eq!((set.skipped().len(), set.skipped()[0].key.as_str()), (1, "2.png"));
    fs::write(dir.path().join("agreement.txt"), "1.0;0.0\n0.0\n1.0;1.0\n").unwrap();
    assert!(error_code(&folder(dir.path())).1.contains("agreement.txt:2"));
}

#[test]
fn the_real_coco_photos_open() {
    for (name, split, pairs) in [("coco-train80", "train2017", 80), ("coco-val113", "val2017", 113)] {
        let Some(root) = real("the_real_coco_photos_open", name) else { return };
        let spec = DatasetSpec::Coco(CocoSpec {
            images: root.join(split),
            captions: root.join(format!("annotations/captions_{split}.json")),
            instances: Some(root.join(format!("annotations/instances_{split}.json"))),
            panoptic: None,
            masks: false,
        });
        let set = open_dataset(&spec).unwrap();
        assert_eq!(set.len(), pairs);
        // One of the val2017 boxes has no area.
        assert!(set.skipped().iter().all(|s| s.key.contains('#')) && set.skipped().len() == usize::from(pairs == 113));
        let records: Vec<_> = (0..pairs).map(|i| set.pair(i).unwrap()).collect();
        assert!(records.iter().all(|r| r.captions.len() == 5 && r.size.is_some()));
        let crowds = records.iter().flat_map(|r| &r.boxes).filter(|b| b.crowd).count();
        assert_eq!(crowds, if pairs == 80 { 8 } else { 0 });
    }
}

#[test]
fn shapeworld_opens_as_a_folder() {
    let Some(root) = real("shapeworld_opens_as_a_folder", "shapeworld") else { return };
    let set = open_dataset(&folder(&root)).unwrap();
    assert_eq!(set.len() + set.skipped().len(), 200);
    assert!(set.len() > 150);
    let one = open_dataset(&folder(&root.join("existential-oneshape"))).unwrap();
    let first = one.pair(0).unwrap();
    assert_eq!(first.key, "world-0.png");
    assert_eq!(
        first.captions,
        ["a shape is a yellow ellipse .", "there is a yellow ellipse .", "an ellipse is yellow ."]
    );
    assert_eq!(first.boxes[0].category.as_deref(), Some("yellow ellipse"));
    let (width, _) = first.size.unwrap();
    assert!((first.boxes[0].x / f64::from(width) - 0.358760417122722).abs() < 1e-12);
}

#[test]
fn a_folder_without_captions_is_read_by_the_names_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["IMG_0012.jpg", "red-kite 2.png", "---.png", "deep/cat.webp"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"no picture, and not read here").unwrap();
    }
    let spec: DatasetSpec = serde_json::from_value(serde_json::json!({
        "folder": { "images": folder.path(), "captions": false }
    }))
    .unwrap();
    let set = open_dataset(&spec).unwrap();
    let found: Vec<(String, Vec<String>)> =
        (0..set.len()).map(|i| set.pair(i).unwrap()).map(|pair| (pair.key, pair.captions)).collect();
    let expected = [
        ("---.png", "picture"),
        ("IMG_0012.jpg", "IMG 0012"),
        ("red-kite 2.png", "red kite 2"),
        ("deep/cat.webp", "cat"),
    ];
    assert_eq!(found, expected.map(|(key, caption)| (key.to_owned(), vec![caption.to_owned()])));
    assert_eq!(serde_json::to_value(&spec).unwrap()["folder"]["captions"], false);
    // Without the flag such a folder has no pair.
    let plain = DatasetSpec::Folder(FolderSpec { images: folder.path().into(), captions: None, uncaptioned: false });
    assert_eq!(error_code(&plain).0, "E_NO_CAPTION");
}
