//! The visible GPUs against the list of architectures, and against the kernels that are installed. Pure.

use crate::arch::{ArchList, Service};
use crate::check::{Code, Finding};
use crate::discover::files::printable;
use crate::facts::kernels::CodeKind;
use crate::facts::{ComputeCapability, Device, Facts, ModuleKernels};
use crate::stack::Stack;

/// One finding for each kind of GPU where a list is given, in the order of their first device, and what the kernels of
/// the manifest's packages say; none where no device is visible.
pub fn judge(stack: &Stack, archs: Option<&ArchList>, facts: &Facts) -> Vec<Finding> {
    let kinds = kinds(&facts.device.devices);
    let mut findings: Vec<Finding> = archs
        .map(|archs| {
            kinds
                .iter()
                .map(|(device, ordinals)| judge_kind(archs, device, ordinals))
                .collect()
        })
        .unwrap_or_default();
    findings.extend(judge_kernels(stack, facts, &kinds));
    findings
}

/// A device of each kind, with the ordinals of all that are like it.
fn kinds(devices: &[Device]) -> Vec<(&Device, Vec<i32>)> {
    let mut kinds: Vec<(&Device, Vec<i32>)> = Vec::new();
    for device in devices {
        let same = |known: &&Device| (&known.name, known.capability) == (&device.name, device.capability);
        match kinds.iter_mut().find(|(known, _)| same(known)) {
            Some((_, ordinals)) => ordinals.push(device.ordinal),
            None => kinds.push((device, vec![device.ordinal])),
        }
    }
    kinds
}

/// `GPU 0`, `GPUs 0-7`, `GPUs 0, 2-3`
fn numbered(ordinals: &[i32]) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &ordinal in ordinals {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(ordinal) => *last = ordinal,
            _ => runs.push((ordinal, ordinal)),
        }
    }
    let shown: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    let noun = if ordinals.len() == 1 { "GPU" } else { "GPUs" };
    format!("{noun} {}", shown.join(", "))
}

fn subject_of(device: &Device, ordinals: &[i32]) -> String {
    let subject = format!("{} {}", numbered(ordinals), device.name);
    subject.trim_end().to_string()
}

fn judge_kind(archs: &ArchList, device: &Device, ordinals: &[i32]) -> Finding {
    let subject = subject_of(device, ordinals);
    let required = archs.to_string();
    let Some(capability) = device.capability else {
        return Finding::unknown(Code::ArchUnsupported, subject)
            .required(required)
            .message("the driver did not tell this GPU's compute capability");
    };
    let observed = format!("compute capability {capability}");
    let finding = match archs.serves(capability) {
        Service::Listed => {
            Finding::pass(Code::ArchUnsupported, subject).message("this compute capability is on the list")
        }
        Service::BinaryCompatible { by } => Finding::problem(Code::ArchUnlisted, subject)
            .message(format!("{capability} is not on the list; code for {by} runs on it (same major version, not newer)"))
            .hint(format!("add {capability} to archs if this GPU is meant to be supported")),
        Service::ByPtx { by } => Finding::problem(Code::ArchUnlisted, subject)
            .message(format!("{capability} is not on the list; the driver compiles the PTX of {by} for it at first launch"))
            .hint(format!("build the extensions for {capability} and add it to archs")),
        Service::No => Finding::problem(Code::ArchUnsupported, subject)
            .message(format!("this image is not built for compute capability {capability}"))
            .hint(format!(
                "schedule it onto a node whose GPU one of {required} serves (node label nvidia.com/gpu.compute.major), or build the image for {capability}"
            )),
    };
    finding.observed(observed).required(required)
}

