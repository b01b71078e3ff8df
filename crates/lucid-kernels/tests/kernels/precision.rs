//! `Precision::Bf16`: every operation on operands that are rounded first, and on nothing else.

use lucid_kernels::{Backend, Block, CodeShape, Codes, Dictionary, Direction, Precision, Selection, UNUSED};

use crate::common::{
    GLOBAL, HostCodes, HostDictionary, Random, SPLIT, assert_close, dot, plan_of, read, rubbish, some_pairs, tolerance,
    upload,
};
use crate::oracle;

on_every_backend!(
    decoders_round_their_rows,
    many_slots,
    rows_of_w_dec_gather_rounded_gradients,
    latents_that_always_fire,
    encoders_round_both_operands,
    listed_latents_too,
    rows_of_w_enc_gather_rounded_differences,
    barycentres_round_shares_and_points,
    f32_is_as_before,
);

fn rounded(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&x| Precision::Bf16.round(x)).collect()
}

fn bf16<B: Backend>(backend: &B) -> B {
    backend.with_precision(Precision::Bf16).unwrap()
}

/// Values that differ by more than rounding of sums does.
#[track_caller]
fn assert_apart(what: &str, a: &[f64], b: &[f64]) {
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart > 1e-3, "{what}: rounding moved nothing by more than {apart:e}");
}

fn decoders_round_their_rows<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    // Widths that do and do not fill groups of four and eight columns, and one beyond a warp's.
    for (case, (n, d)) in [(1, 1), (9, 12), (7, 13), (20, 64), (3, 530), (2, 1100)].into_iter().enumerate() {
        let mut random = Random(100 + case as u64);
        for shape in [SPLIT, GLOBAL] {
            let dictionary = HostDictionary::random(&mut random, d, shape.latents());
            let as_rounded = HostDictionary { w_dec: rounded(&dictionary.w_dec), ..dictionary.clone() };
            let codes = HostCodes::random(&mut random, n, shape);
            let (device_codes, device) = (codes.upload(backend), dictionary.upload(backend));
            for (block, bias) in [(Block::Joint, true), (Block::Shared, false), (Block::Private, true)] {
                let mut out = rubbish(backend, n * d);
                backend.decode(&device_codes, block, &device, bias, &mut out).unwrap();
                let expected = oracle::decode(&codes, block, &as_rounded, bias);
                assert_close("decoded", &read(backend, &out, n * d), &expected, tolerance::<B>());

                let grad = random.values(n * d);
                let mut d_values = backend.zeros(n * shape.k()).unwrap();
                let mut gradients = Dictionary::zeros(backend, d, shape.latents()).unwrap();
                let device_grad = upload(backend, &grad);
                backend
                    .decode_backward(&device_codes, block, &device, bias, &device_grad, &mut d_values, &mut gradients)
                    .unwrap();
                let expected: Vec<f64> = (0..n * shape.k())
                    .map(|slot| {
                        let (token, latent) = (slot / shape.k(), codes.indices[slot] as usize);
                        let row = |latent: usize| &as_rounded.w_dec[latent * d..(latent + 1) * d];
                        if codes.holds(slot, block) { dot(&grad[token * d..(token + 1) * d], row(latent)) } else { 0.0 }
                    })
                    .collect();
                assert_close("d values", &read(backend, &d_values, expected.len()), &expected, tolerance::<B>());
            }
            if n > 1 {
                let plain = oracle::decode(&codes, Block::Joint, &dictionary, true);
                assert_apart("decoded", &plain, &oracle::decode(&codes, Block::Joint, &as_rounded, true));
            }
        }
    }
}

/// More slots than a block of a GPU takes at a time.
fn many_slots<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    let (mut random, n, d) = (Random(18), 2, 800);
    let shape = CodeShape { d_shared: 90, d_private: 90, k_shared: 70, k_private: 80, selection: Selection::Split };
    let dictionary = HostDictionary::random(&mut random, d, shape.latents());
    let codes = HostCodes::random(&mut random, n, shape);
    let grad = random.values(n * d);
    let mut d_values = backend.zeros(n * shape.k()).unwrap();
    let mut gradients = Dictionary::zeros(backend, d, shape.latents()).unwrap();
    let (there, device, grad_there) = (codes.upload(backend), dictionary.upload(backend), upload(backend, &grad));
    backend.decode_backward(&there, Block::Joint, &device, false, &grad_there, &mut d_values, &mut gradients).unwrap();
    let w_dec = rounded(&dictionary.w_dec);
    let expected: Vec<f64> = (0..n * shape.k())
        .map(|slot| {
            let (token, latent) = (slot / shape.k(), codes.indices[slot] as usize);
            let g = &grad[token * d..(token + 1) * d];
            if codes.indices[slot] == UNUSED { 0.0 } else { dot(g, &w_dec[latent * d..(latent + 1) * d]) }
        })
        .collect();
    assert_close("d values", &read(backend, &d_values, expected.len()), &expected, tolerance::<B>());
}

