//! From an interpreter to its environment: `sys.prefix`, the version, and whose packages it shares.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Candidate;
use super::interpreter::Found;
use crate::discover::files;
use crate::order;
use crate::text::one_line;

/// A version of Python as far as files tell it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PyVersion {
    major: u16,
    minor: u16,
    micro: Option<u16>,
}

impl fmt::Display for PyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.micro.map_or(Ok(()), |micro| write!(f, ".{micro}"))
    }
}

impl PyVersion {
    /// Reads `3.11`, `3.11.7`, `3.11.7.final.0` and `3.13.0rc1`; what follows the third number is left out.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let mut number = || {
            let part = parts.next()?;
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end)?.parse().ok()
        };
        Some(Self {
            major: number()?,
            minor: number()?,
            micro: number(),
        })
    }
}

/// Where an interpreter keeps its packages.
pub struct Layout {
    /// `sys.prefix`
    pub prefix: PathBuf,
    /// the version, where anything tells
    pub version: Option<PyVersion>,
    /// the name of its folder below `lib`: `python3.11`, `python3.13t`
    pub library: Option<String>,
    /// what kind of environment it is
    pub kind: Kind,
}

/// Kinds of environments, which differ in where packages are looked for.
pub enum Kind {
    /// an interpreter's own: the system's, conda's, pyenv's, `python:*` images'
    Plain,
    /// PEP 405; `base` is the prefix whose packages are visible as well, if they are
    Venv {
        /// `include-system-site-packages`
        base: Option<PathBuf>,
    },
    /// a folder that holds packages itself (`pip install --target`)
    Packages,
}

/// Works out the layout.
pub fn layout(found: &Found, candidate: &Candidate) -> Layout {
    match (&found.path, &found.real) {
        (Some(path), Some(real)) => match pyvenv(path) {
            Some((prefix, config)) => virtual_environment(prefix, &config, real),
            None => plain(real, candidate),
        },
        _ => of_folder(found.folder.as_deref().unwrap_or(&candidate.path)),
    }
}

fn of_folder(folder: &Path) -> Layout {
    let library = library_names(folder).pop();
    if let Some(config) = read_config(&folder.join("pyvenv.cfg")) {
        // Its interpreter is gone, or links to one outside this image's view.
        let named = library.as_deref().and_then(version_of_name);
        // The file knows the third number, unless it is older than the folder.
        let agrees = |v: &PyVersion| named.is_none_or(|n| (n.major, n.minor) == (v.major, v.minor));
        let version = config.version.filter(agrees).or(named);
        return Layout {
            prefix: folder.to_path_buf(),
            version,
            library: library.or_else(|| version.map(library_name)),
            kind: Kind::Venv { base: None },
        };
    }
    Layout {
        prefix: folder.to_path_buf(),
        version: library.as_deref().and_then(version_of_name),
        kind: if library.is_some() {
            Kind::Plain
        } else {
            Kind::Packages
        },
        library,
    }
}

/// What `pyvenv.cfg` says.
#[derive(Debug, Default, PartialEq)]
pub struct Config {
    /// the folder of the interpreter that it was made from
    pub home: Option<PathBuf>,
    /// whether the packages of that one are visible as well
    pub system_site: bool,
    /// of the day it was made
    pub version: Option<PyVersion>,
}

/// Whether an interpreter is a virtual environment's.
pub fn has_pyvenv(interpreter: &Path) -> bool {
    pyvenv(interpreter).is_some()
}

/// The environment that `pyvenv.cfg`, above the interpreter's folder or in it, declares. Links are not followed: the
/// interpreter of a virtual environment is mostly one.
fn pyvenv(interpreter: &Path) -> Option<(PathBuf, Config)> {
    let folder = interpreter.parent()?;
    let prefix = folder.parent()?;
    let config =
        read_config(&prefix.join("pyvenv.cfg")).or_else(|| read_config(&folder.join("pyvenv.cfg")))?;
    Some((prefix.to_path_buf(), config))
}

fn read_config(path: &Path) -> Option<Config> {
    files::read_text(path, files::SMALL_FILE)
        .ok()
        .map(|text| parse_config(&text))
}

