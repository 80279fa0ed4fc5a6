//! `run`: the checks, then the service in the place of this process.

use std::ffi::CString;

use cuda_entrypoint::check::Verdict;
use cuda_entrypoint::cli::config::{
    self, Config, Format, Mode, ReportTarget, SmokeChoice, SmokeMode, TerminationLog,
};
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::pipeline::{Plan, Task};
use cuda_entrypoint::process::init;
use cuda_entrypoint::process::init::SignalTarget;
use cuda_entrypoint::process::supervisor::{StartError, Supervisor};
use cuda_entrypoint::receipt::Part;
use cuda_entrypoint::report::{Report, human, of_another_image, termination};
use cuda_entrypoint::smoke::handoff::{self, HandOff};
use cuda_entrypoint::stack::Stack;
use cuda_entrypoint::{pipeline, smoke};

use super::first;
use super::manifest::load_stack;
use super::refusal::Refusal;
use super::session::Session;
use super::start::{cannot_launch, launch_as, start};
use super::words::{
    colour_of, complain, ended_by, fitted, is_watched, say, say_success, say_warnings, start_logging,
    to_stderr, write_report_file,
};

/// Whether there are kernels and a GPU for them, and nothing asks to run any.
fn is_unproven(config: &Config, stack: &Stack, gathered: &pipeline::Gathered) -> bool {
    let mut kernels = gathered.facts.image.kernels.iter();
    config.smoke == SmokeChoice::default()
        && stack.smoke.is_empty()
        && gathered.facts.device.has_usable()
        && kernels.any(|module| !module.vendor && module.with_kernels > 0)
}

/// Nothing is left of its children.
fn dismissed(mut supervisor: Supervisor) -> Supervisor {
    supervisor.shut_down();
    supervisor
}

