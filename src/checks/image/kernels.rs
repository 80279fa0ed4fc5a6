//! `kernels-missing` and `kernels-ptx-only`: the CUDA code of the installed libraries against the list.
//!
//! Each listed capability has to be served, whatever its variant: a library may serve 9.0 without using what `9.0a`
//! offers. `+PTX` in the list says that PTX is meant, so that an architecture which is written so may be served by it
//! alone; it does not ask every library for PTX, which PyTorch's own builds leave out. What PTX is to be for, a newer
//! GPU, is judged on that GPU (`kernels-unusable`).
//!
//! Packages are judged, not files: see [`super::super::kernels`].

use super::super::kernels::{self, Package, Served};
use super::{ImageContext, listed};
use crate::arch::{Arch, ArchList};
use crate::check::{Code, Finding, Severity};
use crate::facts::kernels::CodeKind;
use crate::facts::{ComputeCapability, ModuleKernels};
use crate::order;
use crate::packages::{self, PACKAGES};
use crate::text::{counted, verb};

pub fn judge(scene: &ImageContext<'_>, archs: &ArchList) -> Vec<Finding> {
    let modules = &scene.image.kernels;
    let mut findings = Vec::new();
    let mut good: Vec<Package<'_>> = Vec::new();
    for module in modules {
        // What the system could not read is told by `unread`.
        let is_refused = |path: &str| {
            scene
                .image
                .loader
                .refused
                .iter()
                .any(|refused| refused.path == path)
        };
        if let (Some(error), None) = (&module.error, module.errno)
            && !(module.named && is_refused(&module.path))
        {
            findings.push(unreadable(scene, archs, module, error));
        }
    }
    for package in kernels::packages(modules, &scene.image.python.site_packages) {
        let found = one(scene, archs, &package);
        let serves = |cc| !matches!(package.on(cc, None), Served::Unneeded);
        if found.iter().all(|f| !f.problem) && capabilities(archs).all(serves) {
            good.push(package);
        }
        findings.extend(found);
    }
    findings.extend(cpu_builds(scene, archs));
    if good.is_empty() {
        if findings.is_empty() {
            findings.push(
                Finding::skip(Code::KernelsMissing, "CUDA extensions")
                    .required(archs.to_string())
                    .message(match scene.has_folders() {
                        true => "no library in site-packages holds kernels of its own",
                        false => "no file of the manifest's libraries holds CUDA code, so that there are no kernels to compare with archs",
                    }),
            );
        }
        return findings;
    }
    findings.insert(0, pass(scene, archs, &good));
    findings
}

fn pass(scene: &ImageContext<'_>, archs: &ArchList, good: &[Package<'_>]) -> Finding {
    let modules: Vec<&ModuleKernels> = good.iter().flat_map(|p| p.modules.iter().copied()).collect();
    let shown: Vec<String> = modules.iter().map(|m| fatbins_of(scene, archs, m)).collect();
    let fatbins: u64 = modules.iter().map(|m| m.with_kernels).sum();
    // torch comes library by library.
    let names = order::set(good.iter().map(|p| p.name.unwrap_or(&p.title)));
    let what = match good.iter().all(Package::is_named) {
        true => "file",
        false => "package",
    };
    Finding::pass(Code::KernelsMissing, "CUDA extensions")
        .observed(listed(&shown, 16))
        .required(archs.to_string())
        .message(format!(
            "{} {} every listed architecture, by {} with {} of kernels",
            counted(names.len(), what),
            verb(names.len(), "supports", "support"),
            counted(modules.len(), "library"),
            counted(fatbins, "fatbin")
        ))
}

