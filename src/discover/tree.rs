//! Which libraries lie below the folders of an environment: whether the list of libraries with CUDA code is still whole.
//!
//! Every folder that [`super::modules`] looks into counts. One that holds libraries is listed at each start, and they
//! count by size and time and by whether this user may read them. Of one that holds none the time of last change is
//! looked at, which anything that comes there or goes changes, and it is listed where that is another one: an environment
//! has a thousand of these, and the first import may change them all.

use crate::order;
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};

use super::modules::holds_no_library;
use super::sample::Hash;
use super::{files, kernels, threads};

/// Most folders below one entry of a folder of `sys.path`, and all of its texts together, in bytes.
const MAX_FOLDERS: usize = 50_000;
/// Deepest folder, as [`super::modules`] has it.
const MAX_DEPTH: usize = 32;
/// How fresh a change is after which another one may have the same time, in seconds.
const RECENT: u64 = 2;
/// By the path of an entry of a folder of `sys.path`, what is below it: a line a folder, `SECONDS CONTENT PATH`. The
/// content is `d` and what the folders in it come to; or `l` and what libraries and folders come to, of a folder that is
/// listed in any case.
pub type Tree = BTreeMap<String, String>;

/// Lists all of it.
///
/// # Errors
/// What cannot be read, with its path.
pub fn of(site_packages: &[String]) -> Result<Tree, String> {
    let mut found = Tree::new();
    for site in site_packages {
        let site = Path::new(site);
        let entries = match files::list(site) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(unread(site, &e)),
        };
        let counted: Vec<&files::Entry> = entries.iter().filter(|entry| counts(entry)).collect();
        let made = threads::each(&counted, |entry| below_entry(&site.join(&entry.name), entry));
        for (entry, lines) in counted.iter().zip(made) {
            let path = site.join(&entry.name);
            if let Some(lines) = lines? {
                found.insert(path.to_string_lossy().into_owned(), lines);
            }
        }
    }
    Ok(found)
}

fn below_entry(path: &Path, entry: &files::Entry) -> Result<Option<String>, String> {
    if entry.may_be_dir() && path.is_dir() {
        let mut lines = String::new();
        below(path, "", &mut lines, 1)?;
        return Ok(Some(lines));
    }
    let is_library = kernels::is_library(&entry.name);
    is_library.then(|| library(path)).transpose()
}

/// Whether an entry of a folder of `sys.path` is a library or may hold some.
pub fn counts(entry: &files::Entry) -> bool {
    (entry.may_be_dir() && !holds_no_library(&entry.name, 0)) || kernels::is_library(&entry.name)
}

fn below(root: &Path, relative: &str, lines: &mut String, depth: usize) -> Result<(), String> {
    let path = root.join(relative);
    let Some((changed, mut content, folders)) = folder(&path, depth)? else {
        return Ok(());
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    if u64::try_from(changed).is_ok_and(|changed| changed + RECENT >= now) {
        // What is done to it in this very second would not show in its time.
        content.replace_range(..1, "l");
    }
    lines.push_str(&format!("{changed} {content} {relative}\n"));
    if lines.len() > MAX_FOLDERS * 64 || depth >= MAX_DEPTH {
        return Err(format!("{} has too many folders", root.display()));
    }
    for name in folders {
        let next = if relative.is_empty() {
            name
        } else {
            format!("{relative}/{name}")
        };
        below(root, &next, lines, depth + 1)?;
    }
    Ok(())
}

/// What is another now, in the order of the paths. What is new beside the entries is told by [`counts`].
pub fn differences(before: &Tree) -> Vec<String> {
    let entries: Vec<(&String, &String)> = before.iter().collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    threads::on_several(&|| {
        while let Some((path, lines)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(said) = difference(Path::new(path), lines) {
                found.lock().unwrap_or_else(PoisonError::into_inner).push(said);
            }
        }
    });
    let mut all = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    order::sort(&mut all);
    all
}

/// The first difference below one entry.
fn difference(root: &Path, lines: &str) -> Option<String> {
    if !lines.contains('\n') {
        // A library beside the packages.
        return match library(root) {
            Ok(now) if now == lines => None,
            Ok(_) => Some(format!("{} changed", root.display())),
            Err(why) => Some(why),
        };
    }
    let _going = super::reading::begin(root);
    let open = File::open(root).ok();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ' ');
        let (Some(changed), Some(content), Some(relative)) = (parts.next(), parts.next(), parts.next())
        else {
            return Some(format!("{} has an unsupported form", root.display()));
        };
        // From the entry on: most of the time goes into following paths.
        let below = if relative.is_empty() { "." } else { relative };
        let is_unchanged = |open: &File| {
            let found = fstatat(open, below, AtFlags::empty()).ok()?;
            (found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
                && Ok(found.st_mtime) == changed.parse())
            .then_some(())
        };
        if !content.starts_with('l') && open.as_ref().and_then(is_unchanged).is_some() {
            continue;
        }
        let path = if relative.is_empty() {
            root.to_path_buf()
        } else {
            root.join(relative)
        };
        match folder(&path, relative.split('/').count() + 1) {
            Ok(Some((_, now, _))) if now.get(1..) == content.get(1..) => {}
            Ok(None) => return Some(format!("{} is gone", path.display())),
            Ok(_) => {
                return Some(format!(
                    "{}: libraries or folders in it came, went or changed",
                    path.display()
                ));
            }
            Err(why) => return Some(why),
        }
    }
    None
}

