//! The CPU backend beyond the tests every backend passes: shapes large enough to cross its tiles, chunks and slices,
//! exact Top-k with ties against the reference, and the same bits whatever the number of threads.
#![allow(clippy::unwrap_used)]

use lucid_kernels::cpu::Cpu;
use lucid_kernels::{
    AdamW, Backend, Block, CodeShape, Codes, Dictionary, Direction, Factor, Pairs, Plan, Real, Scalar, Selection,
    SinkhornOptions, UNUSED,
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// In [-1, 1), on a grid that f32 holds.
    fn values(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| (self.next() % 4096) as f64 / 2048.0 - 1.0).collect()
    }

    /// Integers -2 ..= 2: products and sums are exact in f32, and ties are frequent.
    fn integers(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| (self.next() % 5) as f64 - 2.0).collect()
    }
}

fn upload<B: Backend>(backend: &B, values: &[f64]) -> B::Buffer<B::Real> {
    backend.upload(&values.iter().map(|&value| B::Real::from_f64(value)).collect::<Vec<_>>()).unwrap()
}

struct Host {
    d: usize,
    latents: usize,
    w_enc_t: Vec<f64>,
    b_enc: Vec<f64>,
    w_dec: Vec<f64>,
    b_dec: Vec<f64>,
}

impl Host {
    fn new(d: usize, latents: usize, mut values: impl FnMut(usize) -> Vec<f64>) -> Self {
        let (w_enc_t, w_dec) = (values(latents * d), values(latents * d));
        Self { d, latents, w_enc_t, b_enc: values(latents), w_dec, b_dec: values(d) }
    }

    fn upload<B: Backend>(&self, backend: &B) -> Dictionary<B> {
        Dictionary {
            d: self.d,
            latents: self.latents,
            w_enc_t: upload(backend, &self.w_enc_t),
            b_enc: upload(backend, &self.b_enc),
            w_dec: upload(backend, &self.w_dec),
            b_dec: upload(backend, &self.b_dec),
        }
    }
}

fn shape(blocks: [usize; 2], k: [usize; 2], selection: Selection) -> CodeShape {
    CodeShape { d_shared: blocks[0], d_private: blocks[1], k_shared: k[0], k_private: k[1], selection }
}

fn encode<B: Backend>(backend: &B, host: &Host, acts: &[f64], shape: CodeShape) -> (Vec<u32>, Vec<f64>) {
    let n = acts.len() / host.d;
    let mut codes = Codes::new(backend, n, shape).unwrap();
    backend.encode_topk(&upload(backend, acts), &host.upload(backend), &mut codes).unwrap();
    let (indices, values) = codes.read(backend).unwrap();
    (indices, values.into_iter().map(Real::widen).collect())
}

#[test]
fn top_k_is_exact_on_ragged_shapes_with_ties() {
    let reference = Scalar::<f64>::new();
    let cpu = Cpu::new(Some(2)).unwrap();
    let mut random = Random(1);
    let mut ties = 0;
    for (d, blocks, k) in [
        (1, [3, 5], [1, 2]),
        (7, [33, 70], [4, 9]),
        (8, [16, 48], [16, 3]),
        (24, [40, 0], [5, 0]),
        (25, [0, 129], [0, 20]),
        (100, [17, 333], [17, 31]),
        (259, [64, 191], [2, 48]),
        (520, [15, 1], [1, 1]),
    ] {
        let host = Host::new(d, blocks[0] + blocks[1], |len| random.integers(len));
        for n in [1, 5, 6, 7, 96, 97, 205] {
            let acts = random.integers(n * d);
            for selection in [Selection::Split, Selection::Global] {
                let shape = shape(blocks, k, selection);
                let (indices, values) = encode(&cpu, &host, &acts, shape);
                let expected = encode(&reference, &host, &acts, shape);
                assert_eq!((&indices, &values), (&expected.0, &expected.1), "d {d}, n {n}, {selection:?}");
                ties += values.windows(2).filter(|pair| pair[0] == pair[1] && pair[0] > 0.0).count();
            }
        }
    }
    assert!(ties > 1000, "only {ties} ties: the test would not see a wrong order");
}

