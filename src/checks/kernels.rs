//! Packages with CUDA code, and what of each a device can use. Pure.
//!
//! Wheels ship alternatives: a library for each CUDA version, of which the one for torch's is loaded; a library for each
//! family of GPUs; operators that only some GPUs have. Which of them a package loads is its own Python's business, so
//! that a package is refused where nothing of it can run, and what single libraries lack is a note. torch is the
//! exception: it loads all of its own libraries, and each has to serve.

use std::collections::BTreeMap;

use crate::facts::kernels::{CodeKind, Target, Variant};
use crate::facts::{ComputeCapability, ModuleKernels, PtxVersion};
use crate::text::counted;

/// The package of which each library is needed.
const ALL_NEEDED: &str = "torch";

/// The libraries with kernels of one distribution in one folder of `sys.path`; where no distribution is known to have
/// brought them, those of one folder in it, or one file. Of torch, one library.
pub(crate) struct Package<'a> {
    /// the distribution's normalised name
    pub(crate) name: Option<&'a str>,
    /// the distribution, or the folder or file below site-packages
    pub(crate) title: String,
    /// at least one, in the order of their paths
    pub(crate) modules: Vec<&'a ModuleKernels>,
}

/// What of a package a device can use.
pub(crate) enum Served<'a> {
    /// one library at least
    Yes {
        /// SASS in any of them, else PTX
        by: CodeKind,
        /// libraries without code for the device
        lacking: Vec<&'a ModuleKernels>,
        /// the greater part of it lacks code, see [`Package::on`]
        mostly_lacking: bool,
    },
    /// nothing runs, and nothing says that it should: each library is for one newer GPU or family, and chosen where that
    /// GPU is there
    Unneeded,
    /// nothing
    No {
        /// the oldest PTX for the device, where that is what there is, and too new for the driver
        too_new: Option<PtxVersion>,
    },
}

/// The packages in `kernels`, without NVIDIA's own libraries, damaged ones, and those without kernels.
pub(crate) fn packages<'a>(kernels: &'a [ModuleKernels], site_packages: &[String]) -> Vec<Package<'a>> {
    let mut packages: Vec<(usize, Package<'a>)> = Vec::new();
    for module in kernels {
        if module.vendor || module.error.is_some() || module.with_kernels == 0 {
            continue;
        }
        let (folder, below) = below(&module.path, site_packages);
        let name = module.package.as_deref();
        let title = match (name, below.split_once('/')) {
            // By itself.
            _ if module.named => module.path.clone(),
            (Some(ALL_NEEDED), _) => format!("{ALL_NEEDED} ({below})"),
            (Some(name), _) => name.to_string(),
            // A path that lies elsewhere begins with a slash.
            (None, Some((top, _))) if !top.is_empty() => top.to_string(),
            (None, _) => below.to_string(),
        };
        let same = |known: &&mut (usize, Package<'a>)| known.0 == folder && known.1.title == title;
        match packages.iter_mut().find(same) {
            Some((_, package)) => package.modules.push(module),
            None => {
                let modules = vec![module];
                packages.push((folder, Package { name, title, modules }));
            }
        }
    }
    packages.into_iter().map(|(_, package)| package).collect()
}

/// Which folder of `sys.path` a path lies in, and the path below it; the whole path where it lies in none.
pub(crate) fn below<'p>(path: &'p str, site_packages: &[String]) -> (usize, &'p str) {
    site_packages
        .iter()
        .enumerate()
        .filter_map(|(index, folder)| Some((index, path.strip_prefix(folder.as_str())?.strip_prefix('/')?)))
        .min_by_key(|(_, rest)| rest.len())
        .unwrap_or((site_packages.len(), path))
}

impl<'a> Package<'a> {
    /// Whether the manifest's `libraries` name it.
    pub(crate) fn is_named(&self) -> bool {
        self.modules.iter().any(|module| module.named)
    }

