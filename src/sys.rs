//! System calls that have no safe wrapper: the only `unsafe` of the entrypoint itself; the helper's is in its `foreign`
//! module. tests/lint/fence.py holds the sources against that.
//!
//! Everything here is small, does one thing and leaves policy to its callers: [`crate::crew`] supervises children,
//! [`crate::helper`] decides what is spawned, [`crate::launch`] becomes the service.
#![allow(unsafe_code)] // fork, exec, signal dispositions and the raw environment; each block states its reason

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;

use crate::signal::{self, Number, Set};

/// Columns of the terminal that this is; `None` where it is none or does not tell.
pub fn terminal_columns(terminal: BorrowedFd<'_>) -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ (ioctl_tty(2)) stores one winsize through the pointer, which is valid for the call.
    let told = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) } == 0;
    (told && size.ws_col > 0).then_some(size.ws_col.into())
}

/// What a child executes.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// an open file, by execveat(2) with AT_EMPTY_PATH: needs no /proc
    Fd(BorrowedFd<'a>),
    /// a path
    Path(&'a CStr),
}

/// A child to be started; every string is prepared beforehand, since the child may not allocate before its exec.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// what to execute
    pub program: Program<'a>,
    /// its arguments, argv\[0\] first
    pub argv: &'a [CString],
    /// its environment, `NAME=value`
    pub envp: &'a [CString],
    /// becomes descriptor 0
    pub stdin: BorrowedFd<'a>,
    /// becomes descriptor 1
    pub stdout: BorrowedFd<'a>,
    /// becomes descriptor 2
    pub stderr: BorrowedFd<'a>,
    /// blocked signals that are not to wait for an exec that hangs
    pub urgent: Set,
}

/// A child that was started.
#[derive(Debug)]
pub struct Spawned {
    /// its number
    pub pid: Pid,
    /// holds the errno of its exec, should that fail, where the exec took too long to be waited for
    pub exec: Option<OwnedFd>,
}

/// Pointers to the strings, closed with a null pointer, as exec wants them. Borrows nothing: keep the strings alive.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Why there is no child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnError {
    /// no process could be made
    Fork(Errno),
    /// it could not execute what it was made for
    Exec(Errno),
}

/// Starts a child in a process group of its own, which dies with the thread that called this (PR_SET_PDEATHSIG).
///
/// The child gets an empty signal mask, default dispositions, no descriptor but 0, 1 and 2, and where that can be had no
/// CAP_MKNOD. An exec that fails is
/// this call's error: the child reports its errno through a pipe that a successful exec closes. An exec that waits for
/// a file system is a child that runs: it has a deadline as any other, and this process is not deaf meanwhile.
pub fn spawn(spawn: &Spawn<'_>) -> nix::Result<Spawned> {
    let argv = pointers(spawn.argv);
    let envp = pointers(spawn.envp);
    let parent = nix::unistd::getpid();
    // SAFETY: the strings and arrays were made above and outlive the call, and the child touches no heap.
    let started = unsafe { fork_and(|| exec_in_child(spawn, &argv, &envp, parent), Some(spawn.urgent)) };
    started.map_err(|(SpawnError::Fork(errno) | SpawnError::Exec(errno))| errno)
}

/// How long an exec is waited for.
const EXEC_PATIENCE: Duration = Duration::from_secs(2);
/// How often somebody looks meanwhile whether a signal has come.
const EXEC_GLANCE: u16 = 20;

/// Waits until the pipe has an errno or its end. `false` where that takes too long or an urgent signal has come.
fn exec_is_over(pipe: &OwnedFd, urgent: Set) -> bool {
    let until = Instant::now() + EXEC_PATIENCE;
    loop {
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], EXEC_GLANCE) {
            Ok(0) | Err(Errno::EINTR) if Instant::now() < until && pending().0 & urgent.0 == 0 => {}
            Ok(0) | Err(Errno::EINTR) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
}

/// What the child has left in the pipe of its exec, once it is gone.
pub fn exec_error(pipe: &OwnedFd) -> Option<Errno> {
    let mut errno = [0u8; 4];
    (read_fully(pipe, &mut errno) == errno.len()).then(|| Errno::from_raw(c_int::from_ne_bytes(errno)))
}

