//! Driver and GPUs judged against the manifest. Pure: facts in, findings out.

use crate::check::{Code, Finding, Severity};
use crate::config::Gpu;
use crate::cuda_errors;
use crate::facts::{CallError, Device, DeviceFacts, DriverAnswer, Facts, HelperEnd, NvmlDevice};
use crate::stack::Stack;

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
    judge_nvml(device, false, &mut findings);
    findings
}

/// The `health` stage: NVML alone, since a probe has no time for cuInit.
pub fn judge_health(gpu: Gpu, facts: &Facts) -> Vec<Finding> {
    if gpu == Gpu::Off {
        return vec![Finding::skip(Code::NvmlMissing, "NVML").message("not asked: --gpu off")];
    }
    let mut findings = Vec::new();
    judge_nvml(&facts.device, true, &mut findings);
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
    let crashed = |how: String, step: &str| {
        Finding::problem(Code::HelperCrashed, what)
            .observed(how)
            .required("an answer")
            .message(format!("the process that asks the {what} ended in {step}"))
            .hint("run nvidia-smi on the host; if that works, check that the libraries mounted into the container belong to the host's driver")
    };
    Some(match end {
        HelperEnd::NotRun | HelperEnd::Done => return None,
        HelperEnd::LoaderMissing { detail } => {
            // The image stage says it already where it asked for libraries.
            if matches!(facts.image.helper.end, HelperEnd::LoaderMissing { .. }) {
                return Some(
                    Finding::unknown(Code::DriverMissing, what)
                        .message(format!("the {what} could not be asked without a glibc loader")),
                );
            }
            loader_missing(detail)
        }
        HelperEnd::NotStarted { detail } => Finding::problem(Code::HelperCrashed, what)
            .observed(detail.clone())
            .required("a helper process that loads the CUDA libraries")
            .message(format!("the process that asks the {what} could not be started"))
            .hint("allow memfd execution (vm.memfd_noexec=0 or 1), mount an executable /tmp, or name a copy with --helper-path; if processes or memory are short, raise pids and memory limits"),
        HelperEnd::Crashed { signal, step } => crashed(format!("{} in {step}", signal_name(*signal)), step),
        HelperEnd::Exited { code, step, stderr } => {
            let said = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
            crashed(format!("exit status {code} in {step}{said}"), step)
        }
        HelperEnd::Garbled { detail, step } => crashed(format!("nonsense after {step}: {detail}"), step),
        HelperEnd::TimedOut { step, after_ms, killed } => {
            let left = if *killed { "" } else { "; it sits in the kernel and could not be killed" };
            Finding::problem(Code::HelperTimeout, what)
                .observed(format!("no answer from {step} after {}{left}", seconds(*after_ms)))
                .required("an answer within --device-timeout")
                .message(format!("the {what} did not answer: {step} hangs"))
                .hint("look for NVRM and Xid lines in dmesg on the node and drain it; a slow but healthy node needs a longer CUDA_ENTRYPOINT_DEVICE_TIMEOUT")
                .can_mend()
        }
    })
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
        .required("/lib64/ld-linux-x86-64.so.2 of glibc 2.17 or newer")
        .message("this image has no usable glibc loader, so no CUDA library can run in it")
        .hint("build on a glibc image (debian, ubuntu, ubi, distroless/cc, nvidia/cuda): NVIDIA ships no CUDA for musl or an empty image")
}

/// `SIGSEGV` rather than 11.
pub fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |s| s.as_str().to_string())
}

