//! An NVML that has few functions, that cannot be loaded, that is slow, that hangs beside a CUDA that answers, or that
//! shows other GPUs than CUDA does. It never ends a service for which CUDA is enough.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::driver::without_limits;
use crate::support::device::{Checked, Machine};
use crate::support::image::c_library;
use crate::support::{fakes, sandbox};

const LIBRARY: &str = "libnvidia-ml.so.1";

fn health(machine: &Machine, options: &[&str]) -> Checked {
    machine.check(&[&["--stage", "health"], options].concat())
}

/// A shim with five functions, of which one that nobody calls needs a symbol that nothing has; `name` is the body of the
/// one that tells a GPU's name.
fn shim(machine: &Machine, name: &str) -> Vec<u8> {
    let source = format!(
        r#"
        int nothing_has_this(void);
        int nvmlInit_v2(void) {{ return 0; }}
        int nvmlDeviceGetCount_v2(unsigned *count) {{ *count = 1; return 0; }}
        int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {{ *handle = "it"; return 0; }}
        int nvmlDeviceGetName(void *handle, char *name, unsigned length) {{ {name} }}
        int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {{ return nothing_has_this(); }}
        "#
    );
    fs::read(c_library(&machine.path(""), "shim", &source)).unwrap()
}

#[test]
fn functions_that_are_left_open_count_only_where_they_are_called() {
    let machine = Machine::new("{}");
    let works = shim(&machine, "name[0] = 'G'; name[1] = 0; return 0;");
    let machine = machine.nvml(&works);
    let checked = machine.prove(0, &[]);
    assert_eq!(checked.report["verdict"], "pass", "{checked}");
    let nvml = &checked.report["facts"]["device"]["nvml_devices"][0];
    assert_eq!(nvml["name"], "G", "{checked}");
    assert_eq!(health(&machine, &[]).exit(), 0);
    // A variable that has everything bound at once is the service's.
    let machine = machine.env("LD_BIND_NOW", "1");
    assert_eq!(machine.prove(0, &[]).report["verdict"], "pass");

    let machine = Machine::new("{}");
    let breaks = shim(&machine, "return nothing_has_this();");
    let machine = machine.nvml(&breaks);
    let words = [
        "undefined symbol: nothing_has_this",
        "an answer",
        "ended in nvmlDeviceGetName of GPU 0",
        "",
    ];
    machine.prove(0, &[]).says("helper-crashed", "warn", words);
    let checked = health(&machine, &[]);
    assert_eq!(checked.exit(), 82, "{checked}");
    checked.says("helper-crashed", "fail", words);
}

