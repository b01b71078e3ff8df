//! Whether the plan carries a word to the patches it speaks of.

use std::collections::BTreeMap;

use super::truth::Link;
use crate::coder::PairPlan;
use crate::exact_sum::ExactMean;

/// Measures of one linked word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LinkScore {
    pub concept: u32,
    /// Σ_i Π_ij f_i / Σ_i Π_ij, f_i the share of patch i that the word speaks of.
    pub mass: f64,
    /// Mean of f_i: the same under the uniform plan.
    pub mass_uniform: f64,
    /// Whether the heaviest patch of the column (ties to the first) is one of the word's.
    pub hit: f64,
    /// Share of patches that are the word's.
    pub hit_uniform: f64,
}

/// Scores of a pair's linked words. A patch is a word's where the share it speaks of is at least half of the largest
/// share of any patch, so that thin shapes which fill no patch still have theirs. Words without mass are left out.
pub(crate) fn link_scores(plan: &PairPlan, links: &[Link]) -> Vec<LinkScore> {
    let mut scores = Vec::with_capacity(links.len());
    for link in links {
        let column: Vec<f64> = (0..plan.rows).map(|i| plan.at(i, link.token)).collect();
        let total: f64 = column.iter().sum();
        let largest = link.patches.iter().map(|&(_, share)| share).fold(0.0, f32::max);
        if total <= 0.0 || largest <= 0.0 {
            continue;
        }
        let heaviest = (0..plan.rows).fold(0, |best, i| if column[i] > column[best] { i } else { best });
        let own = |share: f32| share >= 0.5 * largest;
        scores.push(LinkScore {
            concept: link.concept,
            mass: link.patches.iter().map(|&(i, share)| column[i as usize] * f64::from(share)).sum::<f64>() / total,
            mass_uniform: link.patches.iter().map(|&(_, share)| f64::from(share)).sum::<f64>() / plan.rows as f64,
            hit: f64::from(u8::from(link.patches.iter().any(|&(i, share)| i as usize == heaviest && own(share)))),
            hit_uniform: link.patches.iter().filter(|&&(_, share)| own(share)).count() as f64 / plan.rows as f64,
        });
    }
    scores
}

/// Means over linked words, in all and by kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct TransportTotal {
    pub all: LinkMeans,
    pub kinds: BTreeMap<String, LinkMeans>,
}

/// Means of [`LinkScore`].
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkMeans {
    pub mass: ExactMean,
    pub mass_uniform: ExactMean,
    pub hit: ExactMean,
    pub hit_uniform: ExactMean,
}

impl LinkMeans {
    fn add(&mut self, score: &LinkScore) {
        self.mass.add(score.mass);
        self.mass_uniform.add(score.mass_uniform);
        self.hit.add(score.hit);
        self.hit_uniform.add(score.hit_uniform);
    }
}

impl TransportTotal {
    pub(crate) fn add(&mut self, score: &LinkScore, kind: &str) {
        self.all.add(score);
        if !self.kinds.contains_key(kind) {
            self.kinds.insert(kind.to_owned(), LinkMeans::default());
        }
        if let Some(means) = self.kinds.get_mut(kind) {
            means.add(score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let plan = PairPlan { rows: 4, columns: 2, mass: vec![0.3, 0.0, 0.1, 0.1, 0.05, 0.1, 0.05, 0.3] };
        let link = |token, patches: &[(u32, f32)]| Link { token, concept: 0, patches: patches.to_vec() };
        let scores = link_scores(&plan, &[link(0, &[(0, 0.5), (1, 1.0)]), link(1, &[(3, 0.2), (2, 0.05)])]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-7, "{a} instead of {b}");
        close(scores[0].mass, (0.15 + 0.1) / 0.5);
        close(scores[0].mass_uniform, 1.5 / 4.0);
        assert_eq!((scores[0].hit, scores[0].hit_uniform), (1.0, 0.5));
        close(scores[1].mass, (0.06 + 0.005) / 0.5);
        assert_eq!((scores[1].hit, scores[1].hit_uniform), (1.0, 0.25));
    }
}
