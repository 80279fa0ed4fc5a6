//! Whether each library of an environment that needs torch, another framework or CUDA finds its symbols there.
//!
//! Nothing is listed by name: a library counts by what its dynamic section needs, whichever package it belongs to. Python
//! loads extensions with RTLD_NOW, so that one undefined symbol makes the import fail. A symbol is claimed to be missing only
//! where its name says whose it is (`c10::…` is torch's, `nccl…` is libnccl's), where the library states that it needs that
//! library, and where no file that could be loaded in its place defines the symbol: packages load libraries by their paths
//! before they import an extension, so every copy counts. Names are compared without their versions, which the loader's run
//! judges. Weak references may stay undefined. The driver's symbols are not looked for: the driver is in no image.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::bytes::{RandomFile, Source};
use super::elf;
use super::loader::{is_drivers, search};
use super::modules::below_site;
use super::{files, torch_abi};
use crate::facts::Python;
use crate::facts::extensions::{Extension, Extensions};
use crate::order;
use crate::text::one_line;

mod opened;
mod providers;
mod symbols;

use providers::Provider;
use symbols::Exports;

/// How the names of what NVRTC opens begin; `12.4` follows.
pub const BUILTINS: &str = "libnvrtc-builtins.so.";
/// Longest name of a symbol that is kept, in characters.
const MAX_NAME: usize = 200;
/// Most libraries that are followed from one extension: torch needs some forty.
const MAX_FOLLOWED: usize = 256;

/// A library of site-packages, as its dynamic section describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// its file
    pub path: PathBuf,
    /// length of the file, in bytes
    pub size: u64,
    /// the SONAMEs of frameworks and of CUDA that it needs
    needed: Vec<String>,
    /// those of others
    others: Vec<String>,
    soname: Option<String>,
    /// DT_RPATH or DT_RUNPATH, unexpanded
    search: String,
}

impl Object {
    /// What the dynamic section says; `None` where there is none that can be read.
    pub fn read(path: &Path, file: &RandomFile) -> Option<Self> {
        let dynamic = elf::dynamic(file).ok()?;
        let (mut needed, mut others) = (Vec::new(), Vec::new());
        for name in dynamic.needed {
            match providers::is_provided(&name) {
                true => needed.push(name),
                false => others.push(name),
            }
        }
        Some(Self {
            path: path.to_path_buf(),
            size: file.size(),
            needed,
            others,
            soname: dynamic.soname,
            search: dynamic.runpath.or(dynamic.rpath).unwrap_or_default(),
        })
    }

    fn text(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }
}

/// What is looked for in the libraries of an environment.
pub struct Search<'a> {
    shelf: Shelf<'a>,
    /// the positions of those that need a framework or CUDA
    asked: Vec<usize>,
    /// the positions of those that may open CUDA's libraries themselves
    opening: Vec<usize>,
}

impl<'a> Search<'a> {
    /// `objects` are in the order of their paths; `with_code` are those of them that have kernels.
    pub fn new(
        objects: &'a [Object],
        python: &'a Python,
        library_path: Option<&'a str>,
        with_code: &HashSet<&Path>,
    ) -> Self {
        let tag = python.tag();
        // What a framework's own libraries open is known by its name.
        let opens = |object: &Object| {
            with_code.contains(object.path.as_path())
                && !providers::is_framework(folder_of(&object.path, &python.site_packages))
        };
        let is_asked = |object: &Object| {
            (!object.needed.is_empty() || opens(object))
                && !is_of_another_python(object.name(), tag.as_deref())
        };
        let positions = objects.iter().enumerate().filter(|(_, object)| is_asked(object));
        Self {
            shelf: Shelf::new(objects, &python.site_packages, library_path),
            asked: positions.map(|(at, _)| at).collect(),
            opening: (0..objects.len())
                .filter(|&at| objects.get(at).is_some_and(&opens))
                .collect(),
        }
    }

    /// The libraries to look at.
    pub fn asked(&self) -> &[usize] {
        &self.asked
    }

    /// What one of them lacks; `None` where its symbols cannot be read and all that it needs is there.
    pub fn look(&self, at: usize) -> Option<Extension> {
        self.shelf.extension(at, self.opening.contains(&at))
    }

