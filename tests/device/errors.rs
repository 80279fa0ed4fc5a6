//! Each error that people meet leads to its finding, its cause and its next step.

use crate::support::device::Machine;

/// Error, finding, part of the cause, part of the hint.
type Row = (i32, &'static str, &'static str, &'static str);

/// What the driver says of errors that are the same wherever they come from.
const OF_ANY_CALL: [Row; 13] = [
    (2, "gpu-not-ready", "memory", "nvidia-smi shows who uses it"),
    (
        3,
        "gpu-not-ready",
        "forked after CUDA had started",
        "start CUDA after the fork",
    ),
    (
        46,
        "gpu-not-ready",
        "exclusive mode with another process",
        "nvidia-smi",
    ),
    (
        101,
        "gpu-not-ready",
        "out of range",
        "correct CUDA_VISIBLE_DEVICES",
    ),
    (304, "gpu-not-ready", "operating system refused", "/dev/nvidia*"),
    (800, "gpu-not-ready", "not permitted", "recreate the container"),
    (801, "gpu-not-ready", "not supported", "belong together"),
    (
        802,
        "gpu-not-ready",
        "fabric manager",
        "start nvidia-fabricmanager",
    ),
    (
        803,
        "gpu-not-ready",
        "different versions",
        "recreate the container",
    ),
    (
        804,
        "gpu-not-ready",
        "forward compatibility",
        "remove cuda-compat",
    ),
    (
        805,
        "gpu-not-ready",
        "MPS control daemon",
        "nvidia-cuda-mps-control",
    ),
    (
        999,
        "gpu-not-ready",
        "/dev/nvidia-uvm is missing",
        "nvidia-modprobe -c 0 -u",
    ),
    (
        123_456,
        "gpu-not-ready",
        "the driver refused",
        "nvidia-smi on the host",
    ),
];

#[test]
fn errors_of_cu_init() {
    for (number, code, cause, hint) in OF_ANY_CALL {
        let machine = Machine::where_call("cuInit", &format!(r#"{{"returns": {number}}}"#));
        let checked = machine.prove(82, &[]);
        let observed = format!("cuInit returned {number}");
        checked.says(code, "fail", [&observed, "success", cause, hint]);
        let subject = checked.problem(code)["subject"].as_str().unwrap();
        assert!(subject.ends_with("libcuda.so.1"), "{number}: {subject}");
        assert_eq!(checked.codes("fail"), [code], "{number}");
    }
}

#[test]
fn errors_of_later_calls() {
    for (number, code, cause, hint) in OF_ANY_CALL {
        let machine = Machine::where_call("cuDeviceGetCount", &format!(r#"{{"returns": {number}}}"#));
        let observed = format!("cuDeviceGetCount returned {number}");
        machine
            .prove(82, &[])
            .says(code, "fail", [&observed, "success", cause, hint]);
    }
    for call in [
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceTotalMem_v2",
        "cuDeviceGetAttribute",
    ] {
        let machine = Machine::new(&format!(
            r#"{{"devices": [{{"repeat": 3}}], "calls": {{"{call}": {{"device": 1, "returns": 999}}}}}}"#
        ));
        let checked = machine.prove(82, &[]);
        let observed = format!("{call} returned 999");
        checked.says(
            "gpu-not-ready",
            "fail",
            [&observed, "success", "uvm", "nvidia-modprobe"],
        );
        let subject = checked.problem("gpu-not-ready")["subject"].as_str().unwrap();
        assert!(subject.starts_with("GPU 1"), "{subject}");
    }
}

#[test]
fn errors_with_findings_of_their_own() {
    let machine = |number: i32| Machine::where_call("cuInit", &format!(r#"{{"returns": {number}}}"#));
    machine(34).prove(81, &[]).says(
        "stub-driver",
        "fail",
        [
            "cuInit returned 34 (CUDA_ERROR_STUB_LIBRARY)",
            "the driver's own",
            "stub",
            "lib64/stubs",
        ],
    );
    // The driver itself is new enough: what calls it too old is the pair of libraries.
    machine(35).prove(82, &[]).says(
        "driver-too-old",
        "fail",
        [
            "cuInit returned 35; the driver serves CUDA 13.0",
            "CUDA >=12.4",
            "older than",
            "550.54.14",
        ],
    );
    machine(100).prove(82, &[]).says(
        "gpu-missing",
        "fail",
        [
            "cuInit returned 100 (CUDA_ERROR_NO_DEVICE): no CUDA-capable device is detected",
            "at least one visible GPU",
            "no GPU is visible in this container",
            "request a GPU",
        ],
    );
    machine(214).prove(82, &[]).says(
        "gpu-unhealthy",
        "fail",
        [
            "cuInit returned 214",
            "success",
            "uncorrectable ECC error",
            "nvidia-smi -r",
        ],
    );
    machine(209).prove(83, &[]).says(
        "kernels-unusable",
        "fail",
        [
            "cuInit returned 209",
            "success",
            "no kernel image",
            "cuda-entrypoint kernels",
        ],
    );
}

#[test]
fn errors_of_visibility_come_with_the_variables() {
    for number in [46, 101] {
        let machine = Machine::where_call("cuInit", &format!(r#"{{"returns": {number}}}"#))
            .env("CUDA_VISIBLE_DEVICES", "0")
            .env("NVIDIA_VISIBLE_DEVICES", "all");
        let variables = "CUDA_VISIBLE_DEVICES=0; NVIDIA_VISIBLE_DEVICES=all";
        machine
            .prove(82, &[])
            .says("gpu-not-ready", "fail", [variables, "success", "", ""]);
    }
}

#[test]
fn the_reports_of_errors() {
    let machine = |number: i32| Machine::where_call("cuInit", &format!(r#"{{"returns": {number}}}"#));
    for number in [802, 999] {
        insta::assert_snapshot!(format!("error-{number}-run"), machine(number).complaint(&[]));
    }
    let checked = machine(803).check(&["--stage", "device"]);
    let finding = serde_json::to_string_pretty(checked.problem("gpu-not-ready")).unwrap();
    insta::assert_snapshot!("error-803-json", finding.replace(&path_of_the_fake(), "[driver]"));
}

fn path_of_the_fake() -> String {
    let folder = std::fs::canonicalize(crate::support::fakes::fake_driver_dir()).unwrap();
    folder.to_str().unwrap().to_string()
}

#[test]
fn errors_of_nvml_beside_a_driver_that_works() {
    // CUDA works: NVML's own troubles are pointed out and stop nothing.
    for (number, cause, hint) in [
        (9, "kernel module is not loaded", "modprobe nvidia"),
        (999, "cgroup lost its devices", "recreate the container"),
        (77, "the driver refused", "nvidia-smi"),
    ] {
        let machine = Machine::where_call("nvmlInit_v2", &format!(r#"{{"returns": {number}}}"#));
        let observed = format!("nvmlInit_v2 returned {number}");
        let checked = machine.prove(0, &[]);
        checked.says("nvml-missing", "warn", [&observed, "success", cause, hint]);
        assert_eq!(checked.report["verdict"], "warn");
    }
    // These are the GPU's, and of a driver that was replaced.
    for (number, code, cause, hint) in [
        (15, "gpu-unhealthy", "fell off the bus", "Xid 79"),
        (16, "gpu-unhealthy", "must be reset", "nvidia-smi -r"),
        (
            18,
            "gpu-not-ready",
            "different versions",
            "recreate the container",
        ),
    ] {
        let machine = Machine::where_call("nvmlInit_v2", &format!(r#"{{"returns": {number}}}"#));
        let observed = format!("nvmlInit_v2 returned {number}");
        machine
            .prove(82, &[])
            .says(code, "fail", [&observed, "success", cause, hint]);
    }
}

#[test]
fn errors_of_nvml_on_one_gpu() {
    let lost = ("gpu-unhealthy", "fell off the bus", 82);
    let unknown = ("gpu-not-ready", "cgroup lost its devices", 0);
    for (call, number, (code, cause, exit)) in [
        ("nvmlDeviceGetHandleByIndex_v2", 15, lost),
        ("nvmlDeviceGetName", 15, lost),
        ("nvmlDeviceGetName", 999, unknown),
        ("nvmlDeviceGetTotalEccErrors", 999, unknown),
    ] {
        let machine = Machine::new(&format!(
            r#"{{"devices": [{{"repeat": 3}}], "calls": {{"{call}": {{"device": 2, "returns": {number}}}}}}}"#
        ));
        let checked = machine.prove(exit, &[]);
        let observed = format!("{call} returned {number}");
        let status = if exit == 0 { "warn" } else { "fail" };
        checked.says(code, status, [&observed, "success", cause, ""]);
        let subject = checked.problem(code)["subject"].as_str().unwrap();
        assert!(subject.starts_with("GPU 2"), "{subject}");
    }
}

#[test]
fn an_nvml_that_cannot_be_loaded_is_told_from_none() {
    let machine = Machine::new("{}").nvml("no library".repeat(100).as_bytes());
    let words = [
        "invalid ELF header",
        "libnvidia-ml.so.1",
        "is there and cannot be loaded",
        "NVIDIA runtime",
    ];
    machine.prove(0, &[]).says("nvml-missing", "warn", words);
    let checked = machine.check(&["--stage", "health"]);
    assert_eq!(checked.exit(), 82, "{checked}");
    checked.says("driver-missing", "fail", words);
}

#[test]
fn a_gpu_of_another_container_is_not_ours_to_judge() {
    // NVML counts it and refuses its handle.
    let machine = Machine::new(
        r#"{"devices": [{"repeat": 3}], "calls": {"nvmlDeviceGetHandleByIndex_v2": {"device": 1, "returns": 4}}}"#,
    );
    for options in [&[][..], &["--stage", "health"]] {
        let checked = machine.check(options);
        assert_eq!(checked.exit(), 0, "{checked}");
        assert_eq!(checked.codes("fail"), [""; 0]);
    }
}

#[test]
fn without_nvml_there_is_a_note() {
    let machine = Machine::new("{}");
    let folder = machine.path("driver");
    std::fs::create_dir(&folder).unwrap();
    let libcuda = crate::support::fakes::fake_driver_dir().join("libcuda.so.1");
    std::fs::copy(libcuda, folder.join("libcuda.so.1")).unwrap();
    let checked = machine.driver(&folder).prove(0, &[]);
    checked.says(
        "nvml-missing",
        "info",
        [
            "libnvidia-ml.so.1: cannot open",
            "libnvidia-ml.so.1",
            "NVML is not there",
            "`utility`",
        ],
    );
    assert_eq!(checked.report["verdict"], "pass");
    // The release is NVML's to tell.
    assert!(
        checked
            .findings()
            .iter()
            .any(|f| f["code"] == "driver-too-old" && f["subject"] == "driver")
    );
}
