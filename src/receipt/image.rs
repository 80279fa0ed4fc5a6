//! The image part: what the image's libraries and its loader said, keyed by what they rest on.
//!
//! Whatever a verdict depends on is in the key, or is found out anew at each start. [`CachedFacts::of`] and [`Basis::of`] take
//! the facts apart without leaving out a field, so that a new one does not compile before it is said which of the two it
//! is, and what it rests on; `tests/receipt/basis.rs` has a change for each of them.
//!
//! Found out anew: which Python, which distributions and what of them is missing or hidden, the manifest's files, what
//! makes spconv compile, and which libraries and modules are to be asked. CachedFacts: what took long, the answers.

use std::path::Path;

use serde::Serialize;

use super::key::{Texts, changed, differences, digest, each};
use super::{Now, Written};
use crate::discover::loader::{Asked, explain, is_drivers, search, symbols};
use crate::discover::sample::{ABSENT, UNREAD, stamp};
use crate::discover::{files, modules, tree};
use crate::facts::read::object;
use crate::facts::{
    Extensions, FoundBy, HelperEnd, HelperRun, ImageFacts, Library, LibraryAnswer, LibraryOrigin,
    LoadedObject, LoaderEnd, LoaderRun, ModuleKernels, NamedLibraries, Python,
};
use crate::processor::OWN;
use crate::text::counted;

/// The image part of a receipt.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ImagePart {
    /// when
    pub written: Written,
    /// what has to be the same
    pub key: ImageKey,
    /// what was found
    pub facts: CachedFacts,
}

/// Facts that take long to find out.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct CachedFacts {
    /// every copy of a library that was asked, with its answer
    pub libraries: Vec<Library>,
    /// the helper run that asked them
    pub helper: HelperRun,
    /// what the loader would map
    pub loaded: Vec<LoadedObject>,
    /// the run that asked it
    pub loader: LoaderRun,
    /// libraries with CUDA code
    pub kernels: Vec<ModuleKernels>,
    /// what of their symbols is not found
    pub extensions: Option<Extensions>,
}

/// What the kept facts rest on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ImageKey {
    /// manifest, list, severities, variables
    pub in_force: Texts,
    /// the interpreter with its links followed, `sys.prefix`, the version, and the folders of packages
    pub python: String,
    /// what the libraries and the loader are asked
    pub asked: Texts,
    /// by its path, a file's [`stamp`]
    pub files: Texts,
    /// by its path, the names in a folder, divided by slashes
    pub folders: Texts,
    /// what [`tree::of`] has
    pub trees: Texts,
    /// by name, where ld.so.cache leads, links followed, divided by colons
    pub cached: Texts,
    /// a stub, or a library of forward compatibility, in the driver's place
    pub driver: String,
    /// the level of this processor, where the loader has folders for better ones
    pub processor: String,
}

object!(ImagePart { written, key, facts });
object!(CachedFacts { libraries, helper, loaded, kernels, extensions; or_default loader });
object!(ImageKey {
    in_force,
    python,
    asked,
    files,
    folders,
    trees,
    cached,
    driver,
    processor
});

impl CachedFacts {
    /// Takes what is kept out of an image's facts.
    pub fn of(facts: &ImageFacts) -> Self {
        let ImageFacts {
            // Found out at each start, before anything of a receipt is believed.
            python: _,
            distributions: _,
            owned: _,
            files: _,
            named_libraries: _,
            programs: _,
            editable: _,
            surroundings: _,
            unread: _,
            compat: _,
            // CachedFacts, and taken apart below.
            libraries,
            helper,
            loaded,
            loader,
            kernels,
            extensions,
        } = facts;
        Self {
            libraries: libraries.clone(),
            helper: helper.clone(),
            loaded: loaded.clone(),
            loader: loader.clone(),
            kernels: kernels.clone(),
            extensions: extensions.clone(),
        }
    }

    /// Puts it into facts that were found out anew.
    fn added_to(&self, fresh: ImageFacts, library_path: Option<&str>) -> ImageFacts {
        let Self {
            libraries,
            helper,
            loaded,
            loader,
            kernels,
            extensions,
        } = self.clone();
        let mut all = ImageFacts {
            libraries,
            helper,
            loaded,
            loader: LoaderRun {
                stubs: explain::stubs(library_path, Path::new(explain::CONF)),
                ..loader
            },
            kernels,
            extensions,
            ..fresh
        };
        // Which distribution brought a library is a matter of names.
        let (site, distributions) = (&all.python.site_packages, &all.distributions);
        modules::attribute(&mut all.kernels, all.extensions.as_mut(), site, distributions);
        all
    }
}

