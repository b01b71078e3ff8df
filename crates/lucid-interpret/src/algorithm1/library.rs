//! Stages 1 and 2: the shared codes of a concept library, and how much each latent tells concepts apart.

use lucid_kernels::Modality;

use crate::coder::Coder;
use crate::error::{InterpretError, Result};

/// A concept library as the text tower sees it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConceptStates {
    /// The concepts' texts, distinct.
    pub names: Vec<String>,
    /// A category for each, or none; empty where there are no categories at all.
    pub categories: Vec<Option<String>>,
    /// Valid tokens of each.
    pub lengths: Vec<usize>,
    /// Token states `[Σ lengths · d_text]`, of the hook that the model was trained on.
    pub states: Vec<f32>,
    /// Pooled embeddings of the text tower `[concepts · width]`, for clustering.
    pub pooled: Vec<f32>,
}

impl ConceptStates {
    /// Width of the pooled embeddings.
    #[must_use]
    pub fn pooled_width(&self) -> usize {
        self.pooled.len() / self.names.len().max(1)
    }

    /// Category of a concept.
    #[must_use]
    pub fn category(&self, concept: usize) -> Option<&str> {
        self.categories.get(concept).and_then(Option::as_deref)
    }

    fn check(&self, d_text: usize) -> Result<()> {
        let n = self.names.len();
        if n == 0 {
            return Err(InterpretError::option("concepts", "an empty list", "at least one concept"));
        }
        let fits = |what: &str, found: usize, expected: usize| {
            if found == expected { Ok(()) } else { Err(InterpretError::shape(what, found, expected)) }
        };
        if !self.categories.is_empty() {
            fits("the number of categories", self.categories.len(), n)?;
        }
        fits("the number of lengths", self.lengths.len(), n)?;
        fits("the number of token states", self.states.len(), self.lengths.iter().sum::<usize>() * d_text)?;
        if self.pooled.is_empty() || !self.pooled.len().is_multiple_of(n) {
            return Err(InterpretError::shape(
                "the pooled embeddings",
                self.pooled.len(),
                format!("a multiple of {n} concepts"),
            ));
        }
        if self.states.iter().chain(&self.pooled).any(|x| !x.is_finite()) {
            return Err(InterpretError::NonFinite { what: "a state".into(), pair: "of the concept library".into() });
        }
        let mut seen = std::collections::HashSet::new();
        for (name, &length) in self.names.iter().zip(&self.lengths) {
            if length == 0 {
                return Err(InterpretError::option(
                    "concepts",
                    format!("{name:?} without a token"),
                    "at least one token each",
                ));
            }
            if !seen.insert(name.as_str()) {
                return Err(InterpretError::option("concepts", format!("{name:?} twice"), "every concept once"));
            }
        }
        Ok(())
    }
}

/// Shared codes z_c of the concepts and the weights of the latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Library {
    /// Per concept: (latent, value > 0) by rising latent; the mean of the shared codes of its valid tokens.
    pub codes: Vec<Vec<(u32, f64)>>,
    /// Per shared latent: log(N / df), 0 where no concept fires it; 1 everywhere without idf.
    pub idf: Vec<f64>,
}

impl Library {
    /// Encodes the concepts (stage 1) and weights the latents (stage 2).
    ///
    /// # Errors
    /// `E_SHAPE`, `E_OPTION` or `E_NON_FINITE` where the library does not hold together.
    pub fn new(coder: &dyn Coder, concepts: &ConceptStates, use_idf: bool) -> Result<Self> {
        let d = coder.width(Modality::Text);
        concepts.check(d)?;
        let mut codes = Vec::with_capacity(concepts.names.len());
        let mut start = 0;
        for &length in &concepts.lengths {
            let end = start + length * d;
            let tokens = coder.encode(&concepts.states[start..end], Modality::Text)?;
            codes.push(tokens.mean_shared(&(0..length).collect::<Vec<_>>()));
            start = end;
        }
        let idf = if use_idf { idf(&codes, coder.d_shared()) } else { vec![1.0; coder.d_shared()] };
        Ok(Self { codes, idf })
    }
}

/// idf_m = log(N / df_m); 0 where df_m = 0.
#[must_use]
pub fn idf(codes: &[Vec<(u32, f64)>], d_shared: usize) -> Vec<f64> {
    let mut frequency = vec![0usize; d_shared];
    codes.iter().flatten().for_each(|&(latent, _)| frequency[latent as usize] += 1);
    let n = codes.len() as f64;
    frequency.into_iter().map(|df| if df == 0 { 0.0 } else { (n / df as f64).ln() }).collect()
}
