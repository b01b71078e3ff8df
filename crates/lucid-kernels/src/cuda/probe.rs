//! Is there a GPU that these kernels can run on, and if not, why not.
//!
//! libcuda is asked through a handful of symbols of our own, before and without cudarc, which panics where a library or a
//! symbol is missing. Every way to find nothing is a value with a sentence for the user.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::OnceLock;

use libloading::Library;
use serde::Serialize;

use super::needed::NEEDED;
use super::status::{NO_DEVICE, STUB_LIBRARY, describe};

/// What a look for CUDA found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum CudaState {
    /// libcuda cannot be opened.
    NoDriver {
        /// What the loader said.
        reason: String,
    },
    /// The toolkit's stub for linking stands where the driver should.
    Stub {
        /// How to get rid of it.
        reason: String,
    },
    /// A library of that name opens and does not work.
    Broken {
        /// Which function failed, and how.
        reason: String,
        /// `CUresult` of that function; absent where it is missing.
        code: Option<i32>,
    },
    /// The driver works and shows no device.
    NoDevice {
        /// Why, as far as that can be known.
        reason: String,
    },
    /// The driver works and shows devices, usable or not.
    Devices {
        /// Which can be used, and why the others cannot.
        reason: String,
        /// Newest CUDA version the driver knows, e.g. `12.4`.
        driver_version: String,
        /// The devices that `CUDA_VISIBLE_DEVICES` leaves, in the driver's order.
        devices: Vec<DeviceInfo>,
    },
}

/// A device that the driver shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceInfo {
    /// N of `cuda:N`.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability, e.g. `8.6`.
    pub compute_capability: String,
    /// Memory of the device, or of the slice, in bytes.
    pub memory_bytes: u64,
    /// The device is a slice of a GPU (multi-instance GPU).
    pub mig: bool,
    /// These kernels can run on it.
    pub usable: bool,
    /// Why it cannot be used, or what it is.
    pub reason: String,
}

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`
const CAPABILITY_MAJOR: c_int = 75;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR`
const CAPABILITY_MINOR: c_int = 76;

/// The fatbins hold code for this compute capability and newer ones.
const LEAST_CAPABILITY: (c_int, c_int) = (7, 5);
/// CUDA 12.0, NVIDIA driver 525: the oldest that takes the PTX in the fatbins.
const LEAST_DRIVER: c_int = 12_000;
/// Parameters, moments and scratch memory of a small model.
const LEAST_MEMORY: usize = 1 << 30;

/// In the order in which cudarc tries them: what is asked here is the library that it will use.
#[cfg(windows)]
const LIBRARIES: &[&str] = &["nvcuda.dll"];
#[cfg(not(windows))]
const LIBRARIES: &[&str] = &["libcuda.so", "libcuda.so.1"];

impl CudaState {
    /// The finding in a sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::NoDriver { reason }
            | Self::Stub { reason }
            | Self::Broken { reason, .. }
            | Self::NoDevice { reason }
            | Self::Devices { reason, .. } => reason,
        }
    }

    /// Device `ordinal`, or the first that can be used; the error says why there is none.
    pub fn choose(&self, ordinal: Option<usize>) -> Result<&DeviceInfo, String> {
        let Self::Devices { devices, .. } = self else { return Err(self.reason().to_owned()) };
        match ordinal {
            None => devices.iter().find(|device| device.usable).ok_or_else(|| self.reason().to_owned()),
            Some(ordinal) => match devices.get(ordinal) {
                Some(device) if device.usable => Ok(device),
                Some(device) => Err(device.reason.clone()),
                None => Err(format!(
                    "there is no device {ordinal}: the driver shows {}, counted from 0{}",
                    counted(devices.len()),
                    visible().map_or_else(String::new, |value| format!(" (CUDA_VISIBLE_DEVICES is '{value}')"))
                )),
            },
        }
    }
}

fn counted(devices: usize) -> String {
    if devices == 1 { "1 CUDA device".into() } else { format!("{devices} CUDA devices") }
}

/// What [`probe_again`] found the first time. The driver reads `CUDA_VISIBLE_DEVICES` once, too.
pub fn probe() -> &'static CudaState {
    static FOUND: OnceLock<CudaState> = OnceLock::new();
    FOUND.get_or_init(probe_again)
}

