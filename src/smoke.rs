//! The smoke: starts the manifest's entries, gives them the word once the GPU is known to be there, and takes down what
//! they say. What that means is judged by [`crate::checks::smoke`].
//!
//! The entries of torch and of what is built on it run in one Python process, which starts as soon as the interpreter is
//! known: it imports while the image is still read and the driver asked, and waits for the word before it touches a GPU.
//! The other frameworks follow, a process each, and then the manifest's own commands, one after the other.

use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::config::{Config, SmokeDevices, SmokeMode};
use crate::discover::named_files;
use crate::facts::native::{NativeExtent, NativeRun};
use crate::facts::smoke::{SmokeCommand, SmokeEnd, SmokeFacts, SmokeRun};
use crate::facts::{DeviceFacts, Python, SmokeFacts as Facts};
use crate::helper::{self, last_lines};
use crate::process::launch;
use crate::process::limits::ResourceLimit;
use crate::process::supervisor::{Ended, Exit, JobId, Start, Supervisor};
use crate::signal::Number;
use crate::stack::{Builtin, SmokeEntry, Stack, is_interpreter};
use crate::sys::Program;

pub mod decode;
pub mod handoff;
pub mod native;
pub mod zip;

use handoff::{HandOff, Order, Told};
use native::{Deadlines, Native, Planned};

/// Behind the first line that says what runs.
const SKIPS: &str = " (CUDA_ENTRYPOINT_SMOKE=off skips it)";

/// Longer than any driver is waited for.
const UNTIL_DECIDED: Duration = Duration::from_secs(7 * 24 * 3600);

/// In front of the script's first line, which is a comment: with `-c` Python looks into the working folder before all
/// others, where a service that is no `-m` or `-c` itself never looks. A checkout there may have any package's name.
const NOT_HERE: &str = "import sys; sys.path[:1] == [''] and sys.path.pop(0); ";

/// What of the device stage matters to the smoke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GpuDecision {
    /// GPUs may be used; the first alone is to be seen, or all that are visible
    Go {
        /// see [`first_alone`]
        alone: bool,
        /// how many there are
        count: usize,
    },
    /// they may not, for this reason: imports and commands that need none are still run
    NoGpu(String),
}

/// A command of the manifest's author.
#[derive(Clone, Debug)]
struct UserCommand {
    name: String,
    argv: Vec<String>,
    timeout: Duration,
    gpu: bool,
}

/// The entries of one Python process.
#[derive(Clone, Debug)]
struct Group {
    /// the entry of a framework that brings CUDA of its own; `None` for torch's
    framework: Option<Builtin>,
    entries: Vec<Builtin>,
}

/// The processes of those entries: torch's first, which a hand-off can run in the service's own.
fn groups(builtins: &[Builtin]) -> VecDeque<Group> {
    let of_torch: Vec<Builtin> = builtins.iter().copied().filter(|b| !b.is_alone()).collect();
    let torch = (!of_torch.is_empty()).then_some(Group {
        framework: None,
        entries: of_torch,
    });
    let alone = builtins.iter().copied().filter(|b| b.is_alone());
    let alone = alone.map(|builtin| Group {
        framework: Some(builtin),
        entries: vec![builtin],
    });
    torch.into_iter().chain(alone).collect()
}

impl Group {
    fn names(&self) -> String {
        let names: Vec<&str> = self.entries.iter().map(|b| b.name()).collect();
        names.join(", ")
    }
}

/// The smoke of one run.
#[derive(Debug)]
pub struct Smoke {
    /// the native proof, before which nothing else gets the word
    native: Option<Native>,
    /// the Python processes that are not over; the first is the one that runs, or is to
    groups: VecDeque<Group>,
    /// the first of them was over: the others follow without being asked for
    follows: bool,
    /// the Python that is judged
    python: Option<Python>,
    waiting: VecDeque<UserCommand>,
    devices: SmokeDevices,
    timeout: Duration,
    /// the Python process, and the pipe by which it gets the word
    script: Option<(JobId, Option<OwnedFd>)>,
    /// the service's own process, which runs the script instead
    handoff: Option<HandOff>,
    /// when it is to be looked at again
    look_at: Option<Instant>,
    /// its Python is the one that was looked at
    is_the_same: bool,
    /// it was given up: the script needs a process of its own
    falls_back: bool,
    command: Option<(JobId, UserCommand)>,
    word: Option<GpuDecision>,
    /// somebody was told how to skip it
    announced: bool,
    facts: SmokeFacts,
}

