//! Severities, the order of the stages, and a verdict that does not depend on who was faster.

use std::fs;

use crate::support::device::{Machine, SERVICE};

/// A machine for each kind of finding of the device and arch stages that can be a problem, with its exit code.
fn one_of_each() -> Vec<(&'static str, i32, Machine, &'static [&'static str])> {
    let limits = r#"{"schema": 1, "name": "t", "limits": {"shm": "1000TiB"}}"#;
    vec![
        ("driver-missing", 82, Machine::without_driver(), &[]),
        (
            "driver-too-old",
            82,
            Machine::new(r#"{"driver_api": 11080}"#),
            &[],
        ),
        (
            "driver-minor-compat",
            82,
            Machine::new(r#"{"driver_api": 12020}"#),
            &[],
        ),
        (
            "require-cuda",
            82,
            Machine::new("{}").env("NVIDIA_REQUIRE_CUDA", "cuda>=13.1"),
            &[],
        ),
        ("gpu-missing", 82, Machine::new(r#"{"devices": []}"#), &[]),
        (
            "gpu-not-ready",
            82,
            Machine::where_call("cuInit", r#"{"returns": 802}"#),
            &[],
        ),
        (
            "gpu-unhealthy",
            82,
            Machine::new(r#"{"devices": [{"ecc": 1}]}"#),
            &[],
        ),
        (
            "nvml-missing",
            82,
            Machine::where_call("nvmlInit_v2", r#"{"returns": 9}"#),
            &[],
        ),
        ("shm-small", 82, Machine::new("{}").manifest(limits), &[]),
        (
            "helper-crashed",
            82,
            Machine::where_call("cuInit", r#"{"signal": 11}"#),
            &[],
        ),
        (
            "helper-timeout",
            85,
            Machine::where_call("cuInit", r#"{"hang": true}"#),
            &["--device-timeout", "300ms"],
        ),
        (
            "stub-driver",
            81,
            Machine::where_call("cuInit", r#"{"returns": 34}"#),
            &[],
        ),
        (
            "arch-unsupported",
            83,
            Machine::new(r#"{"devices": [{"cc": "12.0"}]}"#),
            &[],
        ),
        (
            "arch-unlisted",
            83,
            Machine::new(r#"{"devices": [{"cc": "8.8"}]}"#),
            &[],
        ),
    ]
}

#[test]
fn every_problem_can_be_denied_warned_of_and_allowed() {
    for (code, exit, machine, options) in one_of_each() {
        for (flag, status, exit) in [
            ("--deny", "fail", exit),
            ("--warn", "warn", 0),
            ("--allow", "info", 0),
        ] {
            let checked = machine.check(&[&["--stage", "device", flag, code], options].concat());
            let findings = checked.report["findings"].as_array().unwrap();
            let statuses: Vec<_> = findings
                .iter()
                .filter(|f| f["code"] == code && f["status"] != "pass")
                .map(|f| f["status"].as_str().unwrap())
                .collect();
            assert_eq!(statuses, [status], "{flag} {code}: {checked}");
            // Without a driver there is no NVML either, which is a note.
            assert_eq!(checked.exit(), exit, "{flag} {code}: {checked}");
        }
        // The service starts under --allow and under --warn, and says why it is not silent.
        let ran = machine.run(&[&["--warn", code], options].concat());
        assert_eq!(ran.exit(), 0, "{code}: {ran}");
        let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
        assert!(said.contains(&format!("warning: {code}: ")), "{code}: {said}");
        let ran = machine.run(&[&["--allow", code], options].concat());
        let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
        assert_eq!(
            (ran.exit(), said.contains("warning: ")),
            (0, false),
            "{code}: {said}"
        );
    }
}

#[test]
fn variables_change_severities_too() {
    let machine = Machine::without_driver().env("CUDA_ENTRYPOINT_WARN", "gpu-missing, driver-missing");
    assert_eq!(machine.prove(0, &[]).codes("warn"), ["driver-missing"]);
    assert_eq!(
        machine.prove(82, &["--deny", "driver-missing"]).codes("fail"),
        ["driver-missing"]
    );
}

#[test]
fn under_warn_the_failure_is_told_and_the_service_starts() {
    let machine = Machine::new(r#"{"devices": [{"cc": "12.0"}]}"#);
    let ran = machine.run(&["--mode", "warn"]);
    assert_eq!((ran.exit(), &ran.output.stdout[..]), (0, &b"started\n"[..]));
    insta::assert_snapshot!("warn-mode-run", machine.complaint(&["--mode", "warn"]));
    let checked = machine.check(&["--stage", "device", "--mode", "warn"]);
    assert_eq!((checked.exit(), &checked.report["exit_code"]), (0, &83.into()));
}

#[test]
fn the_device_stage_counts_before_the_arch_stage() {
    let machine = Machine::new(r#"{"driver_api": 11080, "devices": [{"cc": "12.0"}]}"#);
    let checked = machine.prove(82, &[]);
    assert_eq!(checked.codes("fail"), ["driver-too-old", "arch-unsupported"]);
    // Once it is forgiven the next one counts.
    let checked = machine.prove(83, &["--warn", "driver-too-old"]);
    assert_eq!(checked.codes("fail"), ["arch-unsupported"]);
}

/// No libcudart is where the manifest wants one.
const IMAGE_FAILS: &str =
    r#"{"schema": 1, "name": "t", "cuda": {"runtime": "12.4", "driver": ">=12.4"}, "archs": "9.0"}"#;

#[test]
fn the_image_stage_counts_before_the_device_stage() {
    let machine = Machine::new(r#"{"devices": [{"cc": "12.0", "ecc": 1}]}"#).manifest(IMAGE_FAILS);
    let empty = machine.path("empty");
    fs::create_dir(&empty).unwrap();
    let python = ["--python", empty.to_str().unwrap()];
    let checked = machine.check(&python);
    assert_eq!(checked.exit(), 81, "{checked}");
    let failing = checked.codes("fail");
    // `check` says all of it, in the order of the stages.
    for code in ["library-missing", "gpu-unhealthy", "arch-unsupported"] {
        assert!(failing.contains(&code), "{code}: {checked}");
    }
    let stages: Vec<_> = checked
        .findings()
        .iter()
        .map(|f| f["stage"].as_str().unwrap())
        .collect();
    let mut sorted = stages.clone();
    sorted.sort_by_key(|stage| {
        ["image", "device", "arch", "smoke"]
            .iter()
            .position(|s| s == stage)
    });
    assert_eq!(stages, sorted);
    // `run` stops there and waits for no driver.
    let hanging = Machine::where_call("cuInit", r#"{"hang": true}"#).manifest(IMAGE_FAILS);
    let ran = hanging.run(&[&python[..], &["--device-timeout", "600s"]].concat());
    assert_eq!(ran.exit(), 81, "{ran}");
    assert!(ran.codes("fail").contains(&"library-missing"), "{ran}");
    ran.says(
        "driver-missing",
        "skip",
        ["", "", "not looked at: the image stage failed", ""],
    );
    // Under --mode warn everything is looked at.
    let ran = machine.run(&[&python[..], &["--mode", "warn"]].concat());
    assert_eq!((ran.exit(), &ran.report["exit_code"]), (0, &81.into()));
    assert!(ran.codes("fail").contains(&"gpu-unhealthy"), "{ran}");
}

#[test]
fn a_deadline_stands_at_the_rank_of_its_stage() {
    let machine = Machine::where_call("cuInit", r#"{"hang": true}"#);
    let checked = machine.prove(85, &["--device-timeout", "300ms"]);
    assert_eq!(checked.codes("fail"), ["helper-timeout"]);
    let machine = Machine::new(r#"{"devices": [{"ecc": 1}], "calls": {"cuInit": {"hang": true}}}"#);
    let checked = machine.prove(82, &["--device-timeout", "300ms"]);
    assert_eq!(checked.codes("fail"), ["helper-timeout", "gpu-unhealthy"]);
}

/// A small generator of numbers that are different each time, the same in each run of the tests.
struct Delays(u32);

impl Delays {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) % 30
    }
}

#[test]
fn the_verdict_does_not_depend_on_who_was_faster() {
    let mut delays = Delays(1);
    let mut first: Option<Vec<serde_json::Value>> = None;
    for round in 0..50 {
        let script = format!(
            r#"{{"driver_api": 12020,
                "devices": [{{"cc": "8.8", "ecc": 2}}, {{"cc": "12.0"}}, {{"cc": "9.0", "remap_pending": true}}],
                "calls": {{
                    "cuInit": {{"delay_ms": {}}}, "load libcuda": {{"delay_ms": {}}},
                    "nvmlInit_v2": {{"delay_ms": {}}}, "nvmlDeviceGetName": {{"device": 1, "delay_ms": {}, "returns": 999}}
                }}}}"#,
            delays.next(),
            delays.next(),
            delays.next(),
            delays.next(),
        );
        let machine = Machine::new(&script);
        let checked = if round % 2 == 0 {
            machine.check(&["--stage", "device"])
        } else {
            machine.run(&[])
        };
        assert_eq!(checked.exit(), 82, "{checked}");
        let findings: Vec<_> = checked.findings().into_iter().cloned().collect();
        let first = first.get_or_insert_with(|| findings.clone());
        assert_eq!(&findings, first, "round {round}");
    }
    let first = first.unwrap();
    let codes: Vec<_> = first
        .iter()
        .filter(|f| f["status"] == "fail")
        .map(|f| f["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["gpu-unhealthy", "gpu-unhealthy", "arch-unsupported"]);
}

#[test]
fn everything_at_once_reads_well() {
    let machine = Machine::new(
        r#"{"driver_api": 11080, "driver_release": "520.61.05",
            "devices": [{"cc": "12.0", "name": "NVIDIA RTX PRO 6000", "ecc": 2}, {"cc": "8.8", "name": "Next"}],
            "calls": {"cuDeviceTotalMem_v2": {"device": 1, "returns": 999}}}"#,
    );
    insta::assert_snapshot!(
        "all-table",
        super::driver::without_limits(&machine.table(&["--stage", "device"]))
    );
    insta::assert_snapshot!("all-run", machine.complaint(&[]));
    machine.run(&[]);
    insta::assert_snapshot!(
        "all-termination",
        fs::read_to_string(machine.path("termination-log")).unwrap()
    );
}

#[test]
fn json_logs_are_one_object_a_line() {
    let machine = Machine::new(r#"{"driver_api": 12020, "devices": [{"ecc": 2}]}"#);
    let ran = machine.run(&["--format", "json"]);
    let text = String::from_utf8(ran.output.stderr.clone()).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let codes: Vec<_> = lines.iter().filter_map(|line| line["code"].as_str()).collect();
    assert_eq!(
        codes,
        ["gpu-unhealthy", "driver-minor-compat", "gpu-unhealthy"],
        "{text}"
    );
    let verdict = lines.last().unwrap();
    assert_eq!(
        (&verdict["verdict"], &verdict["exit_code"]),
        (&"fail".into(), &82.into()),
        "{text}"
    );
    assert!(
        verdict["service"].as_str().unwrap().ends_with(SERVICE[0]),
        "{text}"
    );
}