/// Forks. The child runs `child`, which ends in exec or returns the errno of what failed. That is waited for however
/// long it takes, unless there are signals that are more urgent.
///
/// # Safety
/// Between fork and exec `child` calls async-signal-safe functions only.
unsafe fn fork_and(child: impl FnOnce() -> c_int, urgent: Option<Set>) -> Result<Spawned, SpawnError> {
    let (error_read, error_write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(SpawnError::Fork)?;
    // SAFETY: the child runs what the caller vouches for, and ends in exec or _exit.
    match unsafe { nix::unistd::fork() }.map_err(SpawnError::Fork)? {
        nix::unistd::ForkResult::Parent { child } => {
            drop(error_write);
            // Both sides set the group, so that it exists whoever runs first; the child may have exec'd (EACCES).
            let _ = nix::unistd::setpgid(child, child);
            if urgent.is_some_and(|urgent| !exec_is_over(&error_read, urgent)) {
                return Ok(Spawned {
                    pid: child,
                    exec: Some(error_read),
                });
            }
            if let Some(errno) = exec_error(&error_read) {
                // The child is at its _exit.
                let _ = nix::sys::wait::waitpid(child, None);
                return Err(SpawnError::Exec(errno));
            }
            Ok(Spawned {
                pid: child,
                exec: None,
            })
        }
        nix::unistd::ForkResult::Child => {
            let bytes = child().to_ne_bytes();
            // SAFETY: writes four bytes that live on this stack to a descriptor that is open, then ends the process.
            unsafe {
                libc::write(error_write.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
                libc::_exit(127)
            }
        }
    }
}

/// The service as a child, under `--init`.
#[derive(Debug)]
pub struct Service<'a> {
    /// what to execute
    pub file: &'a CStr,
    /// its arguments, argv\[0\] first
    pub argv: &'a [CString],
    /// its environment
    pub envp: &'a [CString],
    /// SIGKILL reaches it when this process is gone
    pub dies_with_us: bool,
    /// its group becomes the foreground of the terminal that is standard input
    pub terminal: bool,
}

/// Starts the service in a process group of its own, with an empty signal mask, default dispositions and every
/// descriptor that is not close-on-exec. To be called with all signals blocked ([`block`]).
///
/// Signals that came for the group of this process before the child had left it are this process's to pass on, and
/// are dropped in the child.
///
/// # Errors
/// [`SpawnError`]; what execve(2) said is reported as [`spawn`] does it.
pub fn spawn_service(service: &Service<'_>) -> Result<Pid, SpawnError> {
    let argv = pointers(service.argv);
    let envp = pointers(service.envp);
    let parent = nix::unistd::getpid();
    let child = || {
        // SAFETY: plain system calls; both arrays are null-closed, and their strings outlive the call.
        unsafe {
            libc::setpgid(0, 0);
            if service.dies_with_us {
                die_with(parent);
            }
            for signal in 1..=signal::LAST {
                // Drops what is pending, blocked or not (sigaction(2)).
                set_disposition(signal, libc::SIG_IGN);
            }
            reset_dispositions();
            if service.terminal {
                // SIGTTOU is blocked still, or this would stop us.
                libc::tcsetpgrp(0, libc::getpid());
            }
            let _ = change_mask(libc::SIG_SETMASK, Set::NONE);
            libc::execve(service.file.as_ptr(), argv.as_ptr(), envp.as_ptr());
        }
        Errno::last_raw()
    };
    // SAFETY: the strings and arrays were made above, and the child touches no heap.
    unsafe { fork_and(child, None) }.map(|spawned| spawned.pid)
}

/// Has the kernel kill this process with its parent. Async-signal-safe.
fn die_with(parent: Pid) {
    // SAFETY: plain system calls.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Another parent means that ours died before the line above took effect; 0, that it is outside of our PID
        // namespace, as after `unshare --pid` without `--fork`.
        let seen = libc::getppid();
        if seen != parent.as_raw() && seen != 0 {
            libc::_exit(127);
        }
    }
}

