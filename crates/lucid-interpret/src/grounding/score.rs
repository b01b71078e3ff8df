//! `mass@obj`, `point@1` and `IoU@10` of a heat map against a target (spec 6).
//!
//! Where cells tie, point and IoU are the expectation over the order of the tied cells: an evenly spread map then hits
//! with the target's share of cells instead of with whatever lies in its corner.

use super::geometry::{GridBox, coverage};
use super::mask::Mask;
use crate::evaluation::GroundingScore;

/// What a heat map is judged against: the union of some boxes, or a mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    grid: [u32; 2],
    /// Share of every cell that is inside.
    coverage: Vec<f64>,
    /// Whether the centre of every cell is inside.
    centres: Vec<bool>,
    /// Whether the centre of the image is.
    middle: bool,
}

impl Target {
    /// The union of `boxes` on `grid` (rows, columns).
    #[must_use]
    pub fn new(boxes: Vec<GridBox>, grid: [u32; 2]) -> Self {
        Self::of(coverage(&boxes, grid), grid, |point| boxes.iter().any(|b| b.contains(point)))
    }

    /// A mask on `grid` (rows, columns).
    #[must_use]
    pub fn of_mask(mask: &Mask, grid: [u32; 2]) -> Self {
        Self::of(mask.coverage(grid), grid, |point| mask.contains(point, grid))
    }

    fn of(coverage: Vec<f64>, grid: [u32; 2], contains: impl Fn([f64; 2]) -> bool) -> Self {
        let columns = grid[1] as usize;
        let centre = |cell: usize| [(cell % columns) as f64 + 0.5, (cell / columns) as f64 + 0.5];
        let centres = (0..coverage.len()).map(|cell| contains(centre(cell))).collect();
        let middle = contains([f64::from(grid[1]) / 2.0, f64::from(grid[0]) / 2.0]);
        Self { grid, coverage, centres, middle }
    }

    /// Number of cells.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.coverage.len()
    }

    fn area(&self) -> f64 {
        self.coverage.iter().sum()
    }

    fn holds_centre_of(&self, cell: usize) -> bool {
        self.centres[cell]
    }

    /// Scores of a heat map `[cells]` of values ≥ 0. One that is zero everywhere counts as evenly spread.
    #[must_use]
    pub fn score(&self, heat: &[f64]) -> GroundingScore {
        let even = vec![1.0; heat.len()];
        let heat = if heat.iter().any(|&h| h > 0.0) { heat } else { &even };
        let total: f64 = heat.iter().sum();
        let inside: f64 = heat.iter().zip(&self.coverage).map(|(h, share)| h * share).sum();
        let hottest = heat.iter().copied().fold(f64::MIN, f64::max);
        let tied: Vec<usize> = (0..heat.len()).filter(|&cell| heat[cell] == hottest).collect();
        let hits = tied.iter().filter(|&&cell| self.holds_centre_of(cell)).count();
        GroundingScore {
            mass_at_obj: inside / total,
            point_at1: hits as f64 / tied.len() as f64,
            iou_at10: self.iou_of_hottest(heat),
        }
    }

    /// Scores of a Gaussian around the centre of the image, σ a quarter of each side; its point is the centre itself.
    #[must_use]
    pub fn score_of_centre(&self) -> GroundingScore {
        let (rows, columns) = (f64::from(self.grid[0]), f64::from(self.grid[1]));
        let heat: Vec<f64> = (0..self.cells())
            .map(|cell| {
                let (row, column) = (cell / self.grid[1] as usize, cell % self.grid[1] as usize);
                let (dy, dx) = ((row as f64 + 0.5) / rows - 0.5, (column as f64 + 0.5) / columns - 0.5);
                (-(dx * dx + dy * dy) / (2.0 * 0.25 * 0.25)).exp()
            })
            .collect();
        GroundingScore { point_at1: f64::from(u8::from(self.middle)), ..self.score(&heat) }
    }

    /// The largest value of each score that any heat map on this grid reaches: all heat in the cell that is covered
    /// most, the point in any cell whose centre is inside, the ⌈10 %⌉ cells that are covered most.
    #[must_use]
    pub fn score_of_oracle(&self) -> GroundingScore {
        let any = (0..self.cells()).any(|cell| self.holds_centre_of(cell));
        GroundingScore {
            mass_at_obj: self.coverage.iter().copied().fold(0.0, f64::max),
            point_at1: f64::from(u8::from(any)),
            iou_at10: self.iou_of_hottest(&self.coverage),
        }
    }

    /// Area IoU of the target and the ⌈10 %⌉ hottest cells; cells that tie for the last places share them.
    fn iou_of_hottest(&self, heat: &[f64]) -> f64 {
        let wanted = heat.len().div_ceil(10);
        let mut sorted = heat.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let last = sorted[wanted - 1];
        let above = heat.iter().filter(|&&h| h > last).count();
        let tied = heat.iter().filter(|&&h| h == last).count();
        let part = (wanted - above) as f64 / tied as f64;
        let chosen = |h: f64| {
            if h > last {
                1.0
            } else if h == last {
                part
            } else {
                0.0
            }
        };
        let overlap: f64 = heat.iter().zip(&self.coverage).map(|(&h, share)| chosen(h) * share).sum();
        overlap / (wanted as f64 + self.area() - overlap)
    }
}

