//! The pipeline, from top to bottom, and the one place where an outcome becomes an exit code.

use std::ffi::{CString, OsStr, OsString};
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;

use cuda_entrypoint::arch::ArchList;
use cuda_entrypoint::check::{self, Code, Finding, Outcome, Stage, Status, Verdict};
use cuda_entrypoint::cli::{self, Command, Invocation, SchemaOf, Settings, StageChoice, UsageError};
use cuda_entrypoint::config::{self, Config, Format, Mode, ReportTarget, SmokeMode, TerminationLog};
use cuda_entrypoint::crew::{Crew, StartError};
use cuda_entrypoint::facts::Facts;
use cuda_entrypoint::init::{self, Whom};
use cuda_entrypoint::launch::{self, LaunchError};
use cuda_entrypoint::pipeline::{self, Gathered, Plan, Task};
use cuda_entrypoint::receipt::Part;
use cuda_entrypoint::report::human::{self, Colour};
use cuda_entrypoint::report::{Report, headline, json, progress, sanitize, termination};
use cuda_entrypoint::shortage::Shortage;
use cuda_entrypoint::signal::{Number, Set};
use cuda_entrypoint::smoke::handoff::{self, Came, Order, Resumed, State};
use cuda_entrypoint::stack::{self, Stack};
use cuda_entrypoint::{arch, capture, checks, discover, facts, help, install, kernels, logging, smoke, sys};

/// sysexits.h
const EX_USAGE: u8 = 64;
const EX_SOFTWARE: u8 = 70;
const EX_CONFIG: u8 = 78;
const EX_CANTCREAT: u8 = 73;
const EX_IOERR: u8 = 74;
/// The image's fault, as [`Code::exit_code`] has it.
const EX_IMAGE: u8 = 81;

/// The manifest of an image that brings its own.
const DEFAULT_STACK: &str = "/etc/cuda-entrypoint/stack.json";

fn main() -> ExitCode {
    let started = Instant::now();
    std::panic::set_hook(Box::new(|panic| {
        complain(
            &format!("internal error, please report it: {panic}"),
            "CUDA_ENTRYPOINT_MODE=off starts the service unchecked",
        );
        std::process::exit(i32::from(EX_SOFTWARE));
    }));
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let environ = sys::environ();
    let supervised = matches!(
        args.first().and_then(|a| a.to_str()),
        Some("run" | "check" | "stack")
    );
    // Signals first: from here on none is lost, as PID 1 too.
    let crew = supervised.then(Crew::assemble);
    let exit = match cli::parse(args.iter().cloned(), launch::to_os_pairs(&environ)) {
        Ok(invocation) => dispatch(invocation, &environ, crew, started),
        Err(error) => {
            drop(crew);
            bad_usage(&args, &environ, &error)
        }
    };
    ExitCode::from(exit)
}

type Assembled = Option<Result<Crew, StartError>>;

