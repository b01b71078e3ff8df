//! Encoder: Top-k against a full sort, ties, few or no positives, and its backward pass (spec 2).

use lucid_kernels::{Backend, CodeShape, Codes, Dictionary, Selection, UNUSED};

use crate::common::{
    GLOBAL, HostDictionary, Random, SPLIT, assert_close, central_differences, difference_tolerance, for_all, narrow,
    read, tolerance, upload,
};
use crate::oracle;

on_every_backend!(
    equals_a_sort,
    ties_go_to_the_lower_index,
    wide_rows,
    few_and_no_positives,
    nan_is_never_selected,
    listed_equals_a_sort,
    backward_is_the_derivative,
    counts_fired,
);

/// Positive entries among `candidates` by falling value, ties to the lower index, at most k of them.
fn by_sort(a: &[f64], candidates: &[usize], k: usize) -> Vec<u32> {
    let mut kept: Vec<usize> = candidates.iter().copied().filter(|&latent| a[latent] > 0.0).collect();
    kept.sort_by(|&x, &y| a[y].partial_cmp(&a[x]).unwrap().then(x.cmp(&y)));
    kept.truncate(k);
    kept.into_iter().map(|latent| latent as u32).collect()
}

/// Indices of one token's slots as documented at `Codes`.
fn expected_slots(a: &[f64], shape: CodeShape) -> Vec<u32> {
    let (shared, private): (Vec<usize>, Vec<usize>) = (0..shape.latents()).partition(|&latent| latent < shape.d_shared);
    let pad = |mut list: Vec<u32>, len: usize| {
        list.resize(len, UNUSED);
        list
    };
    match shape.selection {
        Selection::Split => {
            let mut slots = pad(by_sort(a, &shared, shape.k_shared), shape.k_shared);
            slots.extend(pad(by_sort(a, &private, shape.k_private), shape.k_private));
            slots
        }
        Selection::Global => {
            let all: Vec<usize> = (0..shape.latents()).collect();
            let kept = by_sort(a, &all, shape.k());
            let (first, second): (Vec<u32>, Vec<u32>) =
                kept.into_iter().partition(|&latent| (latent as usize) < shape.d_shared);
            pad([first, second].concat(), shape.k())
        }
    }
}

fn encode<B: Backend>(
    backend: &B,
    acts: &[f64],
    dictionary: &HostDictionary,
    shape: CodeShape,
) -> (Vec<u32>, Vec<f64>) {
    let n = acts.len() / dictionary.d;
    let mut codes = Codes::new(backend, n, shape).unwrap();
    backend.encode_topk(&upload(backend, acts), &dictionary.upload(backend), &mut codes).unwrap();
    (codes.read(backend).unwrap().0, read(backend, &codes.values, n * shape.k()))
}

/// Random numbers, many shapes. Pre-activations are integers over 64 (activations, weights and biases are small
/// integers over 8), so they are exact in every arithmetic, ties are frequent and the slots must be equal.
fn equals_a_sort<B: Backend>(backend: &B) {
    for_all(24, &(0u64..1 << 32, 1usize..70, 1usize..40, 0usize..70, 0usize..9, 1usize..9), |case| {
        let (seed, n, d_shared, d_private, k_shared, k_private) = case;
        let mut random = Random(seed);
        let d = 1 + random.below(40);
        let eighths = |random: &mut Random, len: usize| -> Vec<f64> {
            (0..len).map(|_| (random.below(17) as f64 - 8.0) / 8.0).collect()
        };
        let dictionary = HostDictionary {
            d,
            latents: d_shared + d_private,
            w_enc_t: eighths(&mut random, (d_shared + d_private) * d),
            b_enc: eighths(&mut random, d_shared + d_private),
            w_dec: vec![0.0; (d_shared + d_private) * d],
            b_dec: eighths(&mut random, d),
        };
        let acts = eighths(&mut random, n * d);
        for selection in [Selection::Split, Selection::Global] {
            let (k_shared, k_private) = (k_shared.min(d_shared), k_private.min(d_private));
            if k_shared + k_private == 0 {
                continue;
            }
            let shape = CodeShape { d_shared, d_private, k_shared, k_private, selection };
            let (indices, values) = encode(backend, &acts, &dictionary, shape);
            for token in 0..n {
                let a = oracle::pre_activations(&acts[token * d..(token + 1) * d], &dictionary);
                let slots = token * shape.k()..(token + 1) * shape.k();
                let expected = expected_slots(&a, shape);
                assert_eq!(&indices[slots.clone()], &expected, "token {token} of {shape:?}, d {d}");
                let kept: Vec<f64> =
                    expected.iter().map(|&latent| if latent == UNUSED { 0.0 } else { a[latent as usize] }).collect();
                assert_close("values", &values[slots], &kept, tolerance::<B>());
            }
        }
    });
}

