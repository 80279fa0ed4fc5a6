//! Bounded reading of files that nobody vouches for.
//!
//! An image may hold anything under any name: a FIFO called METADATA, a log of gigabytes called `pyvenv.cfg`, a folder
//! called `version.py`. Opening never blocks, only regular files are read, and never more of them than was asked for.

use crate::order;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::{reading, unread};

/// Most of a small text file (`pyvenv.cfg`, a `.pth`, a version file) that is read, in bytes.
pub const SMALL_FILE: usize = 256 << 10;
/// Most entries of one folder that are looked at. A full torch environment has about a thousand in site-packages.
pub const MAX_ENTRIES: usize = 100_000;

/// Opens a regular file for reading, and nothing else: a FIFO or a device does not block and is refused.
///
/// # Errors
/// The system's error, or `InvalidInput` for what is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let _going = reading::begin(path);
    // O_NONBLOCK: opening a FIFO without a writer would otherwise wait for one. O_NOCTTY: a terminal must not become
    // ours. The standard library sets O_CLOEXEC itself.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = unread::noted(path, opened)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Whether a user other than `us` and root may change an opened file. An access control list counts: the mode shows its
/// mask as the group's part.
pub fn others_may_write(file: &Metadata, us: u32) -> bool {
    (file.uid() != us && file.uid() != 0) || file.mode() & 0o022 != 0 || is_anybody(file.uid())
}

/// Whether an owner may be anybody: in a user namespace the kernel shows one number for all whom its map does not cover,
/// also where a user of the map has that number.
///
/// Source: user_namespaces(7), "Unmapped user and group IDs".
pub fn is_anybody(uid: u32) -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // What nobody changes is not read for the usual owner.
    uid != 0
        && read("/proc/sys/kernel/overflowuid").trim().parse() == Ok(uid)
        && !covers_all(&read("/proc/self/uid_map"))
}

/// Whether a map is that of no user namespace: all numbers, each as itself. Nothing to read is /proc that is not mounted.
fn covers_all(map: &str) -> bool {
    let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
    numbers.is_empty() || numbers == ["0", "0", "4294967295"]
}

/// The first `cap` bytes of a regular file, and whether there is more.
///
/// # Errors
/// As [`open_regular`], and those of reading.
pub fn read_head(path: &Path, cap: usize) -> io::Result<(Vec<u8>, bool)> {
    let _going = reading::begin(path);
    unread::noted(path, head_of(&open_regular(path)?, cap))
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

/// Whether Python could import from this file: a zip by its beginning, or, with a script in front, by its end.
///
/// Source: PKWARE's APPNOTE.TXT, 4.3.16, "End of central directory record", which has 22 bytes where no comment follows.
pub fn is_zip(path: &Path) -> bool {
    let Ok(file) = open_regular(path) else {
        return false;
    };
    let starts = |at: u64, signature: &[u8; 4]| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).is_ok() && bytes == *signature
    };
    let end = file.metadata().ok().and_then(|found| found.len().checked_sub(22));
    starts(0, b"PK\x03\x04") || end.is_some_and(|end| starts(end, b"PK\x05\x06"))
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
/// The system's error on opening the folder or in the middle of it: what was listed by then is not all. Entries that vanish
/// meanwhile are left out.
pub fn list(path: &Path) -> io::Result<Vec<Entry>> {
    let _going = reading::begin(path);
    let mut entries = Vec::new();
    for entry in unread::noted(path, std::fs::read_dir(path))?.take(MAX_ENTRIES) {
        match entry {
            Ok(entry) => {
                let kind = entry.file_type().ok();
                entries.push(Entry {
                    name: entry.file_name(),
                    is_dir: kind.is_some_and(|k| k.is_dir()),
                    is_link: kind.is_some_and(|k| k.is_symlink()),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return unread::noted(path, Err(error)),
        }
    }
    order::sort_by(&mut entries, |a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(entries)
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
    fn nobody_is_somebody_where_all_users_are_mapped() {
        assert!(covers_all("         0          0 4294967295\n") && covers_all(""));
        for map in ["0 100000 65536\n", "0 0 65536\n", "0 1000 1\n65534 65534 1\n"] {
            assert!(!covers_all(map), "{map}");
        }
        assert!(!is_anybody(0) && !is_anybody(1000));
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
    fn names_come_sorted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let names: Vec<_> = list(dir.path()).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
