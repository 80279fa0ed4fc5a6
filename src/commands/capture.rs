//! `stack capture`: a manifest of what is here.

use std::ffi::{CString, OsString};

use cuda_entrypoint::check::Status;
use cuda_entrypoint::config::{Config, SmokeMode};
use cuda_entrypoint::crew::Crew;
use cuda_entrypoint::pipeline::{Plan, Task};
use cuda_entrypoint::stack::Stack;
use cuda_entrypoint::{capture, launch, pipeline};

use super::exit::{EX_IMAGE, EX_SOFTWARE};
use super::session::Session;
use super::words::{complain, is_watched, print, say};

impl Session<'_> {
    /// Prints a manifest of what is here, and tells what fails here even under it.
    pub fn capture(&self, mut crew: Crew) -> u8 {
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
    pub fn gather_image(
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
}