/// `kernels-unusable`: each kind of GPU against each library of the manifest's packages that holds kernels. What PTX alone
/// serves is compiled by the driver: that is said, and whether the driver can is `driver-minor-compat`'s to judge.
fn judge_kernels(stack: &Stack, facts: &Facts, kinds: &[(&Device, Vec<i32>)]) -> Vec<Finding> {
    let rules = &stack.packages;
    let ours = |module: &&ModuleKernels| {
        let named = module.package.as_ref();
        let named = named.is_some_and(|name| rules.iter().any(|rule| rule.normalized == *name));
        named && !module.vendor && module.error.is_none() && module.with_kernels > 0
    };
    let modules: Vec<&ModuleKernels> = facts.image.kernels.iter().filter(ours).collect();
    let devices: Vec<(String, ComputeCapability)> = kinds
        .iter()
        .filter_map(|(device, ordinals)| Some((subject_of(device, ordinals), device.capability?)))
        .collect();
    if modules.is_empty() || devices.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut by_ptx = Vec::new();
    for (subject, capability) in &devices {
        for module in &modules {
            match module.serves(*capability) {
                Some(CodeKind::Sass) => {}
                Some(CodeKind::Ptx) => by_ptx.push(format!("{} for {capability}", name_of(module))),
                None => findings.push(unusable(subject, *capability, module)),
            }
        }
    }
    if findings.is_empty() {
        findings.push(usable(&devices, &modules, by_ptx));
    }
    findings
}

fn unusable(subject: &str, capability: ComputeCapability, module: &ModuleKernels) -> Finding {
    let name = name_of(module);
    let message = format!(
        "{name} has no kernels that this GPU can run: its first one would fail with error 209, no kernel image is \
         available"
    );
    let hint = format!(
        "Schedule this image onto a GPU that {name} has code for, or install a build of it with code for {capability}; \
         `cuda-entrypoint kernels {}` shows what there is.",
        module.path
    );
    Finding::problem(Code::KernelsUnusable, subject)
        .observed(format!("{name}: {}", code_of(module)))
        .required(format!("code for compute capability {capability}"))
        .message(printable(&message, 1_000))
        .hint(printable(&hint, 1_000))
}

fn usable(
    devices: &[(String, ComputeCapability)],
    modules: &[&ModuleKernels],
    mut by_ptx: Vec<String>,
) -> Finding {
    let mut capabilities: Vec<ComputeCapability> =
        devices.iter().map(|(_, capability)| *capability).collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    let capabilities: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    let capabilities = capabilities.join(", ");
    let libraries = match modules.len() {
        1 => "1 library holds".to_string(),
        n => format!("{n} libraries hold"),
    };
    by_ptx.sort_unstable();
    by_ptx.dedup();
    let note = match by_ptx.is_empty() {
        true => String::new(),
        false => format!(
            "; by PTX alone, which the driver compiles at first use: {}",
            by_ptx.join(", ")
        ),
    };
    let subjects: Vec<&str> = devices.iter().map(|(subject, _)| subject.as_str()).collect();
    let subject = subjects.join(", ");
    let mut names: Vec<String> = modules.iter().map(|m| name_of(m)).collect();
    names.dedup();
    Finding::pass(Code::KernelsUnusable, subject)
        .observed(printable(&names.join(", "), 1_000))
        .required(format!("code for compute capability {capabilities}"))
        .message(printable(
            &format!("{libraries} code that runs here{note}"),
            1_000,
        ))
}

/// The distribution and the file's name.
fn name_of(module: &ModuleKernels) -> String {
    let file = module.path.rsplit('/').next().unwrap_or(&module.path);
    match &module.package {
        Some(package) => format!("{package} ({file})"),
        None => file.to_string(),
    }
}

/// What a library has, in one line: `SASS 8.0 9.0, PTX 9.0 in 363 of 606 fatbins`.
pub(super) fn code_of(module: &ModuleKernels) -> String {
    let targets = |kind: &str, targets: Vec<String>| match targets.is_empty() {
        true => format!("no {kind}"),
        false => format!("{kind} {}", targets.join(" ")),
    };
    format!(
        "{}, {} in {} fatbins with kernels of {}",
        targets("SASS", module.sass.keys().map(ToString::to_string).collect()),
        targets("PTX", module.ptx.keys().map(ToString::to_string).collect()),
        module.with_kernels,
        module.fatbins
    )
}

#[cfg(test)]
mod tests;
