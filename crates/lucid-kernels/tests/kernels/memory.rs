//! Copies that run beside operations.

use lucid_kernels::{Backend, Staging};

use crate::common::{Random, narrow, read};

on_every_backend!(copies_ahead, pairs_of_buffers);

/// Values of a number of steps, none a multiple of another.
const LEN: usize = 40_003;

/// A part of what was filled in lands where it should and nowhere else.
fn copies_ahead<B: Backend>(backend: &B) {
    let values = Random(71).values(LEN);
    let mut staging = backend.staging();
    staging.fill(LEN).unwrap().copy_from_slice(&narrow(&values));
    let mut buffer = backend.zeros(LEN).unwrap();
    backend.write_ahead(&mut buffer, 17, &mut staging, 5..LEN - 12).unwrap();
    backend.catch_up().unwrap();
    let mut expected = vec![0.0; LEN];
    expected[17..].copy_from_slice(&values[5..LEN - 12]);
    assert_eq!(read(backend, &buffer, LEN), expected);
}

/// What a training run does: while one buffer is worked on, the other is filled for the next round, from memory that is filled in
/// again as soon as its copy was begun.
fn pairs_of_buffers<B: Backend>(backend: &B) {
    let rounds: Vec<Vec<f64>> = (0..9).map(|round| Random(80 + round).values(LEN - round as usize)).collect();
    let mut staging = [backend.staging(), backend.staging()];
    let mut buffers = [backend.zeros(LEN).unwrap(), backend.zeros(LEN).unwrap()];
    let mut sums = backend.zeros(rounds.len()).unwrap();
    let mut begin = |round: usize, buffer: &mut B::Buffer<B::Real>| {
        let (values, staging) = (&rounds[round], &mut staging[round % 2]);
        staging.fill(values.len()).unwrap().copy_from_slice(&narrow(values));
        backend.write_ahead(buffer, 0, staging, 0..values.len()).unwrap();
    };
    begin(0, &mut buffers[0]);
    for round in 0..rounds.len() {
        backend.catch_up().unwrap();
        if round + 1 < rounds.len() {
            begin(round + 1, &mut buffers[(round + 1) % 2]);
        }
        backend.sum_squares(&buffers[round % 2], rounds[round].len(), &mut sums, round).unwrap();
    }
    let found = backend.read_vec(&sums, rounds.len()).unwrap();
    for (found, values) in found.iter().zip(&rounds) {
        let expected: f64 = values.iter().map(|value| value * value).sum();
        assert!((found - expected).abs() < 1e-9 * expected, "{found} {expected}");
    }
}
