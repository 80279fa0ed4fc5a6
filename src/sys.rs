//! System calls that have no safe wrapper: the only `unsafe` of the entrypoint itself; the helper's is in its `foreign`
//! module. tests/lint/fence.py holds the sources against that.
//!
//! Everything here is small, does one thing and leaves policy to its callers: [`crate::process::supervisor`] supervises children,
//! [`crate::helper`] decides what is spawned, [`crate::process::launch`] becomes the service.
#![allow(unsafe_code)] // fork, exec, signal dispositions and the raw environment; each block states its reason

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;

use crate::signal::{self, Number, Set};

mod c_library;
#[cfg(all(target_feature = "crt-static", target_env = "gnu", panic = "abort"))]
mod unwinder;

/// Runs before Rust's runtime does, which puts /dev/null in the place of a standard stream that is closed, and aborts where
/// there is none. The C library calls what is in this section before `main` (System V ABI, "Initialization and Termination
/// Functions"). To be named by the program, or the linker leaves it out: [`mind_closed_streams`].
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = stand_in_for_closed_streams;

/// Has a standard stream that is closed stay closed for the service, and its number free of our own files until then.
pub fn mind_closed_streams() {
    std::hint::black_box(&BEFORE_MAIN);
}

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed when the program began: what stands in for it takes everything.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

/// In the place of a closed standard stream: /dev/null, or the end of a pipe that nobody holds the other end of. Closed
/// again by every exec.
extern "C" fn stand_in_for_closed_streams() {
    for number in 0..=2 {
        // SAFETY: plain system calls; the path is a C string, the array has room for two descriptors, and what is closed
        // was opened here. The lowest free number is `number`, since the lower ones are open by now.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) >= 0 {
                continue;
            }
            if number == libc::STDOUT_FILENO {
                STDOUT_WAS_CLOSED.store(true, Ordering::Relaxed);
            }
            if libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) >= 0 {
                continue;
            }
            let mut ends = [-1; 2];
            if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0 {
                let [_, write] = ends;
                if number > 0 {
                    libc::dup3(write, number, libc::O_CLOEXEC);
                }
                libc::close(write);
            }
        }
    }
}

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
    /// it is traced ([`Traced`]), and stands still once it has executed its program
    pub traced: bool,
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
    let started = unsafe {
        fork_and(
            || exec_in_child(spawn, &argv, &envp, parent),
            |_| (),
            Some(spawn.urgent),
        )
    };
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

