//! How the helper gets from the binary's own bytes into a process, where that is made hard.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cuda_entrypoint::packed;

use crate::support::device::{Checked, Machine};
use crate::support::needs::Need;
use crate::support::sandbox;

/// `check --stage device` and `run`, where no report file can be made.
#[track_caller]
fn prove(machine: &Machine, exit: i32, options: &[&str]) -> Checked {
    let checked = machine.check(&[&["--stage", "device"], options].concat());
    assert_eq!(checked.exit(), exit, "{checked}");
    let ran = machine.run(options);
    assert_eq!(ran.exit(), exit, "{ran}");
    checked
}

/// The way by which the helper was started, as the debug log names it.
fn way(machine: &Machine) -> Vec<String> {
    let output = machine
        .command("check", &["--stage", "health", "--log", "debug"])
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let started = log.lines().filter(|line| line.contains("helper started"));
    started.map(str::to_string).collect()
}

#[test]
fn usually_a_memory_file() {
    let started = way(&Machine::new("{}"));
    assert!(
        started[0].contains("memory file") && !started[0].contains("/proc"),
        "{started:?}"
    );
}

#[test]
fn where_memfd_is_refused_a_file_without_a_name() {
    Need::UnlinkedFile.demand();
    let machine = Machine::new("{}").sandbox(sandbox::no_memfd);
    machine.prove(0, &[]);
    let started = way(&machine);
    assert!(started[0].contains("unlinked temporary file"), "{started:?}");
}

#[test]
fn where_execveat_is_unknown_the_same_file_by_its_name() {
    let machine = Machine::new("{}").sandbox(sandbox::no_execveat);
    machine.prove(0, &[]);
    let started = way(&machine);
    assert!(started[0].contains("memory file by /proc"), "{started:?}");
}

#[test]
fn where_nothing_can_be_executed_every_way_is_named() {
    let machine = Machine::new("{}").sandbox(sandbox::no_memfd_and_no_new_file);
    let checked = prove(&machine, 82, &[]);
    checked.says(
        "helper-crashed",
        "fail",
        [
            "memory file: memfd_create: EACCES",
            "a helper process that loads the CUDA libraries",
            "the process that asks the driver could not be started",
            "cuda-entrypoint install DIR",
        ],
    );
    let observed = checked.problem("helper-crashed")["observed"].as_str().unwrap();
    for way in [
        "unlinked temporary file: ",
        "temporary file: ",
        "/tmp: ",
        "/var/tmp: ",
        "/dev/shm: ",
        "file beside this binary: ",
    ] {
        assert!(observed.contains(way), "{way}: {observed}");
    }
    assert!(
        observed.matches("Read-only file system").count() >= 4,
        "{observed}"
    );
    // One that lies elsewhere has to be named.
    let helper = machine.path("cuda-helper");
    fs::write(&helper, packed::helper()).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    prove(&machine, 0, &["--helper-path", helper.to_str().unwrap()]);
}

#[test]
fn where_no_process_can_be_made_other_ways_are_not_tried() {
    let machine = Machine::new("{}").sandbox(sandbox::no_fork);
    let checked = prove(&machine, 82, &[]);
    checked.says(
        "helper-crashed",
        "fail",
        [
            "memory file: EAGAIN",
            "a helper process",
            "could not be started",
            "raise the limit on processes",
        ],
    );
    let observed = checked.problem("helper-crashed")["observed"].as_str().unwrap();
    assert!(!observed.contains("temporary"), "{observed}");
    // NVML is asked first where there is to be a receipt. One finding says it all the same.
    let receipt = machine.path("receipt.json");
    let with_receipt = prove(&machine, 82, &["--receipt", receipt.to_str().unwrap()]);
    assert_eq!(with_receipt.codes("fail"), checked.codes("fail"));
}

/// A machine with a file that `--helper-path` names.
fn with_helper(contents: &[u8], mode: u32) -> (Machine, String) {
    let machine = Machine::new("{}");
    let path = machine.path("cuda-helper");
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let shown = path.to_str().unwrap().to_string();
    (machine, shown)
}

#[test]
fn a_helper_on_disk_is_used_where_it_is_named() {
    let (machine, path) = with_helper(packed::helper(), 0o755);
    machine.prove(0, &["--helper-path", &path]);
    // Even where nothing else would work, and by its variable.
    let machine = machine
        .sandbox(sandbox::no_memfd_and_no_new_file)
        .env("CUDA_ENTRYPOINT_HELPER_PATH", &path);
    prove(&machine, 0, &[]);
}

