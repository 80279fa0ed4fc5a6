//! Builds, once per test run, the fake driver (tests/fakes) and the helper as a program of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs, process};

use super::folders::{root, target};

/// This machine's.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// A folder with `libcuda.so.1` and `libnvidia-ml.so.1`, for `LD_LIBRARY_PATH`. They act out the JSON file that
/// `FAKE_GPU_SCRIPT` names; tests/fakes/script/src/lib.rs describes it.
pub fn fake_driver_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let target_dir = target().join("fakes");
        let flags = dynamic_without_libgcc(&target_dir);
        cargo(
            &[
                "build",
                "--quiet",
                "--locked",
                "--manifest-path",
                "tests/fakes/Cargo.toml",
            ],
            &target_dir,
            &flags,
        );
        let built = target_dir.join(triple()).join("debug");
        let dir = target_dir.join("lib");
        fs::create_dir_all(&dir).unwrap();
        replace(&built.join("libcuda.so"), &dir.join("libcuda.so.1"));
        replace(&built.join("libnvidia_ml.so"), &dir.join("libnvidia-ml.so.1"));
        dir
    })
}

/// One of the two libraries, which does not export this function.
pub fn without(library: &str, function: &str) -> Vec<u8> {
    let mut bytes = fs::read(fake_driver_dir().join(library)).unwrap();
    let name = format!("\0{function}\0").into_bytes();
    let places: Vec<usize> = (0..bytes.len() - name.len())
        .filter(|&at| bytes[at..at + name.len()] == name[..])
        .collect();
    assert!(!places.is_empty(), "{library} has no {function}");
    for at in places {
        bytes[at + 1] = b'X';
    }
    bytes
}

/// The helper as a file: the one that `CUDA_ENTRYPOINT_HELPER_BIN` names, else one with this machine's glibc.
pub fn helper_binary() -> PathBuf {
    static HELPER: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let target_dir = target().join("helper-for-tests");
        let flags = dynamic_without_libgcc(&target_dir);
        cargo(
            &[
                "build",
                "--quiet",
                "--locked",
                "--profile",
                "helper",
                "--no-default-features",
                "--features",
                "helper",
                "--bin",
                "cuda-helper",
            ],
            &target_dir,
            &flags,
        );
        target_dir.join(triple()).join("helper/cuda-helper")
    };
    let named = || env::var_os("CUDA_ENTRYPOINT_HELPER_BIN").map(PathBuf::from);
    HELPER.get_or_init(|| named().unwrap_or_else(build)).clone()
}

/// Flags for shared objects that need nothing but glibc, so that they load in an image without libgcc_s.so.1: the
/// linker script takes the static library where `std` asks for the shared one.
fn dynamic_without_libgcc(target_dir: &Path) -> String {
    let dir = target_dir.join("static-libgcc");
    fs::create_dir_all(&dir).unwrap();
    let script = dir.join("libgcc_s.so");
    if !script.exists() {
        let draft = dir.join(format!("draft.{}", process::id()));
        fs::write(&draft, "INPUT(-lgcc_eh -lgcc)\n").unwrap();
        fs::rename(draft, script).unwrap();
    }
    format!("-Ctarget-feature=-crt-static\x1f-Lnative={}", dir.display())
}

/// Several test programs may come here at once: cargo locks the target folder.
fn cargo(arguments: &[&str], target_dir: &Path, flags: &str) {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(root())
        .args(arguments)
        .args(["--target", &triple(), "--target-dir"])
        .arg(target_dir);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    for inherited in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(inherited);
    }
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(status.success(), "{status}: {command:?}");
}

/// Puts a copy in place in one step: another test program may be loading the file right now.
fn replace(from: &Path, to: &Path) {
    let draft = to.with_extension(format!("draft.{}", process::id()));
    fs::copy(from, &draft).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    fs::rename(&draft, to).unwrap();
}
