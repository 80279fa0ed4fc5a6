//! What a smoke runs: the packages as their metadata tells them, code that Python runs when it starts, and the manifest's
//! own commands, of which no package tells the version.
//!
//! Of these the programs, the files that their arguments name, and the code in the working folder count. Code that lies
//! elsewhere, and what it reads, does not.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::key::digest;
use crate::discover::sample::stamp;
use crate::discover::{editable, files, named_files, wheels};
use crate::facts::{Distribution, EditableTrap, ImageFacts, NamedFile, Python};
use crate::order;
use crate::stack::{SmokeEntry, Stack};

/// Most entries of the working folder that are looked at, and the deepest folder.
const MAX_ENTRIES: usize = 4096;
const MAX_DEPTH: usize = 8;

/// The commands of a manifest.
#[derive(Clone, Debug, Default)]
pub struct UserCommands {
    argvs: Vec<Vec<String>>,
    path: Option<OsString>,
}

impl UserCommands {
    /// `path` is the service's PATH.
    pub fn of(stack: &Stack, path: Option<&OsStr>) -> Self {
        let argv = |entry: &SmokeEntry| match entry {
            SmokeEntry::Command { argv, .. } => Some(argv.clone()),
            SmokeEntry::Builtin(_) | SmokeEntry::Native(_) => None,
        };
        Self {
            argvs: stack.smoke.iter().filter_map(argv).collect(),
            path: path.map(OsStr::to_os_string),
        }
    }

    /// Names a state of the image and of this code. Not for the main thread: a file system may hang.
    pub fn state(&self, image: &str, facts: &ImageFacts) -> String {
        let image = digest([image, &digest(texts(facts).iter().map(String::as_str))]);
        let interpreter = facts.python.interpreter.as_deref();
        match std::env::current_dir() {
            _ if self.argvs.is_empty() => image,
            Ok(folder) => self.state_in(&image, &folder, interpreter),
            Err(_) => self.state_in(&image, Path::new("/"), interpreter),
        }
    }

    fn state_in(&self, image: &str, folder: &Path, interpreter: Option<&str>) -> String {
        let mut texts = vec![image.to_string()];
        let mut add = |path: &Path| texts.push(format!("{} {}", path.display(), stamp(path)));
        for argv in &self.argvs {
            let program = argv.first().map_or("", String::as_str);
            if let Ok(program) = named_files::program(program, interpreter, self.path.as_deref()) {
                add(&program);
            }
            let named = argv.iter().skip(1).map(|word| folder.join(word));
            named.filter(|path| path.is_file()).for_each(|path| add(&path));
        }
        code(folder).iter().for_each(|path| add(path));
        digest(texts.iter().map(String::as_str))
    }
}

/// What Python finds in the environment, in words: the part of an image's state that no receipt keeps, since it is found
/// out at each start.
fn texts(facts: &ImageFacts) -> Vec<String> {
    let ImageFacts {
        python,
        distributions,
        owned,
        files: named,
        named_libraries: _, // the image's key has them
        editable,
        // Of no smoke's proof: it compiles nothing.
        surroundings: _,
        // `UserCommands` has them.
        programs: _,
        // The image's key has them.
        libraries: _,
        helper: _,
        loaded: _,
        loader: _,
        kernels: _,
        extensions: _,
        unread: _,
        compat: _, // no code of the service's
    } = facts;
    let Python {
        // The image's key has these.
        interpreter: _,
        prefix: _,
        conda: _,
        version: _,
        site_packages,
        archives,
        options: _, // compared by themselves
        // Of the service's own start, and not of the smoke's.
        found_by: _,
        working_folder: _,
        script_folder: _,
        notes: _,
        undetermined: _,
        closed_folder: _,
        broken_home: _,
        of_service: _,
        tried: _,
    } = python;
    let mut words: Vec<String> = Vec::new();
    let mut paths: Vec<PathBuf> = archives.iter().map(PathBuf::from).collect();
    for site in site_packages {
        let site = Path::new(site);
        for entry in files::list(site).unwrap_or_default() {
            let name = entry.name.to_string_lossy();
            if name == "__pycache__" {
                continue;
            }
            // Code lines of a .pth, and modules that `site` imports.
            let runs = name.ends_with(".pth")
                || name.starts_with("sitecustomize")
                || name.starts_with("usercustomize");
            match runs {
                true => paths.push(site.join(&entry.name)),
                false => words.push(name.into_owned()),
            }
        }
    }
    for dist in distributions {
        let Distribution {
            path,
            // METADATA, RECORD, variant.json and the module's own version file say all of it.
            name: _,
            version: _,
            module_version: _,
            module_cuda: _,
            // The image's key has libc10.so, as it has each library that torch maps.
            cxx11_abi: _,
            tags: _,
            requires: _,
            extras: _,
            cuda_extras: _,
            variant: _,
            problems: _,
            missing,
            missing_count: _,
            hidden_by,
            unopened,
            unopened_in,
        } = dist;
        let path = Path::new(path);
        let names = [
            "METADATA",
            "RECORD",
            "WHEEL",
            "PKG-INFO",
            "requires.txt",
            "variant.json",
        ];
        paths.extend(names.iter().map(|name| path.join(name)));
        paths.extend(wheels::version_file(dist));
        paths.extend(hidden_by.iter().map(PathBuf::from));
        words.extend_from_slice(missing);
        words.extend_from_slice(unopened);
        words.extend_from_slice(unopened_in);
    }
    // RECORD has the rest of it.
    words.extend(owned.iter().map(|file| format!("{} {}", file.path, file.size)));
    for NamedFile { name: _, path } in named {
        paths.extend(path.as_ref().map(PathBuf::from));
    }
    for EditableTrap {
        package: _,
        path,
        kind: _,
    } in editable
    {
        words.push(path.clone());
    }
    editable::places(site_packages, &mut |path| paths.push(path.to_path_buf()));
    words.extend(
        paths
            .iter()
            .map(|path| format!("{} {}", path.display(), stamp(path))),
    );
    words
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
        order::sort_by(&mut entries, |a, b| a.text().cmp(&b.text()));
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

    fn own(command: &str) -> UserCommands {
        let words = command.split(' ').map(|word| format!("\"{word}\""));
        let argv = words.collect::<Vec<_>>().join(", ");
        let text = format!(
            r#"{{"schema": 1, "name": "t", "smoke": ["torch", {{"name": "own", "argv": [{argv}]}}]}}"#
        );
        UserCommands::of(&Stack::parse(&text).unwrap(), Some(OsStr::new("/usr/bin:/bin")))
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
        let state = || own.state_in("image", folder.path(), None);
        write("weights.bin", "1");
        write("svc/deep/selftest.py", "1");
        let mut before = state();
        assert_eq!(before, state());
        assert_ne!(before, own.state_in("another image", folder.path(), None));
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
        let state = |image| UserCommands::of(&stack, None).state(image, &ImageFacts::default());
        assert_eq!(state("image"), state("image"));
        assert_ne!(state("image"), state("another"));
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
