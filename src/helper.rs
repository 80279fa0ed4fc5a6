//! The glibc helper: how it gets from our own bytes into a process, and how its lines become facts.
//!
//! A static binary cannot load glibc libraries and a driver that crashes would take PID 1 with it, so a second, tiny,
//! dynamically linked program does the loading. It is embedded here and run from a sealed memory file; where that may
//! not be executed (`vm.memfd_noexec`, seccomp, an LSM), from an unlinked or a private temporary file.

pub mod install;

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use crate::discover::files::others_may_write;
use crate::draft;
use crate::facts::{self, HelperEnd, HelperLine, HelperRun, Library, LibraryKind};
use crate::packed;
use crate::process::limits::ResourceLimit;
use crate::process::supervisor::{Ended, Exit, JobId, Start, Supervisor};
use crate::processor::OWN;
use crate::sys::{self, Program};

/// What the helper is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// the version of each of these copies of a runtime library
    Libraries(Vec<Copy>),
    /// libcuda and the visible devices
    Driver {
        /// it stays for the native proof, and waits for its plan
        native: bool,
    },
    /// libnvidia-ml and the physical GPUs; with a number of bytes, who holds the memory of one that has less free. Of `parts`
    /// runs that share the GPUs out, this is number `part`
    Nvml {
        /// bytes
        free: Option<u64>,
        /// from 0 on
        part: usize,
        /// 1 or more
        parts: usize,
    },
}

/// A copy of a runtime library that is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// among the image's libraries
    pub position: usize,
    kind: LibraryKind,
    path: PathBuf,
}

impl Request {
    /// Requests for the image's libraries from `first` on. Where there are several copies of libnvrtc, of which each takes
    /// longer to load than all the rest, two runs ask one half each.
    pub fn libraries(all: &[Library], first: usize) -> Vec<Self> {
        let new = all.get(first..).unwrap_or_default();
        let count = |kind| new.iter().filter(|library| library.kind == kind).count();
        let runs = if count(LibraryKind::Nvrtc) > 1 { 2 } else { 1 };
        let mut requests = vec![Vec::new(); runs];
        for kind in LibraryKind::ALL {
            let of_kind = new
                .iter()
                .zip(first..)
                .filter(|(library, _)| library.kind == *kind);
            for (request, (library, position)) in (0..runs).cycle().zip(of_kind) {
                if let Some(copies) = requests.get_mut(request) {
                    copies.push(Copy {
                        position,
                        kind: library.kind,
                        path: PathBuf::from(&library.path),
                    });
                }
            }
        }
        requests.retain(|copies| !copies.is_empty());
        requests.into_iter().map(Self::Libraries).collect()
    }

    fn argv(&self) -> Vec<CString> {
        let mut words: Vec<Vec<u8>> = vec![b"cuda-helper".to_vec()];
        match self {
            Self::Driver { native } => {
                words.push(b"driver".to_vec());
                words.extend(native.then(|| b"native".to_vec()));
            }
            Self::Nvml { free, part, parts } => {
                words.push(b"nvml".to_vec());
                words.extend(free.map(|bytes| bytes.to_string().into_bytes()));
                if *parts > 1 {
                    words.push(format!("{part}/{parts}").into_bytes());
                }
            }
            Self::Libraries(all) => {
                words.push(b"libraries".to_vec());
                for copy in all {
                    words.push(copy.kind.argument(copy.path.as_os_str().as_bytes()));
                }
            }
        }
        // A path with a NUL byte cannot come from the file system.
        words.into_iter().filter_map(|w| CString::new(w).ok()).collect()
    }
}

/// Something that can be executed, and how that came about.
#[derive(Debug)]
struct Form {
    fd: OwnedFd,
    /// its name in /proc, where it is executed by that
    path: Option<CString>,
    what: &'static str,
}

impl Form {
    /// How it is told.
    fn name(&self) -> String {
        let how = if self.path.is_some() { " by /proc" } else { "" };
        format!("{}{how}", self.what)
    }
}

/// A run that was started.
#[derive(Debug)]
pub struct Started {
    /// its process
    pub id: JobId,
    /// where it waits to be told something, the pipe for it
    pub input: Option<OwnedFd>,
}

/// Starts helpers, remembering which way of executing the embedded bytes worked.
#[derive(Debug)]
pub struct Helper {
    on_disk: Option<PathBuf>,
    form: Option<Form>,
    envp: Vec<CString>,
}

