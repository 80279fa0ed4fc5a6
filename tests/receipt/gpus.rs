//! The device and smoke part: what was proven on GPUs, for as long as they are the same.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{edit, refused, used, written};
use crate::support::device::{Checked, Machine};
use crate::support::needs::Need;

/// A smoke that leaves a line each time it runs.
const MANIFEST: &str = r#"{"schema": 1, "name": "t", "cuda": {"driver": ">=12.4"}, "archs": "9.0",
    "smoke": [{"name": "own", "argv": ["sh", "-c", "echo ran >>\"$SMOKED\""], "gpu": true}]}"#;

const ALL: [&str; 3] = ["image", "device", "smoke"];

/// GPUs by the last figure of their UUIDs. In every process but the first, cuInit fails: whoever asks libcuda again is
/// found out.
fn script(gpus: &str, more: &str) -> String {
    let device =
        |n: char| format!(r#"{{"uuid": "GPU-0000000{n}-0000-4000-8000-000000000000", "minor": {n}{more}}}"#);
    let devices: Vec<String> = gpus.chars().map(device).collect();
    format!(
        r#"{{"devices": [{}], "state": "{{dir}}/state", "calls": {{"cuInit": [{{}}, {{"returns": 999}}]}}}}"#,
        devices.join(", ")
    )
}

/// The same without a limit on how often libcuda is asked.
fn patient(gpus: &str, more: &str) -> String {
    script(gpus, more).replace(r#"[{}, {"returns": 999}]"#, "{}")
}

fn machine(script: &str) -> Machine {
    let machine = Machine::new(script).manifest(MANIFEST);
    let smoked = machine.path("smoked");
    machine.env("SMOKED", smoked.to_str().unwrap())
}

fn receipt(machine: &Machine) -> PathBuf {
    machine.path("receipt.json")
}

fn change(machine: &Machine, script: &str) {
    let script = script.replace("{dir}", machine.path("").to_str().unwrap());
    fs::write(machine.path("script.json"), script).unwrap();
}

fn start(machine: &Machine) -> Checked {
    start_with(machine, &[])
}

fn start_with(machine: &Machine, options: &[&str]) -> Checked {
    let file = receipt(machine);
    machine.run(&[&["--receipt", file.to_str().unwrap()], options].concat())
}

/// How often the smoke ran.
fn smokes(machine: &Machine) -> usize {
    let lines = fs::read_to_string(machine.path("smoked")).unwrap_or_default();
    lines.lines().count()
}

fn uuids(report: &Value) -> Vec<&str> {
    let devices = report["facts"]["device"]["devices"].as_array().unwrap();
    devices
        .iter()
        .map(|d| &d["uuid"].as_str().unwrap()[4..12])
        .collect()
}

/// A start that takes everything from the receipt.
#[track_caller]
fn known(machine: &Machine) -> Checked {
    let before = smokes(machine);
    let checked = start(machine);
    assert_eq!(checked.exit(), 0, "{checked}");
    assert_eq!(
        (used(&checked.report), written(&checked.report)),
        (ALL.to_vec(), vec![]),
        "{checked}"
    );
    assert_eq!(smokes(machine), before);
    checked
}

/// A start that does not take the device part, for this reason, and records it anew.
#[track_caller]
fn unknown(machine: &Machine, why: &str) -> Checked {
    let before = smokes(machine);
    let checked = start(machine);
    assert_eq!(checked.exit(), 0, "{checked}");
    let said = refused(&checked.report);
    assert!(
        said.len() == 1 && said[0].starts_with("device: ") && said[0].contains(why),
        "{why}: {said:?}"
    );
    let line = format!(
        "receipt: GPUs not taken from it: {}",
        &said[0]["device: ".len()..]
    );
    assert!(
        String::from_utf8_lossy(&checked.output.stderr).contains(&line),
        "{checked}"
    );
    assert_eq!(
        (used(&checked.report), written(&checked.report)),
        (vec!["image"], vec!["device", "smoke"])
    );
    assert_eq!(smokes(machine), before + 1);
    checked
}

#[test]
fn the_second_start_asks_nvml_alone_and_smokes_nothing() {
    let machine = machine(&script("1", ""));
    let first = start(&machine);
    assert_eq!(
        (first.exit(), written(&first.report)),
        (0, ALL.to_vec()),
        "{first}"
    );
    assert_eq!(smokes(&machine), 1);
    let second = known(&machine);
    assert_eq!(second.output.stdout, b"started\n");
    assert_eq!(second.findings(), first.findings());
    let device = &second.report["facts"]["device"];
    assert_eq!(
        (&device["helper"]["end"], &device["nvml_helper"]["end"]),
        (&json!("not-run"), &json!("done"))
    );
    let said = String::from_utf8_lossy(&second.output.stderr).into_owned();
    assert!(
        said.contains("NVIDIA H200 (9.0), ") && said.contains("image, GPUs and smoke as proven "),
        "{said}"
    );
    assert_eq!(second.report["smoke"]["status"], "passed");
    // A third is no other.
    known(&machine);
    // Without it, libcuda's second answer is in force.
    assert_eq!(machine.run(&[]).exit(), 82);
}

#[test]
fn what_was_not_proven_now_is_said_where_there_is_no_room_for_all() {
    let machine = machine(&patient(
        "1",
        r#", "name": "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition""#,
    ))
    .manifest(&MANIFEST.replace("\"t\"", &format!("\"{}\"", "stack".repeat(12))));
    let first = start(&machine);
    assert_eq!(first.exit(), 0, "{first}");
    let second = known(&machine);
    let said = String::from_utf8_lossy(&second.output.stderr).into_owned();
    assert!(said.contains("image, GPUs and smoke as proven "), "{said}");
    assert!(!said.contains("own OK"), "the line has room for all: {said}");
}

#[test]
fn an_init_container_pays_and_the_main_one_does_not() {
    let machine = machine(&script("1", ""));
    let file = receipt(&machine);
    let init = machine.check(&["--receipt", file.to_str().unwrap()]);
    assert_eq!((init.exit(), written(&init.report)), (0, ALL.to_vec()), "{init}");
    assert_eq!(smokes(&machine), 1);
    // What the device plugin writes for this container.
    known(&machine.env(
        "NVIDIA_VISIBLE_DEVICES",
        "GPU-00000001-0000-4000-8000-000000000000",
    ));
}

#[test]
fn fewer_gpus_are_proven_and_others_are_not() {
    let machine = machine(&patient("12", ""));
    let first = start(&machine);
    assert_eq!(uuids(&first.report), ["00000001", "00000002"]);
    for gpus in ["2", "1"] {
        change(&machine, &script(gpus, "").replace("[{}, ", "["));
        let checked = known(&machine);
        assert_eq!(uuids(&checked.report), [format!("0000000{gpus}")]);
        assert_eq!(checked.report["facts"]["device"]["devices"][0]["ordinal"], 0);
        assert_eq!(checked.report["facts"]["device"]["driver"]["device_count"], 1);
    }
    change(&machine, &patient("23", ""));
    unknown(
        &machine,
        "GPU-00000003-0000-4000-8000-000000000000 was not proven",
    );
    known(&machine);
    change(&machine, &patient("1", ""));
    unknown(
        &machine,
        "GPU-00000001-0000-4000-8000-000000000000 was not proven",
    );
}

#[test]
fn a_list_of_visible_devices_means_what_it_meant() {
    let machine = machine(&patient("12", "")).env("CUDA_VISIBLE_DEVICES", "1");
    assert_eq!(uuids(&start(&machine).report), ["00000002"]);
    known(&machine);
    change(&machine, &patient("21", ""));
    // The same GPUs in another order: their order on the bus is the kernel's, and the same for a boot.
    known(&machine);
    change(&machine, &patient("2", ""));
    let checked = start(&machine);
    let why = refused(&checked.report);
    assert!(
        why[0].contains("GPU-00000001-0000-4000-8000-000000000000 is gone, and what CUDA_VISIBLE_DEVICES=1"),
        "{why:?}"
    );
    assert_eq!(checked.exit(), 82, "{checked}"); // there is no second one
    let machine = machine.env("CUDA_VISIBLE_DEVICES", "0");
    let why = refused(&start(&machine).report);
    assert_eq!(why, [r#"device: CUDA_VISIBLE_DEVICES was "1" and is "0""#]);
}

#[test]
fn mig_instances_are_proven_one_by_one() {
    let instances = |n: u32| patient("1", &format!(r#", "mig": true, "mig_instances": {n}"#));
    let machine = machine(&instances(2));
    assert_eq!(written(&start(&machine).report), ALL);
    known(&machine);
    change(&machine, &instances(1));
    known(&machine);
    change(&machine, &patient("1", ""));
    unknown(
        &machine,
        "GPU-00000001-0000-4000-8000-000000000000 was not proven",
    );
}

#[test]
fn another_driver_boot_or_time_is_told() {
    let machine = machine(&patient("1", ""));
    assert_eq!(start(&machine).exit(), 0);
    change(
        &machine,
        &patient("1", "").replacen('{', r#"{"driver_release": "590.1", "#, 1),
    );
    unknown(&machine, r#"the driver was "580.159.04" and is "590.1""#);
    let edit = |change: &dyn Fn(&mut Value)| edit(&receipt(&machine), |r| change(&mut r["device"]));
    edit(&|device| device["key"]["boot"] = json!("another"));
    unknown(&machine, "written for another boot");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let age = |seconds: u64| move |device: &mut Value| device["written"]["at"] = json!(now - seconds);
    edit(&age(23 * 3600));
    known(&machine);
    edit(&age(25 * 3600 + 1));
    unknown(&machine, "25 h old, and a GPU's proof counts for 24 h");
    edit(&|device| device["written"]["at"] = json!(now + 3600));
    unknown(&machine, "s in the future: the clock was set back");
    edit(&|device| {
        let first = device["key"]["basis"]["libcuda"][0].take();
        let (path, _) = first.as_str().unwrap().split_once('\t').unwrap();
        device["key"]["basis"]["libcuda"][0] = json!(format!("{path}\t1 1"));
    });
    unknown(&machine, "libcuda.so.1 is another file now");
    known(&machine);
}

#[test]
fn health_is_asked_anew() {
    let machine = machine(&script("12", ""));
    assert_eq!(start(&machine).exit(), 0);
    change(&machine, &script("12", r#", "ecc": 3"#));
    let checked = start(&machine);
    assert_eq!(checked.exit(), 82, "{checked}");
    assert_eq!(used(&checked.report)[..2], ["image", "device"]);
    assert_eq!(checked.codes("fail"), ["gpu-unhealthy", "gpu-unhealthy"]);
    change(&machine, &script("12", r#", "compute_mode": 2"#));
    assert_eq!(start(&machine).codes("fail"), ["gpu-unhealthy", "gpu-unhealthy"]);
    change(&machine, &script("12", ""));
    known(&machine);
    // Where NVML does not answer, libcuda is asked, and here it has no good word any more.
    let silent = script("12", "").replace(r#""calls": {"#, r#""calls": {"nvmlInit_v2": {"returns": 999}, "#);
    change(&machine, &silent);
    let checked = start(&machine);
    assert!(refused(&checked.report)[0].contains("NVML does not list its GPUs: nvmlInit_v2 returned 999"));
    assert_eq!(checked.exit(), 82, "{checked}");
    assert_eq!(checked.report["facts"]["device"]["helper"]["end"], "done");
    // `health` asks in any case.
    change(&machine, &script("12", ""));
    let file = receipt(&machine);
    let health = machine.check(&["--stage", "health", "--receipt", file.to_str().unwrap()]);
    assert_eq!((health.exit(), &health.report["receipt"]), (0, &Value::Null));
}

/// A receipt says what the GPUs are, not how many are here now or what is free of them.
#[test]
fn what_the_manifest_expects_of_the_gpus_is_asked_anew() {
    let machine = machine(&script("12", "")).manifest(&MANIFEST.replace(
        "\"smoke\"",
        "\"gpus\": 2, \"limits\": {\"gpu_memory_free\": \"1GiB\"}, \"smoke\"",
    ));
    let first = start(&machine);
    assert_eq!(
        (first.exit(), written(&first.report)),
        (0, ALL.to_vec()),
        "{first}"
    );
    let second = known(&machine);
    assert_eq!(second.findings(), first.findings());
    assert!(second.codes("pass").contains(&"gpu-count") && second.codes("pass").contains(&"gpu-memory"));
    // libcuda is not asked again: in its second process cuInit fails.
    change(&machine, &script("12", r#", "free": 1000, "holders": [[77, 5]]"#));
    let held = start(&machine);
    assert_eq!(held.exit(), 82, "{held}");
    assert_eq!(used(&held.report)[..2], ["image", "device"]);
    assert_eq!(held.codes("fail"), ["gpu-memory", "gpu-memory"]);
    change(&machine, &script("1", ""));
    let fewer = start(&machine);
    assert_eq!(fewer.exit(), 82, "{fewer}");
    assert_eq!(used(&fewer.report)[..2], ["image", "device"]);
    assert_eq!(fewer.codes("fail"), ["gpu-count"]);
    change(&machine, &script("12", ""));
    known(&machine);
}

#[test]
fn nodes_that_do_not_open_are_not_taken_for_granted() {
    Need::MountNamespace.demand();
    let machine = machine(&patient("1", ""));
    let start = |nodes: &str| {
        let file = receipt(&machine);
        let options = ["--receipt", file.to_str().unwrap(), "--report"];
        let inner = machine.command("run", &options);
        let mut command = Command::new("unshare");
        let script =
            format!("mount -t tmpfs none /dev && cd /dev && touch null nvidiactl && {nodes} && exec \"$@\"");
        command
            .args(["-m", "sh", "-c", &script, "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        machine.equip(&mut command);
        let report = machine.path("report.json");
        let output = command.arg(&report).args(["--", "true"]).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
        report
    };
    assert_eq!(written(&start("touch nvidia-uvm nvidia1")), ALL);
    assert_eq!(used(&start("touch nvidia-uvm nvidia1 nvidia7")), ALL);
    for (nodes, why) in [
        (
            "ln -s /none nvidia-uvm && touch nvidia1",
            "/dev/nvidia-uvm does not open: ENOENT",
        ),
        ("touch nvidia1", "/dev/nvidia-uvm is gone"),
        (
            "touch nvidia-uvm && mkdir nvidia1",
            "/dev/nvidia1 does not open: EISDIR",
        ),
    ] {
        let before = fs::read(receipt(&machine)).unwrap();
        let report = start(nodes);
        assert!(refused(&report)[0].contains(why), "{why}: {:?}", refused(&report));
        fs::write(receipt(&machine), before).unwrap();
    }
}

#[test]
fn parts_are_written_and_kept_by_themselves() {
    let machine = machine(&patient("1", ""));
    let file = receipt(&machine);
    let file = file.to_str().unwrap();
    let parts = || {
        let receipt: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let device = receipt["device"].as_object();
        (
            receipt["image"]["written"]["at"].as_u64(),
            device.map(|d| (d["written"]["at"].as_u64().unwrap(), d.contains_key("smoke"))),
        )
    };
    let stage = |stage: &str| {
        let checked = machine.check(&["--stage", stage, "--receipt", file]);
        assert_eq!(checked.exit(), 0, "{checked}");
        checked
    };
    assert_eq!(written(&stage("image").report), ["image"]);
    assert!(matches!(parts(), (Some(_), None)));
    edit(&receipt(&machine), |r| r["image"]["written"]["at"] = json!(1_000));
    assert_eq!(written(&stage("device").report), ["device"]);
    assert!(matches!(parts(), (Some(1_000), Some((_, false)))));
    let hour_ago = parts().1.unwrap().0 - 3_600;
    edit(&receipt(&machine), |r| {
        r["device"]["written"]["at"] = json!(hour_ago)
    });
    // The smoke is added, and what was known before gets no younger.
    let checked = start(&machine);
    assert_eq!(
        (used(&checked.report), written(&checked.report)),
        (vec!["image", "device"], vec!["device", "smoke"])
    );
    assert_eq!(parts(), (Some(1_000), Some((hour_ago, true))));
    known(&machine);
    // `check` of one stage takes over what it needs, and leaves the rest in peace.
    assert_eq!(used(&stage("device").report), ["image", "device"]);
    assert_eq!(used(&stage("image").report), ["image"]);
    known(&machine);
    assert_eq!(
        start_with(&machine, &["--gpu", "off", "--smoke", "off"]).exit(),
        0
    );
    assert_eq!(
        used(&start_with(&machine, &["--smoke", "off"]).report),
        ["image", "device"]
    );
    known(&machine);
}

#[test]
fn a_smoke_counts_for_the_image_that_it_ran_in() {
    let machine = machine(&patient("1", ""));
    assert_eq!(start(&machine).exit(), 0);
    edit(&receipt(&machine), |r| {
        r["device"]["smoke"]["image"] = json!("0000000000000000")
    });
    let checked = start(&machine);
    assert_eq!(
        refused(&checked.report),
        ["smoke: it ran in another state of the image or of the service's code"]
    );
    assert_eq!(used(&checked.report), ["image", "device"]);
    assert_eq!(
        (written(&checked.report), smokes(&machine)),
        (vec!["device", "smoke"], 2)
    );
    known(&machine);
    // No image part, no smoke: but the GPUs are the same.
    edit(&receipt(&machine), |r| {
        drop(r.as_object_mut().unwrap().remove("image"))
    });
    let checked = start(&machine);
    assert_eq!(
        refused(&checked.report),
        ["smoke: it ran in another state of the image or of the service's code"]
    );
    assert_eq!(
        (used(&checked.report), written(&checked.report)),
        (vec!["device"], ALL.to_vec())
    );
    known(&machine);
}

#[test]
fn an_own_command_whose_code_changed_is_run_again() {
    let machine = machine(&patient("1", ""));
    let program = machine.path("selftest");
    let write = |text: &str| {
        fs::write(&program, format!("#!/bin/sh\necho ran >>\"$SMOKED\"\n{text}\n")).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("exit 0");
    let argv = json!([program.to_str().unwrap()]);
    let smoke = json!([{"name": "own", "argv": argv, "gpu": true}]);
    let stack =
        json!({"schema": 1, "name": "t", "cuda": {"driver": ">=12.4"}, "archs": "9.0", "smoke": smoke});
    let machine = machine.manifest(&stack.to_string());
    assert_eq!(start(&machine).exit(), 0);
    known(&machine);
    write("echo 'the model is broken'; exit 1");
    let checked = start(&machine);
    assert_eq!((checked.exit(), smokes(&machine)), (84, 2), "{checked}");
    assert_eq!(
        refused(&checked.report),
        ["smoke: it ran in another state of the image or of the service's code"]
    );
}

#[test]
fn failures_of_a_stage_are_not_recorded_and_those_before_it_are() {
    let machine = machine(&patient("1", "").replace(r#""cuInit": {}"#, r#""cuInit": {"returns": 802}"#));
    for mode in ["enforce", "warn"] {
        let checked = start_with(&machine, &["--mode", mode]);
        assert_eq!(checked.report["verdict"], "fail");
        assert!(
            written(&checked.report).iter().all(|part| *part == "image"),
            "{checked}"
        );
    }
    change(&machine, &patient("1", ""));
    let failing = MANIFEST.replace("echo ran", "false && echo ran");
    fs::write(machine.path("stack.json"), failing).unwrap();
    let checked = start(&machine);
    assert_eq!(
        (checked.exit(), written(&checked.report)),
        (84, vec!["image", "device"]),
        "{checked}"
    );
    let checked = start(&machine);
    assert_eq!(
        (checked.exit(), used(&checked.report)),
        (84, vec!["image", "device"]),
        "{checked}"
    );
    // A smoke that is only put up with is no proof.
    for _ in 0..2 {
        let checked = start_with(&machine, &["--warn", "smoke-forward"]);
        assert_eq!(
            (checked.exit(), checked.codes("warn")),
            (0, vec!["smoke-forward"]),
            "{checked}"
        );
        assert!(!written(&checked.report).contains(&"smoke"), "{checked}");
    }
    // A GPU that this image is not built for, under a proof of all the rest.
    fs::write(machine.path("stack.json"), MANIFEST.replace("9.0", "8.0")).unwrap();
    let checked = start(&machine);
    assert_eq!(
        (checked.exit(), written(&checked.report)),
        (83, vec!["image"]),
        "{checked}"
    );
}

#[test]
fn without_a_gpu_there_is_an_image_part_alone() {
    let machine = Machine::without_driver();
    let file = receipt(&machine);
    let options = ["--gpu", "optional", "--receipt", file.to_str().unwrap()];
    let checked = machine.run(&options);
    assert_eq!(
        (checked.exit(), written(&checked.report)),
        (0, vec!["image"]),
        "{checked}"
    );
    let checked = machine.run(&options);
    assert_eq!(
        (used(&checked.report), written(&checked.report)),
        (vec!["image"], vec![])
    );
    // NVML has to say which GPUs there are.
    let blind = Machine::where_call("nvmlInit_v2", r#"{"returns": 4}"#);
    let file = receipt(&blind);
    let checked = blind.run(&["--receipt", file.to_str().unwrap()]);
    assert_eq!(
        (checked.exit(), written(&checked.report)),
        (0, vec!["image"]),
        "{checked}"
    );
    let why = checked.report["receipt"]["not_written"].as_str().unwrap();
    assert!(
        why.starts_with("the GPUs: NVML does not list its GPUs: nvmlInit_v2 returned 4"),
        "{why}"
    );
}

#[test]
fn an_nvml_that_hangs_is_given_up_and_libcuda_asked() {
    let machine = machine(&script("1", ""));
    assert_eq!(start(&machine).exit(), 0);
    let hang = script("1", "").replace(r#""calls": {"#, r#""calls": {"nvmlInit_v2": {"hang": true}, "#);
    change(&machine, &hang);
    let checked = start_with(&machine, &["--device-timeout", "1s"]);
    assert!(
        refused(&checked.report)[0].contains("NVML does not list its GPUs"),
        "{checked}"
    );
    assert_eq!(checked.exit(), 82, "{checked}"); // libcuda's second answer
}

/// The smoke runs in the service's own Python, and its verdict in a second run of the binary: that one adds it.
#[test]
fn a_smoke_that_was_handed_off_is_recorded_too() {
    // Not a shim of that name, which is a script.
    let found = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    let python = String::from_utf8(found.stdout).unwrap();
    let manifest = MANIFEST.replace(r#""smoke": ["#, r#""smoke": ["torch", "spconv", "#);
    let machine = Machine::new(&script("1", "")).manifest(&manifest);
    let smoked = machine.path("smoked");
    let packages = format!("{}/tests/fakes/python", env!("CARGO_MANIFEST_DIR"));
    let machine = machine
        .env("SMOKED", smoked.to_str().unwrap())
        .env("PYTHONPATH", &packages)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let file = receipt(&machine);
    let start = |how: &str| -> (Value, String) {
        let report = machine.path("report.json");
        let _ = fs::remove_file(&report);
        let options = ["--receipt", file.to_str().unwrap(), "--smoke", how, "--report"];
        let mut command = machine.command("run", &options);
        let output = command
            .arg(&report)
            .args(["--", python.trim(), "-c", "print('started')"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(0), &b"started\n"[..]),
            "{said}"
        );
        (serde_json::from_slice(&fs::read(report).unwrap()).unwrap(), said)
    };
    let (report, said) = start("handoff");
    assert!(said.contains("in the service's own Python"), "{said}");
    assert_eq!(
        (used(&report), written(&report)),
        (vec![], ALL.to_vec()),
        "{said}"
    );
    for how in ["handoff", "separate"] {
        let (report, said) = start(how);
        assert!(!said.contains("smoke: "), "{said}");
        assert_eq!(
            (used(&report), written(&report)),
            (ALL.to_vec(), vec![]),
            "{said}"
        );
        assert_eq!(report["smoke"]["status"], "passed");
    }
    assert_eq!(smokes(&machine), 1);
    edit(&file, |r| r["device"]["smoke"]["image"] = json!("0"));
    let (report, said) = start("handoff");
    assert!(said.contains("in the service's own Python"), "{said}");
    assert_eq!(
        refused(&report),
        ["smoke: it ran in another state of the image or of the service's code"]
    );
    assert_eq!(
        (used(&report), written(&report)),
        (vec!["image", "device"], vec!["device", "smoke"])
    );
}

#[test]
fn an_nvml_that_hangs_is_asked_once_and_cuda_then() {
    let gpus = patient("0", "");
    let machine = machine(&gpus);
    assert_eq!(written(&start(&machine).report), ALL);
    // A third process would hear that the GPU is lost.
    let nvml = r#""nvmlInit_v2": [{"hang": true}, {"returns": 15}], "cuInit": "#;
    fs::remove_file(machine.path("state")).unwrap_or_default();
    change(&machine, &gpus.replace(r#""cuInit": "#, nvml));
    let checked = start_with(&machine, &["--device-timeout", "2s"]);
    assert_eq!(checked.exit(), 0, "{checked}");
    checked.says(
        "helper-timeout",
        "warn",
        ["no answer from nvmlInit_v2 after 2 s", "", "", "CUDA answers"],
    );
    let refused = refused(&checked.report).join("; ");
    assert!(
        refused.contains("device: NVML does not list its GPUs"),
        "{refused}"
    );
}
