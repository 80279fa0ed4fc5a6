//! Storage that fails, and files that this user may not read: what could not be read was not judged, and is not taken for
//! what is not there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::image::{Checked, Image, c_library, entrypoint};
use crate::support::needs::Need;
use crate::support::run::{copy_program, eventually};
use crate::support::testing::{Entry, container, library};

const METADATA: &str = "ext-1.0.dist-info/METADATA";
const EXTENSION: &str = "ext/kernels.so";

/// An extension with CUDA code, and its metadata.
fn image() -> Image {
    let image = Image::empty();
    image.wheel("ext", "1.0", "cp311-cp311-linux_x86_64");
    image.write(
        "ext-1.0.dist-info/RECORD",
        "ext/__init__.py,sha256=x,1\next/kernels.so,,\n",
    );
    image.write("ext/__init__.py", "#");
    let built = image.root().join("built.so");
    fs::write(&built, library(&[container(&[Entry::sass(90, true)])])).unwrap();
    image.put(EXTENSION, &built);
    image
}

fn manifest() -> Value {
    json!({"schema": 1, "name": "t", "archs": "9.0", "packages": {"ext": "==1.0"}})
}

/// `check` with a receipt, behind `wrap`.
fn check(image: &Image, wrap: &[&str]) -> Checked {
    let plain = entrypoint();
    let words: Vec<&str> = wrap
        .iter()
        .copied()
        .chain([plain.get_program().to_str().unwrap()])
        .collect();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
        .args(["check", "--stage", "image", "--stack"])
        .arg(image.manifest(&manifest()));
    command
        .arg("--python")
        .arg(image.env())
        .arg("--receipt")
        .arg(image.root().join("receipt.json"));
    image.run_check(command)
}

#[test]
fn an_error_of_the_storage_is_the_operators_and_leaves_no_receipt() {
    Need::Strace.demand();
    let image = image();
    check(&image, &["env"]).is(0, &[]);
    fs::remove_file(image.root().join("receipt.json")).unwrap();
    for (path, call, error, words) in [
        // In the middle of a folder: what was listed by then is not all.
        ("", "getdents64", "EIO:when=2", "Input/output error"),
        ("ext", "getdents64", "EIO:when=2", "Input/output error"),
        ("ext", "openat", "ESTALE", "Stale file handle"),
        (METADATA, "read", "ESTALE", "Stale file handle"),
        (METADATA, "openat", "ETIMEDOUT", "Connection timed out"),
        ("ext-1.0.dist-info/RECORD", "read", "EIO", "Input/output error"),
        ("ext/__init__.py", "statx", "EIO", "Input/output error"),
        (
            EXTENSION,
            "openat",
            "ENOTCONN",
            "Transport endpoint is not connected",
        ),
        (EXTENSION, "pread64", "EIO", "Input/output error"),
    ] {
        let path = image.site().join(path);
        let path = path.to_str().unwrap().trim_end_matches('/');
        let inject = format!("inject={call}:error={error}");
        let log = image.root().join("log");
        let strace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            log.to_str().unwrap(),
            "-P",
            path,
            "-e",
            &inject,
        ];
        let checked = check(&image, &strace);
        let name = format!("{call} of {path}: {error}");
        assert_eq!(checked.exit, 82, "{name}: {}", checked.table);
        let finding = checked.problem("storage-fault");
        assert_eq!(
            (&finding["status"], &finding["subject"]),
            (&json!("fail"), &json!(path)),
            "{name}"
        );
        let seen = finding["observed"].as_str().unwrap();
        assert!(
            !seen.is_empty() && finding["message"].as_str().unwrap().contains("was not judged"),
            "{name}: {words}"
        );
        assert!(!image.root().join("receipt.json").exists(), "{name}");
        // Put up with, it is still not vouched for.
        let lenient = [
            &strace[..],
            &[
                "env",
                "CUDA_ENTRYPOINT_MODE=warn",
                "CUDA_ENTRYPOINT_WARN=storage-fault",
            ],
        ]
        .concat();
        check(&image, &lenient);
        assert!(!image.root().join("receipt.json").exists(), "{name}");
    }
    // What vanishes meanwhile is not there, and that is all.
    let path = image.site().join("ext");
    let gone = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        path.to_str().unwrap(),
        "-e",
        "inject=openat:error=ENOENT",
    ];
    let checked = check(&image, &gone);
    assert!(
        checked.problems().iter().all(|p| !p.contains("storage")),
        "{:?}",
        checked.problems()
    );
}

