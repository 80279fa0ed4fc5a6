//! What the manifest expects of the GPUs: how many, and how much of their memory is free.

use std::fs;

use serde_json::json;

use crate::support::device::{MANIFEST, Machine};

const GIB: u64 = 1 << 30;

/// The usual manifest with one more part.
fn expecting(part: &str) -> String {
    MANIFEST.replacen('{', &format!("{{{part}, "), 1)
}

/// GPUs of 80 GiB that run this script's other part.
fn gpus(count: usize, more: &str) -> String {
    format!(
        r#"{{"devices": [{{"repeat": {count}, "memory": {}{more}}}]}}"#,
        80 * GIB
    )
}

#[test]
fn as_many_gpus_as_the_manifest_says() {
    for (rule, count) in [("1", 1), ("2", 4), ("\">=2\"", 2), ("\"==4\"", 4)] {
        let machine = Machine::new(&gpus(count, "")).manifest(&expecting(&format!(r#""gpus": {rule}"#)));
        let checked = machine.prove(0, &[]);
        assert!(checked.codes("pass").contains(&"gpu-count"), "{checked}");
    }
    let machine = Machine::new(&gpus(4, "")).manifest(&expecting(r#""gpus": 8"#));
    machine.prove(82, &[]).says(
        "gpu-count",
        "fail",
        [
            "4: 4 × NVIDIA H200",
            "at least 8 GPUs",
            "CUDA shows fewer GPUs than the manifest asks for",
            "docker run --gpus 8",
        ],
    );
    assert_eq!(machine.run(&["--warn", "gpu-count"]).exit(), 0);
    let machine = machine.manifest(&expecting(r#""gpus": "==2""#));
    machine.prove(82, &[]).says(
        "gpu-count",
        "fail",
        ["4: ", "exactly 2 GPUs", "more GPUs", "CUDA_VISIBLE_DEVICES"],
    );
    // What a variable hides is not there.
    let machine = machine.env("CUDA_VISIBLE_DEVICES", "1,3");
    assert!(machine.prove(0, &[]).codes("pass").contains(&"gpu-count"));
    let machine = machine.env("CUDA_VISIBLE_DEVICES", "1");
    machine.prove(82, &[]).says(
        "gpu-count",
        "fail",
        ["NVML sees 4 GPUs", "", "", "unset it, or list more"],
    );
}

#[test]
fn an_instance_counts_as_a_gpu() {
    let script = gpus(1, r#", "mig": true, "mig_instances": 2"#);
    let machine = Machine::new(&script).manifest(&expecting(r#""gpus": 1"#));
    assert!(machine.prove(0, &[]).codes("pass").contains(&"gpu-count"));
    let machine = machine.manifest(&expecting(r#""gpus": 2"#));
    machine
        .prove(82, &[])
        .says("gpu-count", "fail", ["MIG", "at least 2", "", "one MIG instance"]);
}

#[test]
fn no_gpu_at_all_is_said_once() {
    let manifest = expecting(r#""gpus": 2, "limits": {"gpu_memory_free": "1GiB"}"#);
    let machine = Machine::new(r#"{"devices": []}"#).manifest(&manifest);
    assert_eq!(machine.prove(82, &[]).codes("fail"), ["gpu-missing"]);
    assert_eq!(
        machine.prove(0, &["--gpu", "optional"]).codes("warn"),
        ["gpu-missing"]
    );
    assert_eq!(machine.prove(0, &["--gpu", "off"]).codes("fail"), [""; 0]);
}

#[test]
fn free_memory_is_asked_where_it_is_limited() {
    let limited = expecting(r#""limits": {"gpu_memory_free": "20GiB"}"#);
    let held = gpus(
        2,
        &format!(
            r#", "free": {}, "holders": [[17, 1048576], [4242, {}]]"#,
            19 * GIB,
            60 * GIB
        ),
    );
    let machine = Machine::new(&held);
    let device = |checked: &crate::support::device::Checked, n: usize| {
        checked.report["facts"]["device"]["nvml_devices"][n]["memory_now"].clone()
    };
    let unlimited = machine.prove(0, &[]);
    assert_eq!(device(&unlimited, 0), json!(null));
    let machine = machine.manifest(&limited);
    let checked = machine.check(&["--stage", "device"]);
    assert_eq!(checked.exit(), 82, "{checked}");
    assert_eq!(checked.codes("fail"), ["gpu-memory", "gpu-memory"]);
    assert_eq!(
        device(&checked, 1),
        json!([{"uuid": "GPU-00000000-0000-4000-8000-000000000001", "total": 80 * GIB, "free": 19 * GIB,
                "holders": [{"pid": 4242, "bytes": 60 * GIB}, {"pid": 17, "bytes": 1 << 20}]}])
    );
    let machine = Machine::new(&held.replace("\"repeat\": 2", "\"repeat\": 1")).manifest(&limited);
    machine.prove(82, &[]).says(
        "gpu-memory",
        "fail",
        [
            "19456 MiB free of 81920 MiB; PID 4242 holds 61440 MiB, PID 17 holds 1 MiB",
            "at least 20480 MiB free (gpu_memory_free 20GiB)",
            "less memory of this GPU is free than the manifest asks for",
            "nvidia-smi on the node",
        ],
    );
    insta::assert_snapshot!("held-run", machine.complaint(&[]));
    // A probe runs beside the service, which holds the memory.
    assert_eq!(machine.check(&["--stage", "health"]).exit(), 0);
    let small = Machine::new(&gpus(1, "")).manifest(&expecting(r#""limits": {"gpu_memory_free": "81GiB"}"#));
    let checked = small.prove(82, &["--wait", "600s"]);
    checked.says(
        "gpu-memory",
        "fail",
        ["81920 MiB in all", "82944 MiB", "has less memory", "larger GPU"],
    );
}

/// A call that dies of a signal is one that was made.
#[test]
fn no_more_is_called_than_the_manifest_needs() {
    let deadly = r#"{"devices": [{"free": 1000}], "calls": {"nvmlDeviceGetComputeRunningProcesses_v3": {"signal": 11}}}"#;
    assert_eq!(Machine::new(deadly).prove(0, &[]).codes("warn"), [""; 0]);
    let limited = expecting(r#""limits": {"gpu_memory_free": "1GiB"}"#);
    let enough = deadly.replace("1000", "2000000000");
    let machine = Machine::new(&enough).manifest(&limited);
    assert_eq!(machine.prove(0, &[]).codes("warn"), [""; 0]);
    let checked = Machine::new(deadly).manifest(&limited).prove(82, &[]);
    assert_eq!(checked.codes("fail"), ["gpu-memory"]);
    checked.says(
        "helper-crashed",
        "warn",
        [
            "SIGSEGV in nvmlDeviceGetComputeRunningProcesses_v3 of GPU 0",
            "",
            "",
            "",
        ],
    );
}

#[test]
fn the_holders_are_only_an_explanation() {
    let limited = expecting(r#""limits": {"gpu_memory_free": "1GiB"}"#);
    for behaviour in [
        r#"{"returns": 3}"#,
        r#"{"returns": 4}"#,
        r#"{"returns": 7}"#,
        r#"{"returns": 999}"#,
    ] {
        let script = format!(
            r#"{{"devices": [{{"free": 0}}], "calls": {{"nvmlDeviceGetComputeRunningProcesses_v3": {behaviour}}}}}"#
        );
        let checked = Machine::new(&script).manifest(&limited).prove(82, &[]);
        assert_eq!(checked.codes("fail"), ["gpu-memory"], "{behaviour}: {checked}");
        assert_eq!(checked.codes("warn"), [""; 0], "{behaviour}: {checked}");
    }
    // Where it hangs, the step is named, and what was known before counts.
    let hangs =
        r#"{"devices": [{"free": 0}], "calls": {"nvmlDeviceGetComputeRunningProcesses_v3": {"hang": true}}}"#;
    let checked = Machine::new(hangs)
        .manifest(&limited)
        .run(&["--device-timeout", "1s"]);
    checked.says(
        "helper-timeout",
        "warn",
        ["nvmlDeviceGetComputeRunningProcesses_v3 of GPU 0", "", "", ""],
    );
    assert_eq!(
        (checked.exit(), checked.codes("fail")),
        (82, vec!["gpu-memory"]),
        "{checked}"
    );
    // Where the amount itself hangs, nothing is known of it, as of a GPU that does not tell.
    let hangs = r#"{"calls": {"nvmlDeviceGetMemoryInfo": {"hang": true}}}"#;
    let checked = Machine::new(hangs)
        .manifest(&limited)
        .run(&["--device-timeout", "1s"]);
    checked.says(
        "helper-timeout",
        "warn",
        ["nvmlDeviceGetMemoryInfo of GPU 0", "", "", ""],
    );
    assert_eq!(
        (checked.exit(), checked.codes("warn")),
        (0, vec!["gpu-memory", "helper-timeout"]),
        "{checked}"
    );
}

#[test]
fn memory_that_nvml_does_not_tell_is_a_warning() {
    let limited = expecting(r#""limits": {"gpu_memory_free": "1GiB"}"#);
    let machine = Machine::where_call("nvmlDeviceGetMemoryInfo", r#"{"returns": 3}"#).manifest(&limited);
    let checked = machine.prove(0, &[]);
    checked.says(
        "gpu-memory",
        "warn",
        ["not known", "at least 1024 MiB free", "not known", "utility"],
    );
    let denied = machine.prove(82, &["--deny", "gpu-memory"]);
    assert_eq!(denied.codes("fail"), ["gpu-memory"]);
}

#[test]
fn an_instance_has_its_own_memory() {
    let script = |free: u64| {
        gpus(
            1,
            &format!(r#", "mig": true, "mig_instances": 2, "free": {free}"#),
        )
    };
    let limited = expecting(r#""limits": {"gpu_memory_free": "8GiB"}"#);
    let machine = Machine::new(&script(80 * GIB)).manifest(&limited);
    let checked = machine.prove(0, &[]);
    let states = &checked.report["facts"]["device"]["nvml_devices"][0]["memory_now"];
    assert_eq!(states.as_array().unwrap().len(), 2);
    assert_eq!(states[0]["free"], 10 * GIB);
    let checked = Machine::new(&script(40 * GIB)).manifest(&limited).prove(82, &[]);
    checked.says(
        "gpu-memory",
        "fail",
        ["5120 MiB free of 10240 MiB", "8192 MiB", "", ""],
    );
}

#[test]
fn memory_that_becomes_free_is_waited_for() {
    let limited = expecting(r#""limits": {"gpu_memory_free": "1GiB"}"#);
    let machine = Machine::new(&gpus(1, r#", "free": 1000"#)).manifest(&limited);
    let mut command = machine.command("check", &["--stage", "device", "--wait", "60s", "--report", "-"]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let termination = machine.path("script.json");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    fs::write(machine.path("script.new"), gpus(1, "")).unwrap();
    fs::rename(machine.path("script.new"), termination).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("waiting up to ") && said.contains("less memory of this GPU is free"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(0), "{said}");
}
