//! What only the CUDA backend can get wrong: grids, chunks, segments, shared memory, names. Run on the CPU shim.
#![cfg(feature = "cuda-shim")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use lucid_kernels::cuda::{CopiesAhead, Cuda, Order, Shim};
use lucid_kernels::{
    AdamW, Backend, Block, CodeShape, Codes, Decode, Device, Dictionary, Encode, KernelError, Optimise, Pairs, Plan,
    Precision, Scalar, Selection, SinkhornOptions, Staging, Transport, TransportOptions, UNUSED,
};

fn shim() -> Cuda<Shim> {
    Cuda::new(Arc::new(Shim::new(Order::Forward))).unwrap()
}

const SHAPE: CodeShape =
    CodeShape { d_shared: 2, d_private: 3, k_shared: 1, k_private: 1, selection: Selection::Split };

/// Gradients of W_dec and b_dec of codes in which latent 0 fires for every token and latent 2 for most.
fn decode_gradients<B: Backend<Real = f32>>(backend: &B, n: usize, d: usize) -> (Vec<f32>, Vec<f32>) {
    let indices: Vec<u32> =
        (0..n).flat_map(|token| [0, if token % 3 == 0 { UNUSED } else { 2 + u32::from(token % 50 == 1) }]).collect();
    let values: Vec<f32> =
        indices.iter().enumerate().map(|(at, &i)| if i == UNUSED { 0.0 } else { (at % 7) as f32 * 0.25 }).collect();
    let codes = Codes::upload(backend, SHAPE, &indices, &values).unwrap();
    let grad: Vec<f32> = (0..n * d).map(|at| (at % 11) as f32 - 5.0).collect();
    let dictionary = Dictionary::zeros(backend, d, 5).unwrap();
    let mut gradients = Dictionary::zeros(backend, d, 5).unwrap();
    let mut d_values = backend.zeros(n * 2).unwrap();
    let grad = backend.upload(&grad).unwrap();
    backend.decode_backward(&codes, Block::Joint, &dictionary, true, &grad, &mut d_values, &mut gradients).unwrap();
    (backend.read_vec(&gradients.w_dec, 5 * d).unwrap(), backend.read_vec(&gradients.b_dec, d).unwrap())
}

/// More entries than one block adds: quarters times integers are exact in f32, so the segments must give equal sums.
#[test]
fn a_latent_that_always_fires_is_summed_in_segments() {
    for n in [1023, 1024, 1025, 5000] {
        assert_eq!(decode_gradients(&shim(), n, 3), decode_gradients(&Scalar::<f32>::new(), n, 3), "{n} tokens");
    }
}

/// More tokens than blocks of a grid: blocks take several.
#[test]
fn more_tokens_than_blocks() {
    let (backend, n) = (shim(), (1 << 20) + 3);
    let indices = [0u32, UNUSED].repeat(n);
    let values: Vec<f32> = (0..n).flat_map(|token| [(token % 4) as f32, 0.0]).collect();
    let codes = Codes::upload(&backend, SHAPE, &indices, &values).unwrap();
    let mut dictionary = Dictionary::zeros(&backend, 1, 5).unwrap();
    dictionary.w_dec = backend.upload(&[2.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    let mut out = backend.zeros(n).unwrap();
    backend.decode(&codes, Block::Joint, &dictionary, false, &mut out).unwrap();
    let out = backend.read_vec(&out, n).unwrap();
    assert!(out.iter().enumerate().all(|(token, &value)| value == (token % 4) as f32 * 2.0));
}

/// The cost matrix of a pair that does not fit into shared memory lies in global memory, with the same plan.
#[test]
fn a_pair_larger_than_shared_memory() {
    fn plan<B: Backend<Real = f32>>(backend: &B, rows: usize, columns: usize) -> Result<Vec<f32>, KernelError> {
        let pairs = Pairs::new(&[rows], &[columns])?;
        let cost: Vec<f32> = (0..rows * columns).map(|at| (at * 37 % 101) as f32 / 101.0).collect();
        let mut plan = Plan::new(backend, &pairs)?;
        let (row, column) = (vec![1.0 / rows as f32; rows], vec![1.0 / columns as f32; columns]);
        let options = SinkhornOptions { epsilon: 0.1, iterations: 3, tolerance: 0.0, sink_mass: 0.0 };
        let (cost, row) = (backend.upload(&cost)?, backend.upload(&row)?);
        backend.sinkhorn(&cost, &pairs, &row, &backend.upload(&column)?, options, &mut plan)?;
        backend.finish()?;
        backend.read_vec(&plan.plan, rows * columns)
    }
    let (rows, columns) = (400, 70);
    let found = plan(&shim(), rows, columns).unwrap();
    let expected = plan(&Scalar::<f32>::new(), rows, columns).unwrap();
    let largest = expected.iter().fold(0.0f32, |a, &b| a.max(b));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 2e-5 * largest, "{found} {expected}");
    }
    let error = plan(&shim(), 10, 4000).unwrap_err();
    assert!(matches!(&error, KernelError::Shape { what, .. } if what == "a pair"), "{error}");
}

