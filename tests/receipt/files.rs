//! The receipt as a file: whose word it is, and where it cannot be written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{refused, used, written};
use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, copy_program};
use crate::support::surroundings;

/// A folder that everybody may write to, as an emptyDir is, a binary that everybody may execute, and a manifest.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        copy_program(ENTRYPOINT, world.path("cuda-entrypoint"));
        fs::write(world.path("stack.json"), r#"{"schema": 1, "name": "t"}"#).unwrap();
        fs::set_permissions(world.0.path(), Permissions::from_mode(0o777)).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Ends well, and what it said: the report, and standard error.
    fn check(&self, receipt: &str, change: impl FnOnce(&mut Command)) -> (Value, String) {
        let mut command = Command::new(self.path("cuda-entrypoint"));
        command
            .args([
                "check", "--gpu", "off", "--report", "-", "--format", "human", "--stack",
            ])
            .arg(self.path("stack.json"));
        command
            .arg("--termination-log")
            .arg("/dev/null")
            .arg("--receipt")
            .arg(self.path(receipt));
        surroundings::keep(command.env_clear()).current_dir("/");
        change(&mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        (serde_json::from_slice(&output.stdout).unwrap(), said)
    }
}

fn as_user(uid: u32) -> impl FnOnce(&mut Command) {
    move |command| {
        command.uid(uid).gid(uid);
    }
}

#[test]
fn roots_word_counts_for_all_and_a_users_for_himself() {
    Need::Root.demand();
    let world = World::new();
    world.check("by-root", |_| {});
    let (report, _) = world.check("by-root", as_user(1000));
    assert_eq!(used(&report), ["image"]);
    let (report, _) = world.check("by-1000", as_user(1000));
    assert_eq!(written(&report), ["image"]);
    assert_eq!(fs::metadata(world.path("by-1000")).unwrap().uid(), 1000);
    let (report, _) = world.check("by-1000", as_user(1000));
    assert_eq!(used(&report), ["image"]);
    for (reader, name) in [(0, "uid 0"), (1001, "uid 1001")] {
        let before = fs::read(world.path("by-1000")).unwrap();
        let (report, said) = world.check("by-1000", |command| {
            if reader != 0 {
                as_user(reader)(command);
            }
        });
        let why = format!("owned by uid 1000, whom {name} does not believe: let one user, or root, write it");
        assert_eq!(refused(&report), [format!("file: {why}")]);
        assert!(said.contains(&why), "{said}");
        // The folder lets everybody put his own there.
        assert_eq!(written(&report), ["image"]);
        fs::write(world.path("by-1000"), before).unwrap();
        std::os::unix::fs::chown(world.path("by-1000"), Some(1000), Some(1000)).unwrap();
    }
}

#[test]
fn drafts_of_writers_that_were_killed_are_removed() {
    let world = World::new();
    for name in [".r.0123456789abcdef.draft", ".r.9f"] {
        fs::write(world.path(name), "half").unwrap();
    }
    world.check("r", |_| {});
    assert!(names_of(world.0.path()).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn what_others_could_have_written_is_replaced() {
    let world = World::new();
    world.check("r", |_| {});
    let path = world.path("r");
    for (mode, shown) in [(0o664, "664"), (0o646, "646"), (0o777, "777")] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let (report, _) = world.check("r", |_| {});
        assert!(
            refused(&report)[0].contains(&format!("mode {shown}: others may write it")),
            "{report:#}"
        );
        assert_eq!(written(&report), ["image"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    }
    assert_eq!(used(&world.check("r", |_| {}).0), ["image"]);
}

#[test]
fn whatever_the_umask_others_can_read_it_and_nobody_can_write_it() {
    for (umask, name) in [("0", "open"), ("0777", "shut")] {
        let world = World::new();
        let mut command = Command::new("sh");
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(world.path("cuda-entrypoint"));
        command.args([
            "check",
            "--gpu",
            "off",
            "--termination-log",
            "/dev/null",
            "--stack",
        ]);
        command
            .arg(world.path("stack.json"))
            .arg("--receipt")
            .arg(world.path(name));
        assert!(command.output().unwrap().status.success());
        assert_eq!(
            fs::metadata(world.path(name)).unwrap().mode() & 0o7777,
            0o644,
            "{umask}"
        );
    }
}

#[test]
fn what_is_no_file_is_neither_read_nor_replaced() {
    let world = World::new();
    world.check("good", |_| {});
    symlink("good", world.path("link")).unwrap();
    symlink("nowhere", world.path("broken")).unwrap();
    fs::create_dir(world.path("folder")).unwrap();
    nix::unistd::mkfifo(&world.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, why) in [
        ("link", "a symbolic link: name the file itself"),
        ("broken", "a symbolic link: name the file itself"),
        ("folder", "not a regular file"),
        ("fifo", "not a regular file"),
    ] {
        let before = fs::symlink_metadata(world.path(name)).unwrap();
        let (report, said) = world.check(name, |_| {});
        assert_eq!(refused(&report), [format!("file: {why}")]);
        assert_eq!(written(&report), [""; 0]);
        assert!(said.contains(&format!("{name} is not used: {why}")), "{said}");
        assert!(
            said.contains("warning: receipt: ") && said.contains("not a regular file"),
            "{said}"
        );
        let after = fs::symlink_metadata(world.path(name)).unwrap();
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    }
    assert!(!world.path("nowhere").exists());
}

#[test]
fn damage_is_told_with_its_place_and_mended() {
    let world = World::new();
    world.check("r", |_| {});
    let path = world.path("r");
    let good = fs::read(&path).unwrap();
    let deep = format!("{{\"schema\": 1, \"image\": {}", "[".repeat(100_000));
    for (bad, part) in [
        (&good[..17], "damaged: EOF while parsing"),
        (&good[..good.len() - 1], "damaged: EOF while parsing"),
        (b"", "line 1 column 0"),
        (b"\0\0\0", "at line 1 column 1"),
        (b"{\"schema\": 2, \"build\": \"x\"}", "of schema 2, and this is 1"),
        (
            b"{\"schema\": 1, \"build\": 7}",
            "damaged: build: expected a string",
        ),
        (deep.as_bytes(), "damaged: "),
        (b"\xff\xfe", "damaged: "),
    ] {
        fs::write(&path, bad).unwrap();
        let (report, said) = world.check("r", |_| {});
        let why = refused(&report);
        assert!(
            why.len() == 1 && why[0].starts_with("file: ") && why[0].contains(part),
            "{why:?}"
        );
        assert!(said.contains(part), "{said}");
        assert_eq!(written(&report), ["image"]);
        assert_eq!(used(&world.check("r", |_| {}).0), ["image"]);
    }
    let huge = fs::File::create(&path).unwrap();
    huge.set_len(1 << 34).unwrap();
    assert!(refused(&world.check("r", |_| {}).0)[0].contains("17179869184 bytes, more than"));
}

#[test]
fn where_it_cannot_be_written_the_start_goes_on_with_a_warning() {
    let world = World::new();
    let warns = |receipt: &str, part: &str, hint: &str, change: &dyn Fn(&mut Command)| {
        let (report, said) = world.check(receipt, |command| change(command));
        let line = said.lines().find(|line| line.contains("warning: receipt: "));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        assert!(
            line.contains("cannot be written: ") && line.contains(part) && line.contains(hint),
            "{line}"
        );
        assert!(report["receipt"]["not_written"].as_str().unwrap().contains(part));
        assert_eq!(written(&report), [""; 0]);
    };
    warns(
        "no/such/r",
        "No such file or directory",
        "an emptyDir in Kubernetes",
        &|_| {},
    );
    warns("stack.json/r", "Not a directory", "make its folder", &|_| {});
    warns(
        &"x".repeat(300),
        "File name too long",
        "name another file",
        &|_| {},
    );
    if Need::Root.is_there() {
        fs::create_dir(world.path("roots")).unwrap();
        fs::set_permissions(world.path("roots"), Permissions::from_mode(0o755)).unwrap();
        warns(
            "roots/r",
            "Permission denied",
            "that this user may write to",
            &|command| as_user(1000)(command),
        );
        // One that came with the image and is good stays as it is, and nobody is bothered.
        world.check("roots/r", |_| {});
        let (report, said) = world.check("roots/r", as_user(1000));
        assert_eq!(used(&report), ["image"]);
        assert!(!said.contains("warning"), "{said}");
    }
    if Need::MountNamespace.is_there() {
        let mounted = |options: &str, fill: &str| {
            let script = format!("mount -t tmpfs -o {options} none /mnt && {fill} exec \"$0\" \"$@\"");
            let mut command = Command::new("unshare");
            command
                .args(["-m", "sh", "-c", &script])
                .arg(world.path("cuda-entrypoint"));
            command.args([
                "check",
                "--gpu",
                "off",
                "--termination-log",
                "/dev/null",
                "--stack",
            ]);
            command
                .arg(world.path("stack.json"))
                .args(["--receipt", "/mnt/r"]);
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(0));
            String::from_utf8(output.stderr).unwrap()
        };
        let full = mounted("size=4k", "{ cat /dev/zero >/mnt/zero 2>/dev/null || true; } && ");
        assert!(full.contains("No space left on device"), "{full}");
        assert!(full.contains("free space on its volume"), "{full}");
        assert!(mounted("ro", "").contains("Read-only file system"));
    }
    assert!(names_of(world.0.path()).iter().all(|name| !name.starts_with('.')));
}

/// Names in a folder.
fn names_of(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.map(|e| e.file_name().into_string().unwrap()).collect()
}
