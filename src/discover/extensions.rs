//! Whether each library of an environment that needs torch, another framework or CUDA finds its symbols there.
//!
//! Nothing is listed by name: a library counts by what its dynamic section needs, whichever package it belongs to. Python
//! loads extensions with RTLD_NOW, so that one undefined symbol makes the import fail. A symbol is claimed to be missing only
//! where its name says whose it is (`c10::…` is torch's, `nccl…` is libnccl's), where the library states that it needs that
//! library, and where no file that could be loaded in its place defines the symbol: packages load libraries by their paths
//! before they import an extension, so every copy counts. Names are compared without their versions, which the loader's run
//! judges. Weak references may stay undefined. The driver's symbols are not looked for: the driver is in no image.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::bytes::RandomFile;
use super::elf;
use super::loader::{is_drivers, search};
use super::{threads, torch_abi};
use crate::facts::Python;
use crate::facts::extensions::{Extension, Extensions};
use crate::order;
use crate::text::one_line;

mod providers;
mod symbols;

use providers::Provider;
use symbols::Exports;

/// Longest name of a symbol that is kept, in characters.
const MAX_NAME: usize = 200;
/// Most libraries that are followed from one extension: torch needs some forty.
const MAX_FOLLOWED: usize = 256;

/// A library of site-packages, as its dynamic section describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// its file
    pub path: PathBuf,
    /// device and inode
    pub identity: (u64, u64),
    /// the SONAMEs of frameworks and of CUDA that it needs
    needed: Vec<String>,
    soname: Option<String>,
    /// DT_RPATH or DT_RUNPATH, unexpanded
    search: String,
}

impl Object {
    /// What the dynamic section says; `None` where there is none that can be read.
    pub fn read(path: &Path, file: &RandomFile) -> Option<Self> {
        let dynamic = elf::dynamic(file).ok()?;
        let mut needed = dynamic.needed;
        needed.retain(|name| providers::is_provided(name));
        Some(Self {
            path: path.to_path_buf(),
            identity: file.identity(),
            needed,
            soname: dynamic.soname,
            search: dynamic.runpath.or(dynamic.rpath).unwrap_or_default(),
        })
    }

    fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }
}

/// Looks at those of `objects`, which are in the order of their paths, that need a framework or CUDA.
pub fn look(objects: &[Object], python: &Python, library_path: Option<&str>) -> Extensions {
    let shelf = Shelf::new(objects, &python.site_packages, library_path);
    let tag = python.tag();
    let is_asked =
        |object: &Object| !object.needed.is_empty() && !is_of_another_python(object.name(), tag.as_deref());
    let asked: Vec<usize> = (0..objects.len())
        .filter(|&at| objects.get(at).is_some_and(is_asked))
        .collect();
    let looked_at: Vec<OnceLock<Extension>> = asked.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    threads::on_two(&|| {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let (Some(&at), Some(place)) = (asked.get(turn), looked_at.get(turn)) else {
                return;
            };
            let _ = place.set(shelf.extension(at));
        }
    });
    let mut found = Extensions::default();
    let mut resolved: BTreeSet<(PathBuf, String)> = BTreeSet::new();
    let mut unresolved = Vec::new();
    for (at, extension) in asked.into_iter().zip(looked_at) {
        let (Some(object), Some(extension)) = (objects.get(at), extension.into_inner()) else {
            continue;
        };
        let family = family(&object.path);
        let of_folder = found.libraries.entry(shelf.folder(at).to_string()).or_default();
        of_folder.push(extension.path.clone());
        match extension.missing.is_empty() && extension.undefined == 0 {
            true => drop(resolved.insert(family)),
            false => unresolved.push((family, extension)),
        }
    }
    // `_C_cu128.so` beside `_C_cu130.so`: the package takes the one that fits.
    unresolved.retain(|(family, _)| !resolved.contains(family));
    found.unresolved = unresolved.into_iter().map(|(_, extension)| extension).collect();
    let outside = shelf.outside.into_inner().unwrap_or_else(PoisonError::into_inner);
    let files = outside.values().flatten();
    found.outside = Vec::from_iter(order::set(files.map(|path| path.to_string_lossy().into_owned())));
    found.sought = outside.into_keys().collect();
    found
}

