//! The image part: the facts of the image stage, keyed by the files that they rest on.
//!
//! The key is made from the facts themselves, so that a start makes it anew from the facts that the receipt holds and
//! compares: whoever adds a kind of fact adds here what it rests on. Files count by their path, size and whole second of
//! last change, which is what image layers keep: inodes, devices and times of creation are other ones in each container.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Written;
use super::key::{Texts, changed, differences, digest, each};
use crate::discover::loader::is_drivers;
use crate::discover::{editable, files, kernels, ld_cache, wheels};
use crate::facts::read::object;
use crate::facts::{FoundBy, HelperEnd, ImageFacts, LibraryOrigin, LoadedObject, LoaderEnd, Python};

/// The image part of a receipt.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ImagePart {
    /// when
    pub written: Written,
    /// what has to be the same
    pub key: ImageKey,
    /// what was found
    pub facts: ImageFacts,
}

/// What the facts of an image rest on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ImageKey {
    /// manifest, list, severities, variables
    pub in_force: Texts,
    /// the interpreter with its links followed, `sys.prefix`, the version, and the folders of packages
    pub python: String,
    /// by its path, a file's [`stamp`]
    pub files: Texts,
    /// by its path, the names in a folder, divided by slashes
    pub folders: Texts,
    /// by name, where ld.so.cache leads, links followed, divided by colons
    pub cached: Texts,
}

object!(ImagePart { written, key, facts });
object!(ImageKey {
    in_force,
    python,
    files,
    folders,
    cached
});

/// Of what is no file: a folder, a device or the like.
const OTHER: &str = "other";
/// Of what is not there, or where we may not look.
const ABSENT: &str = "absent";

/// What a path leads to, links followed: `BYTES SECONDS` of a file, the second since 1970; [`OTHER`]; [`ABSENT`]. Opens
/// nothing.
pub fn stamp(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => format!("{} {}", found.size(), found.mtime()),
        Ok(_) => OTHER.to_string(),
        Err(_) => ABSENT.to_string(),
    }
}

impl ImageKey {
    /// Looks at everything that these facts rest on: names, sizes and times, no content but ld.so.cache's.
    pub fn of(in_force: Texts, facts: &ImageFacts) -> Self {
        let library_path = in_force.get("LD_LIBRARY_PATH").map(String::as_str);
        Self {
            python: python(&facts.python),
            files: stamps(facts),
            folders: folders(facts, library_path),
            cached: cached(facts),
            in_force,
        }
    }

    /// Names a state of the image: a smoke that passed with one proves nothing of another.
    pub fn digest(&self) -> String {
        let all = [&self.in_force, &self.files, &self.folders, &self.cached];
        let texts = all.into_iter().flatten().flat_map(|(name, text)| [name, text]);
        digest(texts.chain([&self.python]).map(String::as_str))
    }

    /// What is another now; each by itself, in words.
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
        found
    }
}

