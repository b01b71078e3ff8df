//! Masks of objects as COCO keeps them: runs of pixels outside and inside in turn, column by column.

use serde::{Deserialize, Serialize};

/// Most pixels of a mask: as many as a picture may have.
const MAX_PIXELS: u64 = 100_000_000;
/// The outline of a polygon is drawn at this many times the resolution, as COCO's own tools do.
const FINE: i64 = 5;

/// Which pixels of an image an object covers, in COCO's run-length form: `{ "size": [height, width], "counts": "…" }`, as
/// pycocotools reads and writes it. A list of runs in place of the text is read too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct PixelMask {
    height: u32,
    width: u32,
    counts: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    size: [u32; 2],
    counts: Counts,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Counts {
    Text(String),
    Runs(Vec<u32>),
}

impl From<PixelMask> for Wire {
    fn from(mask: PixelMask) -> Self {
        Self { size: [mask.height, mask.width], counts: Counts::Text(mask.counts) }
    }
}

impl TryFrom<Wire> for PixelMask {
    type Error = String;

    fn try_from(Wire { size: [height, width], counts }: Wire) -> Result<Self, String> {
        let runs = match counts {
            Counts::Text(text) => read(&text)?,
            Counts::Runs(runs) => runs,
        };
        Self::from_runs([width, height], &runs)
    }
}

impl PixelMask {
    /// A mask of runs outside and inside in turn, down the columns from the left; the first may be 0.
    ///
    /// # Errors
    /// Says what is wrong: no pixel, more than 100 million, runs that are not as many pixels as the image has.
    pub fn from_runs([width, height]: [u32; 2], runs: &[u32]) -> Result<Self, String> {
        let pixels = counted([width, height])?;
        let covered: u64 = runs.iter().map(|&run| u64::from(run)).sum();
        if covered != pixels {
            return Err(format!(
                "the runs of a mask of {width} × {height} pixels are {covered} pixels in all, expected {pixels}"
            ));
        }
        Ok(Self { height, width, counts: written(runs) })
    }

    /// The mask of the pixels for which `inside(x, y)` holds.
    ///
    /// # Errors
    /// As [`PixelMask::from_runs`].
    pub fn from_pixels([width, height]: [u32; 2], inside: impl Fn(u32, u32) -> bool) -> Result<Self, String> {
        counted([width, height])?;
        let (mut runs, mut now) = (vec![0], false);
        for (x, y) in (0..width).flat_map(|x| (0..height).map(move |y| (x, y))) {
            if inside(x, y) != now {
                now = !now;
                runs.push(0);
            }
            if let Some(run) = runs.last_mut() {
                *run += 1;
            }
        }
        Self::from_runs([width, height], &runs)
    }

    /// The pixels of any of some polygons, each `x, y, x, y, …` in pixels, by COCO's rule.
    ///
    /// # Errors
    /// As [`PixelMask::from_runs`]; a polygon of fewer than three corners, an odd count of numbers, a number that is not finite.
    pub fn from_polygons([width, height]: [u32; 2], polygons: &[Vec<f64>]) -> Result<Self, String> {
        counted([width, height])?;
        let mut single = None;
        let mut union = Vec::new();
        for corners in polygons {
            if corners.len() < 6 || !corners.len().is_multiple_of(2) {
                return Err(format!("a polygon of {} numbers, expected x, y of three corners or more", corners.len()));
            }
            // Far beyond any picture the fine outline would no longer fit whole numbers, or take for ever to walk.
            if let Some(bad) = corners.iter().find(|v| !v.is_finite() || v.abs() > f64::from(1 << 20)) {
                return Err(format!("a polygon with a corner at {bad}"));
            }
            let mask = Self::from_runs([width, height], &polygon([width, height], corners))?;
            if polygons.len() == 1 {
                single = Some(mask);
            } else if union.is_empty() {
                union = mask.pixels();
            } else {
                union.iter_mut().zip(mask.pixels()).for_each(|(inside, also)| *inside |= also);
            }
        }
        match single {
            Some(mask) => Ok(mask),
            None if union.is_empty() => Err("no polygon at all".into()),
            None => Self::from_pixels([width, height], |x, y| union[y as usize * width as usize + x as usize]),
        }
    }

