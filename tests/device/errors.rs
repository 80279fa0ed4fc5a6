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
            "cuInit returned 35; the driver supports CUDA 13.0",
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

/// Error, exit code, finding, and parts of what is observed, of the cause and of the hint.
type Told = (i32, i32, &'static str, &'static str, &'static str, &'static str);

/// Errors of newer drivers, of kernels and of what surrounds the GPU.
const OF_NEWER_DRIVERS: [Told; 21] = [
    (
        36,
        82,
        "driver-too-old",
        "CALL_REQUIRES_NEWER_DRIVER",
        "too old",
        "550.54.14",
    ),
    (
        102,
        82,
        "gpu-not-ready",
        "NOT_LICENSED",
        "no licence",
        "gridd.conf",
    ),
    (
        218,
        83,
        "kernels-unusable",
        "INVALID_PTX",
        "could not compile PTX",
        "reinstall the package",
    ),
    (
        220,
        82,
        "gpu-unhealthy",
        "NVLINK_UNCORRECTABLE",
        "uncorrectable NVLink error",
        "Xid 74",
    ),
    (
        221,
        82,
        "gpu-not-ready",
        "JIT_COMPILER_NOT_FOUND",
        "libnvidia-ptxjitcompiler.so.1",
        "NVIDIA_DRIVER_CAPABILITIES",
    ),
    (
        222,
        83,
        "kernels-unusable",
        "UNSUPPORTED_PTX_VERSION",
        "newer CUDA than this driver",
        "update the node's driver",
    ),
    (
        223,
        82,
        "gpu-not-ready",
        "JIT_COMPILATION_DISABLED",
        "PTX is disabled",
        "unset CUDA_DISABLE_PTX_JIT",
    ),
    (
        226,
        82,
        "gpu-unhealthy",
        "CONTAINED",
        "contained a hardware error",
        "Xid 94",
    ),
    (
        227,
        82,
        "driver-too-old",
        "INSUFFICIENT_LOADER_VERSION",
        "cannot load",
        "550.54.14",
    ),
    (
        702,
        82,
        "gpu-not-ready",
        "LAUNCH_TIMEOUT",
        "with a display",
        "Disp.A",
    ),
    (
        714,
        82,
        "gpu-not-ready",
        "HARDWARE_STACK_ERROR",
        "call stack",
        "cudaLimitStackSize",
    ),
    (
        715,
        82,
        "gpu-not-ready",
        "ILLEGAL_INSTRUCTION",
        "not valid on this GPU",
        "Xid 13",
    ),
    (
        718,
        82,
        "gpu-not-ready",
        "INVALID_PC",
        "invalid address",
        "compute-sanitizer",
    ),
    (
        721,
        82,
        "gpu-not-ready",
        "TENSOR_MEMORY_LEAK",
        "tensor memory",
        "update the package",
    ),
    (
        808,
        82,
        "gpu-not-ready",
        "MPS_MAX_CLIENTS",
        "no room for another client",
        "start fewer",
    ),
    (
        809,
        82,
        "gpu-not-ready",
        "MPS_MAX_CONNECTIONS",
        "no connection left",
        "CUDA_DEVICE_MAX_CONNECTIONS",
    ),
    (
        810,
        82,
        "gpu-not-ready",
        "MPS_CLIENT_TERMINATED",
        "ended this client",
        "CUDA_MPS_LOG_DIRECTORY",
    ),
    (
        911,
        82,
        "gpu-not-ready",
        "EXTERNAL_DEVICE",
        "outside the GPU",
        "dmesg",
    ),
    (
        916,
        82,
        "gpu-not-ready",
        "KEY_ROTATION",
        "confidential computing",
        "conf-compute",
    ),
    (
        919,
        82,
        "gpu-not-ready",
        "returned 919",
        "still being set up",
        "--wait 5m",
    ),
    (
        216,
        82,
        "gpu-not-ready",
        "returned 216",
        "exclusive mode",
        "nvidia-smi -c 0",
    ),
];

#[test]
fn errors_of_newer_drivers_say_what_was_seen_and_what_to_do() {
    for (number, exit, code, observed, cause, hint) in OF_NEWER_DRIVERS {
        let machine = Machine::where_call("cuInit", &format!(r#"{{"returns": {number}}}"#));
        let checked = machine.check(&["--stage", "device"]);
        assert_eq!(checked.exit(), exit, "{number}: {checked}");
        let required = match code {
            "driver-too-old" => "CUDA >=12.4",
            _ => "success",
        };
        checked.says(code, "fail", [observed, required, cause, hint]);
        checked.says(code, "fail", [&format!("cuInit returned {number}"), "", "", ""]);
        assert_eq!(checked.codes("fail"), [code], "{number}");
    }
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
        (12, "did not find a library", "NVIDIA_DRIVER_CAPABILITIES"),
        (14, "infoROM", "power-cycle"),
        (17, "device cgroup", "recreate the container"),
        (20, "could not allocate memory", "memory limit"),
        (27, "not ready for requests", "--wait 5m"),
        (28, "found no GPU", "request a GPU"),
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
fn errors_of_nvml_end_the_probe() {
    // Nothing else is asked: whatever NVML cannot answer is a failure with a finding of its own.
    for (number, code, cause, hint) in [
        (
            12,
            "gpu-not-ready",
            "did not find a library",
            "`compute` and `utility`",
        ),
        (14, "gpu-unhealthy", "infoROM", "reflashed"),
        (
            17,
            "gpu-not-ready",
            "operating system blocks",
            "docker run --gpus all",
        ),
        (
            20,
            "gpu-not-ready",
            "could not allocate memory",
            "resources.limits.memory",
        ),
        (
            27,
            "gpu-not-ready",
            "not ready for requests",
            "nvidia-smi on the node",
        ),
        (28, "gpu-missing", "found no GPU", "nvidia-smi on the host"),
    ] {
        let machine = Machine::where_call("nvmlInit_v2", &format!(r#"{{"returns": {number}}}"#));
        let checked = machine.check(&["--stage", "health"]);
        assert_eq!(checked.exit(), 82, "{number}: {checked}");
        let observed = format!("nvmlInit_v2 returned {number} (NVML_ERROR_");
        checked.says(code, "fail", [&observed, "success", cause, hint]);
    }
}

#[test]
fn errors_of_nvml_on_one_gpu() {
    let lost = ("gpu-unhealthy", "fell off the bus", 82);
    // The GPU computes, so the service starts.
    let inforom = ("gpu-unhealthy", "infoROM", 0);
    let blocked = ("gpu-not-ready", "operating system blocks", 0);
    let unknown = ("gpu-not-ready", "cgroup lost its devices", 0);
    for (call, number, (code, cause, exit)) in [
        ("nvmlDeviceGetHandleByIndex_v2", 15, lost),
        ("nvmlDeviceGetName", 15, lost),
        ("nvmlDeviceGetName", 999, unknown),
        ("nvmlDeviceGetRemappedRows", 14, inforom),
        ("nvmlDeviceGetFieldValues", 15, lost),
        ("nvmlDeviceGetHandleByIndex_v2", 17, blocked),
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
