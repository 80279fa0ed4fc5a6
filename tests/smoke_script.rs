//! The smoke's Python program by itself: what it writes when packages work, fail, lie, leave or crash.
//!
//! Most packages are the fakes of tests/fakes/python, which act out a script and compute nothing. What the program
//! computes is proven with those of tests/fakes/numeric, whose kernels are plain loops, and by `make test-stack` with
//! real ones.

pub mod source;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::run::{Run, Running, World, children, eventually};
use cuda_entrypoint::facts::smoke::{SmokeFailed, SmokeFailure, SmokeLine, SmokePassed};
use cuda_entrypoint::stack::Builtin;
use source::source;

const ALL: &[&str] = &["torch", "spconv", "torchvision", "torch-scatter", "mmcv"];
const GO: &str = "{\"gpu\": true}\n";

fn script() -> String {
    std::fs::read_to_string(source("smoke.py")).unwrap()
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fakes() -> PathBuf {
    here().join("tests/fakes/python")
}

/// One run of the program with the fake packages.
struct Case<'a> {
    entries: &'a [&'a str],
    devices: &'a str,
    script: &'a str,
    order: &'a str,
}

impl Case<'_> {
    fn command(&self, world: &World) -> Command {
        let mut command = world.command("python3");
        let plan = serde_json::json!({"entries": self.entries, "devices": self.devices});
        command
            .args(["-c", &script(), &plan.to_string()])
            .env("PYTHONPATH", fakes())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("FAKE_TORCH_SCRIPT", self.script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, world: &World) -> Running {
        let mut running = Running::start_as_is(&mut self.command(world));
        let mut stdin = running.child.stdin.take().unwrap();
        // A program that is gone already does not read it.
        let _ = stdin.write_all(self.order.as_bytes());
        running
    }

    fn run(&self) -> Said {
        let world = World::new();
        let run = self.start(&world).finish();
        Said {
            lines: lines(&run),
            run,
        }
    }
}

const PLAIN: Case<'static> = Case {
    entries: &["torch", "spconv"],
    devices: "first",
    script: "{}",
    order: GO,
};

fn with(script: &str) -> Said {
    Case { script, ..PLAIN }.run()
}

fn lines(run: &Run) -> Vec<SmokeLine> {
    let parse = |line: &str| {
        cuda_entrypoint::facts::from_json(line.as_bytes())
            .unwrap_or_else(|error| panic!("{error}: {line}\n{}", run.stderr))
    };
    run.text().lines().map(parse).collect()
}

struct Said {
    lines: Vec<SmokeLine>,
    run: Run,
}

impl Said {
    /// It came to its end.
    #[track_caller]
    fn done(&self) -> &Self {
        self.run.exits(0);
        assert_eq!(self.lines.last(), Some(&SmokeLine::Done), "{}", self.story());
        self
    }

    /// What happened, without times and paths.
    fn story(&self) -> String {
        let mut story = String::new();
        for line in &self.lines {
            let _ = match line {
                SmokeLine::Python(_) => writeln!(story, "python"),
                SmokeLine::Begin(step) => {
                    let device = step.device.map_or(String::new(), |n| format!(" on {n}"));
                    write!(story, "{}: {}{device}: ", step.entry, step.step)
                }
                SmokeLine::Passed(SmokePassed { says, .. }) if says.is_empty() => writeln!(story, "passed"),
                SmokeLine::Passed(passed) => writeln!(story, "passed: {}", passed.says),
                SmokeLine::Failed(failed) => {
                    let kind = failed.kind;
                    let error = &failed.error;
                    let first = failed.message.lines().next().unwrap_or_default();
                    writeln!(story, "failed: {kind:?} {error}: {first}")
                }
                SmokeLine::Skipped(skipped) => {
                    writeln!(story, "{}: skipped: {}", skipped.entry, skipped.reason)
                }
                SmokeLine::Module(module) => writeln!(story, "module {} {}", module.name, module.version),
                SmokeLine::Ready => writeln!(story, "ready"),
                SmokeLine::Device(d) => writeln!(story, "device {} {} {}", d.ordinal, d.name, d.uuid),
                SmokeLine::Jit(jit) => writeln!(story, "jit {:?} {:?}", jit.calls, jit.kernels),
                SmokeLine::Done => writeln!(story, "done"),
            };
        }
        story
    }

