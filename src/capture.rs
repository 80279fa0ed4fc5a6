//! `stack capture`: a manifest made from the environment that is there, for an image that works to be kept as it is.
//!
//! Pure: the facts come from the same reading that `check --stage image` does, with a manifest that asks for every
//! version ([`probe`]). What it writes passes that check in the same environment, unless something fails there whatever
//! a manifest says (a damaged library, two builds of one package): the caller runs the check to tell.

use std::collections::{BTreeMap, BTreeSet};

use pep440_rs::{Version, VersionSpecifiers};

use crate::arch::ArchList;
use crate::discover::files::printable;
use crate::discover::modules::untagged;
use crate::facts::kernels::CodeKind;
use crate::facts::{
    ComputeCapability, CudaVersion, Distribution, Facts, LibraryKind, LibraryOrigin, ModuleKernels,
};
use crate::stack::{CudaRule, CudaRules, PackageRule, Stack, StackError};

/// The name of a captured stack.
const NAME: &str = "captured";

/// Data-centre and desktop architectures from Volta to Blackwell: what a captured list may hold. Others (7.2, 8.7,
/// 11.0 of Jetson boards) are no x86-64 machine's.
///
/// Source: <https://developer.nvidia.com/cuda-gpus>.
const KNOWN_ARCHS: &str = "7.0;7.5;8.0;8.6;8.9;9.0;10.0;12.0";

/// The variables that keep spconv and cumm from compiling at import.
const JIT_VARIABLES: [&str; 2] = ["CUMM_DISABLE_JIT", "SPCONV_DISABLE_JIT"];

/// A manifest that accepts every version of what capturing looks at, and the architectures to count.
///
/// # Errors
/// None in a tested build.
pub fn probe() -> Result<Stack, StackError> {
    Stack::parse(&format!(
        r#"{{"schema": 1, "name": "{NAME}", "cuda": {{"runtime": "*", "nvrtc": "*"}}, "archs": "{KNOWN_ARCHS}"}}"#
    ))
}

/// What was made of an environment.
#[derive(Clone, PartialEq, Debug)]
pub struct Captured {
    /// the manifest
    pub stack: Stack,
    /// what was left out of it, and why; a sentence each, without control characters
    pub notes: Vec<String>,
}

/// Makes a manifest of the facts that were gathered with [`probe`]. `variables` is the environment.
///
/// # Errors
/// A sentence and a hint, where there is nothing of CUDA to capture.
pub fn manifest(facts: &Facts, variables: &BTreeMap<String, String>) -> Result<Captured, (String, String)> {
    let mut notes = Vec::new();
    let runtime = common_version(facts, LibraryKind::Cudart, &mut notes);
    let nvrtc = common_version(facts, LibraryKind::Nvrtc, &mut notes);
    let packages = packages(facts, &mut notes);
    if runtime.is_none() && nvrtc.is_none() && packages.is_empty() {
        return Err(nothing(facts, &notes));
    }
    let stack = Stack {
        name: NAME.to_string(),
        cuda: CudaRules {
            runtime: runtime.map(CudaRule::exactly),
            nvrtc: nvrtc.map(CudaRule::exactly),
            driver: runtime.map(CudaRule::at_least),
        },
        archs: archs(facts, &mut notes),
        env: jit_variables(facts, variables),
        python: python(facts, &mut notes),
        packages,
        ..Stack::default()
    };
    Ok(Captured {
        stack,
        notes: notes.iter().map(|note| printable(note, 1_000)).collect(),
    })
}

fn nothing(facts: &Facts, notes: &[String]) -> (String, String) {
    let python = &facts.image.python;
    let place = match (&python.prefix, &python.interpreter) {
        (Some(place), _) | (None, Some(place)) => format!(" in {place}"),
        (None, None) => String::new(),
    };
    let mut message = format!("there is nothing of CUDA to capture{place}");
    if python.site_packages.is_empty() {
        message.push_str(": no Python environment was found");
    }
    for note in notes {
        message.push_str("; ");
        message.push_str(note);
    }
    let mut hint =
        "name the environment: cuda-entrypoint stack capture --python PATH, or the service's command after --"
            .to_string();
    if python.site_packages.is_empty() && !python.tried.is_empty() {
        hint.push_str(&format!(". Looked at: {}", python.tried.join("; ")));
    }
    (printable(&message, 1_000), printable(&hint, 2_000))
}

/// The version that every copy answers which `cudart-version` and `nvrtc-version` would judge.
fn common_version(facts: &Facts, kind: LibraryKind, notes: &mut Vec<String>) -> Option<CudaVersion> {
    let (key, name) = match kind {
        LibraryKind::Cudart => ("runtime", "libcudart"),
        LibraryKind::Nvrtc => ("nvrtc", "libnvrtc"),
    };
    let mut versions: BTreeMap<CudaVersion, &str> = BTreeMap::new();
    let copies = facts.image.libraries.iter();
    for copy in copies.filter(|l| l.kind == kind && l.origin != LibraryOrigin::Toolkit) {
        match copy.answer.as_ref().and_then(|answer| answer.version) {
            Some(version) => drop(versions.insert(version, copy.path.as_str())),
            // The loader is asked for every major that there ever was.
            None if copy.origin == LibraryOrigin::Loader => {}
            None => notes.push(format!("{} did not say its version", copy.path)),
        }
    }
    if versions.len() > 1 {
        let shown: Vec<String> = versions
            .iter()
            .map(|(version, path)| format!("{version} ({path})"))
            .collect();
        notes.push(format!(
            "cuda.{key} is left out: the copies of {name} are of {}",
            shown.join(", ")
        ));
        return None;
    }
    versions.into_keys().next()
}

