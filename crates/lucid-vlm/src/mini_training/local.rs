//! The local loss: a caption's words look for the patches that fit them, so that patches and tokens, not the pooled states alone,
//! carry what they show and say. It needs captions only, and its parameters are dropped after training.
//!
//! Late interaction as in FILIP (Yao et al. 2022), with two differences: a word chooses its patches softly, so that every patch of
//! an object is moved and not the best one alone, and captions compete within a family, whose pictures differ in what is hard.

use crate::mini_training::loss::log_shares;
use crate::mini_training::tokens::FIRST_WORD;
use crate::mini_training::trainee::Trainee;
use crate::model::unit;
use crate::ops;
use candle_core::{D, Device, Result, Tensor};

/// Cosines are multiplied by this before the softmax that chooses patches.
const SHARPNESS: f64 = 10.0;

/// States of a family's pictures and captions at the default hooks, with their graphs.
pub struct Family<'a> {
    /// Patches, [F, P, d].
    pub patches: &'a Tensor,
    /// Tokens of the captions, [F, L, d].
    pub tokens: &'a Tensor,
    /// Ids of the captions, u32 [F, L].
    pub ids: &'a Tensor,
    /// Tokens of false captions, [F·K, L, d], those of one picture together; K may be 0.
    pub wrong: &'a Tensor,
    /// Ids of the false captions, u32 [F·K, L].
    pub wrong_ids: &'a Tensor,
}

/// Cosines [.., P] of a word with patches, averaged over the patches that it chooses: [..].
fn chosen(cosines: &Tensor) -> Result<Tensor> {
    (ops::softmax(cosines, SHARPNESS)? * cosines)?.sum(D::Minus1)
}

/// The share of each position in its caption's score, [n, L]: words count alike, the end of the caption not at all.
fn shares(ids: &Tensor) -> Result<Tensor> {
    let rows = ids.to_vec2::<u32>()?;
    let mut shares = Vec::with_capacity(ids.elem_count());
    for row in &rows {
        let words = row.iter().filter(|&&id| id >= FIRST_WORD).count().max(1);
        shares.extend(row.iter().map(|&id| if id >= FIRST_WORD { 1.0 / words as f32 } else { 0.0 }));
    }
    Tensor::from_vec(shares, ids.shape(), &Device::Cpu)
}

/// How well every caption fits every picture, [captions, pictures], and each false caption its own picture, [pictures, K]: the
/// mean over the caption's words of their cosine with the patches that they choose.
fn scores(family: &Family, weight: &Tensor) -> Result<(Tensor, Tensor)> {
    let (f, p, d) = family.patches.dims3()?;
    let l = family.ids.dim(1)?;
    let k = family.wrong_ids.dim(0)? / f;
    let words = |states: &Tensor, n: usize| unit(&states.reshape((n * l, d))?.matmul(&weight.t()?)?);
    let patches = unit(&family.patches.reshape((f * p, d))?)?;
    let cosines = words(family.tokens, f)?.matmul(&patches.t()?)?.reshape((f, l, f, p))?;
    let own = chosen(&cosines)?.broadcast_mul(&shares(family.ids)?.unsqueeze(2)?)?.sum(1)?;
    let cosines = words(family.wrong, f * k)?
        .reshape((f, k * l, d))?
        .matmul(&patches.reshape((f, p, d))?.transpose(1, 2)?.contiguous()?)?;
    let wrong = (chosen(&cosines)?.reshape((f, k, l))? * shares(family.wrong_ids)?.reshape((f, k, l))?)?.sum(2)?;
    Ok((own, wrong))
}

