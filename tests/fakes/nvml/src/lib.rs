//! A `libnvidia-ml.so.1` that acts out a script; see `fake_script`.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fake_script::{Gpu, act, script};

const SUCCESS: c_int = 0;
const UNINITIALIZED: c_int = 1;
const INVALID_ARGUMENT: c_int = 2;
const NOT_SUPPORTED: c_int = 3;
const NOT_FOUND: c_int = 6;
const INSUFFICIENT_SIZE: c_int = 7;
const VERSION_MISMATCH: c_int = 25;
/// Instances that a GPU of today can hold.
const MOST_INSTANCES: c_uint = 7;

// Run by the loader when it has mapped this library, and by exit(3).
#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = {
    extern "C" fn load() {
        act("load libnvidia-ml", None);
    }
    load
};
#[used]
#[unsafe(link_section = ".fini_array")]
static EXIT: extern "C" fn() = {
    extern "C" fn exit() {
        act("exit libnvidia-ml", None);
    }
    exit
};

/// The real one has 14 MB that are zeros at first.
#[used]
static ZEROED: [AtomicU64; 1 << 20] = [const { AtomicU64::new(0) }; 1 << 20];

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Handles are numbers of devices plus one, so that null is none; those of MIG instances are that many times
/// [`INSTANCES`] further on.
type Handle = *mut c_void;

/// More than there are devices.
const INSTANCES: usize = 1 << 20;

fn handle(number: usize) -> Handle {
    ptr::without_provenance_mut(number + 1)
}

/// The device behind a handle once the script has had its say.
fn device(function: &str, handle: Handle) -> Result<&'static Gpu, c_int> {
    let number = (handle.addr() % INSTANCES).checked_sub(1);
    if let Some(code) = act(function, number) {
        return Err(code);
    }
    ready()?;
    number
        .and_then(|number| script().of_nvml().get(number))
        .ok_or(INVALID_ARGUMENT)
}

fn system(function: &str) -> Result<(), c_int> {
    act(function, None).map_or_else(ready, Err)
}

fn ready() -> Result<(), c_int> {
    if INITIALISED.load(Ordering::Relaxed) {
        Ok(())
    } else {
        Err(UNINITIALIZED)
    }
}

/// Stores a value, or the error.
unsafe fn answer<T>(result: Result<T, c_int>, place: *mut T) -> c_int {
    match result {
        Err(code) => code,
        Ok(_) if place.is_null() => INVALID_ARGUMENT,
        Ok(value) => {
            // SAFETY: the caller passes a pointer to a T, as the function's declaration says.
            unsafe { place.write(value) };
            SUCCESS
        }
    }
}

