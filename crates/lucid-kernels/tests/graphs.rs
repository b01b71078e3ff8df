//! Launches that wait, and graphs of them: on the CPU shim.
#![cfg(feature = "cuda-shim")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use lucid_kernels::cuda::{CopiesAhead, Counts, Cuda, Graphs, Order, Shim};
use lucid_kernels::{Device, Loss, Staging};

type Buffer = <Cuda<Graphs<Shim>> as Device>::Buffer<f32>;

fn device(shim: Shim) -> Cuda<Graphs<Shim>> {
    Cuda::new(Arc::new(Graphs::new(shim, true))).unwrap()
}

fn counts(device: &Cuda<Graphs<Shim>>) -> Counts {
    device.driver().counts()
}

/// `out = 1 + 2 + … + rounds` in each of `len` places, by subtracting in turn from two buffers.
fn sums(device: &Cuda<Graphs<Shim>>, rounds: usize, len: usize) -> Vec<f32> {
    let minus = device.upload(&vec![-1.0f32; len]).unwrap();
    let mut buffers: [Buffer; 3] = [(); 3].map(|()| device.zeros(len).unwrap());
    for _ in 0..rounds {
        let [step, sum, spare] = &mut buffers;
        // step ← step + 1, sum ← step − (−sum).
        device.difference(step, &minus, len, spare).unwrap();
        std::mem::swap(step, spare);
        let zero = device.zeros(len).unwrap();
        let mut negative = device.zeros(len).unwrap();
        device.difference(&zero, sum, len, &mut negative).unwrap();
        device.difference(step, &negative, len, sum).unwrap();
    }
    device.read_vec(&buffers[1], len).unwrap()
}

/// A sequence is played when it first comes, becomes a graph when it comes again, and is replayed from then on, with what has
/// changed. Longer ones are several graphs.
#[test]
fn a_sequence_that_comes_again_becomes_a_graph() {
    let device = device(Shim::new(Order::Forward));
    let len = 5;
    let a = device.upload(&[3.0f32; 5]).unwrap();
    let (b, mut out) = (device.zeros::<f32>(len).unwrap(), device.zeros::<f32>(len).unwrap());
    // Sixteen launches, each a place farther left in what it writes.
    let mut go = |last: &Buffer, len: usize| {
        for _ in 0..15 {
            device.difference(&a, &b, len, &mut out).unwrap();
        }
        device.difference(&a, last, len, &mut out).unwrap();
        device.read_vec(&out, 5).unwrap()
    };
    let ones = device.upload(&[1.0f32; 5]).unwrap();
    assert_eq!(go(&ones, 5), [2.0; 5]);
    assert_eq!(counts(&device), Counts::default(), "it has come once");
    assert_eq!(go(&ones, 5), [2.0; 5]);
    assert_eq!(counts(&device), Counts { made: 1, replayed: 1, operations: 16, changed: 0 });
    assert_eq!(go(&ones, 5), [2.0; 5]);
    assert_eq!(counts(&device), Counts { made: 1, replayed: 2, operations: 32, changed: 0 });
    assert_eq!(go(&b, 5), [3.0; 5]);
    assert_eq!(counts(&device), Counts { made: 1, replayed: 3, operations: 48, changed: 1 });
    // Every launch of two values in place of five; what is behind them stays.
    assert_eq!(go(&ones, 2), [2.0, 2.0, 3.0, 3.0, 3.0]);
    assert_eq!(counts(&device), Counts { made: 1, replayed: 4, operations: 64, changed: 17 });
}

