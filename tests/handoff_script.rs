//! The hand-off's Python program by itself: what a service sees of it, which is nothing, and how it ends what does not
//! pass. tests/smoke_script/launch.py stands for the entrypoint before it, tests/smoke_script/verdict.py for its verdict.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::smoke_script::source::source;
use crate::support::fakes::fake_driver_dir;
use crate::support::needs::Need;
use crate::support::probe::launcher;
use crate::support::run::{Run, Running, World, children, eventually, kill};
use nix::libc;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

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

    /// With packages that act out this script, and these options of launch.py.
    fn acting(script: Value, options: Value) -> Self {
        Self {
            script,
            options,
            ..Self::new(&pythons()[0])
        }
    }

    /// Says on standard output that it started.
    fn start(&self) -> Running {
        Running::start(&mut self.handed(&["-c", "print('service')"]))
    }

    fn run(&self) -> Run {
        self.start().finish()
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
            "handoff": source("handoff.py"),
            "smoke": source("smoke.py"),
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
    assert_eq!(
        plain.status, handed.status,
        "{what}\n{}\n{}",
        plain.stderr, handed.stderr
    );
    assert_eq!(plain.stderr, handed.stderr.replace("verdict\n", ""), "{what}");
    if plain.stdout == handed.stdout {
        return;
    }
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
    panic!("{what}\n{report}\n{}", handed.stderr);
}

/// Runs a service both ways, the hand-off to its verdict, and compares.
#[track_caller]
fn compare(service: &Service, arguments: &[&str], change: impl Fn(&mut Command)) -> Run {
    let what = format!("{} {arguments:?}", service.python.display());
    let (mut plain, mut handed) = (service.plain(arguments), service.handed(arguments));
    change(&mut plain);
    change(&mut handed);
    let plain = Run::of(&mut plain);
    let handed = Run::of(&mut handed);
    assert!(
        service.verdict().is_some(),
        "{what}: no verdict\n{}",
        handed.stderr
    );
    assert_eq!(
        service.lines().last().unwrap(),
        "ended {\"exit\":0}",
        "{what}\n{}",
        handed.stderr
    );
    fs::remove_file(service.out()).unwrap();
    same(&plain, &handed, &what);
    service.assert_nothing_left();
    handed
}

const OBSERVE: &str = "from observe import observe; observe()";
const OBSERVE_ALL: &str = "if __name__ == '__main__':\n    from observe import observe\n    observe(True)\n";

#[test]
fn a_service_sees_no_difference_however_it_is_started() {
    for python in pythons() {
        let service = Service::new(&python);
        let inner = "from .inner import observe\nobserve()\n";
        service.world.write("app/package/__init__.py", "");
        service.world.write("app/package/__main__.py", inner);
        service
            .world
            .write("app/package/inner.py", "from observe import observe\n");
        service.world.write(
            "app/folder/__main__.py",
            "from observe import observe\nobserve()\n",
        );
        service.world.write("app/relative.py", inner);
        std::os::unix::fs::symlink("app/service.py", service.world.path("link.py")).unwrap();
        let link = service.world.path("link.py");
        let zip = service.world.path("app.zip");
        let pack = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').write(sys.argv[2], '__main__.py')";
        let made = Command::new("/usr/bin/python3")
            .args(["-c", pack])
            .arg(&zip)
            .arg(service.world.path("app/folder/__main__.py"))
            .status();
        assert!(made.unwrap().success());
        for arguments in [
            &["service.py", "--port", "80", "-x"][..],
            &["./service.py"],
            &[link.to_str().unwrap()],
            &["-m", "package", "one"],
            &["-m", "package.__main__"],
            &["-m", "service"],
            &["-c", OBSERVE, "-m", "x"],
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
            compare(&service, arguments, |_| {}).exits(0);
        }
        // Errors are the service's own.
        for arguments in [
            &["missing.py"][..],
            &["-m", "missing"],
            &["relative.py"],
            &["-c", "1/0"],
            &["-c", "def"],
            &["-c", "import sys; sys.exit(7)"],
            &["-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"],
            &["-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"],
        ] {
            let run = compare(&service, arguments, |_| {});
            assert_ne!(run.code(), Some(0), "{arguments:?}");
        }
    }
}

