//! What each command does, and which exit code comes of it.

use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cuda_entrypoint::arch::ArchList;
use cuda_entrypoint::check::Code;
use cuda_entrypoint::cli::{Command, Invocation, SchemaOf, config, help};
use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::helper::install;
use cuda_entrypoint::process::supervisor::{StartError, Supervisor};
use cuda_entrypoint::report::human::Colour;
use cuda_entrypoint::report::json;
use cuda_entrypoint::stack::Stack;
use cuda_entrypoint::{arch, facts, kernels, stack};

use self::manifest::stack_show;
use self::refusal::Refusal;
use self::session::Session;
use self::start::{is_this_program, start, start_unchecked};
use self::words::{colour_of, complain, open_stdout, print, say, start_logging, write_failed};

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
        Command::Version => print(&format!("cuda-entrypoint {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Explain(None) => print(&help::findings()),
        Command::Explain(Some(name)) => explain(name.trim()),
        Command::Schema(SchemaOf::Stack) => print(&stack::schema()),
        Command::Schema(SchemaOf::Report) => print(&json::schema()),
        Command::StackShow { json } => stack_show(&settings, json),
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
        Command::Kernels { archs, json, paths } => list_kernels(archs, json, paths),
        Command::Install(dir) => install_into(Path::new(&dir)),
        Command::Run { service } if config::is_off(&settings) => {
            drop(supervisor);
            start_logging(&settings);
            start_unchecked(&service, environ, &settings)
        }
        // A command of this very program needs no checks before it.
        Command::Run { service } if is_this_program(&service, environ) => {
            drop(supervisor);
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
        Err(_) if name.parse().is_ok_and(help::ends_with_findings) => {
            print(&help::findings_of(name.parse().unwrap_or_default()))
        }
        Err(error) => {
            complain(&error.to_string(), "cuda-entrypoint explain lists them");
            ExitCode::Usage.code()
        }
    }
}

fn list_kernels(archs: Option<ArchList>, json: bool, paths: Vec<OsString>) -> u8 {
    let list = archs.or_else(|| Stack::embedded().ok().and_then(|s| s.archs));
    let capabilities: Vec<facts::ComputeCapability> = list
        .iter()
        .flat_map(ArchList::iter)
        .map(|a: &arch::Arch| a.capability)
        .collect();
    let paths: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
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
