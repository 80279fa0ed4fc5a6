//! What the tests of the binary share.
#![allow(dead_code, unused_macros)] // the full stack's tests use a part of it

pub mod cuda;
pub mod device;
pub mod docker;
pub mod fakes;
pub mod folders;
#[macro_use]
pub mod harness;
pub mod image;
pub mod needs;
pub mod podman;
pub mod probe;
pub mod pty;
pub mod run;
pub mod sandbox;
pub mod scene;
pub mod smoke_image;
pub mod surroundings;
#[path = "../../src/discover/testing.rs"]
pub mod testing;
