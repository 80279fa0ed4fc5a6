//! Signals while the checks run, in the moment of the exec and after it, also as PID 1; and that nothing is left.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::support::needs::Need;
use crate::support::probe::{launcher, probe};
use crate::support::run::{
    ENTRYPOINT, Run, Running, World, children, eventually, kill, kill_by_number, state,
};
use nix::sys::signal::Signal;

const HANGS: &str = r#"{"calls": {"cuInit": {"hang": true}}}"#;

/// `run` or `check` whose helper hangs in the driver for an hour; the deadline is a minute.
fn hanging(world: &World, verb: &str) -> Command {
    let mut command = world.entrypoint([verb, "--stack", "stack.json", "--termination-log", "termination"]);
    world.with_gpu(&mut command, HANGS);
    command.args(["--", "echo", "started"]);
    command
}

/// It ended by our own word, and soon: `docker stop` gives ten seconds.
#[track_caller]
fn ended(world: &World, run: &Run, signal: Signal, since: Instant) {
    let took = since.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    run.exits(128 + signal as i32).prints("");
    run.says(signal.as_str()).says("during the checks");
    let log = world.read("termination").unwrap();
    let line = format!("signal (exit {}): ended by {signal}", 128 + signal as i32);
    assert!(log.starts_with(&line), "{log}");
    world.assert_nothing_left();
}

#[test]
fn a_signal_ends_the_checks_and_everything_that_they_started() {
    use Signal::*;
    for verb in ["run", "check"] {
        for signal in [
            SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGPWR,
        ] {
            let world = World::new();
            let running = Running::start(&mut hanging(&world, verb));
            running.helper_in_driver();
            let since = Instant::now();
            running.kill(signal);
            ended(&world, &running.finish(), signal, since);
        }
    }
}

#[test]
fn real_time_signals_end_the_checks_too() {
    for (number, name) in [(34, "SIGRTMIN"), (41, "SIGRTMIN+7"), (64, "SIGRTMAX")] {
        let world = World::new();
        let running = Running::start(&mut hanging(&world, "run"));
        running.helper_in_driver();
        let since = Instant::now();
        kill_by_number(running.pid(), number);
        let run = running.finish();
        assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
        run.exits(128 + number).prints("");
        run.says(&format!("ended by {name} during the checks"));
        world.assert_nothing_left();
    }
}

#[test]
fn a_helper_that_a_real_time_signal_ends_is_not_waited_for() {
    let world = World::new();
    let running = Running::start(&mut hanging(&world, "run"));
    let since = Instant::now();
    kill_by_number(running.helper_in_driver(), 40);
    let run = running.finish();
    run.exits(82).says("SIGRTMIN+6 in cuInit");
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
}

#[test]
fn a_signal_that_the_parent_blocked_or_ignored_ends_them_too() {
    let world = World::new();
    for how in [&["--block"][..], &["--ignore"]] {
        let mut command = world.command(launcher());
        command
            .args(how)
            .args(["--", ENTRYPOINT, "run", "--stack", "stack.json"]);
        command.args(["--termination-log", "termination", "--", "echo", "started"]);
        world.with_gpu(&mut command, HANGS);
        let running = Running::start(&mut command);
        running.helper_in_driver();
        let since = Instant::now();
        running.kill(Signal::SIGTERM);
        ended(&world, &running.finish(), Signal::SIGTERM, since);
    }
}

#[test]
fn a_helper_that_does_not_end_of_a_signal_is_killed() {
    // One that is stopped acts on no signal but SIGKILL.
    let world = World::new();
    let running = Running::start(&mut hanging(&world, "run"));
    let helper = running.helper_in_driver();
    kill(helper, Signal::SIGSTOP);
    let since = Instant::now();
    running.kill(Signal::SIGTERM);
    ended(&world, &running.finish(), Signal::SIGTERM, since);
}

#[test]
fn a_second_signal_does_not_confuse_it() {
    let world = World::new();
    let running = Running::start(&mut hanging(&world, "run"));
    let helper = running.helper_in_driver();
    kill(helper, Signal::SIGSTOP);
    let since = Instant::now();
    running.kill(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(100));
    running.kill(Signal::SIGTERM);
    ended(&world, &running.finish(), Signal::SIGTERM, since);
}

