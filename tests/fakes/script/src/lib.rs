//! The script that both fake libraries act out.
//!
//! `FAKE_GPU_SCRIPT` names a JSON file; without it there is one healthy H200 under driver 580.159.04. Every key is
//! optional:
//!
//! ```json
//! {
//!   "driver_api": 12040,
//!   "driver_release": "550.54.15",
//!   "ptx_error": 223,
//!   "device_count": 3,
//!   "devices": [
//!     {"repeat": 8, "name": "NVIDIA H200", "cc": "9.0", "brand": 14, "memory": 150754820096, "uuid": "GPU-…",
//!      "pci": "00000000:3B:00.0", "minor": 0, "compute_mode": 0, "mig": false, "mig_instances": 0, "ecc": 0,
//!      "remap_pending": false, "remap_failed": false, "recovery_action": 0,
//!      "fabric": {"state": 3, "status": 0, "health": 0}, "computes_wrongly": false, "free": 1073741824, "holders": [[4242, 2147483648]]}
//!   ],
//!   "calls": {
//!     "cuInit": {"returns": 999, "delay_ms": 100, "signal": 11, "hang": true, "print": "chatter", "flood": 1048576,
//!                "exit": 3, "fork_daemon": true, "await": "/a/file", "mark": "/another", "node": "/dev/nvidiactl",
//!                "allocate": 1000000000, "read": "/a/third", "scribble": "into every descriptor", "repeat": 2,
//!                "close": true, "change_group": true},
//!     "nvmlDeviceGetName": {"device": 2, "returns": 15},
//!     "cuDeviceGetCount": [{"returns": 802}, {"returns": 802}, {}]
//!   },
//!   "state": "/a/file"
//! }
//! ```
//!
//! - `driver_api` is what the version calls return, 1000 × major + 10 × minor.
//! - `ptx_error` is what cuModuleLoadData returns for PTX.
//! - `device_count` is what the count calls return in place of the number of devices.
//! - `nvml_devices`, written like `devices`, are what NVML shows in their place.
//! - A device without `fabric` has no NVLink fabric. `null` for `recovery_action` is a driver that does not know it.
//! - A device's `uuid`, `pci` and `minor` are made up from its number if they are left out. `null` for `brand`,
//!   `mig`, `ecc`, `remap_pending` or `remap_failed` makes NVML answer "not supported". `free` is all of `memory` if it
//!   is left out; a MIG instance has an eighth of both. `holders` are processes with what they hold, by default nobody.
//! - A call does, in this order: print and flood to standard output, write `scribble`, as often as `repeat` says, to every
//!   descriptor above standard error that takes it, close those descriptors, join its parent's process group, fork a
//!   daemon that keeps the descriptors open for a minute, wait for a time, wait for a file to be there, make a file, make
//!   a device node if it may, use memory, read a file, hang, die of a signal, exit, return an error. `device` limits that
//!   to one device, by its number in the script.
//! - A list has one behaviour for each process that calls the function; the last one is for all that come later. The
//!   file `state`, which such a script needs, counts the processes.
//! - `load libcuda` and `load libnvidia-ml` are the libraries' constructors, `exit libcuda` and `exit libnvidia-ml`
//!   their destructors. They return nothing.
//!
//! A script that cannot be read or that has an unknown key aborts the process with a message on standard error: a
//! test must not pass because its script was misspelt.

use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_uint};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use std::{env, fs, thread};

use serde::{Deserialize, Deserializer};

/// Functions that the fakes export, and so the keys that `calls` may have.
pub const FUNCTIONS: [&str; 58] = [
    "load libcuda",
    "exit libcuda",
    "load libnvidia-ml",
    "exit libnvidia-ml",
    "cuDriverGetVersion",
    "cuInit",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetUuid",
    "cuDeviceGetUuid_v2",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetPCIBusId",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventRecord",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuModuleGetFunctionCount",
    "cuModuleEnumerateFunctions",
    "cuFuncLoad",
    "cuFuncGetAttribute",
    "cuLaunchKernel",
    "nvmlInit_v2",
    "nvmlErrorString",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetBrand",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetGpuFabricInfoV",
];

