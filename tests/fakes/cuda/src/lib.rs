//! A `libcuda.so.1` that acts out a script; see `fake_script`.
//!
//! Like the driver it answers nothing but its version before cuInit, refuses to work in a process that was forked
//! after cuInit, and honours `CUDA_VISIBLE_DEVICES`. A GPU with MIG on is shown as its first instance, or not at all
//! if it has none.

mod compute;

use std::env;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::process;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use fake_script::{Gpu, act, script};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const NOT_INITIALIZED: c_int = 3;
const NO_DEVICE: c_int = 100;
const INVALID_DEVICE: c_int = 101;

// Run by the loader when it has mapped this library, and by exit(3).
#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = {
    extern "C" fn load() {
        act("load libcuda", None);
    }
    load
};
#[used]
#[unsafe(link_section = ".fini_array")]
static EXIT: extern "C" fn() = {
    extern "C" fn exit() {
        act("exit libcuda", None);
    }
    exit
};

/// Process that called cuInit; 0 before that.
static INITIALISED_IN: AtomicU32 = AtomicU32::new(0);

/// Numbers, in the script, of the devices that the variable leaves visible, in its order.
fn visible() -> &'static [usize] {
    static VISIBLE: OnceLock<Vec<usize>> = OnceLock::new();
    VISIBLE.get_or_init(|| {
        let devices = &script().devices;
        let usable: Vec<usize> = (0..devices.len())
            .filter(|&n| devices[n].mig != Some(true) || devices[n].shows_instance())
            .collect();
        let Ok(list) = env::var("CUDA_VISIBLE_DEVICES") else {
            return usable;
        };
        let mut chosen = Vec::new();
        for item in list.split(',').map(str::trim) {
            let found = match item.parse::<usize>() {
                Ok(ordinal) => usable.get(ordinal).copied(),
                Err(_) => by_uuid(&usable, item),
            };
            // The first entry that names nothing hides everything behind it.
            match found {
                Some(number) if chosen.contains(&number) => return Vec::new(),
                Some(number) => chosen.push(number),
                None => break,
            }
        }
        chosen
    })
}

/// As many first characters of a UUID as make it unique are enough.
fn by_uuid(usable: &[usize], item: &str) -> Option<usize> {
    if !item.starts_with("GPU-") && !item.starts_with("MIG-") {
        return None;
    }
    let mut matching = usable
        .iter()
        .filter(|&&n| shown_uuid(&script().devices[n]).starts_with(item));
    matching.next().copied().filter(|_| matching.next().is_none())
}

fn shown_uuid(gpu: &Gpu) -> String {
    if !gpu.shows_instance() {
        return gpu.uuid.clone();
    }
    gpu.instance_text(0)
}

/// The device behind a handle or ordinal once the script has had its say.
fn device(function: &str, handle: c_int) -> Result<&'static Gpu, c_int> {
    let number = usize::try_from(handle)
        .ok()
        .and_then(|ordinal| visible().get(ordinal))
        .copied();
    if let Some(code) = act(function, number) {
        return Err(code);
    }
    ready()?;
    number
        .map(|number| &script().devices[number])
        .ok_or(INVALID_DEVICE)
}

fn ready() -> Result<(), c_int> {
    match INITIALISED_IN.load(Ordering::Relaxed) {
        pid if pid == process::id() => Ok(()),
        _ => Err(NOT_INITIALIZED),
    }
}

/// Stores a value, or the error.
unsafe fn answer<T>(result: Result<T, c_int>, place: *mut T) -> c_int {
    match result {
        Err(code) => code,
        Ok(_) if place.is_null() => INVALID_VALUE,
        Ok(value) => {
            // SAFETY: the caller passes a pointer to a T, as the function's declaration says.
            unsafe { place.write(value) };
            SUCCESS
        }
    }
}

