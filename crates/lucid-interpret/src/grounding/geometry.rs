//! Boxes on the patch grid: the image was squashed to the input size, so boxes scale per axis (spec 6).

use lucid_data::BoxAnnotation;

/// A box in units of patches: x along columns, y along rows, from the top left; inside the grid and not empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridBox {
    /// Left, top.
    pub from: [f64; 2],
    /// Right, bottom.
    pub to: [f64; 2],
}

impl GridBox {
    /// A box of an image of `size` (width, height) pixels on a `grid` of (rows, columns); `None` where nothing of it
    /// lies inside the image.
    #[must_use]
    pub fn of(annotation: &BoxAnnotation, size: [u32; 2], grid: [u32; 2]) -> Option<Self> {
        let scale = [f64::from(grid[1]) / f64::from(size[0]), f64::from(grid[0]) / f64::from(size[1])];
        let limit = [f64::from(grid[1]), f64::from(grid[0])];
        let from = [annotation.x, annotation.y];
        let to = [annotation.x + annotation.width, annotation.y + annotation.height];
        let on_grid = |corner: [f64; 2]| [0, 1].map(|axis| (corner[axis] * scale[axis]).clamp(0.0, limit[axis]));
        let scaled = Self { from: on_grid(from), to: on_grid(to) };
        (scaled.area() > 0.0).then_some(scaled)
    }

    /// Area in patches; 0 where a corner is NaN.
    #[must_use]
    pub fn area(&self) -> f64 {
        (self.to[0] - self.from[0]).max(0.0) * (self.to[1] - self.from[1]).max(0.0)
    }

    /// Whether a point (x, y) lies inside or on the edge.
    #[must_use]
    pub fn contains(&self, point: [f64; 2]) -> bool {
        [0, 1].into_iter().all(|axis| self.from[axis] <= point[axis] && point[axis] <= self.to[axis])
    }
}

/// Share of every cell that the union of `boxes` covers, exactly; row-major over `grid` (rows, columns).
///
/// Box edges and grid lines cut the plane into rectangles that are covered whole or not at all; each adds its area to
/// the cell it lies in.
#[must_use]
pub fn coverage(boxes: &[GridBox], grid: [u32; 2]) -> Vec<f64> {
    let (rows, columns) = (grid[0] as usize, grid[1] as usize);
    let cuts = |axis: usize, limit: usize| {
        let edges = boxes.iter().flat_map(|b| [b.from[axis], b.to[axis]]);
        let mut cuts: Vec<f64> = edges.chain((0..=limit).map(|line| line as f64)).collect();
        cuts.sort_by(f64::total_cmp);
        cuts.dedup();
        cuts
    };
    let (xs, ys) = (cuts(0, columns), cuts(1, rows));
    let position = |cuts: &[f64], edge: f64| cuts.partition_point(|&cut| cut < edge);
    // Two-dimensional differences: their running sums count the boxes over each rectangle.
    let width = xs.len();
    let mut depth = vec![0i32; width * ys.len()];
    for b in boxes {
        let (x0, x1) = (position(&xs, b.from[0]), position(&xs, b.to[0]));
        let (y0, y1) = (position(&ys, b.from[1]), position(&ys, b.to[1]));
        depth[y0 * width + x0] += 1;
        depth[y0 * width + x1] -= 1;
        depth[y1 * width + x0] -= 1;
        depth[y1 * width + x1] += 1;
    }
    let mut covered = vec![0.0; rows * columns];
    for y in 0..ys.len() {
        let mut along = 0;
        for x in 0..width {
            along += depth[y * width + x];
            let above = if y > 0 { depth[(y - 1) * width + x] } else { 0 };
            depth[y * width + x] = along + above;
            if depth[y * width + x] > 0 && x + 1 < width && y + 1 < ys.len() {
                let cell = ys[y] as usize * columns + xs[x] as usize;
                covered[cell] += (xs[x + 1] - xs[x]) * (ys[y + 1] - ys[y]);
            }
        }
    }
    covered.iter_mut().for_each(|share| *share = share.min(1.0));
    covered
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn annotation(x: f64, y: f64, width: f64, height: f64) -> BoxAnnotation {
        BoxAnnotation { x, y, width, height, ..BoxAnnotation::default() }
    }

    #[test]
    fn scales_per_axis_and_clips() {
        // 200 × 50 pixels on 2 rows, 4 columns: 50 px a column, 25 px a row.
        let b = GridBox::of(&annotation(75.0, -10.0, 500.0, 35.0), [200, 50], [2, 4]).unwrap();
        assert_eq!(b, GridBox { from: [1.5, 0.0], to: [4.0, 1.0] });
        assert_eq!(GridBox::of(&annotation(210.0, 0.0, 10.0, 10.0), [200, 50], [2, 4]), None);
    }

    #[test]
    fn overlapping_boxes_count_once() {
        let a = GridBox { from: [0.5, 0.0], to: [1.5, 1.0] };
        let b = GridBox { from: [1.0, 0.5], to: [2.0, 1.0] };
        assert_eq!(coverage(&[a, b, a], [1, 2]), [0.5, 0.75]);
        assert_eq!(coverage(&[], [1, 2]), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn agrees_with_a_fine_raster(raw in prop::collection::vec((0u32..48, 0u32..32, 1u32..30, 1u32..30), 1..7)) {
            // Edges on eighths of a cell: sampling the centre of every eighth is exact.
            let boxes: Vec<GridBox> = raw
                .iter()
                .filter_map(|&(x, y, w, h)| GridBox::of(&annotation(x.into(), y.into(), w.into(), h.into()), [48, 32], [4, 6]))
                .collect();
            let exact = coverage(&boxes, [4, 6]);
            for row in 0..4 {
                for column in 0..6 {
                    let mut inside = 0;
                    for i in 0..64 {
                        let point = [column as f64 + (f64::from(i % 8) + 0.5) / 8.0, row as f64 + (f64::from(i / 8) + 0.5) / 8.0];
                        inside += u32::from(boxes.iter().any(|b| b.contains(point)));
                    }
                    prop_assert!((exact[row * 6 + column] - f64::from(inside) / 64.0).abs() < 1e-12);
                }
            }
        }
    }
}