fn dispatch(invocation: Invocation, environ: &[CString], crew: Assembled, started: Instant) -> u8 {
    let Invocation {
        command,
        settings,
        near_misses,
    } = invocation;
    match command {
        Command::Help(None) => print(&help::overview()),
        Command::Help(Some(name)) => print(&help::command(name)),
        Command::Version => print(&format!("cuda-entrypoint {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Explain(None) => print(&help::findings()),
        Command::Explain(Some(name)) => explain(&name),
        Command::Schema(SchemaOf::Stack) => print(stack::SCHEMA_JSON),
        Command::Schema(SchemaOf::Report) => print(json::SCHEMA_JSON),
        Command::StackShow { json } => stack_show(&settings, json),
        Command::StackCapture { service } => {
            let session = Session {
                settings: &settings,
                near_misses: &near_misses,
                environ,
                service: &service,
                started,
            };
            match crew {
                Some(Ok(crew)) => session.capture(crew),
                other => {
                    complain(&no_crew(other.and_then(Result::err)), NO_CREW_HINT);
                    EX_SOFTWARE
                }
            }
        }
        Command::Kernels { archs, json, paths } => list_kernels(archs, json, paths),
        Command::Install(dir) => install_into(Path::new(&dir)),
        Command::Run { service } if config::is_off(&settings) => {
            drop(crew);
            start_logging(&settings);
            start_unchecked(&service, environ, &settings)
        }
        // Whoever names this program means what it does, not what would have to hold before a service.
        Command::Run { service } if is_this_program(&service, environ) => {
            drop(crew);
            start_logging(&settings);
            start(&service, environ, &config::termination_log(&settings), None)
        }
        Command::Check { .. } if config::is_off(&settings) => {
            start_logging(&settings);
            say("nothing is checked: mode is off");
            0
        }
        Command::Run { service } => {
            let session = Session {
                settings: &settings,
                near_misses: &near_misses,
                environ,
                service: &service,
                started,
            };
            match crew {
                Some(Ok(crew)) => session.run(crew),
                other => session.run_without_crew(other.and_then(Result::err)),
            }
        }
        Command::Check { stage, service } => {
            let session = Session {
                settings: &settings,
                near_misses: &near_misses,
                environ,
                service: &service,
                started,
            };
            match crew {
                Some(Ok(crew)) => session.check(stage, crew),
                other => session.check_without_crew(other.and_then(Result::err)),
            }
        }
    }
}

/// One `run` or `check`.
struct Session<'a> {
    settings: &'a Settings,
    near_misses: &'a [(String, String)],
    environ: &'a [CString],
    service: &'a [OsString],
    started: Instant,
}

/// The manifest in force and where it came from.
struct Loaded {
    stack: Stack,
    source: String,
    /// who else may write it
    doubt: Option<String>,
}

/// Why there is no manifest.
struct Unread {
    exit: u8,
    message: String,
    hint: String,
}

impl Session<'_> {
    fn run(&self, mut crew: Crew) -> u8 {
        let config = match self.configure() {
            Ok(config) => config,
            Err(error) => {
                let exit = error.exit_code();
                return self.refuse(
                    exit,
                    "setting",
                    &error.to_string(),
                    &error.hint,
                    &config::termination_log(self.settings),
                    crew,
                );
            }
        };
        if self.service.is_empty() {
            let hint = "set CMD in the Dockerfile, `args:` in the pod, or name it: docker run IMAGE COMMAND";
            return self.refuse(
                EX_USAGE,
                "usage",
                "no service command was given",
                hint,
                &config.termination_log,
                crew,
            );
        }
        if config.report == Some(ReportTarget::Stdout) {
            let (exit, origin) = self
                .settings
                .get("report")
                .map_or((EX_USAGE, String::new()), |given| {
                    let exit = match given.origin {
                        cli::Origin::Flag(_) => EX_USAGE,
                        _ => EX_CONFIG,
                    };
                    (exit, format!("{}: ", given.origin))
                });
            let message = format!("{origin}`-`: under run, stdout belongs to the service");
            return self.refuse(
                exit,
                if exit == EX_USAGE { "usage" } else { "setting" },
                &message,
                "name a file, or use check",
                &config.termination_log,
                crew,
            );
        }
        let loaded = match load_stack(config.stack.as_deref()) {
            Ok(loaded) => loaded,
            Err(unread) => {
                return self.refuse(
                    unread.exit,
                    "manifest",
                    &unread.message,
                    &unread.hint,
                    &config.termination_log,
                    crew,
                );
            }
        };
        let env = self.service_environment(&loaded);
        // A typo is not worth a minute of checks. The manifest may set PATH, so it is looked for as the service would.
        let program = match self.resolve(&env) {
            Ok(program) => program,
            Err(error) => return self.cannot_launch(&error, &config.termination_log),
        };
        let plan = Plan {
            image: true,
            device: true,
            smoke: true,
            health: false,
            stop_early: pipeline::stops_early(config.mode),
        };
        let archs = config.archs.as_ref().or(loaded.stack.archs.as_ref());
        let task = Task {
            config: &config,
            stack: &loaded.stack,
            archs,
            service: self.service,
            env: &env,
            plan,
            smoke: self.smoke_mode(&config, &loaded.stack, &env),
            watched: is_watched(&config),
        };
        let resumes = Resumed::is_named(self.environ);
        let gathered = if resumes {
            match Resumed::take(self.environ, config.smoke_timeout) {
                Ok(resumed) => self.resume(&task, &mut crew, resumed),
                Err(message) => {
                    let hint = "this variable is set by cuda-entrypoint alone: unset it";
                    return self.refuse(
                        EX_CONFIG,
                        "setting",
                        &message,
                        hint,
                        &config.termination_log,
                        crew,
                    );
                }
            }
        } else {
            pipeline::gather(&task, &mut crew).and_then(|gathered| self.hand_off(&task, &mut crew, gathered))
        };
        let gathered = gathered.and_then(|gathered| pipeline::keep_smoke(&task, &mut crew, gathered));
        let gathered = match gathered {
            Ok(gathered) => gathered,
            Err(signal) => return ended_by(signal, crew, &config.termination_log),
        };
        let clean = crew.dismiss();
        if let Some(signal) = crew.pending_signal() {
            return ended_by(signal, crew, &config.termination_log);
        }
        drop(crew);
        if let Some(prepared) = &gathered.handoff {
            return match launch_as(&program, self.service, &prepared.env, config.init, prepared.held) {
                Ok(exit) => exit,
                Err(error) => self.cannot_launch(&error, &config.termination_log),
            };
        }
        let report = self.report(&task, &loaded, &gathered);
        write_report_file(&config, &report);
        let service = program.display().to_string();
        let failed = report.outcome.verdict == Verdict::Fail;
        if failed {
            self.say_failure(&config, &report, &service);
            if config.mode == Mode::Enforce {
                termination::write(&config.termination_log, &termination::message(&report));
                return report.outcome.exit_code;
            }
        } else {
            let known = gathered.receipt.as_ref().is_some_and(|r| r.has_used(Part::Image));
            say_warnings(&gathered.findings, known);
            say_success(&report, &service);
        }
        if resumes {
            // The service is our parent, and goes on.
            return 0;
        }
        if !clean {
            tracing::warn!("a helper sits in an uninterruptible driver call and was left behind");
        }
        // Under --init they would be kept for as long as the service runs.
        drop(report);
        drop(gathered);
        match launch_as(&program, self.service, &env, config.init, Set::NONE) {
            Ok(exit) => exit,
            Err(error) => self.cannot_launch(&error, &config.termination_log),
        }
    }

    /// How the smoke can be run for this service.
    fn smoke_mode(&self, config: &Config, stack: &Stack, env: &[CString]) -> SmokeMode {
        if config.smoke != SmokeMode::Handoff {
            return config.smoke;
        }
        if smoke::builtins(stack).is_empty() {
            // Commands of the manifest's own run by themselves in any case.
            return SmokeMode::Separate;
        }
        match pipeline::handoff_hindrance(self.service, env) {
            None => SmokeMode::Handoff,
            Some(why) => {
                tracing::info!(
                    "smoke: no hand-off, in a process of its own instead: {}",
                    sanitize(&why)
                );
                SmokeMode::Separate
            }
        }
    }

    /// Makes the service's own Python run the smoke, where that is how it is to run and nothing has failed by now.
    fn hand_off(&self, task: &Task<'_>, crew: &mut Crew, mut gathered: Gathered) -> Result<Gathered, Number> {
        let failed = Outcome::of(&gathered.findings).verdict == Verdict::Fail && task.plan.stop_early;
        let is_proven = gathered.receipt.as_ref().is_some_and(|r| r.has_used(Part::Smoke));
        if task.smoke != SmokeMode::Handoff || failed || is_proven {
            return Ok(gathered);
        }
        if let Some(why) = pipeline::nothing_to_hand_off(task, &gathered) {
            gathered
                .findings
                .extend(checks::smoke::builtins_skipped(task.stack, &why));
            return Ok(gathered);
        }
        let builtins = smoke::builtins(task.stack);
        let order = Order {
            builtins: &builtins,
            devices: task.config.smoke_devices,
            timeout: task.config.smoke_timeout,
            env: task.env,
            argv: &handoff::own_argv(),
            environ: self.environ,
            becomes_us: task.config.init.is_none(),
        };
        let state = State {
            facts: gathered.facts.clone(),
            receipt: gathered.receipt.clone(),
            timing_ms: handoff::timing_ms(&gathered.timing),
            began_ms: handoff::unix_ms(SystemTime::now() - self.started.elapsed()),
        };
        match handoff::prepare(&order, &state) {
            Ok(prepared) => {
                let names: Vec<&str> = builtins.iter().map(|b| b.name()).collect();
                tracing::info!(
                    "smoke: {} in the service's own Python (CUDA_ENTRYPOINT_SMOKE=off skips it)",
                    names.join(", ")
                );
                gathered.handoff = Some(prepared);
                Ok(gathered)
            }
            Err(why) => {
                let receipt = gathered.receipt.take();
                let smoked = self.smoke_here(task, crew, gathered.facts, &why);
                smoked.map(|gathered| Gathered { receipt, ..gathered })
            }
        }
    }

    fn smoke_here(
        &self,
        task: &Task<'_>,
        crew: &mut Crew,
        facts: Facts,
        why: &str,
    ) -> Result<Gathered, Number> {
        tracing::info!(
            "smoke: no hand-off, in a process of its own instead: {}",
            sanitize(why)
        );
        pipeline::smoke_here(task, crew, facts)
    }

    /// The second run of a hand-off: takes what the first one found out and what the service's Python saw.
    fn resume(&self, task: &Task<'_>, crew: &mut Crew, resumed: Resumed) -> Result<Gathered, Number> {
        let Resumed { mut state, came } = resumed;
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(state.began_ms);
        let before = began
            .elapsed()
            .unwrap_or_default()
            .saturating_sub(self.started.elapsed());
        let mut facts = std::mem::take(&mut state.facts);
        let mut gathered = match came {
            Came::Refused(why) => self.smoke_here(task, crew, facts, &why)?,
            Came::Proven(run) => {
                let known = facts.clone();
                facts.smoke.get_or_insert_default().builtin = *run;
                let judged = pipeline::judge(task, facts, vec![("smoke", self.started.elapsed())]);
                if pipeline::is_worth_waiting(task, &judged.findings) {
                    // Those imports are over; what fails now is tried again from the start.
                    self.smoke_here(task, crew, known, "what failed may mend itself")?
                } else {
                    judged
                }
            }
        };
        let since = gathered
            .timing
            .into_iter()
            .map(|(name, time)| (name, before + time));
        gathered.timing = state.timing().chain(since).collect();
        gathered.before = before;
        gathered.receipt = state.receipt;
        Ok(gathered)
    }

    fn check(&self, stage: StageChoice, mut crew: Crew) -> u8 {
        let config = match self.configure() {
            Ok(config) => config,
            Err(error) => {
                let exit = error.exit_code();
                let log = config::termination_log(self.settings);
                return self.refuse_check(exit, "setting", &error.to_string(), &error.hint, &log, crew);
            }
        };
        let loaded = match load_stack(config.stack.as_deref()) {
            Ok(loaded) => loaded,
            Err(unread) => {
                return self.refuse_check(
                    unread.exit,
                    "manifest",
                    &unread.message,
                    &unread.hint,
                    &config.termination_log,
                    crew,
                );
            }
        };
        let env = self.service_environment(&loaded);
        let wants = |one| stage == one || stage == StageChoice::All;
        let plan = Plan {
            image: wants(StageChoice::Image),
            device: wants(StageChoice::Device),
            smoke: wants(StageChoice::Smoke),
            health: stage == StageChoice::Health,
            stop_early: false,
        };
        let archs = config.archs.as_ref().or(loaded.stack.archs.as_ref());
        let task = Task {
            config: &config,
            stack: &loaded.stack,
            archs,
            service: self.service,
            env: &env,
            plan,
            // There is no service to hand anything to.
            smoke: match config.smoke {
                SmokeMode::Handoff => SmokeMode::Separate,
                other => other,
            },
            watched: is_watched(&config),
        };
        let gathered = match pipeline::gather(&task, &mut crew) {
            Ok(gathered) => gathered,
            Err(signal) => return ended_by(signal, crew, &config.termination_log),
        };
        crew.dismiss();
        if let Some(signal) = crew.pending_signal() {
            return ended_by(signal, crew, &config.termination_log);
        }
        drop(crew);
        let report = self.report(&task, &loaded, &gathered);
        write_report_file(&config, &report);
        let text = if config.format == Format::Json || config.report == Some(ReportTarget::Stdout) {
            json::document(&report)
        } else {
            human::table(&report, colour_of(&std::io::stdout()))
        };
        let printed = print(&text);
        if is_last_word(&config, plan, report.outcome.verdict) {
            termination::write(&config.termination_log, &termination::message(&report));
        }
        match (report.outcome.verdict, config.mode) {
            (Verdict::Fail, Mode::Enforce) => report.outcome.exit_code,
            _ => printed,
        }
    }

    /// Prints a manifest of what is here, and tells what fails here even under it.
    fn capture(&self, mut crew: Crew) -> u8 {
        let config = match self.configure() {
            // What is captured is what is there, not what was.
            Ok(config) => Config {
                receipt: None,
                ..config
            },
            Err(error) => {
                complain(&error.to_string(), &error.hint);
                return error.exit_code();
            }
        };
        let probe = match capture::probe() {
            Ok(probe) => probe,
            Err(error) => {
                complain(&format!("the probing manifest {error}"), &error.hint);
                return EX_SOFTWARE;
            }
        };
        let found = match self.gather_image(&config, &probe, self.environ, &mut crew) {
            Ok(found) => found,
            Err(exit) => return exit,
        };
        let text = |s: &OsString| s.to_str().map(str::to_string);
        let variables = launch::to_os_pairs(self.environ)
            .filter_map(|(name, value)| Some((text(&name)?, text(&value)?)))
            .collect();
        let captured = match capture::manifest(&found.facts, &variables) {
            Ok(captured) => captured,
            Err((message, hint)) => {
                crew.dismiss();
                complain(&message, &hint);
                return EX_IMAGE;
            }
        };
        // The very check that the manifest is for.
        let (env, _) = launch::environment(self.environ, &captured.stack.env);
        let checked = match self.gather_image(&config, &captured.stack, &env, &mut crew) {
            Ok(checked) => checked,
            Err(exit) => return exit,
        };
        crew.dismiss();
        for note in &captured.notes {
            say(&format!("note: {note}"));
        }
        let failed = || checked.findings.iter().filter(|f| f.status == Status::Fail);
        for finding in failed() {
            complain(
                &format!(
                    "{} fails whatever a manifest says: {}",
                    finding.code, finding.message
                ),
                &finding.hint,
            );
        }
        match serde_json::to_value(&captured.stack) {
            Ok(value) => match print(&format!("{value:#}\n")) {
                0 if failed().next().is_some() => EX_IMAGE,
                exit => exit,
            },
            Err(error) => {
                complain(&format!("cannot write the manifest as JSON: {error}"), "");
                EX_SOFTWARE
            }
        }
    }

    /// The image stage with `stack`; the exit code where a signal ended it. The termination log is a verdict's, and
    /// nothing here is one.
    fn gather_image(
        &self,
        config: &Config,
        stack: &Stack,
        env: &[CString],
        crew: &mut Crew,
    ) -> Result<pipeline::Gathered, u8> {
        let task = Task {
            config,
            stack,
            archs: stack.archs.as_ref(),
            service: self.service,
            env,
            plan: Plan {
                image: true,
                device: false,
                smoke: false,
                health: false,
                stop_early: false,
            },
            smoke: SmokeMode::Off,
            watched: is_watched(config),
        };
        pipeline::gather(&task, crew).map_err(|signal| {
            crew.terminate(signal);
            signal.exit_code()
        })
    }

    /// Settings, logging, and the warnings about variables that nobody reads.
    fn configure(&self) -> Result<Config, config::SettingError> {
        let config = Config::from_settings(self.settings);
        start_logging(self.settings);
        for (name, meant) in self.near_misses {
            tracing::warn!("the variable {name} is not known and has no effect; did you mean {meant}?");
        }
        config
    }

    /// Too few descriptors, or a seccomp profile without signalfd(2).
    fn run_without_crew(&self, error: Option<StartError>) -> u8 {
        start_logging(self.settings);
        let log = config::termination_log(self.settings);
        let message = no_crew(error);
        self.refuse(EX_SOFTWARE, "supervision", &message, NO_CREW_HINT, &log, None)
    }

    fn check_without_crew(&self, error: Option<StartError>) -> u8 {
        start_logging(self.settings);
        let log = config::termination_log(self.settings);
        let message = no_crew(error);
        self.refuse_check(EX_SOFTWARE, "supervision", &message, NO_CREW_HINT, &log, None)
    }

    fn service_environment(&self, loaded: &Loaded) -> Vec<CString> {
        // The second run of a hand-off need not say it again.
        if let Some(doubt) = &loaded.doubt
            && !Resumed::is_named(self.environ)
        {
            tracing::warn!("{}", sanitize(doubt));
        }
        let (env, overwritten) = launch::environment(self.environ, &loaded.stack.env);
        for variable in overwritten {
            tracing::warn!(
                "{} was set to another value; the manifest's is used",
                variable.name
            );
        }
        env
    }

    fn resolve(&self, env: &[CString]) -> Result<PathBuf, LaunchError> {
        let command = self.service.first().map_or(OsStr::new(""), |c| c.as_os_str());
        launch::resolve(command, launch::lookup(env, "PATH"))
    }

    fn report<'r>(
        &self,
        task: &Task<'r>,
        loaded: &'r Loaded,
        gathered: &'r pipeline::Gathered,
    ) -> Report<'r> {
        let mut timing = gathered.timing.clone();
        timing.push(("total", gathered.before + self.started.elapsed()));
        Report {
            mode: task.config.mode,
            stack_name: &loaded.stack.name,
            stack_source: &loaded.source,
            facts: &gathered.facts,
            findings: &gathered.findings,
            outcome: Outcome::of(&gathered.findings),
            receipt: gathered.receipt.as_ref(),
            smoke: pipeline::smoke_report(task, gathered),
            timing,
        }
    }

    fn say_failure(&self, config: &Config, report: &Report<'_>, service: &str) {
        if config.format == Format::Human {
            to_stderr(&human::failure(report, service, colour_of(&std::io::stderr())));
            return;
        }
        for finding in report.findings.iter().filter(|f| f.status == Status::Fail) {
            tracing::error!(
                code = finding.code.name(),
                stage = finding.stage.name(),
                subject = sanitize(&finding.subject),
                observed = sanitize(&finding.observed),
                required = sanitize(&finding.required),
                hint = sanitize(&finding.hint),
                "{}",
                sanitize(&finding.message)
            );
        }
        say_warnings(report.findings, false);
        let code = report.outcome.decisive.map_or("", |f| f.code.name());
        let exit_code = report.outcome.exit_code;
        let service = sanitize(service);
        if config.mode == Mode::Warn {
            tracing::error!(
                verdict = "fail",
                code,
                exit_code,
                service,
                "starting the service all the same, mode is warn"
            );
        } else {
            tracing::error!(
                verdict = "fail",
                code,
                exit_code,
                service,
                "not starting the service"
            );
        }
    }

    /// What keeps the checks from being made at all. Under `warn` the service starts even so.
    fn refuse(
        &self,
        exit: u8,
        kind: &str,
        message: &str,
        hint: &str,
        log: &TerminationLog,
        crew: impl Into<Option<Crew>>,
    ) -> u8 {
        drop(crew.into());
        complain(message, hint);
        if config::is_warn(self.settings) && !self.service.is_empty() {
            say("starting the service all the same, unchecked: mode is warn");
            return start(
                self.service,
                self.environ,
                log,
                config::init_or_exec(self.settings),
            );
        }
        termination::write(log, &termination_text(exit, kind, message, hint));
        exit
    }

    /// The same for `check`. Under `warn` it is no failure.
    fn refuse_check(
        &self,
        exit: u8,
        kind: &str,
        message: &str,
        hint: &str,
        log: &TerminationLog,
        crew: impl Into<Option<Crew>>,
    ) -> u8 {
        drop(crew.into());
        complain(message, hint);
        termination::write(log, &termination_text(exit, kind, message, hint));
        if config::is_warn(self.settings) { 0 } else { exit }
    }

    fn cannot_launch(&self, error: &LaunchError, log: &TerminationLog) -> u8 {
        complain(&error.message, &error.hint);
        termination::write(
            log,
            &termination_text(error.exit_code, "service", &error.message, &error.hint),
        );
        error.exit_code
    }
}

