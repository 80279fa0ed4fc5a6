//! Becoming the service, also without checks.

use std::ffi::{CString, OsStr, OsString};
use std::path::Path;

use cuda_entrypoint::cli::{Settings, UsageError};
use cuda_entrypoint::config::TerminationLog;
use cuda_entrypoint::init::Whom;
use cuda_entrypoint::launch::LaunchError;
use cuda_entrypoint::report::termination;
use cuda_entrypoint::signal::Set;
use cuda_entrypoint::{cli, config, init, launch};

use super::exit::EX_USAGE;
use super::words::{complain, say, start_logging, termination_text};

/// Whether the service is this very program.
pub fn is_this_program(service: &[OsString], environ: &[CString]) -> bool {
    let command = service.first();
    command.is_some_and(|command| launch::is_this_program(command, launch::lookup(environ, "PATH")))
}

/// Becomes the service without a check: mode `off`.
pub fn start_unchecked(service: &[OsString], environ: &[CString], settings: &Settings) -> u8 {
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

pub fn start(service: &[OsString], environ: &[CString], log: &TerminationLog, init: Option<Whom>) -> u8 {
    let command = service.first().map_or(OsStr::new(""), |c| c.as_os_str());
    launch::resolve(command, launch::lookup(environ, "PATH"))
        .and_then(|program| launch_as(&program, service, environ, init, Set::NONE))
        .unwrap_or_else(|error| cannot_launch(&error, log))
}

/// A service that cannot be started: says so, and returns 126 or 127.
pub fn cannot_launch(error: &LaunchError, log: &TerminationLog) -> u8 {
    complain(&error.message, &error.hint);
    termination::write(
        log,
        &termination_text(error.exit_code, "service", &error.message, &error.hint),
    );
    error.exit_code
}

/// Becomes the service, or under `--init` starts it and returns its exit code.
pub fn launch_as(
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
pub fn bad_usage(args: &[OsString], environ: &[CString], error: &UsageError) -> u8 {
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
