//! Signals in real containers, at random moments of a whole life: image, device, smoke, hand-off, exec and service; as
//! PID 1 and not, with a terminal and without. And `docker stop` in each of them.
//!
//! `SIGNAL_RUNS=1000 SIGNAL_SEED=7 cargo test --test signals_docker -- --ignored --nocapture` for more of it; what that
//! printed last is in tests/signals/results.md.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::support::docker::{Content, Image, Run, Running};
use crate::support::folders;
use crate::support::probe::counter;
use crate::support::run::{children, eventually, kill};
use crate::support::smoke_image;
use nix::sys::signal::Signal;

/// The image stage asks a libcudart, which takes its time.
const STACK: &str = r#"{
  "schema": 1, "name": "life", "cuda": {"runtime": "12.4", "driver": ">=12.4"}, "smoke": ["torch", "spconv"],
  "env": {"SPCONV_DISABLE_JIT": "1", "CUMM_DISABLE_JIT": "1"}
}"#;

/// Of the image, which the loader finds without being told.
const SLOW_CUDART: &str = r#"
#include <stdlib.h>
#include <unistd.h>
int cudaRuntimeGetVersion(int *version) {
  const char *wait = getenv("FAKE_CUDART_MS");
  if (wait) usleep(1000 * atoi(wait));
  *version = 12040;
  return 0;
}
"#;

/// tests/support/c/counter.c as a Python program, to which a smoke can be handed off.
const PYTHON_COUNTER: &str = r#"
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.write(1, b"ready\n")
all = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
over = False
while True:
    told = signal.sigtimedwait(all, 0.1) if over else signal.sigwaitinfo(all)
    if told is None:
        os._exit(7)
    os.write(1, b"got %d\n" % told.si_signo)
    over = over or told.si_signo == signal.SIGTERM
"#;

fn image() -> &'static Image {
    static MADE: OnceLock<&Image> = OnceLock::new();
    MADE.get_or_init(|| {
        let files = [
            (
                "/usr/lib/x86_64-linux-gnu/libcudart.so.12",
                Content::File(slow_cudart()),
            ),
            ("/opt/counter", Content::File(counter().to_path_buf())),
            ("/opt/counter.py", Content::text(PYTHON_COUNTER)),
        ];
        let image = smoke_image::build(STACK, &files, r#"["/opt/counter"]"#);
        // The janitor removes it.
        Box::leak(Box::new(image))
    })
}

fn slow_cudart() -> PathBuf {
    let folder = folders::target().join("probes");
    fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("cudart.c"), folder.join("libcudart.so.12"));
    fs::write(&source, SLOW_CUDART).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-Wl,-soname,libcudart.so.12", "-o"]);
    assert!(command.arg(&library).arg(&source).status().unwrap().success());
    library
}

/// What takes long in a life, so that a signal mostly comes while it lasts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Focus {
    Image,
    Device,
    Smoke,
    HandOff,
    Exec,
    Service,
}

const FOCUSES: [Focus; 6] = [
    Focus::Image,
    Focus::Device,
    Focus::Smoke,
    Focus::HandOff,
    Focus::Exec,
    Focus::Service,
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    FirstProcess,
    /// `--pid=host`: `docker kill` reaches it, and the kernel guards nothing
    OtherProcess,
    /// `--init`: behind an init that passes signals on
    BehindDockersInit,
}

const PLACES: [Place; 4] = [
    Place::FirstProcess,
    Place::FirstProcess,
    Place::OtherProcess,
    Place::BehindDockersInit,
];

/// Docker's init is tini, which keeps these for itself; tests/init/results.md.
const NOT_THROUGH_TINI: [i32; 11] = [4, 5, 6, 7, 8, 11, 21, 22, 31, 32, 33];
/// SIGCONT, SIGURG, SIGWINCH
const DOES_NOTHING: [i32; 3] = [18, 23, 28];

/// A whole life in the course of which a signal comes.
#[derive(Clone, Copy, Debug)]
struct Life {
    number: u64,
    focus: Focus,
    place: Place,
    terminal: bool,
    init: bool,
    signal: i32,
    /// from when the entrypoint takes signals to the signal, in milliseconds
    moment: u64,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { focus, place, .. } = self;
        let terminal = if self.terminal { ", -t" } else { "" };
        let init = if self.init { ", --init" } else { "" };
        let (signal, moment, number) = (self.signal, self.moment, self.number);
        write!(
            f,
            "life {number}: signal {signal} after {moment} ms, {focus:?}, {place:?}{terminal}{init}"
        )
    }
}

