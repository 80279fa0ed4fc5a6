//! The native proof judged: whose fault it is that a device does not compute, or that the driver refuses a kernel. Pure.

use std::time::Duration;

use crate::check::{Code, Finding, Severity};
use crate::checks::device::signal_name;
use crate::cuda_errors::{self, Party};
use crate::exit_code::ExitCode;
use crate::facts::native::{NativeDevice, NativeExtent, NativeLibrary, NativeLoad, NativeRun, Refusal};
use crate::facts::smoke::SmokeEnd;
use crate::facts::{CallError, DeviceFacts};
use crate::order;
use crate::process::limits::ResourceLimit;
use crate::stack::NATIVE;
use crate::text::{counted, milliseconds};

/// CUDA_ERROR_NO_BINARY_FOR_GPU
const NO_BINARY: i32 = 209;
/// CUDA_ERROR_JIT_COMPILATION_DISABLED
const JIT_DISABLED: i32 = 223;
/// CUDA_ERROR_UNSUPPORTED_PTX_VERSION
const UNSUPPORTED_PTX: i32 = 222;

/// All findings of the native proof.
pub fn judge(run: &NativeRun, facts: &DeviceFacts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = run.devices.iter().map(|device| computed(device, facts)).collect();
    let mut refused = Vec::new();
    let mut packages: Vec<(&str, Vec<(&NativeLibrary, &NativeLoad)>)> = Vec::new();
    for (place, library) in run.libraries.iter().enumerate() {
        let loads: Vec<&NativeLoad> = run.loads.iter().filter(|load| load.library == place).collect();
        let bad = |load: &&&NativeLoad| load.refused > 0 || load.unread.is_some();
        if let Some(problem) = &library.unread {
            refused.push(unread(library, problem));
        } else if let Some(load) = loads.iter().find(bad) {
            refused.push(problem(library, load, loads.iter().filter(bad).count(), facts));
        } else if let Some(load) = loads.first() {
            let name = library.package.as_deref().unwrap_or(&library.path);
            match packages.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => all.push((library, load)),
                None => packages.push((name, vec![(library, load)])),
            }
        }
    }
    findings.extend(
        packages
            .into_iter()
            .map(|(name, all)| loaded(name, &all, run.extent)),
    );
    findings.extend(refused);
    if run.end == SmokeEnd::Done
        && run.libraries.is_empty()
        && run.devices.iter().all(NativeDevice::takes_kernels)
    {
        findings.push(
            Finding::skip(Code::KernelLoad, NATIVE).message(
                "no kernels were loaded: no package or library that is judged holds any for this GPU",
            ),
        );
    }
    findings.extend(ending(run));
    findings
}

fn time(ms: f64) -> String {
    milliseconds(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default())
}

/// `GPU 0 (NVIDIA H200)`
fn gpu(ordinal: i32, facts: &DeviceFacts) -> String {
    let device = facts.devices.iter().find(|device| device.ordinal == ordinal);
    match device.map(|device| device.name.as_str()) {
        None | Some("") => format!("GPU {ordinal}"),
        Some(name) => format!("GPU {ordinal} ({name})"),
    }
}

/// What the kernel of this program came to on one device.
fn computed(device: &NativeDevice, facts: &DeviceFacts) -> Finding {
    let name = gpu(device.ordinal, facts);
    let known = facts.devices.iter().find(|known| known.ordinal == device.ordinal);
    if let Some(wrong) = &device.wrong {
        let uuid = known
            .and_then(|device| device.uuid.as_deref())
            .unwrap_or("UUID unknown");
        let pci = known
            .and_then(|device| device.pci_bus_id.as_deref())
            .unwrap_or("PCI address unknown");
        return Finding::problem(Code::SmokeDevice, &name)
            .observed(format!(
                "{} of {} values are wrong; value {} is {:#010x} ({uuid}, {pci})",
                wrong.wrong, wrong.values, wrong.first, wrong.observed
            ))
            .required(format!("{:#010x} for that value: integer and float arithmetic is exact", wrong.expected))
            .message(format!("{name}: this GPU computes wrongly"))
            .hint("drain the node and take the GPU out of service: run its diagnostics (dcgmi diag -r 3), look for Xid lines in dmesg, and have the board replaced");
    }
    let Some(error) = &device.error else {
        return Finding::pass(Code::SmokeDevice, &name)
            .observed(format!(
                "context {}, compilation {}, copies and kernel {}",
                time(device.context_ms),
                time(device.compile_ms),
                time(device.compute_ms)
            ))
            .message(format!(
                "{name} computes: 4 MiB in two streams, every value exact"
            ));
    };
    let meaning = cuda_errors::cuda(error);
    if device.takes_kernels() {
        // What the container lacks is a warning; what its variables ask for is not even that.
        let finding = match error.code {
            JIT_DISABLED => Finding::unknown(Code::SmokeDevice, &name),
            _ => Finding::problem_as(Code::SmokeDevice, Severity::Warn, &name).hint(meaning.hint),
        };
        return finding
            .observed(error.to_string())
            .required("a driver that compiles PTX")
            .message(format!(
                "{name}: not proven that it computes, since the kernel for that is PTX: {}",
                meaning.cause
            ));
    }
    // The kernel is this program's own, and right.
    let (cause, hint) = match meaning.party {
        Party::Operator => (meaning.cause, meaning.hint),
        Party::Image => (
            "the driver refuses a kernel that every driver takes",
            "look for NVRM and Xid lines in dmesg on the node, and try another one; a driver that is older than CUDA 11 has to be updated",
        ),
    };
    let finding = Finding::problem(Code::SmokeDevice, &name)
        .observed(error.to_string())
        .required("a context, and a kernel whose result is exact")
        .message(format!("{name} cannot run a kernel: {}", cause))
        .hint(hint);
    if meaning.retryable {
        finding.retryable()
    } else {
        finding
    }
}

