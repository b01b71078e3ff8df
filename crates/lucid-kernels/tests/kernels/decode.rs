//! Decoder by block, and its backward pass on sparse codes (spec 2).

use lucid_kernels::{Backend, Block, CodeShape, Dictionary, Selection};

use crate::common::{
    GLOBAL, HostCodes, HostDictionary, Random, SPLIT, assert_close, central_differences, difference_tolerance, dot,
    for_all, read, rubbish, tolerance, upload,
};
use crate::oracle;

on_every_backend!(equals_the_dense_product, wide_rows_and_many_slots, backward_is_the_derivative);

const BLOCKS: [Block; 3] = [Block::Joint, Block::Shared, Block::Private];

fn equals_the_dense_product<B: Backend>(backend: &B) {
    for_all(8, &(0u64..1 << 32, 1usize..60, 1usize..70), |(seed, n, d)| {
        let mut random = Random(seed);
        for shape in [SPLIT, GLOBAL] {
            let dictionary = HostDictionary::random(&mut random, d, shape.latents());
            let codes = HostCodes::random(&mut random, n, shape);
            for (block, bias) in BLOCKS.into_iter().flat_map(|block| [(block, false), (block, true)]) {
                let mut out = rubbish(backend, n * d);
                let (device_codes, device) = (codes.upload(backend), dictionary.upload(backend));
                backend.decode(&device_codes, block, &device, bias, &mut out).unwrap();
                let expected = oracle::decode(&codes, block, &dictionary, bias);
                assert_close("decoded", &read(backend, &out, n * d), &expected, tolerance::<B>());
            }
        }
    });
}

/// More columns and more slots than a block of a GPU takes at a time: it passes through its shared memory again.
fn wide_rows_and_many_slots<B: Backend>(backend: &B) {
    let (mut random, n, d) = (Random(18), 2, 530);
    let shape = CodeShape { d_shared: 90, d_private: 90, k_shared: 70, k_private: 80, selection: Selection::Split };
    let dictionary = HostDictionary::random(&mut random, d, shape.latents());
    let codes = HostCodes::random(&mut random, n, shape);
    let (device_codes, device) = (codes.upload(backend), dictionary.upload(backend));
    let mut out = rubbish(backend, n * d);
    backend.decode(&device_codes, Block::Joint, &device, true, &mut out).unwrap();
    let expected = oracle::decode(&codes, Block::Joint, &dictionary, true);
    assert_close("decoded", &read(backend, &out, n * d), &expected, tolerance::<B>());

    // d W_dec[k] = Σ z_k g over the tokens, straight from the definition.
    let grad = random.values(n * d);
    let mut d_values = backend.zeros(n * shape.k()).unwrap();
    let mut gradients = Dictionary::zeros(backend, d, shape.latents()).unwrap();
    let device_grad = upload(backend, &grad);
    backend
        .decode_backward(&device_codes, Block::Joint, &device, false, &device_grad, &mut d_values, &mut gradients)
        .unwrap();
    let dense = codes.dense(Block::Joint);
    let rows: Vec<f64> = (0..shape.latents() * d)
        .map(|at| (0..n).map(|token| dense[token][at / d] * grad[token * d + at % d]).sum())
        .collect();
    assert_close("d W_dec", &read(backend, &gradients.w_dec, rows.len()), &rows, tolerance::<B>());
}

fn backward_is_the_derivative<B: Backend>(backend: &B) {
    let mut random = Random(17);
    let (n, d) = (7, 5);
    for shape in [SPLIT, GLOBAL] {
        for (block, bias) in BLOCKS.into_iter().flat_map(|block| [(block, false), (block, true)]) {
            let dictionary = HostDictionary::random(&mut random, d, shape.latents());
            let codes = HostCodes::random(&mut random, n, shape);
            let probe = random.values(n * d);
            let loss = |codes: &HostCodes, dictionary: &HostDictionary| {
                dot(&probe, &oracle::decode(codes, block, dictionary, bias))
            };

            // Gradients are added to what is there.
            let start = random.values(n * shape.k());
            let mut d_values = upload(backend, &start);
            let mut gradients = Dictionary::zeros(backend, d, shape.latents()).unwrap();
            let start_rows = random.values(shape.latents() * d);
            gradients.w_dec = upload(backend, &start_rows);
            let (device_codes, device) = (codes.upload(backend), dictionary.upload(backend));
            let grad = upload(backend, &probe);
            backend.decode_backward(&device_codes, block, &device, bias, &grad, &mut d_values, &mut gradients).unwrap();

            let t = difference_tolerance::<B>();
            let values = central_differences(&codes.values, |values| loss(&codes.with_values(values), &dictionary));
            let values: Vec<f64> =
                codes.masked(&values, block).iter().zip(&start).map(|(gradient, start)| gradient + start).collect();
            assert_close("d values", &read(backend, &d_values, values.len()), &values, t);
            let rows = central_differences(&dictionary.w_dec, |w| {
                loss(&codes, &HostDictionary { w_dec: w.to_vec(), ..dictionary.clone() })
            });
            let rows: Vec<f64> = rows.iter().zip(&start_rows).map(|(gradient, start)| gradient + start).collect();
            assert_close("d W_dec", &read(backend, &gradients.w_dec, rows.len()), &rows, t);
            let b = central_differences(&dictionary.b_dec, |b| {
                loss(&codes, &HostDictionary { b_dec: b.to_vec(), ..dictionary.clone() })
            });
            assert_close("d b_dec", &read(backend, &gradients.b_dec, d), &b, t);
        }
    }
}
