//! Conditions that an image states in `NVIDIA_REQUIRE_*`, on machines that meet them and that do not.

use crate::support::device::Machine;

/// What nvidia/cuda:12.4.1 sets.
const CUDA_12_4: &str = include_str!("../fixtures/require/valid/nvidia-cuda-12.4.1.txt");

fn image(script: &str) -> Machine {
    Machine::new(script)
        .env("NVIDIA_REQUIRE_CUDA", CUDA_12_4.trim())
        .env("CUDA_VERSION", "12.4.1")
        .manifest(r#"{"schema": 1, "name": "t"}"#)
}

#[test]
fn a_machine_that_meets_the_images_conditions_passes() {
    for script in [
        "{}",
        r#"{"driver_api": 12040, "driver_release": "550.54.15", "devices": [{"brand": 5}]}"#,
        // an older driver of a branch that the image names for this brand
        r#"{"driver_api": 12020, "driver_release": "535.104.05", "devices": [{"brand": 14, "repeat": 2}]}"#,
        r#"{"driver_api": 11040, "driver_release": "470.57.02", "devices": [{"brand": 2}]}"#,
    ] {
        let checked = image(script).prove(0, &[]);
        assert_eq!(checked.report["verdict"], "pass", "{checked}");
        let passed = checked.findings();
        let passed = passed.iter().find(|f| f["code"] == "require-cuda").unwrap();
        assert_eq!(
            (&passed["status"], &passed["subject"]),
            (&"pass".into(), &"NVIDIA_REQUIRE_CUDA".into())
        );
    }
}

#[test]
fn a_machine_that_does_not_is_told_so() {
    let machine = image(
        r#"{"driver_api": 12030, "driver_release": "545.23.08", "devices": [{"cc": "8.9", "name": "NVIDIA L4"}]}"#,
    );
    machine.prove(82, &[]).says(
        "require-cuda",
        "fail",
        [
            "cuda 12.3, driver 545.23.08, arch 8.9, brand nvidia (GPU 0 NVIDIA L4)",
            "cuda>=12.4, or one of 30 other alternatives",
            "`cuda>=12.4` does not hold",
            "update the node's driver to release 550.54.14 or newer",
        ],
    );
    insta::assert_snapshot!("require-run", machine.complaint(&[]));
    assert!(
        machine
            .table(&["--stage", "device"])
            .contains("✗ NVIDIA_REQUIRE_CUDA: ")
    );
    // A brand that the image does not name, on a branch that it does.
    image(r#"{"driver_api": 12020, "driver_release": "535.104.05", "devices": [{"brand": 3}]}"#)
        .prove(82, &[]);
    // One of several GPUs.
    let mixed = Machine::new(r#"{"devices": [{}, {"cc": "7.5", "name": "Tesla T4", "brand": 2}]}"#)
        .env("NVIDIA_REQUIRE_ARCH", "arch>=8.0");
    mixed.prove(82, &[]).says(
        "require-cuda",
        "fail",
        ["(GPU 1 Tesla T4)", "arch>=8.0", "`arch>=8.0`", "move"],
    );
    mixed.env("CUDA_VISIBLE_DEVICES", "0").prove(0, &[]);
}

#[test]
fn it_can_be_turned_off() {
    let old = r#"{"driver_api": 12030, "driver_release": "545.23.08"}"#;
    let checked = image(old).env("NVIDIA_DISABLE_REQUIRE", "true").prove(0, &[]);
    checked.says(
        "require-cuda",
        "skip",
        ["", "", "NVIDIA_DISABLE_REQUIRE=true", ""],
    );
    image(old).env("NVIDIA_DISABLE_REQUIRE", "0").prove(82, &[]);
    image(old).prove(0, &["--allow", "require-cuda"]);
    let checked = image(old).prove(0, &["--gpu", "off"]);
    checked.says("require-cuda", "skip", ["", "", "--gpu off", ""]);
}

#[test]
fn without_nvml_it_is_unknown_unless_cuda_decides() {
    let no_nvml = |api: i32| {
        let script = format!(r#"{{"driver_api": {api}, "calls": {{"nvmlInit_v2": {{"returns": 9}}}}}}"#);
        image(&script)
    };
    no_nvml(12040).prove(0, &[]);
    let checked = no_nvml(12030).prove(0, &[]);
    checked.says(
        "require-cuda",
        "unknown",
        [
            "driver ?, arch 9.0, brand ?",
            "cuda>=12.4",
            "cannot determine",
            "utility",
        ],
    );
    let ran = no_nvml(12030).run(&[]);
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(
        said.contains("cuda-entrypoint: require-cuda: ") && said.contains("ok: "),
        "{said}"
    );
    // What nobody knows is none of the warnings that the line counts: there is one, of NVML.
    assert!(said.contains(", 1 warning;"), "{said}");
}

#[test]
fn without_a_driver_or_a_gpu_the_reason_is_told_once() {
    let absent = Machine::without_driver().env("NVIDIA_REQUIRE_CUDA", "cuda>=12.4");
    let checked = absent.prove(82, &[]);
    assert_eq!(checked.codes("fail"), ["driver-missing"]);
    assert_eq!(
        absent.prove(0, &["--gpu", "optional"]).codes("warn"),
        ["driver-missing"]
    );
    let hidden =
        Machine::new(r#"{"devices": [], "driver_api": 12040}"#).env("NVIDIA_REQUIRE_CUDA", "cuda>=12.5");
    assert_eq!(
        hidden.prove(82, &[]).codes("fail"),
        ["gpu-missing", "require-cuda"]
    );
    assert_eq!(
        hidden.prove(0, &["--gpu", "optional"]).codes("warn"),
        ["gpu-missing", "require-cuda"]
    );
}

#[test]
fn a_condition_that_cannot_be_read_is_told_with_its_place() {
    let machine = Machine::new("{}").env(
        "NVIDIA_REQUIRE_CUDA",
        "cuda>=12.4 brand=tesla;driver \u{1b}[31m>=535",
    );
    let checked = machine.prove(82, &[]);
    checked.says(
        "require-cuda",
        "fail",
        [
            "character 31: ",
            "conditions such as",
            "cannot be read",
            "correct NVIDIA_REQUIRE_CUDA",
        ],
    );
    assert!(!machine.complaint(&[]).contains('\u{1b}'));
    let endless = Machine::new("{}").env("NVIDIA_REQUIRE_CUDA", &"cuda>=99,".repeat(10_000));
    let complaint = endless.prove(82, &[]);
    let said = complaint.problem("require-cuda").to_string();
    assert!(said.len() < 4000, "{}", said.len());
}

#[test]
fn old_images_ask_by_their_cuda_version() {
    let old = Machine::new(r#"{"driver_api": 12040}"#).env("CUDA_VERSION", "12.5.1");
    old.prove(82, &[]).says(
        "require-cuda",
        "fail",
        [
            "cuda 12.4",
            "cuda>=12.5, since the image sets CUDA_VERSION",
            "",
            "",
        ],
    );
}
