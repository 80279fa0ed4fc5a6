//! Bounded reading of files that nobody vouches for.
//!
//! An image may hold anything under any name: a FIFO called METADATA, a log of gigabytes called `pyvenv.cfg`, a folder
//! called `version.py`. Opening never blocks, only regular files are read, and never more of them than was asked for.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Most of a small text file (`pyvenv.cfg`, a `.pth`, a version file) that is read, in bytes.
pub const SMALL_FILE: usize = 256 << 10;
/// Most entries of one folder that are looked at. A full torch environment has about a thousand in site-packages.
pub const MAX_ENTRIES: usize = 100_000;

/// Opens a regular file for reading, and nothing else: a FIFO or a device does not block and is refused.
///
/// # Errors
/// The system's error, or `InvalidInput` for what is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: opening a FIFO without a writer would otherwise wait for one. O_NOCTTY: a terminal must not become
    // ours. The standard library sets O_CLOEXEC itself.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Whether a user other than `us` and root may change an opened file. An access control list counts: the mode shows its
/// mask as the group's part.
pub fn others_may_write(file: &Metadata, us: u32) -> bool {
    (file.uid() != us && file.uid() != 0) || file.mode() & 0o022 != 0
}

/// The first `cap` bytes of a regular file, and whether there is more.
///
/// # Errors
/// As [`open_regular`], and those of reading.
pub fn read_head(path: &Path, cap: usize) -> io::Result<(Vec<u8>, bool)> {
    head_of(&open_regular(path)?, cap)
}

/// The same of a file that is open.
///
/// # Errors
/// Those of reading.
pub fn head_of(file: &File, cap: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    if cap > SMALL_FILE {
        // A large file is not to be copied from one room into the next.
        let size = file.metadata().map_or(0, |found| found.len());
        let room = usize::try_from(size).unwrap_or(cap).min(cap);
        bytes.reserve_exact(room.saturating_add(1));
    }
    file.take(as_u64(cap).saturating_add(1)).read_to_end(&mut bytes)?;
    let more = bytes.len() > cap;
    bytes.truncate(cap);
    Ok((bytes, more))
}

/// A whole text file of at most `cap` bytes; what is not UTF-8 becomes U+FFFD.
///
/// # Errors
/// As [`open_regular`], and `FileTooLarge`.
pub fn read_text(path: &Path, cap: usize) -> io::Result<String> {
    match read_head(path, cap)? {
        (_, true) => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {cap} bytes"),
        )),
        (bytes, false) => Ok(lossy(bytes)),
    }
}

/// Bytes as text, without a copy where they are UTF-8.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// One entry of a folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// its name, as the file system has it
    pub name: OsString,
    /// a folder, as the directory itself records it; a symbolic link to one says no
    pub is_dir: bool,
    /// a symbolic link, wherever it leads
    pub is_link: bool,
}

impl Entry {
    /// The name where it is UTF-8, which every name that this project looks for is.
    pub fn text(&self) -> Option<&str> {
        self.name.to_str()
    }

    /// May be a folder: is one, or is a link that may lead to one.
    pub fn may_be_dir(&self) -> bool {
        self.is_dir || self.is_link
    }
}

/// The first [`MAX_ENTRIES`] entries of a folder in the order of their names' bytes, so that two runs agree.
///
/// # Errors
/// The system's error on opening the folder. Entries that vanish meanwhile are left out.
pub fn list(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = std::fs::read_dir(path)?
        .take(MAX_ENTRIES)
        .flatten()
        .map(|entry| {
            let kind = entry.file_type().ok();
            Entry {
                name: entry.file_name(),
                is_dir: kind.is_some_and(|k| k.is_dir()),
                is_link: kind.is_some_and(|k| k.is_symlink()),
            }
        })
        .collect();
    entries.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(entries)
}

/// Text from a file as one line that is safe to print: no control characters, at most `cap` characters.
pub fn printable(text: &str, cap: usize) -> String {
    if text.len() <= cap && text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return text.to_string();
    }
    let mut line: String = text
        .chars()
        .take(cap)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(cap).is_some() {
        line.push('…');
    }
    line
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_cap_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "0123456789").unwrap();
        assert_eq!(read_head(&file, 10).unwrap(), (b"0123456789".to_vec(), false));
        assert_eq!(read_head(&file, 9).unwrap(), (b"012345678".to_vec(), true));
        assert_eq!(read_text(&file, 10).unwrap(), "0123456789");
        assert_eq!(
            read_text(&file, 9).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }

    #[test]
    fn a_fifo_a_folder_and_a_loop_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            read_text(&fifo, 10).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(read_text(dir.path(), 10).is_err());
        let round = dir.path().join("round");
        std::os::unix::fs::symlink(&round, &round).unwrap();
        assert!(read_text(&round, 10).is_err());
    }

    #[test]
    fn a_sparse_file_of_a_terabyte_costs_no_more_than_the_cap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        // Some file systems refuse the size; then there is nothing to test.
        if File::create(&path).unwrap().set_len(1 << 40).is_ok() {
            let (bytes, more) = read_head(&path, 100).unwrap();
            assert_eq!((bytes.len(), more), (100, true));
        }
    }

    #[test]
    fn names_come_sorted_and_text_is_made_printable() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let names: Vec<_> = list(dir.path()).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(printable("a\x1b[31m\nb", 80), "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(printable("abcdef", 3), "abc…");
        assert_eq!(printable("abc", 3), "abc");
    }
}
