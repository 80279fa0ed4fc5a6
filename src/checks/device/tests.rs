use super::*;
use crate::check::{Outcome, Status};
use serde_json::json;

use crate::facts::read::FromJson;

/// Facts from JSON: `device` and `environment` as a report shows them.
pub(super) fn facts(device: serde_json::Value, environment: serde_json::Value) -> Facts {
    let mut whole = json!({
        "driver": {"path": "/usr/lib/libcuda.so.1", "api_version": "12.4", "device_count": 1},
        "devices": [{"ordinal": 0, "name": "NVIDIA H200", "capability": "9.0", "pci_bus_id": "0000:3b:00.0"}],
        "helper": {"end": "done"},
        "nvml": {"driver_release": "550.54.15", "device_count": 1},
        "nvml_devices": [{"index": 0, "name": "NVIDIA H200", "pci_bus_id": "0000:3b:00.0"}],
        "nvml_helper": {"end": "done"}
    });
    for (key, value) in device.as_object().unwrap() {
        whole[key] = value.clone();
    }
    Facts {
        device: FromJson::from_json(whole).unwrap(),
        environment: FromJson::from_json(environment).unwrap(),
        ..Facts::default()
    }
}

fn stack(cuda: &str) -> Stack {
    let text = format!(r#"{{"schema": 1, "name": "t", "cuda": {cuda}}}"#);
    Stack::parse_bytes(text.as_bytes()).unwrap()
}

fn judged(facts: &Facts) -> Vec<Finding> {
    judge(&stack(r#"{"driver": ">=12.4"}"#), Gpu::Required, facts)
}

/// The one finding of this code that is no pass.
#[track_caller]
fn one(findings: &[Finding], code: Code) -> &Finding {
    let found: Vec<_> = findings
        .iter()
        .filter(|f| f.code == code && f.status != Status::Pass)
        .collect();
    assert_eq!(found.len(), 1, "{code}: {findings:#?}");
    found[0]
}

const ABSENT: &str = "libcuda.so.1: cannot open shared object file: No such file or directory";

fn without_driver(more: serde_json::Value, environment: serde_json::Value) -> Finding {
    let mut device =
        json!({"driver": {"load_error": ABSENT}, "devices": [], "nvml": null, "nvml_devices": []});
    for (key, value) in more.as_object().unwrap() {
        device[key] = value.clone();
    }
    let findings = judged(&facts(device, environment));
    let finding = one(&findings, Code::DriverMissing).clone();
    assert_eq!((finding.status, finding.retryable), (Status::Fail, false));
    assert_eq!(finding.observed, ABSENT);
    finding
}

#[test]
fn a_healthy_gpu_passes() {
    let findings = judged(&facts(json!({}), json!({})));
    assert!(findings.iter().all(|f| f.status == Status::Pass), "{findings:#?}");
    assert_eq!(findings.len(), 4);
}

#[test]
fn a_driver_off_the_loaders_path_is_named_with_the_way_to_it() {
    let finding = without_driver(
        json!({"driver_elsewhere": ["/usr/lib/wsl/lib/libcuda.so.1"], "nodes": ["/dev/dxg"]}),
        json!({}),
    );
    assert!(
        finding
            .hint
            .starts_with("/usr/lib/wsl/lib/libcuda.so.1 is there, but the loader does not search"),
        "{}",
        finding.hint
    );
    assert!(
        finding.hint.contains("add /usr/lib/wsl/lib to LD_LIBRARY_PATH"),
        "{}",
        finding.hint
    );
    // Where the folder is searched already, searching it is no advice.
    let finding = without_driver(
        json!({"driver_elsewhere": ["/opt/x/libcuda.so.1"]}),
        json!({"LD_LIBRARY_PATH": "/usr/local/lib:/opt/x"}),
    );
    assert!(
        finding.hint.contains("the loader passes it over"),
        "{}",
        finding.hint
    );
}

#[test]
fn device_nodes_without_libraries_are_a_matter_of_capabilities() {
    let nodes = json!({"nodes": ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"]});
    for (environment, shown) in [
        (
            json!({"NVIDIA_DRIVER_CAPABILITIES": "utility"}),
            "(it is utility)",
        ),
        (json!({}), "(it is unset)"),
    ] {
        let finding = without_driver(nodes.clone(), environment);
        assert!(
            finding
                .hint
                .contains("/dev/nvidia-uvm /dev/nvidia0 /dev/nvidiactl"),
            "{}",
            finding.hint
        );
        assert!(
            finding
                .hint
                .contains("NVIDIA_DRIVER_CAPABILITIES contain `compute`"),
            "{}",
            finding.hint
        );
        assert!(finding.hint.contains(shown), "{}", finding.hint);
    }
}

#[test]
fn without_any_trace_the_container_has_no_gpu_runtime() {
    let finding = without_driver(json!({}), json!({}));
    assert!(
        finding
            .hint
            .starts_with("start the container with the NVIDIA runtime"),
        "{}",
        finding.hint
    );
    for value in ["void", ""] {
        let finding = without_driver(json!({}), json!({"NVIDIA_VISIBLE_DEVICES": value}));
        assert!(finding.hint.contains("keeps the driver out"), "{}", finding.hint);
        assert!(finding.hint.contains("--gpus all"), "{}", finding.hint);
    }
}

fn no_gpu(more: serde_json::Value, environment: serde_json::Value) -> Finding {
    let mut device = json!({
        "driver": {
            "path": "/usr/lib/libcuda.so.1", "api_version": "12.4",
            "error": {"call": "cuInit", "code": 100, "name": "CUDA_ERROR_NO_DEVICE", "description": "none"}
        },
        "devices": [], "nvml_devices": []
    });
    for (key, value) in more.as_object().unwrap() {
        device[key] = value.clone();
    }
    let findings = judged(&facts(device, environment));
    one(&findings, Code::GpuMissing).clone()
}

#[test]
fn what_a_variable_hides_is_told_from_what_is_not_there() {
    let gpu = json!({"nvml_devices": [{"index": 0}]});
    let node = json!({"nodes": ["/dev/nvidia0", "/dev/nvidiactl"]});
    let shared_nodes = json!({"nodes": ["/dev/nvidia-uvm", "/dev/nvidiactl"]});
    let mig = json!({"nvml_devices": [{"index": 0, "mig_enabled": true, "mig_instances": 0}]});
    for (device, environment, hint, retryable) in [
        (json!({}), json!({}), "request a GPU", true),
        (
            gpu.clone(),
            json!({"CUDA_VISIBLE_DEVICES": " "}),
            "hides every GPU",
            false,
        ),
        (
            gpu.clone(),
            json!({"CUDA_VISIBLE_DEVICES": "-1"}),
            "hides every GPU",
            false,
        ),
        (
            gpu,
            json!({"CUDA_VISIBLE_DEVICES": "3"}),
            "names no GPU of this container",
            false,
        ),
        (
            mig.clone(),
            json!({"CUDA_VISIBLE_DEVICES": "3"}),
            "MIG is on",
            false,
        ),
        (mig, json!({}), "MIG is on", true),
        (
            json!({}),
            json!({"NVIDIA_VISIBLE_DEVICES": "none"}),
            "keeps the GPUs out",
            false,
        ),
        (
            node.clone(),
            json!({"NVIDIA_VISIBLE_DEVICES": "none"}),
            "keeps the GPUs out",
            false,
        ),
        (
            json!({}),
            json!({"NVIDIA_VISIBLE_DEVICES": "void"}),
            "keeps the GPUs out",
            false,
        ),
        (
            shared_nodes,
            json!({"NVIDIA_VISIBLE_DEVICES": "void"}),
            "keeps the GPUs out",
            false,
        ),
        // CDI sets it on a container that it has given GPUs.
        (
            node.clone(),
            json!({"NVIDIA_VISIBLE_DEVICES": "void"}),
            "a GPU's device node is there",
            true,
        ),
        (node, json!({}), "a GPU's device node is there", true),
        (
            json!({"nodes": ["/dev/dxg"]}),
            json!({}),
            "a GPU's device node is there",
            true,
        ),
        (
            json!({}),
            json!({"NVIDIA_VISIBLE_DEVICES": "all"}),
            "request a GPU",
            true,
        ),
    ] {
        let finding = no_gpu(device.clone(), environment.clone());
        assert!(
            finding.hint.contains(hint),
            "{device} {environment}: {}",
            finding.hint
        );
        assert_eq!(finding.retryable, retryable, "{device} {environment}");
        assert!(
            finding.observed.starts_with("cuInit returned 100"),
            "{}",
            finding.observed
        );
    }
}

#[test]
fn no_gpu_comes_with_all_that_is_known_of_gpus() {
    let finding = no_gpu(
        json!({"nodes": ["/dev/nvidiactl"], "nvml": {"device_count": 8}}),
        json!({"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "all"}),
    );
    let known =
        "; CUDA_VISIBLE_DEVICES is empty; NVIDIA_VISIBLE_DEVICES=all; NVML sees 8 GPUs; /dev/nvidiactl";
    assert!(finding.observed.ends_with(known), "{}", finding.observed);
    let finding = no_gpu(json!({"nvml": null}), json!({}));
    let known = "; CUDA_VISIBLE_DEVICES is unset; NVIDIA_VISIBLE_DEVICES is unset; no /dev/nvidia* node";
    assert!(finding.observed.ends_with(known), "{}", finding.observed);
}

#[test]
fn every_end_of_the_helper_has_its_finding() {
    for (end, code, exit, part) in [
        (
            json!({"end": "crashed", "signal": 11, "step": "cuInit"}),
            Code::HelperCrashed,
            82,
            "SIGSEGV in cuInit",
        ),
        (
            json!({"end": "crashed", "signal": 34, "step": "cuInit"}),
            Code::HelperCrashed,
            82,
            "SIGRTMIN in cuInit",
        ),
        (
            json!({"end": "exited", "code": 3, "step": "cuInit", "stderr": "last words"}),
            Code::HelperCrashed,
            82,
            "exit status 3 in cuInit: last words",
        ),
        (
            json!({"end": "garbled", "detail": "line 2 is no fact", "step": "cuInit"}),
            Code::HelperCrashed,
            82,
            "unexpected output after cuInit: line 2 is no fact",
        ),
        (
            json!({"end": "not-started", "detail": "memory file: EPERM"}),
            Code::HelperCrashed,
            82,
            "memory file: EPERM",
        ),
        (
            json!({"end": "timed-out", "step": "cuInit", "after_ms": 60000, "killed": true, "in_all": false}),
            Code::HelperTimeout,
            85,
            "no answer from cuInit after 60 s",
        ),
        (
            json!({"end": "timed-out", "step": "cuInit", "after_ms": 600000, "killed": true, "in_all": true}),
            Code::HelperTimeout,
            85,
            "not done: at cuInit after 600 s",
        ),
        (
            json!({"end": "timed-out", "step": "cuInit", "after_ms": 1500, "killed": false, "in_all": false}),
            Code::HelperTimeout,
            85,
            "after 1500 ms; it sits in the kernel and could not be killed",
        ),
        (
            json!({"end": "loader-missing", "detail": "/lib64/ld-linux-x86-64.so.2 does not exist"}),
            Code::LoaderMissing,
            81,
            "ld-linux-x86-64.so.2 does not exist",
        ),
    ] {
        let nothing = json!({"helper": end, "driver": null, "devices": [], "nvml": null, "nvml_devices": []});
        let findings = judged(&facts(nothing, json!({})));
        let finding = one(&findings, code);
        assert_eq!(finding.status, Status::Fail);
        assert!(finding.observed.contains(part), "{}", finding.observed);
        for text in [&finding.required, &finding.message, &finding.hint] {
            assert!(!text.is_empty(), "{finding:?}");
        }
        assert_eq!(Outcome::of(&findings).exit_code, exit, "{end}");
        // A hang may end by itself; the rest stays.
        assert_eq!(finding.retryable, code == Code::HelperTimeout);

        // NVML's own run ends in the same ways.
        let nvml = json!({"nvml_helper": end, "nvml": null, "nvml_devices": []});
        let findings = judge_health(Gpu::Required, &facts(nvml, json!({})));
        assert_eq!(one(&findings, code).subject, "NVML");
        assert_eq!(Outcome::of(&findings).exit_code, exit);
    }
}

#[test]
fn a_loader_that_is_missing_is_said_once() {
    let missing = json!({"end": "loader-missing", "detail": "none"});
    let nothing = json!({"helper": missing, "nvml_helper": missing, "driver": null, "devices": [], "nvml": null,
                         "nvml_devices": []});
    let mut facts = facts(nothing, json!({}));
    let findings = judged(&facts);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].code, Code::LoaderMissing);
    // The image stage has said it where it asked for libraries.
    facts.image.helper.end = HelperEnd::LoaderMissing {
        detail: "none".into(),
    };
    let findings = judged(&facts);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(
        (findings[0].code, findings[0].status),
        (Code::DriverMissing, Status::Unknown)
    );
}

#[test]
fn what_was_not_started_is_not_judged() {
    let nothing = json!({"helper": {"end": "not-run"}, "nvml_helper": {"end": "not-run"}, "driver": null, "devices": [],
                         "nvml": null, "nvml_devices": []});
    assert_eq!(judged(&facts(nothing, json!({}))), []);
}

/// What is wrong with NVML, beside a CUDA that shows its GPU.
fn nvml_trouble(device: serde_json::Value) -> Vec<Finding> {
    let mut findings = judged(&facts(device, json!({})));
    findings.retain(|f| f.status != Status::Pass);
    findings
}

#[test]
fn of_slow_calls_none_is_blamed() {
    let late = |in_all: bool| {
        let end = json!({"end": "timed-out", "step": "nvmlDeviceGetName of GPU 7", "after_ms": 5000, "killed": true, "in_all": in_all});
        let found = nvml_trouble(json!({"nvml_helper": end, "nvml": null, "nvml_devices": []}));
        assert_eq!((found.len(), found[0].status), (1, Status::Warn), "{found:#?}");
        found[0].clone()
    };
    let slow = late(true);
    assert!(
        !slow.message.contains("hangs") && slow.message.contains("takes too long in all"),
        "{slow:?}"
    );
    assert!(slow.required.contains("ten times --device-timeout"), "{slow:?}");
    assert!(slow.hint.contains("CUDA_ENTRYPOINT_DEVICE_TIMEOUT"), "{slow:?}");
    let hangs = late(false);
    assert!(
        hangs.message.ends_with("nvmlDeviceGetName of GPU 7 hangs"),
        "{hangs:?}"
    );
    assert!(
        hangs.required.ends_with("within 5 s once CUDA has answered"),
        "{hangs:?}"
    );
    // More time for each call would change nothing.
    assert!(!hangs.hint.contains("TIMEOUT"), "{hangs:?}");
}

#[test]
fn what_nvml_does_not_count_is_not_said_to_be_none() {
    let said = |gpu: serde_json::Value| {
        let findings = judged(&facts(json!({"nvml_devices": [gpu]}), json!({})));
        let mut of_health = findings.into_iter().filter(|f| f.code == Code::GpuUnhealthy);
        let finding = of_health.next().unwrap();
        assert_eq!(of_health.next(), None);
        (finding.status, finding.observed + &finding.message)
    };
    let pci = "0000:3b:00.0";
    let (status, all) =
        said(json!({"index": 0, "pci_bus_id": pci, "ecc_uncorrected": 0, "remap_pending": false}));
    assert_eq!(status, Status::Pass);
    assert!(
        all.contains("no uncorrected ECC error, no pending row remap"),
        "{all}"
    );
    let (_, ecc) = said(json!({"index": 0, "pci_bus_id": pci, "ecc_uncorrected": 0}));
    assert!(ecc.contains("ECC") && !ecc.contains("remap"), "{ecc}");
    let (_, remaps) = said(json!({"index": 0, "pci_bus_id": pci, "remap_pending": false}));
    assert!(!remaps.contains("ECC") && remaps.contains("remap"), "{remaps}");
    let (status, none) = said(json!({"index": 0, "pci_bus_id": pci}));
    assert_eq!(status, Status::Pass);
    assert!(none.contains("counts neither"), "{none}");
    // Not even a handle.
    let (status, nothing) = said(json!({"index": 0}));
    assert_eq!(status, Status::Unknown);
    assert!(nothing.contains("lacks the functions"), "{nothing}");
}

#[test]
fn an_nvml_that_the_loader_passes_over_is_told_from_none() {
    let error = "libnvidia-ml.so.1: cannot open shared object file: No such file or directory";
    let with = |elsewhere: serde_json::Value, environment: serde_json::Value| {
        let device =
            json!({"nvml": {"load_error": error}, "nvml_devices": [], "driver_elsewhere": elsewhere});
        one(&judged(&facts(device, environment)), Code::NvmlMissing).clone()
    };
    let none = with(json!(["/opt/x/libcuda.so.1"]), json!({}));
    assert_eq!(none.status, Status::Info);
    assert!(none.message.starts_with("NVML is not there"), "{none:?}");
    let copies = json!(["/opt/x/libnvidia-ml.so.1"]);
    let refused = with(copies.clone(), json!({"LD_LIBRARY_PATH": "/opt/x"}));
    assert_eq!(refused.status, Status::Warn);
    assert!(
        refused.message.starts_with("NVML is there and cannot be loaded"),
        "{refused:?}"
    );
    assert!(
        refused
            .hint
            .contains("/opt/x/libnvidia-ml.so.1 is there, and the loader passes it over"),
        "{refused:?}"
    );
    let elsewhere = with(copies, json!({}));
    assert!(
        elsewhere.hint.contains("add /opt/x to LD_LIBRARY_PATH"),
        "{elsewhere:?}"
    );
}

#[test]
fn health_is_that_of_the_gpus_that_cuda_sees() {
    let sick = |pci: serde_json::Value| json!({"index": 1, "ecc_uncorrected": 5, "pci_bus_id": pci});
    for (pci, counts) in [
        (json!("0000:3b:00.0"), true),
        (json!("0000:5e:00.0"), false),
        (json!(null), true),
    ] {
        let findings = judged(&facts(json!({"nvml_devices": [sick(pci.clone())]}), json!({})));
        let failed = findings
            .iter()
            .any(|f| f.code == Code::GpuUnhealthy && f.status == Status::Fail);
        assert_eq!(failed, counts, "{pci}: {findings:#?}");
        // No GPU is called healthy that was not looked at.
        let passed = findings
            .iter()
            .any(|f| f.code == Code::GpuUnhealthy && f.status == Status::Pass);
        assert!(!passed, "{pci}: {findings:#?}");
    }
    // libcuda crashed: which ones it would have shown nobody knows.
    let crashed = json!({"end": "crashed", "signal": 11, "step": "cuInit"});
    let findings = judged(&facts(
        json!({"helper": crashed, "driver": null, "devices": [], "nvml_devices": [sick(json!("0000:5e:00.0"))]}),
        json!({"CUDA_VISIBLE_DEVICES": "0"}),
    ));
    assert_eq!(one(&findings, Code::GpuUnhealthy).status, Status::Fail);
}

#[test]
fn a_mig_instance_has_the_address_of_its_gpu() {
    let device = json!({
        "devices": [{"ordinal": 0, "name": "NVIDIA H100 MIG 1g.10gb", "uuid": "MIG-1", "pci_bus_id": "0000:3b:00.0"}],
        "nvml_devices": [
            {"index": 0, "pci_bus_id": "0000:3b:00.0", "mig_enabled": true, "mig_instances": 1, "remap_pending": true},
            {"index": 1, "pci_bus_id": "0000:5e:00.0", "mig_enabled": true, "mig_instances": 0}
        ]
    });
    let findings = judged(&facts(device, json!({})));
    let finding = one(&findings, Code::GpuUnhealthy);
    assert!(finding.subject.starts_with("GPU 0"), "{}", finding.subject);
}

#[test]
fn under_optional_a_gpu_that_is_gone_is_told_from_none() {
    let error = json!({"call": "nvmlInit_v2", "code": 9, "name": "", "description": ""});
    let statuses = |nodes: serde_json::Value, gpu: Gpu| {
        let nvml = json!({"nodes": nodes, "nvml": {"error": error}, "nvml_devices": []});
        let findings = judge_health(gpu, &facts(nvml, json!({})));
        findings.iter().map(|f| f.status).collect::<Vec<_>>()
    };
    for shared in [json!([]), json!(["/dev/nvidiactl", "/dev/nvidia-uvm"])] {
        assert_eq!(statuses(shared.clone(), Gpu::Optional), [Status::Warn]);
        assert_eq!(statuses(shared, Gpu::Required), [Status::Fail]);
    }
    assert_eq!(statuses(json!(["/dev/nvidia0"]), Gpu::Optional), [Status::Fail]);
}

#[test]
fn a_handle_that_nvml_refuses_belongs_to_another_container() {
    let refused = json!({"index": 1, "error": {"call": "nvmlDeviceGetHandleByIndex_v2", "code": 4, "name": "", "description": ""}});
    let facts = facts(json!({"nvml_devices": [refused]}), json!({}));
    assert!(!judged(&facts).iter().any(|f| f.code == Code::GpuNotReady));
    assert_eq!(judge_health(Gpu::Required, &facts), []);
}

fn version_finding(cuda: &str, api: &str) -> Finding {
    let facts = facts(
        json!({"driver": {"api_version": api, "device_count": 1}}),
        json!({}),
    );
    let findings = judge(&stack(cuda), Gpu::Required, &facts);
    findings
        .into_iter()
        .find(|f| matches!(f.code, Code::DriverTooOld | Code::DriverMinorCompat))
        .unwrap()
}

#[test]
fn versions_of_the_driver() {
    for (cuda, api, code, status) in [
        (
            r#"{"driver": ">=12.4"}"#,
            "12.4",
            Code::DriverTooOld,
            Status::Pass,
        ),
        (
            r#"{"driver": ">=12.4"}"#,
            "13.1",
            Code::DriverTooOld,
            Status::Pass,
        ),
        (
            r#"{"driver": ">=12.4"}"#,
            "12.3",
            Code::DriverMinorCompat,
            Status::Warn,
        ),
        (
            r#"{"driver": ">=12.4"}"#,
            "11.8",
            Code::DriverTooOld,
            Status::Fail,
        ),
        (
            r#"{"runtime": "12.4", "driver": ">=12.4"}"#,
            "12.0",
            Code::DriverMinorCompat,
            Status::Warn,
        ),
        // Both the driver's and the runtime's major version have to be there.
        (
            r#"{"runtime": "12.4", "driver": ">=13.0"}"#,
            "12.8",
            Code::DriverTooOld,
            Status::Fail,
        ),
        (
            r#"{"runtime": "13.0", "driver": ">=12.4"}"#,
            "12.2",
            Code::DriverTooOld,
            Status::Fail,
        ),
        (
            r#"{"runtime": "13.0", "driver": ">=13.0"}"#,
            "12.8",
            Code::DriverTooOld,
            Status::Fail,
        ),
        (
            r#"{"driver": ">=12.4, <13"}"#,
            "13.0",
            Code::DriverTooOld,
            Status::Fail,
        ),
        (
            r#"{"driver": ">=12.4, <12.6"}"#,
            "12.8",
            Code::DriverTooOld,
            Status::Fail,
        ),
        (r#"{"driver": "12.4"}"#, "12.5", Code::DriverTooOld, Status::Fail),
        (
            r#"{"driver": "12.4"}"#,
            "12.2",
            Code::DriverMinorCompat,
            Status::Warn,
        ),
        (
            r#"{"driver": ">=10.2"}"#,
            "10.1",
            Code::DriverTooOld,
            Status::Fail,
        ),
        (r#"{"driver": "*"}"#, "6.5", Code::DriverTooOld, Status::Pass),
    ] {
        let finding = version_finding(cuda, api);
        assert_eq!((finding.code, finding.status), (code, status), "{cuda} {api}");
        assert!(
            finding.observed.starts_with(&format!("supports CUDA {api}")),
            "{}",
            finding.observed
        );
        assert_eq!(finding.subject, "driver 550.54.15");
        assert_eq!(finding.hint.is_empty(), status == Status::Pass, "{cuda} {api}");
    }
}

#[test]
fn the_hint_names_the_release_where_it_is_known() {
    let hint = |cuda: &str, api: &str| version_finding(cuda, api).hint;
    let known = hint(r#"{"runtime": "12.4", "driver": ">=12.4"}"#, "11.8");
    assert!(
        known.contains("to release 550.54.14 or newer for CUDA 12.4"),
        "{known}"
    );
    assert!(known.contains("any CUDA 12.x runs from 525.60.13 on"), "{known}");
    for (version, release) in [("13.1", "590.44.01"), ("13.3", "610.43.02"), ("13.4", "615")] {
        let manifest = format!(r#"{{"runtime": "{version}", "driver": ">={version}"}}"#);
        // A driver of the major version before, and one that carries it by minor-version compatibility.
        let before = hint(&manifest, "12.8");
        let wanted = format!("to release {release} or newer for CUDA {version}");
        assert!(before.contains(&wanted), "{before}");
        assert!(
            before.contains("any CUDA 13.x runs from 580.65.06 on"),
            "{before}"
        );
        let same = version_finding(&manifest, "13.0");
        assert_eq!(same.code, Code::DriverMinorCompat, "{same:?}");
        assert!(same.hint.contains(&wanted), "{same:?}");
    }
    let unknown = hint(r#"{"driver": ">=99.1"}"#, "12.8");
    assert!(
        unknown.contains("nvidia-smi shows such a CUDA Version (CUDA UMD Version from driver 610 on)"),
        "{unknown}"
    );
    assert!(!unknown.contains("any CUDA"), "{unknown}");
}

#[test]
fn a_driver_that_says_no_version_is_unknown_unless_an_error_says_why() {
    let facts = facts(json!({"driver": {"device_count": 1}}), json!({}));
    assert_eq!(one(&judged(&facts), Code::DriverTooOld).status, Status::Unknown);
}

#[test]
fn gpus_are_listed_by_kind() {
    let device = |name: &str| Device {
        name: name.into(),
        memory: Some(1 << 30),
        ..Device::default()
    };
    assert_eq!(kinds(&[]), "");
    let devices = [device("A"), device("B"), device("A"), device("A")];
    assert_eq!(kinds(&devices), "3 × A (?, 1024 MiB), B (?, 1024 MiB)");
}

#[test]
fn nodes_of_gpus_are_told_from_shared_ones() {
    for (node, expected) in [
        ("/dev/nvidia0", true),
        ("/dev/nvidia15", true),
        ("/dev/dxg", true),
        ("/dev/nvidiactl", false),
        ("/dev/nvidia-uvm", false),
        ("/dev/nvidia", false),
    ] {
        assert_eq!(has_gpu_node(&[node.to_string()]), expected, "{node}");
    }
}

/// Problems with nodes, where libcuda answers with an error, or where NVML alone is asked.
fn closed_nodes(gpu: Gpu, alone: bool, opened: serde_json::Value) -> Vec<(String, Status, bool)> {
    let error = json!({"call": "cuInit", "code": 999, "name": "CUDA_ERROR_UNKNOWN", "description": ""});
    let facts = facts(
        json!({
            "driver": {"error": error}, "devices": [], "opened": opened,
            "nvml_devices": [{"index": 0, "minor": 3, "pci_bus_id": "0000:3b:00.0"}]
        }),
        json!({}),
    );
    let findings = if alone {
        judge_health(gpu, &facts)
    } else {
        judge(&Stack::default(), gpu, &facts)
    };
    let of_nodes = findings.into_iter().filter(|f| f.subject.starts_with("/dev/"));
    let checked = of_nodes.map(|f| {
        assert_eq!(f.code, Code::GpuNotReady);
        assert!(f.observed.starts_with("open: E") && !f.hint.is_empty(), "{f:?}");
        (f.subject, f.status, f.retryable)
    });
    checked.collect()
}

#[test]
fn nodes_that_do_not_open_are_named_where_cuda_needs_them() {
    let opened = json!([
        {"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia-uvm", "errno": 1}, {"path": "/dev/nvidia2", "errno": 1},
        {"path": "/dev/nvidia3", "errno": 6}
    ]);
    let uvm = |status| ("/dev/nvidia-uvm".to_string(), status, false);
    let ours = |status| ("/dev/nvidia3".to_string(), status, true);
    for (gpu, alone, status) in [
        (Gpu::Required, false, Status::Fail),
        (Gpu::Required, true, Status::Fail),
        (Gpu::Optional, false, Status::Warn),
        (Gpu::Optional, true, Status::Fail),
    ] {
        // nvidia2 is another container's: NVML does not show it here.
        let found = closed_nodes(gpu, alone, opened.clone());
        assert_eq!(found, [uvm(status), ours(status)], "{gpu:?} {alone}");
    }
    assert_eq!(closed_nodes(Gpu::Off, false, opened.clone()), []);
    // CUDA shows its devices: it opened what it needs.
    let findings = judged(&facts(json!({"opened": opened}), json!({})));
    assert!(findings.iter().all(|f| f.status == Status::Pass), "{findings:#?}");
}
