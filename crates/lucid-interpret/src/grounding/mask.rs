//! Masks on the patch grid: what an object covers exactly, where that is known.

use lucid_data::BoxAnnotation;

/// The pixels of an object, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    pixels: Vec<bool>,
}

impl Mask {
    /// A mask of `pixels`, `width` of them a row.
    ///
    /// # Panics
    /// Where the rows are not whole.
    #[must_use]
    pub fn new(width: usize, pixels: Vec<bool>) -> Self {
        assert!(width > 0 && pixels.len().is_multiple_of(width), "{} pixels in rows of {width}", pixels.len());
        Self { width, pixels }
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width
    }

    /// Number of pixels.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.pixels.iter().filter(|&&inside| inside).count() as f64
    }

    /// Whether a box is the smallest around the mask.
    #[must_use]
    pub fn fills(&self, b: &BoxAnnotation) -> bool {
        let inside = (0..self.pixels.len()).filter(|&at| self.pixels[at]).map(|at| [at % self.width, at / self.width]);
        let edges = inside.fold(None, |edges: Option<[usize; 4]>, [x, y]| {
            let [left, top, right, bottom] = edges.unwrap_or([x, y, x, y]);
            Some([left.min(x), top.min(y), right.max(x), bottom.max(y)])
        });
        edges.is_some_and(|[left, top, right, bottom]| {
            [left, top, right + 1 - left, bottom + 1 - top].map(|v| v as f64) == [b.x, b.y, b.width, b.height]
        })
    }

    /// The pixels of any of some masks of the same size.
    #[must_use]
    pub fn union(masks: &[&Self]) -> Self {
        let mut union = masks[0].clone();
        for mask in &masks[1..] {
            union.pixels.iter_mut().zip(&mask.pixels).for_each(|(inside, &other)| *inside |= other);
        }
        union
    }

    /// Whether a point of the grid (x, y in patches) lies in a pixel of the mask; on the border of pixels any that touches it counts, as with
    /// the edge of a box.
    #[must_use]
    pub fn contains(&self, point: [f64; 2], grid: [u32; 2]) -> bool {
        let touching = |at: f64, cells: u32, pixels: usize| {
            let position = at * pixels as f64 / f64::from(cells);
            let after = position.floor();
            let before = if position == after { after - 1.0 } else { after };
            [before, after].map(|pixel| (pixel >= 0.0 && pixel < pixels as f64).then_some(pixel as usize))
        };
        let xs = touching(point[0], grid[1], self.width);
        let ys = touching(point[1], grid[0], self.height());
        ys.into_iter().flatten().any(|y| xs.into_iter().flatten().any(|x| self.pixels[y * self.width + x]))
    }

    /// Share of every cell that the mask covers, row-major over `grid` (rows, columns); pixels that lie in several cells count with their
    /// part in each.
    #[must_use]
    pub fn coverage(&self, grid: [u32; 2]) -> Vec<f64> {
        let (rows, columns) = (grid[0] as usize, grid[1] as usize);
        // Cells that a pixel overlaps along one axis, with its length in them in cells.
        let parts = |pixel: usize, pixels: usize, cells: usize| {
            let (start, end) =
                (pixel as f64 * cells as f64 / pixels as f64, (pixel + 1) as f64 * cells as f64 / pixels as f64);
            (start.floor() as usize..cells)
                .take_while(move |&cell| (cell as f64) < end)
                .map(move |cell| (cell, (end.min(cell as f64 + 1.0) - start.max(cell as f64)).max(0.0)))
        };
        let mut covered = vec![0.0; rows * columns];
        for y in 0..self.height() {
            for x in (0..self.width).filter(|x| self.pixels[y * self.width + x]) {
                for (row, high) in parts(y, self.height(), rows) {
                    for (column, wide) in parts(x, self.width, columns) {
                        covered[row * columns + column] += high * wide;
                    }
                }
            }
        }
        covered.iter_mut().for_each(|share| *share = share.min(1.0));
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::GridBox;
    use super::super::score::Target;
    use super::*;

    /// A mask of the pixels in a rectangle.
    fn rectangle(side: usize, x: std::ops::Range<usize>, y: std::ops::Range<usize>) -> Mask {
        Mask::new(side, (0..side * side).map(|at| x.contains(&(at % side)) && y.contains(&(at / side))).collect())
    }

    #[test]
    fn a_rectangle_of_pixels_is_the_box_of_them() {
        for (x, y) in [(8..40, 16..24), (3..41, 9..50), (0..112, 0..112), (60..61, 4..5)] {
            let mask = Target::of_mask(&rectangle(112, x.clone(), y.clone()), [14, 14]);
            let pixels = |at: usize| at as f64 / 8.0;
            let boxed = GridBox { from: [pixels(x.start), pixels(y.start)], to: [pixels(x.end), pixels(y.end)] };
            let boxed = Target::new(vec![boxed], [14, 14]);
            let heat: Vec<f64> = (0..196_u64).map(|cell| ((cell * 7919) % 97) as f64).collect();
            for (found, expected) in [
                (mask.score(&heat), boxed.score(&heat)),
                (mask.score_of_centre(), boxed.score_of_centre()),
                (mask.score_of_oracle(), boxed.score_of_oracle()),
            ] {
                assert!((found.mass_at_obj - expected.mass_at_obj).abs() < 1e-12, "{found:?} {expected:?}");
                assert_eq!(found.point_at1, expected.point_at1);
                assert!((found.iou_at10 - expected.iou_at10).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn pixels_across_cells_count_in_each() {
        // Three pixels on two cells: a third of a cell of the middle one is in either.
        let mask = Mask::new(3, vec![false, true, true]);
        let covered = mask.coverage([1, 2]);
        assert!((covered[0] - 1.0 / 3.0).abs() < 1e-12 && (covered[1] - 1.0).abs() < 1e-12, "{covered:?}");
        assert_eq!((mask.area(), Mask::union(&[&mask, &Mask::new(3, vec![true, false, false])]).area()), (2.0, 3.0));
        assert!(mask.contains([1.0, 0.5], [1, 2]) && !mask.contains([0.2, 0.5], [1, 2]));
    }
}
