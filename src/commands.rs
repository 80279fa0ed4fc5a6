//! What each command does, and which exit code comes of it.

use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cuda_entrypoint::arch::ArchList;
use cuda_entrypoint::check::Code;
use cuda_entrypoint::cli::{Command, Invocation, SchemaOf};
use cuda_entrypoint::crew::{Crew, StartError};
use cuda_entrypoint::report::human::Colour;
use cuda_entrypoint::report::json;
use cuda_entrypoint::stack::Stack;
use cuda_entrypoint::{arch, config, facts, help, install, kernels, stack};

use self::exit::{EX_CANTCREAT, EX_USAGE};
use self::manifest::stack_show;
use self::refusal::Refusal;
use self::session::Session;
use self::start::{is_this_program, start, start_unchecked};
use self::words::{colour_of, complain, print, say, start_logging, write_failed};

mod capture;
mod check;
pub mod exit;
mod handoff;
mod manifest;
mod refusal;
mod run;
mod session;
pub mod start;
pub mod words;

/// The supervisor, or why there is none; `None` where the command starts no children.
pub type Assembled = Option<Result<Crew, StartError>>;

/// Does what the command line says; returns the exit code.
pub fn dispatch(invocation: Invocation, environ: &[CString], crew: Assembled, started: Instant) -> u8 {
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
        Command::Explain(Some(name)) => explain(&name),
        Command::Schema(SchemaOf::Stack) => print(stack::SCHEMA_JSON),
        Command::Schema(SchemaOf::Report) => print(json::SCHEMA_JSON),
        Command::StackShow { json } => stack_show(&settings, json),
        Command::StackCapture { service } => {
            let session = Session {
                service: &service,
                ..session
            };
            match crew {
                Some(Ok(crew)) => session.capture(crew),
                other => {
                    let refusal = Refusal::without_crew(other.and_then(Result::err));
                    complain(&refusal.message, &refusal.hint);
                    refusal.exit
                }
            }
        }
        Command::Kernels { archs, json, paths } => list_kernels(archs, json, paths),
        Command::Install(dir) => install_into(Path::new(&dir)),
        Command::Run { service } if config::is_off(&settings) => {
            drop(crew);
            start_logging(&settings);
            start_unchecked(&service, environ, &settings)
        }
        // Whoever names this program means what it does, not what would have to hold before a service.
        Command::Run { service } if is_this_program(&service, environ) => {
            drop(crew);
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
            match crew {
                Some(Ok(crew)) => session.run(crew),
                other => session.run_without_crew(other.and_then(Result::err)),
            }
        }
        Command::Check { stage, service } => {
            let session = Session {
                service: &service,
                ..session
            };
            match crew {
                Some(Ok(crew)) => session.check(stage, crew),
                other => session.check_without_crew(other.and_then(Result::err)),
            }
        }
    }
}

fn explain(name: &str) -> u8 {
    match name.parse::<Code>() {
        Ok(code) => print(&cuda_entrypoint::check::explain(code)),
        Err(error) => {
            complain(&error.to_string(), "cuda-entrypoint explain lists them");
            EX_USAGE
        }
    }
}

fn list_kernels(archs: Option<OsString>, json: bool, paths: Vec<OsString>) -> u8 {
    let list = match archs {
        Some(text) => match text.to_string_lossy().parse::<ArchList>() {
            Ok(list) => Some(list),
            Err(error) => {
                complain(&format!("--archs: {error}"), "such as 7.5;8.0;8.6;8.9;9.0");
                return EX_USAGE;
            }
        },
        None => Stack::embedded().ok().and_then(|s| s.archs),
    };
    let capabilities: Vec<facts::ComputeCapability> = list
        .iter()
        .flat_map(ArchList::iter)
        .map(|a: &arch::Arch| a.capability)
        .collect();
    let paths: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
    let (out, mut err) = (std::io::stdout(), std::io::stderr());
    let watched = !json && colour_of(&err) == Colour::Yes;
    match kernels::run(&paths, &capabilities, json, watched, &mut out.lock(), &mut err) {
        Ok(exit) => exit,
        Err(error) => write_failed(&error),
    }
}

fn install_into(dir: &Path) -> u8 {
    match install::install(dir) {
        Ok(paths) => print(&paths.map(|p| format!("{}\n", p.display())).concat()),
        Err(message) => {
            complain(&message, "name a folder that this user may write to");
            EX_CANTCREAT
        }
    }
}
