//! From a device that the probe found to a backend on it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use super::probe::probe;
use super::{Cuda, Gpu, Graphs};
use crate::backend::Loss;
use crate::device::Device;
use crate::error::KernelError;

/// Has launches given as CUDA graphs where it is `1` (docs/gpu.md).
const GRAPHS: &str = "LUCID_CUDA_GRAPHS";

/// The backend on device `ordinal`, or on the first that can be used. Every failure but a lack of memory, cudarc's panics
/// included, is [`KernelError::Unavailable`].
pub fn open(ordinal: Option<usize>) -> Result<Cuda<Graphs<Gpu>>, KernelError> {
    let unavailable = |reason: String| KernelError::Unavailable { device: "cuda", reason };
    let ordinal = probe().choose(ordinal).map_err(unavailable)?.ordinal;
    let made = quietly(|| {
        let graphs = std::env::var_os(GRAPHS).is_some_and(|value| value == "1");
        let backend = Cuda::new(Arc::new(Graphs::new(Gpu::new(ordinal)?, graphs)))?;
        try_out(&backend)?;
        Ok(backend)
    });
    match made {
        Ok(Err(KernelError::Device { operation, reason })) => Err(unavailable(format!("{operation}: {reason}"))),
        Ok(made) => made,
        Err(panic) => Err(unavailable(panic)),
    }
}

/// One kernel with a known result: a driver that takes launches and does not run them must not pass for a GPU.
fn try_out(backend: &Cuda<Graphs<Gpu>>) -> Result<(), KernelError> {
    let (a, b) = (backend.upload(&[3.0, 1.0])?, backend.upload(&[1.0, 4.0])?);
    let mut out = backend.zeros(2)?;
    backend.difference(&a, &b, 2, &mut out)?;
    let found: Vec<f32> = backend.read_vec(&out, 2)?;
    if found == [2.0, -3.0] {
        return Ok(());
    }
    let reason = format!("a first kernel gave {found:?}; expected [2.0, -3.0]");
    Err(KernelError::Unavailable { device: "cuda", reason })
}

/// The result of `work`, or the text of its panic, which is not printed.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    // Replacing the hook for the length of a call would race with panics of other threads.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.try_with(Cell::get).unwrap_or(false) {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    outcome.map_err(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        text.unwrap_or_else(|| "a panic without a message".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_value() {
        assert_eq!(quietly(|| 1), Ok(1));
        assert_eq!(quietly(|| -> i32 { panic!("Missing symbol {}", "cuX") }), Err("Missing symbol cuX".into()));
    }

    /// Whatever this machine has, the answer comes without a panic, and a device is opened only if there is one.
    #[test]
    fn opening_agrees_with_the_probe() {
        let found = probe();
        let opened = open(None);
        if found.choose(None).is_err() {
            assert!(matches!(opened, Err(KernelError::Unavailable { device: "cuda", .. })));
        }
        assert!(matches!(open(Some(usize::MAX)), Err(KernelError::Unavailable { .. })));
    }
}
