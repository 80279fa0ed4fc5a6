//! Seccomp filters that a test process puts on itself, as container runtimes do: no root needed, and no tool.
#![allow(unsafe_code)] // prctl(2)

use nix::libc;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// `offsetof(struct seccomp_data, nr)`
const NUMBER: u32 = 0;

/// The low half of argument `index` (x86-64 is little-endian).
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Goes on where the condition holds, else skips `otherwise` statements.
const fn unless(code: u16, k: u32, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: otherwise,
        k,
    }
}

const fn error(errno: i32) -> libc::sock_filter {
    statement(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32)
}

/// Puts a filter in force for this process and all that it starts. Dies where the kernel refuses it: a test must not
/// pass for want of its filter.
fn install(filter: &[libc::sock_filter]) {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: plain system calls; the kernel copies the filter. _exit is async-signal-safe.
    unsafe {
        let refused = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) != 0;
        if refused {
            libc::_exit(99);
        }
    }
}

/// One system call returns an error.
macro_rules! refusing {
    ($($call:expr => $errno:expr),*) => {
        &[
            statement(LOAD_WORD, NUMBER),
            $(unless(JUMP_IF_EQUAL, $call as u32, 1), error($errno),)*
            statement(RETURN, libc::SECCOMP_RET_ALLOW),
        ]
    };
}

/// As `vm.memfd_noexec=2` does.
pub fn no_memfd() {
    install(refusing!(libc::SYS_memfd_create => libc::EACCES));
}

/// As an emulator that does not know the call does.
pub fn no_execveat() {
    install(refusing!(libc::SYS_execveat => libc::ENOSYS));
}

/// As a profile does that knows neither call.
pub fn no_memfd_and_no_execveat() {
    install(refusing!(libc::SYS_memfd_create => libc::EPERM, libc::SYS_execveat => libc::EPERM));
}

/// As a profile does that forgot the call by which signals are read.
pub fn no_signalfd() {
    install(refusing!(libc::SYS_signalfd4 => libc::EPERM));
}

/// As profiles for old kernels do, and Yama.
pub fn no_ptrace() {
    install(refusing!(libc::SYS_ptrace => libc::EPERM));
}

/// Nobody leads a process group.
pub fn no_setpgid() {
    install(refusing!(libc::SYS_setpgid => libc::EPERM));
}

/// Kernels before 5.11, and profiles before that.
pub fn no_close_range() {
    install(refusing!(libc::SYS_close_range => libc::ENOSYS));
}

/// Root may do what the mode of a file lets it do, and no more; others never could. In force from the exec on.
pub fn no_override() {
    const CAP_DAC_OVERRIDE: u64 = 1;
    const CAP_DAC_READ_SEARCH: u64 = 2;
    drop_capability(CAP_DAC_OVERRIDE);
    drop_capability(CAP_DAC_READ_SEARCH);
}

/// Takes one capability from the bounding set: what this process executes as root does not have it.
pub fn drop_capability(number: u64) {
    // SAFETY: a plain system call. It is refused to who has nothing to lose.
    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
}