/// With an interpreter of its own in `venv`, whose packages need no variable.
fn in_environment(python: &OsStr) -> (Service, PathBuf) {
    let mut service = Service::new(python);
    let ask =
        "import os, sys; print(os.path.realpath(sys.executable)); print('%d.%d' % sys.version_info[:2])";
    let told = Run::of(service.world.command(python).args(["-c", ask]));
    let (real, version) = told.text().trim().split_once('\n').unwrap();
    let home = Path::new(real).parent().unwrap().display();
    service.world.write("venv/pyvenv.cfg", format!("home = {home}\n"));
    let bin = service.world.path("venv/bin");
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(real, bin.join("python3")).unwrap();
    let packages = format!("venv/lib/python{version}/site-packages");
    // By links: Python reads .pth files in the locale's encoding, and the repository's path may not be ASCII.
    let mut lines = String::new();
    for (number, folder) in std::env::split_paths(&service.path()).enumerate() {
        let link = service.world.path(format!("venv/path-{number}"));
        std::os::unix::fs::symlink(folder, &link).unwrap();
        let _ = writeln!(lines, "{}", link.display());
    }
    service.world.write(&format!("{packages}/fakes.pth"), lines);
    service.python = bin.join("python3").into();
    let packages = service.world.path(packages);
    (service, packages)
}

#[test]
fn a_service_sees_no_difference_whatever_its_environment() {
    for python in pythons() {
        let (service, _) = in_environment(&python);
        for set in [
            &[("PYTHONPATH", "")][..],
            &[("PYTHONPATH", ":")],
            &[("PYTHONPATH", "relative:/nowhere::/tmp")],
            &[("PYTHONPATH", "/proc/self/fd/0")],
            &[("PYTHONFAULTHANDLER", "1")],
            &[("PYTHONDEVMODE", "1")],
            &[("PYTHONWARNINGS", "error"), ("PYTHONUNBUFFERED", "1")],
            &[("PYTHONSAFEPATH", "1")],
            &[("PYTHONOPTIMIZE", "2"), ("PYTHONHASHSEED", "0")],
            &[("PYTORCH_NVML_BASED_CUDA_CHECK", "0")],
            &[("PYTORCH_NVML_BASED_CUDA_CHECK", "")],
            &[
                ("PYTHONNOUSERSITE", "1"),
                ("LANG", "C"),
                ("PYTHONCOERCECLOCALE", "0"),
            ],
        ] {
            compare(&service, &["-c", OBSERVE], |command| {
                command.env_remove("PYTHONPATH").envs(set.iter().copied());
            })
            .exits(0);
        }
        // None at all, and one that is not UTF-8.
        compare(&service, &["-c", OBSERVE], |command| {
            command.env_remove("PYTHONPATH");
        })
        .exits(0);
        compare(&service, &["-c", OBSERVE], |command| {
            command.env("PYTHONPATH", OsStr::from_bytes(b"/x\xff/y:/z"));
        })
        .exits(0);
        // A console script.
        let interpreter = service.python.to_str().unwrap();
        let script =
            format!("#!{interpreter}\nimport sys\nfrom observe import observe\nsys.exit(observe())\n");
        let script = service.world.program("venv/bin/serve", script);
        let mut script_service = service;
        script_service.python = script.into();
        compare(&script_service, &["--workers", "2"], |_| {}).exits(0);
    }
}

