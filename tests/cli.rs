//! The command line: each option and its variable, where the manifest comes from, help, pages and schemas.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::support::needs::Need;
use crate::support::probe::{launcher, probe};
use crate::support::run::{ENTRYPOINT, Run, Running, TINY, World};
use cuda_entrypoint::check::Code;
use cuda_entrypoint::cli::OPTIONS;
use cuda_entrypoint::exit_code::{self, ExitCode};
use serde_json::Value;

// Options and their variables

/// An option, a value of it that can be seen, and how.
struct Row {
    flag: &'static str,
    value: &'static str,
    /// a value for the variable that the flag's must beat; it makes another difference, or none
    other: &'static str,
    /// arguments besides, the command first
    line: &'static [&'static str],
    /// what the fake driver does; no driver without it
    driver: Option<&'static str>,
    seen: fn(&World, &Run) -> String,
}

const CHECK: &[&str] = &["check", "--stack", "stack.json"];
const CHECK_JSON: &[&str] = &[
    "check",
    "--stack",
    "stack.json",
    "--gpu",
    "off",
    "--format",
    "json",
];
const HEALTHY: Option<&str> = Some("{}");

fn code(_: &World, run: &Run) -> String {
    format!("{:?}", run.code())
}

/// What `--…` or the variable is refused with, without the name.
fn refusal(_: &World, run: &Run) -> String {
    if !matches!(run.code(), Some(64 | 78)) {
        return String::new();
    }
    let line = run.stderr.lines().next().unwrap_or_default();
    let is_name = |word: &&str| word.starts_with("--") || word.starts_with("CUDA_ENTRYPOINT_");
    line.split(' ')
        .filter(|word| !is_name(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn report(run: &Run) -> Value {
    serde_json::from_slice(&run.stdout).unwrap_or(Value::Null)
}

/// The status of a finding in the report on standard output.
fn status_of(run: &Run, code: &str) -> String {
    let report = report(run);
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let found = findings.iter().find(|finding| finding["code"] == code);
    found.map_or("absent".into(), |finding| finding["status"].to_string())
}

const ROWS: &[Row] = &[
    Row {
        flag: "mode",
        value: "warn",
        other: "off",
        line: CHECK,
        driver: None,
        seen: |_, run| {
            run.text()
                .lines()
                .last()
                .unwrap_or_default()
                .contains("mode is warn")
                .to_string()
        },
    },
    Row {
        flag: "init",
        value: "",
        other: "0",
        line: &["run", "--stack", "stack.json", "--gpu", "off"],
        driver: None,
        // The service says who its parent is.
        seen: |_, run| (run.text().trim() == std::process::id().to_string()).to_string(),
    },
    Row {
        flag: "quiet",
        value: "",
        other: "0",
        line: &["check", "--stack", "stack.json"],
        driver: Some("{}"),
        seen: |_, run| run.text().contains("✓").to_string(),
    },
    Row {
        flag: "wait",
        value: "2s",
        other: "0s",
        line: CHECK,
        driver: Some(r#"{"calls": {"cuInit": {"returns": 802}}}"#),
        seen: |_, run| run.stderr.contains("waiting up to").to_string(),
    },
    Row {
        flag: "stack",
        value: "another.json",
        other: "stack.json",
        line: &["check", "--gpu", "off", "--format", "json"],
        driver: None,
        seen: |_, run| report(run)["stack"].to_string(),
    },
    Row {
        flag: "archs",
        value: "8.0",
        other: "9.0",
        line: CHECK,
        driver: HEALTHY,
        seen: code,
    },
    Row {
        flag: "gpu",
        value: "off",
        other: "required",
        line: CHECK,
        driver: None,
        seen: code,
    },
    Row {
        flag: "allow",
        value: "gpu-missing, driver-missing",
        other: "shm-small",
        line: CHECK,
        driver: None,
        seen: code,
    },
    Row {
        flag: "warn",
        value: "driver-missing",
        other: "shm-small",
        line: CHECK,
        driver: None,
        seen: code,
    },
    Row {
        flag: "deny",
        value: "nvml-missing",
        other: "package-missing",
        line: &[
            "check",
            "--stack",
            "stack.json",
            "--allow",
            "driver-missing",
            "--format",
            "json",
        ],
        driver: None,
        seen: |_, run| status_of(run, "nvml-missing"),
    },
    Row {
        flag: "smoke",
        value: "off",
        other: "separate",
        line: &[
            "check",
            "--stack",
            "smoke.json",
            "--gpu",
            "off",
            "--format",
            "json",
        ],
        driver: None,
        seen: |_, run| report(run)["smoke"]["mode"].to_string(),
    },
    Row {
        flag: "smoke-devices",
        value: "each",
        other: "all",
        line: CHECK,
        driver: HEALTHY,
        seen: refusal,
    },
    Row {
        flag: "smoke-timeout",
        value: "0s",
        other: "60s",
        line: CHECK,
        driver: HEALTHY,
        seen: refusal,
    },
    Row {
        flag: "python",
        value: "no-such-environment",
        other: "nor-this",
        line: &[
            "check",
            "--stack",
            "python.json",
            "--gpu",
            "off",
            "--format",
            "json",
        ],
        driver: None,
        seen: |_, run| report(run)["facts"]["image"]["python"].to_string(),
    },
    Row {
        flag: "device-timeout",
        value: "300ms",
        other: "50s",
        line: CHECK,
        driver: Some(r#"{"calls": {"cuInit": {"delay_ms": 700}}}"#),
        seen: |_, run| run.text().contains(" after 300 ms").to_string(),
    },
    Row {
        flag: "helper-path",
        value: "no-such-helper",
        other: "nor-this",
        line: CHECK,
        driver: HEALTHY,
        seen: |_, run| run.text().contains("no-such-helper: No such file").to_string(),
    },
    Row {
        flag: "format",
        value: "json",
        other: "human",
        line: &["check", "--stack", "stack.json", "--gpu", "off"],
        driver: None,
        seen: |_, run| report(run)["verdict"].to_string(),
    },
    Row {
        flag: "report",
        value: "report.json",
        other: "another-report.json",
        line: &["check", "--stack", "stack.json", "--gpu", "off"],
        driver: None,
        seen: |world, _| {
            world
                .read("report.json")
                .is_some_and(|r| r.contains("\"verdict\": \"pass\""))
                .to_string()
        },
    },
    Row {
        flag: "termination-log",
        value: "message",
        other: "another-message",
        line: &["check", "--stack", "stack.json", "--gpu", "off"],
        driver: None,
        seen: |world, _| world.read("message").unwrap_or_default(),
    },
    Row {
        flag: "receipt",
        value: "receipt.json",
        other: "another-receipt.json",
        line: CHECK_JSON,
        driver: None,
        seen: |_, run| report(run)["receipt"]["file"].to_string(),
    },
    Row {
        flag: "log",
        value: "debug",
        other: "error",
        line: CHECK,
        driver: HEALTHY,
        seen: |_, run| run.stderr.contains("helper started").to_string(),
    },
];

impl Row {
    /// What is seen with this flag and this variable.
    fn see(&self, flag: Option<&str>, variable: Option<&str>) -> String {
        let world = World::new();
        world.write("another.json", r#"{"schema": 1, "name": "another"}"#);
        world.write("smoke.json", r#"{"schema": 1, "name": "t", "smoke": ["torch"]}"#);
        world.write("python.json", r#"{"schema": 1, "name": "t", "files": ["x"]}"#);
        let mut command = world.entrypoint(self.line);
        if let Some(value) = flag {
            command.arg(format!("--{}", self.flag));
            if self.takes_a_value() {
                command.arg(value);
            }
        }
        if self.line.first() == Some(&"run") {
            command.args(["--", "sh", "-c", "echo $PPID"]);
        }
        if let Some(value) = variable {
            command.env(self.variable(), value);
        }
        if let Some(script) = self.driver {
            world.with_gpu(&mut command, script);
        }
        let seen = (self.seen)(&world, &Run::of(&mut command));
        seen.replace(world.path("").to_str().unwrap().trim_end_matches('/'), "WORLD")
    }

    fn takes_a_value(&self) -> bool {
        let spec = OPTIONS.iter().find(|o| o.flag == self.flag).unwrap();
        spec.bare.is_none()
    }

    fn variable(&self) -> String {
        format!("CUDA_ENTRYPOINT_{}", self.flag.to_uppercase().replace('-', "_"))
    }

    /// A flag without a value is set by any word that does not say no.
    fn variable_value(&self) -> &str {
        if self.takes_a_value() { self.value } else { "1" }
    }
}

#[test]
fn every_option_is_in_the_table() {
    let tested: BTreeSet<&str> = ROWS.iter().map(|row| row.flag).collect();
    let all: BTreeSet<&str> = OPTIONS.iter().map(|option| option.flag).collect();
    assert_eq!(tested, all);
    assert_eq!(tested.len(), ROWS.len());
}

#[test]
fn flag_and_variable_have_the_same_effect() {
    for row in ROWS {
        let without = row.see(None, None);
        let by_flag = row.see(Some(row.value), None);
        assert_ne!(by_flag, without, "--{} has no effect", row.flag);
        assert_eq!(
            row.see(None, Some(row.variable_value())),
            by_flag,
            "{}",
            row.variable()
        );
        assert_eq!(row.see(None, Some("")), without, "an empty {}", row.variable());
        assert_eq!(
            row.see(Some(row.value), Some(row.other)),
            by_flag,
            "--{} beats its variable",
            row.flag
        );
        assert_ne!(
            row.see(None, Some(row.other)),
            by_flag,
            "{}: {}",
            row.variable(),
            row.other
        );
    }
}

#[test]
fn a_report_on_standard_output_is_for_check_alone() {
    let world = World::new();
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        Run::of(&mut world.run(&["--report", name], &["true"]))
            .exits(64)
            .says("stdout belongs to the service")
            .prints("");
    }
    let mut command = world.run(&[], &["true"]);
    // As every variable that makes no sense.
    Run::of(command.env("CUDA_ENTRYPOINT_REPORT", "-"))
        .exits(78)
        .says("invalid value `-` for CUDA_ENTRYPOINT_REPORT: under run, stdout belongs to the service")
        .prints("");
    assert!(
        world
            .read("termination")
            .unwrap()
            .starts_with("setting (exit 78)")
    );
    let run = Run::of(&mut world.check(&["--report", "-"]));
    run.exits(0);
    assert_eq!(report(&run)["verdict"], "pass");
}

/// Each spelling of one thing: the report, the logs, and the tables of other commands.
#[test]
fn json_has_three_spellings_and_one_meaning() {
    let world = World::new();
    let printed = |command: &str, options: &[&str]| {
        let mut command = match command {
            "check" => world.check(&[
                "--warn",
                "driver-missing",
                "--gpu",
                "required",
                "--stage",
                "device",
            ]),
            "kernels" => world.entrypoint(["kernels", "."]),
            _ => world.entrypoint(["stack", "show", "--stack", "stack.json"]),
        };
        let run = Run::of(command.args(options));
        run.exits(0);
        let mut document = report(&run);
        // Times are never the same twice, and facts hold some.
        for measured in ["timing_ms", "facts"] {
            document.as_object_mut().unwrap().remove(measured);
        }
        // stderr is one object a line.
        run.log();
        document
    };
    for command in ["check", "kernels", "stack show"] {
        let expected = printed(command, &["--format", "json"]);
        assert_eq!(printed(command, &["--json"]), expected);
        if command == "check" {
            assert_eq!(printed(command, &["--report", "-"]), expected);
        }
    }
    // A format that is given as well is that of the log.
    let mut command = world.check(&["--report", "-", "--format", "human", "--gpu", "required"]);
    let run = Run::of(command.env("CUDA_ENTRYPOINT_MOD", "x"));
    run.says("cuda-entrypoint: warning: unknown variable");
    assert_eq!(report(&run)["verdict"], "fail");
}

#[test]
fn an_exit_code_has_its_meaning_who_acts_and_its_findings() {
    let world = World::new();
    for exit in ExitCode::ALL {
        let number = exit.code().to_string();
        let run = Run::of(&mut world.entrypoint(["explain", &number]));
        run.exits(0);
        let mut lines = run.text().lines();
        assert_eq!(
            lines.next(),
            Some(&*format!("exit code {number}: {}", exit.meaning()))
        );
        if !exit.who().is_empty() {
            assert_eq!(lines.next(), Some(&*format!("who acts: {}", exit.who())));
        }
        for code in Code::all() {
            let is_listed = run.text().contains(&format!("  {code} "));
            assert_eq!(is_listed, code.exit_code() == *exit, "{code} {number}");
        }
    }
}

#[test]
fn json_is_short_for_the_format() {
    let world = World::new();
    assert_eq!(report(&Run::of(&mut world.check(&["--json"])))["verdict"], "pass");
    Run::of(&mut world.run(&["--json"], &["true"]))
        .exits(64)
        .says("unknown option --json");
}

#[test]
fn variables_that_look_misspelt_are_named_and_service_links_are_not() {
    let world = World::new();
    let said = |name: &str| {
        let run = Run::of(world.run(&[], &["true"]).env(name, "tcp://10.0.0.7:80"));
        run.exits(0);
        run.stderr
            .lines()
            .filter(|line| line.contains("warning"))
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    for (name, meant) in [
        ("CUDA_ENTRYPOINT_MODES", "CUDA_ENTRYPOINT_MODE"),
        ("CUDA_ENTRYPOINT_ARCH", "CUDA_ENTRYPOINT_ARCHS"),
        (
            "CUDA_ENTRYPOINT_TERMINATIONLOG",
            "CUDA_ENTRYPOINT_TERMINATION_LOG",
        ),
        ("CUDA_ENTRYPOINT_DEVICE_TIMOUT", "CUDA_ENTRYPOINT_DEVICE_TIMEOUT"),
    ] {
        let expected =
            format!("cuda-entrypoint: warning: unknown variable {name} has no effect; did you mean {meant}?");
        assert_eq!(said(name), [expected]);
    }
    for name in [
        "CUDA_ENTRYPOINT_PORT",
        "CUDA_ENTRYPOINT_PORT_80_TCP",
        "CUDA_ENTRYPOINT_PORT_80_TCP_ADDR",
        "CUDA_ENTRYPOINT_PORT_80_TCP_PORT",
        "CUDA_ENTRYPOINT_PORT_80_TCP_PROTO",
        "CUDA_ENTRYPOINT_SERVICE_HOST",
        "CUDA_ENTRYPOINT_SERVICE_PORT",
        "CUDA_ENTRYPOINT_SERVICE_PORT_HTTP",
        "CUDA_ENTRYPOINT_VERSION_OF_THE_IMAGE",
        "CUDA_ENTRYPOINTMODE",
        "cuda_entrypoint_mode",
    ] {
        assert_eq!(said(name), [""; 0], "{name}");
    }
}

#[test]
fn bad_usage_is_64_and_says_what_was_meant() {
    let world = World::new();
    let cases: [(&[&str], &str); 22] = [
        (&[], "no command"),
        (&["rum", "--", "x"], "did you mean `run`?"),
        (&["python", "app.py"], "cuda-entrypoint run -- python"),
        (
            &["--mode", "off", "run", "--", "x"],
            "must come after the command",
        ),
        (&["run", "--mod", "off", "--", "x"], "did you mean --mode?"),
        (&["run", "--gpu"], "--gpu requires a value"),
        (
            &["check", "--stage", "gpu"],
            "expected image, device, smoke, all or health",
        ),
        (&["check", "--stage"], "--stage requires a value"),
        (&["explain", "a", "b"], "unexpected argument"),
        (&["schema"], "`stack`, `report` or `kernels`"),
        (&["schema", "reports"], "`stack`, `report` or `kernels`"),
        (&["stack"], "show"),
        (&["stack", "show", "--format", "xml"], "expected human or json"),
        (&["stack", "show", "--stack="], "path is empty"),
        (&["stack", "show", "--archs", "7,5"], "--archs"),
        (&["kernels"], "no file or folder"),
        (
            &["kernels", "stack.json", "absent.so"],
            "absent.so does not exist",
        ),
        (&["kernels", "stack.json/x"], "stack.json/x does not exist"),
        (&["kernels", "--format", "xml", "."], "expected human or json"),
        (&["explain", "83.5"], "no finding is called"),
        (&["explain", "99"], "no finding is called"),
        (&["help", "--no-such"], "unknown option --no-such"),
    ];
    for (arguments, part) in cases {
        let run = Run::of(&mut world.entrypoint(arguments));
        assert_eq!(run.code(), Some(64), "{arguments:?}: {}", run.stderr);
        run.says(part).says("\n  hint: ").prints("");
    }
    let mut command = world.entrypoint(["stack", "show"]);
    Run::of(command.env("CUDA_ENTRYPOINT_FORMAT", "xml")).exits(78);
}

// The manifest

#[test]
fn every_verdict_names_its_manifest() {
    let world = World::new();
    let by = |options: &[&str], variable: Option<&str>| {
        let mut command = world.entrypoint(["check", "--gpu", "off", "--stage", "device", "--json"]);
        command.args(options);
        if let Some(path) = variable {
            command.env("CUDA_ENTRYPOINT_STACK", path);
        }
        report(&Run::of(&mut command))["stack"].clone()
    };
    let of = |name: &str, source: &str| serde_json::json!({"name": name, "source": source});
    world.write("b.json", r#"{"schema": 1, "name": "b"}"#);
    assert_eq!(by(&["--stack", "stack.json"], None), of("t", "stack.json"));
    assert_eq!(by(&[], Some("b.json")), of("b", "b.json"));
    assert_eq!(
        by(&["--stack", "stack.json"], Some("b.json")),
        of("t", "stack.json")
    );
    if !fs::exists("/etc/cuda-entrypoint/stack.json").unwrap() {
        assert_eq!(by(&[], None), of("pointcept-cu124", "embedded"));
    }
    // In the table, in the line on success and on failure.
    let absolute = world.path("stack.json").display().to_string();
    let named = format!("stack t ({absolute})");
    let table = Run::of(&mut world.check(&["--stack", &absolute]));
    assert!(table.text().contains(&named), "{}", table.text());
    Run::of(&mut world.run(&["--stack", &absolute], &["true"]))
        .exits(0)
        .says(&named);
    Run::of(&mut world.run(&["--stack", &absolute, "--gpu", "required"], &["true"]))
        .exits(82)
        .says(&named);
}

#[test]
fn a_manifest_that_is_wrong_is_78_with_its_place() {
    let world = World::new();
    let cases: [(&[u8], &str); 8] = [
        (
            b"{\n  \"schema\": 1,\n  \"nam\": \"x\"\n}",
            "at line 3, column 3 (nam): unknown key `nam`",
        ),
        (b"{\n \"schema\": 1 \"name\"", "at line 2, column 14"),
        (b"", "at line 1, column 1: the manifest is empty"),
        (b"[]", "at line 1, column 1"),
        (b"{\"schema\": 2, \"name\": \"x\"}", "format 2"),
        (b"{\"schema\": 1, \"name\": \"x\", \"archs\": \"7,5\"}", "(archs)"),
        (
            b"{\"schema\": 1,\n\"name\": \"\xff\"}",
            "at line 2, column 10: the manifest is not UTF-8",
        ),
        (b"\x7fELF\x02\x01\x01\0\0\0", "at line 1, column 1"),
    ];
    for (content, part) in cases {
        world.write("bad.json", content);
        for mut command in [
            world.run(&["--stack", "bad.json"], &["true"]),
            world.check(&["--stack", "bad.json"]),
            world.entrypoint(["stack", "show", "--stack", "bad.json"]),
        ] {
            let run = Run::of(&mut command);
            run.exits(78)
                .prints("")
                .says("cuda-entrypoint: bad.json at line ")
                .says(part);
        }
    }
}

#[test]
fn what_is_no_file_of_a_page_is_78_and_does_not_hang() {
    let world = World::new();
    world.fifo("fifo");
    fs::create_dir(world.path("folder")).unwrap();
    world.write("large", " ".repeat(2 << 20) + TINY);
    world.copy(ENTRYPOINT.as_ref(), "binary");
    symlink("nowhere", world.path("dangling")).unwrap();
    for (path, part) in [
        ("fifo", "not a regular file"),
        ("folder", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("large", "longer than 1048576 bytes"),
        ("binary", "longer than 1048576 bytes"),
        ("dangling", "No such file"),
        ("stack.json/x", "Not a directory"),
    ] {
        for mut command in [
            world.run(&["--stack", path], &["true"]),
            world.check(&["--stack", path]),
            world.entrypoint(["stack", "show", "--stack", path]),
        ] {
            Run::of(&mut command).exits(78).prints("").says(part).says(path);
        }
    }
}

/// `check` does not start the command, but `run` would, and end with 127.
#[test]
fn check_warns_of_a_service_command_that_is_not_there() {
    let world = World::new();
    let check = |command: &[&str]| {
        let arguments = ["check", "--stage", "image", "--stack", "none", "--"];
        Run::of(&mut world.entrypoint([&arguments, command].concat()))
    };
    check(&["./nope"])
        .exits(0)
        .says("warning: the service command ./nope does not exist: run would end with exit code 127\n  hint: correct");
    check(&["sh", "-c", "true"]).exits(0).does_not_say("warning");
}

#[test]
fn the_images_own_manifest_comes_before_the_embedded_one() {
    Need::Root.demand();
    let world = World::new();
    world.copy(ENTRYPOINT.as_ref(), "root/entrypoint");
    world.copy(probe(), "root/probe");
    let own = "root/etc/cuda-entrypoint/stack.json";
    let run = |options: &[&str]| {
        let mut command = world.command(launcher());
        command.args(["--", "/usr/sbin/chroot", "root", "/entrypoint", "check"]);
        command
            .args(["--gpu", "off", "--stage", "device", "--json"])
            .args(options);
        Run::of(&mut command)
    };
    let source = |run: &Run| {
        report(run)["stack"]["source"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    };
    assert_eq!(source(&run(&[])), "embedded");
    // A folder in its place, a file in its folder's place.
    world.write("root/etc/cuda-entrypoint", "a file");
    assert_eq!(source(&run(&[])), "embedded");
    fs::remove_file(world.path("root/etc/cuda-entrypoint")).unwrap();
    world.write(own, TINY);
    assert_eq!(source(&run(&[])), "/etc/cuda-entrypoint/stack.json");
    world.write("root/other.json", TINY);
    assert_eq!(source(&run(&["--stack", "/other.json"])), "/other.json");
    fs::write(world.path(own), "{").unwrap();
    run(&[])
        .exits(78)
        .says("/etc/cuda-entrypoint/stack.json at line 1");
    // A ConfigMap that is not there yet must not let the embedded one pass in its place.
    fs::remove_file(world.path(own)).unwrap();
    symlink("..data/stack.json", world.path(own)).unwrap();
    run(&[])
        .exits(78)
        .says("/etc/cuda-entrypoint/stack.json: No such file");
}

// Help and pages

#[test]
fn help_is_as_it_was() {
    let world = World::new();
    let said = |arguments: &[&str]| {
        let run = Run::of(&mut world.entrypoint(arguments));
        run.exits(0);
        assert_eq!(run.stderr, "", "{arguments:?}");
        run.text().to_string()
    };
    // The options of `run` are those of `check`.
    let run = said(&["run", "--help"]);
    let options = &run[run.find(&format!("\n{}:", OPTIONS[0].group)).unwrap()..];
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_run", &["run", "--help"]),
        ("help_check", &["check", "--help"]),
        ("help_kernels", &["kernels", "--help"]),
        ("help_stack", &["stack", "--help"]),
        ("help_install", &["install", "--help"]),
    ] {
        let text = said(arguments).replace(env!("CARGO_PKG_VERSION"), "VERSION");
        let shown = match name {
            // One snapshot shows the exit codes.
            "help_run" => text.replace(&exit_code::table(), "[exit codes]\n"),
            "help_check" => text.replace(options, "\n[options and exit codes of run]\n"),
            _ => text.clone(),
        };
        insta::assert_snapshot!(name, shown);
        let wide = text.lines().find(|line| line.chars().count() > 120);
        assert_eq!(wide, None, "{name}: no terminal is as wide");
    }
    for (one, other) in [
        (&["--help"][..], &["-h"][..]),
        (&["--help"], &["help"]),
        (&["run", "--help"], &["run", "-h"]),
        (&["run", "--help"], &["help", "run"]),
        (&["run", "--help"], &["run", "--gpu", "off", "--help", "--", "x"]),
        (&["check", "--help"], &["help", "check"]),
        (&["stack", "--help"], &["stack", "sohw", "--help"]),
        (&["--version"], &["-V"]),
        (&["--version"], &["version"]),
    ] {
        assert_eq!(said(one), said(other), "{other:?}");
    }
    // Behind `--` it is the service's.
    assert!(
        !Run::of(&mut world.run(&[], &["echo", "--help"]))
            .text()
            .contains("OPTIONS")
    );
    assert_eq!(
        said(&["--version"]),
        format!("cuda-entrypoint {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn every_option_and_exit_code_is_in_the_help() {
    let world = World::new();
    let run = Run::of(&mut world.entrypoint(["run", "--help"]));
    for option in OPTIONS {
        assert!(
            run.text()
                .lines()
                .any(|line| line.starts_with(&format!("  {} ", option.usage()))),
            "{}",
            option.flag
        );
    }
    let exits = Run::of(&mut world.entrypoint(["--help"]));
    for said in [&run, &exits] {
        assert!(said.text().contains(&exit_code::table()), "{}", said.text());
    }
}

#[test]
fn every_finding_has_its_page() {
    let world = World::new();
    let list = Run::of(&mut world.entrypoint(["explain"]));
    for code in Code::all() {
        let run = Run::of(&mut world.entrypoint(["explain", code.name()]));
        run.exits(0);
        assert_eq!(run.text().lines().next(), Some(format!("# {code}").as_str()));
        assert!(run.text().lines().count() > 10, "{code}");
        assert!(list.text().contains(&format!("  {code} ")), "{code}");
    }
    for (wrong, meant) in [
        ("driver-mising", "did you mean `driver-missing`?"),
        ("cudart", "cudart-version"),
        ("Driver-Missing", "driver-missing"),
        ("\u{1b}[31m", "no finding is called"),
        ("", "no finding is called"),
    ] {
        let run = Run::of(&mut world.entrypoint(["explain", wrong]));
        run.exits(64).prints("").says(meant).does_not_say("\u{1b}");
    }
}

#[test]
fn what_needs_no_checks_reads_no_settings_but_its_own() {
    let world = World::new();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["explain"],
        &["explain", "gpu-missing"],
        &["schema", "stack"],
        &["schema", "report"],
        &["schema", "kernels"],
        &["explain", "82"],
        &["help", "run"],
    ] {
        let mut command = world.entrypoint(arguments);
        command
            .env("CUDA_ENTRYPOINT_STACK", "/no/such/file")
            .env("CUDA_ENTRYPOINT_MODE", "nonsense");
        Run::of(&mut command).exits(0);
    }
}

// Where it is printed to

const PRINTING: [&[&str]; 7] = [
    &["explain"],
    &["--help"],
    &["run", "--help"],
    &["schema", "report"],
    &["stack", "show"],
    &["check", "--stack", "stack.json", "--gpu", "off"],
    &["check", "--stack", "stack.json", "--gpu", "off", "--json"],
];

fn printing_to(world: &World, arguments: &[&str], stdout: impl Into<Stdio>) -> Run {
    let mut command: Command = world.entrypoint(arguments);
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    Running::start_as_is(&mut command).finish()
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let world = World::new();
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = printing_to(&world, arguments, writer);
        run.exits(0);
        assert_eq!(run.stderr, "", "{arguments:?}");
    }
    // The verdict stays the verdict.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    printing_to(&world, &["check", "--stack", "stack.json"], writer).exits(82);
    let mut command = world.command("sh");
    let line = format!("{{ '{ENTRYPOINT}' explain; echo \"exit $?\" >&2; }} | head -1");
    let run = Run::of(command.args(["-c", &line]));
    run.exits(0).prints("image\n");
    assert_eq!(run.stderr, "exit 0\n");
}

/// Otherwise what was to be printed is lost without an error.
#[test]
fn a_standard_output_that_is_closed_is_an_error() {
    let world = World::new();
    let other: [&[&str]; 4] = [
        &["help"],
        &["schema", "stack"],
        &["kernels", "."],
        &["install", "installed"],
    ];
    for arguments in PRINTING.iter().chain(&other) {
        let mut command = world.command(launcher());
        command.args(["--close", "1", "--", ENTRYPOINT]).args(*arguments);
        Run::of(&mut command)
            .exits(74)
            .says("cannot write to stdout: Bad file descriptor");
    }
}

#[test]
fn a_disk_that_is_full_is_an_error() {
    let world = World::new();
    for arguments in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let run = printing_to(&world, arguments, full);
        run.exits(74)
            .says("cannot write to stdout: No space left on device");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    printing_to(&world, &["check", "--stack", "stack.json"], full).exits(82);
}
