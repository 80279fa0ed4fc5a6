//! `driver-floor`: the oldest driver that serves what the image's libraries are built for. Pure.
//!
//! Source: CUDA Compatibility, "Minor Version Compatibility": a program that was built with any CUDA of a major version
//! runs on each driver for that major version, as long as nothing has to compile PTX of a newer one.

use crate::arch::ArchList;
use crate::check::{Code, Finding, Severity, Stage};
use crate::cuda_errors;
use crate::facts::{
    Compat, CudaVersion, Distribution, Facts, ImageFacts, LibraryKind, LibraryOrigin, LoadedObject,
    PtxVersion,
};
use crate::stack::{CudaRules, Stack};

use super::kernels::{self, Served};
use super::{device, forward, require};

#[cfg(test)]
mod tests;

/// CUDA 11 brought minor version compatibility.
const FIRST_COMPATIBLE_MAJOR: u16 = 11;

/// What an image needs of a driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Floor<'a> {
    /// the newest CUDA of what is used together
    pub(crate) cuda: CudaVersion,
    /// who is built for it: torch, or the path of a libcudart
    by: &'a str,
    /// it is only the newest of several copies, of which nobody knows which one is used
    is_guess: bool,
    /// a libcudart that would be mapped as well, of a newer major version than torch's
    beside: Option<(CudaVersion, &'a str)>,
}

impl<'a> Floor<'a> {
    /// torch's CUDA where it is used: a package with libraries of its own for another CUDA does not keep it from running.
    /// Without torch, that of the libcudart that would be mapped; where none would be, the newest that is there.
    pub(crate) fn of(image: &'a ImageFacts, stack: &Stack) -> Option<Self> {
        // Beside packages that the manifest names, another torch is none of the service's. A capture names none yet.
        let names = |package: &str| stack.packages.iter().any(|rule| rule.normalized == package);
        let torch = torch(image).filter(|_| stack.packages.is_empty() || names("torch"));
        let torch = torch.and_then(|_| of_torch(image));
        let mut floor = torch.map(|cuda| Self {
            cuda,
            by: "torch",
            is_guess: false,
            beside: None,
        });
        let is_mapped = |object| mapped_runtime(image, object);
        for (cuda, by) in image.loaded.iter().filter_map(is_mapped) {
            match &mut floor {
                Some(floor) if cuda <= floor.cuda => {}
                // conda brings the newest libcudart of a major version, whatever torch was built with.
                Some(floor) if torch.is_some() && cuda.major > floor.cuda.major => {
                    floor.beside = floor.beside.max(Some((cuda, by)));
                }
                _ => {
                    let beside = floor.take().and_then(|floor| floor.beside);
                    floor = Some(Self {
                        cuda,
                        by,
                        is_guess: false,
                        beside,
                    });
                }
            }
        }
        if floor.is_some() {
            return floor;
        }
        for (cuda, by) in answers(image, LibraryKind::Cudart) {
            let is_guess = floor
                .as_ref()
                .is_some_and(|known| known.is_guess || known.cuda.major != cuda.major);
            match &mut floor {
                Some(known) if cuda <= known.cuda => known.is_guess = is_guess,
                _ => {
                    floor = Some(Self {
                        cuda,
                        by,
                        is_guess,
                        beside: None,
                    })
                }
            }
        }
        floor
    }

    /// The oldest CUDA that a driver has to serve: any minor version does, where there is minor version compatibility.
    pub(crate) fn least(&self) -> CudaVersion {
        least(self.cuda)
    }
}

pub(super) fn least(cuda: CudaVersion) -> CudaVersion {
    match cuda.major {
        major @ FIRST_COMPATIBLE_MAJOR.. => CudaVersion { major, minor: 0 },
        _ => cuda,
    }
}

/// The torch that an import finds.
pub(crate) fn torch(image: &ImageFacts) -> Option<&Distribution> {
    image.distributions.iter().find(|dist| dist.name == "torch")
}

/// The version of a torch that is built without CUDA, whether it says `+cpu` or not.
pub(crate) fn cpu_torch(image: &ImageFacts) -> Option<&str> {
    let torch = torch(image).filter(|torch| torch.module_cuda.is_none())?;
    torch.module_version.as_deref()
}

/// The CUDA that torch says it is built for.
pub(crate) fn of_torch(image: &ImageFacts) -> Option<CudaVersion> {
    torch(image)?.module_cuda.as_deref()?.parse().ok()
}

/// The copies that `cudart-version` and `nvrtc-version` would judge, with the versions that they answer.
pub(crate) fn answers(image: &ImageFacts, kind: LibraryKind) -> impl Iterator<Item = (CudaVersion, &str)> {
    let copies = image.libraries.iter();
    copies
        .filter(move |l| l.kind == kind && l.origin != LibraryOrigin::Toolkit)
        .filter_map(|copy| Some((copy.answer.as_ref()?.version?, copy.path.as_str())))
}