#[test]
fn another_signal_does_not_keep_the_first_from_being_told() {
    let world = World::new();
    let running = Running::start(&mut hanging(&world, "run"));
    kill(running.helper_in_driver(), Signal::SIGSTOP);
    let since = Instant::now();
    running.kill(Signal::SIGTERM);
    // Of signals that are pending together the lowest number would be read first.
    assert!(eventually(|| !is_pending(running.pid(), Signal::SIGTERM)));
    // One cuts the wait short; the others come at every moment from there to the end.
    while state(running.pid()) != Some('Z') {
        running.kill(Signal::SIGHUP);
        running.kill(Signal::SIGUSR1);
    }
    ended(&world, &running.finish(), Signal::SIGTERM, since);
}

/// Whether a signal was sent to a process that has not taken it yet: proc(5), `ShdPnd` of `status`.
fn is_pending(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("ShdPnd:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & (1 << (signal as u32 - 1)) != 0
}

#[test]
fn a_signal_under_wait_is_not_slept_over() {
    let world = World::new();
    let mut command = world.entrypoint(["run", "--stack", "stack.json", "--wait", "5m"]);
    command.args(["--termination-log", "termination"]);
    world.with_gpu(&mut command, r#"{"calls": {"cuInit": {"returns": 802}}}"#);
    command.args(["--", "echo", "started"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Its first line says that it waits.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(
        first.contains("waiting up to") && first.contains("fabric"),
        "{first}"
    );
    let since = Instant::now();
    kill(child.id(), Signal::SIGTERM);
    let mut stdout = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    let run = Run {
        status: child.wait().unwrap(),
        stdout,
        stderr: lines.map(|l| l.unwrap() + "\n").collect(),
    };
    ended(&world, &run, Signal::SIGTERM, since);
}

#[test]
fn signals_that_end_nothing_end_nothing() {
    let world = World::new();
    let mut command = world.entrypoint(["check", "--stack", "stack.json", "--device-timeout", "3s"]);
    world.with_gpu(&mut command, HANGS);
    let running = Running::start(&mut command);
    running.helper_in_driver();
    for signal in [Signal::SIGCHLD, Signal::SIGWINCH, Signal::SIGURG, Signal::SIGCONT] {
        running.kill(signal);
    }
    // The deadline does.
    running.finish().exits(85).does_not_say("during the checks");
    world.assert_nothing_left();
}

#[test]
fn a_signal_at_any_moment_ends_either_us_or_the_service() {
    // Never neither: the exec is the moment in which a signal is easily lost.
    for gpu in [false, true] {
        let world = World::new();
        for step in 0..60 {
            let mut command = world.run(if gpu { &["--gpu", "required"] } else { &[] }, &["sleep", "600"]);
            world.with_gpu(&mut command, "{}");
            let running = Running::start(&mut command);
            thread::sleep(Duration::from_micros(step * if gpu { 500 } else { 60 }));
            running.kill(Signal::SIGTERM);
            let run = running.finish();
            let ended = matches!((run.code(), run.signal()), (Some(143), None) | (None, Some(15)));
            assert!(ended, "after step {step}: {}", run.status);
        }
        world.assert_nothing_left();
    }
}

#[test]
fn after_the_exec_signals_are_the_services() {
    let world = World::new();
    // A shell with a trap; it says when it stands.
    let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = world.run(&[], &["sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill(child.id(), Signal::SIGTERM);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // Without a trap the default ends it.
    let mut command = world.run(&[], &[probe().to_str().unwrap()]);
    let running = Running::start(command.env("PROBE", "linger"));
    let comm = format!("/proc/{}/comm", running.pid());
    assert!(eventually(
        || fs::read_to_string(&comm).is_ok_and(|name| name == "probe\n")
    ));
    running.kill(Signal::SIGTERM);
    assert_eq!(running.finish().signal(), Some(15));
}

#[test]
fn a_reader_that_stands_still_does_not_make_it_deaf() {
    // `check` is stuck in a pipe that is full and that nobody reads.
    let world = World::new();
    let (reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let mut command = world.check(&[]);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    let running = Running::start_as_is(&mut command);
    drop(command);
    wait_for_writer(running.pid());
    running.kill(Signal::SIGTERM);
    running.finish().exits(143);
    drop(reader);
}

#[test]
fn the_signal_that_was_told_gives_the_exit_code() {
    let world = World::new();
    let (reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let mut command = hanging(&world, "run");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let running = Running::start_as_is(&mut command);
    drop(command);
    running.helper_in_driver();
    running.kill(Signal::SIGTERM);
    // What it says of SIGTERM nobody reads; it ends all the same.
    wait_for_writer(running.pid());
    running.kill(Signal::SIGHUP);
    running.finish().exits(143);
    drop(reader);
}

/// Until this process waits for room in a pipe.
fn wait_for_writer(pid: u32) {
    let stuck = || {
        let sleeps = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") S "));
        sleeps && fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|wait| wait.contains("pipe"))
    };
    // A kernel may keep for itself where a process waits; then time has to do.
    let _ = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        stuck()
    });
}

fn fill(pipe: &std::io::PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(pipe, &[b'x'; 4096]).is_ok() {}
    while nix::unistd::write(pipe, b"x").is_ok() {}
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

// PID 1

/// `unshare` with the entrypoint as PID 1 of a namespace of its own.
fn as_pid_1(world: &World, args: &[&str]) -> Command {
    let mut command = world.command("unshare");
    command
        .args(["--fork", "--pid", "--mount-proc", "--kill-child", ENTRYPOINT])
        .args(args);
    command
}

#[test]
fn as_pid_1_no_signal_is_lost_during_the_checks() {
    Need::PidNamespace.demand();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let world = World::new();
        let args = ["run", "--stack", "stack.json", "--termination-log", "termination"];
        let mut command = as_pid_1(&world, &args);
        world.with_gpu(&mut command, HANGS);
        let running = Running::start(command.args(["--", "echo", "started"]));
        let init = running.child_that(|pid| !children(pid).is_empty() && hangs_below(pid));
        let since = Instant::now();
        kill(init, signal);
        ended(&world, &running.finish(), signal, since);
    }
}

/// Whether a child of this process has loaded the fake driver.
fn hangs_below(pid: u32) -> bool {
    children(pid).iter().any(|child| {
        let maps = fs::read_to_string(format!("/proc/{child}/maps")).unwrap_or_default();
        maps.contains("libcuda.so.1")
    })
}

#[test]
fn as_pid_1_it_becomes_the_service_and_leaves_no_zombie() {
    Need::PidNamespace.demand();
    for driver in [
        "{}",
        r#"{"calls": {"cuInit": {"fork_daemon": true}, "nvmlInit_v2": {"fork_daemon": true}}}"#,
    ] {
        let world = World::new();
        let mut command = as_pid_1(&world, &["run", "--stack", "stack.json", "--"]);
        world.with_gpu(&mut command, driver);
        let run = Run::of(command.args(["sh", "-c", "echo $$; cd /proc; echo [0-9]*"]));
        run.exits(0).prints("1\n1\n").says("NVIDIA H200");
    }
}

/// What a check leaves in its process group is killed with it. The kernel gives back much memory slowly, and meanwhile
/// nothing of a process tells whose it was.
#[test]
fn as_pid_1_who_is_still_on_its_way_out_is_waited_for() {
    Need::PidNamespace.demand();
    let world = World::new();
    let child = "import mmap, os, sys, time\n\
                 ready, told = os.pipe()\n\
                 if os.fork():\n    os.read(ready, 1)\n    sys.exit()\n\
                 held = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
                 held.madvise(mmap.MADV_NOHUGEPAGE)\n\
                 for at in range(0, 1 << 30, 4096): held[at] = 1\n\
                 os.write(told, b'.')\n\
                 time.sleep(60)\n";
    let stack = serde_json::json!({
        "schema": 1,
        "name": "t",
        "smoke": [{"name": "leaves", "argv": ["python3", "-c", child]}, {"name": "more", "argv": ["sleep", "0.05"]}],
    });
    world.write("leaves.json", stack.to_string());
    let mut command = as_pid_1(&world, &["run", "--gpu", "off", "--stack", "leaves.json", "--"]);
    let run = Run::of(command.args(["sh", "-c", "echo $$; cd /proc; echo [0-9]*"]));
    run.exits(0).prints("1\n1\n").says("more OK");
}

/// What `docker exec` or a postStart hook leaves in the background becomes a child of PID 1, and is nobody's but its own.
#[test]
fn as_pid_1_a_process_that_came_from_outside_is_left_alone() {
    Need::PidNamespace.demand();
    let world = World::new();
    let mut command = as_pid_1(&world, &["run", "--stack", "stack.json", "--"]);
    let slow = r#"{"calls": {"cuInit": {"delay_ms": 1500, "fork_daemon": true}}}"#;
    world.with_gpu(&mut command, slow);
    let script = "cd /proc; for p in [0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done";
    let since = Instant::now();
    let running = Running::start(command.args(["sh", "-c", script]));
    let init = running.child_that(hangs_below).to_string();
    let mut hook = world.command("nsenter");
    hook.args(["--target", &init, "--pid", "--", "sh", "-c"]);
    hook.arg("setsid sleep 99.25 >/dev/null 2>&1 </dev/null & sleep 0.1");
    assert!(hook.status().unwrap().success());
    let run = running.finish();
    run.exits(0).does_not_say("left behind");
    let text = run.text();
    assert!(text.contains("sleep 99.25"), "{text}{}", run.stderr);
    assert!(!text.contains("cuda-helper"), "{text}");
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    world.kill_survivors();
}

/// The kernel ignores a signal for which PID 1 has no handler.
#[test]
fn as_pid_1_a_service_that_sigterm_does_not_end_is_told() {
    Need::PidNamespace.demand();
    let world = World::new();
    let lost = "ignores SIGTERM";
    for (options, service, told) in [
        (&[][..], &["sh", "-c", "true & wait"][..], true),
        (&["--mode", "warn"], &["bash", "-c", "true | true"], true),
        (&[], &["sleep", "0"], true),
        (&["--init"], &["sh", "-c", "true & wait"], false),
        (&["--mode", "off"], &["sh", "-c", "true & wait"], false),
        (&[], &["sh", "-c", "exec true"], false),
        (&[], &["bash", "-c", "true"], false),
        (&[], &["sh", "-c", "trap : TERM; true & wait"], false),
        (&[], &["true"], false),
    ] {
        let args = [
            &["run", "--gpu", "off", "--stack", "stack.json"],
            options,
            &["--"],
            service,
        ]
        .concat();
        let run = Run::of(&mut as_pid_1(&world, &args));
        run.exits(0);
        let said = run.stderr.matches(lost).count();
        assert_eq!(said, usize::from(told), "{options:?} {service:?}: {}", run.stderr);
        if told {
            run.says("--init");
        }
        // Elsewhere SIGTERM ends it.
        Run::of(world.command(ENTRYPOINT).args(&args))
            .exits(0)
            .does_not_say(lost);
    }
}

/// Docker runs an ENTRYPOINT in shell form as `/bin/sh -c`, with CMD in words that nobody reads.
#[test]
fn an_entrypoint_in_shell_form_is_told_where_no_command_arrives() {
    Need::PidNamespace.demand();
    let world = World::new();
    for line in ["run", "run --mode off"] {
        let mut command = world.command("unshare");
        command.args(["--fork", "--pid", "--mount-proc", "--kill-child", "/bin/sh", "-c"]);
        // The shell stays whichever it is.
        command.arg(format!("'{ENTRYPOINT}' {line}; exit $?"));
        let run = Run::of(command.args(["python", "serve.py"]));
        run.exits(64).says("in shell form").says("JSON array");
    }
    let run = Run::of(&mut as_pid_1(&world, &["run"]));
    run.exits(64)
        .says("no service command was given")
        .says("in shell form (not a JSON array)");
    let run = Run::of(world.command(ENTRYPOINT).arg("run"));
    run.exits(64).does_not_say("shell form");
}

// What a vendor library leaves behind

#[test]
fn a_daemon_of_a_vendor_library_is_left_neither_running_nor_to_the_service() {
    for (verb, mode) in [
        ("run", "enforce"),
        ("run", "warn"),
        ("check", "enforce"),
        ("check", "warn"),
    ] {
        for end in ["", r#", "signal": 6"#, r#", "returns": 999"#, r#", "exit": 4"#] {
            let world = World::new();
            let mut command = world.entrypoint([verb, "--stack", "stack.json", "--mode", mode]);
            let script = format!(r#"{{"calls": {{"cuInit": {{"fork_daemon": true{end}}}}}}}"#);
            world.with_gpu(&mut command, &script);
            command.args(["--", "sh", "-c", "cat /proc/$$/task/$$/children; exit 5"]);
            let run = Run::of(&mut command);
            let expected = match (verb, mode, end) {
                ("run", "enforce", "") | ("run", "warn", _) => 5,
                (_, "warn", _) | (_, _, "") => 0,
                _ => 82,
            };
            assert_eq!(run.code(), Some(expected), "{verb} {mode} {end}: {}", run.stderr);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_daemon_is_ended_with_the_checks() {
    let world = World::new();
    let mut command = hanging(&world, "run");
    world.with_gpu(
        &mut command,
        r#"{"calls": {"cuInit": {"hang": true}, "cuDriverGetVersion": {"fork_daemon": true}, "nvmlInit_v2": {"fork_daemon": true}}}"#,
    );
    let running = Running::start(&mut command);
    running.helper_in_driver();
    let since = Instant::now();
    running.kill(Signal::SIGTERM);
    ended(&world, &running.finish(), Signal::SIGTERM, since);
}

// Signals at random moments

/// Numbers that are different each time, and the same for the same seed.
struct Random(u64);

impl Random {
    /// From 0 up to `end`, without it.
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are the better ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A whole life in the course of which a signal comes: image, device helper, exec or `--init`, service.
struct Life {
    init: bool,
    pid_1: bool,
    signal: i32,
    /// from the start to the signal, in microseconds
    moment: u64,
}

/// What became of the signal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    /// it ended the checks
    EndedTheChecks,
    /// it ended whatever was there without a word: before main, between the checks and the service, or the service
    /// before that had said that it wants to hear of it
    EndedIt,
    /// the service got it, once
    ReachedTheService,
    /// it came before the service was there, and its default is to do nothing
    HadNoMeaning,
    /// PID 1 was being executed as the service when it came, or had become it, and the service had not said yet that it
    /// wants to hear of it
    CameTooEarlyForPid1,
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let init = if self.init { " --init" } else { "" };
        let pid_1 = if self.pid_1 { " as PID 1" } else { "" };
        write!(f, "signal {}{init}{pid_1} after {} us", self.signal, self.moment)
    }
}

impl Life {
    fn command(&self, world: &World) -> Command {
        let mut args = vec!["run", "--stack", "life.json", "--mode", "warn", "--log", "error"];
        if self.init {
            args.push("--init");
        }
        args.extend(["--", crate::support::probe::counter().to_str().unwrap()]);
        if self.pid_1 {
            return as_pid_1(world, &args);
        }
        world.entrypoint(args)
    }

    /// Lives it. The signal of no life is 0.
    fn live(&self, world: &World, driver: &str) -> (Option<Fate>, Duration) {
        let mut command = self.command(world);
        world.with_gpu(&mut command, driver);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, said) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader =
            thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut errors = child.stderr.take().unwrap();
        let complaints = thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        let mut entrypoint = child.id();
        // Before its main nothing of ours runs: a signal ends it there, and PID 1 never hears of it.
        if self.pid_1 {
            let first = || children(child.id()).first().copied();
            assert!(eventually(|| first().is_some_and(holds_signals)), "{self}");
            entrypoint = children(child.id())[0];
        }
        let since = Instant::now();
        if self.signal == 0 {
            assert_eq!(said.recv_timeout(Duration::from_secs(60)).as_deref(), Ok("ready"));
            let took = since.elapsed();
            kill(entrypoint, Signal::SIGTERM);
            child.wait().unwrap();
            return (None, took);
        }
        thread::sleep(Duration::from_micros(self.moment));
        let is_service = || {
            let exe = fs::read_link(format!("/proc/{entrypoint}/exe"));
            exe.is_ok_and(|exe| exe != std::path::Path::new(ENTRYPOINT))
        };
        let was_service = is_service() || is_in_exec(entrypoint, self.signal);
        kill_by_number(entrypoint, self.signal);
        let was_service = was_service || is_service();
        let mut heard: Vec<String> = Vec::new();
        let mut ended = None;
        let until = Instant::now() + Duration::from_secs(60);
        // Until it is over, or the service has heard of it, or it should have.
        let got = format!("got {}", self.signal);
        let mut ready_at = None;
        while ended.is_none() && !heard.contains(&got) && Instant::now() < until {
            heard.extend(said.recv_timeout(Duration::from_millis(2)));
            if heard.iter().any(|line| line == "ready") {
                ready_at = ready_at.or(Some(Instant::now()));
            }
            if ready_at.is_some_and(|at| at.elapsed() > Duration::from_millis(500)) {
                break;
            }
            ended = child.try_wait().unwrap();
        }
        if ended.is_none() && self.signal != 15 {
            kill(entrypoint, Signal::SIGTERM);
        }
        let status = child.wait().unwrap();
        reader.join().unwrap().unwrap();
        heard.extend(said.try_iter());
        let complaint = complaints.join().unwrap();
        let times = heard.iter().filter(|line| **line == got).count();
        let started = heard.iter().any(|line| line == "ready");
        let tell = || format!("{self}: {status}, heard {heard:?}, said {complaint:?}");
        use std::os::unix::process::ExitStatusExt;
        let by_signal = status.signal() == Some(self.signal) || status.code() == Some(128 + self.signal);
        let fate = match (times, started) {
            (1, true) => {
                assert_eq!(status.code(), Some(7), "{}", tell());
                Fate::ReachedTheService
            }
            (0, false) if by_signal && complaint.contains("during the checks") => Fate::EndedTheChecks,
            (0, false) if by_signal => Fate::EndedIt,
            (0, true) if DOES_NOTHING.contains(&self.signal) => Fate::HadNoMeaning,
            (0, true) if self.pid_1 && !self.init && was_service => Fate::CameTooEarlyForPid1,
            _ => panic!("lost or doubled: {}", tell()),
        };
        world.assert_nothing_left();
        (Some(fate), since.elapsed())
    }
}

/// Whether this process is past the point of no return: it handles the signal and blocks it no longer. One that comes
/// while execve(2) lasts finds the handler, which then is gone before it could run; the kernel keeps it from PID 1.
fn is_in_exec(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field));
        mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (signal - 1) != 0)
    };
    has("SigCgt:") && !has("SigBlk:")
}

/// Whether this process blocks or handles SIGTERM, or is the service already. While one waits for signals the kernel
/// does not show that it blocks them.
fn holds_signals(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field));
        mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << 14 != 0)
    };
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    (exe == std::path::Path::new(ENTRYPOINT) && (has("SigBlk:") || has("SigCgt:")))
        || exe == crate::support::probe::counter()
}