/// Variables of the loader that are not the helper's: a preload is meant for the service, and a broken one must not look like
/// a broken driver; one has all symbols bound at once, which no program does that opens NVML; the others have the loader
/// print on standard output, or print and run nothing (ld.so(8)).
const MISLEADING: [&[u8]; 6] = [
    b"LD_PRELOAD",
    b"LD_BIND_NOW",
    b"LD_SHOW_AUXV",
    b"LD_TRACE_LOADED_OBJECTS",
    b"LD_VERBOSE",
    b"LD_PROFILE",
];

impl Helper {
    /// `on_disk` is `--helper-path`; `envp` is the service's environment without [`MISLEADING`].
    pub fn new(on_disk: Option<&Path>, envp: &[CString]) -> Self {
        let envp = envp
            .iter()
            .filter(|v| !MISLEADING.contains(&v.as_bytes().split(|&b| b == b'=').next().unwrap_or_default()))
            .cloned()
            .collect();
        Self {
            on_disk: on_disk.map(Path::to_path_buf),
            form: None,
            envp,
        }
    }

    /// Starts one run in which each call may take this long, and all of them [`IN_ALL`] times as long.
    ///
    /// # Errors
    /// [`HelperEnd::LoaderMissing`] or [`HelperEnd::NotStarted`], ready to be judged.
    pub fn start(
        &mut self,
        supervisor: &mut Supervisor,
        request: &Request,
        time: Duration,
    ) -> Result<Started, HelperEnd> {
        let listens = matches!(request, Request::Driver { native: true });
        let argv = request.argv();
        if let Some(form) = &self.form {
            return launch(supervisor, form, &argv, &self.envp, time, listens).map_err(|e| {
                HelperEnd::NotStarted {
                    detail: format!("{}: {e}", form.name()),
                }
            });
        }
        let mut refused = Vec::new();
        let sources = if self.on_disk.is_some() {
            &ON_DISK[..]
        } else {
            &EMBEDDED
        };
        for source in sources {
            let fd = match (source.make)(self.on_disk.as_deref()) {
                Ok(fd) => fd,
                Err(error) => {
                    refused.push(format!("{}: {error}", source.what));
                    continue;
                }
            };
            let mut form = Form {
                fd,
                path: None,
                what: source.what,
            };
            loop {
                let what = form.name();
                match launch(supervisor, &form, &argv, &self.envp, time, listens) {
                    Ok(started) => {
                        tracing::debug!(way = what.as_str(), "helper started: {what}");
                        self.form = Some(form);
                        return Ok(started);
                    }
                    // execve(2): ENOENT for a file that is there means that its interpreter is not. Or an emulator, which
                    // opens programs by name, got one that has none.
                    Err(Errno::ENOENT) if !Path::new(OWN.loader).exists() => {
                        return Err(HelperEnd::LoaderMissing {
                            detail: format!("{} does not exist", OWN.loader),
                        });
                    }
                    // No other way of executing would find more of it.
                    Err(errno) if ResourceLimit::of(errno).is_some() => {
                        return Err(HelperEnd::NotStarted {
                            detail: format!("{what}: {errno}"),
                        });
                    }
                    Err(errno) => refused.push(format!("{what}: {errno}")),
                }
                // Where execveat is refused or emulated (qemu-user), the same file by its name. Without /proc its
                // ENOENT would be taken for a loader that is missing.
                if form.path.is_some() {
                    break;
                }
                form.path = Some(proc_path(&form.fd));
                if !Path::new("/proc/self/fd").exists() {
                    refused.push(format!("{}: /proc is not mounted", form.name()));
                    break;
                }
            }
        }
        Err(HelperEnd::NotStarted {
            detail: refused.join("; "),
        })
    }
}

/// How many times the deadline of one call a run may take: 16 GPUs are asked some 200 things, and where each takes a second
/// none of them hangs.
const IN_ALL: u32 = 10;

fn launch(
    supervisor: &mut Supervisor,
    form: &Form,
    argv: &[CString],
    envp: &[CString],
    time: Duration,
    listens: bool,
) -> Result<Started, Errno> {
    let program = match &form.path {
        Some(path) => Program::Path(path),
        None => Program::Fd(form.fd.as_fd()),
    };
    let start = Start {
        program,
        argv,
        envp,
        time,
    };
    let (id, input) = match listens {
        true => {
            let (id, input) = supervisor.start_listening(&start).map_err(|e| e.errno)?;
            supervisor.await_words(id, true);
            (id, Some(input))
        }
        false => (supervisor.start(&start).map_err(|e| e.errno)?, None),
    };
    // It names each call before it makes it.
    supervisor.renew(id, time.saturating_mul(IN_ALL));
    Ok(Started { id, input })
}