fn judge_driver(driver: &DriverAnswer, stack: &Stack, gpu: Gpu, facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(error) = &driver.load_error {
        findings.push(driver_missing(error, gpu, facts));
        return;
    }
    let path = driver.path.as_deref().unwrap_or("libcuda.so.1");
    if path.contains("/stubs/") {
        findings.push(stub(path, "the loader maps the toolkit's stub"));
    }
    findings.push(
        Finding::pass(Code::DriverMissing, "libcuda.so.1")
            .observed(path)
            .message("the driver library loads"),
    );
    let first_error_is_age = driver
        .error
        .as_ref()
        .is_some_and(|e| cuda_errors::cuda(e).code == Code::DriverTooOld);
    judge_version(driver, stack, facts, first_error_is_age, findings);
    if let Some(error) = &driver.error {
        findings.push(call_failed(error, path, gpu, facts));
        return;
    }
    match driver.device_count {
        Some(0) => findings.push(gpu_missing("cuDeviceGetCount returned 0", gpu, facts)),
        Some(count) => {
            let names: Vec<String> = facts.device.devices.iter().map(describe).collect();
            findings.push(
                Finding::pass(Code::GpuMissing, format!("{count} {}", plural(count, "GPU")))
                    .observed(names.join(", "))
                    .message("the driver sees GPUs"),
            );
        }
        None => {}
    }
    for device in &facts.device.devices {
        if let Some(error) = &device.error {
            findings.push(call_failed(
                error,
                &format!("device {}", device.ordinal),
                gpu,
                facts,
            ));
        }
        judge_compute_mode(device, findings);
    }
}

fn plural(count: i32, noun: &str) -> String {
    if count == 1 {
        noun.to_string()
    } else {
        format!("{noun}s")
    }
}

fn describe(device: &Device) -> String {
    let capability = device
        .capability
        .map_or_else(|| "?".to_string(), |c| c.to_string());
    let memory = device
        .memory
        .map(|m| format!(", {} MiB", m >> 20))
        .unwrap_or_default();
    format!("{} {} ({capability}{memory})", device.ordinal, device.name)
}

fn driver_missing(error: &str, gpu: Gpu, facts: &Facts) -> Finding {
    let elsewhere = &facts.device.driver_elsewhere;
    let nodes = &facts.device.nodes;
    let hint = if let Some(found) = elsewhere.first() {
        let folder = found.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!(
            "{found} is there, but the loader does not search its folder: add {folder} to LD_LIBRARY_PATH, or write it to /etc/ld.so.conf.d and run ldconfig"
        )
    } else if !nodes.is_empty() {
        let capabilities = facts
            .environment
            .get("NVIDIA_DRIVER_CAPABILITIES")
            .map_or("unset", String::as_str);
        format!(
            "device nodes are there ({}), the libraries are not: let NVIDIA_DRIVER_CAPABILITIES contain `compute` and `utility` (it is {capabilities}), and recreate the container",
            nodes.join(" ")
        )
    } else {
        "start the container with the NVIDIA runtime: `docker run --gpus all`, or in a pod `resources.limits.\"nvidia.com/gpu\": 1` (and runtimeClassName: nvidia where it is not the default)".to_string()
    };
    let there_but_broken = !error.contains("No such file");
    Finding::problem_as(
        Code::DriverMissing,
        absence_severity(gpu, Code::DriverMissing),
        "libcuda.so.1",
    )
    .observed(error)
    .required("the NVIDIA driver's libcuda.so.1, which the container runtime mounts from the host")
    .message(if there_but_broken {
        "libcuda.so.1 is there and cannot be loaded"
    } else {
        "there is no NVIDIA driver in this container"
    })
    .hint(hint)
}

fn stub(path: &str, observed: &str) -> Finding {
    Finding::problem(Code::StubDriver, path)
        .observed(observed)
        .required("the driver's own libcuda.so.1")
        .message("the CUDA toolkit's stub library stands in for the driver")
        .hint("remove lib64/stubs from LD_LIBRARY_PATH and from /etc/ld.so.conf.d in the image, then run ldconfig")
}

