//! A GPU through the driver API: one context, one stream, the committed fatbins.
//!
//! Nothing here links CUDA: libcuda is opened at run time, and a caller must have seen that it is there and works
//! ([`super::probe`] does) before it makes a [`Gpu`].

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUfunction, CUfunction_attribute, CUmodule, CUresult, CUstream,
};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use super::copies::Copies;
use super::driver::{Argument, Driver, Limits, Shape};
use super::fatbin::{MODULES, Module};
use super::timing::{Launch, Launches};
use crate::error::KernelError;

/// Shared memory that a kernel may name without asking; more must be allowed function by function.
const UNASKED_SHARED: i32 = 48 << 10;

/// A CUDA device.
pub struct Gpu {
    // Their events are dropped before the context.
    /// Where launches are being timed.
    timed: Mutex<Option<Launches>>,
    copies: Copies,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    modules: Vec<CUmodule>,
    functions: HashMap<&'static str, CUfunction>,
    limits: Limits,
    /// Memory comes from the device's pool, in stream order.
    pooled: bool,
}

// SAFETY: handles of the driver API may be used from any thread whose current context is theirs, which every method sets
// first; the tables do not change after construction.
unsafe impl Send for Gpu {}
// SAFETY: as above; the driver serialises calls on a stream.
unsafe impl Sync for Gpu {}

pub(super) fn failed(operation: &str) -> impl FnOnce(DriverError) -> KernelError {
    let operation = operation.to_owned();
    move |error| KernelError::Device { operation, reason: error.to_string() }
}

impl Gpu {
    /// Device `ordinal` of those that the driver shows, with its kernels loaded.
    pub fn new(ordinal: usize) -> Result<Self, KernelError> {
        let context = CudaContext::new(ordinal).map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let stream = context.new_stream().map_err(failed("cuStreamCreate"))?;
        let copies = Copies::new(&context).map_err(failed("cuStreamCreate"))?;
        let attribute = |which| context.attribute(which).map_err(failed("cuDeviceGetAttribute"));
        let size = |value: i32| usize::try_from(value).unwrap_or(0);
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let limits = Limits {
            wgmma: capability == (9, 0),
            shared_bytes: size(shared),
            l2_bytes: size(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
            multiprocessors: size(attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?),
        };
        let pooled = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? > 0;
        let mut gpu = Self {
            context,
            stream,
            copies,
            modules: Vec::new(),
            functions: HashMap::new(),
            limits,
            pooled,
            timed: Mutex::new(None),
        };
        for module in MODULES.iter().filter(|module| limits.wgmma || !module.hopper) {
            gpu.load(module, shared)?;
        }
        Ok(gpu)
    }

    fn load(&mut self, module: &Module, shared: i32) -> Result<(), KernelError> {
        self.bind()?;
        let refused = |error: DriverError| KernelError::Unavailable {
            device: "cuda",
            reason: format!("the driver does not take the kernels of {}: {error}", module.name),
        };
        // SAFETY: the image is a whole fatbin, which names its own length.
        let handle = unsafe { result::module::load_data(module.image.as_ptr().cast()) }.map_err(refused)?;
        self.modules.push(handle);
        for kernel in module.kernels {
            let name = CString::new(*kernel)
                .map_err(|error| KernelError::Unavailable { device: "cuda", reason: error.to_string() })?;
            // SAFETY: the module is loaded and lives as long as `self`.
            let function = unsafe { result::module::get_function(handle, name) }.map_err(refused)?;
            // SAFETY: the function is valid, and asking for less than the device's limit, less what the kernel names
            // itself, is always allowed.
            unsafe {
                let own = result::function::get_function_attribute(
                    function,
                    CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
                )
                .map_err(refused)?;
                if shared > UNASKED_SHARED {
                    result::function::set_function_attribute(
                        function,
                        CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                        shared - own,
                    )
                    .map_err(refused)?;
                }
            }
            self.functions.insert(kernel, function);
        }
        Ok(())
    }

    /// Its context.
    pub(super) const fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The stream of its kernels.
    pub(super) fn stream(&self) -> CUstream {
        self.stream.cu_stream()
    }

    /// A kernel by its name.
    pub(super) fn function(&self, kernel: &'static str) -> Result<CUfunction, KernelError> {
        let reason =
            || KernelError::Device { operation: kernel.into(), reason: "no such kernel in the fatbins".into() };
        self.functions.get(kernel).copied().ok_or_else(reason)
    }

    /// Makes the context this thread's.
    pub(super) fn bind(&self) -> Result<(), KernelError> {
        self.context.bind_to_thread().map_err(failed("cuCtxSetCurrent"))
    }

    /// Waits until everything given so far is done.
    pub fn synchronise(&self) -> Result<(), KernelError> {
        self.bind()?;
        self.stream.synchronize().map_err(failed("cuStreamSynchronize"))
    }

    /// Times every launch and every clearing of memory from now on, until [`Gpu::stop_timing`].
    pub fn start_timing(&self) {
        *self.timed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Launches::default());
    }

