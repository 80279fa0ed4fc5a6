//! `stack capture`: a manifest of what is here.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};

use cuda_entrypoint::check::{Code, Finding, Findings, Outcome};
use cuda_entrypoint::cli::config::{Config, SmokeMode};
use cuda_entrypoint::discover::{imports, named_libraries};
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::facts::{Distribution, Facts};
use cuda_entrypoint::pipeline::{Gathered, Plan, Task};
use cuda_entrypoint::process::launch;
use cuda_entrypoint::process::supervisor::Supervisor;
use cuda_entrypoint::stack::Stack;
use cuda_entrypoint::{capture, order, pipeline};

use super::session::Session;
use super::words::{complain, is_watched, print, say, warn};

/// Findings that keep an image from being read. A manifest of the rest would ask for less than is there.
const UNREAD: [Code; 5] = [
    Code::StorageFault,
    Code::FileUnreadable,
    Code::HelperCrashed,
    Code::HelperTimeout,
    Code::LoaderMissing,
];

impl Session<'_> {
    /// Prints a manifest of what is here, and reports what fails here even under it.
    pub fn capture(&self, name: Option<&str>, mut supervisor: Supervisor) -> u8 {
        let written = self.captured(name, &mut supervisor);
        supervisor.shut_down();
        match written {
            Ok((document, failures)) => match print(&document) {
                0 => Outcome::of(&failures).exit_code,
                exit => exit,
            },
            Err(exit) => exit,
        }
    }

    /// The manifest and what fails under it; what else there is to say has been said.
    fn captured(
        &self,
        name: Option<&str>,
        supervisor: &mut Supervisor,
    ) -> Result<(String, Vec<Finding>), u8> {
        // What is captured is what is there, not what was.
        let config = match self.configure() {
            Ok(config) => Config {
                receipt: None,
                ..config
            },
            Err(error) => {
                complain(&error.to_string(), &error.hint);
                return Err(error.exit_code());
            }
        };
        let mut probe = capture::probe().map_err(|error| {
            complain(&format!("the probing manifest {error}"), &error.hint);
            ExitCode::Software.code()
        })?;
        probe.libraries =
            named_libraries::of_service(self.service, &launch::to_os_pairs(self.environ).collect());
        let found = self.read(&config, &probe, self.environ, supervisor)?;
        let variables = variables(self.environ);
        let given = capture::Given {
            name: name.unwrap_or(capture::NAME),
            variables: &variables,
            imports: &|dist| import_names(&found.facts, dist),
        };
        let mut captured = capture::manifest(&found.facts, &given).map_err(|(message, hint)| {
            complain(&message, &hint);
            ExitCode::Image.code()
        })?;
        // The very check that the manifest is for.
        let (env, _) = launch::environment(self.environ, &captured.stack.env);
        let checked = self.read(&config, &captured.stack, &env, supervisor)?;
        let failures =
            capture::contradictions(&mut captured, &found.findings, &config.overrides, &checked.facts);
        for note in captured.notes() {
            say(&format!("note: {note}"));
        }
        for finding in &failures {
            complain(
                &format!("{}: {}", finding.code, finding.message),
                &match capture::exception(finding, &checked.facts) {
                    // Some hints name it themselves.
                    Some(entry) if !finding.hint.contains("\"accept\": ") => format!(
                        "{}. Or, if it works as it is, accept it in the manifest: {entry}",
                        finding.hint.trim_end_matches('.'),
                    ),
                    _ => finding.hint.clone(),
                },
            );
        }
        // A check shows them too, but nobody runs one at once: a package that falls back to the CPU is no more than that.
        let warnings = capture::warnings(&captured, &config.overrides, &checked.facts);
        for finding in warnings.iter().filter(|warning| !failures.contains(warning)) {
            warn(&format!("{}: {}", finding.code, finding.message), &finding.hint);
        }
        if !failures.is_empty() {
            say("`check --stage image` fails here under the manifest below, for the reasons above");
        }
        let document = captured.document().map_err(|error| {
            complain(&format!("cannot write the manifest as JSON: {error}"), "");
            ExitCode::Software.code()
        })?;
        Ok((document, failures))
    }

    /// The image stage with `stack`; the exit code where it could not read the image.
    fn read(
        &self,
        config: &Config,
        stack: &Stack,
        env: &[CString],
        supervisor: &mut Supervisor,
    ) -> Result<Gathered, u8> {
        let gathered = self.gather_image(config, stack, env, supervisor)?;
        let unread: Findings = gathered.findings.of(&UNREAD);
        for finding in unread.failures() {
            complain(&format!("{}: {}", finding.code, finding.message), &finding.hint);
        }
        match unread.failed() {
            true => {
                say("no manifest is written, since the image could not be read");
                Err(Outcome::of(&unread).exit_code)
            }
            false => Ok(gathered),
        }
    }

    /// The image stage with `stack`; the exit code where a signal ended it. The termination log is a verdict's, and
    /// nothing here is one.
    pub fn gather_image(
        &self,
        config: &Config,
        stack: &Stack,
        env: &[CString],
        supervisor: &mut Supervisor,
    ) -> Result<Gathered, u8> {
        let task = Task {
            config,
            stack,
            archs: stack.archs.as_ref(),
            service: self.service,
            program: None,
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
        pipeline::gather(&task, supervisor).map_err(|signal| {
            supervisor.terminate(signal);
            signal.exit_code()
        })
    }
}

fn variables(environ: &[CString]) -> BTreeMap<String, String> {
    let text = |s: &OsString| s.to_str().map(str::to_string);
    let pairs = launch::to_os_pairs(environ);
    order::map(pairs.filter_map(|(name, value)| Some((text(&name)?, text(&value)?))))
}

fn import_names(facts: &Facts, dist: &Distribution) -> Vec<String> {
    let modules = facts.image.kernels.iter();
    let own = modules.filter(|module| module.package.as_ref() == Some(&dist.name) && module.with_kernels > 0);
    let paths: Vec<&str> = own.map(|module| module.path.as_str()).collect();
    imports::of(dist, &paths)
}
