//! The aarch64 binary in an image for arm64, by qemu: real wheels of CUDA 12.4, the fake driver, and files of the other
//! processor. tests/aarch64/prepare.sh makes all of it.

use std::process::Command;

use cuda_entrypoint::processor::OWN;

use crate::support::folders::{root, target};
use crate::support::needs::Need;
use crate::support::run::Run;

const STACK: &str = r#"{
  "schema": 1, "name": "arm", "cuda": {"runtime": "12.4", "nvrtc": "12.4", "driver": ">=12.4"}, "archs": "9.0",
  "packages": {"nvidia-cuda-runtime-cu12": "==12.4.127", "nvidia-cuda-nvrtc-cu12": "==12.4.127"}
}"#;

/// The image of a test; what it writes there has a name of its own.
struct Arm {
    name: &'static str,
    variables: Vec<String>,
}

impl Arm {
    /// `packages` is a folder of the image.
    fn new(name: &'static str, packages: &str) -> Self {
        Need::Aarch64.demand();
        let arm = Self {
            name,
            variables: vec![
                format!("PYTHONPATH=/{packages}"),
                "LD_LIBRARY_PATH=/driver".into(),
            ],
        };
        arm.write("stack.json", STACK);
        arm
    }

    fn write(&self, file: &str, content: &str) -> String {
        let path = format!("{}-{file}", self.name);
        std::fs::write(target().join("cross/image").join(&path), content).unwrap();
        format!("/{path}")
    }

    fn gpu(mut self, script: &str) -> Self {
        let path = self.write("gpu.json", script);
        self.variables.push(format!("FAKE_GPU_SCRIPT={path}"));
        self
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let stack = format!("/{}-stack.json", self.name);
        let arguments = arguments.iter().map(|argument| {
            if *argument == "STACK" {
                stack.as_str()
            } else {
                argument
            }
        });
        let mut command = Command::new(root().join("tests/aarch64/inside.sh"));
        command
            .args(&self.variables)
            .arg("/cuda-entrypoint")
            .args(arguments);
        Run::of(&mut command)
    }
}

#[track_caller]
fn told(run: &Run, code: i32, parts: &[&str]) {
    run.exits(code);
    for part in parts {
        assert!(run.text().contains(part), "no {part:?} in:\n{}", run.text());
    }
}

#[test]
fn what_needs_no_image() {
    let arm = Arm::new("plain", "cuda");
    let version = format!("cuda-entrypoint {}", env!("CARGO_PKG_VERSION"));
    told(&arm.run(&["--version"]), 0, &[&version]);
    told(
        &arm.run(&["explain", "kernels-missing"]),
        0,
        &["# kernels-missing"],
    );
    told(&arm.run(&["schema", "report"]), 0, &["$schema"]);
}

#[test]
fn real_libraries_say_their_versions() {
    let arm = Arm::new("image", "cuda");
    let run = arm.run(&["check", "--stage", "image", "--stack", "STACK"]);
    let parts = [
        "libcudart.so.12 is CUDA 12.4",
        "libnvrtc.so.12 is CUDA 12.4",
        "all 2 wheels are for this interpreter",
    ];
    told(&run, 0, &parts);
}

#[test]
fn kernels_of_a_real_wheel_are_read() {
    let arm = Arm::new("kernels", "torchvision");
    let run = arm.run(&["kernels", "/torchvision/torchvision/_C_stable.so"]);
    told(&run, 0, &["SASS     8.0 9.0 10.0 11.0 12.0 in all"]);
    let options = ["check", "--stage", "image", "--stack", "none", "--quiet"];
    let allowed = ["--allow", "requires-dist,library-missing", "--archs"];
    let check = |archs| arm.run(&[&options[..], &allowed, &[archs]].concat());
    told(&check("9.0;11.0"), 0, &[]);
    // Code for 8.0 is no code for Orin, and PTX for 12.0 is none either.
    told(&check("8.7;9.0"), 81, &["has no kernels for 8.7"]);
}

#[test]
fn the_fake_driver_is_asked() {
    let arm = Arm::new("device", "cuda").gpu(r#"{"devices": [{"name": "NVIDIA GH200 480GB", "cc": "9.0"}]}"#);
    let device = ["check", "--stage", "device", "--stack", "STACK"];
    told(&arm.run(&device), 0, &["NVIDIA GH200 480GB (9.0,"]);
    told(
        &arm.run(&["check", "--stage", "health", "--stack", "none"]),
        0,
        &[],
    );
    let run = arm.run(&["run", "--stack", "STACK", "--", "uname", "-m"]);
    run.exits(0).prints("aarch64\n");
    let orin = Arm::new("orin", "cuda").gpu(r#"{"devices": [{"name": "Orin", "cc": "8.7"}]}"#);
    let run = orin.run(&[&device[..], &["--archs", "8.0;8.6"]].concat());
    told(&run, 83, &["arch-unsupported"]);
}

#[test]
fn what_a_driver_does_is_told() {
    let device = ["check", "--stage", "device", "--stack", "STACK"];
    let arm = Arm::new("fault", "cuda").gpu(r#"{"calls": {"cuInit": {"signal": 11}}}"#);
    told(&arm.run(&device), 82, &["SIGSEGV"]);
    let arm = Arm::new("old", "cuda").gpu(r#"{"driver_api": 11080, "driver_release": "520.61.05"}"#);
    told(&arm.run(&device), 82, &["driver-too-old"]);
}

/// Wheels for x86-64: their tags say it, and so do their libraries.
#[test]
fn files_of_the_other_processor_are_findings() {
    let arm = Arm::new("other", "other");
    let run = arm.run(&["check", "--stage", "image", "--stack", "STACK"]);
    let parts = [
        "is a wheel for py3-none-manylinux2014_x86_64, and this is aarch64 Linux with glibc",
        "built for linux/arm64",
        "the file is there, and made for x86-64, not aarch64",
    ];
    told(&run, 81, &parts);
    let run = arm.run(&["kernels", "/other/nvidia/cuda_runtime/lib/libcudart.so.12"]);
    run.says("machine 62 (x86-64)").says("for aarch64, or a folder");
}

/// What this build calls itself is what this machine is.
#[test]
fn the_table_of_the_processor_is_that_of_this_machine() {
    assert_eq!(OWN.machine, std::env::consts::ARCH);
    let uname = Command::new("uname").arg("-m").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&uname.stdout).trim(), OWN.machine);
    assert!(OWN.triplet.starts_with(OWN.machine));
    assert!(OWN.default[0].ends_with(OWN.triplet));
    let head = std::fs::read("/proc/self/exe").unwrap();
    assert_eq!(u16::from_le_bytes([head[18], head[19]]), OWN.elf);
}
