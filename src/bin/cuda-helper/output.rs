//! The protocol's end of the helper: descriptors, lines, and the way out.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;

use cuda_entrypoint::facts::HelperLine;

use crate::foreign::process::{self, exit_at_once};

/// Exit status when the reader has gone.
const NOBODY_READS: i32 = 1;

/// Where the lines go.
pub struct Output(File);

impl Output {
    /// Takes descriptor `fd` for the protocol and leaves standard error in the place of standard output: what a
    /// library prints must not end up between the lines.
    pub fn on(fd: RawFd) -> io::Result<Self> {
        process::take_descriptor(fd).map(|copy| Self(File::from(copy)))
    }

    /// Writes one line, usually with one write(2). Does not return when nobody reads: what is left to say is then
    /// of no use to anyone, and a library may not be called for nothing.
    pub fn line(&self, line: &HelperLine) {
        let written = serde_json::to_vec(line)
            .map_err(io::Error::from)
            .and_then(|mut text| {
                text.push(b'\n');
                (&self.0).write_all(&text) // goes on after EINTR and after a partial write
            });
        if written.is_err() {
            exit_at_once(NOBODY_READS);
        }
    }

    /// Names the call into foreign code that comes next.
    pub fn step(&self, step: String) {
        self.line(&HelperLine::Step(step));
    }

    /// Says that everything was said, and leaves.
    pub fn finish(&self) -> ! {
        self.line(&HelperLine::Done);
        exit_at_once(0)
    }
}
