//! Residuals, differences, segment means and sums of squares (spec 4.1).

use lucid_kernels::{Backend, Factor, Ragged};

use crate::common::{Random, assert_close, dot, read, rubbish, tolerance, upload};

on_every_backend!(
    gathered_rows,
    residual_and_its_gradient,
    differences_and_squares,
    segment_means,
    sums_are_taken_in_f64
);

fn residual_and_its_gradient<B: Backend>(backend: &B) {
    let (mut random, len) = (Random(31), 1037);
    let (prediction, target) = (random.values(len), random.values(len));
    let difference: Vec<f64> = prediction.iter().zip(&target).map(|(p, t)| p - t).collect();
    let square = dot(&difference, &difference);
    let over = |numerator| Factor::Over { numerator, slot: 1 };
    for (factor, expected) in [(Factor::Constant(0.5), 0.5), (over(3.0), 0.75)] {
        let mut sums = backend.upload(&[10.0, 4.0]).unwrap();
        let mut device = upload(backend, &prediction);
        backend.residual(&mut device, &upload(backend, &target), len, factor, &mut sums, 0).unwrap();
        let sums = backend.read_vec(&sums, 2).unwrap();
        assert_close("sum", &[sums[0]], &[10.0 + square], tolerance::<B>());
        assert_eq!(sums[1], 4.0);
        let scaled: Vec<f64> = difference.iter().map(|difference| expected * difference).collect();
        assert_close("gradient", &read(backend, &device, len), &scaled, tolerance::<B>());
    }
    // Nothing to divide by: no gradient, not infinity.
    let mut sums = backend.upload(&[0.0, 0.0]).unwrap();
    let mut device = upload(backend, &prediction);
    backend.residual(&mut device, &upload(backend, &target), len, over(3.0), &mut sums, 0).unwrap();
    assert!(read(backend, &device, len).iter().all(|&value| value == 0.0));
}

fn differences_and_squares<B: Backend>(backend: &B) {
    let (mut random, len) = (Random(32), 333);
    let (a, b) = (random.values(len), random.values(len));
    let mut out = rubbish(backend, len);
    backend.difference(&upload(backend, &a), &upload(backend, &b), len, &mut out).unwrap();
    let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    assert_close("a − b", &read(backend, &out, len), &expected, tolerance::<B>());
    let mut sums = backend.upload(&[1.0, 2.0]).unwrap();
    backend.sum_squares(&upload(backend, &a), len, &mut sums, 1).unwrap();
    let sums = backend.read_vec(&sums, 2).unwrap();
    assert_close("Σ a²", &sums, &[1.0, 2.0 + dot(&a, &a)], 1e-12);
}

fn gathered_rows<B: Backend>(backend: &B) {
    let (mut random, d) = (Random(34), 7);
    let values = random.values(20 * d);
    // Out of order, overlapping, and the last rows.
    let (starts, segments) = ([5, 0, 4, 19], Ragged::from_lengths([3, 1, 15, 1]));
    let mut out = rubbish(backend, 20 * d);
    backend.gather_rows(&upload(backend, &values), &starts, &segments, d, &mut out).unwrap();
    let rows = starts.iter().enumerate().flat_map(|(s, &start)| start..start + segments.length(s));
    let expected: Vec<f64> = rows.flat_map(|row| values[row * d..(row + 1) * d].to_vec()).collect();
    assert_eq!(read(backend, &out, 20 * d), expected);
}

fn segment_means<B: Backend>(backend: &B) {
    let (mut random, d) = (Random(33), 11);
    let segments = Ragged::from_lengths([3, 1, 5]);
    let values = random.values(9 * d);
    let mut means = rubbish(backend, 3 * d);
    backend.segment_mean(&upload(backend, &values), &segments, d, &mut means).unwrap();
    let expected: Vec<f64> = (0..3)
        .flat_map(|s| (0..d).map(move |x| (s, x)))
        .map(|(s, x)| segments.range(s).map(|row| values[row * d + x]).sum::<f64>() / segments.length(s) as f64)
        .collect();
    assert_close("means", &read(backend, &means, 3 * d), &expected, tolerance::<B>());

    let (grad, start) = (random.values(3 * d), random.values(9 * d));
    let mut d_values = upload(backend, &start);
    backend.segment_mean_backward(&upload(backend, &grad), &segments, d, &mut d_values).unwrap();
    let mut expected = start;
    for s in 0..3 {
        for row in segments.range(s) {
            (0..d).for_each(|x| expected[row * d + x] += grad[s * d + x] / segments.length(s) as f64);
        }
    }
    assert_close("d values", &read(backend, &d_values, 9 * d), &expected, tolerance::<B>());
}

/// 2^21 ones after a large value: an f32 sum would stop counting at 2^24.
fn sums_are_taken_in_f64<B: Backend>(backend: &B) {
    let len = 1 << 21;
    let mut values = vec![1.0; len];
    values[0] = 8192.0;
    let mut sums = backend.upload(&[0.0]).unwrap();
    backend.sum_squares(&upload(backend, &values), len, &mut sums, 0).unwrap();
    let expected = 8192.0 * 8192.0 + (len - 1) as f64;
    assert_eq!(backend.read_vec(&sums, 1).unwrap()[0], expected);
    let zeros = upload(backend, &vec![0.0; len]);
    let mut sums = backend.upload(&[0.0]).unwrap();
    backend.residual(&mut upload(backend, &values), &zeros, len, Factor::Constant(1.0), &mut sums, 0).unwrap();
    assert_eq!(backend.read_vec(&sums, 1).unwrap()[0], expected);
}
