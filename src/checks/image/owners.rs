//! `file-owner`: one library that two distributions install, and a library that is not as RECORD says.
//!
//! Wheels of one project for several CUDAs share their folder: nvidia-nccl-cu12 and nvidia-nccl-cu13 both install
//! `nvidia/nccl/lib/libnccl.so.2`. The last one installed wins, and pip removes the file with either of them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{ImageContext, accepts, listed};
use crate::check::{Code, Finding, Severity};
use crate::discover::requirement::{MarkerEnvironment, Requirement};
use crate::facts::{FileOwner, LoadedObject, OwnedFile};
use crate::packages;

/// How many files a sentence names.
const NAMED: usize = 3;

/// Files that the same distributions list.
struct Group<'a> {
    owners: &'a [FileOwner],
    files: Vec<&'a OwnedFile>,
}

/// Whose copies have to be there, and who says so.
struct Expected<'a> {
    owner: &'a FileOwner,
    by: String,
    /// a package that the manifest names requires this very version
    is_pinned: bool,
}

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    if scene.stack.packages.is_empty() {
        return Vec::new();
    }
    let groups = groups(scene);
    groups
        .iter()
        .filter(|group| is_cudas(scene, group))
        .filter_map(|group| match group.owners {
            [] => None,
            [owner] => Some(changed(scene, owner, group)),
            // Two versions of one name are package-duplicate's.
            [first, rest @ ..] if rest.iter().all(|owner| owner.name == first.name) => None,
            _ => Some(shared(scene, group)),
        })
        .collect()
}

/// Without the findings about NVIDIA's wheels that share their library with another one's: whose copy is there counts,
/// and [`judge`] says that.
pub fn without_shared(scene: &ImageContext<'_>, findings: Vec<Finding>) -> Vec<Finding> {
    let is_shared = |name: &str| {
        let mut shared = scene.image.owned.iter().filter(|file| file.owners.len() > 1);
        name.starts_with("nvidia-") && shared.any(|file| file.owners.iter().any(|o| o.name == name))
    };
    let mut findings = findings;
    findings.retain(|finding| !finding.problem || !is_shared(&finding.subject));
    findings
}

/// Of which version the libraries are that several versions of `name` list; `None` where sizes do not say it.
pub fn version_in_place<'a>(scene: &ImageContext<'a>, name: &str) -> Option<&'a str> {
    let mut versions = scene
        .image
        .owned
        .iter()
        .filter(|file| file.owners.len() > 1 && file.owners.iter().all(|owner| owner.name == name))
        .map(|file| in_place(file).map(|owner| owner.version.as_str()));
    let first = versions.next()??;
    versions.all(|version| version == Some(first)).then_some(first)
}

fn groups<'a>(scene: &ImageContext<'a>) -> Vec<Group<'a>> {
    let mut by_owners: BTreeMap<Vec<(&str, &str)>, Group<'a>> = BTreeMap::new();
    for file in &scene.image.owned {
        let key = file.owners.iter().map(|o| (o.name.as_str(), o.version.as_str()));
        let group = by_owners.entry(key.collect()).or_insert(Group {
            owners: &file.owners,
            files: Vec::new(),
        });
        group.files.push(file);
    }
    by_owners.into_values().collect()
}

/// Whether they have to do with CUDA: opencv-python beside opencv-python-headless is not judged here.
fn is_cudas(scene: &ImageContext<'_>, group: &Group<'_>) -> bool {
    let has_kernels = |name: &str| {
        let mut modules = scene.image.kernels.iter();
        modules.any(|module| module.package.as_deref() == Some(name))
    };
    group.owners.iter().any(|owner| {
        let name = owner.name.as_str();
        name.starts_with("nvidia-")
            || name.ends_with("-gpu")
            || packages::of(name).is_some()
            || packages::untagged(name).is_some()
            || has_kernels(name)
    }) || group.files.iter().any(|file| is_mapped(scene, file))
}

/// The one owner whose size the file has.
fn in_place(file: &OwnedFile) -> Option<&FileOwner> {
    let mut same = file.owners.iter().filter(|owner| owner.size == Some(file.size));
    same.next().filter(|_| same.next().is_none())
}

fn is_mapped(scene: &ImageContext<'_>, file: &OwnedFile) -> bool {
    let is_it = |object: &LoadedObject| {
        let mut paths = [&object.path, &object.real].into_iter().flatten();
        paths.any(|path| flat(path) == Path::new(&file.path))
    };
    scene.image.loaded.iter().any(is_it)
}

