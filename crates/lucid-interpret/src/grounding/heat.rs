//! Heat maps of a caption, or of a part of one, over the patches of an image (spec 6).

use crate::coder::{PairPlan, SparseCodes};

/// How heat is made from a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeatMap {
    /// max over content tokens of Π_ij / c_j.
    PlanMax,
    /// Σ_j c_j cos(z_i, z_j) over all valid tokens.
    Code,
    /// Stage 3 of Algorithm 1 without idf: Σ_m min(z_i,m , z_c,m), z_c the mean shared code of the tokens.
    Concept,
    /// Σ_j Π_ij: for a whole caption the row marginal, and so flat at convergence.
    PlanSum,
}

impl HeatMap {
    /// Every map, the default first.
    pub const ALL: [Self; 4] = [Self::PlanMax, Self::Code, Self::Concept, Self::PlanSum];

    /// Name in options and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlanMax => "plan-max",
            Self::Code => "code",
            Self::Concept => "concept",
            Self::PlanSum => "plan-sum",
        }
    }
}

/// The text tokens that ask for heat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// Tokens of the text itself; the end of sequence is not one.
    pub content: Vec<usize>,
    /// All valid tokens asking.
    pub all: Vec<usize>,
}

impl Asking {
    /// The same tokens in both roles.
    #[must_use]
    pub fn tokens(tokens: Vec<usize>) -> Self {
        Self { content: tokens.clone(), all: tokens }
    }
}

/// Heat of every patch for the tokens asking; all values ≥ 0.
#[must_use]
pub fn heat(map: HeatMap, plan: &PairPlan, vision: &SparseCodes, text: &SparseCodes, asking: &Asking) -> Vec<f64> {
    match map {
        HeatMap::PlanMax => {
            let column = plan.column_sums();
            let relative = |i: usize, j: usize| if column[j] > 0.0 { plan.at(i, j) / column[j] } else { 0.0 };
            (0..plan.rows).map(|i| asking.content.iter().map(|&j| relative(i, j)).fold(0.0, f64::max)).collect()
        }
        HeatMap::Code => {
            let column = plan.column_sums();
            let weighted = |i: usize, j: usize| column[j] * vision.shared(i).cosine(&text.shared(j));
            (0..plan.rows).map(|i| asking.all.iter().map(|&j| weighted(i, j)).sum()).collect()
        }
        HeatMap::Concept => {
            let concept = text.mean_shared(&asking.all);
            (0..plan.rows).map(|i| shared_with(vision, i, &concept)).collect()
        }
        HeatMap::PlanSum => (0..plan.rows).map(|i| asking.all.iter().map(|&j| plan.at(i, j)).sum()).collect(),
    }
}

/// Σ_m min(z_i,m , z_c,m); `concept` by rising latent.
fn shared_with(vision: &SparseCodes, patch: usize, concept: &[(u32, f64)]) -> f64 {
    vision
        .shared(patch)
        .iter()
        .filter_map(|(latent, value)| {
            let at = concept.binary_search_by_key(&latent, |&(m, _)| m).ok()?;
            Some(f64::from(value).min(concept[at].1))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_by_hand() {
        let plan = PairPlan { rows: 2, columns: 3, mass: vec![0.1, 0.3, 0.1, 0.3, 0.1, 0.1] };
        let vision = SparseCodes::from_slots(4, 2, &[0, 1, 2, u32::MAX], &[3.0, 4.0, 2.0, 0.0]);
        let text = SparseCodes::from_slots(4, 1, &[0, 2, 3], &[1.0, 5.0, 1.0]);
        let asking = Asking { content: vec![0, 1], all: vec![0, 1, 2] };
        let at = |map| heat(map, &plan, &vision, &text, &asking);
        let max = at(HeatMap::PlanMax);
        assert!(max.iter().all(|h| (h - 0.75).abs() < 1e-12), "{max:?}");
        let code = at(HeatMap::Code);
        assert!((code[0] - 0.4 * 0.6).abs() < 1e-12 && (code[1] - 0.4).abs() < 1e-12, "{code:?}");
        let concept = at(HeatMap::Concept);
        assert!((concept[0] - 1.0 / 3.0).abs() < 1e-12 && (concept[1] - 5.0 / 3.0).abs() < 1e-12, "{concept:?}");
        let sum = at(HeatMap::PlanSum);
        assert!((sum[0] - 0.5).abs() < 1e-12 && (sum[1] - 0.5).abs() < 1e-12, "{sum:?}");
        let phrase = heat(HeatMap::PlanMax, &plan, &vision, &text, &Asking::tokens(vec![1]));
        assert!((phrase[0] - 0.75).abs() < 1e-12 && (phrase[1] - 0.25).abs() < 1e-12);
    }
}
