//! What the smoke is started with: the service's interpreter and environment, and that nothing of it leaks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::run::Run;
use crate::support::scene::Scene;

/// Each Python that imports torch writes down what it is.
const DUMPS: &str = r#"{"import torch": {"dump": "{dir}/dump"}}"#;

fn dumped(scene: &Scene) -> Value {
    let dump = scene.world.read("dump").expect("nothing was imported");
    std::fs::remove_file(scene.world.path("dump")).unwrap();
    serde_json::from_str(&dump).unwrap()
}

fn variables(dump: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(dump["env"].clone()).unwrap()
}

#[test]
fn it_gets_the_services_environment() {
    let scene = Scene::acting(DUMPS)
        .var("LANG", "C.UTF-8")
        .var("GIVEN", "two words\nand a line")
        .var("SPCONV_DISABLE_JIT", "0")
        .var("CUDA_ENTRYPOINT_SMOKE_TIMEOUT", "60s")
        // Preloaded into the smoke as into the service, and into no helper.
        .var("LD_PRELOAD", "libm.so.6")
        .manifest(json!({"schema": 1, "name": "t", "smoke": ["torch"], "env": {"SPCONV_DISABLE_JIT": "1", "NEW": ""}}));
    let run = Run::of(scene.command("run", &[]).args(["--", "env", "-0"]));
    run.exits(0).says("SPCONV_DISABLE_JIT");
    let service: BTreeMap<String, String> = run
        .text()
        .split_terminator('\0')
        .map(|v| v.split_once('=').unwrap())
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let dump = dumped(&scene);
    let mut smoke = variables(&dump);
    // What tells our children, and what keeps an import from the driver.
    assert!(smoke.remove("CUDA_ENTRYPOINT_CHILD_OF").is_some());
    assert_eq!(
        smoke.remove("PYTORCH_NVML_BASED_CUDA_CHECK").as_deref(),
        Some("1")
    );
    assert_eq!(smoke, service);
    assert_eq!(
        (smoke["SPCONV_DISABLE_JIT"].as_str(), smoke["NEW"].as_str()),
        ("1", "")
    );
    assert!(smoke["LD_PRELOAD"] == "libm.so.6" && smoke["GIVEN"].contains('\n'));
}