#[test]
fn what_the_parent_left_stays_as_it_was() {
    for python in pythons() {
        let service = Service::new(&python);
        let null = "/dev/null";
        for options in [
            &["--block"][..],
            &["--ignore"],
            &["--ignore-child"],
            &["--subreaper"],
            &["--zombie", "3"],
            &["--child", "5"],
            &["--open", "7", null, "--open", "31", null],
            &["--close", "0"],
            &["--files", "70"],
        ] {
            let under = |command: &Command| {
                let mut strange = service.world.command(launcher());
                strange
                    .args(options)
                    .args(["--", "/usr/bin/env"])
                    .arg(command.get_program())
                    .args(command.get_args());
                strange.current_dir(service.world.path("app"));
                strange.envs(
                    command
                        .get_envs()
                        .filter_map(|(name, value)| Some((name, value?))),
                );
                Run::of(&mut strange)
            };
            // The number of a child is another each time.
            let observe = format!(
                "{OBSERVE}; import os, sys\ntry: sys.stderr.write(str(os.wait()[1]))\nexcept OSError as e: sys.stderr.write(str(e))"
            );
            let observe = observe.replace("observe()", "observe(numbers=False)");
            let plain = under(&service.plain(&["-c", &observe]));
            let handed = under(&service.handed(&["-c", &observe]));
            assert_eq!(
                service.lines().last().unwrap(),
                "ended {\"exit\":0}",
                "{options:?}"
            );
            fs::remove_file(service.out()).unwrap();
            plain.exits(0);
            same(&plain, &handed, &format!("{} {options:?}", python.display()));
        }
    }
}

#[test]
fn what_the_service_starts_sees_no_difference_either() {
    for python in pythons() {
        let service = Service::new(&python);
        service.world.write("app/service.py", OBSERVE_ALL);
        compare(&service, &["service.py"], |_| {}).exits(0);
    }
}

#[test]
fn the_images_own_sitecustomize_comes_next() {
    for python in pythons() {
        for (own, seen) in [
            ("import os\nos.environ['OWN'] = 'yes'\n", "OWN=yes"),
            (
                "import sys\nprint(sys.path[0], file=sys.stderr)\n",
                "sitecustomize.py",
            ),
            ("raise ValueError('of its own')\n", ""),
            ("raise ImportError('of something else', name='else')\n", ""),
            ("import missing\n", ""),
            ("def\n", ""),
            (
                "import sys\nclass Other: __file__ = '/other'; __spec__ = sys.__spec__; __loader__ = (); __name__ = 'o'\nsys.modules['sitecustomize'] = Other\n",
                "/other",
            ),
        ] {
            let (service, packages) = in_environment(&python);
            service.world.write("own/sitecustomize.py", own);
            let folder = service.world.path("own");
            let run = compare(&service, &["-c", OBSERVE], |command| {
                command.env("PYTHONPATH", &folder);
            });
            run.exits(0);
            assert!(run.text().contains(seen), "{own}: {}", run.text());
            // Behind the standard library's, if there is one there.
            fs::rename(folder.join("sitecustomize.py"), packages.join("sitecustomize.py")).unwrap();
            compare(&service, &["-c", OBSERVE], |command| {
                command.env_remove("PYTHONPATH");
            })
            .exits(0);
        }
    }
    // Python shows the calls of one that leaves, ours among them: its message is the same.
    let (service, _) = in_environment(&pythons()[0]);
    service
        .world
        .write("own/sitecustomize.py", "raise SystemExit(9)\n");
    let mut statuses = Vec::new();
    for mut command in [service.plain(&["-c", "1"]), service.handed(&["-c", "1"])] {
        let run = Run::of(command.env("PYTHONPATH", service.world.path("own")));
        statuses.push((run.status, run.stderr.lines().last().unwrap().to_string()));
    }
    assert_eq!(statuses[0], statuses[1]);
}

#[test]
fn imports_find_what_the_services_own_would_find() {
    // A package beside the script comes before the installed one.
    let service = Service::new(&pythons()[0]);
    service
        .world
        .write("app/cumm/__init__.py", "__version__ = 'beside'\n");
    service.world.write("app/cumm/include/tensorview/core/all.h", "");
    for arguments in [&["service.py"][..], &["-m", "service"], &["-c", OBSERVE]] {
        let run = compare(&service, arguments, |_| {});
        assert!(run.text().contains("app/cumm/__init__.py"), "{}", run.text());
    }
}