/// dW_dec\[k\] = Σ z_k bf16(g), db_dec = Σ g.
fn rows_of_w_dec_gather_rounded_gradients<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    for (case, (n, d)) in [(1, 1), (40, 12), (33, 13), (20, 64), (5, 1100)].into_iter().enumerate() {
        let mut random = Random(200 + case as u64);
        let dictionary = HostDictionary::random(&mut random, d, SPLIT.latents());
        let codes = HostCodes::random(&mut random, n, SPLIT);
        let grad = random.values(n * d);
        for block in [Block::Joint, Block::Private] {
            let start = random.values(SPLIT.latents() * d);
            let mut gradients = Dictionary::zeros(backend, d, SPLIT.latents()).unwrap();
            gradients.w_dec = upload(backend, &start);
            let (device_codes, device) = (codes.upload(backend), dictionary.upload(backend));
            let (grad_there, mut d_values) = (upload(backend, &grad), backend.zeros(n * SPLIT.k()).unwrap());
            backend
                .decode_backward(&device_codes, block, &device, true, &grad_there, &mut d_values, &mut gradients)
                .unwrap();
            let (dense, g) = (codes.dense(block), rounded(&grad));
            let rows: Vec<f64> = (0..SPLIT.latents() * d)
                .map(|at| start[at] + (0..n).map(|token| dense[token][at / d] * g[token * d + at % d]).sum::<f64>())
                .collect();
            assert_close("d W_dec", &read(backend, &gradients.w_dec, rows.len()), &rows, tolerance::<B>());
            let bias: Vec<f64> = (0..d).map(|x| (0..n).map(|token| grad[token * d + x]).sum()).collect();
            assert_close("d b_dec", &read(backend, &gradients.b_dec, d), &bias, tolerance::<B>());
        }
    }
}

/// So many tokens of one latent that a GPU divides them among blocks.
fn latents_that_always_fire<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    let (mut random, n, d) = (Random(17), 2600, 9);
    let shape = CodeShape { d_shared: 4, d_private: 5, k_shared: 1, k_private: 1, selection: Selection::Split };
    let dictionary = HostDictionary::random(&mut random, d, shape.latents());
    let indices = (0..n).flat_map(|token| [0, 4 + (token % 5) as u32]).collect();
    let codes = HostCodes { n, shape, indices, values: random.between(2 * n, 0.2, 1.5) };
    let (acts, d_values) = (random.values(n * d), random.values(2 * n));
    let mut gradients = Dictionary::zeros(backend, d, shape.latents()).unwrap();
    let (there, device) = (codes.upload(backend), dictionary.upload(backend));
    backend
        .encode_backward(&there, &upload(backend, &d_values), &upload(backend, &acts), &device, &mut gradients)
        .unwrap();
    let centred: Vec<f64> = acts
        .iter()
        .enumerate()
        .map(|(at, h)| Precision::Bf16.round(crate::common::round(h - dictionary.b_dec[at % d])))
        .collect();
    let mut rows = vec![0.0; shape.latents() * d];
    for (slot, &latent) in codes.indices.iter().enumerate() {
        for x in 0..d {
            rows[latent as usize * d + x] += d_values[slot] * centred[slot / 2 * d + x];
        }
    }
    assert_close("d W_enc", &read(backend, &gradients.w_enc_t, rows.len()), &rows, tolerance::<B>());
}

/// Whole numbers of ten bits, of which bf16 keeps eight; their products and sums are exact everywhere.
fn whole_numbers(random: &mut Random, len: usize) -> Vec<f64> {
    (0..len).map(|_| random.below(1201) as f64 - 600.0).collect()
}

fn whole_dictionary(random: &mut Random, d: usize, latents: usize) -> HostDictionary {
    HostDictionary {
        d,
        latents,
        w_enc_t: whole_numbers(random, latents * d),
        b_enc: whole_numbers(random, latents),
        w_dec: vec![0.0; latents * d],
        b_dec: whole_numbers(random, d),
    }
}

