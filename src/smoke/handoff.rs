//! The hand-off: the service's own Python imports the stack once, and a forked child of it proves the GPU.
//!
//! The service's argv is executed unchanged with a memory file in front of `PYTHONPATH`: a zip with a `sitecustomize`
//! ([`crate::packed`]'s handoff.py) that does the work before the service's first line. What it saw it leaves in another
//! memory file and runs this program again, as its child, with the same arguments and with [`RESUME`] set: so verdict,
//! report, receipt and exit code come from one place, whichever way the smoke runs.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde::Serialize;

use super::{decode, first_alone, plan, zip};
use crate::crew::{Ended, Exit};
use crate::facts::read::{lines, object};
use crate::facts::smoke::SmokeRun;
use crate::facts::{self, Facts};
use crate::packed;
use crate::receipt::Account;
use crate::signal::Set;
use crate::stack::Builtin;
use crate::sys;

/// The variable by which the second run of this program knows that it is one: `STATE,RESULTS`, two descriptors.
pub const RESUME: &str = "CUDA_ENTRYPOINT_HANDOFF";

/// What the first run leaves for the second.
#[derive(Debug, Serialize)]
pub struct State {
    /// what was found out so far
    pub facts: Facts,
    /// what became of the receipt so far
    pub receipt: Option<Account>,
    /// what took how long by then, in milliseconds, by the report's names
    pub timing_ms: BTreeMap<String, f64>,
    /// when the first run began, in milliseconds since 1970
    pub began_ms: u64,
}

impl State {
    /// What took how long, in the form in which the rest of it is kept.
    pub fn timing(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        // A handful of names, once in this process's life.
        let known = |(name, ms): (&String, &f64)| {
            let time = Duration::try_from_secs_f64(ms / 1000.0).ok()?;
            Some((&*name.clone().leak(), time))
        };
        self.timing_ms.iter().filter_map(known)
    }
}

/// [`State::timing_ms`] of what took how long.
pub fn timing_ms(timing: &[(&'static str, Duration)]) -> BTreeMap<String, f64> {
    let ms = |(name, time): &(&str, Duration)| (name.to_string(), time.as_secs_f64() * 1000.0);
    timing.iter().map(ms).collect()
}

/// What is asked of the service's Python.
#[derive(Debug)]
pub struct Order<'a> {
    /// the entries to import and to run
    pub builtins: &'a [Builtin],
    /// on which devices
    pub devices: crate::config::SmokeDevices,
    /// until when
    pub timeout: Duration,
    /// the environment of the service
    pub env: &'a [CString],
    /// our own argv
    pub argv: &'a [CString],
    /// our own environment
    pub environ: &'a [CString],
    /// the service takes our place; under `--init` it is a child
    pub becomes_us: bool,
}

/// An environment with which the service's argv is to be executed, and the files that must stay open until then.
#[derive(Debug)]
pub struct Prepared {
    /// the service's environment with the hand-off in front of `PYTHONPATH`
    pub env: Vec<CString>,
    /// signals that are to be blocked when the service's Python starts; the hand-off lets them in
    pub held: Set,
    _files: [OwnedFd; 4],
}

/// What handoff.py handles. A Python takes a while until it does, and what comes to PID 1 by then the kernel takes from
/// it: `docker stop` would wait its ten seconds in vain.
const HANDLED: Set = Set::NONE
    .with(Signal::SIGTERM)
    .with(Signal::SIGINT)
    .with(Signal::SIGHUP)
    .with(Signal::SIGQUIT)
    .with(Signal::SIGUSR1)
    .with(Signal::SIGUSR2)
    .with(Signal::SIGALRM)
    .with(Signal::SIGVTALRM)
    .with(Signal::SIGPROF)
    .with(Signal::SIGXCPU)
    .with(Signal::SIGIO)
    .with(Signal::SIGPWR);

/// What is held: nothing where a signal ends the Python that starts, as it does anywhere but in the first process.
fn held(order: &Order<'_>) -> Set {
    match std::process::id() {
        1 if order.becomes_us => HANDLED,
        _ => Set::NONE,
    }
}

/// Makes everything that the service's Python needs.
///
/// # Errors
/// Why there is no hand-off here: no memory files, no /proc.
pub fn prepare(order: &Order<'_>, state: &State) -> Result<Prepared, String> {
    if let Some(version) = state
        .facts
        .image
        .python
        .version
        .as_deref()
        .filter(|v| is_too_old(v))
    {
        return Err(format!("Python {version} is older than 3.8"));
    }
    let alone = first_alone(order.devices, &state.facts.device);
    let text = |error: serde_json::Error| format!("the state cannot be written: {error}");
    let state = memory_file(
        c"cuda-entrypoint-state",
        facts::to_json(state).map_err(text)?.as_bytes(),
    )?;
    let results = memory_file(c"cuda-entrypoint-results", b"")?;
    // Parent and child write to it.
    fcntl(&results, FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(|e| format!("fcntl: {e}"))?;
    let binary = File::open("/proc/self/exe").map_err(|e| format!("/proc/self/exe: {e}"))?;
    let binary = out_of_the_way(&binary)?;
    // The zip names itself, so that its descriptor must be known before it is written.
    let zip = memory_file(c"cuda-entrypoint-handoff", b"")?;
    let order_text = order_text(order, alone, [&zip, &binary, &state, &results]);
    let sitecustomize = format!(
        "PLAN = __import__(\"json\").loads({})\n{}",
        python_string(order_text.as_bytes()),
        packed::handoff_script()
    );
    let members = [
        ("sitecustomize.py", sitecustomize.as_bytes()),
        ("_cuda_entrypoint_smoke.py", packed::smoke_script().as_bytes()),
    ]
    .map(|(name, content)| (name, content.to_vec()));
    let members: Vec<(&str, &[u8])> = members.iter().map(|(n, c)| (*n, c.as_slice())).collect();
    let mut file = File::from(zip);
    file.write_all(&zip::stored(&members))
        .map_err(|e| format!("memory file: {e}"))?;
    let zip = OwnedFd::from(file);
    for fd in [&zip, &binary, &state, &results] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| format!("fcntl: {e}"))?;
    }
    // Python that could not read it would start the service without a word.
    let path = format!("/proc/self/fd/{}", zip.as_raw_fd());
    File::open(&path).map_err(|e| format!("{path}: {e}"))?;
    let env = with_python_path(order.env, zip.as_raw_fd());
    Ok(Prepared {
        env,
        held: held(order),
        _files: [zip, binary, state, results],
    })
}