#[test]
fn a_helper_beside_the_binary_is_the_last_resort() {
    let machine = Machine::new("{}");
    let folder = machine.path("installed");
    let installed = Command::new(env!("CARGO_BIN_EXE_cuda-entrypoint"))
        .arg("install")
        .arg(&folder)
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let machine = machine.binary(folder.join("cuda-entrypoint"));
    assert!(way(&machine)[0].contains("memory file"));
    let machine = machine.sandbox(sandbox::no_memfd_and_no_new_file);
    prove(&machine, 0, &[]);
    assert!(way(&machine)[0].contains("file beside this binary"));
    // One that others may write to is none.
    fs::set_permissions(folder.join("cuda-helper"), fs::Permissions::from_mode(0o777)).unwrap();
    prove(&machine, 82, &[]).says(
        "helper-crashed",
        "fail",
        [
            "another user could replace it",
            "",
            "could not be started",
            "cuda-entrypoint install DIR",
        ],
    );
}

#[test]
fn a_helper_that_is_not_ours_is_not_executed() {
    let mut other = packed::helper().to_vec();
    *other.last_mut().unwrap() ^= 1;
    let longer = [packed::helper(), b"\0"].concat();
    let ours = "is not the helper of cuda-entrypoint";
    let writable = "another user could replace it (chown root, chmod 755)";
    for (contents, mode, observed) in [
        (&b"#!/bin/sh\necho '\"done\"'\n"[..], 0o755, ours),
        (&other, 0o755, ours),
        (&longer, 0o755, ours),
        (&packed::helper()[..packed::helper().len() - 1], 0o755, ours),
        (b"", 0o755, ours),
        (packed::helper(), 0o775, writable),
        (packed::helper(), 0o757, writable),
        (packed::helper(), 0o644, "EACCES"),
    ] {
        let (machine, path) = with_helper(contents, mode);
        machine.prove(82, &["--helper-path", &path]).says(
            "helper-crashed",
            "fail",
            [
                observed,
                "a helper process",
                "could not be started",
                "unset CUDA_ENTRYPOINT_HELPER_PATH or --helper-path",
            ],
        );
    }
}

#[test]
fn a_helper_that_is_no_file_is_not_waited_for() {
    let machine = Machine::new("{}");
    let fifo = machine.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let missing = machine.path("missing");
    let folder = machine.path("folder");
    fs::create_dir(&folder).unwrap();
    for (path, observed) in [
        (&fifo, "is not a regular file"),
        (&folder, "is not a regular file"),
        (&missing, "No such file"),
    ] {
        machine
            .prove(82, &["--helper-path", path.to_str().unwrap()])
            .says(
                "helper-crashed",
                "fail",
                [observed, "", "could not be started", ""],
            );
    }
}

#[test]
fn a_preload_is_the_services_alone() {
    let machine = Machine::new("{}").env("LD_PRELOAD", "/nonexistent/preload.so");
    let checked = machine.prove(0, &[]);
    assert_eq!(checked.report["verdict"], "pass");
}

/// What `unshare` makes of a script in which `$0` is the binary: `None` where this machine lets nobody unshare.
fn unshared(machine: &Machine, namespaces: &[&str], script: &str) -> std::process::Output {
    Need::UserNamespace.demand();
    let mut command = Command::new("unshare");
    command
        .args(namespaces)
        .args(["sh", "-ec", script, env!("CARGO_BIN_EXE_cuda-entrypoint")]);
    command.arg(machine.path("stack.json"));
    machine.equip(&mut command);
    command.output().unwrap()
}

#[test]
fn the_kernels_own_switch() {
    let machine = Machine::new("{}");
    Need::MemfdNoexec.demand();
    let namespaces = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    for value in ["0", "1", "2"] {
        let script = format!(
            r#"echo {value} >/proc/sys/vm/memfd_noexec
            exec "$0" check --stage health --log debug --stack "$1" --termination-log /dev/null"#
        );
        let output = unshared(&machine, &namespaces, &script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{value}: {said}");
        let way = if value == "2" {
            "unlinked temporary file"
        } else {
            "memory file"
        };
        assert!(said.contains(way), "{value}: {said}");
    }
}

#[test]
fn a_folder_without_exec_is_passed_over() {
    let machine = Machine::new("{}").sandbox(sandbox::no_memfd);
    let folder = machine.path("noexec");
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap().to_string();
    let script = r#"mount -t tmpfs -o noexec tmpfs "$TMPDIR"
        exec "$0" check --stage health --log debug --stack "$1" --termination-log /dev/null"#;
    let namespaces = ["--user", "--map-root-user", "--mount"];
    // The filter must not keep `unshare` from its work, so it stands behind: no memfd is all that it refuses.
    let machine = machine.env("TMPDIR", &folder);
    let output = unshared(&machine, &namespaces, script);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("unlinked temporary file"), "{said}");
}
