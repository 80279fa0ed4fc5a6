//! The native proof: each device runs a kernel whose result is known, and the driver loads the image's own kernels.
//!
//! It goes on in the process that has answered for the driver, since cuInit takes as long as all of this.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Instant;

use cuda_entrypoint::facts::native::{
    NativeDevice, NativeLoad, NativePlan, PlannedGroup, PlannedLibrary, Refusal, WrongResult,
};
use cuda_entrypoint::facts::{CallError, HelperLine, from_json};

use super::abi::{self, CuHandle};
use super::{Foreign, Function, nonsense};
use crate::output::Output;

/// Longest plan, in bytes. One with every fat binary of torch and vllm has some 100 KB.
const LONGEST_PLAN: u64 = 16 << 20;
/// Most refused fat binaries of one library that are told of.
const MOST_REFUSALS: usize = 4;
/// Most kernels of one fat binary that are listed.
const MOST_KERNELS: usize = 1 << 16;

/// The source of the kernel, with the NUL by which the driver finds its end.
const EXCHANGE: &[u8] = concat!(include_str!("exchange.ptx"), "\0").as_bytes();
const EXCHANGE_NAME: &CStr = c"exchange";
/// Values that it works on: 4 MiB.
const VALUES: usize = 1 << 20;
/// Threads of a block, as the kernel has it written down.
const BLOCK: usize = 256;
/// What the values are combined with in its first and its second run.
const SEEDS: [u32; 2] = [0x5bd1_e995, 0x1b87_3593];

/// To be called before cuInit. Whatever the service chose, loading is lazy here: what the driver refuses it refuses at once
/// both ways, and the code of libtorch_cuda takes half a second less (tests/gpu/results.md).
pub fn prepare() {
    // SAFETY: no other thread is there yet that could read the environment.
    unsafe { std::env::set_var("CUDA_MODULE_LOADING", "LAZY") };
}

/// Says that the driver has answered, waits for the plan, and follows it. Returns at once where standard input ends without
/// one.
pub fn prove(out: &Output, driver: &Foreign) {
    out.line(&HelperLine::Ready);
    let mut text = Vec::new();
    let read = io::stdin().lock().take(LONGEST_PLAN).read_until(b'\n', &mut text);
    let Some(plan) = read.ok().and_then(|_| from_json::<NativePlan>(&text).ok()) else {
        return;
    };
    let last = plan.groups.iter().flat_map(|group| &group.devices).next_back();
    let mut first = 0;
    for group in &plan.groups {
        let mapped: Vec<Result<Mapped, String>> = group
            .libraries
            .iter()
            .map(|planned| Mapped::open(out, planned))
            .collect();
        for &ordinal in &group.devices {
            let device = Proof { driver, out, ordinal };
            follow(&device, group, &mapped, first);
            // The process ends behind the last device, and with it the context.
            if Some(&ordinal) != last {
                device.release();
            }
        }
        first += group.libraries.len();
    }
}

/// One device of a group whose libraries are numbered from `first` on.
fn follow(device: &Proof, group: &PlannedGroup, mapped: &[Result<Mapped, String>], first: usize) {
    let mut found = NativeDevice {
        ordinal: device.ordinal,
        ..NativeDevice::default()
    };
    let result = device.run_exchange(&mut found);
    found.error = result.err();
    let takes_kernels = found.takes_kernels();
    device.out.line(&HelperLine::NativeDevice(found));
    if takes_kernels {
        for (place, (planned, mapped)) in group.libraries.iter().zip(mapped).enumerate() {
            let load = device.load(first + place, planned, mapped);
            device.out.line(&HelperLine::NativeLoad(load));
        }
    }
}

fn handle_of(driver: &Foreign, ordinal: c_int) -> Result<abi::CuDevice, CallError> {
    let mut handle = 0;
    // SAFETY: stores one CUdevice.
    driver.check(&format!(" of device {ordinal}"), |get: abi::CuDeviceGet| unsafe {
        get.0(&mut handle, ordinal)
    })?;
    Ok(handle)
}

