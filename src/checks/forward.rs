//! Forward compatibility: a libcuda of the image that is newer than the kernel's driver. Pure.
//!
//! Source: CUDA Compatibility, "Forward Compatibility": on data centre GPUs and some of workstations a newer libcuda works
//! over an older kernel driver, of the branches that its release supports. Over another driver, a newer one as well, cuInit
//! returns 803, on another GPU 804.

use std::borrow::Cow;

use crate::check::{Code, Finding, Severity, Stage};
use crate::cuda_errors;
use crate::facts::{CallError, CompatFolder, CompatLibrary, CudaVersion, Facts, ForwardNote};

use super::image::listed;

#[cfg(test)]
mod tests;

/// Where the hook of NVIDIA's container toolkit looks for one.
const HOOKS_FOLDER: &str = "/usr/local/cuda/compat";

/// Both errors by their numbers.
const DRIVER_MISMATCH: i32 = 803;
const NOT_ON_THIS_DEVICE: i32 = 804;

/// `serves CUDA 13.0`, and by what where that is not the kernel's driver alone.
pub(super) fn served(version: CudaVersion, facts: &Facts) -> String {
    let by = by_forward(version, facts).map_or_else(String::new, |by| format!(" {by}"));
    format!("serves CUDA {version}{by}")
}

/// `by forward compatibility over driver 535.261.03`
pub(super) fn by_forward(version: CudaVersion, facts: &Facts) -> Option<String> {
    let release = release(facts)?;
    let is_forward = cuda_errors::is_forward(version, release);
    is_forward.then(|| format!("by forward compatibility over driver {release}"))
}

/// The kernel driver's release, as NVML tells it: that library is the node's own.
fn release(facts: &Facts) -> Option<&str> {
    facts.device.nvml.as_ref()?.driver_release.as_deref()
}

fn libraries(folders: &[CompatFolder]) -> impl Iterator<Item = &CompatLibrary> {
    folders.iter().flat_map(|folder| &folder.libraries)
}

/// The CUDA that a library serves: its note's, else that of its release.
fn cuda_of(library: &CompatLibrary) -> Option<CudaVersion> {
    let stated = library.note.as_ref().and_then(|note| note.cuda);
    let of_release = || {
        let own = cuda_errors::branch(library.release.as_deref()?)?;
        let mut rows = cuda_errors::drivers();
        rows.find(|(_, first)| cuda_errors::branch(first) == Some(own))
            .map(|row| row.0)
    };
    stated.or_else(of_release)
}

/// `libcuda 580.65.06 for CUDA 13.0 (/usr/local/cuda-13.0/compat/libcuda.so.580.65.06)`
fn named(library: &CompatLibrary) -> String {
    let release = library
        .release
        .as_ref()
        .map_or_else(String::new, |release| format!(" {release}"));
    let cuda = cuda_of(library).map_or_else(String::new, |cuda| format!(" for CUDA {cuda}"));
    format!("libcuda{release}{cuda} ({})", library.path)
}

fn folder_of(library: &CompatLibrary) -> &str {
    library.path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn branches(note: &ForwardNote) -> String {
    let all: Vec<String> = note.drivers.iter().map(ToString::to_string).collect();
    listed(&all, 16)
}

/// What a library's note says of this machine.
#[derive(PartialEq, Eq, Debug)]
enum Outlook {
    /// it serves the driver, and no GPU that it does not
    Works,
    /// the driver is none of its branches
    Error803,
    /// a GPU is none of its product lines
    Error804,
    /// it says nothing, or nobody knows the driver
    Unknown,
}

fn outlook(library: &CompatLibrary, facts: &Facts) -> Outlook {
    let (Some(note), Some(branch)) = (&library.note, release(facts).and_then(cuda_errors::branch)) else {
        return Outlook::Unknown;
    };
    let mut brands = facts
        .device
        .nvml_devices
        .iter()
        .filter_map(|gpu| gpu.brand.as_deref());
    // Of the branch that it belongs to, it is the driver's own.
    let is_own = library.release.as_deref().and_then(cuda_errors::branch) == Some(branch);
    match note.serves_driver(branch) {
        Some(false) if !is_own => Outlook::Error803,
        _ if brands.any(|brand| note.serves_brand(brand) == Some(false)) => Outlook::Error804,
        Some(true) => Outlook::Works,
        _ => Outlook::Unknown,
    }
}

/// The brand of a GPU that the note leaves out.
fn left_out<'a>(library: &CompatLibrary, facts: &'a Facts) -> Option<&'a str> {
    let note = library.note.as_ref()?;
    let mut brands = facts
        .device
        .nvml_devices
        .iter()
        .filter_map(|gpu| gpu.brand.as_deref());
    brands.find(|brand| note.serves_brand(brand) == Some(false))
}

