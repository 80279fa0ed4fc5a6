//! Real libcudart and libnvrtc from NVIDIA's wheels on PyPI, unpacked once below cargo's target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::folders;
use super::needs::Need;

/// `libcudart.so.12` of CUDA "12.1", "12.4" or "12.6".
pub fn cudart(version: &str) -> PathBuf {
    fetch(version).join("libcudart.so.12")
}

/// `libnvrtc.so.12` of CUDA "12.1", "12.4" or "12.6".
pub fn nvrtc(version: &str) -> PathBuf {
    fetch(version).join("libnvrtc.so.12")
}

/// What it opens when it compiles, by the name of its release.
pub fn nvrtc_builtins(version: &str) -> PathBuf {
    fetch(version).join(format!("libnvrtc-builtins.so.{version}"))
}

/// The folder that holds both, and what nvrtc loads besides.
fn fetch(version: &str) -> PathBuf {
    let release = match version {
        "12.1" => "12.1.105",
        "12.4" => "12.4.127",
        "12.6" => "12.6.77",
        other => panic!("no wheels are known for CUDA {other}"),
    };
    let target = folders::target();
    let done = target.join("cuda").join(release);
    if done.exists() {
        return done; // it gets its name when it is complete
    }
    let draft = target.join("cuda").join(format!("{release}.draft"));
    fs::create_dir_all(&draft).unwrap();
    // Other test programs want the same files; the lock goes when the descriptor is closed.
    let file = File::create(target.join("cuda").join(format!("{release}.lock"))).unwrap();
    let _lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    if done.exists() {
        return done;
    }
    for package in ["nvidia-cuda-runtime-cu12", "nvidia-cuda-nvrtc-cu12"] {
        unpack_libraries(&wheel(package, release, None), &draft);
    }
    fs::rename(&draft, &done).unwrap();
    done
}

/// A wheel that tests/build/wheels.py fetched; a test whose wheel is not there was not run, since a download would take
/// the time of a test. `python` is the version that a wheel with compiled modules is for, such as "3.11".
pub fn wheel(package: &str, release: &str, python: Option<&str>) -> PathBuf {
    let folder = folders::wheels();
    let interpreter = python.map_or_else(String::new, |version| format!("-cp{}-", version.replace('.', "")));
    let prefix = format!("{}-{release}-", package.replace('-', "_"));
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    let found = paths.find(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(&prefix) && name.contains(&interpreter) && name.ends_with(".whl")
    });
    found.unwrap_or_else(|| {
        Need::Wheels.lacking(format!(
            "{} holds no {prefix}*{interpreter}*.whl",
            folder.display()
        ))
    })
}

/// Takes the shared libraries out of a wheel: `nvidia/*/lib/*.so*`.
fn unpack_libraries(wheel: &Path, into: &Path) {
    let whole = tempfile::tempdir_in(into.parent().unwrap()).unwrap();
    let mut command = Command::new("python3");
    command.args(["-m", "zipfile", "-e"]).arg(wheel).arg(whole.path());
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        status.success(),
        "{status}: {command:?}; delete the wheel if it is damaged"
    );
    for package in fs::read_dir(whole.path().join("nvidia")).unwrap() {
        let Ok(libraries) = fs::read_dir(package.unwrap().path().join("lib")) else {
            continue;
        };
        for library in libraries {
            let library = library.unwrap().path();
            let name = library.file_name().unwrap();
            if name.to_string_lossy().contains(".so") {
                fs::rename(&library, into.join(name)).unwrap();
            }
        }
    }
}
