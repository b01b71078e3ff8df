//! Flickr's caption files, Karpathy's JSON, img2dataset's folders and tables, and COCO's panoptic file.
#![allow(clippy::unwrap_used)]

mod sets;

use std::fs;
use std::path::Path;

use lucid_data::Dataset;
use serde_json::{Value, json};
use sets::{open, outline, records, refused, skipping};

fn photos(dir: &Path, names: &[&str]) {
    for name in names {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

fn listing(set: &dyn Dataset) -> Vec<(String, String)> {
    records(set).into_iter().map(|r| (r.key, r.captions.join("|"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(k, c)| (k.to_string(), c.to_string())).collect()
}

fn flickr(dir: &Path, name: &str, content: &str) -> Value {
    fs::write(dir.join(name), content).unwrap();
    json!({ "flickr": { "images": dir.join("photos"), "captions": dir.join(name) } })
}

#[test]
fn flickr_token_files_and_tables_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"), &["20.jpg", "3.jpg"]);
    let files = [
        ("results.token", "20.jpg#1\tA dog , running\n20.jpg#0\t A dog .\n3.jpg#0\tTwo \"cats\"\n"),
        ("captions.txt", "image,caption\n20.jpg,A dog .\n20.jpg,\"A dog , running\"\n3.jpg,\"Two \"\"cats\"\"\"\n"),
        (
            "results.csv",
            "image_name| comment_number| comment\n20.jpg| 0| A dog .\n20.jpg| 1| A dog , running\n3.jpg| 0| Two \"cats\"\n",
        ),
        ("table.tsv", "filename\tcaption\n20.jpg#1\tA dog , running\n20.jpg#0\tA dog .\n3.jpg\tTwo \"cats\"\n"),
        (
            "dataset.json",
            r#"{"dataset":"flickr8k","images":[{"filename":"20.jpg","imgid":0,"split":"train","sentences":[{"raw":" A dog .","tokens":["a"]},{"raw":"A dog , running"}]},
                {"filename":"3.jpg","split":"test","sentences":[{"raw":"Two \"cats\""}]}]}"#,
        ),
    ];
    let expected = pairs(&[("20.jpg", "A dog .|A dog , running"), ("3.jpg", "Two \"cats\"")]);
    for (name, content) in files {
        assert_eq!(listing(&*open(flickr(dir.path(), name, content))), expected, "{name}");
    }
}

#[test]
fn karpathy_splits_and_coco_folders() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"), &["val2014/a.jpg", "train2014/b.jpg", "c.jpg"]);
    let image = |name: &str, folder: &str, split: &str| json!({ "filename": name, "filepath": folder, "split": split, "sentences": [{ "raw": name }] });
    let file = json!({ "images": [image("a.jpg", "val2014", "test"), image("b.jpg", "train2014", "train"), image("c.jpg", "val2014", "restval")] });
    let mut form = flickr(dir.path(), "dataset_coco.json", &file.to_string());
    assert_eq!(outline(&*open(form.clone())), ["val2014/a.jpg", "train2014/b.jpg", "c.jpg"]);
    form["flickr"]["split"] = json!("train+restval");
    assert_eq!(outline(&*open(form.clone())), ["train2014/b.jpg", "c.jpg"]);
    let portable =
        json!({ "flickr": { "images": "photos", "captions": "dataset_coco.json", "split": "train+restval" } });
    assert_eq!(serde_json::to_value(open(form.clone()).spec()).unwrap(), portable);
    form["flickr"]["split"] = json!("dev");
    assert_eq!(refused(form).0, "E_EMPTY");
    let mut form = flickr(dir.path(), "a.token", "c.jpg#0\tx\n");
    form["flickr"]["split"] = json!("test");
    assert!(refused(form).1.contains("Karpathy"));
}