/// What is uploaded, read, given back or copied in between comes in its order.
#[test]
fn whoever_needs_a_result_has_it() {
    for copies in [CopiesAhead::Early, CopiesAhead::Late] {
        let device = device(Shim::new(Order::Forward).with_copies_ahead(copies));
        for _ in 0..3 {
            // The buffers of a round are given back while launches that use them wait.
            assert_eq!(sums(&device, 100, 7), [5050.0; 7]);
        }
        assert!(counts(&device).replayed > 0);

        let mut a = device.upload(&[5.0f32, 6.0]).unwrap();
        let (b, mut out) = (device.zeros(2).unwrap(), device.zeros(2).unwrap());
        device.difference(&a, &b, 2, &mut out).unwrap();
        device.write(&mut a, 0, &[8.0f32, 9.0]).unwrap();
        assert_eq!(device.read_vec(&out, 2).unwrap(), [5.0, 6.0], "the upload passed the launch");

        let mut staging = device.staging();
        staging.fill(2).unwrap().copy_from_slice(&[1.0, 2.0]);
        device.difference(&a, &b, 2, &mut out).unwrap();
        device.write_ahead(&mut a, 0, &mut staging, 0..2).unwrap();
        assert_eq!(device.read_vec(&out, 2).unwrap(), [8.0, 9.0], "the copy passed the launch");
        device.catch_up().unwrap();
        device.difference(&a, &b, 2, &mut out).unwrap();
        device.clear(&mut a, 2).unwrap();
        assert_eq!(device.read_vec(&out, 2).unwrap(), [1.0, 2.0]);
        assert_eq!(device.read_vec(&a, 2).unwrap(), [0.0, 0.0]);

        device.difference(&out, &b, 2, &mut a).unwrap();
        device.driver().set_on(false).unwrap();
        device.difference(&a, &b, 2, &mut out).unwrap();
        assert_eq!(device.read_vec(&out, 2).unwrap(), [1.0, 2.0], "a launch passed one that waited");
    }
}

/// More sequences than are remembered: some are forgotten, nothing is wrong.
#[test]
fn sequences_are_forgotten() {
    let device = device(Shim::new(Order::Forward));
    let ones = device.upload(&[1.0f32]).unwrap();
    let (zeros, mut spare) = (device.zeros::<f32>(1).unwrap(), device.zeros::<f32>(1).unwrap());
    let mut out = device.zeros::<f32>(1).unwrap();
    let mut go = |pattern: u32| {
        // A sequence of eleven: which of them clear is written in `pattern`.
        for bit in 0..10 {
            match pattern >> bit & 1 {
                0 => device.difference(&ones, &zeros, 1, &mut spare).unwrap(),
                _ => device.clear(&mut spare, 1).unwrap(),
            }
        }
        device.difference(&ones, &zeros, 1, &mut out).unwrap();
        assert_eq!(device.read_vec(&out, 1).unwrap(), [1.0], "{pattern}");
    };
    device.driver().give().unwrap();
    for pattern in [0, 0, 1, 1].into_iter().chain(2..600) {
        go(pattern);
    }
    assert_eq!(counts(&device).made, 2);
    // The last are known, the first no longer.
    go(599);
    assert_eq!(counts(&device).made, 3);
    go(0);
    assert_eq!(counts(&device).made, 3);
}

/// A driver that makes no graphs gets launches one by one from then on.
#[test]
fn a_device_that_refuses_graphs_does_without() {
    let device = device(Shim::new(Order::Forward).without_graphs());
    for _ in 0..3 {
        assert_eq!(sums(&device, 50, 3), [1275.0; 3]);
    }
    assert!(!device.driver().on());
    assert_eq!(counts(&device), Counts::default());
}

/// The error of a launch that waited is told to whoever comes next, once.
#[test]
fn an_error_that_waits_is_told() {
    let device = device(Shim::new(Order::Forward));
    let (a, b) = (device.upload(&[3.0f32]).unwrap(), device.zeros::<f32>(1).unwrap());
    let mut out = device.zeros::<f32>(1).unwrap();
    device.driver().inner().fail_launches_after(0);
    device.difference(&a, &b, 1, &mut out).unwrap();
    assert_eq!(device.read_vec(&out, 1).unwrap_err().code(), "E_DEVICE");
    // Nobody can be told while a buffer is given back.
    let spare = device.upload(&[1.0f32]).unwrap();
    device.difference(&a, &b, 1, &mut out).unwrap();
    drop(spare);
    device.driver().inner().fail_launches_after(i64::MAX);
    assert_eq!(device.difference(&a, &b, 1, &mut out).unwrap_err().code(), "E_DEVICE");
    device.difference(&a, &b, 1, &mut out).unwrap();
    assert_eq!(device.read_vec(&out, 1).unwrap(), [3.0]);
}