/// A package whose libraries were all taken.
fn loaded(name: &str, all: &[(&NativeLibrary, &NativeLoad)], extent: NativeExtent) -> Finding {
    let usable: u64 = all.iter().map(|(library, _)| library.usable).sum();
    let taken: u64 = all.iter().map(|(_, load)| load.loaded).sum();
    let kernels: u64 = all.iter().map(|(_, load)| load.kernels).sum();
    let ms: f64 = all.iter().map(|(_, load)| load.ms).sum();
    let capabilities: Vec<String> = {
        let mut all: Vec<_> = all.iter().map(|(library, _)| library.capability).collect();
        order::sort(&mut all);
        all.dedup();
        all.iter().map(ToString::to_string).collect()
    };
    let of = match taken < usable {
        true => format!("{taken} of {usable} fatbins"),
        false => counted(taken, "fatbin"),
    };
    let more = match extent == NativeExtent::Sample && taken < usable {
        true => ", a sample (--smoke native=all loads all)",
        false => "",
    };
    let seen = match kernels {
        0 => time(ms),
        _ => format!("{}, {}", counted(kernels, "kernel"), time(ms)),
    };
    Finding::pass(Code::KernelLoad, name)
        .observed(seen)
        .message(format!(
            "{name}: the driver loads {of} for {}{more}",
            capabilities.join(" and ")
        ))
}

/// A library that the driver refused, or that could not be read.
fn problem(library: &NativeLibrary, load: &NativeLoad, devices: usize, facts: &DeviceFacts) -> Finding {
    let name = named(library);
    let on = match devices {
        0 | 1 => gpu(load.ordinal, facts),
        all => format!("{all} GPUs"),
    };
    let Some(Refusal { offset, error }) = load.refusals.first() else {
        return unread(library, load.unread.as_deref().unwrap_or_default());
    };
    let tried = load.loaded + load.refused;
    let observed = format!(
        "{} of {tried} fatbins refused on {on}; the one at {offset:#x} of {}: {error}",
        load.refused, library.path
    );
    let verdict = Verdict::of(error, library);
    let finding = about(library)
        .observed(observed)
        .required(verdict.required(library))
        .message(format!("{name}: {}", verdict.cause))
        .hint(verdict.hint)
        .ends_with(verdict.exit);
    if verdict.retryable {
        finding.retryable()
    } else {
        finding
    }
}

/// `spconv-cu124 (core_cc.cpython-311-x86_64-linux-gnu.so)`
fn named(library: &NativeLibrary) -> String {
    let file = library.path.rsplit('/').next().unwrap_or_default();
    match &library.package {
        Some(package) => format!("{package} ({file})"),
        None => library.path.clone(),
    }
}

fn about(library: &NativeLibrary) -> Finding {
    Finding::problem(Code::KernelLoad, named(library)).with(library.package.iter().chain([&library.path]))
}

/// A library of which nothing could be loaded, since its file is not as it must be.
fn unread(library: &NativeLibrary, problem: &str) -> Finding {
    about(library)
        .observed(format!("{}: {problem}", library.path))
        .required("a file whose fatbins are whole, and that can be mapped")
        .message(format!("{}: its kernels could not be loaded", named(library)))
        .hint("install the package again in the image, and see whether the storage behind the image is whole")
}

/// Whose fault a refusal is.
struct Verdict {
    exit: ExitCode,
    cause: String,
    hint: String,
    retryable: bool,
}