#[test]
fn the_verdict_gets_what_it_needs_and_nothing_else() {
    let service = Service::new(&pythons()[0]);
    service.run().exits(0).prints("service\n");
    let verdict = service.verdict().unwrap();
    let env = [
        "LANG=C.UTF-8".into(),
        OsString::from("SERVICE=1"),
        OsStr::from_bytes(b"ODD=\xff=x").into(),
    ];
    let mut hex: Vec<String> = env
        .iter()
        .map(|v: &OsString| v.as_bytes().iter().map(|b| format!("{b:02x}")).collect())
        .collect();
    hex.sort();
    assert_eq!(verdict["env"], json!(hex));
    let fds = verdict["fds"].as_object().unwrap();
    assert_eq!(fds["0"], "/dev/null");
    assert_eq!(fds["1"], fds["2"]);
    assert!(fds["30"].as_str().unwrap().contains("results"), "{fds:?}");
    assert_eq!(fds["40"], "/dev/null");
    for ours in ["50", "60"] {
        assert!(!fds.contains_key(ours), "{fds:?}");
    }
    assert_eq!(verdict["masks"]["SigBlk"], "0000000000000000");
    let lines = service.lines();
    let began: Vec<&String> = lines.iter().filter(|line| line.starts_with("begin")).collect();
    insta::assert_debug_snapshot!(began);
    assert_eq!(lines[lines.len() - 2..], ["done", "ended {\"exit\":0}"]);
}

#[test]
fn the_other_packages_are_imported_in_the_proof_alone() {
    let note = json!({"note": "/proc/self/fd/2"});
    let service = Service::acting(
        json!({"import torchvision": note, "import torch": note}),
        json!({"entries": ["mmcv", "torchvision", "torch"]}),
    );
    let run = Run::of(&mut service.handed(&[
        "-c",
        "import sys; print('torchvision' in sys.modules, 'torch' in sys.modules)",
    ]));
    run.exits(0).prints("False True\n");
    let lines = service.lines();
    assert!(lines.iter().any(|line| line == "begin nms"), "{lines:?}");
    assert!(run.stderr.contains("import torchvision"), "{}", run.stderr);
    assert!(
        !run.stderr.contains("/proc/self/fd"),
        "the zip is on somebody's path: {}",
        run.stderr
    );
}

#[test]
fn what_did_not_pass_does_not_start() {
    for (script, told) in [
        (json!({"forward float32": {"difference": 0.9}}), "failed {"),
        (json!({"import torch": {"raise": "ImportError"}}), "failed {"),
        (json!({"import spconv": {"exit": 0}}), "failed {"),
        (json!({}), "done"),
    ] {
        for code in [84, 82, 1] {
            let service = Service::acting(script.clone(), json!({"code": code}));
            service.run().exits(code).prints("").says("verdict\n");
            let lines = service.lines();
            assert!(lines.iter().any(|line| line.starts_with(told)), "{lines:?}");
            assert_eq!(lines.last().unwrap(), "ended {\"exit\":0}");
            service.assert_nothing_left();
        }
        // `--mode warn`: the verdict lets it pass.
        let service = Service::acting(script, json!({}));
        service.run().exits(0).prints("service\n");
        service.assert_nothing_left();
    }
    let service = Service::acting(json!({}), json!({"kill": libc::SIGKILL}));
    service.run().exits(128 + libc::SIGKILL).prints("");
}