/// Whether a version such as `3.7` or `3.7.17` is below 3.8, for which handoff.py is written.
fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    matches!((parts.next().flatten(), parts.next().flatten()), (Some(major), Some(minor)) if (major, minor) < (3, 8))
}

fn memory_file(name: &CStr, bytes: &[u8]) -> Result<OwnedFd, String> {
    let fail = |error: &dyn std::fmt::Display| format!("memory file: {error}");
    let fd = sys::memfd(name, false).map_err(|e| fail(&e))?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(|e| fail(&e))?;
    file.rewind().map_err(|e| fail(&e))?;
    out_of_the_way(&file)
}

/// The same file under a high number: what packages open and keep during their imports has the numbers that it has
/// without a hand-off.
fn out_of_the_way(file: &File) -> Result<OwnedFd, String> {
    const FIRST: i32 = 200;
    let moved = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(FIRST));
    // A limit on descriptors may forbid it.
    let moved = moved.or_else(|_| fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(3)));
    moved
        .and_then(sys::own_descriptor)
        .map_err(|e| format!("fcntl: {e}"))
}

/// The order as JSON in ASCII.
fn order_text(order: &Order<'_>, alone: bool, [zip, binary, state, results]: [&OwnedFd; 4]) -> String {
    let mut all = plan(order.builtins, order.devices).to_string();
    all.pop(); // the closing brace
    let (state, results) = (state.as_raw_fd(), results.as_raw_fd());
    let old = crate::launch::lookup(order.env, "PYTHONPATH");
    let old = old.map_or_else(|| "null".to_string(), |v| python_string(v.as_encoded_bytes()));
    let argv: Vec<String> = order.argv.iter().map(|a| python_string(a.to_bytes())).collect();
    let resume = format!("{RESUME}={state},{results}");
    let environ: Vec<String> = order
        .environ
        .iter()
        .map(|v| v.to_bytes())
        .chain([resume.as_bytes()])
        .map(python_string)
        .collect();
    // Writing to a string cannot fail.
    let _ = write!(
        all,
        ",\"alone\":{alone},\"zip_fd\":{},\"python_path\":{old},\"binary_fd\":{},\"results_fd\":{results},\"keep_fds\":[{state},{results}],\
         \"verdict_argv\":[{}],\"verdict_env\":[{}],\"timeout_s\":{},\"held\":{:?},\"{}\":{}}}",
        zip.as_raw_fd(),
        binary.as_raw_fd(),
        argv.join(","),
        environ.join(","),
        order.timeout.as_secs_f64(),
        held(order).iter().map(|signal| signal.0).collect::<Vec<_>>(),
        // By this, Pythons that the service starts know that they are not the one.
        if order.becomes_us { "pid" } else { "parent" },
        std::process::id(),
    );
    all
}