/// One device of the proof.
struct Proof<'a> {
    driver: &'a Foreign<'a>,
    out: &'a Output,
    ordinal: c_int,
}

fn since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

impl Proof<'_> {
    fn subject(&self) -> String {
        format!(" of device {}", self.ordinal)
    }

    fn check<F: Function>(&self, call: impl FnOnce(F) -> c_int) -> Result<(), CallError> {
        self.driver.check(&self.subject(), call)
    }

    /// That it cannot be released is nothing to act upon.
    fn release(&self) {
        if let Ok(handle) = handle_of(self.driver, self.ordinal) {
            // SAFETY: takes a device.
            let _ = self.check(|release: abi::CuPrimaryCtxRelease| unsafe { release.0(handle) });
        }
    }

    /// A primary context, the kernel twice in two streams with an event between them, and the values back.
    fn run_exchange(&self, found: &mut NativeDevice) -> Result<(), CallError> {
        let start = Instant::now();
        let handle = handle_of(self.driver, self.ordinal)?;
        let mut context: CuHandle = ptr::null_mut();
        // SAFETY: stores one handle.
        self.check(|retain: abi::CuPrimaryCtxRetain| unsafe { retain.0(&mut context, handle) })?;
        // SAFETY: takes the context that was just given out.
        self.check(|set: abi::CuCtxSetCurrent| unsafe { set.0(context) })?;
        found.context_ms = since(start);

        let start = Instant::now();
        let mut module: CuHandle = ptr::null_mut();
        // SAFETY: stores one handle, and reads text up to its NUL.
        self.check(|load: abi::CuModuleLoadData| unsafe { load.0(&mut module, EXCHANGE.as_ptr().cast()) })?;
        let mut kernel: CuHandle = ptr::null_mut();
        // SAFETY: stores one handle, and reads a name up to its NUL.
        self.check(|get: abi::CuModuleGetFunction| unsafe {
            get.0(&mut kernel, module, EXCHANGE_NAME.as_ptr())
        })?;
        found.compile_ms = since(start);

        let start = Instant::now();
        let mut values: Vec<u32> = (0..VALUES).map(initial).collect();
        self.compute(kernel, &mut values)?;
        found.compute_ms = since(start);
        found.wrong = compare(&values);
        Ok(())
    }

    fn compute(&self, kernel: CuHandle, values: &mut [u32]) -> Result<(), CallError> {
        let bytes = size_of_val(values);
        let mut address = 0;
        // SAFETY: stores one address.
        self.check(|alloc: abi::CuMemAlloc| unsafe { alloc.0(&mut address, bytes) })?;
        let first = self.stream()?;
        let second = self.stream()?;
        let mut event: CuHandle = ptr::null_mut();
        // SAFETY: stores one handle.
        self.check(|create: abi::CuEventCreate| unsafe { create.0(&mut event, abi::EVENT_DISABLE_TIMING) })?;
        // SAFETY: reads `bytes` bytes, which live until the stream was waited for.
        self.check(|copy: abi::CuMemcpyHtoDAsync| unsafe {
            copy.0(address, values.as_ptr().cast(), bytes, first)
        })?;
        self.launch(kernel, address, SEEDS[0], first)?;
        // SAFETY: takes the two handles from above.
        self.check(|record: abi::CuEventRecord| unsafe { record.0(event, first) })?;
        // SAFETY: likewise.
        self.check(|wait: abi::CuStreamWaitEvent| unsafe { wait.0(second, event, 0) })?;
        self.launch(kernel, address, SEEDS[1], second)?;
        // SAFETY: writes `bytes` bytes, which nothing else touches until the stream was waited for.
        self.check(|copy: abi::CuMemcpyDtoHAsync| unsafe {
            copy.0(values.as_mut_ptr().cast(), address, bytes, second)
        })?;
        for stream in [first, second] {
            // SAFETY: takes a handle from above. Both are waited for, so that nothing writes to `values` any more.
            self.check(|wait: abi::CuStreamSynchronize| unsafe { wait.0(stream) })?;
        }
        // SAFETY: frees what was allocated above, which no stream uses any more.
        self.check(|free: abi::CuMemFree| unsafe { free.0(address) })
    }

    fn stream(&self) -> Result<CuHandle, CallError> {
        let mut stream: CuHandle = ptr::null_mut();
        // SAFETY: stores one handle.
        self.check(|create: abi::CuStreamCreate| unsafe { create.0(&mut stream, abi::STREAM_NON_BLOCKING) })?;
        Ok(stream)
    }

    fn launch(
        &self,
        kernel: CuHandle,
        address: abi::CuAddress,
        seed: u32,
        stream: CuHandle,
    ) -> Result<(), CallError> {
        let (mut address, mut seed) = (address, seed);
        let mut parameters: [*mut c_void; 2] = [(&raw mut address).cast(), (&raw mut seed).cast()];
        let (blocks, threads) = ((VALUES / BLOCK) as c_uint, BLOCK as c_uint);
        // SAFETY: reads two parameters of the types that the kernel declares, before it returns; the kernel touches
        // VALUES values at `address`, for which there is room.
        self.check(|launch: abi::CuLaunchKernel| unsafe {
            launch.0(
                kernel,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                stream,
                parameters.as_mut_ptr(),
                ptr::null_mut(),
            )
        })
    }

    /// Has the driver load a library's fat binaries, one after the other, as they lie in the file.
    fn load(&self, place: usize, planned: &PlannedLibrary, mapped: &Result<Mapped, String>) -> NativeLoad {
        let start = Instant::now();
        let mut load = NativeLoad {
            ordinal: self.ordinal,
            library: place,
            ..NativeLoad::default()
        };
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(problem) => {
                load.unread = Some(problem.clone());
                return load;
            }
        };
        for pair in planned.fatbins.chunks_exact(2) {
            let &[offset, size] = pair else { continue };
            let Some(image) = mapped.at(offset, size) else {
                load.unread = Some(format!("it ends before the fatbin at {offset:#x} does"));
                continue;
            };
            let what = format!("{} at {offset:#x}{}", planned.path, self.subject());
            match self.load_one(image, &what) {
                Ok(kernels) => {
                    load.loaded += 1;
                    load.kernels += kernels;
                }
                Err(error) => {
                    load.refused += 1;
                    if load.refusals.len() < MOST_REFUSALS {
                        load.refusals.push(Refusal { offset, error });
                    }
                }
            }
        }
        load.ms = since(start);
        load
    }

    /// Loads one fat binary, asks for a kernel of it, and unloads it. Returns how many kernels it has, where the driver lists
    /// them.
    fn load_one(&self, image: *const c_void, what: &str) -> Result<u64, CallError> {
        self.out.step(format!("cuModuleLoadData of {what}"));
        let load: abi::CuModuleLoadData = self.driver.function()?;
        let mut module: CuHandle = ptr::null_mut();
        // SAFETY: stores one handle, and reads as much as the container's header says, which lies in the mapping.
        let code = unsafe { load.0(&mut module, image) };
        if code != 0 {
            return Err(self.driver.error::<abi::CuModuleLoadData>(code));
        }
        self.out.step(format!("cuFuncLoad of {what}"));
        let kernels = self.look_into(module);
        self.out.step(format!("cuModuleUnload of {what}"));
        if let Ok(unload) = self.driver.function::<abi::CuModuleUnload>() {
            // SAFETY: unloads what was just loaded.
            unsafe { unload.0(module) };
        }
        kernels
    }

    fn look_into(&self, module: CuHandle) -> Result<u64, CallError> {
        let driver = self.driver;
        // Before CUDA 12.4 a driver does not list them.
        let (Ok(count), Ok(list), Ok(make)) = (
            driver.function::<abi::CuModuleGetFunctionCount>(),
            driver.function::<abi::CuModuleEnumerateFunctions>(),
            driver.function::<abi::CuFuncLoad>(),
        ) else {
            return Ok(0);
        };
        let attribute: abi::CuFuncGetAttribute = driver.function()?;
        let mut number = 0;
        // SAFETY: stores one unsigned int.
        let code = unsafe { count.0(&mut number, module) };
        if code != 0 {
            return Err(driver.error::<abi::CuModuleGetFunctionCount>(code));
        }
        let kernels = usize::try_from(number).unwrap_or(0).min(MOST_KERNELS);
        let mut handles: Vec<CuHandle> = vec![ptr::null_mut(); kernels];
        if kernels == 0 {
            return Ok(0);
        }
        // SAFETY: stores at most as many handles as it is told that there is room for.
        let code = unsafe { list.0(handles.as_mut_ptr(), kernels as c_uint, module) };
        if code != 0 {
            return Err(driver.error::<abi::CuModuleEnumerateFunctions>(code));
        }
        let Some(&first) = handles.first().filter(|first| !first.is_null()) else {
            return Err(nonsense::<abi::CuModuleEnumerateFunctions>(format!(
                "listed none of {number} kernels"
            )));
        };
        // SAFETY: takes a kernel of the module, which is loaded.
        let code = unsafe { make.0(first) };
        if code != 0 {
            return Err(driver.error::<abi::CuFuncLoad>(code));
        }
        let mut threads = 0;
        // SAFETY: stores one int.
        let code = unsafe { attribute.0(&mut threads, abi::MAX_THREADS_PER_BLOCK, first) };
        if code != 0 {
            return Err(driver.error::<abi::CuFuncGetAttribute>(code));
        }
        if threads < 1 {
            return Err(nonsense::<abi::CuFuncGetAttribute>(format!(
                "reported a kernel of at most {threads} threads"
            )));
        }
        Ok(number.into())
    }
}

