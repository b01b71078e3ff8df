//! Launches kept back and given together, as graphs that the device knows from the steps before.
//!
//! A launch costs the host some microseconds and the device a gap; a graph of many costs the host little more than one, and
//! the device knows what comes next. [`Graphs`] stands between a backend and its device: launches and clearings wait in a
//! queue until there are [`MOST`] of them or somebody needs their results. A sequence of kernels that comes for the second
//! time becomes a graph; from then on only the operations whose grid or arguments have changed are set anew (ragged pairs
//! change most, others none), and the graph is replayed. Operations keep their order, so that the bits are the same.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::driver::{Argument, Driver, Limits, Shape};
use crate::error::KernelError;

/// Operations of a graph: few enough that the device begins while the host collects the next.
const MOST: usize = 64;
/// Fewer are given one by one.
const LEAST: usize = 4;
/// Sequences that are remembered; a training step has some ten.
const MOST_KNOWN: usize = 256;

/// What can be kept back.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A kernel.
    Launch {
        /// Its name.
        kernel: &'static str,
        /// Its grid, block and shared memory.
        shape: Shape,
        /// Its parameters.
        arguments: Vec<Argument>,
    },
    /// Bytes to set to zero.
    Clear {
        /// Where they begin.
        address: u64,
        /// How many there are.
        bytes: usize,
    },
}

impl Operation {
    /// The kernel, or `memset`: what stays the same in a graph.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Launch { kernel, .. } => kernel,
            Self::Clear { .. } => "memset",
        }
    }

    /// Whether it does the same, to the bit.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Launch { kernel, shape, arguments },
                Self::Launch { kernel: other, shape: other_shape, arguments: others },
            ) => {
                kernel == other
                    && shape == other_shape
                    && arguments.len() == others.len()
                    && arguments.iter().zip(others).all(|(a, b)| a.bits() == b.bits())
            }
            (Self::Clear { address, bytes }, Self::Clear { address: other, bytes: others }) => {
                address == other && bytes == others
            }
            _ => false,
        }
    }
}

/// A device that takes many operations at once.
pub trait GraphDriver: Driver {
    /// Operations that the device knows, each to be done after the one before.
    type Graph: Send;

    /// Whether operations may be kept back at present.
    fn may_wait(&self) -> bool {
        true
    }

    /// Makes a graph of `operations`; nothing runs yet.
    ///
    /// # Safety
    /// As [`Driver::launch`] and [`Driver::clear`] for each of them, until it is set to another.
    unsafe fn graph(&self, operations: &[Operation]) -> Result<Self::Graph, KernelError>;

    /// Puts `operation`, of the same name, in the place of operation `index`, from the next replay on.
    ///
    /// # Safety
    /// As [`GraphDriver::graph`].
    unsafe fn set(&self, graph: &mut Self::Graph, index: usize, operation: &Operation) -> Result<(), KernelError>;

    /// Gives the graph to the device.
    ///
    /// # Safety
    /// What its operations were promised holds now.
    unsafe fn replay(&self, graph: &mut Self::Graph) -> Result<(), KernelError>;
}

/// A sequence that has come before, as it was last given.
struct Known<G> {
    operations: Vec<Operation>,
    graph: Option<G>,
}

struct Queue<G> {
    on: bool,
    pending: Vec<Operation>,
    known: HashMap<Vec<&'static str>, Known<G>>,
    /// An error that nobody could be told.
    failed: Option<KernelError>,
    counts: Counts,
}

/// What was given to the device since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Graphs made.
    pub made: u64,
    /// Graphs replayed.
    pub replayed: u64,
    /// Operations of replayed graphs.
    pub operations: u64,
    /// Those among them that had changed.
    pub changed: u64,
}

/// A device whose launches are given as graphs, where that is on.
pub struct Graphs<D: GraphDriver> {
    // Its graphs are dropped before their device.
    queue: Mutex<Queue<D::Graph>>,
    driver: D,
}

