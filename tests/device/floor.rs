//! What the image's libraries need of the driver, where the manifest does not say it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::device::{Checked, Machine};
use crate::support::scene::{base_python, version};

/// A machine with this driver, and a torch for this CUDA in `env`.
fn machine(torch: &str, api: u32, release: &str) -> Machine {
    machine_of(
        torch,
        &format!(r#"{{"driver_api": {api}, "driver_release": "{release}"}}"#),
    )
}

/// The same with a script for the driver.
pub fn machine_of(torch: &str, script: &str) -> Machine {
    let machine = Machine::new(script).manifest(r#"{"schema": 1, "name": "t", "packages": {"torch": "*"}}"#);
    let python = base_python();
    let home = python.parent().unwrap().display();
    let site = machine.path(&format!("env/lib/python{}/site-packages", version()));
    let metadata = site.join("torch-2.9.0.dist-info");
    for folder in [&site.join("torch"), &metadata, &machine.path("env/bin")] {
        fs::create_dir_all(folder).unwrap();
    }
    let config = format!(
        "home = {home}\ninclude-system-site-packages = false\nversion = {}\n",
        version()
    );
    fs::write(machine.path("env/pyvenv.cfg"), config).unwrap();
    symlink(python, machine.path("env/bin/python3")).unwrap();
    let tag = torch.replace('.', "");
    fs::write(
        site.join("torch/version.py"),
        format!("__version__ = '2.9.0+cu{tag}'\ncuda = '{torch}'\n"),
    )
    .unwrap();
    fs::write(site.join("torch/__init__.py"), "").unwrap();
    fs::write(
        metadata.join("METADATA"),
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0\n",
    )
    .unwrap();
    fs::write(
        metadata.join("RECORD"),
        "torch/__init__.py,,\ntorch/version.py,,\n",
    )
    .unwrap();
    machine
}

pub fn check(machine: &Machine, stage: &str) -> Checked {
    let env = machine.path("env");
    machine.check(&["--python", env.to_str().unwrap(), "--stage", stage])
}

fn run(machine: &Machine) -> Checked {
    let env = machine.path("env");
    machine.run(&["--python", env.to_str().unwrap()])
}

#[test]
fn a_build_says_what_the_image_needs() {
    let checked = check(&machine("12.4", 13000, "580.65.06"), "image");
    assert_eq!(checked.exit(), 0, "{checked}");
    checked.says(
        "driver-floor",
        "info",
        [
            "CUDA 12.4 (torch)",
            "",
            "this image needs driver >= 550.54.14, or >= 525.60.13 by minor version compatibility, without PTX",
            "",
        ],
    );
    assert_eq!(checked.problem("driver-floor")["stage"], "image");
    let told = check(
        &machine("13.0", 13000, "580.65.06").env("NVIDIA_REQUIRE_CUDA", "cuda>=12.0"),
        "image",
    );
    assert_eq!(told.exit(), 0, "{told}");
    let found = told.findings();
    let warned: Vec<_> = found.iter().filter(|f| f["status"] == "warn").collect();
    assert_eq!(warned.len(), 1, "{told}");
    assert_eq!(
        (&warned[0]["code"], &warned[0]["subject"]),
        (&"driver-floor".into(), &"NVIDIA_REQUIRE_CUDA".into())
    );
}

#[test]
fn a_driver_below_it_is_refused_though_the_manifest_says_nothing() {
    let machine = machine("13.0", 12020, "535.261.03");
    for checked in [check(&machine, "device"), run(&machine)] {
        assert_eq!(checked.exit(), 82, "{checked}");
        assert_eq!(checked.codes("fail"), ["driver-floor"], "{checked}");
        let found = checked.findings();
        let finding = found.iter().find(|f| f["status"] == "fail").unwrap();
        assert_eq!(finding["stage"], "device");
        assert_eq!(finding["subject"], "driver 535.261.03");
        for (field, part) in [
            ("observed", "supports CUDA 12.2"),
            ("required", "CUDA 13.0 (torch): driver >= 580.65.06"),
            ("message", "its first call fails with error 35"),
            ("hint", "update the node's driver to release 580.65.06 or newer"),
        ] {
            assert!(finding[field].as_str().unwrap().contains(part), "{finding:#}");
        }
    }
}

/// Minor version compatibility carries CUDA 12 on each driver for CUDA 12.
#[test]
fn drivers_that_serve_it_pass() {
    for (torch, api, release) in [
        ("12.4", 12040, "550.163.01"),
        ("12.4", 12020, "535.261.03"),
        ("12.6", 12020, "535.261.03"),
        ("12.8", 12000, "525.60.13"),
        ("12.4", 13000, "580.65.06"),
        ("13.0", 13000, "580.65.06"),
        ("13.2", 13000, "580.65.06"),
    ] {
        let machine = machine(torch, api, release);
        let ran = run(&machine);
        assert_eq!(ran.exit(), 0, "{torch} {release}: {ran}");
        assert!(ran.codes("pass").contains(&"driver-floor"), "{ran}");
        assert_eq!(ran.report["verdict"], "pass", "{ran}");
    }
}

/// A manifest that refuses the driver has said it.
#[test]
fn one_fault_is_told_once() {
    let machine = machine("13.0", 12020, "535.261.03")
        .manifest(r#"{"schema": 1, "name": "t", "cuda": {"driver": ">=13.0"}, "packages": {"torch": "*"}}"#);
    let checked = check(&machine, "device");
    assert_eq!(checked.codes("fail"), ["driver-too-old"], "{checked}");
    assert!(!checked.findings().iter().any(|f| f["code"] == "driver-floor"));
}
