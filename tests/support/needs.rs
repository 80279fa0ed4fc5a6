//! What some tests need of the machine. A test asks for it where it needs it; where it is not there the harness reports
//! the test as not run, with the kind, the reason and what brings it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::{env, fmt, fs};

use super::folders::target;
use super::harness;
use super::probe::hangfs;

/// A kind of thing that is not on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// the binary that ships, which `make test` builds and names
    Shipped,
    /// a Docker daemon
    Docker,
    /// podman, which plays pods
    Podman,
    /// makes the containers' base images
    Debootstrap,
    /// the wheels of tests/requirements
    Wheels,
    /// shows what the helper does with memory
    Valgrind,
    /// shows which files a start opens
    Strace,
    /// script(1), which gives a program a terminal
    Script,
    /// root of this machine: other users, their files, chroot
    Root,
    /// a process that is PID 1
    PidNamespace,
    /// a /dev or a disk of the test's own
    MountNamespace,
    /// a /dev of the test's own in which it may make nodes
    DeviceNodes,
    /// a root of the test's own, with mounts and processes
    UserNamespace,
    /// a file system that does not answer
    Fuse,
    /// `vm.memfd_noexec`
    MemfdNoexec,
    /// MADV_POPULATE_WRITE
    Populate,
    /// files without a name (O_TMPFILE) on the file system of temporary files
    UnlinkedFile,
    /// a name that is there at each moment while another file is renamed over it
    AtomicRename,
    /// access control lists on the file system of temporary files
    Acl,
    /// what tests/aarch64/prepare.sh makes, and a kernel that runs it
    Aarch64,
    /// Pythons of other versions
    Pythons,
}

use Need::*;

/// How many kinds there are.
const KINDS: usize = Pythons as usize + 1;

/// For unshare(1): root in namespaces of its own, with mounts and processes.
pub const USER_NAMESPACES: [&str; 6] = [
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
];

/// Whether a test that cannot run has failed.
pub fn all_are_asked_for() -> bool {
    env::var_os("CUDA_ENTRYPOINT_TEST_ALL").is_some_and(|value| value == "1")
}

/// Why a test was not run: the payload by which it unwinds.
#[derive(Clone, Debug)]
pub struct Lack {
    need: Need,
    reason: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.need.row();
        write!(f, "needs {}: {}; {}", row.name, self.reason, row.brings)
    }
}

/// How a kind is shown.
struct Row {
    name: &'static str,
    /// the one command or step that brings it
    brings: &'static str,
    /// what of it Debian packages, to be installed together with what others lack
    packages: &'static [&'static str],
}

/// What was left out for want of one kind.
#[derive(Default)]
struct LeftOut {
    /// the first that was given
    reason: String,
    /// names of tests that were not run
    whole: Vec<String>,
    /// names of tests of which a part was not run
    parts: Vec<String>,
}

static LEFT_OUT: Mutex<BTreeMap<Need, LeftOut>> = Mutex::new(BTreeMap::new());

impl Need {
    /// The test goes on only where it is there.
    pub fn demand(self) {
        if let Err(reason) = self.probed() {
            self.lacking(reason);
        }
    }

    /// Whether a part of the test can be made; the rest of it goes on in any case.
    pub fn is_there(self) -> bool {
        let Err(reason) = self.probed() else { return true };
        if all_are_asked_for() {
            self.lacking(reason);
        }
        self.note(&reason, true);
        false
    }

    /// Ends the test as not run, for a reason that only the test can find out.
    pub fn lacking(self, reason: impl Into<String>) -> ! {
        let reason = reason.into();
        self.note(&reason, false);
        resume_unwind(Box::new(Lack { need: self, reason }))
    }

    fn note(self, reason: &str, in_part: bool) {
        let Some(test) = harness::current() else { return };
        let mut all = LEFT_OUT.lock().unwrap();
        let left_out = all.entry(self).or_default();
        if left_out.reason.is_empty() {
            left_out.reason = reason.to_string();
        }
        let list = if in_part {
            &mut left_out.parts
        } else {
            &mut left_out.whole
        };
        if !list.contains(&test) {
            list.push(test);
        }
    }