#[test]
fn cuda_in_the_services_process_is_found_and_its_package_named() {
    for (place, named) in [
        ("import torch", "`import torch`"),
        ("import spconv.pytorch", "`import spconv.pytorch`"),
    ] {
        for code in [0, 84] {
            let service = Service::acting(json!({place: {"cuda": "always"}}), json!({"code": code}));
            let run = service.run();
            run.exits(code).prints(if code == 0 { "service\n" } else { "" });
            let lines = service.lines();
            let last = lines.last().unwrap();
            assert!(last.starts_with("fallback") && last.contains(named), "{last}");
            assert!(
                last.contains("cuDeviceGetCount returned 0 instead of 3"),
                "{last}"
            );
            assert!(!lines.contains(&"ready".to_string()), "{lines:?}");
            service.assert_nothing_left();
        }
    }
    // It is asked of NVML during the imports: then nothing is touched.
    let service = Service::acting(json!({"import torch": {"cuda": "unless nvml"}}), json!({}));
    service.run().exits(0);
    assert_eq!(service.lines().last().unwrap(), "ended {\"exit\":0}");
    // A failed import may have touched it, too.
    let service = Service::acting(
        json!({"import torch": {"cuda": "always", "raise": "ImportError"}}),
        json!({}),
    );
    service.run().exits(0);
    assert!(service.lines().last().unwrap().contains("`import torch`"));
    // So may what runs before us.
    let (service, packages) = in_environment(&pythons()[0]);
    fs::write(
        packages.join("early.pth"),
        "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)\n",
    )
    .unwrap();
    Run::of(service.handed(&["-c", ""]).env_remove("PYTHONPATH")).exits(0);
    assert!(
        service.lines().last().unwrap().contains(".pth"),
        "{:?}",
        service.lines()
    );
    // Loaded alone is no harm.
    fs::write(
        packages.join("early.pth"),
        "import ctypes; ctypes.CDLL('libcuda.so.1')\n",
    )
    .unwrap();
    Run::of(service.handed(&["-c", ""]).env_remove("PYTHONPATH")).exits(0);
    assert_eq!(service.lines().last().unwrap(), "ended {\"exit\":0}");
}

const HANGS: [(&str, &str); 5] = [
    ("import torch", "sleep"),
    ("import torch", "hold"),
    ("import spconv.pytorch", "busy"),
    ("forward float32", "sleep"),
    ("forward float16", "hold"),
];

#[test]
fn the_deadline_ends_every_hang_and_the_verdict_is_given() {
    for (place, hang) in HANGS {
        let service = Service::acting(
            json!({place: {"hang": hang}}),
            json!({"timeout_s": 0.5, "code": 85}),
        );
        service.run().exits(85).prints("").says("verdict\n");
        let lines = service.lines();
        assert_eq!(lines.last().unwrap(), "ended {\"timeout\":true}");
        let begun = &lines[lines.len() - 2];
        let step = place.replace("import spconv.pytorch", "spconv.pytorch");
        assert!(begun.starts_with("begin") && begun.ends_with(&step), "{lines:?}");
        service.assert_nothing_left();
    }
    // `--mode warn`: what hung in the proof does not keep the service from its start, a slow import neither.
    for script in [
        json!({"forward float32": {"hang": "hold"}}),
        json!({"import torch": {"pause": 1.5}}),
        json!({"import torch": {"pause": 0.4}, "forward float16": {"hang": "sleep"}}),
    ] {
        let service = Service::acting(script, json!({"timeout_s": 0.5}));
        service.run().exits(0).prints("service\n");
        // An import that went on may have told its end in the meantime.
        let lines = service.lines();
        assert!(
            lines.contains(&"ended {\"timeout\":true}".to_string()),
            "{lines:?}"
        );
        service.assert_nothing_left();
    }
}

#[test]
fn a_crash_is_a_verdict_too() {
    for signal in [
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGILL,
    ] {
        for place in ["import torch", "import spconv", "init", "forward float16"] {
            let service = Service::acting(json!({place: {"raise_signal": signal}}), json!({"code": 84}));
            service.run().exits(84).prints("").says("Fatal Python error");
            let lines = service.lines();
            assert_eq!(*lines.last().unwrap(), format!("ended {{\"signal\":{signal}}}"));
            assert!(lines[lines.len() - 2].starts_with("begin"), "{lines:?}");
            service.assert_nothing_left();
        }
    }
    // Whatever the verdict: where the service itself has crashed, there is none to start.
    let service = Service::acting(
        json!({"import torch": {"raise_signal": libc::SIGSEGV}}),
        json!({}),
    );
    service.run().exits(128 + libc::SIGSEGV).prints("");
    let service = Service::acting(json!({"init": {"raise_signal": libc::SIGSEGV}}), json!({}));
    service.run().exits(0).prints("service\n");
    // The out-of-memory killer takes the proof.
    let service = Service::acting(
        json!({"init": {"raise_signal": libc::SIGKILL}}),
        json!({"code": 84}),
    );
    service.run().exits(84).prints("");
    assert_eq!(service.lines().last().unwrap(), "ended {\"signal\":9}");
}

