//! Supervision of the children that run before the service: signals first, deadlines, pipes, and nothing left behind.
//!
//! One thread, one poll(2) loop. Signals are blocked and read from a signalfd: blocked signals reach PID 1 as well,
//! where the kernel drops those with the default disposition (kernel/signal.c, `sig_ignored`).

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;

use crate::signal::{FIRST_REAL_TIME, Number, Set};
use crate::sys::{self, Change, Program, Spawn, SpawnError};

/// Signals that end the checks: all whose default is to end a process, but for faults, SIGKILL, SIGPIPE and the two
/// that the C library keeps for itself.
pub const ENDING: Set = Set::NONE
    .with(Signal::SIGTERM)
    .with(Signal::SIGINT)
    .with(Signal::SIGHUP)
    .with(Signal::SIGQUIT)
    .with(Signal::SIGUSR1)
    .with(Signal::SIGUSR2)
    .with(Signal::SIGALRM)
    .with(Signal::SIGVTALRM)
    .with(Signal::SIGPROF)
    .with(Signal::SIGXCPU)
    .with(Signal::SIGXFSZ)
    .with(Signal::SIGIO)
    .with(Signal::SIGPWR)
    .with(Signal::SIGSTKFLT)
    .from(FIRST_REAL_TIME);

const KILL: Number = Number(nix::libc::SIGKILL);
/// waitid(2) for a process that has ended, left as it is: the zombie keeps its process group's number taken.
const PEEK: WaitPidFlag = WaitPidFlag::WEXITED.union(WaitPidFlag::WNOWAIT);

/// How long children may take to end after a signal was forwarded, before SIGKILL. `docker stop` gives us 10 s in all.
const GRACE: Duration = Duration::from_secs(2);
/// How long a killed child may take to go. One that sits in an uninterruptible driver call never does.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(3);
/// How often the children are looked at while nothing happens.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// The longest time between two looks at the children that a loaded machine explains: [`HEARTBEAT`], and a second more
/// until the kernel wakes this process. After a longer one it stood still.
const STANDSTILL: Duration = Duration::from_millis(1500);
/// More output than any helper or smoke has reason to write.
const STDOUT_LIMIT: usize = 8 << 20;
/// Of stderr only the end is of use.
const STDERR_TAIL: usize = 16 << 10;

/// Names a child that was started with [`Supervisor::start`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobId(usize);

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// exit status
    Code(i32),
    /// signal number
    Signal(i32),
    /// the deadline passed; `reaped` is false where even SIGKILL did not end it
    TimedOut {
        /// whether it is gone
        reaped: bool,
    },
    /// it wrote more than [`STDOUT_LIMIT`] and was killed
    OutputLimit,
    /// [`Supervisor::cancel`] ended it
    Cancelled,
}

/// A child that is gone, and what it had said.
#[derive(Debug)]
pub struct Ended {
    /// how
    pub exit: Exit,
    /// its standard output
    pub stdout: Vec<u8>,
    /// the last [`STDERR_TAIL`] bytes of its standard error
    pub stderr: Vec<u8>,
    /// from its start to its reaping
    pub elapsed: Duration,
    /// what it had to keep to
    pub deadline: Deadline,
}

/// How long a child may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deadline {
    /// for all that it does, or for each thing that it says
    pub time: Duration,
    /// it kept to that each time, and took too long all the same
    pub in_all: bool,
}

/// What [`Supervisor::next`] waited for.
#[derive(Debug)]
pub enum Event {
    /// a child is gone
    Ended(JobId, Ended),
    /// a [`Waker`] was used
    Woken,
    /// a signal that ends the checks
    Signal(Number),
    /// the time given to [`Supervisor::next`] is over
    Elapsed,
}

/// Why a child could not be started.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{step}: {errno}")]
pub struct StartError {
    /// what failed
    pub step: &'static str,
    /// why
    pub errno: Errno,
}