#[test]
fn listed_top_k_is_exact() {
    let (reference, cpu) = (Scalar::<f64>::new(), Cpu::new(Some(2)).unwrap());
    let mut random = Random(2);
    let host = Host::new(19, 150, |len| random.integers(len));
    let acts = random.integers(101 * 19);
    let list: Vec<u32> = (0..150).filter(|latent| latent % 3 != 1).collect();
    for k in [1, 7, 60, 100] {
        let shape = shape([50, 100], [3, 4], Selection::Split);
        fn run<B: Backend>(
            backend: &B,
            host: &Host,
            acts: &[f64],
            list: &[u32],
            k: usize,
            shape: CodeShape,
        ) -> (Vec<u32>, Vec<f64>) {
            let mut codes = Codes::with_slots(backend, 101, k, shape).unwrap();
            let list_buffer = backend.upload(list).unwrap();
            let acts = upload(backend, acts);
            backend.encode_listed(&acts, &host.upload(backend), &list_buffer, list.len(), &mut codes).unwrap();
            let (indices, values) = codes.read(backend).unwrap();
            (indices, values.into_iter().map(Real::widen).collect())
        }
        assert_eq!(run(&cpu, &host, &acts, &list, k, shape), run(&reference, &host, &acts, &list, k, shape), "k {k}");
    }
}

#[test]
fn nothing_positive_gives_empty_codes_and_nan_is_never_selected() {
    let cpu = Cpu::new(Some(2)).unwrap();
    let mut random = Random(3);
    let mut host = Host::new(9, 40, |len| random.integers(len));
    host.b_enc.fill(-1e4);
    let acts = random.integers(13 * 9);
    let shape = shape([10, 30], [2, 5], Selection::Split);
    let (indices, values) = encode(&cpu, &host, &acts, shape);
    assert!(indices.iter().all(|&index| index == UNUSED) && values.iter().all(|&value| value == 0.0));

    host.b_enc.fill(1.0);
    host.w_enc_t[12 * 9 + 4] = f64::NAN;
    let (indices, values) = encode(&cpu, &host, &acts, shape);
    assert!(!indices.contains(&12) && values.iter().all(|value| value.is_finite()));
    assert!(indices.iter().any(|&index| index != UNUSED));
    let reference = encode(&Scalar::<f32>::new(), &host, &acts, shape);
    assert_eq!((indices, values), reference);
}

