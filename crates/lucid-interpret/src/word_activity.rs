//! Which words of the captions fire which shared latents.

use std::collections::HashMap;

use crate::atlas::Word;

/// Sums over the tokens of every word.
#[derive(Debug, Clone, Default)]
pub(crate) struct WordActivity {
    numbers: HashMap<String, u32>,
    words: Vec<String>,
    /// Tokens of each word.
    tokens: Vec<u64>,
    fired: HashMap<(u32, u32), Fired>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Fired {
    sum: f64,
    max: f64,
    count: u64,
}

impl WordActivity {
    /// Adds one token of `word` with its shared code.
    pub(crate) fn add(&mut self, word: String, code: impl Iterator<Item = (u32, f32)>) {
        let number = match self.numbers.get(&word) {
            Some(&number) => number,
            None => {
                let number = self.words.len() as u32;
                self.words.push(word.clone());
                self.tokens.push(0);
                self.numbers.insert(word, number);
                number
            }
        };
        self.tokens[number as usize] += 1;
        for (latent, value) in code {
            let fired = self.fired.entry((latent, number)).or_default();
            fired.sum += f64::from(value);
            fired.max = fired.max.max(f64::from(value));
            fired.count += 1;
        }
    }

    /// For every latent its `limit` first words by falling activation · count · share, ties by text.
    pub(crate) fn by_latent(&self, latents: usize, limit: usize) -> Vec<Vec<Word>> {
        let mut lists: Vec<Vec<Word>> = vec![Vec::new(); latents];
        for (&(latent, number), fired) in &self.fired {
            lists[latent as usize].push(Word {
                word: self.words[number as usize].clone(),
                activation: fired.sum / fired.count as f64,
                max: fired.max,
                count: fired.count,
                share: fired.count as f64 / self.tokens[number as usize] as f64,
            });
        }
        let rank = |word: &Word| word.activation * word.count as f64 * word.share;
        for list in &mut lists {
            list.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then_with(|| a.word.cmp(&b.word)));
            list.truncate(limit);
        }
        lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_mass_and_share() {
        let mut words = WordActivity::default();
        for _ in 0..3 {
            words.add("red".into(), [(1, 2.0)].into_iter());
            words.add("a".into(), [(1, 2.0), (0, 1.0)].into_iter());
        }
        (0..3).for_each(|_| words.add("a".into(), std::iter::empty()));
        let lists = words.by_latent(3, 5);
        assert_eq!(lists[1].iter().map(|w| w.word.as_str()).collect::<Vec<_>>(), ["red", "a"]);
        assert_eq!(lists[1][1], Word { word: "a".into(), activation: 2.0, max: 2.0, count: 3, share: 0.5 });
        assert_eq!(lists[0].len(), 1);
        assert!(lists[2].is_empty());
        assert!(words.by_latent(3, 0)[1].is_empty());
    }
}
