//! Chooses what a scene holds: background, objects, their attributes and places.

use super::concepts::{Background, Color, Pattern, Shape, Size};
use super::random::Stream;
use super::render::{Placed, RADII};
use super::{Canvas, Crowd, Level, SceneOptions, Split};

/// Number of shapes that have one colour kept out of the training split.
const HELD_OUT_SHAPES: usize = 6;

/// Whether a combination of shape and colour never occurs in [`Split::Train`]: 6 of the 64, each shape and each colour
/// in at most one, so that both are still known from other combinations.
pub fn is_held_out(shape: Shape, color: Color) -> bool {
    shape.index() < HELD_OUT_SHAPES && color.index() == (3 * shape.index() + 2) % 8
}

/// What will be drawn and spoken of.
#[derive(Clone)]
pub struct Plan {
    pub background: Background,
    pub objects: Vec<Placed>,
    /// Objects that agree in every attribute, each group a range of `objects`.
    pub groups: Vec<std::ops::Range<usize>>,
}

/// The attributes of a group of equal objects.
struct Look {
    shape: Shape,
    color: Color,
    pattern: Pattern,
    size: Size,
    count: usize,
}

fn object_count(stream: &mut Stream, options: &SceneOptions) -> usize {
    if options.canvas == Canvas::Single {
        return 1;
    }
    match options.crowd {
        Crowd::Pair | Crowd::OrderedPair => 2,
        Crowd::Group => 2 + stream.below(3),
        Crowd::Any => match stream.unit() {
            u if u < 0.30 => 1,
            u if u < 0.68 => 2,
            u if u < 0.88 => 3,
            _ => 4,
        },
    }
}

/// Draws the plan of scene `index`. Members of a family share what `common` draws: background, numbers and colours.
pub fn plan(options: &SceneOptions, common: &mut Stream, member: usize, own: &mut Stream) -> Plan {
    let background = match options.level {
        Level::Easy => *common.pick(&[Background::Paper, Background::Night, Background::Fog]),
        Level::Full => *common.pick(&Background::ALL),
    };
    let total = object_count(common, options);
    let group = match options.crowd {
        Crowd::Pair | Crowd::OrderedPair => 1,
        Crowd::Group => total,
        Crowd::Any if total >= 2 && common.chance(0.3) => 2 + common.below(total - 1),
        Crowd::Any => 1,
    };
    let mut looks: Vec<Look> = Vec::new();
    let mut left = total;
    while left > 0 {
        let count = if looks.is_empty() { group } else { 1 };
        left -= count;
        let mut order = Shape::ALL;
        common.shuffle(&mut order);
        let mut color = *common.pick(&Color::ALL);
        // The first group of a held-out scene is a held-out combination; every other one is free.
        let forced = options.split == Split::HeldOut && looks.is_empty();
        if forced {
            let shape = Shape::ALL[common.below(HELD_OUT_SHAPES)];
            color = Color::ALL[(3 * shape.index() + 2) % 8];
        }
        let allowed = |shape: Shape, looks: &[Look]| {
            let known = !looks.iter().any(|l| l.shape == shape && l.color == color);
            known
                && match options.split {
                    Split::Train => !is_held_out(shape, color),
                    Split::HeldOut => !forced || is_held_out(shape, color),
                    Split::All => true,
                }
        };
        // At most two of the eight shapes can be refused for a colour, so the walk ends.
        let first = if options.family > 1 { member } else { own.below(8) };
        let shape = (0..8).map(|k| order[(first + k) % 8]).find(|&s| allowed(s, &looks)).unwrap_or(order[first % 8]);
        let (pattern, size) = match options.level {
            Level::Easy => (Pattern::Plain, Size::Large),
            Level::Full => (*own.pick(&Pattern::ALL), *own.pick(&Size::ALL)),
        };
        looks.push(Look { shape, color, pattern, size, count });
    }
    let mut objects = Vec::with_capacity(total);
    let mut groups = Vec::with_capacity(looks.len());
    for look in &looks {
        groups.push(objects.len()..objects.len() + look.count);
        for _ in 0..look.count {
            objects.push(Placed {
                shape: look.shape,
                color: look.color,
                pattern: look.pattern,
                size: look.size,
                center: [0.0; 2],
                radius: RADII[look.size.index()] * own.between(0.96, 1.04),
                turn: own.between(-0.06, 0.06),
            });
        }
    }
    place(options.canvas.side() as f32, &mut objects, own);
    Plan { background, objects, groups }
}

/// Half the side of an object's bounding square, with a margin.
fn extent(object: &Placed) -> f32 {
    object.radius * 1.08 + 1.0
}

/// Whether a square of half-side `reach` about `center` and that of an object do not touch.
fn apart(center: [f32; 2], reach: f32, object: &Placed) -> bool {
    let gap = reach + extent(object) + 1.0;
    (center[0] - object.center[0]).abs() > gap || (center[1] - object.center[1]).abs() > gap
}

/// Whether no two objects touch and none leaves a canvas of `side` pixels.
pub fn fits(side: f32, objects: &[Placed]) -> bool {
    objects.iter().enumerate().all(|(i, object)| {
        let reach = extent(object);
        object.center.iter().all(|c| (reach..=side - reach).contains(c))
            && objects[..i].iter().all(|other| apart(object.center, reach, other))
    })
}

/// Gives every object a centre so that no two bounding squares touch and none leaves the canvas.
fn place(side: f32, objects: &mut [Placed], stream: &mut Stream) {
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.sort_by(|&a, &b| objects[b].radius.total_cmp(&objects[a].radius).then(a.cmp(&b)));
    for _ in 0..12 {
        let mut placed: Vec<usize> = Vec::with_capacity(order.len());
        for &i in &order {
            let reach = extent(&objects[i]);
            let found = (0..24).any(|_| {
                let center = [stream.between(reach, side - reach), stream.between(reach, side - reach)];
                let free = placed.iter().all(|&j| apart(center, reach, &objects[j]));
                if free {
                    objects[i].center = center;
                }
                free
            });
            if !found {
                break;
            }
            placed.push(i);
        }
        if placed.len() == objects.len() {
            return;
        }
    }
    // Four large objects rarely find room by chance: one quadrant each always fits.
    let mut quadrants = [0_usize, 1, 2, 3];
    stream.shuffle(&mut quadrants);
    let half = side / 2.0;
    for (k, o) in objects.iter_mut().enumerate() {
        let slack = (half / 2.0 - extent(o)).max(0.0);
        let q = quadrants[k % 4];
        let corner = [(q % 2) as f32 * half, (q / 2) as f32 * half];
        o.center = [
            corner[0] + half / 2.0 + stream.between(-slack, slack),
            corner[1] + half / 2.0 + stream.between(-slack, slack),
        ];
    }
}
