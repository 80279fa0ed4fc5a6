//! A file's state in a few words, cheap enough for every start.
//!
//! Size and second of last change are what image layers keep; inodes, devices and times of creation are other ones in
//! each container. But images that are made with SOURCE_DATE_EPOCH have one time for all their files, so that a few bytes
//! of the content count as well. A small file is read whole. Of a large one the first page is read, which holds the build
//! ID of a library that has one; of one that has none, more bytes here and there.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::files;

/// Largest file that is read whole, in bytes. A Python module has about 10 KiB.
const WHOLE: usize = 16 << 10;
/// First bytes of a larger one.
const HEAD: usize = 4 << 10;
/// Pieces of one without a build ID, and their bytes.
const PIECES: u64 = 8;
const PIECE: usize = 512;

/// Of what is no file: a folder, a device or the like.
pub const OTHER: &str = "other";
/// Of what is not there.
pub const ABSENT: &str = "absent";
/// How the stamp begins of what this user cannot read.
pub const UNREAD: &str = "cannot be read";

/// What a path leads to, links followed: `BYTES SECONDS SAMPLE` of a file, the second since 1970; [`OTHER`]; [`ABSENT`]; or
/// why this user cannot read it.
pub fn stamp(path: &Path) -> String {
    let _going = super::reading::begin(path);
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) => return unread(&error),
    };
    if !found.is_file() {
        return OTHER.to_string();
    }
    let sampled = files::open_regular(path).and_then(|file| sample(&file, found.size()));
    match sampled {
        Ok(sample) => format!("{} {} {sample:016x}", found.size(), found.mtime()),
        Err(error) => unread(&error),
    }
}

/// Whether two files have the same contents, as far as their sizes and samples say.
pub fn same_contents(a: &Path, b: &Path) -> bool {
    let sampled = |path: &Path| {
        let _going = super::reading::begin(path);
        let file = files::open_regular(path).ok()?;
        let size = file.metadata().ok()?.size();
        Some((size, sample(&file, size).ok()?))
    };
    let size = |path: &Path| std::fs::metadata(path).ok().map(|found| found.size());
    size(a).is_some() && size(a) == size(b) && sampled(a).is_some_and(|first| Some(first) == sampled(b))
}

fn unread(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ABSENT.to_string(),
        _ => format!("{UNREAD}: {error}"),
    }
}

fn sample(file: &File, size: u64) -> io::Result<u64> {
    let mut hash = Hash::default();
    let mut buffer = [0; WHOLE];
    let whole = usize::try_from(size).ok().filter(|size| *size <= WHOLE);
    let head = buffer.get_mut(..whole.unwrap_or(HEAD)).unwrap_or_default();
    file.read_exact_at(head, 0)?;
    hash.add(head);
    if whole.is_some() || has_build_id(head) {
        return Ok(hash.value());
    }
    // Read-ahead would fetch a hundred KiB around each piece.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
    let last = size.saturating_sub(PIECE as u64);
    for number in 1..=PIECES {
        let mut piece = [0; PIECE];
        file.read_exact_at(&mut piece, last / PIECES * number)?;
        hash.add(&piece);
    }
    Ok(hash.value())
}

/// Whether the first bytes of an ELF file hold its build ID: the note GNU of type 3.
///
/// Source: elf(5), "Notes (Nhdr)".
fn has_build_id(head: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let raw = head.get(at..at.checked_add(bytes)?)?;
        let value = raw
            .iter()
            .rev()
            .fold(0_u64, |all, &byte| all << 8 | u64::from(byte));
        usize::try_from(value).ok()
    };
    let note = |mut at: usize, end: usize| {
        while at < end {
            let (name, text, kind) = (number(at, 4)?, number(at + 4, 4)?, number(at + 8, 4)?);
            let from = at.checked_add(12)?;
            let is_gnu = kind == 3 && head.get(from..from.checked_add(4)?) == Some(b"GNU\0");
            let next = from.checked_add(name.checked_next_multiple_of(4)?)?;
            let next = next.checked_add(text.checked_next_multiple_of(4)?)?;
            if is_gnu {
                return (next <= head.len()).then_some(());
            }
            at = next;
        }
        None
    };
    let in_segment = |index: usize| {
        let at = number(32, 8)?.checked_add(index.checked_mul(56)?)?;
        let (kind, from, size) = (
            number(at, 4)?,
            number(at.checked_add(8)?, 8)?,
            number(at.checked_add(32)?, 8)?,
        );
        (kind == 4).then_some(())?;
        note(from, from.checked_add(size)?)
    };
    head.starts_with(b"\x7fELF\x02\x01")
        && (0..number(56, 2).unwrap_or(0)).any(|index| in_segment(index).is_some())
}

