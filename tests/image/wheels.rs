//! The published wheels of spconv 2.3.8, cumm 0.8.2 and CUDA 12.4 against the demo's manifest, then one fault at a time.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::image::{Checked, Image, c_library, demo_manifest, entrypoint, real_stack};
use crate::without_manifest::FIRST_LINE;

/// What even the good stack says: pip's metadata asks for packages that the demo leaves out, and for another cumm, which the
/// manifest accepts.
const USUAL: [&str; 3] = ["requires-dist warn", "requires-dist info", "requires-dist warn"];

const COMPILES: &str = "an import compiles C++, and fails without nvcc";

/// No interpreter lies in the environment, so nobody can ask its loader; tests/loader.rs has one.
const UNASKED: [&str; 1] = ["library-missing skip"];

/// Problems in the report's order, of which the usual warnings are part.
fn with_usual<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<&'a str> {
    [before, &USUAL, after, &UNASKED].concat()
}

fn without_variables() -> Value {
    let mut manifest = demo_manifest();
    manifest["env"] = json!({});
    manifest
}

/// The folder of tests and the time it took, out of what people read.
fn words(text: &str, folder: &str) -> String {
    let text = text.replace(folder, "/image");
    let (table, verdict) = text.trim_end().rsplit_once('\n').unwrap();
    let (verdict, time) = verdict.rsplit_once(", ").unwrap();
    assert!(time.ends_with(" ms") || time.ends_with(" s"), "{time}");
    let (verdict, source) = verdict.rsplit_once(" (").unwrap();
    assert!(source.ends_with("stack.json)"), "{source}");
    format!("{table}\n{verdict} (/image/stack.json), 15 ms\n")
}

#[test]
fn the_stack_passes_with_the_pair_that_pip_refuses() {
    let image = Image::empty();
    let mut command = entrypoint();
    command
        .args(["check", "--stage", "image", "--python"])
        .arg(real_stack());
    command.arg("--stack").arg(image.manifest(&demo_manifest()));
    let checked = image.run_check(command);
    checked.is(0, &with_usual(&[], &[]));
    assert_eq!(checked.report["verdict"], "warn");
    insta::assert_snapshot!(words(&checked.table, real_stack().to_str().unwrap()));
}

/// As `tests/demo/demo.sh` ends: the service runs, and what was proven stands in one line.
#[test]
fn run_becomes_the_service_with_the_variables_of_the_manifest() {
    let image = Image::real();
    let message = image.root().join("termination");
    let mut command = entrypoint();
    command.args(["run", "--gpu", "off", "--stack"]);
    command
        .arg(image.manifest(&demo_manifest()))
        .arg("--python")
        .arg(image.env());
    command.arg("--termination-log").arg(&message);
    command.args([
        "--",
        "sh",
        "-c",
        "echo $SPCONV_DISABLE_JIT $CUMM_DISABLE_JIT $HOME; exit 7",
    ]);
    let output = command
        .env("HOME", "/h")
        .env("CUMM_DISABLE_JIT", "0")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1 1 /h\n");
    let (ok, warnings): (Vec<&str>, Vec<&str>) = stderr.lines().partition(|line| line.contains(": ok: "));
    let [ok] = ok[..] else { panic!("{stderr}") };
    assert!(
        ok.starts_with("cuda-entrypoint: ok: ") && ok.contains("2 warnings; stack demo-cu124 ("),
        "{ok}"
    );
    // The target folder may lie so deep that two lines of a terminal do not hold its path.
    let python = format!("Python {}, ", image.env().display());
    assert!(ok.contains(&python) || ok.len() + python.len() > 160, "{ok}");
    assert!(
        ok.ends_with("; exec /usr/bin/sh") || ok.ends_with("; exec /bin/sh"),
        "{ok}"
    );
    assert_eq!(
        warnings[0],
        "cuda-entrypoint: warning: CUMM_DISABLE_JIT was set to another value; the manifest's is used"
    );
    assert_eq!(warnings.len(), 3, "{stderr}");
    assert!(
        warnings[1..]
            .iter()
            .all(|w| w.starts_with("cuda-entrypoint: warning: requires-dist: ")),
        "{stderr}"
    );
    assert!(!message.exists());
}

