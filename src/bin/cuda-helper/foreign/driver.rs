//! libcuda: which CUDA version it serves, and the devices that it shows. Creates no context.

use std::ffi::{OsStr, c_char, c_int};
use std::ptr;

use cuda_entrypoint::facts::{CallError, ComputeCapability, CudaVersion, Device, DriverAnswer, HelperLine};

use super::abi::{self, CuDevice};
use super::{Explanation, Foreign, Function, nonsense, text_at};
use crate::output::Output;
use crate::text;

/// Devices that are asked; a driver that shows more is not believed.
pub const MOST_DEVICES: c_int = 1024;

/// The first error of several calls: it is the cause, and the later ones are mostly its consequences.
#[derive(Default)]
pub struct FirstError(pub Option<CallError>);

impl FirstError {
    /// The value, or `None` once the error is noted.
    pub fn keep<T>(&mut self, result: Result<T, CallError>) -> Option<T> {
        result.map_err(|error| self.0.get_or_insert(error)).ok()
    }
}

/// Loads `libcuda.so.1` as any CUDA program would and asks it. Returns it where it shows a device.
pub fn ask(out: &Output) -> Option<Foreign<'_>> {
    let mut answer = DriverAnswer::default();
    let driver = match Foreign::open(out, OsStr::new("libcuda.so.1"), explain) {
        Ok(driver) => driver,
        Err(problem) => {
            answer.load_error = Some(problem);
            out.line(&HelperLine::Driver(answer));
            return None;
        }
    };
    answer.path = driver.path();
    let mut first = FirstError::default();
    answer.api_version = first.keep(api_version(&driver)); // the one call that works before cuInit
    // SAFETY: takes an integer.
    let ready = driver.check("", |init: abi::CuInit| unsafe { init.0(0) });
    if first.keep(ready).is_some() {
        answer.device_count = first.keep(device_count(&driver));
    }
    let count = answer.device_count.unwrap_or(0);
    if count > MOST_DEVICES {
        first.keep::<()>(Err(nonsense::<abi::CuDeviceGetCount>(format!(
            "reported {count} devices; only the first {MOST_DEVICES} are asked"
        ))));
    }
    answer.error = first.0;
    out.line(&HelperLine::Driver(answer));
    for ordinal in 0..count.min(MOST_DEVICES) {
        out.line(&HelperLine::Device(ask_device(&driver, ordinal)));
    }
    (count > 0).then_some(driver)
}

fn explain(driver: &Foreign, code: c_int) -> Explanation {
    let (mut name, mut description): (*const c_char, *const c_char) = (ptr::null(), ptr::null());
    // SAFETY: both store a pointer to constant text, or null for a code that they do not know.
    driver.call("", |get: abi::CuGetErrorName| unsafe { get.0(code, &mut name) });
    // SAFETY: as above.
    driver.call("", |get: abi::CuGetErrorString| unsafe {
        get.0(code, &mut description)
    });
    // SAFETY: the pointers are still null, or to constant text.
    unsafe {
        Explanation {
            name: text_at(name),
            description: text_at(description),
        }
    }
}

fn api_version(driver: &Foreign) -> Result<CudaVersion, CallError> {
    let mut number = 0;
    // SAFETY: stores one int.
    driver.check("", |get: abi::CuDriverGetVersion| unsafe { get.0(&mut number) })?;
    CudaVersion::from_api(number).ok_or_else(|| {
        nonsense::<abi::CuDriverGetVersion>(format!(
            "reported the version number {number}, which no CUDA release has"
        ))
    })
}

fn device_count(driver: &Foreign) -> Result<i32, CallError> {
    let mut count = 0;
    // SAFETY: stores one int.
    driver.check("", |get: abi::CuDeviceGetCount| unsafe { get.0(&mut count) })?;
    if count < 0 {
        return Err(nonsense::<abi::CuDeviceGetCount>(format!(
            "reported {count} devices"
        )));
    }
    Ok(count)
}