/// Numbers that are different each time, and the same for the same seed.
struct Random(u64);

impl Random {
    /// From 0 up to `end`, without it.
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are the better ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

impl Life {
    fn random(seed: u64, number: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
        random.below(2);
        // Each has its share.
        let focus = FOCUSES[usize::try_from(number % FOCUSES.len() as u64).unwrap()];
        let place = random.of(&PLACES);
        let ending = cuda_entrypoint::process::supervisor::ENDING.iter().map(|n| n.0);
        let mut signals: Vec<i32> = match focus {
            // All that can be caught; SIGCHLD tells of children, and Docker does not know the C library's own two.
            Focus::Service => (1..=64).filter(|n| ![9, 17, 19, 32, 33].contains(n)).collect(),
            _ => ending.chain(DOES_NOTHING).collect(),
        };
        if place == Place::BehindDockersInit {
            signals.retain(|n| !NOT_THROUGH_TINI.contains(n));
        }
        Self {
            number,
            focus,
            place,
            terminal: random.below(2) == 0,
            init: focus != Focus::HandOff && random.below(3) == 0,
            signal: random.of(&signals),
            moment: match focus {
                Focus::Service => 0,
                Focus::Exec => random.below(500),
                _ => random.below(900),
            },
        }
    }

    /// In the environment of all of its processes.
    fn mark(&self) -> String {
        format!("{}-{}", std::process::id(), self.number)
    }

    fn start(&self) -> Running {
        let slow = |focus, milliseconds: u32| if self.focus == focus { milliseconds } else { 0 };
        let driver = format!(
            r#"{{"calls": {{"cuInit": {{"delay_ms": {}}}}}}}"#,
            slow(Focus::Device, 900) + slow(Focus::Exec, 200)
        );
        let place = match self.number / 6 % 2 {
            0 => "import spconv",
            _ => "forward float32",
        };
        let packages = match self.focus {
            Focus::Smoke | Focus::HandOff => format!(r#"{{"{place}": {{"pause": 0.9}}}}"#),
            _ => "{}".to_string(),
        };
        let smoke = match self.focus {
            Focus::HandOff => "handoff",
            Focus::Exec => "off",
            _ => "separate",
        };
        let mut run = Run::of(image())
            .driver(&driver)
            .env("FAKE_TORCH_SCRIPT", &packages)
            .env("FAKE_CUDART_MS", &slow(Focus::Image, 900).to_string())
            .env("CUDA_ENTRYPOINT_SMOKE", smoke)
            .env("TEST_LIFE", &self.mark());
        if self.focus == Focus::HandOff {
            run = run.words(["python3", "/opt/counter.py"]);
        }
        if self.init {
            run = run.env("CUDA_ENTRYPOINT_INIT", "1");
        }
        if self.terminal {
            run = run.options(["--tty"]);
        }
        let place = match self.place {
            Place::FirstProcess => &[][..],
            Place::OtherProcess => &["--pid=host"],
            Place::BehindDockersInit => &["--init"],
        };
        run.options(place.iter().copied()).start()
    }

    /// The entrypoint, or what it has become: the container's process, or the child of its init.
    fn process(&self, running: &Running) -> u32 {
        let first = running.pid();
        match self.place {
            Place::BehindDockersInit => children(first).first().copied().unwrap_or(0),
            _ => first,
        }
    }

    fn live(&self) -> Lived {
        let running = self.start();
        assert!(
            eventually(|| Seen::of(self.process(&running)).takes_signals()),
            "{self}: {:?}",
            running.said()
        );
        let process = self.process(&running);
        if self.focus == Focus::Service {
            assert!(
                eventually(|| running.said().all().contains("ready")),
                "{self}: {:?}",
                running.said()
            );
        }
        thread::sleep(Duration::from_millis(self.moment));
        let before = Seen::of(process);
        let sent = running.send(self.signal);
        let after = Seen::of(process);
        assert!(sent, "{self}: {before:?} {:?}", running.said());
        let since = Instant::now();
        let got = format!("got {}", self.signal);
        let mut ready_at = None;
        // Until it is over, or the service has heard of it, or it should have.
        while running.pid() != 0 {
            let said = running.said().all();
            if said.contains("ready") {
                ready_at = ready_at.or(Some(Instant::now()));
            }
            let heard = said.lines().any(|line| line.trim() == got);
            if heard || ready_at.is_some_and(|at| at.elapsed() > Duration::from_secs(2)) {
                break;
            }
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "{self}: it hangs: {said}"
            );
            thread::sleep(Duration::from_millis(50));
        }
        if self.signal != 15 {
            running.send(15);
        }
        assert!(
            eventually(|| running.pid() == 0),
            "{self}: it stays: {:?}",
            running.said()
        );
        let ended = running.said();
        let said = ended.all();
        let tell = || format!("{self}: {before:?} {after:?} exit {}: {said}", ended.code);
        let left = || left_of(&self.mark());
        assert!(eventually(|| left().is_empty()), "{}: left: {:?}", tell(), left());
        let times = said.lines().filter(|line| line.trim() == got).count();
        let started = said.contains("ready");
        let by_signal = ended.code == 128 + self.signal;
        // `docker kill` takes tens of milliseconds, in which the entrypoint may have become the service: tests/signals.rs
        // looks at that moment more closely. Whoever handled or blocked it all the while cannot have missed it.
        let must_act =
            before.program == after.program && before.holds(self.signal) && after.holds(self.signal);
        let unguarded = self.place == Place::FirstProcess && !self.init && after.program != "cuda-entrypoint";
        let fate = match (times, started) {
            (1, true) => {
                assert_eq!(ended.code, 7, "{}", tell());
                Fate::ReachedTheService
            }
            (0, false) if by_signal && said.contains("during the checks") => Fate::EndedTheChecks,
            (0, false) if by_signal => Fate::EndedIt,
            (0, true) if DOES_NOTHING.contains(&self.signal) => Fate::HadNoMeaning,
            (0, true) if unguarded && !must_act => Fate::CameTooEarlyForPid1,
            _ => panic!("lost or doubled: {}", tell()),
        };
        Lived {
            phase: before.phase,
            fate,
        }
    }
}

/// What became of the signal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    /// it ended the checks
    EndedTheChecks,
    /// it ended whatever was there without a word: the service before that had said that it wants to
    /// hear of it
    EndedIt,
    /// the service got it, once
    ReachedTheService,
    /// it came before the service was there, and its default is to do nothing
    HadNoMeaning,
    /// PID 1 was becoming the service or had become it, and the service had not said yet that it wants to hear of it: the
    /// kernel keeps such signals from PID 1, for which there is `--init`
    CameTooEarlyForPid1,
}