    /// Puts together what was found of each.
    pub fn conclude(self, looked: Vec<(usize, Option<Extension>)>) -> Extensions {
        let Shelf {
            objects,
            library_path,
            outside,
            ..
        } = self.shelf;
        let mut found = Extensions::default();
        let mut resolved: Vec<String> = Vec::new();
        for (at, extension) in looked {
            let needs_nothing = objects.get(at).is_none_or(|object| object.needed.is_empty());
            match extension {
                Some(extension) if !lacks(&extension) && extension.unopened.is_empty() => {
                    resolved.push(family(&extension.path));
                    if !needs_nothing {
                        found.libraries.push(extension.path);
                    }
                }
                Some(extension) => found.unresolved.push(extension),
                None if needs_nothing => {}
                None => found.unread.extend(objects.get(at).map(Object::text)),
            }
        }
        // `_C_cu128.so` beside `_C_cu130.so`: the package takes the one that fits.
        found
            .unresolved
            .retain(|extension| !resolved.contains(&family(&extension.path)));
        let lacking = found.unresolved.iter().filter(|extension| lacks(extension));
        let lacking: Vec<String> = lacking.map(|extension| extension.path.clone()).collect();
        found.libraries.extend(lacking);
        order::sort(&mut found.libraries);
        order::sort_by(&mut found.unresolved, |a, b| a.path.cmp(&b.path));
        order::sort(&mut found.unread);
        found.dependents = dependents(objects, &found.unresolved);
        for (name, files) in outside.into_inner().unwrap_or_else(PoisonError::into_inner) {
            found.sought.push(name);
            found
                .outside
                .extend(files.iter().map(|path| path.to_string_lossy().into_owned()));
        }
        found.builtins = builtins(objects, library_path);
        order::sort(&mut found.sought);
        order::sort(&mut found.outside);
        found.outside.dedup();
        found
    }
}

/// Whether it cannot be loaded.
pub fn lacks(extension: &Extension) -> bool {
    !extension.missing.is_empty() || extension.undefined > 0
}

/// Libraries that need an unresolved one beside them, or one that does.
fn dependents(objects: &[Object], unresolved: &[Extension]) -> Vec<String> {
    let mut names: Vec<&str> = unresolved
        .iter()
        .filter(|extension| lacks(extension))
        .filter_map(|extension| extension.path.rsplit('/').next())
        .collect();
    let mut found: Vec<String> = Vec::new();
    let mut next = 0;
    while let Some(name) = names.get(next).copied() {
        next += 1;
        for object in objects.iter().filter(|object| {
            let mut needed = object.others.iter().chain(&object.needed);
            needed.any(|other| other == name)
        }) {
            let path = object.text();
            if !found.contains(&path) {
                found.push(path);
                names.push(object.name());
            }
        }
    }
    order::sort(&mut found);
    found
}

/// Every copy of libnvrtc-builtins: in site-packages, in LD_LIBRARY_PATH and in ld.so.cache.
fn builtins(objects: &[Object], library_path: Option<&str>) -> Vec<String> {
    let is_one = |name: &str| name.starts_with(BUILTINS);
    let own = objects.iter().filter(|object| is_one(object.name()));
    let mut found: Vec<String> = own.map(Object::text).collect();
    for folder in search::listed(library_path.unwrap_or_default()) {
        for entry in files::list(&folder).unwrap_or_default() {
            if entry.text().is_some_and(is_one) {
                found.push(folder.join(&entry.name).to_string_lossy().into_owned());
            }
        }
    }
    search::cache(&mut |name, path| {
        if is_one(name) {
            found.push(path.to_string());
        }
    });
    order::sort(&mut found);
    found.dedup();
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

/// A path without the digits of its last name: libraries in one folder that differ in them alone are alternatives of each
/// other.
pub fn family(path: &str) -> String {
    let start = path.rfind('/').unwrap_or_default();
    let (folder, name) = path.split_at(start);
    let mut text = folder.to_string();
    for c in name.chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(c),
        }
    }
    text
}

/// Places of libraries, by a name; in the order of the names.
struct Index<'a>(Vec<(&'a str, usize)>);

