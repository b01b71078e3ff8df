//! Training of the mini backbone at a toy size: resuming, learning, exporting.
#![allow(clippy::unwrap_used)]

use lucid_data::scenes::{Canvas, Kind, Level, SceneOptions, Split, Wording, scene, scene_with};
use lucid_vlm::Backbone;
use lucid_vlm::examination::Examinee;
use lucid_vlm::mini_training::recipe::{Cycle, Part, Recipe, Stage, mini};
use lucid_vlm::mini_training::run::{RunOptions, train};
use lucid_vlm::mini_training::{export, trainee::Trainee};

/// One narrow block a tower; single objects, then scenes with dropped patches.
fn toy(steps: [u64; 2]) -> Recipe {
    let mut recipe = mini();
    let (v, t) = (&mut recipe.config.vision_config, &mut recipe.config.text_config);
    (v.hidden_size, v.intermediate_size, v.num_hidden_layers, v.num_attention_heads) = (16, 32, 1, 2);
    (t.hidden_size, t.intermediate_size, t.num_hidden_layers, t.num_attention_heads) = (16, 32, 1, 2);
    t.projection_size = Some(16);
    let single = SceneOptions {
        family: 4,
        canvas: Canvas::Single,
        level: Level::Easy,
        wording: Wording::Full,
        ..SceneOptions::default()
    };
    let part = |scenes, patches| Part { scenes, count: 16, patches, false_first: None, misplaced: false };
    recipe.stages = vec![
        Stage { name: "single".into(), steps: steps[0], rank_weight: 1.0, parts: vec![part(single, 49)] },
        Stage {
            name: "scenes".into(),
            steps: steps[1],
            rank_weight: 4.0,
            parts: vec![part(single, 49), part(SceneOptions::default(), 40)],
        },
    ];
    (recipe.warmup, recipe.cycles) = (2, vec![Cycle { steps: steps[0] + steps[1], peak: 2e-3, decay: 3 }]);
    recipe
}

fn options(stop_after: Option<u64>) -> RunOptions {
    RunOptions { resume: true, examine_every: 0, log_every: 1, stop_after, ..RunOptions::default() }
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let state = |name: &str| std::fs::read(folder.path().join(name).join("state.safetensors")).unwrap();
    train(toy([3, 3]), &folder.path().join("whole"), &options(None), &mut |_| {}).unwrap();
    for stop in [1, 4, 6] {
        let run = train(toy([3, 3]), &folder.path().join("parts"), &options(Some(stop)), &mut |_| {}).unwrap();
        assert_eq!(run.step(), stop);
    }
    assert!(state("whole") == state("parts"), "resumed parameters or moments differ");
    let mut other = toy([3, 3]);
    other.seed = 2;
    train(other, &folder.path().join("other"), &options(None), &mut |_| {}).unwrap();
    assert!(state("whole") != state("other"), "the seed has no effect");
}

#[test]
fn a_state_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    train(toy([1, 0]), folder.path(), &options(None), &mut |_| {}).unwrap();
    let mut wider = toy([2, 0]);
    wider.config.vision_config.intermediate_size = 48;
    let error = train(wider, folder.path(), &options(None), &mut |_| {}).map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "E_BACKBONE");
    assert!(error.to_string().contains("mlp"), "{error}");
}

#[test]
fn the_loss_falls() {
    let folder = tempfile::tempdir().unwrap();
    let mut bags = Vec::new();
    train(toy([40, 0]), folder.path(), &options(None), &mut |line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        bags.push(line["bag"].as_f64().unwrap());
    })
    .unwrap();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&bags[35..]) < mean(&bags[..5]) - 0.3, "{bags:?}");
}

#[test]
fn an_exported_backbone_loads_and_agrees_with_what_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let trainee = Trainee::new(&toy([1, 0])).unwrap();
    let hash = export::export(&trainee, folder.path()).unwrap();
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), hash);
    let backbone = Backbone::load(folder.path()).unwrap();
    let scenes: Vec<_> = (0..3).map(|i| scene(6, i, Split::All, Kind::Random)).collect();
    let captions: Vec<String> = scenes.iter().map(|s| s.caption.clone()).collect();
    let close = |a: Vec<Vec<f32>>, b: Vec<Vec<f32>>| {
        let size = a.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
        // Weights are rounded to 11 bits.
        a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 0.01 * size)
    };
    assert!(close(trainee.model.images(&scenes).unwrap(), backbone.images(&scenes).unwrap()));
    assert!(close(trainee.model.texts(&captions).unwrap(), backbone.texts(&captions).unwrap()));
    // A picture of another size is squashed to the input size rather than refused.
    let small = vec![scene_with(6, 0, &SceneOptions { canvas: Canvas::Single, ..SceneOptions::default() })];
    assert_eq!(backbone.images(&small).unwrap()[0].len(), 16);
}
