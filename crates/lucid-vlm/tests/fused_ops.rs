//! The fused operations against candle's elementary ones, values and gradients, and against themselves on other thread counts.
#![allow(clippy::unwrap_used)]

use candle_core::{D, Device, Tensor, Var};
use lucid_vlm::{Activation, ops};

/// Values without a pattern, in −2..2.
fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = seed;
    let values: Vec<f32> = (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 22) as f32 - 2.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn close(name: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims(), "{name}");
    let a = a.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let b = b.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let scale = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        assert!((x - y).abs() <= 2e-5 * scale, "{name}[{i}]: {x} against {y}");
    }
}

/// Forward value and the gradient of Σ y · g with respect to every input.
fn both(name: &str, inputs: &[Tensor], fused: impl Fn(&[Tensor]) -> Tensor, plain: impl Fn(&[Tensor]) -> Tensor) {
    let run = |f: &dyn Fn(&[Tensor]) -> Tensor| {
        let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let args: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = f(&args);
        let weights = tensor(y.dims(), 99);
        let grads = (&y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        let grads: Vec<Tensor> = vars.iter().map(|v| grads.get(v).unwrap().clone()).collect();
        (y, grads)
    };
    let (y, dy) = run(&fused);
    let (z, dz) = run(&plain);
    close(name, &y, &z);
    for (i, (a, b)) in dy.iter().zip(&dz).enumerate() {
        close(&format!("{name}, gradient {i}"), a, b);
    }
}

fn plain_softmax(x: &Tensor, scale: f64) -> Tensor {
    let e = (x * scale).unwrap().exp().unwrap();
    e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap()
}

fn plain_norm(x: &Tensor, w: &Tensor, b: &Tensor) -> Tensor {
    let c = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
    let v = c.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let n = c.broadcast_div(&(v + 1e-6).unwrap().sqrt().unwrap()).unwrap();
    n.broadcast_mul(w).unwrap().broadcast_add(b).unwrap()
}

#[test]
fn values_and_gradients_agree_with_elementary_operations() {
    // 37 columns leave a tail after the lanes; 2000 rows make several tasks.
    for (rows, d) in [(3, 37), (2000, 48)] {
        let (x, w, b) = (tensor(&[rows, d], 1), tensor(&[d], 2), tensor(&[d], 3));
        both("softmax", std::slice::from_ref(&x), |a| ops::softmax(&a[0], 0.3).unwrap(), |a| plain_softmax(&a[0], 0.3));
        both(
            "layer norm",
            &[x.clone(), w, b.clone()],
            |a| ops::layer_norm(&a[0], &a[1], &a[2], 1e-6).unwrap(),
            |a| plain_norm(&a[0], &a[1], &a[2]),
        );
        both(
            "bias and gelu",
            &[x.clone(), b.clone()],
            |a| ops::bias_activation(&a[0], &a[1], Activation::GeluTanh).unwrap(),
            |a| a[0].broadcast_add(&a[1]).unwrap().gelu().unwrap(),
        );
        both(
            "bias",
            &[x.clone(), b.clone()],
            |a| ops::bias_add(&a[0], &a[1]).unwrap(),
            |a| a[0].broadcast_add(&a[1]).unwrap(),
        );
        both(
            "bias and residual",
            &[x, b, tensor(&[rows, d], 4)],
            |a| ops::bias_residual(&a[0], &a[1], &a[2]).unwrap(),
            |a| (a[0].broadcast_add(&a[1]).unwrap() + &a[2]).unwrap(),
        );
    }
}

#[test]
fn a_transposed_input_is_read_in_its_order() {
    let x = tensor(&[40, 6], 5);
    let t = x.t().unwrap();
    close("softmax", &ops::softmax(&t, 1.0).unwrap(), &plain_softmax(&t, 1.0));
}

#[test]
fn gradients_have_the_same_bits_on_one_and_three_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let vars: Vec<Var> = [(vec![3000, 48], 1), (vec![48], 2), (vec![48], 3)]
                .iter()
                .map(|(s, seed)| Var::from_tensor(&tensor(s, *seed)).unwrap())
                .collect();
            let y = ops::layer_norm(&vars[0], &vars[1], &vars[2], 1e-6).unwrap();
            let y = ops::bias_activation(&y, &vars[2], Activation::GeluTanh).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            vars.iter()
                .flat_map(|v| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        })
    };
    assert!(run(1) == run(3));
}