/// FNV-1a with 64 bits over words of eight bytes, which takes an eighth of the time; the last word is filled with zeros
/// and followed by the length. It tells things apart that differ by accident.
///
/// Source: <http://www.isthe.com/chongo/tech/comp/fnv/>
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            if let Some(part) = word.get_mut(..chunk.len()) {
                part.copy_from_slice(chunk);
            }
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // A product carries upwards alone.
        self.0 ^= self.0 >> 32;
    }

    /// What all of it comes to.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::UNIX_EPOCH;

    struct Folder(tempfile::TempDir);

    impl Folder {
        /// A file as images with SOURCE_DATE_EPOCH have it.
        fn put(&self, bytes: &[u8]) -> PathBuf {
            let path = self.0.path().join("file");
            fs::write(&path, bytes).unwrap();
            let file = File::options().append(true).open(&path).unwrap();
            file.set_modified(UNIX_EPOCH).unwrap();
            path
        }

        fn stamp(&self, bytes: &[u8]) -> String {
            stamp(&self.put(bytes))
        }
    }

    /// A library whose first page has a note behind its program header.
    fn library(size: usize, id: &[u8; 8], kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; size];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[56] = 1;
        bytes[64] = 4;
        bytes[64 + 8] = 120;
        bytes[64 + 32] = 24;
        bytes[120] = 4;
        bytes[124] = 8;
        bytes[128] = kind;
        bytes[132..136].copy_from_slice(b"GNU\0");
        bytes[136..144].copy_from_slice(id);
        bytes
    }

    #[test]
    fn files_of_one_size_and_time_differ_by_what_is_in_them() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let stamp = |bytes: &[u8]| folder.stamp(bytes);
        for size in [1, 7, 8, 9, WHOLE] {
            let mut bytes = vec![1; size];
            let before = stamp(&bytes);
            assert_eq!(before, stamp(&bytes));
            assert!(before.starts_with(&format!("{size} 0 ")), "{before}");
            for at in [0, size / 2, size - 1] {
                bytes[at] ^= 0x80;
                assert_ne!(before, stamp(&bytes), "{size} {at}");
                bytes[at] ^= 0x80;
            }
        }
        assert_ne!(stamp(b"a"), stamp(b"b"));
        let large = |id: &[u8; 8]| library(1 << 20, id, 3);
        assert_ne!(stamp(&large(b"build--1")), stamp(&large(b"build--2")));
        // Without an ID, pieces from all over the file.
        for plain in [vec![7; 1 << 20], library(1 << 20, b"no id   ", 1)] {
            for at in [0, 1 << 19, (1 << 20) - 1] {
                let mut other = plain.clone();
                other[at..].fill(9);
                assert_ne!(stamp(&plain), stamp(&other), "{at}");
            }
        }
    }

    #[test]
    fn a_build_id_is_known_and_nonsense_is_not() {
        let good = library(HEAD, b"12345678", 3);
        assert!(has_build_id(&good));
        assert!(!has_build_id(&library(HEAD, b"12345678", 1)));
        assert!(!has_build_id(b"\x7fELF\x02\x01"));
        for at in 0..144 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = has_build_id(&bad);
            }
            let _ = has_build_id(&good[..at]);
        }
    }

    #[test]
    fn what_is_no_file_or_cannot_be_read_is_said() {
        let folder = Folder(tempfile::tempdir().unwrap());
        assert_eq!(stamp(folder.0.path()), OTHER);
        assert_eq!(stamp(&folder.0.path().join("none")), ABSENT);
        let file = folder.put(b"x");
        assert_eq!(stamp(&file.join("below")), ABSENT);
        fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).unwrap();
        if !nix::unistd::geteuid().is_root() {
            assert!(stamp(&file).starts_with("cannot be read: Permission denied"));
        }
    }
}
