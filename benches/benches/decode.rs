//! Decoder by block, and the backward pass to values, weights and bias.

use lucid_benches::{SHAPE, Unit, WIDTH, measure, run};
use lucid_kernels::{Block, Decode, Device, Dictionary};

fn main() {
    run(|criterion, work| {
        let (cpu, n) = (work.cpu.clone(), work.pairs.vision.total());
        let (unit, codes) = ((Unit::Tokens, n), &work.vision_codes);
        let mut out = cpu.zeros(n * WIDTH)?;
        let mut gradients = Dictionary::zeros(&cpu, WIDTH, SHAPE.latents())?;
        let mut d_values = cpu.zeros(n * SHAPE.k())?;
        for (name, block, k) in [("joint", Block::Joint, SHAPE.k()), ("shared", Block::Shared, SHAPE.k_shared)] {
            let flop = 2.0 * (n * k * WIDTH) as f64;
            measure(criterion, "decode", name, unit, flop, || {
                cpu.decode(codes, block, &work.dictionary, true, &mut out)
            });
            let name = format!("{name} backward");
            measure(criterion, "decode", &name, unit, 2.0 * flop, || {
                let grad = &work.vision;
                cpu.decode_backward(codes, block, &work.dictionary, true, grad, &mut d_values, &mut gradients)
            });
        }
        Ok(())
    });
}
