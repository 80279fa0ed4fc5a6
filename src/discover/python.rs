//! The Python that the service would run, and its `sys.path`, without running it.
//!
//! Sources: the Python documentation of `site`, `venv` and "The initialization of the sys.path module search path";
//! PEP 370 (user site), PEP 405 (virtual environments); Debian Python Policy (dist-packages); pyenv's README (shims).
//!
//! The places in their order, of which the first that holds an interpreter wins:
//! 1. `--python`, an interpreter or an environment's folder; if it is no good, nothing else is tried
//! 2. the service command's own interpreter, also behind `env`, `tini`, `uv run`, `sh -c` and the like, in a script's `#!`,
//!    or where a start script leads; if it starts one that cannot be determined, nothing else is tried
//! 3. `VIRTUAL_ENV`
//! 4. `CONDA_PREFIX`
//! 5. `python3`, then `python` on `PATH`
//! 6. the usual places of images whose `PATH` was lost

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::facts::{ClosedFolder, Python};
use crate::text::one_line;
use command::Unresolved;

mod command;
mod interpreter;
mod prefix;
mod rules;
mod shell;
mod sys_path;
mod wrappers;

// Pure, and public for whoever tries them with bytes of his own.
pub use command::{
    exec_of_text, first_shell_word, has_long_shebang, interpreter_of_exec, is_shell, isolation,
    may_lead_to_python, unwrap_wrappers,
};
pub use interpreter::{is_python_name, named_versions};
pub use prefix::{Config, PyVersion, parse_config, parse_patchlevel, version_of_name};
pub use shell::stays_beside_its_command;
pub use sys_path::{Pth, parse_pth};

/// The service's environment variables. A value of its own, so that tests and `env NAME=VALUE python` can have others.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// This process's own.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// A variable's value; an empty one counts as unset, as Python and the shells have it for all that is asked here.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let mut all = self.0.iter().rev();
        let (_, value) = all.find(|(known, _)| known == name)?;
        Some(value.as_os_str()).filter(|v| !v.is_empty())
    }

    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        self.unset(&name);
        self.0.push((name, value.into()));
    }

    /// Removes a variable.
    pub fn unset(&mut self, name: &OsStr) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Removes all variables.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        // Of a name that comes twice the last counts.
        Self(pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}

/// Which Python to look for.
#[derive(Clone, Debug)]
pub struct PythonQuery<'a> {
    /// `--python`: an interpreter, its name on `PATH`, or an environment's folder
    pub explicit: Option<&'a Path>,
    /// the service's argv; may be empty
    pub command: &'a [OsString],
    /// the service's environment
    pub env: &'a Environment,
    /// the service's working folder, which relative paths start from
    pub cwd: &'a Path,
    /// folders of environments and of executables for the last resort, see [`USUAL_PLACES`]
    pub usual_places: &'a [PathBuf],
}

/// Where the Python of common images lies: `python:*`, Debian and Ubuntu, conda's images, and what Dockerfiles that
/// make a virtual environment mostly call it.
pub const USUAL_PLACES: [&str; 4] = ["/opt/venv/bin", "/opt/conda/bin", "/usr/local/bin", "/usr/bin"];

/// How Python was told to treat its environment, by its options on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Isolation {
    /// `-E` or `-I`: PYTHON* variables are not read
    pub ignores_environment: bool,
    /// `-s` or `-I`: no user site
    pub no_user_site: bool,
    /// `-S`: no site-packages by itself
    pub no_site: bool,
    /// `-m` or `-c`, without `-I` or `-P`: the working folder is looked into first
    pub working_folder: bool,
}

impl Isolation {
    /// The options that say the same. `-P` alone is none of them: it keeps out the script's own folder only.
    fn options(self) -> Vec<String> {
        let all = [
            (self.ignores_environment, "-E"),
            (self.no_user_site, "-s"),
            (self.no_site, "-S"),
        ];
        all.iter()
            .filter(|(set, _)| *set)
            .map(|(_, option)| option.to_string())
            .collect()
    }
}