    /// Whether launches are timed.
    pub(super) fn times(&self) -> bool {
        self.timed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What ran since [`Gpu::start_timing`], in order, each with the device's time from its start to its end.
    pub fn stop_timing(&self) -> Result<Vec<Launch>, KernelError> {
        self.synchronise()?;
        let launches = self.timed.lock().unwrap_or_else(PoisonError::into_inner).take();
        launches.map_or(Ok(Vec::new()), Launches::seconds).map_err(failed("cuEventElapsedTime"))
    }

    /// Gives `work` to the stream, between two events where launches are timed.
    fn give(&self, name: &'static str, work: impl FnOnce() -> Result<(), DriverError>) -> Result<(), KernelError> {
        self.bind()?;
        let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *timed {
            None => work(),
            Some(launches) => launches.around(name, self.stream.cu_stream(), work),
        }
        .map_err(failed(name))
    }

    /// Name of the device.
    pub fn device_name(&self) -> Result<String, KernelError> {
        self.context.name().map_err(failed("cuDeviceGetName"))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        for module in self.modules.drain(..) {
            // SAFETY: `load` made it, and no launch of its kernels can follow. A device that is lost has nothing to unload.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

impl Driver for Gpu {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn free_bytes(&self) -> Option<usize> {
        self.bind().ok()?;
        result::mem_get_info().ok().map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<u64, KernelError> {
        self.bind()?;
        // SAFETY: a plain allocation; the caller owns it.
        let made = unsafe {
            if self.pooled { result::malloc_async(self.stream.cu_stream(), bytes) } else { result::malloc_sync(bytes) }
        };
        made.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => KernelError::Memory { bytes },
            _ => failed("cuMemAlloc")(error),
        })
    }

    unsafe fn release(&self, address: u64) {
        // Nothing can be told from a drop; a device that is lost has freed its memory.
        if self.bind().is_ok() && self.copies.before(self.stream.cu_stream()).is_ok() {
            // SAFETY: the caller's promise; stream order keeps earlier uses valid.
            let _ = unsafe {
                if self.pooled {
                    result::free_async(address, self.stream.cu_stream())
                } else {
                    result::free_sync(address)
                }
            };
        }
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        self.give("memset", || unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) })
    }

    unsafe fn upload(&self, address: u64, data: &[u8]) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the caller's promise. From pageable memory the driver has taken a copy when the call returns.
        unsafe { result::memcpy_htod_async(address, data, self.stream.cu_stream()) }
            .map_err(failed("cuMemcpyHtoDAsync"))
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, KernelError> {
        self.bind()?;
        // SAFETY: a plain allocation; the caller owns it.
        let made = unsafe { result::malloc_host(bytes, 0) };
        made.map(|start| start as u64).map_err(failed("cuMemHostAlloc"))
    }

    unsafe fn release_host(&self, address: u64) {
        if self.bind().is_ok() {
            // SAFETY: the caller's promise.
            let _ = unsafe { result::free_host(address as *mut c_void) };
        }
    }

    unsafe fn upload_ahead(&self, address: u64, data: *const [u8]) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { self.copies.begin(self.stream.cu_stream(), address, &*data) }.map_err(failed("cuMemcpyHtoDAsync"))
    }

    fn catch_up(&self) -> Result<(), KernelError> {
        self.bind()?;
        self.copies.before(self.stream.cu_stream()).map_err(failed("cuStreamWaitEvent"))
    }

    fn finish_copies(&self) -> Result<(), KernelError> {
        self.bind()?;
        self.copies.finish().map_err(failed("cuStreamSynchronize"))
    }

    unsafe fn download(&self, address: u64, out: &mut [u8]) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the caller's promise; the wait below comes before `out` is looked at.
        unsafe { result::memcpy_dtoh_async(out, address, self.stream.cu_stream()) }
            .map_err(failed("cuMemcpyDtoHAsync"))?;
        self.stream.synchronize().map_err(failed("cuStreamSynchronize"))
    }

    unsafe fn launch(&self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), KernelError> {
        let function = self.function(kernel)?;
        let mut pointers: Vec<_> = arguments.iter_mut().map(Argument::pointer).collect();
        let [x, y, z] = shape.grid;
        let shared = u32::try_from(shape.shared).unwrap_or(u32::MAX);
        let stream = self.stream.cu_stream();
        // SAFETY: the function belongs to this context, and the arguments are its own by the caller's promise.
        self.give(kernel, || unsafe {
            result::launch_kernel(function, (x, y, z), (shape.block, 1, 1), shared, stream, &mut pointers)
        })
    }
}
