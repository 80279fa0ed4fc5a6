//! Discovery and judgement of one run: starts what can overlap, waits for it, judges each stage once it is complete.
//!
//! What is found never depends on which child was faster: a stage is judged when all of it is there, and a failed
//! image stage throws away whatever the device stage had found by then.

use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::arch::ArchList;
use crate::check::{Code, Finding, Outcome, Stage, Status};
use crate::checks;
use crate::config::{Config, Gpu, Mode, SmokeMode};
use crate::crew::{Crew, Ended, Event, Exit, JobId, Start};
use crate::discover::loader::{self, explain};
use crate::discover::reading::Reading;
use crate::discover::{editable, libraries, machine, modules, named_files, python, wheels};
use crate::facts::{
    ComputeCapability, DeviceFacts, Facts, HelperEnd, HelperLine, HelperRun, ImageFacts, LoaderEnd,
    LoaderRun, ModuleKernels, Python, SmokeFacts,
};
use crate::helper::{self, Helper, Request};
use crate::launch;
use crate::receipt::Account;
use crate::report::SmokeReport;
use crate::report::progress::{self, Progress};
use crate::shortage::Shortage;
use crate::signal::Number;
use crate::smoke::handoff::Prepared;
use crate::smoke::{Part, Smoke, Started, Word};
use crate::stack::Stack;
use crate::sys::Program;

mod receipts;

pub use receipts::keep_smoke;
use receipts::{Offer, Proof, Receipts};