#[test]
fn what_the_proof_leaves_behind_is_ended() {
    for how in ["group", "setsid"] {
        for code in [0, 84] {
            for place in ["init", "import torchvision"] {
                let service = Service::acting(
                    json!({place: {"daemon": how}}),
                    json!({"entries": ["torch", "torchvision"], "code": code}),
                );
                let run =
                    Run::of(&mut service.handed(&["-c", "from observe import children; print(children())"]));
                run.exits(code).prints(if code == 0 { "[]\n" } else { "" });
                assert_eq!(service.lines().last().unwrap(), "ended {\"exit\":0}");
                service.assert_nothing_left();
            }
        }
    }
}

#[test]
fn what_the_imports_started_is_the_services() {
    // It would keep our pipes open for a minute.
    let service = Service::acting(json!({"import torch": {"daemon": "group"}}), json!({}));
    let count = "from observe import children; open('count', 'w').write(str(len(children())))";
    let mut command = service.handed(&["-c", count]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running::start_as_is(&mut command).finish().exits(0);
    assert_eq!(service.world.read("app/count").unwrap(), "1");
    service.world.kill_survivors();
}

/// Where a signal may come: the place of a hang, or the verdict.
fn at_rest(service: &Service) -> bool {
    service.world.read("app/here").is_some()
}

fn resting(place: &str, hang: &str) -> Service {
    if place == "verdict" {
        let service = Service::acting(json!({}), json!({"verdict_hangs": true}));
        // It writes this file when it is there.
        return service;
    }
    Service::acting(json!({place: {"note": "here", "hang": hang}}), json!({}))
}

#[test]
fn a_signal_ends_it_and_everything_that_it_started() {
    use Signal::*;
    let mut places = HANGS.to_vec();
    places.push(("verdict", ""));
    for (place, hang) in places {
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGALRM] {
            let service = resting(place, hang);
            let running = service.start();
            assert!(
                eventually(|| at_rest(&service) || service.verdict().is_some()),
                "{place}"
            );
            running.kill(signal);
            running.finish().exits(128 + signal as i32).prints("");
            service.assert_nothing_left();
        }
    }
}

/// The same command as the first process of a namespace.
fn as_pid_1(service: &Service, command: &Command) -> Command {
    let mut wrapped = service.world.command("unshare");
    wrapped
        .args(["--fork", "--pid", "--mount-proc", "--kill-child"])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(service.world.path("app"))
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    wrapped
}

#[test]
fn as_pid_1_no_signal_is_lost() {
    Need::PidNamespace.demand();
    use Signal::*;
    let mut places = HANGS.to_vec();
    places.push(("verdict", ""));
    for (place, hang) in places {
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR2] {
            let service = resting(place, hang);
            let command = service.handed(&["-c", "print('service')"]);
            let running = Running::start(&mut as_pid_1(&service, &command));
            assert!(
                eventually(|| at_rest(&service) || service.verdict().is_some()),
                "{place}"
            );
            kill(children(running.pid())[0], signal);
            running.finish().exits(128 + signal as i32).prints("");
            service.assert_nothing_left();
        }
    }
}

#[test]
fn as_pid_1_it_ends_and_begins_as_elsewhere() {
    Need::PidNamespace.demand();
    let run =
        |service: &Service, arguments: &[&str]| Run::of(&mut as_pid_1(service, &service.handed(arguments)));
    let hello = ["-c", "print('service')"];
    for (place, hang) in HANGS {
        let service = Service::acting(
            json!({place: {"hang": hang}}),
            json!({"timeout_s": 0.5, "code": 85}),
        );
        run(&service, &hello).exits(85).prints("");
        assert_eq!(service.lines().last().unwrap(), "ended {\"timeout\":true}");
    }
    for place in ["import torch", "init"] {
        let service = Service::acting(
            json!({place: {"raise_signal": libc::SIGFPE}}),
            json!({"code": 84}),
        );
        run(&service, &hello).exits(84).prints("");
        assert_eq!(service.lines().last().unwrap(), "ended {\"signal\":8}");
    }
    for daemon in [json!({}), json!({"daemon": "group"}), json!({"daemon": "setsid"})] {
        let service = Service::acting(json!({"init": daemon}), json!({}));
        let plain = Run::of(&mut as_pid_1(&service, &service.plain(&["-c", OBSERVE])));
        let handed = run(&service, &["-c", OBSERVE]);
        same(&plain, &handed, "as PID 1");
        assert_eq!(service.lines().last().unwrap(), "ended {\"exit\":0}");
    }
}

