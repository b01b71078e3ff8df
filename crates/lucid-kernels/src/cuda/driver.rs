//! What the backend needs of a device: memory, copies, launches in order. A GPU answers it through the driver API
//! (`gpu`), the CPU through the shim that runs the same kernels as C++ (`shim`).

use std::ffi::c_void;

use crate::error::KernelError;

/// Numbers that decide how kernels are launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most dynamic shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// Second-level cache, in bytes.
    pub l2_bytes: usize,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Whether kernels for sm_90a run: a Hopper GPU.
    pub wgmma: bool,
}

/// One parameter of a kernel; pointers are [`Argument::U64`].
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// `u32`
    U32(u32),
    /// `u64`, or a device address
    U64(u64),
    /// `float`
    F32(f32),
    /// `double`
    F64(f64),
}

macro_rules! argument {
    ($($variant:ident $type:ty),+) => { $(
        impl From<$type> for Argument {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        }
    )+ };
}
argument!(U32 u32, U64 u64, F32 f32, F64 f64);

impl Argument {
    /// Its type and its bits.
    pub(crate) const fn bits(self) -> (u8, u64) {
        match self {
            Self::U32(value) => (0, value as u64),
            Self::U64(value) => (1, value),
            Self::F32(value) => (2, value.to_bits() as u64),
            Self::F64(value) => (3, value.to_bits()),
        }
    }

    /// Where its bytes lie, as `cuLaunchKernel` wants them.
    pub(crate) fn pointer(&mut self) -> *mut c_void {
        match self {
            Self::U32(value) => std::ptr::from_mut(value).cast(),
            Self::U64(value) => std::ptr::from_mut(value).cast(),
            Self::F32(value) => std::ptr::from_mut(value).cast(),
            Self::F64(value) => std::ptr::from_mut(value).cast(),
        }
    }
}

/// Shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: usize,
}

/// A device. Operations take effect in the order they are given; only `download` waits for them. Copies ahead are the exception:
/// see [`Driver::upload_ahead`].
///
/// Addresses are valid where they lie within a live allocation of the same driver. The caller keeps lengths and the types of
/// kernels' parameters right.
pub trait Driver: Send + Sync + 'static {
    /// `cuda` or `cuda-shim`.
    fn name(&self) -> &'static str;

    /// What launches may ask for.
    fn limits(&self) -> Limits;

    /// Memory that is free on the device, where it has its own.
    fn free_bytes(&self) -> Option<usize>;

    /// Memory of `bytes` > 0, contents unspecified.
    fn allocate(&self, bytes: usize) -> Result<u64, KernelError>;

    /// Gives an allocation back once the operations and copies before are done.
    ///
    /// # Safety
    /// `address` came from [`Driver::allocate`] and is not used afterwards.
    unsafe fn release(&self, address: u64);

    /// Sets bytes to zero.
    ///
    /// # Safety
    /// `address .. address + bytes` lies within one allocation.
    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<(), KernelError>;

    /// Copies to the device; `data` may change afterwards.
    ///
    /// # Safety
    /// `address .. address + data.len()` lies within one allocation.
    unsafe fn upload(&self, address: u64, data: &[u8]) -> Result<(), KernelError>;

    /// Page-locked host memory of `bytes` > 0, contents unspecified. A system may refuse it where ordinary memory is left.
    fn allocate_host(&self, bytes: usize) -> Result<u64, KernelError>;

    /// Gives page-locked memory back.
    ///
    /// # Safety
    /// `address` came from [`Driver::allocate_host`] and is not used afterwards, nor by a copy under way.
    unsafe fn release_host(&self, address: u64);

    /// Begins a copy to the device: after the operations given before, beside those given after, until [`Driver::catch_up`].
    ///
    /// # Safety
    /// `address .. address + data.len()` lies within one allocation, which no operation given before [`Driver::catch_up`] uses.
    /// `data` stays valid and unchanged until [`Driver::finish_copies`].
    unsafe fn upload_ahead(&self, address: u64, data: *const [u8]) -> Result<(), KernelError>;

    /// Operations given from now on come after every copy begun so far.
    fn catch_up(&self) -> Result<(), KernelError>;

    /// Waits until every copy begun so far is done.
    fn finish_copies(&self) -> Result<(), KernelError>;

    /// Copies to the host, after everything before is done.
    ///
    /// # Safety
    /// `address .. address + out.len()` lies within one allocation.
    unsafe fn download(&self, address: u64, out: &mut [u8]) -> Result<(), KernelError>;

    /// Launches a kernel.
    ///
    /// # Safety
    /// The arguments are those of the kernel's signature, and every address covers what the kernel's contract says.
    unsafe fn launch(&self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), KernelError>;
}