/// `torch/lib/libtorch_cuda.so: 305 of 340 fatbins with kernels (7.5 in 304)`: what does not serve as much as the rest is
/// worth a number.
fn fatbins_of(scene: &ImageContext<'_>, archs: &ArchList, module: &ModuleKernels) -> String {
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
        "{}: {} of {} with kernels{partial}",
        short(scene, module),
        module.with_kernels,
        counted(module.fatbins, "fatbin")
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

/// What one package lacks: nothing, or a finding for each kind of lack.
fn one(scene: &ImageContext<'_>, archs: &ArchList, package: &Package<'_>) -> Vec<Finding> {
    let mut missing = Vec::new();
    let (mut meant, mut ptx_only) = (Vec::new(), Vec::new());
    let mut unserved: Vec<(&str, Vec<ComputeCapability>)> = Vec::new();
    let mut mostly = Vec::new();
    for cc in capabilities(archs) {
        match package.on(cc, None) {
            Served::No { .. } => missing.push(cc),
            Served::Unneeded => note_lacking(&mut unserved, &package.modules, cc),
            Served::Yes {
                by,
                lacking,
                mostly_lacking,
            } => {
                if by == CodeKind::Ptx {
                    match archs.iter().any(|a: &Arch| a.capability == cc && a.ptx) {
                        true => meant.push(cc),
                        false => ptx_only.push(cc),
                    }
                }
                note_lacking(&mut unserved, &lacking, cc);
                if mostly_lacking {
                    mostly.push(cc);
                }
            }
        }
    }
    let mut findings = Vec::new();
    if !missing.is_empty() {
        findings.push(lacking(scene, archs, package, &missing));
    }
    if !ptx_only.is_empty() {
        findings.push(by_ptx(scene, archs, package, &ptx_only));
    }
    if !meant.is_empty() {
        let note = format!(
            "{} supports {} by PTX alone{}, as +PTX in the list allows",
            owner(scene, package),
            texts(&meant),
            version_of(package, &meant).map_or_else(String::new, |(said, _)| said)
        );
        findings.push(
            Finding::info(Code::KernelsPtxOnly, subject(scene, package))
                .observed(holds(package))
                .required(archs.to_string())
                .message(note),
        );
    }
    if !unserved.is_empty() {
        findings.push(note(scene, archs, package, &unserved, &mostly));
    }
    findings
}

/// Adds an architecture to those that each of these libraries lacks.
fn note_lacking<'a>(
    unserved: &mut Vec<(&'a str, Vec<ComputeCapability>)>,
    modules: &[&'a ModuleKernels],
    cc: ComputeCapability,
) {
    for module in modules {
        match unserved.iter_mut().find(|(path, _)| *path == module.path) {
            Some((_, archs)) => archs.push(cc),
            None => unserved.push((&module.path, vec![cc])),
        }
    }
}

/// What single libraries lack where the package serves: it may choose others there, or leave an operator out.
fn note(
    scene: &ImageContext<'_>,
    archs: &ArchList,
    package: &Package<'_>,
    unserved: &[(&str, Vec<ComputeCapability>)],
    mostly: &[ComputeCapability],
) -> Finding {
    let mut by_archs: Vec<(&[ComputeCapability], Vec<&ModuleKernels>)> = Vec::new();
    for (path, lacking) in unserved {
        let module = package.modules.iter().find(|m| m.path == *path);
        match by_archs.iter_mut().find(|(archs, _)| archs == lacking) {
            Some((_, modules)) => modules.extend(module),
            None => by_archs.push((lacking, module.into_iter().copied().collect())),
        }
    }
    let mut parts: Vec<String> = by_archs
        .iter()
        .map(|(lacking, modules)| format!("{} by {}", texts(lacking), kernels::named(modules, 4)))
        .collect();
    if !mostly.is_empty() {
        parts.push(format!(
            "for {}, that is the greater part of its kernels",
            texts(mostly)
        ));
    }
    let message = format!(
        "single libraries of {} do not support every listed architecture; not supported are {}",
        package.title,
        parts.join("; ")
    );
    let finding = match !mostly.is_empty() && is_ours(scene, package.name, package.is_named()) {
        true => Finding::problem_as(Code::KernelsMissing, Severity::Warn, &package.title)
            .with(package.name)
            .hint(format!(
                "If the service uses what these libraries do: {}",
                rebuild(scene, archs, package.name, package.is_named(), mostly)
            )),
        false => Finding::info(Code::KernelsMissing, &package.title),
    };
    finding
        .observed(holds(package))
        .required(archs.to_string())
        .message(message)
}

fn is_ours(scene: &ImageContext<'_>, name: Option<&str>, is_named: bool) -> bool {
    is_named || name.is_some_and(|name| scene.rule(name).is_some())
}

/// A failure for a package of the manifest, a warning for what the manifest does not name.
fn missing(scene: &ImageContext<'_>, name: Option<&str>, is_named: bool, subject: String) -> Finding {
    let severity = match is_ours(scene, name, is_named) {
        true => Code::KernelsMissing.severity(),
        false => Severity::Warn,
    };
    Finding::problem_as(Code::KernelsMissing, severity, &subject)
        .with(name.into_iter().chain([subject.as_str()]))
}

fn lacking(
    scene: &ImageContext<'_>,
    archs: &ArchList,
    package: &Package<'_>,
    missing_archs: &[ComputeCapability],
) -> Finding {
    let none = match package.modules.as_slice() {
        [only] if only.with_kernels == 1 => "its one fatbin with kernels cannot run there".to_string(),
        [only] => format!(
            "none of its {} fatbins with kernels can run there",
            only.with_kernels
        ),
        several => format!(
            "none of its {} libraries can run there: {}",
            several.len(),
            kernels::named(several, 8)
        ),
    };
    let message = format!(
        "{} has no kernels for {}: {none}",
        owner(scene, package),
        texts(missing_archs)
    );
    missing(scene, package.name, package.is_named(), subject(scene, package))
        .observed(holds(package))
        .required(archs.to_string())
        .message(message)
        .hint(rebuild(
            scene,
            archs,
            package.name,
            package.is_named(),
            missing_archs,
        ))
}

fn by_ptx(
    scene: &ImageContext<'_>,
    archs: &ArchList,
    package: &Package<'_>,
    ptx_archs: &[ComputeCapability],
) -> Finding {
    let (version, driver) = version_of(package, ptx_archs).unwrap_or_else(|| {
        let driver = "a driver at least as new as the compiler".to_string();
        (String::new(), driver)
    });
    let message = format!(
        "{} supports {} by PTX alone{version}: the driver compiles each kernel at its first use, and only {driver} can",
        owner(scene, package),
        texts(ptx_archs)
    );
    let subject = subject(scene, package);
    Finding::problem(Code::KernelsPtxOnly, &subject)
        .with(package.name.into_iter().chain([subject.as_str()]))
        .observed(holds(package))
        .required(archs.to_string())
        .message(message)
        .hint(rebuild(scene, archs, package.name, package.is_named(), ptx_archs))
}

/// `, of version 8.7` and `a driver for CUDA 12.8 or newer`: what the PTX for these architectures asks for, where each
/// text tells its version. Of several libraries that serve one, the oldest text counts.
fn version_of(package: &Package<'_>, ptx_archs: &[ComputeCapability]) -> Option<(String, String)> {
    let oldest = |cc: &ComputeCapability| package.modules.iter().filter_map(|m| m.oldest_ptx(*cc)).min();
    let version = ptx_archs.iter().filter_map(oldest).max()?;
    let cuda = version.first_cuda()?;
    Some((
        format!(", of version {version}"),
        format!("a driver for CUDA {cuda} or newer"),
    ))
}

fn unreadable(scene: &ImageContext<'_>, archs: &ArchList, module: &ModuleKernels, error: &str) -> Finding {
    let hint = match &module.package {
        Some(name) => format!("In the Dockerfile: pip install --force-reinstall --no-deps {name}."),
        None if module.named => "Name the program or library itself, not a script that starts it; one that is damaged has to be built or installed again."
            .to_string(),
        None => format!(
            "Build or install again what brought {}, or remove it if nothing loads it.",
            module.path
        ),
    };
    let place = short(scene, module);
    let message = format!("the kernels in {place} cannot be determined: {error}");
    missing(scene, module.package.as_deref(), module.named, place.to_string())
        .observed(error)
        .required(archs.to_string())
        .message(message)
        .hint(hint)
}

/// Packages of the manifest that were built without CUDA.
fn cpu_builds(scene: &ImageContext<'_>, archs: &ArchList) -> Vec<Finding> {
    let of = |name: &str| -> Vec<&ModuleKernels> {
        let modules = scene.image.kernels.iter();
        modules.filter(|m| m.package.as_deref() == Some(name)).collect()
    };
    PACKAGES
        .iter()
        .filter(|package| package.silent_cpu_build.get().is_some())
        .flat_map(|package| package.names())
        .filter(|name| scene.rule(name).is_some())
        .filter_map(|name| {
            let modules = of(name);
            let idle = |m: &&ModuleKernels| m.fatbins == 0 && m.error.is_none();
            (!modules.is_empty() && modules.iter().all(idle)).then(|| {
                let names: Vec<String> = modules.iter().map(|m| short(scene, m).to_string()).collect();
                Finding::problem(Code::KernelsMissing, name.to_string())
                    .observed(format!("no CUDA code in {}", listed(&names, 4)))
                    .required(archs.to_string())
                    .message(format!(
                        "{name} is built for the CPU alone: none of its libraries holds CUDA code"
                    ))
                    .hint(rebuild(scene, archs, Some(name), false, &[]))
            })
        })
        .collect()
}

/// How to get the kernels: by a build of one's own, or by another wheel.
fn rebuild(
    scene: &ImageContext<'_>,
    archs: &ArchList,
    name: Option<&str>,
    is_named: bool,
    lacking: &[ComputeCapability],
) -> String {
    // cumm/common.py reads a variable of its own, for what pccm compiles.
    let is_of_pccm = name
        .and_then(packages::of)
        .is_some_and(|package| package.pccm.get().is_some());
    let build = match is_of_pccm {
        // Of the manifest's `libraries`, which nvcc or CMake makes.
        _ if is_named => {
            let list: Vec<String> = capabilities(archs)
                .map(|cc| format!("{}{}", cc.major, cc.minor))
                .collect();
            let first = list.first().map_or("", String::as_str);
            format!(
                "CMAKE_CUDA_ARCHITECTURES=\"{}\", or nvcc -gencode arch=compute_{first},code=sm_{first} and one for each other",
                list.join(";")
            )
        }
        true => format!("CUMM_CUDA_ARCH_LIST=\"{archs}\" in a -devel image"),
        false => format!("TORCH_CUDA_ARCH_LIST=\"{archs}\" FORCE_CUDA=1 in a -devel image"),
    };
    let (wanted, otherwise) = match lacking.is_empty() {
        true => ("CUDA".to_string(), String::new()),
        false => {
            let texts = texts(lacking);
            let otherwise = format!(" Or take {texts} out of archs, if no such GPU runs this image.");
            (format!("kernels for {texts}"), otherwise)
        }
    };
    match name {
        Some(name) if is_ours(scene, Some(name), false) => {
            format!("Install a build of {name} that has {wanted}, or compile it with {build}.{otherwise}")
        }
        _ => format!("Compile it with {build}.{otherwise}"),
    }
}

/// Whose library it is, and its place; of several libraries, the package alone.
fn owner(scene: &ImageContext<'_>, package: &Package<'_>) -> String {
    match (package.name, package.modules.as_slice()) {
        (Some(name), [only]) => format!("{name} ({})", short(scene, only)),
        (None, [only]) => short(scene, only).to_string(),
        _ => package.title.clone(),
    }
}

/// The one library below site-packages, or the package.
fn subject(scene: &ImageContext<'_>, package: &Package<'_>) -> String {
    match package.modules.as_slice() {
        [only] => short(scene, only).to_string(),
        _ => package.title.clone(),
    }
}

/// The path below site-packages.
fn short<'m>(scene: &ImageContext<'_>, module: &'m ModuleKernels) -> &'m str {
    kernels::below(&module.path, &scene.image.python.site_packages).1
}

/// What it has, as `cuda-entrypoint kernels` would say it.
fn holds(package: &Package<'_>) -> String {
    kernels::code_of(&package.modules)
}

fn texts(capabilities: &[ComputeCapability]) -> String {
    let texts: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests;