    /// Width and height of the image in pixels.
    #[must_use]
    pub const fn size(&self) -> [u32; 2] {
        [self.width, self.height]
    }

    /// Runs outside and inside in turn, down the columns from the left.
    #[must_use]
    pub fn runs(&self) -> Vec<u32> {
        // The text was written here.
        read(&self.counts).unwrap_or_default()
    }

    /// Number of pixels inside.
    #[must_use]
    pub fn area(&self) -> u64 {
        self.runs().iter().skip(1).step_by(2).map(|&run| u64::from(run)).sum()
    }

    /// Every pixel, row by row from the top left.
    #[must_use]
    pub fn pixels(&self) -> Vec<bool> {
        let (width, height) = (self.width as usize, self.height as usize);
        let (mut pixels, mut at) = (vec![false; width * height], 0);
        for (i, run) in self.runs().into_iter().enumerate() {
            let end = at + run as usize;
            if i % 2 == 1 {
                (at..end).for_each(|p| pixels[p % height * width + p / height] = true);
            }
            at = end;
        }
        pixels
    }

    /// The part of the mask in the rectangle of `size` (width, height) whose top left pixel is `corner`; `None` where the rectangle leaves
    /// the image or is empty.
    #[must_use]
    pub fn crop(&self, corner: [u32; 2], size: [u32; 2]) -> Option<Self> {
        let [(x0, w), (y0, h)] = [(corner[0], size[0]), (corner[1], size[1])];
        if x0.checked_add(w)? > self.width || y0.checked_add(h)? > self.height {
            return None;
        }
        let pixels = self.pixels();
        Self::from_pixels(size, |x, y| pixels[(y0 + y) as usize * self.width as usize + (x0 + x) as usize]).ok()
    }
}

/// The number of pixels of an image, or that it is none that is read: sizes come from files and are checked before anything is made of them.
pub(crate) fn counted([width, height]: [u32; 2]) -> Result<u64, String> {
    match u64::from(width) * u64::from(height) {
        pixels @ 1..=MAX_PIXELS => Ok(pixels),
        _ => Err(format!("a mask of {width} × {height} pixels, expected 1 to {MAX_PIXELS} in all")),
    }
}

/// The runs of one polygon. Its outline, drawn at five times the resolution, crosses the middle of a pixel column at some heights; there
/// the column changes between outside and inside, at the next edge of a pixel.
fn polygon([width, height]: [u32; 2], corners: &[f64]) -> Vec<u32> {
    let (width, height) = (i64::from(width), i64::from(height));
    let fine = |v: f64| (FINE as f64 * v + 0.5) as i64;
    let corners: Vec<[i64; 2]> = corners.chunks_exact(2).map(|c| [fine(c[0]), fine(c[1])]).collect();
    let next = corners.iter().cycle().skip(1);
    let mut changes: Vec<i64> = Vec::new();
    let mut last: Option<[i64; 2]> = None;
    for (&from, &to) in corners.iter().zip(next) {
        for [x, y] in line(from, to) {
            if let Some([before_x, before_y]) = last.filter(|before| before[0] != x) {
                let left = x.min(before_x);
                if left.rem_euclid(FINE) == FINE / 2 && (0..width).contains(&left.div_euclid(FINE)) {
                    let edge = y.min(before_y) - FINE / 2;
                    let edge = (edge + FINE - 1).div_euclid(FINE).clamp(0, height);
                    changes.push(left.div_euclid(FINE) * height + edge);
                }
            }
            last = Some([x, y]);
        }
    }
    changes.sort_unstable();
    let mut runs = Vec::with_capacity(changes.len() + 1);
    let mut at = 0;
    let mut i = 0;
    while i < changes.len() {
        // Two changes at one place are none.
        if changes.get(i + 1) == Some(&changes[i]) {
            i += 2;
            continue;
        }
        runs.push((changes[i] - at) as u32);
        at = changes[i];
        i += 1;
    }
    if at < width * height {
        runs.push((width * height - at) as u32);
    }
    runs
}

