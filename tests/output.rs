//! What is said and where: standard output is the service's, standard error is for people or for machines, and the
//! termination log is for whoever asks why a container ended.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run, Running, World, kill};
use serde_json::Value;

/// One GPU with a fault: the device stage fails.
const FAULT: &str = r#"{"devices": [{"ecc": 3}]}"#;
/// The H200 runs what is built for 9.0 and is not on the list: the architecture stage warns.
const UNLISTED: &[&str] = &["--gpu", "required", "--archs", "8.6;9.0+PTX"];

/// A run with the fake driver.
fn with_driver(world: &World, options: &[&str], service: &[&str], script: &str) -> Command {
    let mut command = world.run(&[&["--gpu", "required"], options].concat(), service);
    world.with_gpu(&mut command, script);
    command
}

// Standard output

#[test]
fn run_writes_nothing_to_standard_output() {
    let world = World::new();
    let printed = ["printf", "a\\nb\\377c"];
    let quiet = [
        world.run(&[], &printed),
        with_driver(&world, &[], &printed, "{}"),
        world.run(&["--gpu", "optional"], &printed),
        world.run(&["--gpu", "required", "--mode", "warn"], &printed),
        world.run(&["--mode", "off"], &printed),
        world.run(&["--log", "trace"], &printed),
        world.run(&["--format", "json", "--log", "trace"], &printed),
        world.run(&["--report", "report.json"], &printed),
        world.run(&["--stack", "absent", "--mode", "warn"], &printed),
        // The driver's own chatter is on its standard output.
        with_driver(
            &world,
            &[],
            &printed,
            r#"{"calls": {"cuInit": {"print": "hello\n"}}}"#,
        ),
    ];
    for mut command in quiet {
        let run = Run::of(&mut command);
        let started = run.code() == Some(0);
        assert_eq!(
            run.stdout,
            if started { &b"a\nb\xffc"[..] } else { b"" },
            "{command:?}"
        );
    }
    let failures: [&[&str]; 5] = [
        &["--gpu", "required"],
        &["--gpu", "required", "--format", "json"],
        &["--stack", "absent"],
        &["--wait", "soon"],
        &["--gpu", "required", "--log", "trace"],
    ];
    for options in failures {
        let run = Run::of(&mut world.run(options, &printed));
        assert_ne!(run.code(), Some(0));
        run.prints("");
    }
}

#[test]
fn success_is_one_line_on_standard_error() {
    let world = World::new();
    let run = Run::of(&mut world.run(&[], &["true"]));
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(
        run.stderr
            .starts_with("cuda-entrypoint: ok: nothing to prove; stack t (stack.json); ")
    );
    assert!(
        run.stderr.ends_with(" ms; exec /usr/bin/true\n"),
        "{}",
        run.stderr
    );

    let run = Run::of(&mut with_driver(
        &world,
        &[],
        &["true"],
        r#"{"devices": [{"repeat": 8}]}"#,
    ));
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    run.says("ok: driver 580.159.04 for CUDA 13.0, 8 × NVIDIA H200 (9.0); stack t (stack.json); ");
    for level in ["error", "warn"] {
        let run = Run::of(&mut with_driver(&world, &["--log", level], &["true"], "{}"));
        run.exits(0);
        assert_eq!(run.stderr, "", "{level}");
    }
}

#[test]
fn a_failure_is_said_whatever_the_level() {
    let world = World::new();
    for level in ["error", "warn", "info"] {
        let run = Run::of(&mut world.run(&["--gpu", "required", "--log", level], &["true"]));
        run.exits(82).says("driver-missing: not starting /usr/bin/true");
        run.says("observed:").says("required:").says("hint:");
        run.says("cuda-entrypoint explain driver-missing");
    }
}

#[test]
fn debug_says_more() {
    let world = World::new();
    let run = |level| Run::of(&mut with_driver(&world, &["--log", level], &["true"], "{}")).stderr;
    assert!(!run("info").contains("helper started"));
    assert!(run("debug").contains("cuda-entrypoint: debug: helper started"));
}

// JSON logs