/// What an encoder makes of rounded operands.
fn pre_activations(h: &[f64], dictionary: &HostDictionary) -> Vec<f64> {
    let centred: Vec<f64> = h.iter().zip(&dictionary.b_dec).map(|(h, b)| Precision::Bf16.round(h - b)).collect();
    let rows = rounded(&dictionary.w_enc_t);
    rows.chunks_exact(dictionary.d).zip(&dictionary.b_enc).map(|(row, b)| dot(row, &centred) + b).collect()
}

fn encoders_round_both_operands<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    let shape = CodeShape { d_shared: 90, d_private: 170, k_shared: 6, k_private: 9, selection: Selection::Split };
    for (case, (n, d)) in [(1, 1), (5, 9), (140, 17), (33, 31)].into_iter().enumerate() {
        let mut random = Random(300 + case as u64);
        let (dictionary, acts) = (whole_dictionary(&mut random, d, shape.latents()), whole_numbers(&mut random, n * d));
        let mut codes = Codes::new(backend, n, shape).unwrap();
        backend.encode_topk(&upload(backend, &acts), &dictionary.upload(backend), &mut codes).unwrap();
        let (indices, _) = codes.read(backend).unwrap();
        let values = read(backend, &codes.values, n * shape.k());
        let mut moved = 0;
        for token in 0..n {
            let h = &acts[token * d..(token + 1) * d];
            let (a, exact) = (pre_activations(h, &dictionary), oracle::pre_activations(h, &dictionary));
            for (part, k, first) in [(0..90, 6, 0), (90..260, 9, 6)] {
                let mut kept: Vec<usize> = part.filter(|&latent| a[latent] > 0.0).collect();
                kept.sort_by(|&x, &y| a[y].partial_cmp(&a[x]).unwrap().then(x.cmp(&y)));
                for slot in 0..k {
                    let at = token * shape.k() + first + slot;
                    let (latent, value) = kept.get(slot).map_or((UNUSED, 0.0), |&latent| (latent as u32, a[latent]));
                    assert_eq!((indices[at], values[at]), (latent, value), "slot {at}, d {d}");
                    moved += usize::from(latent != UNUSED && a[latent as usize] != exact[latent as usize]);
                }
            }
        }
        assert!(n == 1 || moved > n, "{moved} values differ from those of operands as they are");
    }
}

fn listed_latents_too<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    let (mut random, n, d) = (Random(41), 30, 11);
    let dictionary = whole_dictionary(&mut random, d, SPLIT.latents());
    let acts = whole_numbers(&mut random, n * d);
    let list: Vec<u32> = (0..SPLIT.latents() as u32).filter(|latent| latent % 3 != 1).collect();
    let mut codes = Codes::with_slots(backend, n, 5, SPLIT).unwrap();
    let (acts_there, list_there) = (upload(backend, &acts), backend.upload(&list).unwrap());
    backend.encode_listed(&acts_there, &dictionary.upload(backend), &list_there, list.len(), &mut codes).unwrap();
    let indices = backend.read_vec(&codes.indices, n * 5).unwrap();
    for token in 0..n {
        let a = pre_activations(&acts[token * d..(token + 1) * d], &dictionary);
        let mut kept: Vec<u32> = list.iter().copied().filter(|&latent| a[latent as usize] > 0.0).collect();
        kept.sort_by(|&x, &y| a[y as usize].partial_cmp(&a[x as usize]).unwrap().then(x.cmp(&y)));
        kept.resize(5, UNUSED);
        assert_eq!(indices[token * 5..(token + 1) * 5], kept, "token {token}");
    }
}

/// dW_enc\[k\] = Σ da_k bf16(h − b_dec), db_enc,k = Σ da_k.
fn rows_of_w_enc_gather_rounded_differences<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    for (case, (n, d)) in [(1, 1), (40, 12), (33, 13), (25, 70)].into_iter().enumerate() {
        let mut random = Random(400 + case as u64);
        let dictionary = HostDictionary::random(&mut random, d, SPLIT.latents());
        let codes = HostCodes::random(&mut random, n, SPLIT);
        let (acts, d_values) = (random.values(n * d), random.values(n * SPLIT.k()));
        let mut gradients = Dictionary::zeros(backend, d, SPLIT.latents()).unwrap();
        let (there, device) = (codes.upload(backend), dictionary.upload(backend));
        backend
            .encode_backward(&there, &upload(backend, &d_values), &upload(backend, &acts), &device, &mut gradients)
            .unwrap();
        let (mut rows, mut bias) = (vec![0.0; SPLIT.latents() * d], vec![0.0; SPLIT.latents()]);
        for (slot, &latent) in codes.indices.iter().enumerate().filter(|(_, latent)| **latent != UNUSED) {
            bias[latent as usize] += d_values[slot];
            for x in 0..d {
                let h = acts[slot / SPLIT.k() * d + x];
                // The difference is a number of f32 before it is one of bf16.
                let centred = Precision::Bf16.round(crate::common::round(h - dictionary.b_dec[x]));
                rows[latent as usize * d + x] += d_values[slot] * centred;
            }
        }
        assert_close("d W_enc", &read(backend, &gradients.w_enc_t, rows.len()), &rows, tolerance::<B>());
        assert_close("d b_enc", &read(backend, &gradients.b_enc, bias.len()), &bias, tolerance::<B>());
    }
}