/// `key = value` lines as `site` reads them: keys in any case, the last one counts. virtualenv writes `version_info`,
/// venv `version`. Without the key, site packages of the system are visible.
pub fn parse_config(text: &str) -> Config {
    let mut config = Config {
        system_site: true,
        ..Config::default()
    };
    for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
        let value = value.trim();
        match key.trim().to_lowercase().as_str() {
            "home" => config.home = Some(PathBuf::from(value)),
            "include-system-site-packages" => config.system_site = value.eq_ignore_ascii_case("true"),
            "version" | "version_info" => config.version = PyVersion::parse(value).or(config.version),
            _ => {}
        }
    }
    config
}

fn virtual_environment(prefix: PathBuf, config: &Config, real: &Path) -> Layout {
    // The name of the real interpreter is newer than the file, which keeps the version of the day it was made.
    let own = library_names(&prefix);
    let named = real
        .file_name()
        .and_then(|n| n.to_str())
        .filter(|n| version_of_name(n).is_some());
    let library = named
        .map(str::to_string)
        .or_else(|| config.version.map(library_name).filter(|n| own.contains(n)))
        .or_else(|| own.last().cloned())
        .or_else(|| config.version.map(library_name));
    let home = config.home.as_deref().filter(|h| h.is_absolute());
    // `home` is the folder of the interpreter that it was made from, which may be a link: /bin for /usr/bin.
    let base = home
        .and_then(|h| h.canonicalize().ok())
        .or_else(|| real.parent().map(Path::to_path_buf))
        .and_then(|bin| prefix_above(&bin, library.as_deref()));
    let version = library.as_deref().and_then(version_of_name);
    let exact = base
        .as_deref()
        .zip(library.as_deref())
        .and_then(|(base, library)| header_version(base, library))
        .or(config.version)
        .filter(|v| version.is_none_or(|known| (known.major, known.minor) == (v.major, v.minor)));
    Layout {
        prefix,
        version: exact.or(version),
        library,
        kind: Kind::Venv {
            base: base.filter(|_| config.system_site),
        },
    }
}

fn plain(real: &Path, candidate: &Candidate) -> Layout {
    let named = real
        .file_name()
        .and_then(|n| n.to_str())
        .filter(|n| version_of_name(n).is_some());
    // PYTHONHOME is `prefix` or `prefix:exec_prefix`.
    let home = candidate
        .env
        .get("PYTHONHOME")
        .filter(|_| !candidate.isolation.ignores_environment)
        .and_then(|h| std::env::split_paths(h).next());
    let bin = real.parent().unwrap_or(real);
    let prefix = home
        .or_else(|| prefix_above(bin, named))
        .unwrap_or_else(|| bin.parent().unwrap_or(bin).to_path_buf());
    let library = named.map(str::to_string).or_else(|| library_names(&prefix).pop());
    let version = library.as_deref().and_then(version_of_name);
    let exact = library
        .as_deref()
        .and_then(|l| header_version(&prefix, l))
        .filter(|v| version.is_some_and(|known| (known.major, known.minor) == (v.major, v.minor)));
    Layout {
        prefix,
        version: exact.or(version),
        library,
        kind: Kind::Plain,
    }
}

/// PYTHONHOME, where it has no standard library for this interpreter: neither a folder nor a zip file.
///
/// Source: the Python documentation, "PYTHONHOME" and "The initialization of the sys.path module search path".
pub fn broken_home(layout: &Layout, candidate: &Candidate) -> Option<String> {
    let value = candidate
        .env
        .get("PYTHONHOME")
        .filter(|_| !candidate.isolation.ignores_environment)?;
    let home = std::env::split_paths(value).next()?;
    let library = layout.library.as_deref().filter(|_| home.is_absolute())?;
    let zip = format!("{}.zip", library.replace('.', ""));
    let has_library = LIBRARY_FOLDERS.iter().any(|lib| {
        let folder = home.join(lib);
        ["encodings", "os.py", "os.pyc"]
            .iter()
            .any(|name| folder.join(library).join(name).exists())
            || folder.join(&zip).exists()
    });
    (!has_library).then(|| one_line(&home.to_string_lossy(), 500))
}

