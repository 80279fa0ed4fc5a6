//! Limits of the container that are reached: descriptors, processes, memory, room for arguments.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::support::device::Machine;
use crate::support::needs::Need;
use crate::support::probe::launcher;
use crate::support::run::{ENTRYPOINT, RUN, Run, Running, World};
use crate::support::sandbox;
use crate::support::scene::Scene;

/// Whatever the limit, the service runs or the sentence names what to raise.
#[track_caller]
fn runs_or_names_descriptors(command: &mut std::process::Command, limit: u32) -> bool {
    let run = Run::of(command);
    if run.code() == Some(0) {
        run.prints("started\n");
        return true;
    }
    assert!(
        matches!(run.code(), Some(70 | 82)),
        "{limit}: {:?} {}",
        run.status,
        run.stderr
    );
    assert!(
        run.stdout.is_empty() && !run.stderr.contains("panic"),
        "{limit}: {}",
        run.stderr
    );
    let names = ["limit on open files", "limits on descriptors"];
    assert!(
        names.iter().any(|name| run.stderr.contains(name)),
        "{limit}: {}",
        run.stderr
    );
    false
}

#[test]
fn whatever_the_limit_on_descriptors_the_service_runs_or_the_limit_is_named() {
    let world = World::new();
    let started: Vec<bool> = (3..24)
        .map(|limit| {
            let mut command = world.command(launcher());
            command.args(["--files", &limit.to_string(), "--", ENTRYPOINT, "run"]);
            command.args(["--stack", "stack.json", "--termination-log", "termination", "--"]);
            runs_or_names_descriptors(
                world.with_gpu(command.args(["/bin/echo", "started"]), "{}"),
                limit,
            )
        })
        .collect();
    // With more there is never less, and sixteen do.
    assert!(started.is_sorted(), "{started:?}");
    assert!(started[16 - 3] && !started[8 - 3], "{started:?}");
}

#[test]
fn with_sixteen_descriptors_everything_is_found_that_is_found_with_more() {
    let roomy = Machine::new("{}").prove(0, &[]);
    for few in [sandbox::sixteen_descriptors, sandbox::fifteen_descriptors] {
        let checked = Machine::new("{}").sandbox(few).prove(0, &[]);
        assert_eq!(checked.findings(), roomy.findings());
    }
}

/// The image's Python beside the helper: it waits until there is room.
#[test]
fn a_smoke_short_of_descriptors_waits_for_the_driver_or_names_the_limit() {
    let scene = Scene::new();
    let started: Vec<bool> = (12..28)
        .map(|limit| {
            let mut command = scene.world.command(launcher());
            command.args(["--files", &limit.to_string(), "--", ENTRYPOINT, "run"]);
            command.args(["--stack", "stack.json", "--termination-log", "termination", "--"]);
            let started =
                runs_or_names_descriptors(scene.equip(command.args(["/bin/echo", "started"])), limit);
            scene.world.assert_nothing_left();
            started
        })
        .collect();
    assert!(started.last().unwrap(), "{started:?}");
}

fn for_another_user(machine: Machine) -> Machine {
    fs::set_permissions(machine.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    machine
}

#[test]
fn where_one_child_is_allowed_the_driver_is_asked_first_and_nvml_then() {
    Need::Root.demand();
    let machine = for_another_user(Machine::new("{}")).sandbox(sandbox::two_processes);
    let checked = machine.prove(0, &[]);
    assert_eq!(checked.report["facts"]["device"]["nvml_helper"]["end"], "done");
    assert_eq!(checked.report["facts"]["device"]["helper"]["end"], "done");
}

#[test]
fn where_no_child_is_allowed_the_limit_is_named() {
    Need::Root.demand();
    let machine = for_another_user(Machine::new("{}")).sandbox(sandbox::one_process);
    machine.prove(82, &[]).says(
        "helper-crashed",
        "fail",
        [
            "memory file: EAGAIN",
            "a helper process",
            "could not be started",
            "raise the limit on processes",
        ],
    );
    // Nothing is asked, nothing is missed.
    machine.prove(0, &["--gpu", "off"]);
}

#[test]
fn an_environment_too_large_for_the_helper_is_told_from_a_loader_that_is_missing() {
    let world = World::new();
    let mut command = world.crowded();
    command.args(RUN).args(["--", "true"]);
    let run = Run::of(world.with_gpu(&mut command, "{}"));
    run.exits(82)
        .says("helper-crashed")
        .says("memory file: E2BIG")
        .says("the environment is too large")
        .says("enableServiceLinks")
        .does_not_say("loader")
        .does_not_say("temporary file");
}

/// `run` or another command under these limits of a shell's.
fn under(world: &World, limits: &str, arguments: &[&str]) -> Run {
    let mut command = world.command("bash");
    command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\""), ENTRYPOINT]);
    Run::of(world.with_gpu(command.args(arguments), "{}"))
}

