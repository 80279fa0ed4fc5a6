//! `driver-floor`: the oldest driver that serves what the image's libraries are built for. Pure.
//!
//! Source: CUDA Compatibility, "Minor Version Compatibility": a program that was built with any CUDA of a major version
//! runs on each driver for that major version, as long as nothing has to compile PTX of a newer one.

use crate::arch::ArchList;
use crate::check::{Code, Finding, Severity, Stage};
use crate::cuda_errors;
use crate::facts::{
    CompatFolder, CudaVersion, Distribution, Facts, ImageFacts, LibraryKind, LibraryOrigin, LoadedObject,
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
    /// who is built for it
    by: String,
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
        let mut mapped: Vec<(CudaVersion, &str)> = image
            .loaded
            .iter()
            .filter_map(|object| mapped_runtime(image, object))
            .collect();
        crate::order::sort(&mut mapped);
        let (cuda, by) = match torch.zip(of_torch(image)) {
            Some((torch, cuda)) => (cuda, shown(torch)),
            None => match mapped.last() {
                Some(&(cuda, path)) => (cuda, path.to_string()),
                None => return Self::of_copies(image),
            },
        };
        // conda brings the newest libcudart of a major version, whatever torch was built with.
        let newest = mapped.iter().rfind(|(version, _)| version.major == cuda.major);
        let (cuda, by) = match newest {
            Some(&(version, path)) if version > cuda => (version, path.to_string()),
            _ => (cuda, by),
        };
        Some(Self {
            cuda,
            by,
            is_guess: false,
            beside: mapped
                .last()
                .copied()
                .filter(|(version, _)| version.major > cuda.major),
        })
    }

    fn of_copies(image: &'a ImageFacts) -> Option<Self> {
        let (cuda, path) = answers(image, LibraryKind::Cudart).max()?;
        let is_guess = answers(image, LibraryKind::Cudart).any(|(other, _)| other.major != cuda.major);
        Some(Self {
            cuda,
            by: path.to_string(),
            is_guess,
            beside: None,
        })
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

/// The CUDA that torch says it is built for.
pub(crate) fn of_torch(image: &ImageFacts) -> Option<CudaVersion> {
    let (major, rest) = torch(image)?.module_cuda.as_deref()?.split_once('.')?;
    Some(CudaVersion {
        major: major.parse().ok()?,
        minor: rest.split('.').next()?.parse().ok()?,
    })
}

fn shown(torch: &Distribution) -> String {
    let version = torch.module_version.as_deref().unwrap_or(&torch.version);
    format!("torch {version}")
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

fn needs(floor: &Floor<'_>, ptx: Option<&NeededPtx>, compat: &[CompatFolder]) -> Finding {
    let mut observed = format!("CUDA {} ({})", floor.cuda, floor.by);
    let mut message = format!("this image needs {}", drivers_of(floor.cuda));
    if let Some((ptx, cuda)) = ptx.and_then(|ptx| Some((ptx, ptx.version.first_cuda()?))) {
        observed += &format!("; PTX {} ({})", ptx.version, ptx.by);
        if cuda > floor.least() {
            let release = full_release(cuda).map_or_else(
                || format!("a driver for CUDA {cuda}"),
                |release| format!("driver >= {release}"),
            );
            message += &format!(
                "; its PTX {} ({}) needs {release}",
                ptx.version.with_cuda(),
                ptx.by
            );
        }
    }
    if let Some((cuda, path)) = floor.beside {
        observed += &format!("; CUDA {cuda} ({path})");
        message += &format!("; {path} needs {}", drivers_of(cuda));
    }
    if let Some((library, drivers)) = forward::below(floor.least(), compat) {
        observed += &format!("; {library}");
        message += &format!("; by forward compatibility also {drivers}, on data centre GPUs");
    }
    Finding::info(Code::DriverFloor, "driver")
        .observed(observed)
        .message(message)
}

/// Which drivers `NVIDIA_REQUIRE_CUDA` lets the container start on, against those that serve it.
fn conditions(floor: &Floor<'_>, ptx: Option<&NeededPtx>, facts: &Facts) -> Option<Finding> {
    let conditions = require::Conditions::of(facts)?;
    let least = floor.least();
    let required = || drivers_of(floor.cuda);
    let admitted = |version: CudaVersion, release: &str| conditions.admit(version, release) == Some(true);
    let mut rows = cuda_errors::drivers();
    if let Some((cuda, release)) = rows
        .clone()
        .find(|&(cuda, release)| cuda < least && admitted(cuda, release))
    {
        // A newer libcuda in the image may be the reason why they are let in.
        let severity = match forward::below(least, &facts.image.compat) {
            Some(_) => Severity::Info,
            None => Severity::Warn,
        };
        return Some(
            Finding::problem_as(Code::DriverFloor, severity, conditions.variable)
                .observed(format!("{} admits driver {release}, which serves CUDA {cuda}", conditions.shown()))
                .required(required())
                .message(format!(
                    "{} lets this image start on drivers that do not serve its libraries: they need CUDA {least} ({})",
                    conditions.variable, floor.by
                ))
                .hint(format!(
                    "set it in the Dockerfile to what the libraries need (ENV NVIDIA_REQUIRE_CUDA=\"cuda>={least}\"), or \
                     install them in builds for CUDA {}",
                    cuda.major
                )),
        );
    }
    // PTX of a newer CUDA is nothing that minor version compatibility serves.
    let least = least.max(ptx.and_then(|ptx| ptx.version.first_cuda()).unwrap_or(least));
    let (refused, release) = rows.find(|&(cuda, release)| cuda >= least && !admitted(cuda, release))?;
    let (_, first) = rows.find(|&(cuda, release)| admitted(cuda, release))?;
    Some(
        Finding::info(Code::DriverFloor, conditions.variable)
            .observed(conditions.shown())
            .required(required())
            .message(format!(
                "{} refuses drivers before {first}, but for GPUs that it names; the image's libraries run from {release} (CUDA \
                 {refused}) on",
                conditions.variable
            ))
            .hint(format!(
                "to let such nodes in, set it in the Dockerfile: ENV NVIDIA_REQUIRE_CUDA=\"cuda>={refused}\""
            )),
    )
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
    let Some(floor) = Floor::of(&facts.image, stack).filter(|floor| !floor.is_guess) else {
        // The manifest's check has said it, where there is one.
        let is_said = |f: &Finding| matches!(f.code, Code::DriverTooOld | Code::DriverMinorCompat);
        let by = forward::by_forward(serves, facts).filter(|_| !said.iter().any(is_said))?;
        return Some(
            Finding::pass(Code::DriverFloor, subject)
                .observed(observed)
                .message(format!("CUDA {serves} {by}")),
        );
    };
    let lacking = |severity, cuda: CudaVersion, by: &str, message: String| {
        Finding::problem_as(Code::DriverFloor, severity, subject.as_str())
            .observed(observed.as_str())
            .required(format!("CUDA {} ({by}): {}", least(cuda), drivers_of(cuda)))
            .message(message)
            .hint(format!(
                "{}; or use an image whose packages are built for CUDA {}",
                device::update_hint(Some(cuda), facts),
                serves.major
            ))
    };
    if serves < floor.least() {
        let message = format!(
            "the driver serves CUDA {serves}, and {} is built for CUDA {}: its first call of CUDA would fail with error 35",
            floor.by, floor.cuda
        );
        return Some(lacking(
            Code::DriverFloor.severity(),
            floor.cuda,
            &floor.by,
            message,
        ));
    }
    if let Some((cuda, path)) = floor.beside.filter(|(cuda, _)| serves < least(*cuda)) {
        let message = format!(
            "the driver serves {} and not {path}, which is of CUDA {cuda}: what uses that library fails with error 35",
            floor.by
        );
        return Some(lacking(Severity::Warn, cuda, path, message));
    }
    let how = match forward::by_forward(serves, facts) {
        Some(by) => format!("CUDA {serves} {by}"),
        None if serves < floor.cuda => format!(
            "CUDA {} runs on this driver by minor version compatibility",
            floor.cuda
        ),
        None => "the driver serves what the image's libraries are built for".to_string(),
    };
    Some(
        Finding::pass(Code::DriverFloor, subject)
            .observed(observed)
            .required(format!("CUDA {} ({})", floor.least(), floor.by))
            .message(how),
    )
}
