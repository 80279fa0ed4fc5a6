//! The glibc helper: the only place that loads CUDA libraries.
//!
//! The entrypoint is a static program and cannot dlopen, so it runs this one in a child: a driver that hangs or
//! crashes then takes a child with it and not the container's PID 1.
//!
//! ```text
//! cuda-helper [--fd N] libraries KIND=PATH...   each copy's own version, such as cudart=PATH
//! cuda-helper [--fd N] driver                   libcuda.so.1 and the devices that it shows
//! cuda-helper [--fd N] driver native            the same; then it waits for a plan on standard input, has each device of it run
//!                                               a kernel, and has the driver load fat binaries of the plan's libraries
//! cuda-helper [--fd N] nvml [BYTES] [PART/PARTS]
//!                                               libnvidia-ml.so.1, the GPUs that it shows, their nodes; how much memory
//!                                               each has free, and where that is less than BYTES, who holds it. With
//!                                               0/2 and 1/2 two processes ask every other GPU
//! ```
//!
//! What it finds goes to descriptor N (1 if not given) as one [`cuda_entrypoint::facts::HelperLine`] a line, in JSON.
//! Exit status: 0 when the last line, `"done"`, was written; 1 when nobody reads any more; 64 for bad usage; 69 where
//! the C library is not glibc. An error of a library is a fact, not a failure.

mod arguments;
mod foreign;
mod nodes;
mod output;
mod text;

use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Request};
use cuda_entrypoint::processor::OWN;
use foreign::{driver, glibc, libraries, native, nvml, process};
use output::Output;

/// `EX_USAGE` of sysexits(3).
const USAGE: u8 = 64;
/// `EX_UNAVAILABLE` of sysexits(3).
const UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("cuda-helper: {problem}\n{}", arguments::usage());
            return ExitCode::from(USAGE);
        }
    };
    // Before the first line, so that it is taken for what it is: the complaint of an image's loader.
    if !glibc::is_here() {
        eprintln!("the C library behind {} is not glibc", OWN.loader);
        return ExitCode::from(UNAVAILABLE);
    }
    process::forbid_core_files();
    process::forgo_device_nodes();
    let out = match Output::on(arguments.fd) {
        Ok(out) => out,
        Err(problem) => {
            eprintln!(
                "cuda-helper: cannot write to descriptor {}: {problem}",
                arguments.fd
            );
            return ExitCode::from(USAGE);
        }
    };
    match arguments.request {
        Request::Libraries(wanted) => libraries::ask(&out, &wanted),
        Request::Driver { native } => {
            if native {
                native::prepare();
            }
            if let Some(driver) = driver::ask(&out).filter(|_| native) {
                native::prove(&out, &driver);
            }
        }
        Request::Nvml(free, part) => {
            nvml::ask(&out, free, part);
            // While NVML holds the GPUs: without persistence mode the first who opens one waits for its initialisation.
            nodes::open(&out, Path::new("/dev"), part);
        }
    }
    out.finish()
}
