//! webdataset shards in files: samples, names, and everything that may be wrong with a tar.
#![allow(clippy::unwrap_used)]

mod sets;

use std::fs;
use std::path::Path;

use lucid_data::DatasetSpec;
use serde_json::json;
use sets::{Record, open, outline, records, refused, skipping, tar, tar_bytes};

const SHARD: [(&str, &[u8]); 8] = [
    ("README.md", b"words"),
    ("0001.jpg", b"first"),
    ("0001.json", br#"{"caption":" A cat. ","boxes":[[1,2,3,4]],"other":1}"#),
    ("0001.txt", b"not this"),
    ("./sub/0002.PNG", b"second"),
    ("./sub/0002.cls", b"7"),
    ("./sub/0002.txt", b"One\n\n Two \n"),
    ("sub/.hidden.jpg", b"x"),
];

fn shards(dir: &Path, shards: &[Vec<u8>]) -> String {
    for (i, bytes) in shards.iter().enumerate() {
        fs::write(dir.join(format!("{i:03}.tar")), bytes).unwrap();
    }
    format!("{}/{{000..{:03}}}.tar", dir.display(), shards.len() - 1)
}

fn one(dir: &Path, bytes: &[u8]) -> serde_json::Value {
    json!({ "webdataset": shards(dir, &[bytes.to_vec()]) })
}

#[test]
fn samples_are_read_by_name_in_the_order_of_the_shards() {
    let dir = tempfile::tempdir().unwrap();
    let pattern = shards(dir.path(), &[tar_bytes(&SHARD), tar_bytes(&[("z.webp", "third"), ("z.caption", "Three")])]);
    let set = open(json!({ "webdataset": pattern }));
    let expected =
        [("0001.jpg", "first", "A cat."), ("sub/0002.PNG", "second", "One|Two"), ("z.webp", "third", "Three")];
    let found = records(&*set);
    let short: Vec<_> =
        found.iter().map(|r| (r.key.as_str(), std::str::from_utf8(&r.bytes).unwrap(), r.captions.join("|"))).collect();
    assert_eq!(short, expected.map(|(k, b, c)| (k, b, c.to_string())));
    assert_eq!((found[0].boxes.len(), found[0].boxes[0].width, found[1].boxes.len()), (1, 3.0, 0));
    assert_eq!((set.len(), set.count(), set.learnt().is_null()), (3, Some(3), true));
    assert_eq!(sets::plain(set.pair(2).unwrap()), found[2]);
    assert_eq!(set.stream(2).count(), 1);
    assert_eq!(set.pair(3).unwrap_err().code(), "E_SHAPE");
    assert_eq!(serde_json::to_value(set.spec()).unwrap(), json!({ "webdataset": "{000..001}.tar" }));
    // The same shards by a star, a list and their folder.
    for form in [
        json!(format!("{}/0*.tar", dir.path().display())),
        json!([dir.path().join("000.tar"), dir.path().join("001.tar")]),
        json!({ "urls": dir.path() }),
    ] {
        assert_eq!(records(&*open(json!({ "webdataset": form }))), found);
    }
}

#[test]
fn a_caption_field_and_an_image_extension_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let members =
        [("a.jpg", "photo"), ("a.json", r#"{"alt":["x","y"],"caption":"no"}"#), ("a.png", "mask"), ("a.txt", "no")];
    let pattern = shards(dir.path(), &[tar_bytes(&members)]);
    let (code, message) = refused(json!({ "webdataset": pattern }));
    assert!(code == "E_DATASET" && message.contains("a.jpg") && message.contains("a.png"), "{message}");
    let set = open(json!({ "webdataset": { "urls": pattern, "caption": "alt", "image": "JPG" } }));
    let found = records(&*set);
    assert_eq!((found[0].bytes.as_slice(), found[0].captions.join("|")), (&b"photo"[..], "x|y".into()));
    let set = open(json!({ "webdataset": { "urls": pattern, "caption": "nowhere", "image": "jpg" } }));
    let error = set.pair(0).unwrap_err();
    assert!(error.code() == "E_NO_CAPTION" && error.to_string().contains("alt, caption"), "{error}");
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(150));
    let mut gnu = tar_bytes(&[(&*format!("{long}.jpg"), "g"), (&*format!("{long}.txt"), "G")]);
    // Two archives in one: PAX names after GNU names, without the mark of the end between them.
    gnu.truncate(gnu.len() - 1024);
    let mut builder = tar::Builder::new(gnu);
    for (extension, body) in [("jpg", "p"), ("txt", "P")] {
        let name = format!("pax/{long}.{extension}");
        builder.append_pax_extensions([("path", name.as_bytes()), ("mtime", b"1.5".as_slice())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(1);
        header.set_cksum();
        builder.append(&header, body.as_bytes()).unwrap();
    }
    let form = one(dir.path(), &builder.into_inner().unwrap());
    let record = |key: String, bytes: &str, caption: &str| Record {
        key,
        bytes: bytes.into(),
        captions: vec![caption.into()],
        boxes: Vec::new(),
    };
    let expected = [record(format!("{long}.jpg"), "g", "G"), record(format!("pax/{long}.jpg"), "p", "P")];
    assert_eq!(records(&*open(form)), expected);
}

type Members<'a> = &'a [(&'a str, &'a str)];

#[test]
fn bad_samples_stop_by_name_or_are_listed() {
    let good = [("b.jpg", "b"), ("b.txt", "B")];
    let cases: [(Members<'_>, &str, &str); 9] = [
        (&[("../a.jpg", "x"), ("../a.txt", "A")], "E_DATASET", "../a.jpg"),
        (&[("/etc/a.jpg", "x"), ("/etc/a.txt", "A")], "E_DATASET", "/etc/a.jpg"),
        (&[("a.jpg", "x")], "E_NO_CAPTION", "a.jpg"),
        (&[("a.txt", "A"), ("a.tiff", "x")], "E_IMAGE", "tiff"),
        (&[("a.jpg", "x"), ("a.jpeg", "y"), ("a.txt", "A")], "E_DATASET", "a.jpeg"),
        (&[("a.jpg", "x"), ("a.txt", "A"), ("a.txt", "B")], "E_DATASET", "two members"),
        (&[("a.jpg", "x"), ("a.txt", "A"), ("c.jpg", "x"), ("c.txt", "C"), ("a.json", "{}")], "E_DATASET", "follow"),
        (&[("a.jpg", "x"), ("a.txt", "A"), ("a.jpg", "x"), ("a.txt", "A")], "E_DATASET", "two members \"a.jpg\""),
        (&[("x/a.jpg", "x"), ("x/a.txt", "A"), ("y/a.jpg", "x"), ("y/a.txt", "A")], "", ""),
    ];
    for (members, code, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        let form = one(dir.path(), &tar_bytes(&[members, &good[..]].concat()));
        if code.is_empty() {
            assert_eq!(outline(&*open(form)), ["x/a.jpg", "y/a.jpg", "b.jpg"]);
            continue;
        }
        let (found, message) = refused(form.clone());
        assert!(
            found == code && message.contains(part) && message.contains("000.tar"),
            "{members:?}: {found} {message}"
        );
        let set = skipping(form);
        assert!(outline(&*set).contains(&"b.jpg".to_string()), "{members:?}: {:?}", outline(&*set));
        // Names that lead out are refused one by one.
        let expected = if part.starts_with(['.', '/']) { 2 } else { 1 };
        assert_eq!((set.skipped().len(), set.skipped()[0].code.as_str()), (expected, code), "{members:?}");
    }
}

#[test]
fn what_only_reading_shows_is_a_bad_record_at_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let members: [(&str, &[u8]); 12] = [
        ("a.jpg", b"a"),
        ("a.txt", b" \n\t\n"),
        ("b.jpg", b"b"),
        ("b.json", b"{oops"),
        ("c.jpg", b"c"),
        ("c.txt", b"\xff\xfe"),
        ("d.jpg", b"d"),
        ("d.json", br#"{"caption":7}"#),
        ("e.jpg", b"e"),
        ("e.json", br#"{"caption":"e","boxes":[[0,0,0,1]]}"#),
        ("f.jpg", b"f"),
        ("f.json", br#"{"caption":null,"title":"x"}"#),
    ];
    let mut all: Vec<(&str, &[u8])> = members.to_vec();
    let long = "z".repeat(10_000);
    let odd = "nul \0 here, \u{202e}right to left\u{202c} שלום, \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
    all.extend([("g.jpg", b"g".as_slice()), ("g.txt", long.as_bytes()), ("h.jpg", b"h"), ("h.txt", odd.as_bytes())]);
    let set = open(one(dir.path(), &tar_bytes(&all)));
    let expected = [
        "E_NO_CAPTION a.jpg",
        "E_DATASET b.jpg",
        "E_DATASET c.jpg",
        "E_DATASET d.jpg",
        "E_DATASET e.jpg",
        "E_NO_CAPTION f.jpg",
        "g.jpg",
        "h.jpg",
    ];
    assert_eq!(outline(&*set), expected);
    assert_eq!(set.pair(6).unwrap().captions, [long]);
    assert_eq!(set.pair(7).unwrap().captions, [odd]);
}

#[test]
fn shards_that_are_cut_off_or_no_tar_are_named() {
    let whole = tar_bytes(&SHARD);
    let (header, body) = (512usize, 512usize);
    let second = 2 * (header + body);
    // Within a header, within a body, between members, within the end mark.
    for cut in [second + 100, second + header + 3, second + header + body, whole.len() - 1024, 700, 512, 0] {
        let dir = tempfile::tempdir().unwrap();
        let good = tar_bytes(&[("z.jpg", "z"), ("z.txt", "Z")]);
        let form = json!({ "webdataset": shards(dir.path(), &[whole[..cut].to_vec(), good]) });
        let (code, message) = refused(form.clone());
        assert!(code == "E_DATASET" && message.contains("000.tar") && message.contains("cut off"), "{cut}: {message}");
        let set = skipping(form);
        let last = set.skipped().last().unwrap();
        assert_eq!((last.key.as_str(), last.code.as_str()), ("000.tar", "E_DATASET"), "{cut}");
        assert_eq!(outline(&*set).last().unwrap(), "z.jpg");
    }
    let dir = tempfile::tempdir().unwrap();
    let (code, message) = refused(one(dir.path(), &b"\x1f\x8b compressed".repeat(100)));
    assert!(code == "E_DATASET" && message.contains("unpacked first"), "{message}");
}

/// The header of a member, without its body.
fn member(name: &str, size: u64, kind: tar::EntryType) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn no_length_in_a_tar_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    for (bytes, part) in [
        (member("a.jpg", 1 << 40, tar::EntryType::Regular), "cut off"),
        (member("a.jpg", u64::MAX, tar::EntryType::Regular), "tar"),
        (member("a.jpg", 1 << 30, tar::EntryType::GNULongName), "at most"),
        (member("a.jpg", 1 << 30, tar::EntryType::XHeader), "at most"),
    ] {
        let (code, message) = refused(one(dir.path(), &bytes));
        assert!(code == "E_DATASET" && message.contains(part), "{message}");
    }
}

/// The member is there and over the limit: a hole in the file, so that it takes no space.
#[cfg(unix)]
#[test]
fn a_member_over_the_limit_is_a_bad_sample() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000.tar");
    let file = fs::File::create(&path).unwrap();
    let size = (256 << 20) + 512;
    let head = member("a.jpg", size, tar::EntryType::Regular);
    let rest = tar_bytes(&[("a.txt", "A"), ("b.jpg", "b"), ("b.txt", "B")]);
    std::os::unix::fs::FileExt::write_all_at(&file, &head, 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &rest, 512 + size).unwrap();
    let form = json!({ "webdataset": path });
    let (code, message) = refused(form.clone());
    assert!(code == "E_DATASET" && message.contains("a.jpg") && message.contains("at most"), "{message}");
    assert_eq!(outline(&*skipping(form)), ["b.jpg"]);
}

#[test]
fn a_key_in_two_shards_is_refused_naming_both() {
    let dir = tempfile::tempdir().unwrap();
    let shard = tar_bytes(&[("a.jpg", "a"), ("a.txt", "A")]);
    let pattern = shards(dir.path(), &[shard.clone(), shard]);
    let (code, message) = refused(json!({ "webdataset": pattern }));
    assert!(code == "E_DATASET" && message.contains("000.tar") && message.contains("001.tar"), "{message}");
    let set = skipping(json!({ "webdataset": pattern }));
    assert_eq!((set.len(), set.skipped().len()), (1, 1));
    let first = dir.path().join("000.tar");
    let (code, message) = refused(json!({ "webdataset": [first, format!("{}/000*.tar", dir.path().display())] }));
    assert!(code == "E_DATASET" && message.contains("again by"), "{message}");
}

#[test]
fn patterns_that_name_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| json!({ "webdataset": format!("{}/{name}", dir.path().display()) });
    assert_eq!(refused(at("none.tar")).0, "E_IO");
    assert!(refused(at("*.tar")).1.contains("no file matches"));
    assert!(refused(at("")).1.contains("no file matches"));
    assert!(refused(at("{0..")).1.contains('}'));
    assert!(refused(json!({ "webdataset": "gs://bucket/a.tar" })).1.contains("gs://"));
    let message = refused(json!({ "webdataset": "https://me:secret@example.org/a.tar" })).1;
    assert!(!message.contains("secret"), "{message}");
    tar(&dir.path().join("empty.tar"), &[("README.md", "words")]);
    assert_eq!(refused(at("empty.tar")).0, "E_EMPTY");
    for bad in [json!({ "webdataset": [] }), json!({ "webdataset": 3 }), json!({ "webdataset": { "url": "a" } })] {
        assert!(serde_json::from_value::<DatasetSpec>(bad).is_err());
    }
}