struct Lived {
    phase: &'static str,
    fate: Fate,
}

/// A process as /proc shows it.
#[derive(Debug)]
struct Seen {
    program: String,
    phase: &'static str,
    /// blocked or handled signals, bit 0 for signal 1
    held: u64,
}

impl Seen {
    fn of(process: u32) -> Self {
        let exe = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
        let program = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let mask = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap())
        };
        let command = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        };
        let below: Vec<String> = children(process).iter().map(command).collect();
        let has = |part: &str| below.iter().any(|line| line.contains(part));
        let phase = match program.as_str() {
            "cuda-entrypoint" if below.iter().any(|line| line.starts_with("/opt/counter")) => "service",
            "cuda-entrypoint" if has("/opt/counter.py") => "hand-off",
            "cuda-entrypoint" if has("cuda-helper driver") => "device",
            "cuda-entrypoint" if has("cuda-helper libraries") => "image",
            "cuda-entrypoint" if has("python") => "smoke",
            "cuda-entrypoint" => "between",
            "counter" => "service",
            _ => "gone",
        };
        Self {
            program,
            phase,
            held: mask("SigBlk:") | mask("SigCgt:"),
        }
    }

    /// Its main has begun. While the counter waits for signals the kernel does not show that it blocks them.
    fn takes_signals(&self) -> bool {
        self.holds(15) || self.program == "counter"
    }

    fn holds(&self, signal: i32) -> bool {
        self.held & 1 << (signal - 1) != 0
    }
}

/// Processes with this mark that are still there, wherever.
fn left_of(mark: &str) -> Vec<String> {
    let variable = format!("TEST_LIFE={mark}");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let has_mark = |path: &PathBuf| {
        let environ = fs::read(path.join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|v| v == variable.as_bytes())
    };
    let name = |path: PathBuf| fs::read_to_string(path.join("comm")).unwrap_or_default();
    processes
        .map(|entry| entry.path())
        .filter(|path| path.join("environ").exists())
        .filter(has_mark)
        .map(name)
        .collect()
}

