//! The rules by which tools that run commands in an environment choose it: uv, conda, pixi and their like.
//!
//! See uv's documentation, "Project environment path" and "Discovery of Python environments"; conda's, "conda run" and
//! "envs_dirs"; mamba's, "micromamba run"; pixi's, "Environments"; pdm's, "Working with virtual environments"; poetry's,
//! "Managing environments" and `virtualenvs.in-project`; pipenv's, "Virtualenv mapping"; rye's, "Syncing and locking".

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::wrappers::{Given, Rule};
use super::{Environment, PythonQuery};
use crate::discover::files;

/// The folder of the environment, or nothing where the command runs in the one that is there.
///
/// # Errors
/// Why it cannot be determined, as the end of a sentence that begins with the tool's name.
pub fn environment(
    query: &PythonQuery<'_>,
    env: &Environment,
    rule: Rule,
    tool: Option<&Path>,
    given: &Given,
) -> Result<Option<PathBuf>, String> {
    let place = Place { query, env, given };
    let folder = match rule {
        Rule::Same | Rule::Reset => return Ok(None),
        Rule::Hidden => return Err("chooses what it starts by its own configuration".to_string()),
        Rule::Uv => place.uv()?,
        Rule::Conda => place.conda(tool, place.root_of_conda(tool))?,
        Rule::Mamba => place.conda(tool, place.root_of_mamba(tool))?,
        Rule::Pixi => place.pixi()?,
        Rule::Pdm => place.pdm()?,
        Rule::Poetry => match place.poetry()? {
            Some(folder) => folder,
            None => return Ok(None),
        },
        Rule::Pipenv => place.pipenv()?,
        Rule::Rye => place.project(&["project"], "pyproject.toml")?.join(".venv"),
    };
    match folder.is_dir() || folder.symlink_metadata().is_ok() {
        true => Ok(Some(folder)),
        false => Err(format!("uses {}, which does not exist", folder.display())),
    }
}

struct Place<'a> {
    query: &'a PythonQuery<'a>,
    env: &'a Environment,
    given: &'a Given,
}

