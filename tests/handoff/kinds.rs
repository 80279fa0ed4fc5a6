//! The ways in which a service's Python is started, each with a smoke that fails and with one that passes: whatever the way,
//! nothing starts unproven, and what cannot be handed off has a line that says why.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run};
use crate::support::scene::{Scene, base_python, version};
use crate::support::surroundings;

/// One way, in a scene of its own.
struct Kind {
    name: &'static str,
    scene: Scene,
    service: Vec<String>,
    /// part of the line that says why there was no hand-off; `None` where there was one
    why: Option<&'static str>,
}

const APP: &str = "open('served', 'a').write('served\\n')\n";

fn scene(smoke: &str) -> Scene {
    let scene = Scene::acting(smoke);
    scene.world.write("app.py", APP);
    scene.world.write("package/__init__.py", "");
    scene.world.write("package/__main__.py", APP);
    scene.world.write("folder/__main__.py", APP);
    scene
}

/// What is prepared in a scene's folder for a way; `{python}` and `{dir}` stand for the interpreter and the folder.
enum With {
    Nothing,
    /// a script that may be executed
    Script(&'static str),
    /// a line of code in a `.pth` file
    Pth(&'static str),
    /// the same, with a module `early` that it imports
    Early(&'static str),
    /// a variable of the container
    Variable(&'static str, &'static str),
    /// another program under the name of `env/bin/python3.9`
    Program(&'static str),
    /// a second environment
    Other,
}
use With::*;

type Row = (&'static str, With, &'static [&'static str], Option<&'static str>);

const OTHER_PATH: Option<&str> = Some("another PYTHONPATH");
/// How a shell's script is started.
const SHELL: Option<&str> = Some("sh does not execute Python before anything else");
const IGNORED: Option<&str> = Some("-E or -I");

const RE_EXEC: &str = "import os, sys\nif 'AGAIN' not in os.environ:\n    os.environ['AGAIN'] = '1'\n    \
                       os.execv(sys.executable, [sys.executable, *OPTIONS, *open('/proc/self/cmdline').read().split(chr(0))[1:-1]])\n";

/// Of 48 such ways 16 started the service unproven when its process was trusted to come to its proof by itself.
#[rustfmt::skip] // a row a line
const ROWS: &[Row] = &[
    // Its Python answers.
    ("a script", Nothing, &["{python}", "app.py"], None),
    ("a module", Nothing, &["{python}", "-m", "package"], None),
    ("a command", Nothing, &["{python}", "-c", APP], None),
    ("a folder", Nothing, &["{python}", "folder"], None),
    ("options", Nothing, &["{python}", "-u", "-X", "dev", "-W", "ignore", "-sB", "app.py", "-I"], None),
    ("a console script", Script("#!{python}\n{app}"), &["./start"], None),
    ("env", Script("#!/usr/bin/env -S {python} -u\n{app}"), &["./start"], None),
    ("a long #! line", Script("#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''\n{app}"), &["./start"], None),
    ("a relocatable #! line", Script("#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'env/bin/python' \"$0\" \"$@\"\n' '''\n{app}"), &["./start"], None),
    ("a PYTHONPATH", Variable("PYTHONPATH", "/x::{dir}"), &["{python}", "app.py"], None),
    ("an empty one", Variable("PYTHONPATH", ""), &["{python}", "app.py"], None),
    ("no user site", Variable("PYTHONNOUSERSITE", "1"), &["{python}", "app.py"], None),
    ("a safe path", Variable("PYTHONSAFEPATH", "1"), &["{python}", "app.py"], None),
    ("dev mode", Variable("PYTHONDEVMODE", "1"), &["{python}", "app.py"], None),
    ("no codec but C's", Variable("LC_ALL", "C"), &["{python}", "app.py"], None),
    // What executes it in its own place.
    ("env", Nothing, &["env", "A=1", "{python}", "app.py"], None),
    ("nice", Nothing, &["nice", "-n", "1", "{python}", "app.py"], None),
    ("several", Nothing, &["env", "nohup", "stdbuf", "-o", "L", "nice", "{python}", "-u", "app.py"], None),
    ("a shell that executes it", Nothing, &["sh", "-c", "cd . && exec {python} app.py"], None),
    ("a shell that names it", Nothing, &["bash", "-c", "exec -a service {python} app.py"], Some("its Python is that of")),
    ("a start script", Script("#!/bin/sh\n# Starts it.\nset -eu\nexport A=\"$PATH\"\nexec {python} app.py\n"), &["./start"], None),
    ("a start script of bash's", Script("#!/usr/bin/env bash\nset -euo pipefail\nexec \\\n  \"$@\"\n"), &["./start", "{python}", "app.py"], None),
    ("a script for a shell", Script("exec {python} app.py \"$@\"\n"), &["sh", "start", "x"], None),
    ("a script that starts a script", Script("#!/bin/sh\nexec sh -c 'exec \"$@\"' name \"$@\"\n"), &["./start", "{python}", "app.py"], SHELL),
    // Code of the image's comes first, and cannot do anything about it.
    ("a .pth line that starts Pythons", Pth("import subprocess, sys; subprocess.run([sys.executable, '-Sc', ''], close_fds=False)"), &["{python}", "app.py"], None),
    ("another sitecustomize in front", Early("import sys; sys.path.insert(0, 'first')"), &["{python}", "app.py"], None),
    ("sitecustomize imported early", Pth("import sitecustomize"), &["{python}", "app.py"], None),
    ("a finder in front", Early("import sys\nclass F:\n    def find_spec(self, name, path=None, target=None): pass\nsys.meta_path.insert(0, F())"), &["{python}", "app.py"], None),
    ("environment changed", Pth("import os; os.environ['PYTHONPATH'] = '/y'; os.environ['HOME'] = '/z'"), &["{python}", "app.py"], None),
    ("signals ignored", Pth("import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"), &["{python}", "app.py"], None),
    // It can, and is found out.
    ("finders replaced", Early("import sys; sys.meta_path[:] = [f for f in sys.meta_path if isinstance(f, type)]"), &["{python}", "app.py"], Some("begins before sitecustomize")),
    ("a sitecustomize that is there", Pth("import sys; sys.modules['sitecustomize'] = sys"), &["{python}", "app.py"], Some("begins before sitecustomize")),
    ("the same with -m", Pth("import sys; sys.modules['sitecustomize'] = sys"), &["{python}", "-m", "package"], Some("begins before sitecustomize")),
    ("the same with -c", Pth("import sys; sys.modules['sitecustomize'] = sys"), &["{python}", "-c", APP], Some("begins before sitecustomize")),
    ("executed again", Early(RE_EXEC), &["{python}", "app.py"], Some("has executed another program")),
    ("executed again with -I", Early(RE_EXEC), &["{python}", "-u", "app.py"], Some("has executed another program")),
    ("a fork of which both go on", Early("import os, time\nif HANDED and os.fork(): time.sleep(1)"), &["{python}", "app.py"], Some("forked by what ran before")),
    ("a fork of which the child goes on", Early("import os\nif HANDED:\n    if os.fork(): os._exit(0)\n    os.setsid()"), &["{python}", "app.py"], Some("forked by what ran before|ended with status 0")),
    ("a fork that outlives it", Early("import os, sys, time\nif HANDED and os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\nif HANDED: sys.modules['sitecustomize'] = sys"), &["{python}", "app.py"], Some("begins before sitecustomize")),
    ("a fork in between", Early("import os\nif os.fork(): os._exit(os.wait()[1] >> 8)"), &["{python}", "app.py"], Some("forked by what ran before")),
    ("descriptors closed", Pth("import os; os.closerange(4, 1024)"), &["{python}", "app.py"], Some("instead: it ")),
    ("no process for the proof", Pth("import os; os.fork = lambda: (_ for _ in ()).throw(BlockingIOError(11, 'Resource temporarily unavailable'))"), &["{python}", "app.py"], Some("no process can be made for the proof")),
    ("an end", Early("import os, sys\nif sys.flags.dev_mode: os._exit(3)"), &["{python}", "-X", "dev", "-c", "pass"], Some("ended with status 3")),
    // PYTHONPATH does not come through.
    ("#! env with another", Script("#!/usr/bin/env -S PYTHONPATH=/app {python}\n{app}"), &["./start"], OTHER_PATH),
    ("#! env without", Script("#!/usr/bin/env -S -u PYTHONPATH {python}\n{app}"), &["./start"], OTHER_PATH),
    ("#! env with nothing", Script("#!/usr/bin/env -S -i {python}\n{app}"), &["./start"], OTHER_PATH),
    ("#! env with letters", Script("#!/usr/bin/env -S -vi LANG=C {python}\n{app}"), &["./start"], OTHER_PATH),
    ("#! env with a long option", Script("#!/usr/bin/env --split-string=--ignore-environment {python}\n{app}"), &["./start"], OTHER_PATH),
    ("env -i", Nothing, &["env", "-i", "{python}", "app.py"], OTHER_PATH),
    ("env that sets it", Nothing, &["env", "PYTHONPATH=/app", "{python}", "app.py"], OTHER_PATH),
    ("a shell that sets it", Nothing, &["sh", "-c", "PYTHONPATH=/app; exec {python} app.py"], OTHER_PATH),
    ("a program by the name of Python", Program("/usr/bin/env"), &["env/bin/python3.9", "-i", "{python}", "app.py"], OTHER_PATH),
    // It is ignored.
    ("-I", Nothing, &["{python}", "-I", "app.py"], IGNORED),
    ("-E", Nothing, &["{python}", "-uE", "app.py"], IGNORED),
    ("#! -I", Script("#!{python} -I\n{app}"), &["./start"], IGNORED),
    ("#! env -I", Script("#!/usr/bin/env -S {python} -BI\n{app}"), &["./start"], IGNORED),
    ("a long #! line with -I", Script("#!/bin/sh\n'''exec' '{python}' -I \"$0\" \"$@\"\n' '''\n{app}"), &["./start"], IGNORED),
    ("a long #! line with -E", Script("#!/bin/sh\n'''exec' '{python}' -sE \"$0\" \"$@\"\n' '''\n{app}"), &["./start"], IGNORED),
    ("-I behind a long option", Nothing, &["{python}", "--check-hash-based-pycs", "never", "-I", "app.py"], IGNORED),
    ("-E behind one", Nothing, &["{python}", "--check-hash-based-pycs", "default", "-uE", "app.py"], IGNORED),
    // Something is in between, or it is no Python.
    ("a shell", Nothing, &["sh", "-c", "{python} app.py"], SHELL),
    ("a shell that does something first", Nothing, &["sh", "-c", "echo x >first; exec {python} app.py"], SHELL),
    ("a shell script", Script("#!/bin/sh\n{python} app.py\n"), &["./start"], SHELL),
    ("a shell script that does something first", Script("#!/bin/sh\ntouch first\nexec {python} app.py\n"), &["sh", "start"], SHELL),
    ("a shell that sends its Python away", Nothing, &["sh", "-c", "exec {python} app.py & wait"], SHELL),
    ("a shell with -I", Nothing, &["sh", "-c", "exec {python} -I app.py"], IGNORED),
    ("a shell with -I in the dark", Variable("OPTIONS", "-I"), &["sh", "-c", "exec {python} $OPTIONS app.py"], IGNORED),
    ("timeout", Nothing, &["timeout", "60", "{python}", "app.py"], Some("timeout starts its Python as a process of its own")),
    ("setsid", Nothing, &["setsid", "-w", "{python}", "app.py"], Some("setsid starts its Python as a process of its own")),
    ("a program that forks", Program("/usr/bin/timeout"), &["env/bin/python3.9", "60", "{python}", "app.py"], Some("starts another process")),
    ("a silent one", Program("/usr/bin/sleep"), &["env/bin/python3.9", "0.1s", "4"], Some("did not say a word")),
    ("one that ends", Program("/usr/bin/true"), &["env/bin/python3.9"], Some("ended with status 0")),
    ("another environment", Other, &["{dir}/other/bin/python", "app.py"], Some("that was looked at")),
];

fn kind((name, with, service, why): &Row, smoke: &str) -> Kind {
    let mut scene = scene(smoke);
    let python = scene.python();
    let dir = scene.world.path("").display().to_string();
    let place = |text: &str| {
        let text = text.replace("{python}", &python).replace("{app}", APP);
        text.replace("{dir}", dir.trim_end_matches('/'))
    };
    let pth = |line: &str| fs::write(scene.site().join("early.pth"), format!("{line}\n")).unwrap();
    match with {
        Nothing => {}
        Script(text) => {
            scene.world.program("start", place(text));
        }
        Pth(line) => pth(line),
        Early(module) => {
            let options = if name.ends_with("-I") { "['-I']" } else { "[]" };
            // Whether this is the process that is to prove, by what its environment was.
            let before = format!(
                "OPTIONS = {options}\nHANDED = b'PYTHONPATH=/proc/' in open('/proc/self/environ', 'rb').read()\n"
            );
            scene.world.write("first/sitecustomize.py", "");
            fs::write(scene.site().join("early.py"), format!("{before}{module}\n")).unwrap();
            pth("import early");
        }
        Variable(variable, value) => scene = scene.var(variable, value),
        Program(path) => {
            scene.world.copy(Path::new(path), "env/bin/python3.9");
            // It is no Python that could be smoked with.
            scene = scene.var("CUDA_ENTRYPOINT_PYTHON", "{dir}/env");
        }
        Other => {
            scene.install("other");
            scene = scene.var("CUDA_ENTRYPOINT_PYTHON", "{dir}/env");
        }
    }
    Kind {
        name,
        service: service.iter().map(|word| place(word)).collect(),
        scene,
        why: *why,
    }
}

impl Kind {
    fn run(&self, as_pid_1: bool) -> Run {
        let inner = self.scene.command("run", &["--smoke", "handoff"]);
        let mut command = if as_pid_1 {
            let mut outer = self.scene.world.command("unshare");
            outer.args(["--fork", "--pid", "--mount-proc", "--kill-child", ENTRYPOINT]);
            self.scene.equip(&mut outer);
            outer.args(inner.get_args());
            outer
        } else {
            inner
        };
        Run::of(command.arg("--").args(&self.service))
    }

    fn served(&self) -> usize {
        let served = self.scene.world.read("served").unwrap_or_default();
        served.lines().count()
    }

    /// What was wrong with the line that says why there was no hand-off.
    fn wrong_reason(&self, run: &Run) -> Option<String> {
        let mut lines = run.stderr.lines();
        let line = lines.find(|line| line.contains("no hand-off, in a process of its own instead"));
        let right = match self.why {
            None => line.is_none(),
            Some(why) => line.is_some_and(|line| why.split('|').any(|why| line.contains(why))),
        };
        (!right).then(|| format!("{line:?} instead of {:?}", self.why))
    }
}

/// Tries all rows and tells what was wrong with each.
#[track_caller]
fn each(smoke: &str, as_pid_1: bool, wrong: impl Fn(&Kind, &Run) -> Option<String>) {
    let mut all = String::new();
    for row in ROWS {
        let kind = kind(row, smoke);
        let run = kind.run(as_pid_1);
        let left = kind.scene.world.survivors(&[]);
        let wrong = wrong(&kind, &run)
            .or_else(|| kind.wrong_reason(&run))
            .or_else(|| (!left.is_empty()).then(|| format!("left behind: {left:?}")));
        kind.scene.world.kill_survivors();
        if let Some(wrong) = wrong {
            all.push_str(&format!("{}: {wrong}\n{}\n", kind.name, run.stderr));
        }
    }
    assert!(all.is_empty(), "{all}");
}

/// Never started unproven: a smoke that fails has its verdict, and no line of the service's own code has run.
#[track_caller]
fn refused(as_pid_1: bool) {
    each(
        r#"{"forward float32": {"difference": 0.5}}"#,
        as_pid_1,
        |kind, run| {
            let words = kind.scene.world.read("termination").unwrap_or_default();
            let told = words.starts_with("smoke-wrong (exit 84): ") && run.stderr.contains("smoke-wrong");
            let found = (run.code(), kind.served(), told);
            (found != (Some(84), 0, true)).then(|| format!("{found:?}"))
        },
    );
}

#[test]
fn none_starts_unproven() {
    refused(false);
}

#[test]
fn as_pid_1_none_starts_unproven() {
    Need::PidNamespace.demand();
    refused(true);
}

/// A smoke that passes is run once, and the service starts.
#[track_caller]
fn started(as_pid_1: bool) {
    each(r#"{"init": {"note": "{dir}/proofs"}}"#, as_pid_1, |kind, run| {
        let serves = !matches!(kind.name, "a silent one" | "one that ends" | "an end");
        let code = if kind.name == "an end" { 3 } else { 0 };
        let proofs = kind.scene.world.read("proofs").unwrap_or_default();
        let said = run.stderr.matches("spconv forward OK").count();
        let found = (run.code(), kind.served(), proofs.lines().count(), said);
        (found != (Some(code), usize::from(serves), 1, 1)).then(|| format!("{found:?}"))
    });
}

#[test]
fn all_start_with_one_proof() {
    started(false);
}

#[test]
fn as_pid_1_all_start_with_one_proof() {
    Need::PidNamespace.demand();
    started(true);
}

/// The other environments that a manifest's Python may be told apart from.
#[test]
fn the_interpreter_that_was_asked_for_counts() {
    // The same one by another name is no other.
    let scene = scene("{}");
    let real = format!("{} of Python {}", base_python().display(), version());
    for python in ["env", "env/bin/python", "{dir}/env/bin/../bin/python3"] {
        let python = python.replace(
            "{dir}",
            scene.world.path("").to_str().unwrap().trim_end_matches('/'),
        );
        let ran = scene.run_service(
            &["--smoke", "handoff", "--python", &python],
            &[&scene.python(), "app.py"],
        );
        assert_eq!(
            (ran.exit(), &ran.report["smoke"]["mode"]),
            (0, &json!("handoff")),
            "{real}: {ran}"
        );
    }
}

/// As execve(2) may be given them: a string without `=`, a variable twice, one that is not UTF-8.
#[test]
fn an_environment_that_no_shell_makes_comes_through() {
    let scene = scene("{}");
    let python = scene.python();
    let inner = scene.command("run", &["--smoke", "handoff"]);
    let show = "import os, sys; sys.stdout.buffer.write(open('/proc/self/environ', 'rb').read().replace(b'\\0', b'\\n'))";
    let odd = "import ctypes, os, sys\n\
               strings = [os.fsencode(k + '=' + v) for k, v in os.environ.items()] + [b'ODD', b'A=1', b'A=2', b'RAW=\\xff', b'PYTHONPATH=/\\xff']\n\
               array = lambda all: (ctypes.c_char_p * (len(all) + 1))(*all)\n\
               argv = [os.fsencode(a) for a in sys.argv[1:]]\n\
               ctypes.CDLL(None).execve(argv[0], array(argv), array(strings))\n";
    let mut command = Command::new(base_python());
    command
        .args(["-c", odd])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.args(["--", &python, "-c", show]);
    surroundings::keep(command.env_clear()).current_dir(scene.world.path(""));
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Run::of(&mut command);
    run.exits(0).says("spconv forward OK").does_not_say("no hand-off");
    let lines: Vec<&[u8]> = run.stdout.split(|&b| b == b'\n').collect();
    for line in [&b"ODD"[..], b"A=1", b"A=2", b"RAW=\xff"] {
        assert!(lines.contains(&line), "{}", String::from_utf8_lossy(&run.stdout));
    }
}