/// Nobody gets rid of a capability.
pub fn capabilities_are_kept() {
    install(&[
        statement(LOAD_WORD, NUMBER),
        unless(JUMP_IF_EQUAL, libc::SYS_capset as u32, 1),
        error(libc::EPERM),
        unless(JUMP_IF_EQUAL, libc::SYS_prctl as u32, 3),
        statement(LOAD_WORD, argument(0)),
        unless(JUMP_IF_EQUAL, libc::PR_CAPBSET_DROP as u32, 1),
        error(libc::EPERM),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// Sets a limit, soft and hard, or dies.
fn limit(what: libc::__rlimit_resource_t, to: u64) {
    let limits = libc::rlimit {
        rlim_cur: to,
        rlim_max: to,
    };
    // SAFETY: reads a struct that outlives the call. _exit is async-signal-safe.
    unsafe {
        if libc::setrlimit(what, &raw const limits) != 0 {
            libc::_exit(99);
        }
    }
}

/// Becomes a user of its own, who may have this many processes. Dies where only root could.
fn user_with_processes(user: u32, processes: u64) {
    // SAFETY: plain system calls. _exit is async-signal-safe.
    unsafe {
        let refused =
            libc::setgroups(0, std::ptr::null()) != 0 || libc::setgid(user) != 0 || libc::setuid(user) != 0;
        if refused {
            libc::_exit(99);
        }
    }
    limit(libc::RLIMIT_NPROC, processes);
}

/// No process but this one.
pub fn one_process() {
    user_with_processes(54_321, 1);
}

/// This process and one child.
pub fn two_processes() {
    user_with_processes(54_322, 2);
}

/// An address space that holds this process and its helper, and nothing of a driver's size.
pub fn one_gigabyte() {
    limit(libc::RLIMIT_AS, 1 << 30);
}

/// Descriptors up to 14: enough for one child after the other.
pub fn fifteen_descriptors() {
    limit(libc::RLIMIT_NOFILE, 15);
}

/// Descriptors up to 15.
pub fn sixteen_descriptors() {
    limit(libc::RLIMIT_NOFILE, 16);
}

/// Descriptors up to 19.
pub fn twenty_descriptors() {
    limit(libc::RLIMIT_NOFILE, 20);
}

/// No process can be made; threads can, since they are made by other calls or with other flags.
pub fn no_fork() {
    const THREAD: u32 = libc::CLONE_THREAD as u32;
    install(&[
        statement(LOAD_WORD, NUMBER),
        unless(JUMP_IF_EQUAL, libc::SYS_fork as u32, 1),
        error(libc::EAGAIN),
        unless(JUMP_IF_EQUAL, libc::SYS_clone as u32, 3),
        statement(LOAD_WORD, argument(0)),
        unless(JUMP_IF_ANY_BIT, THREAD, 2),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        error(libc::EAGAIN),
    ]);
}

/// Whoever makes a memory file or executes a descriptor dies of SIGSYS: nothing starts the helper unseen.
pub fn helper_is_deadly() {
    install(&[
        statement(LOAD_WORD, NUMBER),
        unless(JUMP_IF_EQUAL, libc::SYS_memfd_create as u32, 1),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        unless(JUMP_IF_EQUAL, libc::SYS_execveat as u32, 1),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// No memory file, and none on a disk that never has a name: an old kernel with an overlay that has no O_TMPFILE.
pub fn no_memfd_and_no_unlinked_file() {
    const UNLINKED: u32 = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;
    install(&[
        statement(LOAD_WORD, NUMBER),
        unless(JUMP_IF_EQUAL, libc::SYS_memfd_create as u32, 1),
        error(libc::EACCES),
        unless(JUMP_IF_EQUAL, libc::SYS_openat as u32, 3),
        statement(LOAD_WORD, argument(2)),
        unless(JUMP_IF_ANY_BIT, UNLINKED, 1),
        error(libc::EOPNOTSUPP),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
}

/// No memory file, and no file can be made: a read-only root without an executable /tmp.
pub fn no_memfd_and_no_new_file() {
    const NEW: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
    install(&[
        statement(LOAD_WORD, NUMBER),
        unless(JUMP_IF_EQUAL, libc::SYS_memfd_create as u32, 1),
        error(libc::EACCES),
        unless(JUMP_IF_EQUAL, libc::SYS_openat as u32, 4),
        statement(LOAD_WORD, argument(2)),
        unless(JUMP_IF_ANY_BIT, NEW, 1),
        error(libc::EROFS),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        unless(JUMP_IF_EQUAL, libc::SYS_open as u32, 3),
        statement(LOAD_WORD, argument(1)),
        unless(JUMP_IF_ANY_BIT, NEW, 1),
        error(libc::EROFS),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]);
}