/// Each line of standard error is an object with a level and a message; these are theirs.
fn levels(run: &Run) -> Vec<(String, Value)> {
    let log = run.log();
    let text = |line: &Value, key: &str| {
        line[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key}: {line}"))
            .to_string()
    };
    for line in &log {
        assert!(!text(line, "message").is_empty(), "{line}");
    }
    log.into_iter().map(|line| (text(&line, "level"), line)).collect()
}

#[test]
fn every_line_of_a_json_log_is_an_object() {
    let world = World::new();
    world.write("bad.json", "{\"schema\": 1,\n \"nam\": \"\u{1b}[31mx\"}");
    let json = |command: &mut Command| {
        let run = Run::of(command.env("CUDA_ENTRYPOINT_FORMAT", "json"));
        (levels(&run), run)
    };

    let (pass, run) = json(&mut with_driver(&world, &[], &["true"], "{}"));
    run.exits(0);
    assert_eq!((pass.len(), pass[0].0.as_str()), (1, "INFO"));
    assert_eq!(
        (&pass[0].1["verdict"], &pass[0].1["stack"]),
        (&"pass".into(), &"t".into())
    );

    let (warn, run) = json(&mut world.run(&["--gpu", "optional"], &["true"]));
    run.exits(0);
    assert_eq!(
        (warn[0].0.as_str(), &warn[0].1["code"]),
        ("WARN", &"driver-missing".into())
    );
    assert_eq!(
        (warn[1].0.as_str(), &warn[1].1["verdict"]),
        ("INFO", &"warn".into())
    );

    let (fail, run) = json(&mut with_driver(&world, &[], &["true"], FAULT));
    run.exits(82);
    let first = &fail[0].1;
    assert_eq!(
        (fail[0].0.as_str(), &first["code"]),
        ("ERROR", &"gpu-unhealthy".into())
    );
    for key in ["stage", "subject", "observed", "required", "hint"] {
        assert!(!first[key].as_str().unwrap().is_empty(), "{key}: {first}");
    }
    let last = &fail.last().unwrap().1;
    assert_eq!(
        (&last["verdict"], &last["exit_code"]),
        (&"fail".into(), &82.into())
    );
    assert_eq!(last["message"], "not starting the service");

    let (fail, run) = json(&mut with_driver(&world, &["--mode", "warn"], &["true"], FAULT));
    run.exits(0);
    let message = &fail.last().unwrap().1["message"];
    assert_eq!(message, "starting the service anyway (mode warn)");
}

#[test]
fn what_keeps_it_from_checking_is_an_object_too() {
    let world = World::new();
    world.write("bad.json", "{\"schema\": 1,\n \"na\u{1b}[31mm\": 1}");
    let run = |options: &[&str], service: &[&str]| world.run(options, service);
    let misspelt = |mut command: Command| {
        command.env("CUDA_ENTRYPOINT_MODES", "off");
        command
    };
    let without_service = || {
        let mut command = world.entrypoint(["run", "--stack", "stack.json"]);
        command.args(["--gpu", "off"]);
        command
    };
    let cases = [
        (run(&["--stack", "bad.json"], &["true"]), 78, "bad.json"),
        (run(&["--stack", "absent"], &["true"]), 78, "absent"),
        (run(&["--wait", "soon"], &["true"]), 64, "--wait"),
        (run(&["--no-such"], &["true"]), 64, "--no-such"),
        (run(&["--receipt="], &["true"]), 64, "--receipt"),
        (run(&["--no-such", "--mode", "warn"], &["true"]), 0, "unchecked"),
        (
            run(&["--stack", "absent", "--mode", "warn"], &["true"]),
            0,
            "unchecked",
        ),
        (run(&["--mode", "off"], &["true"]), 0, "mode is off"),
        (run(&["--mode", "off"], &["none"]), 127, "`none`"),
        (run(&[], &["none"]), 127, "`none`"),
        (run(&[], &["./stack.json"]), 126, "stack.json"),
        (without_service(), 64, "no service command"),
        (misspelt(run(&[], &["true"])), 0, "CUDA_ENTRYPOINT_MODES"),
        (
            run(&["--report", "/no/such/folder/r"], &["true"]),
            0,
            "/no/such/folder/r",
        ),
        (
            run(&["--termination-log", "/no/such/folder/t"], &["none"]),
            127,
            "/no/such/folder/t",
        ),
    ];
    for (mut command, code, part) in cases {
        let run = Run::of(command.env("CUDA_ENTRYPOINT_FORMAT", "json"));
        run.exits(code);
        let log = levels(&run);
        let said = log
            .iter()
            .any(|(_, line)| line["message"].as_str().unwrap().contains(part));
        assert!(said, "no {part:?} in {}", run.stderr);
        assert!(!run.stderr.contains('\u{1b}'));
    }
    // As a flag, also where the command line is wrong elsewhere.
    for flag in [&["--format", "json"][..], &["--format=json"]] {
        levels(&Run::of(
            &mut world.run(&[&["--no-such"], flag].concat(), &["true"]),
        ));
    }
    // And check.
    let mut command = world.entrypoint(["check", "--stack", "absent", "--format", "json"]);
    let run = Run::of(&mut command);
    run.exits(78).prints("");
    assert_eq!(levels(&run).len(), 1);
}

