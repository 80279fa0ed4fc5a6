//! The hand-off's Python program by itself: what a service sees of it, which is nothing, and how it ends what does not
//! pass. tests/smoke_script/launch.py stands for the entrypoint before it, tests/smoke_script/verdict.py for its verdict.
// Everything here is test code, also outside of the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::fakes::fake_driver_dir;
use support::run::{Run, Running, World, can, eventually, kill};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The interpreters to be tried: `python3`, or those that CUDA_ENTRYPOINT_PYTHONS lists, separated by colons.
fn pythons() -> Vec<OsString> {
    match std::env::var_os("CUDA_ENTRYPOINT_PYTHONS") {
        Some(list) => std::env::split_paths(&list).map(Into::into).collect(),
        None => vec!["python3".into()],
    }
}

/// A service in its own folder, with the fake packages on its path.
struct Service {
    world: World,
    python: OsString,
    script: Value,
    options: Value,
}

impl Service {
    fn new(python: &OsStr) -> Self {
        let world = World::new();
        // Not in the folder of the service: Python puts that in front of its path.
        world.write("app/service.py", "from observe import observe\nobserve()\n");
        Self {
            world,
            python: python.into(),
            script: json!({}),
            options: json!({}),
        }
    }

    fn acting(script: Value) -> Self {
        Self {
            script,
            ..Self::new(&pythons()[0])
        }
    }

    fn path(&self) -> OsString {
        let scripts = root().join("tests/smoke_script");
        std::env::join_paths([root().join("tests/fakes/python"), scripts]).unwrap()
    }

    /// These arguments for the interpreter, as the service's own start has them.
    fn plain(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command(&self.python);
        command.args(arguments);
        self.surroundings(&mut command);
        command
    }

    /// The same through the hand-off.
    fn handed(&self, arguments: &[&str]) -> Command {
        let mut command = self.launcher();
        command.arg(&self.python).args(arguments);
        command
    }

    /// What comes before the service's command.
    fn launcher(&self) -> Command {
        let mut options = json!({
            "handoff": root().join("src/smoke/handoff.py"),
            "smoke": root().join("src/smoke/smoke.py"),
            "out": self.out(),
            "binary": "/usr/bin/python3",
        });
        let more = self.options.as_object().unwrap().clone();
        options.as_object_mut().unwrap().extend(more);
        let mut command = self.world.command("/usr/bin/python3");
        command
            .arg("-S")
            .arg(root().join("tests/smoke_script/launch.py"))
            .arg(options.to_string());
        self.surroundings(&mut command);
        command
    }

    fn surroundings(&self, command: &mut Command) {
        command
            .env("LANG", "C.UTF-8")
            .env("PYTHONPATH", self.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("FAKE_TORCH_SCRIPT", self.script.to_string())
            .env("FAKE_GPU_SCRIPT", self.world.path("gpu.json"))
            .env("LD_LIBRARY_PATH", fake_driver_dir())
            .current_dir(self.world.path("app"));
        self.world.write("gpu.json", "{}");
    }

    fn out(&self) -> PathBuf {
        self.world.path("verdict.json")
    }

    /// What the verdict was given; `None` where there was none.
    fn verdict(&self) -> Option<Value> {
        let text = fs::read(self.out()).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// The protocol's lines, shortened: `begin import torch`, `ended {"exit":0}`.
    #[track_caller]
    fn lines(&self) -> Vec<String> {
        let verdict = self.verdict().expect("no verdict");
        verdict["lines"].as_array().unwrap().iter().map(short).collect()
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        self.world.assert_nothing_left();
    }
}

fn short(line: &Value) -> String {
    let Some((kind, fields)) = line.as_object().and_then(|o| o.iter().next()) else {
        return line.as_str().unwrap().to_string();
    };
    match kind.as_str() {
        "begin" => format!("begin {}", fields["step"].as_str().unwrap()),
        "passed" | "python" | "module" | "device" => kind.clone(),
        _ => format!("{kind} {fields}"),
    }
}

/// The first difference between what two services saw.
#[track_caller]
fn same(plain: &Run, handed: &Run, what: &str) {
    plain.exits(0);
    handed.exits(0);
    let parse = |run: &Run| -> Value {
        serde_json::from_slice(&run.stdout).unwrap_or_else(|error| panic!("{what}: {error}\n{}", run.text()))
    };
    let (before, after) = (parse(plain), parse(handed));
    let mut report = String::new();
    for (key, value) in before.as_object().unwrap() {
        if after[key] != *value {
            let _ = writeln!(report, "{key}:\n  without {value}\n  with    {}", after[key]);
        }
    }
    assert!(report.is_empty(), "{what}\n{report}\n{}", handed.stderr);
    assert_eq!(plain.stderr, handed.stderr.replace("verdict\n", ""), "{what}");
}

#[test]
fn a_service_sees_no_difference() {
    for python in pythons() {
        let service = Service::new(&python);
        service.world.write("app/package/__init__.py", "");
        service.world.write(
            "app/package/__main__.py",
            "from .inner import observe\nobserve()\n",
        );
        service
            .world
            .write("app/package/inner.py", "from observe import observe\n");
        service.world.write(
            "app/folder/__main__.py",
            "from observe import observe\nobserve()\n",
        );
        std::os::unix::fs::symlink("../app/service.py", service.world.path("link.py")).unwrap();
        let link = service.world.path("link.py");
        let zip = service.world.path("app.zip");
        let made = Command::new("/usr/bin/python3")
            .args([
                "-c",
                "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').write(sys.argv[2], '__main__.py')",
            ])
            .arg(&zip)
            .arg(service.world.path("app/folder/__main__.py"))
            .status();
        assert!(made.unwrap().success());
        let observe = "from observe import observe; observe()";
        for arguments in [
            &["service.py", "--port", "80", "-x"][..],
            &["./service.py"],
            &[link.to_str().unwrap()],
            &["-m", "package", "one"],
            &["-m", "package.__main__"],
            &["-m", "service"],
            &["-c", observe, "-m", "x"],
            &["folder"],
            &[zip.to_str().unwrap(), "x"],
            &[
                "-u",
                "-O",
                "-X",
                "utf8",
                "-W",
                "ignore::UserWarning",
                "service.py",
            ],
            &["-W", "error", "service.py"],
            &["-X", "faulthandler", "service.py"],
            &["-X", "dev", "service.py"],
            &["-s", "-B", "service.py"],
        ] {
            let plain = Run::of(&mut service.plain(arguments));
            let handed = Run::of(&mut service.handed(arguments));
            same(&plain, &handed, &format!("{} {arguments:?}", python.display()));
            assert_eq!(service.lines().last().unwrap(), "ended {\"exit\":0}");
            fs::remove_file(service.out()).unwrap();
        }
        service.assert_nothing_left();
    }
}