impl Place<'_> {
    fn variable(&self, name: &str) -> Option<PathBuf> {
        self.env
            .get(name)
            .map(|value| self.query.absolute(Path::new(value)))
    }

    fn is_on(&self, name: &str) -> bool {
        self.env.get(name).is_some_and(|value| {
            let value = value.to_string_lossy().to_ascii_lowercase();
            !matches!(value.as_str(), "0" | "false" | "no" | "off")
        })
    }

    fn is_off(&self, name: &str) -> bool {
        self.env.get(name).is_some() && !self.is_on(name)
    }

    /// The folder that the tool looks from: that of the first of these options, else the working folder.
    fn base(&self, options: &[&str]) -> PathBuf {
        let value = self
            .given
            .value(options)
            .map_or(OsStr::new(""), OsString::as_os_str);
        self.query.absolute(Path::new(value))
    }

    fn project(&self, options: &[&str], file: &str) -> Result<PathBuf, String> {
        let base = self.base(options);
        above(&base, file).ok_or_else(|| {
            format!(
                "looks for {file} in {} and above, and there is none",
                base.display()
            )
        })
    }

    /// An activated environment; conda's own is none to the tools that ask here.
    fn activated(&self) -> Option<PathBuf> {
        let is_base = self
            .env
            .get("CONDA_DEFAULT_ENV")
            .is_some_and(|name| name == "base");
        self.variable("VIRTUAL_ENV")
            .or_else(|| self.variable("CONDA_PREFIX").filter(|_| !is_base))
    }

    fn uv(&self) -> Result<PathBuf, String> {
        if self.given.has(&[
            "with",
            "w",
            "with-editable",
            "with-requirements",
            "isolated",
            "script",
            "s",
            "gui-script",
        ]) || self.is_on("UV_ISOLATED")
            || self
                .given
                .behind
                .first()
                .is_some_and(|first| self.is_self_contained(first))
        {
            return Err("makes an environment for this run alone".to_string());
        }
        let working = self
            .given
            .value(&["directory"])
            .map(|folder| self.query.absolute(Path::new(folder)))
            .or_else(|| self.variable("UV_WORKING_DIR"))
            .or_else(|| self.variable("UV_WORKING_DIRECTORY"))
            .unwrap_or_else(|| self.query.absolute(Path::new("")));
        let active = self
            .variable("VIRTUAL_ENV")
            .filter(|_| self.given.has(&["active"]));
        if let Some(folder) = active {
            return Ok(folder);
        }
        let base = match self.given.value(&["project"]) {
            Some(folder) => working.join(folder),
            None => self.variable("UV_PROJECT").unwrap_or_else(|| working.clone()),
        };
        let without = self.given.has(&["no-project"]) || self.is_on("UV_NO_PROJECT");
        if let Some(root) = uv_root(&base).filter(|_| !without) {
            let folder = self
                .env
                .get("UV_PROJECT_ENVIRONMENT")
                .unwrap_or(OsStr::new(".venv"));
            return Ok(root.join(folder));
        }
        let chosen = self.given.has(&["python", "p"]) || self.env.get("UV_PYTHON").is_some();
        let beside = || {
            working
                .ancestors()
                .map(|folder| folder.join(".venv"))
                .find(|folder| folder.is_dir())
        };
        self.variable("VIRTUAL_ENV")
            .or_else(|| self.variable("CONDA_PREFIX"))
            .or_else(beside)
            .filter(|_| !chosen)
            .ok_or_else(|| "chooses an interpreter itself, since there is no project here".to_string())
    }

    /// PEP 723: a script that states its requirements has an environment of its own; so has one from elsewhere.
    fn is_self_contained(&self, first: &OsStr) -> bool {
        let text = first.to_string_lossy();
        if text.starts_with("http://") || text.starts_with("https://") {
            return true;
        }
        let path = self.query.absolute(Path::new(first));
        let is_script = text.ends_with(".py") || text.ends_with(".pyw");
        is_script
            && files::read_head(&path, files::SMALL_FILE).is_ok_and(|(head, _)| {
                files::lossy(head)
                    .lines()
                    .any(|line| line.trim_end() == "# /// script")
            })
    }

    fn conda(&self, tool: Option<&Path>, root: Option<PathBuf>) -> Result<PathBuf, String> {
        let home = self.variable("HOME");
        if let Some(prefix) = self.given.value(&["p", "prefix"]) {
            return Ok(self.query.absolute(Path::new(prefix)));
        }
        let Some(name) = self.given.value(&["n", "name"]) else {
            return self
                .variable("CONDA_PREFIX")
                .or(root)
                .ok_or_else(|| "has no environment by name, and its own is not found".to_string());
        };
        named(self.env, name, root.as_deref(), home.as_deref()).ok_or_else(|| {
            let tool = tool.map_or(String::new(), |tool| format!(" of {}", tool.display()));
            format!(
                "uses the environment {}, which is not found among those{tool}",
                Path::new(name).display()
            )
        })
    }

    fn root_of_conda(&self, tool: Option<&Path>) -> Option<PathBuf> {
        let exe = self.variable("CONDA_EXE");
        tool.and_then(conda_above)
            .or_else(|| exe.as_deref().and_then(conda_above))
            .or_else(|| self.variable("MAMBA_ROOT_PREFIX"))
    }

    fn root_of_mamba(&self, tool: Option<&Path>) -> Option<PathBuf> {
        let option = self.given.value(&["r", "root-prefix"]);
        let usual = [".local/share/mamba", "micromamba"];
        option
            .map(|root| self.query.absolute(Path::new(root)))
            .or_else(|| self.variable("MAMBA_ROOT_PREFIX"))
            .or_else(|| tool.and_then(conda_above))
            .or_else(|| {
                let home = self.variable("HOME")?;
                usual
                    .iter()
                    .map(|folder| home.join(folder))
                    .find(|folder| folder.is_dir())
            })
    }

    fn pixi(&self) -> Result<PathBuf, String> {
        let manifest = self.given.value(&["manifest-path", "m"]);
        let root = match manifest.map(|path| self.query.absolute(Path::new(path))) {
            Some(path) if path.is_file() => path.parent().map(Path::to_path_buf).unwrap_or_default(),
            Some(folder) => folder,
            None => {
                above(&self.base(&[]), "pixi.toml").map_or_else(|| self.project(&[], "pyproject.toml"), Ok)?
            }
        };
        let folder = root.join(".pixi/envs");
        let name = match self.given.value(&["e", "environment"]) {
            Some(name) => name.as_os_str(),
            None => {
                let several = files::list(&folder).is_ok_and(|entries| entries.len() > 1);
                let first = self.given.behind.first().map(|word| word.to_string_lossy());
                if several && !first.is_some_and(|word| super::is_python_name(&word)) {
                    return Err(format!(
                        "has several environments in {}, and the task chooses one",
                        folder.display()
                    ));
                }
                OsStr::new("default")
            }
        };
        Ok(folder.join(name))
    }

    fn pdm(&self) -> Result<PathBuf, String> {
        const UNKNOWN: &str = "uses an environment that the project's files do not show";
        if self.given.has(&["venv"]) {
            return Err(UNKNOWN.to_string());
        }
        let root = match self
            .variable("PDM_PROJECT")
            .filter(|_| !self.given.has(&["p", "project"]))
        {
            Some(root) => root,
            None => self.project(&["p", "project"], "pyproject.toml")?,
        };
        let saved = files::read_text(&root.join(".pdm-python"), files::SMALL_FILE).ok();
        let saved = saved.filter(|_| !self.is_on("PDM_IGNORE_SAVED_PYTHON"));
        let interpreter = self.variable("PDM_PYTHON").or_else(|| {
            saved
                .map(|text| PathBuf::from(text.trim()))
                .filter(|path| path.is_absolute())
        });
        if let Some(interpreter) = interpreter {
            return Ok(interpreter);
        }
        if let Some(folder) = self.activated().filter(|_| !self.is_on("PDM_IGNORE_ACTIVE_VENV")) {
            return Ok(folder);
        }
        let mut folders = [".venv", "venv", "env"]
            .iter()
            .map(|name| root.join(name))
            .filter(|f| f.is_dir());
        match (folders.next(), folders.next()) {
            (Some(folder), None) => Ok(folder),
            _ => Err(UNKNOWN.to_string()),
        }
    }

    fn poetry(&self) -> Result<Option<PathBuf>, String> {
        let root = self.project(&["C", "directory", "P", "project"], "pyproject.toml")?;
        if let Some(folder) = self.activated() {
            return Ok(Some(folder));
        }
        let own = root.join(".venv");
        if own.is_dir() && !self.is_off("POETRY_VIRTUALENVS_IN_PROJECT") {
            return Ok(Some(own));
        }
        if self.is_off("POETRY_VIRTUALENVS_CREATE") {
            return Ok(None);
        }
        Err("uses an environment in its own folder, or none, as its configuration says".to_string())
    }

    fn pipenv(&self) -> Result<PathBuf, String> {
        if let Some(folder) = self
            .variable("VIRTUAL_ENV")
            .filter(|_| !self.is_on("PIPENV_IGNORE_VIRTUALENVS"))
        {
            return Ok(folder);
        }
        let root = match self.variable("PIPENV_PIPFILE") {
            Some(file) => file.parent().map(Path::to_path_buf).unwrap_or_default(),
            None => self.project(&[], "Pipfile")?,
        };
        let own = root.join(".venv");
        match own.is_dir() && !self.is_off("PIPENV_VENV_IN_PROJECT") {
            true => Ok(own),
            false => Err("uses an environment in its own folder".to_string()),
        }
    }
}

