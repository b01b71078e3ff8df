//! Linear readouts by ridge regression, and the area under their ROC curve.

use lucid_sae::linear::Products;

/// λ of readouts of many dimensions, as a fraction of the mean variance of an input dimension.
pub(crate) const RIDGE: f64 = 0.01;
/// λ of readouts of a few latents.
pub(crate) const FEW: f64 = 1e-6;
/// Rows that are dense at once.
const ROWS: usize = 256;

/// Rows of a design matrix, made when asked for.
pub(crate) trait Design {
    fn rows(&self) -> usize;
    fn width(&self) -> usize;
    /// Writes row `at` \[width\].
    fn write(&self, at: usize, out: &mut [f64]);
}

/// Dense rows.
pub(crate) struct Dense<'a> {
    pub values: &'a [f64],
    pub width: usize,
}

impl Design for Dense<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.width
    }
    fn width(&self) -> usize {
        self.width
    }
    fn write(&self, at: usize, out: &mut [f64]) {
        out.copy_from_slice(&self.values[at * self.width..][..self.width]);
    }
}

/// Some columns of sparse rows.
pub(crate) struct Columns<'a> {
    pub codes: &'a [super::pooled::Code],
    /// Rising.
    pub latents: Vec<u32>,
}

impl Design for Columns<'_> {
    fn rows(&self) -> usize {
        self.codes.len()
    }
    fn width(&self) -> usize {
        self.latents.len()
    }
    fn write(&self, at: usize, out: &mut [f64]) {
        out.fill(0.0);
        for &(latent, value) in &self.codes[at] {
            if let Ok(column) = self.latents.binary_search(&latent) {
                out[column] = value;
            }
        }
    }
}

/// Scores linear in the input: (x − mean) · map.
pub(crate) struct Readout {
    mean: Vec<f64>,
    /// `[width · targets]`.
    pub map: Vec<f64>,
    targets: usize,
}

impl Readout {
    /// The ridge map from rows to targets `[rows · targets]`, both about their means; `None` where the input does not vary.
    pub fn fit(design: &dyn Design, y: &[f64], targets: usize, ridge: f64) -> Option<Self> {
        let (rows, width) = (design.rows(), design.width());
        if rows == 0 || width == 0 || targets == 0 {
            return None;
        }
        let mut buffer = vec![0.0; width];
        let (mut mean, mut mean_y) = (vec![0.0; width], vec![0.0; targets]);
        for at in 0..rows {
            design.write(at, &mut buffer);
            mean.iter_mut().zip(&buffer).for_each(|(sum, x)| *sum += x / rows as f64);
            mean_y.iter_mut().zip(&y[at * targets..]).for_each(|(sum, y)| *sum += y / rows as f64);
        }
        let mut products = Products::new(width, targets);
        for start in (0..rows).step_by(ROWS) {
            let end = (start + ROWS).min(rows);
            let mut x = vec![0.0; (end - start) * width];
            for (at, row) in (start..end).zip(x.chunks_exact_mut(width)) {
                design.write(at, row);
                row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
            }
            let rows_of_y = y[start * targets..end * targets].chunks_exact(targets);
            let y: Vec<f64> = rows_of_y.flat_map(|row| row.iter().zip(&mean_y).map(|(y, mean)| y - mean)).collect();
            products.add(&x, &y);
        }
        Some(Self { mean, map: products.ridge(ridge)?, targets })
    }

    /// `[rows · targets]`.
    pub fn scores(&self, design: &dyn Design) -> Vec<f64> {
        let mut buffer = vec![0.0; design.width()];
        let mut out = vec![0.0; design.rows() * self.targets];
        for (at, row) in out.chunks_exact_mut(self.targets).enumerate() {
            design.write(at, &mut buffer);
            for ((x, mean), map) in buffer.iter().zip(&self.mean).zip(self.map.chunks_exact(self.targets)) {
                row.iter_mut().zip(map).for_each(|(score, weight)| *score += (x - mean) * weight);
            }
        }
        out
    }
}

/// Scores by falling value, in groups of equals; holds what an area needs for any weights of its rows.
pub(crate) struct Ranking {
    /// Rows and whether each is positive, by falling score.
    rows: Vec<(u32, bool)>,
    /// Ends of the groups of equal scores.
    ends: Vec<u32>,
}

impl Ranking {
    pub fn new(scores: impl IntoIterator<Item = f64>, positive: impl Fn(usize) -> bool) -> Self {
        let mut by_score: Vec<(f64, u32)> = scores.into_iter().zip(0..).collect();
        by_score.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let ends = (1..=by_score.len()).filter(|&at| by_score.get(at).is_none_or(|next| next.0 != by_score[at - 1].0));
        Self {
            ends: ends.map(|end| end as u32).collect(),
            rows: by_score.iter().map(|&(_, row)| (row, positive(row as usize))).collect(),
        }
    }

    /// The chance that a positive row scores above a negative one, equals counting half, where row i counts `weight(i)` times;
    /// `None` without rows of either kind.
    pub fn area(&self, weight: impl Fn(usize) -> f64) -> Option<f64> {
        let (mut above, mut positives, mut negatives, mut start) = (0.0, 0.0, 0.0, 0);
        for &end in &self.ends {
            let (mut p, mut n) = (0.0, 0.0);
            for &(row, positive) in &self.rows[start..end as usize] {
                *(if positive { &mut p } else { &mut n }) += weight(row as usize);
            }
            above += n * (positives + p / 2.0);
            positives += p;
            negatives += n;
            start = end as usize;
        }
        (positives > 0.0 && negatives > 0.0).then(|| above / (positives * negatives))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_by_hand() {
        let area =
            |scores: &[f64], positive: &[bool]| Ranking::new(scores.iter().copied(), |row| positive[row]).area(|_| 1.0);
        // Of the six (positive, negative) pairs four are in order, one is a tie.
        assert_eq!(area(&[3.0, 1.0, 2.0, 1.0, 0.0], &[true, true, false, false, false]), Some(4.5 / 6.0));
        assert_eq!(area(&[1.0, 1.0], &[true, false]), Some(0.5));
        assert_eq!(area(&[1.0, 2.0], &[true, true]), None);
        let weighted = Ranking::new([3.0, 1.0, 2.0], |row| row < 2).area(|row| [1.0, 3.0, 2.0][row]);
        assert_eq!(weighted, Some(0.25));
    }

    #[test]
    fn a_linear_rule_is_read_out() {
        let x: Vec<f64> = (0..40).flat_map(|i| [f64::from(i % 7), f64::from(i % 5)]).collect();
        let y: Vec<f64> = x.chunks_exact(2).map(|x| 3.0 * x[0] - 2.0 * x[1] + 5.0).collect();
        let design = Dense { values: &x, width: 2 };
        let readout = Readout::fit(&design, &y, 1, 1e-9).unwrap();
        assert!((readout.map[0] - 3.0).abs() < 1e-6 && (readout.map[1] + 2.0).abs() < 1e-6);
        let scores = readout.scores(&design);
        let offset = y[0] - scores[0];
        assert!(scores.iter().zip(&y).all(|(score, y)| (score + offset - y).abs() < 1e-6));
        assert!(Readout::fit(&Dense { values: &[1.0; 8], width: 2 }, &[0.0, 1.0, 0.0, 1.0], 1, 1e-3).is_none());
    }
}
