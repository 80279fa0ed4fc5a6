//! Files that are whole or not there: written under another name in their folder, then renamed.
//!
//! The folder may be everybody's, as an emptyDir is, and this process may be killed at any moment. So a draft has a name
//! that nobody can guess and is made anew; no link is followed; and drafts whose writer is gone are removed by the next
//! one. Who writes holds a lock on his draft, which the kernel gives up for him however he ends.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::discover::files;

/// What a draft's name ends in, behind the file's own name and sixteen hexadecimal digits.
const END: &str = ".draft";

/// How often a draft is begun again that somebody swept away before it was locked.
const TRIES: usize = 3;

/// What writes a draft; it may be called again.
pub type Writing<'a> = dyn FnMut(&mut File) -> io::Result<()> + 'a;

/// Puts what `write` writes in the place of the file at `path`, with this mode whatever the umask; with what the umask
/// leaves where there is none.
///
/// # Errors
/// The system's; what is there then stays as it is, and no draft is left.
pub fn replace(path: &Path, mode: Option<u32>, write: &mut Writing<'_>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    sweep(path, name);
    let mut last = Ok(());
    for _ in 0..TRIES {
        let mut other = OsString::from(".");
        other.push(name);
        other.push(format!(".{:016x}{END}", unguessable()));
        let draft = path.with_file_name(other);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode.map_or(0o666, |mode| mode & 0o700))
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&draft)?;
        last = written(file, mode, write).and_then(|_held| fs::rename(&draft, path));
        match &last {
            Ok(()) => break,
            Err(error) => {
                let is_swept = error.kind() == io::ErrorKind::WouldBlock;
                let _ = fs::remove_file(&draft);
                if !is_swept {
                    break;
                }
            }
        }
    }
    last
}

/// Held until the draft has its name: a file system without locks leaves drafts alone.
enum Held {
    Locked(Flock<File>),
    Free(File),
}

fn written(file: File, mode: Option<u32>, write: &mut Writing<'_>) -> io::Result<Held> {
    let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Held::Locked(locked),
        Err((_, Errno::EWOULDBLOCK)) => return Err(io::ErrorKind::WouldBlock.into()),
        Err((file, _)) => Held::Free(file),
    };
    let file: &mut File = match &mut held {
        Held::Locked(file) => file,
        Held::Free(file) => file,
    };
    write(file)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(held)
}

/// Removes drafts of this file that nobody is writing. What cannot be removed stays.
fn sweep(path: &Path, name: &OsStr) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    for entry in files::list(folder).unwrap_or_default() {
        if !entry.is_dir && !entry.is_link && is_draft(entry.name.as_bytes(), name.as_bytes()) {
            remove_if_left(&folder.join(entry.name));
        }
    }
}

/// `.NAME.0123456789abcdef.draft`, or as releases before had them: `.NAME.HEX` and `NAME.PID.new`.
fn is_draft(entry: &[u8], name: &[u8]) -> bool {
    let is_hex = |digits: &[u8]| (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let middle = |entry: &[u8], end: &[u8]| -> bool {
        let digits = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"."));
        digits.and_then(|rest| rest.strip_suffix(end)).is_some_and(is_hex)
    };
    match entry.strip_prefix(b".") {
        Some(hidden) => middle(hidden, END.as_bytes()) || middle(hidden, b""),
        None => middle(entry, b".new"),
    }
}

fn remove_if_left(path: &PathBuf) {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let Ok(file) = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
    else {
        return;
    };
    let is_ours = |found: fs::Metadata| found.is_file() && found.uid() == nix::unistd::geteuid().as_raw();
    if file.metadata().is_ok_and(is_ours) && Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
        let _ = fs::remove_file(path);
    }
}