/// `x.cpython-310-x86_64-linux-gnu.so` under Python 3.11, which does not look at it.
fn is_of_another_python(name: &str, tag: Option<&str>) -> bool {
    let Some((_, rest)) = name.split_once(".cpython-") else {
        return false;
    };
    let digits = rest.split('-').next().unwrap_or_default();
    tag.is_some_and(|tag| tag.strip_prefix("cpython-") != Some(digits))
}

/// Libraries in one folder whose names differ in digits alone are alternatives of each other.
fn family(path: &Path) -> (PathBuf, String) {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let mut text = String::new();
    for c in name.chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(c),
        }
    }
    (path.parent().unwrap_or(Path::new("")).to_path_buf(), text)
}

/// The libraries, and what was read of them.
struct Shelf<'a> {
    objects: &'a [Object],
    /// by position, the first name below site-packages
    folders: Vec<String>,
    /// by file name and by SONAME
    by_name: HashMap<&'a str, Vec<usize>>,
    by_folder: HashMap<String, Vec<usize>>,
    library_path: Option<&'a str>,
    /// by position
    exports: Vec<OnceLock<Exports>>,
    /// by SONAME, the files that the loader finds outside of site-packages
    outside: Mutex<BTreeMap<String, Vec<PathBuf>>>,
}

impl<'a> Shelf<'a> {
    fn new(objects: &'a [Object], sites: &[String], library_path: Option<&'a str>) -> Self {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut by_folder: HashMap<String, Vec<usize>> = HashMap::new();
        let mut folders = Vec::new();
        for (at, object) in objects.iter().enumerate() {
            let name = object.name();
            by_name.entry(name).or_default().push(at);
            if let Some(soname) = object.soname.as_deref().filter(|soname| *soname != name) {
                by_name.entry(soname).or_default().push(at);
            }
            let folder = folder_of(&object.path, sites);
            by_folder.entry(folder.clone()).or_default().push(at);
            folders.push(folder);
        }
        Self {
            objects,
            folders,
            by_name,
            by_folder,
            library_path,
            exports: objects.iter().map(|_| OnceLock::new()).collect(),
            outside: Mutex::default(),
        }
    }

    fn folder(&self, at: usize) -> &str {
        self.folders.get(at).map_or("", String::as_str)
    }

    /// What one library lacks.
    fn extension(&self, at: usize) -> Extension {
        let Some(object) = self.objects.get(at) else {
            return Extension::default();
        };
        let mut missing = object.needed.clone();
        missing.retain(|name| {
            let is_here = self.by_name.contains_key(name.as_str()) || is_drivers(name);
            !is_here && !in_search_path(object, name) && self.found_outside(name).is_empty()
        });
        let mut lacking: BTreeMap<String, &'static Provider> = BTreeMap::new();
        let of_cuda = self.reachable(at, object);
        let mut outside: BTreeMap<&str, Vec<Exports>> = BTreeMap::new();
        for symbol in symbols::undefined(&object.path) {
            let Some(provider) = providers::of_symbol(&symbol) else {
                continue;
            };
            let is_needed = object.needed.iter().any(|name| provider.is_library(name));
            // What a missing library would define is not worth a word of its own.
            if !is_needed || missing.iter().any(|name| provider.is_library(name)) {
                continue;
            }
            let hash = symbols::hash(&symbol);
            let theirs = match provider.folder {
                Some(folder) => self.by_folder.get(folder).map_or(&[][..], Vec::as_slice),
                None => of_cuda.as_slice(),
            };
            let own = self.by_folder.get(self.folder(at)).map_or(&[][..], Vec::as_slice);
            let is_defined = [theirs, own]
                .into_iter()
                .flatten()
                .any(|&library| self.defines(library, provider, hash));
            if is_defined {
                continue;
            }
            let elsewhere = outside
                .entry(provider.name)
                .or_insert_with(|| self.outside_of(object, provider));
            if !elsewhere.iter().any(|file| file.has(hash).unwrap_or(true)) {
                lacking.insert(symbol, provider);
            }
        }
        let mut extension = Extension {
            path: object.path.to_string_lossy().into_owned(),
            folder: self.folder(at).to_string(),
            missing,
            undefined: u32::try_from(lacking.len()).unwrap_or(u32::MAX),
            cxx11_abi: self.other_abi(&lacking),
            ..Extension::default()
        };
        if let Some((symbol, provider)) = lacking.pop_first() {
            extension.symbol = Some(one_line(&symbol, MAX_NAME));
            // Of CUDA's libraries, the one that is asked.
            let library = object.needed.iter().find(|name| provider.is_library(name));
            let name = library.filter(|_| provider.folder.is_none());
            extension.provider = Some(name.map_or(provider.name, String::as_str).to_string());
        }
        extension
    }

