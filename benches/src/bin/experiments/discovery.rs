//! How many hits of Algorithm 1 are false, by the truth, beside what the threshold was calibrated to.

use std::collections::BTreeSet;

use lucid_data::progress::Silent;
use lucid_data::store::AnnotatedSource;
use lucid_interpret::algorithm1::library::Library;
use lucid_interpret::algorithm1::matching::{ImageIndex, peaks};
use lucid_interpret::{Coder, InterpretOptions, SparseCodes, TruthSource, interpret};
use lucid_kernels::Modality;
use lucid_sae::Model;

use crate::data::{Data, Result};
use crate::measure::Numbers;

/// Rates asked for.
const TARGETS: [f64; 5] = [0.01, 0.05, 0.1, 0.2, 0.5];

/// A hit's confidence, whether the picture shows the concept, and whether the patch of the peak does.
type Hit = (f64, bool, bool);

/// Of every target `fdr.Q.false`, the share of hits above its threshold whose picture does not show the concept, `fdr.Q.misplaced`, those
/// whose patch does not, `fdr.Q.hits`, their number, and `fdr.Q.found`, the share of what pictures show that was hit; the same of the default
/// quantile as `quantile.…`; and `absent`, the share of false hits that drawing pictures and concepts blindly gives.
pub fn discovery(model: &Model, data: &Data) -> Result<Numbers> {
    let (source, truth) = (&*data.held_out, (data.truth)(&*data.held_out, true));
    let library = Library::new(model, &data.library, InterpretOptions::default().idf)?;
    // Concepts that patches can show: a count or a relation is nowhere.
    let known: Vec<Option<u32>> = data.library.names.iter().map(|name| shown_as(&*truth, name)).collect();
    let (mut hits, mut present, mut asked) = (Vec::<Hit>::new(), 0_u64, 0_u64);
    for pair in 0..source.pairs() {
        let of_patches = truth.pair(pair)?.patches;
        let shown: BTreeSet<u32> = of_patches.iter().flatten().map(|&(concept, _)| concept).collect();
        present += known.iter().flatten().filter(|concept| shown.contains(concept)).count() as u64;
        asked += known.iter().flatten().count() as u64;
        for peak in peaks(&ImageIndex::new(&codes(model, source, pair)?), &library) {
            let Some(concept) = known[peak.concept as usize] else { continue };
            let here = of_patches[peak.patch as usize].iter().any(|&(other, _)| other == concept);
            hits.push((peak.confidence, shown.contains(&concept), here));
        }
    }
    let mut numbers = Numbers::from([("absent".into(), 1.0 - present as f64 / asked as f64)]);
    let mut count = |name: String, threshold: f64| {
        let above: Vec<&Hit> = hits.iter().filter(|(confidence, ..)| *confidence > threshold).collect();
        let share =
            |wrong: &dyn Fn(&Hit) -> bool| above.iter().filter(|hit| wrong(hit)).count() as f64 / above.len() as f64;
        numbers.insert(format!("{name}.hits"), above.len() as f64);
        if !above.is_empty() {
            numbers.insert(format!("{name}.false"), share(&|hit| !hit.1));
            numbers.insert(format!("{name}.misplaced"), share(&|hit| !hit.2));
        }
        numbers.insert(format!("{name}.found"), above.iter().filter(|hit| hit.1).count() as f64 / present as f64);
    };
    let threshold = |options: InterpretOptions| -> Result<f64> {
        let atlas = interpret(model, source, &data.library, &options, &Silent)?;
        atlas.index.threshold.ok_or_else(|| "no threshold: nothing scores".into())
    };
    count("quantile".into(), threshold(InterpretOptions::default())?);
    for target in TARGETS {
        count(
            format!("fdr.{target}"),
            threshold(InterpretOptions { fdr: Some(target), ..InterpretOptions::default() })?,
        );
    }
    Ok(numbers)
}

/// The truth's concept of that name, where some patch of the first pairs shows it.
fn shown_as(truth: &dyn TruthSource, name: &str) -> Option<u32> {
    let concept = truth.concepts().iter().position(|concept| concept.name.eq_ignore_ascii_case(name))? as u32;
    let shows = |pair: usize| {
        truth.pair(pair).is_ok_and(|pair| pair.patches.iter().flatten().any(|&(other, _)| other == concept))
    };
    (0..200).any(shows).then_some(concept)
}

fn codes(model: &Model, source: &dyn AnnotatedSource, pair: usize) -> Result<SparseCodes> {
    let mut states = vec![0.0; source.vision_len(pair) * source.d_vision()];
    source.read_vision(pair, &mut states)?;
    Ok(Coder::encode(model, &states, Modality::Vision)?)
}