impl Verdict {
    fn of(error: &CallError, library: &NativeLibrary) -> Self {
        let meaning = cuda_errors::cuda(error);
        let capability = library.capability;
        let (exit, cause, hint) = match (error.code, library.usable, meaning.party) {
            (NO_BINARY, 0, _) => (
                ExitCode::NodeType,
                format!("the driver finds no code for compute capability {capability} in it"),
                format!(
                    "schedule onto a GPU that it is built for (cuda-entrypoint kernels {} lists them), or build it for {capability} as well",
                    library.path
                ),
            ),
            (UNSUPPORTED_PTX, _, _) => (
                ExitCode::NodeType,
                "its PTX is newer than this driver compiles".to_string(),
                format!(
                    "update the node's driver, schedule onto a GPU that has SASS in it, or build it with SASS for {capability}"
                ),
            ),
            (NO_BINARY, ..) => (
                ExitCode::Image,
                format!(
                    "its headers announce code for {capability}, and the driver finds none: the file is damaged"
                ),
                "install the package again in the image, and compare the file with its RECORD; CUDA_FORCE_PTX_JIT=1 has the same \
                 effect on code without PTX"
                    .to_string(),
            ),
            (CallError::NO_CODE, ..) | (_, _, Party::Image) => (
                ExitCode::Image,
                "the driver refuses its code: the file is damaged".to_string(),
                "install the package again in the image, and compare the file with its RECORD".to_string(),
            ),
            // CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_NOT_FOUND and its like: of what was handed over, not of the device.
            (200 | 300..=303 | 500, ..) => (
                ExitCode::Image,
                "the driver refuses its code: the file is damaged".to_string(),
                "install the package again in the image, and compare the file with its RECORD".to_string(),
            ),
            _ => (
                ExitCode::Node,
                meaning.cause.to_string(),
                meaning.hint.to_string(),
            ),
        };
        Self {
            retryable: exit == ExitCode::Node && meaning.retryable,
            exit,
            cause,
            hint,
        }
    }

    fn required(&self, library: &NativeLibrary) -> String {
        match self.exit {
            ExitCode::Node => "a device that takes kernels".to_string(),
            _ => format!(
                "code that the driver loads on compute capability {}",
                library.capability
            ),
        }
    }
}

/// Whether a step is about a fat binary of the image: its own kernel has no path.
fn is_loading(step: &str) -> bool {
    let calls = ["cuModuleLoadData of /", "cuFuncLoad of /", "cuModuleUnload of /"];
    calls.iter().any(|call| step.starts_with(call))
}

/// How the process ended, where that says more than its lines.
fn ending(run: &NativeRun) -> Option<Finding> {
    let place = match run.step.as_str() {
        "" => "before its first step".to_string(),
        step => format!("in {step}"),
    };
    let said = match run.said.is_empty() {
        true => String::new(),
        false => format!(": {}", run.said),
    };
    let of_device = |observed: String, message: String, hint: &str| {
        Finding::problem(Code::SmokeDevice, NATIVE)
            .observed(observed)
            .required("the native smoke test goes through")
            .message(message)
            .hint(hint)
    };
    Some(match &run.end {
        SmokeEnd::Done => return None,
        SmokeEnd::NotRun { reason } if reason.is_empty() => return None,
        SmokeEnd::NotRun { reason } => {
            Finding::skip(Code::KernelLoad, NATIVE).message(format!("not run: {reason}"))
        }
        SmokeEnd::NotStarted { detail } => {
            let hint = ResourceLimit::told_by(detail).map_or(
                "cuda-entrypoint check --stage device says more of the process that asks the driver",
                ResourceLimit::hint,
            );
            of_device(
                detail.clone(),
                "the process of the native smoke test could not be started".to_string(),
                hint,
            )
        }
        SmokeEnd::TimedOut { after_ms, killed } => {
            let left = if *killed { "" } else { "; it could not be killed" };
            Finding::problem(Code::SmokeTimeout, NATIVE)
                .observed(format!("no answer within {} {place}{left}", time(*after_ms as f64)))
                .required("an answer before the deadline")
                .message(format!("the native smoke test hangs {place}"))
                .hint("a GPU or driver that hangs shows NVRM and Xid lines in dmesg on the node: drain it; slow storage needs a longer CUDA_ENTRYPOINT_DEVICE_TIMEOUT or CUDA_ENTRYPOINT_SMOKE_TIMEOUT")
        }
        // Which library it was loading is in the step.
        SmokeEnd::Crashed { signal } if is_loading(&run.step) => {
            Finding::problem(Code::KernelLoad, NATIVE)
                .observed(format!("{} {place}{said}", signal_name(*signal)))
                .required("code that the driver loads")
                .message(format!("the driver crashed {place}"))
                .hint("install the package of that library again: it is damaged, or shorter than its headers say; where it is whole, look for Xid lines in dmesg on the node")
        }
        SmokeEnd::Crashed { signal } => of_device(
            format!("{} {place}{said}", signal_name(*signal)),
            format!("the driver crashed {place}"),
            "look for NVRM and Xid lines in dmesg on the node, and try another one",
        ),
        SmokeEnd::Exited { code } => of_device(
            format!("exit status {code} {place}{said}"),
            format!("the process of the native smoke test ended {place}"),
            "cuda-entrypoint check --stage device says whether the driver still answers",
        ),
        SmokeEnd::Garbled { detail } => of_device(
            format!("{detail} {place}{said}"),
            "the process of the native smoke test did not answer in full".to_string(),
            "cuda-entrypoint check --stage device says whether the driver still answers",
        ),
    })
}