/// Scores against several targets of which the best counts (`best`), score by score.
pub(crate) fn best_of(targets: &[Target], score: impl Fn(&Target) -> GroundingScore) -> GroundingScore {
    targets.iter().map(score).fold(GroundingScore::default(), |a, b| GroundingScore {
        mass_at_obj: a.mass_at_obj.max(b.mass_at_obj),
        point_at1: a.point_at1.max(b.point_at1),
        iou_at10: a.iou_at10.max(b.iou_at10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }

    /// A 4 × 5 grid (20 cells, the hottest 2 count) and a box over columns 1–2.5 of rows 1–2.
    fn target() -> Target {
        Target::new(vec![GridBox { from: [1.0, 1.0], to: [2.5, 2.0] }], [4, 5])
    }

    #[test]
    fn scores_by_hand() {
        let mut heat = vec![0.0; 20];
        heat[6] = 3.0; // row 1, column 1: covered
        heat[7] = 2.0; // row 1, column 2: half covered
        heat[0] = 1.0; // outside
        let score = target().score(&heat);
        close(score.mass_at_obj, (3.0 + 1.0) / 6.0);
        close(score.point_at1, 1.0);
        close(score.iou_at10, 1.5 / (2.0 + 1.5 - 1.5));
        heat[0] = 4.0;
        let score = target().score(&heat);
        close(score.point_at1, 0.0);
        close(score.iou_at10, 1.0 / (2.0 + 1.5 - 1.0));
    }

    #[test]
    fn even_heat_is_the_share_of_the_target() {
        let score = target().score(&[0.7; 20]);
        close(score.mass_at_obj, 1.5 / 20.0);
        // The edge of the box runs through the centre of cell (1, 2), which counts as inside.
        close(score.point_at1, 2.0 / 20.0);
        close(score.iou_at10, 0.15 / (2.0 + 1.5 - 0.15));
        assert_eq!(target().score(&[0.0; 20]), target().score(&[1.0; 20]));
    }

    #[test]
    fn centre_and_oracle() {
        let score = target().score_of_oracle();
        assert_eq!((score.mass_at_obj, score.point_at1), (1.0, 1.0));
        close(score.iou_at10, 1.5 / 2.0);
        let centre = Target::new(vec![GridBox { from: [2.0, 1.0], to: [3.0, 3.0] }], [4, 5]);
        close(centre.score_of_centre().point_at1, 1.0);
        assert!(centre.score_of_centre().mass_at_obj > 0.1);
        close(target().score_of_centre().point_at1, 1.0);
        // A box that holds no cell's centre cannot be pointed at.
        let slit = Target::new(vec![GridBox { from: [0.6, 0.0], to: [0.9, 4.0] }], [4, 5]);
        close(slit.score_of_oracle().point_at1, 0.0);
    }

    #[test]
    fn twenty_of_196_cells_count() {
        let target = Target::new(vec![GridBox { from: [0.0, 0.0], to: [14.0, 2.0] }], [14, 14]);
        let heat: Vec<f64> = (0..196).map(|cell| f64::from(196 - cell)).collect();
        close(target.score(&heat).iou_at10, 20.0 / 28.0);
    }

    #[test]
    fn no_map_beats_the_oracle() {
        let target = target();
        let oracle = target.score_of_oracle();
        for seed in 0u64..50 {
            let heat: Vec<f64> = (0..20u64).map(|cell| ((cell * 7919 + seed * 104_729) % 97) as f64).collect();
            let score = target.score(&heat);
            assert!(score.mass_at_obj <= oracle.mass_at_obj && score.iou_at10 <= oracle.iou_at10 + 1e-12);
        }
    }
}
