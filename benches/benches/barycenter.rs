//! Barycentres under the plan, both ways, and backward. Tokens are patches plus text tokens.

use lucid_benches::{PAIRS, PATCHES, TOKENS, Unit, WIDTH, measure, run};
use lucid_kernels::{Barycenter, Device, Direction};

fn main() {
    run(|criterion, work| {
        let (cpu, pairs) = (work.cpu.clone(), &work.pairs);
        let plan = work.transport()?.plan;
        let flop = 2.0 * (PAIRS * PATCHES * TOKENS * WIDTH) as f64;
        let unit = (Unit::Tokens, work.tokens());
        for (name, direction) in [("text to vision", Direction::T2V), ("vision to text", Direction::V2T)] {
            let (source, target) = match direction {
                Direction::T2V => (&work.text, &work.vision),
                Direction::V2T => (&work.vision, &work.text),
            };
            let (mut out, mut d_source) = (cpu.zeros(target.len())?, cpu.zeros(source.len())?);
            measure(criterion, "barycenter", name, unit, flop, || {
                cpu.barycenter(&plan, pairs, direction, WIDTH, source, &mut out)
            });
            measure(criterion, "barycenter", &format!("{name} backward"), unit, flop, || {
                cpu.barycenter_backward(&plan, pairs, direction, WIDTH, source, target, &mut d_source, None)
            });
        }
        Ok(())
    });
}
