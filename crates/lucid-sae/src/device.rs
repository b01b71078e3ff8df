//! Where models and training run.
//!
//! The CUDA kernels have passed `npm run gpu-check` on GPUs of the compute capabilities in `TRIED` (docs/gpu.md). [`Device::Auto`]
//! takes such a GPU; one of another capability, whose machine code nobody has run yet, must be asked for by name.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use lucid_kernels::KernelError;
pub use lucid_kernels::cpu::Cpu;
#[cfg(feature = "cuda")]
use lucid_kernels::cuda::DeviceInfo;

use crate::error::SaeError;

/// Compute capabilities of the GPUs on which the kernels have passed `npm run gpu-check`.
#[cfg(feature = "cuda")]
const TRIED: [&str; 1] = ["9.0"];

/// The device a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// `auto`: the best device whose kernels are known to work.
    #[default]
    Auto,
    /// `cpu`
    Cpu,
    /// `cuda:N` of the devices that `CUDA_VISIBLE_DEVICES` leaves, or `cuda`: the first of them that can be used.
    Cuda(Option<usize>),
}

impl FromStr for Device {
    type Err = SaeError;

    fn from_str(text: &str) -> Result<Self, SaeError> {
        let unknown = || SaeError::option("device", format!("'{text}'"), "'auto', 'cpu', 'cuda' or 'cuda:N'");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            _ => match text.strip_prefix("cuda:") {
                // A number's own parser also takes a sign.
                Some(index) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                    index.parse().map(|index| Self::Cuda(Some(index))).map_err(|_| unknown())
                }
                _ => Err(unknown()),
            },
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

/// What a [`Device`] comes to on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The CUDA device, or `None` for the CPU.
    pub cuda: Option<usize>,
    /// Why, in a sentence.
    pub reason: String,
    /// Something the user should know before trusting or waiting for a run.
    pub caution: Option<String>,
}

impl Device {
    /// What this comes to on this machine. Only a device that was asked for by name can be refused, with
    /// [`KernelError::Unavailable`].
    #[cfg(feature = "cuda")]
    pub fn choose(self) -> Result<Choice, KernelError> {
        self.choose_from(lucid_kernels::cuda::probe)
    }

    /// What this comes to without CUDA. A CUDA device is refused with [`KernelError::Unavailable`].
    #[cfg(not(feature = "cuda"))]
    pub fn choose(self) -> Result<Choice, KernelError> {
        let reason = "this build has no CUDA kernels";
        match self {
            Self::Cuda(_) => Err(KernelError::Unavailable { device: "cuda", reason: reason.into() }),
            Self::Auto => Ok(Choice::cpu(reason)),
            Self::Cpu => Ok(Choice::cpu("it was asked for")),
        }
    }

    /// [`Device::choose`] with what a probe finds; libcuda is not looked for where the answer does not depend on it.
    #[cfg(feature = "cuda")]
    pub fn choose_from<'a>(
        self,
        probe: impl FnOnce() -> &'a lucid_kernels::cuda::CudaState,
    ) -> Result<Choice, KernelError> {
        let tried = |device: &DeviceInfo| TRIED.contains(&device.compute_capability.as_str());
        let only = format!("the CUDA kernels have been run on compute capability {} only", TRIED.join(", "));
        let cuda = |device: &DeviceInfo| Choice {
            cuda: Some(device.ordinal),
            reason: format!("CUDA device {} ({}) is used", device.ordinal, device.name),
            caution: (!tried(device)).then(|| format!("{only}: compare the result with one of device 'cpu'")),
        };
        match self {
            Self::Cpu => Ok(Choice::cpu("it was asked for")),
            Self::Cuda(ordinal) => match probe().choose(ordinal) {
                Ok(device) => Ok(cuda(device)),
                Err(reason) => Err(KernelError::Unavailable { device: "cuda", reason }),
            },
            Self::Auto => Ok(match probe().choose(None) {
                Ok(device) if tried(device) => cuda(device),
                Ok(device) => {
                    let choice = Choice::cpu(&format!(
                        "a usable CUDA device is present ({}, compute capability {}); {only}: ask for it with device 'cuda'",
                        device.name, device.compute_capability
                    ));
                    Choice { caution: Some(choice.reason.clone()), ..choice }
                }
                Err(reason) => Choice::cpu(&reason),
            }),
        }
    }
}

