//! The driver's device nodes. As root NVML and libcuda make those that are not there: what a check makes would be left to
//! the service, and the next start would take it for the container's own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use crate::support::device::{Checked, Machine};
use crate::support::needs::Need;
use crate::support::{fakes, sandbox};

/// An image that brings an NVML of its own, in a container that was given no GPU.
const NVML_ALONE: &str = r#"{"calls": {"nvmlInit_v2": {"node": "/dev/nvidiactl", "returns": 9}}}"#;

/// A machine with the fake NVML, and without libcuda.
fn with_nvml_alone(script: &str) -> Machine {
    let machine = Machine::new(script);
    let folder = machine.path("nvml-alone");
    fs::create_dir(&folder).unwrap();
    let name = "libnvidia-ml.so.1";
    fs::copy(fakes::fake_driver_dir().join(name), folder.join(name)).unwrap();
    machine.driver(folder)
}

/// Runs `script` with a /dev of its own, in which there is nothing but `null`; `"$@"` is the command.
fn in_own_dev(machine: &Machine, script: &str, command: &Command, confine: fn()) -> Output {
    let mut unshare = Command::new("unshare");
    let script = format!("mount -t tmpfs none /dev && touch /dev/null && {script}");
    unshare.args(["-m", "sh", "-c", &script, "sh"]);
    unshare.arg(command.get_program()).args(command.get_args());
    machine.equip(&mut unshare);
    #[allow(unsafe_code)] // between fork and exec
    // SAFETY: what confines a process makes system calls alone.
    unsafe {
        unshare.pre_exec(move || {
            confine();
            Ok(())
        });
    }
    unshare.output().unwrap()
}

fn nothing() {}

/// In force from the exec on: root keeps what the bounding set holds.
fn without_setpcap() {
    sandbox::drop_capability(8);
}

