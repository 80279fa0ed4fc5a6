//! Every test of the binary, in one program: it links once, and one pool of threads runs all of them.
//!
//! A file here is a module; tests/support is what they share, its harness says which tests could not run on this
//! machine. `cargo test --test integration signals::` runs one module.
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
extern crate cuda_entrypoint_test_attribute;

#[macro_use]
mod support;

mod aarch64;
mod capture;
mod cli;
mod device;
mod docker;
mod docs;
mod faults;
mod fuzz;
mod handoff;
mod helper;
mod image;
mod init;
mod kernels_stage;
mod kernels_wheels;
mod launch;
mod loader;
mod modes;
mod native;
mod node_check;
mod output;
mod progress;
mod receipt;
mod receipt_docker;
mod release;
mod report;
mod signals;
mod signals_docker;
mod smoke;
mod smoke_docker;
mod smoke_script;
mod stack;
mod trust;
mod valgrind;
mod without_manifest;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