#[test]
fn a_signal_is_an_object_too() {
    let world = World::new();
    let script = r#"{"calls": {"cuInit": {"hang": true}}}"#;
    let mut command = with_driver(&world, &["--format", "json"], &["true"], script);
    let running = Running::start(&mut command);
    running.helper_in_driver();
    kill(running.pid(), nix::sys::signal::Signal::SIGTERM);
    let run = running.finish();
    run.exits(143);
    assert!(levels(&run)[0].1["message"].as_str().unwrap().contains("SIGTERM"));
}

// Colour

#[test]
fn colour_is_for_terminals_alone() {
    let world = World::new();
    let table = Run::of(with_driver_check(&world).env("TERM", "xterm"));
    table.exits(82);
    assert!(table.text().contains("✗") && !table.text().contains('\u{1b}'));
    let run = Run::of(with_driver(&world, &[], &["true"], FAULT).env("TERM", "xterm"));
    run.exits(82).says("✗").does_not_say("\u{1b}");
    Need::Script.demand();
    // check writes to its standard output, run to its standard error; here both are a terminal.
    for verb in ["check", "run"] {
        let on_terminal = |variables: &[(&str, &str)]| {
            let mut command = world.command("script");
            let service = if verb == "run" { "-- true" } else { "" };
            let line = format!("'{ENTRYPOINT}' {verb} --stack stack.json {service}");
            command.args(["-qec", &line, "/dev/null"]);
            command.envs(variables.iter().copied());
            let run = Run::of(world.with_gpu(&mut command, FAULT));
            run.exits(82);
            run.text().to_string()
        };
        let coloured = on_terminal(&[("TERM", "xterm")]);
        assert!(coloured.contains("\u{1b}[31m✗\u{1b}[0m"), "{coloured:?}");
        // An empty NO_COLOR is none (no-color.org).
        assert!(on_terminal(&[("NO_COLOR", "")]).contains('\u{1b}'));
        for variable in [("NO_COLOR", "1"), ("NO_COLOR", "0"), ("TERM", "dumb")] {
            let plain = on_terminal(&[variable]);
            assert!(
                plain.contains('✗') && !plain.contains('\u{1b}'),
                "{variable:?} {plain:?}"
            );
        }
    }
}

/// A terminal's lines are filled by its width or by COLUMNS; a log keeps one finding a line.
#[test]
fn lines_are_wrapped_for_terminals_alone() {
    let world = World::new();
    let mut command = with_driver_check(&world);
    let logged = Run::of(command.env("COLUMNS", "40"));
    let long = |text: &str, most: usize| text.lines().any(|line| line.chars().count() > most);
    assert!(long(logged.text(), 100), "{}", logged.text());
    Need::Script.demand();
    for verb in ["check", "run"] {
        let mut command = world.command("script");
        let service = if verb == "run" { "-- true" } else { "" };
        let line = format!("'{ENTRYPOINT}' {verb} --stack stack.json {service}");
        command.args(["-qec", &line, "/dev/null"]);
        command.envs([("NO_COLOR", "1"), ("COLUMNS", "60"), ("TERM", "xterm")]);
        let run = Run::of(world.with_gpu(&mut command, FAULT));
        run.exits(82);
        // A word, such as a path, stays whole.
        let of_words = run.text().lines().filter(|line| line.trim().contains(' '));
        let of_words: String = of_words.map(|line| format!("{line}\n")).collect();
        assert!(!long(&of_words, 60), "{}", run.text());
    }
}

