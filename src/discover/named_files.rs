//! The files that a manifest names: its `files`, in some site-packages folder, and the programs of its own commands.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::unread;
use crate::facts::NamedFile;
use crate::process::launch::{self, LaunchError};
use crate::stack::{SmokeEntry, Stack};

/// What a command of the manifest calls the interpreter of the environment, wherever the image has it.
const INTERPRETERS: [&str; 2] = ["python", "python3"];

/// The program of a command: for `python` and `python3` the interpreter that is judged, where there is one.
///
/// # Errors
/// There is no such program, or it cannot be executed.
pub fn program(name: &str, interpreter: Option<&str>, path: Option<&OsStr>) -> Result<PathBuf, LaunchError> {
    match interpreter.filter(|_| INTERPRETERS.contains(&name)) {
        Some(interpreter) => Ok(PathBuf::from(interpreter)),
        None => launch::resolve(OsStr::new(name), path),
    }
}

/// Looks for the programs of the manifest's own commands, each once.
pub fn programs(stack: &Stack, interpreter: Option<&str>, path: Option<&OsStr>) -> Vec<NamedFile> {
    let mut found: Vec<NamedFile> = Vec::new();
    for entry in &stack.smoke {
        let SmokeEntry::Command { argv, .. } = entry else {
            continue;
        };
        let Some(name) = argv.first() else { continue };
        if found.iter().all(|known| known.name != *name) {
            found.push(NamedFile {
                name: name.clone(),
                path: program(name, interpreter, path)
                    .ok()
                    .map(|path| path.to_string_lossy().into_owned()),
            });
        }
    }
    found
}

/// Looks for each name in the folders, in their order. A symbolic link that leads nowhere is not a find.
pub fn find(site_packages: &[String], names: &[String]) -> Vec<NamedFile> {
    names
        .iter()
        .map(|name| NamedFile {
            name: name.clone(),
            path: site_packages
                .iter()
                .map(|folder| Path::new(folder).join(name))
                .find(|path| unread::metadata(path).is_some())
                .map(|path| path.to_string_lossy().into_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_it_wins() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let header = "cumm/include/tensorview/core/all.h";
        let at_b = b.path().join(header);
        std::fs::create_dir_all(at_b.parent().unwrap()).unwrap();
        std::fs::write(&at_b, "").unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", a.path().join("dangling.h")).unwrap();
        let folders = [a.path(), b.path()].map(|p| p.to_str().unwrap().to_string());
        let found = find(
            &folders,
            &[header.into(), "dangling.h".into(), "cumm/gone.h".into()],
        );
        assert_eq!(found[0].path.as_deref(), at_b.to_str());
        assert_eq!((&found[1].path, &found[2].path), (&None, &None));
    }

    #[test]
    fn python_is_the_judged_interpreter_and_the_rest_is_looked_for_on_path() {
        let stack = Stack::parse(
            r#"{"schema": 1, "name": "t", "smoke": ["torch", {"name": "a", "argv": ["python", "-c", ""]},
                {"name": "b", "argv": ["sh", "x"]}, {"name": "c", "argv": ["sh", "y"]},
                {"name": "d", "argv": ["/nowhere/python"]}, {"name": "e", "argv": ["no-such-program"]}]}"#,
        )
        .unwrap();
        let path = Some(OsStr::new("/nowhere:/bin"));
        let found = |interpreter| {
            let found = programs(&stack, interpreter, path);
            let pairs = found.into_iter().map(|file| (file.name, file.path));
            pairs.collect::<Vec<_>>()
        };
        let rest = [
            ("sh".to_string(), Some("/bin/sh".to_string())),
            ("/nowhere/python".to_string(), None),
            ("no-such-program".to_string(), None),
        ];
        let judged = found(Some("/opt/venv/bin/python3.11"));
        assert_eq!(judged[0].1.as_deref(), Some("/opt/venv/bin/python3.11"));
        assert_eq!(judged[1..], rest);
        assert_eq!(programs(&stack, None, Some(OsStr::new("/nowhere")))[0].path, None);
    }
}