/// What came of starting the smoke's Python.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Started {
    /// it runs, or nothing of it is to come
    RunningOrDone,
    /// it is to be started again once another child has ended
    Deferred,
}

/// The entries that come with this program, in the manifest's order.
pub fn builtins(stack: &Stack) -> Vec<Builtin> {
    let builtin = |entry: &SmokeEntry| match entry {
        SmokeEntry::Builtin(builtin) => Some(*builtin),
        SmokeEntry::Command { .. } | SmokeEntry::Native(_) => None,
    };
    stack.smoke.iter().filter_map(builtin).collect()
}

/// How far the native proof is to go, where one is asked for: by the settings, or by the manifest.
pub fn native_extent(stack: &Stack, config: &Config) -> Option<NativeExtent> {
    let asked = |entry: &SmokeEntry| match entry {
        SmokeEntry::Native(extent) => Some(*extent),
        _ => None,
    };
    let by_manifest = || stack.smoke.iter().find_map(asked);
    match config.smoke.mode {
        SmokeMode::Off => None,
        _ => config.smoke.native.max(by_manifest()),
    }
}

impl Smoke {
    /// `None` where nothing is to run.
    pub fn new(stack: &Stack, config: &Config) -> Option<Self> {
        let native = native_extent(stack, config).map(|extent| {
            let facts = NativeRun {
                extent,
                ..NativeRun::default()
            };
            let deadlines = Deadlines {
                call: config.device_timeout,
                all: config.smoke_timeout,
            };
            Native::new(facts, deadlines)
        });
        let is_alone = config.smoke.mode == SmokeMode::Native;
        let entries = if is_alone { &[] } else { stack.smoke.as_slice() };
        let builtins = if is_alone { Vec::new() } else { builtins(stack) };
        let mut waiting = VecDeque::new();
        for entry in entries {
            match entry {
                SmokeEntry::Builtin(_) | SmokeEntry::Native(_) => {}
                SmokeEntry::Command {
                    name,
                    argv,
                    timeout,
                    gpu,
                } => waiting.push_back(UserCommand {
                    name: name.clone(),
                    argv: argv.clone(),
                    timeout: timeout.unwrap_or(config.smoke_timeout),
                    gpu: *gpu,
                }),
            }
        }
        let left_out = entries.len() < stack.smoke.len() && !self::builtins(stack).is_empty();
        let mut facts = SmokeFacts::default();
        if left_out {
            for group in groups(&self::builtins(stack)) {
                let end = SmokeEnd::NotRun {
                    reason: "--smoke native".to_string(),
                };
                keep(
                    &mut facts,
                    &group,
                    SmokeRun {
                        end,
                        ..SmokeRun::default()
                    },
                );
            }
        }
        if native.is_none() && builtins.is_empty() && waiting.is_empty() {
            return None;
        }
        Some(Self {
            native,
            announced: !builtins.is_empty(),
            groups: groups(&builtins),
            follows: false,
            python: None,
            waiting,
            devices: config.smoke_devices,
            timeout: config.smoke_timeout,
            script: None,
            handoff: None,
            look_at: None,
            is_the_same: false,
            falls_back: false,
            command: None,
            word: None,
            facts,
        })
    }

    /// Starts the Python process. Until the word is given no deadline counts: the imports may well be over long before.
    /// With `may_wait`, one that finds no room is no failure.
    pub fn start(
        &mut self,
        supervisor: &mut Supervisor,
        python: &Python,
        env: &[CString],
        may_wait: bool,
    ) -> Started {
        if self.script.is_some() || self.handoff.is_some() {
            return Started::RunningOrDone;
        }
        self.falls_back = false;
        self.python = Some(python.clone());
        let Some(group) = self.groups.front() else {
            return Started::RunningOrDone;
        };
        match self.start_script(supervisor, group, python, env) {
            Ok(job) => self.script = Some(job),
            Err(detail)
                if may_wait && ResourceLimit::told_by(&detail).is_some_and(ResourceLimit::is_passing) =>
            {
                tracing::debug!("smoke: waits for a helper to end: {}", detail);
                return Started::Deferred;
            }
            Err(detail) => {
                let end = SmokeEnd::NotStarted { detail };
                self.group_is_over(SmokeRun {
                    end,
                    ..SmokeRun::default()
                });
            }
        }
        self.pass_on_word(supervisor);
        self.go_on(supervisor, env);
        Started::RunningOrDone
    }

