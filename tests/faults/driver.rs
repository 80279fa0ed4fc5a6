//! A driver that gets hold of what is not its own: the helper's descriptors and its process group.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::device::Machine;
use crate::support::fakes;
use crate::support::run::{RUN, Run, Running, World, kill};
use crate::support::sandbox;

#[test]
fn what_a_driver_writes_between_the_facts_is_no_fact() {
    // Past standard output, into whatever is open: the facts' own pipe among it.
    for (behaviour, observed) in [
        (
            r#"{"scribble": "garbage\n"}"#,
            "unexpected output after cuInit: line",
        ),
        (
            r#"{"scribble": "\"no fact\"\n"}"#,
            "unexpected output after cuInit: line",
        ),
        (
            r#"{"scribble": "{\"device\":{\"ord", "exit": 0}"#,
            "unexpected output after cuInit: line",
        ),
        (
            r#"{"scribble": "{\"device\":{\"ordinal\":0,\"name\":\"forged\"}}\n\"done\"\n", "exit": 1}"#,
            "exit status 1",
        ),
        // What comes behind the last line is none of ours.
        (
            r#"{"scribble": "\"done\"\n"}"#,
            "unexpected output after exit: line",
        ),
    ] {
        let machine = Machine::where_call("cuInit", behaviour);
        machine.prove(82, &[]).says(
            "helper-crashed",
            "fail",
            [
                observed,
                "an answer",
                "the process that asks the driver ended",
                "run nvidia-smi",
            ],
        );
    }
}

#[test]
fn half_a_line_is_told_as_that() {
    let behaviour = r#"{"scribble": "{\"device\":{\"ord", "exit": 0}"#;
    let machine = Machine::where_call("cuInit", behaviour);
    machine.prove(82, &[]).says(
        "helper-crashed",
        "fail",
        ["is cut off after", "an answer", "ended in cuInit", ""],
    );
}

#[test]
fn a_gigabyte_is_neither_kept_nor_waited_for() {
    // Into the facts' pipe: cut off at 8 MiB.
    let machine = Machine::where_call(
        "cuInit",
        r#"{"scribble": "0123456789abcde\n", "repeat": 67108864}"#,
    );
    machine.prove(82, &[]).says(
        "helper-crashed",
        "fail",
        ["it wrote more than 8 MiB", "an answer", "ended in cuInit", ""],
    );
    // To standard output: swallowed, and the driver is as good as any.
    let machine = Machine::where_call("cuInit", r#"{"flood": 1073741824}"#);
    assert_eq!(machine.check(&["--stage", "device"]).exit(), 0);
}

#[test]
fn a_pipe_that_the_driver_closes_is_an_end() {
    let machine = Machine::where_call("cuInit", r#"{"close": true}"#);
    machine.prove(82, &[]).says(
        "helper-crashed",
        "fail",
        ["exit status 1 in cuInit", "an answer", "ended in cuInit", ""],
    );
    let machine = Machine::where_call("cuInit", r#"{"close": true, "hang": true}"#);
    machine.prove(85, &["--device-timeout", "1s"]).says(
        "helper-timeout",
        "fail",
        ["cuInit", "", "cuInit hangs", ""],
    );
}

/// As under `docker pause`, on a machine that swaps, or where somebody debugs.
#[test]
fn a_standstill_is_not_the_drivers_hang() {
    // In the call, and as soon as there is a helper: then the entrypoint does not wait for it yet.
    let kinds = [(false, true), (true, true), (false, false), (true, false)];
    std::thread::scope(|scope| {
        for (all_stand_still, in_call) in kinds {
            scope.spawn(move || stands_still(all_stand_still, in_call));
        }
    });
}

fn stands_still(all_stand_still: bool, in_call: bool) {
    // The standstill ends before the deadline, and what is left to be done after it.
    let slow = r#"{"calls": {"cuInit": {"delay_ms": 1000}, "cuDeviceGetCount": {"delay_ms": 2500}}}"#;
    let world = World::new();
    let mut command = world.entrypoint(&RUN[1..]);
    command.args(["--device-timeout", "6s", "--", "echo", "started"]);
    let running = Running::start(world.with_gpu(&mut command, slow));
    let helper = if in_call {
        running.helper_in_driver()
    } else {
        running.child_that(|_| true)
    };
    let mut stopped = vec![running.pid()];
    if all_stand_still {
        stopped.push(helper);
    }
    stopped.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP));
    std::thread::sleep(Duration::from_secs(5));
    stopped.iter().for_each(|pid| kill(*pid, Signal::SIGCONT));
    running
        .finish()
        .exits(0)
        .prints("started\n")
        .does_not_say("hangs");
}

/// The loader would print to the descriptor that the facts could go to, or run nothing at all.
#[test]
fn what_steers_the_loader_is_not_the_helpers() {
    let world = World::new();
    for (name, value) in [
        ("LD_SHOW_AUXV", "1"),
        ("LD_DEBUG", "all"),
        ("LD_DEBUG", "statistics"),
        ("LD_VERBOSE", "1"),
        ("LD_WARN", "1"),
        ("LD_BIND_NOW", "1"),
        ("LD_PROFILE", "libcuda.so.1"),
        ("LD_AUDIT", "/nowhere.so"),
        ("RUST_MIN_STACK", "16384"),
        ("RUST_MIN_STACK", "1"),
    ] {
        let mut command = world.entrypoint(&RUN[1..]);
        command.args(["--", "/bin/true"]);
        let run = Run::of(world.with_gpu(command.env(name, value), "{}"));
        run.exits(0).says("ok: driver");
    }
}

#[test]
fn an_exit_before_any_fact_is_no_answer() {
    for (function, step, exit, status) in [
        ("load libcuda", "dlopen libcuda.so.1", 82, "fail"),
        ("load libnvidia-ml", "dlopen libnvidia-ml.so.1", 0, "warn"),
    ] {
        let machine = Machine::where_call(function, r#"{"exit": 0}"#);
        let observed = format!("exit status 0 in {step}");
        machine
            .prove(exit, &[])
            .says("helper-crashed", status, [&observed, "an answer", step, ""]);
    }
}

#[test]
fn a_helper_that_is_stopped_or_has_left_its_group_is_killed_all_the_same() {
    for behaviour in [r#"{"signal": 19}"#, r#"{"change_group": true, "hang": true}"#] {
        let machine = Machine::where_call("cuInit", behaviour);
        let checked = machine.prove(85, &["--device-timeout", "1s"]);
        checked.says(
            "helper-timeout",
            "fail",
            ["no answer from cuInit after 1 s", "", "cuInit hangs", ""],
        );
        assert_eq!(
            checked.report["facts"]["device"]["helper"]["killed"], true,
            "{behaviour}"
        );
    }
}

#[test]
fn a_driver_that_may_not_be_read_is_told_from_one_that_is_not_there() {
    let real = fs::read(fakes::fake_driver_dir().join("libcuda.so.1")).unwrap();
    // Root reads everything, unless it may not override.
    let machine = Machine::without_driver()
        .libcuda(&real)
        .sandbox(sandbox::no_override);
    fs::set_permissions(
        machine.path("driver/libcuda.so.1"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    machine.prove(82, &[]).says(
        "driver-missing",
        "fail",
        [
            "libcuda.so.1",
            "libcuda.so.1",
            "no NVIDIA driver",
            "driver/libcuda.so.1 is there, and the loader passes it over: this user may not read it",
        ],
    );
}
