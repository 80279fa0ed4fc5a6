//! Runs the binary as a user does: a clean environment, a folder of its own, and an end in any case.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{fakes, surroundings};

/// The entrypoint that cargo built for these tests.
pub const ENTRYPOINT: &str = env!("CARGO_BIN_EXE_cuda-entrypoint");
/// `run` with the tiny manifest and `termination` as its log, to come behind another program's words.
pub const RUN: [&str; 6] = [
    ENTRYPOINT,
    "run",
    "--stack",
    "stack.json",
    "--termination-log",
    "termination",
];
/// What a container usually has.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A manifest that asks for nothing and sets one variable.
pub const TINY: &str = r#"{"schema": 1, "name": "t", "env": {"T_JIT": "1"}}"#;
/// Nothing here takes longer unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(180);
/// Names the [`World`] of a process, so that what is left behind can be found.
const MARK: &str = "TEST_WORLD";

/// A folder for one test, with the tiny manifest in it.
pub struct World {
    dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        world.write("stack.json", TINY);
        world
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file, with the folders that it needs.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    /// A file that may be executed. Another process writes it: a program that some thread here holds open for writing
    /// while another thread forks cannot be executed until that child has exec'd (ETXTBSY).
    pub fn program(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let draft = self.write(&format!("{name}.draft"), content);
        let path = self.path(name);
        self.copy(&draft, name);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// A copy of a program, made as [`World::program`] makes one.
    pub fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        copy_program(from, &path);
        path
    }

    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        path
    }

    /// Some program in a clean environment and this folder.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        surroundings::keep(command.env_clear())
            .env("PATH", PATH)
            .env(MARK, self.dir.path())
            .current_dir(self.dir.path());
        command
    }

    /// A shell whose limit leaves room for the entrypoint's own arguments and environment, but not for the variable of
    /// the manifest that this writes: execve takes a quarter of the stack's limit. What follows is executed.
    pub fn crowded(&self) -> Command {
        let large = "x".repeat(120_000);
        let stack = format!(r#"{{"schema": 1, "name": "t", "env": {{"LARGE": "{large}"}}}}"#);
        self.write("stack.json", stack);
        let mut command = self.command("sh");
        command.args(["-c", "ulimit -s 8192 && exec \"$@\"", "sh"]);
        for index in 0..16 {
            command.env(format!("FILL_{index}"), "y".repeat(128_000));
        }
        command
    }

    /// The entrypoint with exactly these arguments.
    pub fn entrypoint<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = self.command(ENTRYPOINT);
        command.args(args);
        command
    }

    /// `run` with the tiny manifest, no GPU and `termination` as its log, these options after them, then the service.
    pub fn run(&self, options: &[&str], service: &[&str]) -> Command {
        let mut command = self.entrypoint(["run"]);
        self.options(&mut command, options).arg("--").args(service);
        command
    }

    /// `check` with the same.
    pub fn check(&self, options: &[&str]) -> Command {
        let mut command = self.entrypoint(["check"]);
        self.options(&mut command, options);
        command
    }

    fn options<'c>(&self, command: &'c mut Command, options: &[&str]) -> &'c mut Command {
        command
            .args(["--stack", "stack.json", "--gpu", "off"])
            .arg("--termination-log")
            .arg(self.path("termination"))
            .args(options)
    }

    /// Puts the fake driver in front of a command; `script` is what it acts out.
    pub fn with_gpu<'c>(&self, command: &'c mut Command, script: &str) -> &'c mut Command {
        let file = self.write("gpu.json", script);
        command
            .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
            .env("FAKE_GPU_SCRIPT", file)
    }

    /// Processes that were started from here and still run, but for `except`.
    pub fn survivors(&self, except: &[u32]) -> Vec<String> {
        let mark = [
            MARK.as_bytes(),
            b"=",
            self.dir.path().as_os_str().as_encoded_bytes(),
        ]
        .concat();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| !except.contains(pid))
            .filter(|pid| {
                let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environ.split(|byte| *byte == 0).any(|variable| variable == mark)
            })
            .map(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("{pid} {}", name.trim())
            })
            .collect()
    }

    pub fn kill_survivors(&self) {
        for line in self.survivors(&[]) {
            let pid = line.split_once(' ').unwrap().0.parse().unwrap();
            kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }

    #[track_caller]
    pub fn assert_nothing_left(&self) {
        // A killed process is gone from the table a moment after whoever killed it has gone on.
        let settled = eventually(|| self.survivors(&[]).is_empty());
        assert!(settled, "left behind: {:?}", self.survivors(&[]));
    }
}