/// Where the helper's bytes come from.
struct Source {
    what: &'static str,
    make: fn(Option<&Path>) -> Result<OwnedFd, String>,
}

const ON_DISK: [Source; 1] = [Source {
    what: "--helper-path",
    make: from_disk,
}];
const EMBEDDED: [Source; 4] = [
    Source {
        what: "memory file",
        make: |_| memory_file(),
    },
    Source {
        what: "unlinked temporary file",
        make: |_| unlinked_file(),
    },
    Source {
        what: "temporary file",
        make: |_| temporary_file(),
    },
    // Where `install DIR` has put both.
    Source {
        what: "file beside this binary",
        make: |_| beside_us(),
    },
];

/// A sealed copy in memory: once sealed nobody can change it, not even a process that got hold of the descriptor.
fn memory_file() -> Result<OwnedFd, String> {
    let name = c"cuda-helper";
    let fd = sys::memfd(name, true).map_err(|e| format!("memfd_create: {e}"))?;
    let mut file = File::from(fd);
    file.write_all(packed::helper())
        .map_err(|e| format!("write: {e}"))?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| format!("sealing: {e}"))?;
    Ok(file.into())
}

fn proc_path(fd: &OwnedFd) -> CString {
    use std::os::fd::AsRawFd;
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// Folders where a temporary file may be executable, most likely first.
fn temporary_folders() -> Vec<PathBuf> {
    let own = std::env::var_os("TMPDIR")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    own.into_iter()
        .chain(["/tmp", "/var/tmp", "/run", "/dev/shm"].map(PathBuf::from))
        .collect()
}

/// A file that never has a name (O_TMPFILE), reopened for reading: the kernel executes nothing that is open for writing.
fn unlinked_file() -> Result<OwnedFd, String> {
    in_first_folder(|folder| {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .mode(0o700)
            .custom_flags(nix::libc::O_TMPFILE | nix::libc::O_CLOEXEC);
        let mut file = options.open(folder)?;
        file.write_all(packed::helper())?;
        let reopened = File::open(OsStr::from_bytes(proc_path(&file.try_clone()?.into()).as_bytes()))?;
        refuse_noexec(&reopened)?;
        Ok(reopened.into())
    })
}

/// A named file for the time of its opening, made with O_EXCL and mode 0700.
fn temporary_file() -> Result<OwnedFd, String> {
    in_first_folder(|folder| {
        let path = folder.join(format!(
            ".cuda-helper-{}-{}",
            std::process::id(),
            draft::unguessable()
        ));
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o700)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC);
        let mut file = options.open(&path)?;
        let written = file.write_all(packed::helper());
        let reopened = written
            .and_then(|()| reopen(&file, &path))
            .and_then(|f| refuse_noexec(&f).map(|()| f));
        let removed = fs::remove_file(&path);
        let reopened = reopened?;
        removed?;
        Ok(reopened.into())
    })
}

/// The same file for reading. In a folder like an emptyDir, 0777 without the sticky bit, whoever likes may have put
/// another one in its place by now. `file` keeps its inode from being anybody else's until then.
fn reopen(file: &File, path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let reopened = options.read(true).custom_flags(flags).open(path)?;
    let (ours, found) = (file.metadata()?, reopened.metadata()?);
    if (ours.dev(), ours.ino()) != (found.dev(), found.ino()) {
        return Err(std::io::Error::other(
            "another file was put in the place of ours: set TMPDIR to a folder of this user's own",
        ));
    }
    Ok(reopened)
}

/// The exec would be refused there, and then the next folder would not be tried.
fn refuse_noexec(file: &File) -> std::io::Result<()> {
    let flags = nix::sys::statvfs::fstatvfs(file)
        .map_err(std::io::Error::from)?
        .flags();
    if flags.contains(nix::sys::statvfs::FsFlags::ST_NOEXEC) {
        return Err(std::io::Error::other("mounted noexec"));
    }
    Ok(())
}

