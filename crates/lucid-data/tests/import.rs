//! Importing activations: every source gives the same store, and every form that is not read is refused with its fix.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use lucid_data::import::{Activations, ImportOptions, Lengths, import_activations};
use lucid_data::progress::Silent;
use lucid_data::store::{ActivationSource, AnnotatedSource, KIND_CONTENT, Precision, StoreReader, UNKNOWN_TOKEN};
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};

/// 3 pairs, 4 patches of width 2, texts of 1, 3 and 2 tokens of width 3. All values survive f16.
const LENGTHS: [u64; 3] = [1, 3, 2];

fn vision() -> Vec<f32> {
    (0..24).map(|i| i as f32 * 0.25 - 2.0).collect()
}

fn text() -> Vec<f32> {
    (0..18).map(|i| i as f32 * 0.5).collect()
}

/// The texts padded to 3 tokens; padding is NaN, so that reading it is an error.
fn padded_text() -> Vec<f32> {
    let mut rows = text().chunks(3).map(<[f32]>::to_vec).collect::<Vec<_>>().into_iter();
    let mut out = Vec::new();
    for n in LENGTHS {
        for t in 0..3 {
            out.extend(if t < n { rows.next().unwrap() } else { vec![f32::NAN; 3] });
        }
    }
    out
}

fn npy(descr: &str, order: &str, shape: &[usize], data: &[u8], version: u8) -> Vec<u8> {
    let shape = shape.iter().map(|n| format!("{n},")).collect::<Vec<_>>().join(" ");
    let mut header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': ({shape}), }}");
    let start = if version == 1 { 10 } else { 12 };
    while (start + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn f64s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn flat<'a>(data: &'a [f32]) -> Activations<'a> {
    Activations::F32 { data, shape: Vec::new() }
}

fn run(o: ImportOptions, dir: &Path) -> StoreReader {
    let path = dir.join("acts");
    import_activations(ImportOptions { overwrite: true, precision: Precision::F32, ..o }, &path, &Silent).unwrap();
    StoreReader::open(&path).unwrap()
}

fn check(store: &StoreReader, what: &str) {
    assert_eq!((store.pairs(), store.d_vision(), store.d_text()), (3, 2, 3), "{what}");
    let (mut v, mut t) = (Vec::new(), Vec::new());
    for i in 0..3 {
        let mut a = vec![0.0; store.vision_len(i) * 2];
        store.read_vision(i, &mut a).unwrap();
        v.extend(a);
        assert_eq!(store.text_len(i, 0) as u64, LENGTHS[i], "{what}");
        let mut b = vec![0.0; store.text_len(i, 0) * 3];
        store.read_text(i, 0, &mut b).unwrap();
        t.extend(b);
    }
    assert_eq!((v, t), (vision(), text()), "{what}");
}

#[test]
fn arrays_npy_and_safetensors_give_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (v, t, padded) = (vision(), text(), padded_text());
    let (v64, t64): (Vec<f64>, Vec<f64>) =
        (v.iter().map(|&x| x.into()).collect(), t.iter().map(|&x| x.into()).collect());
    let lengths = || Some(Lengths::Values(LENGTHS.to_vec()));
    let base =
        |vision, text| ImportOptions { text_lengths: lengths(), d_vision: Some(2), ..ImportOptions::new(vision, text) };

    check(&run(base(flat(&v), flat(&t)), d), "flat arrays");
    check(&run(base(flat(&v), Activations::F32 { data: &padded, shape: vec![3, 3, 3] }), d), "padded array");
    let o = ImportOptions { d_text: Some(3), ..base(flat(&v), flat(&padded)) };
    check(&run(o, d), "flat padded array of known width");
    let o =
        base(Activations::F64 { data: &v64, shape: vec![12, 2] }, Activations::F64 { data: &t64, shape: vec![6, 3] });
    check(&run(o, d), "doubles");
    let o =
        ImportOptions { d_vision: None, vision_lengths: Some(Lengths::Values(vec![4; 3])), ..base(flat(&v), flat(&t)) };
    check(&run(o, d), "widths from the lengths");

    for (version, descr, bytes) in
        [(1, "'<f4'", f32s as fn(&[f32]) -> Vec<u8>), (2, "'<f8'", f64s), (3, "\"<f2\"", f16s)]
    {
        let vision = put(d, "v.npy", &npy(descr, "False", &[3, 4, 2], &bytes(&v), version));
        let ragged = put(d, "t.npy", &npy(descr, "False", &[6, 3], &bytes(&t), version));
        let full = put(d, "p.npy", &npy(descr, "False", &[3, 3, 3], &bytes(&padded), version));
        let counts: Vec<u8> = LENGTHS.iter().flat_map(|n| n.to_le_bytes()).collect();
        let counts = put(d, "n.npy", &npy("'<i8'", "False", &[3], &counts, version));
        for text in [ragged, full] {
            let o = ImportOptions {
                text_lengths: Some(Lengths::File(counts.clone())),
                ..ImportOptions::new(Activations::File(vision.clone()), Activations::File(text))
            };
            check(&run(o, d), &format!("{descr} version {version}"));
        }
    }

    let (vb, tb) = (f32s(&v), f16s(&t));
    let counts: Vec<u8> = LENGTHS.iter().flat_map(|&n| (n as i32).to_le_bytes()).collect();
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [
        ("vision", view(Dtype::F32, &[3, 4, 2], &vb)),
        ("text", view(Dtype::F16, &[6, 3], &tb)),
        ("textLengths", view(Dtype::I32, &[3], &counts)),
    ];
    let one = put(d, "all.safetensors", &safetensors::serialize(tensors, None).unwrap());
    check(
        &run(ImportOptions::new(Activations::File(one.clone()), Activations::File(one.clone())), d),
        "one safetensors file",
    );
    let named = |name: &str| Activations::Tensor { file: one.clone(), name: name.into() };
    check(&run(ImportOptions::new(named("vision"), named("text")), d), "named tensors");
}