/// The version of a libcudart that would be mapped, and its path.
fn mapped_runtime<'a>(image: &'a ImageFacts, object: &'a LoadedObject) -> Option<(CudaVersion, &'a str)> {
    let path = object.path.as_deref()?;
    let name = path.rsplit('/').next()?;
    LibraryKind::of_file(name).filter(|kind| *kind == LibraryKind::Cudart)?;
    let is_it = |other: &str| other == path || object.real.as_deref() == Some(other);
    let answers = image.libraries.iter().filter(|l| l.kind == LibraryKind::Cudart);
    let mut answers = answers.filter_map(|l| Some((l.path.as_str(), l.answer.as_ref()?)));
    answers.find_map(|(asked, answer)| {
        let is_same = is_it(asked) || answer.path.as_deref().is_some_and(is_it);
        Some((answer.version?, path)).filter(|_| is_same)
    })
}

/// `550.54.14` for CUDA 12.4; none for a CUDA whose driver is not known yet.
fn full_release(cuda: CudaVersion) -> Option<&'static str> {
    cuda_errors::oldest_driver(|version| version >= cuda)
}

/// The oldest release that runs it at all.
fn least_release(cuda: CudaVersion) -> Option<&'static str> {
    cuda_errors::oldest_driver_of_major(cuda.major).or_else(|| full_release(cuda))
}

/// `driver >= 550.54.14, or >= 525.60.13 by minor version compatibility, without PTX`
fn drivers_of(cuda: CudaVersion) -> String {
    let full = match full_release(cuda) {
        Some(release) => format!("driver >= {release}"),
        None => format!("a driver for CUDA {cuda}"),
    };
    match least_release(cuda).filter(|_| least(cuda) < cuda) {
        Some(least) => format!("{full}, or >= {least} by minor version compatibility, without PTX"),
        None => full,
    }
}

/// The newest PTX that a package of the manifest depends on, for a listed architecture that none of its SASS serves.
struct NeededPtx {
    version: PtxVersion,
    /// `own-kernels for 12.0`
    by: String,
}

fn needed_ptx(stack: &Stack, archs: Option<&ArchList>, image: &ImageFacts) -> Option<NeededPtx> {
    const NONE: PtxVersion = PtxVersion { major: 0, minor: 0 };
    let is_ours = |name: &str| stack.packages.iter().any(|rule| rule.normalized == name);
    let mut needed: Option<NeededPtx> = None;
    for package in kernels::packages(&image.kernels, &image.python.site_packages) {
        if !package.name.is_some_and(is_ours) {
            continue;
        }
        for arch in archs.into_iter().flatten() {
            let capability = arch.capability;
            if let Served::No {
                too_new: Some(version),
            } = package.on(capability, Some(NONE))
                && needed.as_ref().is_none_or(|known| known.version < version)
            {
                let by = format!("{} for {capability}", package.label());
                needed = Some(NeededPtx { version, by });
            }
        }
    }
    needed
}

/// At build: the floor, and the image's own conditions on the machine held against it.
pub(super) fn of_image(stack: &Stack, archs: Option<&ArchList>, facts: &Facts) -> Vec<Finding> {
    let compat = &facts.image.compat;
    let mut findings = forward::of_image(compat);
    // A part that the manifest leaves out is not judged.
    if stack.packages.is_empty() && stack.cuda == CudaRules::default() {
        return findings;
    }
    let Some(floor) = Floor::of(&facts.image, stack).filter(|floor| !floor.is_guess) else {
        return findings;
    };
    let ptx = needed_ptx(stack, archs, &facts.image);
    let needs = [needs(&floor, ptx.as_ref(), compat)];
    for mut finding in needs.into_iter().chain(conditions(&floor, ptx.as_ref(), facts)) {
        finding.stage = Stage::Image;
        findings.push(finding);
    }
    findings
}

fn needs(floor: &Floor<'_>, ptx: Option<&NeededPtx>, compat: &[Compat]) -> Finding {
    let mut message = format!("this image needs {}", drivers_of(floor.cuda));
    if let Some((ptx, cuda)) = ptx.and_then(|ptx| Some((ptx, ptx.version.first_cuda()?)))
        && cuda > floor.least()
    {
        let driver = full_release(cuda).unwrap_or("of a later release");
        message += &format!(
            "; PTX {} of {} needs driver >= {driver}",
            ptx.version.with_cuda(),
            ptx.by
        );
    }
    if let Some((cuda, path)) = floor.beside {
        message += &format!("; {path} needs {}", drivers_of(cuda));
    }
    if let Some((library, drivers)) = forward::below(floor.least(), compat) {
        message += &format!("; on data centre GPUs also {drivers}, by forward compatibility: {library}");
    }
    Finding::info(Code::DriverFloor, "driver")
        .observed(format!("CUDA {} ({})", floor.cuda, floor.by))
        .message(message)
}