fn read_fully(fd: &OwnedFd, buffer: &mut [u8]) -> usize {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|r| !r.is_empty()) {
        match nix::unistd::read(fd, rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    got
}

/// The child's half of [`spawn`]; returns the errno of what failed. `argv` and `envp` are closed with a null pointer.
fn exec_in_child(spawn: &Spawn<'_>, argv: &[*const c_char], envp: &[*const c_char], parent: Pid) -> c_int {
    // SAFETY: plain system calls on valid descriptors and on arrays that `spawn` has made.
    unsafe {
        libc::setpgid(0, 0);
        die_with(parent);
        for (from, to) in [(spawn.stdin, 0), (spawn.stdout, 1), (spawn.stderr, 2)] {
            if libc::dup2(from.as_raw_fd(), to) < 0 {
                return Errno::last_raw();
            }
        }
        reset_dispositions();
        let _ = change_mask(libc::SIG_SETMASK, Set::NONE);
        // What was given to us is for the service alone. Kernels before 5.11 refuse the flag; then only our own
        // descriptors, which all are close-on-exec, are kept back.
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        forgo_device_nodes();
        match spawn.program {
            Program::Fd(fd) => libc::syscall(
                libc::SYS_execveat,
                fd.as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            ),
            Program::Path(path) => {
                libc::c_long::from(libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()))
            }
        };
        Errno::last_raw()
    }
}

/// Keeps CAP_MKNOD from what is executed next: as root, NVML and libcuda make the device nodes that they miss, and what
/// they make would be left to the service. Async-signal-safe. A refusal is no matter: without CAP_SETPCAP the bounding
/// set stays as it is, and the helper itself gives the capability up.
///
/// The permitted set is not touched: an exec that gives a capability back takes PR_SET_PDEATHSIG away (kernel/cred.c,
/// `commit_creds`).
fn forgo_device_nodes() {
    const CAP_MKNOD: u32 = 27;
    // capget(2): version 3 and this thread; effective, permitted, inheritable, and the three for numbers from 32 on.
    let mut header: [u32; 2] = [0x2008_0522, 0];
    let mut sets = [0u32; 6];
    // SAFETY: the kernel reads and writes arrays of the size of its structs, which live on this stack.
    unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, CAP_MKNOD as libc::c_ulong, 0, 0, 0);
        if libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) == 0
            && sets[2] & (1 << CAP_MKNOD) != 0
        {
            sets[2] &= !(1 << CAP_MKNOD); // and with it the ambient set's
            libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr());
        }
    }
}

/// Sets every signal that can be set to its default disposition. Async-signal-safe.
fn reset_dispositions() {
    for signal in 1..=signal::LAST {
        set_disposition(signal, libc::SIG_DFL);
    }
}

/// Asks the kernel, not the C library: that one refuses the two signals that it keeps for itself, and a parent with
/// another C library may have left those ignored. `handler` is SIG_DFL or SIG_IGN. Async-signal-safe.
fn set_disposition(signal: c_int, handler: libc::sighandler_t) {
    // `struct sigaction` of the kernel on x86_64: handler, flags, restorer, mask.
    let action: [usize; 4] = [handler, 0, 0, 0];
    // SAFETY: the array is as large as the kernel's struct and holds no pointer; SIGKILL and SIGSTOP are refused.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<libc::c_void>(),
            size_of::<u64>(),
        );
    }
}

/// Makes children wait to be reaped, whatever the parent did: where SIGCHLD is ignored, the kernel reaps them and
/// their status is lost (wait(2), NOTES).
pub fn keep_children_status() {
    set_disposition(libc::SIGCHLD, libc::SIG_DFL);
}

/// The kernel's own call, since the C library leaves two signals out of every set. Async-signal-safe.
fn change_mask(how: c_int, set: Set) -> nix::Result<()> {
    // SAFETY: the kernel reads eight bytes, which live on this stack, and writes nothing.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const set.0,
            std::ptr::null_mut::<libc::c_void>(),
            size_of::<u64>(),
        )
    };
    Errno::result(done).map(|_| ())
}

/// Blocks these signals too, in the calling thread and in threads that it starts from now on.
///
/// # Errors
/// None that sigprocmask(2) names for a valid call; a seccomp profile's.
pub fn block(set: Set) -> nix::Result<()> {
    change_mask(libc::SIG_BLOCK, set)
}

/// Reads blocked signals of `set` without waiting: [`read_signal`] takes them.
///
/// # Errors
/// As signalfd(2).
pub fn signal_fd(set: Set) -> nix::Result<OwnedFd> {
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: the kernel reads eight bytes, which live on this stack; a returned descriptor is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, size_of::<u64>(), flags);
        Errno::result(fd).map(|fd| OwnedFd::from_raw_fd(fd as c_int))
    }
}