fn in_first_folder(make: impl Fn(&Path) -> std::io::Result<OwnedFd>) -> Result<OwnedFd, String> {
    let mut refused = Vec::new();
    for folder in temporary_folders() {
        match make(&folder) {
            Ok(fd) => return Ok(fd),
            Err(error) => refused.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(refused.join(", "))
}

fn beside_us() -> Result<OwnedFd, String> {
    let own = fs::read_link("/proc/self/exe").map_err(|e| format!("/proc/self/exe: {e}"))?;
    from_disk(Some(&own.with_file_name(install::HELPER)))
}

/// `--helper-path`: executed only if it is, byte for byte, the helper of this very build and nobody else can write it.
fn from_disk(path: Option<&Path>) -> Result<OwnedFd, String> {
    let Some(path) = path else {
        return Err("no path".to_string());
    };
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC);
    let file = options
        .open(path)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let facts = file.metadata().map_err(|e| format!("{}: {e}", path.display()))?;
    if !facts.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let us = nix::unistd::geteuid().as_raw();
    if others_may_write(&facts, us) {
        return Err(format!(
            "{} is owned by uid {} with mode {:o}: another user could replace it (chown root, chmod 755)",
            path.display(),
            facts.uid(),
            facts.mode() & 0o7777
        ));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(packed::helper().len())
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    (&file)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    if bytes != packed::helper() {
        return Err(format!(
            "{} is not the helper of cuda-entrypoint {}",
            path.display(),
            crate::version::VERSION
        ));
    }
    Ok(file.into())
}

/// What a run said, as far as it came.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Decoded {
    /// the lines that made sense, [`HelperLine::Step`] and [`HelperLine::Done`] left out
    pub lines: Vec<HelperLine>,
    /// the call that it was in when it ended
    pub step: String,
    /// whether the last line was [`HelperLine::Done`]
    pub done: bool,
    /// the first line that made no sense, with its number
    pub garbled: Option<String>,
}

/// Longest line that the helper has reason to write: the strings of a vendor library are capped on its side.
const LINE_LIMIT: usize = 64 << 10;

/// Decodes the helper's standard output; a last line without a newline is cut off and makes it garbled.
pub fn decode(stdout: &[u8]) -> Decoded {
    let mut decoded = Decoded {
        step: "start".to_string(),
        ..Decoded::default()
    };
    for (index, line) in stdout.split_inclusive(|&b| b == b'\n').enumerate() {
        let number = index + 1;
        let Some(line) = line.strip_suffix(b"\n") else {
            decoded.garbled = Some(format!("line {number} is cut off after {} bytes", line.len()));
            break;
        };
        if decoded.done {
            decoded.garbled = Some(format!("line {number} comes after the last one"));
            break;
        }
        if line.len() > LINE_LIMIT {
            decoded.garbled = Some(format!("line {number} has {} bytes", line.len()));
            break;
        }
        match facts::from_json(line) {
            Ok(HelperLine::Step(step)) => decoded.step = step,
            Ok(HelperLine::Done) => decoded.done = true,
            Ok(fact) => decoded.lines.push(fact),
            Err(error) => {
                decoded.garbled = Some(format!("line {number} is not a valid fact: {error}"));
                break;
            }
        }
    }
    if decoded.done {
        decoded.step = "exit".to_string();
    }
    decoded
}

/// Judges how a run ended from what it said and how its process ended.
pub fn conclude(ended: &Ended) -> (HelperRun, Vec<HelperLine>) {
    let decoded = decode(&ended.stdout);
    let step = decoded.step;
    let stderr = last_lines(&ended.stderr);
    let silent = decoded.lines.is_empty() && step == "start" && ended.stdout.is_empty();
    let end = match ended.exit {
        Exit::Cancelled => HelperEnd::NotRun,
        Exit::TimedOut { reaped } => HelperEnd::TimedOut {
            step,
            after_ms: u64::try_from(ended.deadline.time.as_millis()).unwrap_or(u64::MAX),
            killed: reaped,
            in_all: ended.deadline.in_all,
        },
        Exit::OutputLimit => HelperEnd::Garbled {
            detail: "it wrote more than 8 MiB".to_string(),
            step,
        },
        Exit::Signal(signal) => HelperEnd::Crashed { signal, step },
        // glibc's loader and musl's both explain themselves on stderr before the program's first line.
        Exit::Code(code) if code != 0 && silent && !stderr.is_empty() => {
            HelperEnd::LoaderMissing { detail: stderr }
        }
        _ if decoded.garbled.is_some() => HelperEnd::Garbled {
            detail: decoded.garbled.unwrap_or_default(),
            step,
        },
        Exit::Code(0) if decoded.done => HelperEnd::Done,
        Exit::Code(code) => HelperEnd::Exited { code, step, stderr },
    };
    (
        HelperRun {
            end,
            ms: ended.elapsed.as_secs_f64() * 1000.0,
        },
        decoded.lines,
    )
}

/// The last few lines of a process's stderr as one string.
pub fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let from = lines.len().saturating_sub(5);
    lines.get(from..).unwrap_or_default().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::supervisor::Deadline;

    fn ended(exit: Exit, stdout: &[u8], stderr: &[u8]) -> Ended {
        Ended {
            exit,
            stdout: stdout.to_vec(),
            stderr: stderr.to_vec(),
            elapsed: Duration::from_millis(3),
            deadline: Deadline {
                time: Duration::from_secs(60),
                in_all: false,
            },
        }
    }

    fn end_of(exit: Exit, stdout: &[u8], stderr: &[u8]) -> HelperEnd {
        conclude(&ended(exit, stdout, stderr)).0.end
    }

    #[test]
    fn only_the_file_that_was_written_is_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("helper");
        let file = File::create(&path).unwrap();
        assert!(reopen(&file, &path).is_ok());
        fs::rename(&path, folder.path().join("ours")).unwrap();
        assert!(reopen(&file, &path).is_err());
        fs::write(&path, "theirs").unwrap();
        let error = reopen(&file, &path).unwrap_err().to_string();
        assert!(error.contains("in the place of ours"), "{error}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("ours", &path).unwrap();
        assert!(reopen(&file, &path).is_err());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reopen(&file, &path).is_err());
    }

    #[test]
    fn a_run_that_went_through() {
        let out = b"{\"step\":\"cuInit\"}\n{\"device\":{\"ordinal\":0,\"name\":\"x\"}}\n\"done\"\n";
        let (run, lines) = conclude(&ended(Exit::Code(0), out, b""));
        assert_eq!(run.end, HelperEnd::Done);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn every_other_end_names_its_step() {
        let begun = b"{\"step\":\"cuInit\"}\n";
        assert_eq!(
            end_of(Exit::Signal(11), begun, b""),
            HelperEnd::Crashed {
                signal: 11,
                step: "cuInit".into()
            }
        );
        let late = end_of(Exit::TimedOut { reaped: true }, begun, b"");
        assert_eq!(
            late,
            HelperEnd::TimedOut {
                step: "cuInit".into(),
                after_ms: 60_000,
                killed: true,
                in_all: false
            }
        );
        let code = end_of(Exit::Code(3), begun, b"a\nb\n");
        assert_eq!(
            code,
            HelperEnd::Exited {
                code: 3,
                step: "cuInit".into(),
                stderr: "a | b".into()
            }
        );
        // An exit status of 0 without the last line is no success.
        assert!(matches!(
            end_of(Exit::Code(0), begun, b""),
            HelperEnd::Exited { code: 0, .. }
        ));
        assert!(matches!(
            end_of(Exit::Code(0), b"", b""),
            HelperEnd::Exited { code: 0, .. }
        ));
        let hung_at_exit = end_of(Exit::TimedOut { reaped: true }, b"\"done\"\n", b"");
        assert!(
            matches!(hung_at_exit, HelperEnd::TimedOut { ref step, .. } if step == "exit"),
            "{hung_at_exit:?}"
        );
    }

    #[test]
    fn a_loader_that_explains_itself() {
        let said =
            b"./cuda-helper: /lib/libc.so.6: version `GLIBC_2.17' not found (required by ./cuda-helper)\n";
        assert!(
            matches!(end_of(Exit::Code(1), b"", said), HelperEnd::LoaderMissing { detail } if detail.contains("GLIBC_2.17"))
        );
        assert!(matches!(
            end_of(Exit::Code(127), b"", b"Error relocating x"),
            HelperEnd::LoaderMissing { .. }
        ));
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for (out, place) in [
            (&b"garbage\n\"done\"\n"[..], "line 1"),
            (b"{\"step\":\"a\"}\n{\"device\"", "line 2 is cut off"),
            (b"{\"step\":\"a\"}\n\xff\xfe\n\"done\"\n", "line 2"),
            (b"\"done\"\n{\"step\":\"a\"}\n", "line 2 comes after"),
            (b"{\"device\":{\"ordinal\":99999999999}}\n\"done\"\n", "line 1"),
            (b"\n\"done\"\n", "line 1"),
        ] {
            match end_of(Exit::Code(0), out, b"") {
                HelperEnd::Garbled { detail, .. } => assert!(detail.contains(place), "{detail}"),
                other => panic!("{other:?} for {:?}", String::from_utf8_lossy(out)),
            }
        }
        let long = [&b"{\"step\":\""[..], &vec![b'a'; LINE_LIMIT], b"\"}\n"].concat();
        assert!(matches!(
            end_of(Exit::Code(0), &long, b""),
            HelperEnd::Garbled { .. }
        ));
    }
}
