//! Limits of the container that are reached: descriptors, processes, memory, room for arguments.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::device::Machine;
use crate::support::needs::Need;
use crate::support::probe::launcher;
use crate::support::run::{ENTRYPOINT, RUN, Run, World};
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
