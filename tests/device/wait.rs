//! `--wait`: trying again while what failed can mend itself.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::device::Machine;

/// `function` does each of these in turn.
fn in_turn(function: &str, behaviours: &str) -> Machine {
    Machine::new(&format!(
        r#"{{"calls": {{"{function}": {behaviours}}}, "state": "{{dir}}/state"}}"#
    ))
}

/// How often `function` was called by a new process.
fn tries(machine: &Machine) -> usize {
    fs::read_to_string(machine.path("state")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_fabric_that_comes_up_is_waited_for() {
    let machine = in_turn("cuInit", r#"[{"returns": 802}, {"returns": 802}, {}]"#);
    let ran = machine.run(&["--wait", "60s"]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert_eq!(ran.report["verdict"], "pass");
    assert_eq!(tries(&machine), 3);
    let said = String::from_utf8(ran.output.stderr).unwrap();
    assert_eq!(said.matches("waiting up to ").count(), 2, "{said}");
    assert!(said.contains("fabric manager"), "{said}");
    assert_eq!(ran.output.stdout, b"started\n");
}

#[test]
fn gpus_that_appear_are_waited_for() {
    for behaviours in [
        r#"[{"returns": 100}, {}]"#,
        r#"[{"returns": 3}, {}]"#,
        r#"[{"returns": 46}, {}]"#,
        r#"[{"returns": 999}, {}]"#,
        r#"[{"hang": true}, {}]"#,
    ] {
        let machine = in_turn("cuInit", behaviours);
        let checked = machine.check(&["--stage", "device", "--wait", "60s", "--device-timeout", "2s"]);
        assert_eq!(checked.exit(), 0, "{behaviours}: {checked}");
        assert_eq!(tries(&machine), 2, "{behaviours}");
        // Nothing is left of the first try.
        assert_eq!(
            checked.report["facts"]["device"]["devices"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(checked.codes("fail"), [""; 0]);
    }
}

#[test]
fn health_can_wait_too() {
    let machine = in_turn("nvmlInit_v2", r#"[{"returns": 9}, {}]"#);
    let checked = machine.check(&["--stage", "health", "--wait", "60s"]);
    assert_eq!((checked.exit(), tries(&machine)), (0, 2), "{checked}");
}

#[test]
fn what_cannot_mend_itself_is_not_waited_for() {
    for behaviour in [
        r#"{"returns": 34}"#,
        r#"{"returns": 35}"#,
        r#"{"returns": 101}"#,
        r#"{"returns": 803}"#,
        r#"{"returns": 804}"#,
        r#"{"returns": 123456}"#,
        r#"{"signal": 11}"#,
        r#"{"exit": 1}"#,
    ] {
        let machine = in_turn("cuInit", &format!("[{behaviour}]"));
        let checked = machine.check(&["--stage", "device", "--wait", "600s"]);
        assert_ne!(checked.exit(), 0, "{behaviour}");
        assert_eq!(tries(&machine), 1, "{behaviour}: {checked}");
    }
    // A variable hides the GPU however long one waits; no driver comes into a running container.
    let hidden = in_turn("cuInit", r#"[{"returns": 100}]"#).env("CUDA_VISIBLE_DEVICES", "");
    assert_eq!(
        hidden.prove(82, &["--wait", "600s"]).codes("fail"),
        ["gpu-missing"]
    );
    assert_eq!(
        Machine::without_driver()
            .prove(82, &["--wait", "600s"])
            .codes("fail"),
        ["driver-missing"]
    );
    // One failure that stays makes waiting for the other one useless.
    let machine = Machine::new(
        r#"{"devices": [{"ecc": 1}], "calls": {"cuInit": [{"returns": 802}]}, "state": "{dir}/state"}"#,
    );
    let checked = machine.check(&["--stage", "device", "--wait", "600s"]);
    assert_eq!((checked.exit(), tries(&machine)), (82, 1), "{checked}");
    // What was forgiven is not waited for either.
    let machine = in_turn("cuInit", r#"[{"returns": 802}]"#);
    assert_eq!(
        machine.run(&["--wait", "600s", "--warn", "gpu-not-ready"]).exit(),
        0
    );
    assert_eq!(tries(&machine), 1);
}

#[test]
fn when_the_time_is_over_the_last_failure_counts() {
    let machine = in_turn("cuInit", r#"[{"returns": 802}, {"returns": 999}]"#);
    let checked = machine.check(&["--stage", "device", "--wait", "1500ms"]);
    assert_eq!(checked.exit(), 82, "{checked}");
    checked.says(
        "gpu-not-ready",
        "fail",
        ["cuInit returned 999", "success", "", "nvidia-modprobe"],
    );
    assert_eq!(tries(&machine), 3, "at once, after a pause, and at the very end");
    let machine = in_turn("cuInit", r#"[{"returns": 802}, {"hang": true}]"#);
    let ran = machine.run(&["--wait", "1s", "--device-timeout", "500ms"]);
    assert_eq!(ran.exit(), 85, "{ran}");
    ran.says("helper-timeout", "fail", ["after 500 ms", "", "cuInit hangs", ""]);
}

#[test]
fn without_wait_there_is_one_try() {
    let machine = in_turn("cuInit", r#"[{"returns": 802}, {}]"#);
    assert_eq!(machine.run(&[]).exit(), 82);
    assert_eq!(tries(&machine), 1);
}

#[test]
fn a_signal_ends_the_wait() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let machine = in_turn("cuInit", r#"[{"returns": 802}]"#);
        let mut command = machine.command("run", &["--wait", "600s"]);
        command
            .args(["--", "sh", "-c", "echo started"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert!(
            lines.any(|line| line.contains("waiting up to ")),
            "it does not wait"
        );
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + signal as i32), "{status}");
        let said: Vec<String> = lines.collect();
        assert!(
            said.iter()
                .any(|line| line.contains(&format!("ended by {}", signal.as_str()))),
            "{said:?}"
        );
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(out, "");
        let message = fs::read_to_string(machine.path("termination-log")).unwrap();
        assert!(message.contains(signal.as_str()), "{message}");
    }
}
