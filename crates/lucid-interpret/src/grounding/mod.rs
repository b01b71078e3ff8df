//! Grounding: where a caption's heat lies against boxes (spec 6).
//!
//! Every number stands beside the controls `uniform`, `centre`, `shuffledCaption` and `oracle`: boxes are large and
//! central, so a map that knows nothing already scores.

pub mod geometry;
pub mod heat;
pub mod mask;
pub mod queries;
pub mod score;

use std::collections::BTreeMap;

use lucid_data::store::AnnotatedSource;

use crate::coder::{PairPlan, SparseCodes};
use crate::evaluation::{Grounding, GroundingControls, GroundingScore};
use crate::exact_sum::ExactMean;
use heat::{Asking, HeatMap, heat};
use mask::Mask;
use queries::{TargetMode, queries, whole_caption};
use score::best_of;

/// A caption against an image: plan and codes.
pub(crate) struct Matched<'a> {
    pub plan: &'a PairPlan,
    pub vision: &'a SparseCodes,
    pub text: &'a SparseCodes,
}

/// Scores of one query.
struct Asked {
    mode: TargetMode,
    uniform: GroundingScore,
    centre: GroundingScore,
    oracle: GroundingScore,
    maps: Vec<AskedMap>,
}

struct AskedMap {
    map: HeatMap,
    score: GroundingScore,
    empty: bool,
    shuffled: Option<GroundingScore>,
}

/// Scores of one pair.
#[derive(Default)]
pub(crate) struct PairGrounding {
    asked: Vec<Asked>,
}

impl PairGrounding {
    /// Every score with its place in the evaluation, and what it is above that of another caption.
    pub(crate) fn for_each(&self, part: &str, mut each: impl FnMut(&str, f64)) {
        for asked in &self.asked {
            for of_map in &asked.maps {
                let place = format!("{part}.{}.{}", of_map.map.name(), asked.mode.name());
                let named = |score: &GroundingScore| {
                    [("massAtObj", score.mass_at_obj), ("pointAt1", score.point_at1), ("iouAt10", score.iou_at10)]
                };
                for (name, value) in named(&of_map.score) {
                    each(&format!("{place}.{name}"), value);
                }
                if let Some(shuffled) = &of_map.shuffled {
                    for ((name, own), (_, other)) in named(&of_map.score).into_iter().zip(named(shuffled)) {
                        each(&format!("{place}.aboveShuffled.{name}"), own - other);
                    }
                }
            }
        }
    }
}

/// Asks everything of one pair. `wrong` is the pair whose caption is the wrong one, matched against this image; a
/// phrase or category then asks with a phrase or category of the wrong caption where it has one, with all of it else. `masks` stand in for the
/// boxes, one for each.
pub(crate) fn ground_pair(
    source: &dyn AnnotatedSource,
    pair: usize,
    masks: Option<&[Mask]>,
    modes: &[TargetMode],
    maps: &[HeatMap],
    right: &Matched,
    wrong: Option<(usize, &Matched)>,
) -> PairGrounding {
    let mut result = PairGrounding::default();
    let tokens = source.text_tokens(pair, 0);
    for &mode in modes {
        let questions = queries(mode, source.info(pair), masks, &tokens);
        if questions.is_empty() {
            continue;
        }
        let wrong_asking = wrong.map(|(other, matched)| (asking_of_wrong(source, other, mode), matched));
        for (number, query) in questions.iter().enumerate() {
            let score = |heat: &[f64]| best_of(&query.targets, |target| target.score(heat));
            let even = vec![1.0; query.targets[0].cells()];
            let of_map = |&map: &HeatMap| {
                let own = heat(map, right.plan, right.vision, right.text, &query.asking);
                let shuffled = wrong_asking.as_ref().map(|(asking, matched)| {
                    score(&heat(map, matched.plan, matched.vision, matched.text, &asking[number % asking.len()]))
                });
                AskedMap { map, score: score(&own), empty: !own.iter().any(|&h| h > 0.0), shuffled }
            };
            result.asked.push(Asked {
                mode,
                uniform: score(&even),
                centre: best_of(&query.targets, score::Target::score_of_centre),
                oracle: best_of(&query.targets, score::Target::score_of_oracle),
                maps: maps.iter().map(of_map).collect(),
            });
        }
    }
    result
}

