//! A libcuda of the image that is newer than the kernel's driver.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::floor;
use crate::support::device::Machine;
use crate::support::fakes;

/// What cuda-compat 13.0 says of itself.
const NOTE: &str = r#"{"format":1,"CUDA version":"13.0","driver":[535,550,570,575,580],"device":[1,2,7,8,9,10,11,12,13,14]}"#;

/// A folder as cuda-compat has it, with the fake driver's libcuda and this note; NVML stays the node's.
fn compat(machine: &Machine, folder: &str, release: &str, note: &str) -> PathBuf {
    let folder = machine.path(folder);
    fs::create_dir_all(&folder).unwrap();
    let library = folder.join(format!("libcuda.so.{release}"));
    fs::copy(fakes::fake_driver_dir().join("libcuda.so.1"), &library).unwrap();
    add_note(&library, note);
    symlink(library.file_name().unwrap(), folder.join("libcuda.so.1")).unwrap();
    folder
}

/// As NVIDIA's linker writes it: sizes and type, the owner, the text, each filled up to four bytes.
fn add_note(library: &Path, text: &str) {
    let mut bytes = Vec::new();
    for number in [19, text.len() as u32, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"NVIDIA Corporation\0\0");
    bytes.extend(text.bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let file = library.with_extension("note");
    fs::write(&file, bytes).unwrap();
    let section = ".note.cuda.fwd_compatibility";
    let added = Command::new("objcopy")
        .arg(format!("--add-section={section}={}", file.display()))
        .arg(format!("--set-section-flags={section}=readonly"))
        .arg(library)
        .status();
    assert!(added.unwrap().success());
    fs::remove_file(file).unwrap();
}

/// The loader finds the compat folder first, then the node's driver.
fn in_front(machine: Machine, folder: &Path) -> Machine {
    let path = format!("{}:{}", folder.display(), fakes::fake_driver_dir().display());
    machine.env("LD_LIBRARY_PATH", &path)
}

fn machine(script: &str) -> Machine {
    let machine = Machine::new(script);
    let folder = compat(&machine, "cuda-13.0/compat", "580.65.06", NOTE);
    in_front(machine, &folder)
}

#[test]
fn a_newer_libcuda_over_an_older_driver_passes_and_is_named() {
    let machine = machine(r#"{"driver_api": 13000, "driver_release": "535.261.03"}"#);
    let checked = machine.prove(0, &[]);
    assert_eq!(checked.report["verdict"], "pass", "{checked}");
    let found = checked.findings();
    let version = found.iter().find(|f| f["code"] == "driver-too-old").unwrap();
    assert_eq!(
        version["observed"],
        "supports CUDA 13.0 by forward compatibility over driver 535.261.03"
    );
    let line = machine.complaint(&[]);
    assert!(
        line.contains("ok: driver 535.261.03 for CUDA 13.0 by forward compatibility"),
        "{line}"
    );
    let library = &checked.report["facts"]["device"]["compat"][0];
    assert_eq!(
        (&library["mapped"], &library["release"]),
        (&true.into(), &"580.65.06".into())
    );
    assert_eq!(library["cuda"], "13.0");
}

#[test]
fn a_kernel_driver_that_its_note_does_not_name_explains_803() {
    let script =
        r#"{"driver_api": 13000, "driver_release": "595.58.03", "calls": {"cuInit": {"returns": 803}}}"#;
    machine(script).prove(82, &[]).says(
        "gpu-not-ready",
        "fail",
        [
            "cuInit returned 803",
            "success",
            "does not support this machine: its ELF note names drivers 535, 550, 570, 575, 580, and the kernel's is 595.58.03",
            "out of LD_LIBRARY_PATH and /etc/ld.so.conf.d, so that the node's own libcuda is used",
        ],
    );
    // The driver's own libcuda has another reason.
    let own = r#"{"driver_release": "595.58.03", "calls": {"cuInit": {"returns": 803}}}"#;
    let own = Machine::new(own).prove(82, &[]);
    assert!(
        !own.problem("gpu-not-ready")["message"]
            .as_str()
            .unwrap()
            .contains("ELF note")
    );
}

#[test]
fn a_gpu_that_it_does_not_serve_explains_804() {
    let script = r#"{"driver_api": 13000, "driver_release": "570.26", "devices": [{"brand": 5}],
        "calls": {"cuInit": {"returns": 804}}}"#;
    machine(script).prove(82, &[]).says(
        "gpu-not-ready",
        "fail",
        [
            "libcuda for CUDA 13.0",
            "success",
            "its ELF note leaves out GPUs of the brand geforce",
            "take ",
        ],
    );
}

/// It lies in the image, and nothing puts it in front of the node's.
#[test]
fn a_driver_below_the_floor_is_told_what_the_image_has_for_it() {
    for (release, brand, said) in [
        ("535.261.03", 14, "supports this driver: put"),
        ("545.23.08", 14, "the kernel's is 545.23.08: error 803"),
        ("535.261.03", 15, "of the brand geforcertx: error 804"),
    ] {
        let script = format!(
            r#"{{"driver_api": 12020, "driver_release": "{release}", "devices": [{{"brand": {brand}}}]}}"#
        );
        let machine = floor::machine_of("13.0", &script);
        let folder = compat(&machine, "compat", "580.65.06", NOTE);
        let path = format!("{}:{}", fakes::fake_driver_dir().display(), folder.display());
        let checked = floor::check(&machine.env("LD_LIBRARY_PATH", &path), "device");
        assert_eq!(checked.codes("fail"), ["driver-floor"], "{checked}");
        let hint = checked.problem("driver-floor")["hint"]
            .as_str()
            .unwrap()
            .to_string();
        assert!(hint.contains(said), "{hint}");
    }
}

#[test]
fn a_build_says_whom_the_image_serves_by_it() {
    let machine = floor::machine_of("13.0", "{}");
    let folder = compat(&machine, "compat", "580.65.06", NOTE);
    let empty = machine.path("cuda-12.9/compat");
    fs::create_dir_all(&empty).unwrap();
    let path = format!("{}:{}", folder.display(), empty.display());
    let machine = machine
        .env("LD_LIBRARY_PATH", &path)
        .env("NVIDIA_REQUIRE_CUDA", "cuda>=12.0");
    let checked = floor::check(&machine, "image");
    assert_eq!(checked.report["verdict"], "pass", "{checked}");
    let found = checked.findings();
    let messages: Vec<&str> = found
        .iter()
        .filter(|f| f["code"] == "driver-floor")
        .map(|f| f["message"].as_str().unwrap())
        .collect();
    let said = |part: &str| messages.iter().any(|message| message.contains(part));
    assert!(
        said("on data centre GPUs also 535, 550, 570, 575, by forward compatibility"),
        "{messages:?}"
    );
    assert!(said("for forward compatibility is empty"), "{messages:?}");
    // A second package in the same folder.
    fs::remove_file(folder.join("libcuda.so.1")).unwrap();
    compat(&machine, "compat", "590.44.01", &NOTE.replace("13.0", "13.1"));
    let checked = floor::check(&machine, "image");
    assert_eq!(checked.exit(), 0, "{checked}");
    let found = checked.findings();
    let twice = found.iter().find(|f| f["status"] == "warn").unwrap();
    assert!(
        twice["message"]
            .as_str()
            .unwrap()
            .contains("holds several copies of libcuda"),
        "{twice}"
    );
}
