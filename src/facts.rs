//! What is true of the image, the machine and its GPUs: plain data, no verdicts.
//!
//! The helper and the entrypoint both compile this file: [`HelperLine`] is what one writes and the other reads, a
//! JSON value a line. Everything here is also what the report's `facts` key shows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::Value;

pub mod extensions;
pub mod forward;
pub mod kernels;
pub mod libraries;
pub mod native;
pub mod read;
pub mod smoke;
pub mod surroundings;

pub use extensions::Extensions;
pub use forward::Compat;
pub use kernels::{ModuleKernels, PtxVersion};
pub use libraries::{LibraryAnswer, LibraryKind};
pub use read::from_json;
use read::{FromJson, ReadError, lines, object, tagged, words};
pub use smoke::SmokeFacts;
pub use surroundings::Surroundings;

/// Writes a value as JSON text, on one line.
///
/// # Errors
/// None for the types of this file.
pub fn to_json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    serde_json::to_value(value).map(|value| value.to_string())
}

/// A CUDA version as the libraries encode it: 1000 × major + 10 × minor, so 12.4 is 12040.
///
/// Source: CUDA Runtime API, `cudaRuntimeGetVersion`; CUDA Driver API, `cuDriverGetVersion`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CudaVersion {
    /// 12 of 12.4
    pub major: u16,
    /// 4 of 12.4
    pub minor: u16,
}

impl CudaVersion {
    /// Decodes 12040; `None` for a number that no CUDA release has (zero, negative, or out of range).
    pub fn from_api(number: i32) -> Option<Self> {
        if number < 1000 {
            return None;
        }
        Some(Self {
            major: u16::try_from(number / 1000).ok()?,
            minor: u16::try_from(number % 1000 / 10).ok()?,
        })
    }
}

impl FromStr for CudaVersion {
    type Err = ();

    /// `12.4`, also of `12.4.1`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A device's compute capability, such as 9.0. Both parts are small; the driver reports them as two attributes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ComputeCapability {
    /// 9 of 9.0
    pub major: u8,
    /// 0 of 9.0
    pub minor: u8,
}

impl ComputeCapability {
    /// The GPUs inside Tegra chips: Jetson TK1, TX1, TX2, Xavier, Orin, and Thor by its two numbers.
    const TEGRA: [(u8, u8); 7] = [(3, 2), (5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)];

    /// Whether a GPU of this capability runs SASS for that one.
    ///
    /// CUDA C++ Programming Guide, "Binary Compatibility": within a major version, upwards; but between desktop and Tegra
    /// GPUs not at all, nor between Tegra GPUs.
    pub fn takes_sass_of(self, code: Self) -> bool {
        let is_tegra = |of: Self| Self::TEGRA.contains(&(of.major, of.minor));
        match is_tegra(self) || is_tegra(code) {
            true => self == code,
            false => self.major == code.major && self.minor >= code.minor,
        }
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for PtxVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Both types read and write as the text that people use, `"12.4"`, so that a report needs no decoding.
macro_rules! written_as_major_dot_minor {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
written_as_major_dot_minor!(CudaVersion);
written_as_major_dot_minor!(ComputeCapability);
written_as_major_dot_minor!(PtxVersion);

/// One line of the helper's standard output.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HelperLine {
    /// Written before every call into foreign code, so that a crash or a hang has a name.
    Step(String),
    /// A copy of libcudart or libnvrtc that was asked for its version.
    Library(LibraryAnswer),
    /// What libcuda said of itself.
    Driver(DriverAnswer),
    /// One CUDA device, in ordinal order.
    Device(Device),
    /// What libnvidia-ml said of itself.
    Nvml(NvmlAnswer),
    /// One device as NVML sees it.
    NvmlDevice(NvmlDevice),
    /// A device node that was opened, or could not be.
    Node(DeviceNode),
    /// The driver has answered, and a [`native::NativePlan`] is waited for.
    Ready,
    /// How a device ran the kernel of this program.
    NativeDevice(native::NativeDevice),
    /// How a device took a library's fat binaries.
    NativeLoad(native::NativeLoad),
    /// The last line of a run that went through.
    Done,
}

/// A call into a vendor library that returned an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CallError {
    /// the function, such as `cuInit`
    pub call: String,
    /// the numeric error, or [`CallError::NO_CODE`]
    pub code: i32,
    /// the enumerator's name, such as `CUDA_ERROR_NO_DEVICE`; empty where the library has none
    pub name: String,
    /// the library's own sentence
    pub description: String,
}

impl CallError {
    /// No error came from the library: it does not export the function, or what the call returned makes no sense;
    /// the description says which. No CUDA, NVRTC or NVML error is negative.
    pub const NO_CODE: i32 = -1;
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == Self::NO_CODE {
            return write!(f, "{}: {}", self.call, self.description);
        }
        write!(f, "{} returned {}", self.call, self.code)?;
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        if !self.description.is_empty() {
            write!(f, ": {}", self.description)?;
        }
        Ok(())
    }
}

