//! `--init`: staying beside the service as its PID 1 instead of becoming it.
//!
//! What an init of a container owes its service: every signal that can be caught is passed on, once; every orphan is
//! reaped; the exit code is the service's own, 128+N where signal N ended it; the terminal is the service's, and a
//! Ctrl-Z hangs nobody; and what the service leaves behind is ended. One process, no thread: all signals are blocked
//! from before the service starts, and taken one by one with sigtimedwait(2), so that none is lost in between.
//!
//! The service runs in a process group of its own (setpgid(2)), in the same session. Where it is not PID 1, this
//! process is a subreaper, and the service dies with it: whoever kills this PID means the service.

use std::ffi::{CString, OsString};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::killpg;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{Pid, getpgid, getpgrp, getpid, tcgetpgrp, tcsetpgrp};

use crate::process::launch::{self, LaunchError};
use crate::process::supervisor::{self, KILL_PATIENCE, children_of};
use crate::signal::{Number, Set};
use crate::sys::{self, Change, Service};

/// Who gets the signals that come to this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignalTarget {
    /// the service alone, as if it were this process. Its workers are its own matter: PyTorch's data loaders die of a
    /// SIGTERM of which the service would make a checkpoint
    Service,
    /// the service's process group, as a terminal does it
    Group,
}

const CHILD: Number = Number(libc::SIGCHLD);
const CONTINUE: Number = Number(libc::SIGCONT);
const KILL: Number = Number(libc::SIGKILL);
const TERMINATE: Number = Number(libc::SIGTERM);
const TERMINAL_STOP: Number = Number(libc::SIGTSTP);
const TERMINAL_INPUT: Number = Number(libc::SIGTTIN);
const TERMINAL_OUTPUT: Number = Number(libc::SIGTTOU);

/// How long what the service left behind may take to end of SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Starts the service and stays until it has ended. Returns its exit code, or 128+N where signal N ended it.
///
/// # Errors
/// As [`launch::exec`], and 82 where no process can be made. All is as it was then.
pub fn run(path: &Path, argv: &[OsString], env: &[CString], whom: SignalTarget) -> Result<u8, LaunchError> {
    // From here on nothing that comes is lost: it waits until the service is there.
    let _ = sys::block(Set::ALL);
    sys::keep_children_status();
    let first = getpid().as_raw() == 1;
    let subreaper_before = prctl::get_child_subreaper().unwrap_or(false);
    if !first {
        let _ = prctl::set_child_subreaper(true);
    }
    // Of whoever was here before, nothing is known: they are reaped, and not ended.
    let strangers = if first { Vec::new() } else { children_of("self") };
    let terminal = foreground() == Some(getpgrp());
    let started = launch::start(path, argv, env, |file, argv, envp| {
        let service = Service {
            file,
            argv,
            envp,
            dies_with_us: !first,
            terminal,
            traced: false,
            needs: None,
        };
        sys::spawn_service(&service, None).map(|spawned| spawned.pid)
    });
    let service = match started {
        Ok(service) => service,
        Err(error) => {
            take_terminal_back();
            let _ = prctl::set_child_subreaper(subreaper_before);
            // Only words remain, which a reader that stands still may hold up.
            sys::end_on(supervisor::ENDING);
            return Err(error);
        }
    };
    Ok(supervise(service, strangers, whom))
}

/// Takes over a service that is there already, and waits for a word to begin; all signals are blocked by now. Where the
/// terminal is ours, it becomes the service's.
pub fn adopt(service: Pid, strangers: Vec<Pid>, whom: SignalTarget, begin: impl FnOnce()) -> u8 {
    if getpid().as_raw() != 1 {
        let _ = prctl::set_child_subreaper(true);
    }
    if foreground() == Some(getpgrp()) {
        let _ = tcsetpgrp(std::io::stdin(), service);
    }
    begin();
    supervise(service, strangers, whom)
}

/// Stays until the service has ended. `strangers` are children that were here before it.
fn supervise(service: Pid, strangers: Vec<Pid>, whom: SignalTarget) -> u8 {
    let init = Init {
        service,
        whom,
        first: getpid().as_raw() == 1,
        strangers,
    };
    let code = init.supervise();
    init.end_remaining();
    take_terminal_back();
    code
}

struct Init {
    service: Pid,
    whom: SignalTarget,
    /// this is PID 1
    first: bool,
    /// children that were here before
    strangers: Vec<Pid>,
}

impl Init {
    /// Until the service has ended. Its zombie is left, and with it the number of its group.
    fn supervise(&self) -> u8 {
        // It may have ended by now, which somebody else was told.
        if let Some(code) = self.look_after_children() {
            return code;
        }
        loop {
            match sys::next_signal(None) {
                Some(CHILD) => {
                    if let Some(code) = self.look_after_children() {
                        return code;
                    }
                }
                Some(signal) => self.forward(signal),
                None => {}
            }
        }
    }

    fn forward(&self, signal: Number) {
        match signal {
            // Continued from the shell: `fg` has made our group the foreground, `bg` has not.
            CONTINUE => self.resume(),
            // Terminals send these to whoever reads or writes; from a person they are a word to the service (gunicorn
            // has a meaning for both), and would stop its workers.
            TERMINAL_INPUT | TERMINAL_OUTPUT => sys::send(self.service, signal),
            TERMINAL_STOP => sys::send_to_group(self.service, signal),
            _ if self.whom == SignalTarget::Service => sys::send(self.service, signal),
            _ => sys::send_to_group(self.service, signal),
        }
    }

