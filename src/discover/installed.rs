//! Whether what is installed is all there, and is what an import would find.
//!
//! Sources: PyPA specification "Recording installed projects"; the Python reference, "The import system", and
//! `importlib.machinery.FileFinder`, whose order of names within a folder this is: a package, an extension module, a
//! module.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::files;
use super::owners::{self, Owners};
use super::record::{self, Record};
use super::{unread, wheels};
use crate::facts::{Distribution, OwnedFile, Python};
use crate::processor::OWN;
use crate::text::one_line;

/// Most of a RECORD that is read, in bytes. torch's is 1.3 MB.
const MAX_RECORD: usize = 16 << 20;
/// Most of all RECORDs of distributions that the stack does not ask for. vllm's hundred have 4 MB.
const MAX_RECORDS: usize = 64 << 20;
/// Most absent files that are named.
const MAX_NAMED: usize = 8;
/// Longest path that is kept, in characters.
const MAX_PATH: usize = 500;

/// Looks at the distributions that the stack asks for, the first of each name: files that they lack, and what hides
/// them. `first` is a folder that the service's Python looks into before all others. Returns the libraries whose owner or
/// contents are in doubt, of all distributions.
pub fn inspect(
    found: &mut [Distribution],
    wanted: &[&str],
    python: &Python,
    first: Option<&Path>,
) -> Vec<OwnedFile> {
    let sites: Vec<&Path> = python.site_packages.iter().map(Path::new).collect();
    let prefix = python.prefix.as_deref().map(Path::new);
    let mut seen = BTreeSet::new();
    let mut owners = Owners::default();
    let mut left = MAX_RECORDS;
    for dist in found {
        let is_wanted = wanted.contains(&dist.name.as_str()) && seen.insert(dist.name.clone());
        if !is_wanted && (left == 0 || !owners::may_own_libraries(dist)) {
            continue;
        }
        let path = PathBuf::from(&dist.path);
        let Some(folder) = path.parent() else { continue };
        let text = record_text(&path);
        left = left.saturating_sub(text.len());
        let record = record::parse(&text);
        // conda's packages keep pip's RECORD, and spread the files over several packages and folders.
        if !record.libraries.is_empty() || is_wanted {
            let is_by_conda = is_by_conda(&path);
            if is_wanted && !text.is_empty() && !is_by_conda {
                look_for(dist, &record, folder, prefix);
            }
            if !is_by_conda {
                owners.add(dist, &record, is_wanted, |library| place(folder, library, prefix));
            }
        }
        if !is_wanted {
            continue;
        }
        let earlier = first
            .into_iter()
            .chain(sites.iter().copied().take_while(|site| *site != folder));
        let earlier: Vec<&Path> = earlier.filter(|site| *site != folder).collect();
        if !earlier.is_empty() && sites.contains(&folder) {
            let names = import_names(dist, &record);
            dist.hidden_by = hiding(&names, folder, &earlier, python.version.as_deref());
        }
    }
    owners.in_doubt()
}

/// The RECORD in a `.dist-info`; empty where there is none that can be read.
pub(super) fn record_text(dist_info: &Path) -> String {
    files::read_text(&dist_info.join("RECORD"), MAX_RECORD).unwrap_or_default()
}

fn is_by_conda(path: &Path) -> bool {
    files::read_text(&path.join("INSTALLER"), files::SMALL_FILE).is_ok_and(|text| text.trim() == "conda")
}

fn look_for(dist: &mut Distribution, record: &Record<'_>, folder: &Path, prefix: Option<&Path>) {
    let mut miss = |name: &str| {
        if dist.missing.len() < MAX_NAMED {
            dist.missing.push(one_line(name, MAX_PATH));
        }
        dist.missing_count += 1;
    };
    for package in &record.packages {
        // A build that ships no sources keeps the compiled module in the source's place.
        let absent = |name: &str| is_absent(&folder.join(package.as_ref()).join(name));
        if absent("__init__.py") && absent("__init__.pyc") {
            miss(&format!("{package}/__init__.py"));
        }
    }
    for library in &record.libraries {
        if place(folder, library, prefix).is_some_and(|path| is_absent(&path)) {
            miss(library);
        }
    }
}

/// Certainly not there: what may not be looked at may be there.
fn is_absent(path: &Path) -> bool {
    let _going = super::reading::begin(path);
    let kind = unread::noted(path, std::fs::metadata(path)).map_err(|e| e.kind());
    matches!(kind, Err(ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// Where a recorded path leads; `None` out of the environment.
fn place(folder: &Path, recorded: &str, prefix: Option<&Path>) -> Option<PathBuf> {
    let mut path = folder.to_path_buf();
    for part in Path::new(recorded).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            _ => return None,
        }
    }
    (path.starts_with(folder) || prefix.is_some_and(|prefix| path.starts_with(prefix))).then_some(path)
}

/// The names by which it is imported: RECORD's, else top_level.txt's, else its own.
fn import_names(dist: &Distribution, record: &Record<'_>) -> Vec<String> {
    if record.has_packages {
        return record.packages.iter().map(ToString::to_string).collect();
    }
    let names: Vec<String> = wheels::top_level(dist)
        .into_iter()
        // NVIDIA's wheels share one name, and are found by looking through all folders for it.
        .filter(|name| !name.is_empty() && !name.contains('/') && name != "nvidia")
        .take(100)
        .collect();
    match names.is_empty() {
        true => vec![dist.name.replace('-', "_")],
        false => names,
    }
}

/// What in the earlier folders takes the place of these names in `folder`.
fn hiding(names: &[String], folder: &Path, earlier: &[&Path], version: Option<&str>) -> Vec<String> {
    let holders = names.iter().filter_map(|name| {
        // Where its own folder has nothing of that name (an editable install), nothing is hidden.
        let own = holder(folder, name, version)?.canonicalize().ok()?;
        let hider = earlier.iter().find_map(|site| holder(site, name, version))?;
        (hider.canonicalize().ok()? != own).then(|| one_line(&hider.to_string_lossy(), MAX_PATH))
    });
    holders.take(MAX_NAMED).collect()
}

/// The file that an import of `name` would take from this folder. A folder without `__init__.py` is a part of a
/// namespace, which any later package or module of that name beats.
fn holder(folder: &Path, name: &str, version: Option<&str>) -> Option<PathBuf> {
    let file = |path: PathBuf| {
        unread::metadata(&path)
            .is_some_and(|found| found.is_file())
            .then_some(path)
    };
    file(folder.join(name).join("__init__.py"))
        .or_else(|| file(folder.join(name).join("__init__.pyc")))
        .or_else(|| suffixes(version).find_map(|suffix| file(folder.join(format!("{name}{suffix}")))))
}

/// What this Python's modules end in, in its order. Source: `importlib.machinery`.
fn suffixes(version: Option<&str>) -> impl Iterator<Item = String> {
    let minor = version
        .and_then(|version| version.strip_prefix("3."))
        .map(|rest| rest.split('.').next().unwrap_or_default());
    let own = minor.map(|minor| format!(".cpython-3{minor}-{}.so", OWN.triplet));
    own.into_iter()
        .chain([".abi3.so", ".so", ".py", ".pyc"].map(String::from))
}

#[cfg(test)]
mod tests;
