//! Contexts, memory, modules and launches, as far as the native proof uses them. Memory is the host's; the one kernel that
//! this driver runs is that proof's own, which it takes from PTX; of fat binaries it reads the headers, and takes them or
//! refuses them by CUDA's rule.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use fake_script::{Gpu, act, script};

use crate::{INVALID_VALUE, SUCCESS, answer, device, visible};

const OUT_OF_MEMORY: c_int = 2;
const INVALID_IMAGE: c_int = 200;
const INVALID_CONTEXT: c_int = 201;
const NO_BINARY: c_int = 209;
const INVALID_PTX: c_int = 218;
const UNSUPPORTED_PTX: c_int = 222;
const NOT_FOUND: c_int = 500;

type Handle = *mut c_void;

/// The current device's number in the script, plus one.
static CURRENT: AtomicUsize = AtomicUsize::new(0);

/// A module of the proof's own kernel, or one that was loaded from a fat binary.
const OWN: usize = 0x1000;
const FATBIN: usize = 0x2000;
/// Handles that nothing is done with.
const STREAM: usize = 0x3000;
const EVENT: usize = 0x4000;

/// The device of the current context, once the script has had its say.
fn current(function: &str) -> Result<&'static Gpu, c_int> {
    let number = CURRENT.load(Ordering::Relaxed).checked_sub(1);
    if let Some(code) = act(function, number) {
        return Err(code);
    }
    number
        .and_then(|number| script().devices.get(number))
        .ok_or(INVALID_CONTEXT)
}

fn done(function: &str) -> c_int {
    current(function).map_or_else(|code| code, |_| SUCCESS)
}