#[test]
fn run_does_not_start_the_service_on_a_wrong_stack() {
    let image = Image::real();
    image.remove("cumm/include/tensorview/core/all.h");
    let message = image.root().join("termination");
    let mut command = entrypoint();
    command.args(["run", "--gpu", "off", "--stack"]);
    command
        .arg(image.manifest(&demo_manifest()))
        .arg("--python")
        .arg(image.env());
    command
        .arg("--termination-log")
        .arg(&message)
        .args(["--", "echo", "started"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout),
        (Some(81), Vec::new()),
        "{stderr}"
    );
    assert!(
        stderr.starts_with("cuda-entrypoint: file-missing: not starting "),
        "{stderr}"
    );
    let message = fs::read_to_string(message).unwrap();
    assert!(
        message.starts_with(
            "file-missing (exit 81): cumm/include/tensorview/core/all.h is in no site-packages folder\nhint: "
        ),
        "{message}"
    );
}

#[test]
fn a_deleted_header_is_missing() {
    let image = Image::real();
    image.remove("cumm/include/tensorview/core/all.h");
    image
        .check(&demo_manifest())
        .is(81, &with_usual(&[], &["file-missing fail"]))
        .says("✗ cumm/include/tensorview/core/all.h is in no site-packages folder [file-missing]\n")
        .says("hint:     Reinstall the package that brings cumm/");
}

#[test]
fn a_gitignore_beside_the_packages_is_a_trap() {
    for file in [".gitignore", "setup.py"] {
        let image = Image::real();
        image.write(file, "");
        let checked = image.check(&demo_manifest());
        checked
            .is(0, &with_usual(&[], &["editable-trap warn"]))
            .says("only the variables of the manifest keep its import from compiling C++ [editable-trap]\n")
            .says(&format!(
                "hint:     Remove it: rm {}.",
                "env/lib/python3.11/site-packages/".to_string() + file
            ));
        image
            .check(&without_variables())
            .is(81, &with_usual(&[], &["editable-trap fail"]))
            .says(&format!(
                "{file} makes cumm and spconv look like an editable install: {COMPILES} [editable-trap]\n"
            ));
    }
    // Elsewhere the same files mean nothing.
    let image = Image::real();
    image.write("cumm/.gitignore", "");
    image.check(&without_variables()).is(0, &with_usual(&[], &[]));
}

#[test]
fn what_an_import_compiled_is_refused_whatever_the_variables() {
    for package in ["cumm", "spconv"] {
        let image = Image::real();
        image.write(&format!("{package}/build/core_cc/x.o"), "");
        image
            .check(&demo_manifest())
            .is(81, &with_usual(&[], &["editable-trap fail"]))
            .says(&format!("✗ {package} was compiled at an import: "))
            .says(&format!(
                "hint:     In the Dockerfile: rm -r env/lib/python3.11/site-packages/{package}/build, then"
            ));
    }
}

#[test]
fn a_second_build_beside_is_a_duplicate() {
    let image = Image::real();
    image.wheel("spconv-cu121", "2.3.6", "cp311-cp311-manylinux_2_17_x86_64");
    image
        .check(&demo_manifest())
        .is(81, &with_usual(&["package-cuda-tag fail", "package-duplicate fail"], &[]))
        .says(
            "✗ spconv-cu121 2.3.6 is built for CUDA 12.1 (its name), and the manifest's runtime is CUDA 12.4 \
             [package-cuda-tag]\n",
        )
        .says("✗ several builds of spconv are installed over each other: spconv-cu121 2.3.6, spconv-cu124 2.3.8 ");
}

#[test]
fn two_versions_of_one_name_are_a_duplicate() {
    let image = Image::real();
    image.wheel("cumm-cu124", "0.7.11", "cp311-cp311-manylinux_2_17_x86_64");
    let checked = image.check(&demo_manifest());
    assert_eq!(checked.exit, 81);
    checked.says("✗ cumm-cu124 is installed 2 times in env/lib/python3.11/site-packages: 0.7.11, 0.8.2 ");
}