    /// Keeps what the first of the processes came to.
    fn group_is_over(&mut self, run: SmokeRun) {
        self.follows = true;
        if let Some(group) = self.groups.pop_front() {
            keep(&mut self.facts, &group, run);
        }
    }

    fn start_script(
        &self,
        supervisor: &mut Supervisor,
        group: &Group,
        python: &Python,
        env: &[CString],
    ) -> Result<(JobId, Option<OwnedFd>), String> {
        let Some(interpreter) = python.interpreter.as_deref() else {
            return Err(python.undetermined.as_ref().map_or_else(
                || "no Python interpreter was found".to_string(),
                |why| format!("the service's Python cannot be determined: {why}"),
            ));
        };
        let plan = plan(&group.entries, self.devices).to_string();
        let mut argv = vec![interpreter];
        argv.extend(python.options.iter().map(String::as_str));
        let script = match group.framework {
            None => crate::packed::smoke_script(),
            Some(_) => crate::packed::framework_script(),
        };
        let script = format!("{}{script}", path_as_the_services(python));
        argv.extend(["-c", script.as_str(), plan.as_str()]);
        let program = CString::new(interpreter).map_err(|_| "its path has a NUL byte".to_string())?;
        let start = Start {
            program: Program::Path(&program),
            argv: &strings(argv),
            envp: env,
            time: UNTIL_DECIDED,
        };
        let (id, stdin) = supervisor
            .start_listening(&start)
            .map_err(|error| format!("{interpreter}: {error}"))?;
        let skips = if self.follows { "" } else { SKIPS };
        tracing::info!("smoke: {} with {interpreter}{skips}", group.names());
        Ok((id, Some(stdin)))
    }

    /// Whether the word is still to be given.
    pub fn awaits_decision(&self) -> bool {
        self.word.is_none()
    }

    /// Whether something of it is run by a Python.
    pub fn needs_python(&self) -> bool {
        let is_python = |own: &UserCommand| own.argv.first().is_some_and(|program| is_interpreter(program));
        !self.groups.is_empty() || self.waiting.iter().any(is_python)
    }

    /// The native proof, until it is over.
    pub fn native(&mut self) -> Option<&mut Native> {
        self.native.as_mut()
    }

    /// Says whether GPUs may be used, once it is known which Python is judged, and what the native proof is to prove on them.
    /// From here on the smoke's deadline counts.
    pub fn tell(
        &mut self,
        supervisor: &mut Supervisor,
        python: &Python,
        env: &[CString],
        word: GpuDecision,
        planned: Planned,
    ) {
        self.python = Some(python.clone());
        if let Some(native) = &mut self.native {
            match &word {
                GpuDecision::Go { .. } => native.go(supervisor, planned),
                GpuDecision::NoGpu(reason) => native.skip(reason),
            }
        }
        self.word = Some(word);
        self.settle_native(supervisor, env);
    }

    /// Keeps what the native proof found once it is over, and lets the rest begin.
    pub fn settle_native(&mut self, supervisor: &mut Supervisor, env: &[CString]) {
        if let Some(native) = self.native.take_if(|native| !native.is_open()) {
            self.facts.native = Some(native.into_facts());
        }
        self.pass_on_word(supervisor);
        self.go_on(supervisor, env);
    }

    /// The word for what comes behind the native proof: nothing else is run on a GPU that has failed it.
    fn word_behind_native(&self) -> Option<GpuDecision> {
        if self.native.is_some() {
            return None;
        }
        let failed = |run: &NativeRun| !run.passed() && !matches!(run.end, SmokeEnd::NotRun { .. });
        match &self.facts.native {
            Some(run) if failed(run) => Some(GpuDecision::NoGpu("the native smoke test failed".to_string())),
            _ => self.word.clone(),
        }
    }