/// Pairs are matched in one launch; those that do not fit into shared memory by several, with the same results.
#[test]
fn pairs_are_matched_in_one_launch() {
    fn plan<B: Backend<Real = f32>>(
        backend: &B,
        lengths: [usize; 2],
        d_shared: usize,
    ) -> Result<Vec<f32>, KernelError> {
        let pairs = Pairs::new(&lengths[..1], &lengths[1..])?;
        let shape = CodeShape { d_shared, d_private: 0, k_shared: 2, k_private: 0, selection: Selection::Split };
        let codes = |n: usize, step: usize| {
            let indices: Vec<u32> =
                (0..n).flat_map(|t| [0, 1].map(|s| ((t * step) % (d_shared - 1) + s) as u32)).collect();
            let values: Vec<f32> = (0..2 * n).map(|at| 0.5 + (at % 5) as f32).collect();
            Codes::upload(backend, shape, &indices, &values)
        };
        let (vision, text) = (codes(lengths[0], 3)?, codes(lengths[1], 7)?);
        let sinkhorn = SinkhornOptions { epsilon: 0.1, iterations: 5, tolerance: 0.0, sink_mass: 0.0 };
        let options = TransportOptions { sinkhorn, mass_reweighting: true, lambda_global: 0.1, mask_penalty: 1.0 };
        let mut transport = Transport::new(backend, &pairs)?;
        transport.solve(backend, &vision, &text, &pairs, None, &options)?;
        backend.read_vec(&transport.plan.plan, pairs.cells.total())
    }
    // The longest pair of the paper on a GPU with 99 KiB a block; too many cells; too many latents.
    for (lengths, d_shared, launches) in [([256, 64], 1536, 1), ([400, 70], 20, 9), ([3, 2], 30_000, 9)] {
        let device = shim();
        device.driver().fail_launches_after(launches);
        let found = plan(&device, lengths, d_shared).unwrap();
        device.driver().fail_launches_after(launches - 1);
        assert_eq!(plan(&device, lengths, d_shared).unwrap_err().code(), "E_DEVICE", "{lengths:?} took fewer launches");
        let expected = plan(&Scalar::<f32>::new(), lengths, d_shared).unwrap();
        let largest = expected.iter().fold(0.0f32, |a, &b| a.max(b));
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4 * largest), "{lengths:?}");
    }
}

