//! The training loss, taken in one place for both halves of a batch: SigLIP's pairwise sigmoid loss, and a linear head that
//! names the caption's words from the pooled image state (as in SuperClass; dropped after training).

use crate::mini_training::tokens::FIRST_WORD;
use crate::mini_training::trainee::Trainee;
use crate::mini_training::word_pairs;
use candle_core::{D, DType, Device, Result, Tensor, Var};

/// Weights of the terms beside the pairwise loss.
pub struct LossWeights {
    /// Of the bag of words.
    pub bag: f64,
    /// Of the word pairs.
    pub word_pairs: f64,
    /// Of own captions above false ones.
    pub rank: f64,
}

/// Value of the loss and its gradients.
pub struct Loss {
    /// Pairwise sigmoid loss, per picture.
    pub pairs: f64,
    /// Bag-of-words loss, per picture.
    pub bag: f64,
    /// Loss of the word pairs, per picture.
    pub word_pairs: f64,
    /// Mean over false captions of log(1 + e^(false − own)), in logits.
    pub rank: f64,
    /// Share of the pictures whose own caption scores highest in the batch.
    pub first: f64,
    /// With respect to the pooled image states, [B, d].
    pub image: Tensor,
    /// With respect to the pooled text states, [B, d].
    pub text: Tensor,
    /// With respect to the pooled text states of false captions, [B·K, d].
    pub wrong: Tensor,
    /// With respect to parameters by name: logit scale and bias, the heads of the bag of words and of the word pairs.
    pub parameters: Vec<(&'static str, Vec<f32>)>,
}

/// log(1 + e^x) without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let positive = x.relu()?;
    let small = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    positive + small
}

/// Logarithm of the softmax over the last axis.
pub(super) fn log_shares(scores: &Tensor) -> Result<Tensor> {
    let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// Which words each caption holds: rows sum to one. `ids` [B, L].
fn bags(ids: &Tensor, words: usize) -> Result<Tensor> {
    let rows = ids.to_vec2::<u32>()?;
    let mut bags = vec![0f32; rows.len() * words];
    for (row, bag) in rows.iter().zip(bags.chunks_exact_mut(words)) {
        for &id in row.iter().filter(|&&id| id >= FIRST_WORD) {
            bag[id as usize] = 1.0;
        }
        let total: f32 = bag.iter().sum();
        bag.iter_mut().for_each(|b| *b /= total.max(1.0));
    }
    Tensor::from_vec(bags, (rows.len(), words), &Device::Cpu)
}

/// How far each false caption scores above the picture's own: `own` [B] are the logits of the pairs.
fn rank(trainee: &Trainee, image: &Tensor, wrong: &Tensor, own: &Tensor) -> Result<Tensor> {
    let (n, d) = image.dims2()?;
    let k = wrong.dim(0)? / n;
    let repeated = image.unsqueeze(1)?.broadcast_as((n, k, d))?.reshape((n * k, d))?;
    let own = own.unsqueeze(1)?.broadcast_as((n, k))?.reshape(n * k)?;
    softplus(&(trainee.model.pair_logits(&repeated, wrong)? - own)?)?.mean_all()
}

/// Loss of pooled states `image`, `text` [B, d] whose captions are `ids` [B, L]; `wrong` [B·K, d] are the states of false
/// captions, those of one picture together.
pub fn loss(
    trainee: &Trainee,
    image: &Tensor,
    text: &Tensor,
    wrong: &Tensor,
    ids: &Tensor,
    weights: &LossWeights,
) -> Result<Loss> {
    let n = image.dim(0)?;
    let var = |t: &Tensor| Var::from_tensor(&t.detach());
    let (image, text, wrong) = (var(image)?, var(text)?, var(wrong)?);
    let logits = trainee.model.logits(&image, &text)?;
    // +1 on the diagonal, −1 elsewhere.
    let sign = ((Tensor::eye(n, DType::F32, &Device::Cpu)? * 2.0)? - 1.0)?;
    let pairs = (softplus(&(&logits * &sign)?.neg()?)?.sum_all()? / n as f64)?;
    let (weight, bias) = (trainee.get("bag.weight")?, trainee.get("bag.bias")?);
    let scores = image.matmul(&weight.t()?)?.broadcast_add(bias)?;
    let bag = ((log_shares(&scores)? * bags(ids, weight.dim(0)?)?)?.sum_all()?.neg()? / n as f64)?;
    let word_pairs = if weights.word_pairs > 0.0 {
        (word_pairs::loss(trainee, &image, &text, ids)? / n as f64)?
    } else {
        Tensor::zeros((), DType::F32, &Device::Cpu)?
    };
    let ranked = if wrong.dim(0)? > 0 {
        rank(trainee, &image, &wrong, &trainee.model.pair_logits(&image, &text)?)?
    } else {
        Tensor::zeros((), DType::F32, &Device::Cpu)?
    };
    let mut total = (&pairs + (&bag * weights.bag)?)?;
    total = (total + (&word_pairs * weights.word_pairs)?)?;
    total = (total + (&ranked * weights.rank)?)?;
    let grads = total.backward()?;
    let of = |var: &Var| match grads.get(var) {
        Some(g) => g.contiguous(),
        None => var.zeros_like(),
    };
    let mut parameters = Vec::new();
    for name in ["logit_scale", "logit_bias", "bag.weight", "bag.bias", "word_pairs.first", "word_pairs.second"] {
        parameters.push((name, of(trainee.get(name)?)?.flatten_all()?.to_vec1()?));
    }
    let rows = logits.to_vec2::<f32>()?;
    let first = rows.iter().enumerate().filter(|(i, row)| row.iter().all(|&v| v <= row[*i])).count();
    Ok(Loss {
        pairs: f64::from(pairs.to_scalar::<f32>()?),
        bag: f64::from(bag.to_scalar::<f32>()?),
        word_pairs: f64::from(word_pairs.to_scalar::<f32>()?),
        rank: f64::from(ranked.to_scalar::<f32>()?),
        first: first as f64 / n as f64,
        image: of(&image)?,
        text: of(&text)?,
        wrong: of(&wrong)?,
        parameters,
    })
}
