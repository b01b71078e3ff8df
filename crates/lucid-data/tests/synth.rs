//! The generated pairs: what their truth says is what their states show, and what spec 5.2 asks of them can be reached.
#![allow(clippy::unwrap_used)]

use lucid_data::store::{ActivationSource, AnnotatedSource};
use lucid_data::synth::{ModalityTruth, NONE, SynthOptions, synth};

/// The shared concept whose direction has the largest inner product with a state, offset removed.
fn nearest(m: &ModalityTruth, state: &[f32]) -> u32 {
    let score = |c: &[f32]| c.iter().zip(state).zip(&m.offset).map(|((c, h), o)| c * (h - o)).sum::<f32>();
    let scores: Vec<f32> = m.shared.chunks(m.d).map(score).collect();
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap() as u32
}

#[test]
fn states_show_the_concepts_of_the_truth() {
    let (store, truth) = synth(&SynthOptions { pairs: 200, ..SynthOptions::default() }).unwrap();
    let mut right = [0usize; 2];
    let mut all = [0usize; 2];
    let mut count = |side: usize, m: &ModalityTruth, states: &[f32], concepts: &[u32]| {
        assert_eq!(states.len(), concepts.len() * m.d);
        for (state, &concept) in states.chunks(m.d).zip(concepts).filter(|(_, c)| **c != NONE) {
            right[side] += usize::from(nearest(m, state) == concept);
            all[side] += 1;
        }
    };
    for i in 0..store.pairs() {
        count(0, &truth.vision, store.vision(i), &truth.pairs[i].patch_concept);
        count(1, &truth.text, store.text(i, 0), &truth.pairs[i].token_concept);
    }
    for side in 0..2 {
        let share = right[side] as f64 / all[side] as f64;
        assert!(share > 0.97, "modality {side}: {share}");
    }
}

#[test]
fn coupling_is_a_quarter_under_no_knowledge_and_can_exceed_what_is_asked() {
    let (store, truth) = synth(&SynthOptions { pairs: 400, ..SynthOptions::default() }).unwrap();
    let uniform = truth.uniform_mass();
    assert!((uniform - 0.25).abs() < 0.01, "{uniform}");
    // Ten Sinkhorn iterations on the cost of perfect codes: 0 where concepts agree, 1 elsewhere; marginals of spec 3.
    let (mut mass, mut tokens) = (0.0, 0usize);
    for p in &truth.pairs {
        let (n, m) = (p.patch_concept.len(), p.token_concept.len());
        let same = |i: usize, j: usize| p.token_concept[j] != NONE && p.patch_concept[i] == p.token_concept[j];
        let kernel = |i, j| if same(i, j) { 1.0f64 } else { (-10.0f64).exp() };
        let share = |j: usize| p.patches_of(j).len() as f64 / n as f64;
        let weights: Vec<f64> = (0..m).map(|j| share(j) + 1e-6).collect();
        let c: Vec<f64> = weights.iter().map(|w| w / weights.iter().sum::<f64>()).collect();
        let (mut u, mut v) = (vec![1.0; n], vec![1.0; m]);
        for _ in 0..10 {
            for i in 0..n {
                u[i] = 1.0 / n as f64 / (0..m).map(|j| kernel(i, j) * v[j]).sum::<f64>();
            }
            for j in 0..m {
                v[j] = c[j] / (0..n).map(|i| kernel(i, j) * u[i]).sum::<f64>();
            }
        }
        for j in (0..m).filter(|&j| p.token_concept[j] != NONE) {
            mass += p.patches_of(j).iter().map(|&i| u[i] * kernel(i, j) * v[j]).sum::<f64>() / c[j];
            tokens += 1;
        }
    }
    let mass = mass / tokens as f64;
    assert!(mass > 0.8, "a perfect model reaches {mass}");
    // Texts are ragged, and some tokens are fillers.
    let lengths: std::collections::BTreeSet<usize> = (0..store.pairs()).map(|i| store.text_len(i, 0)).collect();
    assert!(lengths.len() >= 4, "{lengths:?}");
    assert!(truth.pairs.iter().any(|p| p.token_concept.contains(&NONE)));
}

#[test]
fn concepts_are_common_and_rare_and_all_occur() {
    let o = SynthOptions::default();
    let (_, truth) = synth(&o).unwrap();
    let mut counts = vec![0usize; o.concepts];
    for p in &truth.pairs {
        let mut shown: Vec<u32> = p.patch_concept.clone();
        shown.sort_unstable();
        shown.dedup();
        assert_eq!(shown.len(), 4);
        shown.iter().for_each(|&c| counts[c as usize] += 1);
        assert!(p.token_concept.iter().all(|c| *c == NONE || shown.contains(c)));
    }
    assert!(counts.iter().all(|&c| c >= 20), "{counts:?}");
    assert!(counts[0] > 3 * counts[o.concepts - 1], "{counts:?}");
}

#[test]
fn a_seed_decides_everything_and_later_pairs_share_its_dictionaries() {
    let o = SynthOptions { pairs: 20, seed: 3, ..SynthOptions::default() };
    let (a, truth) = synth(&o).unwrap();
    let (b, again) = synth(&o).unwrap();
    assert_eq!((a.fingerprint(), &truth), (b.fingerprint(), &again));
    assert_ne!(a.fingerprint(), synth(&SynthOptions { seed: 4, ..o.clone() }).unwrap().0.fingerprint());
    let (late, late_truth) = synth(&SynthOptions { pairs: 5, first_pair: 15, ..o }).unwrap();
    assert_eq!(late_truth.vision, truth.vision);
    for i in 0..5 {
        assert_eq!(late.vision(i), a.vision(15 + i));
        assert_eq!(late.key(i), a.key(15 + i));
    }
}

#[test]
fn captions_name_what_their_tokens_stand_for() {
    let (store, truth) = synth(&SynthOptions { pairs: 10, ..SynthOptions::default() }).unwrap();
    for (i, p) in truth.pairs.iter().enumerate() {
        let tokens = store.text_tokens(i, 0);
        let caption = &store.info(i).captions[0];
        for (t, &[start, end]) in tokens.spans.iter().enumerate() {
            let word = &caption[start as usize..end as usize];
            let expected = match p.token_concept[t] {
                NONE => format!("filler{}", p.token_private[t]),
                concept => format!("concept{concept}"),
            };
            assert_eq!(word, expected);
        }
    }
}

#[test]
fn options_that_give_no_set_are_refused() {
    let o = SynthOptions::default;
    let bad = [
        SynthOptions { pairs: 0, ..o() },
        SynthOptions { concepts: 3, ..o() },
        SynthOptions { grid: 3, ..o() },
        SynthOptions { private_text: 0, ..o() },
        SynthOptions { fillers: [3, 2], ..o() },
        SynthOptions { noise: f32::NAN, ..o() },
        SynthOptions { d_text: 0, ..o() },
    ];
    for options in bad {
        assert_eq!(synth(&options).err().map(|e| e.code()), Some("E_OPTION"), "{options:?}");
    }
}