impl<D: GraphDriver> Graphs<D> {
    /// `driver`, by graphs if `on`, else launch by launch.
    pub fn new(driver: D, on: bool) -> Self {
        let queue = Queue { on, pending: Vec::new(), known: HashMap::new(), failed: None, counts: Counts::default() };
        Self { queue: Mutex::new(queue), driver }
    }

    /// The device. What it is given directly may pass what waits here.
    pub const fn inner(&self) -> &D {
        &self.driver
    }

    /// Whether launches are given as graphs. A device that refused one is not asked again.
    pub fn on(&self) -> bool {
        self.queue().on
    }

    /// Gives launches as graphs from now on, or one by one.
    pub fn set_on(&self, on: bool) -> Result<(), KernelError> {
        let queue = &mut *self.queue();
        self.flush(queue)?;
        queue.on = on;
        Ok(())
    }

    /// What was given by graphs.
    pub fn counts(&self) -> Counts {
        self.queue().counts
    }

    /// Gives the device what waits.
    pub fn give(&self) -> Result<(), KernelError> {
        self.flush(&mut self.queue())
    }

    fn queue(&self) -> MutexGuard<'_, Queue<D::Graph>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an operation back, or tells that it is to be given now, after all that waited.
    ///
    /// # Safety
    /// The promises of the operation hold now, and as long as it waits: see [`Graphs::flush`].
    unsafe fn keep(&self, operation: impl FnOnce() -> Operation) -> Result<bool, KernelError> {
        let queue = &mut *self.queue();
        if !queue.on || !self.driver.may_wait() {
            return self.flush(queue).map(|()| false);
        }
        queue.failed.take().map_or(Ok(()), Err)?;
        queue.pending.push(operation());
        if queue.pending.len() == MOST {
            self.flush(queue)?;
        }
        Ok(true)
    }

    /// One by one.
    fn play(&self, operations: &[Operation]) -> Result<(), KernelError> {
        operations.iter().try_for_each(|operation| match operation {
            // SAFETY: the promise of whoever gave the operation; memory is released after what waits for it alone.
            Operation::Launch { kernel, shape, arguments } => unsafe {
                self.driver.launch(kernel, *shape, &mut arguments.clone())
            },
            // SAFETY: likewise.
            Operation::Clear { address, bytes } => unsafe { self.driver.clear(*address, *bytes) },
        })
    }

    /// Gives the device what waits. Whatever else it is given, or takes away, comes after that: so memory that waiting
    /// operations use is live.
    fn flush(&self, queue: &mut Queue<D::Graph>) -> Result<(), KernelError> {
        queue.failed.take().map_or(Ok(()), Err)?;
        let operations = std::mem::take(&mut queue.pending);
        if operations.len() < LEAST {
            return self.play(&operations);
        }
        let names: Vec<_> = operations.iter().map(Operation::name).collect();
        let Some(known) = queue.known.get_mut(&names) else {
            if queue.known.len() == MOST_KNOWN {
                queue.known.clear();
            }
            self.play(&operations)?;
            queue.known.insert(names, Known { operations, graph: None });
            return Ok(());
        };
        let changed = match self.prepare(known, operations) {
            Ok(changed) => changed,
            Err(operations) => {
                // The device knows no such graphs, and launches by themselves do the same.
                (queue.on, queue.known) = (false, HashMap::new());
                return self.play(&operations);
            }
        };
        let Some(graph) = &mut known.graph else { return Ok(()) };
        queue.counts.made += u64::from(changed.is_none());
        queue.counts.replayed += 1;
        queue.counts.operations += names.len() as u64;
        queue.counts.changed += changed.unwrap_or(0) as u64;
        // SAFETY: every operation is one that was just given.
        unsafe { self.driver.replay(graph) }
    }

