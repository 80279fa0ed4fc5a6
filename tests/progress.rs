//! The line on a terminal that says what takes long: what it says, where it is never seen, and that nothing of it is left.
#![cfg(feature = "entrypoint")]

use std::process::Command;
use std::time::Duration;

use crate::support::image::{CUDART, Image, c_library};
use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run, Running, World, children, eventually, kill, state};
use nix::sys::signal::Signal;

/// What takes the line away (ECMA-48: carriage return, erase to the end of the line).
const ERASE: &str = "\r\u{1b}[K";
/// The driver answers after two seconds and a half.
const SLOW: &str = r#"{"calls": {"cuInit": {"delay_ms": 2500}}}"#;
const HANGS: &str = r#"{"calls": {"cuInit": {"hang": true}}}"#;

/// A command line whose three streams are a terminal.
fn on_terminal(world: &World, line: &str) -> Command {
    let mut command = world.command("script");
    command.args(["-qec", line, "/dev/null"]).env("TERM", "xterm");
    command
}

/// `run` or `check` of the tiny manifest.
fn entrypoint(verb: &str, options: &str) -> String {
    let service = if verb == "run" { "-- true" } else { "" };
    format!("'{ENTRYPOINT}' {verb} --stack stack.json --termination-log termination {options} {service}")
}

/// What stands on the terminal in the end, without colours.
fn screen(raw: &str) -> String {
    let mut lines = vec![String::new()];
    for (index, part) in raw.split(ERASE).enumerate() {
        if index > 0 {
            lines.last_mut().unwrap().clear();
        }
        for (index, text) in part.replace("\r\n", "\n").split('\n').enumerate() {
            if index > 0 {
                lines.push(String::new());
            }
            lines.last_mut().unwrap().push_str(text);
        }
    }
    let text = lines.join("\n");
    let mut plain = String::new();
    let mut parts = text.split("\u{1b}[");
    plain.push_str(parts.next().unwrap());
    for part in parts {
        let (_, rest) = part.split_once('m').unwrap_or_else(|| panic!("{text:?}"));
        plain.push_str(rest);
    }
    plain
}

#[test]
fn a_slow_driver_is_named_and_the_report_stands_alone() {
    Need::Script.demand();
    for verb in ["run", "check"] {
        let world = World::new();
        let run = Run::of(world.with_gpu(&mut on_terminal(&world, &entrypoint(verb, "")), SLOW));
        let raw = run.exits(0).text();
        // Rewritten while it lasts.
        for second in ["1 s", "2 s"] {
            let line = format!("{ERASE}cuda-entrypoint: {second}: driver: cuInit");
            assert!(raw.contains(&line), "{verb}: no {line:?} in {raw:?}");
        }
        let piped = Run::of(
            world.with_gpu(
                world
                    .command("sh")
                    .args(["-c", &format!("{} 2>&1", entrypoint(verb, ""))]),
                "{}",
            ),
        );
        // A terminal's lines are filled, those of a file are not.
        let without_times = |text: &str| -> String {
            let numbers = text.split_whitespace().map(|word| match word.parse::<f64>() {
                Ok(_) => "N",
                Err(_) => word,
            });
            numbers.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            without_times(&screen(raw)),
            without_times(piped.text()),
            "{raw:?}"
        );
    }
}

#[test]
fn a_smoke_of_ones_own_is_named() {
    Need::Script.demand();
    let world = World::new();
    let smoke = r#"{"schema": 1, "name": "t", "smoke": [{"name": "nap", "argv": ["sleep", "2"]}]}"#;
    world.write("stack.json", smoke);
    let run = Run::of(&mut on_terminal(&world, &entrypoint("check", "--gpu off")));
    let raw = run.exits(0).text();
    assert!(raw.contains("cuda-entrypoint: 1 s: smoke: nap"), "{raw:?}");
    assert!(!screen(raw).contains("1 s:"), "{raw:?}");
}

/// The line makes way for every other one.
#[test]
fn other_lines_are_whole() {
    Need::Script.demand();
    let world = World::new();
    let not_ready = r#"{"calls": {"cuInit": {"returns": 802}}}"#;
    let line = entrypoint("check", "--wait 4s");
    let run = Run::of(world.with_gpu(&mut on_terminal(&world, &line), not_ready));
    let raw = run.exits(82).text();
    assert!(raw.contains("1 s: waiting to try again"), "{raw:?}");
    let screen = screen(raw);
    let waits: Vec<&str> = screen.lines().filter(|l| l.contains("waiting")).collect();
    assert!(waits.len() > 1, "{screen}");
    let whole = |line: &&str| line.starts_with("cuda-entrypoint: waiting up to ");
    assert!(waits.iter().all(whole), "{screen}");
}

