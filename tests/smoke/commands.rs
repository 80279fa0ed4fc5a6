//! The manifest's own commands.

use std::fs;

use serde_json::{Value, json};

use crate::support::device::Checked;
use crate::support::scene::Scene;

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "argv": ["sh", "-c", script]})
}

/// Status and what each of the smoke's findings says, by subject.
fn said(found: &Checked) -> Vec<(String, String, String)> {
    let text = |f: &Value, key: &str| f[key].as_str().unwrap().to_string();
    let all = found.findings();
    all.iter()
        .filter(|f| f["stage"] == "smoke")
        .map(|f| (text(f, "subject"), text(f, "status"), text(f, "message")))
        .collect()
}

#[test]
fn they_run_after_the_others_and_say_how_it_went() {
    let scene = Scene::new().smoke(json!([
        shell("first", "echo 1 >>order"),
        "spconv",
        shell("second", "echo 2 >>order"),
        "torch",
    ]));
    let found = scene.prove(0, &[]);
    let subjects: Vec<String> = said(&found).into_iter().map(|(subject, ..)| subject).collect();
    assert_eq!(subjects, ["spconv", "torch", "spconv", "first", "second"]);
    assert_eq!(scene.world.read("order").unwrap(), "1\n2\n1\n2\n");
    // Where they are all there is, the first one says how to skip them.
    let alone = Scene::new().smoke(json!([shell("first", ":"), shell("second", ":")]));
    let ran = alone.run(&[]);
    let text = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().take(2).collect();
    let skips = "cuda-entrypoint: smoke: first (CUDA_ENTRYPOINT_SMOKE=off skips it)";
    assert_eq!(lines, [skips, "cuda-entrypoint: smoke: second"], "{ran}");
    let ran = scene.run(&[]);
    let text = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(
        text.contains("spconv forward OK, torch OK, first OK, second OK"),
        "{text}"
    );
}

#[test]
fn every_way_to_fail_is_told_with_what_was_said() {
    let cases = [
        (
            shell("model", "echo out; echo err >&2; exit 3"),
            84,
            "smoke-forward",
            "exit status 3: out | err",
            "model: the manifest's own command failed",
        ),
        (
            shell("model", "kill -SEGV $$"),
            84,
            "smoke-forward",
            "SIGSEGV",
            "model: the manifest's own command failed",
        ),
        (
            json!({"name": "model", "argv": ["sh", "-c", "echo half; sleep 3600"], "timeout": "2s"}),
            85,
            "smoke-timeout",
            "no end in its command after 2000 ms: half",
            "model: the smoke test hangs in its command",
        ),
        (
            shell("model", "echo 'RuntimeError: CUDA error: out of memory'; exit 1"),
            82,
            "smoke-device",
            "exit status 1: RuntimeError: CUDA error: out of memory",
            "the GPU's memory is taken",
        ),
        (
            shell(
                "model",
                "echo 'CUDA error: no kernel image is available for execution on the device'; exit 1",
            ),
            84,
            "smoke-forward",
            "exit status 1: CUDA error: no kernel",
            "a library has no code for this GPU",
        ),
        (
            shell("model", "kill -KILL $$"),
            82,
            "smoke-device",
            "SIGKILL",
            "most likely for its memory",
        ),
    ];
    for (command, exit, code, observed, message) in cases {
        tell!("{command}");
        let scene = Scene::new().smoke(json!([command, shell("next", "touch next")]));
        let found = scene.prove(exit, &[]);
        found.says(code, "fail", [observed, "", message, ""]);
        assert!(
            said(&found).contains(&("next".into(), "pass".into(), "next OK".into())),
            "{found}"
        );
        assert!(
            scene.last_words().starts_with(&format!("{code} (exit {exit}): ")),
            "{}",
            scene.last_words()
        );
    }
}

/// At build time, where the image builder can still put it in.
#[test]
fn a_program_that_is_not_there_fails_the_image_stage() {
    for (program, place) in [
        (
            "no-such-program",
            "no folder of PATH has an executable file of this name",
        ),
        ("./stack.json", "there is no such executable file"),
        (
            "/home/somebody/.venv/bin/python",
            "there is no such executable file",
        ),
    ] {
        let scene = Scene::new().smoke(json!([{"name": "model", "argv": [program], "gpu": true}]));
        assert_eq!(scene.run(&[]).exit(), 81, "{program}");
        let found = scene.check(&[]);
        assert_eq!(found.exit(), 81, "{program}");
        let message = format!("{program}, which the smoke model runs, is not in the image: {place}");
        found.says("file-missing", "fail", [place, "", message.as_str(), ""]);
        assert_eq!(scene.check(&["--stage", "image"]).exit(), 81, "{program}");
        assert_eq!(scene.check(&["--smoke", "off"]).exit(), 0, "{program}");
        assert_eq!(scene.check(&["--stage", "smoke"]).exit(), 84, "{program}");
    }
}

