//! The smoke in the service's own Python, through the binary: what the service sees, what is told of a failure, and
//! where the smoke gets a process of its own after all. The ways in which a Python is started are tests/handoff/kinds.rs's.

mod kinds;
mod limits;
mod pythons;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::device::Checked;
use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run, Running, children, eventually, kill, kill_by_number};
use crate::support::sandbox;
use crate::support::scene::Scene;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const HANDED: [&str; 2] = ["--smoke", "handoff"];
const ONLY_STARTS: &str = "print('started')";

/// A scene whose service can say all that it sees: tests/smoke_script/observe.py.
fn observing(scene: Scene) -> Scene {
    let observe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smoke_script/observe.py");
    fs::copy(observe, scene.site().join("observe.py")).unwrap();
    scene.var("LANG", "C.UTF-8")
}

/// `run` of the service that Python's arguments make.
fn run(scene: &Scene, options: &[&str], arguments: &[&str]) -> Checked {
    let python = scene.python();
    scene.run_service(options, &[&[python.as_str()], arguments].concat())
}

fn stderr(ran: &Checked) -> String {
    String::from_utf8_lossy(&ran.output.stderr).into_owned()
}

/// The service sees the same with and without the smoke before it, and the smoke passed.
#[track_caller]
fn same(scene: &Scene, service: &[&str]) -> Value {
    let without = scene.run_service(&["--smoke", "off"], service);
    let with = scene.run_service(&HANDED, service);
    assert_eq!(with.exit(), without.exit(), "{service:?}: {with}");
    assert_eq!(
        with.report["smoke"],
        json!({"mode": "handoff", "status": "passed", "reason": ""}),
        "{with}"
    );
    assert!(stderr(&with).contains("spconv forward OK"), "{with}");
    scene.world.assert_nothing_left();
    let parse = |ran: &Checked| -> Value {
        serde_json::from_slice(&ran.output.stdout)
            .unwrap_or_else(|error| panic!("{service:?}: {error}: {ran}"))
    };
    let (before, after) = (parse(&without), parse(&with));
    for (key, value) in before.as_object().unwrap() {
        assert_eq!(after[key], *value, "{service:?}: {key}");
    }
    assert_eq!(before, after, "{service:?}");
    after
}

