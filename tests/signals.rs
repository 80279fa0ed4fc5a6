//! Signals while the checks run, in the moment of the exec and after it, also as PID 1; and that nothing is left.
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::Signal;
use support::probe::{launcher, probe};
use support::run::{ENTRYPOINT, Run, Running, World, can, children, eventually, kill, kill_by_number};

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
    thread::sleep(Duration::from_millis(100));
    // One cuts the wait short, and one stays.
    running.kill(Signal::SIGHUP);
    running.kill(Signal::SIGUSR1);
    ended(&world, &running.finish(), Signal::SIGTERM, since);
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
    let waits = format!("/proc/{}/wchan", running.pid());
    let stat = format!("/proc/{}/stat", running.pid());
    let stuck = || {
        let sleeps = fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S "));
        sleeps && fs::read_to_string(&waits).is_ok_and(|wait| wait.contains("pipe"))
    };
    // A kernel may keep for itself where a process waits; then time has to do.
    let _ = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        stuck()
    });
    running.kill(Signal::SIGTERM);
    running.finish().exits(143);
    drop(reader);
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

fn can_be_pid_1() -> bool {
    can(
        "signals as PID 1",
        &["unshare", "--fork", "--pid", "--mount-proc", "true"],
    )
}

#[test]
fn as_pid_1_no_signal_is_lost_during_the_checks() {
    if !can_be_pid_1() {
        return;
    }
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
    if !can_be_pid_1() {
        return;
    }
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

/// What `docker exec` or a postStart hook leaves in the background becomes a child of PID 1, and is nobody's but its own.
#[test]
fn as_pid_1_a_process_that_came_from_outside_is_left_alone() {
    let enter = ["sh", "-c", "nsenter --target $$ --pid true"];
    if !can_be_pid_1() || !can("entering a namespace", &enter) {
        return;
    }
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
