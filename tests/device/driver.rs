//! Whether there is a driver, and how new it is.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::device::{Machine, SERVICE};
use crate::support::{fakes, sandbox};

#[test]
fn a_healthy_machine_passes() {
    let checked = Machine::new("{}").prove(0, &[]);
    assert_eq!(checked.report["verdict"], "pass");
    assert_eq!(
        checked.codes("pass"),
        [
            "driver-missing",
            "driver-too-old",
            "gpu-missing",
            "gpu-unhealthy",
            "arch-unsupported"
        ]
    );
    assert_eq!(checked.findings().len(), 5, "{checked}");
}

#[test]
fn the_table_and_the_line_of_a_healthy_machine() {
    let machine = Machine::new("{}").manifest(crate::support::device::MANIFEST);
    let quiet = ["--stage", "device"];
    insta::assert_snapshot!("healthy-table", without_limits(&machine.table(&quiet)));
    insta::assert_snapshot!("healthy-run", machine.complaint(&[]));
}

/// The limits of the machine that runs the tests are no part of a snapshot.
pub fn without_limits(table: &str) -> String {
    let mut shown = Vec::new();
    let mut leave_out = false;
    for line in table.lines() {
        let detail = line.starts_with("    ");
        leave_out = line.ends_with("[shm-small]") || line.ends_with("[memlock-low]") || (leave_out && detail);
        if !leave_out {
            shown.push(line);
        }
    }
    shown.join("\n")
}

#[test]
fn no_driver_at_all() {
    let machine = Machine::without_driver();
    machine.prove(82, &[]).says(
        "driver-missing",
        "fail",
        [
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            "the NVIDIA driver's libcuda.so.1",
            "there is no NVIDIA driver in this container",
            "docker run --gpus all",
        ],
    );
    machine.prove(82, &[]).says(
        "nvml-missing",
        "info",
        [
            "libnvidia-ml.so.1",
            "libnvidia-ml.so.1",
            "NVML is not there",
            "NVIDIA_DRIVER_CAPABILITIES",
        ],
    );
    insta::assert_snapshot!("no-driver-run", machine.complaint(&[]));
    insta::assert_snapshot!(
        "no-driver-table",
        without_limits(&machine.table(&["--stage", "device"]))
    );
    machine.run(&[]);
    let message = fs::read_to_string(machine.path("termination-log")).unwrap();
    insta::assert_snapshot!("no-driver-termination", message);
}

#[test]
fn no_driver_is_a_warning_where_a_gpu_is_optional() {
    let machine = Machine::without_driver();
    let checked = machine.prove(0, &["--gpu", "optional"]);
    checked.says(
        "driver-missing",
        "warn",
        ["libcuda.so.1", "libcuda.so.1", "no NVIDIA driver", "--gpus all"],
    );
    assert_eq!(checked.report["verdict"], "warn");
    let by_variable = Machine::without_driver().env("CUDA_ENTRYPOINT_GPU", "optional");
    assert_eq!(by_variable.prove(0, &[]).codes("warn"), ["driver-missing"]);
}

#[test]
fn with_gpu_off_nothing_is_started() {
    // The same process dies as soon as it makes the helper's file or executes it.
    let deadly = |options: &[&str]| {
        let machine = Machine::new("{}").sandbox(sandbox::helper_is_deadly);
        machine.run(options).exit()
    };
    assert_eq!(deadly(&[]), 128 + 31, "the filter has to see the helper");
    assert_eq!(deadly(&["--gpu", "off"]), 0);
    // A driver that cannot be loaded is not even looked at.
    let broken = Machine::without_driver().libcuda(b"no library");
    let checked = broken.prove(0, &["--gpu", "off"]);
    checked.says("driver-missing", "skip", ["", "", "not asked: --gpu off", ""]);
    assert_eq!(checked.findings().len(), 1, "{checked}");
}

#[test]
fn what_stands_in_the_drivers_place_is_told_from_nothing() {
    let real = fs::read(fakes::fake_driver_dir().join("libcuda.so.1")).unwrap();
    let broken = "libcuda.so.1 is there and cannot be loaded";
    let mend = "take libcuda.so.1 out of the image";
    for (contents, observed) in [
        (
            &b"I am no library, and longer than a header has to be, so that it is looked at. 0123456789"[..],
            "invalid ELF header",
        ),
        (b"", "file too short"),
        (&real[..100], ""),
    ] {
        let machine = Machine::without_driver().libcuda(contents);
        machine
            .prove(82, &[])
            .says("driver-missing", "fail", [observed, "libcuda.so.1", broken, mend]);
    }
    let machine = Machine::without_driver();
    fs::create_dir_all(machine.path("driver/libcuda.so.1")).unwrap();
    let folder = machine.path("driver");
    machine.driver(folder).prove(82, &[]).says(
        "driver-missing",
        "fail",
        ["irectory", "libcuda.so.1", broken, mend],
    );
}

