//! Forward compatibility: a libcuda of the image that is newer than the kernel's driver. Pure.
//!
//! Source: CUDA Compatibility, "Forward Compatibility": on data centre GPUs and some of workstations a newer libcuda works
//! over an older kernel driver, of the branches that its release supports. Over another driver, a newer one as well, cuInit
//! returns 803, on another GPU 804.

use crate::check::{Code, Finding, Severity, Stage};
use crate::cuda_errors;
use crate::facts::{CallError, Compat, CudaVersion, Facts};

use super::image::listed;

#[cfg(test)]
mod tests;

/// Both errors by their numbers.
const DRIVER_MISMATCH: i32 = 803;
const NOT_ON_THIS_DEVICE: i32 = 804;

/// `serves CUDA 13.0`, and by what where that is not the kernel's driver alone.
pub(super) fn served(version: CudaVersion, facts: &Facts) -> String {
    let by = by_forward(version, facts).map_or_else(String::new, |by| format!(" {by}"));
    format!("supports CUDA {version}{by}")
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

/// The CUDA that a library serves: its note's, else that of its release.
fn cuda_of(library: &Compat) -> Option<CudaVersion> {
    let own = library.release.as_deref().and_then(cuda_errors::branch);
    let row = || cuda_errors::drivers().find(|(_, first)| own.is_some() && cuda_errors::branch(first) == own);
    library.cuda.or_else(|| Some(row()?.0))
}

/// `libcuda for CUDA 13.0 (/usr/local/cuda-13.0/compat/libcuda.so.580.65.06)`
fn named(library: &Compat) -> String {
    let cuda = cuda_of(library).map_or_else(String::new, |cuda| format!(" for CUDA {cuda}"));
    format!("libcuda{cuda} ({})", library.path.as_deref().unwrap_or_default())
}

/// `535, 550, 570`
fn branches<'a>(drivers: impl Iterator<Item = &'a u32>) -> String {
    listed(&drivers.map(ToString::to_string).collect::<Vec<_>>(), 16)
}

/// Which error a library ends in on this machine, by its note, and why.
fn refusal(library: &Compat, facts: &Facts) -> Option<(i32, String)> {
    let release = release(facts)?;
    let kernel = cuda_errors::branch(release)?;
    // Of the branch that it belongs to, it is the driver's own.
    let own = library.release.as_deref().and_then(cuda_errors::branch);
    if own != Some(kernel) && library.refuses_driver(kernel) {
        let named = branches(library.drivers.iter());
        return Some((
            DRIVER_MISMATCH,
            format!("its ELF note names drivers {named}, and the kernel's is {release}"),
        ));
    }
    let mut brands = facts
        .device
        .nvml_devices
        .iter()
        .filter_map(|gpu| gpu.brand.as_deref());
    let brand = brands.find(|brand| library.refuses_brand(brand))?;
    Some((
        NOT_ON_THIS_DEVICE,
        format!("its ELF note leaves out GPUs of the brand {brand}"),
    ))
}

const OWN_HINT: &str =
    "so that the node's own libcuda is used; where that supports too little, update the node's driver";

/// An error of the compat library that returned it: what was observed beside it, message, hint. `None` where the error is
/// another one, or where the libcuda that returned it is the driver's own.
pub(super) fn explained(error: &CallError, facts: &Facts) -> Option<[String; 3]> {
    if !matches!(error.code, DRIVER_MISMATCH | NOT_ON_THIS_DEVICE) {
        return None;
    }
    let library = facts.device.compat.iter().find(|library| library.mapped)?;
    let kernel = release(facts).unwrap_or("of unknown release");
    let named = named(library);
    let why = match refusal(library, facts) {
        Some((number, why)) if number == error.code => why,
        _ => format!("it does not work over kernel driver {kernel} with these GPUs"),
    };
    Some([
        format!("; {named}; kernel driver {kernel}"),
        format!("the image's {named} does not support this machine: {why}"),
        format!(
            "take {} out of LD_LIBRARY_PATH and /etc/ld.so.conf.d, {OWN_HINT}",
            library.folder
        ),
    ])
}