struct Job {
    id: JobId,
    pid: Pid,
    /// has not been seen to execute its program
    exec: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    out: Vec<u8>,
    err: Vec<u8>,
    started: Instant,
    deadline: Instant,
    /// how far away that was
    time: Duration,
    /// where each thing that it says gives it that time anew: how long in all, and until when
    in_all: Option<(Duration, Instant)>,
    /// when it was last looked at
    seen: Instant,
    /// set once SIGKILL was sent, with what it was sent for
    killed: Option<(Instant, Exit)>,
    /// it is the service
    service: bool,
    /// every word of its ends [`Supervisor::next`]
    awaited: bool,
}

/// A child to be started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// what to execute
    pub program: Program<'a>,
    /// its arguments, argv\[0\] first
    pub argv: &'a [CString],
    /// its environment
    pub envp: &'a [CString],
    /// its deadline, from now
    pub time: Duration,
}

impl Job {
    fn kill(&mut self, reason: Exit) {
        if self.killed.is_none() {
            sys::send_to_group(self.pid, KILL);
            // A library may have taken it out of its group. It is not reaped yet, so that the number is its own.
            sys::send(self.pid, KILL);
            self.killed = Some((Instant::now(), reason));
        }
    }

    /// Whether its process has ended, reaped or not.
    fn has_ended(&self) -> bool {
        let found = sys::wait(Some(self.pid), PEEK);
        matches!(
            found,
            Ok(Some((_, Change::Exited(_) | Change::Killed(_)))) | Err(Errno::ECHILD)
        )
    }

    /// Takes what the pipes hold without waiting.
    fn drain(&mut self) {
        if drain_pipe(&mut self.stdout, &mut self.out) && self.out.len() > STDOUT_LIMIT {
            self.out.truncate(STDOUT_LIMIT);
            self.stdout = None;
            self.kill(Exit::OutputLimit);
        }
        drain_pipe(&mut self.stderr, &mut self.err);
        let surplus = self.err.len().saturating_sub(STDERR_TAIL);
        self.err.drain(..surplus);
    }
}

/// Reads a pipe that does not block until it is empty, ended (then it is closed) or has given a fair share.
fn drain_pipe(pipe: &mut Option<OwnedFd>, into: &mut Vec<u8>) -> bool {
    let Some(fd) = pipe.as_ref() else { return false };
    let mut chunk = [0u8; 64 << 10];
    // A child that floods must not keep us from deadlines and signals: a share, then back to poll.
    for _ in 0..16 {
        match nix::unistd::read(fd, &mut chunk) {
            Ok(0) => {
                *pipe = None;
                break;
            }
            Ok(n) => into.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(_) => {
                *pipe = None;
                break;
            }
        }
    }
    true
}

fn pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| StartError { step: "pipe", errno })
}

fn unblock(fd: &OwnedFd) -> Result<(), StartError> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map(|_| ())
        .map_err(|errno| StartError { step: "fcntl", errno })
}

/// Lets another thread end [`Supervisor::next`].
#[derive(Debug)]
pub struct Waker {
    write: OwnedFd,
    /// a thread that is late would write to a pipe without a reader, and end the process with SIGPIPE
    _read: OwnedFd,
}

impl Waker {
    /// Makes the next [`Supervisor::next`] return [`Event::Woken`].
    pub fn wake(&self) {
        let _ = nix::unistd::write(&self.write, &[1]);
    }
}

/// The children of the checks.
pub struct Supervisor {
    signals: OwnedFd,
    jobs: Vec<Job>,
    next_id: usize,
    wake_read: OwnedFd,
    wake_write: OwnedFd,
    null: Option<OwnedFd>,
    /// nobody was our child before we began, so that whoever is at the end is ours to reap
    all_children_ours: bool,
    subreaper_before: bool,
    /// came while [`Supervisor::shut_down`] waited
    late_signal: Option<Number>,
    /// the service has said something, or has closed its pipe
    heard: bool,
    /// children that were here before the service
    strangers: Vec<Pid>,
    /// a variable that the service's process was given and that it puts back: what it forks before has it still
    service_mark: Option<CString>,
    /// dropping it does not restore signals: the service has another supervisor, or the exit code is settled
    leaves_signals: bool,
}