/// What fails at first is read again: a link to memory that is not mapped gives EIO, until a file takes its place.
#[test]
fn under_wait_the_image_is_read_again() {
    for (path, wait, exit) in [
        (METADATA, "60s", 0),
        ("ext-1.0.dist-info/RECORD", "60s", 0),
        (METADATA, "1s", 82),
    ] {
        let image = image();
        let place = image.site().join(path);
        let aside = image.root().join("aside");
        fs::rename(&place, &aside).unwrap();
        symlink("/proc/self/mem", &place).unwrap();
        let said = image.root().join("said");
        // So that it is known when it waits.
        let script = "said=$1 && shift && \"$@\" 2>\"$said\"; code=$?; cat \"$said\" >&2; exit $code";
        let wait = format!("CUDA_ENTRYPOINT_WAIT={wait}");
        let words = ["env", &wait, "sh", "-c", script, "sh", said.to_str().unwrap()];
        let checked = std::thread::scope(|scope| {
            let mending = scope.spawn(|| {
                let waits = || fs::read_to_string(&said).is_ok_and(|said| said.contains("waiting up to"));
                if exit == 0 && eventually(waits) {
                    fs::rename(&aside, &place).unwrap();
                }
            });
            let checked = check(&image, &words);
            mending.join().unwrap();
            checked
        });
        let stderr = &checked.stderr;
        assert_eq!(checked.exit, exit, "{path}: {}{stderr}", checked.table);
        assert!(stderr.contains("waiting up to"), "{path}: {stderr}");
        assert!(
            stderr.contains("could not be read, and so was not judged: "),
            "{path}: {stderr}"
        );
        if exit == 0 {
            assert_eq!(checked.problems(), [""; 0], "{path}");
            assert_eq!(checked.report["receipt"]["written"], json!(["image"]), "{path}");
        } else {
            checked.problem("storage-fault");
        }
    }
    // What does not get better by itself is told at once.
    let image = image();
    fs::remove_file(image.site().join("ext/__init__.py")).unwrap();
    let checked = check(&image, &["env", "CUDA_ENTRYPOINT_WAIT=60s"]);
    assert_eq!(
        (checked.exit, checked.stderr.contains("waiting")),
        (81, false),
        "{}",
        checked.table
    );
}

#[test]
fn a_receipt_is_not_held_against_what_cannot_be_read() {
    Need::Strace.demand();
    let image = image();
    assert_eq!(
        check(&image, &["env"]).report["receipt"]["written"],
        json!(["image"])
    );
    for (path, call) in [
        (EXTENSION, "pread64"),
        ("ext", "getdents64"),
        ("", "getdents64"),
        (METADATA, "read"),
    ] {
        let path = image.site().join(path);
        let path = path.to_str().unwrap().trim_end_matches('/');
        let inject = format!("inject={call}:error=EIO");
        let checked = check(
            &image,
            &[
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-P",
                path,
                "-e",
                &inject,
            ],
        );
        assert_eq!(checked.exit, 82, "{path}: {}", checked.table);
    }
}

#[test]
fn a_file_system_that_may_execute_nothing_is_the_operators() {
    Need::MountNamespace.demand();
    let image = Image::empty();
    let source = "int cudaRuntimeGetVersion(int *v) { *v = 12040; return 0; }";
    let cudart = c_library(image.root(), "cudart", source);
    image.put("nvidia/cuda_runtime/lib/libcudart.so.12", &cudart);
    let stack = image.manifest(&json!({"schema": 1, "name": "t", "cuda": {"runtime": "12.4"}}));
    let site = image.site().join("nvidia");
    let mount = "cp -a \"$1\" /mnt/ 2>/dev/null; mount -t tmpfs -o noexec none /media && cp -a \"$1/.\" /media/ && \
        mount --bind /media \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", mount, "sh"])
        .arg(site)
        .arg(entrypoint().get_program());
    command
        .args(["check", "--stage", "image", "--stack"])
        .arg(stack)
        .arg("--python")
        .arg(image.env());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let checked = image.run_check(command);
    assert_eq!(checked.exit, 82, "{}{}", checked.table, checked.stderr);
    let finding = checked.problem("storage-fault");
    assert!(finding["hint"].as_str().unwrap().contains("noexec"), "{finding}");
}