/// An interpreter, or a folder without one, that a place led to.
struct Candidate {
    path: PathBuf,
    env: Environment,
    isolation: Isolation,
    /// of the service's script, which Python looks into first; a zip that is executed is itself such a place
    script_folder: Option<PathBuf>,
}

impl PythonQuery<'_> {
    /// Looks and describes. Never fails: what was refused, and why, is in `tried`.
    pub fn find(&self) -> Python {
        let mut attempts = Attempts {
            query: self,
            tried: Vec::new(),
        };
        let found = match self.explicit {
            // What was asked for by name is not replaced by something else behind the asker's back.
            Some(given) => attempts.one(
                "--python",
                Some(self.explicit(given).and_then(not_just_any_program)),
            ),
            None => match command::interpreter(self) {
                Some(Err(Unresolved::Unknown(why))) => return Self::undetermined(&why),
                // What it names is not replaced either: the service would not start with another one.
                Some(Ok(candidate)) => {
                    let path = candidate.path.clone();
                    let found = attempts.one(Python::OF_SERVICE, Some(Ok(candidate)));
                    found.or_else(|| {
                        Some(Python {
                            closed_folder: interpreter::closed_folder(&path),
                            ..Python::default()
                        })
                    })
                }
                Some(Err(Unresolved::NotPython(why))) => {
                    attempts.one(Python::OF_SERVICE, Some(Err(why)));
                    self.elsewhere(&mut attempts)
                }
                None => self.elsewhere(&mut attempts),
            },
        };
        let mut found = found.unwrap_or_default();
        found.of_service = self.explicit.and_then(|_| self.other_of_service(&found));
        Python {
            tried: attempts.tried,
            ..found
        }
    }

    /// The service command's own interpreter, where it belongs to another environment than the one that was named.
    fn other_of_service(&self, named: &Python) -> Option<String> {
        let real = |python: &Python| std::fs::canonicalize(python.prefix.as_deref()?).ok();
        let candidate = command::interpreter(self)?.ok()?;
        let own = self.describe(&candidate).ok()?;
        (real(&own)? != real(named)?).then_some(own.interpreter?)
    }

    /// A Python that could be any.
    fn undetermined(why: &str) -> Python {
        let why = one_line(why, 500);
        Python {
            tried: vec![format!("{}: {why}", Python::OF_SERVICE)],
            undetermined: Some(why),
            ..Python::default()
        }
    }

    /// The places that do not depend on the service.
    fn elsewhere(&self, attempts: &mut Attempts<'_>) -> Option<Python> {
        attempts
            .one("VIRTUAL_ENV", self.variable("VIRTUAL_ENV"))
            .or_else(|| attempts.one("CONDA_PREFIX", self.variable("CONDA_PREFIX")))
            .or_else(|| {
                let paths = ["python3", "python"].map(|name| self.on_path(self.env, name.as_ref()));
                attempts.first("PATH", paths.into_iter().flatten())
            })
            .or_else(|| {
                let paths = self
                    .usual_places
                    .iter()
                    .flat_map(|f| [f.join("python3"), f.join("python")]);
                attempts.first("the usual places", paths.filter(|p| p.exists()))
            })
    }

    /// Why the service's Python would not read what `PYTHONPATH` puts before its own `site`.
    pub fn hindrance(&self) -> Option<String> {
        command::hindrance(self)
    }

    fn candidate(&self, path: PathBuf) -> Candidate {
        Candidate {
            path,
            env: self.env.clone(),
            isolation: Isolation::default(),
            script_folder: None,
        }
    }

    /// A variable that names an environment's folder.
    fn variable(&self, name: &str) -> Option<Result<Candidate, String>> {
        let folder = self.absolute(Path::new(self.env.get(name)?));
        Some(Ok(self.candidate(folder)))
    }

    fn explicit(&self, given: &Path) -> Result<Candidate, String> {
        let here = self.absolute(given);
        let is_bare_name = given.file_name() == Some(given.as_os_str());
        let path = if is_bare_name && !here.exists() {
            self.on_path(self.env, given.as_os_str()).next().ok_or_else(|| {
                format!(
                    "{} is neither in {} nor on PATH",
                    given.display(),
                    self.cwd.display()
                )
            })?
        } else {
            here
        };
        Ok(self.candidate(path))
    }

    /// Everything about the environment that an interpreter, or a folder, belongs to.
    fn describe(&self, candidate: &Candidate) -> Result<Python, String> {
        let found = if candidate.path.is_dir() {
            interpreter::of_folder(self, candidate)?
        } else {
            interpreter::of_file(self, candidate)?
        };
        let layout = prefix::layout(&found, candidate);
        let path = sys_path::folders(self, candidate, &layout);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Ok(Python {
            interpreter: found.path.as_deref().map(text),
            conda: layout.prefix.join("conda-meta").is_dir(),
            prefix: Some(text(&layout.prefix)),
            version: layout.version.map(|v| v.to_string()),
            found_by: None,
            of_service: None,
            options: candidate.isolation.options(),
            working_folder: candidate.isolation.working_folder,
            script_folder: candidate.script_folder.as_deref().map(text),
            site_packages: path.folders,
            archives: path.archives,
            notes: path.notes,
            undetermined: None,
            broken_home: prefix::broken_home(&layout, candidate),
            closed_folder: self.closed_folder(candidate, found.path.as_deref()),
            tried: Vec::new(),
        })
    }

    /// Of the environment's own interpreter, or of one that stands before this one on PATH.
    fn closed_folder(&self, candidate: &Candidate, found: Option<&Path>) -> Option<ClosedFolder> {
        let Some(found) = found else {
            return interpreter::closed_folder(&candidate.path);
        };
        let name = found.file_name()?;
        let mut before: Vec<PathBuf> = Vec::new();
        for path in self.on_path(&candidate.env, name) {
            if path == found {
                return before.iter().find_map(|path| interpreter::closed_folder(path));
            }
            before.push(path);
        }
        None
    }

    /// A path from the service's working folder, as `os.path.abspath` makes it: links keep their names.
    fn absolute(&self, path: &Path) -> PathBuf {
        let mut out = PathBuf::new();
        for component in self.cwd.join(path).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    out.pop();
                }
                other => out.push(other),
            }
        }
        out
    }

    /// The executables of this name in the folders of `PATH`, in execvp's order; broken links too, so that they can
    /// be named.
    fn on_path<'a>(&'a self, env: &'a Environment, name: &'a OsStr) -> impl Iterator<Item = PathBuf> + 'a {
        std::env::split_paths(env.get("PATH").unwrap_or_default())
            .map(move |folder| self.absolute(&folder).join(name))
            .filter(|path| interpreter::is_executable(path) || interpreter::is_dangling(path))
    }
}