    /// What a device of this capability can use, with a driver that compiles PTX up to `newest`.
    ///
    /// Its greater part lacks code where the libraries without any hold more fat binaries with kernels than those that
    /// serve the device. Not counted are what is an alternative by its nature: code of `a` and `f` variants alone, which
    /// is never meant for more than a few GPUs, and a library for another CUDA version of one that serves.
    pub(crate) fn on(&self, device: ComputeCapability, newest: Option<PtxVersion>) -> Served<'a> {
        let (mut by, mut too_new) = (None, None);
        let mut lacking = Vec::new();
        let mut serving = Vec::new();
        for &module in &self.modules {
            match module.serves_with(device, newest) {
                Ok(kind) => {
                    serving.push(module);
                    if by != Some(CodeKind::Sass) {
                        by = Some(kind);
                    }
                }
                Err(oldest) => {
                    lacking.push(module);
                    too_new = [too_new, oldest].into_iter().flatten().min();
                }
            }
        }
        let Some(by) = by else {
            return match too_new.is_none() && self.is_for_single_gpus_after(device) {
                true => Served::Unneeded,
                false => Served::No { too_new },
            };
        };
        let size = |modules: &[&ModuleKernels]| modules.iter().map(|m| m.with_kernels).sum::<u64>();
        let counted: Vec<&ModuleKernels> = lacking
            .iter()
            .copied()
            .filter(|m| !is_variant_alone(m) && !serving.iter().any(|s| is_other_cuda(m, s)))
            .collect();
        Served::Yes {
            by,
            mostly_lacking: size(&counted) > size(&serving),
            lacking,
        }
    }

    /// The title, and of a single library its file's name.
    pub(crate) fn label(&self) -> String {
        match (self.name, self.modules.as_slice()) {
            (Some(name), [only]) if name == self.title => format!("{name} ({})", file_of(only)),
            _ => self.title.clone(),
        }
    }

    /// Two libraries and more, each with SASS for one GPU or family alone, of at least two, all of them newer than the
    /// device; and one says by an `a` or `f` that it could be for no other. They came with those GPUs, and what the
    /// package does on older ones it does without them. An extension that was compiled for the builder's own GPU, or
    /// before the device's time, is none of this.
    fn is_for_single_gpus_after(&self, device: ComputeCapability) -> bool {
        let gpus = || {
            let targets = self.modules.iter().flat_map(|m| m.sass.keys());
            targets.map(|target| target.capability)
        };
        let single = |m: &&ModuleKernels| is_variant_alone(m) || m.sass.len() == 1;
        self.modules.iter().all(single)
            && self.modules.len() > 1
            && self.modules.iter().any(|m| is_variant_alone(m))
            && gpus().min().is_some_and(|oldest| oldest > device)
            && gpus().min() != gpus().max()
    }
}

fn file_of(module: &ModuleKernels) -> &str {
    module.path.rsplit('/').next().unwrap_or(&module.path)
}

/// Whether it holds nothing but code of `a` and `f` variants.
fn is_variant_alone(module: &ModuleKernels) -> bool {
    let mut targets = module.sass.keys().chain(module.ptx.keys());
    targets.all(|target| target.variant != Variant::Plain)
}

/// `libbitsandbytes_cuda118.so` beside `libbitsandbytes_cuda124.so`: of two libraries whose names only differ in the
/// CUDA version, a process loads one.
fn is_other_cuda(one: &ModuleKernels, other: &ModuleKernels) -> bool {
    match (without_cuda(&one.path), without_cuda(&other.path)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// A path without the digits that follow `cu` or `cuda` in the file's name.
fn without_cuda(path: &str) -> Option<(&str, &str)> {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    let (at, mark) = path.get(name..)?.rmatch_indices("cu").next()?;
    let from = name + at + mark.len();
    let rest = path.get(from..)?;
    let rest = rest.strip_prefix("da").unwrap_or(rest);
    let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    (behind.len() < rest.len()).then_some((path.get(..from)?, behind))
}

/// What libraries have together, in one line: `SASS 8.0 9.0, PTX 9.0 (ISA 8.4) in 363 of 606 fatbins`.
pub(crate) fn code_of(modules: &[&ModuleKernels]) -> String {
    let isa = modules
        .iter()
        .flat_map(|m| m.ptx_isa.iter().map(|isa| isa.version));
    let isa = match texts(isa) {
        versions if versions.is_empty() => String::new(),
        versions => format!(" (ISA {versions})"),
    };
    let targets = |kind: &str, of: fn(&ModuleKernels) -> &BTreeMap<Target, u64>| match texts(
        modules.iter().flat_map(|m| of(m).keys().copied()),
    ) {
        targets if targets.is_empty() => format!("no {kind}"),
        targets => format!("{kind} {targets}"),
    };
    let place = match modules.len() {
        0 | 1 => String::new(),
        count => format!(" in {count} libraries"),
    };
    format!(
        "{}, {}{isa} in {} with kernels of {}{place}",
        targets("SASS", |module| &module.sass),
        targets("PTX", |module| &module.ptx),
        counted(modules.iter().map(|m| m.with_kernels).sum::<u64>(), "fatbin"),
        modules.iter().map(|m| m.fatbins).sum::<u64>(),
    )
}

/// Each once, in order.
fn texts<T: Ord + ToString>(items: impl Iterator<Item = T>) -> String {
    let mut once: Vec<T> = Vec::new();
    for item in items {
        if let Err(at) = once.binary_search(&item) {
            once.insert(at, item);
        }
    }
    let texts: Vec<String> = once.iter().map(ToString::to_string).collect();
    texts.join(" ")
}

/// `_C.abi3.so (8.0 8.6)`: the names of libraries, with what each has SASS for.
pub(crate) fn named(modules: &[&ModuleKernels], most: usize) -> String {
    let shown: Vec<String> = modules
        .iter()
        .take(most)
        .map(|module| {
            let file = file_of(module);
            let kind = match module.sass.is_empty() {
                true => format!("PTX {}", texts(module.ptx.keys().copied())),
                false => texts(module.sass.keys().copied()),
            };
            format!("{file} ({kind})")
        })
        .collect();
    let shown = shown.join(", ");
    match modules.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