/// SIGXFSZ comes to who writes, and its default is the end.
#[test]
fn a_limit_on_the_size_of_files_is_an_error_of_the_write_alone() {
    let files = [
        "--report",
        "report.json",
        "--receipt",
        "receipt.json",
        "--termination-log",
        "termination",
    ];
    let service = [
        "--",
        "sh",
        "-c",
        "grep -E '^Sig(Pnd|Blk|Ign)' /proc/self/status; echo started",
    ];
    for blocks in [0, 1] {
        let world = World::new();
        let limit = format!("ulimit -f {blocks}");
        let run = |options: &[&str]| {
            under(
                &world,
                &limit,
                &[&["run", "--stack", "stack.json"], options, &files, &service].concat(),
            )
        };
        let served = |run: &Run| {
            run.exits(0);
            let text = run.text();
            assert!(text.ends_with("started\n"), "{text}");
            // Nothing of it is left to the service.
            assert_eq!(text.matches("0000000000000000").count(), 3, "{text}");
        };
        let quiet = run(&["--gpu", "off"]);
        served(&quiet);
        quiet
            .says("cannot write the report to report.json: File too large")
            .says("ulimit -f");
        // The helper is written to a memory file, which counts as well.
        let warned = run(&["--mode", "warn"]);
        served(&warned);
        warned
            .says("helper-crashed")
            .says("raise the limit on the size of files");
        run(&[])
            .exits(82)
            .prints("")
            .says("raise the limit on the size of files")
            .says("helper-crashed");
        served(&run(&["--mode", "off"]));
        under(&world, &limit, &["install", "installed"])
            .exits(73)
            .says("raise the limit on the size of files");
        assert_eq!(fs::read_dir(world.path("installed")).unwrap().count(), 0);
    }
}

#[test]
fn a_smoke_beyond_the_limit_on_the_size_of_files_is_the_operators() {
    let world = World::new();
    let stack = r#"{"schema": 1, "name": "t", "smoke": [{"name": "writer", "argv": ["sh", "-c", "exec head -c 100000000 /dev/zero > big"]}]}"#;
    world.write("own.json", stack);
    let arguments = [
        "run", "--gpu", "off", "--stack", "own.json", "--", "echo", "started",
    ];
    under(&world, "ulimit -f 10000", &arguments)
        .exits(82)
        .prints("")
        .says("smoke-device")
        .says("observed: SIGXFSZ")
        .says("raise the limit on the size of files");
}

/// The limit on processor time sends a signal, as anybody may.
#[test]
fn a_limit_on_processor_time_is_named() {
    let world = World::new();
    world.write("own.json", r#"{"schema": 1, "name": "t", "smoke": [{"name": "spinner", "argv": ["sh", "-c", "while :; do :; done"]}]}"#);
    let arguments = [
        "run", "--gpu", "off", "--stack", "own.json", "--", "echo", "started",
    ];
    under(&world, "ulimit -S -t 1", &arguments)
        .exits(82)
        .prints("")
        .says("smoke-device")
        .says("observed: SIGXCPU")
        .says("raise the limit on processor time");
    let mut command = world.command("bash");
    let line = "ulimit -S -t 1000; exec \"$0\" \"$@\"";
    command.args([
        "-c",
        line,
        ENTRYPOINT,
        "run",
        "--stack",
        "stack.json",
        "--",
        "echo",
        "started",
    ]);
    world.with_gpu(&mut command, r#"{"calls": {"cuInit": {"hang": true}}}"#);
    let running = Running::start(&mut command);
    running.helper_in_driver();
    running.kill(Signal::SIGXCPU);
    running
        .finish()
        .exits(152)
        .says("ended by SIGXCPU during the checks")
        .says("raise the limit on processor time");
}

/// The driver wants more than there is: an error of its own, or the end of the helper, and never of this process.
#[test]
fn a_driver_that_finds_no_memory_takes_the_helper_alone() {
    let machine = Machine::where_call("cuInit", r#"{"allocate": 4000000000}"#).sandbox(sandbox::one_gigabyte);
    machine.prove(82, &[]).says(
        "helper-crashed",
        "fail",
        ["SIGABRT in cuInit", "an answer", "ended in cuInit", ""],
    );
}
