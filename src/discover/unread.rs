//! What could not be read, and so was not judged.
//!
//! Whoever lists or reads notes here every error but "this is not there"; who has read an image collects the notes of his
//! thread. So no reader has to carry a list along, and none can keep an error to himself.

use std::cell::RefCell;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::facts::Unread;
use crate::text::one_line;

/// Most notes that are kept: a disk that fails fails everywhere.
const MOST: usize = 16;
/// Longest path that is kept, in characters.
const MAX_PATH: usize = 500;

thread_local! {
    static NOTES: RefCell<Option<Vec<Unread>>> = const { RefCell::new(None) };
}

/// Does work, and returns what it could not read on this thread.
pub fn collect<T>(work: impl FnOnce() -> T) -> (T, Vec<Unread>) {
    let outer = NOTES.replace(Some(Vec::new()));
    let made = work();
    (made, NOTES.replace(outer).unwrap_or_default())
}

/// Whether an error only says that something is not there, or is something else than was looked for.
pub fn is_absence(error: &io::Error) -> bool {
    use Errno::{EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR};
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_none_or(|errno| matches!(errno, ENOENT | ENOTDIR | EISDIR | EINVAL | ELOOP | ENAMETOOLONG))
}

/// Notes an error.
pub fn note(path: &Path, error: &io::Error) {
    if let Some(errno) = error.raw_os_error().filter(|_| !is_absence(error)) {
        let path = one_line(&path.to_string_lossy(), MAX_PATH);
        add(Unread { path, errno });
    }
}

/// Notes what was collected before: the notes are those of an order of reading, whatever was read ahead.
pub fn note_again(notes: Vec<Unread>) {
    notes.into_iter().for_each(add);
}

fn add(unread: Unread) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes.as_mut().filter(|notes| notes.len() < MOST)
            && notes.iter().all(|known| known.path != unread.path)
        {
            notes.push(unread);
        }
    });
}

/// The result, with its error noted.
///
/// # Errors
/// Those that it has.
pub fn noted<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.inspect_err(|error| note(path, error))
}

/// What is there, links followed; `None` where nothing is, or where that cannot be told, which is noted.
pub fn metadata(path: &Path) -> Option<std::fs::Metadata> {
    let _going = super::reading::begin(path);
    noted(path, std::fs::metadata(path)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_noted_once_and_absence_is_none() {
        let error = io::Error::from_raw_os_error;
        note(Path::new("/nobody/collects"), &error(5));
        let ((), notes) = collect(|| {
            note(Path::new("/a"), &error(5));
            note(Path::new("/a"), &error(5));
            note(Path::new("/b"), &error(116));
            for absent in [2, 20, 21, 40, 36] {
                note(Path::new("/c"), &error(absent));
            }
            note(Path::new("/d"), &io::Error::other("of our own making"));
            let ((), inner) = collect(|| note(Path::new("/inner"), &error(13)));
            assert_eq!(inner.len(), 1);
        });
        let found: Vec<(&str, i32)> = notes.iter().map(|n| (n.path.as_str(), n.errno)).collect();
        assert_eq!(found, [("/a", 5), ("/b", 116)]);
        let ((), again) = collect(|| {
            note(Path::new("/b"), &error(5));
            note_again(notes);
        });
        let again: Vec<(&str, i32)> = again.iter().map(|n| (n.path.as_str(), n.errno)).collect();
        assert_eq!(again, [("/b", 5), ("/a", 5)]);
        let ((), many) = collect(|| (0..100).for_each(|n| note(Path::new(&format!("/{n}")), &error(5))));
        assert_eq!(many.len(), MOST);
    }
}
