//! The kernels as C++ on the CPU: for tests, of logic, indices and barriers, not of speed.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::driver::{Argument, Driver, Limits, Shape};
use super::graphs::{GraphDriver, Operation};
use crate::error::KernelError;

unsafe extern "C" {
    fn lucid_shim_launch(
        kernel: *const c_char,
        grid: *const c_uint,
        block: *const c_uint,
        shared_bytes: c_ulonglong,
        arguments: *mut *mut c_void,
        order: c_int,
        seed: c_ulonglong,
        message: *mut c_char,
        message_capacity: c_ulonglong,
    ) -> c_int;
}

/// The order in which a block's threads run between barriers. Results must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By rising index.
    Forward,
    /// By falling index.
    Reverse,
    /// Drawn anew for each turn, from this seed.
    Random(u64),
}

/// A device made of host memory. Allocations have their exact size, so that a sanitizer sees what passes their end.
pub struct Shim {
    order: Order,
    allocations: Mutex<HashMap<u64, Layout>>,
    allocations_left: AtomicI64,
    launches_left: AtomicI64,
    waits: AtomicU64,
    /// Copies ahead that are not made yet.
    ahead: Mutex<Vec<Ahead>>,
    beside: AtomicU64,
    copies: CopiesAhead,
    locked_memory: bool,
    graphs: bool,
}

/// When a copy ahead takes place. Results must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopiesAhead {
    /// At once, so that whoever copies over what is still in use is found out.
    Early,
    /// As late as may be, so that whoever does not wait for them, or changes what they read, is found out.
    Late,
}

/// A copy to make: addresses of the device and of the host, and bytes.
struct Ahead {
    to: u64,
    from: usize,
    bytes: usize,
}

