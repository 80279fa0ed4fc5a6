//! What the service is started with, and what is said when it cannot be started.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use super::{Talk, ways};
use crate::support::device::Machine;
use crate::support::needs::Need;
use crate::support::probe::{Told, launcher, probe, probe_without_loader};
use crate::support::run::{ENTRYPOINT, Run, Running, World, eventually, kill};
use crate::support::sandbox;

/// What the probe is started with behind the entrypoint with these options, and behind nothing but the launcher.
fn told(world: &World, how: &[&str], options: &[&str]) -> Told {
    let mut command = world.command(launcher());
    command.args(how).arg("--");
    if !options.is_empty() {
        command.args([ENTRYPOINT, "run", "--stack", "stack.json"]);
        command.args(options).arg("--");
    }
    world.with_gpu(command.arg(probe()), "{}");
    let run = Run::of(&mut command);
    run.exits(0);
    Told::parse(run.text())
}

/// Without what `--init` changes, and what differs from start to start.
fn comparable(mut told: Told) -> Told {
    told.ignored.clear();
    (told.pid, told.ppid, told.group) = (0, 0, (0, told.group.1));
    (told.deathsig, told.subreaper) = (0, 0);
    for (_, target) in &mut told.fds {
        if target.starts_with("pipe:") {
            *target = "pipe".to_string();
        }
    }
    told
}

const OFF: &[&str] = &["--init", "--mode", "off"];
const CHECKED: &[&str] = &["--init", "--gpu", "required"];
const WARNED: &[&str] = &["--init", "--mode", "warn", "--wait", "soon"];

#[test]
fn the_service_finds_what_it_would_find_without_it() {
    let world = World::new();
    let file = world.write("given", "x").display().to_string();
    for how in [
        &[][..],
        &["--block", "--ignore"],
        &["--subreaper"],
        &["--open", "3", &file, "--open", "9", &file, "--open", "500", &file],
    ] {
        let expected = comparable(told(&world, how, &[]));
        for options in [OFF, CHECKED, WARNED] {
            let mut seen = told(&world, how, options);
            // A group of its own in the same session, and nothing of ours.
            assert_eq!(seen.group.0, seen.pid, "{options:?}");
            assert_eq!((seen.deathsig, seen.subreaper), (9, 0), "{options:?}");
            assert_eq!(
                (seen.blocked, &seen.ignored, &seen.caught),
                (0, &vec![], &vec![]),
                "{options:?}"
            );
            assert_eq!(seen.child, None);
            if options == CHECKED {
                seen.env.retain(|variable| variable != "T_JIT=1");
            }
            let mut expected = expected.clone();
            expected.blocked = 0;
            assert_eq!(comparable(seen), expected, "{how:?} {options:?}");
        }
    }
    world.assert_nothing_left();
}

#[test]
fn proc_shows_default_signals() {
    for (way, started) in ways() {
        let world = World::new();
        let run = Run::of(&mut started(&world, &[], &["cat", "/proc/self/status"]));
        for name in ["SigBlk:", "SigIgn:", "SigCgt:", "SigPnd:", "ShdPnd:"] {
            let line = run.text().lines().find(|l| l.starts_with(name)).unwrap();
            assert_eq!(
                line.split_ascii_whitespace().nth(1),
                Some("0000000000000000"),
                "{way}: {line}"
            );
        }
    }
}

#[test]
fn as_pid_1_the_service_is_pid_2_or_later_and_does_not_depend_on_a_parent() {
    for (way, started) in ways() {
        let world = World::new();
        let run = Run::of(&mut started(&world, &[], &[probe().to_str().unwrap()]));
        let told = Told::parse(run.text());
        match way {
            "PID 1" => assert_eq!((told.ppid, told.deathsig), (1, 0)),
            _ => assert_eq!(told.deathsig, 9),
        }
    }
}

