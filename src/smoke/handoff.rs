//! The hand-off: the service's own Python imports the stack once, and a forked child of it proves the GPU.
//!
//! The service's argv is started unchanged, as a child, with a zip in a memory file in front of `PYTHONPATH`. What that
//! holds (src/smoke/arrive.py, handoff.py) says that it is there before any code of the image runs in that Python, and goes
//! on only when it is told to. Nothing but its own words counts as a proof. Until the first word this side looks at what
//! the process executes: a program to which the variable did not come through, and a Python that is told to ignore it,
//! are ended; so is silence. Whatever keeps a process from being the one that proves has a sentence, and leads to a smoke
//! in a process of its own.
//!
//! The process has no descriptor of ours but those that it opens itself, by our number under /proc.
//!
//! How long can a process live that has not been proven? It is traced (ptrace(2)) until it comes to its imports, so that it
//! stands still after each exec and, unless it is a shell, at its first fork: what will not say a word is ended before its
//! first instruction. A Python that has said one waits, and the service's own code begins behind `sitecustomize`, where it waits again; code of
//! the image that takes that away is found out at the first line of `__main__`. What remains are programs that are neither
//! recognised nor answer, for [`SILENCE`] after their last exec, and `.pth` files whose code does not return, or undoes all
//! of this by intent, for [`BEFORE_SITE`]. Where tracing is refused (a seccomp profile, Yama), /proc is looked at instead,
//! every [`GLANCE`]: then a program may run for that long, or longer on a busy machine.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;

use super::{UNTIL_DECIDED, decode, plan, zip};
use crate::cli::config::SmokeDevices;
use crate::discover::python;
use crate::facts::read::{lines, object};
use crate::facts::smoke::SmokeRun;
use crate::facts::{self, Python};
use crate::packed;
use crate::process::supervisor::{self, Deadline, Ended, Exit, JobId, Supervisor};
use crate::stack::Builtin;
use crate::sys::{self, Service, Stop};

/// How long a process may be silent after its last exec. A Python says its first word a few milliseconds after it was
/// executed; the rest is for disks that have to fetch it first.
const SILENCE: Duration = Duration::from_secs(3);
/// How long it may go on executing other programs, silent all the while.
const WRAPPING: Duration = Duration::from_secs(10);
/// How long a Python that has said a word may take for what runs before the first import: `.pth` files.
const BEFORE_SITE: Duration = Duration::from_secs(10);
/// How often somebody looks meanwhile at what is executed.
const GLANCE: Duration = Duration::from_millis(2);

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// the service's program
    pub program: &'a Path,
    /// its argv
    pub service: &'a [OsString],
    /// its environment
    pub env: &'a [CString],
    /// the entries to import and to run
    pub builtins: &'a [Builtin],
    /// on which devices
    pub devices: SmokeDevices,
}

/// A service that proves the GPU, or has.
#[derive(Debug)]
pub struct HandOff {
    job: JobId,
    pid: Pid,
    /// it stands still after each exec, until it comes to its imports
    traced: bool,
    /// `PYTHONPATH=` and the path of the zip
    variable: String,
    /// the zip is at its path for as long as this is open
    _zip: OwnedFd,
    orders: OwnedFd,
    /// the other end of the results, until the service has it
    results: Option<OwnedFd>,
    /// what was executed last
    program: Vec<u8>,
    since: Instant,
    started: Instant,
    greeted: Option<Instant>,
    /// it was let go on to its imports
    imports: bool,
    /// its end was asked for, for this reason
    refused: Option<String>,
}