/// Shares and points are rounded, and gradients where they are points; the mean under the shares is of shares as they are.
fn barycentres_round_shares_and_points<B: Backend>(backend: &B) {
    let backend = &bf16(backend);
    let pairs = some_pairs();
    let mut random = Random(77);
    let cells = random.between(pairs.cells.total(), 0.01, 0.2);
    for (direction, d) in [(Direction::T2V, 5), (Direction::V2T, 5), (Direction::T2V, 72), (Direction::V2T, 72)] {
        let (sources, targets) = (direction.source(&pairs).total(), direction.target(&pairs).total());
        let (y, grad) = (random.values(sources * d), random.values(targets * d));
        let plan = plan_of(backend, &pairs, &cells);
        let mut out = rubbish(backend, targets * d);
        backend.barycenter(&plan, &pairs, direction, d, &upload(backend, &y), &mut out).unwrap();
        let (mut d_y, mut d_plan) = (rubbish(backend, sources * d), backend.zeros(cells.len()).unwrap());
        let (y_there, g_there) = (upload(backend, &y), upload(backend, &grad));
        backend
            .barycenter_backward(&plan, &pairs, direction, d, &y_there, &g_there, &mut d_y, Some(&mut d_plan))
            .unwrap();

        let (points, g) = (rounded(&y), rounded(&grad));
        let (mut expected, mut expected_y) = (vec![0.0; targets * d], vec![0.0; sources * d]);
        let mut expected_plan = vec![0.0; cells.len()];
        for pair in 0..pairs.len() {
            let (first, columns) = (pairs.cells.range(pair).start, pairs.text.length(pair));
            let (target, source) = (direction.target(&pairs).range(pair), direction.source(&pairs).range(pair));
            for t in target.clone() {
                let cell = |s: usize| match direction {
                    Direction::T2V => first + (t - target.start) * columns + (s - source.start),
                    Direction::V2T => first + (s - source.start) * columns + (t - target.start),
                };
                let mass: f64 = source.clone().map(|s| cells[cell(s)]).sum();
                let inner = |s: usize| dot(&g[t * d..(t + 1) * d], &points[s * d..(s + 1) * d]);
                let mean: f64 = source.clone().map(|s| cells[cell(s)] / mass * inner(s)).sum();
                for s in source.clone() {
                    let share = Precision::Bf16.round(cells[cell(s)] / mass);
                    for x in 0..d {
                        expected[t * d + x] += share * points[s * d + x];
                        expected_y[s * d + x] += share * g[t * d + x];
                    }
                    expected_plan[cell(s)] = (inner(s) - mean) / mass;
                }
            }
        }
        assert_close("barycentre", &read(backend, &out, targets * d), &expected, tolerance::<B>());
        assert_close("d y", &read(backend, &d_y, sources * d), &expected_y, tolerance::<B>());
        assert_close("d plan", &read(backend, &d_plan, cells.len()), &expected_plan, tolerance::<B>());
        assert_apart("barycentre", &expected, &oracle::barycenter(&cells, &pairs, direction, d, &y));
    }
}

/// Back to f32 from the same buffers: the bits of a backend that never rounded, and what it keeps is not what bf16 kept.
fn f32_is_as_before<B: Backend>(backend: &B) {
    let (mut random, n, d) = (Random(5), 12, 20);
    let dictionary = HostDictionary::random(&mut random, d, SPLIT.latents()).upload(backend);
    let codes = HostCodes::random(&mut random, n, SPLIT).upload(backend);
    let decoded = |backend: &B| {
        let mut out = rubbish(backend, n * d);
        backend.decode(&codes, Block::Joint, &dictionary, true, &mut out).unwrap();
        read(backend, &out, n * d)
    };
    let before = decoded(backend);
    let lower = bf16(backend);
    assert_apart("decoded", &before, &decoded(&lower));
    assert_eq!(before, decoded(&lower.with_precision(Precision::F32).unwrap()));
    assert_eq!(before, decoded(backend));
}
