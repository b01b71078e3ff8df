//! Shards that are read from front to back: every data set with a shard on a server.
//!
//! A thread of its own reads ahead by a few records and ends with the iterator that it feeds. Keys are compared within a shard only:
//! a pass that starts at a later shard does not know those of the earlier ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::group::{Grouper, Sample};
use super::members::{Member, Stop, walk_stream};
use super::{WebdatasetSpec, assemble, remote};
use crate::dataset::{Dataset, PairRecord};
use crate::datasets::patterns::{Place, portable};
use crate::datasets::{DatasetSpec, out_of_range};
use crate::error::{DataError, Result};

/// Records read ahead.
const AHEAD: usize = 8;

/// Shards of which some or all are addresses.
pub(super) struct Remote {
    spec: DatasetSpec,
    shared: Arc<Shared>,
}

struct Shared {
    places: Vec<Place>,
    field: Option<String>,
    image: Option<String>,
    /// Records of every shard that has been read to its end, bad ones included.
    counts: Mutex<BTreeMap<usize, usize>>,
}

/// What [`Dataset::learnt`] gives.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Learnt {
    /// Names of all shards, without folder and host.
    shards: Vec<String>,
    /// Shard by position, and its number of records.
    records: BTreeMap<usize, usize>,
}

impl Remote {
    pub(super) fn new(spec: &WebdatasetSpec, places: Vec<Place>) -> Self {
        let (field, image) = (spec.caption.clone(), spec.image.clone());
        Self { spec: spec.spec(), shared: Arc::new(Shared { places, field, image, counts: Mutex::default() }) }
    }

    fn names(&self) -> Vec<String> {
        portable(&self.shared.places.iter().map(Place::to_string).collect::<Vec<_>>())
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from record `from` on until nobody listens any more. Shards that are known to end before it are not opened.
    fn run(&self, from: usize, sender: &SyncSender<Result<PairRecord>>) {
        let mut feed = Feed { sender, skip: from, records: 0 };
        for (shard, place) in self.places.iter().enumerate() {
            let known = self.counts().get(&shard).copied();
            if let Some(n) = known.filter(|&n| n <= feed.skip) {
                feed.skip -= n;
                continue;
            }
            feed.records = 0;
            match self.shard(place, &mut feed) {
                Ok(()) => self.counts().insert(shard, feed.records),
                // Nobody may be there to hear of it.
                Err(Stop::Failed(error)) => return drop(sender.send(Err(error))),
                Err(Stop::Damaged(_) | Stop::Unheard) => return,
            };
        }
    }

    /// Reads one shard. A damaged one ends with a record that says so, so that positions after it stay what they are.
    fn shard(&self, place: &Place, feed: &mut Feed<'_>) -> std::result::Result<(), Stop> {
        let name = place.to_string();
        let field = self.field.as_deref();
        let mut grouper = Grouper::new(self.image.as_deref());
        let source = open(place).map_err(Stop::Failed)?;
        let walked = walk_stream(source, &name, &mut |member| {
            let read = |m: &mut Member<'_>| match m.read() {
                Ok(Some(bytes)) => Ok(Some(bytes)),
                Ok(None) => Err(Stop::Damaged(format!("it ends within {:?}; it is cut off", m.name))),
                Err(e) => Err(Stop::Failed(DataError::io("read", &name, e))),
            };
            match take(&mut grouper, &name, member, read)? {
                Some(sample) => feed.give(|| assemble(sample, &name, field)),
                None => Ok(()),
            }
        });
        match walked {
            Ok(()) => match grouper.finish() {
                Some(sample) => feed.give(|| assemble(sample, &name, field)),
                None => Ok(()),
            },
            Err(Stop::Damaged(reason)) => feed.give(|| Err(DataError::dataset(&name, reason))),
            Err(stop) => Err(stop),
        }
    }
}

/// Where records go.
struct Feed<'a> {
    sender: &'a SyncSender<Result<PairRecord>>,
    /// Records still to pass over.
    skip: usize,
    /// Records of this shard so far, those passed over included.
    records: usize,
}

impl Feed<'_> {
    fn give(&mut self, item: impl FnOnce() -> Result<PairRecord>) -> std::result::Result<(), Stop> {
        self.records += 1;
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        self.sender.send(item()).map_err(|_| Stop::Unheard)
    }
}

fn open(place: &Place) -> Result<Box<dyn Read>> {
    match place {
        Place::Local(path) => {
            let file = File::open(path).map_err(|e| DataError::io("read", path, e))?;
            Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
        }
        Place::Remote(url) => Ok(Box::new(remote::open(url)?)),
    }
}

/// Hands a member to the grouper; `part` gets its content where it is of use and within its limit.
pub(super) fn take<P>(
    grouper: &mut Grouper<P>,
    shard: &str,
    mut member: Member<'_>,
    part: impl FnOnce(&mut Member<'_>) -> std::result::Result<Option<P>, Stop>,
) -> std::result::Result<Option<Sample<P>>, Stop> {
    let named = match grouper.name(&member.name, shard) {
        Ok(Some(named)) => named,
        Ok(None) => return Ok(None),
        Err(fault) => return Ok(grouper.refuse(&member.name, fault)),
    };
    let part = match named.role {
        Some(role) if member.size > role.limit() => {
            Err(format!("{:?} has {} bytes, at most {} are read", member.name, member.size, role.limit()))
        }
        Some(_) => Ok(part(&mut member)?),
        None => Ok(None),
    };
    Ok(grouper.push(named, part))
}

/// Ends where the thread that feeds it ends.
struct Records(Receiver<Result<PairRecord>>);

impl Iterator for Records {
    type Item = Result<PairRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.recv().ok()
    }
}

impl Dataset for Remote {
    fn len(&self) -> usize {
        self.shared.counts().values().sum()
    }

    fn count(&self) -> Option<usize> {
        let counts = self.shared.counts();
        (counts.len() == self.shared.places.len()).then(|| counts.values().sum())
    }

    fn pair(&self, index: usize) -> Result<PairRecord> {
        self.stream(index).next().unwrap_or_else(|| Err(out_of_range(index, self.len())))
    }

    fn stream(&self, from: usize) -> Box<dyn Iterator<Item = Result<PairRecord>> + Send + '_> {
        let (sender, receiver) = sync_channel(AHEAD);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("lucid-shards".into());
        match thread.spawn(move || shared.run(from, &sender)) {
            Ok(_) => Box::new(Records(receiver)),
            Err(e) => Box::new(std::iter::once(Err(DataError::io("start a thread for", "the shards", e)))),
        }
    }

    fn learnt(&self) -> Value {
        let learnt = Learnt { shards: self.names(), records: self.shared.counts().clone() };
        serde_json::to_value(learnt).unwrap_or(Value::Null)
    }

    fn recall(&self, learnt: &Value) -> Result<()> {
        if learnt.is_null() {
            return Ok(());
        }
        let bad = |reason: String| DataError::dataset("what was learnt of the shards", reason);
        let learnt = Learnt::deserialize(learnt).map_err(|e| bad(e.to_string()))?;
        if learnt.shards != self.names() {
            return Err(bad("it is about other shards; go on with the same list of shards, or start anew".into()));
        }
        if learnt.records.keys().any(|&shard| shard >= learnt.shards.len()) {
            return Err(bad("it names more shards than there are".into()));
        }
        self.shared.counts().extend(learnt.records);
        Ok(())
    }

    fn spec(&self) -> DatasetSpec {
        self.spec.clone()
    }
}