/// Writes a file as a whole where the name is free or a file's, and into a device or a FIFO as far as it takes it, without
/// waiting for a reader. Where the folder cannot be written to and the file can (one that is mounted by itself), it is
/// written in its place.
///
/// # Errors
/// The system's, or that a link has the name: it is not followed, since anybody may have put it there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let found = fs::symlink_metadata(path);
    let is_link = found.as_ref().is_ok_and(fs::Metadata::is_symlink);
    // Of a link: /dev/stdout leads to a pipe or a terminal.
    let leads_to_file = || fs::metadata(path).map_or(true, |found| found.is_file());
    if is_link && leads_to_file() {
        return Err(io::Error::other("a symbolic link, which is not followed"));
    }
    let is_file = found.as_ref().is_ok_and(fs::Metadata::is_file);
    if is_file || found.is_err() {
        let replaced = replace(path, None, &mut |file| file.write_all(bytes));
        let errno = replaced
            .as_ref()
            .err()
            .and_then(io::Error::raw_os_error)
            .map(Errno::from_raw);
        let is_mounted = matches!(
            errno,
            Some(Errno::EBUSY | Errno::EROFS | Errno::EACCES | Errno::EPERM)
        );
        if !(is_file && is_mounted) {
            return replaced;
        }
    }
    let mut flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if !is_link {
        flags |= OFlag::O_NOFOLLOW;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open(path)?;
    if is_file {
        file.set_len(0)?;
    }
    file.write_all(bytes)
}

/// A number for the name of a file in a folder that other users may write to.
pub(crate) fn unguessable() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        replace(&path, Some(0o644), &mut |file| file.write_all(b"one")).unwrap();
        let second = fs::File::open(&path).unwrap();
        replace(&path, Some(0o755), &mut |file| file.write_all(b"two")).unwrap();
        assert_eq!(io::read_to_string(second).unwrap(), "one");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        let error = replace(&path, Some(0o644), &mut |file| {
            file.write_all(b"three")?;
            Err(io::Error::other("full"))
        });
        assert_eq!(error.unwrap_err().to_string(), "full");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["r"]);
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(replace(&dir.path().join("d"), Some(0o644), &mut |_| Ok(())).is_err());
        assert_eq!(names(dir.path()), ["d", "r"]);
    }

    #[test]
    fn drafts_of_the_dead_are_removed_and_those_of_the_living_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let stale = [".r.0123456789abcdef.draft", ".r.9f", "r.1.new"];
        let others = [".r.xyz", ".other.0123456789abcdef.draft", "r.bak", "r.1.newer"];
        for name in stale.iter().chain(&others) {
            fs::write(path(name), "").unwrap();
        }
        symlink("r.bak", path(".r.aa.draft")).unwrap();
        let living = path(".r.bb.draft");
        fs::write(&living, "").unwrap();
        let lock = Flock::lock(fs::File::open(&living).unwrap(), FlockArg::LockExclusive).unwrap();
        replace(&path("r"), Some(0o644), &mut |file| file.write_all(b"x")).unwrap();
        let mut left: Vec<&str> = others.to_vec();
        left.extend([".r.aa.draft", ".r.bb.draft", "r"]);
        left.sort_unstable();
        assert_eq!(names(dir.path()), left);
        drop(lock);
        replace(&path("r"), Some(0o644), &mut |file| file.write_all(b"x")).unwrap();
        assert!(!living.exists());
    }

    #[test]
    fn links_are_not_followed_and_devices_are_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("precious"), "precious").unwrap();
        symlink("precious", path("link")).unwrap();
        symlink("nowhere", path("broken")).unwrap();
        for name in ["link", "broken"] {
            let error = write(&path(name), b"x").unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        assert_eq!(fs::read(path("precious")).unwrap(), b"precious");
        assert!(!path("nowhere").exists());
        write(Path::new("/dev/null"), b"x").unwrap();
        symlink("/dev/null", path("null")).unwrap();
        write(&path("null"), b"x").unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(write(&path("fifo"), b"x").unwrap_err().raw_os_error(), Some(6)); // ENXIO: nobody reads
        write(&path("new"), b"x").unwrap();
        write(&path("new"), b"yy").unwrap();
        assert_eq!(fs::read(path("new")).unwrap(), b"yy");
    }
}
