//! The packages of the CUDA stack, and the versions that they are pinned to.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::{Version, VersionSpecifiers};

use crate::facts::{Distribution, ImageFacts};
use crate::order;
use crate::packages::{self, untagged};
use crate::stack::PackageRule;
use crate::text::counted;

/// Distributions of NVIDIA's that say nothing of the CUDA beside them: bindings of NVML, and a search for libraries.
const ANY_CUDA: [&str; 2] = ["nvidia-ml-py", "cuda-pathfinder"];

/// Whether a distribution is made for CUDA by its name alone. Since CUDA 13 NVIDIA's wheels have no `-cuNN` any more;
/// `cuda-toolkit`, `cuda-bindings` and `cuda-python` never had one.
pub(super) fn is_of_cuda(name: &str) -> bool {
    let by_nvidia = name.starts_with("nvidia-") || name.starts_with("cuda-");
    (by_nvidia && !ANY_CUDA.contains(&name))
        || untagged(name).is_some()
        || name.starts_with("jax-cuda")
        || name == "tensorrt"
        || name.starts_with("tensorrt-")
}

/// Whether a distribution belongs to a CUDA stack by its name alone.
pub(super) fn belongs(name: &str) -> bool {
    is_of_cuda(name)
        || packages::of(name).is_some_and(|package| package.family)
        || name.starts_with("torch-")
        || matches!(name, "jax" | "jaxlib")
}

/// What an import finds is the first of each name.
pub(super) fn installed(image: &ImageFacts) -> BTreeMap<&str, &Distribution> {
    let mut installed = BTreeMap::new();
    for dist in &image.distributions {
        installed.entry(dist.name.as_str()).or_insert(dist);
    }
    installed
}

/// The packages whose libraries hold CUDA code.
fn with_code(image: &ImageFacts) -> BTreeSet<&str> {
    order::set(image.kernels.iter().filter_map(|m| m.package.as_deref()))
}

fn is_of_stack(dist: &Distribution, with_code: &BTreeSet<&str>) -> bool {
    belongs(&dist.name) || with_code.contains(dist.name.as_str())
}

/// A rule for each of them.
pub(super) fn rules(image: &ImageFacts, notes: &mut Vec<String>) -> Vec<PackageRule> {
    let with_code = with_code(image);
    installed(image)
        .values()
        .filter(|dist| is_of_stack(dist, &with_code))
        .filter_map(|dist| rule(dist, notes))
        .collect()
}

/// Most packages outside of the stack that are named.
const MAX_OTHERS: usize = 12;

/// That the packages outside of the CUDA stack are left out.
pub(super) fn of_others(image: &ImageFacts) -> Option<String> {
    let with_code = with_code(image);
    let others: Vec<&str> = installed(image)
        .values()
        .filter(|dist| !is_of_stack(dist, &with_code))
        .map(|dist| dist.name.as_str())
        .collect();
    let shown = others
        .iter()
        .take(MAX_OTHERS)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let are = match others.len() {
        0 => return None,
        1 => "is",
        _ => "are",
    };
    let more = match others.len().saturating_sub(MAX_OTHERS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "`packages` omits {} that {are} not part of the CUDA stack: {shown}{more}",
        counted(others.len(), "package")
    ))
}

fn rule(dist: &Distribution, notes: &mut Vec<String>) -> Option<PackageRule> {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let mut bytes = dist.name.bytes();
    if !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-')
        || !ends(dist.name.bytes().next())
        || !ends(dist.name.bytes().last())
    {
        notes.push(format!(
            "{} is left out: its name is not valid in a manifest",
            dist.path
        ));
        return None;
    }
    // The metadata's version is what pip can install: PyPI's torch is 2.5.0 there, and 2.5.0+cu124 in its module. Which
    // CUDA it is built for is `package-cuda-tag`'s to judge.
    let version = dist.version.parse::<Version>().ok();
    let pinned = version.and_then(|version| format!("=={version}").parse::<VersionSpecifiers>().ok());
    if pinned.is_none() {
        notes.push(format!(
            "{} is not pinned: its version {:?} is not a PEP 440 version",
            dist.name, dist.version
        ));
    }
    Some(PackageRule::new(dist.name.clone(), pinned))
}
