//! The manifest and the report as programs read them: what is printed parses again, and the published schemas describe
//! everything that is in it.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::probe::probe;
use crate::support::run::{Run, World};
use crate::support::scene::Scene;
use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};

/// A schema as the binary prints it, compiled by a validator that knows nothing of this project.
struct Schema {
    document: Value,
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn printed(which: &str) -> Self {
        let world = World::new();
        let run = Run::of(&mut world.entrypoint(["schema", which]));
        run.exits(0);
        let document: Value = serde_json::from_str(run.text()).unwrap();
        assert_eq!(
            document["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        compiler.add_resource("schema.json", document.clone()).unwrap();
        let index = compiler
            .compile("schema.json", &mut schemas)
            .unwrap_or_else(|e| panic!("{e:#}"));
        Self {
            document,
            schemas,
            index,
        }
    }

    #[track_caller]
    fn accepts(&self, value: &Value) {
        if let Err(error) = self.schemas.validate(value, self.index) {
            panic!("{error:#}\n{value:#}");
        }
    }

    fn refuses(&self, value: &Value) -> bool {
        self.schemas.validate(value, self.index).is_err()
    }

    /// Keys that the value has and that no `properties` on the way to them names.
    fn undescribed(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.walk(&self.document, value, "", &mut found);
        found
    }

    fn walk(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.strip_prefix('#').unwrap();
            return self.walk(self.document.pointer(pointer).unwrap(), value, path, found);
        }
        match value {
            Value::Object(entries) => {
                for (key, inner) in entries {
                    let path = format!("{path}/{key}");
                    match (schema["properties"].get(key), schema.get("additionalProperties")) {
                        (Some(schema), _) => self.walk(schema, inner, &path, found),
                        (None, Some(schema @ Value::Object(_))) => self.walk(schema, inner, &path, found),
                        (None, _) => found.push(path),
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.walk(&schema["items"], item, &format!("{path}[]"), found);
                }
            }
            _ => {}
        }
    }

    /// The paths of everything that is described below `pointer`, in the form of [`seen`].
    fn described(&self, pointer: &str) -> Vec<String> {
        let mut found = Vec::new();
        self.describe(self.document.pointer(pointer).unwrap(), "", &mut found);
        found
    }

    fn describe(&self, schema: &Value, path: &str, found: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.strip_prefix('#').unwrap();
            return self.describe(self.document.pointer(pointer).unwrap(), path, found);
        }
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{key}");
            found.push(path.clone());
            self.describe(inner, &path, found);
        }
        if schema.get("items").is_some() {
            self.describe(&schema["items"], &format!("{path}[]"), found);
        }
    }
}

/// The paths of everything that is in a value.
fn seen(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, inner) in entries {
                let path = format!("{path}/{key}");
                found.push(path.clone());
                seen(inner, &path, found);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| seen(item, &format!("{path}[]"), found)),
        _ => {}
    }
}

