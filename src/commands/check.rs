//! `check`: the checks, and their verdict as an exit code.

use cuda_entrypoint::check::Verdict;
use cuda_entrypoint::cli::StageChoice;
use cuda_entrypoint::cli::config::{self, Config, Format, Mode, ReportTarget, SmokeMode, TerminationLog};
use cuda_entrypoint::pipeline;
use cuda_entrypoint::pipeline::{Plan, Task};
use cuda_entrypoint::process::supervisor::{StartError, Supervisor};
use cuda_entrypoint::report::{human, json, termination};

use super::manifest::load_stack;
use super::refusal::Refusal;
use super::session::Session;
use super::words::{
    colour_of, complain, ended_by, fitted, is_watched, print, start_logging, warn, write_report_file,
};

/// Whether the verdict is the last word of this container, as that of an init container is. A probe and a `check` that
/// somebody has started in there run beside the service, of which a message that says `pass` would hide why it died.
pub fn is_last_word(config: &Config, plan: Plan, verdict: Verdict) -> bool {
    let is_container = std::process::id() == 1;
    config.termination_log != TerminationLog::Default
        || (!plan.health && (is_container || verdict == Verdict::Fail))
}

impl Session<'_> {
    pub fn check(&self, stage: StageChoice, mut supervisor: Supervisor) -> u8 {
        let config = match self.configure() {
            Ok(config) => config,
            Err(error) => {
                let log = config::termination_log(self.settings);
                return self.refuse_check(&error.into(), &log, supervisor);
            }
        };
        let loaded = match load_stack(&config.stack) {
            Ok(loaded) => loaded,
            Err(refusal) => return self.refuse_check(&refusal, &config.termination_log, supervisor),
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
        if let (false, Err(error)) = (self.service.is_empty(), self.resolve(&env)) {
            // A volume may bring it.
            let message = format!(
                "{}: run would end with exit code {}",
                error.message, error.exit_code
            );
            warn(&message, &error.hint);
        }
        let archs = config.archs.as_ref().or(loaded.stack.archs.as_ref());
        let task = Task {
            config: &config,
            stack: &loaded.stack,
            archs,
            service: self.service,
            program: None,
            env: &env,
            plan,
            // There is no service to hand anything to.
            smoke: match config.smoke.mode {
                SmokeMode::Handoff => SmokeMode::Separate,
                other => other,
            },
            watched: is_watched(&config),
        };
        let gathered = match pipeline::gather(&task, &mut supervisor) {
            Ok(gathered) => gathered,
            Err(signal) => return ended_by(signal, supervisor, &config.termination_log),
        };
        supervisor.shut_down();
        if let Some(signal) = supervisor.pending_signal() {
            return ended_by(signal, supervisor, &config.termination_log);
        }
        drop(supervisor);
        let report = self.report(&task, &loaded, &gathered);
        write_report_file(&config, &report);
        let text = if config.format == Format::Json || config.report == Some(ReportTarget::Stdout) {
            json::document(&report)
        } else {
            let stdout = std::io::stdout();
            fitted(&human::table(&report, config.quiet, colour_of(&stdout)), &stdout)
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

    pub fn check_without_supervisor(&self, error: Option<StartError>) -> u8 {
        start_logging(self.settings);
        let log = config::termination_log(self.settings);
        self.refuse_check(&Refusal::without_supervisor(error), &log, None)
    }

    /// What keeps the checks from being made at all. Under `warn` it is no failure.
    pub fn refuse_check(
        &self,
        refusal: &Refusal,
        log: &TerminationLog,
        supervisor: impl Into<Option<Supervisor>>,
    ) -> u8 {
        drop(supervisor.into());
        complain(&refusal.message, &refusal.hint);
        termination::write(log, &refusal.text());
        if config::is_warn(self.settings) {
            0
        } else {
            refusal.exit
        }
    }
}