/// What libcuda says before any device is asked for.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct DriverAnswer {
    /// the file that the loader mapped for `libcuda.so.1`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// dlopen's message; set means that there is no driver library
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_error: Option<String>,
    /// the newest CUDA version that this driver serves (nvidia-smi's "CUDA Version", since 610 "CUDA UMD Version")
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<CudaVersion>,
    /// the first call that failed, if any
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// what cuDeviceGetCount returned
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_count: Option<i32>,
}

/// One visible CUDA device.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Device {
    /// CUDA ordinal, from 0, after `CUDA_VISIBLE_DEVICES`
    pub ordinal: i32,
    /// marketing name, such as `NVIDIA H200`
    pub name: String,
    /// `GPU-…` or `MIG-…`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// compute capability
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<ComputeCapability>,
    /// memory in bytes
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// `0000:3b:00.0`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// `CU_COMPUTEMODE_*`: 0 default, 2 prohibited, 3 exclusive process
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_mode: Option<i32>,
    /// the first call on this device that failed, if any
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
}

/// What NVML says before any device is asked for.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct NvmlAnswer {
    /// the file that the loader mapped for `libnvidia-ml.so.1`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// dlopen's message; set means that there is no NVML here
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_error: Option<String>,
    /// the driver release, such as `580.159.04`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_release: Option<String>,
    /// the newest CUDA version that this driver serves
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<CudaVersion>,
    /// the first call that failed, if any
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// what nvmlDeviceGetCount_v2 returned
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_count: Option<u32>,
}

/// One physical GPU as NVML sees it. What a GPU or driver does not support stays `None`.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct NvmlDevice {
    /// NVML index, in PCI bus order; `CUDA_VISIBLE_DEVICES` does not change it
    pub index: u32,
    /// marketing name
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `GPU-…`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// `00000000:3B:00.0`, lower case and with a four-digit domain here, as CUDA writes it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_bus_id: Option<String>,
    /// compute capability
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<ComputeCapability>,
    /// product line as `NVIDIA_REQUIRE_CUDA` names it: `tesla`, `geforce`, `nvidia`, …; `unknown` where NVML names none
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub brand: Option<String>,
    /// memory in bytes
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// whether MIG is on
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_enabled: Option<bool>,
    /// MIG instances that exist, where MIG is on
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_instances: Option<u32>,
    /// their `MIG-…`, in NVML's order
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mig_uuids: Vec<String>,
    /// N of its node, /dev/nvidiaN
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub minor: Option<u32>,
    /// uncorrected ECC errors since the driver was loaded
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected: Option<u64>,
    /// a row of memory waits for a reset to be remapped
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remap_pending: Option<bool>,
    /// a row could not be remapped: the board is to be replaced
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remap_failed: Option<bool>,
    /// `NVML_COMPUTEMODE_*`: 0 default, 2 prohibited, 3 exclusive process
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_mode: Option<u32>,
    /// `NVML_GPU_RECOVERY_ACTION_*`: what the driver asks for; 0 none, 1 reset the GPU, 2 reboot the node, 3 end peer-to-peer
    /// traffic, 4 drain and reset, 5 recover the IMEX domain, 6 reset the PCIe bus, 7 reboot the system
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_action: Option<u32>,
    /// `NVML_GPU_FABRIC_STATE_*`: 1 registration not started, 2 in progress, 3 complete; absent without a fabric
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric_state: Option<u32>,
    /// `nvmlReturn_t` that the registration ended with
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric_status: Option<i32>,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fabric_health: Option<u32>,
    /// how much memory is free now, asked where the manifest limits it: of the GPU, or of each of its MIG instances
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub memory_now: Vec<MemoryState>,
    /// the first call on this device that failed for another reason than "not supported"
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
}

