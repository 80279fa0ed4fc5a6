//! Driver and GPUs judged against the manifest. Pure: facts in, findings out.

use crate::check::{Code, Finding, Severity};
use crate::cli::config::Gpu;
use crate::cuda_errors;
use crate::facts::{CallError, CudaVersion, Device, DriverAnswer, Facts, HelperEnd, NvmlDevice};
use crate::process::limits::ResourceLimit;
use crate::processor::OWN;
use crate::signal::Number;
use crate::stack::{CudaRule, Stack};
use crate::text::{counted, verb};

use super::{floor, forward};

mod differs;
mod expected;
mod nodes;
mod recovery;
#[cfg(test)]
mod tests;

/// Everything of the device stage but the limits.
pub fn judge(stack: &Stack, gpu: Gpu, facts: &Facts) -> Vec<Finding> {
    if gpu == Gpu::Off {
        return vec![Finding::skip(Code::DriverMissing, "driver").message("not asked: --gpu off")];
    }
    let device = &facts.device;
    let mut findings = Vec::new();
    if let Some(finding) = helper_failure(&device.helper.end, "driver", facts) {
        findings.push(finding);
    }
    if let Some(driver) = &device.driver {
        judge_driver(driver, stack, gpu, facts, &mut findings);
    }
    findings.extend(floor::on_machine(stack, facts, &findings));
    findings.extend(forward::predicted(facts));
    findings.extend(expected::judge(stack, facts));
    judge_nvml(gpu, facts, false, &mut findings);
    findings.extend(differs::judge(facts));
    findings.extend(nodes::judge(gpu, facts, false));
    findings
}

/// The `health` stage: NVML and the device nodes, since a probe has no time for cuInit.
pub fn judge_health(gpu: Gpu, facts: &Facts) -> Vec<Finding> {
    if gpu == Gpu::Off {
        return vec![Finding::skip(Code::NvmlMissing, "NVML").message("not asked: --gpu off")];
    }
    let mut findings = Vec::new();
    judge_nvml(gpu, facts, true, &mut findings);
    findings.extend(nodes::judge(gpu, facts, true));
    findings
}

fn absence_severity(gpu: Gpu, code: Code) -> Severity {
    if gpu == Gpu::Optional {
        Severity::Warn
    } else {
        code.severity()
    }
}

/// A helper run that did not go through. `None` where it did, or where it was not started at all.
pub fn helper_failure(end: &HelperEnd, what: &str, facts: &Facts) -> Option<Finding> {
    // NVML is a name.
    let whom = if what == "NVML" {
        what.to_string()
    } else {
        format!("the {what}")
    };
    let crashed = |how: String, step: &str, hint: &str| {
        Finding::problem(Code::HelperCrashed, what)
            .observed(how)
            .required("an answer")
            .message(format!("the process that asks {whom} ended in {step}"))
            .hint(hint)
    };
    Some(match end {
        HelperEnd::NotRun | HelperEnd::Done => return None,
        HelperEnd::LoaderMissing { detail } => {
            // The image stage says it already where it asked for libraries.
            if matches!(facts.image.helper.end, HelperEnd::LoaderMissing { .. }) {
                return Some(
                    Finding::unknown(Code::DriverMissing, what)
                        .message(format!("{whom} could not be asked without a glibc loader")),
                );
            }
            loader_missing(detail)
        }
        HelperEnd::NotStarted { detail } => Finding::problem(Code::HelperCrashed, what)
            .observed(detail.clone())
            .required("a helper process that loads the CUDA libraries")
            .message(format!("the process that asks {whom} could not be started"))
            .hint(not_started_hint(detail)),
        HelperEnd::Crashed { signal, step } => {
            let finding = crashed(
                format!("{} in {step}", signal_name(*signal)),
                step,
                crash_hint(*signal),
            );
            // The loader maps what a file's headers promise; the first look at what is not there ends the process.
            match step.strip_prefix("dlopen ") {
                Some(library) if *signal == nix::libc::SIGBUS => finding
                    .message(format!(
                        "{library} is there and cannot be loaded: it is cut off, or the storage under it failed"
                    ))
                    .hint("compare the file's size with that of the host's, look for I/O errors in the node's dmesg, and recreate the container"),
                _ => finding,
            }
        }
        HelperEnd::Exited { code, step, stderr } => {
            let said = if stderr.is_empty() {
                String::new()
            } else {
                format!(": {stderr}")
            };
            crashed(
                format!("exit status {code} in {step}{said}"),
                step,
                LIBRARIES_HINT,
            )
        }
        HelperEnd::Garbled { detail, step } => crashed(
            format!("unexpected output after {step}: {detail}"),
            step,
            LIBRARIES_HINT,
        ),
        HelperEnd::TimedOut {
            step,
            after_ms,
            killed,
            in_all,
        } => {
            let left = if *killed {
                ""
            } else {
                "; it sits in the kernel and could not be killed"
            };
            let (observed, required, message) = if *in_all {
                (
                    "not done: at",
                    "all answers within ten times --device-timeout",
                    format!("{whom} answers each call and takes too long in all: it has come to {step}"),
                )
            } else {
                (
                    "no answer from",
                    "an answer within --device-timeout",
                    format!("{whom} did not answer: {step} hangs"),
                )
            };
            Finding::problem(Code::HelperTimeout, what)
                .observed(format!("{observed} {step} after {}{left}", seconds(*after_ms)))
                .required(required)
                .message(message)
                .hint("look for NVRM and Xid lines in dmesg on the node and drain it; a slow but healthy node needs a longer CUDA_ENTRYPOINT_DEVICE_TIMEOUT")
                .retryable()
        }
    })
}

