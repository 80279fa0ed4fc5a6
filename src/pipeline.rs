//! Discovery and judgement of one run: starts what can overlap, waits for it, judges each stage once it is complete.
//!
//! What is found never depends on which child was faster: a stage is judged when all of it is there, and a failed
//! image stage throws away whatever the device stage had found by then.

use std::ffi::{CString, OsString};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::arch::ArchList;
use crate::check::{Code, Finding, Outcome, Stage, Status};
use crate::config::{Config, Gpu, Mode, SmokeMode};
use crate::crew::{Crew, Event, JobId};
use crate::discover::loader::explain;
use crate::discover::reading::Reading;
use crate::discover::{libraries, loader, machine};
use crate::facts::{DeviceFacts, Facts, ModuleKernels};
use crate::helper::{Helper, Request};
use crate::receipt::Account;
use crate::report::progress;
use crate::report::progress::Progress;
use crate::signal::Number;
use crate::smoke::handoff::Prepared;
use crate::smoke::{Part, Smoke};
use crate::stack::Stack;
use crate::{checks, helper};

use receipts::Receipts;
use smoke::smoke_skipped;
use survey::Discovered;
use thread::Awaited;

mod device;
mod image;
mod receipts;
mod smoke;
mod survey;
mod thread;

pub use receipts::keep_smoke;
pub use smoke::{handoff_hindrance, nothing_to_hand_off, smoke_report};

/// Which stages are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// files of the image
    pub image: bool,
    /// driver, GPUs, architecture
    pub device: bool,
    /// the smoke
    pub smoke: bool,
    /// NVML and the device nodes, not CUDA
    pub health: bool,
    /// a failed image stage ends the run: nobody waits for a driver whose answer cannot count
    pub stop_early: bool,
}

/// What a run needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// the settings
    pub config: &'a Config,
    /// the manifest
    pub stack: &'a Stack,
    /// the list in force: `--archs`, else the manifest's
    pub archs: Option<&'a ArchList>,
    /// the service's argv; may be empty under `check`
    pub service: &'a [OsString],
    /// the service's environment
    pub env: &'a [CString],
    /// which stages
    pub plan: Plan,
    /// how the smoke runs: as the settings say, or in a process of its own where it cannot be handed off
    pub smoke: SmokeMode,
    /// somebody at a terminal is told what is being read, if it takes long
    pub watched: bool,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Gathered {
    /// what was found out
    pub facts: Facts,
    /// how it was judged, overrides applied
    pub findings: Vec<Finding>,
    /// how long the stages took
    pub timing: Vec<(&'static str, Duration)>,
    /// how the smoke ran, or is to run
    pub smoke: SmokeMode,
    /// the smoke is still to be run, by the service's own Python when it starts with this
    pub handoff: Option<Prepared>,
    /// how long the run that this one goes on with had taken
    pub before: Duration,
    /// what became of the receipt, where there is one
    pub receipt: Option<Account>,
}

/// Runs the stages.
///
/// # Errors
/// The signal that ended them; the children are still to be dismissed.
pub fn gather(task: &Task<'_>, crew: &mut Crew) -> Result<Gathered, Number> {
    let part = match task.smoke {
        _ if !task.plan.smoke => Part::Nothing,
        SmokeMode::Off => Part::Nothing,
        SmokeMode::Separate => Part::Everything,
        SmokeMode::Handoff => Part::Commands,
    };
    let mut run = Run::new(task, part);
    if task.plan.device {
        run.facts.limits = machine::limits();
    }
    run.begin(crew);
    run.go(crew)
}

/// Runs the part of the smoke that could not be handed off, on a machine and an image that are known already, and judges
/// everything anew.
///
/// # Errors
/// As [`gather`].
pub fn smoke_here(task: &Task<'_>, crew: &mut Crew, facts: Facts) -> Result<Gathered, Number> {
    let task = &Task {
        smoke: SmokeMode::Separate,
        ..*task
    };
    let commands = facts.smoke.as_ref().map(|s| s.commands.clone());
    let mut run = Run::new(task, Part::Builtins);
    run.facts = facts;
    run.judge_known();
    run.start_smoke(crew);
    let mut gathered = run.go(crew)?;
    if let (Some(smoke), Some(commands)) = (&mut gathered.facts.smoke, commands) {
        smoke.commands = commands;
    }
    Ok(judge(task, gathered.facts, gathered.timing))
}

/// Judges what is known: the same findings as when it was found out.
pub fn judge(task: &Task<'_>, facts: Facts, timing: Vec<(&'static str, Duration)>) -> Gathered {
    let mut run = Run::new(task, Part::Nothing);
    run.facts = facts;
    run.judge_known();
    run.timing = timing;
    run.finish()
}

