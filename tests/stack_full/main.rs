//! The image stage on a full environment of torch 2.5.0 from PyPI, then with one fault at a time. `make test-stack`
//! fetches 5 GB for this once; `cargo test` leaves it out.
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
extern crate cuda_entrypoint_test_attribute;

#[path = "../support/mod.rs"]
mod support;

mod copy;
mod faults;
mod good;
mod references;

fn main() -> std::process::ExitCode {
    support::harness::main()
}
