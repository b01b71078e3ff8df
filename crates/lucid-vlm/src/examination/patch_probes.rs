//! Probes of patch states: what a patch shows, and whether it shows an object at all.

use super::examinee::picture;
use super::locality::{Locality, locality};
use super::patches::{Patch, choose};
use super::probes::{Labelled, Predicted, Probe, ProbeOf, States, Task, each, run, scores};
use super::watch::Watch;
use crate::backbone::Backbone;
use crate::error::VlmError;
use crate::hook::Tower;
use lucid_data::scenes::{ATTRIBUTES, ConceptKind, Scene, values_of};

/// What the best hook is meant to reach on unseen scenes.
fn goal(kind: ConceptKind) -> Option<f64> {
    match kind {
        ConceptKind::Color => Some(0.97),
        ConceptKind::Pattern => Some(0.85),
        ConceptKind::Shape => Some(0.75),
        _ => None,
    }
}

/// Scenes with the patches of each that are probed.
struct Set<'a> {
    scenes: &'a [Scene],
    chosen: Vec<Vec<Patch>>,
}

impl<'a> Set<'a> {
    fn new(scenes: &'a [Scene], backbone: &Backbone) -> Self {
        let vision = &backbone.config().vision_config;
        let chosen = scenes.iter().map(|s| choose(&s.truth, vision, s.seed, s.index)).collect();
        Self { scenes, chosen }
    }

    fn states(&self, backbone: &Backbone, watch: &mut Watch<'_>) -> Result<States, VlmError> {
        let dim = backbone.vision_dim();
        let items = each(backbone.threads(), self.scenes.len(), watch, |i| {
            let hooks = backbone.every_image_state(&picture(&self.scenes[i])?)?;
            let rows = |states: Vec<f32>| -> Vec<f32> {
                self.chosen[i].iter().flat_map(|p| &states[p.patch * dim..(p.patch + 1) * dim]).copied().collect()
            };
            Ok(hooks.into_iter().map(rows).collect())
        })?;
        Ok(States::join(dim, backbone.config().vision_config.num_hidden_layers + 1, items))
    }

    fn labelled(&self, label: impl Fn(&Patch) -> Option<usize>) -> Labelled {
        Labelled::of(&self.chosen.iter().flatten().collect::<Vec<_>>(), |p| label(p))
    }
}

/// The tasks in order: attributes of the object, background, and last whether there is an object.
fn tasks(sets: &[Set<'_>; 3]) -> Vec<Task> {
    let task = |classes, label: &dyn Fn(&Patch) -> Option<usize>| Task {
        classes,
        sets: [0, 1, 2].map(|i| sets[i].labelled(label)),
    };
    let mut all: Vec<Task> =
        (0..ATTRIBUTES.len()).map(|a| task(values_of(ATTRIBUTES[a]), &|p| p.object.map(|values| values[a]))).collect();
    all.push(task(values_of(ConceptKind::Background), &|p| p.background.filter(|_| p.drawn)));
    all.push(task(2, &|p| p.drawn.then_some(usize::from(p.covered))));
    all
}

/// Probes of both backbones at every hook of the image tower. `sets`: scenes to fit on, unseen ones, held-out combinations.
pub(super) fn patch_probes(
    backbone: &Backbone,
    untrained: &Backbone,
    sets: [&[Scene]; 3],
    watch: &mut Watch<'_>,
) -> Result<(Vec<Probe>, Vec<Locality>), VlmError> {
    let sets = sets.map(|scenes| Set::new(scenes, backbone));
    let tasks = tasks(&sets);
    // One model's states at a time, to bound memory.
    let mut predict = |model: &Backbone| -> Result<Vec<Vec<Option<Predicted>>>, VlmError> {
        let [fit, unseen, held_out] = &sets;
        let states = [fit.states(model, watch)?, unseen.states(model, watch)?, held_out.states(model, watch)?];
        run(&states, &tasks, model.threads(), watch)
    };
    let (trained, control) = (predict(backbone)?, predict(untrained)?);
    let kinds = ATTRIBUTES.into_iter().chain([ConceptKind::Background]);
    let (mut probes, mut places) = (Vec::new(), Vec::new());
    for (h, hook) in backbone.hooks_in_order(Tower::Vision).into_iter().enumerate() {
        for (t, kind) in kinds.clone().enumerate() {
            if let (Some(a), Some(b)) = (&trained[h][t], &control[h][t]) {
                let [unseen, held_out] = scores(&tasks[t], a, b);
                let (of, fitted, goal) = (ProbeOf::Patch, tasks[t].sets[0].labels.len(), goal(kind));
                probes.push(Probe { of, hook: hook.clone(), kind, fitted, unseen, held_out, goal });
            }
        }
        let last = tasks.len() - 1;
        if let (Some([a, _]), Some([b, _])) = (&trained[h][last], &control[h][last]) {
            places.extend(locality(hook, &tasks[last].sets[1].labels, a, b));
        }
    }
    Ok((probes, places))
}

/// Units of work of [`patch_probes`]: pictures and fits of two models.
pub(super) fn units(backbone: &Backbone, scenes: usize) -> usize {
    2 * (3 * scenes + (backbone.config().vision_config.num_hidden_layers + 1) * (ATTRIBUTES.len() + 2))
}