/// A path without `..`, as the loader writes them for an RPATH of `$ORIGIN/../..`.
fn flat(path: &str) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => drop(flat.pop()),
            part => flat.push(part),
        }
    }
    flat
}

fn shown(owner: &FileOwner) -> String {
    format!("{} {}", owner.name, owner.version)
}

/// The path below site-packages.
fn short<'a>(scene: &ImageContext<'_>, file: &'a OwnedFile) -> &'a str {
    let sites = scene.image.python.site_packages.iter();
    sites
        .filter_map(|site| file.path.strip_prefix(site.as_str())?.strip_prefix('/'))
        .min_by_key(|rest| rest.len())
        .unwrap_or(&file.path)
}

fn names(scene: &ImageContext<'_>, files: &[&OwnedFile]) -> String {
    let names: Vec<String> = files.iter().map(|file| short(scene, file).to_string()).collect();
    match names.as_slice() {
        [one] => one.clone(),
        all => format!("{} libraries ({})", all.len(), listed(all, NAMED)),
    }
}

/// Who requires one of these owners: the package, and what of its requirement the owner has to be.
fn requirements<'a>(
    scene: &ImageContext<'a>,
    owners: &'a [FileOwner],
) -> Vec<(&'a FileOwner, &'a str, Requirement)> {
    let environment = MarkerEnvironment::of(scene.image.python.version.as_deref());
    let mut found = Vec::new();
    for dist in scene.installed.values() {
        for line in &dist.requires {
            let is_about = |owner: &&FileOwner| {
                line.get(..owner.name.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(&owner.name))
            };
            if owners.iter().all(|owner| !is_about(&owner)) {
                continue;
            }
            let Ok(requirement) = line.parse::<Requirement>() else {
                continue;
            };
            if requirement.applies(&environment) == Some(false) {
                continue;
            }
            let owner = owners.iter().find(|owner| owner.name == requirement.name);
            found.extend(owner.map(|owner| (owner, dist.name.as_str(), requirement)));
        }
    }
    found
}

/// The requirement that names a version decides, torch's before others; then the manifest, then any requirement.
fn expected<'a>(scene: &ImageContext<'a>, group: &Group<'a>) -> Option<Expected<'a>> {
    let all = requirements(scene, group.owners);
    let pinned = |counts: &dyn Fn(&str) -> bool| {
        let pins = all.iter().filter(|(owner, of, requirement)| {
            let version = owner.version.parse().ok();
            let takes = version.is_some_and(|version| requirement.specifiers.contains(&version));
            !requirement.specifiers.is_empty() && takes && counts(of)
        });
        only(pins.map(|(owner, of, requirement)| {
            let by = format!("{of} requires {}{}", requirement.name, requirement.specifiers);
            (*owner, by)
        }))
    };
    let named = || {
        let named = group.owners.iter().filter(|owner| {
            let dist = scene.installed.get(owner.name.as_str());
            scene
                .rule(&owner.name)
                .is_some_and(|rule| dist.is_some_and(|dist| accepts(rule, dist)))
        });
        only(named.map(|owner| (owner, format!("the manifest names {}", owner.name))))
    };
    let required = || {
        only(
            all.iter()
                .map(|(owner, of, _)| (*owner, format!("{of} requires {}", owner.name))),
        )
    };
    let of_manifest = |of: &str| scene.rule(of).is_some();
    let pin = pinned(&|of| of == "torch" && of_manifest(of)).or_else(|| pinned(&of_manifest));
    let is_pinned = pin.is_some();
    let (owner, by) = pin
        .or_else(|| pinned(&|_| true))
        .or_else(named)
        .or_else(required)?;
    Some(Expected { owner, by, is_pinned })
}

/// The first, where all are of one owner.
fn only<'a>(mut all: impl Iterator<Item = (&'a FileOwner, String)>) -> Option<(&'a FileOwner, String)> {
    let first = all.next()?;
    all.all(|(owner, _)| owner == first.0).then_some(first)
}