/// The memory of a GPU or of a MIG instance at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct MemoryState {
    /// `GPU-…` or `MIG-…`; empty where the library does not tell it
    pub uuid: String,
    /// bytes in all
    pub total: u64,
    /// bytes that nobody holds
    pub free: u64,
    /// who holds the most, asked where too little is free
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub holders: Vec<MemoryHolder>,
}

/// A process that holds memory of a GPU.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct MemoryHolder {
    /// as the driver numbers it, mostly the host's number
    pub pid: u32,
    /// bytes; `None` where the driver does not tell
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A device node of the driver, opened for reading and writing as CUDA opens it, and closed at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DeviceNode {
    /// `/dev/nvidiactl`
    pub path: String,
    /// why it could not be opened, as errno(3) numbers it
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<i32>,
}

/// How a run of the helper ended.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case", tag = "end")]
pub enum HelperEnd {
    /// not started: not asked for, or an earlier stage failed
    #[default]
    NotRun,
    /// every line came and the helper said so
    Done,
    /// the kernel or the loader would not start it for want of a glibc loader or a new enough glibc
    LoaderMissing {
        /// what the kernel or the loader said
        detail: String,
    },
    /// it could not be started for another reason; names every way that was tried
    NotStarted {
        /// each way with its error
        detail: String,
    },
    /// a signal ended it
    Crashed {
        /// signal number
        signal: i32,
        /// the call that it was in
        step: String,
    },
    /// it exited before it had said that it was done
    Exited {
        /// exit status
        code: i32,
        /// the call that it was in
        step: String,
        /// last lines of its stderr
        stderr: String,
    },
    /// it wrote something that is not the protocol
    Garbled {
        /// what was wrong, with the line's number
        detail: String,
        /// the call that it was in
        step: String,
    },
    /// the deadline passed
    TimedOut {
        /// the call that it was in
        step: String,
        /// the deadline in milliseconds
        after_ms: u64,
        /// false where the process could not be killed in time and was left behind
        killed: bool,
        /// it was the deadline of all calls together, and none of them hung
        in_all: bool,
    },
}

/// One run of the helper: how it ended and what it had said by then.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct HelperRun {
    /// how it ended
    #[serde(flatten)]
    pub end: HelperEnd,
    /// from the spawn to its reaping, in milliseconds; of several runs that of the longest
    pub ms: f64,
}

impl HelperRun {
    /// Adds a run that asked other things of the same kind. The first that did not end well is kept.
    pub fn add(&mut self, other: Self) {
        if matches!(self.end, HelperEnd::NotRun | HelperEnd::Done) {
            self.end = other.end;
        }
        self.ms = self.ms.max(other.ms);
    }
}

/// Where a copy of a library belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LibraryOrigin {
    /// in site-packages, where some wheel brought it, or in a conda environment's own lib
    Wheel,
    /// the loader finds it by its SONAME (LD_LIBRARY_PATH, ld.so.cache, the default folders)
    Loader,
    /// a CUDA toolkit's folder that the loader does not search
    Toolkit,
}

/// A copy of libcudart or libnvrtc that was found, and what it answered.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Library {
    /// which library
    pub kind: LibraryKind,
    /// its path, or the SONAME where the loader is to find it
    pub path: String,
    /// who brought it
    pub origin: LibraryOrigin,
    /// what it said; `None` when it was not asked
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<LibraryAnswer>,
}