/// Two starts of `true`, how each ended, and what is in /dev then.
fn two_starts(machine: &Machine, confine: fn()) -> (String, String) {
    let options = ["--gpu", "optional", "--", "true"];
    let script = "for start in first second; do \"$@\"; echo $start $?; done; ls /dev";
    let output = in_own_dev(machine, script, &machine.command("run", &options), confine);
    (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_start_leaves_none_behind_and_the_next_one_ends_the_same() {
    Need::DeviceNodes.demand();
    for confine in [nothing, without_setpcap] {
        let machine = with_nvml_alone(NVML_ALONE);
        let (said, stderr) = two_starts(&machine, confine);
        assert_eq!(said, "first 0\nsecond 0\nnull\n", "{stderr}");
        assert!(!stderr.contains("/dev/nvidiactl"), "{stderr}");
        assert_eq!(stderr.matches("driver-missing").count(), 2, "{stderr}");
    }
    // A libcuda that makes one, too.
    let machine = Machine::new(r#"{"calls": {"cuInit": {"node": "/dev/nvidiactl", "returns": 100}}}"#);
    let (said, stderr) = two_starts(&machine, nothing);
    assert_eq!(said, "first 0\nsecond 0\nnull\n", "{stderr}");
}

#[test]
fn what_the_smoke_starts_makes_none_and_the_service_may() {
    Need::DeviceNodes.demand();
    let machine = Machine::without_driver().manifest(
        r#"{"schema": 1, "name": "t", "smoke": [{"name": "own", "argv": ["sh", "-c", "! mknod /dev/nvidiactl c 195 255"]}]}"#,
    );
    for more in [&[][..], &["--init"]] {
        let service = ["--", "mknod", "/dev/of-the-service", "c", "1", "3"];
        let options = [&["--gpu", "off"], more, &service].concat();
        let command = machine.command("run", &options);
        let output = in_own_dev(&machine, "\"$@\"; echo $?; ls /dev", &command, nothing);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, "0\nnull\nof-the-service\n", "{output:?}");
    }
}

#[test]
fn where_that_cannot_be_prevented_a_start_is_judged_all_the_same() {
    Need::DeviceNodes.demand();
    let machine = with_nvml_alone(NVML_ALONE);
    let command = machine.command("run", &["--gpu", "optional", "--", "true"]);
    let output = in_own_dev(
        &machine,
        "\"$@\"; echo $?; ls /dev",
        &command,
        sandbox::capabilities_are_kept,
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "0\nnull\nnvidiactl\n", "{output:?}");
}

#[test]
fn health_opens_those_that_are_there_and_does_not_ask_cuda() {
    Need::DeviceNodes.demand();
    let machine = Machine::where_call("cuInit", r#"{"mark": "{dir}/asked"}"#);
    let command = machine.command("check", &["--stage", "health", "--report", "-"]);
    for (node, exit) in [("true", 0), ("mkdir /dev/nvidiactl", 82)] {
        let script = format!("{node} && \"$@\"");
        let checked = Checked::of(in_own_dev(&machine, &script, &command, nothing), None);
        assert_eq!(checked.exit(), exit, "{checked}");
        if exit != 0 {
            checked.says(
                "gpu-not-ready",
                "fail",
                ["open: ", "a node that opens", "/dev/nvidiactl", ""],
            );
        }
    }
    assert!(!machine.path("asked").exists());
}

/// Where there are nodes of several GPUs, each is asked by a process of its own.
#[test]
fn several_gpus_are_asked_side_by_side_and_come_in_their_order() {
    Need::DeviceNodes.demand();
    let nodes = "touch /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia0 /dev/nvidia1 /dev/nvidia2 /dev/nvidia3";
    let script = format!("{nodes} && \"$@\"");
    let options = ["--stage", "health", "--report", "-", "--device-timeout", "2s"];
    let four = |calls: &str| {
        let script = format!(r#"{{"devices": [{{"repeat": 4}}], "calls": {{{calls}}}}}"#);
        Machine::new(&script)
    };
    let checked = |machine: &Machine| {
        let command = machine.command("check", &options);
        Checked::of(in_own_dev(machine, &script, &command, nothing), None)
    };
    let indices = |checked: &Checked| -> Vec<u64> {
        let devices = checked.report["facts"]["device"]["nvml_devices"]
            .as_array()
            .unwrap();
        devices
            .iter()
            .map(|device| device["index"].as_u64().unwrap())
            .collect()
    };
    // The first is the last to answer.
    let slow = r#""nvmlDeviceGetName": {"device": 0, "delay_ms": 300}"#;
    let healthy = checked(&four(slow));
    assert_eq!(healthy.exit(), 0, "{healthy}");
    assert_eq!(indices(&healthy), [0, 1, 2, 3]);
    let opened = healthy.report["facts"]["device"]["opened"].as_array().unwrap();
    assert_eq!(opened.len(), 6, "{healthy}");
    // One that is lost, and one that hangs, are told by their numbers, and the others are known.
    let lost = checked(&four(r#""nvmlDeviceGetName": {"device": 3, "returns": 15}"#));
    assert_eq!((lost.exit(), indices(&lost).len()), (82, 4), "{lost}");
    let subject = lost.problem("gpu-unhealthy")["subject"].to_string();
    assert!(subject.contains("GPU 3"), "{lost}");
    let hanging = checked(&four(
        r#""nvmlDeviceGetTotalEccErrors": {"device": 2, "hang": true}"#,
    ));
    assert_eq!(hanging.exit(), 85, "{hanging}");
    hanging.says(
        "helper-timeout",
        "fail",
        ["nvmlDeviceGetTotalEccErrors of GPU 2", "", "", ""],
    );
    assert!(
        hanging.report["facts"]["device"]["nvml_devices"]
            .as_array()
            .unwrap()
            .len()
            >= 2
    );
}

/// A probe under `--gpu optional`: a GPU whose node is there was given to the container, and is gone.
#[test]
fn a_gpu_that_is_gone_fails_the_probe_and_one_that_never_was_does_not() {
    Need::DeviceNodes.demand();
    for script in [
        r#"{"devices": []}"#,
        r#"{"calls": {"nvmlInit_v2": {"returns": 9}}}"#,
        r#"{"calls": {"nvmlInit_v2": {"returns": 999}}}"#,
    ] {
        let machine = with_nvml_alone(script);
        let options = ["--stage", "health", "--gpu", "optional", "--report", "-"];
        let command = machine.command("check", &options);
        for (node, exit) in [
            ("true", 0),
            ("touch /dev/nvidiactl", 0),
            ("touch /dev/nvidiactl /dev/nvidia3", 82),
        ] {
            let script = format!("{node} && \"$@\"");
            let checked = Checked::of(in_own_dev(&machine, &script, &command, nothing), None);
            assert_eq!(checked.exit(), exit, "{node}: {checked}");
        }
    }
    // The same at the start: what was never there does not end it, and CUDA decides about the rest.
    let machine = with_nvml_alone(r#"{"devices": []}"#);
    let command = machine.command("run", &["--gpu", "optional", "--", "true"]);
    let output = in_own_dev(&machine, "\"$@\"", &command, nothing);
    assert!(output.status.success(), "{output:?}");
}

/// Whoever makes it: one that came to be after the start began was not given to the container.
#[test]
fn one_that_nvml_makes_is_none_that_the_container_was_given() {
    Need::DeviceNodes.demand();
    let machine = with_nvml_alone(r#"{"calls": {"nvmlInit_v2": {"mark": "/dev/nvidiactl", "returns": 9}}}"#);
    let command = machine.command("check", &["--report", "-"]);
    let script = "\"$@\"; status=$?; ls /dev >&2; exit $status";
    let checked = Checked::of(in_own_dev(&machine, script, &command, nothing), None);
    let stderr = String::from_utf8_lossy(&checked.output.stderr);
    assert!(stderr.contains("nvidiactl"), "{stderr}");
    checked.says(
        "driver-missing",
        "fail",
        [
            "",
            "",
            "there is no NVIDIA driver in this container",
            "docker run --gpus all",
        ],
    );
    assert_eq!(checked.report["facts"]["device"].get("opened"), None, "{checked}");
}
