//! Discovery and judgement of one run: starts what can overlap, waits for it, judges each stage once it is complete.
//!
//! What is found never depends on which child was faster: a stage is judged when all of it is there, and a failed
//! image stage throws away whatever the device stage had found by then.

use std::ffi::{CString, OsString};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::arch::ArchList;
use crate::check::{Code, Finding, Findings, Stage};
use crate::cli::config::{Config, Gpu, Mode, SmokeMode};
use crate::discover::loader::explain;
use crate::discover::modules::Scanned;
use crate::discover::reading::Reading;
use crate::discover::{libraries, loader, machine};
use crate::facts::{DeviceFacts, Facts};
use crate::helper::{Helper, Request};
use crate::process::supervisor::{Event, JobId, Supervisor};
use crate::receipt::ReceiptSummary;
use crate::report::headline;
use crate::report::progress;
use crate::report::progress::Progress;
use crate::signal::Number;
use crate::smoke::Smoke;
use crate::smoke::handoff::HandOff;
use crate::smoke::native::plan::Located;
use crate::stack::Stack;
use crate::{checks, helper};

use receipts::Receipts;
use smoke::smoke_skipped;
use survey::Told;
use thread::Awaited;

mod device;
mod image;
mod native;
mod receipts;
mod smoke;
mod survey;
mod thread;

pub use smoke::{handoff_hindrance, smoke_report};

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
    /// its program, where it is to be started
    pub program: Option<&'a Path>,
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
    pub findings: Findings,
    /// how long the stages took
    pub timing: Vec<(&'static str, Duration)>,
    /// how the smoke ran, or is to run
    pub smoke: SmokeMode,
    /// the service, which has proven the GPU and waits to go on
    pub service: Option<HandOff>,
    /// what became of the receipt, where there is one
    pub receipt: Option<ReceiptSummary>,
}

/// Runs the stages.
///
/// # Errors
/// The signal that ended them; the children are still to be dismissed.
pub fn gather(task: &Task<'_>, supervisor: &mut Supervisor) -> Result<Gathered, Number> {
    let mut run = Run::new(task);
    if task.plan.device {
        run.facts.limits = machine::limits();
    }
    run.begin(supervisor);
    run.go(supervisor)
}