fn ask_device(driver: &Foreign, ordinal: i32) -> Device {
    let mut device = Device {
        ordinal,
        ..Device::default()
    };
    let mut first = FirstError::default();
    let subject = format!(" of device {ordinal}");
    let mut handle = 0;
    // SAFETY: stores one CUdevice.
    let found = driver.check(&subject, |get: abi::CuDeviceGet| unsafe {
        get.0(&mut handle, ordinal)
    });
    if first.keep(found).is_some() {
        let one = OneDevice {
            driver,
            handle,
            subject: &subject,
        };
        device.name = first.keep(one.name()).unwrap_or_default();
        device.uuid = first.keep(one.uuid(&device.name));
        let major = first.keep(one.attribute(abi::CAPABILITY_MAJOR));
        let minor = first.keep(one.attribute(abi::CAPABILITY_MINOR));
        device.capability = capability(major, minor);
        device.memory = first.keep(one.memory());
        device.pci_bus_id = first.keep(one.pci_bus_id());
        device.compute_mode = first.keep(one.attribute(abi::COMPUTE_MODE));
    }
    device.error = first.0;
    device
}

/// `None` where a part is missing or is no small number.
pub fn capability(major: Option<c_int>, minor: Option<c_int>) -> Option<ComputeCapability> {
    Some(ComputeCapability {
        major: u8::try_from(major?).ok()?,
        minor: u8::try_from(minor?).ok()?,
    })
}

struct OneDevice<'a> {
    driver: &'a Foreign<'a>,
    handle: CuDevice,
    subject: &'a str,
}

impl OneDevice<'_> {
    fn check<F: Function>(&self, call: impl FnOnce(F) -> c_int) -> Result<(), CallError> {
        self.driver.check(self.subject, call)
    }

    fn name(&self) -> Result<String, CallError> {
        let mut buffer = [0u8; 256];
        // SAFETY: writes at most as many bytes as it is told that there are.
        self.check(|get: abi::CuDeviceGetName| unsafe {
            get.0(buffer.as_mut_ptr().cast(), 256, self.handle)
        })?;
        Ok(text::until_nul(&buffer))
    }

    /// cuDeviceGetUuid_v2 (CUDA 11.4) answers with the MIG instance's UUID where the device is one, the older
    /// function always with the whole GPU's; neither gives the prefix that nvidia-smi prints.
    fn uuid(&self, name: &str) -> Result<String, CallError> {
        let (mut own, mut gpu) = ([0; 16], [0; 16]);
        // SAFETY: stores 16 bytes.
        let old = self.check(|get: abi::CuDeviceGetUuid| unsafe { get.0(&mut gpu, self.handle) });
        // SAFETY: stores 16 bytes.
        let new = self.check(|get: abi::CuDeviceGetUuidV2| unsafe { get.0(&mut own, self.handle) });
        match (new, old) {
            (Ok(()), old) => {
                let is_instance = text::names_a_mig_instance(name) || (old.is_ok() && own != gpu);
                Ok(text::uuid(if is_instance { "MIG" } else { "GPU" }, own))
            }
            (Err(_), Ok(())) => Ok(text::uuid("GPU", gpu)),
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn attribute(&self, attribute: c_int) -> Result<c_int, CallError> {
        let mut value = 0;
        // SAFETY: stores one int.
        self.check(|get: abi::CuDeviceGetAttribute| unsafe { get.0(&mut value, attribute, self.handle) })?;
        Ok(value)
    }

    fn memory(&self) -> Result<u64, CallError> {
        let mut bytes = 0;
        // SAFETY: stores one size_t.
        self.check(|get: abi::CuDeviceTotalMem| unsafe { get.0(&mut bytes, self.handle) })?;
        Ok(bytes as u64)
    }

    fn pci_bus_id(&self) -> Result<String, CallError> {
        let mut buffer = [0u8; 64];
        // SAFETY: writes at most as many bytes as it is told that there are.
        self.check(|get: abi::CuDeviceGetPciBusId| unsafe {
            get.0(buffer.as_mut_ptr().cast(), 64, self.handle)
        })?;
        Ok(text::pci_bus_id(&text::until_nul(&buffer)))
    }
}
