//! AdamW and the unit sphere of decoder rows, over one weight matrix (6144 × 768); elements are parameters.

use lucid_benches::{SHAPE, Unit, WIDTH, measure, run, scaled};
use lucid_kernels::{AdamW, Device, Optimise};

fn main() {
    run(|criterion, work| {
        let cpu = work.cpu.clone();
        let (rows, len) = (SHAPE.latents(), SHAPE.latents() * WIDTH);
        let unit = (Unit::Parameters, len);
        let (mut parameter, mut gradient) = (work.dictionary.w_dec.clone(), scaled(9, len, 1e-3));
        let (mut first, mut second, mut sums) = (cpu.zeros(len)?, cpu.zeros(len)?, cpu.zeros(1)?);
        let constants =
            AdamW { lr: 3e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, gradient_scale: 1.0, count: 10 };
        measure(criterion, "optimise", "adamw", unit, 14.0 * len as f64, || {
            cpu.adamw(&mut parameter, &gradient, &mut first, &mut second, len, constants)
        });
        measure(criterion, "optimise", "sum of squares", unit, 2.0 * len as f64, || {
            cpu.sum_squares(&gradient, len, &mut sums, 0)
        });
        measure(criterion, "optimise", "project rows", unit, 6.0 * len as f64, || {
            cpu.project_rows(&parameter, rows, WIDTH, &mut gradient)
        });
        measure(criterion, "optimise", "normalise rows", unit, 3.0 * len as f64, || {
            cpu.normalise_rows(&mut parameter, rows, WIDTH)
        });
        Ok(())
    });
}
