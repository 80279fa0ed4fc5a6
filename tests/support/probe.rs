//! A service that tells what it was started with, and a launcher that starts programs as strange parents do. Both are
//! C, whose start-up changes nothing that is looked at; the compiler is the one that Rust links with.

use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::OnceLock;
use std::{fs, str};

use super::folders::{root, target};

/// The service, a static program: it runs in an empty root too.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| compile("probe", "probe", &["-static"]))
}

/// Options of the launcher: tests/support/c/launcher.c.
pub fn launcher() -> &'static Path {
    static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();
    LAUNCHER.get_or_init(|| compile("launcher", "launcher", &["-static"]))
}

/// A service that tells each signal that it gets: tests/support/c/counter.c.
pub fn counter() -> &'static Path {
    static COUNTER: OnceLock<PathBuf> = OnceLock::new();
    COUNTER.get_or_init(|| compile("counter", "counter", &["-static"]))
}

/// A service that makes orphans: tests/support/c/orphans.c.
pub fn orphans() -> &'static Path {
    static ORPHANS: OnceLock<PathBuf> = OnceLock::new();
    ORPHANS.get_or_init(|| compile("orphans", "orphans", &["-static"]))
}

/// A server that says how it was started: tests/support/c/server.c.
pub fn server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| compile("server", "server", &[]))
}

/// A file system that hangs: tests/support/c/hangfs.c.
pub fn hangfs() -> &'static Path {
    static HANGFS: OnceLock<PathBuf> = OnceLock::new();
    HANGFS.get_or_init(|| compile("hangfs", "hangfs", &["-static"]))
}

/// The service, linked against a loader that does not exist.
pub fn probe_without_loader() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        compile(
            "probe",
            "probe-without-loader",
            &["-Wl,--dynamic-linker=/nowhere/ld.so"],
        )
    })
}

fn compile(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let folder = target().join("probes");
    fs::create_dir_all(&folder).unwrap();
    // Other test programs compile the same: each its own draft, put in place in one step.
    let draft = folder.join(format!("{name}.{}", process::id()));
    let source = root().join("tests/support/c").join(format!("{source}.c"));
    let mut command = Command::new("cc");
    command
        .args(["-std=gnu11", "-Wall", "-Wextra", "-O1", "-o"])
        .arg(&draft);
    let status = command.args(flags).arg(source).status().unwrap();
    assert!(status.success(), "{command:?}");
    let program = folder.join(name);
    fs::rename(draft, &program).unwrap();
    program
}

/// What the service told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub pid: u32,
    pub ppid: u32,
    /// each as [`shown`] shows it
    pub argv: Vec<String>,
    /// each as [`shown`] shows it
    pub env: Vec<String>,
    pub cwd: String,
    /// descriptor and what it is
    pub fds: Vec<(i32, String)>,
    /// signal mask, bit 0 for signal 1
    pub blocked: u64,
    pub ignored: Vec<i32>,
    pub caught: Vec<i32>,
    pub subreaper: i32,
    pub deathsig: i32,
    pub umask: String,
    pub limits: Vec<String>,
    /// process group and session
    pub group: (u32, u32),
    /// a child that has ended and was not waited for, or 0 for children that run
    pub child: Option<u32>,
    /// exit status of each child that the service waited for
    pub waited: Vec<i32>,
}

impl Told {
    pub fn parse(text: &str) -> Self {
        let mut told = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let number = || value.parse::<u32>().unwrap();
            match key {
                "pid" => told.pid = number(),
                "ppid" => told.ppid = number(),
                "argv" => told.argv.push(shown(&unhex(value))),
                "env" => told.env.push(shown(&unhex(value))),
                "cwd" => told.cwd = value.to_string(),
                "fd" => {
                    let (fd, target) = value.split_once(' ').unwrap();
                    told.fds.push((fd.parse().unwrap(), target.to_string()));
                }
                "blocked" => told.blocked = u64::from_str_radix(value, 16).unwrap(),
                "ignored" => told.ignored.push(value.parse().unwrap()),
                "caught" => told.caught.push(value.parse().unwrap()),
                "subreaper" => told.subreaper = value.parse().unwrap(),
                "deathsig" => told.deathsig = value.parse().unwrap(),
                "umask" => told.umask = value.to_string(),
                "limit" => told.limits.push(value.to_string()),
                "group" => told.group.0 = number(),
                "session" => told.group.1 = number(),
                "child" => told.child = Some(number()),
                "waited" => told
                    .waited
                    .push(value.split_once(' ').unwrap().1.parse().unwrap()),
                other => panic!("the probe told {other:?}"),
            }
        }
        assert_ne!(told.pid, 0, "no service ran: {text:?}");
        told
    }

    pub fn numbers(&self) -> Vec<i32> {
        self.fds.iter().map(|(fd, _)| *fd).collect()
    }
}

/// Bytes in a form that can be read and stands for nothing else.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