/// An error of libcuda's in the words of the compat library that returned it: message, what was observed beside it, hint.
pub(super) struct Explained {
    pub(super) message: String,
    pub(super) observed: String,
    pub(super) hint: String,
}

/// `None` where the error is another one, or where the libcuda that returned it is the driver's own.
pub(super) fn explained(error: &CallError, facts: &Facts) -> Option<Explained> {
    if !matches!(error.code, DRIVER_MISMATCH | NOT_ON_THIS_DEVICE) {
        return None;
    }
    let library = libraries(&facts.device.compat).find(|library| library.mapped)?;
    let kernel = release(facts).map_or_else(|| "unknown".to_string(), ToString::to_string);
    let named = named(library);
    let folder = folder_of(library);
    let own = format!(
        "take {folder} out of LD_LIBRARY_PATH and /etc/ld.so.conf.d, so that the node's own libcuda is used"
    );
    let (message, more) = match (error.code, outlook(library, facts), &library.note) {
        (DRIVER_MISMATCH, Outlook::Error803, Some(note)) => (
            format!(
                "the image's {named} does not serve kernel driver {kernel}: its ELF note names drivers {}",
                branches(note)
            ),
            "; or move the workload to a node with one of these drivers",
        ),
        (DRIVER_MISMATCH, Outlook::Works, _) => (
            format!(
                "the image's {named} names kernel driver {kernel} in its ELF note, and does not work over it: parts of two \
                 releases are mixed, or the driver was updated under the running container"
            ),
            "; then recreate the container",
        ),
        (DRIVER_MISMATCH, ..) => (
            format!("the image's {named} does not work over kernel driver {kernel}"),
            "",
        ),
        (_, Outlook::Error804, _) => (
            format!(
                "the image's {named} does not serve this GPU ({}): forward compatibility is for GPUs of data centres, and some of \
                 workstations",
                left_out(library, facts).unwrap_or("its product line")
            ),
            "; on such GPUs the node's driver has to be new enough",
        ),
        _ => (
            format!("the image's {named} does not serve this GPU over kernel driver {kernel}"),
            "; then the node's driver has to be new enough",
        ),
    };
    Some(Explained {
        message,
        observed: format!("; {named}; kernel driver {kernel}"),
        hint: format!("{own}{more}"),
    })
}

/// What the image's compat libraries would do for a driver that serves too little; the end of a hint.
pub(super) fn way_out(wanted: CudaVersion, facts: &Facts) -> Option<String> {
    let serves =
        |library: &&CompatLibrary| !library.mapped && cuda_of(library).is_some_and(|cuda| cuda >= wanted);
    let library = libraries(&facts.device.compat).find(serves)?;
    let (named, folder) = (named(library), folder_of(library));
    let kernel = release(facts).unwrap_or("of unknown release");
    Some(match (outlook(library, facts), &library.note) {
        (Outlook::Works, _) => format!(
            "the image's {named} serves this driver by its ELF note: put {folder} first in LD_LIBRARY_PATH, or start the \
             container with container toolkit 1.17.5 or newer, which does it for {HOOKS_FOLDER}"
        ),
        (Outlook::Error803, Some(note)) => format!(
            "the image's {named} does not help: its ELF note names drivers {}, and over {kernel} it ends in error 803",
            branches(note)
        ),
        (Outlook::Error804, _) => format!(
            "the image's {named} does not help: its ELF note leaves out this GPU's product line ({}), where it ends in error 804",
            left_out(library, facts).unwrap_or("unknown")
        ),
        _ => format!(
            "the image's {named} may serve it on GPUs of data centres, with {folder} first in LD_LIBRARY_PATH"
        ),
    })
}

