//! Policies of the kernel and of the container runtime: seccomp profiles, and a C library that is too old.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cuda_entrypoint::packed;

use crate::support::device::Machine;
use crate::support::fakes;
use crate::support::needs::Need;
use crate::support::sandbox;

#[test]
fn without_memory_files_and_execveat_a_temporary_file_by_its_name_does() {
    Need::UnlinkedFile.demand();
    let machine = Machine::new("{}").sandbox(sandbox::no_memfd_and_no_execveat);
    machine.prove(0, &[]);
    let output = machine
        .command("check", &["--stage", "health", "--log", "debug"])
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains("helper started: unlinked temporary file by /proc"),
        "{log}"
    );
}

#[test]
fn without_execveat_a_helper_on_disk_is_started_by_its_name() {
    let machine = Machine::new("{}").sandbox(sandbox::no_memfd_and_no_execveat);
    let helper = machine.path("cuda-helper");
    fs::write(&helper, packed::helper()).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    machine.prove(0, &["--helper-path", helper.to_str().unwrap()]);
}

#[test]
fn without_signalfd_nothing_is_checked_and_the_profile_is_named() {
    let machine = Machine::new("{}").sandbox(sandbox::no_signalfd);
    for verb in ["check", "run"] {
        let mut command = machine.command(verb, &[]);
        let output = command.args(["--", "echo", "started"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(70), "{said}");
        assert!(output.stdout.is_empty());
        assert!(
            said.contains("signalfd: EPERM") && said.contains("seccomp profile"),
            "{said}"
        );
    }
    let ran = machine.run(&["--mode", "warn"]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert_eq!(ran.output.stdout, b"started\n");
}

#[test]
fn without_close_range_nothing_is_missed() {
    let machine = Machine::new("{}").sandbox(sandbox::no_close_range);
    machine.prove(0, &[]);
}

/// The real loader, and in libc's place a library that has the symbols of 2002 and no more.
#[test]
fn a_c_library_that_is_too_old_is_the_images_fault() {
    let machine = Machine::new("{}");
    let folder = machine.path("driver");
    fs::create_dir(&folder).unwrap();
    for library in ["libcuda.so.1", "libnvidia-ml.so.1"] {
        fs::copy(fakes::fake_driver_dir().join(library), folder.join(library)).unwrap();
    }
    fs::write(machine.path("old.c"), "int nothing_new;\n").unwrap();
    fs::write(machine.path("old.map"), "GLIBC_2.2.5 { global: *; };\n").unwrap();
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-nostdlib", "-Wl,-soname,libc.so.6", "-o"])
        .arg(folder.join("libc.so.6"))
        .arg(format!(
            "-Wl,--version-script={}",
            machine.path("old.map").display()
        ))
        .arg(machine.path("old.c"));
    assert!(command.status().unwrap().success(), "{command:?}");
    let machine = machine.driver(folder);
    let checked = machine.check(&["--stage", "device"]);
    assert_eq!(checked.exit(), 81, "{checked}");
    checked.says(
        "loader-missing",
        "fail",
        [
            "version `GLIBC_2.",
            "glibc 2.17 or newer",
            "no usable glibc loader",
            "build on a glibc image",
        ],
    );
    assert_eq!(machine.run(&[]).exit(), 81);
}
