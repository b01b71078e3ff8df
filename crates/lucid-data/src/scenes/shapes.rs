//! Signed distances of the outlines: negative inside, in units of the half-extent, y downwards.

use super::concepts::Shape;

/// Vertices of the outlines that are polygons.
const TRIANGLE: [[f32; 2]; 3] = [[0.0, -0.96], [1.02, 0.84], [-1.02, 0.84]];
const SQUARE: [[f32; 2]; 4] = [[-0.86, -0.86], [0.86, -0.86], [0.86, 0.86], [-0.86, 0.86]];
// Five points at radius 1.06, five notches at radius 0.44; the cosines are written out so that no machine computes them.
const STAR: [[f32; 2]; 10] = [
    [0.0, -1.02],
    [0.258_6, -0.316],
    [1.008, -0.287_6],
    [0.418_5, 0.175_9],
    [0.623, 0.897_6],
    [0.0, 0.48],
    [-0.623, 0.897_6],
    [-0.418_5, 0.175_9],
    [-1.008, -0.287_6],
    [-0.258_6, -0.316],
];
const CROSS: [[f32; 2]; 12] = [
    [-0.34, -0.98],
    [0.34, -0.98],
    [0.34, -0.34],
    [0.98, -0.34],
    [0.98, 0.34],
    [0.34, 0.34],
    [0.34, 0.98],
    [-0.34, 0.98],
    [-0.34, 0.34],
    [-0.98, 0.34],
    [-0.98, -0.34],
    [-0.34, -0.34],
];
const HEART_BODY: [[f32; 2]; 4] = [[0.0, -0.40], [0.92, -0.10], [0.0, 1.0], [-0.92, -0.10]];

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// Exact signed distance to a simple polygon: distance to the nearest edge, sign by crossing number.
fn polygon(vertices: &[[f32; 2]], x: f32, y: f32) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let mut previous = vertices[vertices.len() - 1];
    for &v in vertices {
        let (ex, ey) = (previous[0] - v[0], previous[1] - v[1]);
        let (wx, wy) = (x - v[0], y - v[1]);
        let along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (dx, dy) = (wx - ex * along, wy - ey * along);
        nearest = nearest.min(dx * dx + dy * dy);
        if (v[1] > y) != (previous[1] > y) && x < ex * (y - v[1]) / ey + v[0] {
            inside = !inside;
        }
        previous = v;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

/// Signed distance of `(x, y)` to the outline; the outline lies within about ±1.05 in both directions.
pub fn distance(shape: Shape, x: f32, y: f32) -> f32 {
    match shape {
        Shape::Circle => length(x, y) - 0.98,
        Shape::Square => polygon(&SQUARE, x, y),
        Shape::Triangle => polygon(&TRIANGLE, x, y),
        Shape::Star => polygon(&STAR, x, y),
        Shape::Cross => polygon(&CROSS, x, y),
        Shape::Ring => (length(x, y) - 0.68).abs() - 0.32,
        // A disc with a smaller disc cut out of its right side.
        Shape::Moon => (length(x - 0.10, y) - 1.0).max(0.76 - length(x - 0.66, y + 0.08)),
        Shape::Heart => {
            let lobe = length(x.abs() - 0.50, y + 0.40) - 0.50;
            lobe.min(polygon(&HEART_BODY, x, y))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outline_fits_its_extent_and_covers_a_fair_share_of_it() {
        for shape in Shape::ALL {
            let (mut inside, mut outside_extent) = (0, 0);
            for iy in -65..=65 {
                for ix in -65..=65 {
                    let (x, y) = (ix as f32 * 0.02, iy as f32 * 0.02);
                    if distance(shape, x, y) < 0.0 {
                        inside += 1;
                        outside_extent += usize::from(x.abs() > 1.06 || y.abs() > 1.06);
                    }
                }
            }
            let share = inside as f32 * 0.0004 / 4.0;
            assert!((0.25..0.85).contains(&share), "{shape:?} covers {share}");
            assert_eq!(outside_extent, 0, "{shape:?} leaves its extent");
        }
    }

    #[test]
    fn distance_is_one_lipschitz_near_the_outline() {
        for shape in Shape::ALL {
            for i in 0..2000 {
                let (x, y) = ((i % 50) as f32 * 0.044 - 1.1, (i / 50) as f32 * 0.055 - 1.1);
                let step = (distance(shape, x + 0.01, y) - distance(shape, x, y)).abs();
                assert!(step <= 0.0101, "{shape:?} at {x} {y}: {step}");
            }
        }
    }
}
