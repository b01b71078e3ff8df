//! The controls of grounding on real photographs: boxes are large and central, so maps that know nothing score.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use lucid_data::{CocoSpec, DatasetSpec, OnBad, open_dataset_with};
use lucid_interpret::grounding::geometry::GridBox;
use lucid_interpret::grounding::score::Target;

const GRID: [u32; 2] = [14, 14];

/// Means over images of (uniform, centre, oracle) for (mass, point, IoU), against the union of all boxes or the largest.
fn controls(folder: &Path, largest: bool) -> ([f64; 3], [f64; 3], [f64; 3], usize) {
    let spec = DatasetSpec::Coco(CocoSpec {
        images: folder.join("val2017"),
        captions: folder.join("annotations/captions_val2017.json"),
        instances: Some(folder.join("annotations/instances_val2017.json")),
        panoptic: None,
        masks: false,
    });
    let dataset = open_dataset_with(&spec, OnBad::Skip).unwrap();
    let mut sums = [[0.0; 3]; 3];
    let mut images = 0;
    for index in 0..dataset.len() {
        let pair = dataset.pair(index).unwrap();
        let Some((width, height)) = pair.size else { continue };
        let usable = pair.boxes.iter().filter(|b| !b.crowd);
        let mut boxes: Vec<GridBox> = usable.filter_map(|b| GridBox::of(b, [width, height], GRID)).collect();
        if boxes.is_empty() {
            continue;
        }
        if largest {
            boxes.sort_by(|a, b| b.area().total_cmp(&a.area()));
            boxes.truncate(1);
        }
        images += 1;
        let target = Target::new(boxes, GRID);
        let scores = [target.score(&[1.0; 196]), target.score_of_centre(), target.score_of_oracle()];
        for (sum, score) in sums.iter_mut().zip(scores) {
            sum[0] += score.mass_at_obj;
            sum[1] += score.point_at1;
            sum[2] += score.iou_at10;
        }
    }
    let [uniform, centre, oracle] = sums.map(|sum| sum.map(|s| s / images as f64));
    (uniform, centre, oracle, images)
}

#[test]
fn controls_on_coco_are_as_large_as_they_are_known_to_be() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real/coco-val113");
    if !folder.is_dir() {
        println!("SKIPPED controls_on_coco_are_as_large_as_they_are_known_to_be: {} is absent", folder.display());
        return;
    }
    // On all of val2017 the uniform map has mass 0.456 (union) and 0.349 (largest), the centre hits 0.727 and 0.615, and
    // the oracle's IoU is 0.308 and 0.376; 113 images scatter by about 0.05.
    for (largest, mass, point, iou) in [(false, 0.456, 0.727, 0.308), (true, 0.349, 0.615, 0.376)] {
        let (uniform, centre, oracle, images) = controls(&folder, largest);
        println!("largest {largest}, {images} images: uniform {uniform:?} centre {centre:?} oracle {oracle:?}");
        assert!(images >= 100, "{images}");
        assert!((uniform[0] - mass).abs() < 0.12, "{uniform:?}");
        // Cell centres sample the same area.
        assert!((uniform[1] - uniform[0]).abs() < 0.02, "{uniform:?}");
        assert!((centre[1] - point).abs() < 0.15, "{centre:?}");
        assert!(centre[0] > uniform[0] + 0.05 && centre[2] > uniform[2], "{centre:?} {uniform:?}");
        assert!((oracle[2] - iou).abs() < 0.12, "{oracle:?}");
    }
}