/// Every kernel on one batch; each result by name.
fn everything<B: Backend>(backend: &B, d: usize, lengths: (&[usize], &[usize])) -> Vec<(String, Vec<f64>)> {
    let mut random = Random(7 + d as u64);
    let pairs = Pairs::new(lengths.0, lengths.1).unwrap();
    let shape = shape([70, 530], [5, 11], Selection::Split);
    let (n_v, n_t, cells) = (pairs.vision.total(), pairs.text.total(), pairs.cells.total());
    let host = Host::new(d, shape.latents(), |len| random.values(len));
    let dictionary = host.upload(backend);
    // Codes from the f64 reference, so that all backends work on the same ones; some tokens are all zero.
    let mut codes_of = |n: usize| {
        let mut acts = random.values(n * d);
        acts[(n - 1) * d..].copy_from_slice(&host.b_dec);
        let mut silent = Host { b_enc: vec![-0.5; shape.latents()], ..Host::new(d, 0, |_| Vec::new()) };
        (silent.latents, silent.w_enc_t, silent.b_dec) = (host.latents, host.w_enc_t.clone(), host.b_dec.clone());
        let (indices, values) = encode(&Scalar::<f64>::new(), &silent, &acts, shape);
        // The other modality's index space is shared: shift nothing, only round.
        let values: Vec<B::Real> = values.into_iter().map(|value| B::Real::from_f64(f64::from(value as f32))).collect();
        (acts, Codes::upload(backend, shape, &indices, &values).unwrap())
    };
    let ((acts_v, vision), (acts_t, text)) = (codes_of(n_v), codes_of(n_t));
    let (acts_v, acts_t) = (upload(backend, &acts_v), upload(backend, &acts_t));
    let k = shape.k();
    let mut out: Vec<(String, Vec<f64>)> = Vec::new();
    let mut keep = |name: &str, values: &B::Buffer<B::Real>, len: usize| {
        let values = backend.read_vec(values, len).unwrap().into_iter().map(Real::widen).collect();
        out.push((name.to_owned(), values));
    };

    let mut gradients = Dictionary::zeros(backend, d, shape.latents()).unwrap();
    let mut d_v = upload(backend, &random.values(n_v * k));
    let mut d_t = upload(backend, &random.values(n_t * k));
    for (block, bias) in [(Block::Joint, true), (Block::Shared, false), (Block::Private, true)] {
        let mut decoded = upload(backend, &vec![3.0; n_v * d]);
        backend.decode(&vision, block, &dictionary, bias, &mut decoded).unwrap();
        keep(&format!("decoded {block:?}"), &decoded, n_v * d);
        backend.decode_backward(&vision, block, &dictionary, bias, &acts_v, &mut d_v, &mut gradients).unwrap();
        keep(&format!("d_values {block:?}"), &d_v, n_v * k);
    }
    backend.encode_backward(&vision, &d_v, &acts_v, &dictionary, &mut gradients).unwrap();
    backend.pre_bias_backward(&dictionary, &mut gradients).unwrap();
    keep("w_dec", &gradients.w_dec, shape.latents() * d);
    keep("w_enc_t", &gradients.w_enc_t, shape.latents() * d);
    keep("b_enc", &gradients.b_enc, shape.latents());
    keep("b_dec", &gradients.b_dec, d);

    let zeros = |len: usize| upload(backend, &vec![0.0; len]);
    let (mut cost, mut weights, mut guided) = (zeros(cells), zeros(n_t), zeros(cells));
    let (mut row, mut column) = (zeros(n_v), zeros(n_t));
    backend.cosine_cost(&vision, &text, &pairs, &mut cost).unwrap();
    backend.mass_weights(&vision, &text, &pairs, &mut weights).unwrap();
    backend.uniform_marginal(&pairs.vision, &mut row).unwrap();
    backend.column_marginal(&weights, &pairs, &mut column).unwrap();
    let mask: Vec<f64> = (0..cells).map(|cell| if cell % 11 == 3 { 0.25 } else { 1.0 }).collect();
    let mask = upload(backend, &mask);
    backend.guide_cost(&cost, &pairs, Some(&mask), 2.0, Some(&weights), 0.5, &mut guided).unwrap();
    for (name, values, len) in
        [("cost", &cost, cells), ("weights", &weights, n_t), ("column", &column, n_t), ("guided", &guided, cells)]
    {
        keep(name, values, len);
    }
    let options = SinkhornOptions { epsilon: 0.1, iterations: 10, tolerance: 0.0, sink_mass: 0.0 };
    let mut plan = Plan::new(backend, &pairs).unwrap();
    backend.sinkhorn(&guided, &pairs, &row, &column, options, &mut plan).unwrap();
    for (name, values, len) in [
        ("plan", &plan.plan, cells),
        ("u", &plan.u, n_v),
        ("v", &plan.v, n_t),
        ("row sums", &plan.row_sums, n_v),
        ("column sums", &plan.column_sums, n_t),
    ] {
        keep(name, values, len);
    }
    let (mut d_plan, mut d_guided) = (upload(backend, &random.values(cells)), zeros(cells));
    for direction in [Direction::T2V, Direction::V2T] {
        let (source, target) = match direction {
            Direction::T2V => ((&acts_t, n_t), (&acts_v, n_v)),
            Direction::V2T => ((&acts_v, n_v), (&acts_t, n_t)),
        };
        let (mut mean, mut d_y) = (zeros(target.1 * d), zeros(source.1 * d));
        backend.barycenter(&plan, &pairs, direction, d, source.0, &mut mean).unwrap();
        keep(&format!("mean {direction:?}"), &mean, target.1 * d);
        let gradient = Some(&mut d_plan);
        backend.barycenter_backward(&plan, &pairs, direction, d, source.0, target.0, &mut d_y, gradient).unwrap();
        keep(&format!("d_y {direction:?}"), &d_y, source.1 * d);
        keep(&format!("d_plan {direction:?}"), &d_plan, cells);
    }
    let mut sums = backend.zeros::<f64>(3).unwrap();
    backend.transport_cost(&guided, &plan, &pairs, &mut sums, 0).unwrap();
    backend.transport_cost_backward(&guided, &plan, &pairs, 0.3, &mut d_guided, Some(&mut d_plan)).unwrap();
    let (mut d_column, mut d_weights) = (zeros(n_t), zeros(n_t));
    backend
        .sinkhorn_backward(&guided, &pairs, &row, &column, options, &plan, &d_plan, &mut d_guided, &mut d_column)
        .unwrap();
    keep("d_guided", &d_guided, cells);
    keep("d_column", &d_column, n_t);
    backend.column_marginal_backward(&weights, &pairs, &d_column, &mut d_weights).unwrap();
    backend.guide_cost_backward(&d_guided, &pairs, 0.5, &mut d_weights).unwrap();
    keep("d_weights", &d_weights, n_t);
    let (mut d_v, mut d_t2) = (zeros(n_v * k), zeros(n_t * k));
    backend.mass_weights_backward(&vision, &text, &pairs, &d_weights, &mut d_v, &mut d_t2).unwrap();
    backend.cosine_cost_backward(&vision, &text, &pairs, &cost, &d_guided, &mut d_v, &mut d_t).unwrap();
    for (name, values, len) in
        [("d_vision", &d_v, n_v * k), ("d_text", &d_t, n_t * k), ("d_text of weights", &d_t2, n_t * k)]
    {
        keep(name, values, len);
    }

    let (mut prediction, mut pooled) = (upload(backend, &random.values(n_v * d)), zeros(pairs.len() * d));
    backend.residual(&mut prediction, &acts_v, n_v * d, Factor::Constant(0.7), &mut sums, 1).unwrap();
    backend.segment_mean(&prediction, &pairs.vision, d, &mut pooled).unwrap();
    backend.segment_mean_backward(&pooled, &pairs.vision, d, &mut prediction).unwrap();
    keep("pooled", &pooled, pairs.len() * d);
    keep("prediction", &prediction, n_v * d);
    backend.sum_squares(&prediction, n_v * d, &mut sums, 2).unwrap();

    let len = shape.latents() * d;
    let mut parameters = upload(backend, &host.w_dec);
    backend.project_rows(&parameters, shape.latents(), d, &mut gradients.w_dec).unwrap();
    let (mut first, mut second) = (zeros(len), zeros(len));
    for count in 1..=3 {
        let constants =
            AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, gradient_scale: 0.5, count };
        backend.adamw(&mut parameters, &gradients.w_dec, &mut first, &mut second, len, constants).unwrap();
        backend.normalise_rows(&mut parameters, shape.latents(), d).unwrap();
    }
    for (name, values) in [("projected", &gradients.w_dec), ("parameters", &parameters), ("second", &second)] {
        keep(name, values, len);
    }
    for (name, values) in [
        ("sums", backend.read_vec(&sums, 3).unwrap()),
        ("entropy", backend.read_vec(&plan.entropy, pairs.len()).unwrap()),
        ("transport cost", backend.read_vec(&plan.transport_cost, pairs.len()).unwrap()),
    ] {
        out.push((name.to_owned(), values));
    }
    out
}