/// `docker exec` and a postStart hook leave processes in the background that become PID 1's; they are nobody's else.
#[test]
fn as_pid_1_a_process_that_came_from_outside_is_left_alone() {
    Need::PidNamespace.demand();
    let service = Service::acting(json!({"init": {"note": "here", "pause": 1}}), json!({}));
    let command = service.handed(&["-c", "from observe import children; print(len(children()))"]);
    let running = Running::start(&mut as_pid_1(&service, &command));
    assert!(eventually(|| at_rest(&service)));
    let target = children(running.pid())[0].to_string();
    let background = "sleep 50 & ";
    let entered = service
        .world
        .command("nsenter")
        .args(["--target", &target, "--pid", "sh", "-c", background])
        .status();
    assert!(entered.unwrap().success());
    running.finish().exits(0).prints("1\n");
}

#[test]
fn at_whatever_moment_a_signal_comes_nothing_is_left() {
    for step in 0..40 {
        let service = Service::acting(json!({}), json!({}));
        let running = Running::start(&mut service.handed(&["-c", "import time; time.sleep(60)"]));
        sleep(Duration::from_millis(4 * step));
        running.kill(Signal::SIGTERM);
        let run = running.finish();
        // Before and after the hand-off the signal does what it does without one.
        let ended = run.code() == Some(143) || run.status.signal() == Some(libc::SIGTERM);
        assert!(ended, "{}\n{}", run.status, run.stderr);
        service.assert_nothing_left();
    }
}

/// Without ctypes there is no machine code: what can be done, is done.
#[test]
fn without_machine_code_python_does_what_it_can() {
    let without = |script: Value, options: Value| {
        let mut service = Service::acting(script, options);
        service
            .world
            .write("without/ctypes.py", "raise ImportError('no libffi')\n");
        service.python = "/usr/bin/python3".into();
        service
    };
    let denied = |service: &Service, mut command: Command| {
        let path = [service.world.path("without").into_os_string(), service.path()];
        command.env("PYTHONPATH", path.join(OsStr::new(":")));
        command
    };
    let handed =
        |service: &Service| Running::start(&mut denied(service, service.handed(&["-c", "print('service')"])));
    let service = without(json!({}), json!({}));
    let plain = Run::of(&mut denied(&service, service.plain(&["-c", OBSERVE])));
    same(
        &plain,
        &Run::of(&mut denied(&service, service.handed(&["-c", OBSERVE]))),
        "without ctypes",
    );
    assert_eq!(service.lines().last().unwrap(), "ended {\"exit\":0}");
    service.assert_nothing_left();

    for place in ["import torch", "forward float32"] {
        let service = without(json!({place: {"note": "here", "hang": "sleep"}}), json!({}));
        let running = handed(&service);
        assert!(eventually(|| at_rest(&service)));
        running.kill(Signal::SIGTERM);
        running.finish().exits(143).prints("");
        service.assert_nothing_left();

        let service = without(
            json!({place: {"hang": "sleep"}}),
            json!({"timeout_s": 0.5, "code": 85}),
        );
        handed(&service).finish().exits(85).prints("");
        service.assert_nothing_left();
    }
    // Killed at last, with its verdict given.
    let service = without(
        json!({"import torch": {"hang": "busy"}}),
        json!({"timeout_s": 0.5, "code": 85}),
    );
    let run = handed(&service).finish();
    assert_eq!(run.signal(), Some(libc::SIGKILL));
    assert_eq!(service.lines().last().unwrap(), "ended {\"timeout\":true}");
    service.assert_nothing_left();
}