/// The state of a run.
struct Run<'a> {
    task: &'a Task<'a>,
    helper: Helper,
    started: Instant,
    facts: Facts,
    image: Option<mpsc::Receiver<Discovered>>,
    kernels: Option<mpsc::Receiver<Vec<ModuleKernels>>>,
    libraries: Option<JobId>,
    /// the loader's run, and what it was asked
    trace: Option<(JobId, loader::Request)>,
    explained: Option<Awaited<explain::Explained>>,
    /// what the loader would map, until both it and the libraries have answered
    runtimes: Vec<explain::MappedRuntime>,
    /// the run that asks copies which only the loader knew, and the position of the first
    more_libraries: Option<(JobId, usize)>,
    /// runs of the helper that found no room beside the others
    postponed: Vec<Request>,
    driver: Option<JobId>,
    nvml: Option<JobId>,
    /// NVML was asked before anybody knew whether libcuda has to be
    nvml_went_ahead: bool,
    /// the driver's device nodes before anybody was asked: as root NVML makes /dev/nvidiactl where there is none
    nodes: Vec<String>,
    smoke: Option<Smoke>,
    /// its Python found no room beside the helper
    smoke_is_postponed: bool,
    /// which entries that is
    part: Part,
    /// when to smoke again, under `--wait`
    smoke_again_at: Option<Instant>,
    receipt: Option<Receipts>,
    image_findings: Option<Vec<Finding>>,
    device_findings: Option<Vec<Finding>>,
    smoke_findings: Option<Vec<Finding>>,
    timing: Vec<(&'static str, Duration)>,
    /// when to ask the driver again, under `--wait`
    retry_at: Option<Instant>,
    pause: Duration,
    reading: Reading,
    progress: Progress,
}

