//! A second stream, in which copies to the device run beside the kernels of the first.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUevent_wait_flags, CUstream};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use super::timing::Event;

/// Copies begun and not yet waited for.
struct Order {
    /// Recorded in the kernels' stream before a copy.
    kernels: Event,
    /// Recorded in the copies' stream after the last copy.
    copies: Event,
    /// Whether the kernels' stream has yet to wait for `copies`.
    behind: bool,
}

/// The stream of copies. The current context must be its own in every call.
pub(super) struct Copies {
    /// Recording an event and waiting for it belong together. Dropped first: the stream may hold the last of the context.
    order: Mutex<Order>,
    stream: Arc<CudaStream>,
}

/// What is given to `stream` from now on comes after what `event` was last recorded behind.
fn wait(stream: CUstream, event: &Event) -> Result<(), DriverError> {
    // SAFETY: both are live and of the current context.
    unsafe { result::stream::wait_event(stream, event.0, CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }
}

impl Copies {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let stream = context.new_stream()?;
        let order = Order { kernels: Event::untimed()?, copies: Event::untimed()?, behind: false };
        Ok(Self { stream, order: Mutex::new(order) })
    }

    /// Begins a copy that comes after what `kernels` has been given.
    ///
    /// # Safety
    /// As [`super::Driver::upload_ahead`].
    pub unsafe fn begin(&self, kernels: CUstream, address: u64, data: &[u8]) -> Result<(), DriverError> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.kernels.record(kernels)?;
        wait(self.stream.cu_stream(), &order.kernels)?;
        order.behind = true;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_htod_async(address, data, self.stream.cu_stream()) }
    }

    /// What `kernels` is given from now on comes after the copies begun so far.
    pub fn before(&self, kernels: CUstream) -> Result<(), DriverError> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.behind {
            order.copies.record(self.stream.cu_stream())?;
            wait(kernels, &order.copies)?;
            order.behind = false;
        }
        Ok(())
    }

    /// Waits until the copies begun so far are done.
    pub fn finish(&self) -> Result<(), DriverError> {
        self.stream.synchronize()
    }
}
