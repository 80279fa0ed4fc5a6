//! `kernels-missing` and `kernels-ptx-only`: the CUDA code of the installed libraries against the list.
//!
//! Each listed capability has to be served, whatever its variant: a library may serve 9.0 without using what `9.0a`
//! offers. `+PTX` in the list says that PTX is meant, so that an architecture which is written so may be served by it
//! alone; it does not ask every library for PTX, which PyTorch's own builds leave out. What PTX is to be for, a newer
//! GPU, is judged on that GPU (`kernels-unusable`).

use super::{Scene, clean, listed};
use crate::arch::{Arch, ArchList};
use crate::check::{Code, Finding, Severity};
use crate::facts::kernels::CodeKind;
use crate::facts::{ComputeCapability, ModuleKernels};

/// Distributions whose source build without nvcc is for the CPU alone and says nothing.
const CPU_BUILDS: [&str; 6] = [
    "torch-scatter",
    "torch-sparse",
    "torch-cluster",
    "torch-spline-conv",
    "mmcv",
    "mmcv-full",
];

pub fn judge(scene: &Scene<'_>, archs: &ArchList) -> Vec<Finding> {
    let modules = &scene.image.kernels;
    let mut findings = Vec::new();
    let mut good = Vec::new();
    for module in modules {
        let found = one(scene, archs, module);
        if found.iter().all(|f| !f.problem)
            && module.error.is_none()
            && !module.vendor
            && module.with_kernels > 0
        {
            good.push(module);
        }
        findings.extend(found);
    }
    findings.extend(cpu_builds(scene, archs));
    if good.is_empty() {
        if findings.is_empty() {
            findings.push(
                Finding::skip(Code::KernelsMissing, "CUDA extensions")
                    .required(archs.to_string())
                    .message("no library in site-packages holds kernels of its own"),
            );
        }
        return findings;
    }
    findings.insert(0, pass(scene, archs, &good));
    findings
}

fn pass(scene: &Scene<'_>, archs: &ArchList, good: &[&ModuleKernels]) -> Finding {
    let shown: Vec<String> = good.iter().map(|m| counted(scene, archs, m)).collect();
    let fatbins: u64 = good.iter().map(|m| m.with_kernels).sum();
    let (libraries, serve) = match good.len() {
        1 => ("library", "serves"),
        _ => ("libraries", "serve"),
    };
    Finding::pass(Code::KernelsMissing, "CUDA extensions")
        .observed(clean(&listed(&shown, 16)))
        .required(archs.to_string())
        .message(format!(
            "{} {libraries} with {fatbins} fatbins of kernels {serve} every listed architecture",
            good.len()
        ))
}

/// `torch/lib/libtorch_cuda.so: 340 fatbins with kernels (7.5 in 339)`: what does not serve as much as the rest is
/// worth a number.
fn counted(scene: &Scene<'_>, archs: &ArchList, module: &ModuleKernels) -> String {
    let partial: Vec<String> = capabilities(archs)
        .filter_map(|cc| {
            let served = module.served.get(&cc)?;
            let count = served.sass.saturating_add(served.ptx);
            (count < module.with_kernels).then(|| format!("{cc} in {count}"))
        })
        .collect();
    let partial = match partial.is_empty() {
        true => String::new(),
        false => format!(" ({})", partial.join(", ")),
    };
    format!(
        "{}: {} of {} fatbins with kernels{partial}",
        short(scene, module),
        module.with_kernels,
        module.fatbins
    )
}

/// Each listed capability once.
fn capabilities(archs: &ArchList) -> impl Iterator<Item = ComputeCapability> {
    let mut last = None;
    archs
        .iter()
        .map(|arch| arch.capability)
        .filter(move |&cc| last.replace(cc) != Some(cc))
}

/// The problems of one library.
fn one(scene: &Scene<'_>, archs: &ArchList, module: &ModuleKernels) -> Vec<Finding> {
    if let Some(error) = &module.error {
        return vec![unreadable(scene, archs, module, error)];
    }
    if module.vendor || module.with_kernels == 0 {
        return Vec::new();
    }
    let by = |wanted: Option<CodeKind>| -> Vec<ComputeCapability> {
        capabilities(archs)
            .filter(|&cc| module.serves(cc) == wanted)
            .collect()
    };
    let missing = by(None);
    let (meant, ptx_only): (Vec<_>, Vec<_>) = by(Some(CodeKind::Ptx))
        .into_iter()
        .partition(|&cc| archs.iter().any(|a: &Arch| a.capability == cc && a.ptx));
    let mut findings = Vec::new();
    if !missing.is_empty() {
        findings.push(lacking(scene, archs, module, &missing));
    }
    if !ptx_only.is_empty() {
        findings.push(by_ptx(scene, archs, module, &ptx_only));
    }
    if !meant.is_empty() {
        let note = format!(
            "{} serves {} by PTX alone, as +PTX in the list allows",
            owner(scene, module),
            texts(&meant)
        );
        findings.push(
            Finding::info(Code::KernelsPtxOnly, clean(&short(scene, module)))
                .observed(holds(module))
                .required(archs.to_string())
                .message(clean(&note)),
        );
    }
    findings
}

fn is_ours(scene: &Scene<'_>, module: &ModuleKernels) -> bool {
    module
        .package
        .as_deref()
        .is_some_and(|name| scene.rule(name).is_some())
}

