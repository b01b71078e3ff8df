//! Parameters before training.

use crate::config::ModelConfig;
use candle_core::{Device, Result, Tensor};
use lucid_data::scenes::Stream;

/// About normal: the sum of twelve uniform numbers, without a call to a transcendental function.
fn normal(stream: &mut Stream) -> f32 {
    (0..12).map(|_| stream.unit()).sum::<f32>() - 6.0
}

/// Sine and cosine of one coordinate: `width` values of wavelengths from 2π to about 2π · 100.
fn waves(at: usize, width: usize) -> impl Iterator<Item = f32> {
    let frequencies = (width / 2).max(1);
    (0..width).map(move |k| {
        let frequency = 100f64.powf(-((k % frequencies) as f64) / frequencies as f64);
        let phase = at as f64 * frequency;
        (if k < frequencies { phase.sin() } else { phase.cos() }) as f32
    })
}

/// Initial values of one tensor; `logit` is the scale (before its logarithm) and the bias of the logits.
fn values(name: &str, shape: &[usize], config: &ModelConfig, logit: [f64; 2], stream: &mut Stream) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let mut scaled = |deviation: f32| (0..count).map(|_| normal(stream) * deviation).collect::<Vec<f32>>();
    let fan_in: usize = shape[1..].iter().product();
    let d = shape[shape.len() - 1];
    match name {
        "logit_scale" => vec![logit[0].ln() as f32],
        "logit_bias" => vec![logit[1] as f32],
        "vision_model.embeddings.position_embedding.weight" => {
            let side = config.vision_config.side();
            let row = |p: usize| waves(p / side, d / 2).chain(waves(p % side, d - d / 2));
            (0..shape[0]).flat_map(row).map(|v| 0.5 * v).collect()
        }
        "text_model.embeddings.position_embedding.weight" => {
            (0..shape[0]).flat_map(|p| waves(p, d)).map(|v| 0.3 * v).collect()
        }
        "text_model.embeddings.token_embedding.weight" => scaled(0.5),
        "vision_model.head.probe" => scaled(1.0),
        "word_pairs.first" | "word_pairs.second" => scaled(0.3),
        // A caption's score is a mean of cosines: one word of twelve has to be heard.
        "local.scale" => vec![30f32.ln()],
        "bag.weight" => vec![0.0; count],
        _ if name.ends_with(".bias") || name.ends_with("in_proj_bias") => vec![0.0; count],
        _ if name.contains("norm") => vec![1.0; count],
        // The ends of the residual branches start small, so that the stream keeps its scale over the blocks.
        _ if name.ends_with("out_proj.weight") || name.ends_with("fc2.weight") => scaled((0.25 / fan_in as f32).sqrt()),
        _ => scaled((1.0 / fan_in as f32).sqrt()),
    }
}

/// Initial tensors of the given names and shapes, each from a stream of its own.
pub(crate) fn tensors(
    shapes: Vec<(String, Vec<usize>)>,
    config: &ModelConfig,
    logit: [f64; 2],
    seed: u64,
) -> Result<Vec<(String, Tensor)>> {
    let draw = |(number, (name, shape)): (usize, (String, Vec<usize>))| {
        let mut stream = Stream::new(seed, number as u64, 0x1417);
        let values = values(&name, &shape, config, logit, &mut stream);
        Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
    };
    shapes.into_iter().enumerate().map(draw).collect()
}
