//! Whether a checkpoint is what it seems and computes here what it should: its shape, and a self-test on a built-in picture and text.

use crate::backbone::Backbone;
use crate::error::VlmError;
use crate::hook::Tower;
use crate::model::DualEncoder;
use crate::weights::TensorMap;
use candle_core::{DType, Device, Tensor};
use image::{Rgb, RgbImage};
use serde::Serialize;
use serde_json::{Value, json};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

/// What a checkup found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkup {
    /// What identifies the backbone in the files made with it.
    pub backbone: Value,
    /// Shapes of both towers, in the names of `config.json`.
    pub config: Value,
    /// Number of weights.
    pub parameters: usize,
    /// Hook names, defaults first in each tower.
    pub hooks: Vec<String>,
    /// Logit of the built-in picture (a red disc) with each text.
    pub logits: Vec<(String, f32)>,
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
}

impl Checkup {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// Texts of the self-test; the first fits the built-in picture.
const TEXTS: [&str; 2] = ["a red circle", "a blue square"];

/// The checkpoint with published logits, its texts and logits (transformers' integration test), and the photo's size.
const KNOWN: &str = "siglip-base-patch16-224";
const KNOWN_TEXTS: [&str; 2] = ["a photo of 2 cats", "a photo of 2 dogs"];
const KNOWN_LOGITS: [f32; 2] = [-0.7567, -10.3354];
const KNOWN_SIZE: (u32, u32) = (640, 480);
/// transformers asks 1e-3 of itself, from the same pixels; states are equal to PyTorch's to 1e-5 of the largest, and logits are a
/// hundred cosines.
const KNOWN_TOLERANCE: f32 = 5e-3;
/// Blocks of each tower that are computed a second time in f64: enough to meet every kind of step.
const REFERENCE_BLOCKS: usize = 2;

/// A red disc on white, wider than high: a processor that crops where it should squash, or the other way round, shows.
fn disc() -> RgbImage {
    RgbImage::from_fn(96, 64, |x, y| {
        let (dx, dy) = (f64::from(x) - 47.5, f64::from(y) - 31.5);
        if dx * dx + dy * dy < 500.0 { Rgb([220, 30, 30]) } else { Rgb([250, 250, 250]) }
    })
}

fn check(name: &str, passed: bool, found: impl ToString, expected: impl ToString) -> Check {
    Check { name: name.into(), passed, found: found.to_string(), expected: expected.to_string() }
}

/// Largest difference over the largest value of the reference.
fn relative(found: &Tensor, reference: &Tensor) -> Result<f64, VlmError> {
    let reference = reference.flatten_all()?.to_dtype(DType::F64)?;
    let most = reference.abs()?.max(0)?.to_scalar::<f64>()?;
    let found = found.flatten_all()?.to_dtype(DType::F64)?;
    let worst = (found - reference)?.abs()?.max(0)?.to_scalar::<f64>()?;
    Ok(worst / most.max(f64::MIN_POSITIVE))
}

impl Backbone {
    /// Looks a backbone over. `photo` is COCO's 000000039769.jpg (two cats), for the one checkpoint whose logits are published.
    ///
    /// # Errors
    /// `E_COMPUTE`, `E_TOKENIZER`, `E_IMAGE`; what is wrong with the backbone itself is in the checks.
    pub fn checkup(&self, photo: Option<&RgbImage>) -> Result<Checkup, VlmError> {
        let config = self.config();
        let mut checks = Vec::new();
        let picture = disc();

        let fitted = self.preprocessing().fitted(&picture)?;
        let patch = config.vision_config.patch_size as u32;
        let grid = [fitted.height() / patch, fitted.width() / patch];
        let mut finite = true;
        for hook in self.hooks_in_order(Tower::Vision) {
            let states = self.encode_images(std::slice::from_ref(&picture), &hook)?;
            finite &= states.grids == [grid] && states.states.iter().chain(&states.pooled).all(|v| v.is_finite());
        }
        for hook in self.hooks_in_order(Tower::Text) {
            let states = self.encode_texts(&TEXTS, &hook)?;
            finite &= states.states.iter().chain(&states.pooled).all(|v| v.is_finite());
        }
        let hooks = self.hooks();
        checks.push(check("states at every hook", finite, if finite { "finite" } else { "not finite" }, "finite"));

        let tokens = self.tokenizer().encode(TEXTS[0], true)?;
        checks.push(check(
            "the vocabulary knows the words",
            tokens.valid >= 3 && tokens.valid <= 12,
            format!("{} tokens {:?} for {:?}", tokens.valid, tokens.ids(), TEXTS[0]),
            "3 to 12 tokens",
        ));
        checks.push(check(
            "long captions are cut",
            self.tokenizer().encode(&"red circle ".repeat(2000), true)?.padded.len() == self.tokenizer().length(),
            format!("{} positions", self.tokenizer().length()),
            "every caption fills the positions exactly",
        ));

        for (tower, error) in
            [("image", self.reference_error(Tower::Vision)?), ("text", self.reference_error(Tower::Text)?)]
        {
            checks.push(check(
                &format!("{tower} tower, first blocks against f64"),
                error < 1e-4,
                format!("{error:.1e} relative"),
                "below 1e-4",
            ));
        }

        let mut logits = Vec::new();
        if config.vision_projection() > 0 {
            let images = self.encode_images(&[picture], "vision.post_ln")?;
            let texts = self.encode_texts(&TEXTS, "text.final_ln")?;
            logits = TEXTS.iter().map(|t| (*t).to_string()).zip(self.logits(&images, &texts)?).collect();
        }
        if let Some(photo) = photo {
            checks.push(self.published_logits(photo)?);
        }
        Ok(Checkup {
            backbone: self.provenance(),
            config: json!(config),
            parameters: crate::weights::expected_shapes(config).iter().map(|(_, s)| s.iter().product::<usize>()).sum(),
            hooks,
            logits,
            checks,
        })
    }

