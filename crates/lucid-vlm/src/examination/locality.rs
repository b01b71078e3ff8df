//! Locality: whether a patch's state tells that the patch itself shows an object.

use serde::Serialize;

/// What the precision of the best hook is meant to reach.
pub(super) const GOAL: f64 = 0.9;

/// Precision and recall of "this patch shows an object".
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detection {
    /// Share of the patches called object that are; absent where none was called so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Share of the object patches that are called so; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
}

/// The probe for object or not at one hook, on unseen scenes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// Where in the image tower.
    pub hook: String,
    /// Precision and recall.
    #[serde(flatten)]
    pub detection: Detection,
    /// Precision of calling patches object at random: the share of object patches.
    pub chance: f64,
    /// The same probe of the untrained backbone.
    pub untrained: Detection,
    /// Number of patches.
    pub count: usize,
    /// What the precision of the best hook is meant to reach.
    pub goal: f64,
}

fn detection(labels: &[u32], predicted: &[u32]) -> Detection {
    let count = |f: &dyn Fn(u32, u32) -> bool| labels.iter().zip(predicted).filter(|(l, p)| f(**l, **p)).count();
    let ratio = |part: usize, all: usize| (all > 0).then(|| part as f64 / all as f64);
    let both = count(&|l, p| l == 1 && p == 1);
    Detection { precision: ratio(both, count(&|_, p| p == 1)), recall: ratio(both, count(&|l, _| l == 1)) }
}

/// Compares predictions of both backbones with the truth (1 for object); `None` without a patch.
pub(super) fn locality(hook: String, labels: &[u32], trained: &[u32], untrained: &[u32]) -> Option<Locality> {
    let objects = labels.iter().filter(|&&l| l == 1).count();
    (!labels.is_empty()).then(|| Locality {
        hook,
        detection: detection(labels, trained),
        chance: objects as f64 / labels.len() as f64,
        untrained: detection(labels, untrained),
        count: labels.len(),
        goal: GOAL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_are_what_their_names_say() {
        let found = locality("h".into(), &[1, 1, 1, 0, 0], &[1, 1, 0, 1, 0], &[0; 5]).unwrap();
        assert_eq!(found.detection, Detection { precision: Some(2.0 / 3.0), recall: Some(2.0 / 3.0) });
        assert_eq!(found.untrained, Detection { precision: None, recall: Some(0.0) });
        assert_eq!((found.chance, found.count), (0.6, 5));
        assert!(locality("h".into(), &[], &[], &[]).is_none());
    }
}