impl Supervisor {
    /// Blocks the signals and stands ready. To be called first thing, on the main thread, before any child or thread.
    ///
    /// # Errors
    /// The errno of signalfd, pipe or sigprocmask: only where descriptors or memory are exhausted, or seccomp forbids.
    pub fn new() -> Result<Self, StartError> {
        let fail = |step| move |errno| StartError { step, errno };
        sys::keep_children_status();
        let mask = ENDING.with(Signal::SIGCHLD);
        sys::block(mask).map_err(fail("sigprocmask"))?;
        let signals = sys::signal_fd(mask).map_err(fail("signalfd"))?;
        let (wake_read, wake_write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(fail("pipe"))?;
        let all_children_ours = sys::wait(None, PEEK) == Err(Errno::ECHILD);
        let subreaper_before = prctl::get_child_subreaper().unwrap_or(false);
        // A vendor library that forks a daemon must not leave it to the service: its orphans become our children. But
        // where somebody's children were here before, an orphan may be theirs, and goes where it would without us.
        if all_children_ours {
            let _ = prctl::set_child_subreaper(true);
        }
        Ok(Self {
            signals,
            jobs: Vec::new(),
            next_id: 0,
            wake_read,
            wake_write,
            null: None,
            all_children_ours,
            subreaper_before,
            late_signal: None,
            heard: false,
            strangers: Vec::new(),
            service_mark: None,
            leaves_signals: false,
        })
    }

    /// A handle for another thread.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn waker(&self) -> std::io::Result<Waker> {
        Ok(Waker {
            write: self.wake_write.try_clone()?,
            _read: self.wake_read.try_clone()?,
        })
    }

    /// Starts a child with piped output and no input.
    ///
    /// # Errors
    /// What failed, with its errno: `exec` for the child's own execve.
    pub fn start(&mut self, start: &Start<'_>) -> Result<JobId, StartError> {
        self.start_child(start, None, false)
    }

