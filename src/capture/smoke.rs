//! The entries of the smoke: the built-in ones, and an import of each package with kernels that has none.

use super::packages::installed;
use crate::checks::kernels;
use crate::facts::native::NativeExtent;
use crate::facts::{Distribution, ImageFacts};
use crate::order;
use crate::packages::{self, PACKAGES, Package};
use crate::stack::{Builtin, SmokeEntry};

/// Packages that refuse to be imported where the container has no video libraries of the driver
/// (`NVIDIA_DRIVER_CAPABILITIES=video`). Images that bring them for a single feature start without.
const NEED_VIDEO: [&str; 1] = ["pynvvideocodec"];

/// Most modules that one entry imports.
const MAX_IMPORTS: usize = 4;

/// The entries, those that are built in first, in the order of the documentation. `imports` names the modules by which a
/// distribution is imported.
pub(super) fn entries(
    image: &ImageFacts,
    imports: &dyn Fn(&Distribution) -> Vec<String>,
    notes: &mut Vec<String>,
) -> Vec<SmokeEntry> {
    let installed = installed(image);
    let mut with_kernels: Vec<&Distribution> = Vec::new();
    for package in kernels::packages(&image.kernels, &image.python.site_packages) {
        let dist = package.name.and_then(|name| installed.get(name));
        with_kernels.extend(dist.filter(|dist| with_kernels.iter().all(|known| known.name != dist.name)));
    }
    order::sort_by(&mut with_kernels, |a, b| a.name.cmp(&b.name));
    // conda keeps torch's libraries beside those of the system, where no folder says whose they are.
    let is_for_cuda = |dist: &Distribution| {
        let torch = dist.name == "torch" && dist.module_cuda.is_some();
        torch || with_kernels.iter().any(|known| known.name == dist.name)
    };
    let row = |dist: &Distribution| {
        let of_its_kernels = |package: &&Package| package.kernels_in.contains(&dist.name.as_str());
        let package = packages::of(&dist.name).or_else(|| PACKAGES.iter().find(of_its_kernels))?;
        package.smoke.get()
    };
    let builtins = Builtin::all().filter(|builtin| {
        let mut all = installed.values();
        all.any(|dist| row(dist).is_some_and(|proof| proof.entry == builtin.name()) && is_for_cuda(dist))
    });
    let mut entries: Vec<SmokeEntry> = builtins.map(SmokeEntry::Builtin).collect();
    if !image.named_libraries.is_empty() {
        // A program's kernels have no import by which they could be tried.
        entries.insert(0, SmokeEntry::Native(NativeExtent::Sample));
    }
    if image.python.interpreter.is_none() {
        let is_python = |entry: &SmokeEntry| !matches!(entry, SmokeEntry::Native(_));
        if entries.iter().any(is_python) || !with_kernels.is_empty() {
            notes.push("smoke is left out: there is no interpreter to run it with".to_string());
        }
        entries.retain(|entry| matches!(entry, SmokeEntry::Native(_)));
        return entries;
    }
    for dist in with_kernels.iter().filter(|dist| row(dist).is_none()) {
        if NEED_VIDEO.contains(&dist.name.as_str()) {
            notes.push(format!(
                "{} has no smoke entry: its import fails without the driver's video libraries",
                dist.name
            ));
            continue;
        }
        let modules: Vec<String> = imports(dist).into_iter().take(MAX_IMPORTS).collect();
        if modules.is_empty() || !modules.iter().all(|name| is_module(name)) {
            notes.push(format!(
                "{} has no smoke entry: its files do not say by which name it is imported",
                dist.name
            ));
            continue;
        }
        // The interpreter that is judged, wherever the image has it.
        let mut argv = vec!["python".to_string()];
        argv.extend(image.python.options.iter().cloned());
        argv.extend(["-c".to_string(), format!("import {}", modules.join(", "))]);
        entries.push(SmokeEntry::Command {
            name: dist.name.clone(),
            argv,
            timeout: None,
            gpu: true,
        });
    }
    entries.retain(|entry| {
        let is_valid = crate::stack::check_name(entry.name()).is_ok();
        is_valid || matches!(entry, SmokeEntry::Builtin(_) | SmokeEntry::Native(_))
    });
    entries
}

/// `a.b_c`: what may stand behind `import`.
fn is_module(name: &str) -> bool {
    name.len() <= 200
        && name.split('.').all(|part| {
            let starts = part
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            starts && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}
