//! The loss of word pairs: a pooled state tells which words the caption says near each other, and in which order. The bag of words
//! asks what is there; this asks what belongs to what: *small circle*, *circle left*, *left square*.
//!
//! A caption's pairs are skip-grams over the words that name something. One head reads pictures and captions alike: pair (a, b)
//! scores ⟨h, u_a ⊙ v_b⟩, so that pairs share what they know of their words. It chooses among the pairs that the batch's captions
//! say and no others: a pair that training never says is not learned to be absent. Dropped after training.

use crate::mini_training::loss::log_shares;
use crate::mini_training::tokens::naming_words;
use crate::mini_training::trainee::Trainee;
use candle_core::{Device, Result, Tensor};
use std::collections::BTreeMap;

/// Naming words that a word is paired with after it: as far as from a phrase's first word over its noun, or from a relation to
/// the next noun.
const WINDOW: usize = 4;

/// The ordered pairs of a caption, as numbers of words, sorted, each once.
fn pairs(ids: &[u32]) -> Vec<(u32, u32)> {
    let words: Vec<u32> = ids.iter().copied().filter_map(naming_words::number).collect();
    let mut all: Vec<(u32, u32)> =
        words.iter().enumerate().flat_map(|(i, &a)| words[i + 1..].iter().take(WINDOW).map(move |&b| (a, b))).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The pairs that captions `ids` [B, L] say: the words of each, and which caption says which, rows [B, pairs] that sum to one.
fn said(ids: &Tensor) -> Result<([Tensor; 2], Tensor)> {
    let captions: Vec<Vec<(u32, u32)>> = ids.to_vec2::<u32>()?.iter().map(|row| pairs(row)).collect();
    let mut places: BTreeMap<(u32, u32), usize> = captions.iter().flatten().map(|&pair| (pair, 0)).collect();
    places.values_mut().enumerate().for_each(|(at, place)| *place = at);
    let mut shares = vec![0f32; captions.len() * places.len()];
    for (pairs, row) in captions.iter().zip(shares.chunks_exact_mut(places.len().max(1))) {
        pairs.iter().for_each(|pair| row[places[pair]] = 1.0 / pairs.len() as f32);
    }
    let device = Device::Cpu;
    let words = |which: fn(&(u32, u32)) -> u32| {
        Tensor::from_vec(places.keys().map(which).collect::<Vec<u32>>(), places.len(), &device)
    };
    let shares = Tensor::from_vec(shares, (captions.len(), places.len()), &device)?;
    Ok(([words(|p| p.0)?, words(|p| p.1)?], shares))
}

/// Sum over the captions `ids` [B, L] of the cross-entropies of their pairs, read from the pooled states of the picture and of the
/// caption, `image` and `text` [B, d].
pub fn loss(trainee: &Trainee, image: &Tensor, text: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let ([first, second], shares) = said(ids)?;
    let table = |name: &str, rows: &Tensor| trainee.get(name)?.index_select(rows, 0);
    let products = (table("word_pairs.first", &first)? * table("word_pairs.second", &second)?)?;
    let states = Tensor::cat(&[image, text], 0)?;
    // The last coordinate carries how common a pair is.
    let one = Tensor::ones((states.dim(0)?, 1), states.dtype(), states.device())?;
    let scores = Tensor::cat(&[&states, &one], 1)?.matmul(&products.t()?)?;
    (log_shares(&scores)? * Tensor::cat(&[&shares, &shares], 0)?)?.sum_all()?.neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mini_training::recipe::mini;
    use crate::mini_training::tokens::{FIRST_WORD, caption_ids};
    use candle_core::Var;
    use lucid_data::scenes::Stream;

    #[test]
    fn a_captions_pairs_are_ordered_and_leave_out_words_that_name_nothing() {
        let word = |text: &str| caption_ids(text, 2)[0] - FIRST_WORD;
        let found = pairs(&caption_ids("a small red circle is left of a blue star on night", 24));
        let has = |a: &str, b: &str| found.contains(&(word(a), word(b)));
        assert!(has("small", "circle") && has("circle", "left") && has("left", "star") && has("red", "blue"));
        assert!(!has("circle", "small") && !has("small", "star"));
        // Seven words have 4 + 4 + 4 + 3 + 2 + 1 followers within the window, "blue star night" three of them.
        assert_eq!(found.len(), 18);
    }

    #[test]
    fn the_loss_is_its_formula_and_its_gradient_that_of_differences() {
        let trainee = Trainee::new(&mini()).unwrap();
        let captions = ["a red circle left of a blue star", "a small ring", "a blue star on night"];
        let ids: Vec<u32> = captions.iter().flat_map(|c| caption_ids(c, 24)).collect();
        let ids = Tensor::from_vec(ids, (3, 24), &Device::Cpu).unwrap();
        let mut stream = Stream::new(4, 0, 0);
        let mut states = || {
            let values: Vec<f32> = (0..3 * 96).map(|_| stream.between(-1.0, 1.0)).collect();
            Tensor::from_vec(values, (3, 96), &Device::Cpu).unwrap()
        };
        let (image, text) = (states(), states());
        let value = |image: &Tensor| f64::from(loss(&trainee, image, &text, &ids).unwrap().to_scalar::<f32>().unwrap());
        let rows = |name: &str| trainee.get(name).unwrap().to_vec2::<f32>().unwrap();
        let (u, v) = (rows("word_pairs.first"), rows("word_pairs.second"));
        let own: Vec<Vec<(u32, u32)>> = captions.iter().map(|c| pairs(&caption_ids(c, 24))).collect();
        let mut all: Vec<(u32, u32)> = own.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        let mut expected = 0.0;
        for states in [&image, &text] {
            for (state, own) in states.to_vec2::<f32>().unwrap().iter().zip(&own) {
                let score = |&(a, b): &(u32, u32)| {
                    let (a, b) = (&u[a as usize], &v[b as usize]);
                    (0..=96).map(|k| f64::from(a[k] * b[k] * state.get(k).unwrap_or(&1.0))).sum::<f64>()
                };
                let log_sum = all.iter().map(|p| score(p).exp()).sum::<f64>().ln();
                expected += own.iter().map(|p| log_sum - score(p)).sum::<f64>() / own.len() as f64;
            }
        }
        assert!((value(&image) - expected).abs() < 1e-4 * expected, "{} {expected}", value(&image));
        let var = Var::from_tensor(&image).unwrap();
        let grads = loss(&trainee, &var, &text, &ids).unwrap().backward().unwrap();
        let gradient = grads.get(&var).unwrap();
        let square = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        let step = 0.05 / square.sqrt();
        let at = |sign: f64| value(&(&image + (gradient * (sign * step)).unwrap()).unwrap());
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        assert!((slope - square).abs() < 0.02 * square, "{slope} {square}");
    }
}