    fn pass_on_word(&mut self, supervisor: &mut Supervisor) {
        let Some(word) = &self.word_behind_native() else {
            return;
        };
        let line = match word {
            GpuDecision::Go { alone, count } => json!({"gpu": true, "alone": alone, "count": count}),
            GpuDecision::NoGpu(reason) => json!({"gpu": false, "reason": reason}),
        };
        if let Some((id, stdin)) = &mut self.script {
            if let Some(pipe) = stdin.take() {
                // A process that has closed its input is about to end, which says more than this error.
                let _ = nix::unistd::write(&pipe, format!("{line}\n").as_bytes());
            }
            supervisor.extend(*id, self.timeout);
        } else if let Some(handoff) = self
            .handoff
            .as_ref()
            .filter(|_| self.is_the_same && !self.follows)
        {
            handoff.say(&line.to_string());
            supervisor.extend(handoff.job(), self.timeout);
        }
    }

    /// Starts the service, so that its own Python is the one that runs the script.
    pub fn hand_off(
        &mut self,
        supervisor: &mut Supervisor,
        program: &Path,
        service: &[OsString],
        env: &[CString],
    ) {
        let Some(group) = self.groups.front() else { return };
        if group.framework.is_some() {
            return self.fall_back("the manifest has no entry of torch");
        }
        let order = Order {
            program,
            service,
            env,
            builtins: &group.entries,
            devices: self.devices,
        };
        match HandOff::start(supervisor, &order) {
            Ok(handoff) => {
                tracing::info!("smoke: {} in the service's own Python{SKIPS}", group.names());
                self.handoff = Some(handoff);
            }
            Err(why) => self.fall_back(&why),
        }
    }

    fn fall_back(&mut self, why: &str) {
        handoff::say_why_not(why);
        self.falls_back = true;
    }

    /// Whether the script is to be started in a process of its own after all.
    pub fn falls_back(&self) -> bool {
        self.falls_back
    }

    /// Hears what the service's process says. `python` is the one that was looked at, once it was.
    pub fn handle_event(&mut self, supervisor: &mut Supervisor, env: &[CString], python: Option<&Python>) {
        let Some(handoff) = &mut self.handoff else { return };
        let (told, look_at) = handoff.handle_event(supervisor);
        self.look_at = look_at;
        if handoff.refused().is_some() || self.follows {
            return;
        }
        if let (Some(site), Some(python), false) = (&told.site, python, self.is_the_same) {
            if let Err(why) = handoff::is_the_same(site, python) {
                return handoff.refuse(supervisor, why);
            }
            self.is_the_same = true;
            self.pass_on_word(supervisor);
        }
        if told.ended.is_some() {
            let job = self.handoff.as_ref().map(HandOff::job);
            let output = job.map_or(&[][..], |job| supervisor.output(job));
            let run = handoff::conclude(output, Exit::Code(0), self.timeout);
            self.group_is_over(run);
            if let Some(job) = job {
                supervisor.extend(job, UNTIL_DECIDED);
            }
            self.go_on(supervisor, env);
        }
    }

    /// When the service's process is to be looked at again.
    pub fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Makes room for another process, if the service's own can be ended for that.
    pub fn give_way(&mut self, supervisor: &mut Supervisor, detail: &str) -> bool {
        let Some(handoff) = &mut self.handoff else {
            return false;
        };
        handoff.refuse(supervisor, format!("the query cannot run beside it: {detail}"));
        true
    }

    fn handoff_ended(
        &mut self,
        supervisor: &mut Supervisor,
        env: &[CString],
        handoff: &HandOff,
        ended: &Ended,
    ) {
        if self.follows {
            return;
        }
        let told = Told::of(&ended.stdout);
        let early = || match ended.exit {
            _ if told.site.is_some() => None,
            Exit::Code(code) => Some(format!("it ended with status {code} before its first import")),
            Exit::Signal(signal) => Some(format!("{} ended it before its first import", Number(signal))),
            _ => Some("it was ended before its first import".to_string()),
        };
        let why = handoff.refused().map(str::to_string);
        match why.or_else(|| told.fallback.clone()).or_else(early) {
            Some(why) => self.fall_back(&why),
            None => {
                self.group_is_over(handoff::conclude(&ended.stdout, ended.exit, self.timeout));
                self.go_on(supervisor, env);
            }
        }
    }

