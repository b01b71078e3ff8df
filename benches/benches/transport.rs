//! Cosine cost, guidance, Sinkhorn (10 iterations) and their backward passes. Tokens are patches plus text tokens.

use lucid_benches::{PAIRS, PATCHES, SHAPE, SINKHORN, TOKENS, Unit, measure, run};
use lucid_kernels::{Device, Guide, Sinkhorn};

fn main() {
    run(|criterion, work| {
        let (cpu, pairs) = (work.cpu.clone(), &work.pairs);
        let (vision, text) = (&work.vision_codes, &work.text_codes);
        let cells = (PAIRS * PATCHES * TOKENS) as f64;
        let unit = (Unit::Tokens, work.tokens());
        let mut transport = work.transport()?;
        measure(criterion, "transport", "cosine cost", unit, 2.0 * cells * SHAPE.k_shared as f64, || {
            cpu.cosine_cost(vision, text, pairs, &mut transport.cost)
        });
        measure(criterion, "transport", "guidance (weights, marginal, cost)", unit, 3.0 * cells, || {
            cpu.mass_weights(vision, text, pairs, &mut transport.weights)?;
            cpu.column_marginal(&transport.weights, pairs, &mut transport.column)?;
            let weights = Some(&transport.weights);
            cpu.guide_cost(&transport.cost, pairs, None, f64::INFINITY, weights, 0.5, &mut transport.guided)
        });
        let mut plan = work.plan()?;
        let rounds = SINKHORN.iterations as f64;
        let (row, column, guided) = (&transport.row, &transport.column, &transport.guided);
        measure(criterion, "transport", "sinkhorn", unit, (4.0 * rounds + 20.0) * cells, || {
            cpu.sinkhorn(guided, pairs, row, column, SINKHORN, &mut plan)
        });
        let d_plan = plan.plan.clone();
        let mut d_guided = cpu.zeros(d_plan.len())?;
        let mut d_column = cpu.zeros(column.len())?;
        measure(criterion, "transport", "sinkhorn unrolled backward", unit, 12.0 * rounds * cells, || {
            cpu.sinkhorn_backward(guided, pairs, row, column, SINKHORN, &plan, &d_plan, &mut d_guided, &mut d_column)
        });
        let (mut d_vision, mut d_text) = (vision.values.clone(), text.values.clone());
        measure(criterion, "transport", "cosine cost backward", unit, 4.0 * cells * SHAPE.k_shared as f64, || {
            let cost = &transport.cost;
            cpu.cosine_cost_backward(vision, text, pairs, cost, &d_plan, &mut d_vision, &mut d_text)
        });
        Ok(())
    });
}