/// Stores as much of a text as fits, with its NUL.
unsafe fn answer_text(result: Result<String, c_int>, place: *mut c_char, length: c_int) -> c_int {
    let text = match result {
        Err(code) => return code,
        Ok(text) => text,
    };
    let Ok(length @ 1..) = usize::try_from(length) else {
        return INVALID_VALUE;
    };
    let shown = text.len().min(length - 1);
    // SAFETY: the caller says that there are `length` bytes at `place`.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), place.cast(), shown);
        place.add(shown).write(0);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    let result = act("cuDriverGetVersion", None).map_or(Ok(script().driver_api), Err);
    // SAFETY: as declared in cuda.h.
    unsafe { answer(result, version) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> c_int {
    if let Some(code) = act("cuInit", None) {
        return code;
    }
    if flags != 0 {
        return INVALID_VALUE;
    }
    if visible().is_empty() {
        return NO_DEVICE;
    }
    let me = process::id();
    match INITIALISED_IN.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => SUCCESS,
        Err(earlier) if earlier == me => SUCCESS,
        Err(_) => NOT_INITIALIZED, // forked after cuInit
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    let result = act("cuDeviceGetCount", None).map_or_else(ready, Err);
    let number = || script().device_count.unwrap_or(visible().len() as c_int);
    // SAFETY: as declared in cuda.h.
    unsafe { answer(result.map(|()| number()), count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(handle: *mut c_int, ordinal: c_int) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe { answer(device("cuDeviceGet", ordinal).map(|_| ordinal), handle) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, handle: c_int) -> c_int {
    let shown = device("cuDeviceGetName", handle).map(|gpu| match gpu.shows_instance() {
        true => format!("{} MIG 1g.18gb", gpu.name),
        false => gpu.name.clone(),
    });
    // SAFETY: as declared in cuda.h.
    unsafe { answer_text(shown, name, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], handle: c_int) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe { answer(device("cuDeviceGetUuid", handle).map(Gpu::uuid_bytes), uuid) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], handle: c_int) -> c_int {
    let own = |gpu: &Gpu| {
        if gpu.shows_instance() {
            gpu.instance_uuid(0)
        } else {
            gpu.uuid_bytes()
        }
    };
    // SAFETY: as declared in cuda.h.
    unsafe { answer(device("cuDeviceGetUuid_v2", handle).map(own), uuid) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, handle: c_int) -> c_int {
    let result = device("cuDeviceGetAttribute", handle).and_then(|gpu| match attribute {
        20 => Ok(gpu.compute_mode),
        75 => Ok(gpu.cc.0),
        76 => Ok(gpu.cc.1),
        _ => Err(INVALID_VALUE),
    });
    // SAFETY: as declared in cuda.h.
    unsafe { answer(result, value) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, handle: c_int) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe {
        answer(
            device("cuDeviceTotalMem_v2", handle).map(|gpu| gpu.memory as usize),
            bytes,
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(bus_id: *mut c_char, length: c_int, handle: c_int) -> c_int {
    // CUDA writes a domain of four digits.
    let short = |gpu: &Gpu| gpu.pci.strip_prefix("0000").unwrap_or(&gpu.pci).to_owned();
    // SAFETY: as declared in cuda.h.
    unsafe { answer_text(device("cuDeviceGetPCIBusId", handle).map(short), bus_id, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe { answer_constant("cuGetErrorName", error(code).map(|(name, _)| name), name) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe { answer_constant("cuGetErrorString", error(code).map(|(_, text)| text), text) }
}

/// An unknown code gives a null pointer and an error, as in the driver.
unsafe fn answer_constant(function: &str, text: Option<&'static CStr>, place: *mut *const c_char) -> c_int {
    if let Some(code) = act(function, None) {
        return code;
    }
    // SAFETY: the caller passes a pointer to a pointer, as the function's declaration says.
    unsafe { place.write(text.map_or(ptr::null(), CStr::as_ptr)) };
    if text.is_some() { SUCCESS } else { INVALID_VALUE }
}

/// Enumerators from cuda.h, and the sentences that the driver has for them.
fn error(code: c_int) -> Option<(&'static CStr, &'static CStr)> {
    Some(match code {
        0 => (c"CUDA_SUCCESS", c"no error"),
        1 => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        2 => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        3 => (c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
        4 => (c"CUDA_ERROR_DEINITIALIZED", c"driver shutting down"),
        34 => (c"CUDA_ERROR_STUB_LIBRARY", c"CUDA driver is a stub library"),
        36 => (
            c"CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER",
            c"API call is not supported in the installed CUDA driver",
        ),
        46 => (
            c"CUDA_ERROR_DEVICE_UNAVAILABLE",
            c"CUDA-capable device(s) is/are busy or unavailable",
        ),
        100 => (c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
        101 => (c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        102 => (
            c"CUDA_ERROR_DEVICE_NOT_LICENSED",
            c"device doesn't have valid Grid license",
        ),
        200 => (c"CUDA_ERROR_INVALID_IMAGE", c"device kernel image is invalid"),
        201 => (c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
        209 => (
            c"CUDA_ERROR_NO_BINARY_FOR_GPU",
            c"no kernel image is available for execution on the device",
        ),
        214 => (
            c"CUDA_ERROR_ECC_UNCORRECTABLE",
            c"uncorrectable ECC error encountered",
        ),
        218 => (c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
        220 => (
            c"CUDA_ERROR_NVLINK_UNCORRECTABLE",
            c"uncorrectable NVLink error detected during the execution",
        ),
        221 => (
            c"CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
            c"PTX JIT compiler library not found",
        ),
        222 => (
            c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
            c"the provided PTX was compiled with an unsupported toolchain.",
        ),
        223 => (
            c"CUDA_ERROR_JIT_COMPILATION_DISABLED",
            c"PTX JIT compilation was disabled",
        ),
        226 => (
            c"CUDA_ERROR_CONTAINED",
            c"Invalid access of peer GPU memory over nvlink or a hardware error",
        ),
        227 => (
            c"CUDA_ERROR_INSUFFICIENT_LOADER_VERSION",
            c"Loader version is insufficient for fatbin",
        ),
        304 => (
            c"CUDA_ERROR_OPERATING_SYSTEM",
            c"OS call failed or operation not supported on this OS",
        ),
        702 => (
            c"CUDA_ERROR_LAUNCH_TIMEOUT",
            c"the launch timed out and was terminated",
        ),
        714 => (c"CUDA_ERROR_HARDWARE_STACK_ERROR", c"hardware stack error"),
        715 => (
            c"CUDA_ERROR_ILLEGAL_INSTRUCTION",
            c"an illegal instruction was encountered",
        ),
        718 => (c"CUDA_ERROR_INVALID_PC", c"invalid program counter"),
        721 => (
            c"CUDA_ERROR_TENSOR_MEMORY_LEAK",
            c"tensor memory not completely freed",
        ),
        801 => (c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
        802 => (c"CUDA_ERROR_SYSTEM_NOT_READY", c"system not yet initialized"),
        803 => (
            c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            c"system has unsupported display driver / cuda driver combination",
        ),
        804 => (
            c"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
            c"forward compatibility was attempted on non supported HW",
        ),
        808 => (
            c"CUDA_ERROR_MPS_MAX_CLIENTS_REACHED",
            c"the hardware resources required to create MPS client have been exhausted",
        ),
        809 => (
            c"CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED",
            c"the hardware resources required to support device connections have been exhausted",
        ),
        810 => (
            c"CUDA_ERROR_MPS_CLIENT_TERMINATED",
            c"the MPS client has been terminated by the server",
        ),
        911 => (
            c"CUDA_ERROR_EXTERNAL_DEVICE",
            c"an async error has occured in external entity outside of CUDA",
        ),
        916 => (
            c"CUDA_ERROR_KEY_ROTATION",
            c"an error happened during the key rotation sequence",
        ),
        999 => (c"CUDA_ERROR_UNKNOWN", c"unknown error"),
        _ => return None,
    })
}
