//! `run`: the checks, then the service in the place of this process.

use cuda_entrypoint::check::{Status, Verdict};
use cuda_entrypoint::config::{Config, Format, Mode, ReportTarget, TerminationLog};
use cuda_entrypoint::crew::{Crew, StartError};
use cuda_entrypoint::pipeline::{Plan, Task};
use cuda_entrypoint::receipt::Part;
use cuda_entrypoint::report::{Report, human, sanitize, termination};
use cuda_entrypoint::signal::Set;
use cuda_entrypoint::smoke::handoff::Resumed;
use cuda_entrypoint::{config, pipeline};

use super::exit::{EX_CONFIG, EX_USAGE};
use super::manifest::load_stack;
use super::refusal::Refusal;
use super::session::Session;
use super::start::{cannot_launch, launch_as, start};
use super::words::{
    colour_of, complain, ended_by, is_watched, say, say_success, say_warnings, start_logging, to_stderr,
    write_report_file,
};

impl Session<'_> {
    pub fn run(&self, mut crew: Crew) -> u8 {
        let config = match self.configure() {
            Ok(config) => config,
            Err(error) => {
                let log = config::termination_log(self.settings);
                return self.refuse(&error.into(), &log, crew);
            }
        };
        if self.service.is_empty() {
            let hint = "set CMD in the Dockerfile, `args:` in the pod, or name it: docker run IMAGE COMMAND";
            let refusal = Refusal {
                exit: EX_USAGE,
                kind: "usage",
                message: "no service command was given".to_string(),
                hint: hint.to_string(),
            };
            return self.refuse(&refusal, &config.termination_log, crew);
        }
        if let (Some(ReportTarget::Stdout), Some(given)) = (&config.report, self.settings.get("report")) {
            let exit = given.origin.exit_code();
            let refusal = Refusal {
                exit,
                kind: if exit == EX_USAGE { "usage" } else { "setting" },
                message: format!("{}: `-`: under run, stdout belongs to the service", given.origin),
                hint: "name a file, or use check".to_string(),
            };
            return self.refuse(&refusal, &config.termination_log, crew);
        }
        let loaded = match load_stack(config.stack.as_deref()) {
            Ok(loaded) => loaded,
            Err(refusal) => return self.refuse(&refusal, &config.termination_log, crew),
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
                    let refusal = Refusal {
                        exit: EX_CONFIG,
                        kind: "setting",
                        message,
                        hint: "this variable is set by cuda-entrypoint alone: unset it".to_string(),
                    };
                    return self.refuse(&refusal, &config.termination_log, crew);
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
                Err(error) => cannot_launch(&error, &config.termination_log),
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
            Err(error) => cannot_launch(&error, &config.termination_log),
        }
    }

    /// Too few descriptors, or a seccomp profile without signalfd(2).
    pub fn run_without_crew(&self, error: Option<StartError>) -> u8 {
        start_logging(self.settings);
        let log = config::termination_log(self.settings);
        self.refuse(&Refusal::without_crew(error), &log, None)
    }

    pub fn say_failure(&self, config: &Config, report: &Report<'_>, service: &str) {
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
    pub fn refuse(&self, refusal: &Refusal, log: &TerminationLog, crew: impl Into<Option<Crew>>) -> u8 {
        drop(crew.into());
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
