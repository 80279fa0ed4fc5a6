//! What each command does, and which exit code comes of it.

use std::ffi::{CString, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cuda_entrypoint::arch::ArchList;
use cuda_entrypoint::check::Code;
use cuda_entrypoint::cli::config::{Format, TerminationLog};
use cuda_entrypoint::cli::{Command, Invocation, SchemaOf, Settings, StageChoice, config, help};
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::helper::install;
use cuda_entrypoint::process::supervisor::{StartError, Supervisor};
use cuda_entrypoint::report::human::Colour;
use cuda_entrypoint::report::{self, json, termination};
use cuda_entrypoint::stack::Stack;
use cuda_entrypoint::{arch, facts, kernels, stack};

use self::manifest::stack_show;
use self::refusal::Refusal;
use self::session::Session;
use self::start::{own_command, start, start_unchecked};
use self::words::{colour_of, complain, open_stdout, print, start_logging, write_failed};

mod capture;
mod check;
mod first;
mod manifest;
mod refusal;
mod run;
mod session;
pub mod start;
pub mod words;

/// The supervisor, or why there is none; `None` where the command starts no children.
pub type Assembled = Option<Result<Supervisor, StartError>>;

/// Does what the command line says; returns the exit code.
pub fn dispatch(invocation: Invocation, environ: &[CString], supervisor: Assembled, started: Instant) -> u8 {
    let Invocation {
        command,
        settings,
        near_misses,
    } = invocation;
    let session = Session {
        settings: &settings,
        near_misses: &near_misses,
        environ,
        service: &[],
        started,
    };
    match command {
        Command::Help(None) => print(&help::overview()),
        Command::Help(Some(name)) => print(&help::command(name)),
        Command::Version => print(&format!("cuda-entrypoint {}\n", cuda_entrypoint::version::full())),
        Command::Explain(None) => print(&help::findings()),
        Command::Explain(Some(name)) => explain(name.trim()),
        Command::Schema(SchemaOf::Stack) => print(&stack::schema()),
        Command::Schema(SchemaOf::Report) => print(&json::schema()),
        Command::Schema(SchemaOf::Kernels) => print(&report::kernels::schema()),
        Command::StackShow => stack_show(&settings),
        Command::StackCapture { name, service } => {
            let session = Session {
                service: &service,
                ..session
            };
            match supervisor {
                Some(Ok(supervisor)) => session.capture(name.as_deref(), supervisor),
                other => {
                    let refusal = Refusal::without_supervisor(other.and_then(Result::err));
                    complain(&refusal.message, &refusal.hint);
                    refusal.exit
                }
            }
        }
        Command::Kernels { archs, paths } => list_kernels(&settings, archs, paths),
        Command::Install(dir) => install_into(Path::new(&dir)),
        Command::Run { service } if config::is_off(&settings) => {
            drop(supervisor);
            start_logging(&settings);
            start_unchecked(&service, environ, &settings)
        }
        // A command of this very program needs no checks before it.
        Command::Run { mut service } if own_command(&service, environ).is_some() => {
            drop(supervisor);
            start_logging(&settings);
            service.drain(..own_command(&service, environ).unwrap_or(0));
            start(&service, environ, &config::termination_log(&settings), None)
        }
        Command::Check { stage, .. } if config::is_off(&settings) => unchecked(stage, &settings),
        Command::Run { service } => {
            let session = Session {
                service: &service,
                ..session
            };
            match supervisor {
                Some(Ok(supervisor)) => session.run(supervisor),
                other => session.run_without_supervisor(other.and_then(Result::err)),
            }
        }
        Command::Check { stage, service } => {
            let session = Session {
                service: &service,
                ..session
            };
            match supervisor {
                Some(Ok(supervisor)) => session.check(stage, supervisor),
                other => session.check_without_supervisor(other.and_then(Result::err)),
            }
        }
    }
}

fn explain(name: &str) -> u8 {
    match name.parse::<Code>() {
        Ok(code) => print(&cuda_entrypoint::check::explain(code)),
        Err(error) => match name.parse().ok().and_then(ExitCode::of) {
            Some(exit) => print(&help::findings_of(exit)),
            None => {
                complain(&error.to_string(), "cuda-entrypoint explain lists them");
                ExitCode::Usage.code()
            }
        },
    }
}

/// `check` under mode `off`, which looks at nothing and must not be taken for a check that passed.
fn unchecked(stage: StageChoice, settings: &Settings) -> u8 {
    start_logging(settings);
    let origin = config::origin_of_mode(settings).map_or_else(String::new, ToString::to_string);
    let message = format!("nothing is checked: mode is off ({origin})");
    complain(
        &message,
        "add --mode enforce, or --mode warn to exit with 0 in any case",
    );
    let log = config::termination_log(settings);
    if stage != StageChoice::Health && (log != TerminationLog::Default || std::process::id() == 1) {
        termination::write(&log, &message);
    }
    0
}

fn list_kernels(settings: &Settings, archs: Option<ArchList>, paths: Vec<OsString>) -> u8 {
    let json = match config::format(settings) {
        Ok(format) => format == Format::Json,
        Err(error) => {
            complain(&error.to_string(), &error.hint);
            return error.exit_code();
        }
    };
    let list = archs.or_else(|| Stack::embedded().ok().and_then(|s| s.archs));
    let capabilities: Vec<facts::ComputeCapability> = list
        .iter()
        .flat_map(ArchList::iter)
        .map(|a: &arch::Arch| a.capability)
        .collect();
    let paths: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
    // What is damaged is the image's fault; what is not there was not meant.
    let absent =
        |error: std::io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    if let Some(path) = paths.iter().find(|path| path.metadata().is_err_and(absent)) {
        complain(
            &format!("{} does not exist", path.display()),
            "name files, or folders to search for shared libraries",
        );
        return ExitCode::Usage.code();
    }
    let mut err = std::io::stderr();
    let watched = !json && colour_of(&err) == Colour::Yes;
    let listed = open_stdout()
        .and_then(|mut out| kernels::run(&paths, &capabilities, json, watched, &mut out, &mut err));
    match listed {
        Ok(exit) => exit,
        Err(error) => write_failed(&error),
    }
}

fn install_into(dir: &Path) -> u8 {
    match install::install(dir) {
        Ok(paths) => print(&paths.map(|p| format!("{}\n", p.display())).concat()),
        Err((message, hint)) => {
            complain(&message, hint);
            ExitCode::CantCreate.code()
        }
    }
}