/// What a wrong caption asks with: never empty.
fn asking_of_wrong(source: &dyn AnnotatedSource, other: usize, mode: TargetMode) -> Vec<Asking> {
    let tokens = source.text_tokens(other, 0);
    let questions = match mode {
        TargetMode::Category | TargetMode::Phrase => queries(mode, source.info(other), None, &tokens),
        TargetMode::Union | TargetMode::Largest | TargetMode::Best => Vec::new(),
    };
    if questions.is_empty() { vec![whole_caption(&tokens)] } else { questions.into_iter().map(|q| q.asking).collect() }
}

#[derive(Default)]
struct MeanScore {
    mass: ExactMean,
    point: ExactMean,
    iou: ExactMean,
}

impl MeanScore {
    fn add(&mut self, score: &GroundingScore) {
        self.mass.add(score.mass_at_obj);
        self.point.add(score.point_at1);
        self.iou.add(score.iou_at10);
    }

    fn finish(&self) -> Option<GroundingScore> {
        Some(GroundingScore {
            mass_at_obj: self.mass.value()?,
            point_at1: self.point.value()?,
            iou_at10: self.iou.value()?,
        })
    }
}

#[derive(Default)]
struct ModeTotal {
    images: u64,
    queries: u64,
    uniform: MeanScore,
    centre: MeanScore,
    oracle: MeanScore,
    maps: BTreeMap<HeatMap, MapTotal>,
}

#[derive(Default)]
struct MapTotal {
    score: MeanScore,
    shuffled: MeanScore,
    empty: u64,
}

/// Means over all queries.
#[derive(Default)]
pub(crate) struct GroundingTotal {
    modes: BTreeMap<TargetMode, ModeTotal>,
}

impl GroundingTotal {
    pub(crate) fn add(&mut self, pair: &PairGrounding) {
        let mut last = None;
        for asked in &pair.asked {
            let mode = self.modes.entry(asked.mode).or_default();
            // A pair's queries of one mode are neighbours.
            mode.images += u64::from(last != Some(asked.mode));
            last = Some(asked.mode);
            mode.queries += 1;
            mode.uniform.add(&asked.uniform);
            mode.centre.add(&asked.centre);
            mode.oracle.add(&asked.oracle);
            for of_map in &asked.maps {
                let total = mode.maps.entry(of_map.map).or_default();
                total.score.add(&of_map.score);
                total.empty += u64::from(of_map.empty);
                if let Some(shuffled) = &of_map.shuffled {
                    total.shuffled.add(shuffled);
                }
            }
        }
    }

    /// Whether anything was asked under a mode.
    pub(crate) fn has(&self, mode: TargetMode) -> bool {
        self.modes.contains_key(&mode)
    }

    /// Map → target → scores.
    pub(crate) fn finish(&self) -> BTreeMap<String, BTreeMap<String, Grounding>> {
        let mut result: BTreeMap<String, BTreeMap<String, Grounding>> = BTreeMap::new();
        for (mode, total) in &self.modes {
            let controls = (total.uniform.finish(), total.centre.finish(), total.oracle.finish());
            let (Some(uniform), Some(centre), Some(oracle)) = controls else { continue };
            for (map, of_map) in &total.maps {
                let Some(score) = of_map.score.finish() else { continue };
                let controls =
                    GroundingControls { uniform, centre, shuffled_caption: of_map.shuffled.finish(), oracle };
                let grounding = Grounding {
                    score,
                    images: total.images,
                    queries: total.queries,
                    empty_maps: of_map.empty,
                    controls,
                };
                result.entry(map.name().into()).or_default().insert(mode.name().into(), grounding);
            }
        }
        result
    }
}