    /// The same for a child that is told something later: the end of the pipe that is its standard input.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn start_listening(&mut self, start: &Start<'_>) -> Result<(JobId, OwnedFd), StartError> {
        let (read, write) = pipe()?;
        // Nobody waits for a child that does not listen.
        unblock(&write)?;
        let id = self.start_child(start, Some(read.as_fd()), false)?;
        Ok((id, write))
    }

    /// The same for a child that may say what it likes: standard output and standard error are one, of which the end
    /// is kept as [`Ended::stderr`].
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn start_talking(&mut self, start: &Start<'_>) -> Result<JobId, StartError> {
        self.start_child(start, None, true)
    }

    fn start_child(
        &mut self,
        start: &Start<'_>,
        stdin: Option<BorrowedFd<'_>>,
        merged: bool,
    ) -> Result<JobId, StartError> {
        let fail = |step| move |errno| StartError { step, errno };
        let Start {
            program,
            argv,
            envp,
            time,
        } = *start;
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        unblock(&out_read)?;
        unblock(&err_read)?;
        // By this, what a child leaves behind is told from what came to PID 1 from outside.
        let envp: Vec<CString> = envp.iter().cloned().chain(mark()).collect();
        let stdin = match stdin {
            Some(stdin) => stdin,
            None => self.empty_input()?,
        };
        let stdout = if merged { &err_write } else { &out_write };
        let spawned = sys::spawn(&Spawn {
            program,
            argv,
            envp: &envp,
            stdin,
            stdout: stdout.as_fd(),
            stderr: err_write.as_fd(),
            urgent: ENDING,
        })
        .map_err(fail("exec"))?;
        Ok(self.add(spawned, (out_read, Some(err_read)), time, false))
    }

    fn add(
        &mut self,
        spawned: sys::Spawned,
        (out, err): (OwnedFd, Option<OwnedFd>),
        time: Duration,
        service: bool,
    ) -> JobId {
        let id = JobId(self.next_id);
        self.next_id += 1;
        let now = Instant::now();
        self.jobs.push(Job {
            id,
            pid: spawned.pid,
            exec: spawned.exec,
            stdout: Some(out),
            stderr: err,
            out: Vec::new(),
            err: Vec::new(),
            started: now,
            deadline: now + time,
            time,
            in_all: None,
            seen: now,
            killed: None,
            service,
            awaited: service,
        });
        id
    }

    /// Starts the service itself, which says by `results`, a pipe that does not block, what is to be known of it before it
    /// goes on. [`Supervisor::hand_over`] lets go of it; where it is ended instead, what has the variable that begins with `mark` in
    /// its environment goes as well.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn start_service(
        &mut self,
        service: &sys::Service<'_>,
        results: OwnedFd,
        mark: &[u8],
        time: Duration,
    ) -> Result<(JobId, sys::Spawned), StartError> {
        if nix::unistd::getpid().as_raw() != 1 {
            self.strangers = children_of("self");
            self.strangers
                .retain(|pid| self.jobs.iter().all(|job| job.pid != *pid));
            // What it leaves behind comes to whoever supervises it.
            let _ = prctl::set_child_subreaper(true);
        }
        let spawned = sys::spawn_service(service, Some(ENDING)).map_err(|error| match error {
            SpawnError::Fork(errno) => StartError { step: "fork", errno },
            SpawnError::Exec(errno) => StartError { step: "exec", errno },
        })?;
        self.service_mark = service
            .envp
            .iter()
            .find(|variable| variable.to_bytes().starts_with(mark))
            .cloned();
        let told = sys::Spawned {
            exec: None,
            ..spawned
        };
        Ok((self.add(spawned, (results, None), time, true), told))
    }

    /// Whether a child that still runs has closed its standard output.
    pub fn is_mute(&self, id: JobId) -> bool {
        self.jobs.iter().any(|j| j.id == id && j.stdout.is_none())
    }

    /// Whether a child still runs, or has ended without [`Event::Ended`].
    pub fn has(&self, id: JobId) -> bool {
        self.jobs.iter().any(|j| j.id == id)
    }

    /// Sets a child's deadline anew, from now.
    pub fn extend(&mut self, id: JobId, time: Duration) {
        if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id) {
            (job.time, job.deadline) = (time, Instant::now() + time);
        }
    }

    /// From now on a child's deadline counts from the last thing that it said; `in_all` bounds the whole.
    pub fn renew(&mut self, id: JobId, in_all: Duration) {
        if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id) {
            job.in_all = Some((in_all, job.started + in_all));
        }
    }

    /// Sets anew, from now, how long a child may take for each thing that it says, and for all of them.
    pub fn grant(&mut self, id: JobId, time: Duration, in_all: Duration) {
        self.extend(id, time);
        if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id) {
            job.in_all = Some((in_all, Instant::now() + in_all));
        }
    }

    /// Whether each thing that a child says ends [`Supervisor::next`] with [`Event::Woken`].
    pub fn await_words(&mut self, id: JobId, awaited: bool) {
        if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id) {
            job.awaited = awaited;
        }
    }

    /// How long a child has been running.
    pub fn age(&self, id: JobId) -> Duration {
        let job = self.jobs.iter().find(|j| j.id == id);
        job.map_or(Duration::ZERO, |job| job.started.elapsed())
    }

    /// Gives a child less time, from now and for each thing that it says.
    pub fn hurry(&mut self, id: JobId, time: Duration) {
        if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id && j.time > time) {
            (job.time, job.deadline) = (time, job.deadline.min(Instant::now() + time));
        }
    }

    /// What a child that still runs has written to its standard output by now.
    pub fn output(&self, id: JobId) -> &[u8] {
        self.jobs
            .iter()
            .find(|j| j.id == id)
            .map_or(&[], |j| j.out.as_slice())
    }

    /// /dev/null, or where there is no /dev the reading end of a pipe that nobody writes to.
    fn empty_input(&mut self) -> Result<BorrowedFd<'_>, StartError> {
        let null = match self.null.take() {
            Some(fd) => fd,
            None => match std::fs::File::open("/dev/null") {
                Ok(file) => file.into(),
                Err(_) => pipe()?.0,
            },
        };
        let null: &OwnedFd = self.null.insert(null);
        Ok(null.as_fd())
    }

    /// Whether any child is still to be waited for.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Ends a child that nobody needs any more. Its [`Event::Ended`] still comes.
    pub fn cancel(&mut self, id: JobId) {
        if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id) {
            job.kill(Exit::Cancelled);
        }
    }

    /// Waits for the next event, at most until `until`.
    pub fn next(&mut self, until: Option<Instant>) -> Event {
        loop {
            if let Some((id, ended)) = self.take_ended() {
                return Event::Ended(id, ended);
            }
            let now = Instant::now();
            if until.is_some_and(|t| t <= now) {
                return Event::Elapsed;
            }
            self.wait(until, now);
            if let Some(signal) = self.read_signal() {
                return Event::Signal(signal);
            }
            if std::mem::take(&mut self.heard) {
                return Event::Woken;
            }
            let mut byte = [0u8; 16];
            if nix::unistd::read(&self.wake_read, &mut byte).is_ok_and(|n| n > 0) {
                return Event::Woken;
            }
        }
    }

    /// One poll over signals, wake-ups and pipes, then takes what the pipes hold and kills who is late.
    fn wait(&mut self, until: Option<Instant>, now: Instant) {
        let alarms = self.jobs.iter().map(|j| match j.killed {
            None => j.deadline,
            Some((at, _)) => at + KILL_PATIENCE,
        });
        let heartbeat = self.is_busy().then(|| now + HEARTBEAT);
        let timeout = alarms
            .chain(until)
            .chain(heartbeat)
            .min()
            .map(|t| t.saturating_duration_since(now));
        // Rounded up: waking a moment early would only spin.
        let timeout = timeout.map_or(PollTimeout::NONE, |t| {
            PollTimeout::try_from(t + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        {
            let mut fds = vec![
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.wake_read.as_fd(), PollFlags::POLLIN),
            ];
            for pipe in self.jobs.iter().flat_map(|j| [&j.stdout, &j.stderr]).flatten() {
                fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            }
            let _ = poll(&mut fds, timeout);
        }
        let now = Instant::now();
        for job in &mut self.jobs {
            let before = (job.out.len(), job.stdout.is_some());
            job.drain();
            self.heard |= job.awaited && before != (job.out.len(), job.stdout.is_some());
            // This process stood still (stopped, frozen, swapped out), and what it waits for most likely as well. When that
            // began is not known, so that none of this time counts.
            let unseen = now.saturating_duration_since(job.seen);
            if unseen > STANDSTILL {
                job.deadline += unseen;
            }
            job.seen = now;
            if let Some((_, end)) = &mut job.in_all {
                if unseen > STANDSTILL {
                    *end += unseen;
                }
                if before.0 != job.out.len() {
                    job.deadline = (now + job.time).min(*end);
                }
            }
            // Who has answered and ended by now was in time.
            if job.killed.is_none() && job.deadline <= now && !job.has_ended() {
                job.kill(Exit::TimedOut { reaped: true });
            }
        }
    }

    fn read_signal(&mut self) -> Option<Number> {
        while let Some(signal) = sys::read_signal(&self.signals) {
            if ENDING.contains(signal) {
                return Some(signal);
            }
            // A child has ended, or stands still since it is traced.
            self.heard |= self.jobs.iter().any(|job| job.service);
        }
        None
    }

    /// A job whose process is gone, or that was killed and will not go.
    fn take_ended(&mut self) -> Option<(JobId, Ended)> {
        let now = Instant::now();
        let (index, exit) = self.jobs.iter().enumerate().find_map(|(i, job)| {
            // The group is killed below, before its number can be anybody else's.
            match sys::wait(Some(job.pid), PEEK) {
                Ok(Some((_, Change::Exited(code)))) => Some((i, Exit::Code(code))),
                Ok(Some((_, Change::Killed(signal)))) => Some((i, Exit::Signal(signal.0))),
                Err(Errno::ECHILD) => Some((i, Exit::Code(0))), // somebody ignores SIGCHLD for us: gone all the same
                _ => match job.killed {
                    Some((at, _)) if at + KILL_PATIENCE <= now => Some((i, Exit::TimedOut { reaped: false })),
                    _ => None,
                },
            }
        })?;
        let mut job = self.jobs.swap_remove(index);
        let reaped = exit != Exit::TimedOut { reaped: false };
        // Grandchildren in its group would outlive it.
        sys::send_to_group(job.pid, KILL);
        if reaped {
            let _ = sys::wait(Some(job.pid), WaitPidFlag::WEXITED);
        }
        job.drain();
        if let Some(errno) = job.exec.as_ref().filter(|_| reaped).and_then(sys::exec_error) {
            job.err = format!("exec: {errno}").into_bytes();
        }
        let deadline = match (job.in_all, job.killed) {
            (Some((time, end)), Some((at, _))) if end <= at => Deadline { time, in_all: true },
            _ => Deadline {
                time: job.time,
                in_all: false,
            },
        };
        let exit = match (reaped, job.killed) {
            (false, _) => exit,
            (true, Some((_, reason))) => reason,
            (true, None) => exit,
        };
        Some((
            job.id,
            Ended {
                exit,
                stdout: job.out,
                stderr: job.err,
                elapsed: job.started.elapsed(),
                deadline,
            },
        ))
    }

    /// Passes `signal` to every child's group, waits up to 2 s for them to end, then kills what remains. A second
    /// signal cuts the wait short.
    pub fn terminate(&mut self, signal: Number) {
        for job in &self.jobs {
            sys::send_to_group(job.pid, signal);
        }
        let until = Instant::now() + GRACE;
        while self.is_busy() {
            if matches!(self.next(Some(until)), Event::Elapsed | Event::Signal(_)) {
                break;
            }
        }
        self.shut_down();
    }

    /// Kills and reaps whatever is left, children of children included. Says whether everything is gone.
    pub fn shut_down(&mut self) -> bool {
        self.shut_down_except(None)
    }

    /// The same, but for the service and what its imports have started, if that is `kept`.
    pub fn shut_down_except(&mut self, kept: Option<JobId>) -> bool {
        let mut clean = true;
        for job in self.jobs.iter_mut().filter(|job| Some(job.id) != kept) {
            job.kill(Exit::Cancelled);
        }
        while self.jobs.iter().any(|job| Some(job.id) != kept) {
            match self.next(None) {
                Event::Ended(_, ended) => clean &= ended.exit != Exit::TimedOut { reaped: false },
                Event::Signal(signal) => self.late_signal = Some(signal),
                Event::Woken | Event::Elapsed => {}
            }
        }
        match self.jobs.first().map(|job| job.pid) {
            Some(service) => clean &= reap_marked(service),
            None if self.all_children_ours => clean &= reap_strays(self.service_mark.as_ref()),
            None => {}
        }
        clean
    }

    /// Lets go of the service, for whoever supervises it from here on, and says which children were here before it. All
    /// signals are blocked then: none is lost in between.
    pub fn hand_over(mut self, id: JobId) -> Option<(Pid, Vec<Pid>)> {
        let at = self.jobs.iter().position(|job| job.id == id)?;
        let _ = sys::block(Set::ALL);
        self.leaves_signals = true;
        Some((self.jobs.swap_remove(at).pid, std::mem::take(&mut self.strangers)))
    }

    /// Releases the supervisor and leaves signal dispositions and the signal mask as they are.
    pub fn release(mut self) {
        self.leaves_signals = true;
    }

    /// A signal that arrived and was not yet looked at.
    pub fn pending_signal(&mut self) -> Option<Number> {
        self.late_signal.take().or_else(|| self.read_signal())
    }
}

/// Puts back what [`Supervisor::new`] changed, but that [`ENDING`] signals still end the process with 128+N.
impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.leaves_signals {
            return;
        }
        let _ = prctl::set_child_subreaper(self.subreaper_before);
        sys::end_on(ENDING);
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("signals", &self.signals.as_raw_fd())
            .field("jobs", &self.jobs.len())
            .finish()
    }
}