    fn row(self) -> Row {
        let row = |name, brings, packages| Row {
            name,
            brings,
            packages,
        };
        let privileged = "run the tests as root, in a container with `--privileged`";
        match self {
            Shipped => row("dist/cuda-entrypoint", "make test", &[]),
            Docker => row(
                "Docker",
                "apt-get install -y docker.io && service docker start",
                &["docker.io"],
            ),
            Podman => row(
                "podman",
                "apt-get install -y podman catatonit",
                &["podman", "catatonit"],
            ),
            Debootstrap => row(
                "debootstrap",
                "as root: apt-get install -y debootstrap",
                &["debootstrap"],
            ),
            Wheels => row(
                "wheels from PyPI",
                "tests/build/wheels.py demo tests stories stack-faults",
                &[],
            ),
            Valgrind => row(
                "valgrind",
                "apt-get install -y valgrind libc6-dbg",
                &["valgrind", "libc6-dbg"],
            ),
            Strace => row("strace", "apt-get install -y strace", &["strace"]),
            Script => row("script(1)", "apt-get install -y bsdutils", &["bsdutils"]),
            Root => row("root", "run the tests as root", &[]),
            PidNamespace => row("PID namespaces", privileged, &[]),
            MountNamespace => row("mount namespaces", privileged, &[]),
            DeviceNodes => row("device nodes", privileged, &[]),
            UserNamespace => row("user namespaces", privileged, &[]),
            Fuse => row(
                "FUSE",
                "as root: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN",
                &[],
            ),
            MemfdNoexec => row(
                "vm.memfd_noexec",
                "run the tests as root, on Linux 6.3 or newer",
                &[],
            ),
            Populate => row("MADV_POPULATE_WRITE", "Linux 5.14 or newer", &[]),
            UnlinkedFile => row(
                "O_TMPFILE",
                "TMPDIR=FOLDER on a file system that has it, which overlayfs may not",
                &[],
            ),
            AtomicRename => row(
                "atomic renames",
                "TMPDIR=FOLDER on a file system that has them, which overlayfs does not",
                &[],
            ),
            Acl => row(
                "access control lists",
                "TMPDIR=FOLDER on a file system that has them",
                &[],
            ),
            Aarch64 => row(
                "the aarch64 binary and what runs it",
                "as root: make test-aarch64",
                &[],
            ),
            Pythons => row(
                "other Pythons",
                "CUDA_ENTRYPOINT_TEST_PYTHONS=PATH:... names them, where none is on PATH or among pyenv's",
                &[],
            ),
        }
    }

    /// What is missing, asked once for each kind.
    fn probed(self) -> Result<(), String> {
        static ANSWERS: [OnceLock<Result<(), String>>; KINDS] = [const { OnceLock::new() }; KINDS];
        ANSWERS[self as usize].get_or_init(|| self.probe()).clone()
    }