/// How the interpreter was found.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Python {
    /// the interpreter's path as named, symlinks kept; `None` when only an environment's folder is known
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// the environment's folder (`sys.prefix`)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `3.11` or `3.11.7`, from files alone
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// the environment is conda's: it has a `conda-meta`
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub conda: bool,
    /// what led here: `--python`, the service command, `VIRTUAL_ENV`, `CONDA_PREFIX`, `PATH`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// options of the service's own interpreter that change what can be imported: `-E`, `-s`, `-S`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// the service's own interpreter looks into the working folder first, as it does for `-m` and `-c`
    pub working_folder: bool,
    /// the folder of the service's own script, which its interpreter looks into first
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script_folder: Option<String>,
    /// the folders of `sys.path` that can hold distributions, in order
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub site_packages: Vec<String>,
    /// zip files and eggs of `sys.path`, which are not looked into
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<String>,
    /// what could not be followed without running code, such as the `import` lines of `.pth` files
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// why the service's Python cannot be determined; then no other one is judged in its place
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undetermined: Option<String>,
    /// a folder that this user may not enter, below which the interpreter lies that a link leads to
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_folder: Option<ClosedFolder>,
    /// PYTHONHOME, where it has no standard library for this interpreter, which then cannot start
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_home: Option<String>,
    /// the service command's own interpreter, where `--python` names one of another environment
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_service: Option<String>,
    /// where an interpreter was looked for and why each place was refused; for the hint of `python-missing`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
}

/// Why an interpreter that is there cannot be executed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ClosedFolder {
    /// the interpreter as it is named: a link of a virtual environment's
    pub interpreter: String,
    /// the folder on the way to its file
    pub folder: String,
}

impl Python {
    /// `cpython-311` of Python 3.11, `cpython-314t` of a free-threaded 3.14: in the names of its extensions.
    pub fn tag(&self) -> Option<String> {
        let mut parts = self.version.as_deref()?.split('.');
        let (major, minor) = (parts.next()?, parts.next()?);
        let threads = if self.is_free_threaded() { "t" } else { "" };
        Some(format!("cpython-{major}{minor}{threads}"))
    }

    /// Whether it is a build without the global lock: its folders are called `python3.14t` (PEP 703).
    pub fn is_free_threaded(&self) -> bool {
        let folders = self.site_packages.iter().flat_map(|site| site.split('/'));
        let mut versions = folders.filter_map(|name| name.strip_prefix("python3."));
        versions.any(|version| {
            version
                .strip_suffix('t')
                .is_some_and(|n| n.parse::<u16>().is_ok())
        })
    }

    /// What is judged, as a finding names it: the interpreter, or the folder where that is all there is.
    pub fn judged(&self) -> Option<&str> {
        self.interpreter.as_deref().or(self.prefix.as_deref())
    }

    /// How [`found_by`](Self::found_by) and [`tried`](Self::tried) call the service command.
    pub const OF_SERVICE: &str = "the service command";
}

/// One installed distribution: a `*.dist-info` (or `*.egg-info`) folder.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Distribution {
    /// normalised name (PEP 503)
    pub name: String,
    /// the metadata's version, verbatim
    pub version: String,
    /// path of the dist-info folder
    pub path: String,
    /// the version that the module's own version file states (`torch/version.py`), where there is one
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_version: Option<String>,
    /// the CUDA version that the module's own version file states (`cuda = '12.4'`)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_cuda: Option<String>,
    /// whether torch's libraries use the C++11 ABI of libstdc++, looked for where another distribution's version names one
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cxx11_abi: Option<bool>,
    /// `Tag:` lines of the WHEEL file, such as `cp311-cp311-manylinux_2_28_x86_64`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// `Requires-Dist:` lines, verbatim, without those that do not count here (for an extra that nothing requires, for another
    /// system)
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// extras of it that an installed distribution requires, normalised; their lines are among the others
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<String>,
    /// `Requires-Dist:` lines for an extra that bring NVIDIA's wheels, verbatim; those of NVIDIA's own packages are left out
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cuda_extras: Vec<String>,
    /// the variant of its wheel, looked for where a requirement depends on it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<WheelVariant>,
    /// what could not be read or made no sense, with its file
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// files of its RECORD without which it cannot work and that are not there: the first few, as RECORD writes them;
    /// looked for where the manifest names the distribution
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// how many those are in all
    #[serde(skip_serializing_if = "is_zero")]
    pub missing_count: usize,
    /// what an import would take instead: files in folders that come before its own
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden_by: Vec<String>,
    /// SONAMEs of CUDA's libraries that it opens by dlopen and that lie neither in the folders of what opens them nor where
    /// the loader looks; looked for where the manifest names the distribution
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unopened: Vec<String>,
    /// folders of NVIDIA's wheels where some of these lie, and where what opens them does not look
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unopened_in: Vec<String>,
}

