//! What the mini backbone is and how it is trained: every number that decides the result.

use crate::config::{ModelConfig, TextConfig, VisionConfig};
use crate::family::Family;
use crate::mini_training::tokens::{END, vocab_size};
use lucid_data::scenes::{Canvas, ConceptKind, Crowd, Level, SceneOptions, Wording};
use serde::{Deserialize, Serialize};

/// One kind of picture in a stage's batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// How its scenes are drawn.
    pub scenes: SceneOptions,
    /// Pictures of this kind in a batch; a multiple of twice the family size, as a batch is computed in two halves.
    pub count: usize,
    /// Patches of each picture that the model sees; fewer than the picture has saves time.
    pub patches: usize,
    /// The kind of word that their false captions change first.
    #[serde(default)]
    pub false_first: Option<ConceptKind>,
    /// A word of their false captions that is replaced becomes one of another object, where there is one
    /// ([`lucid_data::scenes::Falsehoods`]).
    #[serde(default)]
    pub misplaced: bool,
}

/// A stretch of training on one mixture of pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// For the log.
    pub name: String,
    /// Number of steps.
    pub steps: u64,
    /// The mixture.
    pub parts: Vec<Part>,
    /// Weight of the loss that ranks a picture's own caption above its false ones.
    pub rank_weight: f64,
}

/// A stretch of the learning rate: a warm-up, the peak, and half a cosine down to a hundredth of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    /// Number of steps.
    pub steps: u64,
    /// Learning rate between warm-up and fall.
    pub peak: f64,
    /// Last steps, over which the rate falls.
    pub decay: u64,
}

/// Everything that decides the trained weights, apart from the instruction set that computes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Shape of the model.
    pub config: ModelConfig,
    /// Seed of the initial parameters, of the scenes and of the patches seen.
    pub seed: u64,
    /// Steps of linear warm-up at the start of each cycle.
    pub warmup: u64,
    /// The learning rate, cycle after cycle: warm restarts (Loshchilov and Hutter 2017). Steps after the last are at its end.
    pub cycles: Vec<Cycle>,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// Matrices of the blocks move by orthogonalised momentum (Muon) rather than AdamW.
    pub muon: bool,
    /// Largest norm of the whole gradient.
    pub clip: f64,
    /// Weight of the bag-of-words loss.
    pub bag_weight: f64,
    /// Weight of the loss of word pairs ([`crate::mini_training::word_pairs`]); 0 leaves it out.
    #[serde(default)]
    pub word_pair_weight: f64,
    /// Weight of the local loss ([`crate::mini_training::local`]); 0 leaves it out.
    #[serde(default)]
    pub local_weight: f64,
    /// False captions of each picture ([`lucid_data::scenes::false_captions`]).
    pub negatives: usize,
    /// Initial logit scale (before its logarithm) and bias: SigLIP's 10 and −10 are made for batches of 32,768.
    pub logit_scale: f64,
    /// See `logit_scale`.
    pub logit_bias: f64,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

impl Recipe {
    /// Number of steps of all stages.
    pub fn steps(&self) -> u64 {
        self.stages.iter().map(|s| s.steps).sum()
    }

    /// The stage that step `step` belongs to.
    pub fn stage(&self, mut step: u64) -> &Stage {
        for stage in &self.stages {
            if step < stage.steps {
                return stage;
            }
            step -= stage.steps;
        }
        &self.stages[self.stages.len() - 1]
    }

    /// Learning rate of step `step`.
    pub fn rate(&self, mut step: u64) -> f64 {
        let last = self.cycles.len().saturating_sub(1);
        for cycle in &self.cycles[..last] {
            if step < cycle.steps {
                return cycle.rate(step, self.warmup);
            }
            step -= cycle.steps;
        }
        self.cycles.get(last).map_or(0.0, |cycle| cycle.rate(step, self.warmup))
    }
}

impl Cycle {
    /// Learning rate of the cycle's step `step`.
    fn rate(&self, step: u64, warmup: u64) -> f64 {
        let left = self.steps.saturating_sub(step);
        let warm = ((step + 1) as f64 / warmup.max(1) as f64).min(1.0);
        let fall = if left >= self.decay {
            1.0
        } else {
            0.01 + 0.99 * 0.5 * (1.0 - (std::f64::consts::PI * left as f64 / self.decay as f64).cos())
        };
        self.peak * warm * fall
    }
}

/// Single objects: a quarter of a scene, all of its patches.
fn singles(level: Level, count: usize) -> Part {
    let scenes =
        SceneOptions { family: 8, canvas: Canvas::Single, level, wording: Wording::Full, ..SceneOptions::default() };
    Part { scenes, count, patches: 49, false_first: None, misplaced: false }
}

/// Scenes of a crowd, `patches` of the 196 patches of each.
fn scenes(crowd: Crowd, level: Level, count: usize, patches: usize) -> Part {
    Part {
        scenes: SceneOptions { family: 8, crowd, level, ..SceneOptions::default() },
        count,
        patches,
        false_first: None,
        misplaced: false,
    }
}