#[test]
fn flickr_files_that_make_no_sense_are_refused_by_line() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"), &["1.jpg"]);
    let long = "x".repeat(10_000);
    let odd = "nul \0 \u{202e}rtl\u{202c} \u{1f600}";
    let good = flickr(dir.path(), "good.token", &format!("1.jpg#0\t{long}\n1.jpg#1\t{odd}\n1.jpg#2\t \n"));
    assert_eq!(open(good).pair(0).unwrap().captions, [long, odd.to_string()]);
    for (name, content, code, part) in [
        ("a.token", "1.jpg#0\tx\n2.jpg 0 y\n", "E_DATASET", "a.token:2"),
        ("a.token", "1.jpg#zero\tx\n", "E_DATASET", "a.token:1"),
        ("a.token", "1.jpg#0\t  \n", "E_NO_CAPTION", "1.jpg"),
        ("a.token", "1.jpg#0\tx\n2.jpg#0\ty\n", "E_IMAGE", "2.jpg"),
        ("a.token", "1.jpg#0\tx\n../1.jpg#0\ty\n", "E_DATASET", "leads out"),
        ("a.txt", "", "E_DATASET", "token file"),
        ("a.csv", "picture,words\n1.jpg,x\n", "E_DATASET", "token file"),
        ("a.csv", "image,caption\n1.jpg,x, y\n", "E_DATASET", "a.csv:2"),
        ("a.json", "{\"images\": [", "E_DATASET", "Karpathy"),
        ("a.json", "{\"images\": [{\"filename\": \"1.jpg\", \"sentences\": []}]}", "E_NO_CAPTION", "1.jpg"),
        (
            "a.json",
            "{\"images\": [{\"filename\": \"1.jpg\", \"sentences\": [{\"raw\": \"x\"}]}, {\"filename\": \"1.jpg\", \"sentences\": [{\"raw\": \"x\"}]}]}",
            "E_DATASET",
            "images[1]",
        ),
    ] {
        let (found, message) = refused(flickr(dir.path(), name, content));
        assert!(found == code && message.contains(part), "{content}: {found} {message}");
    }
    let form = flickr(dir.path(), "b.token", "1.jpg#0\tx\n2.jpg#0\ty\n");
    let set = skipping(form);
    assert_eq!((set.len(), set.skipped().len(), set.skipped()[0].key.as_str()), (1, 1, "2.jpg"));
}

#[test]
fn img2dataset_folders_read_the_json_before_the_text() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path(), &["00000/000000001.jpg", "00000/000000000.jpg", "00001/000010000.webp"]);
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("00000/000000000.txt", "zero");
    write(
        "00000/000000001.json",
        r#"{"caption":"one\nwith a break","url":"https://example.org/x.jpg","status":"success"}"#,
    );
    write("00000/000000001.txt", "one\nwith a break");
    write("00001/000010000.json", r#"{"url":"x"}"#);
    write("00001/000010000.txt", "far");
    write("00000_stats.json", "{}");
    let form = json!({ "cc3m": { "images": dir.path() } });
    let expected = [
        ("00000/000000000.jpg", "zero"),
        ("00000/000000001.jpg", "one\nwith a break"),
        ("00001/000010000.webp", "far"),
    ];
    assert_eq!(listing(&*open(form.clone())), pairs(&expected));
    fs::remove_file(dir.path().join("00000/000000000.txt")).unwrap();
    let (code, message) = refused(form.clone());
    assert!(code == "E_NO_CAPTION" && message.contains("000000000.jpg"), "{message}");
    write("00001/000010000.json", "{oops");
    let set = skipping(form);
    assert_eq!((set.len(), set.skipped().len()), (1, 2));
}

#[test]
fn tables_of_captions_and_addresses_find_their_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let table = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    // By row, as img2dataset names them: the second address was gone.
    let images = dir.path().join("numbered");
    photos(&images, &["00000/000000000.jpg", "00000/000000002.jpg"]);
    let rows = "a cat\thttps://e.org/p/x.jpg?w=3\na dog\thttps://e.org/y.jpg\na bird\thttps://e.org/z\n";
    let form = json!({ "cc3m": { "images": images, "captions": table("cc3m.tsv", rows) } });
    let (code, message) = refused(form.clone());
    assert!(code == "E_IMAGE" && message.contains("cc3m.tsv:2"), "{message}");
    let set = skipping(form);
    assert_eq!(listing(&*set), pairs(&[("00000/000000000.jpg", "a cat"), ("00000/000000002.jpg", "a bird")]));
    assert_eq!(set.skipped().len(), 1);
    // The header is no row, and its columns may stand the other way round.
    let turned = "url\tcaption\nhttps://e.org/x.jpg\ta cat\nhttps://e.org/y.jpg\t \nhttps://e.org/z\ta bird\n";
    let form = json!({ "cc3m": { "images": images, "captions": table("turned.tsv", turned) } });
    assert_eq!(
        listing(&*skipping(form)),
        pairs(&[("00000/000000000.jpg", "a cat"), ("00000/000000002.jpg", "a bird")])
    );
    // By address.
    let images = dir.path().join("named");
    photos(&images, &["x.jpg", "y.jpg"]);
    let rows = "why\thttps://e.org/y.jpg\nex\thttps://e.org/p/x.jpg?w=3#top\n";
    let form = json!({ "cc3m": { "images": images, "captions": table("named.tsv", rows) } });
    assert_eq!(listing(&*open(form)), pairs(&[("y.jpg", "why"), ("x.jpg", "ex")]));
    for (rows, code, part) in [
        ("a\thttps://e.org/x.jpg\n", "E_NO_CAPTION", "y.jpg"),
        ("a\thttps://e.org/x.jpg\nb\thttps://f.org/x.jpg\n", "E_DATASET", "earlier row"),
        ("a\n", "E_DATASET", "bad.tsv:1"),
        ("https://e.org/x.jpg\ta\n", "E_DATASET", "no address"),
        (" \thttps://e.org/x.jpg\nb\thttps://e.org/y.jpg\n", "E_NO_CAPTION", "bad.tsv:1"),
    ] {
        let form = json!({ "cc3m": { "images": images, "captions": table("bad.tsv", rows) } });
        let (found, message) = refused(form);
        assert!(found == code && message.contains(part), "{rows:?}: {found} {message}");
    }
    // Numbers that may be either are not guessed at.
    let images = dir.path().join("either");
    photos(&images, &["0.jpg", "1.jpg"]);
    let rows = "a\thttps://e.org/1.jpg\nb\thttps://e.org/0.jpg\n";
    let form = json!({ "cc3m": { "images": images, "captions": table("either.tsv", rows) } });
    assert!(refused(form).1.contains("open whether"));
}