/// The variant that a wheel was built as (PEP 825). Of any other wheel, both are empty.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct WheelVariant {
    /// the label in the wheel's file name
    pub label: String,
    /// `namespace :: feature :: value`
    pub properties: Vec<String>,
}

// serde calls it with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A distribution whose RECORD lists a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
pub struct FileOwner {
    /// normalised name
    pub name: String,
    /// the metadata's version, verbatim
    pub version: String,
    /// the size that its RECORD states
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// A library that several distributions list with different contents, or that is not as its distribution's RECORD says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct OwnedFile {
    /// where it lies
    pub path: String,
    /// its size
    pub size: u64,
    /// the distributions that list it, in the order in which they were found
    pub owners: Vec<FileOwner>,
}

/// A file that the manifest names: relative to site-packages, or the program of a command.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct NamedFile {
    /// as the manifest writes it
    pub name: String,
    /// where it was found
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Why spconv or cumm would take itself for an editable install.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrapKind {
    /// `setup.py` in the folder that holds the package
    SetupPy,
    /// `.gitignore` in the folder that holds the package
    GitIgnore,
    /// `PACKAGE.egg-link` in a folder of `sys.path`
    EggLink,
    /// `PACKAGE/build`, which such a build leaves behind
    Build,
}

/// A file or folder that makes the import of a package compile C++, or that such a compilation left.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EditableTrap {
    /// import name: `cumm` or `spconv`
    pub package: String,
    /// the file or folder
    pub path: String,
    /// what it is
    pub kind: TrapKind,
}

/// How the loader came to a file. Source: ld.so(8), "DESCRIPTION", whose order it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum FoundBy {
    /// a DT_RPATH
    Rpath {
        /// the object that has it
        of: String,
        /// the folder, `$ORIGIN` expanded
        folder: String,
    },
    /// LD_LIBRARY_PATH
    LibraryPath {
        /// its folder
        folder: String,
    },
    /// the DT_RUNPATH of the object that needs it
    Runpath {
        /// the object that has it
        of: String,
        /// the folder, `$ORIGIN` expanded
        folder: String,
    },
    /// ld.so.cache or a default folder
    System,
}

/// A wheel's copy of a library that the loader would leave aside.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ShadowedCopy {
    /// the copy
    pub path: String,
    /// the object whose own RPATH or RUNPATH leads to it; `None` where it is one of NVIDIA's wheels
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted_by: Option<String>,
    /// it has the contents of the file that would be mapped
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub same: bool,
    /// no file would be mapped, and torch's own code looks for a library of this name
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub torch_opens: bool,
    /// how many symbols of this copy the mapped objects need and the file that would be mapped does not export
    #[serde(skip_serializing_if = "is_zero")]
    pub missing_count: usize,
    /// the first of them
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_symbol: Option<String>,
    /// the object that needs it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_for: Option<String>,
}

/// One object that the loader would map for the stack's modules, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LoadedObject {
    /// what was asked for: a SONAME, or the path of a module
    pub name: String,
    /// the file that would be mapped; `None` when the loader finds none
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// the file with symbolic links followed, where that is another path
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real: Option<String>,
    /// the objects whose DT_NEEDED names it, at most four; the loader looked on behalf of the first
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needed_by: Vec<String>,
    /// why it is this file
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_by: Option<FoundBy>,
    /// wheels' copies under the same name that would not be mapped
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<ShadowedCopy>,
    /// the program that it would be mapped for, where that has a run of the loader to itself
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// A symbol version that a mapped library does not have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct MissingVersion {
    /// the library that should have it
    pub library: String,
    /// such as `GLIBC_2.38`
    pub version: String,
    /// the object that needs it
    pub required_by: String,
}

/// A file that the loader found and cannot use.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RefusedObject {
    /// the file
    pub path: String,
    /// the loader's words
    pub reason: String,
}

/// How the loader's run ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case", tag = "end")]
pub enum LoaderEnd {
    /// nobody wanted to know: no module of the stack is installed
    #[default]
    NotRun,
    /// it listed what it would map
    Listed,
    /// it cannot be asked
    NotAsked {
        /// why
        reason: String,
    },
    /// it was asked and gave no list
    Failed {
        /// why
        reason: String,
    },
}