/// What facts rest on, gathered from all of them.
#[derive(Default)]
struct Basis {
    /// files that were read, mapped, or looked for
    files: Texts,
    /// names that the loader looks for in the folders that it searches
    names: Texts,
    /// those of them that ld.so.cache and the default folders decide
    by_system: Texts,
    /// folders outside of site-packages that it searches
    searched: Texts,
}

impl Basis {
    fn of(facts: &CachedFacts, python: &Python, library_path: Option<&str>) -> Self {
        let CachedFacts {
            libraries,
            // Who does not go through keeps nothing: `passing_trouble`. It needs the loader of glibc.
            helper: HelperRun { end: _, ms: _ },
            loaded,
            loader,
            kernels,
            extensions,
        } = facts;
        let mut basis = Self::default();
        basis.add_file(OWN.loader);
        basis.add_file(search::PRELOAD);
        for path in search::preloaded() {
            basis.add_file(&text(&path));
        }
        if let Some(path) = real_interpreter(python) {
            basis.add_file(&path);
        }
        for folder in search::listed(library_path.unwrap_or_default()) {
            basis.add_folder(&folder);
        }
        libraries.iter().for_each(|library| basis.add_library(library));
        loaded.iter().for_each(|object| basis.add_object(object));
        basis.add_loader(loader);
        let is_compared = |object: &LoadedObject| object.shadowed.iter().any(|copy| !copy.same);
        if loaded.iter().any(is_compared)
            && let Some(source) = symbols::torch_source(&loader.modules)
        {
            basis.add_file(&text(&source));
        }
        for module in kernels {
            let ModuleKernels {
                path,
                package: _, // told anew
                vendor: _,  // by the path
                named: _,   // asked
                // Read from the file, for the list in force. Which files there are is the tree's matter.
                fatbins: _,
                with_kernels: _,
                sass: _,
                ptx: _,
                ptx_isa: _,
                served: _,
                error: _,
                errno: _,
            } = module;
            basis.add_file(path);
        }
        extensions.iter().for_each(|all| basis.add_extensions(all));
        basis
    }

    /// Which libraries there are is the tree's matter.
    fn add_extensions(&mut self, all: &Extensions) {
        let Extensions {
            libraries,
            unresolved: _, // of these
            unread,
            dependents: _,
            sought,
            outside,
            builtins,
        } = all;
        libraries.iter().for_each(|path| self.add_file(path));
        unread.iter().for_each(|path| self.add_file(path));
        for name in sought {
            self.names.insert(name.clone(), String::new());
            self.by_system.insert(name.clone(), String::new());
        }
        outside.iter().for_each(|path| self.add_file(path));
        builtins.iter().for_each(|path| self.add_file(path));
    }

    fn add_file(&mut self, path: &str) {
        // A SONAME is no path.
        if path.contains('/') {
            self.files.insert(path.to_string(), String::new());
        }
    }

    fn add_folder(&mut self, folder: &Path) {
        for folder in search::with_better(folder) {
            self.searched.insert(text(&folder), String::new());
        }
    }

    fn add_library(&mut self, library: &Library) {
        let Library {
            kind: _, // asked
            path,    // asked as well, where it has no slash
            origin,  // asked
            answer,
        } = library;
        self.add_file(path);
        if let Some(answer) = answer {
            let LibraryAnswer {
                index: _,
                path,
                // The file's own words.
                version: _,
                error: _,
                error_code: _,
                nvrtc_archs: _,
                release,
                sublibrary,
            } = answer;
            path.iter().for_each(|path| self.add_file(path));
            sublibrary
                .iter()
                .for_each(|path| self.add_sublibrary(path, release.as_deref().unwrap_or_default()));
        }
        if *origin == LibraryOrigin::Loader {
            self.names.insert(path.clone(), String::new());
            self.by_system.insert(path.clone(), String::new());
        }
    }

    /// A file that was looked for under its name with all of the release's numbers, some, and none.
    fn add_sublibrary(&mut self, path: &str, release: &str) {
        self.add_file(path);
        let name = path.rsplit('/').next().unwrap_or_default();
        let mut name = name.split_once(".so").map_or(name, |(stem, _)| stem).to_string() + ".so";
        self.names.insert(name.clone(), String::new());
        for number in release.split('.') {
            name = format!("{name}.{number}");
            self.names.insert(name.clone(), String::new());
        }
    }