#[test]
fn each_function_that_it_lacks_is_not_asked() {
    for function in [
        "nvmlErrorString",
        "nvmlSystemGetDriverVersion",
        "nvmlSystemGetCudaDriverVersion_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetName",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetBrand",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMaxMigDeviceCount",
        "nvmlDeviceGetMigDeviceHandleByIndex",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetComputeMode",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetGpuFabricInfoV",
    ] {
        // With MIG on, so that none of them is left out.
        let machine = Machine::new(r#"{"devices": [{"mig": true, "mig_instances": 1}]}"#);
        let machine = machine.nvml(&fakes::without(LIBRARY, function));
        for checked in [machine.prove(0, &[]), health(&machine, &[])] {
            assert_eq!(checked.exit(), 0, "{function}: {checked}");
            assert_eq!(checked.report["verdict"], "pass", "{function}: {checked}");
        }
    }
    // Without these nothing can be asked.
    for function in ["nvmlInit_v2", "nvmlDeviceGetCount_v2"] {
        let machine = Machine::new("{}").nvml(&fakes::without(LIBRARY, function));
        let observed = format!("{function}: the library does not export this function");
        machine
            .prove(0, &[])
            .says("nvml-missing", "warn", [&observed, "success", "", ""]);
        assert_eq!(health(&machine, &[]).exit(), 82);
    }
}

#[test]
fn what_an_older_driver_does_not_know_is_no_failure() {
    // A field of a newer release, a struct of a newer version, and a GPU without a fabric.
    for calls in [
        r#""nvmlDeviceGetFieldValues": {"returns": 2}"#,
        r#""nvmlDeviceGetFieldValues": {"returns": 3}"#,
        r#""nvmlDeviceGetFieldValues": {"returns": 999}"#,
        r#""nvmlDeviceGetGpuFabricInfoV": {"returns": 25}"#,
        r#""nvmlDeviceGetGpuFabricInfoV": {"returns": 3}"#,
    ] {
        let machine = Machine::new(&format!(r#"{{"calls": {{{calls}}}}}"#));
        let checked = machine.prove(0, &[]);
        assert_eq!(checked.report["verdict"], "pass", "{calls}: {checked}");
        assert_eq!(health(&machine, &[]).report["verdict"], "pass", "{calls}");
    }
    let checked = Machine::new(r#"{"devices": [{"recovery_action": null}]}"#).prove(0, &[]);
    let gpu = &checked.report["facts"]["device"]["nvml_devices"][0];
    assert_eq!(
        (&gpu["recovery_action"], &gpu["error"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(checked.report["verdict"], "pass", "{checked}");
}

#[test]
fn a_hang_in_a_newer_call_is_that_calls() {
    for call in ["nvmlDeviceGetFieldValues", "nvmlDeviceGetGpuFabricInfoV"] {
        let machine = Machine::where_call(call, r#"{"hang": true}"#);
        let checked = health(&machine, &["--device-timeout", "1s"]);
        assert_eq!(checked.exit(), 85, "{checked}");
        let observed = format!("no answer from {call} of GPU 0 after 1 s");
        checked.says("helper-timeout", "fail", [&observed, "", "hangs", ""]);
    }
}

#[test]
fn every_way_in_which_it_does_not_load_is_told_from_none() {
    let real = fs::read(fakes::fake_driver_dir().join(LIBRARY)).unwrap();
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = real.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let needs = real.windows(11).position(|w| w == b"\0libc.so.6\0").unwrap();
    let machine = Machine::new("{}");
    let open_data =
        "extern int nothing_has_this; int *p = &nothing_has_this; int nvmlInit_v2(void) { return 0; }";
    let open_data = fs::read(c_library(&machine.path(""), "open", open_data)).unwrap();
    for (what, bytes, observed) in [
        ("empty", Vec::new(), "file too short"),
        (
            "cut off in its headers",
            real[..100].to_vec(),
            "cannot read file data",
        ),
        ("no library", b"#!/bin/sh\n".repeat(100), "invalid ELF header"),
        ("32 bits", changed(4, &[1]), "wrong ELF class"),
        // e_machine: EM_AARCH64
        (
            "another processor",
            changed(18, &183u16.to_le_bytes()),
            "No such file",
        ),
        ("a library that it needs", changed(needs + 4, b"X"), "libX.so.6"),
        (
            "data that nothing has",
            open_data,
            "undefined symbol: nothing_has_this",
        ),
    ] {
        let machine = Machine::new("{}").nvml(&bytes);
        let words = [observed, LIBRARY, "NVML is there and cannot be loaded", "NVIDIA"];
        let words = match what {
            "another processor" => [
                observed,
                LIBRARY,
                words[2],
                "is there, and the loader passes it over",
            ],
            _ => words,
        };
        let checked = machine.prove(0, &[]);
        assert_eq!(checked.codes("fail"), [""; 0], "{what}");
        checked.says("nvml-missing", "warn", words);
        let checked = health(&machine, &[]);
        assert_eq!(checked.exit(), 82, "{what}: {checked}");
        checked.says("driver-missing", "fail", words);
    }
    // The loader takes it, and misses the rest.
    let words = [
        "SIGBUS in dlopen libnvidia-ml.so.1",
        "an answer",
        "is there and cannot be loaded: it is cut off",
        "compare the file's size",
    ];
    let machine = Machine::new("{}").nvml(&real[..64 << 10]);
    machine.prove(0, &[]).says("helper-crashed", "warn", words);
    health(&machine, &[]).says("helper-crashed", "fail", words);
    // Root reads everything, unless it may not override.
    let machine = Machine::new("{}").nvml(&real).sandbox(sandbox::no_override);
    let file = machine.path("driver").join(LIBRARY);
    fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
    let words = [
        "No such file",
        LIBRARY,
        "NVML is there and cannot be loaded",
        "this user may not read it (chmod a+r)",
    ];
    machine.prove(0, &[]).says("nvml-missing", "warn", words);
}

/// Four GPUs of which each call takes this long, of CUDA's and of NVML's.
fn slow(ms: u32) -> Machine {
    let calls = [
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceGetUuid",
        "cuDeviceTotalMem_v2",
        "cuDeviceGetPCIBusId",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetName",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetBrand",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetComputeMode",
    ];
    let calls = calls.map(|call| format!(r#""{call}": {{"delay_ms": {ms}}}"#));
    Machine::new(&format!(
        r#"{{"devices": [{{"repeat": 4}}], "calls": {{{}}}}}"#,
        calls.join(", ")
    ))
}

#[test]
fn many_calls_that_are_slow_are_no_hang() {
    // 20 of CUDA's and 40 of NVML's, each in time and all of them not.
    let checked = slow(150).prove(0, &["--device-timeout", "2s"]);
    assert_eq!(checked.report["verdict"], "pass", "{checked}");
    for (helper, least) in [("helper", 3000.0), ("nvml_helper", 6000.0)] {
        let ms = checked.report["facts"]["device"][helper]["ms"].as_f64().unwrap();
        assert!(ms >= least, "{helper}: {ms}");
    }
    assert_eq!(health(&slow(150), &["--device-timeout", "2s"]).exit(), 0);
}

#[test]
fn there_is_an_end_to_slow_calls_and_none_of_them_is_blamed() {
    let checked = health(&slow(350), &["--device-timeout", "1s"]);
    assert_eq!(checked.exit(), 85, "{checked}");
    checked.says(
        "helper-timeout",
        "fail",
        [
            "after 10 s",
            "all answers within ten times --device-timeout",
            "answers each call and takes too long in all: it has come to nvml",
            "CUDA_ENTRYPOINT_DEVICE_TIMEOUT",
        ],
    );
    let end = &checked.report["facts"]["device"]["nvml_helper"];
    assert_eq!((&end["after_ms"], &end["in_all"]), (&10_000.into(), &true.into()));
}

#[test]
fn one_that_hangs_beside_a_cuda_that_answers_does_not_hold_the_start() {
    // The deadline is a minute.
    for call in ["load libnvidia-ml", "nvmlInit_v2", "nvmlDeviceGetName"] {
        let machine = Machine::where_call(call, r#"{"hang": true}"#);
        let checked = machine.run(&[]);
        assert_eq!(checked.exit(), 0, "{checked}");
        let step = call.replace("load libnvidia-ml", "dlopen libnvidia-ml.so.1");
        let (observed, message) = (
            format!("no answer from {step}"),
            format!("did not answer: {step}"),
        );
        checked.says(
            "helper-timeout",
            "warn",
            [
                &observed,
                "within 5 s once CUDA has answered",
                &message,
                "CUDA answers, so the service starts",
            ],
        );
        let end = &checked.report["facts"]["device"]["nvml_helper"];
        assert_eq!((&end["after_ms"], &end["in_all"]), (&5_000.into(), &false.into()));
    }
    // Who denies it waits for it, and so does who has nothing else to ask.
    let machine = Machine::where_call("nvmlInit_v2", r#"{"hang": true}"#);
    let late = |checked: Checked| {
        assert_eq!(checked.exit(), 85, "{checked}");
        checked.says(
            "helper-timeout",
            "fail",
            ["after 7 s", "within --device-timeout", "nvmlInit_v2 hangs", ""],
        );
    };
    late(machine.run(&["--device-timeout", "7s", "--deny", "helper-timeout"]));
    late(health(&machine, &["--device-timeout", "7s"]));
}

#[test]
fn other_gpus_than_cudas_are_named_from_both_sides() {
    for (nvml, part) in [
        (
            "[]",
            "NVML does not show CUDA's GPU 0 NVIDIA H200 (GPU-00000000-0000-4000-8000-000000000000, 0000:00:00.0, 9.0)",
        ),
        (
            r#"[{"uuid": "GPU-99999999-0000-4000-8000-000000000000", "pci": "00000000:99:00.0"}]"#,
            "NVML does not show CUDA's GPU 0",
        ),
        (
            r#"[{"uuid": "GPU-99999999-0000-4000-8000-000000000000"}]"#,
            "GPU 0 has UUID GPU-00000000-0000-4000-8000-000000000000 by CUDA and GPU-99999999-0000-4000-8000-000000000000 by NVML",
        ),
        (
            r#"[{"pci": "00000000:99:00.0"}]"#,
            "GPU 0 has PCI address 0000:00:00.0 by CUDA and 0000:99:00.0 by NVML",
        ),
        (
            r#"[{"name": "Tesla T4", "cc": "7.5"}]"#,
            "name NVIDIA H200 by CUDA and Tesla T4 by NVML, compute capability 9.0 by CUDA and 7.5 by NVML",
        ),
    ] {
        let machine = Machine::new(&format!(r#"{{"nvml_devices": {nvml}}}"#));
        let words = [
            part,
            "the same GPUs",
            "do not show the same GPUs",
            "nvidia-smi -L",
        ];
        machine.prove(0, &[]).says("nvml-differs", "warn", words);
        machine.prove(82, &["--deny", "nvml-differs"]);
        machine.prove(0, &["--allow", "nvml-differs"]);
    }
    // By its UUID it is the same one, and its health counts.
    let sick = Machine::new(r#"{"nvml_devices": [{"pci": "00000000:99:00.0", "ecc": 3}]}"#);
    sick.prove(82, &[])
        .says("gpu-unhealthy", "fail", ["3 uncorrected ECC errors", "", "", ""]);
    insta::assert_snapshot!(
        "nvml-differs-table",
        without_limits(
            &Machine::new(r#"{"devices": [{"repeat": 2}], "nvml_devices": [{}]}"#)
                .table(&["--stage", "device"])
        )
    );
}

#[test]
fn where_cuda_shows_fewer_nothing_is_said() {
    let mig = r#"{"mig": true, "mig_instances": 2}"#;
    let four = || Machine::new(r#"{"devices": [{"repeat": 4}]}"#);
    let instance = {
        let report = Machine::new(&format!(r#"{{"devices": [{mig}]}}"#)).check(&["--stage", "device"]);
        report.report["facts"]["device"]["devices"][0]["uuid"]
            .as_str()
            .unwrap()
            .to_string()
    };
    assert!(instance.starts_with("MIG-"), "{instance}");
    for machine in [
        four(),
        four().env("CUDA_VISIBLE_DEVICES", "2"),
        four().env("CUDA_VISIBLE_DEVICES", "3,1"),
        four().env("CUDA_VISIBLE_DEVICES", "GPU-00000000-0000-4000-8000-000000000002"),
        four().env("NVIDIA_VISIBLE_DEVICES", "all"),
        Machine::new(r#"{"devices": [{}], "nvml_devices": [{"repeat": 2}]}"#),
        Machine::new(&format!(r#"{{"devices": [{mig}, {mig}]}}"#)),
        Machine::new(&format!(r#"{{"devices": [{mig}]}}"#)).env("CUDA_VISIBLE_DEVICES", &instance),
    ] {
        let checked = machine.prove(0, &[]);
        assert_eq!(checked.report["verdict"], "pass", "{checked}");
        assert!(checked.codes("pass").contains(&"gpu-unhealthy"), "{checked}");
    }
}
