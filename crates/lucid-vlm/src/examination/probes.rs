//! Linear probes: fitted on the states of one set of scenes, tested on those of others, at every hook of a tower.

use super::logistic::Logistic;
use super::watch::{Watch, cancelled};
use crate::error::VlmError;
use crate::workers;
use lucid_data::scenes::ConceptKind;
use serde::Serialize;
use std::sync::Mutex;

/// Which states a probe reads, and so what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProbeOf {
    /// A patch: what does it show?
    Patch,
    /// A token of a word that names the value: is the word known?
    OwnWord,
    /// A token of a phrase that names something else: does it know what the rest of its phrase says?
    RestOfPhrase,
    /// A token that names nothing: does it know the background that the caption states?
    Filler,
}

/// Accuracy of a probe on one set of scenes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeScore {
    /// Share of the states whose value the probe names.
    pub accuracy: f64,
    /// Share of the most frequent value in this set.
    pub chance: f64,
    /// The accuracy of a probe of the untrained backbone, fitted and tested on the same places.
    pub untrained: f64,
    /// Number of states.
    pub count: usize,
}

/// A probe for one kind of value at one hook.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Which states it reads.
    pub of: ProbeOf,
    /// Where in the tower.
    pub hook: String,
    /// What it tells.
    pub kind: ConceptKind,
    /// Number of states it was fitted on.
    pub fitted: usize,
    /// On unseen scenes; absent where no state has a value of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<ProbeScore>,
    /// On scenes that each hold a combination of shape and colour never seen in training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<ProbeScore>,
    /// What the best hook is meant to reach on unseen scenes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
}

/// States of chosen places at every hook, the first block's first: [places, dim] each.
pub(super) struct States {
    pub dim: usize,
    pub hooks: Vec<Vec<f32>>,
}

impl States {
    /// Joins what [`workers::each`] gives: for every item its chosen states at every hook.
    pub fn join(dim: usize, hooks: usize, items: Vec<Vec<Vec<f32>>>) -> Self {
        let mut all = Self { dim, hooks: vec![Vec::new(); hooks] };
        for item in items {
            all.hooks.iter_mut().zip(item).for_each(|(hook, states)| hook.extend(states));
        }
        all
    }

    fn rows(&self, hook: usize, places: &[usize]) -> Vec<f32> {
        let d = self.dim;
        places.iter().flat_map(|&p| &self.hooks[hook][p * d..(p + 1) * d]).copied().collect()
    }
}

/// Some places of a set, each with its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Labelled {
    pub places: Vec<usize>,
    pub labels: Vec<u32>,
}

impl Labelled {
    /// The places to which `label` gives a value.
    pub fn of<P>(places: &[P], label: impl Fn(&P) -> Option<usize>) -> Self {
        let found = places.iter().enumerate().filter_map(|(i, p)| Some((i, label(p)? as u32)));
        let (places, labels) = found.unzip();
        Self { places, labels }
    }

    /// Share of the most frequent of `classes` values.
    fn chance(&self, classes: usize) -> f64 {
        let mut counts = vec![0_usize; classes];
        self.labels.iter().for_each(|&l| counts[l as usize] += 1);
        counts.into_iter().max().unwrap_or_default() as f64 / self.labels.len() as f64
    }

    fn accuracy(&self, predicted: &[u32]) -> f64 {
        let hits = self.labels.iter().zip(predicted).filter(|(a, b)| a == b).count();
        hits as f64 / self.labels.len() as f64
    }
}

/// What one probe is fitted and tested on, the same at every hook and for every model: a set to fit, unseen scenes, held-out
/// combinations.
pub(super) struct Task {
    pub classes: usize,
    pub sets: [Labelled; 3],
}

/// The values a probe names for the places of its two test sets.
pub(super) type Predicted = [Vec<u32>; 2];

/// Runs `work` for `0..n` on threads, counting finished items as units of the stage.
pub(super) fn each<T: Send>(
    threads: usize,
    n: usize,
    watch: &mut Watch<'_>,
    work: impl Fn(usize) -> Result<T, VlmError> + Sync,
) -> Result<Vec<T>, VlmError> {
    let shared = Mutex::new(watch);
    let lock = || shared.lock().unwrap_or_else(|e| e.into_inner());
    let results = workers::each(threads, n, &|| lock().stopped(), |i| {
        let result = work(i)?;
        lock().advance(1);
        Ok::<_, VlmError>(result)
    })?;
    results.ok_or_else(cancelled)
}

/// Fits and tests every task at every hook of one model whose states of the three sets are given; by hook, then task. A task
/// without a state to fit on gives nothing.
pub(super) fn run(
    sets: &[States; 3],
    tasks: &[Task],
    threads: usize,
    watch: &mut Watch<'_>,
) -> Result<Vec<Vec<Option<Predicted>>>, VlmError> {
    let hooks = sets[0].hooks.len();
    let fit = |i: usize| -> Result<Option<Predicted>, VlmError> {
        let (hook, task) = (i / tasks.len(), &tasks[i % tasks.len()]);
        let [fitted, unseen, held_out] = &task.sets;
        if fitted.labels.is_empty() {
            return Ok(None);
        }
        let rows = |set: usize, places: &Labelled| sets[set].rows(hook, &places.places);
        let model = Logistic::fit(&rows(0, fitted), sets[0].dim, &fitted.labels, task.classes)?;
        Ok(Some([model.predict(&rows(1, unseen))?, model.predict(&rows(2, held_out))?]))
    };
    let mut all = each(threads, hooks * tasks.len(), watch, fit)?.into_iter();
    Ok((0..hooks).map(|_| all.by_ref().take(tasks.len()).collect()).collect())
}

/// The scores of one task at one hook on its two test sets.
pub(super) fn scores(task: &Task, trained: &Predicted, untrained: &Predicted) -> [Option<ProbeScore>; 2] {
    [0, 1].map(|i| {
        let set = &task.sets[i + 1];
        (!set.labels.is_empty()).then(|| ProbeScore {
            accuracy: set.accuracy(&trained[i]),
            chance: set.chance(task.classes),
            untrained: set.accuracy(&untrained[i]),
            count: set.labels.len(),
        })
    })
}