/// Forks. The child runs `child`, which ends in exec or returns the errno of what failed; this process runs `forked`
/// meanwhile. The exec is waited for however
/// long it takes, unless there are signals that are more urgent.
///
/// # Safety
/// Between fork and exec `child` calls async-signal-safe functions only.
unsafe fn fork_and(
    child: impl FnOnce() -> c_int,
    forked: impl FnOnce(Pid),
    urgent: Option<Set>,
) -> Result<Spawned, SpawnError> {
    let (error_read, error_write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(SpawnError::Fork)?;
    // SAFETY: the child runs what the caller vouches for, and ends in exec or _exit.
    match unsafe { nix::unistd::fork() }.map_err(SpawnError::Fork)? {
        nix::unistd::ForkResult::Parent { child } => {
            drop(error_write);
            // Both sides set the group, so that it exists whoever runs first; the child may have exec'd (EACCES).
            let _ = nix::unistd::setpgid(child, child);
            forked(child);
            if urgent.is_some_and(|urgent| !exec_is_over(&error_read, urgent)) {
                return Ok(Spawned {
                    pid: child,
                    exec: Some(error_read),
                    traced: false,
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
                traced: false,
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
    /// it stands still after each exec, and where it makes a process: [`traced_stop`]
    pub traced: bool,
    /// what it has to be able to open; where it cannot, that is the error of its exec
    pub needs: Option<&'a CStr>,
}

/// Starts the service in a process group of its own, with an empty signal mask, default dispositions and every
/// descriptor that is not close-on-exec. To be called with all signals blocked ([`block`]). Its exec is waited for however
/// long it takes, unless there are signals that are more urgent.
///
/// Signals that came for the group of this process before the child had left it are this process's to pass on, and
/// are dropped in the child.
///
/// # Errors
/// [`SpawnError`]; what execve(2) said is reported as [`spawn`] does it.
pub fn spawn_service(service: &Service<'_>, urgent: Option<Set>) -> Result<Spawned, SpawnError> {
    let argv = pointers(service.argv);
    let envp = pointers(service.envp);
    let parent = nix::unistd::getpid();
    // The child waits at it until it is traced or is not to be.
    let gate = match service.traced {
        true => Some(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(SpawnError::Fork)?),
        false => None,
    };
    let mut traced = false;
    let forked = |child: Pid| {
        if let Some((_, open)) = &gate {
            traced = trace(child);
            let _ = nix::unistd::write(open, &[1]);
        }
    };
    let child = || {
        // SAFETY: plain system calls; both arrays are null-closed, and their strings outlive the call.
        unsafe {
            libc::setpgid(0, 0);
            if let Some((wait, _)) = &gate {
                let mut byte = 0u8;
                libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1);
            }
            if service.dies_with_us {
                die_with(parent);
            }
            if let Some(path) = service.needs
                && libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) < 0
            {
                return Errno::last_raw();
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
    let spawned = unsafe { fork_and(child, forked, urgent) }?;
    Ok(Spawned { traced, ..spawned })
}

/// Has a process stand still after each exec and where it makes another process. It dies with this one then. False where
/// that is refused: by a seccomp profile, or by Yama.
fn trace(pid: Pid) -> bool {
    let options = libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_EXITKILL;
    // SAFETY: takes integers (ptrace(2)); no memory of this process is touched.
    unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw(), 0, options) == 0 }
}

/// Why a traced process stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// it has executed a program, of which nothing has run yet
    Exec,
    /// it has made a process, which has not begun either
    Fork,
    /// anything else: a signal that is about to be delivered, or that has stopped its group
    Other {
        /// the signal
        signal: c_int,
        /// its group is stopped
        group: bool,
    },
}

/// Whether a traced process stands still, and why. With `wait` it is known to be about to.
pub fn traced_stop(pid: Pid, wait: bool) -> Option<Stop> {
    let hang = if wait { 0 } else { libc::WNOHANG };
    // SAFETY: siginfo_t is plain data, which waitid fills in for a child; zeros stand for none.
    let (found, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WSTOPPED | libc::__WALL | hang;
        // An end is left for others to take, and is no reason to wait.
        let ended = if wait { libc::WEXITED | libc::WNOWAIT } else { 0 };
        if wait
            && libc::waitid(
                libc::P_PID,
                pid.as_raw().unsigned_abs(),
                &raw mut info,
                flags | ended,
            ) != 0
        {
            return None;
        }
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WSTOPPED | libc::__WALL | libc::WNOHANG;
        if libc::waitid(libc::P_PID, pid.as_raw().unsigned_abs(), &raw mut info, flags) != 0 {
            return None;
        }
        (info.si_pid(), info.si_status())
    };
    let (signal, event) = (status & 0xff, status >> 8);
    Some(match event {
        _ if found == 0 => return None,
        libc::PTRACE_EVENT_EXEC => Stop::Exec,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => Stop::Fork,
        libc::PTRACE_EVENT_STOP => Stop::Other {
            signal,
            group: signal != libc::SIGTRAP,
        },
        _ => Stop::Other { signal, group: false },
    })
}

/// Lets a traced process that stands still go on, with the signal that it was about to get.
pub fn traced_go_on(pid: Pid, stop: Stop) {
    let (request, signal) = match stop {
        Stop::Exec | Stop::Fork => (libc::PTRACE_CONT, 0),
        Stop::Other { group: true, .. } => (libc::PTRACE_LISTEN, 0),
        Stop::Other { signal, .. } if signal == libc::SIGTRAP => (libc::PTRACE_CONT, 0),
        Stop::Other { signal, .. } => (libc::PTRACE_CONT, signal),
    };
    // SAFETY: takes integers; no memory of this process is touched.
    unsafe { libc::ptrace(request, pid.as_raw(), 0, signal) };
}

/// Lets go of the process that one has made which stands still for that ([`Stop::Fork`]): it is not traced.
pub fn release_child(pid: Pid) {
    let mut child: libc::c_ulong = 0;
    // SAFETY: the kernel stores one number through the pointer, which is valid for the call.
    let told = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid.as_raw(), 0, &raw mut child) } == 0;
    let child = Pid::from_raw(c_int::try_from(child).unwrap_or(0));
    // It is about to stand still as well.
    if told && child.as_raw() > 0 && traced_stop(child, true).is_some() {
        // SAFETY: takes integers; no memory of this process is touched.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, child.as_raw(), 0, 0) };
    }
}

/// Traces execs alone from here on, or nothing any more: then the process goes on as if it had never been traced. It has
/// to be where a signal would interrupt it, such as in a read of an empty pipe.
pub fn trace_less(pid: Pid, execs: bool) {
    // SAFETY: takes integers; no memory of this process is touched.
    unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid.as_raw(), 0, 0) };
    let signal = match traced_stop(pid, true) {
        Some(Stop::Other { signal, group: false }) if signal != libc::SIGTRAP => signal,
        _ => 0,
    };
    let options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
    // SAFETY: as above.
    unsafe {
        if execs {
            libc::ptrace(libc::PTRACE_SETOPTIONS, pid.as_raw(), 0, options);
            libc::ptrace(libc::PTRACE_CONT, pid.as_raw(), 0, signal);
        } else {
            libc::ptrace(libc::PTRACE_DETACH, pid.as_raw(), 0, signal);
        }
    }
}

