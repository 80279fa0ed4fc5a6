//! What triton, inductor and CUDA need around them when they compile a kernel at run time.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::image::{Checked, Image};
use crate::support::needs::Need;

fn torch_and_triton() -> Image {
    let image = Image::empty();
    image.wheel("torch", "2.5.0", "cp311-cp311-manylinux_2_17_x86_64");
    image.wheel("triton", "3.1.0", "cp311-cp311-manylinux_2_17_x86_64");
    image.write("tools/gcc", "#!/bin/sh\n");
    let gcc = image.site().join("tools/gcc");
    assert!(
        Command::new("chmod")
            .arg("755")
            .arg(gcc)
            .status()
            .unwrap()
            .success()
    );
    image
}

fn manifest(packages: &Value) -> Value {
    json!({"schema": 1, "name": "t", "packages": packages})
}

/// Statuses and codes of what is not well, in an environment in which all else is.
fn told(image: &Image, packages: &Value, env: &[(&str, &str)]) -> (Checked, Vec<String>) {
    let tools = image.site().join("tools");
    let folder = image.root().display().to_string();
    let checked = image.check_with(&manifest(packages), |command| {
        command
            .env("PATH", tools)
            .env("HOME", &folder)
            .env("USER", "svc")
            .env("CPATH", "/");
        command.envs(env.iter().copied());
    });
    let codes = [
        "compiler-missing",
        "cache-unwritable",
        "user-unknown",
        "variable-mismatch",
    ];
    let found = checked
        .findings()
        .filter(|f| f["status"] != "pass" && codes.contains(&f["code"].as_str().unwrap()));
    let words = found.map(|f| {
        format!(
            "{} {} {}",
            f["status"].as_str().unwrap(),
            f["code"].as_str().unwrap(),
            f["subject"].as_str().unwrap()
        )
    });
    let words = words.collect();
    (checked, words)
}

#[test]
fn each_is_one_warning_where_the_manifest_names_triton() {
    let image = torch_and_triton();
    let named = json!({"torch": "*", "triton": "*"});
    for (env, expected) in [
        (&[][..], &[][..]),
        (&[("PATH", "/nowhere")], &["warn compiler-missing triton"]),
        (&[("CC", "icx")], &["warn compiler-missing triton"]),
        (
            &[("TRITON_CACHE_DIR", "/proc/nope")],
            &["warn cache-unwritable triton"],
        ),
        (
            &[("TORCHINDUCTOR_CACHE_DIR", "/proc/nope")],
            &["warn cache-unwritable inductor"],
        ),
        (
            &[("CUDA_CACHE_PATH", "/proc/nope")],
            &["warn cache-unwritable CUDA"],
        ),
        (
            &[("CUDA_CACHE_PATH", "/proc/nope"), ("CUDA_CACHE_DISABLE", "1")],
            &[],
        ),
        (&[("HOME", "/proc")], &["warn cache-unwritable triton"]),
        (
            &[("TRITON_PTXAS_PATH", "/opt/gone/ptxas")],
            &["warn variable-mismatch TRITON_PTXAS_PATH"],
        ),
        (
            &[("CUDA_HOME", "/opt/gone")],
            &["warn variable-mismatch CUDA_HOME"],
        ),
        (
            &[("CUDA_LAUNCH_BLOCKING", "1")],
            &["warn variable-mismatch CUDA_LAUNCH_BLOCKING"],
        ),
        (
            &[("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments")],
            &["warn variable-mismatch PYTORCH_CUDA_ALLOC_CONF"],
        ),
    ] {
        let (checked, found) = told(&image, &named, env);
        assert_eq!(found, expected, "{env:?}");
        assert_eq!(checked.report["exit_code"], 0);
    }
}

#[test]
fn what_comes_with_torch_alone_is_information_unless_a_variable_asks_for_it() {
    let image = torch_and_triton();
    let torch = json!({"torch": "*"});
    let (_, found) = told(&image, &torch, &[("PATH", "/nowhere"), ("HOME", "/proc")]);
    assert_eq!(
        found,
        ["info compiler-missing triton", "info cache-unwritable triton"]
    );
    let (_, found) = told(&image, &torch, &[("TRITON_CACHE_DIR", "/proc/nope")]);
    assert_eq!(found, ["warn cache-unwritable triton"]);
    let without = Image::empty();
    without.wheel("torch", "2.5.0", "cp311-cp311-manylinux_2_17_x86_64");
    let (_, found) = told(
        &without,
        &torch,
        &[("PATH", "/nowhere"), ("TRITON_CACHE_DIR", "/proc/nope")],
    );
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_user_without_a_name_is_told_before_torch_2_13() {
    Need::Root.demand();
    for (version, expected) in [("2.5.0", &["warn user-unknown torch"][..]), ("2.13.0", &[])] {
        let image = Image::empty();
        image.wheel("torch", version, "cp311-cp311-manylinux_2_17_x86_64");
        let open = Command::new("chmod")
            .args(["-R", "a+rwX"])
            .arg(image.root())
            .status();
        assert!(open.unwrap().success());
        let manifest = image.manifest(&manifest(&json!({"torch": "*"})));
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "955955", "--regid", "955955", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_cuda-entrypoint"));
        command
            .args(["check", "--stage", "image", "--format", "json", "--stack"])
            .arg(manifest);
        command.arg("--python").arg(image.env());
        command
            .env_remove("USER")
            .env_remove("LOGNAME")
            .env_remove("LNAME")
            .env_remove("USERNAME");
        let output = command.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let all = report["findings"].as_array().unwrap().iter();
        let found: Vec<String> = all
            .filter(|f| f["code"] == "user-unknown")
            .map(|f| {
                format!(
                    "{} user-unknown {}",
                    f["status"].as_str().unwrap(),
                    f["subject"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(found, expected, "{version}");
    }
}

/// A warning, until somebody makes it count.
#[test]
fn deny_makes_a_surrounding_count() {
    let image = torch_and_triton();
    let checked = image.check_with(&manifest(&json!({"triton": "*"})), |command| {
        command
            .env("PATH", "/nowhere")
            .args(["--deny", "compiler-missing"]);
    });
    checked.is(81, &["compiler-missing fail"]);
}