/// What to do where no process of the helper's could be made.
pub fn not_started_hint(detail: &str) -> &'static str {
    if let Some(shortage) = ResourceLimit::told_by(detail) {
        return shortage.hint();
    }
    if detail.starts_with("--helper-path") {
        return "unset CUDA_ENTRYPOINT_HELPER_PATH or --helper-path: the binary carries a helper; or write one of this very build with `cuda-entrypoint install DIR` and name DIR/cuda-helper";
    }
    "allow memfd execution (vm.memfd_noexec=0 or 1), mount an executable /tmp, or start the binary from a folder that `cuda-entrypoint install DIR` has filled"
}

const LIBRARIES_HINT: &str = "run nvidia-smi on the host; if that works, check that the libraries mounted into the container belong to the host's driver";

/// Some signals do not come from the library that was called.
fn crash_hint(signal: i32) -> &'static str {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(nix::sys::signal::Signal::SIGKILL) => {
            "raise the container's memory limit: the kernel kills what exceeds it (dmesg on the node: oom-kill)"
        }
        Ok(nix::sys::signal::Signal::SIGSYS) => {
            "start the container with a seccomp profile that allows what the driver calls (dmesg on the node: type=1326)"
        }
        Ok(nix::sys::signal::Signal::SIGXFSZ) => ResourceLimit::FileSize.hint(),
        Ok(nix::sys::signal::Signal::SIGXCPU) => ResourceLimit::CpuTime.hint(),
        _ => LIBRARIES_HINT,
    }
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{} s", ms / 1000)
    } else {
        format!("{ms} ms")
    }
}

/// The finding for an image in which no CUDA library can run.
pub fn loader_missing(detail: &str) -> Finding {
    Finding::problem(Code::LoaderMissing, "glibc")
        .observed(detail)
        .required(format!("{} of glibc 2.17 or newer", OWN.loader))
        .message("this image has no usable glibc loader, so no CUDA library can run in it")
        .hint("build on a glibc image (debian, ubuntu, ubi, distroless/cc, nvidia/cuda): NVIDIA ships no CUDA for musl or an empty image")
}

/// `SIGSEGV` rather than 11.
pub fn signal_name(number: i32) -> String {
    Number(number).to_string()
}

fn judge_driver(driver: &DriverAnswer, stack: &Stack, gpu: Gpu, facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(error) = &driver.load_error {
        findings.push(driver_missing(error, gpu, facts));
        return;
    }
    let path = driver.path.as_deref().unwrap_or("libcuda.so.1");
    let meaning = driver.error.as_ref().map(|e| cuda_errors::cuda(e).code);
    // A stub that says so itself gets its finding below.
    if path.contains("/stubs/") && meaning != Some(Code::StubDriver) {
        findings.push(stub(path, "the loader maps the toolkit's stub"));
    }
    findings.push(
        Finding::pass(Code::DriverMissing, "libcuda.so.1")
            .observed(path)
            .message("the driver library loads"),
    );
    match (&driver.error, meaning) {
        (Some(error), Some(Code::DriverTooOld)) => {
            findings.push(refused_as_too_old(error, driver, stack, facts))
        }
        _ => judge_version(driver, stack, facts, findings),
    }
    if let Some(error) = &driver.error {
        if meaning != Some(Code::DriverTooOld) {
            findings.push(call_failed(error, path, gpu, facts));
        }
        return;
    }
    match driver.device_count {
        Some(0) => findings.push(gpu_missing("cuDeviceGetCount returned 0", gpu, facts)),
        Some(count) => findings.push(
            Finding::pass(Code::GpuMissing, counted(count, "GPU"))
                .observed(kinds(&facts.device.devices))
                .message(if count == 1 {
                    "the driver sees it"
                } else {
                    "the driver sees them"
                }),
        ),
        None => {}
    }
    for device in &facts.device.devices {
        if let Some(error) = &device.error {
            let subject = format!("GPU {} {}", device.ordinal, device.name);
            findings.push(call_failed(error, subject.trim_end(), gpu, facts));
        }
        judge_compute_mode(device, findings);
    }
}