/// What products read of the weights is made anew where the weights are: the next encoding and decoding take no launch
/// more than with weights that did not change, and give what they give with weights that were never known.
#[test]
fn copies_of_weights_are_updated_with_them() {
    for (precision, d) in [(Precision::F32, 40), (Precision::F32, 33), (Precision::Bf16, 40), (Precision::Bf16, 33)] {
        let backend = shim().with_precision(precision).unwrap();
        let (n, latents) = (70, 140);
        let shape = CodeShape { d_shared: 50, d_private: 90, k_shared: 4, k_private: 6, selection: Selection::Split };
        let value = |at: usize| ((at * 7919 % 1013) as f32 - 506.0) / 311.0;
        let values = |salt: usize, len: usize| (0..len).map(|at| value(at + salt)).collect::<Vec<_>>();
        let mut dictionary = Dictionary::zeros(&backend, d, latents).unwrap();
        dictionary.w_enc_t = backend.upload(&values(0, latents * d)).unwrap();
        dictionary.w_dec = backend.upload(&values(5, latents * d)).unwrap();
        let acts = backend.upload(&values(11, n * d)).unwrap();
        let results = |dictionary: &Dictionary<Cuda<Shim>>| -> Result<_, KernelError> {
            let mut codes = Codes::new(&backend, n, shape)?;
            backend.encode_topk(&acts, dictionary, &mut codes)?;
            let mut out = backend.zeros(n * d)?;
            backend.decode(&codes, Block::Joint, dictionary, true, &mut out)?;
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let (indices, values) = codes.read(&backend)?;
            Ok((indices, bits(values), bits(backend.read_vec(&out, n * d)?)))
        };
        let before = results(&dictionary).unwrap();
        let least = (1..).find(|&count| {
            backend.driver().fail_launches_after(count);
            results(&dictionary).is_ok()
        });
        let gradient = backend.upload(&values(3, latents * d)).unwrap();
        let (mut first, mut second) = (backend.zeros(latents * d).unwrap(), backend.zeros(latents * d).unwrap());
        let constants =
            AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-6, weight_decay: 0.1, gradient_scale: 1.0, count: 1 };
        backend.driver().fail_launches_after(i64::MAX);
        for (weights, unit) in [(&mut dictionary.w_enc_t, false), (&mut dictionary.w_dec, true)] {
            backend.adamw_rows(weights, &gradient, &mut first, &mut second, (latents, d), unit, constants).unwrap();
        }
        backend.driver().fail_launches_after(least.unwrap());
        let after = results(&dictionary);
        let after = after.unwrap_or_else(|error| panic!("{precision:?}: packed or rounded again: {error}"));
        backend.driver().fail_launches_after(i64::MAX);
        assert_ne!(after, before);
        let copy = |weights| backend.upload(&backend.read_vec(weights, latents * d).unwrap()).unwrap();
        let (w_enc_t, w_dec) = (copy(&dictionary.w_enc_t), copy(&dictionary.w_dec));
        let fresh = Dictionary { w_enc_t, w_dec, ..dictionary };
        assert_eq!(results(&fresh).unwrap(), after, "{precision:?}, {d} columns");
    }
}

/// A selection that no block's shared memory can sort is refused by name.
#[test]
fn a_k_beyond_shared_memory_is_refused() {
    let backend = shim();
    let shape =
        CodeShape { d_shared: 20_000, d_private: 0, k_shared: 20_000, k_private: 0, selection: Selection::Split };
    let dictionary = Dictionary::zeros(&backend, 1, 20_000).unwrap();
    let mut codes = Codes::new(&backend, 1, shape).unwrap();
    let error = backend.encode_topk(&backend.upload(&[1.0]).unwrap(), &dictionary, &mut codes).unwrap_err();
    assert!(matches!(&error, KernelError::Shape { what, .. } if what == "k of a block"), "{error}");
}

/// `doctor --gpu` agrees with itself on a device that is right.
#[test]
fn the_self_test_passes_and_sees_a_lost_device() {
    let backend = shim();
    let checks = lucid_kernels::cuda::self_test(&backend).unwrap();
    assert!(checks.len() > 10);
    for check in &checks {
        assert!(check.passed(), "{check:?}");
        // Bit equality everywhere would mean that the reference had been compared with itself.
        assert!(check.name != "gradient of W_enc" || check.error > 0.0);
    }
    backend.driver().fail_launches_after(20);
    assert_eq!(lucid_kernels::cuda::self_test(&backend).unwrap_err().code(), "E_DEVICE");
}

