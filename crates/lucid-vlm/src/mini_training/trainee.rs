//! The parameters under training and the model built over them.

use crate::error::VlmError;
use crate::mini_training::initial;
use crate::mini_training::recipe::Recipe;
use crate::mini_training::tokens::naming_words;
use crate::model::DualEncoder;
use crate::weights::{TensorMap, expected_shapes};
use candle_core::{Device, Result, Tensor, Var};

/// A parameter.
pub struct Parameter {
    /// Name in the checkpoint; those that only losses use start with `bag.`, `word_pairs.` or `local.`.
    pub name: String,
    /// Its values, shared with the model.
    pub var: Var,
}

impl Parameter {
    /// Only a loss uses it: no part of the checkpoint.
    pub fn is_auxiliary(&self) -> bool {
        ["bag.", "word_pairs.", "local."].iter().any(|prefix| self.name.starts_with(prefix))
    }
}

/// Parameters in a fixed order, and the model that reads them.
pub struct Trainee {
    /// Those of [`expected_shapes`], then the weight [V, d] and bias [V] of the bag-of-words head, the two tables [words, d + 1] of
    /// the word pairs, and the weight [d, d] and scale [1] of the local loss.
    pub parameters: Vec<Parameter>,
    /// The forward pass over them.
    pub model: DualEncoder,
}

impl Trainee {
    /// Fresh parameters of `recipe`.
    pub fn new(recipe: &Recipe) -> std::result::Result<Self, VlmError> {
        let mut shapes = expected_shapes(&recipe.config);
        let (words, d) = (recipe.config.text_config.vocab_size, recipe.config.vision_config.hidden_size);
        shapes.push(("bag.weight".into(), vec![words, d]));
        shapes.push(("bag.bias".into(), vec![words]));
        for table in ["word_pairs.first", "word_pairs.second"] {
            shapes.push((table.into(), vec![naming_words::count(), d + 1]));
        }
        shapes.push(("local.weight".into(), vec![d, recipe.config.text_config.hidden_size]));
        shapes.push(("local.scale".into(), vec![1]));
        let mut parameters = Vec::with_capacity(shapes.len());
        let logit = [recipe.logit_scale, recipe.logit_bias];
        for (name, tensor) in initial::tensors(shapes, &recipe.config, logit, recipe.seed)? {
            parameters.push(Parameter { name, var: Var::from_tensor(&tensor)? });
        }
        let tensors: TensorMap = parameters
            .iter()
            .filter(|p| !p.is_auxiliary())
            .map(|p| (p.name.clone(), p.var.as_tensor().clone()))
            .collect();
        let model = DualEncoder::new(&recipe.config, &tensors)?;
        Ok(Self { parameters, model })
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Result<&Var> {
        let found = self.parameters.iter().find(|p| p.name == name).map(|p| &p.var);
        found.ok_or_else(|| candle_core::Error::Msg(format!("no parameter {name}")))
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
