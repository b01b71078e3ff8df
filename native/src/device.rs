//! What the machine offers and what is used: an honest look at CUDA, and the CPU's features.
//!
//! libcuda is opened with our own handful of symbols, before and without any CUDA library, so that a machine without a
//! driver gets an answer instead of a load error.

use std::ffi::c_int;

use libloading::{Library, Symbol};
use napi::Result;
use napi_derive::napi;
use serde::Serialize;
use serde_json::json;

use crate::error::Failure;

/// What the probe of libcuda found.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Cuda {
    /// libcuda cannot be opened.
    NoDriver { reason: String },
    /// A library of that name opens but does not work: a stub, or a driver that is broken.
    Stub { reason: String },
    /// The driver works and sees no device.
    NoDevice { reason: String },
    /// There is a device that this build cannot use.
    #[serde(rename_all = "camelCase")]
    PresentButUnused { devices: i32, driver_version: String, reason: String },
}

impl Cuda {
    fn reason(&self) -> &str {
        match self {
            Self::NoDriver { reason }
            | Self::Stub { reason }
            | Self::NoDevice { reason }
            | Self::PresentButUnused { reason, .. } => reason,
        }
    }
}

#[cfg(windows)]
const LIBRARIES: &[&str] = &["nvcuda.dll"];
#[cfg(not(windows))]
const LIBRARIES: &[&str] = &["libcuda.so.1", "libcuda.so"];

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: c_int = 100;
/// `CUDA_ERROR_STUB_LIBRARY`.
const STUB_LIBRARY: c_int = 34;

fn probe() -> Cuda {
    if cfg!(target_os = "macos") {
        return Cuda::NoDriver { reason: "CUDA does not exist on macOS".into() };
    }
    let mut missing = None;
    for name in LIBRARIES {
        // SAFETY: opening the driver library runs its initialisers, which NVIDIA's driver allows at any time.
        match unsafe { Library::new(*name) } {
            Ok(library) => return ask(&library),
            Err(error) => {
                use std::error::Error as _;
                // libloading's own text says only that dlopen failed; its source names the file. The first name is the
                // driver's own, the others are links to it.
                missing.get_or_insert_with(|| error.source().map_or_else(|| error.to_string(), ToString::to_string));
            }
        }
    }
    let missing = missing.unwrap_or_default();
    Cuda::NoDriver { reason: format!("no NVIDIA driver: {missing}") }
}

fn ask(library: &Library) -> Cuda {
    // SAFETY: the three functions have had these signatures since CUDA 2, and the pointers handed over are valid.
    unsafe {
        let init: std::result::Result<Symbol<'_, unsafe extern "C" fn(u32) -> c_int>, _> = library.get(b"cuInit\0");
        let count: std::result::Result<Symbol<'_, unsafe extern "C" fn(*mut c_int) -> c_int>, _> =
            library.get(b"cuDeviceGetCount\0");
        let version: std::result::Result<Symbol<'_, unsafe extern "C" fn(*mut c_int) -> c_int>, _> =
            library.get(b"cuDriverGetVersion\0");
        let (Ok(init), Ok(count), Ok(version)) = (init, count, version) else {
            return Cuda::Stub { reason: "the libcuda found lacks the driver functions".into() };
        };
        match init(0) {
            0 => {}
            NO_DEVICE => return Cuda::NoDevice { reason: "the NVIDIA driver sees no device".into() },
            STUB_LIBRARY => {
                return Cuda::Stub { reason: "the libcuda found is the toolkit's stub, not a driver".into() };
            }
            status => return Cuda::Stub { reason: format!("the NVIDIA driver does not start (cuInit gave {status})") },
        }
        let mut devices: c_int = 0;
        let mut driver: c_int = 0;
        if count(&raw mut devices) != 0 || devices == 0 {
            return Cuda::NoDevice { reason: "the NVIDIA driver sees no device".into() };
        }
        let known = version(&raw mut driver) == 0;
        Cuda::PresentButUnused {
            devices,
            driver_version: if known { format!("{}.{}", driver / 1000, driver % 1000 / 10) } else { "unknown".into() },
            reason: format!("{devices} CUDA device(s) present, but this build has no CUDA kernels yet"),
        }
    }
}

fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! note {
            ($($name:tt),*) => { $( if std::arch::is_x86_feature_detected!($name) { found.push($name); } )* };
        }
        note!("sse4.2", "avx", "fma", "avx2", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! note {
            ($($name:tt),*) => { $( if std::arch::is_aarch64_feature_detected!($name) { found.push($name); } )* };
        }
        note!("neon", "fp16", "dotprod", "bf16", "i8mm");
    }
    found
}

/// Refuses a device that cannot be used. `None` and `auto` fall back to the CPU; an explicit wish does not.
pub fn check(request: Option<&str>) -> std::result::Result<(), Failure> {
    match request.unwrap_or("auto") {
        "auto" | "cpu" => Ok(()),
        cuda if cuda == "cuda" || cuda.strip_prefix("cuda:").is_some_and(|index| index.parse::<u32>().is_ok()) => {
            let cuda_state = probe();
            Err(Failure::new(
                "E_DEVICE",
                format!("option 'device' is '{cuda}', which cannot be used: {}", cuda_state.reason()),
                Some("leave device out, or set it to 'auto' or 'cpu'".into()),
                json!({ "option": "device", "found": cuda, "expected": "auto or cpu", "cuda": cuda_state }),
            ))
        }
        other => Err(Failure::option("device", format!("'{other}'"), "'auto', 'cpu', 'cuda' or 'cuda:N'")),
    }
}

/// What would be used and why, as JSON.
#[napi(catch_unwind)]
pub fn device() -> Result<String> {
    let cuda = probe();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let reason = format!("the CPU is used: {}", cuda.reason());
    Ok(json!({
        "device": "cpu",
        "reason": reason,
        "cuda": cuda,
        "cpu": { "arch": std::env::consts::ARCH, "os": std::env::consts::OS, "threads": threads, "features": features() },
    })
    .to_string())
}

/// Refuses a device that cannot be used.
#[napi(catch_unwind)]
pub fn check_device(request: String) -> Result<()> {
    check(Some(&request))?;
    Ok(())
}