    fn add_object(&mut self, object: &LoadedObject) {
        let LoadedObject {
            name,
            path,
            real: _,      // a link counts by what it leads to
            needed_by: _, // said by files of the list
            program: _,   // asked
            found_by,
            shadowed,
        } = object;
        // The driver is mounted when a container starts; the device part says which.
        if is_drivers(name.rsplit('/').next().unwrap_or_default()) {
            return;
        }
        path.iter().for_each(|path| self.add_file(path));
        shadowed.iter().for_each(|copy| self.add_file(&copy.path));
        if !name.contains('/') {
            self.names.insert(name.clone(), String::new());
        }
        match found_by {
            Some(FoundBy::Rpath { .. } | FoundBy::LibraryPath { .. } | FoundBy::Runpath { .. }) => {}
            Some(FoundBy::System) | None => {
                self.by_system.insert(name.clone(), String::new());
            }
        }
    }

    fn add_loader(&mut self, run: &LoaderRun) {
        let LoaderRun {
            end: _,              // as the helper's
            modules: _,          // asked
            missing_versions: _, // said by files of the list
            refused,
            stubs: _, // found out anew
            searched,
            notes: _, // asked
            ms: _,
        } = run;
        refused.iter().for_each(|refused| self.add_file(&refused.path));
        searched
            .iter()
            .for_each(|folder| self.add_folder(Path::new(folder)));
    }

    /// `cached` is what [`Self::cached`] says.
    fn stamps(&self, cached: &Texts) -> Texts {
        let mut all = Texts::new();
        for path in self.files.keys() {
            all.insert(path.clone(), stamp(Path::new(path)));
        }
        // Behind ld.so.cache come the default folders.
        for name in self.by_system.keys().filter(|name| !cached.contains_key(*name)) {
            for path in search::default_places(name).filter(|_| !name.contains('/')) {
                all.insert(text(&path), stamp(&path));
            }
        }
        all
    }

    /// Names that came, went or took another's place in a folder that is searched.
    fn folders(&self, python: &Python) -> Texts {
        let mut all = Texts::new();
        let mut add = |folder: &Path, counts: &dyn Fn(&files::Entry) -> bool| {
            let mut names = String::new();
            match files::list(folder) {
                Ok(entries) => entries.iter().filter(|entry| counts(entry)).for_each(|entry| {
                    names.push_str(&entry.name.to_string_lossy());
                    names.push('/');
                }),
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) => {}
                Err(e) => names = format!("{UNREAD}: {e}"),
            }
            if !names.is_empty() {
                all.insert(text(folder), names);
            }
        };
        for site in &python.site_packages {
            // What is below is the tree's matter.
            add(Path::new(site), &tree::counts);
        }
        if let Some(prefix) = &python.prefix {
            add(&Path::new(prefix).join("conda-meta"), &|_| true);
        }
        for folder in self.searched.keys() {
            add(Path::new(folder), &|entry| {
                entry.text().is_some_and(|name| self.names.contains_key(name))
            });
        }
        all
    }

    /// Of which level this processor is, if any folder that is searched is for processors of some level.
    fn processor(&self, cached: &Texts) -> String {
        let cached = cached.values().flat_map(|paths| paths.split(':'));
        let mut paths = self.searched.keys().map(String::as_str).chain(cached);
        if paths.any(|path| search::is_better(Path::new(path))) {
            search::level().to_string()
        } else {
            String::new()
        }
    }

    /// Where ld.so.cache leads for the names that nothing else led to. The file itself is another in each container: the
    /// NVIDIA runtime lets ldconfig write it anew, with the driver's libraries.
    fn cached(&self) -> Texts {
        let mut all = Texts::new();
        search::cache(&mut |name, path| {
            // Another ldconfig may call a folder by another of its names: /lib and /usr/lib are often one.
            if self.by_system.contains_key(name)
                && let Ok(real) = Path::new(path).canonicalize()
            {
                let paths = all.entry(name.to_string()).or_default();
                if !paths.is_empty() {
                    paths.push(':');
                }
                paths.push_str(&text(&real));
            }
        });
        all
    }
}

