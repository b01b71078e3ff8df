//! The ten backgrounds: muted colours, so that the saturated objects stand out from each of them.

use super::concepts::Background;
use super::random::{Stream, pixel_noise};

/// The whole part of a number ≥ 0. `f32::floor` is a library call on the baseline x86-64 target; this is two instructions.
fn whole(t: f32) -> f32 {
    t as i32 as f32
}

/// Smooth noise in [0, 1): hashed values on a grid of `cell` pixels, blended with a cubic.
fn value_noise(key: u32, x: f32, y: f32, cell: f32) -> f32 {
    let (gx, gy) = (x / cell, y / cell);
    let (ix, iy) = (whole(gx), whole(gy));
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (smooth(gx - ix), smooth(gy - iy));
    let at = |dx: u32, dy: u32| pixel_noise(key, ix as u32 + dx, iy as u32 + dy);
    let top = at(0, 0) + (at(1, 0) - at(0, 0)) * tx;
    let bottom = at(0, 1) + (at(1, 1) - at(0, 1)) * tx;
    top + (bottom - top) * ty
}

/// A periodic wave in [-1, 1] made of two parabolas, for t ≥ 0: like a sine, without calling one.
fn wave(t: f32) -> f32 {
    let phase = t - whole(t);
    if phase < 0.5 { 16.0 * phase * (0.5 - phase) } else { -16.0 * (phase - 0.5) * (1.0 - phase) }
}

fn shaded(base: [f32; 3], by: f32) -> [f32; 3] {
    [base[0] + by, base[1] + by, base[2] + by]
}

fn blend(a: [f32; 3], b: [f32; 3], t: f32) -> [f32; 3] {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

/// Fills `canvas` (`side` × `side`, RGB in 0–255) with a background drawn from `stream`.
pub fn paint(background: Background, side: usize, stream: &mut Stream, canvas: &mut [[f32; 3]]) {
    let key = stream.next() as u32;
    let tint = [stream.between(-6.0, 6.0), stream.between(-6.0, 6.0), stream.between(-6.0, 6.0)];
    let light = stream.between(-8.0, 8.0);
    let (shift_x, shift_y) = (stream.between(0.0, 64.0), stream.between(0.0, 64.0));
    let based = |r: f32, g: f32, b: f32| [r + tint[0] + light, g + tint[1] + light, b + tint[2] + light];
    for y in 0..side {
        let depth = (y as f32 + 0.5) / side as f32;
        for x in 0..side {
            let (fx, fy) = (x as f32 + shift_x, y as f32 + shift_y);
            let grain = pixel_noise(key, x as u32, y as u32) - 0.5;
            canvas[y * side + x] = match background {
                Background::Paper => shaded(based(226.0, 219.0, 200.0), 6.0 * grain),
                Background::Night => {
                    let sky = shaded(based(26.0, 28.0, 48.0), 4.0 * grain);
                    if grain > 0.494 { [205.0, 208.0, 220.0] } else { sky }
                }
                Background::Fog => shaded(based(148.0, 150.0, 152.0), 44.0 * (value_noise(key, fx, fy, 30.0) - 0.5)),
                Background::Sunset => {
                    let top = based(92.0, 74.0, 122.0);
                    shaded(blend(top, [226.0, 158.0, 112.0], depth), 4.0 * grain)
                }
                Background::Static => shaded([120.0, 120.0, 120.0], 100.0 * grain),
                Background::Grass => {
                    let blade = pixel_noise(key ^ 0x51, x as u32, (fy / 6.0) as u32) - 0.5;
                    shaded(based(86.0, 118.0, 68.0), 40.0 * blade + 14.0 * grain)
                }
                Background::Sky => {
                    let cloud =
                        0.65 * value_noise(key, fx, fy * 1.7, 26.0) + 0.35 * value_noise(key ^ 7, fx, fy * 1.7, 11.0);
                    let white = ((cloud - 0.50) * 5.0).clamp(0.0, 1.0);
                    blend(based(146.0, 188.0, 226.0), [238.0, 241.0, 245.0], white)
                }
                Background::Water => {
                    let bent = fy + 2.2 * wave(fx / 23.0) + 3.0 * value_noise(key, fx, fy, 20.0);
                    shaded(based(64.0, 110.0, 128.0), 20.0 * wave(bent / 8.5) + 6.0 * grain)
                }
                Background::Sand => {
                    let dune = wave((fy + 0.5 * fx + 9.0 * value_noise(key, fx, fy, 33.0)) / 27.0);
                    shaded(based(200.0, 178.0, 136.0), 8.0 * dune + 26.0 * grain)
                }
                Background::Brick => {
                    let row = whole(fy / 8.0);
                    let offset = if row as i32 % 2 == 0 { 0.0 } else { 8.0 };
                    let column = whole((fx + offset) / 16.0);
                    let (u, v) = (fx + offset - column * 16.0, fy - row * 8.0);
                    if u < 1.5 || v < 1.5 {
                        shaded(based(188.0, 180.0, 170.0), 8.0 * grain)
                    } else {
                        let tone = pixel_noise(key ^ 0xB7, column as u32, row as u32) - 0.5;
                        shaded(based(142.0, 88.0, 72.0), 26.0 * tone + 10.0 * grain)
                    }
                }
            };
        }
    }
}