    #[track_caller]
    fn failed(&self) -> &SmokeFailed {
        let mut failed = self.lines.iter().filter_map(|line| match line {
            SmokeLine::Failed(failed) => Some(failed),
            _ => None,
        });
        let first = failed.next().unwrap_or_else(|| panic!("{}", self.story()));
        assert_eq!(failed.next(), None, "{}", self.story());
        first
    }

    #[track_caller]
    fn tells(&self, part: &str) -> &Self {
        let story = self.story();
        assert!(story.contains(part), "no {part:?} in:\n{story}");
        self
    }
}

#[test]
fn each_package_is_imported_and_run_in_steps_with_names() {
    let said = Case {
        entries: &["spconv", "torchvision", "torch", "torch-scatter", "mmcv"],
        ..PLAIN
    }
    .run();
    said.done();
    insta::assert_snapshot!(said.story());
    for line in &said.lines {
        match line {
            SmokeLine::Python(python) => {
                assert!(python.version.starts_with("3."), "{python:?}");
                assert!(python.executable.starts_with('/'), "{python:?}");
            }
            SmokeLine::Module(module) => assert!(Path::new(&module.path).starts_with(fakes()), "{module:?}"),
            SmokeLine::Passed(passed) => assert!(passed.ms >= 0.0, "{passed:?}"),
            _ => {}
        }
    }
}

#[test]
fn every_device_is_used_where_all_are_asked_for() {
    // Torch before 2.5 tells no UUID, and none tells of which kind one of a slice is.
    let script = r#"{"devices": [
        ["NVIDIA L4", "00000000-0000-0000-0000-00000000000a"],
        ["NVIDIA H200 MIG 1g.18gb", "00000000-0000-0000-0000-00000000000b"],
        ["Tesla T4", null]]}"#;
    let case = Case {
        devices: "all",
        script,
        ..PLAIN
    };
    let said = case.run();
    said.done();
    insta::assert_snapshot!(said.story());
    let first = Case {
        devices: "first",
        ..case
    };
    let said = first.run();
    assert!(!said.done().story().contains("on 1"), "{}", said.story());
}

#[test]
fn no_device_at_all_is_a_failed_init() {
    let said = with(r#"{"devices": []}"#);
    said.done()
        .tells("torch: init: failed: Error RuntimeError: torch sees no CUDA device")
        .tells("spconv: skipped: CUDA could not be initialised");
}

#[test]
fn without_a_gpu_everything_after_the_imports_is_skipped_with_the_reason() {
    let said = Case {
        order: "{\"gpu\": false, \"reason\": \"--gpu off\"}\n",
        ..PLAIN
    }
    .run();
    said.done()
        .tells("import spconv.pytorch: passed")
        .tells("ready\ntorch: skipped: --gpu off\nspconv: skipped: --gpu off\ndone");
}

#[test]
fn it_goes_quietly_when_its_parent_is_gone() {
    let said = Case { order: "", ..PLAIN }.run();
    assert_eq!(said.lines.last(), Some(&SmokeLine::Ready));
    said.run.exits(0);
    assert_eq!(said.run.stderr, "");

    // Nobody reads: the first line that is written finds that out.
    let world = World::new();
    let mut child = PLAIN.command(&world).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    // Somebody started it with a closed descriptor.
    for closed in [">&-", "<&-"] {
        let shell = format!("exec \"$0\" \"$@\" {closed}");
        let mut command = world.command("sh");
        let inner = PLAIN.command(&world);
        command
            .args(["-c", &shell])
            .arg(inner.get_program())
            .args(inner.get_args());
        let run = Run::of(command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?)))));
        run.exits(1).prints("");
        assert_eq!(run.stderr, "", "{closed}");
    }
}

