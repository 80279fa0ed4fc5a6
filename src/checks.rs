//! Judges facts against the stack: pure functions without any IO, so that every failure in the world is a fixture.

pub mod arch;
pub mod device;
pub(crate) mod floor;
mod forward;
pub mod image;
pub(crate) mod kernels;
pub mod limits;
pub mod require;
pub mod smoke;