    /// The service, if it has proven the GPU and waits to go on.
    pub fn take_handoff(&mut self) -> Option<HandOff> {
        self.handoff.take()
    }

    /// Takes the end of a child, if it is one of the smoke's.
    pub fn ended(&mut self, supervisor: &mut Supervisor, env: &[CString], id: JobId, ended: &Ended) -> bool {
        if self.native.as_mut().is_some_and(|native| native.ended(id, ended)) {
            self.settle_native(supervisor, env);
            return true;
        }
        if self.script.as_ref().is_some_and(|(script, _)| *script == id) {
            self.script = None;
            show("its Python", &ended.stderr);
            self.group_is_over(decode::conclude(ended, self.timeout));
        } else if let Some(handoff) = self.handoff.take_if(|handoff| handoff.job() == id) {
            self.handoff_ended(supervisor, env, &handoff, ended);
        } else if let Some((_, own)) = self.command.take_if(|(command, _)| *command == id) {
            show(&own.name, &ended.stderr);
            self.facts.commands.push(SmokeCommand {
                end: command_end(ended, own.timeout),
                name: own.name,
                said: last_lines(&ended.stderr),
                ms: ended.elapsed.as_secs_f64() * 1000.0,
            });
        } else {
            return false;
        }
        self.go_on(supervisor, env);
        true
    }

    /// Starts the next process once it is its turn.
    fn go_on(&mut self, supervisor: &mut Supervisor, env: &[CString]) {
        let Some(word) = &self.word_behind_native() else {
            return;
        };
        while self.follows && self.script.is_none() {
            let (Some(group), Some(python)) = (self.groups.front(), &self.python) else {
                break;
            };
            match self.start_script(supervisor, group, python, env) {
                Ok(job) => {
                    self.script = Some(job);
                    self.pass_on_word(supervisor);
                }
                Err(detail) => {
                    let end = SmokeEnd::NotStarted { detail };
                    self.group_is_over(SmokeRun {
                        end,
                        ..SmokeRun::default()
                    });
                }
            }
        }
        if !self.groups.is_empty() {
            return;
        }
        while self.command.is_none() {
            let Some(own) = self.waiting.pop_front() else {
                return;
            };
            let end = match word {
                GpuDecision::NoGpu(reason) if own.gpu => SmokeEnd::NotRun {
                    reason: reason.clone(),
                },
                _ => {
                    let interpreter = self
                        .python
                        .as_ref()
                        .and_then(|python| python.interpreter.as_deref());
                    match start_command(supervisor, &own, interpreter, env, !self.announced) {
                        Ok(id) => {
                            self.announced = true;
                            self.command = Some((id, own));
                            return;
                        }
                        Err(detail) => SmokeEnd::NotStarted { detail },
                    }
                }
            };
            self.facts.commands.push(SmokeCommand {
                name: own.name,
                end,
                ..SmokeCommand::default()
            });
        }
    }

    /// Whether something of it is still to come.
    pub fn is_open(&self) -> bool {
        self.native.is_some()
            || self.word.is_none()
            || !self.groups.is_empty()
            || self.command.is_some()
            || !self.waiting.is_empty()
    }

    /// The step that it is in, for who watches: `import torch`.
    pub fn step(&self, supervisor: &Supervisor) -> Option<String> {
        if let Some((_, own)) = &self.command {
            return Some(own.name.clone());
        }
        if let Some(id) = self
            .native
            .as_ref()
            .filter(|_| self.word.is_some())
            .and_then(Native::job)
        {
            return Some(helper::decode(supervisor.output(id)).step);
        }
        let script = self.script.as_ref().map(|(id, _)| *id);
        let id = script.or(self.handoff.as_ref().map(HandOff::job))?;
        decode::step(supervisor.output(id))
    }

    /// Ends it: nobody wants to know any more.
    pub fn cancel(self, supervisor: &mut Supervisor) {
        let jobs = [
            self.native.as_ref().and_then(Native::job),
            self.script.map(|(id, _)| id),
            self.handoff.map(|handoff| handoff.job()),
            self.command.map(|(id, _)| id),
        ];
        for id in jobs.into_iter().flatten() {
            supervisor.cancel(id);
        }
    }

