//! Names of the driver's answers, with what a user can do about the common ones: a driver that does not start cannot be
//! asked for them.

use std::ffi::c_int;

/// `CUDA_ERROR_STUB_LIBRARY`
pub(super) const STUB_LIBRARY: c_int = 34;
/// `CUDA_ERROR_NO_DEVICE`
pub(super) const NO_DEVICE: c_int = 100;

/// A `CUresult` in words.
pub(super) fn describe(code: c_int) -> String {
    let (name, advice) = match code {
        1 => ("CUDA_ERROR_INVALID_VALUE", ""),
        2 => ("CUDA_ERROR_OUT_OF_MEMORY", "the device or the host is out of memory"),
        3 => ("CUDA_ERROR_NOT_INITIALIZED", ""),
        4 => ("CUDA_ERROR_DEINITIALIZED", "the driver is shutting down"),
        STUB_LIBRARY => ("CUDA_ERROR_STUB_LIBRARY", ""),
        46 => ("CUDA_ERROR_DEVICE_UNAVAILABLE", "another process may hold the device alone"),
        NO_DEVICE => ("CUDA_ERROR_NO_DEVICE", ""),
        101 => ("CUDA_ERROR_INVALID_DEVICE", ""),
        102 => ("CUDA_ERROR_DEVICE_NOT_LICENSED", "a virtual GPU without its licence"),
        200 => ("CUDA_ERROR_INVALID_IMAGE", ""),
        201 => ("CUDA_ERROR_INVALID_CONTEXT", ""),
        209 => ("CUDA_ERROR_NO_BINARY_FOR_GPU", ""),
        214 => ("CUDA_ERROR_ECC_UNCORRECTABLE", "the memory of the device is faulty"),
        222 => ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the driver is too old"),
        302 => ("CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND", "the driver's libraries do not fit together"),
        303 => ("CUDA_ERROR_SHARED_OBJECT_INIT_FAILED", "the driver's libraries do not fit together"),
        304 => ("CUDA_ERROR_OPERATING_SYSTEM", "the files /dev/nvidia* may be missing or forbidden"),
        719 => ("CUDA_ERROR_LAUNCH_FAILED", ""),
        800 => ("CUDA_ERROR_NOT_PERMITTED", ""),
        801 => ("CUDA_ERROR_NOT_SUPPORTED", ""),
        802 => ("CUDA_ERROR_SYSTEM_NOT_READY", "the fabric manager may not run"),
        803 => ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "libcuda and the kernel module differ: restart after an update"),
        804 => {
            ("CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "take the toolkit's 'compat' folder out of the library path")
        }
        805 => ("CUDA_ERROR_MPS_CONNECTION_FAILED", "the MPS daemon does not answer"),
        999 => ("CUDA_ERROR_UNKNOWN", "the kernel module may have to be loaded again"),
        _ => ("an unknown code", ""),
    };
    let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
    format!("{code} ({name}){advice}")
}