/// What the libraries and the loader are asked: copies of the runtime that were found, before any of them answered, and
/// the modules of the stack.
pub fn asked(copies: &[Library], modules: &Asked, named: &[NamedLibraries]) -> Texts {
    let mut all = Texts::new();
    let lines = copies
        .iter()
        .map(|copy| format!("{:?} {:?} {}", copy.kind, copy.origin, copy.path));
    all.insert(COPIES.to_string(), lines.collect::<Vec<_>>().join(", "));
    let modules = match modules {
        Asked::Nothing => String::new(),
        Asked::Refused(reason) => reason.clone(),
        Asked::NoLoader(reason) => reason.clone(),
        // The manifest's libraries are listed below.
        Asked::Broken(_) => String::new(),
        Asked::Run(request) => [&request.modules[..], &request.notes].concat().join(", "),
    };
    all.insert(MODULES.to_string(), modules);
    // A file that holds no CUDA code may be replaced by one that does.
    let files = named.iter().flat_map(|named| &named.paths);
    let files: Vec<String> = files
        .map(|path| format!("{path} {}", stamp(Path::new(path))))
        .collect();
    let named = match files.as_slice() {
        [] => String::new(),
        all => format!(
            "{} in state {}",
            counted(all.len(), "file"),
            digest(all.iter().map(String::as_str))
        ),
    };
    all.insert(NAMED.to_string(), named);
    all
}

const COPIES: &str = "the list of CUDA libraries";
const MODULES: &str = "the list of the stack's modules";
const NAMED: &str = "the list of the manifest's libraries";

impl ImageKey {
    /// Looks at everything that these facts rest on: names, sizes, times, and a few bytes of each file.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn of(in_force: Texts, asked: Texts, facts: &CachedFacts, python: &Python) -> Result<Self, String> {
        let trees = tree::of(&python.site_packages)?;
        Ok(Self {
            trees,
            asked,
            ..Self::without_trees(in_force, facts, python)
        })
    }

    fn without_trees(in_force: Texts, facts: &CachedFacts, found: &Python) -> Self {
        let library_path = in_force.get("LD_LIBRARY_PATH").map(String::as_str);
        let basis = Basis::of(facts, found, library_path);
        let cached = basis.cached();
        Self {
            python: python(found),
            files: basis.stamps(&cached),
            folders: basis.folders(found),
            driver: search::in_drivers_place(library_path).map_or_else(String::new, |path| text(&path)),
            processor: basis.processor(&cached),
            cached,
            in_force,
            ..Self::default()
        }
    }

    /// Names a state of the image: a smoke that passed with one proves nothing of another.
    pub fn digest(&self) -> String {
        let Self {
            in_force,
            python,
            asked,
            files,
            folders,
            trees,
            cached,
            driver,
            processor,
        } = self;
        let all = [in_force, asked, files, folders, cached];
        let texts = all.into_iter().flatten().flat_map(|(name, text)| [name, text]);
        // Times of folders change with the first import, and whether they are listed hangs on them.
        let lines = trees
            .values()
            .flat_map(|lines| lines.lines().map(move |line| (lines.ends_with('\n'), line)));
        let contents = lines.filter_map(|(is_folder, line)| match is_folder {
            true => line.split_once(' ').and_then(|(_, content)| content.get(1..)),
            false => Some(line),
        });
        digest(
            texts
                .chain([python, driver, processor])
                .map(String::as_str)
                .chain(contents),
        )
    }

    /// What is another now, but for what is asked and the trees; each by itself, in words.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = differences(&self.in_force, &now.in_force);
        if self.python != now.python {
            found.push(changed("Python", Some(&self.python), Some(&now.python), ""));
        }
        each(&self.files, &now.files, &mut |path, was, is| {
            found.push(file_changed(path, was.unwrap_or(ABSENT), is.unwrap_or(ABSENT)));
        });
        each(&self.folders, &now.folders, &mut |path, was, is| {
            let said = folder_changed(path, was.unwrap_or(""), is.unwrap_or(""));
            // A file that counts itself is also a name in its folder.
            if !found.contains(&said) {
                found.push(said);
            }
        });
        each(&self.cached, &now.cached, &mut |name, was, is| {
            found.push(changed(&format!("{name} in ld.so.cache"), was, is, ABSENT));
        });
        if self.driver != now.driver {
            found.push(changed(
                "what stands in the driver's place",
                Some(&self.driver),
                Some(&now.driver),
                "",
            ));
        }
        if self.processor != now.processor {
            found.push(changed(
                "the processor",
                Some(&self.processor),
                Some(&now.processor),
                "",
            ));
        }
        found
    }
}

impl ImagePart {
    /// Whether it is worth reading anything: the questions are the same, and the interpreter.
    fn may_hold(&self, in_force: &Texts, found: &Python, now: &Now) -> Vec<String> {
        let mut wrong: Vec<String> = self.written.in_the_future(now.at).into_iter().collect();
        // What the files are would be beside the point where the question is another.
        wrong.extend(differences(&self.key.in_force, in_force));
        let now = python(found);
        if wrong.is_empty() && self.key.python != now {
            wrong.push(changed("Python", Some(&self.key.python), Some(&now), ""));
        }
        wrong
    }

