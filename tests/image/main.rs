//! The image stage through the binary, on real parts: NVIDIA's libraries, published wheels, environments as installers
//! leave them.
#![cfg(feature = "entrypoint")]
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/cuda.rs"]
mod cuda;
#[path = "../support/image.rs"]
mod image;

mod complete;
mod debian;
mod libraries;
mod python;
mod wheels;
