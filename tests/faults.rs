//! Bad days of a machine and of its driver, by the mechanisms that make them: namespaces, limits, seccomp filters, a file
//! system that hangs. tests/faults.md lists every fault and the test that shows what becomes of it.

mod disk;
mod driver;
mod hang;
mod limits;
mod mounts;
mod policy;
mod storage;
