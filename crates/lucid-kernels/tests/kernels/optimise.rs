//! AdamW as PyTorch defines it, and the unit sphere of decoder rows (spec 5.1).

use lucid_kernels::{AdamW, Backend};

use crate::common::{Random, assert_close, dot, read, tolerance, upload};

on_every_backend!(
    adamw_is_pytorchs,
    rows_are_updated_and_become_unit,
    projection_removes_the_parallel_part,
    rows_become_unit,
);

fn adamw_is_pytorchs<B: Backend>(backend: &B) {
    let (mut random, len) = (Random(41), 1001);
    let mut p = random.values(len);
    let (mut m, mut s) = (vec![0.0; len], vec![0.0; len]);
    let (mut parameter, mut first, mut second) = (upload(backend, &p), upload(backend, &m), upload(backend, &s));
    for count in 1..=4 {
        let gradient = random.values(len);
        let constants = AdamW {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: if count % 2 == 0 { 0.0 } else { 0.1 },
            gradient_scale: 0.5,
            count,
        };
        let grad = upload(backend, &gradient);
        backend.adamw(&mut parameter, &grad, &mut first, &mut second, len, constants).unwrap();
        let t = count as i32;
        for i in 0..len {
            let g = 0.5 * gradient[i];
            p[i] *= 1.0 - 0.01 * constants.weight_decay;
            m[i] = 0.9 * m[i] + 0.1 * g;
            s[i] = 0.999 * s[i] + 0.001 * g * g;
            let (m_hat, s_hat) = (m[i] / (1.0 - 0.9f64.powi(t)), s[i] / (1.0 - 0.999f64.powi(t)));
            p[i] -= 0.01 * m_hat / (s_hat.sqrt() + 1e-8);
        }
        assert_close("parameter", &read(backend, &parameter, len), &p, tolerance::<B>());
        assert_close("first moment", &read(backend, &first, len), &m, tolerance::<B>());
        assert_close("second moment", &read(backend, &second, len), &s, tolerance::<B>());
    }
}

/// Rows are what `adamw` makes of them, divided by their norm where that is wanted; a row that becomes zero stays.
fn rows_are_updated_and_become_unit<B: Backend>(backend: &B) {
    for (rows, d, unit) in [(5, 19, true), (9, 8, true), (3, 132, true), (130, 36, false), (1, 1, true), (4, 33, false)]
    {
        let mut random = Random(44);
        let len = rows * d;
        let (mut p, gradient) = (random.values(len), random.values(len));
        let (m, s) = (random.values(len), random.between(len, 0.0, 1.0));
        // Decay alone moves the first row, which is zero, so that it stays.
        let mut g = gradient;
        p[..d].fill(0.0);
        g[..d].fill(0.0);
        let mut m_zero = m;
        m_zero[..d].fill(0.0);
        let constants =
            AdamW { lr: 0.02, beta1: 0.9, beta2: 0.99, eps: 1e-6, weight_decay: 0.1, gradient_scale: 0.7, count: 3 };
        let upload_all = || [&p, &m_zero, &s].map(|values| upload(backend, values));
        let grad = upload(backend, &g);
        let [mut parameter, mut first, mut second] = upload_all();
        backend.adamw_rows(&mut parameter, &grad, &mut first, &mut second, (rows, d), unit, constants).unwrap();
        let [mut expected, mut expected_first, mut expected_second] = upload_all();
        backend.adamw(&mut expected, &grad, &mut expected_first, &mut expected_second, len, constants).unwrap();
        assert_eq!(read(backend, &first, len), read(backend, &expected_first, len));
        assert_eq!(read(backend, &second, len), read(backend, &expected_second, len));
        let mut expected = read(backend, &expected, len);
        if unit {
            for row in expected.chunks_exact_mut(d) {
                let norm = dot(row, row).sqrt();
                row.iter_mut().for_each(|value| *value /= if norm > 0.0 { norm } else { 1.0 });
            }
        }
        assert_close("rows", &read(backend, &parameter, len), &expected, tolerance::<B>());
    }
}

fn projection_removes_the_parallel_part<B: Backend>(backend: &B) {
    let (mut random, rows, d) = (Random(42), 7, 19);
    let mut weights = random.values(rows * d);
    weights[2 * d..3 * d].fill(0.0);
    let gradient = random.values(rows * d);
    let mut device = upload(backend, &gradient);
    backend.project_rows(&upload(backend, &weights), rows, d, &mut device).unwrap();
    let found = read(backend, &device, rows * d);
    for row in 0..rows {
        let at = row * d..(row + 1) * d;
        let (w, g, f) = (&weights[at.clone()], &gradient[at.clone()], &found[at]);
        let parallel = if row == 2 { 0.0 } else { dot(g, w) / dot(w, w) };
        let expected: Vec<f64> = g.iter().zip(w).map(|(g, w)| g - parallel * w).collect();
        assert_close("gradient", f, &expected, tolerance::<B>());
    }
}

fn rows_become_unit<B: Backend>(backend: &B) {
    let (mut random, rows, d) = (Random(43), 5, 23);
    let mut weights = random.values(rows * d);
    weights[..d].fill(0.0);
    let mut device = upload(backend, &weights);
    backend.normalise_rows(&mut device, rows, d).unwrap();
    let found = read(backend, &device, rows * d);
    assert_eq!(&found[..d], &vec![0.0; d]);
    for row in 1..rows {
        let (w, f) = (&weights[row * d..(row + 1) * d], &found[row * d..(row + 1) * d]);
        let norm = dot(w, w).sqrt();
        let expected: Vec<f64> = w.iter().map(|w| w / norm).collect();
        assert_close("row", f, &expected, tolerance::<B>());
    }
}