/// All pre-activations equal: the first latents of each block win.
fn ties_go_to_the_lower_index<B: Backend>(backend: &B) {
    let (d, latents) = (5, SPLIT.latents());
    let dictionary = HostDictionary {
        d,
        latents,
        w_enc_t: vec![0.25; latents * d],
        b_enc: vec![0.5; latents],
        w_dec: vec![0.0; latents * d],
        b_dec: vec![0.0; d],
    };
    let acts = vec![1.0; d];
    assert_eq!(encode(backend, &acts, &dictionary, SPLIT).0, [0, 1, 2, 9, 10, 11, 12]);
    assert_eq!(encode(backend, &acts, &dictionary, GLOBAL).0, [0, 1, 2, 3, 4, 5, 6]);
}

/// Rows wider than what a warp looks at together, few and many slots, with more equals than are ranked at once.
fn wide_rows<B: Backend>(backend: &B) {
    let of_rows: [fn(usize) -> f64; 5] = [
        |_| 0.5,
        |at| (at % 3) as f64,
        |at| ((at * 7919) % 1021) as f64 / 8.0 - 60.0,
        |at| if at % 301 == 5 { at as f64 } else { -1.0 },
        |at| 1.0 + at as f64 / 4096.0,
    ];
    // Blocks of whole cells of sixteen, of more cells than a warp holds, and others.
    let sizes = [(608, 528, 5, 64), (1616, 6400, 33, 9), (600, 520, 5, 64), (601, 1531, 33, 9), (600, 520, 70, 66)];
    for (d_shared, d_private, k_shared, k_private) in sizes {
        for values in of_rows {
            for selection in [Selection::Split, Selection::Global] {
                let shape = CodeShape { d_shared, d_private, k_shared, k_private, selection };
                let b_enc: Vec<f64> = (0..shape.latents()).map(values).collect();
                let zeros = vec![0.0; shape.latents()];
                let dictionary = HostDictionary {
                    d: 1,
                    latents: shape.latents(),
                    w_enc_t: zeros.clone(),
                    b_enc: b_enc.clone(),
                    w_dec: zeros,
                    b_dec: vec![0.0],
                };
                let (indices, found) = encode(backend, &[1.0; 2], &dictionary, shape);
                let expected = expected_slots(&b_enc, shape);
                let kept: Vec<f64> =
                    expected.iter().map(|&at| if at == UNUSED { 0.0 } else { b_enc[at as usize] }).collect();
                for token in 0..2 {
                    let slots = token * shape.k()..(token + 1) * shape.k();
                    assert_eq!(&indices[slots.clone()], &expected, "{shape:?}");
                    assert_eq!(&found[slots], &kept, "{shape:?}");
                }
            }
        }
    }
}

fn few_and_no_positives<B: Backend>(backend: &B) {
    let (d, latents) = (3, SPLIT.latents());
    let mut dictionary = HostDictionary {
        d,
        latents,
        w_enc_t: vec![0.0; latents * d],
        b_enc: vec![-1.0; latents],
        w_dec: vec![0.0; latents * d],
        b_dec: vec![0.0; d],
    };
    dictionary.b_enc[8] = 0.0; // exactly zero is not positive
    let (indices, values) = encode(backend, &[1.0; 6], &dictionary, SPLIT);
    assert!(indices.iter().all(|&index| index == UNUSED) && values.iter().all(|&value| value == 0.0));

    (dictionary.b_enc[4], dictionary.b_enc[20], dictionary.b_enc[21]) = (0.5, 0.25, 2.0);
    let (indices, values) = encode(backend, &[1.0; 3], &dictionary, SPLIT);
    assert_eq!(indices, [4, UNUSED, UNUSED, 21, 20, UNUSED, UNUSED]);
    assert_eq!(values, [0.5, 0.0, 0.0, 2.0, 0.25, 0.0, 0.0]);
    let (indices, values) = encode(backend, &[1.0; 3], &dictionary, GLOBAL);
    assert_eq!(indices, [4, 21, 20, UNUSED, UNUSED, UNUSED, UNUSED]);
    assert_eq!(values, [0.5, 2.0, 0.25, 0.0, 0.0, 0.0, 0.0]);
}

/// A NaN in the activations poisons every pre-activation of that token and of no other.
fn nan_is_never_selected<B: Backend>(backend: &B) {
    let mut random = Random(3);
    let d = 20;
    let dictionary = HostDictionary::random(&mut random, d, SPLIT.latents());
    let clean = random.values(3 * d);
    let mut acts = clean.clone();
    acts[d + 7] = f64::NAN;
    let (expected, _) = encode(backend, &clean, &dictionary, SPLIT);
    let (indices, values) = encode(backend, &acts, &dictionary, SPLIT);
    let k = SPLIT.k();
    assert!(indices[k..2 * k].iter().all(|&index| index == UNUSED));
    assert!(values.iter().all(|value| value.is_finite()));
    assert_eq!((&indices[..k], &indices[2 * k..]), (&expected[..k], &expected[2 * k..]));
}