const NO_CREW_HINT: &str =
    "raise the limits on descriptors and memory, or allow signalfd in the seccomp profile";

fn no_crew(error: Option<StartError>) -> String {
    let why = error.map_or(String::new(), |error| format!(": {error}"));
    format!("cannot supervise children{why}")
}

fn termination_text(exit: u8, kind: &str, message: &str, hint: &str) -> String {
    sanitize_lines(&format!("{kind} (exit {exit}): {message}"), hint)
}

fn sanitize_lines(message: &str, hint: &str) -> String {
    let message = sanitize(message);
    if hint.is_empty() {
        message
    } else {
        format!("{message}\nhint: {}", sanitize(hint))
    }
}

fn ended_by(signal: Number, mut crew: Crew, log: &TerminationLog) -> u8 {
    crew.terminate(signal);
    // A second signal has done all it can. Left pending it would end us here, before a word is said.
    while crew.pending_signal().is_some() {}
    drop(crew);
    let exit = signal.exit_code();
    let message = format!("ended by {signal} during the checks");
    complain(&message, "");
    termination::write(log, &termination_text(exit, "signal", &message, ""));
    exit
}

/// Reads the manifest: `--stack`, else the image's own, else the embedded one.
fn load_stack(given: Option<&Path>) -> Result<Loaded, Unread> {
    // A link that leads nowhere or a folder that may not be searched is a mistake to be told, not an absence.
    let absent = || {
        let kind = std::fs::symlink_metadata(DEFAULT_STACK).map_err(|e| e.kind());
        matches!(kind, Err(ErrorKind::NotFound | ErrorKind::NotADirectory))
    };
    let path = match given {
        Some(path) => path,
        None if !absent() => Path::new(DEFAULT_STACK),
        None => {
            let stack = Stack::embedded().map_err(|e| Unread {
                exit: EX_CONFIG,
                message: format!("the embedded manifest {e}"),
                hint: String::new(),
            })?;
            return Ok(Loaded {
                stack,
                source: "embedded".to_string(),
                doubt: None,
            });
        }
    };
    let shown = path.display().to_string();
    // What is judged is the file that is read, whatever links lead to it or are changed meanwhile.
    let (bytes, doubt) = discover::files::open_regular(path)
        .and_then(|file| {
            let (bytes, _) = discover::files::head_of(&file, stack::MAX_BYTES + 1)?;
            Ok((bytes, doubt(&file.metadata()?, &shown)))
        })
        .map_err(|error| {
            let errno = error.raw_os_error().map(Errno::from_raw);
            // What is short is nothing that its author could mend.
            let (exit, hint) = match errno.and_then(Shortage::of) {
                Some(shortage) => (EX_SOFTWARE, shortage.hint()),
                None => (EX_CONFIG, "mount it, or correct --stack or CUDA_ENTRYPOINT_STACK"),
            };
            Unread {
                exit,
                message: format!("cannot read the manifest {shown}: {error}"),
                hint: hint.to_string(),
            }
        })?;
    match Stack::parse_bytes(&bytes) {
        Ok(stack) => Ok(Loaded {
            stack,
            source: shown,
            doubt,
        }),
        Err(error) => Err(Unread {
            exit: EX_CONFIG,
            message: format!("{shown} {error}"),
            hint: error.hint,
        }),
    }
}

