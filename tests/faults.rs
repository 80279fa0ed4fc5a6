//! Bad days of a machine and of its driver, by the mechanisms that make them: namespaces, limits, seccomp filters, a file
//! system that hangs. tests/faults.md lists every fault and the test that shows what becomes of it.
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

#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/driver.rs"]
mod driver;
#[path = "faults/hang.rs"]
mod hang;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/mounts.rs"]
mod mounts;
#[path = "faults/policy.rs"]
mod policy;
