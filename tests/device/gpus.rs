//! Which GPUs there are, which are visible, what they can run, and how they are.

use serde_json::Value;

use crate::support::device::{Checked, Machine};

#[test]
fn a_count_of_zero_is_no_gpu() {
    let machine = Machine::new(r#"{"device_count": 0}"#);
    machine.prove(82, &[]).says(
        "gpu-missing",
        "fail",
        [
            "cuDeviceGetCount returned 0; CUDA_VISIBLE_DEVICES is unset; NVIDIA_VISIBLE_DEVICES is unset; NVML sees 0 GPUs",
            "at least one visible GPU",
            "no GPU is visible in this container",
            "request a GPU",
        ],
    );
}

#[test]
fn no_gpu_is_a_warning_where_one_is_optional() {
    for machine in [
        Machine::new(r#"{"devices": []}"#),
        Machine::new(r#"{"device_count": 0}"#),
    ] {
        let checked = machine.prove(0, &["--gpu", "optional"]);
        assert_eq!(checked.codes("warn"), ["gpu-missing"]);
        let checked = machine.prove(82, &["--gpu", "optional", "--deny", "gpu-missing"]);
        assert_eq!(checked.codes("fail"), ["gpu-missing"]);
    }
}

#[test]
fn a_variable_that_hides_all_gpus_is_named() {
    for (value, shown) in [
        ("", "CUDA_VISIBLE_DEVICES is empty"),
        ("-1", "CUDA_VISIBLE_DEVICES=-1"),
        ("NoDevFiles", "=NoDevFiles"),
    ] {
        let machine = Machine::new("{}").env("CUDA_VISIBLE_DEVICES", value);
        let hint = "CUDA_VISIBLE_DEVICES hides every GPU: unset it";
        let checked = machine.prove(82, &[]);
        checked.says("gpu-missing", "fail", [shown, "at least one", "no GPU", hint]);
        checked.says("gpu-missing", "fail", ["NVML sees 1 GPU", "", "", ""]);
    }
    insta::assert_snapshot!(
        "hidden-run",
        Machine::new("{}").env("CUDA_VISIBLE_DEVICES", "").complaint(&[])
    );
}

#[test]
fn a_variable_that_names_no_gpu_of_this_container_is_named() {
    for value in ["7", "GPU-deadbeef-0000-4000-8000-000000000000", "0,0"] {
        let machine = Machine::new(r#"{"devices": [{"repeat": 2}]}"#).env("CUDA_VISIBLE_DEVICES", value);
        let shown = format!("CUDA_VISIBLE_DEVICES={value}");
        let hint = "CUDA_VISIBLE_DEVICES names no GPU of this container";
        machine
            .prove(82, &[])
            .says("gpu-missing", "fail", [&shown, "at least one", "no GPU", hint]);
    }
}

#[test]
fn a_variable_that_names_gpus_is_followed() {
    let script = r#"{"devices": [{"repeat": 4}]}"#;
    for (value, count) in [
        ("3", 1),
        ("GPU-00000000-0000-4000-8000-000000000002", 1),
        ("2,0", 2),
        ("1,9", 1),
    ] {
        let checked = Machine::new(script)
            .env("CUDA_VISIBLE_DEVICES", value)
            .prove(0, &[]);
        let devices = checked.report["facts"]["device"]["devices"].as_array().unwrap();
        assert_eq!(devices.len(), count, "{value}");
    }
}

#[test]
fn the_container_toolkits_variable_is_named() {
    for value in ["void", "none", ""] {
        let machine = Machine::new(r#"{"devices": []}"#).env("NVIDIA_VISIBLE_DEVICES", value);
        let shown = match value {
            "" => "NVIDIA_VISIBLE_DEVICES is empty".to_string(),
            _ => format!("NVIDIA_VISIBLE_DEVICES={value}"),
        };
        let hint = "NVIDIA_VISIBLE_DEVICES keeps the GPUs out";
        machine
            .prove(82, &[])
            .says("gpu-missing", "fail", [&shown, "at least one", "no GPU", hint]);
    }
    // Without a driver the same variable is why there is none; `none` asks for one.
    for (value, hint) in [
        ("void", "NVIDIA_VISIBLE_DEVICES=void keeps the driver out"),
        ("none", "start the container with"),
    ] {
        let machine = Machine::without_driver().env("NVIDIA_VISIBLE_DEVICES", value);
        machine.prove(82, &[]).says(
            "driver-missing",
            "fail",
            ["No such file", "", "no NVIDIA driver", hint],
        );
    }
}

#[test]
fn mig_without_an_instance_is_no_gpu() {
    let machine = Machine::new(r#"{"devices": [{"mig": true}]}"#);
    let checked = machine.prove(82, &[]);
    checked.says(
        "gpu-missing",
        "fail",
        [
            "returned 100",
            "at least one",
            "no GPU",
            "MIG is on and has no instance",
        ],
    );
    checked.says(
        "gpu-unhealthy",
        "fail",
        [
            "MIG is on, without an instance",
            "a MIG instance, or MIG off",
            "cannot compute",
            "nvidia-smi mig -cgi",
        ],
    );
    // A variable is not to blame for it.
    let checked = Machine::new(r#"{"devices": [{"mig": true}]}"#)
        .env("CUDA_VISIBLE_DEVICES", "0")
        .prove(82, &[]);
    checked.says(
        "gpu-missing",
        "fail",
        ["", "", "", "MIG is on and has no instance"],
    );
    // Where no GPU is needed, nothing of it stops the service.
    let checked = machine.prove(0, &["--gpu", "optional"]);
    assert_eq!(checked.codes("warn"), ["gpu-missing", "gpu-unhealthy"]);
    insta::assert_snapshot!("mig-run", machine.complaint(&[]));
}

#[test]
fn mig_instances_are_gpus() {
    let checked = Machine::new(r#"{"devices": [{"mig": true, "mig_instances": 2}]}"#).prove(0, &[]);
    assert_eq!(checked.report["verdict"], "pass");
    let device = &checked.report["facts"]["device"]["devices"][0];
    assert!(device["uuid"].as_str().unwrap().starts_with("MIG-"), "{device}");
}

#[test]
fn one_and_eight_and_1024_gpus() {
    for count in [1usize, 8, 1024] {
        let machine = Machine::new(&format!(r#"{{"devices": [{{"repeat": {count}}}]}}"#));
        let checked = machine.prove(0, &[]);
        let facts = &checked.report["facts"]["device"];
        assert_eq!(facts["devices"].as_array().unwrap().len(), count);
        assert_eq!(facts["nvml_devices"].as_array().unwrap().len(), count);
        // The report does not grow with them.
        assert_eq!(checked.findings().len(), 5, "{checked}");
        let table = machine.table(&["--stage", "device"]);
        assert!(table.len() < 2000, "{table}");
    }
    let machine = Machine::new(r#"{"devices": [{"repeat": 8}]}"#);
    insta::assert_snapshot!(
        "eight-table",
        super::driver::without_limits(&machine.table(&["--stage", "device"]))
    );
}

#[test]
fn more_gpus_than_there_can_be_are_not_believed() {
    let machine = Machine::new(r#"{"devices": [{"repeat": 2000}]}"#);
    machine.prove(82, &[]).says(
        "gpu-not-ready",
        "fail",
        [
            "reported 2000 devices; only the first 1024 are asked",
            "success",
            "does not behave as",
            "",
        ],
    );
    let machine = Machine::new(r#"{"device_count": -3}"#);
    machine.prove(82, &[]).says(
        "gpu-not-ready",
        "fail",
        ["reported -3 devices", "success", "does not behave as", ""],
    );
}

/// A GPU of this capability under the usual list or another one.
fn of(capability: &str, options: &[&str], exit: i32) -> Checked {
    let script = format!(r#"{{"devices": [{{"name": "X", "cc": "{capability}"}}]}}"#);
    Machine::new(&script).prove(exit, options)
}

#[test]
fn capabilities_on_the_list() {
    for capability in ["7.5", "8.0", "8.6", "8.9", "9.0"] {
        let checked = of(capability, &[], 0);
        let arch = arch_findings(&checked);
        assert_eq!(arch.len(), 1);
        assert_eq!(
            (&arch[0]["code"], &arch[0]["status"]),
            (&Value::from("arch-unsupported"), &Value::from("pass"))
        );
        assert_eq!(arch[0]["observed"], format!("compute capability {capability}"));
        assert_eq!(arch[0]["required"], "7.5;8.0;8.6;8.9;9.0");
        assert_eq!(checked.report["verdict"], "pass");
    }
}

fn arch_findings(checked: &Checked) -> Vec<&Value> {
    checked
        .findings()
        .into_iter()
        .filter(|f| f["stage"] == "arch")
        .collect()
}

#[test]
fn a_capability_that_another_ones_code_serves() {
    let checked = of("8.8", &[], 0);
    checked.says(
        "arch-unlisted",
        "warn",
        [
            "compute capability 8.8",
            "7.5;8.0;8.6;8.9;9.0",
            "code for 8.6 runs on it",
            "add 8.8 to archs",
        ],
    );
    assert_eq!(checked.report["verdict"], "warn");
}

#[test]
fn capabilities_that_nothing_serves() {
    for capability in ["7.0", "6.1", "10.0", "12.0"] {
        let checked = of(capability, &[], 83);
        let (observed, message) = (
            format!("compute capability {capability}"),
            format!("not built for compute capability {capability}"),
        );
        checked.says(
            "arch-unsupported",
            "fail",
            [
                &observed,
                "7.5;8.0;8.6;8.9;9.0",
                &message,
                "onto a node whose GPU one of 7.5;8.0;8.6;8.9;9.0 supports",
            ],
        );
        assert_eq!(checked.codes("fail"), ["arch-unsupported"]);
    }
    let script = r#"{"devices": [{"name": "NVIDIA B200", "cc": "10.0"}]}"#;
    insta::assert_snapshot!("unsupported-run", Machine::new(script).complaint(&[]));
}

#[test]
fn the_option_replaces_the_manifests_list() {
    of("10.0", &["--archs", "8.0+PTX"], 0).says(
        "arch-unlisted",
        "warn",
        [
            "compute capability 10.0",
            "8.0+PTX",
            "compiles the PTX of 8.0+PTX",
            "build the extensions for 10.0",
        ],
    );
    let hopper = of("9.0", &["--archs", "Hopper"], 0);
    assert_eq!(arch_findings(&hopper)[0]["required"], "9.0+PTX");
    assert_eq!(hopper.report["verdict"], "pass");
    let variant = of("9.0", &["--archs", "9.0a"], 0);
    assert_eq!(variant.report["verdict"], "pass");
    // The variant runs on its own capability and nowhere else.
    of("10.0", &["--archs", "9.0a+PTX"], 83);
    of("9.0", &["--archs", "8.0 8.6"], 83);
    let machine = Machine::new("{}").env("CUDA_ENTRYPOINT_ARCHS", "7.5;8.0");
    machine.prove(83, &[]);
}

#[test]
fn without_a_list_no_capability_is_judged() {
    let script = r#"{"devices": [{"cc": "3.5"}]}"#;
    let checked = Machine::new(script)
        .manifest(r#"{"schema": 1, "name": "t"}"#)
        .prove(0, &[]);
    assert_eq!(arch_findings(&checked).len(), 0);
}

#[test]
fn of_several_gpus_the_unsupported_ones_are_named() {
    let machine = Machine::fixture("mixed");
    let checked = machine.prove(83, &[]);
    let failing: Vec<_> = arch_findings(&checked)
        .into_iter()
        .filter(|f| f["status"] == "fail")
        .collect();
    assert_eq!(failing.len(), 1, "{checked}");
    assert_eq!(failing[0]["subject"], "GPUs 2, 4-5 NVIDIA B200");
    let passing: Vec<_> = arch_findings(&checked)
        .into_iter()
        .filter(|f| f["status"] == "pass")
        .collect();
    assert_eq!(passing.len(), 1);
    assert_eq!(passing[0]["subject"], "GPUs 0-1, 3 NVIDIA H200");
    insta::assert_snapshot!(
        "mixed-table",
        super::driver::without_limits(&machine.table(&["--stage", "device"]))
    );
    // Hidden ones do not count.
    Machine::fixture("mixed")
        .env("CUDA_VISIBLE_DEVICES", "0,1,3")
        .prove(0, &[]);
}

#[test]
fn a_capability_that_the_driver_does_not_tell_is_unknown() {
    let machine = Machine::new(r#"{"calls": {"cuDeviceGetAttribute": {"returns": 1}}}"#);
    let checked = machine.prove(82, &[]);
    checked.says("arch-unsupported", "unknown", ["", "7.5", "did not report", ""]);
}

#[test]
fn names_cannot_steer_a_terminal() {
    let machine = Machine::fixture("hostile-names");
    let checked = machine.prove(82, &[]);
    let report = &checked.output.stdout;
    let table = machine
        .command("check", &["--stage", "device"])
        .output()
        .unwrap()
        .stdout;
    let ran = machine.run(&[]);
    let message = std::fs::read(machine.path("termination-log")).unwrap();
    let file = std::fs::read(machine.path("report.json")).unwrap();
    let json_logs = machine.run(&["--format", "json"]).output.stderr;
    let warned = machine.run(&["--mode", "warn"]).output.stderr;
    for (what, bytes) in [
        ("report", report),
        ("table", &table),
        ("stderr", &ran.output.stderr),
        ("termination message", &message),
        ("report file", &file),
        ("JSON logs", &json_logs),
        ("stderr under warn", &warned),
    ] {
        let text = std::str::from_utf8(bytes).unwrap();
        let raw =
            |c: char| (c.is_control() && c != '\n') || ['\u{202e}', '\u{2028}', '\u{feff}'].contains(&c);
        assert!(!text.contains(raw), "{what}: {text:?}");
        assert!(
            text.contains("\\u{1b}") || text.contains("\\\\u{1b}"),
            "{what} does not show the name: {text}"
        );
    }
    // JSON's own escapes are no way around it either.
    let parsed: Value = serde_json::from_slice(&file).unwrap();
    let name = parsed["facts"]["device"]["devices"][0]["name"].as_str().unwrap();
    assert!(!name.contains(char::is_control), "{name:?}");
    // A line break in a name makes no line of its own.
    let table = String::from_utf8(table).unwrap();
    assert!(
        !table.lines().any(|line| line.starts_with("✓ all is well")),
        "{table}"
    );
}

#[test]
fn gpus_that_are_not_well() {
    for (state, observed, required, message, hint) in [
        (
            r#""ecc": 7"#,
            "7 uncorrected ECC errors since the driver was loaded",
            "none",
            "memory gave wrong data",
            "reset the GPU",
        ),
        (
            r#""remap_pending": true"#,
            "a row of memory waits to be remapped",
            "no pending row remap",
            "bad memory row",
            "reset the GPU",
        ),
        (
            r#""remap_failed": true"#,
            "a row of memory could not be remapped",
            "no failed row remap",
            "run out of spare memory rows",
            "replaced",
        ),
        (
            r#""compute_mode": 2"#,
            "compute mode Prohibited",
            "compute mode Default or Exclusive Process",
            "forbids every CUDA context",
            "nvidia-smi -c DEFAULT",
        ),
    ] {
        let machine = Machine::new(&format!(r#"{{"devices": [{{}}, {{{state}}}]}}"#));
        let checked = machine.prove(82, &[]);
        checked.says("gpu-unhealthy", "fail", [observed, required, message, hint]);
        let subject = checked.problem("gpu-unhealthy")["subject"].as_str().unwrap();
        assert!(subject.starts_with("GPU 1 NVIDIA H200"), "{subject}");
        // Not the business of a process that uses the other one alone.
        Machine::new(&format!(r#"{{"devices": [{{}}, {{{state}}}]}}"#))
            .env("CUDA_VISIBLE_DEVICES", "0")
            .prove(0, &[]);
    }
}

#[test]
fn what_the_driver_asks_for_is_repeated_with_who_must_do_it() {
    for (exit, state, observed, message, hint) in [
        (
            82,
            "1",
            "recovery action Reset",
            "requires a reset of this GPU",
            "drain the node, end all processes",
        ),
        (
            82,
            "2",
            "recovery action Reboot",
            "requires a reboot of the node",
            "drain the node and reboot",
        ),
        (
            0,
            "3",
            "recovery action Drain P2P",
            "peer-to-peer traffic",
            "exchange data between GPUs",
        ),
        (
            82,
            "4",
            "recovery action Drain and Reset",
            "takes no new work",
            "move new work to another node",
        ),
        (
            0,
            "5",
            "recovery action Recover IMEX Domain",
            "IMEX domain",
            "restart nvidia-imex",
        ),
        (
            82,
            "6",
            "recovery action Bus Reset",
            "PCIe bus",
            "reset the PCIe bus",
        ),
        (
            82,
            "7",
            "recovery action System Reboot",
            "whole system",
            "reboot it",
        ),
        (
            0,
            "99",
            "recovery action 99",
            "newer than this program",
            "nvidia-smi -q",
        ),
    ] {
        let machine = Machine::new(&format!(
            r#"{{"devices": [{{}}, {{"recovery_action": {state}}}]}}"#
        ));
        let checked = machine.prove(exit, &[]);
        let status = if exit == 0 { "warn" } else { "fail" };
        checked.says(
            "gpu-unhealthy",
            status,
            [observed, "recovery action None", message, hint],
        );
        let subject = checked.problem("gpu-unhealthy")["subject"].as_str().unwrap();
        assert!(subject.starts_with("GPU 1 NVIDIA H200"), "{subject}");
        let number: u32 = state.parse().unwrap();
        let gpu = &checked.report["facts"]["device"]["nvml_devices"][1];
        assert_eq!(gpu["recovery_action"], number);
    }
}

#[test]
fn the_fabric_is_a_warning_where_cuda_works_and_explains_where_it_does_not() {
    let devices = |fabric: &str| format!(r#""devices": [{{"fabric": {fabric}}}]"#);
    for (fabric, code, observed, message, hint) in [
        (
            r#"{"state": 1}"#,
            "gpu-not-ready",
            "registration not started",
            "not registered",
            "--wait 5m",
        ),
        (
            r#"{"state": 2}"#,
            "gpu-not-ready",
            "registration in progress",
            "not registered",
            "nvidia-fabricmanager",
        ),
        (
            r#"{"state": 3, "status": 999}"#,
            "gpu-unhealthy",
            "returned 999",
            "could not be registered",
            "nvidia-fabricmanager",
        ),
        (
            r#"{"state": 3, "health": 1}"#,
            "gpu-unhealthy",
            "bandwidth is degraded",
            "not healthy",
            "nvidia-smi -q",
        ),
    ] {
        let machine = Machine::new(&format!("{{{}}}", devices(fabric)));
        let checked = machine.prove(0, &[]);
        checked.says(code, "warn", [observed, "", message, hint]);
    }
    let well = Machine::new(&format!("{{{}}}", devices(r#"{"state": 3, "health": 34}"#)));
    let checked = well.prove(0, &[]);
    assert_eq!(checked.report["verdict"], "pass", "{checked}");
    let gpu = &checked.report["facts"]["device"]["nvml_devices"][0];
    assert_eq!(
        (&gpu["fabric_state"], &gpu["fabric_health"]),
        (&3.into(), &34.into())
    );
    // cuInit waits for the same fabric.
    let machine = Machine::new(&format!(
        r#"{{{}, "calls": {{"cuInit": {{"returns": 802}}}}}}"#,
        devices(r#"{"state": 2}"#)
    ));
    let checked = machine.check(&["--stage", "device"]);
    assert_eq!(checked.exit(), 82, "{checked}");
    assert_eq!(checked.codes("fail"), ["gpu-not-ready"; 2], "{checked}");
}

#[test]
fn exclusive_mode_is_how_mps_works() {
    let checked = Machine::new(r#"{"devices": [{"compute_mode": 3}]}"#).prove(0, &[]);
    checked.says(
        "gpu-unhealthy",
        "info",
        ["compute mode Exclusive Process", "", "one process at a time", ""],
    );
    assert_eq!(checked.report["verdict"], "pass");
}

#[test]
fn everything_wrong_with_one_gpu_is_said() {
    let machine = Machine::fixture("sick");
    let checked = machine.check(&["--stage", "device"]);
    assert_eq!(checked.exit(), 82);
    assert_eq!(checked.codes("fail"), ["gpu-unhealthy"; 4]);
    insta::assert_snapshot!(
        "sick-table",
        super::driver::without_limits(&machine.table(&["--stage", "device"]))
    );
}

#[test]
fn a_sick_gpu_that_a_variable_hides_is_nobodys_business() {
    let machine = Machine::fixture("sick").env("CUDA_VISIBLE_DEVICES", "");
    let checked = machine.prove(0, &["--gpu", "optional"]);
    assert_eq!(checked.codes("warn"), ["gpu-missing"], "{checked}");
}

#[test]
fn a_gpu_that_cuda_lost_is_named_as_the_reason() {
    let machine = Machine::new(
        r#"{"calls": {"cuInit": {"returns": 100}, "nvmlDeviceGetHandleByIndex_v2": {"returns": 15}}}"#,
    );
    let checked = machine.prove(82, &[]);
    assert_eq!(checked.codes("fail"), ["gpu-missing", "gpu-unhealthy"]);
    checked.says(
        "gpu-unhealthy",
        "fail",
        ["returned 15", "success", "fell off the bus", "Xid 79"],
    );
}

#[test]
fn what_a_gpu_does_not_support_is_not_judged() {
    let script = r#"{"devices": [{"mig": null, "ecc": null, "remap_pending": null}]}"#;
    assert_eq!(Machine::new(script).prove(0, &[]).report["verdict"], "pass");
}