/// What the first copy to the device holds.
fn initial(place: usize) -> u32 {
    (place as u32).wrapping_mul(0x9e37_79b1)
}

/// What sixteen rounds of the kernel's generator make of a value.
fn after_sixteen(value: u32) -> u32 {
    (0..16).fold(value, |x, _| {
        x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
    })
}

/// What must be in this place after two runs: each leaves its result in the mirrored place, so that it is back again.
fn expected(place: usize) -> u32 {
    SEEDS
        .iter()
        .fold(initial(place), |value, seed| after_sixteen(value ^ seed))
}

fn compare(values: &[u32]) -> Option<WrongResult> {
    let mut wrong = values
        .iter()
        .enumerate()
        .filter(|(place, value)| expected(*place) != **value);
    let (first, &observed) = wrong.next()?;
    Some(WrongResult {
        wrong: 1 + wrong.count() as u64,
        values: values.len() as u64,
        first: first as u64,
        observed,
        expected: expected(first),
    })
}

/// A library, mapped for reading.
struct Mapped {
    start: *const u8,
    length: u64,
}

impl Mapped {
    fn open(out: &Output, planned: &PlannedLibrary) -> Result<Self, String> {
        out.step(format!("open {}", planned.path));
        let file = File::open(&planned.path).map_err(|e| e.to_string())?;
        let facts = file.metadata().map_err(|e| e.to_string())?;
        if !facts.is_file() {
            return Err("it is not a regular file".to_string());
        }
        let length = facts.len();
        let size = usize::try_from(length).map_err(|e| e.to_string())?;
        // SAFETY: a new mapping, which is never taken away. Should the file be truncated, the process ends by SIGBUS, and
        // the step says where.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(format!("mmap: {}", io::Error::last_os_error()));
        }
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// The bytes from `offset` on, where `size` of them are in the file.
    fn at(&self, offset: u64, size: u64) -> Option<*const c_void> {
        offset.checked_add(size).filter(|end| *end <= self.length)?;
        let offset = usize::try_from(offset).ok()?;
        // SAFETY: lies within the mapping.
        Some(unsafe { self.start.add(offset) }.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_differs_is_told_with_its_place() {
        let mut values: Vec<u32> = (0..VALUES).map(expected).collect();
        assert_eq!(compare(&values), None);
        values[7] ^= 1;
        values[70_000] = 0;
        let wrong = compare(&values).unwrap();
        assert_eq!(
            (wrong.wrong, wrong.values, wrong.first, wrong.observed),
            (2, 1 << 20, 7, expected(7) ^ 1)
        );
    }
}