    /// What it found out.
    pub fn into_facts(self) -> Facts {
        self.facts
    }
}

/// Keeps what a process came to, under its framework.
fn keep(facts: &mut Facts, group: &Group, run: SmokeRun) {
    match group.framework {
        None => facts.builtin = run,
        Some(framework) => facts.frameworks.push(SmokeRun {
            framework: framework.name().to_string(),
            ..run
        }),
    }
}

/// All that was kept of what a process said, for who asks with `--log debug`.
fn show(who: &str, said: &[u8]) {
    for line in String::from_utf8_lossy(said)
        .lines()
        .filter(|l| !l.trim().is_empty())
    {
        tracing::debug!("smoke: {} said: {}", who, line);
    }
}

/// In front of the script, so that it imports from where the service does.
fn path_as_the_services(python: &Python) -> String {
    if python.working_folder {
        return String::new();
    }
    // A text of JSON is one of Python.
    let first = python.script_folder.as_deref();
    let first = first.map_or(String::new(), |folder| {
        format!("sys.path.insert(0, {}); ", json!(folder))
    });
    format!("{NOT_HERE}{first} ")
}

/// What `smoke.py` is asked.
pub fn plan(builtins: &[Builtin], devices: SmokeDevices) -> serde_json::Value {
    let entries: Vec<&str> = builtins.iter().map(|b| b.name()).collect();
    let devices = match devices {
        SmokeDevices::First => "first",
        SmokeDevices::All => "all",
    };
    json!({"entries": entries, "devices": devices})
}

/// Whether CUDA shows devices that the smoke does not run on: `cuInit` readies all that it is shown, an H200 in a quarter
/// of a second, so that it is better shown the first alone.
pub fn first_alone(devices: SmokeDevices, facts: &DeviceFacts) -> bool {
    devices == SmokeDevices::First && facts.devices.len() > 1
}

fn strings(words: Vec<&str>) -> Vec<CString> {
    words
        .into_iter()
        .filter_map(|word| CString::new(word).ok())
        .collect()
}

/// Without what makes `import x` load nothing (Python 3.15, PEP 810): the import of a package is what many commands prove.
fn with_eager_imports(env: &[CString]) -> Vec<CString> {
    let is_other = |variable: &&CString| !variable.as_bytes().starts_with(b"PYTHON_LAZY_IMPORTS=");
    env.iter().filter(is_other).cloned().collect()
}

fn start_command(
    supervisor: &mut Supervisor,
    own: &UserCommand,
    interpreter: Option<&str>,
    env: &[CString],
    first: bool,
) -> Result<JobId, String> {
    let name = own.argv.first().map_or("", String::as_str);
    let path = named_files::program(name, interpreter, launch::lookup(env, "PATH")).map_err(|e| e.message)?;
    let mut argv: Vec<&str> = own.argv.iter().map(String::as_str).collect();
    if let (Some(first), Some(interpreter)) = (argv.first_mut(), interpreter)
        && path == Path::new(interpreter)
    {
        // By its own name a Python looks for itself on PATH, and finds the environment of the one that it finds there.
        *first = interpreter;
    }
    let path = CString::new(OsString::from(path).into_vec()).map_err(|_| "its path has a NUL byte")?;
    let start = Start {
        program: Program::Path(&path),
        argv: &strings(argv),
        envp: &with_eager_imports(env),
        time: own.timeout,
    };
    let skips = if first { SKIPS } else { "" };
    tracing::info!("smoke: {}{skips}", own.name);
    supervisor
        .start_talking(&start)
        .map_err(|error| format!("{}: {error}", Path::new(name).display()))
}

fn command_end(ended: &Ended, timeout: Duration) -> SmokeEnd {
    match ended.exit {
        Exit::Code(0) => SmokeEnd::Done,
        Exit::Code(code) => SmokeEnd::Exited { code },
        Exit::Signal(signal) => SmokeEnd::Crashed { signal },
        Exit::TimedOut { reaped } => SmokeEnd::TimedOut {
            after_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            killed: reaped,
        },
        Exit::OutputLimit => SmokeEnd::Garbled {
            detail: "it wrote too much".to_string(),
        },
        Exit::Cancelled => SmokeEnd::NotRun {
            reason: "it was cancelled".to_string(),
        },
    }
}