/// SIGCONT, SIGURG, SIGWINCH
const DOES_NOTHING: [i32; 3] = [18, 23, 28];

/// `SIGNAL_RUNS=1000 SIGNAL_SEED=7 cargo test --test integration -- signals::a_signal_at_a_random --nocapture` for more of it.
#[test]
fn a_signal_at_a_random_moment_is_neither_lost_nor_doubled() {
    let (runs, seed) = (number_of("SIGNAL_RUNS", 40), number_of("SIGNAL_SEED", 1));
    let mut random = Random(seed);
    let world = World::new();
    // The image stage has files to read, whatever it finds.
    let manifest = r#"{"schema": 1, "name": "t", "python": ">=3", "archs": "9.0", "packages": {"pip": "*"}}"#;
    world.write("life.json", manifest);
    let signals: Vec<i32> = cuda_entrypoint::process::supervisor::ENDING
        .iter()
        .map(|n| n.0)
        .chain(DOES_NOTHING)
        .collect();
    let can_be_pid_1 = Need::PidNamespace.is_there();
    let mut fates = std::collections::BTreeMap::new();
    for _ in 0..runs {
        let mut delay = || random.below(30);
        let driver = format!(
            r#"{{"calls": {{"load libcuda": {{"delay_ms": {}}}, "cuInit": {{"delay_ms": {}}}, "nvmlInit_v2": {{"delay_ms": {}}}}}}}"#,
            delay(),
            delay(),
            delay()
        );
        let (init, pid_1) = (random.below(2) == 0, can_be_pid_1 && random.below(2) == 0);
        let mut life = Life {
            init,
            pid_1,
            signal: 0,
            moment: 0,
        };
        // How long it takes by itself, so that each part of it has its share, and the exec a greater one.
        let (_, took) = life.live(&world, &driver);
        let took = u64::try_from(took.as_micros()).unwrap().max(1000);
        life.signal = signals[usize::try_from(random.below(signals.len() as u64)).unwrap()];
        life.moment = match random.below(2) {
            0 => random.below(took * 5 / 4),
            _ => took * 9 / 10 + random.below(took / 5),
        };
        let (fate, _) = life.live(&world, &driver);
        let key = (fate.unwrap(), life.init, life.pid_1);
        *fates.entry(key).or_insert(0) += 1;
    }
    tell!("{runs} runs of seed {seed}:");
    for ((fate, init, pid_1), count) in &fates {
        tell!("  {count:4} {fate:?}, --init: {init}, PID 1: {pid_1}");
    }
    assert_eq!(fates.values().sum::<u64>(), runs);
}