fn listed_equals_a_sort<B: Backend>(backend: &B) {
    let mut random = Random(11);
    let (n, d) = (9, 13);
    let dictionary = HostDictionary::random(&mut random, d, SPLIT.latents());
    let acts = random.values(n * d);
    for (list, k) in [(vec![2u32, 5, 6, 9, 20, 22], 3), (vec![17], 1), ((0..23).collect(), 23)] {
        let mut codes = Codes::with_slots(backend, n, k, SPLIT).unwrap();
        let device_list = backend.upload(&list).unwrap();
        let (device_acts, device) = (upload(backend, &acts), dictionary.upload(backend));
        backend.encode_listed(&device_acts, &device, &device_list, list.len(), &mut codes).unwrap();
        let (indices, _) = codes.read(backend).unwrap();
        let values = read(backend, &codes.values, n * k);
        let candidates: Vec<usize> = list.iter().map(|&latent| latent as usize).collect();
        for token in 0..n {
            let a = oracle::pre_activations(&acts[token * d..(token + 1) * d], &dictionary);
            let mut expected = by_sort(&a, &candidates, k);
            expected.resize(k, UNUSED);
            assert_eq!(&indices[token * k..(token + 1) * k], &expected);
            let kept: Vec<f64> =
                expected.iter().map(|&latent| if latent == UNUSED { 0.0 } else { a[latent as usize] }).collect();
            assert_close("values", &values[token * k..(token + 1) * k], &kept, tolerance::<B>());
        }
    }
}

/// L = Σ probe · z with the selection held fixed: the derivative in W_enc, b_enc and b_dec.
fn backward_is_the_derivative<B: Backend>(backend: &B) {
    let mut random = Random(5);
    let (n, d, shape) = (6, 7, SPLIT);
    let k = shape.k();
    let dictionary = HostDictionary::random(&mut random, d, shape.latents());
    let acts = random.values(n * d);
    let (indices, _) = encode(backend, &acts, &dictionary, shape);
    assert!(indices.contains(&UNUSED) && indices.iter().any(|&index| index != UNUSED));
    let probe = random.values(n * k);
    let loss = |dictionary: &HostDictionary| -> f64 {
        let mut sum = 0.0;
        for token in 0..n {
            let a = oracle::pre_activations(&acts[token * d..(token + 1) * d], dictionary);
            let slots = (token * k..(token + 1) * k).filter(|&slot| indices[slot] != UNUSED);
            sum += slots.map(|slot| probe[slot] * a[indices[slot] as usize]).sum::<f64>();
        }
        sum
    };
    let mut codes = Codes::new(backend, n, shape).unwrap();
    let (device_acts, device) = (upload(backend, &acts), dictionary.upload(backend));
    backend.encode_topk(&device_acts, &device, &mut codes).unwrap();
    let mut gradients = Dictionary::zeros(backend, d, shape.latents()).unwrap();
    let start = random.values(shape.latents() * d);
    gradients.w_enc_t = upload(backend, &start);
    backend.encode_backward(&codes, &upload(backend, &probe), &device_acts, &device, &mut gradients).unwrap();
    backend.pre_bias_backward(&device, &mut gradients).unwrap();

    let t = difference_tolerance::<B>();
    let w = central_differences(&dictionary.w_enc_t, |w| {
        loss(&HostDictionary { w_enc_t: w.to_vec(), ..dictionary.clone() })
    });
    let w: Vec<f64> = w.iter().zip(&start).map(|(gradient, start)| gradient + start).collect();
    assert_close("d W_enc", &read(backend, &gradients.w_enc_t, w.len()), &w, t);
    let b =
        central_differences(&dictionary.b_enc, |b| loss(&HostDictionary { b_enc: b.to_vec(), ..dictionary.clone() }));
    assert_close("d b_enc", &read(backend, &gradients.b_enc, b.len()), &b, t);
    let b =
        central_differences(&dictionary.b_dec, |b| loss(&HostDictionary { b_dec: b.to_vec(), ..dictionary.clone() }));
    assert_close("d b_dec", &read(backend, &gradients.b_dec, d), &b, t);
}

fn counts_fired<B: Backend>(backend: &B) {
    let indices = [4, UNUSED, UNUSED, 21, 20, UNUSED, UNUSED, 4, 0, UNUSED, 20, UNUSED, UNUSED, UNUSED];
    let values: Vec<f64> = indices.iter().map(|&index| if index == UNUSED { 0.0 } else { 1.0 }).collect();
    let codes = Codes::upload(backend, SPLIT, &indices, &narrow::<B::Real>(&values)).unwrap();
    let mut fired = backend.upload(&[1u32; 23]).unwrap();
    backend.count_fired(&codes, &mut fired).unwrap();
    let mut expected = [1u32; 23];
    (expected[0], expected[4], expected[20], expected[21]) = (2, 3, 3, 2);
    assert_eq!(backend.read_vec(&fired, 23).unwrap(), expected);
}