impl<'a> Index<'a> {
    fn new(mut all: Vec<(&'a str, usize)>) -> Self {
        order::sort(&mut all);
        Self(all)
    }

    fn of(&self, name: &str) -> &[(&'a str, usize)] {
        let start = self.0.partition_point(|(known, _)| *known < name);
        let rest = self.0.get(start..).unwrap_or_default();
        let end = rest.partition_point(|(known, _)| *known == name);
        rest.get(..end).unwrap_or_default()
    }
}

/// A provider that a library needs.
struct Needed {
    provider: &'static Provider,
    /// positions of the libraries in site-packages that may define its symbols
    libraries: Vec<usize>,
    /// those out of site-packages, once they are asked for
    outside: Option<Vec<Exports>>,
}

/// The libraries, and what was read of them.
struct Shelf<'a> {
    objects: &'a [Object],
    sites: &'a [String],
    /// by file name and by SONAME
    by_name: Index<'a>,
    /// by the first name below site-packages
    by_folder: Index<'a>,
    library_path: Option<&'a str>,
    /// by position
    exports: Vec<OnceLock<Exports>>,
    /// by SONAME, the files that the loader finds outside of site-packages
    outside: Mutex<Vec<(String, Vec<PathBuf>)>>,
}

impl<'a> Shelf<'a> {
    fn new(objects: &'a [Object], sites: &'a [String], library_path: Option<&'a str>) -> Self {
        let (mut names, mut folders) = (Vec::new(), Vec::new());
        for (at, object) in objects.iter().enumerate() {
            let name = object.name();
            names.push((name, at));
            if let Some(soname) = object.soname.as_deref().filter(|soname| *soname != name) {
                names.push((soname, at));
            }
            folders.push((folder_of(&object.path, sites), at));
        }
        Self {
            objects,
            sites,
            by_name: Index::new(names),
            by_folder: Index::new(folders),
            library_path,
            exports: objects.iter().map(|_| OnceLock::new()).collect(),
            outside: Mutex::default(),
        }
    }

    fn extension(&self, at: usize, opens: bool) -> Option<Extension> {
        let object = self.objects.get(at)?;
        let mut missing = object.needed.clone();
        missing.retain(|name| {
            let is_here = !self.by_name.of(name).is_empty() || is_drivers(name);
            !is_here && self.outside_of(object, name).is_empty()
        });
        let symbols = symbols::undefined(&object.path);
        if symbols.is_none() && missing.is_empty() {
            return None;
        }
        let mut needed: Vec<Needed> = providers::of_libraries(&object.needed)
            // What a missing library would define is not worth a word of its own.
            .filter(|provider| !missing.iter().any(|name| provider.is_library(name)))
            .map(|provider| Needed {
                provider,
                libraries: self.libraries(provider, at, object),
                outside: None,
            })
            .collect();
        let mut lacking: Vec<(String, &Provider)> = Vec::new();
        let (mut unopened, mut elsewhere) = (Vec::new(), None);
        if opens && symbols.iter().flatten().any(|symbol| symbol == "dlopen") {
            (unopened, elsewhere) = self.unopened(object);
        }
        for symbol in symbols.unwrap_or_default() {
            let place = providers::of_symbol(&symbol, needed.iter().map(|needed| needed.provider));
            let Some(needed) = place.and_then(|place| needed.get_mut(place)) else {
                continue;
            };
            let (provider, hash) = (needed.provider, symbols::hash(&symbol));
            let mut inside = needed.libraries.iter();
            if inside.any(|&library| self.defines(library, provider, hash)) {
                continue;
            }
            let outside = needed
                .outside
                .get_or_insert_with(|| self.exports_outside(object, provider));
            if !outside.iter().any(|file| file.has(hash).unwrap_or(true)) {
                lacking.push((symbol, provider));
            }
        }
        let is_whole = missing.is_empty() && lacking.is_empty();
        let mut extension = Extension {
            path: object.text(),
            module: !is_whole && self.is_module(at, object),
            missing,
            unopened,
            elsewhere,
            undefined: u32::try_from(lacking.len()).unwrap_or(u32::MAX),
            cxx11_abi: self.other_abi(&lacking),
            ..Extension::default()
        };
        if let Some((symbol, provider)) = lacking.iter().min_by_key(|(symbol, _)| symbol) {
            extension.symbol = Some(one_line(symbol, MAX_NAME));
            // Of CUDA's libraries, the one that is asked.
            let library = object.needed.iter().find(|name| provider.is_library(name));
            let name = library.filter(|_| provider.folder.is_none());
            extension.provider = Some(name.map_or(provider.name, String::as_str).to_string());
        }
        Some(extension)
    }

    /// Whether Python imports it, as `_C` of `_C.abi3.so`.
    fn is_module(&self, at: usize, object: &Object) -> bool {
        let name = object.name().split('.').next().unwrap_or_default();
        let hash = symbols::hash(&format!("PyInit_{name}"));
        let exports = self.exports.get(at);
        exports.is_none_or(|place| place.get_or_init(|| Exports::read(&object.path)).has(hash) != Some(false))
    }

