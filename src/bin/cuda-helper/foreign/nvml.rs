//! libnvidia-ml: the driver's release and the health of the physical GPUs, without initialising CUDA.

use std::ffi::{OsStr, c_int, c_uint};
use std::ptr;

use cuda_entrypoint::facts::{
    CallError, CudaVersion, HelperLine, MemoryHolder, MemoryState, NvmlAnswer, NvmlDevice,
};

use super::abi::{self, NvmlHandle};
use super::driver::{FirstError, MOST_DEVICES, capability};
use super::{Explanation, Foreign, Function, nonsense, text_at};
use crate::arguments::Part;
use crate::output::Output;
use crate::text;

/// GPUs that are asked; the driver's limit is the same.
const MOST_GPUS: u32 = MOST_DEVICES.unsigned_abs();
/// MIG instances that are looked for on one GPU: there are at most seven today.
const MOST_INSTANCES: u32 = 64;
/// Processes for which there is room: with more, none is told.
const MOST_PROCESSES: usize = 1024;
/// Those that hold the most are told.
const MOST_HOLDERS: usize = 8;

/// Loads `libnvidia-ml.so.1` as nvidia-smi does and asks it. With `free`, how much memory each GPU has free as well, and
/// where that is less, who holds it.
pub fn ask(out: &Output, free: Option<u64>, part: Part) {
    let mut answer = NvmlAnswer::default();
    let nvml = match Foreign::open_lazily(out, OsStr::new("libnvidia-ml.so.1"), explain) {
        Ok(nvml) => nvml,
        Err(problem) => {
            answer.load_error = Some(problem);
            return out.line(&HelperLine::Nvml(answer));
        }
    };
    answer.path = nvml.path();
    nvml.populate();
    let mut first = FirstError::default();
    // SAFETY: takes nothing.
    let ready = nvml.check("", |init: abi::NvmlInit| unsafe { init.0() });
    if first.keep(ready).is_some() {
        answer.driver_release = keep_if_offered(&mut first, driver_release(&nvml));
        answer.api_version = keep_if_offered(&mut first, api_version(&nvml));
        answer.device_count = first.keep(device_count(&nvml));
    }
    let count = answer.device_count.unwrap_or(0);
    if count > MOST_GPUS {
        first.keep::<()>(Err(nonsense::<abi::NvmlDeviceGetCount>(format!(
            "reported {count} GPUs; only the first {MOST_GPUS} are asked"
        ))));
    }
    answer.error = first.0;
    out.line(&HelperLine::Nvml(answer));
    for index in (0..count.min(MOST_GPUS)).filter(|&index| part.has(index)) {
        out.line(&HelperLine::NvmlDevice(ask_device(out, &nvml, index, free)));
    }
}

/// What this GPU, this driver or this release of the library does not offer is not an error: the fact stays unknown.
fn keep_if_offered<T>(first: &mut FirstError, result: Result<T, CallError>) -> Option<T> {
    const NOT_OFFERED: [c_int; 3] = [
        abi::NVML_NOT_SUPPORTED,
        abi::NVML_FUNCTION_NOT_FOUND,
        CallError::NO_CODE,
    ];
    match result {
        Err(error) if NOT_OFFERED.contains(&error.code) => None,
        result => first.keep(result),
    }
}

/// The same for what is newer than the oldest drivers in use. They refuse it in several ways, and what else is wrong the
/// calls before have met: only that the GPU itself does not answer counts.
fn keep_if_known<T>(first: &mut FirstError, result: Result<T, CallError>) -> Option<T> {
    const COUNTS: [c_int; 2] = [abi::NVML_GPU_IS_LOST, abi::NVML_RESET_REQUIRED];
    match result {
        Err(error) if !COUNTS.contains(&error.code) => None,
        result => first.keep(result),
    }
}

fn explain(nvml: &Foreign, code: c_int) -> Explanation {
    // SAFETY: returns constant text for every code, or null.
    let description = nvml.call("", |get: abi::NvmlErrorString| unsafe { text_at(get.0(code)) });
    Explanation {
        name: abi::nvml_error_name(code).to_owned(),
        description: description.unwrap_or_default(),
    }
}

