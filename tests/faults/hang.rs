//! What hangs in the kernel, beyond the reach of SIGKILL or not: a file system that gives no answer
//! (tests/support/c/hangfs.c), and a driver that waits for it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::needs::Need;
use crate::support::probe::hangfs;
use crate::support::run::{ENTRYPOINT, RUN, Run, Running, World, children, eventually};
use crate::support::scene::Scene;

/// Waits for a file system that gives no answer.
const STUCK: &str = r#"{"calls": {"cuInit": {"read": "hanging/file"}}}"#;
const OPTIONS: [&str; 6] = [
    "--stack",
    "stack.json",
    "--termination-log",
    "termination",
    "--device-timeout",
    "1s",
];

/// `hangfs`, with these arguments behind its folder.
fn beside(world: &World, options: &[&str]) -> Command {
    fs::create_dir_all(world.path("hanging")).unwrap();
    let mut command = world.command(hangfs());
    command.args(options).arg("hanging");
    command
}

/// Whether a thread of this process is where no signal reaches it.
fn is_stuck(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.flatten().any(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.contains("State:\tD")
    })
}

/// Until somebody waits for an answer of the file system.
#[track_caller]
fn wait_for_reader(world: &World) {
    assert!(
        eventually(|| world.path("hanging.read").exists()),
        "nobody reads: {:?}",
        world.survivors(&[])
    );
}

#[test]
fn a_driver_that_not_even_sigkill_ends_is_reported_and_left() {
    let world = World::new();
    Need::Fuse.demand();
    let mut command = beside(&world, &[]);
    command.args([ENTRYPOINT, "run"]).args(OPTIONS);
    let run = Run::of(world.with_gpu(command.args(["--", "echo", "started"]), STUCK));
    run.exits(85)
        .prints("")
        .says("helper-timeout")
        .says("no answer from cuInit after 1 s; it sits in the kernel and could not be killed")
        .says("dmesg");
    assert!(world.read("termination").unwrap().contains("could not be killed"));
    // The hang is over with the file system's end.
    world.assert_nothing_left();
}

#[test]
fn under_warn_the_service_starts_beside_what_cannot_be_killed() {
    let world = World::new();
    Need::Fuse.demand();
    for init in [&[][..], &["--init"]] {
        let mut command = beside(&world, &[]);
        command.args([ENTRYPOINT, "run"]).args(OPTIONS);
        command.args(["--mode", "warn"]).args(init);
        let run = Run::of(world.with_gpu(command.args(["--", "echo", "started"]), STUCK));
        run.exits(0)
            .prints("started\n")
            .says("could not be killed")
            .says("a helper sits in an uninterruptible driver call and was left behind");
        world.assert_nothing_left();
    }
}

#[track_caller]
fn obeys(running: Running, entrypoint: u32) {
    crate::support::run::kill(entrypoint, Signal::SIGTERM);
    running
        .finish()
        .exits(143)
        .prints("")
        .says("ended by SIGTERM during the checks");
}

#[test]
fn a_signal_is_obeyed_beside_what_cannot_be_killed() {
    let world = World::new();
    Need::Fuse.demand();
    let mut command = beside(&world, &[]);
    command.args(RUN);
    let running = Running::start(world.with_gpu(command.args(["--", "echo", "started"]), STUCK));
    wait_for_reader(&world);
    let entrypoint = running.child_that(|pid| !children(pid).is_empty());
    obeys(running, entrypoint);
    world.assert_nothing_left();
}

/// Whether SIGKILL has been sent to this process, which is still there.
fn is_killed(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status
        .lines()
        .filter_map(|line| line.strip_prefix("ShdPnd:").or(line.strip_prefix("SigPnd:")));
    let mut sets = pending.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok());
    sets.any(|set| set & 1 << (Signal::SIGKILL as i32 - 1) != 0)
}

