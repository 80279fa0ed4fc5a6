//! The folders of `sys.path` that can hold distributions, in Python's order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::prefix::{Kind, Layout};
use super::{Candidate, PythonQuery};
use crate::discover::files;
use crate::text::one_line;

/// Most folders that are taken; a path made of thousands of eggs would be a fault in itself.
const MAX_FOLDERS: usize = 512;
/// Most lines of one `.pth` file that are looked at.
const MAX_PTH_LINES: usize = 10_000;
/// Most notes that are kept.
const MAX_NOTES: usize = 32;

/// The folders, what is none and could hold packages as well, and what could not be followed.
pub fn folders(query: &PythonQuery<'_>, candidate: &Candidate, layout: &Layout) -> SysPath {
    let mut path = SysPath::default();
    let isolation = candidate.isolation;
    // A zip that is executed is searched before all others.
    candidate
        .script_folder
        .iter()
        .for_each(|place| path.add_archive(place));
    if !isolation.ignores_environment {
        for entry in candidate
            .env
            .get("PYTHONPATH")
            .into_iter()
            .flat_map(std::env::split_paths)
        {
            path.add(&query.absolute(&entry));
        }
    }
    let user = user_site(query, candidate, layout).filter(|_| !isolation.no_user_site);
    match &layout.kind {
        Kind::Packages => path.add_site(&layout.prefix),
        Kind::Plain => {
            user.iter().for_each(|folder| path.add_site(folder));
            path.add_plain(&layout.prefix, layout);
        }
        // The environment's own come first, then the user's and the system's, which only come together.
        Kind::Venv { base } => {
            if let Some(library) = &layout.library {
                path.add_site_packages(&layout.prefix, library);
            }
            if let Some(base) = base {
                user.iter().for_each(|folder| path.add_site(folder));
                path.add_plain(base, layout);
            }
        }
    }
    path
}

/// PEP 370: `PYTHONUSERBASE`, else `~/.local`; `PYTHONNOUSERSITE` turns it off.
fn user_site(query: &PythonQuery<'_>, candidate: &Candidate, layout: &Layout) -> Option<PathBuf> {
    let variable = |name| {
        candidate
            .env
            .get(name)
            .filter(|_| !candidate.isolation.ignores_environment)
    };
    if variable("PYTHONNOUSERSITE").is_some() {
        return None;
    }
    let base = match (variable("PYTHONUSERBASE"), candidate.env.get("HOME")) {
        (Some(base), _) => query.absolute(Path::new(base)),
        (None, Some(home)) => query.absolute(Path::new(home)).join(".local"),
        (None, None) => return None,
    };
    Some(
        base.join("lib")
            .join(layout.library.as_ref()?)
            .join("site-packages"),
    )
}

/// What a `.pth` file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pth<'a> {
    /// the folders that it names, as written
    pub folders: Vec<&'a str>,
    /// how many lines Python would run
    pub code_lines: usize,
}

/// Reads a `.pth` file as `site` does.
pub fn parse_pth(text: &str) -> Pth<'_> {
    let mut found = Pth::default();
    for line in text.trim_start_matches('\u{feff}').lines().take(MAX_PTH_LINES) {
        if line.starts_with("import ") || line.starts_with("import\t") {
            found.code_lines += 1;
        } else if !line.starts_with('#') && !line.trim().is_empty() {
            found.folders.push(line.trim_end());
        }
    }
    found
}

/// See [`folders`].
#[derive(Default)]
pub struct SysPath {
    /// in Python's order
    pub folders: Vec<String>,
    /// zip files and eggs
    pub archives: Vec<String>,
    /// for the facts
    pub notes: Vec<String>,
    /// lib64 is often a link to lib, and then one folder would count twice
    seen: BTreeSet<PathBuf>,
}

impl SysPath {
    fn note(&mut self, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(one_line(&text, 500));
        }
    }

    /// Adds a folder that exists; says whether it is new.
    fn add(&mut self, folder: &Path) -> bool {
        let Ok(real) = folder.canonicalize() else {
            self.add_archive(folder);
            return false;
        };
        if real.is_file() {
            self.add_archive(folder);
        }
        if !real.is_dir() || self.folders.len() >= MAX_FOLDERS || !self.seen.insert(real) {
            return false;
        }
        match folder.to_str() {
            Some(text) => self.folders.push(text.to_string()),
            None => self.note(format!("{} is not UTF-8 and is left out", folder.display())),
        }
        folder.to_str().is_some()
    }

    /// Adds a zip file, or a folder within one: a place of which a part is a file. Python imports from it.
    fn add_archive(&mut self, place: &Path) {
        let file = place
            .ancestors()
            .find(|part| part.exists())
            .filter(|part| part.is_file());
        let is_archive = file.is_some_and(files::is_zip);
        let text = one_line(&place.to_string_lossy(), 500);
        if is_archive && self.archives.len() < MAX_NOTES && !self.archives.contains(&text) {
            self.archives.push(text);
        }
    }

    /// Adds a site folder and what its `.pth` files name. Theirs are not searched again, as in Python.
    fn add_site(&mut self, folder: &Path) {
        if !self.add(folder) {
            return;
        }
        for entry in files::list(folder).unwrap_or_default() {
            match entry.text() {
                Some(name) if name.ends_with(".pth") && !name.starts_with('.') => {
                    self.add_pth(folder, &folder.join(name));
                }
                _ => {}
            }
        }
    }

    fn add_pth(&mut self, folder: &Path, file: &Path) {
        let text = match files::read_text(file, files::SMALL_FILE) {
            Ok(text) => text,
            Err(e) => return self.note(format!("{} is not read: {e}", file.display())),
        };
        let pth = parse_pth(&text);
        for line in pth.folders {
            self.add(&folder.join(line));
        }
        if pth.code_lines > 0 {
            self.note(format!(
                "{}: {} line(s) of code are not run; folders that they add are not seen",
                file.display(),
                pth.code_lines
            ));
        }
    }

    /// The site folders of an interpreter's own prefix.
    fn add_plain(&mut self, prefix: &Path, layout: &Layout) {
        let Some(library) = &layout.library else { return };
        let debian = [
            prefix.join("local/lib").join(library).join("dist-packages"),
            prefix.join("lib/python3/dist-packages"),
        ];
        if debian.iter().any(|folder| folder.is_dir()) {
            // Debian and Ubuntu: the administrator's pip, then dpkg's. Their interpreter does not look into
            // site-packages; that folder would be one of an interpreter built from source.
            debian.iter().for_each(|folder| self.add_site(folder));
            return self.add_site(&prefix.join("lib").join(library).join("dist-packages"));
        }
        if prefix.join("lib64").join(library).is_dir() {
            // Fedora's pip installs below /usr/local, which its interpreter searches first.
            for lib in ["local/lib64", "local/lib"] {
                self.add_site(&prefix.join(lib).join(library).join("site-packages"));
            }
        }
        self.add_site_packages(prefix, library);
    }

    /// `site-packages` below lib64, where that is a folder of its own and no link to lib, and below lib.
    fn add_site_packages(&mut self, prefix: &Path, library: &str) {
        for lib in ["lib64", "lib"] {
            if lib == "lib" || !prefix.join(lib).is_symlink() {
                self.add_site(&prefix.join(lib).join(library).join("site-packages"));
            }
        }
    }
}