    /// The libraries that it needs, and those that these need.
    fn reachable(&self, at: usize, object: &'a Object) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        let mut names: Vec<&str> = object.needed.iter().map(String::as_str).collect();
        let mut next = 0;
        while let Some(name) = names.get(next).filter(|_| names.len() <= MAX_FOLLOWED) {
            next += 1;
            let others = self.by_name.get(name).into_iter().flatten();
            for &other in others.filter(|&&other| other != at) {
                found.push(other);
                let needed = self.objects.get(other).map_or(&[][..], |library| &library.needed);
                for name in needed.iter().map(String::as_str) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
        found
    }

    /// Whether a library defines the symbol, or may do so: it is the provider's, and has no table that tells.
    fn defines(&self, at: usize, provider: &Provider, hash: u32) -> bool {
        let (Some(object), Some(place)) = (self.objects.get(at), self.exports.get(at)) else {
            return false;
        };
        let exports = place.get_or_init(|| Exports::read(&object.path));
        let unknown = || provider.is_library(object.name());
        exports.has(hash).unwrap_or_else(unknown)
    }

    /// The provider's libraries where its search path leads, and where the loader looks for every program.
    fn outside_of(&self, object: &Object, provider: &Provider) -> Vec<Exports> {
        let mut files: Vec<PathBuf> = Vec::new();
        for name in object.needed.iter().filter(|name| provider.is_library(name)) {
            files.extend(searched(object).map(|folder| folder.join(name)));
            files.extend(self.found_outside(name));
        }
        files.retain(|path| path.is_file());
        files.iter().map(|path| Exports::read(path)).collect()
    }

    /// By LD_LIBRARY_PATH, ld.so.cache and the default folders.
    fn found_outside(&self, name: &str) -> Vec<PathBuf> {
        let mut known = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(name) {
            return found.clone();
        }
        let found = search::candidates(name, self.library_path);
        known.insert(name.to_string(), found.clone());
        found
    }

    /// The C++ ABI that symbols of torch ask for, where torch has the other one.
    fn other_abi(&self, lacking: &BTreeMap<String, &'static Provider>) -> Option<bool> {
        let of_torch = lacking.iter().filter(|(_, provider)| provider.name == "torch");
        let wanted = of_torch
            .filter_map(|(symbol, _)| torch_abi::of_symbol(symbol))
            .next()?;
        let libc10 = self.by_name.get("libc10.so")?.first()?;
        let torchs = torch_abi::of_library(&self.objects.get(*libc10)?.path)?;
        (torchs != wanted).then_some(wanted)
    }
}

/// The folders of its search path.
fn searched(object: &Object) -> impl Iterator<Item = PathBuf> {
    let origin = object.path.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let entries = object.search.split(':').filter(|entry| !entry.is_empty());
    entries.map(move |entry| PathBuf::from(entry.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)))
}

fn in_search_path(object: &Object, name: &str) -> bool {
    searched(object).any(|folder| folder.join(name).is_file())
}

/// `torchvision` of `/sp/torchvision/_C.so` and of `/sp/torchvision.libs/x.so`.
fn folder_of(path: &Path, sites: &[String]) -> String {
    let below = sites.iter().filter_map(|site| path.strip_prefix(site).ok());
    let Some(rest) = below.min_by_key(|rest| rest.components().count()) else {
        return String::new();
    };
    let first = rest
        .components()
        .next()
        .map(|part| part.as_os_str().to_string_lossy());
    let first = first.unwrap_or_default();
    match rest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            first.strip_suffix(".libs").unwrap_or(&first).to_string()
        }
        _ => first.split('.').next().unwrap_or_default().to_string(),
    }
}

#[cfg(test)]
mod tests;