/// What was asked of the image's loader, and what it said beside its list.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct LoaderRun {
    /// how it ended
    #[serde(flatten)]
    pub end: LoaderEnd,
    /// the stack's modules that it was asked about, in the order of their imports
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// symbol versions that it misses
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_versions: Vec<MissingVersion>,
    /// files that it refuses
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedObject>,
    /// stubs of libcuda in folders that it searches
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stubs: Vec<String>,
    /// folders outside of site-packages to which an RPATH or RUNPATH leads it
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searched: Vec<String>,
    /// what could not be asked
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// from the spawn to its reaping, in milliseconds
    pub ms: f64,
}

impl LoaderRun {
    /// Adds a run about another program. The first that did not end well is kept.
    pub fn add(&mut self, other: Self) {
        if matches!(self.end, LoaderEnd::NotRun | LoaderEnd::Listed) {
            self.end = other.end;
        }
        self.modules.extend(other.modules);
        self.missing_versions.extend(other.missing_versions);
        self.refused.extend(other.refused);
        self.notes.extend(other.notes);
        self.ms += other.ms;
    }
}

/// What the image's files say.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct ImageFacts {
    /// interpreter and site-packages
    pub python: Python,
    /// every distribution found in them
    pub distributions: Vec<Distribution>,
    /// libraries whose owner or contents are in doubt
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owned: Vec<OwnedFile>,
    /// the manifest's files
    pub files: Vec<NamedFile>,
    /// the manifest's libraries, by pattern
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named_libraries: Vec<NamedLibraries>,
    /// the programs of the manifest's own commands; empty where the smoke is off
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<NamedFile>,
    /// what makes spconv or cumm compile at import
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub editable: Vec<EditableTrap>,
    /// every copy of libcudart and libnvrtc
    pub libraries: Vec<Library>,
    /// the helper run that asked them
    pub helper: HelperRun,
    /// what the loader would map for the stack's modules
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loaded: Vec<LoadedObject>,
    /// the run that asked it
    pub loader: LoaderRun,
    /// libraries with CUDA code in the folders of `python`, in the order of their paths
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<ModuleKernels>,
    /// whether libraries there find the symbols of torch and CUDA; absent where that was not looked at
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Extensions>,
    /// what compiling kernels at run time needs; absent where neither triton nor torch is installed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surroundings: Option<Surroundings>,
    /// what could not be read, but for libraries, which say it themselves
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
    /// libraries of forward compatibility, and folders for them
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compat: Vec<Compat>,
}

/// The files that a pattern of the manifest's `libraries` names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct NamedLibraries {
    /// as the manifest has it
    pub pattern: String,
    /// regular files, links followed, in order
    pub paths: Vec<String>,
    /// there are more, which are not looked at
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// the pattern names a directory, which holds libraries perhaps
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub directory: bool,
}

/// A file or folder that is there and could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Unread {
    /// which
    pub path: String,
    /// why, as errno(3) numbers it
    pub errno: i32,
}

/// What the driver and NVML say.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct DeviceFacts {
    /// libcuda
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverAnswer>,
    /// visible CUDA devices
    pub devices: Vec<Device>,
    /// the helper run that asked libcuda
    pub helper: HelperRun,
    /// libnvidia-ml
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvml: Option<NvmlAnswer>,
    /// physical GPUs
    pub nvml_devices: Vec<NvmlDevice>,
    /// nodes of the driver that exist, in the order /dev/nvidiactl, /dev/nvidia-uvm, GPUs by number
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub opened: Vec<DeviceNode>,
    /// the helper run that asked NVML and opened the nodes
    pub nvml_helper: HelperRun,
    /// copies of a library of the driver's of which the loader took none
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub driver_elsewhere: Vec<String>,
    /// `/dev/nvidia*` nodes that are present
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// libraries of forward compatibility, with the one that was asked
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compat: Vec<Compat>,
}

impl DeviceFacts {
    /// Whether work can be sent to the visible devices: there are some, and none of them answered with an error.
    pub fn has_usable(&self) -> bool {
        !self.devices.is_empty() && self.devices.iter().all(|d| d.error.is_none())
    }
}

