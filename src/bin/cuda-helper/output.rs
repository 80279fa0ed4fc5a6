//! The protocol's end of the helper: descriptors, lines, and the way out.
// Duplicating descriptors by number, limits of the process and leaving without clean-up are not in std.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use cuda_entrypoint::facts::HelperLine;

/// Exit status when the reader has gone.
const NOBODY_READS: i32 = 1;

/// Where the lines go.
pub struct Output(File);

impl Output {
    /// Takes descriptor `fd` for the protocol and leaves standard error in the place of standard output: what a
    /// library prints must not end up between the lines.
    pub fn on(fd: RawFd) -> io::Result<Self> {
        // SAFETY: the borrow ends with this statement; fd is not -1, and one that is not open gives EBADF.
        let copy = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?; // with FD_CLOEXEC
        // SAFETY: takes two integers.
        if unsafe { libc::dup2(io::stderr().as_raw_fd(), io::stdout().as_raw_fd()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if fd != io::stdout().as_raw_fd() {
            // SAFETY: it was open a moment ago, the caller named it for this use, and nothing else here owns it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        Ok(Self(File::from(copy)))
    }

    /// Writes one line, usually with one write(2). Does not return when nobody reads: what is left to say is then
    /// of no use to anyone, and a library may not be called for nothing.
    pub fn line(&self, line: &HelperLine) {
        let written = serde_json::to_vec(line)
            .map_err(io::Error::from)
            .and_then(|mut text| {
                text.push(b'\n');
                (&self.0).write_all(&text) // goes on after EINTR and after a partial write
            });
        if written.is_err() {
            exit_at_once(NOBODY_READS);
        }
    }

    /// Names the call into foreign code that comes next.
    pub fn step(&self, step: String) {
        self.line(&HelperLine::Step(step));
    }

    /// Says that everything was said, and leaves.
    pub fn finish(&self) -> ! {
        self.line(&HelperLine::Done);
        exit_at_once(0)
    }
}

/// Leaves without running what the libraries registered with atexit or as destructors: it takes the driver tens of
/// milliseconds, and it can crash.
fn exit_at_once(status: i32) -> ! {
    // SAFETY: takes an integer and does not return; nothing is buffered here.
    unsafe { libc::_exit(status) }
}

/// A driver that crashes must not fill the container's disk with a core file of the size of its mappings.
pub fn forbid_core_files() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: reads one struct that outlives the call. A refusal changes nothing that matters here.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}