impl Part {
    fn falsified(self, first: ConceptKind) -> Self {
        Self { false_first: Some(first), ..self }
    }

    fn misplaced(self) -> Self {
        Self { misplaced: true, ..self }
    }
}

/// Shape of the embedded backbone: width 96, four image blocks, three text blocks.
pub fn mini_config() -> ModelConfig {
    ModelConfig {
        model_type: Family::Siglip,
        text_config: TextConfig {
            hidden_size: 96,
            intermediate_size: 384,
            num_hidden_layers: 3,
            num_attention_heads: 3,
            vocab_size: vocab_size(),
            max_position_embeddings: 24,
            pad_token_id: END,
            projection_size: Some(96),
            ..TextConfig::default()
        },
        vision_config: VisionConfig {
            hidden_size: 96,
            intermediate_size: 384,
            num_hidden_layers: 4,
            num_attention_heads: 3,
            image_size: 112,
            patch_size: 8,
            ..VisionConfig::default()
        },
        projection_dim: None,
    }
}

/// The recipe of the committed checkpoint.
pub fn mini() -> Recipe {
    use ConceptKind::{Count, Pattern, Relation, Size};
    use Level::{Easy, Full};
    let any = |patches, first| scenes(Crowd::Any, Full, 16, patches).falsified(first);
    // `patches` of the 196 of each picture, beside a few single objects.
    let related_and_counted = |patches| {
        vec![
            singles(Full, 16).falsified(Size),
            scenes(Crowd::Pair, Full, 16, patches).falsified(Relation),
            scenes(Crowd::Group, Full, 16, patches).falsified(Count),
            any(patches, Size),
        ]
    };
    let with_easy_pairs = || {
        let mut parts = related_and_counted(98);
        parts.insert(1, scenes(Crowd::Pair, Easy, 16, 98).falsified(Relation));
        parts
    };
    let words_of_others = || {
        vec![
            singles(Full, 16).falsified(Size),
            scenes(Crowd::Pair, Full, 16, 196).falsified(Relation),
            scenes(Crowd::Group, Full, 16, 196).falsified(Count),
            scenes(Crowd::Any, Full, 32, 196).falsified(Size).misplaced(),
            any(196, Pattern).misplaced(),
        ]
    };
    let and = |mut parts: Vec<Part>, more| {
        parts.push(more);
        parts
    };
    let stage = |name: &str, steps, rank_weight, parts| Stage { name: name.into(), steps, rank_weight, parts };
    Recipe {
        config: mini_config(),
        seed: 1,
        warmup: 100,
        cycles: vec![Cycle { steps: 6600, peak: 2e-3, decay: 5300 }, Cycle { steps: 2400, peak: 8e-4, decay: 2300 }],
        weight_decay: 0.02,
        muon: true,
        clip: 1.0,
        bag_weight: 1.0,
        word_pair_weight: 1.0,
        local_weight: 1.0,
        negatives: 2,
        logit_scale: 10.0,
        logit_bias: -5.0,
        stages: vec![
            stage("single objects, easy", 200, 1.0, vec![singles(Easy, 128)]),
            stage("single objects, mixed", 200, 1.0, vec![singles(Easy, 32), singles(Full, 96)]),
            stage("pairs, groups and scenes, half the patches", 500, 1.0, with_easy_pairs()),
            stage("false captions weigh four times", 2900, 4.0, and(with_easy_pairs(), any(98, Pattern))),
            stage("whole scenes", 2800, 4.0, and(related_and_counted(196), any(196, Pattern))),
            stage("words of other objects", 2400, 8.0, words_of_others()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_stays_and_falls_in_every_cycle() {
        let cycles = vec![Cycle { steps: 10, peak: 2.0, decay: 4 }, Cycle { steps: 6, peak: 1.0, decay: 2 }];
        let recipe = Recipe { warmup: 2, cycles, ..mini() };
        let rates: Vec<f64> = (0..18).map(|step| recipe.rate(step)).collect();
        // Left of the fall: 4, 3, 2, 1 quarters of half a cosine, from the peak towards a hundredth of it.
        let half = |share: f64| 0.01 + 0.99 * 0.5 * (1.0 - (std::f64::consts::PI * share).cos());
        let first = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0 * half(0.75), 2.0 * half(0.5), 2.0 * half(0.25)];
        let second = [0.5, 1.0, 1.0, 1.0, 1.0, half(0.5)];
        assert_eq!(rates[..10], first);
        assert_eq!(rates[10..16], second);
        // Past the end: where the fall ends.
        assert_eq!(rates[16..], [half(0.0); 2]);
    }

    #[test]
    fn the_cycles_of_the_recipe_are_as_long_as_its_stages() {
        let recipe = mini();
        assert_eq!(recipe.cycles.iter().map(|cycle| cycle.steps).sum::<u64>(), recipe.steps());
    }
}