/// Refuses a program that nothing marks as a Python: it would be described by whatever lies around it, as `/bin/ls` by
/// the system's Python.
fn not_just_any_program(candidate: Candidate) -> Result<Candidate, String> {
    if interpreter::may_be_python(&candidate.path) || prefix::has_pyvenv(&candidate.path) {
        return Ok(candidate);
    }
    Err(format!(
        "{} is not called python, and no virtual environment is its own",
        candidate.path.display()
    ))
}

/// Collects why places were refused.
struct Attempts<'a> {
    query: &'a PythonQuery<'a>,
    tried: Vec<String>,
}

impl Attempts<'_> {
    /// Describes a candidate; a place that has none is passed over without a word.
    fn one(&mut self, by: &str, candidate: Option<Result<Candidate, String>>) -> Option<Python> {
        match candidate?.and_then(|c| self.query.describe(&c)) {
            Ok(python) => Some(Python {
                found_by: Some(by.to_string()),
                ..python
            }),
            Err(why) => {
                self.tried.push(one_line(&format!("{by}: {why}"), 500));
                None
            }
        }
    }

    /// The first of several that is an interpreter.
    fn first(&mut self, by: &str, paths: impl Iterator<Item = PathBuf>) -> Option<Python> {
        let mut any = false;
        for path in paths {
            any = true;
            let found = self.one(by, Some(Ok(self.query.candidate(path))));
            if found.is_some() {
                return found;
            }
        }
        if !any {
            self.tried.push(format!("{by}: neither python3 nor python there"));
        }
        None
    }
}

#[cfg(test)]
mod tests;