#[test]
fn a_service_sees_no_difference() {
    let scene = observing(Scene::new());
    let world = &scene.world;
    world.write("service.py", "from observe import observe\nobserve()\n");
    world.write("package/__init__.py", "");
    world.write("package/__main__.py", "from .inner import observe\nobserve()\n");
    world.write("package/inner.py", "from observe import observe\n");
    let python = scene.python();
    let console = world.program(
        "env/bin/serve",
        format!("#!{python}\nimport sys\nfrom observe import observe\nif __name__ == '__main__':\n    sys.exit(observe())\n"),
    );
    for service in [
        &[&python, "service.py", "--port", "80"][..],
        &[&python, "-u", "-m", "package", "-c", "x"],
        &[
            &python,
            "-X",
            "dev",
            "-c",
            "from observe import observe; observe()",
            "-m",
            "y",
        ],
        &[console.to_str().unwrap(), "--smoke", "off"],
    ] {
        let seen = same(&scene, service);
        // It is the service that was asked: not the smoke, nor the entrypoint.
        let cmdline: Vec<&str> = seen["cmdline"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(cmdline.concat().ends_with(&service[1..].concat()), "{cmdline:?}");
        let environ = seen["environ"].to_string();
        assert!(
            !environ.contains("HANDOFF") && !environ.contains("/proc/self/fd"),
            "{environ}"
        );
        assert!(environ.contains("SPCONV_DISABLE_JIT=1"), "{environ}");
    }
    // By PATH, as a Dockerfile has it.
    let path = format!("{}:/usr/bin:/bin", world.path("env/bin").display());
    let scene = observing(Scene::new()).var("PATH", &path);
    same(&scene, &["serve", "--", "x"]);
}

#[test]
fn the_proof_is_shown_one_device_and_the_service_all_of_them() {
    let acting = |list: &str| {
        let script = format!(r#"{{"init": {{"need": {{"CUDA_VISIBLE_DEVICES": "{list}"}}}}}}"#);
        observing(Scene::acting(&script)).driver(r#"{"devices": [{}, {}]}"#)
    };
    let scene = acting("0");
    let python = scene.python();
    let service = [python.as_str(), "-c", "from observe import observe; observe()"];
    let seen = same(&scene, &service);
    assert!(
        !seen["environ"].to_string().contains("CUDA_VISIBLE_DEVICES="),
        "{seen}"
    );
    // Nor does it lose those that it was given.
    let scene = acting("1").var("CUDA_VISIBLE_DEVICES", "1,0");
    let python = scene.python();
    same(
        &scene,
        &[python.as_str(), "-c", "from observe import observe; observe()"],
    );
}

#[test]
fn a_service_with_processes_of_its_own_sees_no_difference() {
    let scene = observing(Scene::new());
    scene.world.write(
        "spawns.py",
        "if __name__ == '__main__':\n    from observe import observe\n    observe(True, numbers=False)\n",
    );
    same(&scene, &[&scene.python(), "spawns.py"]);
    // A server that forks its workers, each of which uses the GPU.
    let server = "import json, os, torch\n\
                  def work(n):\n    torch.cuda.init()\n    return torch.cuda.device_count() + n\n\
                  found = []\n\
                  for n in range(3):\n    r, w = os.pipe()\n    pid = os.fork()\n    if pid == 0:\n        \
                  os.write(w, b'%d' % work(n))\n        os._exit(0)\n    os.close(w)\n    \
                  found.append([os.read(r, 9).decode(), os.waitpid(pid, 0)[1]])\n    os.close(r)\n\
                  print(json.dumps({'workers': found, 'fds': len(os.listdir('/proc/self/fd'))}))\n";
    scene.world.write("server.py", server);
    let seen = same(&scene, &[&scene.python(), "server.py"]);
    assert_eq!(seen["workers"], json!([["1", 0], ["2", 0], ["3", 0]]));
}

#[test]
fn the_images_own_sitecustomize_is_run_as_ever() {
    let scene = observing(Scene::new());
    let custom = "import os, sys\nsys.own_site = [__name__, __file__, os.environ.get('PYTHONPATH')]\n";
    // In front of the one that Debian has.
    scene.world.write("more/sitecustomize.py", custom);
    let show = "import json, sys; print(json.dumps({'own': sys.own_site, 'path': sys.path}))";
    let scene = scene.var("PYTHONPATH", "{dir}/more");
    let seen = same(&scene, &[&scene.python(), "-c", show]);
    assert_eq!(seen["own"][2], scene.world.path("more").to_str().unwrap());
    same(
        &scene,
        &[&scene.python(), "-c", "from observe import observe; observe()"],
    );
}

/// Variables that Python reads, and a `sitecustomize` of the image's that behaves in every way.
#[test]
fn a_service_sees_no_difference_whatever_its_environment() {
    let observe = "from observe import observe; observe()";
    for (name, value) in [
        ("PYTHONPATH", ""),
        ("PYTHONPATH", ":"),
        ("PYTHONPATH", "relative:/nowhere::{dir}/beside"),
        ("PYTHONPATH", "/proc/self/fd/0"),
        ("PYTHONFAULTHANDLER", "1"),
        ("PYTHONDEVMODE", "1"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONSAFEPATH", "1"),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTORCH_NVML_BASED_CUDA_CHECK", "0"),
    ] {
        let scene = observing(Scene::new()).var(name, value);
        same(&scene, &[&scene.python(), "-c", observe]);
    }
    for own in [
        "import os\nos.environ['OWN'] = 'yes'\n",
        "raise ValueError('of its own')\n",
        "raise ImportError('of something else', name='else')\n",
        "import missing\n",
        "def\n",
        "import sys\nclass Other: __file__ = '/other'; __spec__ = sys.__spec__; __loader__ = (); __name__ = 'o'\n\
         sys.modules['sitecustomize'] = Other\n",
    ] {
        let scene = observing(Scene::new()).var("PYTHONPATH", "{dir}/own");
        scene.world.write("own/sitecustomize.py", own);
        same(&scene, &[&scene.python(), "-c", observe]);
        // Behind the standard library's, if there is one there.
        let scene = observing(Scene::new());
        fs::write(scene.site().join("sitecustomize.py"), own).unwrap();
        same(&scene, &[&scene.python(), "-c", observe]);
    }
    // Without ctypes nobody can ask whether CUDA was touched, and it was not.
    let scene = observing(Scene::new()).var("PYTHONPATH", "{dir}/without");
    scene
        .world
        .write("without/ctypes.py", "raise ImportError('no libffi')\n");
    same(&scene, &[&scene.python(), "-c", observe]);
}

#[test]
fn its_errors_are_its_own() {
    let scene = Scene::new();
    scene.world.write("relative.py", "from .inner import x\n");
    for arguments in [
        &["missing.py"][..],
        &["-m", "missing"],
        &["relative.py"],
        &["-c", "1/0"],
        &["-c", "def"],
        &["-c", "import sys; sys.exit(7)"],
        &["-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"],
        &["-c", "import os; os.abort()"],
    ] {
        let without = run(&scene, &["--smoke", "off", "--init"], arguments);
        let with = run(&scene, &HANDED, arguments);
        assert_eq!(with.exit(), without.exit(), "{arguments:?} {with}");
        // Behind our own lines.
        let own = |ran: &Checked| -> Vec<String> {
            let said = stderr(ran);
            let lines = said.lines().filter(|line| !line.starts_with("cuda-entrypoint: "));
            lines.map(str::to_string).collect()
        };
        assert_eq!(own(&with), own(&without), "{arguments:?}");
    }
}

#[test]
fn imports_find_what_the_services_own_would_find() {
    // A package beside the script comes before the installed one.
    let scene = observing(Scene::new());
    scene.world.write("cumm/__init__.py", "__version__ = 'beside'\n");
    scene.world.write("cumm/include/tensorview/core/all.h", "");
    scene
        .world
        .write("service.py", "from observe import observe\nobserve()\n");
    for arguments in [
        &["service.py"][..],
        &["-m", "service"],
        &["-c", "from observe import observe; observe()"],
    ] {
        let python = scene.python();
        let seen = same(&scene, &[&[python.as_str()], arguments].concat());
        let beside = scene.world.path("cumm/__init__.py").display().to_string();
        assert!(seen["files"].to_string().contains(&beside), "{seen}");
    }
}

#[test]
fn what_the_proof_leaves_behind_is_ended_and_what_the_imports_started_is_not() {
    let count =
        "import os; print(len(open('/proc/%d/task/%d/children' % ((os.getppid(),) * 2)).read().split()))";
    for (place, daemon) in [
        ("forward float32", "group"),
        ("forward float32", "setsid"),
        ("import torchvision", "setsid"),
    ] {
        let scene = observing(Scene::acting(&format!(
            r#"{{"{place}": {{"daemon": "{daemon}"}}}}"#
        )));
        let scene = scene.smoke(json!(["torch", "spconv", "torchvision"]));
        let ran = run(&scene, &HANDED, &["-c", count]);
        assert_eq!(ran.output.stdout, b"1\n", "{ran}");
        scene.world.assert_nothing_left();
    }
    let scene = Scene::acting(r#"{"import torch": {"daemon": "group"}}"#);
    let ran = run(
        &scene,
        &HANDED,
        &["-c", "import os; print(os.waitpid(-1, os.WNOHANG))"],
    );
    assert_eq!(ran.output.stdout, b"(0, 0)\n", "{ran}");
    scene.world.assert_nothing_left();
}

/// A report without what differs between the two ways: times, the mode, and what a process of its own said.
fn comparable(scene: &Scene, ran: &Checked) -> Value {
    let mut report = ran.report.clone();
    report["timing_ms"] = Value::Null;
    report["smoke"]["mode"] = Value::Null;
    timeless(&mut report);
    serde_json::from_str(&scene.readable(&report.to_string())).unwrap()
}

fn timeless(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.remove("said");
            for (key, value) in entries {
                match value {
                    Value::Number(_) if key == "ms" => *value = Value::Null,
                    Value::String(text) if key == "observed" => *text = without_time(text),
                    _ => timeless(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(timeless),
        _ => {}
    }
}

/// What was observed, without how long it took and without what the process said last, which a service's own Python
/// says to the service's own standard error.
fn without_time(text: &str) -> String {
    let text = match text.split_once("; its ") {
        Some((before, after)) => {
            let required = after.find("; required").map_or("", |at| &after[at..]);
            format!("{before}{required}")
        }
        None => text.to_string(),
    };
    match text.rsplit_once(' ') {
        Some((before, "ms" | "s")) => before
            .rsplit_once(' ')
            .map_or("", |(before, _)| before)
            .to_string(),
        _ => text,
    }
}

#[test]
fn a_failure_is_told_as_by_a_smoke_of_its_own() {
    let timeout: &[&str] = &["--smoke-timeout", "2s"];
    for (script, options, exit, code) in [
        ("{}", &[][..], 0, ""),
        (
            r#"{"import torch": {"raise": "ImportError", "message": "libcudart.so.12: cannot open shared object file"}}"#,
            &[],
            84,
            "smoke-import",
        ),
        (
            r#"{"import spconv": {"raise": "RuntimeError", "message": "outer", "cause": "inner"}}"#,
            &[],
            84,
            "smoke-import",
        ),
        (r#"{"import spconv": {"exit": 3}}"#, &[], 84, "smoke-import"),
        (r#"{"import torch": {"leave": 0}}"#, &[], 84, "smoke-import"),
        (
            r#"{"import spconv": {"raise_signal": 11}}"#,
            &[],
            84,
            "smoke-import",
        ),
        (
            r#"{"import torch": {"hang": "sleep"}}"#,
            timeout,
            85,
            "smoke-timeout",
        ),
        (
            r#"{"import spconv": {"hang": "hold"}}"#,
            timeout,
            85,
            "smoke-timeout",
        ),
        (
            r#"{"init": {"raise": "RuntimeError", "message": "Error 802: system not yet initialized"}}"#,
            &[],
            82,
            "smoke-device",
        ),
        (
            r#"{"matmul float32": {"raise": "torch.OutOfMemoryError", "message": "CUDA out of memory"}}"#,
            &[],
            82,
            "smoke-device",
        ),
        (
            r#"{"matmul float16": {"raise": "RuntimeError", "message": "CUDA error: no kernel image is available for execution on the device"}}"#,
            &[],
            84,
            "smoke-forward",
        ),
        (
            r#"{"forward float32": {"difference": 0.5}}"#,
            &[],
            84,
            "smoke-wrong",
        ),
        (
            r#"{"forward float16": {"not_finite": 3}}"#,
            &[],
            84,
            "smoke-wrong",
        ),
        (
            r#"{"forward float32": {"nvrtc": ["a", "b"]}}"#,
            &[],
            84,
            "jit-at-runtime",
        ),
        (
            r#"{"forward float32": {"broken": "CUDA error: an illegal memory access", "raise": "RuntimeError", "message": "CUDA error"}}"#,
            &[],
            84,
            "smoke-forward",
        ),
        (
            r#"{"forward float32": {"raise_signal": 8}}"#,
            &[],
            84,
            "smoke-forward",
        ),
        (
            r#"{"forward float32": {"raise_signal": 9}}"#,
            &[],
            82,
            "smoke-device",
        ),
        (r#"{"forward float16": {"leave": 0}}"#, &[], 84, "smoke-forward"),
        (
            r#"{"forward float16": {"hang": "sleep"}}"#,
            timeout,
            85,
            "smoke-timeout",
        ),
    ] {
        tell!("{script}");
        let scene = Scene::acting(script);
        let service = ["-c", ONLY_STARTS];
        let separate = run(&scene, options, &service);
        let words = scene.world.read("termination");
        let _ = fs::remove_file(scene.world.path("termination"));
        let handed = run(&scene, &[&HANDED, options].concat(), &service);
        assert_eq!(
            (separate.exit(), handed.exit()),
            (exit, exit),
            "{separate}\n{handed}"
        );
        assert_eq!(handed.output.stdout, separate.output.stdout, "{handed}");
        assert_eq!(
            handed.codes("fail"),
            if exit == 0 { vec![] } else { vec![code] },
            "{handed}"
        );
        assert_eq!(
            comparable(&scene, &handed),
            comparable(&scene, &separate),
            "{script}"
        );
        let plain = |words: Option<String>| -> Option<Vec<String>> {
            Some(scene.readable(&words?).lines().map(without_time).collect())
        };
        assert_eq!(plain(scene.world.read("termination")), plain(words), "{script}");
        assert_eq!(
            (&separate.report["smoke"]["mode"], &handed.report["smoke"]["mode"]),
            (&json!("separate"), &json!("handoff"))
        );
        scene.world.assert_nothing_left();
    }
}

#[test]
fn severities_and_mode_warn_are_the_same_too() {
    let scene = Scene::acting(r#"{"forward float32": {"difference": 0.5}}"#);
    let service = ["-c", ONLY_STARTS];
    let warned = run(
        &scene,
        &[&HANDED[..], &["--warn", "smoke-wrong"]].concat(),
        &service,
    );
    assert_eq!(
        (warned.exit(), warned.output.stdout.as_slice()),
        (0, &b"started\n"[..]),
        "{warned}"
    );
    warned.says("smoke-wrong", "warn", ["", "", "", ""]);
    assert_eq!(warned.report["smoke"]["status"], "failed");
    for script in [
        r#"{"forward float32": {"difference": 0.5}}"#,
        r#"{"import torch": {"raise": "ImportError"}}"#,
        r#"{"forward float32": {"hang": "sleep"}}"#,
    ] {
        let scene = Scene::acting(script);
        let options = [&HANDED[..], &["--mode", "warn", "--smoke-timeout", "1s"]].concat();
        let ran = run(&scene, &options, &service);
        assert_eq!(
            (ran.exit(), ran.output.stdout.as_slice()),
            (0, &b"started\n"[..]),
            "{ran}"
        );
        assert_eq!(ran.report["verdict"], "fail");
        assert!(
            stderr(&ran).contains("starting /") && stderr(&ran).contains("mode is warn"),
            "{ran}"
        );
        scene.world.assert_nothing_left();
    }
    // By variables, as a container has them.
    let scene = scene
        .var("CUDA_ENTRYPOINT_SMOKE", "handoff")
        .var("CUDA_ENTRYPOINT_MODE", "warn");
    let ran = run(&scene, &[], &service);
    assert_eq!(
        (ran.exit(), ran.report["smoke"]["mode"].as_str()),
        (0, Some("handoff")),
        "{ran}"
    );
}

#[test]
fn json_logs_and_the_report_are_as_ever() {
    let scene = Scene::new();
    let python = scene.python();
    let mut command = scene.command("run", &[&HANDED[..], &["--format", "json"]].concat());
    let run = Run::of(command.args(["--", &python, "-c", ONLY_STARTS]));
    let log = run.exits(0).prints("started\n").log();
    let last = log.last().unwrap();
    assert_eq!(last["verdict"], "pass");
    let text = last["message"].as_str().unwrap();
    assert!(
        text.contains("spconv forward OK") && text.contains("exec /"),
        "{text}"
    );
    // How long it took counts from the first line on.
    let ran = self::run(
        &Scene::acting(r#"{"import torch": {"pause": 0.5}}"#),
        &HANDED,
        &["-c", ONLY_STARTS],
    );
    assert!(
        ran.report["timing_ms"]["total"].as_f64().unwrap() > 500.0,
        "{}",
        ran.report["timing_ms"]
    );
    assert!(
        ran.report["timing_ms"]["device"].is_number(),
        "{}",
        ran.report["timing_ms"]
    );
}

#[test]
fn what_fails_elsewhere_ends_the_service_before_it_has_begun() {
    let service = ["-c", "open('served', 'w')"];
    let image = Scene::new()
        .manifest(json!({"schema": 1, "name": "t", "packages": {"nowhere": "*"}, "smoke": ["torch"]}));
    let device = Scene::new().driver(r#"{"devices": []}"#);
    let own =
        |script: &str| Scene::new().smoke(json!(["torch", {"name": "own", "argv": ["sh", "-c", script]}]));
    for (scene, exit, code) in [
        (image, 81, "package-missing"),
        (device, 82, "gpu-missing"),
        (own("test ! -e served; exit 7"), 84, "smoke-forward"),
    ] {
        let ran = run(&scene, &HANDED, &service);
        assert_eq!((ran.exit(), ran.codes("fail")), (exit, vec![code]), "{ran}");
        assert!(!scene.world.path("served").exists());
        scene.world.assert_nothing_left();
    }
    // The manifest's own commands are run while the service waits.
    let passes = own("test ! -e served && touch own");
    let ran = run(&passes, &HANDED, &service);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert!(passes.world.path("served").exists() && passes.world.path("own").exists());
    assert!(stderr(&ran).contains("torch OK, own OK"), "{ran}");
    assert_eq!(ran.report["facts"]["smoke"]["commands"][0]["end"], "done");
    // Imports go on while the driver is asked: neither waits for the other.
    let both = Scene::acting(r#"{"import spconv": {"mark": "{dir}/imported"}}"#)
        .driver(r#"{"calls": {"cuInit": {"await": "{dir}/imported"}}}"#);
    let ran = run(&both, &HANDED, &service);
    assert_eq!(
        (ran.exit(), &ran.report["smoke"]["mode"]),
        (0, &json!("handoff")),
        "{ran}"
    );
}

#[test]
fn without_a_gpu_the_imports_are_what_remains() {
    for (scene, options, reason) in [
        (Scene::new(), &["--gpu", "off"][..], "--gpu off"),
        (
            Scene::new().without_driver(),
            &["--gpu", "optional"],
            "no usable GPU (driver-missing)",
        ),
    ] {
        let ran = run(&scene, &[&HANDED, options].concat(), &["-c", ONLY_STARTS]);
        assert_eq!(
            (ran.exit(), ran.output.stdout.as_slice()),
            (0, &b"started\n"[..]),
            "{ran}"
        );
        // The imports are what remains.
        assert_eq!(ran.report["smoke"]["mode"], "handoff", "{ran}");
        let mut skipped = ran
            .findings()
            .into_iter()
            .filter(|f| f["code"] == "smoke-forward");
        assert!(
            skipped.all(|f| f["status"] == "skip" && f["message"].as_str().unwrap().contains(reason)),
            "{ran}"
        );
    }
    for options in [&["--smoke", "off"][..], &HANDED] {
        let scene = Scene::new().manifest(json!({"schema": 1, "name": "t"}));
        let ran = run(&scene, options, &["-c", ONLY_STARTS]);
        assert_eq!(
            (ran.exit(), ran.output.stdout.as_slice()),
            (0, &b"started\n"[..]),
            "{ran}"
        );
    }
}

#[test]
fn what_cannot_be_handed_off_gets_a_process_of_its_own_and_a_line_saying_why() {
    let scene = Scene::new();
    let python = scene.python();
    let shell = scene.world.program(
        "start.sh",
        format!("#!/bin/sh\n:\nexec {python} -c \"{ONLY_STARTS}\"\n"),
    );
    for (service, why) in [
        (&[&python, "-I", "-c", ONLY_STARTS][..], "-E or -I"),
        (&[&python, "-E", "-c", ONLY_STARTS], "-E or -I"),
        (&[&python, "-S", "-c", ONLY_STARTS], "-S"),
        (&["sh", "-c", "echo started"], "sh does not execute Python"),
        (&["./start.sh"], "sh does not execute Python"),
        (&[shell.to_str().unwrap()], "sh does not execute Python"),
        (&["echo", "started"], "not a Python program"),
    ] {
        let exit = i32::from(service.contains(&"-S")) * 84;
        let ran = scene.run_service(&HANDED, service);
        // Without the site module there is no torch for the service either.
        assert_eq!(ran.exit(), exit, "{service:?}: {ran}");
        let said = stderr(&ran);
        let line = said
            .lines()
            .find(|line| line.contains("no hand-off, in a process of its own instead"));
        assert!(line.is_some_and(|line| line.contains(why)), "{service:?}: {said}");
        assert_eq!(ran.report["smoke"]["mode"], "separate", "{ran}");
        if exit == 0 {
            assert_eq!(ran.output.stdout, b"started\n", "{ran}");
            assert!(said.contains("spconv forward OK"), "{ran}");
        }
        scene.world.assert_nothing_left();
    }
    // There is nothing to hand off where there is no service.
    let checked = scene.check(&HANDED);
    assert_eq!(
        (checked.exit(), &checked.report["smoke"]["mode"]),
        (0, &json!("separate")),
        "{checked}"
    );
}

/// A .pth file's line runs before ours, and may start Pythons that inherit everything.
#[test]
fn a_python_that_the_services_own_starts_is_not_the_service() {
    let line = "import os, subprocess, sys; os.environ.get('AGAIN') or subprocess.run([sys.executable, '-c', ''], \
                close_fds=False, env=dict(os.environ, AGAIN='1'))\n";
    for options in [&HANDED[..], &["--smoke", "handoff", "--init"]] {
        let scene = Scene::new();
        std::fs::write(scene.site().join("starts.pth"), line).unwrap();
        let ran = scene.run_service(options, &[&scene.python(), "-c", ONLY_STARTS]);
        assert_eq!(ran.exit(), 0, "{ran}");
        assert_eq!(stderr(&ran).matches("spconv forward OK").count(), 1, "{ran}");
        scene.world.assert_nothing_left();
    }
}

#[test]
fn where_there_is_nothing_to_hand_off_the_service_starts_as_ever() {
    let seen =
        "import os, sys; print(os.environ.get('PYTHONPATH'), sorted(map(int, os.listdir('/proc/self/fd'))))";
    let own = json!([{"name": "own", "argv": ["true"]}]);
    for (smoke, said) in [(json!([]), "ok: "), (own, "own OK")] {
        let scene = Scene::new().smoke(smoke);
        let python = scene.python();
        for service in [
            &[&python, "-c", seen][..],
            &["sh", "-c", "echo $PYTHONPATH; ls /proc/$$/fd"],
        ] {
            let ran = scene.run_service(&HANDED, service);
            assert_eq!(ran.exit(), 0, "{ran}");
            assert!(
                stderr(&ran).contains(said) && !stderr(&ran).contains("service's own Python"),
                "{ran}"
            );
            let unsmoked = scene.run_service(&["--smoke", "off"], service);
            assert_eq!(ran.output.stdout, unsmoked.output.stdout, "{ran}");
            assert_eq!(ran.report["verdict"], "pass", "{ran}");
        }
        scene.world.assert_nothing_left();
    }
}

#[test]
fn a_service_that_has_touched_cuda_gets_a_smoke_of_its_own() {
    for (forward, exit) in [("{}", 0), (r#"{"difference": 0.5}"#, 84)] {
        let scene = Scene::acting(&format!(
            r#"{{"import spconv": {{"cuda": "always"}}, "forward float32": {forward}}}"#
        ));
        let ran = run(&scene, &HANDED, &["-c", ONLY_STARTS]);
        assert_eq!(ran.exit(), exit, "{ran}");
        assert_eq!(
            ran.output.stdout,
            if exit == 0 { &b"started\n"[..] } else { b"" },
            "{ran}"
        );
        let said = stderr(&ran);
        let line = said
            .lines()
            .find(|line| line.contains("no hand-off, in a process of its own instead"));
        assert!(line.is_some_and(|line| line.contains("spconv")), "{said}");
        assert_eq!(ran.report["smoke"]["mode"], "separate", "{ran}");
        assert_eq!(
            ran.report["smoke"]["status"],
            if exit == 0 { "passed" } else { "failed" }
        );
        scene.world.assert_nothing_left();
    }
    // With the manifest's own commands, which are not run again.
    let scene = Scene::acting(r#"{"import spconv": {"cuda": "always"}}"#)
        .smoke(json!(["torch", "spconv", {"name": "own", "argv": ["sh", "-c", "echo own >>runs"]}]));
    let ran = run(&scene, &HANDED, &["-c", ONLY_STARTS]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert_eq!(scene.world.read("runs").unwrap(), "own\n");
    assert!(stderr(&ran).contains("spconv forward OK, own OK"), "{ran}");
    assert_eq!(
        ran.report["facts"]["smoke"]["commands"].as_array().unwrap().len(),
        1
    );
}

/// The command with something taken away from it.
#[allow(unsafe_code)] // between fork and exec: the sandbox makes system calls alone
fn under(mut command: Command, refuse: fn()) -> Command {
    // SAFETY: the sandbox allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            refuse();
            Ok(())
        });
    }
    command
}

/// What a sandbox or a limit takes away leads to a smoke of its own, with a line, or makes no difference.
#[test]
fn what_is_refused_has_its_line_or_makes_no_difference() {
    type Refused = (&'static str, fn(), Option<&'static str>);
    let rows: [Refused; 4] = [
        ("no memory file", sandbox::no_memfd, Some("memory file")),
        ("no tracing", sandbox::no_ptrace, None),
        ("no process group", sandbox::no_setpgid, None),
        ("few descriptors", sandbox::twenty_descriptors, Some("EMFILE")),
    ];
    for (name, refuse, why) in rows {
        let fails = Scene::acting(r#"{"forward float32": {"difference": 0.5}}"#);
        let python = fails.python();
        let mut command = fails.command("run", &HANDED);
        command.args(["--", &python, "-c", ONLY_STARTS]);
        let run = Run::of(&mut under(command, refuse));
        run.exits(84).prints("").says("smoke-wrong");
        fails.world.assert_nothing_left();
        let scene = Scene::new();
        let python = scene.python();
        let mut command = scene.command("run", &HANDED);
        command.args(["--", &python, "-c", ONLY_STARTS]);
        let run = Run::of(&mut under(command, refuse));
        tell!("{name}: {}", run.stderr);
        run.exits(0).prints("started\n").says("spconv forward OK");
        match why {
            Some(why) => run.says("no hand-off, in a process of its own instead").says(why),
            None => run.does_not_say("no hand-off"),
        };
        scene.world.assert_nothing_left();
    }
}

#[test]
fn a_variable_that_is_too_long_for_both_is_the_services_alone() {
    // execve(2) takes 131,072 bytes of one string; the zip's path in front makes it longer.
    let long = format!("/{}", "x".repeat(131_072 - "PYTHONPATH=".len() - 2));
    let scene = Scene::new().var("PYTHONPATH", &long);
    let show = "import os; print(len(os.environ['PYTHONPATH']))";
    let ran = run(&scene, &HANDED, &["-c", show]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert_eq!(ran.output.stdout, format!("{}\n", long.len()).as_bytes(), "{ran}");
    assert!(
        stderr(&ran)
            .contains("no hand-off, in a process of its own instead: it could not be started: exec: E2BIG")
    );
}

/// The out-of-memory killer takes the service while it imports, or an import finds no memory: as in a process of its own.
#[test]
fn memory_that_is_short_has_a_verdict() {
    for script in [
        r#"{"import spconv": {"raise_signal": 9}}"#,
        r#"{"import torch": {"raise": "MemoryError"}}"#,
        r#"{"forward float32": {"raise_signal": 9}}"#,
    ] {
        let scene = Scene::acting(script);
        let separate = run(&scene, &[], &["-c", ONLY_STARTS]);
        let handed = run(&scene, &HANDED, &["-c", ONLY_STARTS]);
        assert_eq!(
            (handed.exit(), handed.codes("fail")),
            (separate.exit(), separate.codes("fail")),
            "{handed}"
        );
        assert!([82, 84].contains(&handed.exit()), "{handed}");
        assert!(!stderr(&handed).contains("Traceback"), "{handed}");
        assert!(scene.last_words().contains("smoke"), "{}", scene.last_words());
        scene.world.assert_nothing_left();
    }
}

#[test]
fn a_terminal_is_shown_how_far_it_is() {
    Need::Script.demand();
    let scene = Scene::acting(r#"{"import spconv": {"pause": 1.6}}"#);
    let python = scene.python();
    let mut command = scene.world.command("script");
    let line = scene.command("run", &HANDED);
    let words: Vec<String> = std::iter::once(line.get_program())
        .chain(line.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let line = format!("{} -- {python} -c 'pass'", words.join(" "));
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm");
    scene.equip(&mut command);
    let run = Run::of(&mut command);
    assert!(run.text().contains("smoke: import spconv"), "{}", run.text());
}

#[test]
fn waiting_smokes_again_in_a_process_of_its_own() {
    let busy = r#"{"raise": "RuntimeError", "message": "CUDA error: CUDA-capable device(s) is/are busy or unavailable"}"#;
    let script = format!(r#"{{"init": [{busy}, {busy}, {{}}], "state": "{{dir}}/state"}}"#);
    let scene = Scene::acting(&script);
    let ran = run(
        &scene,
        &[&HANDED[..], &["--wait", "60s"]].concat(),
        &["-c", ONLY_STARTS],
    );
    assert_eq!(
        (ran.exit(), ran.output.stdout.as_slice()),
        (0, &b"started\n"[..]),
        "{ran}"
    );
    assert!(stderr(&ran).contains("waiting up to"), "{ran}");
    assert_eq!(ran.report["smoke"]["status"], "passed", "{ran}");
    scene.world.assert_nothing_left();
    let scene = Scene::acting(&format!(r#"{{"init": {busy}}}"#));
    let ran = run(
        &scene,
        &[&HANDED[..], &["--wait", "1s"]].concat(),
        &["-c", ONLY_STARTS],
    );
    assert_eq!(
        (ran.exit(), ran.codes("fail")),
        (82, vec!["smoke-device"]),
        "{ran}"
    );
    let scene = Scene::acting(&script);
    assert_eq!(run(&scene, &HANDED, &["-c", ONLY_STARTS]).exit(), 82);
}

// Signals

/// Scenes that come to a halt, which they tell by the file `here`.
fn halting() -> Vec<(&'static str, Scene)> {
    let at = |place: &str, hang: &str| {
        Scene::acting(&format!(
            r#"{{"{place}": {{"mark": "{{dir}}/here", "hang": "{hang}"}}}}"#
        ))
    };
    vec![
        ("an import", at("import spconv", "sleep")),
        ("an import with the lock held", at("import spconv", "hold")),
        ("the proof", at("forward float32", "sleep")),
        (
            "a smoke of its own",
            Scene::acting(
                r#"{"import torch": {"cuda": "always"}, "init": {"mark": "{dir}/here", "hang": "sleep"}}"#,
            ),
        ),
    ]
}

#[track_caller]
fn ended(scene: &Scene, what: &str, run: &Run, signal: Signal, since: Instant) {
    let took = since.elapsed();
    // `docker stop` gives ten seconds.
    assert!(took < Duration::from_secs(8), "{what}: {took:?}");
    assert_eq!(
        run.code(),
        Some(128 + signal as i32),
        "{what} {signal}: {} {}",
        run.status,
        run.stderr
    );
    run.prints("");
    scene.world.assert_nothing_left();
}

#[test]
fn a_signal_ends_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for (what, scene) in halting() {
            let python = scene.python();
            let running =
                Running::start(
                    scene
                        .command("run", &HANDED)
                        .args(["--", &python, "-c", ONLY_STARTS]),
                );
            assert!(eventually(|| scene.world.path("here").exists()), "{what}");
            let since = Instant::now();
            running.kill(signal);
            ended(&scene, what, &running.finish(), signal, since);
        }
    }
}

/// `unshare` with the entrypoint as PID 1 of a namespace of its own.
fn as_pid_1(scene: &Scene, options: &[&str]) -> Command {
    let mut command = scene.world.command("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "--kill-child", ENTRYPOINT]);
    command.args(scene.command("run", options).get_args());
    scene.equip(&mut command);
    command
}

#[test]
fn as_pid_1_a_signal_ends_it() {
    Need::PidNamespace.demand();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for (what, scene) in halting() {
            let python = scene.python();
            let running = Running::start(as_pid_1(&scene, &HANDED).args(["--", &python, "-c", ONLY_STARTS]));
            assert!(eventually(|| scene.world.path("here").exists()), "{what}");
            let init = running.child_that(|pid| !children(pid).is_empty());
            let since = Instant::now();
            kill(init, signal);
            ended(&scene, what, &running.finish(), signal, since);
        }
    }
}

/// Before the service is told to go on a signal ends the checks; from then on it is the service's.
#[test]
fn at_whatever_moment_a_signal_comes_it_is_neither_lost_nor_doubled() {
    let count = "import os, signal, sys, time\n\
                 signal.signal(signal.SIGRTMAX, lambda *_: (print('got', flush=True), time.sleep(0.05), os._exit(7)))\n\
                 time.sleep(60)\n";
    for step in 0..24 {
        let scene = Scene::new();
        let python = scene.python();
        let running = Running::start(scene.command("run", &HANDED).args(["--", &python, "-c", count]));
        std::thread::sleep(Duration::from_millis(15 * step));
        kill_by_number(running.pid(), 64);
        let run = running.finish();
        match (run.code(), run.signal()) {
            (Some(7), _) => run.prints("got\n"),
            // Ended the checks, or the service that has no handler yet.
            (Some(192), _) => run.prints(""),
            // The first lines of `main` were still to come.
            (None, Some(64)) => run.prints(""),
            other => panic!("{step}: {other:?} {}", run.stderr),
        };
        scene.world.assert_nothing_left();
    }
}

#[test]
fn as_pid_1_the_deadline_ends_every_hang() {
    Need::PidNamespace.demand();
    for (place, hang) in [
        ("import torch", "hold"),
        ("import spconv", "sleep"),
        ("forward float32", "hold"),
    ] {
        let scene = Scene::acting(&format!(r#"{{"{place}": {{"hang": "{hang}"}}}}"#));
        let python = scene.python();
        let options = [&HANDED[..], &["--smoke-timeout", "2s"]].concat();
        let run = Run::of(as_pid_1(&scene, &options).args(["--", &python, "-c", ONLY_STARTS]));
        run.exits(85).prints("").says("smoke-timeout").says("hangs in");
        assert!(
            scene.last_words().starts_with("smoke-timeout (exit 85): "),
            "{}",
            scene.last_words()
        );
        scene.world.assert_nothing_left();
    }
}

#[test]
fn as_pid_1_nothing_is_there_but_the_service_and_its_supervisor() {
    Need::PidNamespace.demand();
    for (place, daemon) in [
        ("import torch", "group"),
        ("forward float32", "group"),
        ("forward float32", "setsid"),
    ] {
        let scene = Scene::acting(&format!(r#"{{"{place}": {{"daemon": "{daemon}"}}}}"#));
        let python = scene.python();
        let show = "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]), os.getppid(), len(os.listdir('/proc/self/fd')))";
        let plain = Run::of(as_pid_1(&scene, &["--smoke", "off"]).args(["--", &python, "-c", show]));
        let descriptors = plain.text().trim().rsplit(' ').next().unwrap();
        let run = Run::of(as_pid_1(&scene, &HANDED).args(["--", &python, "-c", show]));
        // What its imports have started is its own, and ended with it.
        let count = 2 + usize::from(place == "import torch");
        run.exits(0)
            .prints(&format!("{count} 1 {descriptors}\n"))
            .says("spconv forward OK");
        scene.world.assert_nothing_left();
    }
}