    /// Lets the service go on, in the foreground if that is ours to give.
    fn resume(&self) {
        if foreground() == Some(getpgrp()) {
            let _ = tcsetpgrp(std::io::stdin(), self.service);
        }
        sys::send_to_group(self.service, CONTINUE);
    }

    /// Reaps orphans; the exit code once the service has ended.
    fn look_after_children(&self) -> Option<u8> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED;
        while let Ok(Some((child, change))) = sys::wait(None, flags | WaitPidFlag::WNOWAIT) {
            let of_service = child == self.service;
            match change {
                Change::Exited(code) if of_service => return Some(u8::try_from(code).unwrap_or(u8::MAX)),
                Change::Killed(signal) if of_service => return Some(signal.exit_code()),
                _ => {}
            }
            let _ = sys::wait(Some(child), flags);
            if let Change::Stopped(signal) = change
                && of_service
            {
                self.stopped(signal);
            }
        }
        None
    }

    /// The terminal, or somebody in its stead, has stopped the service: stop as well, so that the shell which waits
    /// for us takes over. Where the kernel stops no one, since there is no shell that could continue us (PID 1, an
    /// orphaned process group), the service goes on: a Ctrl-Z under `docker run -it` must not be the end of it.
    fn stopped(&self, signal: Number) {
        if ![TERMINAL_STOP, TERMINAL_INPUT, TERMINAL_OUTPUT].contains(&signal) {
            return; // SIGSTOP: whoever sent it knows of SIGCONT
        }
        if signal != TERMINAL_STOP && foreground() == Some(getpgrp()) {
            return self.resume(); // `fg` of a job that ran all the while: no signal tells of it
        }
        if sys::is_pending(CONTINUE) {
            return; // continued already, which stopping would undo
        }
        // The terminal would have stopped our whole group, a script that waits for us included.
        sys::stop_self(foreground().is_some());
        if sys::is_pending(CONTINUE) {
            return; // stopped and continued: it is passed on in its turn
        }
        // Who reads from the terminal in the background would only be stopped again, for ever.
        let may_go_on = foreground().is_none_or(|group| group == getpgrp() || group == self.service);
        if signal == TERMINAL_STOP || may_go_on {
            self.resume();
        }
    }

    /// Ends what the service has left: SIGTERM, then after a while SIGKILL. Bounded; as PID 1, what even that does not
    /// end is the kernel's, which ends the whole namespace.
    fn end_remaining(&self) {
        if !self.first {
            // While the zombie keeps the group's number. Who forks meanwhile is told as well, which no list can promise.
            sys::send_to_group(self.service, TERMINATE);
            sys::send_to_group(self.service, CONTINUE);
        }
        let _ = sys::wait(Some(self.service), WaitPidFlag::WEXITED);
        let mut until = Instant::now() + GRACE;
        let mut killing = false;
        let mut told = false;
        while self.reap() {
            if killing || !told {
                told = true;
                if !self.signal_the_rest(if killing { KILL } else { TERMINATE }) {
                    return;
                }
            }
            // The killed leave orphans, which have to be found again.
            let left = until.saturating_duration_since(Instant::now());
            let pause = if killing {
                left.min(Duration::from_millis(10))
            } else {
                left
            };
            let hurried =
                matches!(sys::next_signal(Some(pause)), Some(signal) if supervisor::ENDING.contains(signal));
            let over = Instant::now() >= until;
            match killing {
                true if over => return,
                false if over || hurried => {
                    killing = true;
                    until = Instant::now() + KILL_PATIENCE;
                }
                _ => {}
            }
        }
    }

    /// Whether any child is left.
    fn reap(&self) -> bool {
        loop {
            match sys::wait(None, WaitPidFlag::WEXITED) {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// To all that is left and ours, and SIGTERM not to the service's group, which has had it: a second one would end
    /// what the first one's handler does, such as the commands of a shell's trap. False where there is nobody.
    fn signal_the_rest(&self, signal: Number) -> bool {
        if self.first {
            // Everyone in this PID namespace: they die with us in any case.
            sys::send(Pid::from_raw(-1), signal);
            sys::send(Pid::from_raw(-1), CONTINUE);
            return true;
        }
        let rest = descendants(&self.strangers);
        let was_told = |pid| signal == TERMINATE && getpgid(Some(pid)) == Ok(self.service);
        for &pid in rest.iter().filter(|pid| !was_told(**pid)) {
            sys::send(pid, signal);
            sys::send(pid, CONTINUE);
        }
        !rest.is_empty()
    }
}

/// Children, their children, and so on, without `strangers` and theirs. Empty where there is no /proc.
fn descendants(strangers: &[Pid]) -> Vec<Pid> {
    let mut all = children_of("self");
    all.retain(|pid| !strangers.contains(pid));
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let children = children_of(&pid.to_string());
        // A process that moves to another parent meanwhile may be met twice.
        let new: Vec<Pid> = children.into_iter().filter(|p| !all.contains(p)).collect();
        all.extend(new);
        at += 1;
    }
    all
}

/// The foreground group of the terminal that standard input is, where that is this session's.
fn foreground() -> Option<Pid> {
    tcgetpgrp(std::io::stdin()).ok()
}

/// For whoever waits for this process and shares its group: a script that reads on. Only from a group that is gone: in
/// the background the terminal is somebody else's.
fn take_terminal_back() {
    let gone = |group| killpg(group, None) == Err(Errno::ESRCH);
    if foreground().is_some_and(gone) {
        let _ = tcsetpgrp(std::io::stdin(), getpgrp());
    }
}