/// Looks for CUDA. Takes as long as `cuInit`.
#[must_use]
pub fn probe_again() -> CudaState {
    if cfg!(target_os = "macos") {
        return CudaState::NoDriver { reason: "CUDA does not exist on macOS".into() };
    }
    let mut missing = Vec::new();
    for name in LIBRARIES {
        // SAFETY: opening the driver library runs its initialisers, which NVIDIA's driver allows at any time.
        match unsafe { Library::new(*name) } {
            Ok(library) => {
                let driver = Functions::of(&library);
                let found = match driver {
                    // SAFETY: the functions are those of the library, which stays open.
                    Ok(driver) => unsafe { driver.ask(&library) },
                    Err(reason) => CudaState::Broken { reason, code: None },
                };
                // A driver that has started must not be unloaded.
                std::mem::forget(library);
                return found;
            }
            Err(error) => {
                use std::error::Error as _;
                // libloading's own text says only that dlopen failed; its source names the file.
                missing.push(error.source().map_or_else(|| error.to_string(), ToString::to_string));
            }
        }
    }
    // A file that is there and does not open tells more than one that is not; the last name is the driver's own.
    let found = missing.iter().find(|text| !text.contains("No such file")).or(missing.last());
    let loader = found.map_or("", String::as_str);
    CudaState::NoDriver { reason: format!("no NVIDIA driver: {loader}") }
}

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type TotalMemory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;

/// What the probe calls.
struct Functions {
    init: Init,
    version: Number,
    count: Number,
    get: Get,
    name: Name,
    attribute: GetAttribute,
    memory: TotalMemory,
}

impl Functions {
    fn of(library: &Library) -> Result<Self, String> {
        fn get<T: Copy>(library: &Library, name: &CStr) -> Result<T, String> {
            // SAFETY: only called with the types below, which these functions have had since CUDA 3.2.
            let symbol = unsafe { library.get::<T>(name.to_bytes_with_nul()) };
            symbol.map(|symbol| *symbol).map_err(|_| lacks(name))
        }
        Ok(Self {
            init: get::<Init>(library, c"cuInit")?,
            version: get::<Number>(library, c"cuDriverGetVersion")?,
            count: get::<Number>(library, c"cuDeviceGetCount")?,
            get: get::<Get>(library, c"cuDeviceGet")?,
            name: get::<Name>(library, c"cuDeviceGetName")?,
            attribute: get::<GetAttribute>(library, c"cuDeviceGetAttribute")?,
            memory: get::<TotalMemory>(library, c"cuDeviceTotalMem_v2")?,
        })
    }

    /// # Safety
    /// `library`, from which the functions come, is open.
    unsafe fn ask(&self, library: &Library) -> CudaState {
        let stub = || CudaState::Stub {
            reason: "the libcuda found is the toolkit's stub, not a driver: install the driver, or take the folder of \
                     stubs out of the library path"
                .into(),
        };
        let no_device = || CudaState::NoDevice { reason: no_device() };
        let broken = |function: &str, code: c_int| CudaState::Broken {
            reason: format!("the NVIDIA driver does not work: {function} gave {}", describe(code)),
            code: Some(code),
        };
        let (mut driver, mut count) = (0, 0);
        // SAFETY: the caller's promise, and the pointers are valid.
        let (init, version) = unsafe { ((self.init)(0), (self.version)(&raw mut driver)) };
        match init {
            0 => {}
            STUB_LIBRARY => return stub(),
            NO_DEVICE => return no_device(),
            code => return broken("cuInit", code),
        }
        if version != 0 {
            return broken("cuDriverGetVersion", version);
        }
        // SAFETY: as above.
        match unsafe { (self.count)(&raw mut count) } {
            0 if count > 0 => {}
            0 | NO_DEVICE => return no_device(),
            code => return broken("cuDeviceGetCount", code),
        }
        let shortcoming = if driver < LEAST_DRIVER {
            Some(format!(
                "the driver is too old: it knows CUDA {}, and the kernels need {}, which is driver 525 or newer",
                version_text(driver),
                version_text(LEAST_DRIVER)
            ))
        } else {
            // SAFETY: the symbol is only looked up.
            let absent = |name: &&&CStr| unsafe { library.get::<Init>(name.to_bytes_with_nul()) }.is_err();
            NEEDED.iter().find(absent).map(|name| lacks(name))
        };
        // SAFETY: as above.
        let devices: Vec<_> =
            (0..count).map(|ordinal| unsafe { self.device(ordinal, shortcoming.as_deref()) }).collect();
        CudaState::Devices { reason: summary(&devices), driver_version: version_text(driver), devices }
    }