/// Bytes as a string literal of JSON and of Python alike, in ASCII; what is not UTF-8 becomes the lone surrogates that
/// Python's `os.fsencode` turns back into bytes (PEP 383).
fn python_string(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for unit in chunk.valid().encode_utf16() {
            match u8::try_from(unit) {
                Ok(plain @ (b' ' | b'!' | b'#'..=b'[' | b']'..=b'~')) => text.push(char::from(plain)),
                _ => {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\udc{byte:02x}");
        }
    }
    text.push('"');
    text
}

fn with_python_path(env: &[CString], zip: i32) -> Vec<CString> {
    const NAME: &[u8] = b"PYTHONPATH=";
    let mut value = format!("PYTHONPATH=/proc/self/fd/{zip}").into_bytes();
    if let Some(old) = crate::launch::lookup(env, "PYTHONPATH").filter(|old| !old.is_empty()) {
        value.push(b':');
        value.extend(old.as_encoded_bytes());
    }
    let Ok(value) = CString::new(value) else {
        return env.to_vec();
    };
    // In its place: what a program does with the order of its environment is its own affair.
    let mut env = env.to_vec();
    match env.iter_mut().find(|v| v.to_bytes().starts_with(NAME)) {
        Some(old) => *old = value,
        None => env.push(value),
    }
    env
}

/// How the hand-off came out.
#[derive(Debug)]
pub enum Came {
    /// the GPU was proven, or not
    Proven(Box<SmokeRun>),
    /// it could not be tried in that process
    Refused(String),
}

/// What the second run finds.
#[derive(Debug)]
pub struct Resumed {
    /// from the first run
    pub state: State,
    /// from the service's Python
    pub came: Came,
}

object!(State {
    facts,
    receipt,
    timing_ms,
    began_ms
});

/// A line that handoff.py adds to the protocol.
enum Tail {
    Ended(How),
    Fallback(Fallback),
}
lines!(Tail { "ended" Ended, "fallback" Fallback });

struct Fallback {
    reason: String,
}
object!(Fallback { reason });

enum How {
    Exit(i32),
    Signal(i32),
    Timeout(bool),
}
lines!(How { "exit" Exit, "signal" Signal, "timeout" Timeout });

impl Resumed {
    /// Whether this run is a second one, by its environment.
    pub fn is_named(environ: &[CString]) -> bool {
        crate::launch::lookup(environ, RESUME).is_some_and(|v| !v.is_empty())
    }

    /// Reads what was left for this run.
    ///
    /// # Errors
    /// A sentence: the variable was set by somebody else, or what it names is not ours.
    pub fn take(environ: &[CString], deadline: Duration) -> Result<Self, String> {
        let value = crate::launch::lookup(environ, RESUME).unwrap_or(OsStr::new(""));
        let Some((state, results)) = value.to_str().and_then(descriptors) else {
            return Err(format!("{RESUME} is no pair of descriptors"));
        };
        let state = read(state)?;
        let state: State =
            facts::from_json(&state).map_err(|e| format!("{RESUME}: the state makes no sense: {e}"))?;
        let results = read(results)?;
        Ok(Self {
            state,
            came: came(&results, deadline),
        })
    }
}

/// The two descriptors that [`RESUME`] names.
pub fn descriptors(value: &str) -> Option<(i32, i32)> {
    let (state, results) = value.split_once(',')?;
    let number = |text: &str| text.parse::<i32>().ok().filter(|fd| *fd > 2);
    let pair = (number(state)?, number(results)?);
    (pair.0 != pair.1).then_some(pair)
}

/// Far more than a smoke writes.
const RESULTS_LIMIT: u64 = 16 << 20;

fn read(fd: i32) -> Result<Vec<u8>, String> {
    let fail = |error: std::io::Error| format!("{RESUME}: descriptor {fd}: {error}");
    let mut file = File::from(sys::inherited_descriptor(fd).map_err(|e| fail(e.into()))?);
    file.rewind().map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(RESULTS_LIMIT).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// What the lines come to.
pub fn came(results: &[u8], deadline: Duration) -> Came {
    let mut protocol = Vec::new();
    let mut exit = None;
    for line in results.split_inclusive(|&b| b == b'\n') {
        match facts::from_json(line) {
            Ok(Tail::Fallback(fallback)) if exit.is_none() => return Came::Refused(fallback.reason),
            Ok(Tail::Ended(how)) => {
                // What comes behind it was written by a process that was being ended.
                exit = exit.or(Some(match how {
                    How::Exit(code) => Exit::Code(code),
                    How::Signal(signal) => Exit::Signal(signal),
                    How::Timeout(true) => Exit::TimedOut { reaped: true },
                    How::Timeout(false) => Exit::Code(-1),
                }));
            }
            Ok(Tail::Fallback(_)) => {}
            Err(_) if exit.is_none() => protocol.extend_from_slice(line),
            Err(_) => {}
        }
    }
    let ended = Ended {
        // Without a word about the end there was none that anybody saw.
        exit: exit.unwrap_or(Exit::Code(-1)),
        stdout: protocol,
        stderr: Vec::new(),
        elapsed: Duration::ZERO,
    };
    Came::Proven(Box::new(decode::conclude(&ended, deadline)))
}

/// Milliseconds since 1970.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Our own argv, for the second run.
pub fn own_argv() -> Vec<CString> {
    std::env::args_os()
        .filter_map(|a: OsString| CString::new(a.into_encoded_bytes()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::smoke::{SmokeEnd, SmokeOutcome};

    #[test]
    fn strings_are_read_back_by_python() {
        assert_eq!(python_string(b"a b"), r#""a b""#);
        assert_eq!(
            python_string("\"\\\n\u{1f600}".as_bytes()),
            r#""\u0022\u005c\u000a\ud83d\ude00""#
        );
        assert_eq!(python_string(b"x\xff"), r#""x\udcff""#);
    }

    #[test]
    fn pythons_before_3_8_are_told() {
        for (version, old) in [
            ("3.7", true),
            ("2.7.18", true),
            ("3.8", false),
            ("3.12.1", false),
            ("x", false),
        ] {
            assert_eq!(is_too_old(version), old, "{version}");
        }
    }

    #[test]
    fn the_path_is_put_in_front() {
        let env: Vec<CString> = ["A=1", "PYTHONPATH=/x:/y", "B="]
            .map(|v| CString::new(v).unwrap())
            .into();
        let text = |env: Vec<CString>| {
            env.into_iter()
                .map(|v| v.into_string().unwrap())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            text(with_python_path(&env, 7)),
            "A=1 PYTHONPATH=/proc/self/fd/7:/x:/y B="
        );
        assert_eq!(
            text(with_python_path(&env[..1], 7)),
            "A=1 PYTHONPATH=/proc/self/fd/7"
        );
    }

    #[test]
    fn results_are_what_separate_lines_would_be() {
        let begun = "{\"begin\":{\"entry\":\"spconv\",\"step\":\"forward\",\"device\":0}}\n";
        let run = |tail: &str| match came(format!("{begun}{tail}").as_bytes(), Duration::from_secs(5)) {
            Came::Proven(run) => *run,
            Came::Refused(why) => panic!("{why}"),
        };
        assert_eq!(
            run("{\"ended\":{\"signal\":8}}\n").end,
            SmokeEnd::Crashed { signal: 8 }
        );
        assert_eq!(
            run("{\"ended\":{\"timeout\":true}}\n").end,
            SmokeEnd::TimedOut {
                after_ms: 5000,
                killed: true
            }
        );
        assert_eq!(run("").end, SmokeEnd::Exited { code: -1 });
        let good = run("{\"passed\":{\"ms\":1}}\n\"done\"\n{\"ended\":{\"exit\":0}}\n");
        assert_eq!(good.end, SmokeEnd::Done);
        assert!(matches!(good.steps[0].outcome, SmokeOutcome::Passed(_)));
        let late = run(
            "{\"ended\":{\"timeout\":true}}\n{\"passed\":{\"ms\":1}}\n\"done\"\n{\"ended\":{\"exit\":0}}\n",
        );
        assert!(matches!(late.end, SmokeEnd::TimedOut { .. }), "{late:?}");
        let refused = format!("{begun}{{\"fallback\":{{\"reason\":\"CUDA was touched\"}}}}\n");
        assert!(
            matches!(came(refused.as_bytes(), Duration::ZERO), Came::Refused(why) if why == "CUDA was touched")
        );
    }
}