/// The points of a line of the fine outline, one a step along its longer side, in order. They do not depend on the line's direction.
fn line(from: [i64; 2], to: [i64; 2]) -> impl Iterator<Item = [i64; 2]> {
    let [across, down] = [(to[0] - from[0]).abs(), (to[1] - from[1]).abs()];
    let wide = across >= down;
    let along = usize::from(!wide);
    let backwards = from[along] > to[along];
    let [a, b] = if backwards { [to, from] } else { [from, to] };
    let steps = across.max(down);
    let slope = if steps == 0 { 0.0 } else { (b[1 - along] - a[1 - along]) as f64 / steps as f64 };
    (0..=steps).map(move |step| {
        let t = if backwards { steps - step } else { step };
        let [major, minor] = [a[along] + t, (a[1 - along] as f64 + slope * t as f64 + 0.5) as i64];
        if wide { [major, minor] } else { [minor, major] }
    })
}

/// Runs as COCO's text: each after the third as the difference from the one two before, five bits a character, the lowest first.
fn written(runs: &[u32]) -> String {
    let mut text = String::with_capacity(runs.len() * 2);
    for (i, &run) in runs.iter().enumerate() {
        let mut rest = i64::from(run) - if i > 2 { i64::from(runs[i - 2]) } else { 0 };
        loop {
            let bits = (rest & 31) as u8;
            rest >>= 5;
            // The highest of the five bits is the sign of all that follows.
            let more = if bits & 16 == 0 { rest != 0 } else { rest != -1 };
            text.push(char::from(48 + bits + if more { 32 } else { 0 }));
            if !more {
                break;
            }
        }
    }
    text
}