    /// Makes the graph of `known` one of `operations`: how many had changed, nothing for a new graph. Gives `operations` back
    /// where the device refuses.
    fn prepare(
        &self,
        known: &mut Known<D::Graph>,
        operations: Vec<Operation>,
    ) -> Result<Option<usize>, Vec<Operation>> {
        let Some(graph) = &mut known.graph else {
            // SAFETY: the promises of whoever gave the operations; nothing is replayed before all are set anew.
            let Ok(graph) = (unsafe { self.driver.graph(&operations) }) else { return Err(operations) };
            (known.graph, known.operations) = (Some(graph), operations);
            return Ok(None);
        };
        let mut changed = 0;
        for (index, (operation, last)) in operations.iter().zip(&known.operations).enumerate() {
            if operation.same(last) {
                continue;
            }
            // SAFETY: as above.
            if unsafe { self.driver.set(graph, index, operation) }.is_err() {
                return Err(operations);
            }
            changed += 1;
        }
        known.operations = operations;
        Ok(Some(changed))
    }
}

impl<D: GraphDriver> Driver for Graphs<D> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn limits(&self) -> Limits {
        self.driver.limits()
    }

    fn free_bytes(&self) -> Option<usize> {
        self.driver.free_bytes()
    }

    /// What waits knows nothing of new memory, so that it need not be given first.
    fn allocate(&self, bytes: usize) -> Result<u64, KernelError> {
        self.driver.allocate(bytes)
    }

    unsafe fn release(&self, address: u64) {
        let queue = &mut *self.queue();
        if let Err(error) = self.flush(queue) {
            queue.failed = Some(error);
        }
        // SAFETY: the caller's promise.
        unsafe { self.driver.release(address) }
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe {
            if self.keep(|| Operation::Clear { address, bytes })? { Ok(()) } else { self.driver.clear(address, bytes) }
        }
    }

    unsafe fn upload(&self, address: u64, data: &[u8]) -> Result<(), KernelError> {
        self.give()?;
        // SAFETY: the caller's promise.
        unsafe { self.driver.upload(address, data) }
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, KernelError> {
        self.driver.allocate_host(bytes)
    }

    unsafe fn release_host(&self, address: u64) {
        // SAFETY: the caller's promise; no operation that can wait here uses the host's memory.
        unsafe { self.driver.release_host(address) }
    }

    unsafe fn upload_ahead(&self, address: u64, data: *const [u8]) -> Result<(), KernelError> {
        self.give()?;
        // SAFETY: the caller's promise.
        unsafe { self.driver.upload_ahead(address, data) }
    }

    /// What waits does not need the copies.
    fn catch_up(&self) -> Result<(), KernelError> {
        self.give()?;
        self.driver.catch_up()
    }

    fn finish_copies(&self) -> Result<(), KernelError> {
        self.driver.finish_copies()
    }

    unsafe fn download(&self, address: u64, out: &mut [u8]) -> Result<(), KernelError> {
        self.give()?;
        // SAFETY: the caller's promise.
        unsafe { self.driver.download(address, out) }
    }

    unsafe fn launch(&self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe {
            if self.keep(|| Operation::Launch { kernel, shape, arguments: arguments.to_vec() })? {
                return Ok(());
            }
            self.driver.launch(kernel, shape, arguments)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_a_bit_or_in_its_grid_is_not_the_same() {
        let launch = |x: u32, arguments: &[Argument]| Operation::Launch {
            kernel: "a",
            shape: Shape { grid: [x, 1, 1], block: 32, shared: 0 },
            arguments: arguments.to_vec(),
        };
        let given = launch(2, &[Argument::F32(0.0), Argument::U32(1)]);
        assert!(given.same(&given.clone()));
        assert!(launch(1, &[Argument::F64(f64::NAN)]).same(&launch(1, &[Argument::F64(f64::NAN)])));
        for other in [
            launch(3, &[Argument::F32(0.0), Argument::U32(1)]),
            launch(2, &[Argument::F32(-0.0), Argument::U32(1)]),
            launch(2, &[Argument::F32(0.0), Argument::U64(1)]),
            launch(2, &[Argument::F32(0.0)]),
            Operation::Clear { address: 2, bytes: 1 },
        ] {
            assert!(!given.same(&other), "{other:?}");
        }
        assert!(!Operation::Clear { address: 2, bytes: 1 }.same(&Operation::Clear { address: 2, bytes: 3 }));
    }
}
