//! One `run`, `check` or `stack capture`: what it was given, and what all of them do with it.

use std::ffi::{CString, OsStr, OsString};
use std::path::PathBuf;
use std::time::Instant;

use cuda_entrypoint::check::Outcome;
use cuda_entrypoint::cli::Settings;
use cuda_entrypoint::cli::config::{self, Config};
use cuda_entrypoint::pipeline;
use cuda_entrypoint::pipeline::Task;
use cuda_entrypoint::process::launch;
use cuda_entrypoint::process::launch::LaunchError;
use cuda_entrypoint::report::Report;

use super::manifest::Loaded;
use super::words::start_logging;

/// One `run` or `check`.
pub struct Session<'a> {
    pub settings: &'a Settings,
    pub near_misses: &'a [(String, String)],
    pub environ: &'a [CString],
    pub service: &'a [OsString],
    pub started: Instant,
}

impl Session<'_> {
    /// Settings, logging, and the warnings about unknown variables.
    pub fn configure(&self) -> Result<Config, config::SettingError> {
        let config = Config::from_settings(self.settings);
        start_logging(self.settings);
        for (name, meant) in self.near_misses {
            tracing::warn!("unknown variable {name} has no effect; did you mean {meant}?");
        }
        config
    }

    pub fn service_environment(&self, loaded: &Loaded) -> Vec<CString> {
        if let Some(doubt) = &loaded.doubt {
            tracing::warn!("{doubt}");
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

    pub fn resolve(&self, env: &[CString]) -> Result<PathBuf, LaunchError> {
        let command = self.service.first().map_or(OsStr::new(""), |c| c.as_os_str());
        launch::resolve(command, launch::lookup(env, "PATH"))
    }

    pub fn report<'r>(
        &self,
        task: &Task<'r>,
        loaded: &'r Loaded,
        gathered: &'r pipeline::Gathered,
    ) -> Report<'r> {
        let mut timing = gathered.timing.clone();
        timing.push(("total", self.started.elapsed()));
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
}