/// The whole script.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// CUDA version of the driver
    pub driver_api: c_int,
    /// release of the driver
    pub driver_release: String,
    /// what compiling PTX returns
    pub ptx_error: Option<c_int>,
    /// a count that is not the number of devices
    pub device_count: Option<c_int>,
    /// physical GPUs; after loading without repetitions
    pub devices: Vec<Gpu>,
    /// what NVML shows where that is something else; likewise
    pub nvml_devices: Option<Vec<Gpu>>,
    /// what functions do before they answer
    pub calls: BTreeMap<String, Calls>,
    /// where lists of behaviours are counted
    pub state: Option<PathBuf>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            driver_api: 13000,
            driver_release: "580.159.04".into(),
            ptx_error: None,
            device_count: None,
            devices: vec![Gpu::default()],
            nvml_devices: None,
            calls: BTreeMap::new(),
            state: None,
        }
    }
}

impl Script {
    /// The GPUs that NVML shows.
    pub fn of_nvml(&self) -> &[Gpu] {
        self.nvml_devices.as_deref().unwrap_or(&self.devices)
    }
}

/// A physical GPU.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// how many of this kind
    pub repeat: usize,
    /// marketing name
    pub name: String,
    /// `GPU-…`; filled in when the script is loaded
    pub uuid: String,
    /// compute capability
    #[serde(deserialize_with = "capability")]
    pub cc: (c_int, c_int),
    /// `NVML_BRAND_*`
    pub brand: Option<c_uint>,
    /// bytes
    pub memory: u64,
    /// bytes that nobody holds; all of them if it is left out
    pub free: Option<u64>,
    /// processes and the bytes that each of them holds
    pub holders: Vec<(c_uint, u64)>,
    /// address as NVML writes it; filled in when the script is loaded
    pub pci: String,
    /// N of /dev/nvidiaN; filled in when the script is loaded
    pub minor: Option<u32>,
    /// `NVML_COMPUTEMODE_*`
    pub compute_mode: c_int,
    /// MIG on or off
    pub mig: Option<bool>,
    /// instances, of at most 7
    pub mig_instances: u32,
    /// uncorrected errors
    pub ecc: Option<u64>,
    /// a remap waits for a reset
    pub remap_pending: Option<bool>,
    /// a remap failed
    pub remap_failed: Option<bool>,
    /// `NVML_GPU_RECOVERY_ACTION_*`
    pub recovery_action: Option<c_uint>,
    /// its place in the NVLink fabric
    pub fabric: Option<Fabric>,
    /// a kernel's first value is wrong
    pub computes_wrongly: bool,
}