/// Whether a distribution belongs to a CUDA stack by its name alone.
fn belongs(name: &str) -> bool {
    const FAMILY: [&str; 9] = [
        "torch",
        "torchvision",
        "torchaudio",
        "torchtext",
        "triton",
        "mmcv",
        "mmcv-full",
        "spconv",
        "cumm",
    ];
    FAMILY.contains(&name)
        || name.starts_with("torch-")
        || untagged(name).is_some_and(|stem| FAMILY.contains(&stem) || stem.starts_with("nvidia-"))
}

fn packages(facts: &Facts, notes: &mut Vec<String>) -> Vec<PackageRule> {
    let image = &facts.image;
    let with_code: BTreeSet<&str> = image
        .kernels
        .iter()
        .filter_map(|m| m.package.as_deref())
        .collect();
    // What an import finds is the first of each name.
    let mut installed: BTreeMap<&str, &Distribution> = BTreeMap::new();
    for dist in &image.distributions {
        installed.entry(&dist.name).or_insert(dist);
    }
    installed
        .values()
        .filter(|dist| belongs(&dist.name) || with_code.contains(dist.name.as_str()))
        .filter_map(|dist| {
            let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
            let mut bytes = dist.name.bytes();
            if !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-')
                || !ends(dist.name.bytes().next())
                || !ends(dist.name.bytes().last())
            {
                notes.push(format!(
                    "{} is left out: its name is none that a manifest can hold",
                    dist.path
                ));
                return None;
            }
            let pinned =
                stated(dist).and_then(|version| format!("=={version}").parse::<VersionSpecifiers>().ok());
            if pinned.is_none() {
                notes.push(format!(
                    "{} is not pinned: its version {:?} is none of PEP 440",
                    dist.name, dist.version
                ));
            }
            Some(PackageRule::new(dist.name.clone(), pinned))
        })
        .collect()
}

/// The most exact version that it states: PyPI's torch has `2.5.0` in its metadata and `2.5.0+cu124` in its module.
fn stated(dist: &Distribution) -> Option<Version> {
    let metadata: Option<Version> = dist.version.parse().ok();
    let module: Option<Version> = dist.module_version.as_ref().and_then(|text| text.parse().ok());
    match (metadata, module) {
        (Some(metadata), Some(module))
            if !metadata.is_local() && module.clone().without_local() == metadata =>
        {
            Some(module)
        }
        (metadata, _) => metadata,
    }
}

/// The known architectures that every library with kernels serves by SASS.
fn archs(facts: &Facts, notes: &mut Vec<String>) -> Option<ArchList> {
    let judged = |m: &&ModuleKernels| !m.vendor && m.error.is_none() && m.with_kernels > 0;
    let modules: Vec<&ModuleKernels> = facts.image.kernels.iter().filter(judged).collect();
    if modules.is_empty() {
        notes.push("archs is left out: no library holds kernels".to_string());
        return None;
    }
    let known: ArchList = KNOWN_ARCHS.parse().ok()?;
    let by_sass = |module: &&ModuleKernels, cc: ComputeCapability| module.serves(cc) == Some(CodeKind::Sass);
    let served: Vec<String> = known
        .iter()
        .map(|arch| arch.capability)
        .filter(|&cc| modules.iter().all(|module| by_sass(module, cc)))
        .map(|cc| cc.to_string())
        .collect();
    if served.is_empty() {
        notes.push(format!(
            "archs is left out: no architecture of {KNOWN_ARCHS} is served by all libraries"
        ));
    }
    served.join(";").parse().ok()
}

/// `>=3.11,<3.12` of 3.11.7. A version asks for an interpreter as well, so that without one there is none.
fn python(facts: &Facts, notes: &mut Vec<String>) -> Option<VersionSpecifiers> {
    let python = &facts.image.python;
    let known = python.interpreter.as_ref().and(python.version.as_deref());
    let parsed = known.and_then(|text| {
        let version: Version = text.parse().ok()?;
        let (&major, &minor) = (version.release().first()?, version.release().get(1)?);
        format!(">={major}.{minor},<{major}.{}", minor.checked_add(1)?)
            .parse()
            .ok()
    });
    if parsed.is_none() && !python.site_packages.is_empty() {
        notes.push("python is left out: there is no interpreter, or no file tells its version".to_string());
    }
    parsed
}

/// Both variables where spconv or cumm is there, since without them an import may compile; else what is set.
fn jit_variables(facts: &Facts, variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let compiles = |dist: &Distribution| {
        let stem = untagged(&dist.name).unwrap_or(&dist.name);
        stem == "spconv" || stem == "cumm"
    };
    let needed = facts.image.distributions.iter().any(compiles);
    JIT_VARIABLES
        .iter()
        .filter_map(|&name| {
            let value = match needed {
                true => "1".to_string(),
                false => variables.get(name)?.clone(),
            };
            Some((name.to_string(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests;
