//! Runs the tests as cargo's own harness does, with the same arguments and output, and besides tells a test that could
//! not run from one that passed: [`Need`](super::needs::Need) stops such a test, and the last lines say how many there
//! were, for want of what, and what brings it.
//!
//! | variable | effect |
//! | --- | --- |
//! | `CUDA_ENTRYPOINT_TEST_ALL=1` | a test that cannot run has failed |
//! | `CUDA_ENTRYPOINT_TEST_SUMMARY=FILE` | the last lines are added to this file, for who prints them after all else |
//! | `CUDA_ENTRYPOINT_TEST_RETRIES=N` | a test that fails runs again with no other beside it, N times at most; one that passes then is named in the last lines |
//! | `CUDA_ENTRYPOINT_TEST_TIMES=FILE` | each test's seconds and path are added to this file, a line each |

use std::any::Any;
use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Instant;
use std::{backtrace, env, fmt, thread};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::needs::{self, Lack};
use super::surroundings;

/// A function that `#[test]` stands before.
pub struct Test {
    pub module: &'static str,
    pub name: &'static str,
    pub run: fn(),
    pub ignored: bool,
}

inventory::collect!(Test);

impl Test {
    /// Its path below the test program, such as `device::wait::a_driver_that_comes_late`.
    fn path(&self) -> String {
        let module = self.module.split_once("::").map_or("", |(_, below)| below);
        match module {
            "" => self.name.to_string(),
            module => format!("{module}::{}", self.name),
        }
    }
}

thread_local! {
    /// Of the test that this thread runs: its path, and where it panicked and why.
    static CURRENT: RefCell<Option<(String, Option<String>)>> = const { RefCell::new(None) };
}

/// The test that this thread runs, if it is one of the harness's threads.
pub fn current() -> Option<String> {
    CURRENT.with_borrow(|current| current.as_ref().map(|(path, _)| path.clone()))
}

/// `main` of a test program.
pub fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of them wait for a process most of their time.
    let threads = || thread::available_parallelism().map_or(2, |cores| 2 * cores.get());
    arguments.test_threads.get_or_insert_with(threads);
    if !arguments.list {
        surroundings::prepare();
    }
    TELLS.store(arguments.nocapture, Ordering::Relaxed);
    let otherwise = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !keep(info) {
            otherwise(info);
        }
    }));
    let mut tests: Vec<&'static Test> = inventory::iter::<Test>.into_iter().collect();
    tests.sort_by_key(|test| test.path());
    let trials = tests
        .into_iter()
        .map(|test| Trial::ignorable_test(test.path(), || run(test)).with_ignored_flag(test.ignored));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if !arguments.list {
        say(&needs::summary());
        say(&flaky());
    }
    conclusion.exit_code()
}

/// Takes a panic of a test to be told with its result, not in the middle of the others'.
fn keep(info: &PanicHookInfo<'_>) -> bool {
    CURRENT.with_borrow_mut(|current| {
        let Some((_, failure)) = current else { return false };
        let place = info
            .location()
            .map_or_else(String::new, |place| format!("{place}: "));
        let mut text = format!("{place}{}", text_of(info.payload()));
        let trace = backtrace::Backtrace::capture();
        if trace.status() == backtrace::BacktraceStatus::Captured {
            text = format!("{text}\n{trace}");
        }
        failure.get_or_insert(text);
        true
    })
}

fn text_of(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}

/// The tests that failed first and then passed, with why they failed.
static FLAKY: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Held by all tests that run beside each other; alone by one that runs again, since the others' load may be why it failed.
static TOGETHER: RwLock<()> = RwLock::new(());

fn run(test: &Test) -> Result<Completion, Failed> {
    let retries = env::var("CUDA_ENTRYPOINT_TEST_RETRIES")
        .ok()
        .and_then(|n| n.parse().ok());
    let mut outcome = {
        let _together = TOGETHER.read();
        run_once(test)
    };
    for _ in 0..retries.unwrap_or(0) {
        let Err(failure) = outcome else { break };
        let _alone = TOGETHER.write();
        outcome = run_once(test);
        if outcome.is_ok() {
            let why = failure.message().unwrap_or_default();
            FLAKY
                .lock()
                .unwrap()
                .push(format!("  {}: {}\n", test.path(), why.trim_end()));
        }
    }
    outcome
}

/// The last lines on tests that do not pass each time; empty where there is none.
fn flaky() -> String {
    let tests = FLAKY.lock().unwrap();
    match tests.len() {
        0 => String::new(),
        count => format!(
            "flaky: {}, failed at first and passed when run again\n{}",
            needs::tests(count),
            tests.concat()
        ),
    }
}

fn run_once(test: &Test) -> Result<Completion, Failed> {
    CURRENT.set(Some((test.path(), None)));
    let started = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(test.run));
    append(
        "CUDA_ENTRYPOINT_TEST_TIMES",
        &format!("{:.2} {}\n", started.elapsed().as_secs_f64(), test.path()),
    );
    let (_, failure) = CURRENT.take().unwrap_or_default();
    let Err(payload) = outcome else {
        return Ok(Completion::Completed);
    };
    match payload.downcast_ref::<Lack>() {
        Some(lack) if needs::all_are_asked_for() => Err(Failed::from(format!(
            "not run, where CUDA_ENTRYPOINT_TEST_ALL=1 asks for all tests: {lack}"
        ))),
        Some(lack) => Ok(Completion::ignored_with(lack)),
        None => Err(failure
            .unwrap_or_else(|| text_of(payload.as_ref()).to_string())
            .into()),
    }
}

/// Whether `--nocapture` asks for what tests print.
static TELLS: AtomicBool = AtomicBool::new(false);

/// Prints a line where `--nocapture` asks for it: tables that people want, which no test judges.
pub fn tell(line: fmt::Arguments<'_>) {
    if TELLS.load(Ordering::Relaxed) {
        println!("{line}");
    }
}

/// [`tell`] with the arguments of `println!`.
macro_rules! tell {
    ($($argument:tt)*) => { $crate::support::harness::tell(format_args!($($argument)*)) };
}

/// Prints the last lines, or leaves them to the caller.
fn say(lines: &str) {
    if !append("CUDA_ENTRYPOINT_TEST_SUMMARY", lines) && !lines.is_empty() {
        println!("{lines}");
    }
}

/// Adds a text to the file that a variable names; `false` where there is none or it cannot be written.
fn append(variable: &str, text: &str) -> bool {
    let Some(file) = env::var_os(variable) else {
        return false;
    };
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened.is_ok_and(|mut file| file.write_all(text.as_bytes()).is_ok())
}