#[test]
fn a_build_for_another_cuda_is_no_substitute() {
    let image = Image::real();
    image.remove("cumm_cu124-0.8.2.dist-info");
    image.wheel("cumm-cu118", "0.7.11", "cp311-cp311-manylinux_2_17_x86_64");
    let checked = image.check(&demo_manifest());
    checked
        .says("✗ cumm-cu124 is not installed; cumm-cu118 0.7.11 is installed instead [package-missing]\n")
        .says("hint:     In the Dockerfile: pip uninstall cumm-cu118, then pip install 'cumm-cu124==0.8.2'.")
        .says("✗ cumm-cu118 0.7.11 is built for CUDA 11.8 (its name)");
    checked.is(
        81,
        &[
            "package-missing fail",
            "package-cuda-tag fail",
            "requires-dist info",
            "requires-dist warn",
            "library-missing skip",
        ],
    );
}

#[test]
fn another_version_is_refused() {
    let image = Image::real();
    let metadata = "spconv_cu124-2.3.8.dist-info/METADATA";
    let text = fs::read_to_string(image.site().join(metadata)).unwrap();
    assert!(text.contains("\nVersion: 2.3.8\n"));
    image.write(
        metadata,
        &text.replace("\nVersion: 2.3.8\n", "\nVersion: 2.3.6\n"),
    );
    image
        .check(&demo_manifest())
        .is(81, &with_usual(&["package-version fail"], &[]))
        .says("✗ spconv-cu124 is 2.3.6, and the manifest asks for ==2.3.8 [package-version]\n    observed: 2.3.6 (Python: ")
        .says(")\n    required: ==2.3.8\n");
}

/// A version is what the metadata says, not what its folder is called.
#[test]
fn a_folders_name_is_no_version() {
    let image = Image::real();
    let from = image.site().join("spconv_cu124-2.3.8.dist-info");
    fs::rename(from, image.site().join("spconv_cu124-2.3.6.dist-info")).unwrap();
    image.check(&demo_manifest()).is(0, &with_usual(&[], &[]));
}

#[test]
fn a_package_without_metadata_is_not_installed() {
    let image = Image::real();
    image.remove("nvidia_cuda_nvrtc_cu12-12.4.127.dist-info");
    image
        .check(&demo_manifest())
        .is(81, &with_usual(&["package-missing fail"], &[]))
        .says("✗ nvidia-cuda-nvrtc-cu12 is not installed [package-missing]\n    observed: not installed (Python: ")
        .says(")\n    required: ==12.4.127\n");
}

#[test]
fn wheels_of_another_interpreter_are_refused() {
    let image = Image::real();
    for folder in ["cumm_cu124-0.8.2.dist-info", "spconv_cu124-2.3.8.dist-info"] {
        let name = format!("{folder}/WHEEL");
        let text = fs::read_to_string(image.site().join(&name)).unwrap();
        assert!(text.contains("cp311-cp311"), "{text}");
        image.write(&name, &text.replace("cp311", "cp310"));
    }
    image
        .check(&demo_manifest())
        .is(81, &with_usual(&["python-version fail"], &[]))
        .says("✗ cumm-cu124 is a wheel for cp310-cp310-manylinux_2_28_x86_64, and Python here is 3.11.9; the same holds for spconv-cu124 [python-version]\n")
        .says("hint:     Install with the pip of this very interpreter (python3.11 -m pip install …)");
}

/// A pin on both sides accepts nothing: only `accept` does, with its reason, and `--deny` overrules it.
#[test]
fn a_pair_that_the_manifest_does_not_accept_is_refused() {
    let accepting = demo_manifest();
    let mut manifest = accepting.clone();
    manifest.as_object_mut().unwrap().remove("accept");
    let refused = [
        "requires-dist warn",
        "requires-dist fail",
        "requires-dist warn",
        UNASKED[0],
    ];
    let image = Image::real();
    image
        .check(&manifest)
        .is(81, &refused)
        .says("✗ spconv-cu124 2.3.8 requires cumm-cu124>=0.7.11, <0.8.0, and cumm-cu124 is 0.8.2 [requires-dist]\n")
        .says("{\"code\": \"requires-dist\", \"package\": \"cumm-cu124\", \"reason\": \"…\"}");
    let checked = image.check(&accepting);
    checked
        .is(0, &with_usual(&[], &[]))
        .says("accepted: tested together: ");
    let accepted: Vec<&Value> = checked.report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| finding.get("accepted"))
        .collect();
    assert_eq!(accepted, [&accepting["accept"][0]["reason"]]);
    let lenient = image.check_with(&accepting, |command| {
        command.args(["--warn", "requires-dist"]);
    });
    lenient.is(0, &with_usual(&[], &[]));
}

