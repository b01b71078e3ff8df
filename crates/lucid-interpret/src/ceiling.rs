//! How well a linear map could explain one modality by the other: what cross R² is judged by.
//!
//! A ridge map is fitted on one set of pairs and measured on another. Its input for a target token is
//! - **pooled**: the mean state of the other modality, the same for every token of the pair;
//! - **matched**: the states of the other modality averaged by the model's plan for that token, rows of Π for T→V and columns
//!   for V→T as in cross reconstruction (spec 4);
//! - **both** beside each other.
//!
//! The plan sees the target token's code, so `matched` knows of it what a good matching can tell. Codes are not linear in
//! states, so the number is a yardstick and no bound.

use lucid_data::progress::Observer;
use lucid_data::store::ActivationSource;
use lucid_kernels::{Direction, Modality};
use lucid_sae::linear::Products;
use rayon::prelude::*;

use crate::coder::{Coder, PairPlan, check_widths};
use crate::error::{InterpretError, Result};
use crate::evaluation::{Ceiling, PerDirection};
use crate::exact_sum::ExactSum;
use crate::metrics::means::{Means, sums_of};
use crate::pairs::read_states;

/// λ as a fraction of the mean variance of an input dimension.
const RIDGE: f64 = 0.01;
/// Pairs held at once.
const BLOCK: usize = 32;

/// Inputs [n · 2 d_source], pooled then matched, and targets [n · d_target] of one pair in one direction, about the means.
struct Rows {
    x: Vec<f64>,
    y: Vec<f64>,
}

/// Means of the pairs that are fitted on; both sets are taken about them.
struct Centres {
    vision: Vec<f64>,
    text: Vec<f64>,
}

impl Centres {
    fn of(&self, modality: Modality) -> &[f64] {
        match modality {
            Modality::Vision => &self.vision,
            Modality::Text => &self.text,
        }
    }
}

/// Averages of source states by the plan, one for each target token.
fn matched(plan: &PairPlan, direction: Direction, states: &[f64], d: usize) -> Vec<f64> {
    let (targets, sources) = match direction {
        Direction::T2V => (plan.rows, plan.columns),
        Direction::V2T => (plan.columns, plan.rows),
    };
    let mut out = vec![0.0; targets * d];
    for (t, out) in out.chunks_exact_mut(d).enumerate() {
        let mass = |s: usize| match direction {
            Direction::T2V => plan.at(t, s),
            Direction::V2T => plan.at(s, t),
        };
        let total: f64 = (0..sources).map(mass).sum();
        for (s, state) in states.chunks_exact(d).enumerate() {
            let weight = if total > 0.0 { mass(s) / total } else { 1.0 / sources as f64 };
            out.iter_mut().zip(state).for_each(|(sum, x)| *sum += weight * x);
        }
    }
    out
}

fn rows(
    coder: &dyn Coder,
    source: &dyn ActivationSource,
    pair: usize,
    centres: &Centres,
    directions: [Direction; 2],
) -> Result<[Rows; 2]> {
    let vision = read_states(source, pair, Modality::Vision)?;
    let text = read_states(source, pair, Modality::Text)?;
    let plan = coder.plan(&coder.encode(&vision, Modality::Vision)?, &coder.encode(&text, Modality::Text)?)?;
    let centred = |states: &[f32], modality| -> Vec<f64> {
        let mean = centres.of(modality);
        states.chunks_exact(mean.len()).flat_map(|row| row.iter().zip(mean).map(|(&h, m)| f64::from(h) - m)).collect()
    };
    let states = (centred(&vision, Modality::Vision), centred(&text, Modality::Text));
    Ok(directions.map(|direction| {
        let (from, to) = match direction {
            Direction::T2V => (&states.1, &states.0),
            Direction::V2T => (&states.0, &states.1),
        };
        let d = match direction {
            Direction::T2V => centres.text.len(),
            Direction::V2T => centres.vision.len(),
        };
        let tokens = (from.len() / d) as f64;
        let mut mean = vec![0.0; d];
        from.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / tokens));
        let by_plan = matched(&plan, direction, from, d);
        let x = by_plan.chunks_exact(d).flat_map(|row| mean.iter().chain(row).copied()).collect();
        Rows { x, y: to.clone() }
    }))
}

/// Which of the inputs a map sees.
fn part(x: &[f64], d: usize, columns: std::ops::Range<usize>) -> Vec<f64> {
    x.chunks_exact(2 * d).flat_map(|row| row[columns.clone()].iter().copied()).collect()
}

/// The mean of either modality over all pairs.
fn centres(source: &dyn ActivationSource) -> Result<Centres> {
    let (mut vision, mut text) = (Means::new(source.d_vision()), Means::new(source.d_text()));
    for pair in 0..source.pairs() {
        vision.add(&sums_of(&read_states(source, pair, Modality::Vision)?, source.d_vision()), source.vision_len(pair));
        text.add(&sums_of(&read_states(source, pair, Modality::Text)?, source.d_text()), source.text_len(pair, 0));
    }
    Ok(Centres { vision: vision.finish(), text: text.finish() })
}