fn driver_release(nvml: &Foreign) -> Result<String, CallError> {
    let mut buffer = [0u8; 256];
    // SAFETY: writes at most as many bytes as it is told that there are.
    nvml.check("", |get: abi::NvmlSystemGetDriverVersion| unsafe {
        get.0(buffer.as_mut_ptr().cast(), 256)
    })?;
    Ok(text::until_nul(&buffer))
}

fn api_version(nvml: &Foreign) -> Result<CudaVersion, CallError> {
    let mut number = 0;
    // SAFETY: stores one int.
    nvml.check("", |get: abi::NvmlSystemGetCudaDriverVersion| unsafe {
        get.0(&mut number)
    })?;
    CudaVersion::from_api(number).ok_or_else(|| {
        nonsense::<abi::NvmlSystemGetCudaDriverVersion>(format!("reported the version number {number}"))
    })
}

fn device_count(nvml: &Foreign) -> Result<u32, CallError> {
    let mut count = 0;
    // SAFETY: stores one unsigned int.
    nvml.check("", |get: abi::NvmlDeviceGetCount| unsafe { get.0(&mut count) })?;
    Ok(count)
}

/// A GPU with too little free memory is told before anybody asks who holds it: that only explains, and may hang.
fn ask_device(out: &Output, nvml: &Foreign, index: u32, free: Option<u64>) -> NvmlDevice {
    let mut device = NvmlDevice {
        index,
        ..NvmlDevice::default()
    };
    let mut first = FirstError::default();
    let mut asked = Vec::new();
    let subject = format!(" of GPU {index}");
    let mut handle = ptr::null_mut();
    // SAFETY: stores one handle.
    let found = nvml.check(&subject, |get: abi::NvmlDeviceGetHandleByIndex| unsafe {
        get.0(index, &mut handle)
    });
    if keep_if_offered(&mut first, found).is_some() {
        let one = OneGpu {
            nvml,
            handle,
            subject: &subject,
        };
        device.name = keep_if_offered(&mut first, one.name());
        device.uuid = keep_if_offered(&mut first, one.uuid());
        device.pci_bus_id = keep_if_offered(&mut first, one.pci_bus_id());
        let parts = keep_if_offered(&mut first, one.capability()).unzip();
        device.capability = capability(parts.0, parts.1);
        device.brand = keep_if_offered(&mut first, one.brand());
        let memory = keep_if_offered(&mut first, one.memory(one.handle));
        device.memory = memory.as_ref().map(|m| m.total);
        device.mig_enabled = keep_if_offered(&mut first, one.mig_enabled());
        if device.mig_enabled == Some(true) {
            let instances = keep_if_offered(&mut first, one.instances());
            device.mig_instances = instances
                .as_ref()
                .map(|all| u32::try_from(all.len()).unwrap_or(MOST_INSTANCES));
            for (instance, uuid) in instances.into_iter().flatten() {
                if free.is_some()
                    && let Some(memory) = keep_if_offered(&mut first, one.memory(instance))
                {
                    asked.push(instance);
                    device.memory_now.push(state(uuid.clone(), &memory));
                }
                if !uuid.is_empty() {
                    device.mig_uuids.push(uuid);
                }
            }
        } else if let (Some(memory), Some(_)) = (memory, free) {
            asked.push(one.handle);
            let uuid = device.uuid.clone().unwrap_or_default();
            device.memory_now.push(state(uuid, &memory));
        }
        device.minor = keep_if_offered(&mut first, one.minor());
        device.ecc_uncorrected = keep_if_offered(&mut first, one.ecc_uncorrected());
        (device.remap_pending, device.remap_failed) =
            keep_if_offered(&mut first, one.remapped_rows()).unzip();
        device.compute_mode = keep_if_offered(&mut first, one.compute_mode());
        device.recovery_action = keep_if_known(&mut first, one.recovery_action());
        if let Some(fabric) = keep_if_known(&mut first, one.fabric())
            && fabric.state != abi::FABRIC_NOT_SUPPORTED
        {
            device.fabric_state = Some(fabric.state.into());
            device.fabric_status = Some(fabric.status);
            device.fabric_health = Some(fabric.health);
        }
    }
    device.error = first.0;
    let is_short = |state: &MemoryState| free.is_some_and(|free| state.free < free);
    if device.memory_now.iter().any(is_short) {
        out.line(&HelperLine::NvmlDevice(device.clone()));
        for (state, handle) in device.memory_now.iter_mut().zip(asked) {
            let one = OneGpu {
                nvml,
                handle,
                subject: &subject,
            };
            if is_short(state) {
                // A GPU that does not tell it is not at fault.
                state.holders = one.holders().unwrap_or_default();
            }
        }
    }
    device
}