impl HandOff {
    /// Makes what the service's Python needs, and starts it.
    ///
    /// # Errors
    /// Why there is no hand-off here, as a sentence.
    pub fn start(supervisor: &mut Supervisor, order: &Order<'_>) -> Result<Self, String> {
        let failed = |what: &'static str| move |error: &dyn std::fmt::Display| format!("{what}: {error}");
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("pipe")(&e));
        let (results_read, results) = pipe()?;
        let (orders_read, orders) = pipe()?;
        drop(orders_read);
        for end in [&results_read, &orders] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| failed("fcntl")(&e))?;
        }
        let zip = sys::memfd(c"cuda-entrypoint-handoff", false).map_err(|e| failed("memory file")(&e))?;
        let [path, orders_path, results_path] = [&zip, &orders, &results_read].map(own_path);
        let old = crate::process::launch::lookup(order.env, "PYTHONPATH");
        let arrive = format!(
            "ZIP, ORDERS, RESULTS, PYTHON_PATH = \"{path}\", \"{orders_path}\", \"{results_path}\", {}\n{}",
            old.map_or_else(|| "None".to_string(), |old| python_bytes(old.as_bytes())),
            packed::python("arrive.py")
        );
        // A text of JSON is one of Python.
        let plan = plan(order.builtins, order.devices);
        let handoff = format!("PLAN = {plan}\n{}", packed::python("handoff.py"));
        let smoke = packed::smoke_script();
        let mut file = File::from(zip);
        file.write_all(&zip::stored(&[
            ("encodings/__init__.py", arrive.as_bytes()),
            ("handoff.py", handoff.as_bytes()),
            ("smoke.py", smoke.as_bytes()),
        ]))
        .map_err(|e| failed("memory file")(&e))?;
        let needed = CString::new(path.as_str()).map_err(|e| e.to_string())?;

        let variable = format!("PYTHONPATH={path}");
        let env = with_python_path(order.env, &variable, old);
        let strings = |all: &[OsString]| -> Option<Vec<CString>> {
            all.iter().map(|a| CString::new(a.as_bytes()).ok()).collect()
        };
        let argv = strings(order.service).ok_or("an argument holds a NUL byte")?;
        let program = CString::new(order.program.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        let service = Service {
            file: &program,
            argv: &argv,
            envp: &env,
            dies_with_us: std::process::id() != 1,
            terminal: false,
            traced: true,
            // A Python that may not open it would not miss it: a security module, or a program of ours that this user may
            // execute and not read.
            needs: Some(&needed),
        };
        let (job, spawned) = supervisor
            .start_service(&service, results_read, variable.as_bytes(), UNTIL_DECIDED)
            .map_err(|error| format!("it could not be started: {error}"))?;
        let now = Instant::now();
        let mut handoff = Self {
            job,
            pid: spawned.pid,
            traced: spawned.traced,
            variable,
            _zip: file.into(),
            orders,
            results: Some(results),
            program: Vec::new(),
            since: now,
            started: now,
            greeted: None,
            imports: false,
            refused: None,
        };
        // Its first exec is over as a rule, and it need not wait until somebody attends to it.
        for _ in 0..20 {
            if !handoff.traced || handoff.after_stops(supervisor) {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(handoff)
    }

    /// The process.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Why it was refused; `None` where it was not.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Says one line to it.
    pub fn say(&self, line: &str) {
        // A process that has closed its end is about to be found out, which says more than this error.
        let _ = nix::unistd::write(&self.orders, format!("{line}\n").as_bytes());
    }

    /// Lets it become the service. The zip is gone then.
    pub fn go_on(self) {
        self.say("+");
    }

    /// Ends it, for a reason that is told when it is gone.
    pub fn refuse(&mut self, supervisor: &mut Supervisor, why: impl Into<String>) {
        if self.refused.is_none() {
            self.refused = Some(why.into());
            supervisor.cancel(self.job);
        }
    }

    /// Hears what it said and looks at what it executes. Returns what it has told so far, and when to look again.
    pub fn handle_event(&mut self, supervisor: &mut Supervisor) -> (Told, Option<Instant>) {
        let told = Told::of(supervisor.output(self.job));
        if self.refused.is_some() {
            return (told, None);
        }
        self.after_stops(supervisor);
        if let Some(why) = &told.fallback {
            self.refuse(supervisor, why.clone());
        } else if supervisor.is_mute(self.job) && !supervisor::is_exiting(self.pid) {
            self.refuse(supervisor, ANOTHER_PROGRAM);
        } else if let Some(hello) = &told.hello {
            self.greet(supervisor, hello);
        } else if let Some(why) = self.look(false) {
            self.refuse(supervisor, why);
        }
        if self.refused.is_some() {
            return (told, None);
        }
        if told.site.is_some() {
            if !std::mem::replace(&mut self.imports, true) {
                if std::mem::take(&mut self.traced) {
                    sys::trace_less(self.pid, false);
                }
                self.say("+");
            }
            return (told, None);
        }
        let now = Instant::now();
        let next = match self.greeted {
            None if self.traced => now + SILENCE / 8,
            None => now + GLANCE,
            Some(at) if at + BEFORE_SITE > now => at + BEFORE_SITE,
            Some(_) => {
                let limit = BEFORE_SITE.as_secs();
                self.refuse(
                    supervisor,
                    format!(
                        "what runs before its first import, such as a .pth file, took more than {limit} s"
                    ),
                );
                return (told, None);
            }
        };
        (told, Some(next))
    }

    /// Looks at a traced process where it stands still, and lets it go on. Whether it did.
    fn after_stops(&mut self, supervisor: &mut Supervisor) -> bool {
        let mut stopped = false;
        while self.traced && self.refused.is_none() {
            let Some(stop) = sys::traced_stop(self.pid, false) else {
                break;
            };
            stopped = true;
            let why = match stop {
                Stop::Exec if self.greeted.is_some() => Some(ANOTHER_PROGRAM.to_string()),
                Stop::Exec => self.look(true),
                Stop::Fork if self.asks_where_it_lies() => {
                    sys::release_child(self.pid);
                    None
                }
                Stop::Fork => Some("it starts another process before its Python has said a word".to_string()),
                Stop::Other { .. } => None,
            };
            match why {
                Some(why) => self.refuse(supervisor, why),
                None => sys::traced_go_on(self.pid, stop),
            }
        }
        stopped
    }

    /// Whether it is the shell of a long `#!` line, which may ask where its script lies. Any other shell that makes a process
    /// has something in mind that the service must not do before its proof.
    fn asks_where_it_lies(&self) -> bool {
        let mut words = self.program.split(|&b| b == 0).skip(2);
        let script = words.find(|word| !word.starts_with(b"-")).unwrap_or_default();
        // From its own working folder.
        let folder = PathBuf::from(format!("/proc/{}/cwd", self.pid));
        python::has_long_shebang(&folder.join(OsStr::from_bytes(script)))
    }

    /// Lets the process that said its first word go on, if it is the one.
    fn greet(&mut self, supervisor: &mut Supervisor, hello: &Hello) {
        if self.greeted.is_some() {
            return;
        }
        self.greeted = Some(Instant::now());
        if hello.pid != self.pid.as_raw() {
            self.refuse(
                supervisor,
                "its Python is not the process that was started, but a child of it",
            );
        } else if (hello.major, hello.minor) < (3, 8) {
            self.refuse(
                supervisor,
                format!("Python {}.{} is older than 3.8", hello.major, hello.minor),
            );
        } else if hello.no_site {
            self.refuse(supervisor, NO_SITE);
        } else {
            if self.traced {
                sys::trace_less(self.pid, true);
            }
            self.say("+");
            // Now that it holds the other end, its absence can be noticed.
            self.results = None;
        }
    }

    /// Why what the process executes is none that will say a word. `is_new` is known to be another program than before.
    fn look(&mut self, is_new: bool) -> Option<String> {
        let read = |name: &str| std::fs::read(format!("/proc/{}/{name}", self.pid)).unwrap_or_default();
        let exe = std::fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap_or_default();
        let cmdline = read("cmdline");
        let mut program = exe.as_os_str().as_bytes().to_vec();
        program.push(0);
        program.extend(&cmdline);
        let now = Instant::now();
        if program == self.program && !is_new {
            let silent = now.duration_since(self.since) >= SILENCE;
            return (silent || now.duration_since(self.started) >= WRAPPING).then(|| {
                let limit = SILENCE.as_secs();
                format!("{} did not say a word within {limit} s: it reads no PYTHONPATH, or runs another program first", exe.display())
            });
        }
        let environ = read("environ");
        // In the middle of an exec nothing is there, and in a process that has ended.
        if cmdline.is_empty() || read("cmdline") != cmdline {
            return None;
        }
        self.program = program;
        self.since = now;
        let privileged =
            CString::new(exe.as_os_str().as_bytes()).is_ok_and(|exe| sys::grants_privileges(&exe));
        if privileged {
            return Some(format!(
                "{} is executed with privileges of its own",
                exe.display()
            ));
        }
        why_silent(&exe, &cmdline, &environ, &self.variable)
    }
}

/// What came of it as facts: of what was said, and how the process ended where the proof's end was not told.
pub fn conclude(output: &[u8], exit: Exit, deadline: Duration) -> SmokeRun {
    let proof = Ended {
        exit: Told::of(output).ended.unwrap_or(exit),
        stdout: protocol(output),
        stderr: Vec::new(),
        elapsed: Duration::ZERO,
        deadline: Deadline::default(),
    };
    decode::conclude(&proof, deadline)
}

/// Says that the smoke gets a process of its own.
pub fn say_why_not(why: &str) {
    tracing::info!("smoke: no hand-off, in a process of its own instead: {}", why);
}

const ANOTHER_PROGRAM: &str = "it has executed another program, or closed our pipe, before its proof";
const NO_SITE: &str = "its Python skips the site module (-S)";

/// Why a program that was executed with these arguments and this environment will not say a word; `None` where it may.
pub fn why_silent(exe: &Path, cmdline: &[u8], environ: &[u8], variable: &str) -> Option<String> {
    let shown = exe.display();
    let given = environ.split(|&b| b == 0).find(|v| v.starts_with(b"PYTHONPATH="));
    let is_ours = |value: &[u8]| {
        let rest = value.strip_prefix(variable.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
    };
    if !given.is_some_and(is_ours) {
        return Some(format!(
            "{shown} was executed with another PYTHONPATH than was given"
        ));
    }
    let name = exe.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let mut words = cmdline.split(|&b| b == 0).map(|a| OsString::from_vec(a.to_vec()));
    let called = words.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(OsStr::to_str);
    if !python::may_lead_to_python(name, called.unwrap_or_default()) {
        return Some(format!(
            "{shown} is not Python and does not exec Python in its own process"
        ));
    }
    if !python::is_python_name(name) {
        return None;
    }
    let arguments: Vec<OsString> = words.collect();
    let isolation = python::isolation(&arguments);
    match (isolation.ignores_environment, isolation.no_site) {
        (true, _) => Some("its Python ignores PYTHONPATH (-E or -I)".to_string()),
        (_, true) => Some(NO_SITE.to_string()),
        _ => None,
    }
}

/// Whether the Python that answered is the one that the image stage has looked at.
///
/// # Errors
/// That it is not, as a sentence.
pub fn is_the_same(site: &Site, python: &Python) -> Result<(), String> {
    let same = |prefix: &str| {
        let real = |path: &str| std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        real(prefix) == real(&site.prefix)
    };
    match &python.prefix {
        Some(prefix) if same(prefix) => Ok(()),
        Some(prefix) => Err(format!(
            "its Python is that of {}, and the one that was looked at that of {prefix}",
            site.prefix
        )),
        None => Err(format!("its Python, that of {}, was not looked at", site.prefix)),
    }
}

fn own_path(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

/// Bytes as a literal of any Python.
fn python_bytes(bytes: &[u8]) -> String {
    let mut text = String::from("b\"");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
    text.push('"');
    text
}

fn with_python_path(env: &[CString], variable: &str, old: Option<&OsStr>) -> Vec<CString> {
    let mut value = variable.as_bytes().to_vec();
    if let Some(old) = old.filter(|old| !old.is_empty()) {
        value.push(b':');
        value.extend(old.as_bytes());
    }
    let Ok(value) = CString::new(value) else {
        return env.to_vec();
    };
    // In its place: what a program does with the order of its environment is its own affair.
    let mut env = env.to_vec();
    match env.iter_mut().find(|v| v.to_bytes().starts_with(b"PYTHONPATH=")) {
        Some(old) => *old = value,
        None => env.push(value),
    }
    env
}

/// What a process has told, apart from the smoke's own lines.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Told {
    /// its first word
    pub hello: Option<Hello>,
    /// packages can be imported
    pub site: Option<Site>,
    /// why it cannot be the one that proves
    pub fallback: Option<String>,
    /// how the proof ended
    pub ended: Option<Exit>,
}

/// The first word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// the process as it sees itself
    pub pid: i32,
    /// Python's version
    pub major: u32,
    /// the same
    pub minor: u32,
    /// it was started with `-S`
    pub no_site: bool,
}
object!(Hello {
    pid,
    major,
    minor,
    no_site
});

/// Which Python it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// `sys.prefix`
    pub prefix: String,
}
object!(Site { prefix });