fn judge_version(
    driver: &DriverAnswer,
    stack: &Stack,
    facts: &Facts,
    said_by_error: bool,
    findings: &mut Vec<Finding>,
) {
    let Some(rule) = &stack.cuda.driver else { return };
    let release = facts
        .device
        .nvml
        .as_ref()
        .and_then(|n| n.driver_release.as_deref());
    let subject = release.map_or_else(|| "driver".to_string(), |r| format!("driver {r}"));
    let Some(version) = driver.api_version else {
        if driver.error.is_none() {
            findings.push(
                Finding::unknown(Code::DriverTooOld, subject)
                    .required(format!("CUDA {rule}"))
                    .message("the driver did not say which CUDA it serves"),
            );
        }
        return;
    };
    let observed = format!("serves CUDA {version}");
    let required = format!("CUDA {rule}");
    if rule.matches(version) {
        let pass = Finding::pass(Code::DriverTooOld, subject)
            .observed(observed)
            .required(required);
        if !said_by_error {
            findings.push(pass.message("the driver is new enough"));
        }
        return;
    }
    let same_major = stack
        .cuda
        .runtime
        .as_ref()
        .and_then(|r| r.major())
        .or(rule.major())
        == Some(version.major);
    let older = rule.major().is_none_or(|major| version.major <= major);
    let finding = if same_major {
        Finding::problem(Code::DriverMinorCompat, subject)
            .message(format!("the driver serves CUDA {version}; CUDA {} runs on it by minor-version compatibility, but no PTX is compiled", stack.cuda.runtime.as_ref().map_or_else(|| rule.to_string(), ToString::to_string)))
            .hint("update the node's driver for full support; kernels that are served by PTX alone fail with error 222 on this one")
    } else if older {
        Finding::problem(Code::DriverTooOld, subject)
            .message(format!("the driver serves no CUDA newer than {version}"))
            .hint(match cuda_errors::oldest_driver(|v| rule.matches(v)) {
                Some(release) => format!(
                    "update the node's driver to {release} or newer, or schedule onto nodes that have one"
                ),
                None => "update the node's driver, or schedule onto nodes that have a newer one".to_string(),
            })
    } else {
        Finding::problem(Code::DriverTooOld, subject)
            .message(format!(
                "the manifest does not accept a driver that serves CUDA {version}"
            ))
            .hint("widen cuda.driver in the manifest if that is not meant: drivers run older CUDA programs")
    };
    findings.push(finding.observed(observed).required(required));
}

fn call_failed(error: &CallError, subject: &str, gpu: Gpu, facts: &Facts) -> Finding {
    let meaning = cuda_errors::cuda(error);
    let finding = match meaning.code {
        Code::GpuMissing => return gpu_missing(&error.to_string(), gpu, facts),
        Code::StubDriver => return stub(subject, &error.to_string()),
        code => Finding::problem(code, subject)
            .observed(error.to_string())
            .required("success")
            .message(meaning.cause)
            .hint(meaning.hint),
    };
    if meaning.can_mend {
        finding.can_mend()
    } else {
        finding
    }
}

