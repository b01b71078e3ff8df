//! Times of launches on a GPU, by events in its stream.

use cudarc::driver::sys::{CUevent, CUevent_flags, CUstream};
use cudarc::driver::{DriverError, result};

/// A kernel, or `memset`, and the seconds from the device's start with it to its end. A kernel of a few microseconds that the
/// host gives late counts the wait for the host too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static str,
    /// Seconds on the device.
    pub seconds: f64,
}

/// An event that is given back.
pub(super) struct Event(pub CUevent);

impl Event {
    fn new() -> Result<Self, DriverError> {
        result::event::create(CUevent_flags::CU_EVENT_DEFAULT).map(Self)
    }

    /// An event for order alone.
    pub fn untimed() -> Result<Self, DriverError> {
        result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).map(Self)
    }

    pub fn record(&self, stream: CUstream) -> Result<(), DriverError> {
        // SAFETY: the event is live, and the stream is one of the current context.
        unsafe { result::event::record(self.0, stream) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is live and this is its only owner.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// Launches under way, each between two events.
#[derive(Default)]
pub(super) struct Launches(Vec<(&'static str, Event, Event)>);

impl Launches {
    /// Does `work` between two events in `stream`.
    pub fn around(
        &mut self,
        kernel: &'static str,
        stream: CUstream,
        work: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let (before, after) = (Event::new()?, Event::new()?);
        before.record(stream)?;
        work()?;
        after.record(stream)?;
        self.0.push((kernel, before, after));
        Ok(())
    }

    /// The times, once the stream is done.
    pub fn seconds(self) -> Result<Vec<Launch>, DriverError> {
        let time = |(kernel, before, after): &(&'static str, Event, Event)| {
            // SAFETY: both events are live and were recorded in one stream, which has been waited for.
            let milliseconds = unsafe { result::event::elapsed(before.0, after.0) }?;
            Ok(Launch { kernel, seconds: f64::from(milliseconds) / 1e3 })
        };
        self.0.iter().map(time).collect()
    }
}
