//! The smoke through the binary: a real Python with packages that act out a script, and a driver that does.
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;
use support::fakes;

#[path = "support/device.rs"]
#[allow(dead_code)]
mod device;
#[path = "support/smoke.rs"]
mod scene;

#[path = "smoke/commands.rs"]
mod commands;
#[path = "smoke/ending.rs"]
mod ending;
#[path = "smoke/environment.rs"]
mod environment;
#[path = "smoke/failures.rs"]
mod failures;
#[path = "smoke/order.rs"]
mod order;
#[path = "smoke/passes.rs"]
mod passes;
#[path = "smoke/policy.rs"]
mod policy;
#[path = "smoke/resources.rs"]
mod resources;
#[path = "smoke/versions.rs"]
mod versions;
#[path = "smoke/waiting.rs"]
mod waiting;