#[test]
fn a_failing_check_starts_nothing() {
    let world = World::new();
    let mut command = world.entrypoint(["run", "--init", "--stack", "stack.json", "--", "echo", "started"]);
    world.with_gpu(&mut command, r#"{"devices": []}"#);
    Run::of(&mut command).exits(82).prints("");
    // The variable does the same as the flag.
    let mut command = world.run(&[], &["sh", "-c", "echo $PPID"]);
    let running = Running::start(command.env("CUDA_ENTRYPOINT_INIT", "1"));
    let pid = running.pid();
    running.finish().exits(0).prints(&format!("{pid}\n"));
}

#[test]
fn what_cannot_be_executed_is_told_as_without_it() {
    let world = World::new();
    fs::create_dir(world.path("folder")).unwrap();
    world.write("plain", "#!/bin/sh\n");
    world.program("lost", "#!/no/such/interpreter\n");
    world.program("dos", "#!/bin/sh\r\n");
    world.program("wrong", "#!/etc/passwd\n");
    world.program("garbage", "\x7fELF\u{1}\u{1}\u{1}");
    world.program("script", "echo no shebang; exit 9\n");
    let loader = probe_without_loader().display().to_string();
    for name in [
        "nowhere",
        "./nowhere",
        "./folder",
        "./plain",
        "./lost",
        "./dos",
        "./wrong",
        "./garbage",
        "./script",
        &loader,
    ] {
        let without = Run::of(&mut world.run(&[], &[name, "argument"]));
        let with = Run::of(&mut world.run(&["--init"], &[name, "argument"]));
        assert_eq!(with.code(), without.code(), "{name}: {}", with.stderr);
        assert_eq!(with.stdout, without.stdout, "{name}");
        // What is said about the start itself holds a time.
        let error = |run: &Run| {
            let lines = run.stderr.lines().filter(|line| !line.contains(" ok: "));
            lines.map(str::to_string).collect::<Vec<_>>()
        };
        assert_eq!(error(&with), error(&without), "{name}");
        world.assert_nothing_left();
    }
}

#[test]
fn where_no_process_can_be_made_that_is_told() {
    let machine = Machine::new("{}");
    fs::set_permissions(machine.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    Need::Root.demand();
    // No child at all.
    let machine = machine.sandbox(sandbox::one_process);
    let ran = machine.run(&["--init", "--gpu", "off"]);
    assert_eq!(ran.exit(), 82, "{ran}");
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(ran.output.stdout.is_empty(), "{ran}");
    for part in [
        "no process could be made for the service: EAGAIN",
        "raise the limit on processes",
        "leave --init out",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

/// What is not to be kept from starting starts in the place of this process.
#[test]
fn where_no_process_can_be_made_warn_and_off_start_the_service_in_place() {
    let world = World::new();
    let lenient: [&[&str]; 3] = [
        &["--init", "--mode", "off"],
        &[
            "--init=group",
            "--mode",
            "warn",
            "--gpu",
            "off",
            "--stack",
            "stack.json",
        ],
        &["--init", "--mode", "warn", "--wait", "soon"],
    ];
    for options in lenient {
        // Room for standard input, output and error alone.
        let mut command = world.command(launcher());
        command
            .args(["--files", "3", "--", ENTRYPOINT, "run"])
            .args(options);
        let run = Run::of(command.arg("--").arg(probe()));
        run.exits(0);
        let told = Told::parse(run.text());
        // As if there had been no --init, and no attempt either.
        assert_eq!(
            (told.ppid, told.subreaper, told.blocked),
            (std::process::id(), 0, 0),
            "{options:?}"
        );
        if options[2] != "warn" || options.len() < 7 {
            run.says("no process could be made for the service")
                .says("without --init");
        }
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_told_and_opens_the_break_glass() {
    let world = World::new();
    Run::of(&mut world.run(&["--init=maybe"], &["true"]))
        .exits(64)
        .says("invalid value `maybe` for --init (expected off, on, service or group)");
    let mut command = world.run(&["--mode", "off"], &["sh", "-c", "echo $PPID"]);
    let run = Run::of(command.env("CUDA_ENTRYPOINT_INIT", "maybe"));
    run.exits(0).prints(&format!("{}\n", std::process::id()));
}

#[test]
fn a_signal_ends_the_checks_before_the_service_is_there() {
    let world = World::new();
    let mut command = world.entrypoint(["run", "--init", "--stack", "stack.json", "--", "echo", "started"]);
    world.with_gpu(&mut command, r#"{"calls": {"cuInit": {"hang": true}}}"#);
    let running = Running::start(&mut command);
    running.helper_in_driver();
    running.kill(Signal::SIGTERM);
    running.finish().exits(143).prints("").says("during the checks");
    world.assert_nothing_left();
}

#[test]
fn what_the_checks_left_is_none_of_its_children() {
    let world = World::new();
    let mut command = world.entrypoint(["run", "--init", "--stack", "stack.json", "--"]);
    command.args(["sh", "-c", "echo ready; sleep 600"]);
    let daemons = r#"{"calls": {"cuInit": {"fork_daemon": true}, "nvmlInit_v2": {"fork_daemon": true}}}"#;
    world.with_gpu(&mut command, daemons);
    let mut talk = Talk::start(&mut command);
    assert_eq!(talk.line(), "ready");
    assert_eq!(super::children(talk.entrypoint()).len(), 1);
    // It has no descriptor that the service has not got as well.
    let fds = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let service = super::children(talk.entrypoint())[0];
    let same = || fds(talk.entrypoint()) == fds(service);
    assert!(eventually(same), "{} {}", fds(talk.entrypoint()), fds(service));
    kill(talk.entrypoint(), Signal::SIGTERM);
    assert_eq!(talk.end().1, Some(143));
    world.assert_nothing_left();
}