    fn probe(self) -> Result<(), String> {
        match self {
            Shipped => match env::var_os("CUDA_ENTRYPOINT_DIST") {
                Some(path) if Path::new(&path).is_file() => Ok(()),
                Some(path) => Err(format!("CUDA_ENTRYPOINT_DIST names no file: {}", path.display())),
                None => Err("CUDA_ENTRYPOINT_DIST does not name the binary that `make build` made".into()),
            },
            Docker => switched_on("CUDA_ENTRYPOINT_SKIP_DOCKER")
                .and_then(|()| is_installed("docker"))
                .and_then(|()| works(&["timeout", "60", "docker", "info"])),
            Podman => switched_on("CUDA_ENTRYPOINT_SKIP_PODMAN")
                .and_then(|()| switched_on("CUDA_ENTRYPOINT_SKIP_DOCKER"))
                .and_then(|()| is_installed("podman")),
            Debootstrap => is_installed("debootstrap").and_then(|()| Root.probed()),
            // Each wheel says itself whether it is there.
            Wheels => Ok(()),
            Valgrind => is_installed("valgrind").and_then(|()| works(&["valgrind", "--quiet", "true"])),
            Strace => is_installed("strace").and_then(|()| works(&["strace", "-o", "/dev/null", "true"])),
            Script => is_installed("script").and_then(|()| works(&["script", "-qec", "true", "/dev/null"])),
            Root => match nix::unistd::geteuid().is_root() {
                true => works(&["setpriv", "--reuid", "1000", "--clear-groups", "true"]),
                false => Err("the tests run as another user".into()),
            },
            PidNamespace => works(&["unshare", "--fork", "--pid", "--mount-proc", "true"]),
            MountNamespace => works(&["unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev"]),
            DeviceNodes => {
                let script = "mount -t tmpfs none /dev && mknod /dev/nvidiactl c 195 255";
                works(&["unshare", "-m", "sh", "-c", script])
            }
            UserNamespace => {
                let mount = ["mount", "-t", "tmpfs", "none", "/dev"];
                works(&[&["unshare"][..], &USER_NAMESPACES, &mount].concat())
            }
            Fuse => {
                let folder = tempfile::tempdir().unwrap();
                works(&[
                    hangfs().to_str().unwrap(),
                    folder.path().to_str().unwrap(),
                    "true",
                ])
            }
            MemfdNoexec => {
                let script = "echo 2 >/proc/sys/vm/memfd_noexec";
                works(&[&["unshare"][..], &USER_NAMESPACES, &["sh", "-c", script]].concat())
            }
            Populate => match kernel() >= (5, 14) {
                true => Ok(()),
                false => Err("this kernel does not have it".into()),
            },
            UnlinkedFile => {
                let folder = env::temp_dir();
                let mut options = fs::OpenOptions::new();
                options.write(true).custom_flags(nix::libc::O_TMPFILE);
                let opened = options.open(&folder);
                opened
                    .map(drop)
                    .map_err(|error| format!("{}: {error}", folder.display()))
            }
            Aarch64 => switched_on("CUDA_ENTRYPOINT_SKIP_AARCH64").and_then(|()| {
                match target().join("cross/image/cuda-entrypoint").is_file() {
                    true => works(&["tests/aarch64/inside.sh", "true"]),
                    false => Err("tests/aarch64/prepare.sh did not run".into()),
                }
            }),
            // The test finds out.
            AtomicRename | Acl | Pythons => Ok(()),
        }
    }
}

fn switched_on(variable: &str) -> Result<(), String> {
    match env::var_os(variable).is_some_and(|value| value == "1") {
        true => Err(format!("{variable}=1 is set")),
        false => Ok(()),
    }
}

fn is_installed(program: &str) -> Result<(), String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join(program).is_file());
    found
        .then_some(())
        .ok_or_else(|| format!("there is no {program} on PATH"))
}

fn works(command: &[&str]) -> Result<(), String> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output();
    let shown = command.join(" ");
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.trim().lines().last().unwrap_or_default().to_string();
            Err(format!(
                "`{shown}`: {}",
                if last.is_empty() {
                    output.status.to_string()
                } else {
                    last
                }
            ))
        }
        Err(error) => Err(format!("`{shown}`: {error}")),
    }
}

/// Major and minor version of Linux.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.trim().parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The last lines of a run: what was left out, for want of what, and what brings it. Empty where nothing was.
pub fn summary() -> String {
    let all = LEFT_OUT.lock().unwrap();
    if all.is_empty() {
        return String::new();
    }
    let whole: usize = all.values().map(|left_out| left_out.whole.len()).sum();
    let parts: usize = all.values().map(|left_out| left_out.parts.len()).sum();
    let mut text = format!("not run: {}", tests(whole));
    if parts > 0 {
        let _ = write!(text, ", and a part of {}", tests(parts));
    }
    text.push('\n');
    let mut packages: Vec<&str> = Vec::new();
    for (need, LeftOut { reason, whole, parts }) in all.iter() {
        let row = need.row();
        let count = match (whole.len(), parts.len()) {
            (whole, 0) => tests(whole),
            (0, parts) => format!("a part of {}", tests(parts)),
            (whole, parts) => format!("{} and a part of {}", tests(whole), tests(parts)),
        };
        let _ = writeln!(text, "  {}, for want of {}: {reason}", count, row.name);
        let _ = writeln!(text, "    to run them: {}", row.brings);
        // Whoever leaves them out has them.
        if !reason.starts_with("CUDA_ENTRYPOINT_SKIP_") {
            packages.extend(row.packages);
        }
    }
    if packages.len() > 1 {
        let _ = writeln!(
            text,
            "  all of it that is a package: apt-get install -y {}",
            packages.join(" ")
        );
    }
    text
}

pub fn tests(count: usize) -> String {
    format!("{count} {}", if count == 1 { "test" } else { "tests" })
}
