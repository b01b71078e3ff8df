//! Activation-level pairs whose dictionaries, concepts and token → patch coupling are known.
//!
//! Every pair shows four concepts, each in one quadrant of its patch grid (the cuts between the quadrants lie near the
//! middle, so a concept covers a quarter of the patches on average: a plan that knows nothing puts 0.25 of a token's mass
//! on its concept's patches). Its text names most of them, in any order, among filler tokens. A concept has one direction
//! in the space of patches and another, unrelated one in the space of tokens; private directions occur in one modality
//! only; each modality lies off the origin by a vector of its own, as the towers of real models do. Only +, ×, ÷ and √
//! are used, so the same seed gives the same bits everywhere.

use crate::error::{DataError, Result};
use crate::scenes::Stream;
use crate::store::{CaptionActivations, KIND_CONTENT, MemoryStore, PairActivations};

/// "No concept" in [`PairTruth`].
pub const NONE: u32 = u32::MAX;

/// What [`synth`] draws. The norms are relative to a concept's direction, which has norm 1.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthOptions {
    /// Number of pairs.
    pub pairs: usize,
    /// First pair of the seed's endless sequence: a validation set takes up where the training set ends, with the same
    /// dictionaries.
    pub first_pair: usize,
    /// Seed of dictionaries and pairs.
    pub seed: u64,
    /// Concepts that occur in both modalities, at least 4.
    pub concepts: usize,
    /// Directions that occur in patches only.
    pub private_vision: usize,
    /// Directions that occur in tokens only; fillers are made of them, so at least 1.
    pub private_text: usize,
    /// Width of a patch's state.
    pub d_vision: usize,
    /// Width of a token's state.
    pub d_text: usize,
    /// Rows and columns of the patch grid, each at least 4.
    pub grid: usize,
    /// Probability that a concept of the picture is named; at least one always is.
    pub mention: f32,
    /// Fewest and most filler tokens of a text.
    pub fillers: [usize; 2],
    /// Expected norm of the noise on every state.
    pub noise: f32,
    /// Norm of each modality's offset from the origin.
    pub offset: f32,
}

impl Default for SynthOptions {
    fn default() -> Self {
        Self {
            pairs: 1200,
            first_pair: 0,
            seed: 0,
            concepts: 48,
            private_vision: 16,
            private_text: 16,
            d_vision: 64,
            d_text: 64,
            grid: 8,
            mention: 0.9,
            fillers: [1, 3],
            noise: 0.2,
            offset: 1.0,
        }
    }
}

/// What one modality is made of; rows are unit vectors of the modality's width.
#[derive(Debug, Clone, PartialEq)]
pub struct ModalityTruth {
    /// Width.
    pub d: usize,
    /// Directions of the shared concepts, `[concepts · d]`.
    pub shared: Vec<f32>,
    /// Directions that occur here only, `[private · d]`.
    pub private: Vec<f32>,
    /// Offset from the origin, `[d]`.
    pub offset: Vec<f32>,
}

/// What one pair is made of; concepts are rows of the dictionaries or [`NONE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairTruth {
    /// Shared concept of every patch.
    pub patch_concept: Vec<u32>,
    /// Private direction of every patch.
    pub patch_private: Vec<u32>,
    /// Shared concept of every token; [`NONE`] for fillers.
    pub token_concept: Vec<u32>,
    /// Private direction of every token.
    pub token_private: Vec<u32>,
}

impl PairTruth {
    /// The patches a token speaks of: those that show its concept; none for fillers.
    pub fn patches_of(&self, token: usize) -> Vec<usize> {
        let concept = self.token_concept[token];
        let shows = |&p: &usize| concept != NONE && self.patch_concept[p] == concept;
        (0..self.patch_concept.len()).filter(shows).collect()
    }
}

/// What a set of pairs is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthTruth {
    /// Number of shared concepts.
    pub concepts: usize,
    /// Dictionary of the patches.
    pub vision: ModalityTruth,
    /// Dictionary of the tokens.
    pub text: ModalityTruth,
    /// Every pair, by position.
    pub pairs: Vec<PairTruth>,
}

