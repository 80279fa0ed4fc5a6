//! Whose files the entrypoint believes and executes, and what it never tells.
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;
use support::fakes;

#[path = "support/device.rs"]
#[allow(dead_code)]
mod device;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/smoke.rs"]
mod scene;

#[path = "trust/helper.rs"]
mod helper;
#[path = "trust/manifest.rs"]
mod manifest;
#[path = "trust/secrets.rs"]
mod secrets;
