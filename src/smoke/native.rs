//! The native proof: the helper that has answered for the driver goes on, lets each device compute, and has the driver load
//! the image's own kernels.
//!
//! It has no deadline while it waits for the plan, and no context: what it holds of a GPU is what cuInit took.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use super::UNTIL_DECIDED;
use crate::facts::native::{NativeLibrary, NativePlan, NativeRun};
use crate::facts::smoke::SmokeEnd;
use crate::facts::{HelperEnd, HelperLine};
use crate::helper::{self, Started};
use crate::process::supervisor::{Ended, JobId, Supervisor};
use crate::text::counted;

pub mod plan;

/// What is to be proven, and what is told of it.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// for the helper
    pub plan: NativePlan,
    /// for the report
    pub libraries: Vec<NativeLibrary>,
}

impl Planned {
    /// How many files are loaded from.
    fn paths(&self) -> usize {
        crate::order::set(self.libraries.iter().map(|library| library.path.as_str())).len()
    }
}

/// How long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// each call
    pub call: Duration,
    /// all of it
    pub all: Duration,
}

/// The native proof of one run.
#[derive(Debug)]
pub struct Native {
    state: State,
    deadlines: Deadlines,
    planned: Option<Planned>,
    facts: NativeRun,
}

#[derive(Debug)]
enum State {
    /// there is no process
    Idle,
    /// it asks the driver
    Asking(JobId, OwnedFd),
    /// it waits for the plan
    Waiting(JobId, OwnedFd),
    /// it follows the plan, since then
    Proving(JobId, Instant),
    Over,
}

impl Native {
    /// With nothing started yet.
    pub fn new(facts: NativeRun, deadlines: Deadlines) -> Self {
        Self {
            state: State::Idle,
            deadlines,
            planned: None,
            facts,
        }
    }

    /// Whether something of it is still to come.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Over)
    }

    /// Whether the plan is there and no process that could follow it.
    pub fn wants_process(&self) -> bool {
        matches!(self.state, State::Idle) && self.planned.is_some()
    }

    /// Its process.
    pub fn job(&self) -> Option<JobId> {
        match &self.state {
            State::Asking(id, _) | State::Waiting(id, _) | State::Proving(id, _) => Some(*id),
            State::Idle | State::Over => None,
        }
    }

    /// The process that asks the driver, until it has.
    pub fn asking(&self) -> Option<JobId> {
        match &self.state {
            State::Asking(id, _) => Some(*id),
            _ => None,
        }
    }

    /// Takes a process that was started for it.
    pub fn attach(&mut self, started: Started) {
        if let (State::Idle, Some(input)) = (&self.state, started.input) {
            self.state = State::Asking(started.id, input);
        }
    }

    /// It could not be started.
    pub fn cannot_start(&mut self, detail: String) {
        self.facts.end = SmokeEnd::NotStarted { detail };
        self.state = State::Over;
    }

    /// The driver has answered.
    pub fn ready(&mut self, supervisor: &mut Supervisor) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Asking(id, input) => {
                supervisor.await_words(id, false);
                supervisor.grant(id, UNTIL_DECIDED, UNTIL_DECIDED);
                State::Waiting(id, input)
            }
            other => other,
        };
        self.begin(supervisor);
    }

    /// Says what is to be proven. Without a process it waits for one.
    pub fn go(&mut self, supervisor: &mut Supervisor, planned: Planned) {
        self.planned = Some(planned);
        self.begin(supervisor);
    }

    fn begin(&mut self, supervisor: &mut Supervisor) {
        let Some(planned) = &self.planned else { return };
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Waiting(id, input) => {
                supervisor.grant(id, self.deadlines.call, self.deadlines.all);
                let started = Instant::now();
                let devices = planned.plan.groups.iter().map(|group| group.devices.len());
                tracing::info!(
                    "smoke: native on {}, {} (CUDA_ENTRYPOINT_SMOKE=off skips it)",
                    counted(devices.sum::<usize>(), "GPU"),
                    counted(planned.paths(), "library")
                );
                // A process that has closed its input is about to end, which says more than an error here.
                if let Ok(line) = crate::facts::to_json(&planned.plan) {
                    send(&input, format!("{line}\n").as_bytes());
                }
                State::Proving(id, started)
            }
            other => other,
        };
    }

    /// It is not to run, for this reason.
    pub fn skip(&mut self, reason: &str) {
        if self.is_open() {
            self.facts.end = SmokeEnd::NotRun {
                reason: reason.to_string(),
            };
            // A process that waits ends with its input.
            self.state = State::Over;
        }
    }

    /// Takes the end of its process; says whether that was all that there was to it. One that asks for somebody else as well
    /// is not.
    pub fn ended(&mut self, id: JobId, ended: &Ended) -> bool {
        if self.job() != Some(id) {
            return false;
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Proving(_, since) => {
                self.conclude(ended);
                self.facts.ms = since.elapsed().as_secs_f64() * 1000.0;
                self.state = State::Over;
                true
            }
            // It was started for the plan alone, and did not come so far.
            State::Asking(..) if self.planned.is_some() => {
                self.conclude(ended);
                self.state = State::Over;
                true
            }
            State::Waiting(..) => true,
            _ => false,
        }
    }

    fn conclude(&mut self, ended: &Ended) {
        let (run, lines) = helper::conclude(ended);
        for line in lines {
            match line {
                HelperLine::NativeDevice(device) => self.facts.devices.push(device),
                HelperLine::NativeLoad(load) => self.facts.loads.push(load),
                _ => {}
            }
        }
        let planned = self.planned.take().unwrap_or_default();
        self.facts.libraries = planned.libraries;
        let devices = planned.plan.groups.iter().map(|group| group.devices.len());
        let missing = devices.sum::<usize>().saturating_sub(self.facts.devices.len());
        let (end, step) = match run.end {
            HelperEnd::Done if missing > 0 => (
                SmokeEnd::Garbled {
                    detail: format!("it said nothing of {missing} of its devices"),
                },
                String::new(),
            ),
            HelperEnd::Done => (SmokeEnd::Done, String::new()),
            HelperEnd::NotRun => (
                SmokeEnd::NotRun {
                    reason: "it was cancelled".to_string(),
                },
                String::new(),
            ),
            HelperEnd::LoaderMissing { detail } | HelperEnd::NotStarted { detail } => {
                (SmokeEnd::NotStarted { detail }, String::new())
            }
            HelperEnd::Crashed { signal, step } => (SmokeEnd::Crashed { signal }, step),
            HelperEnd::Exited { code, step, .. } => (SmokeEnd::Exited { code }, step),
            HelperEnd::Garbled { detail, step } => (SmokeEnd::Garbled { detail }, step),
            HelperEnd::TimedOut {
                step,
                after_ms,
                killed,
                ..
            } => (SmokeEnd::TimedOut { after_ms, killed }, step),
        };
        self.facts.end = end;
        self.facts.step = step;
        self.facts.said = helper::last_lines(&ended.stderr);
    }

    /// What it found out.
    pub fn into_facts(self) -> NativeRun {
        self.facts
    }
}

/// The largest pipe that a process may ask for without privileges (fcntl(2), F_SETPIPE_SZ).
const PIPE: i32 = 1 << 20;
/// How long a process that does not read is waited for. It has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes all of it to a pipe that does not block.
fn send(pipe: &OwnedFd, mut text: &[u8]) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
    let until = Instant::now() + PATIENCE;
    while !text.is_empty() && Instant::now() < until {
        match nix::unistd::write(pipe, text) {
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::from(50u8));
            }
            Err(_) => return,
        }
    }
}