/// A manifest says what runs here: its commands, and the variables of the service. One that others may write is no reason
/// to stop a service whose own files mostly lie beside it with the same owner; but it has to be known.
fn doubt(manifest: &std::fs::Metadata, shown: &str) -> Option<String> {
    let us = nix::unistd::geteuid().as_raw();
    discover::files::others_may_write(manifest, us).then(|| {
        format!(
            "the manifest {shown} is owned by uid {}, mode {:o}: users other than uid {us} and root may write it, and \
             with it what is checked and run here (chown root, chmod 644)",
            manifest.uid(),
            manifest.mode() & 0o7777
        )
    })
}

fn stack_show(settings: &Settings, as_json: bool) -> u8 {
    let (path, format) = match config::shown_stack(settings) {
        Ok(shown) => shown,
        Err(error) => {
            complain(&error.to_string(), &error.hint);
            return error.exit_code();
        }
    };
    let loaded = match load_stack(path.as_deref()) {
        Ok(loaded) => loaded,
        Err(unread) => {
            complain(&unread.message, &unread.hint);
            return unread.exit;
        }
    };
    if let Some(doubt) = &loaded.doubt {
        say(&sanitize(doubt));
    }
    let mut stack = loaded.stack;
    let mut source = loaded.source;
    if let Some(setting) = settings.get("archs") {
        match setting.value.to_string_lossy().parse::<ArchList>() {
            Ok(list) => stack.archs = Some(list),
            Err(error) => {
                complain(
                    &format!("{}: {error}", setting.origin),
                    "such as 7.5;8.0;8.6;8.9;9.0",
                );
                return if matches!(setting.origin, cli::Origin::Flag(_)) {
                    EX_USAGE
                } else {
                    EX_CONFIG
                };
            }
        }
        source = format!("{source}, archs from {}", setting.origin);
    }
    if as_json || format == Format::Json {
        match serde_json::to_value(&stack) {
            Ok(value) => print(&format!("{value:#}\n")),
            Err(error) => {
                complain(&format!("cannot write the manifest as JSON: {error}"), "");
                EX_SOFTWARE
            }
        }
    } else {
        print(&stack::table(&stack, &source))
    }
}

