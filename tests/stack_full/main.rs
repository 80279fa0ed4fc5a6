//! The image stage on a full environment of torch 2.5.0 from PyPI, then with one fault at a time. `make test-stack`
//! fetches 5 GB for this once; `cargo test` leaves it out.
#![cfg(feature = "entrypoint")]
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code)] // of the shared parts, other test programs use the rest

#[path = "../support/cuda.rs"]
mod cuda;
#[path = "../support/image.rs"]
mod image;

mod copy;
mod faults;
mod good;
