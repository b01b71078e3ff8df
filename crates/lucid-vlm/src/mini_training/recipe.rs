//! What the mini backbone is and how it is trained: every number that decides the result.

use crate::config::{SiglipConfig, TextConfig, VisionConfig};
use crate::mini_training::tokens::{END, vocab_size};
use lucid_data::scenes::{Canvas, Crowd, Level, SceneOptions, Split, Wording};
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
}

/// Everything that decides the trained weights, apart from the instruction set that computes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Shape of the model.
    pub config: SiglipConfig,
    /// Seed of the initial parameters, of the scenes and of the patches seen.
    pub seed: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Last steps over which the learning rate falls along half a cosine to a hundredth; it is constant before.
    pub decay: u64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// Matrices of the blocks move by orthogonalised momentum (Muon) rather than AdamW.
    pub muon: bool,
    /// Largest norm of the whole gradient.
    pub clip: f64,
    /// Weight of the bag-of-words loss.
    pub bag_weight: f64,
    /// False captions of each picture ([`lucid_data::scenes::false_captions`]).
    pub negatives: usize,
    /// Weight of the loss that ranks a picture's own caption above its false ones.
    pub rank_weight: f64,
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
    pub fn rate(&self, step: u64) -> f64 {
        let left = self.steps().saturating_sub(step);
        let warm = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let fall = if left >= self.decay {
            1.0
        } else {
            0.01 + 0.99 * 0.5 * (1.0 - (std::f64::consts::PI * left as f64 / self.decay as f64).cos())
        };
        self.learning_rate * warm * fall
    }
}

const TRAIN: SceneOptions = SceneOptions {
    split: Split::Train,
    family: 1,
    canvas: Canvas::Scene,
    level: Level::Full,
    wording: Wording::Optional,
    crowd: Crowd::Any,
};

fn singles(level: Level, count: usize) -> Part {
    let scenes = SceneOptions { family: 8, canvas: Canvas::Single, level, wording: Wording::Full, ..TRAIN };
    Part { scenes, count, patches: 49 }
}

fn scenes(crowd: Crowd, count: usize, patches: usize) -> Part {
    Part { scenes: SceneOptions { family: 8, crowd, ..TRAIN }, count, patches }
}

/// Shape of the embedded backbone: width 96, four image blocks, three text blocks.
pub fn mini_config() -> SiglipConfig {
    SiglipConfig {
        model_type: "siglip".into(),
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
    }
}

/// The recipe of the committed checkpoint.
pub fn mini() -> Recipe {
    let stage = |name: &str, steps, parts| Stage { name: name.into(), steps, parts };
    Recipe {
        config: mini_config(),
        seed: 1,
        learning_rate: 2e-3,
        warmup: 100,
        decay: 400,
        weight_decay: 0.02,
        muon: true,
        clip: 1.0,
        bag_weight: 1.0,
        negatives: 2,
        rank_weight: 1.0,
        logit_scale: 10.0,
        logit_bias: -5.0,
        stages: vec![
            stage("single objects, easy", 400, vec![singles(Level::Easy, 128)]),
            stage("single objects, mixed", 700, vec![singles(Level::Easy, 32), singles(Level::Full, 96)]),
            stage("scenes, half the patches", 550, vec![singles(Level::Full, 16), scenes(Crowd::Any, 48, 98)]),
            stage("scenes", 180, vec![singles(Level::Full, 16), scenes(Crowd::Any, 48, 196)]),
        ],
    }
}
