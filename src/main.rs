//! Signals first, then the command line.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use cuda_entrypoint::crew::Crew;
use cuda_entrypoint::{cli, launch, sys};

use commands::dispatch;
use commands::exit::EX_SOFTWARE;
use commands::start::bad_usage;
use commands::words::complain;

mod commands;

fn main() -> ExitCode {
    let started = Instant::now();
    std::panic::set_hook(Box::new(|panic| {
        complain(
            &format!("internal error, please report it: {panic}"),
            "CUDA_ENTRYPOINT_MODE=off starts the service unchecked",
        );
        std::process::exit(i32::from(EX_SOFTWARE));
    }));
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let environ = sys::environ();
    let supervised = matches!(
        args.first().and_then(|a| a.to_str()),
        Some("run" | "check" | "stack")
    );
    // Signals first: from here on none is lost, as PID 1 too.
    let crew = supervised.then(Crew::assemble);
    let exit = match cli::parse(args.iter().cloned(), launch::to_os_pairs(&environ)) {
        Ok(invocation) => dispatch(invocation, &environ, crew, started),
        Err(error) => {
            drop(crew);
            bad_usage(&args, &environ, &error)
        }
    };
    ExitCode::from(exit)
}
