//! Metrics beside what SciPy and scikit-learn say of the same inputs (tests/fixtures/libraries.py).

use serde_json::Value;

use crate::coder::SparseCodes;
use crate::metrics::means::{Means, sums_of};
use crate::metrics::reconstruction::{spread, squared_distance};
use crate::metrics::structure::{Pool, PooledPair};
use crate::probing::linear::{Dense, Design, Ranking, Readout};
use crate::probing::readouts::nearest;
use crate::recovery::assignment::assign;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../tests/fixtures/libraries.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= tolerance, "{found} against {expected}");
}

#[test]
fn areas_are_those_of_roc_auc_score() {
    let of = &fixture()["auc"];
    let (labels, weights) = (numbers(&of["labels"]), numbers(&of["weights"]));
    let ranking = Ranking::new(numbers(&of["scores"]), |row| labels[row] > 0.0);
    close(ranking.area(|_| 1.0).unwrap(), &of["auc"], 1e-12);
    close(ranking.area(|row| weights[row]).unwrap(), &of["weighted"], 1e-12);
}

#[test]
fn readouts_are_those_of_ridge() {
    let of = &fixture()["ridge"];
    let (x, y) = (numbers(&of["x"]), numbers(&of["y"]));
    let design = Dense { values: &x, width: 5 };
    let readout = Readout::fit(&design, &y, 2, 0.01).unwrap();
    assert_eq!(design.rows(), 60);
    for (found, expected) in readout.map.iter().zip(of["map"].as_array().unwrap()) {
        close(*found, expected, 1e-9);
    }
    for (found, expected) in readout.scores(&design).iter().zip(of["scores"].as_array().unwrap()) {
        close(*found, expected, 1e-8);
    }
}

#[test]
fn assignments_are_as_good_as_linear_sum_assignment() {
    let of = &fixture()["assignment"];
    let score = numbers(&of["score"]);
    let columns = assign(7, 9, |row, column| score[row * 9 + column]);
    close(columns.iter().enumerate().map(|(row, &column)| score[row * 9 + column]).sum(), &of["total"], 1e-12);
}

/// The pairs of the fixture, in its order.
fn pairs(of: &Value) -> Vec<PooledPair> {
    let latents = of["latents"].as_u64().unwrap() as usize;
    let codes = |name: &str| -> Vec<SparseCodes> {
        let row = |values: &[f64]| {
            let mut codes = SparseCodes::new(latents);
            codes.push(values.iter().enumerate().map(|(latent, &value)| (latent as u32, value as f32)));
            codes
        };
        numbers(&of[name]).chunks_exact(latents).map(row).collect()
    };
    let pair = |(at, (vision, text)): (usize, (SparseCodes, SparseCodes))| {
        let mut pair = PooledPair::new(0, &at.to_string(), &vision, &text, &[1.0, at as f32], 2);
        pair.order = [at as u8; 32];
        pair
    };
    codes("vision").into_iter().zip(codes("text")).enumerate().map(pair).collect()
}

#[test]
fn overlap_retrieval_hubness_and_bridge_are_those_of_the_libraries() {
    let of = &fixture()["pooled"];
    let mut pool = Pool::default();
    pairs(of).into_iter().for_each(|pair| pool.add(pair));
    let (structure, latents, _) = pool.finish(30).unwrap();
    close(structure.support.jaccard, &of["jaccard"], 1e-12);
    for (name, found) in [("t2i", structure.retrieval.t2i), ("i2t", structure.retrieval.i2t)] {
        for (k, value) in [found.at1, found.at5, found.at10].into_iter().enumerate() {
            close(value, &of[name][k], 1e-12);
        }
    }
    close(structure.hubness.t2i, &of["hubness"]["t2i"], 1e-9);
    close(structure.hubness.i2t, &of["hubness"]["i2t"], 1e-9);
    for (latent, score) in latents.iter().enumerate() {
        close(score.bridge.unwrap(), &of["bridge"][latent], 1e-7);
        close(score.jaccard.unwrap(), &of["byLatent"][latent], 1e-12);
    }
}

#[test]
fn correlations_are_those_of_pearsonr() {
    let fixture = fixture();
    let of = &fixture["correlation"];
    let codes: Vec<_> = pairs(&fixture["pooled"])
        .iter()
        .map(|pair| pair.vision.iter().map(|&(latent, value)| (latent, f64::from(value))).collect())
        .collect();
    let latents: Vec<u32> = (0..30).collect();
    let found = nearest(&codes, &latents, &numbers(&of["labels"]), 1, 30);
    let mut last = f64::INFINITY;
    for &(latent, correlation) in &found[0] {
        close(correlation, &of["pearson"][latent as usize], 1e-9);
        assert!(correlation.abs() <= last);
        last = correlation.abs();
    }
}

#[test]
fn explained_variance_is_r2_score_weighted_by_variance() {
    let of = &fixture()["r2"];
    let single = |name: &str| numbers(&of[name]).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let (h, guess) = (single("h"), single("guess"));
    let mut means = Means::new(4);
    means.add(&sums_of(&h, 4), 50);
    close(1.0 - squared_distance(&h, &guess) / spread(&h, &means.finish()), &of["r2"], 1e-6);
}
