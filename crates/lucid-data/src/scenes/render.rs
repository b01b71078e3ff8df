//! Pixels and masks: objects with crisp anti-aliased outlines over a background.

use super::backgrounds;
use super::concepts::{Background, Color, Pattern, Shape, Size};
use super::random::Stream;
use super::shapes;

/// An object before it is drawn; pixels, y downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Outline.
    pub shape: Shape,
    /// Main colour.
    pub color: Color,
    /// Fill.
    pub pattern: Pattern,
    /// Named size.
    pub size: Size,
    /// Centre.
    pub center: [f32; 2],
    /// Half-extent in pixels.
    pub radius: f32,
    /// Half of the turn's tangent: the object is turned by 2·atan(turn).
    pub turn: f32,
}

/// Half-extent of each size in pixels.
pub const RADII: [f32; 3] = [12.0, 16.7, 23.2];
/// Width of the dark outline in pixels; it separates an object from a background of nearly its colour.
const OUTLINE: f32 = 1.5;
const OUTLINE_COLOR: [f32; 3] = [20.0, 20.0, 24.0];

fn main_color(color: Color) -> [f32; 3] {
    match color {
        Color::Red => [222.0, 32.0, 38.0],
        Color::Yellow => [250.0, 222.0, 40.0],
        Color::Green => [28.0, 168.0, 62.0],
        Color::Cyan => [20.0, 205.0, 220.0],
        Color::Blue => [44.0, 92.0, 240.0],
        Color::Purple => [140.0, 52.0, 205.0],
        Color::Pink => [250.0, 125.0, 195.0],
        Color::White => [248.0, 248.0, 248.0],
    }
}

/// How much of the pixel at `(x, y)` (pixels from the centre) shows the dark shade of the colour.
fn dark_share(pattern: Pattern, phase: [f32; 2], x: f32, y: f32) -> f32 {
    // Distance to the nearest multiple of `period`, in [0, period / 2].
    let fold = |t: f32, period: f32| {
        let r = t - (t / period) as i32 as f32 * period;
        r.min(period - r)
    };
    let cover = |distance: f32| (0.5 - distance).clamp(0.0, 1.0);
    // 630 is a multiple of both periods: it makes every coordinate positive, so that truncation is the floor.
    let (x, y) = (x + phase[0] + 630.0, y + phase[1] + 630.0);
    match pattern {
        Pattern::Plain => 0.0,
        Pattern::Striped => cover(fold(y, 7.0) - 1.75),
        Pattern::Dotted => {
            let (u, v) = (fold(x, 7.0), fold(y, 7.0));
            cover((u * u + v * v).sqrt() - 2.1)
        }
        Pattern::Checkered => {
            // Two square waves of period 9; their "exclusive or", with soft edges.
            let (a, b) = (cover(fold(x, 9.0) - 2.25), cover(fold(y, 9.0) - 2.25));
            a + b - 2.0 * a * b
        }
    }
}

/// A drawn picture: RGB bytes row by row, and for every pixel 0 for the background or 1 + the object's position.
pub struct Drawn {
    /// `side · side · 3` bytes.
    pub rgb: Vec<u8>,
    /// `side · side` owners.
    pub owner: Vec<u8>,
}

/// Draws `objects` over `background` on a square canvas of `side` pixels. Later objects would cover earlier ones.
pub fn draw(side: usize, background: Background, objects: &[Placed], stream: &mut Stream) -> Drawn {
    let mut canvas = vec![[0.0_f32; 3]; side * side];
    backgrounds::paint(background, side, stream, &mut canvas);
    let mut owner = vec![0_u8; side * side];
    for (number, object) in objects.iter().enumerate() {
        let base = main_color(object.color);
        let jitter = stream.between(-7.0, 7.0);
        let light = base.map(|c| c + jitter);
        let dark = light.map(|c| c * 0.32);
        let phase = [stream.between(0.0, 9.0), stream.between(0.0, 9.0)];
        // A rotation without a sine: (1 - t²)/(1 + t²) and 2t/(1 + t²).
        let t = object.turn;
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let inverse = 1.0 / object.radius;
        let reach = object.radius * 1.2 + 2.0;
        let low = |c: f32| (c - reach).max(0.0) as usize;
        let high = |c: f32| ((c + reach).ceil().max(0.0) as usize).min(side);
        for y in low(object.center[1])..high(object.center[1]) {
            for x in low(object.center[0])..high(object.center[0]) {
                let (dx, dy) = (x as f32 + 0.5 - object.center[0], y as f32 + 0.5 - object.center[1]);
                let (ux, uy) = (cos * dx + sin * dy, cos * dy - sin * dx);
                if ux.abs().max(uy.abs()) > 1.07 * object.radius + 0.5 {
                    continue;
                }
                let distance = shapes::distance(object.shape, ux * inverse, uy * inverse) * object.radius;
                let covered = (0.5 - distance).clamp(0.0, 1.0);
                if covered <= 0.0 {
                    continue;
                }
                let filled = (0.5 - distance - OUTLINE).clamp(0.0, 1.0);
                let shade = dark_share(object.pattern, phase, ux, uy);
                let pixel = &mut canvas[y * side + x];
                for c in 0..3 {
                    let fill = light[c] + (dark[c] - light[c]) * shade;
                    let ink = OUTLINE_COLOR[c] + (fill - OUTLINE_COLOR[c]) * filled;
                    pixel[c] += (ink - pixel[c]) * covered;
                }
                if covered >= 0.5 {
                    owner[y * side + x] = number as u8 + 1;
                }
            }
        }
    }
    let rgb = canvas.iter().flatten().map(|&c| (c + 0.5).clamp(0.0, 255.0) as u8).collect();
    Drawn { rgb, owner }
}