#[test]
fn a_check_ends_with_totals_and_quiet_leaves_out_what_holds() {
    let world = World::new();
    let mut command = with_driver_check(&world);
    let run = Run::of(&mut command);
    let lines: Vec<&str> = run.text().lines().collect();
    let totals = lines.get(lines.len() - 2).unwrap();
    assert!(totals.contains("1 failed"), "{}", run.text());
    let quiet = Run::of(command.arg("--quiet"));
    quiet.exits(82);
    let text = quiet.text();
    assert!(
        text.contains("✗") && text.contains(totals) && !text.contains('✓'),
        "{text}"
    );
}

/// What failed is what its reader looks for; a warning of an earlier stage comes after it.
#[test]
fn a_failed_start_begins_with_what_failed() {
    let world = World::new();
    let warn = ["--warn", "package-missing"];
    world.write(
        "stack.json",
        r#"{"schema": 1, "name": "t", "packages": {"x": "*"}}"#,
    );
    let run = Run::of(&mut with_driver(&world, &warn, &["true"], FAULT));
    run.exits(82).says("(Python: ");
    let (failed, warned) = (
        run.stderr.find('✗').unwrap(),
        run.stderr.find("package-missing").unwrap(),
    );
    assert!(failed < warned, "{}", run.stderr);
}

fn with_driver_check(world: &World) -> Command {
    let mut command = world.check(&["--gpu", "required"]);
    world.with_gpu(&mut command, FAULT);
    command
}

#[test]
fn json_on_a_terminal_stays_json() {
    Need::Script.demand();
    let world = World::new();
    let mut command = world.command("script");
    let line = format!("'{ENTRYPOINT}' check --stack stack.json --format json");
    let run = Run::of(world.with_gpu(command.args(["-qec", &line, "/dev/null"]), FAULT));
    run.exits(82);
    let report: Value = serde_json::from_str(run.text()).unwrap();
    assert_eq!(report["verdict"], "fail");
}

#[test]
fn nothing_that_came_from_a_file_steers_a_terminal() {
    let world = World::new();
    let name = r#"{"devices": [{"name": "\u001b[2J\u202eevil\nname", "ecc": 1}]}"#;
    for (format, code) in [("human", 82), ("json", 82)] {
        for mut command in [with_driver(&world, &["--format", format], &["true"], name), {
            let mut command = world.check(&["--gpu", "required", "--format", format]);
            world.with_gpu(&mut command, name);
            command
        }] {
            let run = Run::of(&mut command);
            run.exits(code);
            let all = format!(
                "{}{}{}",
                run.text(),
                run.stderr,
                world.read("termination").unwrap()
            );
            assert!(all.contains("evil"), "{all}");
            assert!(!all.contains(['\u{1b}', '\u{202e}']), "{all:?}");
            assert!(!all.contains("evil\nname"), "{all:?}");
        }
    }
}

// Standard error that is not there

#[test]
fn a_standard_error_that_is_gone_changes_nothing() {
    let world = World::new();
    for options in [
        &[][..],
        &["--format", "json"],
        &["--mode", "off"],
        &["--log", "trace"],
    ] {
        for (service, code) in [("echo", 0), ("no-such-command", 127)] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = world.run(options, &[service, "x"]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer);
            let run = Running::start_as_is(&mut command).finish();
            run.exits(code);
            let full = File::options().write(true).open("/dev/full").unwrap();
            let mut command = world.run(options, &[service, "x"]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(full);
            let run = Running::start_as_is(&mut command).finish();
            run.exits(code).prints(if code == 0 { "x\n" } else { "" });
        }
    }
}

// The report's file