#[test]
fn a_driver_for_another_processor_is_named() {
    let mut foreign = fs::read(fakes::fake_driver_dir().join("libcuda.so.1")).unwrap();
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes()); // e_machine: EM_AARCH64
    let machine = Machine::without_driver().libcuda(&foreign);
    let file = machine.path("driver/libcuda.so.1");
    let hint = format!("{} is there, and the loader passes it over", file.display());
    machine.prove(82, &[]).says(
        "driver-missing",
        "fail",
        ["No such file", "libcuda.so.1", "no NVIDIA driver", &hint],
    );
}

#[test]
fn a_library_that_the_driver_needs_is_named() {
    // libcuda.so.1 becomes one that needs libc under a name that nothing has.
    let mut bytes = fs::read(fakes::fake_driver_dir().join("libcuda.so.1")).unwrap();
    let name = b"\0libc.so.6\0";
    let at = bytes
        .windows(name.len())
        .position(|w| w == name)
        .expect("it needs libc.so.6");
    bytes[at + 4] = b'X';
    let machine = Machine::without_driver().libcuda(&bytes);
    let checked = machine.prove(82, &[]);
    checked.says(
        "driver-missing",
        "fail",
        [
            "libX.so.6",
            "libcuda.so.1",
            "is there and cannot be loaded",
            "only a part of it was mounted",
        ],
    );
}

#[test]
fn a_driver_without_its_functions_is_none_of_nvidias() {
    for function in ["cuInit", "cuDeviceGetCount", "cuDriverGetVersion"] {
        let bytes = fakes::without("libcuda.so.1", function);
        let checked = Machine::new("{}").libcuda(&bytes).prove(82, &[]);
        let observed = format!("{function}: the library does not export this function");
        checked.says(
            "gpu-not-ready",
            "fail",
            [
                &observed,
                "success",
                "does not behave as NVIDIA's does",
                "which file was loaded",
            ],
        );
    }
}

