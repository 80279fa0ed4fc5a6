//! The visible GPUs against the list of architectures, and against the kernels that are installed. Pure.

use super::floor;
use super::kernels::{self, Package, Served};
use crate::arch::{ArchList, Service};
use crate::check::{Code, Finding, Severity};
use crate::facts::kernels::CodeKind;
use crate::facts::{
    ComputeCapability, CudaVersion, Device, Distribution, Facts, ImageFacts, ModuleKernels, PtxVersion,
};
use crate::order;
use crate::packages::is_jax_plugin;
use crate::stack::Stack;
use crate::text::{counted, number_of, verb};

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
    let noun = number_of(&ordinals.len(), "GPU");
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
            .message("the driver did not report this GPU's compute capability");
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
                "schedule it onto a node whose GPU one of {required} supports (node label nvidia.com/gpu.compute.major), or build the image for {capability}"
            )),
    };
    finding.observed(observed).required(required)
}

/// `kernels-unusable`: each kind of GPU against each package of the manifest that holds kernels. What PTX alone serves
/// is compiled by the driver, if it knows the version that the PTX is written in.
fn judge_kernels(stack: &Stack, facts: &Facts, kinds: &[(&Device, Vec<i32>)]) -> Vec<Finding> {
    let rules = &stack.packages;
    let ours = |package: &Package<'_>| {
        let name = package.name;
        package.is_named() || name.is_some_and(|name| rules.iter().any(|rule| rule.normalized == name))
    };
    let mut packages = kernels::packages(&facts.image.kernels, &facts.image.python.site_packages);
    packages.retain(ours);
    let devices: Vec<(String, ComputeCapability)> = kinds
        .iter()
        .filter_map(|(device, ordinals)| Some((subject_of(device, ordinals), device.capability?)))
        .collect();
    if devices.is_empty() {
        return Vec::new();
    }
    if packages.is_empty() {
        let mut modules = facts.image.kernels.iter();
        let without = modules.all(|module| module.fatbins == 0 && module.error.is_none());
        return cpu_builds(&facts.image).filter(|_| without).into_iter().collect();
    }
    let driver = facts.device.driver.as_ref().and_then(|driver| driver.api_version);
    let newest = driver.and_then(PtxVersion::newest_of);
    let mut failures = Vec::new();
    let mut by_ptx = Vec::new();
    let mut notes = Vec::new();
    let mut serving: Vec<&Package<'_>> = Vec::new();
    for package in &packages {
        let mut note = Note::default();
        let mut serves = false;
        for (subject, capability) in &devices {
            match package.on(*capability, newest) {
                Served::Yes {
                    by,
                    lacking,
                    mostly_lacking,
                } => {
                    serves = true;
                    if by == CodeKind::Ptx {
                        by_ptx.push(format!("{} for {capability}", package.label()));
                    }
                    if !lacking.is_empty() {
                        note.lacks(*capability, package, &lacking, mostly_lacking);
                    }
                }
                Served::Unneeded => note.serves_others(*capability, package),
                Served::No { too_new } => {
                    failures.push(unusable(subject, *capability, package, too_new, driver));
                }
            }
        }
        notes.extend(note.finding(package));
        serving.extend(serves.then_some(package));
    }
    if failures.is_empty() && !serving.is_empty() {
        failures.push(usable(&devices, &serving, by_ptx));
    }
    failures.extend(notes);
    failures
}

/// Frameworks that are there in their builds for the CPU, where nothing else has kernels.
fn cpu_builds(image: &ImageFacts) -> Option<Finding> {
    let others = image.distributions.iter().map(|dist| dist.name.as_str());
    let is_cpu_build = |dist: &&Distribution| match dist.name.as_str() {
        "torch" => floor::cpu_torch(image).is_some(),
        "jaxlib" => !dist.version.contains('+') && !others.clone().any(is_jax_plugin),
        "onnxruntime" => !others.clone().any(|name| name == "onnxruntime-gpu"),
        "tensorflow-cpu" => true,
        _ => false,
    };
    // What conda builds has the same names, and kernels in other places.
    let found = image.distributions.iter().filter(|_| !image.python.conda);
    let names: Vec<String> = found
        .filter(is_cpu_build)
        .map(|dist| {
            format!(
                "{} {}",
                dist.name,
                dist.module_version.as_deref().unwrap_or(&dist.version)
            )
        })
        .collect();
    let first = names.first()?.split(' ').next()?.to_string();
    let (listed, verb) = (names.join(", "), verb(names.len(), "is", "are"));
    Some(
        Finding::problem_as(Code::KernelsMissing, Severity::Warn, first)
            .observed(format!("{listed}, and no package with CUDA code"))
            .required("a framework that is built for CUDA, to use the GPU of this container")
            .message(format!(
                "{listed} {verb} built for the CPU, and no package that was examined has CUDA code: the service does not use the GPU"
            ))
            .hint("In the Dockerfile: install the builds for CUDA (torch from PyPI, 'jax[cuda12]', onnxruntime-gpu, 'tensorflow[and-cuda]'); for a service that needs no GPU, --gpu off."),
    )
}

