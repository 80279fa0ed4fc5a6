//! The device and architecture stages through the binary, on machines that the fake driver acts out.
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/device.rs"]
mod device;
#[path = "support/fakes.rs"]
#[allow(dead_code)]
mod fakes;
#[path = "support/sandbox.rs"]
mod sandbox;

#[path = "device/driver.rs"]
mod driver;
#[path = "device/errors.rs"]
mod errors;
#[path = "device/gpus.rs"]
mod gpus;
#[path = "device/health.rs"]
mod health;
#[path = "device/helper_process.rs"]
mod helper_process;
#[path = "device/misbehaviour.rs"]
mod misbehaviour;
#[path = "device/nodes.rs"]
mod nodes;
#[path = "device/policy.rs"]
mod policy;
#[path = "device/require.rs"]
mod require;
#[path = "device/wait.rs"]
mod wait;
