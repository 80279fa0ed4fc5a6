//! The device and architecture stages through the binary, on machines that the fake driver acts out.

mod driver;
mod errors;
mod expected;
mod floor;
mod forward;
mod gpus;
mod health;
mod helper_process;
mod misbehaviour;
mod nodes;
mod nvml;
mod policy;
mod require;
mod wait;