impl SynthTruth {
    /// The mass that a plan which knows nothing puts on the patches of a token's concept, averaged over all tokens that
    /// name one: the control of transport accuracy.
    pub fn uniform_mass(&self) -> f64 {
        let shares = self.pairs.iter().flat_map(|p| {
            let named = (0..p.token_concept.len()).filter(|&t| p.token_concept[t] != NONE);
            named.map(|t| p.patches_of(t).len() as f64 / p.patch_concept.len() as f64)
        });
        let (sum, n) = shares.fold((0.0, 0u64), |(s, n), share| (s + share, n + 1));
        sum / n as f64
    }
}

/// Numbers of the streams; a pair's own index is the stream's index.
const PAIR: u64 = 0x5f_53;
const DICTIONARY: u64 = 0x5f_44;

/// Draws a set of pairs and the truth about it.
///
/// # Errors
/// `E_OPTION` for values that give no set.
///
/// ```
/// use lucid_data::store::ActivationSource;
/// use lucid_data::synth::{SynthOptions, synth};
/// let (store, truth) = synth(&SynthOptions { pairs: 3, ..SynthOptions::default() }).unwrap();
/// assert_eq!(store.pairs(), 3);
/// assert_eq!(truth.pairs[0].token_concept.len(), store.text_len(0, 0));
/// ```
pub fn synth(options: &SynthOptions) -> Result<(MemoryStore, SynthTruth)> {
    check(options)?;
    let o = options;
    let mut store = MemoryStore::new(o.d_vision, o.d_text)?;
    let modality = |index: u64, d: usize, private: usize| {
        let mut stream = Stream::new(o.seed, index, DICTIONARY);
        let shared = directions(&mut stream, o.concepts, d);
        let private = directions(&mut stream, private, d);
        let offset = directions(&mut stream, 1, d).into_iter().map(|v| v * o.offset).collect();
        ModalityTruth { d, shared, private, offset }
    };
    let mut truth = SynthTruth {
        concepts: o.concepts,
        vision: modality(0, o.d_vision, o.private_vision),
        text: modality(1, o.d_text, o.private_text),
        pairs: Vec::with_capacity(o.pairs),
    };
    for index in o.first_pair..o.first_pair + o.pairs {
        let mut stream = Stream::new(o.seed, index as u64, PAIR);
        let pair = draw_pair(o, &mut stream);
        let vision = states(&mut stream, &truth.vision, &pair.patch_concept, &pair.patch_private, o.noise);
        let text = states(&mut stream, &truth.text, &pair.token_concept, &pair.token_private, o.noise);
        let (words, spans, ids) = words(o, &pair);
        store.push(&PairActivations {
            key: &format!("synth-{}-{index:06}", o.seed),
            vision: &vision,
            vision_grid: [o.grid as u32; 2],
            captions: &[CaptionActivations {
                text: &words,
                states: &text,
                ids: &ids,
                kinds: &vec![KIND_CONTENT; ids.len()],
                spans: &spans,
            }],
            size: None,
            boxes: &[],
            thumbnail: None,
        })?;
        truth.pairs.push(pair);
    }
    Ok((store, truth))
}

fn check(o: &SynthOptions) -> Result<()> {
    let bad =
        |option, found: String, expected: &str| Err(DataError::Option { option, found, expected: expected.into() });
    if o.pairs == 0 {
        return bad("pairs", "0".into(), "1 or more");
    }
    if o.concepts < 4 {
        return bad("concepts", o.concepts.to_string(), "4 or more");
    }
    if o.grid < 4 || o.grid > 256 {
        return bad("grid", o.grid.to_string(), "4 to 256");
    }
    if o.private_text == 0 {
        return bad("privateText", "0".into(), "1 or more");
    }
    if o.fillers[0] > o.fillers[1] {
        return bad("fillers", format!("{:?}", o.fillers), "[fewest, most]");
    }
    for (option, value) in [("mention", o.mention), ("noise", o.noise), ("offset", o.offset)] {
        if !(value.is_finite() && value >= 0.0) {
            return bad(option, value.to_string(), "0 or more");
        }
    }
    Ok(())
}

/// A number with mean 0, variance 1 and nearly the normal shape: twelve uniform numbers, summed and centred.
fn normal(stream: &mut Stream) -> f32 {
    (0..12).map(|_| stream.unit()).sum::<f32>() - 6.0
}

