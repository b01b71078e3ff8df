//! COCO's masks: polygons, runs, and the PNG files of segment ids.
#![allow(clippy::unwrap_used)]

mod sets;

use std::fs;
use std::path::Path;

use lucid_data::{CocoSpec, DatasetSpec, PixelMask, open_dataset};
use serde_json::{Value, json};
use sets::{open, outline, refused};

/// A PNG of RGB pixels.
fn png(path: &Path, [width, height]: [u32; 2], pixel: impl Fn(u32, u32) -> [u8; 3]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> =
        (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

/// Two photos of 8 × 6 pixels with polygons, runs and segments.
fn coco(dir: &Path) -> Value {
    fs::create_dir_all(dir.join("photos")).unwrap();
    for name in ["a.jpg", "b.jpg"] {
        fs::write(dir.join("photos").join(name), name).unwrap();
    }
    let write = |name: &str, value: Value| {
        fs::write(dir.join(name), value.to_string()).unwrap();
        dir.join(name)
    };
    let image = |id: u64, name: &str| json!({ "id": id, "file_name": name, "width": 8, "height": 6 });
    let captions = json!({ "images": [image(1, "a.jpg"), image(2, "b.jpg")],
        "annotations": [{ "image_id": 1, "caption": "A" }, { "image_id": 2, "caption": "B" }] });
    let instances = json!({ "categories": [{ "id": 17, "name": "cat" }], "annotations": [
        { "id": 5, "image_id": 1, "category_id": 17, "bbox": [1, 2, 3, 2], "segmentation": [[1, 2, 4, 2, 4, 4, 1, 4]] },
        { "id": 6, "image_id": 2, "category_id": 17, "bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": { "size": [6, 8], "counts": [6, 12, 30] } },
        { "id": 7, "image_id": 99, "category_id": 17, "bbox": [0, 0, 8, 6], "segmentation": "of an image that is not here" }] });
    let categories = json!([{ "id": 17, "name": "cat", "isthing": 1 }, { "id": 187, "name": "sky", "isthing": 0 }]);
    let panoptic = json!({ "images": [], "categories": categories, "annotations": [
        { "image_id": 1, "file_name": "a.png", "segments_info": [
            { "id": 70_000, "category_id": 17, "bbox": [1, 2, 3, 2] }, { "id": 300, "category_id": 187, "bbox": [0, 0, 8, 2] }] },
        { "image_id": 99, "file_name": "../../leads/out.png", "segments_info": [] }] });
    fs::create_dir_all(dir.join("panoptic")).unwrap();
    // 300 = 44 + 256, 70,000 = 112 + 17 · 256 + 65,536.
    png(&dir.join("panoptic/a.png"), [8, 6], |x, y| match (x, y) {
        (_, 0..2) => [44, 1, 0],
        (1..4, 2..4) => [112, 17, 1],
        _ => [0, 0, 0],
    });
    json!({ "coco": {
        "images": dir.join("photos"),
        "captions": write("captions.json", captions),
        "instances": write("instances.json", instances),
        "panoptic": write("panoptic.json", panoptic),
        "masks": true,
    } })
}

fn masks(form: &Value) -> Vec<Vec<Option<PixelMask>>> {
    let set = open(form.clone());
    (0..set.len()).map(|i| set.pair(i).unwrap().boxes.into_iter().map(|b| b.mask).collect()).collect()
}

fn rectangle(x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> PixelMask {
    PixelMask::from_pixels([8, 6], |px, py| x.contains(&px) && y.contains(&py)).unwrap()
}

#[test]
fn masks_come_with_the_boxes_they_fill() {
    let dir = tempfile::tempdir().unwrap();
    let mut form = coco(dir.path());
    let cat = rectangle(1..4, 2..4);
    let sky = rectangle(0..8, 0..2);
    let crowd = rectangle(1..3, 0..6);
    assert_eq!(masks(&form), [vec![Some(cat.clone()), Some(sky.clone())], vec![Some(crowd)]]);
    assert_eq!(serde_json::to_value(open(form.clone()).spec()).unwrap()["coco"]["masks"], json!(true));
    form["coco"].as_object_mut().unwrap().remove("instances");
    assert_eq!(masks(&form), [vec![Some(cat), Some(sky)], vec![]]);
    form["coco"]["masks"] = json!(false);
    assert_eq!(masks(&form), [vec![None, None], vec![]]);
}

#[test]
fn bad_masks_name_the_annotation_or_the_picture() {
    let dir = tempfile::tempdir().unwrap();
    let form = coco(dir.path());
    let change = |file: &str, from: &str, to: &str| {
        let path = dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let refusal = refused(form.clone());
        fs::write(&path, text).unwrap();
        assert_eq!(refusal.0, "E_DATASET", "{}", refusal.1);
        refusal.1
    };
    let of_five = "[[1,2,4,2,4,4,1,4]]";
    for (to, says) in [
        ("[[1,2,4,2]]", "a polygon of 4 numbers"),
        ("[]", "no polygon"),
        ("null", "no `segmentation`"),
        ("7", "neither polygons nor runs"),
        ("{\"size\":[6,8],\"counts\":[1,2]}", "3 pixels in all, expected 48"),
        ("{\"size\":[2,2],\"counts\":[4]}", "a mask of 2 × 2 pixels, expected 8 × 6"),
    ] {
        let message = change("instances.json", of_five, to);
        assert!(message.contains("annotation 5") && message.contains(says), "{to}: {message}");
    }
    assert!(change("captions.json", "\"width\":8", "\"wide\":8").contains("no `width` and `height`"));
    assert!(change("panoptic.json", "a.png", "../a.png").contains("leads out"));
    // Pictures of segments are opened when the pair is, so they are a bad record, not a bad data set.
    let picture = dir.path().join("panoptic/a.png");
    let whole = fs::read(&picture).unwrap();
    let of_pair = || open(form.clone()).pair(0).unwrap_err();
    let say = |says: &str| {
        let error = of_pair();
        assert!(error.record() == Some("a.jpg") && error.to_string().contains(says), "{error}");
    };
    png(&picture, [8, 5], |_, _| [0; 3]);
    say("8 × 5 pixels, expected 8 × 6");
    png(&picture, [8, 6], |_, _| [0; 3]);
    say("no pixel of segment 300");
    fs::write(&picture, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(of_pair().code(), "E_IMAGE");
    fs::remove_file(&picture).unwrap();
    say("a.png");
    // A size that the captions file claims is no reason to make room for it.
    let captions = dir.path().join("captions.json");
    let text = fs::read_to_string(&captions).unwrap();
    fs::write(&captions, text.replace("\"width\":8", "\"width\":4000000000")).unwrap();
    let mut panoptic_only = form.clone();
    panoptic_only["coco"].as_object_mut().unwrap().remove("instances");
    let error = open(panoptic_only).pair(0).unwrap_err();
    assert!(error.code() == "E_IMAGE" && error.to_string().contains("expected 1 to 100000000"), "{error}");
    fs::write(&captions, text).unwrap();
    assert_eq!(outline(&*open(form.clone())), ["E_IMAGE a.jpg", "b.jpg"]);
    fs::remove_dir_all(dir.path().join("panoptic")).unwrap();
    let (code, message) = refused(form.clone());
    assert!(code == "E_DATASET" && message.contains("panoptic, which does not exist"), "{message}");
}

#[test]
fn the_masks_of_real_photos_fill_their_boxes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real/coco-train80");
    if !root.is_dir() {
        println!("SKIPPED the_masks_of_real_photos_fill_their_boxes: {} is absent", root.display());
        return;
    }
    let set = open_dataset(&DatasetSpec::Coco(CocoSpec {
        images: root.join("train2017"),
        captions: root.join("annotations/captions_train2017.json"),
        instances: Some(root.join("annotations/instances_train2017.json")),
        panoptic: None,
        masks: true,
    }))
    .unwrap();
    let mut seen = 0;
    for index in 0..set.len() {
        for b in set.pair(index).unwrap().boxes {
            let mask = b.mask.clone().unwrap();
            let [width, height] = mask.size();
            let pixels = mask.pixels();
            let inside = (0..pixels.len()).filter(|&at| pixels[at]).map(|at| [at as u32 % width, at as u32 / width]);
            let edges = inside
                .fold([width, height, 0, 0], |[l, t, r, d], [x, y]| [l.min(x), t.min(y), r.max(x + 1), d.max(y + 1)]);
            let [left, top, right, bottom] = edges.map(f64::from);
            let within =
                left >= b.x - 1.0 && top >= b.y - 1.0 && right <= b.x + b.width + 1.0 && bottom <= b.y + b.height + 1.0;
            // Tips thinner than a pixel are lost, half pixels at the edges too.
            let filled = (right - left + 1.0) * (bottom - top + 1.0) > 0.9 * b.width * b.height;
            assert!(
                mask.area() < 30 || (within && filled),
                "{edges:?} for {:?} of pair {index}",
                [b.x, b.y, b.width, b.height]
            );
            seen += 1;
        }
    }
    assert!(seen > 400, "{seen}");
}