#[test]
fn names_captions_grid_and_origin_are_kept_without_paths() {
    let dir = tempfile::tempdir().unwrap();
    let (v, t) = (vision(), text());
    let file = put(dir.path(), "v.npy", &npy("'<f4'", "False", &[3, 4, 2], &f32s(&v), 1));
    let o = ImportOptions {
        text_lengths: Some(Lengths::Values(LENGTHS.to_vec())),
        images: Some(["a.jpg", "b.jpg", "c.jpg"].map(String::from).to_vec()),
        captions: Some(["A", "B c", "D"].map(String::from).to_vec()),
        provenance: serde_json::json!({ "backbone": "somebody's" }),
        ..ImportOptions::new(Activations::File(file), flat(&t))
    };
    let store = run(o.clone(), dir.path());
    assert_eq!((store.key(1), store.info(1).captions[0].as_str(), store.info(1).vision_grid), ("b.jpg", "B c", [2, 2]));
    let tokens = store.text_tokens(1, 0);
    assert_eq!(
        (tokens.ids, tokens.kinds, tokens.spans),
        (&[UNKNOWN_TOKEN; 3][..], &[KIND_CONTENT; 3][..], &[[0, 0]; 3][..])
    );
    let provenance = store.manifest().provenance.to_string();
    assert!(
        provenance.contains("v.npy")
            && provenance.contains("somebody")
            && !provenance.contains(dir.path().to_str().unwrap())
    );
    assert_eq!(run(ImportOptions { vision_grid: Some([1, 4]), ..o.clone() }, dir.path()).info(0).vision_grid, [1, 4]);
    assert_eq!(run(ImportOptions { images: None, ..o }, dir.path()).key(2), "pair-000002");
}

