//! Cross reconstruction: one modality explained by the other's codes through the plan (spec 4 and 6).

use lucid_kernels::{Block, Direction, Modality};

use crate::coder::{Coder, PairPlan, SparseCodes};
use crate::error::Result;
use crate::exact_sum::ExactSum;

/// The modality that is explained.
pub(crate) fn target_of(direction: Direction) -> Modality {
    match direction {
        Direction::T2V => Modality::Vision,
        Direction::V2T => Modality::Text,
    }
}

/// Σ over target tokens of ‖h − ĥ‖², ĥ the average of `decoded` under the plan, normalised per target token: rows of Π
/// for T→V, columns for V→T (spec 4). A target token without mass averages evenly.
pub(crate) fn barycentre_error(
    plan: &PairPlan,
    direction: Direction,
    decoded: &[f32],
    target: &[f32],
    d: usize,
) -> f64 {
    let (targets, sources) = match direction {
        Direction::T2V => (plan.rows, plan.columns),
        Direction::V2T => (plan.columns, plan.rows),
    };
    let mass = |t: usize, s: usize| match direction {
        Direction::T2V => plan.at(t, s),
        Direction::V2T => plan.at(s, t),
    };
    let mut average = vec![0.0; d];
    let mut error = 0.0;
    for t in 0..targets {
        let total: f64 = (0..sources).map(|s| mass(t, s)).sum();
        average.fill(0.0);
        for s in 0..sources {
            let weight = if total > 0.0 { mass(t, s) / total } else { 1.0 / sources as f64 };
            if weight > 0.0 {
                let row = &decoded[s * d..(s + 1) * d];
                average.iter_mut().zip(row).for_each(|(a, &y)| *a += weight * f64::from(y));
            }
        }
        let row = &target[t * d..(t + 1) * d];
        error += row.iter().zip(&average).map(|(&h, a)| f64::from(h) - a).map(|e| e * e).sum::<f64>();
    }
    error
}

/// Squared errors of one pair in one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PairCross {
    pub shared: f64,
    pub joint: f64,
    pub uniform: f64,
    pub shuffled: Option<f64>,
}

/// States, codes and plan that cross reconstruction reads.
pub(crate) struct Coded<'a> {
    pub vision_states: &'a [f32],
    pub text_states: &'a [f32],
    pub vision: &'a SparseCodes,
    pub text: &'a SparseCodes,
    pub plan: &'a PairPlan,
}

impl Coded<'_> {
    /// The source's codes in the target's space.
    fn decoded(&self, coder: &dyn Coder, direction: Direction, block: Block) -> Result<Vec<f32>> {
        let source = match direction {
            Direction::T2V => self.text,
            Direction::V2T => self.vision,
        };
        coder.decode(source, target_of(direction), block)
    }

    fn error(&self, coder: &dyn Coder, direction: Direction, decoded: &[f32], plan: &PairPlan) -> f64 {
        let states = match direction {
            Direction::T2V => self.vision_states,
            Direction::V2T => self.text_states,
        };
        barycentre_error(plan, direction, decoded, states, coder.width(target_of(direction)))
    }
}

/// Both codes and the controls, for one pair and one direction. `wrong` is the same image with another pair's caption.
pub(crate) fn pair_cross(
    coder: &dyn Coder,
    direction: Direction,
    right: &Coded,
    wrong: Option<&Coded>,
) -> Result<PairCross> {
    let shared = right.decoded(coder, direction, Block::Shared)?;
    let joint = right.decoded(coder, direction, Block::Joint)?;
    let uniform = PairPlan::uniform(right.plan.rows, right.plan.columns);
    let shuffled = match (wrong, direction) {
        (None, _) => None,
        // The image's codes are the source, and the same as on the right side.
        (Some(wrong), Direction::V2T) => Some(wrong.error(coder, direction, &shared, wrong.plan)),
        (Some(wrong), Direction::T2V) => {
            Some(wrong.error(coder, direction, &wrong.decoded(coder, direction, Block::Shared)?, wrong.plan))
        }
    };
    Ok(PairCross {
        shared: right.error(coder, direction, &shared, right.plan),
        joint: right.error(coder, direction, &joint, right.plan),
        uniform: right.error(coder, direction, &shared, &uniform),
        shuffled,
    })
}

/// Sums of [`PairCross`] over pairs.
#[derive(Debug, Clone, Default)]
pub(crate) struct CrossErrors {
    shared: ExactSum,
    joint: ExactSum,
    uniform: ExactSum,
    shuffled: ExactSum,
}

impl CrossErrors {
    pub(crate) fn add(&mut self, pair: &PairCross) {
        self.shared.add(pair.shared);
        self.joint.add(pair.joint);
        self.uniform.add(pair.uniform);
        self.shuffled.add(pair.shuffled.unwrap_or(0.0));
    }

    /// R² against the spread of the target modality, which must not be 0.
    pub(crate) fn finish(&self, spread: f64, shuffled: bool) -> crate::evaluation::Cross {
        let r2 = |sum: &ExactSum| 1.0 - sum.value() / spread;
        crate::evaluation::Cross {
            shared: r2(&self.shared),
            joint: r2(&self.joint),
            controls: crate::evaluation::CrossControls {
                // Every caption is the wrong one exactly once, so the spread of the targets is the same.
                shuffled_caption: shuffled.then(|| r2(&self.shuffled)),
                uniform_plan: r2(&self.uniform),
                mean: 0.0,
            },
            ceiling: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_per_target_token_by_hand() {
        // Two patches, two tokens, d = 1; rows normalise to (1/4, 3/4) and (1, 0).
        let plan = PairPlan { rows: 2, columns: 2, mass: vec![0.1, 0.3, 0.6, 0.0] };
        let t2v = barycentre_error(&plan, Direction::T2V, &[4.0, 8.0], &[7.0, 5.0], 1);
        assert!((t2v - (0.0 + 1.0)).abs() < 1e-12, "{t2v}");
        // Columns normalise to (1/7, 6/7) and (1, 0).
        let v2t = barycentre_error(&plan, Direction::V2T, &[7.0, 14.0], &[13.0, 9.0], 1);
        assert!((v2t - 4.0).abs() < 1e-12, "{v2t}");
    }
}
