//! The image part: libraries that need not be read again, until something changes.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{edit, refused, used, written};
use crate::support::image::{CUDART, Checked, Image, NVRTC, entrypoint};
use crate::support::needs::Need;
use crate::support::surroundings;
use crate::support::testing::{Entry, container, library};

const EXTENSION: &str = "ext/kernels.cpython-311-x86_64-linux-gnu.so";

/// CUDA 12.4 and an extension of one's own.
pub struct Built {
    image: Image,
    manifest: Value,
}

impl Built {
    pub fn new() -> Self {
        let image = Image::with_cuda("12.4", "12.4.127");
        let built = image.root().join("built.so");
        fs::write(&built, library(&[container(&[Entry::sass(90, true)])])).unwrap();
        image.put(EXTENSION, &built);
        fs::remove_file(built).unwrap();
        image.write("ext/a.h", "");
        // Something to warn of.
        image.wheel("ext", "1.0", "cp311-cp311-linux_x86_64");
        image.write(
            "ext-1.0.dist-info/METADATA",
            "Name: ext\nVersion: 1.0\nRequires-Dist: absent\n",
        );
        let manifest = json!({
            "schema": 1, "name": "test", "cuda": {"runtime": "12.4", "nvrtc": "12.4"}, "archs": "9.0",
            "packages": {"ext": "*", "nvidia-cuda-runtime-cu12": "==12.4.127"}, "files": ["ext/a.h"]
        });
        Self { image, manifest }
    }

    fn receipt(&self) -> PathBuf {
        self.image.root().join("receipt.json")
    }

    fn command(&self) -> Command {
        let mut command = entrypoint();
        command
            .args(["check", "--stage", "image", "--stack"])
            .arg(self.image.manifest(&self.manifest));
        command
            .arg("--python")
            .arg(self.image.env())
            .arg("--receipt")
            .arg(self.receipt());
        command
    }

    fn check(&self) -> Checked {
        self.check_with(|_| {})
    }

    fn check_with(&self, change: impl FnOnce(&mut Command)) -> Checked {
        let mut command = self.command();
        change(&mut command);
        self.image.run_check(command)
    }
}

/// What is judged, in full.
fn findings(checked: &Checked) -> Vec<Value> {
    checked.findings().cloned().collect()
}