/// The state of a run.
struct Run<'a> {
    task: &'a Task<'a>,
    helper: Helper,
    started: Instant,
    facts: Facts,
    image: Option<mpsc::Receiver<Told>>,
    kernels: Option<mpsc::Receiver<Scanned>>,
    /// where the kernels lie that the native proof loads
    located: Option<Awaited<Vec<Located>>>,
    native_libraries: Option<Vec<Located>>,
    /// the runs that ask the libraries, and the positions of those that each asks
    libraries: Vec<(JobId, Vec<usize>)>,
    /// the loader's run, and what it was asked
    trace: Option<(JobId, loader::Request)>,
    explained: Option<Awaited<explain::Explained>>,
    /// files that the loader is still to be asked about, each by itself
    other_files: Vec<loader::Request>,
    /// what it said of a library, until the programs are tried that may open it
    fallback: Option<(loader::Listing, loader::Request)>,
    /// the file whose list is being explained
    explained_file: Option<String>,
    /// what the loader would map, until both it and the libraries have answered
    runtimes: Vec<explain::MappedRuntime>,
    /// runs of the helper that found no room beside the others
    postponed: Vec<Request>,
    driver: Option<JobId>,
    /// a run for each GPU, or for several
    nvml: Vec<JobId>,
    /// NVML was asked before anybody knew whether libcuda has to be
    nvml_went_ahead: bool,
    /// the driver's device nodes before anybody was asked: as root NVML makes /dev/nvidiactl where there is none
    nodes: Vec<String>,
    smoke: Option<Smoke>,
    /// its Python found no room beside the helper
    smoke_is_postponed: bool,
    /// how it runs
    mode: SmokeMode,
    /// the service, once it has proven the GPU
    service: Option<HandOff>,
    /// what the receipt leaves to be found out is being found out
    begun: bool,
    /// when to smoke again, under `--wait`
    smoke_again_at: Option<Instant>,
    /// when to read the image again, likewise
    image_again_at: Option<Instant>,
    receipt: Option<Receipts>,
    image_findings: Option<Findings>,
    device_findings: Option<Findings>,
    smoke_findings: Option<Findings>,
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
    fn new(task: &'a Task<'a>) -> Self {
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
            located: None,
            native_libraries: None,
            libraries: Vec::new(),
            trace: None,
            explained: None,
            other_files: Vec::new(),
            fallback: None,
            explained_file: None,
            runtimes: Vec::new(),
            postponed: Vec::new(),
            driver: None,
            nvml: Vec::new(),
            nvml_went_ahead: false,
            nodes: Vec::new(),
            smoke: new_smoke(task),
            smoke_is_postponed: false,
            mode: task.smoke,
            service: None,
            begun: false,
            smoke_again_at: None,
            image_again_at: None,
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

    fn begin(&mut self, supervisor: &mut Supervisor) {
        if !self.open_receipt(supervisor) {
            return self.begin_checks(supervisor);
        }
        // NVML is asked whatever the receipt says, and takes longer than all the rest of a start that has a good one.
        if self.task.plan.device && self.task.config.gpu != Gpu::Off {
            self.nvml_went_ahead = true;
            self.nodes = machine::device_nodes();
            self.start_nvml(supervisor);
        }
    }

    fn begin_checks(&mut self, supervisor: &mut Supervisor) {
        self.begun = true;
        // The driver is the slowest by far, so it goes first.
        self.start_device(supervisor);
        let may_be_known = self.may_know_image();
        if !self.may_know_smoke() {
            self.hand_off(supervisor);
        }
        self.start_image(supervisor);
        if !may_be_known && self.image.is_some() && !libraries::Wanted::by(self.task.stack).is_empty() {
            // While the image's thread reads: unpacking takes as long, and there will be libraries to ask.
            crate::packed::helper();
        }
    }

    fn go(mut self, supervisor: &mut Supervisor) -> Result<Gathered, Number> {
        self.handle_event(supervisor)?;
        if self.write_receipt(supervisor) {
            self.handle_event(supervisor)?;
        }
        Ok(self.finish())
    }

    fn handle_event(&mut self, supervisor: &mut Supervisor) -> Result<(), Number> {
        self.advance(supervisor);
        while self.is_waiting() {
            let again_at = [self.retry_at, self.image_again_at, self.smoke_again_at];
            let again_at = again_at.into_iter().flatten().min();
            let look_at = self.smoke.as_ref().and_then(Smoke::look_at);
            match supervisor.next(
                [again_at, look_at, Some(self.progress.due())]
                    .into_iter()
                    .flatten()
                    .min(),
            ) {
                Event::Signal(signal) => return Err(signal),
                Event::Woken => {}
                Event::Elapsed if again_at.is_none_or(|at| Instant::now() < at) => {}
                Event::Elapsed if self.retry_at.take_if(is_due).is_some() => self.start_device(supervisor),
                Event::Elapsed if self.image_again_at.take_if(is_due).is_some() => {
                    self.read_image_again(supervisor)
                }
                Event::Elapsed => {
                    self.smoke_again_at = None;
                    self.smoke = new_smoke(self.task);
                    if !self.task.plan.device && !self.facts.device.has_usable() {
                        // Nobody else asks again whether there is one by now.
                        self.start_device(supervisor);
                    }
                    self.start_smoke(supervisor);
                }
                Event::Ended(id, ended) if self.trace.as_ref().is_some_and(|(job, _)| *job == id) => {
                    self.listed(supervisor, &ended);
                }
                Event::Ended(id, ended) if self.smoke_ended(supervisor, id, &ended) => {}
                Event::Ended(id, _) if self.service.as_ref().is_some_and(|s| s.job() == id) => {
                    self.service = None;
                }
                Event::Ended(id, ended) => {
                    let (run, lines) = helper::conclude(&ended);
                    self.absorb(id, run, lines);
                }
            }
            self.start_postponed(supervisor);
            self.advance(supervisor);
            if self.progress.is_due() {
                let occupation = self.occupation(supervisor);
                self.progress.show(occupation);
            }
        }
        Ok(())
    }

    /// What is being done, for who watches: of several things the one that comes first in the report.
    fn occupation(&self, supervisor: &Supervisor) -> Option<String> {
        let step = |id: JobId| helper::decode(supervisor.output(id)).step;
        if self.image.is_some() || self.kernels.is_some() {
            Some(progress::reading(&self.reading).unwrap_or_else(|| "looking for Python".to_string()))
        } else if let Some((id, _)) = self.libraries.first() {
            Some(format!("CUDA libraries: {}", step(*id)))
        } else if self.trace.is_some() || self.explained.is_some() {
            Some("the loader's list of libraries".to_string())
        } else if let Some(id) = self.driver {
            Some(format!("driver: {}", step(id)))
        } else if let Some(id) = self.nvml.first() {
            Some(format!("NVML: {}", step(*id)))
        } else if self.retry_at.is_some() || self.image_again_at.is_some() || self.smoke_again_at.is_some() {
            Some("waiting to try again".to_string())
        } else {
            let step = self.smoke.as_ref()?.step(supervisor)?;
            Some(format!("smoke: {step}"))
        }
    }

    fn is_waiting(&self) -> bool {
        self.image_is_open()
            || self.receipt_is_open()
            || self.kernels.is_some()
            || self.located.is_some()
            || self.driver_is_open()
            || self.nvml_is_open()
            || self.retry_at.is_some()
            || self.smoke.is_some()
            || self.smoke_again_at.is_some()
            || self.image_again_at.is_some()
    }

    /// Judges the stages that have become complete.
    fn advance(&mut self, supervisor: &mut Supervisor) {
        if !self.receipt_is_read(supervisor) {
            return;
        }
        self.receipt_written();
        self.recognise_devices(supervisor);
        self.image_discovered(supervisor);
        self.recognise_smoke(supervisor);
        self.attend_native(supervisor);
        self.loader_explained(supervisor);
        self.ask_more_libraries(supervisor);
        let plan = self.task.plan;
        let image_is_known = !self.image_is_open() && self.kernels.is_none();
        let waits = self.image_again_at.is_some();
        if self.image_findings.is_none() && plan.image && image_is_known && !waits {
            let findings = self.judged_image();
            self.image_again_at = self.try_storage_again(&findings);
            if self.image_again_at.is_some() {
                return;
            }
            self.timing.push(("image", self.started.elapsed()));
            let failed = findings.failed();
            self.image_findings = Some(findings);
            if failed && plan.stop_early {
                for job in self.driver.iter().chain(&self.nvml) {
                    supervisor.cancel(*job);
                }
                self.postponed.clear();
                self.retry_at = None;
                self.forget_devices();
                self.cancel_smoke(supervisor);
            }
        }
        self.settle_device(supervisor);
        self.settle_smoke(supervisor);
    }

    /// When to try again what failed, under `--wait`: every failure can mend itself and there is time left.
    fn retry_at(&mut self, findings: &Findings) -> Option<Instant> {
        let failures = || findings.failures().filter(|f| f.stage != Stage::Arch);
        let finding = failures().next().filter(|_| failures().all(|f| f.retryable))?;
        let give_up_at = self.started + self.task.config.wait;
        let now = Instant::now();
        if now >= give_up_at {
            return None;
        }
        let (code, left) = (finding.code.name(), give_up_at.saturating_duration_since(now));
        let left = humantime::format_duration(Duration::from_secs(left.as_secs_f64().ceil() as u64));
        tracing::info!(code, "waiting up to {left}: {}", headline(finding));
        let pause = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some((now + pause).min(give_up_at))
    }

    fn finish(mut self) -> Gathered {
        let receipt = self.account();
        let plan = self.task.plan;
        let mut findings = self.image_findings.take().unwrap_or_default();
        let image_failed = findings.failed();
        if image_failed && plan.stop_early {
            self.facts.device = DeviceFacts::default();
            self.timing.retain(|(name, _)| *name != "device");
            if plan.device {
                findings.note([Finding::skip(Code::DriverMissing, "driver and GPUs")
                    .message("not looked at: the image stage failed")]);
            }
        } else {
            findings.append(self.device_findings.take().unwrap_or_default());
        }
        if plan.smoke {
            let reason = || smoke_skipped(self.task.smoke, &findings);
            match self.smoke_findings.take() {
                Some(smoked) => findings.append(smoked),
                None => findings.note(checks::smoke::skipped(smoke::names(self.task), &reason())),
            }
        }
        // A loader that only the device stage missed is the image's matter all the same.
        findings.sort();
        Gathered {
            facts: self.facts,
            findings,
            timing: self.timing,
            smoke: self.mode,
            service: self.service,
            receipt,
        }
    }
}

fn is_due(at: &mut Instant) -> bool {
    Instant::now() >= *at
}

/// The smoke that is asked for, if any.
fn new_smoke(task: &Task<'_>) -> Option<Smoke> {
    let wanted = task.plan.smoke && task.smoke != SmokeMode::Off;
    wanted.then(|| Smoke::new(task.stack, task.config)).flatten()
}

/// Whether a mode lets a failed image stage end the run.
pub fn stops_early(mode: Mode) -> bool {
    mode == Mode::Enforce
}
