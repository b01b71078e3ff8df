//! The examination of whole backbones, at a toy size.
#![allow(clippy::unwrap_used)]

use lucid_data::progress::{Observer, Silent};
use lucid_data::scenes::ConceptKind;
use lucid_vlm::mini_training::{export::export, recipe::mini, trainee::Trainee};
use lucid_vlm::{Backbone, Examination, ExamineOptions, examine};
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicIsize, Ordering};

fn few(scenes: usize, probe_scenes: usize) -> ExamineOptions {
    ExamineOptions { scenes, probe_scenes, seed: 99 }
}

fn json(examination: &Examination) -> Value {
    serde_json::to_value(examination).unwrap()
}

/// One narrow block a tower, never trained; 4 × 4 patches, each of 28 pixels of a scene.
fn toy(folder: &Path) -> Backbone {
    let mut recipe = mini();
    let (v, t) = (&mut recipe.config.vision_config, &mut recipe.config.text_config);
    (v.hidden_size, v.intermediate_size, v.num_hidden_layers, v.num_attention_heads) = (16, 32, 1, 2);
    (t.hidden_size, t.intermediate_size, t.num_hidden_layers, t.num_attention_heads) = (16, 32, 1, 2);
    (v.image_size, v.patch_size, t.projection_size) = (32, 8, Some(16));
    export(&Trainee::new(&recipe).unwrap(), folder).unwrap();
    Backbone::load(folder).unwrap()
}

#[test]
fn an_untrained_backbone_scores_near_chance() {
    let folder = tempfile::tempdir().unwrap();
    let toy = toy(folder.path());
    let result = examine(&toy, &few(400, 2), &Silent).unwrap();
    for row in result.swaps.unseen.iter().chain(&result.swaps.held_out) {
        // Most counts are "two", so even a blind preference among counts is far from a fair coin.
        if row.score.kind == ConceptKind::Count {
            continue;
        }
        // Captions have a value's usual word in 3 of 4 cases, wrong words in 2: a blind preference for or against usual words
        // moves the accuracy by up to 1/8. Beside that, four standard deviations of a fair coin.
        let bound = 0.125 + 4.0 * 0.5 / (row.score.count as f64).sqrt();
        for accuracy in [row.score.accuracy, row.untrained.accuracy, row.score.other_picture.unwrap()] {
            assert!((accuracy - 0.5).abs() < bound, "{row:?}");
        }
    }
    assert!(result.retrieval[0].recall < 0.05);
}

#[test]
fn the_same_bits_for_any_number_of_threads_and_the_documented_fields() {
    let mini = Backbone::mini().unwrap();
    let options = few(24, 6);
    let result = examine(&mini.clone().with_threads(1), &options, &Silent).unwrap();
    let value = json(&result);
    assert_eq!(value, json(&examine(&mini.with_threads(3), &options, &Silent).unwrap()));

    assert_eq!(value["options"]["probeScenes"], 6);
    assert!(value["backbone"]["weightsBlake3"].is_string());
    for set in ["unseen", "heldOut"] {
        let row = &value["swaps"][set].as_array().unwrap()[1];
        assert_eq!(
            (row["kind"].as_str(), row["chance"].as_f64(), row["goal"].as_f64()),
            (Some("color"), Some(0.5), Some(0.95))
        );
        assert!(row["accuracy"].as_f64().unwrap() > row["untrained"]["accuracy"].as_f64().unwrap());
        assert!(row["otherPicture"].is_number());
        assert!(row["absent"]["count"].as_u64().unwrap() <= row["count"].as_u64().unwrap());
    }
    let among: Vec<_> = value["retrieval"].as_array().unwrap().iter().map(|r| r["among"].as_str().unwrap()).collect();
    assert_eq!(among, ["independent", "families", "withinFamily"]);
    let probes = value["patchProbes"].as_array().unwrap();
    assert_eq!(probes.len(), 5 * 5);
    assert_eq!(probes[0]["hook"], "vision.block:0");
    assert_eq!(probes[24]["hook"], "vision.post_ln");
    let color = probes.iter().find(|p| p["kind"] == "color").unwrap();
    for set in ["unseen", "heldOut"] {
        for field in ["accuracy", "chance", "untrained", "count"] {
            assert!(color[set][field].is_number(), "{set}.{field}");
        }
    }
    assert_eq!(color["goal"], 0.97);
    let locality = &value["locality"].as_array().unwrap()[4];
    assert!(locality["precision"].as_f64().unwrap() > locality["chance"].as_f64().unwrap());
    assert!(locality["untrained"]["recall"].is_number());
    let of: Vec<_> = value["tokenProbes"].as_array().unwrap().iter().map(|p| p["of"].as_str().unwrap()).collect();
    for expected in ["ownWord", "restOfPhrase", "filler"] {
        assert!(of.contains(&expected), "{expected}");
    }
    let page = result.to_string();
    assert_eq!(page.split("\n\n").count(), 5, "{page}");
    for table in page.split("\n\n") {
        let columns: Vec<_> = table.lines().map(|l| l.matches('|').count()).collect();
        assert!(columns.len() > 2 && columns.iter().all(|c| *c == columns[0]), "{table}");
    }
}

/// Says stop at its `left`-th question.
struct Stopper(AtomicIsize);

impl Observer for Stopper {
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) <= 1
    }
}

#[test]
fn it_stops_when_told_to_and_refuses_the_seed_of_the_training() {
    let mini = Backbone::mini().unwrap();
    for questions in [1, 30, 60] {
        let error = examine(&mini, &few(4, 2), &Stopper(AtomicIsize::new(questions))).unwrap_err();
        assert_eq!(error.code(), "E_CANCELLED");
    }
    let error = examine(&mini, &ExamineOptions { seed: 1, ..few(4, 2) }, &Silent).unwrap_err();
    assert_eq!(error.code(), "E_OPTION");
}