/// A failure for a package of the manifest, a warning for what the manifest does not name.
fn missing(scene: &Scene<'_>, module: &ModuleKernels) -> Finding {
    let severity = match is_ours(scene, module) {
        true => Code::KernelsMissing.severity(),
        false => Severity::Warn,
    };
    Finding::problem_as(Code::KernelsMissing, severity, clean(&short(scene, module)))
}

fn lacking(
    scene: &Scene<'_>,
    archs: &ArchList,
    module: &ModuleKernels,
    missing_archs: &[ComputeCapability],
) -> Finding {
    let none = match module.with_kernels {
        1 => "its one fatbin with kernels cannot run there".to_string(),
        count => format!("none of its {count} fatbins with kernels can run there"),
    };
    let message = format!(
        "{} has no kernels for {}: {none}",
        owner(scene, module),
        texts(missing_archs)
    );
    missing(scene, module)
        .observed(holds(module))
        .required(archs.to_string())
        .message(clean(&message))
        .hint(clean(&rebuild(scene, archs, module, missing_archs)))
}

fn by_ptx(
    scene: &Scene<'_>,
    archs: &ArchList,
    module: &ModuleKernels,
    ptx_archs: &[ComputeCapability],
) -> Finding {
    let message = format!(
        "{} serves {} by PTX alone: the driver compiles each kernel at its first use, and only a driver at least as \
         new as the compiler can",
        owner(scene, module),
        texts(ptx_archs)
    );
    Finding::problem(Code::KernelsPtxOnly, clean(&short(scene, module)))
        .observed(holds(module))
        .required(archs.to_string())
        .message(clean(&message))
        .hint(clean(&rebuild(scene, archs, module, ptx_archs)))
}

fn unreadable(scene: &Scene<'_>, archs: &ArchList, module: &ModuleKernels, error: &str) -> Finding {
    let hint = match (&module.package, is_ours(scene, module)) {
        (Some(name), _) => format!("In the Dockerfile: pip install --force-reinstall --no-deps {name}."),
        (None, _) => format!(
            "Build or install again what brought {}, or remove it if nothing loads it.",
            module.path
        ),
    };
    let message = format!(
        "it cannot be told which kernels {} holds: {error}",
        short(scene, module)
    );
    missing(scene, module)
        .observed(clean(error))
        .required(archs.to_string())
        .message(clean(&message))
        .hint(clean(&hint))
}

/// Packages of the manifest that were built without CUDA.
fn cpu_builds(scene: &Scene<'_>, archs: &ArchList) -> Vec<Finding> {
    let of = |name: &str| -> Vec<&ModuleKernels> {
        let modules = scene.image.kernels.iter();
        modules.filter(|m| m.package.as_deref() == Some(name)).collect()
    };
    CPU_BUILDS
        .iter()
        .filter(|name| scene.rule(name).is_some())
        .filter_map(|name| {
            let modules = of(name);
            let first = modules.first()?;
            let idle = |m: &&ModuleKernels| m.fatbins == 0 && m.error.is_none();
            modules.iter().all(idle).then(|| {
                let names: Vec<String> = modules.iter().map(|m| short(scene, m)).collect();
                Finding::problem(Code::KernelsMissing, name.to_string())
                    .observed(clean(&format!("no CUDA code in {}", listed(&names, 4))))
                    .required(archs.to_string())
                    .message(format!(
                        "{name} is built for the CPU alone: none of its libraries holds CUDA code"
                    ))
                    .hint(clean(&rebuild(scene, archs, first, &[])))
            })
        })
        .collect()
}

/// How to get the kernels: by a build of one's own, or by another wheel.
fn rebuild(
    scene: &Scene<'_>,
    archs: &ArchList,
    module: &ModuleKernels,
    lacking: &[ComputeCapability],
) -> String {
    let build = format!("TORCH_CUDA_ARCH_LIST=\"{archs}\" FORCE_CUDA=1 in a -devel image");
    let (wanted, otherwise) = match lacking.is_empty() {
        true => ("CUDA".to_string(), String::new()),
        false => {
            let texts = texts(lacking);
            let otherwise = format!(" Or take {texts} out of archs, if no such GPU runs this image.");
            (format!("kernels for {texts}"), otherwise)
        }
    };
    match &module.package {
        Some(name) if is_ours(scene, module) => {
            format!("Install a build of {name} that has {wanted}, or compile it with {build}.{otherwise}")
        }
        _ => format!("Compile it with {build}.{otherwise}"),
    }
}

/// Whose library it is, and its place.
fn owner(scene: &Scene<'_>, module: &ModuleKernels) -> String {
    let place = short(scene, module);
    match &module.package {
        Some(name) => format!("{name} ({place})"),
        None => place,
    }
}

/// The path below site-packages.
fn short(scene: &Scene<'_>, module: &ModuleKernels) -> String {
    let folders = scene.image.python.site_packages.iter();
    let below = folders
        .filter_map(|folder| module.path.strip_prefix(folder.as_str())?.strip_prefix('/'))
        .min_by_key(|rest| rest.len());
    below.unwrap_or(&module.path).to_string()
}

/// What it has, as `cuda-entrypoint kernels` would say it.
fn holds(module: &ModuleKernels) -> String {
    crate::checks::arch::code_of(module)
}

fn texts(capabilities: &[ComputeCapability]) -> String {
    let texts: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests;