/// The next signal of a [`signal_fd`]; `None` where none is pending.
pub fn read_signal(fd: &OwnedFd) -> Option<Number> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    loop {
        match nix::unistd::read(fd, &mut info) {
            Ok(length) if length == info.len() => {
                // signalfd_siginfo begins with ssi_signo, a u32.
                let [a, b, c, d, ..] = info;
                return i32::try_from(u32::from_ne_bytes([a, b, c, d])).ok().map(Number);
            }
            Err(Errno::EINTR) => {}
            _ => return None,
        }
    }
}

/// Sends a signal to a process. One that is gone is no matter.
pub fn send(pid: Pid, signal: Number) {
    // SAFETY: takes two integers.
    unsafe { libc::kill(pid.as_raw(), signal.0) };
}

/// Sends a signal to a process group. One that is gone is no matter.
pub fn send_to_group(group: Pid, signal: Number) {
    // SAFETY: takes two integers.
    unsafe { libc::killpg(group.as_raw(), signal.0) };
}

/// Waits for a signal and takes it, at most for `timeout`; all have to be blocked. `None` where the time is over, or
/// where this process was stopped and continued meanwhile.
///
/// What this process sent to itself by writing into a closed pipe (SIGPIPE) is not told.
pub fn next_signal(timeout: Option<Duration>) -> Option<Number> {
    let timeout = timeout.map(|time| libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    let all = Set::ALL;
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: siginfo_t is plain data, which the kernel fills in; the other arguments are read alone, and live here.
    let (number, from) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let number = libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const all.0,
            &raw mut info,
            timeout,
            size_of::<u64>(),
        );
        (number, info.si_pid())
    };
    let number = c_int::try_from(number).ok().filter(|n| *n > 0)?;
    let own = number == libc::SIGPIPE && from == nix::unistd::getpid().as_raw();
    (!own).then_some(Number(number))
}

/// Whether a blocked signal is pending.
pub fn is_pending(signal: Number) -> bool {
    pending().contains(signal)
}

/// Blocked signals that wait to be taken.
fn pending() -> Set {
    let mut pending = Set::NONE;
    // SAFETY: the kernel writes eight bytes, which live on this stack; where it refuses, nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut pending.0, size_of::<u64>()) };
    pending
}

/// Stops this process, or its whole group, as Ctrl-Z does; all signals have to be blocked. Returns once it has been
/// continued, or at once where the kernel stops no one: as PID 1, and in an orphaned process group (setpgid(2)).
pub fn stop_self(group: bool) {
    const STOP: Number = Number(libc::SIGTSTP);
    let set = Set(1 << (STOP.0 - 1));
    set_disposition(STOP.0, libc::SIG_DFL);
    if group {
        send(Pid::from_raw(0), STOP);
    } else {
        send(nix::unistd::getpid(), STOP);
    }
    let _ = change_mask(libc::SIG_UNBLOCK, set);
    let _ = block(set);
}

/// What became of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// it exited with this status
    Exited(c_int),
    /// this signal ended it, a real-time one possibly
    Killed(Number),
    /// this signal stopped it
    Stopped(Number),
}

/// What became of a child, or of any, without waiting for it; `flags` are waitid(2)'s. `None` where nothing has.
///
/// # Errors
/// ECHILD where there is no such child.
pub fn wait(child: Option<Pid>, flags: WaitPidFlag) -> nix::Result<Option<(Pid, Change)>> {
    let (kind, id) = match child {
        Some(pid) => (libc::P_PID, pid.as_raw().unsigned_abs()),
        None => (libc::P_ALL, 0),
    };
    let flags = (flags | WaitPidFlag::WNOHANG).bits();
    // SAFETY: siginfo_t is plain data, which waitid fills in for a child; zeros stand for none.
    let (pid, status, code) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        Errno::result(libc::waitid(kind, id, &raw mut info, flags))?;
        (info.si_pid(), info.si_status(), info.si_code)
    };
    let change = match code {
        _ if pid == 0 => return Ok(None),
        libc::CLD_EXITED => Change::Exited(status),
        libc::CLD_STOPPED | libc::CLD_TRAPPED => Change::Stopped(Number(status)),
        _ => Change::Killed(Number(status)),
    };
    Ok(Some((Pid::from_raw(pid), change)))
}

/// Ends the process with 128+N: what stands while nothing but the exec is left to do.
extern "C" fn exit_128_plus(signal: c_int) {
    // SAFETY: _exit is async-signal-safe and runs nothing else of ours.
    unsafe { libc::_exit(128 + signal) }
}