/// When a folder was changed, what its libraries and folders come to, and the names of the folders. `None` where it is
/// gone.
fn folder(path: &Path, depth: usize) -> Result<Option<(i64, String, Vec<String>)>, String> {
    let _going = super::reading::begin(path);
    let found = match path.metadata() {
        Ok(found) => found,
        Err(e) if is_gone(&e) => return Ok(None),
        Err(e) => return Err(unread(path, &e)),
    };
    let entries = std::fs::read_dir(path).map_err(|e| unread(path, &e))?;
    let (mut sum, mut libraries, mut folders) = (0_u64, 0_usize, Vec::new());
    for entry in entries {
        let entry = entry.map_err(|e| unread(path, &e))?;
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        let mut hash = Hash::default();
        hash.add(name.as_bytes());
        if kind.is_dir() {
            if holds_no_library(&name, depth) {
                continue;
            }
            folders.push(name.to_string_lossy().into_owned());
        } else if kernels::is_library(&name) {
            hash.add(library(&entry.path())?.as_bytes());
            libraries += 1;
        } else {
            continue;
        }
        // Whichever comes first.
        sum = sum.wrapping_add(hash.value());
    }
    order::sort(&mut folders);
    let kind = if libraries == 0 { 'd' } else { 'l' };
    let content = format!("{kind}{sum:x}");
    Ok(Some((found.mtime(), content, folders)))
}

fn library(path: &Path) -> Result<String, String> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(format!(
            "{} {} {}",
            found.size(),
            found.mtime(),
            may_read(path, &found)
        )),
        Ok(_) => Ok("other".to_string()),
        Err(e) if is_gone(&e) => Ok("absent".to_string()),
        Err(e) => Err(unread(path, &e)),
    }
}

/// Whether this user may read it. Mostly everybody may, and then nobody need ask.
fn may_read(path: &Path, found: &Metadata) -> bool {
    use nix::unistd::{AccessFlags, access};
    found.mode() & 0o444 == 0o444 || access(path, AccessFlags::R_OK).is_ok()
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn unread(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    struct Site(tempfile::TempDir);

    impl Site {
        fn new() -> Self {
            let site = Self(tempfile::tempdir().unwrap());
            for file in [
                "torch/__init__.py",
                "torch/lib/libtorch.so",
                "torch/include/a.h",
                "torch/nn/modules/conv.py",
                "own.so",
                "torch-1.dist-info/METADATA",
            ] {
                site.write(file);
            }
            site
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), "x").unwrap();
        }

        fn age(&self, name: &str) {
            let time = UNIX_EPOCH + Duration::from_secs(1_000);
            File::open(self.path(name)).unwrap().set_modified(time).unwrap();
        }

        fn tree(&self) -> Tree {
            of(&[self.0.path().to_str().unwrap().to_string()]).unwrap()
        }

        /// What a change is called.
        fn after(change: impl FnOnce(&Self)) -> Vec<String> {
            let site = Self::new();
            for folder in ["torch", "torch/nn", "torch/nn/modules", "torch/lib"] {
                site.age(folder);
            }
            let tree = site.tree();
            assert_eq!(differences(&tree), [""; 0]);
            change(&site);
            let root = format!("{}/", site.0.path().display());
            differences(&tree)
                .into_iter()
                .map(|text| text.replace(&root, ""))
                .collect()
        }
    }

    #[test]
    fn what_comes_in_the_same_second_is_seen() {
        let site = Site::new();
        let tree = site.tree();
        site.write("torch/nn/modules/new.so");
        assert_eq!(differences(&tree).len(), 1);
    }

    #[test]
    fn libraries_and_folders_count_and_nothing_else() {
        let tree = Site::new().tree();
        let names: Vec<&str> = tree.keys().map(|path| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["own.so", "torch"]);
        for (change, said) in [
            (
                (|s| s.write("torch/nn/modules/new.so")) as fn(&Site),
                "torch/nn/modules: libraries or folders in it came, went or changed",
            ),
            (
                |s| s.write("torch/nn/new/x.so"),
                "torch/nn: libraries or folders in it came, went or changed",
            ),
            (
                // With the times that it had.
                |s| {
                    s.write("torch/lib/new.so");
                    s.age("torch/lib");
                },
                "torch/lib: libraries or folders in it came, went or changed",
            ),
            (
                |s| fs::write(s.path("torch/lib/libtorch.so"), "longer").unwrap(),
                "torch/lib: libraries or folders in it came, went or changed",
            ),
            (
                |s| fs::remove_dir_all(s.path("torch/nn/modules")).unwrap(),
                "torch/nn: libraries or folders in it came, went or changed",
            ),
            (
                |s| fs::write(s.path("own.so"), "longer").unwrap(),
                "own.so changed",
            ),
            (|s| fs::remove_file(s.path("own.so")).unwrap(), "own.so changed"),
        ] {
            assert_eq!(Site::after(change), [said]);
        }
        for change in [
            (|s| s.write("torch/nn/modules/__pycache__/conv.pyc")) as fn(&Site),
            |s| s.write("torch/nn/modules/new.py"),
            |s| s.write("torch/include/b.so"),
            |s| s.write("torch-1.dist-info/x.so"),
        ] {
            assert_eq!(Site::after(change), [""; 0]);
        }
    }
}