impl Choice {
    fn cpu(reason: &str) -> Self {
        Self { cuda: None, reason: format!("the CPU is used: {reason}"), caution: None }
    }
}

/// The CPU backend that everything outside a training run shares: one thread for every core.
pub fn cpu() -> Result<Cpu, KernelError> {
    static SHARED: OnceLock<Cpu> = OnceLock::new();
    if let Some(cpu) = SHARED.get() {
        return Ok(cpu.clone());
    }
    let made = Cpu::new(None)?;
    Ok(SHARED.get_or_init(|| made).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written() {
        let devices = [Device::Auto, Device::Cpu, Device::Cuda(None), Device::Cuda(Some(0)), Device::Cuda(Some(12))];
        for (text, device) in ["auto", "cpu", "cuda", "cuda:0", "cuda:12"].into_iter().zip(devices) {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let long = format!("cuda:{}", "9".repeat(30));
        for text in
            ["", "gpu", "CUDA", "cuda ", "cuda:", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:1.0", "cuda:one", &long]
        {
            let error = text.parse::<Device>().unwrap_err();
            assert_eq!((error.code(), error.details()["option"].as_str()), ("E_OPTION", Some("device")), "{text}");
        }
    }

    #[cfg(feature = "cuda")]
    mod choice {
        use lucid_kernels::cuda::CudaState;

        use super::*;

        fn with_one(usable: bool, compute_capability: &str) -> CudaState {
            let device = DeviceInfo {
                ordinal: 0,
                name: "GPU".into(),
                compute_capability: compute_capability.into(),
                memory_bytes: 8 << 30,
                mig: false,
                usable,
                reason: "as it is".into(),
            };
            CudaState::Devices { reason: "one".into(), driver_version: "12.4".into(), devices: vec![device] }
        }

        /// A GPU of a kind that was never tried is not taken unasked, and the reason says how to ask.
        #[test]
        fn auto_takes_the_cpu_and_says_why() {
            let state = with_one(true, "8.6");
            let choice = Device::Auto.choose_from(|| &state).unwrap();
            assert_eq!(choice.cuda, None);
            assert!(choice.reason.contains("ask for it with device 'cuda'"), "{}", choice.reason);
            assert!(choice.caution.is_some());
            let state = with_one(false, "9.0");
            let choice = Device::Auto.choose_from(|| &state).unwrap();
            assert_eq!((choice.cuda, choice.caution), (None, None));
            assert_eq!(choice.reason, "the CPU is used: one");
        }

        #[test]
        fn auto_takes_what_was_tried() {
            let state = with_one(true, "9.0");
            let choice = Device::Auto.choose_from(|| &state).unwrap();
            assert_eq!((choice.cuda, choice.caution), (Some(0), None));
            assert_eq!(choice.reason, "CUDA device 0 (GPU) is used");
        }

        #[test]
        fn a_named_device_is_used_or_refused() {
            let state = with_one(true, "8.6");
            assert_eq!(Device::Cuda(None).choose_from(|| &state).unwrap().cuda, Some(0));
            assert!(Device::Cuda(Some(0)).choose_from(|| &state).unwrap().caution.is_some());
            for (state, ordinal) in [(&state, Some(1)), (&with_one(false, "9.0"), None)] {
                let error = Device::Cuda(ordinal).choose_from(|| state).unwrap_err();
                assert_eq!(error.code(), "E_UNAVAILABLE");
            }
        }

        #[test]
        fn the_cpu_needs_no_probe() {
            assert_eq!(Device::Cpu.choose_from(|| unreachable!()).unwrap().cuda, None);
        }
    }
}
