//! What the tests of the binary share. Each test program uses a part of it.
#![allow(dead_code)]

pub mod fakes;
pub mod probe;
pub mod pty;
pub mod run;
