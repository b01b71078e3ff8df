//! Encoder: fused product and Top-k, its AuxK form, and the backward pass.

use lucid_benches::{SHAPE, Unit, WIDTH, measure, run};
use lucid_kernels::{Codes, Dictionary, Encode};

fn main() {
    run(|criterion, work| {
        let (cpu, n) = (work.cpu.clone(), work.pairs.vision.total());
        let (unit, dense) = ((Unit::Tokens, n), 2.0 * (n * WIDTH * SHAPE.latents()) as f64);
        let mut codes = Codes::new(&cpu, n, SHAPE)?;
        measure(criterion, "encode", "topk", unit, dense, || {
            cpu.encode_topk(&work.vision, &work.dictionary, &mut codes)
        });
        let list: Vec<u32> = (0..SHAPE.latents() as u32).step_by(12).collect();
        let mut dead = Codes::with_slots(&cpu, n, WIDTH / 2, SHAPE)?;
        let listed = 2.0 * (n * WIDTH * list.len()) as f64;
        measure(criterion, "encode", "listed (auxk, 512 latents, k 384)", unit, listed, || {
            cpu.encode_listed(&work.vision, &work.dictionary, &list, list.len(), &mut dead)
        });
        let mut gradients = Dictionary::zeros(&cpu, WIDTH, SHAPE.latents())?;
        let d_values = codes.values.clone();
        let sparse = 2.0 * (n * SHAPE.k() * WIDTH) as f64;
        measure(criterion, "encode", "backward", unit, sparse, || {
            cpu.encode_backward(&codes, &d_values, &work.vision, &work.dictionary, &mut gradients)
        });
        Ok(())
    });
}