impl Shim {
    /// A device that runs threads in `order`.
    #[must_use]
    pub fn new(order: Order) -> Self {
        let (allocations_left, launches_left) = (AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX));
        Self {
            order,
            allocations: Mutex::default(),
            allocations_left,
            launches_left,
            waits: AtomicU64::new(0),
            ahead: Mutex::default(),
            beside: AtomicU64::new(0),
            copies: CopiesAhead::Late,
            locked_memory: true,
            graphs: true,
        }
    }

    /// The same device on a system that grants no page-locked memory.
    #[must_use]
    pub fn without_locked_memory(self) -> Self {
        Self { locked_memory: false, ..self }
    }

    /// The same device with a driver that makes no graphs.
    #[must_use]
    pub fn without_graphs(self) -> Self {
        Self { graphs: false, ..self }
    }

    /// The same device with copies ahead at that time.
    #[must_use]
    pub fn with_copies_ahead(self, copies: CopiesAhead) -> Self {
        Self { copies, ..self }
    }

    /// How many launches came while copies were under way.
    pub fn launches_beside_copies(&self) -> u64 {
        self.beside.load(Ordering::Relaxed)
    }

    /// Memory of `bytes`, of the device or locked.
    fn memory(&self, bytes: usize) -> Result<u64, KernelError> {
        let refused = KernelError::Memory { bytes };
        let Ok(layout) = Layout::from_size_align(bytes, 256) else { return Err(refused) };
        // SAFETY: callers ask for at least one byte.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return Err(refused);
        }
        // Contents are unspecified; NaN shows who reads them.
        // SAFETY: the allocation has `bytes` bytes.
        unsafe { start.write_bytes(0xFF, bytes) };
        let address = start as u64;
        self.allocations.lock().unwrap_or_else(PoisonError::into_inner).insert(address, layout);
        Ok(address)
    }

    /// Whether an allocation was made to fail.
    pub fn allocation_failed(&self) -> bool {
        self.allocations_left.load(Ordering::Relaxed) < 0
    }

    /// Makes the copies that were begun.
    fn make_copies(&self) {
        for Ahead { to, from, bytes } in self.ahead.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: the promise of whoever began the copy.
            unsafe { (to as *mut u8).copy_from_nonoverlapping(from as *const u8, bytes) };
        }
    }

    /// How often the host has waited for the device.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Lets `count` more allocations succeed; the one behind them fails.
    pub fn fail_allocation_after(&self, count: i64) {
        self.allocations_left.store(count, Ordering::Relaxed);
    }

    /// Lets `count` more launches succeed; those behind them fail, as on a device that is lost.
    pub fn fail_launches_after(&self, count: i64) {
        self.launches_left.store(count, Ordering::Relaxed);
    }

    /// Allocations that live.
    pub fn live_allocations(&self) -> usize {
        self.allocations.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Driver for Shim {
    fn name(&self) -> &'static str {
        "cuda-shim"
    }

    fn limits(&self) -> Limits {
        // The shared memory of sm_86; a cache so small that tests pass through several chunks.
        Limits { shared_bytes: 99 << 10, l2_bytes: 128 << 10, multiprocessors: 4, wgmma: false }
    }

    fn free_bytes(&self) -> Option<usize> {
        None
    }

    fn allocate(&self, bytes: usize) -> Result<u64, KernelError> {
        if self.allocations_left.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(KernelError::Memory { bytes });
        }
        self.memory(bytes)
    }

    unsafe fn release(&self, address: u64) {
        self.make_copies();
        let layout = self.allocations.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        if let Some(layout) = layout {
            // SAFETY: `allocate` made it with this layout, and it is off the list now.
            unsafe { dealloc(address as *mut u8, layout) };
        }
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn upload(&self, address: u64, data: &[u8]) -> Result<(), KernelError> {
        // SAFETY: the caller's promise; device and host memory do not overlap.
        unsafe { (address as *mut u8).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        Ok(())
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, KernelError> {
        if self.locked_memory { self.memory(bytes) } else { Err(KernelError::Memory { bytes }) }
    }

    unsafe fn release_host(&self, address: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.release(address) };
    }

    unsafe fn upload_ahead(&self, address: u64, data: *const [u8]) -> Result<(), KernelError> {
        let ahead = Ahead { to: address, from: data.cast::<u8>() as usize, bytes: data.len() };
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).push(ahead);
        if self.copies == CopiesAhead::Early {
            self.make_copies();
        }
        Ok(())
    }

    fn catch_up(&self) -> Result<(), KernelError> {
        self.make_copies();
        Ok(())
    }

    fn finish_copies(&self) -> Result<(), KernelError> {
        self.make_copies();
        Ok(())
    }

    unsafe fn download(&self, address: u64, out: &mut [u8]) -> Result<(), KernelError> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { out.as_mut_ptr().copy_from_nonoverlapping(address as *const u8, out.len()) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), KernelError> {
        let failed = |reason: String| KernelError::Device { operation: kernel.into(), reason };
        if self.launches_left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(failed("the device is lost (injected)".into()));
        }
        if !self.ahead.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.beside.fetch_add(1, Ordering::Relaxed);
        }
        let name = CString::new(kernel).map_err(|error| failed(error.to_string()))?;
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(Argument::pointer).collect();
        let (order, seed) = match self.order {
            Order::Forward => (0, 0),
            Order::Reverse => (1, 0),
            Order::Random(seed) => (2, seed),
        };
        let mut message: [c_char; 1024] = [0; 1024];
        // SAFETY: grid and block are three numbers each, the message has the capacity named, and the arguments are the
        // kernel's by the caller's promise.
        let status = unsafe {
            lucid_shim_launch(
                name.as_ptr(),
                shape.grid.as_ptr(),
                [shape.block, 1, 1].as_ptr(),
                shape.shared as c_ulonglong,
                pointers.as_mut_ptr(),
                order,
                seed,
                message.as_mut_ptr(),
                message.len() as c_ulonglong,
            )
        };
        match status {
            0 => Ok(()),
            1 => Err(failed("no such kernel".into())),
            _ => {
                // SAFETY: the shim ends its message with a NUL within the capacity.
                let text = unsafe { CStr::from_ptr(message.as_ptr()) };
                Err(failed(text.to_string_lossy().into_owned()))
            }
        }
    }
}

/// A graph is a list, gone through when it is replayed.
impl GraphDriver for Shim {
    type Graph = Vec<Operation>;

    unsafe fn graph(&self, operations: &[Operation]) -> Result<Vec<Operation>, KernelError> {
        if self.graphs {
            Ok(operations.to_vec())
        } else {
            Err(KernelError::Device { operation: "graph".into(), reason: "refused".into() })
        }
    }

    unsafe fn set(&self, graph: &mut Vec<Operation>, index: usize, operation: &Operation) -> Result<(), KernelError> {
        graph[index] = operation.clone();
        Ok(())
    }

    unsafe fn replay(&self, graph: &mut Vec<Operation>) -> Result<(), KernelError> {
        graph.iter_mut().try_for_each(|operation| match operation {
            // SAFETY: the caller's promise.
            Operation::Launch { kernel, shape, arguments } => unsafe { self.launch(kernel, *shape, arguments) },
            // SAFETY: likewise.
            Operation::Clear { address, bytes } => unsafe { self.clear(*address, *bytes) },
        })
    }
}