/// It stands for the environment that is checked, wherever that is: a captured manifest names no path.
#[test]
fn python_is_the_interpreter_that_is_judged() {
    for name in ["python", "python3"] {
        let prefix = "import sys; open('prefix', 'w').write(sys.prefix)";
        let own = json!({"name": "own", "argv": [name, "-c", prefix]});
        let scene = Scene::new().smoke(json!([own]));
        scene.install("other");
        for stage in ["all", "smoke"] {
            let _ = fs::remove_file(scene.world.path("prefix"));
            let other = scene.world.path("other");
            let other = other.to_str().unwrap();
            let found = scene.check(&["--stage", stage, "--python", other]);
            assert_eq!(found.exit(), 0, "{found}");
            let prefix = fs::read_to_string(scene.world.path("prefix")).unwrap();
            assert_eq!(prefix, other, "{name} {stage}");
        }
    }
}

#[test]
fn the_smokes_own_deadline_counts_where_a_command_has_none() {
    let scene = Scene::new().smoke(json!([shell("model", "sleep 3600")]));
    let found = scene.prove(85, &["--smoke-timeout", "400ms"]);
    found.says(
        "smoke-timeout",
        "fail",
        ["after 400 ms", "the command's own timeout", "model", ""],
    );
    // Its own is not the others'.
    let scene = Scene::acting(r#"{"forward float32": {"hang": "sleep"}}"#)
        .smoke(json!(["spconv", {"name": "model", "argv": ["true"], "timeout": "1h"}]));
    let found = scene.prove(85, &["--smoke-timeout", "2s"]);
    found.says(
        "smoke-timeout",
        "fail",
        ["forward float32 on GPU 0 after 2000 ms", "", "spconv", ""],
    );
    assert!(
        said(&found).contains(&("model".into(), "pass".into(), "model OK".into())),
        "{found}"
    );
}

#[test]
fn those_that_need_a_gpu_are_left_out_where_none_is_used() {
    let scene = Scene::new().smoke(json!([
        "torch",
        {"name": "with", "argv": ["touch", "with"], "gpu": true},
        {"name": "without", "argv": ["touch", "without"], "gpu": false},
        {"name": "silent", "argv": ["touch", "silent"]},
    ]));
    let found = scene.prove(0, &["--gpu", "off"]);
    let said = said(&found);
    assert!(
        said.contains(&("with".into(), "skip".into(), "not run: --gpu off".into())),
        "{said:?}"
    );
    assert!(scene.world.path("without").exists() && scene.world.path("silent").exists());
    assert!(!scene.world.path("with").exists());
}

#[test]
fn what_they_say_is_kept_short_and_cannot_steer_a_terminal() {
    let scene = Scene::new().smoke(json!([shell(
        "model",
        "yes | head -c 20000000; printf '\\033[31mred\\n\\033]0;title\\a' >&2; exit 1"
    )]));
    let found = scene.prove(84, &[]);
    let observed = found.problem("smoke-forward")["observed"]
        .as_str()
        .unwrap()
        .to_string();
    assert!(observed.len() < 1000, "{observed}");
    assert!(observed.contains("\\u{1b}[31mred"), "{observed}");
    // One line may be as long as all of it.
    let scene = Scene::new().smoke(json!([shell(
        "model",
        "printf 'x%.0s' $(seq 20000); echo the end; exit 1"
    )]));
    let found = scene.prove(84, &[]);
    let observed = found.problem("smoke-forward")["observed"]
        .as_str()
        .unwrap()
        .to_string();
    assert!(
        observed.len() < 1500 && observed.ends_with("the end"),
        "{observed}"
    );
    // A command that goes through may say as much as it likes.
    let scene = Scene::new().smoke(json!([shell(
        "model",
        "yes | head -c 20000000; yes | head -c 20000000 >&2"
    )]));
    scene.prove(0, &[]);
    // Its input is empty.
    let scene = Scene::new().smoke(json!([shell("model", "test -z \"$(cat)\"")]));
    scene.prove(0, &[]);
}

#[test]
fn what_they_leave_behind_is_gone_before_the_service_starts() {
    for leave in [
        "sleep 3600 &",
        "setsid sleep 3600 >/dev/null 2>&1 </dev/null &",
        "(setsid setsid sleep 3600 &) &",
    ] {
        let scene = Scene::new().smoke(json!([shell("model", leave)]));
        let script = "for p in /proc/[0-9]*; do \
                        [ $p = /proc/$$ ] || ! grep -qazFx \"TEST_WORLD=$TEST_WORLD\" $p/environ || cat $p/comm; \
                      done 2>/dev/null";
        let ran = scene.run_service(&[], &["sh", "-c", script]);
        assert_eq!(ran.exit(), 0, "{ran}");
        assert_eq!(String::from_utf8_lossy(&ran.output.stdout), "", "{leave}: {ran}");
        scene.world.assert_nothing_left();
    }
}