/// `8 × NVIDIA H200 (9.0, 143771 MiB)`, one entry for each kind of GPU in the order in which they come.
fn kinds(devices: &[Device]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for device in devices {
        let kind = describe(device);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let shown = kinds.into_iter().map(|(kind, count)| match count {
        1 => kind,
        _ => format!("{count} × {kind}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn describe(device: &Device) -> String {
    let capability = device
        .capability
        .map_or_else(|| "?".to_string(), |c| c.to_string());
    let memory = device
        .memory
        .map(|m| format!(", {} MiB", m >> 20))
        .unwrap_or_default();
    format!("{} ({capability}{memory})", device.name)
}

fn driver_missing(error: &str, gpu: Gpu, facts: &Facts) -> Finding {
    // dlopen names the file that is missing; another name is a library that libcuda needs.
    let absent = is_absence_of("libcuda.so.1", error);
    let hint = if absent {
        absent_driver_hint(facts)
    } else {
        "something stands in the driver's place, or only a part of it was mounted: take libcuda.so.1 out of the image and its folder out of LD_LIBRARY_PATH, and recreate the container with the NVIDIA runtime (`docker run --gpus all`)".to_string()
    };
    Finding::problem_as(
        Code::DriverMissing,
        absence_severity(gpu, Code::DriverMissing),
        "libcuda.so.1",
    )
    .observed(error)
    .required("the NVIDIA driver's libcuda.so.1, which the container runtime mounts from the host")
    .message(if absent {
        "there is no NVIDIA driver in this container"
    } else {
        "libcuda.so.1 is there and cannot be loaded"
    })
    .hint(hint)
}

/// What to do where the loader finds none of a library that lies somewhere all the same.
fn elsewhere_hint(library: &str, facts: &Facts) -> Option<String> {
    let mut copies = facts.device.driver_elsewhere.iter();
    let (found, folder) = copies.find_map(|found| {
        let (folder, name) = found.rsplit_once('/')?;
        (name == library).then_some((found, folder))
    })?;
    let searched = facts.environment.get("LD_LIBRARY_PATH");
    let searched = searched.is_some_and(|all| all.split([':', ';']).any(|f| f == folder));
    Some(if searched {
        format!(
            "{found} is there, and the loader passes it over: this user may not read it (chmod a+r), it is no library for {}, or a part of the driver for another one; mount the host's in its place (`docker run --gpus all`)",
            OWN.name
        )
    } else {
        format!(
            "{found} is there, but the loader does not search its folder: add {folder} to LD_LIBRARY_PATH, or write it to /etc/ld.so.conf.d and run ldconfig"
        )
    })
}

fn absent_driver_hint(facts: &Facts) -> String {
    let variable = |name: &str| facts.environment.get(name).map(String::as_str);
    let nodes = &facts.device.nodes;
    if let Some(hint) = elsewhere_hint("libcuda.so.1", facts) {
        return hint;
    }
    if !nodes.is_empty() {
        let capabilities = variable("NVIDIA_DRIVER_CAPABILITIES").unwrap_or("unset");
        return format!(
            "device nodes are there ({}), the libraries are not: let NVIDIA_DRIVER_CAPABILITIES contain `compute` and `utility` (it is {capabilities}), and recreate the container",
            nodes.join(" ")
        );
    }
    let start = "`docker run --gpus all`, or in a pod `resources.limits.\"nvidia.com/gpu\": 1` (and runtimeClassName: nvidia where it is not the default)";
    match variable("NVIDIA_VISIBLE_DEVICES") {
        Some(value @ ("" | "void")) => format!(
            "NVIDIA_VISIBLE_DEVICES={value} keeps the driver out unless GPUs are asked for otherwise: {start}"
        ),
        _ => format!("start the container with the NVIDIA runtime: {start}"),
    }
}

fn stub(path: &str, observed: &str) -> Finding {
    Finding::problem(Code::StubDriver, path)
        .observed(observed)
        .required("the driver's own libcuda.so.1")
        .message("the CUDA toolkit's stub library stands in for the driver")
        .hint("remove lib64/stubs from LD_LIBRARY_PATH and from /etc/ld.so.conf.d in the image, then run ldconfig")
}

pub(super) fn driver_subject(facts: &Facts) -> String {
    let nvml = facts.device.nvml.as_ref();
    let release = nvml.and_then(|n| n.driver_release.as_deref());
    release.map_or_else(|| "driver".to_string(), |r| format!("driver {r}"))
}

/// The CUDA version that a driver has to serve in full, as far as the manifest tells it: what it says of the driver and
/// what its runtime needs.
fn wanted_version(stack: &Stack) -> Option<CudaVersion> {
    let lowest = |rule: &Option<CudaRule>| rule.as_ref().and_then(CudaRule::lowest);
    lowest(&stack.cuda.driver).max(lowest(&stack.cuda.runtime))
}

/// `to release 550.54.14 or newer for CUDA 12.4`, or less where the release is not known.
pub(super) fn to_release(wanted: Option<CudaVersion>) -> String {
    match wanted.and_then(|version| Some((version, cuda_errors::oldest_driver(|v| v >= version)?))) {
        Some((version, release)) => format!("to release {release} or newer for CUDA {version}"),
        None => "to one for which nvidia-smi shows such a CUDA Version (CUDA UMD Version from driver 610 on)"
            .to_string(),
    }
}

/// CUDA 11 brought minor-version compatibility (CUDA Compatibility, "Minor Version Compatibility").
const FIRST_COMPATIBLE_MAJOR: u16 = 11;

fn judge_version(driver: &DriverAnswer, stack: &Stack, facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(rule) = &stack.cuda.driver else { return };
    let subject = driver_subject(facts);
    let required = format!("CUDA {rule}");
    let Some(version) = driver.api_version else {
        if driver.error.is_none() {
            findings.push(
                Finding::unknown(Code::DriverTooOld, subject)
                    .required(required)
                    .message("the driver did not say which CUDA it supports"),
            );
        }
        return;
    };
    let wanted = wanted_version(stack);
    let finding = if rule.matches(version) {
        Finding::pass(Code::DriverTooOld, subject).message("the driver is new enough")
    } else if rule.lowest().is_some_and(|lowest| version > lowest) {
        Finding::problem(Code::DriverTooOld, subject)
            .message(format!(
                "the manifest does not accept a driver that supports CUDA {version}"
            ))
            .hint("widen cuda.driver in the manifest if that is not meant: drivers run older CUDA programs")
    } else if version.major >= FIRST_COMPATIBLE_MAJOR && wanted.is_some_and(|w| w.major == version.major) {
        let wanted_text = wanted.map_or_else(|| rule.to_string(), |w| w.to_string());
        Finding::problem(Code::DriverMinorCompat, subject)
            .message(format!("the driver supports CUDA {version}; CUDA {wanted_text} runs on it by minor-version compatibility, but no PTX is compiled"))
            .hint(format!("update the node's driver {}; on this one, kernels that are there as PTX alone fail with error 222", to_release(wanted)))
    } else {
        Finding::problem(Code::DriverTooOld, subject)
            .message(format!("the driver supports no CUDA newer than {version}"))
            .hint(update_hint(wanted, facts))
    };
    findings.push(
        finding
            .observed(forward::served(version, facts))
            .required(required),
    );
}

pub(super) fn update_hint(wanted: Option<CudaVersion>, facts: &Facts) -> String {
    let way_out = wanted.and_then(|wanted| forward::way_out(floor::least(wanted), facts));
    let way_out = way_out.map_or_else(String::new, |way| format!("; {way}"));
    let least = wanted.and_then(|w| Some((w.major, cuda_errors::oldest_driver_of_major(w.major)?)));
    let least = least.map_or_else(String::new, |(major, release)| {
        format!(" (any CUDA {major}.x runs from {release} on, with limits)")
    });
    format!(
        "update the node's driver {}{least}, or schedule onto nodes that have it{way_out}",
        to_release(wanted)
    )
}

/// Error 35: a libcuda that knows itself to be too old.
fn refused_as_too_old(error: &CallError, driver: &DriverAnswer, stack: &Stack, facts: &Facts) -> Finding {
    let serves = driver.api_version.map_or_else(
        || "the driver does not say which CUDA it supports".to_string(),
        |version| format!("the driver supports CUDA {version}"),
    );
    let wanted = wanted_version(stack);
    let required = match (&stack.cuda.driver, wanted) {
        (Some(rule), _) => format!("CUDA {rule}"),
        (None, Some(version)) => format!("CUDA {version}"),
        (None, None) => "success".to_string(),
    };
    Finding::problem(Code::DriverTooOld, driver_subject(facts))
        .observed(format!("{error}; {serves}"))
        .required(required)
        .message(cuda_errors::cuda(error).cause)
        .hint(update_hint(wanted, facts))
}

fn call_failed(error: &CallError, subject: &str, gpu: Gpu, facts: &Facts) -> Finding {
    let meaning = cuda_errors::cuda(error);
    let finding = match meaning.code {
        Code::GpuMissing => return gpu_missing(&error.to_string(), gpu, facts),
        Code::StubDriver => return stub(subject, &error.to_string()),
        code => {
            let mut observed = error.to_string();
            if cuda_errors::is_of_visibility(error) {
                observed.push_str(&format!("; {}", visibility(facts)));
            }
            let finding = Finding::problem(code, subject).required("success");
            match forward::explained(error, facts) {
                Some([beside, message, hint]) => {
                    finding.observed(observed + &beside).message(message).hint(hint)
                }
                None => finding
                    .observed(observed)
                    .message(meaning.cause)
                    .hint(meaning.hint),
            }
        }
    };
    if meaning.retryable {
        finding.retryable()
    } else {
        finding
    }
}

/// What the two variables say that decide which GPUs are visible.
fn visibility(facts: &Facts) -> String {
    let said = |name: &str| match facts.environment.get(name).map(String::as_str) {
        Some("") => format!("{name} is empty"),
        Some(value) => format!("{name}={value}"),
        None => format!("{name} is unset"),
    };
    format!(
        "{}; {}",
        said("CUDA_VISIBLE_DEVICES"),
        said("NVIDIA_VISIBLE_DEVICES")
    )
}

/// Whether a node of a GPU itself is there, not only those that all GPUs share.
fn has_gpu_node(nodes: &[String]) -> bool {
    let of_gpu = |node: &String| {
        node == "/dev/dxg"
            || node
                .strip_prefix("/dev/nvidia")
                .is_some_and(|number| number.bytes().next().is_some_and(|b| b.is_ascii_digit()))
    };
    nodes.iter().any(of_gpu)
}

fn gpu_missing(observed: &str, gpu: Gpu, facts: &Facts) -> Finding {
    let variable = |name: &str| facts.environment.get(name).map(String::as_str);
    let (cuda, nvidia) = (
        variable("CUDA_VISIBLE_DEVICES"),
        variable("NVIDIA_VISIBLE_DEVICES"),
    );
    let device = &facts.device;
    let has_node = has_gpu_node(&device.nodes);
    // `none` asks for the driver without a GPU. `void` and the empty value ask for nothing, but CDI sets `void` on a
    // container that it has given GPUs (NVIDIA Container Toolkit, "NVIDIA_VISIBLE_DEVICES"; nvidia-ctk cdi generate).
    let kept_out = nvidia == Some("none") || (matches!(nvidia, Some("void" | "")) && !has_node);
    let without_instance = |d: &NvmlDevice| d.mig_enabled == Some(true) && d.mig_instances == Some(0);
    let hidden = cuda.is_some_and(|v| matches!(v.trim(), "" | "-1" | "NoDevFiles"));
    let hint = if hidden {
        "CUDA_VISIBLE_DEVICES hides every GPU: unset it, or list the ones to use"
    } else if !device.nvml_devices.is_empty() && device.nvml_devices.iter().all(without_instance) {
        "MIG is on and has no instance: create one (nvidia-smi mig -cgi PROFILE -C on the host), or turn MIG off"
    } else if cuda.is_some() && !device.nvml_devices.is_empty() {
        "CUDA_VISIBLE_DEVICES names no GPU of this container: it counts from 0 within it, or takes UUIDs as nvidia-smi -L prints them"
    } else if kept_out {
        "NVIDIA_VISIBLE_DEVICES keeps the GPUs out: request one (`docker run --gpus all`, `resources.limits.\"nvidia.com/gpu\": 1`)"
    } else if has_node {
        "a GPU's device node is there: look at nvidia-smi on the host and for NVRM and Xid lines in its dmesg, then recreate the container"
    } else {
        "request a GPU (`docker run --gpus all`, `resources.limits.\"nvidia.com/gpu\": 1`), and check nvidia-smi on the host"
    };
    let mut observed = format!("{observed}; {}", visibility(facts));
    if let Some(count) = device.nvml.as_ref().and_then(|n| n.device_count) {
        observed.push_str(&format!("; NVML sees {}", counted(count, "GPU")));
    }
    observed.push_str(&match device.nodes.as_slice() {
        [] => "; no /dev/nvidia* node".to_string(),
        nodes => format!("; {}", nodes.join(" ")),
    });
    let finding = Finding::problem_as(Code::GpuMissing, absence_severity(gpu, Code::GpuMissing), "GPU")
        .observed(observed)
        .required("at least one visible GPU")
        .message("the driver is loaded, but no GPU is visible in this container")
        .hint(hint);
    // What a variable hides stays hidden however long one waits.
    if cuda.is_some() || kept_out {
        finding
    } else {
        finding.retryable()
    }
}

/// `CU_COMPUTEMODE_PROHIBITED`
const PROHIBITED: i32 = 2;
/// `CU_COMPUTEMODE_EXCLUSIVE_PROCESS`
const EXCLUSIVE_PROCESS: i32 = 3;

fn judge_compute_mode(device: &Device, findings: &mut Vec<Finding>) {
    let subject = format!("GPU {} {}", device.ordinal, device.name);
    match device.compute_mode {
        Some(PROHIBITED) => findings.push(
            Finding::problem(Code::GpuUnhealthy, subject)
                .observed("compute mode Prohibited")
                .required("compute mode Default or Exclusive Process")
                .message("this GPU's compute mode forbids every CUDA context")
                .hint("on the host: nvidia-smi -c DEFAULT"),
        ),
        Some(EXCLUSIVE_PROCESS) => findings.push(
            Finding::info(Code::GpuUnhealthy, subject)
                .observed("compute mode Exclusive Process")
                .message("one process at a time may use this GPU, as MPS sets it"),
        ),
        _ => {}
    }
}

/// Whether the loader's message says that it found no such library, rather than one that it cannot load.
fn is_absence_of(library: &str, error: &str) -> bool {
    error
        .strip_prefix(library)
        .is_some_and(|rest| rest.starts_with(':') && rest.contains("No such file"))
}

/// NVML never decides alone: where CUDA has shown its devices, what NVML cannot do is a warning, unless it says that a
/// GPU is lost or unhealthy, or that library and kernel module do not match.
fn judge_nvml(gpu: Gpu, facts: &Facts, alone: bool, findings: &mut Vec<Finding>) {
    let device = &facts.device;
    let none = Facts::default();
    let cuda_answered = !alone && device.has_usable();
    if let Some(mut finding) = helper_failure(&device.nvml_helper.end, "NVML", &none) {
        // Without a loader the driver's run has said so.
        if matches!(device.nvml_helper.end, HelperEnd::LoaderMissing { .. }) && !alone {
            return;
        }
        finding = finding.about("NVML");
        if cuda_answered && finding.problem {
            finding.status = Severity::Warn.into();
            if matches!(device.nvml_helper.end, HelperEnd::TimedOut { in_all: false, .. }) {
                let required = format!("{}, and within 5 s once CUDA has answered", finding.required);
                finding = finding
                    .required(required)
                    .hint("run nvidia-smi on the node, and look for NVRM and Xid lines in its dmesg");
            }
            let hint = format!(
                "CUDA answers, so the service starts; GPU health is not known: {}",
                finding.hint
            );
            finding = finding.hint(hint);
        }
        findings.push(finding);
    }
    let Some(nvml) = &device.nvml else { return };
    if let Some(error) = &nvml.load_error {
        let finds_none = is_absence_of("libnvidia-ml.so.1", error);
        let elsewhere = finds_none
            .then(|| elsewhere_hint("libnvidia-ml.so.1", facts))
            .flatten();
        let is_absent = finds_none && elsewhere.is_none();
        let finding = if alone {
            let severity = absence_severity(gpu, Code::DriverMissing);
            Finding::problem_as(Code::DriverMissing, severity, "libnvidia-ml.so.1")
        } else if is_absent {
            Finding::problem(Code::NvmlMissing, "libnvidia-ml.so.1")
        } else {
            Finding::problem_as(Code::NvmlMissing, Severity::Warn, "libnvidia-ml.so.1")
        };
        let finding = finding
            .observed(error.clone())
            .required("the NVIDIA driver's libnvidia-ml.so.1");
        findings.push(if is_absent {
            finding
                .message("NVML is not there, so GPU health and the driver's release are not known")
                .hint("let NVIDIA_DRIVER_CAPABILITIES contain `utility`, or start the container with `--gpus all`")
        } else {
            finding
                .message("NVML is there and cannot be loaded, so GPU health and the driver's release are not known")
                .hint(elsewhere.unwrap_or_else(|| "take libnvidia-ml.so.1 out of the image and its folder out of LD_LIBRARY_PATH, and recreate the container with the NVIDIA runtime, which mounts the driver's own".into()))
        });
        return;
    }
    if let Some(error) = &nvml.error {
        let meaning = cuda_errors::nvml(error);
        // Health is asked of NVML alone. Of a GPU that nobody has given to this container nothing can be gone.
        let was_never_there = alone && meaning.code != Code::GpuUnhealthy && !has_gpu_node(&device.nodes);
        let finding = if was_never_there && gpu == Gpu::Optional {
            Finding::problem_as(meaning.code, Severity::Warn, "NVML")
        } else if alone || cuda_errors::nvml_decides(error) {
            Finding::problem(meaning.code, "NVML")
        } else if cuda_answered {
            Finding::problem_as(Code::NvmlMissing, Severity::Warn, "NVML")
        } else {
            Finding::problem(Code::NvmlMissing, "NVML")
        };
        let finding = finding
            .observed(error.to_string())
            .required("success")
            .message(meaning.cause)
            .hint(meaning.hint);
        findings.push(if meaning.retryable {
            finding.retryable()
        } else {
            finding
        });
        return;
    }
    if alone && nvml.device_count == Some(0) {
        // A node is there: so was its GPU.
        let is_gone = has_gpu_node(&device.nodes);
        let severity = if is_gone {
            Code::GpuMissing.severity()
        } else {
            absence_severity(gpu, Code::GpuMissing)
        };
        findings.push(
            Finding::problem_as(Code::GpuMissing, severity, "GPU")
                .observed("nvmlDeviceGetCount_v2 returned 0")
                .required("at least one GPU")
                .message("NVML sees no GPU")
                .hint("request a GPU (`docker run --gpus all`, `resources.limits.\"nvidia.com/gpu\": 1`)")
                .retryable(),
        );
    }
    let before_gpus = findings.len();
    let mut healthy = Vec::new();
    for one in device
        .nvml_devices
        .iter()
        .filter(|one| concerns_us(one, facts, alone))
    {
        let before = findings.len();
        judge_health_of(one, alone, cuda_answered, findings);
        if findings.len() == before {
            healthy.push(one);
        }
    }
    let none_usable = findings
        .iter()
        .any(|f| f.problem && matches!(f.code, Code::DriverMissing | Code::GpuMissing));
    if gpu == Gpu::Optional && none_usable {
        // Nobody counts on these: they are named because one of them may be the reason why there is no other.
        let of_gpus = findings.iter_mut().skip(before_gpus);
        of_gpus
            .filter(|f| f.problem)
            .for_each(|f| f.status = Severity::Warn.into());
    }
    findings.extend(health_of(&healthy));
}

/// What is said of GPUs with which nothing was found to be wrong.
fn health_of(gpus: &[&NvmlDevice]) -> Option<Finding> {
    let subject = counted(gpus.len(), "GPU");
    let whom = verb(gpus.len(), "it", "them");
    // An NVML with few functions may not even give a handle.
    if gpus.iter().all(|gpu| {
        gpu.name.is_none() && gpu.uuid.is_none() && gpu.pci_bus_id.is_none() && gpu.ecc_uncorrected.is_none()
    }) {
        return (!gpus.is_empty()).then(|| {
            Finding::unknown(Code::GpuUnhealthy, subject).message(format!(
                "this NVML version lacks the functions that report {whom}"
            ))
        });
    }
    let counts_errors = gpus.iter().all(|gpu| gpu.ecc_uncorrected.is_some());
    let counts_remaps = gpus.iter().all(|gpu| gpu.remap_pending.is_some());
    Some(
        Finding::pass(Code::GpuUnhealthy, subject)
            .observed(match (counts_errors, counts_remaps) {
                (true, true) => "no uncorrected ECC error, no pending row remap",
                (true, false) => "no uncorrected ECC error",
                (false, true) => "no pending row remap",
                (false, false) => "no error; NVML counts neither ECC errors nor row remaps here",
            })
            .message(format!("NVML reports {whom} healthy")),
    )
}

/// `NVML_ERROR_NO_PERMISSION`
const NO_PERMISSION: i32 = 4;

/// On a machine that shares its GPUs the health of one that this process cannot use is nobody's business here.
fn concerns_us(gpu: &NvmlDevice, facts: &Facts, alone: bool) -> bool {
    // NVML counts GPUs that belong to other containers too, and then refuses their handles (NVML API Reference,
    // nvmlDeviceGetCount_v2).
    if gpu.error.as_ref().is_some_and(|e| e.code == NO_PERMISSION) && gpu.pci_bus_id.is_none() {
        return false;
    }
    let seen = &facts.device.devices;
    if alone {
        return true;
    }
    if seen.is_empty() {
        // With no device that CUDA shows, any of them may be the reason, unless a variable is.
        return !facts.environment.contains_key("CUDA_VISIBLE_DEVICES") || !driver_shows_none(facts);
    }
    gpu.pci_bus_id.is_none() || seen.iter().any(|device| differs::is_of(device, gpu))
}

/// Whether libcuda answered and said that there is no device.
fn driver_shows_none(facts: &Facts) -> bool {
    facts.device.driver.as_ref().is_some_and(|driver| {
        driver.device_count == Some(0)
            || driver
                .error
                .as_ref()
                .is_some_and(|e| cuda_errors::cuda(e).code == Code::GpuMissing)
    })
}

fn judge_health_of(gpu: &NvmlDevice, alone: bool, cuda_answered: bool, findings: &mut Vec<Finding>) {
    let name = gpu.name.as_deref().unwrap_or("GPU");
    let uuid = gpu.uuid.as_deref().unwrap_or("");
    let subject = format!("GPU {} {name} {uuid}", gpu.index);
    let subject = subject.trim_end();
    // The driver's own word comes first: it says who has to do what.
    let asked = match (alone, cuda_answered) {
        (true, _) => recovery::Asked::ByProbe,
        (false, true) => recovery::Asked::BesideCuda,
        (false, false) => recovery::Asked::WithoutCuda,
    };
    findings.extend(recovery::judge(gpu, subject, asked));
    let mut problem = |observed: String, required: &str, message: &str, hint: &str| {
        findings.push(
            Finding::problem(Code::GpuUnhealthy, subject)
                .observed(observed)
                .required(required)
                .message(message)
                .hint(hint),
        );
    };
    if let Some(count) = gpu.ecc_uncorrected.filter(|n| *n > 0) {
        problem(
            format!(
                "{} since the driver was loaded",
                counted(count, "uncorrected ECC error")
            ),
            "none",
            "this GPU's memory gave wrong data",
            "drain the node and reset the GPU (nvidia-smi -r -i INDEX) or reboot; replace it if they come back",
        );
    }
    if gpu.remap_failed == Some(true) {
        problem(
            "a row of memory could not be remapped".into(),
            "no failed row remap",
            "this GPU has run out of spare memory rows",
            "drain the node and have the GPU replaced",
        );
    }
    if gpu.remap_pending == Some(true) {
        problem(
            "a row of memory waits to be remapped".into(),
            "no pending row remap",
            "this GPU has a bad memory row that a reset will take out of use",
            "drain the node and reset the GPU (nvidia-smi -r -i INDEX) or reboot",
        );
    }
    if gpu.mig_enabled == Some(true) && gpu.mig_instances == Some(0) {
        problem(
            "MIG is on, without an instance".into(),
            "a MIG instance, or MIG off",
            "this GPU cannot compute: MIG is on and no instance was made",
            "nvidia-smi mig -cgi PROFILE -C on the host, or nvidia-smi -mig 0",
        );
    }
    // `NVML_COMPUTEMODE_PROHIBITED` has CUDA's number; where CUDA was asked, its answer was judged already.
    if alone
        && gpu
            .compute_mode
            .is_some_and(|m| i32::try_from(m) == Ok(PROHIBITED))
    {
        problem(
            "compute mode Prohibited".into(),
            "compute mode Default or Exclusive Process",
            "this GPU's compute mode forbids every CUDA context",
            "on the host: nvidia-smi -c DEFAULT",
        );
    }
    if let Some(error) = &gpu.error {
        let meaning = cuda_errors::nvml(error);
        let finding = if cuda_answered && !cuda_errors::nvml_decides(error) {
            Finding::problem_as(meaning.code, Severity::Warn, subject)
        } else {
            Finding::problem(meaning.code, subject)
        };
        let finding = finding
            .observed(error.to_string())
            .required("success")
            .message(meaning.cause)
            .hint(meaning.hint);
        findings.push(if meaning.retryable {
            finding.retryable()
        } else {
            finding
        });
    }
}