unsafe fn answer_text(result: Result<String, c_int>, place: *mut c_char, length: c_uint) -> c_int {
    match result {
        Err(code) => code,
        Ok(text) if text.len() >= length as usize => INSUFFICIENT_SIZE,
        Ok(text) => {
            // SAFETY: the caller says that there are `length` bytes at `place`.
            unsafe {
                ptr::copy_nonoverlapping(text.as_ptr(), place.cast(), text.len());
                place.add(text.len()).write(0);
            }
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    if let Some(code) = act("nvmlInit_v2", None) {
        return code;
    }
    INITIALISED.store(true, Ordering::Relaxed);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> c_int {
    let result = system("nvmlSystemGetDriverVersion").map(|()| script().driver_release.clone());
    // SAFETY: as declared in nvml.h.
    unsafe { answer_text(result, version, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> c_int {
    let result = system("nvmlSystemGetCudaDriverVersion_v2").map(|()| script().driver_api);
    // SAFETY: as declared in nvml.h.
    unsafe { answer(result, version) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    let number = || {
        script()
            .device_count
            .map_or(script().of_nvml().len() as c_uint, |count| count as c_uint)
    };
    // SAFETY: as declared in nvml.h.
    unsafe { answer(system("nvmlDeviceGetCount_v2").map(|()| number()), count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, place: *mut Handle) -> c_int {
    let found = handle(index as usize);
    // SAFETY: as declared in nvml.h.
    unsafe {
        answer(
            device("nvmlDeviceGetHandleByIndex_v2", found).map(|_| found),
            place,
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, name: *mut c_char, length: c_uint) -> c_int {
    // SAFETY: as declared in nvml.h.
    unsafe {
        answer_text(
            device("nvmlDeviceGetName", handle).map(|gpu| gpu.name.clone()),
            name,
            length,
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, uuid: *mut c_char, length: c_uint) -> c_int {
    // SAFETY: as declared in nvml.h.
    unsafe {
        answer_text(
            device("nvmlDeviceGetUUID", handle).map(|gpu| match handle.addr() / INSTANCES {
                0 => gpu.uuid.clone(),
                instance => gpu.instance_text(instance as u8 - 1),
            }),
            uuid,
            length,
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(handle: Handle, minor: *mut c_uint) -> c_int {
    let result = device("nvmlDeviceGetMinorNumber", handle).and_then(|gpu| gpu.minor.ok_or(NOT_SUPPORTED));
    // SAFETY: as declared in nvml.h.
    unsafe { answer(result, minor) }
}

/// `nvmlPciInfo_t`, as far as it is filled in.
#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [u8; 16],
    domain_to_subsystem: [c_uint; 5],
    bus_id: [u8; 32],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: Handle, info: *mut PciInfo) -> c_int {
    let result = device("nvmlDeviceGetPciInfo_v3", handle).map(|gpu| {
        let mut bus_id = [0; 32];
        let shown = gpu.pci.len().min(31);
        bus_id[..shown].copy_from_slice(&gpu.pci.as_bytes()[..shown]);
        PciInfo {
            bus_id_legacy: [0; 16],
            domain_to_subsystem: [0; 5],
            bus_id,
        }
    });
    // SAFETY: as declared in nvml.h.
    unsafe { answer(result, info) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    handle: Handle,
    major: *mut c_int,
    minor: *mut c_int,
) -> c_int {
    let result = device("nvmlDeviceGetCudaComputeCapability", handle);
    // SAFETY: as declared in nvml.h.
    unsafe {
        match answer(result.map(|gpu| gpu.cc.0), major) {
            SUCCESS => answer(result.map(|gpu| gpu.cc.1), minor),
            code => code,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetBrand(handle: Handle, brand: *mut c_uint) -> c_int {
    let result = device("nvmlDeviceGetBrand", handle).and_then(|gpu| gpu.brand.ok_or(NOT_SUPPORTED));
    // SAFETY: as declared in nvml.h.
    unsafe { answer(result, brand) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(handle: Handle, memory: *mut [c_ulonglong; 3]) -> c_int {
    let parts = if handle.addr() < INSTANCES { 1 } else { 8 };
    let result = device("nvmlDeviceGetMemoryInfo", handle).map(|gpu| {
        let free = gpu.free.unwrap_or(gpu.memory);
        [gpu.memory, free, gpu.memory - free].map(|bytes| bytes / parts)
    });
    // SAFETY: as declared in nvml.h: total, free and used.
    unsafe { answer(result, memory) }
}

/// `nvmlProcessInfo_t`
#[repr(C)]
pub struct ProcessInfo {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> c_int {
    let gpu = match device("nvmlDeviceGetComputeRunningProcesses_v3", handle) {
        Ok(gpu) => gpu,
        Err(code) => return code,
    };
    let needed = gpu.holders.len();
    // SAFETY: as declared in nvml.h: on entry how many there is room for, then how many there are.
    let room = unsafe { count.replace(needed as c_uint) } as usize;
    if room < needed {
        return INSUFFICIENT_SIZE;
    }
    for (at, (pid, used)) in gpu.holders.iter().enumerate() {
        let info = ProcessInfo {
            pid: *pid,
            used: *used,
            gpu_instance: c_uint::MAX,
            compute_instance: c_uint::MAX,
        };
        // SAFETY: there is room for so many.
        unsafe { infos.add(at).write(info) };
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(handle: Handle, now: *mut c_uint, next: *mut c_uint) -> c_int {
    let mode = device("nvmlDeviceGetMigMode", handle).and_then(|gpu| gpu.mig.ok_or(NOT_SUPPORTED));
    // SAFETY: as declared in nvml.h.
    unsafe {
        match answer(mode.map(c_uint::from), now) {
            SUCCESS => answer(mode.map(c_uint::from), next),
            code => code,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(handle: Handle, count: *mut c_uint) -> c_int {
    // SAFETY: as declared in nvml.h.
    unsafe {
        answer(
            device("nvmlDeviceGetMaxMigDeviceCount", handle).map(|_| MOST_INSTANCES),
            count,
        )
    }
}

/// Instances take the last places, so that a caller who stops at the first gap finds none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: Handle,
    index: c_uint,
    place: *mut Handle,
) -> c_int {
    let result = device("nvmlDeviceGetMigDeviceHandleByIndex", handle).and_then(|gpu| match index {
        MOST_INSTANCES.. => Err(INVALID_ARGUMENT),
        index if index + gpu.mig_instances >= MOST_INSTANCES => {
            let instance = index + gpu.mig_instances - MOST_INSTANCES;
            let address = handle.addr() + INSTANCES * (instance as usize + 1);
            Ok(ptr::without_provenance_mut(address))
        }
        _ => Err(NOT_FOUND),
    });
    // SAFETY: as declared in nvml.h.
    unsafe { answer(result, place) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: Handle,
    kind: c_uint,
    counter: c_uint,
    errors: *mut c_ulonglong,
) -> c_int {
    let result = device("nvmlDeviceGetTotalEccErrors", handle).and_then(|gpu| match (kind, counter) {
        (1, 0) => gpu.ecc.ok_or(NOT_SUPPORTED), // uncorrected, volatile
        (0 | 1, 0 | 1) => Ok(0),
        _ => Err(INVALID_ARGUMENT),
    });
    // SAFETY: as declared in nvml.h.
    unsafe { answer(result, errors) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    handle: Handle,
    corrected: *mut c_uint,
    uncorrected: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> c_int {
    let rows = device("nvmlDeviceGetRemappedRows", handle)
        .and_then(|gpu| gpu.remap_pending.zip(gpu.remap_failed).ok_or(NOT_SUPPORTED));
    let values = match rows {
        Err(code) => return code,
        Ok((pending, failed)) => [0, 0, c_uint::from(pending), c_uint::from(failed)],
    };
    for (value, place) in values.into_iter().zip([corrected, uncorrected, pending, failed]) {
        // SAFETY: as declared in nvml.h.
        if unsafe { answer(Ok(value), place) } != SUCCESS {
            return INVALID_ARGUMENT;
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeMode(handle: Handle, mode: *mut c_uint) -> c_int {
    let result = device("nvmlDeviceGetComputeMode", handle).map(|gpu| gpu.compute_mode as c_uint);
    // SAFETY: as declared in nvml.h.
    unsafe { answer(result, mode) }
}

/// `nvmlFieldValue_t`
#[repr(C)]
pub struct FieldValue {
    id: c_uint,
    scope: c_uint,
    timestamp: c_longlong,
    latency: c_longlong,
    kind: c_int,
    result: c_int,
    value: c_ulonglong,
}

/// As in driver 580: the call succeeds, and each field has its own result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: Handle,
    count: c_int,
    values: *mut FieldValue,
) -> c_int {
    let gpu = match device("nvmlDeviceGetFieldValues", handle) {
        Ok(gpu) => gpu,
        Err(code) => return code,
    };
    let Ok(count @ 1..) = usize::try_from(count) else {
        return INVALID_ARGUMENT;
    };
    // SAFETY: as declared in nvml.h.
    for value in unsafe { std::slice::from_raw_parts_mut(values, count) } {
        match (value.id, gpu.recovery_action) {
            (230, Some(action)) => {
                value.kind = 1; // NVML_VALUE_TYPE_UNSIGNED_INT
                value.value = action.into();
                value.result = SUCCESS;
            }
            _ => value.result = INVALID_ARGUMENT,
        }
    }
    SUCCESS
}

/// `nvmlGpuFabricInfo_v2_t`
#[repr(C)]
pub struct FabricInfo {
    version: c_uint,
    cluster: [u8; 16],
    status: c_int,
    clique: c_uint,
    state: u8,
    health: c_uint,
}

/// Driver 580 answers GPUs without a fabric with the state "not supported".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(handle: Handle, info: *mut FabricInfo) -> c_int {
    let gpu = match device("nvmlDeviceGetGpuFabricInfoV", handle) {
        Ok(gpu) => gpu,
        Err(code) => return code,
    };
    // SAFETY: as declared in nvml.h.
    let info = unsafe { &mut *info };
    if info.version != (36 | 2 << 24) {
        return VERSION_MISMATCH;
    }
    let fabric = gpu.fabric.as_ref();
    info.state = fabric.map_or(0, |fabric| fabric.state);
    info.status = fabric.map_or(0, |fabric| fabric.status);
    info.health = fabric.map_or(0, |fabric| fabric.health);
    SUCCESS
}

/// The library's own sentences.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: c_int) -> *const c_char {
    act("nvmlErrorString", None);
    let text: &CStr = match code {
        SUCCESS => c"Success",
        UNINITIALIZED => c"Uninitialized",
        INVALID_ARGUMENT => c"Invalid Argument",
        NOT_SUPPORTED => c"Not Supported",
        4 => c"Insufficient Permissions",
        NOT_FOUND => c"Not Found",
        INSUFFICIENT_SIZE => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        12 => c"NVML Shared Library Not Found",
        13 => c"Function Not Found",
        14 => c"Corrupted infoROM",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        17 => c"GPU access blocked by the operating system",
        18 => c"Driver/library version mismatch",
        20 => c"Insufficient Memory",
        27 => c"System is not in ready state",
        28 => c"No supported GPUs were found",
        999 => c"Unknown Error",
        _ => c"Unknown Error code",
    };
    text.as_ptr()
}