fn number_of(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_signal_at_a_random_moment_is_neither_lost_nor_doubled() {
    let (runs, seed) = (number_of("SIGNAL_RUNS", 36), number_of("SIGNAL_SEED", 1));
    image();
    let next = AtomicU64::new(0);
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs {
                        return;
                    }
                    let life = Life::random(seed, number);
                    let lived = life.live();
                    all.lock().unwrap().push((life, lived));
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    tell!("{runs} containers of seed {seed}:\n");
    table("place", &all, |life, _| {
        format!("{:?}{}", life.place, if life.init { ", --init" } else { "" })
    });
    table("phase", &all, |_, lived| lived.phase.to_string());
    table("terminal", &all, |life, _| {
        if life.terminal { "-t" } else { "none" }.to_string()
    });
    assert_eq!(all.len() as u64, runs);
}

/// What became of the signals, by something.
fn table(by: &str, all: &[(Life, Lived)], key: impl Fn(&Life, &Lived) -> String) {
    let mut rows: BTreeMap<String, BTreeMap<Fate, usize>> = BTreeMap::new();
    for (life, lived) in all {
        let row = rows.entry(key(life, lived)).or_default();
        *row.entry(lived.fate).or_insert(0) += 1;
    }
    let fates = [
        Fate::EndedTheChecks,
        Fate::EndedIt,
        Fate::ReachedTheService,
        Fate::HadNoMeaning,
        Fate::CameTooEarlyForPid1,
    ];
    tell!(
        "| {by} | ended the checks | ended it without a word | reached the service, once | has no meaning by default | PID 1 was a service without handlers yet |"
    );
    tell!("| --- | --- | --- | --- | --- | --- |");
    for (name, counts) in rows {
        let counts: Vec<String> = fates
            .iter()
            .map(|fate| counts.get(fate).unwrap_or(&0).to_string())
            .collect();
        tell!("| {name} | {} |", counts.join(" | "));
    }
    tell!("");
}

/// What `docker stop` meets, and how long it takes: printed, since no test asserts a time. One that took its 10 seconds
/// would end in SIGKILL, which is 137.
#[test]
fn docker_stop_never_comes_to_its_kill() {
    tell!("| `docker stop` during | as | exit code | seconds |\n| --- | --- | --- | --- |");
    for place in [Place::FirstProcess, Place::OtherProcess, Place::BehindDockersInit] {
        for focus in [Focus::Image, Focus::Device, Focus::Smoke, Focus::HandOff] {
            stop(focus, place, false, false);
        }
        stop(Focus::Service, place, false, false);
        stop(Focus::Service, place, true, false);
    }
    // What the checks started and what is stopped acts on no signal but SIGKILL, which comes after two seconds.
    for focus in [Focus::Image, Focus::Device, Focus::Smoke] {
        stop(focus, Place::FirstProcess, false, true);
    }
}

fn stop(focus: Focus, place: Place, init: bool, deaf: bool) {
    let life = Life {
        number: 0,
        focus,
        place,
        terminal: place == Place::FirstProcess,
        init,
        signal: 15,
        moment: 0,
    };
    let phase = match focus {
        Focus::Image => "image",
        Focus::Device => "device",
        Focus::Smoke => "smoke",
        Focus::HandOff => "hand-off",
        Focus::Exec | Focus::Service => "service",
    };
    let running = life.start();
    let has_come = || Seen::of(life.process(&running)).phase == phase;
    let is_ready = || phase != "service" || running.said().all().contains("ready");
    assert!(
        eventually(|| has_come() && is_ready()),
        "{life}: {:?}",
        running.said()
    );
    if deaf {
        for child in children(life.process(&running)) {
            kill(child, Signal::SIGSTOP);
        }
    }
    let (ended, took) = running.stop_patiently();
    let expected = if focus == Focus::Service { 7 } else { 143 };
    assert_eq!(ended.code, expected, "{life}: {ended:?}");
    let (init, deaf) = (
        if init { ", --init" } else { "" },
        if deaf { ", its children deaf" } else { "" },
    );
    tell!(
        "| {phase} | {place:?}{init}{deaf} | {} | {:.2} |",
        ended.code,
        took.as_secs_f64()
    );
}