/// R² on `measured` of ridge maps fitted on `fitted`, in both directions. A direction without variance is left out.
///
/// # Errors
/// `E_SHAPE` where the sources do not fit the model, `E_NON_FINITE`, `E_CANCELLED`.
pub fn cross_ceiling(
    coder: &dyn Coder,
    fitted: &dyn ActivationSource,
    measured: &dyn ActivationSource,
    observer: &dyn Observer,
) -> Result<PerDirection<Ceiling>> {
    for source in [fitted, measured] {
        check_widths(coder, source.d_vision(), source.d_text())?;
    }
    let directions = [Direction::T2V, Direction::V2T];
    let centre = centres(fitted)?;
    let width = |direction| match direction {
        Direction::T2V => (centre.text.len(), centre.vision.len()),
        Direction::V2T => (centre.vision.len(), centre.text.len()),
    };
    let total = (fitted.pairs() + measured.pairs()) as u64;
    let blocks = |source: &dyn ActivationSource, done: usize, work: &mut dyn FnMut(&[Rows; 2])| -> Result<()> {
        for start in (0..source.pairs()).step_by(BLOCK) {
            if observer.cancelled() {
                return Err(InterpretError::Cancelled { stage: "ceiling" });
            }
            let end = (start + BLOCK).min(source.pairs());
            let read: Vec<Result<[Rows; 2]>> =
                (start..end).into_par_iter().map(|pair| rows(coder, source, pair, &centre, directions)).collect();
            for pair in read {
                work(&pair?);
            }
            observer.progress("ceiling", (done + end) as u64, total);
        }
        Ok(())
    };
    let parts = |d: usize| [0..d, d..2 * d, 0..2 * d];
    let mut products: Vec<Vec<Products>> = directions
        .iter()
        .map(|&direction| {
            let (dx, dy) = width(direction);
            parts(dx).into_iter().map(|columns| Products::new(columns.len(), dy)).collect()
        })
        .collect();
    blocks(fitted, 0, &mut |pair| {
        for ((rows, &direction), products) in pair.iter().zip(&directions).zip(&mut products) {
            let d = width(direction).0;
            for (columns, products) in parts(d).into_iter().zip(products) {
                products.add(&part(&rows.x, d, columns), &rows.y);
            }
        }
    })?;
    let maps: Vec<Vec<Option<Vec<f64>>>> =
        products.into_iter().map(|three| three.into_iter().map(|p| p.ridge(RIDGE)).collect()).collect();
    let mut errors = vec![vec![ExactSum::default(); 3]; 2];
    let mut means = [Means::new(centre.vision.len()), Means::new(centre.text.len())];
    let mut squares = [ExactSum::default(), ExactSum::default()];
    blocks(measured, fitted.pairs(), &mut |pair| {
        for (at, (rows, &direction)) in pair.iter().zip(&directions).enumerate() {
            let (dx, dy) = width(direction);
            let y32: Vec<f32> = rows.y.iter().map(|&y| y as f32).collect();
            means[at].add(&sums_of(&y32, dy), y32.len() / dy);
            squares[at].add(rows.y.iter().map(|y| y * y).sum());
            for (which, columns) in parts(dx).into_iter().enumerate() {
                let Some(map) = &maps[at][which] else { continue };
                errors[at][which].add(error(&part(&rows.x, dx, columns.clone()), columns.len(), map, &rows.y, dy));
            }
        }
    })?;
    let finish = |at: usize| {
        let mean = means[at].finish();
        let tokens = means[at].tokens() as f64;
        let spread = squares[at].value() - tokens * mean.iter().map(|m| m * m).sum::<f64>();
        let r2 = |which: usize| {
            let known = maps[at][which].is_some() && spread > 0.0;
            known.then(|| 1.0 - errors[at][which].value() / spread)
        };
        Some(Ceiling { pooled: r2(0)?, matched: r2(1)?, both: r2(2)? })
    };
    Ok(PerDirection { t2v: finish(0), v2t: finish(1) })
}

/// Σ ‖y − x B‖² over the rows.
fn error(x: &[f64], dx: usize, map: &[f64], y: &[f64], dy: usize) -> f64 {
    let mut predicted = vec![0.0; dy];
    x.chunks_exact(dx)
        .zip(y.chunks_exact(dy))
        .map(|(x, y)| {
            predicted.fill(0.0);
            for (x, row) in x.iter().zip(map.chunks_exact(dy)) {
                predicted.iter_mut().zip(row).for_each(|(sum, b)| *sum += x * b);
            }
            y.iter().zip(&predicted).map(|(y, p)| (y - p) * (y - p)).sum::<f64>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_by_the_plan_for_each_target() {
        let plan = PairPlan { rows: 2, columns: 2, mass: vec![0.1, 0.3, 0.6, 0.0] };
        let t2v = matched(&plan, Direction::T2V, &[4.0, 8.0], 1);
        assert!((t2v[0] - 7.0).abs() < 1e-12 && (t2v[1] - 4.0).abs() < 1e-12, "{t2v:?}");
        let v2t = matched(&plan, Direction::V2T, &[7.0, 14.0], 1);
        assert!((v2t[0] - 13.0).abs() < 1e-12 && (v2t[1] - 7.0).abs() < 1e-12, "{v2t:?}");
    }

    #[test]
    fn the_error_of_a_map_by_hand() {
        // (1, 2) · [[1, 0], [0, 2]] = (1, 4) against (1, 1).
        assert_eq!(error(&[1.0, 2.0], 2, &[1.0, 0.0, 0.0, 2.0], &[1.0, 1.0], 2), 9.0);
    }
}