fn explain(name: &str) -> u8 {
    match name.parse::<Code>() {
        Ok(code) => print(&check::explain(code)),
        Err(error) => {
            complain(&error.to_string(), "cuda-entrypoint explain lists them");
            EX_USAGE
        }
    }
}

/// Becomes the service without a check: mode `off`.
fn is_this_program(service: &[OsString], environ: &[CString]) -> bool {
    let command = service.first();
    command.is_some_and(|command| launch::is_this_program(command, launch::lookup(environ, "PATH")))
}

fn start_unchecked(service: &[OsString], environ: &[CString], settings: &Settings) -> u8 {
    if service.is_empty() {
        complain(
            "no service command was given",
            "set CMD in the Dockerfile, or name it: docker run IMAGE COMMAND",
        );
        return EX_USAGE;
    }
    say("nothing is checked: mode is off");
    let log = config::termination_log(settings);
    start(service, environ, &log, config::init_or_exec(settings))
}

fn start(service: &[OsString], environ: &[CString], log: &TerminationLog, init: Option<Whom>) -> u8 {
    let command = service.first().map_or(OsStr::new(""), |c| c.as_os_str());
    let launched = launch::resolve(command, launch::lookup(environ, "PATH"))
        .and_then(|program| launch_as(&program, service, environ, init, Set::NONE));
    let error = match launched {
        Ok(exit) => return exit,
        Err(error) => error,
    };
    complain(&error.message, &error.hint);
    termination::write(
        log,
        &termination_text(error.exit_code, "service", &error.message, &error.hint),
    );
    error.exit_code
}