struct Fallback {
    reason: String,
}
object!(Fallback { reason });

enum How {
    Exit(i32),
    Signal(i32),
}
lines!(How { "exit" Exit, "signal" Signal });

/// A line that the hand-off adds to the smoke's protocol.
enum Line {
    Hello(Hello),
    Site(Site),
    Fallback(Fallback),
    Ended(How),
}
lines!(Line { "hello" Hello, "site" Site, "fallback" Fallback, "ended" Ended });

impl Told {
    /// What is in these lines. One that is not at its end yet is none.
    pub fn of(output: &[u8]) -> Self {
        let mut told = Self::default();
        for line in output
            .split_inclusive(|&b| b == b'\n')
            .filter(|l| l.ends_with(b"\n"))
        {
            match facts::from_json(line) {
                // The first word counts: another process that says one is a child.
                Ok(Line::Hello(hello)) => {
                    told.hello.get_or_insert(hello);
                }
                Ok(Line::Site(site)) => told.site = Some(site),
                Ok(Line::Fallback(fallback)) => told.fallback = Some(fallback.reason),
                Ok(Line::Ended(How::Exit(code))) => told.ended = Some(Exit::Code(code)),
                Ok(Line::Ended(How::Signal(signal))) => told.ended = Some(Exit::Signal(signal)),
                Err(_) => {}
            }
        }
        told
    }
}