/// `n` unit vectors in random directions.
fn directions(stream: &mut Stream, n: usize, d: usize) -> Vec<f32> {
    let mut all: Vec<f32> = (0..n * d).map(|_| normal(stream)).collect();
    for row in all.chunks_exact_mut(d) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    all
}

/// A number below `n` with probability proportional to 1/√rank: common and rare concepts, a factor of √n apart.
fn frequent_first(stream: &mut Stream, n: usize) -> usize {
    loop {
        let i = stream.below(n);
        let u = stream.unit();
        // Accepted with probability 1/√(i + 1).
        if u * u * (i + 1) as f32 <= 1.0 {
            return i;
        }
    }
}

/// Concepts and private directions of one pair's patches and tokens.
fn draw_pair(o: &SynthOptions, stream: &mut Stream) -> PairTruth {
    let mut shown: Vec<u32> = Vec::with_capacity(4);
    while shown.len() < 4 {
        let concept = frequent_first(stream, o.concepts) as u32;
        if !shown.contains(&concept) {
            shown.push(concept);
        }
    }
    // Cuts one cell to either side of the middle, both as likely, so that every quadrant has a quarter on average.
    let mut cut = || o.grid / 2 + stream.below(3) - 1;
    let (row, column) = (cut(), cut());
    let patches = o.grid * o.grid;
    let patch_concept =
        (0..patches).map(|p| shown[usize::from(p / o.grid >= row) * 2 + usize::from(p % o.grid >= column)]).collect();
    let patch_private = (0..patches)
        .map(|_| if o.private_vision > 0 && stream.chance(0.5) { stream.below(o.private_vision) as u32 } else { NONE })
        .collect();

    let kept = stream.below(4);
    let mut token_concept: Vec<u32> =
        (0..4).filter(|&i| i == kept || stream.chance(o.mention)).map(|i| shown[i]).collect();
    let fillers = o.fillers[0] + stream.below(o.fillers[1] - o.fillers[0] + 1);
    token_concept.resize(token_concept.len() + fillers, NONE);
    stream.shuffle(&mut token_concept);
    let token_private = token_concept
        .iter()
        .map(|&c| if c == NONE || stream.chance(0.5) { stream.below(o.private_text) as u32 } else { NONE })
        .collect();
    PairTruth { patch_concept, patch_private, token_concept, token_private }
}

/// Offset + amplitude · concept + amplitude · private direction + noise, a row a patch or token.
fn states(stream: &mut Stream, m: &ModalityTruth, concepts: &[u32], privates: &[u32], noise: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(concepts.len() * m.d);
    let scale = noise / (m.d as f32).sqrt();
    for (&concept, &private) in concepts.iter().zip(privates) {
        let row = out.len();
        out.extend_from_slice(&m.offset);
        let mut add = |dictionary: &[f32], index: u32, amplitude: f32| {
            if index != NONE {
                let atom = &dictionary[index as usize * m.d..][..m.d];
                out[row..].iter_mut().zip(atom).for_each(|(h, a)| *h += amplitude * a);
            }
        };
        add(&m.shared, concept, stream.between(0.8, 1.2));
        // A filler is nothing but its private direction and as long as a concept; elsewhere it is a minor part.
        let private_amplitude = stream.between(0.3, 0.7) + if concept == NONE { 0.5 } else { 0.0 };
        add(&m.private, private, private_amplitude);
        out[row..].iter_mut().for_each(|h| *h += scale * normal(stream));
    }
    out
}

/// The caption, with the span and id of every token.
fn words(o: &SynthOptions, pair: &PairTruth) -> (String, Vec<[u32; 2]>, Vec<u32>) {
    let mut text = String::new();
    let (mut spans, mut ids) = (Vec::new(), Vec::new());
    for (&concept, &private) in pair.token_concept.iter().zip(&pair.token_private) {
        if !text.is_empty() {
            text.push(' ');
        }
        let start = text.len() as u32;
        if concept == NONE {
            text.push_str(&format!("filler{private}"));
            ids.push(o.concepts as u32 + private);
        } else {
            text.push_str(&format!("concept{concept}"));
            ids.push(concept);
        }
        spans.push([start, text.len() as u32]);
    }
    (text, spans, ids)
}
