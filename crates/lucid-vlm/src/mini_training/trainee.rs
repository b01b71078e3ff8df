//! The parameters under training and the model built over them.

use crate::error::VlmError;
use crate::mini_training::recipe::Recipe;
use crate::siglip::Siglip;
use crate::weights::{TensorMap, expected_shapes};
use candle_core::{Device, Result, Tensor, Var};
use lucid_data::scenes::Stream;

/// A parameter.
pub struct Parameter {
    /// Name in the checkpoint; the two of the bag-of-words head start with `bag.`.
    pub name: String,
    /// Its values, shared with the model.
    pub var: Var,
}

/// Parameters in a fixed order, and the model that reads them.
pub struct Trainee {
    /// Those of [`expected_shapes`], then the weight [V, d] and bias [V] of the bag-of-words head.
    pub parameters: Vec<Parameter>,
    /// The forward pass over them.
    pub model: Siglip,
}

/// About normal: the sum of twelve uniform numbers, without a call to a transcendental function.
fn normal(stream: &mut Stream) -> f32 {
    (0..12).map(|_| stream.unit()).sum::<f32>() - 6.0
}

/// Sine and cosine of one coordinate: `width` values of wavelengths from 2π to about 2π · 100.
fn waves(at: usize, width: usize) -> impl Iterator<Item = f32> {
    let frequencies = width / 2;
    (0..width).map(move |k| {
        let frequency = 100f64.powf(-((k % frequencies) as f64) / frequencies as f64);
        let phase = at as f64 * frequency;
        (if k < frequencies { phase.sin() } else { phase.cos() }) as f32
    })
}

/// Initial values of one tensor.
fn initial(name: &str, shape: &[usize], recipe: &Recipe, stream: &mut Stream) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let mut scaled = |deviation: f32| (0..count).map(|_| normal(stream) * deviation).collect::<Vec<f32>>();
    let fan_in: usize = shape[1..].iter().product();
    let d = shape[shape.len() - 1];
    match name {
        "logit_scale" => vec![recipe.logit_scale.ln() as f32],
        "logit_bias" => vec![recipe.logit_bias as f32],
        "vision_model.embeddings.position_embedding.weight" => {
            let side = recipe.config.vision_config.side();
            let row = |p: usize| waves(p / side, d / 2).chain(waves(p % side, d / 2));
            (0..shape[0]).flat_map(row).map(|v| 0.5 * v).collect()
        }
        "text_model.embeddings.position_embedding.weight" => {
            (0..shape[0]).flat_map(|p| waves(p, d)).map(|v| 0.3 * v).collect()
        }
        "text_model.embeddings.token_embedding.weight" => scaled(0.5),
        "vision_model.head.probe" => scaled(1.0),
        "bag.weight" => vec![0.0; count],
        _ if name.ends_with(".bias") || name.ends_with("in_proj_bias") => vec![0.0; count],
        _ if name.contains("norm") => vec![1.0; count],
        // The ends of the residual branches start small, so that the stream keeps its scale over the blocks.
        _ if name.ends_with("out_proj.weight") || name.ends_with("fc2.weight") => scaled((0.25 / fan_in as f32).sqrt()),
        _ => scaled((1.0 / fan_in as f32).sqrt()),
    }
}

impl Trainee {
    /// Fresh parameters of `recipe`.
    pub fn new(recipe: &Recipe) -> std::result::Result<Self, VlmError> {
        let mut shapes = expected_shapes(&recipe.config);
        let (words, d) = (recipe.config.text_config.vocab_size, recipe.config.vision_config.hidden_size);
        shapes.push(("bag.weight".into(), vec![words, d]));
        shapes.push(("bag.bias".into(), vec![words]));
        let mut parameters = Vec::with_capacity(shapes.len());
        for (number, (name, shape)) in shapes.into_iter().enumerate() {
            let mut stream = Stream::new(recipe.seed, number as u64, 0x1417);
            let values = initial(&name, &shape, recipe, &mut stream);
            let var = Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?;
            parameters.push(Parameter { name, var });
        }
        let tensors: TensorMap = parameters
            .iter()
            .filter(|p| !p.name.starts_with("bag."))
            .map(|p| (p.name.clone(), p.var.as_tensor().clone()))
            .collect();
        let model = Siglip::new(&recipe.config, &tensors)?;
        Ok(Self { parameters, model })
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.parameters.iter().find(|p| p.name == name).map(|p| &p.var)
    }

    /// The values of parameter `i`.
    pub fn values(&self, i: usize) -> Result<Vec<f32>> {
        self.parameters[i].var.flatten_all()?.to_vec1()
    }

    /// Replaces the values of parameter `i`; the model sees them at once.
    pub fn set(&self, i: usize, values: Vec<f32>) -> Result<()> {
        let var = &self.parameters[i].var;
        var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)
    }
}