/// The nearest folder from here upwards that has this file.
fn above(folder: &Path, file: &str) -> Option<PathBuf> {
    let mut folders = folder.ancestors();
    folders
        .find(|folder| folder.join(file).is_file())
        .map(Path::to_path_buf)
}

/// The root of uv's workspace, or the project. A pyproject.toml that is neither is none to uv.
fn uv_root(base: &Path) -> Option<PathBuf> {
    let mut nearest = None;
    for folder in base.ancestors() {
        let Ok(text) = files::read_text(&folder.join("pyproject.toml"), files::SMALL_FILE) else {
            continue;
        };
        let has = |table: &str| text.lines().any(|line| line.trim_start().starts_with(table));
        if has("[tool.uv.workspace]") {
            return Some(folder.to_path_buf());
        }
        if nearest.is_none() && has("[project]") {
            nearest = Some(folder.to_path_buf());
        }
    }
    nearest
}

/// The prefix of conda's that a file belongs to, also where it is a link or a script with its interpreter.
pub fn conda_above(file: &Path) -> Option<PathBuf> {
    let real = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let shebang = files::read_head(&real, 256).ok().and_then(|(head, _)| {
        let head = files::lossy(head);
        let line = head.lines().next()?.strip_prefix("#!")?.trim().to_string();
        Some(PathBuf::from(line.split_whitespace().next()?))
    });
    let mut places = real
        .ancestors()
        .take(4)
        .map(Path::to_path_buf)
        .collect::<Vec<_>>();
    places.extend(
        shebang
            .iter()
            .flat_map(|file| file.ancestors().take(4).map(Path::to_path_buf)),
    );
    places
        .into_iter()
        .find(|folder| folder.join("conda-meta").is_dir())
}

/// An environment of conda's by its name, or by its path.
pub fn named(env: &Environment, name: &OsStr, root: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 {
        return path.is_absolute().then(|| path.to_path_buf());
    }
    if name == "base" || name == "root" {
        return root.map(Path::to_path_buf);
    }
    let variables = ["CONDA_ENVS_PATH", "CONDA_ENVS_DIRS"];
    let listed = variables
        .iter()
        .filter_map(|name| env.get(name))
        .flat_map(std::env::split_paths);
    listed
        .chain(root.map(|root| root.join("envs")))
        .chain(home.map(|home| home.join(".conda/envs")))
        .map(|folder| folder.join(path))
        .find(|folder| folder.is_dir())
}

/// As `activate` leaves the variables.
pub fn activate(env: &mut Environment, folder: &Path) {
    let kind = match folder.join("conda-meta").is_dir() {
        true => "CONDA_PREFIX",
        false => "VIRTUAL_ENV",
    };
    env.set(kind, folder);
    let mut path = folder.join("bin").into_os_string();
    if let Some(old) = env.get("PATH") {
        path.push(":");
        path.push(old);
    }
    env.set("PATH", path);
}