/// Kills and reaps orphans that came to us as their subreaper or as PID 1. Bounded: an unkillable one stays.
///
/// PID 1 also adopts what `docker exec` or a postStart hook left in the background; that is the service's neighbour, and
/// neither killed nor waited for.
fn reap_strays(service: Option<&CString>) -> bool {
    let until = Instant::now() + KILL_PATIENCE;
    let mut killed: Vec<Pid> = Vec::new();
    loop {
        match sys::wait(None, WaitPidFlag::WEXITED) {
            Err(Errno::ECHILD) => return true,
            Ok(None) => {
                let children = children_of("self");
                let ours: Vec<Pid> = children
                    .iter()
                    .copied()
                    .filter(|p| is_ours(*p, service))
                    .collect();
                let nobody = ours.is_empty() && killed.is_empty();
                // Whose one was that is on its way out cannot be told any more; but in a moment it will be the service's
                // zombie.
                if nobody && !children.iter().any(|p| is_exiting(*p)) {
                    // Without /proc nothing can be told or killed.
                    return std::fs::exists("/proc/self/task").unwrap_or(false);
                }
                if Instant::now() >= until {
                    return nobody;
                }
                for pid in ours {
                    sys::send(pid, KILL);
                    if !killed.contains(&pid) {
                        killed.push(pid);
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            // Its environment is gone before it is, so that who was killed is remembered.
            Ok(Some((gone, _))) => killed.retain(|pid| *pid != gone),
            Err(_) => {}
        }
    }
}

/// The same of those that are known to come from the checks, where the service is there already: its imports may have left
/// something as well, which is its own.
fn reap_marked(service: Pid) -> bool {
    let until = Instant::now() + KILL_PATIENCE;
    loop {
        let mut ours = children_of("self");
        // The dead go, whose ever they were.
        ours.retain(|pid| *pid != service && matches!(sys::wait(Some(*pid), WaitPidFlag::WEXITED), Ok(None)));
        ours.retain(|pid| is_marked(*pid, None));
        if ours.is_empty() || Instant::now() >= until {
            return ours.is_empty();
        }
        for pid in ours {
            sys::send(pid, KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A variable that every child of the checks has, and so whatever it forks.
fn mark() -> Option<CString> {
    CString::new(format!("CUDA_ENTRYPOINT_CHILD_OF={}", nix::unistd::getpid())).ok()
}

/// Whether an orphan comes from one of our children. All of them do, unless we are PID 1.
fn is_ours(pid: Pid, service: Option<&CString>) -> bool {
    if nix::unistd::getpid().as_raw() != 1 {
        return true;
    }
    is_marked(pid, service)
}

/// Whether a process has our mark: the variable, that of a service which was ended, or the name that src/smoke/handoff.py
/// gives to its proof and that what is forked there has as well.
fn is_marked(pid: Pid, service: Option<&CString>) -> bool {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let has_variable = |mark: &CString| read("environ").split(|&b| b == 0).any(|v| v == mark.as_bytes());
    read("comm") == b"entry-proof\n" || mark().iter().chain(service).any(has_variable)
}

/// Whether a process is on its way out: killed, its memory and with it its environment gone, and no zombie yet. Field 9
/// of proc(5)'s `stat`, counted behind the name in parentheses, has the kernel's flags; `PF_EXITING` is 4 in
/// include/linux/sched.h.
pub(crate) fn is_exiting(pid: Pid) -> bool {
    const PF_EXITING: u64 = 4;
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let text = String::from_utf8_lossy(&stat);
    let flags = text
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Children of a process, `self` or a number, by proc(5)'s `children` file (needs CONFIG_PROC_CHILDREN, which every
/// distribution sets).
pub(crate) fn children_of(process: &str) -> Vec<Pid> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<i32>>()
        })
        .map(Pid::from_raw)
        .collect()
}