fn shared(scene: &ImageContext<'_>, group: &Group<'_>) -> Finding {
    let expected = expected(scene, group);
    let owner = expected.as_ref().map(|expected| expected.owner);
    let is_wrong = |file: &&OwnedFile| match (in_place(file), owner) {
        (Some(present), Some(owner)) => present.name != owner.name,
        _ => true,
    };
    let wrong: Vec<&OwnedFile> = group.files.iter().copied().filter(is_wrong).collect();
    let all: Vec<String> = group.owners.iter().map(shown).collect();
    let subject = group.files.first().map_or("", |file| short(scene, file));
    let contents: Vec<String> = group
        .files
        .iter()
        .map(|file| {
            let whose = in_place(file).map_or_else(|| "cannot be determined".to_string(), shown);
            format!("{} ({} bytes): {whose}", short(scene, file), file.size)
        })
        .collect();
    let both = format!(
        "{} both install {}",
        all.join(" and "),
        names(scene, if wrong.is_empty() { &group.files } else { &wrong })
    );
    let both = if all.len() > 2 {
        both.replacen(" both ", " all ", 1)
    } else {
        both
    };
    if let (true, Some(expected)) = (wrong.is_empty(), &expected) {
        return Finding::info(Code::FileOwner, subject)
            .observed(contents.join("; "))
            .required(format!("the copy of {}", shown(expected.owner)))
            .message(format!(
                "{both}; the copy of {} is there, as {}",
                shown(expected.owner),
                expected.by
            ));
    }
    let present = wrong.iter().find_map(|file| in_place(file));
    let there = match present {
        Some(present) => format!("the copy of {} is there", shown(present)),
        None => "whose copy is there cannot be determined, since its size is neither's".to_string(),
    };
    let (required, why) = match &expected {
        Some(expected) => (
            format!("the copy of {}", shown(expected.owner)),
            format!(", and {}", expected.by),
        ),
        None => ("one distribution for each library".to_string(), String::new()),
    };
    let is_named = |owner: &FileOwner| scene.rule(&owner.name).is_some();
    // What a package of the manifest pins is used, also where the loader could not be asked or it is opened later.
    let is_used = expected.as_ref().is_some_and(|expected| expected.is_pinned)
        || group.files.iter().any(|file| is_mapped(scene, file));
    let replaces = match (present, owner) {
        (Some(present), Some(owner)) => is_used || (is_named(owner) && !is_named(present)),
        _ => false,
    };
    let severity = match replaces {
        true => Code::FileOwner.severity(),
        false => Severity::Warn,
    };
    Finding::problem_as(Code::FileOwner, severity, subject)
        .observed(contents.join("; "))
        .required(required)
        .message(format!("{both}: {there}{why}"))
        .hint(remedy(scene, group, owner.or(present)))
}

/// Steps that end with the copy of one of them: pip removes a shared file together with any of its owners.
fn remedy(scene: &ImageContext<'_>, group: &Group<'_>, keep: Option<&FileOwner>) -> String {
    let Some(keep) = keep.or(group.owners.first()) else {
        return String::new();
    };
    let required = requirements(scene, group.owners);
    let needed = |name: &str| match required.iter().find(|(owner, ..)| owner.name == name) {
        Some((_, by, _)) => Some(format!("{by} requires it")),
        None => scene.rule(name).map(|_| "the manifest names it".to_string()),
    };
    let others = || group.owners.iter().filter(|owner| owner.name != keep.name);
    let install = format!(
        "pip install --force-reinstall --no-deps '{}=={}'",
        keep.name, keep.version
    );
    match others().find_map(|other| Some((other, needed(&other.name)?))) {
        Some((other, why)) => format!(
            "In the Dockerfile, after every other installation: {install}. {} stays installed, since {why}.",
            other.name
        ),
        None => {
            let mut names: Vec<&str> = others().map(|owner| owner.name.as_str()).collect();
            names.push(&keep.name);
            names.dedup();
            format!(
                "In the Dockerfile: pip uninstall -y {} && {install}.",
                names.join(" ")
            )
        }
    }
}

/// Libraries of another size than when they were installed. `strip` and `patchelf` do that to a healthy image.
fn changed(scene: &ImageContext<'_>, owner: &FileOwner, group: &Group<'_>) -> Finding {
    let contents: Vec<String> = group
        .files
        .iter()
        .map(|file| {
            let size = file
                .owners
                .first()
                .and_then(|owner| owner.size)
                .unwrap_or_default();
            format!("{}: {} bytes, recorded {size}", short(scene, file), file.size)
        })
        .collect();
    let (verb, other) = match group.files.as_slice() {
        [_] => ("has", "another size"),
        _ => ("have", "other sizes"),
    };
    Finding::info(Code::FileOwner, owner.name.clone())
        .observed(contents.join("; "))
        .required(format!("the sizes that the RECORD of {} states", shown(owner)))
        .message(format!(
            "{} of {} {verb} {other} than when installed: stripped or patched, or replaced by another copy",
            names(scene, &group.files),
            shown(owner)
        ))
}

#[cfg(test)]
mod tests;
