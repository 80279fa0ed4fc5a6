//! Signals first, then the command line.

use std::ffi::OsString;
use std::time::Instant;

use cuda_entrypoint::exit_code::ExitCode;
use cuda_entrypoint::process::launch;
use cuda_entrypoint::process::supervisor::Supervisor;
use cuda_entrypoint::{cli, sys};

use commands::dispatch;
use commands::start::bad_usage;
use commands::words::complain;

mod commands;

fn main() -> std::process::ExitCode {
    let started = Instant::now();
    sys::mind_closed_streams();
    sys::outlive_file_size_limit();
    std::panic::set_hook(Box::new(|panic| {
        complain(
            &format!("internal error, please report it: {panic}"),
            "CUDA_ENTRYPOINT_MODE=off starts the service unchecked",
        );
        std::process::exit(i32::from(ExitCode::Software.code()));
    }));
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // In front of the command it ends options that are not there.
    if args.first().is_some_and(|word| word == "--") {
        args.remove(0);
    }
    let environ = sys::environ();
    let first = args.first().and_then(|word| word.to_str());
    let supervised = first.is_some_and(cli::commands::is_supervised);
    // Signals first: from here on none is lost, as PID 1 too.
    let supervisor = supervised.then(Supervisor::new);
    let exit = match cli::parse(args.iter().cloned(), launch::to_os_pairs(&environ)) {
        Ok(invocation) => dispatch(invocation, &environ, supervisor, started),
        Err(error) => {
            drop(supervisor);
            bad_usage(&args, &environ, &error)
        }
    };
    std::process::ExitCode::from(exit)
}