/// torch 2.2 beside numpy 2 imports with a warning alone.
#[test]
fn a_torch_that_cannot_convert_to_numpy_fails_after_its_import() {
    let script = r#"{"tensor.numpy()": {"raise": "RuntimeError", "message": "Numpy is not available"}}"#;
    let said = with(script);
    said.done().tells(
        "torch: tensor.numpy(): failed: Import ImportError: tensor.numpy() fails with torch 2.5.0+fake and numpy 2.2.6: \
         Numpy is not available",
    );
    said.tells("import spconv.pytorch: passed");
    assert!(!said.story().contains("matmul"), "{}", said.story());
    with(r#"{"tensor.numpy()": {}}"#)
        .done()
        .tells("torch: tensor.numpy(): passed");
}

#[test]
fn an_import_that_fails_is_told_and_stops_no_other_package() {
    let cases = [
        (
            r#"{"raise": "ModuleNotFoundError", "message": "No module named 'pccm'"}"#,
            "ModuleNotFoundError: No module named 'pccm'",
        ),
        (
            r#"{"raise": "OSError", "message": "libcudart.so.12: cannot open shared object file"}"#,
            "OSError: libcudart.so.12: cannot",
        ),
        (
            r#"{"raise": "RuntimeError", "message": "outer", "cause": "inner"}"#,
            "RuntimeError: outer (from OSError: inner)",
        ),
        (r#"{"raise": "KeyboardInterrupt"}"#, "KeyboardInterrupt: "),
        (r#"{"raise": "MemoryError"}"#, "MemoryError: "),
        (r#"{"raise": "GeneratorExit"}"#, "GeneratorExit: "),
        (
            r#"{"raise": "wordless"}"#,
            "fake_script.Wordless: no text: its __str__ raised ValueError",
        ),
        (r#"{"exit": 3}"#, "SystemExit: 3"),
        (
            r#"{"recurse": true}"#,
            "RecursionError: maximum recursion depth exceeded",
        ),
    ];
    for (actions, told) in cases {
        let script = format!(r#"{{"import spconv": {actions}}}"#);
        let said = Case {
            entries: ALL,
            script: &script,
            ..PLAIN
        }
        .run();
        said.done()
            .tells(&format!("import spconv.pytorch: failed: Import {told}"));
        said.tells("import mmcv.ops: passed")
            .tells("torch: matmul float16 on 0: passed");
        assert!(!said.story().contains("forward"), "{}", said.story());
        assert!(!said.story().contains("jit"), "{}", said.story());
        let frames = &said.failed().frames;
        assert!((1..=6).contains(&frames.len()), "{frames:?}");
        assert!(frames.last().unwrap().contains("fake_script.py:"), "{frames:?}");
        assert!(!frames.concat().contains("importlib"), "{frames:?}");
    }
}

#[test]
fn a_torch_that_fails_takes_the_others_along() {
    let said = Case {
        entries: ALL,
        script: r#"{"import torch": {"raise": "ImportError", "message": "undefined symbol: ncclCommRegister"}}"#,
        ..PLAIN
    }
    .run();
    said.done();
    insta::assert_snapshot!(said.story());
    // Torch is imported for the others, too, where it is not smoked itself.
    let said = Case {
        entries: &["mmcv"],
        script: r#"{"import torch": {"exit": 0}}"#,
        ..PLAIN
    }
    .run();
    said.done()
        .tells("mmcv: import torch: failed: Import SystemExit: 0\nready\ndone");
}

#[test]
fn a_package_that_is_not_there_is_told_without_our_own_calls() {
    let world = World::new();
    let case = Case {
        entries: &["torch-scatter", "somebody-elses"],
        ..PLAIN
    };
    let mut command = case.command(&world);
    let packages = world.path("packages");
    let copied = Command::new("cp").arg("-r").arg(fakes()).arg(&packages).status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(packages.join("torch_scatter")).unwrap();
    let mut running = Running::start_as_is(command.env("PYTHONPATH", &packages));
    running
        .child
        .stdin
        .take()
        .unwrap()
        .write_all(GO.as_bytes())
        .unwrap();
    let run = running.finish();
    let said = Said {
        lines: lines(&run),
        run,
    };
    said.done()
        .tells("import torch_scatter: failed: Import ModuleNotFoundError: No module named 'torch_scatter'")
        .tells("somebody-elses: skipped: this smoke does not know it");
    assert_eq!(said.failed().frames, [""; 0]);
}

#[test]
fn missing_headers_of_cumm_are_found_before_spconv_is_imported() {
    let world = World::new();
    let packages = world.path("packages");
    let copied = Command::new("cp").arg("-r").arg(fakes()).arg(&packages).status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(packages.join("cumm/include")).unwrap();
    let start = |world: &World| {
        let mut running = Running::start_as_is(PLAIN.command(world).env("PYTHONPATH", &packages));
        running
            .child
            .stdin
            .take()
            .unwrap()
            .write_all(GO.as_bytes())
            .unwrap();
        let run = running.finish();
        Said {
            lines: lines(&run),
            run,
        }
    };
    let said = start(&world);
    let header = packages.join("cumm/include/tensorview/core/all.h");
    said.done()
        .tells("spconv: cumm headers: failed: Import FileNotFoundError: ");
    assert!(
        said.failed().message.contains(header.to_str().unwrap()),
        "{:?}",
        said.failed()
    );
    assert!(!said.story().contains("import spconv"), "{}", said.story());

    // No cumm at all is spconv's own error.
    std::fs::remove_dir_all(packages.join("cumm")).unwrap();
    let said = start(&world);
    said.done()
        .tells("import spconv.pytorch: failed: Import ModuleNotFoundError: No module named 'cumm'");
    assert!(!said.story().contains("headers"), "{}", said.story());
}

#[test]
fn an_operation_that_fails_ends_its_package_and_no_other() {
    let said = Case {
        entries: ALL,
        script: r#"{"matmul float32": {"raise": "torch.OutOfMemoryError", "message": "CUDA out of memory. Tried to allocate"}}"#,
        ..PLAIN
    }
    .run();
    said.done()
        .tells("torch: matmul float32 on 0: failed: Error torch.OutOfMemoryError: CUDA out of memory")
        .tells("torch: skipped: not gone on with, since `matmul float32` on device 0 failed")
        .tells("passed: spconv forward OK")
        .tells("mmcv: nms on 0: passed");

    // The last of its steps leaves nothing to be skipped; what a package imports late is an import all the same.
    let said = Case {
        entries: ALL,
        script: r#"{"scatter max": {"raise": "RuntimeError", "message": "Not compiled with CUDA support"},
                    "mmcv nms": {"raise": "ImportError", "message": "triton"}}"#,
        ..PLAIN
    }
    .run();
    said.done()
        .tells("scatter max on 0: failed: Error RuntimeError: Not compiled with CUDA support\nmmcv: nms")
        .tells("mmcv: nms on 0: failed: Import ImportError: triton\ndone");
}

#[test]
fn a_wrong_result_is_no_error_and_says_by_how_much() {
    let said = with(r#"{"forward float32": {"difference": 0.5}}"#);
    said.done()
        .tells("spconv: forward float32 on 0: failed: Wrong : the result differs from the reference by 0.5");
    said.tells("spconv: skipped: not gone on with")
        .tells("jit Some(0) []\ndone");
    let failed = said.failed();
    assert_eq!((failed.difference, failed.tolerance), (Some(0.5), Some(0.02)));
    assert!(!said.story().contains("OK"), "{}", said.story());

    let said = with(r#"{"forward float16": {"not_finite": 7}}"#);
    said.done()
        .tells("forward float16 on 0: failed: Wrong : 7 of 1000 values are not finite");
    assert_eq!(
        (said.failed().difference, said.failed().kind),
        (None, SmokeFailure::Wrong)
    );

    let said = with(r#"{"matmul float16": {"shape": [64, 1]}}"#);
    said.done()
        .tells("matmul float16 on 0: failed: Wrong : a result of shape 64x1 instead of 64x96");

    let script = r#"{"torchvision nms": {"list": [1, 0]}, "forward float32": {"difference": 0.019}}"#;
    let said = Case {
        entries: ALL,
        script,
        ..PLAIN
    }
    .run();
    said.done()
        .tells("torchvision: nms on 0: failed: Wrong : the boxes kept: [1, 0] instead of [1, 4, 3]")
        .tells("forward float32 on 0: passed");
    let forward = |line: &SmokeLine| matches!(line, SmokeLine::Passed(p) if p.difference == Some(0.019));
    assert!(said.lines.iter().any(forward), "{}", said.story());
}

#[test]
fn a_broken_cuda_is_told_once() {
    let broken = "CUDA error: an illegal memory access was encountered";
    let script = format!(
        r#"{{"forward float32": {{"broken": "{broken}\nFor debugging consider", "raise": "RuntimeError", "message": "{broken}"}}}}"#
    );
    let said = Case {
        entries: ALL,
        script: &script,
        ..PLAIN
    }
    .run();
    said.done();
    insta::assert_snapshot!(said.story());
    // An operation that is only queued fails in the step that queued it.
    let script = format!(r#"{{"matmul float32": {{"broken": "{broken}"}}}}"#);
    let said = with(&script);
    said.done()
        .tells(&format!(
            "torch: matmul float32 on 0: failed: Error RuntimeError: {broken}"
        ))
        .tells(&format!(
            "spconv: skipped: CUDA is unusable since `matmul float32` on device 0 failed: {broken}\ndone"
        ));
}

#[test]
fn compilations_at_run_time_are_counted_and_go_on() {
    let said =
        with(r#"{"forward float32": {"nvrtc": ["a", "b"]}, "forward float16": {"nvrtc": ["c", "d", "e"]}}"#);
    said.done()
        .tells(r#"jit Some(5) ["a", "b", "c", "d"]"#)
        .tells("spconv forward OK");
    // One that fails is told as well: it may be the reason.
    let said = with(r#"{"forward float32": {"nvrtc": ["a"], "raise": "RuntimeError", "message": "nvrtc"}}"#);
    said.done().tells(r#"jit Some(1) ["a"]"#);
}

#[test]
fn what_libraries_print_is_not_taken_for_the_protocol() {
    for place in ["import torch", "forward float32"] {
        let said = with(&format!(
            r#"{{"{place}": {{"print": "\"done\"", "flood": 3000000}}}}"#
        ));
        said.done();
        said.run.says("\"done\"\n").says("\"done\" in C\n");
        assert!(said.run.stderr.len() > 6_000_000, "{}", said.run.stderr.len());
    }
    // Neither is what they read, or close.
    for actions in [
        r#"{"eat": true}"#,
        r#"{"close": 0}"#,
        r#"{"close": 1}"#,
        r#"{"close": 2}"#,
    ] {
        with(&format!(r#"{{"import torch": {actions}}}"#))
            .done()
            .tells("spconv forward OK");
    }
}

#[test]
fn a_crash_leaves_the_step_as_the_last_line() {
    for (signal, place, begun) in [
        (
            nix::libc::SIGFPE,
            "forward float32",
            "spconv: forward float32 on 0: ",
        ),
        (
            nix::libc::SIGSEGV,
            "import spconv",
            "spconv: import spconv.pytorch: ",
        ),
        (nix::libc::SIGABRT, "init", "torch: init: "),
        (nix::libc::SIGKILL, "import torch", "torch: import torch: "),
    ] {
        let said = with(&format!(r#"{{"{place}": {{"raise_signal": {signal}}}}}"#));
        assert_eq!(said.run.signal(), Some(signal));
        assert!(said.story().ends_with(begun), "{}", said.story());
        if signal != nix::libc::SIGKILL {
            // faulthandler's list of the calls.
            said.run.says("Fatal Python error").says("fake_script.py\", line");
        }
    }
}

#[test]
fn an_interrupt_from_outside_ends_it_at_once() {
    let world = World::new();
    let case = Case {
        script: r#"{"forward float32": {"hang": "sleep", "note": "here"}}"#,
        ..PLAIN
    };
    let running = case.start(&world);
    assert!(eventually(|| world.read("here").is_some()));
    running.kill(nix::sys::signal::Signal::SIGINT);
    let run = running.finish();
    assert_eq!(run.signal(), Some(nix::libc::SIGINT));
    assert!(matches!(lines(&run).last(), Some(SmokeLine::Begin(step)) if step.step == "forward float32"));
}

#[test]
fn a_process_that_a_library_leaves_behind_does_not_keep_the_protocol_open() {
    let world = World::new();
    let case = Case {
        script: r#"{"import torch": {"daemon": "setsid"}}"#,
        ..PLAIN
    };
    let mut command = case.command(&world);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(GO.as_bytes()).unwrap();
    let mut said = String::new();
    // This returns when the last descriptor of the pipe is closed.
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(said.ends_with("\"done\"\n"), "{said}");
    assert_ne!(
        world.survivors(&[]),
        [""; 0],
        "the daemon is gone: nothing was tested"
    );
    world.kill_survivors();
}

#[test]
fn torch_asks_nvml_during_the_imports_and_only_then() {
    let during = r#"{"need": {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}}"#;
    let after = r#"{"need": {"PYTORCH_NVML_BASED_CUDA_CHECK": null}}"#;
    let script = format!(r#"{{"import torch": {during}, "import mmcv": {during}, "init": {after}}}"#);
    Case {
        entries: ALL,
        script: &script,
        ..PLAIN
    }
    .run()
    .done()
    .tells("init: passed");

    let world = World::new();
    let set = r#"{"need": {"PYTORCH_NVML_BASED_CUDA_CHECK": "0"}}"#;
    let script = format!(r#"{{"import torch": {set}, "init": {set}}}"#);
    let case = Case {
        script: &script,
        ..PLAIN
    };
    let mut command = case.command(&world);
    let mut running = Running::start_as_is(command.env("PYTORCH_NVML_BASED_CUDA_CHECK", "0"));
    running
        .child
        .stdin
        .take()
        .unwrap()
        .write_all(GO.as_bytes())
        .unwrap();
    let run = running.finish();
    Said {
        lines: lines(&run),
        run,
    }
    .done()
    .tells("import torch: passed")
    .tells("init: passed");
}

#[test]
fn texts_are_cut_and_made_fit_for_json() {
    let message = "\u{e4}".repeat(3000);
    let script = format!(r#"{{"import torch": {{"raise": "ImportError", "message": "{message}"}}}}"#);
    let said = with(&script);
    let kept = &said.done().failed().message;
    assert_eq!(kept.len(), 4096);
    assert!(message.starts_with(kept.as_str()));
    // A file name that is not UTF-8 comes as a lone surrogate, which JSON has no way to write.
    let said = with(r#"{"init": {"raise": "OSError", "message": "/x/\udcff\u0000\u001b"}}"#);
    assert_eq!(said.done().failed().message, "/x/\\udcff\0\u{1b}");
}

#[test]
fn a_plan_that_is_none_is_our_own_fault() {
    let world = World::new();
    for plan in ["", "[]", "{}", r#"{"entries": []}"#] {
        let run = Run::of(world.command("python3").args(["-c", &script(), plan]));
        run.exits(70).prints("").says("Error");
    }
    let run = Case {
        order: "nonsense\n",
        ..PLAIN
    }
    .run()
    .run;
    run.exits(70).says("JSONDecodeError");
}

#[test]
fn it_leaves_nothing_behind() {
    let world = World::new();
    let running = PLAIN.start(&world);
    let pid = running.pid();
    running.finish().exits(0);
    assert_eq!(children(pid), [0; 0]);
    world.assert_nothing_left();
}

#[test]
fn with_packages_that_compute_every_entry_passes_on_every_device() {
    let world = World::new();
    let case = Case {
        entries: ALL,
        devices: "all",
        ..PLAIN
    };
    let mut command = case.command(&world);
    command.env("PYTHONPATH", here().join("tests/fakes/numeric"));
    let mut running = Running::start_as_is(&mut command);
    let order = GO.as_bytes();
    running.child.stdin.take().unwrap().write_all(order).unwrap();
    let run = running.finish();
    let said = Said {
        lines: lines(&run),
        run,
    };
    said.done();
    insta::assert_snapshot!(said.story());
    let differences: Vec<f64> = (said.lines.iter())
        .filter_map(|line| match line {
            SmokeLine::Passed(passed) => passed.difference,
            _ => None,
        })
        .collect();
    // Two types of two packages on two devices. A difference of nothing would say that nothing was computed: no kernel
    // of these types gives what float64 does.
    assert_eq!(differences.len(), 8);
    assert!(
        differences.iter().all(|it| (1e-9..1e-3).contains(it)),
        "{differences:?}"
    );
}

/// A smoke with each of the kernels of tests/smoke_script/arithmetic.py for that entry.
#[track_caller]
fn tells_wrong_kernels_from_right_ones(entry: &str) {
    let world = World::new();
    let mut command = world.command("python3");
    command
        .arg(here().join("tests/smoke_script/arithmetic.py"))
        .arg(source("smoke.py"))
        .arg(entry)
        .env("PYTHONPATH", here().join("tests/fakes/numeric"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let run = Run::of(&mut command);
    run.exits(0);
    assert!(run.text().contains(" right kernels pass, "), "{}", run.text());
    assert!(run.text().ends_with("all of it holds\n"), "{}", run.text());
}

#[test]
fn each_entry_tells_wrong_kernels_from_right_ones() {
    std::thread::scope(|scope| {
        for entry in Builtin::all() {
            scope.spawn(move || tells_wrong_kernels_from_right_ones(entry.name()));
        }
    });
}