/// The same bits on every order of threads, and again.
#[test]
fn bits_do_not_depend_on_the_order_of_threads() {
    let run = |order| {
        let backend = Cuda::new(Arc::new(Shim::new(order))).unwrap();
        let (n, d) = (70, 33);
        let shape = CodeShape { d_shared: 50, d_private: 90, k_shared: 4, k_private: 6, selection: Selection::Global };
        let value = |at: usize| ((at * 7919 % 1013) as f32 - 506.0) / 311.0;
        let mut dictionary = Dictionary::zeros(&backend, d, 140).unwrap();
        dictionary.w_enc_t = backend.upload(&(0..140 * d).map(value).collect::<Vec<_>>()).unwrap();
        dictionary.w_dec = backend.upload(&(0..140 * d).map(|at| value(at + 5)).collect::<Vec<_>>()).unwrap();
        let acts = backend.upload(&(0..n * d).map(|at| value(at + 11)).collect::<Vec<_>>()).unwrap();
        let mut codes = Codes::new(&backend, n, shape).unwrap();
        backend.encode_topk(&acts, &dictionary, &mut codes).unwrap();
        let mut out = backend.zeros(n * d).unwrap();
        backend.decode(&codes, Block::Joint, &dictionary, true, &mut out).unwrap();
        let mut gradients = Dictionary::zeros(&backend, d, 140).unwrap();
        let mut d_values = backend.zeros(n * shape.k()).unwrap();
        backend.decode_backward(&codes, Block::Joint, &dictionary, true, &out, &mut d_values, &mut gradients).unwrap();
        backend.encode_backward(&codes, &d_values, &acts, &dictionary, &mut gradients).unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        [
            bits(codes.read(&backend).unwrap().1),
            bits(backend.read_vec(&d_values, n * shape.k()).unwrap()),
            bits(backend.read_vec(&gradients.w_dec, 140 * d).unwrap()),
            bits(backend.read_vec(&gradients.w_enc_t, 140 * d).unwrap()),
            bits(backend.read_vec(&gradients.b_enc, 140).unwrap()),
            bits(backend.read_vec(&gradients.b_dec, d).unwrap()),
        ]
    };
    let expected = run(Order::Forward);
    for order in [Order::Forward, Order::Reverse, Order::Random(1), Order::Random(2)] {
        assert!(run(order) == expected, "{order:?}");
    }
}

/// A copy ahead is there after `catch_up` and no later, reads what was filled in before it began, and stays within both sides.
#[test]
fn a_copy_ahead_comes_between_its_beginning_and_catching_up() {
    let shims = || [Shim::new(Order::Forward), Shim::new(Order::Forward).without_locked_memory()];
    for (early, shim) in [false, true].into_iter().flat_map(|early| shims().map(|shim| (early, shim))) {
        let shim = shim.with_copies_ahead(if early { CopiesAhead::Early } else { CopiesAhead::Late });
        let shim = Arc::new(shim);
        let backend = Cuda::new(Arc::clone(&shim)).unwrap();
        let mut buffer = backend.upload(&[9.0f32; 6]).unwrap();
        let mut staging = backend.staging();
        staging.fill(4).unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        backend.write_ahead(&mut buffer, 2, &mut staging, 1..4).unwrap();
        let seen = backend.read_vec(&buffer, 6).unwrap();
        assert_eq!(seen, if early { [9.0, 9.0, 2.0, 3.0, 4.0, 9.0] } else { [9.0; 6] });
        // Filling waits for the copy, whose values these would be otherwise; the second, longer one moves the memory too.
        staging.fill(3).unwrap().fill(7.0);
        staging.fill(1000).unwrap().fill(8.0);
        assert_eq!(staging.values().len(), 1000);
        backend.catch_up().unwrap();
        assert_eq!(backend.read_vec(&buffer, 6).unwrap(), [9.0, 9.0, 2.0, 3.0, 4.0, 9.0]);
        for (offset, from) in [(4, 0..3), (0, 998..1001)] {
            let error = backend.write_ahead(&mut buffer, offset, &mut staging, from).unwrap_err();
            assert!(matches!(error, KernelError::Shape { .. }), "{error}");
        }
        // A copy whose ends are given back while it is under way.
        backend.write_ahead(&mut buffer, 0, &mut staging, 0..6).unwrap();
        drop((buffer, staging, backend));
        assert_eq!(shim.live_allocations(), 0);
    }
}