    /// What changed that the kept facts rest on, beside what is asked.
    pub fn changes(&self, in_force: Texts, found: &Python, now: &Now) -> Vec<String> {
        let mut wrong = self.may_hold(&in_force, found, now);
        if wrong.is_empty() {
            wrong = self
                .key
                .differences(&ImageKey::without_trees(in_force, &self.facts, found));
        }
        if wrong.is_empty() {
            wrong = tree::differences(&self.key.trees);
        }
        wrong
    }

    /// The kept facts put into those that were found out anew, if these ask what was asked then.
    ///
    /// # Errors
    /// What is asked now.
    pub fn fill(&self, fresh: ImageFacts, modules: &Asked) -> Result<ImageFacts, Vec<String>> {
        let mut wrong = Vec::new();
        each(
            &self.key.asked,
            &asked(&fresh.libraries, modules, &fresh.named_libraries),
            &mut |what, was, is| {
                wrong.push(changed(what, was, is, ""));
            },
        );
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let library_path = self.key.in_force.get("LD_LIBRARY_PATH").map(String::as_str);
        Ok(self.facts.added_to(fresh, library_path))
    }
}

/// Why facts are not worth keeping although nothing failed: something was not read for a reason of the moment, and
/// would be taken for unread for ever.
pub fn passing_trouble(facts: &CachedFacts) -> Option<String> {
    if !matches!(
        facts.helper.end,
        HelperEnd::NotRun | HelperEnd::Done | HelperEnd::LoaderMissing { .. }
    ) {
        return Some("not every CUDA library could be asked".to_string());
    }
    if let LoaderEnd::Failed { reason } = &facts.loader.end {
        return Some(format!("the loader gave no answer: {reason}"));
    }
    let module = facts.kernels.iter().find(|m| m.errno.is_some())?;
    Some(format!(
        "{} {}",
        module.path,
        module.error.as_deref().unwrap_or_default()
    ))
}

fn file_changed(path: &str, was: &str, is: &str) -> String {
    let parts = |stamp: &str| -> Option<[String; 3]> {
        let parts: Vec<String> = stamp.split(' ').map(str::to_string).collect();
        parts.try_into().ok()
    };
    match (parts(was), parts(is)) {
        (Some([a, ..]), Some([b, ..])) if a != b => format!("{path} changed (size {a}, now {b})"),
        (Some([_, a, _]), Some([_, b, _])) if a != b => {
            format!("{path} changed (written at {a}, now {b}, in seconds since 1970)")
        }
        (Some(_), Some(_)) => format!("{path} changed (its content; size and time are the same)"),
        _ if was == ABSENT => format!("{path} is new"),
        _ if is == ABSENT => format!("{path} is gone"),
        _ if is.starts_with(UNREAD) => format!("{path} {is}"),
        _ => format!("{path} is something else now"),
    }
}

fn folder_changed(path: &str, was: &str, is: &str) -> String {
    // Both are sorted: what is unlike first, came or went.
    let (mut old, mut new) = (
        was.split_terminator('/').peekable(),
        is.split_terminator('/').peekable(),
    );
    while let (Some(a), Some(b)) = (old.peek(), new.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => break,
            std::cmp::Ordering::Greater => return format!("{path}/{b} is new"),
            std::cmp::Ordering::Equal => {
                old.next();
                new.next();
            }
        }
    }
    match (old.next(), new.next()) {
        (Some(name), _) => format!("{path}/{name} is gone"),
        (None, Some(name)) => format!("{path}/{name} is new"),
        (None, None) => format!("{path} changed"),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn real_interpreter(found: &Python) -> Option<String> {
    let path = found.interpreter.as_ref()?;
    let real = Path::new(path).canonicalize();
    Some(real.map_or_else(|_| path.clone(), |real| text(&real)))
}

/// The interpreter's own name does not count: `python` and `python3` are one, and a build has no service command to
/// tell.
fn python(found: &Python) -> String {
    let mut all = real_interpreter(found).unwrap_or_default();
    for part in [&found.prefix, &found.version]
        .into_iter()
        .flatten()
        .chain(&found.site_packages)
    {
        all.push(' ');
        all.push_str(part);
    }
    all
}

#[cfg(test)]
mod tests;