#[test]
fn it_gets_no_descriptor_and_no_signal_of_ours() {
    let scene = Scene::acting(DUMPS);
    let mut command = scene.world.command("sh");
    let inner = scene.command("run", &[]);
    // Descriptors that are the service's.
    command.args(["-c", "exec 7</dev/zero 9<stack.json; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let service = "test \"$(readlink /proc/self/fd/7)\" = /dev/zero && readlink /proc/self/fd/9";
    let run = Run::of(command.args(["--", "sh", "-c", service]));
    run.exits(0);
    assert!(run.text().ends_with("stack.json\n"), "{}", run.text());
    let dump = dumped(&scene);
    let open: BTreeMap<String, String> = serde_json::from_value(dump["fds"].clone()).unwrap();
    let mut numbers: Vec<u32> = open.keys().map(|fd| fd.parse().unwrap()).collect();
    numbers.sort_unstable();
    // Its three, the protocol's two ends.
    assert_eq!(numbers, [0, 1, 2, 3, 4], "{open:?}");
    assert_eq!(open["0"], "/dev/null");
    let signals: BTreeMap<String, String> = serde_json::from_value(dump["signals"].clone()).unwrap();
    for (field, value) in [("SigBlk:", 0), ("SigPnd:", 0)] {
        assert_eq!(
            u64::from_str_radix(&signals[field], 16).unwrap(),
            value,
            "{signals:?}"
        );
    }
    // Python's own: SIGPIPE and SIGXFSZ.
    assert_eq!(
        u64::from_str_radix(&signals["SigIgn:"], 16).unwrap(),
        (1 << 12) | (1 << 24),
        "{signals:?}"
    );
    assert_eq!(dump["argv"], json!(["-c"]));
}

#[test]
fn it_runs_with_the_interpreter_of_the_service() {
    let scene = Scene::acting(DUMPS);
    scene.install("other");
    scene.install("third");
    let other = scene.world.path("other/bin/python").display().to_string();
    let third = scene.world.path("third").display().to_string();
    let script = scene
        .world
        .program("other/bin/serve", format!("#!{other}\nprint('started')\n"));
    scene
        .world
        .program("other/bin/isolated", format!("#!{other} -I\nprint('started')\n"));
    let serve = script.to_str().unwrap();
    let isolated = scene.world.path("other/bin/isolated").display().to_string();
    let code = "print('started')";
    for (options, service, prefix, is_isolated) in [
        (&[][..], &["sh", "-c", "echo started"][..], "env", false),
        (&[], &[&other, "-c", code], "other", false),
        (&[], &[&other, "-I", "-c", code], "other", true),
        (&[], &[serve], "other", false),
        (&[], &[isolated.as_str()], "other", true),
        (&[], &["nohup", serve], "other", false),
        (&["--python", &third], &[&other, "-c", code], "third", false),
    ] {
        let ran = scene.run_service(options, service);
        assert_eq!(ran.exit(), 0, "{service:?}: {ran}");
        assert_eq!(ran.output.stdout, b"started\n", "{service:?}: {ran}");
        let dump = dumped(&scene);
        assert_eq!(
            dump["prefix"],
            scene.world.path(prefix).to_str().unwrap(),
            "{service:?}"
        );
        // -I is -E and -s and one more, of which Python 3.11 was the first to know as an option.
        let flags = [
            &dump["flags"]["ignore_environment"],
            &dump["flags"]["no_user_site"],
        ];
        assert_eq!(flags, [is_isolated; 2].map(i64::from), "{service:?}");
        assert_eq!(
            ran.report["facts"]["smoke"]["builtin"]["python"]["executable"],
            dump["executable"]
        );
        // `check` is told the same by the same command.
        let mut command = scene.command("check", options);
        Run::of(command.arg("--").args(service)).exits(0);
        assert_eq!(dumped(&scene)["prefix"], dump["prefix"], "{service:?}");
    }
    // The variable, and an environment that PATH leads to.
    let by_variable = Scene::acting(DUMPS).var("CUDA_ENTRYPOINT_PYTHON", "{dir}/second");
    by_variable.install("second");
    by_variable.prove(0, &[]);
    assert_eq!(
        dumped(&by_variable)["prefix"],
        by_variable.world.path("second").to_str().unwrap()
    );
    let by_path = Scene::acting(DUMPS)
        .var("VIRTUAL_ENV", "")
        .var("PATH", "{dir}/env/bin:/usr/bin:/bin");
    by_path.prove(0, &[]);
    assert_eq!(
        dumped(&by_path)["prefix"],
        by_path.world.path("env").to_str().unwrap()
    );
}

#[test]
fn it_looks_into_the_working_folder_where_the_service_does() {
    let scene = Scene::new();
    // A script or a checkout that happens to be called like a package.
    scene
        .world
        .write("torch.py", "raise ImportError('not this one')\n");
    scene
        .world
        .write("json.py", "raise ImportError('nor this one')\n");
    scene.world.write("service.py", "print('started')\n");
    scene.world.write("app/main.py", "print('started')\n");
    let python = scene.python();
    let serve = scene
        .world
        .program("env/bin/serve", format!("#!{python}\nprint('started')\n"));
    let code = "print('started')";
    for (service, exit) in [
        (&["sh", "-c", "echo started"][..], 0),
        (&[serve.to_str().unwrap()], 0),
        (&[&python, "app/main.py"], 0),
        (&[&python, "-I", "-c", code], 0),
        (&[&python, "-c", code], 84),
        (&[&python, "-u", "-m", "service"], 84),
    ] {
        let ran = scene.run_service(&[], service);
        assert_eq!(ran.exit(), exit, "{service:?}: {ran}");
        assert_eq!(
            ran.output.stdout,
            if exit == 0 { &b"started\n"[..] } else { b"" },
            "{service:?}"
        );
        if exit != 0 {
            std::fs::remove_file(scene.world.path("json.py")).unwrap();
            let ran = scene.run_service(&[], service);
            ran.says("smoke-import", "fail", ["not this one", "", "torch", ""]);
            scene
                .world
                .write("json.py", "raise ImportError('nor this one')\n");
        }
    }
}

#[test]
fn it_looks_into_the_folder_of_the_script_as_the_service_does() {
    let scene = Scene::new();
    let python = scene.python();
    scene
        .world
        .write("app/torch.py", "raise ImportError('this one')\n");
    scene.world.write("app/main.py", "print('started')\n");
    scene.world.write("app/__main__.py", "print('started')\n");
    let serve = scene
        .world
        .program("app/serve", format!("#!{python}\nprint('started')\n"));
    std::os::unix::fs::symlink("app/main.py", scene.world.path("link.py")).unwrap();
    for (service, exit) in [
        (&[&python, "app/main.py"][..], 84),
        (&[&python, "app"], 84),
        (&[&python, "-u", "link.py"], 84),
        (&[serve.to_str().unwrap()], 84),
        (&[&python, "-I", "app/main.py"], 0),
        (&[&python, "-c", "print('started')"], 0),
    ] {
        let ran = scene.run_service(&[], service);
        assert_eq!(ran.exit(), exit, "{service:?}: {ran}");
        if exit != 0 {
            ran.says("smoke-import", "fail", ["this one", "", "torch", ""]);
        }
    }
    let scene = scene.var("PYTHONSAFEPATH", "1");
    if crate::support::scene::version() >= "3.11" && crate::support::scene::version().len() == 4 {
        assert_eq!(scene.run_service(&[], &[&python, "app/main.py"]).exit(), 0);
    }
}

#[test]
fn without_an_interpreter_it_says_so() {
    let scene = Scene::new().var("VIRTUAL_ENV", "").var("PATH", "/nowhere");
    let found = scene.check(&["--python", "/nowhere/bin/python"]);
    assert_eq!(found.exit(), 81, "{found}");
    assert!(found.codes("fail").contains(&"python-missing"), "{found}");
    let alone = scene.check(&["--stage", "smoke", "--python", "/nowhere/bin/python"]);
    assert_eq!(alone.exit(), 84, "{alone}");
    alone.says(
        "smoke-import",
        "fail",
        ["no Python interpreter", "", "could not be started", "--python"],
    );
    // One that cannot be executed.
    let scene = Scene::new();
    scene.world.program("broken/bin/python", "#!/nowhere/at/all\n");
    scene.world.write("broken/pyvenv.cfg", "home = /usr/bin\n");
    let alone = scene.check(&["--stage", "smoke", "--python", "broken/bin/python"]);
    assert_eq!(alone.exit(), 84, "{alone}");
}

#[test]
fn nothing_of_the_environment_is_told() {
    let scene = Scene::acting(r#"{"forward float32": {"raise": "RuntimeError", "message": "broken"}}"#)
        .var("API_TOKEN", "s3cr3t-value")
        .var("CUDA_VISIBLE_DEVICES", "0")
        .smoke(json!(["torch", "spconv", {"name": "model", "argv": ["false"]}]));
    for options in [&["--log", "trace"][..], &["--format", "json"], &[]] {
        let ran = scene.run(options);
        assert_eq!(ran.exit(), 84, "{ran}");
        let all = format!("{ran}{}{}", ran.report, scene.last_words());
        assert!(!all.contains("s3cr3t"), "{all}");
        assert_eq!(ran.report["facts"]["environment"]["CUDA_VISIBLE_DEVICES"], "0");
    }
}

/// Python 3.15 (PEP 810): what `-X lazy_imports=all` leaves for later is loaded, in commands as well. Older Pythons get the
/// functions here by a `.pth`.
#[test]
fn lazy_imports_are_made_for_real() {
    let scene = Scene::new()
        .var("PYTHON_LAZY_IMPORTS", "all")
        .smoke(json!(["torch", {"name": "own", "argv": ["sh", "-c", "test -z \"$PYTHON_LAZY_IMPORTS\""]}]));
    let site = scene.site();
    let modes = "import sys\nmodes = ['all']\nsys.get_lazy_imports = lambda: modes[-1]\nsys.set_lazy_imports = modes.append\n";
    std::fs::write(site.join("lazy.py"), modes).unwrap();
    std::fs::write(site.join("lazy.pth"), "import lazy\n").unwrap();
    let torch = site.join("torch/__init__.py");
    let code = std::fs::read_to_string(&torch).unwrap();
    let asks = "import sys as s\nif s.get_lazy_imports() != 'normal':\n    raise ImportError('it is lazy')\n";
    std::fs::write(&torch, format!("{asks}{code}")).unwrap();
    scene.prove_both(0, &[]);
}
