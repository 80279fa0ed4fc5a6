//! This process, as far as the C library has to be asked: its descriptors, its limits, and the way out.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Moves descriptor `fd`, which nothing else here owns, out of the way; standard error then stands in the place of
/// standard output.
pub fn take_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
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
    Ok(copy)
}

/// Leaves without running what the libraries registered with atexit or as destructors: it takes the driver tens of
/// milliseconds, and it can crash.
pub fn exit_at_once(status: i32) -> ! {
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

/// Gives up CAP_MKNOD: as root, NVML and libcuda make the device nodes that they miss, and what they make would be left to
/// the service. To be called before any other thread is there, since capabilities are a thread's own.
///
/// The entrypoint has taken it away already, but where it has no CAP_SETPCAP.
pub fn forgo_device_nodes() {
    const CAP_MKNOD: u32 = 27;
    // capget(2): version 3 and this thread; effective, permitted, inheritable, and the three for numbers from 32 on.
    let mut header: [u32; 2] = [0x2008_0522, 0];
    let mut sets = [0u32; 6];
    // SAFETY: the kernel writes arrays of the size of its structs, which live on this stack.
    let known = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) } == 0;
    let has = |set: &u32| set & (1 << CAP_MKNOD) != 0;
    if !known || !sets.iter().take(3).any(has) {
        return;
    }
    for set in sets.iter_mut().take(3) {
        *set &= !(1 << CAP_MKNOD);
    }
    // SAFETY: the kernel reads the same arrays. A refusal changes nothing that the checks need.
    unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
}