#[test]
fn a_stub_is_the_images_fault() {
    // Found by its path, found by its own error, and not said twice where it is both.
    for (folder, calls) in [
        ("lib64/stubs", "{}"),
        ("lib64/stubs", r#"{"calls": {"cuInit": {"returns": 34}}}"#),
        ("lib64", r#"{"calls": {"cuInit": {"returns": 34}}}"#),
    ] {
        let machine = Machine::new(calls);
        let folder = machine.path(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(
            fakes::fake_driver_dir().join("libcuda.so.1"),
            folder.join("libcuda.so.1"),
        )
        .unwrap();
        let checked = machine.driver(&folder).prove(81, &[]);
        checked.says(
            "stub-driver",
            "fail",
            [
                "stub",
                "the driver's own libcuda.so.1",
                "stub library",
                "lib64/stubs from LD_LIBRARY_PATH",
            ],
        );
        assert_eq!(checked.problem("stub-driver")["stage"], "image");
    }
}

#[test]
fn a_driver_behind_a_link_is_named_by_its_file() {
    let machine = Machine::new("{}");
    let folder = machine.path("driver");
    fs::create_dir(&folder).unwrap();
    fs::copy(
        fakes::fake_driver_dir().join("libcuda.so.1"),
        folder.join("libcuda.so.580.1"),
    )
    .unwrap();
    symlink("libcuda.so.580.1", folder.join("libcuda.so.1")).unwrap();
    let checked = machine.driver(&folder).prove(0, &[]);
    let path = checked.report["facts"]["device"]["driver"]["path"]
        .as_str()
        .unwrap();
    assert!(path.ends_with("driver/libcuda.so.580.1"), "{path}");
}

fn serving(api: u32, release: &str) -> Machine {
    Machine::new(&format!(
        r#"{{"driver_api": {api}, "driver_release": "{release}"}}"#
    ))
}

#[test]
fn a_driver_of_the_major_version_before_is_too_old() {
    let machine = serving(11080, "520.61.05");
    machine.prove(82, &[]).says(
        "driver-too-old",
        "fail",
        [
            "supports CUDA 11.8",
            "CUDA >=12.4",
            "no CUDA newer than 11.8",
            "release 550.54.14 or newer",
        ],
    );
    let subject = machine.check(&[]).problem("driver-too-old")["subject"].clone();
    assert_eq!(subject, "driver 520.61.05");
    insta::assert_snapshot!("driver-too-old-run", machine.complaint(&[]));
}

#[test]
fn a_driver_of_the_same_major_version_is_carried() {
    let machine = serving(12020, "535.54.03");
    let checked = machine.prove(0, &[]);
    checked.says(
        "driver-minor-compat",
        "warn",
        [
            "supports CUDA 12.2",
            "CUDA >=12.4",
            "minor-version compatibility, but no PTX",
            "error 222",
        ],
    );
    assert_eq!(checked.report["verdict"], "warn");
    insta::assert_snapshot!(
        "driver-minor-compat-table",
        without_limits(&machine.table(&["--stage", "device"]))
    );
    insta::assert_snapshot!("driver-minor-compat-run", machine.complaint(&[]));
}

#[test]
fn drivers_that_are_new_enough_pass() {
    for api in [12040, 12080, 13000, 14020] {
        let checked = serving(api, "580.65.06").prove(0, &[]);
        assert!(checked.codes("pass").contains(&"driver-too-old"), "{checked}");
        assert_eq!(checked.codes("warn"), [""; 0]);
    }
}

fn manifest(cuda: &str) -> String {
    format!(r#"{{"schema": 1, "name": "t", "cuda": {cuda}}}"#)
}

#[test]
fn a_manifest_may_have_an_upper_bound() {
    for (rule, api, shown) in [(">=12.4, <13", 13000, "13.0"), (">=12.4, <12.6", 12080, "12.8")] {
        let text = manifest(&format!(r#"{{"driver": "{rule}"}}"#));
        let machine = serving(api, "580.65.06").manifest(&text);
        let (observed, required) = (format!("supports CUDA {shown}"), format!("CUDA {rule}"));
        let message = format!("does not accept a driver that supports CUDA {shown}");
        machine.prove(82, &[]).says(
            "driver-too-old",
            "fail",
            [&observed, &required, &message, "widen cuda.driver"],
        );
    }
    let text = manifest(r#"{"driver": ">=12.4, <13"}"#);
    serving(12080, "570.26").manifest(&text).prove(0, &[]);
}

#[test]
fn minor_version_compatibility_began_with_cuda_11() {
    let text = manifest(r#"{"driver": ">=10.2"}"#);
    let checked = serving(10010, "418.39").manifest(&text).prove(82, &[]);
    checked.says(
        "driver-too-old",
        "fail",
        ["10.1", "10.2", "newer than 10.1", "440.33"],
    );
    let text = manifest(r#"{"driver": ">=11.8"}"#);
    let checked = serving(11040, "470.42.01").manifest(&text).prove(0, &[]);
    checked.says(
        "driver-minor-compat",
        "warn",
        ["11.4", "11.8", "CUDA 11.8 runs on it", "520.61.05"],
    );
}

#[test]
fn a_driver_that_calls_itself_too_old_gets_both_versions() {
    let machine = Machine::new(r#"{"driver_api": 12020, "calls": {"cuInit": {"returns": 35}}}"#);
    let checked = machine.prove(82, &[]);
    checked.says(
        "driver-too-old",
        "fail",
        [
            "cuInit returned 35; the driver supports CUDA 12.2",
            "CUDA >=12.4",
            "older than the CUDA runtime",
            "550.54.14",
        ],
    );
    assert_eq!(checked.codes("warn"), [""; 0]);
}

#[test]
fn without_a_rule_any_driver_does() {
    let text = manifest("{}");
    serving(9000, "384.81").manifest(&text).prove(0, &[]);
}

#[test]
fn a_version_that_no_cuda_has_is_an_error() {
    let checked = Machine::new(r#"{"driver_api": 0}"#).prove(82, &[]);
    checked.says(
        "gpu-not-ready",
        "fail",
        [
            "version number 0, which no CUDA release has",
            "success",
            "does not behave as",
            "which file",
        ],
    );
}

#[test]
fn the_service_is_what_is_named() {
    let machine = Machine::without_driver();
    let text = machine.complaint(&[]);
    assert!(
        text.contains("not starting ") && text.contains(SERVICE[0]),
        "{text}"
    );
}
