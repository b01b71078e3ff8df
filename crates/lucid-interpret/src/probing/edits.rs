//! Causal edits: which latents move when one concept of a picture is put in the place of another.

use std::collections::BTreeMap;

use super::classes::best_latents;
use super::pooled::{Code, Set};
use super::result::{EditControl, EditScore};
use crate::recovery::truth::TruthConcept;

/// What one edit adds to the means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct EditParts {
    pub row: usize,
    pub rises: bool,
    pub falls: bool,
    pub on_target: f64,
}

/// z after − z before, by rising latent.
fn movement(before: &Code, after: &Code) -> Code {
    let mut moved: BTreeMap<u32, f64> = after.iter().copied().collect();
    before.iter().for_each(|&(latent, value)| *moved.entry(latent).or_default() -= value);
    moved.into_iter().filter(|&(_, by)| by != 0.0).collect()
}

fn parts(row: usize, moved: &Code, [old, new]: [Option<u32>; 2]) -> EditParts {
    let extreme = |sign: f64| {
        let most = moved.iter().fold(None, |most: Option<(u32, f64)>, &(latent, by)| match most {
            Some((_, value)) if sign * by <= value => most,
            _ => Some((latent, sign * by)),
        });
        most.filter(|&(_, value)| value > 0.0).map(|(latent, _)| latent)
    };
    let total: f64 = moved.iter().map(|(_, by)| by.abs()).sum();
    let two: f64 = moved.iter().filter(|&&(l, _)| Some(l) == old || Some(l) == new).map(|(_, by)| by.abs()).sum();
    EditParts {
        row,
        rises: new.is_some() && extreme(1.0) == new,
        falls: old.is_some() && extreme(-1.0) == old,
        on_target: if total > 0.0 { two / total } else { 0.0 },
    }
}

/// Kind, and `all` → score and parts. Concepts whose latents are known by the fitted set.
pub(super) fn score(concepts: &[TruthConcept], fit: &Set, test: &Set) -> BTreeMap<String, (EditScore, Vec<EditParts>)> {
    let latents = best_latents(&fit.vision, concepts.len());
    let both = |of: [u32; 2]| of.map(|concept| latents[concept as usize]);
    let mut by_kind: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, &(_, _, [old, _])) in test.edits.iter().enumerate() {
        by_kind.entry(&concepts[old as usize].kind).or_default().push(at);
    }
    let mut found: BTreeMap<String, (Vec<EditParts>, Vec<EditParts>)> = BTreeMap::new();
    for (kind, edits) in by_kind {
        for (at, &edit) in edits.iter().enumerate() {
            let (before, after, of) = test.edits[edit];
            let moved = movement(&test.vision.codes[before], &test.vision.codes[after]);
            let other = test.edits[edits[(at + 1) % edits.len()]].2;
            let (own, control) = (parts(after, &moved, both(of)), parts(after, &moved, both(other)));
            for name in [kind, "all"] {
                let (right, wrong) = found.entry(name.to_owned()).or_default();
                right.push(own);
                wrong.push(control);
            }
        }
    }
    let mean = |parts: &[EditParts]| {
        let mean = |of: &dyn Fn(&EditParts) -> f64| parts.iter().map(of).sum::<f64>() / parts.len() as f64;
        EditControl {
            rises: mean(&|p| f64::from(u8::from(p.rises))),
            falls: mean(&|p| f64::from(u8::from(p.falls))),
            on_target: mean(&|p| p.on_target),
        }
    };
    let finish = |(kind, (own, control)): (String, (Vec<EditParts>, Vec<EditParts>))| {
        let EditControl { rises, falls, on_target } = mean(&own);
        let score = EditScore { edits: own.len() as u64, rises, falls, on_target, shuffled: mean(&control) };
        (kind, (score, own))
    };
    found.into_iter().map(finish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movement_by_hand() {
        let moved = movement(&vec![(1, 2.0), (3, 1.0)], &vec![(2, 1.5), (3, 1.0), (4, 0.5)]);
        assert_eq!(moved, [(1, -2.0), (2, 1.5), (4, 0.5)]);
        let right = parts(9, &moved, [Some(1), Some(2)]);
        assert_eq!(right, EditParts { row: 9, rises: true, falls: true, on_target: 3.5 / 4.0 });
        let swapped = parts(9, &moved, [Some(2), Some(1)]);
        assert!(!swapped.rises && !swapped.falls);
        assert_eq!(
            parts(0, &Vec::new(), [Some(1), None]),
            EditParts { row: 0, rises: false, falls: false, on_target: 0.0 }
        );
    }
}