/// Reports of smokes that end in all ways.
fn smokes() -> Vec<(String, Value)> {
    let shell = |script: &str| json!({"name": "model", "argv": ["sh", "-c", script], "timeout": "400ms"});
    let everything = json!(["torch", "spconv", "torchvision", "torch-scatter", "mmcv"]);
    let broken =
        r#"{"forward float32": {"broken": "CUDA error: an illegal memory access", "raise": "RuntimeError"}}"#;
    let cases = [
        ("all is well", Scene::new().smoke(everything.clone()), &[][..]),
        (
            "no GPU",
            Scene::new().smoke(everything.clone()).without_driver(),
            &["--gpu", "optional"],
        ),
        ("CUDA broken", Scene::acting(broken).smoke(everything), &[]),
        (
            "import",
            Scene::acting(r#"{"import spconv": {"raise": "ImportError", "message": "m"}}"#),
            &[],
        ),
        (
            "wrong",
            Scene::acting(r#"{"forward float32": {"difference": 0.5}}"#),
            &[],
        ),
        (
            "NVRTC",
            Scene::acting(r#"{"forward float32": {"nvrtc": ["a"]}}"#),
            &[],
        ),
        (
            "a crash",
            Scene::acting(r#"{"forward float32": {"raise_signal": 11}}"#),
            &[],
        ),
        (
            "an exit",
            Scene::acting(r#"{"forward float32": {"leave": 3}}"#),
            &[],
        ),
        (
            "nonsense",
            Scene::acting(r#"{"import torch": {"write": [3, "x\n"]}}"#),
            &[],
        ),
        (
            "a hang",
            Scene::acting(r#"{"import torch": {"hang": "sleep"}}"#),
            &["--smoke-timeout", "400ms"],
        ),
        (
            "no Python",
            Scene::new(),
            &["--python", "/nowhere", "--stage", "smoke"],
        ),
        ("a command", Scene::new().smoke(json!([shell("echo fine")])), &[]),
        (
            "a command's exit",
            Scene::new().smoke(json!([shell("exit 3")])),
            &[],
        ),
        (
            "a command's crash",
            Scene::new().smoke(json!([shell("kill -SEGV $$")])),
            &[],
        ),
        (
            "a command's hang",
            Scene::new().smoke(json!([shell("sleep 600")])),
            &[],
        ),
        (
            "no command",
            Scene::new().smoke(json!([{"name": "model", "argv": ["nowhere"]}])),
            &[],
        ),
        (
            "a command left out",
            Scene::new().smoke(json!([{"name": "model", "argv": ["x"], "gpu": true}])),
            &["--gpu", "off"],
        ),
        (
            "a framework",
            Scene::new().frameworks("").smoke(json!(["jax"])),
            &[],
        ),
        ("off", Scene::new(), &["--smoke", "off"]),
    ];
    let report =
        |(name, scene, options): (&str, Scene, &[&str])| (name.to_string(), scene.check(options).report);
    cases.into_iter().map(report).collect()
}

#[test]
fn reports_of_smokes_are_what_their_schema_says() {
    let schema = Schema::printed("report");
    let mut found = Vec::new();
    for (name, report) in smokes() {
        assert!(report.is_object(), "{name} has none");
        schema.accepts(&report);
        assert_eq!(schema.undescribed(&report), [""; 0], "{name}");
        if let Some(smoke) = report.pointer("/facts/smoke") {
            seen(smoke, "", &mut found);
            for (run, key) in [
                (&smoke["builtin"], "builtin"),
                (&smoke["commands"][0], "commands[]"),
            ] {
                if let Some(end) = run["end"].as_str() {
                    found.push(format!("{key} {end}"));
                }
            }
        }
    }
    for report in crate::native::reports() {
        schema.accepts(&report);
        assert_eq!(schema.undescribed(&report), [""; 0], "{report:#}");
        seen(&report["facts"]["smoke"], "", &mut found);
    }
    // And these are unlike enough: nothing is described that is in none of them.
    // A framework's process is described where torch's is, and has no JIT of spconv's and no end of its own kind.
    let of_any = |path: String| path.replace("/frameworks[]/", "/builtin/");
    let found: Vec<String> = found.into_iter().map(of_any).collect();
    let described = schema.described("/properties/facts/properties/smoke");
    let mut missing: Vec<String> = described.into_iter().map(of_any).collect();
    let ends: Vec<String> =
        serde_json::from_value(schema.document["$defs"]["smoke_end"]["enum"].clone()).unwrap();
    for end in &ends {
        missing.push(format!("builtin {end}"));
        // Commands have no protocol.
        if end != "garbled" {
            missing.push(format!("commands[] {end}"));
        }
    }
    assert!(missing.len() > 50, "{missing:?}");
    missing.retain(|path| !found.contains(path));
    assert_eq!(missing, [""; 0]);
}

/// Reports of runs that are as unlike as can be, by name.
fn reports() -> Vec<(String, Value)> {
    let full = r#"{"schema": 1, "name": "full", "cuda": {"runtime": "12.4", "nvrtc": "12.4", "driver": ">=12.4"},
        "archs": "8.0;9.0", "python": ">=3.9", "packages": {"foo": "==1.0", "bar": "*"}, "files": ["foo/a.h", "none"],
        "smoke": ["torch"], "limits": {"shm": "1GiB", "memlock": "unlimited"}}"#;
    let world = World::new();
    world.write("full.json", full);
    environment(&world);
    let mut all = Vec::new();
    let mut add = |name: &str, options: &[&str], driver: Option<&str>| {
        let mut command = world.entrypoint(["check", "--stack", "full.json", "--python", "env", "--json"]);
        command.args(options).env("CUDA_VISIBLE_DEVICES", "0");
        if let Some(script) = driver {
            world.with_gpu(&mut command, script);
        }
        let run = Run::of(&mut command);
        let report: Value =
            serde_json::from_str(run.text()).unwrap_or_else(|e| panic!("{name}: {e}: {run:?}"));
        assert_eq!(run.code().unwrap(), report["exit_code"], "{name}");
        all.push((name.to_string(), report));
    };
    add("no driver", &[], None);
    add("no GPU asked for", &["--gpu", "off"], None);
    add("no helper", &["--helper-path", "none"], Some("{}"));
    let everything = r#"{"devices": [{"repeat": 2}, {"mig": true, "mig_instances": 2, "compute_mode": 3}]}"#;
    add("healthy", &[], Some(everything));
    for stage in ["image", "device", "health"] {
        add(stage, &["--stage", stage], Some("{}"));
    }
    for (name, calls) in [
        (
            "crash",
            r#""cuInit": {"signal": 11}, "nvmlInit_v2": {"signal": 6}"#,
        ),
        ("exit", r#""cuInit": {"exit": 3}"#),
        ("garbage", r#""cuInit": {"flood": 9000000}"#),
        (
            "error",
            r#""cuInit": {"returns": 802}, "nvmlInit_v2": {"returns": 18}"#,
        ),
        (
            "device error",
            r#""cuDeviceGetName": {"returns": 999}, "nvmlDeviceGetName": {"returns": 15}"#,
        ),
        ("hang", r#""cuInit": {"hang": true}"#),
    ] {
        let script = format!(r#"{{"calls": {{{calls}}}}}"#);
        let deadline: &[&str] = if name == "hang" {
            &["--device-timeout", "400ms"]
        } else {
            &[]
        };
        add(name, deadline, Some(&script));
    }
    // `run` writes the same.
    let mut command: Command = world.run(&["--gpu", "optional", "--report", "report.json"], &["true"]);
    Run::of(&mut command).exits(0);
    let report = serde_json::from_str(&world.read("report.json").unwrap()).unwrap();
    all.push(("run".to_string(), report));
    all
}

/// A Python environment in which there is something of everything that is looked for.
fn environment(world: &World) {
    let site = "env/lib/python3.11/site-packages";
    world.write("env/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.4\n");
    world.copy(probe(), "env/bin/python3.11");
    symlink("python3.11", world.path("env/bin/python")).unwrap();
    let metadata =
        |name: &str| format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: baz<2\n");
    for name in ["foo", "torch", "spconv", "cumm"] {
        let info = format!("{site}/{name}-1.0.dist-info");
        world.write(&format!("{info}/METADATA"), metadata(name));
        world.write(
            &format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n",
        );
        world.write(&format!("{info}/RECORD"), "");
    }
    world.write(
        &format!("{site}/torch/version.py"),
        "__version__ = '1.0+cu124'\ncuda = '12.4'\n",
    );
    world.write(&format!("{site}/bad-2.0.dist-info/METADATA"), [0xff, 0xfe]);
    world.write(&format!("{site}/foo/a.h"), "");
    world.write(&format!("{site}/odd.pth"), "import os\n");
    // What makes spconv believe that it is being developed.
    world.write(&format!("{site}/spconv/__init__.py"), "");
    world.write(&format!("{site}/cumm/__init__.py"), "");
    world.write(&format!("{site}/.gitignore"), "");
    world.write(&format!("{site}/setup.py"), "");
    world.write(
        &format!("{site}/nvidia/cuda_runtime/lib/libcudart.so.12"),
        "not a library",
    );
    world.write(
        &format!("{site}/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"),
        "not a library",
    );
}

#[test]
fn reports_are_what_their_schema_says() {
    let schema = Schema::printed("report");
    let reports = reports();
    for (name, report) in &reports {
        schema.accepts(report);
        assert_eq!(schema.undescribed(report), [""; 0], "{name}");
    }
    // And the runs above are not all alike: each of these is in one of them.
    for pointer in [
        "/facts/image/distributions/1/requires",
        "/facts/image/editable/0",
        "/facts/image/files/0/path",
        "/facts/image/libraries/0/answer/error",
        "/facts/image/python/site_packages/0",
        "/facts/device/driver/error/code",
        "/facts/device/driver/load_error",
        "/facts/device/devices/0/uuid",
        "/facts/device/nvml_devices/2/mig_instances",
        "/facts/device/nvml/error",
        "/facts/limits/shm_bytes",
        "/facts/environment/CUDA_VISIBLE_DEVICES",
    ] {
        assert!(
            reports.iter().any(|(_, r)| r.pointer(pointer).is_some()),
            "{pointer}"
        );
    }
    let ends: Vec<&str> = reports
        .iter()
        .filter_map(|(_, r)| r["facts"]["device"]["helper"]["end"].as_str())
        .collect();
    for end in ["not-run", "done", "not-started", "crashed", "exited", "timed-out"] {
        assert!(ends.contains(&end), "{end} is not among {ends:?}");
    }
}

#[test]
fn the_schema_of_the_report_refuses_what_is_none() {
    let schema = Schema::printed("report");
    let (_, report) = reports().swap_remove(0);
    for (pointer, wrong) in [
        ("/schema", json!(2)),
        ("/verdict", json!("maybe")),
        ("/exit_code", json!(1)),
        ("/stack", json!({"name": "x"})),
        ("/findings/0/status", json!("bad")),
        ("/findings/0/code", json!("Not Kebab")),
        ("/facts/device/helper", json!({})),
        ("/timing_ms/total", json!("1 ms")),
    ] {
        let mut changed = report.clone();
        *changed.pointer_mut(pointer).unwrap() = wrong;
        assert!(schema.refuses(&changed), "{pointer}");
    }
    for key in report.as_object().unwrap().keys() {
        let mut changed = report.clone();
        changed.as_object_mut().unwrap().remove(key);
        assert!(schema.refuses(&changed), "without {key}");
    }
    // The walk finds a key that is described nowhere, however deep.
    let mut changed = report.clone();
    changed["facts"]["image"]["python"]["surprise"] = json!(1);
    assert_eq!(schema.undescribed(&changed), ["/facts/image/python/surprise"]);
}

#[test]
fn no_value_of_the_environment_is_reported_unless_it_decides_what_is_visible() {
    let world = World::new();
    let mut command = world.check(&["--gpu", "optional", "--json"]);
    command
        .env("API_TOKEN", "s3cr3t-value")
        .env("NVIDIA_VISIBLE_DEVICES", "all");
    let run = Run::of(&mut command);
    run.exits(0);
    assert!(!run.text().contains("s3cr3t-value"));
    let report: Value = serde_json::from_str(run.text()).unwrap();
    assert_eq!(report["facts"]["environment"]["NVIDIA_VISIBLE_DEVICES"], "all");
}

#[test]
fn the_same_failure_has_the_same_report_every_time() {
    // Only clocks differ.
    let report = || {
        let world = World::new();
        let mut command = world.check(&["--gpu", "required", "--json"]);
        world.with_gpu(&mut command, r#"{"devices": [{"repeat": 4, "ecc": 2}], "calls": {"cuDeviceGetName": {"device": 1, "returns": 999}}}"#);
        let mut report: Value = serde_json::from_slice(&Run::of(&mut command).stdout).unwrap();
        report["timing_ms"] = Value::Null;
        for run in [
            "/facts/image/helper",
            "/facts/device/helper",
            "/facts/device/nvml_helper",
        ] {
            report.pointer_mut(run).unwrap()["ms"] = Value::Null;
        }
        report.to_string()
    };
    let first = report();
    for _ in 0..5 {
        assert_eq!(report(), first);
    }
}

// The manifest

#[test]
fn the_stack_in_force_is_shown_and_can_be_given_back() {
    let world = World::new();
    let show = |options: &[&str]| {
        let mut command = world.entrypoint(["stack", "show"]);
        let run = Run::of(command.args(options));
        run.exits(0);
        assert_eq!(run.stderr, "");
        run.text().to_string()
    };
    let schema = Schema::printed("stack");
    world.write("every-part.json", EVERY_PART);
    for (options, name) in [
        (&["--stack", "every-part.json"][..], "every-part"),
        (&["--stack", "stack.json"], "t"),
        // Where no file is in force it is the one that comes along.
        (&[], "pointcept-cu124"),
    ] {
        let text = show(&[options, &["--json"]].concat());
        let manifest: Value = serde_json::from_str(&text).unwrap();
        schema.accepts(&manifest);
        assert_eq!(manifest["name"], name);
        world.write("again.json", &text);
        assert_eq!(show(&["--stack", "again.json", "--json"]), text, "{name}");
        // The same table, but for where it came from.
        let table = show(options);
        let again = show(&["--stack", "again.json"]);
        let without_source = |table: &str| -> Vec<String> {
            table
                .lines()
                .filter(|l| !l.starts_with("source"))
                .map(str::to_string)
                .collect()
        };
        assert_eq!(without_source(&table), without_source(&again));
        assert!(again.contains("source     again.json\n"), "{again}");
        assert!(table.contains(name));
        assert_eq!(show(&[options, &["--format", "json"]].concat()), text);
    }
    let given = show(&["--stack", "stack.json", "--archs", "8.0 9.0+PTX"]);
    assert!(
        given.contains("stack.json, archs from --archs") && given.contains("9.0+PTX"),
        "{given}"
    );
}

const EVERY_PART: &str = r#"{
  "schema": 1,
  "name": "every-part",
  "cuda": {"runtime": "12.4", "nvrtc": "12.4", "driver": ">=12.4"},
  "archs": "8.0;9.0+PTX",
  "env": {"A": "1", "B": "two words\n"},
  "python": ">=3.9,<3.13",
  "packages": {"torch": "==2.5.0+cu124", "mmcv": {"version": "==2.2.0", "optional": true}},
  "files": ["cumm/include/tensorview/core/all.h"],
  "smoke": ["torch", {"name": "model", "argv": ["python", "-c", "print('x y')"], "timeout": "60s", "gpu": true}],
  "limits": {"shm": "1GiB", "memlock": "unlimited"}
}"#;

#[test]
fn the_variables_are_in_force_too() {
    let world = World::new();
    let mut command = world.entrypoint(["stack", "show"]);
    command
        .env("CUDA_ENTRYPOINT_STACK", "stack.json")
        .env("CUDA_ENTRYPOINT_ARCHS", "Hopper");
    let run = Run::of(&mut command);
    run.exits(0);
    assert!(
        run.text()
            .contains("stack.json, archs from CUDA_ENTRYPOINT_ARCHS"),
        "{}",
        run.text()
    );
    assert!(run.text().contains("9.0"));
    command.env("CUDA_ENTRYPOINT_ARCHS", "7,5");
    Run::of(&mut command).exits(78);
}