/// Becomes the service, or under `--init` starts it and returns its exit code.
fn launch_as(
    program: &Path,
    service: &[OsString],
    env: &[CString],
    init: Option<Whom>,
    held: Set,
) -> Result<u8, LaunchError> {
    match init {
        Some(whom) => init::run(program, service, env, whom),
        None => Err(launch::exec(program, service, env, held)),
    }
}

/// A command line that makes no sense. Where the mode is `off` or `warn` and the service can be told, it starts even
/// so: the break-glass must not depend on the rest being right.
fn bad_usage(args: &[OsString], environ: &[CString], error: &UsageError) -> u8 {
    let settings = cli::salvage(args, launch::to_os_pairs(environ));
    let log = config::termination_log(&settings);
    start_logging(&settings);
    complain(&error.message, &error.hint);
    let lenient = config::is_off(&settings) || config::is_warn(&settings);
    match args.first().and_then(|a| a.to_str()) {
        Some("run") => {
            let service = args
                .iter()
                .position(|a| a == "--")
                .and_then(|at| args.get(at + 1..));
            if let Some(service) = service.filter(|s| lenient && !s.is_empty()) {
                say("starting the service all the same, unchecked: the mode is not enforce");
                return start(service, environ, &log, config::init_or_exec(&settings));
            }
        }
        // An init container that the break-glass does not open would keep the pod from starting just the same.
        Some("check") if lenient => {
            say("nothing is checked: the mode is not enforce");
            return 0;
        }
        Some("check") => {}
        _ => return EX_USAGE,
    }
    termination::write(
        &log,
        &termination_text(EX_USAGE, "usage", &error.message, &error.hint),
    );
    EX_USAGE
}