/// Limits of this container that GPU programs run into.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Limits {
    /// size of /dev/shm in bytes; `None` when it is not mounted
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// RLIMIT_MEMLOCK in bytes; `None` is unlimited
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memlock_bytes: Option<u64>,
}

/// Everything that was found out.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Facts {
    /// files of the image
    pub image: ImageFacts,
    /// driver and GPUs
    pub device: DeviceFacts,
    /// what the smoke saw; `None` where none was to run
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoke: Option<SmokeFacts>,
    /// limits
    pub limits: Limits,
    /// variables that decide what is visible; from an allow list, never the whole environment
    pub environment: BTreeMap<String, String>,
}

lines!(HelperLine { "step" Step, "library" Library, "driver" Driver, "device" Device, "nvml" Nvml, "nvml-device" NvmlDevice, "node" Node, "native-device" NativeDevice, "native-load" NativeLoad; "ready" Ready, "done" Done });
object!(CallError {
    call,
    code,
    name,
    description
});
object!(DriverAnswer {
    path,
    load_error,
    api_version,
    error,
    device_count
});
object!(Device {
    ordinal,
    name,
    uuid,
    capability,
    memory,
    pci_bus_id,
    compute_mode,
    error
});
object!(NvmlAnswer {
    path,
    load_error,
    driver_release,
    api_version,
    error,
    device_count
});
object!(NvmlDevice {
    index,
    name,
    uuid,
    pci_bus_id,
    capability,
    memory,
    mig_enabled,
    mig_instances,
    mig_uuids,
    minor,
    ecc_uncorrected,
    remap_pending,
    remap_failed,
    compute_mode,
    recovery_action,
    fabric_state,
    fabric_status,
    fabric_health,
    memory_now,
    error,
    brand
});
object!(MemoryState {
    uuid,
    total,
    free,
    holders
});
object!(MemoryHolder { pid, bytes });
object!(DeviceNode { path, errno });
tagged!(HelperEnd by "end" {
    "not-run" NotRun {},
    "done" Done {},
    "loader-missing" LoaderMissing { detail },
    "not-started" NotStarted { detail },
    "crashed" Crashed { signal, step },
    "exited" Exited { code, step, stderr },
    "garbled" Garbled { detail, step },
    "timed-out" TimedOut { step, after_ms, killed, in_all }
});
object!(HelperRun { ; or_default ms; flat end });
words!(LibraryOrigin { "wheel" Wheel, "loader" Loader, "toolkit" Toolkit });
object!(Library {
    kind,
    path,
    origin,
    answer
});
object!(ClosedFolder { interpreter, folder });
object!(Python {
    interpreter,
    prefix,
    version,
    found_by,
    options,
    working_folder,
    script_folder,
    site_packages,
    archives,
    notes,
    undetermined,
    closed_folder,
    broken_home,
    of_service,
    tried;
    or_default conda
});
object!(Distribution {
    name,
    version,
    path,
    module_version,
    module_cuda,
    cxx11_abi,
    tags,
    requires,
    extras,
    cuda_extras,
    variant,
    problems,
    missing,
    hidden_by,
    unopened,
    unopened_in;
    or_default missing_count
});
object!(WheelVariant { label, properties });
object!(FileOwner { name, version, size });
object!(OwnedFile { path, size, owners });
object!(NamedFile { name, path });
words!(TrapKind { "setup-py" SetupPy, "git-ignore" GitIgnore, "egg-link" EggLink, "build" Build });
object!(EditableTrap { package, path, kind });
tagged!(FoundBy by "by" {
    "rpath" Rpath { of, folder },
    "library-path" LibraryPath { folder },
    "runpath" Runpath { of, folder },
    "system" System {}
});
object!(ShadowedCopy {
    path,
    wanted_by,
    missing_symbol,
    missing_for;
    or_default same, torch_opens, missing_count
});
object!(LoadedObject {
    name,
    path,
    real,
    needed_by,
    found_by,
    shadowed,
    program
});
object!(MissingVersion {
    library,
    version,
    required_by
});
object!(RefusedObject { path, reason });
tagged!(LoaderEnd by "end" {
    "not-run" NotRun {},
    "listed" Listed {},
    "not-asked" NotAsked { reason },
    "failed" Failed { reason }
});
object!(LoaderRun { modules, missing_versions, refused, stubs, searched, notes; or_default ms; flat end });
object!(Unread { path, errno });
object!(ImageFacts { python, distributions, owned, files, named_libraries, programs, editable, libraries, helper, loaded, kernels, extensions, surroundings, unread, compat; or_default loader });
object!(DeviceFacts {
    driver,
    devices,
    helper,
    nvml,
    nvml_devices,
    opened,
    nvml_helper,
    driver_elsewhere,
    nodes,
    compat
});
object!(Limits {
    shm_bytes,
    memlock_bytes
});
object!(NamedLibraries { pattern, paths; or_default directory, cut });
object!(Facts {
    image,
    device,
    smoke,
    limits,
    environment
});