/// `nvmlGpuFabricInfo_v2_t`, as far as it is filled in.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Fabric {
    /// `NVML_GPU_FABRIC_STATE_*`
    pub state: u8,
    /// how the registration ended
    #[serde(default)]
    pub status: c_int,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`
    #[serde(default)]
    pub health: c_uint,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            repeat: 1,
            name: "NVIDIA H200".into(),
            uuid: String::new(),
            cc: (9, 0),
            brand: Some(14), // NVML_BRAND_NVIDIA
            memory: 150_754_820_096,
            free: None,
            holders: Vec::new(),
            pci: String::new(),
            minor: None,
            compute_mode: 0,
            mig: Some(false),
            mig_instances: 0,
            ecc: Some(0),
            remap_pending: Some(false),
            remap_failed: Some(false),
            recovery_action: Some(0),
            fabric: None,
            computes_wrongly: false,
        }
    }
}

impl Gpu {
    /// The 16 bytes of the UUID.
    pub fn uuid_bytes(&self) -> [u8; 16] {
        let digits: Vec<u8> = self.uuid.bytes().skip(4).filter(|byte| *byte != b'-').collect();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte =
                u8::from_str_radix(pair, 16).unwrap_or_else(|_| refuse(&format!("bad uuid {:?}", self.uuid)));
        }
        bytes
    }

    /// The 16 bytes of the UUID of one of its MIG instances.
    pub fn instance_uuid(&self, instance: u8) -> [u8; 16] {
        let mut uuid = self.uuid_bytes();
        uuid[0] ^= 0xA5;
        uuid[1] ^= instance;
        uuid
    }

    /// The same as nvidia-smi -L prints it.
    pub fn instance_text(&self, instance: u8) -> String {
        let hex: String = self
            .instance_uuid(instance)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        format!("MIG-{}", parts.join("-"))
    }

    /// Whether CUDA shows a MIG instance in place of the GPU.
    pub fn shows_instance(&self) -> bool {
        self.mig == Some(true) && self.mig_instances > 0
    }
}

fn capability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(c_int, c_int), D::Error> {
    let text = String::deserialize(deserializer)?;
    let parts = text
        .split_once('.')
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parts.ok_or_else(|| serde::de::Error::custom(format!("cc must be like \"9.0\", found {text:?}")))
}

/// What a function does: the same in every process, or something else in each.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub enum Calls {
    // First, since serde would also take an empty list for a struct of nothing but defaults.
    /// in the first process, the second, and so on
    InTurn(Vec<Behaviour>),
    /// always this
    Same(Behaviour),
}

/// What a function does before, or in place of, its answer.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// only for this device
    pub device: Option<usize>,
    /// error code
    pub returns: Option<c_int>,
    /// milliseconds to wait
    pub delay_ms: u64,
    /// signal to die of
    pub signal: Option<c_int>,
    /// never return
    pub hang: bool,
    /// text for standard output
    pub print: Option<String>,
    /// bytes for standard output
    pub flood: usize,
    /// status to exit with
    pub exit: Option<c_int>,
    /// leave a process behind
    pub fork_daemon: bool,
    /// wait until this file is there
    #[serde(rename = "await")]
    pub wait_for: Option<PathBuf>,
    /// make this file
    pub mark: Option<PathBuf>,
    /// make this the node of the driver's control device; as with the real libraries, a refusal is no error
    pub node: Option<CString>,
    /// bytes of memory to use
    pub allocate: usize,
    /// read this file
    pub read: Option<PathBuf>,
    /// text for every descriptor above 2
    pub scribble: Option<String>,
    /// how often; once if 0
    pub repeat: usize,
    /// close every descriptor above 2
    pub close: bool,
    /// leave the process group that one was started in
    pub change_group: bool,
}

/// The script in force, read once in each library.
pub fn script() -> &'static Script {
    static SCRIPT: OnceLock<Script> = OnceLock::new();
    SCRIPT.get_or_init(|| match env::var_os("FAKE_GPU_SCRIPT") {
        None => parse("{}").unwrap_or_else(|problem| refuse(&problem)),
        Some(path) => fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| parse(&text))
            .unwrap_or_else(|problem| refuse(&format!("{}: {problem}", path.display()))),
    })
}

/// Reads a script and writes its repetitions out.
pub fn parse(text: &str) -> Result<Script, String> {
    let mut script: Script = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(unknown) = script
        .calls
        .keys()
        .find(|name| !FUNCTIONS.contains(&name.as_str()))
    {
        return Err(format!("calls: no function {unknown:?} here"));
    }
    for (name, calls) in &script.calls {
        match calls {
            Calls::InTurn(list) if list.is_empty() => {
                return Err(format!("calls: {name}: the list is empty"));
            }
            Calls::InTurn(_) if script.state.is_none() => {
                return Err(format!("calls: {name}: a list needs `state`"));
            }
            _ => {}
        }
    }
    script.devices = written_out(std::mem::take(&mut script.devices));
    script.nvml_devices = script.nvml_devices.take().map(written_out);
    Ok(script)
}

fn written_out(kinds: Vec<Gpu>) -> Vec<Gpu> {
    let mut devices = Vec::new();
    for kind in kinds {
        for _ in 0..kind.repeat {
            let number = devices.len();
            let mut gpu = Gpu {
                repeat: 1,
                ..kind.clone()
            };
            if gpu.uuid.is_empty() {
                gpu.uuid = format!("GPU-00000000-0000-4000-8000-{number:012x}");
            }
            if gpu.pci.is_empty() {
                gpu.pci = format!("{:08X}:{:02X}:00.0", number / 256, number % 256);
            }
            gpu.minor = gpu.minor.or(u32::try_from(number).ok());
            devices.push(gpu);
        }
    }
    devices
}

fn refuse(problem: &str) -> ! {
    eprintln!("fake driver: {problem}");
    std::process::abort()
}

/// Does what the script says of `function`; the error to return, if any.
pub fn act(function: &str, device: Option<usize>) -> Option<c_int> {
    assert!(
        FUNCTIONS.contains(&function),
        "{function} is missing in FUNCTIONS"
    );
    let behaviour = match script().calls.get(function)? {
        Calls::Same(behaviour) => behaviour,
        Calls::InTurn(list) => list.get(turn(function)).or(list.last())?,
    };
    if behaviour.device.is_some() && behaviour.device != device {
        return None;
    }
    if let Some(text) = &behaviour.print {
        print(text.as_bytes());
    }
    flood(behaviour.flood);
    if let Some(text) = &behaviour.scribble {
        scribble(text.as_bytes(), behaviour.repeat.max(1));
    }
    if behaviour.close {
        // SAFETY: takes integers. What owned these descriptors gets EBADF from now on.
        unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    }
    if behaviour.change_group {
        // SAFETY: takes integers.
        unsafe { libc::setpgid(0, libc::getpgid(libc::getppid())) };
    }
    if behaviour.fork_daemon {
        leave_daemon();
    }
    thread::sleep(Duration::from_millis(behaviour.delay_ms));
    while behaviour.wait_for.as_ref().is_some_and(|path| !path.exists()) {
        thread::sleep(Duration::from_millis(2));
    }
    if let Some(path) = &behaviour.mark {
        fs::write(path, "").unwrap_or_else(|error| refuse(&format!("mark: {error}")));
    }
    if let Some(path) = &behaviour.node {
        // SAFETY: reads a C string that outlives the call, and takes integers.
        unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(195, 255)) };
    }
    if behaviour.allocate > 0 {
        // Zeroes would not be memory yet.
        std::hint::black_box(vec![1u8; behaviour.allocate]);
    }
    if let Some(path) = &behaviour.read {
        // What is there is of no interest; that it may never come is.
        let _ = fs::read(path);
    }
    if behaviour.hang {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
    if let Some(signal) = behaviour.signal {
        die_of(signal);
    }
    if let Some(status) = behaviour.exit {
        // SAFETY: takes an integer and does not return.
        unsafe { libc::_exit(status) };
    }
    behaviour.returns
}

/// How many processes had called `function` when this one first did. The state is one name a line, and no two
/// processes that call the same function may run at once.
fn turn(function: &str) -> usize {
    static TURNS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let mut turns = TURNS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(turn) = turns.get(function) {
        return *turn;
    }
    let counted = || -> std::io::Result<usize> {
        let path = script().state.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(path)?;
        let mut seen = String::new();
        file.read_to_string(&mut seen)?;
        writeln!(file, "{function}")?;
        Ok(seen.lines().filter(|line| *line == function).count())
    };
    let turn = counted().unwrap_or_else(|error| refuse(&format!("state: {error}")));
    turns.insert(function.to_owned(), turn);
    turn
}

/// Writes to descriptor 1 as a C library would, whoever owns `std::io::stdout`.
fn print(text: &[u8]) {
    write_all(1, text);
}

/// Writes this many bytes to descriptor 1.
fn flood(bytes: usize) {
    let piece = [b'x'; 1 << 16];
    let mut left = bytes;
    while left > 0 && write_all(1, &piece[..left.min(piece.len())]) {
        left = left.saturating_sub(piece.len());
    }
}

/// Writes to whatever is open, as a library does that has mixed its descriptors up.
fn scribble(text: &[u8], times: usize) {
    for descriptor in 3..64 {
        let mut left = times;
        while left > 0 && write_all(descriptor, text) {
            left -= 1;
        }
    }
}

/// Whether all of it was taken.
fn write_all(descriptor: c_int, mut text: &[u8]) -> bool {
    while !text.is_empty() {
        // SAFETY: the pointer and the length are those of one slice.
        let written = unsafe { libc::write(descriptor, text.as_ptr().cast(), text.len()) };
        match usize::try_from(written) {
            Ok(written) => text = &text[written..],
            Err(_) => return false,
        }
    }
    true
}

fn leave_daemon() {
    // SAFETY: the child calls nothing but async-signal-safe functions.
    unsafe {
        if libc::fork() == 0 {
            libc::setsid();
            libc::sleep(60);
            libc::_exit(0);
        }
    }
}

fn die_of(signal: c_int) {
    // SAFETY: integers and one constant. The default action is restored first, since a program may catch signals
    // that a crash would raise again and again.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_get_numbers_of_their_own() {
        let script = parse(r#"{"devices": [{"repeat": 2}, {"name": "other"}]}"#).unwrap();
        let uuids: Vec<&str> = script.devices.iter().map(|gpu| gpu.uuid.as_str()).collect();
        assert_eq!(uuids.len(), 3);
        assert_eq!(uuids[2], "GPU-00000000-0000-4000-8000-000000000002");
        assert_eq!(script.devices[2].name, "other");
        assert_eq!(script.devices[1].uuid_bytes()[15], 1);
    }

    #[test]
    fn misspelt_scripts_are_refused() {
        for wrong in [
            r#"{"driver": 1}"#,
            r#"{"devices": [{"nam": "x"}]}"#,
            r#"{"devices": [{"cc": "nine"}]}"#,
            r#"{"calls": {"cuInit": {"return": 1}}}"#,
            r#"{"calls": {"cuinit": {}}}"#,
            r#"{"devices": 3}"#,
            r#"{"state": "/x", "calls": {"cuInit": []}}"#,
            r#"{"state": "/x", "calls": {"cuInit": [{"return": 1}]}}"#,
            r#"{"calls": {"cuInit": [{"returns": 1}]}}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
