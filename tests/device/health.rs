//! `check --stage health`: NVML and not CUDA, for exec probes. The device nodes that it opens are in nodes.rs.

use crate::support::device::{Checked, Machine};

fn health(machine: &Machine, options: &[&str]) -> Checked {
    machine.check(&[&["--stage", "health"], options].concat())
}

#[test]
fn cuda_is_not_asked() {
    // Whatever libcuda would do does not matter.
    for behaviour in [r#"{"hang": true}"#, r#"{"signal": 11}"#, r#"{"returns": 999}"#] {
        for function in ["load libcuda", "cuInit"] {
            if function == "load libcuda" && behaviour.contains("returns") {
                continue; // a constructor returns nothing
            }
            let machine = Machine::where_call(function, behaviour);
            let checked = health(&machine, &["--device-timeout", "1s"]);
            assert_eq!(checked.exit(), 0, "{checked}");
            assert_eq!(checked.codes("pass"), ["gpu-unhealthy"]);
            assert_eq!(checked.report["facts"]["device"]["helper"]["end"], "not-run");
        }
    }
    insta::assert_snapshot!("health-table", Machine::new("{}").table(&["--stage", "health"]));
}

#[test]
fn a_gpu_that_is_not_well_fails() {
    for state in [
        r#""ecc": 1"#,
        r#""remap_pending": true"#,
        r#""remap_failed": true"#,
        r#""compute_mode": 2"#,
        r#""mig": true"#,
        r#""recovery_action": 1"#,
        r#""recovery_action": 2"#,
    ] {
        let machine = Machine::new(&format!(r#"{{"devices": [{{}}, {{{state}}}]}}"#));
        // Here all that NVML shows counts: nothing else says which ones are ours.
        let machine = machine.env("CUDA_VISIBLE_DEVICES", "0");
        let checked = health(&machine, &[]);
        assert_eq!(checked.exit(), 82, "{checked}");
        assert_eq!(checked.codes("fail"), ["gpu-unhealthy"]);
        let subject = checked.problem("gpu-unhealthy")["subject"].as_str().unwrap();
        assert!(subject.starts_with("GPU 1 "), "{subject}");
    }
}

#[test]
fn what_the_driver_asks_for_without_haste_is_a_warning_here() {
    // The service may finish its work, and is not ended for the fabric of a GPU that computes.
    for (state, code, observed, hint) in [
        (
            r#""recovery_action": 3"#,
            "gpu-unhealthy",
            "Drain P2P",
            "peer-to-peer",
        ),
        (
            r#""recovery_action": 4"#,
            "gpu-unhealthy",
            "Drain and Reset",
            "reset",
        ),
        (
            r#""fabric": {"state": 2}"#,
            "gpu-not-ready",
            "in progress",
            "nvidia-fabricmanager",
        ),
        (
            r#""fabric": {"state": 3, "health": 16}"#,
            "gpu-unhealthy",
            "a route is unhealthy",
            "nvidia-smi -q",
        ),
    ] {
        let machine = Machine::new(&format!(r#"{{"devices": [{{{state}}}]}}"#));
        let checked = health(&machine, &[]);
        assert_eq!(checked.exit(), 0, "{checked}");
        checked.says(code, "warn", [observed, "", "", ""]);
        let finding = checked.problem(code);
        let told = format!("{} {}", finding["message"], finding["hint"]);
        assert!(told.contains(hint), "{finding}");
    }
}

#[test]
fn errors_are_failures_here() {
    for (number, code, hint) in [
        (4, "gpu-not-ready", "/dev/nvidiactl"),
        (9, "gpu-not-ready", "modprobe nvidia"),
        (15, "gpu-unhealthy", "Xid 79"),
        (18, "gpu-not-ready", "recreate the container"),
        (999, "gpu-not-ready", "recreate the container"),
        (77, "gpu-not-ready", "nvidia-smi on the host"),
    ] {
        let machine = Machine::where_call("nvmlInit_v2", &format!(r#"{{"returns": {number}}}"#));
        let checked = health(&machine, &[]);
        assert_eq!(checked.exit(), 82, "{checked}");
        let observed = format!("nvmlInit_v2 returned {number}");
        checked.says(code, "fail", [&observed, "success", "", hint]);
    }
}

#[test]
fn a_hang_and_a_crash() {
    let machine = Machine::where_call("nvmlInit_v2", r#"{"hang": true}"#);
    let checked = health(&machine, &["--device-timeout", "1s"]);
    assert_eq!(checked.exit(), 85, "{checked}");
    checked.says(
        "helper-timeout",
        "fail",
        [
            "no answer from nvmlInit_v2 after 1 s",
            "within --device-timeout",
            "nvmlInit_v2 hangs",
            "dmesg",
        ],
    );
    let machine = Machine::where_call("nvmlInit_v2", r#"{"signal": 11}"#);
    let checked = health(&machine, &[]);
    assert_eq!(checked.exit(), 82, "{checked}");
    checked.says(
        "helper-crashed",
        "fail",
        ["SIGSEGV in nvmlInit_v2", "an answer", "ended in nvmlInit_v2", ""],
    );
}

#[test]
fn without_nvml_or_a_gpu() {
    let checked = health(&Machine::without_driver(), &[]);
    assert_eq!(checked.exit(), 82, "{checked}");
    checked.says(
        "driver-missing",
        "fail",
        [
            "libnvidia-ml.so.1: cannot open",
            "libnvidia-ml.so.1",
            "NVML is not there",
            "`utility`",
        ],
    );
    let checked = health(&Machine::new(r#"{"devices": []}"#), &[]);
    assert_eq!(checked.exit(), 82, "{checked}");
    checked.says(
        "gpu-missing",
        "fail",
        [
            "returned 0",
            "at least one GPU",
            "NVML sees no GPU",
            "request a GPU",
        ],
    );
}

#[test]
fn the_gpu_policy_holds_here_too() {
    for machine in [Machine::without_driver(), Machine::new(r#"{"devices": []}"#)] {
        let checked = health(&machine, &["--gpu", "optional"]);
        assert_eq!(checked.exit(), 0, "{checked}");
        assert_eq!(checked.report["verdict"], "warn");
    }
    let checked = health(&Machine::without_driver(), &["--gpu", "off"]);
    assert_eq!(checked.exit(), 0, "{checked}");
    checked.says("nvml-missing", "skip", ["", "", "not asked: --gpu off", ""]);
    // NVML is in the image or mounted, and there was never a GPU: what the start let pass does not end the service.
    let nothing = Machine::new(r#"{"devices": [], "calls": {"nvmlInit_v2": {"returns": 9}}}"#);
    let checked = health(&nothing, &["--gpu", "optional"]);
    assert_eq!(checked.exit(), 0, "{checked}");
    checked.says("gpu-not-ready", "warn", ["nvmlInit_v2 returned 9", "", "", ""]);
    assert_eq!(health(&nothing, &[]).exit(), 82);
    // A sick GPU is one that is there.
    let sick = Machine::new(r#"{"devices": [{"ecc": 1}]}"#);
    assert_eq!(health(&sick, &["--gpu", "optional"]).exit(), 82);
}