unsafe fn handle(function: &str, value: usize, place: *mut Handle) -> c_int {
    // SAFETY: the caller passes a pointer to a handle, as the function's declaration says.
    unsafe {
        answer(
            current(function).map(|_| ptr::without_provenance_mut(value)),
            place,
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, ordinal: c_int) -> c_int {
    let found = device("cuDevicePrimaryCtxRetain", ordinal).and_then(|gpu| match gpu.compute_mode {
        2 => Err(46),
        _ => Ok(()),
    });
    let number = usize::try_from(ordinal)
        .ok()
        .and_then(|n| visible().get(n))
        .copied();
    let value = number.map_or(0, |number| number + 1);
    // SAFETY: as declared in cuda.h.
    unsafe { answer(found.map(|()| ptr::without_provenance_mut(value)), context) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(ordinal: c_int) -> c_int {
    device("cuDevicePrimaryCtxRelease_v2", ordinal).map_or_else(|code| code, |_| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: Handle) -> c_int {
    CURRENT.store(context.addr(), Ordering::Relaxed);
    done("cuCtxSetCurrent")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut c_ulonglong, bytes: usize) -> c_int {
    let room = current("cuMemAlloc_v2").and_then(|gpu| match gpu.free.unwrap_or(gpu.memory) < bytes as u64 {
        true => Err(OUT_OF_MEMORY),
        false => Ok(vec![0u64; bytes.div_ceil(8)].leak().as_ptr().expose_provenance() as c_ulonglong),
    });
    // SAFETY: as declared in cuda.h.
    unsafe { answer(room, address) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(_address: c_ulonglong) -> c_int {
    done("cuMemFree_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: c_ulonglong,
    from: *const c_void,
    bytes: usize,
    _stream: Handle,
) -> c_int {
    let code = done("cuMemcpyHtoDAsync_v2");
    if code == SUCCESS {
        // SAFETY: the caller's own, and memory of cuMemAlloc_v2.
        unsafe { ptr::copy_nonoverlapping(from.cast::<u8>(), at(to), bytes) };
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: c_ulonglong,
    bytes: usize,
    _stream: Handle,
) -> c_int {
    let code = done("cuMemcpyDtoHAsync_v2");
    if code == SUCCESS {
        // SAFETY: likewise.
        unsafe { ptr::copy_nonoverlapping(at(from).cast_const(), to.cast::<u8>(), bytes) };
    }
    code
}

fn at(address: c_ulonglong) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address as usize)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, _flags: c_uint) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe { handle("cuStreamCreate", STREAM, stream) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: Handle) -> c_int {
    done("cuStreamSynchronize")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(_stream: Handle, _event: Handle, _flags: c_uint) -> c_int {
    done("cuStreamWaitEvent")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut Handle, _flags: c_uint) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe { handle("cuEventCreate", EVENT, event) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(_event: Handle, _stream: Handle) -> c_int {
    done("cuEventRecord")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> c_int {
    let loaded = current("cuModuleLoadData").and_then(|gpu| {
        // SAFETY: an image has a header of 16 bytes, or is a text with a NUL.
        let magic = unsafe { image.cast::<u32>().read_unaligned() };
        match magic {
            0xba55_ed50 => {
                // SAFETY: as long as its header says.
                unsafe { judge(image.cast(), gpu) }?;
                Ok(FATBIN)
            }
            _ if script().ptx_error.is_some() => Err(script().ptx_error.unwrap_or(INVALID_PTX)),
            _ => {
                // SAFETY: a text with a NUL.
                let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
                let is_own = text.contains(".entry exchange(") && text.contains(".target sm_");
                if is_own { Ok(OWN) } else { Err(INVALID_PTX) }
            }
        }
    });
    // SAFETY: as declared in cuda.h.
    unsafe { answer(loaded.map(ptr::without_provenance_mut), module) }
}

/// Whether the driver finds something for the device in a fat binary: `CUDA C++ Programming Guide`, "Binary Compatibility".
///
/// # Safety
/// `container` is followed by as many bytes as its header says.
unsafe fn judge(container: *const u8, gpu: &Gpu) -> Result<(), c_int> {
    // SAFETY: within the container, as its header says.
    let bytes = unsafe {
        let header = container.add(6).cast::<u16>().read_unaligned() as usize;
        let size = container.add(8).cast::<u64>().read_unaligned() as usize;
        std::slice::from_raw_parts(container.add(header), size)
    };
    let word = |at: usize| {
        bytes
            .get(at..at + 4)
            .map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap()))
    };
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let (mut at, mut best) = (0, NO_BINARY);
    while at + 64 <= bytes.len() {
        let (kind, header, size) = (word(at) & 0xffff, word(at + 4) as usize, long(at + 8) as usize);
        let (arch, flags) = (word(at + 28) as c_int, long(at + 40));
        let (major, minor) = gpu.cc;
        let exact = flags & 0x10_0000 != 0;
        let runs = match kind {
            2 if exact => (arch / 10, arch % 10) == gpu.cc,
            2 => arch / 10 == major && arch % 10 <= minor,
            1 => arch <= major * 10 + minor,
            _ => false,
        };
        let is_packed = flags & 0xa000 != 0;
        if runs && kind == 2 {
            let is_elf = is_packed
                || bytes
                    .get(at + header..)
                    .is_some_and(|b| b.starts_with(b"\x7fELF"));
            return if is_elf { Ok(()) } else { Err(INVALID_IMAGE) };
        }
        if runs {
            // The version of the PTX ISA: CUDA 12.4 compiles up to 8.4.
            let isa = (word(at + 24) >> 16) * 10 + (word(at + 24) & 0xffff);
            let api = script().driver_api;
            let newest = (api / 1000 - 4) * 10 + api % 1000 / 10;
            best = if isa as c_int <= newest {
                SUCCESS
            } else {
                UNSUPPORTED_PTX
            };
        }
        at += header + size;
    }
    if best == SUCCESS { Ok(()) } else { Err(best) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(_module: Handle) -> c_int {
    done("cuModuleUnload")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    kernel: *mut Handle,
    module: Handle,
    name: *const c_char,
) -> c_int {
    // SAFETY: a name with a NUL.
    let is_own = module.addr() == OWN && unsafe { CStr::from_ptr(name) } == c"exchange";
    let found = match current("cuModuleGetFunction") {
        Ok(_) if is_own => Ok(ptr::without_provenance_mut(OWN)),
        Ok(_) => Err(NOT_FOUND),
        Err(code) => Err(code),
    };
    // SAFETY: as declared in cuda.h.
    unsafe { answer(found, kernel) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunctionCount(count: *mut c_uint, _module: Handle) -> c_int {
    // SAFETY: as declared in cuda.h.
    unsafe { answer(current("cuModuleGetFunctionCount").map(|_| 2), count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleEnumerateFunctions(
    kernels: *mut Handle,
    count: c_uint,
    module: Handle,
) -> c_int {
    let code = done("cuModuleEnumerateFunctions");
    if code == SUCCESS {
        for n in 0..count.min(2) as usize {
            // SAFETY: the caller has room for `count` handles.
            unsafe { kernels.add(n).write(module) };
        }
    }
    code
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncLoad(_kernel: Handle) -> c_int {
    done("cuFuncLoad")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, _kernel: Handle) -> c_int {
    let found = match current("cuFuncGetAttribute") {
        Ok(_) if attribute == 0 => Ok(1024),
        Ok(_) => Err(INVALID_VALUE),
        Err(code) => Err(code),
    };
    // SAFETY: as declared in cuda.h.
    unsafe { answer(found, value) }
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // as declared in cuda.h
pub unsafe extern "C" fn cuLaunchKernel(
    kernel: Handle,
    blocks: c_uint,
    _y: c_uint,
    _z: c_uint,
    threads: c_uint,
    _thread_y: c_uint,
    _thread_z: c_uint,
    _shared: c_uint,
    _stream: Handle,
    parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> c_int {
    let gpu = match current("cuLaunchKernel") {
        Err(code) => return code,
        Ok(_) if kernel.addr() != OWN => return INVALID_VALUE,
        Ok(gpu) => gpu,
    };
    // SAFETY: the kernel's two parameters, an address from cuMemAlloc_v2 and a seed.
    let (values, seed) = unsafe {
        let address = parameters.read().cast::<c_ulonglong>().read();
        let seed = parameters.add(1).read().cast::<u32>().read();
        let count = blocks as usize * threads as usize;
        (
            std::slice::from_raw_parts_mut(at(address).cast::<u32>(), count),
            seed,
        )
    };
    for block in values.chunks_mut(threads as usize) {
        for value in &mut *block {
            *value = (0..16).fold(*value ^ seed, |x, _| {
                x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
            });
        }
        block.reverse();
    }
    if let Some(first) = values.first_mut().filter(|_| gpu.computes_wrongly) {
        *first ^= 0x10;
    }
    SUCCESS
}
