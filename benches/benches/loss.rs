//! Residuals and segment means.

use lucid_benches::{PAIRS, Unit, WIDTH, measure, run};
use lucid_kernels::{Device, Factor, Loss};

fn main() {
    run(|criterion, work| {
        let (cpu, n) = (work.cpu.clone(), work.pairs.vision.total());
        let (unit, len) = ((Unit::Tokens, n), n * WIDTH);
        let (mut prediction, mut sums) = (work.vision.clone(), cpu.zeros(1)?);
        measure(criterion, "loss", "residual", unit, 4.0 * len as f64, || {
            cpu.residual(&mut prediction, &work.vision, len, Factor::Constant(0.5), &mut sums, 0)
        });
        let mut pooled = cpu.zeros(PAIRS * WIDTH)?;
        measure(criterion, "loss", "segment mean", unit, len as f64, || {
            cpu.segment_mean(&work.vision, &work.pairs.vision, WIDTH, &mut pooled)
        });
        measure(criterion, "loss", "segment mean backward", unit, 2.0 * len as f64, || {
            cpu.segment_mean_backward(&pooled, &work.pairs.vision, WIDTH, &mut prediction)
        });
        Ok(())
    });
}