/// Pauses under `--wait`: short at first, since a fabric manager often is seconds away, then patient.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl<'a> Run<'a> {
    fn new(task: &'a Task<'a>, part: Part) -> Self {
        let facts = Facts {
            environment: machine::shown_environment(task.env),
            ..Facts::default()
        };
        Self {
            task,
            helper: Helper::new(task.config.helper_path.as_deref(), task.env),
            started: Instant::now(),
            facts,
            image: None,
            kernels: None,
            libraries: None,
            trace: None,
            explained: None,
            runtimes: Vec::new(),
            more_libraries: None,
            postponed: Vec::new(),
            driver: None,
            nvml: None,
            nvml_went_ahead: false,
            nodes: Vec::new(),
            smoke: Smoke::new(task.stack, task.config, part),
            smoke_is_postponed: false,
            part,
            smoke_again_at: None,
            receipt: None,
            image_findings: None,
            device_findings: None,
            smoke_findings: None,
            timing: Vec::new(),
            retry_at: None,
            pause: FIRST_PAUSE,
            reading: Reading::new(task.watched),
            progress: Progress::new(task.watched),
        }
    }

    fn begin(&mut self, crew: &mut Crew) {
        if !self.open_receipt(crew) {
            return self.begin_checks(crew);
        }
        // NVML is asked whatever the receipt says, and takes longer than all the rest of a start that has a good one.
        if self.task.plan.device && self.task.config.gpu != Gpu::Off {
            self.nvml_went_ahead = true;
            self.nodes = machine::device_nodes();
            self.start_helper(crew, Request::Nvml);
        }
    }

    fn begin_checks(&mut self, crew: &mut Crew) {
        // The driver is the slowest by far, so it goes first.
        self.start_device(crew);
        self.start_image(crew);
        if self.image.is_some() && !libraries::Wanted::by(&self.task.stack.cuda).is_empty() {
            // While the image's thread reads: unpacking takes as long, and there will be libraries to ask.
            crate::packed::helper();
        }
    }

    fn go(mut self, crew: &mut Crew) -> Result<Gathered, Number> {
        self.attend(crew)?;
        if self.write_receipt(crew) {
            self.attend(crew)?;
        }
        Ok(self.finish())
    }

    fn attend(&mut self, crew: &mut Crew) -> Result<(), Number> {
        self.settle(crew);
        while self.is_waiting() {
            let again_at = self.retry_at.or(self.smoke_again_at);
            match crew.next(again_at.into_iter().chain(self.progress.due()).min()) {
                Event::Signal(signal) => return Err(signal),
                Event::Woken => {}
                Event::Elapsed if again_at.is_none_or(|at| Instant::now() < at) => {}
                Event::Elapsed if self.retry_at.take().is_some() => self.start_device(crew),
                Event::Elapsed => {
                    self.smoke_again_at = None;
                    self.smoke = Smoke::new(self.task.stack, self.task.config, self.part);
                    if !self.task.plan.device && !self.facts.device.has_usable() {
                        // Nobody else asks again whether there is one by now.
                        self.start_device(crew);
                    }
                    self.start_smoke(crew);
                }
                Event::Ended(id, ended) if self.trace.as_ref().is_some_and(|(job, _)| *job == id) => {
                    self.listed(crew, &ended);
                }
                Event::Ended(id, ended) if self.smoke_ended(crew, id, &ended) => {}
                Event::Ended(id, ended) => {
                    let (run, lines) = helper::conclude(&ended, self.task.config.device_timeout);
                    self.absorb(id, run, lines);
                }
            }
            self.start_postponed(crew);
            self.settle(crew);
            if self.progress.is_due() {
                let occupation = self.occupation(crew);
                self.progress.show(occupation);
            }
        }
        Ok(())
    }

    /// What is being done, for who watches: of several things the one that comes first in the report.
    fn occupation(&self, crew: &Crew) -> Option<String> {
        let step = |id: JobId| helper::decode(crew.output(id)).step;
        let libraries = self.libraries.or(self.more_libraries.map(|(id, _)| id));
        if self.image.is_some() || self.kernels.is_some() {
            Some(progress::reading(&self.reading).unwrap_or_else(|| "looking for Python".to_string()))
        } else if let Some(id) = libraries {
            Some(format!("CUDA libraries: {}", step(id)))
        } else if self.trace.is_some() || self.explained.is_some() {
            Some("the loader's list of libraries".to_string())
        } else if let Some(id) = self.driver {
            Some(format!("driver: {}", step(id)))
        } else if let Some(id) = self.nvml {
            Some(format!("NVML: {}", step(id)))
        } else if self.retry_at.is_some() || self.smoke_again_at.is_some() {
            Some("waiting to try again".to_string())
        } else {
            let step = self.smoke.as_ref()?.step(crew)?;
            Some(format!("smoke: {step}"))
        }
    }

    fn is_waiting(&self) -> bool {
        self.image_is_open()
            || self.receipt_is_open()
            || self.kernels.is_some()
            || self.driver_is_open()
            || self.nvml_is_open()
            || self.retry_at.is_some()
            || self.smoke.is_some()
            || self.smoke_again_at.is_some()
    }

    /// Judges the stages that have become complete.
    fn settle(&mut self, crew: &mut Crew) {
        if !self.receipt_is_read(crew) {
            return;
        }
        self.receipt_written();
        self.recognise_devices(crew);
        self.image_discovered(crew);
        self.recognise_smoke(crew);
        self.loader_explained();
        self.ask_more_libraries(crew);
        let plan = self.task.plan;
        let image_is_known = !self.image_is_open() && self.kernels.is_none();
        if self.image_findings.is_none() && plan.image && image_is_known {
            self.timing.push(("image", self.started.elapsed()));
            let findings = self.judged_image();
            let failed = findings.iter().any(|f| f.status == Status::Fail);
            self.image_findings = Some(findings);
            if failed && plan.stop_early {
                for job in [self.driver, self.nvml].into_iter().flatten() {
                    crew.cancel(job);
                }
                self.postponed.clear();
                self.retry_at = None;
                self.forget_devices();
                self.cancel_smoke(crew);
            }
        }
        self.settle_device(crew);
        self.settle_smoke(crew);
    }

    /// When to try again what failed, under `--wait`: every failure can mend itself and there is time left.
    fn try_again(&mut self, findings: &[Finding]) -> Option<Instant> {
        let failures = || {
            findings
                .iter()
                .filter(|f| f.status == Status::Fail && f.stage != Stage::Arch)
        };
        let finding = failures().next().filter(|_| failures().all(|f| f.can_mend))?;
        let give_up_at = self.started + self.task.config.wait;
        let now = Instant::now();
        if now >= give_up_at {
            return None;
        }
        let (code, left) = (finding.code.name(), give_up_at.saturating_duration_since(now));
        let left = humantime::format_duration(Duration::from_secs(left.as_secs_f64().ceil() as u64));
        tracing::info!(
            code,
            "waiting up to {left}: {}: {}",
            finding.subject,
            finding.message
        );
        let pause = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some((now + pause).min(give_up_at))
    }

    /// Judges what is known from before.
    fn judge_known(&mut self) {
        if self.task.plan.image {
            self.image_findings = Some(self.judged_image());
        }
        if self.task.plan.device {
            self.device_findings = Some(self.judged_device());
        }
        let smoke = self.facts.smoke.take();
        self.smoke_findings = smoke.as_ref().map(|facts| self.judged_smoke(facts));
        self.facts.smoke = smoke;
    }

    fn finish(mut self) -> Gathered {
        let receipt = self.account();
        let plan = self.task.plan;
        let mut findings = self.image_findings.take().unwrap_or_default();
        let image_failed = Outcome::of(&findings).decisive.is_some();
        if image_failed && plan.stop_early {
            self.facts.device = DeviceFacts::default();
            self.timing.retain(|(name, _)| *name != "device");
            if plan.device {
                findings.push(
                    Finding::skip(Code::DriverMissing, "driver and GPUs")
                        .message("not looked at: the image stage failed"),
                );
            }
        } else {
            findings.extend(self.device_findings.take().unwrap_or_default());
        }
        if plan.smoke {
            let reason = || smoke_skipped(self.task.smoke, &findings);
            // What is to be handed off now is judged after that.
            let failed = findings.iter().any(|f| f.status == Status::Fail);
            let comes = self.task.smoke == SmokeMode::Handoff && !(failed && plan.stop_early);
            match self.smoke_findings.take() {
                Some(smoked) => findings.extend(smoked),
                None if comes => {}
                None => findings.extend(checks::smoke::skipped(self.task.stack, &reason())),
            }
        }
        // A loader that only the device stage missed is the image's matter all the same.
        findings.sort_by_key(|f| f.stage);
        Gathered {
            facts: self.facts,
            findings,
            timing: self.timing,
            smoke: self.task.smoke,
            handoff: None,
            before: Duration::ZERO,
            receipt,
        }
    }
}

/// Whether what failed may be waited for: a hand-off itself cannot be repeated.
pub fn is_worth_waiting(task: &Task<'_>, findings: &[Finding]) -> bool {
    let mut failures = findings.iter().filter(|f| f.status == Status::Fail).peekable();
    task.config.wait > Duration::ZERO && failures.peek().is_some() && failures.all(|f| f.can_mend)
}

/// Whether a mode lets a failed image stage end the run.
pub fn stops_early(mode: Mode) -> bool {
    mode == Mode::Enforce
}