/// Lengths of several pairs: whole tiles, ragged ends, single tokens.
const LENGTHS: (&[usize], &[usize]) = (&[49, 1, 196, 7, 30], &[13, 1, 64, 5, 17]);

#[test]
fn every_kernel_agrees_with_the_reference_in_f64() {
    let cpu = Cpu::new(Some(2)).unwrap();
    let mut compared = 0;
    for d in [5, 48, 75] {
        let expected = everything(&Scalar::<f64>::new(), d, LENGTHS);
        let plain = everything(&Scalar::<f32>::new(), d, LENGTHS);
        let found = everything(&cpu, d, LENGTHS);
        for (((name, found), (_, plain)), (_, expected)) in found.iter().zip(&plain).zip(&expected) {
            assert_eq!(found.len(), expected.len());
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
            let scale = norm(&mut expected.iter().copied());
            let error = |values: &[f64]| norm(&mut values.iter().zip(expected).map(|(a, b)| a - b)) / scale;
            assert!(scale > 0.0, "{name}: nothing to compare");
            // Where f32 itself loses digits (columns of almost no mass), as close as plain loops in f32.
            let allowed = (3.0 * error(plain)).max(1e-5);
            assert!(error(found) <= allowed, "d {d}, {name}: relative error {} > {allowed}", error(found));
            compared += 1;
        }
    }
    assert_eq!(compared, 3 * 39);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let run = |threads| {
        let cpu = Cpu::new(Some(threads)).unwrap();
        let mut random = Random(11);
        let host = Host::new(75, 600, |len| random.values(len));
        let codes = encode(&cpu, &host, &random.values(401 * 75), shape([70, 530], [5, 11], Selection::Split));
        let results = everything(&cpu, 75, LENGTHS);
        let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        (codes.0, bits(codes.1), results.into_iter().map(|(name, values)| (name, bits(values))).collect::<Vec<_>>())
    };
    let one = run(1);
    for threads in [2, 3, 7] {
        let many = run(threads);
        assert!(one.0 == many.0 && one.1 == many.1, "codes differ with {threads} threads");
        for (one, many) in one.2.iter().zip(&many.2) {
            assert!(one == many, "{} differs with {threads} threads", one.0);
        }
    }
}

#[test]
fn no_threads_is_refused() {
    assert_eq!(Cpu::new(Some(0)).unwrap_err().code(), "E_OPTION");
}
