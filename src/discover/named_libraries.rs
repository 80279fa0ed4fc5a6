//! The manifest's `libraries`: which files their patterns name; and the libraries of a program, where nobody names them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::bytes::RandomFile;
use super::python::{Environment, exec_of_text, unwrap_wrappers};
use super::{elf, files, kernels, modules, unread};
use crate::facts::NamedLibraries;
use crate::order;
use crate::process::launch;
use crate::stack::is_interpreter;

/// Most scripts that lead to one another, and the longest of them in bytes.
const MOST_SCRIPTS: usize = 4;
const MAX_SCRIPT: usize = 64 << 10;
/// Most files that a pattern may name: each has a run of the loader to itself.
const MOST: usize = 1_000;

/// What the patterns name, in their order. Folders and what cannot be examined are left out.
pub fn find(patterns: &[String]) -> Vec<NamedLibraries> {
    let find_one = |pattern: &String| {
        let mut named = NamedLibraries {
            pattern: pattern.clone(),
            ..NamedLibraries::default()
        };
        for found in glob::glob(pattern).into_iter().flatten() {
            let path = match found {
                Ok(path) => path,
                // A directory that this user may not list.
                Err(error) => {
                    unread::note(error.path(), error.error());
                    continue;
                }
            };
            match unread::metadata(&path) {
                Some(facts) if facts.is_file() && named.paths.len() == MOST => named.cut = true,
                Some(facts) if facts.is_file() => named.paths.push(path.to_string_lossy().into_owned()),
                Some(facts) => named.directory |= facts.is_dir(),
                None => {}
            }
        }
        named
    };
    patterns.iter().map(find_one).collect()
}

/// All of their files, each once.
pub fn paths(named: &[NamedLibraries]) -> Vec<PathBuf> {
    let mut seen = order::set([]);
    let all = named.iter().flat_map(|named| &named.paths);
    all.filter(|path| seen.insert(path.as_str()))
        .map(PathBuf::from)
        .collect()
}

/// What [`of_program`] has for the program that a service's command leads to: behind wrappers such as `env` and `tini`, and
/// behind shell scripts that do nothing but settings before their `exec`.
pub fn of_service(command: &[OsString], env: &Environment) -> Vec<String> {
    let mut env = env.clone();
    let mut argv = unwrap_wrappers(command, &mut env);
    for _ in 0..MOST_SCRIPTS {
        let program = argv.first().map(|name| launch::resolve(name, env.get("PATH")));
        let Some(Ok(program)) = program else {
            return Vec::new();
        };
        let text = match files::read_head(&program, MAX_SCRIPT) {
            Ok((text, false)) if text.starts_with(b"#!") => files::lossy(text),
            _ => return of_program(&program),
        };
        let arguments = argv.get(1..).unwrap_or_default();
        match exec_of_text(&text, arguments) {
            Some(next) => argv = unwrap_wrappers(&next, &mut env),
            None => return Vec::new(),
        }
    }
    Vec::new()
}

/// The program that a service starts, where it is one of its own with CUDA code, and the libraries in its folder and in the `lib` beside that which hold CUDA code, as
/// patterns that name each. None where it is a script or Python's interpreter, or has no such library beside it.
fn of_program(program: &Path) -> Vec<String> {
    let Ok(program) = program.canonicalize() else {
        return Vec::new();
    };
    let is_program = RandomFile::open(&program).is_ok_and(|file| elf::dynamic(&file).is_ok());
    let Some(folder) = program.parent().filter(|_| is_program) else {
        return Vec::new();
    };
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if is_interpreter(&name) {
        return Vec::new();
    }
    let mut libraries_found = Vec::new();
    let beside = ["lib", "lib64"].map(|name| folder.parent().unwrap_or(folder).join(name));
    let is_systems = |folder: &Path| ["/", "/usr", "/usr/local"].map(Path::new).contains(&folder);
    let own = [folder.to_path_buf()].into_iter().chain(beside);
    for folder in own.filter(|folder| folder.parent().is_none_or(|parent| !is_systems(parent))) {
        let entries = files::list(&folder).unwrap_or_default().into_iter();
        let libraries =
            entries.filter(|entry| kernels::is_library(&entry.name) && !modules::is_vendors(&entry.name));
        libraries_found.extend(
            libraries
                .map(|entry| folder.join(&entry.name))
                .filter(|path| has_code(path))
                .take(MOST),
        );
    }
    if libraries_found.is_empty() && !has_code(&program) {
        return Vec::new();
    }
    let mut found = vec![program];
    found.extend(libraries_found);
    found
        .iter()
        .filter_map(|path| Some(glob::Pattern::escape(path.to_str()?)))
        .collect()
}

fn has_code(path: &Path) -> bool {
    let file = RandomFile::open(path).ok();
    let sections = file.and_then(|file| kernels::cuda_sections(&file).ok());
    sections.is_some_and(|sections| !sections.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::testing::{Entry, container, library};
    use std::fs;

    fn write(folder: &Path, names: &[&str]) {
        let bytes = library(&[container(&[Entry::sass(90, true)])]);
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &bytes).unwrap();
        }
    }

    #[test]
    fn a_pattern_names_files_of_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        write(
            dir.path(),
            &["lib/a.so", "lib/b.so.1", "lib/deep/c.so", "lib[1]/d.so"],
        );
        let patterns = ["lib/*.so", "lib/*.so.*", "lib/none*", "lib", "lib[[]1]/d.so"];
        let patterns = patterns.map(|pattern| format!("{root}/{pattern}"));
        let found = find(&patterns);
        let counts: Vec<usize> = found.iter().map(|named| named.paths.len()).collect();
        assert_eq!(counts, [1, 1, 0, 0, 1]);
        assert_eq!(paths(&found).len(), 3);
    }

    #[test]
    fn a_program_without_a_dynamic_section_has_no_libraries() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("server"), "#!/bin/sh\n").unwrap();
        assert_eq!(of_program(&dir.path().join("server")), Vec::<String>::new());
    }
}