/// What the image's compat libraries would do for a driver that serves too little; the end of a hint.
pub(super) fn way_out(wanted: CudaVersion, facts: &Facts) -> Option<String> {
    let serves = |one: &&Compat| !one.mapped && cuda_of(one).is_some_and(|cuda| cuda >= wanted);
    let library = facts.device.compat.iter().find(serves)?;
    let named = named(library);
    Some(match refusal(library, facts) {
        Some((number, why)) => format!("the image's {named} does not help, {why}: error {number}"),
        None => {
            let how = match library.drivers.is_empty() {
                false => "supports this driver",
                true => "may support this driver, on data centre GPUs",
            };
            format!(
                "the image's {named} {how}: put {} first in LD_LIBRARY_PATH; container toolkit 1.17.5 does that for \
                 /usr/local/cuda/compat",
                library.folder
            )
        }
    })
}

/// The libcuda that the stack's modules would get, where that is another one than was asked, and its note says that it does
/// not work here.
pub(super) fn predicted(facts: &Facts) -> Option<Finding> {
    let asked = &facts.device.driver.as_ref()?.path;
    let object = facts
        .image
        .loaded
        .iter()
        .find(|object| object.name.starts_with("libcuda.so"))?;
    let is_it = |path: &Option<String>| path.is_some() && (*path == object.path || *path == object.real);
    let library = facts.image.compat.iter().find(|library| is_it(&library.path))?;
    if is_it(asked)
        || facts
            .device
            .compat
            .iter()
            .any(|known| known.mapped && is_it(&known.path))
    {
        return None;
    }
    let (number, why) = refusal(library, facts)?;
    let named = named(library);
    Some(
        Finding::problem_as(Code::GpuNotReady, Severity::Warn, library.path.as_deref()?)
            .observed(why.as_str())
            .required("a libcuda that supports this driver and this GPU")
            .message(format!(
                "the service's modules would load {named}, where cuInit returns {number}: {why}"
            ))
            .hint(format!(
                "take {} out of the modules' RPATH, {OWN_HINT}",
                library.folder
            )),
    )
}

/// What a libcuda in front of the driver's does, said at build: it is known whom it serves, not where it will run.
pub(super) fn in_front(path: &str, compat: &[Compat]) -> String {
    let is_it = |one: &&Compat| one.path.as_deref() == Some(path) && !one.drivers.is_empty();
    let drivers = match compat.iter().find(is_it) {
        Some(library) => branches(library.drivers.iter()),
        None => "its own notes allow".to_string(),
    };
    format!("it runs on data centre GPUs alone, and with no other driver than {drivers} (errors 804, 803)")
}

/// The library that lets drivers before those for `least` serve the image, and their branches, as its note names them.
pub(super) fn below(least: CudaVersion, compat: &[Compat]) -> Option<(String, String)> {
    let first = cuda_errors::oldest_driver(|version| version >= least).and_then(cuda_errors::branch)?;
    compat.iter().find_map(|library| {
        cuda_of(library).filter(|cuda| *cuda >= least)?;
        let older = branches(library.drivers.iter().filter(|own| **own < first));
        (!older.is_empty()).then(|| (named(library), older))
    })
}

/// At build: folders of forward compatibility that do not do what they are for.
pub(super) fn of_image(compat: &[Compat]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut filled = Vec::new();
    for (at, one) in compat.iter().enumerate() {
        let here = || compat.iter().filter(|other| other.folder == one.folder);
        let is_first = compat.iter().position(|other| other.folder == one.folder) == Some(at);
        if one.path.is_none() {
            findings.push(
                Finding::info(Code::DriverFloor, one.folder.as_str())
                    .observed("no libcuda")
                    .message(
                        "this folder for forward compatibility is empty, so it supports no older driver",
                    ),
            );
        } else if is_first {
            filled.push(named(one));
            if here().count() > 1 {
                let all: Vec<String> = here().filter_map(|other| other.path.clone()).collect();
                let warning = Finding::problem_as(Code::DriverFloor, Severity::Warn, one.folder.as_str())
                    .observed(listed(&all, 4))
                    .required("one libcuda")
                    .message("this folder holds several copies of libcuda: NVIDIA's container toolkit uses none of them then")
                    .hint("keep the libraries of one cuda-compat package, and remove the others");
                findings.push(warning);
            }
        }
    }
    if filled.len() > 1 {
        findings.push(
            Finding::info(Code::DriverFloor, "forward compatibility")
                .observed(listed(&filled, 4))
                .message(
                    "several folders hold a libcuda: NVIDIA's container toolkit takes that of /usr/local/cuda/compat, and \
                     LD_LIBRARY_PATH the first that it names",
                ),
        );
    }
    for finding in &mut findings {
        finding.stage = Stage::Image;
    }
    findings
}
