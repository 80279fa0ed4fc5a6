//! From a path to an interpreter: folders, broken links, scripts and pyenv's shims.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Candidate, PythonQuery, command};
use crate::discover::files;
use crate::facts::ClosedFolder;
use crate::process::closed;
use crate::text::one_line;

/// What a candidate turned out to be.
pub struct Found {
    /// the interpreter as named; `None` for an environment's folder without one
    pub path: Option<PathBuf>,
    /// where it lies once links are followed
    pub real: Option<PathBuf>,
    /// the folder, where that is all there is
    pub folder: Option<PathBuf>,
}

/// A file that may be executed. Links are followed.
pub fn is_executable(path: &Path) -> bool {
    let _going = crate::discover::reading::begin(path);
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// A symbolic link that leads nowhere, or round in circles.
pub fn is_dangling(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) && std::fs::metadata(path).is_err()
}

/// `python`, `python3`, `python3.11`, `python3.13t`, `python3.11d`.
pub fn is_python_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("python") else {
        return false;
    };
    let rest = rest.strip_suffix(['t', 'd']).unwrap_or(rest);
    rest.is_empty() || rest.starts_with(['2', '3']) && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// `python3.11-dbg` and `pypy3` as well.
pub fn is_called_python(name: &str) -> bool {
    ["python", "pypy", "graalpy"]
        .iter()
        .any(|stem| name.starts_with(stem))
}

/// Whether this is not a compiled program, or one that is called like a Python (`pypy3` and `python3.11-dbg` as well),
/// by its own name or that of the file that it links to.
pub fn may_be_python(path: &Path) -> bool {
    let named = |path: &Path| is_called_python(&path.file_name().unwrap_or_default().to_string_lossy());
    !path.is_file()
        || files::read_head(path, 4).is_ok_and(|(head, _)| head != b"\x7fELF")
        || named(path)
        || path.canonicalize().is_ok_and(|real| named(&real))
}

/// The interpreter of an environment's folder, or the folder alone where it can hold packages.
///
/// # Errors
/// What is missing, as a sentence.
pub fn of_folder(query: &PythonQuery<'_>, candidate: &Candidate) -> Result<Found, String> {
    let folder = &candidate.path;
    for name in ["bin/python3", "bin/python"] {
        let path = folder.join(name);
        if is_executable(&path) {
            return of_file(
                query,
                &Candidate {
                    path,
                    env: candidate.env.clone(),
                    script_folder: candidate.script_folder.clone(),
                    ..*candidate
                },
            );
        }
    }
    let entries = files::list(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let holds_packages = entries
        .iter()
        .any(|e| e.text().is_some_and(|n| n.ends_with(".dist-info")));
    if holds_packages || !super::prefix::library_names(folder).is_empty() {
        return Ok(Found {
            path: None,
            real: None,
            folder: Some(folder.clone()),
        });
    }
    let broken = ["bin/python3", "bin/python"]
        .map(|n| folder.join(n))
        .into_iter()
        .find(|p| is_dangling(p));
    Err(match broken {
        Some(path) => dangling(&path),
        None => format!("{} has neither bin/python3 nor lib/python3.*", folder.display()),
    })
}

/// The interpreter that a file is, or that a pyenv shim or a script leads to.
///
/// # Errors
/// Why it is none, as a sentence.
pub fn of_file(query: &PythonQuery<'_>, candidate: &Candidate) -> Result<Found, String> {
    let path = &candidate.path;
    let _going = crate::discover::reading::begin(path);
    let shown = path.display();
    if is_dangling(path) {
        return Err(dangling(path));
    }
    match std::fs::metadata(path) {
        Err(e) => return Err(format!("{shown}: {e}")),
        Ok(m) if !m.is_file() => return Err(format!("{shown} is not a file")),
        Ok(m) if m.permissions().mode() & 0o111 == 0 => return Err(format!("{shown} is not executable")),
        Ok(_) => {}
    }
    // One that may be executed but not read tells nothing, which is no reason to refuse it.
    let head = files::read_head(path, 4)
        .map(|(bytes, _)| bytes)
        .unwrap_or_else(|_| b"\x7fELF".to_vec());
    if head.starts_with(b"#!") {
        let next = match shim_target(query, candidate)? {
            Some(target) => target,
            None => command::of_script(query, &candidate.env, path)?.path,
        };
        // A script that leads to a script is not followed: nobody does that, and circles would be possible.
        if files::read_head(&next, 2).is_ok_and(|(bytes, _)| bytes == b"#!") {
            return Err(format!(
                "{shown} leads to {}, which is a script as well",
                next.display()
            ));
        }
        return found(next);
    }
    if !head.starts_with(b"\x7fELF") {
        return Err(format!("{shown} is neither a program nor a script"));
    }
    found(path.clone())
}

fn found(path: PathBuf) -> Result<Found, String> {
    let real = path
        .canonicalize()
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Found {
        path: Some(path),
        real: Some(real),
        folder: None,
    })
}