impl Session<'_> {
    pub fn run(&self, mut supervisor: Supervisor) -> u8 {
        let config = match self.configure() {
            Ok(config) => config,
            Err(error) => {
                let log = config::termination_log(self.settings);
                return self.refuse(&error.into(), &log, supervisor);
            }
        };
        if self.service.is_empty() {
            let (message, hint) = first::without_service();
            let refusal = Refusal {
                exit: ExitCode::Usage.code(),
                kind: "usage",
                message: message.to_string(),
                hint: hint.to_string(),
            };
            return self.refuse(&refusal, &config.termination_log, supervisor);
        }
        let to_stdout = config.report.as_ref().is_some_and(ReportTarget::is_stdout);
        if let Some(given) = self.settings.report.last().filter(|_| to_stdout) {
            let exit = given.origin.exit_code();
            let refusal = Refusal {
                exit,
                kind: if exit == ExitCode::Usage.code() {
                    "usage"
                } else {
                    "setting"
                },
                message: format!(
                    "invalid value `{}` for {}: under run, stdout belongs to the service",
                    given.value.to_string_lossy(),
                    given.origin
                ),
                hint: "name a file, or use check".to_string(),
            };
            return self.refuse(&refusal, &config.termination_log, supervisor);
        }
        let loaded = match load_stack(&config.stack) {
            Ok(loaded) => loaded,
            Err(refusal) => return self.refuse(&refusal, &config.termination_log, supervisor),
        };
        let env = self.service_environment(&loaded);
        // A typo is not worth a minute of checks. The manifest may set PATH, so it is looked for as the service would.
        let program = match self.resolve(&env) {
            Ok(program) => program,
            Err(error) => return cannot_launch(&error, &config.termination_log),
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
            program: Some(&program),
            env: &env,
            plan,
            smoke: self.smoke_mode(&config, &loaded.stack, &env),
            watched: is_watched(&config),
        };
        let mut gathered = match pipeline::gather(&task, &mut supervisor) {
            Ok(gathered) => gathered,
            Err(signal) => return ended_by(signal, supervisor, &config.termination_log),
        };
        let waiting = gathered.service.take();
        let clean = supervisor.shut_down_except(waiting.as_ref().map(HandOff::job));
        if let Some(signal) = supervisor.pending_signal() {
            return ended_by(signal, supervisor, &config.termination_log);
        }
        // Where no service waits, only words remain.
        let mut supervisor = waiting.is_some().then_some(supervisor);
        let report = self.report(&task, &loaded, &gathered);
        write_report_file(&config, &report);
        let service = program.display().to_string();
        let failed = report.outcome.verdict == Verdict::Fail;
        if failed {
            let ends = config.mode == Mode::Enforce;
            // Nobody waits for a word to go on while a reader of ours stands still.
            let supervisor = supervisor.take_if(|_| ends);
            drop(supervisor.map(dismissed));
            self.say_failure(&config, &report, &service);
            if ends {
                termination::write(&config.termination_log, &termination::message(&report));
                return report.outcome.exit_code;
            }
        } else {
            let known = gathered.receipt.as_ref().is_some_and(|r| r.has_used(Part::Image));
            say_warnings(&gathered.findings, known);
            if is_unproven(&config, &loaded.stack, &gathered) {
                tracing::info!(
                    "the manifest has no smoke: no kernel was run. --smoke native (CUDA_ENTRYPOINT_SMOKE=native) lets each GPU compute and load the image's kernels, without Python"
                );
            }
            say_success(&report, &service);
        }
        if !clean {
            tracing::warn!("a helper sits in an uninterruptible driver call and was left behind");
        }
        // Beside the service they would be kept for as long as it runs.
        drop(report);
        drop(gathered);
        if let (Some(waiting), Some(supervisor)) = (waiting, supervisor) {
            if let Some((service, strangers)) = supervisor.hand_over(waiting.job()) {
                let whom = config.init.unwrap_or(SignalTarget::Service);
                return init::adopt(service, strangers, whom, || waiting.go_on());
            }
            tracing::warn!("the service's process has ended since it proved the GPU, and is started again");
        }
        // What a hand-off implies does not depend on whether there was one.
        let handed = (config.smoke.mode == SmokeMode::Handoff).then_some(SignalTarget::Service);
        let in_any_case = config.mode != Mode::Enforce;
        let init = config.init.or(handed);
        if init.is_none() {
            first::warn_of_lost_signals(&program, self.service);
        }
        match launch_as(&program, self.service, &env, init, in_any_case) {
            Ok(exit) => exit,
            Err(error) => cannot_launch(&error, &config.termination_log),
        }
    }

    /// How the smoke can be run for this service.
    fn smoke_mode(&self, config: &Config, stack: &Stack, env: &[CString]) -> SmokeMode {
        // Commands of the manifest's own run by themselves in any case.
        let mode = config.smoke.mode;
        if mode != SmokeMode::Handoff || smoke::builtins(stack).is_empty() {
            return match mode {
                SmokeMode::Off | SmokeMode::Native => mode,
                _ => SmokeMode::Separate,
            };
        }
        match pipeline::handoff_hindrance(self.service, env) {
            None => SmokeMode::Handoff,
            Some(why) => {
                handoff::say_why_not(&why);
                SmokeMode::Separate
            }
        }
    }

    /// Too few descriptors, or a seccomp profile without signalfd(2).
    pub fn run_without_supervisor(&self, error: Option<StartError>) -> u8 {
        start_logging(self.settings);
        let log = config::termination_log(self.settings);
        self.refuse(&Refusal::without_supervisor(error), &log, None)
    }

    pub fn say_failure(&self, config: &Config, report: &Report<'_>, service: &str) {
        if config.format == Format::Human {
            let stderr = std::io::stderr();
            to_stderr(&fitted(
                &human::failure(report, service, colour_of(&stderr)),
                &stderr,
            ));
            return;
        }
        if let Some(line) = of_another_image(report) {
            tracing::warn!("{line}");
        }
        for finding in report.findings.iter().filter(|f| f.failed()) {
            tracing::error!(
                code = finding.code.name(),
                stage = finding.stage.name(),
                subject = finding.subject,
                observed = finding.observed,
                required = finding.required,
                hint = finding.hint,
                "{}",
                finding.message
            );
        }
        say_warnings(report.findings, false);
        let code = report.outcome.decisive.map_or("", |f| f.code.name());
        let exit_code = report.outcome.exit_code;
        if config.mode == Mode::Warn {
            tracing::error!(
                verdict = "fail",
                code,
                exit_code,
                service,
                "starting the service anyway (mode warn)"
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
    pub fn refuse(
        &self,
        refusal: &Refusal,
        log: &TerminationLog,
        supervisor: impl Into<Option<Supervisor>>,
    ) -> u8 {
        drop(supervisor.into());
        complain(&refusal.message, &refusal.hint);
        if config::is_warn(self.settings) && !self.service.is_empty() {
            say("starting the service all the same, unchecked: mode is warn");
            return start(
                self.service,
                self.environ,
                log,
                config::init_or_exec(self.settings),
            );
        }
        termination::write(log, &refusal.text());
        refusal.exit
    }
}