    /// Looks at one device. `shortcoming` is what is wrong with the driver.
    ///
    /// # Safety
    /// The library is open and `cuInit` has succeeded.
    unsafe fn device(&self, ordinal: c_int, shortcoming: Option<&str>) -> DeviceInfo {
        let (mut device, mut major, mut minor, mut memory, mut name) = (0, 0, 0, 0, [0 as c_char; 256]);
        let size = c_int::try_from(name.len() - 1).unwrap_or(0);
        let failure = |function: &str, code: c_int| {
            if code == 0 { Ok(()) } else { Err(format!("{function} gave {}", describe(code))) }
        };
        // SAFETY: the pointers are valid, the name keeps its last zero, and a device is used once it was given.
        let asked = (|| unsafe {
            failure("cuDeviceGet", (self.get)(&raw mut device, ordinal))?;
            failure("cuDeviceGetName", (self.name)((&raw mut name).cast(), size, device))?;
            failure("cuDeviceGetAttribute", (self.attribute)(&raw mut major, CAPABILITY_MAJOR, device))?;
            failure("cuDeviceGetAttribute", (self.attribute)(&raw mut minor, CAPABILITY_MINOR, device))?;
            failure("cuDeviceTotalMem", (self.memory)(&raw mut memory, device))
        })();
        let bytes: Vec<u8> = name.iter().map(|&c| c.cast_unsigned()).take_while(|&c| c != 0).collect();
        let name = String::from_utf8_lossy(&bytes).into_owned();
        let mig = name.contains("MIG ");
        let problem = if let Err(failed) = asked {
            Some(failed)
        } else if (major, minor) < LEAST_CAPABILITY {
            Some(format!(
                "compute capability {major}.{minor} is below 7.5 (Turing), the oldest the kernels are built for"
            ))
        } else if let Some(shortcoming) = shortcoming {
            Some(shortcoming.to_owned())
        } else if memory < LEAST_MEMORY {
            Some(format!("{} MiB of memory are too little: at least 1024 are needed", memory >> 20))
        } else {
            None
        };
        let usable = problem.is_none();
        let reason = problem.unwrap_or_else(|| {
            let what = if mig { "usable, a MIG slice of a GPU" } else { "usable" };
            format!("{what}: compute capability {major}.{minor}, {} MiB", memory >> 20)
        });
        DeviceInfo {
            ordinal: usize::try_from(ordinal).unwrap_or(0),
            name,
            compute_capability: format!("{major}.{minor}"),
            memory_bytes: memory as u64,
            mig,
            usable,
            reason,
        }
    }
}

fn lacks(name: &CStr) -> String {
    format!("the libcuda found lacks {}", name.to_string_lossy())
}

fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// `CUDA_VISIBLE_DEVICES`, where it is set.
fn visible() -> Option<String> {
    std::env::var_os("CUDA_VISIBLE_DEVICES").map(|value| value.to_string_lossy().into_owned())
}

fn no_device() -> String {
    match visible() {
        None => "the NVIDIA driver sees no device".into(),
        Some(value) => {
            format!("the NVIDIA driver shows no device; CUDA_VISIBLE_DEVICES is '{value}', which may hide all of them")
        }
    }
}

fn summary(devices: &[DeviceInfo]) -> String {
    let listed: Vec<_> =
        devices.iter().map(|device| format!("{} ({}): {}", device.ordinal, device.name, device.reason)).collect();
    let usable = devices.iter().filter(|device| device.usable).count();
    let total = counted(devices.len());
    format!(
        "{total}, {}: {}",
        if usable == 0 { "none usable".into() } else { format!("{usable} usable") },
        listed.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: usize, usable: bool) -> DeviceInfo {
        DeviceInfo {
            ordinal,
            name: format!("GPU {ordinal}"),
            compute_capability: "8.6".into(),
            memory_bytes: 8 << 30,
            mig: false,
            usable,
            reason: if usable { "usable".into() } else { "too old".into() },
        }
    }

    fn state(devices: Vec<DeviceInfo>) -> CudaState {
        CudaState::Devices { reason: summary(&devices), driver_version: "12.4".into(), devices }
    }

    #[test]
    fn the_first_usable_device_is_chosen() {
        let state = state(vec![device(0, false), device(1, true)]);
        assert_eq!(state.choose(None).unwrap().ordinal, 1);
        assert_eq!(state.choose(Some(1)).unwrap().ordinal, 1);
        assert_eq!(state.choose(Some(0)).unwrap_err(), "too old");
        assert!(state.choose(Some(2)).unwrap_err().contains("the driver shows 2 CUDA devices"));
    }

    #[test]
    fn without_a_usable_device_the_reason_names_each() {
        let reason = state(vec![device(0, false)]).choose(None).unwrap_err();
        assert_eq!(reason, "1 CUDA device, none usable: 0 (GPU 0): too old");
        let missing = CudaState::NoDriver { reason: "no NVIDIA driver".into() };
        assert_eq!(missing.choose(Some(0)).unwrap_err(), "no NVIDIA driver");
    }

    #[test]
    fn states_are_written_with_their_kind() {
        let json = serde_json::to_value(state(vec![device(0, true)])).unwrap();
        assert_eq!(json["kind"], "devices");
        assert_eq!(json["driverVersion"], "12.4");
        assert_eq!(json["devices"][0]["computeCapability"], "8.6");
    }
}
