//! Processes: this one as PID 1 or the service's parent, its children, and what the kernel allows them.

pub mod closed;
pub mod init;
pub mod launch;
pub mod limits;
pub mod supervisor;