/// Executes the service in this process: same PID, default dispositions, no signal blocked but `held`, of which one that
/// comes waits for the service. Returns only on failure.
///
/// Until the kernel replaces the image, one of `ending` that is not held still ends the process with 128+N, as PID 1
/// too: there a signal with the default disposition would be ignored, and a SIGTERM in the last microseconds would be
/// lost.
pub fn exec_service(path: &CStr, argv: &[CString], envp: &[CString], ending: Set, held: Set) -> Errno {
    let argv = pointers(argv);
    let envp = pointers(envp);
    let _ = block(Set::ALL);
    reset_dispositions();
    // Here is the point of no return: what is pending now ends us, what comes later is the service's.
    end_on_but(ending, held);
    // SAFETY: both arrays are null-closed and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    let errno = Errno::last();
    end_on(ending);
    errno
}

/// From here on each of `ending` ends the process with 128+N at once, as PID 1 too, and no signal is blocked: for when
/// no child is left and only writing remains, which a reader that stands still may hold up for ever.
pub fn end_on(ending: Set) {
    end_on_but(ending, Set::NONE);
}

/// The same, with `held` blocked.
fn end_on_but(ending: Set, held: Set) {
    for signal in ending.iter() {
        // SAFETY: the handler is async-signal-safe, and the struct is plain data with an empty mask and no flags.
        unsafe {
            let mut last_word: libc::sigaction = std::mem::zeroed();
            last_word.sa_sigaction = exit_128_plus as *const () as usize;
            libc::sigaction(signal.0, &raw const last_word, std::ptr::null_mut());
        }
    }
    let _ = change_mask(libc::SIG_SETMASK, held);
}

/// The environment exactly as the kernel handed it over: order, duplicates and strings without `=` included.
pub fn environ() -> Vec<CString> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut all = Vec::new();
    // SAFETY: called while no other thread runs; environ is an array of C strings closed with a null pointer, and
    // nothing in this program ever changes it.
    unsafe {
        let mut cursor = environ;
        while !cursor.is_null() && !(*cursor).is_null() {
            all.push(CStr::from_ptr(*cursor).to_owned());
            cursor = cursor.add(1);
        }
    }
    all
}

/// Takes a descriptor by a number that came from outside, and may be anything: also that of one of our own.
///
/// # Errors
/// EBADF where nothing is open under that number, or what this process has opened itself: all of that is close-on-exec,
/// and nothing that was inherited is.
pub fn inherited_descriptor(fd: c_int) -> nix::Result<OwnedFd> {
    // SAFETY: F_GETFD touches no memory.
    let flags = Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EBADF);
    }
    own_descriptor(fd)
}

/// Takes a descriptor by its number: one that another process left open for this one, and named.
///
/// # Errors
/// EBADF where nothing is open under that number.
pub fn own_descriptor(fd: c_int) -> nix::Result<OwnedFd> {
    // SAFETY: F_GETFD touches no memory. The number was given to this process by name and nothing else here uses it,
    // so that closing it with the returned value takes it from nobody.
    unsafe {
        Errno::result(libc::fcntl(fd, libc::F_GETFD))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A memory file, said to be executable or not; without a word where that is refused with EINVAL (kernels before 6.3
/// know neither MFD_EXEC nor MFD_NOEXEC_SEAL, and newer ones may be told to want one: `vm.memfd_noexec`).
pub fn memfd(name: &CStr, executable: bool) -> nix::Result<OwnedFd> {
    const MFD_NOEXEC_SEAL: libc::c_uint = 0x8; // linux/memfd.h, since 6.3
    const MFD_EXEC: libc::c_uint = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let word = if executable { MFD_EXEC } else { MFD_NOEXEC_SEAL };
    match memfd_create(name, flags | word) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    }
}

fn memfd_create(name: &CStr, flags: libc::c_uint) -> nix::Result<OwnedFd> {
    // SAFETY: the name is a C string, and a returned descriptor is ours alone.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), flags);
        Errno::result(fd).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// Takes the place of the C library's function of this name, which Rust's runtime asks where the main thread's stack
/// ends, to word an overflow better. The C library reads that from /proc with `sscanf`, and so with every format, locale
/// and number that it knows: 100 KB, more than all reading of ELF files here. Without an answer an overflow is a plain
/// SIGSEGV.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: libc::pthread_t, _attributes: *mut libc::pthread_attr_t) -> c_int {
    libc::ENOSYS
}