fn list_kernels(archs: Option<OsString>, json: bool, paths: Vec<OsString>) -> u8 {
    let list = match archs {
        Some(text) => match text.to_string_lossy().parse::<ArchList>() {
            Ok(list) => Some(list),
            Err(error) => {
                complain(&format!("--archs: {error}"), "such as 7.5;8.0;8.6;8.9;9.0");
                return EX_USAGE;
            }
        },
        None => Stack::embedded().ok().and_then(|s| s.archs),
    };
    let capabilities: Vec<facts::ComputeCapability> = list
        .iter()
        .flat_map(ArchList::iter)
        .map(|a: &arch::Arch| a.capability)
        .collect();
    let paths: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
    let (out, mut err) = (std::io::stdout(), std::io::stderr());
    let watched = !json && colour_of(&err) == Colour::Yes;
    match kernels::run(&paths, &capabilities, json, watched, &mut out.lock(), &mut err) {
        Ok(exit) => exit,
        Err(error) => write_failed(&error),
    }
}

fn install_into(dir: &Path) -> u8 {
    match install::install(dir) {
        Ok(paths) => print(&paths.map(|p| format!("{}\n", p.display())).concat()),
        Err(message) => {
            complain(&message, "name a folder that this user may write to");
            EX_CANTCREAT
        }
    }
}