/// Which drivers `NVIDIA_REQUIRE_CUDA` lets the container start on, against those that serve it.
fn conditions(floor: &Floor<'_>, ptx: Option<&NeededPtx>, facts: &Facts) -> Option<Finding> {
    let conditions = require::Conditions::of(facts)?;
    let least = floor.least();
    // PTX of a newer CUDA is nothing that minor version compatibility serves.
    let by_ptx = ptx.and_then(|ptx| ptx.version.first_cuda());
    let serving = by_ptx.map_or(least, |cuda| cuda.max(least));
    let (mut refused, mut finding) = (None, None);
    for (cuda, release) in cuda_errors::drivers() {
        let is_admitted = conditions.admit(cuda, release) == Some(true);
        let (name, shown) = (conditions.variable, conditions.shown());
        match refused {
            _ if cuda < least && is_admitted => {
                // A newer libcuda in the image may be the reason why they are let in.
                let severity = match forward::below(least, &facts.image.compat) {
                    Some(_) => Severity::Info,
                    None => Severity::Warn,
                };
                finding = Some(
                    Finding::problem_as(Code::DriverFloor, severity, name)
                        .observed(format!("{shown} admits driver {release}, which supports CUDA {cuda}"))
                        .message(format!(
                            "{name} lets this image start on drivers that do not support it: {} needs CUDA {least}",
                            floor.by
                        ))
                        .hint(format!(
                            "ENV NVIDIA_REQUIRE_CUDA=\"cuda>={least}\" in the Dockerfile, or packages in builds for CUDA {}",
                            cuda.major
                        )),
                );
                break;
            }
            None if cuda >= serving && !is_admitted => refused = Some((cuda, release)),
            Some((from, first)) if is_admitted => {
                finding = Some(
                    Finding::info(Code::DriverFloor, name)
                        .observed(shown)
                        .message(format!(
                            "{name} refuses drivers before {release}, but for GPUs that it names; the image's libraries run \
                             from {first} (CUDA {from}) on"
                        ))
                        .hint(format!("to let them in: ENV NVIDIA_REQUIRE_CUDA=\"cuda>={from}\" in the Dockerfile")),
                );
                break;
            }
            _ => {}
        }
    }
    Some(finding?.required(drivers_of(floor.cuda)))
}

/// At the start: a driver that the manifest accepts, against what the libraries need. `said` is what the stage has found
/// so far: one fault is one finding.
pub(super) fn on_machine(stack: &Stack, facts: &Facts, said: &[Finding]) -> Option<Finding> {
    let device = &facts.device;
    let driver = device.driver.as_ref().filter(|driver| driver.error.is_none())?;
    let serves = driver.api_version.filter(|_| !device.devices.is_empty())?;
    let is_told = |f: &Finding| f.problem && matches!(f.code, Code::DriverTooOld | Code::StubDriver);
    if said.iter().any(is_told) {
        return None;
    }
    let subject = device::driver_subject(facts);
    let observed = forward::served(serves, facts);
    let floor = Floor::of(&facts.image, stack).filter(|floor| !floor.is_guess)?;
    let lacking = match floor.beside {
        _ if serves < floor.least() => Some((Code::DriverFloor.severity(), floor.cuda, floor.by)),
        Some((cuda, path)) if serves < least(cuda) => Some((Severity::Warn, cuda, path)),
        _ => None,
    };
    if let Some((severity, cuda, by)) = lacking {
        return Some(
            Finding::problem_as(Code::DriverFloor, severity, subject)
                .observed(observed)
                .required(format!("CUDA {cuda} ({by}): {}", drivers_of(cuda)))
                .message(format!(
                    "the driver supports CUDA {serves}, and {by} is built for CUDA {cuda}: its first call fails with error 35"
                ))
                .hint(format!(
                    "{}; or install the packages in builds for CUDA {}",
                    device::update_hint(Some(cuda), facts),
                    serves.major
                )),
        );
    }
    let how = match forward::by_forward(serves, facts) {
        Some(by) => format!("CUDA {serves} {by}"),
        None if serves < floor.cuda => format!(
            "CUDA {} runs on this driver by minor version compatibility",
            floor.cuda
        ),
        None => "the driver supports what the image's libraries are built for".to_string(),
    };
    Some(
        Finding::pass(Code::DriverFloor, subject)
            .observed(observed)
            .required(format!("CUDA {} ({})", floor.least(), floor.by))
            .message(how),
    )
}