fn state(uuid: String, memory: &abi::NvmlMemory) -> MemoryState {
    MemoryState {
        uuid,
        total: memory.total,
        free: memory.free,
        holders: Vec::new(),
    }
}

struct OneGpu<'a> {
    nvml: &'a Foreign<'a>,
    handle: NvmlHandle,
    subject: &'a str,
}

impl OneGpu<'_> {
    fn check<F: Function>(&self, call: impl FnOnce(F) -> c_int) -> Result<(), CallError> {
        self.nvml.check(self.subject, call)
    }

    fn name(&self) -> Result<String, CallError> {
        let mut buffer = [0u8; 256];
        // SAFETY: writes at most as many bytes as it is told that there are.
        self.check(|get: abi::NvmlDeviceGetName| unsafe {
            get.0(self.handle, buffer.as_mut_ptr().cast(), 256)
        })?;
        Ok(text::until_nul(&buffer))
    }

    fn uuid(&self) -> Result<String, CallError> {
        self.uuid_of(self.handle)
    }

    /// The UUID of this GPU or of one of its instances.
    fn uuid_of(&self, handle: NvmlHandle) -> Result<String, CallError> {
        let mut buffer = [0u8; 256];
        // SAFETY: writes at most as many bytes as it is told that there are.
        self.check(|get: abi::NvmlDeviceGetUuid| unsafe { get.0(handle, buffer.as_mut_ptr().cast(), 256) })?;
        Ok(text::until_nul(&buffer))
    }

    fn minor(&self) -> Result<u32, CallError> {
        let mut number = 0;
        // SAFETY: stores one unsigned int.
        self.check(|get: abi::NvmlDeviceGetMinorNumber| unsafe { get.0(self.handle, &mut number) })?;
        Ok(number)
    }

    fn pci_bus_id(&self) -> Result<String, CallError> {
        let mut info = abi::NvmlPciInfo::default();
        // SAFETY: fills one struct of this layout.
        self.check(|get: abi::NvmlDeviceGetPciInfo| unsafe { get.0(self.handle, &mut info) })?;
        Ok(text::pci_bus_id(&text::until_nul(&info.bus_id)))
    }

    fn capability(&self) -> Result<(c_int, c_int), CallError> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: stores one int through each pointer.
        self.check(|get: abi::NvmlDeviceGetCapability| unsafe {
            get.0(self.handle, &mut major, &mut minor)
        })?;
        Ok((major, minor))
    }

    fn brand(&self) -> Result<String, CallError> {
        let mut brand = 0;
        // SAFETY: stores one enumerator.
        self.check(|get: abi::NvmlDeviceGetBrand| unsafe { get.0(self.handle, &mut brand) })?;
        Ok(abi::nvml_brand_name(brand).to_string())
    }

    /// Of this GPU or of one of its instances.
    fn memory(&self, handle: NvmlHandle) -> Result<abi::NvmlMemory, CallError> {
        let mut memory = abi::NvmlMemory::default();
        // SAFETY: fills one struct of this layout.
        self.check(|get: abi::NvmlDeviceGetMemoryInfo| unsafe { get.0(handle, &mut memory) })?;
        Ok(memory)
    }

    /// Those that hold the most of this GPU or instance, the largest first.
    fn holders(&self) -> Result<Vec<MemoryHolder>, CallError> {
        let mut found = vec![abi::NvmlProcessInfo::default(); MOST_PROCESSES];
        let mut count = MOST_PROCESSES as c_uint;
        // SAFETY: fills at most as many structs of this layout as it is told that there are, and stores their number.
        self.check(|get: abi::NvmlDeviceGetComputeRunningProcesses| unsafe {
            get.0(self.handle, &mut count, found.as_mut_ptr())
        })?;
        found.truncate(count as usize);
        let mut holders: Vec<MemoryHolder> = found
            .into_iter()
            .map(|process| MemoryHolder {
                pid: process.pid,
                bytes: Some(process.used).filter(|bytes| *bytes != abi::NOT_AVAILABLE),
            })
            .collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
        holders.truncate(MOST_HOLDERS);
        Ok(holders)
    }

    fn mig_enabled(&self) -> Result<bool, CallError> {
        let (mut current, mut pending) = (0, 0);
        // SAFETY: stores one unsigned int through each pointer.
        self.check(|get: abi::NvmlDeviceGetMigMode| unsafe {
            get.0(self.handle, &mut current, &mut pending)
        })?;
        Ok(current == abi::MIG_ENABLED)
    }

    /// Each instance with its UUID, which is empty where the library does not tell it. Instances need not be numbered
    /// without gaps, so every place is looked at.
    fn instances(&self) -> Result<Vec<(NvmlHandle, String)>, CallError> {
        let mut places = 0;
        // SAFETY: stores one unsigned int.
        self.check(|get: abi::NvmlDeviceGetMaxMigDeviceCount| unsafe { get.0(self.handle, &mut places) })?;
        let mut instances = Vec::new();
        for place in 0..places.min(MOST_INSTANCES) {
            let mut instance = ptr::null_mut();
            // SAFETY: stores one handle.
            let found = self.check(|get: abi::NvmlDeviceGetMigDevice| unsafe {
                get.0(self.handle, place, &mut instance)
            });
            match found {
                Ok(()) => instances.push((instance, self.uuid_of(instance).unwrap_or_default())),
                Err(error) if error.code == abi::NVML_NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        Ok(instances)
    }

    fn ecc_uncorrected(&self) -> Result<u64, CallError> {
        let mut errors = 0;
        // SAFETY: stores one unsigned long long.
        self.check(|get: abi::NvmlDeviceGetTotalEccErrors| unsafe {
            get.0(self.handle, abi::ECC_UNCORRECTED, abi::ECC_VOLATILE, &mut errors)
        })?;
        Ok(errors)
    }

    /// Whether a remap waits for a reset, and whether one failed.
    fn remapped_rows(&self) -> Result<(bool, bool), CallError> {
        let mut values: [c_uint; 4] = [0; 4];
        let [corrected, uncorrected, pending, failed] = &mut values;
        // SAFETY: stores one unsigned int through each pointer.
        self.check(|get: abi::NvmlDeviceGetRemappedRows| unsafe {
            get.0(self.handle, corrected, uncorrected, pending, failed)
        })?;
        Ok((*pending != 0, *failed != 0))
    }

    fn compute_mode(&self) -> Result<u32, CallError> {
        let mut mode = 0;
        // SAFETY: stores one enumerator.
        self.check(|get: abi::NvmlDeviceGetComputeMode| unsafe { get.0(self.handle, &mut mode) })?;
        Ok(mode)
    }

    /// What the driver asks for so that this GPU works again.
    fn recovery_action(&self) -> Result<u32, CallError> {
        let mut value = abi::NvmlFieldValue::of(abi::RECOVERY_ACTION);
        self.check(|get: abi::NvmlDeviceGetFieldValues| {
            // SAFETY: fills as many structs of this layout as it is told that there are.
            match unsafe { get.0(self.handle, 1, &mut value) } {
                0 => value.result,
                failed => failed,
            }
        })?;
        Ok(value.value)
    }

    /// How far the GPU's registration with the NVLink fabric is.
    fn fabric(&self) -> Result<abi::NvmlFabricInfo, CallError> {
        let mut info = abi::NvmlFabricInfo::default();
        // SAFETY: fills one struct of the version that it is told.
        self.check(|get: abi::NvmlDeviceGetFabricInfo| unsafe { get.0(self.handle, &mut info) })?;
        Ok(info)
    }
}
