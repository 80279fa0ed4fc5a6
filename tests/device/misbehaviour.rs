//! A driver that crashes, hangs, talks, or leaves processes behind.

use std::fs;
use std::process::Stdio;

use crate::support::device::Machine;

#[test]
fn a_crash_is_told_with_its_signal_and_its_step() {
    for (number, name) in [
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (11, "SIGSEGV"),
    ] {
        let machine = Machine::where_call("cuInit", &format!(r#"{{"signal": {number}}}"#));
        let observed = format!("{name} in cuInit");
        let checked = machine.prove(82, &[]);
        checked.says(
            "helper-crashed",
            "fail",
            [
                &observed,
                "an answer",
                "the process that asks the driver ended in cuInit",
                "run nvidia-smi on the host",
            ],
        );
        assert_eq!(checked.codes("fail"), ["helper-crashed"]);
    }
    insta::assert_snapshot!(
        "crash-run",
        Machine::where_call("cuInit", r#"{"signal": 11}"#).complaint(&[])
    );
}

#[test]
fn signals_that_do_not_come_from_the_library_have_their_own_hint() {
    for (number, name, hint) in [(9, "SIGKILL", "memory limit"), (31, "SIGSYS", "seccomp profile")] {
        let machine = Machine::where_call("cuInit", &format!(r#"{{"signal": {number}}}"#));
        let observed = format!("{name} in cuInit");
        machine.prove(82, &[]).says(
            "helper-crashed",
            "fail",
            [&observed, "an answer", "ended in cuInit", hint],
        );
    }
}

#[test]
fn a_crash_while_loading_is_told_as_that() {
    for (function, step, what, exit, status) in [
        ("load libcuda", "dlopen libcuda.so.1", "the driver", 82, "fail"),
        ("load libnvidia-ml", "dlopen libnvidia-ml.so.1", "NVML", 0, "warn"),
    ] {
        let machine = Machine::where_call(function, r#"{"signal": 11}"#);
        let observed = format!("SIGSEGV in {step}");
        let message = format!("the process that asks {what} ended in {step}");
        let checked = machine.prove(exit, &[]);
        checked.says("helper-crashed", status, [&observed, "an answer", &message, ""]);
    }
}

#[test]
fn a_crash_in_the_middle_keeps_what_was_said_before() {
    let machine = Machine::new(
        r#"{"devices": [{"repeat": 4}], "calls": {"cuDeviceGetName": {"device": 2, "signal": 11}}}"#,
    );
    let checked = machine.prove(82, &[]);
    checked.says(
        "helper-crashed",
        "fail",
        [
            "SIGSEGV in cuDeviceGetName of device 2",
            "an answer",
            "ended in cuDeviceGetName of device 2",
            "",
        ],
    );
    assert_eq!(
        checked.report["facts"]["device"]["devices"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(checked.report["facts"]["device"]["helper"]["signal"], 11);
}

#[test]
fn a_crash_of_nvml_does_not_hide_what_cuda_said() {
    let machine = Machine::where_call("nvmlInit_v2", r#"{"signal": 11}"#);
    let checked = machine.prove(0, &[]);
    checked.says(
        "helper-crashed",
        "warn",
        [
            "SIGSEGV in nvmlInit_v2",
            "an answer",
            "the process that asks NVML ended in nvmlInit_v2",
            "CUDA answers, so the service starts",
        ],
    );
    assert_eq!(checked.problem("helper-crashed")["subject"], "NVML");
    assert!(checked.codes("pass").contains(&"gpu-missing"), "{checked}");
}

#[test]
fn a_hang_ends_at_the_deadline_with_its_step() {
    let short = ["--device-timeout", "1s"];
    for (function, step) in [
        ("load libcuda", "dlopen libcuda.so.1"),
        ("cuInit", "cuInit"),
        ("cuDeviceGetCount", "cuDeviceGetCount"),
    ] {
        let machine = Machine::where_call(function, r#"{"hang": true}"#);
        let observed = format!("no answer from {step} after 1 s");
        let message = format!("the driver did not answer: {step} hangs");
        let checked = machine.prove(85, &short);
        checked.says(
            "helper-timeout",
            "fail",
            [
                &observed,
                "an answer within --device-timeout",
                &message,
                "CUDA_ENTRYPOINT_DEVICE_TIMEOUT",
            ],
        );
        assert_eq!(checked.report["facts"]["device"]["helper"]["killed"], true);
    }
    insta::assert_snapshot!(
        "hang-run",
        Machine::where_call("cuInit", r#"{"hang": true}"#).complaint(&["--device-timeout", "250ms"])
    );
}

#[test]
fn a_deadline_counts_behind_a_failure_of_its_stage_and_before_the_next() {
    // NVML hangs; CUDA says that there is no GPU: that is definite.
    let machine = Machine::new(r#"{"devices": [], "calls": {"nvmlInit_v2": {"hang": true}}}"#);
    let checked = machine.prove(82, &["--device-timeout", "1s"]);
    assert_eq!(checked.codes("fail"), ["gpu-missing", "helper-timeout"]);
    // CUDA shows a GPU, so a hanging NVML is a warning, and what is wrong with the GPU counts.
    let machine = Machine::new(r#"{"devices": [{"cc": "12.0"}], "calls": {"nvmlInit_v2": {"hang": true}}}"#);
    let checked = machine.prove(83, &["--device-timeout", "1s"]);
    assert_eq!(checked.codes("fail"), ["arch-unsupported"]);
    assert!(checked.codes("warn").contains(&"helper-timeout"), "{checked}");
    // Nothing else is wrong: the service starts.
    let machine = Machine::where_call("nvmlInit_v2", r#"{"hang": true}"#);
    let checked = machine.prove(0, &["--device-timeout", "1s"]);
    checked.says(
        "helper-timeout",
        "warn",
        ["no answer from nvmlInit_v2 after 1 s", "", "", "CUDA answers"],
    );
    machine.prove(85, &["--device-timeout", "1s", "--deny", "helper-timeout"]);
    // The driver hangs: no GPU is known to work.
    let machine = Machine::where_call("cuInit", r#"{"hang": true}"#);
    let checked = machine.prove(85, &["--device-timeout", "1s"]);
    assert_eq!(checked.codes("fail"), ["helper-timeout"]);
}

#[test]
fn destructors_are_not_waited_for() {
    for behaviour in [r#"{"hang": true}"#, r#"{"signal": 11}"#, r#"{"exit": 3}"#] {
        let script =
            format!(r#"{{"calls": {{"exit libcuda": {behaviour}, "exit libnvidia-ml": {behaviour}}}}}"#);
        assert_eq!(Machine::new(&script).prove(0, &[]).report["verdict"], "pass");
    }
}

#[test]
fn an_exit_inside_the_driver_is_no_answer() {
    for status in [0, 1, 3] {
        let machine = Machine::where_call("cuDeviceGetCount", &format!(r#"{{"exit": {status}}}"#));
        let observed = format!("exit status {status} in cuDeviceGetCount");
        machine.prove(82, &[]).says(
            "helper-crashed",
            "fail",
            [
                &observed,
                "an answer",
                "ended in cuDeviceGetCount",
                "run nvidia-smi",
            ],
        );
    }
    // What it said on its way out is part of what was seen.
    let machine = Machine::where_call("cuInit", r#"{"print": "NVRM: giving up\n", "exit": 1}"#);
    machine.prove(82, &[]).says(
        "helper-crashed",
        "fail",
        [
            "exit status 1 in cuInit: NVRM: giving up",
            "an answer",
            "ended in cuInit",
            "",
        ],
    );
}

#[test]
fn chatter_changes_nothing_and_reaches_nobody() {
    let machine = Machine::new(
        r#"{"calls": {"cuInit": {"print": "\"done\"\n{\"driver\":{}}\nchatter\n"}, "nvmlInit_v2": {"print": "chatter\n"},
            "load libcuda": {"print": "{\"device\":{\"ordinal\":9,\"name\":\"forged\"}}\n"}}}"#,
    );
    let checked = machine.prove(0, &[]);
    assert_eq!(checked.report["verdict"], "pass");
    assert_eq!(
        checked.report["facts"]["device"]["devices"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let ran = machine.run(&[]);
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(!said.contains("chatter") && !said.contains("forged"), "{said}");
}

#[test]
fn a_flood_is_swallowed() {
    let machine =
        Machine::new(r#"{"calls": {"cuInit": {"flood": 50000000}, "nvmlInit_v2": {"flood": 50000000}}}"#);
    assert_eq!(machine.prove(0, &[]).report["verdict"], "pass");
    // The end of it is all that is kept.
    let machine = Machine::where_call("cuInit", r#"{"flood": 50000000, "exit": 1}"#);
    let checked = machine.prove(82, &[]);
    let observed = checked.problem("helper-crashed")["observed"]
        .as_str()
        .unwrap()
        .to_string();
    assert!(
        observed.starts_with("exit status 1 in cuInit: xxx"),
        "{observed:.80}"
    );
    assert!(observed.len() < 20_000, "{}", observed.len());
}

/// Processes that were given this machine's script.
fn left_behind(machine: &Machine) -> Vec<String> {
    let wanted = format!("FAKE_GPU_SCRIPT={}", machine.path("script.json").display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ
            .split(|&b| b == 0)
            .any(|variable| variable == wanted.as_bytes())
        {
            found.push(fs::read_to_string(entry.path().join("status")).unwrap_or_default());
        }
    }
    found
}

#[test]
fn a_daemon_of_the_driver_is_not_left_to_the_service() {
    let script = r#"{"calls": {"cuInit": {"fork_daemon": true}, "nvmlInit_v2": {"fork_daemon": true}}}"#;
    let machine = Machine::new(script);
    assert_eq!(machine.prove(0, &[]).report["verdict"], "pass");
    assert_eq!(left_behind(&machine), [""; 0]);
    // Nor where the helper is killed.
    let script = r#"{"calls": {"cuInit": {"fork_daemon": true, "hang": true}}}"#;
    let machine = Machine::new(script);
    machine.prove(85, &["--device-timeout", "1s"]);
    assert_eq!(left_behind(&machine), [""; 0]);
    // The search finds what is there.
    let mut child = machine
        .command("run", &["--gpu", "off"])
        .args(["--", "sleep", "60"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // In the middle of its exec it has no environment to be found by.
    let found = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        left_behind(&machine).len() == 1
    });
    assert!(found);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn no_core_file_and_no_child_is_left() {
    let machine = Machine::where_call("cuInit", r#"{"signal": 11}"#);
    let service = "cat /proc/$$/task/$$/children; echo; ulimit -c";
    let limit = std::process::Command::new("sh")
        .args(["-c", "ulimit -c"])
        .output()
        .unwrap()
        .stdout;
    let mut command = machine.command("run", &["--mode", "warn"]);
    let output = command.args(["--", "sh", "-c", service]).output().unwrap();
    // `cat` itself is the shell's only child.
    let said = String::from_utf8(output.stdout).unwrap();
    let children = said.lines().next().unwrap().split_whitespace().count();
    assert!(children <= 1, "{said}");
    // The helper's own limit is not the service's.
    assert!(said.ends_with(std::str::from_utf8(&limit).unwrap()), "{said}");
}