/// The libcuda that the stack's modules would get, where that is another one than was asked, and its note says that it does
/// not work here.
pub(super) fn predicted(facts: &Facts) -> Option<Finding> {
    let asked = facts.device.driver.as_ref()?.path.as_deref()?;
    let object = facts
        .image
        .loaded
        .iter()
        .find(|object| object.name.starts_with("libcuda.so"))?;
    let paths = || {
        [&object.path, &object.real]
            .into_iter()
            .filter_map(|path| path.as_deref())
    };
    let library = libraries(&facts.image.compat).find(|library| paths().any(|path| path == library.path))?;
    let is_mapped = |known: &CompatLibrary| known.mapped && known.path == library.path;
    if paths().any(|path| path == asked) || libraries(&facts.device.compat).any(is_mapped) {
        return None;
    }
    let (number, why) = match outlook(library, facts) {
        Outlook::Error803 => {
            let note = library.note.as_ref()?;
            let kernel = release(facts)?;
            (
                DRIVER_MISMATCH,
                format!("names drivers {}, and the kernel's is {kernel}", branches(note)),
            )
        }
        Outlook::Error804 => (
            NOT_ON_THIS_DEVICE,
            format!(
                "leaves out this GPU's product line ({})",
                left_out(library, facts)?
            ),
        ),
        Outlook::Works | Outlook::Unknown => return None,
    };
    let named = named(library);
    Some(
        Finding::problem_as(Code::GpuNotReady, Severity::Warn, library.path.as_str())
            .observed(format!("{named}; its ELF note {why}"))
            .required("a libcuda that serves this driver and this GPU")
            .message(format!(
                "the service's modules would load {named}, whose ELF note {why}: cuInit returns {number} there"
            ))
            .hint(format!(
                "take {} out of LD_LIBRARY_PATH and of the modules' RPATH, so that the node's own libcuda is used",
                folder_of(library)
            )),
    )
}

/// What a libcuda in front of the driver's does, said at build: it is known whom it serves, not where it will run.
pub(super) fn in_front(path: &str, folders: &[CompatFolder]) -> Cow<'static, str> {
    let library = libraries(folders).find(|library| library.path == path);
    let note = library
        .and_then(|library| library.note.as_ref())
        .filter(|note| !note.drivers.is_empty());
    match (library.and_then(cuda_of), note) {
        (Some(cuda), Some(note)) => Cow::Owned(format!(
            "it serves CUDA {cuda} by forward compatibility over kernel drivers {} on data centre GPUs; over any other driver, \
             newer ones as well, cuInit returns 803, and on other GPUs 804",
            branches(note)
        )),
        _ => Cow::Borrowed(
            "it runs on data centre GPUs alone, and with no older driver than its own notes allow",
        ),
    }
}

/// The library that lets drivers before `least` serve the image, and the branches of those that its note names.
pub(super) fn below(least: CudaVersion, folders: &[CompatFolder]) -> Option<(String, String)> {
    let first = cuda_errors::oldest_driver(|version| version >= least).and_then(cuda_errors::branch)?;
    libraries(folders).find_map(|library| {
        cuda_of(library).filter(|cuda| *cuda >= least)?;
        let drivers = &library.note.as_ref()?.drivers;
        let older: Vec<String> = drivers
            .iter()
            .filter(|own| **own < first)
            .map(ToString::to_string)
            .collect();
        (!older.is_empty()).then(|| (named(library), listed(&older, 16)))
    })
}

/// At build: folders of forward compatibility that do not do what they are for.
pub(super) fn of_image(folders: &[CompatFolder]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let names = |folder: &CompatFolder| -> Vec<String> {
        let names = folder
            .libraries
            .iter()
            .map(|library| library.path.rsplit('/').next().unwrap_or_default());
        names.map(str::to_string).collect()
    };
    let info = |path: &str| Finding::info(Code::DriverFloor, path);
    for folder in folders {
        let path = folder.path.as_str();
        match folder.libraries.as_slice() {
            [] => findings.push(
                info(path)
                    .observed("no libcuda in it")
                    .message(format!("{path} is for forward compatibility, and empty: older drivers are not served by it")),
            ),
            [_] => {}
            several => findings.push(
                Finding::problem_as(Code::DriverFloor, Severity::Warn, path)
                    .observed(listed(&names(folder), 4))
                    .required("one libcuda in a folder of forward compatibility")
                    .message(format!(
                        "{path} holds {} copies of libcuda: NVIDIA's container toolkit uses none of them then",
                        several.len()
                    ))
                    .hint("keep the libraries of one cuda-compat package, and remove the others"),
            ),
        }
        for library in &folder.libraries {
            if let Some(problem) = &library.problem {
                findings.push(info(&library.path).observed(problem.as_str()).message(
                    "its ELF note on forward compatibility cannot be read, so whom it serves is unknown",
                ));
            }
        }
    }
    let filled: Vec<&CompatLibrary> = folders
        .iter()
        .filter_map(|folder| folder.libraries.first())
        .collect();
    if let [first, _, ..] = filled.as_slice() {
        let all: Vec<String> = filled.iter().map(|library| named(library)).collect();
        findings.push(
            info(folder_of(first))
                .observed(listed(&all, 4))
                .message(format!(
                    "{} folders hold a libcuda for forward compatibility; NVIDIA's container toolkit takes that of {HOOKS_FOLDER}, \
                     and LD_LIBRARY_PATH the first that it names",
                    filled.len()
                )),
        );
    }
    for finding in &mut findings {
        finding.stage = Stage::Image;
    }
    findings
}