#[test]
fn files_in_other_forms_are_refused_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (v, t) = (f32s(&vision()), text());
    let good = npy("'<f4'", "False", &[3, 4, 2], &v, 1);
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("a.npy", npy("'<f4'", "True", &[3, 4, 2], &v, 1), "Fortran order", "ascontiguousarray"),
        ("a.npy", npy("'|O'", "False", &[3], b"\x80\x04pickle", 1), "Python objects", "allow_pickle=False"),
        ("a.npy", npy("[('x', '<f4')]", "False", &[24], &v, 1), "records", "astype"),
        ("a.npy", npy("'>f4'", "False", &[3, 4, 2], &v, 1), "big-endian", "<f4"),
        ("a.npy", npy("'<i4'", "False", &[3, 4, 2], &v, 1), "<i4", "astype"),
        ("a.npy", npy("'<f4'", "False", &[3, 4, 3], &v, 1), "truncated or has a tail", "numpy.save"),
        ("a.npy", npy("'<f4'", "False", &[usize::MAX, 4, 2], &v, 1), "truncated or has a tail", "numpy.save"),
        ("a.npy", good[..good.len() - 1].to_vec(), "truncated", "numpy.save"),
        ("a.npy", good[..50].to_vec(), "header", "numpy.save"),
        ("a.npy", b"PK\x03\x04".to_vec(), "npz", "numpy.save"),
        ("a.npy", b"\x80\x04\x95pickle".to_vec(), "Python objects", "astype"),
        ("a.npy", b"hello, world".to_vec(), "\\x93NUMPY", "numpy.save"),
        ("a.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff{}".to_vec(), "16 MiB", "safetensors"),
        ("a.safetensors", b"short".to_vec(), "shorter", "safetensors"),
        ("a.pt", v.clone(), "neither .npy nor .safetensors", ".pt"),
    ];
    for (name, bytes, part, fix) in cases {
        let o = ImportOptions {
            text_lengths: Some(Lengths::Values(LENGTHS.to_vec())),
            ..ImportOptions::new(Activations::File(put(d, name, &bytes)), flat(&t))
        };
        let error = import_activations(o, &d.join("acts"), &Silent).unwrap_err();
        assert!(error.code() == "E_FORMAT" && error.to_string().contains(part), "{part}: {error}");
        assert!(error.hint().unwrap().contains(fix), "{part}: {:?}", error.hint());
        assert!(!d.join("acts").exists());
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (v, t) = (vision(), text());
    let shaped = |data, shape: &[usize]| Activations::F32 { data, shape: shape.to_vec() };
    let lengths = |n: &[u64]| Some(Lengths::Values(n.to_vec()));
    let base = || ImportOptions {
        text_lengths: lengths(&LENGTHS),
        d_vision: Some(2),
        ..ImportOptions::new(flat(&v), flat(&t))
    };
    let cases = [
        (ImportOptions { text_lengths: None, ..base() }, "E_SHAPE", "textLengths"),
        (ImportOptions { text_lengths: lengths(&[]), ..base() }, "E_EMPTY", "textLengths"),
        (ImportOptions { text_lengths: lengths(&[1, 3, 3]), ..base() }, "E_SHAPE", "text"),
        (ImportOptions { text_lengths: lengths(&[3, 3, 0]), ..base() }, "E_EMPTY", "pair-000002"),
        (ImportOptions { text_lengths: lengths(&[1 << 40, 3, 2]), ..base() }, "E_SHAPE", "textLengths"),
        (ImportOptions { vision_lengths: lengths(&[4, 4]), ..base() }, "E_SHAPE", "visionLengths"),
        (ImportOptions { vision_lengths: lengths(&[5, 4, 4]), ..base() }, "E_SHAPE", "vision"),
        (ImportOptions { d_vision: None, ..base() }, "E_SHAPE", "dVision"),
        (ImportOptions { d_vision: Some(5), ..base() }, "E_SHAPE", "width 5"),
        (ImportOptions { d_text: Some(4), ..base() }, "E_SHAPE", "width 4"),
        (ImportOptions { text: shaped(&t, &[9, 2]), ..base() }, "E_SHAPE", "9 rows, expected 6"),
        (ImportOptions { vision: shaped(&v, &[3, 4, 3]), ..base() }, "E_SHAPE", "[3, 4, 3]"),
        (ImportOptions { vision: shaped(&v, &[2, 6, 2]), ..base() }, "E_SHAPE", "[3, tokens, d]"),
        (ImportOptions { vision: shaped(&v, &[4, 3, 2, 1]), ..base() }, "E_SHAPE", "[rows, d]"),
        (ImportOptions { text: shaped(&t, &[3, 2, 3]), ..base() }, "E_SHAPE", "textLengths[1]"),
        (ImportOptions { images: Some(vec!["a".into()]), ..base() }, "E_SHAPE", "images"),
        (ImportOptions { captions: Some(vec![]), ..base() }, "E_SHAPE", "captions"),
        (ImportOptions { vision_grid: Some([3, 3]), ..base() }, "E_SHAPE", "vision grid"),
    ];
    for (o, code, part) in cases {
        let error = import_activations(o, &dir.path().join("acts"), &Silent).unwrap_err();
        assert!(error.code() == code && error.to_string().contains(part), "{part}: {} {error}", error.code());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn values_that_cannot_be_stored_are_refused_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let t = text();
    let mut v: Vec<f64> = vision().iter().map(|&x| x.into()).collect();
    let mut refuse = |at: usize, value: f64, code: &str, part: &str| {
        let before = std::mem::replace(&mut v[at], value);
        let o = ImportOptions {
            text_lengths: Some(Lengths::Values(LENGTHS.to_vec())),
            d_vision: Some(2),
            ..ImportOptions::new(Activations::F64 { data: &v, shape: vec![] }, flat(&t))
        };
        let error = import_activations(o, &dir.path().join("acts"), &Silent).unwrap_err();
        assert!(error.code() == code && error.to_string().contains(part), "{error}");
        v[at] = before;
    };
    refuse(8 + 5, f64::NAN, "E_NON_FINITE", "\"pair-000001\": the vision activation of token 2, dimension 1");
    refuse(1, 1e39, "E_OVERFLOW", "too large for f32");
    refuse(1, 1e6, "E_OVERFLOW", "too large for f16");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever stands in a file, reading it ends with a store or a typed error.
    #[test]
    fn damaged_npy_files_never_panic(at in 0usize..224, value in any::<u8>(), keep in 0usize..225) {
        let dir = tempfile::tempdir().unwrap();
        let t = text();
        let mut bytes = npy("'<f4'", "False", &[3, 4, 2], &f32s(&vision()), 1);
        let n = bytes.len();
        bytes[at % n] = value;
        bytes.truncate(keep.max(n / 2));
        let file = put(dir.path(), "v.npy", &bytes);
        let o = ImportOptions { text_lengths: Some(Lengths::Values(LENGTHS.to_vec())), ..ImportOptions::new(Activations::File(file), flat(&t)) };
        match import_activations(o, &dir.path().join("acts"), &Silent) {
            Ok(manifest) => prop_assert_eq!(manifest.pairs, 3),
            Err(error) => prop_assert!(error.code().starts_with("E_")),
        }
    }
}
