//! Masks against pycocotools. `fixtures/masks/make.py` makes the other side.
#![allow(clippy::unwrap_used)]

use lucid_data::PixelMask;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Entry {
    size: [u32; 2],
    polygons: Vec<Vec<f64>>,
    counts: String,
    runs: Vec<u32>,
    area: u64,
}

#[test]
fn polygons_and_texts_are_those_of_pycocotools() {
    let entries: Vec<Entry> = serde_json::from_str(include_str!("fixtures/masks/masks.json")).unwrap();
    assert!(entries.len() > 100);
    for Entry { size: [height, width], polygons, counts, runs, area } in entries {
        let mask = PixelMask::from_polygons([width, height], &polygons).unwrap();
        assert_eq!((mask.runs(), mask.area()), (runs.clone(), area), "{polygons:?} on {width} × {height}");
        let form = json!({ "size": [height, width], "counts": counts });
        assert_eq!(serde_json::to_value(&mask).unwrap(), form);
        assert_eq!(serde_json::from_value::<PixelMask>(form).unwrap(), mask);
        assert_eq!(PixelMask::from_runs([width, height], &runs).unwrap(), mask);
    }
}
