//! What the machine offers and what is used: what the probe says of CUDA, and the CPU's features.

use lucid_kernels::KernelError;
use lucid_kernels::cpu::InstructionSet;
use lucid_kernels::cuda::probe;
use lucid_sae::device::Device;
use napi::Result;
use napi_derive::napi;
use serde_json::json;

use crate::error::Failure;

fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! note {
            ($($name:tt),*) => { $( if std::arch::is_x86_feature_detected!($name) { found.push($name); } )* };
        }
        note!("sse4.2", "avx", "fma", "avx2", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16");
        if InstructionSet::Amx.available() {
            found.push("amx-bf16");
        }
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

fn refused(device: Device, reason: &str) -> Failure {
    Failure::new(
        "E_DEVICE",
        format!("option 'device' is '{device}', which cannot be used: {reason}"),
        Some("leave device out, or set it to 'auto' or 'cpu'".into()),
        json!({ "option": "device", "found": device.to_string(), "expected": "auto or cpu", "cuda": probe() }),
    )
}

fn read(request: Option<&str>) -> std::result::Result<Device, Failure> {
    Ok(request.map(str::parse).transpose()?.unwrap_or_default())
}

/// The device of work that has CUDA kernels. `None` is `auto`, which falls back to the CPU; an explicit wish does not.
pub fn choose(request: Option<&str>) -> std::result::Result<Device, Failure> {
    let device = read(request)?;
    match device {
        // Whether `auto` has something to say is found out by the work itself, off the main thread.
        Device::Auto | Device::Cpu => Ok(device),
        Device::Cuda(_) => match device.choose() {
            Ok(_) => Ok(device),
            Err(KernelError::Unavailable { reason, .. }) => Err(refused(device, &reason)),
            Err(error) => Err(error.into()),
        },
    }
}

/// Refuses CUDA for work that has no CUDA kernels, with what is wrong with the device where that comes first.
pub fn check(request: Option<&str>) -> std::result::Result<(), Failure> {
    let device = choose(request)?;
    match device {
        Device::Auto | Device::Cpu => Ok(()),
        Device::Cuda(_) => Err(refused(device, "this work runs on the CPU; only train has a CUDA path")),
    }
}

/// What would be used and why, as JSON.
#[napi(catch_unwind)]
pub fn device() -> Result<String> {
    let choice = Device::Auto.choose().map_err(Failure::from)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(json!({
        "device": choice.cuda.map_or_else(|| "cpu".into(), |ordinal| format!("cuda:{ordinal}")),
        "reason": choice.reason,
        "cuda": probe(),
        "cpu": {
            "arch": std::env::consts::ARCH,
            "os": std::env::consts::OS,
            "threads": threads,
            "instructionSet": InstructionSet::best().map_err(Failure::from)?.name(),
            "features": features(),
        },
    })
    .to_string())
}

/// Runs a miniature of the training step on a CUDA device and on the reference: the checks, as JSON.
#[napi(catch_unwind)]
pub fn test_device(request: String) -> Result<String> {
    let ordinal = match choose(Some(&request))? {
        Device::Cuda(ordinal) => ordinal,
        Device::Auto | Device::Cpu => {
            return Err(Failure::option("device", format!("'{request}'"), "'cuda' or 'cuda:N'").into());
        }
    };
    let backend = lucid_kernels::cuda::open(ordinal).map_err(Failure::from)?;
    let name = backend.driver().inner().device_name().map_err(Failure::from)?;
    let checks = lucid_kernels::cuda::self_test(&backend).map_err(Failure::from)?;
    let described = checks.iter().map(|check| {
        json!({ "name": check.name, "error": check.error.is_finite().then_some(check.error), "tolerance": check.tolerance, "passed": check.passed() })
    });
    Ok(json!({ "device": name, "checks": described.collect::<Vec<_>>() }).to_string())
}

/// Refuses a device that cannot be used.
#[napi(catch_unwind)]
pub fn check_device(request: String) -> Result<()> {
    check(Some(&request))?;
    Ok(())
}