/// The folder that keeps this user from an interpreter, or from that of an environment's folder.
pub fn closed_folder(path: &Path) -> Option<ClosedFolder> {
    let names = ["", "bin/python3", "bin/python"];
    names.iter().find_map(|name| {
        let interpreter = if name.is_empty() {
            path.to_path_buf()
        } else {
            path.join(name)
        };
        let folder = closed::on_the_way(&interpreter)?;
        Some(ClosedFolder {
            interpreter: one_line(&interpreter.to_string_lossy(), 500),
            folder: one_line(&folder.to_string_lossy(), 500),
        })
    })
}

fn dangling(path: &Path) -> String {
    let target = std::fs::read_link(path).unwrap_or_default();
    if let Some(closed) = closed_folder(path) {
        return format!(
            "{} leads to {}, and this user may not enter {}",
            path.display(),
            target.display(),
            closed.folder
        );
    }
    format!(
        "{} is a symbolic link to {}, which is not there",
        path.display(),
        target.display()
    )
}

/// Where a pyenv shim leads; `None` for what is no shim.
///
/// Source: pyenv's README, "Understanding Python version selection": `PYENV_VERSION`, `.python-version` in the working
/// folder or above it, `$(pyenv root)/version`; the first version listed that has the command wins.
fn shim_target(query: &PythonQuery<'_>, candidate: &Candidate) -> Result<Option<PathBuf>, String> {
    let path = &candidate.path;
    let Some(shims) = path.parent().filter(|p| p.file_name() == Some("shims".as_ref())) else {
        return Ok(None);
    };
    let root = match candidate.env.get("PYENV_ROOT") {
        Some(root) => query.absolute(Path::new(root)),
        None => shims.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    let versions = root.join("versions");
    let Some(name) = path.file_name().filter(|_| versions.is_dir()) else {
        return Ok(None);
    };
    let (chosen, source) = match candidate.env.get("PYENV_VERSION") {
        Some(version) => (
            version.to_string_lossy().replace(':', "\n"),
            "PYENV_VERSION".to_string(),
        ),
        None => version_file(query.cwd, &root)
            .map_err(|e| format!("{} is a pyenv shim, and {e}", path.display()))?,
    };
    named_versions(&chosen)
        .find_map(|version| installed_version(&versions, version))
        .map(|folder| folder.join("bin").join(name))
        .filter(|target| is_executable(target))
        .map(Some)
        .ok_or_else(|| {
            format!(
                "{} is a pyenv shim, and no version that {source} names has a {}",
                path.display(),
                name.to_string_lossy()
            )
        })
}

/// The versions that a `.python-version` names, in its order. None of them leads out of pyenv's folder.
pub fn named_versions(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|l| l.split('#').next().unwrap_or_default().trim())
        .filter(|l| !l.is_empty() && !l.contains('/'))
}

/// The text of the version file that counts, and its path.
fn version_file(cwd: &Path, root: &Path) -> io::Result<(String, String)> {
    let local = cwd.ancestors().map(|folder| folder.join(".python-version"));
    for file in local.chain([root.join("version")]) {
        match files::read_text(&file, files::SMALL_FILE) {
            Ok(text) => return Ok((text, file.display().to_string())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", file.display()))),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "no file says which version it leads to",
    ))
}

/// `3.11.7`, or the newest 3.11 for `3.11`.
fn installed_version(versions: &Path, wanted: &str) -> Option<PathBuf> {
    let exact = versions.join(wanted);
    if exact.is_dir() {
        return Some(exact);
    }
    let prefix = format!("{wanted}.");
    files::list(versions)
        .ok()?
        .into_iter()
        .filter_map(|e| {
            let name = e.text()?;
            let micro: u32 = name.strip_prefix(&prefix)?.parse().ok()?;
            Some((micro, versions.join(name)))
        })
        .max()
        .map(|(_, path)| path)
}