#[test]
fn a_signal_takes_it_away() {
    Need::Script.demand();
    let world = World::new();
    let line = format!("exec {}", entrypoint("check", ""));
    let mut patience = Duration::from_millis(1_500);
    let seen = eventually(|| {
        let script = Running::start(world.with_gpu(&mut on_terminal(&world, &line), HANGS));
        let entrypoint = script.child_that(|pid| !children(pid).is_empty());
        // Long enough for the line to be there; on a machine that is busy, longer the next time.
        std::thread::sleep(patience);
        patience *= 2;
        kill(entrypoint, Signal::SIGTERM);
        let run = script.finish();
        let raw = run.text();
        let first = "cuda-entrypoint: ended by SIGTERM during the checks";
        assert_eq!(screen(raw).lines().next(), Some(first), "{raw:?}");
        raw.contains("driver: cuInit")
    });
    assert!(seen);
}

#[test]
fn whoever_wants_no_such_thing_gets_none() {
    let world = World::new();
    for verb in ["run", "check"] {
        let line = entrypoint(verb, "");
        let mut piped = world.command("sh");
        piped.args(["-c", &line]).env("TERM", "xterm");
        let run = Run::of(world.with_gpu(&mut piped, SLOW));
        let all = run.exits(0).text().to_string() + &run.stderr;
        assert!(!all.contains('\u{1b}') && !all.contains("cuInit"), "{all:?}");
    }
    Need::Script.demand();
    for (variable, options) in [
        (("NO_COLOR", "1"), ""),
        (("TERM", "dumb"), ""),
        (("X", ""), "--format json"),
        (("X", ""), "--log warn"),
    ] {
        let mut command = on_terminal(&world, &entrypoint("check", options));
        command.env(variable.0, variable.1);
        let run = Run::of(world.with_gpu(&mut command, SLOW));
        let raw = run.exits(0).text();
        assert!(!raw.contains("\u{1b}[K") && !raw.contains("1 s:"), "{raw:?}");
    }
}

#[test]
fn capturing_shows_the_library_that_takes_long() {
    Need::Script.demand();
    let (world, image) = (World::new(), Image::empty());
    let slow = "#include <unistd.h>\n__attribute__((constructor)) static void f(void) { sleep(2); }\n\
                int cudaRuntimeGetVersion(int *v) { *v = 12040; return 0; }";
    image.put(CUDART, &c_library(image.root(), "slow", slow));
    let line = format!(
        "'{ENTRYPOINT}' stack capture --python '{}'",
        image.env().display()
    );
    let run = Run::of(&mut on_terminal(&world, &line));
    let raw = run.exits(0).text();
    assert!(raw.contains("cuda-entrypoint: 1 s: CUDA"), "{raw:?}");
    assert!(raw.contains("libcudart.so.12"), "{raw:?}");
    let screen = screen(raw);
    assert!(
        screen.contains("\"runtime\": \"12.4\"") && !screen.contains("1 s:"),
        "{screen}"
    );
}

/// A folder that takes long: the process stands still for a while, wherever it is.
#[test]
fn listing_kernels_names_the_file() {
    Need::Script.demand();
    let world = World::new();
    for number in 0..2_000 {
        world.write(&format!("libs/{number}.so"), "no library");
    }
    let line = format!("exec '{ENTRYPOINT}' kernels libs");
    let expected = Run::of(&mut on_terminal(&world, &format!("{line} --json")));
    assert!(!expected.exits(0).text().contains('\u{1b}'));
    let seen = eventually(|| {
        let script = Running::start(&mut on_terminal(&world, &line));
        let is_ours = |pid: u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.starts_with("cuda-entrypoint"))
        };
        // It may be over already; then once more.
        let found = eventually(|| {
            let ours = children(script.pid()).into_iter().find(|pid| is_ours(*pid));
            if let Some(pid) = ours {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
                let _ = nix::sys::signal::kill(pid, Signal::SIGSTOP);
                std::thread::sleep(Duration::from_millis(1_300));
                let _ = nix::sys::signal::kill(pid, Signal::SIGCONT);
                // script(1) stops with what it runs, as soon as it hears of it, which on a busy machine is late.
                eventually(|| match state(script.pid()) {
                    Some('T') => {
                        kill(script.pid(), Signal::SIGCONT);
                        false
                    }
                    now => matches!(now, None | Some('Z')),
                });
            }
            ours.is_some() || children(script.pid()).is_empty()
        });
        assert!(found);
        let run = script.finish();
        let raw = run.exits(0).text();
        assert!(!screen(raw).contains("reading"), "{raw:?}");
        raw.contains("cuda-entrypoint: 1 s: reading libs")
    });
    assert!(seen);
}