#[test]
fn a_report_that_cannot_be_written_is_a_warning() {
    let world = World::new();
    fs::create_dir(world.path("folder")).unwrap();
    world.fifo("fifo");
    for target in ["folder", "no/such/folder/report", "fifo", "/dev/full"] {
        let run = Run::of(&mut world.run(&["--report", target], &["true"]));
        run.exits(0).says("cannot write the report to").says(target);
        let run = Run::of(&mut world.check(&["--report", target]));
        run.exits(0).says("cannot write the report to");
    }
    // A link that somebody put there is not followed, and what it leads to stays.
    world.write("precious", "precious");
    std::os::unix::fs::symlink("precious", world.path("link")).unwrap();
    for run in [
        Run::of(&mut world.run(&["--report", "link"], &["true"])),
        Run::of(&mut world.check(&["--report", "link"])),
    ] {
        run.exits(0)
            .says("cannot write the report to")
            .says("a symbolic link, which is not followed");
    }
    assert_eq!(world.read("precious").unwrap(), "precious");
    // What was there is replaced, whole: who has it open has all of it.
    world.write("report.json", "x".repeat(1 << 20));
    let before = File::open(world.path("report.json")).unwrap();
    Run::of(&mut world.run(&["--report", "report.json"], &["true"])).exits(0);
    let report: Value = serde_json::from_str(&world.read("report.json").unwrap()).unwrap();
    assert_eq!(report["verdict"], "pass");
    assert_eq!(std::io::read_to_string(before).unwrap().len(), 1 << 20);
    let entries = fs::read_dir(world.path("")).unwrap().flatten();
    let left: Vec<_> = entries
        .map(|e| e.file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

// The termination log

#[test]
fn the_termination_log_begins_with_code_sentence_and_hint() {
    let world = World::new();
    Run::of(&mut world.run(&["--gpu", "required"], &["true"])).exits(82);
    let log = world.read("termination").unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        lines[0],
        "driver-missing (exit 82): libcuda.so.1: there is no NVIDIA driver in this container"
    );
    assert!(
        lines[1].starts_with("hint: start the container with the NVIDIA runtime"),
        "{log}"
    );
    assert!(
        lines[2].starts_with("observed: libcuda.so.1: cannot open"),
        "{log}"
    );
}

#[test]
fn every_way_to_fail_is_in_the_termination_log() {
    let world = World::new();
    world.write("bad.json", "{}");
    let cases: [(&[&str], &[&str], i32, &str); 6] = [
        (
            &["--stack", "bad.json"],
            &["true"],
            78,
            "manifest (exit 78): bad.json at line 1",
        ),
        (
            &["--stack", "absent"],
            &["true"],
            78,
            "manifest (exit 78): cannot read the manifest absent",
        ),
        (
            &["--wait", "soon"],
            &["true"],
            64,
            "setting (exit 64): invalid value `soon` for --wait: ",
        ),
        (
            &["--no-such"],
            &["true"],
            64,
            "usage (exit 64): unknown option --no-such",
        ),
        (&[], &[], 64, "usage (exit 64): no service command was given"),
        (&[], &["none"], 127, "service (exit 127): "),
    ];
    for (options, service, code, begins) in cases {
        let _ = fs::remove_file(world.path("termination"));
        Run::of(&mut world.run(options, service)).exits(code);
        let log = world
            .read("termination")
            .unwrap_or_else(|| panic!("nothing for {begins}"));
        assert!(log.starts_with(begins), "{log}");
        assert!(log.contains("\nhint: "), "{log}");
    }
    // By its variable, where the command line cannot be read.
    let mut command = world.entrypoint(["run", "--no-such", "--", "true"]);
    Run::of(command.env("CUDA_ENTRYPOINT_TERMINATION_LOG", "by-variable")).exits(64);
    assert!(world.read("by-variable").unwrap().contains("--no-such"));
}

#[test]
fn it_is_written_by_check_and_not_by_a_run_that_starts_the_service() {
    let world = World::new();
    for options in [
        &[][..],
        &["--gpu", "optional"],
        &["--gpu", "required", "--mode", "warn"],
    ] {
        Run::of(&mut world.run(options, &["true"])).exits(0);
        assert_eq!(world.read("termination"), None, "{options:?}");
    }
    world.write("termination", "the service's own");
    Run::of(&mut world.run(&[], &["true"])).exits(0);
    assert_eq!(world.read("termination").unwrap(), "the service's own");

    Run::of(&mut world.check(&[])).exits(0);
    assert_eq!(world.read("termination").unwrap(), "pass: stack t (stack.json)");
    Run::of(&mut world.check(&["--gpu", "optional"])).exits(0);
    let log = world.read("termination").unwrap();
    assert!(
        log.starts_with("pass, with warnings: stack t (stack.json)\nalso driver-missing: "),
        "{log}"
    );
    Run::of(&mut world.check(&["--gpu", "required"])).exits(82);
    assert!(
        world
            .read("termination")
            .unwrap()
            .starts_with("driver-missing (exit 82): ")
    );
}

#[test]
fn however_much_was_found_it_is_no_longer_than_kubernetes_keeps() {
    let world = World::new();
    // Two bytes a character, so that a cut in the middle of one is likely.
    let many = format!(
        r#"{{"devices": [{{"repeat": 64, "name": "{}", "ecc": 1}}]}}"#,
        "é".repeat(40)
    );
    Run::of(&mut with_driver(&world, &[], &["true"], &many)).exits(82);
    let log = world.read("termination").unwrap();
    assert!((4090..=4096).contains(&log.len()), "{}", log.len());
    assert!(log.starts_with("gpu-unhealthy (exit 82): GPU 0 "), "{log}");
    assert!(log.lines().nth(1).unwrap().starts_with("hint: "), "{log}");
}

#[test]
fn one_that_cannot_be_written_changes_nothing() {
    let world = World::new();
    fs::create_dir(world.path("folder")).unwrap();
    world.fifo("fifo");
    for target in [
        "folder",
        "no/such/folder/log",
        "fifo",
        "/dev/full",
        "/proc/version",
    ] {
        let options = ["--gpu", "required", "--termination-log", target];
        let run = Run::of(&mut world.run(&options, &["true"]));
        run.exits(82)
            .says("driver-missing")
            .says("cannot write the termination message");
        Run::of(&mut world.check(&options)).exits(82);
        Run::of(&mut world.check(&["--termination-log", target])).exits(0);
    }
}

#[test]
fn a_fifo_with_a_reader_gets_the_verdict() {
    let world = World::new();
    let fifo = world.fifo("fifo");
    let reader = File::options().read(true).write(true).open(&fifo).unwrap();
    Run::of(&mut world.run(&["--termination-log", "fifo"], &["none"])).exits(127);
    let mut text = [0; 100];
    let length = std::io::Read::read(&mut &reader, &mut text).unwrap();
    assert!(text[..length].starts_with(b"service (exit 127): "));
}

#[test]
fn a_warning_of_the_architecture_is_a_warning_everywhere() {
    let world = World::new();
    let mut command = world.run(UNLISTED, &["true"]);
    let run = Run::of(world.with_gpu(&mut command, r#"{"devices": [{"cc": "8.9"}]}"#));
    run.exits(0).says("warning: arch-unlisted").says("1 warning");
}

/// An init container's verdict is its own. What a probe, or somebody who came in, finds beside a service is no reason why
/// that died, unless it found one.
#[test]
fn a_check_beside_the_service_leaves_its_last_words_alone() {
    let unshare = ["--mount", "--pid", "--fork", "--mount-proc"];
    Need::MountNamespace.demand();
    Need::PidNamespace.demand();
    let lost = r#"{"calls": {"cuInit": {"returns": 999}}}"#;
    let service = "out of memory";
    for (is_pid_1, stage, driver, expected) in [
        (false, "health", "{}", service),
        (true, "health", "{}", service),
        (false, "device", "{}", service),
        (true, "device", "{}", "pass: stack t (stack.json)"),
        (false, "device", lost, "gpu-not-ready (exit 82): "),
    ] {
        let world = World::new();
        world.write("log", service);
        let mut command = world.command("unshare");
        let script = "mount -t tmpfs none /dev && : >/dev/termination-log && mount --bind log /dev/termination-log && \
            $2 \"$0\" check --stack stack.json --stage \"$1\" || exit $?";
        let how = if is_pid_1 { "exec" } else { "command" };
        command.args(unshare);
        command.args(["sh", "-c", script, ENTRYPOINT, stage, how]);
        let run = Run::of(world.with_gpu(&mut command, driver));
        run.exits(if driver == "{}" { 0 } else { 82 });
        let log = world.read("log").unwrap();
        assert!(log.starts_with(expected), "{stage}, {how}: {log}");
    }
}