impl ImagePart {
    /// The facts, if nothing changed that they rest on, with the interpreter as it was found now.
    ///
    /// # Errors
    /// What changed.
    pub fn recognise(&self, in_force: Texts, found: &Python) -> Result<ImageFacts, Vec<String>> {
        // What the files are would be beside the point where the question is another.
        let mut wrong = differences(&self.key.in_force, &in_force);
        let now = python(found);
        if wrong.is_empty() && self.key.python != now {
            wrong.push(changed("Python", Some(&self.key.python), Some(&now), ""));
        }
        if wrong.is_empty() {
            wrong = self.key.differences(&ImageKey::of(in_force, &self.facts));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(ImageFacts {
            python: found.clone(),
            ..self.facts.clone()
        })
    }
}

/// Why facts are not worth keeping although nothing failed: something was not read for a reason of the moment, and
/// would be taken for unread for ever.
pub fn passing_trouble(facts: &ImageFacts) -> Option<String> {
    if !matches!(
        facts.helper.end,
        HelperEnd::NotRun | HelperEnd::Done | HelperEnd::LoaderMissing { .. }
    ) {
        return Some("not every CUDA library could be asked".to_string());
    }
    if let LoaderEnd::Failed { reason } = &facts.loader.end {
        return Some(format!("the loader gave no answer: {reason}"));
    }
    let unread = |error: &String| error.starts_with("cannot be read");
    let module = facts
        .kernels
        .iter()
        .find(|m| m.error.as_ref().is_some_and(unread))?;
    Some(format!(
        "{} {}",
        module.path,
        module.error.as_deref().unwrap_or_default()
    ))
}

fn file_changed(path: &str, was: &str, is: &str) -> String {
    match (was.split_once(' '), is.split_once(' ')) {
        (Some((a, _)), Some((b, _))) if a != b => format!("{path} changed (size {a}, now {b})"),
        (Some((_, a)), Some((_, b))) => {
            format!("{path} changed (written at {a}, now {b}, in seconds since 1970)")
        }
        _ if was == ABSENT => format!("{path} is new"),
        _ if is == ABSENT => format!("{path} is gone"),
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

/// The files that were read or mapped, and those that were looked for.
fn stamps(facts: &ImageFacts) -> Texts {
    let mut all = Texts::new();
    let mut add = |path: &Path| {
        all.entry(text(path)).or_insert_with(|| stamp(path));
    };
    let sites = &facts.python.site_packages;
    if let Some(path) = real_interpreter(&facts.python) {
        add(Path::new(&path));
    }
    if let Some(prefix) = &facts.python.prefix {
        add(&Path::new(prefix).join("pyvenv.cfg"));
    }
    for dist in &facts.distributions {
        let path = Path::new(&dist.path);
        // An egg-info may be a file itself.
        let names = if dist.path.ends_with(".dist-info") {
            ["METADATA", "RECORD", "WHEEL"]
        } else {
            add(path);
            ["PKG-INFO", "requires.txt", "RECORD"]
        };
        names.iter().for_each(|name| add(&path.join(name)));
        if let Some(path) = wheels::version_file(dist) {
            add(&path);
        }
        // Where both are no failure: what comes or goes is another state.
        let folder = path.parent().unwrap_or(path);
        let lacking = dist.missing.iter().map(|name| folder.join(name));
        lacking
            .chain(dist.hidden_by.iter().map(PathBuf::from))
            .for_each(|path| add(&path));
    }
    for file in &facts.files {
        match &file.path {
            Some(path) => add(Path::new(path)),
            None => sites
                .iter()
                .for_each(|site| add(&Path::new(site).join(&file.name))),
        }
    }
    editable::places(sites, &mut add);
    for library in &facts.libraries {
        // By its SONAME a copy is the loader's choice: the answer has the path.
        let answered = library.answer.as_ref().and_then(|a| a.path.as_ref());
        let own = Some(&library.path).filter(|path| path.contains('/'));
        [answered, own]
            .into_iter()
            .flatten()
            .for_each(|path| add(Path::new(path)));
    }
    for object in facts.loaded.iter().filter(|o| !is_of_driver(o)) {
        if let Some(path) = object.real.as_ref().or(object.path.as_ref()) {
            add(Path::new(path));
        }
    }
    facts.loader.stubs.iter().for_each(|path| add(Path::new(path)));
    facts
        .kernels
        .iter()
        .for_each(|module| add(Path::new(&module.path)));
    all
}

/// The driver is mounted when a container starts; the device part says which.
fn is_of_driver(object: &LoadedObject) -> bool {
    let name = object.name.rsplit('/').next().unwrap_or_default();
    is_drivers(name)
}

/// Names that came, went or took another's place in a folder that is searched.
fn folders(facts: &ImageFacts, library_path: Option<&str>) -> Texts {
    let mut all = Texts::new();
    let mut add = |folder: PathBuf, counts: &dyn Fn(&str) -> bool| {
        let mut names = String::new();
        for entry in files::list(&folder).unwrap_or_default() {
            if let Some(name) = entry.text().filter(|name| counts(name)) {
                names.push_str(name);
                names.push('/');
            }
        }
        all.insert(text(&folder), names);
    };
    for site in &facts.python.site_packages {
        // The first import makes this one.
        add(PathBuf::from(site), &|name| name != "__pycache__");
    }
    // CUDA code mostly comes where there is some already; every folder of an environment would be a thousand.
    let modules = facts.kernels.iter().map(|module| Path::new(&module.path));
    let packages: BTreeSet<&Path> = modules.filter_map(Path::parent).collect();
    for folder in packages {
        if !facts
            .python
            .site_packages
            .iter()
            .any(|site| Path::new(site) == folder)
        {
            add(folder.to_path_buf(), &|name| {
                kernels::is_library(OsStr::new(name))
            });
        }
    }
    if let Some(prefix) = &facts.python.prefix {
        add(Path::new(prefix).join("conda-meta"), &|_| true);
    }
    // Where no wheel brings the runtime, toolkits are looked for.
    if facts.libraries.iter().any(|l| l.origin != LibraryOrigin::Wheel) {
        add(PathBuf::from("/usr/local"), &|name| name.starts_with("cuda"));
    }
    let is_asked = |name: &str| {
        let loaded = || facts.loaded.iter().filter(|o| !is_of_driver(o));
        loaded().any(|o| o.name == name) || facts.libraries.iter().any(|l| l.path == name)
    };
    let listed = library_path.unwrap_or_default().split([':', ';']);
    for folder in listed.filter(|folder| !folder.is_empty()) {
        add(PathBuf::from(folder), &is_asked);
    }
    all
}

/// Where ld.so.cache leads for the names that nothing else led to. The file itself is another in each container: the
/// NVIDIA runtime lets ldconfig write it anew, with the driver's libraries.
fn cached(facts: &ImageFacts) -> Texts {
    let is_asked = |name: &str| {
        let led = |o: &LoadedObject| o.path.is_some() && o.found_by != Some(FoundBy::System);
        let loaded = || facts.loaded.iter().filter(|o| !is_of_driver(o) && !led(o));
        let by_name = |l: &&crate::facts::Library| l.origin == LibraryOrigin::Loader;
        loaded().any(|o| o.name == name) || facts.libraries.iter().filter(by_name).any(|l| l.path == name)
    };
    let cache = files::read_head(Path::new("/etc/ld.so.cache"), ld_cache::MAX_BYTES);
    let cache = cache.map(|(bytes, _)| bytes).unwrap_or_default();
    let mut all = Texts::new();
    ld_cache::each(&cache, &mut |name, path| {
        // Another ldconfig may call a folder by another of its names: /lib and /usr/lib are often one.
        if is_asked(name)
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

#[cfg(test)]
mod tests;