/// The smoke is cancelled since the driver has failed, and given its time to end.
#[test]
fn a_signal_is_obeyed_while_a_cancelled_child_is_waited_for() {
    let scene = Scene::new().driver(r#"{"calls": {"cuInit": {"delay_ms": 2000, "returns": 999}}}"#);
    Need::Fuse.demand();
    let file = scene.world.path("hanging/file");
    let line = format!("import builtins; open({file:?}).read()\n");
    fs::write(scene.site().join("stuck.pth"), line).unwrap();
    let mut command = beside(&scene.world, &[]);
    command.args(RUN).args(["--", "echo", "started"]);
    let running = Running::start(scene.equip(&mut command));
    wait_for_reader(&scene.world);
    let entrypoint = running.child_that(|pid| !children(pid).is_empty());
    assert!(eventually(|| children(entrypoint).into_iter().any(is_killed)));
    obeys(running, entrypoint);
    scene.world.assert_nothing_left();
}

/// The kernel ends a PID 1 only after all of its namespace: the verdict is told at once, the container goes with the hang.
#[test]
fn as_pid_1_the_verdict_is_told_and_the_kernel_keeps_the_container() {
    let world = World::new();
    let namespaces = ["unshare", "--fork", "--pid", "--mount-proc"];
    Need::Fuse.demand();
    Need::PidNamespace.demand();
    let mut command = beside(&world, &[]);
    command.args(namespaces).args([ENTRYPOINT, "run"]).args(OPTIONS);
    let running = Running::start(world.with_gpu(command.args(["--", "echo", "started"]), STUCK));
    let told = || world.read("termination").unwrap_or_default();
    assert!(eventually(|| told().contains("could not be killed")));
    running.kill(Signal::SIGUSR1);
    running.finish().exits(85).prints("").says("helper-timeout");
    world.assert_nothing_left();
}

/// A scene whose site-packages hold a distribution that lies on the file system that hangs.
fn image_that_hangs(killable: bool) -> (Scene, Command) {
    let scene = Scene::new();
    Need::Fuse.demand();
    let folder = scene.site().join("stuck-1.0.dist-info");
    fs::create_dir(&folder).unwrap();
    let file = scene.world.path("hanging/file");
    std::os::unix::fs::symlink(file, folder.join("METADATA")).unwrap();
    let scene = scene.manifest(json!({"schema": 1, "name": "t", "packages": {"stuck": "*"}}));
    let mut command = beside(&scene.world, if killable { &["--killable"] } else { &[] });
    command.args(RUN);
    command.args(["--gpu", "off", "--", "echo", "started"]);
    scene.equip(&mut command);
    (scene, command)
}

/// As a network file system whose server is gone.
#[test]
fn an_image_on_a_file_system_that_hangs_is_ended_by_a_signal() {
    let (scene, mut command) = image_that_hangs(true);
    let running = Running::start(&mut command);
    wait_for_reader(&scene.world);
    let entrypoint = running.child_that(|_| true);
    obeys(running, entrypoint);
    scene.world.assert_nothing_left();
}

/// A program whose file is still to be fetched, as in a lazily pulled image: the kernel reads it before it is anybody's.
fn program_that_hangs(options: &[&str]) -> (Scene, Command) {
    let scene = Scene::new();
    Need::Fuse.demand();
    let file = scene.world.path("hanging/file");
    let scene = scene.smoke(json!([{"name": "own", "argv": [file.to_str().unwrap()]}]));
    let mut command = beside(&scene.world, &["--killable"]);
    command.args(RUN);
    command
        .args(options)
        .args(["--gpu", "off", "--", "echo", "started"]);
    scene.equip(&mut command);
    (scene, command)
}

#[test]
fn a_program_that_cannot_be_read_is_no_reason_to_be_deaf() {
    let (scene, mut command) = program_that_hangs(&[]);
    let running = Running::start(&mut command);
    wait_for_reader(&scene.world);
    let entrypoint = running.child_that(|_| true);
    obeys(running, entrypoint);
    scene.world.assert_nothing_left();
}

#[test]
fn a_program_that_cannot_be_read_meets_its_deadline() {
    let (scene, mut command) = program_that_hangs(&["--smoke-timeout", "1s"]);
    Run::of(&mut command).exits(85).prints("").says("smoke-timeout");
    scene.world.assert_nothing_left();
}

/// Whether it fails at once or after everybody has gone on, the reason is told.
#[test]
fn a_program_that_cannot_be_read_in_the_end_says_why() {
    let (scene, mut command) = program_that_hangs(&[]);
    let running = Running::start(&mut command);
    wait_for_reader(&scene.world);
    // Longer than an exec is waited for.
    std::thread::sleep(Duration::from_secs(3));
    running.kill(Signal::SIGUSR1);
    let run = running.finish();
    run.exits(82).prints("").says("smoke-device").says("exec: E");
    scene.world.assert_nothing_left();
}

/// As a disk that is gone: the verdict is told, and the kernel keeps the process until the disk answers.
#[test]
fn an_image_on_a_disk_that_is_gone_holds_the_process_and_not_the_verdict() {
    let (scene, mut command) = image_that_hangs(false);
    let running = Running::start(&mut command);
    wait_for_reader(&scene.world);
    let entrypoint = running.child_that(|_| true);
    crate::support::run::kill(entrypoint, Signal::SIGTERM);
    let told = || scene.world.read("termination").unwrap_or_default();
    assert!(eventually(
        || told().contains("ended by SIGTERM during the checks")
    ));
    assert!(eventually(|| is_stuck(entrypoint)));
    assert!(Path::new(&format!("/proc/{entrypoint}")).exists());
    // The disk is back, in a way.
    running.kill(Signal::SIGUSR1);
    running
        .finish()
        .exits(143)
        .prints("")
        .says("ended by SIGTERM during the checks");
    scene.world.assert_nothing_left();
}

/// Where nobody watches, and standard error is all there is: the file itself, not the folder, once for each interval.
#[test]
fn the_file_that_hangs_is_told_where_there_is_no_terminal() {
    for json in [false, true] {
        let (scene, mut command) = image_that_hangs(true);
        if json {
            command.env("CUDA_ENTRYPOINT_FORMAT", "json");
        }
        let running = Running::start(&mut command);
        wait_for_reader(&scene.world);
        let entrypoint = running.child_that(|_| true);
        // It is told after 10 s, and again after 30 s.
        std::thread::sleep(Duration::from_secs(14));
        crate::support::run::kill(entrypoint, Signal::SIGTERM);
        let run = running.finish();
        let run = run.exits(143).prints("");
        let told: Vec<&str> = run
            .stderr
            .lines()
            .filter(|l| l.contains("still reading"))
            .collect();
        assert_eq!(told.len(), 1, "{}", run.stderr);
        assert!(
            told[0].contains("stuck-1.0.dist-info/METADATA after 1"),
            "{told:?}"
        );
        assert!(
            told[0].contains("its storage is slow or does not answer"),
            "{told:?}"
        );
        assert_eq!(told[0].starts_with('{'), json, "{told:?}");
        scene.world.assert_nothing_left();
    }
}

/// Nobody has to guess where a start stands still.
#[test]
fn the_file_that_hangs_is_named_on_a_terminal() {
    Need::Script.demand();
    let (scene, command) = image_that_hangs(true);
    // The same words, by `script`.
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut command = scene.world.command("script");
    command.args(["-qefc", &words.join(" "), "shown"]);
    scene.equip(&mut command).env("TERM", "xterm");
    let running = Running::start(&mut command);
    wait_for_reader(&scene.world);
    let shown =
        || String::from_utf8_lossy(&fs::read(scene.world.path("shown")).unwrap_or_default()).into_owned();
    assert!(eventually(|| shown().contains("METADATA")), "{:?}", shown());
    // hangfs is the child of the shell that `script` starts, or that shell itself.
    for pid in scene.world.survivors(&[running.pid()]) {
        let (pid, name) = pid.split_once(' ').unwrap();
        if name.starts_with("cuda-entrypoint") {
            crate::support::run::kill(pid.parse().unwrap(), Signal::SIGTERM);
        }
    }
    running.finish();
    scene.world.assert_nothing_left();
}
