//! The list of architectures: what every package serves, as the image stage and the architecture stage judge it.

use std::collections::BTreeMap;

use crate::arch::ArchList;
use crate::checks::kernels::{self, Package, Served};
use crate::facts::kernels::{CodeKind, Variant};
use crate::facts::{ComputeCapability, ImageFacts, ModuleKernels};
use crate::order;
use crate::text::verb;

/// The architectures of data-centre and desktop GPUs from Kepler to Blackwell: what a captured list may hold. A GPU whose
/// own capability is not on the list is accepted with a warning at most, so that each one is named. Those of Jetson boards
/// (7.2, 8.7, 11.0) do not exist in x86-64 machines.
///
/// Source: <https://developer.nvidia.com/cuda-gpus>, <https://developer.nvidia.com/cuda-legacy-gpus>.
#[cfg(target_arch = "x86_64")]
pub(super) const KNOWN: &str = "3.5;3.7;5.0;5.2;6.0;6.1;7.0;7.5;8.0;8.6;8.9;9.0;10.0;10.3;12.0;12.1";
/// The same, and those of Jetson boards.
#[cfg(target_arch = "aarch64")]
pub(super) const KNOWN: &str =
    "3.5;3.7;5.0;5.2;6.0;6.1;7.0;7.2;7.5;8.0;8.6;8.7;8.9;9.0;10.0;10.3;11.0;12.0;12.1";

/// A GPU newer than every known one: what runs on it is PTX.
const FUTURE: ComputeCapability = ComputeCapability { major: 99, minor: 9 };

/// The list. `+PTX` stands where a package serves an architecture by PTX alone, which such an entry allows, and at the
/// last one where all packages have PTX for GPUs that are newer.
pub(super) fn list(image: &ImageFacts, notes: &mut Vec<String>) -> Option<ArchList> {
    let packages = kernels::packages(&image.kernels, &image.python.site_packages);
    if packages.is_empty() {
        notes.push("archs is left out: no library holds kernels".to_string());
        return None;
    }
    let mut entries: Vec<String> = Vec::new();
    let mut left_out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cc in candidates(&image.kernels) {
        let mut lacking = Vec::new();
        let (mut served, mut by_ptx) = (false, false);
        for package in &packages {
            match package.on(cc, None) {
                Served::Yes { by, .. } => {
                    served = true;
                    by_ptx |= by == CodeKind::Ptx;
                }
                // It is for newer GPUs alone, and no check expects it to serve this one.
                Served::Unneeded => {}
                Served::No { .. } => lacking.push(package.name.unwrap_or(&package.title)),
            }
        }
        // torch comes library by library.
        lacking.dedup();
        match (served, lacking.is_empty()) {
            (true, true) => entries.push(format!("{cc}{}", if by_ptx { "+PTX" } else { "" })),
            // What no package serves is not missed.
            (true, false) => left_out
                .entry(lacking.join(", "))
                .or_default()
                .push(cc.to_string()),
            (false, _) => {}
        }
    }
    for (names, archs) in &left_out {
        let verb = verb(names.split(", ").count(), "has", "have");
        notes.push(format!(
            "archs does not list {}, for which {names} {verb} no code",
            archs.join(", ")
        ));
    }
    if entries.is_empty() {
        notes.push(
            "archs is left out: no architecture is supported by every package with kernels".to_string(),
        );
        return None;
    }
    let compiles = |package: &Package<'_>| matches!(package.on(FUTURE, None), Served::Yes { .. });
    if packages.iter().all(compiles)
        && let Some(last) = entries.last_mut()
        && !last.ends_with("+PTX")
    {
        last.push_str("+PTX");
    }
    entries.join(";").parse().ok()
}

/// Known architectures, and those of code that is for newer ones.
fn candidates(modules: &[ModuleKernels]) -> Vec<ComputeCapability> {
    let known: Option<ArchList> = KNOWN.parse().ok();
    let mut all: Vec<ComputeCapability> = known.iter().flatten().map(|arch| arch.capability).collect();
    let newest = all.last().copied();
    let targets = modules.iter().flat_map(|module| module.sass.keys());
    all.extend(
        targets
            .filter(|target| target.variant == Variant::Plain && Some(target.capability) > newest)
            .map(|target| target.capability),
    );
    order::sort(&mut all);
    all.dedup();
    all
}

#[cfg(test)]
mod tests;