/// Which stages are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// files of the image
    pub image: bool,
    /// driver, GPUs, architecture
    pub device: bool,
    /// the smoke
    pub smoke: bool,
    /// NVML alone
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

    /// Whether something about the image is still to come, but for the kernels.
    fn image_is_open(&self) -> bool {
        self.image.is_some()
            || self.libraries.is_some()
            || self.postponed.iter().any(|r| matches!(r, Request::Libraries(_)))
            || self.trace.is_some()
            || self.explained.is_some()
            || self.more_libraries.is_some()
    }

    fn start_device(&mut self, crew: &mut Crew) {
        let plan = self.task.plan;
        // The smoke has to know whether there is a GPU, though nobody judges it.
        let asks_driver = plan.device || self.smoke.is_some();
        if self.task.config.gpu == Gpu::Off || !(asks_driver || plan.health) {
            return;
        }
        let nvml_went_ahead = std::mem::take(&mut self.nvml_went_ahead);
        if !nvml_went_ahead {
            self.facts.device = DeviceFacts::default();
        }
        let may_be_known = self.may_know_devices();
        if asks_driver && !may_be_known {
            self.start_helper(crew, Request::Driver);
        }
        // Without a process for libcuda there is none for NVML either; one finding says it.
        let wants_nvml = plan.health || (plan.device && (may_be_known || self.driver_is_open()));
        let unstarted = matches!(
            self.facts.device.nvml_helper.end,
            HelperEnd::NotStarted { .. } | HelperEnd::LoaderMissing { .. }
        );
        if unstarted && !wants_nvml {
            self.facts.device.nvml_helper = HelperRun::default();
        }
        if wants_nvml && !nvml_went_ahead {
            self.start_helper(crew, Request::Nvml);
        }
    }

    /// Starts a run of the helper. One that finds no room beside those that will end waits until one of them has.
    fn start_helper(&mut self, crew: &mut Crew, request: Request) {
        match self.helper.start(crew, &request, self.task.config.device_timeout) {
            Ok(id) => match request {
                Request::Driver => self.driver = Some(id),
                Request::Nvml => self.nvml = Some(id),
                Request::Libraries(_) => self.libraries = Some(id),
            },
            Err(HelperEnd::NotStarted { detail }) if self.may_find_room(&detail) => {
                tracing::debug!("a helper waits for another to end: {detail}");
                self.postponed.push(request);
            }
            Err(end) => {
                let run = HelperRun { end, ms: 0.0 };
                match request {
                    Request::Driver => self.facts.device.helper = run,
                    Request::Nvml => self.facts.device.nvml_helper = run,
                    Request::Libraries(_) => self.facts.image.helper = run,
                }
            }
        }
    }

    /// Whether what is short may be there once a child has ended that waits for nobody.
    fn may_find_room(&self, detail: &str) -> bool {
        self.somebody_ends() && Shortage::told_by(detail).is_some_and(Shortage::is_passing)
    }

    fn somebody_ends(&self) -> bool {
        self.driver.is_some()
            || self.nvml.is_some()
            || self.libraries.is_some()
            || self.trace.is_some()
            || self.more_libraries.is_some()
    }

    fn start_postponed(&mut self, crew: &mut Crew) {
        for request in std::mem::take(&mut self.postponed) {
            self.start_helper(crew, request);
        }
        if std::mem::take(&mut self.smoke_is_postponed) {
            self.start_smoke(crew);
        }
    }

    fn driver_is_open(&self) -> bool {
        self.driver.is_some() || self.postponed.contains(&Request::Driver)
    }

    fn nvml_is_open(&self) -> bool {
        self.nvml.is_some() || self.postponed.contains(&Request::Nvml)
    }

    /// Reads the image's files in a thread of its own: a file system that hangs must not make us deaf to signals.
    fn start_image(&mut self, crew: &Crew) {
        let offer = self.offer();
        let Task {
            config, plan, archs, ..
        } = *self.task;
        // What can run on the visible devices is the libraries' matter too.
        let judges_devices = plan.device && config.gpu != Gpu::Off;
        if !plan.image && !judges_devices && self.smoke.is_none() {
            return;
        }
        let (image_sender, image) = mpsc::channel();
        let (kernels_sender, kernels) = mpsc::channel();
        self.image = Some(image);
        self.kernels = Some(kernels);
        let survey = Survey {
            stack: self.task.stack.clone(),
            explicit: config.python.clone(),
            service: self.task.service.to_vec(),
            env: launch::to_os_pairs(self.task.env).collect(),
            listed: archs.map(|list| list.iter().map(|a| a.capability).collect()),
            everything: plan.image,
            kernels: judges_devices || (plan.image && (archs.is_some() || self.keeps())),
            // The image stage judges that there is one, wherever the smoke is to run.
            smoke: self.smoke.is_some()
                || ((plan.image || self.keeps()) && !self.task.stack.smoke.is_empty()),
            offer,
            reading: self.reading.clone(),
        };
        if !survey.asks_for_python() {
            // There is nothing to read, and a thread costs more than all the rest of such a start.
            survey.make(&image_sender, kernels_sender, &|| ());
            return;
        }
        let here_and_now = survey.clone();
        let (to_image, to_kernels) = (image_sender.clone(), kernels_sender.clone());
        let spawned = crew.waker().and_then(|waker| {
            std::thread::Builder::new().name("image".into()).spawn(move || {
                survey.make(&to_image, to_kernels, &|| waker.wake());
            })
        });
        if spawned.is_err() {
            // No thread to be had.
            here_and_now.make(&image_sender, kernels_sender, &|| ());
        }
    }

    /// Takes what was read of the image meanwhile.
    fn image_discovered(&mut self, crew: &mut Crew) {
        match self.kernels.as_ref().map(mpsc::Receiver::try_recv) {
            None | Some(Err(mpsc::TryRecvError::Empty)) => {}
            Some(found) => {
                self.kernels = None;
                self.facts.image.kernels = found.unwrap_or_default();
                self.timing.push(("kernels", self.started.elapsed()));
            }
        }
        let Some(Ok(discovered)) = self.image.as_ref().map(mpsc::Receiver::try_recv) else {
            return;
        };
        self.image = None;
        self.facts.image = ImageFacts {
            kernels: std::mem::take(&mut self.facts.image.kernels),
            ..discovered.facts
        };
        self.timing.push(("image_files", self.started.elapsed()));
        let is_taken = self.took_image(discovered.taken);
        if !self.may_know_smoke() {
            self.start_smoke(crew);
        }
        if is_taken {
            return;
        }
        let time = self.task.config.device_timeout;
        if !self.facts.image.libraries.is_empty() {
            let request = Request::libraries(&self.facts.image.libraries);
            self.start_helper(crew, request);
        }
        self.facts.image.loader.end = match discovered.asked {
            loader::Asked::Nothing => LoaderEnd::NotRun,
            loader::Asked::Refused(reason) => LoaderEnd::NotAsked { reason },
            loader::Asked::Run(request) => {
                let (path, argv, envp) = (request.path(), request.argv(), request.envp(self.task.env));
                self.facts.image.loader.modules.clone_from(&request.modules);
                self.facts.image.loader.notes.clone_from(&request.notes);
                let start = Start {
                    program: Program::Path(&path),
                    argv: &argv,
                    envp: &envp,
                    time,
                };
                match crew.start(&start) {
                    Ok(id) => {
                        self.trace = Some((id, request));
                        LoaderEnd::NotRun
                    }
                    Err(error) => LoaderEnd::Failed {
                        reason: format!("{} could not be started: {error}", path.to_string_lossy()),
                    },
                }
            }
        };
    }

    /// Takes the loader's list, and has it explained in a thread: that opens every file of it.
    fn listed(&mut self, crew: &Crew, ended: &Ended) {
        let Some((_, request)) = self.trace.take() else {
            return;
        };
        let listing = loader::parse(&ended.stdout, &ended.stderr);
        let run = LoaderRun {
            end: loader_end(ended, &listing, self.task.config.device_timeout),
            modules: request.modules,
            missing_versions: listing.missing_versions.clone(),
            refused: loader::refusals(&listing),
            stubs: Vec::new(),
            notes: request.notes,
            ms: ended.elapsed.as_secs_f64() * 1000.0,
        };
        if run.end == LoaderEnd::Listed {
            let grounds = explain::Grounds {
                program: request.program,
                modules: run.modules.clone(),
                site_packages: self.facts.image.python.site_packages.clone(),
                library_path: launch::lookup(self.task.env, "LD_LIBRARY_PATH")
                    .map(|v| v.to_string_lossy().into_owned()),
                conf: PathBuf::from("/etc/ld.so.conf"),
            };
            let known = self.facts.image.libraries.clone();
            let work = move || explain::explain(&listing, &grounds, &known);
            self.explained = Some(in_thread(crew, "loader", work));
        }
        self.facts.image.loader = run;
    }

    fn loader_explained(&mut self) {
        if let Some(explained) = self.explained.as_ref().and_then(Awaited::take) {
            self.explained = None;
            self.facts.image.loaded = explained.objects;
            self.facts.image.loader.stubs = explained.stubs;
            self.runtimes = explained.runtimes;
        }
    }

    /// Once the loader and the libraries have answered, asks the copies that only the loader knew. There are none in
    /// an image whose wheels bring what they need, so nobody waits for a second run there.
    fn ask_more_libraries(&mut self, crew: &mut Crew) {
        if self.runtimes.is_empty() || self.image_is_open() {
            return;
        }
        let known = self.facts.image.libraries.len();
        let wanted = libraries::Wanted::by(&self.task.stack.cuda);
        let runtimes = std::mem::take(&mut self.runtimes);
        explain::adopt(&mut self.facts.image.libraries, &runtimes, &wanted);
        let new = self.facts.image.libraries.get(known..).unwrap_or_default();
        if new.is_empty() || !matches!(self.facts.image.helper.end, HelperEnd::Done | HelperEnd::NotRun) {
            return;
        }
        match self
            .helper
            .start(crew, &Request::libraries(new), self.task.config.device_timeout)
        {
            Ok(id) => self.more_libraries = Some((id, known)),
            Err(end) => self.facts.image.helper.end = end,
        }
    }

    /// Takes the answers of a helper run.
    fn absorb(&mut self, id: JobId, run: HelperRun, lines: Vec<HelperLine>) {
        let job = Some(id);
        let mut first = 0;
        if let Some((_, known)) = self.more_libraries.take_if(|(more, _)| *more == id) {
            first = known;
            self.facts.image.helper.ms += run.ms;
            self.facts.image.helper.end = run.end;
        } else if job == self.libraries {
            self.libraries = None;
            self.facts.image.helper = run;
        } else if job == self.driver {
            self.driver = None;
            self.facts.device.helper = run;
        } else if job == self.nvml {
            self.nvml = None;
            self.facts.device.nvml_helper = run;
        }
        for line in lines {
            match line {
                HelperLine::Library(mut answer) => {
                    answer.index = answer.index.saturating_add(first);
                    if let Some(library) = self.facts.image.libraries.get_mut(answer.index) {
                        library.answer = Some(answer);
                    }
                }
                HelperLine::Driver(answer) => self.facts.device.driver = Some(answer),
                HelperLine::Device(device) => self.facts.device.devices.push(device),
                HelperLine::Nvml(answer) => self.facts.device.nvml = Some(answer),
                HelperLine::NvmlDevice(device) => self.facts.device.nvml_devices.push(device),
                HelperLine::Node(node) => self.facts.device.opened.push(node),
                HelperLine::Step(_) | HelperLine::Done => {}
            }
        }
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

    fn settle_device(&mut self, crew: &mut Crew) {
        let plan = self.task.plan;
        // The architecture is judged by the kernels as well.
        if self.device_findings.is_some()
            || (plan.device && (self.image.is_some() || self.kernels.is_some()))
            || self.driver_is_open()
            || self.nvml_is_open()
            || self.retry_at.is_some()
        {
            return;
        }
        if plan.device || plan.health {
            self.judge_device();
        }
        let failed = |all: &Vec<Finding>| all.iter().any(|f| f.status == Status::Fail);
        if plan.stop_early && self.device_findings.as_ref().is_some_and(failed) {
            self.cancel_smoke(crew);
        }
    }

    fn start_smoke(&mut self, crew: &mut Crew) {
        let may_wait = self.somebody_ends();
        if let Some(smoke) = &mut self.smoke {
            let (python, env) = (&self.facts.image.python, self.task.env);
            self.smoke_is_postponed = smoke.start(crew, python, env, may_wait) == Started::WhenThereIsRoom;
        }
    }

    fn smoke_ended(&mut self, crew: &mut Crew, id: JobId, ended: &Ended) -> bool {
        let env = self.task.env;
        self.smoke
            .as_mut()
            .is_some_and(|smoke| smoke.ended(crew, env, id, ended))
    }

    fn cancel_smoke(&mut self, crew: &mut Crew) {
        self.smoke_again_at = None;
        if let Some(smoke) = self.smoke.take() {
            smoke.cancel(crew);
        }
    }

    /// Gives the smoke its word once the driver has answered, and judges it once it is over.
    fn settle_smoke(&mut self, crew: &mut Crew) {
        let word = self.word();
        let Some(smoke) = &mut self.smoke else { return };
        if let Some(word) = word.filter(|_| smoke.wants_word()) {
            smoke.tell(crew, self.task.env, word);
        }
        if smoke.is_open() {
            return;
        }
        let Some(smoke) = self.smoke.take() else { return };
        let facts = smoke.into_facts();
        let findings = self.judged_smoke(&facts);
        self.facts.smoke = Some(facts);
        self.smoke_again_at = self.try_again(&findings);
        if self.smoke_again_at.is_none() {
            self.timing.push(("smoke", self.started.elapsed()));
            self.smoke_findings = Some(findings);
        }
    }

    /// Whether the smoke may use GPUs; `None` until that is known.
    fn word(&self) -> Option<Word> {
        if self.task.config.gpu == Gpu::Off {
            return Some(Word::NoGpu("--gpu off".to_string()));
        }
        let plan = self.task.plan;
        // An image that is found to be another one has no business on a GPU.
        let image_is_judged = self.image_findings.is_some() || !plan.image;
        let device_is_judged = self.device_findings.is_some() || !plan.device;
        if !(image_is_judged && device_is_judged) || self.driver_is_open() || self.retry_at.is_some() {
            return None;
        }
        if self.facts.device.has_usable() {
            return Some(Word::Go);
        }
        Some(Word::NoGpu(no_gpu(self.why_no_gpu().as_ref())))
    }

    /// The device stage's first problem, also where that stage is not to be told of.
    fn why_no_gpu(&self) -> Option<Finding> {
        let mut findings = match &self.device_findings {
            Some(findings) => findings.clone(),
            None => checks::device::judge(self.task.stack, self.task.config.gpu, &self.facts),
        };
        let at = findings
            .iter()
            .position(|f| f.stage == Stage::Device && f.problem)?;
        Some(findings.swap_remove(at))
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

    fn judged_image(&self) -> Vec<Finding> {
        let mut findings = checks::image::judge(self.task.stack, self.task.archs, &self.facts);
        self.task.config.overrides.apply(&mut findings);
        findings
    }

    fn judged_device(&self) -> Vec<Finding> {
        let Task {
            config,
            stack,
            archs,
            plan,
            ..
        } = *self.task;
        let mut findings = if plan.health {
            checks::device::judge_health(config.gpu, &self.facts)
        } else {
            let mut all = checks::device::judge(stack, config.gpu, &self.facts);
            all.extend(checks::require::judge(config.gpu, &self.facts));
            all.extend(checks::limits::judge(stack, &self.facts));
            if config.gpu != Gpu::Off {
                all.extend(checks::arch::judge(stack, archs, &self.facts));
            }
            all
        };
        config.overrides.apply(&mut findings);
        findings
    }

    fn judged_smoke(&self, facts: &SmokeFacts) -> Vec<Finding> {
        let mut findings = checks::smoke::judge(self.task.stack, facts);
        // Where the device stage is judged, it is the one to say so.
        let required = self.task.config.gpu == Gpu::Required && !self.task.plan.device;
        if required && !self.facts.device.has_usable() {
            let why = self.why_no_gpu();
            findings.extend(checks::smoke::without_gpu(self.task.stack, why.as_ref()));
        }
        self.task.config.overrides.apply(&mut findings);
        findings
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

    fn judge_device(&mut self) {
        let Task { config, plan, .. } = *self.task;
        // What tells a GPU that is hidden from one that is not there, and a driver likewise.
        if plan.device && config.gpu != Gpu::Off && self.facts.device.devices.is_empty() {
            self.facts.device.nodes = machine::device_nodes();
            let driver = self.facts.device.driver.as_ref();
            if driver.is_none_or(|d| d.load_error.is_some()) {
                let searched = launch::lookup(self.task.env, "LD_LIBRARY_PATH");
                self.facts.device.driver_elsewhere = machine::driver_copies(searched);
            }
        }
        let findings = self.judged_device();
        let image_failed = self
            .image_findings
            .as_ref()
            .is_some_and(|all| all.iter().any(|f| f.status == Status::Fail));
        if !(image_failed && plan.stop_early) {
            self.retry_at = self.try_again(&findings);
            if self.retry_at.is_some() {
                return;
            }
        }
        self.timing.push(("device", self.started.elapsed()));
        self.device_findings = Some(findings);
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

/// What a thread makes; a channel would do, at five times the code.
struct Awaited<T>(Arc<Mutex<Option<T>>>);

impl<T> Awaited<T> {
    /// Takes it, once it is there.
    fn take(&self) -> Option<T> {
        // A panic ends the process.
        self.0.lock().ok()?.take()
    }
}

/// Does work that may hang on a file system beside the main thread; here and now where no thread is to be had.
fn in_thread<T: Send + 'static>(
    crew: &Crew,
    name: &str,
    work: impl FnOnce() -> T + Clone + Send + 'static,
) -> Awaited<T> {
    let place = Arc::new(Mutex::new(None));
    let spawned = crew.waker().and_then(|waker| {
        let (work, place) = (work.clone(), Arc::clone(&place));
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let made = work();
            if let Ok(mut place) = place.lock() {
                *place = Some(made);
            }
            waker.wake();
        })
    });
    match spawned {
        Ok(_) => Awaited(place),
        Err(_) => Awaited(Arc::new(Mutex::new(Some(work())))),
    }
}

/// How a run of the loader ended.
fn loader_end(ended: &Ended, listing: &loader::Listing, deadline: Duration) -> LoaderEnd {
    let reason = match ended.exit {
        // A library that is damaged ends the list, with a complaint that is kept.
        Exit::Code(_) if !listing.objects.is_empty() => return LoaderEnd::Listed,
        Exit::Code(code) => match helper::last_lines(&ended.stderr) {
            said if said.is_empty() => format!("it listed nothing and exited with status {code}"),
            said => said,
        },
        Exit::Signal(signal) => format!("signal {signal} ended it"),
        Exit::TimedOut { .. } => format!("it gave no answer within {} s", deadline.as_secs()),
        Exit::Flooded => "it wrote more than 8 MiB".to_string(),
        Exit::Cancelled => "it was cancelled".to_string(),
    };
    LoaderEnd::Failed { reason }
}

/// What the image's files tell, and how its loader is to be asked.
struct Discovered {
    facts: ImageFacts,
    asked: loader::Asked,
    /// what came of the receipt's image part, if there was one
    taken: Option<Result<Proof, Vec<String>>>,
}

/// Reading of the image's files.
#[derive(Clone)]
struct Survey {
    stack: Stack,
    /// `--python`
    explicit: Option<PathBuf>,
    service: Vec<OsString>,
    env: python::Environment,
    /// the capabilities of the list in force
    listed: Option<Vec<ComputeCapability>>,
    /// all that the image stage judges; otherwise what the kernels need alone
    everything: bool,
    /// the CUDA code of the libraries
    kernels: bool,
    /// a smoke wants a Python
    smoke: bool,
    /// a receipt's image part
    offer: Option<Offer>,
    reading: Reading,
}

impl Survey {
    /// Sends what was found and wakes: the kernels last, so that the libraries can be asked meanwhile.
    fn make(
        self,
        to_image: &mpsc::Sender<Discovered>,
        to_kernels: mpsc::Sender<Vec<ModuleKernels>>,
        wake: &dyn Fn(),
    ) {
        let python = self.python();
        let offer = self.offer.as_ref();
        let taken = offer.map(|offer| offer.take(&python.clone().unwrap_or_default()));
        let refused = match taken {
            Some(Ok((facts, taken))) => {
                self.pass_on(facts, taken, to_image, &to_kernels);
                drop(to_kernels);
                return wake();
            }
            Some(Err(reasons)) => Some(Err(reasons)),
            None => None,
        };
        let Some(python) = python else {
            let nothing = Discovered {
                facts: ImageFacts::default(),
                asked: loader::Asked::Nothing,
                taken: refused,
            };
            let _ = to_image.send(nothing);
            drop(to_kernels);
            return wake();
        };
        let site = python.site_packages.clone();
        let listed = self.listed.clone().unwrap_or_default();
        let scan = {
            let (site, reading) = (site.clone(), self.reading.clone());
            move || modules::find(&site, &listed, &reading)
        };
        let scanning = self
            .kernels
            .then(|| std::thread::Builder::new().spawn(scan.clone()));
        let mut found = self.read(python);
        found.taken = refused;
        let distributions = if self.kernels {
            found.facts.distributions.clone()
        } else {
            Vec::new()
        };
        let _ = to_image.send(found);
        wake();
        if let Some(scanning) = scanning {
            let found = scanning.ok().and_then(|thread| thread.join().ok());
            let mut found = found.unwrap_or_else(scan);
            modules::attribute(&mut found, &site, &distributions);
            let _ = to_kernels.send(found);
        }
        drop(to_kernels);
        wake();
    }

    /// Sends what a receipt holds, as far as it would have been read.
    fn pass_on(
        &self,
        mut facts: ImageFacts,
        taken: Proof,
        to_image: &mpsc::Sender<Discovered>,
        to_kernels: &mpsc::Sender<Vec<ModuleKernels>>,
    ) {
        let kernels = std::mem::take(&mut facts.kernels);
        if !self.everything {
            facts = ImageFacts {
                distributions: facts.distributions,
                python: facts.python,
                ..ImageFacts::default()
            };
        }
        let _ = to_image.send(Discovered {
            facts,
            asked: loader::Asked::Nothing,
            taken: Some(Ok(taken)),
        });
        if self.kernels {
            let _ = to_kernels.send(kernels);
        }
    }

    /// The interpreter; `None` where nothing asks for one.
    fn python(&self) -> Option<Python> {
        if !self.asks_for_python() {
            return None;
        }
        Some(with_query(
            self.explicit.as_deref(),
            &self.service,
            &self.env,
            |query| query.find(),
        ))
    }

    fn asks_for_python(&self) -> bool {
        let stack = &self.stack;
        !stack.packages.is_empty()
            || !stack.files.is_empty()
            || stack.python.is_some()
            || !libraries::Wanted::by(&stack.cuda).is_empty()
            || self.explicit.is_some()
            || self.smoke
            // Where the smoke is not to run now, the image stage still tells whether it could.
            || (self.everything && !stack.smoke.is_empty())
    }

    fn read(&self, python: Python) -> Discovered {
        let site = &python.site_packages;
        if let Some(first) = site.first() {
            self.reading.at(Path::new(first));
        }
        let distributions = wheels::distributions(site);
        if !self.everything {
            return Discovered {
                facts: ImageFacts {
                    distributions,
                    python,
                    ..ImageFacts::default()
                },
                asked: loader::Asked::Nothing,
                taken: None,
            };
        }
        let wanted = libraries::Wanted::by(&self.stack.cuda);
        let places = libraries::Places {
            site_packages: site,
            prefix: python.prefix.as_deref().map(Path::new),
            toolkits: Path::new("/usr/local"),
        };
        let asked = loader::ask(&self.stack, &python);
        let facts = ImageFacts {
            distributions,
            files: named_files::find(site, &self.stack.files),
            editable: editable::traps(site),
            libraries: libraries::runtime_copies(&places, &wanted),
            python,
            ..ImageFacts::default()
        };
        Discovered {
            facts,
            asked,
            taken: None,
        }
    }
}

fn with_query<T>(
    explicit: Option<&Path>,
    command: &[OsString],
    env: &python::Environment,
    ask: impl Fn(&python::PythonQuery<'_>) -> T,
) -> T {
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let usual_places = python::USUAL_PLACES.map(PathBuf::from);
    ask(&python::PythonQuery {
        explicit,
        command,
        env,
        cwd: &cwd,
        usual_places: &usual_places,
    })
}

/// Why the smoke cannot be handed off to this service; `None` where it can.
pub fn handoff_hindrance(service: &[OsString], env: &[CString]) -> Option<String> {
    let env = launch::to_os_pairs(env).collect();
    with_query(None, service, &env, |query| query.hindrance())
}

/// Why no kernel is run, with the device stage's first problem where there is one.
fn no_gpu(why: Option<&Finding>) -> String {
    why.map_or("no usable GPU".to_string(), |f| {
        format!("no usable GPU ({})", f.code)
    })
}

/// Why there is nothing that a hand-off could prove; `None` where there is a GPU.
pub fn nothing_to_hand_off(task: &Task<'_>, gathered: &Gathered) -> Option<String> {
    if gathered.facts.device.has_usable() {
        return None;
    }
    let of_device = |f: &&Finding| f.stage == Stage::Device && f.problem;
    Some(match task.config.gpu {
        Gpu::Off => "--gpu off".to_string(),
        _ => no_gpu(gathered.findings.iter().find(of_device)),
    })
}

/// Whether what failed may be waited for: a hand-off itself cannot be repeated.
pub fn is_worth_waiting(task: &Task<'_>, findings: &[Finding]) -> bool {
    let mut failures = findings.iter().filter(|f| f.status == Status::Fail).peekable();
    task.config.wait > Duration::ZERO && failures.peek().is_some() && failures.all(|f| f.can_mend)
}

/// Why there is no smoke.
fn smoke_skipped(smoke: SmokeMode, findings: &[Finding]) -> String {
    let failed = findings.iter().find(|f| f.status == Status::Fail);
    match (smoke, failed) {
        (SmokeMode::Off, _) => "--smoke off".to_string(),
        (_, Some(finding)) => format!("the {} stage failed", finding.stage.name()),
        (_, None) => "it was not asked for".to_string(),
    }
}

/// The report's `smoke` key.
pub fn smoke_report(task: &Task<'_>, gathered: &Gathered) -> SmokeReport {
    let of_smoke = || gathered.findings.iter().filter(|f| f.stage == Stage::Smoke);
    // Worst first; what somebody decided to put up with has not passed either.
    let problem = of_smoke().filter(|f| f.problem).min_by_key(|f| match f.status {
        Status::Fail => 0,
        Status::Warn => 1,
        _ => 2,
    });
    let (status, reason) = if task.stack.smoke.is_empty() {
        ("not-run", "the manifest has no smoke".to_string())
    } else if let Some(finding) = problem {
        ("failed", finding.message.clone())
    } else if gathered.facts.smoke.is_some() {
        ("passed", String::new())
    } else {
        (
            "not-run",
            of_smoke()
                .find(|f| f.status == Status::Skip)
                .map_or_else(String::new, |f| f.message.clone()),
        )
    };
    SmokeReport {
        mode: gathered.smoke,
        status,
        reason,
    }
}

/// Whether a mode lets a failed image stage end the run.
pub fn stops_early(mode: Mode) -> bool {
    mode == Mode::Enforce
}