    /// The names that stand in a library and that it would open in vain, and a copy of the first that the loader does not
    /// find. What a framework needs is loaded once that is imported.
    fn unopened(&self, object: &Object) -> (Vec<String>, Option<String>) {
        let names = opened::names(&object.path);
        let is_mapped = |name: &String| {
            self.objects.iter().any(|other| {
                other.needed.contains(name) && providers::is_framework(folder_of(&other.path, self.sites))
            })
        };
        let is_found = |name: &String| {
            object
                .needed
                .iter()
                .any(|needed| opened::stem(needed) == opened::stem(name))
                || (is_mapped(name) && !self.by_name.of(name).is_empty())
                || !self.outside_of(object, name).is_empty()
        };
        let stems: Vec<&str> = names
            .iter()
            .filter(|name| is_found(name))
            .map(|name| opened::stem(name))
            .collect();
        let mut lacking = names.clone();
        lacking.retain(|name| !stems.contains(&opened::stem(name)));
        // What is nowhere comes first: a copy of another library does not help.
        let copy = |name: &str| self.by_name.of(name).first();
        order::sort_by(&mut lacking, |a, b| {
            (copy(a).is_some(), a).cmp(&(copy(b).is_some(), b))
        });
        let elsewhere = lacking.first().and_then(|name| copy(name));
        let elsewhere = elsewhere
            .and_then(|(_, at)| self.objects.get(*at))
            .map(Object::text);
        (lacking, elsewhere)
    }

    /// The libraries that may define a provider's symbols for an object: the provider's and its own, the largest first, since
    /// it defines most.
    fn libraries(&self, provider: &Provider, at: usize, object: &'a Object) -> Vec<usize> {
        let theirs = match provider.folder {
            Some(folder) => self.by_folder.of(folder).to_vec(),
            None => self.reachable(at, object),
        };
        let own = self.by_folder.of(folder_of(&object.path, self.sites));
        let mut all: Vec<usize> = theirs.iter().chain(own).map(|(_, at)| *at).collect();
        let key = |at: &usize| (self.objects.get(*at).map_or(0, |object| object.size), *at);
        order::sort_by(&mut all, |a, b| key(b).cmp(&key(a)));
        all.dedup();
        all
    }

    /// The libraries that it needs, and those that these need.
    fn reachable(&self, at: usize, object: &'a Object) -> Vec<(&'a str, usize)> {
        let mut found = Vec::new();
        let mut names: Vec<&str> = object.needed.iter().map(String::as_str).collect();
        let mut next = 0;
        while let Some(name) = names.get(next).filter(|_| names.len() <= MAX_FOLLOWED) {
            next += 1;
            for &(name, other) in self.by_name.of(name).iter().filter(|(_, other)| *other != at) {
                found.push((name, other));
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

    /// The provider's libraries out of site-packages.
    fn exports_outside(&self, object: &Object, provider: &Provider) -> Vec<Exports> {
        let mut all = Vec::new();
        for name in object.needed.iter().filter(|name| provider.is_library(name)) {
            for path in self.outside_of(object, name) {
                all.push(Exports::read(&path));
            }
        }
        all
    }

    /// A library where the object's search path leads, and by LD_LIBRARY_PATH, ld.so.cache and the default folders.
    fn outside_of(&self, object: &Object, name: &str) -> Vec<PathBuf> {
        let mut files = searched(object, name);
        let mut known = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|(known, _)| known == name) {
            known.push((name.to_string(), search::candidates(name, self.library_path)));
        }
        let found = known.iter().filter(|(known, _)| known == name);
        found.for_each(|(_, found)| files.extend_from_slice(found));
        files
    }

    /// The C++ ABI that symbols of torch ask for, where torch has the other one.
    fn other_abi(&self, lacking: &[(String, &Provider)]) -> Option<bool> {
        let mut of_torch = lacking.iter().filter(|(_, provider)| provider.name == "torch");
        let wanted = of_torch.find_map(|(symbol, _)| torch_abi::of_symbol(symbol))?;
        let (_, libc10) = self.by_name.of("libc10.so").first()?;
        let torchs = torch_abi::of_library(&self.objects.get(*libc10)?.path)?;
        (torchs != wanted).then_some(wanted)
    }
}

/// The files of this name in the folders of its search path.
fn searched(object: &Object, name: &str) -> Vec<PathBuf> {
    let origin = object.path.parent().unwrap_or(Path::new("/"));
    let folders = search::of_object(&object.search, origin).into_iter();
    let files = folders.map(|folder| folder.join(name));
    files.filter(|path| path.is_file()).collect()
}

/// `torchvision` of `/sp/torchvision/_C.so` and of `/sp/torchvision.libs/x.so`: the first name below site-packages.
pub fn folder_of<'p>(path: &'p Path, sites: &[String]) -> &'p str {
    let below = path.to_str().and_then(|path| below_site(path, sites));
    let rest = below.map_or("", |(_, rest)| rest);
    match rest.split_once('/') {
        Some((first, _)) => first.strip_suffix(".libs").unwrap_or(first),
        None => rest.split('.').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