/// An exception that outlives its cause is seen, and is no problem.
#[test]
fn an_accept_entry_that_matches_nothing_is_named() {
    let mut manifest = demo_manifest();
    let entry = json!({"code": "library-shadowed", "library": "libnccl.so.2", "reason": "ours is newer"});
    manifest["accept"].as_array_mut().unwrap().push(entry);
    Image::real()
        .check(&manifest)
        .is(
            0,
            &[&with_usual(&[], &[])[..], &["library-shadowed info"]].concat(),
        )
        .says("the accept entry for library-shadowed of library libnccl.so.2 matched nothing");
}

/// One copy of five answers another version: only the library itself could tell.
#[test]
fn a_wrong_copy_inside_a_wheel_is_found() {
    let image = Image::real();
    let copy = "cumm_cu124.libs/libnvrtc-6d168ef8.so.12.4.127";
    let source = "int nvrtcVersion(int *major, int *minor) { *major = 12; *minor = 8; return 0; }";
    image.put(copy, &c_library(image.root(), "nvrtc", source));
    let checked = image.check(&demo_manifest());
    checked
        .is(81, &with_usual(&["file-owner info"], &["nvrtc-version fail"]))
        .says(&format!(
            "{copy} says that it is CUDA 12.8, and the manifest asks for 12.4 [nvrtc-version]\n"
        ))
        .says("hint:     In the Dockerfile: pip install --force-reinstall --no-deps 'cumm-cu124==0.8.2', and no later step");
}

#[test]
fn severities_are_the_callers_to_change() {
    let image = Image::real();
    image.remove("cumm/include/tensorview/core/all.h");
    let with = |option: &str, code: &str| -> Checked {
        image.check_with(&demo_manifest(), |command: &mut Command| {
            command.args([option, code]);
        })
    };
    with("--warn", "file-missing").is(0, &with_usual(&[], &["file-missing warn"]));
    with("--allow", "file-missing").is(0, &with_usual(&[], &["file-missing info"]));
    let strict = Image::real().check_with(&demo_manifest(), |command| {
        command.args(["--deny", "requires-dist"]);
    });
    strict.is(81, &[&["requires-dist fail"; 3][..], &UNASKED].concat());
}

/// An image that is somebody else's is told so before everything that follows from the wrong manifest.
#[test]
fn an_image_that_the_embedded_manifest_does_not_describe_is_told_to_capture_its_own() {
    let image = Image::empty();
    image.wheel("torch", "2.5.0", "cp311-cp311-manylinux1_x86_64");
    let check = || {
        let mut command = entrypoint();
        command
            .args(["check", "--stage", "image", "--python"])
            .arg(image.env());
        image.run_check(command)
    };
    let checked = check();
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert!(
        checked.table.starts_with(&format!("{FIRST_LINE}\n")),
        "{}",
        checked.table
    );
    let words = FIRST_LINE.trim_start_matches("cuda-entrypoint: ");
    assert!(
        checked.termination.contains(&format!("{words}\n")),
        "{}",
        checked.termination
    );
    let mut command = entrypoint();
    command
        .args(["run", "--gpu", "off", "--python"])
        .arg(image.env())
        .args(["--", "true"]);
    let stderr = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(stderr.starts_with(&format!("{FIRST_LINE}\n")), "{stderr}");
    // A manifest of its own is not doubted, whatever fails.
    let own = json!({"schema": 1, "name": "own", "packages": {"torch": "*", "a": "*", "b": "*"}});
    let checked = image.check(&own);
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert!(
        !checked.table.contains("this image has no manifest"),
        "{}",
        checked.table
    );
}
