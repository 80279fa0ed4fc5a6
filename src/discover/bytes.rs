//! Random access to a few bytes of a big file that nobody vouches for.
//!
//! Libraries of hundreds of MiB are read by their headers: a few KiB here and there. They are read with pread(2) and
//! not mapped: a page fault costs more than a small read, a mapped file that shrinks or whose file system fails
//! (images that are pulled lazily) ends the process with SIGBUS, and what is read does not count as our memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use object::pod::{self, Pod};

/// Bytes that can be read anywhere.
pub trait Source {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset`, which is at most `size() - buffer.len()`.
    ///
    /// # Errors
    /// The system's error; `UnexpectedEof` where the bytes are not there.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for &[u8] {
    fn size(&self) -> u64 {
        // usize is 64 bits wide on the only target
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|s| Some(s..s.checked_add(buffer.len())?));
        let from = range
            .and_then(|r| self.get(r))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }
}

/// A regular file that is open for reading here and there.
#[derive(Debug)]
pub struct RandomFile {
    file: File,
    size: u64,
    /// device and inode
    identity: (u64, u64),
}

impl RandomFile {
    /// Opens a regular file, and nothing else: a FIFO or a device does not block and is refused.
    ///
    /// # Errors
    /// The system's error, or `InvalidInput` for what is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        // O_NONBLOCK: opening a FIFO without a writer would wait for one. O_NOCTTY: a terminal must not become ours.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // Read-ahead would fetch a hundred KiB around each header. Advice only: a file system may refuse it.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        Ok(Self {
            file,
            size: metadata.len(),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Device and inode: two paths with the same ones are one file.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }
}

impl Source for RandomFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Why bytes could not be read, and where.
#[derive(Debug, thiserror::Error)]
pub enum BytesError {
    /// the file is shorter than what it says of itself
    #[error("{wanted} bytes are wanted at offset {offset:#x}, and the file ends at {size:#x}")]
    PastEnd {
        /// from the start of the file, in bytes
        offset: u64,
        /// number of bytes
        wanted: u64,
        /// length of the file, in bytes
        size: u64,
    },
    /// the system could not read them
    #[error("reading at offset {offset:#x} failed: {source}")]
    Io {
        /// from the start of the file, in bytes
        offset: u64,
        /// the system's error
        source: io::Error,
    },
    /// headers without end: no file that a compiler made has so many
    #[error("more than {} MiB of headers had been read at offset {offset:#x}", MAX_READ >> 20)]
    TooMuch {
        /// from the start of the file, in bytes
        offset: u64,
    },
}

/// Most bytes that one [`Reader`] returns from one call: a header, a name, a small text.
pub const MAX_BYTES: usize = 4096;
/// Bytes that are fetched at once, or more where more is asked for: a cubin's section headers, the header of the next
/// one and its names mostly lie within it. Half of it takes twice the calls on spconv, twice of it twice the copying.
const WINDOW: usize = 2048;
/// The same where nothing behind a header is looked at: a container's and an entry's header of CUDA code.
const HEADER_WINDOW: usize = 128;
/// Most bytes that one reader fetches from a file. spconv's 285 MB take 9 MiB, torch's 900 MB take 0.3 MiB.
const MAX_READ: u64 = 256 << 20;

/// Reads small pieces of a [`Source`] through two windows: tables point back and forth between two places.
pub struct Reader<'s> {
    source: &'s dyn Source,
    size: u64,
    windows: [Window; 2],
    /// which window served last; the other one is given up next
    recent: usize,
    fetched: u64,
    /// least bytes of the next fetch
    window: usize,
}

struct Window {
    start: u64,
    /// how many bytes of `buffer` are the source's
    len: usize,
    buffer: [u8; MAX_BYTES],
}

impl Window {
    fn empty() -> Self {
        Self {
            start: 0,
            len: 0,
            buffer: [0; MAX_BYTES],
        }
    }

    fn range(&self, offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.len).then_some(start..end)
    }
}

impl<'s> Reader<'s> {
    /// A reader at the start of its budget.
    pub fn new(source: &'s dyn Source) -> Self {
        Self {
            source,
            size: source.size(),
            windows: [Window::empty(), Window::empty()],
            recent: 0,
            fetched: 0,
            window: WINDOW,
        }
    }

    /// Whether only a header counts where the next bytes are wanted, so that what follows need not be fetched with it:
    /// half of the time of a small read is its copying.
    pub fn expect_header_alone(&mut self, alone: bool) {
        self.window = if alone { HEADER_WINDOW } else { WINDOW };
    }

    /// Length of the source in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes fetched from the source so far.
    pub fn fetched(&self) -> u64 {
        self.fetched
    }

    /// `len` bytes at `offset`. More than [`MAX_BYTES`] are not served: the caller bounds what it asks for.
    ///
    /// # Errors
    /// See [`BytesError`].
    pub fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], BytesError> {
        let past_end = BytesError::PastEnd {
            offset,
            wanted: len as u64,
            size: self.size,
        };
        let Some(left) = self.size.checked_sub(offset).filter(|&left| left >= len as u64) else {
            return Err(past_end);
        };
        let [first, second] = &self.windows;
        if first.range(offset, len).is_some() {
            self.recent = 0;
        } else if second.range(offset, len).is_some() {
            self.recent = 1;
        } else {
            self.recent = 1 - self.recent;
            self.fetch(offset, left, len)?;
        }
        let [first, second] = &self.windows;
        let window = if self.recent == 0 { first } else { second };
        let range = window.range(offset, len);
        range.and_then(|r| window.buffer.get(r)).ok_or(past_end)
    }

    fn fetch(&mut self, offset: u64, left: u64, len: usize) -> Result<(), BytesError> {
        if len > MAX_BYTES {
            return Err(BytesError::TooMuch { offset });
        }
        let wanted = self.window.max(len);
        let count = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
        self.fetched = self.fetched.saturating_add(count as u64);
        if self.fetched > MAX_READ {
            return Err(BytesError::TooMuch { offset });
        }
        let [first, second] = &mut self.windows;
        let window = if self.recent == 0 { first } else { second };
        window.len = 0; // holds nothing, should the read fail
        if let Some(buffer) = window.buffer.get_mut(..count) {
            self.source
                .read_at(offset, buffer)
                .map_err(|source| BytesError::Io { offset, source })?;
            window.start = offset;
            window.len = count;
        }
        Ok(())
    }

    /// One structure of the file's format at `offset`.
    ///
    /// # Errors
    /// See [`BytesError`].
    pub fn pod<T: Pod>(&mut self, offset: u64) -> Result<T, BytesError> {
        let size = self.size;
        let bytes = self.bytes(offset, size_of::<T>())?;
        // The structures are made of bytes, so that their alignment is 1 and this cannot fail.
        let value = pod::from_bytes::<T>(bytes).map(|(value, _)| *value);
        value.map_err(|()| BytesError::PastEnd {
            offset,
            wanted: size_of::<T>() as u64,
            size,
        })
    }

    /// The bytes from `offset` up to `limit` or the end, at most [`MAX_BYTES`].
    ///
    /// # Errors
    /// See [`BytesError`].
    pub fn up_to(&mut self, offset: u64, limit: u64) -> Result<&[u8], BytesError> {
        let end = limit.min(self.size);
        let len = end.saturating_sub(offset).min(MAX_BYTES as u64);
        self.bytes(offset, len as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_served_and_the_end_is_kept() {
        let data: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        let source = data.as_slice();
        let mut reader = Reader::new(&source);
        for (offset, len) in [
            (0, 64),
            (9000, 4096),
            (40, 8),
            (9100, 64),
            (19_990, 10),
            (20_000, 0),
        ] {
            let start = offset as usize;
            assert_eq!(reader.bytes(offset, len).unwrap(), &data[start..start + len]);
        }
        for (offset, len) in [(19_990, 11), (20_001, 0), (u64::MAX, 1), (u64::MAX, usize::MAX)] {
            let error = reader.bytes(offset, len).unwrap_err();
            assert!(matches!(error, BytesError::PastEnd { .. }), "{error}");
        }
        assert_eq!(reader.up_to(19_998, u64::MAX).unwrap(), &data[19_998..]);
    }

    #[test]
    fn two_places_take_two_fetches() {
        let data = vec![1; 100_000];
        let source = data.as_slice();
        let mut reader = Reader::new(&source);
        for i in 0..50 {
            reader.bytes(i * 64, 64).unwrap();
            reader.bytes(50_000 + i * 64, 64).unwrap();
        }
        // 50 headers are 3,200 bytes
        assert_eq!(reader.fetched(), 4 * WINDOW as u64);
    }

    #[test]
    fn reading_without_end_is_stopped() {
        struct Endless;
        impl Source for Endless {
            fn size(&self) -> u64 {
                u64::MAX
            }
            fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
                buffer.fill(0);
                Ok(())
            }
        }
        let mut reader = Reader::new(&Endless);
        let error = (0..).find_map(|i| reader.bytes(i * 8192, 1).err()).unwrap();
        assert!(matches!(error, BytesError::TooMuch { .. }), "{error}");
    }

    #[test]
    fn a_failing_read_leaves_no_stale_bytes() {
        struct Flaky(std::cell::Cell<bool>);
        impl Source for Flaky {
            fn size(&self) -> u64 {
                1 << 20
            }
            fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
                if self.0.replace(true) {
                    return Err(io::Error::other("disk"));
                }
                buffer.fill(7);
                Ok(())
            }
        }
        let source = Flaky(false.into());
        let mut reader = Reader::new(&source);
        assert_eq!(reader.bytes(0, 1).unwrap(), [7]);
        assert!(reader.bytes(8192, 1).is_err());
        assert!(reader.bytes(8192, 1).is_err());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo.so");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(RandomFile::open(&fifo).is_err());
        assert!(RandomFile::open(dir.path()).is_err());
        assert!(RandomFile::open(Path::new("/dev/null")).is_err());
    }
}
