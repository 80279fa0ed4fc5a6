//! The three modes: `off` looks at nothing, `warn` starts the service whatever was found, `enforce` does not.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run, World};

/// Something that keeps a service from starting.
struct Breakage {
    name: &'static str,
    /// options, in the place of `--stack stack.json --gpu off`
    options: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    /// what the fake driver does; no driver without it
    driver: Option<&'static str>,
    /// exit code under enforce
    code: i32,
    /// what is said about it
    says: &'static str,
}

const BREAKAGES: &[Breakage] = &[
    Breakage {
        name: "a manifest that is no JSON",
        options: &["--stack", "broken.json"],
        variables: &[],
        driver: None,
        code: 78,
        says: "broken.json",
    },
    Breakage {
        name: "a manifest that is not there",
        options: &["--stack", "none.json"],
        variables: &[],
        driver: None,
        code: 78,
        says: "none.json",
    },
    Breakage {
        name: "a manifest that is a folder, by its variable",
        options: &[],
        variables: &[("CUDA_ENTRYPOINT_STACK", "/")],
        driver: None,
        code: 78,
        says: "regular file",
    },
    Breakage {
        name: "a variable that makes no sense",
        options: &["--stack", "stack.json"],
        variables: &[("CUDA_ENTRYPOINT_GPU", "maybe")],
        driver: None,
        code: 78,
        says: "CUDA_ENTRYPOINT_GPU",
    },
    Breakage {
        name: "a flag that makes no sense",
        options: &["--stack", "stack.json", "--wait", "60"],
        variables: &[],
        driver: None,
        code: 64,
        says: "did you mean 60s?",
    },
    Breakage {
        name: "a flag that there is not",
        options: &["--stack", "stack.json", "--gpus", "all"],
        variables: &[],
        driver: None,
        code: 64,
        says: "--gpus",
    },
    Breakage {
        name: "a short flag",
        options: &["-x"],
        variables: &[],
        driver: None,
        code: 64,
        says: "-x",
    },
    Breakage {
        name: "a variable that makes no sense",
        options: &["--stack", "stack.json"],
        variables: &[("CUDA_ENTRYPOINT_DEVICE_TIMEOUT", "soon")],
        driver: None,
        code: 78,
        says: "invalid value `soon`",
    },
    Breakage {
        name: "a report on stdout",
        options: &["--stack", "stack.json", "--gpu", "off", "--report", "-"],
        variables: &[],
        driver: None,
        code: 64,
        says: "stdout belongs to the service",
    },
    Breakage {
        name: "no driver",
        options: &["--stack", "stack.json"],
        variables: &[],
        driver: None,
        code: 82,
        says: "driver-missing",
    },
    Breakage {
        name: "a helper that is not there",
        options: &["--stack", "stack.json", "--helper-path", "/no/helper"],
        variables: &[],
        driver: Some("{}"),
        code: 82,
        says: "/no/helper",
    },
    Breakage {
        name: "a driver that crashes",
        options: &["--stack", "stack.json"],
        variables: &[],
        driver: Some(r#"{"calls": {"cuInit": {"signal": 11}}}"#),
        code: 82,
        says: "SIGSEGV in cuInit",
    },
    Breakage {
        name: "a driver that hangs",
        options: &["--stack", "stack.json", "--device-timeout", "300ms"],
        variables: &[],
        driver: Some(r#"{"calls": {"cuInit": {"hang": true}}}"#),
        code: 85,
        says: " hangs",
    },
    Breakage {
        name: "a GPU that is not on the list",
        options: &["--stack", "stack.json", "--archs", "8.0"],
        variables: &[],
        driver: Some("{}"),
        code: 83,
        says: "arch-unsupported",
    },
];

impl Breakage {
    /// `run` or `check` under this mode, by its variable or by its flag.
    fn command(&self, world: &World, verb: &str, mode: Mode) -> Command {
        world.write("broken.json", "{\n  \"schema\": 1,,\n");
        let mut command = world.entrypoint([verb]);
        command.arg("--termination-log").arg(world.path("termination"));
        command.args(self.options);
        match mode {
            Mode::Flag(mode) => {
                command.args(["--mode", mode]);
            }
            Mode::FlagWithEquals(mode) => {
                command.arg(format!("--mode={mode}"));
            }
            Mode::Variable(mode) => {
                command.env("CUDA_ENTRYPOINT_MODE", mode);
            }
        }
        command.envs(self.variables.iter().copied());
        if let Some(script) = self.driver {
            world.with_gpu(&mut command, script);
        }
        command
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Flag(&'static str),
    FlagWithEquals(&'static str),
    Variable(&'static str),
}

fn each_way(mode: &'static str) -> [Mode; 3] {
    [Mode::Flag(mode), Mode::FlagWithEquals(mode), Mode::Variable(mode)]
}

const SERVICE: [&str; 4] = ["--", "sh", "-c", "echo started ${T_JIT-unset}; exit 7"];

#[test]
fn enforce_keeps_the_service_from_starting() {
    for breakage in BREAKAGES {
        for mode in each_way("enforce") {
            let world = World::new();
            let run = Run::of(breakage.command(&world, "run", mode).args(SERVICE));
            assert_eq!(
                run.code(),
                Some(breakage.code),
                "{}: {}",
                breakage.name,
                run.stderr
            );
            run.prints("").says(breakage.says);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn warn_says_it_and_starts_the_service() {
    for breakage in BREAKAGES {
        for mode in each_way("warn") {
            let world = World::new();
            let run = Run::of(breakage.command(&world, "run", mode).args(SERVICE));
            assert_eq!(run.code(), Some(7), "{}: {}", breakage.name, run.stderr);
            run.says(breakage.says).says("starting");
            // Where the manifest could be read its variables are set.
            let reached = if matches!(breakage.code, 64 | 78) {
                "unset"
            } else {
                "1"
            };
            run.prints(&format!("started {reached}\n"));
            // Whoever reads the log of a service that runs must not take this for its end.
            assert_eq!(world.read("termination"), None, "{}", breakage.name);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn off_starts_the_service_and_says_that_nothing_was_checked() {
    for breakage in BREAKAGES {
        for mode in each_way("off") {
            let world = World::new();
            let run = Run::of(breakage.command(&world, "run", mode).args(SERVICE));
            assert_eq!(run.code(), Some(7), "{}: {}", breakage.name, run.stderr);
            run.prints("started unset\n");
            // Only a command line that cannot be read is mentioned.
            let mentioned = run.stderr.contains(breakage.says);
            assert_eq!(mentioned, run.stderr.contains("unknown option"), "{}", run.stderr);
            let sentence = if mentioned {
                "unchecked: the mode is not enforce"
            } else {
                "nothing is checked: mode is off"
            };
            run.says(sentence);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn check_fails_under_enforce_alone() {
    // `--report -` is right for check.
    for breakage in BREAKAGES.iter().filter(|b| b.name != "a report on stdout") {
        for (mode, code) in [("enforce", breakage.code), ("warn", 0), ("off", 0)] {
            for mode in each_way(mode) {
                let world = World::new();
                let run = Run::of(&mut breakage.command(&world, "check", mode));
                let said = format!("{}{}", run.text(), run.stderr);
                assert_eq!(run.code(), Some(code), "{}: {said}", breakage.name);
                let is_off = matches!(
                    mode,
                    Mode::Flag("off") | Mode::FlagWithEquals("off") | Mode::Variable("off")
                );
                assert!(
                    is_off || said.contains(breakage.says),
                    "{}: {said}",
                    breakage.name
                );
                world.assert_nothing_left();
            }
        }
    }
}

/// Nobody takes it for a check that passed: it says so whatever is logged, prints no report, and leaves its words where
/// Kubernetes looks. A probe leaves none, for they would stand there when the service dies.
#[test]
fn check_under_off_says_that_it_checked_nothing() {
    for (options, says) in [
        (&[][..], "nothing is checked: mode is off (CUDA_ENTRYPOINT_MODE)"),
        (&["--mode", "off"], "nothing is checked: mode is off (--mode)"),
        (
            &["--log", "error", "--json"],
            "nothing is checked: mode is off (CUDA_ENTRYPOINT_MODE)",
        ),
        (
            &["--stage", "health"],
            "nothing is checked: mode is off (CUDA_ENTRYPOINT_MODE)",
        ),
    ] {
        let world = World::new();
        let mut command = world.check(options);
        let run = Run::of(command.env("CUDA_ENTRYPOINT_MODE", "off"));
        run.exits(0).prints("").says(says).says("--mode enforce");
        let is_probe = options.contains(&"health");
        assert_eq!(world.read("termination").is_none(), is_probe, "{options:?}");
    }
    // The flag asks for the checks all the same.
    let world = World::new();
    let mut command = world.check(&["--mode", "enforce", "--gpu", "required", "--stage", "device"]);
    Run::of(command.env("CUDA_ENTRYPOINT_MODE", "off")).exits(82);
}

#[test]
fn the_modes_flag_beats_its_variable_also_where_the_rest_is_wrong() {
    let world = World::new();
    let run = |mode: &str, variable: &str, more: &[&str]| {
        let mut command = world.run(&["--mode", mode], &[]);
        let mut words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        words.truncate(words.len() - 1); // `--`
        words.extend(more.iter().map(Into::into));
        command = world.entrypoint(words);
        Run::of(command.args(SERVICE).env("CUDA_ENTRYPOINT_MODE", variable))
    };
    run("enforce", "off", &["--no-such"]).exits(64).prints("");
    run("off", "enforce", &["--no-such"]).exits(7);
    run("enforce", "off", &[]).exits(7).prints("started 1\n");
    run("off", "enforce", &[]).exits(7).prints("started unset\n");
}

#[test]
fn a_mode_that_there_is_not_is_no_break_glass() {
    let world = World::new();
    for mode in ["of", "OFF", "Warn", "disabled", "0"] {
        Run::of(world.run(&[], &["true"]).env("CUDA_ENTRYPOINT_MODE", mode))
            .exits(78)
            .says("CUDA_ENTRYPOINT_MODE")
            .says("expected enforce, warn or off");
        Run::of(&mut world.run(&["--mode", mode], &["true"])).exits(64);
    }
}

#[test]
fn no_mode_starts_a_service_that_was_not_named() {
    let world = World::new();
    for mode in ["enforce", "warn", "off"] {
        for tail in [
            &[][..],
            &["--"],
            &["--no-such-option"],
            &["--no-such-option", "--"],
        ] {
            let mut command = world.entrypoint(["run", "--stack", "stack.json", "--gpu", "off"]);
            let run = Run::of(command.args(["--mode", mode]).args(tail));
            assert_eq!(run.code(), Some(64), "{mode} {tail:?}: {}", run.stderr);
            run.prints("").says("hint: ");
        }
    }
}

#[test]
fn a_forgotten_separator_does_no_harm() {
    let world = World::new();
    let mut command = world.entrypoint(["run", "--stack", "stack.json", "--gpu", "off"]);
    let run = Run::of(command.args(["sh", "-c", "echo \"$0 $1\"", "--mode", "off"]));
    run.exits(0).prints("--mode off\n").says("ok: ");
}

#[test]
fn off_opens_nothing_and_starts_nothing() {
    Need::Strace.demand();
    // By flag, by variable, and where the rest makes no sense.
    let ways: [(&[&str], &str); 3] = [
        (&["--mode", "off"], ""),
        (&[], "off"),
        (&["--mode=off", "--no-such-option"], ""),
    ];
    for (options, variable) in ways {
        let world = World::new();
        let mut command = world.command("strace");
        command.args(["-f", "-o", "trace", "-s", "4096"]);
        command.args(["-e", "trace=%file,fork,vfork,clone,clone3,memfd_create,socket"]);
        command.args([ENTRYPOINT, "run", "--stack", "stack.json", "--report", "report"]);
        command.args(options).args(["--", "true"]);
        command.env("CUDA_ENTRYPOINT_STACK", "/stack/of/the/variable");
        command.env("CUDA_ENTRYPOINT_MODE", variable);
        Run::of(&mut command).exits(0);
        let trace = fs::read_to_string(world.path("trace")).unwrap();
        let calls: Vec<&str> = trace
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.trim_start())
            .collect();
        let is_exec = |call: &&str| call.starts_with("execve(");
        assert!(is_exec(&calls[0]), "{trace}");
        let ours = calls[1..].iter().take_while(|call| !is_exec(call));
        let ours: Vec<&str> = ours.copied().collect();
        // The C library looks for its own name, and Rust's for the main thread's stack, before any line of ours.
        let of_the_runtime = [
            "readlink(\"/proc/self/exe\"",
            "openat(AT_FDCWD, \"/proc/self/maps\"",
            "statx(0, NULL",
        ];
        let of_path_lookup = |call: &str| {
            let looks = [
                "statx(AT_FDCWD, ",
                "access(",
                "newfstatat(AT_FDCWD, ",
                "faccessat",
            ];
            looks.iter().any(|look| call.starts_with(look)) && call.contains("/true\"")
        };
        let others: Vec<&&str> = ours
            .iter()
            .filter(|call| {
                !of_path_lookup(call)
                    && !of_the_runtime.iter().any(|own| call.starts_with(own))
                    && !call.starts_with("newfstatat(3, \"\"")
            })
            .collect();
        assert!(others.is_empty(), "{others:#?}\nof\n{trace}");
        assert!(ours.iter().any(|call| of_path_lookup(call)), "{trace}");
    }
}

/// As Docker has it, where the words behind the image take the place of CMD: `docker run IMAGE cuda-entrypoint check`.
#[test]
fn this_program_as_the_service_is_started_without_the_checks_of_one() {
    let world = World::new();
    let folder = Path::new(ENTRYPOINT).parent().unwrap();
    let path = std::env::join_paths([folder, Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let nested = |service: &[&str]| {
        let mut command = world.entrypoint([
            "run",
            "--stack",
            "stack.json",
            "--termination-log",
            "termination",
            "--",
        ]);
        command.args(service).env("PATH", &path);
        Run::of(&mut command)
    };
    for program in [ENTRYPOINT, "cuda-entrypoint"] {
        let explained = nested(&[program, "explain", "driver-missing"]);
        explained.exits(0);
        assert!(
            explained.text().starts_with("# driver-missing"),
            "{}",
            explained.text()
        );
        assert_eq!(explained.stderr, "");
        // There is no driver, and the table says so: once.
        let checked = nested(&[program, "check", "--stack", "stack.json"]);
        checked.exits(82);
        assert!(checked.text().contains("driver-missing"), "{}", checked.text());
        assert_eq!(checked.stderr, "");
        // It is checked what it is to start.
        nested(&[program, "run", "--stack", "stack.json", "--", "echo", "started"])
            .exits(82)
            .prints("");
    }
    // Behind the program of an ENTRYPOINT, where Docker appends it, and whatever the mode is.
    for words in [&["sh", "serve"][..], &["/no/such/program"]] {
        let checked = nested(&[words, &["cuda-entrypoint", "check", "--stack", "stack.json"]].concat());
        checked.exits(82);
        assert!(checked.text().contains("driver-missing"), "{}", checked.text());
        assert_eq!(checked.stderr, "");
        let mut off = world.entrypoint(["run", "--mode", "off", "--"]);
        off.args(words)
            .args(["cuda-entrypoint", "schema", "stack"])
            .env("PATH", &path);
        Run::of(&mut off).exits(0).says("nothing is checked");
    }
    // The name alone is an argument as any other, and so is a name of somebody else.
    for words in [["cuda-entrypoint", "serve"], ["other/cuda-entrypoint", "check"]] {
        world.program("other/cuda-entrypoint", "#!/bin/sh\necho started\n");
        nested(&[&["echo"], &words[..]].concat()).exits(82).prints("");
    }
    // Another program of that name is a service like any other.
    let other = world.program("other/cuda-entrypoint", "#!/bin/sh\necho started\n");
    nested(&[other.to_str().unwrap()]).exits(82).prints("");
}

/// `--` in front of the command ends options that are not there, as with other programs.
#[test]
fn two_dashes_before_the_command_change_nothing() {
    for (mode, says) in [
        ("enforce", "ok: "),
        ("warn", "ok: "),
        ("off", "nothing is checked"),
    ] {
        let world = World::new();
        let mut command = world.entrypoint([
            "--",
            "run",
            "--stack",
            "stack.json",
            "--gpu",
            "off",
            "--",
            "echo",
            "x",
        ]);
        Run::of(command.env("CUDA_ENTRYPOINT_MODE", mode))
            .exits(0)
            .prints("x\n")
            .says(says);
    }
    let world = World::new();
    Run::of(&mut world.entrypoint(["--", "check", "--stack", "stack.json", "--gpu", "off"])).exits(0);
}