#[test]
fn what_this_user_may_not_read_is_mended_by_chmod() {
    Need::Root.demand();
    for (name, mode) in [(METADATA, 0o600), (EXTENSION, 0o600), ("ext", 0o700)] {
        let image = image();
        fs::set_permissions(image.root(), Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(image.site().join(name), Permissions::from_mode(mode)).unwrap();
        let binary = image.root().join("cuda-entrypoint");
        copy_program(entrypoint().get_program(), &binary);
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
            .arg(&binary);
        command
            .args(["check", "--stage", "image", "--stack"])
            .arg(image.manifest(&manifest()));
        command
            .arg("--python")
            .arg(image.env())
            .env("PATH", "/usr/bin:/bin");
        let checked = image.run_check(command);
        assert_eq!(checked.exit, 81, "{name}: {}{}", checked.table, checked.stderr);
        let finding = checked.problem("file-unreadable");
        assert!(finding["subject"].as_str().unwrap().contains(name), "{finding}");
        let hint = finding["hint"].as_str().unwrap();
        assert!(
            hint.contains("chmod a+rX ") && !checked.table.contains("--force-reinstall"),
            "{name}: {}",
            checked.table
        );
    }
}

#[test]
fn metadata_that_says_nothing_does_not_pass() {
    let utf_16: Vec<u8> = "Name: ext\nVersion: 1.0\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (what, content) in [
        ("gone", None),
        ("empty", Some(Vec::new())),
        ("UTF-16", Some(utf_16)),
        ("blank", Some(b"\n\n".to_vec())),
    ] {
        for (wanted, exit, status) in [("ext", 81, "fail"), ("other", 0, "warn")] {
            let image = image();
            image.wheel("other", "1.0", "py3-none-any");
            let path = image.site().join(METADATA);
            match &content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let manifest = json!({"schema": 1, "name": "t", "packages": {wanted: "==1.0"}});
            let checked = image.check(&manifest);
            assert_eq!(checked.exit, exit, "{what}: {}", checked.table);
            assert_eq!(checked.problem("package-incomplete")["status"], status, "{what}");
        }
    }
}

#[test]
fn an_empty_library_is_no_library() {
    let image = image();
    image.write("ext/empty.so", "");
    image.check(&manifest()).is(0, &[]);
}

#[test]
fn nobody_in_a_user_namespace_is_not_believed() {
    Need::Root.demand();
    let image = image();
    fs::set_permissions(image.root(), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        check(&image, &["env"]).report["receipt"]["written"],
        json!(["image"])
    );
    // A user whom the map does not cover, read by one who has the number that he is shown with.
    let receipt = image.root().join("receipt.json");
    chown(&receipt, Some(4242), Some(4242)).unwrap();
    let binary = image.root().join("cuda-entrypoint");
    copy_program(entrypoint().get_program(), &binary);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-user=65534", "--map-group=65534"])
        .arg(&binary);
    command
        .args(["check", "--stage", "image", "--stack"])
        .arg(image.manifest(&manifest()));
    command
        .arg("--python")
        .arg(image.env())
        .arg("--receipt")
        .arg(&receipt);
    command.env("PATH", "/usr/bin:/bin").uid(0);
    let checked = image.run_check(command);
    let refused = checked.report["receipt"]["refused"][0]["reason"]
        .as_str()
        .unwrap_or_default();
    assert!(
        refused.contains("whom this user namespace does not map"),
        "{:#}",
        checked.report["receipt"]
    );
}