    /// The published logits of one checkpoint on one photo.
    fn published_logits(&self, photo: &RgbImage) -> Result<Check, VlmError> {
        let name = "published logits of COCO 000000039769";
        let known = self.id().split('@').next().is_some_and(|id| id.ends_with(KNOWN));
        if !known {
            let expected = format!("a checkpoint named {KNOWN}, the one whose logits are published");
            return Ok(check(name, false, format!("the backbone {:?}", self.id()), expected));
        }
        if photo.dimensions() != KNOWN_SIZE {
            let (w, h) = KNOWN_SIZE;
            return Ok(check(
                name,
                false,
                format!("a picture of {:?}", photo.dimensions()),
                format!("{w} × {h} pixels"),
            ));
        }
        let images = self.encode_images(std::slice::from_ref(photo), "vision.post_ln")?;
        let logits = self.logits(&images, &self.encode_texts(&KNOWN_TEXTS, "text.final_ln")?)?;
        let close = logits.iter().zip(KNOWN_LOGITS).all(|(a, b)| (a - b).abs() <= KNOWN_TOLERANCE);
        Ok(check(name, close, format!("{logits:?}"), format!("{KNOWN_LOGITS:?} within {KNOWN_TOLERANCE}")))
    }

    /// The first blocks of a tower in f32 as extraction runs them, against candle's elementary steps in f64.
    fn reference_error(&self, tower: Tower) -> Result<f64, VlmError> {
        let model = self.model();
        let run = |model: &DualEncoder, dtype: DType| -> Result<Tensor, VlmError> {
            Ok(match tower {
                Tower::Vision => {
                    let pixels = self.preprocessing().pixels(&self.preprocessing().fitted(&disc())?)?;
                    model
                        .vision(&pixels.unsqueeze(0)?.to_dtype(dtype)?, true)?
                        .blocks
                        .swap_remove(REFERENCE_BLOCKS.min(self.config().vision_config.num_hidden_layers) - 1)
                }
                Tower::Text => {
                    let tokens = self.tokenizer().encode(TEXTS[0], true)?;
                    let ids = Tensor::from_slice(&tokens.padded, (1, tokens.padded.len()), &Device::Cpu)?;
                    let blocks = model.text(&ids, true)?.blocks;
                    let last = REFERENCE_BLOCKS.min(blocks.len()) - 1;
                    // Pads that attend to nothing but themselves are kept by nobody.
                    blocks[last].narrow(1, tokens.start, tokens.valid)?
                }
            })
        };
        let mut config = self.config().clone();
        config.vision_config.num_hidden_layers = config.vision_config.num_hidden_layers.min(REFERENCE_BLOCKS);
        config.text_config.num_hidden_layers = config.text_config.num_hidden_layers.min(REFERENCE_BLOCKS);
        let wanted = crate::weights::expected_shapes(&config);
        let mut tensors = TensorMap::new();
        for (name, _) in wanted {
            let tensor = model.tensors().get(&name).ok_or_else(|| VlmError::Weights {
                tensor: name.clone(),
                found: "nothing".into(),
                expected: "a tensor of the loaded model".into(),
            })?;
            tensors.insert(name, tensor.to_dtype(DType::F64)?);
        }
        let reference = DualEncoder::new(&config, &tensors)?;
        relative(&run(model, DType::F32)?, &run(&reference, DType::F64)?)
    }
}