/// Runs of COCO's text.
fn read(text: &str) -> Result<Vec<u32>, String> {
    let mut runs: Vec<u32> = Vec::new();
    let mut characters = text.bytes();
    while let Some(first) = characters.next() {
        let (mut value, mut shift, mut character) = (0i64, 0, first);
        loop {
            let bits = character.checked_sub(48).filter(|bits| *bits < 64 && shift < 40);
            let bits = bits.ok_or_else(|| {
                format!("the counts of a mask hold {:?}, which is not COCO's form", char::from(character))
            })?;
            value |= i64::from(bits & 31) << shift;
            shift += 5;
            if bits & 32 == 0 {
                if bits & 16 != 0 {
                    value |= -1 << shift;
                }
                break;
            }
            character = characters.next().ok_or("the counts of a mask are cut short")?;
        }
        if runs.len() > 2 {
            value += i64::from(runs[runs.len() - 2]);
        }
        let run = u32::try_from(value).map_err(|_| format!("the counts of a mask hold a run of {value} pixels"))?;
        runs.push(run);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(text: &str) -> PixelMask {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn masks_of_pixels_and_runs() {
        let square = PixelMask::from_pixels([5, 4], |x, y| (1..4).contains(&x) && (1..3).contains(&y)).unwrap();
        assert_eq!(square.runs(), [5, 2, 2, 2, 2, 2, 5]);
        assert_eq!(mask(r#"{"size":[4,5],"counts":[5,2,2,2,2,2,5]}"#), square);
        assert_eq!((square.area(), square.size()), (6, [5, 4]));
        let none = PixelMask::from_pixels([5, 4], |_, _| false).unwrap();
        assert_eq!((none.area(), none.runs()), (0, vec![20]));
        let all = PixelMask::from_pixels([5, 4], |_, _| true).unwrap();
        assert_eq!((all.area(), all.runs()), (20, vec![0, 20]));
    }

    proptest! {
        #[test]
        fn runs_survive_their_text(runs in proptest::collection::vec(0u32..40_000, 1..40)) {
            prop_assert_eq!(read(&written(&runs)).unwrap(), runs);
        }

        #[test]
        fn a_mask_is_its_pixels(width in 1u32..9, height in 1u32..9, bits in any::<u64>()) {
            let inside = |x: u32, y: u32| bits >> (y * width + x) & 1 == 1;
            let mask = PixelMask::from_pixels([width, height], inside).unwrap();
            let expected: Vec<bool> = (0..height).flat_map(|y| (0..width).map(move |x| inside(x, y))).collect();
            prop_assert_eq!(mask.area(), expected.iter().filter(|&&b| b).count() as u64);
            prop_assert_eq!(mask.pixels(), expected);
            let part = mask.crop([width / 2, 0], [width - width / 2, height]).unwrap();
            let expected = PixelMask::from_pixels(part.size(), |x, y| inside(x + width / 2, y)).unwrap();
            prop_assert_eq!(&part, &expected);
            prop_assert!(mask.crop([1, 0], [width, height]).is_none());
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[0-o]{0,30}", width in 0u32..100, height in 0u32..100) {
            let wire = serde_json::json!({ "size": [height, width], "counts": text });
            if let Ok(mask) = serde_json::from_value::<PixelMask>(wire) {
                prop_assert_eq!(mask.pixels().len(), (width * height) as usize);
            }
        }

        #[test]
        fn any_polygon_makes_a_mask(corners in proptest::collection::vec(-50.0f64..150.0, 3..20), width in 1u32..80, height in 1u32..80) {
            let corners: Vec<f64> = corners.iter().flat_map(|&v| [v, 100.0 - v / 2.0 + (v * 7.0) % 31.0]).collect();
            let mask = PixelMask::from_polygons([width, height], &[corners]).unwrap();
            prop_assert_eq!(mask.pixels().len(), (width * height) as usize);
        }
    }

    #[test]
    fn a_polygon_covers_what_it_encloses() {
        let square = PixelMask::from_polygons([10, 8], &[vec![2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]).unwrap();
        let expected = PixelMask::from_pixels([10, 8], |x, y| (2..6).contains(&x) && (1..5).contains(&y)).unwrap();
        assert_eq!(square, expected);
        let both = PixelMask::from_polygons(
            [10, 8],
            &[vec![2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0], vec![5.0, 4.0, 20.0, 4.0, 20.0, 20.0, 5.0, 20.0]],
        );
        let expected =
            PixelMask::from_pixels([10, 8], |x, y| ((2..6).contains(&x) && (1..5).contains(&y)) || (x >= 5 && y >= 4));
        assert_eq!(both.unwrap(), expected.unwrap());
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        let refused = |text: &str| serde_json::from_str::<PixelMask>(text).unwrap_err().to_string();
        assert!(refused(r#"{"size":[4,5],"counts":[5,2]}"#).contains("7 pixels in all, expected 20"));
        assert!(refused(r#"{"size":[0,5],"counts":[]}"#).contains("5 × 0 pixels"));
        assert!(refused(r#"{"size":[4000000000,4000000000],"counts":""}"#).contains("expected 1 to 100000000"));
        assert!(refused(r#"{"size":[4,5],"counts":"!"}"#).contains("COCO's form"));
        assert!(refused(r#"{"size":[4,5],"counts":"Q"}"#).contains("cut short"));
        let polygons = |p: &[Vec<f64>]| PixelMask::from_polygons([4, 5], p).unwrap_err();
        assert!(polygons(&[vec![1.0, 2.0, 3.0, 4.0]]).contains("three corners"));
        assert!(polygons(&[vec![1.0, f64::NAN, 3.0, 4.0, 5.0, 6.0]]).contains("NaN"));
        assert!(polygons(&[vec![1e300, 0.0, 3.0, 4.0, 5.0, 6.0]]).contains("a polygon with a corner"));
        assert!(polygons(&[]).contains("no polygon"));
        let huge = [u32::MAX; 2];
        let triangle = vec![vec![0.0, 0.0, 9.0, 0.0, 9.0, 9.0]];
        assert!(PixelMask::from_polygons(huge, &triangle).unwrap_err().contains("expected 1 to 100000000"));
        assert!(PixelMask::from_pixels(huge, |_, _| true).unwrap_err().contains("expected 1 to 100000000"));
    }
}