/// Two photos with two captions; the second has an instance.
fn coco(dir: &Path) -> Value {
    photos(&dir.join("photos"), &["a.jpg", "b.jpg"]);
    let write = |name: &str, value: Value| {
        fs::write(dir.join(name), value.to_string()).unwrap();
        dir.join(name)
    };
    let captions = json!({ "images": [{ "id": 1, "file_name": "a.jpg" }, { "id": 2, "file_name": "b.jpg" }],
        "annotations": [{ "image_id": 1, "caption": "A" }, { "image_id": 2, "caption": "B" }] });
    let instances = json!({ "categories": [{ "id": 17, "name": "cat" }],
        "annotations": [{ "id": 5, "image_id": 2, "category_id": 17, "bbox": [1.25, 2, 3, 4] }] });
    let categories = json!([{ "id": 17, "name": "cat", "isthing": 1, "color": [1, 2, 3] }, { "id": 187, "name": "sky-other-merged", "isthing": 0 }]);
    let segment = |id: u64, category: u64, bbox: [u32; 4], crowd: u8| json!({ "id": id, "category_id": category, "bbox": bbox, "iscrowd": crowd, "area": 9 });
    let panoptic = json!({ "images": [], "categories": categories, "annotations": [
        { "image_id": 2, "file_name": "b.png", "segments_info": [segment(7, 17, [1, 2, 3, 4], 1), segment(8, 187, [0, 0, 9, 3], 0), segment(9, 187, [0, 0, 0, 3], 0)] },
        { "image_id": 99, "file_name": "c.png", "segments_info": [segment(7, 17, [1, 2, 3, 4], 0)] }] });
    json!({ "coco": {
        "images": dir.join("photos"),
        "captions": write("captions.json", captions),
        "instances": write("instances.json", instances),
        "panoptic": write("panoptic.json", panoptic),
    } })
}

#[test]
fn panoptic_adds_stuff_to_instances_or_gives_both() {
    let dir = tempfile::tempdir().unwrap();
    let mut form = coco(dir.path());
    let boxes = |form: &Value| {
        let set = open(form.clone());
        assert_eq!(set.skipped().iter().map(|s| s.key.as_str()).collect::<Vec<_>>(), ["2#9"]);
        assert!(set.pair(0).unwrap().boxes.is_empty());
        let boxes = set.pair(1).unwrap().boxes;
        boxes.into_iter().map(|b| (b.category.unwrap(), b.x, b.crowd)).collect::<Vec<_>>()
    };
    let (cat, sky) = ("cat".to_string(), "sky-other-merged".to_string());
    assert_eq!(boxes(&form), [(cat.clone(), 1.25, false), (sky.clone(), 0.0, false)]);
    assert!(!serde_json::to_string(&open(form.clone()).spec()).unwrap().contains(dir.path().to_str().unwrap()));
    form["coco"].as_object_mut().unwrap().remove("instances");
    assert_eq!(boxes(&form), [(cat, 1.0, true), (sky, 0.0, false)]);
    let path = dir.path().join("panoptic.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"id\":187,", "\"id\":188,")).unwrap();
    assert!(refused(form.clone()).1.contains("category 187"));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(refused(form).1.contains("panoptic.json"));
}

#[test]
fn coco_keys_and_ids_that_repeat_are_refused_naming_both() {
    let dir = tempfile::tempdir().unwrap();
    let form = coco(dir.path());
    let path = dir.path().join("captions.json");
    let text = fs::read_to_string(&path).unwrap();
    for (bad, parts) in
        [(text.replace("b.jpg", "a.jpg"), ["id 1", "id 2"]), (text.replace("\"id\":2", "\"id\":1"), ["a.jpg", "b.jpg"])]
    {
        fs::write(&path, bad).unwrap();
        let (code, message) = refused(form.clone());
        assert!(code == "E_DATASET" && parts.iter().all(|p| message.contains(p)), "{message}");
        assert_eq!(outline(&*skipping(form.clone())), ["a.jpg"]);
    }
}
