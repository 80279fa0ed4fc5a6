//! Becoming the service, also without checks.

use std::ffi::{CString, OsStr, OsString};
use std::path::Path;

use cuda_entrypoint::cli;
use cuda_entrypoint::cli::config::{self, TerminationLog};
use cuda_entrypoint::cli::{Settings, UsageError};
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::process::init::SignalTarget;
use cuda_entrypoint::process::launch::LaunchError;
use cuda_entrypoint::process::{init, launch};
use cuda_entrypoint::report::termination;

use super::first;
use super::words::{complain, say, start_logging, termination_text};

fn is_own(word: &OsStr, environ: &[CString]) -> bool {
    launch::is_this_program(word, launch::lookup(environ, "PATH"))
}

/// Where a command of this very program begins in the service's words: at their beginning, or behind another program.
pub fn own_command(service: &[OsString], environ: &[CString]) -> Option<usize> {
    match service.first() {
        Some(first) if is_own(first, environ) => Some(0),
        _ => own_command_behind(service, environ),
    }
}

/// Behind the program of an ENTRYPOINT such as `run -- vllm serve`, to which Docker appends `cuda-entrypoint check`. No file
/// is looked at unless the words are a name and a command of ours.
fn own_command_behind(service: &[OsString], environ: &[CString]) -> Option<usize> {
    let pairs = service.iter().zip(service.iter().skip(1)).enumerate().skip(1);
    let mut named = pairs.filter(|(_, (word, next))| {
        Path::new(word).file_name() == Some(OsStr::new(env!("CARGO_BIN_NAME")))
            && cli::commands::is_command(next)
    });
    let (at, (word, _)) = named.next()?;
    is_own(word, environ).then_some(at)
}

/// Becomes the service without a check: mode `off`.
pub fn start_unchecked(service: &[OsString], environ: &[CString], settings: &Settings) -> u8 {
    if service.is_empty() {
        let (message, hint) = first::without_service();
        complain(message, hint);
        return ExitCode::Usage.code();
    }
    say("nothing is checked: mode is off");
    let service = service
        .get(own_command_behind(service, environ).unwrap_or(0)..)
        .unwrap_or(service);
    let log = config::termination_log(settings);
    start(service, environ, &log, config::init_or_exec(settings))
}

pub fn start(
    service: &[OsString],
    environ: &[CString],
    log: &TerminationLog,
    init: Option<SignalTarget>,
) -> u8 {
    let command = service.first().map_or(OsStr::new(""), |c| c.as_os_str());
    launch::resolve(command, launch::lookup(environ, "PATH"))
        .and_then(|program| launch_as(&program, service, environ, init, true))
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

/// Becomes the service, or under `--init` starts it and returns its exit code. Where it is to start in any case and there
/// is no process for it, this one becomes it.
pub fn launch_as(
    program: &Path,
    service: &[OsString],
    env: &[CString],
    init: Option<SignalTarget>,
    in_any_case: bool,
) -> Result<u8, LaunchError> {
    if let Some(whom) = init {
        match init::run(program, service, env, whom) {
            Err(error) if in_any_case && error.is_no_process() => say(&format!(
                "{}: the service takes the place of this process, without --init ({})",
                error.message, error.hint
            )),
            other => return other,
        }
    }
    Err(launch::exec(program, service, env))
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
        _ => return ExitCode::Usage.code(),
    }
    termination::write(
        &log,
        &termination_text(ExitCode::Usage.code(), "usage", &error.message, &error.hint),
    );
    ExitCode::Usage.code()
}