/// Nor can the first process of a container be killed: only a hang that lets Python look at signals is ended in time.
#[test]
fn as_pid_1_without_machine_code_a_signal_still_ends_it() {
    Need::PidNamespace.demand();
    for place in ["import torch", "forward float32"] {
        let script = json!({place: {"note": "here", "hang": "sleep"}});
        let service = Service::acting(script, json!({"timeout_s": 60}));
        service
            .world
            .write("without/ctypes.py", "raise ImportError('no libffi')\n");
        let mut command = service.handed(&["-c", "print('service')"]);
        let path = [service.world.path("without").into_os_string(), service.path()];
        command.env("PYTHONPATH", path.join(OsStr::new(":")));
        let running = Running::start(&mut as_pid_1(&service, &command));
        assert!(eventually(|| at_rest(&service)));
        kill(children(running.pid())[0], Signal::SIGTERM);
        running.finish().exits(143).prints("");
        service.assert_nothing_left();
    }
}

#[test]
fn our_own_faults_neither_lose_the_service_nor_let_it_start_unproven() {
    // A smoke that is none.
    let mut service = Service::acting(json!({}), json!({}));
    let broken = service.world.write("broken.py", "def\n");
    for code in [0, 84] {
        service.options = json!({"smoke": broken, "code": code});
        service
            .run()
            .exits(code)
            .prints(if code == 0 { "service\n" } else { "" });
        let lines = service.lines();
        assert!(
            lines
                .last()
                .unwrap()
                .starts_with("fallback {\"reason\":\"SyntaxError: "),
            "{lines:?}"
        );
        service.assert_nothing_left();
    }
    // An executable that is none, and descriptors that are none.
    for (plan, told) in [
        (json!({"binary_fd": 40}), "cannot be executed for its verdict"),
        (json!({"binary_fd": 999}), "cannot be executed for its verdict"),
        (json!({"results_fd": 999}), "cannot tell"),
        (json!({"timeout_s": "soon"}), "the hand-off failed"),
        (json!({"entries": null}), "verdict"),
    ] {
        let service = Service::acting(json!({}), json!({"plan": plan, "code": 70}));
        service.run().exits(70).prints("").says(told);
        service.assert_nothing_left();
    }
    // No process can be started at all, or only the first, which is the keeper.
    for (first, code, told) in [(0, 70, "so did the verdict"), (1, 0, "verdict\n")] {
        let (service, packages) = in_environment(&pythons()[0]);
        let deny = format!(
            "import os; os.forks = {first}\ndef fork(real=os.fork, own=os.getpid()):\n    if os.getpid() == own: \
             os.forks -= 1\n    if os.forks < 0: raise BlockingIOError(11, 'Resource temporarily unavailable')\n    return real()\nos.fork = fork\n"
        );
        fs::write(packages.join("deny.py"), deny).unwrap();
        fs::write(packages.join("deny.pth"), "import deny\n").unwrap();
        let run = Run::of(
            service
                .handed(&["-c", "print('service')"])
                .env_remove("PYTHONPATH"),
        );
        run.exits(code).says(told);
        service.assert_nothing_left();
    }
    // The keeper is gone: the verdict is run without it.
    let service = Service::acting(json!({"import torch": {"note": "here", "pause": 1}}), json!({}));
    let running = service.start();
    assert!(eventually(|| at_rest(&service)));
    kill(children(running.pid())[0], Signal::SIGKILL);
    running.finish().exits(0).prints("service\n");
    assert_eq!(service.lines().last().unwrap(), "ended {\"exit\":0}");
}

#[test]
fn a_wrappers_other_processes_go_on_without_a_proof() {
    let mut service = Service::new(&pythons()[0]);
    service.options = json!({"pid": 1});
    let plain = Run::of(&mut service.plain(&["service.py"]));
    let handed = Run::of(&mut service.handed(&["service.py"]));
    same(&plain, &handed, "another process");
    assert_eq!(service.verdict(), None);
    service.options = json!({"pid": 0});
    Run::of(&mut service.handed(&["service.py"])).exits(0);
    assert!(service.verdict().is_some());
}