/// What single libraries of a package lack on the visible GPUs: one note for all of them.
#[derive(Default)]
struct Note {
    sentences: Vec<String>,
    mostly: bool,
}

impl Note {
    fn lacks(
        &mut self,
        capability: ComputeCapability,
        package: &Package<'_>,
        lacking: &[&ModuleKernels],
        mostly: bool,
    ) {
        self.mostly |= mostly;
        let greater = match mostly {
            true => ", the greater part of its kernels",
            false => "",
        };
        self.sentences.push(format!(
            "{} of {} {} no code that runs on {capability}{greater}: {}",
            lacking.len(),
            counted(package.modules.len(), "library"),
            verb(lacking.len(), "has", "have"),
            kernels::named(lacking, 4)
        ));
    }

    fn serves_others(&mut self, capability: ComputeCapability, package: &Package<'_>) {
        self.sentences.push(format!(
            "no library has code that runs on {capability}, and each is for newer GPUs alone: {}",
            kernels::named(&package.modules, 4)
        ));
    }

    fn finding(self, package: &Package<'_>) -> Option<Finding> {
        if self.sentences.is_empty() {
            return None;
        }
        let subject = &package.title;
        let finding = match self.mostly {
            true => Finding::problem_as(Code::KernelsUnusable, Severity::Warn, subject).with(package.name.into_iter().chain([subject.as_str()])).hint(format!(
                "If the service uses what these libraries do, install a build of {} with code for its GPUs; \
                         `cuda-entrypoint kernels` shows what each library has.",
                package.title
            )),
            false => Finding::info(Code::KernelsUnusable, subject),
        };
        Some(
            finding
                .observed(kernels::code_of(&package.modules))
                .required("code in the libraries that the package chooses for this GPU")
                .message(self.sentences.join("; ")),
        )
    }
}

fn unusable(
    subject: &str,
    capability: ComputeCapability,
    package: &Package<'_>,
    too_new: Option<PtxVersion>,
    driver: Option<CudaVersion>,
) -> Finding {
    let name = package.label();
    let place = match package.modules.as_slice() {
        [only] => only.path.as_str(),
        several => common_folder(several),
    };
    let compiles = driver.and_then(|cuda| Some((cuda, PtxVersion::newest_of(cuda)?)));
    let (message, hint) = match (too_new, compiles) {
        (Some(version), Some((cuda, newest))) => (
            format!(
                "{name} has PTX alone for this GPU, of version {}; this driver (CUDA {cuda}) compiles up to {newest}: \
                 its first kernel would fail with error 222, unsupported PTX version",
                version.with_cuda()
            ),
            format!(
                "Update the node's driver {}, or schedule this image onto a GPU that {name} has SASS for, or install a \
                 build of it with SASS for {capability}; `cuda-entrypoint kernels {place}` shows what there is.",
                super::device::to_release(version.first_cuda())
            ),
        ),
        _ => (
            format!(
                "{name} has no kernels that this GPU can run: its first one would fail with error 209, no kernel image \
                 is available"
            ),
            format!(
                "Schedule this image onto a GPU that {name} has code for, or install a build of it with code for \
                 {capability}; `cuda-entrypoint kernels {place}` shows what there is."
            ),
        ),
    };
    Finding::problem(Code::KernelsUnusable, subject)
        .with(package.name.into_iter().chain([subject]))
        .observed(format!("{name}: {}", kernels::code_of(&package.modules)))
        .required(format!("code for compute capability {capability}"))
        .message(message)
        .hint(hint)
}

/// The deepest folder that holds all of them.
fn common_folder<'a>(modules: &[&'a ModuleKernels]) -> &'a str {
    let mut folder = modules.first().map_or("", |module| module.path.as_str());
    for module in modules {
        while !module
            .path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
        {
            match folder.rfind('/') {
                Some(slash) => folder = folder.get(..slash).unwrap_or_default(),
                None => return "",
            }
        }
    }
    folder
}

fn usable(
    devices: &[(String, ComputeCapability)],
    packages: &[&Package<'_>],
    mut by_ptx: Vec<String>,
) -> Finding {
    let mut capabilities: Vec<ComputeCapability> =
        devices.iter().map(|(_, capability)| *capability).collect();
    order::sort(&mut capabilities);
    capabilities.dedup();
    let capabilities: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    let capabilities = capabilities.join(", ");
    let mut names: Vec<&str> = packages.iter().map(|p| p.name.unwrap_or(&p.title)).collect();
    names.dedup();
    let holding = format!(
        "{} {}",
        counted(
            names.len(),
            match packages.iter().all(|package| package.is_named()) {
                true => "file",
                false => "package",
            }
        ),
        verb(names.len(), "holds", "hold")
    );
    order::sort(&mut by_ptx);
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
    Finding::pass(Code::KernelsUnusable, subject)
        .observed(names.join(", "))
        .required(format!("code for compute capability {capabilities}"))
        .message(format!("{holding} code that runs here{note}"))
}

#[cfg(test)]
mod tests;
