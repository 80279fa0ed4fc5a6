//! What usually is mounted and is not: /proc, /dev, a folder for temporary files, a root that can be written to.

use std::process::Command;

use crate::support::fakes;
use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, RUN, Run, World};

/// In a mount namespace of its own, with a machine's driver, `prepare` as root in it and then `run` of `service`.
/// Everything is named from the working folder, which stays in reach whatever is mounted over it.
fn after(world: &World, namespaces: &[&str], prepare: &str, options: &[&str], service: &[&str]) -> Run {
    let namespaces = [&["--user", "--map-root-user", "--mount"], namespaces].concat();
    Need::UserNamespace.demand();
    let mut command: Command = world.command("unshare");
    command.args(namespaces);
    command.args(["sh", "-ec", &format!("{prepare}\nexec \"$@\""), "sh"]);
    // The repository may lie below a folder that is hidden.
    world.copy(ENTRYPOINT.as_ref(), "entrypoint");
    for library in ["libcuda.so.1", "libnvidia-ml.so.1"] {
        world.copy(
            &fakes::fake_driver_dir().join(library),
            &format!("driver/{library}"),
        );
    }
    command.arg("./entrypoint").args(&RUN[1..]);
    command.args(options).arg("--").args(service);
    world
        .with_gpu(&mut command, "{}")
        .env("LD_LIBRARY_PATH", "driver")
        .env("FAKE_GPU_SCRIPT", "gpu.json");
    Run::of(&mut command)
}

/// The GPU was seen and the service runs.
#[track_caller]
fn serves(world: &World, namespaces: &[&str], prepare: &str, options: &[&str]) -> Run {
    let run = after(world, namespaces, prepare, options, &["echo", "started"]);
    run.exits(0).prints("started\n").says("NVIDIA H200");
    run
}

#[test]
fn without_proc_the_gpu_is_asked_and_the_service_starts() {
    let world = World::new();
    serves(&world, &[], "mount -t tmpfs none /proc", &[]);
    serves(&world, &[], "mount -t tmpfs none /proc", &["--init"]);
}

#[test]
fn without_dev_the_gpu_is_asked_and_the_service_starts() {
    let world = World::new();
    serves(&world, &[], "mount -t tmpfs none /dev", &[]);
    // Neither.
    let nothing = "mount -t tmpfs none /dev; mount -t tmpfs none /proc";
    serves(&world, &[], nothing, &[]);
}

#[test]
fn without_a_folder_for_temporary_files_a_memory_file_does() {
    let world = World::new();
    let none = "for folder in /var/tmp /run /dev/shm /tmp; do mount -t tmpfs -o ro none $folder; done";
    serves(&world, &[], none, &[]);
}

/// Rust's runtime would put /dev/null in the place of a closed stream, and abort where there is none.
#[test]
fn without_dev_closed_streams_stay_closed_and_the_service_starts() {
    let world = World::new();
    let told = "exec 9>told; for n in 0 1 2; do [ ! -e /proc/$$/fd/$n ] || echo $n >&9; done";
    let as_pid_1: &[&str] = &["--pid", "--fork", "--mount-proc"];
    for (namespaces, options) in [(as_pid_1, &[][..]), (&[], &["--init"]), (&[], &["--mode", "off"])] {
        for closed in ["", "0", "1", "2", "01", "02", "12", "012"] {
            let close: String = closed.chars().map(|n| format!(" {n}>&-")).collect();
            // Root's own shell is behind it still.
            let prepare = format!("mount -t tmpfs none /dev\nexec {close}");
            let run = after(&world, namespaces, &prepare, options, &["sh", "-c", told]);
            run.exits(0);
            let open: String = "012".chars().filter(|n| !closed.contains(*n)).collect();
            let seen = world.read("told").unwrap().replace('\n', "");
            assert_eq!(seen, open, "{options:?} {closed}: {}", run.stderr);
        }
    }
}

#[test]
fn without_memory_files_the_first_folder_that_takes_a_file_does() {
    let world = World::new();
    Need::MemfdNoexec.demand();
    let pid = ["--pid", "--fork", "--mount-proc"];
    let forbid = "echo 2 >/proc/sys/vm/memfd_noexec";
    for folders in ["/tmp", "/tmp /var/tmp", "/tmp /var/tmp /run"] {
        let prepare =
            format!("{forbid}; for folder in {folders}; do mount -t tmpfs -o ro none $folder; done");
        serves(&world, &pid, &prepare, &[]);
    }
    // Without a folder either nothing is left but a helper on disk, and the sentence says so.
    let none = "for folder in /var/tmp /run /dev/shm /tmp; do mount -t tmpfs -o ro none $folder; done";
    let prepare = format!("{forbid}; {none}");
    let run = after(&world, &pid, &prepare, &[], &["echo", "started"]);
    run.exits(82)
        .prints("")
        .says("helper-crashed")
        .says("memory file: memfd_create: EACCES")
        .says("/dev/shm: Read-only file system")
        .says("cuda-entrypoint install DIR");
}

#[test]
fn a_root_that_nobody_can_write_to_is_no_hindrance() {
    let world = World::new();
    let read_only = "mount -o remount,bind,ro /";
    serves(&world, &[], read_only, &[]);
    // What was to be written there is missed, and that is all.
    let options = ["--report", "report.json", "--receipt", "receipt.json"];
    let run = serves(&world, &[], read_only, &options);
    run.says("cannot write the report to report.json: Read-only file system")
        .says("receipt.json");
    assert!(world.read("report.json").is_none() && world.read("receipt.json").is_none());
    // A failure keeps its code where its message finds no place.
    let options = ["--deny", "shm-small", "--stack", "nowhere.json"];
    let run = after(&world, &[], read_only, &options, &["echo", "started"]);
    run.exits(78)
        .prints("")
        .says("cannot read the manifest nowhere.json");
}
