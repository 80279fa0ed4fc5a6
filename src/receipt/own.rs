//! What the manifest's own smoke commands run: code of which no package tells the version.
//!
//! The programs, the files that their arguments name, and the code in the working folder count by size and time. Code that
//! lies elsewhere, and what it reads, does not.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::image::stamp;
use super::key::digest;
use crate::discover::files;
use crate::launch;
use crate::stack::{SmokeEntry, Stack};

/// Most entries of the working folder that are looked at, and the deepest folder.
const MAX_ENTRIES: usize = 4096;
const MAX_DEPTH: usize = 8;

/// The commands of a manifest.
#[derive(Clone, Debug, Default)]
pub struct Own {
    argvs: Vec<Vec<String>>,
    path: Option<OsString>,
}

impl Own {
    /// `path` is the service's PATH.
    pub fn of(stack: &Stack, path: Option<&OsStr>) -> Self {
        let argv = |entry: &SmokeEntry| match entry {
            SmokeEntry::Command { argv, .. } => Some(argv.clone()),
            SmokeEntry::Builtin(_) => None,
        };
        Self {
            argvs: stack.smoke.iter().filter_map(argv).collect(),
            path: path.map(OsStr::to_os_string),
        }
    }

    /// Names a state of the image and of this code. Not for the main thread: a file system may hang.
    pub fn state(&self, image: &str) -> String {
        match std::env::current_dir() {
            _ if self.argvs.is_empty() => image.to_string(),
            Ok(folder) => self.state_in(image, &folder),
            Err(_) => self.state_in(image, Path::new("/")),
        }
    }

    fn state_in(&self, image: &str, folder: &Path) -> String {
        let mut texts = vec![image.to_string()];
        let mut add = |path: &Path| texts.push(format!("{} {}", path.display(), stamp(path)));
        for argv in &self.argvs {
            let program = argv.first().map_or(OsStr::new(""), OsStr::new);
            if let Ok(program) = launch::resolve(program, self.path.as_deref()) {
                add(&program);
            }
            let named = argv.iter().skip(1).map(|word| folder.join(word));
            named.filter(|path| path.is_file()).for_each(|path| add(&path));
        }
        code(folder).iter().for_each(|path| add(path));
        digest(texts.iter().map(String::as_str))
    }
}

/// The files with code below a folder, those near it first. Nothing of the root folder, which is the whole image.
fn code(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = VecDeque::from([(folder.to_path_buf(), 0)]);
    let mut left = MAX_ENTRIES;
    while let Some((folder, depth)) = waiting
        .pop_front()
        .filter(|(folder, _)| folder.parent().is_some())
    {
        let mut entries = files::list(&folder).unwrap_or_default();
        entries.sort_by(|a, b| a.text().cmp(&b.text()));
        for entry in entries {
            let Some(rest) = left.checked_sub(1) else {
                return found;
            };
            left = rest;
            let Some(name) = entry
                .text()
                .filter(|name| !name.starts_with('.') && *name != "__pycache__")
            else {
                continue;
            };
            let path = folder.join(name);
            if [".py", ".so", ".sh"].iter().any(|end| name.ends_with(end)) {
                found.push(path);
            } else if depth < MAX_DEPTH && path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                waiting.push_back((path, depth + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn own(command: &str) -> Own {
        let words = command.split(' ').map(|word| format!("\"{word}\""));
        let argv = words.collect::<Vec<_>>().join(", ");
        let text = format!(
            r#"{{"schema": 1, "name": "t", "smoke": ["torch", {{"name": "own", "argv": [{argv}]}}]}}"#
        );
        Own::of(&Stack::parse(&text).unwrap(), Some(OsStr::new("/usr/bin:/bin")))
    }

    #[test]
    fn code_that_the_commands_name_or_that_lies_in_the_working_folder_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let own = own("sh weights.bin");
        let state = || own.state_in("image", folder.path());
        write("weights.bin", "1");
        write("svc/deep/selftest.py", "1");
        let mut before = state();
        assert_eq!(before, state());
        assert_ne!(before, own.state_in("another image", folder.path()));
        for (name, counts) in [
            ("weights.bin", true),
            ("svc/deep/selftest.py", true),
            ("svc/new.so", true),
            ("run.sh", true),
            ("service.log", false),
            ("svc/__pycache__/selftest.py", false),
            (".cache/x.py", false),
        ] {
            write(name, "another size");
            let now = state();
            assert_eq!(now != before, counts, "{name}");
            before = now;
        }
    }

    #[test]
    fn without_commands_the_image_is_all() {
        let stack = Stack::parse(r#"{"schema": 1, "name": "t", "smoke": ["torch"]}"#).unwrap();
        assert_eq!(Own::of(&stack, None).state("image"), "image");
    }

    #[test]
    fn neither_the_root_folder_nor_one_without_end_is_walked() {
        assert_eq!(code(Path::new("/")), [""; 0].map(PathBuf::from));
        let folder = tempfile::tempdir().unwrap();
        for number in 0..MAX_ENTRIES + 10 {
            fs::write(folder.path().join(format!("{number}.py")), "").unwrap();
        }
        assert_eq!(code(folder.path()).len(), MAX_ENTRIES);
    }
}