fn gpu_missing(observed: &str, gpu: Gpu, facts: &Facts) -> Finding {
    let said = |name: &str| match facts.environment.get(name) {
        Some(value) => format!("{name}={value}"),
        None => format!("{name} is unset"),
    };
    let cuda = facts.environment.get("CUDA_VISIBLE_DEVICES");
    let nvidia = facts
        .environment
        .get("NVIDIA_VISIBLE_DEVICES")
        .map(String::as_str);
    let mig_without_instance = facts
        .device
        .nvml_devices
        .iter()
        .any(|d| d.mig_enabled == Some(true) && d.mig_instances == Some(0));
    let hint = if cuda.is_some_and(|v| v.trim().is_empty() || v.trim() == "-1" || v == "NoDevFiles") {
        "CUDA_VISIBLE_DEVICES hides every GPU: unset it, or list the ones to use"
    } else if cuda.is_some() && !facts.device.nvml_devices.is_empty() {
        "CUDA_VISIBLE_DEVICES names no GPU of this container: it counts from 0 within it, or takes UUIDs as nvidia-smi -L prints them"
    } else if matches!(nvidia, Some("void" | "none")) {
        "NVIDIA_VISIBLE_DEVICES keeps the GPUs out: request one (`--gpus all`, `resources.limits.\"nvidia.com/gpu\": 1`)"
    } else if mig_without_instance {
        "MIG is on and has no instance: create one (nvidia-smi mig -cgi … -C), or turn MIG off"
    } else {
        "request a GPU (`docker run --gpus all`, `resources.limits.\"nvidia.com/gpu\": 1`), and check nvidia-smi on the host"
    };
    let finding = Finding::problem_as(Code::GpuMissing, absence_severity(gpu, Code::GpuMissing), "GPU")
        .observed(format!(
            "{observed}; {}; {}",
            said("CUDA_VISIBLE_DEVICES"),
            said("NVIDIA_VISIBLE_DEVICES")
        ))
        .required("at least one visible GPU")
        .message("the driver runs and shows this container no GPU")
        .hint(hint);
    // What a variable hides stays hidden however long one waits.
    if cuda.is_some() || matches!(nvidia, Some("void" | "none")) {
        finding
    } else {
        finding.can_mend()
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

fn judge_nvml(device: &DeviceFacts, alone: bool, findings: &mut Vec<Finding>) {
    let none = Facts::default();
    if let Some(mut finding) = helper_failure(&device.nvml_helper.end, "NVML", &none) {
        // Without a loader the driver's run has said so.
        if matches!(device.nvml_helper.end, HelperEnd::LoaderMissing { .. }) && !alone {
            return;
        }
        finding.subject = "NVML".to_string();
        findings.push(finding);
    }
    let Some(nvml) = &device.nvml else { return };
    if let Some(error) = &nvml.load_error {
        let finding = if alone {
            Finding::problem(Code::DriverMissing, "libnvidia-ml.so.1")
        } else {
            Finding::problem(Code::NvmlMissing, "libnvidia-ml.so.1")
        };
        findings.push(
            finding
                .observed(error.clone())
                .required("the NVIDIA driver's libnvidia-ml.so.1")
                .message("NVML is not there, so GPU health and the driver's release are not known")
                .hint("let NVIDIA_DRIVER_CAPABILITIES contain `utility`, or start the container with `--gpus all`"),
        );
        return;
    }
    if let Some(error) = &nvml.error {
        let meaning = cuda_errors::nvml(error);
        let code = if alone || meaning.code == Code::GpuUnhealthy || error.code == 18 {
            meaning.code
        } else {
            Code::NvmlMissing
        };
        let finding = Finding::problem(code, "NVML")
            .observed(error.to_string())
            .required("success")
            .message(meaning.cause)
            .hint(meaning.hint);
        findings.push(if meaning.can_mend {
            finding.can_mend()
        } else {
            finding
        });
        return;
    }
    if alone && nvml.device_count == Some(0) {
        findings.push(
            Finding::problem(Code::GpuMissing, "GPU")
                .observed("nvmlDeviceGetCount_v2 returned 0")
                .required("at least one GPU")
                .message("NVML sees no GPU")
                .hint("request a GPU (`docker run --gpus all`, `resources.limits.\"nvidia.com/gpu\": 1`)")
                .can_mend(),
        );
    }
    // On a machine that shares its GPUs the health of one that this process cannot use is nobody's business here.
    let visible = |gpu: &&NvmlDevice| {
        alone
            || device.devices.is_empty()
            || gpu.pci_bus_id.is_none()
            || device.devices.iter().any(|d| d.pci_bus_id == gpu.pci_bus_id)
    };
    let mut healthy = 0;
    for gpu in device.nvml_devices.iter().filter(visible) {
        let before = findings.len();
        judge_health_of(gpu, alone, findings);
        healthy += usize::from(findings.len() == before);
    }
    if healthy > 0 {
        findings.push(
            Finding::pass(
                Code::GpuUnhealthy,
                format!("{healthy} {}", plural(i32::try_from(healthy).unwrap_or(2), "GPU")),
            )
            .observed("no uncorrected ECC error, no pending row remap")
            .message("NVML reports them healthy"),
        );
    }
}

fn judge_health_of(gpu: &NvmlDevice, alone: bool, findings: &mut Vec<Finding>) {
    let name = gpu.name.as_deref().unwrap_or("GPU");
    let uuid = gpu.uuid.as_deref().unwrap_or("");
    let subject = format!("GPU {} {name} {uuid}", gpu.index);
    let subject = subject.trim_end();
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
            format!("{count} uncorrected ECC errors since the driver was loaded"),
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
        let finding = Finding::problem(meaning.code, subject)
            .observed(error.to_string())
            .required("success")
            .message(meaning.cause)
            .hint(meaning.hint);
        findings.push(if meaning.can_mend {
            finding.can_mend()
        } else {
            finding
        });
    }
}