/// Whether executing a file changes the privileges of who does it: set-user-ID, set-group-ID, or capabilities of its own.
/// Under a tracer the kernel grants none of them.
pub fn grants_privileges(path: &CStr) -> bool {
    // SAFETY: both strings are C strings; with a size of zero nothing is stored (getxattr(2)). stat is plain data.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        let set_id = libc::stat(path.as_ptr(), &raw mut found) == 0
            && found.st_mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        let name = c"security.capability";
        set_id || libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) > 0
    }
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
    // `struct sigaction` of the kernel on x86-64 and aarch64: handler, flags, restorer, mask.
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

/// The next signal of a [`signal_fd`]; `None` where none is pending. What this process brought upon itself is left out:
/// [`is_own`].
pub fn read_signal(fd: &OwnedFd) -> Option<Number> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    loop {
        match nix::unistd::read(fd, &mut info) {
            Ok(length) if length == info.len() => {
                // signalfd_siginfo begins with ssi_signo, ssi_errno, ssi_code and ssi_pid, of four bytes each.
                let mut words = info
                    .chunks_exact(4)
                    .map(|word| i32::from_ne_bytes(word.try_into().unwrap_or_default()));
                let (signal, pid) = (words.next()?, words.nth(2)?);
                if !is_own(signal, pid) {
                    return Some(Number(signal));
                }
            }
            Err(Errno::EINTR) => {}
            _ => return None,
        }
    }
}

/// Whether this process has sent the signal to itself: by writing into a closed pipe (SIGPIPE), or beyond the limit on the
/// size of files (SIGXFSZ). The write has failed then, and says so.
fn is_own(signal: c_int, from: c_int) -> bool {
    matches!(signal, libc::SIGPIPE | libc::SIGXFSZ) && from == nix::unistd::getpid().as_raw()
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
/// where this process was stopped and continued meanwhile, or has sent it itself: [`is_own`].
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
    (!is_own(number, from)).then_some(Number(number))
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

/// The signal that has ended the checks, or 0.
static ENDED_BY: AtomicI32 = AtomicI32::new(0);

/// From here on no signal changes the exit code, which is this one's, or what is being written. A write that a reader holds
/// up ends with the process, after this many seconds.
pub fn keep_to(signal: Number, seconds: u32) {
    ENDED_BY.store(signal.0, Ordering::Relaxed);
    set_last_word(libc::SIGALRM);
    nix::unistd::alarm::set(seconds);
    let alarm = Set(1 << (libc::SIGALRM - 1));
    let _ = change_mask(libc::SIG_SETMASK, Set(Set::ALL.0 & !alarm.0));
}

/// Ends the process with 128+N: what stands while nothing but the exec is left to do.
extern "C" fn exit_128_plus(signal: c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    let first = ENDED_BY.load(Ordering::Relaxed);
    // SAFETY: the kernel hands over a siginfo_t that lives as long as this call (SA_SIGINFO); getpid and _exit are
    // async-signal-safe, and _exit runs nothing else of ours.
    unsafe {
        if !is_own(signal, (*info).si_pid()) {
            libc::_exit(128 + if first == 0 { signal } else { first })
        }
    }
}

/// From here on a file that would become larger than its limit (RLIMIT_FSIZE) is an error of the write, and not the end.
pub fn outlive_file_size_limit() {
    set_last_word(libc::SIGXFSZ);
}

fn set_last_word(signal: c_int) {
    // SAFETY: the handler is async-signal-safe, and the struct is plain data with an empty mask.
    unsafe {
        let mut last_word: libc::sigaction = std::mem::zeroed();
        last_word.sa_sigaction = exit_128_plus as *const () as usize;
        last_word.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const last_word, std::ptr::null_mut());
    }
}

/// Executes the service in this process: same PID, default dispositions, no signal blocked. Returns only on failure.
///
/// Until the kernel replaces the image, one of `ending` still ends the process with 128+N, as PID 1 too: there a signal
/// with the default disposition would be ignored, and a SIGTERM in the last microseconds would be lost.
pub fn exec_service(path: &CStr, argv: &[CString], envp: &[CString], ending: Set) -> Errno {
    let argv = pointers(argv);
    let envp = pointers(envp);
    let _ = block(Set::ALL);
    reset_dispositions();
    // Here is the point of no return: what is pending now ends us, what comes later is the service's.
    end_on(ending);
    // SAFETY: both arrays are null-closed and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    let errno = Errno::last();
    end_on(ending);
    errno
}

/// From here on each of `ending` ends the process with 128+N at once, as PID 1 too, and no signal is blocked: for when
/// no child is left and only writing remains, which a reader that stands still may hold up for ever.
pub fn end_on(ending: Set) {
    for signal in ending.iter() {
        set_last_word(signal.0);
    }
    let _ = change_mask(libc::SIG_SETMASK, Set::NONE);
}

/// A thread with room enough, whatever RUST_MIN_STACK says, which is the service's.
pub fn thread(name: &str) -> std::thread::Builder {
    const STACK: usize = 2 << 20;
    std::thread::Builder::new().name(name.into()).stack_size(STACK)
}

/// The processors that this process may run on; 1 where that cannot be told.
pub fn processors() -> usize {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return 1;
    };
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .count()
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