macro_rules! major_dot_minor {
    ($type:ident, $part:ty) => {
        impl FromJson for $type {
            fn from_json(value: Value) -> Result<Self, ReadError> {
                let text = String::from_json(value)?;
                let parsed = text.split_once('.').and_then(|(a, b)| {
                    Some(Self {
                        major: a.parse::<$part>().ok()?,
                        minor: b.parse::<$part>().ok()?,
                    })
                });
                parsed.ok_or_else(|| ReadError::new(format!("expected MAJOR.MINOR, found {text:?}")))
            }
        }
    };
}
major_dot_minor!(CudaVersion, u16);
major_dot_minor!(ComputeCapability, u8);
major_dot_minor!(PtxVersion, u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_numbers_decode() {
        assert_eq!(CudaVersion::from_api(12040).unwrap().to_string(), "12.4");
        assert_eq!(CudaVersion::from_api(11080).unwrap().to_string(), "11.8");
        for wrong in [0, -1, 124, i32::MIN, i32::MAX] {
            assert_eq!(CudaVersion::from_api(wrong), None, "{wrong}");
        }
    }

    /// What is left out when it is written, since it is empty, has to be read as that.
    #[test]
    fn what_is_empty_is_read_back() {
        fn survives<T: Default + Serialize + FromJson + PartialEq + fmt::Debug>() {
            let empty = T::default();
            let text = to_json(&empty).unwrap();
            let read = from_json::<T>(text.as_bytes());
            assert_eq!(
                read.as_ref(),
                Ok(&empty),
                "{}: {text}",
                std::any::type_name::<T>()
            );
        }
        macro_rules! all {
            ($($type:ty),* $(,)?) => { $(survives::<$type>();)* };
        }
        all!(
            Device,
            DeviceFacts,
            DeviceNode,
            Distribution,
            DriverAnswer,
            Facts,
            HelperRun,
            ImageFacts,
            LibraryAnswer,
            Limits,
            LoadedObject,
            LoaderRun,
            MemoryHolder,
            MemoryState,
            MissingVersion,
            NamedLibraries,
            NvmlAnswer,
            NvmlDevice,
            OwnedFile,
            Python,
            RefusedObject,
            ShadowedCopy,
            Unread,
            extensions::Extension,
            extensions::Extensions,
            kernels::ModuleKernels,
            native::NativeDevice,
            native::NativeLoad,
            native::NativePlan,
            native::NativeRun,
            native::PlannedGroup,
            native::PlannedLibrary,
            native::WrongResult,
            smoke::SmokeCommand,
            smoke::SmokeDevice,
            smoke::SmokeFacts,
            smoke::SmokeFailed,
            smoke::SmokeJit,
            smoke::SmokeModule,
            smoke::SmokePassed,
            smoke::SmokePython,
            smoke::SmokeRun,
            smoke::SmokeSkipped,
            smoke::SmokeStep,
            surroundings::Surroundings,
        );
    }

    #[test]
    fn lines_survive_the_wire() {
        let lines = [
            HelperLine::Step("cuInit".into()),
            HelperLine::Device(Device {
                name: "NVIDIA H200".into(),
                capability: Some(ComputeCapability { major: 9, minor: 0 }),
                ..Device::default()
            }),
            HelperLine::Done,
        ];
        for line in lines {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(from_json::<HelperLine>(text.as_bytes()).unwrap(), line, "{text}");
        }
    }
}
