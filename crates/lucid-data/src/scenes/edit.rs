//! Causal edits: a scene, and the same scene with one value of one attribute changed.
//!
//! Places, sizes of what is not edited, noise and wording are drawn alike for both, so that a difference between their states has one
//! cause.

use super::concepts::{Background, Color, Concept, ConceptKind, Pattern, Shape, Size, concept_of, values_of};
use super::layout::{self, Plan};
use super::random::Stream;
use super::render::{self, RADII};
use super::{Scene, SceneOptions, SceneTruth, Split, grammar};

/// Attributes that an edit may change.
pub const EDITABLE: [ConceptKind; 5] =
    [ConceptKind::Shape, ConceptKind::Color, ConceptKind::Pattern, ConceptKind::Size, ConceptKind::Background];

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edit {
    /// The value before.
    pub from: Concept,
    /// The value after; of the same kind.
    pub to: Concept,
}

/// Changes one value of one attribute of one group of equal objects, or the background.
fn change(plan: &mut Plan, options: &SceneOptions, stream: &mut Stream) -> Edit {
    let side = options.canvas.side() as f32;
    // The background can always change, so the loop ends.
    loop {
        let kind = *stream.pick(&EDITABLE);
        let group = stream.pick(&plan.groups).clone();
        let to = stream.below(values_of(kind));
        let old = plan.objects[group.start];
        let from = match kind {
            ConceptKind::Shape => old.shape.index(),
            ConceptKind::Color => old.color.index(),
            ConceptKind::Pattern => old.pattern.index(),
            ConceptKind::Size => old.size.index(),
            _ => plan.background.index(),
        };
        if from == to {
            continue;
        }
        let edit = Edit { from: concept_of(kind, from), to: concept_of(kind, to) };
        if kind == ConceptKind::Background {
            plan.background = Background::ALL[to];
            return edit;
        }
        let mut objects = plan.objects.clone();
        for object in &mut objects[group.clone()] {
            match kind {
                ConceptKind::Shape => object.shape = Shape::ALL[to],
                ConceptKind::Color => object.color = Color::ALL[to],
                ConceptKind::Pattern => object.pattern = Pattern::ALL[to],
                _ => {
                    object.size = Size::ALL[to];
                    object.radius *= RADII[to] / RADII[from];
                }
            }
        }
        let new = objects[group.start];
        let refused = options.split == Split::Train && layout::is_held_out(new.shape, new.color);
        let twin = (0..objects.len()).any(|other| {
            !group.contains(&other) && objects[other].shape == new.shape && objects[other].color == new.color
        });
        if !refused && !twin && layout::fits(side, &objects) {
            plan.objects = objects;
            return edit;
        }
    }
}

/// Scene `index` of `seed` under `options`, as [`scene_with`](super::scene_with) draws it, and the edited one.
pub fn edited(seed: u64, index: u64, options: &SceneOptions) -> (Scene, Scene, Edit) {
    let (plan, own) = super::planned(seed, index, options);
    let mut other = plan.clone();
    let edit = change(&mut other, options, &mut Stream::new(seed, index, 1 << 16));
    let side = options.canvas.side();
    let draw = |plan: &Plan| {
        let mut stream = own.clone();
        (render::draw(side, plan.background, &plan.objects, &mut stream), stream)
    };
    let (before, wording) = draw(&plan);
    let (after, _) = draw(&other);
    let finish = |plan: &Plan, drawn: render::Drawn| {
        let mut truth = SceneTruth::of(side, plan.background, &plan.objects, drawn.owner);
        let caption = grammar::caption(&mut truth, plan, options, &mut wording.clone());
        Scene { seed, index, rgb: drawn.rgb, caption, truth }
    };
    (finish(&plan, before), finish(&other, after), edit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::scene_with;

    #[test]
    fn one_attribute_changes_and_nothing_else() {
        let options = SceneOptions::default();
        let mut seen = std::collections::BTreeMap::<&str, usize>::new();
        for index in 0..400 {
            let (before, after, edit) = edited(7, index, &options);
            assert_eq!(before, scene_with(7, index, &options), "{index}");
            *seen.entry(edit.from.kind.name()).or_default() += 1;
            assert_eq!((edit.from.kind, edit.from == edit.to), (edit.to.kind, false));
            assert_eq!(before.truth.objects.len(), after.truth.objects.len());
            let mut changed = 0;
            for (a, b) in before.truth.objects.iter().zip(&after.truth.objects) {
                for kind in [ConceptKind::Shape, ConceptKind::Color, ConceptKind::Pattern, ConceptKind::Size] {
                    if a.value(kind) != b.value(kind) {
                        assert_eq!((a.value(kind), b.value(kind)), (Some(edit.from.value), Some(edit.to.value)));
                        assert_eq!(kind, edit.from.kind, "{index}");
                        changed += 1;
                    }
                }
            }
            let background = edit.from.kind == ConceptKind::Background;
            assert_eq!((changed == 0, before.truth.background != after.truth.background), (background, background));
            // Pixels far from any object and of the same background are the same.
            let free = |scene: &Scene, pixel: usize| scene.truth.owner[pixel] == 0;
            let side = before.truth.side;
            let near = |scene: &Scene, pixel: usize| {
                let (x, y) = (pixel % side, pixel / side);
                (x.saturating_sub(3)..(x + 4).min(side))
                    .any(|x| (y.saturating_sub(3)..(y + 4).min(side)).any(|y| !free(scene, y * side + x)))
            };
            if !background {
                for pixel in (0..side * side).step_by(37) {
                    if !near(&before, pixel) && !near(&after, pixel) {
                        assert_eq!(before.rgb[3 * pixel..3 * pixel + 3], after.rgb[3 * pixel..3 * pixel + 3]);
                    }
                }
            }
        }
        assert_eq!(seen.len(), EDITABLE.len());
        assert!(seen.values().all(|&count| count > 25), "{seen:?}");
    }
}
