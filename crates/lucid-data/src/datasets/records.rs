//! Data sets whose records are all known on opening.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::DatasetSpec;
use crate::dataset::{Dataset, OnBad, PairRecord, Skipped};
use crate::error::{DataError, Result};

/// Records in memory; the images stay in their files.
pub(crate) struct Records {
    spec: DatasetSpec,
    records: Vec<PairRecord>,
    skipped: Vec<Skipped>,
}

/// Gathers records and deals with bad ones as the user wants.
pub(crate) struct Collect {
    pub(crate) on_bad: OnBad,
    pub(crate) skipped: Vec<Skipped>,
    records: Vec<PairRecord>,
    /// Where each key was first met, for readers whose files may repeat one.
    places: HashMap<String, String>,
}

impl Collect {
    pub(crate) fn new(on_bad: OnBad) -> Self {
        Self { on_bad, skipped: Vec::new(), records: Vec::new(), places: HashMap::new() }
    }

    /// Keeps a record.
    pub(crate) fn keep(&mut self, record: PairRecord) {
        self.records.push(record);
    }

    /// True where `key` is new. A key that `place` repeats is a bad record: a store finds pairs by their keys.
    pub(crate) fn first(&mut self, key: &str, place: String) -> Result<bool> {
        let problem = match self.places.entry(key.to_string()) {
            Entry::Vacant(slot) => {
                slot.insert(place);
                return Ok(true);
            }
            Entry::Occupied(slot) => repeated(key, slot.get(), &place),
        };
        self.bad(key, problem)?;
        Ok(false)
    }

    /// Stops at a bad record, or lists it.
    pub(crate) fn bad(&mut self, key: &str, problem: DataError) -> Result<()> {
        match self.on_bad {
            OnBad::Stop => Err(problem),
            OnBad::Skip => {
                self.skipped.push(Skipped::because(key, &problem));
                Ok(())
            }
        }
    }

    /// The finished data set; `what` names it where nothing is in it.
    pub(crate) fn finish(self, spec: DatasetSpec, what: impl FnOnce() -> String) -> Result<Box<dyn Dataset>> {
        if self.records.is_empty() {
            return Err(DataError::Empty { what: what() });
        }
        Ok(Box::new(Records { spec: spec.portable(), records: self.records, skipped: self.skipped }))
    }
}

/// The error for a key that stands for two records.
pub(crate) fn repeated(key: &str, first: &str, second: &str) -> DataError {
    DataError::dataset(key, format!("the key stands for two records, {first} and {second}; keys must differ"))
}

impl Dataset for Records {
    fn len(&self) -> usize {
        self.records.len()
    }
    fn pair(&self, index: usize) -> Result<PairRecord> {
        super::at(&self.records, index).cloned()
    }
    fn spec(&self) -> DatasetSpec {
        self.spec.clone()
    }
    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}