/// Asks until it holds or until a hang is certain.
pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + HANGS_AFTER;
    while Instant::now() < until {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A process that ended, and what it said.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        Running::start(command).finish()
    }

    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        let said = String::from_utf8_lossy(&self.stdout);
        assert_eq!(
            self.code(),
            Some(code),
            "{}\nstdout: {said}\nstderr: {}",
            self.status,
            self.stderr
        );
        self
    }

    /// Its standard error holds this.
    #[track_caller]
    pub fn says(&self, part: &str) -> &Self {
        assert!(self.stderr.contains(part), "no {part:?} in:\n{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn does_not_say(&self, part: &str) -> &Self {
        assert!(!self.stderr.contains(part), "{part:?} in:\n{}", self.stderr);
        self
    }

    /// Its standard output is exactly this.
    #[track_caller]
    pub fn prints(&self, all: &str) -> &Self {
        assert_eq!(String::from_utf8_lossy(&self.stdout), all, "{}", self.stderr);
        self
    }

    /// Its standard error as one JSON object a line.
    #[track_caller]
    pub fn log(&self) -> Vec<serde_json::Value> {
        let line = |line: &str| {
            let value: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            assert!(value.is_object(), "{line}");
            value
        };
        self.stderr.lines().map(line).collect()
    }
}

/// A process that runs, with its output read all the while.
pub struct Running {
    pub child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Standard input is empty unless the command says otherwise; what is not piped is not read.
    pub fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self::start_as_is(command)
    }

    /// As [`Running::start`], with the streams as the command has them.
    pub fn start_as_is(command: &mut Command) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            stdout: child.stdout.take().map(reader),
            stderr: child.stderr.take().map(reader),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&self, signal: nix::sys::signal::Signal) {
        kill(self.pid(), signal);
    }

    /// The children of this process, once it has one that `ready` likes.
    #[track_caller]
    pub fn child_that(&self, ready: impl Fn(u32) -> bool) -> u32 {
        let found = || children(self.pid()).into_iter().find(|pid| ready(*pid));
        assert!(eventually(|| found().is_some()), "no such child");
        found().expect("it does not end by itself")
    }

    /// The helper that is inside the fake driver: [`World::with_gpu`] with a `cuInit` that hangs.
    #[track_caller]
    pub fn helper_in_driver(&self) -> u32 {
        self.child_that(|pid| {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            // It sleeps while the loader reads the library as well; only the hang is in nanosleep or clock_nanosleep.
            let call = fs::read_to_string(format!("/proc/{pid}/syscall"));
            let hangs = call.map_or(true, |call| call.starts_with("35 ") || call.starts_with("230 "));
            maps.contains("libcuda.so.1") && status.contains("State:\tS") && hangs
        })
    }

    /// Waits for its end and for the end of its output.
    #[track_caller]
    pub fn finish(mut self) -> Run {
        let until = Instant::now() + HANGS_AFTER;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("it hangs");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let all = |thread: Option<JoinHandle<Vec<u8>>>| thread.map_or_else(Vec::new, |t| t.join().unwrap());
        Run {
            status,
            stdout: all(self.stdout),
            stderr: String::from_utf8_lossy(&all(self.stderr)).into_owned(),
        }
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}

/// A copy that may be executed at once, which another process makes: see [`World::program`].
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let status = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(status.unwrap().success());
}

pub fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// The same by the signal's number: nix knows no real-time signals.
#[allow(unsafe_code)] // kill(2)
pub fn kill_by_number(pid: u32, number: i32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: takes two integers.
    let sent = unsafe { nix::libc::kill(pid, number) };
    assert_eq!(
        sent,
        0,
        "signal {number} to {pid}: {}",
        std::io::Error::last_os_error()
    );
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers = |list: String| -> Vec<u32> {
        list.split_ascii_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    };
    lists.flat_map(numbers).collect()
}

/// The state of a process, of which `Z` is a zombie; none where it is gone.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}
