use std::collections::BTreeMap;

use super::cards::{CARDS, Card};
use super::designs::Change;
use super::{PAIRS, bound, micro, plan, predict, sum, trace, work};

fn card(name: &str) -> &'static Card {
    CARDS.iter().find(|card| card.name == name).unwrap()
}

fn launches(name: &str) -> Vec<trace::Launch> {
    trace::step(card(name), PAIRS, micro(card(name))).unwrap()
}

/// Counted by hand from step/ and the launchers: one micro-batch, two modalities; 256 MiB of pre-activations are 77 tiles of
/// 128 rows, six chunks of patches and two of words.
#[test]
fn the_step_launches_what_its_code_says() {
    let mut found = BTreeMap::new();
    for launch in launches("H200") {
        *found.entry(launch.kernel).or_insert(0) += 1;
    }
    let chunks = 6 + 2;
    let expected = [
        ("pack_rows", 2),
        ("wgmma_bf16x3", chunks),
        ("topk_warps", chunks),
        ("count_fired", 2),
        ("decode_rows", 4),
        ("decode_values_backward", 4),
        ("csc_place", 2),
        ("csc_rows", 6),
        ("csc_combine", 6),
        ("columns_partial", 6),
        ("mix_rows", 4),
        ("gcmt_plan", 1),
        ("residual_partial", 6),
        ("adamw", 4),
        ("adamw_rows", 4),
        ("wait", 5),
    ];
    for (kernel, count) in expected {
        assert_eq!(found.get(kernel), Some(&count), "{kernel}: {found:?}");
    }
    assert_eq!(found.get("upload"), None, "a step that is under way uploads nothing");
}

/// A kernel that the model does not know would count as free.
#[test]
fn every_launch_has_a_cost() {
    for name in ["H200", "4090", "3090"] {
        let card = card(name);
        for launch in launches(name) {
            assert!(work::of(&launch, card).is_some(), "{}", launch.kernel);
        }
    }
}

/// The FLOPs that the encoder and the gathers need, from the shape alone.
#[test]
fn work_adds_up_to_the_shape() {
    let card = card("H200");
    let (tokens, latents, d, k) = (66_560.0, 6144.0, 768.0, 48.0);
    let total = |kernel: &str, of: fn(&work::Work) -> f64| -> f64 {
        let all = launches("H200");
        all.iter().filter(|launch| launch.kernel == kernel).map(|launch| of(&work::of(launch, card).unwrap())).sum()
    };
    let dense = 2.0 * tokens * latents * d;
    assert_eq!(total("wgmma_bf16x3", |work| work.useful), dense);
    assert_eq!(total("wgmma_bf16x3", |work| work.wgmma), 3.0 * dense, "every chunk is a multiple of the tile");
    assert_eq!(total("decode_rows", |work| work.useful), 2.0 * tokens * (k + 16.0) * d);
    let rows = total("csc_rows", |work| work.useful);
    assert!((rows / (2.0 * tokens * (2.0 * k + 16.0) * d) - 1.0).abs() < 1e-3, "{rows}");
    assert_eq!(total("decode_rows", |work| work.cache), tokens * (k + 16.0) * d * 4.0);
}

#[test]
fn a_bound_is_the_slowest_resource() {
    let card = card("H200");
    let work = work::Work { memory: 4.8e9 * super::MEMORY, cache: 1.0, blocks: 1e6, ..work::Work::default() };
    let (name, seconds) = bound(&work, card);
    assert_eq!(name, "memory");
    assert!((seconds - 1e-3).abs() < 1e-9);
    // Half as many blocks as multiprocessors take twice as long as all of them would.
    let busy = |blocks| bound(&work::Work { instructions: 1e9, blocks, ..work::Work::default() }, card).1;
    assert!((busy(66.0) / busy(132.0) - 2.0).abs() < 1e-12);
    assert!((busy(133.0) / busy(264.0) - 264.0 / 133.0).abs() < 1e-12);
}

/// No change may make the model's step slower, and the order of the plan is one of falling times.
#[test]
fn changes_help() {
    let card = card("H200");
    let now = predict(card, &[]).unwrap();
    assert!((now.rows.iter().map(|row| row.seconds).sum::<f64>() - now.device).abs() < 1e-12);
    for change in Change::ALL {
        assert!(predict(card, &[change]).unwrap().seconds <= now.seconds, "{change:?}");
    }
    let times: Vec<f64> = plan(card).unwrap().into_iter().map(|step| step.1).collect();
    assert!(times.windows(2).all(|pair| pair[1] < pair[0]) && times[0] < now.seconds);
    assert_eq!(sum(&[], card, &[]).seconds, 0.0);
}

#[test]
fn cards_are_found_by_the_drivers_names() {
    let name = |device: &str| Card::of(device).map(|card| card.name);
    assert_eq!(name("NVIDIA H200"), Some("H200"));
    assert_eq!(name("NVIDIA H100 80GB HBM3"), Some("H100"));
    assert_eq!(name("NVIDIA H100 PCIe"), Some("H100 PCIe"));
    assert_eq!(name("NVIDIA A100-SXM4-80GB"), Some("A100"));
    assert_eq!(name("NVIDIA GeForce RTX 4090"), Some("4090"));
    assert_eq!(name("NVIDIA L4"), Some("L4"));
    assert_eq!(name("NVIDIA L40S"), None, "another card than the L4");
    assert_eq!(name("CPU shim"), None);
}

/// docs/gpu.md holds what the model says today: `gpu_check --model` prints it.
#[test]
fn the_document_is_the_models() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/gpu.md")).unwrap();
    let between = document.split_once("<!-- model -->\n").and_then(|(_, rest)| rest.split_once("<!-- /model -->"));
    assert_eq!(between.unwrap().0.trim(), super::markdown().unwrap().trim(), "run gpu_check --model");
}