/// Sum over the pictures of a family of two cross-entropies: a picture finds its caption among the family's and its own false
/// ones, and a caption finds its picture.
pub fn loss(trainee: &Trainee, family: &Family) -> Result<Tensor> {
    let (own, wrong) = scores(family, trainee.get("local.weight")?)?;
    let scale = trainee.get("local.scale")?.exp()?;
    let own = own.broadcast_mul(&scale)?;
    let captions = if wrong.elem_count() > 0 {
        Tensor::cat(&[&own.t()?.contiguous()?, &wrong.broadcast_mul(&scale)?], 1)?
    } else {
        own.t()?.contiguous()?
    };
    let f = own.dim(0)?;
    let right = Tensor::eye(f, own.dtype(), own.device())?;
    let found = |logits: &Tensor| (log_shares(logits)?.narrow(1, 0, f)? * &right)?.sum_all();
    (found(&captions)? + found(&own)?)?.neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mini_training::recipe::mini;
    use lucid_data::scenes::Stream;

    const SHAPE: [usize; 4] = [3, 5, 4, 2];

    fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.between(-1.0, 1.0)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Pictures, captions of 1 to 4 words and false captions, drawn at random.
    fn drawn() -> [Tensor; 5] {
        let [f, p, l, k] = SHAPE;
        let mut stream = Stream::new(3, 0, 0);
        let ids = |n: usize| {
            let ids: Vec<u32> =
                (0..n * l).map(|i| if i % l <= i / l % l { FIRST_WORD + i as u32 % 7 } else { 1 }).collect();
            Tensor::from_vec(ids, (n, l), &Device::Cpu).unwrap()
        };
        let d = mini().config.text_config.hidden_size;
        [
            random(&mut stream, &[f, p, d]),
            random(&mut stream, &[f, l, d]),
            ids(f),
            random(&mut stream, &[f * k, l, d]),
            ids(f * k),
        ]
    }

    fn family(all: &[Tensor; 5]) -> Family<'_> {
        Family { patches: &all[0], tokens: &all[1], ids: &all[2], wrong: &all[3], wrong_ids: &all[4] }
    }

    /// One caption's score for one picture, as the formula says it.
    fn by_hand(words: &[Vec<f32>], ids: &[u32], patches: &[Vec<f32>], weight: &[Vec<f32>]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let mut scores = Vec::new();
        for (state, _) in words.iter().zip(ids).filter(|(_, id)| **id >= FIRST_WORD) {
            let word: Vec<f32> = weight.iter().map(|row| dot(row, state) as f32).collect();
            let cosines: Vec<f64> =
                patches.iter().map(|p| dot(&word, p) / (dot(&word, &word) * dot(p, p)).sqrt()).collect();
            let weights: Vec<f64> = cosines.iter().map(|c| (SHARPNESS * c).exp()).collect();
            scores.push(dot_f64(&weights, &cosines) / weights.iter().sum::<f64>());
        }
        scores.iter().sum::<f64>() / scores.len() as f64
    }

    fn dot_f64(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn the_loss_is_its_formula() {
        let (all, trainee) = (drawn(), Trainee::new(&mini()).unwrap());
        let [f, _, _, k] = SHAPE;
        let states = |t: &Tensor| t.to_vec3::<f32>().unwrap();
        let ids = |t: &Tensor| t.to_vec2::<u32>().unwrap();
        let (patches, tokens, wrong) = (states(&all[0]), states(&all[1]), states(&all[3]));
        let (own_ids, wrong_ids) = (ids(&all[2]), ids(&all[4]));
        let weight = trainee.get("local.weight").unwrap().to_vec2::<f32>().unwrap();
        let scale = f64::from(trainee.get("local.scale").unwrap().to_vec1::<f32>().unwrap()[0]).exp();
        let score = |caption: usize, picture: usize| {
            scale * by_hand(&tokens[caption], &own_ids[caption], &patches[picture], &weight)
        };
        let expected = |k: usize| {
            let mut sum = 0.0;
            for i in 0..f {
                let mut captions: Vec<f64> = (0..f).map(|caption| score(caption, i)).collect();
                captions.extend(
                    (i * k..(i + 1) * k).map(|w| scale * by_hand(&wrong[w], &wrong_ids[w], &patches[i], &weight)),
                );
                let pictures: Vec<f64> = (0..f).map(|picture| score(i, picture)).collect();
                let log_sum = |all: &[f64]| all.iter().map(|v| v.exp()).sum::<f64>().ln();
                sum += log_sum(&captions) + log_sum(&pictures) - 2.0 * score(i, i);
            }
            sum
        };
        // Without false captions there is only the family to choose from.
        for k in [k, 0] {
            let rows = |t: &Tensor| t.narrow(0, 0, f * k).unwrap();
            let (wrong, wrong_ids) = (rows(&all[3]), rows(&all[4]));
            let family = Family { wrong: &wrong, wrong_ids: &wrong_ids, ..family(&all) };
            let found = f64::from(loss(&trainee, &family).unwrap().to_scalar::<f32>().unwrap());
            let expected = expected(k);
            assert!((found - expected).abs() < 1e-4 * expected.abs(), "K {k}: {found} {expected}");
        }
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let (mut all, trainee) = (drawn(), Trainee::new(&mini()).unwrap());
        let value = |all: &[Tensor; 5]| f64::from(loss(&trainee, &family(all)).unwrap().to_scalar::<f32>().unwrap());
        for which in [0, 1, 3] {
            let kept = all[which].clone();
            let var = candle_core::Var::from_tensor(&kept).unwrap();
            all[which] = var.as_tensor().clone();
            let grads = loss(&trainee, &family(&all)).unwrap().backward().unwrap();
            let gradient = grads.get(&var).unwrap().clone();
            // Along the gradient the loss rises by its squared norm.
            let square = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
            let step = 0.02 / square.sqrt();
            let mut at = |sign: f64| {
                all[which] = (&kept + (&gradient * (sign * step)).unwrap()).unwrap();
                value(&all)
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            assert!((slope - square).abs() < 0.01 * square, "{which}: {slope} {square}");
            all[which] = kept;
        }
    }
}
