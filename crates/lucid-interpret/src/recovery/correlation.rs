//! Pearson correlations of latents with concepts over the tokens of one modality, from sums over non-zeros.

use crate::coder::SparseCodes;

/// Sums over tokens of activations z, concept strengths y and their products. Cost: linear in the non-zeros of both.
#[derive(Debug, Clone)]
pub(crate) struct Correlations {
    concepts: usize,
    tokens: f64,
    z: Vec<f64>,
    zz: Vec<f64>,
    y: Vec<f64>,
    yy: Vec<f64>,
    /// `[latents · concepts]`.
    zy: Vec<f64>,
}

impl Correlations {
    pub(crate) fn new(latents: usize, concepts: usize) -> Self {
        Self {
            concepts,
            tokens: 0.0,
            z: vec![0.0; latents],
            zz: vec![0.0; latents],
            y: vec![0.0; concepts],
            yy: vec![0.0; concepts],
            zy: vec![0.0; latents * concepts],
        }
    }

    /// Adds a pair's tokens; `truth` has as many entries as `codes` has tokens.
    pub(crate) fn add(&mut self, codes: &SparseCodes, truth: &[Vec<(u32, f32)>]) {
        for (token, concepts) in truth.iter().enumerate() {
            self.tokens += 1.0;
            for &(concept, y) in concepts {
                self.y[concept as usize] += f64::from(y);
                self.yy[concept as usize] += f64::from(y) * f64::from(y);
            }
            for (latent, z) in codes.row(token).iter() {
                let (latent, z) = (latent as usize, f64::from(z));
                self.z[latent] += z;
                self.zz[latent] += z * z;
                for &(concept, y) in concepts {
                    self.zy[latent * self.concepts + concept as usize] += z * f64::from(y);
                }
            }
        }
    }

    pub(crate) fn concepts(&self) -> usize {
        self.concepts
    }

    pub(crate) fn latents(&self) -> usize {
        self.z.len()
    }

    /// Whether a concept is stronger on some tokens than on others.
    pub(crate) fn varies(&self, concept: usize) -> bool {
        self.spread(self.yy[concept], self.y[concept]).is_some()
    }

    /// n² times the variance; `None` where it is nothing but rounding.
    fn spread(&self, squares: f64, sum: f64) -> Option<f64> {
        let spread = self.tokens * squares - sum * sum;
        (spread > 1e-12 * self.tokens * squares).then_some(spread)
    }

    /// Correlation of a latent with a concept; 0 where either does not vary.
    pub(crate) fn at(&self, latent: usize, concept: usize) -> f64 {
        let spreads = (self.spread(self.zz[latent], self.z[latent]), self.spread(self.yy[concept], self.y[concept]));
        let (Some(of_latent), Some(of_concept)) = spreads else { return 0.0 };
        let joint = self.tokens * self.zy[latent * self.concepts + concept] - self.z[latent] * self.y[concept];
        joint / (of_latent.sqrt() * of_concept.sqrt())
    }

    /// The latent below `limit` that rises most with a concept, ties to the lower index; `None` where none does.
    pub(crate) fn best(&self, concept: usize, limit: usize) -> Option<(u32, f64)> {
        let mut best = None;
        for latent in 0..limit.min(self.latents()) {
            let correlation = self.at(latent, concept);
            if correlation > best.map_or(1e-9, |(_, value)| value) {
                best = Some((latent as u32, correlation));
            }
        }
        best
    }

    /// The concept that a latent rises with most, ties to the lower index; `None` where there is none.
    pub(crate) fn best_concept(&self, latent: usize) -> Option<(u32, f64)> {
        let mut best = None;
        for concept in 0..self.concepts {
            let correlation = self.at(latent, concept);
            if correlation > best.map_or(1e-9, |(_, value)| value) {
                best = Some((concept as u32, correlation));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition() {
        let z = [1.0f32, 0.0, 2.0, 0.0, 4.0];
        let y = [0.5f32, 0.0, 1.0, 0.25, 1.0];
        let mut sums = Correlations::new(2, 2);
        let mut codes = SparseCodes::new(2);
        z.iter().for_each(|&value| codes.push([(1, value)]));
        let truth: Vec<Vec<(u32, f32)>> =
            y.iter().map(|&value| if value > 0.0 { vec![(0, value)] } else { Vec::new() }).collect();
        sums.add(&codes, &truth);
        let mean = |a: &[f32]| a.iter().map(|&v| f64::from(v)).sum::<f64>() / 5.0;
        let (mz, my) = (mean(&z), mean(&y));
        let covariance: f64 = z.iter().zip(&y).map(|(&a, &b)| (f64::from(a) - mz) * (f64::from(b) - my)).sum();
        let norm = |a: &[f32], m: f64| a.iter().map(|&v| (f64::from(v) - m).powi(2)).sum::<f64>().sqrt();
        assert!((sums.at(1, 0) - covariance / (norm(&z, mz) * norm(&y, my))).abs() < 1e-12);
        assert_eq!(sums.at(0, 0), 0.0);
        assert_eq!(sums.best(0, 2).unwrap().0, 1);
        assert_eq!(sums.best(0, 1), None);
        assert_eq!(sums.best(1, 2), None);
        assert_eq!(sums.best_concept(1).unwrap().0, 0);
        assert_eq!(sums.best_concept(0), None);
        assert!(sums.varies(0) && !sums.varies(1));
    }
}