/// The nearest folder above the executable with a `lib/python3.*`, as Python looks for its landmark.
fn prefix_above(bin: &Path, library: Option<&str>) -> Option<PathBuf> {
    bin.ancestors()
        .skip(1)
        .take(16)
        .find(|folder| match library {
            Some(name) => LIBRARY_FOLDERS
                .iter()
                .any(|lib| folder.join(lib).join(name).is_dir()),
            None => !library_names(folder).is_empty(),
        })
        .map(Path::to_path_buf)
}

/// Fedora and SUSE keep compiled modules in lib64; their packages may lie in either.
const LIBRARY_FOLDERS: [&str; 2] = ["lib", "lib64"];

/// `python3.11` and its kin below a prefix, the oldest version first. The folder of a standard library wins over one
/// that only holds packages, which the system's other versions may leave behind.
pub fn library_names(prefix: &Path) -> Vec<String> {
    let mut names: Vec<(bool, PyVersion, String)> = LIBRARY_FOLDERS
        .iter()
        .flat_map(|lib| {
            let folder = prefix.join(lib);
            files::list(&folder)
                .unwrap_or_default()
                .into_iter()
                .filter_map(move |entry| {
                    let name = entry.text().filter(|_| entry.may_be_dir())?;
                    let version = version_of_name(name)?;
                    let path = folder.join(name);
                    let standard = ["os.py", "os.pyc"].iter().any(|f| path.join(f).is_file());
                    path.is_dir().then(|| (standard, version, name.to_string()))
                })
        })
        .collect();
    order::sort(&mut names);
    names.dedup_by(|a, b| a.2 == b.2);
    names.into_iter().map(|(_, _, name)| name).collect()
}

/// `python3.11` and `python3.13t`, but not `python3`: a version of two parts.
pub fn version_of_name(name: &str) -> Option<PyVersion> {
    let rest = name.strip_prefix("python")?;
    let rest = rest.strip_suffix(['t', 'd']).unwrap_or(rest);
    let (major, minor) = rest.split_once('.')?;
    Some(PyVersion {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        micro: None,
    })
}

fn library_name(version: PyVersion) -> String {
    format!("python{}.{}", version.major, version.minor)
}

/// The full version, from the headers that most images with pip keep: `#define PY_VERSION "3.11.7"`.
fn header_version(prefix: &Path, library: &str) -> Option<PyVersion> {
    let path = prefix.join("include").join(library).join("patchlevel.h");
    parse_patchlevel(&files::read_text(&path, files::SMALL_FILE).ok()?)
}

/// The version in a `patchlevel.h`.
pub fn parse_patchlevel(text: &str) -> Option<PyVersion> {
    let line = text.lines().find_map(|l| l.strip_prefix("#define PY_VERSION"))?;
    PyVersion::parse(line.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_names_and_texts() {
        let of = |text| PyVersion::parse(text).map(|v| v.to_string());
        assert_eq!(of("3.11").as_deref(), Some("3.11"));
        assert_eq!(of(" 3.11.7 ").as_deref(), Some("3.11.7"));
        assert_eq!(of("3.11.7.final.0").as_deref(), Some("3.11.7"));
        assert_eq!(of("3.13.0rc1").as_deref(), Some("3.13.0"));
        for wrong in ["", "3", "x.y", "3.", "99999.1", "-1.2"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert!(version_of_name("python3.13t").is_some());
        for wrong in [
            "python3",
            "python",
            "pypy3.10",
            "python3.11-config",
            "python3.x",
            "python3.11.7",
        ] {
            assert_eq!(version_of_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn both_makers_of_environments() {
        let venv = parse_config("home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n");
        assert_eq!(venv.home.as_deref(), Some(Path::new("/usr/bin")));
        assert!(!venv.system_site);
        assert_eq!(venv.version.unwrap().to_string(), "3.11.2");
        let virtualenv = parse_config(
            "home=/usr/bin\nimplementation = CPython\nversion_info = 3.12.1.final.0\nvirtualenv = 20\n\
             Include-System-Site-Packages = TRUE\n",
        );
        assert!(virtualenv.system_site);
        assert_eq!(virtualenv.version.unwrap().to_string(), "3.12.1");
        assert!(parse_config("\0\n==\n").system_site);
    }
}