/// Puts another file in a file's place, with its size and its times, as images have it whose files all have one time.
fn garble(path: &Path) {
    let found = fs::metadata(path).unwrap();
    let modified = found.modified().unwrap();
    fs::remove_file(path).unwrap();
    let file = File::create(path).unwrap();
    file.set_len(found.size()).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn the_second_start_judges_the_same_facts_until_a_library_is_another() {
    let built = Built::new();
    let first = built.check();
    first.is(0, &["requires-dist warn"]).says("image written");
    assert_eq!(
        (used(&first.report), written(&first.report)),
        (vec![], vec!["image"])
    );
    assert!(
        first.stderr.contains("receipt.json is not there yet"),
        "{}",
        first.stderr
    );
    let second = built.check();
    assert_eq!(
        (used(&second.report), written(&second.report)),
        (vec!["image"], vec![])
    );
    assert_eq!(findings(&second), findings(&first));
    assert_eq!(second.report["facts"]["image"], first.report["facts"]["image"]);
    assert_eq!(second.exit, 0);
    second.says("image as proven ").says(" s ago\n");
    for name in [CUDART, NVRTC, EXTENSION] {
        let path = built.image.site().join(name);
        let aside = built.image.root().join("aside");
        fs::rename(&path, &aside).unwrap();
        fs::copy(&aside, &path).unwrap();
        File::open(&path)
            .unwrap()
            .set_modified(fs::metadata(&aside).unwrap().modified().unwrap())
            .unwrap();
        assert_eq!(used(&built.check().report), ["image"], "{name}");
        garble(&path);
        let third = built.check();
        assert_eq!(third.exit, 81, "{name}: {}", third.table);
        let why = format!(
            "image: {} changed (its content; size and time are the same)",
            path.display()
        );
        assert_eq!(refused(&third.report), [why]);
        fs::rename(&aside, &path).unwrap();
    }
}

#[test]
fn the_second_start_reads_little_of_libraries_and_starts_nothing() {
    Need::Strace.demand();
    let built = Built::new();
    let calls = |names: &str| -> Vec<String> {
        let log = built.image.root().join("log");
        let command = built.command();
        let mut traced = Command::new("strace");
        traced.args(["-f", "-e", names, "-o"]).arg(&log);
        traced.arg(command.get_program()).args(command.get_args());
        surroundings::keep(traced.env_clear());
        let output = traced.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = fs::read_to_string(log).unwrap();
        text.lines().map(str::to_string).collect()
    };
    let started = |lines: Vec<String>| lines.iter().filter(|line| line.contains("execve")).count();
    assert!(started(calls("trace=execve,execveat")) > 1);
    // No helper and no loader.
    assert_eq!(started(calls("trace=execve,execveat")), 1);
    let bytes = |lines: Vec<String>| -> u64 {
        let read = lines
            .iter()
            .filter_map(|line| line.rsplit_once(" = ")?.1.parse::<u64>().ok());
        read.sum()
    };
    let read = bytes(calls("trace=pread64"));
    assert!(read < 100_000, "{read} bytes of three libraries");
}

#[test]
fn every_change_is_named_and_the_next_start_knows_it() {
    type Change = (&'static str, fn(&Built), &'static [&'static str], &'static str);
    let changes: [Change; 6] = [
        (
            "a library of another size",
            |b| {
                let path = b.image.site().join(EXTENSION);
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                let mut bytes = fs::read(&path).unwrap();
                bytes.push(0);
                fs::write(&path, bytes).unwrap();
                File::options()
                    .append(true)
                    .open(&path)
                    .unwrap()
                    .set_modified(modified)
                    .unwrap();
            },
            &[],
            "kernels.cpython-311-x86_64-linux-gnu.so changed (size ",
        ),
        (
            "a package with code",
            |b| b.image.write("cumm/build/x", ""),
            &[],
            "site-packages/cumm is new",
        ),
        (
            "another list",
            |_| {},
            &["--archs", "9.0;9.0+PTX"],
            r#"archs was "9.0" and is "#,
        ),
        (
            "a severity",
            |_| {},
            &["--warn", "library-shadowed"],
            r#"the severities was none and is "library-shadowed=warn""#,
        ),
        (
            "a variable of the loader",
            |_| {},
            &["LD_LIBRARY_PATH=/x"],
            r#"LD_LIBRARY_PATH was unset and is "/x""#,
        ),
        (
            "a variable of Python",
            |_| {},
            &["PYTHONNOUSERSITE=1"],
            r#"PYTHONNOUSERSITE was unset and is "1""#,
        ),
    ];
    let built = Built::new();
    assert_eq!(built.check().exit, 0);
    for (name, change, how, said) in changes {
        change(&built);
        let start = || {
            built.check_with(|command| match how {
                [variable] => {
                    let (name, value) = variable.split_once('=').unwrap();
                    command.env(name, value);
                }
                options => {
                    command.args(options);
                }
            })
        };
        let checked = start();
        let why = refused(&checked.report);
        assert!(
            why.len() == 1 && why[0].starts_with("image: ") && why[0].contains(said),
            "{name}: {why:?}"
        );
        let line = checked
            .stderr
            .lines()
            .find(|line| line.contains("receipt: "))
            .unwrap();
        assert!(
            line.starts_with("cuda-entrypoint: receipt: image not taken from it: "),
            "{name}: {line}"
        );
        assert!(line.contains(said), "{name}: {line}");
        assert_eq!(checked.exit, 0, "{name}: {}", checked.table);
        assert_eq!(written(&checked.report), ["image"], "{name}");
        assert_eq!(used(&start().report), ["image"], "{name}");
        // Back to how the next change expects it.
        assert_eq!(built.check().exit, 0);
    }
    let mut other = Built {
        image: built.image,
        manifest: built.manifest,
    };
    other.manifest["files"] = json!([]);
    assert_eq!(refused(&other.check().report), ["image: the manifest is another"]);
    // The same words in another order and with other blanks are the same manifest.
    let manifest = other.image.root().join("stack.json");
    let text = serde_json::to_string_pretty(&other.manifest).unwrap();
    let mut command = other.command();
    fs::write(&manifest, text).unwrap();
    command
        .env("UNRELATED", "1")
        .env("NVIDIA_VISIBLE_DEVICES", "all")
        .env("CUDA_VISIBLE_DEVICES", "0");
    assert_eq!(used(&other.image.run_check(command).report), ["image"]);
}

#[test]
fn what_is_baked_into_an_image_serves_its_service() {
    let built = Built::new();
    assert_eq!(written(&built.check().report), ["image"]);
    // As the service's own start has it: other stages, a command, variables of the container runtime.
    let report = built.image.root().join("run.json");
    let mut run = entrypoint();
    run.args(["run", "--gpu", "off", "--smoke", "off", "--stack"])
        .arg(built.image.root().join("stack.json"));
    run.arg("--python")
        .arg(built.image.env())
        .arg("--report")
        .arg(&report);
    run.env("CUDA_ENTRYPOINT_RECEIPT", built.receipt())
        .env("NVIDIA_VISIBLE_DEVICES", "GPU-1");
    let output = run.args(["--", "echo", "started"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"started\n"[..]),
        "{said}"
    );
    assert!(
        said.contains(", image as proven ") && said.contains(", 1 warning; "),
        "{said}"
    );
    // What was told when it was written is not told at every start for ever.
    assert_eq!(said.lines().count(), 1, "{said}");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!((used(&report), written(&report)), (vec!["image"], vec![]));
}

#[test]
fn a_copy_of_the_binary_is_the_same_and_another_build_is_not() {
    let built = Built::new();
    assert_eq!(built.check().exit, 0);
    let folder = built.image.root().join("bin");
    let installed = entrypoint().arg("install").arg(&folder).output().unwrap();
    assert!(installed.status.success());
    let mut copy = Command::new(folder.join("cuda-entrypoint"));
    copy.args(built.command().get_args());
    surroundings::keep(copy.env_clear()).env("PATH", "/usr/bin:/bin");
    assert_eq!(used(&built.image.run_check(copy).report), ["image"]);
    edit(&built.receipt(), |receipt| {
        receipt["build"] = json!("0.0.9+0123456789abcdef")
    });
    let checked = built.check();
    let why = refused(&checked.report);
    assert!(
        why[0].starts_with(r#"file: cuda-entrypoint was "0.0.9+0123456789abcdef" and is "#),
        "{why:?}"
    );
    assert_eq!(used(&built.check().report), ["image"]);
}

#[test]
fn a_failure_is_never_recorded() {
    let built = Built::new();
    built.image.remove("ext/a.h");
    for mode in ["enforce", "warn"] {
        let checked = built.check_with(|command| {
            command.args(["--mode", mode]);
        });
        assert_eq!(checked.report["verdict"], "fail");
        assert_eq!(written(&checked.report), [""; 0]);
        assert!(!built.receipt().exists(), "{mode}");
    }
    // What is only warned of is.
    let lenient = |command: &mut Command| {
        command.args(["--warn", "file-missing"]);
    };
    let checked = built.check_with(lenient);
    assert_eq!((checked.exit, written(&checked.report)), (0, vec!["image"]));
    let checked = built.check_with(lenient);
    assert_eq!(used(&checked.report), ["image"]);
    assert_eq!(checked.problem("file-missing")["status"], "warn");
    // Texts are read anew, whatever the receipt says.
    built.image.write("ext/a.h", "");
    let checked = built.check_with(lenient);
    assert_eq!(used(&checked.report), ["image"]);
    checked.is(0, &["requires-dist warn"]);
}

#[test]
fn a_manifest_that_asks_nothing_has_a_receipt_too() {
    let mut built = Built::new();
    built.manifest = json!({"schema": 1, "name": "nothing"});
    assert_eq!(written(&built.check().report), ["image"]);
    let second = built.check();
    assert_eq!(
        (used(&second.report), written(&second.report)),
        (vec!["image"], vec![])
    );
}