/// Whether the verdict is the last word of this container, as that of an init container is. A probe and a `check` that
/// somebody has started in there run beside the service, of which a message that says `pass` would hide why it died.
fn is_last_word(config: &Config, plan: Plan, verdict: Verdict) -> bool {
    let is_container = std::process::id() == 1;
    config.termination_log != TerminationLog::Default
        || (!plan.health && (is_container || verdict == Verdict::Fail))
}

fn write_report_file(config: &Config, report: &Report<'_>) {
    let Some(ReportTarget::File(path)) = &config.report else {
        return;
    };
    if let Err(error) = write_bounded(path, json::document(report).as_bytes()) {
        tracing::warn!("cannot write the report to {}: {error}", path.display());
    }
}

/// Writes a file without ever waiting for a reader: what FIFO or full pipe the name leads to does not hold up a start.
fn write_bounded(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)?;
    file.write_all(bytes)
}

/// What does not keep the service from starting. Of an image that is known from a receipt it was said when that was
/// written, and would be said at every start for ever: the number of warnings has to do, and `check` tells.
fn say_warnings(findings: &[Finding], image_is_known: bool) {
    for finding in findings {
        let level = match finding.status {
            Status::Warn if image_is_known && finding.stage == Stage::Image => tracing::Level::DEBUG,
            Status::Warn => tracing::Level::WARN,
            // Nobody knows, which is no warning: none is counted.
            Status::Unknown => tracing::Level::INFO,
            _ => continue,
        };
        let hint = if finding.hint.is_empty() {
            String::new()
        } else {
            format!("; {}", finding.hint)
        };
        let text = sanitize(&format!("{}: {}{hint}", finding.code, headline(finding)));
        let code = finding.code.name();
        match level {
            tracing::Level::DEBUG => tracing::debug!(code, "{text}"),
            tracing::Level::INFO => tracing::info!(code, "{text}"),
            _ => tracing::warn!(code, "{text}"),
        }
    }
}

fn say_success(report: &Report<'_>, service: &str) {
    let verdict = if report.outcome.verdict == Verdict::Warn {
        "warn"
    } else {
        "pass"
    };
    tracing::info!(
        verdict,
        stack = sanitize(report.stack_name),
        "ok: {}",
        human::success(report, service)
    );
}

fn colour_of(stream: &impl IsTerminal) -> Colour {
    let variable = |name| std::env::var_os(name);
    Colour::for_terminal(
        stream.is_terminal(),
        variable("NO_COLOR").as_deref(),
        variable("TERM").as_deref(),
    )
}

/// Whether somebody is at a terminal, to be told what takes long.
fn is_watched(config: &Config) -> bool {
    config.format == Format::Human
        && config.log >= tracing::level_filters::LevelFilter::INFO
        && colour_of(&std::io::stderr()) == Colour::Yes
}

/// Writes to stdout; 0, or the exit code of a failed write. A reader that went away (`| head`) is no failure.
fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) => write_failed(&error),
    }
}

fn write_failed(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe {
        return 0;
    }
    complain(&format!("cannot write to stdout: {error}"), "");
    EX_IOERR
}

fn start_logging(settings: &Settings) {
    let (level, format) = config::logging(settings);
    logging::start(level, format);
}

/// An error on stderr, with the next step.
fn complain(message: &str, hint: &str) {
    if logging::is_json() {
        tracing::error!(hint = sanitize(hint), "{}", sanitize(message));
        return;
    }
    let mut text = format!("cuda-entrypoint: {}\n", sanitize(message));
    if !hint.is_empty() {
        text.push_str(&format!("  hint: {}\n", sanitize(hint)));
    }
    to_stderr(&text);
}

/// What is done in spite of an error or a mode that looks at nothing.
fn say(message: &str) {
    if logging::is_json() {
        tracing::warn!("{message}");
        return;
    }
    to_stderr(&format!("cuda-entrypoint: {message}\n"));
}

/// One write; a stderr that is closed changes nothing.
fn to_stderr(text: &str) {
    progress::clear();
    let _ = std::io::stderr().write_all(text.as_bytes());
}
