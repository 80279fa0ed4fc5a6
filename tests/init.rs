//! `--init`: staying beside the service, as PID 1 and as a subreaper, with and without a terminal.

mod compare;
mod container;
mod end;
mod signals;
mod start;
mod terminal;

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, World, children, eventually};

/// `run --init` with these options more, without a check, and then the service.
fn supervised(world: &World, options: &[&str], service: &[&str]) -> Command {
    let mut command = world.entrypoint(["run", "--init", "--mode", "off"]);
    command.args(options).arg("--").args(service);
    command
}

/// The same as PID 1 of a namespace of its own.
fn as_pid_1(world: &World, options: &[&str], service: &[&str]) -> Command {
    let mut command = world.command("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "--kill-child", ENTRYPOINT]);
    command.args(["run", "--init", "--mode", "off"]);
    command.args(options).arg("--").args(service);
    command
}

/// Both ways of being started that are possible here.
type Way = fn(&World, &[&str], &[&str]) -> Command;

fn ways() -> Vec<(&'static str, Way)> {
    let mut ways: Vec<(&str, Way)> = vec![("subreaper", supervised)];
    if Need::PidNamespace.is_there() {
        ways.push(("PID 1", as_pid_1));
    }
    ways
}

fn kill_term(pid: u32) {
    crate::support::run::kill(pid, nix::sys::signal::Signal::SIGTERM);
}

/// A service whose words are read one by one.
struct Talk {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talk {
    fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Self::start_as_is(command)
    }

    fn start_as_is(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line; it fails at the end of the output.
    #[track_caller]
    fn line(&mut self) -> String {
        let line = self.lines.next();
        line.unwrap_or_else(|| panic!("it says nothing more: {:?}", self.child.try_wait()))
            .unwrap()
    }

    /// The entrypoint: this child, or that of `unshare`, once it has the service.
    #[track_caller]
    fn entrypoint(&self) -> u32 {
        let pid = self.child.id();
        let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name(pid).trim() != "unshare" {
            return pid;
        }
        assert!(eventually(|| !children(pid).is_empty()));
        children(pid)[0]
    }

    /// What is left to be said, and the exit code.
    #[track_caller]
    fn end(mut self) -> (Vec<String>, Option<i32>) {
        let rest = self.lines.map(|line| line.unwrap()).collect();
        (rest, self.child.wait().unwrap().code())
    }
}