/// The smoke's own lines.
pub fn protocol(output: &[u8]) -> Vec<u8> {
    let lines = output.split_inclusive(|&b| b == b'\n');
    let own = |line: &&[u8]| facts::from_json::<Line>(line).is_err();
    lines.filter(own).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::smoke::{SmokeEnd, SmokeOutcome};

    #[test]
    fn the_path_is_put_in_front_and_the_old_one_is_kept_as_bytes() {
        let env = |all: &[&str]| -> Vec<CString> { all.iter().map(|v| CString::new(*v).unwrap()).collect() };
        let given = env(&["A=1", "PYTHONPATH=/x:/y", "B="]);
        let old = crate::process::launch::lookup(&given, "PYTHONPATH");
        assert_eq!(
            with_python_path(&given, "PYTHONPATH=/z", old),
            env(&["A=1", "PYTHONPATH=/z:/x:/y", "B="])
        );
        assert_eq!(
            with_python_path(&given[..1], "PYTHONPATH=/z", None),
            env(&["A=1", "PYTHONPATH=/z"])
        );
        assert_eq!(python_bytes(b"a\"\xff"), r#"b"\x61\x22\xff""#);
    }

    #[test]
    fn who_will_not_say_a_word_is_known_by_what_it_executes() {
        for (exe, cmdline, environ, part) in [
            (
                "/usr/bin/python3.11",
                "python\0app.py\0",
                "A=1\0PYTHONPATH=/zip:/x\0",
                None,
            ),
            (
                "/usr/bin/python3",
                "python\0-m\0app\0-I\0",
                "PYTHONPATH=/zip\0",
                None,
            ),
            ("/bin/sh", "sh\0-I\0", "PYTHONPATH=/zip\0", None),
            ("/bin/nice", "nice\0python\0-I\0", "PYTHONPATH=/zip\0", None),
            (
                "/usr/sbin/nginx",
                "nginx\0",
                "PYTHONPATH=/zip\0",
                Some("is not Python"),
            ),
            (
                "/usr/bin/env",
                "env\0python\0",
                "A=1\0",
                Some("another PYTHONPATH"),
            ),
            (
                "/usr/bin/python3",
                "python\0",
                "PYTHONPATH=/app\0PYTHONPATH=/zip\0",
                Some("another PYTHONPATH"),
            ),
            (
                "/usr/bin/python3",
                "python\0",
                "PYTHONPATH=/zipped\0",
                Some("another PYTHONPATH"),
            ),
            (
                "/usr/bin/python3",
                "python\0-uI\0a\0",
                "PYTHONPATH=/zip\0",
                Some("-E or -I"),
            ),
            (
                "/usr/bin/python3",
                "python\0-S\0a\0",
                "PYTHONPATH=/zip\0",
                Some("-S"),
            ),
        ] {
            let found = why_silent(
                Path::new(exe),
                cmdline.as_bytes(),
                environ.as_bytes(),
                "PYTHONPATH=/zip",
            );
            match part {
                None => assert_eq!(found, None, "{cmdline:?}"),
                Some(part) => assert!(
                    found.as_ref().is_some_and(|f| f.contains(part)),
                    "{cmdline:?} {found:?}"
                ),
            }
        }
    }

    #[test]
    fn lines_of_the_hand_off_are_told_from_the_smokes() {
        let output = "{\"hello\":{\"pid\":7,\"major\":3,\"minor\":8,\"no_site\":false}}\n{\"site\":{\"prefix\":\"/p\"}}\n\
                      {\"begin\":{\"entry\":\"spconv\",\"step\":\"forward\",\"device\":0}}\n";
        let told = Told::of(output.as_bytes());
        assert_eq!(
            told.hello.as_ref().map(|h| (h.pid, h.major, h.minor)),
            Some((7, 3, 8))
        );
        assert_eq!((told.site.unwrap().prefix.as_str(), told.ended), ("/p", None));
        let run = |tail: &str| {
            let output = format!("{output}{tail}");
            conclude(output.as_bytes(), Exit::Cancelled, Duration::from_secs(5))
        };
        assert_eq!(
            run("{\"ended\":{\"signal\":8}}\n").end,
            SmokeEnd::Crashed { signal: 8 }
        );
        assert!(matches!(run("").end, SmokeEnd::NotRun { .. }));
        let good = run("{\"passed\":{\"ms\":1}}\n\"done\"\n{\"ended\":{\"exit\":0}}\n");
        assert_eq!(good.end, SmokeEnd::Done);
        assert!(matches!(good.steps[0].outcome, SmokeOutcome::Passed(_)));
        let refused =
            Told::of(b"{\"fallback\":{\"reason\":\"CUDA was touched\"}}\n{\"fallback\":{\"reason\":\"cut");
        assert_eq!(refused.fallback.as_deref(), Some("CUDA was touched"));
        let two = format!("{output}{}", output.replace(":7", ":8"));
        assert_eq!(Told::of(two.as_bytes()).hello.unwrap().pid, 7);
    }

    #[test]
    fn the_python_that_answers_must_be_the_one_that_was_looked_at() {
        let site = |prefix: &str| Site {
            prefix: prefix.into(),
        };
        let python = |prefix: Option<&str>| Python {
            prefix: prefix.map(str::to_string),
            ..Python::default()
        };
        assert_eq!(is_the_same(&site("/usr/lib/.."), &python(Some("/usr"))), Ok(()));
        let other = is_the_same(&site("/opt/a"), &python(Some("/opt/b"))).unwrap_err();
        assert!(other.contains("/opt/a") && other.contains("/opt/b"), "{other}");
        assert!(
            is_the_same(&site("/usr"), &python(None))
                .unwrap_err()
                .contains("was not looked at")
        );
    }
}
